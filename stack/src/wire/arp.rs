//! ARP for IPv4 over Ethernet (RFC 826); other combinations do not parse.

use core::net::Ipv4Addr;

use super::ethernet::{MacAddr, ethertype};
use super::{array, be16, be32};

/// Bytes of a packet.
pub const PACKET_LEN: usize = 28;

/// What a packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpPacket {
    /// Question or answer.
    pub operation: ArpOperation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227 §1.1).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; meaningless in a request.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

impl ArpPacket {
    /// The packet at the start of `bytes`, or `None` if it is short, not for IPv4 over Ethernet,
    /// or of an unknown operation.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<ArpPacket> {
        let packet = bytes.first_chunk::<PACKET_LEN>()?;
        let is_ours = be16(packet, 0) == 1
            && be16(packet, 2) == ethertype::IPV4
            && packet[4] == 6
            && packet[5] == 4;
        if !is_ours {
            return None;
        }
        let operation = match be16(packet, 6) {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            _ => return None,
        };
        Some(ArpPacket {
            operation,
            sender_mac: array(packet, 8),
            sender: Ipv4Addr::from_bits(be32(packet, 14)),
            target_mac: array(packet, 18),
            target: Ipv4Addr::from_bits(be32(packet, 24)),
        })
    }

    /// The packet's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PACKET_LEN] {
        let mut bytes = [0; PACKET_LEN];
        bytes[..6].copy_from_slice(&[0, 1, 0x08, 0x00, 6, 4]);
        bytes[7] = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..28].copy_from_slice(&self.target.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_the_wire_and_others_are_refused() {
        let packet = ArpPacket {
            operation: ArpOperation::Reply,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: [2, 0, 0, 0, 0, 2],
            target: Ipv4Addr::new(10, 0, 0, 2),
        };
        let bytes = packet.to_bytes();
        assert_eq!(ArpPacket::parse(&bytes), Some(packet));
        for (at, name) in [(1, "hardware"), (2, "protocol"), (4, "MAC length"), (7, "operation")] {
            let mut bad = bytes;
            bad[at] = 9;
            assert_eq!(ArpPacket::parse(&bad), None, "{name}");
        }
        assert_eq!(ArpPacket::parse(&bytes[..27]), None);
    }
}
