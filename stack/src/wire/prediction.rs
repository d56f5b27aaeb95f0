//! Header prediction: whether a frame belongs to a flow whose earlier packets were examined, by
//! comparing words, without parsing.

/// What does not change in the headers of a flow's IPv4 packets, from Ethernet to the ports, as
/// the words in which it is compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlowV4 {
    /// Bytes 0 to 7: our address and the start of the peer's.
    link_start: u64,
    /// Bytes 8 to 15: the rest of the peer's address, the type, version and length, the TOS.
    link_end: u64,
    /// Bytes 26 to 33: the peer's and our IP address.
    addresses: u64,
    /// Bytes 34 to 37: the peer's and our port.
    ports: u32,
    /// Sum of both IP addresses as words in native byte order, not folded.
    address_sum: u64,
}

/// Bytes of a frame up to the end of the ports.
pub(crate) const FLOW_LEN: usize = 38;

impl FlowV4 {
    /// The flow of a packet with these first bytes: IPv4 without options.
    #[inline]
    pub(crate) fn of(frame: &[u8; FLOW_LEN]) -> FlowV4 {
        let addresses = word64(frame, 26);
        FlowV4 {
            link_start: word64(frame, 0),
            link_end: word64(frame, 8),
            addresses,
            address_sum: (addresses & 0xffff_ffff) + (addresses >> 32),
            ports: native(frame, 34),
        }
    }

    /// 0 if a frame with these first bytes is a packet of the flow and of this protocol, and no
    /// fragment; the header checksum aside.
    #[inline(always)]
    pub(crate) fn difference<const N: usize>(&self, frame: &[u8; N], protocol: u8) -> u64 {
        let fragment_and_protocol = native(frame, 20) & 0x3fff_00ff_u32.to_be();
        (word64(frame, 0) ^ self.link_start)
            | (word64(frame, 8) ^ self.link_end)
            | (word64(frame, 26) ^ self.addresses)
            | u64::from(native(frame, 34) ^ self.ports)
            | u64::from(fragment_and_protocol ^ u32::from(protocol).to_be())
    }

    /// Whether the IPv4 header checksum of a packet of the flow is right.
    #[inline(always)]
    pub(crate) fn header_sum_is_right<const N: usize>(&self, frame: &[u8; N]) -> bool {
        // RFC 1071: the sum of all words, the checksum among them, is all ones, in any byte order.
        let sum = u64::from(native(frame, 14))
            + u64::from(native(frame, 18))
            + u64::from(native(frame, 22))
            + self.address_sum;
        sum.is_multiple_of(0xffff)
    }
}

/// Eight bytes of a frame as they lie in memory.
#[inline]
fn word64<const N: usize>(frame: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes(super::array(frame, at))
}

/// Four bytes of a frame as they lie in memory.
#[inline]
pub(crate) fn native<const N: usize>(frame: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes(super::array(frame, at))
}

/// Four bytes of a frame as a number.
#[inline]
pub(crate) fn word<const N: usize>(frame: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(super::array(frame, at))
}
