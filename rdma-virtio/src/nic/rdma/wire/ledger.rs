//! How the receives that are posted are divided among peers.
//!
//! Invariant, at every moment: what all peers may send, two receives for control messages of each
//! possible peer, and one for each peer that is not there yet, are never more than the receives
//! posted, unless those shrank meanwhile; then nothing is granted until they are back.

/// Receives set aside for control messages, a peer: at most one update and one probe are on their
/// way.
pub const CONTROL_RESERVE: u32 = 2;

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
}

impl Ledger {
    /// A wire for so many peers at most.
    #[must_use]
    pub fn new(peers_max: u32) -> Ledger {
        Ledger { peers_max, peers: 0, posted: 0, posted_peak: 0, outstanding: 0, share: 1 }
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

    /// A receive completed and a credit was used.
    #[inline]
    pub fn on_used(&mut self) {
        self.on_completed();
        self.release(1);
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

    /// What is kept for control and for peers to come.
    #[inline]
    fn reserve(&self) -> u32 {
        self.peers_max * CONTROL_RESERVE + self.peers_max.saturating_sub(self.peers)
    }

    /// Credits that a peer should have when all is well.
    #[must_use]
    #[inline]
    pub fn share(&self) -> u32 {
        self.share
    }

    fn divide(&mut self) {
        let shared = self.posted_peak.saturating_sub(self.reserve());
        self.share = (shared / self.peers.max(1)).max(1);
    }

    /// How many credits a peer that has `held` gets now; they are booked.
    #[must_use]
    #[inline]
    pub fn grant(&mut self, held: u32) -> u32 {
        let room = self.posted.saturating_sub(self.reserve()).saturating_sub(self.outstanding);
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
    fn a_peer_that_comes_late_finds_a_credit_and_shares_even_out() {
        let mut ledger = Ledger::new(3);
        ledger.on_posted(20);
        ledger.join();
        let mut first = ledger.grant(0);
        assert_eq!(first, 20 - 6 - 2);
        ledger.join();
        let mut second = ledger.grant(0);
        assert_eq!(second, 1, "what was kept for it");
        for _ in 0..20 {
            ledger.on_completed();
            ledger.release(1);
            first -= 1;
            ledger.on_posted(1);
            second += ledger.grant(second);
            first += ledger.grant(first);
            assert_eq!(ledger.outstanding(), first + second);
        }
        assert_eq!((first, second), (6, 6));
        ledger.leave(first);
        assert_eq!(ledger.grant(second), 12 - 6);
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
