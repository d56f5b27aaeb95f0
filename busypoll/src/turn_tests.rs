//! The turn against a scripted work and a scripted sleeper.

use super::*;

/// Work that records what was called, with so many items left for each phase.
#[derive(Default)]
struct Script {
    calls: Vec<&'static str>,
    left: [u32; Phase::COUNT],
    deadline: Option<u64>,
    pending_on_arm: bool,
    cold_takes_ns: u64,
}

impl Script {
    fn with(phase: Phase, items: u32) -> Script {
        let mut script = Script::default();
        script.left[phase as usize] = items;
        script
    }

    fn phase(&mut self, name: &'static str, phase: Phase, budget: u32) -> Progress {
        self.calls.push(name);
        let items = self.left[phase as usize].min(budget);
        self.left[phase as usize] -= items;
        Progress::done(items)
    }
}

impl Work for Script {
    fn ready(&mut self) -> bool {
        self.left.iter().any(|&items| items > 0)
    }
    fn control(&mut self, _: u64, budget: u32) -> Progress {
        self.phase("control", Phase::Control, budget)
    }
    fn receive(&mut self, _: u64, budget: u32) -> Progress {
        self.phase("receive", Phase::Receive, budget)
    }
    fn timers(&mut self, now: u64, budget: u32) -> Progress {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.left[Phase::Timers as usize] += 1;
        }
        self.phase("timers", Phase::Timers, budget)
    }
    fn application(&mut self, _: u64, budget: u32) -> Progress {
        self.phase("application", Phase::Application, budget)
    }
    fn transmit(&mut self, _: u64, budget: u32) -> Progress {
        self.phase("transmit", Phase::Transmit, budget)
    }
    fn doorbell(&mut self) {
        self.calls.push("doorbell");
    }
    fn after(&mut self, _: u64, budget: u32) -> Progress {
        self.phase("after", Phase::After, budget)
    }
    fn cold(&mut self, _: u64) {
        self.calls.push("cold");
        let until = crate::sys::monotonic_ns() + self.cold_takes_ns;
        while crate::sys::monotonic_ns() < until {}
    }
    fn deadline(&mut self) -> u64 {
        self.deadline.unwrap_or(u64::MAX)
    }
    fn arm(&mut self) -> Armed {
        self.calls.push("arm");
        if self.pending_on_arm { Armed::Pending } else { Armed::Quiet }
    }
    fn disarm(&mut self) {
        self.calls.push("disarm");
    }
}

/// A sleeper that answers `wake` at once and records the time-outs.
struct Sleeps {
    wake: Wake,
    timeouts: Vec<u64>,
    armed: bool,
}

impl Sleeps {
    fn waking_by(wake: Wake) -> Sleeps {
        Sleeps { wake, timeouts: Vec::new(), armed: false }
    }
}

impl Sleeper for Sleeps {
    fn arm(&mut self) {
        self.armed = true;
    }
    fn sleep(&mut self, timeout_ns: Option<u64>) -> io::Result<Wake> {
        assert!(self.armed, "armed before the sleep");
        self.timeouts.push(timeout_ns.unwrap());
        Ok(self.wake)
    }
    fn disarm(&mut self) {
        self.armed = false;
    }
}

fn spinning() -> Loop {
    Loop::new(Limits { spin: Spin::Forever, cold_period_ns: u64::MAX, ..Limits::default() })
}

fn sleepy() -> Loop {
    Loop::new(Limits { spin: Spin::Adaptive { min_ns: 0, max_ns: 0 }, ..Limits::default() })
}

#[test]
fn phases_come_in_their_order() {
    let mut work = Script::with(Phase::Receive, 1);
    assert_eq!(spinning().turn(&mut work), Turned::Busy);
    let order = ["control", "receive", "timers", "application", "transmit", "doorbell", "after"];
    assert_eq!(work.calls[..7], order);
    assert_eq!(work.calls[7..], ["cold"], "the first turn runs cold work");
}

#[test]
fn idle_turn_calls_no_phase() {
    let (mut turns, mut work) = (spinning(), Script::default());
    turns.turn(&mut work);
    work.calls.clear();
    for _ in 0..100 {
        assert_eq!(turns.turn(&mut work), Turned::Idle);
    }
    assert_eq!(work.calls, [""; 0]);
    let counters = turns.counters();
    assert_eq!((counters.turns, counters.busy_turns, counters.spins()), (101, 1, 100));
}

#[test]
fn budget_bounds_a_phase_and_the_rest_comes_next_turn() {
    for phase in Phase::ALL {
        let mut turns = Loop::new(Limits {
            budget: Budget::DEFAULT.with(phase, 10),
            spin: Spin::Forever,
            ..Limits::default()
        });
        let mut work = Script::with(phase, 25);
        for (left, exhausted) in [(15, 1), (5, 2), (0, 2)] {
            assert_eq!(
                turns.turn(&mut work),
                if left == 0 && phase == Phase::After { Turned::Idle } else { Turned::Busy }
            );
            assert_eq!(work.left[phase as usize], left, "{phase:?}");
            assert_eq!(turns.counters().exhausted[phase as usize], exhausted, "{phase:?}");
        }
        assert_eq!(turns.counters().done[phase as usize], 25, "{phase:?}");
    }
}

