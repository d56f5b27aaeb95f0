//! A local worker with guests: calls of other threads and tasks of its own.
//!
//! Adds to the turn what a plain [`local::Worker`] does not have: commands in the control phase;
//! the stack's events, and the tasks that they wake, in the application phase, so that an answer
//! leaves in the turn that took the question. Wakers run while neither core nor table is borrowed,
//! because they may run code of the application; threads are woken after the frames are sent.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::{io, mem};

use roceway_busypoll::{Armed, Doorbell, Progress, Turned, Work};
use roceway_rdma_virtio::memory::buffer::{Buffer, BufferMut};
use roceway_rdma_virtio::memory::leases::SendOutcome;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, Readiness};

use crate::calls::{CallError, Request};
use crate::core::Core;
use crate::given::Given;
use crate::local;
use crate::shared::mailbox::{Mailbox, Next, Ran};
use crate::waits::{Socket, Waiter, Waits};
use crate::zero_copy::GiveError;

/// Says that a task can run; wakes the worker's thread if it sleeps.
pub(crate) struct Alert {
    runnable: AtomicBool,
    bell: Doorbell,
}

impl Alert {
    /// Whether a task can run.
    pub(crate) fn is_set(&self) -> bool {
        self.runnable.load(Ordering::Acquire)
    }

    /// Sets it without waking: for the worker's own thread.
    pub(crate) fn set(&self) {
        self.runnable.store(true, Ordering::Release);
    }

    /// Whether a task can run; from now on none can until the next wake.
    pub(crate) fn take(&self) -> bool {
        self.is_set() && self.runnable.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Alert {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.runnable.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }
}

/// Events taken after cold work: more than a worker has sockets by default.
const EVENTS_MAX: u32 = 1 << 18;

/// Who waits, and who is to be woken.
#[derive(Default)]
struct Guests {
    waits: Waits,
    /// Sends of tasks.
    given: Given,
    /// Tasks to be woken.
    wakers: Vec<Waker>,
    /// Threads to be woken.
    threads: Vec<Thread>,
    /// Calls to be tried again.
    calls: Vec<u32>,
}

/// A worker and its guests.
pub(crate) struct Host {
    pub(crate) worker: local::Worker,
    guests: RefCell<Guests>,
    mailbox: Option<Arc<Mailbox>>,
    pub(crate) alert: Arc<Alert>,
    /// The guests have threads to be woken.
    threads_due: Cell<bool>,
}

impl Host {
    /// A worker that also takes calls from `mailbox`, if there is one.
    pub(crate) fn new(worker: local::Worker, mailbox: Option<Arc<Mailbox>>) -> Host {
        let bell = worker.shared.sleeper.borrow().doorbell().clone();
        worker.shared.hosted.set(true);
        let alert = Arc::new(Alert { runnable: AtomicBool::new(false), bell });
        Host { worker, guests: RefCell::default(), mailbox, alert, threads_due: Cell::new(false) }
    }

    /// One turn with `tasks` in its application phase, which says how many it polled. Never
    /// sleeps.
    pub(crate) fn turn(&self, tasks: impl FnMut() -> u32) -> Turned {
        self.worker.shared.turning.borrow_mut().turn(&mut Hosted { host: self, tasks })
    }

    /// As [`Host::turn`]; sleeps once the spin budget is spent.
    pub(crate) fn turn_or_sleep(&self, tasks: impl FnMut() -> u32) -> io::Result<Turned> {
        let sleeper = &mut *self.worker.shared.sleeper.borrow_mut();
        let mut turning = self.worker.shared.turning.borrow_mut();
        turning.run_once(&mut Hosted { host: self, tasks }, sleeper)
    }

    /// The next turn goes through its phases.
    pub(crate) fn expect_work(&self) {
        self.worker.shared.core.borrow_mut().expect_work();
    }

    /// A task waits for a socket.
    pub(crate) fn wait(&self, socket: Socket, interest: Readiness, waker: &Waker) {
        let old = {
            let core = &mut *self.worker.shared.core.borrow_mut();
            let waits = &mut self.guests.borrow_mut().waits;
            let old = waits.set_task(socket, interest, waker);
            waits.watch(socket, core);
            // What is ready already is an event now.
            core.expect_work();
            old
        };
        // Its drop may run code of the application.
        drop(old);
    }

