//! The worker's own memory: one contiguous range of addresses that holds all of its buffers.
//!
//! ```text
//! base                                                            2 MiB-aligned
//! ├ transmit memfd (may be shown to a peer, read-only)
//! │   small slots   config.small × 256
//! │   chunks        config.chunks × 4096
//! │   blocks        config.blocks × config.block_len
//! │   scratch       the device half's own, for headers that it makes
//! ├ receive memfd (private, never shown)
//! │   receive slots config.receive × config.receive_len
//! │   private       virtqueues and indirect tables
//! ```
//!
//! Owns the free lists and the reference counts, which `slots` keeps; what applications hold of it
//! is in `lending`.
//! Invariants: a slot is free, posted, or has at least one reference; counts are plain integers,
//! changed by the thread that holds the arena; a name that is no slot, or a release too many, is
//! refused and counted, never undefined.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::home::Home;
use super::leases::{LEASES_MAX, Leases};
use super::limits;
pub use super::limits::{
    ARENA_LEN_DEFAULT_MAX, ARENA_LEN_MAX, ArenaConfig, ArenaError, ArenaExtra,
};
use super::mapping::{Mapping, PartSpec};
use super::slot::{CHUNK_LEN, GRANULE_LEN, Piece, PostedSlot, SMALL_LEN, Slot, SlotClass};
use crate::nic::RegionView;

mod lending;
mod registered;
mod slots;
mod state;

use registered::Registered;
pub use registered::{REGISTERED_MAX, RegisterError};
use state::*;

/// Events of the arena, each counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArenaCounters {
    /// Small slots were asked for and none was free.
    pub small_exhausted: u64,
    /// Chunks were asked for and none was free.
    pub chunk_exhausted: u64,
    /// Receive slots were asked for and none was free.
    pub receive_exhausted: u64,
    /// Blocks were asked for and none was free.
    pub block_exhausted: u64,
    /// Memories of the application's own that were registered.
    pub registered: u64,
    /// Of these, given up again.
    pub unregistered: u64,
    /// Names that were no slot, or references that did not exist: a bug of the caller.
    pub misuse: u64,
}

/// The worker's memory.
#[derive(Debug)]
pub struct Arena {
    /// First byte of the mapping in `home`.
    base: u64,
    home: Arc<Home>,
    leases: Leases,
    registered: [Option<Registered>; REGISTERED_MAX],
    /// Pieces that are lent, and slots that they pin.
    lent: u32,
    lent_slots: u32,
    /// By class.
    free: [FreeList; REFERENCE as usize],
    classes: [Class; CLASSES as usize],
    /// The last of the free chunks, while there is one.
    last_chunk: u32,
    /// By granule.
    state: Box<[State]>,
    /// Granules from the first on in which the stack writes: small slots and chunks.
    written: u32,
    scratch: (u64, u32),
    private: (u64, u32),
    counters: ArenaCounters,
}

impl Arena {
    /// Allocates and maps everything.
    ///
    /// # Errors
    /// If a number is absurd, or the kernel refuses the memory.
    pub fn new(config: &ArenaConfig, extra: ArenaExtra) -> Result<Arena, ArenaError> {
        limits::check(config, extra)?;
        let small_len = u64::from(config.small) * u64::from(SMALL_LEN);
        let chunk_first = small_len.next_multiple_of(u64::from(CHUNK_LEN));
        let block_first = chunk_first + u64::from(config.chunks) * u64::from(CHUNK_LEN);
        let scratch_first = block_first + u64::from(config.blocks) * u64::from(config.block_len);
        let transmit_len = scratch_first + u64::from(extra.scratch_len);
        let receive_bytes = u64::from(config.receive) * u64::from(config.receive_len);
        let receive_len = receive_bytes + u64::from(extra.private_len);
        let align = u64::from(config.receive_len.max(CHUNK_LEN));
        let specs = [
            PartSpec { name: c"roceway-transmit", length: to_usize(transmit_len, align) },
            PartSpec { name: c"roceway-receive", length: to_usize(receive_len, align) },
        ];
        let mapping = Mapping::create_side_by_side(&specs, config.pages)?;
        mapping.seal()?;
        let receive_first = mapping.part_range(1).0 as u64;
        let base = mapping.addr();

        let granules = granule(mapping.len() as u64);
        let handles = [config.blocks, config.receive, LENT_MORE, LEASES_MAX, REGISTERED_HANDLES];
        let handles = handles.iter().map(|count| *count as usize).sum();
        let mut arena = Arena {
            base,
            leases: Leases::new(),
            registered: [const { None }; REGISTERED_MAX],
            lent: 0,
            lent_slots: 0,
            written: granule(block_first).min(granules),
            free: [FreeList { head: END_OF_LIST, count: 0 }; REFERENCE as usize],
            classes: [Class { held: NOT_A_SLOT, total: 0, len: 0 }; CLASSES as usize],
            last_chunk: granule(block_first).saturating_sub(CHUNK_LEN / GRANULE_LEN),
            state: vec![NOT_A_SLOT; granules as usize].into_boxed_slice(),
            scratch: (base + scratch_first, extra.scratch_len),
            private: (base + receive_first + receive_bytes, extra.private_len),
            home: Arc::new(Home::new(mapping, handles)),
            counters: ArenaCounters::default(),
        };
        arena.fill_class(SMALL, 0, (config.small, SMALL_LEN));
        arena.fill_class(CHUNK, chunk_first, (config.chunks, CHUNK_LEN));
        arena.fill_class(BLOCK, block_first, (config.blocks, config.block_len));
        arena.fill_class(RECEIVE, receive_first, (config.receive, config.receive_len));
        Ok(arena)
    }

