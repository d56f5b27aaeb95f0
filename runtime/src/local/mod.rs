//! The worker on the application's own thread: nothing is locked, nothing is `Send`.
//!
//! The thread calls [`Worker::turn`] in a loop and uses its sockets between turns. No call here
//! waits: what cannot be done now is [`std::io::ErrorKind::WouldBlock`].

mod tcp;
mod udp;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use roceway_busypoll::pin::{Cpu, pin_current_thread};
use roceway_busypoll::{Doorbell, EventWait, Loop, Turned};
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{Nic, spec};
use roceway_stack::tcp::TcpInfo;

pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;

use crate::config::WorkerConfig;
use crate::core::Core;
use crate::error::StartError;
use crate::start;

/// What the handles of one worker share.
pub(crate) struct Inner {
    pub(crate) core: Core,
    turning: Loop,
    sleeper: EventWait,
}

/// A worker: device, stack and loop of one thread. Clones are handles to the same one.
#[derive(Clone)]
pub struct Worker {
    pub(crate) inner: Rc<RefCell<Inner>>,
}

impl Worker {
    /// Opens the device, such as `soft:/run/link.sock` or `tap:rw0`, and starts a worker on it.
    ///
    /// # Errors
    /// See [`StartError`]; each names device, call, cause and remedy.
    pub fn open(device: &str, config: &WorkerConfig) -> Result<Worker, StartError> {
        Worker::with_nic(spec::open(device)?, config)
    }

    /// Starts a worker on a NIC that is open already.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn with_nic(nic: AnyNic, config: &WorkerConfig) -> Result<Worker, StartError> {
        if let Some(cpu) = config.cpu {
            pin_current_thread(Cpu(cpu))?;
        }
        let mut turning = Loop::new(config.turn);
        let event_fd = nic.event_fd();
        let core = start::start(nic, config, turning.now())?;
        let bell = Doorbell::new()
            .map_err(|source| StartError::System { call: "eventfd", source })?;
        let sleeper = EventWait::new(bell, Some(event_fd));
        Ok(Worker { inner: Rc::new(RefCell::new(Inner { core, turning, sleeper })) })
    }

    /// One turn: takes what came, sends what is due. Never sleeps.
    #[inline]
    pub fn turn(&self) -> Turned {
        let inner = &mut *self.inner.borrow_mut();
        inner.turning.turn(&mut inner.core)
    }

    /// One turn; sleeps when nothing came for the whole spin budget, until something does, a timer
    /// is due, or at most 50 ms have passed.
    ///
    /// # Errors
    /// If the system refuses to wait.
    #[inline]
    pub fn turn_or_sleep(&self) -> io::Result<Turned> {
        let inner = &mut *self.inner.borrow_mut();
        inner.turning.run_once(&mut inner.core, &mut inner.sleeper)
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.inner.borrow_mut().turning.now()
    }

    /// Why the device is broken for good, if it is.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.inner.borrow().core.broken.clone()
    }

    /// Calls `visit` with layer, name and value of every counter.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        let inner = self.inner.borrow();
        inner.core.visit_counters(visit);
        inner.turning.counters().visit(&mut |name, value| visit("turn", name, value));
    }

    /// Calls `visit` with a snapshot of every TCP connection.
    pub fn visit_connections(&self, visit: &mut dyn FnMut(&TcpInfo)) {
        self.inner.borrow_mut().core.stack.tcp().0.visit_connections(visit);
    }

    /// Checks that received frames are delivered or counted as dropped, in every layer. Panics if
    /// not; for tests.
    pub fn check_counters(&self) {
        self.inner.borrow().core.stack.check();
    }
}
