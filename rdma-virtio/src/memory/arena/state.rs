//! What is known of a slot, and the lists of those that are free: plain numbers.

use crate::memory::limits::ARENA_LEN_MAX;
use crate::memory::slot::GRANULE_LEN;

/// What is known of the slot that begins at a granule.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Its class, and [`REFERENCE`] for each reference to it; 0 if it is free, or no slot begins
    /// here.
    pub(super) references: u32,
    /// One more than its length while it has references, so that one comparison finds a range that
    /// leaves it, or a slot that is not held; else the complement of the next free granule, which
    /// is negative and below any range's end.
    pub(super) limit: i32,
}

/// The number of no granule.
pub(super) const END_OF_LIST: u32 = i32::MAX.unsigned_abs();
pub(super) const NOT_A_SLOT: State = State { references: 0, limit: i32::MIN };
const _: () = assert!(ARENA_LEN_MAX / (GRANULE_LEN as u64) < END_OF_LIST as u64);

impl State {
    /// A free slot, with the next one on the list.
    #[inline]
    pub(super) fn free(next: u32) -> State {
        State { references: 0, limit: !next.cast_signed() }
    }

    /// The next free slot.
    #[inline]
    pub(super) fn next(self) -> u32 {
        (!self.limit).cast_unsigned()
    }
}

pub(super) const SMALL: usize = 0;
pub(super) const RECEIVE: usize = 1;
/// The same as a part of a state's references.
pub(super) const RECEIVE_CLASS: u32 = 1;
pub(super) const BLOCK: usize = 2;
/// Behind those of which the slot freed last comes first.
pub(super) const CHUNK: usize = 3;
pub(super) const CHUNK_CLASS: u32 = 3;
pub(super) const CLASSES: u32 = 4;
/// One reference, in a slot's state: classes are the numbers below.
pub(super) const REFERENCE: u32 = 4;
pub(super) const REFERENCES_MAX: u32 = u32::MAX - 2 * REFERENCE;
const _: () = assert!(CLASSES <= REFERENCE);
/// What lending a slot to an application adds to its references: so many that nothing else which
/// goes wrong could take them away.
pub(super) const PIN: u32 = REFERENCE << 16;
/// Pieces of slots that applications may hold at once, besides one a receive slot: of one slot
/// several pieces may be lent.
pub(super) const LENT_MORE: u32 = 4096;

/// Blocks of registered memory that applications may hold at once.
pub(super) const REGISTERED_HANDLES: u32 = 4096;

/// The free slots of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeList {
    /// The first; the end of the list is the number of no granule.
    pub(super) head: u32,
    pub(super) count: u32,
}

/// What does not change of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// The state of a slot with one reference.
    pub(super) held: State,
    pub(super) total: u32,
    pub(super) len: u32,
}
