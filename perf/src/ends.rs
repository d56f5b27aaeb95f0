//! Roceway's ends of a test: opened as one wants them, one end alone or both in this process,
//! joined by a link. The other stack's counterpart is [`crate::local`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use roceway_runtime::local::Worker;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::shared::{self, Manner};
use roceway_runtime::{Prefix, StartError, WorkerConfig};

use crate::client::{self, TestError};
use crate::kernel::SocketOptions;
use crate::local::{pin, with_server};
use crate::recorder::Recorder;
use crate::roceway::Roceway;
use crate::shared::Shared;
use crate::state::WorkerState;
use crate::workload::{Outcome, Workload};

/// Addresses of client and server when both are here.
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
/// How long the other end of a soft link may take to appear.
const LINK_NS_MAX: u64 = 10_000_000_000;

/// Which of the runtime's sockets an end uses, and from where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Handles {
    /// Those of the worker's own thread, inside its turn.
    #[default]
    Inside,
    /// The same between two turns.
    Between,
    /// Those for any thread, of a worker that turns in this manner.
    Shared(Manner),
}

/// What an end is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The worker.
    pub config: WorkerConfig,
    /// Buffers of its sockets.
    pub options: SocketOptions,
    /// Once set, the worker's state goes to standard error.
    pub asked: Option<Arc<AtomicBool>>,
    /// Whether the state at the end of the test is wanted.
    pub keep_end: bool,
    /// Connections that a client opens beside its test and leaves idle.
    pub idle_connections: usize,
    /// Its sockets.
    pub handles: Handles,
    /// Whether its streams go without copies.
    pub zero_copy: bool,
}

impl Opening {
    /// An end that nobody asks for its state.
    #[must_use]
    pub fn new(config: WorkerConfig, options: SocketOptions) -> Self {
        let handles = Handles::Inside;
        Self {
            config,
            options,
            asked: None,
            keep_end: false,
            idle_connections: 0,
            handles,
            zero_copy: false,
        }
    }

    /// The same with this address, on this core.
    #[must_use]
    pub fn at(mut self, address: Ipv4Addr, core: Option<usize>) -> Self {
        self.config.addresses = vec![Prefix { address: IpAddr::V4(address), length: 24 }];
        self.config.cpu = core;
        self
    }

    /// Starts a worker on a NIC; `whose` is its name where it tells of itself.
    ///
    /// # Errors
    /// Why there is no worker.
    pub fn start(&self, nic: AnyNic, whose: &str) -> Result<Roceway, StartError> {
        let mut transport = Roceway::new(Worker::with_nic(nic, &self.config)?, self.options);
        if let Some(flag) = &self.asked {
            transport.tell_when(Arc::clone(flag), whose);
        }
        if self.keep_end {
            transport.keep_end();
        }
        if self.handles == Handles::Between {
            transport.stay_outside();
        }
        if self.zero_copy {
            transport.copy_nothing();
        }
        Ok(transport)
    }

    /// Starts a worker for any thread on a NIC. Where the calls turn it, the calling thread is
    /// pinned to the core that is the worker's.
    ///
    /// # Errors
    /// Why there is no worker.
    pub fn start_shared(&self, nic: AnyNic, manner: Manner) -> Result<Shared, StartError> {
        if manner == Manner::CallerDriven {
            pin(self.config.cpu)
                .map_err(|source| StartError::System { call: "sched_setaffinity", source })?;
        }
        let worker = shared::Worker::with_nic(nic, &self.config, manner)?;
        Ok(Shared::new(worker, self.options))
    }

    /// Opens a device and starts a worker on it.
    ///
    /// # Errors
    /// Why there is no worker.
    pub fn open(&self, device: &str, whose: &str) -> Result<Roceway, StartError> {
        let nic = spec::open(device)?;
        let chosen: Vec<String> =
            nic.settings().iter().map(|(name, value)| format!("{name} {value}")).collect();
        if !chosen.is_empty() {
            eprintln!("{device}: {}", chosen.join("; "));
        }
        self.start(nic, whose)
    }
}

/// By value, for `map_err`.
fn no_worker(error: StartError) -> TestError {
    TestError::Start(Box::new(error))
}

/// Whether a device has a link that its other end must join.
fn is_soft(device: &str) -> bool {
    device.starts_with("soft:")
}

