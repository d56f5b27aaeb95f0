//! What a NIC does to a frame between memory and wire: finds its headers, completes checksums,
//! cuts it into segments. Pure: bytes in, bytes out.
//!
//! Sources: RFC 791, RFC 8200, RFC 9293 and RFC 768 for the headers, RFC 1071 for the sum,
//! ibv_post_send(3) for `IBV_SEND_IP_CSUM` and ibv_wr_post(3) for TSO: "the hdr includes the
//! entire network headers up to and including the TCP header and is prefixed before each segment".

use std::ops::Range;

/// TCP's number in IP headers.
pub(crate) const PROTOCOL_TCP: u8 = 6;
/// UDP's number in IP headers.
pub(crate) const PROTOCOL_UDP: u8 = 17;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv4.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What was found in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Headers {
    /// The type behind the last VLAN tag.
    pub(crate) ethertype: u16,
    /// The tag, if there is one.
    pub(crate) vlan: Option<u16>,
    /// Where the IP header begins; the end of the Ethernet header in any case.
    pub(crate) ip: usize,
    /// 4, 6, or 0 if it is not IP.
    pub(crate) version: u8,
    /// TCP or UDP, and where its header begins; not for fragments.
    pub(crate) transport: Option<(u8, usize)>,
    /// Where the IP packet ends; what follows is padding.
    pub(crate) end: usize,
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Finds the headers; `None` for a frame that is no Ethernet frame at all.
pub(crate) fn parse(frame: &[u8]) -> Option<Headers> {
    let (mut ethertype, mut ip, mut vlan) = (word(frame, 12)?, 14, None);
    while ethertype == ETHERTYPE_VLAN {
        vlan = Some(word(frame, ip)?);
        ethertype = word(frame, ip + 2)?;
        ip += 4;
    }
    let mut headers =
        Headers { ethertype, vlan, ip, version: 0, transport: None, end: frame.len() };
    let found = match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(frame, &mut headers),
        ETHERTYPE_IPV6 => parse_ipv6(frame, &mut headers),
        _ => None,
    };
    if found.is_none() {
        headers.transport = None;
    }
    Some(headers)
}

fn parse_ipv4(frame: &[u8], headers: &mut Headers) -> Option<()> {
    let ip = headers.ip;
    let first = *frame.get(ip)?;
    let length = usize::from(first & 15) * 4;
    let total = usize::from(word(frame, ip + 2)?);
    if first >> 4 != 4 || length < 20 || total < length || ip + total > frame.len() {
        return None;
    }
    headers.version = 4;
    headers.end = ip + total;
    let fragment = word(frame, ip + 6)? & 0x3fff != 0;
    transport(frame, headers, frame[ip + 9], (ip + length, fragment))
}

fn parse_ipv6(frame: &[u8], headers: &mut Headers) -> Option<()> {
    let ip = headers.ip;
    let total = 40 + usize::from(word(frame, ip + 4)?);
    if *frame.get(ip)? >> 4 != 6 || ip + total > frame.len() {
        return None;
    }
    headers.version = 6;
    headers.end = ip + total;
    // Extension headers are not looked behind: the hardware that this stands for does not say so.
    transport(frame, headers, frame[ip + 6], (ip + 40, false))
}

fn transport(
    frame: &[u8],
    headers: &mut Headers,
    protocol: u8,
    (at, fragment): (usize, bool),
) -> Option<()> {
    let needed = match protocol {
        PROTOCOL_TCP => 20,
        PROTOCOL_UDP => 8,
        _ => return Some(()),
    };
    if !fragment && at + needed <= headers.end && at + needed <= frame.len() {
        headers.transport = Some((protocol, at));
    }
    Some(())
}

fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        let high = u32::from(pair[0]) << 8;
        sum += high | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum & 0xffff).unwrap_or(0)
}

/// The sum over pseudo-header and transport segment, checksum field included.
fn transport_sum(frame: &[u8], headers: &Headers, protocol: u8, at: usize) -> u32 {
    let ip = headers.ip;
    let addresses = match headers.version {
        4 => ip + 12..ip + 20,
        _ => ip + 8..ip + 40,
    };
    let length = headers.end - at;
    let sum = add(u32::from(protocol), &frame[addresses]);
    let high = u32::try_from(length >> 16).unwrap_or(0);
    let low = u32::try_from(length & 0xffff).unwrap_or(0);
    add(sum + high + low, &frame[at..headers.end])
}

