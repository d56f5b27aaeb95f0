//! Ethernet frames of the trials: built byte by byte, and judged with sums of our own.
//!
//! Pure; shares no code with the stack, whose offloads are on trial.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Ethernet header.
pub(super) const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const FIN_PSH_ACK: u8 = 0x19;
const FIN_PSH: u8 = 0x09;
/// Where the source is: an address for benchmarks (RFC 2544), and a documentation one (RFC 3849).
const SOURCE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 77, 1), Ipv6Addr::new(0x2001, 0xdb8, 77, 0, 0, 0, 0, 1));
const DESTINATION: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 18, 77, 2), Ipv6Addr::new(0x2001, 0xdb8, 77, 0, 0, 0, 0, 2));

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// Which headers a frame has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    /// IPv6, not IPv4.
    pub(super) v6: bool,
    /// TCP, not UDP.
    pub(super) tcp: bool,
}

impl Form {
    /// All of them.
    pub(super) const ALL: [Form; 4] = [
        Form { v6: false, tcp: false },
        Form { v6: false, tcp: true },
        Form { v6: true, tcp: false },
        Form { v6: true, tcp: true },
    ];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match (self.v6, self.tcp) {
            (false, false) => "IPv4 UDP",
            (false, true) => "IPv4 TCP",
            (true, false) => "IPv6 UDP",
            (true, true) => "IPv6 TCP",
        }
    }

    fn network(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Bytes of all headers.
    pub(super) fn headers(self) -> usize {
        ETHERNET + self.network() + if self.tcp { TCP_LEN } else { UDP_LEN }
    }

    fn field(self) -> usize {
        ETHERNET + self.network() + if self.tcp { 16 } else { 6 }
    }
}

/// Who sends to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
    /// Source.
    pub(super) from: Mac,
    /// Destination.
    pub(super) to: Mac,
}

/// What is done about checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sums {
    /// They are right.
    Right,
    /// The fields are 0: the device is to fill them.
    Left,
    /// That of TCP or UDP is wrong.
    Wrong,
}

