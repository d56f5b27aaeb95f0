//! The contenders of a comparison, and what they have in common.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::bare::BareRival;
use super::line::LineRival;
use super::link::LinkRival;
use super::{Measured, Plan, Told};
use crate::arithmetic::{real, seconds};
use crate::catalogue::Test;
use crate::control::RECEIVE_DEFAULT;
use crate::histogram::Latency;
use crate::kernel::{SocketOptions, Waiting};
use crate::local;
use crate::recorder::{Until, Window};
use crate::report::{Place, Row};
use crate::workload::{Outcome, Workload};

/// Whoever measures one row, once a repetition.
pub trait Contender {
    /// Its name in notes and in pictures.
    fn name(&self) -> String;

    /// What its rows do not say, once all repetitions are done.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// What its workers told of themselves at the end of the last measurement, if the plan asks.
    fn states(&mut self) -> Vec<Told> {
        Vec::new()
    }

    /// Runs a little of its test once more and writes every frame to `path`; returns whether it
    /// did, which those cannot that have no worker.
    ///
    /// # Errors
    /// Why it cannot, in words for the user.
    fn capture(&mut self, _plan: &Plan, _path: &Path) -> Result<bool, String> {
        Ok(false)
    }

    /// Measures once. The calling thread may be left pinned.
    ///
    /// # Errors
    /// Why it cannot, in words for the user.
    fn measure(&mut self, plan: &Plan) -> Result<Measured, String>;
}

/// A test of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// The test.
    pub test: &'static Test,
    /// Bytes of a message of a stream.
    pub message: usize,
}

/// The larger of the two sizes that streams are measured with, bytes.
pub const MESSAGE_LARGE: usize = 65_536;

impl Case {
    /// A test with netperf's message size.
    pub(super) fn of(test: &'static Test) -> Case {
        Case { test, message: test.default_message() }
    }

    /// The test of this name with netperf's message size.
    pub(crate) fn named(name: &str) -> Option<Case> {
        crate::catalogue::find(name).ok().map(Case::of)
    }

    /// The same with messages of [`MESSAGE_LARGE`].
    pub(super) fn large(self) -> Case {
        Case { message: MESSAGE_LARGE, ..self }
    }

    /// What distinguishes it, for people.
    pub(super) fn name(self) -> String {
        if self.message == self.test.default_message() {
            return self.test.name.to_owned();
        }
        format!("{} with {} B messages", self.test.name, self.message)
    }
}

/// The tests that every stack is measured with.
pub(super) fn cases() -> impl Iterator<Item = Case> {
    ["TCP_RR", "TCP_STREAM", "UDP_RR"].into_iter().filter_map(Case::named)
}

/// A case with its numbers: one connection, requests of one byte.
#[must_use]
pub(crate) fn workload(case: Case, plan: &Plan) -> Workload {
    Workload {
        test: case.test,
        request: 1,
        response: 1,
        message: case.message,
        receive: RECEIVE_DEFAULT,
        connections: 1,
        depth: 1,
        rate: None,
        window: Window { warmup: plan.warmup, until: Until::Elapsed(plan.length), interval: None },
        buffers: SocketOptions::default(),
    }
}

/// The row of an outcome, with its latencies.
#[must_use]
pub(crate) fn measured(workload: &Workload, place: &Place, outcome: Outcome) -> Measured {
    Measured { row: Row::new(workload, place, &outcome), latency: outcome.latency }
}

fn empty_row(test: &str, place: Place) -> Row {
    Row {
        test: test.into(),
        stack: place.stack,
        device: place.device,
        mode: place.mode,
        p50_ns: None,
        p99_ns: None,
        p999_ns: None,
        transactions_per_s: None,
        gbit_per_s: None,
        cpu_s_per_gbyte: None,
        cpu_s_per_transaction: None,
        cycles: None,
        copies_per_byte: None,
        message_bytes: None,
    }
}

