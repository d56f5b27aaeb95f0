//! Reassembly of IPv4 fragments (RFC 791 §3.2, RFC 1122 §3.3.2) within limits of datagrams, bytes
//! and time. A datagram with fragments that overlap is given up as a whole, those to come included
//! (RFC 5722, which says so for IPv6). The oldest datagram goes when there is no room.

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::config::IpLimits;
use super::counters::IpDrop;
use crate::time::{Duration, Instant};

/// Longest payload of a datagram: 65,535 bytes less a header without options.
const PAYLOAD_MAX: u32 = 65_515;
/// Most fragments of a datagram: enough for 64 KiB over links of 576 bytes.
const FRAGMENTS_MAX: usize = 128;
/// Bytes charged for a fragment besides its own.
const OVERHEAD: u32 = 64;

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FragmentKey {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) ident: u16,
}

/// One fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) key: FragmentKey,
    /// Place of its bytes in the datagram's payload.
    pub(super) offset: u32,
    /// Whether others follow it.
    pub(super) more: bool,
    /// The ECN field; one mark marks the datagram (RFC 3168 §5.3).
    pub(super) ecn: u8,
    pub(super) bytes: &'a [u8],
}

/// What became of a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stored {
    /// It waits for the others.
    Waiting,
    /// The datagram is whole.
    Whole(Whole),
    /// It is of no use.
    Dropped(IpDrop),
}

/// A datagram's payload, whole again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Whole {
    pub(super) payload: Vec<u8>,
    pub(super) ecn: u8,
    /// How many fragments it came in.
    pub(super) fragments: u64,
}

#[derive(Debug)]
struct Part {
    offset: u32,
    bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u32 {
        self.offset + u32::try_from(self.bytes.len()).unwrap_or(u32::MAX - PAYLOAD_MAX)
    }
}

#[derive(Debug)]
struct Datagram {
    key: FragmentKey,
    /// In order of their offsets, without overlap. Empty when the datagram was given up.
    parts: Vec<Part>,
    /// Known when the last fragment has come.
    total: Option<u32>,
    ecn: u8,
    given_up: bool,
    expires: Instant,
}

/// Datagrams that are not whole yet.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// The oldest first.
    datagrams: Vec<Datagram>,
    datagrams_max: usize,
    bytes: u32,
    bytes_max: u32,
    timeout: Duration,
    /// Fragments that were put aside and thrown away since.
    pub(super) discarded: u64,
    pub(super) timeouts: u64,
    pub(super) evictions: u64,
}

impl Reassembly {
    pub(super) fn new(limits: &IpLimits) -> Reassembly {
        Reassembly {
            datagrams: Vec::new(),
            datagrams_max: usize::from(limits.fragmented_datagrams),
            bytes: 0,
            bytes_max: limits.fragment_bytes,
            timeout: limits.fragment_timeout,
            discarded: 0,
            timeouts: 0,
            evictions: 0,
        }
    }

    /// Fragments put aside at the moment.
    pub(super) fn held(&self) -> u64 {
        self.datagrams.iter().map(|datagram| datagram.parts.len() as u64).sum()
    }

    /// When the oldest datagram's time runs out.
    pub(super) fn deadline(&self) -> Instant {
        self.datagrams.first().map_or(Instant::NEVER, |datagram| datagram.expires)
    }

    /// Gives up what took too long.
    pub(super) fn on_timers(&mut self, now: Instant) {
        while self.deadline() <= now {
            let gone = self.remove(0);
            if !gone.given_up {
                self.timeouts += 1;
                self.discarded += gone.parts.len() as u64;
            }
        }
    }

    /// Takes a fragment.
    pub(super) fn on_fragment(&mut self, now: Instant, fragment: &Fragment<'_>) -> Stored {
        let Some((len, end)) = checked_end(fragment) else {
            return Stored::Dropped(IpDrop::FragmentMalformed);
        };
        let charge = len + OVERHEAD;
        if charge > self.bytes_max {
            return Stored::Dropped(IpDrop::FragmentLimit);
        }
        let index = self.find_or_begin(now, fragment.key);
        let datagram = &mut self.datagrams[index];
        if datagram.given_up {
            return Stored::Dropped(IpDrop::FragmentOverlap);
        }
        match datagram.place(fragment, end) {
            Place::Duplicate => return Stored::Dropped(IpDrop::FragmentDuplicate),
            Place::Overlap => return self.give_up(index, IpDrop::FragmentOverlap),
            Place::TooMany => return self.give_up(index, IpDrop::FragmentLimit),
            Place::Contradiction => return self.give_up(index, IpDrop::FragmentMalformed),
            Place::At(at) => datagram.insert(at, fragment, end),
        }
        self.bytes += charge;
        if self.datagrams[index].is_whole() {
            return Stored::Whole(self.remove(index).join());
        }
        self.evict_beyond_limit(fragment.key);
        Stored::Waiting
    }

