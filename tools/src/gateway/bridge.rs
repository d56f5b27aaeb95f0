//! The work of a gateway's turn: frames from each side to the other.
//!
//! A frame for which the other side has no room waits, one a direction, and with it what comes
//! after it: the sender is held back by its own wire's means (credits, a TAP's queue), instead of
//! losing what is sent again. It waits for [`ROOM_NS_MAX`] at most, so a side that takes nothing
//! any more does not hold the other one up. Invariants: a frame is received once and ends in one
//! counter; a turn takes at most its budget from each side.

use std::mem;

use roceway_busypoll::{Armed, Progress, Work};
use roceway_runtime::rdma_virtio::nic::{self, Nic, NicEvent};
use roceway_runtime::rdma_virtio::virtio::driver::Received;
use roceway_runtime::rdma_virtio::virtio::net_header::{GSO_NONE, NetHeader};

use super::Which;
use super::addresses::{Addresses, Mac, Source};
use super::beacon::{BEACON_LEN, Beacons, PERIOD_NS, Standing};
use super::counters::SideCounters;
use super::side::{Sent, Side};

/// A frame waits so long for room, and is dropped then.
pub const ROOM_NS_MAX: u64 = 100_000_000;
/// How often old addresses are looked for.
const SWEEP_NS: u64 = 1_000_000_000;

/// The bounds of a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most hardware addresses that are remembered.
    pub addresses: u32,
    /// How long one is that is not heard.
    pub age_ns: u64,
}

/// Why a gateway cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// On which side.
    pub side: Which,
    /// What happened.
    pub cause: String,
}

/// A direction: what comes in on one side.
#[derive(Default)]
struct Way {
    counters: SideCounters,
    /// The frame that waits for room on the other side.
    held: Box<Received>,
    /// Since when, if one does.
    held_since_ns: Option<u64>,
}

/// The gateway.
pub struct Bridge {
    sides: [Side; 2],
    ways: [Way; 2],
    addresses: Addresses,
    beacons: Beacons,
    standing: Standing,
    standing_changed: u64,
    received: Box<Received>,
    beacon_due_ns: u64,
    sweep_due_ns: u64,
    broken: Option<Broken>,
}

/// What becomes of a frame.
enum Verdict {
    /// It goes to the other side, or waits for it.
    Forward,
    /// It ends here, counted.
    Drop,
}

impl Bridge {
    /// A gateway between two sides; `id` is random.
    #[must_use]
    pub fn new(wire: Side, host: Side, limits: &Limits, id: u64) -> Bridge {
        Bridge {
            sides: [wire, host],
            ways: [Way::default(), Way::default()],
            addresses: Addresses::new(limits.addresses, limits.age_ns),
            beacons: Beacons::new(id),
            standing: Standing::Forwards,
            standing_changed: 0,
            received: Box::default(),
            beacon_due_ns: 0,
            sweep_due_ns: 0,
            broken: None,
        }
    }

    /// Why it cannot go on, if so.
    #[must_use]
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// What it may do at present.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// A side.
    #[must_use]
    pub fn side(&self, which: Which) -> &Side {
        &self.sides[which as usize]
    }

