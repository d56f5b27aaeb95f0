//! Bytes that the application has written and the peer has not acknowledged, in slots that the
//! device can reach. Offsets count from `snd_una`; the queue knows no sequence numbers.
//!
//! A small write that finds everything sent gets a small slot with room for its headers in front,
//! so that header and payload leave as one piece; all else is appended to 4 KiB chunks. While one
//! such write is all there is, as between request and response, it lies beside the ring of chunks.
//!
//! Where no device cuts large frames, bytes are laid out as they will leave: each segment's payload
//! in one part of a slot with room for its headers in front, and with its sum taken while it is
//! copied, if the stack computes checksums. Its frame is then one piece, whose payload nobody reads
//! again. A segment with other ends, as after the loss of an acknowledgement or when the path
//! changed, is put together of pieces and summed anew: bytes never change, but what is summed does.

#[cfg(test)]
use super::hot_lines::{Place, places};
use crate::checksum::Sum;
use crate::copy::{copy, copy_any};
use crate::frame::{TX_HEADROOM, TX_PIECES_MAX};
use crate::memory::{CHUNK_SLOT_LEN, Memory, Piece, SMALL_SLOT_LEN, Slot, SlotClass};
use crate::ring::Ring;
#[cfg(test)]
use alloc::vec::Vec;

#[derive(Clone, Copy, Debug)]
struct Chunk {
    slot: Slot,
    start: u32,
    len: u32,
    /// End of the slot: bytes up to here may still be appended.
    end: u32,
    /// Free bytes before `start` that have never been handed to the device.
    headroom: bool,
    /// Whether the queue's reference of the slot is this chunk's: of several segments in one slot
    /// only the last one has it, so that any other reference is a device's.
    owner: bool,
    /// Where a segment behind this one begins in the slot, its headers included; 0 if this one was
    /// not laid out as a segment.
    next: u32,
    /// The sum of all bytes of the chunk, if it is known.
    sum: Option<Sum>,
}

impl Chunk {
    /// An empty one that has its slot's reference and may grow up to `end`.
    const fn new(slot: Slot, start: u32, end: u32) -> Chunk {
        Chunk { slot, start, len: 0, end, headroom: false, owner: true, next: 0, sum: None }
    }
}

/// What parts of slots that hold segments are aligned to: a cache line.
const SEGMENT_ALIGN: u32 = 64;

/// A place in the queue: where the next unsent byte lies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    chunk: usize,
    within: u32,
}

/// The one small write that is the whole queue, with headroom; the ring is empty meanwhile.
#[derive(Clone, Copy, Debug, Default)]
enum Lone {
    #[default]
    None,
    Unsent(Piece),
    Sent(Piece),
}

/// The queue. A lone write touches the end of it.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct SendQueue {
    chunks: Ring<Chunk>,
    unsent: Cursor,
    lone: Lone,
    bytes: u32,
}

#[cfg(test)]
impl SendQueue {
    /// What one small write touches that finds the queue empty.
    pub(super) fn hot() -> Vec<Place> {
        places!(SendQueue: lone, bytes)
    }
}

/// Pieces of a range, with no reference taken yet.
pub(super) type Pieces = arrayvec::ArrayVec<Piece, { TX_PIECES_MAX - 1 }>;

