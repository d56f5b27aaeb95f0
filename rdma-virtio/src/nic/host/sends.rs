//! Sends through `writev`, one message a call, written when posted; those that the kernel cannot
//! take yet wait in order, at most as many as the queue holds.
//!
//! Never blocks and never reorders. Invariants: while a send waits, no later one is written;
//! finished and waiting sends together are at most `max_wr`; a waiting inline send's bytes lie in
//! `inline`, all others' stay where the caller has them.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use arrayvec::ArrayVec;

use super::super::regions::{Access, Regions};
use super::super::{Completion, PostError, SendWr, WcChecksum, WcStatus};
use super::receives::take;
use super::{Io, IoVec, gather, write_message};

/// Elements of one send: a 64 KB message in pages, with some to spare.
pub(in super::super) const SEND_SGE_MAX: u16 = 32;

/// Bytes of an inline send.
pub(in super::super) const INLINE_MAX: u32 = 256;

/// A send at the head of the queue that makes no progress for so long fails: some frames a device
/// refuses for ever.
const STUCK_NS_MAX: u64 = 20_000_000;

/// One more than a send has: a header with a gap makes two of one.
const VECTORS: usize = SEND_SGE_MAX as usize + 2;
const INLINE: usize = INLINE_MAX as usize;

/// What the send side counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct SendCounters {
    pub(in super::super) frames: u64,
    pub(in super::super) bytes: u64,
    /// Sends that had to wait for the kernel.
    pub(in super::super) waited: u64,
    /// Posts refused, or sends flushed, since the link was down.
    pub(in super::super) link_down: u64,
    /// Sends that failed for another reason.
    pub(in super::super) failed: u64,
    /// Sends given up after waiting too long.
    pub(in super::super) stuck: u64,
    /// Errno of the last failure.
    pub(in super::super) last_errno: u64,
}

impl SendCounters {
    /// Calls `visit` with each counter's name and value.
    pub(in super::super) fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("tx_frames", self.frames);
        visit("tx_bytes", self.bytes);
        visit("tx_waited", self.waited);
        visit("tx_link_down", self.link_down);
        visit("tx_failed", self.failed);
        visit("tx_stuck", self.stuck);
        visit("tx_last_errno", self.last_errno);
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    wr_id: u64,
    slot: usize,
    vectors: usize,
    signalled: bool,
    inline: bool,
}

/// The send queue and its completions.
#[derive(Debug)]
pub(in super::super) struct Sends {
    waiting: VecDeque<Waiting>,
    vectors: Box<[[IoVec; VECTORS]]>,
    inline: Box<[[u8; INLINE]]>,
    next_slot: usize,
    done: VecDeque<Completion>,
    /// The newest send, if it was written without a signal.
    unseen: Option<u64>,
    /// Progress counter and time at which the head of the queue was last seen to move.
    head_seen: (u64, u64),
    max_message: u32,
    /// Whether the kernel's header is 10 bytes long: the two of `num_buffers` are left out.
    short_header: bool,
    pub(in super::super) link_up: bool,
    pub(in super::super) counters: SendCounters,
}

impl Sends {
    /// A queue of `max_wr` sends of at most `max_message` bytes.
    pub(in super::super) fn new(max_wr: u32, max_message: u32, short_header: bool) -> Self {
        let max_wr = usize::try_from(max_wr).unwrap_or(usize::MAX);
        Self {
            waiting: VecDeque::with_capacity(max_wr),
            vectors: vec![[IoVec::default(); VECTORS]; max_wr].into_boxed_slice(),
            inline: vec![[0; INLINE]; max_wr].into_boxed_slice(),
            next_slot: 0,
            done: VecDeque::with_capacity(max_wr),
            unseen: None,
            head_seen: (0, 0),
            max_message,
            short_header,
            link_up: false,
            counters: SendCounters::default(),
        }
    }

