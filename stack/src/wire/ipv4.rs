//! IPv4 headers (RFC 791). Options are skipped, never interpreted.

use core::net::Ipv4Addr;

use super::{be16, be32};
use crate::checksum::Sum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Offset of the header checksum.
pub const CHECKSUM_OFFSET: usize = 10;

/// Why bytes are not an IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipv4Error {
    /// Fewer bytes than the header has.
    Truncated,
    /// The version is not 4, or the header says that it is shorter than 20 bytes, or that the
    /// packet is shorter than its header.
    Malformed,
    /// The header checksum is wrong.
    Checksum,
}

/// The fixed part of a header whose lengths and checksum were checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4View<'a> {
    fixed: &'a [u8; HEADER_LEN],
}

impl<'a> Ipv4View<'a> {
    /// Checks the header at the start of `bytes`, its checksum included (RFC 1122 §3.2.1.2).
    /// Whether the packet is there as a whole is the caller's to compare.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Ipv4View<'a>, Ipv4Error> {
        let fixed = bytes.first_chunk::<HEADER_LEN>().ok_or(Ipv4Error::Truncated)?;
        let view = Ipv4View { fixed };
        if fixed[0] == 0x45 {
            if !Sum::of_header(fixed).is_valid() {
                return Err(Ipv4Error::Checksum);
            }
        } else {
            view.check_options(bytes)?;
        }
        if usize::from(view.total_len()) < view.header_len() {
            return Err(Ipv4Error::Malformed);
        }
        Ok(view)
    }

    /// The header quoted in an ICMP error: the checksum is not checked, as routers and hosts have
    /// been seen to change it, nor the total length.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn quoted(bytes: &'a [u8]) -> Result<Ipv4View<'a>, Ipv4Error> {
        let fixed = bytes.first_chunk::<HEADER_LEN>().ok_or(Ipv4Error::Truncated)?;
        let view = Ipv4View { fixed };
        if fixed[0] >> 4 != 4 || view.header_len() < HEADER_LEN {
            return Err(Ipv4Error::Malformed);
        }
        Ok(view)
    }

    fn check_options(&self, bytes: &[u8]) -> Result<(), Ipv4Error> {
        if self.fixed[0] >> 4 != 4 || self.header_len() < HEADER_LEN {
            return Err(Ipv4Error::Malformed);
        }
        let header = bytes.get(..self.header_len()).ok_or(Ipv4Error::Truncated)?;
        if Sum::of(header).is_valid() { Ok(()) } else { Err(Ipv4Error::Checksum) }
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.fixed[0] & 0x0f) * 4
    }

    /// Bytes of the packet with its header.
    #[must_use]
    pub fn total_len(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// The identification, equal in all fragments of a datagram.
    #[must_use]
    pub fn ident(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// Whether this is a fragment.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        be16(self.fixed, 6) & 0x3fff != 0
    }

    /// Whether routers must not fragment.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        be16(self.fixed, 6) & 0x4000 != 0
    }

    /// Whether fragments follow this one.
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        be16(self.fixed, 6) & 0x2000 != 0
    }

    /// Where this fragment's payload lies in the datagram's.
    #[must_use]
    pub fn fragment_offset(&self) -> u32 {
        u32::from(be16(self.fixed, 6) & 0x1fff) * 8
    }

    /// Hops left.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// What follows; see [`super::protocol`].
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Differentiated services (RFC 2474) and, in the lower two bits, ECN (RFC 3168 §5).
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Where the packet comes from.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.fixed, 12))
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.fixed, 16))
    }
}

/// A header to send, without options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of the packet with its header.
    pub total_len: u16,
    /// The identification.
    pub ident: u16,
    /// Flags and fragment offset as they stand in the header.
    pub flags_and_offset: u16,
    /// Hops allowed.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Where the packet comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
}

/// The don't-fragment flag in [`Ipv4Header::flags_and_offset`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The more-fragments flag in [`Ipv4Header::flags_and_offset`].
pub const MORE_FRAGMENTS: u16 = 0x2000;

impl Ipv4Header {
    /// The header's bytes, checksum included.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x45;
        bytes[1] = self.tos;
        bytes[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.ident.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.flags_and_offset.to_be_bytes());
        bytes[8] = self.ttl;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..20].copy_from_slice(&self.destination.octets());
        let checksum = Sum::of_header(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Ipv4Header = Ipv4Header {
        tos: 0x03,
        total_len: 40,
        ident: 0x1234,
        flags_and_offset: DONT_FRAGMENT,
        ttl: 63,
        protocol: 6,
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
    };

    #[test]
    fn a_header_survives_the_wire() {
        let bytes = HEADER.to_bytes();
        let view = Ipv4View::new(&bytes).unwrap();
        assert_eq!(view.header_len(), 20);
        assert_eq!(view.total_len(), 40);
        assert_eq!(view.ident(), 0x1234);
        assert!(view.dont_fragment() && !view.more_fragments() && !view.is_fragment());
        assert_eq!((view.ttl(), view.protocol(), view.tos()), (63, 6, HEADER.tos));
        assert_eq!(view.source(), HEADER.source);
        assert_eq!(view.destination(), HEADER.destination);
    }

    #[test]
    fn bad_headers_are_named() {
        let bytes = HEADER.to_bytes();
        for length in 0..20 {
            assert_eq!(Ipv4View::new(&bytes[..length]).err(), Some(Ipv4Error::Truncated));
        }
        let rows = [
            (0, 0x65, Ipv4Error::Malformed, "version 6"),
            (0, 0x44, Ipv4Error::Malformed, "a header of 16 bytes"),
            (0, 0x46, Ipv4Error::Truncated, "options that are not there"),
            (8, 1, Ipv4Error::Checksum, "a changed TTL"),
        ];
        for (at, value, error, name) in rows {
            let mut bad = bytes;
            bad[at] = value;
            assert_eq!(Ipv4View::new(&bad).err(), Some(error), "{name}");
        }
        let short = Ipv4Header { total_len: 19, ..HEADER }.to_bytes();
        assert_eq!(Ipv4View::new(&short).err(), Some(Ipv4Error::Malformed));
    }

    #[test]
    fn options_are_part_of_the_checksum() {
        let mut bytes = [0u8; 24];
        bytes[..20].copy_from_slice(&HEADER.to_bytes());
        bytes[0] = 0x46;
        bytes[20..].copy_from_slice(&[0x94, 4, 0, 0]); // router alert
        bytes[10..12].fill(0);
        let checksum = Sum::of(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Ipv4View::new(&bytes).unwrap().header_len(), 24);
        bytes[21] = 5;
        assert_eq!(Ipv4View::new(&bytes).err(), Some(Ipv4Error::Checksum));
    }
}
