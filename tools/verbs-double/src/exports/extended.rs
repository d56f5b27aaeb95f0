//! Extended queue pairs: ibv_create_qp_ex(3), and the posting calls of ibv_wr_post(3) on them.

use std::ffi::{c_int, c_uint, c_void};

use super::{pairs, pointer_or_errno, work};
use crate::abi::consts::*;
use crate::abi::objects::{Ah, Context, DataBuf, Qp, QpInitAttrEx, SgeList};
use crate::abi::tables::QpEx;
use crate::abi::work::{SendWr, Sge};
use crate::memory;
use crate::posting::Posted;
use crate::world;

/// A queue pair and the requests between `ibv_wr_start` and `ibv_wr_complete`.
#[repr(C)]
pub(crate) struct QpObject {
    ex: QpEx,
    operations: u64,
    building: Vec<Posted>,
    failed: Option<i32>,
}

const SUPPORTED: u64 = QP_EX_WITH_SEND
    | QP_EX_WITH_SEND_WITH_IMM
    | QP_EX_WITH_RDMA_WRITE
    | QP_EX_WITH_RDMA_WRITE_WITH_IMM
    | QP_EX_WITH_RDMA_READ
    | QP_EX_WITH_TSO;

/// The object of a queue pair.
pub(super) fn object(base: Qp, operations: u64) -> QpObject {
    let ex = QpEx {
        qp_base: base,
        comp_mask: 0,
        wr_id: 0,
        wr_flags: 0,
        wr_atomic_cmp_swp: None,
        wr_atomic_fetch_add: None,
        wr_bind_mw: None,
        wr_local_inv: None,
        wr_rdma_read: Some(wr_rdma_read),
        wr_rdma_write: Some(wr_rdma_write),
        wr_rdma_write_imm: Some(wr_rdma_write_imm),
        wr_send: Some(wr_send),
        wr_send_imm: Some(wr_send_imm),
        wr_send_inv: None,
        wr_send_tso: Some(wr_send_tso),
        wr_set_ud_addr: Some(wr_set_ud_addr),
        wr_set_xrc_srqn: None,
        wr_set_inline_data: Some(wr_set_inline_data),
        wr_set_inline_data_list: Some(wr_set_inline_data_list),
        wr_set_sge: Some(wr_set_sge),
        wr_set_sge_list: Some(wr_set_sge_list),
        wr_start: Some(wr_start),
        wr_complete: Some(wr_complete),
        wr_abort: Some(wr_abort),
        wr_atomic_write: None,
    };
    QpObject { ex, operations, building: Vec::new(), failed: None }
}

/// ibv_create_qp_ex(3), called through `struct verbs_context`.
pub(super) unsafe extern "C" fn create_qp_ex(
    _context: *mut Context,
    attr: *mut QpInitAttrEx,
) -> *mut Qp {
    // SAFETY: attributes that live through the call.
    let Some(attr) = (unsafe { attr.as_mut() }) else {
        return pointer_or_errno(Err(libc::EINVAL));
    };
    let mask = attr.comp_mask;
    let known = QP_INIT_ATTR_PD
        | QP_INIT_ATTR_CREATE_FLAGS
        | QP_INIT_ATTR_MAX_TSO_HEADER
        | QP_INIT_ATTR_SEND_OPS_FLAGS;
    let tso = mask & QP_INIT_ATTR_MAX_TSO_HEADER != 0;
    let posting = mask & QP_INIT_ATTR_SEND_OPS_FLAGS != 0;
    let operations = if posting { attr.send_ops_flags } else { 0 };
    let flags = mask & QP_INIT_ATTR_CREATE_FLAGS != 0 && attr.create_flags != 0;
    if mask & !known != 0 || flags || operations & !SUPPORTED != 0 {
        return pointer_or_errno(Err(libc::EOPNOTSUPP));
    }
    if mask & QP_INIT_ATTR_PD == 0 {
        return pointer_or_errno(Err(libc::EINVAL));
    }
    let more = pairs::More { tso_header: if tso { attr.max_tso_header } else { 0 }, operations };
    let mut base = attr.base();
    let made = pairs::create(attr.pd, &mut base, more);
    attr.set_base(&base);
    pointer_or_errno(made)
}

