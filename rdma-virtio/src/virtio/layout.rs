//! How a split virtqueue lies in memory (virtio 1.2 §2.7): descriptor table, available ring with
//! `used_event`, used ring with `avail_event`.
//!
//! Owns the arithmetic and the word accesses; orders nothing and decides nothing. Invariant: every
//! index is reduced modulo the queue size before it is used, so that no value read from the
//! memory leads outside of it. All words are little-endian.

use std::ptr::NonNull;

use crate::barrier::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The chain goes on in the descriptor `next` (`VIRTQ_DESC_F_NEXT`).
pub const DESC_NEXT: u16 = 1;
/// The device writes the buffer (`VIRTQ_DESC_F_WRITE`).
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors (`VIRTQ_DESC_F_INDIRECT`).
pub const DESC_INDIRECT: u16 = 4;
/// Bytes of a descriptor.
pub const DESC_LEN: u32 = 16;

/// Smallest queue that is worth having.
pub const QUEUE_SIZE_MIN: u16 = 16;
/// Largest queue here; virtio allows 32,768.
pub const QUEUE_SIZE_MAX: u16 = 4096;

/// A descriptor, as it stands in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// Address of the buffer.
    pub addr: u64,
    /// Its length.
    pub len: u32,
    /// [`DESC_NEXT`], [`DESC_WRITE`], [`DESC_INDIRECT`].
    pub flags: u16,
    /// The next descriptor of the chain.
    pub next: u16,
}

impl Descriptor {
    /// The two words of a descriptor.
    #[inline]
    pub(crate) fn to_words(self) -> [u64; 2] {
        let second = u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48;
        [self.addr.to_le(), second.to_le()]
    }

    /// The descriptor of two words.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub(crate) fn from_words(words: [u64; 2]) -> Descriptor {
        let second = u64::from_le(words[1]);
        Descriptor {
            addr: u64::from_le(words[0]),
            len: second as u32,
            flags: (second >> 32) as u16,
            next: (second >> 48) as u16,
        }
    }
}

/// Offsets of the three parts of a queue, and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLayout {
    /// Offset of the available ring; the descriptor table is at 0.
    pub available: u32,
    /// Offset of the used ring.
    pub used: u32,
    /// Bytes of all of it, a multiple of 64.
    pub length: u32,
}

impl QueueLayout {
    /// The layout of a queue of `size` entries.
    #[must_use]
    pub fn of(size: u16) -> QueueLayout {
        let size = u32::from(size);
        let available = DESC_LEN * size;
        // Each ring begins a cache line, so that its index never shares one with the other side's.
        let used = (available + 2 * (3 + size)).next_multiple_of(64);
        let length = (used + 2 * 3 + 8 * size).next_multiple_of(64);
        QueueLayout { available, used, length }
    }
}

/// The memory of one queue, seen by one half.
#[derive(Clone, Debug)]
pub struct QueueMemory {
    descriptors: NonNull<AtomicU64>,
    /// flags, idx, ring, `used_event`.
    available: NonNull<AtomicU16>,
    /// flags, idx.
    used: NonNull<AtomicU16>,
    /// id and len of each element.
    used_ring: NonNull<AtomicU32>,
    avail_event: NonNull<AtomicU16>,
    size: u16,
}

// SAFETY: the words are atomics; who may write which is the protocol of the two halves.
unsafe impl Send for QueueMemory {}

/// The word at a place.
///
/// # Safety
/// The place lies in the memory that `first` begins, which stays mapped for `'a`.
#[inline]
unsafe fn word<'a, T>(first: NonNull<T>, at: usize) -> &'a T {
    // SAFETY: the caller's promise.
    let place = unsafe { first.add(at) };
    // SAFETY: the caller's promise; the words are atomics, so sharing them is sound.
    unsafe { place.as_ref() }
}

/// The size of a queue must be a power of two within bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a queue of {0} entries: choose a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}")]
pub struct QueueSizeError(pub u16);

/// Whether a queue may have this size.
///
/// # Errors
/// If it may not.
pub fn check_queue_size(size: u16) -> Result<(), QueueSizeError> {
    if size.is_power_of_two() && (QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&size) {
        Ok(())
    } else {
        Err(QueueSizeError(size))
    }
}

