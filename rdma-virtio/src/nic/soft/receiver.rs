//! The receive half: finds messages in the peer's ring and pulls their bytes into posted receives.
//!
//! Believes nothing that it reads there: each word is loaded once, checked, then used. Owns the
//! posted receives and the progress word that the peer reads. Invariants: a message is pulled once,
//! into private memory; a message that is dropped leaves the posted receives as they were, and
//! its drop is counted; work per poll is bounded whatever the peer writes.

use std::collections::VecDeque;
use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::barrier;
use super::counters::SoftCounters;
use super::layout::{
    BOUNCE_REGION, Description, ELEMENTS_MAX, ELEMENTS_PER_SLOT, EXPORTS_MAX, Element,
    INLINE_MAX_U64, REVOKED, is_expected, sequence_of, slots_for,
};
use super::posted::{Posted, Source};
use super::shared::{Cursor, Ring, SharedMemory, SharedWord};
use crate::nic::{Completion, PolledOne, Receive, WcChecksum, WcStatus};

/// Messages dropped in one poll at most; what is left waits for the next one.
const DROPS_PER_POLL_MAX: usize = 64;

/// A region of the peer, mapped read-only.
#[derive(Debug)]
pub(super) struct Shown {
    /// Its number in elements.
    pub(super) number: u8,
    /// The mapping, which is at least `start + length` long.
    pub(super) memory: Arc<SharedMemory>,
    /// First byte of the region in the mapping.
    pub(super) start: usize,
    /// Bytes of the region.
    pub(super) length: usize,
}

/// A region of the peer, as the elements of one message are looked up in it.
#[derive(Clone, Copy)]
struct Place {
    number: u8,
    first: *const u8,
    length: usize,
}

/// Where one poll leaves its completions and counts.
struct Poll<'a> {
    out: &'a mut [Completion],
    count: usize,
    counters: &'a mut SoftCounters,
}

/// What became of the message at the head of the ring.
enum Pull {
    /// Delivered; completions were written.
    Delivered,
    /// Dropped and counted.
    Dropped,
    /// It waits for more posted receives.
    Waits,
}

/// The receive half of a soft NIC.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The next message.
    head: Cursor,
    /// The head as the peer knows it.
    published: u64,
    own_consumed: SharedWord,
    posted: Posted,
    /// Posted receives without which the message at the head cannot be taken.
    needed: u64,
    mode: Receive,
    max_message: u32,
    /// Completions of a message that did not fit into the caller's array.
    pending: VecDeque<Completion>,
    /// Whether there are any.
    has_pending: bool,
    /// Whether there are any, or progress is owed as soon as nothing follows for now: the peer may
    /// ask for the signal of what lies in its memory after it was taken.
    has_duty: bool,
    shown: ArrayVec<Shown, { EXPORTS_MAX + 1 }>,
    /// From which head on progress is shown at the end of a poll: a quarter of the ring behind
    /// what was shown, or at once if a sender waits for its completion.
    publish_at: u64,
}

impl Receiver {
    /// A receiver without a link, for up to `receives` posted receives, a power of two.
    pub(super) fn new(receives: u32, mode: Receive, max_message: u32) -> Receiver {
        Receiver {
            head: Cursor::new(Ring::idle()),
            published: 0,
            own_consumed: SharedWord::idle(),
            posted: Posted::new(receives),
            needed: 0,
            mode,
            max_message,
            pending: VecDeque::with_capacity(usize::try_from(receives).unwrap_or(0)),
            has_pending: false,
            has_duty: false,
            shown: ArrayVec::new(),
            publish_at: u64::MAX,
        }
    }

    /// Takes a new link into use; both start at position 0. Posted receives stay posted.
    pub(super) fn connect(
        &mut self,
        ring: Ring,
        own_consumed: SharedWord,
        shown: ArrayVec<Shown, { EXPORTS_MAX + 1 }>,
    ) {
        self.head = Cursor::new(ring);
        self.own_consumed = own_consumed;
        self.shown = shown;
        self.published = 0;
        self.needed = 0;
        self.publish_at = (self.head.ring().len() / 4).max(1);
    }

    /// Ends the link: messages that were not pulled are lost with the peer's memory.
    pub(super) fn disconnect(&mut self) {
        self.connect(Ring::idle(), SharedWord::idle(), ArrayVec::new());
    }

    /// The posted receives.
    #[inline]
    pub(super) fn posted_mut(&mut self) -> &mut Posted {
        &mut self.posted
    }

