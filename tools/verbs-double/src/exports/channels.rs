//! Completion channels: ibv_create_comp_channel(3), ibv_get_cq_event(3).

use std::ffi::{c_int, c_uint, c_void};

use super::{give, pointer_or_errno, set_errno, status, take_back};
use crate::abi::objects::{CompChannel, Context, Cq};
use crate::completion::Channel;
use crate::events::{counting_descriptor, take};
use crate::world;

/// ibv_create_comp_channel(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_comp_channel(context: *mut Context) -> *mut CompChannel {
    pointer_or_errno(world::with(|world| {
        let (_, device) = world.context_at(context)?;
        world.admit_call("ibv_create_comp_channel", device)?;
        let fd = counting_descriptor();
        if fd < 0 {
            return Err(libc::EMFILE);
        }
        let made = give(CompChannel { context, fd, refcnt: 0 });
        world.channels.insert(Channel {
            pointer: made.expose_provenance(),
            fd,
            events: std::collections::VecDeque::new(),
            users: 0,
        });
        Ok(made)
    }))
}

/// The handle of a channel; its structure has no member for it.
pub(super) fn handle_of(world: &world::World, channel: *const CompChannel) -> Result<u32, i32> {
    let address = channel.addr();
    let mut found = world.channels.iter().filter(|(_, known)| known.pointer == address);
    found.next().map(|(handle, _)| handle).ok_or(libc::EINVAL)
}

/// ibv_create_comp_channel(3): "fails if any CQs are still associated with the completion event
/// channel".
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_destroy_comp_channel(channel: *mut CompChannel) -> c_int {
    let done = world::with(|world| {
        let handle = handle_of(world, channel)?;
        match world.channels.get(handle) {
            Some(known) if known.users > 0 => Err(libc::EBUSY),
            _ => world.channels.remove(handle).ok_or(libc::EINVAL),
        }
    });
    status(done.map(|known| {
        // SAFETY: opened for this channel, and closed once.
        unsafe { libc::close(known.fd) };
        // SAFETY: made by `give`, and out of the table now.
        unsafe { take_back(channel) };
    }))
}

/// ibv_get_cq_event(3): blocks as the channel's descriptor says; 0, or -1 with errno.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_get_cq_event(
    channel: *mut CompChannel,
    cq: *mut *mut Cq,
    cq_context: *mut *mut c_void,
) -> c_int {
    let fd = world::with(|world| {
        let handle = handle_of(world, channel)?;
        world.channels.get(handle).map(|known| known.fd).ok_or(libc::EINVAL)
    });
    let fd = match fd {
        Ok(fd) => fd,
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
            let handle = handle_of(world, channel).ok()?;
            let event = world.channels.get_mut(handle)?.events.pop_front()?;
            let queue = world.cqs.get_mut(event)?;
            queue.unacked += 1;
            Some(std::ptr::with_exposed_provenance_mut::<Cq>(queue.pointer))
        });
        let Some(found) = found else { continue };
        // SAFETY: the table holds the address of a structure that lives until the queue is
        // destroyed, which waits for this event's acknowledgement.
        let context = unsafe { found.as_ref() }.map_or(std::ptr::null_mut(), |cq| cq.cq_context);
        // SAFETY: places for the results (ibv_get_cq_event(3)).
        unsafe { cq.write(found) };
        // SAFETY: as above.
        unsafe { cq_context.write(context) };
        return 0;
    }
}

/// ibv_get_cq_event(3): acknowledges completion events.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_ack_cq_events(cq: *mut Cq, count: c_uint) {
    // SAFETY: a queue of this library.
    let Some(handle) = (unsafe { cq.as_ref() }).map(|cq| cq.handle) else { return };
    world::with(|world| {
        if let Some(queue) = world.cqs.get_mut(handle) {
            queue.unacked = queue.unacked.saturating_sub(count);
        }
    });
    world::ACKNOWLEDGED.notify_all();
}