/// Builds a frame. A TCP one bears the sequence number 1000 and the flags FIN, PSH and ACK.
pub(super) fn build(way: Way, form: Form, payload: &[u8], sums: Sums) -> Vec<u8> {
    let mut frame = Vec::with_capacity(form.headers() + payload.len());
    frame.extend(way.to);
    frame.extend(way.from);
    let transport = form.headers() - ETHERNET - form.network();
    let inner = u16::try_from(transport + payload.len()).unwrap_or(u16::MAX);
    let protocol = if form.tcp { TCP } else { UDP };
    if form.v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(inner.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(SOURCE.1.octets());
        frame.extend(DESTINATION.1.octets());
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(inner.saturating_add(20).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(SOURCE.0.octets());
        frame.extend(DESTINATION.0.octets());
    }
    frame.extend([0x23, 0x29, 0x23, 0x2a]);
    if form.tcp {
        frame.extend(1000_u32.to_be_bytes());
        frame.extend(1_u32.to_be_bytes());
        frame.extend([0x50, FIN_PSH_ACK, 0x20, 0, 0, 0, 0, 0]);
    } else {
        frame.extend(inner.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(payload);
    if sums != Sums::Left {
        complete(&mut frame, form, sums == Sums::Wrong);
    }
    frame
}

fn complete(frame: &mut [u8], form: Form, spoil: bool) {
    if !form.v6 {
        let sum = !fold(sum(0, &frame[ETHERNET..ETHERNET + 20]));
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let found = !fold(transport_sum(frame, form));
    let found = if found == 0 { u16::MAX } else { found };
    let found = if spoil { found ^ 0x5555 } else { found };
    let at = form.field();
    frame[at..at + 2].copy_from_slice(&found.to_be_bytes());
}

fn sum(start: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The sum over pseudo-header, transport header and payload (RFC 9293 §3.1, RFC 8200 §8.1).
fn transport_sum(frame: &[u8], form: Form) -> u64 {
    let start = ETHERNET + form.network();
    let addresses = if form.v6 { 32 } else { 8 };
    let length = u64::try_from(frame.len() - start).unwrap_or(0);
    let protocol = u64::from(if form.tcp { TCP } else { UDP });
    sum(sum(length + protocol, &frame[start - addresses..start]), &frame[start..])
}

/// A frame without what pads it to 60 bytes (IEEE 802.3 §3.2.7), by the length in its IP header.
pub(super) fn unpadded(frame: &[u8], form: Form) -> &[u8] {
    let told = |at: usize| {
        let bytes: [u8; 2] = frame.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_be_bytes(bytes)))
    };
    let length = if form.v6 { told(ETHERNET + 4).map(|l| l + 40) } else { told(ETHERNET + 2) };
    length.and_then(|length| frame.get(..ETHERNET + length)).unwrap_or(frame)
}

/// Whether the checksums of a frame of this form are right.
///
/// # Errors
/// Which is wrong.
pub(super) fn check_sums(frame: &[u8], form: Form) -> Result<(), String> {
    if frame.len() < form.headers() {
        return Err(format!("{} bytes are no frame of {}", frame.len(), form.name()));
    }
    if !form.v6 && fold(sum(0, &frame[ETHERNET..ETHERNET + 20])) != 0xffff {
        return Err("the IPv4 header's checksum is wrong".to_owned());
    }
    let at = form.field();
    if frame[at..at + 2] == [0, 0] {
        return Err(format!("the {} checksum field is 0: it was not filled", form.name()));
    }
    if fold(transport_sum(frame, form)) != 0xffff {
        let found = u16::from_be_bytes([frame[at], frame[at + 1]]);
        return Err(format!("the {} checksum {found:#06x} is wrong", form.name()));
    }
    Ok(())
}

/// Whether the segments are those of `large`, cut by `mss`.
///
/// # Errors
/// What is wrong.
pub(super) fn check_cut(
    large: &[u8],
    form: Form,
    mss: u16,
    segments: &[Vec<u8>],
) -> Result<(), String> {
    let (payload, mss) = (&large[form.headers()..], usize::from(mss));
    let expected = payload.len().div_ceil(mss);
    if segments.len() != expected {
        let longest = segments.iter().map(Vec::len).max().unwrap_or(0);
        let count = segments.len();
        return Err(format!(
            "{count} frames came instead of {expected} segments, the longest of {longest} bytes"
        ));
    }
    for (number, (segment, part)) in segments.iter().zip(payload.chunks(mss)).enumerate() {
        let wrong = |what: String| format!("segment {number}: {what}");
        let segment = unpadded(segment, form);
        let came = segment.get(form.headers()..).unwrap_or_default();
        if came != part {
            return Err(wrong(super::local::difference(part, came)));
        }
        let at = ETHERNET + form.network();
        let sequence = u32::try_from(1000 + number * mss).unwrap_or(0).to_be_bytes();
        if segment[at + 4..at + 8] != sequence {
            return Err(wrong("its sequence number is wrong".to_owned()));
        }
        let last = number + 1 == expected;
        let flags = if last { FIN_PSH_ACK } else { FIN_PSH_ACK & !FIN_PSH };
        if segment[at + 13] != flags {
            return Err(wrong(format!("flags {:#04x} instead of {flags:#04x}", segment[at + 13])));
        }
        check_sums(segment, form).map_err(wrong)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Way { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };

    #[test]
    fn frames_are_built_right_and_wrong_ones_are_seen() {
        for form in Form::ALL {
            for length in [0, 1, 100, 1001] {
                let payload = super::super::patterned(3, length);
                let right = build(WAY, form, &payload, Sums::Right);
                assert_eq!(check_sums(&right, form), Ok(()), "{form:?} {length}");
                let mut padded = right.clone();
                padded.resize(right.len().max(60), 0);
                assert_eq!(unpadded(&padded, form), right);
                for sums in [Sums::Left, Sums::Wrong] {
                    assert!(check_sums(&build(WAY, form, &payload, sums), form).is_err());
                }
                for at in ETHERNET + 12..right.len() {
                    let mut spoiled = right.clone();
                    spoiled[at] ^= 1;
                    assert!(check_sums(&spoiled, form).is_err(), "{form:?} {length} {at}");
                }
            }
        }
        assert!(check_sums(&[0; 20], Form::ALL[0]).is_err());
    }

    /// A frame that is known (a UDP datagram from RFC-like examples is not at hand): the sum of a
    /// header that textbooks work out, 0xb861 (IPv4 192.168.0.1 to 192.168.0.199, UDP).
    #[test]
    fn the_sum_is_the_internets() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(!fold(sum(0, &header)), 0xb861);
    }

    #[test]
    fn segments_are_judged_by_every_member() {
        for form in Form::ALL.into_iter().filter(|form| form.tcp) {
            let payload = super::super::patterned(1, 2500);
            let large = build(WAY, form, &payload, Sums::Left);
            let segments: Vec<Vec<u8>> = payload
                .chunks(1000)
                .enumerate()
                .map(|(n, part)| {
                    let mut frame = build(WAY, form, part, Sums::Left);
                    let at = ETHERNET + form.network();
                    let sequence = u32::try_from(1000 + n * 1000).unwrap();
                    frame[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                    frame[at + 13] = if n == 2 { 0x19 } else { 0x10 };
                    complete(&mut frame, form, false);
                    frame
                })
                .collect();
            assert_eq!(check_cut(&large, form, 1000, &segments), Ok(()));
            assert!(check_cut(&large, form, 1000, &segments[..2]).is_err());
            assert!(
                check_cut(&large, form, 1000, std::slice::from_ref(&large))
                    .unwrap_err()
                    .contains("1 frames")
            );
            for at in [ETHERNET + form.network() + 4, ETHERNET + form.network() + 13, 100] {
                let mut wrong = segments.clone();
                wrong[1][at] ^= 8;
                assert!(check_cut(&large, form, 1000, &wrong).is_err(), "{at}");
            }
        }
    }
}
