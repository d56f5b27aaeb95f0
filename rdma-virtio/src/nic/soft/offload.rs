//! Sends with offloads on a wire of bare frames: the NIC reads the frame, cuts it, completes its
//! checksums, and posts what comes of it.
//!
//! All or nothing: room for all segments is there before the first one is posted. The work request
//! completes when the last segment was pulled.

use super::SoftNic;
use super::segment::{Plan, complete_checksum};
use crate::nic::places::ETHERNET_HEADER_LEN;
use crate::nic::{Offload, PostError, SendWr};

impl SoftNic {
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
        self.bounce.frame.clear();
        for piece in &pieces {
            let count = usize::try_from(piece.length).unwrap_or(0);
            let addr = usize::try_from(piece.addr).unwrap_or(0);
            let from = std::ptr::with_exposed_provenance::<u8>(addr);
            // SAFETY: checked by `gather` to lie in a region that is mapped, and not written while
            // its send is being posted, as the caller of `register` and `post_send` promised.
            let bytes = unsafe { std::slice::from_raw_parts(from, count) };
            self.bounce.frame.extend_from_slice(bytes);
        }
        self.post_offload(wr, frame_max)
    }

    fn post_offload(&mut self, wr: &SendWr<'_>, frame_max: usize) -> Result<(), PostError> {
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
        let each = plan.map_or(self.bounce.frame.len(), |plan| plan.frame_len(0));
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
            if !self.prepare(plan.as_ref(), number, wr) {
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
    fn prepare(&mut self, plan: Option<&Plan>, number: usize, wr: &SendWr<'_>) -> bool {
        let (frame, segment) = (&self.bounce.frame, &mut self.bounce.segment);
        segment.clear();
        if let Some(plan) = plan {
            segment.resize(plan.frame_len(number), 0);
            plan.write(frame, number, segment);
            return true;
        }
        segment.extend_from_slice(frame);
        wr.offload.checksum.is_none_or(|request| complete_checksum(segment, request))
    }
}
