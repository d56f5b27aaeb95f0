//! Everything that one process's double knows, behind one lock, and the ways to it.
//!
//! A call of a program enters through [`with`], works on [`World`], and ends with
//! [`World::run`], which executes what was posted and delivers what arrived until nothing is left
//! to do. Messages for queues of the same process are delivered in that call, so tests within a
//! process have neither threads nor chance. A thread exists only where there is a wire, a kernel
//! side, a control socket or a timer (see `wire`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::address::Ah;
use crate::completion::{Channel, Cq};
use crate::config::Config;
use crate::counters::Counters;
use crate::device::Device;
use crate::events::ContextState;
use crate::faults::Faults;
use crate::memory::Regions;
use crate::message::Message;
use crate::queue_pair::Qp;
use crate::shared_receive::Srq;
use crate::table::Table;
use crate::wire::Wire;

/// A protection domain.
pub(crate) struct Pd {
    /// Number of its device.
    pub(crate) device: usize,
}

/// All objects.
pub(crate) struct World {
    /// By number.
    pub(crate) devices: Vec<Device>,
    /// Open contexts.
    pub(crate) contexts: Table<ContextState>,
    /// Protection domains.
    pub(crate) pds: Table<Pd>,
    /// Registered memory.
    pub(crate) regions: Regions,
    /// Completion channels.
    pub(crate) channels: Table<Channel>,
    /// Completion queues.
    pub(crate) cqs: Table<Cq>,
    /// Queue pairs.
    pub(crate) qps: Table<Qp>,
    /// Handles of queue pairs by number.
    pub(crate) numbers: HashMap<u32, u32>,
    /// Queue pairs that were ever made.
    pub(crate) numbers_made: u32,
    /// Shared receive queues.
    pub(crate) srqs: Table<Srq>,
    /// Address handles.
    pub(crate) addresses: Table<Ah>,
    /// Queue pairs that have something to send.
    pub(crate) ready: VecDeque<u32>,
    /// Messages that arrived.
    pub(crate) inbox: VecDeque<Message>,
    /// Other processes, if there is a wire, and the thread.
    pub(crate) wire: Wire,
    /// What shall fail.
    pub(crate) faults: Faults,
    /// Counts.
    pub(crate) counters: Counters,
    /// The text was wrong: no device, and why.
    pub(crate) misconfigured: Option<String>,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);
/// Signalled when an event was acknowledged.
pub(crate) static ACKNOWLEDGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Option<World>> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` with the world, which is made at the first call.
pub(crate) fn with<R>(work: impl FnOnce(&mut World) -> R) -> R {
    let mut guard = lock();
    work(guard.get_or_insert_with(World::from_environment))
}

/// Waits until `done` says so, woken by [`ACKNOWLEDGED`], at most two seconds. Says whether it is.
pub(crate) fn wait_until(done: impl Fn(&World) -> bool) -> bool {
    let mut guard = lock();
    let limit = Instant::now() + std::time::Duration::from_secs(2);
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        if guard.as_ref().is_none_or(&done) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        guard = ACKNOWLEDGED.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Replaces the world by one of another configuration. Objects of the old one are void.
///
/// # Errors
/// What is wrong with the text; the old world stays.
pub(crate) fn replace(text: &str) -> Result<(), String> {
    let config = Config::parse(text)?;
    let mut guard = lock();
    if let Some(old) = guard.take() {
        old.wire.stop();
    }
    *guard = Some(World::new(config));
    Ok(())
}

impl World {
    fn from_environment() -> World {
        match Config::from_environment() {
            Ok(config) => World::new(config),
            Err(error) => {
                eprintln!("libibverbs double: ROCEWAY_DOUBLE: {error}");
                let none = Config { devices: Vec::new(), wire: None, control: None, seed: 1 };
                let mut world = World::new(none);
                world.misconfigured = Some(error);
                world
            }
        }
    }

    fn new(config: Config) -> World {
        crate::abi::checked();
        let devices = config.devices.iter().cloned().enumerate();
        World {
            devices: devices.map(|(number, device)| Device::new(device, number)).collect(),
            contexts: Table::default(),
            pds: Table::default(),
            regions: Regions::default(),
            channels: Table::default(),
            cqs: Table::default(),
            qps: Table::default(),
            numbers: HashMap::new(),
            numbers_made: 0,
            srqs: Table::default(),
            addresses: Table::default(),
            ready: VecDeque::new(),
            inbox: VecDeque::new(),
            wire: Wire::new(config.wire, config.control),
            faults: Faults::new(config.seed),
            counters: Counters::default(),
            misconfigured: None,
        }
    }

    /// Executes and delivers until nothing is left to do.
    pub(crate) fn run(&mut self) {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                self.deliver(&message);
            } else if let Some(handle) = self.ready.pop_front() {
                self.progress(handle);
            } else {
                break;
            }
        }
        if self.next_deadline().is_some() {
            self.start_thread();
        }
    }

    /// The earliest timer of a queue pair.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.qps.iter().filter_map(|(_, qp)| qp.rc.deadline()).min()
    }
}
