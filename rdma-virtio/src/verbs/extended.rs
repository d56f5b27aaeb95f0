//! Extended calls: sends that are built field by field in the device's own queue (ibv_wr_post(3)),
//! and completions that are read field by field (ibv_create_cq_ex(3)).
//!
//! Owns a batch while it is built and a poll while it lasts. Neither allocates. Invariants: a batch
//! is either posted or aborted; a completion is read only between the start and the end of its
//! poll.

use super::completion::{CompletionQueue, CompletionQueueOptions, PollFailure};
use super::context::Context;
use super::queue_pair::{QueuePair, Rts};
use super::sys::{self, Zero};
use super::work_completion::CompletionStatus;
use super::work_list::{Destination, PostFailure, PushError};
use crate::nic::{DeviceError, Sge};
use arrayvec::ArrayVec;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Elements of one send of a batch, at most.
const SGES_MAX: usize = 32;

/// A send of a batch, without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchSend<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// Whether a completion is wanted.
    pub signalled: bool,
    /// Whether the device completes the checksums (`IBV_SEND_IP_CSUM`).
    pub checksum: bool,
    /// Where it goes, on a datagram queue pair.
    pub destination: Option<Destination<'a>>,
}

/// Puts sends into the device's own queue, between the start and the completion of a batch.
struct Builder {
    pair: NonNull<sys::ibv_qp_ex>,
    count: usize,
}

/// Sends that are being built; dropping it forgets them.
#[must_use = "sends are posted by `post` only"]
pub struct SendBatch<'a> {
    builder: Builder,
    held: PhantomData<&'a mut QueuePair<Rts>>,
}

impl QueuePair<Rts> {
    /// Begins a batch; none if the queue pair was not made for extended calls
    /// ([`super::domain::ProtectionDomain::extended_queue_pair`]).
    pub fn batch(&mut self) -> Option<SendBatch<'_>> {
        let pair = self.inner.extended()?;
        // SAFETY: the queue pair lives and is borrowed whole, so that no other batch is begun.
        unsafe { sys::ibv_wr_start(pair.as_ptr()) };
        Some(SendBatch { builder: Builder { pair, count: 0 }, held: PhantomData })
    }

    /// The queue pair as one whose batches are begun and ended as sends come; none if it was not
    /// made for extended calls.
    #[must_use]
    pub fn batched(self) -> Option<BatchedPair> {
        let pair = self.inner.extended()?;
        Some(BatchedPair { builder: Builder { pair, count: 0 }, pair: self })
    }
}

impl SendBatch<'_> {
    /// Adds a send of elements.
    ///
    /// # Errors
    /// If they are too many; the batch is as before.
    pub fn send(&mut self, send: &BatchSend<'_>, sges: &[Sge]) -> Result<(), PushError> {
        self.builder.send(send, sges)
    }

    /// Adds a send of these bytes, which are read before it returns.
    pub fn send_inline(&mut self, send: &BatchSend<'_>, bytes: &[u8]) {
        // SAFETY: a slice's bytes.
        unsafe { self.builder.send_inline(send, bytes.as_ptr(), bytes.len()) };
    }

    /// Posts the batch, with one doorbell.
    ///
    /// # Errors
    /// If one send was not taken: then none was.
    pub fn post(self) -> Result<(), PostFailure> {
        let pair = self.builder.pair;
        std::mem::forget(self);
        // SAFETY: begun by `batch`, and ended only once since `self` is forgotten.
        let result = unsafe { sys::ibv_wr_complete(pair.as_ptr()) };
        super::error::check(result).map_err(|errno| PostFailure { posted: 0, errno })
    }

    /// Sends in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.builder.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.builder.count == 0
    }
}

impl Drop for SendBatch<'_> {
    fn drop(&mut self) {
        // SAFETY: begun by `batch`, not posted.
        unsafe { sys::ibv_wr_abort(self.builder.pair.as_ptr()) };
    }
}

/// A queue pair that owns its batch: the first send begins it, [`BatchedPair::post`] ends it.
pub struct BatchedPair {
    builder: Builder,
    pair: QueuePair<Rts>,
}

// SAFETY: as the queue pair itself; the pointer is another name of it.
unsafe impl Send for BatchedPair {}

