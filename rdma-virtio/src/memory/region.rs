//! The memory that descriptors may name: a table of regions that may come and go.
//!
//! A descriptor's address is never used as it stands. It is looked up here, and what comes out is a
//! [`Segment`]: bytes that exist, in one region, with the lkey under which the NIC knows them.
//! Bytes of a segment may change at any time if someone else can write them: they are copied to a
//! local and only the copy is looked at.

use std::hint::cold_path;

use arrayvec::ArrayVec;

use super::sum;
use crate::barrier;
use crate::nic::{Lkey, Sge};

/// Most regions in a table.
pub const REGIONS_MAX: usize = 16;

/// A region: addresses as a driver writes them, and where they lie in this process.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address, as descriptors name it.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// First byte, as an address of this process.
    pub host: u64,
    /// The NIC's name for it.
    pub lkey: Lkey,
}

impl Region {
    /// The bytes at `addr`, if they all lie here.
    #[inline]
    fn segment(&self, addr: u64, length: u32) -> Option<Segment> {
        // An address below the region wraps to a large offset.
        let offset = addr.wrapping_sub(self.base);
        if offset < self.length && u64::from(length) <= self.length - offset {
            Some(Segment { addr: self.host + offset, length, lkey: self.lkey })
        } else {
            None
        }
    }
}

/// Longest range for which [`RegionTable::find_near`] has a shorter check.
const SHORT_MAX: u32 = 256;

/// The table is full, or the region is empty, overlaps another or leaves the address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the region is empty, overlaps another, or is more than the {REGIONS_MAX} allowed")]
pub struct RegionError;

/// Bytes of one region that were found in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    addr: u64,
    length: u32,
    lkey: Lkey,
}

impl Segment {
    /// No bytes.
    pub const EMPTY: Segment = Segment { addr: 0, length: 0, lkey: Lkey(u32::MAX) };

    /// Whether it lies somewhere, as all but [`Segment::EMPTY`] do.
    #[must_use]
    #[inline]
    pub fn exists(self) -> bool {
        self.addr != 0
    }

    /// First byte, as an address of this process.
    #[must_use]
    #[inline]
    pub fn addr(self) -> u64 {
        self.addr
    }

    /// Number of bytes.
    #[must_use]
    #[inline]
    pub fn length(self) -> u32 {
        self.length
    }

    /// The scatter-gather element for the NIC.
    #[must_use]
    #[inline]
    pub fn sge(self) -> Sge {
        Sge { addr: self.addr, length: self.length, lkey: self.lkey }
    }

    /// The segment without its first `n` bytes; empty if it has fewer.
    #[must_use]
    #[inline]
    pub fn skip(self, n: u32) -> Segment {
        let n = n.min(self.length);
        Segment { addr: self.addr + u64::from(n), length: self.length - n, lkey: self.lkey }
    }

    /// The first `n` bytes; all if it has fewer.
    #[must_use]
    #[inline]
    pub fn take(self, n: u32) -> Segment {
        Segment { length: n.min(self.length), ..self }
    }

    /// A copy of the first `N` bytes, or `None` if there are fewer.
    #[must_use]
    #[inline]
    pub fn read<const N: usize>(self) -> Option<[u8; N]> {
        if (self.length as usize) < N {
            return None;
        }
        let from = std::ptr::with_exposed_provenance::<[u8; N]>(host_address(self.addr));
        // SAFETY: as in `read_into`; there are at least `N` bytes.
        let copy = unsafe { from.read_unaligned() };
        barrier::copied_in();
        Some(copy)
    }

    /// Copies the first `N` bytes to `out`, if there are as many; says whether.
    #[inline]
    pub fn read_all<const N: usize>(self, out: &mut [u8; N]) -> bool {
        if (self.length as usize) < N {
            return false;
        }
        let from = std::ptr::with_exposed_provenance::<[u8; N]>(host_address(self.addr));
        // SAFETY: as in `read_into`; there are at least `N` bytes.
        unsafe { std::ptr::copy_nonoverlapping(from, out, 1) };
        barrier::copied_in();
        true
    }

