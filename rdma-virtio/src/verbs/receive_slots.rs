//! Receives that keep their elements: of one that completed, the elements that were filled are
//! changed, and it is posted again.
//!
//! Owns the arrays that the requests and their elements lie in; nothing is allocated after they
//! were made. Invariants: a request names its own part of the element array for ever; those that
//! are staged are one chain that ends, each of them once, in the order in which they were staged.

use std::ptr::NonNull;

use super::array::Array;
use super::chain::Chain;
use super::sys::{self, Zero};
use super::work_list::PostFailure;
use crate::nic::{Lkey, Sge};

/// The id of none: its lower half is no receive's number.
const NOBODY: u64 = u64::MAX;
/// An id's upper quarter counts how often the receive came back, so that a completion that comes
/// twice is not taken for the next one's.
const ONCE: u64 = 1 << 48;

/// A receive, and what its owner notes with it.
#[derive(Clone)]
#[repr(C, align(64))]
struct Slot {
    /// Comes first, so that a pointer to it is one to the slot.
    request: sys::ibv_recv_wr,
    note: u64,
    /// Whether it was staged, and did not complete since.
    is_out: bool,
}

/// Receives by number.
pub struct ReceiveSlots {
    slots: Array<Slot>,
    sges: Array<sys::ibv_sge>,
    sges_each: usize,
    /// Those that are staged.
    staged: Chain<sys::ibv_recv_wr>,
    /// The completed one that [`PostedSlot::lend`] put aside, or that was staged at once.
    lent: Option<NonNull<Slot>>,
}

// SAFETY: the pointers in the requests lead into the slots' own arrays, which go with them.
unsafe impl Send for ReceiveSlots {}

impl ReceiveSlots {
    /// So many receives of at most so many elements each, two at least, none of which has any.
    #[must_use]
    pub fn new(receives: usize, sges_each: usize) -> ReceiveSlots {
        let count = receives.checked_mul(sges_each).expect("a list that fits into memory");
        let sges = Array::new(sys::ibv_sge::zero(), count);
        assert!(sges_each > 1, "a receive has a second element");
        let request = sys::ibv_recv_wr { wr_id: NOBODY, ..sys::ibv_recv_wr::zero() };
        let empty = Slot { request, note: 0, is_out: false };
        let mut slots = Array::new(empty.clone(), receives);
        for slot in 0..receives {
            let sg_list = sges.at(slot * sges_each);
            let request = sys::ibv_recv_wr { sg_list, ..empty.request };
            slots.write(slot, Slot { request, ..empty });
        }
        ReceiveSlots { slots, sges, sges_each, staged: Chain::new(), lent: None }
    }

    #[inline]
    fn place(&self, slot: u16, place: usize) -> usize {
        assert!(place < self.sges_each, "an element of a receive");
        usize::from(slot) * self.sges_each + place
    }

    #[inline]
    fn slot(&self, slot: usize) -> *mut Slot {
        assert!(slot < self.slots.len, "a receive");
        self.slots.at(slot)
    }

    #[inline]
    fn request(&self, slot: usize) -> *mut sys::ibv_recv_wr {
        self.slot(slot).cast()
    }

    #[inline]
    fn slot_mut(&mut self, slot: u16) -> &mut Slot {
        // SAFETY: within the array, of which `&mut self` is the only user.
        unsafe { &mut *self.slot(usize::from(slot)) }
    }

    /// A note of the owner's, 0 at first.
    #[must_use]
    #[inline]
    pub fn note(&self, slot: u16) -> u64 {
        // SAFETY: within the array, of which this is the only user.
        unsafe { (*self.slot(usize::from(slot))).note }
    }

    /// Changes it.
    #[inline]
    pub fn set_note(&mut self, slot: u16, note: u64) {
        self.slot_mut(slot).note = note;
    }

