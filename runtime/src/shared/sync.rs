//! What the leader protocol uses of threads: the standard library's, or loom's where loom checks
//! every interleaving.

#[cfg(not(loom))]
pub(super) use std::sync::Arc;
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
pub(super) use std::thread::{Thread, current, park, park_timeout};

#[cfg(loom)]
pub(super) use loom::sync::Arc;
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
pub(super) use loom::thread::{Thread, current, park};
