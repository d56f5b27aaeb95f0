//! Who has which slot: the lists of those that are free, and the references to the others.

use std::hint::cold_path;
use std::num::NonZeroU32;

use super::state::*;
use super::{Arena, granule};
use crate::memory::slot::{GRANULE_LEN, Piece, PostedSlot, Slot, SlotClass};

impl Arena {
    /// Makes `count` slots of `len` bytes each, from the byte at `offset` on, all free.
    pub(super) fn fill_class(&mut self, kind: usize, offset: u64, (count, len): (u32, u32)) {
        let mut next = END_OF_LIST;
        for number in (0..count).rev() {
            let at = granule(offset) + number * (len / GRANULE_LEN);
            self.state[at as usize] = State::free(next);
            next = at;
        }
        let references = REFERENCE | u32::try_from(kind).unwrap_or(0);
        let held = State { references, limit: (len + 1).cast_signed() };
        self.free[kind] = FreeList { head: next, count };
        self.classes[kind] = Class { held, total: count, len };
    }

    /// A free transmit slot with one reference. Of small ones the one freed last comes first: its
    /// bytes are the most likely to be in the cache. Chunks take turns: a stream's were read by
    /// another core when they are freed, and writing them while their lines lie there took a
    /// seventh to a fifth of a copying stream over the soft link.
    #[inline]
    pub fn allocate(&mut self, class: SlotClass) -> Option<Slot> {
        let kind = match class {
            SlotClass::Small => SMALL,
            SlotClass::Chunk => CHUNK,
        };
        match self.pop(kind) {
            Some(granule) => Some(Slot(granule)),
            None => {
                match class {
                    SlotClass::Small => self.counters.small_exhausted += 1,
                    SlotClass::Chunk => self.counters.chunk_exhausted += 1,
                }
                None
            }
        }
    }

    /// The first bytes of the slot of this class that is allocated next will be written soon; see
    /// [`Arena::expect_writing`].
    #[inline]
    pub fn expect_allocation(&self, class: SlotClass, len: u32) {
        let kind = match class {
            SlotClass::Small => SMALL,
            SlotClass::Chunk => CHUNK,
        };
        let head = self.free[kind].head;
        if head < self.written {
            self.fetch_for_writing(head as usize * GRANULE_LEN as usize, len);
        }
    }

    /// The bytes of a piece will be written soon: their cache lines are fetched meanwhile, which
    /// the core that has read them last has, too.
    #[inline]
    pub fn expect_writing(&self, piece: Piece) {
        if let Some(offset) = self.locate_written(piece.slot, piece.start, piece.len) {
            self.fetch_for_writing(offset, piece.len);
        }
    }

    #[inline(always)]
    fn fetch_for_writing(&self, offset: usize, len: u32) {
        #[cfg(target_arch = "x86_64")]
        for line in (0..len as usize).step_by(64) {
            let place = self.at(offset + line);
            // SAFETY: a hint that reads and writes nothing, whatever the address; every x86-64
            // processor takes it, those that cannot follow it as one that does nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{}]",
                    in(reg) place,
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
    }

    /// A free receive slot, to be posted.
    #[inline]
    pub fn allocate_receive(&mut self) -> Option<PostedSlot> {
        match self.pop(RECEIVE).and_then(NonZeroU32::new) {
            Some(granule) => Some(PostedSlot(granule)),
            None => {
                self.counters.receive_exhausted += 1;
                None
            }
        }
    }

    /// Free receive slots, to be posted, at most `count`: as [`Arena::allocate_receive`] again and
    /// again, each with its address.
    #[inline(always)]
    pub fn allocate_receives(&mut self, count: u16, mut take: impl FnMut(PostedSlot, u64)) -> u16 {
        let states = &mut self.state[..];
        let held = self.classes[RECEIVE].held;
        let base = self.base;
        let mut head = self.free[RECEIVE].head;
        let mut taken = 0;
        while taken < count {
            let (Some(state), Some(granule)) =
                (states.get_mut(head as usize), NonZeroU32::new(head))
            else {
                cold_path();
                break;
            };
            head = state.next();
            *state = held;
            taken += 1;
            take(PostedSlot(granule), base + u64::from(granule.get()) * u64::from(GRANULE_LEN));
        }
        self.free[RECEIVE].head = head;
        self.free[RECEIVE].count -= u32::from(taken);
        taken
    }

    /// The NIC is done with a posted slot: it becomes an ordinary one, with one reference.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the posted name ends here")]
    pub fn complete(&mut self, posted: PostedSlot) -> Slot {
        let PostedSlot(granule) = posted;
        Slot(granule.get())
    }

    /// The name of a posted slot that the NIC is done with, to read it until it is posted again.
    #[must_use]
    #[inline(always)]
    pub fn filled(&self, posted: &PostedSlot) -> Slot {
        Slot(posted.0.get())
    }

    /// As [`Arena::complete`], for a slot that is used later: what is known of it comes into the
    /// cache meanwhile. It was last touched a whole queue of receives ago.
    #[inline]
    pub fn complete_early(&mut self, posted: PostedSlot) -> Slot {
        let slot = self.complete(posted);
        #[cfg(target_arch = "x86_64")]
        if let Some(state) = self.state.get(slot.0 as usize) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the address is a reference's, and nothing is read.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(state).cast()) };
        }
        slot
    }

