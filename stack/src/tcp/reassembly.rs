//! Data that arrived ahead of RCV.NXT, and the SACK blocks that tell of it (RFC 2018).
//!
//! Owns the pieces until RCV.NXT reaches them. Never delivers, never sends, never advances
//! RCV.NXT. Payload stays in the slots where the NIC put it; when the receive pool runs low, all
//! of it can be copied out ([`Reassembly::compact`]), so that a byte never pins a large slot for
//! long. What is held is not dropped again: what was reported by SACK stays reported.
//!
//! Invariants: segments are sorted, disjoint, non-empty, and ahead of RCV.NXT; `runs` covers
//! exactly their bytes; each piece owns one reference of its slot. Bounds: the receive window in
//! bytes, [`SEGMENTS_MAX`] segments, [`RUNS_MAX`] gaps.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::memory::{Memory, Piece};
use crate::tcp::ranges::RangeSet;
use crate::tcp::seq::SeqNum;
use crate::wire::tcp::{SACK_BLOCKS_MAX, SackBlock};

/// Most segments held. With segments of 1448 bytes that is a window of 5.9 MB behind one hole.
pub const SEGMENTS_MAX: usize = 4096;
/// Most separate runs of bytes held, hence gaps.
pub const RUNS_MAX: usize = 1024;
/// Bytes that compaction copies into one allocation at most.
const COMPACTED_MAX: usize = 64 * 1024;

/// Bytes that were copied out of slots.
#[derive(Debug)]
pub struct Owned {
    bytes: Box<[u8]>,
    start: usize,
}

impl Owned {
    /// The bytes; never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Data that became ready.
#[derive(Debug)]
pub enum Data {
    /// In a slot, with one reference, which passes to the caller.
    Piece(Piece),
    /// Copied out.
    Owned(Owned),
}

impl Data {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        match self {
            Data::Piece(piece) => piece.len,
            Data::Owned(owned) => u32::try_from(owned.as_slice().len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether there are no bytes; never so in what [`Reassembly::pop_ready`] returns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Without the first `n` bytes, which are fewer than there are.
    fn skip(self, n: u32) -> Data {
        match self {
            Data::Piece(piece) => Data::Piece(piece.skip(n)),
            Data::Owned(Owned { bytes, start }) => {
                Data::Owned(Owned { bytes, start: start + n as usize })
            }
        }
    }

    fn release<M: Memory>(self, mem: &mut M) {
        match self {
            Data::Piece(piece) => mem.release(piece.slot),
            Data::Owned(_) => {}
        }
    }
}

/// The receive window: where data may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveWindow {
    /// RCV.NXT.
    pub nxt: SeqNum,
    /// RCV.NXT + RCV.WND: data from here on is cut off.
    pub end: SeqNum,
}

/// What became of inserted data. The three numbers add up to its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Inserted {
    /// Bytes stored.
    pub stored: u32,
    /// Bytes that were there already, or lay before RCV.NXT.
    pub duplicate: u32,
    /// Bytes refused: beyond the window, or because the queue is full.
    pub refused: u32,
}

#[derive(Debug)]
struct Segment {
    start: SeqNum,
    data: Data,
}

/// Data ahead of RCV.NXT.
#[derive(Debug, Default)]
pub struct Reassembly {
    segments: VecDeque<Segment>,
    runs: RangeSet,
    /// A sequence number in each of the runs that received data last, the latest first
    /// (RFC 2018 §4).
    recent: ArrayVec<SeqNum, SACK_BLOCKS_MAX>,
    held_slots: u32,
}

impl Reassembly {
    /// An empty queue; allocates nothing.
    #[must_use]
    pub fn new() -> Reassembly {
        Reassembly::default()
    }

    /// Whether nothing is held.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes held.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.runs.bytes()
    }

    /// References to slots held.
    #[must_use]
    #[inline]
    pub fn held_slots(&self) -> usize {
        self.held_slots as usize
    }

    /// Takes the data at `seq`. One reference of each piece passes to the queue, which keeps or
    /// releases it. Where bytes overlap held ones, those stay (a retransmission that says something
    /// else is not believed). Works for data at RCV.NXT too.
    pub fn insert<M: Memory>(
        &mut self,
        seq: SeqNum,
        payload: &[Piece],
        window: ReceiveWindow,
        mem: &mut M,
    ) -> Inserted {
        let mut inserted = Inserted::default();
        let mut start = seq;
        for piece in payload {
            let Inserted { stored, duplicate, refused } =
                self.insert_piece(start, *piece, window, mem);
            inserted.stored += stored;
            inserted.duplicate += duplicate;
            inserted.refused += refused;
            start = start.plus(piece.len);
        }
        inserted
    }

