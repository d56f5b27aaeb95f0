//! One cache line between two cores: what the machine itself needs for a round trip.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::rivals::{Contender, rtt_row};
use super::{Measured, Plan};
use crate::arithmetic::nanoseconds;
use crate::histogram::Latency;
use crate::local::pin;
use crate::report::Place;

/// Looks at the stop flag once in so many spins.
const SPINS: u32 = 1024;

/// A counter with a pair of cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// The ping-pong of one cache line.
#[derive(Debug)]
pub(super) struct LineRival;

impl Contender for LineRival {
    fn name(&self) -> String {
        "line".into()
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let (line, stop) = (Line::default(), AtomicBool::new(false));
        let latency = std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Result<(), String> {
                pin(plan.cores.server).map_err(|error| error.to_string())?;
                answer(&line, &stop);
                Ok(())
            });
            let latency = pin(plan.cores.client)
                .map_err(|error| error.to_string())
                .map(|()| ask(&line, plan, || other.is_finished()));
            stop.store(true, Ordering::Relaxed);
            match other.join() {
                Ok(Ok(())) => latency,
                Ok(Err(error)) => Err(error),
                Err(_) => Err("its other thread died".into()),
            }
        })?;
        let place = Place { stack: "line".into(), device: "soft".into(), mode: None };
        Ok(rtt_row("TCP_RR", place, latency))
    }
}

/// Odd numbers are questions, even ones answers.
fn answer(line: &Line, stop: &AtomicBool) {
    let (mut expected, mut spins) = (1, 0_u32);
    loop {
        if line.0.load(Ordering::Acquire) == expected {
            line.0.store(expected + 1, Ordering::Release);
            expected += 2;
            continue;
        }
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS) && stop.load(Ordering::Relaxed) {
            return;
        }
        spin_loop();
    }
}

fn ask(line: &Line, plan: &Plan, gone: impl Fn() -> bool) -> Latency {
    let mut latency = Latency::new();
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let (mut before, mut question) = (0, 1);
    while before < all {
        line.0.store(question, Ordering::Release);
        let mut spins = 0_u32;
        while line.0.load(Ordering::Acquire) != question + 1 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(SPINS) && gone() {
                return latency;
            }
            spin_loop();
        }
        question += 2;
        let now = nanoseconds(start.elapsed());
        if before >= warmup {
            latency.record(now - before);
        }
        before = now;
    }
    latency
}
