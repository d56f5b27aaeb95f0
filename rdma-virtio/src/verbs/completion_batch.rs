//! Completions of one look at a queue, taken one after the other.
//!
//! Owns the array that they are polled into, which stays where it is. Invariant: as many
//! completions from `next` on as `left` says were written by the last poll and not taken yet.

use super::array::Array;
use super::completion::CompletionQueue;
use super::work_completion::WorkCompletion;

/// Completions taken at a time.
const BATCH: usize = 16;

/// The queue may have more than the last look took.
const MORE: u64 = 1 << 32;

/// Completions of one look at a queue.
pub struct CompletionBatch {
    entries: Array<WorkCompletion>,
    next: *const WorkCompletion,
    /// In its lower half, how many are left; above it [`MORE`] or nothing.
    left: u64,
    /// Whether a poll failed.
    failed: bool,
}

// SAFETY: the pointers lead into the batch's own array, which goes with it.
unsafe impl Send for CompletionBatch {}

impl Default for CompletionBatch {
    fn default() -> Self {
        let entries = Array::new(WorkCompletion::default(), BATCH);
        let next = entries.at(0).cast_const();
        CompletionBatch { entries, next, left: MORE, failed: false }
    }
}

/// The next completion of a batch: there is one.
pub struct Head<'a>(&'a mut CompletionBatch);

impl CompletionBatch {
    /// Whether nothing is left of the last look.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.left & (MORE - 1) == 0
    }

    /// Whether all was taken that the last look found, and the queue had no more then.
    #[must_use]
    #[inline(always)]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// The next completion of the last look, if one is left.
    #[must_use]
    #[inline(always)]
    pub fn head(&mut self) -> Option<Head<'_>> {
        if self.is_empty() { None } else { Some(Head(self)) }
    }

    /// Looks anew; what was left of the last look is lost. A failure is kept for
    /// [`CompletionBatch::take_failure`].
    #[must_use]
    #[inline(always)]
    pub fn poll(&mut self, queue: &CompletionQueue) -> Option<Head<'_>> {
        // SAFETY: the array has so many elements, and `&mut self` is its only user.
        match unsafe { queue.poll_into(self.entries.place(0), BATCH) } {
            Ok(found) => {
                self.next = self.entries.place(0).cast_const();
                self.left = u64::try_from(found.get()).unwrap_or(0);
                if found.get() == BATCH {
                    self.left |= MORE;
                }
                Some(Head(self))
            }
            Err(failure) => {
                self.failed |= failure.is_some();
                None
            }
        }
    }

    /// Whether a poll failed since this was asked last.
    #[must_use]
    pub fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.failed)
    }

    /// Takes the next completion.
    #[must_use]
    #[inline]
    pub fn pop(&mut self) -> Option<WorkCompletion> {
        let head = self.head()?;
        let completion = *head.completion();
        head.take();
        Some(completion)
    }

    /// Forgets what was not taken.
    pub fn clear(&mut self) {
        self.left = MORE;
    }
}

impl Head<'_> {
    /// What it says.
    #[must_use]
    #[inline(always)]
    pub fn completion(&self) -> &WorkCompletion {
        // SAFETY: of the array, which is borrowed; one of those that are left.
        unsafe { &*self.0.next }
    }

    /// It is taken.
    #[inline(always)]
    pub fn take(self) {
        self.0.next = self.0.next.wrapping_add(1);
        self.0.left -= 1;
    }
}
