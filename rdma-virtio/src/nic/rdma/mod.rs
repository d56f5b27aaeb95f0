//! `rdma:DEV`: an RDMA NIC through verbs.
//!
//! `wire` is the protocol of the modes rc and ud, without devices.

pub mod wire;