/// ibv_wr_post(3): null unless the queue pair was made with `send_ops_flags`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_qp_to_qp_ex(qp: *mut Qp) -> *mut QpEx {
    match given(qp.cast()) {
        Some(object) if object.operations != 0 => qp.cast(),
        _ => std::ptr::null_mut(),
    }
}

fn given<'a>(qp: *mut QpEx) -> Option<&'a mut QpObject> {
    // SAFETY: every queue pair of this library is a QpObject, and a program posts to one from one
    // thread at a time (ibv_wr_post(3), "CONCURRENCY").
    unsafe { qp.cast::<QpObject>().as_mut() }
}

/// Begins a request. One that was not asked for at creation makes the batch fail.
fn begin(qp: *mut QpEx, opcode: c_uint, change: impl FnOnce(&mut SendWr)) {
    let Some(object) = given(qp) else { return };
    let needed = match opcode {
        WR_RDMA_WRITE => QP_EX_WITH_RDMA_WRITE,
        WR_RDMA_WRITE_WITH_IMM => QP_EX_WITH_RDMA_WRITE_WITH_IMM,
        WR_RDMA_READ => QP_EX_WITH_RDMA_READ,
        WR_SEND_WITH_IMM => QP_EX_WITH_SEND_WITH_IMM,
        WR_TSO => QP_EX_WITH_TSO,
        _ => QP_EX_WITH_SEND,
    };
    if object.operations & needed == 0 {
        object.failed = object.failed.or(Some(libc::EINVAL));
    }
    let mut wr = SendWr {
        wr_id: object.ex.wr_id,
        next: std::ptr::null_mut(),
        sg_list: std::ptr::null_mut(),
        num_sge: 0,
        opcode,
        send_flags: object.ex.wr_flags,
        imm_data: 0,
        wr: [0; 4],
        remote_srqn: 0,
        tail: [0; 6],
    };
    change(&mut wr);
    object.building.push(Posted { wr, sges: Vec::new(), ah: None, inline: None });
}

/// Sets something of the request that was begun last.
fn set(qp: *mut QpEx, change: impl FnOnce(&mut Posted)) {
    let Some(object) = given(qp) else { return };
    match object.building.last_mut() {
        Some(posted) => change(posted),
        None => object.failed = object.failed.or(Some(libc::EINVAL)),
    }
}

unsafe extern "C" fn wr_start(qp: *mut QpEx) {
    if let Some(object) = given(qp) {
        object.building.clear();
        object.failed = None;
    }
}

unsafe extern "C" fn wr_abort(qp: *mut QpEx) {
    // SAFETY: the argument is the caller's.
    unsafe { wr_start(qp) };
}

/// All of the batch is posted or nothing: "no work is executed to the queue until
/// ibv_wr_complete() returns success".
unsafe extern "C" fn wr_complete(qp: *mut QpEx) -> c_int {
    let Some(object) = given(qp) else { return libc::EINVAL };
    let batch = std::mem::take(&mut object.building);
    if let Some(errno) = object.failed.take() {
        return errno;
    }
    let handle = object.ex.qp_base.handle;
    world::with(|world| {
        world.counters.post_send_calls += 1;
        let Some(before) = world.qps.get(handle).map(|qp| qp.send_posted) else {
            return libc::EINVAL;
        };
        for posted in batch {
            if let Err(errno) = world.post_send(handle, posted) {
                world.counters.send_refused += 1;
                if let Some(qp) = world.qps.get_mut(handle) {
                    qp.sends.retain(|wqe| wqe.sequence < before);
                    qp.send_posted = before;
                }
                return errno;
            }
        }
        world.run();
        0
    })
}

