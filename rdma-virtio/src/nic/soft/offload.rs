//! Sends that the NIC looks into: on a wire of bare frames those with offloads, and on one of
//! messages those that the peer does not take whole. The NIC reads the frame, cuts it, completes
//! its checksums, and posts what comes of it.
//!
//! All or nothing: room for all segments is there before the first one is posted. The work request
//! completes when the last segment was pulled.

use super::SoftNic;
use super::regions::Resolved;
use super::segment::{Plan, complete_checksum};
use crate::nic::places::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, NET_HEADER_LEN, UDP_HEADER_LEN};
use crate::nic::{
    Accepted, Offload, PostError, SegmentationKind, SegmentationRequest, SendWr, Sge,
};

/// Bytes of the header in front of a message's frame.
const IN_FRONT: usize = NET_HEADER_LEN as usize;

impl SoftNic {
    /// Whether a send goes as it is, which is all that has to be known of most.
    #[inline]
    pub(super) fn is_plain(&self, wr: &SendWr<'_>) -> bool {
        if self.frames { self.is_plain_frame(wr) } else { self.is_plain_message(wr) }
    }

    /// Whether a message's header asks for no segmentation. It is not copied to find out.
    #[inline]
    fn is_plain_message(&self, wr: &SendWr<'_>) -> bool {
        let Some(sge) = wr.sges.first() else { return false };
        let kind = Sge { addr: sge.addr + Message::GSO_TYPE as u64, length: 1, ..*sge };
        if sge.length < NET_HEADER_LEN {
            return false;
        }
        let Ok(place) = self.regions.resolve(&kind) else { return false };
        let from = usize::try_from(place.addr).unwrap_or(0);
        let from = std::ptr::with_exposed_provenance::<u8>(from);
        // SAFETY: the byte lies in a region, which is mapped, and is not written while its send is
        // being posted, as the caller of `register` and `post_send` promised.
        unsafe { from.read() == Message::GSO_NONE }
    }

    #[inline]
    fn is_plain_frame(&self, wr: &SendWr<'_>) -> bool {
        let length = wr.sges.iter().fold(0_u32, |sum, sge| sum.saturating_add(sge.length));
        let frame_max = usize::from(self.capabilities.mtu) + ETHERNET_HEADER_LEN;
        let Offload { checksum, segmentation } = wr.offload;
        let asks = checksum.is_some() || segmentation.is_some();
        !asks && usize::try_from(length).is_ok_and(|length| length <= frame_max)
    }

    /// Posts a send that has to be looked into.
    #[cold]
    #[inline(never)]
    pub(super) fn post_looked(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        if self.frames { self.post_frame(wr) } else { self.post_message(wr) }
    }

    /// Posts a message; one that the peer does not take whole is cut for it.
    fn post_message(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        if !self.sender.is_up() {
            self.counters.refused_link_down += 1;
            return Err(PostError::LinkDown);
        }
        let gathered = self.sender.gather(&self.regions, wr);
        let (pieces, _) = gathered.inspect_err(|_| self.counters.refused_invalid += 1)?;
        self.read(&pieces);
        let Some(message) = Message::of(&self.bounce.frame) else {
            return self.sender.post(&self.regions, wr, &mut self.counters);
        };
        if message.is_taken(&self.peer) {
            return self.sender.post(&self.regions, wr, &mut self.counters);
        }
        self.bounce.frame.drain(..IN_FRONT);
        let frame_max = usize::from(self.capabilities.mtu) + ETHERNET_HEADER_LEN;
        let segmentation = Some(message.request);
        let asked = SendWr { offload: Offload { checksum: None, segmentation }, ..*wr };
        self.post_offload(&asked, frame_max, IN_FRONT)
    }

    /// Copies a message into the working space.
    fn read(&mut self, pieces: &[Resolved]) {
        self.bounce.frame.clear();
        for piece in pieces {
            let count = usize::try_from(piece.length).unwrap_or(0);
            let addr = usize::try_from(piece.addr).unwrap_or(0);
            let from = std::ptr::with_exposed_provenance::<u8>(addr);
            // SAFETY: checked by `gather` to lie in a region that is mapped, and not written while
            // its send is being posted, as the caller of `register` and `post_send` promised.
            let bytes = unsafe { std::slice::from_raw_parts(from, count) };
            self.bounce.frame.extend_from_slice(bytes);
        }
    }

    /// Posts a send on a wire of bare frames.
    #[inline(never)]
    pub(super) fn post_frame(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        let frame_max = usize::from(self.capabilities.mtu) + ETHERNET_HEADER_LEN;
        if !self.sender.is_up() {
            self.counters.refused_link_down += 1;
            return Err(PostError::LinkDown);
        }
        let gathered = self.sender.gather(&self.regions, wr);
        let (pieces, length) = gathered.inspect_err(|_| self.counters.refused_invalid += 1)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if wr.offload.segmentation.is_none() && length > frame_max {
            self.counters.refused_offload += 1;
            return Err(PostError::TooLong);
        }
        if wr.offload == Offload::default() {
            return self.sender.post(&self.regions, wr, &mut self.counters);
        }
        self.read(&pieces);
        self.post_offload(wr, frame_max, 0)
    }