    /// Calls `visit` with layer, name and value of every counter.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        let layers = [
            ["wire", "wire driver", "wire device", "wire nic"],
            ["host", "host driver", "host device", "host nic"],
        ];
        for which in Which::BOTH {
            let [own, driver, device, nic] = layers[which as usize];
            self.ways[which as usize].counters.visit(&mut |name, value| visit(own, name, value));
            visit(own, "waiting", self.waiting(which));
            let interface = &self.side(which).interface;
            let (of_driver, of_device) = interface.counters();
            of_driver.visit(&mut |name, value| visit(driver, name, value));
            of_device.visit(&mut |name, value| visit(device, name, value));
            interface.nic().visit_counters(&mut |name, value| visit(nic, name, value));
        }
        let addresses = u64::try_from(self.addresses.count()).unwrap_or(u64::MAX);
        visit("gateway", "addresses", addresses);
        visit("gateway", "addresses_moved", self.addresses.moved);
        visit("gateway", "addresses_aged", self.addresses.aged);
        visit("gateway", "standing_changed", self.standing_changed);
    }

    /// Whether every frame of both sides is accounted for.
    #[must_use]
    pub fn conserves(&self) -> bool {
        let ways = Which::BOTH.into_iter().zip(&self.ways);
        ways.into_iter().all(|(which, way)| way.counters.conserves(self.waiting(which)))
    }

    fn waiting(&self, which: Which) -> u64 {
        u64::from(self.ways[which as usize].held_since_ns.is_some())
    }

    /// Takes frames of one side, at most `budget` receive buffers of them; how many.
    fn pump(&mut self, which: Which, now: u64, budget: u32) -> u32 {
        if !self.send_held(which, now) {
            return 0;
        }
        let mut done = 0;
        while done < budget && self.sides[which as usize].interface.receive(&mut self.received) {
            done += u32::try_from(self.received.pieces.len()).unwrap_or(1).max(1);
            match self.judge(which, now) {
                Verdict::Drop => self.release(which),
                Verdict::Forward => {
                    if !self.forward(which, now) {
                        break;
                    }
                }
            }
            if !self.sides[which as usize].interface.recv_ready() {
                break;
            }
        }
        done
    }

    /// What becomes of the frame in `received`.
    fn judge(&mut self, which: Which, now: u64) -> Verdict {
        let counters = &mut self.ways[which as usize].counters;
        let pieces = &self.received.pieces;
        let length: u32 = pieces.iter().map(|piece| piece.len).sum();
        counters.received += 1;
        counters.received_bytes += u64::from(length);
        let memory = self.sides[which as usize].interface.memory_ref();
        let first = pieces.first().map_or(&[][..], |piece| memory.piece(*piece));
        let (Some(to), Some(from), 14..) = (mac(first, 0), mac(first, 6), first.len()) else {
            counters.drop_short += 1;
            return Verdict::Drop;
        };
        if let Some(id) = Beacons::read(first) {
            counters.beacons += 1;
            if let Some(id) = id {
                self.beacons.on_heard(id, which, now);
                self.judge_standing(now);
            }
            return Verdict::Drop;
        }
        if self.standing != Standing::Forwards {
            counters.drop_standing_by += 1;
            return Verdict::Drop;
        }
        match self.addresses.on_source(from, which, now) {
            Source::Sound => {}
            Source::Unlearned => counters.unlearned += 1,
            Source::Elsewhere => {
                counters.drop_elsewhere += 1;
                return Verdict::Drop;
            }
            Source::Nobody => {
                counters.drop_source += 1;
                return Verdict::Drop;
            }
        }
        match self.addresses.side_of(to, now) {
            Some(side) if side == which => {
                counters.drop_local += 1;
                return Verdict::Drop;
            }
            Some(_) => {}
            None => counters.flooded += 1,
        }
        Verdict::Forward
    }

    /// Sends the frame in `received` on the other side. False if it waits for room.
    fn forward(&mut self, which: Which, now: u64) -> bool {
        let sent = self.carry(which);
        if sent == Sent::Later {
            let way = &mut self.ways[which as usize];
            way.counters.waited += 1;
            way.held_since_ns = Some(now);
            mem::swap(&mut self.received, &mut way.held);
            return false;
        }
        self.count(which, sent);
        self.release(which);
        true
    }

    /// A copy of the frame in `received` to the other side.
    fn carry(&mut self, which: Which) -> Sent {
        let [wire, host] = &mut self.sides;
        let (from, to) = match which {
            Which::Wire => (wire, host),
            Which::Host => (host, wire),
        };
        to.carry(from.interface.memory_ref(), &self.received)
    }

    fn count(&mut self, which: Which, sent: Sent) {
        let counters = &mut self.ways[which as usize].counters;
        match sent {
            Sent::Yes => {
                counters.forwarded += 1;
                counters.segments += u64::from(self.received.header.gso_type != GSO_NONE);
            }
            Sent::TooLong => counters.drop_too_long += 1,
            Sent::Refused => counters.drop_refused += 1,
            Sent::Later => counters.drop_no_room += 1,
        }
    }

    /// Tries the frame that waits again. False if it still does.
    fn send_held(&mut self, which: Which, now: u64) -> bool {
        let Some(since) = self.ways[which as usize].held_since_ns else { return true };
        mem::swap(&mut self.received, &mut self.ways[which as usize].held);
        let sent = self.carry(which);
        if sent == Sent::Later && now.saturating_sub(since) < ROOM_NS_MAX {
            mem::swap(&mut self.received, &mut self.ways[which as usize].held);
            return false;
        }
        self.ways[which as usize].held_since_ns = None;
        self.count(which, sent);
        self.release(which);
        true
    }

    /// Gives the memory of the frame in `received` back.
    fn release(&mut self, which: Which) {
        let memory = self.sides[which as usize].interface.memory();
        for piece in self.received.pieces.drain(..) {
            memory.release(piece.slot);
        }
    }

    fn judge_standing(&mut self, now: u64) {
        let standing = self.beacons.standing(now);
        self.standing_changed += u64::from(standing != self.standing);
        self.standing = standing;
    }

    fn send_beacons(&mut self) {
        let frame: [u8; BEACON_LEN] = self.beacons.frame();
        for side in &mut self.sides {
            let length = u32::try_from(BEACON_LEN).unwrap_or(0);
            // One that finds no room is followed by the next.
            let _sent = side.send(length, NetHeader::default(), [&frame[..]].into_iter());
            side.doorbell();
        }
    }

    fn on_event(&mut self, which: Which, event: NicEvent) {
        let counters = &mut self.ways[which as usize].counters;
        match event {
            NicEvent::LinkUp => {
                counters.link_up += 1;
                // Whoever is there now is to know at once who else joins the two networks.
                self.beacon_due_ns = 0;
            }
            NicEvent::LinkDown | NicEvent::PeerGone => counters.link_down += 1,
            NicEvent::HostGone(_) => counters.hosts_gone += 1,
            NicEvent::Removed => self.fail(which, "the interface was deleted"),
        }
    }

    fn fail(&mut self, side: Which, cause: &str) {
        self.broken.get_or_insert_with(|| Broken { side, cause: cause.to_owned() });
    }

    fn waits(&self) -> bool {
        self.ways.iter().any(|way| way.held_since_ns.is_some())
            || self.sides.iter().any(|side| side.interface.has_backlog())
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

impl Work for Bridge {
    #[inline]
    fn ready(&mut self) -> bool {
        self.sides.iter().any(|side| side.interface.recv_ready()) || self.waits()
    }

    fn control(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::NONE
    }

    fn receive(&mut self, now: u64, budget: u32) -> Progress {
        let half = budget.div_ceil(2);
        let done = Which::BOTH.map(|which| self.pump(which, now, half));
        Progress::done(done.iter().sum())
    }

    fn timers(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::NONE
    }

    fn application(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::NONE
    }

    fn transmit(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::NONE
    }

    fn doorbell(&mut self) {
        for side in &mut self.sides {
            side.doorbell();
        }
    }

    fn after(&mut self, _now: u64, _budget: u32) -> Progress {
        for side in &mut self.sides {
            side.interface.reap();
            side.interface.refill();
        }
        Progress::NONE
    }

    fn cold(&mut self, now: u64) {
        for which in Which::BOTH {
            match self.sides[which as usize].interface.nic_mut().maintain(now) {
                Ok(Some(event)) => self.on_event(which, event),
                Ok(None) => {}
                Err(error) => self.fail(which, &error.to_string()),
            }
        }
        self.judge_standing(now);
        if now >= self.beacon_due_ns {
            self.beacon_due_ns = now + PERIOD_NS;
            self.send_beacons();
        }
        if now >= self.sweep_due_ns {
            self.sweep_due_ns = now + SWEEP_NS;
            self.addresses.sweep(now);
        }
    }

    fn deadline(&mut self) -> u64 {
        u64::MAX
    }

    fn arm(&mut self) -> Armed {
        if self.waits() {
            return Armed::Pending;
        }
        for side in &mut self.sides {
            match side.interface.nic_mut().arm() {
                Ok(nic::Armed::Quiet) => {}
                Ok(nic::Armed::Pending) | Err(_) => return Armed::Pending,
            }
        }
        Armed::Quiet
    }

    fn disarm(&mut self) {
        for side in &mut self.sides {
            side.interface.nic_mut().disarm();
        }
    }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
