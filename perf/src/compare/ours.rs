//! Roceway among the contenders: over the soft link with its variants, and over a veth pair.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::bare::LARGE_DEPTH;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::{Prefix, WorkerConfig};

use super::link::{LinkRival, RECEIVE_LEN_LARGE, RECEIVES_LARGE, ZERO_COPY_LARGE};
use super::rivals::{Case, Contender, cases, measured, workload};
use super::{Measured, Plan, Told};
use crate::arithmetic::real;
use crate::ends::{self, ADDRESSES, Opening};
use crate::recorder::{Until, Window};
use crate::report::Place;
use crate::state::WorkerState;
use crate::workload::{Outcome, Workload};

/// How Roceway runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    /// Over the soft link: large segments whole, checksums left to it.
    Soft,
    /// The same, and every checksum computed at both ends.
    SoftChecksums,
    /// Every frame has at most 1500 bytes; checksums left to the link.
    SoftFrames,
    /// The same, and every checksum computed at both ends.
    SoftFramesChecksums,
    /// As `Soft`, without copies at either end.
    ZeroCopy,
    /// The same in receive buffers of 64 KiB.
    ZeroCopyLarge,
    /// Over the two ends of a veth pair.
    Veth,
    /// As `Soft`, with [`IDLE_CONNECTIONS`] open besides.
    Idle,
    /// As `Soft`, with [`ACTIVE_CONNECTIONS`], all active.
    Active,
}

/// Idle connections of the row that has some.
pub(super) const IDLE_CONNECTIONS: usize = 10_000;
/// Active connections of the rows that have many.
pub(super) const ACTIVE_CONNECTIONS: usize = 1000;

impl Variant {
    fn place(self) -> Place {
        let (device, mode) = match self {
            Self::Soft => ("soft", "copy"),
            Self::SoftChecksums => ("soft", "copy+csum"),
            Self::SoftFrames => ("soft", "copy/1500"),
            Self::SoftFramesChecksums => ("soft", "copy/1500+csum"),
            Self::ZeroCopy => ("soft", "zero-copy"),
            Self::ZeroCopyLarge => ("soft", ZERO_COPY_LARGE),
            Self::Veth => ("veth", "copy"),
            Self::Idle => ("soft", "copy, 10k idle"),
            Self::Active => ("soft", "copy, 1000"),
        };
        Place { stack: "roceway".into(), device: device.into(), mode: Some(mode.into()) }
    }

    fn nics(self) -> Result<(AnyNic, AnyNic), String> {
        let (large, csum) = match self {
            Self::Soft | Self::ZeroCopy | Self::ZeroCopyLarge | Self::Idle | Self::Active => {
                (true, true)
            }
            Self::SoftFrames => (false, true),
            Self::SoftChecksums | Self::SoftFramesChecksums => (false, false),
            Self::Veth => {
                let [here, there] = PAIR.map(|name| spec::open(&format!("packet:{name}")));
                return Ok((here.map_err(text)?, there.map_err(text)?));
            }
        };
        let options = SoftOptions { large, csum, ..SoftOptions::default() };
        ends::soft_pair(&options).map_err(text)
    }
}

/// Names of the veth pair under Roceway.
pub(super) const PAIR: [&str; 2] = ["rclient", "rserver"];

/// An error in words; by value, for `map_err`.
fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

/// Transactions of a captured run, and bytes of a stream: some hundred frames.
const CAPTURED: (u64, u64) = (100, 1 << 20);

/// Roceway at both ends, each worker on its core, spinning.
#[derive(Debug)]
struct RocewayRival {
    case: Case,
    variant: Variant,
    /// Of client and server, at the end of the last measurement.
    states: Option<[WorkerState; 2]>,
}

impl RocewayRival {
    fn workload(&self, plan: &Plan) -> Workload {
        let mut workload = workload(self.case, plan);
        if self.variant == Variant::Active {
            workload.connections = ACTIVE_CONNECTIONS;
        }
        workload
    }

    fn run(
        &self,
        plan: &Plan,
        workload: &Workload,
        capture: Option<&Path>,
    ) -> Result<(Outcome, [WorkerState; 2]), String> {
        let config = WorkerConfig::new(Prefix { address: ADDRESSES[0].into(), length: 24 });
        let mut opening = Opening::new(config.spinning(), workload.buffers);
        opening.keep_end = plan.counters || !self.case.test.has_rtt();
        opening.zero_copy = matches!(self.variant, Variant::ZeroCopy | Variant::ZeroCopyLarge);
        if opening.zero_copy {
            opening.config.memory.blocks = u32::try_from(LARGE_DEPTH).unwrap_or(0);
        }
        if self.variant == Variant::ZeroCopyLarge {
            opening.config.queue_size = Some(RECEIVES_LARGE);
            // As many again wait to be posted, or nearly so: four times the default's part.
            opening.config.memory.receive = 4 * u32::from(RECEIVES_LARGE);
            opening.config.memory.receive_len = RECEIVE_LEN_LARGE;
        }
        let idle_connections = if self.variant == Variant::Idle { IDLE_CONNECTIONS } else { 0 };
        let mut ends = [
            Opening { idle_connections, ..opening.clone() }.at(ADDRESSES[0], plan.cores.client),
            opening.at(ADDRESSES[1], plan.cores.server),
        ];
        // What one end sends the other receives: one file holds all.
        ends[0].config.capture = capture.map(Path::to_owned);
        if let Some(asked) = &plan.asked {
            for (end, flag) in ends.iter_mut().zip(asked) {
                end.asked = Some(Arc::clone(flag));
            }
        }
        ends::pair(self.variant.nics()?, &ends, workload, &mut |_| ()).map_err(text)
    }
}

