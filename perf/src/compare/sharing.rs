//! Whether two virtual processors are one physical core at the moment: a hypervisor need not say,
//! and may move them.
//!
//! Two cores do as much work each as one alone. Two threads of one core share its multiplier, and
//! each takes about twice the time. Latency tells less: a cache line takes 70 ns between threads of
//! a core on one processor, and as long between two cores of another.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Look;
use super::line::round_trip_ns;
use crate::arithmetic::{nanoseconds, real};
use crate::local::{Cores, pin};

/// Rounds, of which the fastest counts: whatever else runs on the machine only makes them slower.
const ROUNDS: usize = 5;
/// Multiplications of one measurement: about 20 µs.
const MULTIPLICATIONS: u64 = 60_000;
/// Chains that do not wait for each other: more than a multiplier has stages.
const CHAINS: usize = 6;
/// One core that two threads share makes each at least so much slower; half of 2 and 1.
const SLOWDOWN_MIN: f64 = 1.5;

/// The surroundings of these two cores at the moment.
#[must_use]
pub fn look(cores: Cores) -> Look {
    Look { flaw: shared_core(cores), line_ns: round_trip_ns(cores) }
}

/// Why figures of these two cores would be of one physical core, if so.
fn shared_core(cores: Cores) -> Option<String> {
    let slowdown = slowdown(cores)?;
    (slowdown >= SLOWDOWN_MIN).then(|| {
        format!("each cpu worked {slowdown:.1} times slower beside the other: one physical core")
    })
}

/// The time of a piece of work with the other core busy, to that with it at rest; `None` if the
/// cores are not known, or are one. The calling thread is left pinned.
fn slowdown(cores: Cores) -> Option<f64> {
    let (Some(client), Some(server)) = (cores.client, cores.server) else { return None };
    if client == server {
        return None;
    }
    let (barrier, stop) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _pinned_or_not = pin(cores.server);
            for _ in 0..ROUNDS {
                barrier.wait();
                while !stop.load(Ordering::Relaxed) {
                    work(MULTIPLICATIONS / 16);
                }
                barrier.wait();
            }
        });
        let _pinned_or_not = pin(cores.client);
        let (mut alone, mut beside) = (u64::MAX, u64::MAX);
        for _ in 0..ROUNDS {
            alone = alone.min(timed());
            stop.store(false, Ordering::Relaxed);
            barrier.wait();
            // The first piece lets the other core wake up.
            work(MULTIPLICATIONS);
            beside = beside.min(timed());
            stop.store(true, Ordering::Relaxed);
            barrier.wait();
        }
        Some(real(beside) / real(alone.max(1)))
    })
}

fn timed() -> u64 {
    let start = Instant::now();
    work(MULTIPLICATIONS);
    nanoseconds(start.elapsed())
}

/// Keeps the multiplier busy.
fn work(multiplications: u64) {
    let mut chains = [3_u64; CHAINS];
    for round in 0..multiplications / CHAINS as u64 {
        for chain in &mut chains {
            *chain = chain.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
        }
    }
    black_box(chains);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_are_not_two_are_not_compared() {
        assert_eq!(slowdown(Cores::default()), None);
        assert_eq!(slowdown(Cores { client: Some(0), server: Some(0) }), None);
    }

    #[test]
    fn any_two_cores_give_a_number() {
        let cores = Cores { client: Some(0), server: Some(1) };
        let slowdown = slowdown(cores).unwrap();
        assert!(slowdown.is_finite() && slowdown > 0.0, "{slowdown}");
    }
}