    /// Gives a buffer to be sent for a task; the cookie by which it is asked for.
    pub(crate) fn give(
        &self,
        id: Id<Connection>,
        buffer: &Buffer,
        range: (usize, usize),
    ) -> Result<u64, GiveError> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let given = &mut self.guests.borrow_mut().given;
        let cookie = given.cookie();
        core.give(id, buffer, range, Some(cookie))?;
        given.begin(cookie);
        core.expect_work();
        Ok(cookie)
    }

    /// How a send ended; if it has not, the task waits.
    pub(crate) fn poll_given(&self, cookie: u64, waker: &Waker) -> Poll<SendOutcome> {
        self.guests.borrow_mut().given.poll(cookie, waker)
    }

    /// Nobody asks for this send any more.
    pub(crate) fn forget_given(&self, cookie: u64) {
        self.guests.borrow_mut().given.forget(cookie);
    }

    /// A free buffer; if there is none, the task waits.
    pub(crate) fn poll_buffer(&self, waker: &Waker) -> Poll<BufferMut> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        match core.block() {
            Some(buffer) => Poll::Ready(buffer),
            None => {
                self.guests.borrow_mut().given.starve(waker);
                // It may come back from any thread.
                core.set_lends(true);
                Poll::Pending
            }
        }
    }

    /// Nobody waits for this socket any more: it is about to be closed.
    pub(crate) fn forget(&self, socket: Socket) {
        let mut gone = Vec::new();
        let waits = &mut self.guests.borrow_mut().waits;
        waits.take(socket, |_, _| true, |waiter| gone.push(waiter));
    }

    /// Everybody who waits finds out that there is nothing to wait for any more.
    pub(crate) fn stop(&self) {
        {
            let guests = &mut *self.guests.borrow_mut();
            let Guests { waits, wakers, threads, calls, given } = guests;
            given.stop(wakers);
            waits.drain(|waiter| sort(waiter, wakers, calls));
            if let Some(mailbox) = &self.mailbox {
                for call in calls.drain(..) {
                    mailbox.complete(call, CallError::Stopped, threads);
                }
            }
        }
        self.wake_tasks();
        self.threads_due.set(true);
        self.wake_threads();
    }

    /// Takes commands of other threads; returns how many.
    fn commands(&self, mailbox: &Mailbox, budget: u32) -> u32 {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let guests = &mut *self.guests.borrow_mut();
        let mut done = 0;
        while done < budget
            && let Some(next) = mailbox.run_next(core, &mut guests.threads)
        {
            guests.follow(mailbox, core, next);
            done += 1;
        }
        self.threads_due.set(!guests.threads.is_empty());
        done
    }

    /// Takes the stack's events, lets those calls go on that waited for them, and wakes the tasks
    /// that did; returns how many events there were.
    fn events(&self, budget: u32) -> u32 {
        let events = {
            let core = &mut *self.worker.shared.core.borrow_mut();
            let guests = &mut *self.guests.borrow_mut();
            let Guests { waits, wakers, calls, given, .. } = guests;
            tell_of_sends(core, given, wakers);
            let events = waits.dispatch(core, budget, |waiter| sort(waiter, wakers, calls));
            if let Some(mailbox) = &self.mailbox
                && !guests.calls.is_empty()
            {
                guests.retry(mailbox, core);
                self.threads_due.set(!guests.threads.is_empty());
            }
            events
        };
        self.wake_tasks();
        events
    }

    fn wake_tasks(&self) {
        if self.guests.borrow().wakers.is_empty() {
            return;
        }
        // The list is used again, so that waking allocates nothing.
        let mut wakers = mem::take(&mut self.guests.borrow_mut().wakers);
        wakers.drain(..).for_each(Waker::wake);
        self.guests.borrow_mut().wakers = wakers;
    }

    fn wake_threads(&self) {
        if self.threads_due.take() {
            self.guests.borrow_mut().threads.drain(..).for_each(|thread| thread.unpark());
        }
    }
}

/// Tells tasks of sends that have ended, and of buffers that may have come back.
fn tell_of_sends(core: &mut Core, given: &mut Given, wakers: &mut Vec<Waker>) {
    while let Some(sent) = core.port.interface.memory().take_ended() {
        given.end(sent.cookie, sent.outcome, wakers);
    }
    if given.has_starved() {
        core.set_lends(true);
        if core.port.interface.memory_ref().has_returns() || core.has_free_block() {
            given.take_starved(wakers);
        }
    }
}

