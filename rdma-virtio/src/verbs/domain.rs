//! Protection domains: what regions, queue pairs and address handles belong to.
//!
//! Owns the domain, which lives as long as anything in it.

use super::address::{AddressHandle, Path};
use super::context::{Context, ContextInner};
use super::queue_pair::{QueuePair, QueuePairOptions, Reset, SendCalls};
use super::region::{Access, Region};
use super::shared_receive::{SharedReceiveOptions, SharedReceiveQueue};
use super::sys;
use crate::nic::DeviceError;
use std::ptr::NonNull;
use std::sync::Arc;

pub(super) struct DomainInner {
    context: Arc<ContextInner>,
    domain: NonNull<sys::ibv_pd>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for DomainInner {}
// SAFETY: as above.
unsafe impl Sync for DomainInner {}

impl Drop for DomainInner {
    fn drop(&mut self) {
        let release = self.context.table().ibv_dealloc_pd;
        // SAFETY: made once, released here, after all that holds it.
        let _released = unsafe { release(self.domain.as_ptr()) };
    }
}

impl DomainInner {
    pub(super) fn context(&self) -> &Arc<ContextInner> {
        &self.context
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_pd {
        self.domain.as_ptr()
    }
}

/// A protection domain. A handle: its clones are the same domain.
#[derive(Clone)]
pub struct ProtectionDomain {
    pub(super) inner: Arc<DomainInner>,
}

impl ProtectionDomain {
    pub(super) fn new(context: &Context) -> Result<ProtectionDomain, DeviceError> {
        let context = Arc::clone(&context.inner);
        let allocate = context.table().ibv_alloc_pd;
        // SAFETY: the context is open.
        let pointer = unsafe { allocate(context.as_ptr()) };
        let domain = context.object("ibv_alloc_pd", pointer)?;
        Ok(ProtectionDomain { inner: Arc::new(DomainInner { context, domain }) })
    }

    /// Registers `length` bytes from `addr`, which are pinned while the region lives.
    ///
    /// # Safety
    /// While work requests name these bytes the device reads them, and with
    /// [`Access::LocalWrite`] writes them: until a posted request has completed, or its queue pair
    /// is destroyed, nobody else may write what it reads, or touch what it writes. The memory stays
    /// mapped as long as that.
    ///
    /// # Errors
    /// If the limit of locked memory would be passed (checked before; the text has the figures), or
    /// the device cannot reach the memory.
    pub unsafe fn register(
        &self,
        addr: u64,
        length: u64,
        access: Access,
    ) -> Result<Region, DeviceError> {
        // SAFETY: the caller's promise is the same.
        unsafe { Region::new(&self.inner, addr, length, access) }
    }

    /// Makes a shared receive queue.
    ///
    /// # Errors
    /// If the device has no more, or none so large.
    pub fn shared_receive_queue(
        &self,
        options: &SharedReceiveOptions,
    ) -> Result<SharedReceiveQueue, DeviceError> {
        SharedReceiveQueue::new(&self.inner, options)
    }

    /// Makes an address handle.
    ///
    /// # Errors
    /// If the device has no more, or does not know the way.
    pub fn address_handle(&self, path: &Path) -> Result<AddressHandle, DeviceError> {
        AddressHandle::new(&self.inner, path)
    }

    /// Makes a queue pair.
    ///
    /// # Errors
    /// If the device cannot, or the process may not (raw packet queue pairs need CAP_NET_RAW).
    pub fn queue_pair(
        &self,
        options: &QueuePairOptions<'_>,
    ) -> Result<QueuePair<Reset>, DeviceError> {
        QueuePair::new(&self.inner, options, SendCalls::Lists)
    }

    /// Makes a queue pair with as much inline as is wanted, or with what the device gives: no
    /// attribute tells how much that is, and a wish beyond it is refused.
    ///
    /// # Errors
    /// If the device refuses it without any inline, too.
    pub fn queue_pair_fitting(
        &self,
        options: &QueuePairOptions<'_>,
    ) -> Result<QueuePair<Reset>, DeviceError> {
        let mut options = *options;
        let mut made = self.queue_pair(&options);
        while made.is_err() && options.sizes.max_inline > 0 {
            options.sizes.max_inline /= 2;
            made = self.queue_pair(&options);
        }
        made
    }

    /// Makes a queue pair whose sends can also be built in its own queue
    /// ([`QueuePair::batch`](super::queue_pair::QueuePair::batch)).
    ///
    /// # Errors
    /// If the device or the library has no such calls, and as [`ProtectionDomain::queue_pair`].
    pub fn extended_queue_pair(
        &self,
        options: &QueuePairOptions<'_>,
    ) -> Result<QueuePair<Reset>, DeviceError> {
        QueuePair::new(&self.inner, options, SendCalls::Extended)
    }
}
