//! UDP headers (RFC 768).

use super::be16;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM_OFFSET: u16 = 6;

/// A UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpHeader {
    /// The sender's port, or 0.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Bytes of the datagram with its header.
    pub length: u16,
    /// The checksum; 0 means none, which is legal over IPv4 only (RFC 8200 §8.1).
    pub checksum: u16,
}

impl UdpHeader {
    /// The header at the start of `bytes`, or `None` if they are too few.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<UdpHeader> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        Some(UdpHeader {
            source_port: be16(header, 0),
            destination_port: be16(header, 2),
            length: be16(header, 4),
            checksum: be16(header, 6),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b] = self.source_port.to_be_bytes();
        let [c, d] = self.destination_port.to_be_bytes();
        let [e, f] = self.length.to_be_bytes();
        let [g, h] = self.checksum.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header =
            UdpHeader { source_port: 53, destination_port: 4096, length: 9, checksum: 0xfffe };
        assert_eq!(UdpHeader::parse(&header.to_bytes()), Some(header));
        assert_eq!(UdpHeader::parse(&header.to_bytes()[..7]), None);
    }
}