impl SendQueue {
    /// Bytes in the queue, sent or not.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.bytes
    }

    /// Takes all of `data` if it is one small write into an empty queue and a slot is to be had;
    /// otherwise does nothing. `header_len` is as in [`WriteLayout`].
    #[inline(always)]
    pub(super) fn write_lone<M: Memory>(
        &mut self,
        data: &[u8],
        header_len: u32,
        mem: &mut M,
    ) -> Option<usize> {
        let fits = data.len().wrapping_sub(1) < small_write_max(header_len);
        if self.bytes != 0 || !fits || mem.small_is_low() {
            return None;
        }
        let slot = mem.allocate(SlotClass::Small)?;
        let len = clamp_len(data.len(), SMALL_SLOT_LEN);
        let piece = Piece { slot, start: TX_HEADROOM + header_len, len };
        copy(mem.bytes_mut(piece), data);
        self.lone = Lone::Unsent(piece);
        self.bytes = len;
        Some(data.len())
    }

    /// The bytes of `piece`, with headers before them, have just been sent; the queue was empty.
    #[inline(always)]
    pub(super) fn put_sent(&mut self, piece: Piece) {
        debug_assert!(self.bytes == 0, "only into an empty queue");
        self.lone = Lone::Sent(piece);
        self.bytes = piece.len;
    }

    /// Copies as much of `data` as memory and `limit` (bytes in the queue) allow; returns how
    /// much. `header_len` is what the headers of this connection take; `sent` says whether all
    /// that is queued has been sent.
    pub(super) fn write<M: Memory>(
        &mut self,
        data: &[u8],
        limit: u32,
        layout: WriteLayout,
        mem: &mut M,
    ) -> usize {
        self.line_up();
        let room = limit.saturating_sub(self.bytes) as usize;
        let data = &data[..data.len().min(room)];
        if layout.all_sent
            && data.len().wrapping_sub(1) < small_write_max(layout.header_len)
            && !mem.small_is_low()
            && let Some(slot) = mem.allocate(SlotClass::Small)
        {
            let chunk = Chunk::new(slot, TX_HEADROOM + layout.header_len, SMALL_SLOT_LEN);
            return self.push(Chunk { headroom: true, ..chunk }, data, mem);
        }
        if layout.segment == 0 { self.append(data, mem) } else { self.lay_out(data, layout, mem) }
    }

    /// Puts a lone write into the ring, where any others follow it.
    #[inline]
    fn line_up(&mut self) {
        let (piece, sent) = match self.lone {
            Lone::None => return,
            Lone::Unsent(piece) => (piece, false),
            Lone::Sent(piece) => (piece, true),
        };
        let Piece { slot, start, len } = piece;
        self.lone = Lone::None;
        let chunk = Chunk::new(slot, start, SMALL_SLOT_LEN);
        self.chunks.push_back(Chunk { len, headroom: !sent, ..chunk });
        self.unsent = Cursor { chunk: 0, within: if sent { len } else { 0 } };
    }

    fn append<M: Memory>(&mut self, data: &[u8], mem: &mut M) -> usize {
        let mut rest = self.fill_last(data, mem);
        while rest < data.len() {
            let Some(slot) = mem.allocate(SlotClass::Chunk) else { break };
            rest += self.push(Chunk::new(slot, 0, CHUNK_SLOT_LEN), &data[rest..], mem);
        }
        rest
    }

    /// As [`SendQueue::append`], each segment by itself.
    fn lay_out<M: Memory>(&mut self, data: &[u8], layout: WriteLayout, mem: &mut M) -> usize {
        let mut done = 0;
        while done < data.len() {
            // What was sent goes on in a segment of its own.
            let last = self.chunks.back_mut();
            let grows = last.is_some_and(|last| last.headroom && last.start + last.len < last.end);
            if !grows && !self.open_segment(layout, mem) {
                break;
            }
            done += self.fill_last(&data[done..], mem);
        }
        done
    }

    /// Adds an empty segment, in the last one's slot if that has room; false if no slot is left.
    fn open_segment<M: Memory>(&mut self, layout: WriteLayout, mem: &mut M) -> bool {
        let needed = layout.segment_room();
        let shared = match self.chunks.back_mut() {
            Some(last) if last.next != 0 && last.next + needed <= CHUNK_SLOT_LEN => {
                last.owner = false;
                Some((last.slot, last.next))
            }
            Some(_) | None => None,
        };
        let place = shared.or_else(|| Some((mem.allocate(SlotClass::Chunk)?, 0)));
        let Some((slot, first)) = place else { return false };
        let end = first + needed;
        let chunk = Chunk::new(slot, end - layout.segment, end);
        let next = end.next_multiple_of(SEGMENT_ALIGN);
        let rest = Piece { slot, start: next, len: needed };
        mem.expect_writing(Some(rest).filter(|rest| next + rest.len <= CHUNK_SLOT_LEN), needed);
        let sum = layout.sums.then_some(Sum::ZERO);
        self.chunks.push_back(Chunk { headroom: true, next, sum, ..chunk });
        true
    }

    fn fill_last<M: Memory>(&mut self, data: &[u8], mem: &mut M) -> usize {
        let Some(last) = self.chunks.back_mut() else { return 0 };
        let free = last.end - (last.start + last.len);
        let n = clamp_len(data.len(), free);
        if n > 0 {
            let piece = Piece { slot: last.slot, start: last.start + last.len, len: n };
            let data = &data[..n as usize];
            match last.sum {
                Some(sum) => {
                    let behind = mem.copy_and_sum(piece, data);
                    last.sum = Some(sum.plus_at(last.len as usize, behind));
                }
                None => copy_any::<M>(mem.bytes_mut(piece), data),
            }
            last.len += n;
            self.bytes += n;
        }
        n as usize
    }

    /// Appends bytes that the application filled where they lie, taking over a reference of their
    /// slot; nothing is ever appended behind them in it.
    pub(super) fn push_piece(&mut self, piece: Piece) {
        self.line_up();
        let Piece { slot, start, len } = piece;
        self.chunks.push_back(Chunk { len, ..Chunk::new(slot, start, start + len) });
        self.bytes += len;
    }

    /// Adds an empty chunk with as much of `data` as fits.
    #[inline]
    fn push<M: Memory>(&mut self, chunk: Chunk, data: &[u8], mem: &mut M) -> usize {
        let len = clamp_len(data.len(), chunk.end - chunk.start);
        let piece = Piece { slot: chunk.slot, start: chunk.start, len };
        copy_any::<M>(mem.bytes_mut(piece), &data[..len as usize]);
        self.chunks.push_back(Chunk { len, ..chunk });
        self.bytes += len;
        len as usize
    }

    /// The next unsent bytes, at most `len`, as pieces: how many, and the place behind them.
    pub(super) fn peek_unsent(&mut self, len: u32, out: &mut Pieces) -> (Cursor, u32) {
        self.line_up();
        self.collect(self.unsent, len, out)
    }

    /// What is left of the segment of which a part was sent, if one was laid out there and is
    /// longer: a frame that ends with it puts the next ones in step with the layout again.
    pub(super) fn rest_of_segment(&self) -> Option<u32> {
        let chunk = self.chunks.get(self.unsent.chunk)?;
        let rest = chunk.len.saturating_sub(self.unsent.within);
        (chunk.next != 0 && self.unsent.within != 0 && rest != 0).then_some(rest)
    }

    /// The sum of what [`SendQueue::take_with_headroom`] has just taken, if it is known.
    #[inline]
    pub(super) fn sum_of_taken(&self) -> Option<Sum> {
        match self.lone {
            Lone::None => self.chunks.get(self.unsent.chunk)?.sum,
            Lone::Unsent(_) | Lone::Sent(_) => None,
        }
    }

    /// The bytes before `place` were sent.
    pub(super) fn sent_up_to(&mut self, place: Cursor) {
        self.unsent = place;
    }

    /// If the next unsent `len` bytes are exactly one whole chunk with untouched headroom, takes
    /// it: the headers then go in front, in the same slot.
    #[inline(always)]
    pub(super) fn take_with_headroom(&mut self, len: u32) -> Option<Piece> {
        if let Lone::Unsent(piece) = self.lone
            && piece.len == len
        {
            self.lone = Lone::Sent(piece);
            return Some(piece);
        }
        self.take_chunk_with_headroom(len)
    }

    #[inline(never)]
    fn take_chunk_with_headroom(&mut self, len: u32) -> Option<Piece> {
        self.take_segment(len).map(|(piece, _)| piece)
    }

    /// As [`SendQueue::take_with_headroom`], of one write of many or a segment that was laid out;
    /// with its sum, if that is known.
    #[inline]
    pub(super) fn take_segment(&mut self, len: u32) -> Option<(Piece, Option<Sum>)> {
        self.line_up();
        let mut chunk = self.chunks.get_mut(self.unsent.chunk)?;
        if self.unsent.within == chunk.len {
            self.unsent = Cursor { chunk: self.unsent.chunk + 1, within: 0 };
            chunk = self.chunks.get_mut(self.unsent.chunk)?;
        }
        if self.unsent.within != 0 {
            return None;
        }
        if !chunk.headroom || chunk.len != len {
            return None;
        }
        chunk.headroom = false;
        self.unsent = Cursor { chunk: self.unsent.chunk, within: len };
        Some((Piece { slot: chunk.slot, start: chunk.start, len }, chunk.sum))
    }

    /// Bytes at `offset`, at most `len`, for a retransmission.
    pub(super) fn peek(&mut self, offset: u32, len: u32, out: &mut Pieces) -> u32 {
        self.line_up();
        let mut at = Cursor::default();
        let mut left = offset;
        while let Some(chunk) = self.chunks.get(at.chunk) {
            if left < chunk.len {
                break;
            }
            left -= chunk.len;
            at.chunk += 1;
        }
        at.within = left;
        self.collect(at, len, out).1
    }

    fn collect(&self, from: Cursor, len: u32, out: &mut Pieces) -> (Cursor, u32) {
        let mut at = from;
        let mut taken = 0;
        while taken < len && !out.is_full() {
            let Some(chunk) = self.chunks.get(at.chunk) else { break };
            let n = (chunk.len - at.within).min(len - taken);
            if n == 0 {
                at = Cursor { chunk: at.chunk + 1, within: 0 };
                continue;
            }
            out.push(Piece { slot: chunk.slot, start: chunk.start + at.within, len: n });
            taken += n;
            at.within += n;
        }
        (at, taken)
    }

    /// Whether the device still reads any slot of the range of `len` bytes at `offset`.
    pub(super) fn in_device<M: Memory>(&mut self, offset: u32, len: u32, mem: &M) -> bool {
        let mut pieces = Pieces::new();
        self.peek(offset, len, &mut pieces);
        pieces.iter().any(|piece| mem.is_shared(piece.slot))
    }

    /// Drops `n` acknowledged bytes from the front.
    #[inline]
    pub(super) fn acknowledge<M: Memory>(&mut self, n: u32, mem: &mut M) {
        debug_assert!(n <= self.bytes);
        if let Lone::Sent(piece) = self.lone
            && piece.len == n
        {
            self.lone = Lone::None;
            self.bytes = 0;
            mem.release(piece.slot);
            return;
        }
        self.acknowledge_some(n, mem);
    }

    #[inline(never)]
    fn acknowledge_some<M: Memory>(&mut self, n: u32, mem: &mut M) {
        self.line_up();
        let mut left = n.min(self.bytes);
        self.bytes -= left;
        while let Some(chunk) = self.chunks.front_mut() {
            if left < chunk.len {
                chunk.start += left;
                chunk.len -= left;
                chunk.headroom = chunk.headroom && left == 0;
                chunk.sum = chunk.sum.filter(|_| left == 0);
                if self.unsent.chunk == 0 {
                    self.unsent.within = self.unsent.within.saturating_sub(left);
                }
                return;
            }
            left -= chunk.len;
            if chunk.owner {
                mem.release(chunk.slot);
            }
            self.chunks.pop_front();
            self.unsent = match self.unsent.chunk.checked_sub(1) {
                Some(chunk) => Cursor { chunk, within: self.unsent.within },
                None => Cursor::default(),
            };
        }
    }

    /// Gives every slot back.
    pub(super) fn clear<M: Memory>(&mut self, mem: &mut M) {
        self.line_up();
        while let Some(chunk) = self.chunks.pop_front() {
            if chunk.owner {
                mem.abandon(chunk.slot);
            }
        }
        self.bytes = 0;
        self.unsent = Cursor::default();
    }
}