#[test]
fn a_deadline_that_comes_ends_the_idle_turns() {
    let mut turns = spinning();
    let deadline = turns.now() + 300_000;
    let mut work = Script { deadline: Some(deadline), ..Script::default() };
    let mut busy = 0;
    while work.deadline.is_some() {
        busy += u64::from(turns.turn(&mut work) == Turned::Busy);
    }
    assert!(turns.now() >= deadline);
    assert_eq!((busy, turns.counters().done[Phase::Timers as usize]), (1, 1));
}

#[test]
fn expect_work_makes_the_next_turn_look() {
    let (mut turns, mut work) = (spinning(), Script::default());
    turns.turn(&mut work);
    let before = turns.counters().busy_turns;
    turns.expect_work();
    assert_eq!(turns.turn(&mut work), Turned::Idle);
    assert_eq!(turns.counters().busy_turns, before + 1);
}

#[test]
fn a_long_turn_is_counted_once() {
    // A limit that preemption on a crowded machine does not reach.
    let long_turn_ns = 100_000_000;
    let mut turns = Loop::new(Limits { spin: Spin::Forever, long_turn_ns, ..Limits::default() });
    // The first turn stalls in its cold work; the second notices.
    let mut work = Script { cold_takes_ns: 120_000_000, ..Script::default() };
    turns.turn(&mut work);
    work.cold_takes_ns = 0;
    assert_eq!(turns.counters().long_turns, 0);
    turns.turn(&mut work);
    assert_eq!(turns.counters().long_turns, 1);
    turns.resume();
    turns.turn(&mut work);
    assert_eq!(turns.counters().long_turns, 1, "a pause is no long turn");
}

#[test]
fn spent_budget_leads_to_sleep_until_the_deadline() {
    let mut turns = sleepy();
    let deadline = turns.now() + 20_000_000;
    let mut work = Script { deadline: Some(deadline), ..Script::default() };
    let mut sleeper = Sleeps::waking_by(Wake::Timeout);
    assert_eq!(turns.run_once(&mut work, &mut sleeper).unwrap(), Turned::Spent);
    assert!(sleeper.timeouts[0] <= 20_000_000 && !sleeper.armed);
    let counters = turns.counters();
    assert_eq!((counters.sleeps, counters.wakes_deadline, counters.wakes_cold), (1, 1, 0));
}

#[test]
fn without_a_deadline_cold_work_bounds_the_sleep() {
    let (mut turns, mut work) = (sleepy(), Script::default());
    let mut sleeper = Sleeps::waking_by(Wake::Timeout);
    for sleeps in 1..=3 {
        assert_eq!(turns.run_once(&mut work, &mut sleeper).unwrap(), Turned::Spent);
        assert_eq!(turns.counters().wakes_cold, sleeps, "a wake-up without work sleeps again");
    }
    assert!(sleeper.timeouts.iter().all(|&timeout| timeout <= 50_000_000));
}

#[test]
fn what_came_while_arming_averts_the_sleep() {
    let (mut turns, mut sleeper) = (sleepy(), Sleeps::waking_by(Wake::Device));
    let mut armed_too_late = Script { pending_on_arm: true, ..Script::default() };
    turns.run_once(&mut armed_too_late, &mut sleeper).unwrap();
    let mut ready = Script::with(Phase::Control, 1);
    turns.sleep(&mut ready, &mut sleeper).unwrap();
    assert_eq!(ready.calls, ["arm", "disarm"]);
    let mut due = Script { deadline: Some(1), ..Script::default() };
    turns.sleep(&mut due, &mut sleeper).unwrap();
    assert_eq!(sleeper.timeouts, [0; 0]);
    assert_eq!((turns.counters().sleeps, turns.counters().sleeps_averted), (0, 3));
}

#[test]
fn a_real_idle_core_sleeps_nearly_all_the_time() {
    let bell = crate::Doorbell::new().unwrap();
    let mut wait = crate::EventWait::new(bell, None);
    let (mut turns, mut work) = (Loop::new(Limits::default()), Script::default());
    let started = turns.now();
    while turns.now() - started < 300_000_000 {
        turns.run_once(&mut work, &mut wait).unwrap();
    }
    let counters = turns.counters();
    // Half of the time, since a crowded machine may run others for long.
    assert!(counters.slept_ns > 150_000_000, "{counters:?}");
    assert!((1..=10).contains(&counters.sleeps), "{counters:?}");
    assert_eq!(counters.wakes_cold, counters.sleeps, "{counters:?}");
}
