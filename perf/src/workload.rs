//! A test with all its numbers, and what came out of it.

use crate::catalogue::Test;
use crate::histogram::Latency;
use crate::kernel::SocketOptions;
use crate::pacing::Rate;
use crate::recorder::{Counted, Sample, Window};

/// A test with all its numbers.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The test.
    pub test: &'static Test,
    /// Bytes of a request.
    pub request: usize,
    /// Bytes of a response.
    pub response: usize,
    /// Bytes of a message of a stream: one send call.
    pub message: usize,
    /// Bytes that a receive call of a stream asks for.
    pub receive: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests under way at once on each connection.
    pub depth: usize,
    /// Open loop: requests or messages a second over all connections.
    pub rate: Option<Rate>,
    /// Warm-up, end, samples.
    pub window: Window,
    /// Socket buffers of both ends.
    pub buffers: SocketOptions,
}

/// What the other end found, over the whole test, warm-up included.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Remote {
    /// CPU time, if it was measured.
    pub cpu_ns: Option<u64>,
    /// Transactions.
    pub transactions: u64,
    /// Payload bytes received and sent.
    pub bytes: u64,
    /// How long it took there.
    pub elapsed_ns: u64,
}

/// What came out of a test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Counted at this end, warm-up excluded.
    pub counted: Counted,
    /// Latencies, if the test has them.
    pub latency: Option<Latency>,
    /// Interval samples.
    pub samples: Vec<Sample>,
    /// CPU time of this end, warm-up excluded.
    pub cpu_ns: u64,
    /// The other end.
    pub remote: Remote,
}

impl Outcome {
    /// Adds what another thread measured at the same time.
    pub fn add(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.counted, &other.counted);
        mine.transactions += theirs.transactions;
        mine.bytes += theirs.bytes;
        mine.sends += theirs.sends;
        mine.receives += theirs.receives;
        mine.lost += theirs.lost;
        mine.late += theirs.late;
        mine.elapsed_ns = mine.elapsed_ns.max(theirs.elapsed_ns);
        if let (Some(mine), Some(theirs)) = (&mut self.latency, &other.latency) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.samples.iter_mut().zip(&other.samples) {
            mine.transactions += theirs.transactions;
            mine.bytes += theirs.bytes;
        }
        self.cpu_ns += other.cpu_ns;
        self.remote.add(&other.remote);
    }
}

impl Remote {
    /// Adds what the other end found for another connection.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns = match (self.cpu_ns, other.cpu_ns) {
            (Some(mine), Some(theirs)) => Some(mine + theirs),
            (one, other) => one.or(other),
        };
        self.transactions += other.transactions;
        self.bytes += other.bytes;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
    }
}