    /// Copies the first bytes to `out`; returns how many there were.
    #[inline]
    pub fn read_into(self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.length as usize);
        let from = std::ptr::with_exposed_provenance::<u8>(host_address(self.addr));
        // SAFETY: the bytes lie in a region of the table, whose inserter keeps it mapped; `out` is
        // a local that no region overlaps, and `n` is within both.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), n) };
        barrier::copied_in();
        n
    }

    /// The sum of the whole blocks of [`sum::BLOCK`] bytes at the front, as of [`sum::blocks`], and
    /// what is behind them. Only a sum comes out, so nothing is copied first: if somebody changes
    /// the bytes meanwhile, the sum is wrong, as is what is done with it.
    #[inline]
    pub(crate) fn sum_blocks(self) -> (u64, Segment) {
        let count = self.length as usize / sum::BLOCK;
        let from = std::ptr::with_exposed_provenance::<u8>(host_address(self.addr));
        // SAFETY: the bytes lie in a region of the table, whose inserter keeps it mapped; `count`
        // blocks are within the segment.
        let sum = unsafe { sum::of_blocks(from, count) };
        let rest = self.length % u32::try_from(sum::BLOCK).unwrap_or(u32::MAX);
        (sum, self.skip(self.length - rest))
    }

    /// Writes exactly these bytes if there is room for all of them.
    #[inline]
    pub fn write_all<const N: usize>(self, bytes: [u8; N]) {
        if (self.length as usize) >= N {
            let to = std::ptr::with_exposed_provenance_mut::<[u8; N]>(host_address(self.addr));
            // SAFETY: as in `write`; there is room for `N` bytes.
            unsafe { to.write_unaligned(bytes) };
        }
    }

    /// Writes the first bytes; returns how many there was room for.
    #[inline]
    pub fn write(self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.length as usize);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(host_address(self.addr));
        // SAFETY: as in `read_into`; nobody holds a Rust reference to bytes that are the device's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
        n
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "addresses are 64 bits wide on every target")]
fn host_address(addr: u64) -> usize {
    const { assert!(usize::BITS == 64) };
    addr as usize
}

/// A copy of the region in which something was found last, or of none. Its owner forgets it when
/// the table may change.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    region: Region,
    /// Offsets below this have at least [`SHORT_MAX`] bytes behind them.
    shorts: u64,
}

impl Default for Near {
    fn default() -> Near {
        Near::of(Region { base: 0, length: 0, host: 0, lkey: Lkey(u32::MAX) })
    }
}

impl Near {
    fn of(region: Region) -> Near {
        Near { region, shorts: region.length.saturating_sub(u64::from(SHORT_MAX) - 1) }
    }

    /// The bytes at `addr`, if they all lie here.
    #[inline(always)]
    fn segment(&self, addr: u64, length: u32) -> Option<Segment> {
        let offset = addr.wrapping_sub(self.region.base);
        if length <= SHORT_MAX && offset < self.shorts {
            let addr = self.region.host + offset;
            return Some(Segment { addr, length, lkey: self.region.lkey });
        }
        self.region.segment(addr, length)
    }

    /// Finds segments of one length in this region; `None` if it is shorter.
    #[must_use]
    #[inline]
    pub fn of_length(self, length: u32) -> Option<Alike> {
        let last = self.region.length.checked_sub(u64::from(length))?;
        Some(Alike { region: self.region, last, length })
    }
}

/// Segments of one length in one region.
#[derive(Clone, Copy, Debug)]
pub struct Alike {
    region: Region,
    /// Offset of the last one.
    last: u64,
    length: u32,
}

impl Alike {
    /// The length of each.
    #[must_use]
    #[inline]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The NIC's name for the region.
    #[must_use]
    #[inline]
    pub fn lkey(&self) -> Lkey {
        self.region.lkey
    }

    /// The one that begins at `addr`, if it lies in the region.
    #[must_use]
    #[inline]
    pub fn at(&self, addr: u64) -> Option<Segment> {
        // An address below the region wraps to a large offset.
        let offset = addr.wrapping_sub(self.region.base);
        if offset > self.last {
            return None;
        }
        let Region { host, lkey, .. } = self.region;
        Some(Segment { addr: host + offset, length: self.length, lkey })
    }
}

/// The regions that descriptors may name.
#[derive(Debug, Default)]
pub struct RegionTable {
    regions: ArrayVec<Region, REGIONS_MAX>,
}

impl RegionTable {
    /// A table with no region: every address is refused.
    #[must_use]
    pub fn new() -> RegionTable {
        RegionTable::default()
    }