    /// Bytes that an arena of this configuration maps, if ordinary pages are used.
    #[must_use]
    pub fn length_of(config: &ArenaConfig, extra: ArenaExtra) -> u64 {
        limits::length_of(config, extra)
    }

    /// Offset of a piece in the mapping, if it lies in one slot that has a reference.
    #[inline]
    fn locate(&self, slot: Slot, start: u32, len: u32) -> Option<usize> {
        range_in(*self.state.get(slot.0 as usize)?, slot, start, len)
    }

    /// The byte at an offset of the mapping.
    #[inline]
    fn at(&self, offset: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(usize_of(self.base) + offset)
    }

    /// As [`Arena::locate`], for a slot that the stack may write: neither what the NIC fills nor
    /// what an application does.
    #[inline]
    fn locate_written(&self, slot: Slot, start: u32, len: u32) -> Option<usize> {
        if slot.0 >= self.written {
            return None;
        }
        // SAFETY: `written` is not more than there are states, as `new` saw to.
        let state = unsafe { self.state.get_unchecked(slot.0 as usize) };
        range_in(*state, slot, start, len)
    }

    /// The address of a range that lies in one slot with a reference, else `None`.
    #[must_use]
    #[inline]
    pub fn addr_of(&self, slot: Slot, start: u32, len: u32) -> Option<u64> {
        match self.locate(slot, start, len) {
            Some(offset) => Some(self.base + offset as u64),
            None => self.leased_addr(slot, start, len),
        }
    }

    /// Writes `header` into the 12 bytes before `start`, and returns the address of the header if
    /// it and the `len` bytes behind it lie in one slot with a reference.
    #[must_use]
    #[inline]
    pub fn put_before(
        &mut self,
        slot: Slot,
        start: u32,
        len: u32,
        header: [u8; 12],
    ) -> Option<u64> {
        if start < 12 {
            return None;
        }
        let offset = self.locate_written(slot, start, len)? - 12;
        let first = self.at(offset);
        // SAFETY: 12 bytes of a held slot, in our own writable mapping; see `bytes_mut`.
        unsafe { first.cast::<[u8; 12]>().write_unaligned(header) };
        Some(self.base + offset as u64)
    }

    /// The address of a slot's first byte.
    #[must_use]
    #[inline]
    pub fn addr(&self, slot: Slot) -> u64 {
        self.base + u64::from(slot.0) * u64::from(GRANULE_LEN)
    }

    /// The address of a posted slot's first byte.
    #[must_use]
    #[inline]
    pub fn posted_addr(&self, posted: &PostedSlot) -> u64 {
        self.base + u64::from(posted.0.get()) * u64::from(GRANULE_LEN)
    }

    /// Bytes of a slot.
    ///
    /// # Panics
    /// If the range leaves the slot, or the slot is free.
    #[must_use]
    #[inline]
    pub fn bytes(&self, slot: Slot, start: u32, len: u32) -> &[u8] {
        let first = match self.locate(slot, start, len) {
            Some(offset) => self.at(offset),
            None => self.leased(slot, start, len),
        };
        // SAFETY: the slot is held and not posted: the NIC does not write it, and Rust code
        // writes it through `&mut self` only; or it is an application's that is being sent, which
        // nobody writes. It stays mapped while `self` lives.
        unsafe { std::slice::from_raw_parts(first, len as usize) }
    }

