//! Lists of work requests: built by the caller in memory made at start, posted with one call.
//!
//! Owns the arrays that `ibv_send_wr` and `ibv_recv_wr` lie in, but for short sends
//! (`short_sends`). Nothing is allocated after they were made. Invariants: what is in a list is one
//! chain that ends, each request pointing at its own part of the element array; what could not be
//! posted stays in the list.

use super::address::AddressHandle;
use super::array::Array;
use super::chain::{Chain, Linked};
use super::short_sends::ShortSends;
pub use super::short_sends::{COPY_MAX, QuickLength, QuickLengths};
use super::sys::{self, Zero};
use crate::nic::Sge;
use std::ptr;

/// A request was not taken into a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PushError {
    /// The list is full: post it first.
    #[error("the list of work requests is full")]
    Full,
    /// More elements than the list was made for.
    #[error("too many scatter-gather elements")]
    SgeCount,
    /// A header for segmentation longer than the list was made for.
    #[error("the header is too long")]
    Header,
}

/// Some requests of a list were not posted; they are still in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("posted {posted} work requests, then errno {errno}")]
pub struct PostFailure {
    /// Requests that were posted, from the list's beginning.
    pub posted: usize,
    /// Why the next one was not; `ENOMEM` if the queue is full.
    pub errno: i32,
}

/// Requests with the elements that each of them may name.
struct Requests<R> {
    requests: Array<R>,
    sges: Array<sys::ibv_sge>,
    sges_each: usize,
    /// Those before this one are in the list's chain.
    used: usize,
}

impl<R: Linked> Requests<R> {
    fn new(capacity: usize, sges_each: usize) -> Requests<R> {
        let sges = capacity.checked_mul(sges_each).expect("a list that fits into memory");
        let sges = Array::new(sys::ibv_sge::zero(), sges);
        Requests { requests: Array::new(R::zero(), capacity), sges, sges_each, used: 0 }
    }

    /// Copies the elements of the next request; returns where they lie and how many.
    #[inline]
    fn take_sges(&mut self, sges: &[Sge]) -> Result<(*mut sys::ibv_sge, i32), PushError> {
        if self.used == self.requests.len {
            return Err(PushError::Full);
        }
        if sges.len() > self.sges_each {
            return Err(PushError::SgeCount);
        }
        let start = self.used * self.sges_each;
        for (offset, sge) in sges.iter().enumerate() {
            let sge = sys::ibv_sge { addr: sge.addr, length: sge.length, lkey: sge.lkey.0 };
            self.sges.write(start + offset, sge);
        }
        let count = i32::try_from(sges.len()).map_err(|_| PushError::SgeCount)?;
        Ok((self.sges.at(start), count))
    }

    /// Writes the next request, whose elements were taken: it is to be chained.
    #[inline]
    fn write(&mut self, request: R) -> *mut R {
        let place = self.used;
        self.requests.write(place, request);
        self.used = place + 1;
        self.requests.at(place)
    }
}

/// What a send does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// Sends the elements (`IBV_WR_SEND`).
    Send,
    /// Sends them with 32 bits of immediate data (`IBV_WR_SEND_WITH_IMM`).
    SendWithImmediate(u32),
    /// Sends them in segments of `mss` bytes, each behind a copy of the header that the device
    /// adapts (`IBV_WR_TSO`).
    Tso {
        /// Ethernet, IP and TCP header.
        header: &'a [u8],
        /// Payload bytes a segment.
        mss: u16,
    },
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The way.
    pub handle: &'a AddressHandle,
    /// The peer's queue pair.
    pub queue_pair: u32,
    /// The peer's Q_Key.
    pub qkey: u32,
}

/// A send.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// The message.
    pub sges: &'a [Sge],
    /// What to do with it.
    pub operation: Operation<'a>,
    /// Whether a completion is wanted. Errors complete in any case.
    pub signalled: bool,
    /// Whether the peer's queue, armed for such only, is to announce it.
    pub solicited: bool,
    /// Whether the device completes the checksums of IP and of TCP or UDP (`IBV_SEND_IP_CSUM`).
    pub checksum: bool,
    /// Where it goes, on a datagram queue pair.
    pub destination: Option<Destination<'a>>,
}

