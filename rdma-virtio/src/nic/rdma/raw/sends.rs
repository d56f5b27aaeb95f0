//! Sends: frames of the device half as work requests of the queue pair, and what completes.
//!
//! A send has a place from posting to completion; most complete by that of a later one. Every 32nd
//! is signalled, whatever its poster asked for, and the one with which half of the queue is in use;
//! so a queue that is full always gets room. A send that its poster may still want a signal of, and
//! that was not to have one, is held until the next one or the doorbell: a request that was given
//! to the library cannot be changed. Invariant: places are freed in posting order.

mod counters;
mod large;

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use self::counters::SendCounters;
use super::link::Link;
use super::tag::Tag;
use crate::nic::rdma::completed::status_of;
use crate::nic::{Completion, PostError, SendWr, Sge, WcChecksum, WcStatus};
use crate::verbs::extended::BatchSend;
use crate::verbs::work_completion::{CompletionStatus, WorkCompletion};

/// A signal at least every so many work requests.
const SIGNAL_EVERY: u32 = 32;
/// Most elements of a send, without those that a VLAN adds.
pub(super) const SGES_MAX: usize = 20;
/// Elements that a VLAN adds.
pub(super) const SGES_OF_TAG: usize = 2;
/// Longest header of a send with segmentation, which IPv6 with a tag and all options of TCP has:
/// 14 + 4 + 40 + 60.
pub(super) const TSO_HEADER_MAX: u16 = 118;
const BATCH: usize = 16;
/// Bytes of a place for a copied header, and such places: one for each frame of a turn.
const HEADER_PLACE: usize = 128;
const HEADERS: usize = 64;

/// A send that is with the device.
#[derive(Clone, Copy, Debug)]
struct Sent {
    wr_id: u64,
    /// Whether its poster waits for it.
    wanted: bool,
    /// Whether its bytes were read when it was posted.
    inline: bool,
}

impl Sent {
    /// Whether there is nothing to be done for it when it is complete.
    #[inline]
    fn is_short(self) -> bool {
        self.inline && !self.wanted
    }
}

/// A short frame, for which nobody waits.
const SHORT: Sent = Sent { wr_id: 0, wanted: false, inline: true };

/// A send that was taken and not given to the library.
struct Held {
    send: BatchSend<'static>,
    sges: ArrayVec<Sge, { SGES_MAX + SGES_OF_TAG }>,
    /// Header and segment size of one that the device cuts.
    large: Option<(Sge, u16)>,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendLimits {
    pub(super) depth: u32,
    pub(super) max_inline: u32,
    /// Longest frame in one piece that is read at once, without a look at its headers.
    pub(super) short_max: u32,
    /// Longest frame that is not segmented, and longest one that is.
    pub(super) frame_max: u32,
    pub(super) message_max: u32,
}

/// The send queue.
pub(super) struct Sends {
    /// By number, modulo the length; of those that are not outstanding, [`SHORT`].
    ring: Box<[Sent]>,
    /// Number of the next work request, and of the oldest that is not complete.
    next: u32,
    oldest: u32,
    limits: SendLimits,
    /// Longest short frame; 0 while the port is down.
    short_max: u32,
    every: u32,
    /// Number of the next one that is signalled in any case.
    signal_at: u32,
    /// Short frames before this number go without a signal, and without a look at the queue.
    quick_until: u32,
    /// Sends outstanding for which somebody waits, and those that are not short frames.
    wanted: u32,
    long: u32,
    done: VecDeque<Completion>,
    /// The newest one, while its signal may be asked for: whether there is one, and what it is.
    holds: bool,
    held: Held,
    /// Upper half of every work request's id: tells completions of a link that is no more.
    generation: u32,
    /// What went wrong: the link is to be made anew.
    pub(super) failed: bool,
    completions: Box<[WorkCompletion; BATCH]>,
    /// Headers of the batch that is being built, where they do not lie in one piece.
    headers: Box<[[u8; HEADER_PLACE]; HEADERS]>,
    headers_used: usize,
    pub(super) counters: SendCounters,
}

/// Where bytes of a frame lie and what becomes of them.
struct Shape<'a> {
    sges: &'a [Sge],
    inline: bool,
}

