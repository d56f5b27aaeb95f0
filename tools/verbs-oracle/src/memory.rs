//! Memory that a device writes while this program may look at it: bytes that are atomics.
//!
//! Owns the bytes. Invariant: they stay where they are until the value is dropped, after the region
//! that names them.

use crate::Failure;
use roceway_rdma_virtio::nic::Sge;
use roceway_rdma_virtio::verbs::domain::ProtectionDomain;
use roceway_rdma_virtio::verbs::region::{Access, Region};
use std::sync::atomic::{AtomicU8, Ordering};

/// Registered memory.
pub struct Memory {
    // The region is dropped first.
    region: Region,
    bytes: Box<[AtomicU8]>,
}

impl Memory {
    /// Allocates and registers so many bytes.
    ///
    /// # Errors
    /// If they cannot be locked.
    pub fn new(domain: &ProtectionDomain, length: usize) -> Result<Memory, Failure> {
        let bytes: Box<[AtomicU8]> = (0..length).map(|_| AtomicU8::new(0)).collect();
        let addr = u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or(u64::MAX);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        // SAFETY: the bytes are atomics, which anybody may touch at any time; they are dropped
        // after the region, and the programs drop their queue pairs before this.
        let region = unsafe { domain.register(addr, length, Access::LocalWrite) }?;
        Ok(Memory { region, bytes })
    }

    /// An element over `length` bytes from `offset`.
    ///
    /// # Panics
    /// If they lie outside.
    #[must_use]
    pub fn sge(&self, offset: usize, length: usize) -> Sge {
        let bytes = &self.bytes[offset..offset + length];
        Sge {
            addr: u64::try_from(bytes.as_ptr().addr()).unwrap_or(u64::MAX),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            lkey: self.region.lkey(),
        }
    }

    /// Writes the bytes of message `number` at `offset`; of a message that is not among the first
    /// `WHOLE` only the first `MARK`, so that a long run measures verbs and not this loop.
    pub fn fill(&self, offset: usize, length: usize, number: u64) {
        let length = looked_at(length, number);
        for (place, byte) in self.bytes[offset..offset + length].iter().enumerate() {
            byte.store(pattern(number, place), Ordering::Relaxed);
        }
    }

    /// The bytes at `offset`.
    #[must_use]
    pub fn copy(&self, offset: usize, length: usize) -> Vec<u8> {
        let bytes = self.bytes[offset..offset + length].iter();
        bytes.map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Whether the bytes at `offset` are those of message `number`, as far as [`Memory::fill`]
    /// writes them.
    #[must_use]
    pub fn holds(&self, offset: usize, length: usize, number: u64) -> bool {
        let length = looked_at(length, number);
        let bytes = self.bytes[offset..offset + length].iter().enumerate();
        bytes
            .into_iter()
            .all(|(place, byte)| byte.load(Ordering::Relaxed) == pattern(number, place))
    }
}

/// Messages that are written and checked whole.
const WHOLE: u64 = 64;
/// Bytes that are written and checked of each later one.
const MARK: usize = 8;

fn looked_at(length: usize, number: u64) -> usize {
    if number < WHOLE { length } else { length.min(MARK) }
}

/// The byte at `place` of message `number`: neighbours differ, and so do messages.
fn pattern(number: u64, place: usize) -> u8 {
    let place = u64::try_from(place).unwrap_or(0);
    let mixed = (number ^ place.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_in_most_bytes() {
        let differs = |a: (u64, usize), b: (u64, usize)| pattern(a.0, a.1) != pattern(b.0, b.1);
        let between = (0..1000).filter(|&n| differs((n, 0), (n + 1, 0))).count();
        let within = (0..1000).filter(|&place| differs((7, place), (7, place + 1))).count();
        assert!(between > 950 && within > 950, "{between} {within}");
    }
}
