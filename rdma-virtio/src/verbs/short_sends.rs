//! Short sends that are copied into memory of their own, where all stands already that is the same
//! for each.
//!
//! Owns requests, elements and bytes; nothing is allocated after they were made. Invariant: the
//! places before `next` are in the list's chain, and a place names its own element and bytes for
//! ever.

use super::array::Array;
use super::sys::{self, Zero};
use super::work_list::Destination;
use crate::nic::Sge;
use std::hint::assert_unchecked;
use std::ptr;

/// Most bytes of a send that is copied.
pub const COPY_MAX: usize = 256;

/// A send with its one element and its bytes.
#[derive(Clone)]
#[repr(C, align(64))]
struct ShortSend {
    /// Comes first, so that a pointer to it is one to the whole.
    request: sys::ibv_send_wr,
    sge: sys::ibv_sge,
    bytes: [u8; COPY_MAX],
}

/// Short sends of a list.
pub(super) struct ShortSends {
    places: Array<ShortSend>,
    next: *mut ShortSend,
    end: *mut ShortSend,
}

impl ShortSends {
    pub(super) fn new(count: usize) -> ShortSends {
        let request =
            sys::ibv_send_wr { num_sge: 1, opcode: sys::IBV_WR_SEND, ..sys::ibv_send_wr::zero() };
        let empty = ShortSend { request, sge: sys::ibv_sge::zero(), bytes: [0; COPY_MAX] };
        let places = Array::new(empty, count);
        for at in 0..count {
            let place = places.at(at);
            // SAFETY: of the array, which was made just now.
            let bytes = unsafe { &raw mut (*place).bytes };
            let addr = u64::try_from(bytes.expose_provenance()).unwrap_or(0);
            // SAFETY: the same.
            unsafe { (*place).sge.addr = addr };
            // SAFETY: the same.
            let sge = unsafe { &raw mut (*place).sge };
            // SAFETY: the same.
            unsafe { (*place).request.sg_list = sge };
        }
        let (next, end) = (places.at(0), places.at(count));
        ShortSends { places, next, end }
    }

    /// All places are free.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.next = self.places.place(0);
    }

    /// Fills the next place with an inline send of a header and a message; returns its request,
    /// which is to be chained. Nothing if there is no room: no header was asked for then.
    ///
    /// # Safety
    /// `message` names readable bytes of this process that nobody writes during the call, of the
    /// quick length if there is one.
    #[inline(always)]
    pub(super) unsafe fn fill<'d, const N: usize>(
        &mut self,
        (wr_id, signalled): (u64, bool),
        header: impl FnOnce(&mut [u8; N]),
        (message, quick): (&Sge, Option<QuickLength>),
        destination: impl FnOnce() -> Option<Destination<'d>>,
    ) -> Option<*mut sys::ibv_send_wr> {
        const { assert!(N + QUICK_TO as usize <= COPY_MAX) };
        let length = quick.map_or(message.length as usize, QuickLength::bytes);
        let fits = quick.is_some() || N + length <= COPY_MAX;
        if ptr::eq(self.next, self.end) || !fits {
            return None;
        }
        // SAFETY: of the array, of which `&mut self` is the only user.
        let place = unsafe { &mut *self.next };
        place.request.wr_id = wr_id;
        place.request.send_flags = if signalled {
            sys::IBV_SEND_INLINE | sys::IBV_SEND_SIGNALED
        } else {
            sys::IBV_SEND_INLINE
        };
        if let Some(to) = destination() {
            place.request.wr.ud.ah = to.handle.as_ptr();
            place.request.wr.ud.remote_qpn = to.queue_pair;
            place.request.wr.ud.remote_qkey = to.qkey;
        }
        place.sge.length = u32::try_from(N).unwrap_or(0) + message.length;
        let to: *mut u8 = place.bytes.as_mut_ptr();
        // SAFETY: the place has bytes for a header and the longest message.
        header(unsafe { &mut *to.cast::<[u8; N]>() });
        let from = ptr::with_exposed_provenance(usize::try_from(message.addr).unwrap_or(0));
        match quick {
            // SAFETY: as above; the caller vouches for what is read.
            Some(length) => unsafe { copy_quick(from, to.wrapping_add(N), length) },
            // SAFETY: the same.
            None => unsafe { ptr::copy_nonoverlapping(from, to.wrapping_add(N), length) },
        }
        let request = self.next.cast();
        self.next = self.next.wrapping_add(1);
        Some(request)
    }
}

/// From so many bytes to so many are copied without a call: the usual lengths of small frames.
const QUICK_FROM: u32 = 64;
const QUICK_TO: u32 = 128;

/// Lengths that are copied without a call, up to some length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuickLengths {
    /// How many, from [`QUICK_FROM`] on; none of them is above [`QUICK_TO`].
    count: u32,
}

/// A length that is copied without a call: from `QUICK_FROM` to `QUICK_TO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuickLength(u32);

impl QuickLengths {
    /// Those that are at most `max`.
    #[must_use]
    pub fn up_to(max: u32) -> QuickLengths {
        QuickLengths { count: (max.min(QUICK_TO) + 1).saturating_sub(QUICK_FROM) }
    }

    /// This length, if it is one of them.
    #[must_use]
    #[inline(always)]
    pub fn find(self, length: u32) -> Option<QuickLength> {
        (length.wrapping_sub(QUICK_FROM) < self.count).then_some(QuickLength(length))
    }
}

impl QuickLength {
    /// In bytes.
    #[must_use]
    #[inline(always)]
    fn bytes(self) -> usize {
        // SAFETY: only `QuickLengths::find` makes one.
        unsafe { assert_unchecked(QUICK_FROM <= self.0 && self.0 <= QUICK_TO) };
        self.0 as usize
    }
}

/// Copies in two pieces that may overlap, the second one half as long if that is enough.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy_quick(from: *const u8, to: *mut u8, length: QuickLength) {
    const PIECE: usize = QUICK_FROM as usize;
    // SAFETY: as the caller promised; the first ones of at least as many bytes.
    unsafe { ptr::copy_nonoverlapping(from, to, PIECE) };
    let length = length.bytes();
    let rest = length - PIECE / 2;
    if rest <= PIECE {
        let (from, to) = (from.wrapping_add(rest), to.wrapping_add(rest));
        // SAFETY: as the caller promised; the last ones of at least as many bytes.
        return unsafe { ptr::copy_nonoverlapping(from, to, PIECE / 2) };
    }
    let (from, to) = (from.wrapping_add(length - PIECE), to.wrapping_add(length - PIECE));
    // SAFETY: the same.
    unsafe { ptr::copy_nonoverlapping(from, to, PIECE) };
}
