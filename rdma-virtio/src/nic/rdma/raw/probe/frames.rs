//! Frames that a device is tried with: TCP and UDP over both families, from a station to itself,
//! with addresses that no host has (RFC 5737, RFC 3849).
//!
//! Pure: bytes in, bytes out.

use crate::virtio::checksum::Sum;

/// Payload in front of which every frame's mark stands.
pub(super) const MARK_LEN: usize = 8;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    pub(super) v6: bool,
    pub(super) tcp: bool,
}

/// All that are tried.
pub(super) const ALL: [Kind; 4] = [
    Kind { v6: false, tcp: true },
    Kind { v6: false, tcp: false },
    Kind { v6: true, tcp: true },
    Kind { v6: true, tcp: false },
];

/// Whose frames they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station {
    pub(super) mac: [u8; 6],
    pub(super) vlan: Option<u16>,
}

/// A frame and its headers' length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) header_len: usize,
    transport_at: usize,
    checksum_at: usize,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const V6: [u8; 15] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn be(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

/// A frame with the sum of its pseudo-header in the checksum's place, as a stack hands it to a
/// device that is to compute the rest.
pub(super) fn build(station: Station, kind: Kind, payload: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    bytes.extend(station.mac);
    bytes.extend(station.mac);
    if let Some(vlan) = station.vlan {
        bytes.extend([0x81, 0]);
        bytes.extend(vlan.to_be_bytes());
    }
    let (protocol, transport_len) = if kind.tcp { (TCP, 20) } else { (UDP, 8) };
    let length = transport_len + payload.len();
    let mut pseudo = Sum::default();
    if kind.v6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend(be(length));
        bytes.extend([protocol, 64]);
        for host in [1, 2] {
            bytes.extend(V6);
            bytes.push(host);
            pseudo.add(&V6);
            pseudo.add(&[host]);
        }
    } else {
        let start = bytes.len() + 2;
        bytes.extend([8, 0, 0x45, 0]);
        bytes.extend(be(20 + length));
        bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        for address in V4 {
            bytes.extend(address);
            pseudo.add(&address);
        }
        let mut sum = Sum::default();
        sum.add(&bytes[start..]);
        bytes[start + 10..start + 12].copy_from_slice(&sum.checksum());
    }
    pseudo.add_u16(u16::from(protocol));
    pseudo.add_u16(u16::try_from(length).unwrap_or(u16::MAX));
    let transport_at = bytes.len();
    // The port of discard (RFC 863), if a frame ever went astray.
    bytes.extend([0, 9, 0, 9]);
    if kind.tcp {
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        bytes.extend(be(length));
        bytes.extend([0, 0]);
    }
    let checksum_at = transport_at + if kind.tcp { 16 } else { 6 };
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&pseudo.partial());
    let header_len = bytes.len();
    bytes.extend(payload);
    Frame { bytes, header_len, transport_at, checksum_at }
}

impl Frame {
    /// Computes the checksum.
    pub(super) fn finish(&mut self) {
        let mut sum = Sum::default();
        sum.add(&self.bytes[self.transport_at..]);
        let checksum = match sum.checksum() {
            [0, 0] => [0xff, 0xff],
            other => other,
        };
        self.bytes[self.checksum_at..self.checksum_at + 2].copy_from_slice(&checksum);
    }

    /// The frame as it must arrive, if the device computes the checksum.
    pub(super) fn finished(&self) -> Frame {
        let mut frame = self.clone();
        frame.finish();
        frame
    }

    /// The frame with its payload's last byte changed, so that its checksum is wrong.
    pub(super) fn spoilt(&self) -> Frame {
        let mut frame = self.finished();
        if let Some(last) = frame.bytes.last_mut() {
            *last ^= 0xff;
        }
        frame
    }

    /// The mark behind the headers.
    pub(super) fn mark(&self) -> &[u8] {
        &self.bytes[self.header_len..self.header_len + MARK_LEN]
    }