impl QueueMemory {
    /// The queue that lies at `base` as [`QueueLayout::of`] has it.
    ///
    /// # Safety
    /// `base` is aligned to 64 and [`QueueLayout::length`] bytes from it stay mapped and are
    /// touched only as a virtqueue, by two halves at most, while this value or a clone lives.
    ///
    /// # Errors
    /// If the size is not a legal one.
    #[cfg(not(loom))]
    pub unsafe fn at(base: NonNull<u8>, size: u16) -> Result<QueueMemory, QueueSizeError> {
        check_queue_size(size)?;
        let layout = QueueLayout::of(size);
        let place = |offset: u32| {
            // SAFETY: the offset lies within the queue's length.
            unsafe { base.byte_add(offset as usize) }
        };
        Ok(QueueMemory {
            descriptors: base.cast(),
            available: place(layout.available).cast(),
            used: place(layout.used).cast(),
            used_ring: place(layout.used + 4).cast(),
            avail_event: place(layout.used + 4 + 8 * u32::from(size)).cast(),
            size,
        })
    }

    /// Number of entries.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Reads a descriptor, its index taken modulo the size.
    #[must_use]
    #[inline]
    pub fn descriptor(&self, index: u16) -> Descriptor {
        let at = 2 * self.slot(index);
        // SAFETY: `at + 1` is below twice the size, which is how many words the table has.
        let first = unsafe { word(self.descriptors, at) };
        // SAFETY: as above.
        let second = unsafe { word(self.descriptors, at + 1) };
        Descriptor::from_words([first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)])
    }

    /// Writes a descriptor, its index taken modulo the size.
    #[inline]
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let at = 2 * self.slot(index);
        let [low, high] = descriptor.to_words();
        // SAFETY: `at + 1` is below twice the size, which is how many words the table has.
        let first = unsafe { word(self.descriptors, at) };
        // SAFETY: as above.
        let second = unsafe { word(self.descriptors, at + 1) };
        first.store(low, Ordering::Relaxed);
        second.store(high, Ordering::Relaxed);
    }

    /// A word of the available ring: 0 flags, 1 idx, then the entries, then `used_event`.
    #[inline]
    fn available_word(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at < usize::from(self.size) + 3);
        // SAFETY: every caller passes less than size + 3, which is how many words there are.
        unsafe { word(self.available, at) }
    }

    /// The driver's flags.
    #[inline]
    pub(crate) fn available_flags(&self) -> &AtomicU16 {
        self.available_word(0)
    }

    /// The driver's index.
    #[inline]
    pub(crate) fn available_index(&self) -> &AtomicU16 {
        self.available_word(1)
    }

    /// An entry of the available ring, its index taken modulo the size.
    #[inline]
    pub(crate) fn available_entry(&self, index: u16) -> &AtomicU16 {
        self.available_word(2 + self.slot(index))
    }

    /// The used index after which the driver wants to hear.
    #[inline]
    pub(crate) fn used_event(&self) -> &AtomicU16 {
        self.available_word(2 + usize::from(self.size))
    }

    /// The device's flags.
    #[inline]
    pub(crate) fn used_flags(&self) -> &AtomicU16 {
        // SAFETY: the first word of the used ring.
        unsafe { self.used.as_ref() }
    }

    /// The device's index.
    #[inline]
    pub(crate) fn used_index(&self) -> &AtomicU16 {
        // SAFETY: the second word of the used ring.
        unsafe { word(self.used, 1) }
    }

    /// Id and length of an element of the used ring, its index taken modulo the size.
    #[inline]
    pub(crate) fn used_element(&self, index: u16) -> (&AtomicU32, &AtomicU32) {
        let at = 2 * self.slot(index);
        // SAFETY: `at + 1` is below twice the size, which is how many words the ring has.
        let id = unsafe { word(self.used_ring, at) };
        // SAFETY: as above.
        let len = unsafe { word(self.used_ring, at + 1) };
        (id, len)
    }

    /// The available index after which the device wants to hear.
    #[inline]
    pub(crate) fn avail_event(&self) -> &AtomicU16 {
        // SAFETY: the last word of the used ring.
        unsafe { self.avail_event.as_ref() }
    }
}