/// How a write may be laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteLayout {
    /// Bytes of all headers of a segment of this connection.
    pub(super) header_len: u32,
    /// Whether everything queued so far has been sent.
    pub(super) all_sent: bool,
    /// Payload of a segment, if each is to be laid out by itself; else 0.
    pub(super) segment: u32,
    /// Whether their sums are wanted.
    pub(super) sums: bool,
}

impl WriteLayout {
    /// Bytes that a whole segment takes of a slot, with the room before it.
    fn segment_room(self) -> u32 {
        TX_HEADROOM + self.header_len + self.segment
    }

    /// Before it is known how long segments are, or where a device cuts large frames.
    pub(super) const fn unknown(header_len: u32) -> WriteLayout {
        WriteLayout { header_len, all_sent: false, segment: 0, sums: false }
    }

    /// Each segment of so many bytes by itself, if so two thirds of a slot are filled; less is not
    /// worth the memory.
    pub(super) fn of_segments(header_len: u32, segment: u32, sums: bool) -> WriteLayout {
        let layout = WriteLayout { segment, sums, ..WriteLayout::unknown(header_len) };
        let needed = layout.segment_room();
        let further = CHUNK_SLOT_LEN.checked_sub(needed);
        let count = further.map_or(0, |more| 1 + more / needed.next_multiple_of(SEGMENT_ALIGN));
        let worthwhile = 3 * count * segment >= 2 * CHUNK_SLOT_LEN;
        if worthwhile { layout } else { WriteLayout::unknown(header_len) }
    }
}

/// Longest write that shares a small slot with `header_len` bytes of headers before it.
#[inline]
pub(super) const fn small_write_max(header_len: u32) -> usize {
    (SMALL_SLOT_LEN - TX_HEADROOM).saturating_sub(header_len) as usize
}

#[inline]
fn clamp_len(len: usize, max: u32) -> u32 {
    u32::try_from(len).map_or(max, |len| len.min(max))
}

#[cfg(test)]
mod tests;
