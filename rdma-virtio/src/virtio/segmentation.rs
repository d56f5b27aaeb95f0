//! Segmentation of TCP and UDP in software, for NICs that do not segment.
//!
//! Payload stays where it lies; each segment gets headers of its own, made from those of the whole.
//! Invariants: the plan is made from a copy of the headers, checked against the frame's length, and
//! every segment's bytes lie inside the frame.

use super::checksum::Sum;
use super::net_header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NetHeader};
use crate::memory::region::Segment;

/// Most bytes of all headers: Ethernet with a VLAN tag, IP and TCP with options.
pub const HEADERS_MAX: usize = 160;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// The frame is not what its header says: neither TCP nor UDP, truncated, or without payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotSegmentable;

/// Which IP carries the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

/// What is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn protocol(self) -> u16 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }

    /// Place of the checksum in the header.
    fn checksum_offset(self) -> u16 {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }
}

/// How a large frame is cut.
#[derive(Clone, Debug)]
pub struct Plan {
    headers: [u8; HEADERS_MAX],
    header_len: u16,
    ip_at: u16,
    transport_at: u16,
    family: Family,
    transport: Transport,
    size: u16,
    payload_len: u32,
}

/// What the checksum field of a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentChecksum {
    /// The pseudo-header's sum: the NIC does the rest.
    Partial,
    /// The checksum.
    Full,
}

