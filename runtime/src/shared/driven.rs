//! The caller-driven manner: a call takes the worker's lock and runs in its own thread, frames
//! included, and no thread turns for others unless it waits itself.
//!
//! Of the threads that wait one leads (see [`Lead`]): it turns, gives the lock to whoever wants it
//! between turns, and sleeps on the device without the lock once its spin budget is spent. A ticker
//! turns when nobody has for [`TICK`], so that timers run and the peer's frames are answered while
//! the application computes. Wakes never happen under the lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use roceway_busypoll::{Doorbell, EventWait, Lead, Loop, Parker, Place, Sleeper, Turned, Work};
use roceway_rdma_virtio::nic::Nic;
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_stack::tcp::TcpInfo;
use roceway_stack::time;

use super::{BufferMut, Counter, LINGER, OwnMemory, Wait};
use crate::calls::{CallError, Data, Reply, Request};
use crate::config::WorkerConfig;
use crate::core::Core;
use crate::error::StartError;
use crate::io_error;
use crate::offload::OffloadsInUse;
use crate::start;
use crate::waits::{Socket, Waiter, Waits};

/// The ticker turns when nobody has for so long.
const TICK: Duration = Duration::from_millis(10);
/// How long a thread asks for the lock before it sleeps on it.
const SPIN: Duration = Duration::from_micros(20);
/// Looks of a leader for the one it released the lock to; then it takes the lock back.
const HANDOVER_LOOKS: u32 = 2_000;
/// Events taken after a turn.
const EVENTS_PER_TURN: u32 = 64;
/// Turns of the ticker in a row.
const TICKER_TURNS: u32 = 16;

thread_local! {
    /// Whether this thread holds a worker, so that a signal handler that calls in finds out.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// Room for those to be woken, used again so that waking allocates nothing.
    static WAKE: Cell<Vec<Parker>> = const { Cell::new(Vec::new()) };
    static PARKER: RefCell<Option<Parker>> = const { RefCell::new(None) };
}

/// What the lock protects.
struct Seat {
    core: Core,
    turning: Loop,
    waits: Waits,
    lead: Lead<Parker>,
    /// Of the leader; gone while it sleeps.
    sleeper: Option<EventWait>,
    /// When the leader's sleep ends by itself, while it sleeps.
    asleep_until: u64,
    /// To be woken once the lock is released.
    wake: Vec<Parker>,
    ring: bool,
    due: Vec<Place>,
    stopped: bool,
}

struct Shared {
    seat: Mutex<Seat>,
    /// Threads that want the lock.
    wanting: AtomicU32,
    bell: Doorbell,
    /// Nanoseconds of the last turn.
    turned_ns: AtomicU64,
    stopping: AtomicBool,
    process: u32,
}

/// A caller-driven worker.
pub(super) struct Driven {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

/// The worker, held.
struct Held<'a> {
    shared: &'a Shared,
    seat: Option<MutexGuard<'a, Seat>>,
}

impl Driven {
    /// Starts the worker and its ticker; returns the buffers of each memory.
    pub(super) fn start(
        nic: AnyNic,
        config: &WorkerConfig,
        memory: Vec<OwnMemory>,
    ) -> Result<(Driven, Vec<Vec<BufferMut>>), StartError> {
        let system = |call| move |source| StartError::System { call, source };
        let mut turning = Loop::new(config.turn);
        let event_fd = nic.event_fd();
        let mut core = start::start(nic, config, turning.now())?;
        let buffers = core.register_all(memory)?;
        let bell = Doorbell::new().map_err(system("eventfd"))?;
        let ringer = bell.clone();
        core.port.interface.memory().on_return(move || {
            let _whether_it_slept = ringer.ring();
        });
        let seat = Seat {
            core,
            turning,
            waits: Waits::default(),
            lead: Lead::new(),
            sleeper: Some(EventWait::new(bell.clone(), Some(event_fd))),
            asleep_until: 0,
            wake: Vec::new(),
            ring: false,
            due: Vec::new(),
            stopped: false,
        };
        let shared = Arc::new(Shared {
            seat: Mutex::new(seat),
            wanting: AtomicU32::new(0),
            bell,
            turned_ns: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            process: std::process::id(),
        });
        let ticking = Arc::clone(&shared);
        let ticker = thread::Builder::new()
            .name("roceway-ticker".to_owned())
            .spawn(move || ticking.tick())
            .map_err(system("spawn a thread"))?;
        Ok((Driven { shared, ticker: Mutex::new(Some(ticker)) }, buffers))
    }

