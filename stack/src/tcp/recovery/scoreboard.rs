//! What the peer has reported by SACK (RFC 6675 §3 and §4).
//!
//! Owns the reported ranges and what follows from them: which bytes count as lost. Never sends
//! and never trusts: a block outside what is in flight is ignored, and no more than [`RANGES_MAX`]
//! ranges are kept, the rest being forgotten, which only delays recovery. Invariant: all ranges
//! lie between SND.UNA (not included) and SND.NXT.

use crate::tcp::ranges::RangeSet;
use crate::tcp::seq::SeqNum;
use crate::wire::tcp::SackBlock;

/// Most ranges remembered.
pub const RANGES_MAX: usize = 128;
/// DupThresh (RFC 6675 §2).
pub(super) const DUP_THRESH: u32 = 3;

/// What a segment's blocks told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Update {
    /// Bytes reported for the first time.
    pub(super) newly_sacked: u32,
    /// Blocks out of bounds or forgotten.
    pub(super) ignored: u8,
}

/// Whether the peer still has what it reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Honesty {
    /// As far as can be seen.
    Kept,
    /// It acknowledged up to a range that it had reported, and not over it: the range is gone.
    Reneged,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Scoreboard {
    sacked: RangeSet,
}

impl Scoreboard {
    pub(super) const fn new() -> Scoreboard {
        Scoreboard { sacked: RangeSet::new() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.sacked.is_empty()
    }

    /// Bytes reported.
    #[inline]
    pub(super) fn bytes(&self) -> u32 {
        self.sacked.bytes()
    }

    /// Update() of RFC 6675 §4. D-SACK blocks (RFC 2883) lie below SND.UNA or within another
    /// block, and change nothing.
    pub(super) fn update(
        &mut self,
        snd_una: SeqNum,
        snd_nxt: SeqNum,
        blocks: &[SackBlock],
    ) -> Update {
        let mut update = Update::default();
        for block in blocks {
            if block.start.before(block.end) && block.end.at_or_before(snd_una) {
                continue;
            }
            let sound = block.start.after(snd_una)
                && block.start.before(block.end)
                && block.end.at_or_before(snd_nxt);
            match sound.then(|| self.sacked.insert(*block, RANGES_MAX)) {
                Some(Ok(new)) => update.newly_sacked += new,
                Some(Err(_)) | None => update.ignored += 1,
            }
        }
        update
    }

    /// The cumulative acknowledgment advanced to `snd_una`. A peer that acknowledges just up to a
    /// reported range, or into it, has dropped that range (RFC 2018 §8): everything is forgotten.
    pub(super) fn on_advance(&mut self, snd_una: SeqNum) -> Honesty {
        self.sacked.remove_before(snd_una);
        match self.sacked.first() {
            Some(first) if first.start == snd_una => {
                self.sacked.clear();
                Honesty::Reneged
            }
            Some(_) | None => Honesty::Kept,
        }
    }

    pub(super) fn clear(&mut self) {
        self.sacked.clear();
    }

    /// The sequence number below which every unreported byte is lost, IsLost() of RFC 6675 §4:
    /// DupThresh ranges, or more than DupThresh - 1 segments' worth of bytes, are reported above.
    /// Looks at no more than three ranges.
    pub(super) fn lost_before(&self, mss: u32) -> Option<SeqNum> {
        let mut ranges = 0;
        let mut bytes = 0;
        for range in self.sacked.ranges().iter().rev() {
            ranges += 1;
            bytes += range.start.distance_to(range.end);
            if ranges >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss {
                return Some(range.start);
            }
        }
        None
    }

    /// Where the highest reported range begins, and ends.
    pub(super) fn highest(&self) -> Option<SackBlock> {
        self.sacked.last()
    }

    /// Unreported bytes from `from` to before `to`.
    pub(super) fn missing(&self, from: SeqNum, to: SeqNum) -> u32 {
        self.sacked.missing(from, to)
    }

    /// The first unreported range from `from` to before `to`.
    pub(super) fn gap(&self, from: SeqNum, to: SeqNum) -> Option<SackBlock> {
        self.sacked.gap(from, to)
    }

    /// The ranges, for tests.
    #[cfg(test)]
    pub(super) fn ranges(&self) -> &[SackBlock] {
        self.sacked.ranges()
    }
}
