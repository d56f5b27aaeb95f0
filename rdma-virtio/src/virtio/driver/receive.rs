//! The receive queue, driver's side.
//!
//! Each descriptor names one receive slot; a chain has one (mergeable) or as many as the longest
//! packet takes. Invariants: a posted slot is recorded under its descriptor's id until its chain
//! came back; a frame that is dropped gives all its slots back.

mod lent;
mod several;

use std::hint::cold_path;

use arrayvec::ArrayVec;

pub use self::lent::Lent;
use super::{PIECES_MAX, ReceiveLayout, Received};
use crate::counters::DriverCounters;
use crate::memory::arena::Arena;
use crate::memory::slot::{Piece, PostedSlot};
use crate::virtio::layout::{DESC_NEXT, DESC_WRITE, Descriptor};
use crate::virtio::net_header::{NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{DriverRing, Notify, Policy, UsedElement};

/// Shortest frame: an Ethernet header.
const FRAME_LEN_MIN: u32 = 14;
/// Chains are posted in batches of so many.
const BATCH: u16 = 16;

/// What became of a returned chain.
enum Taken {
    /// A frame.
    Frame,
    /// Dropped and counted.
    Dropped,
}

/// The receive queue.
#[derive(Debug)]
pub(super) struct ReceiveQueue<P: Policy> {
    ring: DriverRing<P>,
    layout: ReceiveLayout,
    /// By descriptor id: what it names.
    slots: Box<[Option<PostedSlot>]>,
    /// By descriptor id: whether it is the first of a chain on the queue. Empty if each is.
    heads: Box<[bool]>,
    posted: u16,
    /// Posted chains at and below which more are posted.
    refill_at: u16,
    /// Frames that were handed over by value.
    direct: u64,
    broken: bool,
}

impl<P: Policy> ReceiveQueue<P> {
    pub(super) fn new(ring: DriverRing<P>, layout: ReceiveLayout) -> Self {
        let size = usize::from(ring.size());
        // When the NIC is about to run dry, a single one is worth it.
        let few = layout.posted_max.min(BATCH).saturating_sub(1);
        ReceiveQueue {
            ring,
            layout,
            slots: (0..size).map(|_| None).collect(),
            heads: vec![false; if layout.slots == 1 { 0 } else { size }].into_boxed_slice(),
            posted: 0,
            refill_at: layout.posted_max.saturating_sub(BATCH).max(few),
            direct: 0,
            broken: false,
        }
    }

    pub(super) fn posted(&self) -> u16 {
        self.posted
    }

    pub(super) fn ring_mut(&mut self) -> &mut DriverRing<P> {
        &mut self.ring
    }

    #[inline]
    pub(super) fn has_used(&self) -> bool {
        self.ring.has_used()
    }

    #[inline]
    pub(super) fn receive(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        counters: &mut DriverCounters,
    ) -> bool {
        loop {
            let Some(used) = self.pop(counters) else { return false };
            if self.take(arena, frame, used, counters) {
                return true;
            }
        }
    }

    /// One returned chain; says whether it is a frame.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        used: UsedElement,
        counters: &mut DriverCounters,
    ) -> bool {
        frame.pieces.clear();
        let taken = if self.layout.slots == 1 {
            let Some(posted) = self.claim_single(used.id) else {
                counters.bad_used_id += 1;
                return false;
            };
            counters.rx_returned += 1;
            self.take_single(arena, frame, (posted, used.len), counters)
        } else {
            let Some(head) = self.claim_chain(used, counters) else { return false };
            counters.rx_returned += 1;
            self.take_chain(arena, frame, (head, used.len), counters)
        };
        match taken {
            Taken::Frame => {
                counters.rx_frames += 1;
                true
            }
            Taken::Dropped => false,
        }
    }

    /// As [`ReceiveQueue::take`], for a chain of one slot that is a frame, with its header in
    /// `frame`.
    #[inline(always)]
    pub(super) fn take_one(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        used: UsedElement,
        counters: &mut DriverCounters,
    ) -> bool {
        let UsedElement { id, len } = used;
        // Chains of several slots never go this way; one would not be found out below.
        let posted = if self.layout.slots == 1 { self.claim_single(id) } else { None };
        let Some(posted) = posted else {
            cold_path();
            counters.bad_used_id += 1;
            return false;
        };
        let slot = arena.complete(posted);
        if len < NET_HEADER_LEN + FRAME_LEN_MIN || len > arena.receive_len() {
            cold_path();
            frame.pieces.clear();
            counters.rx_returned += 1;
            count_length(len, counters);
            arena.release(slot);
            return false;
        }
        let len = len - NET_HEADER_LEN;
        set_only(&mut frame.pieces, Piece { slot, start: NET_HEADER_LEN, len });
        frame.header.num_buffers = 1;
        if !frame.header.check(len) {
            cold_path();
            counters.rx_returned += 1;
            counters.rx_drop_header += 1;
            drop_pieces(arena, frame);
            return false;
        }
        self.direct += 1;
        counters.rx_bytes += u64::from(len);
        true
    }

    /// The counters with the frames that were handed over by value.
    pub(super) fn count_direct(&self, mut counters: DriverCounters) -> DriverCounters {
        counters.rx_returned += self.direct;
        counters.rx_frames += self.direct;
        counters
    }

    /// The next returned element.
    #[inline]
    fn pop(&mut self, counters: &mut DriverCounters) -> Option<UsedElement> {
        match self.ring.pop_used() {
            Ok(used) => used,
            Err(_) => {
                counters.broken_ring += u64::from(!self.broken);
                self.broken = true;
                None
            }
        }
    }

    /// The slot of a returned chain of one, if it is one of ours that was out.
    #[inline(always)]
    fn claim_single(&mut self, id: u32) -> Option<PostedSlot> {
        let posted = self.slots.get_mut(id as usize)?.take()?;
        self.posted -= 1;
        // It is below the number of slots, so its lower half is all of it.
        self.ring.give_descriptor(low_half(id));
        Some(posted)
    }

    /// The head of a returned chain of several, if it is one of ours that was out.
    #[inline]
    fn claim_chain(&mut self, used: UsedElement, counters: &mut DriverCounters) -> Option<u16> {
        match self.heads.get_mut(used.id as usize) {
            Some(is_head) if *is_head => {
                *is_head = false;
                self.posted -= 1;
                u16::try_from(used.id).ok()
            }
            _ => {
                counters.bad_used_id += 1;
                None
            }
        }
    }

    /// A frame whose first buffer is one slot; usually there is no other.
    #[inline(always)]
    fn take_single(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        (posted, len): (PostedSlot, u32),
        counters: &mut DriverCounters,
    ) -> Taken {
        let (slot, bytes) = arena.complete_with_header(posted);
        if len < NET_HEADER_LEN + FRAME_LEN_MIN || len > arena.receive_len() {
            arena.release(slot);
            count_length(len, counters);
            return Taken::Dropped;
        }
        frame.header = NetHeader::decode(&bytes);
        let frame_len = len - NET_HEADER_LEN;
        frame.pieces.push(Piece { slot, start: NET_HEADER_LEN, len: frame_len });
        if self.layout.mergeable && frame.header.num_buffers != 1 {
            return self.gather(arena, frame, frame_len, counters);
        }
        self.check_header(arena, frame, frame_len, counters)
    }

    #[inline]
    fn check_header(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        frame_len: u32,
        counters: &mut DriverCounters,
    ) -> Taken {
        if !frame.header.check(frame_len) {
            counters.rx_drop_header += 1;
            drop_pieces(arena, frame);
            return Taken::Dropped;
        }
        counters.rx_bytes += u64::from(frame_len);
        Taken::Frame
    }

    /// Whether a full batch is missing, or anything when the NIC is about to run dry.
    #[inline]
    pub(super) fn wants_refill(&self, arena: &Arena) -> bool {
        self.posted <= self.refill_at
            && arena.free_receive() >= u32::from(self.layout.slots)
            && !self.broken
    }

    /// Whether fewer chains are posted than may be, and there is a slot for one.
    #[inline]
    pub(super) fn lacks_buffers(&self, arena: &Arena) -> bool {
        self.posted < self.layout.posted_max && arena.free_receive() > 0
    }

    #[inline]
    pub(super) fn refill(&mut self, arena: &mut Arena, counters: &mut DriverCounters) -> Notify {
        if !self.wants_refill(arena) {
            return Notify::NotNeeded;
        }
        let wanted = self.layout.posted_max.saturating_sub(self.posted);
        self.post(arena, wanted, counters)
    }

    /// Chains of one slot by value; see [`super::NetDriver::take_buffers`].
    #[inline(always)]
    pub(super) fn take_buffers(
        &mut self,
        arena: &mut Arena,
        count_max: u16,
        mut each: impl FnMut(u16, u64),
        counters: &mut DriverCounters,
    ) -> u16 {
        let wanted = self.layout.posted_max.saturating_sub(self.posted);
        let wanted = wanted.min(count_max).min(self.ring.free());
        // As long as the list of descriptors, so that one check of an index holds for both.
        let slots = &mut self.slots[..usize::from(self.ring.size())];
        let taken = self.ring.take_descriptors(|free| {
            arena.allocate_receives(wanted, |posted, addr| {
                // Not more are wanted than are free.
                let Some(head) = free.take() else {
                    cold_path();
                    return;
                };
                if let Some(slot) = slots.get_mut(usize::from(head)) {
                    *slot = Some(posted);
                }
                each(head, addr);
            })
        });
        self.posted += taken;
        counters.rx_posted += u64::from(taken);
        taken
    }

    /// Puts chains on the queue that the device did not take by value.
    #[cold]
    pub(super) fn queue_buffers(&mut self, arena: &Arena, heads: &[u16]) {
        let len = arena.receive_len();
        for &head in heads {
            let slot = self.slots.get(usize::from(head));
            let Some(posted) = slot.and_then(|slot| slot.as_ref()) else { continue };
            let addr = arena.posted_addr(posted);
            self.ring.write(head, Descriptor { addr, len, flags: DESC_WRITE, next: 0 });
            self.ring.push_available(head);
        }
        let _: Notify = self.ring.publish();
    }

    #[inline(never)]
    fn post(&mut self, arena: &mut Arena, wanted: u16, counters: &mut DriverCounters) -> Notify {
        let slots = self.layout.slots;
        for _ in 0..wanted {
            if self.ring.free() < slots || arena.free_receive() < u32::from(slots) {
                break;
            }
            let Some(head) = self.post_chain(arena, slots) else { break };
            if let Some(is_head) = self.heads.get_mut(usize::from(head)) {
                *is_head = true;
            }
            self.ring.push_available(head);
            self.posted += 1;
            counters.rx_posted += u64::from(slots);
        }
        self.ring.publish()
    }

    /// Writes a chain of `slots` descriptors, of which so many and as many slots are free.
    #[inline]
    fn post_chain(&mut self, arena: &mut Arena, slots: u16) -> Option<u16> {
        let head = self.ring.take_descriptor()?;
        let mut id = head;
        for left in (0..slots).rev() {
            let posted = arena.allocate_receive()?;
            let next = if left > 0 { self.ring.take_descriptor()? } else { 0 };
            let flags = if left > 0 { DESC_WRITE | DESC_NEXT } else { DESC_WRITE };
            let addr = arena.posted_addr(&posted);
            self.ring.write(id, Descriptor { addr, len: arena.receive_len(), flags, next });
            *self.slots.get_mut(usize::from(id))? = Some(posted);
            id = next;
        }
        Some(head)
    }
}

/// The lower half of a number that is the index of a descriptor.
#[inline]
fn low_half(index: u32) -> u16 {
    let [low, high, ..] = index.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Makes `pieces` this one; most often it was another one before.
#[inline(always)]
fn set_only(pieces: &mut ArrayVec<Piece, PIECES_MAX>, piece: Piece) {
    if pieces.len() == 1 {
        pieces[0] = piece;
    } else {
        cold_path();
        pieces.clear();
        pieces.push(piece);
    }
}

#[cold]
#[inline(never)]
fn count_length(len: u32, counters: &mut DriverCounters) {
    counters.rx_drop_short += 1;
    counters.bad_used_len += u64::from(len >= NET_HEADER_LEN + FRAME_LEN_MIN);
}

#[cold]
#[inline(never)]
fn drop_pieces(arena: &mut Arena, frame: &mut Received) {
    for piece in frame.pieces.take() {
        arena.release(piece.slot);
    }
}
