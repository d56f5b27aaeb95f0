//! Completion queues, and the channels on which they announce completions to a sleeper.
//!
//! Owns both objects. Polling makes no system call and no allocation. Invariants: the fd of a
//! channel never blocks; every event that was taken is acknowledged before its queue is destroyed,
//! in batches of `ACKNOWLEDGED_AT_ONCE` before.

use super::context::{Context, ContextInner, set_nonblocking};
use super::error;
use super::sys::{self, Zero};
use super::work_completion::WorkCompletion;
use crate::nic::DeviceError;
use std::ffi::c_void;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Events of a queue that are acknowledged together: acknowledging takes a lock.
const ACKNOWLEDGED_AT_ONCE: u32 = 64;
/// Events that one call takes.
const EVENTS_MAX: u32 = 256;

/// What a completion queue is known by in events: its `cq_context`.
pub(super) struct Cookie {
    token: u64,
    unacknowledged: AtomicU32,
}

impl Cookie {
    /// The token of the queue whose `cq_context` this is.
    ///
    /// # Safety
    /// It is that of a queue made here that is not destroyed.
    pub(super) unsafe fn token(context: *mut c_void) -> u64 {
        // SAFETY: the caller's promise; the cookie is dropped after the queue.
        unsafe { (*context.cast::<Cookie>()).token }
    }
}

struct ChannelInner {
    context: Arc<ContextInner>,
    channel: NonNull<sys::ibv_comp_channel>,
    /// Held while events are taken and while a queue of the channel is destroyed, so that an event
    /// is counted before its queue's last acknowledgement.
    taking: Mutex<()>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for ChannelInner {}
// SAFETY: as above.
unsafe impl Sync for ChannelInner {}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let destroy = self.context.table().ibv_destroy_comp_channel;
        // SAFETY: made once, destroyed here, after the queues that hold it.
        let _destroyed = unsafe { destroy(self.channel.as_ptr()) };
    }
}

/// A completion channel. A handle: its clones are the same channel.
#[derive(Clone)]
pub struct CompletionChannel {
    inner: Arc<ChannelInner>,
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("CompletionChannel").field(&self.fd()).finish()
    }
}

impl CompletionChannel {
    pub(super) fn new(context: &Context) -> Result<CompletionChannel, DeviceError> {
        let context = Arc::clone(&context.inner);
        let create = context.table().ibv_create_comp_channel;
        // SAFETY: the context is open.
        let pointer = unsafe { create(context.as_ptr()) };
        let channel = context.object("ibv_create_comp_channel", pointer)?;
        let inner = ChannelInner { context, channel, taking: Mutex::new(()) };
        let channel = CompletionChannel { inner: Arc::new(inner) };
        set_nonblocking(channel.fd())
            .map_err(|errno| channel.inner.context.failure("fcntl", errno))?;
        Ok(channel)
    }

    /// The fd that becomes readable with an event; it does not block.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        // SAFETY: the channel lives; the member is constant.
        unsafe { (*self.inner.channel.as_ptr()).fd }
    }

    /// Takes the events that came, at most 256; returns their number. Which queue they are of is
    /// not told: whoever is woken polls all queues of the channel, and arms them again.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn take_events(&self) -> Result<u32, DeviceError> {
        self.take_events_of(EVENTS_MAX)
    }

    /// The same for one who knows that `most` were asked for: once they are there nobody looks for
    /// another, which would be a system call for nothing. One that is left ends the next sleep.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn take_events_of(&self, most: u32) -> Result<u32, DeviceError> {
        let inner = &self.inner;
        let table = inner.context.table();
        let _taking = inner.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let most = most.min(EVENTS_MAX);
        for taken in 0..most {
            let (mut cq, mut cookie) = (ptr::null_mut(), ptr::null_mut());
            let get = table.ibv_get_cq_event;
            // SAFETY: the channel lives and does not block; two places for pointers.
            let result = unsafe { get(inner.channel.as_ptr(), &mut cq, &mut cookie) };
            match error::check(result) {
                Ok(()) => {}
                Err(libc::EAGAIN | libc::EINTR) => return Ok(taken),
                Err(errno) => return Err(inner.context.failure("ibv_get_cq_event", errno)),
            }
            // SAFETY: the cookie of a queue of ours, which is not destroyed while `taking` is held.
            let cookie = unsafe { &*cookie.cast::<Cookie>() };
            let unacknowledged = cookie.unacknowledged.fetch_add(1, Ordering::Relaxed) + 1;
            if unacknowledged >= ACKNOWLEDGED_AT_ONCE {
                cookie.unacknowledged.store(0, Ordering::Relaxed);
                let acknowledge = table.ibv_ack_cq_events;
                // SAFETY: the queue of the event; each event is acknowledged once.
                unsafe { acknowledge(cq, unacknowledged) };
            }
        }
        Ok(most)
    }
}

