//! The NIC's own registered memory: a cell for the header of each message under way, and a place
//! in front of each receive.
//!
//! Invariant: a cell belongs to one work request from posting to completion; who posts keeps that.

use super::wire::header::HEADER_LEN;
use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::{DeviceError, Lkey, Sge};
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::region::{Access, Region};

/// Bytes of a cell: a header, and in front of it the GRH area of a datagram.
pub(super) const CELL_LEN: u32 = 64;

/// Cells of registered memory.
pub(super) struct Scratch {
    /// Deregistered before it is unmapped.
    _region: Region,
    mapping: Mapping,
    lkey: Lkey,
    cells: u32,
}

impl Scratch {
    /// So many cells, which the device may read, and write.
    pub(super) fn new(
        device: &str,
        domain: &ProtectionDomain,
        cells: u32,
    ) -> Result<Scratch, DeviceError> {
        let length = usize::try_from(cells * CELL_LEN).unwrap_or(0);
        let mapping = Mapping::create(c"roceway-rdma", length, PageWish::Ordinary)
            .map_err(|error| error.into_device(device))?;
        let bytes = u64::try_from(mapping.len()).unwrap_or(0);
        // SAFETY: the region is dropped before the mapping; a cell is named by one work request at
        // a time and not touched before its completion (the invariant of this file).
        let region = unsafe { domain.register(mapping.addr(), bytes, Access::LocalWrite) }?;
        let lkey = region.lkey();
        Ok(Scratch { _region: region, mapping, lkey, cells })
    }

    /// Bytes registered.
    pub(super) fn length(&self) -> u64 {
        u64::try_from(self.mapping.len()).unwrap_or(0)
    }

    /// `length` bytes of a cell, from its end: what lies in front of a message ends with it.
    pub(super) fn sge(&self, cell: u32, length: u32) -> Sge {
        let offset = u64::from(cell) * u64::from(CELL_LEN) + u64::from(CELL_LEN - length);
        Sge { addr: self.mapping.addr() + offset, length, lkey: self.lkey }
    }

    /// The last bytes of a cell.
    fn header(&self, cell: u32) -> *mut [u8; HEADER_LEN] {
        assert!(cell < self.cells, "within the scratch");
        let offset = usize::try_from((cell + 1) * CELL_LEN).unwrap_or(HEADER_LEN) - HEADER_LEN;
        self.mapping.as_mut_ptr().wrapping_add(offset).cast()
    }

    /// Writes a header into a cell that is not with the device.
    #[inline]
    pub(super) fn write(&mut self, cell: u32, header: [u8; HEADER_LEN]) {
        // SAFETY: within the mapping; the device has no request that names the cell.
        unsafe { self.header(cell).write_unaligned(header) };
    }

    /// The header that the device put into a cell whose request is complete.
    #[inline]
    pub(super) fn read(&self, cell: u32) -> [u8; HEADER_LEN] {
        // SAFETY: as above.
        unsafe { self.header(cell).read_unaligned() }
    }
}

/// Copies bytes out of a buffer whose receive is complete, or that a send names.
///
/// # Safety
/// The element names mapped memory that nobody writes meanwhile.
#[inline]
pub(super) unsafe fn read_at<const N: usize>(sge: &Sge, offset: u32) -> Option<[u8; N]> {
    let length = usize::try_from(sge.length.checked_sub(offset)?).ok()?;
    if length < N {
        return None;
    }
    let addr = usize::try_from(sge.addr + u64::from(offset)).ok()?;
    // SAFETY: inside of the element, for which the caller vouches.
    Some(unsafe { std::ptr::with_exposed_provenance::<[u8; N]>(addr).read_unaligned() })
}
