//! Buffers that were posted, joined to receives that each take the longest message.
//!
//! A receive is a place for what comes in front (GRH area, header of the wire) and as many buffers
//! as the longest message fills. It keeps its elements: fresh buffers take the places of those that
//! a message filled, and it is posted again together with others. Invariants: a buffer is free, in
//! one receive, or reported in one completion; a receive has all the buffers that it needs or none,
//! so that none are held back from others.

use std::collections::VecDeque;
use std::ops::Range;

use super::engine::FRAME_MIN;
use super::scratch::{Scratch, read_at};
use crate::nic::{Completion, PostError, RecvBatch, RecvWr, Sge, WcChecksum, WcStatus};
use crate::verbs::queue_pair::{QueuePair, Rts};
use crate::verbs::receive_slots::{PostedSlot, ReceiveSlots};
use crate::verbs::shared_receive::SharedReceiveQueue;
use crate::verbs::work_list::PostFailure;

/// Most buffers of one receive.
pub(super) const BUFFERS_MAX: usize = 31;
/// Buffers that are kept to take the places of filled ones, once there are some receives: the stack
/// gives buffers back so many at a time.
const KEPT: usize = 16;
const FEW: usize = 4;

/// Where receives are posted.
pub(super) enum Sink {
    /// A queue that all queue pairs take from.
    Shared(SharedReceiveQueue),
    /// The queue of the one queue pair.
    Own,
}

/// What is known before buffers come.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivePlan {
    /// Receives at most.
    pub(super) receives: u16,
    /// Bytes in front of a message: header of the wire, and GRH area where there is one.
    pub(super) in_front: u32,
    /// Longest message behind the header of the wire.
    pub(super) longest: u32,
    /// Elements of a receive at most.
    pub(super) max_sge: u16,
}

/// Buffers that are in no receive, with what names them; the last one is used first.
struct FreeBuffers {
    list: Vec<(u64, Sge)>,
    max: usize,
    lengths: Lengths,
    /// Whether messages that were taken wait, which none may overtake.
    is_waited_for: bool,
    /// How many lengths beyond the shortest frame a message may have that is in one buffer alone
    /// and may be lent: none if no buffer is free, they are not all alike, or messages wait.
    lendable: u32,
}

/// Bytes of all buffers that ever came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    None,
    All(u32),
    Differ,
}

impl FreeBuffers {
    fn new(max: usize) -> FreeBuffers {
        let list = Vec::with_capacity(max);
        FreeBuffers { list, max, lengths: Lengths::None, is_waited_for: false, lendable: 0 }
    }

    fn len(&self) -> usize {
        self.list.len()
    }

    fn room(&self) -> usize {
        self.max.saturating_sub(self.list.len())
    }

    /// Buffers of this length come, too.
    fn admit(&mut self, length: u32) {
        self.lengths = match self.lengths {
            Lengths::None => Lengths::All(length),
            Lengths::All(all) if all == length => return,
            Lengths::All(_) | Lengths::Differ => Lengths::Differ,
        };
    }

    /// Messages wait, or wait no more.
    fn wait(&mut self, waits: bool) {
        self.is_waited_for = waits;
        self.look_at_lengths();
    }

    #[inline]
    fn extend(&mut self, buffers: impl IntoIterator<Item = (u64, Sge)>) {
        self.list.extend(buffers);
        self.look_at_lengths();
    }

    #[inline]
    fn pop(&mut self) -> Option<(u64, Sge)> {
        let buffer = self.list.pop();
        self.look_at_lengths();
        buffer
    }

    fn look_at_lengths(&mut self) {
        self.lendable = match self.lengths {
            Lengths::All(length) if !self.list.is_empty() && !self.is_waited_for => {
                length.saturating_sub(FRAME_MIN - 1)
            }
            _ => 0,
        };
    }
}

/// A completed receive.
pub(super) struct Arrived<'a> {
    slot: PostedSlot<'a>,
    lendable: u32,
}

