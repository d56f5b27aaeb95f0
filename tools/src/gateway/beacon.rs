//! Beacons: how gateways find out that they would make a loop.
//!
//! Every gateway sends a small frame on both sides, a few times a second, with a number of its own.
//! Who hears the number of another gateway on both sides joins the same two networks as that one:
//! of both the one with the smaller number forwards, the other stands by and takes over when it
//! hears nothing any more. Who hears its own number has a loop that others made, and forwards
//! nothing until it is gone. Beacons are never forwarded. Owns no clock and sends nothing.

use super::Which;
use super::addresses::Mac;

/// Time between two beacons.
pub const PERIOD_NS: u64 = 300_000_000;
/// A gateway that was not heard for so long on one side is not there any more.
pub const HOLD_NS: u64 = 1_000_000_000;
/// Gateways that are remembered.
const OTHERS_MAX: usize = 8;

/// Bytes of a beacon: the shortest frame.
pub const BEACON_LEN: usize = 60;
/// To all gateways: a locally administered group address.
const TO: Mac = [0x03, 0x52, 0x63, 0x47, 0x77, 0x01];
/// Local experimental EtherType 1 (IEEE 802, section 9.2.3).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// "RcGw", and the version of the beacon.
const MAGIC: [u8; 5] = [0x52, 0x63, 0x47, 0x77, 1];

/// What a gateway may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It forwards.
    Forwards,
    /// Another gateway joins the same two networks, and forwards.
    StandsBy,
    /// Frames come back to it: it forwards nothing.
    Loops,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    id: u64,
    /// When it was heard last on each side.
    heard_ns: [Option<u64>; 2],
}

/// What was heard.
#[derive(Debug)]
pub struct Beacons {
    id: u64,
    others: Vec<Other>,
    returned_ns: Option<u64>,
}

impl Beacons {
    /// Nothing was heard yet; `id` is random.
    #[must_use]
    pub fn new(id: u64) -> Beacons {
        Beacons { id, others: Vec::with_capacity(OTHERS_MAX), returned_ns: None }
    }

    /// The frame to send. Its source is an address of its own, since no host answers to it.
    #[must_use]
    pub fn frame(&self) -> [u8; BEACON_LEN] {
        let id = self.id.to_be_bytes();
        let mut frame = [0; BEACON_LEN];
        frame[..6].copy_from_slice(&TO);
        frame[6] = 0x02;
        frame[7..12].copy_from_slice(&id[..5]);
        frame[12..14].copy_from_slice(&ETHER_TYPE);
        frame[14..19].copy_from_slice(&MAGIC);
        frame[22..30].copy_from_slice(&id);
        frame
    }

    /// The number in a frame, if it is a beacon. A frame to gateways of another kind or version is
    /// one without number.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Option<u64>> {
        if frame.get(..6) != Some(&TO) || frame.get(12..14) != Some(&ETHER_TYPE) {
            return None;
        }
        let known = frame.get(14..19) == Some(&MAGIC);
        let id = frame.get(22..30).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
        Some(id.filter(|_| known))
    }

    /// A beacon with this number came in.
    pub fn on_heard(&mut self, id: u64, side: Which, now_ns: u64) {
        if id == self.id {
            self.returned_ns = Some(now_ns);
            return;
        }
        let at = self.others.iter().position(|other| other.id == id).or_else(|| {
            if self.others.len() >= OTHERS_MAX {
                self.others.retain(|other| is_near(other, now_ns));
            }
            if self.others.len() >= OTHERS_MAX {
                return None;
            }
            self.others.push(Other { id, heard_ns: [None; 2] });
            Some(self.others.len() - 1)
        });
        if let Some(at) = at {
            self.others[at].heard_ns[side as usize] = Some(now_ns);
        }
    }

    /// What the gateway may do now.
    #[must_use]
    pub fn standing(&self, now_ns: u64) -> Standing {
        if self.returned_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < HOLD_NS) {
            return Standing::Loops;
        }
        let yields = |other: &Other| {
            other.id < self.id && other.heard_ns.iter().all(|at_ns| is_fresh(*at_ns, now_ns))
        };
        if self.others.iter().any(yields) { Standing::StandsBy } else { Standing::Forwards }
    }
}

fn is_fresh(at_ns: Option<u64>, now_ns: u64) -> bool {
    at_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < HOLD_NS)
}

fn is_near(other: &Other, now_ns: u64) -> bool {
    other.heard_ns.iter().any(|at_ns| is_fresh(*at_ns, now_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_beacon_is_read_as_it_was_written_and_nothing_else_is_one() {
        let frame = Beacons::new(0x0102_0304_0506_0708).frame();
        assert_eq!(Beacons::read(&frame), Some(Some(0x0102_0304_0506_0708)));
        assert!(frame[0] & 1 == 1 && frame[6] & 1 == 0);
        let mut other = frame;
        other[18] = 2;
        assert_eq!(Beacons::read(&other), Some(None), "another version has no number");
        for change in [0, 12] {
            let mut other = frame;
            other[change] ^= 2;
            assert_eq!(Beacons::read(&other), None);
        }
        for length in 0..30 {
            assert!(Beacons::read(&frame[..length]).is_none_or(|id| id.is_none()));
        }
    }

    #[test]
    fn of_two_between_the_same_networks_one_forwards() {
        let (mut one, mut two) = (Beacons::new(1), Beacons::new(2));
        for (now_ns, side) in [(0, Which::Wire), (MILLI, Which::Host)] {
            one.on_heard(2, side, now_ns);
            two.on_heard(1, side, now_ns);
        }
        assert_eq!(one.standing(2 * MILLI), Standing::Forwards);
        assert_eq!(two.standing(2 * MILLI), Standing::StandsBy);
        assert_eq!(two.standing(HOLD_NS), Standing::Forwards, "the first one is gone");
        two.on_heard(1, Which::Wire, HOLD_NS);
        assert_eq!(two.standing(HOLD_NS + 2 * MILLI), Standing::Forwards, "on one side only");
    }

    #[test]
    fn who_hears_itself_forwards_nothing_for_a_while() {
        let mut one = Beacons::new(1);
        one.on_heard(1, Which::Host, 5);
        assert_eq!(one.standing(6), Standing::Loops);
        assert_eq!(one.standing(5 + HOLD_NS), Standing::Forwards);
    }

    #[test]
    fn a_flood_of_numbers_is_bounded_and_does_not_push_neighbours_out() {
        let mut last = Beacons::new(u64::MAX);
        last.on_heard(7, Which::Wire, 0);
        last.on_heard(7, Which::Host, 0);
        for id in 100..1000 {
            last.on_heard(id, Which::Wire, 1);
        }
        assert_eq!(last.others.len(), OTHERS_MAX);
        assert_eq!(last.standing(2), Standing::StandsBy);
        last.on_heard(3, Which::Wire, 2 * HOLD_NS);
        assert_eq!(last.others.len(), 1, "those that are gone make room");
    }
}
