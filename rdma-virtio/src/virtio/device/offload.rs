//! What a virtio-net header asks for, and who does it: the NIC, or the device half in software.
//!
//! Decides only; whether the driver may ask at all is decided here too. Invariant: what is answered
//! for a header was checked against the frame's length.

use super::Setup;
use crate::memory::region::Segment;
use crate::nic::{ChecksumRequest, Offload, SegmentationKind, SegmentationRequest, Wire};
use crate::virtio::checksum;
use crate::virtio::features::Features;
use crate::virtio::net_header::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, NetHeader,
};
use crate::virtio::segmentation::Plan;

/// What a header asks of the NIC if the NIC does it as it stands: nothing, or one checksum.
#[inline]
pub(super) fn native_checksum(
    setup: &Setup,
    header: &NetHeader,
    frame: &[Segment],
    frame_len: u32,
) -> Option<Offload> {
    if header.is_plain() {
        return Some(Offload::default());
    }
    let end = u32::from(header.csum_start) + u32::from(header.csum_offset) + 2;
    if header.gso_type != GSO_NONE || end > frame_len || !setup.native.has(Features::CSUM) {
        return None;
    }
    let checksum = match setup.wire {
        Wire::VirtioNet => None,
        Wire::Frames if !is_transport(header, headers(frame)) => return None,
        Wire::Frames => {
            Some(ChecksumRequest { start: header.csum_start, offset: header.csum_offset })
        }
    };
    Some(Offload { checksum, segmentation: None })
}

/// The same of a frame in one piece for a NIC of plain frames: whether its checksum is to be
/// completed, or nothing.
#[inline(always)]
pub(super) fn bare_checksum(setup: &Setup, header: &NetHeader, frame: Segment) -> Option<bool> {
    if header.is_plain() {
        return Some(false);
    }
    let end = u32::from(header.csum_start) + u32::from(header.csum_offset) + 2;
    let may = header.gso_type == GSO_NONE && setup.native.has(Features::CSUM);
    let bytes = frame.skip(12).read::<12>().filter(|_| may && end <= frame.length())?;
    is_transport(header, bytes).then_some(true)
}

/// The part of the headers by which [`is_transport`] judges.
fn headers(frame: &[Segment]) -> [u8; 12] {
    let mut bytes = [0_u8; 24];
    let mut have = 0;
    for segment in frame {
        have += segment.read_into(&mut bytes[have..]);
    }
    *bytes.last_chunk().unwrap_or(&[0; 12])
}

/// Whether the checksum is that of TCP or UDP right behind an IP header without options, in a frame
/// without tags that is no fragment: what a NIC finds by itself. Of the frame, the bytes from its
/// type on.
#[inline(always)]
fn is_transport(header: &NetHeader, bytes: [u8; 12]) -> bool {
    // Type, version and class of service; then IPv4's place of the fragment, and the protocol.
    let [t0, t1, version, class, .., f0, f1, ttl, v4_protocol] = bytes;
    let kind = u32::from_le_bytes([t0, t1, version, class]);
    let rest = u32::from_le_bytes([f0, f1, ttl, v4_protocol]);
    let (start, protocol) = match kind & 0xffff {
        0x0008 if kind & 0xff_0000 == 0x45_0000 && rest & 0xff3f == 0 => (34, v4_protocol),
        // The next header stands where IPv4 has its flags.
        0xdd86 => (54, f0),
        _ => return false,
    };
    header.csum_start == start && matches!((protocol, header.csum_offset), (6, 16) | (17, 6))
}

/// What a NIC that segments is asked to do to a large frame; nothing if it is to be segmented here.
pub(super) fn native_segmentation(
    setup: &Setup,
    header: &NetHeader,
    frame: &[Segment],
    frame_len: u32,
) -> Option<Offload> {
    // A large frame in pages that are not aligned has 18 pieces, and a header.
    if setup.max_send_sge < 19 {
        return None;
    }
    if needed_for(header.gso_type)?.without(setup.native) != Features::NONE {
        return None;
    }
    if setup.wire == Wire::VirtioNet {
        return Some(Offload::default());
    }
    let plan = Plan::new(header, frame, frame_len).ok()?;
    // What is so short that it is read at once is not cut by the NIC.
    let fits = (setup.max_inline + 1..=setup.max_message).contains(&frame_len);
    if !fits || !plan.is_plain() {
        return None;
    }
    let kind = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => SegmentationKind::Tcp4,
        GSO_TCPV6 => SegmentationKind::Tcp6,
        GSO_UDP_L4 => SegmentationKind::Udp,
        _ => return None,
    };
    let (size, header_len) = (header.gso_size, plan.header_len());
    Some(Offload {
        checksum: Some(ChecksumRequest { start: header.csum_start, offset: header.csum_offset }),
        segmentation: Some(SegmentationRequest { kind, size, header_len }),
    })
}

/// Whether the driver may ask for what the header asks for.
pub(super) fn is_negotiated(features: Features, header: &NetHeader) -> bool {
    if header.flags & NEEDS_CSUM != 0 && !features.has(Features::CSUM) {
        return false;
    }
    match needed_for(header.gso_type) {
        Some(needed) if needed == Features::NONE => true,
        Some(needed) => {
            header.flags & NEEDS_CSUM != 0 && needed.without(features) == Features::NONE
        }
        None => false,
    }
}

/// What a driver must have agreed to before it asks for this kind of segmentation.
fn needed_for(gso_type: u8) -> Option<Features> {
    let marked = if gso_type & GSO_ECN != 0 { Features::HOST_ECN } else { Features::NONE };
    match gso_type & !GSO_ECN {
        GSO_NONE => (marked == Features::NONE).then_some(Features::NONE),
        GSO_TCPV4 => Some(Features::HOST_TSO4.with(marked)),
        GSO_TCPV6 => Some(Features::HOST_TSO6.with(marked)),
        GSO_UDP_L4 => (marked == Features::NONE).then_some(Features::HOST_USO),
        _ => None,
    }
}

/// Whether the segments that a frame is to be cut into may be on the wire. The headers that it has
/// at least are counted; who cuts it knows them all.
pub(super) fn fits_wire(setup: &Setup, header: &NetHeader, frame_len: u32) -> bool {
    let least = match header.gso_type & !GSO_ECN {
        GSO_NONE => return true,
        GSO_UDP_L4 => 8,
        _ => 20,
    };
    let segment = u32::from(header.csum_start) + least + u32::from(header.gso_size);
    segment.min(frame_len) <= setup.frame_max
}

/// Finishes the checksum where it lies, and says so in the header that lies before the frame, so
/// that neither the peer nor a second attempt does it again.
pub(super) fn finish_checksum(chain: &[Segment], frame: &[Segment], header: &NetHeader) {
    checksum::finish(frame, header.csum_start, header.csum_offset);
    let done =
        NetHeader { flags: header.flags & !NEEDS_CSUM, csum_start: 0, csum_offset: 0, ..*header };
    let bytes = done.encode();
    let mut written = 0;
    for segment in chain {
        written += segment.write(&bytes[written..]);
    }
}
