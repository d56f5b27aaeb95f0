//! A set of sequence numbers as sorted, disjoint, non-touching ranges.
//!
//! Owns the arithmetic that the SACK scoreboard and the reassembly queue share. Never judges a
//! range: callers ensure that all ranges they put in lie within 2^31 of one another. Invariant:
//! each range is non-empty and ends before the next begins.

use alloc::vec::Vec;

use crate::tcp::seq::SeqNum;
use crate::wire::tcp::SackBlock;

/// Ranges for which an emptied set keeps its memory.
const KEPT_RANGES_MAX: usize = 16;

/// The set holds as many ranges as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// Sorted, disjoint ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeSet {
    ranges: Vec<SackBlock>,
    bytes: u32,
}

impl RangeSet {
    pub(super) const fn new() -> RangeSet {
        RangeSet { ranges: Vec::new(), bytes: 0 }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes in all ranges.
    #[inline]
    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(super) fn ranges(&self) -> &[SackBlock] {
        &self.ranges
    }

    #[inline]
    pub(super) fn first(&self) -> Option<SackBlock> {
        self.ranges.first().copied()
    }

    #[inline]
    pub(super) fn last(&self) -> Option<SackBlock> {
        self.ranges.last().copied()
    }

    /// Adds a range; returns how many of its bytes are new. A range that touches none is refused
    /// if there are `ranges_max` already.
    pub(super) fn insert(&mut self, range: SackBlock, ranges_max: usize) -> Result<u32, Full> {
        debug_assert!(range.start.before(range.end));
        // The ranges from `low` to before `high` overlap or touch the new one.
        let low = self.ranges.partition_point(|it| it.end.before(range.start));
        let high = self.ranges.partition_point(|it| it.start.at_or_before(range.end));
        if low == high {
            if self.ranges.len() >= ranges_max {
                return Err(Full);
            }
            self.ranges.insert(low, range);
            let len = range.start.distance_to(range.end);
            self.bytes += len;
            return Ok(len);
        }
        let merged = SackBlock {
            start: self.ranges[low].start.min(range.start),
            end: self.ranges[high - 1].end.max(range.end),
        };
        let old: u32 = self.ranges[low..high].iter().map(|it| it.start.distance_to(it.end)).sum();
        let new = merged.start.distance_to(merged.end) - old;
        self.ranges[low] = merged;
        self.ranges.drain(low + 1..high);
        self.bytes += new;
        Ok(new)
    }

    /// Removes everything before `to`.
    pub(super) fn remove_before(&mut self, to: SeqNum) {
        let gone = self.ranges.partition_point(|it| it.end.at_or_before(to));
        for range in self.ranges.drain(..gone) {
            self.bytes -= range.start.distance_to(range.end);
        }
        match self.ranges.first_mut() {
            Some(first) if first.start.before(to) => {
                self.bytes -= first.start.distance_to(to);
                first.start = to;
            }
            Some(_) => {}
            None => self.give_memory_back(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
        self.bytes = 0;
        self.give_memory_back();
    }

    fn give_memory_back(&mut self) {
        if self.ranges.capacity() > KEPT_RANGES_MAX {
            self.ranges = Vec::new();
        }
    }

    /// The range that `at` lies in.
    pub(super) fn containing(&self, at: SeqNum) -> Option<SackBlock> {
        let index = self.ranges.partition_point(|it| it.end.at_or_before(at));
        self.ranges.get(index).copied().filter(|it| it.start.at_or_before(at))
    }

    /// Bytes from `from` to before `to` that are in no range.
    pub(super) fn missing(&self, from: SeqNum, to: SeqNum) -> u32 {
        if from.at_or_after(to) {
            return 0;
        }
        let low = self.ranges.partition_point(|it| it.end.at_or_before(from));
        let mut missing = from.distance_to(to);
        for range in self.ranges[low..].iter().take_while(|it| it.start.before(to)) {
            missing -= range.start.max(from).distance_to(range.end.min(to));
        }
        missing
    }

    /// The first gap from `from` to before `to`.
    pub(super) fn gap(&self, from: SeqNum, to: SeqNum) -> Option<SackBlock> {
        let low = self.ranges.partition_point(|it| it.end.at_or_before(from));
        let mut start = from;
        let mut end = to;
        if let Some(range) = self.ranges.get(low) {
            if range.start.after(from) {
                end = range.start.min(to);
            } else {
                // Ranges do not touch, so that there is a gap behind this one.
                start = range.end;
                end = self.ranges.get(low + 1).map_or(to, |next| next.start.min(to));
            }
        }
        start.before(end).then_some(SackBlock { start, end })
    }
}
