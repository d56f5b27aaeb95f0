//! Queue pairs: ibv_create_qp(3), ibv_modify_qp(3), ibv_query_qp(3), ibv_attach_mcast(3).

use std::collections::VecDeque;
use std::ffi::c_int;

use super::{extended, give, pointer_or_errno, status, take_back};
use crate::abi::consts::*;
use crate::abi::objects::{Context, Cq, Pd, Qp, QpAttr, QpCap, QpInitAttr, Waiting};
use crate::events::Element;
use crate::queue_pair;
use crate::reliable::Reliable;
use crate::world::{self, World};

/// What the extended creation adds.
#[derive(Clone, Copy, Default)]
pub(super) struct More {
    /// `max_tso_header`.
    pub(super) tso_header: u16,
    /// `send_ops_flags`; 0 without the extended posting calls.
    pub(super) operations: u64,
}

/// The handle of a completion queue of this device that works.
fn queue(world: &World, cq: *const Cq, device: usize) -> Result<u32, i32> {
    // SAFETY: null or a queue of this library.
    let handle = unsafe { cq.as_ref() }.map(|cq| cq.handle).ok_or(libc::EINVAL)?;
    let known = world.cqs.get(handle).ok_or(libc::EINVAL)?;
    if known.device == device && !known.failed { Ok(handle) } else { Err(libc::EINVAL) }
}

/// Whether the device makes queue pairs of a type.
fn check_kind(world: &World, device: usize, kind: u32) -> Result<(), i32> {
    let config = &world.devices[device].config;
    match kind {
        QPT_RC | QPT_UD => Ok(()),
        QPT_RAW_PACKET if !config.raw => Err(libc::EOPNOTSUPP),
        // capabilities(7): raw packets need CAP_NET_RAW; kernels answer EPERM.
        QPT_RAW_PACKET if !config.privileged => Err(libc::EPERM),
        QPT_RAW_PACKET => Ok(()),
        _ => Err(libc::EOPNOTSUPP),
    }
}

/// Whether the limits asked for are within the device's (ibv_query_device(3)).
fn check_cap(world: &World, device: usize, cap: &QpCap, shared: bool) -> Result<(), i32> {
    let limits = &world.devices[device].config.limits;
    let send = cap.max_send_wr <= limits.max_qp_wr
        && cap.max_send_sge <= limits.max_sge
        && cap.max_inline_data <= limits.max_inline;
    // "max_recv_wr and max_recv_sge are ignored if the QP is to be associated with an SRQ."
    let receive =
        shared || (cap.max_recv_wr <= limits.max_qp_wr && cap.max_recv_sge <= limits.max_sge);
    if !send || !receive {
        return Err(libc::EINVAL);
    }
    let own = world.qps.handles(|qp| qp.device == device).len();
    if own >= usize::try_from(limits.max_qp).unwrap_or(0) {
        return Err(libc::ENOMEM);
    }
    Ok(())
}

