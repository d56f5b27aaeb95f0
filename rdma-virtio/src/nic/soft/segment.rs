//! What hardware does to a frame: cutting TCP and UDP into segments and completing checksums.
//!
//! Pure: bytes in, bytes out. Every length is checked before it is used.

use crate::nic::places::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, IPV6_HEADER_LEN, TCP_HEADER_LEN, UDP_HEADER_LEN,
};
use crate::nic::{ChecksumRequest, SegmentationKind, SegmentationRequest};

const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
/// Ethernet, IPv6 with options, and the longest TCP header.
const HEADERS_LEN_MAX: usize = 256;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A large frame, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    v6: bool,
    udp: bool,
    header_len: usize,
    transport: usize,
    payload_len: usize,
    size: usize,
    /// Number of segments.
    pub(super) count: usize,
}

impl Plan {
    /// Understands a frame that is to be cut; `None` if the request does not fit it or a segment
    /// would be longer than `frame_max`.
    pub(super) fn new(
        frame: &[u8],
        request: &SegmentationRequest,
        frame_max: usize,
    ) -> Option<Plan> {
        let header_len = usize::from(request.header_len);
        let size = usize::from(request.size);
        let (udp, v6) = match request.kind {
            SegmentationKind::Tcp4 => (false, false),
            SegmentationKind::Tcp6 => (false, true),
            SegmentationKind::Udp => {
                (true, u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) != ETHERTYPE_IPV4)
            }
        };
        let ip_len = match v6 {
            false => usize::from(frame.get(ETHERNET_HEADER_LEN)? & 0x0f) * 4,
            true => IPV6_HEADER_LEN,
        };
        let transport = ETHERNET_HEADER_LEN + ip_len;
        let least = if udp { UDP_HEADER_LEN } else { TCP_HEADER_LEN };
        let payload_len = frame.len().checked_sub(header_len)?;
        let fits = ip_len >= 20
            && header_len >= transport + least
            && (!udp || header_len == transport + least)
            && header_len <= HEADERS_LEN_MAX
            && size > 0
            && payload_len > 0
            && header_len + size.min(payload_len) <= frame_max;
        fits.then(|| Plan {
            v6,
            udp,
            header_len,
            transport,
            payload_len,
            size,
            count: payload_len.div_ceil(size),
        })
    }

    /// Length of the segment with this number as a frame.
    pub(super) fn frame_len(&self, number: usize) -> usize {
        self.header_len + self.size.min(self.payload_len - number * self.size)
    }

    /// Writes the segment with this number; `segment` has its length.
    pub(super) fn write(&self, frame: &[u8], number: usize, segment: &mut [u8]) {
        let start = number * self.size;
        let (headers, payload) = segment.split_at_mut(self.header_len);
        headers.copy_from_slice(&frame[..self.header_len]);
        let from = self.header_len + start;
        payload.copy_from_slice(&frame[from..from + payload.len()]);
        let ip_total = segment.len() - ETHERNET_HEADER_LEN;
        if self.v6 {
            put(segment, 18, low_u16(ip_total - IPV6_HEADER_LEN));
        } else {
            put(segment, 16, low_u16(ip_total));
            // Each segment is a datagram of its own. RFC 6864 §4.1 needs no distinct
            // identifiers for those that are not fragmented; hardware counts all the same.
            let identification = get(segment, 18).wrapping_add(low_u16(number));
            put(segment, 18, identification);
            put(segment, 24, 0);
            let sum = !fold(sum_of(&segment[ETHERNET_HEADER_LEN..self.transport]));
            put(segment, 24, sum);
        }
        if self.udp {
            let length = low_u16(segment.len() - self.transport);
            put(segment, self.transport + 4, length);
        } else {
            self.fix_tcp(number, segment);
        }
        self.checksum(segment);
    }

    fn fix_tcp(&self, number: usize, segment: &mut [u8]) {
        let tcp = self.transport;
        let start = u32::try_from(number * self.size).unwrap_or(0);
        let sequence = u32::from(get(segment, tcp + 4)) << 16 | u32::from(get(segment, tcp + 6));
        segment[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(start).to_be_bytes());
        if number + 1 < self.count {
            segment[tcp + 13] &= !(FIN | PSH);
        }
        if number > 0 {
            // RFC 3168 §6.1.2: "window reduced" is said once.
            segment[tcp + 13] &= !CWR;
        }
    }

    fn checksum(&self, segment: &mut [u8]) {
        let (at, protocol) = if self.udp { (6, UDP_PROTOCOL) } else { (16, TCP_PROTOCOL) };
        let place = self.transport + at;
        put(segment, place, 0);
        let addresses = if self.v6 { &segment[22..54] } else { &segment[26..34] };
        let length = low_u16(segment.len() - self.transport);
        let pseudo = sum_of(addresses) + u64::from(protocol) + u64::from(length);
        let sum = !fold(pseudo + sum_of(&segment[self.transport..]));
        // As in `complete_checksum`.
        put(segment, place, if sum == 0 && self.udp { 0xffff } else { sum });
    }
}

/// Completes the checksum of a frame; whether the request fits it.
pub(super) fn complete_checksum(frame: &mut [u8], request: ChecksumRequest) -> bool {
    let start = usize::from(request.start);
    let place = start + usize::from(request.offset);
    if place + 2 > frame.len() {
        return false;
    }
    let sum = !fold(sum_of(&frame[start..]));
    // UDP sends 0 as all ones, since 0 means "none" (RFC 768); TCP does not mind.
    put(frame, place, if sum == 0 { 0xffff } else { sum });
    true
}

