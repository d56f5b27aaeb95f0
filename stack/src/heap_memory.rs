//! A [`Memory`] over ordinary heap memory, for tests, simulators and embedding.
//!
//! It is strict: a slot's name carries a generation, so that a second release, a use after the
//! last release and an access outside the slot panic, and [`HeapMemory::live_slots`] counts what
//! has not been given back.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::memory::{CHUNK_SLOT_LEN, Memory, Piece, SMALL_SLOT_LEN, Slot, SlotClass};

/// How many slots of each kind a [`HeapMemory`] hands out at most.
#[derive(Clone, Copy, Debug)]
pub struct HeapLimits {
    /// Slots of [`SlotClass::Small`].
    pub small: u32,
    /// Slots of [`SlotClass::Chunk`].
    pub chunks: u32,
    /// Receive slots.
    pub receive: u32,
    /// Bytes in a receive slot.
    pub receive_len: u32,
    /// Receive slots at and below which [`Memory::receive_is_low`] says so.
    pub receive_low: u32,
}

impl Default for HeapLimits {
    fn default() -> HeapLimits {
        HeapLimits { small: 4096, chunks: 4096, receive: 4096, receive_len: 2048, receive_low: 256 }
    }
}

/// Bits of a slot's number that say where it lies; the others are its generation.
const INDEX_BITS: u32 = 20;
const GENERATION_MASK: u32 = (1 << (32 - INDEX_BITS)) - 1;

#[derive(Debug)]
struct HeapSlot {
    bytes: Box<[u8]>,
    references: u32,
    generation: u32,
    pool: usize,
}

/// Free slots of one kind, and how many more may be made.
#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
    unmade: u32,
    slot_len: u32,
}

impl Pool {
    fn new(count: u32, slot_len: u32) -> Pool {
        Pool { free: Vec::new(), unmade: count, slot_len }
    }
}

const SMALL: usize = 0;
const CHUNK: usize = 1;
const RECEIVE: usize = 2;

/// Slots in ordinary memory, made when first needed.
#[derive(Debug)]
pub struct HeapMemory {
    slots: Vec<HeapSlot>,
    pools: [Pool; 3],
    live: u32,
    receive_low: u32,
    small_low: u32,
}

impl Default for HeapMemory {
    fn default() -> HeapMemory {
        HeapMemory::new(HeapLimits::default())
    }
}

impl HeapMemory {
    /// Memory within these limits. Panics if they add up to 2^20 slots or more.
    #[must_use]
    pub fn new(limits: HeapLimits) -> HeapMemory {
        let total = u64::from(limits.small) + u64::from(limits.chunks) + u64::from(limits.receive);
        assert!(total < 1 << INDEX_BITS, "more slots than a slot number can name");
        HeapMemory {
            slots: Vec::new(),
            pools: [
                Pool::new(limits.small, SMALL_SLOT_LEN),
                Pool::new(limits.chunks, CHUNK_SLOT_LEN),
                Pool::new(limits.receive, limits.receive_len),
            ],
            live: 0,
            receive_low: limits.receive_low,
            small_low: (limits.small / 4).max(1),
        }
    }

    /// Slots of a pool that are free.
    fn free(&self, pool: usize) -> u64 {
        u64::from(self.pools[pool].unmade) + self.pools[pool].free.len() as u64
    }