    /// As [`Arena::complete`], with a copy of the slot's first 12 bytes.
    #[inline]
    pub fn complete_with_header(&mut self, posted: PostedSlot) -> (Slot, [u8; 12]) {
        let slot = self.complete(posted);
        let offset = slot.0 as usize * GRANULE_LEN as usize;
        let first = self.at(offset);
        // SAFETY: a posted slot is one that this arena gave out, so it lies in the mapping; it is
        // longer than 12 bytes, and no longer the NIC's.
        (slot, unsafe { first.cast::<[u8; 12]>().read_unaligned() })
    }

    #[inline]
    pub(super) fn pop(&mut self, kind: usize) -> Option<u32> {
        let free = &mut self.free[kind];
        let granule = free.head;
        // The end of the list is the number of no granule.
        let state = self.state.get_mut(granule as usize)?;
        free.head = state.next();
        free.count -= 1;
        *state = self.classes[kind].held;
        Some(granule)
    }

    /// Adds a reference.
    #[inline]
    pub fn retain(&mut self, slot: Slot) {
        match self.state.get_mut(slot.0 as usize) {
            Some(state) if (REFERENCE..REFERENCES_MAX).contains(&state.references) => {
                state.references += REFERENCE;
            }
            Some(_) => self.misused(slot),
            None => self.retain_lease(slot),
        }
    }

    /// Gives a reference back; the last one frees the slot.
    #[inline]
    pub fn release(&mut self, slot: Slot) {
        self.give_back(slot, REFERENCE);
    }

    /// Gives so much of the word of references back.
    #[inline(always)]
    pub(super) fn give_back(&mut self, slot: Slot, amount: u32) {
        let Some(state) = self.state.get_mut(slot.0 as usize) else {
            return self.release_lease(slot);
        };
        // Without its last reference the word is the class.
        let rest = state.references.wrapping_sub(amount);
        if let Some(free) = self.free[..CHUNK].get_mut(rest as usize) {
            *state = State::free(free.head);
            free.head = slot.0;
            free.count += 1;
        } else if (REFERENCE..REFERENCES_MAX).contains(&rest) {
            state.references = rest;
        } else if rest == CHUNK_CLASS {
            self.free_chunk(slot);
        } else {
            self.misused(slot);
        }
    }

    /// Makes a chunk without references the last of those that are free.
    #[inline]
    fn free_chunk(&mut self, Slot(chunk): Slot) {
        self.state[chunk as usize] = State::free(END_OF_LIST);
        let free = &mut self.free[CHUNK];
        match free.count {
            0 => free.head = chunk,
            _ => self.state[self.last_chunk as usize] = State::free(chunk),
        }
        free.count += 1;
        self.last_chunk = chunk;
    }

    #[cold]
    pub(super) fn misused(&mut self, slot: Slot) {
        self.counters.misuse += 1;
        debug_assert!(false, "slot {} has no reference to give back or share", slot.0);
    }

    /// Whether more than one reference exists.
    #[must_use]
    #[inline]
    pub fn is_shared(&self, slot: Slot) -> bool {
        match self.state.get(slot.0 as usize) {
            Some(state) => state.references >= 2 * REFERENCE,
            None => self.leases.is_shared(slot),
        }
    }
}
