//! An opened device: what it and its ports are, and what is made in it.
//!
//! Owns the `ibv_context` and closes it after everything that was made in it. Invariant: its event
//! fd never blocks.

use super::attributes::{DeviceAttributes, PortAttributes};
use super::completion::{CompletionChannel, CompletionQueue, CompletionQueueOptions};
use super::device::Device;
use super::domain::ProtectionDomain;
use super::error;
use super::events::AsyncEvent;
use super::gid::{Gid, GidEntry, GidKind};
use super::library::VerbsTable;
use super::sys::{self, Zero};
use crate::nic::DeviceError;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// GIDs of one device that are looked at, all ports together. Drivers have tables of at most 256 a
/// port, and the call takes at most 64 KiB of entries.
const GIDS_MAX: usize = 1024;

/// What a context's handles share.
pub(super) struct ContextInner {
    device: Device,
    context: NonNull<sys::ibv_context>,
}

// SAFETY: libibverbs may be called from any thread (ibv_alloc_td(3): locks unless asked not to).
unsafe impl Send for ContextInner {}
// SAFETY: as above.
unsafe impl Sync for ContextInner {}

impl Drop for ContextInner {
    fn drop(&mut self) {
        let close = self.table().ibv_close_device;
        // SAFETY: opened once, closed here, after all that was made in it, which holds this.
        let _closed = unsafe { close(self.context.as_ptr()) };
    }
}

impl ContextInner {
    pub(super) fn table(&self) -> &'static VerbsTable {
        &self.device.library().table
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_context {
        self.context.as_ptr()
    }

    pub(super) fn name(&self) -> &str {
        self.device.name()
    }

    /// The error of a call on this device.
    pub(super) fn failure(&self, call: &'static str, errno: i32) -> DeviceError {
        error::failure(self.device.name(), call, errno)
    }

    /// Checks the result of a call on this device.
    pub(super) fn check(&self, call: &'static str, result: i32) -> Result<(), DeviceError> {
        error::check(result).map_err(|errno| self.failure(call, errno))
    }

    /// Checks the object that a call on this device made.
    pub(super) fn object<T>(
        &self,
        call: &'static str,
        pointer: *mut T,
    ) -> Result<NonNull<T>, DeviceError> {
        error::object(pointer).map_err(|errno| self.failure(call, errno))
    }
}

/// An opened device. A handle: its clones are the same context.
#[derive(Clone)]
pub struct Context {
    pub(super) inner: Arc<ContextInner>,
}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Context").field(&self.inner.device.name()).finish()
    }
}

impl Context {
    pub(super) fn open(device: &Device) -> Result<Context, DeviceError> {
        let open = device.library().table.ibv_open_device;
        // SAFETY: a device of a list that lives.
        let pointer = unsafe { open(device.as_ptr()) };
        let failed = |errno| error::failure(device.name(), "ibv_open_device", errno);
        let context = error::object(pointer).map_err(failed)?;
        let inner = ContextInner { device: device.clone(), context };
        let context = Context { inner: Arc::new(inner) };
        set_nonblocking(context.async_fd())
            .map_err(|errno| context.inner.failure("fcntl", errno))?;
        Ok(context)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Completion vectors: interrupts that completion channels can be spread over.
    #[must_use]
    pub fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open; the member is constant.
        let vectors = unsafe { (*self.inner.as_ptr()).num_comp_vectors };
        u32::try_from(vectors).unwrap_or(0)
    }

    /// What the device can do (`ibv_query_device_ex`).
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn attributes(&self) -> Result<DeviceAttributes, DeviceError> {
        let mut attr = sys::ibv_device_attr_ex::zero();
        let legacy = self.inner.table().ibv_query_device;
        // SAFETY: the context is open.
        let result = unsafe { sys::ibv_query_device_ex(self.inner.as_ptr(), &mut attr, legacy) };
        self.inner.check("ibv_query_device_ex", result)?;
        Ok(DeviceAttributes::new(&attr))
    }

    /// What a port is and does now (`ibv_query_port`); ports count from 1.
    ///
    /// # Errors
    /// If there is no such port, or the device does not answer.
    pub fn port(&self, port: u8) -> Result<PortAttributes, DeviceError> {
        let mut attr = sys::ibv_port_attr::zero();
        let legacy = self.inner.table().ibv_query_port;
        // SAFETY: the context is open.
        let result = unsafe { sys::ibv_query_port(self.inner.as_ptr(), port, &mut attr, legacy) };
        self.inner.check("ibv_query_port", result)?;
        Ok(PortAttributes::new(&attr))
    }

