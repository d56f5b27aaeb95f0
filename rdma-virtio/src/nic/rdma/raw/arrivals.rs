//! Receives: buffers of the device half as work requests of the queue pair, and the frames that
//! land in them.
//!
//! Frames land where the stack reads them. Invariants: receives complete in posting order; each
//! comes back once, by its completion or flushed after its link was dropped; received = delivered
//! + each kind of drop.

use arrayvec::ArrayVec;

use super::link::Link;
use super::steering::{Sorter, Steering};
use super::tag::{TAG_LEN, Tag};
use crate::nic::rdma::completed::status_of;
use crate::nic::rdma::scratch::read_at;
use crate::nic::{
    BareFrame, Completion, Lkey, PostError, RecvBatch, RecvWr, Sge, WcChecksum, WcStatus,
};
use crate::verbs::work_completion::WorkCompletion;
use crate::verbs::work_list::ReceiveList;

/// Completions taken at a time.
const BATCH: usize = 16;
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

/// A receive that is with the device.
#[derive(Clone, Copy, Debug)]
struct Posted {
    wr_id: u64,
    /// Its first element.
    sge: Sge,
    /// Whether that is all of it.
    is_single: bool,
}

impl Posted {
    const NONE: Posted =
        Posted { wr_id: 0, sge: Sge { addr: 0, length: 0, lkey: Lkey(0) }, is_single: false };
}