/// What a completion queue is to be.
#[derive(Clone, Copy, Debug)]
pub struct CompletionQueueOptions<'a> {
    /// Completions that it holds at least; more than all work requests outstanding, since a queue
    /// that overruns takes its queue pairs with it.
    pub entries: u32,
    /// Where it announces completions, if it is ever to be armed.
    pub channel: Option<&'a CompletionChannel>,
    /// Which of the device's completion vectors.
    pub vector: u32,
    /// Names the queue in asynchronous events.
    pub token: u64,
}

pub(super) struct QueueInner {
    context: Arc<ContextInner>,
    channel: Option<Arc<ChannelInner>>,
    queue: NonNull<sys::ibv_cq>,
    cookie: NonNull<Cookie>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for QueueInner {}
// SAFETY: as above.
unsafe impl Sync for QueueInner {}

impl Drop for QueueInner {
    fn drop(&mut self) {
        let taking = self.channel.as_ref().map(|channel| &channel.taking);
        let _taking = taking.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the cookie is dropped below only.
        let unacknowledged = unsafe { self.cookie.as_ref() }.unacknowledged.load(Ordering::Relaxed);
        if unacknowledged > 0 {
            let acknowledge = self.context.table().ibv_ack_cq_events;
            // SAFETY: events of this queue that were taken and not acknowledged.
            unsafe { acknowledge(self.queue.as_ptr(), unacknowledged) };
        }
        let destroy = self.context.table().ibv_destroy_cq;
        // SAFETY: made once, destroyed here, after the queue pairs that hold it.
        let _destroyed = unsafe { destroy(self.queue.as_ptr()) };
        // SAFETY: made by Box::into_raw; nobody finds it any more.
        drop(unsafe { Box::from_raw(self.cookie.as_ptr()) });
    }
}

/// A poll that failed, with its errno: the device is gone or the queue has overrun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ibv_poll_cq: errno {errno}")]
pub struct PollFailure {
    /// The errno.
    pub errno: i32,
}

/// What a poll says that took no number of completions between none and all.
#[cold]
fn failed_poll(taken: i32) -> PollFailure {
    // More than was asked for is beyond the place that there is for it.
    let errno = if taken < 0 { taken.checked_neg().unwrap_or(libc::EIO) } else { libc::EPROTO };
    PollFailure { errno }
}

/// A completion queue. A handle: its clones are the same queue.
#[derive(Clone)]
pub struct CompletionQueue {
    inner: Arc<QueueInner>,
    /// Its address and the operation that polls it, which a provider sets when the context is made.
    queue: NonNull<sys::ibv_cq>,
    poll: sys::PollCq,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CompletionQueue").field("entries", &self.entries()).finish()
    }
}

impl CompletionQueue {
    pub(super) fn new(
        context: &Context,
        options: &CompletionQueueOptions<'_>,
    ) -> Result<CompletionQueue, DeviceError> {
        let entries = i32::try_from(options.entries).unwrap_or(i32::MAX);
        let vector = i32::try_from(options.vector).unwrap_or(i32::MAX);
        let create = context.inner.table().ibv_create_cq;
        let pointer = context.inner.as_ptr();
        Self::new_by(context, options, "ibv_create_cq", |cookie, channel| {
            // SAFETY: the context is open; a channel lives as long as the queue.
            unsafe { create(pointer, entries, cookie, channel, vector) }
        })
    }

