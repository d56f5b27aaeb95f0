//! The neighbour cache: which Ethernet address an IP address has, for ARP (RFC 826) and neighbour
//! discovery (RFC 4861 §7.3) alike.
//!
//! It decides and never sends: what must be asked comes back as a [`Solicit`]. Invariants: at most
//! `limit` entries; an answer that nobody asked for creates none; a claim that contradicts a known
//! address replaces nothing, it only makes the known one be probed; the generation changes with
//! every change of what [`NeighborCache::lookup`] would answer.

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use super::packet::Resolution;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::MacAddr;

/// Questions before an address that was never known is given up (RFC 4861 §10).
const SOLICITS_MAX: u8 = 3;
/// Time between two questions (RFC 4861 §10, RETRANS_TIMER).
const RETRY: Duration = Duration::from_secs(1);
/// Time between two probes of a known neighbour, shorter so that a neighbour that moved to
/// another Ethernet address is found again within a second.
const PROBE_RETRY: Duration = Duration::from_millis(300);
/// How long an answer holds (RFC 4861 §10, REACHABLE_TIME, without its randomness: the answers
/// arrive at random times).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long a neighbour that did not answer is not asked again.
const FAILED: Duration = Duration::from_secs(3);
/// How long questions go on, and count for nothing, while the link is known to be down: a link
/// between hosts comes up when both have found each other, which may be later than the first use.
const LINK_AWAITED: Duration = Duration::from_secs(10);
/// How often entries that nobody asked about since the last time go.
const SWEEP: Duration = Duration::from_secs(300);

/// A question to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Solicit {
    /// Whose Ethernet address is asked for.
    pub(super) target: IpAddr,
    /// The one to ask; `None` for everyone (or the target's group).
    pub(super) to: Option<MacAddr>,
}

/// What hearing from a neighbour meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Learned, confirmed, or of no interest.
    Fine,
    /// Nobody had asked.
    Unsolicited,
    /// It contradicts what is known; the known address is probed.
    Conflict(Option<Solicit>),
    /// There was no room.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everyone is being asked.
    Incomplete { asked: u8, retry_at: Instant },
    /// Known, and not to be asked before `until`.
    Reachable { mac: MacAddr, until: Instant },
    /// Known from its own question only; probed when first used.
    Stale { mac: MacAddr },
    /// Known, and being asked whether that still holds.
    Probe { mac: MacAddr, asked: u8, retry_at: Instant },
    /// Did not answer.
    Failed { until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// Whether someone resolved it since the last sweep.
    used: bool,
    /// When it was last resolved or heard from.
    touched: Instant,
}

/// SipHash-1-3 with a key: whoever chooses addresses cannot choose their places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(pub(super) [u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

impl Keyed {
    /// The hash of bytes.
    pub(super) fn of(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct NeighborCache {
    entries: HashMap<IpAddr, Entry, Keyed>,
    limit: usize,
    generation: u32,
    deadline: Instant,
    sweep_at: Instant,
    /// Until when a link that is down is waited for.
    link_awaited: Instant,
    /// Neighbours given up, and entries that had to go for others.
    pub(super) failures: u64,
    pub(super) evictions: u64,
}

impl NeighborCache {
    pub(super) fn new(limit: usize, key: [u8; 16]) -> NeighborCache {
        NeighborCache {
            entries: HashMap::with_capacity_and_hasher(limit, Keyed(key)),
            limit,
            generation: 1,
            deadline: Instant::NEVER,
            sweep_at: Instant::NEVER,
            link_awaited: Instant::ZERO,
            failures: 0,
            evictions: 0,
        }
    }

    /// Changes with every change of a mapping.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// When [`NeighborCache::on_timers`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The Ethernet address of a neighbour, and the question to send if it must be asked.
    pub(super) fn resolve(
        &mut self,
        now: Instant,
        address: IpAddr,
    ) -> (Resolution, Option<Solicit>) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return self.begin(now, address);
        };
        entry.used = true;
        entry.touched = now;
        match entry.state {
            State::Incomplete { .. } => (Resolution::Pending, None),
            State::Reachable { mac, .. } | State::Probe { mac, .. } => {
                (Resolution::Resolved(mac), None)
            }
            State::Stale { mac } => {
                let retry_at = now + PROBE_RETRY;
                entry.state = State::Probe { mac, asked: 1, retry_at };
                self.wake_at(retry_at);
                (Resolution::Resolved(mac), Some(Solicit { target: address, to: Some(mac) }))
            }
            State::Failed { until } if now < until => (Resolution::Unreachable, None),
            State::Failed { .. } => self.begin(now, address),
        }
    }

    /// Somebody doubts that a known neighbour is still there: the question to send. `None` if it
    /// is not known, or is being asked already.
    pub(super) fn doubt(&mut self, now: Instant, address: IpAddr) -> Option<Solicit> {
        match self.entries.get(&address)?.state {
            State::Reachable { mac, .. } | State::Stale { mac } => {
                Some(self.probe(now, address, mac))
            }
            State::Incomplete { .. } | State::Probe { .. } | State::Failed { .. } => None,
        }
    }

