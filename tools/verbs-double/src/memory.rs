//! Registered memory: keys, bounds and access rights, and the only two places where the double
//! touches a program's buffers.
//!
//! Source: ibv_reg_mr(3). "Local read access is always enabled"; receiving needs
//! `IBV_ACCESS_LOCAL_WRITE`; remote write needs it too; an SGE's `addr` counts from the region's
//! start if it is zero-based; ibv_post_send(3): the key of an inline request is not checked.

use std::collections::HashMap;

use crate::abi::consts;
use crate::abi::work::Sge;

/// A registered region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// First byte as this process sees it.
    pub(crate) base: u64,
    /// First byte as SGEs name it.
    pub(crate) iova: u64,
    /// In bytes.
    pub(crate) length: u64,
    /// `enum ibv_access_flags`.
    pub(crate) access: u32,
    /// Handle of its protection domain.
    pub(crate) pd: u32,
    /// Number of its device.
    pub(crate) device: usize,
    /// What peers name it by.
    pub(crate) rkey: u32,
}

/// Regions by lkey.
#[derive(Default)]
pub(crate) struct Regions {
    by_lkey: HashMap<u32, Region>,
    by_rkey: HashMap<u32, u32>,
    issued: u32,
}

/// A range that failed the checks of memory protection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Denied;

/// What a region is to be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Use {
    /// The queue's protection domain.
    pub(crate) pd: u32,
    /// Access flags that the region must have.
    pub(crate) access: u32,
}

/// Bytes of this process, checked against a region.
#[derive(Clone, Copy)]
struct Bytes {
    address: u64,
    length: usize,
}

impl Regions {
    /// Takes a region in; returns its lkey. Keys are never used twice in a process, so that a
    /// stale one fails.
    pub(crate) fn insert(&mut self, mut region: Region) -> (u32, u32) {
        self.issued += 1;
        let lkey = (self.issued << 8) | 0x11;
        region.rkey = lkey | 0x8000_0000;
        self.by_lkey.insert(lkey, region);
        self.by_rkey.insert(region.rkey, lkey);
        (lkey, region.rkey)
    }

    /// Forgets a region.
    pub(crate) fn remove(&mut self, lkey: u32) -> Option<Region> {
        let region = self.by_lkey.remove(&lkey)?;
        self.by_rkey.remove(&region.rkey);
        Some(region)
    }

    /// How many a device has, and their bytes.
    pub(crate) fn of_device(&self, device: usize) -> (usize, u64) {
        let own = self.by_lkey.values().filter(|region| region.device == device);
        own.fold((0, 0), |(count, bytes), region| (count + 1, bytes + region.length))
    }

    /// Whether a protection domain has any.
    pub(crate) fn any_of_pd(&self, pd: u32) -> bool {
        self.by_lkey.values().any(|region| region.pd == pd)
    }

    fn check(region: &Region, addr: u64, length: u64, wanted: Use) -> Result<Bytes, Denied> {
        let offset = addr.checked_sub(region.iova).ok_or(Denied)?;
        let end = offset.checked_add(length).ok_or(Denied)?;
        let allowed = region.access & wanted.access == wanted.access;
        if region.pd != wanted.pd || !allowed || end > region.length {
            return Err(Denied);
        }
        let length = usize::try_from(length).map_err(|_| Denied)?;
        Ok(Bytes { address: region.base + offset, length })
    }

    fn local(&self, sge: &Sge, wanted: Use) -> Result<Bytes, Denied> {
        let region = self.by_lkey.get(&sge.lkey).ok_or(Denied)?;
        Self::check(region, sge.addr, u64::from(sge.length), wanted)
    }

    fn remote(&self, rkey: u32, addr: u64, length: u64, wanted: Use) -> Result<Bytes, Denied> {
        let lkey = self.by_rkey.get(&rkey).ok_or(Denied)?;
        Self::check(self.by_lkey.get(lkey).ok_or(Denied)?, addr, length, wanted)
    }

    /// Appends the bytes that the SGEs name.
    ///
    /// # Errors
    /// If one of them names no region of this domain, or leaves it.
    pub(crate) fn gather(&self, pd: u32, sges: &[Sge], out: &mut Vec<u8>) -> Result<(), Denied> {
        for sge in sges.iter().filter(|sge| sge.length > 0) {
            fetch(self.local(sge, Use { pd, access: 0 })?, out);
        }
        Ok(())
    }

    /// Writes `data` over the SGEs in order; all of them are checked, used or not.
    ///
    /// # Errors
    /// If one of them names no region that may be written locally, or leaves it. Nothing was
    /// written then.
    pub(crate) fn scatter(&self, pd: u32, sges: &[Sge], mut data: &[u8]) -> Result<(), Denied> {
        let wanted = Use { pd, access: consts::ACCESS_LOCAL_WRITE };
        let used = sges.iter().filter(|sge| sge.length > 0);
        let ranges: Vec<Bytes> =
            used.map(|sge| self.local(sge, wanted)).collect::<Result<_, _>>()?;
        for range in ranges {
            let (now, rest) = data.split_at(range.length.min(data.len()));
            store(range.address, now);
            data = rest;
        }
        Ok(())
    }

    /// Writes on behalf of a peer.
    ///
    /// # Errors
    /// If the key, the range or the rights are wrong.
    pub(crate) fn write_remote(&self, pd: u32, at: (u32, u64), data: &[u8]) -> Result<(), Denied> {
        if !data.is_empty() {
            let length = u64::try_from(data.len()).map_err(|_| Denied)?;
            let wanted = Use { pd, access: consts::ACCESS_REMOTE_WRITE };
            store(self.remote(at.0, at.1, length, wanted)?.address, data);
        }
        Ok(())
    }

    /// Reads on behalf of a peer.
    ///
    /// # Errors
    /// If the key, the range or the rights are wrong.
    pub(crate) fn read_remote(
        &self,
        pd: u32,
        at: (u32, u64),
        length: u32,
    ) -> Result<Vec<u8>, Denied> {
        let mut out = Vec::new();
        if length > 0 {
            let wanted = Use { pd, access: consts::ACCESS_REMOTE_READ };
            fetch(self.remote(at.0, at.1, u64::from(length), wanted)?, &mut out);
        }
        Ok(out)
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}

/// Appends bytes that a program named without a key: inline data and TSO headers.
///
/// # Safety
/// `address` must point at `length` readable bytes.
pub(crate) unsafe fn fetch_inline(address: u64, length: usize, out: &mut Vec<u8>) {
    fetch(Bytes { address, length }, out);
}

fn fetch(range: Bytes, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + range.length, 0);
    // SAFETY: the program registered the range, or passed it inline, and so promised that it is
    // readable until it deregisters it or the call returns; `out` was just made long enough.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer(range.address).cast_const(),
            out[at..].as_mut_ptr(),
            range.length,
        );
    }
}

fn store(address: u64, data: &[u8]) {
    // SAFETY: the program registered the range with a right to write and so promised that it
    // stays mapped and that nobody else touches it while it is posted.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), pointer(address), data.len()) }
}

/// Whether every page of a range is mapped: registering pins pages, so that it fails otherwise.
pub(crate) fn is_mapped(address: u64, length: u64) -> bool {
    let start = address & !4095;
    let Ok(bytes) = usize::try_from(address.saturating_add(length) - start) else { return false };
    // SAFETY: msync with MS_ASYNC changes nothing; it reports unmapped pages with ENOMEM.
    unsafe { libc::msync(pointer(start).cast(), bytes, libc::MS_ASYNC) == 0 }
}
