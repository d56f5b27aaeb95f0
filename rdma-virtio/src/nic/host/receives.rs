//! Posted receives, held as one contiguous run of iovecs, so that a message can be read or copied
//! across as many of them as it needs.
//!
//! Never touches a buffer that is not posted. Invariants: `vectors[head..tail]` are the posted
//! ranges in posting order, each inside a region registered for writing; `room` is their sum;
//! posted and finished receives together are at most `max_wr`.

use std::collections::VecDeque;

use super::super::regions::{Access, Regions};
use super::super::{Completion, PostError, RecvWr, WcChecksum, WcStatus};
use super::IoVec;

/// Elements of one receive: a 64 KB message in pages, its headers apart.
pub(in super::super) const RECV_SGE_MAX: u16 = 20;

#[derive(Clone, Copy, Debug)]
struct Posted {
    wr_id: u64,
    vectors: usize,
    room: u32,
}

/// The receive queue and its completions.
#[derive(Debug)]
pub(in super::super) struct Receives {
    vectors: Box<[IoVec]>,
    head: usize,
    tail: usize,
    posted: VecDeque<Posted>,
    room: usize,
    done: VecDeque<Completion>,
    max_wr: usize,
}

impl Receives {
    /// A queue of `max_wr` receives, of four elements each on average.
    pub(in super::super) fn new(max_wr: u32) -> Self {
        let max_wr = usize::try_from(max_wr).unwrap_or(usize::MAX);
        // Twice what may be posted, so that moving the run back to the front is rare; one more for
        // the element that a reader appends.
        let vectors = vec![IoVec::default(); 8 * max_wr + 1].into_boxed_slice();
        Self {
            vectors,
            head: 0,
            tail: 0,
            posted: VecDeque::with_capacity(max_wr),
            room: 0,
            done: VecDeque::with_capacity(max_wr),
            max_wr,
        }
    }

    /// Posts one receive.
    #[inline]
    fn post(&mut self, wr: &RecvWr<'_>, regions: &Regions) -> Result<(), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > usize::from(RECV_SGE_MAX) {
            return Err(PostError::SgeCount);
        }
        let live = self.tail - self.head + wr.sges.len();
        if self.posted.len() + self.done.len() >= self.max_wr || live > 4 * self.max_wr {
            return Err(PostError::QueueFull);
        }
        if self.tail + wr.sges.len() >= self.vectors.len() {
            self.vectors.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        let mut tail = self.tail;
        let mut room = 0_u32;
        for sge in wr.sges {
            regions.check(sge, Access::Write)?;
            let base = usize::try_from(sge.addr).map_err(|_| PostError::OutOfBounds)?;
            let len = usize::try_from(sge.length).map_err(|_| PostError::OutOfBounds)?;
            self.vectors[tail] = IoVec { base, len };
            tail += 1;
            room = room.checked_add(sge.length).ok_or(PostError::TooLong)?;
        }
        if room == 0 {
            return Err(PostError::SgeCount);
        }
        self.posted.push_back(Posted { wr_id: wr.wr_id, vectors: tail - self.tail, room });
        self.tail = tail;
        self.room += usize::try_from(room).unwrap_or(0);
        Ok(())
    }

