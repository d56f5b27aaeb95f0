//! GIDs: what a port's table holds, and which entry a queue pair is to use.
//!
//! Owns the choice, as a pure function over the table and the addresses of this network namespace.
//! Never takes an index for granted: entry 0 is usually the link-local one, and entries of other
//! namespaces and of RoCE version 1 stand between the others.

use super::attributes::LinkLayer;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// A global identifier. On RoCE it is an IPv6 address, or an IPv4 address mapped into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The address that it is.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// Whether the table's entry is empty.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Whether it is of use on one link only: fe80::/10, 169.254.0.0/16.
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        match self.ip() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

impl From<IpAddr> for Gid {
    fn from(ip: IpAddr) -> Gid {
        match ip {
            IpAddr::V4(ip) => Gid(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => Gid(ip.octets()),
        }
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(out)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What messages with a GID look like on the wire (`ibv_gid_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GidKind {
    /// InfiniBand.
    InfiniBand,
    /// RoCE version 1: an ethertype of its own, no router passes it.
    RoceV1,
    /// RoCE version 2: UDP, port 4791.
    RoceV2,
    /// Another; its number in `ibv_gid_type`.
    Other(u32),
}

impl fmt::Display for GidKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GidKind::InfiniBand => out.write_str("InfiniBand"),
            GidKind::RoceV1 => out.write_str("RoCE v1"),
            GidKind::RoceV2 => out.write_str("RoCE v2"),
            GidKind::Other(number) => write!(out, "type {number}"),
        }
    }
}

/// An entry of the GID table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GidEntry {
    /// The GID.
    pub gid: Gid,
    /// Its place in its port's table.
    pub index: u32,
    /// The port, from 1.
    pub port: u8,
    /// Its kind.
    pub kind: GidKind,
    /// Index of the network interface that it belongs to, in the namespace of that interface; 0 for
    /// none.
    pub interface: u32,
}

/// An address of an interface of this network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceAddress {
    /// Index of the interface.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
}

/// What the chosen GID must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GidWish {
    /// Of this port, from 1.
    pub port: u8,
    /// What that port's link is.
    pub link_layer: LinkLayer,
    /// Of this interface: what the user wrote instead of a device.
    pub interface: Option<u32>,
    /// This address.
    pub address: Option<IpAddr>,
    /// This index, whatever else is wished or advisable, if the entry is not empty.
    pub index: Option<u32>,
}

/// Why an entry was not chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// Nothing is in it.
    Empty,
    /// Of another kind than RoCE version 2, or than InfiniBand on such a link.
    Kind(GidKind),
    /// Reaches this link only.
    LinkLocal,
    /// Belongs to no interface, or one of another network namespace.
    Foreign,
    /// Belongs to another interface than the one wished.
    OtherInterface,
    /// Another address than the one wished.
    OtherAddress,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Empty => out.write_str("empty"),
            Unfit::Kind(kind) => write!(out, "{kind}"),
            Unfit::LinkLocal => out.write_str("link-local"),
            Unfit::Foreign => out.write_str("no address of an interface here"),
            Unfit::OtherInterface => out.write_str("another interface"),
            Unfit::OtherAddress => out.write_str("another address"),
        }
    }
}

/// No entry fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoGid {
    /// Every entry of the port that is not empty, and why it was not chosen.
    pub rejected: Vec<(GidEntry, Unfit)>,
    /// What was wished.
    pub wish: GidWish,
}

impl fmt::Display for NoGid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no usable GID on port {}", self.wish.port)?;
        if let Some(index) = self.wish.index {
            write!(out, " at index {index}")?;
        }
        if let Some(address) = self.wish.address {
            write!(out, " with address {address}")?;
        }
        for (at, (entry, why)) in self.rejected.iter().enumerate() {
            let separator = if at == 0 { ": " } else { ", " };
            write!(out, "{separator}{} {} ({why})", entry.index, entry.gid)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoGid {}

impl NoGid {
    /// What the user can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match (self.wish.index, self.wish.address, self.wish.link_layer) {
            (Some(_), ..) => "choose an index that `roceway doctor` lists",
            (_, Some(_), _) => "give the interface that address: ip addr add ADDRESS/PREFIX dev IF",
            (_, _, LinkLayer::InfiniBand) => "see that a subnet manager runs: sminfo",
            _ => "give the interface an address that is not link-local: ip addr add ... dev IF",
        }
    }
}

/// Chooses the GID that a queue pair is to use.
///
/// On Ethernet: of kind RoCE version 2, neither empty nor link-local, and with an address that its
/// interface has in this network namespace. Of those that fit, IPv4 comes before global IPv6 and
/// that before unique local IPv6, and the lower index first. On InfiniBand the first entry that is
/// not empty, where the default prefix is a link-local one.
///
/// # Errors
/// [`NoGid`] with the reason for each entry.
pub fn choose(
    table: &[GidEntry],
    here: &[InterfaceAddress],
    wish: &GidWish,
) -> Result<GidEntry, NoGid> {
    let of_port = table.iter().filter(|entry| entry.port == wish.port);
    let mut rejected = Vec::new();
    let mut best: Option<(u8, GidEntry)> = None;
    for entry in of_port {
        if wish.index.is_some_and(|index| index != entry.index) {
            continue;
        }
        match unfit(entry, here, wish) {
            None => {
                let rank = rank(entry.gid.ip());
                if best.is_none_or(|(other, before)| (rank, entry.index) < (other, before.index)) {
                    best = Some((rank, *entry));
                }
            }
            Some(Unfit::Empty) => {}
            Some(why) => rejected.push((*entry, why)),
        }
    }
    best.map(|(_, entry)| entry).ok_or(NoGid { rejected, wish: *wish })
}

fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 0,
        IpAddr::V6(ip) if !ip.is_unique_local() => 1,
        IpAddr::V6(_) => 2,
    }
}

fn unfit(entry: &GidEntry, here: &[InterfaceAddress], wish: &GidWish) -> Option<Unfit> {
    let ip = entry.gid.ip();
    let other_address = wish.address.is_some_and(|address| address.to_canonical() != ip);
    if entry.gid.is_zero() {
        return Some(Unfit::Empty);
    }
    if wish.index.is_some() {
        return None;
    }
    if wish.link_layer == LinkLayer::InfiniBand {
        let kind = entry.kind != GidKind::InfiniBand;
        return match (kind, other_address) {
            (true, _) => Some(Unfit::Kind(entry.kind)),
            (_, true) => Some(Unfit::OtherAddress),
            (false, false) => None,
        };
    }
    let belongs = |at: &InterfaceAddress| at.index == entry.interface && at.ip == ip;
    if entry.kind != GidKind::RoceV2 {
        Some(Unfit::Kind(entry.kind))
    } else if entry.gid.is_link_local() {
        Some(Unfit::LinkLocal)
    } else if entry.interface == 0 || ip.is_loopback() || !here.iter().any(belongs) {
        Some(Unfit::Foreign)
    } else if wish.interface.is_some_and(|index| index != entry.interface) {
        Some(Unfit::OtherInterface)
    } else if other_address {
        Some(Unfit::OtherAddress)
    } else {
        None
    }
}

/// The addresses of all interfaces of this network namespace.
///
/// # Errors
/// If the kernel does not tell.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    super::interfaces::addresses()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        Gid::from(text.parse::<IpAddr>().unwrap())
    }

    fn entry(index: u32, kind: GidKind, text: &str, interface: u32) -> GidEntry {
        GidEntry { gid: gid(text), index, port: 1, kind, interface }
    }

    fn here(addresses: &[(u32, &str)]) -> Vec<InterfaceAddress> {
        let at = |&(index, ip): &(u32, &str)| InterfaceAddress {
            index,
            name: format!("eth{index}"),
            ip: ip.parse().unwrap(),
        };
        addresses.iter().map(at).collect()
    }

    const WISH: GidWish = GidWish {
        port: 1,
        link_layer: LinkLayer::Ethernet,
        interface: None,
        address: None,
        index: None,
    };

    /// The table of a port with two interfaces (2, and its VLAN 3), both versions, a foreign
    /// namespace's address, and another port.
    fn table() -> Vec<GidEntry> {
        use GidKind::{RoceV1, RoceV2};
        let mut table = vec![
            entry(0, RoceV1, "fe80::1", 2),
            entry(1, RoceV2, "fe80::1", 2),
            entry(2, RoceV1, "10.0.0.1", 2),
            entry(3, RoceV2, "fd00::1", 2),
            entry(4, RoceV2, "2001:db8::1", 2),
            entry(5, RoceV2, "10.0.0.1", 2),
            entry(6, RoceV2, "10.0.3.1", 3),
            entry(7, RoceV2, "10.7.7.7", 2),
            entry(8, RoceV2, "10.0.0.9", 0),
            entry(9, RoceV2, "169.254.3.4", 2),
            entry(10, RoceV2, "::", 2),
        ];
        table.push(GidEntry { port: 2, ..entry(0, RoceV2, "10.0.0.1", 2) });
        table
    }

    #[test]
    fn the_gid_is_chosen_by_kind_and_address() {
        let all = [
            (2, "10.0.0.1"),
            (2, "fe80::1"),
            (2, "169.254.3.4"),
            (2, "2001:db8::1"),
            (2, "fd00::1"),
            (3, "10.0.3.1"),
            (1, "10.0.0.9"),
        ];
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let v6 = [(2, "fe80::1"), (2, "fd00::1"), (2, "2001:db8::1")];
        let local = [(2, "fe80::1"), (2, "fd00::1")];
        for (name, addresses, wish, expected) in [
            ("IPv4 comes first", &all[..], WISH, Some(5)),
            ("IPv6 only: global", &v6, WISH, Some(4)),
            ("IPv6 only: unique local", &local, WISH, Some(3)),
            ("link-local never", &[(2, "fe80::1"), (2, "169.254.3.4")], WISH, None),
            ("wished address", &all, GidWish { address: ip("2001:db8::1"), ..WISH }, Some(4)),
            ("mapped", &all, GidWish { address: ip("::ffff:10.0.3.1"), ..WISH }, Some(6)),
            ("wished but link-local", &all, GidWish { address: ip("fe80::1"), ..WISH }, None),
            ("of another namespace", &all, GidWish { address: ip("10.7.7.7"), ..WISH }, None),
            ("of no interface", &all, GidWish { address: ip("10.0.0.9"), ..WISH }, None),
            ("wished interface", &all, GidWish { interface: Some(3), ..WISH }, Some(6)),
            ("interface without any", &all, GidWish { interface: Some(9), ..WISH }, None),
            ("index overrides", &[], GidWish { index: Some(1), ..WISH }, Some(1)),
            ("index of an empty one", &all, GidWish { index: Some(10), ..WISH }, None),
            ("index beyond", &all, GidWish { index: Some(77), ..WISH }, None),
            ("another port", &all, GidWish { port: 2, ..WISH }, Some(0)),
            ("no such port", &all, GidWish { port: 3, ..WISH }, None),
        ] {
            let chosen = choose(&table(), &here(addresses), &wish);
            assert_eq!(chosen.ok().map(|entry| entry.index), expected, "{name}");
        }
    }

    #[test]
    fn an_infiniband_port_uses_its_first_entry_link_local_or_not() {
        let kind = GidKind::InfiniBand;
        let table = [entry(0, kind, "fe80::2:c903:0:1", 0), entry(1, kind, "fec0::1", 0)];
        let wish = GidWish { link_layer: LinkLayer::InfiniBand, ..WISH };
        assert_eq!(choose(&table, &[], &wish).map(|entry| entry.index), Ok(0));
        let address = "fec0::1".parse().ok();
        let wished = choose(&table, &[], &GidWish { address, ..wish });
        assert_eq!(wished.map(|entry| entry.index), Ok(1));
        assert!(choose(&[entry(0, GidKind::RoceV2, "fec0::1", 0)], &[], &wish).is_err());
    }

    #[test]
    fn a_refusal_says_of_each_entry_why_not() {
        let table = [
            entry(0, GidKind::RoceV1, "10.0.0.1", 2),
            entry(1, GidKind::RoceV2, "fe80::1", 2),
            entry(2, GidKind::RoceV2, "10.9.0.1", 2),
            entry(3, GidKind::RoceV2, "::", 2),
        ];
        let refused = choose(&table, &here(&[(2, "10.0.0.1")]), &WISH).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no usable GID on port 1: 0 ::ffff:10.0.0.1 (RoCE v1), 1 fe80::1 (link-local), \
             2 ::ffff:10.9.0.1 (no address of an interface here)"
        );
        assert!(refused.remedy().contains("ip addr add"));
    }
}
