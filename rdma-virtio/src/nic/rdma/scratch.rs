//! The NIC's own registered memory: a cell for the header of each message under way, and a place in
//! front of each receive.
//!
//! Invariant: a cell belongs to one work request from posting to completion; who posts keeps that.

use super::wire::header::HEADER_LEN;
use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::{DeviceError, Lkey, Sge};
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::region::{Access, Region};

/// Bytes in front of a receive: a header, and before it the GRH area of a datagram.
const FRONT_LEN: u32 = 64;
/// Bytes of a cell: a header.
const CELL_LEN: u32 = 32;

/// Registered memory: places in front of receives, then cells.
pub(super) struct Scratch {
    /// Deregistered before it is unmapped.
    _region: Region,
    mapping: Mapping,
    lkey: Lkey,
    fronts: u32,
    /// Their number, a power of two, less 1.
    fronts_mask: usize,
    cells: u32,
}

impl Scratch {
    /// So many places in front of receives, and so many cells.
    pub(super) fn new(
        device: &str,
        domain: &ProtectionDomain,
        (fronts, cells): (u32, u32),
    ) -> Result<Scratch, DeviceError> {
        // Any number has a front when it is cut to the mask.
        let fronts = fronts.next_power_of_two();
        let length = usize::try_from(fronts * FRONT_LEN + cells * CELL_LEN).unwrap_or(0);
        let mapping = Mapping::create(c"roceway-rdma", length, PageWish::Ordinary)
            .map_err(|error| error.into_device(device))?;
        let bytes = u64::try_from(mapping.len()).unwrap_or(0);
        // SAFETY: the region is dropped before the mapping; a cell is named by one work request at
        // a time and not touched before its completion (the invariant of this file).
        let region = unsafe { domain.register(mapping.addr(), bytes, Access::LocalWrite) }?;
        let lkey = region.lkey();
        Ok(Scratch {
            _region: region,
            mapping,
            lkey,
            fronts,
            fronts_mask: fronts as usize - 1,
            cells,
        })
    }

    /// Bytes registered.
    pub(super) fn length(&self) -> u64 {
        u64::try_from(self.mapping.len()).unwrap_or(0)
    }

    /// The last `length` bytes in front of a receive: what lies in front of a message ends there.
    pub(super) fn front(&self, receive: u16, length: u32) -> Sge {
        let offset = u32::from(receive) * FRONT_LEN + (FRONT_LEN - length);
        Sge { addr: self.mapping.addr() + u64::from(offset), length, lkey: self.lkey }
    }

    /// The header that the device put in front of a receive that is complete.
    #[inline(always)]
    pub(super) fn read(&self, receive: usize) -> &[u8; HEADER_LEN] {
        let receive = receive & self.fronts_mask;
        let end = receive * FRONT_LEN as usize + FRONT_LEN as usize;
        let from = self.mapping.as_ptr().wrapping_add(end - HEADER_LEN);
        // SAFETY: within the mapping; the device has no request that names the place, and gets none
        // without the engine, which is borrowed with it.
        unsafe { &*from.cast::<[u8; HEADER_LEN]>() }
    }

    #[inline]
    fn cell(&self, cell: u16) -> u32 {
        assert!(u32::from(cell) < self.cells, "within the scratch");
        self.fronts * FRONT_LEN + u32::from(cell) * CELL_LEN
    }

    /// The first `length` bytes of a cell.
    #[inline]
    pub(super) fn sge(&self, cell: u16, length: u32) -> Sge {
        let addr = self.mapping.addr() + u64::from(self.cell(cell));
        Sge { addr, length, lkey: self.lkey }
    }

    /// Writes a header into a cell that is not with the device.
    #[inline]
    pub(super) fn write(&mut self, cell: u16, header: [u8; HEADER_LEN]) {
        let to = self.mapping.as_mut_ptr().wrapping_add(self.cell(cell) as usize);
        // SAFETY: within the mapping; the device has no request that names the cell.
        unsafe { to.cast::<[u8; HEADER_LEN]>().write_unaligned(header) };
    }
}

/// The hardware address that lies at `offset`, two at least, in a buffer, as a number
/// ([`number`](super::wire::macs::number)): one reading of it and of the two bytes before.
///
/// # Safety
/// As for [`read_at`].
#[inline(always)]
pub(super) unsafe fn mac_at(sge: &Sge, offset: u32) -> Option<u64> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { read_at::<8>(sge, offset - 2) }?;
    Some(u64::from_le_bytes(bytes) >> 16)
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
