//! Completion queues: ibv_create_cq(3), ibv_create_cq_ex(3), ibv_resize_cq(3).

use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_void};

use super::{channels, give, pointer_or_errno, status, take_back};
use crate::abi::consts::WC_EX_SUPPORTED;
use crate::abi::objects::{CompChannel, Context, Cq, CqInitAttrEx, Waiting};
use crate::abi::tables::CqEx;
use crate::abi::work::Wc;
use crate::completion::{self, Armed};
use crate::events::Element;
use crate::world;

/// A completion queue and the completion that `ibv_start_poll` stands at.
#[repr(C)]
pub(crate) struct CqObject {
    ex: CqEx,
    current: Wc,
    flow_tag: u32,
}

struct Wanted {
    cqe: u32,
    cq_context: *mut c_void,
    channel: *mut CompChannel,
    vector: c_uint,
}

fn create(context: *mut Context, wanted: &Wanted) -> Result<*mut CqObject, i32> {
    world::with(|world| {
        let (own, device) = world.context_at(context)?;
        world.admit_call("ibv_create_cq", device)?;
        let limits = world.devices[device].config.limits;
        // ibv_create_cq(3): the vector is "at least zero and less than num_comp_vectors".
        if wanted.cqe == 0 || wanted.cqe > limits.max_cqe || wanted.vector >= limits.comp_vectors {
            return Err(libc::EINVAL);
        }
        if world.cqs.handles(|cq| cq.device == device).len()
            >= usize::try_from(limits.max_cq).unwrap_or(0)
        {
            return Err(libc::ENOMEM);
        }
        let channel = match wanted.channel.is_null() {
            true => None,
            false => Some(channels::handle_of(world, wanted.channel)?),
        };
        let handle = world.cqs.insert(completion::Cq {
            device,
            context: own,
            pointer: 0,
            capacity: usize::try_from(wanted.cqe).unwrap_or(0),
            entries: VecDeque::new(),
            armed: Armed::No,
            channel,
            failed: false,
            users: 0,
            unacked: 0,
            async_unacked: 0,
        });
        if let Some(channel) = channel.and_then(|channel| world.channels.get_mut(channel)) {
            channel.users += 1;
        }
        let made = give(CqObject {
            ex: structure(context, handle, wanted),
            current: Wc::default(),
            flow_tag: 0,
        });
        if let Some(queue) = world.cqs.get_mut(handle) {
            queue.pointer = made.expose_provenance();
        }
        Ok(made)
    })
}

fn structure(context: *mut Context, handle: u32, wanted: &Wanted) -> CqEx {
    CqEx {
        cq_base: Cq {
            context,
            channel: wanted.channel,
            cq_context: wanted.cq_context,
            handle,
            cqe: c_int::try_from(wanted.cqe).unwrap_or(c_int::MAX),
            waiting: Waiting::new(),
            comp_events_completed: 0,
            async_events_completed: 0,
        },
        comp_mask: 0,
        status: 0,
        wr_id: 0,
        start_poll: Some(start_poll),
        next_poll: Some(next_poll),
        end_poll: Some(end_poll),
        read_opcode: Some(read_opcode),
        read_vendor_err: Some(read_vendor_err),
        read_byte_len: Some(read_byte_len),
        read_imm_data: Some(read_imm_data),
        read_qp_num: Some(read_qp_num),
        read_src_qp: Some(read_src_qp),
        read_wc_flags: Some(read_wc_flags),
        read_slid: Some(read_slid),
        read_sl: Some(read_sl),
        read_dlid_path_bits: Some(read_dlid_path_bits),
        read_completion_ts: None,
        read_cvlan: None,
        read_flow_tag: Some(read_flow_tag),
        read_tm_info: None,
        read_completion_wallclock_ns: None,
    }
}

/// ibv_create_cq(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_cq(
    context: *mut Context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut CompChannel,
    vector: c_int,
) -> *mut Cq {
    let wanted = Wanted {
        cqe: u32::try_from(cqe).unwrap_or(0),
        cq_context,
        channel,
        vector: c_uint::try_from(vector).unwrap_or(c_uint::MAX),
    };
    pointer_or_errno(create(context, &wanted).map(<*mut CqObject>::cast))
}

/// ibv_create_cq_ex(3), called through `struct verbs_context`.
pub(super) unsafe extern "C" fn create_cq_ex(
    context: *mut Context,
    attr: *mut CqInitAttrEx,
) -> *mut CqEx {
    // SAFETY: attributes that live through the call.
    let Some(attr) = (unsafe { attr.as_ref() }) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    // The only creation flag that means nothing here: SINGLE_THREADED.
    let flags = if attr.comp_mask & 1 != 0 { attr.flags & !1 } else { 0 };
    if attr.wc_flags & !WC_EX_SUPPORTED != 0 || attr.comp_mask & !1 != 0 || flags != 0 {
        return pointer_or_errno(Err(libc::EOPNOTSUPP));
    }
    let wanted = Wanted {
        cqe: attr.cqe,
        cq_context: attr.cq_context,
        channel: attr.channel,
        vector: attr.comp_vector,
    };
    pointer_or_errno(create(context, &wanted).map(<*mut CqObject>::cast))
}

