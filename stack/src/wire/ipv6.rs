//! IPv6 headers (RFC 8200 §3), without extension headers.

use core::net::Ipv6Addr;

use super::{array, be16};

/// Bytes of the header.
pub const HEADER_LEN: usize = 40;

/// The link MTU that every IPv6 link has at least (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;

/// Why bytes are not an IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipv6Error {
    /// Fewer bytes than the header has.
    Truncated,
    /// The version is not 6.
    Malformed,
}

/// A header whose length and version were checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<'a> {
    bytes: &'a [u8; HEADER_LEN],
}

impl<'a> Ipv6View<'a> {
    /// Checks the header at the start of `bytes`. Whether the packet is there as a whole is the
    /// caller's to compare.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Ipv6View<'a>, Ipv6Error> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(Ipv6Error::Truncated)?;
        if bytes[0] >> 4 == 6 { Ok(Ipv6View { bytes }) } else { Err(Ipv6Error::Malformed) }
    }

    /// Differentiated services (RFC 2474) and, in the lower two bits, ECN (RFC 3168 §5).
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.bytes[0] << 4 | self.bytes[1] >> 4
    }

    /// Bytes behind the header.
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        be16(self.bytes, 4)
    }

    /// What follows; see [`super::protocol`].
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.bytes[6]
    }

    /// Hops left.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.bytes[7]
    }

    /// Where the packet comes from.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(array(self.bytes, 8))
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(array(self.bytes, 24))
    }
}

/// A header to send. The flow label is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes behind the header.
    pub payload_len: u16,
    /// What follows.
    pub next_header: u8,
    /// Hops allowed.
    pub hop_limit: u8,
    /// Where the packet comes from.
    pub source: Ipv6Addr,
    /// Where it goes.
    pub destination: Ipv6Addr,
}

impl Ipv6Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x60 | self.traffic_class >> 4;
        bytes[1] = self.traffic_class << 4;
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.source.octets());
        bytes[24..40].copy_from_slice(&self.destination.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Ipv6Header {
            traffic_class: 0xb9,
            payload_len: 9,
            next_header: 17,
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        };
        let mut bytes = header.to_bytes();
        let view = Ipv6View::new(&bytes).unwrap();
        assert_eq!((view.traffic_class(), view.payload_len()), (0xb9, 9));
        assert_eq!((view.next_header(), view.hop_limit()), (17, 64));
        assert_eq!((view.source(), view.destination()), (header.source, header.destination));
        assert_eq!(Ipv6View::new(&bytes[..39]).err(), Some(Ipv6Error::Truncated));
        bytes[0] = 0x40;
        assert_eq!(Ipv6View::new(&bytes).err(), Some(Ipv6Error::Malformed));
    }
}
