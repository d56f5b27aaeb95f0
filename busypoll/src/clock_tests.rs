//! The clock against the system's, and its line against drift, steps and resets.

use super::*;

const GHZ_2: u64 = ONE / 2;

fn sample_at(ticks: u64, ns: u64) -> Sample {
    Sample { ticks, ns }
}

#[test]
fn source_is_the_counter_only_where_processor_and_kernel_trust_it() {
    for (invariant, kernel, expected) in [
        (true, "tsc kvm-clock acpi_pm\n", Source::Tsc),
        (true, "", Source::Tsc),
        (true, "hpet acpi_pm\n", Source::Unstable),
        (false, "tsc\n", Source::NotInvariant),
    ] {
        assert_eq!(choose(invariant, kernel), expected, "{invariant} {kernel:?}");
    }
}

#[test]
fn clock_follows_the_system_and_never_goes_back() {
    let mut clock = Clock::new();
    let mut last = 0;
    for _ in 0..20_000 {
        clock.recalibrate();
        let before = sys::monotonic_ns();
        let now = clock.now();
        assert!(now >= last);
        // 50 us in 20 ms would be 2,500 ppm: far beyond any measuring error of ours.
        assert!(now + 50_000 >= before, "{now} is behind {before}");
        last = now;
    }
}

#[test]
fn at_never_returns_less_than_before_on_a_core_that_is_behind() {
    let mut clock = Clock::new();
    let ticks = clock.ticks();
    let now = clock.at(ticks);
    assert_eq!(clock.at(ticks - 1_000), now);
    assert_eq!(clock.at(0), now);
}

#[test]
fn fallback_counts_nanoseconds() {
    let first = sample(Source::Unstable);
    let line = Line::new(first, ONE);
    assert_eq!(line.ns_at(first.ticks + 12_345), first.ns + 12_345);
    assert_eq!(line.ticks_in(777), 777);
}

#[test]
fn line_converts_both_ways() {
    let line = Line::new(sample_at(5, 7), GHZ_2);
    for ns in [0, 1, 999, 1_000_000_007, 1 << 52] {
        let back = line.ns_at(5 + line.ticks_in(ns)) - 7;
        assert!(ns - back <= 1, "{ns} came back as {back}");
    }
}

#[test]
fn follow_is_continuous_and_meets_the_system() {
    // The counter runs at 2 GHz; the line believes 2.0002 GHz and starts 40 us ahead or behind.
    for (name, offset) in [("ahead", 1_040_000), ("behind", 960_000)] {
        let mut line = Line::new(sample_at(0, offset), GHZ_2 - GHZ_2 / 10_000);
        let mut before = sample_at(0, 1_000_000);
        for step in 1..=3u64 {
            let ns = 1_000_000 + step * 1_000_000_000;
            let present = sample_at((ns - 1_000_000) * 2, ns);
            let next = line.follow(before, present, 1_000_000_000);
            assert!(next.ns_at(present.ticks).abs_diff(line.ns_at(present.ticks)) <= 1, "{name}");
            (line, before) = (next, present);
        }
        let end = line.ns_at(before.ticks);
        assert!(end.abs_diff(before.ns) < 100, "{name}: {end} instead of {}", before.ns);
    }
}

#[test]
fn follow_steps_forward_but_never_back() {
    let line = Line::new(sample_at(0, 0), GHZ_2);
    let before = sample_at(0, 0);
    let paused = sample_at(2_000, 5_000_000_000);
    assert_eq!(line.follow(before, paused, PERIOD_MAX_NS).ns_at(2_000), 5_000_000_000);
    // We are 10 s ahead: the line stays continuous and climbs at 7/8 of its rate.
    let ahead = Line::new(sample_at(0, 10_000_000_000), GHZ_2);
    let present = sample_at(2_000_000_000, 1_000_000_000);
    let slower = ahead.follow(before, present, PERIOD_MAX_NS);
    assert_eq!(slower.ns_at(2_000_000_000), 11_000_000_000);
    let climbed = slower.ns_at(4_000_000_000) - 11_000_000_000;
    assert!(climbed.abs_diff(875_000_000) < 10, "{climbed}");
}

#[test]
fn a_counter_that_was_reset_or_stands_still_keeps_the_old_rate() {
    for (from, to) in [
        (sample_at(9_000, 0), sample_at(10, 1_000)),
        (sample_at(10, 0), sample_at(10, 1_000)),
        (sample_at(0, 0), sample_at(1, 1_000_000)),
    ] {
        assert_eq!(rate(from, to), None, "{from:?} {to:?}");
    }
    let line = Line::new(sample_at(9_000, 50), GHZ_2);
    let next = line.follow(sample_at(9_000, 50), sample_at(10, 1_000), PERIOD_MAX_NS);
    assert!(next.ns_at(10) >= 50, "time did not go back");
    assert!(next.ns_at(2_010) > next.ns_at(10), "time goes on");
}
