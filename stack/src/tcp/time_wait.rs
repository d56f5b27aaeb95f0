//! TIME-WAIT without the weight of a connection: what RFC 9293 §3.10.7.4 and RFC 6191 need, and
//! no more. All entries last equally long, so their expiry is a queue.

use alloc::collections::VecDeque;

use super::connection::Connection;
use super::reply::Reply;
use super::rtt::TimestampClock;
use super::seq::SeqNum;
use super::tuple::FourTuple;
use crate::ip::Marking;
use crate::slab::{Id, Slab};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Options, TcpFlags, TcpHeader, Timestamps};

/// Stale places in the queue of expiry that are worth no tidying.
const EXPIRY_SLACK: usize = 64;

/// A connection in TIME-WAIT.
pub(super) struct TimeWait {
    pub(super) tuple: FourTuple,
    pub(super) snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    window: u16,
    ts_recent: Option<u32>,
    clock: TimestampClock,
    marking: Marking,
    /// Our clock when the entry was made.
    last_value: u32,
    expires: Instant,
}

/// What to do about a segment for a TIME-WAIT.
pub(super) enum TimeWaitVerdict {
    Ignore,
    /// An acknowledgement goes back.
    Answer(Reply),
    /// A new connection may take its place (RFC 6191).
    Reopen,
}

impl TimeWait {
    /// The compact form of a connection.
    pub(super) fn of(connection: &Connection, now: Instant, lasts: Duration) -> TimeWait {
        TimeWait {
            tuple: connection.tuple,
            snd_nxt: connection.snd.nxt,
            rcv_nxt: connection.rcv.nxt,
            window: u16::MAX,
            ts_recent: connection.rcv.timestamps.then_some(connection.rcv.ts_recent),
            clock: connection.snd.clock,
            marking: connection.snd.template.marking(),
            last_value: connection.snd.clock.value(now),
            expires: now + lasts,
        }
    }

    /// Whether we may open a new connection with the same ends: our clock has moved on, so the
    /// peer can tell the segments apart (RFC 6191 §2, seen from the other side).
    pub(super) fn may_reopen_actively(&self, now: Instant) -> bool {
        let ticks = self.clock.value(now).wrapping_sub(self.last_value);
        self.ts_recent.is_some() && ticks > 0
    }

    /// A segment with this much payload came.
    pub(super) fn on_segment(
        &mut self,
        header: &TcpHeader,
        options: &Options,
        payload_len: u32,
        (now, lasts): (Instant, Duration),
    ) -> TimeWaitVerdict {
        if header.flags.intersects(TcpFlags::RST) {
            // RFC 1337: a reset must not end TIME-WAIT.
            return TimeWaitVerdict::Ignore;
        }
        let syn = header.flags.intersects(TcpFlags::SYN);
        if syn && !header.flags.intersects(TcpFlags::ACK) && self.is_new(header, options) {
            return TimeWaitVerdict::Reopen;
        }
        let fin = header.flags.intersects(TcpFlags::FIN);
        if fin {
            self.expires = now + lasts;
        }
        if !fin && !syn && payload_len == 0 {
            // A peer that misses our acknowledgement repeats its FIN. Two ends in TIME-WAIT would
            // answer each other's bare acknowledgements for ever.
            return TimeWaitVerdict::Ignore;
        }
        TimeWaitVerdict::Answer(Reply {
            tuple: self.tuple,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: TcpFlags::ACK,
            window: self.window,
            timestamps: self
                .ts_recent
                .map(|echo| Timestamps { value: self.clock.value(now), echo }),
            marking: self.marking,
        })
    }

    /// RFC 6191 §2: by timestamp where there are any, else by sequence number.
    fn is_new(&self, header: &TcpHeader, options: &Options) -> bool {
        match (self.ts_recent, options.timestamps) {
            (Some(recent), Some(ts)) if ts.value != recent => {
                ts.value.wrapping_sub(recent) <= u32::MAX / 2
            }
            _ => header.seq.after(self.rcv_nxt),
        }
    }
}

/// All of them.
pub(super) struct TimeWaits {
    slab: Slab<TimeWait>,
    expiry: VecDeque<(Id<TimeWait>, Instant)>,
}

impl TimeWaits {
    /// None, at most `limit`.
    pub(super) fn new(limit: u32, worker: u8) -> TimeWaits {
        TimeWaits { slab: Slab::new(limit.max(1), worker), expiry: VecDeque::new() }
    }

    /// Adds one and returns its index; a full table gives the entry back.
    pub(super) fn insert(&mut self, entry: TimeWait) -> Result<u32, TimeWait> {
        let expires = entry.expires;
        let id = self.slab.insert(entry)?;
        if self.expiry.len() > 2 * self.slab.len() as usize + EXPIRY_SLACK {
            // Most are stale, for their connections were opened again: the queue stays in
            // proportion to what there is.
            let slab = &self.slab;
            self.expiry.retain(|&(id, _)| slab.get(id).is_some());
        }
        self.expiry.push_back((id, expires));
        Ok(id.index())
    }

    /// The oldest entry's index.
    pub(super) fn oldest(&mut self) -> Option<u32> {
        while let Some(&(id, _)) = self.expiry.front() {
            if self.slab.get(id).is_some() {
                return Some(id.index());
            }
            let _stale = self.expiry.pop_front();
        }
        None
    }

    /// The entry at an index.
    pub(super) fn at(&self, index: u32) -> Option<&TimeWait> {
        self.slab.at(index)
    }

    /// The entry at an index.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut TimeWait> {
        self.slab.at_mut(index)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, index: u32) -> Option<TimeWait> {
        self.slab.remove_at(index)
    }

    /// The index of an entry that has expired; the caller removes it.
    pub(super) fn expired(&mut self, now: Instant) -> Option<u32> {
        loop {
            let &(id, at) = self.expiry.front()?;
            if at > now {
                return None;
            }
            let _first = self.expiry.pop_front();
            match self.slab.get(id) {
                Some(entry) if entry.expires > now => self.expiry.push_back((id, entry.expires)),
                Some(_) => return Some(id.index()),
                None => {}
            }
        }
    }

    /// When `expired` has something to do next.
    pub(super) fn next_deadline(&self) -> Instant {
        self.expiry.front().map_or(Instant::NEVER, |&(_, at)| at)
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u32 {
        self.slab.len()
    }
}