/// Memory for a queue outside of an arena: for tests, and under the model checker, whose atomics
/// are larger than the words they stand for.
#[derive(Debug)]
pub struct OwnQueue {
    #[cfg(not(loom))]
    words: Box<[u128]>,
    #[cfg(loom)]
    parts: loomed::Parts,
    size: u16,
}

#[cfg(not(loom))]
impl OwnQueue {
    /// A zeroed queue.
    ///
    /// # Errors
    /// If the size is not a legal one.
    pub fn new(size: u16) -> Result<OwnQueue, QueueSizeError> {
        check_queue_size(size)?;
        let words = QueueLayout::of(size).length as usize / 16;
        Ok(OwnQueue { words: vec![0_u128; words + 4].into_boxed_slice(), size })
    }

    /// The queue as one half sees it.
    ///
    /// # Safety
    /// The result, and every clone, is dropped before `self`.
    ///
    /// # Panics
    /// Never: the size was checked.
    #[must_use]
    pub unsafe fn memory(&mut self) -> QueueMemory {
        let first = self.words.as_mut_ptr().cast::<u8>();
        let skip = first.align_offset(64);
        let base = NonNull::new(first.wrapping_add(skip)).expect("a box is not at 0");
        // SAFETY: aligned, and four words longer than the layout; the caller keeps it alive.
        unsafe { QueueMemory::at(base, self.size) }.expect("the size was checked")
    }
}

#[cfg(loom)]
mod loomed {
    //! The same queue out of loom's atomics.
    use super::*;

    #[derive(Debug)]
    pub(super) struct Parts {
        descriptors: Box<[AtomicU64]>,
        available: Box<[AtomicU16]>,
        used: Box<[AtomicU16]>,
        used_ring: Box<[AtomicU32]>,
        avail_event: Box<AtomicU16>,
    }

    impl OwnQueue {
        /// A zeroed queue; any power of two, since small ones are what a model checker can do.
        pub fn new(size: u16) -> Result<OwnQueue, QueueSizeError> {
            let n = usize::from(size);
            let parts = Parts {
                descriptors: (0..2 * n).map(|_| AtomicU64::new(0)).collect(),
                available: (0..n + 3).map(|_| AtomicU16::new(0)).collect(),
                used: (0..2).map(|_| AtomicU16::new(0)).collect(),
                used_ring: (0..2 * n).map(|_| AtomicU32::new(0)).collect(),
                avail_event: Box::new(AtomicU16::new(0)),
            };
            Ok(OwnQueue { parts, size })
        }

        /// The queue as one half sees it.
        ///
        /// # Safety
        /// The result, and every clone, is dropped before `self`.
        pub unsafe fn memory(&mut self) -> QueueMemory {
            QueueMemory {
                descriptors: NonNull::from(&self.parts.descriptors[0]),
                available: NonNull::from(&self.parts.available[0]),
                used: NonNull::from(&self.parts.used[0]),
                used_ring: NonNull::from(&self.parts.used_ring[0]),
                avail_event: NonNull::from(&*self.parts.avail_event),
                size: self.size,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_apart_and_aligned_virtio_2_7() {
        for size in [16, 256, 4096] {
            let layout = QueueLayout::of(size);
            let n = u32::from(size);
            assert_eq!(layout.available, 16 * n);
            assert!(layout.used >= layout.available + 6 + 2 * n);
            assert!(layout.used.is_multiple_of(4) && layout.length >= layout.used + 6 + 8 * n);
        }
        for bad in [0, 1, 8, 100, 8192] {
            assert_eq!(check_queue_size(bad), Err(QueueSizeError(bad)));
        }
    }

    #[test]
    fn descriptors_survive_the_table() {
        let descriptor = Descriptor { addr: 0x0123_4567_89AB_CDEF, len: 77, flags: 3, next: 9 };
        assert_eq!(Descriptor::from_words(descriptor.to_words()), descriptor);
    }
}