    /// Whether sends wait for the kernel.
    #[inline]
    pub(in super::super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether completions wait to be taken.
    #[inline]
    pub(in super::super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Posts one send and writes it if none waits before it.
    #[inline]
    pub(in super::super) fn post(
        &mut self,
        fd: RawFd,
        wr: &SendWr<'_>,
        regions: &Regions,
    ) -> Result<(), PostError> {
        let message = self.check(wr, regions)?;
        if !self.link_up {
            self.counters.link_down += 1;
            return Err(PostError::LinkDown);
        }
        if self.waiting.len() + self.done.len() >= self.vectors.len() {
            return Err(PostError::QueueFull);
        }
        if !self.waiting.is_empty() {
            self.queue(wr, &message);
            return Ok(());
        }
        // SAFETY: `check` accepted every range against its region for reading.
        match unsafe { write_message(fd, &message) } {
            Io::Done(length) => {
                self.count(length);
                self.written(wr.wr_id, wr.signalled, wr.inline);
            }
            Io::Again => self.queue(wr, &message),
            Io::LinkFault(errno) => {
                self.counters.link_down += 1;
                self.counters.last_errno = u64::from(errno.unsigned_abs());
                return Err(PostError::LinkDown);
            }
            Io::Refused(errno) => self.fail(wr.wr_id, wr.inline, errno),
        }
        Ok(())
    }

    /// Checks a request and makes the kernel's element list of it.
    #[inline]
    fn check(
        &self,
        wr: &SendWr<'_>,
        regions: &Regions,
    ) -> Result<ArrayVec<IoVec, VECTORS>, PostError> {
        if wr.sges.is_empty() || wr.sges.len() > usize::from(SEND_SGE_MAX) {
            return Err(PostError::SgeCount);
        }
        let mut message = ArrayVec::<IoVec, VECTORS>::new();
        let mut length = 0_u32;
        for sge in wr.sges {
            regions.check(sge, Access::Read)?;
            let base = usize::try_from(sge.addr).map_err(|_| PostError::OutOfBounds)?;
            let len = usize::try_from(sge.length).map_err(|_| PostError::OutOfBounds)?;
            message.push(IoVec { base, len });
            length = length.checked_add(sge.length).ok_or(PostError::TooLong)?;
        }
        if length > self.max_message || (wr.inline && length > INLINE_MAX) {
            return Err(PostError::TooLong);
        }
        if self.short_header {
            return without(&message, 10, 12);
        }
        Ok(message)
    }

    #[cold]
    fn queue(&mut self, wr: &SendWr<'_>, message: &[IoVec]) {
        let slot = self.next_slot;
        self.next_slot = (slot + 1) % self.vectors.len();
        let mut vectors = message.len();
        if wr.inline {
            // Its bytes are read before `post_send` returns, so they are kept here.
            // SAFETY: `check` accepted every range for reading.
            let length = unsafe { gather(message, &mut self.inline[slot]) }.unwrap_or(0);
            let base = self.inline[slot].as_ptr().expose_provenance();
            self.vectors[slot][0] = IoVec { base, len: length };
            vectors = 1;
        } else {
            self.vectors[slot][..vectors].copy_from_slice(message);
        }
        self.waiting.push_back(Waiting {
            wr_id: wr.wr_id,
            slot,
            vectors,
            signalled: wr.signalled,
            inline: wr.inline,
        });
        self.counters.waited += 1;
    }

    /// Writes waiting sends until the kernel takes no more.
    #[cold]
    pub(in super::super) fn push(&mut self, fd: RawFd) {
        while let Some(next) = self.waiting.front().copied() {
            let message = &self.vectors[next.slot][..next.vectors];
            // SAFETY: the ranges were checked when they were posted, their regions stay mapped,
            // and the inline copy is ours.
            let written = unsafe { write_message(fd, message) };
            match written {
                Io::Again => return,
                Io::Done(length) => {
                    self.count(length);
                    self.written(next.wr_id, next.signalled, next.inline);
                }
                Io::LinkFault(errno) => {
                    self.counters.last_errno = u64::from(errno.unsigned_abs());
                    self.flush_head(next);
                }
                Io::Refused(errno) => self.fail(next.wr_id, next.inline, errno),
            }
            self.waiting.pop_front();
        }
    }

    fn flush_head(&mut self, head: Waiting) {
        self.counters.link_down += 1;
        if !head.inline {
            self.finish(head.wr_id, WcStatus::Flushed);
        }
    }

    /// Completes every waiting send as flushed.
    pub(in super::super) fn flush(&mut self) {
        while let Some(head) = self.waiting.pop_front() {
            self.flush_head(head);
        }
    }

    /// Fails the send at the head of the queue if it has been there too long.
    pub(in super::super) fn expire(&mut self, now_ns: u64) {
        let progress = self.counters.frames + self.counters.failed + self.counters.stuck;
        if self.waiting.is_empty() || self.head_seen.0 != progress {
            self.head_seen = (progress, now_ns);
            return;
        }
        if now_ns.saturating_sub(self.head_seen.1) < STUCK_NS_MAX {
            return;
        }
        if let Some(head) = self.waiting.pop_front() {
            self.counters.stuck += 1;
            if !head.inline {
                self.finish(head.wr_id, WcStatus::RetryExceeded);
            }
        }
    }

    #[inline]
    fn count(&mut self, length: usize) {
        self.counters.frames += 1;
        self.counters.bytes += u64::try_from(length).unwrap_or(0);
    }

    /// A send is done; an inline one makes no completion.
    #[inline]
    fn written(&mut self, wr_id: u64, signalled: bool, inline: bool) {
        if inline {
            return;
        }
        self.unseen = (!signalled).then_some(wr_id);
        if signalled {
            self.finish(wr_id, WcStatus::Success);
        }
    }

    /// See [`crate::nic::Nic::signal_last`].
    #[cold]
    pub(in super::super) fn signal_last(&mut self) -> bool {
        if let Some(newest) = self.waiting.iter_mut().rfind(|send| !send.inline) {
            newest.signalled = true;
            return true;
        }
        let unseen = self.unseen.take();
        if let Some(wr_id) = unseen {
            self.finish(wr_id, WcStatus::Success);
        }
        unseen.is_some()
    }

    fn fail(&mut self, wr_id: u64, inline: bool, errno: i32) {
        self.counters.failed += 1;
        self.counters.last_errno = u64::from(errno.unsigned_abs());
        // An inline send makes no completion; it is counted.
        if !inline {
            self.finish(wr_id, WcStatus::General);
        }
    }

    #[inline]
    fn finish(&mut self, wr_id: u64, status: WcStatus) {
        let checksum = WcChecksum::Unknown;
        self.done.push_back(Completion { wr_id, status, byte_len: 0, more: false, checksum });
    }

    /// Moves completions to `out`; returns their number.
    #[inline]
    pub(in super::super) fn take(&mut self, out: &mut [Completion]) -> usize {
        take(&mut self.done, out, 0)
    }
}

/// The message without its bytes from `start` to `end`.
pub(super) fn without(
    message: &[IoVec],
    start: usize,
    end: usize,
) -> Result<ArrayVec<IoVec, VECTORS>, PostError> {
    let mut result = ArrayVec::new();
    let mut at = 0;
    for vector in message {
        let (first, last) = (at, at + vector.len);
        at = last;
        for (from, to) in [(first, last.min(start)), (first.max(end), last)] {
            if from < to {
                let part = IoVec { base: vector.base + (from - first), len: to - from };
                result.try_push(part).map_err(|_| PostError::SgeCount)?;
            }
        }
    }
    Ok(result)
}
