//! Flow rules, called through `struct verbs_context`: ibv_create_flow(3).

use std::ffi::c_int;

use super::{give, pointer_or_errno, status, take_back};
use crate::abi::consts::QPT_RAW_PACKET;
use crate::abi::flows::{Flow, FlowAttr};
use crate::abi::objects::Qp;
use crate::world;

/// ibv_create_flow(3).
pub(super) unsafe extern "C" fn create_flow(qp: *mut Qp, attr: *mut FlowAttr) -> *mut Flow {
    // SAFETY: a queue pair of this library.
    let object = unsafe { qp.as_ref() };
    // SAFETY: an attribute that lives through the call.
    let given = unsafe { attr.as_ref() };
    let (Some(object), Some(given)) = (object, given) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let Some(behind) = usize::from(given.size).checked_sub(size_of::<FlowAttr>()) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    // SAFETY: one past the attribute is within what the program states, or just behind it.
    let specs: *const u8 = unsafe { attr.add(1) }.cast_const().cast();
    // SAFETY: the specifications follow the attribute, `size` bytes in all (ibv_create_flow(3)).
    let specs = unsafe { std::slice::from_raw_parts(specs, behind) };
    let made = world::with(|world| {
        let known = world.qps.get(object.handle).ok_or(libc::EINVAL)?;
        let (kind, number) = (known.kind, known.device);
        world.admit_call("ibv_create_flow", number)?;
        if kind != QPT_RAW_PACKET {
            return Err(libc::EINVAL);
        }
        world.devices[number].add_rule(object.handle, given, specs)
    });
    let context = object.context;
    pointer_or_errno(made.map(|handle| give(Flow { comp_mask: 0, context, handle })))
}

/// ibv_create_flow(3): ends a rule.
pub(super) unsafe extern "C" fn destroy_flow(flow: *mut Flow) -> c_int {
    // SAFETY: a rule of this library.
    let Some(object) = (unsafe { flow.as_ref() }) else { return status(Err(libc::EINVAL)) };
    let done = world::with(|world| {
        let (_, device) = world.context_at(object.context)?;
        let rules = &mut world.devices[device].rules;
        let place = rules.iter().position(|rule| rule.handle == object.handle);
        rules.remove(place.ok_or(libc::EINVAL)?);
        Ok(())
    });
    if done.is_ok() {
        // SAFETY: made by `give`, and out of the table now.
        unsafe { take_back(flow) };
    }
    status(done)
}
