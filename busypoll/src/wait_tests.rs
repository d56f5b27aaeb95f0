//! Sleeps on real descriptors: what ends them, and that nothing is lost between threads.

use super::*;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[test]
fn each_cause_ends_a_sleep_and_is_named() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bell = Doorbell::new().unwrap();
    let mut wait = EventWait::new(bell.clone(), Some(reader.as_raw_fd()));
    wait.arm();
    assert_eq!(wait.sleep(Some(1_000)).unwrap(), Wake::Timeout);
    assert!(bell.ring());
    assert_eq!(wait.sleep(None).unwrap(), Wake::Doorbell);
    wait.disarm();
    writer.write_all(b"x").unwrap();
    wait.arm();
    assert_eq!(wait.sleep(None).unwrap(), Wake::Device);
    wait.disarm();
}

#[test]
fn either_of_two_devices_ends_a_sleep() {
    let (one, mut to_one) = std::io::pipe().unwrap();
    let (other, mut to_other) = std::io::pipe().unwrap();
    let bell = Doorbell::new().unwrap();
    let mut wait = EventWait::new(bell, Some(one.as_raw_fd())).and(other.as_raw_fd());
    assert_eq!(wait.sleep(Some(1_000)).unwrap(), Wake::Timeout);
    to_other.write_all(b"x").unwrap();
    assert_eq!(wait.sleep(None).unwrap(), Wake::Device);
    drop(other);
    let mut wait = EventWait::new(Doorbell::new().unwrap(), Some(one.as_raw_fd()));
    to_one.write_all(b"x").unwrap();
    assert_eq!(wait.sleep(None).unwrap(), Wake::Device);
}

#[test]
fn a_late_ring_ends_at_most_one_sleep() {
    let bell = Doorbell::new().unwrap();
    let mut wait = EventWait::new(bell.clone(), None);
    // A ringer that saw the core armed and wrote only after the core had disarmed.
    bell.event().signal();
    wait.arm();
    assert_eq!(wait.sleep(Some(1_000)).unwrap(), Wake::Doorbell);
    wait.disarm();
    wait.arm();
    assert_eq!(wait.sleep(Some(1_000)).unwrap(), Wake::Timeout);
    wait.disarm();
}

#[test]
fn a_ring_between_arm_and_sleep_is_not_lost() {
    let mut wait = EventWait::new(Doorbell::new().unwrap(), None);
    wait.arm();
    assert!(wait.doorbell().ring());
    assert_eq!(wait.sleep(None).unwrap(), Wake::Doorbell);
    wait.disarm();
}

#[test]
fn thousands_of_handovers_lose_no_item() {
    const ITEMS: u64 = 5_000;
    let bell = Doorbell::new().unwrap();
    let queue = Arc::new(AtomicU64::new(0));
    let pusher = {
        let (bell, queue) = (bell.clone(), queue.clone());
        std::thread::spawn(move || {
            for item in 0..ITEMS {
                queue.fetch_add(1, Ordering::Release);
                bell.ring();
                if item % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        })
    };
    let mut wait = EventWait::new(bell, None);
    let mut taken = 0;
    let started = Instant::now();
    while taken < ITEMS {
        assert!(started.elapsed() < Duration::from_secs(60), "{taken} of {ITEMS} items came");
        taken += queue.swap(0, Ordering::Acquire);
        wait.arm();
        if taken < ITEMS && queue.load(Ordering::Acquire) == 0 {
            // A lost wake-up shows as a timeout after 10 s.
            assert_ne!(wait.sleep(Some(10_000_000_000)).unwrap(), Wake::Timeout);
        }
        wait.disarm();
    }
    pusher.join().unwrap();
    assert_eq!(taken, ITEMS);
}