    /// Bytes of a slot, to be written by a holder who knows that nobody reads them.
    ///
    /// # Panics
    /// If the range leaves the slot, or the slot is free.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self, slot: Slot, start: u32, len: u32) -> &mut [u8] {
        let offset = self.locate_written(slot, start, len).expect("the range lies in a held slot");
        let first = self.at(offset);
        // SAFETY: as in `bytes`; `&mut self` makes this the only Rust reference, for what is lent
        // to applications lies elsewhere. A NIC or peer
        // that still reads the bytes sees old or new ones, which the holder answers for.
        unsafe { std::slice::from_raw_parts_mut(first, len as usize) }
    }

    /// The bytes of a piece.
    ///
    /// # Panics
    /// As [`Arena::bytes`].
    #[must_use]
    #[inline]
    pub fn piece(&self, piece: Piece) -> &[u8] {
        self.bytes(piece.slot, piece.start, piece.len)
    }

    /// Length of a slot; 0 if it has no reference.
    #[must_use]
    #[inline]
    pub fn slot_len(&self, slot: Slot) -> u32 {
        let limit = self.state.get(slot.0 as usize).map_or(0, |state| state.limit);
        u32::try_from(limit).unwrap_or(0).saturating_sub(1)
    }

    /// Free receive slots.
    #[must_use]
    #[inline]
    pub fn free_receive(&self) -> u32 {
        self.free[RECEIVE].count
    }

    /// Free transmit slots of a class.
    #[must_use]
    pub fn free(&self, class: SlotClass) -> u32 {
        match class {
            SlotClass::Small => self.free[SMALL].count,
            SlotClass::Chunk => self.free[CHUNK].count,
        }
    }

    /// Receive slots in all.
    #[must_use]
    pub fn total_receive(&self) -> u32 {
        self.classes[RECEIVE].total
    }

    /// Bytes in a receive slot.
    #[must_use]
    pub fn receive_len(&self) -> u32 {
        self.classes[RECEIVE].len
    }

    /// The transmit memory, for registration.
    #[must_use]
    pub fn transmit_region(&self) -> RegionView {
        self.region(0, false)
    }

    /// The receive memory, for registration.
    #[must_use]
    pub fn receive_region(&self) -> RegionView {
        self.region(1, true)
    }

    fn region(&self, part: usize, writable: bool) -> RegionView {
        let (offset, length) = self.home.mapping.part_range(part);
        RegionView {
            addr: self.base + offset as u64,
            length: length as u64,
            memfd: Some((self.home.mapping.memfd(part).as_raw_fd(), 0)),
            writable,
        }
    }

    /// Address and length of the scratch, in transmit memory.
    #[must_use]
    pub fn scratch(&self) -> (u64, u32) {
        self.scratch
    }

    /// Address and length of the private part, in receive memory.
    #[must_use]
    pub fn private(&self) -> (u64, u32) {
        self.private
    }

    /// Whether huge pages were wished for and had.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.home.mapping.has_huge_pages()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> ArenaCounters {
        self.counters
    }

    /// Slots with references that no application holds, by class: small, chunks, receive, blocks.
    #[must_use]
    pub fn held(&self) -> [u32; CLASSES as usize] {
        let held = |kind: usize| self.classes[kind].total - self.free[kind].count;
        [held(SMALL), held(CHUNK), held(RECEIVE), held(BLOCK)]
    }
}

/// Offset of a range in the mapping, if it lies in its slot and that has a reference.
#[inline(always)]
fn range_in(state: State, slot: Slot, start: u32, len: u32) -> Option<usize> {
    let end = i64::from(start) + i64::from(len);
    if end >= i64::from(state.limit) {
        return None;
    }
    Some(slot.0 as usize * GRANULE_LEN as usize + start as usize)
}

/// An address as an index.
#[inline]
fn usize_of(addr: u64) -> usize {
    const { assert!(usize::BITS == 64) };
    usize::try_from(addr).unwrap_or(0)
}

/// `offset` in granules; arenas are short enough that it fits.
fn granule(offset: u64) -> u32 {
    u32::try_from(offset / u64::from(GRANULE_LEN)).unwrap_or(u32::MAX)
}

fn to_usize(length: u64, align: u64) -> usize {
    usize::try_from(length.next_multiple_of(align)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
