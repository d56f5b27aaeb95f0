//! Bytes in order that the application has not read. They lie where the NIC put them; when the
//! receive pool runs low, or a connection pins much memory for few bytes, they are copied into
//! memory of the connection's own ("compacted"), so that an advertised window is always honoured.
//!
//! A few bytes that come while nothing is queued are copied at once, into the queue itself: the
//! buffer in which they came is free again, and takes the next frame as it is.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hint::cold_path;

#[cfg(test)]
use super::hot_lines::{Place, places};
use super::zero_copy::Taken;
use crate::copy::{copy, copy_any};
use crate::memory::{Memory, Piece};
use crate::ring::Ring;

/// Pieces that a queue holds before it asks whether they are worth their slots.
const PIECES_BEFORE_COMPACTION: usize = 64;
/// Bytes in a slot below which a piece is not worth its slot.
const WORTHWHILE_BYTES: u32 = 512;
/// Most bytes that are copied at once: what a message that lies in a slot of the soft NIC has left
/// for them.
const SHORT_MAX: usize = 34;
/// Compacted bytes that are taken out at a time.
const TAKEN_MAX: usize = 64 * 1024;

/// A few bytes.
#[derive(Clone, Copy, Debug)]
struct Short {
    len: u8,
    bytes: [u8; SHORT_MAX],
}

impl Default for Short {
    fn default() -> Short {
        Short { len: 0, bytes: [0; SHORT_MAX] }
    }
}

impl Short {
    #[inline(always)]
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Takes bytes out at the front, as many as `out` has room for; returns how many.
    fn read(&mut self, out: &mut [u8]) -> usize {
        let all = self.as_slice();
        let n = all.len().min(out.len());
        out[..n].copy_from_slice(&all[..n]);
        self.bytes.copy_within(n.., 0);
        self.len -= u8::try_from(n).unwrap_or(self.len);
        n
    }
}

