//! Tests of software segmentation, against a naive segmenter that rebuilds whole packets.

use proptest::prelude::*;

use super::*;
use crate::memory::region::{Region, RegionTable};
use crate::nic::Lkey;
use crate::virtio::net_header::NEEDS_CSUM;

/// A large TCP frame and what describes it.
#[derive(Clone, Debug)]
struct Large {
    v6: bool,
    vlan: bool,
    options: usize,
    flags: u8,
    size: u16,
    payload: Vec<u8>,
}

impl Large {
    fn tcp_at(&self) -> usize {
        14 + if self.vlan { 4 } else { 0 } + if self.v6 { 40 } else { 20 }
    }

    /// The packet with this payload, sequence number, id, and flags; checksums right.
    fn packet(&self, payload: &[u8], seq: u32, id: u16, flags: u8) -> Vec<u8> {
        let mut packet = vec![0x11; 12];
        if self.vlan {
            packet.extend([0x81, 0, 0, 5]);
        }
        let tcp_len = 20 + 4 * self.options + payload.len();
        let tcp_len16 = u16::try_from(tcp_len).unwrap_or(0).to_be_bytes();
        let pseudo;
        if self.v6 {
            packet.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            packet.extend(tcp_len16);
            packet.extend([6, 64]);
            packet.extend((0..32).map(|i| i * 3));
            pseudo = packet[packet.len() - 32..].to_vec();
        } else {
            let total = u16::try_from(20 + tcp_len).unwrap_or(0).to_be_bytes();
            let mut ip = vec![0x45, 0, total[0], total[1]];
            ip.extend(id.to_be_bytes());
            ip.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = naive_sum(&[&ip]);
            ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
            pseudo = ip[12..20].to_vec();
            packet.extend([8, 0]);
            packet.extend(ip);
        }
        let offset = u8::try_from((5 + self.options) << 4).unwrap();
        let mut tcp = vec![0, 80, 0, 99];
        tcp.extend(seq.to_be_bytes());
        tcp.extend([9, 9, 9, 9, offset, flags, 1, 0, 0, 0, 0, 0]);
        tcp.extend(vec![1; 4 * self.options]);
        tcp.extend(payload);
        let sum = naive_sum(&[&pseudo, &[0, 6], &tcp_len16, &tcp]);
        tcp[16..18].copy_from_slice(&(!sum).to_be_bytes());
        packet.extend(tcp);
        packet
    }

    fn whole(&self) -> Vec<u8> {
        self.packet(&self.payload, u32::MAX - 5000, 0xFFF0, self.flags)
    }

    fn naive_segments(&self) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(usize::from(self.size));
        let parts = self.payload.chunks(usize::from(self.size)).enumerate();
        parts
            .map(|(i, part)| {
                let number = u16::try_from(i).unwrap();
                let bytes_before = u32::from(self.size) * u32::from(number);
                let seq = (u32::MAX - 5000).wrapping_add(bytes_before);
                let id = 0xFFF0_u16.wrapping_add(number);
                let mut flags = self.flags;
                if i + 1 < count {
                    flags &= !(TCP_FIN | TCP_PSH);
                }
                if i > 0 {
                    flags &= !TCP_CWR;
                }
                self.packet(part, seq, id, flags)
            })
            .collect()
    }

    fn header(&self) -> NetHeader {
        NetHeader {
            flags: NEEDS_CSUM,
            gso_type: if self.v6 { GSO_TCPV6 } else { GSO_TCPV4 },
            gso_size: self.size,
            csum_start: u16::try_from(self.tcp_at()).unwrap(),
            csum_offset: 16,
            ..NetHeader::default()
        }
    }
}

fn naive_sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Whether frames are the same, where a checksum of nothing but ones at `at` is as good as zero:
/// in one's complement both are.
fn are_alike(found: &[u8], expected: &[u8], at: usize) -> bool {
    let mut found = found.to_vec();
    if expected[at..at + 2] == [0, 0] && found[at..at + 2] == [0xff, 0xff] {
        found[at..at + 2].fill(0);
    }
    found == expected
}

/// The bytes as segments of a region, cut at the given lengths.
fn scatter(bytes: &mut [u8], cuts: &[usize]) -> Vec<Segment> {
    let host = bytes.as_mut_ptr().expose_provenance() as u64;
    let mut table = RegionTable::new();
    let region = Region { base: 0, length: bytes.len() as u64, host, lkey: Lkey(0) };
    // SAFETY: the caller keeps the bytes while it uses the segments.
    unsafe { table.insert(region) }.unwrap();
    let mut segments = Vec::new();
    let mut at = 0;
    let mut lengths = cuts.iter().copied().cycle();
    while at < bytes.len() {
        let len = lengths.next().unwrap_or(bytes.len()).min(bytes.len() - at);
        segments.push(table.find(at as u64, u32::try_from(len).unwrap()).unwrap());
        at += len;
    }
    segments
}

