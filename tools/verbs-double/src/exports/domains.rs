//! Protection domains, regions and address handles: ibv_alloc_pd(3), ibv_reg_mr(3),
//! ibv_create_ah(3), ibv_create_ah_from_wc(3).

use std::ffi::{c_int, c_uint, c_void};

use super::{give, pointer_or_errno, status, take_back};
use crate::abi::consts::*;
use crate::abi::objects::{Ah, AhAttr, Context, Mr, Pd};
use crate::abi::work::Wc;
use crate::address;
use crate::memory::{self, Region};
use crate::world::{self, World};

/// ibv_alloc_pd(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_alloc_pd(context: *mut Context) -> *mut Pd {
    pointer_or_errno(world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_alloc_pd", device)?;
        let limit = world.devices[device].config.limits.max_pd;
        if world.pds.len() >= usize::try_from(limit).unwrap_or(0) {
            return Err(libc::ENOMEM);
        }
        let handle = world.pds.insert(world::Pd { device });
        Ok(give(Pd { context, handle }))
    }))
}

/// ibv_alloc_pd(3): "may fail if any other resource is still associated with the PD".
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_dealloc_pd(pd: *mut Pd) -> c_int {
    // SAFETY: a domain of this library.
    let Some(handle) = (unsafe { pd.as_ref() }).map(|pd| pd.handle) else {
        return status(Err(libc::EINVAL));
    };
    let done = world::with(|world| {
        let used = world.regions.any_of_pd(handle)
            || world.qps.iter().any(|(_, qp)| qp.pd == handle)
            || world.srqs.iter().any(|(_, srq)| srq.pd == handle)
            || world.addresses.iter().any(|(_, ah)| ah.pd == handle);
        if used {
            return Err(libc::EBUSY);
        }
        world.pds.remove(handle).map(drop).ok_or(libc::EINVAL)
    });
    if done.is_ok() {
        // SAFETY: made by `give`, and out of the table now.
        unsafe { take_back(pd) };
    }
    status(done)
}

struct Wanted {
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
}

/// The rules of ibv_reg_mr(3); kernels answer the errnos.
fn check_region(world: &World, device: usize, wanted: &Wanted, bytes: u64) -> Result<(), i32> {
    let access = wanted.access & !ACCESS_OPTIONAL_RANGE;
    let known = ACCESS_LOCAL_WRITE
        | ACCESS_REMOTE_WRITE
        | ACCESS_REMOTE_READ
        | ACCESS_REMOTE_ATOMIC
        | ACCESS_MW_BIND
        | ACCESS_ZERO_BASED;
    if access & (ACCESS_ON_DEMAND | ACCESS_HUGETLB) != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    // "If IBV_ACCESS_REMOTE_WRITE or IBV_ACCESS_REMOTE_ATOMIC is set, then
    // IBV_ACCESS_LOCAL_WRITE must be set too."
    let remote = access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC) != 0;
    if access & !known != 0 || (remote && access & ACCESS_LOCAL_WRITE == 0) || bytes == 0 {
        return Err(libc::EINVAL);
    }
    if !memory::is_mapped(u64::try_from(wanted.addr.addr()).unwrap_or(0), bytes) {
        return Err(libc::EFAULT);
    }
    let config = &world.devices[device].config;
    let (count, registered) = world.regions.of_device(device);
    if count >= usize::try_from(config.limits.max_mr).unwrap_or(0) {
        return Err(libc::ENOMEM);
    }
    match config.memlock {
        None => Ok(()),
        Some(limit) => {
            let limit = if limit == u64::MAX { locked_memory_limit() } else { limit };
            let over = registered.saturating_add(bytes) > limit;
            if over { Err(libc::ENOMEM) } else { Ok(()) }
        }
    }
}

fn locked_memory_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure that lives through the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if done == 0 { limit.rlim_cur } else { 0 }
}

fn register(pd: *mut Pd, wanted: &Wanted) -> *mut Mr {
    // SAFETY: a domain of this library.
    let Some(domain) = (unsafe { pd.as_ref() }) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let (context, handle) = (domain.context, domain.handle);
    pointer_or_errno(world::with(|world| {
        let device = world.pds.get(handle).ok_or(libc::EINVAL)?.device;
        world.admit_call("ibv_reg_mr", device)?;
        let bytes = u64::try_from(wanted.length).map_err(|_| libc::EINVAL)?;
        check_region(world, device, wanted, bytes)?;
        let zero_based = wanted.access & ACCESS_ZERO_BASED != 0;
        let (lkey, rkey) = world.regions.insert(Region {
            base: u64::try_from(wanted.addr.expose_provenance()).unwrap_or(0),
            iova: if zero_based { 0 } else { wanted.iova },
            length: bytes,
            access: wanted.access,
            pd: handle,
            device,
            rkey: 0,
        });
        let Wanted { addr, length, .. } = *wanted;
        Ok(give(Mr { context, pd, addr, length, handle: lkey, lkey, rkey }))
    }))
}