impl BatchedPair {
    /// The queue pair.
    #[must_use]
    #[inline]
    pub fn pair(&self) -> &QueuePair<Rts> {
        &self.pair
    }

    /// Whether sends wait to be posted.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        self.builder.count != 0
    }

    #[inline]
    fn open(&mut self) -> &mut Builder {
        if self.builder.count == 0 {
            // SAFETY: the queue pair lives and is this value's alone; no batch is begun.
            unsafe { sys::ibv_wr_start(self.builder.pair.as_ptr()) };
        }
        &mut self.builder
    }

    /// Adds a send of elements.
    ///
    /// # Errors
    /// If they are too many.
    #[inline]
    pub fn send(&mut self, send: &BatchSend<'_>, sges: &[Sge]) -> Result<(), PushError> {
        if sges.len() > SGES_MAX {
            return Err(PushError::SgeCount);
        }
        self.open().send(send, sges)
    }

    /// Adds a send of one element's bytes, which are read before it returns.
    ///
    /// # Safety
    /// The element is readable bytes of this process; its lkey is not looked at.
    #[inline]
    pub unsafe fn send_inline(&mut self, send: &BatchSend<'_>, sge: Sge) {
        let (addr, length) = place(sge);
        // SAFETY: the caller's promise.
        unsafe { self.open().send_inline(send, addr, length) };
    }

    /// Adds a send of the bytes of several elements, which are read before it returns.
    ///
    /// # Safety
    /// The elements are readable bytes of this process; their lkeys are not looked at.
    ///
    /// # Errors
    /// If they are too many.
    pub unsafe fn send_inline_list(
        &mut self,
        send: &BatchSend<'_>,
        sges: &[Sge],
    ) -> Result<(), PushError> {
        if sges.len() > SGES_MAX {
            return Err(PushError::SgeCount);
        }
        let list: ArrayVec<sys::ibv_data_buf, SGES_MAX> = sges
            .iter()
            // Address and length, which is all that the structure has.
            .map(|sge| sys::ibv_data_buf { _bindgen_opaque_blob: [sge.addr, sge.length.into()] })
            .collect();
        self.open().begin(send, sys::IBV_SEND_INLINE);
        let pair = self.builder.pair.as_ptr();
        // SAFETY: between start and complete.
        unsafe { sys::ibv_wr_send(pair) };
        // SAFETY: as above; the bytes are the caller's promise, and the call only reads.
        unsafe { sys::ibv_wr_set_inline_data_list(pair, list.len(), list.as_ptr()) };
        Ok(())
    }

    /// Adds a send in segments of `mss` bytes behind copies of the header, whose lkey is not looked
    /// at.
    ///
    /// # Safety
    /// The header is readable bytes of this process, which stay as they are until the batch was
    /// posted: ibv_wr_post(3) does not say that they are read before.
    ///
    /// # Errors
    /// If there are too many elements or the header is too long.
    pub unsafe fn send_tso(
        &mut self,
        send: &BatchSend<'_>,
        header: Sge,
        mss: u16,
        sges: &[Sge],
    ) -> Result<(), PushError> {
        let list = to_verbs(sges)?;
        let length = u16::try_from(header.length).map_err(|_| PushError::Header)?;
        let (header, _) = place(header);
        self.open().begin(send, 0);
        // SAFETY: between start and complete; the header is the caller's promise, and is only read.
        unsafe {
            sys::ibv_wr_send_tso(self.builder.pair.as_ptr(), header.cast_mut().cast(), length, mss);
        }
        self.builder.elements(&list);
        Ok(())
    }

    /// Posts what was added, with one doorbell.
    ///
    /// # Errors
    /// If one send was not taken: then none was.
    #[inline]
    pub fn post(&mut self) -> Result<(), PostFailure> {
        if self.builder.count == 0 {
            return Ok(());
        }
        self.builder.count = 0;
        // SAFETY: begun by `open`, and ended only once since the count says that it is not open.
        let result = unsafe { sys::ibv_wr_complete(self.builder.pair.as_ptr()) };
        super::error::check(result).map_err(|errno| PostFailure { posted: 0, errno })
    }

    /// Forgets what was added.
    pub fn abort(&mut self) {
        if self.builder.count != 0 {
            self.builder.count = 0;
            // SAFETY: as for `post`.
            unsafe { sys::ibv_wr_abort(self.builder.pair.as_ptr()) };
        }
    }
}

