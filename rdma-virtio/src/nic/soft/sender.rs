//! The transmit half: work requests into the own ring, completions by the peer's progress.
//!
//! Owns the ring's tail and the queue of outstanding work requests. Never reads the peer's memory
//! but its one progress word, and that only if the ring looks full or completions are asked for.
//! Invariants: `consumed_seen <= tail <= consumed_seen + slots`; an outstanding request's bytes
//! are not the caller's until its completion was polled.

use std::hint::cold_path;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::barrier;
use super::counters::SoftCounters;
use super::layout::{
    Description, ELEMENTS_MAX, ELEMENTS_PER_SLOT, Element, INLINE_MAX, INLINE_MAX_U32, REVOKED,
    sequence_of, slots_for,
};
use super::regions::{Regions, Resolved};
use super::shared::{Ring, SharedWord, copy_short};
use crate::nic::{Completion, PostError, SendWr, Sge, WcChecksum, WcStatus};

/// A work request that was posted and whose completion was not polled.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    wr_id: u64,
    /// Position of its first slot.
    start: u64,
    /// Position behind its last slot: done when the peer has consumed so far.
    end: u64,
    status: WcStatus,
    signalled: bool,
}

const NONE: Outstanding =
    Outstanding { wr_id: 0, start: 0, end: 0, status: WcStatus::Success, signalled: false };

/// The transmit half of a soft NIC.
#[derive(Debug)]
pub(super) struct Sender {
    ring: Ring,
    tail: u64,
    consumed_seen: u64,
    peer_consumed: SharedWord,
    up: bool,
    /// A post found the ring full and none succeeded since.
    starved: bool,
    max_message: u32,
    /// Longest message of the short path, and what it is if that path may be taken: 0 while there
    /// is no link, or a post found the ring full; the general path is then taken.
    short_max: u32,
    short_max_ever: u32,
    /// The tail at which the ring is full, by the progress that was seen.
    full_at: u64,
    outstanding: Box<[Outstanding]>,
    first: u64,
    next: u64,
    /// Messages that went the short way.
    short: u64,
}

/// A message's elements, all checked.
pub(super) type Pieces = ArrayVec<Resolved, ELEMENTS_MAX>;

impl Sender {
    /// A sender without a link. `slots` is a power of two.
    pub(super) fn new(slots: u32, max_message: u32) -> Sender {
        let inline_max = u32::try_from(INLINE_MAX).unwrap_or(0);
        let capacity = usize::try_from(slots).unwrap_or(usize::MAX);
        Sender {
            ring: Ring::idle(),
            tail: 0,
            consumed_seen: 0,
            peer_consumed: SharedWord::idle(),
            up: false,
            starved: false,
            max_message,
            short_max: 0,
            short_max_ever: max_message.min(inline_max),
            full_at: 0,
            outstanding: vec![NONE; capacity].into_boxed_slice(),
            first: 0,
            next: 0,
            short: 0,
        }
    }

    /// Takes a new link into use; both start at position 0.
    pub(super) fn connect(&mut self, ring: Ring, peer_consumed: SharedWord) {
        self.ring = ring;
        self.peer_consumed = peer_consumed;
        self.tail = 0;
        self.see_progress(0);
        self.up = true;
        self.feed();
    }

    /// Ends the link. The oldest request that the peer has not taken ends with `status`, those
    /// behind it are flushed.
    pub(super) fn disconnect(&mut self, status: WcStatus) {
        if !self.up {
            return;
        }
        let consumed = self.peer_consumed.get().load(Ordering::Acquire).min(self.tail);
        let mut status = status;
        for number in self.first..self.next {
            let index = self.index(number);
            let request = &mut self.outstanding[index];
            if request.end > consumed {
                request.status = status;
                status = WcStatus::Flushed;
                let sequence = self.ring.slot(request.start).sequence();
                sequence.store(sequence_of(request.start) | REVOKED, Ordering::Relaxed);
            }
            request.end = 0;
        }
        barrier::revoked_before_reuse();
        self.up = false;
        self.feed();
        self.short_max = 0;
        self.ring = Ring::idle();
        self.peer_consumed = SharedWord::idle();
        self.tail = 0;
        self.see_progress(0);
    }

    /// There is room.
    #[inline]
    fn feed(&mut self) {
        self.starved = false;
        self.short_max = self.short_max_ever;
    }

