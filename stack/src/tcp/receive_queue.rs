//! Bytes in order that the application has not read. They lie where the NIC put them; when the
//! receive pool runs low, or a connection pins much memory for few bytes, they are copied into
//! memory of the connection's own ("compacted"), so that an advertised window is always honoured.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::copy::copy;
use crate::memory::{Memory, Piece};
use crate::ring::Ring;

/// Pieces that a queue holds before it asks whether they are worth their slots.
const PIECES_BEFORE_COMPACTION: usize = 64;
/// Bytes in a slot below which a piece is not worth its slot.
const WORTHWHILE_BYTES: u32 = 512;
/// Compacted bytes that are taken out at a time.
const TAKEN_MAX: usize = 64 * 1024;

/// Received bytes that leave the queue without a copy.
#[derive(Debug)]
pub enum Taken {
    /// Where the NIC put them; the reference passes to the taker.
    Piece(Piece),
    /// Copied out of the NIC's buffers earlier ("compacted").
    Bytes(Vec<u8>),
}

/// The queue: compacted bytes first, pieces after them. One piece that is all there is lies beside
/// the ring.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    lone: Option<Piece>,
    bytes: u32,
    compacted: VecDeque<u8>,
    pieces: Ring<Piece>,
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
    #[inline]
    pub(super) fn push<M: Memory>(&mut self, piece: Piece, mem: &mut M) -> u32 {
        if self.bytes == 0 && self.lone.is_none() && !mem.receive_is_low() {
            self.bytes = piece.len;
            self.lone = Some(piece);
            return 0;
        }
        self.push_behind(piece, mem)
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
        self.compacted.extend(bytes);
        self.bytes += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    }

    fn compact_if_sparse<M: Memory>(&mut self, mem: &mut M) -> u32 {
        let in_pieces = self.bytes - u32::try_from(self.compacted.len()).unwrap_or(self.bytes);
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
            self.compacted.extend(mem.bytes(piece));
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
        let mut done = if self.compacted.is_empty() { 0 } else { self.read_compacted(out) };
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

    #[cold]
    fn read_compacted(&mut self, out: &mut [u8]) -> usize {
        let n = self.compacted.len().min(out.len());
        let (a, b) = self.compacted.as_slices();
        let from_a = n.min(a.len());
        out[..from_a].copy_from_slice(&a[..from_a]);
        out[from_a..n].copy_from_slice(&b[..n - from_a]);
        self.compacted.drain(..n);
        if self.compacted.is_empty() {
            self.compacted = VecDeque::new();
        }
        self.bytes -= u32::try_from(n).unwrap_or(self.bytes);
        n
    }

    /// Takes the first unread bytes out, at most `max` of them, as one piece; `None` if there are
    /// none.
    pub(super) fn take<M: Memory>(&mut self, max: u32, mem: &mut M) -> Option<Taken> {
        if !self.compacted.is_empty() {
            let n = self.compacted.len().min(TAKEN_MAX).min(max as usize);
            let bytes: Vec<u8> = self.compacted.drain(..n).collect();
            self.bytes -= u32::try_from(n).unwrap_or(self.bytes);
            return Some(Taken::Bytes(bytes));
        }
        if let Some(piece) = self.lone.take_if(|piece| piece.len <= max) {
            self.bytes -= piece.len;
            return Some(Taken::Piece(piece));
        }
        self.line_up();
        let front = self.pieces.front_mut()?;
        let piece = *front;
        if piece.len <= max {
            self.pieces.pop_front();
            self.bytes -= piece.len;
            return Some(Taken::Piece(piece));
        }
        mem.retain(piece.slot);
        *front = piece.skip(max);
        self.bytes -= max;
        Some(Taken::Piece(piece.take(max)))
    }

    /// Copies unread bytes to `out` without forgetting them; returns how many.
    pub(super) fn peek<M: Memory>(&self, out: &mut [u8], mem: &M) -> usize {
        let mut done = 0;
        for (to, from) in out.iter_mut().zip(self.compacted.iter()) {
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
        self.compacted = VecDeque::new();
        self.bytes = 0;
    }
}