impl Drop for BatchedPair {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Where an element's bytes lie in this process.
#[inline]
fn place(sge: Sge) -> (*const u8, usize) {
    let addr = usize::try_from(sge.addr).unwrap_or(0);
    (std::ptr::with_exposed_provenance(addr), usize::try_from(sge.length).unwrap_or(0))
}

impl Builder {
    #[inline]
    fn send(&mut self, send: &BatchSend<'_>, sges: &[Sge]) -> Result<(), PushError> {
        if let [sge] = sges {
            self.begin(send, 0);
            // SAFETY: between start and complete.
            unsafe { sys::ibv_wr_send(self.pair.as_ptr()) };
            self.address(send);
            // SAFETY: as above.
            unsafe {
                sys::ibv_wr_set_sge(self.pair.as_ptr(), sge.lkey.0, sge.addr, sge.length);
            }
            return Ok(());
        }
        let list = to_verbs(sges)?;
        self.begin(send, 0);
        // SAFETY: between start and complete.
        unsafe { sys::ibv_wr_send(self.pair.as_ptr()) };
        self.address(send);
        self.elements(&list);
        Ok(())
    }

    /// # Safety
    /// So many readable bytes lie there.
    #[inline]
    unsafe fn send_inline(&mut self, send: &BatchSend<'_>, bytes: *const u8, length: usize) {
        // The flag is the setter's own business, but rxe's provider (rdma-core 44) leaves it to
        // the caller, and without it the kernel takes the bytes for an element. Others ignore it.
        self.begin(send, sys::IBV_SEND_INLINE);
        // SAFETY: between start and complete.
        unsafe { sys::ibv_wr_send(self.pair.as_ptr()) };
        self.address(send);
        let data = bytes.cast_mut().cast();
        // SAFETY: as above; the call only reads the bytes, which are the caller's promise.
        unsafe { sys::ibv_wr_set_inline_data(self.pair.as_ptr(), data, length) };
    }

    #[inline]
    fn begin(&mut self, send: &BatchSend<'_>, flags: u32) {
        self.count += 1;
        // SAFETY: the queue pair lives and is its owner's alone.
        let pair = unsafe { self.pair.as_mut() };
        pair.wr_id = send.wr_id;
        pair.wr_flags = flags
            | if send.signalled { sys::IBV_SEND_SIGNALED } else { 0 }
            | if send.checksum { sys::IBV_SEND_IP_CSUM } else { 0 };
    }

    #[inline]
    fn address(&mut self, send: &BatchSend<'_>) {
        if let Some(to) = &send.destination {
            let (pair, handle) = (self.pair.as_ptr(), to.handle.as_ptr());
            // SAFETY: between start and complete; the handle lives and is read at once.
            unsafe { sys::ibv_wr_set_ud_addr(pair, handle, to.queue_pair, to.qkey) };
        }
    }