impl Arrived<'_> {
    #[inline(always)]
    pub(super) fn number(&self) -> usize {
        self.slot.number()
    }

    /// The shortest frame in the first buffer, if no other message waits, one with `rest` bytes
    /// beyond that is in it alone, and another of its length is free: one of another length may
    /// make the receive too short, or longer than needed.
    #[inline(always)]
    pub(super) fn only(&self, rest: u32) -> Option<Sge> {
        let sge = self.slot.second();
        // All buffers have room for the shortest frame if any message may be lent.
        (rest < self.lendable).then_some(Sge { length: FRAME_MIN, ..sge })
    }

    /// Stages the receive as it is, for [`Receives::take_lent`] or not; what names the buffer. It
    /// is not posted before the message was looked at.
    #[inline(always)]
    pub(super) fn lend(self) -> u64 {
        let id = self.slot.note();
        self.slot.stage_lent();
        id
    }
}

/// All receives of a NIC.
pub(super) struct Receives {
    plan: ReceivePlan,
    /// Buffers of a receive at most.
    most: u16,
    /// The first element of each is the place in front; the note names the first buffer.
    slots: ReceiveSlots,
    /// Buffers of each, and what names them in completions, by receive and place.
    counts: Box<[u16]>,
    ids: Box<[u64]>,
    /// Receives without buffers.
    idle: Vec<u16>,
    free: FreeBuffers,
    done: VecDeque<Completion>,
    /// Tells receives of a queue that is no more from those of the present one.
    generation: u16,
    /// Calls that posted receives, and receives that the device did not take.
    pub(super) lists: u64,
    pub(super) post_failed: u64,
}

impl Receives {
    pub(super) fn new(plan: ReceivePlan, scratch: &Scratch) -> Receives {
        let receives = usize::from(plan.receives);
        let most = plan.max_sge.saturating_sub(1).min(u16::try_from(BUFFERS_MAX).unwrap_or(0));
        let mut slots = ReceiveSlots::new(receives, usize::from(most) + 1);
        for index in 0..plan.receives {
            slots.set(index, 0, scratch.front(index, plan.in_front));
        }
        let free_max = (receives * BUFFERS_MAX).min(4096);
        Receives {
            counts: vec![0; receives].into_boxed_slice(),
            ids: vec![0; receives * usize::from(most)].into_boxed_slice(),
            slots,
            idle: (0..plan.receives).rev().collect(),
            free: FreeBuffers::new(free_max),
            done: VecDeque::with_capacity(free_max),
            generation: 0,
            lists: 0,
            post_failed: 0,
            plan,
            most,
        }
    }

    /// Buffers of so many bytes that all receives hold; 0 if one holds a message.
    pub(super) fn buffers(&self, buffer_len: u32) -> u32 {
        match self.plan.longest.div_ceil(buffer_len.max(1)) {
            0 | 1 => 0,
            each => u32::from(self.plan.receives).saturating_mul(each),
        }
    }

    /// Buffers to use; returns how many were taken.
    pub(super) fn add(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for (taken, wr) in wrs.iter().enumerate() {
            let refusal = match wr.sges {
                [_] if self.free.room() == 0 => PostError::QueueFull,
                [sge] => {
                    self.free.admit(sge.length);
                    self.free.extend([(wr.wr_id, *sge)]);
                    continue;
                }
                _ => PostError::SgeCount,
            };
            return if taken == 0 { Err(refusal) } else { Ok(taken) };
        }
        Ok(wrs.len())
    }

