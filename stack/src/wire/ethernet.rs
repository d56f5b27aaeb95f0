//! Ethernet II headers. VLAN tags are not ours: their type is unknown to the layer above.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{array, be16};

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;
/// [`HEADER_LEN`] as offsets in frames are counted.
pub const HEADER_LEN_U32: u32 = 14;
/// Everyone on the link.
pub const BROADCAST: MacAddr = [0xff; 6];

/// Values of the type field.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EthernetHeader {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Where it comes from.
    pub source: MacAddr,
    /// What follows; see [`ethertype`].
    pub ethertype: u16,
}

impl EthernetHeader {
    /// The header at the start of a frame, or `None` if the frame is shorter than one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<EthernetHeader> {
        let header = frame.first_chunk::<HEADER_LEN>()?;
        Some(EthernetHeader {
            destination: array(header, 0),
            source: array(header, 6),
            ethertype: be16(header, 12),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..6].copy_from_slice(&self.destination);
        bytes[6..12].copy_from_slice(&self.source);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }
}

/// Whether the address names one station.
#[must_use]
pub fn is_unicast(address: MacAddr) -> bool {
    address[0] & 1 == 0 && address != [0; 6]
}

/// The group address that frames to an IPv4 multicast group carry (RFC 1112 §6.4).
#[must_use]
pub fn multicast_v4(group: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = group.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

/// The group address that frames to an IPv6 multicast group carry (RFC 2464 §7).
#[must_use]
pub fn multicast_v6(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The group address that frames to a multicast group of either family carry.
#[must_use]
pub fn multicast(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(group) => multicast_v4(group),
        IpAddr::V6(group) => multicast_v6(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = EthernetHeader {
            destination: [1, 2, 3, 4, 5, 6],
            source: [7, 8, 9, 10, 11, 12],
            ethertype: ethertype::IPV6,
        };
        assert_eq!(EthernetHeader::parse(&header.to_bytes()), Some(header));
        assert_eq!(EthernetHeader::parse(&header.to_bytes()[..13]), None);
    }

    #[test]
    fn groups_have_the_addresses_of_rfc_1112_and_rfc_2464() {
        let all_hosts = Ipv4Addr::new(224, 128, 0, 1);
        assert_eq!(multicast_v4(all_hosts), [0x01, 0x00, 0x5e, 0, 0, 1]);
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(multicast_v6(group), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    }
}
