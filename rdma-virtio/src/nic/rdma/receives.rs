//! Buffers that were posted, joined to receives that each take the longest message.
//!
//! A receive is a place for what comes in front (GRH area, header of the wire) and as many buffers
//! as the longest message fills. Those that a message leaves empty are used again at once, with
//! fresh ones for the filled. Invariant: a buffer is free, in one receive, or reported in one
//! completion; a receive that lacks buffers holds none back from others.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::scratch::{Scratch, read_at};
use crate::nic::{Completion, PostError, RecvWr, Sge, WcChecksum, WcStatus};
use crate::verbs::queue_pair::{QueuePair, Rts};
use crate::verbs::shared_receive::SharedReceiveQueue;
use crate::verbs::work_list::{PostFailure, ReceiveList};

/// Most buffers of one receive.
pub(super) const BUFFERS_MAX: usize = 31;
/// Receives posted with one call.
const LIST_LEN: usize = 16;

/// Where receives are posted.
pub(super) enum Sink {
    /// A queue that all queue pairs take from.
    Shared(SharedReceiveQueue),
    /// The queue of the one queue pair.
    Own,
}

/// A receive.
#[derive(Debug, Default)]
struct Record {
    /// The place in front, then the buffers.
    sges: ArrayVec<Sge, { BUFFERS_MAX + 1 }>,
    /// What names each buffer in completions.
    ids: ArrayVec<u64, BUFFERS_MAX>,
    posted: bool,
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

/// All receives of a NIC.
pub(super) struct Receives {
    plan: ReceivePlan,
    records: Box<[Record]>,
    /// Records without buffers.
    idle: Vec<u16>,
    free: VecDeque<(u64, Sge)>,
    free_max: usize,
    list: ReceiveList,
    done: VecDeque<Completion>,
    /// Tells receives of a queue that is no more from those of the present one.
    generation: u32,
    /// Receives that the device did not take.
    pub(super) post_failed: u64,
}

impl Receives {
    pub(super) fn new(plan: ReceivePlan, scratch: &Scratch, first_cell: u32) -> Receives {
        let records: Box<[Record]> = (0..plan.receives)
            .map(|index| {
                let mut record = Record::default();
                record.sges.push(scratch.sge(first_cell + u32::from(index), plan.in_front));
                record
            })
            .collect();
        let free_max = usize::from(plan.receives) * BUFFERS_MAX;
        Receives {
            records,
            idle: (0..plan.receives).rev().collect(),
            free: VecDeque::with_capacity(free_max.min(4096)),
            free_max: free_max.min(4096),
            list: ReceiveList::new(LIST_LEN, usize::from(plan.max_sge)),
            done: VecDeque::with_capacity(free_max.min(4096)),
            generation: 0,
            post_failed: 0,
            plan,
        }
    }

    /// Buffers to use; returns how many were taken.
    pub(super) fn add(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for (taken, wr) in wrs.iter().enumerate() {
            let refusal = match wr.sges {
                [_] if self.free.len() >= self.free_max => PostError::QueueFull,
                [sge] => {
                    self.free.push_back((wr.wr_id, *sge));
                    continue;
                }
                _ => PostError::SgeCount,
            };
            return if taken == 0 { Err(refusal) } else { Ok(taken) };
        }
        Ok(wrs.len())
    }

    /// Fills a record with buffers up to the longest message; false if there are too few.
    fn fill(&mut self, index: u16) -> bool {
        let record = &mut self.records[usize::from(index)];
        let mut room: u32 = record.sges[1..].iter().map(|sge| sge.length).sum();
        let most = usize::from(self.plan.max_sge).min(BUFFERS_MAX + 1);
        while room < self.plan.longest && record.sges.len() < most {
            let Some((id, sge)) = self.free.pop_front() else {
                self.empty(index);
                return false;
            };
            record.sges.push(sge);
            record.ids.push(id);
            room = room.saturating_add(sge.length);
        }
        true
    }

    /// Takes a record's buffers away.
    fn empty(&mut self, index: u16) {
        let record = &mut self.records[usize::from(index)];
        record.posted = false;
        let buffers = record.ids.drain(..).zip(record.sges.drain(1..));
        self.free.extend(buffers);
        self.idle.push(index);
    }

    fn stage(&mut self, index: u16, sink: (&Sink, Option<&QueuePair<Rts>>)) -> u32 {
        let record = &mut self.records[usize::from(index)];
        let wr_id = u64::from(self.generation) << 32 | u64::from(index);
        record.posted = self.list.push(wr_id, &record.sges).is_ok();
        if !record.posted {
            self.empty(index);
            return 0;
        }
        if self.list.len() >= LIST_LEN { self.flush(sink) } else { 0 }
    }

