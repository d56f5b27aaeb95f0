//! Congestion control against the RFCs' own numbers.

use std::fmt::Write as _;
use std::string::String;
use std::vec::Vec;

use super::{AckSample, Algorithm, Congestion, Timeout, initial_window};
use crate::time::{Duration, Instant};

const MSS: u16 = 1448;
const BOTH: [Algorithm; 2] = [Algorithm::NewReno, Algorithm::Cubic];

fn at_ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn sample(now: Instant, acked: u32, rtt: Duration) -> AckSample {
    AckSample { now, acked, srtt: rtt, cwnd_limited: true }
}

/// Acknowledges one window in segments of `mss` bytes, spread over a round trip; returns its end.
fn round(it: &mut Congestion, from: Instant, rtt: Duration, mss: u32) -> Instant {
    let segments = (it.window() / mss).max(1);
    for n in 1..=segments {
        let now = from + Duration::from_nanos(rtt.as_nanos() * u64::from(n) / u64::from(segments));
        it.on_ack(&sample(now, mss, rtt));
    }
    from + rtt
}

#[test]
fn rfc6928_initial_window() {
    for (mss, window) in [
        (536, 5360),
        (1448, 14_480),
        (1460, 14_600),
        (4000, 14_600),
        (8948, 17_896),
        (65_000, 130_000),
    ] {
        assert_eq!(initial_window(mss), window, "mss {mss}");
        for algorithm in BOTH {
            let mss = u16::try_from(mss).unwrap();
            assert_eq!(Congestion::new(algorithm, mss, 1 << 30).window(), window);
        }
    }
}

#[test]
fn rfc5681_3_1_a_lost_syn_leaves_one_segment() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, MSS, 1 << 20);
        it.on_syn_lost();
        assert_eq!(it.window(), u32::from(MSS));
    }
}

#[test]
fn the_initial_window_follows_the_segment_size_until_it_is_used() {
    let mut it = Congestion::new(Algorithm::Cubic, 536, 1 << 20);
    it.set_mss(1448);
    assert_eq!(it.window(), 14_480);
    it.on_ack(&sample(at_ms(1), 1448, Duration::from_millis(1)));
    let grown = it.window();
    it.set_mss(1000);
    assert_eq!(it.window(), grown);
}

#[test]
fn rfc5681_3_1_slow_start_doubles_each_round_up_to_ssthresh() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, 1000, 1 << 24);
        let rtt = Duration::from_millis(100);
        let mut now = Instant::ZERO;
        for expected in [20_000, 40_000, 80_000, 160_000] {
            now = round(&mut it, now, rtt, 1000);
            assert_eq!(it.window(), expected);
        }
        it.on_congestion_event(160_000);
        let ssthresh = it.ssthresh();
        it.on_retransmission_timeout(ssthresh, Timeout::Repeated);
        assert_eq!((it.window(), it.ssthresh()), (1000, ssthresh));
        for _ in 0..20 {
            now = round(&mut it, now, rtt, 1000);
        }
        assert!(!it.in_slow_start() && it.window() >= ssthresh);
        assert!(it.window() < ssthresh + 40_000, "no jump over ssthresh: {}", it.window());
    }
}

#[test]
fn rfc3465_split_acknowledgements_gain_nothing() {
    for algorithm in BOTH {
        for after_loss in [false, true] {
            let mut whole = Congestion::new(algorithm, MSS, 1 << 24);
            if after_loss {
                whole.on_congestion_event(200_000);
            }
            let mut split = whole.clone();
            let rtt = Duration::from_millis(10);
            for ms in 1..100 {
                whole.on_ack(&sample(at_ms(ms), 1448, rtt));
                for _ in 0..1448 {
                    split.on_ack(&sample(at_ms(ms), 1, rtt));
                }
            }
            // The order of rounding may differ, by bytes.
            assert!(split.window() <= whole.window() + 200, "{algorithm:?}");
        }
    }
}

#[test]
fn rfc3465_one_acknowledgement_counts_for_a_bounded_number_of_segments() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, 1000, 1 << 30);
        it.on_ack(&sample(at_ms(1), 1 << 20, Duration::from_millis(1)));
        assert_eq!(it.window(), 10_000 + 8000);
        it.on_retransmission_timeout(18_000, Timeout::First);
        it.on_ack(&sample(at_ms(2), 1 << 20, Duration::from_millis(1)));
        assert_eq!(it.window(), 2000);
    }
}

#[test]
fn rfc7661_an_idle_application_does_not_widen_the_window() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, MSS, 1 << 24);
        for ms in 0..100 {
            let sample = sample(at_ms(ms), 1448, Duration::from_millis(1));
            it.on_ack(&AckSample { cwnd_limited: false, ..sample });
        }
        assert_eq!(it.window(), 14_480);
    }
}

