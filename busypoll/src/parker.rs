//! How a thread sleeps until somebody names it. A wake before the sleep is not lost: it is kept.

use std::time::Instant;

#[cfg(not(loom))]
use crate::sync::park_timeout;
use crate::sync::{Arc, AtomicBool, Ordering, Thread, current, park};

struct Shared {
    woken: AtomicBool,
    thread: Thread,
}

/// The token that wakes one thread.
#[derive(Clone)]
pub struct Parker(Arc<Shared>);

impl Parker {
    /// The calling thread's.
    #[must_use]
    pub fn of_this_thread() -> Parker {
        Parker(Arc::new(Shared { woken: AtomicBool::new(false), thread: current() }))
    }

    /// Wakes the thread, or lets its next sleep end at once.
    pub fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::AcqRel) {
            self.0.thread.unpark();
        }
    }

    /// Sleeps until woken; called by the token's own thread.
    pub fn sleep(&self) {
        while !self.0.woken.swap(false, Ordering::AcqRel) {
            park();
        }
    }

    /// Sleeps until woken or until `end`.
    #[cfg(not(loom))]
    pub fn sleep_until(&self, end: Option<Instant>) {
        let Some(end) = end else { return self.sleep() };
        while !self.0.woken.swap(false, Ordering::AcqRel) {
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => park_timeout(left),
                _ => return,
            }
        }
    }

    /// As [`Parker::sleep`]: loom has no time.
    #[cfg(loom)]
    pub fn sleep_until(&self, _end: Option<Instant>) {
        self.sleep();
    }
}
