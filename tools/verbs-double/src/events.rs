//! Asynchronous events: ibv_get_async_event(3). One event, one count of the context's descriptor.

use crate::abi::consts;
use crate::world::World;

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Element {
    /// Handle of a completion queue.
    Cq(u32),
    /// Handle of a queue pair.
    Qp(u32),
    /// Handle of a shared receive queue.
    Srq(u32),
    /// Port number; 0 for events of the device.
    Port(u32),
}

/// An event that was not fetched yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AsyncEvent {
    /// `enum ibv_event_type`.
    pub(crate) kind: u32,
    /// What it is about.
    pub(crate) element: Element,
}

/// An open context.
pub(crate) struct ContextState {
    /// Number of its device.
    pub(crate) device: usize,
    /// Address of its `struct verbs_context`.
    pub(crate) pointer: usize,
    /// The event descriptor, an eventfd that counts.
    pub(crate) fd: i32,
    /// Events in order.
    pub(crate) events: std::collections::VecDeque<AsyncEvent>,
}

/// A descriptor that counts: each read takes one (eventfd(2), `EFD_SEMAPHORE`). -1 if there is
/// none left.
pub(crate) fn counting_descriptor() -> i32 {
    // SAFETY: no pointers are passed.
    unsafe { libc::eventfd(0, libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC) }
}

/// Adds one.
pub(crate) fn signal(fd: i32) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes that live through the call.
    let _ = unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

/// Takes one; blocks as the descriptor says. False with errno set if there was none.
pub(crate) fn take(fd: i32) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes that live through the call.
    unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) == 8 }
}

/// Whether one is there.
pub(crate) fn is_signalled(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure that lives through the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

impl World {
    /// Puts an event of an object into its context.
    pub(crate) fn object_event(&mut self, context: u32, kind: u32, element: Element) {
        let Some(state) = self.contexts.get_mut(context) else { return };
        state.events.push_back(AsyncEvent { kind, element });
        self.counters.async_events += 1;
        signal(state.fd);
    }

    /// Puts an event of a port or device into every context of it.
    pub(crate) fn device_event(&mut self, device: usize, kind: u32) {
        let port = u32::from(kind != consts::EVENT_DEVICE_FATAL);
        for context in self.contexts.handles(|state| state.device == device) {
            self.object_event(context, kind, Element::Port(port));
        }
    }

    /// Forgets events of an object that is destroyed.
    pub(crate) fn forget_events(&mut self, context: u32, element: Element) {
        let Some(state) = self.contexts.get_mut(context) else { return };
        let before = state.events.len();
        state.events.retain(|event| event.element != element);
        for _ in state.events.len()..before {
            if is_signalled(state.fd) {
                take(state.fd);
            }
        }
    }

    /// The unacknowledged-events counter of an object.
    pub(crate) fn unacknowledged(&mut self, element: Element) -> Option<&mut u32> {
        match element {
            Element::Cq(handle) => self.cqs.get_mut(handle).map(|cq| &mut cq.async_unacked),
            Element::Qp(handle) => self.qps.get_mut(handle).map(|qp| &mut qp.async_unacked),
            Element::Srq(handle) => self.srqs.get_mut(handle).map(|srq| &mut srq.async_unacked),
            Element::Port(_) => None,
        }
    }
}