/// The queue: a few bytes, or compacted ones, first, pieces after them. One piece that is all there
/// is lies beside the ring.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct ReceiveQueue {
    lone: Option<Piece>,
    bytes: u32,
    /// Empty while there are compacted ones.
    short: Short,
    /// The application takes what it reads where it lies: nothing is copied at once.
    takes: bool,
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

    /// Copies `payload` if it is short and nothing is queued; otherwise does nothing.
    #[inline(always)]
    pub(super) fn push_short(&mut self, payload: &[u8]) -> bool {
        if self.bytes != 0 || payload.len().wrapping_sub(1) >= SHORT_MAX || self.takes {
            return false;
        }
        let Some(place) = self.short.bytes.get_mut(..payload.len()) else { return false };
        copy(place, payload);
        self.short.len = u8::try_from(payload.len()).unwrap_or(0);
        self.bytes = u32::from(self.short.len);
        true
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
        let Some((first, others)) = pieces.split_first() else { return 0 };
        let first = first.skip(skip);
        self.pieces.push_back(first);
        self.pieces.extend(others.iter().copied());
        self.bytes += first.len + others.iter().map(|piece| piece.len).sum::<u32>();
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
        let copied = self.compacted_len() + usize::from(self.short.len);
        let in_pieces = self.bytes - u32::try_from(copied).unwrap_or(self.bytes);
        let count = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        if mem.receive_is_low() || in_pieces / count.max(1) < WORTHWHILE_BYTES {
            return self.compact(mem);
        }
        0
    }

    /// Copies all pieces into memory of the queue's own and releases them; returns bytes copied.
    pub(super) fn compact<M: Memory>(&mut self, mem: &mut M) -> u32 {
        self.line_up();
        if self.short.len > 0 {
            self.compacted.get_or_insert_default().extend(self.short.as_slice());
            self.short.len = 0;
        }
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

    /// Copies all unread bytes to `out` and forgets them, if they are in one place and fit;
    /// otherwise does nothing.
    #[inline(always)]
    pub(super) fn read_lone<M: Memory>(&mut self, out: &mut [u8], mem: &mut M) -> Option<usize> {
        if self.short.len > 0 {
            if u32::from(self.short.len) != self.bytes {
                return None;
            }
            let out = out.get_mut(..usize::from(self.short.len))?;
            copy(out, self.short.as_slice());
            self.short.len = 0;
            self.bytes = 0;
            return Some(out.len());
        }
        let piece = self.lone?;
        if piece.len != self.bytes {
            return None;
        }
        let out = out.get_mut(..piece.len as usize)?;
        copy_any::<M>(out, mem.bytes(piece));
        mem.release(piece.slot);
        self.lone = None;
        self.bytes = 0;
        Some(out.len())
    }

    /// Copies unread bytes to `out` and forgets them; returns how many.
    pub(super) fn read<M: Memory>(&mut self, out: &mut [u8], mem: &mut M) -> usize {
        self.line_up();
        let mut done = if self.compacted.is_none() { 0 } else { self.read_compacted(out) };
        if self.short.len > 0 {
            done = self.short.read(out);
            self.bytes -= u32::try_from(done).unwrap_or(self.bytes);
        }
        while done < out.len() {
            let Some(front) = self.pieces.front_mut() else { break };
            let room = u32::try_from(out.len() - done).unwrap_or(u32::MAX);
            let n = front.len.min(room);
            let source = Piece { slot: front.slot, start: front.start, len: n };
            copy_any::<M>(&mut out[done..done + n as usize], mem.bytes(source));
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

    /// Shows `each` whole pieces in a row, the first ones, of which it takes some from the front.
    #[inline(always)]
    pub(super) fn take_run(&mut self, each: impl FnOnce(&[Piece]) -> Taken) -> Taken {
        self.line_up();
        let taken = each(self.pieces.front_run());
        self.pieces.drop_front(u32::from(taken.pieces));
        self.bytes -= taken.bytes;
        taken
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
                self.pieces.drop_front(1);
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
        self.takes = true;
        if self.compacted.is_none() && self.short.len == 0 {
            return None;
        }
        cold_path();
        let bytes = self.take_compacted(max);
        self.bytes -= u32::try_from(bytes.len()).unwrap_or(self.bytes);
        Some(bytes)
    }

    #[cold]
    fn take_compacted(&mut self, max: u32) -> Vec<u8> {
        let Some(compacted) = &mut self.compacted else {
            let mut bytes = alloc::vec![0; usize::from(self.short.len).min(max as usize)];
            self.short.read(&mut bytes);
            return bytes;
        };
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
        let copied = self.short.as_slice().iter();
        let copied = copied.chain(self.compacted.iter().flat_map(|all| all.iter()));
        for (to, from) in out.iter_mut().zip(copied) {
            *to = *from;
            done += 1;
        }
        for piece in self.lone.iter().chain(self.pieces.iter()) {
            let room = u32::try_from(out.len() - done).unwrap_or(u32::MAX);
            let source = piece.take(piece.len.min(room));
            copy_any::<M>(&mut out[done..done + source.len as usize], mem.bytes(source));
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
        self.short.len = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap_memory::{HeapLimits, HeapMemory};
    use proptest::prelude::*;

    /// Takes what the queue gives and gives it back.
    fn drain_taken(queue: &mut ReceiveQueue, max: u32, mem: &mut HeapMemory) -> Vec<u8> {
        if let Some(copied) = queue.take_copied(max) {
            return copied;
        }
        let mut bytes = Vec::new();
        queue.take_each(max, mem, |mem, piece| {
            bytes.extend_from_slice(mem.bytes(piece));
            mem.release(piece.slot);
            true
        });
        bytes
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in_wherever_they_lie(
            steps in proptest::collection::vec((0u8..8, 1usize..60), 0..200),
            takes in any::<bool>(),
        ) {
            let mut mem = HeapMemory::new(HeapLimits { receive: 64, ..HeapLimits::default() });
            let mut queue = ReceiveQueue::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0_u8;
            for (step, n) in steps {
                match step {
                    0..=3 => {
                        let bytes: Vec<u8> = (next..=u8::MAX).cycle().take(n).collect();
                        next = bytes[n - 1];
                        if !queue.push_short(&bytes) {
                            let Some(piece) = mem.receive(&bytes) else { continue };
                            queue.push(piece, &mut mem);
                        }
                        model.extend(bytes);
                    }
                    4 => {
                        let mut out = alloc::vec![0; n];
                        let read = queue.read_lone(&mut out, &mut mem);
                        let read = read.unwrap_or_else(|| queue.read(&mut out, &mut mem));
                        let wanted: Vec<u8> = model.drain(..read.min(model.len())).collect();
                        prop_assert_eq!(&out[..read], &wanted[..]);
                        prop_assert!(read == n || model.is_empty());
                    }
                    5 => {
                        let mut out = alloc::vec![0; n];
                        let seen = queue.peek(&mut out, &mem);
                        let wanted: Vec<u8> = model.iter().copied().take(n).collect();
                        prop_assert_eq!(&out[..seen], &wanted[..]);
                    }
                    6 if takes => {
                        let max = u32::try_from(n).unwrap();
                        let taken = drain_taken(&mut queue, max, &mut mem);
                        let wanted: Vec<u8> = model.drain(..taken.len()).collect();
                        prop_assert_eq!(taken, wanted);
                    }
                    _ => {
                        queue.compact(&mut mem);
                    }
                }
                prop_assert_eq!(queue.len() as usize, model.len());
            }
            queue.clear(&mut mem);
            prop_assert_eq!((queue.len(), mem.live_slots()), (0, 0));
        }
    }
}
