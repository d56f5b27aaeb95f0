//! The owned manner: a thread that turns, and nothing else does.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::Wake;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use roceway_rdma_virtio::nic::any::AnyNic;

use super::mailbox::Mailbox;
use super::{BufferMut, LINGER, OwnMemory, Wait};
use crate::asynchronous::Executor;
use crate::calls::{CallError, Data, Reply, Request};
use crate::config::WorkerConfig;
use crate::error::StartError;
use crate::host::Alert;
use crate::local;

/// Jobs that wait for the worker's thread; a further one yields until there is room.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce(&Executor) + Send>;

/// What the worker's thread and its callers share.
struct Post {
    mailbox: Arc<Mailbox>,
    jobs: ArrayQueue<Job>,
    alert: Arc<Alert>,
    stopping: AtomicBool,
}

/// An owned worker, as other threads see it.
pub(super) struct Owned {
    post: Arc<Post>,
    turner: ThreadId,
    joins: Mutex<Option<JoinHandle<()>>>,
    process: u32,
}

impl Owned {
    /// Starts the thread and has it start the worker; returns the buffers of each memory.
    pub(super) fn start(
        nic: AnyNic,
        config: &WorkerConfig,
        memory: Vec<OwnMemory>,
    ) -> Result<(Owned, Vec<Vec<BufferMut>>), StartError> {
        let (tell, told) = mpsc::sync_channel(1);
        let config = config.clone();
        let run = move || match start(nic, &config, memory) {
            Ok((executor, post, buffers)) => {
                let _the_starter_waits = tell.send(Ok((Arc::clone(&post), buffers)));
                turn_until_stopped(&executor, &post);
            }
            Err(error) => {
                let _the_starter_waits = tell.send(Err(error));
            }
        };
        let system = |source| StartError::System { call: "spawn a thread", source };
        let thread =
            thread::Builder::new().name("roceway".to_owned()).spawn(run).map_err(system)?;
        let gone = |_| system(io::Error::other("the worker's thread ended at its start"));
        let (post, buffers) = told.recv().map_err(gone)??;
        let (turner, process) = (thread.thread().id(), std::process::id());
        Ok((Owned { post, turner, joins: Mutex::new(Some(thread)), process }, buffers))
    }

    pub(super) fn call(&self, request: Request, data: Data<'_>, wait: Wait) -> io::Result<Reply> {
        if thread::current().id() == self.turner {
            return Err(super::reentered());
        }
        self.post.mailbox.call(request, data, wait)
    }

    pub(super) fn cast(&self, request: Request) {
        self.post.mailbox.cast(request);
    }

    /// Has the worker's thread run a job.
    pub(super) fn run_inside(&self, job: Job) -> io::Result<()> {
        if std::process::id() != self.process {
            return Err(super::forked());
        }
        let mut job = job;
        loop {
            if self.post.stopping.load(Ordering::Acquire) {
                return Err(CallError::Stopped.into());
            }
            match self.post.jobs.push(job) {
                Ok(()) => break,
                Err(again) => job = again,
            }
            thread::yield_now();
        }
        self.post.alert.wake_by_ref();
        Ok(())
    }

    /// Has the worker's thread answer a question.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Executor) -> T + Send + 'static,
    ) -> io::Result<T> {
        if thread::current().id() == self.turner {
            return Err(super::reentered());
        }
        let (tell, told) = mpsc::sync_channel(1);
        self.run_inside(Box::new(move |executor| {
            let _asker_may_be_gone = tell.send(question(executor));
        }))?;
        told.recv().map_err(|_dropped| CallError::Stopped.into())
    }

    /// Stops the thread and waits for its end, unless it is the calling one.
    pub(super) fn stop(&self) {
        if std::process::id() != self.process {
            // A forked child has neither the thread nor a right to the worker.
            return;
        }
        self.post.stopping.store(true, Ordering::Release);
        self.post.alert.wake_by_ref();
        let thread = self.joins.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread::current().id() != self.turner
        {
            // A panic of the worker was reported when it happened.
            let _ended = thread.join();
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.stop();
    }
}

type Started = (Executor, Arc<Post>, Vec<Vec<BufferMut>>);

fn start(
    nic: AnyNic,
    config: &WorkerConfig,
    memory: Vec<OwnMemory>,
) -> Result<Started, StartError> {
    let worker = local::Worker::with_nic(nic, config)?;
    let buffers = worker.shared.core.borrow_mut().register_all(memory)?;
    let bell = worker.shared.sleeper.borrow().doorbell().clone();
    let mailbox = Arc::new(Mailbox::new(bell));
    let executor = Executor::with_mailbox(worker, Some(Arc::clone(&mailbox)));
    let alert = Arc::clone(&executor.handle().host().alert);
    let post =
        Post { mailbox, jobs: ArrayQueue::new(JOBS_MAX), alert, stopping: AtomicBool::new(false) };
    Ok((executor, Arc::new(post), buffers))
}

/// Refuses everything once the worker's thread ends, however it ends.
struct Ending<'a> {
    executor: &'a Executor,
    post: &'a Post,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.post.stopping.store(true, Ordering::Release);
        self.post.mailbox.stop();
        self.executor.handle().host().stop();
        while self.post.jobs.pop().is_some() {}
    }
}

fn turn_until_stopped(executor: &Executor, post: &Post) {
    let _ending = Ending { executor, post };
    let host = executor.handle().host();
    let is_asked = || !post.jobs.is_empty() || post.stopping.load(Ordering::Acquire);
    while !post.stopping.load(Ordering::Acquire) {
        // What is asked for between turns counts as progress, so that nobody sleeps over it.
        let tasks = || executor.run_tasks() + u32::from(is_asked());
        // The system refusing to wait is the end of the worker: its callers are told.
        if host.turn_or_sleep(tasks).is_err() {
            return;
        }
        while let Some(job) = post.jobs.pop() {
            job(executor);
            host.expect_work();
        }
    }
    linger(executor);
}

/// What was closed before the end is still delivered, if the peer takes it within [`LINGER`].
fn linger(executor: &Executor) {
    let end = Instant::now() + LINGER;
    let is_owing = || executor.handle().worker().shared.core.borrow_mut().owes();
    // The first turn takes the last commands, the closes among them.
    loop {
        executor.handle().host().expect_work();
        let _idle_or_not = executor.turn();
        if !is_owing() || Instant::now() >= end {
            return;
        }
    }
}
