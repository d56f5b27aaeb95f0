//! Names of buffers in an arena.
//!
//! A name is the number of the buffer's first granule, counted from the arena's base; it holds
//! neither pointer nor reference. A receive buffer that the NIC may write is a [`PostedSlot`] and
//! gives no access to its bytes; on completion it becomes a [`Slot`].

use std::num::NonZeroU32;

/// Bytes in a granule, the unit in which slots are numbered.
pub const GRANULE_LEN: u32 = 256;
/// Bytes in a small transmit slot.
pub const SMALL_LEN: u32 = 256;
/// Bytes in a chunk, page-aligned.
pub const CHUNK_LEN: u32 = 4096;
/// From here on a number names no granule but a send under way of a buffer that the application
/// filled.
pub(super) const LEASE_FIRST: u32 = 1 << 31;

/// A buffer, named by its first granule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The slot with this granule number. A number that names no slot is refused where it is used.
    #[must_use]
    pub const fn from_raw(granule: u32) -> Slot {
        Slot(granule)
    }

    /// The granule number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// A receive buffer that belongs to the NIC. Neither copied nor read; it comes back through
/// [`super::arena::Arena::complete`].
///
/// Never the arena's first granule, which is a transmit slot's: so `Option` of it is one word.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct PostedSlot(pub(super) NonZeroU32);

/// A range of bytes in one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The slot.
    pub slot: Slot,
    /// First byte, counted from the slot's start.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

/// The classes of transmit slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotClass {
    /// [`SMALL_LEN`] bytes: headers, with a small payload behind them.
    Small,
    /// [`CHUNK_LEN`] bytes: payload.
    Chunk,
}
