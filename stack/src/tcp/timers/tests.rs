//! The wheel against a map of deadlines.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::time::Duration;

const TICK_NS: u64 = 1 << TICK_BITS;

fn ns(ns: u64) -> Instant {
    Instant::from_nanos(ns)
}

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn pop_all(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
    let mut popped = vec![];
    // `None` may only mean that there was much to move.
    while wheel.next_deadline() <= now {
        popped.extend(wheel.pop_expired(now));
    }
    popped.sort_unstable();
    popped
}

#[test]
fn a_timer_set_tells_the_earliest() {
    let mut set = TimerSet::new();
    assert_eq!(set.earliest(), Instant::NEVER);
    assert_eq!(set.pop_expired(Instant::NEVER), None);
    for (n, timer) in Timer::ALL.into_iter().enumerate() {
        set.arm(timer, ms(100 - n as u64));
        assert_eq!(set.earliest(), ms(100 - n as u64));
        assert!(set.is_armed(timer));
    }
    set.disarm(Timer::UserTimeout);
    assert_eq!(set.pop_expired(ms(95)), None);
    assert_eq!(set.pop_expired(ms(97)), Some(Timer::TimeWait));
    assert_eq!(set.pop_expired(ms(97)), Some(Timer::KeepAlive));
    assert_eq!(set.pop_expired(ms(97)), None);
    set.disarm_all();
    assert_eq!(set.earliest(), Instant::NEVER);
}

#[test]
fn timers_of_one_instant_each_expire_once() {
    let mut set = TimerSet::new();
    Timer::ALL.into_iter().for_each(|timer| set.arm(timer, ms(1)));
    let popped: Vec<Timer> = core::iter::from_fn(|| set.pop_expired(ms(1))).collect();
    assert_eq!(popped, Timer::ALL);
}

#[test]
fn a_deadline_is_reported_within_a_tick_and_never_early() {
    for start in [0, 1, TICK_NS * 63, 12_345_678_901_234] {
        for after in [1, 999_999, 1_000_000, 63 << 20, 64 << 20, 200_000_000, 3_600_000_000_000] {
            let mut wheel = TimerWheel::new(4, ns(start));
            wheel.arm(3, ns(start + after));
            let mut now = start;
            loop {
                now = wheel.next_deadline().as_nanos().max(now);
                if wheel.pop_expired(ns(now)) == Some(3) {
                    break;
                }
                assert!(wheel.next_deadline().as_nanos() > now, "progress");
            }
            let late = now.checked_sub(start + after).expect("not early");
            assert!(late < TICK_NS, "start {start} after {after}: late by {late}");
            assert_eq!(wheel.next_deadline(), Instant::NEVER);
        }
    }
}

#[test]
fn a_later_deadline_costs_no_move_and_an_earlier_one_takes_effect() {
    let mut wheel = TimerWheel::new(10, Instant::ZERO);
    wheel.arm(5, ms(100));
    let first = wheel.next_deadline();
    wheel.arm(5, ms(5000));
    assert_eq!(wheel.next_deadline(), first, "the entry stays where it is");
    assert_eq!(wheel.deadline(5), ms(5000));
    assert_eq!(pop_all(&mut wheel, ms(200)), []);
    assert!(wheel.next_deadline() > ms(1000));
    wheel.arm(5, ms(300));
    assert_eq!(pop_all(&mut wheel, ms(302)), [5]);
    assert_eq!(wheel.deadline(5), Instant::NEVER);
    // Disarmed: it comes up and is dropped.
    wheel.arm(5, ms(400));
    wheel.arm(5, Instant::NEVER);
    assert_eq!(pop_all(&mut wheel, ms(500)), []);
    assert_eq!(wheel.next_deadline(), Instant::NEVER);
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let mut wheel = TimerWheel::new(10, ms(1 << 40));
    for at in [Instant::ZERO, ms(1), ms((1 << 40) - 1)] {
        wheel.arm(1, at);
        assert!(wheel.next_deadline() <= ms(1 << 40));
        assert_eq!(pop_all(&mut wheel, ms(1 << 40)), [1]);
    }
}