impl Sends {
    pub(super) fn new(limits: SendLimits) -> Sends {
        let depth = limits.depth.max(4);
        let places = usize::try_from(depth.next_power_of_two()).unwrap_or(4);
        let every = SIGNAL_EVERY.min(depth / 4).max(1);
        Sends {
            ring: vec![SHORT; places].into_boxed_slice(),
            next: 0,
            oldest: 0,
            limits: SendLimits { depth, ..limits },
            short_max: limits.short_max,
            every,
            signal_at: every - 1,
            quick_until: 0,
            wanted: 0,
            long: 0,
            done: VecDeque::with_capacity(places),
            holds: false,
            held: Held {
                send: BatchSend { wr_id: 0, signalled: false, checksum: false, destination: None },
                sges: ArrayVec::new(),
                large: None,
            },
            generation: 0,
            failed: false,
            completions: Box::new([WorkCompletion::default(); BATCH]),
            headers: Box::new([[0; HEADER_PLACE]; HEADERS]),
            headers_used: 0,
            counters: SendCounters::default(),
        }
    }

    #[inline]
    fn at(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or(0) & (self.ring.len() - 1)
    }

    /// The port came up or went down.
    pub(super) fn set_port(&mut self, up: bool) {
        self.short_max = if up { self.limits.short_max } else { 0 };
    }

    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    /// Whether somebody waits for a send that is with the device.
    pub(super) fn is_waited_for(&self) -> bool {
        self.wanted > 0
    }

    /// Whether completions wait to be taken.
    #[inline]
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether there is room; looks for completions once the queue is more than half full.
    #[inline]
    fn has_room(&mut self, link: &Link) -> bool {
        if self.outstanding() <= self.limits.depth / 2 {
            return true;
        }
        self.make_room(link)
    }

    #[cold]
    fn make_room(&mut self, link: &Link) -> bool {
        self.poll(link);
        let room = self.outstanding() < self.limits.depth && !self.failed;
        self.counters.full += u64::from(!room);
        room
    }

    /// Whether the next send is to be signalled.
    #[inline]
    fn signals(&self, wanted: bool) -> bool {
        wanted || self.next == self.signal_at || self.outstanding() + 1 == self.limits.depth / 2
    }

    /// A small frame in one piece, read at once; false if there is no room.
    #[inline(always)]
    pub(super) fn post_short(&mut self, link: &mut Link, sge: Sge, checksum: bool) -> bool {
        if sge.length > self.short_max {
            return false;
        }
        if self.next == self.quick_until {
            return self.post_short_slowly(link, sge, checksum);
        }
        let send = self.request(false, checksum);
        // SAFETY: the device half looked the range up in registered memory, which lives.
        unsafe { link.pair.send_inline(&send, sge) };
        self.next = self.next.wrapping_add(1);
        self.counters.quick += 1;
        self.counters.bytes += u64::from(sge.length);
        true
    }

    /// The queue wants a look: for room, for a signal, or after a send of another kind.
    #[cold]
    fn post_short_slowly(&mut self, link: &mut Link, sge: Sge, checksum: bool) -> bool {
        if !self.has_room(link) {
            return false;
        }
        if self.holds {
            self.pass_on(link);
        }
        let signalled = self.signals(false);
        let send = self.request(signalled, checksum);
        // SAFETY: as in `post_short`.
        unsafe { link.pair.send_inline(&send, sge) };
        self.counters.slow_inline += 1;
        self.record(SHORT, signalled, sge.length);
        let until_half = (self.limits.depth / 2).saturating_sub(self.outstanding() + 1);
        let until_signal = self.signal_at.wrapping_sub(self.next);
        self.quick_until = self.next.wrapping_add(until_half.min(until_signal));
        true
    }