/// A row of nothing but round trips, one after the other.
pub(super) fn rtt_row(test: &str, place: Place, latency: Latency) -> Measured {
    let mut row = empty_row(test, place);
    if let Some(summary) = latency.summary() {
        row.p50_ns = Some(real(summary.p50_ns));
        row.p99_ns = Some(real(summary.p99_ns));
        row.p999_ns = Some(real(summary.p999_ns));
        row.transactions_per_s = (summary.mean_ns > 0.0).then(|| 1e9 / summary.mean_ns);
    }
    Measured { row, latency: Some(latency) }
}

/// A row of bytes in a time during which both ends were always busy, in messages of `message`
/// bytes.
pub(super) fn stream_row(place: Place, message: u64, (bytes, elapsed_ns): (u64, u64)) -> Measured {
    let mut row = empty_row("TCP_STREAM", place);
    row.message_bytes = Some(message);
    if bytes > 0 && elapsed_ns > 0 {
        row.gbit_per_s = Some(real(bytes) * 8.0 / real(elapsed_ns));
        row.cpu_s_per_gbyte = Some(2.0 * seconds(elapsed_ns) / (real(bytes) / 1e9));
    }
    Measured { row, latency: None }
}

/// The kernel over loopback.
#[derive(Debug)]
pub struct KernelRival {
    /// The test.
    pub case: Case,
    /// How both ends wait.
    pub waiting: Waiting,
    /// Connections, all active.
    pub connections: usize,
}

impl Contender for KernelRival {
    fn name(&self) -> String {
        format!("kernel {}, loopback, {}", self.waiting, self.case.name())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let mut workload = workload(self.case, plan);
        workload.connections = self.connections;
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let outcome = local::kernel(self.waiting, &workload, plan.cores, any, &mut |_| ())
            .map_err(|error| error.to_string())?;
        let mut mode = self.waiting.to_string();
        if self.connections > 1 {
            mode = format!("{mode}, {}", self.connections);
        }
        let place = Place { stack: "kernel".into(), device: "loopback".into(), mode: Some(mode) };
        Ok(measured(&workload, &place, outcome))
    }
}

/// What a comparison has beyond its default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extras {
    /// Rows with thousands of connections.
    pub many: bool,
    /// The first request after a second's idleness.
    pub idle: bool,
}

/// The contenders of the first block: line, link, Roceway over it and what TCP has to do on it, the
/// kernel over loopback.
#[must_use]
pub fn soft_block(extras: Extras) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> =
        vec![Box::new(LineRival::One), Box::new(LineRival::Pair), Box::new(LinkRival::RoundTrip)];
    all.extend(super::ours::round_trips());
    // Each mode's own link, and what TCP has to do on it, just before the stream over it.
    for bare in BareRival::ALL {
        all.push(Box::new(bare.link()));
        all.push(Box::new(bare));
        all.extend(super::ours::streams(bare.link()));
    }
    all.extend(super::ours::in_frames());
    for waiting in [Waiting::Spin, Waiting::Block] {
        for case in cases() {
            all.push(Box::new(KernelRival { case, waiting, connections: 1 }));
            // Both sizes where Roceway is compared with both.
            if case.test.name == "TCP_STREAM" && waiting == Waiting::Spin {
                all.push(Box::new(KernelRival { case: case.large(), waiting, connections: 1 }));
            }
        }
    }
    #[cfg(feature = "smoltcp")]
    all.extend(super::peers::all::<super::peer_smoltcp::Smoltcp>());
    #[cfg(feature = "lwip")]
    all.extend(super::peers::all::<super::peer_lwip::Lwip>());
    if extras.many {
        all.extend(super::ours::with_many());
        if let Some(case) = Case::named("TCP_RR") {
            let connections = super::ours::ACTIVE_CONNECTIONS;
            all.push(Box::new(KernelRival { case, waiting: Waiting::Epoll, connections }));
        }
    }
    if extras.idle {
        all.extend(super::idle::both());
    }
    all
}
