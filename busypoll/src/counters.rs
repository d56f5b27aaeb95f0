//! What the loop did and what its idling cost. Plain numbers, owned by the loop, copied out whole.

use crate::idle::Wake;
use crate::work::Phase;

/// Counters of one loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of any kind.
    pub turns: u64,
    /// Turns that went through the phases, since something was ready or due.
    pub busy_turns: u64,
    /// Turns that came more than the limit (default 1 ms) after the turn before: that one took
    /// too long, or the system ran something else on this core.
    pub long_turns: u64,
    /// Items done, by [`Phase`].
    pub done: [u64; Phase::COUNT],
    /// Turns in which a phase used up its budget, by [`Phase`].
    pub exhausted: [u64; Phase::COUNT],
    /// Runs of the cold work.
    pub cold: u64,
    /// Sleeps, each ended by exactly one of the wake-ups below.
    pub sleeps: u64,
    /// Sleeps given up since something came between arming and sleeping.
    pub sleeps_averted: u64,
    /// Nanoseconds spent in sleeps.
    pub slept_ns: u64,
    /// Wake-ups by the device.
    pub wakes_device: u64,
    /// Wake-ups by another thread's doorbell.
    pub wakes_doorbell: u64,
    /// Wake-ups at a deadline of the work.
    pub wakes_deadline: u64,
    /// Wake-ups for cold work only.
    pub wakes_cold: u64,
    /// Wake-ups by a signal.
    pub wakes_signal: u64,
}

impl Counters {
    /// Turns that found nothing: the price of polling.
    #[must_use]
    pub fn spins(&self) -> u64 {
        self.turns - self.busy_turns
    }

    /// Counts the end of a sleep.
    pub(crate) fn woke(&mut self, wake: Wake, for_deadline: bool, slept_ns: u64) {
        self.sleeps += 1;
        self.slept_ns += slept_ns;
        match wake {
            Wake::Device => self.wakes_device += 1,
            Wake::Doorbell => self.wakes_doorbell += 1,
            Wake::Timeout if for_deadline => self.wakes_deadline += 1,
            Wake::Timeout => self.wakes_cold += 1,
            Wake::Signal => self.wakes_signal += 1,
        }
    }

    /// Calls `visit` with the name and value of every counter.
    pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let fixed = [
            ("turns", self.turns),
            ("busy_turns", self.busy_turns),
            ("spins", self.spins()),
            ("long_turns", self.long_turns),
            ("cold", self.cold),
            ("sleeps", self.sleeps),
            ("sleeps_averted", self.sleeps_averted),
            ("slept_ns", self.slept_ns),
            ("wakes_device", self.wakes_device),
            ("wakes_doorbell", self.wakes_doorbell),
            ("wakes_deadline", self.wakes_deadline),
            ("wakes_cold", self.wakes_cold),
            ("wakes_signal", self.wakes_signal),
        ];
        for (name, value) in fixed {
            visit(name, value);
        }
        for phase in Phase::ALL {
            let (done, exhausted) = names(phase);
            visit(done, self.done[phase as usize]);
            visit(exhausted, self.exhausted[phase as usize]);
        }
    }
}

const fn names(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Control => ("control_done", "control_exhausted"),
        Phase::Receive => ("receive_done", "receive_exhausted"),
        Phase::Timers => ("timers_done", "timers_exhausted"),
        Phase::Application => ("application_done", "application_exhausted"),
        Phase::Transmit => ("transmit_done", "transmit_exhausted"),
        Phase::After => ("after_done", "after_exhausted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sleep_has_one_wake_up() {
        let mut counters = Counters::default();
        for (wake, for_deadline) in [
            (Wake::Device, false),
            (Wake::Doorbell, true),
            (Wake::Timeout, true),
            (Wake::Timeout, false),
            (Wake::Signal, false),
        ] {
            counters.woke(wake, for_deadline, 10);
        }
        let wakes = counters.wakes_device
            + counters.wakes_doorbell
            + counters.wakes_deadline
            + counters.wakes_cold
            + counters.wakes_signal;
        assert_eq!((counters.sleeps, wakes, counters.slept_ns), (5, 5, 50));
    }

    #[test]
    fn visit_names_each_counter_once() {
        let mut names = Vec::new();
        Counters::default().visit(&mut |name, _| names.push(name));
        let total = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), total), (25, 25));
    }
}
