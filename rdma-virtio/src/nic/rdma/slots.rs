//! Sends of the device half: each is one slot until all its copies are complete.
//!
//! Invariant: slots are reported in the order in which they were taken, as verbs have it, however
//! their copies complete on different queue pairs; one that was not to be signalled is reported
//! only if it failed.

use arrayvec::ArrayVec;

use super::lane::Done;
use crate::nic::{Sge, WcStatus};

/// Most elements of a message, the header of the wire not counted.
pub(super) const SEND_SGES_MAX: usize = 20;

#[derive(Clone, Debug)]
struct Slot {
    wr_id: u64,
    signalled: bool,
    copies: u16,
    status: WcStatus,
    length: u32,
    sges: ArrayVec<Sge, SEND_SGES_MAX>,
}

/// The slots, a ring.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    next: u32,
    oldest: u32,
    /// Slots with long messages.
    long: u32,
}

/// A message longer than this is worth a wake-up when it is complete.
const LONG: u32 = 1024;

impl Slots {
    pub(super) fn new(count: u16) -> Slots {
        let empty = Slot {
            wr_id: 0,
            signalled: false,
            copies: 0,
            status: WcStatus::Success,
            length: 0,
            sges: ArrayVec::new(),
        };
        let count = usize::from(count).next_power_of_two();
        Slots { slots: vec![empty; count].into_boxed_slice(), next: 0, oldest: 0, long: 0 }
    }

    #[inline]
    fn at(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or(0) & (self.slots.len() - 1)
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        usize::try_from(self.next.wrapping_sub(self.oldest)).unwrap_or(0) >= self.slots.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.next == self.oldest
    }

    /// Whether completions are worth waking up for: long messages, or many.
    pub(super) fn are_worth_waking(&self) -> bool {
        let taken = usize::try_from(self.next.wrapping_sub(self.oldest)).unwrap_or(0);
        self.long > 0 || taken > self.slots.len() / 4
    }

    /// Takes a slot, with no copy under way yet. There is one.
    #[inline]
    pub(super) fn take(&mut self, wr_id: u64, signalled: bool, sges: &[Sge], length: u32) -> u32 {
        let number = self.next;
        let at = self.at(number);
        let slot = &mut self.slots[at];
        slot.wr_id = wr_id;
        slot.signalled = signalled;
        slot.copies = 0;
        slot.status = WcStatus::Success;
        slot.length = length;
        slot.sges.clear();
        slot.sges.extend(sges.iter().take(SEND_SGES_MAX).copied());
        self.long += u32::from(length > LONG);
        self.next = number.wrapping_add(1);
        number
    }

    /// The completion of the newest slot is wanted after all. False if there is none.
    pub(super) fn signal_last(&mut self) -> bool {
        let (some, at) = (!self.is_empty(), self.at(self.next.wrapping_sub(1)));
        self.slots[at].signalled |= some;
        some
    }

    /// The message of a slot: elements, length, and whether its completion is wanted.
    #[inline]
    pub(super) fn message(&self, number: u32) -> (&[Sge], u32, bool) {
        let slot = &self.slots[self.at(number)];
        (&slot.sges, slot.length, slot.signalled)
    }

    /// A copy is under way, or waits.
    #[inline]
    pub(super) fn add_copy(&mut self, number: u32) {
        let at = self.at(number);
        self.slots[at].copies += 1;
    }

    /// A copy is complete. One that failed makes the whole fail.
    #[inline]
    pub(super) fn complete(&mut self, number: u32, status: WcStatus) {
        let at = self.at(number);
        let slot = &mut self.slots[at];
        slot.copies = slot.copies.saturating_sub(1);
        if status != WcStatus::Success {
            slot.status = status;
        }
    }

    /// The oldest slot, if it is complete and to be reported; those that are not are passed over.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Done> {
        while self.oldest != self.next {
            let slot = &self.slots[self.at(self.oldest)];
            if slot.copies != 0 {
                return None;
            }
            let (report, done) = (
                slot.signalled || slot.status != WcStatus::Success,
                Done { wr_id: slot.wr_id, status: slot.status },
            );
            self.long -= u32::from(slot.length > LONG);
            self.oldest = self.oldest.wrapping_add(1);
            if report {
                return Some(done);
            }
        }
        None
    }

    /// Whether [`Slots::pop`] has something.
    #[inline]
    pub(super) fn has_done(&self) -> bool {
        !self.is_empty() && self.slots[self.at(self.oldest)].copies == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reported_in_order_whatever_completes_first() {
        let mut slots = Slots::new(4);
        let sge = Sge { addr: 0, length: 60, lkey: crate::nic::Lkey(0) };
        let numbers: Vec<u32> = (0..4).map(|n| slots.take(n, n != 1, &[sge], 60)).collect();
        assert!(slots.is_full());
        for &number in &numbers {
            slots.add_copy(number);
        }
        slots.add_copy(numbers[0]);
        slots.complete(numbers[3], WcStatus::Success);
        slots.complete(numbers[2], WcStatus::RetryExceeded);
        slots.complete(numbers[1], WcStatus::Success);
        slots.complete(numbers[0], WcStatus::Success);
        assert!(slots.pop().is_none(), "a copy of the first is under way");
        slots.complete(numbers[0], WcStatus::Success);
        let mut ids = Vec::new();
        while let Some(done) = slots.pop() {
            ids.push((done.wr_id, done.status == WcStatus::Success));
        }
        assert_eq!(ids, [(0, true), (2, false), (3, true)]);
        assert!(slots.is_empty());
    }
}
