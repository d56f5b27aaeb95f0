//! Memory regions: memory that the device may reach, pinned.
//!
//! Owns the registration, never the memory. Looks at the limit of locked memory before it asks, so
//! that the error has the figures.

use super::domain::DomainInner;
use super::sys;
use crate::nic::{DeviceError, Lkey};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Bit of CAP_IPC_LOCK, which lifts the limit, in a capability set.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// What the device may do with a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it, for sends.
    Read,
    /// Read it, and write it for receives (`IBV_ACCESS_LOCAL_WRITE`).
    LocalWrite,
    /// As [`Access::LocalWrite`], with writes to memory in any order (PCI relaxed ordering), which
    /// is faster on some machines: completions still come after the data.
    RelaxedLocalWrite,
}

impl Access {
    fn flags(self) -> sys::ibv_access_flags {
        match self {
            Access::Read => 0,
            Access::LocalWrite => sys::IBV_ACCESS_LOCAL_WRITE,
            Access::RelaxedLocalWrite => {
                sys::IBV_ACCESS_LOCAL_WRITE | sys::IBV_ACCESS_RELAXED_ORDERING
            }
        }
    }
}

/// A registered region.
pub struct Region {
    domain: Arc<DomainInner>,
    region: NonNull<sys::ibv_mr>,
    length: u64,
    lkey: Lkey,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        let deregister = self.domain.context().table().ibv_dereg_mr;
        // SAFETY: made once, destroyed here.
        let _deregistered = unsafe { deregister(self.region.as_ptr()) };
    }
}

impl Region {
    /// # Safety
    /// As [`super::domain::ProtectionDomain::register`].
    pub(super) unsafe fn new(
        domain: &Arc<DomainInner>,
        addr: u64,
        length: u64,
        access: Access,
    ) -> Result<Region, DeviceError> {
        let context = domain.context();
        check_memlock(length).map_err(|(what, remedy)| {
            let mut error = context.failure("ibv_reg_mr", libc::ENOMEM);
            error.source = std::io::Error::new(std::io::ErrorKind::OutOfMemory, what);
            error.remedy = remedy;
            error
        })?;
        let bytes = usize::try_from(length);
        let start = usize::try_from(addr).map(ptr::with_exposed_provenance_mut);
        let (Ok(bytes), Ok(start)) = (bytes, start) else {
            return Err(context.failure("ibv_reg_mr", libc::EINVAL));
        };
        let flags = access.flags();
        let optional = flags & sys::OPTIONAL_ACCESS_FLAGS != 0;
        // As the macro ibv_reg_mr does: the older function knows no optional flags; libraries that
        // lack the newer one do without them.
        let pointer = match context.table().ibv_reg_mr_iova2 {
            // SAFETY: the caller's promise about the memory; the domain lives.
            Some(register) if optional => unsafe {
                register(domain.as_ptr(), start, bytes, addr, flags)
            },
            _ => {
                let flags = i32::try_from(flags & !sys::OPTIONAL_ACCESS_FLAGS).unwrap_or(0);
                // SAFETY: as above.
                unsafe { (context.table().ibv_reg_mr)(domain.as_ptr(), start, bytes, flags) }
            }
        };
        let region = context.object("ibv_reg_mr", pointer)?;
        // SAFETY: the region lives; the member is constant.
        let lkey = Lkey(unsafe { (*region.as_ptr()).lkey });
        Ok(Region { domain: Arc::clone(domain), region, length, lkey })
    }

    /// What scatter-gather elements name it by.
    #[must_use]
    pub fn lkey(&self) -> Lkey {
        self.lkey
    }

    /// Its length in bytes, all of which is pinned.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// The limit of locked memory, and how much of it this process uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memlock {
    /// Bytes that may be locked; none if there is no limit, or this process may pass it.
    pub limit: Option<u64>,
    /// Bytes that are pinned already.
    pub pinned: u64,
}

/// The limit of locked memory of this process (`RLIMIT_MEMLOCK`, CAP_IPC_LOCK) and its use
/// (`VmPin`).
///
/// # Errors
/// If /proc or the kernel does not tell.
pub fn memlock() -> std::io::Result<Memlock> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the limit.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let unlimited = limit.rlim_cur == libc::RLIM_INFINITY || may_pass(&status);
    let limit = (!unlimited).then_some(limit.rlim_cur);
    Ok(Memlock { limit, pinned: field(&status, "VmPin:").unwrap_or(0) * 1024 })
}

/// A number of /proc/self/status.
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Whether the effective capabilities lift the limit.
fn may_pass(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set & CAP_IPC_LOCK != 0)
}

/// Whether `length` more bytes may be pinned; else what is wrong and what to do. What cannot be
/// found out is left to the kernel.
fn check_memlock(length: u64) -> Result<(), (String, String)> {
    memlock().map_or(Ok(()), |now| fits(now, length))
}

fn fits(now: Memlock, length: u64) -> Result<(), (String, String)> {
    let needed = now.pinned.saturating_add(length);
    match now.limit {
        Some(limit) if needed > limit => Err((
            format!(
                "{length} bytes are to be locked, {} are, and the limit is {limit}",
                now.pinned
            ),
            format!(
                "ulimit -l {} (as root), or LimitMEMLOCK= of the service",
                needed.div_ceil(1024)
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tx\nVmLck:\t    4 kB\nVmPin:\t   16 kB\nCapEff:\t0000000000004000\n";

    #[test]
    fn the_limit_is_read_from_the_kernels_words() {
        assert_eq!(field(STATUS, "VmPin:"), Some(16));
        assert_eq!(field(STATUS, "VmHuge:"), None);
        assert!(may_pass(STATUS));
        assert!(!may_pass("CapEff:\t000001ffffffbfff\n"));
        assert!(!may_pass("CapEff:\tx\n"));
        memlock().expect("every Linux has /proc/self/status");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_limit_to_set() {
        let kib = |kib: u64| kib * 1024;
        for (name, limit, pinned, length, expected) in [
            ("no limit", None, kib(1), u64::MAX, None),
            ("to the byte", Some(kib(64)), kib(16), kib(48), None),
            ("one byte more", Some(kib(64)), kib(16), kib(48) + 1, Some("ulimit -l 65 ")),
            (
                "beyond all numbers",
                Some(kib(64)),
                1,
                u64::MAX,
                Some("ulimit -l 18014398509481984 "),
            ),
        ] {
            let result = fits(Memlock { limit, pinned }, length);
            let remedy = result.err().map(|(_, remedy)| remedy);
            match expected {
                None => assert_eq!(remedy, None, "{name}"),
                Some(start) => assert!(remedy.expect(name).starts_with(start), "{name}"),
            }
        }
    }
}
