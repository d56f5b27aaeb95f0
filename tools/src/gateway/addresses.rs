//! On which side of the gateway a hardware address is.
//!
//! Addresses are learned from the frames that they send, kept for a while, and never more than a
//! stated number. Invariant: an address that was heard within [`SETTLED_NS`] does not change sides:
//! a frame that comes back through another way than this gateway is not believed, nor passed on.

use std::collections::HashMap;

use super::Which;

/// Most addresses, unless another number is given.
pub const ADDRESSES_MAX: u32 = 4096;
/// How long an address is kept that is not heard, unless another time is given.
pub const AGE_NS: u64 = 300_000_000_000;
/// How long an address is sure to be where it was heard.
pub const SETTLED_NS: u64 = 1_000_000_000;

/// The hardware address of a host.
pub type Mac = [u8; 6];

/// Whether the address names several hosts.
#[must_use]
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// What a frame's source means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// It is where it was, or new, or it moved.
    Sound,
    /// There is no room to remember it; the frame passes.
    Unlearned,
    /// It was heard on the other side a moment ago: the frame took a way around the gateway.
    Elsewhere,
    /// No host has this address.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    side: Which,
    heard_ns: u64,
}

/// The table. Its hash is keyed anew in each process.
#[derive(Debug)]
pub struct Addresses {
    entries: HashMap<Mac, Entry>,
    most: usize,
    age_ns: u64,
    /// How often an address changed sides.
    pub moved: u64,
    /// How many were forgotten since they were not heard.
    pub aged: u64,
}

impl Addresses {
    /// An empty table; it allocates all that it will need.
    #[must_use]
    pub fn new(most: u32, age_ns: u64) -> Addresses {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Addresses { entries: HashMap::with_capacity(most), most, age_ns, moved: 0, aged: 0 }
    }

    /// A frame from `mac` came in on this side.
    pub fn on_source(&mut self, mac: Mac, side: Which, now_ns: u64) -> Source {
        if is_group(mac) || mac == [0; 6] {
            return Source::Nobody;
        }
        if let Some(entry) = self.entries.get_mut(&mac) {
            if entry.side != side {
                if now_ns.saturating_sub(entry.heard_ns) < SETTLED_NS {
                    return Source::Elsewhere;
                }
                self.moved += 1;
                entry.side = side;
            }
            entry.heard_ns = now_ns;
            return Source::Sound;
        }
        if self.entries.len() >= self.most {
            return Source::Unlearned;
        }
        self.entries.insert(mac, Entry { side, heard_ns: now_ns });
        Source::Sound
    }

    /// The side of an address; nothing if it is unknown or a group.
    #[must_use]
    pub fn side_of(&self, mac: Mac, now_ns: u64) -> Option<Which> {
        let entry = self.entries.get(&mac)?;
        (now_ns.saturating_sub(entry.heard_ns) < self.age_ns).then_some(entry.side)
    }

    /// Forgets those that were not heard for long.
    pub fn sweep(&mut self, now_ns: u64) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| now_ns.saturating_sub(entry.heard_ns) < self.age_ns);
        self.aged += u64::try_from(before - self.entries.len()).unwrap_or(0);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const C: Mac = [2, 0, 0, 0, 0, 3];
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn addresses_are_learned_move_when_they_are_quiet_and_age() {
        let mut all = Addresses::new(10, 5 * SECOND);
        assert_eq!(all.on_source(A, Which::Wire, 0), Source::Sound);
        assert_eq!(all.side_of(A, 1), Some(Which::Wire));
        assert_eq!(all.on_source(A, Which::Host, SECOND / 2), Source::Elsewhere);
        assert_eq!(all.side_of(A, SECOND / 2), Some(Which::Wire), "not believed");
        assert_eq!(all.on_source(A, Which::Host, 2 * SECOND), Source::Sound);
        assert_eq!((all.side_of(A, 2 * SECOND), all.moved), (Some(Which::Host), 1));
        assert_eq!(all.side_of(A, 7 * SECOND), None, "too old to be relied on");
        all.sweep(7 * SECOND);
        assert_eq!((all.count(), all.aged), (0, 1));
    }

    #[test]
    fn the_table_is_bounded_and_has_room_again() {
        let mut all = Addresses::new(2, 5 * SECOND);
        let capacity = all.entries.capacity();
        assert_eq!(all.on_source(A, Which::Wire, 0), Source::Sound);
        assert_eq!(all.on_source(B, Which::Host, SECOND), Source::Sound);
        assert_eq!(all.on_source(C, Which::Host, SECOND), Source::Unlearned);
        assert_eq!(all.side_of(C, SECOND), None);
        all.sweep(5 * SECOND);
        assert_eq!(all.on_source(C, Which::Host, 5 * SECOND), Source::Sound);
        assert_eq!((all.count(), all.entries.capacity()), (2, capacity));
    }

    #[test]
    fn groups_and_nothing_are_nobody() {
        let mut all = Addresses::new(2, SECOND);
        for mac in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0; 6]] {
            assert_eq!(all.on_source(mac, Which::Wire, 0), Source::Nobody);
            assert_eq!(all.side_of(mac, 0), None);
        }
    }
}
