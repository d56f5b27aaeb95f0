//! The functions that programs call, under the names and with the conventions of
//! `infiniband/verbs.h`: pointers in, structures out, errno as the manual pages say.
//!
//! They trust pointers as the library that they stand for does, and nothing else. Each takes its
//! arguments apart, enters the world once, and translates the result.

mod absent;
mod channels;
mod contexts;
mod control;
mod devices;
mod domains;
mod events;
mod extended;
mod flows;
mod pairs;
mod queues;
mod shared;
mod texts;
mod work;

use crate::abi::objects::{Context, Qp};
use crate::world::World;

/// Sets `errno`.
fn set_errno(errno: i32) {
    // SAFETY: no conditions.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the C library gives each thread a place for it.
    let place = unsafe { place.as_mut() };
    if let Some(place) = place {
        *place = errno;
    }
}

/// The result of a function that returns a pointer: null with `errno`.
fn pointer_or_errno<T>(result: Result<*mut T, i32>) -> *mut T {
    result.unwrap_or_else(|errno| {
        set_errno(errno);
        std::ptr::null_mut()
    })
}

/// The result of a function that returns 0 or an errno; libibverbs sets `errno` too.
fn status(result: Result<(), i32>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => {
            set_errno(errno);
            errno
        }
    }
}

/// Moves an object to the heap for the program to hold.
fn give<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Takes an object back.
///
/// # Safety
/// The pointer came from [`give`] and the program does not use it any more.
unsafe fn take_back<T>(pointer: *mut T) {
    // SAFETY: as the caller says.
    drop(unsafe { Box::from_raw(pointer) });
}

/// Writes a queue pair's state where the program sees it.
pub(crate) fn mirror_state(pointer: usize, state: u32) {
    let pointer: *mut Qp = std::ptr::with_exposed_provenance_mut(pointer);
    // SAFETY: the table holds the address of a structure that lives until the queue pair is
    // destroyed, which takes it out of the table first.
    if let Some(qp) = unsafe { pointer.as_mut() } {
        qp.state = state;
    }
}

impl World {
    /// The handle of an open context and the number of its device.
    fn context_at(&self, context: *const Context) -> Result<(u32, usize), i32> {
        let address = context.addr();
        let mut found = self.contexts.iter().filter(|(_, state)| state.pointer == address);
        found.next().map(|(handle, state)| (handle, state.device)).ok_or(libc::EINVAL)
    }

    /// Refuses a call that shall fail, or any call of a device that is gone.
    fn admit_call(&mut self, call: &str, device: usize) -> Result<(), i32> {
        if let Some(errno) = self.faults.of_call(call) {
            return Err(errno);
        }
        match self.devices.get(device) {
            Some(device) if !device.dead => Ok(()),
            Some(_) => Err(libc::EIO),
            None => Err(libc::EINVAL),
        }
    }
}
