//! Reads a target's input from the front: numbers, ranges, slices. Never fails: an input that has
//! ended reads as zeroes, and targets stop when it has.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// So many bytes, fewer at the end.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (first, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        first
    }

    /// So many bytes, zeroes at the end.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let found = self.take(N);
        bytes[..found.len()].copy_from_slice(found);
        bytes
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A 16-bit length and so many bytes.
    pub fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.take(length)
    }
}