    /// Posts the frame in the working space, with so many bytes of an empty header before each one
    /// that comes of it.
    fn post_offload(
        &mut self,
        wr: &SendWr<'_>,
        frame_max: usize,
        in_front: usize,
    ) -> Result<(), PostError> {
        let plan = match &wr.offload.segmentation {
            Some(request) => {
                let plan = Plan::new(&self.bounce.frame, request, frame_max);
                Some(plan.ok_or(PostError::TooLong).inspect_err(|_| {
                    self.counters.refused_offload += 1;
                })?)
            }
            None => None,
        };
        let count = plan.map_or(1, |plan| plan.count);
        let each = in_front + plan.map_or(self.bounce.frame.len(), |plan| plan.frame_len(0));
        let slots = u64::try_from(count).unwrap_or(u64::MAX);
        if slots > self.sender.slots() {
            self.counters.refused_offload += 1;
            return Err(PostError::TooLong);
        }
        self.sender.make_room(count, wr.inline, &mut self.counters)?;
        let (consumed, tail) = self.sender.progress(&mut self.counters);
        self.bounce.reclaim(consumed);
        if !self.bounce.has_room(count, each) {
            return Err(self.sender.refuse_for_room(&mut self.counters));
        }
        for number in 0..count {
            if !self.prepare((plan.as_ref(), number), wr, in_front) {
                self.counters.refused_offload += 1;
                return Err(PostError::TooLong);
            }
            let position = tail + u64::try_from(number).unwrap_or(0) + 1;
            let length = u32::try_from(self.bounce.segment.len()).unwrap_or(u32::MAX);
            let piece = self.bounce.put(position).ok_or(PostError::QueueFull)?;
            let last = number + 1 == count;
            let part = SendWr {
                wr_id: wr.wr_id,
                sges: wr.sges,
                signalled: last && wr.signalled,
                inline: !last || wr.inline,
                offload: Offload::default(),
            };
            self.sender.post_pieces(&[piece], length, &part, &mut self.counters)?;
        }
        self.counters.segmented += u64::from(plan.is_some());
        self.counters.segments += if plan.is_some() { slots } else { 0 };
        self.counters.checksums += slots;
        Ok(())
    }

    /// Writes the segment with this number into the working space; whether the request made sense,
    /// which only a single frame's checksum may still fail at.
    fn prepare(
        &mut self,
        (plan, number): (Option<&Plan>, usize),
        wr: &SendWr<'_>,
        in_front: usize,
    ) -> bool {
        let (frame, segment) = (&self.bounce.frame, &mut self.bounce.segment);
        segment.clear();
        if let Some(plan) = plan {
            segment.resize(in_front + plan.frame_len(number), 0);
            plan.write(frame, number, &mut segment[in_front..]);
            return true;
        }
        segment.extend_from_slice(frame);
        wr.offload.checksum.is_none_or(|request| complete_checksum(segment, request))
    }
}

/// A message whose header asks for segmentation (virtio 1.2 §5.1.6).
struct Message {
    request: SegmentationRequest,
    v6: bool,
    marked: bool,
}

impl Message {
    /// Place of the kind of segmentation in the header, and none.
    const GSO_TYPE: usize = 1;
    const GSO_NONE: u8 = 0;
    const GSO_ECN: u8 = 0x80;

    /// What it asks for; `None` if nothing, or nothing that makes sense, which the other side finds
    /// out, too.
    fn of(message: &[u8]) -> Option<Message> {
        let (header, frame) = message.split_at_checked(IN_FRONT)?;
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (size, start) = (word(4), word(6));
        let data_offset = || frame.get(usize::from(start) + 12).map(|byte| (byte >> 4) * 4);
        let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
        let (kind, length) = match header[Self::GSO_TYPE] & !Self::GSO_ECN {
            1 => (SegmentationKind::Tcp4, data_offset()?),
            4 => (SegmentationKind::Tcp6, data_offset()?),
            5 => (SegmentationKind::Udp, u8::try_from(UDP_HEADER_LEN).ok()?),
            _ => return None,
        };
        let request =
            SegmentationRequest { kind, size, header_len: start.checked_add(u16::from(length))? };
        let marked = header[Self::GSO_TYPE] & Self::GSO_ECN != 0;
        Some(Message { request, v6: ethertype != ETHERTYPE_IPV4, marked })
    }

    fn is_taken(&self, peer: &Accepted) -> bool {
        let taken = match (self.request.kind, self.v6) {
            (SegmentationKind::Tcp4, _) => peer.large4,
            (SegmentationKind::Tcp6, _) => peer.large6,
            (SegmentationKind::Udp, false) => peer.uso4,
            (SegmentationKind::Udp, true) => peer.uso6,
        };
        taken && (peer.ecn || !self.marked)
    }
}
