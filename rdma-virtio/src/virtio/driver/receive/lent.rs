//! Frames that are lent, both halves being in one thread: the chain stays on the queue while the
//! frame is looked at, and is mostly posted again as it is.
//!
//! The checks are those of the long way. Invariant: the slot of a lent frame stays recorded under
//! its head, so that nobody else can have it.

use std::hint::cold_path;

use super::{FRAME_LEN_MIN, ReceiveQueue, count_length, low_half};
use crate::counters::DriverCounters;
use crate::memory::arena::Arena;
use crate::memory::slot::{Piece, Slot};
use crate::virtio::low_word;
use crate::virtio::net_header::{DATA_VALID, NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{Policy, UsedElement};

/// A received frame in one buffer that stays on the queue, under its head, until it is known
/// whether it is posted again as it is or becomes the caller's. Two words, so that it stays in
/// registers on its way.
#[derive(Debug)]
#[must_use]
pub struct Lent {
    slot: Slot,
    /// From the lowest bit on: its length, 32 bits; the head of its chain, 16 bits; and at most one
    /// of [`HEADER_BEFORE`] and [`NO_HEADER`].
    word: u64,
}

/// The header was not put out but lies before the frame.
const HEADER_BEFORE: u64 = 1 << 48;
/// None was put out, for it has none; its checksum is right.
const NO_HEADER: u64 = 1 << 49;

impl Lent {
    #[inline(always)]
    fn new(slot: Slot, len: u32, head: u16) -> Lent {
        Lent { slot, word: u64::from(len) | u64::from(head) << 32 }
    }

    /// See [`super::super::NetDriver::lend_known`].
    #[inline(always)]
    pub(in crate::virtio::driver) fn of_known(
        (slot, wr_id): (Slot, u64),
        len: u32,
        header: &NetHeader,
        counters: &mut DriverCounters,
    ) -> Option<Lent> {
        let len = len.checked_sub(NET_HEADER_LEN)?;
        if !header.check(len) {
            return None;
        }
        counters.rx_bytes += u64::from(len);
        Some(Lent::new(slot, len, low_half(low_word(wr_id))))
    }

    /// The bytes from the Ethernet header on.
    #[must_use]
    #[inline(always)]
    pub fn piece(&self) -> Piece {
        Piece { slot: self.slot, start: NET_HEADER_LEN, len: low_word(self.word) }
    }

    /// The head of its chain.
    #[inline(always)]
    pub(in crate::virtio) fn head(&self) -> u16 {
        low_half(low_word(self.word >> 32))
    }

    /// The same frame, whose header is not put out but lies before it.
    #[inline(always)]
    pub(in crate::virtio) fn with_header_before(self) -> Lent {
        Lent { word: self.word | HEADER_BEFORE, ..self }
    }

    /// The same frame, which came without a header, its checksum verified.
    #[inline(always)]
    pub(in crate::virtio) fn without_header(self) -> Lent {
        Lent { word: self.word | NO_HEADER, ..self }
    }

    /// The same frame, whose header was put out now.
    #[inline(always)]
    pub(in crate::virtio) fn with_header_put_out(self) -> Lent {
        Lent { word: self.word & !(HEADER_BEFORE | NO_HEADER), ..self }
    }

    /// Its header, if that was not put out.
    #[inline]
    pub(in crate::virtio) fn header(&self, arena: &Arena) -> Option<NetHeader> {
        if self.word & NO_HEADER != 0 {
            return Some(NetHeader { flags: DATA_VALID, ..NetHeader::RECEIVED });
        }
        if self.word & HEADER_BEFORE == 0 {
            return None;
        }
        let bytes = arena.bytes(self.slot, 0, NET_HEADER_LEN).first_chunk()?;
        Some(NetHeader { num_buffers: 1, ..NetHeader::decode(bytes) })
    }
}

impl<P: Policy> ReceiveQueue<P> {
    /// As [`ReceiveQueue::take_one`], for a frame that is lent: its chain stays on the queue,
    /// where it is posted again without more, or [`ReceiveQueue::keep`] follows. `None`: it was no
    /// frame, or none of ours, and the chain is free.
    #[inline(always)]
    pub(in crate::virtio::driver) fn lend(
        &mut self,
        arena: &mut Arena,
        (used, header): (UsedElement, &NetHeader),
        counters: &mut DriverCounters,
    ) -> Option<Lent> {
        let UsedElement { id, len } = used;
        // Chains of several slots never go this way; one would not be found out below.
        let posted = if self.layout.slots == 1 { self.slots.get(id as usize) } else { None };
        let Some(posted) = posted.and_then(Option::as_ref) else {
            cold_path();
            counters.bad_used_id += 1;
            return None;
        };
        let slot = arena.filled(posted);
        let long_enough = len >= NET_HEADER_LEN + FRAME_LEN_MIN && len <= arena.receive_len();
        if !long_enough || !header.check(len - NET_HEADER_LEN) {
            cold_path();
            self.refuse(arena, used, long_enough, counters);
            return None;
        }
        let len = len - NET_HEADER_LEN;
        counters.rx_bytes += u64::from(len);
        Some(Lent::new(slot, len, low_half(id)))
    }

    /// A returned chain of one is no frame, for its header or for its length.
    #[cold]
    fn refuse(
        &mut self,
        arena: &mut Arena,
        used: UsedElement,
        long_enough: bool,
        counters: &mut DriverCounters,
    ) {
        counters.rx_returned += 1;
        if long_enough {
            counters.rx_drop_header += 1;
        } else {
            count_length(used.len, counters);
        }
        if let Some(posted) = self.claim_single(used.id) {
            let slot = arena.complete(posted);
            arena.release(slot);
        }
    }

    /// A lent frame's buffer becomes the caller's, its chain free.
    #[inline(always)]
    pub(in crate::virtio::driver) fn keep(&mut self, arena: &mut Arena, lent: &Lent) {
        if let Some(posted) = self.claim_single(u32::from(lent.head())) {
            let slot = arena.complete(posted);
            debug_assert_eq!(slot, lent.slot, "a chain has one slot until it is free");
        }
        self.direct += 1;
    }
}