    /// Adds a region.
    ///
    /// # Safety
    /// The range at `region.host` must be mapped, readable and writable, with its provenance
    /// exposed, until the region was removed and no segment of it is in use.
    ///
    /// # Errors
    /// See [`RegionError`].
    pub unsafe fn insert(&mut self, region: Region) -> Result<(), RegionError> {
        let end = region.base.checked_add(region.length).ok_or(RegionError)?;
        region.host.checked_add(region.length).ok_or(RegionError)?;
        let overlaps = self.regions.iter().any(|r| region.base < r.base + r.length && r.base < end);
        if region.length == 0 || region.host == 0 || overlaps {
            return Err(RegionError);
        }
        self.regions.try_push(region).map_err(|_| RegionError)
    }

    /// Takes away the region that begins at `base`, as descriptors name it.
    pub fn remove(&mut self, base: u64) -> Option<Region> {
        let at = self.regions.iter().position(|r| r.base == base)?;
        Some(self.regions.remove(at))
    }

    /// As [`RegionTable::find`], looking first into the region that was found last.
    #[must_use]
    #[inline(always)]
    pub fn find_near(&self, near: &mut Near, addr: u64, length: u32) -> Option<Segment> {
        if let Some(segment) = near.segment(addr, length) {
            return Some(segment);
        }
        cold_path();
        self.look_for(near, addr, length);
        near.segment(addr, length)
    }

    #[inline(never)]
    fn look_for(&self, near: &mut Near, addr: u64, length: u32) {
        if let Some(found) = self.regions.iter().find(|r| r.segment(addr, length).is_some()) {
            *near = Near::of(*found);
        }
    }

    /// The bytes that a descriptor names, if they all lie in one region.
    #[must_use]
    #[inline]
    pub fn find(&self, addr: u64, length: u32) -> Option<Segment> {
        self.regions.iter().find_map(|region| region.segment(addr, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RegionTable {
        let mut table = RegionTable::new();
        for (base, length, host, key) in [(0x1000, 0x1000, 0x7000_0000, 1), (0x8000, 16, 0x10, 2)] {
            // SAFETY: the test never touches the bytes.
            unsafe { table.insert(Region { base, length, host, lkey: Lkey(key) }) }.unwrap();
        }
        table
    }

    #[test]
    fn addresses_are_found_only_where_all_bytes_lie_in_one_region() {
        let rows: [(&str, u64, u32, Option<u64>); 8] = [
            ("first byte", 0x1000, 1, Some(0x7000_0000)),
            ("all of it", 0x1000, 0x1000, Some(0x7000_0000)),
            ("one too long", 0x1000, 0x1001, None),
            ("the end", 0x1FFF, 1, Some(0x7000_0FFF)),
            ("across the end", 0x1FFF, 2, None),
            ("before", 0xFFF, 1, None),
            ("second region", 0x8008, 8, Some(0x18)),
            ("wrapping", u64::MAX, u32::MAX, None),
        ];
        for (name, addr, length, expected) in rows {
            assert_eq!(table().find(addr, length).map(|s| s.sge().addr), expected, "{name}");
        }
    }

    #[test]
    fn what_was_found_last_is_checked_like_the_rest() {
        let table = table();
        let mut near = Near::default();
        assert_eq!(table.find_near(&mut near, 0, 0), None);
        for addr in [0x1000, 0x1EFF, 0x1F00, 0x1F01, 0x1FFF, 0x8008, 0x2000, 0x1800, 0xFFF, 0x800F]
        {
            for length in [0, 1, 2, 8, 255, 256, 257] {
                let found = table.find_near(&mut near, addr, length);
                assert_eq!(found, table.find(addr, length), "{addr:#x} {length}");
            }
        }
    }

    #[test]
    fn regions_come_and_go_and_never_overlap() {
        let mut table = table();
        let region = |base, length| Region { base, length, host: 0x20, lkey: Lkey(9) };
        for bad in [region(0x1800, 1), region(0x0, 0x1001), region(1, 0), region(u64::MAX, 2)] {
            // SAFETY: refused.
            assert_eq!(unsafe { table.insert(bad) }, Err(RegionError));
        }
        assert!(table.remove(0x1000).is_some());
        assert!(table.remove(0x1000).is_none());
        assert_eq!(table.find(0x1000, 1), None);
        // SAFETY: the test never touches the bytes.
        assert_eq!(unsafe { table.insert(region(0x1800, 1)) }, Ok(()));
    }
}
