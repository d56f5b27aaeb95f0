//! When to stop polling. The policy decides; it neither sleeps nor reads a clock.
//!
//! A core that polls answers at once and burns its time; a core that sleeps costs nothing and
//! answers a wake-up later (12 us for the waker and 20 us until it runs, measured on a virtual
//! machine). Without knowledge of the future the best fixed rule is to poll for as long as one
//! sleep and wake-up costs and then to sleep: whatever comes, that costs at most twice the best
//! choice (the ski-rental bound). [`Spin::Adaptive`] does better where the past tells the future:
//!
//! - It starts with the longest budget, `max_ns`, anew after each turn that made progress.
//! - A sleep that traffic ended within `max_ns` was too early, since polling on would have caught
//!   the event: the budget doubles, up to `max_ns`.
//! - A sleep that lasted longer was right and the polling before it in vain: the budget halves,
//!   down to `min_ns`, about the cost of one sleep and wake-up.
//!
//! So steady traffic is always polled for, and a request a second is paid with `min_ns` of polling.
//! KVM's halt polling adapts by the same two observations. Wake-ups without progress (cold work,
//! signals) neither adapt nor start a new budget: an idle process stays asleep.

use std::io;

/// How long a core polls without finding anything before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spin {
    /// Between the two, as the traffic suggests.
    Adaptive {
        /// Shortest time of polling, in nanoseconds.
        min_ns: u64,
        /// Longest time of polling, in nanoseconds.
        max_ns: u64,
    },
    /// Always: the core is given to the loop.
    Forever,
}

impl Spin {
    /// The default: 50 to 200 us.
    pub const DEFAULT: Spin = Spin::Adaptive { min_ns: 50_000, max_ns: 200_000 };
}

impl Default for Spin {
    fn default() -> Spin {
        Spin::DEFAULT
    }
}

/// What ended a sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// The device has an event.
    Device,
    /// Another thread rang the doorbell.
    Doorbell,
    /// The time was up.
    Timeout,
    /// A signal was handled (EINTR).
    Signal,
}

/// Sleeps for a loop. `arm` → the loop looks at its work once more → `sleep` → `disarm`: whatever
/// is published after `arm` and announced by a doorbell ends the sleep.
pub trait Sleeper {
    /// Announces the sleep to those who ring.
    fn arm(&mut self);

    /// Sleeps until an event or until `timeout_ns` have passed; for ever if `None`. May end early.
    ///
    /// # Errors
    /// If the system refuses to wait at all; a signal is no error.
    fn sleep(&mut self, timeout_ns: Option<u64>) -> io::Result<Wake>;

    /// The core is awake. Also called when the sleep was given up.
    fn disarm(&mut self);
}

/// A polling budget that never ends: 52 days without any progress.
pub const FOREVER_NS: u64 = 1 << 52;

/// The policy's state.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    spin: Spin,
    budget_ns: u64,
}

impl Idle {
    /// A policy that starts with the longest budget. A `min_ns` above `max_ns` is taken as
    /// `max_ns`.
    #[must_use]
    pub fn new(spin: Spin) -> Idle {
        match spin {
            Spin::Adaptive { min_ns, max_ns } => {
                let max_ns = max_ns.min(FOREVER_NS);
                let spin = Spin::Adaptive { min_ns: min_ns.min(max_ns), max_ns };
                Idle { spin, budget_ns: max_ns }
            }
            Spin::Forever => Idle { spin, budget_ns: FOREVER_NS },
        }
    }

    /// How long to poll now after the last progress; at most [`FOREVER_NS`].
    #[must_use]
    #[inline]
    pub fn budget_ns(&self) -> u64 {
        self.budget_ns
    }

    /// Learns from a sleep of `slept_ns`. Returns whether the budget changed.
    pub fn on_wake(&mut self, wake: Wake, slept_ns: u64) -> bool {
        let Spin::Adaptive { min_ns, max_ns } = self.spin else { return false };
        if matches!(wake, Wake::Timeout | Wake::Signal) {
            return false;
        }
        let before = self.budget_ns;
        let wanted = if slept_ns <= max_ns { before.saturating_mul(2) } else { before / 2 };
        // A budget of 0 (min_ns 0) could never double.
        self.budget_ns = wanted.max(min_ns).max(1).min(max_ns);
        self.budget_ns != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_follows_the_traffic() {
        type Row = (&'static str, &'static [(Wake, u64)], u64);
        let rows: &[Row] = &[
            ("starts long", &[], 200_000),
            ("rare requests halve it", &[(Wake::Device, 1_000_000)], 100_000),
            ("down to the minimum", &[(Wake::Device, 1_000_000); 9], 50_000),
            (
                "a sleep that was too early doubles it",
                &[(Wake::Doorbell, 1 << 30), (Wake::Doorbell, 1 << 30), (Wake::Device, 10)],
                100_000,
            ),
            ("up to the maximum", &[(Wake::Device, 10); 9], 200_000),
            ("timeouts teach nothing", &[(Wake::Timeout, 1 << 40)], 200_000),
            ("signals teach nothing", &[(Wake::Signal, 1)], 200_000),
        ];
        for (name, wakes, expected) in rows {
            let mut idle = Idle::new(Spin::DEFAULT);
            for (wake, slept) in *wakes {
                idle.on_wake(*wake, *slept);
            }
            assert_eq!(idle.budget_ns(), *expected, "{name}");
        }
    }

    #[test]
    fn absurd_limits_are_bounded() {
        let mut idle = Idle::new(Spin::Adaptive { min_ns: 9, max_ns: 0 });
        assert_eq!(idle.budget_ns(), 0);
        idle.on_wake(Wake::Device, 0);
        assert_eq!(idle.budget_ns(), 0);
        let mut idle = Idle::new(Spin::Forever);
        idle.on_wake(Wake::Device, u64::MAX);
        assert_eq!(idle.budget_ns(), FOREVER_NS);
    }
}
