//! Asynchronous events: ibv_get_async_event(3).

use std::ffi::c_int;

use super::set_errno;
use crate::abi::objects::{AsyncEvent, Context};
use crate::events::{Element, take};
use crate::world::{self, World};

fn element_address(world: &World, element: Element) -> Option<u64> {
    let pointer = match element {
        Element::Cq(handle) => world.cqs.get(handle)?.pointer,
        Element::Qp(handle) => world.qps.get(handle)?.pointer,
        Element::Srq(handle) => world.srqs.get(handle)?.pointer,
        Element::Port(number) => return Some(u64::from(number)),
    };
    u64::try_from(pointer).ok()
}

/// ibv_get_async_event(3): blocks as the context's descriptor says; 0, or -1 with errno.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_async_event(
    context: *mut Context,
    event: *mut AsyncEvent,
) -> c_int {
    let own = world::with(|world| {
        let (handle, _) = world.context_at(context)?;
        let state = world.contexts.get(handle).ok_or(libc::EINVAL)?;
        Ok::<_, i32>((handle, state.fd))
    });
    let (handle, fd) = match own {
        Ok(own) => own,
        Err(errno) => {
            set_errno(errno);
            return -1;
        }
    };
    loop {
        // Without the lock, since it may wait.
        if !take(fd) {
            return -1;
        }
        let found = world::with(|world| {
            let found = world.contexts.get_mut(handle)?.events.pop_front()?;
            let element = element_address(world, found.element)?;
            if let Some(unacknowledged) = world.unacknowledged(found.element) {
                *unacknowledged += 1;
            }
            Some(AsyncEvent { element, event_type: found.kind })
        });
        if let Some(found) = found {
            // SAFETY: a place for the event.
            unsafe { event.write(found) };
            return 0;
        }
    }
}

/// ibv_get_async_event(3): acknowledges one event.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_ack_async_event(event: *mut AsyncEvent) {
    // SAFETY: an event that was fetched.
    let Some(event) = (unsafe { event.as_ref() }).copied() else { return };
    world::with(|world| {
        let is = |pointer: usize| u64::try_from(pointer).is_ok_and(|at| at == event.element);
        // verbs.h: which member of the union is valid depends on the type.
        let found = match event.event_type {
            0 => world.cqs.handles(|cq| is(cq.pointer)).pop().map(Element::Cq),
            1..=7 | 16 => world.qps.handles(|qp| is(qp.pointer)).pop().map(Element::Qp),
            14 | 15 => world.srqs.handles(|srq| is(srq.pointer)).pop().map(Element::Srq),
            _ => None,
        };
        let counter = found.and_then(|element| world.unacknowledged(element));
        if let Some(counter) = counter {
            *counter = counter.saturating_sub(1);
        }
    });
    world::ACKNOWLEDGED.notify_all();
}
