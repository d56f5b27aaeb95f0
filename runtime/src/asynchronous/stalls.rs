//! Which tasks held their worker up. Owns the counts; never interrupts anybody.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A poll longer than this is a stall.
const STALL: Duration = Duration::from_millis(1);
/// Names kept; further ones are counted under [`OTHERS`].
const NAMES_MAX: usize = 256;
/// The name for the rest.
const OTHERS: &str = "others";

/// Stalls of the tasks of one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// The name given at spawning.
    pub name: &'static str,
    /// Polls longer than a millisecond.
    pub count: u64,
    /// The longest of them, in nanoseconds.
    pub longest_ns: u64,
}

/// Stalls by name.
#[derive(Default)]
pub(super) struct Stalls(RefCell<Vec<Stall>>);

impl Stalls {
    /// Runs a poll and counts it if it was a stall.
    pub(super) fn measure<T>(&self, name: &'static str, poll: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = poll();
        let took = start.elapsed();
        if took > STALL {
            self.add(name, took);
        }
        value
    }

    #[cold]
    fn add(&self, name: &'static str, took: Duration) {
        let mut stalls = self.0.borrow_mut();
        let name = if stalls.len() < NAMES_MAX { name } else { OTHERS };
        let longest_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        match stalls.iter_mut().find(|stall| stall.name == name) {
            Some(stall) => {
                stall.count += 1;
                stall.longest_ns = stall.longest_ns.max(longest_ns);
            }
            None => stalls.push(Stall { name, count: 1, longest_ns }),
        }
    }

    /// Calls `visit` with each.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Stall)) {
        self.0.borrow().iter().for_each(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_polls_are_counted_under_their_name() {
        let stalls = Stalls::default();
        stalls.measure("quick", || ());
        for _ in 0..2 {
            stalls.measure("slow", || std::thread::sleep(Duration::from_millis(2)));
        }
        let mut seen = Vec::new();
        stalls.visit(&mut |stall| seen.push((stall.name, stall.count)));
        assert_eq!(seen, [("slow", 2)]);
    }
}
