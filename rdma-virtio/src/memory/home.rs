//! What handles of applications share with the arena that they came from: the mapping, which lives
//! until the last of them is gone, and a queue on which they come back from any thread.
//!
//! Never touches a reference count: the thread that holds the arena does, when it drains the queue.
//! Invariant: the queue has room for every handle that is out, so that a return never fails.

use std::fmt;
use std::sync::OnceLock;

use crossbeam_queue::ArrayQueue;

use super::mapping::Mapping;

/// A handle that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Return {
    /// A block of the arena, by its first granule.
    Block(u32),
    /// A block of registered memory, by the number of that.
    Registered(u32),
    /// A lent piece: its slot's first granule, [`NO_SLOT`] if it lay elsewhere, whose it was, and
    /// how many bytes.
    Lent { slot: u32, owner: u64, bytes: u32 },
}

/// The number of no granule.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// See the module's description.
pub(super) struct Home {
    pub(super) mapping: Mapping,
    pub(super) returns: ArrayQueue<Return>,
    /// Called after each return: wakes whoever drains the queue.
    pub(super) on_return: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Home {
    /// A home with room for so many handles.
    pub(super) fn new(mapping: Mapping, handles: usize) -> Home {
        Home { mapping, returns: ArrayQueue::new(handles.max(1)), on_return: OnceLock::new() }
    }

    /// A handle comes back.
    pub(super) fn give_back(&self, handle: Return) {
        let kept = self.returns.push(handle);
        debug_assert!(kept.is_ok(), "there is room for every handle");
        if let Some(wake) = self.on_return.get() {
            wake();
        }
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("mapping", &self.mapping).finish_non_exhaustive()
    }
}