#[test]
fn the_window_keeps_its_bounds_whatever_happens() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, MSS, 1 << 20);
        let mut seed = 1_u64;
        let mut now = 0;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = seed >> 33;
            now += pick % 50_000_000;
            let at = Instant::from_nanos(now);
            let bytes = u32::try_from(pick % 70_000).unwrap();
            match pick % 97 {
                0 => it.on_congestion_event(bytes),
                1 => it.on_retransmission_timeout(bytes, Timeout::First),
                2 => it.on_retransmission_timeout(bytes, Timeout::Repeated),
                3 => it.on_idle(),
                4 => it.on_recovery_exit(bytes),
                _ => it.on_ack(&AckSample {
                    now: at,
                    acked: bytes,
                    srtt: Duration::from_nanos(pick % 1_000_000_000),
                    cwnd_limited: !pick.is_multiple_of(5),
                }),
            }
            assert!((1448..=1 << 20).contains(&it.window()));
            assert!(it.ssthresh() >= 2 * 1448);
        }
    }
}

#[test]
fn rfc5681_3_2_and_rfc9438_4_6_the_decrease() {
    for (algorithm, flight, ssthresh) in [
        (Algorithm::NewReno, 100_000, 50_000),
        (Algorithm::Cubic, 100_000, 70_000),
        (Algorithm::NewReno, 1000, 2896),
        (Algorithm::Cubic, 1000, 2896),
    ] {
        let mut it = Congestion::new(algorithm, MSS, 1 << 24);
        it.on_congestion_event(flight);
        assert_eq!((it.window(), it.ssthresh()), (ssthresh, ssthresh), "{algorithm:?}");
        it.on_retransmission_timeout(flight, Timeout::First);
        assert_eq!((it.window(), it.ssthresh()), (1448, ssthresh), "{algorithm:?}");
    }
}

#[test]
fn rfc5681_4_1_the_restart_window() {
    for algorithm in BOTH {
        let mut it = Congestion::new(algorithm, MSS, 1 << 24);
        let now = round(&mut it, Instant::ZERO, Duration::from_millis(10), 1448);
        round(&mut it, now, Duration::from_millis(10), 1448);
        it.on_idle();
        assert_eq!(it.window(), 14_480);
        it.on_syn_lost();
        it.on_idle();
        assert_eq!(it.window(), 1448, "the restart window is never larger than the window");
    }
}

#[test]
fn new_reno_grows_by_one_segment_a_round() {
    let mut it = Congestion::new(Algorithm::NewReno, 1000, 1 << 24);
    it.on_congestion_event(200_000);
    let mut now = Instant::ZERO;
    for n in 1..=20 {
        now = round(&mut it, now, Duration::from_millis(50), 1000);
        assert_eq!(it.window(), 100_000 + n * 1000);
    }
}

/// Average window in segments under the RFC's deterministic loss model: each 1/p-th segment is
/// lost. Begins in the steady state, as cycles approach it only slowly.
fn average_window(p_inverse: u64, rtt: Duration, steady: u32) -> f64 {
    const SEGMENT: u32 = 1000;
    let mut it = Congestion::new(Algorithm::Cubic, 1000, u32::MAX);
    lose_at(&mut it, steady * SEGMENT);
    let mut now = Instant::ZERO;
    let mut since_loss = 0;
    let (mut losses, mut rounds, mut sum) = (0, 0_u32, 0.0);
    while losses < 40 {
        let segments = u64::from(it.window() / SEGMENT).max(1);
        sum += f64::from(it.window() / SEGMENT);
        rounds += 1;
        // A few acknowledgements a round keep large windows cheap to simulate.
        let steps = segments.min(16);
        for step in 1..=steps {
            let acked = segments * step / steps - segments * (step - 1) / steps;
            let at = now + Duration::from_nanos(rtt.as_nanos() * step / steps);
            let bytes = u32::try_from(acked).unwrap() * SEGMENT;
            it.on_ack(&sample(at, bytes, rtt));
        }
        now += rtt;
        since_loss += segments;
        if since_loss >= p_inverse {
            since_loss = 0;
            losses += 1;
            let flight = it.window();
            lose_at(&mut it, flight);
        }
    }
    sum / f64::from(rounds)
}

/// A loss without fast convergence, which the model of a single flow does not have.
fn lose_at(it: &mut Congestion, flight: u32) {
    it.on_congestion_event(flight);
    let Congestion::Cubic(cubic) = it else { unreachable!() };
    cubic.set_w_max(flight);
}

