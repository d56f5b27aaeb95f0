//! Path MTUs that differ from the interface's (RFC 1191, RFC 8201): a short list, the oldest of
//! which goes when it is full.

use core::net::IpAddr;

use arrayvec::ArrayVec;

use crate::time::{Duration, Instant};

/// Most paths remembered.
const PATHS_MAX: usize = 32;
/// How long (RFC 1191 §6.3: two minutes at least, ten are recommended).
const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct PathMtu {
    destination: IpAddr,
    mtu: u16,
    until: Instant,
}

/// The list, the oldest first.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    paths: ArrayVec<PathMtu, PATHS_MAX>,
}

impl PathMtus {
    pub(super) fn get(&self, destination: IpAddr) -> Option<u16> {
        let same = |path: &&PathMtu| path.destination == destination;
        self.paths.iter().find(same).map(|path| path.mtu)
    }

    pub(super) fn note(&mut self, now: Instant, destination: IpAddr, mtu: u16) {
        self.paths.retain(|path| path.destination != destination);
        if self.paths.is_full() {
            self.paths.remove(0);
        }
        self.paths.push(PathMtu { destination, mtu, until: now + LIFETIME });
    }

    pub(super) fn deadline(&self) -> Instant {
        self.paths.first().map_or(Instant::NEVER, |path| path.until)
    }

    pub(super) fn on_timers(&mut self, now: Instant) {
        if self.deadline() <= now {
            self.paths.retain(|path| path.until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_expire_and_the_oldest_goes_first() {
        let mut paths = PathMtus::default();
        let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]);
        for n in 0..=PATHS_MAX {
            paths.note(Instant::from_nanos(n as u64), address(n), 1400);
        }
        assert_eq!(paths.get(address(0)), None);
        assert_eq!(paths.get(address(1)), Some(1400));
        paths.note(Instant::from_nanos(99), address(1), 1300);
        assert_eq!(paths.get(address(1)), Some(1300));
        paths.on_timers(Instant::ZERO + LIFETIME + Duration::from_nanos(98));
        assert_eq!(paths.get(address(2)), None);
        assert_eq!(paths.get(address(1)), Some(1300));
    }
}
