//! Which hardware address is at which peer.
//!
//! A peer's own address comes with its hello; others, behind a peer that bridges, are learned from
//! what it sends. Invariants: an address that a live peer has does not move to another; the table
//! is bounded, and a peer has a bounded part of it; entries go with their peer.

use super::peer::PeerId;

/// Most addresses in the table.
pub const MACS_MAX: usize = 2048;
/// Most addresses at one peer.
pub const MACS_PER_PEER_MAX: u16 = 1024;
/// Places, so that a search always ends.
const PLACES: usize = 4096;

/// A frame's source, judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The peer's.
    Known,
    /// New; it is the peer's from now on.
    Learned,
    /// New, but there is no room: the frame passes, answers go to all.
    Unlearned,
    /// Another peer's, this host's, or no unicast address: drop the frame.
    Foreign,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To one peer.
    Peer(PeerId),
    /// To all: broadcast, multicast, or unknown.
    Everyone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    mac: u64,
    peer: PeerId,
}

/// The table.
#[derive(Debug)]
pub struct Macs {
    own: u64,
    key: u64,
    places: Box<[Option<Entry>]>,
    count: usize,
    /// The last one found, for traffic with one peer; or [`NOBODY`].
    last: Entry,
}

/// An entry of no address: 48 bits are all that one has.
const NOBODY: Entry = Entry { mac: u64::MAX, peer: PeerId(0) };

/// An address as a number.
#[must_use]
#[inline(always)]
pub fn number(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from(u32::from_le_bytes([a, b, c, d])) | u64::from(u16::from_le_bytes([e, f])) << 32
}

/// The bit of a group address.
const GROUP: u64 = 1;

impl Macs {
    /// An empty table for the host with this address; `key` is random, against addresses that
    /// are chosen to collide.
    #[must_use]
    pub fn new(own: [u8; 6], key: u64) -> Macs {
        let places = vec![None; PLACES].into_boxed_slice();
        Macs { own: number(own), key: key | 1, places, count: 0, last: NOBODY }
    }

