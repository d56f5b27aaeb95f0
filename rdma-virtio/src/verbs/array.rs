//! Arrays that C code points into.
//!
//! Invariant: an array stays where it is until it is dropped, and is touched through pointers only.

use std::ptr::{self, NonNull};

/// An array that C code points into: it stays where it is, and is touched through pointers only.
pub(super) struct Array<T> {
    base: NonNull<T>,
    pub(super) len: usize,
}

// SAFETY: owns its elements like a Vec; elements are plain data.
unsafe impl<T: Send> Send for Array<T> {}

impl<T: Clone> Array<T> {
    pub(super) fn new(value: T, len: usize) -> Array<T> {
        let elements: Box<[T]> = vec![value; len].into_boxed_slice();
        Array { base: NonNull::from(Box::leak(elements)).cast(), len }
    }

    /// The element at `index`, which may be one past the last.
    #[inline]
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "within the array");
        // SAFETY: within the array or one past it.
        unsafe { self.base.as_ptr().add(index) }
    }

    /// Where the element at `index` lies, if there is one.
    #[inline(always)]
    pub(super) fn place(&self, index: usize) -> *mut T {
        self.base.as_ptr().wrapping_add(index)
    }

    #[inline]
    pub(super) fn write(&mut self, index: usize, value: T) {
        assert!(index < self.len, "within the array");
        // SAFETY: within the array, of which `&mut self` is the only user.
        unsafe { self.at(index).write(value) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        let elements = ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.len);
        // SAFETY: leaked from a box of this length by `new`.
        drop(unsafe { Box::from_raw(elements) });
    }
}