    #[inline]
    fn see_progress(&mut self, consumed: u64) {
        self.consumed_seen = consumed;
        self.full_at = consumed + self.ring.len();
    }

    /// Posts a message; see [`crate::nic::Nic::post_send`].
    #[inline]
    pub(super) fn post(
        &mut self,
        regions: &Regions,
        wr: &SendWr<'_>,
        counters: &mut SoftCounters,
    ) -> Result<(), PostError> {
        if let [sge] = wr.sges
            && wr.inline
            && self.post_one(regions, sge, counters)
        {
            return Ok(());
        }
        if self.post_long(regions, wr, counters) {
            return Ok(());
        }
        self.post_general(regions, wr, counters)
    }

    /// The case that streams are made of, without a list between: as many elements as one slot has,
    /// bytes that stay where they lie, and room. On false nothing was posted, and the general way
    /// finds out why.
    #[inline]
    fn post_long(
        &mut self,
        regions: &Regions,
        wr: &SendWr<'_>,
        counters: &mut SoftCounters,
    ) -> bool {
        let room = self.tail < self.full_at && self.next - self.first < self.capacity();
        if !self.up || !room || wr.inline || wr.sges.len() > ELEMENTS_PER_SLOT {
            return false;
        }
        let slot = self.ring.slot(self.tail);
        let mut length = 0_u32;
        for (number, sge) in wr.sges.iter().enumerate() {
            let Ok(Resolved { export: Some(region), offset, .. }) = regions.resolve(sge) else {
                return false;
            };
            let Ok(offset) = u32::try_from(offset) else { return false };
            let element = Element { region, offset, length: sge.length };
            slot.element(number).store(element.encode(), Ordering::Relaxed);
            length = length.saturating_add(sge.length);
        }
        if !(INLINE_MAX_U32 + 1..=self.max_message).contains(&length) {
            return false;
        }
        let Ok(elements) = u16::try_from(wr.sges.len()) else { return false };
        self.publish(wr, (length, elements), counters);
        true
    }

    /// Posts one short element inline, if there is room. On false nothing was posted.
    #[inline]
    pub(super) fn post_one(
        &mut self,
        regions: &Regions,
        sge: &Sge,
        counters: &mut SoftCounters,
    ) -> bool {
        match regions.resolve(sge) {
            Ok(piece) => self.post_short((piece.addr, piece.length), counters),
            Err(_) => false,
        }
    }

    /// The case that latency is made of, alone: so many bytes, known to lie in a region that is
    /// mapped, inline, and room for them. On false nothing was posted.
    #[inline(always)]
    pub(super) fn post_short(
        &mut self,
        (addr, length): (u64, u32),
        counters: &mut SoftCounters,
    ) -> bool {
        if length.wrapping_sub(1) >= self.short_max || self.tail >= self.full_at {
            cold_path();
            return false;
        }
        let slot = self.ring.slot(self.tail);
        // SAFETY: as in `copy_in`; `short_max` is at most INLINE_MAX.
        unsafe { copy_short(source_of(addr), slot.message(), length) };
        slot.description().store(u64::from(length), Ordering::Relaxed);
        slot.sequence().store(sequence_of(self.tail), Ordering::Release);
        self.tail += 1;
        self.short += 1;
        counters.sent_bytes += u64::from(length);
        true
    }

    /// The counters with the messages that went the short way.
    pub(super) fn count_short(&self, mut counters: SoftCounters) -> SoftCounters {
        counters.sent += self.short;
        counters
    }

    #[inline(never)]
    fn post_general(
        &mut self,
        regions: &Regions,
        wr: &SendWr<'_>,
        counters: &mut SoftCounters,
    ) -> Result<(), PostError> {
        if !self.up {
            counters.refused_link_down += 1;
            return Err(PostError::LinkDown);
        }
        let (pieces, length) =
            self.gather(regions, wr).inspect_err(|_| counters.refused_invalid += 1)?;
        self.post_pieces(&pieces, length, wr, counters)
    }