    /// Posts receives in order; see [`super::super::Nic::post_recv`].
    #[inline]
    pub(in super::super) fn post_all(
        &mut self,
        wrs: &[RecvWr<'_>],
        regions: &Regions,
    ) -> Result<usize, PostError> {
        for (index, wr) in wrs.iter().enumerate() {
            match self.post(wr, regions) {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(_) => return Ok(index),
            }
        }
        Ok(wrs.len())
    }

    /// Bytes that all posted receives hold.
    #[inline]
    pub(in super::super) fn room(&self) -> usize {
        self.room
    }

    /// Whether completions wait to be taken.
    #[inline]
    pub(in super::super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Calls `read` with the first posted ranges, as many as hold `want` bytes, and `extra` behind
    /// them; returns its result and the bytes that the posted ranges of the call hold.
    #[inline]
    pub(in super::super) fn with_window<R>(
        &mut self,
        want: usize,
        extra: IoVec,
        read: impl FnOnce(&[IoVec]) -> R,
    ) -> (R, usize) {
        let mut room = 0;
        let mut end = self.head;
        let limit = self.tail.min(self.head + super::VECTORS_MAX - 1);
        while end < limit && room < want {
            room += self.vectors[end].len;
            end += 1;
        }
        let kept = std::mem::replace(&mut self.vectors[end], extra);
        let result = read(&self.vectors[self.head..=end]);
        self.vectors[end] = kept;
        (result, room)
    }

    /// Copies `length` bytes from `source` into the posted ranges, `skip` bytes from their start.
    ///
    /// # Safety
    /// `source` is readable for `length` bytes and overlaps no posted range.
    ///
    /// # Panics
    /// If the posted ranges are shorter than `skip + length`.
    #[inline]
    pub(in super::super) unsafe fn scatter(&self, skip: usize, source: *const u8, length: usize) {
        self.walk(skip, length, |range, moved, take| {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(range);
            // SAFETY: `moved` is below `length`, for which the caller vouches.
            let from = unsafe { source.add(moved) };
            // SAFETY: the range was checked against its region when it was posted, `take` stays in
            // it, and the caller vouches for the source.
            unsafe { std::ptr::copy_nonoverlapping(from, to, take) };
        });
    }

    /// Copies the first bytes of the posted ranges to `target`.
    ///
    /// # Panics
    /// If the posted ranges are shorter than `target`.
    pub(in super::super) fn gather(&self, target: &mut [u8]) {
        let length = target.len();
        self.walk(0, length, |range, moved, take| {
            let from = std::ptr::with_exposed_provenance::<u8>(range);
            let to = target[moved..moved + take].as_mut_ptr();
            // SAFETY: the range was checked against its region when it was posted, `take` stays in
            // it, and `to` is a slice of `take` bytes of our own.
            unsafe { std::ptr::copy_nonoverlapping(from, to, take) };
        });
    }

    /// Calls `each` with address, bytes moved before, and bytes of this step.
    #[inline]
    fn walk(&self, skip: usize, length: usize, mut each: impl FnMut(usize, usize, usize)) {
        let mut skip = skip;
        let mut moved = 0;
        let mut index = self.head;
        while moved < length {
            assert!(index < self.tail, "a message was put into too few receives");
            let vector = self.vectors[index];
            index += 1;
            if skip >= vector.len {
                skip -= vector.len;
                continue;
            }
            let take = (vector.len - skip).min(length - moved);
            each(vector.base + skip, moved, take);
            moved += take;
            skip = 0;
        }
    }

    /// Completes the first receives with a message of `length` bytes that lies in them.
    #[inline]
    pub(in super::super) fn complete(&mut self, length: usize) {
        let mut rest = u32::try_from(length).unwrap_or(u32::MAX);
        while let Some(first) = self.posted.pop_front() {
            self.forget(first);
            let byte_len = rest.min(first.room);
            rest -= byte_len;
            self.done.push_back(Completion {
                wr_id: first.wr_id,
                status: WcStatus::Success,
                byte_len,
                more: rest > 0,
                checksum: WcChecksum::Unknown,
            });
            if rest == 0 {
                break;
            }
        }
    }

    fn forget(&mut self, first: Posted) {
        self.head += first.vectors;
        self.room -= usize::try_from(first.room).unwrap_or(0);
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Completes all posted receives as flushed.
    pub(in super::super) fn flush(&mut self) {
        while let Some(first) = self.posted.pop_front() {
            self.forget(first);
            self.done.push_back(Completion {
                wr_id: first.wr_id,
                status: WcStatus::Flushed,
                byte_len: 0,
                more: false,
                checksum: WcChecksum::Unknown,
            });
        }
    }

    /// Moves completions to `out`, from `taken` on; returns how many there are in it now.
    #[inline]
    pub(in super::super) fn take(&mut self, out: &mut [Completion], taken: usize) -> usize {
        take(&mut self.done, out, taken)
    }
}

/// Moves completions from a queue to `out`, from `taken` on.
#[inline]
pub(in super::super) fn take(
    done: &mut VecDeque<Completion>,
    out: &mut [Completion],
    mut taken: usize,
) -> usize {
    while taken < out.len() {
        let Some(next) = done.pop_front() else { break };
        out[taken] = next;
        taken += 1;
    }
    taken
}