fn sum_of(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut sum = 0_u64;
    for word in &mut words {
        sum += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum of 32-bit words to 16 bits (RFC 1071 §2).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn low_u16(length: usize) -> u16 {
    let [low, high, ..] = length.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: SegmentationKind, payload_len: usize) -> (Vec<u8>, SegmentationRequest) {
        let ip_len = if kind == SegmentationKind::Tcp4 { 20 } else { 40 };
        let header_len = 14 + ip_len + 32;
        let mut frame: Vec<u8> = (0_u32..)
            .map(|number| (number.wrapping_mul(37) >> 3).to_le_bytes()[0])
            .take(header_len + payload_len)
            .collect();
        frame[14] = if kind == SegmentationKind::Tcp4 { 0x45 } else { 0x60 };
        let tcp = 14 + ip_len;
        frame[tcp + 12] = 0x80;
        frame[tcp + 13] = FIN | PSH | CWR | 0x10;
        frame[tcp + 4..tcp + 8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        let header_len = u16::try_from(header_len).unwrap();
        (frame, SegmentationRequest { kind, size: 1000, header_len })
    }

    #[test]
    fn segments_cover_the_payload_once_and_their_checksums_are_right() {
        for kind in [SegmentationKind::Tcp4, SegmentationKind::Tcp6] {
            for payload_len in [1, 999, 1000, 1001, 5500, 65_000] {
                let (frame, request) = frame(kind, payload_len);
                let plan = Plan::new(&frame, &request, 1514).unwrap();
                assert_eq!(plan.count, payload_len.div_ceil(1000));
                let mut payload = Vec::new();
                for number in 0..plan.count {
                    let mut segment = vec![0xee; plan.frame_len(number)];
                    plan.write(&frame, number, &mut segment);
                    check(kind, &segment, number, plan.count);
                    payload.extend_from_slice(&segment[plan.header_len..]);
                }
                assert_eq!(payload, frame[plan.header_len..]);
            }
        }
    }

    fn check(kind: SegmentationKind, segment: &[u8], number: usize, count: usize) {
        let (tcp, addresses) = match kind {
            SegmentationKind::Tcp4 => (34, &segment[26..34]),
            _ => (54, &segment[22..54]),
        };
        if kind == SegmentationKind::Tcp4 {
            assert_eq!(fold(sum_of(&segment[14..34])), 0xffff);
            assert_eq!(usize::from(get(segment, 16)), segment.len() - 14);
        } else {
            assert_eq!(usize::from(get(segment, 18)), segment.len() - 54);
        }
        let length = u64::try_from(segment.len() - tcp).unwrap();
        assert_eq!(fold(sum_of(addresses) + 6 + length + sum_of(&segment[tcp..])), 0xffff);
        let sequence = u32::from_be_bytes(segment[tcp + 4..tcp + 8].try_into().unwrap());
        let wanted = 0xffff_ff00_u32.wrapping_add(u32::try_from(number * 1000).unwrap());
        assert_eq!(sequence, wanted);
        let last = number + 1 == count;
        assert_eq!(segment[tcp + 13] & (FIN | PSH), if last { FIN | PSH } else { 0 });
        assert_eq!(segment[tcp + 13] & CWR, if number == 0 { CWR } else { 0 });
    }

    #[test]
    fn udp_is_cut_into_datagrams_whose_lengths_and_checksums_are_right() {
        for (v6, payload_len) in [(false, 1), (false, 2500), (true, 3000), (true, 3001)] {
            let ip_len = if v6 { 40 } else { 20 };
            let header_len = 14 + ip_len + 8;
            let mut frame: Vec<u8> = (0..=255).cycle().take(header_len + payload_len).collect();
            frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            let length = u16::try_from(header_len).unwrap();
            let kind = SegmentationKind::Udp;
            let request = SegmentationRequest { kind, size: 1000, header_len: length };
            let plan = Plan::new(&frame, &request, 1514).unwrap();
            let mut payload = Vec::new();
            for number in 0..plan.count {
                let mut segment = vec![0; plan.frame_len(number)];
                plan.write(&frame, number, &mut segment);
                let (udp, addresses) = (14 + ip_len, if v6 { 22..54 } else { 26..34 });
                let datagram = u64::try_from(segment.len() - udp).unwrap();
                assert_eq!(u64::from(get(&segment, udp + 4)), datagram);
                let pseudo = sum_of(&segment[addresses]) + 17 + datagram;
                assert_eq!(fold(pseudo + sum_of(&segment[udp..])), 0xffff);
                payload.extend_from_slice(&segment[header_len..]);
            }
            assert_eq!(payload, frame[header_len..]);
        }
    }

    #[test]
    fn requests_that_do_not_fit_the_frame_are_refused() {
        let (frame, request) = frame(SegmentationKind::Tcp4, 5000);
        let rows = [
            ("no size", SegmentationRequest { size: 0, ..request }),
            ("longer than the wire", SegmentationRequest { size: 1500, ..request }),
            ("headers cut off", SegmentationRequest { header_len: 40, ..request }),
            ("headers too long", SegmentationRequest { header_len: 300, ..request }),
            ("headers beyond the frame", SegmentationRequest { header_len: 9000, ..request }),
            ("not TCP", SegmentationRequest { kind: SegmentationKind::Udp, ..request }),
        ];
        for (name, request) in rows {
            assert_eq!(Plan::new(&frame, &request, 1514), None, "{name}");
        }
        let beyond = ChecksumRequest { start: 34, offset: 9000 };
        assert!(!complete_checksum(&mut frame.clone(), beyond));
        assert!(!complete_checksum(&mut [0; 20], ChecksumRequest { start: 19, offset: 0 }));
    }
}
