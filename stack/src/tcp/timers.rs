//! Deadlines: the few of one connection, and the wheel that holds one for each connection.
//!
//! Owns when something is due, never what is done about it. The wheel is hierarchical and hashed:
//! arming, disarming and firing are O(1), and a deadline that moves away costs one store, because
//! an entry stays where it is until it comes up, and is moved then. Since the retransmission
//! timer moves with each acknowledgement, that is the common case.
//!
//! Invariants of the wheel: an index has at most one entry, which lies in a slot at or before its
//! deadline; a deadline is never reported early; slots of level L > 0 hold only entries at least
//! one of that level's blocks ahead, or those of the block just begun, which are on their way down.

use alloc::vec::Vec;

#[cfg(test)]
use super::hot_lines::Place;
use crate::time::Instant;

/// What a connection waits for. The numbers are places in a [`TimerSet`]: those that the fast path
/// arms and disarms are neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The retransmission timeout (RFC 6298).
    Retransmit = 4,
    /// A zero-window probe (RFC 9293 §3.8.6.1).
    Persist = 0,
    /// A delayed acknowledgement (RFC 9293 §3.8.6.3).
    DelayedAck = 5,
    /// A keep-alive probe (RFC 9293 §3.8.4).
    KeepAlive = 1,
    /// The end of TIME-WAIT, or of a FIN-WAIT-2 that nobody will read from.
    TimeWait = 2,
    /// The user timeout (RFC 9293 §3.8.3).
    UserTimeout = 3,
}

impl Timer {
    /// All of them; of those that are due at once the first goes first.
    pub const ALL: [Timer; 6] = [
        Timer::Retransmit,
        Timer::Persist,
        Timer::DelayedAck,
        Timer::KeepAlive,
        Timer::TimeWait,
        Timer::UserTimeout,
    ];
}

/// The deadlines of one connection.
#[derive(Clone, Debug)]
pub struct TimerSet {
    deadlines: [Instant; Timer::ALL.len()],
}

#[cfg(test)]
impl TimerSet {
    /// What the fast path arms and disarms.
    pub(super) fn hot() -> Vec<Place> {
        let deadline = |timer: Timer| (size_of::<Instant>() * timer as usize, size_of::<Instant>());
        [Timer::Retransmit, Timer::DelayedAck].map(deadline).to_vec()
    }
}

impl TimerSet {
    /// No timer armed.
    #[must_use]
    pub const fn new() -> TimerSet {
        TimerSet { deadlines: [Instant::NEVER; Timer::ALL.len()] }
    }

    /// Arms `timer`, in place of what it was armed for.
    #[inline]
    pub fn arm(&mut self, timer: Timer, at: Instant) {
        self.deadlines[timer as usize] = at;
    }

    /// Disarms `timer`.
    #[inline]
    pub fn disarm(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = Instant::NEVER;
    }

    /// Disarms all.
    pub fn disarm_all(&mut self) {
        *self = TimerSet::new();
    }

    /// When `timer` expires, or [`Instant::NEVER`].
    #[must_use]
    #[inline]
    pub fn deadline(&self, timer: Timer) -> Instant {
        self.deadlines[timer as usize]
    }

    /// Whether `timer` is armed.
    #[must_use]
    #[inline]
    pub fn is_armed(&self, timer: Timer) -> bool {
        self.deadline(timer) != Instant::NEVER
    }

    /// The earliest deadline, or [`Instant::NEVER`].
    #[must_use]
    #[inline]
    pub fn earliest(&self) -> Instant {
        let [a, b, c, d, e, f] = self.deadlines;
        a.min(b).min(c.min(d)).min(e.min(f))
    }

    /// Disarms and returns one timer whose deadline is not after `now`, the earliest first.
    #[inline]
    pub fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let earliest = self.earliest();
        if earliest > now || earliest == Instant::NEVER {
            return None;
        }
        let timer = Timer::ALL.into_iter().find(|it| self.deadline(*it) == earliest)?;
        self.disarm(timer);
        Some(timer)
    }
}

impl Default for TimerSet {
    fn default() -> TimerSet {
        TimerSet::new()
    }
}