    fn find_or_begin(&mut self, now: Instant, key: FragmentKey) -> usize {
        if let Some(index) = self.datagrams.iter().position(|datagram| datagram.key == key) {
            return index;
        }
        if self.datagrams.len() >= self.datagrams_max {
            self.evict(0);
        }
        self.datagrams.push(Datagram {
            key,
            parts: Vec::new(),
            total: None,
            ecn: 0,
            given_up: false,
            expires: now + self.timeout,
        });
        self.datagrams.len() - 1
    }

    fn evict_beyond_limit(&mut self, newest: FragmentKey) {
        while self.bytes > self.bytes_max {
            // The fragment that just came fits alone, and so others are there to go first.
            let other = self
                .datagrams
                .iter()
                .position(|datagram| datagram.key != newest && !datagram.parts.is_empty());
            self.evict(other.unwrap_or_else(|| {
                self.datagrams.iter().position(|datagram| datagram.key == newest).unwrap_or(0)
            }));
        }
    }

    fn evict(&mut self, index: usize) {
        let gone = self.remove(index);
        if !gone.given_up {
            self.evictions += 1;
            self.discarded += gone.parts.len() as u64;
        }
    }

    /// Gives a datagram up but remembers it, so that its other fragments are known as such.
    fn give_up(&mut self, index: usize, reason: IpDrop) -> Stored {
        let datagram = &mut self.datagrams[index];
        self.bytes -= datagram.charge();
        self.discarded += datagram.parts.len() as u64;
        datagram.parts = Vec::new();
        datagram.given_up = true;
        Stored::Dropped(reason)
    }

    fn remove(&mut self, index: usize) -> Datagram {
        let gone = self.datagrams.remove(index);
        self.bytes -= gone.charge();
        gone
    }
}

/// Length and end of a fragment's bytes, or `None` if it cannot be one (RFC 791 §3.2): all but
/// the last are a multiple of 8 bytes, and none leaves the longest datagram.
fn checked_end(fragment: &Fragment<'_>) -> Option<(u32, u32)> {
    let len = u32::try_from(fragment.bytes.len()).ok()?;
    let end = fragment.offset.checked_add(len)?;
    let is_sound = len > 0 && end <= PAYLOAD_MAX && (!fragment.more || len.is_multiple_of(8));
    is_sound.then_some((len, end))
}

/// Where a fragment belongs.
enum Place {
    At(usize),
    Duplicate,
    Overlap,
    TooMany,
    Contradiction,
}

impl Datagram {
    fn charge(&self) -> u32 {
        self.parts.iter().map(|part| part.end() - part.offset + OVERHEAD).sum()
    }

    fn place(&self, fragment: &Fragment<'_>, end: u32) -> Place {
        let at = self.parts.partition_point(|part| part.offset < fragment.offset);
        if let Some(part) = self.parts.get(at) {
            if part.offset == fragment.offset && part.bytes == fragment.bytes {
                return Place::Duplicate;
            }
            if part.offset < end {
                return Place::Overlap;
            }
        }
        if at > 0 && self.parts[at - 1].end() > fragment.offset {
            return Place::Overlap;
        }
        let last_end = self.parts.last().map_or(0, Part::end);
        let contradicts = match (self.total, fragment.more) {
            (Some(total), true) => end > total,
            (Some(total), false) => end != total,
            (None, true) => false,
            (None, false) => end < last_end,
        };
        if contradicts {
            return Place::Contradiction;
        }
        if self.parts.len() >= FRAGMENTS_MAX { Place::TooMany } else { Place::At(at) }
    }

    fn insert(&mut self, at: usize, fragment: &Fragment<'_>, end: u32) {
        let part = Part { offset: fragment.offset, bytes: fragment.bytes.to_vec() };
        self.parts.insert(at, part);
        if !fragment.more {
            self.total = Some(end);
        }
        // Congestion experienced outweighs the others (RFC 3168 §5.3).
        self.ecn = if self.ecn == 3 || fragment.ecn == 3 { 3 } else { fragment.ecn };
    }

    fn is_whole(&self) -> bool {
        let Some(total) = self.total else { return false };
        let mut next = 0;
        for part in &self.parts {
            if part.offset != next {
                return false;
            }
            next = part.end();
        }
        next == total
    }

    fn join(self) -> Whole {
        let mut payload = vec![0; self.total.unwrap_or(0) as usize];
        for part in &self.parts {
            payload[part.offset as usize..part.end() as usize].copy_from_slice(&part.bytes);
        }
        Whole { payload, ecn: self.ecn, fragments: self.parts.len() as u64 }
    }
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
