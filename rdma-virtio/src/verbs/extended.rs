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

/// Sends that are being built; dropping it forgets them.
#[must_use = "sends are posted by `post` only"]
pub struct SendBatch<'a> {
    pair: NonNull<sys::ibv_qp_ex>,
    count: usize,
    held: PhantomData<&'a mut QueuePair<Rts>>,
}

impl QueuePair<Rts> {
    /// Begins a batch; none if the queue pair was not made for extended calls
    /// ([`super::domain::ProtectionDomain::extended_queue_pair`]).
    pub fn batch(&mut self) -> Option<SendBatch<'_>> {
        let pair = self.inner.extended()?;
        // SAFETY: the queue pair lives and is borrowed whole, so that no other batch is begun.
        unsafe { sys::ibv_wr_start(pair.as_ptr()) };
        Some(SendBatch { pair, count: 0, held: PhantomData })
    }
}

impl SendBatch<'_> {
    /// Adds a send of elements.
    ///
    /// # Errors
    /// If they are too many; the batch is as before.
    pub fn send(&mut self, send: &BatchSend<'_>, sges: &[Sge]) -> Result<(), PushError> {
        let list = to_verbs(sges)?;
        self.begin(send, 0);
        // SAFETY: between start and complete.
        unsafe { sys::ibv_wr_send(self.pair.as_ptr()) };
        self.address(send);
        self.elements(&list);
        Ok(())
    }

    /// Adds a send of these bytes, which are read before it returns.
    pub fn send_inline(&mut self, send: &BatchSend<'_>, bytes: &[u8]) {
        // The flag is the setter's own business, but rxe's provider (rdma-core 44) leaves it to
        // the caller, and without it the kernel takes the bytes for an element. Others ignore it.
        self.begin(send, sys::IBV_SEND_INLINE);
        // SAFETY: between start and complete.
        unsafe { sys::ibv_wr_send(self.pair.as_ptr()) };
        self.address(send);
        let data = bytes.as_ptr().cast_mut().cast();
        // SAFETY: as above; the call reads the bytes only.
        unsafe { sys::ibv_wr_set_inline_data(self.pair.as_ptr(), data, bytes.len()) };
    }

    /// Adds a send in segments of `mss` bytes behind copies of the header, which is read before it
    /// returns.
    ///
    /// # Errors
    /// If there are too many elements or the header is too long; the batch is as before.
    pub fn send_tso(
        &mut self,
        send: &BatchSend<'_>,
        header: &[u8],
        mss: u16,
        sges: &[Sge],
    ) -> Result<(), PushError> {
        let list = to_verbs(sges)?;
        let length = u16::try_from(header.len()).map_err(|_| PushError::Header)?;
        self.begin(send, 0);
        let header = header.as_ptr().cast_mut().cast();
        // SAFETY: between start and complete; the call reads the header only.
        unsafe { sys::ibv_wr_send_tso(self.pair.as_ptr(), header, length, mss) };
        self.address(send);
        self.elements(&list);
        Ok(())
    }

    /// Posts the batch, with one doorbell.
    ///
    /// # Errors
    /// If one send was not taken: then none was.
    pub fn post(self) -> Result<(), PostFailure> {
        let pair = self.pair;
        std::mem::forget(self);
        // SAFETY: begun by `batch`, and ended only once since `self` is forgotten.
        let result = unsafe { sys::ibv_wr_complete(pair.as_ptr()) };
        super::error::check(result).map_err(|errno| PostFailure { posted: 0, errno })
    }

    /// Sends in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn begin(&mut self, send: &BatchSend<'_>, flags: u32) {
        self.count += 1;
        // SAFETY: the queue pair lives and is borrowed whole.
        let pair = unsafe { self.pair.as_mut() };
        pair.wr_id = send.wr_id;
        pair.wr_flags = flags
            | if send.signalled { sys::IBV_SEND_SIGNALED } else { 0 }
            | if send.checksum { sys::IBV_SEND_IP_CSUM } else { 0 };
    }

    fn address(&mut self, send: &BatchSend<'_>) {
        if let Some(to) = &send.destination {
            let (pair, handle) = (self.pair.as_ptr(), to.handle.as_ptr());
            // SAFETY: between start and complete; the handle lives and is read at once.
            unsafe { sys::ibv_wr_set_ud_addr(pair, handle, to.queue_pair, to.qkey) };
        }
    }
}

impl SendBatch<'_> {
    fn elements(&mut self, list: &[sys::ibv_sge]) {
        let pair = self.pair.as_ptr();
        match list {
            [sge] => {
                // SAFETY: between start and complete.
                unsafe { sys::ibv_wr_set_sge(pair, sge.lkey, sge.addr, sge.length) };
            }
            list => {
                // SAFETY: as above; the list is read before the call returns.
                unsafe { sys::ibv_wr_set_sge_list(pair, list.len(), list.as_ptr()) };
            }
        }
    }
}

impl Drop for SendBatch<'_> {
    fn drop(&mut self) {
        // SAFETY: begun by `batch`, not posted.
        unsafe { sys::ibv_wr_abort(self.pair.as_ptr()) };
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