    /// Whether received bytes are this frame with all checksums right. The IPv4 header's and
    /// everything that a device may not touch must be as they were sent.
    pub(super) fn arrived_whole(&self, received: &[u8]) -> bool {
        let whole = self.finished();
        // Short frames are padded.
        received.len() >= whole.bytes.len() && received[..whole.bytes.len()] == whole.bytes[..]
    }
}

/// The segments that a device must make of a large frame.
pub(super) fn segments(
    station: Station,
    kind: Kind,
    (payload, mss): (&[u8], usize),
) -> Vec<Vec<u8>> {
    payload
        .chunks(mss)
        .enumerate()
        .map(|(number, part)| {
            let mut frame = build(station, kind, part);
            let at = frame.transport_at + 4;
            let sequence = u32::try_from(1 + number * mss).unwrap_or(0);
            frame.bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            frame.finish();
            frame.bytes
        })
        .collect()
}

/// Whether received bytes are this segment. The identification and with it the checksum of the
/// IPv4 header are the device's choice.
pub(super) fn is_segment(expected: &[u8], received: &[u8]) -> bool {
    let Some(received) = received.get(..expected.len()) else { return false };
    let ip = if expected[12..14] == [0x81, 0] { 18 } else { 14 };
    let v4 = expected[ip - 2..ip] == [8, 0];
    let own = |at: usize| v4 && (ip + 4..ip + 6).contains(&at);
    let header_sum = |at: usize| v4 && (ip + 10..ip + 12).contains(&at);
    let same =
        (0..expected.len()).all(|at| own(at) || header_sum(at) || expected[at] == received[at]);
    let mut sum = Sum::default();
    sum.add(&received[ip..ip + 20]);
    same && (!v4 || sum.checksum() == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: Station = Station { mac: [2, 0, 0, 0, 0, 5], vlan: None };

    /// By hand, RFC 1071: the sum over pseudo-header and UDP is what the field completes to zero.
    #[test]
    fn a_finished_frame_sums_to_zero_and_a_spoilt_one_does_not() {
        for kind in ALL {
            for vlan in [None, Some(100)] {
                let station = Station { vlan, ..STATION };
                let frame = build(station, kind, b"0123456789");
                let ip = if vlan.is_some() { 18 } else { 14 };
                let addresses = if kind.v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
                let total = |frame: &Frame| {
                    let transport = &frame.bytes[frame.transport_at..];
                    let mut sum = Sum::default();
                    sum.add(&frame.bytes[addresses.clone()]);
                    sum.add_u16(if kind.tcp { 6 } else { 17 });
                    sum.add_u16(u16::try_from(transport.len()).unwrap());
                    sum.add(transport);
                    sum.checksum()
                };
                assert_eq!(total(&frame.finished()), [0, 0], "{kind:?}");
                assert_ne!(total(&frame), [0, 0]);
                assert_ne!(total(&frame.spoilt()), [0, 0]);
                let mut padded = frame.finished().bytes;
                padded.resize(padded.len() + 7, 0);
                assert!(frame.arrived_whole(&padded) && !frame.arrived_whole(&frame.bytes));
            }
        }
    }

    #[test]
    fn segments_differ_in_sequence_length_and_checksum_and_may_in_identification() {
        let kind = Kind { v6: false, tcp: true };
        let parts = segments(STATION, kind, (&[7; 250], 100));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [154, 154, 104]);
        assert_eq!(parts[2][38..42], 201_u32.to_be_bytes());
        let mut other = parts[1].clone();
        // Another identification, and the header's checksum with it: RFC 1624 by hand.
        other[19] += 1;
        assert!(!is_segment(&parts[1], &other), "the header's checksum is wrong now");
        other[24] = parts[1][24];
        other[25] = parts[1][25].wrapping_sub(1);
        assert!(is_segment(&parts[1], &other));
        other[60] ^= 1;
        assert!(!is_segment(&parts[1], &other) && !is_segment(&parts[1], &parts[0][..100]));
    }
}
