//! `perf compare`: who is how fast, in one run, interleaved, on one machine.
//!
//! A contender measures one row; a block is a list of contenders that take turns, round by round,
//! so that the machine's mood hits all alike. Figures are medians over repetitions, and ratios
//! medians over rounds of the ratio in each: who is compared comes one after the other. A
//! measurement during which the two virtual cpus shared one physical core, or were moved to
//! another place, is dropped, and another round is made.

mod bare;
mod capture;
mod churn;
mod idle;
mod line;
mod link;
mod ours;
#[cfg(feature = "lwip")]
mod peer_lwip;
#[cfg(feature = "smoltcp")]
mod peer_smoltcp;
#[cfg(any(feature = "smoltcp", feature = "lwip"))]
mod peers;
mod rivals;
mod sharing;
mod summary;
mod surroundings;
mod tap;
mod veth;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use capture::append;
pub use rivals::{Case, Contender, Extras, KernelRival, MESSAGE_LARGE, soft_block};
pub(crate) use rivals::{measured, workload};
pub use sharing::look;
pub use summary::{Ratio, ratios};
pub use veth::{CHILD_ARGUMENT, VethKernel, child, parent};

use self::surroundings::Samples;
use crate::histogram::Latency;
use crate::local::Cores;
use crate::report::Row;
use crate::state::WorkerState;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Measurements that must count, of each row.
    pub repetitions: usize,
    /// Rounds beyond so many, if some must not count.
    pub spare: usize,
    /// Length of each measurement.
    pub length: Duration,
    /// Warm-up of each measurement.
    pub warmup: Duration,
    /// The cores of both ends.
    pub cores: Cores,
    /// Only contenders whose name contains one of these, if there are any.
    pub only: Vec<String>,
    /// Whether Roceway's workers are to tell of themselves at the end.
    pub counters: bool,
    /// Where frames of Roceway's rows go, in runs of their own after all measurements.
    pub capture: Option<PathBuf>,
    /// Once set, a worker's state goes to standard error: the client's, the server's.
    pub asked: Option<[Arc<AtomicBool>; 2]>,
}

impl Plan {
    /// The default: 5 repetitions and 5 spare rounds of 25 rows, each 0.25 s and its start.
    #[must_use]
    pub fn new(cores: Cores) -> Self {
        Self {
            repetitions: 5,
            spare: 5,
            length: Duration::from_millis(200),
            warmup: Duration::from_millis(50),
            cores,
            only: Vec::new(),
            counters: false,
            capture: None,
            asked: None,
        }
    }
}

/// What a worker told of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Whose worker.
    pub whose: String,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
}

impl Told {
    fn new(whose: &str, state: &WorkerState) -> Self {
        Self { whose: whose.to_owned(), text: state.text(whose), json: state.json() }
    }
}

/// What one contender measured in one repetition.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Its latencies, if it has any.
    pub latency: Option<Latency>,
}

/// What came of a block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Medians over the repetitions that count.
    pub rows: Vec<Row>,
    /// The rows of each round, as far as they count: what ratios are taken of.
    pub rounds: Vec<Vec<Row>>,
    /// Latencies of all repetitions that count, with the name of each row.
    pub latencies: Vec<(String, Latency)>,
    /// What the reader must know: dropped repetitions, contenders that failed.
    pub notes: Vec<String>,
    /// What the workers told at the end, if the plan asks.
    pub workers: Vec<Told>,
    /// Measurements that count, of the row that has the fewest.
    pub repetitions: usize,
}

/// Tells who is being measured: in which round, how many repetitions must count, and the row.
pub type Watch<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// The contenders that open and close connections; each is to be measured for [`CHURN_LENGTH`].
#[must_use]
pub fn churn_block() -> Vec<Box<dyn Contender>> {
    churn::both()
}

/// So long that every port of the client is used many times.
pub const CHURN_LENGTH: Duration = Duration::from_secs(10);

/// What a referee sees before or after a measurement.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Why the measurement must not count, if so.
    pub flaw: Option<String>,
    /// How long a cache line takes there and back, if there are two cores.
    pub line_ns: Option<f64>,
}

/// Looks at the surroundings; asked before and after each measurement. [`look`] does.
pub type Referee<'a> = &'a mut dyn FnMut() -> Look;

/// Runs a block. A contender that fails is left out from then on, and the reason is noted.
pub fn run(
    plan: &Plan,
    contenders: &mut Vec<Box<dyn Contender + '_>>,
    referee: Referee<'_>,
    watch: Watch<'_>,
) -> Block {
    let mut block = Block::default();
    let wanted = |name: &str| plan.only.iter().any(|text| name.contains(text.as_str()));
    contenders.retain(|contender| plan.only.is_empty() || wanted(&contender.name()));
    if contenders.is_empty() {
        return block;
    }
    let mut samples = Samples::default();
    let mut names: Vec<String> = contenders.iter().map(|contender| contender.name()).collect();
    let mut rounds = 0;
    let rounds_max = plan.repetitions + plan.spare;
    while !contenders.is_empty() && samples.fewest(&names) < plan.repetitions && rounds < rounds_max
    {
        rounds += 1;
        let mut before = referee();
        contenders.retain_mut(|contender| {
            let name = contender.name();
            watch(rounds, plan.repetitions, &name);
            let measured = match contender.measure(plan) {
                Ok(measured) => measured,
                Err(reason) => {
                    block.notes.push(format!("{name} is left out: {reason}"));
                    return false;
                }
            };
            let after = referee();
            samples.add((name, rounds), measured, (&before, &after));
            before = after;
            true
        });
        names = contenders.iter().map(|contender| contender.name()).collect();
    }
    block.repetitions = samples.fewest(&names);
    let (counting, others) = samples.split(&names);
    block.notes.extend(others);
    block.notes.extend(contenders.iter().flat_map(|contender| contender.notes()));
    block.workers.extend(contenders.iter_mut().flat_map(|contender| contender.states()));
    if let Some(path) = &plan.capture {
        block.notes.extend(capture::all(plan, path, contenders));
    }
    summary::reduce(&mut block, &counting);
    block
}

/// The whole comparison as one document.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Effective options.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Medians.
    pub rows: Vec<Row>,
    /// Medians over rounds.
    pub ratios: Vec<Ratio>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// What the workers told at the end, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_name")]
    pub workers: Option<Vec<Told>>,
}

/// Workers as an object, by whose they are.
fn by_name<S: serde::Serializer>(all: &Option<Vec<Told>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(all.iter().flatten().map(|told| (&told.whose, &told.json)))
}

#[cfg(test)]
mod tests;
