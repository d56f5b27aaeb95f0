//! Workers and sockets for any thread, with the names and semantics of `std::net`: every handle
//! is `Send` and `Sync`, and calls wait.
//!
//! Two manners of turning, chosen at start, with the same sockets over both:
//! - [`Manner::Owned`]: a thread of the worker's own turns; calls go to it through a bounded queue
//!   and wait for the answer.
//! - [`Manner::CallerDriven`]: no thread turns; a call runs in the thread that makes it, and of
//!   those that wait one turns for all.

mod driven;
pub(crate) mod mailbox;
mod options;
mod owned;
mod patience;
mod tcp;
mod udp;
mod zero_copy;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_stack::tcp::TcpInfo;

pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use zero_copy::{Buffer, BufferMut, Lent, OwnMemory};

use crate::asynchronous::Executor;
use crate::calls::{Data, Reply, Request};
use crate::config::WorkerConfig;
use crate::error::StartError;
use crate::offload::OffloadsInUse;
use driven::Driven;
use owned::Owned;

/// Who turns a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// A thread of its own, pinned if the configuration names a core.
    #[default]
    Owned,
    /// The threads that call.
    CallerDriven,
}

/// How long a call may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    Never,
    Until(Instant),
    Forever,
}

impl Wait {
    /// For so long; for ever if that is beyond what the clock counts.
    pub(crate) fn for_at_most(timeout: Duration) -> Wait {
        Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until)
    }
}

/// How long a worker that ends goes on for the sake of what its peers have not acknowledged.
const LINGER: Duration = Duration::from_millis(200);

/// A counter: layer, name and value.
pub type Counter = (&'static str, &'static str, u64);

/// A worker that any thread may use. Clones are handles to the same one; sockets hold one too, and
/// the worker ends with the last of them.
#[derive(Clone)]
pub struct Worker(Arc<Running>);

enum Running {
    Owned(Owned),
    Driven(Driven),
}

impl Worker {
    /// Opens the device, such as `soft:/run/link.sock` or `tap:rw0`, and starts a worker on it.
    ///
    /// # Errors
    /// See [`StartError`]; each names device, call, cause and remedy.
    pub fn open(device: &str, config: &WorkerConfig, manner: Manner) -> Result<Worker, StartError> {
        Worker::with_nic(roceway_rdma_virtio::nic::spec::open(device)?, config, manner)
    }

    /// Starts a worker on a NIC that is open already.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn with_nic(
        nic: AnyNic,
        config: &WorkerConfig,
        manner: Manner,
    ) -> Result<Worker, StartError> {
        Ok(Worker::with_memory(nic, config, manner, Vec::new())?.0)
    }

    /// Starts a worker on a NIC that is open already, and registers memory of the application's own
    /// before its first turn. Returns the buffers of each, in order.
    ///
    /// # Errors
    /// See [`StartError`] and [`crate::local::Worker::register`].
    pub fn with_memory(
        nic: AnyNic,
        config: &WorkerConfig,
        manner: Manner,
        memory: Vec<OwnMemory>,
    ) -> Result<(Worker, Vec<Vec<BufferMut>>), StartError> {
        let (running, buffers) = match manner {
            Manner::Owned => {
                let (owned, buffers) = Owned::start(nic, config, memory)?;
                (Running::Owned(owned), buffers)
            }
            Manner::CallerDriven => {
                let (driven, buffers) = Driven::start(nic, config, memory)?;
                (Running::Driven(driven), buffers)
            }
        };
        Ok((Worker(Arc::new(running)), buffers))
    }

    /// Who turns it.
    #[must_use]
    pub fn manner(&self) -> Manner {
        match &*self.0 {
            Running::Owned(_) => Manner::Owned,
            Running::Driven(_) => Manner::CallerDriven,
        }
    }

    /// Ends the worker: calls that wait and calls to come fail with `BrokenPipe`. It goes on for up
    /// to 200 ms for what its peers have not acknowledged; a caller-driven one does so within this
    /// call, or within the drop of the last handle.
    pub fn stop(&self) {
        match &*self.0 {
            Running::Owned(owned) => owned.stop(),
            Running::Driven(driven) => driven.stop(),
        }
    }

    /// Runs `job` on the worker's own thread between two turns, where it can use the async and the
    /// local sockets of the same stack.
    ///
    /// # Errors
    /// `Unsupported` if it is caller-driven, `BrokenPipe` if it was stopped.
    pub fn run_inside(&self, job: impl FnOnce(&Executor) + Send + 'static) -> io::Result<()> {
        match &*self.0 {
            Running::Owned(owned) => owned.run_inside(Box::new(job)),
            Running::Driven(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a caller-driven worker has no thread of its own; start it as Manner::Owned",
            )),
        }
    }

    /// Every counter.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn counters(&self) -> io::Result<Vec<Counter>> {
        match &*self.0 {
            Running::Owned(owned) => owned.ask(|executor| {
                let mut counters = Vec::new();
                let visit = &mut |layer, name, value| counters.push((layer, name, value));
                executor.handle().worker().visit_counters(visit);
                counters
            }),
            Running::Driven(driven) => driven.counters(),
        }
    }

    /// `TCP_INFO` of every connection.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn connections(&self) -> io::Result<Vec<TcpInfo>> {
        match &*self.0 {
            Running::Owned(owned) => owned.ask(|executor| {
                let mut connections = Vec::new();
                let visit = &mut |info: &TcpInfo| connections.push(*info);
                executor.handle().worker().visit_connections(visit);
                connections
            }),
            Running::Driven(driven) => driven.connections(),
        }
    }

    /// The offloads that are in use, and which of those wanted are not.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn offloads(&self) -> io::Result<OffloadsInUse> {
        match &*self.0 {
            Running::Owned(owned) => owned.ask(|executor| executor.handle().worker().offloads()),
            Running::Driven(driven) => driven.offloads(),
        }
    }

    /// Why the device is broken for good, if it is.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn broken(&self) -> io::Result<Option<String>> {
        match &*self.0 {
            Running::Owned(owned) => owned.ask(|executor| executor.handle().worker().broken()),
            Running::Driven(driven) => driven.broken(),
        }
    }

    /// Runs a call, waiting as long as it may.
    #[inline]
    fn call(&self, request: Request, data: Data<'_>, wait: Wait) -> io::Result<Reply> {
        match &*self.0 {
            Running::Owned(owned) => owned.call(request, data, wait),
            Running::Driven(driven) => driven.call(request, data, wait),
        }
    }

    /// A call that moves no bytes and does not wait.
    fn ask(&self, request: Request) -> io::Result<Reply> {
        self.call(request, Data::None, Wait::Never)
    }

    /// A call whose outcome nobody wants to know.
    fn cast(&self, request: Request) {
        match &*self.0 {
            Running::Owned(owned) => owned.cast(request),
            Running::Driven(driven) => driven.cast(request),
        }
    }
}

/// A reply that does not fit its request: cannot happen, and is an error rather than a panic.
fn unexpected<T>() -> io::Result<T> {
    Err(io::ErrorKind::InvalidData.into())
}

/// What a process that inherited a worker by fork is told: the worker's memory is not its own.
fn forked() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "the worker belongs to the process that started it; start one in the forked child",
    )
}

/// What a thread is told that calls in while it holds the worker itself, such as a signal handler
/// or a task, which has the local sockets: it cannot wait for itself.
fn reentered() -> io::Error {
    // Made without allocating: the allocator may be what the signal interrupted.
    io::Error::from_raw_os_error(libc::EDEADLK)
}