/// Nanoseconds of a tick as a power of two: 1.05 ms.
const TICK_BITS: u32 = 20;
/// Slots of a level as a power of two.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// 64^5 ticks are 13 days. What is further away waits in the last slot and is moved on from there.
const LEVELS: usize = 5;
/// The most ticks ahead that an entry can lie: 63 blocks of the last level.
const AHEAD_MAX: u64 = 63 << (6 * 4);
/// No index; no slot.
const NONE: u32 = u32::MAX;
/// Indices for which entries are made at a time.
const GROWTH: usize = 256;
/// Entries that one call of [`TimerWheel::pop_expired`] moves before it asks to be called again.
const MOVES_MAX: u32 = 256;

/// One index. 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When it is due; NEVER: not at all, though it may still lie in a slot.
    deadline: Instant,
    /// Low bits of the tick of its slot.
    tick: u32,
    next: u32,
    previous: u32,
    /// Its slot, counted over all levels; [`NONE`]: in none.
    slot: u32,
}

const IDLE: Entry =
    Entry { deadline: Instant::NEVER, tick: 0, next: NONE, previous: NONE, slot: NONE };

/// One deadline for each of many connections, which are named by small numbers.
#[derive(Debug)]
pub struct TimerWheel {
    /// All ticks before this one are done; that of this one may still have entries.
    current: u64,
    next_deadline: Instant,
    occupied: [u64; LEVELS],
    heads: [u32; SLOTS * LEVELS],
    entries: Vec<Entry>,
    indices_max: u32,
}

impl TimerWheel {
    /// A wheel for indices below `indices_max`, whose time begins at `now`.
    #[must_use]
    pub fn new(indices_max: u32, now: Instant) -> TimerWheel {
        TimerWheel {
            current: now.as_nanos() >> TICK_BITS,
            next_deadline: Instant::NEVER,
            occupied: [0; LEVELS],
            heads: [NONE; SLOTS * LEVELS],
            entries: Vec::new(),
            indices_max: indices_max.min(NONE - 1),
        }
    }