    /// A neighbour answered. `solicited` says that the answer was addressed to us; an announcement
    /// to everyone is no answer to a first question.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        address: IpAddr,
        mac: MacAddr,
        solicited: bool,
    ) -> Heard {
        let Some(entry) = self.entries.get_mut(&address) else { return Heard::Unsolicited };
        let until = now + REACHABLE;
        match entry.state {
            State::Incomplete { .. } if !solicited => return Heard::Unsolicited,
            State::Incomplete { .. } => {
                entry.state = State::Reachable { mac, until };
                self.change();
            }
            State::Probe { mac: known, .. } if known == mac && solicited => {
                entry.state = State::Reachable { mac, until };
            }
            State::Reachable { mac: known, .. }
            | State::Stale { mac: known }
            | State::Probe { mac: known, .. }
                if known == mac =>
            {
                return Heard::Fine;
            }
            State::Failed { .. } => return Heard::Unsolicited,
            State::Probe { .. } => return Heard::Conflict(None),
            State::Reachable { mac: known, .. } | State::Stale { mac: known } => {
                return Heard::Conflict(Some(self.probe(now, address, known)));
            }
        }
        self.wake_at(until);
        Heard::Fine
    }

    /// A neighbour asked for an address of ours and gave its own (RFC 826, RFC 4861 §7.2.3):
    /// worth knowing, as an answer to it will follow, but never worth another's place in use.
    pub(super) fn on_question(&mut self, now: Instant, address: IpAddr, mac: MacAddr) -> Heard {
        match self.entries.get(&address).map(|entry| entry.state) {
            // Its own question does not answer ours, but it is as good as any other stale entry.
            Some(State::Incomplete { .. } | State::Failed { .. }) => {
                let retry_at = now + PROBE_RETRY;
                self.put(now, address, State::Probe { mac, asked: 1, retry_at });
                self.wake_at(retry_at);
                self.change();
                Heard::Fine
            }
            Some(State::Reachable { mac: known, .. } | State::Stale { mac: known }) => {
                if known == mac {
                    return Heard::Fine;
                }
                Heard::Conflict(Some(self.probe(now, address, known)))
            }
            Some(State::Probe { mac: known, .. }) => {
                if known == mac {
                    Heard::Fine
                } else {
                    Heard::Conflict(None)
                }
            }
            None if self.make_room(EvictFor::Stranger) => {
                self.put(now, address, State::Stale { mac });
                self.arm_sweep(now);
                self.change();
                Heard::Fine
            }
            None => Heard::Refused,
        }
    }

    /// Asks again, gives up and forgets, as the time says. Calls `solicit` for each question.
    pub(super) fn on_timers(&mut self, now: Instant, mut solicit: impl FnMut(Solicit)) {
        if now < self.deadline {
            return;
        }
        if now >= self.sweep_at {
            self.sweep(now);
        }
        let mut deadline = self.sweep_at;
        let mut changed = false;
        let mut failures = 0;
        for (address, entry) in &mut self.entries {
            let before = entry.state;
            let (after, question) = match before {
                State::Incomplete { asked, .. } if now < self.link_awaited => {
                    // Nobody can have heard it: as if it had not been asked.
                    let asked = asked.min(SOLICITS_MAX - 1);
                    let retry_at = wakes_at(before);
                    advance(State::Incomplete { asked, retry_at }, now, entry.used)
                }
                before => advance(before, now, entry.used),
            };
            entry.state = after;
            if let Some(to) = question {
                solicit(Solicit { target: *address, to });
            }
            failures += u64::from(matches!(
                (before, after),
                (State::Incomplete { .. }, State::Failed { .. })
            ));
            changed |= mac_of(before) != mac_of(after)
                || (matches!(after, State::Failed { .. }) && before != after);
            deadline = deadline.min(wakes_at(after));
        }
        self.failures += failures;
        self.deadline = deadline;
        if changed {
            self.change();
        }
    }

    /// The link is down, and may come up: questions go on for a while.
    pub(super) fn on_link_down(&mut self, now: Instant) {
        self.link_awaited = now + LINK_AWAITED;
    }

    /// The link came up: what was asked before was lost, and is asked again at once.
    pub(super) fn on_link_up(&mut self, now: Instant, mut solicit: impl FnMut(Solicit)) {
        self.link_awaited = Instant::ZERO;
        for (address, entry) in &mut self.entries {
            if let State::Incomplete { .. } | State::Failed { .. } = entry.state {
                entry.state = State::Incomplete { asked: 1, retry_at: now + RETRY };
                solicit(Solicit { target: *address, to: None });
            }
        }
        self.wake_at(now + RETRY);
        self.change();
    }

    /// Everyone on the link is gone: who comes may have other addresses, so all are asked anew.
    pub(super) fn on_link_lost(&mut self) {
        self.entries.clear();
        self.change();
    }

    /// The host with this address is gone: who comes may have another one.
    pub(super) fn on_neighbor_lost(&mut self, mac: MacAddr) {
        self.entries.retain(|_, entry| mac_of(entry.state) != Some(mac));
        self.change();
    }

    /// Starts to ask for an address.
    fn begin(&mut self, now: Instant, address: IpAddr) -> (Resolution, Option<Solicit>) {
        if !self.entries.contains_key(&address) && !self.make_room(EvictFor::Ourselves) {
            return (Resolution::Unreachable, None);
        }
        let retry_at = now + RETRY;
        self.put(now, address, State::Incomplete { asked: 1, retry_at });
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.used = true;
        }
        self.wake_at(retry_at);
        self.arm_sweep(now);
        (Resolution::Pending, Some(Solicit { target: address, to: None }))
    }

    /// Asks a known neighbour whether it still has its address.
    fn probe(&mut self, now: Instant, address: IpAddr, mac: MacAddr) -> Solicit {
        let retry_at = now + PROBE_RETRY;
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Probe { mac, asked: 1, retry_at };
        }
        self.wake_at(retry_at);
        Solicit { target: address, to: Some(mac) }
    }

    fn put(&mut self, now: Instant, address: IpAddr, state: State) {
        let used = self.entries.get(&address).is_some_and(|entry| entry.used);
        self.entries.insert(address, Entry { state, used, touched: now });
    }

    /// Forgets what nobody asked for since the last sweep, and makes those who keep an address
    /// ask again (by a new generation), so that the next sweep knows what is in use.
    fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.used);
        for entry in self.entries.values_mut() {
            entry.used = false;
        }
        self.change();
        self.sweep_at = if self.entries.is_empty() { Instant::NEVER } else { now + SWEEP };
    }

    fn arm_sweep(&mut self, now: Instant) {
        if self.sweep_at == Instant::NEVER {
            self.sweep_at = now + SWEEP;
            self.wake_at(self.sweep_at);
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.deadline = self.deadline.min(at);
    }

    /// Makes those who keep an address ask again.
    pub(super) fn change(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether there is room for one more, the oldest unused entry having gone if need be. The
    /// cost is one walk over the table for each eviction.
    fn make_room(&mut self, reason: EvictFor) -> bool {
        if self.entries.len() < self.limit {
            return true;
        }
        let may_go = |entry: &Entry| match reason {
            EvictFor::Ourselves => true,
            EvictFor::Stranger => !entry.used,
        };
        let oldest = self
            .entries
            .iter()
            .filter(|(_, entry)| may_go(entry))
            .min_by_key(|(address, entry)| (entry.used, entry.touched, **address))
            .map(|(address, _)| *address);
        let Some(address) = oldest else { return false };
        self.entries.remove(&address);
        self.evictions += 1;
        self.change();
        true
    }
}

/// For whom an entry would have to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EvictFor {
    /// For an address that we want to reach.
    Ourselves,
    /// For one that asked us something.
    Stranger,
}

