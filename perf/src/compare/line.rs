//! Cache lines between two cores: what the machine itself needs for a round trip.
//!
//! `line` is one line that both cores write in turn. `pair` is the least that a link can do whose
//! memory has one writer each: question and answer in lines of their own, and each message in the
//! next slot of a ring. On some machines that is no slower; on others it takes twice as long, for a
//! line that both write brings its own permission to be written along.
//!
//! How long a line takes depends on its address, which says where the machine keeps its books about
//! it: 190 ns for one and 340 for another were seen on one machine. So many lines take turns.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::rivals::{Contender, rtt_row};
use super::{Measured, Plan};
use crate::arithmetic::nanoseconds;
use crate::histogram::Latency;
use crate::local::{Cores, pin};
use crate::report::Place;

/// Looks at the stop flag once in so many spins.
const SPINS: u32 = 1024;
/// Lines that take turns; together they fit into a core's first cache.
const LINES: usize = 64;
/// Round trips that a line has before it is the next one's turn, where both cores write it.
const ROUNDS_PER_LINE: u64 = 64;

/// A counter with a pair of cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

type Lines = [Line; LINES];

const fn lines() -> Lines {
    [const { Line(AtomicU64::new(0)) }; LINES]
}

/// The ping-pong of a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineRival {
    /// One line there and back.
    One,
    /// A line there and another one back.
    Pair,
}

/// The median round trip of one line at the moment, in a few milliseconds; `None` if the cores are
/// not known, or are one. The calling thread is left pinned.
pub(super) fn round_trip_ns(cores: Cores) -> Option<f64> {
    let (client, server) = (cores.client?, cores.server?);
    let brief = Plan {
        length: Duration::from_millis(3),
        warmup: Duration::from_millis(1),
        ..Plan::new(cores)
    };
    (client != server).then(|| LineRival::One.measure(&brief).ok())??.row.p50_ns
}

/// Where questions and answers lie: both in the same lines, or each in lines of their own.
struct Places<'a> {
    questions: &'a Lines,
    answers: &'a Lines,
    rounds_per_line: u64,
}

impl Places<'_> {
    fn question(&self, round: u64) -> &AtomicU64 {
        &self.questions[self.turn(round)].0
    }

    fn answer(&self, round: u64) -> &AtomicU64 {
        &self.answers[self.turn(round)].0
    }

    fn turn(&self, round: u64) -> usize {
        usize::try_from(round / self.rounds_per_line).unwrap_or(0) % LINES
    }
}

impl Contender for LineRival {
    fn name(&self) -> String {
        match self {
            Self::One => "line".into(),
            Self::Pair => "line, pair".into(),
        }
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let (questions, answers, stop) = (lines(), lines(), AtomicBool::new(false));
        let places = match self {
            Self::One => Places {
                questions: &questions,
                answers: &questions,
                rounds_per_line: ROUNDS_PER_LINE,
            },
            Self::Pair => Places { questions: &questions, answers: &answers, rounds_per_line: 1 },
        };
        let latency = std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Result<(), String> {
                pin(plan.cores.server).map_err(|error| error.to_string())?;
                answer(&places, &stop);
                Ok(())
            });
            let latency = pin(plan.cores.client)
                .map_err(|error| error.to_string())
                .map(|()| ask(&places, plan, || other.is_finished()));
            stop.store(true, Ordering::Relaxed);
            match other.join() {
                Ok(Ok(())) => latency,
                Ok(Err(error)) => Err(error),
                Err(_) => Err("its other thread died".into()),
            }
        })?;
        let mode = (*self == Self::Pair).then(|| "pair".to_owned());
        let place = Place { stack: "line".into(), device: "soft".into(), mode };
        Ok(rtt_row("TCP_RR", place, latency))
    }
}

/// Round `n` asks with `2 n + 1` and is answered with `2 n + 2`.
fn answer(places: &Places<'_>, stop: &AtomicBool) {
    let (mut round, mut spins) = (0, 0_u32);
    let mut question = places.question(0);
    loop {
        if question.load(Ordering::Acquire) == 2 * round + 1 {
            places.answer(round).store(2 * round + 2, Ordering::Release);
            round += 1;
            question = places.question(round);
            continue;
        }
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS) && stop.load(Ordering::Relaxed) {
            return;
        }
        spin_loop();
    }
}

fn ask(places: &Places<'_>, plan: &Plan, gone: impl Fn() -> bool) -> Latency {
    let mut latency = Latency::new();
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let (mut before, mut round) = (0, 0);
    while before < all {
        let (question, answer) = (places.question(round), places.answer(round));
        question.store(2 * round + 1, Ordering::Release);
        let mut spins = 0_u32;
        while answer.load(Ordering::Acquire) != 2 * round + 2 {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(SPINS) && gone() {
                return latency;
            }
            spin_loop();
        }
        round += 1;
        let now = nanoseconds(start.elapsed());
        if before >= warmup {
            latency.record(now - before);
        }
        before = now;
    }
    latency
}