    /// The valid GIDs of all ports (`ibv_query_gid_table`).
    ///
    /// # Errors
    /// If the library is older than rdma-core 32 and lacks the call, or the device does not answer.
    pub fn gids(&self) -> Result<Vec<GidEntry>, DeviceError> {
        let call = "ibv_query_gid_table";
        let Some(query) = self.inner.table()._ibv_query_gid_table else {
            let what = format!("libibverbs has no {call}");
            let remedy = "install rdma-core 32 or later".to_owned();
            return Err(error::refusal(self.device().name(), what, remedy));
        };
        let mut entries = vec![sys::ibv_gid_entry::zero(); GIDS_MAX];
        let (size, pointer) = (size_of::<sys::ibv_gid_entry>(), entries.as_mut_ptr());
        // SAFETY: the context is open; there is room for that many entries of that size.
        let count = unsafe { query(self.inner.as_ptr(), pointer, GIDS_MAX, 0, size) };
        let Ok(count) = usize::try_from(count) else {
            let errno = i32::try_from(count.unsigned_abs()).unwrap_or(libc::EIO);
            return Err(self.inner.failure(call, errno));
        };
        entries.truncate(count);
        Ok(entries.iter().map(gid_entry).collect())
    }

    /// A partition key of a port.
    ///
    /// # Errors
    /// If the index is beyond the table.
    pub fn pkey(&self, port: u8, index: u16) -> Result<u16, DeviceError> {
        let mut pkey = 0;
        let query = self.inner.table().ibv_query_pkey;
        // SAFETY: the context is open; a place for the key.
        let result = unsafe { query(self.inner.as_ptr(), port, i32::from(index), &mut pkey) };
        self.inner.check("ibv_query_pkey", result)?;
        Ok(u16::from_be(pkey))
    }

    /// The fd that becomes readable with an asynchronous event; it does not block.
    #[must_use]
    pub fn async_fd(&self) -> RawFd {
        // SAFETY: the context is open; the member is constant.
        unsafe { (*self.inner.as_ptr()).async_fd }
    }

    /// Takes an asynchronous event, acknowledged, if there is one.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn take_async_event(&self) -> Result<Option<AsyncEvent>, DeviceError> {
        let mut event = sys::ibv_async_event::zero();
        let get = self.inner.table().ibv_get_async_event;
        // SAFETY: the context is open and its fd does not block.
        let result = unsafe { get(self.inner.as_ptr(), &mut event) };
        match error::check(result) {
            Ok(()) => {}
            Err(libc::EAGAIN | libc::EINTR) => return Ok(None),
            Err(errno) => return Err(self.inner.failure("ibv_get_async_event", errno)),
        }
        // SAFETY: the event was just returned; its object cannot be destroyed before it is
        // acknowledged (ibv_get_async_event(3)).
        let taken = unsafe { AsyncEvent::new(&event) };
        let acknowledge = self.inner.table().ibv_ack_async_event;
        // SAFETY: once for each event returned.
        unsafe { acknowledge(&mut event) };
        Ok(Some(taken))
    }

    /// Makes a protection domain.
    ///
    /// # Errors
    /// If the device has no more.
    pub fn protection_domain(&self) -> Result<ProtectionDomain, DeviceError> {
        ProtectionDomain::new(self)
    }

    /// Makes a completion channel.
    ///
    /// # Errors
    /// If the device has no more, or the process no more descriptors.
    pub fn completion_channel(&self) -> Result<CompletionChannel, DeviceError> {
        CompletionChannel::new(self)
    }

    /// Makes a completion queue.
    ///
    /// # Errors
    /// If the device has no more, or none so large.
    pub fn completion_queue(
        &self,
        options: &CompletionQueueOptions<'_>,
    ) -> Result<CompletionQueue, DeviceError> {
        CompletionQueue::new(self, options)
    }
}

fn gid_entry(entry: &sys::ibv_gid_entry) -> GidEntry {
    // SAFETY: any bytes are a GID.
    let gid = Gid(unsafe { entry.gid.raw });
    let kind = match entry.gid_type {
        sys::IBV_GID_TYPE_IB => GidKind::InfiniBand,
        sys::IBV_GID_TYPE_ROCE_V1 => GidKind::RoceV1,
        sys::IBV_GID_TYPE_ROCE_V2 => GidKind::RoceV2,
        other => GidKind::Other(other),
    };
    GidEntry {
        gid,
        index: entry.gid_index,
        port: u8::try_from(entry.port_num).unwrap_or(u8::MAX),
        kind,
        interface: entry.ndev_ifindex,
    }
}

/// Makes a descriptor of the library's never block.
///
/// # Errors
/// The errno.
pub(super) fn set_nonblocking(fd: RawFd) -> Result<(), i32> {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    // SAFETY: fcntl on a descriptor that its caller holds open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(errno());
    }
    // SAFETY: as above.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}
