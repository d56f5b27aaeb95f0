//! The queue of posted receives, and scattering bytes into it.
//!
//! Every address in it was checked against a writable region when it was posted, and belongs to
//! the NIC until its completion; nothing here is visible to the peer.

use std::hint::cold_path;

use super::layout::INLINE_MAX_U32;
use super::options::RECV_ELEMENTS_MAX;
use super::regions::Regions;
use crate::memory::copy::copy_long;
use crate::nic::{PostError, RecvBatch, RecvWr};

/// A place for received bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    addr: u64,
    length: u32,
}

/// A posted receive. Its first place lies in it, since most have only one.
#[derive(Clone, Copy, Debug, Default)]
struct Receive {
    wr_id: u64,
    total: u32,
    places: u32,
    first: Place,
}

/// The name of a receive, and where its first place begins.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    wr_id: u64,
    /// 0 for none.
    addr: u64,
}

/// Places of a receive besides the first.
const MORE: usize = RECV_ELEMENTS_MAX - 1;

/// A queue of posted receives.
#[derive(Debug)]
pub(super) struct Posted {
    receives: Box<[Receive]>,
    more: Box<[Place]>,
    /// One less than the number of receives that there is room for.
    mask: usize,
    first: u64,
    next: u64,
    /// How often a filled one was posted again as it was.
    again: u64,
    /// The oldest, if it is known to have room for any message that lies in a slot; else no bytes.
    ready: Ready,
    /// Bytes of the shortest one that was ever posted.
    shortest: u32,
}

/// Bytes somewhere, to be copied: never seen as a slice, since their owner may change them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// First byte.
    pub(super) from: *const u8,
    /// Number of bytes.
    pub(super) length: u32,
}

/// Room in a posted receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    addr: u64,
    length: u32,
}

impl Room {
    /// Copies what there is room for of a source to the front; what is left behind it.
    #[inline(always)]
    pub(super) fn copy_next(self, source: Source) -> Room {
        let count = source.length.min(self.length);
        copy(source, self.addr, count);
        Room { addr: self.addr + u64::from(count), length: self.length - count }
    }
}

impl Posted {
    /// An empty queue with room for `capacity` receives, a power of two.
    pub(super) fn new(capacity: u32) -> Posted {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        Posted {
            receives: vec![Receive::default(); capacity].into_boxed_slice(),
            more: vec![Place::default(); capacity * MORE].into_boxed_slice(),
            mask: capacity - 1,
            first: 0,
            next: 0,
            again: 0,
            ready: Ready::default(),
            shortest: u32::MAX,
        }
    }

