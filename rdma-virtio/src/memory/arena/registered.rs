//! Memory of the application's own, in blocks that are sent from like the arena's.
//!
//! The blocks are all the handles that there are: what one holder writes nobody else reads, and
//! while one of them is out, or a send of it is under way, the memory stays mapped and known to the
//! NIC. When the last one came back it is taken away from the NIC, never before.

use std::sync::Arc;

use super::Arena;
use super::state::REGISTERED_HANDLES;
use crate::memory::buffer::BufferMut;
use crate::memory::home::Return;
use crate::memory::mapping::Mapping;

/// Memories that are registered at once; the arena itself has two of the regions.
pub const REGISTERED_MAX: usize = 8;

/// One memory.
#[derive(Debug)]
pub(super) struct Registered {
    mapping: Arc<Mapping>,
    /// Blocks that are out.
    out: u32,
}

/// Why memory was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegisterError {
    /// [`REGISTERED_MAX`] are registered.
    #[error("{REGISTERED_MAX} memories are registered: drop the buffers of one of them")]
    TooMany,
    /// A block is empty or longer than the memory, or there would be too many.
    #[error(
        "{length} bytes in blocks of {block} give no block, or with those that are out more than \
         {REGISTERED_HANDLES}; choose another length of a block"
    )]
    Blocks {
        /// Bytes of the memory.
        length: usize,
        /// Bytes of a block.
        block: usize,
    },
}

impl Arena {
    /// Whether so much memory can be taken in such blocks; returns how many there will be.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn may_adopt(&self, length: usize, block: usize) -> Result<u32, RegisterError> {
        if self.registered.iter().all(Option::is_some) {
            return Err(RegisterError::TooMany);
        }
        let out: u32 = self.registered.iter().flatten().map(|memory| memory.out).sum();
        let count = length.checked_div(block).and_then(|count| u32::try_from(count).ok());
        match count {
            Some(count @ 1..) if count <= REGISTERED_HANDLES.saturating_sub(out) => Ok(count),
            _ => Err(RegisterError::Blocks { length, block }),
        }
    }

    /// Takes memory that the NIC can reach, in blocks of so many bytes; what is left over is not
    /// used.
    ///
    /// # Errors
    /// As [`Arena::may_adopt`].
    pub fn adopt(
        &mut self,
        mapping: Mapping,
        block: usize,
    ) -> Result<Vec<BufferMut>, RegisterError> {
        let count = self.may_adopt(mapping.len(), block)?;
        let mut places = self.registered.iter_mut().enumerate();
        let (number, place) =
            places.find(|(_, place)| place.is_none()).ok_or(RegisterError::TooMany)?;
        let mapping = Arc::new(mapping);
        *place = Some(Registered { mapping: Arc::clone(&mapping), out: count });
        self.counters.registered += 1;
        let name = Return::Registered(u32::try_from(number).unwrap_or(u32::MAX));
        let buffer = |index: u32| {
            let range = (index as usize * block, block);
            let mapping = Some(Arc::clone(&mapping));
            // SAFETY: the blocks do not overlap and lie in the mapping, as `may_adopt` counted,
            // and this is the only place that makes handles of it.
            unsafe { BufferMut::new(&self.home, mapping, range, name) }
        };
        Ok((0..count).map(buffer).collect())
    }

    /// Whether memory of the application's own is registered.
    #[must_use]
    pub fn has_registered(&self) -> bool {
        self.registered.iter().any(Option::is_some)
    }

    /// A block of registered memory came back for good.
    pub(super) fn end_registered(&mut self, number: u32) {
        if let Some(Some(memory)) = self.registered.get_mut(number as usize) {
            memory.out = memory.out.saturating_sub(1);
        }
    }

    /// Memory of which no block is out any more, to be taken away from the NIC and then dropped.
    pub fn take_unused(&mut self) -> Option<Arc<Mapping>> {
        let unused =
            |place: &&mut Option<Registered>| place.as_ref().is_some_and(|memory| memory.out == 0);
        let memory = self.registered.iter_mut().find(unused)?.take()?;
        self.counters.unregistered += 1;
        Some(memory.mapping)
    }
}