    pub(super) fn call(&self, request: Request, data: Data<'_>, wait: Wait) -> io::Result<Reply> {
        let mut data = data;
        let mut held = self.shared.hold()?;
        match held.run(request, data.reborrow()) {
            Err(error) if error.is_would_block() => match wait {
                Wait::Never => Ok(held.run_after_turn(request, data)?),
                wait => Ok(held.wait(request, data, wait)?),
            },
            outcome => Ok(outcome?),
        }
    }

    pub(super) fn cast(&self, request: Request) {
        if let Ok(mut held) = self.shared.hold() {
            let _nobody_asks = held.run(request, Data::None);
        }
    }

    pub(super) fn counters(&self) -> io::Result<Vec<Counter>> {
        let mut held = self.shared.hold()?;
        let seat = held.seat()?;
        let mut counters = Vec::new();
        seat.core.visit_counters(&mut |layer, name, value| counters.push((layer, name, value)));
        let turning = seat.turning.counters();
        turning.visit(&mut |name, value| counters.push(("turn", name, value)));
        Ok(counters)
    }

    pub(super) fn connections(&self) -> io::Result<Vec<TcpInfo>> {
        let mut held = self.shared.hold()?;
        let mut connections = Vec::new();
        let (tcp, _) = held.seat()?.core.stack.tcp();
        tcp.visit_connections(&mut |info| connections.push(*info));
        Ok(connections)
    }

    pub(super) fn offloads(&self) -> io::Result<OffloadsInUse> {
        Ok(self.shared.hold()?.seat()?.core.offloads.clone())
    }

    pub(super) fn register(&self, memfd: OwnedFd, block: usize) -> io::Result<Vec<BufferMut>> {
        let mut held = self.shared.hold()?;
        held.seat()?.core.register(memfd, block).map_err(io_error::of_register)
    }

    pub(super) fn broken(&self) -> io::Result<Option<String>> {
        Ok(self.shared.hold()?.seat()?.core.broken.clone())
    }

    /// Ends the worker: everybody who waits returns, and what was closed before is still delivered
    /// if the peer takes it within [`LINGER`].
    pub(super) fn stop(&self) {
        if std::process::id() != self.shared.process {
            // A forked child has neither the ticker nor a right to the worker.
            return;
        }
        self.shared.stopping.store(true, Ordering::Release);
        if let Ok(mut held) = self.shared.hold()
            && let Ok(seat) = held.seat()
        {
            seat.stopped = true;
            let Seat { lead, wake, ring, .. } = seat;
            lead.make_all_due(|parker| wake.push(parker));
            *ring = true;
            held.linger();
        }
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            ticker.thread().unpark();
            // A panic of the ticker was reported when it happened.
            let _ended = ticker.join();
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Takes the lock.
    fn hold(&self) -> io::Result<Held<'_>> {
        if HOLDS.get() {
            return Err(super::reentered());
        }
        if std::process::id() != self.process {
            return Err(super::forked());
        }
        let seat = self.lock().ok_or_else(|| io::Error::from(CallError::Stopped))?;
        Ok(Held { shared: self, seat: Some(seat) })
    }

