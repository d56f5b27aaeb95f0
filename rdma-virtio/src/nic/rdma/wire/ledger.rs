//! How the receives that are posted are divided among peers.
//!
//! Invariant, at every moment: what all peers may send, two receives for control messages of each
//! possible peer, and one for each peer that is not there yet, are never more than the receives
//! posted, unless those shrank meanwhile; then nothing is granted until they are back.

/// Receives set aside for control messages, a peer: at most one update and one probe are on their
/// way.
pub const CONTROL_RESERVE: u32 = 2;

/// Peers for which a share is kept before they come: one that is idle never gives back what it was
/// granted, and who came later would have to do with a message at a time.
const SHARES: u32 = 8;
/// No share is kept that would leave those who are there with fewer credits than this: one message
/// at a time and a wait for its credit is worse than a late peer that begins so.
const SHARE_MIN: u32 = 4;
/// Most receives that wait to be posted together.
const TOGETHER_MAX: u32 = 32;
/// So many of a queue with fewer than eight times as many, if they are a third of it at most: then
/// the other two thirds last until they are told of, and no message needs a close look.
const FEW: u32 = 8;
/// Buffers come back in batches of so many, and until then their receives are not posted.
const BATCH: u32 = 16;

/// The receives and who may use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ledger {
    /// Peers that there may be.
    peers_max: u32,
    /// Peers that have credits.
    peers: u32,
    /// Receives with the NIC now, and at most so far.
    posted: u32,
    posted_peak: u32,
    /// Credits outstanding, of all peers.
    outstanding: u32,
    /// Credits that a peer should have when all is well.
    share: u32,
    /// What is kept for control and for peers to come.
    reserve: u32,
    /// Receives are posted again when so many wait for it.
    together: u32,
}

impl Ledger {
    /// A wire for so many peers at most.
    #[must_use]
    pub fn new(peers_max: u32) -> Ledger {
        let mut ledger = Ledger {
            peers_max,
            peers: 0,
            posted: 0,
            posted_peak: 0,
            outstanding: 0,
            share: 0,
            reserve: 0,
            together: 0,
        };
        ledger.divide();
        ledger
    }

    /// Receives that a wire of so many peers needs at least.
    #[must_use]
    pub fn receives_min(peers_max: u32) -> u32 {
        peers_max.saturating_mul(CONTROL_RESERVE + 1)
    }

    /// Receives were posted.
    #[inline]
    pub fn on_posted(&mut self, count: u32) {
        self.posted += count;
        if self.posted > self.posted_peak {
            self.posted_peak = self.posted;
            self.divide();
        }
    }

    /// A receive completed.
    #[inline]
    pub fn on_completed(&mut self) {
        self.posted = self.posted.saturating_sub(1);
    }

    /// So many receives completed, and as many credits were used.
    #[inline]
    pub fn on_used(&mut self, count: u32) {
        self.posted = self.posted.saturating_sub(count);
        self.release(count);
    }

    /// All receives came back without completing: the queue is a new one.
    pub fn on_renewed(&mut self) {
        self.posted = 0;
    }