    /// Posts a message whose pieces are checked.
    pub(super) fn post_pieces(
        &mut self,
        pieces: &[Resolved],
        length: u32,
        wr: &SendWr<'_>,
        counters: &mut SoftCounters,
    ) -> Result<(), PostError> {
        if usize::try_from(length).is_ok_and(|length| length <= INLINE_MAX) {
            self.make_room(1, wr.inline, counters)?;
            self.write_in_slot(pieces, length);
            self.publish(wr, (length, 0), counters);
            return Ok(());
        }
        if pieces.iter().any(|piece| piece.export.is_none()) {
            counters.refused_invalid += 1;
            return Err(PostError::BadLkey);
        }
        self.make_room(slots_for(pieces.len()), wr.inline, counters)?;
        for (number, piece) in pieces.iter().enumerate() {
            let element = Element {
                region: piece.export.unwrap_or(0),
                offset: u32::try_from(piece.offset).map_err(|_| PostError::OutOfBounds)?,
                length: piece.length,
            };
            let ahead = u64::try_from(number / ELEMENTS_PER_SLOT).unwrap_or(0);
            let slot = self.ring.slot(self.tail + ahead);
            slot.element(number % ELEMENTS_PER_SLOT).store(element.encode(), Ordering::Relaxed);
        }
        let elements = u16::try_from(pieces.len()).map_err(|_| PostError::SgeCount)?;
        self.publish(wr, (length, elements), counters);
        Ok(())
    }

    /// See [`crate::nic::Nic::signal_last`].
    #[cold]
    pub(super) fn signal_last(&mut self) -> bool {
        if self.first == self.next {
            return false;
        }
        let newest = self.index(self.next - 1);
        let request = &mut self.outstanding[newest];
        request.signalled = true;
        // The peer shows its progress at once for what lies in a region, which it reads there. What
        // lies in its slot it may show much later; but that was read when it was posted.
        let word = self.ring.slot(request.start).description().load(Ordering::Relaxed);
        if Description::decode(word).is_some_and(|what| what.elements == 0) {
            request.end = 0;
        }
        true
    }