#[test]
fn deadlines_beyond_the_wheel_are_kept() {
    let day = 24 * 3600 * 1000;
    let mut wheel = TimerWheel::new(2, Instant::ZERO);
    wheel.arm(0, ms(40 * day));
    let mut now = Instant::ZERO;
    while wheel.pop_expired(now).is_none() {
        now = wheel.next_deadline().max(now);
        assert!(now < ms(40 * day + 3));
    }
    assert!(now >= ms(40 * day));
}

#[test]
fn memory_grows_with_the_indices_in_use() {
    let mut wheel = TimerWheel::new(100_000, Instant::ZERO);
    assert_eq!(wheel.memory(), 0);
    wheel.arm(0, ms(1));
    assert_eq!(wheel.memory(), 256 * 24);
}

#[test]
#[should_panic(expected = "timer index out of bounds")]
fn an_index_beyond_the_bound_is_a_broken_invariant() {
    TimerWheel::new(10, Instant::ZERO).arm(10, ms(1));
}

#[test]
fn ten_thousand_stale_entries_do_not_stall_a_turn() {
    let mut wheel = TimerWheel::new(10_000, Instant::ZERO);
    for index in 0..10_000 {
        wheel.arm(index, ms(100));
        wheel.arm(index, ms(10_000));
    }
    let mut calls = 0;
    while wheel.next_deadline() <= ms(150) {
        assert_eq!(wheel.pop_expired(ms(150)), None);
        calls += 1;
    }
    assert!((39..60).contains(&calls), "{calls} calls of 256 moves");
    assert_eq!(pop_all(&mut wheel, ms(10_002)).len(), 10_000);
}

#[derive(Clone, Debug)]
enum Step {
    Arm(u32, u64),
    Disarm(u32),
    Remove(u32),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Distances of all magnitudes, from below a tick to beyond the last level.
    let distance = (0_u32..51).prop_flat_map(|bits| 0..(1_u64 << bits) + 1);
    prop_oneof![
        6 => (0_u32..40, distance.clone()).prop_map(|(index, at)| Step::Arm(index, at)),
        1 => (0_u32..40).prop_map(Step::Disarm),
        1 => (0_u32..40).prop_map(Step::Remove),
        4 => distance.prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn the_wheel_agrees_with_a_map(
        start in any::<u32>(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut now = u64::from(start);
        let mut wheel = TimerWheel::new(40, ns(now));
        let mut naive: BTreeMap<u32, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Arm(index, after) => {
                    wheel.arm(index, ns(now + after));
                    naive.insert(index, now + after);
                }
                Step::Disarm(index) => {
                    wheel.arm(index, Instant::NEVER);
                    naive.remove(&index);
                }
                Step::Remove(index) => {
                    wheel.remove(index);
                    naive.remove(&index);
                }
                Step::Advance(by) => {
                    now += by;
                    let popped: BTreeSet<u32> = pop_all(&mut wheel, ns(now)).into_iter().collect();
                    // What is due by the last whole tick must come, and nothing early.
                    for (index, at) in &naive {
                        let due = *at <= now >> TICK_BITS << TICK_BITS;
                        prop_assert!(!due || popped.contains(index), "{} late", index);
                        prop_assert!(*at <= now || !popped.contains(index), "{} early", index);
                    }
                    popped.iter().for_each(|index| { naive.remove(index); });
                }
            }
            for index in 0..40 {
                let expected = naive.get(&index).map_or(Instant::NEVER, |at| ns(*at));
                prop_assert_eq!(wheel.deadline(index), expected);
            }
            if let Some(earliest) = naive.values().min() {
                let latest = (earliest >> TICK_BITS << TICK_BITS) + TICK_NS;
                prop_assert!(wheel.next_deadline() <= ns(latest.max(now)));
            }
        }
    }
}
