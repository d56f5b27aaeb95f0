//! A table of values with generations: an id names one value for ever, and an id whose value has
//! gone names nothing. Memory grows as values come and is used again when they go.

use alloc::vec::Vec;
use core::marker::PhantomData;

/// Names a `T` in a [`Slab`]: index and generation. The upper byte of the generation names the
/// worker that owns the slab, so that ids of different workers never meet.
pub struct Id<T> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> core::fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:x}", self.index, self.generation)
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Id<T> {}

impl<T> Id<T> {
    /// Place in the slab.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The id as one plain number, for commands that cross threads.
    #[must_use]
    pub fn to_raw(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id that [`Id::to_raw`] gave. Any number is safe: a wrong one names nothing.
    #[must_use]
    pub fn from_raw(raw: u64) -> Id<T> {
        let [i0, i1, i2, i3, g0, g1, g2, g3] = raw.to_le_bytes();
        Id {
            index: u32::from_le_bytes([i0, i1, i2, i3]),
            generation: u32::from_le_bytes([g0, g1, g2, g3]),
            kind: PhantomData,
        }
    }
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// The table. At most `limit` values at once.
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    limit: u32,
    live: u32,
    first_generation: u32,
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

impl<T> Slab<T> {
    /// An empty table for at most `limit` values of worker number `worker`.
    #[must_use]
    pub fn new(limit: u32, worker: u8) -> Slab<T> {
        Slab {
            entries: Vec::new(),
            free: Vec::new(),
            limit,
            live: 0,
            first_generation: u32::from(worker) << 24,
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.live
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// One more than the highest index that was ever used.
    #[must_use]
    pub fn index_end(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Adds a value, or gives it back if the table is full.
    ///
    /// # Errors
    /// The value, if `limit` values are in the table.
    pub fn insert(&mut self, value: T) -> Result<Id<T>, T> {
        if self.live >= self.limit {
            return Err(value);
        }
        self.live += 1;
        let index = if let Some(index) = self.free.pop() {
            index
        } else {
            let index = self.index_end();
            self.entries.push(Entry { generation: self.first_generation, value: None });
            index
        };
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        Ok(Id { index, generation: entry.generation, kind: PhantomData })
    }

    /// The value, unless it has gone.
    #[inline]
    #[must_use]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    /// The value, unless it has gone.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.index as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    /// The value at an index, whatever its generation.
    #[inline]
    #[must_use]
    pub fn at(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.value.as_ref()
    }

    /// The value at an index, whatever its generation.
    #[inline]
    #[must_use]
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }

    /// The full id of the value at an index.
    #[must_use]
    pub fn id_at(&self, index: u32) -> Option<Id<T>> {
        let entry = self.entries.get(index as usize)?;
        entry.value.as_ref()?;
        Some(Id { index, generation: entry.generation, kind: PhantomData })
    }

    /// Takes the value at an index out. Its id names nothing from now on.
    pub fn remove_at(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        let value = entry.value.take()?;
        let next = entry.generation.wrapping_add(1) & GENERATION_MASK;
        entry.generation = (entry.generation & !GENERATION_MASK) | next;
        self.free.push(index);
        self.live -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_names_nothing() {
        let mut slab = Slab::new(2, 7);
        let a = slab.insert('a').unwrap();
        let b = slab.insert('b').unwrap();
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(slab.remove_at(a.index()), Some('a'));
        let c = slab.insert('c').unwrap();
        assert_eq!(c.index(), a.index());
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert!(Id::<char>::from_raw(c.to_raw()) == c);
        assert_eq!(c.to_raw() >> 56, 7);
        assert!(slab.get(Id::from_raw(u64::MAX)).is_none());
    }
}