    fn elements(&mut self, list: &[sys::ibv_sge]) {
        // SAFETY: between start and complete; the list is read before the call returns.
        unsafe { sys::ibv_wr_set_sge_list(self.pair.as_ptr(), list.len(), list.as_ptr()) };
    }
}

fn to_verbs(sges: &[Sge]) -> Result<ArrayVec<sys::ibv_sge, SGES_MAX>, PushError> {
    if sges.len() > SGES_MAX {
        return Err(PushError::SgeCount);
    }
    let to = |sge: &Sge| sys::ibv_sge { addr: sge.addr, length: sge.length, lkey: sge.lkey.0 };
    Ok(sges.iter().map(to).collect())
}

/// A completion queue whose completions are read field by field: lengths, numbers of both queue
/// pairs, flags.
pub struct ExtendedCompletionQueue {
    queue: CompletionQueue,
}

impl Context {
    /// Makes a completion queue for extended calls.
    ///
    /// # Errors
    /// If the device has no such calls, no more queues, or none so large.
    pub fn extended_completion_queue(
        &self,
        options: &CompletionQueueOptions<'_>,
    ) -> Result<ExtendedCompletionQueue, DeviceError> {
        let context = self.inner.as_ptr();
        let queue =
            CompletionQueue::new_by(self, options, "ibv_create_cq_ex", |cookie, channel| {
                let mut attr = sys::ibv_cq_init_attr_ex::zero();
                attr.cqe = options.entries;
                attr.cq_context = cookie;
                attr.channel = channel;
                attr.comp_vector = options.vector;
                attr.wc_flags = u64::from(
                    sys::IBV_WC_EX_WITH_BYTE_LEN
                        | sys::IBV_WC_EX_WITH_QP_NUM
                        | sys::IBV_WC_EX_WITH_SRC_QP,
                );
                // SAFETY: the context is open; the channel lives as long as the queue.
                let queue = unsafe { sys::ibv_create_cq_ex(context, &mut attr) };
                // An extended queue begins with a plain one (ibv_cq_ex_to_cq).
                queue.cast()
            })?;
        Ok(ExtendedCompletionQueue { queue })
    }
}

impl ExtendedCompletionQueue {
    /// The same queue, to make queue pairs with and to arm. It is not polled.
    #[must_use]
    pub fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    /// Shows at most `limit` completions, oldest first; returns how many.
    ///
    /// # Errors
    /// If the queue or the device has failed.
    pub fn poll(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(&Polled<'_>),
    ) -> Result<usize, PollFailure> {
        let queue = self.queue.as_ptr().cast::<sys::ibv_cq_ex>();
        for seen in 0..limit {
            let mut attr = sys::ibv_poll_cq_attr { comp_mask: 0 };
            // SAFETY: an extended queue that lives and is borrowed whole.
            match unsafe { sys::ibv_start_poll(queue, &mut attr) } {
                0 => {}
                libc::ENOENT => return Ok(seen),
                errno => return Err(PollFailure { errno }),
            }
            // One completion a start: rxe's provider ends the poll by itself when ibv_next_poll
            // finds none, so that the end which the manual page asks for would skip a completion
            // that is not there yet (seen with rdma-core 44).
            let _end = End(queue);
            visit(&Polled { queue, during: PhantomData });
        }
        Ok(limit)
    }
}

/// Ends a poll, also if a visitor panics.
struct End(*mut sys::ibv_cq_ex);

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: made after a poll was started.
        unsafe { sys::ibv_end_poll(self.0) };
    }
}

/// The completion that a poll is at.
pub struct Polled<'a> {
    queue: *mut sys::ibv_cq_ex,
    during: PhantomData<&'a ()>,
}

impl Polled<'_> {
    /// Of the work request.
    #[must_use]
    pub fn wr_id(&self) -> u64 {
        // SAFETY: between start and end.
        unsafe { (*self.queue).wr_id }
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> CompletionStatus {
        // SAFETY: between start and end.
        CompletionStatus::new(unsafe { (*self.queue).status })
    }

    /// The vendor's code for an error.
    #[must_use]
    pub fn vendor_error(&self) -> u32 {
        // SAFETY: between start and end.
        unsafe { sys::ibv_wc_read_vendor_err(self.queue) }
    }

    /// Whether a success was a receive.
    #[must_use]
    pub fn is_receive(&self) -> bool {
        // SAFETY: between start and end.
        unsafe { sys::ibv_wc_read_opcode(self.queue) == sys::IBV_WC_RECV }
    }

    /// Bytes received.
    #[must_use]
    pub fn byte_len(&self) -> u32 {
        // SAFETY: between start and end; asked for when the queue was made.
        unsafe { sys::ibv_wc_read_byte_len(self.queue) }
    }

    /// Number of the local queue pair.
    #[must_use]
    pub fn queue_pair(&self) -> u32 {
        // SAFETY: between start and end; asked for when the queue was made.
        unsafe { sys::ibv_wc_read_qp_num(self.queue) }
    }

    /// Number of the queue pair that sent a datagram.
    #[must_use]
    pub fn source_queue_pair(&self) -> u32 {
        // SAFETY: between start and end; asked for when the queue was made.
        unsafe { sys::ibv_wc_read_src_qp(self.queue) }
    }

    /// Whether the device verified the checksums of a received frame. False is no finding.
    #[must_use]
    pub fn checksum_verified(&self) -> bool {
        // SAFETY: between start and end.
        let flags = unsafe { sys::ibv_wc_read_wc_flags(self.queue) };
        flags & sys::IBV_WC_IP_CSUM_OK != 0
    }
}