fn large() -> impl Strategy<Value = Large> {
    (any::<bool>(), any::<bool>(), 0..=10_usize, any::<u8>(), 1..3000_u16, 1..9000_usize).prop_map(
        |(v6, vlan, options, flags, size, len)| Large {
            v6,
            vlan,
            options,
            flags,
            size: size.max(40),
            payload: (0..len).map(|i| u8::try_from(i * 31 % 256).unwrap()).collect(),
        },
    )
}

proptest! {
    #[test]
    fn segments_are_those_of_a_naive_segmenter(
        large in large(),
        cuts in proptest::collection::vec(1..5000_usize, 1..5),
    ) {
        let mut bytes = large.whole();
        let frame = scatter(&mut bytes, &cuts);
        let length = u32::try_from(bytes.len()).unwrap();
        let plan = Plan::new(&large.header(), &frame, length).unwrap();
        let expected = large.naive_segments();
        prop_assert_eq!(plan.count() as usize, expected.len());
        for (number, expected) in expected.iter().enumerate() {
            let number = u32::try_from(number).unwrap();
            let mut headers = [0; HEADERS_MAX];
            plan.write_headers(number, &frame, SegmentChecksum::Full, &mut headers);
            let mut found = headers[..usize::from(plan.header_len())].to_vec();
            for segment in cut(&frame, plan.payload(number)) {
                let mut part = vec![0; segment.length() as usize];
                segment.read_into(&mut part);
                found.extend(part);
            }
            let at = usize::from(plan.checksum_start()) + 16;
            prop_assert!(are_alike(&found, expected, at), "segment {}", number);
            // A partial checksum, finished by the NIC, is the full one.
            plan.write_headers(number, &frame, SegmentChecksum::Partial, &mut headers);
            found[..usize::from(plan.header_len())]
                .copy_from_slice(&headers[..usize::from(plan.header_len())]);
            let pieces = scatter(&mut found, &[77]);
            prop_assert!(crate::virtio::checksum::finish(&pieces, plan.checksum_start(), 16));
            prop_assert!(are_alike(&found, expected, at), "segment {} finished", number);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 1..300),
        header in any::<[u8; 12]>(),
        cuts in proptest::collection::vec(1..100_usize, 1..4),
    ) {
        let mut bytes = bytes;
        let length = u32::try_from(bytes.len()).unwrap();
        let frame = scatter(&mut bytes, &cuts);
        if let Ok(plan) = Plan::new(&NetHeader::decode(&header), &frame, length) {
            let mut headers = [0; HEADERS_MAX];
            for number in 0..plan.count().min(300) {
                plan.write_headers(number, &frame, SegmentChecksum::Full, &mut headers);
            }
        }
    }
}

/// Found by the test above: its ninth segment's sum is all ones.
#[test]
fn a_checksum_that_is_zero_may_be_all_ones() {
    let payload = (0..936_u32).map(|i| u8::try_from(i * 31 % 256).unwrap()).collect();
    let large = Large { v6: false, vlan: false, options: 5, flags: 84, size: 104, payload };
    let mut bytes = large.whole();
    let frame = scatter(&mut bytes, &[1]);
    let plan = Plan::new(&large.header(), &frame, u32::try_from(bytes.len()).unwrap()).unwrap();
    let expected = &large.naive_segments()[8];
    let mut headers = [0; HEADERS_MAX];
    plan.write_headers(8, &frame, SegmentChecksum::Full, &mut headers);
    let (len, at) = (usize::from(plan.header_len()), usize::from(plan.checksum_start()) + 16);
    assert_eq!(expected[at..at + 2], [0, 0]);
    assert!(are_alike(&headers[..len], &expected[..len], at));
}

#[test]
fn what_is_no_tcp_is_refused() {
    let good =
        Large { v6: false, vlan: false, options: 0, flags: 0x18, size: 100, payload: vec![1; 500] };
    let header = good.header();
    let rows = [
        ("good", header, good.whole(), true),
        ("wrong family", NetHeader { gso_type: GSO_TCPV6, ..header }, good.whole(), false),
        ("UDP's checksum", NetHeader { csum_offset: 6, ..header }, good.whole(), false),
        ("inside IP", NetHeader { csum_start: 20, ..header }, good.whole(), false),
        ("no size", NetHeader { gso_size: 0, ..header }, good.whole(), false),
        ("no payload", header, good.whole()[..54].to_vec(), false),
        ("truncated", header, good.whole()[..40].to_vec(), false),
    ];
    for (name, header, mut bytes, expected) in rows {
        let length = u32::try_from(bytes.len()).unwrap();
        let frame = scatter(&mut bytes, &[]);
        assert_eq!(Plan::new(&header, &frame, length).is_ok(), expected, "{name}");
    }
}