/// Makes a queue pair and writes back its limits.
pub(super) fn create(pd: *mut Pd, init: &mut QpInitAttr, more: More) -> Result<*mut Qp, i32> {
    // SAFETY: a domain of this library.
    let domain = unsafe { pd.as_ref() }.ok_or(libc::EINVAL)?;
    let (context, pd_handle) = (domain.context, domain.handle);
    // SAFETY: null or a shared queue of this library.
    let srq = unsafe { init.srq.as_ref() }.map(|srq| srq.handle);
    world::with(|world| {
        let (own, device) = world.context_at(context)?;
        world.admit_call("ibv_create_qp", device)?;
        check_kind(world, device, init.qp_type)?;
        let send_cq = queue(world, init.send_cq, device)?;
        let recv_cq = queue(world, init.recv_cq, device)?;
        // "will fail if it is asked to create QP of a type other than IBV_QPT_RC or IBV_QPT_UD
        // associated with an SRQ."
        if srq.is_some() && init.qp_type == QPT_RAW_PACKET {
            return Err(libc::EINVAL);
        }
        check_cap(world, device, &init.cap, srq.is_some())?;
        let tso = world.devices[device].segments(init.qp_type);
        let longest = world.devices[device].config.limits.max_tso_header;
        if more.tso_header > 0 && (!tso || u32::from(more.tso_header) > longest) {
            return Err(libc::EINVAL);
        }
        if srq.is_some() {
            (init.cap.max_recv_wr, init.cap.max_recv_sge) = (0, 0);
        }
        let number = world.free_number();
        let handle = world.qps.insert(queue_pair::Qp {
            device,
            context: own,
            pd: pd_handle,
            pointer: 0,
            number,
            kind: init.qp_type,
            state: QPS_RESET,
            cap: init.cap,
            tso_header_max: more.tso_header,
            send_cq,
            recv_cq,
            srq,
            signal_all: init.sq_sig_all != 0,
            attr: QpAttr::default(),
            sends: VecDeque::new(),
            send_posted: 0,
            send_freed: 0,
            receives: VecDeque::new(),
            recv_outstanding: 0,
            rc: Reliable::default(),
            groups: Vec::new(),
            async_unacked: 0,
        });
        world.numbers.insert(number, handle);
        world.count_users(handle, true);
        let base = structure(context, pd, init, (handle, number));
        let made = give(extended::object(base, more.operations));
        if let Some(qp) = world.qps.get_mut(handle) {
            qp.pointer = made.expose_provenance();
        }
        Ok(made.cast())
    })
}

fn structure(
    context: *mut Context,
    pd: *mut Pd,
    init: &QpInitAttr,
    (handle, qp_num): (u32, u32),
) -> Qp {
    Qp {
        context,
        qp_context: init.qp_context,
        pd,
        send_cq: init.send_cq,
        recv_cq: init.recv_cq,
        srq: init.srq,
        handle,
        qp_num,
        state: QPS_RESET,
        qp_type: init.qp_type,
        waiting: Waiting::new(),
        events_completed: 0,
    }
}

impl World {
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.wire.number(self.numbers_made);
            self.numbers_made = self.numbers_made.wrapping_add(1);
            if !self.numbers.contains_key(&number) {
                return number;
            }
        }
    }

    fn count_users(&mut self, handle: u32, more: bool) {
        let Some(qp) = self.qps.get(handle) else { return };
        let (queues, srq) = ([qp.send_cq, qp.recv_cq], qp.srq);
        let change = |users: &mut u32| {
            *users = if more { *users + 1 } else { users.saturating_sub(1) };
        };
        for cq in queues {
            if let Some(cq) = self.cqs.get_mut(cq) {
                change(&mut cq.users);
            }
        }
        if let Some(srq) = srq.and_then(|srq| self.srqs.get_mut(srq)) {
            change(&mut srq.users);
        }
    }

    /// Takes a queue pair out, with its completions and events.
    pub(super) fn remove_qp(&mut self, handle: u32) {
        self.purge(handle);
        self.count_users(handle, false);
        let Some(qp) = self.qps.remove(handle) else { return };
        self.numbers.remove(&qp.number);
        self.forget_events(qp.context, Element::Qp(handle));
        for device in &mut self.devices {
            device.rules.retain(|rule| rule.qp != handle);
        }
    }
}

/// ibv_create_qp(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_create_qp(pd: *mut Pd, init: *mut QpInitAttr) -> *mut Qp {
    // SAFETY: attributes that live through the call.
    match unsafe { init.as_mut() } {
        Some(init) => pointer_or_errno(create(pd, init, More::default())),
        None => pointer_or_errno(Err(libc::EINVAL)),
    }
}

/// ibv_create_qp(3): "fails if the QP is attached to a multicast group"; kernels refuse it too
/// while a flow rule points at it. It waits for acknowledgements (ibv_get_async_event(3)).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_destroy_qp(qp: *mut Qp) -> c_int {
    // SAFETY: a queue pair of this library.
    let Some(handle) = (unsafe { qp.as_ref() }).map(|qp| qp.handle) else {
        return status(Err(libc::EINVAL));
    };
    let free = world::with(|world| {
        let known = world.qps.get(handle).ok_or(libc::EINVAL)?;
        let ruled = world.devices[known.device].rules.iter().any(|rule| rule.qp == handle);
        if ruled || !known.groups.is_empty() { Err(libc::EBUSY) } else { Ok(()) }
    });
    if free.is_err() {
        return status(free);
    }
    let quiet =
        world::wait_until(|world| world.qps.get(handle).is_none_or(|qp| qp.async_unacked == 0));
    if !quiet {
        eprintln!("libibverbs double: ibv_destroy_qp waits for events nobody acknowledges");
        return status(Err(libc::EBUSY));
    }
    world::with(|world| world.remove_qp(handle));
    // SAFETY: made by `give` as a QpObject, and out of the table now.
    unsafe { take_back(qp.cast::<extended::QpObject>()) };
    0
}

