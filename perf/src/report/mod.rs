//! Reports: rows, an aligned table for people, one JSON document for programs. Pure text: nothing
//! here prints, measures or knows a socket.

mod table;

use serde::{Deserialize, Serialize};

pub use table::{columns, head, number};

use crate::arithmetic::{count, real, seconds};
use crate::histogram::Summary;
use crate::host::Host;
use crate::recorder::{Sample, Until};
use crate::state::WorkerState;
use crate::workload::{Outcome, Workload};

/// One line of a report. Fields that do not apply are null.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// netperf's name of the test.
    pub test: String,
    /// `roceway`, `kernel`, `link` or `line`.
    pub stack: String,
    /// `soft`, `loopback`, `veth`, or the device as the user named it.
    pub device: String,
    /// How the stack waits or copies: `copy`, `spin`, `block`.
    pub mode: Option<String>,
    /// Median round-trip time.
    pub p50_ns: Option<f64>,
    /// 99th percentile of the round-trip time.
    pub p99_ns: Option<f64>,
    /// 99.9th percentile of the round-trip time.
    pub p999_ns: Option<f64>,
    /// Transactions a second.
    pub transactions_per_s: Option<f64>,
    /// Payload in one direction, in 10^9 bits a second.
    pub gbit_per_s: Option<f64>,
    /// CPU seconds of both ends for each 10^9 bytes of payload.
    pub cpu_s_per_gbyte: Option<f64>,
    /// CPU seconds of both ends for each transaction.
    #[serde(default)]
    pub cpu_s_per_transaction: Option<f64>,
    /// Processor cycles of both ends a transaction or for 10^9 bytes, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles: Option<f64>,
    /// Bytes that both ends' stacks and sockets copied, for each byte of a stream's payload, where
    /// that is counted. What a NIC does is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies_per_byte: Option<f64>,
    /// Bytes of a message of a stream: what one send call is given. Null for other tests.
    pub message_bytes: Option<u64>,
}

/// Where a row was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// `roceway` or `kernel`.
    pub stack: String,
    /// The device.
    pub device: String,
    /// How it waits or copies.
    pub mode: Option<String>,
}

fn divided(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| value / by)
}

/// CPU seconds of both ends for a unit of work, from CPU time and units of either end.
fn cpu_for(local: (u64, f64), remote: (Option<u64>, f64)) -> Option<f64> {
    let here = divided(seconds(local.0), local.1)?;
    let there = divided(seconds(remote.0?), remote.1)?;
    Some(here + there)
}

impl Row {
    /// The row of one outcome.
    #[must_use]
    pub fn new(workload: &Workload, place: &Place, outcome: &Outcome) -> Self {
        let counted = &outcome.counted;
        let elapsed = seconds(counted.elapsed_ns);
        let summary = outcome.latency.as_ref().and_then(crate::histogram::Latency::summary);
        let is_stream = !workload.test.has_rtt();
        let gigabytes = real(counted.bytes) / 1e9;
        let remote_gigabytes = real(outcome.remote.bytes) / 1e9;
        let cpu = cpu_for((outcome.cpu_ns, gigabytes), (outcome.remote.cpu_ns, remote_gigabytes));
        let per_transaction = cpu_for(
            (outcome.cpu_ns, real(counted.transactions)),
            (outcome.remote.cpu_ns, real(outcome.remote.transactions)),
        );
        let quantile = |of: fn(&Summary) -> u64| summary.as_ref().map(|all| real(of(all)));
        Self {
            test: workload.test.name.into(),
            stack: place.stack.clone(),
            device: place.device.clone(),
            mode: place.mode.clone(),
            p50_ns: quantile(|all| all.p50_ns),
            p99_ns: quantile(|all| all.p99_ns),
            p999_ns: quantile(|all| all.p999_ns),
            transactions_per_s: divided(real(counted.transactions), elapsed).filter(|_| !is_stream),
            gbit_per_s: divided(gigabytes * 8.0, elapsed).filter(|_| is_stream),
            cpu_s_per_gbyte: cpu.filter(|_| is_stream),
            cpu_s_per_transaction: per_transaction.filter(|_| !is_stream),
            cycles: None,
            copies_per_byte: None,
            message_bytes: is_stream.then(|| count(workload.message)),
        }
    }
}

/// An effective option of a run.
pub type Setting = (&'static str, String);

/// The effective options of a test.
#[must_use]
pub fn settings(workload: &Workload) -> Vec<Setting> {
    let mut all = vec![("test", workload.test.name.to_owned())];
    if workload.test.has_rtt() {
        all.push(("request,response", format!("{},{} B", workload.request, workload.response)));
    } else {
        all.push(("message", format!("{} B", workload.message)));
        all.push(("receive call", format!("{} B", workload.receive)));
    }
    all.push(("connections", workload.connections.to_string()));
    all.push(("under way", workload.depth.to_string()));
    all.push((
        "rate",
        match workload.rate {
            Some(rate) => format!("{}/s, open loop", rate.per_second()),
            None => "closed loop".into(),
        },
    ));
    all.push((
        "length",
        match workload.window.until {
            Until::Elapsed(duration) => format!("{} s", duration.as_secs_f64()),
            Until::Count(count) if workload.test.has_rtt() => format!("{count} transactions"),
            Until::Count(count) => format!("{count} B"),
            Until::PeerEnds => "as the other end says".into(),
        },
    ));
    all.push(("warm-up", format!("{} s", workload.window.warmup.as_secs_f64())));
    let buffer = |size: Option<usize>| size.map_or("automatic".into(), |size| format!("{size} B"));
    all.push(("send buffer", buffer(workload.buffers.send_buffer)));
    all.push(("receive buffer", buffer(workload.buffers.receive_buffer)));
    all
}

/// The report of one test.
#[derive(Debug)]
pub struct TestReport<'a> {
    /// Effective options, the test's and the stack's.
    pub settings: Vec<Setting>,
    /// Machine and build.
    pub host: Host,
    /// Where it was measured.
    pub place: Place,
    /// What was asked for.
    pub workload: &'a Workload,
    /// What came out.
    pub outcome: &'a Outcome,
    /// What the workers tell of themselves, with whose each is; empty unless asked for.
    pub states: Vec<(&'static str, WorkerState)>,
}

/// What a report says of CPU use.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct CpuUse {
    this_end_s: f64,
    other_end_s: Option<f64>,
    s_per_transaction: Option<f64>,
    s_per_gbyte: Option<f64>,
}