    /// Buffers that are alike; returns how many were taken.
    #[inline]
    pub(super) fn add_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        let room = self.free.room();
        let places = &batch.places[..batch.places.len().min(room)];
        if places.is_empty() && !batch.places.is_empty() {
            return Err(PostError::QueueFull);
        }
        let (length, lkey) = (batch.length, batch.lkey);
        self.free.admit(length);
        let buffers = places.iter().map(|at| (at.wr_id, Sge { addr: at.addr, length, lkey }));
        self.free.extend(buffers);
        Ok(places.len())
    }

    #[inline]
    fn id_at(&self, index: u16, place: u16) -> usize {
        usize::from(index) * usize::from(self.most) + usize::from(place)
    }

    fn count(&self, index: u16) -> u16 {
        self.counts[usize::from(index)]
    }

    fn buffer(&self, index: u16, place: u16) -> (u64, Sge) {
        let id = match place {
            0 => self.slots.note(index),
            place => self.ids[self.id_at(index, place)],
        };
        (id, self.slots.get(index, usize::from(place) + 1))
    }

    fn put(&mut self, index: u16, place: u16, (id, sge): (u64, Sge)) {
        match place {
            0 => self.slots.set_note(index, id),
            place => self.ids[self.id_at(index, place)] = id,
        }
        self.slots.set(index, usize::from(place) + 1, sge);
    }

    /// Takes a receive's buffers away, but those that are `gone`. It is not with the device.
    fn empty_but(&mut self, index: u16, gone: Range<u16>) {
        for place in (0..gone.start).chain(gone.end..self.count(index)) {
            let buffer = self.buffer(index, place);
            self.free.extend([buffer]);
        }
        self.counts[usize::from(index)] = 0;
        self.slots.set_in(index);
        self.idle.push(index);
    }

    fn empty(&mut self, index: u16) {
        self.empty_but(index, 0..0);
    }

    /// Gives a receive buffers up to the longest message; they were seen to be there.
    fn fill(&mut self, index: u16, wanted: u16) {
        for place in 0..wanted {
            let Some(buffer) = self.free.pop() else { break };
            self.put(index, place, buffer);
            self.counts[usize::from(index)] = place + 1;
        }
        self.slots.set_count(index, usize::from(self.count(index)) + 1);
    }

    /// How many of the free buffers the longest message fills, at most; nothing if they are too
    /// few.
    fn wanted(&self, kept: usize) -> Option<u16> {
        let mut room = 0_u32;
        let free = self.free.len().checked_sub(kept)?;
        for (count, (_, sge)) in self.free.list.iter().rev().take(free).enumerate() {
            room = room.saturating_add(sge.length);
            let count = u16::try_from(count + 1).unwrap_or(self.most);
            if room >= self.plan.longest || count == self.most {
                return Some(count);
            }
        }
        None
    }

    fn stage(&mut self, index: u16) {
        self.slots.stage(index, self.generation);
    }

    /// Receives that are to be posted.
    #[inline]
    pub(super) fn staged_count(&self) -> usize {
        self.slots.staged()
    }

    /// Posts what is staged, with one call; returns the number of receives.
    pub(super) fn flush(&mut self, (sink, pair): (&Sink, Option<&QueuePair<Rts>>)) -> u32 {
        if self.slots.staged() == 0 {
            return 0;
        }
        self.lists += 1;
        let result = match (sink, pair) {
            (Sink::Shared(queue), _) => queue.post_slots(&mut self.slots),
            (Sink::Own, Some(pair)) => pair.post_slots(&mut self.slots),
            (Sink::Own, None) => Err(PostFailure { posted: 0, errno: libc::ENOTCONN }),
        };
        let posted = result.unwrap_or_else(|failure| {
            self.post_failed += 1;
            while let Some(index) = self.slots.unstage() {
                self.empty(index);
            }
            failure.posted
        });
        u32::try_from(posted).unwrap_or(0)
    }

    /// Makes receives of free buffers, to be posted.
    #[inline]
    pub(super) fn replenish(&mut self) {
        if !self.idle.is_empty() && self.free.len() > KEPT
            || self.idle.len() > self.counts.len().saturating_sub(FEW)
        {
            self.make_receives();
        }
    }

    #[inline(never)]
    fn make_receives(&mut self) {
        while let Some(index) = self.idle.pop() {
            let out = self.counts.len() - self.idle.len() - 1;
            let Some(wanted) = self.wanted(if out < FEW { 0 } else { KEPT }) else {
                self.idle.push(index);
                return;
            };
            self.fill(index, wanted);
            self.stage(index);
        }
    }

    /// The receive of a completion; nothing if it is not with the device.
    #[inline]
    pub(super) fn completed(&mut self, wr_id: u64) -> Option<u16> {
        u16::try_from(self.slots.posted(wr_id)?.number()).ok()
    }

    /// The same, to be delivered at once.
    #[inline(always)]
    pub(super) fn arrived(&mut self, wr_id: u64) -> Option<Arrived<'_>> {
        Some(Arrived { slot: self.slots.posted(wr_id)?, lendable: self.free.lendable })
    }

    /// It is not with the device any more.
    #[inline]
    pub(super) fn take(&mut self, index: u16) {
        self.slots.set_in(index);
    }

    /// A completed receive whose queue is of no use: its buffers are free again.
    pub(super) fn discard(&mut self, index: u16) {
        self.empty(index);
    }

    /// A completed receive's message was not for anybody: it is to be posted again.
    pub(super) fn reuse(&mut self, index: u16) {
        self.stage(index);
    }

    /// Bytes of the message behind the header, where they lie in the first buffer.
    #[inline]
    pub(super) fn read<const N: usize>(&self, index: u16, offset: u32) -> Option<[u8; N]> {
        let first = self.slots.second(index);
        // SAFETY: a posted buffer, whose receive is complete and which was not reported yet.
        unsafe { read_at(&first, offset) }
    }

    /// A completed receive holds `length` bytes for the stack: reports the filled buffers.
    pub(super) fn deliver(&mut self, index: u16, length: u32) {
        self.free.wait(true);
        let mut left = length;
        let mut filled = 0;
        let count = self.count(index);
        while filled < count {
            let (wr_id, sge) = self.buffer(index, filled);
            let byte_len = left.min(sge.length);
            left -= byte_len;
            filled += 1;
            self.done.push_back(Completion {
                wr_id,
                status: WcStatus::Success,
                byte_len,
                more: left > 0,
                checksum: WcChecksum::Unknown,
            });
            if left == 0 {
                break;
            }
        }
        for place in 0..filled {
            let length = self.buffer(index, place).1.length;
            match self.free.pop() {
                Some(fresh) if fresh.1.length == length => self.put(index, place, fresh),
                fresh => {
                    self.free.extend(fresh);
                    self.empty_but(index, place..filled);
                    return;
                }
            }
        }
        self.stage(index);
    }

    /// The queue is gone, and nothing is with the device any more.
    pub(super) fn take_back(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        while self.slots.unstage().is_some() {}
        for index in 0..self.plan.receives {
            if self.slots.is_out(index) {
                self.empty(index);
            }
        }
    }

    /// The first buffer of the receive that was lent last is the stack's from now on: the free one
    /// that [`Arrived::only`] saw takes its place.
    #[inline]
    pub(super) fn take_lent(&mut self) {
        if let Some((id, fresh)) = self.free.pop()
            && !self.slots.exchange_lent(fresh, id)
        {
            self.free.extend([(id, fresh)]);
        }
    }

    /// That receive is posted again as it is: it was staged when it was lent.
    #[inline(always)]
    pub(super) fn repost_lent(&mut self) {
        self.slots.settle_lent();
    }

    /// Whether a message is lent, and not settled yet.
    pub(super) fn has_lent(&self) -> bool {
        self.slots.has_lent()
    }

    /// Whether completions wait to be taken.
    #[inline]
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Takes completions.
    #[inline]
    pub(super) fn take_done(&mut self, out: &mut [Completion]) -> usize {
        let count = out.len().min(self.done.len());
        for (place, completion) in out.iter_mut().zip(self.done.drain(..count)) {
            *place = completion;
        }
        self.free.wait(!self.done.is_empty());
        count
    }

    /// Everything comes back in error: the device is gone.
    pub(super) fn fail_all(&mut self) {
        self.take_back();
        self.free.wait(true);
        while let Some((wr_id, _)) = self.free.pop() {
            self.done.push_back(Completion {
                wr_id,
                status: WcStatus::Flushed,
                byte_len: 0,
                more: false,
                checksum: WcChecksum::Unknown,
            });
        }
    }
}
