//! How another thread wakes a core that may sleep: a state word and an eventfd.
//!
//! The sleeper arms, looks at its queues once more, and sleeps; a ringer pushes, then looks whether
//! the sleeper is armed. Between the two stores and the two loads stands a sequentially consistent
//! fence on each side, so at least one of the two sees the other's store (Dekker): the sleeper sees
//! the push, or the ringer sees the arming and writes the eventfd. While the core polls, a ring
//! costs the ringer a fence and a load and the core nothing.
//!
//! At most one ringer a sleep writes the eventfd. A write may come after the sleeper has gone on;
//! it then ends the next sleep early, once.

use crate::event::Event;
use crate::sync::{Arc, AtomicU32, Ordering, fence};
use std::io;

/// The core polls; nobody need wake it.
const AWAKE: u32 = 0;
/// The core sleeps or is about to.
const ARMED: u32 = 1;
/// A ringer has taken it on itself to write the eventfd.
const RUNG: u32 = 2;

struct Shared {
    state: AtomicU32,
    event: Event,
}

/// A doorbell of one sleeping core. Clones ring the same bell.
#[derive(Clone)]
pub struct Doorbell(Arc<Shared>);

impl Doorbell {
    /// A bell whose core is awake.
    ///
    /// # Errors
    /// If the process may open no further descriptor.
    pub fn new() -> io::Result<Doorbell> {
        let event = Event::new()?;
        Ok(Doorbell(Arc::new(Shared { state: AtomicU32::new(AWAKE), event })))
    }

    /// Wakes the core if it sleeps. Call it after the work was published (pushed to a queue).
    /// Returns whether this call woke it, that is, made a system call.
    pub fn ring(&self) -> bool {
        // Pairs with the fence in `arm`: see the file's head.
        fence(Ordering::SeqCst);
        let shared = &*self.0;
        let armed = shared.state.load(Ordering::Relaxed) == ARMED
            && shared
                .state
                .compare_exchange(ARMED, RUNG, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if armed {
            shared.event.signal();
        }
        armed
    }

    /// The sleeper announces that it is about to sleep; it must look at its queues after this.
    pub(crate) fn arm(&self) {
        self.0.state.store(ARMED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again. Returns whether somebody rang.
    pub(crate) fn disarm(&self) -> bool {
        let rung = self.0.state.swap(AWAKE, Ordering::AcqRel) == RUNG;
        if rung {
            self.0.event.take();
        }
        rung
    }

    /// The eventfd.
    pub(crate) fn event(&self) -> &Event {
        &self.0.event
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_an_armed_core_costs_the_ringer_a_system_call() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.ring(), "awake");
        bell.arm();
        assert!(bell.clone().ring(), "armed");
        assert!(!bell.ring(), "rung already");
        assert!(bell.disarm());
        assert!(!bell.disarm());
        assert!(!bell.event().take(), "disarm took the event");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// One sleeper with `ringers` ringers that each push one item: the sleeper gets all items; a
    /// lost wake-up is a deadlock, which loom reports. All interleavings with at most
    /// `preemptions` involuntary switches of a thread; all of them if `None`.
    fn no_item_is_lost(ringers: usize, preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions;
        model.check(move || {
            let bell = Doorbell::new().unwrap();
            let queue = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..ringers)
                .map(|_| {
                    let (bell, queue) = (bell.clone(), queue.clone());
                    thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Release);
                        bell.ring();
                    })
                })
                .collect();
            let mut taken = 0;
            while taken < ringers {
                taken += queue.swap(0, Ordering::Acquire);
                if taken == ringers {
                    break;
                }
                bell.arm();
                if queue.load(Ordering::Relaxed) == 0 {
                    bell.event().wait();
                }
                bell.disarm();
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_one_ringer_wakes_the_sleeper() {
        no_item_is_lost(1, None);
    }

    #[test]
    fn loom_two_ringers_wake_the_sleeper() {
        no_item_is_lost(2, Some(2));
    }
}