/// ibv_resize_cq(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_resize_cq(cq: *mut Cq, cqe: c_int) -> c_int {
    // SAFETY: a queue of this library.
    let Some(object) = (unsafe { cq.as_mut() }) else { return status(Err(libc::EINVAL)) };
    let handle = object.handle;
    let done = world::with(|world| {
        let wanted = usize::try_from(cqe).map_err(|_| libc::EINVAL)?;
        let queue = world.cqs.get_mut(handle).ok_or(libc::EINVAL)?;
        let limit = world.devices[queue.device].config.limits.max_cqe;
        if wanted < queue.entries.len().max(1) || wanted > usize::try_from(limit).unwrap_or(0) {
            return Err(libc::EINVAL);
        }
        queue.capacity = wanted;
        Ok(())
    });
    status(done.map(|()| object.cqe = cqe))
}

/// ibv_create_cq(3): "fails if any queue pair is still associated with this CQ"; and, by
/// ibv_get_cq_event(3) and ibv_get_async_event(3), waits for acknowledgements. Where the real
/// library would wait for ever, this one says so and returns `EBUSY` after two seconds.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_destroy_cq(cq: *mut Cq) -> c_int {
    // SAFETY: a queue of this library.
    let Some(handle) = (unsafe { cq.as_ref() }).map(|cq| cq.handle) else {
        return status(Err(libc::EINVAL));
    };
    let used = world::with(|world| world.cqs.get(handle).map(|queue| queue.users));
    match used {
        None => return status(Err(libc::EINVAL)),
        Some(0) => {}
        Some(_) => return status(Err(libc::EBUSY)),
    }
    let quiet = world::wait_until(|world| {
        world.cqs.get(handle).is_none_or(|queue| queue.unacked + queue.async_unacked == 0)
    });
    if !quiet {
        eprintln!("libibverbs double: ibv_destroy_cq waits for events that nobody acknowledges");
        return status(Err(libc::EBUSY));
    }
    world::with(|world| {
        world.forget_completion_events(handle);
        let context = world.cqs.get(handle).map_or(u32::MAX, |queue| queue.context);
        world.forget_events(context, Element::Cq(handle));
        let queue = world.cqs.remove(handle);
        let channel = queue.and_then(|queue| queue.channel);
        if let Some(channel) = channel.and_then(|channel| world.channels.get_mut(channel)) {
            channel.users -= 1;
        }
    });
    // SAFETY: made by `give` as a CqObject, and out of the table now.
    unsafe { take_back(cq.cast::<CqObject>()) };
    0
}

/// Takes the next completion into the object: 0, `ENOENT` if there is none, or another errno.
fn advance(cq: *mut CqEx) -> c_int {
    // SAFETY: every queue of this library is a CqObject.
    let Some(object) = (unsafe { cq.cast::<CqObject>().as_mut() }) else { return libc::EINVAL };
    let found = world::with(|world| {
        world.counters.poll_calls += 1;
        world.poll(object.ex.cq_base.handle)
    });
    match found {
        Err(()) => libc::EIO,
        Ok(None) => libc::ENOENT,
        Ok(Some(entry)) => {
            object.current = entry.wc;
            object.flow_tag = entry.flow_tag;
            object.ex.status = entry.wc.status;
            object.ex.wr_id = entry.wc.wr_id;
            0
        }
    }
}

unsafe extern "C" fn start_poll(cq: *mut CqEx, attr: *const u32) -> c_int {
    // SAFETY: null or the structure of one member, `comp_mask`.
    if unsafe { attr.as_ref() }.is_some_and(|mask| *mask != 0) {
        return libc::EINVAL;
    }
    advance(cq)
}

unsafe extern "C" fn next_poll(cq: *mut CqEx) -> c_int {
    advance(cq)
}

unsafe extern "C" fn end_poll(_cq: *mut CqEx) {}

fn current(cq: *const CqEx) -> (Wc, u32) {
    // SAFETY: every queue of this library is a CqObject.
    let object = unsafe { cq.cast::<CqObject>().as_ref() };
    object.map_or((Wc::default(), 0), |object| (object.current, object.flow_tag))
}

macro_rules! readers {
    ($($name:ident: $type:ty = $read:expr;)+) => {
        $(unsafe extern "C" fn $name(cq: *mut CqEx) -> $type {
            let read: fn((Wc, u32)) -> $type = $read;
            read(current(cq))
        })+
    };
}

readers! {
    read_opcode: c_uint = |(wc, _)| wc.opcode;
    read_vendor_err: u32 = |(wc, _)| wc.vendor_err;
    read_byte_len: u32 = |(wc, _)| wc.byte_len;
    read_imm_data: u32 = |(wc, _)| wc.imm_data;
    read_qp_num: u32 = |(wc, _)| wc.qp_num;
    read_src_qp: u32 = |(wc, _)| wc.src_qp;
    read_wc_flags: c_uint = |(wc, _)| wc.wc_flags;
    read_slid: u32 = |(wc, _)| u32::from(wc.slid);
    read_sl: u8 = |(wc, _)| wc.sl;
    read_dlid_path_bits: u8 = |(wc, _)| wc.dlid_path_bits;
    read_flow_tag: u32 = |(_, tag)| tag;
}