fn mac_of(state: State) -> Option<MacAddr> {
    match state {
        State::Reachable { mac, .. } | State::Stale { mac } | State::Probe { mac, .. } => Some(mac),
        State::Incomplete { .. } | State::Failed { .. } => None,
    }
}

fn wakes_at(state: State) -> Instant {
    match state {
        State::Incomplete { retry_at, .. } | State::Probe { retry_at, .. } => retry_at,
        State::Reachable { until, .. } => until,
        State::Stale { .. } | State::Failed { .. } => Instant::NEVER,
    }
}

/// The state after its time has come, and whom to ask.
fn advance(state: State, now: Instant, used: bool) -> (State, Option<Option<MacAddr>>) {
    if now < wakes_at(state) {
        return (state, None);
    }
    match state {
        State::Incomplete { asked, .. } if asked < SOLICITS_MAX => {
            (State::Incomplete { asked: asked + 1, retry_at: now + RETRY }, Some(None))
        }
        State::Incomplete { .. } => (State::Failed { until: now + FAILED }, None),
        State::Reachable { mac, .. } if used => {
            (State::Probe { mac, asked: 1, retry_at: now + PROBE_RETRY }, Some(Some(mac)))
        }
        State::Reachable { mac, .. } => (State::Stale { mac }, None),
        State::Probe { mac, asked, .. } if asked < SOLICITS_MAX => {
            (State::Probe { mac, asked: asked + 1, retry_at: now + PROBE_RETRY }, Some(Some(mac)))
        }
        // It may have moved to another Ethernet address: ask everyone.
        State::Probe { .. } => (State::Incomplete { asked: 1, retry_at: now + RETRY }, Some(None)),
        State::Stale { .. } | State::Failed { .. } => (state, None),
    }
}
