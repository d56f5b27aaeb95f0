//! How other threads call an owned worker: a bounded queue of commands, a slot for each call under
//! way, and a doorbell.
//!
//! A command is plain data. Bytes cross in the slot's buffer: copied in by the caller before it
//! sends the command, copied out by it once the call is done; the slot's lock is never contended
//! then, since exactly one side has business there at a time. Invariants: a slot belongs to one
//! call from `take` to `free`; each call is completed exactly once, by the worker or, once that has
//! stopped, by whoever finds the command; a cancellation names the call by its slot's sequence
//! number and so never hits a later one.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use roceway_busypoll::Doorbell;

use super::Wait;
use crate::calls::{CallError, Data, Reply, Request};
use crate::core::Core;
use crate::zero_copy::Moved;

/// Calls under way at once; the next one is refused. A slot holds up to [`CALL_BYTES_MAX`].
pub(crate) const CALLS_MAX: u32 = 4096;
/// Commands that wait for the worker; a thread with one more yields until there is room.
const COMMANDS_MAX: usize = 1024;
/// Most bytes that one call moves; a longer one is cut short, as `read` and `write` may be.
pub(crate) const CALL_BYTES_MAX: usize = 64 * 1024;
/// How long a caller looks for its answer before it sleeps: about what waking it would cost.
const SPIN: Duration = Duration::from_micros(10);

/// The call is with the worker and its caller looks at the state.
const PENDING: u32 = 0;
/// The same, and the caller sleeps.
const PARKED: u32 = 1;
/// The outcome is there.
const DONE: u32 = 2;

/// What the worker is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    slot: u32,
    sequence: u32,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Run the call in the slot.
    Call,
    /// Nobody waits for that call any more.
    Cancel,
    /// Run this; nobody wants to know what it came to.
    Cast(Request),
}

struct Call {
    sequence: u32,
    request: Request,
    waits: bool,
    /// Bytes of `buffer` that the call moves.
    length: usize,
    buffer: Vec<u8>,
    /// What changes hands besides.
    moved: Moved,
    caller: Option<Thread>,
    outcome: Result<Reply, CallError>,
}

struct Slot {
    state: AtomicU32,
    call: Mutex<Call>,
}

/// What running a call came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ran {
    /// Its caller has its answer.
    Done,
    /// It waits for its socket.
    Blocked(Request),
}

/// The commands, slots and doorbell of one worker.
pub(crate) struct Mailbox {
    commands: ArrayQueue<Command>,
    slots: Box<[Slot]>,
    free: Mutex<Vec<u32>>,
    bell: Doorbell,
    stopped: AtomicBool,
    process: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    /// A mailbox whose worker is woken by `bell`.
    pub(crate) fn new(bell: Doorbell) -> Mailbox {
        let slot = |_| Slot {
            state: AtomicU32::new(DONE),
            call: Mutex::new(Call {
                sequence: 0,
                request: Request::Listen { at: ([0; 4], 0).into(), backlog: 0 },
                waits: false,
                length: 0,
                buffer: Vec::new(),
                moved: Moved::Nothing,
                caller: None,
                outcome: Ok(Reply::Done),
            }),
        };
        Mailbox {
            commands: ArrayQueue::new(COMMANDS_MAX),
            slots: (0..CALLS_MAX).map(slot).collect(),
            // The lowest are used most, so that few slots ever grow a buffer.
            free: Mutex::new((0..CALLS_MAX).rev().collect()),
            bell,
            stopped: AtomicBool::new(false),
            process: std::process::id(),
        }
    }

    /// Runs a call on the worker and waits for its outcome.
    pub(crate) fn call(&self, request: Request, data: Data<'_>, wait: Wait) -> io::Result<Reply> {
        if std::process::id() != self.process {
            return Err(super::forked());
        }
        let slot = lock(&self.free).pop().ok_or_else(|| {
            io::Error::new(io::ErrorKind::ResourceBusy, "too many calls under way on one worker")
        })?;
        let mut data = data;
        let sequence = self.fill(slot, request, &mut data, wait);
        let slept = self.send(Command { slot, sequence, what: What::Call });
        self.await_outcome(slot, sequence, wait, !slept);
        let outcome = self.collect(slot, data);
        lock(&self.free).push(slot);
        Ok(outcome?)
    }

    /// Has the worker run a call that nobody waits for, such as a close.
    pub(crate) fn cast(&self, request: Request) {
        if std::process::id() == self.process {
            self.send(Command { slot: 0, sequence: 0, what: What::Cast(request) });
        }
    }

    fn slot(&self, slot: u32) -> &Slot {
        // A slot's number comes from `free`, which holds those of `slots` only.
        &self.slots[usize::try_from(slot % CALLS_MAX).unwrap_or(0)]
    }

    fn fill(&self, slot: u32, request: Request, data: &mut Data<'_>, wait: Wait) -> u32 {
        let slot = self.slot(slot);
        let mut call = lock(&slot.call);
        call.sequence = call.sequence.wrapping_add(1);
        call.request = request;
        call.waits = wait != Wait::Never;
        call.caller = Some(thread::current());
        call.length = match data {
            Data::None => 0,
            Data::Out(bytes) => bytes.len().min(CALL_BYTES_MAX),
            Data::In(out) => out.len().min(CALL_BYTES_MAX),
            Data::Moved(moved) => {
                call.moved = mem::take(moved);
                0
            }
        };
        let length = call.length;
        if call.buffer.len() < length {
            call.buffer.resize(length, 0);
        }
        if let Data::Out(bytes) = data {
            call.buffer[..length].copy_from_slice(&bytes[..length]);
        }
        slot.state.store(PENDING, Ordering::Relaxed);
        call.sequence
    }

