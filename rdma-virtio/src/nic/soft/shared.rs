//! Views of link memory: a ring of slots and single words, as atomics only.
//!
//! Never hands out a plain reference: someone else may write at any time (peer's memory) or read
//! (own memory). A view keeps its mapping alive. While there is no peer, views show constant
//! zeroes, in which no message is ever found, so that the hot path needs no "is there a link".

use std::hint::cold_path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::layout::{INLINE_MAX, RING_OFFSET, SLOT_HEADER_LEN, SLOT_LEN};
use crate::memory::mapping::Mapping;

/// A mapping that several parts of one NIC hold.
#[derive(Debug)]
pub(super) struct SharedMemory(pub(super) Mapping);

// SAFETY: a mapping's shared methods return addresses, lengths and descriptors only, which never
// change; its bytes are reached through raw pointers and atomics, whose users uphold exclusion.
unsafe impl Sync for SharedMemory {}

/// Words of a slot.
pub(super) const SLOT_WORDS: usize = SLOT_LEN / 8;

/// A slot: sequence, description, and 14 words of message or elements.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Slot(pub(super) [AtomicU64; SLOT_WORDS]);

static IDLE_SLOT: Slot = Slot([const { AtomicU64::new(0) }; SLOT_WORDS]);

impl Slot {
    /// The sequence word.
    #[inline]
    pub(super) fn sequence(&self) -> &AtomicU64 {
        &self.0[0]
    }

    /// The description word.
    #[inline]
    pub(super) fn description(&self) -> &AtomicU64 {
        &self.0[1]
    }

    /// The word of the element with this number within the slot; below 14.
    #[inline]
    pub(super) fn element(&self, number: usize) -> &AtomicU64 {
        &self.0[SLOT_HEADER_LEN / 8 + number]
    }

    /// The words of all its elements.
    #[inline]
    pub(super) fn elements(&self) -> &[AtomicU64] {
        &self.0[SLOT_HEADER_LEN / 8..]
    }

    /// First byte of a message that lies in the slot; 112 bytes may be accessed by raw copies.
    #[inline]
    pub(super) fn message(&self) -> *mut u8 {
        let words = self.0.as_ptr().cast_mut().cast::<u8>();
        words.wrapping_add(SLOT_HEADER_LEN)
    }
}

/// A ring of slots.
#[derive(Debug)]
pub(super) struct Ring {
    slots: NonNull<Slot>,
    mask: u64,
    /// Keeps the slots mapped; none for the ring without a peer.
    _memory: Option<Arc<SharedMemory>>,
}

// SAFETY: a ring is an address and the mapping that it lies in, both free to change threads.
unsafe impl Send for Ring {}

impl Ring {
    /// The ring without a peer: one slot that never holds a message.
    pub(super) fn idle() -> Ring {
        Ring { slots: NonNull::from(&IDLE_SLOT), mask: 0, _memory: None }
    }

    /// The ring in link memory; `None` if it does not fit in there.
    pub(super) fn in_link(memory: &Arc<SharedMemory>, slots: u32) -> Option<Ring> {
        let count = usize::try_from(slots).ok()?;
        let end = RING_OFFSET.checked_add(count.checked_mul(SLOT_LEN)?)?;
        if !count.is_power_of_two() || memory.0.len() < end {
            return None;
        }
        let first = memory.0.as_ptr().wrapping_add(RING_OFFSET).cast_mut().cast::<Slot>();
        debug_assert!(first.is_aligned());
        Some(Ring {
            slots: NonNull::new(first)?,
            mask: u64::from(slots) - 1,
            _memory: Some(Arc::clone(memory)),
        })
    }

    /// The slot at a position.
    #[inline]
    pub(super) fn slot(&self, position: u64) -> &Slot {
        let index = usize::try_from(position & self.mask).unwrap_or(0);
        // SAFETY: `index` is below the number of slots, which `in_link` checked to lie in the
        // mapping (aligned to its pages) that this ring keeps alive.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: as above; atomics allow for whoever else writes there.
        unsafe { slot.as_ref() }
    }

    /// Number of slots.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.mask + 1
    }
}

/// A place in a ring that moves forward, and the slot there.
#[derive(Debug)]
pub(super) struct Cursor {
    ring: Ring,
    position: u64,
    /// The slot at `position`, looked up when it moved: whoever waits there looks at once.
    slot: NonNull<Slot>,
}

// SAFETY: as for `Ring`.
unsafe impl Send for Cursor {}

impl Cursor {
    /// At the beginning of a ring.
    pub(super) fn new(ring: Ring) -> Cursor {
        let slot = NonNull::from(ring.slot(0));
        Cursor { ring, position: 0, slot }
    }

    /// The ring.
    #[inline]
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// How many slots lie behind.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The slot here.
    #[inline]
    pub(super) fn slot(&self) -> &Slot {
        // SAFETY: it was given out by `ring`, which is part of this value.
        unsafe { self.slot.as_ref() }
    }

    /// Moves on by so many slots.
    #[inline]
    pub(super) fn advance(&mut self, slots: u64) {
        self.position += slots;
        self.slot = NonNull::from(self.ring.slot(self.position));
    }
}

/// Copies a message of at most 112 bytes to or from a slot: in whole vectors, whose last one
/// overlaps, rather than by a call. Most are between 64 and 112 bytes long.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
pub(super) unsafe fn copy_short(from: *const u8, to: *mut u8, length: u32) {
    let length = usize::try_from(length).unwrap_or(0);
    if !(64..=INLINE_MAX).contains(&length) {
        cold_path();
        // SAFETY: as the caller promised.
        unsafe { std::ptr::copy_nonoverlapping(from, to, length) };
        return;
    }
    let last = length - (INLINE_MAX - 64);
    // SAFETY: as the caller promised; these are the first 64 of at least as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(from, to, 64) };
    let (from, to) = (from.wrapping_add(last), to.wrapping_add(last));
    // SAFETY: as the caller promised; these are the last 48 of at least as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(from, to, INLINE_MAX - 64) };
}

/// One word of link memory on a line of its own.
#[derive(Debug)]
pub(super) struct SharedWord {
    word: NonNull<AtomicU64>,
    /// Keeps the word mapped.
    _memory: Option<Arc<SharedMemory>>,
}

// SAFETY: as for `Ring`.
unsafe impl Send for SharedWord {}

static IDLE_WORD: AtomicU64 = AtomicU64::new(0);

impl SharedWord {
    /// A word that is 0 and that nobody writes.
    pub(super) fn idle() -> SharedWord {
        SharedWord { word: NonNull::from(&IDLE_WORD), _memory: None }
    }

    /// The word at an offset below [`RING_OFFSET`], a multiple of 8; `None` if the memory is
    /// too short.
    pub(super) fn in_link(memory: &Arc<SharedMemory>, offset: usize) -> Option<SharedWord> {
        if offset >= RING_OFFSET || !offset.is_multiple_of(8) || memory.0.len() < RING_OFFSET {
            return None;
        }
        let word = memory.0.as_ptr().wrapping_add(offset).cast_mut().cast::<AtomicU64>();
        Some(SharedWord { word: NonNull::new(word)?, _memory: Some(Arc::clone(memory)) })
    }

    /// The word.
    #[inline]
    pub(super) fn get(&self) -> &AtomicU64 {
        // SAFETY: `in_link` checked that the aligned word lies in the mapping, which this value
        // keeps alive; or it is the static one.
        unsafe { self.word.as_ref() }
    }

    /// Whether it belongs to a link: the idle word must not be written.
    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self._memory.is_some()
    }
}