    /// The lock; `None` if a thread panicked while it held it.
    fn lock(&self) -> Option<MutexGuard<'_, Seat>> {
        // Before the lock: a signal handler that calls in from here on must not wait for it.
        HOLDS.set(true);
        let taken = match self.seat.try_lock() {
            Ok(seat) => Some(seat),
            Err(TryLockError::Poisoned(_)) => return None,
            Err(TryLockError::WouldBlock) => {
                self.wanting.fetch_add(1, Ordering::Relaxed);
                let taken = self.lock_patiently();
                self.wanting.fetch_sub(1, Ordering::Release);
                taken
            }
        };
        HOLDS.set(taken.is_some());
        taken
    }

    #[cold]
    fn lock_patiently(&self) -> Option<MutexGuard<'_, Seat>> {
        let end = Instant::now() + SPIN;
        while Instant::now() < end {
            match self.seat.try_lock() {
                Ok(seat) => return Some(seat),
                Err(TryLockError::Poisoned(_)) => return None,
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        self.seat.lock().ok()
    }

    /// The ticker's life.
    fn tick(&self) {
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(0);
        let mut seen = 0;
        while !self.stopping.load(Ordering::Acquire) {
            thread::park_timeout(TICK);
            let turned = self.turned_ns.load(Ordering::Relaxed);
            if std::mem::replace(&mut seen, turned) != turned {
                continue;
            }
            let Ok(mut held) = self.hold() else { return };
            let Ok(seat) = held.seat() else { return };
            // A leader that sleeps is woken by the device and by time.
            if seat.lead.has_leader() || seat.turning.now() < turned + tick_ns {
                continue;
            }
            seat.turning.resume();
            for _ in 0..TICKER_TURNS {
                if seat.turn(self) != Turned::Busy {
                    break;
                }
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl Held<'_> {
    fn seat(&mut self) -> Result<&mut Seat, CallError> {
        match self.seat.as_deref_mut() {
            Some(seat) if !seat.stopped => Ok(seat),
            _ => Err(CallError::Stopped),
        }
    }

    /// Releases the lock, then wakes whom this thread found ready.
    fn release(&mut self) {
        let Some(mut seat) = self.seat.take() else { return };
        if seat.wake.is_empty() && !seat.ring {
            drop(seat);
            HOLDS.set(false);
            return;
        }
        let mut wake = WAKE.try_with(Cell::take).unwrap_or_default();
        std::mem::swap(&mut wake, &mut seat.wake);
        let ring = std::mem::take(&mut seat.ring);
        drop(seat);
        HOLDS.set(false);
        wake.drain(..).for_each(|parker| parker.wake());
        let _thread_ends = WAKE.try_with(|room| room.set(wake));
        if ring {
            self.shared.bell.ring();
        }
    }

    /// Takes the lock again.
    fn retake(&mut self) -> Result<&mut Seat, CallError> {
        self.seat = self.shared.lock();
        self.seat()
    }

    /// Runs a call, and what it gave to send. No turn follows a call that would block: what the
    /// turn brought would come before the caller waits for it.
    #[inline]
    fn run(&mut self, request: Request, data: Data<'_>) -> Result<Reply, CallError> {
        let shared = self.shared;
        let seat = self.seat()?;
        seat.core.now = time::Instant::from_nanos(seat.turning.now());
        let outcome = request.execute(&mut seat.core, data);
        if let Some(socket) = request.disturbs() {
            seat.disturb(socket);
        }
        if seat.core.ready() && !outcome.is_err_and(CallError::is_would_block) {
            let _nobody_sleeps_on_it = seat.turn_alone(shared);
        }
        outcome
    }

    /// Runs a call that would block once more after a turn: a thread that never waits turns by
    /// asking.
    fn run_after_turn(&mut self, request: Request, data: Data<'_>) -> Result<Reply, CallError> {
        let shared = self.shared;
        let _the_next_call_turns = self.seat()?.turn_alone(shared);
        self.run(request, data)
    }

    /// Waits for the socket and tries again, until there is an outcome or the time is up.
    fn wait(
        &mut self,
        request: Request,
        mut data: Data<'_>,
        wait: Wait,
    ) -> Result<Reply, CallError> {
        let Some((socket, interest)) = request.waits_for() else {
            return Err(CallError::WouldBlock);
        };
        let end = match wait {
            Wait::Until(end) => Some(end),
            Wait::Never | Wait::Forever => None,
        };
        let parker = this_thread();
        let seat = self.seat()?;
        let place = seat.lead.enter(parker.clone());
        let outcome = loop {
            let Ok(seat) = self.seat() else { break Err(CallError::Stopped) };
            seat.waits.add(socket, interest, Waiter::Call(place));
            seat.waits.watch(socket, &mut seat.core);
            let came = self.wait_until_due(place, &parker, end);
            if let Some(seat) = self.seat.as_deref_mut() {
                seat.waits.remove_call(socket, place);
            }
            match self.run(request, data.reborrow()) {
                Err(error) if error.is_would_block() && came => {}
                outcome => break outcome,
            }
        };
        if let Some(seat) = self.seat.as_deref_mut() {
            let successor = seat.lead.leave(place);
            seat.wake.extend(successor);
        }
        outcome
    }

    /// Returns true when the socket may be ready, false when the time is up.
    fn wait_until_due(&mut self, place: Place, parker: &Parker, end: Option<Instant>) -> bool {
        loop {
            let Ok(seat) = self.seat() else { return false };
            if seat.lead.take_due(place) {
                return true;
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return false;
            }
            if seat.lead.leads(place) {
                self.lead(end);
            } else {
                self.release();
                parker.sleep_until(end);
                let _stopped_is_seen_above = self.retake();
            }
        }
    }

    /// Goes on for the sake of what peers have not acknowledged, once those who waited are let go.
    fn linger(&mut self) {
        let shared = self.shared;
        let end = Instant::now() + LINGER;
        loop {
            // Whoever was let go finds out under the lock that the worker has ended.
            self.release();
            self.seat = shared.lock();
            let Some(seat) = self.seat.as_deref_mut() else { return };
            seat.turning.resume();
            let _busy_or_not = seat.turn(shared);
            if !seat.core.owes() || Instant::now() >= end {
                return;
            }
        }
    }

    /// One turn for all, and the sleep after it if nothing comes.
    fn lead(&mut self, end: Option<Instant>) {
        let shared = self.shared;
        let Ok(seat) = self.seat() else { return };
        let turned = seat.turn(shared);
        if turned == Turned::Spent && seat.wake.is_empty() {
            self.sleep(end);
        } else if !seat.wake.is_empty() || shared.wanting.load(Ordering::Relaxed) != 0 {
            self.release();
            // Whoever wants the lock gets it before this thread does again.
            for _ in 0..HANDOVER_LOOKS {
                if shared.wanting.load(Ordering::Acquire) == 0 {
                    break;
                }
                std::hint::spin_loop();
            }
            let _stopped_is_seen_by_the_caller = self.retake();
        }
    }

    /// Sleeps on the device, without the lock, until an event, a timer, a ring or `end`.
    fn sleep(&mut self, end: Option<Instant>) {
        let shared = self.shared;
        let Ok(seat) = self.seat() else { return };
        let Some(mut sleeper) = seat.sleeper.take() else { return };
        let Some(nap) = seat.turning.prepare_sleep(&mut seat.core, &mut sleeper) else {
            seat.sleeper = Some(sleeper);
            return;
        };
        seat.asleep_until = nap.until_ns();
        let left = end.map_or(u64::MAX, |end| {
            let left = end.saturating_duration_since(Instant::now());
            u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
        });
        self.release();
        let wake = sleeper.sleep(Some(nap.timeout_ns().min(left)));
        self.seat = shared.lock();
        if let Some(seat) = self.seat.as_deref_mut() {
            seat.asleep_until = 0;
            seat.turning.finish_sleep(&mut seat.core, &mut sleeper, nap, wake.ok());
            seat.sleeper = Some(sleeper);
        }
    }
}

impl Seat {
    /// A turn of a thread that does not lead.
    fn turn_alone(&mut self, shared: &Shared) -> Turned {
        if !self.lead.has_leader() {
            // Nobody was to turn since the last call: that was no long turn.
            self.turning.resume();
        }
        self.turn(shared)
    }

    /// One turn, and the events that it made. Whoever they concern is woken on release.
    fn turn(&mut self, shared: &Shared) -> Turned {
        let turned = self.turning.turn(&mut self.core);
        shared.turned_ns.store(self.core.now.as_nanos(), Ordering::Relaxed);
        let due = &mut self.due;
        let events = self.waits.dispatch(&mut self.core, EVENTS_PER_TURN, |waiter| match waiter {
            Waiter::Call(place) => due.push(place),
            // Tasks belong to the owned manner.
            Waiter::Task(waker) => waker.wake(),
        });
        self.wake_due();
        if self.asleep_until != 0 && self.core.deadline() < self.asleep_until {
            self.ring = true;
        }
        if events > 0 { Turned::Busy } else { turned }
    }

    /// Everybody who waits for this socket must look again.
    fn disturb(&mut self, socket: Socket) {
        let due = &mut self.due;
        self.waits.take(
            socket,
            |_, _| true,
            |waiter| match waiter {
                Waiter::Call(place) => due.push(place),
                Waiter::Task(waker) => waker.wake(),
            },
        );
        self.waits.watch(socket, &mut self.core);
        self.wake_due();
    }

    fn wake_due(&mut self) {
        for place in self.due.drain(..) {
            let parker = self.lead.make_due(place);
            if self.lead.leads(place) {
                // It turns, and finds out; or it sleeps on the device.
                self.ring |= self.asleep_until != 0;
            } else {
                self.wake.extend(parker);
            }
        }
    }
}

/// The calling thread's token, made once.
fn this_thread() -> Parker {
    PARKER.with_borrow_mut(|parker| parker.get_or_insert_with(Parker::of_this_thread).clone())
}
