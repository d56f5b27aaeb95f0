//! The clock of a core: nanoseconds of `CLOCK_MONOTONIC`, computed from the time stamp counter.
//!
//! A line maps ticks to nanoseconds. Cold work compares it with the system's clock, at first after
//! 10 ms, then ever more rarely up to once a second, and bends it so that the difference is gone
//! one period later. The line stays continuous, so time never jumps, with one exception: where the
//! system's clock is over a millisecond ahead (the machine was paused), time steps forward.
//!
//! Time from one clock never goes backwards, also when the turning thread changes to a core whose
//! counter is a little behind: [`Clock::at`] never returns less than it did before. Where the
//! counter is not invariant, or the kernel has found it unstable, ticks are the nanoseconds of
//! `clock_gettime` themselves (22 ns a call instead of 10).

use crate::sys;

/// Rates have this many fraction bits: a counter of 1 MHz (1,000 ns a tick) still fits.
const FRACTION: u32 = 54;
/// One nanosecond a tick.
const ONE: u64 = 1 << FRACTION;
/// First and longest time between two comparisons with the system's clock.
const PERIOD_MIN_NS: u64 = 10_000_000;
const PERIOD_MAX_NS: u64 = 1_000_000_000;
/// Further ahead than this and the system's clock is followed at once.
const STEP_NS: u64 = 1_000_000;
/// The line is bent by at most this part of its rate.
const SLEW_PART: u64 = 8;
/// How long the first rate is measured, at start.
const FIRST_MEASURE_NS: u64 = 2_000_000;

/// Where ticks come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The time stamp counter, invariant.
    Tsc,
    /// `clock_gettime`, since the processor does not promise an invariant counter.
    NotInvariant,
    /// `clock_gettime`, since the kernel has found the counter unstable.
    Unstable,
}

impl std::fmt::Display for Source {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Source::Tsc => "time stamp counter",
            Source::NotInvariant => "clock_gettime (the processor has no invariant TSC)",
            Source::Unstable => "clock_gettime (the kernel does not offer the TSC as clock source)",
        })
    }
}

/// Ticks and system time read together.
#[derive(Clone, Copy, Debug)]
struct Sample {
    ticks: u64,
    ns: u64,
}

/// `ns = base_ns + (ticks - base_ticks) * rate`.
#[derive(Clone, Copy, Debug)]
struct Line {
    base_ticks: u64,
    base_ns: u64,
    /// Nanoseconds a tick, `FRACTION` fraction bits.
    ns_per_tick: u64,
    /// Ticks a nanosecond, `FRACTION` fraction bits.
    ticks_per_ns: u64,
}

/// A clock owned by one loop.
#[derive(Clone, Debug)]
pub struct Clock {
    line: Line,
    last_ns: u64,
    source: Source,
    /// The last comparison with the system's clock.
    compared: Sample,
    period_ns: u64,
}

impl Clock {
    /// Chooses the source and measures its rate; takes 2 ms.
    #[must_use]
    pub fn new() -> Clock {
        let source = choose(sys::invariant_tsc(), &read_clock_sources());
        let first = sample(source);
        if source != Source::Tsc {
            return Clock::from(source, first, ONE);
        }
        match first_rate(first) {
            Some(rate) => Clock::from(source, first, rate),
            // A counter that gave no plausible rate is not used.
            None => Clock::from(Source::Unstable, sample(Source::Unstable), ONE),
        }
    }

    fn from(source: Source, first: Sample, rate: u64) -> Clock {
        let line = Line::new(first, rate);
        Clock { line, last_ns: first.ns, source, compared: first, period_ns: PERIOD_MIN_NS }
    }

    /// Where ticks come from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Ticks a second, as measured.
    #[must_use]
    pub fn ticks_per_second(&self) -> u64 {
        self.line.ticks_in(1_000_000_000)
    }

    /// The present in ticks. Comparable within one source; may be a little behind on another core.
    #[must_use]
    #[inline]
    pub fn ticks(&self) -> u64 {
        if self.source == Source::Tsc { sys::tsc() } else { sys::monotonic_ns() }
    }

    /// The time at `ticks` in nanoseconds, never less than a time that was returned before.
    #[inline]
    pub fn at(&mut self, ticks: u64) -> u64 {
        self.last_ns = self.last_ns.max(self.line.ns_at(ticks));
        self.last_ns
    }

    /// The present in nanoseconds.
    #[inline]
    pub fn now(&mut self) -> u64 {
        self.at(self.ticks())
    }