    /// Queues a command and rings; true if the worker slept.
    fn send(&self, command: Command) -> bool {
        while self.commands.push(command).is_err() {
            self.bell.ring();
            thread::yield_now();
        }
        let slept = self.bell.ring();
        // Pairs with the fence in `stop`: either that sees the command, or this sees the stop.
        fence(Ordering::SeqCst);
        if self.stopped.load(Ordering::Relaxed) {
            self.refuse_all();
        }
        slept
    }

    fn await_outcome(&self, number: u32, sequence: u32, wait: Wait, spin: bool) {
        let slot = self.slot(number);
        let is_done = || slot.state.load(Ordering::Acquire) == DONE;
        if spin {
            let end = Instant::now() + SPIN;
            while !is_done() && Instant::now() < end {
                (0..16).for_each(|_| std::hint::spin_loop());
            }
        }
        let mut deadline = match wait {
            Wait::Until(deadline) => Some(deadline),
            Wait::Never | Wait::Forever => None,
        };
        let park =
            slot.state.compare_exchange(PENDING, PARKED, Ordering::AcqRel, Ordering::Acquire);
        if park.is_err() {
            return;
        }
        while !is_done() {
            match deadline {
                None => thread::park(),
                Some(end) => match end.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => thread::park_timeout(left),
                    _ => {
                        // The outcome still comes: the call's own, or that it was cancelled.
                        deadline = None;
                        self.send(Command { slot: number, sequence, what: What::Cancel });
                    }
                },
            }
        }
    }

    fn collect(&self, slot: u32, data: Data<'_>) -> Result<Reply, CallError> {
        let mut call = lock(&self.slot(slot).call);
        match (data, call.outcome) {
            (Data::In(out), Ok(Reply::Bytes(n) | Reply::BytesFrom(n, _))) => {
                let n = n.min(out.len());
                out[..n].copy_from_slice(&call.buffer[..n]);
            }
            (Data::Moved(moved), _) => *moved = mem::take(&mut call.moved),
            (Data::None | Data::Out(_) | Data::In(_), _) => {}
        }
        call.outcome
    }

    // The worker's side.

    /// Whether a command waits.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The next command, run. `None` if there is none; a call that must wait comes back with its
    /// slot, and one whose caller was sleeping puts that into `wake`.
    pub(crate) fn run_next(&self, core: &mut Core, wake: &mut Vec<Thread>) -> Option<Next> {
        let command = self.commands.pop()?;
        Some(match command.what {
            What::Call => match self.run(command.slot, core, wake) {
                Ran::Done => Next::Done(self.request(command.slot)),
                Ran::Blocked(request) => Next::Blocked(command.slot, request),
            },
            What::Cast(request) => {
                let _nobody_asks = request.execute(core, Data::None);
                Next::Done(request)
            }
            What::Cancel => match self.cancellable(command) {
                Some(request) => Next::Cancel(command.slot, request),
                None => Next::Nothing,
            },
        })
    }

    fn request(&self, slot: u32) -> Request {
        lock(&self.slot(slot).call).request
    }

    /// The call that a cancellation means, if it still waits.
    fn cancellable(&self, command: Command) -> Option<Request> {
        let slot = self.slot(command.slot);
        let call = lock(&slot.call);
        let waits = slot.state.load(Ordering::Relaxed) != DONE;
        (waits && call.sequence == command.sequence).then_some(call.request)
    }

    /// Runs the call in a slot.
    pub(crate) fn run(&self, slot: u32, core: &mut Core, wake: &mut Vec<Thread>) -> Ran {
        let slot = self.slot(slot);
        let mut call = lock(&slot.call);
        let (request, length) = (call.request, call.length);
        let data = match request {
            Request::Send(_) | Request::SendDatagram(..) => Data::Out(&call.buffer[..length]),
            Request::Receive(_)
            | Request::Peek(_)
            | Request::ReceiveDatagram(_)
            | Request::PeekDatagram(_) => Data::In(&mut call.buffer[..length]),
            Request::Give(_) | Request::Take(..) | Request::Block => Data::Moved(&mut call.moved),
            _ => Data::None,
        };
        let outcome = request.execute(core, data);
        match outcome {
            Err(error) if error.is_would_block() && call.waits => Ran::Blocked(request),
            outcome => {
                finish(slot, &mut call, outcome, wake);
                Ran::Done
            }
        }
    }

    /// Completes a call without running it.
    pub(crate) fn complete(&self, slot: u32, error: CallError, wake: &mut Vec<Thread>) {
        let slot = self.slot(slot);
        finish(slot, &mut lock(&slot.call), Err(error), wake);
    }

    /// The worker takes no more commands; those under way are refused by their callers.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.refuse_all();
    }

    fn refuse_all(&self) {
        let mut wake = Vec::new();
        while let Some(command) = self.commands.pop() {
            if matches!(command.what, What::Call) {
                self.complete(command.slot, CallError::Stopped, &mut wake);
            }
        }
        wake.iter().for_each(Thread::unpark);
    }
}

/// What [`Mailbox::run_next`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// Ran to its end.
    Done(Request),
    /// The call in this slot waits for its socket.
    Blocked(u32, Request),
    /// The call in this slot, which may wait for its socket, is to be completed now.
    Cancel(u32, Request),
    /// A cancellation that came too late.
    Nothing,
}

/// Puts the outcome there; a sleeping caller is added to those to be woken.
fn finish(slot: &Slot, call: &mut Call, outcome: Result<Reply, CallError>, wake: &mut Vec<Thread>) {
    call.outcome = outcome;
    let caller = call.caller.take();
    if slot.state.swap(DONE, Ordering::AcqRel) == PARKED
        && let Some(caller) = caller
    {
        wake.push(caller);
    }
}
