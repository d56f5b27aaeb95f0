//! Memory that a device can reach, as the stack sees it: slots with reference counts.
//!
//! Slots that the stack did not allocate, filled by the application, are sent like its own.
//!
//! The stack never holds a pointer. It holds a [`Slot`], or a [`Piece`] (a range within one), and
//! asks the [`Memory`] that it is given for the bytes. A slot goes back to its pool when its last
//! reference is released; a slot that the device still reads holds a reference of its own, so
//! a slot is never written again before the peer's acknowledgement *and* the device's completion.

use crate::checksum::{Sum, copy_and_sum};

/// A buffer, named by its first 256-byte granule in the worker's arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot with this granule number.
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

impl Piece {
    /// The piece without its first `n` bytes; `n` is at most its length.
    #[must_use]
    pub fn skip(self, n: u32) -> Piece {
        debug_assert!(n <= self.len);
        Piece { slot: self.slot, start: self.start + n, len: self.len - n }
    }

    /// The first `n` bytes of the piece; `n` is at most its length.
    #[must_use]
    pub fn take(self, n: u32) -> Piece {
        debug_assert!(n <= self.len);
        Piece { slot: self.slot, start: self.start, len: n }
    }
}

/// The two sizes of transmit slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotClass {
    /// [`SMALL_SLOT_LEN`] bytes: headers, with a small payload behind them.
    Small,
    /// [`CHUNK_SLOT_LEN`] bytes: payload.
    Chunk,
}

/// Bytes in a [`SlotClass::Small`] slot.
pub const SMALL_SLOT_LEN: u32 = 256;
/// Bytes in a [`SlotClass::Chunk`] slot.
pub const CHUNK_SLOT_LEN: u32 = 4096;

/// Slots with reference counts. Implemented by the runtime over registered memory, and by
/// [`crate::heap_memory::HeapMemory`] over ordinary memory.
pub trait Memory {
    /// A free transmit slot with one reference, or `None` when the class is exhausted.
    fn allocate(&mut self, class: SlotClass) -> Option<Slot>;

    /// Adds a reference.
    fn retain(&mut self, slot: Slot);

    /// Gives a reference back; the last one frees the slot.
    fn release(&mut self, slot: Slot);

    /// As [`Memory::release`], of a slot whose bytes the peer has not acknowledged and will not:
    /// its connection is over.
    fn abandon(&mut self, slot: Slot) {
        self.release(slot);
    }

    /// Whether more than one reference exists: for a slot of a send queue, that the device has
    /// not completed a work request that reads it.
    fn is_shared(&self, slot: Slot) -> bool;

    /// The bytes of a piece. Panics if the piece leaves its slot.
    fn bytes(&self, piece: Piece) -> &[u8];

    /// The sum of a piece's bytes, the first of which lies at an even offset. Memory that has a
    /// faster way to many bytes takes it. Panics if the piece leaves its slot.
    #[inline]
    fn sum(&self, piece: Piece) -> Sum {
        Sum::of(self.bytes(piece))
    }

    /// Copies `data`, which is as long, into a piece, and sums it on the way, as
    /// [`Memory::sum`] does. The bytes may be written as [`Memory::bytes_mut`] says.
    fn copy_and_sum(&mut self, piece: Piece, data: &[u8]) -> Sum {
        copy_and_sum(self.bytes_mut(piece), data)
    }

    /// The bytes of a piece, to be written. Only a holder that knows that nobody reads exactly
    /// these bytes may write them. Panics if the piece leaves its slot.
    fn bytes_mut(&mut self, piece: Piece) -> &mut [u8];

    /// Copies `from` to `to`, which is as long, one of them a slot's. Memory that has a faster way
    /// with many bytes takes it. Panics if the lengths differ.
    #[inline]
    fn copy(to: &mut [u8], from: &[u8]) {
        to.copy_from_slice(from);
    }

    /// Where a segment's bytes will be written soon: the end of a chunk that is held, or else the
    /// chunk that will be allocated next. Memory that a device on another core has read may be
    /// asked for now. Nothing comes of it otherwise.
    #[inline]
    fn expect_writing(&mut self, _rest: Option<Piece>, _len: u32) {}

    /// Whether few receive slots are left: queued data is then copied out of them.
    fn receive_is_low(&self) -> bool;

    /// Whether few [`SlotClass::Small`] slots are left: payload then goes into chunks, for a slot
    /// with payload is held until the peer acknowledges it, and without slots for headers no
    /// retransmission could make it do so.
    fn small_is_low(&self) -> bool {
        false
    }
}
