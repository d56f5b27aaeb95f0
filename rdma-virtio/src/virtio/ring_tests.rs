//! Tests of the two ends of a ring: the same table over both policies.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::virtio::layout::{DESC_NEXT, OwnQueue};

/// Both ends of one queue, and the queue, which is dropped last.
struct Pair<P: Policy> {
    driver: DriverRing<P>,
    device: DeviceRing<P>,
    memory: QueueMemory,
    _queue: OwnQueue,
}

fn pair<P: Policy>(size: u16, event_index: bool) -> Pair<P> {
    let mut queue = OwnQueue::new(size).unwrap();
    // SAFETY: the queue is the last field of the pair, so it is dropped after its views.
    let memory = unsafe { queue.memory() };
    Pair {
        driver: DriverRing::new(memory.clone(), event_index),
        device: DeviceRing::new(memory.clone(), event_index),
        memory,
        _queue: queue,
    }
}

/// Random work against a model of two queues of numbers.
fn behaves_like_queues<P: Policy>(steps: &[(u8, u32)]) {
    let mut pair = pair::<P>(16, true);
    let mut available: VecDeque<(u16, u32)> = VecDeque::new();
    let mut used: VecDeque<(u16, u32)> = VecDeque::new();
    let mut with_device: Vec<u16> = Vec::new();
    for &(what, value) in steps {
        match what {
            0 => {
                let Some(id) = pair.driver.take_descriptor() else {
                    assert_eq!(available.len() + used.len() + with_device.len(), 16);
                    continue;
                };
                let descriptor = Descriptor { addr: 5, len: value, flags: DESC_NEXT, next: 3 };
                pair.driver.write(id, descriptor);
                pair.driver.push_available(id);
                let _ = pair.driver.publish();
                available.push_back((id, value));
            }
            1 => {
                let waiting = pair.device.waiting().unwrap();
                assert_eq!(usize::from(waiting), available.len());
                if let Some((id, value)) = available.pop_front() {
                    assert_eq!(pair.device.peek(0), id);
                    assert_eq!(pair.device.descriptor(id).len, value);
                    pair.device.consume(1);
                    with_device.push(id);
                }
            }
            2 if !with_device.is_empty() => {
                let id = with_device.swap_remove(value as usize % with_device.len());
                pair.device.push_used(id, value);
                let _ = pair.device.publish();
                used.push_back((id, value));
            }
            _ => {
                assert_eq!(pair.driver.has_used(), !used.is_empty());
                let found = pair.driver.pop_used().unwrap();
                let expected = used.pop_front();
                assert_eq!(found.map(|u| (u.id, u.len)), expected.map(|(i, l)| (i.into(), l)));
                if let Some((id, _)) = expected {
                    pair.driver.give_descriptor(id);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn both_policies_behave_like_queues(
        steps in proptest::collection::vec((0..4_u8, any::<u32>()), 0..600)
    ) {
        behaves_like_queues::<SameThread>(&steps);
        behaves_like_queues::<Shared>(&steps);
    }
}

fn wraps<P: Policy>() {
    let mut pair = pair::<P>(16, false);
    for round in 0..70_000_u32 {
        let id = pair.driver.take_descriptor().unwrap();
        pair.driver.push_available(id);
        let _ = pair.driver.publish();
        assert_eq!(pair.device.waiting(), Ok(1));
        let head = pair.device.peek(0);
        pair.device.consume(1);
        pair.device.push_used(head, round);
        let _ = pair.device.publish();
        let used = pair.driver.pop_used().unwrap().unwrap();
        assert_eq!((used.id, used.len), (id.into(), round));
        pair.driver.give_descriptor(id);
    }
}

#[test]
fn indices_wrap_at_65536() {
    wraps::<SameThread>();
    wraps::<Shared>();
}

fn refuses_runaways<P: Policy>() {
    let mut pair = pair::<P>(16, false);
    pair.memory.available_index().store(17_u16.to_le(), Ordering::Relaxed);
    assert_eq!(pair.device.waiting(), Err(BrokenRing));
    pair.memory.used_index().store(17_u16.to_le(), Ordering::Relaxed);
    assert_eq!(pair.driver.pop_used(), Err(BrokenRing));
    pair.memory.used_index().store(u16::MAX.to_le(), Ordering::Relaxed);
    assert_eq!(pair.driver.pop_used(), Err(BrokenRing));
}

#[test]
fn an_index_that_runs_away_is_refused() {
    refuses_runaways::<SameThread>();
    refuses_runaways::<Shared>();
}

#[test]
fn chains_return_whole_and_in_order() {
    let mut pair = pair::<SameThread>(16, false);
    let mut chain = Vec::new();
    for _ in 0..5 {
        chain.push(pair.driver.take_descriptor().unwrap());
    }
    let other = pair.driver.take_descriptor().unwrap();
    for pairwise in chain.windows(2) {
        assert_eq!(pair.driver.link(pairwise[0]), pairwise[1]);
    }
    pair.driver.give_chain(chain[0], 5);
    pair.driver.give_descriptor(other);
    assert_eq!(pair.driver.free(), 16);
    let mut all: Vec<u16> = (0..16).map(|_| pair.driver.take_descriptor().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..16).collect::<Vec<_>>());
    assert_eq!(pair.driver.take_descriptor(), None);
}

#[test]
fn notifications_are_asked_for_and_suppressed_virtio_2_7_10() {
    for event_index in [false, true] {
        let mut pair = pair::<Shared>(16, event_index);
        // At first everything is notified.
        pair.driver.push_available(0);
        assert_eq!(pair.driver.publish(), Notify::Needed);
        pair.device.disable_notifications();
        pair.driver.push_available(1);
        assert_eq!(pair.driver.publish(), Notify::NotNeeded, "{event_index}");
        // Two wait, so asking finds them.
        assert_eq!(pair.device.enable_notifications(), Quiet::Pending);
        assert_eq!(pair.device.waiting(), Ok(2));
        pair.device.consume(2);
        assert_eq!(pair.device.enable_notifications(), Quiet::Quiet);
        pair.driver.push_available(2);
        assert_eq!(pair.driver.publish(), Notify::Needed, "{event_index}");
        // Nothing new, nothing to say.
        assert_eq!(pair.driver.publish(), Notify::NotNeeded);

        pair.driver.disable_notifications();
        pair.device.push_used(0, 0);
        assert_eq!(pair.device.publish(), Notify::NotNeeded, "{event_index}");
        assert_eq!(pair.driver.enable_notifications(), Quiet::Pending);
        assert!(pair.driver.pop_used().unwrap().is_some());
        assert_eq!(pair.driver.enable_notifications(), Quiet::Quiet);
        pair.device.push_used(1, 0);
        assert_eq!(pair.device.publish(), Notify::Needed, "{event_index}");
    }
}

#[test]
fn one_thread_never_notifies() {
    let mut pair = pair::<SameThread>(16, true);
    pair.driver.push_available(0);
    assert_eq!(pair.driver.publish(), Notify::NotNeeded);
    pair.device.push_used(0, 0);
    assert_eq!(pair.device.publish(), Notify::NotNeeded);
}