    /// Checks a message as a whole and each of its elements.
    pub(super) fn gather(
        &self,
        regions: &Regions,
        wr: &SendWr<'_>,
    ) -> Result<(Pieces, u32), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > ELEMENTS_MAX {
            return Err(PostError::SgeCount);
        }
        let mut pieces = Pieces::new();
        let mut length = 0_u32;
        for sge in wr.sges {
            let piece = regions.resolve(sge)?;
            length = length.checked_add(piece.length).ok_or(PostError::TooLong)?;
            pieces.push(piece);
        }
        let inline_fits = usize::try_from(length).is_ok_and(|length| length <= INLINE_MAX);
        if length > self.max_message || (wr.inline && !inline_fits) {
            return Err(PostError::TooLong);
        }
        Ok((pieces, length))
    }

    /// Makes sure that `slots` slots are free, and an entry for the completion.
    pub(super) fn make_room(
        &mut self,
        slots: usize,
        inline: bool,
        counters: &mut SoftCounters,
    ) -> Result<(), PostError> {
        let wanted = self.tail + u64::try_from(slots).unwrap_or(u64::MAX / 2);
        let full = wanted - self.consumed_seen > self.ring.len() && {
            self.look_at_progress(counters);
            wanted - self.consumed_seen > self.ring.len()
        };
        let queue_full = !inline && self.next - self.first >= self.capacity();
        if full || queue_full { Err(self.refuse_for_room(counters)) } else { Ok(()) }
    }

    /// The post is to be tried again when the peer has come further.
    pub(super) fn refuse_for_room(&mut self, counters: &mut SoftCounters) -> PostError {
        self.starved = true;
        self.short_max = 0;
        counters.refused_full += 1;
        PostError::QueueFull
    }

    /// Slots of the ring.
    pub(super) fn slots(&self) -> u64 {
        self.ring.len()
    }

    fn write_in_slot(&mut self, pieces: &[Resolved], length: u32) {
        debug_assert!(usize::try_from(length).is_ok_and(|length| length <= INLINE_MAX));
        let mut to = self.ring.slot(self.tail).message();
        for piece in pieces {
            copy_in(piece, to);
            to = to.wrapping_add(usize::try_from(piece.length).unwrap_or(0));
        }
    }

    /// Shows the message at the tail to the peer.
    fn publish(
        &mut self,
        wr: &SendWr<'_>,
        (length, elements): (u32, u16),
        counters: &mut SoftCounters,
    ) {
        let what = Description { length, elements, awaited: wr.signalled && !wr.inline };
        let slot = self.ring.slot(self.tail);
        slot.description().store(what.encode(), Ordering::Relaxed);
        slot.sequence().store(sequence_of(self.tail), Ordering::Release);
        let start = self.tail;
        let slots = slots_for(usize::from(what.elements));
        self.tail += u64::try_from(slots).unwrap_or(1);
        self.feed();
        counters.sent += 1;
        counters.sent_bytes += u64::from(what.length);
        if !wr.inline {
            counters.work_requests += 1;
            let index = self.index(self.next);
            self.outstanding[index] = Outstanding {
                wr_id: wr.wr_id,
                start,
                end: self.tail,
                status: WcStatus::Success,
                signalled: wr.signalled,
            };
            self.next += 1;
        }
    }

    /// Takes completions, oldest first.
    #[inline]
    pub(super) fn poll(&mut self, out: &mut [Completion], counters: &mut SoftCounters) -> usize {
        if self.first == self.next {
            return 0;
        }
        self.look_at_progress(counters);
        let mut taken = 0;
        while self.first != self.next && taken < out.len() {
            let request = self.outstanding[self.index(self.first)];
            if request.end > self.consumed_seen {
                break;
            }
            self.first += 1;
            count_end(request.status, counters);
            if request.signalled || request.status != WcStatus::Success {
                out[taken] = Completion {
                    wr_id: request.wr_id,
                    status: request.status,
                    byte_len: 0,
                    more: false,
                    checksum: WcChecksum::Unknown,
                };
                taken += 1;
            }
        }
        taken
    }

    /// Reads how far the peer has come. Believes only what is possible.
    #[inline]
    fn look_at_progress(&mut self, counters: &mut SoftCounters) {
        if !self.up {
            return;
        }
        let consumed = self.peer_consumed.get().load(Ordering::Acquire);
        if consumed >= self.consumed_seen && consumed <= self.tail {
            self.see_progress(consumed);
        } else {
            counters.peer_progress_impossible += 1;
        }
    }

    /// How far the peer has come, freshly read, and how far it could: for stall detection.
    pub(super) fn progress(&mut self, counters: &mut SoftCounters) -> (u64, u64) {
        self.look_at_progress(counters);
        (self.consumed_seen, self.tail)
    }

    /// Whether the owner waits for the peer's progress: for completions or for room.
    pub(super) fn wants_progress(&self) -> bool {
        self.starved || self.first != self.next
    }

    /// Whether a completion, or room after a full ring, is there now.
    pub(super) fn has_news(&self) -> bool {
        let consumed = self.peer_consumed.get().load(Ordering::Acquire);
        let completed = self.first != self.next && {
            let end = self.outstanding[self.index(self.first)].end;
            end == 0 || end <= consumed
        };
        completed || (self.starved && consumed > self.consumed_seen)
    }

    /// Work requests whose completion was not polled.
    pub(super) fn outstanding(&self) -> u64 {
        self.next - self.first
    }

    /// Whether there is a link.
    #[inline]
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    fn capacity(&self) -> u64 {
        u64::try_from(self.outstanding.len()).unwrap_or(u64::MAX)
    }

    #[inline]
    fn index(&self, number: u64) -> usize {
        usize::try_from(number & (self.capacity() - 1)).unwrap_or(0)
    }
}

/// First byte of a piece.
#[inline]
fn source_of(addr: u64) -> *const u8 {
    std::ptr::with_exposed_provenance(usize::try_from(addr).unwrap_or(0))
}

/// Copies a piece into a free slot of our own ring, in which it has room.
#[inline]
fn copy_in(piece: &Resolved, to: *mut u8) {
    let from = source_of(piece.addr);
    let count = usize::try_from(piece.length).unwrap_or(0);
    // SAFETY: `from` lies in a region that `register`'s caller keeps mapped, in bounds as `resolve`
    // checked; `to` in our own ring, where the caller of this function has at most INLINE_MAX
    // bytes copied. The slot is free: the peer reads none of it before the sequence says so.
    unsafe { std::ptr::copy_nonoverlapping(from, to, count) };
}

fn count_end(status: WcStatus, counters: &mut SoftCounters) {
    match status {
        WcStatus::Success => counters.sends_completed += 1,
        WcStatus::RetryExceeded => counters.sends_retry_exceeded += 1,
        WcStatus::Flushed
        | WcStatus::LocalLength
        | WcStatus::LocalProtection
        | WcStatus::General => counters.sends_flushed += 1,
    }
}
