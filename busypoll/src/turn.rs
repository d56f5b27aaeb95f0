//! The turn: control → receive → timers → application → transmit → one doorbell → after → cold work
//! → idle policy. Everything that happens on a core happens in here, in this order.
//!
//! The clock is read once a turn, before anything is polled: its reading overlaps with the wait for
//! the first load, and timers are judged by a time before the frames that were received, never
//! after. An idle turn reads the counter, asks [`Work::ready`] and compares with one alarm: the
//! earliest of the work's deadline, the cold work and the end of the polling budget, in ticks. A
//! turn with traffic spares itself that sum and sets the alarm a few microseconds ahead; the first
//! turn that finds it rung and nothing to do works it out.
//!
//! The loop owns no thread. A pinned thread calls [`Loop::run_once`] for ever; threads that take
//! turns call [`Loop::turn`] while they hold the worker, and [`Loop::resume`] after a pause.

use crate::budget::Budget;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::idle::{Idle, Sleeper, Spin, Wake};
use crate::work::{Armed, Phase, Progress, Work};
use std::io;

/// How long after traffic the alarm is worked out: by so much a deadline may be noticed late. No
/// longer than the polling budget, so that who wants to sleep at once does.
const QUANTUM_NS: u64 = 2_000;

/// The limits of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Items a phase may do in one turn.
    pub budget: Budget,
    /// When to stop polling.
    pub spin: Spin,
    /// Time between two runs of the cold work while the core is awake; at most an hour.
    pub cold_period_ns: u64,
    /// The same while it sleeps: 50 ms are 20 wake-ups a second, under 0.1 % of a core.
    pub cold_period_asleep_ns: u64,
    /// A turn longer than this is counted; at least `cold_period_ns`, since that alarm finds it.
    pub long_turn_ns: u64,
}

impl Limits {
    /// The longest period that makes sense; keeps sums of times far from overflow.
    const PERIOD_MAX_NS: u64 = 3_600_000_000_000;

    fn bounded(mut self) -> Limits {
        self.cold_period_ns = self.cold_period_ns.min(Limits::PERIOD_MAX_NS);
        self.cold_period_asleep_ns = self.cold_period_asleep_ns.min(Limits::PERIOD_MAX_NS);
        self.long_turn_ns = self.long_turn_ns.clamp(self.cold_period_ns, Limits::PERIOD_MAX_NS);
        self
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            budget: Budget::DEFAULT,
            spin: Spin::DEFAULT,
            cold_period_ns: 1_000_000,
            cold_period_asleep_ns: 50_000_000,
            long_turn_ns: 1_000_000,
        }
    }
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turned {
    /// Nothing was ready or due, or only cold work was.
    Idle,
    /// A phase made progress.
    Busy,
    /// Nothing came for the whole polling budget: the caller may let the core sleep.
    Spent,
}

/// A sleep under way, between [`Loop::prepare_sleep`] and [`Loop::finish_sleep`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nap {
    since_ns: u64,
    until_ns: u64,
    for_deadline: bool,
}

impl Nap {
    /// The longest that it may last, from its beginning.
    #[must_use]
    pub fn timeout_ns(&self) -> u64 {
        self.until_ns - self.since_ns
    }

    /// When it ends at the latest.
    #[must_use]
    pub fn until_ns(&self) -> u64 {
        self.until_ns
    }
}

/// The loop of one core: its clock, limits and counters.
pub struct Loop {
    clock: Clock,
    /// Ticks from which a turn goes through its phases whatever `ready` says; 0 for at once.
    alarm: u64,
    /// The last turn had no traffic: [`Work::ready`] is asked before the phases. After one with
    /// traffic it is not, since most likely there is more.
    asks: bool,
    /// Ticks of the last turn.
    last: u64,
    /// Whether there was traffic since `spin_until` was worked out.
    traffic: bool,
    /// Ticks at which the polling budget ends.
    spin_until: u64,
    /// `QUANTUM_NS`, or a shorter polling budget, in ticks.
    quantum: u64,
    /// The polling budget and the longest turn that is not counted, in ticks.
    spin: u64,
    long_turn: u64,
    /// Time of the next cold work.
    cold_due_ns: u64,
    counters: Counters,
    limits: Limits,
    idle: Idle,
}

/// A turn whose first part is done: see [`Loop::begin`].
#[derive(Debug)]
#[must_use]
pub struct Begun {
    now: u64,
    tally: Tally,
}

/// What the phases of one turn came to.
#[derive(Debug, Default)]
struct Tally {
    traffic: bool,
    exhausted: bool,
}

