//! Buffers that an application fills and gives away without a copy.
//!
//! [`BufferMut`] is to be written and belongs to one holder alone. Frozen it is a [`Buffer`]: to be
//! read, by as many holders as there are, of which a send under way is one. Only the last holder
//! can make it writable again, so that no byte changes that a NIC or a peer may still read. Both
//! may go to any thread; the last drop puts the memory on a queue to the arena's thread.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::home::{Home, Return};
use super::mapping::Mapping;

/// A buffer's memory, and how it goes home.
struct Memory {
    home: Arc<Home>,
    /// Keeps memory mapped that is not the arena's.
    _registered: Option<Arc<Mapping>>,
    first: NonNull<u8>,
    len: usize,
    name: Return,
}

// SAFETY: the bytes lie in a mapping that this value keeps, and who may touch them is said by the
// two types around it; nothing else in it is bound to a thread.
unsafe impl Send for Memory {}
// SAFETY: as above; through a shared reference bytes are only read.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        self.home.give_back(self.name);
    }
}

/// A buffer to be filled, with one holder.
pub struct BufferMut(Arc<Memory>);

/// A filled buffer, to be read and sent. Clones are the same bytes.
#[derive(Clone)]
pub struct Buffer(Arc<Memory>);

impl BufferMut {
    /// The `len` bytes at `offset` of a mapping.
    ///
    /// # Safety
    /// They lie in `registered`, or in the mapping of `home` if there is none; nobody reads or
    /// writes them before `name` comes back, but through this value and what becomes of it.
    pub(super) unsafe fn new(
        home: &Arc<Home>,
        registered: Option<Arc<Mapping>>,
        (offset, len): (usize, usize),
        name: Return,
    ) -> BufferMut {
        let mapping = registered.as_deref().unwrap_or(&home.mapping);
        let base = NonNull::new(mapping.as_mut_ptr()).unwrap_or(NonNull::dangling());
        // SAFETY: the caller says that the range lies in the mapping.
        let first = unsafe { base.add(offset) };
        let home = Arc::clone(home);
        BufferMut(Arc::new(Memory { home, _registered: registered, first, len, name }))
    }

    /// Address of the first byte, for a NIC.
    pub(crate) fn addr(&self) -> u64 {
        self.0.first.as_ptr().expose_provenance() as u64
    }

    /// It is filled: from now on it is only read.
    #[must_use]
    pub fn freeze(self) -> Buffer {
        Buffer(self.0)
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped while `self.0` lives, and this holder is the only one.
        unsafe { std::slice::from_raw_parts(self.0.first.as_ptr(), self.0.len) }
    }
}

impl DerefMut for BufferMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; a send holds a `Buffer`, so none is under way.
        unsafe { std::slice::from_raw_parts_mut(self.0.first.as_ptr(), self.0.len) }
    }
}

impl Buffer {
    /// To be filled again, if nobody else holds it.
    ///
    /// # Errors
    /// The buffer itself while there is another holder, such as a send under way.
    pub fn try_into_mut(mut self) -> Result<BufferMut, Buffer> {
        match Arc::get_mut(&mut self.0) {
            Some(_) => Ok(BufferMut(self.0)),
            None => Err(self),
        }
    }

    /// Whether both are the same bytes.
    #[must_use]
    pub fn is(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Address of the first byte, for a NIC.
    pub(super) fn addr(&self) -> u64 {
        self.0.first.as_ptr().expose_provenance() as u64
    }

    /// Whether it came from this arena.
    pub(super) fn is_of(&self, home: &Arc<Home>) -> bool {
        Arc::ptr_eq(&self.0.home, home)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped while `self.0` lives, and nobody writes it while a `Buffer`
        // of it exists.
        unsafe { std::slice::from_raw_parts(self.0.first.as_ptr(), self.0.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for BufferMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for BufferMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("len", &self.0.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.0.len).finish_non_exhaustive()
    }
}
