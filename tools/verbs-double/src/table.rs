//! A table of objects by handle. A freed handle is used again; nothing else changes a handle.

/// Objects by handle.
pub(crate) struct Table<T> {
    rows: Vec<Option<T>>,
    used: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: Vec::new(), used: 0 }
    }
}

fn index(handle: u32) -> usize {
    usize::try_from(handle).unwrap_or(usize::MAX)
}

impl<T> Table<T> {
    /// Takes an object in and returns its handle.
    pub(crate) fn insert(&mut self, object: T) -> u32 {
        self.used += 1;
        let free = self.rows.iter().position(Option::is_none);
        let place = free.unwrap_or(self.rows.len());
        match free {
            Some(place) => self.rows[place] = Some(object),
            None => self.rows.push(Some(object)),
        }
        u32::try_from(place).expect("fewer objects than the limits allow")
    }

    /// The object of a handle.
    pub(crate) fn get(&self, handle: u32) -> Option<&T> {
        self.rows.get(index(handle))?.as_ref()
    }

    /// The object of a handle.
    pub(crate) fn get_mut(&mut self, handle: u32) -> Option<&mut T> {
        self.rows.get_mut(index(handle))?.as_mut()
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, handle: u32) -> Option<T> {
        let object = self.rows.get_mut(index(handle))?.take();
        self.used -= usize::from(object.is_some());
        object
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// All objects with their handles.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.rows).filter_map(|(handle, row)| Some((handle, row.as_ref()?)))
    }

    /// Handles of the objects for which `wanted` holds.
    pub(crate) fn handles(&self, wanted: impl Fn(&T) -> bool) -> Vec<u32> {
        self.iter().filter(|(_, object)| wanted(object)).map(|(handle, _)| handle).collect()
    }
}
