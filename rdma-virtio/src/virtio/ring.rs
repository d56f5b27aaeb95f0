//! The two ends of a split virtqueue: indices, used and available entries, notifications.
//!
//! Each end keeps private copies of everything that it wrote and reads from the memory only what
//! the other end writes. Invariants: [`DriverRing`] hands out a descriptor id only once until it
//! came back, and [`DeviceRing`] takes no more heads than the queue has entries, whatever the
//! other end writes into the indices.

use std::marker::PhantomData;

use super::layout::{Descriptor, QueueMemory};
use crate::barrier::{self, Ordering};

/// Who has the other end of a ring.
pub trait Policy: Copy + Default + std::fmt::Debug + 'static {
    /// Whether another thread, process or machine has it: then indices are released and acquired,
    /// and notifications asked for and suppressed.
    const SHARED: bool;
}

/// One thread has both ends: no ordering, no notification.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameThread;

/// Someone else has the other end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared;

impl Policy for SameThread {
    const SHARED: bool = false;
}

impl Policy for Shared {
    const SHARED: bool = true;
}

const fn acquire<P: Policy>() -> Ordering {
    if P::SHARED { Ordering::Acquire } else { Ordering::Relaxed }
}

const fn release<P: Policy>() -> Ordering {
    if P::SHARED { Ordering::Release } else { Ordering::Relaxed }
}

/// Whether the other end must be told of what was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Notify {
    /// It asked to be told.
    Needed,
    /// It looks by itself.
    NotNeeded,
}

/// Whether it is safe to wait after asking to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Quiet {
    /// Nothing was there after the request: a notification will come.
    Quiet,
    /// Something is there already.
    Pending,
}

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const DO_NOT_NOTIFY: u16 = 1;

/// Whether an index moved past `event` on its way from `old` to `new` (virtio 1.2 §2.7.10.1).
#[inline]
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The other end broke the protocol so that the ring cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the other end of the ring moved its index by more than the queue holds")]
pub struct BrokenRing;

/// An entry that the device returned, as it stands in the ring: not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UsedElement {
    /// Head of the chain.
    pub id: u32,
    /// Bytes written into it.
    pub len: u32,
}

/// The driver's end.
#[derive(Debug)]
pub struct DriverRing<P: Policy> {
    memory: QueueMemory,
    event_index: bool,
    /// Next place in the available ring; published or not.
    available: u16,
    /// What the device may see of it.
    published: u16,
    /// Next place to look at in the used ring.
    last_used: u16,
    /// Links of the free list of descriptors; our own copy, never read back from the table.
    next: Box<[u16]>,
    free_head: u16,
    free: u16,
    policy: PhantomData<P>,
}

/// The free list, while descriptors are taken from it.
#[derive(Debug)]
pub(super) struct FreeDescriptors<'a> {
    next: &'a [u16],
    head: u16,
}

impl FreeDescriptors<'_> {
    /// Takes one.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<u16> {
        let id = self.head;
        // The list ends with a number beyond the table.
        self.head = *self.next.get(usize::from(id))?;
        Some(id)
    }
}

/// The free list, while descriptors are given back to it.
#[derive(Debug)]
pub(super) struct GivenDescriptors<'a> {
    next: &'a mut [u16],
    head: u16,
    count: u16,
}

impl GivenDescriptors<'_> {
    /// Gives one back, which is below the size of the queue.
    #[inline(always)]
    pub(super) fn give(&mut self, id: u16) {
        if let Some(next) = self.next.get_mut(usize::from(id)) {
            *next = self.head;
            self.head = id;
            self.count += 1;
        }
    }
}

impl<P: Policy> DriverRing<P> {
    /// The driver's end of a fresh queue; `event_index` if `VIRTIO_F_EVENT_IDX` was negotiated.
    #[must_use]
    pub fn new(memory: QueueMemory, event_index: bool) -> DriverRing<P> {
        let size = memory.size();
        DriverRing {
            event_index,
            available: 0,
            published: 0,
            last_used: 0,
            next: (1..=size).collect(),
            free_head: 0,
            free: size,
            memory,
            policy: PhantomData,
        }
    }

