//! Shared receive queues: receives that many queue pairs take from.
//!
//! Owns the queue, which lives as long as a queue pair that takes from it.

use super::context::ContextInner;
use super::domain::DomainInner;
use super::receive_slots::ReceiveSlots;
use super::sys::{self, Zero};
use super::work_list::{PostFailure, ReceiveList};
use crate::nic::DeviceError;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// What a shared receive queue is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedReceiveOptions {
    /// Receives that may be posted, at least.
    pub max_wr: u32,
    /// Elements of each, at least.
    pub max_sge: u32,
    /// Names the queue in asynchronous events.
    pub token: u64,
}

pub(super) struct SharedInner {
    domain: Arc<DomainInner>,
    queue: NonNull<sys::ibv_srq>,
    max_wr: u32,
    max_sge: u32,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for SharedInner {}
// SAFETY: as above.
unsafe impl Sync for SharedInner {}

impl Drop for SharedInner {
    fn drop(&mut self) {
        let destroy = self.context().table().ibv_destroy_srq;
        // SAFETY: made once, destroyed here, after the queue pairs that hold it.
        let _destroyed = unsafe { destroy(self.queue.as_ptr()) };
    }
}

impl SharedInner {
    fn context(&self) -> &ContextInner {
        self.domain.context()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_srq {
        self.queue.as_ptr()
    }
}

/// A shared receive queue. A handle: its clones are the same queue.
#[derive(Clone)]
pub struct SharedReceiveQueue {
    pub(super) inner: Arc<SharedInner>,
}

impl SharedReceiveQueue {
    pub(super) fn new(
        domain: &Arc<DomainInner>,
        options: &SharedReceiveOptions,
    ) -> Result<SharedReceiveQueue, DeviceError> {
        let mut attr = sys::ibv_srq_init_attr::zero();
        attr.attr.max_wr = options.max_wr;
        attr.attr.max_sge = options.max_sge;
        let token = usize::try_from(options.token).unwrap_or(usize::MAX);
        attr.srq_context = ptr::without_provenance_mut(token);
        let create = domain.context().table().ibv_create_srq;
        // SAFETY: the domain lives.
        let pointer = unsafe { create(domain.as_ptr(), &mut attr) };
        let queue = domain.context().object("ibv_create_srq", pointer)?;
        let (max_wr, max_sge) = (attr.attr.max_wr, attr.attr.max_sge);
        let inner = SharedInner { domain: Arc::clone(domain), queue, max_wr, max_sge };
        Ok(SharedReceiveQueue { inner: Arc::new(inner) })
    }

    /// Receives that may be posted.
    #[must_use]
    pub fn max_wr(&self) -> u32 {
        self.inner.max_wr
    }

    /// Elements of each.
    #[must_use]
    pub fn max_sge(&self) -> u32 {
        self.inner.max_sge
    }

    /// Posts receives in order.
    ///
    /// # Errors
    /// If one was not taken: those from it on stay in the list.
    #[inline]
    pub fn post_recv(&self, list: &mut ReceiveList) -> Result<(), PostFailure> {
        let queue = self.inner.as_ptr();
        // SAFETY: the queue lives; the chain ends, and what it points at is the list's.
        list.post(|head, bad| unsafe { sys::ibv_post_srq_recv(queue, head, bad) })
    }

    /// The same with receives that keep their elements; says how many were posted.
    ///
    /// # Errors
    /// If one was not taken: those from it on stay staged.
    #[inline]
    pub fn post_slots(&self, slots: &mut ReceiveSlots) -> Result<usize, PostFailure> {
        slots.post_shared(self.inner.queue)
    }

    /// Asks for one asynchronous event when fewer than `limit` receives are posted; 0 asks for
    /// none. To be set again after the event.
    ///
    /// # Errors
    /// If the limit is beyond the queue's size or the device cannot.
    pub fn set_limit(&self, limit: u32) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_srq_attr::zero();
        attr.srq_limit = limit;
        let mask = i32::try_from(sys::IBV_SRQ_LIMIT).unwrap_or(0);
        let modify = self.inner.context().table().ibv_modify_srq;
        // SAFETY: the queue lives.
        let result = unsafe { modify(self.inner.as_ptr(), &mut attr, mask) };
        self.inner.context().check("ibv_modify_srq", result)
    }

    /// The limit that is set, 0 if none is.
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn limit(&self) -> Result<u32, DeviceError> {
        let mut attr = sys::ibv_srq_attr::zero();
        let query = self.inner.context().table().ibv_query_srq;
        // SAFETY: the queue lives.
        let result = unsafe { query(self.inner.as_ptr(), &mut attr) };
        self.inner.context().check("ibv_query_srq", result)?;
        Ok(attr.srq_limit)
    }
}
