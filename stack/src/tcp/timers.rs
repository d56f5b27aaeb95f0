//! Timers.
use alloc::vec::Vec;

use crate::time::Instant;

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The retransmission timeout (RFC 6298).
    Retransmit,
    /// A zero-window probe (RFC 9293 §3.8.6.1).
    Persist,
    /// A delayed acknowledgement (RFC 9293 §3.8.6.3).
    DelayedAck,
    /// A keep-alive probe (RFC 9293 §3.8.4).
    KeepAlive,
    /// The end of TIME-WAIT, or of FIN-WAIT-2 without a reader.
    TimeWait,
    /// The user timeout (RFC 9293 §3.8.3).
    UserTimeout,
}

/// Number of timers in a [`TimerSet`].
pub const TIMERS: usize = 6;

/// The deadlines of one connection.
#[derive(Clone, Debug)]
pub struct TimerSet {
    deadlines: [Instant; TIMERS],
}

impl TimerSet {
    /// No timer armed.
    #[must_use]
    pub const fn new() -> TimerSet {
        TimerSet { deadlines: [Instant::NEVER; TIMERS] }
    }
    /// Arms `timer`.
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
        self.deadlines = [Instant::NEVER; TIMERS];
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
        unreachable!("being written")
    }
    /// Disarms and returns one timer that has expired at `now`, the earliest first.
    #[inline]
    pub fn pop_expired(&mut self, _now: Instant) -> Option<Timer> {
        unreachable!("being written")
    }
}

impl Default for TimerSet {
    fn default() -> TimerSet {
        TimerSet::new()
    }
}

/// The wheel of all connections.
#[derive(Debug)]
pub struct TimerWheel {
    entries: Vec<u64>,
}

impl TimerWheel {
    /// A wheel for indices below `indices_max`, that starts at `now`.
    #[must_use]
    pub fn new(_indices_max: u32, _now: Instant) -> TimerWheel {
        TimerWheel { entries: Vec::new() }
    }
    /// Sets the deadline of `index` (NEVER: none). O(1); later than before: costs nothing.
    #[inline]
    pub fn arm(&mut self, _index: u32, _at: Instant) {
        unreachable!("being written")
    }
    /// Takes `index` out of the wheel at once, as its connection ends.
    pub fn remove(&mut self, _index: u32) {
        unreachable!("being written")
    }
    /// An index whose deadline has come (it is disarmed now); call until `None`.
    pub fn pop_expired(&mut self, _now: Instant) -> Option<u32> {
        unreachable!("being written")
    }
    /// When `pop_expired` has something to do next. A cached value.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        unreachable!("being written")
    }
    /// Heap bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity()
    }
}
