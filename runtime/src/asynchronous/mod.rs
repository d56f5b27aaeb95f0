//! Async sockets and tasks on the worker's own thread.
//!
//! [`Executor`] turns a [`local::Worker`] and polls tasks in each turn, at most
//! [`POLLS_PER_TURN`] of them, so that no number of runnable tasks holds the packets up. A task is
//! woken by the socket that it waits for, or from any thread, which rings the worker's doorbell.
//! Every task has a name; a poll that takes longer than a millisecond is counted under it, since
//! that is how long the packets of all others waited.
//!
//! Nothing here is `Send`: it is the thread's own. The sockets implement `futures_io::AsyncRead`
//! and `AsyncWrite`.

mod stalls;
mod tcp;
mod udp;
mod zero_copy;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_executor::LocalExecutor;
pub use async_executor::Task;
use roceway_busypoll::Turned;

pub use stalls::Stall;
pub use tcp::{Accept, Connect, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use zero_copy::Given;

use crate::host::Host;
use crate::local;
use crate::shared::mailbox::Mailbox;
use stalls::Stalls;

/// Tasks polled between two turns, at most.
pub const POLLS_PER_TURN: u32 = 64;

/// What tasks and sockets need of their executor.
struct Shared {
    host: Rc<Host>,
    tasks: Weak<LocalExecutor<'static>>,
    stalls: Rc<Stalls>,
}

/// A handle to an executor, for tasks: opens sockets and spawns further tasks.
#[derive(Clone)]
pub struct Handle(Rc<Shared>);

impl Handle {
    pub(crate) fn host(&self) -> &Rc<Host> {
        &self.0.host
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &local::Worker {
        &self.0.host.worker
    }

    /// Spawns a task; `name` is what its stalls are counted under. Dropping the [`Task`] cancels
    /// it, `detach` lets it go. `None` if the executor is gone.
    pub fn spawn<T: 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Option<Task<T>> {
        let tasks = self.0.tasks.upgrade()?;
        let stalls = Rc::clone(&self.0.stalls);
        Some(tasks.spawn(async move {
            let mut future = pin!(future);
            poll_fn(|cx| stalls.measure(name, || future.as_mut().poll(cx))).await
        }))
    }
}

/// A worker with tasks.
pub struct Executor {
    handle: Handle,
    tasks: Rc<LocalExecutor<'static>>,
    /// Runs tasks, up to the budget each time that it is polled.
    driver: RefCell<Pin<Box<dyn Future<Output = Infallible>>>>,
    /// Tasks polled since the driver was.
    polled: Rc<Cell<u32>>,
    waker: Waker,
}

impl Executor {
    /// An executor that turns this worker. Nobody else is to turn it from now on, but its sockets
    /// can be used as before.
    #[must_use]
    pub fn new(worker: local::Worker) -> Executor {
        Executor::with_mailbox(worker, None)
    }

    pub(crate) fn with_mailbox(worker: local::Worker, mailbox: Option<Arc<Mailbox>>) -> Executor {
        let host = Rc::new(Host::new(worker, mailbox));
        // The first turn polls the driver, which from then on hears of every task that can run.
        host.alert.set();
        let waker = Waker::from(Arc::clone(&host.alert));
        let tasks = Rc::new(LocalExecutor::new());
        let polled = Rc::new(Cell::new(0));
        let driver = Box::pin(drive(Rc::clone(&tasks), Rc::clone(&polled)));
        let shared =
            Shared { host, tasks: Rc::downgrade(&tasks), stalls: Rc::new(Stalls::default()) };
        Executor {
            handle: Handle(Rc::new(shared)),
            tasks,
            driver: RefCell::new(driver),
            polled,
            waker,
        }
    }

    /// The handle that tasks use.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// As [`Handle::spawn`].
    pub fn spawn<T: 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        let stalls = Rc::clone(&self.handle.0.stalls);
        self.tasks.spawn(async move {
            let mut future = pin!(future);
            poll_fn(|cx| stalls.measure(name, || future.as_mut().poll(cx))).await
        })
    }

    /// One turn, in it the tasks that can run. Never sleeps.
    pub fn turn(&self) -> Turned {
        self.handle.host().turn(|| self.run_tasks())
    }

    /// As [`Executor::turn`]; sleeps when nothing came for the whole spin budget, until something
    /// does, a task is woken, a timer is due, or at most 50 ms have passed.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn turn_or_sleep(&self) -> io::Result<Turned> {
        self.handle.host().turn_or_sleep(|| self.run_tasks())
    }

    /// Turns until `future` is done, and returns what it came to.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> io::Result<T> {
        let host = self.handle.host();
        let mut future = pin!(future);
        let mut value = None;
        host.alert.set();
        loop {
            // The same alert serves `future` and the tasks: each is asked when it is set.
            let turned = host.turn_or_sleep(|| {
                let poll = || future.as_mut().poll(&mut Context::from_waker(&self.waker));
                if value.is_none()
                    && let Poll::Ready(done) = self.handle.0.stalls.measure("main", poll)
                {
                    value = Some(done);
                }
                1 + self.run_tasks()
            });
            if let Some(value) = value.take() {
                return Ok(value);
            }
            turned?;
        }
    }

    /// Calls `visit` with every name under which polls took longer than a millisecond.
    pub fn visit_stalls(&self, visit: &mut dyn FnMut(&Stall)) {
        self.handle.0.stalls.visit(visit);
    }

    /// Polls the tasks that can run, within the budget; returns how many.
    pub(crate) fn run_tasks(&self) -> u32 {
        self.polled.set(0);
        let mut cx = Context::from_waker(&self.waker);
        let Poll::Pending = self.driver.borrow_mut().as_mut().poll(&mut cx);
        if self.polled.get() >= POLLS_PER_TURN {
            self.handle.host().alert.set();
        }
        self.polled.get()
    }
}

/// Runs tasks for ever; gives way once the budget is spent.
async fn drive(tasks: Rc<LocalExecutor<'static>>, polled: Rc<Cell<u32>>) -> Infallible {
    loop {
        tasks.tick().await;
        polled.set(polled.get() + 1);
        if polled.get() >= POLLS_PER_TURN {
            let mut gave_way = false;
            poll_fn(|_| match std::mem::replace(&mut gave_way, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            })
            .await;
        }
    }
}
