//! The barriers of the crate, by name, and the atomics that go with them.
//!
//! Everything that orders memory between two sides of a ring goes through this file, so that under
//! `cfg(loom)` the model checker sees all of it. Nothing else in the virtqueue code names an
//! ordering.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Between storing an index and looking whether the other side wants to hear of it, and between
/// asking to be told and looking once more (virtio 1.2 §2.7.10, §2.7.22). Each side stores, then
/// loads what the other stored: only a full fence makes sure that one of them sees the other.
#[inline]
pub(crate) fn store_then_look() {
    fence(Ordering::SeqCst);
}

/// After bytes that someone else may change were copied to a local: what was copied is what is
/// checked and used; the compiler must not read the bytes again.
#[inline]
pub(crate) fn copied_in() {
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}