    /// Receives with the NIC.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.posted
    }

    /// The most receives that the NIC ever had.
    #[must_use]
    pub fn posted_peak(&self) -> u32 {
        self.posted_peak
    }

    /// Credits of all peers.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// A peer begins without credits.
    pub fn join(&mut self) {
        self.peers += 1;
        self.divide();
    }

    /// A peer goes, with so many credits.
    pub fn leave(&mut self, outstanding: u32) {
        self.peers = self.peers.saturating_sub(1);
        self.divide();
        self.release(outstanding);
    }

    /// So many credits were used.
    #[inline]
    pub fn release(&mut self, count: u32) {
        self.outstanding = self.outstanding.saturating_sub(count);
    }

    /// Receives that may be away for a while although nobody lacks any. Without granting less than
    /// there are, those who come later would wait for them as long as nothing else arrives.
    #[inline]
    fn slack(&self) -> u32 {
        if self.peers_max > 1 { BATCH.min(self.posted_peak / 8) } else { 0 }
    }

    /// Credits that a peer should have when all is well.
    #[must_use]
    #[inline]
    pub fn share(&self) -> u32 {
        self.share
    }

    /// Receives are posted again when so many wait for it, so that a post costs little a message.
    #[must_use]
    #[inline]
    pub fn posted_together(&self) -> usize {
        self.together as usize
    }

    /// A peer with so few credits is to get some at once.
    #[must_use]
    #[inline]
    pub fn low(&self) -> u32 {
        self.share / 2
    }

    fn divide(&mut self) {
        self.reserve = self.peers_max * CONTROL_RESERVE + self.peers_max.saturating_sub(self.peers);
        let all = self.posted_peak.saturating_sub(self.reserve).saturating_sub(self.slack());
        let kept = self.peers_max.min(SHARES).min(all / SHARE_MIN);
        let parts = self.peers.max(kept).max(1);
        self.share = (all / parts).max(1);
        // An eighth of the queue, or some of a short one, so that credits do not run out meanwhile;
        // nor are so few left to a peer that those posted must be told of at once.
        let eighth = (self.posted_peak / 8).max((self.posted_peak / 3).min(FEW));
        self.together = eighth.min(TOGETHER_MAX).min(self.share.saturating_sub(1) / 2).max(1);
    }

    /// How many credits a peer that has `held` gets now; they are booked.
    #[must_use]
    #[inline]
    pub fn grant(&mut self, held: u32) -> u32 {
        let room = self.posted.saturating_sub(self.reserve).saturating_sub(self.outstanding);
        let more = self.share().saturating_sub(held).min(room);
        self.outstanding += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_gets_all_but_the_reserve() {
        let mut ledger = Ledger::new(1);
        ledger.on_posted(15);
        ledger.join();
        assert_eq!(ledger.grant(0), 13);
        assert_eq!(ledger.grant(13), 0);
        ledger.on_completed();
        ledger.release(1);
        assert_eq!(ledger.grant(12), 0, "its receive is not posted again");
        ledger.on_posted(1);
        assert_eq!(ledger.grant(12), 1);
    }

    #[test]
    fn a_peer_that_comes_late_finds_its_share_although_the_first_is_idle() {
        let mut ledger = Ledger::new(3);
        ledger.on_posted(32);
        ledger.join();
        let first = ledger.grant(0);
        assert_eq!(first, (32 - 6 - 2 - 4) / 3);
        // As many receives are away as may be, for good.
        (0..4).for_each(|_| ledger.on_completed());
        for _ in 0..2 {
            ledger.join();
            assert!(ledger.grant(0) >= first, "{ledger:?}");
        }
        ledger.leave(first);
        ledger.join();
        assert!(ledger.grant(0) >= first, "{ledger:?}");
    }

    #[test]
    fn of_few_receives_who_is_there_gets_what_is_left_and_one_waits_for_each_other() {
        // As many as 256 buffers of 4 KiB are.
        let mut ledger = Ledger::new(3);
        ledger.on_posted(14);
        ledger.join();
        let first = ledger.grant(0);
        assert!(first >= SHARE_MIN, "{ledger:?}");
        for _ in 0..2 {
            ledger.join();
            assert!(ledger.grant(0) >= 1, "{ledger:?}");
        }
    }

    #[test]
    fn by_default_each_of_four_that_may_come_has_a_window() {
        // 512 buffers of 4 KiB, and one listed peer besides three that are accepted.
        let mut ledger = Ledger::new(4);
        ledger.on_posted(29);
        let granted = [0; 4].map(|_| {
            ledger.join();
            ledger.grant(0)
        });
        assert!(granted.iter().all(|credits| *credits >= SHARE_MIN), "{granted:?}");
        assert!(granted.iter().sum::<u32>() + 4 * CONTROL_RESERVE <= ledger.posted());
    }

    #[test]
    fn beyond_the_shares_that_are_kept_one_credit_waits_and_shares_even_out() {
        let mut ledger = Ledger::new(10);
        ledger.on_posted(100);
        let mut held: Vec<u32> = (0..8)
            .map(|_| {
                ledger.join();
                ledger.grant(0)
            })
            .collect();
        assert!(held.iter().all(|held| *held >= 7), "{held:?}");
        for _ in 8..10 {
            ledger.join();
            held.push(ledger.grant(0));
        }
        assert!(held[9] >= 1, "what was kept for it: {held:?}");
        // All send, and what is posted again is granted anew.
        for round in 0..200 {
            let peer = round % 10;
            if held[peer] > 0 {
                held[peer] -= 1;
                ledger.on_completed();
                ledger.release(1);
                ledger.on_posted(1);
            }
            for held in held.iter_mut().rev() {
                *held += ledger.grant(*held);
            }
            assert_eq!(ledger.outstanding(), held.iter().sum::<u32>());
        }
        let share = ledger.share();
        assert!(held.iter().all(|held| *held >= share), "{held:?}, {share}");
    }

    #[test]
    fn the_sum_never_exceeds_what_is_posted() {
        let mut ledger = Ledger::new(4);
        assert_eq!(Ledger::receives_min(4), 12);
        ledger.on_posted(11);
        for _ in 0..4 {
            ledger.join();
        }
        let granted: u32 = (0..4).map(|_| ledger.grant(0)).sum();
        assert_eq!(granted, 3);
        assert!(granted + 8 <= ledger.posted());
    }
}
