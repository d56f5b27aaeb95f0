//! Two workers of one thread, and a stream between them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use roceway_runtime::WorkerConfig;
use roceway_runtime::local::{Sent, TcpListener, TcpStream, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;

/// Time within which anything that will happen has.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Two workers of one thread.
pub(crate) struct Pair {
    pub(crate) left: Worker,
    pub(crate) right: Worker,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::of(super::config(1), super::config(2))
    }

    pub(crate) fn of(left: WorkerConfig, right: WorkerConfig) -> Pair {
        let (a, b) = super::nics();
        Pair::over(a, b, left, right)
    }

    pub(crate) fn over(a: AnyNic, b: AnyNic, left: WorkerConfig, right: WorkerConfig) -> Pair {
        let left = Worker::with_nic(a, &left.spinning()).expect("a worker");
        let right = Worker::with_nic(b, &right.spinning()).expect("a worker");
        Pair { left, right }
    }

    pub(crate) fn turn(&self) {
        let _ = self.left.turn();
        let _ = self.right.turn();
    }

    /// Turns until `attempt` gives something.
    pub(crate) fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = attempt() {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "{what} did not happen");
            self.turn();
        }
    }

    /// A connection, from left to right.
    pub(crate) fn connect(&self, port: u16) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(&self.right, super::address(2, port)).expect("a listener");
        let client = TcpStream::connect(&self.left, super::address(2, port)).expect("a way");
        let (server, _) = self.until("accept", || listener.accept().ok());
        self.until("connect", || client.is_connected().expect("no error").then_some(()));
        (client, server)
    }

    /// The next send of the left worker that ends.
    pub(crate) fn sent(&self) -> Sent {
        self.until("the end of a send", || self.left.poll_sent())
    }
}

pub(crate) fn counter(worker: &Worker, layer: &str, name: &str) -> u64 {
    let found = Cell::new(None);
    worker.visit_counters(&mut |l, n, value| {
        if (l, n) == (layer, name) {
            found.set(Some(value));
        }
    });
    found.get().expect("a counter of this name")
}

pub(crate) fn settle(pair: &Pair) {
    for _ in 0..100 {
        pair.turn();
    }
}

/// The byte at a place of the stream.
pub(crate) fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).expect("below 251")
}