    /// Makes a queue by a call that is given the queue's cookie and its channel or null.
    pub(super) fn new_by(
        context: &Context,
        options: &CompletionQueueOptions<'_>,
        call: &'static str,
        create: impl FnOnce(*mut c_void, *mut sys::ibv_comp_channel) -> *mut sys::ibv_cq,
    ) -> Result<CompletionQueue, DeviceError> {
        let context = Arc::clone(&context.inner);
        let channel = options.channel.map(|channel| Arc::clone(&channel.inner));
        let cookie = Cookie { token: options.token, unacknowledged: AtomicU32::new(0) };
        let cookie = NonNull::from(Box::leak(Box::new(cookie)));
        let announced = channel.as_ref().map_or(ptr::null_mut(), |inner| inner.channel.as_ptr());
        let pointer = create(cookie.as_ptr().cast(), announced);
        let queue = match context.object(call, pointer) {
            Ok(queue) => queue,
            Err(error) => {
                // SAFETY: leaked above; no queue has it.
                drop(unsafe { Box::from_raw(cookie.as_ptr()) });
                return Err(error);
            }
        };
        let inner = QueueInner { context, channel, queue, cookie };
        // SAFETY: the queue lives.
        let poll = unsafe { sys::poll_cq_of(queue.as_ptr()) };
        Ok(CompletionQueue { inner: Arc::new(inner), queue, poll })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_cq {
        self.queue.as_ptr()
    }

    pub(super) fn inner(&self) -> &Arc<QueueInner> {
        &self.inner
    }

    /// Completions that it holds: at least what was asked for.
    #[must_use]
    pub fn entries(&self) -> u32 {
        // SAFETY: the queue lives; only resizing would change the member.
        let entries = unsafe { (*self.as_ptr()).cqe };
        u32::try_from(entries).unwrap_or(0)
    }

    /// Takes completions, oldest first; returns how many.
    ///
    /// # Errors
    /// If the queue or the device has failed.
    #[inline]
    pub fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize, PollFailure> {
        // SAFETY: so many places, which are borrowed.
        match unsafe { self.poll_into(out.as_mut_ptr(), out.len()) } {
            Ok(taken) => Ok(taken.get()),
            Err(None) => Ok(0),
            Err(Some(failure)) => Err(failure),
        }
    }

    /// As [`CompletionQueue::poll`], into an array of `len` places; no failure if there are none.
    ///
    /// # Safety
    /// There are so many, and nobody else uses them meanwhile.
    #[inline(always)]
    pub(super) unsafe fn poll_into(
        &self,
        out: *mut WorkCompletion,
        len: usize,
    ) -> Result<NonZeroUsize, Option<PollFailure>> {
        let room = i32::try_from(len).unwrap_or(i32::MAX);
        // SAFETY: the queue lives, and the operation is its own; a WorkCompletion is an ibv_wc and
        // nothing else; the places are the caller's promise.
        let taken = unsafe { (self.poll)(self.as_ptr(), room, out.cast()) };
        // A negative one is above all others.
        let found = usize::try_from(taken.cast_unsigned()).unwrap_or(usize::MAX);
        match NonZeroUsize::new(found) {
            Some(found) if found.get() <= len => Ok(found),
            Some(_) => Err(Some(failed_poll(taken))),
            None => Err(None),
        }
    }

    /// Asks for one event at the next completion. Completions that are there already make none:
    /// poll once more after arming.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn arm(&self) -> Result<(), DeviceError> {
        // SAFETY: the queue lives.
        let result = unsafe { sys::ibv_req_notify_cq(self.as_ptr(), 0) };
        self.inner.context.check("ibv_req_notify_cq", result)
    }

    /// Announces completions only when `count` are there or `period_us` have passed; 0, 0 announces
    /// each.
    ///
    /// # Errors
    /// If the device cannot.
    pub fn moderate(&self, count: u16, period_us: u16) -> Result<(), DeviceError> {
        let moderate = sys::ibv_moderate_cq { cq_count: count, cq_period: period_us };
        let mut attr = sys::ibv_modify_cq_attr { attr_mask: sys::IBV_CQ_ATTR_MODERATE, moderate };
        // SAFETY: the queue lives.
        let result = unsafe { sys::ibv_modify_cq(self.as_ptr(), &mut attr) };
        self.inner.context.check("ibv_modify_cq", result)
    }
}

/// An empty completion.
pub(super) fn empty() -> sys::ibv_wc {
    sys::ibv_wc::zero()
}
