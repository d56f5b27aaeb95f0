//! Receives: buffers of the device half as work requests of the queue pair, and the frames that
//! land in them.
//!
//! Frames land where the stack reads them. Invariants: each receive comes back once, by its
//! completion or flushed after its link was dropped; received = delivered + each kind of drop.

use arrayvec::ArrayVec;

use super::link::Link;
use super::steering::{Sorter, Steering};
use super::tag::{TAG_LEN, Tag};
use crate::nic::rdma::completed::status_of;
use crate::nic::rdma::scratch::read_at;
use crate::nic::{
    BareFrame, Completion, Lkey, PostError, RecvBatch, RecvWr, Sge, WcChecksum, WcStatus,
};
use crate::verbs::completion_batch::CompletionBatch;
use crate::verbs::receive_slots::ReceiveSlots;
use crate::verbs::work_completion::WorkCompletion;

/// Receives posted with one call.
const LIST_LEN: usize = 32;
/// Elements of a receive at most, without those that a VLAN adds.
pub(super) const SGES_MAX: usize = 8;
/// Elements that a VLAN adds.
pub(super) const SGES_OF_TAG: usize = 2;

/// What a receive queue counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceiveCounters {
    pub(super) frames: u64,
    /// Frames that were handed over, of whose checksum the device said nothing.
    unverified: u64,
    pub(super) dropped_not_ours: u64,
    pub(super) dropped_vlan: u64,
    pub(super) failed: u64,
    pub(super) flushed: u64,
    pub(super) unknown: u64,
    pub(super) lists: u64,
    pub(super) posts_failed: u64,
    pub(super) polls_failed: u64,
    /// Apart from `frames`: two sums that lie together are added up as a vector, which takes
    /// longer.
    pub(super) bytes: u64,
}

/// Receives that were lent are posted again so many at a time, or an eighth of the queue.
const TOGETHER: usize = 16;

/// The receive queue.
pub(super) struct Arrivals {
    completions: CompletionBatch,
    /// Each one's note is what names it to its poster.
    slots: ReceiveSlots,
    depth: u16,
    /// Receives that are neither posted nor to come back.
    idle: Vec<u16>,
    /// How many of those that were lent are posted together.
    together: usize,
    /// Receives of links that are no more.
    to_flush: Vec<u16>,
    generation: u16,
    tag: Option<Tag>,
    sorter: Sorter,
    /// Whether frames may be lent: none is to be looked at before it is handed over, each is in one
    /// element, and no receive is to come back.
    lends: bool,
    /// Whether each receive so far had one element.
    is_single: bool,
    /// Whether the device's word on checksums counts.
    pub(super) trusts_checksums: bool,
    /// What went wrong: the link is to be made anew.
    pub(super) failed: bool,
    pub(super) counters: ReceiveCounters,
}

impl ReceiveCounters {
    /// Frames that were handed over.
    pub(super) fn delivered(&self) -> u64 {
        self.frames - self.dropped_vlan - self.dropped_not_ours
    }

    /// Those of them whose checksum the device found right.
    pub(super) fn verified(&self) -> u64 {
        self.delivered() - self.unverified
    }
}

impl Arrivals {
    pub(super) fn new(depth: u32, sges: usize, tag: Option<Tag>) -> Arrivals {
        let depth = u16::try_from(depth).unwrap_or(u16::MAX);
        let sges = sges + if tag.is_some() { SGES_OF_TAG } else { 0 };
        let mut arrivals = Arrivals {
            completions: CompletionBatch::default(),
            slots: ReceiveSlots::new(usize::from(depth), sges.max(2)),
            depth,
            idle: (0..depth).rev().collect(),
            together: TOGETHER.min(usize::from(depth) / 8).max(1),
            to_flush: Vec::with_capacity(usize::from(depth)),
            generation: 0,
            tag,
            sorter: Sorter::Device,
            lends: false,
            is_single: true,
            trusts_checksums: false,
            failed: false,
            counters: ReceiveCounters::default(),
        };
        arrivals.look_whether_it_lends();
        arrivals
    }

    /// The tag of this host's VLAN, if it is in one.
    pub(super) fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Follows who sorts frames.
    pub(super) fn sort_by(&mut self, sorter: Sorter) {
        self.sorter = sorter;
        self.look_whether_it_lends();
    }

    fn look_whether_it_lends(&mut self) {
        let looks = self.tag.is_some() || self.sorter == Sorter::Process;
        self.lends = !looks && self.is_single && self.to_flush.is_empty();
    }