/// ibv_reg_mr(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_reg_mr(
    pd: *mut Pd,
    addr: *mut c_void,
    length: usize,
    access: c_uint,
) -> *mut Mr {
    let iova = u64::try_from(addr.addr()).unwrap_or(0);
    register(pd, &Wanted { addr, length, iova, access })
}

/// ibv_reg_mr(3), with an address of the program's choice.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_reg_mr_iova(
    pd: *mut Pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> *mut Mr {
    register(pd, &Wanted { addr, length, iova, access })
}

/// What the macro `ibv_reg_mr` calls where an optional access flag may be set.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_reg_mr_iova2(
    pd: *mut Pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> *mut Mr {
    register(pd, &Wanted { addr, length, iova, access })
}

/// ibv_reg_mr(3): ends a registration.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_dereg_mr(mr: *mut Mr) -> c_int {
    // SAFETY: a region of this library.
    let lkey = (unsafe { mr.as_ref() }).map(|mr| mr.lkey);
    let done = world::with(|world| {
        if let Some(errno) = world.faults.of_call("ibv_dereg_mr") {
            return Err(errno);
        }
        lkey.and_then(|lkey| world.regions.remove(lkey)).map(drop).ok_or(libc::EINVAL)
    });
    if done.is_ok() {
        // SAFETY: made by `give`, and out of the table now.
        unsafe { take_back(mr) };
    }
    status(done)
}

/// ibv_create_ah(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_ah(pd: *mut Pd, attr: *const AhAttr) -> *mut Ah {
    // SAFETY: a domain of this library.
    let domain = unsafe { pd.as_ref() };
    // SAFETY: attributes that live through the call.
    let attr = unsafe { attr.as_ref() }.copied();
    let (Some(domain), Some(attr)) = (domain, attr) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let (context, pd_handle) = (domain.context, domain.handle);
    pointer_or_errno(world::with(|world| {
        let device = world.pds.get(pd_handle).ok_or(libc::EINVAL)?.device;
        world.admit_call("ibv_create_ah", device)?;
        if !address::is_usable(world, device, &attr) {
            return Err(libc::EINVAL);
        }
        let own = world.addresses.handles(|ah| ah.device == device).len();
        let limit = world.devices[device].config.limits.max_ah;
        if own >= usize::try_from(limit).unwrap_or(0) {
            return Err(libc::ENOMEM);
        }
        let ah = address::Ah { device, pd: pd_handle, attr };
        let handle = world.addresses.insert(ah);
        Ok(give(Ah { context, pd, handle }))
    }))
}

/// ibv_create_ah(3): ends an address handle.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_destroy_ah(ah: *mut Ah) -> c_int {
    // SAFETY: an address handle of this library.
    let handle = (unsafe { ah.as_ref() }).map(|ah| ah.handle);
    let done = world::with(|world| {
        handle.and_then(|handle| world.addresses.remove(handle)).map(drop).ok_or(libc::EINVAL)
    });
    if done.is_ok() {
        // SAFETY: made by `give`, and out of the table now.
        unsafe { take_back(ah) };
    }
    status(done)
}

/// ibv_create_ah_from_wc(3): 0, or -1.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_init_ah_from_wc(
    context: *mut Context,
    port: u8,
    wc: *const Wc,
    grh: *const [u8; 40],
    attr: *mut AhAttr,
) -> c_int {
    // SAFETY: a completion that lives through the call.
    let wc = unsafe { wc.as_ref() };
    // SAFETY: the 40 bytes before the message; not looked at unless the completion says so.
    let area = unsafe { grh.as_ref() };
    let found = world::with(|world| {
        let (_, device) = world.context_at(context).ok()?;
        let area = area.copied().unwrap_or([0; 40]);
        wc.filter(|_| port == 1).and_then(|wc| address::from_completion(world, device, wc, &area))
    });
    let Some(found) = found else { return -1 };
    // SAFETY: a place for the attributes.
    unsafe { attr.write(found) };
    0
}

/// ibv_create_ah_from_wc(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_ah_from_wc(
    pd: *mut Pd,
    wc: *const Wc,
    grh: *const [u8; 40],
    port: u8,
) -> *mut Ah {
    // SAFETY: a domain of this library.
    let Some(domain) = (unsafe { pd.as_ref() }) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let mut attr = AhAttr::default();
    // SAFETY: the arguments are the caller's, and the attributes live through the call.
    let done = unsafe { ibv_init_ah_from_wc(domain.context, port, wc, grh, &raw mut attr) };
    if done != 0 {
        return pointer_or_errno(Err(libc::EINVAL));
    }
    // SAFETY: the domain is the caller's, and the attributes live through the call.
    unsafe { ibv_create_ah(pd, &raw const attr) }
}
