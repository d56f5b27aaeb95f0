//! Lists of work requests: built by the caller in memory made at start, posted with one call.
//!
//! Owns the arrays that `ibv_send_wr` and `ibv_recv_wr` lie in. Nothing is allocated after they
//! were made. Invariants: what is in a list is one chain that ends, each request pointing at its
//! own part of the element array; what could not be posted stays in the list.

use super::address::AddressHandle;
use super::array::Array;
use super::sys::{self, Zero};
use crate::nic::Sge;
use std::hint::assert_unchecked;
use std::ptr::{self, NonNull};

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

/// What both kinds of request have.
trait Request: Clone {
    fn link(&mut self, next: *mut Self);
    fn gather(&mut self, sges: *mut sys::ibv_sge);
}

impl Request for sys::ibv_send_wr {
    #[inline]
    fn link(&mut self, next: *mut Self) {
        self.next = next;
    }

    #[inline]
    fn gather(&mut self, sges: *mut sys::ibv_sge) {
        self.sg_list = sges;
    }
}

impl Request for sys::ibv_recv_wr {
    #[inline]
    fn link(&mut self, next: *mut Self) {
        self.next = next;
    }

    #[inline]
    fn gather(&mut self, sges: *mut sys::ibv_sge) {
        self.sg_list = sges;
    }
}

/// A chain of requests with their elements.
struct Chain<R> {
    requests: Array<R>,
    sges: Array<sys::ibv_sge>,
    sges_each: usize,
    /// The first request that is not posted.
    first: usize,
    /// One past the last.
    end: usize,
}

impl<R: Request + Zero> Chain<R> {
    fn new(capacity: usize, sges_each: usize) -> Chain<R> {
        let sges = capacity.checked_mul(sges_each).expect("a list that fits into memory");
        let mut requests = Array::new(R::zero(), capacity);
        let sges = Array::new(sys::ibv_sge::zero(), sges);
        for place in 0..capacity {
            let mut request = R::zero();
            request.gather(sges.at(place * sges_each));
            requests.write(place, request);
        }
        Chain { requests, sges, sges_each, first: 0, end: 0 }
    }

    /// The request that was appended last.
    fn last_mut(&mut self) -> &mut R {
        assert!(self.first < self.end, "there is one");
        // SAFETY: written by `append`; within the array, of which `&mut self` is the only user.
        unsafe { &mut *self.requests.at(self.end - 1) }
    }

    /// Copies the elements of the next request; returns where they lie and how many.
    #[inline]
    fn take_sges(&mut self, sges: &[Sge]) -> Result<(*mut sys::ibv_sge, i32), PushError> {
        if self.end == self.requests.len {
            return Err(PushError::Full);
        }
        if sges.len() > self.sges_each {
            return Err(PushError::SgeCount);
        }
        let start = self.end * self.sges_each;
        for (offset, sge) in sges.iter().enumerate() {
            let sge = sys::ibv_sge { addr: sge.addr, length: sge.length, lkey: sge.lkey.0 };
            self.sges.write(start + offset, sge);
        }
        let count = i32::try_from(sges.len()).map_err(|_| PushError::SgeCount)?;
        Ok((self.sges.at(start), count))
    }

    /// Appends a request whose elements were taken, and which has no successor.
    #[inline]
    fn append(&mut self, request: R) {
        self.requests.write(self.end, request);
        self.extend(self.requests.at(self.end));
    }

    /// The list ends with this request from now on, which is at its end and has no successor.
    #[inline(always)]
    fn extend(&mut self, request: *mut R) {
        if self.end != self.first {
            // SAFETY: written before this one; within the array, which only this list uses.
            unsafe { (*self.requests.at(self.end - 1)).link(request) };
        }
        self.end += 1;
    }

    fn clear(&mut self) {
        (self.first, self.end) = (0, 0);
    }