/// A place in the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadRange {
    /// First byte, from the Ethernet header.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Plan {
    /// Reads the headers of a frame of `frame_len` bytes that lies in `frame`.
    ///
    /// # Errors
    /// If it is not what the header names, or has no payload.
    pub fn new(
        header: &NetHeader,
        frame: &[Segment],
        frame_len: u32,
    ) -> Result<Plan, NotSegmentable> {
        let mut headers = [0_u8; HEADERS_MAX];
        let mut have = 0;
        for segment in frame {
            have += segment.read_into(&mut headers[have..]);
        }
        let headers_seen = headers.get(..have).ok_or(NotSegmentable)?;
        let ip_at = if be16(headers_seen, 12)? == 0x8100 { 18 } else { 14 };
        let family = match be16(headers_seen, usize::from(ip_at) - 2)? {
            0x0800 => Family::V4,
            0x86DD => Family::V6,
            _ => return Err(NotSegmentable),
        };
        let transport = match (header.gso_type & !GSO_ECN, family) {
            (GSO_TCPV4, Family::V4) | (GSO_TCPV6, Family::V6) => Transport::Tcp,
            (GSO_UDP_L4, _) => Transport::Udp,
            _ => return Err(NotSegmentable),
        };
        let transport_at = header.csum_start;
        let ip_len = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        let offset = transport.checksum_offset();
        if transport_at < ip_at + ip_len || header.csum_offset != offset {
            return Err(NotSegmentable);
        }
        let words = match transport {
            Transport::Udp => 2,
            Transport::Tcp => {
                let place = usize::from(transport_at) + 12;
                let words = headers_seen.get(place).ok_or(NotSegmentable)? >> 4;
                if words >= 5 { u16::from(words) } else { return Err(NotSegmentable) }
            }
        };
        let header_len = transport_at.saturating_add(words * 4);
        let too_long = usize::from(header_len) > have;
        if too_long || u32::from(header_len) >= frame_len || header.gso_size == 0 {
            return Err(NotSegmentable);
        }
        Ok(Plan {
            headers,
            header_len,
            ip_at,
            transport_at,
            family,
            transport,
            size: header.gso_size,
            payload_len: frame_len - u32::from(header_len),
        })
    }

    /// Bytes of all headers.
    #[must_use]
    pub fn header_len(&self) -> u16 {
        self.header_len
    }

    /// First byte of the transport's header, where its checksum starts.
    #[must_use]
    pub fn checksum_start(&self) -> u16 {
        self.transport_at
    }

    /// Place of the checksum, from there.
    #[must_use]
    pub fn checksum_offset(&self) -> u16 {
        self.transport.checksum_offset()
    }

    /// Bytes of the longest segment as a frame.
    #[must_use]
    pub fn frame_len_max(&self) -> u32 {
        u32::from(self.header_len) + self.payload_len.min(u32::from(self.size))
    }

    /// Whether the transport stands right behind an IP header without options, in a frame without
    /// tags.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let ip_len = match self.family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        self.ip_at == 14 && self.transport_at == self.ip_at + ip_len
    }

    /// Number of segments.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.payload_len.div_ceil(u32::from(self.size))
    }

    /// The payload of the segment with this number.
    #[must_use]
    pub fn payload(&self, number: u32) -> PayloadRange {
        let size = u32::from(self.size);
        let first = (number * size).min(self.payload_len);
        let len = (self.payload_len - first).min(size);
        PayloadRange { start: u32::from(self.header_len) + first, len }
    }

    /// Writes the headers of the segment with this number to the start of `out`, of which
    /// [`Plan::header_len`] bytes are then meaningful; `frame` is read for a full checksum only.
    pub fn write_headers(
        &self,
        number: u32,
        frame: &[Segment],
        checksum: SegmentChecksum,
        out: &mut [u8; HEADERS_MAX],
    ) {
        let range = self.payload(number);
        let ip = usize::from(self.ip_at);
        let at = usize::from(self.transport_at);
        *out = self.headers;
        let after_ip = u32::from(self.header_len) - u32::from(self.transport_at) + range.len;
        match self.family {
            Family::V4 => self.fix_ipv4(number, range.len, out),
            Family::V6 => {
                let length = u32::from(self.header_len) - u32::from(self.ip_at) - 40 + range.len;
                put16(out, ip + 4, length);
            }
        }
        match self.transport {
            Transport::Tcp => self.fix_tcp(number, out),
            Transport::Udp => put16(out, at + 4, after_ip),
        }
        let place = at + usize::from(self.transport.checksum_offset());
        out[place..place + 2].fill(0);

        let mut sum = Sum::default();
        match self.family {
            Family::V4 => sum.add(&out[ip + 12..ip + 20]),
            Family::V6 => sum.add(&out[ip + 8..ip + 40]),
        }
        sum.add_u16(self.transport.protocol());
        sum.add_u16(u16::try_from(after_ip).unwrap_or(u16::MAX));
        let field = match checksum {
            SegmentChecksum::Partial => sum.partial(),
            SegmentChecksum::Full => {
                sum.add(&out[at..usize::from(self.header_len)]);
                sum.add_segments(cut(frame, range));
                sum.stored()
            }
        };
        out[place..place + 2].copy_from_slice(&field);
    }

    fn fix_tcp(&self, number: u32, out: &mut [u8; HEADERS_MAX]) {
        let tcp = usize::from(self.transport_at);
        let seq = be32(out, tcp + 4).wrapping_add(number * u32::from(self.size));
        out[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
        if number + 1 < self.count() {
            out[tcp + 13] &= !(TCP_FIN | TCP_PSH);
        }
        if number > 0 {
            // RFC 3168 §6.1.2: "window reduced" is said once.
            out[tcp + 13] &= !TCP_CWR;
        }
    }

    fn fix_ipv4(&self, number: u32, payload: u32, out: &mut [u8; HEADERS_MAX]) {
        let ip = usize::from(self.ip_at);
        put16(out, ip + 2, u32::from(self.header_len) - u32::from(self.ip_at) + payload);
        let id = u32::from(u16::from_be_bytes([out[ip + 4], out[ip + 5]]));
        put16(out, ip + 4, id.wrapping_add(number) & 0xFFFF);
        out[ip + 10..ip + 12].fill(0);
        let mut sum = Sum::default();
        sum.add(&out[ip..usize::from(self.transport_at)]);
        let field = sum.checksum();
        out[ip + 10..ip + 12].copy_from_slice(&field);
    }
}

/// The segments of a range of a frame.
pub fn cut(frame: &[Segment], range: PayloadRange) -> impl Iterator<Item = Segment> + '_ {
    let mut left = range.len;
    super::checksum::from_offset(frame, range.start).map_while(move |segment| {
        let part = segment.take(left);
        left -= part.length();
        (part.length() > 0).then_some(part)
    })
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, NotSegmentable> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(NotSegmentable),
    }
}

fn be32(bytes: &[u8; HEADERS_MAX], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Stores a number that the plan's checks keep below 65,536.
fn put16(out: &mut [u8; HEADERS_MAX], at: usize, value: u32) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
#[path = "segmentation_tests.rs"]
mod tests;
