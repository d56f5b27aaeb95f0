//! The table of registered regions that every backend checks its work requests against.
//!
//! Owns the lkeys: an lkey is the region's place in the table. Never unmaps or touches memory.
//! Invariant: a region that is in the table stays mapped (the promise of [`super::Nic::register`]),
//! so a range that [`Regions::check`] accepted may be read, and written if it asked for that.

use super::{DeviceError, Lkey, PostError, RegionView, Sge};
use arrayvec::ArrayVec;

/// Regions that one NIC holds at most.
pub const REGIONS_MAX: usize = 64;

/// What the NIC will do to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it, for a send.
    Read,
    /// Write it, for a receive.
    Write,
}

/// A place that holds no region any more.
const FORGOTTEN: RegionView = RegionView { addr: 0, length: 0, memfd: None, writable: false };

/// The regions of one NIC.
#[derive(Debug, Default)]
pub struct Regions {
    table: ArrayVec<RegionView, REGIONS_MAX>,
}

impl Regions {
    /// Adds a region; `device` is for the message only.
    ///
    /// # Errors
    /// If the table is full, or the region wraps around the address space.
    pub fn add(&mut self, device: &str, region: RegionView) -> Result<Lkey, DeviceError> {
        let refuse = |errno: i32, remedy: String| DeviceError {
            device: device.to_owned(),
            call: "register",
            source: std::io::Error::from_raw_os_error(errno),
            remedy,
        };
        if region.addr.checked_add(region.length).is_none() {
            return Err(refuse(libc::EINVAL, "the region leaves the address space".to_owned()));
        }
        let index = |at: usize| Lkey(u32::try_from(at).unwrap_or(u32::MAX));
        let next = self.table.len();
        if self.table.try_push(region).is_ok() {
            return Ok(index(next));
        }
        match self.table.iter().position(|known| *known == FORGOTTEN) {
            Some(at) => {
                self.table[at] = region;
                Ok(index(at))
            }
            None => Err(refuse(libc::ENOMEM, format!("at most {REGIONS_MAX} regions"))),
        }
    }

    /// Forgets a region. Its lkey is given out again only when the table is full, so that a late
    /// use of it is found.
    pub fn remove(&mut self, lkey: Lkey) {
        let region = usize::try_from(lkey.0).ok().and_then(|index| self.table.get_mut(index));
        if let Some(region) = region {
            *region = FORGOTTEN;
        }
    }

    /// Checks that the element lies in the region it names and that the region allows the access.
    ///
    /// # Errors
    /// [`PostError::BadLkey`] for an unknown lkey, or a write to a region registered for reading;
    /// [`PostError::OutOfBounds`] for a range that leaves its region.
    #[inline]
    pub fn check(&self, sge: &Sge, access: Access) -> Result<(), PostError> {
        let Some(region) = usize::try_from(sge.lkey.0).ok().and_then(|i| self.table.get(i)) else {
            return Err(PostError::BadLkey);
        };
        if access == Access::Write && !region.writable {
            return Err(PostError::BadLkey);
        }
        // An address below the region wraps to a large offset, so one comparison catches both.
        let offset = sge.addr.wrapping_sub(region.addr);
        match region.length.checked_sub(offset) {
            Some(room) if u64::from(sge.length) <= room => Ok(()),
            _ => Err(PostError::OutOfBounds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(addr: u64, length: u64, writable: bool) -> RegionView {
        RegionView { addr, length, memfd: None, writable }
    }

    #[test]
    fn ranges_are_held_to_their_region() {
        let mut regions = Regions::default();
        let read = regions.add("t", region(0x1000, 0x1000, false)).unwrap();
        let write = regions.add("t", region(0x8000, 0x100, true)).unwrap();
        let rows = [
            ("whole region", 0x1000, 0x1000, read, Access::Read, Ok(())),
            ("last byte", 0x1fff, 1, read, Access::Read, Ok(())),
            ("empty at the end", 0x2000, 0, read, Access::Read, Ok(())),
            ("one past", 0x1fff, 2, read, Access::Read, Err(PostError::OutOfBounds)),
            ("one before", 0xfff, 1, read, Access::Read, Err(PostError::OutOfBounds)),
            ("beyond", 0x2001, 0, read, Access::Read, Err(PostError::OutOfBounds)),
            ("longest", 0x1000, u32::MAX, read, Access::Read, Err(PostError::OutOfBounds)),
            ("other region's", 0x8000, 1, read, Access::Read, Err(PostError::OutOfBounds)),
            ("read-only", 0x1000, 1, read, Access::Write, Err(PostError::BadLkey)),
            ("writable", 0x8000, 0x100, write, Access::Write, Ok(())),
            ("unknown", 0x1000, 1, Lkey(2), Access::Read, Err(PostError::BadLkey)),
            ("garbage", 0x1000, 1, Lkey(u32::MAX), Access::Read, Err(PostError::BadLkey)),
        ];
        for (name, addr, length, lkey, access, expected) in rows {
            assert_eq!(regions.check(&Sge { addr, length, lkey }, access), expected, "{name}");
        }
    }

    #[test]
    fn a_full_table_and_a_wrapping_region_are_refused() {
        let mut regions = Regions::default();
        assert!(regions.add("t", region(u64::MAX, 2, true)).is_err());
        for _ in 0..REGIONS_MAX {
            regions.add("t", region(0, 1, true)).unwrap();
        }
        assert!(regions.add("t", region(0, 1, true)).is_err());
    }
}