    /// The receive that was posted under this id, if it did not complete before.
    #[must_use]
    #[inline(always)]
    pub fn posted(&mut self, wr_id: u64) -> Option<PostedSlot<'_>> {
        let number = usize::try_from(wr_id & 0xffff_ffff).ok()?;
        if number >= self.slots.len {
            return None;
        }
        let at = self.slot(number);
        // SAFETY: within the array, of which `&mut self` is the only user.
        let is_posted = unsafe { (*at).request.wr_id } == wr_id;
        is_posted.then_some(PostedSlot { slots: self, at })
    }

    /// The receive that was lent, once.
    #[must_use]
    #[inline(always)]
    pub fn take_lent(&mut self) -> Option<PostedSlot<'_>> {
        let at = self.lent.take()?.as_ptr();
        Some(PostedSlot { slots: self, at })
    }

    /// Whether one is lent.
    #[must_use]
    pub fn has_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// The one that [`PostedSlot::stage_lent`] staged stays as it is.
    #[inline(always)]
    pub fn settle_lent(&mut self) {
        self.lent = None;
    }

    /// Whether it was staged, and did not complete since.
    #[must_use]
    pub fn is_out(&self, slot: u16) -> bool {
        // SAFETY: within the array, of which this is the only user.
        unsafe { (*self.slot(usize::from(slot))).is_out }
    }

    /// It has completed, or came back.
    #[inline]
    pub fn set_in(&mut self, slot: u16) {
        let slot = self.slot_mut(slot);
        slot.request.wr_id = slot.request.wr_id.wrapping_add(ONCE);
        slot.is_out = false;
    }

    /// What its second element is.
    #[must_use]
    #[inline]
    pub fn second(&self, slot: u16) -> Sge {
        // SAFETY: within the array, of which this is the only user.
        let sges = unsafe { (*self.slot(usize::from(slot))).request.sg_list };
        // SAFETY: each request has more than one element, of which this is the only user.
        let sys::ibv_sge { addr, length, lkey } = unsafe { sges.wrapping_add(1).read() };
        Sge { addr, length, lkey: Lkey(lkey) }
    }

    /// Says what an element is. The receive is neither staged nor posted.
    #[inline]
    pub fn set(&mut self, slot: u16, place: usize, sge: Sge) {
        let at = self.place(slot, place);
        let Sge { addr, length, lkey } = sge;
        self.sges.write(at, sys::ibv_sge { addr, length, lkey: lkey.0 });
    }

    /// What an element is.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: u16, place: usize) -> Sge {
        let at = self.sges.at(self.place(slot, place));
        // SAFETY: within the array, of which this is the only user; written when it was made.
        let sys::ibv_sge { addr, length, lkey } = unsafe { at.read() };
        Sge { addr, length, lkey: Lkey(lkey) }
    }

    /// Says how many elements a receive has, from its first on.
    pub fn set_count(&mut self, slot: u16, count: usize) {
        assert!(count <= self.sges_each, "elements of a receive");
        let count = i32::try_from(count).unwrap_or(0);
        // SAFETY: within the array, of which `&mut self` is the only user.
        unsafe { (*self.request(usize::from(slot))).num_sge = count };
    }

    /// Appends a receive to those that will be posted. It is not staged yet. Its id will be its
    /// number, and above it `generation`, and how often it came back.
    #[inline]
    pub fn stage(&mut self, slot: u16, generation: u16) {
        let staged = self.slot_mut(slot);
        let uses = staged.request.wr_id.wrapping_add(ONCE) & !(ONCE - 1);
        staged.request.wr_id = uses | u64::from(generation) << 32 | u64::from(slot);
        staged.is_out = true;
        let request = &raw mut staged.request;
        self.chain(request);
    }

    /// This is the last request of the chain from now on.
    #[inline(always)]
    fn chain(&mut self, request: *mut sys::ibv_recv_wr) {
        // SAFETY: of the array, which goes with the chain; staged once until it is posted.
        unsafe { self.staged.append(request) };
    }

    /// Receives that are staged.
    #[must_use]
    #[inline]
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Takes a staged receive out of those that will be posted, the first one first.
    pub fn unstage(&mut self) -> Option<u16> {
        let request = self.staged.take_first()?;
        u16::try_from(self.slot_of(request)).ok()
    }

    fn slot_of(&self, request: *mut sys::ibv_recv_wr) -> usize {
        request.addr().wrapping_sub(self.slots.at(0).addr()) / size_of::<Slot>()
    }

    /// Says what the second element of the receive is that [`PostedSlot::stage_lent`] staged, and
    /// notes something with it: its bytes are somebody else's now. False if there is none.
    #[inline]
    pub fn exchange_lent(&mut self, second: Sge, note: u64) -> bool {
        let Some(slot) = self.take_lent() else { return false };
        slot.exchange(second, note);
        true
    }

    /// Posts what is staged to a queue pair; says how many that were.
    #[inline]
    pub(super) fn post(&mut self, qp: NonNull<sys::ibv_qp>) -> Result<usize, PostFailure> {
        // SAFETY: the queue pair lives; the chain ends, and what it points at is the slots' own.
        self.staged.post(|head, bad| unsafe { sys::ibv_post_recv(qp.as_ptr(), head, bad) })
    }

    /// Posts what is staged to a shared receive queue; says how many that were.
    #[inline]
    pub(super) fn post_shared(&mut self, srq: NonNull<sys::ibv_srq>) -> Result<usize, PostFailure> {
        // SAFETY: the queue lives; the chain ends, and what it points at is the slots' own.
        self.staged.post(|head, bad| unsafe { sys::ibv_post_srq_recv(srq.as_ptr(), head, bad) })
    }
}

