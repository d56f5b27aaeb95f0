//! The shared rings under the model checker: no notification is lost, and what was published is
//! seen whole. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test virtio_loom`.
#![cfg(loom)]

use loom::sync::{Arc, Notify as Bell};
use loom::thread;

use roceway_rdma_virtio::virtio::layout::{Descriptor, OwnQueue};
use roceway_rdma_virtio::virtio::ring::{DeviceRing, DriverRing, Notify, Quiet, Shared};

const COUNT: u16 = 2;

/// Fresh ends of a queue. The queue is returned too: it must be dropped last.
fn ends(event_index: bool) -> (DriverRing<Shared>, DeviceRing<Shared>, OwnQueue) {
    let mut queue = OwnQueue::new(2).unwrap();
    // SAFETY: the callers join both threads before they drop the queue.
    let memory = unsafe { queue.memory() };
    let driver = DriverRing::new(memory.clone(), event_index);
    (driver, DeviceRing::new(memory, event_index), queue)
}

fn no_kick_is_lost(event_index: bool) {
    loom::model(move || {
        let (mut driver, mut device, queue) = ends(event_index);
        let bell = Arc::new(Bell::new());
        let ring = bell.clone();
        let producer = thread::spawn(move || {
            for value in 0..COUNT {
                let id = driver.take_descriptor().unwrap();
                driver
                    .write(id, Descriptor { len: 100 + u32::from(value), ..Descriptor::default() });
                driver.push_available(id);
                if driver.publish() == Notify::Needed {
                    ring.notify();
                }
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            if device.waiting().unwrap() > 0 {
                let head = device.peek(0);
                assert_eq!(device.descriptor(head).len, 100 + u32::from(seen));
                device.consume(1);
                seen += 1;
                continue;
            }
            match device.enable_notifications() {
                Quiet::Pending => {}
                Quiet::Quiet => bell.wait(),
            }
        }
        producer.join().unwrap();
        drop(device);
        drop(queue);
    });
}

fn no_interrupt_is_lost(event_index: bool) {
    loom::model(move || {
        let (mut driver, mut device, queue) = ends(event_index);
        let bell = Arc::new(Bell::new());
        let ring = bell.clone();
        let producer = thread::spawn(move || {
            for value in 0..COUNT {
                device.push_used(value, 100 + u32::from(value));
                if device.publish() == Notify::Needed {
                    ring.notify();
                }
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            if let Some(used) = driver.pop_used().unwrap() {
                assert_eq!((used.id, used.len), (seen.into(), 100 + u32::from(seen)));
                seen += 1;
                continue;
            }
            match driver.enable_notifications() {
                Quiet::Pending => {}
                Quiet::Quiet => bell.wait(),
            }
        }
        producer.join().unwrap();
        drop(driver);
        drop(queue);
    });
}

#[test]
fn no_kick_is_lost_with_event_index() {
    no_kick_is_lost(true);
}

#[test]
fn no_kick_is_lost_with_flags() {
    no_kick_is_lost(false);
}

#[test]
fn no_interrupt_is_lost_with_event_index() {
    no_interrupt_is_lost(true);
}

#[test]
fn no_interrupt_is_lost_with_flags() {
    no_interrupt_is_lost(false);
}
