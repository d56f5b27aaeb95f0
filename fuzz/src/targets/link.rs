//! What travels in a message besides the frame: virtio-net headers, and the segmentation in
//! software of frames that they describe.

use roceway_rdma_virtio::memory::region::{Region, RegionTable, Segment};
use roceway_rdma_virtio::nic::Lkey;
use roceway_rdma_virtio::virtio::checksum::Sum;
use roceway_rdma_virtio::virtio::net_header::NetHeader;
use roceway_rdma_virtio::virtio::segmentation::{HEADERS_MAX, Plan, SegmentChecksum, cut};

use crate::input::Input;

/// The target: 12 bytes of header, a byte that says how the frame is scattered, and the frame.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let encoded: [u8; 12] = input.array();
    let header = NetHeader::decode(&encoded);
    assert_eq!(header.encode(), encoded);
    let step = u32::from(input.byte()) + 1;
    let frame = input.take(usize::MAX);
    let Ok(length) = u32::try_from(frame.len()) else { return };
    if !header.check(length) || frame.is_empty() {
        return;
    }
    let mut table = RegionTable::new();
    let base = frame.as_ptr().expose_provenance() as u64;
    let region = Region { base, length: length.into(), host: base, lkey: Lkey(1) };
    // SAFETY: the frame outlives the table, and nothing writes to its segments.
    unsafe { table.insert(region) }.expect("the only region");
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < length {
        let part = step.min(length - at);
        segments.push(table.find(base + u64::from(at), part).expect("inside of the region"));
        at += part;
    }
    let Ok(plan) = Plan::new(&header, &segments, length) else { return };
    check(&plan, &segments, frame);
}

/// The segments of the payload, put together, are the payload; full checksums are right.
fn check(plan: &Plan, segments: &[Segment], frame: &[u8]) {
    let header_len = usize::from(plan.header_len());
    let mut together = Vec::new();
    for number in 0..plan.count() {
        let mut headers = [0; HEADERS_MAX];
        plan.write_headers(number, segments, SegmentChecksum::Full, &mut headers);
        let mut bytes = headers[..header_len].to_vec();
        for segment in cut(segments, plan.payload(number)) {
            let from = bytes.len();
            bytes.resize(from + usize::try_from(segment.length()).unwrap_or(0), 0);
            segment.read_into(&mut bytes[from..]);
        }
        together.extend_from_slice(&bytes[header_len..]);
        // The transport's part alone sums to the pseudo-header's complement: checked by the sum of
        // what the partial form leaves there. Zero is stored as all ones, which UDP asks for.
        plan.write_headers(number, segments, SegmentChecksum::Partial, &mut headers);
        let transport = usize::from(plan.checksum_start());
        let place = transport + usize::from(plan.checksum_offset());
        bytes[place..place + 2].copy_from_slice(&headers[place..place + 2]);
        let mut sum = Sum::default();
        sum.add(&bytes[transport..]);
        let wanted = sum.stored();
        plan.write_headers(number, segments, SegmentChecksum::Full, &mut headers);
        assert_eq!(headers[place..place + 2], wanted, "segment {number}");
    }
    assert_eq!(together, frame[header_len..]);
}

/// A large frame of each family.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kind, ethertype, tcp) in [(1, [8, 0], 34_u8), (4, [0x86, 0xdd], 54)] {
        // NEEDS_CSUM, kind, header length, size 100, checksum start and offset, one buffer.
        let mut seed = vec![1, kind, tcp + 20, 0, 100, 0, tcp, 0, 16, 0, 1, 0, 50];
        let mut frame = vec![0; usize::from(tcp) + 20];
        frame[12..14].copy_from_slice(&ethertype);
        frame[14] = if kind == 1 { 0x45 } else { 0x60 };
        frame[usize::from(tcp) + 12] = 0x50;
        frame.extend_from_slice(&[0x33; 321]);
        seed.extend_from_slice(&frame);
        seeds.push(seed);
    }
    seeds
}