    fn insert_piece<M: Memory>(
        &mut self,
        start: SeqNum,
        piece: Piece,
        window: ReceiveWindow,
        mem: &mut M,
    ) -> Inserted {
        let end = start.plus(piece.len);
        let mut cursor = start.max(window.nxt).min(end);
        let limit = end.min(window.end).max(cursor);
        let mut inserted = Inserted {
            stored: 0,
            duplicate: start.distance_to(cursor),
            refused: limit.distance_to(end),
        };
        let mut references = 0;
        while let Some(gap) = self.runs.gap(cursor, limit) {
            inserted.duplicate += cursor.distance_to(gap.start);
            let len = gap.start.distance_to(gap.end);
            if self.segments.len() >= SEGMENTS_MAX || self.runs.insert(gap, RUNS_MAX).is_err() {
                inserted.refused += len;
            } else {
                let part = piece.skip(start.distance_to(gap.start)).take(len);
                let at = self.segments.partition_point(|it| it.start.before(gap.start));
                self.segments.insert(at, Segment { start: gap.start, data: Data::Piece(part) });
                inserted.stored += len;
                references += 1;
                self.note_recent(gap.start);
            }
            cursor = gap.end;
        }
        inserted.duplicate += cursor.distance_to(limit);
        if references == 0 {
            // RFC 2018 §4: the segment that triggers the ACK comes first, also if it is a copy.
            self.note_recent(start);
        }
        self.held_slots += references;
        match references {
            0 => mem.release(piece.slot),
            more => (1..more).for_each(|_| mem.retain(piece.slot)),
        }
        inserted
    }

    /// The run that `seq` lies in, if any, comes first, and is named once.
    fn note_recent(&mut self, seq: SeqNum) {
        let Some(run) = self.runs.containing(seq) else { return };
        self.recent.retain(|it| it.before(run.start) || it.at_or_after(run.end));
        if self.recent.is_full() {
            self.recent.pop();
        }
        self.recent.insert(0, seq);
    }

    /// The first data, if RCV.NXT has reached it. The caller owns it and advances RCV.NXT by its
    /// length. What RCV.NXT has passed meanwhile is released.
    pub fn pop_ready<M: Memory>(&mut self, nxt: SeqNum, mem: &mut M) -> Option<Data> {
        loop {
            if self.segments.front()?.start.after(nxt) {
                self.forget_before(nxt);
                return None;
            }
            let Segment { start, data } = self.segments.pop_front()?;
            let end = start.plus(data.len());
            if let Data::Piece(_) = data {
                self.held_slots -= 1;
            }
            if end.at_or_before(nxt) {
                data.release(mem);
            } else {
                self.forget_before(end);
                return Some(data.skip(start.distance_to(nxt)));
            }
            self.forget_before(nxt);
        }
    }

    fn forget_before(&mut self, seq: SeqNum) {
        self.runs.remove_before(seq);
        self.recent.retain(|it| it.at_or_after(seq));
        if self.segments.is_empty() {
            self.recent.clear();
            self.segments = VecDeque::new();
        }
    }

    /// Copies all data out of slots and releases these; returns the number of bytes copied.
    /// Neighbouring segments are joined.
    pub fn compact<M: Memory>(&mut self, mem: &mut M) -> u32 {
        if self.held_slots == 0 {
            return 0;
        }
        let mut copied = 0;
        let mut compacted = VecDeque::new();
        let mut segments = core::mem::take(&mut self.segments).into_iter().peekable();
        while let Some(first) = segments.next() {
            let Data::Piece(_) = first.data else {
                compacted.push_back(first);
                continue;
            };
            let start = first.start;
            let mut joined: Vec<Piece> = Vec::new();
            let mut end = start;
            let mut next = Some(first);
            while let Some(Segment { data: Data::Piece(piece), .. }) = next {
                end = end.plus(piece.len);
                joined.push(piece);
                let room = COMPACTED_MAX.saturating_sub(start.distance_to(end) as usize);
                next = segments.next_if(|it| {
                    it.start == end
                        && matches!(it.data, Data::Piece(piece) if piece.len as usize <= room)
                });
            }
            let mut bytes = Vec::with_capacity(start.distance_to(end) as usize);
            for piece in joined {
                bytes.extend_from_slice(mem.bytes(piece));
                mem.release(piece.slot);
            }
            copied += start.distance_to(end);
            let data = Data::Owned(Owned { bytes: bytes.into_boxed_slice(), start: 0 });
            compacted.push_back(Segment { start, data });
        }
        self.segments = compacted;
        self.held_slots = 0;
        copied
    }

    /// Releases everything.
    pub fn clear<M: Memory>(&mut self, mem: &mut M) {
        for segment in core::mem::take(&mut self.segments) {
            segment.data.release(mem);
        }
        self.runs.clear();
        self.recent.clear();
        self.held_slots = 0;
    }

    /// The blocks to report: first the one that the latest data lies in, then those reported
    /// before it (RFC 2018 §4).
    #[must_use]
    pub fn sack_blocks(&self) -> ArrayVec<SackBlock, SACK_BLOCKS_MAX> {
        self.recent.iter().filter_map(|seq| self.runs.containing(*seq)).collect()
    }
}

#[cfg(test)]
mod tests;