    /// Whether a completion, or at least a message to look at, is there.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        self.has_room_for_next() || self.has_duty
    }

    /// Whether a completion, or a message to look at, is there.
    #[inline]
    fn may_pull(&self) -> bool {
        self.has_room_for_next() || self.has_pending
    }

    #[inline]
    fn has_room_for_next(&self) -> bool {
        self.has_next() && self.posted.len() >= self.needed
    }

    /// Takes completions, oldest first; see [`crate::nic::Nic::poll_recv`]. Says besides their
    /// number whether the peer was shown progress.
    #[inline]
    pub(super) fn poll(
        &mut self,
        out: &mut [Completion],
        counters: &mut SoftCounters,
    ) -> (usize, bool) {
        let mut count = 0;
        while let Some(place) = out.get_mut(count)
            && let PolledOne::Lent { wr_id, byte_len } = self.poll_lent(counters)
        {
            self.posted.take_filled(1);
            *place = completion(wr_id, byte_len, false);
            count += 1;
        }
        if count < out.len() && self.may_pull() {
            count = self.poll_general(out, count, counters);
        }
        if self.has_duty && !self.has_next() {
            self.publish_at = 0;
        }
        (count, self.owes_progress() && self.publish())
    }

    /// The case that latency is made of, alone: a short message, and a receive with room for it,
    /// which stays the oldest. Whoever calls it takes or posts that again, and shows progress when
    /// some is owed.
    #[inline(always)]
    pub(super) fn poll_lent(&mut self, counters: &mut SoftCounters) -> PolledOne {
        let slot = self.head.slot();
        let sequence = slot.sequence().load(Ordering::Acquire);
        let expected = sequence_of(self.head.position());
        if sequence != expected {
            // An earlier lap's, nearly always.
            let nothing = sequence < expected && !self.has_duty;
            return if nothing { PolledOne::Nothing } else { PolledOne::Unknown };
        }
        let word = slot.description().load(Ordering::Relaxed);
        // Also false for a message that is awaited, or lies elsewhere.
        if self.has_pending || word.wrapping_sub(1) >= INLINE_MAX_U64 {
            cold_path();
            return PolledOne::Unknown;
        }
        let byte_len = u32::try_from(word).unwrap_or(0);
        let source = Source { from: slot.message().cast_const(), length: byte_len };
        let Some(wr_id) = self.posted.fill_short(source) else {
            cold_path();
            return PolledOne::Unknown;
        };
        self.head.advance(1);
        counters.received_bytes += word;
        PolledOne::Lent { wr_id, byte_len }
    }

    /// The case that streams of frames are made of: a message that lies elsewhere and fits one
    /// receive; its `wr_id` and its bytes. Otherwise nothing was changed, but for bytes of a
    /// receive that is nobody's yet.
    #[inline]
    pub(super) fn poll_long(&mut self, counters: &mut SoftCounters) -> Option<(u64, u32)> {
        if self.has_pending || !self.has_next() {
            return None;
        }
        let word = self.head.slot().description().load(Ordering::Relaxed);
        let what = Description::decode(word)?;
        let elements = usize::from(what.elements);
        if elements.wrapping_sub(1) >= ELEMENTS_PER_SLOT || what.length > self.max_message {
            return None;
        }
        let wr_id = self.pull_long(elements, what.length)?;
        barrier::pulled_before_sequence_again();
        let sequence = self.head.slot().sequence();
        if sequence.load(Ordering::Relaxed) != sequence_of(self.head.position()) {
            cold_path();
            return None;
        }
        self.posted.take_filled(1);
        self.head.advance(1);
        counters.received_bytes += u64::from(what.length);
        // Who waits is shown progress at once; the others when nothing follows for now.
        if what.awaited || !self.has_next() {
            self.publish_at = 0;
        } else {
            self.has_duty = true;
        }
        Some((wr_id, what.length))
    }

    /// Copies the message at the head, of so many elements and bytes, into the oldest receive if it
    /// is what it says, and has room there: its `wr_id`.
    #[inline(always)]
    fn pull_long(&self, elements: usize, length: u32) -> Option<u64> {
        let (wr_id, mut to) = self.posted.oldest_with_room(length)?;
        let mut left = length;
        for word in self.head.slot().elements().get(..elements)? {
            let element = Element::decode(word.load(Ordering::Relaxed));
            let region = self.place_of(element)?;
            let offset = usize::try_from(element.offset).ok()?;
            let end = offset.checked_add(usize::try_from(element.length).ok()?)?;
            if end > region.length || element.length == 0 || element.length > left {
                cold_path();
                return None;
            }
            let from = region.first.wrapping_add(offset);
            to = to.copy_next(Source { from, length: element.length });
            left -= element.length;
        }
        (left == 0).then_some(wr_id)
    }

    /// Whether there is a message at the head.
    #[inline]
    fn has_next(&self) -> bool {
        let sequence = self.head.slot().sequence().load(Ordering::Acquire);
        is_expected(sequence, sequence_of(self.head.position()))
    }

    /// The counters with the messages that went the short way, of which each is one receive.
    pub(super) fn count_short(&self, mut counters: SoftCounters) -> SoftCounters {
        // Every receive that was filled, less those that the long way counted.
        let short = self.posted.filled() - counters.receives_used;
        counters.taken += short;
        counters.received += short;
        counters.receives_used += short;
        counters
    }

    /// Whether the peer is to be shown how far we have come.
    #[inline]
    pub(super) fn owes_progress(&self) -> bool {
        self.head.position() >= self.publish_at
    }

    #[inline(never)]
    fn poll_general(
        &mut self,
        out: &mut [Completion],
        count: usize,
        counters: &mut SoftCounters,
    ) -> usize {
        let mut poll = Poll { out, count, counters };
        let mut drops = 0;
        while poll.count < poll.out.len() && drops < DROPS_PER_POLL_MAX && self.may_pull() {
            if let Some(completion) = self.pending.pop_front() {
                self.note_pending();
                poll.out[poll.count] = completion;
                poll.count += 1;
                continue;
            }
            // A message in several receives comes alone, so that it can be taken as a whole.
            if poll.count > 0 && self.head_spans() {
                break;
            }
            let before = poll.count;
            match self.pull(&mut poll) {
                Pull::Delivered if poll.count > before + 1 => break,
                Pull::Delivered => {}
                Pull::Dropped => drops += 1,
                Pull::Waits => break,
            }
        }
        poll.count
    }

    /// Whether the message at the head may need several receives.
    #[inline]
    fn head_spans(&self) -> bool {
        let word = self.head.slot().description().load(Ordering::Relaxed);
        let length = Description::decode(word).map_or(0, |what| what.length);
        length > self.posted.shortest()
    }

    /// Deals with the message at the head.
    fn pull(&mut self, poll: &mut Poll<'_>) -> Pull {
        let slot = self.head.slot();
        let sequence = slot.sequence().load(Ordering::Acquire);
        let word = slot.description().load(Ordering::Relaxed);
        let counters = &mut *poll.counters;
        let Some(what) = Description::decode(word) else {
            counters.drop_malformed += 1;
            return self.drop_message(1, counters);
        };
        let elements = usize::from(what.elements);
        if what.awaited || elements > 0 {
            self.publish_at = 0;
        }
        // A wrong number of elements says nothing of where the next message begins.
        let slots = if elements <= ELEMENTS_MAX { slots_for(elements) } else { 1 };
        if sequence & REVOKED != 0 {
            counters.drop_revoked += 1;
            return self.drop_message(slots, counters);
        }
        let mut sources = ArrayVec::new();
        if self.resolve(what, &mut sources).is_none() {
            counters.drop_malformed += 1;
            return self.drop_message(slots, counters);
        }
        self.deliver(&sources, what.length, slots, poll)
    }

    /// Puts the places of a message's bytes in the peer's memory, all checked, into `sources`,
    /// which has room for all and is filled where it lies: it is large.
    fn resolve(
        &self,
        what: Description,
        sources: &mut ArrayVec<Source, ELEMENTS_MAX>,
    ) -> Option<()> {
        let count = usize::from(what.elements);
        if count > ELEMENTS_MAX || what.length > self.max_message {
            return None;
        }
        if count == 0 {
            let fits = (1..=INLINE_MAX_U64).contains(&u64::from(what.length));
            let from = self.head.slot().message().cast_const();
            sources.push(Source { from, length: what.length });
            return fits.then_some(());
        }
        let mut sum = 0_u32;
        let first = self.head.slot().element(0).load(Ordering::Relaxed);
        let mut region = self.place_of(Element::decode(first))?;
        let mut position = self.head.position();
        let mut left = count;
        while left > 0 {
            let here = left.min(ELEMENTS_PER_SLOT);
            for word in &self.head.ring().slot(position).elements()[..here] {
                let element = Element::decode(word.load(Ordering::Relaxed));
                if element.region != region.number {
                    region = self.place_of(element)?;
                }
                let offset = usize::try_from(element.offset).ok()?;
                let length = usize::try_from(element.length).ok()?;
                if length == 0 || offset.checked_add(length)? > region.length {
                    return None;
                }
                sum = sum.checked_add(element.length)?;
                let from = region.first.wrapping_add(offset);
                sources.push(Source { from, length: element.length });
            }
            position += 1;
            left -= here;
        }
        (sum == what.length).then_some(())
    }

    /// The region of the peer that an element names.
    fn place_of(&self, element: Element) -> Option<Place> {
        let number = element.region;
        let region = match self.shown.get(usize::from(number)) {
            Some(region) if region.number == number => region,
            _ if number == BOUNCE_REGION => {
                self.shown.iter().find(|region| region.number == BOUNCE_REGION)?
            }
            _ => return None,
        };
        let first = region.memory.0.as_ptr().wrapping_add(region.start);
        Some(Place { number, first, length: region.length })
    }

    /// Copies a message into posted receives and completes them.
    fn deliver(
        &mut self,
        sources: &[Source],
        length: u32,
        slots: usize,
        poll: &mut Poll<'_>,
    ) -> Pull {
        let too_long = self.posted.len() > 0 && self.posted.total(0) < length;
        if self.mode == Receive::OneMessage && too_long {
            let mut short = completion(self.posted.take(), 0, false);
            short.status = WcStatus::LocalLength;
            poll.out[poll.count] = short;
            poll.count += 1;
            poll.counters.receives_used += 1;
            poll.counters.drop_too_long += 1;
            return self.drop_message(slots, poll.counters);
        }
        let (out, pending) = (&mut poll.out[poll.count..], &mut self.pending);
        let mut places = out.iter_mut();
        let filled = self.posted.fill(sources, length, |wr_id, bytes, more| {
            let done = completion(wr_id, bytes, more);
            match places.next() {
                Some(place) => *place = done,
                None => pending.push_back(done),
            }
        });
        let Some(receives) = filled else {
            self.needed = self.posted.len() + 1;
            poll.counters.waits_for_receives += 1;
            return Pull::Waits;
        };
        barrier::pulled_before_sequence_again();
        let again = self.head.slot().sequence().load(Ordering::Relaxed);
        if again != sequence_of(self.head.position()) {
            // Only a message's own completions wait, and this one has none.
            self.pending.clear();
            poll.counters.drop_torn += 1;
            return self.drop_message(slots, poll.counters);
        }
        self.posted.take_filled(receives);
        let room = places.len();
        poll.count = poll.out.len() - room;
        self.note_pending();
        self.advance(slots);
        poll.counters.taken += 1;
        poll.counters.received += 1;
        poll.counters.received_bytes += u64::from(length);
        poll.counters.receives_used += receives;
        Pull::Delivered
    }

    fn note_pending(&mut self) {
        self.has_pending = !self.pending.is_empty();
        self.has_duty |= self.has_pending;
    }

    /// Leaves a message behind, the reason being counted.
    fn drop_message(&mut self, slots: usize, counters: &mut SoftCounters) -> Pull {
        counters.taken += 1;
        self.publish_at = 0;
        self.advance(slots);
        Pull::Dropped
    }

    fn advance(&mut self, slots: usize) {
        self.head.advance(u64::try_from(slots).unwrap_or(1));
        self.needed = 0;
    }

    /// Position of the next message.
    #[cfg(any(test, fuzzing))]
    pub(super) fn head(&self) -> u64 {
        self.head.position()
    }

    /// Tells the peer how far we have come, if it does not know; whether there was news.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let head = self.head.position();
        let news = head != self.published && self.own_consumed.is_linked();
        if news {
            // Release: the pulled bytes were read before their place may be written again.
            self.own_consumed.get().store(head, Ordering::Release);
            self.published = head;
        }
        self.publish_at = self.published + (self.head.ring().len() / 4).max(1);
        self.has_duty = self.has_pending;
        news
    }
}

#[inline]
fn completion(wr_id: u64, byte_len: u32, more: bool) -> Completion {
    Completion { wr_id, status: WcStatus::Success, byte_len, more, checksum: WcChecksum::Unknown }
}
