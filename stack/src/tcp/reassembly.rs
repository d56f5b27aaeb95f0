//! Out-of-order data.
use alloc::boxed::Box;

use arrayvec::ArrayVec;

use crate::memory::{Memory, Piece};
use crate::tcp::seq::SeqNum;
use crate::wire::tcp::{SACK_BLOCKS_MAX, SackBlock};

/// Bytes copied out of slots; a part of the front may have been trimmed.
#[derive(Debug)]
pub struct Owned {
    bytes: Box<[u8]>,
    start: usize,
}

impl Owned {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Data of a segment.
#[derive(Debug)]
pub enum Data {
    /// In a slot, of which it owns one reference.
    Piece(Piece),
    /// Copied.
    Owned(Owned),
}

/// The receive window: where data may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveWindow {
    /// RCV.NXT.
    pub nxt: SeqNum,
    /// RCV.NXT + RCV.WND: data from here on is cut off.
    pub end: SeqNum,
}

/// What became of inserted data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Inserted {
    /// Bytes stored.
    pub stored: u32,
    /// Bytes that were there already, or lay before RCV.NXT.
    pub duplicate: u32,
    /// Bytes refused: beyond the window, or because the queue is full.
    pub refused: u32,
}

/// Data ahead of RCV.NXT, as sorted disjoint segments.
#[derive(Debug, Default)]
pub struct Reassembly {}

impl Reassembly {
    /// An empty queue; allocates nothing.
    #[must_use]
    pub fn new() -> Reassembly {
        Reassembly {}
    }
    /// Whether nothing is held.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        unreachable!("being written")
    }
    /// Takes the data at `seq` (one reference of each piece passes to the queue, which keeps or
    /// releases it).
    pub fn insert<M: Memory>(
        &mut self,
        _seq: SeqNum,
        _payload: &[Piece],
        _window: ReceiveWindow,
        _mem: &mut M,
    ) -> Inserted {
        unreachable!("being written")
    }
    /// Data that begins at `nxt`, once it has got there. The caller owns it and advances RCV.NXT
    /// by its length.
    pub fn pop_ready<M: Memory>(&mut self, _nxt: SeqNum, _mem: &mut M) -> Option<Data> {
        unreachable!("being written")
    }
    /// Copies all data out of slots and releases these; returns the number of bytes copied.
    pub fn compact<M: Memory>(&mut self, _mem: &mut M) -> u32 {
        unreachable!("being written")
    }
    /// Releases everything.
    pub fn clear<M: Memory>(&mut self, _mem: &mut M) {
        unreachable!("being written")
    }
    /// The blocks to report, the one with the latest segment first (RFC 2018 §4).
    #[must_use]
    pub fn sack_blocks(&self) -> ArrayVec<SackBlock, SACK_BLOCKS_MAX> {
        unreachable!("being written")
    }
    /// Slots held.
    #[must_use]
    pub fn held_slots(&self) -> usize {
        unreachable!("being written")
    }
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        unreachable!("being written")
    }
}
