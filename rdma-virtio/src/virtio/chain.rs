//! The device half's walk over a descriptor chain that it does not trust.
//!
//! What comes out is a list of segments that exist; what does not fit the rules is refused with
//! the reason. Invariants: at most as many descriptors are looked at as the queue has entries,
//! each is copied once and only the copy is used, and tables are read only inside regions.

use arrayvec::ArrayVec;

use super::layout::{DESC_INDIRECT, DESC_LEN, DESC_NEXT, DESC_WRITE, Descriptor};
use super::ring::{DeviceRing, Policy};
use crate::memory::region::{RegionTable, Segment};

/// Most segments of one chain: twice what a packet of 64 KiB takes in pages that are not aligned.
pub const CHAIN_MAX: usize = 40;

/// The segments of a chain, in order.
pub type Chain = ArrayVec<Segment, CHAIN_MAX>;

/// What the device may do with the buffers of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Read them: a packet to send.
    Readable,
    /// Write them: room for a received packet.
    Writable,
}

/// Why a chain was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// A head or a link is no entry of the queue or table.
    #[error("an index beyond the queue")]
    Index,
    /// Bytes outside of every region.
    #[error("an address outside of the registered regions")]
    Address,
    /// A writable buffer in a packet to send, or a readable one in room for a packet.
    #[error("a buffer with the wrong direction")]
    Direction,
    /// More descriptors than the queue holds: a loop.
    #[error("a chain longer than the queue")]
    Loop,
    /// More segments than are supported, or more than 4 GiB.
    #[error("a chain of more than {CHAIN_MAX} buffers")]
    TooLong,
    /// A table that is empty, no multiple of a descriptor, longer than the queue, within another
    /// table, or followed by a further descriptor.
    #[error("an indirect table against the rules")]
    Table,
}

/// Where the next descriptor comes from.
#[derive(Clone, Copy)]
enum Source {
    Queue,
    Table { table: Segment, entries: u16 },
}

/// Walks the chain that begins at `head` into `out`; returns the bytes in all.
///
/// # Errors
/// The first rule that the chain breaks; `out` is then meaningless.
pub fn walk<P: Policy>(
    ring: &DeviceRing<P>,
    regions: &RegionTable,
    head: u16,
    direction: Direction,
    out: &mut Chain,
) -> Result<u32, ChainError> {
    out.clear();
    let size = ring.size();
    let mut source = Source::Queue;
    let mut index = head;
    let mut total = 0_u32;
    for _ in 0..size {
        let descriptor = match source {
            Source::Queue if index < size => ring.descriptor(index),
            Source::Table { table, entries } if index < entries => table_entry(table, index)?,
            Source::Queue | Source::Table { .. } => return Err(ChainError::Index),
        };
        if descriptor.flags & DESC_INDIRECT != 0 {
            if matches!(source, Source::Table { .. }) || descriptor.flags & DESC_NEXT != 0 {
                return Err(ChainError::Table);
            }
            source = open_table(regions, descriptor, size)?;
            index = 0;
            continue;
        }
        total = total.checked_add(descriptor.len).ok_or(ChainError::TooLong)?;
        push(regions, descriptor, direction, out)?;
        if descriptor.flags & DESC_NEXT == 0 {
            return Ok(total);
        }
        index = descriptor.next;
    }
    Err(ChainError::Loop)
}

fn push(
    regions: &RegionTable,
    descriptor: Descriptor,
    direction: Direction,
    out: &mut Chain,
) -> Result<(), ChainError> {
    let writable = descriptor.flags & DESC_WRITE != 0;
    if writable != (direction == Direction::Writable) {
        return Err(ChainError::Direction);
    }
    if descriptor.len == 0 {
        return Ok(());
    }
    let segment = regions.find(descriptor.addr, descriptor.len).ok_or(ChainError::Address)?;
    out.try_push(segment).map_err(|_| ChainError::TooLong)
}

fn open_table(
    regions: &RegionTable,
    descriptor: Descriptor,
    size: u16,
) -> Result<Source, ChainError> {
    let entries = descriptor.len / DESC_LEN;
    if entries == 0 || !descriptor.len.is_multiple_of(DESC_LEN) || entries > u32::from(size) {
        return Err(ChainError::Table);
    }
    let table = regions.find(descriptor.addr, descriptor.len).ok_or(ChainError::Address)?;
    let entries = u16::try_from(entries).map_err(|_| ChainError::Table)?;
    Ok(Source::Table { table, entries })
}

#[inline]
fn table_entry(table: Segment, index: u16) -> Result<Descriptor, ChainError> {
    let bytes: [u8; 16] =
        table.skip(u32::from(index) * DESC_LEN).read().ok_or(ChainError::Table)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    Ok(Descriptor::from_words([
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]))
}

#[cfg(all(test, not(loom)))]
#[path = "chain_tests.rs"]
mod tests;