    /// Number of posted receives.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.next - self.first
    }

    /// How often a receive was filled so far.
    pub(super) fn filled(&self) -> u64 {
        self.first + self.again
    }

    /// Posts one receive.
    pub(super) fn post(&mut self, regions: &Regions, wr: &RecvWr<'_>) -> Result<(), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > RECV_ELEMENTS_MAX {
            return Err(PostError::SgeCount);
        }
        if self.len() >= self.capacity() {
            return Err(PostError::QueueFull);
        }
        let index = self.index(self.next);
        let mut total = 0_u32;
        for (number, sge) in wr.sges.iter().enumerate() {
            let found = regions.resolve_writable(sge)?;
            total = total.checked_add(found.length).ok_or(PostError::TooLong)?;
            let place = Place { addr: found.addr, length: found.length };
            match number.checked_sub(1) {
                None => self.receives[index].first = place,
                Some(number) => self.more[index * MORE + number] = place,
            }
        }
        let receive = &mut self.receives[index];
        receive.wr_id = wr.wr_id;
        receive.total = total;
        receive.places = u32::try_from(wr.sges.len()).unwrap_or(0);
        self.shortest = self.shortest.min(total);
        self.next += 1;
        Ok(())
    }

    /// Posts receives that are alike, as nearly all are; see [`crate::nic::Nic::post_recv_batch`].
    #[inline]
    pub(super) fn post_batch(
        &mut self,
        regions: &Regions,
        batch: &RecvBatch<'_>,
    ) -> Result<usize, PostError> {
        let length = batch.length;
        self.shortest = self.shortest.min(length);
        let starts = regions.receive_starts(batch.lkey, length)?;
        let room = usize::try_from(self.capacity() - self.len()).unwrap_or(0);
        let places = &batch.places[..batch.places.len().min(room)];
        let receives = &mut self.receives[..];
        let mask = receives.len() - 1;
        let first = usize::try_from(self.next).unwrap_or(0);
        let mut taken = 0;
        for (index, place) in (first..).zip(places) {
            let Some(receive) = receives.get_mut(index & mask) else { break };
            if !starts.contains(place.addr) {
                break;
            }
            let first = Place { addr: place.addr, length };
            *receive = Receive { wr_id: place.wr_id, total: length, places: 1, first };
            taken += 1;
        }
        self.next += u64::try_from(taken).unwrap_or(0);
        match taken {
            0 if room == 0 => Err(PostError::QueueFull),
            0 if !batch.places.is_empty() => Err(PostError::OutOfBounds),
            _ => Ok(taken),
        }
    }

    /// Copies a message that lies in a slot into the oldest receive if that has one place with room
    /// for it: its `wr_id`. [`Posted::take_filled`] or [`Posted::post_again`] follows.
    #[inline(always)]
    pub(super) fn fill_short(&mut self, source: Source) -> Option<u64> {
        if self.ready.addr == 0 {
            cold_path();
            return self.fill_oldest(source);
        }
        copy(source, self.ready.addr, INLINE_MAX_U32);
        Some(self.ready.wr_id)
    }

    /// As [`Posted::fill_short`], for the first time or where there is less room.
    #[inline(never)]
    fn fill_oldest(&mut self, source: Source) -> Option<u64> {
        let receive = self.receives[self.index(self.first)];
        let Receive { wr_id, first: Place { addr, length }, .. } = receive;
        if self.first == self.next || length < source.length {
            return None;
        }
        if length >= INLINE_MAX_U32 {
            // The whole slot is copied, since that takes no call; the bytes behind the message mean
            // nothing.
            self.ready = Ready { wr_id, addr };
            copy(source, addr, INLINE_MAX_U32);
        } else {
            copy(source, addr, source.length);
        }
        Some(wr_id)
    }

    /// The oldest receive, if it has room for so many bytes in one place: its `wr_id`, and the room
    /// to be filled from the front. [`Posted::take_filled`] follows.
    #[inline(always)]
    pub(super) fn oldest_with_room(&self, length: u32) -> Option<(u64, Room)> {
        let receive = self.receives.get(usize::try_from(self.first).unwrap_or(0) & self.mask)?;
        if self.first == self.next || receive.first.length < length {
            return None;
        }
        Some((receive.wr_id, Room { addr: receive.first.addr, length }))
    }

    /// Posts the oldest receive, which is filled, again: it stays the oldest, since what it holds
    /// was read just now, and its bytes are the most likely to be in the cache.
    #[inline(always)]
    pub(super) fn post_again(&mut self) {
        self.again += 1;
    }

    /// Bytes of the receive with this number behind the oldest; 0 if there is none.
    #[inline]
    pub(super) fn total(&self, ahead: u64) -> u32 {
        if ahead >= self.len() {
            return 0;
        }
        self.receives[self.index(self.first + ahead)].total
    }

    /// Copies a message of `length` bytes into the oldest receives, which stay posted until
    /// [`Posted::take_filled`]; calls `each` with the `wr_id`, its bytes and whether the message
    /// goes on, in order. Says how many receives it takes, or nothing if too few are posted.
    #[inline]
    pub(super) fn fill(
        &self,
        sources: &[Source],
        length: u32,
        mut each: impl FnMut(u64, u32, bool),
    ) -> Option<u64> {
        if !self.has_room(length) {
            return None;
        }
        let mut feed = Feed::new(sources);
        let receives = &self.receives[..];
        let mask = receives.len() - 1;
        let mut rest = length;
        let mut at = usize::try_from(self.first).unwrap_or(0);
        let mut taken = 0;
        while let Some(receive) = receives.get(at & mask) {
            let bytes = rest.min(receive.total);
            match receive.places {
                1 => feed.copy(receive.first.addr, bytes),
                _ => self.fill_places(&mut feed, at & mask, bytes),
            }
            rest -= bytes;
            at += 1;
            taken += 1;
            each(receive.wr_id, bytes, rest > 0);
            if rest == 0 {
                return Some(taken);
            }
        }
        None
    }

    /// The receive with this index, which has several places.
    #[inline(never)]
    fn fill_places(&self, feed: &mut Feed<'_>, index: usize, bytes: u32) {
        let Receive { first, places, .. } = self.receives[index];
        let more = &self.more[index * MORE..];
        let mut rest = bytes;
        for place in std::iter::once(&first).chain(more).take(usize::try_from(places).unwrap_or(0))
        {
            let here = rest.min(place.length);
            feed.copy(place.addr, here);
            rest -= here;
        }
    }

    /// Whether a message of `length` bytes has room in all receives together. Nearly always so many
    /// of the shortest would do.
    #[inline]
    fn has_room(&self, length: u32) -> bool {
        self.len() * u64::from(self.shortest) >= u64::from(length) || self.sum_of_room() >= length
    }

    /// Bytes for which any receive has room.
    #[inline]
    pub(super) fn shortest(&self) -> u32 {
        self.shortest
    }

    #[cold]
    fn sum_of_room(&self) -> u32 {
        let totals = (self.first..self.next).map(|number| self.receives[self.index(number)].total);
        totals.fold(0, u32::saturating_add)
    }

    /// Takes the oldest `count` receives out, which are filled.
    #[inline]
    pub(super) fn take_filled(&mut self, count: u64) {
        debug_assert!(count <= self.len());
        self.first += count;
        self.ready = Ready::default();
    }

    /// Takes the oldest receive out; its `wr_id`. The queue is not empty.
    #[inline]
    pub(super) fn take(&mut self) -> u64 {
        debug_assert!(self.len() > 0);
        let wr_id = self.receives[self.index(self.first)].wr_id;
        self.first += 1;
        self.ready = Ready::default();
        wr_id
    }

    #[inline]
    fn capacity(&self) -> u64 {
        u64::try_from(self.receives.len()).unwrap_or(0)
    }

    #[inline]
    fn index(&self, number: u64) -> usize {
        usize::try_from(number).unwrap_or(0) & self.mask
    }
}