    /// Posts what was staged; returns the number of receives.
    fn flush(&mut self, (sink, pair): (&Sink, Option<&QueuePair<Rts>>)) -> u32 {
        let staged = self.list.len();
        if staged == 0 {
            return 0;
        }
        let result = match (sink, pair) {
            (Sink::Shared(queue), _) => queue.post_recv(&mut self.list),
            (Sink::Own, Some(pair)) => pair.post_recv(&mut self.list),
            (Sink::Own, None) => Err(PostFailure { posted: 0, errno: libc::ENOTCONN }),
        };
        let posted = match result {
            Ok(()) => staged,
            Err(failure) => {
                self.post_failed += 1;
                failure.posted
            }
        };
        self.list.clear();
        u32::try_from(posted).unwrap_or(0)
    }

    /// Makes receives of free buffers and posts what is staged; returns how many were posted.
    pub(super) fn replenish(&mut self, sink: (&Sink, Option<&QueuePair<Rts>>)) -> u32 {
        let mut posted = 0;
        while !self.free.is_empty()
            && let Some(index) = self.idle.pop()
        {
            if !self.fill(index) {
                break;
            }
            posted += self.stage(index, sink);
        }
        posted + self.flush(sink)
    }

    /// The record of a completion; nothing if it is not with the device.
    #[inline]
    pub(super) fn index_of(&self, wr_id: u64) -> Option<u16> {
        let generation = u32::try_from(wr_id >> 32).unwrap_or(u32::MAX);
        let index = u16::try_from(wr_id & 0xffff_ffff).ok()?;
        let record = self.records.get(usize::from(index))?;
        (generation == self.generation && record.posted).then_some(index)
    }

    /// A completed receive whose queue is of no use: its buffers are free again.
    pub(super) fn discard(&mut self, index: u16) {
        self.empty(index);
    }

    /// A completed receive's message was not for anybody: it is posted again.
    pub(super) fn reuse(&mut self, index: u16, sink: (&Sink, Option<&QueuePair<Rts>>)) -> u32 {
        self.stage(index, sink)
    }

    /// Bytes of the message behind the header, where they lie in the first buffer.
    #[inline]
    pub(super) fn read<const N: usize>(&self, index: u16, offset: u32) -> Option<[u8; N]> {
        let first = self.records[usize::from(index)].sges.get(1)?;
        // SAFETY: a posted buffer, whose receive is complete and which was not reported yet.
        unsafe { read_at(first, offset) }
    }

    /// A completed receive holds `length` bytes for the stack: reports the filled buffers and
    /// posts the others again with fresh ones. Returns how many receives were posted.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        index: u16,
        length: u32,
        sink: (&Sink, Option<&QueuePair<Rts>>),
    ) -> u32 {
        let record = &mut self.records[usize::from(index)];
        let mut left = length;
        let mut filled = 0;
        for (id, sge) in record.ids.iter().zip(&record.sges[1..]) {
            let byte_len = left.min(sge.length);
            left -= byte_len;
            filled += 1;
            self.done.push_back(Completion {
                wr_id: *id,
                status: WcStatus::Success,
                byte_len,
                more: left > 0,
                checksum: WcChecksum::Unknown,
            });
            if left == 0 {
                break;
            }
        }
        for at in 0..filled {
            match self.free.pop_front() {
                Some((id, sge)) => {
                    record.ids[at] = id;
                    record.sges[at + 1] = sge;
                }
                None => {
                    record.ids.drain(at..filled);
                    record.sges.drain(at + 1..=filled);
                    self.empty(index);
                    return 0;
                }
            }
        }
        // Buffers of another length may make it too short, or longer than needed.
        if self.fill(index) { self.stage(index, sink) } else { 0 }
    }

    /// The queue is gone, and nothing is with the device any more.
    pub(super) fn take_back(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.list.clear();
        for index in 0..self.plan.receives {
            if self.records[usize::from(index)].posted {
                self.empty(index);
            }
        }
    }

    /// Whether completions wait to be taken.
    #[inline]
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Takes completions.
    #[inline]
    pub(super) fn take(&mut self, out: &mut [Completion]) -> usize {
        let count = out.len().min(self.done.len());
        for (place, completion) in out.iter_mut().zip(self.done.drain(..count)) {
            *place = completion;
        }
        count
    }

    /// Everything comes back in error: the device is gone.
    pub(super) fn fail_all(&mut self) {
        self.take_back();
        for (wr_id, _) in self.free.drain(..) {
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