    /// Receives that have not come back.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        u32::from(self.depth).saturating_sub(u32::try_from(self.idle.len()).unwrap_or(0))
    }

    /// Posts receives that are alike; returns how many were taken.
    pub(super) fn post_batch(
        &mut self,
        link: &Link,
        batch: &RecvBatch<'_>,
    ) -> Result<usize, PostError> {
        let (length, lkey) = (batch.length, batch.lkey);
        let wrs = batch.places.iter().map(|at| (at.wr_id, [Sge { addr: at.addr, length, lkey }]));
        self.post_each(link, wrs)
    }

    /// Posts receives of any shape; returns how many were taken.
    pub(super) fn post_all(&mut self, link: &Link, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        self.post_each(link, wrs.iter().map(|wr| (wr.wr_id, wr.sges)))
    }

    #[inline]
    fn post_each<S: AsRef<[Sge]>>(
        &mut self,
        link: &Link,
        wrs: impl Iterator<Item = (u64, S)>,
    ) -> Result<usize, PostError> {
        let mut taken = 0;
        self.post_reposted(link);
        for (wr_id, sges) in wrs {
            if let Err(error) = self.stage(wr_id, sges.as_ref()) {
                taken += self.post(link);
                return if taken == 0 { Err(error) } else { Ok(taken) };
            }
            if self.slots.staged() == LIST_LEN {
                taken += self.post(link);
                if self.failed {
                    return Ok(taken);
                }
            }
        }
        Ok(taken + self.post(link))
    }

    /// Makes a receive that is to be posted.
    #[inline]
    fn stage(&mut self, wr_id: u64, sges: &[Sge]) -> Result<(), PostError> {
        if sges.is_empty() || sges.len() > SGES_MAX {
            return Err(PostError::SgeCount);
        }
        let Some(&slot) = self.idle.last() else { return Err(PostError::QueueFull) };
        match &self.tag {
            None => self.describe(slot, sges),
            Some(tag) => {
                let split: Option<ArrayVec<Sge, { SGES_MAX + SGES_OF_TAG }>> =
                    tag.receive(u32::from(slot), sges);
                self.describe(slot, &split.ok_or(PostError::SgeCount)?);
            }
        }
        if self.is_single && sges.len() != 1 {
            self.is_single = false;
            self.look_whether_it_lends();
        }
        self.slots.set_note(slot, wr_id);
        self.slots.stage(slot, self.generation);
        self.idle.pop();
        Ok(())
    }

    #[inline]
    fn describe(&mut self, slot: u16, sges: &[Sge]) {
        for (place, sge) in sges.iter().enumerate() {
            self.slots.set(slot, place, *sge);
        }
        self.slots.set_count(slot, sges.len());
    }

    /// Posts what is staged: one call. Returns how many were posted; the others are as if never
    /// staged.
    fn post(&mut self, link: &Link) -> usize {
        if self.slots.staged() == 0 {
            return 0;
        }
        let posted = self.post_staged(link);
        while let Some(slot) = self.slots.unstage() {
            self.free(slot);
        }
        posted
    }

    /// Posts what is staged, of which some may stay.
    fn post_staged(&mut self, link: &Link) -> usize {
        self.counters.lists += 1;
        link.pair.pair().post_slots(&mut self.slots).unwrap_or_else(|failure| {
            self.counters.posts_failed += 1;
            self.failed = true;
            failure.posted
        })
    }

    /// A receive is not posted any more.
    #[inline]
    fn free(&mut self, slot: u16) {
        self.slots.set_in(slot);
        self.idle.push(slot);
    }

    /// Looks at the queue, if nothing is left of the last look. Says whether there is something.
    #[inline]
    pub(super) fn look(&mut self, link: Option<&Link>) -> bool {
        if !self.completions.is_empty() || !self.to_flush.is_empty() {
            return true;
        }
        let Some(link) = link else { return false };
        if self.completions.poll(&link.recv_queue).is_some() {
            return true;
        }
        self.on_none();
        false
    }

    /// Whether all was taken that the last look found, and the queue had no more then.
    #[inline(always)]
    pub(super) fn is_spent(&self) -> bool {
        self.completions.is_spent()
    }

    /// A poll found nothing.
    #[inline]
    fn on_none(&mut self) {
        if self.completions.take_failure() {
            self.counters.polls_failed += 1;
            self.failed = true;
        }
    }

    /// The receive whose frame was lent is to be posted again as it is, with others.
    #[inline(always)]
    pub(super) fn repost(&mut self, link: Option<&Link>) {
        if let Some(slot) = self.slots.take_lent() {
            slot.stage();
        }
        if self.slots.staged() >= self.together
            && let Some(link) = link
        {
            self.post_reposted(link);
        }
    }

    /// Posts those. What is not taken comes back with all others when the link, which failed, is
    /// dropped.
    #[inline(never)]
    fn post_reposted(&mut self, link: &Link) {
        if self.slots.staged() == 0 {
            return;
        }
        self.post_staged(link);
        while self.slots.unstage().is_some() {}
    }

    /// The receive whose frame was lent is its poster's.
    pub(super) fn take_lent(&mut self) {
        let number = self.slots.take_lent().map(|slot| slot.number());
        if let Some(slot) = number.and_then(|number| u16::try_from(number).ok()) {
            self.free(slot);
        }
    }

    /// Lends the next frame, if it is one that needs no look; and only a verified one, if that is
    /// wanted.
    #[inline(always)]
    pub(super) fn lend_one(
        &mut self,
        link: Option<&Link>,
        wants_verified: bool,
    ) -> Option<BareFrame> {
        if !self.lends {
            return None;
        }
        let head = match self.completions.head() {
            Some(head) => head,
            None => self.completions.poll(&link?.recv_queue)?,
        };
        let completion = head.completion();
        let verified = completion.checksum_verified() && self.trusts_checksums;
        if !completion.is_success() || (wants_verified && !verified) {
            return None;
        }
        let slot = self.slots.posted(completion.wr_id())?;
        let (wr_id, byte_len) = (slot.note(), completion.byte_len());
        slot.lend();
        head.take();
        self.counters.frames += 1;
        self.counters.bytes += u64::from(byte_len);
        if !verified {
            self.counters.unverified += 1;
        }
        Some(BareFrame { wr_id, byte_len, verified })
    }

    /// Takes completions of every kind, oldest first.
    pub(super) fn take(
        &mut self,
        link: Option<&Link>,
        steering: &Steering,
        out: &mut [Completion],
    ) -> usize {
        let mut taken = 0;
        while taken < out.len() {
            let next = if let Some(slot) = self.to_flush.pop() {
                self.counters.flushed += 1;
                self.look_whether_it_lends();
                Some(self.come_back(slot, WcStatus::Flushed, 0, false))
            } else if self.look(link)
                && let Some(completion) = self.completions.pop()
            {
                self.on_received(&completion, steering)
            } else {
                break;
            };
            if let Some(completion) = next {
                out[taken] = completion;
                taken += 1;
            }
        }
        taken
    }

    /// A receive, with what became of it.
    fn come_back(
        &mut self,
        slot: u16,
        status: WcStatus,
        byte_len: u32,
        verified: bool,
    ) -> Completion {
        let wr_id = self.slots.note(slot);
        self.free(slot);
        let checksum = if verified { WcChecksum::Valid } else { WcChecksum::Unknown };
        Completion { wr_id, status, byte_len, more: false, checksum }
    }

    fn on_received(
        &mut self,
        completion: &WorkCompletion,
        steering: &Steering,
    ) -> Option<Completion> {
        let number = self.slots.posted(completion.wr_id()).map(|slot| slot.number());
        let Some(slot) = number.and_then(|number| u16::try_from(number).ok()) else {
            // Of a link that is no more, or a second one of a receive, which verbs rule out.
            self.counters.unknown += 1;
            let generation = (completion.wr_id() >> 32) & u64::from(u16::MAX);
            self.failed |= generation == u64::from(self.generation);
            return None;
        };
        if !completion.is_success() {
            self.failed = true;
            let status = status_of(completion.status());
            let flushed = status == WcStatus::Flushed;
            self.counters.flushed += u64::from(flushed);
            self.counters.failed += u64::from(!flushed);
            return Some(self.come_back(slot, status, 0, false));
        }
        self.counters.frames += 1;
        let mut byte_len = completion.byte_len();
        if let Some(tag) = &self.tag {
            if !tag.is_ours(u32::from(slot)) || byte_len <= TAG_LEN {
                self.counters.dropped_vlan += 1;
                // A frame without bytes is one that the device half drops.
                return Some(self.come_back(slot, WcStatus::Success, 0, false));
            }
            byte_len -= TAG_LEN;
        }
        if steering.sorter == Sorter::Process && !self.is_wanted(slot, steering, byte_len) {
            self.counters.dropped_not_ours += 1;
            return Some(self.come_back(slot, WcStatus::Success, 0, false));
        }
        let verified = completion.checksum_verified() && self.trusts_checksums;
        self.counters.bytes += u64::from(byte_len);
        self.counters.unverified += u64::from(!verified);
        Some(self.come_back(slot, WcStatus::Success, byte_len, verified))
    }

    fn is_wanted(&self, slot: u16, steering: &Steering, byte_len: u32) -> bool {
        let Sge { addr, .. } = self.slots.get(slot, 0);
        let sge = Sge { addr, length: byte_len, lkey: Lkey(0) };
        // SAFETY: the buffer of a receive that is complete and was not handed over yet.
        let addresses = unsafe { read_at::<12>(&sge, 0) };
        addresses.is_some_and(|[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]| {
            steering.wants([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5])
        })
    }

    /// The link is gone: everything that was posted comes back.
    pub(super) fn take_back(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.failed = false;
        self.completions.clear();
        while self.slots.unstage().is_some() {}
        self.to_flush.extend((0..self.depth).filter(|slot| self.slots.is_out(*slot)));
        self.look_whether_it_lends();
    }
}
