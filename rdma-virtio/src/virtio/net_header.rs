//! The header that precedes each packet in a virtqueue (virtio 1.2 §5.1.6).

/// Bytes of the header; always 12 with VERSION_1.
pub const NET_HEADER_LEN: u32 = 12;

/// The checksum is partial (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CSUM: u8 = 1;
/// The checksum was checked (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const DATA_VALID: u8 = 2;

/// Not segmented (`VIRTIO_NET_HDR_GSO_NONE`).
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const GSO_TCPV6: u8 = 4;
/// UDP (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;
/// TCP with ECN, together with another (`VIRTIO_NET_HDR_GSO_ECN`).
pub const GSO_ECN: u8 = 0x80;

const _: () = assert!(cfg!(target_endian = "little"), "the header lies as its bytes do");
const _: () = assert!(size_of::<NetHeader>() == NET_HEADER_LEN as usize);

/// The header, taken apart; its fields lie in memory as the bytes do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`], [`GSO_TCPV4`], [`GSO_TCPV6`], [`GSO_UDP_L4`]; [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all protocol headers; a hint.
    pub hdr_len: u16,
    /// Payload bytes a segment.
    pub gso_size: u16,
    /// First byte to sum, from the Ethernet header.
    pub csum_start: u16,
    /// Place of the checksum, from `csum_start`.
    pub csum_offset: u16,
    /// Receive buffers that the packet spans; 1 without `MRG_RXBUF`, 0 on transmission.
    pub num_buffers: u16,
}

impl NetHeader {
    /// A received packet in one buffer of which nothing is known.
    pub const RECEIVED: NetHeader = NetHeader {
        flags: 0,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        num_buffers: 1,
    };

    /// The bytes as they lie before a packet.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; 12] {
        // SAFETY: 12 bytes without padding (asserted above), of which any value is an array's.
        unsafe { std::mem::transmute(*self) }
    }

    /// The bytes, to be filled from elsewhere; any bytes are a header.
    #[must_use]
    #[inline]
    pub fn as_bytes_mut(&mut self) -> &mut [u8; 12] {
        // SAFETY: 12 bytes without padding (asserted above), of which any value is a header's; the
        // reference borrows `self`.
        unsafe { &mut *std::ptr::from_mut(self).cast() }
    }

    /// The header of these bytes; any bytes are one, [`NetHeader::check`] says whether sensible.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8; 12]) -> NetHeader {
        // SAFETY: 12 bytes, of which any value is a header's.
        unsafe { std::mem::transmute(*bytes) }
    }

    /// Whether nothing is left to do: no partial checksum, no segmentation.
    #[must_use]
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }

    /// Whether the header is what a short packet over IPv4 of TCP or UDP mostly has: a checksum
    /// that is partial and begins behind an IPv4 header without options, and nothing else.
    #[must_use]
    #[inline(always)]
    pub fn is_partial_v4(&self) -> bool {
        const WANTED: [u8; 8] = [NEEDS_CSUM, GSO_NONE, 0, 0, 0, 0, 34, 0];
        let [a, b, c, d, e, f, g, h, ..] = self.encode();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == u64::from_ne_bytes(WANTED)
    }

    /// Whether the header fits a packet of `frame_len` bytes: the checksum lies inside, and what
    /// is segmented has a known type, a size, and a checksum that is partial or was checked.
    #[must_use]
    #[inline(always)]
    pub fn check(&self, frame_len: u32) -> bool {
        let checksum_end = u32::from(self.csum_start) + u32::from(self.csum_offset) + 2;
        if self.flags & NEEDS_CSUM != 0 && checksum_end > frame_len {
            return false;
        }
        self.gso_type == GSO_NONE || self.check_gso()
    }

    #[inline(never)]
    fn check_gso(&self) -> bool {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => self.gso_type == GSO_NONE,
            GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 => {
                self.gso_size != 0 && self.flags & (NEEDS_CSUM | DATA_VALID) != 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_as_virtio_5_1_6_has_them() {
        let header = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
            num_buffers: 0x090A,
        };
        assert_eq!(header.encode(), [1, 4, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9]);
        assert_eq!(NetHeader::decode(&header.encode()), header);
    }

    #[test]
    fn senseless_headers_are_found() {
        let good = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            ..NetHeader::default()
        };
        let rows = [
            ("good", good, true),
            ("plain", NetHeader::RECEIVED, true),
            ("checksum outside", NetHeader { csum_start: 99, ..good }, false),
            ("offset wraps", NetHeader { csum_offset: u16::MAX, ..good }, false),
            ("no size", NetHeader { gso_size: 0, ..good }, false),
            ("unknown type", NetHeader { gso_type: 3, ..good }, false),
            ("ECN alone", NetHeader { gso_type: GSO_ECN, ..good }, false),
            ("with ECN", NetHeader { gso_type: GSO_TCPV4 | GSO_ECN, ..good }, true),
            ("no checksum", NetHeader { flags: 0, ..good }, false),
        ];
        for (name, header, expected) in rows {
            assert_eq!(header.check(100), expected, "{name}");
        }
    }
}