impl TestReport<'_> {
    fn cpu(&self) -> CpuUse {
        let (outcome, remote) = (self.outcome, &self.outcome.remote);
        let per_transaction = cpu_for(
            (outcome.cpu_ns, real(outcome.counted.transactions)),
            (remote.cpu_ns, real(remote.transactions)),
        );
        let per_gbyte = cpu_for(
            (outcome.cpu_ns, real(outcome.counted.bytes) / 1e9),
            (remote.cpu_ns, real(remote.bytes) / 1e9),
        );
        CpuUse {
            this_end_s: seconds(outcome.cpu_ns),
            other_end_s: remote.cpu_ns.map(seconds),
            s_per_transaction: per_transaction,
            s_per_gbyte: per_gbyte,
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = table::head(&self.settings, &self.host);
        let (outcome, counted) = (self.outcome, &self.outcome.counted);
        let elapsed = seconds(counted.elapsed_ns);
        let mut figures: Vec<(&str, String)> = Vec::new();
        if let Some(summary) = outcome.latency.as_ref().and_then(crate::histogram::Latency::summary)
        {
            let us = |ns: f64| format!("{:.3} us", ns / 1000.0);
            figures.push(("RTT p50", us(real(summary.p50_ns))));
            figures.push(("RTT p90", us(real(summary.p90_ns))));
            figures.push(("RTT p99", us(real(summary.p99_ns))));
            figures.push(("RTT p99.9", us(real(summary.p999_ns))));
            figures.push(("RTT max", us(real(summary.max_ns))));
            figures.push(("RTT mean", us(summary.mean_ns)));
            figures.push(("transactions", counted.transactions.to_string()));
            let rate = divided(real(counted.transactions), elapsed).unwrap_or(0.0);
            figures.push(("transactions/s", format!("{rate:.0}")));
            figures.push(("lost", counted.lost.to_string()));
            if counted.late > 0 {
                figures.push(("late answers", counted.late.to_string()));
            }
        } else {
            let gbit = |bytes: u64, s: f64| divided(real(bytes) * 8e-9, s).unwrap_or(0.0);
            figures.push(("throughput", format!("{:.3} Gbit/s", gbit(counted.bytes, elapsed))));
            let there = gbit(outcome.remote.bytes, seconds(outcome.remote.elapsed_ns));
            figures.push(("at the other end", format!("{there:.3} Gbit/s, its whole run")));
            figures.push(("bytes", counted.bytes.to_string()));
            figures.push(("bytes at the other end", outcome.remote.bytes.to_string()));
        }
        figures.push(("elapsed", format!("{elapsed:.3} s")));
        self.push_cpu(&mut figures);
        lines.push_str(&table::pairs(&figures));
        if !outcome.samples.is_empty() {
            lines.push('\n');
            lines.push_str(&table::samples(&outcome.samples));
        }
        for (whose, state) in &self.states {
            lines.push_str(&state.text(whose));
        }
        lines
    }

    fn push_cpu(&self, figures: &mut Vec<(&str, String)>) {
        let cpu = self.cpu();
        let other =
            cpu.other_end_s.map_or("not told by the other end".into(), |s| format!("{s:.3} s"));
        figures.push(("CPU this end", format!("{:.3} s", cpu.this_end_s)));
        figures.push(("CPU other end", other));
        if let Some(s) = cpu.s_per_transaction {
            figures.push(("CPU/transaction, both", format!("{:.3} us", s * 1e6)));
        }
        if let Some(s) = cpu.s_per_gbyte {
            figures.push(("CPU/GB, both", format!("{s:.3} s")));
        }
    }

    /// The report for programs: one JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        let row = Row::new(self.workload, &self.place, self.outcome);
        let options: serde_json::Map<_, _> = self
            .settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        let samples: &[Sample] = &self.outcome.samples;
        let latency = self.outcome.latency.as_ref().and_then(crate::histogram::Latency::summary);
        let mut document = serde_json::json!({
            "options": options,
            "host": self.host,
            "rows": [row],
            "rtt": latency,
            "transactions": self.outcome.counted.transactions,
            "bytes": self.outcome.counted.bytes,
            "lost": self.outcome.counted.lost,
            "late": self.outcome.counted.late,
            "elapsed_s": seconds(self.outcome.counted.elapsed_ns),
            "cpu": self.cpu(),
            "samples": samples,
        });
        if !self.states.is_empty() {
            let states = self.states.iter().map(|(whose, state)| ((*whose).into(), state.json()));
            document["workers"] = serde_json::Value::Object(states.collect());
        }
        format!("{document:#}\n")
    }
}

#[cfg(test)]
mod tests;