    /// Number of entries.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.memory.size()
    }

    /// Free descriptors.
    #[must_use]
    #[inline]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Takes a descriptor from the free list, the one freed last first.
    #[inline]
    pub fn take_descriptor(&mut self) -> Option<u16> {
        let id = self.free_head;
        // The list ends with a number beyond the table.
        self.free_head = *self.next.get(usize::from(id))?;
        self.free -= 1;
        Some(id)
    }

    /// Takes several descriptors from the free list: `body` takes them and returns how many.
    #[inline(always)]
    pub(super) fn take_descriptors(
        &mut self,
        body: impl FnOnce(&mut FreeDescriptors<'_>) -> u16,
    ) -> u16 {
        let next = &self.next[..usize::from(self.memory.size())];
        let mut free = FreeDescriptors { next, head: self.free_head };
        let taken = body(&mut free);
        self.free_head = free.head;
        self.free -= taken;
        taken
    }

    /// Gives a descriptor back to the free list.
    #[inline]
    pub fn give_descriptor(&mut self, id: u16) {
        let _given = self.give_descriptors(|free| free.give(id));
    }

    /// Gives several descriptors back to the free list, as `body` does; returns how many it gave.
    #[inline(always)]
    pub(super) fn give_descriptors(&mut self, body: impl FnOnce(&mut GivenDescriptors<'_>)) -> u16 {
        let next = &mut self.next[..usize::from(self.memory.size())];
        let mut given = GivenDescriptors { next, head: self.free_head, count: 0 };
        body(&mut given);
        let GivenDescriptors { head, count, .. } = given;
        self.free_head = head;
        self.free += count;
        count
    }

    /// Gives back a chain of `count` descriptors that were taken one after the other: they are
    /// still linked in the order in which they were taken.
    #[inline]
    pub fn give_chain(&mut self, head: u16, count: u16) {
        let mut last = head;
        for _ in 1..count {
            last = self.link(last);
        }
        if let Some(next) = self.next.get_mut(usize::from(last)) {
            *next = self.free_head;
            self.free_head = head;
            self.free += count;
        }
    }

    /// The descriptor that was taken after this one, for one of a chain.
    #[must_use]
    #[inline]
    pub fn link(&self, id: u16) -> u16 {
        self.next.get(usize::from(id)).copied().unwrap_or(0)
    }

    /// Writes a descriptor.
    #[inline]
    pub fn write(&mut self, id: u16, descriptor: Descriptor) {
        self.memory.set_descriptor(id, descriptor);
    }

    /// Puts a chain's head on the available ring; the device sees it after
    /// [`DriverRing::publish`].
    #[inline]
    pub fn push_available(&mut self, head: u16) {
        self.memory.available_entry(self.available).store(head.to_le(), Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
    }

    /// Lets the device see everything pushed so far.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.available);
        self.memory.available_index().store(new.to_le(), release::<P>());
        self.published = new;
        if !P::SHARED || old == new {
            return Notify::NotNeeded;
        }
        barrier::store_then_look();
        let needed = if self.event_index {
            let event = u16::from_le(self.memory.avail_event().load(Ordering::Relaxed));
            passed(event, new, old)
        } else {
            let flags = u16::from_le(self.memory.used_flags().load(Ordering::Relaxed));
            flags & DO_NOT_NOTIFY == 0
        };
        if needed { Notify::Needed } else { Notify::NotNeeded }
    }

    /// Whether the device returned something.
    #[must_use]
    #[inline]
    pub fn has_used(&self) -> bool {
        u16::from_le(self.memory.used_index().load(Ordering::Relaxed)) != self.last_used
    }

    /// The next entry that the device returned, unchecked.
    ///
    /// # Errors
    /// If the device's index is further ahead than the queue is long.
    #[inline]
    pub fn pop_used(&mut self) -> Result<Option<UsedElement>, BrokenRing> {
        let index = u16::from_le(self.memory.used_index().load(acquire::<P>()));
        let waiting = index.wrapping_sub(self.last_used);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.memory.size() {
            return Err(BrokenRing);
        }
        let (id, len) = self.memory.used_element(self.last_used);
        let element = UsedElement {
            id: u32::from_le(id.load(Ordering::Relaxed)),
            len: u32::from_le(len.load(Ordering::Relaxed)),
        };
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some(element))
    }

    /// Asks to be told of the next used entry, then looks once more (virtio 1.2 §2.7.14).
    pub fn enable_notifications(&mut self) -> Quiet {
        if self.event_index {
            self.memory.used_event().store(self.last_used.to_le(), Ordering::Relaxed);
        } else {
            self.memory.available_flags().store(0, Ordering::Relaxed);
        }
        barrier::store_then_look();
        if self.has_used() { Quiet::Pending } else { Quiet::Quiet }
    }

    /// Asks not to be told.
    pub fn disable_notifications(&mut self) {
        if self.event_index {
            let far = self.last_used.wrapping_sub(1);
            self.memory.used_event().store(far.to_le(), Ordering::Relaxed);
        } else {
            self.memory.available_flags().store(DO_NOT_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }
}

/// The device's end.
#[derive(Debug)]
pub struct DeviceRing<P: Policy> {
    memory: QueueMemory,
    event_index: bool,
    /// Next place to look at in the available ring.
    last_available: u16,
    /// The driver's index when it was last looked at.
    seen_available: u16,
    /// Next place in the used ring; published or not.
    used: u16,
    /// What the driver may see of it.
    published: u16,
    policy: PhantomData<P>,
}

impl<P: Policy> DeviceRing<P> {
    /// The device's end of a fresh queue; `event_index` if `VIRTIO_F_EVENT_IDX` was negotiated.
    #[must_use]
    pub fn new(memory: QueueMemory, event_index: bool) -> DeviceRing<P> {
        DeviceRing {
            memory,
            event_index,
            last_available: 0,
            seen_available: 0,
            used: 0,
            published: 0,
            policy: PhantomData,
        }
    }

    /// Number of entries.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u16 {
        self.memory.size()
    }

    /// Heads that wait, after looking at the driver's index.
    ///
    /// # Errors
    /// If the driver's index is further ahead than the queue is long.
    #[inline]
    pub fn waiting(&mut self) -> Result<u16, BrokenRing> {
        let index = u16::from_le(self.memory.available_index().load(acquire::<P>()));
        let waiting = index.wrapping_sub(self.last_available);
        if waiting > self.memory.size() {
            return Err(BrokenRing);
        }
        self.seen_available = index;
        Ok(waiting)
    }

    /// The head that waits `ahead` places further on, unchecked; meaningful for less than
    /// [`DeviceRing::waiting`].
    #[must_use]
    #[inline]
    pub fn peek(&self, ahead: u16) -> u16 {
        let entry = self.memory.available_entry(self.last_available.wrapping_add(ahead));
        u16::from_le(entry.load(Ordering::Relaxed))
    }

    /// Takes `count` heads off the available ring; at most those that were seen waiting.
    #[inline]
    pub fn consume(&mut self, count: u16) {
        let seen = self.seen_available.wrapping_sub(self.last_available);
        debug_assert!(count <= seen);
        self.last_available = self.last_available.wrapping_add(count.min(seen));
    }

    /// A copy of a descriptor; the index is taken modulo the size.
    #[must_use]
    #[inline]
    pub fn descriptor(&self, index: u16) -> Descriptor {
        self.memory.descriptor(index)
    }

    /// Puts a chain on the used ring; the driver sees it after [`DeviceRing::publish`].
    #[inline]
    pub fn push_used(&mut self, head: u16, len: u32) {
        let (id_word, len_word) = self.memory.used_element(self.used);
        id_word.store(u32::from(head).to_le(), Ordering::Relaxed);
        len_word.store(len.to_le(), Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
    }

    /// Lets the driver see everything pushed so far.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.used);
        self.memory.used_index().store(new.to_le(), release::<P>());
        self.published = new;
        if !P::SHARED || old == new {
            return Notify::NotNeeded;
        }
        barrier::store_then_look();
        let needed = if self.event_index {
            let event = u16::from_le(self.memory.used_event().load(Ordering::Relaxed));
            passed(event, new, old)
        } else {
            let flags = u16::from_le(self.memory.available_flags().load(Ordering::Relaxed));
            flags & DO_NOT_NOTIFY == 0
        };
        if needed { Notify::Needed } else { Notify::NotNeeded }
    }

    /// Asks to be told of the next available head, then looks once more (virtio 1.2 §2.7.22).
    pub fn enable_notifications(&mut self) -> Quiet {
        if self.event_index {
            self.memory.avail_event().store(self.last_available.to_le(), Ordering::Relaxed);
        } else {
            self.memory.used_flags().store(0, Ordering::Relaxed);
        }
        barrier::store_then_look();
        let index = u16::from_le(self.memory.available_index().load(Ordering::Relaxed));
        if index == self.last_available { Quiet::Quiet } else { Quiet::Pending }
    }

    /// Asks not to be told.
    pub fn disable_notifications(&mut self) {
        if self.event_index {
            let far = self.last_available.wrapping_sub(1);
            self.memory.avail_event().store(far.to_le(), Ordering::Relaxed);
        } else {
            self.memory.used_flags().store(DO_NOT_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "ring_tests.rs"]
mod tests;