/// A receive that is with the device, or was until it completed.
pub struct PostedSlot<'a> {
    slots: &'a mut ReceiveSlots,
    /// Its place in the array.
    at: *mut Slot,
}

impl PostedSlot<'_> {
    /// Its number.
    #[must_use]
    #[inline(always)]
    pub fn number(&self) -> usize {
        // SAFETY: of the array, which is borrowed.
        let id = unsafe { (*self.at).request.wr_id };
        usize::try_from(id & u64::from(u32::MAX)).unwrap_or(usize::MAX)
    }

    /// Puts it aside, for [`ReceiveSlots::take_lent`].
    #[inline(always)]
    pub fn lend(self) {
        self.slots.lent = NonNull::new(self.at);
    }

    #[inline(always)]
    fn second_at(&self) -> *mut sys::ibv_sge {
        // SAFETY: of the array, which is borrowed.
        unsafe { (*self.at).request.sg_list }.wrapping_add(1)
    }

    /// What its second element is.
    #[must_use]
    #[inline(always)]
    pub fn second(&self) -> Sge {
        // SAFETY: each request has more than one element; they are borrowed with the array.
        let sys::ibv_sge { addr, length, lkey } = unsafe { self.second_at().read() };
        Sge { addr, length, lkey: Lkey(lkey) }
    }

    /// What was noted with it.
    #[must_use]
    #[inline(always)]
    pub fn note(&self) -> u64 {
        // SAFETY: of the array, which is borrowed.
        unsafe { (*self.at).note }
    }

    /// Says what its second element is, and notes something.
    #[inline(always)]
    fn exchange(self, second: Sge, note: u64) {
        let Sge { addr, length, lkey } = second;
        // SAFETY: as for `second`.
        unsafe { self.second_at().write(sys::ibv_sge { addr, length, lkey: lkey.0 }) };
        // SAFETY: of the array, which is borrowed.
        unsafe { (*self.at).note = note };
    }

    /// As [`PostedSlot::stage`]; [`ReceiveSlots::exchange_lent`] or [`ReceiveSlots::settle_lent`]
    /// follows before it is posted.
    #[inline(always)]
    pub fn stage_lent(self) {
        self.slots.lent = NonNull::new(self.at);
        self.stage();
    }

    /// Appends it, which has completed, to those that will be posted, as it is.
    #[inline(always)]
    pub fn stage(self) {
        // SAFETY: of the array, which is borrowed.
        let request = unsafe { &mut (*self.at).request };
        request.wr_id = request.wr_id.wrapping_add(ONCE);
        self.slots.chain(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sge(addr: u64) -> Sge {
        Sge { addr, length: 4096, lkey: Lkey(7) }
    }

    /// Reads a chain as the library does: ids and addresses.
    fn read(mut at: *mut sys::ibv_recv_wr) -> Vec<(u64, Vec<u64>)> {
        let mut found = Vec::new();
        // SAFETY: a chain of the slots; it ends with null.
        while let Some(wr) = unsafe { at.as_ref() } {
            let count = usize::try_from(wr.num_sge).unwrap();
            // SAFETY: as many elements as the request says.
            let sges = unsafe { std::slice::from_raw_parts(wr.sg_list, count) };
            found.push((wr.wr_id, sges.iter().map(|sge| sge.addr).collect()));
            at = wr.next;
        }
        found
    }

    fn three() -> ReceiveSlots {
        let mut slots = ReceiveSlots::new(3, 2);
        for slot in 0..3_u16 {
            slots.set(slot, 0, sge(100 * u64::from(slot)));
            slots.set(slot, 1, sge(100 * u64::from(slot) + 1));
            slots.set_count(slot, 2);
        }
        slots
    }

    #[test]
    fn a_changed_element_is_all_that_changes_when_a_receive_is_posted_again() {
        let mut slots = three();
        for slot in [2, 0, 1] {
            slots.stage(slot, 7);
        }
        let mut seen = Vec::new();
        let posted = slots.staged.post(|head, _| {
            seen = read(head);
            0
        });
        assert_eq!(posted, Ok(3));
        let id = |slot: u64| 7 << 32 | slot;
        let expected = [(id(2), vec![200, 201]), (id(0), vec![0, 1]), (id(1), vec![100, 101])];
        assert_eq!(seen, expected);
        let number = |slots: &mut ReceiveSlots, id| slots.posted(id).map(|slot| slot.number());
        let found = [id(0), 0, 8 << 32, id(3)].map(|id| number(&mut slots, id));
        assert_eq!(found, [Some(0), None, None, None]);
        slots.set_in(0);
        assert_eq!(
            (number(&mut slots, id(0)), slots.is_out(0), slots.is_out(1)),
            (None, false, true)
        );
        assert_eq!(slots.posted(id(1)).unwrap().second(), sge(101));
        assert!(slots.take_lent().is_none(), "nothing was");
        slots.posted(id(1)).unwrap().lend();
        slots.take_lent().unwrap().stage_lent();
        assert!(slots.exchange_lent(sge(9), 77));
        assert!(!slots.exchange_lent(sge(8), 78), "once");
        assert_eq!(number(&mut slots, id(1)), None, "its completion came");
        assert_eq!((slots.second(1), slots.get(1, 1), slots.note(1)), (sge(9), sge(9), 77));
        assert_eq!(slots.staged(), 1);
        let posted = slots.staged.post(|head, _| {
            seen = read(head);
            0
        });
        assert_eq!((posted, &seen[..]), (Ok(1), &[(ONCE | id(1), vec![100, 9])][..]));
        assert_eq!(number(&mut slots, ONCE | id(1)), Some(1));
        slots.stage(0, 8);
        let posted = slots.staged.post(|head, _| {
            seen = read(head);
            0
        });
        let id = (2 * ONCE) | (8 << 32);
        assert_eq!((posted, &seen[..]), (Ok(1), &[(id, vec![0, 1])][..]), "back twice, and new");
        assert_eq!(slots.staged.post(|_, _| panic!("nothing is staged")), Ok(0));
    }

    #[test]
    fn what_was_not_posted_stays_staged_in_order() {
        let mut slots = three();
        for slot in [1, 2, 0] {
            slots.stage(slot, 0);
        }
        let second = slots.request(2);
        let failure = slots.staged.post(|_, bad| {
            *bad = second;
            libc::ENOMEM
        });
        assert_eq!(failure, Err(PostFailure { posted: 1, errno: libc::ENOMEM }));
        assert_eq!([slots.unstage(), slots.unstage(), slots.unstage()], [Some(2), Some(0), None]);
        slots.stage(0, 0);
        // A library that names no request of ours: nothing is said to stay.
        let failure = slots.staged.post(|_, _| libc::EIO);
        assert_eq!(failure, Err(PostFailure { posted: 1, errno: libc::EIO }));
        assert_eq!(slots.staged(), 0);
    }
}
