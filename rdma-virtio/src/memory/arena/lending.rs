//! What applications hold of the arena: blocks that they fill, received pieces that they keep, and
//! sends of theirs that are under way.
//!
//! Handles that come back from other threads wait on the home's queue until [`Arena::drain`].

use std::hint::cold_path;
use std::ptr::NonNull;

use super::state::{BLOCK, FreeList, LENT_MORE, PIN, RECEIVE, RECEIVE_CLASS, REFERENCE, State};
use super::{Arena, range_in, usize_of};
use crate::memory::buffer::{Buffer, BufferMut};
use crate::memory::home::{NO_SLOT, Return};
use crate::memory::leases::{LeaseCounters, LeaseError, Sent};
use crate::memory::lent::{Held, Pieces};
use crate::memory::slot::{GRANULE_LEN, Piece, Slot};

/// Most pieces of one slot that are lent at once.
const PINS_MAX: u32 = 1 << 12;

/// Lent pieces that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// The number under which they were lent.
    pub owner: u64,
    /// Bytes.
    pub bytes: u32,
    /// Pieces that lay in receive slots.
    pub slots: u16,
}

impl Arena {
    /// Calls `wake` whenever a handle comes back by the queue, from whichever thread; only the
    /// first one that is given counts.
    pub fn on_return(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _first_stays = self.home.on_return.set(Box::new(wake));
    }

    /// A block to be filled, if one is free.
    pub fn buffer(&mut self) -> Option<BufferMut> {
        let Some(granule) = self.pop(BLOCK) else {
            self.counters.block_exhausted += 1;
            return None;
        };
        let state = self.state.get_mut(granule as usize)?;
        state.references = state.references - REFERENCE + PIN;
        let offset = granule as usize * GRANULE_LEN as usize;
        let range = (offset, self.classes[BLOCK].len as usize);
        // SAFETY: the block was free, and from now on only its handle's holders touch it, which
        // `bytes_mut` and `put_before` make sure of, until it comes back.
        Some(unsafe { BufferMut::new(&self.home, None, range, Return::Block(granule)) })
    }

    /// Free blocks.
    #[must_use]
    pub fn free_blocks(&self) -> u32 {
        self.free[BLOCK].count
    }

    /// Takes a range of a buffer, first byte and length, to be sent. The slot has one reference and
    /// can be used like a transmit slot, but for writing. Without a cookie nobody is told of its
    /// end.
    ///
    /// # Errors
    /// See [`LeaseError`]; nothing was taken then.
    pub fn lease(
        &mut self,
        buffer: &Buffer,
        range: (usize, usize),
        cookie: Option<u64>,
    ) -> Result<Slot, LeaseError> {
        if !buffer.is_of(&self.home) {
            self.leases.counters.refused += 1;
            return Err(LeaseError::Foreign);
        }
        self.leases.open(buffer, range, cookie)
    }

    /// A send that nobody took after all: it ends without a word.
    pub fn cancel_lease(&mut self, slot: Slot) {
        self.leases.cancel(slot);
    }

    /// A send's connection ended before the peer acknowledged all of it; its reference is still to
    /// be released.
    pub fn mark_dropped(&mut self, slot: Slot) {
        self.leases.mark_dropped(slot);
    }

