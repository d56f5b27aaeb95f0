//! The worker on the application's own thread: nothing is locked, nothing is `Send`.
//!
//! The thread calls [`Worker::turn_with`] in a loop and uses its sockets inside, or
//! [`Worker::turn`] and uses them between turns. No call here waits: what cannot be done now is
//! [`std::io::ErrorKind::WouldBlock`].

mod events;
mod options;
mod tcp;
mod udp;
mod zero_copy;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use roceway_busypoll::pin::{Cpu, pin_current_thread};
use roceway_busypoll::{Doorbell, EventWait, Loop, Progress, Turned};
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{Nic, spec};
use roceway_stack::tcp::TcpInfo;

pub use events::{Event, Readiness};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use zero_copy::{Buffer, BufferMut, Lent, Pieces, SendOutcome, Sent};

use crate::config::WorkerConfig;
use crate::core::Core;
use crate::error::StartError;
use crate::offload::OffloadsInUse;
use crate::start;

/// What the handles of one worker share. Core and loop are borrowed apart, so that application
/// code can run inside a turn: while that runs nobody holds the core.
pub(crate) struct Shared {
    pub(crate) core: RefCell<Core>,
    pub(crate) turning: RefCell<Loop>,
    pub(crate) sleeper: RefCell<EventWait>,
    /// What the application calls the sockets that it watches.
    tokens: RefCell<events::Tokens>,
    /// A watched socket has no room to write for want of memory.
    starving: Cell<bool>,
    /// An executor takes the events.
    pub(crate) hosted: Cell<bool>,
}

/// A worker: device, stack and loop of one thread. Clones are handles to the same one.
#[derive(Clone)]
pub struct Worker {
    pub(crate) shared: Rc<Shared>,
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
        let mut core = start::start(nic, config, turning.now())?;
        let bell =
            Doorbell::new().map_err(|source| StartError::System { call: "eventfd", source })?;
        let ringer = bell.clone();
        core.port.interface.memory().on_return(move || {
            let _whether_it_slept = ringer.ring();
        });
        let shared = Shared {
            core: RefCell::new(core),
            turning: RefCell::new(turning),
            sleeper: RefCell::new(EventWait::new(bell, Some(event_fd))),
            tokens: RefCell::default(),
            starving: Cell::new(false),
            hosted: Cell::new(false),
        };
        Ok(Worker { shared: Rc::new(shared) })
    }

    /// One turn: takes what came, sends what is due. Never sleeps.
    #[inline]
    pub fn turn(&self) -> Turned {
        self.turn_with(|| 0)
    }

    /// One turn with the application inside: `application` is called after frames were received
    /// and before frames are sent, so that an answer leaves in the turn that took the question. It
    /// uses sockets as always, and returns how many things it did. It must not turn the worker.
    #[inline]
    pub fn turn_with(&self, application: impl FnOnce() -> u32) -> Turned {
        self.turn_once(application, &mut self.shared.turning.borrow_mut())
    }

    /// One turn; sleeps when nothing came for the whole spin budget, until something does, a timer
    /// is due, or at most 50 ms have passed.
    ///
    /// # Errors
    /// If the system refuses to wait.
    #[inline]
    pub fn turn_or_sleep(&self) -> io::Result<Turned> {
        self.turn_with_or_sleep(|| 0)
    }

    /// [`Worker::turn_with`] and [`Worker::turn_or_sleep`] at once.
    ///
    /// # Errors
    /// If the system refuses to wait.
    #[inline]
    pub fn turn_with_or_sleep(&self, application: impl FnOnce() -> u32) -> io::Result<Turned> {
        let mut turning = self.shared.turning.borrow_mut();
        let turned = self.turn_once(application, &mut turning);
        if turned == Turned::Spent {
            let core = &mut *self.shared.core.borrow_mut();
            turning.sleep(core, &mut *self.shared.sleeper.borrow_mut())?;
        }
        Ok(turned)
    }

    /// The core is borrowed for each part of the turn, but not while the application runs between
    /// them, so that it can use its sockets.
    #[inline(always)]
    fn turn_once(&self, application: impl FnOnce() -> u32, turning: &mut Loop) -> Turned {
        let Some(begun) = turning.begin(&mut *self.shared.core.borrow_mut()) else {
            return Turned::Idle;
        };
        let done = Progress::done(application());
        turning.finish(&mut *self.shared.core.borrow_mut(), begun, done)
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`; inside a turn, the turn's.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match self.shared.turning.try_borrow_mut() {
            Ok(mut turning) => turning.now(),
            Err(_turning) => self.shared.core.borrow().now.as_nanos(),
        }
    }

    /// Why the device is broken for good, if it is.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.shared.core.borrow().broken.clone()
    }

    /// The offloads that are in use, and which of those wanted are not.
    #[must_use]
    pub fn offloads(&self) -> OffloadsInUse {
        self.shared.core.borrow().offloads.clone()
    }

    /// Calls `visit` with layer, name and value of every counter.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        self.shared.core.borrow().visit_counters(visit);
        let turning = self.shared.turning.borrow().counters();
        turning.visit(&mut |name, value| visit("turn", name, value));
    }

    /// Calls `visit` with a snapshot of every TCP connection.
    pub fn visit_connections(&self, visit: &mut dyn FnMut(&TcpInfo)) {
        self.shared.core.borrow_mut().stack.tcp().0.visit_connections(visit);
    }

    /// Checks that received frames are delivered or counted as dropped, in every layer. Panics if
    /// not; for tests.
    pub fn check_counters(&self) {
        self.shared.core.borrow().stack.check();
    }
}