/// What a list of sends is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendListSize {
    /// Requests.
    pub requests: usize,
    /// Elements of each.
    pub sges: usize,
    /// Bytes of a header for segmentation; 0 if there is none.
    pub header: usize,
    /// Whether sends are copied into the list, of [`COPY_MAX`] bytes at most.
    pub copies: bool,
}

/// A list of sends.
pub struct SendList {
    chain: Chain<sys::ibv_send_wr>,
    requests: Requests<sys::ibv_send_wr>,
    headers: Array<u8>,
    header_max: usize,
    shorts: ShortSends,
    /// The handle that each place last named, held until another replaces it.
    handles: Vec<Option<AddressHandle>>,
}

// SAFETY: the pointers in the requests lead into the list's own arrays and to handles that it
// holds, all of which go with it.
unsafe impl Send for SendList {}

impl SendList {
    /// Makes an empty list; all its memory is allocated here.
    #[must_use]
    pub fn new(size: SendListSize) -> SendList {
        let headers = size.requests.checked_mul(size.header).expect("a list that fits into memory");
        SendList {
            chain: Chain::new(),
            requests: Requests::new(size.requests, size.sges),
            headers: Array::new(0, headers),
            header_max: size.header,
            shorts: ShortSends::new(if size.copies { size.requests } else { 0 }),
            handles: vec![None; size.requests],
        }
    }

    /// Requests in the list.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.chain.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all requests.
    #[inline]
    pub fn clear(&mut self) {
        self.chain.clear();
        self.free_all();
    }

    /// The chain is empty: all places are free.
    #[inline(always)]
    fn free_all(&mut self) {
        self.requests.used = 0;
        self.shorts.clear();
    }

    /// Forgets all requests, and lets go of the address handles that they named.
    pub fn release_handles(&mut self) {
        self.clear();
        self.handles.fill(None);
    }

    /// Asks for a completion of the last request, if there is one.
    #[inline]
    pub fn signal_last(&mut self) {
        if let Some(last) = self.chain.last() {
            // SAFETY: of the list's own arrays, of which `&mut self` is the only user.
            unsafe { (*last).send_flags |= sys::IBV_SEND_SIGNALED };
        }
    }

    /// Appends a send.
    ///
    /// # Errors
    /// If it does not fit; the list is as before.
    #[inline]
    pub fn push(&mut self, request: &SendRequest<'_>) -> Result<(), PushError> {
        self.push_with(request, 0)
    }

    /// Appends a send whose bytes are read when it is posted, and whose lkeys are not looked at.
    ///
    /// # Safety
    /// All elements are readable bytes of this process until the list was posted or cleared.
    ///
    /// # Errors
    /// If it does not fit; the list is as before.
    #[inline]
    pub unsafe fn push_inline(&mut self, request: &SendRequest<'_>) -> Result<(), PushError> {
        self.push_with(request, sys::IBV_SEND_INLINE)
    }

