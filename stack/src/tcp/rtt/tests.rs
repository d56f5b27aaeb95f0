//! RFC 6298 by its own numbers.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// Sequence numbers wrap between them.
const FIRST: SeqNum = SeqNum::new(u32::MAX - 10);
const SECOND: SeqNum = SeqNum::new(10);

#[test]
fn rfc6298_2_1_before_any_measurement_the_timeout_is_one_second() {
    let it = Rtt::new();
    assert_eq!(it.rto(), Rto::INITIAL);
    assert!(!it.is_measured());
    assert_eq!((it.srtt(), it.min_rtt()), (Duration::ZERO, None));
}

#[test]
fn rfc6298_2_2_and_2_3_the_estimate() {
    let mut it = Rtt::new();
    // (measurement, SRTT, RTTVAR, RTO), in ms.
    for (rtt, srtt, rttvar, rto) in [
        (800, 800, 400, 2400),
        (800, 800, 300, 2000),
        (1600, 900, 425, 2600),
        (100, 800, 518, 2875),
    ] {
        it.on_sample(ms(rtt));
        assert_eq!(it.srtt(), ms(srtt));
        assert_eq!(it.rttvar().as_millis(), rttvar);
        assert_eq!(it.rto().duration().as_millis(), rto);
    }
    assert_eq!(it.min_rtt(), Some(ms(100)));
}

#[test]
fn the_timeout_keeps_its_bounds() {
    let mut it = Rtt::new();
    it.on_sample(Duration::from_nanos(10_000));
    assert_eq!(it.rto(), Rto::MIN);
    let mut it = Rtt::with_least(Rto::clamped(ms(1), Rto::clamped(ms(1), Rto::MIN)));
    assert_eq!(it.rto(), Rto::INITIAL);
    it.on_sample(Duration::MAX);
    it.on_sample(Duration::MAX);
    assert_eq!(it.rto(), Rto::MAX);
    for wanted in [Duration::ZERO, ms(500), Duration::MAX] {
        let rto = Rto::clamped(wanted, Rto::MIN);
        assert!((Rto::MIN..=Rto::MAX).contains(&rto));
    }
}

#[test]
fn a_microsecond_is_not_lost_in_the_smoothing() {
    let mut it = Rtt::new();
    for _ in 0..1000 {
        it.on_sample(Duration::from_nanos(10_007));
    }
    assert!(it.srtt().as_nanos().abs_diff(10_007) < 10, "{:?}", it.srtt());
}

#[test]
fn rfc6298_5_5_each_timeout_doubles_up_to_the_greatest() {
    let mut it = Rtt::new();
    for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60] {
        assert_eq!(it.rto().duration(), Duration::from_secs(expected));
        it.on_timeout();
    }
    it.on_sample(ms(100));
    assert_eq!((it.backoff(), it.rto().duration()), (0, ms(300)));
}

#[test]
fn rfc6298_3_karn_retransmitted_bytes_are_not_timed() {
    let mut it = Rtt::new();
    it.on_sent(FIRST, at(0));
    it.on_sent(SECOND, at(5));
    assert_eq!(it.on_ack(FIRST.minus(1), None, at(7)), None, "not all that is timed");
    assert_eq!(it.on_ack(FIRST, None, at(10)), Some(ms(10)));
    assert_eq!(it.on_ack(SECOND, None, at(20)), None, "nothing was timed");
    it.on_sent(SECOND, at(20));
    it.on_timeout();
    assert_eq!(it.on_ack(SECOND, None, at(400)), None);
    assert_eq!(it.backoff(), 1, "the backoff stays without a measurement");
    // RFC 7323 §4: with timestamps a retransmission can be measured.
    assert_eq!(it.on_ack(SECOND, Some(ms(33)), at(400)), Some(ms(33)));
    assert_eq!(it.backoff(), 0);
}

#[test]
fn rfc6298_5_7_three_seconds_after_a_lost_syn() {
    let mut it = Rtt::new();
    it.on_syn_timeout();
    it.on_established();
    assert_eq!(it.rto(), Rto::AFTER_SYN_LOSS);
    it.on_sample(ms(1));
    assert_eq!(it.rto(), Rto::MIN);
    let mut measured = Rtt::new();
    measured.on_syn_timeout();
    measured.on_sample(ms(50));
    measured.on_established();
    assert_eq!(measured.rto(), Rto::MIN);
}

#[test]
fn rfc7323_5_4_the_clock_of_timestamps() {
    let clock = TimestampClock::new(u32::MAX - 100);
    let then = at(1000);
    let echo = clock.value(then);
    // Across the wrap, in ticks of 1.05 ms.
    let elapsed = clock.elapsed(echo, at(1250)).expect("a sound echo");
    assert!(elapsed.as_nanos().abs_diff(250_000_000) <= 1 << 20);
    assert_eq!(clock.elapsed(echo.wrapping_add(1), then), None, "from the future");
    assert_eq!(clock.elapsed(echo, at(1000 + 700_000)), None, "too old");
    let second = clock.value(at(2000)).wrapping_sub(clock.value(at(1000)));
    assert!((953..=954).contains(&second));
}

#[test]
fn an_estimator_is_small() {
    assert!(size_of::<Rtt>() <= 64, "{}", size_of::<Rtt>());
}
