//! The calls that go through tables: ibv_wr_post(3) and ibv_create_cq_ex(3).

use super::harness::*;
use std::ffi::c_int;
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::*;
use verbs_double::abi::tables::{CqEx, QpEx};

// SAFETY: as in the harness.
unsafe extern "C" {
    safe fn ibv_qp_to_qp_ex(qp: *mut Qp) -> *mut QpEx;
}

fn create(side: &Side, kind: u32, operations: u64) -> *mut Qp {
    let mut attr: QpInitAttrEx = zeroed();
    attr.set_base(&side.init(kind));
    attr.pd = side.pd;
    attr.comp_mask = QP_INIT_ATTR_PD | QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = operations;
    let call = verbs(side.context).create_qp_ex.unwrap();
    // SAFETY: attributes that live through the call.
    unsafe { call(side.context, &raw mut attr) }
}

/// A batch of sends, one an element: identity, flags, whether inline, length.
fn batch(qp: *mut Qp, side: &Side, rows: &[(u64, u32, bool, usize)]) -> c_int {
    let ex = ibv_qp_to_qp_ex(qp);
    let begin = at(ex).wr_start.unwrap();
    // SAFETY: an extended queue pair, here and below.
    unsafe { begin(ex) };
    for &(id, flags, inline, length) in rows {
        (at(ex).wr_id, at(ex).wr_flags) = (id, flags);
        let send = at(ex).wr_send.unwrap();
        // SAFETY: as above.
        unsafe { send(ex) };
        let sge = side.sge(0, length);
        if inline {
            let set = at(ex).wr_set_inline_data.unwrap();
            let bytes = side.memory.cast();
            // SAFETY: as above; so many bytes are there.
            unsafe { set(ex, bytes, length) };
        } else {
            let set = at(ex).wr_set_sge.unwrap();
            // SAFETY: as above.
            unsafe { set(ex, sge.lkey, sge.addr, sge.length) };
        }
    }
    let end = at(ex).wr_complete.unwrap();
    // SAFETY: as above.
    unsafe { end(ex) }
}

#[test]
fn a_batch_is_posted_whole_or_not_at_all() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let one = at(create(&a, QPT_RC, QP_EX_WITH_SEND));
    let other = b.qp(QPT_RC);
    ready(one, &rc_attr(&a, &b, at(other).qp_num));
    ready(other, &rc_attr(&b, &a, one.qp_num));
    for id in 0..8 {
        assert_eq!(recv(other, id, &[b.sge(0, 100)]), 0);
    }
    let signal = SEND_SIGNALED;
    assert_eq!(batch(one, &a, &[(1, 0, false, 9), (2, signal, true, 64)]), 0);
    assert_eq!(ends(&poll(a.cq)), [(2, WC_SUCCESS)]);
    assert_eq!(poll(b.cq).iter().map(|wc| wc.byte_len).collect::<Vec<_>>(), [9, 64]);
    assert_eq!(counter("post_send_calls"), 1);
    // The second has too much inline data: the first is not posted either.
    assert_eq!(batch(one, &a, &[(3, signal, false, 9), (4, 0, true, 65)]), libc::EINVAL);
    assert!(poll(a.cq).is_empty() && poll(b.cq).is_empty());
    // One more than the queue has room for.
    let many: Vec<_> = (0..9).map(|id| (id, signal, false, 1)).collect();
    assert_eq!(batch(one, &a, &many), libc::ENOMEM);
    assert!(poll(b.cq).is_empty());
    assert_eq!(batch(one, &a, &many[..6]), 0);
    assert_eq!(poll(b.cq).len(), 6);
}

#[test]
fn operations_are_asked_for_at_creation() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    assert!(ibv_qp_to_qp_ex(a.qp(QPT_RC)).is_null(), "made without");
    let atomics = 1 << 5;
    assert!(create(&a, QPT_RC, QP_EX_WITH_SEND | atomics).is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    let qp = at(create(&a, QPT_RC, QP_EX_WITH_RDMA_WRITE));
    ready(qp, &rc_attr(&a, &b, 77));
    assert_eq!(batch(qp, &a, &[(1, 0, false, 9)]), libc::EINVAL, "sends were not asked for");
}

#[test]
fn an_extended_queue_is_read_member_by_member() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let call = verbs(b.context).create_cq_ex.unwrap();
    let mut attr: CqInitAttrEx = zeroed();
    (attr.cqe, attr.wc_flags) = (4, 1 << 7);
    // SAFETY: attributes that live through the call.
    assert!(unsafe { call(b.context, &raw mut attr) }.is_null(), "timestamps");
    assert_eq!(errno(), libc::EOPNOTSUPP);
    attr.wc_flags = 0x7f;
    // SAFETY: as above.
    let cq = unsafe { call(b.context, &raw mut attr) };
    let mut init = b.init(QPT_RC);
    init.recv_cq = cq.cast();
    let (one, other) = (a.qp(QPT_RC), ibv_create_qp(b.pd, &mut init));
    ready(one, &rc_attr(&a, &b, at(other).qp_num));
    ready(other, &rc_attr(&b, &a, at(one).qp_num));
    let start: unsafe extern "C" fn(*mut CqEx, *const u32) -> c_int = at(cq).start_poll.unwrap();
    // SAFETY: a queue that lives through the call, here and below.
    assert_eq!(unsafe { start(cq, std::ptr::null()) }, libc::ENOENT);
    for id in 1..=2 {
        assert_eq!(recv(other, id, &[b.sge(0, 100)]), 0);
        assert_eq!(send(one, id, false, a.sge(0, 10)), 0);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { start(cq, std::ptr::null()) }, 0);
    let (length, opcode, next) =
        (at(cq).read_byte_len.unwrap(), at(cq).read_opcode.unwrap(), at(cq).next_poll.unwrap());
    assert_eq!((at(cq).wr_id, at(cq).status), (1, WC_SUCCESS));
    // SAFETY: as above.
    assert_eq!(unsafe { length(cq) }, 10);
    // SAFETY: as above.
    assert_eq!(unsafe { opcode(cq) }, WC_OP_RECV);
    // SAFETY: as above.
    assert_eq!((unsafe { next(cq) }, at(cq).wr_id), (0, 2));
    // SAFETY: as above.
    assert_eq!(unsafe { next(cq) }, libc::ENOENT);
}
