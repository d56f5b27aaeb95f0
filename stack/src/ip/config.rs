//! What an interface is told at its start, and the limits of its tables.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

use crate::time::Duration;
use crate::wire::ethernet::{self, MacAddr};
use crate::wire::ipv6;

/// Most addresses of an interface, a link-local one that it adds itself included.
pub const ADDRESSES_MAX: usize = 16;
/// Most routes, connected prefixes included.
pub const ROUTES_MAX: usize = 64;
/// Smallest MTU of an interface without IPv6 (RFC 1122 §3.3.3 wants 576 to be received).
pub const MTU_MIN: u16 = 576;

/// An address of the interface and how much of it names its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits that all addresses of the link share.
    pub prefix_len: u8,
}

/// A route through a gateway. A prefix of length 0 is the default route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticRoute {
    /// An address in the prefix; the bits behind `prefix_len` do not matter.
    pub destination: IpAddr,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// The next hop, on a connected link.
    pub gateway: IpAddr,
}

impl StaticRoute {
    /// The default route of the gateway's family.
    #[must_use]
    pub fn default_through(gateway: IpAddr) -> StaticRoute {
        let destination = match gateway {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
        };
        StaticRoute { destination, prefix_len: 0, gateway }
    }
}

/// Limits of the tables. With the defaults they hold at most about 600 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpLimits {
    /// Neighbours; about 64 bytes each.
    pub neighbors: u16,
    /// Datagrams in reassembly.
    pub fragmented_datagrams: u16,
    /// Bytes of fragments in reassembly, with 64 for each fragment's keeping.
    pub fragment_bytes: u32,
    /// Time that a datagram may take to arrive whole (RFC 1122 §3.3.2).
    pub fragment_timeout: Duration,
    /// Control frames (ARP, NDP, ICMP) that wait to be sent.
    pub control_frames: u16,
    /// Bytes of those.
    pub control_bytes: u32,
    /// ICMP errors sent a second, and at once after a pause (RFC 1812 §4.3.2.8).
    pub icmp_errors_per_second: u16,
}

impl Default for IpLimits {
    fn default() -> IpLimits {
        IpLimits {
            neighbors: 256,
            fragmented_datagrams: 64,
            fragment_bytes: 384 * 1024,
            fragment_timeout: Duration::from_secs(30),
            control_frames: 128,
            control_bytes: 192 * 1024,
            icmp_errors_per_second: 100,
        }
    }
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpConfig {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Bytes of the longest packet, IP header included.
    pub mtu: u16,
    /// Its addresses; the first of a family is the source where no better one is known.
    pub addresses: Vec<InterfaceAddress>,
    /// Routes besides those to connected links.
    pub routes: Vec<StaticRoute>,
    /// Limits.
    pub limits: IpLimits,
}

impl IpConfig {
    /// An interface with an MTU of 1500, no route and the default limits.
    #[must_use]
    pub fn new(mac: MacAddr, addresses: &[InterfaceAddress]) -> IpConfig {
        IpConfig {
            mac,
            mtu: 1500,
            addresses: addresses.to_vec(),
            routes: Vec::new(),
            limits: IpLimits::default(),
        }
    }
}

/// Why an interface cannot be what it was told to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IpConfigError {
    /// The Ethernet address is a group or zero.
    #[error("the Ethernet address is not the address of one station")]
    Mac,
    /// The MTU is too small.
    #[error("an MTU of {0} is too small: at least 576, and 1280 with IPv6")]
    Mtu(u16),
    /// No address at all.
    #[error("the interface has no address")]
    NoAddress,
    /// More addresses than [`ADDRESSES_MAX`].
    #[error("more than 15 addresses")]
    TooManyAddresses,
    /// More routes than [`ROUTES_MAX`].
    #[error("more than 64 routes, those to connected links included")]
    TooManyRoutes,
    /// An address that no host can have.
    #[error("{0} cannot be the address of a host")]
    Address(IpAddr),
    /// The address is the link's own, or its broadcast address.
    #[error("{0} is the network or broadcast address of its own prefix")]
    NetworkAddress(IpAddr),
    /// A prefix longer than the address.
    #[error("a prefix length of {0} is longer than the address")]
    PrefixLen(u8),
    /// A prefix of no bits. Linux takes it; here it is refused, as it would make every host of the
    /// world a neighbour and no gateway necessary, which nobody who writes it means.
    #[error("{0}/0 has no network: give the prefix of its link, and a gateway for the rest")]
    NoPrefix(IpAddr),
    /// The gateway of a route is of the other family or on no connected link.
    #[error("gateway {0} is on no connected link")]
    Gateway(IpAddr),
    /// A limit is zero.
    #[error("a limit of zero: {0}")]
    ZeroLimit(&'static str),
}

impl IpConfig {
    /// Checks everything but the routes, which need the table of connected links.
    pub(super) fn check(&self) -> Result<(), IpConfigError> {
        if !ethernet::is_unicast(self.mac) {
            return Err(IpConfigError::Mac);
        }
        if self.addresses.is_empty() {
            return Err(IpConfigError::NoAddress);
        }
        // One place stays free for the link-local address.
        if self.addresses.len() >= ADDRESSES_MAX {
            return Err(IpConfigError::TooManyAddresses);
        }
        let has_v6 = self.addresses.iter().any(|entry| entry.address.is_ipv6());
        let least = if has_v6 { ipv6::MTU_MIN } else { MTU_MIN };
        if self.mtu < least {
            return Err(IpConfigError::Mtu(self.mtu));
        }
        for entry in &self.addresses {
            entry.check()?;
        }
        self.limits.check()
    }
}

impl InterfaceAddress {
    fn check(self) -> Result<(), IpConfigError> {
        let bad = Err(IpConfigError::Address(self.address));
        if self.prefix_len == 0 {
            return Err(IpConfigError::NoPrefix(self.address));
        }
        match self.address {
            IpAddr::V4(address) => {
                if self.prefix_len > 32 {
                    return Err(IpConfigError::PrefixLen(self.prefix_len));
                }
                if !super::is_host_v4(address) {
                    return bad;
                }
                // RFC 3021: a prefix of 31 bits has neither a network nor a broadcast address.
                let host_bits = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
                let host = address.to_bits() & host_bits;
                if self.prefix_len < 31 && (host == 0 || host == host_bits) {
                    return Err(IpConfigError::NetworkAddress(self.address));
                }
                Ok(())
            }
            IpAddr::V6(address) => {
                if self.prefix_len > 128 {
                    return Err(IpConfigError::PrefixLen(self.prefix_len));
                }
                if super::is_host_v6(address) { Ok(()) } else { bad }
            }
        }
    }
}

impl IpLimits {
    fn check(&self) -> Result<(), IpConfigError> {
        let zeros = [
            (self.neighbors == 0, "neighbors"),
            (self.fragmented_datagrams == 0, "fragmented_datagrams"),
            (self.fragment_bytes == 0, "fragment_bytes"),
            (self.fragment_timeout == Duration::ZERO, "fragment_timeout"),
            (self.control_frames == 0, "control_frames"),
            (self.control_bytes == 0, "control_bytes"),
            (self.icmp_errors_per_second == 0, "icmp_errors_per_second"),
        ];
        match zeros.iter().find(|(is_zero, _)| *is_zero) {
            Some((_, name)) => Err(IpConfigError::ZeroLimit(name)),
            None => Ok(()),
        }
    }
}