unsafe extern "C" fn wr_send(qp: *mut QpEx) {
    begin(qp, WR_SEND, |_| {});
}

unsafe extern "C" fn wr_send_imm(qp: *mut QpEx, immediate: u32) {
    begin(qp, WR_SEND_WITH_IMM, |wr| wr.imm_data = immediate);
}

unsafe extern "C" fn wr_rdma_read(qp: *mut QpEx, rkey: u32, address: u64) {
    begin(qp, WR_RDMA_READ, |wr| wr.wr = [address, u64::from(rkey), 0, 0]);
}

unsafe extern "C" fn wr_rdma_write(qp: *mut QpEx, rkey: u32, address: u64) {
    begin(qp, WR_RDMA_WRITE, |wr| wr.wr = [address, u64::from(rkey), 0, 0]);
}

unsafe extern "C" fn wr_rdma_write_imm(qp: *mut QpEx, rkey: u32, address: u64, immediate: u32) {
    begin(qp, WR_RDMA_WRITE_WITH_IMM, |wr| {
        wr.wr = [address, u64::from(rkey), 0, 0];
        wr.imm_data = immediate;
    });
}

unsafe extern "C" fn wr_send_tso(qp: *mut QpEx, header: *mut c_void, length: u16, mss: u16) {
    let address = u64::try_from(header.expose_provenance()).unwrap_or(0);
    begin(qp, WR_TSO, |wr| {
        wr.tail[..2].copy_from_slice(&[address, u64::from(length) | u64::from(mss) << 16]);
    });
}

unsafe extern "C" fn wr_set_ud_addr(qp: *mut QpEx, ah: *mut Ah, number: u32, key: u32) {
    let address = u64::try_from(ah.expose_provenance()).unwrap_or(0);
    set(qp, |posted| {
        posted.wr.wr = [address, u64::from(number) | u64::from(key) << 32, 0, 0];
        posted.ah = work::address_handle(address);
    });
}

fn set_sges(posted: &mut Posted, list: Vec<Sge>) {
    posted.wr.num_sge = c_int::try_from(list.len()).unwrap_or(c_int::MAX);
    posted.sges = list;
}

unsafe extern "C" fn wr_set_sge(qp: *mut QpEx, lkey: u32, addr: u64, length: u32) {
    set(qp, |posted| set_sges(posted, vec![Sge { addr, length, lkey }]));
}

unsafe extern "C" fn wr_set_sge_list(qp: *mut QpEx, count: usize, list: SgeList) {
    let list = if count == 0 || list.is_null() {
        Vec::new()
    } else {
        // SAFETY: the program states so many elements.
        unsafe { std::slice::from_raw_parts(list, count) }.to_vec()
    };
    set(qp, |posted| set_sges(posted, list));
}

unsafe extern "C" fn wr_set_inline_data(qp: *mut QpEx, addr: *mut c_void, length: usize) {
    let one = DataBuf { addr, length };
    // SAFETY: one element that lives through the call.
    unsafe { wr_set_inline_data_list(qp, 1, &raw const one) };
}

unsafe extern "C" fn wr_set_inline_data_list(qp: *mut QpEx, count: usize, list: *const DataBuf) {
    let mut bytes = Vec::new();
    if count > 0 && !list.is_null() {
        // SAFETY: the program states so many elements.
        for one in unsafe { std::slice::from_raw_parts(list, count) } {
            let address = u64::try_from(one.addr.expose_provenance()).unwrap_or(0);
            // SAFETY: the program states so many bytes at this address.
            unsafe { memory::fetch_inline(address, one.length, &mut bytes) };
        }
    }
    set(qp, |posted| {
        posted.wr.send_flags |= SEND_INLINE;
        posted.inline = Some(bytes);
    });
}