    /// Sets the deadline of `index`, in place of the one it had; [`Instant::NEVER`] takes it away.
    /// Panics if `index` is not below the bound given at construction.
    #[inline]
    pub fn arm(&mut self, index: u32, at: Instant) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.deadline = at;
            // The entry comes up in time, and is moved then.
            let tick = first_tick(at).max(self.current);
            let later = low_word(tick).wrapping_sub(entry.tick) < 1 << 31;
            if entry.slot != NONE && (later || at == Instant::NEVER) {
                return;
            }
        }
        self.arm_earlier(index, at);
    }

    fn arm_earlier(&mut self, index: u32, at: Instant) {
        assert!(index < self.indices_max, "timer index out of bounds");
        if at == Instant::NEVER {
            return;
        }
        if index as usize >= self.entries.len() {
            let len = (index as usize + 1).next_multiple_of(GROWTH);
            self.entries.resize(len, IDLE);
        }
        self.unlink(index);
        self.entries[index as usize].deadline = at;
        self.link(index);
        self.refresh_next_deadline();
    }

    /// Takes `index` out at once, as its connection ends.
    pub fn remove(&mut self, index: u32) {
        if (index as usize) < self.entries.len() {
            self.unlink(index);
            self.entries[index as usize].deadline = Instant::NEVER;
            self.refresh_next_deadline();
        }
    }

    /// The deadline of `index`, or [`Instant::NEVER`].
    #[must_use]
    pub fn deadline(&self, index: u32) -> Instant {
        self.entries.get(index as usize).map_or(Instant::NEVER, |it| it.deadline)
    }

    /// An index whose deadline has come; it is disarmed. To be called until it returns `None`, or
    /// until the caller has had enough: what is left stays due. Also returns `None` after much
    /// internal work; [`TimerWheel::next_deadline`] then still lies in the past.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        if now < self.next_deadline {
            return None;
        }
        let popped = self.pop(now);
        self.refresh_next_deadline();
        popped
    }

    /// When [`TimerWheel::pop_expired`] has something to do: never later than the earliest
    /// deadline and its tick, and possibly before it. A stored value.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        self.next_deadline
    }

    /// Heap bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    fn pop(&mut self, now: Instant) -> Option<u32> {
        let mut moves = 0;
        while moves < MOVES_MAX {
            if let Some(slot) = self.arriving() {
                let index = self.heads[slot];
                self.unlink(index);
                let deadline = self.entries[index as usize].deadline;
                if slot < SLOTS && deadline <= now {
                    self.entries[index as usize].deadline = Instant::NEVER;
                    return Some(index);
                }
                if deadline != Instant::NEVER {
                    self.link_after(index, slot < SLOTS);
                }
                moves += 1;
                continue;
            }
            let now_tick = now.as_nanos() >> TICK_BITS;
            match self.next_tick() {
                Some(next) if next <= now_tick => self.current = next,
                Some(_) | None => {
                    self.current = self.current.max(now_tick);
                    return None;
                }
            }
        }
        None
    }

    /// A slot of the current tick that has entries: of a higher level, whose block begins now, or
    /// of level 0.
    fn arriving(&self) -> Option<usize> {
        (0..LEVELS).rev().find_map(|level| {
            let slot = slot_at(level, self.current);
            (self.occupied[level] >> slot & 1 == 1).then_some(level * SLOTS + slot)
        })
    }

    /// The next tick at which a slot has to be looked at.
    fn next_tick(&self) -> Option<u64> {
        let mut next = u64::MAX;
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let shift = shift_of(level);
            let block = self.current >> shift;
            let from_here = occupied.rotate_right(low_word(block & (SLOTS as u64 - 1)));
            let ahead = u64::from(from_here.trailing_zeros());
            let tick = if ahead == 0 { self.current } else { (block + ahead) << shift };
            next = next.min(tick);
        }
        (next != u64::MAX).then_some(next)
    }

    fn refresh_next_deadline(&mut self) {
        self.next_deadline =
            self.next_tick().map_or(Instant::NEVER, |it| Instant::from_nanos(it << TICK_BITS));
    }

    /// Puts `index` into the slot of its deadline.
    fn link(&mut self, index: u32) {
        self.link_after(index, false);
    }

    /// The same; `passed`: not into the slot of the current tick, which has been looked at.
    fn link_after(&mut self, index: u32, passed: bool) {
        let entry = &mut self.entries[index as usize];
        let least = self.current + u64::from(passed);
        let tick = first_tick(entry.deadline).clamp(least, self.current + AHEAD_MAX);
        let level = (0..LEVELS - 1)
            .find(|level| (tick >> shift_of(*level)) - (self.current >> shift_of(*level)) < 64)
            .unwrap_or(LEVELS - 1);
        let slot = slot_at(level, tick);
        let position = level * SLOTS + slot;
        let head = self.heads[position];
        entry.tick = low_word(tick);
        entry.next = head;
        entry.previous = NONE;
        entry.slot = low_word(position as u64);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        self.heads[position] = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { slot, next, previous, .. } = self.entries[index as usize];
        if slot == NONE {
            return;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / SLOTS] &= !(1 << (slot as usize % SLOTS));
            }
        }
        let entry = &mut self.entries[index as usize];
        entry.slot = NONE;
        entry.next = NONE;
        entry.previous = NONE;
    }
}

/// The first tick that does not begin before `at`.
#[inline]
fn first_tick(at: Instant) -> u64 {
    let whole = at.as_nanos() >> TICK_BITS;
    whole + u64::from(whole << TICK_BITS != at.as_nanos())
}

/// Bits of a tick below a level's block.
#[inline]
fn shift_of(level: usize) -> u32 {
    LEVEL_BITS * low_word(level as u64)
}

/// The slot within `level` that `tick` falls into.
#[inline]
fn slot_at(level: usize, tick: u64) -> usize {
    low_word(tick >> shift_of(level) & (SLOTS as u64 - 1)) as usize
}

#[inline]
const fn low_word(value: u64) -> u32 {
    let [a, b, c, d, _, _, _, _] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