    /// A receive slot that holds `bytes`, or `None` when none is left or it is too short.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<Piece> {
        let len = u32::try_from(bytes.len()).ok()?;
        if len > self.pools[RECEIVE].slot_len {
            return None;
        }
        let slot = self.take(RECEIVE)?;
        let piece = Piece { slot, start: 0, len };
        self.bytes_mut(piece).copy_from_slice(bytes);
        Some(piece)
    }

    /// Receive slots that hold `bytes` between them, each full but the last, or `None` when there
    /// are too few.
    pub fn receive_chain(&mut self, bytes: &[u8]) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        for part in bytes.chunks(self.pools[RECEIVE].slot_len as usize) {
            match self.receive(part) {
                Some(piece) => pieces.push(piece),
                None => {
                    pieces.into_iter().for_each(|piece: Piece| self.release(piece.slot));
                    return None;
                }
            }
        }
        Some(pieces)
    }

    /// Slots with at least one reference.
    #[must_use]
    pub fn live_slots(&self) -> u32 {
        self.live
    }

    /// References to the slot.
    #[must_use]
    pub fn references(&self, slot: Slot) -> u32 {
        self.slots[self.index(slot)].references
    }

    fn take(&mut self, pool: usize) -> Option<Slot> {
        let index = match self.pools[pool].free.pop() {
            Some(index) => index,
            None => self.make(pool)?,
        };
        let slot = &mut self.slots[index as usize];
        slot.references = 1;
        self.live += 1;
        Some(Slot::from_raw(slot.generation << INDEX_BITS | index))
    }

    fn make(&mut self, pool: usize) -> Option<u32> {
        self.pools[pool].unmade = self.pools[pool].unmade.checked_sub(1)?;
        let bytes = vec![0; self.pools[pool].slot_len as usize].into_boxed_slice();
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(HeapSlot { bytes, references: 0, generation: 0, pool });
        Some(index)
    }

    fn index(&self, slot: Slot) -> usize {
        let index = (slot.raw() & ((1 << INDEX_BITS) - 1)) as usize;
        let found = &self.slots[index];
        assert!(
            found.references > 0 && found.generation == slot.raw() >> INDEX_BITS,
            "slot {index} is used after its last release"
        );
        index
    }
}

impl Memory for HeapMemory {
    fn allocate(&mut self, class: SlotClass) -> Option<Slot> {
        match class {
            SlotClass::Small => self.take(SMALL),
            SlotClass::Chunk => self.take(CHUNK),
        }
    }

    fn retain(&mut self, slot: Slot) {
        let index = self.index(slot);
        self.slots[index].references += 1;
    }

    fn release(&mut self, slot: Slot) {
        let index = self.index(slot);
        let found = &mut self.slots[index];
        found.references -= 1;
        if found.references == 0 {
            found.generation = (found.generation + 1) & GENERATION_MASK;
            self.live -= 1;
            self.pools[found.pool].free.push(slot.raw() & ((1 << INDEX_BITS) - 1));
        }
    }

    fn is_shared(&self, slot: Slot) -> bool {
        self.slots[self.index(slot)].references > 1
    }

    fn bytes(&self, piece: Piece) -> &[u8] {
        let slot = &self.slots[self.index(piece.slot)];
        &slot.bytes[piece.start as usize..][..piece.len as usize]
    }

    fn bytes_mut(&mut self, piece: Piece) -> &mut [u8] {
        let index = self.index(piece.slot);
        &mut self.slots[index].bytes[piece.start as usize..][..piece.len as usize]
    }

    fn receive_is_low(&self) -> bool {
        self.free(RECEIVE) <= u64::from(self.receive_low)
    }

    fn small_is_low(&self) -> bool {
        self.free(SMALL) <= u64::from(self.small_low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_return_and_are_counted() {
        let mut memory = HeapMemory::new(HeapLimits { small: 1, ..HeapLimits::default() });
        let slot = memory.allocate(SlotClass::Small).unwrap();
        assert!(memory.allocate(SlotClass::Small).is_none());
        memory.retain(slot);
        assert!(memory.is_shared(slot));
        memory.release(slot);
        memory.release(slot);
        assert_eq!(memory.live_slots(), 0);
        assert!(memory.allocate(SlotClass::Small).is_some());
    }

    #[test]
    #[should_panic(expected = "after its last release")]
    fn a_double_release_panics_even_when_the_slot_was_taken_again() {
        let mut memory = HeapMemory::default();
        let slot = memory.allocate(SlotClass::Chunk).unwrap();
        memory.release(slot);
        let again = memory.allocate(SlotClass::Chunk);
        assert!(again.is_some());
        memory.release(slot);
    }

    #[test]
    fn the_low_mark_follows_the_receive_slots() {
        let limits = HeapLimits { receive: 2, receive_low: 0, ..HeapLimits::default() };
        let mut memory = HeapMemory::new(limits);
        let first = memory.receive(b"one").unwrap();
        assert!(!memory.receive_is_low());
        let second = memory.receive(b"two").unwrap();
        assert!(memory.receive_is_low());
        assert_eq!(memory.bytes(second), b"two");
        memory.release(first.slot);
        assert!(!memory.receive_is_low());
        assert!(memory.receive_chain(&[0; 5000]).is_none());
        assert_eq!(memory.live_slots(), 1);
    }
}