/// Runs the client of a test over a device; the server is beyond it. The calling thread may be left
/// pinned.
///
/// # Errors
/// If the worker cannot start, nobody is at the other end, or the test fails.
pub fn client(
    device: &str,
    opening: &Opening,
    workload: &Workload,
    server: SocketAddr,
    watch: &mut dyn FnMut(&Recorder),
) -> Result<(Outcome, WorkerState), TestError> {
    if let Handles::Shared(manner) = opening.handles {
        let nic = spec::open(device).map_err(|error| no_worker(StartError::Device(error)))?;
        let mut transport = opening.start_shared(nic, manner).map_err(no_worker)?;
        let outcome = client::test(&mut transport, workload, server, watch)?;
        return Ok((outcome, transport.state()));
    }
    let mut transport = opening.open(device, "the client").map_err(no_worker)?;
    if is_soft(device) {
        transport
            .wait_for_link(LINK_NS_MAX)
            .map_err(|_nobody| TestError::NoLink { device: device.to_owned() })?;
    }
    test(&mut transport, opening, (workload, server), watch)
}

/// Runs the client's end, with its idle connections open meanwhile.
fn test(
    transport: &mut Roceway,
    opening: &Opening,
    (workload, server): (&Workload, SocketAddr),
    watch: &mut dyn FnMut(&Recorder),
) -> Result<(Outcome, WorkerState), TestError> {
    let failed = |source| TestError::Io { what: "an idle connection".into(), source };
    let idle = client::open_quiet(transport, server, opening.idle_connections).map_err(failed)?;
    let outcome = client::test(transport, workload, server, watch)?;
    drop(idle);
    Ok((outcome, transport.state()))
}

/// The two ends of a soft link inside this process.
///
/// # Errors
/// If there is no shared memory.
pub fn soft_pair(options: &SoftOptions) -> Result<(AnyNic, AnyNic), TestError> {
    let (left, right) =
        SoftNic::pair(options).map_err(|error| no_worker(StartError::Device(error)))?;
    Ok((left.into(), right.into()))
}

/// Runs a test with both ends here, a worker each, on two NICs that reach one another. The calling
/// thread is the client's. Returns the states of client and server too.
///
/// # Errors
/// If a worker cannot start or the test fails.
pub fn pair(
    (here, there): (AnyNic, AnyNic),
    [client_end, server_end]: &[Opening; 2],
    workload: &Workload,
    watch: &mut dyn FnMut(&Recorder),
) -> Result<(Outcome, [WorkerState; 2]), TestError> {
    if let Handles::Shared(manner) = client_end.handles {
        return shared_pair((here, there), [client_end, server_end], (workload, manner), watch);
    }
    let must_join = matches!(here, AnyNic::Soft(_));
    let served = Mutex::new(WorkerState::default());
    let (outcome, state) = with_server(
        None,
        SocketAddr::new(ADDRESSES[1].into(), 0),
        || server_end.start(there, "the server").map_err(io::Error::other),
        |transport, server, stop| {
            let result = server.serve(transport, stop);
            *served.lock().unwrap_or_else(PoisonError::into_inner) = transport.state();
            result
        },
        |server| {
            let mut transport = client_end.start(here, "the client").map_err(no_worker)?;
            if must_join {
                transport
                    .wait_for_link(LINK_NS_MAX)
                    .map_err(|_nobody| TestError::NoLink { device: "soft".into() })?;
            }
            test(&mut transport, client_end, (workload, server), watch)
        },
    )?;
    let server = served.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((outcome, [state, server]))
}

/// The same over sockets for any thread, both ends in one manner.
fn shared_pair(
    (here, there): (AnyNic, AnyNic),
    [client_end, server_end]: [&Opening; 2],
    (workload, manner): (&Workload, Manner),
    watch: &mut dyn FnMut(&Recorder),
) -> Result<(Outcome, [WorkerState; 2]), TestError> {
    let served = Mutex::new(WorkerState::default());
    let (outcome, state) = with_server(
        None,
        SocketAddr::new(ADDRESSES[1].into(), 0),
        || server_end.start_shared(there, manner).map_err(io::Error::other),
        |transport, server, stop| {
            let result = server.serve(transport, stop);
            *served.lock().unwrap_or_else(PoisonError::into_inner) = transport.state();
            result
        },
        |server| {
            let mut transport = client_end.start_shared(here, manner).map_err(no_worker)?;
            let outcome = client::test(&mut transport, workload, server, watch)?;
            Ok((outcome, transport.state()))
        },
    )?;
    let server = served.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((outcome, [state, server]))
}