    /// Appends an inline send of a header and a message, which are copied into the list's own
    /// memory. False if it does not fit: the list is as before, and no header was asked for.
    ///
    /// # Safety
    /// `message` names readable bytes of this process that nobody writes during the call, of the
    /// quick length if there is one; the destination's handle lives until the list was posted or
    /// cleared.
    #[inline(always)]
    pub unsafe fn push_copied<'d, const N: usize>(
        &mut self,
        id: (u64, bool),
        header: impl FnOnce(&mut [u8; N]),
        message: (&Sge, Option<QuickLength>),
        destination: impl FnOnce() -> Option<Destination<'d>>,
    ) -> bool {
        // SAFETY: the caller's promise.
        let Some(request) = (unsafe { self.shorts.fill(id, header, message, destination) }) else {
            return false;
        };
        // SAFETY: of the list's own places, which are free again when the chain is empty.
        unsafe { self.chain.append(request) };
        true
    }

    #[inline]
    fn push_with(&mut self, request: &SendRequest<'_>, flags: u32) -> Result<(), PushError> {
        let place = self.requests.used;
        let (sg_list, num_sge) = self.requests.take_sges(request.sges)?;
        let mut wr = sys::ibv_send_wr::zero();
        wr.wr_id = request.wr_id;
        wr.sg_list = sg_list;
        wr.num_sge = num_sge;
        wr.send_flags = flags
            | if request.signalled { sys::IBV_SEND_SIGNALED } else { 0 }
            | if request.solicited { sys::IBV_SEND_SOLICITED } else { 0 }
            | if request.checksum { sys::IBV_SEND_IP_CSUM } else { 0 };
        match request.operation {
            Operation::Send => wr.opcode = sys::IBV_WR_SEND,
            Operation::SendWithImmediate(data) => {
                wr.opcode = sys::IBV_WR_SEND_WITH_IMM;
                wr.__bindgen_anon_1.imm_data = data.to_be();
            }
            Operation::Tso { header, mss } => {
                wr.opcode = sys::IBV_WR_TSO;
                wr.__bindgen_anon_2.tso = self.take_header(place, header, mss)?;
            }
        }
        if let Some(to) = request.destination {
            self.hold(place, to.handle);
            wr.wr.ud.ah = to.handle.as_ptr();
            wr.wr.ud.remote_qpn = to.queue_pair;
            wr.wr.ud.remote_qkey = to.qkey;
        }
        let request = self.requests.write(wr);
        // SAFETY: as in `push_copied`.
        unsafe { self.chain.append(request) };
        Ok(())
    }

    fn take_header(&mut self, place: usize, header: &[u8], mss: u16) -> Result<Tso, PushError> {
        if header.len() > self.header_max {
            return Err(PushError::Header);
        }
        let hdr_sz = u16::try_from(header.len()).map_err(|_| PushError::Header)?;
        let hdr = self.headers.at(place * self.header_max);
        // SAFETY: `header_max` bytes of this place's own, at least the header's length.
        unsafe { hdr.copy_from_nonoverlapping(header.as_ptr(), header.len()) };
        Ok(Tso { hdr: hdr.cast(), hdr_sz, mss })
    }

    /// Keeps a handle alive at least until the request at `place` was posted. Sends from a place
    /// mostly name the handle that they named before, which then costs a comparison.
    #[inline]
    fn hold(&mut self, place: usize, handle: &AddressHandle) {
        let held = &mut self.handles[place];
        if !held.as_ref().is_some_and(|held| held.is(handle)) {
            *held = Some(handle.clone());
        }
    }

    /// Posts the list with `post`: one call, one doorbell.
    #[inline(always)]
    pub(super) fn post(
        &mut self,
        post: impl FnOnce(*mut sys::ibv_send_wr, &mut *mut sys::ibv_send_wr) -> i32,
    ) -> Result<(), PostFailure> {
        self.chain.post(post)?;
        self.free_all();
        Ok(())
    }
}

/// The member of a send that describes segmentation.
type Tso = sys::ibv_send_wr__bindgen_ty_4__bindgen_ty_2;

/// A list of receives.
pub struct ReceiveList {
    chain: Chain<sys::ibv_recv_wr>,
    requests: Requests<sys::ibv_recv_wr>,
}

// SAFETY: the pointers in the requests lead into the list's own arrays, which go with it.
unsafe impl Send for ReceiveList {}

impl ReceiveList {
    /// Makes an empty list for so many requests of so many elements each; all its memory is
    /// allocated here.
    #[must_use]
    pub fn new(requests: usize, sges: usize) -> ReceiveList {
        ReceiveList { chain: Chain::new(), requests: Requests::new(requests, sges) }
    }

    /// Requests in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chain.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all requests.
    pub fn clear(&mut self) {
        self.chain.clear();
        self.requests.used = 0;
    }

    /// Appends a receive.
    ///
    /// # Errors
    /// If it does not fit; the list is as before.
    #[inline]
    pub fn push(&mut self, wr_id: u64, sges: &[Sge]) -> Result<(), PushError> {
        let (sg_list, num_sge) = self.requests.take_sges(sges)?;
        let wr = sys::ibv_recv_wr { wr_id, next: ptr::null_mut(), sg_list, num_sge };
        let request = self.requests.write(wr);
        // SAFETY: of the list's own array, whose places are free again when the chain is empty.
        unsafe { self.chain.append(request) };
        Ok(())
    }

    /// Posts the list with `post`.
    #[inline]
    pub(super) fn post(
        &mut self,
        post: impl FnOnce(*mut sys::ibv_recv_wr, &mut *mut sys::ibv_recv_wr) -> i32,
    ) -> Result<(), PostFailure> {
        self.chain.post(post)?;
        self.requests.used = 0;
        Ok(())
    }
}

#[cfg(test)]
#[path = "work_list_tests.rs"]
mod tests;