/// The bytes of a message, to be copied from front to back.
struct Feed<'a> {
    now: Source,
    then: std::slice::Iter<'a, Source>,
}

impl<'a> Feed<'a> {
    #[inline]
    fn new(sources: &'a [Source]) -> Feed<'a> {
        let mut then = sources.iter();
        let now = then.next().copied().unwrap_or(Source { from: std::ptr::null(), length: 0 });
        Feed { now, then }
    }

    /// Copies the next `count` bytes, or what is left of them, to a checked place.
    #[inline(always)]
    fn copy(&mut self, to: u64, count: u32) {
        if self.now.length >= count {
            copy(self.now, to, count);
            self.skip(count);
        } else {
            self.copy_across(to, count);
        }
    }

    #[inline(never)]
    fn copy_across(&mut self, mut to: u64, mut count: u32) {
        loop {
            let here = count.min(self.now.length);
            copy(self.now, to, here);
            self.skip(here);
            to += u64::from(here);
            count -= here;
            if count == 0 {
                return;
            }
            let Some(next) = self.then.next() else { return };
            self.now = *next;
        }
    }

    /// Leaves bytes of the present source behind.
    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.now.from = self.now.from.wrapping_add(usize::try_from(count).unwrap_or(0));
        self.now.length -= count;
    }
}

/// Copies `count` bytes, at most as many as the source or the slot that it lies in has, to a
/// checked place.
#[inline(always)]
fn copy(source: Source, to: u64, count: u32) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(to).unwrap_or(0));
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the source lies in a mapping of the peer's sealed memory, checked by the receiver;
    // the target in a posted receive, in bounds as `post` checked, mapped and untouched by others
    // as the caller of `register` promised. The peer may write the source meanwhile: the bytes
    // are then torn, which the receiver notices or the bytes' consumer must bear.
    unsafe { copy_long(source.from, to, count) }
}
