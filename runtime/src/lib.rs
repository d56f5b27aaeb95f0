//! Workers: stack, virtio-net device and busy-polling loop joined on one core, and the sockets on
//! them.
//!
//! - [`local`] is the worker on the application's own thread: poll-based, without locks.
//! - [`asynchronous`] has tasks and sockets for them on that thread.
//! - [`shared`] has workers and blocking sockets for any thread.
//! - [`settings`] makes a configuration of flags, variables and a file.
#![forbid(unsafe_code)]

pub mod asynchronous;
mod calls;
mod capture;
pub mod config;
mod core;
mod counters;
mod error;
mod given;
mod host;
mod io_error;
pub mod local;
mod marking;
mod memory;
mod offload;
#[cfg(test)]
mod offload_tests;
mod port;
pub mod settings;
pub mod shared;
mod start;
mod waits;
mod zero_copy;

pub use config::{Prefix, WorkerConfig};
pub use error::StartError;
pub use offload::{Gso, OffloadWish, OffloadsInUse, Understood};
pub use roceway_busypoll as busypoll;
pub use roceway_rdma_virtio as rdma_virtio;
pub use roceway_stack as stack;
