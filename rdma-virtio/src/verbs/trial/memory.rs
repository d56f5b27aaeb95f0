//! Registered memory that a device writes while this process may look at it: bytes that are
//! atomics.
//!
//! Owns the bytes. Invariant: they stay where they are until the value is dropped, which is after
//! the region that names them, and after the queue pairs of the trial, which are declared first.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::nic::{DeviceError, Sge};
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::region::{Access, Region};

/// Registered memory.
pub(super) struct Memory {
    // The region is dropped first.
    region: Region,
    bytes: Box<[AtomicU8]>,
}

impl Memory {
    pub(super) fn new(domain: &ProtectionDomain, length: usize) -> Result<Memory, DeviceError> {
        let bytes: Box<[AtomicU8]> = (0..length).map(|_| AtomicU8::new(0)).collect();
        let addr = u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or(u64::MAX);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        // SAFETY: the bytes are atomics, which anybody may touch at any time; they are dropped
        // after the region and the queue pairs (the invariant of this file).
        let region = unsafe { domain.register(addr, length, Access::LocalWrite) }?;
        Ok(Memory { region, bytes })
    }

    /// An element over `length` bytes from `offset`, which lie inside.
    pub(super) fn sge(&self, offset: usize, length: usize) -> Sge {
        let bytes = &self.bytes[offset..offset + length];
        Sge {
            addr: u64::try_from(bytes.as_ptr().addr()).unwrap_or(u64::MAX),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            lkey: self.region.lkey(),
        }
    }

    /// Elements over `length` bytes from `offset`: `pieces` of about the same length.
    pub(super) fn sges(&self, offset: usize, length: usize, pieces: usize) -> Vec<Sge> {
        let piece = length.div_ceil(pieces.max(1)).max(1);
        let starts = (0..length).step_by(piece);
        starts.map(|at| self.sge(offset + at, piece.min(length - at))).collect()
    }

    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        for (place, byte) in self.bytes[offset..offset + bytes.len()].iter().zip(bytes) {
            place.store(*byte, Ordering::Relaxed);
        }
    }

    pub(super) fn fill(&self, offset: usize, length: usize, byte: u8) {
        for place in &self.bytes[offset..offset + length] {
            place.store(byte, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let bytes = self.bytes[offset..offset + length].iter();
        bytes.map(|byte| byte.load(Ordering::Relaxed)).collect()
    }
}