impl Loop {
    /// A loop that polls from now on.
    #[must_use]
    pub fn new(limits: Limits) -> Loop {
        let limits = limits.bounded();
        let mut clock = Clock::new();
        let idle = Idle::new(limits.spin);
        let (last, now) = (clock.ticks(), clock.now());
        let spin = clock.ticks_in(idle.budget_ns());
        Loop {
            alarm: 0,
            asks: true,
            last,
            traffic: true,
            spin_until: last,
            quantum: clock.ticks_in(QUANTUM_NS.min(idle.budget_ns())),
            spin,
            long_turn: clock.ticks_in(limits.long_turn_ns),
            cold_due_ns: now,
            counters: Counters::default(),
            limits,
            idle,
            clock,
        }
    }

    /// One turn. Never sleeps.
    #[inline]
    pub fn turn<W: Work>(&mut self, work: &mut W) -> Turned {
        let Some(begun) = self.begin(work) else { return Turned::Idle };
        let done = work.application(begun.now, self.limits.budget.of(Phase::Application));
        self.finish(work, begun, done)
    }

    /// The part of a turn before [`Work::application`], for who runs that without holding the work,
    /// which borrows it once a part: [`Loop::finish`] follows. `None` if there is nothing to do.
    #[inline(always)]
    pub fn begin<W: Work>(&mut self, work: &mut W) -> Option<Begun> {
        self.counters.turns += 1;
        let ticks = self.clock.ticks();
        let before = std::mem::replace(&mut self.last, ticks);
        if self.asks && !work.ready() && ticks < self.alarm {
            return None;
        }
        self.note_length(before, ticks);
        let now = self.clock.at(ticks);
        let mut tally = Tally::default();
        let done = work.control(now, self.limits.budget.of(Phase::Control));
        self.count(&mut tally, Phase::Control, done);
        let done = work.receive(now, self.limits.budget.of(Phase::Receive));
        self.count(&mut tally, Phase::Receive, done);
        let done = work.timers(now, self.limits.budget.of(Phase::Timers));
        self.count(&mut tally, Phase::Timers, done);
        Some(Begun { now, tally })
    }

    /// The part of a turn after [`Work::application`], which did so much.
    #[inline(always)]
    pub fn finish<W: Work>(&mut self, work: &mut W, begun: Begun, done: Progress) -> Turned {
        let Begun { now, mut tally } = begun;
        self.count(&mut tally, Phase::Application, done);
        let done = work.transmit(now, self.limits.budget.of(Phase::Transmit));
        self.count(&mut tally, Phase::Transmit, done);
        work.doorbell();
        // Completions are no traffic: they keep nobody waiting.
        let traffic = tally.traffic;
        let done = work.after(now, self.limits.budget.of(Phase::After));
        self.count(&mut tally, Phase::After, done);
        tally.traffic = traffic;
        if now >= self.cold_due_ns {
            self.cold(work, now);
        }
        self.settle(work, now, &tally)
    }

    /// One turn of a thread that does nothing else: sleeps once the polling budget is spent.
    ///
    /// # Errors
    /// If the system refuses to wait.
    #[inline]
    pub fn run_once<W: Work, S: Sleeper>(
        &mut self,
        work: &mut W,
        sleeper: &mut S,
    ) -> io::Result<Turned> {
        let turned = self.turn(work);
        if turned == Turned::Spent {
            self.sleep(work, sleeper)?;
        }
        Ok(turned)
    }

    /// Arms, looks once more, and sleeps until an event, a deadline or cold work. For callers of
    /// [`Loop::turn`] that got [`Turned::Spent`]; whoever calls takes a turn after it.
    ///
    /// # Errors
    /// If the system refuses to wait.
    #[cold]
    pub fn sleep<W: Work, S: Sleeper>(&mut self, work: &mut W, sleeper: &mut S) -> io::Result<()> {
        let Some(nap) = self.prepare_sleep(work, sleeper) else { return Ok(()) };
        let slept = sleeper.sleep(Some(nap.timeout_ns()));
        self.finish_sleep(work, sleeper, nap, slept.as_ref().ok().copied());
        slept.map(|_wake| ())
    }