/// A waiter whose time has come, into its list.
fn sort(waiter: Waiter, wakers: &mut Vec<Waker>, calls: &mut Vec<u32>) {
    match waiter {
        Waiter::Call(call) => calls.push(call),
        Waiter::Task(waker) => wakers.push(waker),
    }
}

impl Guests {
    /// What follows from a command.
    fn follow(&mut self, mailbox: &Mailbox, core: &mut Core, next: Next) {
        match next {
            Next::Done(request) => {
                if let Some(socket) = request.disturbs() {
                    let Guests { waits, wakers, calls, .. } = self;
                    waits.take(socket, |_, _| true, |waiter| sort(waiter, wakers, calls));
                    waits.watch(socket, core);
                    self.retry(mailbox, core);
                    // The tasks among them are woken with the next event's.
                    core.expect_work();
                }
            }
            Next::Blocked(slot, request) => self.block(core, slot, request),
            Next::Cancel(slot, request) => {
                if let Some((socket, _)) = request.waits_for() {
                    self.waits.remove_call(socket, slot);
                    self.waits.watch(socket, core);
                }
                mailbox.complete(slot, CallError::WouldBlock, &mut self.threads);
            }
            Next::Nothing => {}
        }
    }

    fn block(&mut self, core: &mut Core, slot: u32, request: Request) {
        if let Some((socket, interest)) = request.waits_for() {
            self.waits.add(socket, interest, Waiter::Call(slot));
            self.waits.watch(socket, core);
        }
    }

    /// Tries calls again whose socket became ready.
    fn retry(&mut self, mailbox: &Mailbox, core: &mut Core) {
        let mut calls = mem::take(&mut self.calls);
        for call in calls.drain(..) {
            match mailbox.run(call, core, &mut self.threads) {
                Ran::Done => {}
                Ran::Blocked(request) => self.block(core, call, request),
            }
        }
        self.calls = calls;
    }
}

/// What a turn works on: the core's phases, and the guests' between them.
struct Hosted<'a, F> {
    host: &'a Host,
    tasks: F,
}

impl<F> Hosted<'_, F> {
    fn core(&self) -> std::cell::RefMut<'_, Core> {
        self.host.worker.shared.core.borrow_mut()
    }
}

impl<F: FnMut() -> u32> Work for Hosted<'_, F> {
    #[inline]
    fn ready(&mut self) -> bool {
        self.core().ready()
            || self.host.alert.is_set()
            || self.host.mailbox.as_deref().is_some_and(Mailbox::has_commands)
    }

    fn control(&mut self, now: u64, budget: u32) -> Progress {
        let before = self.core().control(now, budget).items();
        let mailbox = self.host.mailbox.as_deref();
        Progress::done(before + mailbox.map_or(0, |mailbox| self.host.commands(mailbox, budget)))
    }

    fn receive(&mut self, now: u64, budget: u32) -> Progress {
        self.core().receive(now, budget)
    }

    fn timers(&mut self, now: u64, budget: u32) -> Progress {
        self.core().timers(now, budget)
    }

    fn application(&mut self, _now: u64, budget: u32) -> Progress {
        let events = self.host.events(budget);
        let polled = if self.host.alert.take() { (self.tasks)() } else { 0 };
        Progress::done(events + polled)
    }

    fn transmit(&mut self, now: u64, budget: u32) -> Progress {
        self.core().transmit(now, budget)
    }

    fn doorbell(&mut self) {
        self.core().doorbell();
    }

    fn after(&mut self, now: u64, budget: u32) -> Progress {
        self.host.wake_threads();
        self.core().after(now, budget)
    }

    fn cold(&mut self, now: u64) {
        self.core().cold(now);
        // A link that was lost ends connections, and the application phase is over.
        if self.host.events(EVENTS_MAX) != 0 {
            self.host.wake_threads();
            // Not to bed before what was woken has run.
            self.host.alert.set();
        }
    }

    fn deadline(&mut self) -> u64 {
        self.core().deadline()
    }

    fn arm(&mut self) -> Armed {
        self.core().arm()
    }

    fn disarm(&mut self) {
        self.core().disarm();
    }
}