const fn field_of(protocol: u8) -> usize {
    match protocol {
        PROTOCOL_TCP => 16,
        _ => 6,
    }
}

/// Completes the IPv4 header's checksum and that of TCP or UDP, whatever the fields held before
/// (ibv_post_send(3): "Offload the IPv4 and TCP/UDP checksum calculation"). Other frames stay.
pub(crate) fn complete_checksums(frame: &mut [u8]) {
    let Some(headers) = parse(frame) else { return };
    if headers.version == 4 {
        let length = usize::from(frame[headers.ip] & 15) * 4;
        put(frame, headers.ip + 10, 0);
        let sum = fold(add(0, &frame[headers.ip..headers.ip + length]));
        put(frame, headers.ip + 10, sum);
    }
    if let Some((protocol, at)) = headers.transport {
        put(frame, at + field_of(protocol), 0);
        let sum = fold(transport_sum(frame, &headers, protocol, at));
        // RFC 768: a computed zero is sent as all ones.
        let sum = if protocol == PROTOCOL_UDP && sum == 0 { 0xffff } else { sum };
        put(frame, at + field_of(protocol), sum);
    }
}

/// Whether "TCP/UDP checksum over IPv4 and IPv4 header checksum are verified" (ibv_poll_cq(3)).
/// Not for IPv6, which the sentence does not name, nor for UDP without a checksum.
pub(crate) fn checksums_verified(frame: &[u8]) -> bool {
    let Some(headers) = parse(frame) else { return false };
    let Some((protocol, at)) = headers.transport else { return false };
    if headers.version != 4 {
        return false;
    }
    let length = usize::from(frame[headers.ip] & 15) * 4;
    let absent = protocol == PROTOCOL_UDP && word(frame, at + 6) == Some(0);
    !absent
        && fold(add(0, &frame[headers.ip..headers.ip + length])) == 0
        && fold(transport_sum(frame, &headers, protocol, at)) == 0
}

/// Cuts `payload` into segments of at most `mss` bytes, each behind a copy of `header` whose
/// lengths, identification, sequence number and flags are those of its place. Checksums are not
/// touched: `IBV_SEND_IP_CSUM` asks for them, and without it they stay as the template has them.
///
/// Returns `None` if the header is not Ethernet, IP and TCP to its last byte.
pub(crate) fn segment(header: &[u8], payload: &[u8], mss: usize) -> Option<Vec<Vec<u8>>> {
    let layout = header_layout(header)?;
    let mut frames = Vec::with_capacity(payload.len() / mss.max(1) + 1);
    let mut at = 0;
    loop {
        let end = (at + mss).min(payload.len());
        let place = Place { number: frames.len(), bytes: at..end, last: end == payload.len() };
        frames.push(one_segment(header, payload, &layout, &place));
        at = end;
        if place.last {
            return Some(frames);
        }
    }
}

struct Place {
    number: usize,
    bytes: Range<usize>,
    last: bool,
}

struct Layout {
    ip: usize,
    version: u8,
    tcp: usize,
}

/// Where IP and TCP lie in a header that ends with TCP's options. Its length fields mean nothing.
fn header_layout(header: &[u8]) -> Option<Layout> {
    let (mut ethertype, mut ip) = (word(header, 12)?, 14);
    while ethertype == ETHERTYPE_VLAN {
        ethertype = word(header, ip + 2)?;
        ip += 4;
    }
    let first = *header.get(ip)?;
    let (version, length, protocol_at) = match ethertype {
        ETHERTYPE_IPV4 => (4, usize::from(first & 15) * 4, 9),
        ETHERTYPE_IPV6 => (6, 40, 6),
        _ => return None,
    };
    let tcp = ip + length;
    let options = usize::from(header.get(tcp + 12)? >> 4) * 4;
    let whole = first >> 4 == version
        && length >= 20
        && options >= 20
        && header[ip + protocol_at] == PROTOCOL_TCP
        && tcp + options == header.len();
    whole.then_some(Layout { ip, version, tcp })
}

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