    /// Posts what is there with `post`, which returns an errno and sets the pointer to the first
    /// request that was not posted.
    #[inline(always)]
    fn post(&mut self, post: impl FnOnce(*mut R, &mut *mut R) -> i32) -> Result<(), PostFailure> {
        if self.first == self.end {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        let result = post(self.requests.place(self.first), &mut bad);
        if result == 0 {
            self.clear();
            return Ok(());
        }
        match super::error::check(result) {
            Ok(()) => {
                self.clear();
                Ok(())
            }
            Err(errno) => {
                let posted = self.posted_before(bad);
                self.first += posted;
                Err(PostFailure { posted, errno })
            }
        }
    }

    /// How many requests stand before the bad one; none if it is not one of ours.
    fn posted_before(&self, bad: *mut R) -> usize {
        let head = self.requests.at(self.first).addr();
        let offset = bad.addr().wrapping_sub(head) / size_of::<R>();
        if offset < self.end - self.first { offset } else { 0 }
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

/// Most bytes of a send that is copied into a list.
pub const COPY_MAX: usize = 256;

/// A list of sends.
pub struct SendList {
    chain: Chain<sys::ibv_send_wr>,
    headers: Array<u8>,
    header_max: usize,
    /// Bytes of each request's own, for sends that are copied.
    copies: Array<[u8; COPY_MAX]>,
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
        let copies = if size.copies { size.requests } else { 0 };
        SendList {
            chain: Chain::new(size.requests, size.sges.max(usize::from(size.copies))),
            headers: Array::new(0, headers),
            header_max: size.header,
            copies: Array::new([0; COPY_MAX], copies),
            handles: vec![None; size.requests],
        }
    }

    /// Requests in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chain.end - self.chain.first
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all requests.
    pub fn clear(&mut self) {
        self.chain.clear();
    }

    /// Forgets all requests, and lets go of the address handles that they named.
    pub fn release_handles(&mut self) {
        self.chain.clear();
        self.handles.fill(None);
    }

    /// Asks for a completion of the last request, if there is one.
    #[inline]
    pub fn signal_last(&mut self) {
        if !self.is_empty() {
            self.chain.last_mut().send_flags |= sys::IBV_SEND_SIGNALED;
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
        (wr_id, signalled): (u64, bool),
        header: impl FnOnce() -> [u8; N],
        (message, quick): (&Sge, Option<QuickLength>),
        destination: impl FnOnce() -> Option<Destination<'d>>,
    ) -> bool {
        const { assert!(N + QUICK_TO as usize <= COPY_MAX) };
        let place = self.chain.end;
        let length = quick.map_or(message.length as usize, QuickLength::bytes);
        let fits = quick.is_some() || N + length <= COPY_MAX;
        if place >= self.copies.len || !fits {
            return false;
        }
        let request = self.chain.requests.place(place);
        // SAFETY: within the array, which is as long as that of copies where there is one, and of
        // which `&mut self` is the only user; its pointer to its own elements was set when the
        // array was made.
        let wr = unsafe { &mut *request };
        wr.wr_id = wr_id;
        wr.next = ptr::null_mut();
        wr.num_sge = 1;
        wr.opcode = sys::IBV_WR_SEND;
        wr.send_flags = if signalled {
            sys::IBV_SEND_INLINE | sys::IBV_SEND_SIGNALED
        } else {
            sys::IBV_SEND_INLINE
        };
        if let Some(to) = destination() {
            wr.wr.ud.ah = to.handle.as_ptr();
            wr.wr.ud.remote_qpn = to.queue_pair;
            wr.wr.ud.remote_qkey = to.qkey;
        }
        let to: *mut u8 = self.copies.place(place).cast();
        let addr = u64::try_from(to.expose_provenance()).unwrap_or(0);
        let both = u32::try_from(N).unwrap_or(0) + message.length;
        // SAFETY: the first of this request's own elements, of which there is one at least.
        unsafe { wr.sg_list.write(sys::ibv_sge { addr, length: both, lkey: 0 }) };
        // SAFETY: COPY_MAX bytes of this place's own, which are enough for both.
        unsafe { to.cast::<[u8; N]>().write_unaligned(header()) };
        let from = ptr::with_exposed_provenance(usize::try_from(message.addr).unwrap_or(0));
        match quick {
            // SAFETY: as above; the caller vouches for what is read.
            Some(length) => unsafe { copy_quick(from, to.wrapping_add(N), length) },
            // SAFETY: the same.
            None => unsafe { ptr::copy_nonoverlapping(from, to.wrapping_add(N), length) },
        }
        self.chain.extend(request);
        true
    }

    #[inline]
    fn push_with(&mut self, request: &SendRequest<'_>, flags: u32) -> Result<(), PushError> {
        let place = self.chain.end;
        let (sg_list, num_sge) = self.chain.take_sges(request.sges)?;
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
        self.chain.append(wr);
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

    /// Posts the list: one call, one doorbell.
    #[inline]
    pub(super) fn post(&mut self, qp: NonNull<sys::ibv_qp>) -> Result<(), PostFailure> {
        // SAFETY: the queue pair lives; the chain ends, and what it points at is the list's own.
        self.chain.post(|head, bad| unsafe { sys::ibv_post_send(qp.as_ptr(), head, bad) })
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

/// A length that is copied without a call: from [`QUICK_FROM`] to [`QUICK_TO`].
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

/// The member of a send that describes segmentation.
type Tso = sys::ibv_send_wr__bindgen_ty_4__bindgen_ty_2;

/// A list of receives.
pub struct ReceiveList {
    chain: Chain<sys::ibv_recv_wr>,
}

// SAFETY: the pointers in the requests lead into the list's own arrays, which go with it.
unsafe impl Send for ReceiveList {}

impl ReceiveList {
    /// Appends a receive of one element.
    ///
    /// # Errors
    /// If the list is full; it is as before.
    #[inline]
    pub fn push_one(&mut self, wr_id: u64, sge: Sge) -> Result<(), PushError> {
        let chain = &mut self.chain;
        if chain.end == chain.requests.len || chain.sges_each == 0 {
            return Err(PushError::Full);
        }
        let request = chain.requests.at(chain.end);
        // SAFETY: within the array, of which `&mut self` is the only user; its pointer to its own
        // elements was set when the array was made.
        let wr = unsafe { &mut *request };
        wr.wr_id = wr_id;
        wr.next = ptr::null_mut();
        wr.num_sge = 1;
        let element = sys::ibv_sge { addr: sge.addr, length: sge.length, lkey: sge.lkey.0 };
        // SAFETY: the first of this request's own elements, of which there is one at least.
        unsafe { wr.sg_list.write(element) };
        chain.extend(request);
        Ok(())
    }

    /// Makes an empty list for so many requests of so many elements each; all its memory is
    /// allocated here.
    #[must_use]
    pub fn new(requests: usize, sges: usize) -> ReceiveList {
        ReceiveList { chain: Chain::new(requests, sges) }
    }

    /// Requests in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chain.end - self.chain.first
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all requests.
    pub fn clear(&mut self) {
        self.chain.clear();
    }

    /// Appends a receive.
    ///
    /// # Errors
    /// If it does not fit; the list is as before.
    #[inline]
    pub fn push(&mut self, wr_id: u64, sges: &[Sge]) -> Result<(), PushError> {
        let (sg_list, num_sge) = self.chain.take_sges(sges)?;
        self.chain.append(sys::ibv_recv_wr { wr_id, next: ptr::null_mut(), sg_list, num_sge });
        Ok(())
    }

    /// Posts the list to a queue pair.
    #[inline]
    pub(super) fn post(&mut self, qp: NonNull<sys::ibv_qp>) -> Result<(), PostFailure> {
        // SAFETY: the queue pair lives; the chain ends, and what it points at is the list's own.
        self.chain.post(|head, bad| unsafe { sys::ibv_post_recv(qp.as_ptr(), head, bad) })
    }

    /// Posts the list to a shared receive queue.
    #[inline]
    pub(super) fn post_shared(&mut self, srq: NonNull<sys::ibv_srq>) -> Result<(), PostFailure> {
        // SAFETY: the queue lives; the chain ends, and what it points at is the list's own.
        self.chain.post(|head, bad| unsafe { sys::ibv_post_srq_recv(srq.as_ptr(), head, bad) })
    }
}

#[cfg(test)]
#[path = "work_list_tests.rs"]
mod tests;
