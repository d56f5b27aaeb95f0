//! That every status and every event can be provoked, and that calls can be made to fail.

use super::harness::*;
use verbs_double::abi::consts::*;

const STATUSES: [&str; 24] = [
    "success",
    "loc_len_err",
    "loc_qp_op_err",
    "loc_eec_op_err",
    "loc_prot_err",
    "wr_flush_err",
    "mw_bind_err",
    "bad_resp_err",
    "loc_access_err",
    "rem_inv_req_err",
    "rem_access_err",
    "rem_op_err",
    "retry_exc_err",
    "rnr_retry_exc_err",
    "loc_rdd_viol_err",
    "rem_inv_rd_req_err",
    "rem_abort_err",
    "inv_eecn_err",
    "inv_eec_state_err",
    "fatal_err",
    "resp_timeout_err",
    "general_err",
    "tm_err",
    "tm_rndv_incomplete",
];

#[test]
fn every_status_can_be_provoked_on_sends_and_receives() {
    for (value, name) in (0..).zip(STATUSES) {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let (one, other) = connected(&a, &b);
        for id in 0..3 {
            assert_eq!(recv(other, id, &[b.sge(0, 100)]), 0);
        }
        control(&format!("wc double0 {} {name} send after 1", at(one).qp_num));
        assert_eq!(send(one, 0, true, a.sge(0, 10)), 0);
        assert_eq!(send(one, 1, false, a.sge(0, 10)), 0);
        let expected = [(0, WC_SUCCESS), (1, value)];
        let found = ends(&poll(a.cq));
        // Success of an unsignalled send is not told.
        assert_eq!(found, expected[..if value == 0 { 1 } else { 2 }], "{name}");
        assert_eq!(at(one).state == QPS_ERR, value != 0, "{name}");

        let (one, other) = connected(&a, &b);
        assert_eq!(recv(other, 9, &[b.sge(0, 100)]), 0);
        poll(b.cq);
        control(&format!("wc double1 all {name} recv"));
        assert_eq!(send(one, 1, true, a.sge(0, 10)), 0);
        assert_eq!(ends(&poll(b.cq)), [(9, value)], "{name}");
    }
    let _world = world("");
    assert_eq!(try_control("wc double0 all no_such send"), libc::EINVAL);
    assert_eq!(try_control("wc double0 all 24 send"), libc::EINVAL);
}

#[test]
fn every_event_of_port_and_device_can_be_provoked() {
    let _world = world("");
    let a = side(0);
    for (line, kind, element) in [
        ("port double0 down", EVENT_PORT_ERR, 1),
        ("port double0 up", EVENT_PORT_ACTIVE, 1),
        ("gid double0 3 10.1.2.3", EVENT_GID_CHANGE, 1),
        ("event double0 lid_change", 11, 1),
        ("event double0 pkey_change", 12, 1),
        ("event double0 sm_change", 13, 1),
        ("event double0 client_reregister", 17, 1),
        ("fatal double0", EVENT_DEVICE_FATAL, 0),
    ] {
        control(line);
        assert_eq!(events(a.context), [(kind, element)], "{line}");
    }
    assert_eq!(try_control("event double0 nothing"), libc::EINVAL);
    assert_eq!(try_control("port double9 down"), libc::EINVAL);
    assert_eq!(try_control("nonsense"), libc::EINVAL);
}

#[test]
fn every_event_of_queues_can_be_provoked_and_waits_for_its_acknowledgement() {
    let _world = world("");
    let a = side(0);
    let qp = a.qp(QPT_UD);
    let element = u64::try_from(qp.addr()).unwrap();
    for (name, kind) in [
        ("qp_req_err", 2),
        ("qp_access_err", 3),
        ("comm_est", 4),
        ("sq_drained", 5),
        ("path_mig", 6),
        ("path_mig_err", 7),
        ("qp_last_wqe_reached", 16),
    ] {
        control(&format!("qp double0 all {name}"));
        assert_eq!(events(a.context), [(kind, element)], "{name}");
        assert_eq!(at(qp).state, QPS_RESET, "{name}: only told");
    }
    ready(qp, &verbs_double::abi::objects::QpAttr { port_num: 1, ..zeroed() });
    control(&format!("qp double0 {} fatal", at(qp).qp_num));
    assert_eq!(at(qp).state, QPS_ERR);
    let mut event = verbs_double::abi::objects::AsyncEvent { element: 0, event_type: 0 };
    assert_eq!(ibv_get_async_event(a.context, &raw mut event), 0);
    assert_eq!(event.event_type, EVENT_QP_FATAL);
    assert_eq!(ibv_destroy_qp(qp), libc::EBUSY, "not acknowledged");
    ibv_ack_async_event(&raw mut event);
    control("cq double0 err");
    assert_eq!(poll_some(a.cq, 1).0, -1);
    let cq = u64::try_from(a.cq.addr()).unwrap();
    assert_eq!(events(a.context), [(EVENT_CQ_ERR, cq), (EVENT_QP_FATAL, element)]);
    assert_eq!(ibv_destroy_qp(qp), 0);
}

#[test]
fn a_device_that_is_gone_flushes_and_refuses() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, _) = connected(&a, &b);
    assert_eq!(recv(one, 5, &[a.sge(0, 10)]), 0);
    control("fatal double0");
    assert_eq!(ends(&poll(a.cq)), [(5, WC_WR_FLUSH_ERR)]);
    assert_eq!(send(one, 1, false, a.sge(0, 10)), libc::EIO);
    assert_eq!(recv(one, 1, &[a.sge(0, 10)]), libc::EIO);
    assert!(ibv_alloc_pd(a.context).is_null());
    assert_eq!(errno(), libc::EIO);
    // It can still be taken apart.
    assert_eq!(ibv_destroy_qp(one), 0);
}

#[test]
fn calls_fail_as_often_as_was_asked() {
    let _world = world("");
    let a = side(0);
    control("fail ibv_reg_mr 12 2");
    for _ in 0..2 {
        assert!(ibv_reg_mr(a.pd, a.memory.cast(), 8, 0).is_null());
        assert_eq!(errno(), libc::ENOMEM);
    }
    assert!(!ibv_reg_mr(a.pd, a.memory.cast(), 8, 0).is_null());
    control("fail ibv_create_qp 1");
    assert!(ibv_create_qp(a.pd, &mut a.init(QPT_UD)).is_null());
    assert_eq!(errno(), libc::EPERM);
    a.qp(QPT_UD);
}

#[test]
fn a_stalled_device_executes_nothing_until_it_goes_on() {
    let _world = world("");
    let a = side(0);
    let raw = running(&a, QPT_RAW_PACKET);
    control("stall double0 on");
    assert_eq!(send(raw, 1, true, a.sge(0, 60)), 0);
    assert!(poll(a.cq).is_empty() && counter("frames_sent") == 0);
    control("stall double0 off");
    assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)]);
}
