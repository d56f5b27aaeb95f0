//! Shared receive queues: ibv_create_srq(3), ibv_modify_srq(3), ibv_query_srq(3).

use std::collections::VecDeque;
use std::ffi::c_int;

use super::{give, pointer_or_errno, status, take_back};
use crate::abi::consts::{SRQ_LIMIT, SRQ_MAX_WR};
use crate::abi::objects::{Pd, Srq, SrqAttr, SrqInitAttr, Waiting};
use crate::events::Element;
use crate::shared_receive;
use crate::world;

/// ibv_create_srq(3); the attributes come back with what was made.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_srq(pd: *mut Pd, init: *mut SrqInitAttr) -> *mut Srq {
    // SAFETY: a domain of this library.
    let domain = unsafe { pd.as_ref() };
    // SAFETY: attributes that live through the call.
    let init = unsafe { init.as_mut() };
    let (Some(domain), Some(init)) = (domain, init) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let (context, pd_handle) = (domain.context, domain.handle);
    pointer_or_errno(world::with(|world| {
        let (own, device) = world.context_at(context)?;
        world.admit_call("ibv_create_srq", device)?;
        let limits = world.devices[device].config.limits;
        let SrqAttr { max_wr, max_sge, .. } = init.attr;
        if max_wr == 0 || max_wr > limits.max_srq_wr || max_sge > limits.max_srq_sge {
            return Err(libc::EINVAL);
        }
        if world.srqs.handles(|srq| srq.device == device).len()
            >= usize::try_from(limits.max_srq).unwrap_or(0)
        {
            return Err(libc::ENOMEM);
        }
        init.attr.srq_limit = 0;
        let handle = world.srqs.insert(shared_receive::Srq {
            device,
            context: own,
            pd: pd_handle,
            pointer: 0,
            max_wr,
            max_sge,
            limit: 0,
            queue: VecDeque::new(),
            outstanding: 0,
            failed: false,
            users: 0,
            async_unacked: 0,
        });
        let made = give(Srq {
            context,
            srq_context: init.srq_context,
            pd,
            handle,
            waiting: Waiting::new(),
            events_completed: 0,
        });
        if let Some(srq) = world.srqs.get_mut(handle) {
            srq.pointer = made.expose_provenance();
        }
        Ok(made)
    }))
}

/// ibv_modify_srq(3): "if any of the modify attributes is invalid, none will be modified".
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_modify_srq(
    srq: *mut Srq,
    attr: *const SrqAttr,
    mask: c_int,
) -> c_int {
    // SAFETY: a queue of this library.
    let handle = unsafe { srq.as_ref() }.map(|srq| srq.handle);
    // SAFETY: attributes that live through the call.
    let attr = unsafe { attr.as_ref() };
    let (Some(handle), Some(attr)) = (handle, attr) else { return status(Err(libc::EINVAL)) };
    status(world::with(|world| {
        let srq = world.srqs.get_mut(handle).ok_or(libc::EINVAL)?;
        let limits = world.devices[srq.device].config.limits;
        let resize = mask & SRQ_MAX_WR != 0;
        let max = if resize { attr.max_wr } else { srq.max_wr };
        let known = mask & !(SRQ_MAX_WR | SRQ_LIMIT) == 0;
        let room = max <= limits.max_srq_wr && max >= srq.outstanding.max(1);
        let limit = mask & SRQ_LIMIT == 0 || attr.srq_limit <= max;
        if !known || !room || !limit {
            return Err(libc::EINVAL);
        }
        srq.max_wr = max;
        if mask & SRQ_LIMIT != 0 {
            srq.limit = attr.srq_limit;
        }
        Ok(())
    }))
}

/// ibv_query_srq(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_srq(srq: *mut Srq, attr: *mut SrqAttr) -> c_int {
    // SAFETY: a queue of this library.
    let handle = unsafe { srq.as_ref() }.map(|srq| srq.handle);
    let found = world::with(|world| {
        let srq = handle.and_then(|handle| world.srqs.get(handle)).ok_or(libc::EINVAL)?;
        Ok(SrqAttr { max_wr: srq.max_wr, max_sge: srq.max_sge, srq_limit: srq.limit })
    });
    status(found.map(|found| {
        // SAFETY: a place for the attributes.
        unsafe { attr.write(found) };
    }))
}

/// ibv_create_srq(3): "fails if any queue pair is still associated with this SRQ".
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_destroy_srq(srq: *mut Srq) -> c_int {
    // SAFETY: a queue of this library.
    let Some(handle) = (unsafe { srq.as_ref() }).map(|srq| srq.handle) else {
        return status(Err(libc::EINVAL));
    };
    match world::with(|world| world.srqs.get(handle).map(|srq| srq.users)) {
        None => return status(Err(libc::EINVAL)),
        Some(0) => {}
        Some(_) => return status(Err(libc::EBUSY)),
    }
    let quiet =
        world::wait_until(|world| world.srqs.get(handle).is_none_or(|srq| srq.async_unacked == 0));
    if !quiet {
        eprintln!("libibverbs double: ibv_destroy_srq waits for events nobody acknowledges");
        return status(Err(libc::EBUSY));
    }
    world::with(|world| {
        if let Some(known) = world.srqs.remove(handle) {
            world.forget_events(known.context, Element::Srq(handle));
        }
    });
    // SAFETY: made by `give`, and out of the table now.
    unsafe { take_back(srq) };
    0
}
