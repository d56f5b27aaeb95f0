//! Two sides in two threads: bulk both ways, and sleeping without losing an event.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{Armed, Nic, PostError};

use crate::world::{Side, conserved, linked_pair, pattern};

/// A machine that is busy with something else lets a thread wait for seconds.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Waits for the fd; false after a minute.
fn sleep_on(fd: RawFd) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry that outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, 60_000) > 0 }
}

/// Sends and receives `count` messages at once, each thread both ways; both rings run full.
fn both_ways(side: &mut Side<SoftNic>, count: u64, length: usize) {
    let (mut sent, mut received) = (0_u64, 0_u64);
    let end = Instant::now() + Duration::from_secs(60);
    let mut last = Instant::now();
    while received < count || sent < count {
        assert!(Instant::now() < end, "stuck: sent {sent}, received {received}");
        if sent < count {
            let offset = u32::try_from(sent % 8 * 131_072).unwrap();
            // Transmit memory of the eighth message before this one must be free again.
            if side.nic.sends_outstanding() < 8 {
                match side.send_bytes(offset, &pattern(sent, length), sent) {
                    Ok(()) => sent += 1,
                    Err(error) => assert_eq!(error, PostError::QueueFull),
                }
            }
        }
        side.completions();
        while let Some(bytes) = side.receive() {
            assert!(bytes == pattern(received, length), "message {received}");
            received += 1;
        }
        if last.elapsed() > Duration::from_millis(1) {
            last = Instant::now();
            side.maintain();
        }
        // Two cores, and other tests beside this one.
        std::thread::yield_now();
    }
    // The peer may still wait for our progress.
    side.maintain();
    let end = Instant::now() + Duration::from_secs(5);
    while side.nic.sends_outstanding() > 0 {
        side.completions();
        assert!(Instant::now() < end);
    }
}

#[test]
fn both_directions_full_do_not_deadlock() {
    for (slots, length, count) in [(64, 90, 20_000), (64, 9000, 2_000), (512, 65_000, 400)] {
        let options = SoftOptions { slots, timeout_ns: PATIENCE_NS, ..SoftOptions::default() };
        let (mut left, mut right) = linked_pair(&options, 40);
        std::thread::scope(|scope| {
            scope.spawn(|| both_ways(&mut left, count, length));
            scope.spawn(|| both_ways(&mut right, count, length));
        });
        assert_eq!(left.nic.counters().received, count);
        assert_eq!(right.nic.counters().received, count);
        conserved(&[&left, &right]);
    }
}

/// One end of a ping-pong that sleeps whenever nothing is there, spinning a random while before.
fn sleepy_end(side: &mut Side<SoftNic>, first: bool, rounds: u64, sleeps: &AtomicU64) {
    let mut random = 0x1234_5678_u64 + u64::from(first);
    let send = |side: &mut Side<SoftNic>, round: u64| {
        if round.is_multiple_of(3) {
            side.send_bytes(0, &pattern(round, 300), round).unwrap();
        } else {
            side.write_tx(65_536, &pattern(round, 79));
            side.send(&[side.tx_sge(65_536, 79)], true, round).unwrap();
        }
    };
    for round in 0..rounds {
        if first {
            send(side, round);
        }
        let length = if round.is_multiple_of(3) { 300 } else { 79 };
        let bytes = loop {
            if let Some(bytes) = side.receive() {
                break bytes;
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Every fourth time none: whoever the machine favours sleeps, too.
            let spins = if random >> 62 == 0 { 0 } else { random >> 54 };
            for _ in 0..spins {
                if side.nic.recv_ready() {
                    break;
                }
                std::hint::spin_loop();
            }
            if side.nic.arm().unwrap() == Armed::Quiet {
                sleeps.fetch_add(1, Ordering::Relaxed);
                assert!(sleep_on(side.nic.event_fd()), "round {round}: an event was lost");
            }
            side.nic.disarm();
        };
        assert!(bytes == pattern(round, length), "round {round}");
        side.completions();
        if !first {
            send(side, round);
        }
    }
}

#[test]
fn no_event_is_lost_over_thousands_of_sleeps() {
    let (mut left, mut right) =
        linked_pair(&SoftOptions { timeout_ns: PATIENCE_NS, ..SoftOptions::default() }, 8);
    let sleeps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| sleepy_end(&mut left, true, 10_000, &sleeps));
        scope.spawn(|| sleepy_end(&mut right, false, 10_000, &sleeps));
    });
    assert!(sleeps.load(Ordering::Relaxed) > 1000);
    conserved(&[&left, &right]);
}

#[test]
fn a_sleeper_that_waits_for_completions_is_woken_by_progress() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 4);
    for round in 0..200 {
        left.send_bytes(0, &pattern(round, 1000), round).unwrap();
        assert_eq!(left.nic.arm().unwrap(), Armed::Quiet);
        assert!(right.receive().is_some());
        assert!(sleep_on(left.nic.event_fd()));
        left.nic.disarm();
        assert_eq!(left.completions().len(), 1);
        assert_eq!(left.nic.arm().unwrap(), Armed::Quiet);
        left.nic.disarm();
    }
    assert_eq!(right.nic.counters().wakes_sent, 200);
}

#[test]
fn a_full_ring_wakes_its_owner_when_there_is_room() {
    let options = SoftOptions { slots: 64, ..SoftOptions::default() };
    let (mut left, mut right) = linked_pair(&options, 64);
    let sge = left.tx_sge(0, 79);
    while left.send(&[sge], true, 0).is_ok() {}
    assert_eq!(left.nic.arm().unwrap(), Armed::Quiet);
    while right.receive().is_some() {}
    assert_eq!(right.nic.arm().unwrap(), Armed::Quiet);
    assert!(sleep_on(left.nic.event_fd()));
    left.nic.disarm();
    assert_eq!(left.send(&[sge], true, 0), Ok(()));
    right.nic.disarm();
}

#[test]
fn a_peer_that_leaves_wakes_a_sleeper() {
    let (mut left, right) = linked_pair(&SoftOptions::default(), 4);
    assert_eq!(left.nic.arm().unwrap(), Armed::Quiet);
    drop(right);
    assert!(sleep_on(left.nic.event_fd()));
    left.nic.disarm();
    left.wait_for(roceway_rdma_virtio::nic::NicEvent::PeerGone);
    assert_eq!(left.send(&[left.tx_sge(0, 79)], true, 0), Err(PostError::LinkDown));
}