    #[inline]
    fn place_of(&self, mac: u64) -> usize {
        let hash = (mac ^ self.key).wrapping_mul(self.key | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(hash >> 52).unwrap_or(0)
    }

    /// The place of the address, or the free one where it would be.
    fn find(&self, mac: u64) -> usize {
        let mut place = self.place_of(mac);
        while let Some(entry) = self.places[place]
            && entry.mac != mac
        {
            place = (place + 1) % PLACES;
        }
        place
    }

    /// Whether a peer other than `peer`, or this host, has the address.
    #[must_use]
    pub fn is_taken(&self, mac: [u8; 6], peer: PeerId) -> bool {
        let mac = number(mac);
        mac == self.own || self.places[self.find(mac)].is_some_and(|entry| entry.peer != peer)
    }

    /// The peer that has the address.
    #[must_use]
    pub fn holder(&self, mac: [u8; 6]) -> Option<PeerId> {
        self.places[self.find(number(mac))].map(|entry| entry.peer)
    }

    /// Gives a peer an address; false if it is taken, no unicast address, or there is no room.
    pub fn add(&mut self, mac: [u8; 6], peer: PeerId) -> bool {
        matches!(self.source(mac, peer), Source::Known | Source::Learned)
    }

    /// Whether this is the address, as a number, that was found last, at this peer.
    #[inline]
    #[must_use]
    pub fn is_last(&self, mac: u64, peer: PeerId) -> bool {
        self.last == (Entry { mac, peer })
    }

    /// Judges the source of a frame from a peer, and learns it.
    #[inline]
    pub fn source(&mut self, mac: [u8; 6], peer: PeerId) -> Source {
        let mac = number(mac);
        if self.last == (Entry { mac, peer }) {
            return Source::Known;
        }
        self.judge(mac, peer)
    }

    #[inline(never)]
    fn judge(&mut self, mac: u64, peer: PeerId) -> Source {
        if mac == self.own || mac & GROUP != 0 || mac == 0 {
            return Source::Foreign;
        }
        let place = self.find(mac);
        let entry = Entry { mac, peer };
        match self.places[place] {
            Some(found) if found.peer != peer => Source::Foreign,
            Some(_) => {
                self.last = entry;
                Source::Known
            }
            None => {
                let held = self.places.iter().flatten().filter(|entry| entry.peer == peer).count();
                if self.count >= MACS_MAX || held >= usize::from(MACS_PER_PEER_MAX) {
                    return Source::Unlearned;
                }
                self.places[place] = Some(entry);
                self.count += 1;
                self.last = entry;
                Source::Learned
            }
        }
    }

    /// Where a frame for this address, a [`number`], goes.
    #[inline]
    #[must_use]
    pub fn target(&self, mac: u64) -> Target {
        if self.last.mac == mac { Target::Peer(self.last.peer) } else { self.look_up(mac) }
    }

    #[inline(never)]
    fn look_up(&self, mac: u64) -> Target {
        if mac & GROUP != 0 {
            return Target::Everyone;
        }
        self.places[self.find(mac)].map_or(Target::Everyone, |entry| Target::Peer(entry.peer))
    }

    /// A peer is gone, and its addresses with it.
    pub fn forget(&mut self, peer: PeerId) {
        let kept: Vec<Entry> =
            self.places.iter().flatten().copied().filter(|entry| entry.peer != peer).collect();
        self.places.fill(None);
        self.last = NOBODY;
        self.count = kept.len();
        for entry in kept {
            let place = self.find(entry.mac);
            self.places[place] = Some(entry);
        }
    }

    /// Addresses in the table.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const A: PeerId = PeerId(0);
    const B: PeerId = PeerId(1);

    fn mac(n: u16) -> [u8; 6] {
        let [high, low] = n.to_be_bytes();
        [2, 0, 0, 1, high, low]
    }

    #[test]
    fn addresses_do_not_move_while_their_peer_lives() {
        let mut macs = Macs::new(OWN, 7);
        assert!(macs.add(mac(1), A) && macs.add(mac(2), B));
        let rows = [
            ("its own", mac(1), A, Source::Known),
            ("the other's", mac(2), A, Source::Foreign),
            ("the other's", mac(1), B, Source::Foreign),
            ("behind it", mac(3), A, Source::Learned),
            ("again", mac(3), A, Source::Known),
            ("moved", mac(3), B, Source::Foreign),
            ("this host's", OWN, A, Source::Foreign),
            ("multicast", [1, 0, 0, 0, 0, 1], A, Source::Foreign),
            ("empty", [0; 6], A, Source::Foreign),
        ];
        for (name, mac, peer, expected) in rows {
            assert_eq!(macs.source(mac, peer), expected, "{name}");
        }
        assert_eq!(macs.target(number(mac(3))), Target::Peer(A));
        assert!(macs.is_taken(mac(3), B) && !macs.is_taken(mac(3), A) && macs.is_taken(OWN, A));
        macs.forget(A);
        assert_eq!(macs.target(number(mac(3))), Target::Everyone);
        assert_eq!(macs.target(number(mac(2))), Target::Peer(B));
        assert_eq!(macs.source(mac(3), B), Source::Learned);
    }

    #[test]
    fn broadcast_multicast_and_unknown_go_to_all() {
        let macs = Macs::new(OWN, 7);
        for mac in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], mac(9)] {
            assert_eq!(macs.target(number(mac)), Target::Everyone);
        }
    }

    #[test]
    fn the_table_is_bounded_for_each_peer_and_in_all() {
        let mut macs = Macs::new(OWN, 0);
        for n in 0..MACS_PER_PEER_MAX {
            assert_eq!(macs.source(mac(n), A), Source::Learned);
        }
        assert_eq!(macs.source(mac(5000), A), Source::Unlearned);
        for n in 0..MACS_PER_PEER_MAX {
            assert_eq!(macs.source(mac(10_000 + n), B), Source::Learned);
        }
        assert_eq!(macs.source(mac(5000), PeerId(2)), Source::Unlearned);
        assert_eq!(macs.count(), MACS_MAX);
        assert_eq!(macs.source(mac(77), A), Source::Known);
        macs.forget(A);
        assert_eq!(macs.count(), usize::from(MACS_PER_PEER_MAX));
    }
}