/// ibv_modify_qp(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_modify_qp(
    qp: *mut Qp,
    attr: *const QpAttr,
    mask: c_int,
) -> c_int {
    // SAFETY: a queue pair of this library.
    let handle = unsafe { qp.as_ref() }.map(|qp| qp.handle);
    // SAFETY: attributes that live through the call.
    let attr = unsafe { attr.as_ref() }.copied();
    let (Some(handle), Some(attr)) = (handle, attr) else { return status(Err(libc::EINVAL)) };
    status(world::with(|world| {
        if let Some(errno) = world.faults.of_call("ibv_modify_qp") {
            return Err(errno);
        }
        world.modify_qp(handle, &attr, mask)
    }))
}

/// ibv_query_qp(3): everything, whatever the mask asks for.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_query_qp(
    qp: *mut Qp,
    attr: *mut QpAttr,
    _mask: c_int,
    init: *mut QpInitAttr,
) -> c_int {
    // SAFETY: a queue pair of this library.
    let Some(object) = (unsafe { qp.as_ref() }) else { return status(Err(libc::EINVAL)) };
    let found = world::with(|world| {
        let known = world.qps.get(object.handle).ok_or(libc::EINVAL)?;
        let state = known.state;
        let sq_draining = u8::from(state == QPS_SQD && !known.sends.is_empty());
        let attr = QpAttr {
            qp_state: state,
            cur_qp_state: state,
            cap: known.cap,
            sq_draining,
            ..known.attr
        };
        let init = QpInitAttr {
            qp_context: object.qp_context,
            send_cq: object.send_cq,
            recv_cq: object.recv_cq,
            srq: object.srq,
            cap: known.cap,
            qp_type: known.kind,
            sq_sig_all: c_int::from(known.signal_all),
        };
        Ok((attr, init))
    });
    status(found.map(|(found, made)| {
        // SAFETY: a place for the attributes.
        unsafe { attr.write(found) };
        // SAFETY: a place for the creation attributes.
        unsafe { init.write(made) };
    }))
}

fn change_group(qp: *const Qp, gid: *const [u8; 16], attach: bool) -> c_int {
    // SAFETY: a queue pair of this library.
    let handle = unsafe { qp.as_ref() }.map(|qp| qp.handle);
    // SAFETY: a GID that lives through the call.
    let gid = unsafe { gid.as_ref() }.copied();
    let (Some(handle), Some(gid)) = (handle, gid) else { return status(Err(libc::EINVAL)) };
    status(world::with(|world| {
        let qp = world.qps.get_mut(handle).ok_or(libc::EINVAL)?;
        // ibv_attach_mcast(3): "only QPs of Transport Service Type IBV_QPT_UD".
        if qp.kind != QPT_UD || gid[0] != 0xff {
            return Err(libc::EINVAL);
        }
        let known = qp.groups.contains(&gid);
        match (attach, known) {
            (true, true) => {}
            (true, false) => qp.groups.push(gid),
            (false, true) => qp.groups.retain(|group| *group != gid),
            (false, false) => return Err(libc::EINVAL),
        }
        Ok(())
    }))
}

/// ibv_attach_mcast(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_attach_mcast(
    qp: *mut Qp,
    gid: *const [u8; 16],
    _lid: u16,
) -> c_int {
    change_group(qp, gid, true)
}

/// ibv_attach_mcast(3): leaves a group.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_detach_mcast(
    qp: *mut Qp,
    gid: *const [u8; 16],
    _lid: u16,
) -> c_int {
    change_group(qp, gid, false)
}
