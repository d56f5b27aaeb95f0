//! Sends under way of buffers that the application filled.
//!
//! A send is a slot to the stack and to the driver: they retain and release it by its number, which
//! is beyond those of granules, and it names a range of a [`Buffer`]. When the last reference is
//! gone, the peer has acknowledged all of it and the NIC has completed every transmission: then the
//! buffer comes back with the application's cookie. Invariants: a send has references, or waits to
//! be taken, or is free; a cookie names at most one send that is not free; all is allocated at
//! start.

use super::buffer::Buffer;
use super::slot::{LEASE_FIRST, Slot};

/// Sends under way at once, those included whose end nobody has asked for.
pub const LEASES_MAX: u32 = 1024;
/// Lists of sends by their cookie.
const BUCKETS: usize = 2048;
/// The number of no send.
const NONE: u32 = u32::MAX;

/// How a send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The peer has acknowledged every byte.
    Acknowledged,
    /// The connection ended before that: the peer may have received any part of it.
    Dropped,
}

/// A send that has ended.
#[derive(Debug)]
pub struct Sent {
    /// What the application called it.
    pub cookie: u64,
    /// The buffer.
    pub buffer: Buffer,
    /// Whether it was acknowledged.
    pub outcome: SendOutcome,
}

/// Why a buffer was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaseError {
    /// [`LEASES_MAX`] are under way, or nobody has asked for those that ended.
    #[error("{LEASES_MAX} sends are under way: take those that have ended")]
    Exhausted,
    /// The cookie names a send that is under way, or whose end nobody has asked for.
    #[error("the cookie names another send that has not come back")]
    CookieInUse,
    /// The range is empty or leaves the buffer.
    #[error("the range is empty or leaves the buffer")]
    BadRange,
    /// The buffer is another worker's.
    #[error("the buffer belongs to another worker")]
    Foreign,
}

#[derive(Debug)]
struct Lease {
    addr: u64,
    len: u32,
    references: u32,
    /// Without one nobody asks for its end.
    cookie: Option<u64>,
    /// The next free one, or the next that has ended.
    next: u32,
    /// The next one in its list of cookies.
    alike: u32,
    outcome: SendOutcome,
    buffer: Option<Buffer>,
}

/// Events, each counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaseCounters {
    /// Buffers taken to be sent.
    pub taken: u64,
    /// Of these, ended and acknowledged.
    pub acknowledged: u64,
    /// Of these, ended with their connection.
    pub dropped: u64,
    /// Buffers refused: as many were under way as there may be.
    pub exhausted: u64,
    /// Buffers refused: the cookie was in use, the range was none, or the buffer another worker's.
    pub refused: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Leases {
    table: Box<[Lease]>,
    buckets: Box<[u32]>,
    free: u32,
    /// First and last of those that have ended.
    ended: u32,
    ended_last: u32,
    pub(super) counters: LeaseCounters,
}

impl Leases {
    pub(super) fn new() -> Leases {
        let lease = |next| Lease {
            addr: 0,
            len: 0,
            references: 0,
            cookie: None,
            next,
            alike: NONE,
            outcome: SendOutcome::Acknowledged,
            buffer: None,
        };
        let next = (1..LEASES_MAX).chain([NONE]);
        Leases {
            table: next.map(lease).collect(),
            buckets: vec![NONE; BUCKETS].into_boxed_slice(),
            free: 0,
            ended: NONE,
            ended_last: NONE,
            counters: LeaseCounters::default(),
        }
    }

    /// Takes a range of a buffer to be sent, with one reference.
    pub(super) fn open(
        &mut self,
        buffer: &Buffer,
        (start, len): (usize, usize),
        cookie: Option<u64>,
    ) -> Result<Slot, LeaseError> {
        let fits = start.checked_add(len).is_some_and(|end| end <= buffer.len());
        let (true, Ok(len @ 1..)) = (fits, u32::try_from(len)) else {
            self.counters.refused += 1;
            return Err(LeaseError::BadRange);
        };
        if cookie.is_some_and(|cookie| self.find(cookie).is_some()) {
            self.counters.refused += 1;
            return Err(LeaseError::CookieInUse);
        }
        let index = self.free;
        let Some(lease) = self.table.get_mut(index as usize) else {
            self.counters.exhausted += 1;
            return Err(LeaseError::Exhausted);
        };
        self.free = lease.next;
        *lease = Lease {
            addr: buffer.addr() + start as u64,
            len,
            references: 1,
            cookie,
            next: NONE,
            alike: NONE,
            outcome: SendOutcome::Acknowledged,
            buffer: Some(buffer.clone()),
        };
        if let Some(cookie) = cookie {
            let first = &mut self.buckets[bucket_of(cookie)];
            lease.alike = std::mem::replace(first, index);
        }
        self.counters.taken += 1;
        Ok(Slot(LEASE_FIRST + index))
    }