fn one_segment(header: &[u8], payload: &[u8], layout: &Layout, place: &Place) -> Vec<u8> {
    let mut frame = Vec::with_capacity(header.len() + place.bytes.len());
    frame.extend_from_slice(header);
    frame.extend_from_slice(&payload[place.bytes.clone()]);
    let Layout { ip, version, tcp } = *layout;
    let length = |from: usize| u16::try_from(frame.len() - from).unwrap_or(u16::MAX);
    if version == 4 {
        let total = length(ip);
        put(&mut frame, ip + 2, total);
        // Successive datagrams get successive identifications (RFC 6864 allows any).
        let first = word(header, ip + 4).unwrap_or(0);
        let number = u16::try_from(place.number & 0xffff).unwrap_or(0);
        put(&mut frame, ip + 4, first.wrapping_add(number));
    } else {
        let rest = length(ip + 40);
        put(&mut frame, ip + 4, rest);
    }
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[tcp + 4..tcp + 8]);
    let offset = u32::try_from(place.bytes.start).unwrap_or(0);
    let sequence = u32::from_be_bytes(bytes).wrapping_add(offset);
    frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    if !place.last {
        frame[tcp + 13] &= !TCP_FIN_PSH;
    }
    if place.number > 0 {
        // RFC 3168 §6.1.2: CWR once, on the first.
        frame[tcp + 13] &= !TCP_CWR;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet, IPv4 or IPv6, TCP frame without right lengths or sums.
    pub(crate) fn header(version: u8) -> Vec<u8> {
        let mut header = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if version == 4 {
            header.extend_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0]);
            header.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            header.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
            header.extend_from_slice(&[0xfd; 32]);
        }
        header.extend_from_slice(&[0, 80, 1, 0, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x50, 0x99]);
        header.extend_from_slice(&[16, 0, 0xaa, 0xaa, 0, 0]);
        header
    }

    #[test]
    fn segments_bear_lengths_sequence_flags_and_sums() {
        for version in [4, 6] {
            let payload: Vec<u8> = (0..=255).cycle().take(2500).collect();
            let frames = segment(&header(version), &payload, 1000).unwrap();
            let mut joined = Vec::new();
            for (number, frame) in frames.iter().enumerate() {
                let mut frame = frame.clone();
                complete_checksums(&mut frame);
                let frame = &frame;
                let headers = parse(frame).unwrap();
                assert_eq!((headers.version, headers.end), (version, frame.len()));
                let (protocol, at) = headers.transport.unwrap();
                assert_eq!(fold(transport_sum(frame, &headers, protocol, at)), 0);
                assert_eq!(checksums_verified(frame), version == 4);
                let sequence = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
                let offset = u32::try_from(number).unwrap() * 1000;
                assert_eq!(sequence, 0xffff_fff0u32.wrapping_add(offset));
                assert_eq!(frame[at + 13], [0x90, 0x10, 0x19][number]);
                if version == 4 {
                    assert_eq!(word(frame, 18), Some(7 + u16::try_from(number).unwrap()));
                }
                joined.extend_from_slice(&frame[at + 20..]);
            }
            assert_eq!((frames.len(), joined == payload), (3, true));
        }
    }

    #[test]
    fn a_header_that_is_not_tcp_to_its_last_byte_is_refused() {
        let good = header(4);
        assert!(segment(&good, b"x", 10).is_some());
        for change in [(12, 0x99), (23, 17), (46, 0x60), (14, 0x65)] {
            let mut wrong = good.clone();
            wrong[change.0] = change.1;
            assert!(segment(&wrong, b"x", 10).is_none(), "{change:?}");
        }
        assert!(segment(&good[..53], b"x", 10).is_none());
    }

    #[test]
    fn a_wrong_sum_is_not_verified() {
        let mut frame = segment(&header(4), b"abc", 10).unwrap().remove(0);
        assert!(!checksums_verified(&frame));
        complete_checksums(&mut frame);
        assert!(checksums_verified(&frame));
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert!(!checksums_verified(&frame));
        complete_checksums(&mut frame);
        assert!(checksums_verified(&frame));
        // Padding is not part of the packet.
        frame.extend_from_slice(&[9; 7]);
        assert!(checksums_verified(&frame));
    }
}
