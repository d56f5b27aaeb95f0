//! ICMP for IPv4 (RFC 792): the first eight bytes, which every message has.

use super::{array, be32};

/// Bytes before the quoted packet or the echoed data.
pub const HEADER_LEN: usize = 8;

/// Values of the type field.
pub mod kind {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// A packet could not be delivered.
    pub const UNREACHABLE: u8 = 3;
    /// Request for an echo.
    pub const ECHO_REQUEST: u8 = 8;
    /// A packet's time ran out.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A packet's header was bad.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of [`kind::UNREACHABLE`].
pub mod unreachable {
    /// No route to the network.
    pub const NETWORK: u8 = 0;
    /// No route to the host.
    pub const HOST: u8 = 1;
    /// The host does not know the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens on the port.
    pub const PORT: u8 = 3;
    /// Too big, and must not be fragmented; the rest holds the MTU (RFC 1191 §4).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// The first eight bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpHeader {
    /// What the message is; see [`kind`].
    pub kind: u8,
    /// Its variant.
    pub code: u8,
    /// The checksum of the whole message.
    pub checksum: u16,
    /// What depends on the type: identifier and sequence number, pointer, MTU.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// The header at the start of `bytes`, or `None` if they are too few.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<IcmpHeader> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        Some(IcmpHeader {
            kind: header[0],
            code: header[1],
            checksum: super::be16(header, 2),
            rest: array(header, 4),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [c, d] = self.checksum.to_be_bytes();
        let [e, f, g, h] = self.rest;
        [self.kind, self.code, c, d, e, f, g, h]
    }

    /// The rest as one number.
    #[must_use]
    pub fn rest_u32(&self) -> u32 {
        be32(&self.rest, 0)
    }
}

/// Whether a type of ICMP for IPv4 is an error, to which no error answers (RFC 1122 §3.2.2).
/// Types that are not known to be queries count as errors.
#[must_use]
pub fn is_error(kind: u8) -> bool {
    !matches!(kind, 0 | 8 | 9 | 10 | 13..=18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = IcmpHeader { kind: 3, code: 4, checksum: 0x0102, rest: [0, 0, 5, 0xdc] };
        assert_eq!(IcmpHeader::parse(&header.to_bytes()), Some(header));
        assert_eq!(header.rest_u32(), 1500);
        assert_eq!(IcmpHeader::parse(&header.to_bytes()[..7]), None);
        assert!(is_error(kind::TIME_EXCEEDED) && !is_error(kind::ECHO_REQUEST));
    }
}
