//! The routing table: connected links and gateways, the longest prefix first. A linear walk over
//! at most [`ROUTES_MAX`] entries; connections keep what it said.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::config::{ROUTES_MAX, StaticRoute};

/// An address as 128 bits, IPv4 in the upper 32, so that one mask serves both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix_len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix_len.min(128))).unwrap_or(0)
}

/// Whether `address` lies in the prefix.
pub(super) fn in_prefix(address: IpAddr, prefix: IpAddr, prefix_len: u8) -> bool {
    address.is_ipv4() == prefix.is_ipv4() && (bits(address) ^ bits(prefix)) & mask(prefix_len) == 0
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    prefix: IpAddr,
    prefix_len: u8,
    /// `None` for a connected link.
    gateway: Option<IpAddr>,
}

/// Prefixes and their next hops, the longest prefix first.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    entries: Vec<Entry>,
}

impl RouteTable {
    /// The next hop to a destination: itself where its link is connected.
    pub(super) fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        let covers = |entry: &&Entry| in_prefix(destination, entry.prefix, entry.prefix_len);
        let entry = self.entries.iter().find(covers)?;
        Some(entry.gateway.unwrap_or(destination))
    }

    /// Whether the address is on a connected link.
    pub(super) fn is_connected(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|entry| {
            entry.gateway.is_none() && in_prefix(address, entry.prefix, entry.prefix_len)
        })
    }

    /// Adds a connected link; `false` if the table is full.
    pub(super) fn add_connected(&mut self, prefix: IpAddr, prefix_len: u8) -> bool {
        self.add(Entry { prefix, prefix_len, gateway: None })
    }

    /// Adds or replaces a route through a gateway; `false` if the table is full.
    pub(super) fn add_static(&mut self, route: StaticRoute) -> bool {
        let StaticRoute { destination: prefix, prefix_len, gateway } = route;
        self.remove_static(prefix, prefix_len);
        self.add(Entry { prefix, prefix_len, gateway: Some(gateway) })
    }

    /// Takes a route through a gateway away; `false` if there was none.
    pub(super) fn remove_static(&mut self, prefix: IpAddr, prefix_len: u8) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            entry.gateway.is_none()
                || entry.prefix_len != prefix_len
                || !in_prefix(prefix, entry.prefix, prefix_len)
        });
        self.entries.len() < before
    }

    fn add(&mut self, entry: Entry) -> bool {
        if self.entries.len() >= ROUTES_MAX {
            return false;
        }
        let at = self.entries.partition_point(|other| other.prefix_len >= entry.prefix_len);
        self.entries.insert(at, entry);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut table = RouteTable::default();
        assert!(table.add_static(StaticRoute::default_through(ip("10.0.0.1"))));
        assert!(table.add_connected(ip("10.0.0.5"), 24));
        let narrow =
            StaticRoute { destination: ip("192.168.0.0"), prefix_len: 16, gateway: ip("10.0.0.2") };
        assert!(table.add_static(narrow));
        assert!(table.add_connected(ip("fd00::5"), 64));
        let rows = [
            ("10.0.0.77", Some("10.0.0.77")),
            ("10.0.1.77", Some("10.0.0.1")),
            ("192.168.3.4", Some("10.0.0.2")),
            ("fd00::9", Some("fd00::9")),
            ("fd01::9", None),
        ];
        for (destination, next_hop) in rows {
            assert_eq!(table.next_hop(ip(destination)), next_hop.map(ip), "{destination}");
        }
        assert!(table.is_connected(ip("10.0.0.9")) && !table.is_connected(ip("10.0.1.9")));
        assert!(table.remove_static(ip("192.168.0.0"), 16));
        assert_eq!(table.next_hop(ip("192.168.3.4")), Some(ip("10.0.0.1")));
        assert!(!table.remove_static(ip("10.0.0.0"), 24), "a connected link stays");
    }

    #[test]
    fn the_table_is_bounded_and_replaces() {
        let mut table = RouteTable::default();
        for n in 0..ROUTES_MAX {
            let octet = u8::try_from(n).unwrap();
            assert!(table.add_connected(IpAddr::from([10, octet, 0, 1]), 16));
        }
        assert!(!table.add_static(StaticRoute::default_through(ip("10.0.0.9"))));
    }
}