    #[inline]
    fn request(&self, signalled: bool, checksum: bool) -> BatchSend<'static> {
        let wr_id = u64::from(self.generation) << 32 | u64::from(self.next);
        BatchSend { wr_id, signalled, checksum, destination: None }
    }

    #[inline]
    fn record(&mut self, sent: Sent, signalled: bool, length: u32) {
        let at = self.at(self.next);
        self.ring[at] = sent;
        self.wanted += u32::from(sent.wanted);
        self.long += u32::from(!sent.is_short());
        if signalled {
            self.signal_at = self.next.wrapping_add(self.every);
        }
        self.next = self.next.wrapping_add(1);
        self.quick_until = self.next;
        self.counters.slow += 1;
        self.counters.bytes += u64::from(length);
    }

    /// Posts any send.
    pub(super) fn post(
        &mut self,
        link: &mut Link,
        tag: Option<&Tag>,
        wr: &SendWr<'_>,
    ) -> Result<(), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > SGES_MAX {
            return Err(PostError::SgeCount);
        }
        let length = wr.sges.iter().fold(0_u32, |sum, sge| sum.saturating_add(sge.length));
        let longest = match wr.offload.segmentation {
            Some(_) => self.limits.message_max,
            None => self.limits.frame_max,
        };
        let inline = wr.inline && wr.offload.segmentation.is_none();
        if length > longest || (inline && length > self.limits.max_inline) {
            self.counters.refused += 1;
            return Err(PostError::TooLong);
        }
        if !self.has_room(link) {
            return Err(PostError::QueueFull);
        }
        if self.holds {
            self.pass_on(link);
        }
        let signalled = self.signals(wr.signalled && !inline);
        let shape = Shape { sges: wr.sges, inline };
        let added = match wr.offload.segmentation {
            Some(segmentation) => self.add_large(link, tag, &shape, (segmentation, signalled)),
            None => {
                let checksum = wr.offload.checksum.is_some();
                self.add(link, tag, &shape, (checksum, signalled))
            }
        };
        if added.is_none() {
            self.counters.refused += 1;
            return Err(PostError::SgeCount);
        }
        self.counters.slow_inline += u64::from(inline);
        let sent = Sent { wr_id: wr.wr_id, wanted: wr.signalled && !inline, inline };
        self.record(sent, signalled, length);
        Ok(())
    }

    /// A frame as it stands; nothing if its elements do not fit.
    fn add(
        &mut self,
        link: &mut Link,
        tag: Option<&Tag>,
        shape: &Shape<'_>,
        (checksum, signalled): (bool, bool),
    ) -> Option<()> {
        let tagged: ArrayVec<Sge, { SGES_MAX + SGES_OF_TAG }>;
        let sges = match tag {
            None => shape.sges,
            Some(tag) => {
                tagged = tag.insert(shape.sges)?;
                &tagged
            }
        };
        let send = self.request(signalled, checksum);
        self.counters.checksummed += u64::from(checksum);
        if shape.inline {
            // SAFETY: the device half looked the ranges up in registered memory, which lives.
            unsafe { link.pair.send_inline_list(&send, sges) }.ok()
        } else if signalled {
            link.pair.send(&send, sges).ok()
        } else {
            self.hold(send, sges, None)
        }
    }

    /// Keeps a send until the next one, the doorbell, or until its signal is asked for.
    fn hold(
        &mut self,
        send: BatchSend<'static>,
        sges: &[Sge],
        large: Option<(Sge, u16)>,
    ) -> Option<()> {
        self.held.sges.clear();
        self.held.sges.try_extend_from_slice(sges).ok()?;
        (self.held.send, self.held.large) = (send, large);
        self.holds = true;
        Some(())
    }

    /// Gives the send that is held to the library, which may refuse it for its shape: then nothing
    /// of the batch is to be trusted.
    #[inline(never)]
    fn pass_on(&mut self, link: &mut Link) {
        self.holds = false;
        let Held { send, sges, large } = &self.held;
        let added = match *large {
            None => link.pair.send(send, sges),
            // SAFETY: as in `add_large`.
            Some((header, size)) => unsafe { link.pair.send_tso(send, header, size, sges) },
        };
        self.failed |= added.is_err();
    }

    /// Somebody waits for the newest send after all. False if it was given to the library already.
    pub(super) fn signal_last(&mut self, link: &mut Link) -> bool {
        if !self.holds {
            return false;
        }
        self.held.send.signalled = true;
        let newest = self.at(self.next.wrapping_sub(1));
        self.wanted += u32::from(!std::mem::replace(&mut self.ring[newest].wanted, true));
        self.signal_at = self.next.wrapping_sub(1).wrapping_add(self.every);
        self.pass_on(link);
        true
    }

    /// Posts what was built: one doorbell.
    #[inline]
    pub(super) fn flush(&mut self, link: &mut Link) {
        if self.holds {
            self.pass_on(link);
        }
        // Also of sends that were refused in the end: nothing of the batch names a header any more.
        self.headers_used = 0;
        if !link.pair.is_open() {
            return;
        }
        self.counters.doorbells += 1;
        if link.pair.post().is_err() {
            self.on_post_failed();
        }
    }

    /// Nothing of the batch was posted: what its posters wait for will not come.
    #[cold]
    fn on_post_failed(&mut self) {
        self.counters.posts_failed += 1;
        self.failed = true;
    }

    /// Looks for completed sends.
    #[inline(never)]
    pub(super) fn poll(&mut self, link: &Link) {
        loop {
            let Ok(found) = link.send_queue.poll(&mut self.completions[..]) else {
                self.failed = true;
                return;
            };
            for at in 0..found {
                let completion = self.completions[at];
                self.on_sent(&completion);
            }
            if found < BATCH {
                return;
            }
        }
    }

    /// Everything up to this one is complete; itself perhaps in error.
    fn on_sent(&mut self, completion: &WorkCompletion) {
        let generation = u32::try_from(completion.wr_id() >> 32).unwrap_or(u32::MAX);
        let number = u32::try_from(completion.wr_id() & 0xffff_ffff).unwrap_or(0);
        let ahead = number.wrapping_sub(self.oldest);
        if generation != self.generation || ahead >= self.outstanding() {
            return;
        }
        self.counters.signals += 1;
        let status = completion.status();
        if self.long == 0 && status == CompletionStatus::Success {
            self.counters.completed += u64::from(ahead) + 1;
            self.oldest = number.wrapping_add(1);
            return;
        }
        self.failed |= status != CompletionStatus::Success;
        for _ in 0..ahead {
            self.finish_oldest(WcStatus::Success);
        }
        self.finish_oldest(status_of(status));
    }

    #[inline]
    fn finish_oldest(&mut self, status: WcStatus) {
        let at = self.at(self.oldest);
        let sent = std::mem::replace(&mut self.ring[at], SHORT);
        self.oldest = self.oldest.wrapping_add(1);
        self.wanted -= u32::from(sent.wanted);
        self.long -= u32::from(!sent.is_short());
        match status {
            WcStatus::Success => self.counters.completed += 1,
            WcStatus::Flushed => self.counters.flushed += 1,
            _ => self.counters.failed += 1,
        }
        // One that failed is told of whether it was signalled or not; an inline one never is.
        if sent.wanted || (status != WcStatus::Success && !sent.inline) {
            self.done.push_back(Completion {
                wr_id: sent.wr_id,
                status,
                byte_len: 0,
                more: false,
                checksum: WcChecksum::Unknown,
            });
        }
    }

    /// The link is gone: everything comes back.
    pub(super) fn take_back(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.failed = false;
        self.holds = false;
        (self.signal_at, self.quick_until) = (self.next, self.next);
        while self.outstanding() > 0 {
            self.finish_oldest(WcStatus::Flushed);
        }
    }

    /// Takes completions, oldest first.
    #[inline]
    pub(super) fn take(&mut self, out: &mut [Completion]) -> usize {
        let count = out.len().min(self.done.len());
        for (place, completion) in out.iter_mut().zip(self.done.drain(..count)) {
            *place = completion;
        }
        count
    }
}
