//! Registered memory, virtqueues, the virtio-net driver and device, and verbs-shaped NICs.
//!
//! A frame to send goes: driver half → virtqueue → device half → [`nic::Nic`]; a received one the
//! same way back. The crate knows no TCP and imports no other crate of the workspace.

mod barrier;
pub mod counters;
pub mod memory;
pub mod nic;
pub mod verbs;
pub mod virtio;