impl Contender for RocewayRival {
    fn name(&self) -> String {
        let Place { stack, device, mode } = self.variant.place();
        format!("{stack}, {device}, {}, {}", mode.unwrap_or_default(), self.case.name())
    }

    fn states(&mut self) -> Vec<Told> {
        let name = self.name();
        let states = self.states.take().into_iter().flatten();
        let whose = ["the client", "the server"].map(|end| format!("{end} of {name}"));
        whose.iter().zip(states).map(|(whose, state)| Told::new(whose, &state)).collect()
    }

    fn capture(&mut self, plan: &Plan, path: &Path) -> Result<bool, String> {
        let mut workload = self.workload(plan);
        let count = if self.case.test.has_rtt() { CAPTURED.0 } else { CAPTURED.1 };
        let until = Until::Count(count);
        workload.window = Window { warmup: Duration::ZERO, until, interval: None };
        self.run(plan, &workload, Some(path)).map(|_outcome| true)
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let workload = self.workload(plan);
        let (outcome, states) = self.run(plan, &workload, None)?;
        let mut all = measured(&workload, &self.variant.place(), outcome);
        if !self.case.test.has_rtt() {
            all.row.copies_per_byte = copies(&states);
        }
        self.states = plan.counters.then_some(states);
        Ok(all)
    }
}

/// Bytes that the sockets and stacks of both ends copied, for each that one of them received:
/// written or read by copying, moved together to free slots, or copied since too many were lent.
fn copies(states: &[WorkerState; 2]) -> Option<f64> {
    const COPIES: [(&str, &str); 4] = [
        ("tcp", "bytes_written"),
        ("tcp", "bytes_read"),
        ("tcp", "bytes_compacted"),
        ("memory", "bytes_lent_copied"),
    ];
    let sum = |wanted: &[(&str, &str)]| -> u64 {
        let counters = states.iter().flat_map(|state| &state.counters);
        counters.filter(|(layer, name, _)| wanted.contains(&(*layer, *name))).map(|all| all.2).sum()
    };
    let received = sum(&[("tcp", "bytes_received")]);
    (received > 0).then(|| real(sum(&COPIES)) / real(received))
}

fn rivals(rows: impl IntoIterator<Item = (Option<Case>, Variant)>) -> Vec<Box<dyn Contender>> {
    let known = rows.into_iter().filter_map(|(case, variant)| Some((case?, variant)));
    known
        .map(|(case, variant)| {
            Box::new(RocewayRival { case, variant, states: None }) as Box<dyn Contender>
        })
        .collect()
}

/// Roceway's round trips over the soft link.
pub(super) fn round_trips() -> Vec<Box<dyn Contender>> {
    let rr = Case::named("TCP_RR");
    rivals([
        (rr, Variant::Soft),
        (rr, Variant::SoftChecksums),
        (Case::named("UDP_RR"), Variant::Soft),
    ])
}

/// Roceway's streams over the soft link that are compared with this one.
pub(super) fn streams(link: LinkRival) -> Vec<Box<dyn Contender>> {
    let stream = Case::named("TCP_STREAM");
    let large = stream.map(Case::large);
    match link {
        LinkRival::RoundTrip | LinkRival::Copy => {
            rivals([(large, Variant::Soft), (stream, Variant::Soft)])
        }
        LinkRival::ZeroCopy => rivals([(large, Variant::ZeroCopy)]),
        LinkRival::ZeroCopyLarge => rivals([(large, Variant::ZeroCopyLarge)]),
    }
}

/// Roceway's streams in frames of 1500 bytes.
pub(super) fn in_frames() -> Vec<Box<dyn Contender>> {
    let stream = Case::named("TCP_STREAM");
    rivals([(stream, Variant::SoftFrames), (stream, Variant::SoftFramesChecksums)])
}

/// Roceway's rows with many connections.
pub(super) fn with_many() -> Vec<Box<dyn Contender>> {
    let rr = Case::named("TCP_RR");
    rivals([(rr, Variant::Idle), (rr, Variant::Active)])
}

/// Roceway's rows over the veth pair [`PAIR`] of the calling thread's namespace.
pub(super) fn over_veth() -> Vec<Box<dyn Contender>> {
    rivals(cases().map(|case| (Some(case), Variant::Veth)))
}
