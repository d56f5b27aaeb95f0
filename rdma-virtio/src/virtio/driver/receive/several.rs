//! Frames in several buffers: mergeable ones, all at once by value or one after the other from the
//! queue, and chains of several slots.
//!
//! Invariant: whatever a device says of them, each buffer that came back becomes the frame's or is
//! released, and its descriptor is free.

use std::hint::cold_path;

use super::{
    FRAME_LEN_MIN, PIECES_MAX, ReceiveQueue, Received, Taken, count_length, drop_pieces, low_half,
};
use crate::counters::DriverCounters;
use crate::memory::arena::Arena;
use crate::memory::slot::{Piece, PostedSlot};
use crate::virtio::net_header::{NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{Policy, UsedElement};

impl<P: Policy> ReceiveQueue<P> {
    /// As [`ReceiveQueue::take`], for a frame in several chains of one slot, all of them at once,
    /// with its header in `frame`.
    #[inline]
    pub(in crate::virtio::driver) fn take_span(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        parts: impl Iterator<Item = UsedElement>,
        counters: &mut DriverCounters,
    ) -> bool {
        frame.pieces.clear();
        let mut start = NET_HEADER_LEN;
        let mut total = 0;
        let mut good = self.layout.mergeable && self.layout.slots == 1;
        let len_max = arena.receive_len();
        // As long as the list of descriptors, so that one check of an index holds for both.
        let slots = &mut self.slots[..usize::from(self.ring.size())];
        self.posted -= self.ring.give_descriptors(|free| {
            for UsedElement { id, len } in parts {
                let posted = slots.get_mut(id as usize).and_then(Option::take);
                let Some(posted) = posted else {
                    cold_path();
                    counters.bad_used_id += 1;
                    good = false;
                    continue;
                };
                free.give(low_half(id));
                let slot = arena.complete_early(posted);
                let piece = Piece { slot, start, len: len.wrapping_sub(start) };
                if len <= start || len > len_max || frame.pieces.try_push(piece).is_err() {
                    cold_path();
                    arena.release(slot);
                    good = false;
                    continue;
                }
                total += piece.len;
                start = 0;
            }
        });
        counters.rx_returned += 1;
        if !good || !frame.header.check(total) {
            cold_path();
            counters.rx_drop_merge += u64::from(!good);
            counters.rx_drop_header += u64::from(good);
            drop_pieces(arena, frame);
            return false;
        }
        counters.rx_frames += 1;
        counters.rx_bytes += u64::from(total);
        true
    }

    /// The further buffers of a frame (virtio 1.2 §5.1.6.4): the device returns them together.
    #[inline(never)]
    pub(super) fn gather(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        first_len: u32,
        counters: &mut DriverCounters,
    ) -> Taken {
        let buffers = usize::from(frame.header.num_buffers);
        let mut total = first_len;
        let mut good = (1..=PIECES_MAX).contains(&buffers);
        for _ in 1..buffers.min(usize::from(self.ring.size())) {
            let Some(used) = self.pop(counters) else {
                good = false;
                break;
            };
            let Some(posted) = self.claim_single(used.id) else {
                counters.bad_used_id += 1;
                good = false;
                continue;
            };
            let len = used.len;
            let slot = arena.complete(posted);
            let piece = Piece { slot, start: 0, len };
            if !good || len == 0 || len > arena.receive_len() {
                counters.bad_used_len += u64::from(len > arena.receive_len());
                arena.release(slot);
                good = false;
            } else if frame.pieces.try_push(piece).is_err() {
                arena.release(slot);
                good = false;
            } else {
                total += len;
            }
        }
        if !good {
            counters.rx_drop_merge += 1;
            drop_pieces(arena, frame);
            return Taken::Dropped;
        }
        self.check_header(arena, frame, total, counters)
    }

    /// A frame in a chain of several slots, of which the last ones may be unused.
    #[inline(never)]
    pub(super) fn take_chain(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        (head, len): (u16, u32),
        counters: &mut DriverCounters,
    ) -> Taken {
        let slots = self.layout.slots;
        let room = u32::from(slots) * arena.receive_len();
        let good = (NET_HEADER_LEN + FRAME_LEN_MIN..=room).contains(&len);
        let mut left = if good { len } else { 0 };
        let mut start = NET_HEADER_LEN;
        let mut id = head;
        for _ in 0..slots {
            let next = self.ring.link(id);
            if let Some(posted) = self.take_slot(id) {
                let (slot, bytes) = arena.complete_with_header(posted);
                let here = left.min(arena.receive_len());
                left -= here;
                let piece = Piece { slot, start, len: here.saturating_sub(start) };
                if start == NET_HEADER_LEN && good {
                    frame.header = NetHeader::decode(&bytes);
                }
                start = 0;
                if piece.len == 0 || frame.pieces.try_push(piece).is_err() {
                    arena.release(slot);
                }
            }
            id = next;
        }
        self.ring.give_chain(head, slots);
        if !good {
            count_length(len, counters);
            return Taken::Dropped;
        }
        self.check_header(arena, frame, len - NET_HEADER_LEN, counters)
    }

    /// The slot behind a descriptor, which becomes free.
    #[inline]
    fn take_slot(&mut self, id: u16) -> Option<PostedSlot> {
        self.slots.get_mut(usize::from(id))?.take()
    }
}