    /// The length of `ns` nanoseconds, below 2^54 (208 days), in ticks.
    #[must_use]
    #[inline]
    pub fn ticks_in(&self, ns: u64) -> u64 {
        self.line.ticks_in(ns)
    }

    /// Cold work: compares with the system's clock if it is time to.
    pub fn recalibrate(&mut self) {
        if self.source != Source::Tsc || self.now() < self.compared.ns + self.period_ns {
            return;
        }
        let present = sample(self.source);
        self.period_ns = self.period_ns.saturating_mul(4).min(PERIOD_MAX_NS);
        self.line = self.line.follow(self.compared, present, self.period_ns);
        self.compared = present;
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Line {
    fn new(from: Sample, ns_per_tick: u64) -> Line {
        let ns_per_tick = ns_per_tick.max(1);
        let ticks_per_ns = u64::try_from((1u128 << (2 * FRACTION)) / u128::from(ns_per_tick));
        Line {
            base_ticks: from.ticks,
            base_ns: from.ns,
            ns_per_tick,
            ticks_per_ns: ticks_per_ns.unwrap_or(u64::MAX),
        }
    }

    #[inline]
    fn ns_at(&self, ticks: u64) -> u64 {
        self.base_ns + scale(ticks.saturating_sub(self.base_ticks), self.ns_per_tick)
    }

    #[inline]
    fn ticks_in(&self, ns: u64) -> u64 {
        scale(ns, self.ticks_per_ns)
    }

    /// The line from `present` on that meets the system's clock `period_ns` later, with the rate
    /// measured since `before`.
    fn follow(&self, before: Sample, present: Sample, period_ns: u64) -> Line {
        let rate = rate(before, present).unwrap_or(self.ns_per_tick);
        let ours = self.ns_at(present.ticks);
        if present.ns >= ours.saturating_add(STEP_NS) {
            return Line::new(present, rate);
        }
        let limit = period_ns / SLEW_PART;
        // Where we are ahead of the system, the line climbs less over the next period.
        let wanted_ns = if ours > present.ns {
            period_ns - (ours - present.ns).min(limit)
        } else {
            period_ns + (present.ns - ours).min(limit)
        };
        let bent = u128::from(rate) * u128::from(wanted_ns) / u128::from(period_ns);
        let from = Sample { ticks: present.ticks, ns: ours };
        Line::new(from, u64::try_from(bent).unwrap_or(rate))
    }
}

/// `value * rate`, where `rate` has `FRACTION` fraction bits: the upper word of one multiplication.
/// `value` is below 2^54: 208 days in nanoseconds, 50 days of ticks at 4 GHz. Bases move every
/// second, and [`Clock::at`] keeps what a longer pause would wrap from going back.
#[inline]
fn scale(value: u64, rate: u64) -> u64 {
    (value << (u64::BITS - FRACTION)).carrying_mul(rate, 0).1
}

/// Nanoseconds a tick between two samples, if the counter runs between 1 MHz and 16 GHz. A counter
/// that was reset (suspend) or stood still gives none.
fn rate(from: Sample, to: Sample) -> Option<u64> {
    let ticks = to.ticks.checked_sub(from.ticks).filter(|&ticks| ticks > 0)?;
    let ns = to.ns.checked_sub(from.ns)?;
    let rate = u64::try_from((u128::from(ns) << FRACTION) / u128::from(ticks)).ok()?;
    (ONE / 16..=1_000 * ONE).contains(&rate).then_some(rate)
}

fn first_rate(first: Sample) -> Option<u64> {
    loop {
        let present = sample(Source::Tsc);
        if present.ns >= first.ns + FIRST_MEASURE_NS {
            return rate(first, present);
        }
        std::hint::spin_loop();
    }
}

/// Reads both clocks as close together as five attempts allow.
fn sample(source: Source) -> Sample {
    if source != Source::Tsc {
        let ns = sys::monotonic_ns();
        return Sample { ticks: ns, ns };
    }
    let mut best = Sample { ticks: 0, ns: 0 };
    let mut narrowest = u64::MAX;
    for _ in 0..5 {
        let before = sys::tsc();
        let ns = sys::monotonic_ns();
        let width = sys::tsc().saturating_sub(before);
        if width < narrowest {
            narrowest = width;
            best = Sample { ticks: before + width / 2, ns };
        }
    }
    best
}

fn read_clock_sources() -> String {
    let path = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `kernel` is what the kernel offers; empty if it does not say.
fn choose(invariant: bool, kernel: &str) -> Source {
    if !invariant {
        Source::NotInvariant
    } else if kernel.trim().is_empty() || kernel.split_whitespace().any(|name| name == "tsc") {
        Source::Tsc
    } else {
        Source::Unstable
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
