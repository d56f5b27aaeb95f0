//! The connections that may have something to send, in turn. The first one lies beside the ring:
//! mostly it is the only one.

use crate::ring::Ring;

/// The number of no connection: a table of 2^32 would not fit any memory.
const NONE: u32 = u32::MAX;

/// The queue. Each connection is in it at most once, which its `queued` says.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    first: u32,
    rest: Ring<u32>,
}

impl Default for ReadyQueue {
    fn default() -> ReadyQueue {
        ReadyQueue { first: NONE, rest: Ring::default() }
    }
}

impl ReadyQueue {
    /// Whether no connection waits.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// The connection whose turn it is.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<u32> {
        if self.first == NONE { None } else { Some(self.first) }
    }

    /// Behind all others.
    #[inline(always)]
    pub(super) fn push_back(&mut self, index: u32) {
        if self.first == NONE {
            self.first = index;
        } else {
            self.rest.push_back(index);
        }
    }

    /// Before all others.
    #[cold]
    pub(super) fn push_front(&mut self, index: u32) {
        if self.first != NONE {
            self.rest.push_front(self.first);
        }
        self.first = index;
    }

    /// Takes the connection whose turn it is.
    #[inline(always)]
    pub(super) fn pop_front(&mut self) -> Option<u32> {
        let first = self.front();
        self.first = if self.rest.is_empty() { NONE } else { self.next() };
        first
    }

    #[inline(never)]
    fn next(&mut self) -> u32 {
        self.rest.pop_front().unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::ReadyQueue;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec(0u8..4, 0..200)) {
            let mut queue = ReadyQueue::default();
            let mut model = VecDeque::new();
            for (index, step) in (0..).zip(steps) {
                match step {
                    0 | 1 => { queue.push_back(index); model.push_back(index); }
                    2 => prop_assert_eq!(queue.pop_front(), model.pop_front()),
                    _ => { queue.push_front(index); model.push_front(index); }
                }
                prop_assert_eq!(queue.front(), model.front().copied());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}
