//! Bytes of an application's own that begin a page.
//!
//! Some processors copy at a tenth of their speed to a place that lies 1 to 31 bytes further into
//! its page than the source does into its own: `rep movsb` of AMD's family 25, which the C library
//! uses from two kibibytes on. The heap begins a block wherever those before it left room, down to
//! the options' names: a copying stream's figure was a third or not, by the order of the options.

use std::ops::{Deref, DerefMut};

/// Bytes of a page.
const PAGE_LEN: usize = 4096;

/// Bytes that begin a page.
#[derive(Debug)]
pub struct Block {
    room: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    /// So many zeros.
    #[must_use]
    pub fn new(length: usize) -> Block {
        let room = vec![0; length + PAGE_LEN - 1];
        let start = room.as_ptr().align_offset(PAGE_LEN).min(PAGE_LEN - 1);
        Block { room, start, length }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.length]
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_a_page_and_is_as_long_as_asked() {
        for length in [0, 1, 4095, 4096, 65_536, 131_072] {
            let mut block = Block::new(length);
            assert_eq!(block.len(), length);
            assert_eq!(block.as_ptr().align_offset(PAGE_LEN), 0);
            block.fill(7);
            assert!(block.iter().all(|&byte| byte == 7));
        }
    }
}
