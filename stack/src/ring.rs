//! A queue over a power-of-two buffer that grows on demand: what `VecDeque` does, with the few
//! operations that the hot path needs and an index that is masked, not compared.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// A first-in, first-out queue of small values.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    /// A power of two of them, below 2^32.
    slots: Box<[T]>,
    head: u32,
    len: u32,
}

impl<T> Default for Ring<T> {
    fn default() -> Ring<T> {
        Ring { slots: Box::default(), head: 0, len: 0 }
    }
}

impl<T: Copy> Ring<T> {
    /// Number of values.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn place(&self, at: usize) -> usize {
        (self.head as usize).wrapping_add(at) & self.slots.len().wrapping_sub(1)
    }

    /// The value at `at`, counted from the front.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        if at < self.len() { self.slots.get(self.place(at)) } else { None }
    }

    /// The value at `at`, counted from the front.
    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let place = self.place(at);
        if at < self.len() { self.slots.get_mut(place) } else { None }
    }

    /// The first value.
    #[inline]
    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.get_mut(0)
    }

    /// The last value.
    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.get_mut(self.len().wrapping_sub(1))
    }

    /// Appends a value. Allocates only when the queue was never as long before.
    #[inline(always)]
    pub(crate) fn push_back(&mut self, value: T) {
        if self.len() == self.slots.len() {
            self.grow(value);
        }
        let place = self.place(self.len());
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = value;
            self.len += 1;
        }
    }

    /// Takes the first value out.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let value = self.slots.get(self.place(0)).copied();
        self.head = self.head.wrapping_add(1);
        self.len -= 1;
        value
    }

    /// Appends several values at once, as [`Ring::push_back`] does one.
    #[inline(always)]
    pub(crate) fn extend(&mut self, values: impl ExactSizeIterator<Item = T> + Clone) {
        let more = values.len();
        while self.slots.len() - self.len() < more {
            let Some(filler) = values.clone().next() else { return };
            self.grow(filler);
        }
        let mask = self.slots.len().wrapping_sub(1);
        let mut place = self.place(self.len());
        let mut added = 0;
        for value in values {
            // Masked, so it is one.
            let Some(slot) = self.slots.get_mut(place) else { break };
            *slot = value;
            place = place.wrapping_add(1) & mask;
            added += 1;
        }
        self.len += added;
    }

    /// The first values, as many as lie one behind the other: all, or up to the buffer's end.
    #[inline(always)]
    pub(crate) fn front_run(&self) -> &[T] {
        let first = self.place(0);
        let end = (first + self.len()).min(self.slots.len());
        self.slots.get(first..end).unwrap_or(&[])
    }

    /// Drops so many first values, which exist.
    #[inline(always)]
    pub(crate) fn drop_front(&mut self, count: u32) {
        debug_assert!(self.len >= count, "only of a queue with values");
        self.head = self.head.wrapping_add(count);
        self.len = self.len.saturating_sub(count);
    }

    /// Puts a value before the first one.
    pub(crate) fn push_front(&mut self, value: T) {
        if self.len() == self.slots.len() {
            self.grow(value);
        }
        self.head = self.head.wrapping_sub(1);
        self.len += 1;
        let place = self.place(0);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = value;
        }
    }

    /// All values, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Twice the room; `filler` is any value, for the slots that hold none.
    #[cold]
    fn grow(&mut self, filler: T) {
        let room = (self.slots.len() * 2).max(4);
        let mut slots: Vec<T> = Vec::with_capacity(room);
        slots.extend(self.iter().copied());
        slots.resize(room, filler);
        self.head = 0;
        self.slots = slots.into_boxed_slice();
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_ring_is_a_vec_deque(steps in proptest::collection::vec(0u8..6, 0..400)) {
            let mut ring = Ring::default();
            let mut model = VecDeque::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => { ring.push_back(n); model.push_back(n); }
                    2 => prop_assert_eq!(ring.pop_front(), model.pop_front()),
                    3 => { ring.push_front(n); model.push_front(n); }
                    4 => {
                        let values = n..n + n % 7;
                        ring.extend(values.clone());
                        model.extend(values);
                    }
                    _ => {
                        let run = ring.front_run().to_vec();
                        prop_assert!(run.iter().eq(model.iter().take(run.len())));
                        prop_assert!(!run.is_empty() || model.is_empty());
                        let dropped = run.len() / 2;
                        ring.drop_front(u32::try_from(dropped).unwrap());
                        model.drain(..dropped);
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert!(ring.iter().eq(model.iter()));
                prop_assert_eq!(ring.back_mut().copied(), model.back().copied());
            }
        }
    }
}
