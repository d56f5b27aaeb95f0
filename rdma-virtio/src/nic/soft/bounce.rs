//! The NIC's own transmit memory: frames that it cut or whose checksum it completed lie there
//! until the peer has pulled them.
//!
//! A cyclic area behind the ring in the link memory. Space is taken in order and given back in
//! order, when the peer's progress has passed the slots that named it. Only with `tso=on`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::layout::{BOUNCE_REGION, RING_OFFSET, SLOT_LEN};
use super::regions::Resolved;
use super::shared::SharedMemory;

/// Bytes of the area: sixteen frames of 64 KiB.
pub(super) const BOUNCE_LEN: usize = 1 << 20;

/// The area and what of it is in use.
#[derive(Debug, Default)]
pub(super) struct Bounce {
    memory: Option<Arc<SharedMemory>>,
    start: usize,
    /// Bytes taken and given back since the link came up, gaps at the end of the area included.
    taken: usize,
    freed: usize,
    /// Ring position behind the user, and `taken` behind it.
    users: VecDeque<(u64, usize)>,
    /// The frame that is worked on, whole.
    pub(super) frame: Vec<u8>,
    /// The segment that is worked on.
    pub(super) segment: Vec<u8>,
}

impl Bounce {
    /// Takes the area of a new link into use.
    pub(super) fn connect(&mut self, memory: &Arc<SharedMemory>, slots: u32) {
        self.disconnect();
        self.start = RING_OFFSET + usize::try_from(slots).unwrap_or(0) * SLOT_LEN;
        if memory.0.len() >= self.start + BOUNCE_LEN {
            self.memory = Some(Arc::clone(memory));
        }
    }

    /// Ends the link.
    pub(super) fn disconnect(&mut self) {
        self.memory = None;
        self.taken = 0;
        self.freed = 0;
        self.users.clear();
    }

    /// Gives back what the peer has pulled.
    pub(super) fn reclaim(&mut self, consumed: u64) {
        while let Some((position, taken)) = self.users.front().copied()
            && position <= consumed
        {
            self.users.pop_front();
            self.freed = taken;
        }
    }

    /// Whether `count` stretches of at most `each` bytes fit.
    pub(super) fn has_room(&self, count: usize, each: usize) -> bool {
        // One gap at the end of the area at most, since all of it together fits into the area.
        let wanted = count.saturating_mul(each).saturating_add(each);
        self.memory.is_some() && wanted <= BOUNCE_LEN - (self.taken - self.freed)
    }

    /// Copies the segment into the area, for which room was checked. `position` is the ring
    /// position behind the slot that will name it.
    pub(super) fn put(&mut self, position: u64) -> Option<Resolved> {
        let length = self.segment.len();
        let gap = BOUNCE_LEN - self.taken % BOUNCE_LEN;
        if gap < length {
            self.taken += gap;
        }
        let offset = self.taken % BOUNCE_LEN;
        self.taken += length;
        if self.taken - self.freed > BOUNCE_LEN {
            return None;
        }
        self.users.push_back((position, self.taken));
        let memory = self.memory.as_ref()?;
        let to = memory.0.as_mut_ptr().wrapping_add(self.start + offset);
        // SAFETY: `offset + length` is at most BOUNCE_LEN, which lies in the mapping as `connect`
        // checked; the peer has pulled what was there before, as `reclaim` knows.
        unsafe { std::ptr::copy_nonoverlapping(self.segment.as_ptr(), to, length) };
        Some(Resolved {
            addr: memory.0.addr() + u64::try_from(self.start + offset).ok()?,
            length: u32::try_from(length).ok()?,
            offset: u64::try_from(offset).ok()?,
            writable: false,
            export: Some(BOUNCE_REGION),
        })
    }
}
