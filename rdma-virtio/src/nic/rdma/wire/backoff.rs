//! How long to wait before a peer is dialled again: doubling, bounded, spread.
//!
//! Invariant: never more than [`BACKOFF_MAX_NS`], so that a path that came back is found within it.

/// The first wait, in nanoseconds.
pub const BACKOFF_MIN_NS: u64 = 10_000_000;
/// The longest wait, in nanoseconds. With [`DIAL_NS_MAX`] it stays below the 2 s within which
/// connections move after a path returned.
pub const BACKOFF_MAX_NS: u64 = 500_000_000;
/// A dial that takes so long is given up, in nanoseconds: the host's own TCP would wait seconds
/// before it sends its next SYN.
pub const DIAL_NS_MAX: u64 = 700_000_000;
/// A word of the exchange that takes so long ends it, in nanoseconds.
pub const WORD_NS_MAX: u64 = 1_000_000_000;

/// The back-off of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    next_ns: u64,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next_ns: BACKOFF_MIN_NS }
    }
}

impl Backoff {
    /// The wait from now on, in nanoseconds: between half and all of the present step, as `seed`
    /// says, so that two hosts do not call each other in step for ever.
    #[must_use]
    pub fn next_wait(&mut self, seed: u64) -> u64 {
        let step = self.next_ns;
        self.next_ns = (step * 2).min(BACKOFF_MAX_NS);
        step / 2 + seed % (step / 2 + 1)
    }

    /// The peer was up: the next wait is the first one again.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_are_spread() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.next_wait(0) / 1_000_000).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 250, 250, 250]);
        for seed in [0, 1, 7, u64::MAX] {
            assert!((250_000_000..=BACKOFF_MAX_NS).contains(&backoff.next_wait(seed)));
        }
        backoff.reset();
        assert!(backoff.next_wait(3) <= BACKOFF_MIN_NS);
    }
}
