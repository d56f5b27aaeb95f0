//! Whether a received message goes to the driver, and with which header.
//!
//! Reads the header that the wire brought once and believes none of it; never looks at the queue.

use arrayvec::ArrayVec;

use super::SPAN_MAX;
use crate::counters::DeviceCounters;
use crate::memory::region::Segment;
use crate::nic::{WcChecksum, Wire};
use crate::virtio::chain::CHAIN_MAX;
use crate::virtio::checksum;
use crate::virtio::device::{FRAME_LEN_MIN, Setup};
use crate::virtio::features::Features;
use crate::virtio::net_header::{
    DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, NET_HEADER_LEN,
    NetHeader,
};

/// The bytes of a message.
pub(super) type Segments = ArrayVec<Segment, { SPAN_MAX + CHAIN_MAX }>;

/// A message that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// What lies in its first buffer.
    pub(super) first: Segment,
    /// Bytes in all, header included.
    pub(super) total: u32,
    /// Chains that hold it.
    pub(super) buffers: u16,
}

/// Checks a message and puts its header right; says whether it goes to the driver. Its bytes are
/// asked for only if its checksum must be finished.
#[inline]
pub(super) fn deliver(
    setup: &Setup,
    counters: &mut DeviceCounters,
    message: Message,
    checksum: WcChecksum,
    segments: impl FnOnce() -> Segments,
) -> bool {
    let Message { first, total, buffers } = message;
    if total < NET_HEADER_LEN + FRAME_LEN_MIN {
        counters.rx_drop_short += 1;
        return false;
    }
    match setup.wire {
        Wire::Frames => {
            let vouched = checksum == WcChecksum::Valid && setup.features.has(Features::GUEST_CSUM);
            let flags = if vouched { DATA_VALID } else { 0 };
            let header = NetHeader { flags, num_buffers: buffers, ..NetHeader::default() };
            first.write_all(header.encode());
        }
        Wire::VirtioNet => {
            let Some(bytes) = first.read::<12>() else {
                counters.rx_drop_short += 1;
                return false;
            };
            let mut header = NetHeader::decode(&bytes);
            // Most often a checksum that the driver takes as it is, or nothing.
            let simple = header.gso_type == GSO_NONE
                && setup.features.has(Features::GUEST_CSUM)
                && header.check(total - NET_HEADER_LEN);
            if !simple {
                match check_received(setup, &mut header, total) {
                    Checked::Good => {}
                    Checked::Unfinished => {
                        finish_checksum(&segments(), &mut header);
                        counters.rx_software_checksums += 1;
                    }
                    Checked::Bad => {
                        counters.rx_drop_header += 1;
                        return false;
                    }
                }
            }
            header.num_buffers = buffers;
            first.write_all(header.encode());
        }
    }
    counters.rx_passed += 1;
    true
}

/// What a received header is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Checked {
    /// The driver may see it.
    Good,
    /// The driver may see it once the partial checksum, to which it did not agree, is finished.
    Unfinished,
    /// It makes no sense, or the driver did not agree to it.
    Bad,
}

/// A header that says something: whether it makes sense and the driver may see it. What the driver
/// did not agree to is taken out of it.
#[inline(never)]
pub(super) fn check_received(setup: &Setup, header: &mut NetHeader, total: u32) -> Checked {
    if !header.check(total - NET_HEADER_LEN) {
        return Checked::Bad;
    }
    let needed = match header.gso_type & !GSO_ECN {
        GSO_NONE => Features::VERSION_1,
        GSO_TCPV4 => Features::GUEST_TSO4,
        GSO_TCPV6 => Features::GUEST_TSO6,
        GSO_UDP_L4 => Features::GUEST_USO4.with(Features::GUEST_USO6),
        _ => return Checked::Bad,
    };
    let too_large = header.gso_type != GSO_NONE && u32::from(header.gso_size) > setup.frame_max;
    if !setup.features.has(needed) || too_large {
        return Checked::Bad;
    }
    if !setup.features.has(Features::GUEST_ECN) {
        header.gso_type &= !GSO_ECN;
    }
    if setup.features.has(Features::GUEST_CSUM) {
        return Checked::Good;
    }
    let partial = header.flags & NEEDS_CSUM != 0;
    header.flags = 0;
    if partial { Checked::Unfinished } else { Checked::Good }
}

/// Finishes a partial checksum in a message.
#[cold]
pub(super) fn finish_checksum(message: &[Segment], header: &mut NetHeader) {
    let frame: Segments = checksum::from_offset(message, NET_HEADER_LEN).collect();
    checksum::finish(&frame, header.csum_start, header.csum_offset);
    header.csum_start = 0;
    header.csum_offset = 0;
}
