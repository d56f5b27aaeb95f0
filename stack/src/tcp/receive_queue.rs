//! Bytes in order that the application has not read. They lie where the NIC put them; when the
//! receive pool runs low, or a connection pins much memory for few bytes, they are copied into
//! memory of the connection's own ("compacted"), so that an advertised window is always honoured.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hint::cold_path;

#[cfg(test)]
use super::hot_lines::{Place, places};
use crate::copy::copy;
use crate::memory::{Memory, Piece};
use crate::ring::Ring;

/// Pieces that a queue holds before it asks whether they are worth their slots.
const PIECES_BEFORE_COMPACTION: usize = 64;
/// Bytes in a slot below which a piece is not worth its slot.
const WORTHWHILE_BYTES: u32 = 512;
/// Compacted bytes that are taken out at a time.
const TAKEN_MAX: usize = 64 * 1024;

/// The queue: compacted bytes first, pieces after them. One piece that is all there is lies beside
/// the ring.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct ReceiveQueue {
    lone: Option<Piece>,
    bytes: u32,
    /// Never empty; in a box of its own, since it is rare and an idle connection is to be small.
    #[expect(clippy::box_collection, reason = "a pointer in place of the deque's four words")]
    compacted: Option<Box<VecDeque<u8>>>,
    pieces: Ring<Piece>,
}

#[cfg(test)]
impl ReceiveQueue {
    /// What one piece touches that finds the queue empty, and its reading.
    pub(super) fn hot() -> Vec<Place> {
        places!(ReceiveQueue: lone, bytes)
    }
}

