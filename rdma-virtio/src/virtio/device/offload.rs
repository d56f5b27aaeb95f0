//! What a virtio-net header asks for, and who does it: the NIC, or the device half in software.
//!
//! Decides only; whether the driver may ask at all is decided here too. Invariant: what is answered
//! for a header was checked against the frame's length.

use super::Setup;
use crate::memory::region::Segment;
use crate::nic::{ChecksumRequest, Offload, SegmentationKind, SegmentationRequest, Wire};
use crate::virtio::checksum;
use crate::virtio::features::Features;
use crate::virtio::net_header::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, NetHeader};
use crate::virtio::segmentation::Plan;

/// What a header asks of the NIC if the NIC does it as it stands: nothing, or one checksum.
#[inline]
pub(super) fn native_checksum(
    setup: &Setup,
    header: &NetHeader,
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
        Wire::Frames => {
            Some(ChecksumRequest { start: header.csum_start, offset: header.csum_offset })
        }
    };
    Some(Offload { checksum, segmentation: None })
}

/// The offloads of a frame that the NIC checksums, and perhaps segments.
pub(super) fn native_offload(
    setup: &Setup,
    header: &NetHeader,
    frame: &[Segment],
    frame_len: u32,
) -> Option<Offload> {
    if header.gso_type == GSO_NONE {
        return native_checksum(setup, header, frame_len);
    }
    if setup.wire == Wire::VirtioNet {
        return Some(Offload::default());
    }
    let plan = Plan::new(header, frame, frame_len).ok()?;
    let kind = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => SegmentationKind::Tcp4,
        GSO_TCPV6 => SegmentationKind::Tcp6,
        _ => return None,
    };
    let size = header.gso_size;
    Some(Offload {
        checksum: Some(ChecksumRequest { start: header.csum_start, offset: header.csum_offset }),
        segmentation: Some(SegmentationRequest { kind, size, header_len: plan.header_len() }),
    })
}

/// Whether the driver may ask for what the header asks for.
pub(super) fn is_negotiated(features: Features, header: &NetHeader) -> bool {
    if header.flags & NEEDS_CSUM != 0 && !features.has(Features::CSUM) {
        return false;
    }
    match header.gso_type & !GSO_ECN {
        GSO_NONE => true,
        _ if header.flags & NEEDS_CSUM == 0 => false,
        GSO_TCPV4 => features.has(Features::HOST_TSO4),
        GSO_TCPV6 => features.has(Features::HOST_TSO6),
        _ => false,
    }
}

pub(super) fn segments_natively(setup: &Setup, header: &NetHeader) -> bool {
    // A large frame in pages that are not aligned has 18 pieces, and a header.
    if setup.max_send_sge < 19 {
        return false;
    }
    match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => setup.native.has(Features::HOST_TSO4),
        GSO_TCPV6 => setup.native.has(Features::HOST_TSO6),
        _ => false,
    }
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