    /// The first half of [`Loop::sleep`], for a thread that sleeps without holding the work: arms
    /// and looks once more. `None` if there is something to do. Otherwise the thread sleeps for
    /// [`Nap::timeout_ns`] at most and then calls [`Loop::finish_sleep`].
    #[must_use]
    #[cold]
    pub fn prepare_sleep<W: Work, S: Sleeper>(
        &mut self,
        work: &mut W,
        sleeper: &mut S,
    ) -> Option<Nap> {
        let now = self.clock.now();
        let deadline = work.deadline();
        let cold = now + self.limits.cold_period_asleep_ns;
        let until = deadline.min(cold);
        sleeper.arm();
        let armed = work.arm();
        if armed == Armed::Pending || work.ready() || until <= now {
            self.counters.sleeps_averted += 1;
            work.disarm();
            sleeper.disarm();
            self.resume();
            return None;
        }
        Some(Nap { since_ns: now, until_ns: until, for_deadline: deadline < cold })
    }

    /// The second half of [`Loop::sleep`]: `wake` is what ended the sleep, if it was one.
    pub fn finish_sleep<W: Work, S: Sleeper>(
        &mut self,
        work: &mut W,
        sleeper: &mut S,
        nap: Nap,
        wake: Option<Wake>,
    ) {
        work.disarm();
        sleeper.disarm();
        self.resume();
        if let Some(wake) = wake {
            self.woke(wake, nap.for_deadline, nap.since_ns);
        }
    }

    /// Turns begin again after a pause in which nobody was to turn: the pause is no long turn, and
    /// the next turn looks at everything.
    pub fn resume(&mut self) {
        self.last = self.clock.ticks();
        self.alarm = 0;
    }

    /// Work was made outside the turn that [`Work::ready`] does not see, such as a nearer deadline:
    /// the next turn goes through its phases.
    #[inline]
    pub fn expect_work(&mut self) {
        self.alarm = 0;
    }

    /// The present in nanoseconds of `CLOCK_MONOTONIC`, for calls outside the turn.
    #[inline]
    pub fn now(&mut self) -> u64 {
        self.clock.now()
    }

    /// The loop's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A copy of the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A turn that follows late makes the one before it a long one. An alarm is never further away
    /// than the cold work, so the turn after a long one always comes through here.
    #[inline]
    fn note_length(&mut self, before: u64, ticks: u64) {
        if ticks > before + self.long_turn {
            self.counters.long_turns += 1;
        }
    }

    #[inline]
    fn count(&mut self, tally: &mut Tally, phase: Phase, done: Progress) {
        // The test first: a phase that found nothing mostly knows so where it is inlined.
        if done.items() != 0 {
            self.counters.done[phase as usize] += u64::from(done.items());
            tally.traffic = true;
            if done.items() >= self.limits.budget.of(phase) {
                self.counters.exhausted[phase as usize] += 1;
                tally.exhausted = true;
            }
        }
    }

    #[cold]
    fn cold<W: Work>(&mut self, work: &mut W, now: u64) {
        self.counters.cold += 1;
        work.cold(now);
        self.clock.recalibrate();
        self.long_turn = self.clock.ticks_in(self.limits.long_turn_ns);
        self.spin = self.clock.ticks_in(self.idle.budget_ns());
        self.quantum = self.clock.ticks_in(QUANTUM_NS.min(self.idle.budget_ns()));
        self.cold_due_ns = now + self.limits.cold_period_ns;
    }

    /// The end of a turn through the phases.
    #[inline]
    fn settle<W: Work>(&mut self, work: &mut W, now: u64, tally: &Tally) -> Turned {
        self.counters.busy_turns += 1;
        self.asks = !tally.traffic;
        if tally.exhausted {
            self.alarm = 0;
        } else if tally.traffic {
            self.alarm = self.last + self.quantum;
        } else if self.last < self.alarm {
            return Turned::Idle;
        } else {
            return self.calm(work, now);
        }
        self.traffic = true;
        Turned::Busy
    }

    /// Nothing was done: the idle policy, and the alarm for the turns to come.
    #[cold]
    fn calm<W: Work>(&mut self, work: &mut W, now: u64) -> Turned {
        if std::mem::take(&mut self.traffic) {
            self.spin_until = self.last + self.spin;
        }
        let due = work.deadline().min(self.cold_due_ns).saturating_sub(now);
        let due = self.last + self.clock.ticks_in(due);
        self.alarm = due.min(self.spin_until);
        if self.last >= self.spin_until { Turned::Spent } else { Turned::Idle }
    }

    fn woke(&mut self, wake: Wake, for_deadline: bool, asleep_since: u64) {
        // Just read: where the counter cannot be used a reading is a system call.
        let slept_ns = self.clock.at(self.last).saturating_sub(asleep_since);
        self.counters.woke(wake, for_deadline, slept_ns);
        if self.idle.on_wake(wake, slept_ns) {
            self.spin = self.clock.ticks_in(self.idle.budget_ns());
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "turn_tests.rs"]
mod tests;