/// The receive queue.
pub(super) struct Arrivals {
    completions: Box<[WorkCompletion; BATCH]>,
    /// Those that were polled and not taken.
    at: usize,
    count: usize,
    ring: Box<[Posted]>,
    /// Where the receive of the frame is that is lent, and how many of those are posted together.
    lent: usize,
    together: usize,
    next: u32,
    oldest: u32,
    depth: u32,
    /// Receives of links that are no more.
    to_flush: u32,
    generation: u32,
    list: ReceiveList,
    tag: Option<Tag>,
    /// Whether each frame is looked at before it is handed over.
    looks: bool,
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
        let places = usize::try_from(depth.next_power_of_two()).unwrap_or(1);
        let sges = sges + if tag.is_some() { SGES_OF_TAG } else { 0 };
        Arrivals {
            completions: Box::new([WorkCompletion::default(); BATCH]),
            at: 0,
            count: 0,
            ring: vec![Posted::NONE; places].into_boxed_slice(),
            lent: 0,
            together: TOGETHER.min(places / 8).max(1),
            next: 0,
            oldest: 0,
            depth,
            to_flush: 0,
            generation: 0,
            list: ReceiveList::new(LIST_LEN, sges),
            looks: tag.is_some(),
            tag,
            trusts_checksums: false,
            failed: false,
            counters: ReceiveCounters::default(),
        }
    }

    /// The tag of this host's VLAN, if it is in one.
    pub(super) fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Follows who sorts frames.
    pub(super) fn sort_by(&mut self, sorter: Sorter) {
        self.looks = self.tag.is_some() || sorter == Sorter::Process;
    }

    #[inline]
    fn index(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or(0) & (self.ring.len() - 1)
    }

    /// Receives that have not come back.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    /// Posts receives that are alike; returns how many were taken.
    #[inline]
    pub(super) fn post_batch(
        &mut self,
        link: &Link,
        batch: &RecvBatch<'_>,
    ) -> Result<usize, PostError> {
        let mut taken = 0;
        self.post_reposted(Some(link));
        for part in batch.places.chunks(LIST_LEN) {
            for place in part {
                let sge = Sge { addr: place.addr, length: batch.length, lkey: batch.lkey };
                if self.stage_one(place.wr_id, sge) {
                    continue;
                }
                if let Err(error) = self.stage(place.wr_id, &[sge]) {
                    taken += self.post(link);
                    return if taken == 0 { Err(error) } else { Ok(taken) };
                }
            }
            taken += self.post(link);
            if self.failed {
                break;
            }
        }
        Ok(taken)
    }

    /// Posts receives of any shape; returns how many were taken.
    pub(super) fn post_all(&mut self, link: &Link, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        let mut taken = 0;
        self.post_reposted(Some(link));
        for part in wrs.chunks(LIST_LEN) {
            for wr in part {
                if let Err(error) = self.stage(wr.wr_id, wr.sges) {
                    taken += self.post(link);
                    return if taken == 0 { Err(error) } else { Ok(taken) };
                }
            }
            taken += self.post(link);
            if self.failed {
                break;
            }
        }
        Ok(taken)
    }

    /// Puts a receive of one element into the list; false if that is not all there is to do.
    #[inline]
    fn stage_one(&mut self, wr_id: u64, sge: Sge) -> bool {
        if self.tag.is_some() || self.outstanding() >= self.depth {
            return false;
        }
        let id = u64::from(self.generation) << 32 | u64::from(self.next);
        if self.list.push_one(id, sge).is_err() {
            return false;
        }
        let at = self.index(self.next);
        self.ring[at] = Posted { wr_id, sge, is_single: true };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Puts a receive into the list.
    #[inline]
    fn stage(&mut self, wr_id: u64, sges: &[Sge]) -> Result<(), PostError> {
        if self.outstanding() >= self.depth {
            return Err(PostError::QueueFull);
        }
        let Some(first) = sges.first().filter(|_| sges.len() <= SGES_MAX) else {
            return Err(PostError::SgeCount);
        };
        let id = u64::from(self.generation) << 32 | u64::from(self.next);
        let pushed = match &self.tag {
            None => self.list.push(id, sges),
            Some(tag) => {
                let split: Option<ArrayVec<Sge, { SGES_MAX + SGES_OF_TAG }>> =
                    tag.receive(self.next, sges);
                self.list.push(id, &split.ok_or(PostError::SgeCount)?)
            }
        };
        pushed.map_err(|_| PostError::SgeCount)?;
        let at = self.index(self.next);
        self.ring[at] = Posted { wr_id, sge: *first, is_single: false };
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Posts the list: one call. Returns how many were posted; the others are as if never staged.
    #[inline]
    fn post(&mut self, link: &Link) -> usize {
        let staged = self.list.len();
        if staged == 0 {
            return 0;
        }
        self.counters.lists += 1;
        match link.pair.pair().post_recv(&mut self.list) {
            Ok(()) => staged,
            Err(failure) => {
                self.list.clear();
                self.counters.posts_failed += 1;
                self.failed = true;
                let lost = u32::try_from(staged - failure.posted).unwrap_or(0);
                self.next = self.next.wrapping_sub(lost);
                failure.posted
            }
        }
    }

    /// Looks at the queue, if nothing is left of the last look. Says whether there is something.
    #[inline]
    pub(super) fn look(&mut self, link: Option<&Link>) -> bool {
        if self.at < self.count || self.to_flush > 0 {
            return true;
        }
        let Some(link) = link else { return false };
        match link.recv_queue.poll(&mut self.completions[..]) {
            Ok(0) => false,
            Ok(found) => {
                (self.at, self.count) = (0, found);
                true
            }
            Err(_) => {
                self.on_poll_failed();
                false
            }
        }
    }

    /// Whether all was taken that the last look found, which did not fill its batch.
    #[inline(always)]
    pub(super) fn is_spent(&self) -> bool {
        self.at == self.count && self.count < BATCH && self.to_flush == 0
    }

    #[cold]
    fn on_poll_failed(&mut self) {
        self.counters.polls_failed += 1;
        self.failed = true;
    }

    /// The receive whose frame was lent is to be posted again as it is, with others.
    #[inline(always)]
    pub(super) fn repost(&mut self, link: Option<&Link>) {
        let Posted { wr_id, sge, .. } = self.ring[self.lent];
        let id = u64::from(self.generation) << 32 | u64::from(self.next);
        // There is room: the list is posted long before it is full.
        if self.list.push_one(id, sge).is_ok() {
            let at = self.index(self.next);
            self.ring[at] = Posted { wr_id, sge, is_single: true };
            self.next = self.next.wrapping_add(1);
        }
        if self.list.len() >= self.together {
            self.post_reposted(link);
        }
    }

    /// Posts those. What is not taken comes back with all others when the link, which failed, is
    /// dropped.
    #[inline(never)]
    fn post_reposted(&mut self, link: Option<&Link>) {
        let Some(link) = link else { return };
        let next = self.next;
        self.post(link);
        self.next = next;
    }

    /// Lends the oldest frame, if it is one that needs no look.
    #[inline]
    pub(super) fn lend_one(&mut self, link: Option<&Link>) -> Option<BareFrame> {
        if (self.at == self.count && !self.look(link)) || self.looks || self.to_flush > 0 {
            return None;
        }
        let completion = &self.completions[self.at & (BATCH - 1)];
        let id = u64::from(self.generation) << 32 | u64::from(self.oldest);
        if !completion.is_success() || completion.wr_id() != id || self.outstanding() == 0 {
            return None;
        }
        let byte_len = completion.byte_len();
        let verified = completion.checksum_verified() && self.trusts_checksums;
        let place = self.index(self.oldest);
        let Posted { wr_id, is_single, .. } = self.ring[place];
        if !is_single {
            return None;
        }
        self.lent = place;
        self.at += 1;
        self.oldest = self.oldest.wrapping_add(1);
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
            let next = if self.to_flush > 0 {
                self.to_flush -= 1;
                self.counters.flushed += 1;
                Some(self.come_back(WcStatus::Flushed, 0, false))
            } else if self.look(link) {
                let completion = self.completions[self.at];
                self.at += 1;
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

    /// The oldest receive, with what became of it.
    fn come_back(&mut self, status: WcStatus, byte_len: u32, verified: bool) -> Completion {
        let wr_id = self.ring[self.index(self.oldest)].wr_id;
        self.oldest = self.oldest.wrapping_add(1);
        let checksum = if verified { WcChecksum::Valid } else { WcChecksum::Unknown };
        Completion { wr_id, status, byte_len, more: false, checksum }
    }

    fn on_received(
        &mut self,
        completion: &WorkCompletion,
        steering: &Steering,
    ) -> Option<Completion> {
        let id = u64::from(self.generation) << 32 | u64::from(self.oldest);
        if completion.wr_id() != id || self.outstanding() == 0 {
            // Of a link that is no more, or out of order, which verbs rule out.
            self.counters.unknown += 1;
            let generation = u32::try_from(completion.wr_id() >> 32).unwrap_or(u32::MAX);
            self.failed |= generation == self.generation;
            return None;
        }
        if !completion.is_success() {
            self.failed = true;
            let status = status_of(completion.status());
            let flushed = status == WcStatus::Flushed;
            self.counters.flushed += u64::from(flushed);
            self.counters.failed += u64::from(!flushed);
            return Some(self.come_back(status, 0, false));
        }
        self.counters.frames += 1;
        let mut byte_len = completion.byte_len();
        if let Some(tag) = &self.tag {
            if !tag.is_ours(self.oldest) || byte_len <= TAG_LEN {
                self.counters.dropped_vlan += 1;
                // A frame without bytes is one that the device half drops.
                return Some(self.come_back(WcStatus::Success, 0, false));
            }
            byte_len -= TAG_LEN;
        }
        if steering.sorter == Sorter::Process && !self.is_wanted(steering, byte_len) {
            self.counters.dropped_not_ours += 1;
            return Some(self.come_back(WcStatus::Success, 0, false));
        }
        let verified = completion.checksum_verified() && self.trusts_checksums;
        self.counters.bytes += u64::from(byte_len);
        self.counters.unverified += u64::from(!verified);
        Some(self.come_back(WcStatus::Success, byte_len, verified))
    }

    fn is_wanted(&self, steering: &Steering, byte_len: u32) -> bool {
        let Sge { addr, .. } = self.ring[self.index(self.oldest)].sge;
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
        (self.at, self.count) = (0, 0);
        self.list.clear();
        self.to_flush = self.outstanding();
    }
}
