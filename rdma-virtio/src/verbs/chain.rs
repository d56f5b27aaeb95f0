//! Work requests chained in order, to be posted with one call.
//!
//! Owns no request: they lie in their lists' arrays. Invariant: from the head on there are `count`
//! requests, each naming the next; what the last one names counts only while they are posted.

use super::array::Array;
use super::sys::{self, Zero};
use super::work_list::PostFailure;
use std::ptr;

/// A request that names the next one.
pub(super) trait Linked: Clone + Zero {
    fn next(&self) -> *mut Self;
    fn link(&mut self, next: *mut Self);
}

macro_rules! linked {
    ($($request:ident,)*) => {$(
        impl Linked for sys::$request {
            #[inline(always)]
            fn next(&self) -> *mut Self {
                self.next
            }

            #[inline(always)]
            fn link(&mut self, next: *mut Self) {
                self.next = next;
            }
        }
    )*};
}

linked! { ibv_send_wr, ibv_recv_wr, }

/// A chain of requests.
pub(super) struct Chain<R> {
    /// Stands before them, as if it were one.
    head: Array<R>,
    /// The last of them, or the head.
    last: *mut R,
    count: usize,
}

impl<R: Linked> Chain<R> {
    pub(super) fn new() -> Chain<R> {
        let head = Array::new(R::zero(), 1);
        let last = head.at(0);
        Chain { head, last, count: 0 }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The request that was appended last, if one is left.
    #[inline(always)]
    pub(super) fn last(&self) -> Option<*mut R> {
        (self.count != 0).then_some(self.last)
    }

    /// Appends a request.
    ///
    /// # Safety
    /// It stays where it is, and nobody else uses it, until it left the chain; and is in none yet.
    #[inline(always)]
    pub(super) unsafe fn append(&mut self, request: *mut R) {
        // SAFETY: the head, or appended under the same promise.
        unsafe { (*self.last).link(request) };
        self.last = request;
        self.count += 1;
    }

    /// The first request, if there is one.
    #[inline(always)]
    fn first(&self) -> *mut R {
        // SAFETY: the head, of which this is the only user.
        unsafe { (*self.head.place(0)).next() }
    }

    /// Takes the first request out.
    pub(super) fn take_first(&mut self) -> Option<*mut R> {
        if self.count == 0 {
            return None;
        }
        let request = self.first();
        // SAFETY: appended and still in the chain.
        let next = unsafe { (*request).next() };
        // SAFETY: the head, of which `&mut self` is the only user.
        unsafe { (*self.head.place(0)).link(next) };
        self.count -= 1;
        if self.count == 0 {
            self.clear();
        }
        Some(request)
    }

    /// Lets go of all requests.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.last = self.head.place(0);
    }

    /// Posts what is there with `post`, which returns an errno and sets the pointer to the first
    /// request that was not posted; says how many were. That one and those behind it stay; all
    /// count as posted, and what they name as the device's, if the library names none of them.
    #[inline(always)]
    pub(super) fn post(
        &mut self,
        post: impl FnOnce(*mut R, &mut *mut R) -> i32,
    ) -> Result<usize, PostFailure> {
        let count = self.count;
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: appended and still in the chain.
        unsafe { (*self.last).link(ptr::null_mut()) };
        let mut bad = ptr::null_mut();
        let result = post(self.first(), &mut bad);
        if result != 0
            && let Err(errno) = super::error::check(result)
        {
            return Err(self.posted_before(bad, errno));
        }
        self.clear();
        Ok(count)
    }

    #[cold]
    fn posted_before(&mut self, bad: *mut R, errno: i32) -> PostFailure {
        let mut posted = 0;
        while self.count != 0 && !ptr::eq(self.first(), bad) {
            self.take_first();
            posted += 1;
        }
        PostFailure { posted, errno }
    }
}