impl ReceiveQueue {
    /// Unread bytes.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.bytes
    }

    /// Slots held.
    pub(super) fn slots(&self) -> usize {
        self.pieces.len() + usize::from(self.lone.is_some())
    }

    /// Appends a piece, taking over its reference; returns bytes compacted.
    #[inline(always)]
    pub(super) fn push<M: Memory>(&mut self, piece: Piece, mem: &mut M) -> u32 {
        if self.bytes == 0 && self.lone.is_none() && !mem.receive_is_low() {
            self.bytes = piece.len;
            self.lone = Some(piece);
            return 0;
        }
        self.push_behind(piece, mem)
    }

    /// Appends pieces of which the first has `skip` bytes that are not wanted, taking over their
    /// references; returns bytes compacted.
    #[inline(never)]
    pub(super) fn push_several<M: Memory>(
        &mut self,
        pieces: &[Piece],
        skip: u32,
        mem: &mut M,
    ) -> u32 {
        self.line_up();
        let mut skip = skip;
        for piece in pieces {
            let piece = piece.skip(skip);
            skip = 0;
            self.bytes += piece.len;
            self.pieces.push_back(piece);
        }
        if self.pieces.len() > PIECES_BEFORE_COMPACTION || mem.receive_is_low() {
            return self.compact_if_sparse(mem);
        }
        0
    }

    #[inline(never)]
    fn push_behind<M: Memory>(&mut self, piece: Piece, mem: &mut M) -> u32 {
        self.line_up();
        self.bytes += piece.len;
        self.pieces.push_back(piece);
        if self.pieces.len() > PIECES_BEFORE_COMPACTION || mem.receive_is_low() {
            return self.compact_if_sparse(mem);
        }
        0
    }

    /// Puts a lone piece into the ring, where any others follow it.
    #[inline]
    fn line_up(&mut self) {
        if let Some(piece) = self.lone.take() {
            self.pieces.push_front(piece);
        }
    }

    /// Appends bytes that lie in no slot.
    pub(super) fn push_bytes<M: Memory>(&mut self, bytes: &[u8], mem: &mut M) {
        self.compact(mem);
        if !bytes.is_empty() {
            self.compacted.get_or_insert_default().extend(bytes);
        }
        self.bytes += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    }

    fn compact_if_sparse<M: Memory>(&mut self, mem: &mut M) -> u32 {
        let in_pieces = self.bytes - u32::try_from(self.compacted_len()).unwrap_or(self.bytes);
        let count = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        if mem.receive_is_low() || in_pieces / count.max(1) < WORTHWHILE_BYTES {
            return self.compact(mem);
        }
        0
    }

    /// Copies all pieces into memory of the queue's own and releases them; returns bytes copied.
    pub(super) fn compact<M: Memory>(&mut self, mem: &mut M) -> u32 {
        self.line_up();
        let mut copied = 0;
        while let Some(piece) = self.pieces.pop_front() {
            if piece.len > 0 {
                self.compacted.get_or_insert_default().extend(mem.bytes(piece));
            }
            copied += piece.len;
            mem.release(piece.slot);
        }
        copied
    }

    /// Copies all unread bytes to `out` and forgets them, if they are one piece that fits;
    /// otherwise does nothing.
    #[inline(always)]
    pub(super) fn read_lone<M: Memory>(&mut self, out: &mut [u8], mem: &mut M) -> Option<usize> {
        let piece = self.lone?;
        if piece.len != self.bytes {
            return None;
        }
        let out = out.get_mut(..piece.len as usize)?;
        copy(out, mem.bytes(piece));
        mem.release(piece.slot);
        self.lone = None;
        self.bytes = 0;
        Some(out.len())
    }

    /// Copies unread bytes to `out` and forgets them; returns how many.
    pub(super) fn read<M: Memory>(&mut self, out: &mut [u8], mem: &mut M) -> usize {
        self.line_up();
        let mut done = if self.compacted.is_none() { 0 } else { self.read_compacted(out) };
        while done < out.len() {
            let Some(front) = self.pieces.front_mut() else { break };
            let room = u32::try_from(out.len() - done).unwrap_or(u32::MAX);
            let n = front.len.min(room);
            let source = Piece { slot: front.slot, start: front.start, len: n };
            copy(&mut out[done..done + n as usize], mem.bytes(source));
            done += n as usize;
            self.bytes -= n;
            if n == front.len {
                mem.release(front.slot);
                self.pieces.pop_front();
            } else {
                *front = front.skip(n);
            }
        }
        done
    }

    fn compacted_len(&self) -> usize {
        self.compacted.as_ref().map_or(0, |compacted| compacted.len())
    }

    #[cold]
    fn read_compacted(&mut self, out: &mut [u8]) -> usize {
        let Some(compacted) = &mut self.compacted else { return 0 };
        let n = compacted.len().min(out.len());
        let (a, b) = compacted.as_slices();
        let from_a = n.min(a.len());
        out[..from_a].copy_from_slice(&a[..from_a]);
        out[from_a..n].copy_from_slice(&b[..n - from_a]);
        compacted.drain(..n);
        if compacted.is_empty() {
            self.compacted = None;
        }
        self.bytes -= u32::try_from(n).unwrap_or(self.bytes);
        n
    }

    /// Takes unread bytes out in order, at most `max`, and hands them over piece by piece while
    /// `each` says that there is room for more; returns how many bytes that were.
    #[inline]
    pub(super) fn take_each<M: Memory>(
        &mut self,
        max: u32,
        mem: &mut M,
        mut each: impl FnMut(&mut M, Piece) -> bool,
    ) -> u32 {
        let mut done = 0;
        self.line_up();
        while done < max
            && let Some(front) = self.pieces.front_mut()
        {
            let mut piece = *front;
            let left = max - done;
            if piece.len <= left {
                self.pieces.drop_front();
            } else {
                mem.retain(piece.slot);
                *front = piece.skip(left);
                piece = piece.take(left);
            }
            done += piece.len;
            if !each(mem, piece) {
                break;
            }
        }
        self.bytes -= done;
        done
    }

    /// Takes bytes out that were copied out of the NIC's buffers earlier, at most `max`; `None` if
    /// what comes first lies there still.
    #[inline]
    pub(super) fn take_copied(&mut self, max: u32) -> Option<Vec<u8>> {
        self.compacted.as_ref()?;
        cold_path();
        let bytes = self.take_compacted(max);
        self.bytes -= u32::try_from(bytes.len()).unwrap_or(self.bytes);
        Some(bytes)
    }

    #[cold]
    fn take_compacted(&mut self, max: u32) -> Vec<u8> {
        let Some(compacted) = &mut self.compacted else { return Vec::new() };
        let n = compacted.len().min(TAKEN_MAX).min(max as usize);
        let bytes = compacted.drain(..n).collect();
        if compacted.is_empty() {
            self.compacted = None;
        }
        bytes
    }

    /// Copies unread bytes to `out` without forgetting them; returns how many.
    pub(super) fn peek<M: Memory>(&self, out: &mut [u8], mem: &M) -> usize {
        let mut done = 0;
        for (to, from) in out.iter_mut().zip(self.compacted.iter().flat_map(|all| all.iter())) {
            *to = *from;
            done += 1;
        }
        for piece in self.lone.iter().chain(self.pieces.iter()) {
            let room = u32::try_from(out.len() - done).unwrap_or(u32::MAX);
            let source = piece.take(piece.len.min(room));
            out[done..done + source.len as usize].copy_from_slice(mem.bytes(source));
            done += source.len as usize;
        }
        done
    }

    /// Forgets everything.
    pub(super) fn clear<M: Memory>(&mut self, mem: &mut M) {
        self.line_up();
        while let Some(piece) = self.pieces.pop_front() {
            mem.release(piece.slot);
        }
        self.compacted = None;
        self.bytes = 0;
    }
}
