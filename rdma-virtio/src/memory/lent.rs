//! Received bytes that are lent to the application where the NIC put them.
//!
//! [`Pieces`] takes what a call hands out, in order; [`Lent`] is one piece of it, to be kept as
//! long as one likes and on any thread. Neither is ever written. A slot that is lent is pinned: no
//! count that goes wrong elsewhere frees it, so that no NIC writes it while it is read.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::home::{Home, NO_SLOT, Return};
use super::slot::Slot;

/// Pieces that one call hands out at most.
pub const PIECES_MAX: usize = 32;

/// One piece: in a pinned slot, or in memory of its own.
#[derive(Debug)]
pub(super) struct Held {
    first: NonNull<u8>,
    len: u32,
    slot: u32,
    owner: u64,
}

// SAFETY: the bytes are a pinned slot's or the value's own, and are only read until it is given
// back; `Pieces` and `Lent` keep the mapping.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// A piece of a slot.
    ///
    /// # Safety
    /// The bytes are not written, and stay mapped, until the value is given back.
    #[inline]
    pub(super) unsafe fn in_slot(first: NonNull<u8>, len: u32, slot: Slot, owner: u64) -> Held {
        Held { first, len, slot: slot.raw(), owner }
    }

    /// Bytes of its own.
    ///
    /// # Panics
    /// If there are 4 GiB of them.
    pub(super) fn owned(bytes: Box<[u8]>, owner: u64) -> Held {
        let len = u32::try_from(bytes.len()).expect("a piece is shorter than 4 GiB");
        Held { first: NonNull::from(Box::leak(bytes)).cast(), len, slot: NO_SLOT, owner }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `in_slot` was promised that the bytes are there and are not written; those of
        // `owned` belong to this value.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len as usize) }
    }

    /// A piece of a slot as the slot, the owner's number and the bytes; any other as it was.
    #[inline]
    pub(super) fn into_slot(self) -> Result<(Slot, u64, u32), Held> {
        match self.slot {
            NO_SLOT => Err(self),
            slot => Ok((Slot(slot), self.owner, self.len)),
        }
    }

    /// It is over: frees memory of its own, and says what the arena is to be told. Afterwards there
    /// are no bytes.
    #[inline]
    pub(super) fn end(&mut self) -> Return {
        let ended = Return::Lent { slot: self.slot, owner: self.owner, bytes: self.len };
        if self.slot == NO_SLOT {
            let bytes = NonNull::slice_from_raw_parts(self.first, self.len as usize);
            // SAFETY: `owned` leaked a box of just these bytes, of which this is the only value, or
            // there are none.
            drop(unsafe { Box::from_raw(bytes.as_ptr()) });
        }
        *self = Held { first: NonNull::dangling(), len: 0, slot: NO_SLOT, owner: self.owner };
        ended
    }
}

/// Received pieces in order, of one worker. What is dropped goes home by the queue.
#[derive(Debug)]
pub struct Pieces {
    home: Arc<Home>,
    list: ArrayVec<Held, PIECES_MAX>,
    bytes: usize,
}

impl Pieces {
    pub(super) fn new(home: &Arc<Home>) -> Pieces {
        Pieces { home: Arc::clone(home), list: ArrayVec::new(), bytes: 0 }
    }

    pub(super) fn is_of(&self, home: &Arc<Home>) -> bool {
        Arc::ptr_eq(&self.home, home)
    }

    /// Appends pieces while there is room, and returns how many. No more are asked for than that.
    #[inline(always)]
    pub(super) fn extend(&mut self, held: impl Iterator<Item = Held>) -> u32 {
        let (before, room) = (self.room(), self.list.remaining_capacity());
        let mut bytes = 0;
        self.list.extend(held.take(room).inspect(|held| bytes += held.len as usize));
        self.bytes += bytes;
        before - self.room()
    }

    /// Pieces for which there is room.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        u32::try_from(self.list.remaining_capacity()).unwrap_or(0)
    }

    /// Takes all pieces out, to be given back.
    #[inline]
    pub(super) fn end(&mut self) -> impl Iterator<Item = Held> + '_ {
        self.bytes = 0;
        self.list.drain(..)
    }

    /// Pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether no further piece fits.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.list.is_full()
    }

    /// Bytes of all of them.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes, piece by piece, in the order of the stream.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.list.iter().map(Held::bytes)
    }

    /// The pieces one by one, each to be kept for itself.
    pub fn drain(&mut self) -> impl Iterator<Item = Lent> + '_ {
        self.bytes = 0;
        let home = &self.home;
        self.list.drain(..).map(move |held| Lent { home: Arc::clone(home), held })
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        for mut held in self.list.drain(..) {
            self.home.give_back(held.end());
        }
    }
}

/// One received piece. Its drop gives it back.
pub struct Lent {
    home: Arc<Home>,
    held: Held,
}

impl Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.held.bytes()
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(self.held.end());
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.held.len).finish_non_exhaustive()
    }
}