#[test]
fn rfc9438_5_1_tables_1_and_2() {
    // Loss rate, and the average window with C = 0.4 at round trips of 100 ms and of 10 ms.
    for (p_inverse, at_100_ms, at_10_ms) in [
        (1_000, 38, 38),
        (10_000, 187, 120),
        (100_000, 1054, 379),
        (1_000_000, 5926, 1200),
        (10_000_000, 33325, 5926),
        (100_000_000, 187_400, 33325),
    ] {
        for (rtt_ms, expected) in [(100, at_100_ms), (10, at_10_ms)] {
            // The average is (3 + beta) / 4 of the window at a loss.
            let steady = expected * 40 / 37;
            let average = average_window(p_inverse, Duration::from_millis(rtt_ms), steady);
            // The table takes the larger of two models, an implementation the larger in each
            // round; rounding to whole segments matters in the smallest windows.
            let error = (average - f64::from(expected)).abs();
            let allowed = 4.0 + f64::from(expected) / 10.0;
            assert!(error < allowed, "1/{p_inverse} {rtt_ms} ms: {average}, table {expected}");
        }
    }
}

#[test]
fn rfc9438_4_2_the_curve_is_flat_at_k_and_symmetric() {
    // A loss at 1000 segments: K = cbrt(300 / 0.4) = 9.086 s. The window is back at W_max then.
    let mut it = Congestion::new(Algorithm::Cubic, 1000, u32::MAX);
    for _ in 0..200 {
        it.on_ack(&sample(Instant::ZERO, 5_000, Duration::from_millis(100)));
    }
    assert_eq!(it.window(), 1_010_000);
    it.on_congestion_event(1_000_000);
    assert_eq!(it.window(), 700_000);
    let rtt = Duration::from_millis(200);
    let mut now = Instant::ZERO;
    // (seconds, window): 1010 + 0.4 (t - 9.184)^3 segments, K = cbrt(310 / 0.4) = 9.184.
    for (seconds, segments) in [(4, 954.0), (9, 1010.0), (12, 1019.0), (18, 1284.0)] {
        while now.as_nanos() < seconds * 1_000_000_000 {
            now = round(&mut it, now, rtt, 1000);
        }
        let window = f64::from(it.window()) / 1000.0;
        assert!((window - segments).abs() < 12.0, "{seconds} s: {window}, curve {segments}");
    }
}

#[test]
fn rfc9438_4_7_fast_convergence_lowers_the_plateau() {
    let mut it = Congestion::new(Algorithm::Cubic, 1000, u32::MAX);
    it.on_ack(&sample(Instant::ZERO, 8000, Duration::from_millis(10)));
    it.on_congestion_event(18_000);
    let Congestion::Cubic(first) = &it else { unreachable!() };
    assert_eq!(first.w_max(), 18_000);
    it.on_congestion_event(12_600);
    let Congestion::Cubic(second) = &it else { unreachable!() };
    // Lost at 12,600, below the last maximum: W_max = 12,600 * 0.85.
    assert_eq!(second.w_max(), 10_710);
}

#[test]
fn rfc9438_5_8_time_without_a_full_window_is_not_on_the_curve() {
    let rtt = Duration::from_millis(100);
    let mut busy = Congestion::new(Algorithm::Cubic, 1000, u32::MAX);
    busy.on_congestion_event(1_000_000);
    busy.on_ack(&sample(at_ms(1), 1000, rtt));
    let mut paused = busy.clone();
    paused.on_ack(&AckSample { cwnd_limited: false, ..sample(at_ms(2), 1000, rtt) });
    busy.on_ack(&sample(at_ms(2), 1000, rtt));
    // An hour passes for the paused one.
    paused.on_ack(&sample(at_ms(3_600_000), 1000, rtt));
    assert!(paused.window().abs_diff(busy.window()) < 1000);
}

/// The window in segments after each of some rounds, with a loss whenever it passes 400 segments.
fn growth(algorithm: Algorithm, rtt: Duration) -> Vec<u32> {
    let mut it = Congestion::new(algorithm, 1000, 1 << 30);
    let mut now = Instant::ZERO;
    let mut row = Vec::new();
    for n in 1..=64 {
        now = round(&mut it, now, rtt, 1000);
        if it.window() > 400_000 {
            it.on_congestion_event(it.window());
        }
        if n % 4 == 0 {
            row.push(it.window() / 1000);
        }
    }
    row
}

#[test]
fn growth_curves_are_as_they_were() {
    let mut table = String::new();
    for algorithm in BOTH {
        for rtt_ms in [1, 20, 100] {
            write!(table, "{algorithm:?} {rtt_ms} ms:").unwrap();
            for segments in growth(algorithm, Duration::from_millis(rtt_ms)) {
                write!(table, " {segments}").unwrap();
            }
            table.push('\n');
        }
    }
    assert_eq!(table, include_str!("growth.txt"), "the table now:\n{table}");
}
