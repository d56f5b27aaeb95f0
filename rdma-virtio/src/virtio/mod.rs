//! Virtio-net over split virtqueues (virtio 1.2 §2.7 and §5.1): the driver half for the stack, the
//! device half for a NIC.
//!
//! The two halves are separate types that meet only in the rings. Who shares the rings is a
//! [`ring::Policy`]: [`ring::SameThread`] where one thread turns both halves, [`ring::Shared`]
//! where the other half belongs to someone else. [`interface::NetInterface`] assembles both.

#![cfg_attr(loom, allow(dead_code, reason = "the interface, which is left out, uses it"))]

pub mod chain;
pub mod checksum;
pub mod device;
pub mod driver;
pub mod features;
#[cfg(not(loom))]
pub mod interface;
pub mod layout;
pub mod net_header;
pub mod ring;
pub mod segmentation;

/// The lower half of a double word.
#[inline]
fn low_word(double: u64) -> u32 {
    let [a, b, c, d, ..] = double.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
