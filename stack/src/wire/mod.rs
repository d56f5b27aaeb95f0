//! What is on the wire: one file a header, each with a view that was checked once, after which
//! nothing panics, and a small value with `parse` and `to_bytes`.
//!
//! Nothing here decides anything: what a header means to us is for [`crate::ip`], [`crate::udp`]
//! and [`crate::tcp`] to say.

pub mod arp;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub(crate) mod prediction;
pub mod tcp;
pub mod udp;

/// IP protocol numbers (IPv6: next headers).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// The two bytes at `at` as a number; the caller has checked the length.
const fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The four bytes at `at` as a number; the caller has checked the length.
const fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The `L` bytes at `at`; the caller has checked the length.
#[inline]
fn array<const L: usize, const N: usize>(bytes: &[u8; N], at: usize) -> [u8; L] {
    let mut out = [0; L];
    out.copy_from_slice(&bytes[at..at + L]);
    out
}