    /// Whether [`Arena::take_ended`] has something.
    #[must_use]
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.leases.has_ended()
    }

    /// The next send that has ended.
    pub fn take_ended(&mut self) -> Option<Sent> {
        self.leases.take_ended()
    }

    /// What is counted of sends.
    #[must_use]
    pub fn lease_counters(&self) -> LeaseCounters {
        self.leases.counters
    }

    #[cold]
    pub(super) fn retain_lease(&mut self, slot: Slot) {
        if !self.leases.retain(slot) {
            self.misused(slot);
        }
    }

    #[cold]
    pub(super) fn release_lease(&mut self, slot: Slot) {
        if !self.leases.release(slot) {
            self.misused(slot);
        }
    }

    #[cold]
    pub(super) fn leased_addr(&self, slot: Slot, start: u32, len: u32) -> Option<u64> {
        self.leases.addr(slot, start, len)
    }

    /// The first byte of a range that lies in no slot of the arena's own.
    ///
    /// # Panics
    /// If it is not one of a send's either.
    #[cold]
    pub(super) fn leased(&self, slot: Slot, start: u32, len: u32) -> *mut u8 {
        let addr = self.leases.addr(slot, start, len).expect("the range lies in a held slot");
        std::ptr::with_exposed_provenance_mut(usize_of(addr))
    }

    /// Room for received pieces of this arena.
    #[must_use]
    pub fn pieces(&self) -> Pieces {
        Pieces::new(&self.home)
    }

    /// Receive slots that are lent.
    #[must_use]
    #[inline]
    pub fn lent_slots(&self) -> u32 {
        self.lent_slots
    }

    /// Pieces that are lent.
    #[must_use]
    #[inline]
    pub fn lent(&self) -> u32 {
        self.lent
    }

    /// How many pieces `out` takes in a row, each with [`Arena::lend`] or [`Arena::lend_owned`]:
    /// none if it is full or another arena's, or too many pieces are lent.
    #[must_use]
    #[inline]
    pub fn lendable(&self, out: &Pieces) -> u32 {
        if !out.is_of(&self.home) {
            cold_path();
            return 0;
        }
        let more = (self.classes[RECEIVE].total + LENT_MORE).saturating_sub(self.lent);
        more.min(out.room())
    }

    /// Lends received pieces under a number of the caller's choice, whose one reference each passes
    /// to `out`; at most `bytes_max` bytes. Returns how many were lent, and their bytes: it stops
    /// before a piece that lies in no receive slot, or of whose slot too much is lent, or for which
    /// `out` has no room. None are if that is another arena's.
    #[inline(always)]
    pub fn lend(
        &mut self,
        run: impl Iterator<Item = Piece>,
        bytes_max: u32,
        owner: u64,
        out: &mut Pieces,
    ) -> (u32, u32) {
        if !out.is_of(&self.home) {
            cold_path();
            return (0, 0);
        }
        let (states, base) = (&mut self.state[..], usize_of(self.base));
        let mut left = bytes_max;
        let lent = out.extend(run.map_while(|piece| {
            let state = states.get_mut(piece.slot.0 as usize)?;
            let references = state.references;
            let offset = range_in(*state, piece.slot, piece.start, piece.len)?;
            let is_received = references & (REFERENCE - 1) == RECEIVE_CLASS;
            if !is_received || references >= PINS_MAX * PIN || piece.len > left {
                cold_path();
                return None;
            }
            let first = NonNull::new(std::ptr::with_exposed_provenance_mut(base + offset))?;
            left -= piece.len;
            state.references = references - REFERENCE + PIN;
            // SAFETY: the piece lies in a receive slot, which the stack cannot write and which is
            // pinned until it comes back.
            Some(unsafe { Held::in_slot(first, piece.len, piece.slot, owner) })
        }));
        self.lent += lent;
        self.lent_slots += lent;
        (lent, bytes_max - left)
    }

    /// Lends bytes that lie in no slot.
    ///
    /// # Panics
    /// If [`Arena::lendable`] gives none.
    pub fn lend_owned(&mut self, bytes: Box<[u8]>, owner: u64, out: &mut Pieces) {
        assert!(self.lendable(out) > 0, "room was asked for");
        self.lent += 1;
        out.extend(std::iter::once(Held::owned(bytes, owner)));
    }

    /// Takes pieces back at once, from the arena's own thread, and says of each owner what came
    /// back of it.
    #[inline]
    pub fn take_back(&mut self, pieces: &mut Pieces, mut each: impl FnMut(Returned)) {
        if !pieces.is_of(&self.home) {
            return;
        }
        let mut sum = Returned { owner: 0, bytes: 0, slots: 0 };
        let mut slots = 0;
        let mut free = self.free[RECEIVE];
        for held in pieces.end() {
            let back = match held.into_slot() {
                Ok((slot, owner, bytes)) => {
                    slots += 1;
                    match self.state.get_mut(slot.0 as usize) {
                        // Nothing else refers to it.
                        Some(state) if state.references == PIN + RECEIVE_CLASS => {
                            *state = State::free(free.head);
                            free = FreeList { head: slot.0, count: free.count + 1 };
                        }
                        _ => {
                            cold_path();
                            self.free[RECEIVE] = free;
                            self.unpin(slot);
                            free = self.free[RECEIVE];
                        }
                    }
                    Returned { owner, bytes, slots: 1 }
                }
                // Lies in no slot.
                Err(mut owned) => match self.settle(owned.end()) {
                    Some(back) => back,
                    None => continue,
                },
            };
            if back.owner != sum.owner {
                if sum.bytes > 0 {
                    each(sum);
                }
                sum = back;
            } else {
                sum.bytes += back.bytes;
                sum.slots += back.slots;
            }
        }
        self.free[RECEIVE] = free;
        self.lent = self.lent.saturating_sub(slots);
        self.lent_slots = self.lent_slots.saturating_sub(slots);
        if sum.bytes > 0 {
            each(sum);
        }
    }

    /// Whether handles wait on the queue.
    #[must_use]
    #[inline]
    pub fn has_returns(&self) -> bool {
        !self.home.returns.is_empty()
    }

    /// Takes handles off the queue until one was a lent piece, or none is left.
    pub fn drain(&mut self) -> Option<Returned> {
        while let Some(ended) = self.home.returns.pop() {
            if let Some(returned) = self.settle(ended) {
                return Some(returned);
            }
        }
        None
    }

    #[inline]
    fn settle(&mut self, ended: Return) -> Option<Returned> {
        match ended {
            Return::Lent { slot, owner, bytes } => {
                self.lent = self.lent.saturating_sub(1);
                let in_slot = slot != NO_SLOT;
                if in_slot {
                    self.lent_slots = self.lent_slots.saturating_sub(1);
                    self.unpin(Slot(slot));
                }
                Some(Returned { owner, bytes, slots: u16::from(in_slot) })
            }
            Return::Registered(number) => {
                self.end_registered(number);
                None
            }
            Return::Block(granule) => {
                self.unpin(Slot(granule));
                None
            }
        }
    }

    /// Takes a pin back; without another reference the slot is free.
    #[inline]
    fn unpin(&mut self, slot: Slot) {
        self.give_back(slot, PIN);
    }
}