    /// Takes a send back that has one reference and that nobody has used.
    pub(super) fn cancel(&mut self, slot: Slot) {
        let Some(lease) = self.get_mut(slot) else { return };
        lease.references = 0;
        self.forget(slot.0 - LEASE_FIRST);
        self.counters.taken -= 1;
    }

    /// Makes the place of a send free again; what it held.
    fn forget(&mut self, index: u32) -> Option<Buffer> {
        let free = self.free;
        let lease = self.table.get_mut(index as usize)?;
        lease.next = free;
        self.free = index;
        let (cookie, buffer) = (lease.cookie, lease.buffer.take());
        if let Some(cookie) = cookie {
            self.forget_cookie(index, cookie);
        }
        buffer
    }

    fn find(&self, cookie: u64) -> Option<u32> {
        let mut at = self.buckets[bucket_of(cookie)];
        while let Some(lease) = self.table.get(at as usize) {
            if lease.cookie == Some(cookie) {
                return Some(at);
            }
            at = lease.alike;
        }
        None
    }

    /// The send that a slot names, if it has references.
    fn get(&self, slot: Slot) -> Option<&Lease> {
        let index = slot.0.checked_sub(LEASE_FIRST)?;
        self.table.get(index as usize).filter(|lease| lease.references > 0)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Lease> {
        let index = slot.0.checked_sub(LEASE_FIRST)?;
        self.table.get_mut(index as usize).filter(|lease| lease.references > 0)
    }

    /// The address of a range, if it lies in the send's.
    pub(super) fn addr(&self, slot: Slot, start: u32, len: u32) -> Option<u64> {
        let lease = self.get(slot)?;
        let end = u64::from(start) + u64::from(len);
        (end <= u64::from(lease.len)).then(|| lease.addr + u64::from(start))
    }

    /// Adds a reference; false if the slot names no send.
    pub(super) fn retain(&mut self, slot: Slot) -> bool {
        let Some(lease) = self.get_mut(slot) else { return false };
        lease.references = lease.references.saturating_add(1);
        true
    }

    /// Gives a reference back; false if the slot names no send.
    pub(super) fn release(&mut self, slot: Slot) -> bool {
        let Some(lease) = self.get_mut(slot) else { return false };
        lease.references -= 1;
        if lease.references == 0 {
            match lease.outcome {
                SendOutcome::Acknowledged => self.counters.acknowledged += 1,
                SendOutcome::Dropped => self.counters.dropped += 1,
            }
            self.end(slot.0 - LEASE_FIRST);
        }
        true
    }

    /// The connection ended before the peer has acknowledged it.
    pub(super) fn mark_dropped(&mut self, slot: Slot) {
        if let Some(lease) = self.get_mut(slot) {
            lease.outcome = SendOutcome::Dropped;
        }
    }

    pub(super) fn is_shared(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|lease| lease.references > 1)
    }

    /// Behind those that have ended already.
    fn end(&mut self, index: u32) {
        if self.table.get(index as usize).is_some_and(|lease| lease.cookie.is_none()) {
            self.forget(index);
            return;
        }
        match self.table.get_mut(self.ended_last as usize) {
            Some(last) if self.ended != NONE => last.next = index,
            _ => self.ended = index,
        }
        self.ended_last = index;
        if let Some(lease) = self.table.get_mut(index as usize) {
            lease.next = NONE;
        }
    }

    /// Whether any has ended and was not asked for.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended != NONE
    }

    /// The next one that has ended.
    pub(super) fn take_ended(&mut self) -> Option<Sent> {
        let index = self.ended;
        let lease = self.table.get(index as usize)?;
        let (cookie, outcome) = (lease.cookie?, lease.outcome);
        self.ended = lease.next;
        let buffer = self.forget(index)?;
        Some(Sent { cookie, buffer, outcome })
    }

    fn forget_cookie(&mut self, index: u32, cookie: u64) {
        let after = self.table.get(index as usize).map_or(NONE, |lease| lease.alike);
        let first = &mut self.buckets[bucket_of(cookie)];
        if *first == index {
            *first = after;
            return;
        }
        let mut at = *first;
        while let Some(lease) = self.table.get_mut(at as usize) {
            if lease.alike == index {
                lease.alike = after;
                return;
            }
            at = lease.alike;
        }
    }
}

/// Cookies are often small numbers, or addresses: their bits are spread (Fibonacci hashing).
fn bucket_of(cookie: u64) -> usize {
    let spread = cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [.., a, b] = spread.to_le_bytes();
    usize::from(u16::from_le_bytes([a, b])) % BUCKETS
}
