//! The table of registered regions: lkeys and bounds, checked for each work request as hardware
//! checks them.
//!
//! An lkey is the number of its entry and a key that differs for each registration, so that an
//! lkey of another NIC or of garbage names nothing.

use super::layout::EXPORTS_MAX;
use crate::nic::{Lkey, PostError, RegionView, Sge};

/// Regions that one NIC may register.
pub(super) const REGIONS_MAX: usize = 32;

/// A registered region.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    lkey: u32,
    start: u64,
    length: u64,
    /// Whether receives may land here.
    writable: bool,
    /// Under which number the peer sees it.
    export: Option<u8>,
}

/// The regions of one NIC.
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// Those behind the first `count` have no bytes.
    table: [Region; REGIONS_MAX],
    count: u8,
    exports: u8,
}

/// Bytes of a region, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    /// First byte, as an address of this process.
    pub(super) addr: u64,
    /// Number of bytes.
    pub(super) length: u32,
    /// First byte, counted from the region's start.
    pub(super) offset: u64,
    /// Whether receives may land here.
    pub(super) writable: bool,
    /// Under which number the peer sees the region.
    pub(super) export: Option<u8>,
}

/// The addresses at which bytes of a region may begin, so that they end in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts {
    first: u64,
    /// Counted from the first.
    last: u64,
}

impl Starts {
    /// Whether the address is one of them.
    #[inline]
    pub(super) fn contains(self, addr: u64) -> bool {
        // An address below the first wraps to a large offset.
        addr.wrapping_sub(self.first) <= self.last
    }
}

impl Regions {
    /// Adds a region; `None` if the table, or its part that peers see, is full or the region
    /// wraps around the address space.
    pub(super) fn add(&mut self, view: &RegionView, key: u32) -> Option<Lkey> {
        let shown = view.memfd.is_some() && !view.writable;
        view.addr.checked_add(view.length)?;
        let fits = !shown
            || (usize::from(self.exports) < EXPORTS_MAX && u32::try_from(view.length).is_ok());
        let place = self.table.get_mut(usize::from(self.count))?;
        if !fits {
            return None;
        }
        let lkey = Lkey(key << 8 | u32::from(self.count));
        let export = shown.then_some(self.exports);
        self.exports += u8::from(shown);
        let (start, length) = (view.addr, view.length);
        *place = Region { lkey: lkey.0, start, length, writable: view.writable, export };
        self.count += 1;
        Some(lkey)
    }

    /// Forgets a region: its lkey names nothing any more. Its place stays taken.
    pub(super) fn remove(&mut self, lkey: Lkey) {
        let place = &mut self.table[usize::from(lkey.0.to_le_bytes()[0]) % REGIONS_MAX];
        if place.lkey == lkey.0 {
            *place = Region::default();
        }
    }

    /// Looks an element up.
    #[inline(always)]
    pub(super) fn resolve(&self, sge: &Sge) -> Result<Resolved, PostError> {
        // The whole lkey is compared, so that an index beyond the table meets another's lkey.
        let region = &self.table[usize::from(sge.lkey.0.to_le_bytes()[0]) % REGIONS_MAX];
        // An address below the region wraps to a large offset, and no bytes to many: one
        // comparison catches both ends.
        let offset = sge.addr.wrapping_sub(region.start);
        let behind_first = u64::from(sge.length).wrapping_sub(1);
        if region.lkey != sge.lkey.0
            || offset >= region.length
            || behind_first >= region.length - offset
        {
            return Err(self.refuse(sge));
        }
        Ok(Resolved {
            addr: sge.addr,
            length: sge.length,
            offset,
            writable: region.writable,
            export: region.export,
        })
    }

    /// Where receives of so many bytes may begin in the region of an lkey.
    #[inline]
    pub(super) fn receive_starts(&self, lkey: Lkey, length: u32) -> Result<Starts, PostError> {
        let region = &self.table[usize::from(lkey.0.to_le_bytes()[0]) % REGIONS_MAX];
        if region.lkey != lkey.0 || !region.writable {
            return Err(PostError::BadLkey);
        }
        match region.length.checked_sub(u64::from(length)) {
            Some(last) if length > 0 => Ok(Starts { first: region.start, last }),
            _ => Err(PostError::OutOfBounds),
        }
    }

    /// As [`Regions::resolve`], for a place that receives may land in.
    #[inline(always)]
    pub(super) fn resolve_writable(&self, sge: &Sge) -> Result<Resolved, PostError> {
        let found = self.resolve(sge)?;
        if found.writable { Ok(found) } else { Err(PostError::BadLkey) }
    }
}

impl Regions {
    /// Why an element is none.
    #[cold]
    fn refuse(&self, sge: &Sge) -> PostError {
        let known = &self.table[..usize::from(self.count)];
        let is_one = known.iter().any(|region| region.lkey == sge.lkey.0);
        if is_one { PostError::OutOfBounds } else { PostError::BadLkey }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(addr: u64, length: u64, writable: bool) -> RegionView {
        RegionView { addr, length, memfd: (!writable).then_some((0, 0)), writable }
    }

    #[test]
    fn every_element_is_checked_against_its_region() {
        let mut regions = Regions::default();
        let tx = regions.add(&view(0x1000, 0x1000, false), 7).unwrap();
        let rx = regions.add(&view(0x9000, 0x2000, true), 8).unwrap();
        let rows = [
            ("whole", 0x1000, 0x1000, tx, Ok(Some(0))),
            ("last byte", 0x1fff, 1, tx, Ok(Some(0))),
            ("one too far", 0x1fff, 2, tx, Err(PostError::OutOfBounds)),
            ("before", 0x0fff, 1, tx, Err(PostError::OutOfBounds)),
            ("other region's bytes", 0x9000, 1, tx, Err(PostError::OutOfBounds)),
            ("around the end of memory", u64::MAX, 2, tx, Err(PostError::OutOfBounds)),
            ("no bytes", 0x1000, 0, tx, Err(PostError::OutOfBounds)),
            ("private", 0x9000, 0x2000, rx, Ok(None)),
            ("wrong key", 0x1000, 1, Lkey(9 << 8), Err(PostError::BadLkey)),
            ("no such entry", 0x1000, 1, Lkey(7 << 8 | 200), Err(PostError::BadLkey)),
        ];
        for (name, addr, length, lkey, wanted) in rows {
            let found = regions.resolve(&Sge { addr, length, lkey }).map(|found| found.export);
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut regions = Regions::default();
        for index in 0..EXPORTS_MAX {
            assert!(regions.add(&view(0x1000, 64, false), 1).is_some(), "{index}");
        }
        assert!(regions.add(&view(0x1000, 64, false), 1).is_none());
        for _ in EXPORTS_MAX..REGIONS_MAX {
            assert!(regions.add(&view(0x1000, 64, true), 1).is_some());
        }
        assert!(regions.add(&view(0x1000, 64, true), 1).is_none());
        assert!(Regions::default().add(&view(u64::MAX, 2, true), 1).is_none());
    }
}
