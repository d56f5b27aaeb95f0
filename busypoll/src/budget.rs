//! How many items each phase may do in one turn. The bound on a turn's length is the sum of
//! budget times cost of an item; nothing else limits it.

use crate::work::Phase;

/// Items a phase may do in one turn, indexed by [`Phase`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget([u32; Phase::COUNT]);

impl Budget {
    /// The default: a turn of at most 64 frames in, large ones counting for several, and 64 frames
    /// out. At about 150 ns a small frame that is 20 us, the longest time that a timer or another
    /// thread's command waits for its turn; larger bursts measured no faster
    /// (docs/hot-path.md has what other budgets give).
    pub const DEFAULT: Budget = Budget([64, 64, 64, 64, 64, 64]);

    /// The same with another budget for `phase`; 0 is taken as 1, since a phase that may do
    /// nothing would never end.
    #[must_use]
    pub const fn with(mut self, phase: Phase, items: u32) -> Budget {
        self.0[phase as usize] = if items == 0 { 1 } else { items };
        self
    }

    /// The budget of `phase`.
    #[must_use]
    #[inline]
    pub const fn of(&self, phase: Phase) -> u32 {
        self.0[phase as usize]
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_zero() {
        let budget = Budget::DEFAULT.with(Phase::Timers, 0).with(Phase::Receive, 7);
        assert_eq!(budget.of(Phase::Timers), 1);
        assert_eq!(budget.of(Phase::Receive), 7);
        assert_eq!(budget.of(Phase::After), 64);
    }
}
