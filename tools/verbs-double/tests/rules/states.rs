//! ibv_modify_qp(3): transitions, the attributes that each needs, and their ranges.

use super::harness::*;
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::{QpAttr, QpInitAttr};

/// The attributes that a transition needs, as the tables of the page list them.
const NEEDED: [(u32, [&[i32]; 3]); 3] = [
    (
        QPT_RC,
        [
            &[QP_PKEY_INDEX, QP_PORT, QP_ACCESS_FLAGS],
            &[QP_AV, QP_PATH_MTU, QP_DEST_QPN, QP_RQ_PSN, QP_MAX_DEST_RD_ATOMIC, QP_MIN_RNR_TIMER],
            &[QP_SQ_PSN, QP_MAX_QP_RD_ATOMIC, QP_RETRY_CNT, QP_RNR_RETRY, QP_TIMEOUT],
        ],
    ),
    (QPT_UD, [&[QP_PKEY_INDEX, QP_PORT, QP_QKEY], &[], &[QP_SQ_PSN]]),
    (QPT_RAW_PACKET, [&[QP_PORT], &[], &[]]),
];
const STATES: [u32; 3] = [QPS_INIT, QPS_RTR, QPS_RTS];

#[test]
fn each_transition_needs_each_of_its_attributes_and_takes_no_others() {
    for (kind, steps) in NEEDED {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let qp = a.qp(kind);
        let attr = rc_attr(&a, &b, 77);
        for (step, needed) in steps.into_iter().enumerate() {
            let all = needed.iter().fold(0, |mask, bit| mask | bit);
            for bit in needed {
                let result = modify(qp, STATES[step], all & !bit, &attr);
                assert_eq!(result, libc::EINVAL, "{kind}: {step} without {bit:#x}");
            }
            // A path MTU is for RTR of connected queue pairs alone.
            if all & QP_PATH_MTU == 0 {
                let result = modify(qp, STATES[step], all | QP_PATH_MTU, &attr);
                assert_eq!(result, libc::EINVAL, "{kind}: {step} with a path MTU");
            }
            let before = at(qp).state;
            assert_eq!(modify(qp, QPS_SQD, 0, &attr), libc::EINVAL);
            assert_eq!(at(qp).state, before);
            assert_eq!(modify(qp, STATES[step], all, &attr), 0, "{kind}: {step}");
            assert_eq!(at(qp).state, STATES[step]);
        }
        // Not backwards, and from anywhere to RESET and ERR.
        assert_eq!(modify(qp, QPS_RTR, steps[1].iter().sum(), &attr), libc::EINVAL);
        assert_eq!(modify(qp, QPS_SQD, 0, &attr), 0);
        assert_eq!(modify(qp, QPS_RTS, 0, &attr), 0);
        assert_eq!(modify(qp, QPS_ERR, 0, &attr), 0);
        assert_eq!(modify(qp, QPS_RTS, 0, &attr), libc::EINVAL);
        assert_eq!(modify(qp, QPS_RESET, 0, &attr), 0);
        assert_eq!(modify(qp, QPS_RTS, 0, &attr), libc::EINVAL);
    }
}

#[test]
fn values_out_of_range_change_nothing() {
    let _world = world("dev=a,active_mtu=1024;dev=b");
    let (a, b) = (side(0), side(1));
    let good = rc_attr(&a, &b, 77);
    let no_route = |change: fn(&mut QpAttr)| {
        let mut attr = good;
        change(&mut attr);
        attr
    };
    let rows: [(&str, usize, QpAttr); 13] = [
        ("port", 0, QpAttr { port_num: 2, ..good }),
        ("partition key", 0, QpAttr { pkey_index: 1, ..good }),
        ("rights", 0, QpAttr { qp_access_flags: 1 << 12, ..good }),
        ("path MTU above the port's", 1, QpAttr { path_mtu: 4, ..good }),
        ("number of 25 bits", 1, QpAttr { dest_qp_num: 1 << 24, ..good }),
        ("PSN of 25 bits", 1, QpAttr { rq_psn: 1 << 24, ..good }),
        ("RNR timer", 1, QpAttr { min_rnr_timer: 32, ..good }),
        ("no GRH", 1, no_route(|attr| attr.ah_attr.is_global = 0)),
        ("empty source", 1, no_route(|attr| attr.ah_attr.sgid_index = 9)),
        ("empty destination", 1, no_route(|attr| attr.ah_attr.dgid = [0; 2])),
        ("timeout", 2, QpAttr { timeout: 32, ..good }),
        ("retries", 2, QpAttr { retry_cnt: 8, ..good }),
        ("RNR retries", 2, QpAttr { rnr_retry: 8, ..good }),
    ];
    for (name, step, wrong) in rows {
        let qp = a.qp(QPT_RC);
        for (number, mask) in [RC_INIT, RC_RTR, RC_RTS].into_iter().enumerate() {
            if number == step {
                let before = at(qp).state;
                assert_eq!(modify(qp, STATES[number], mask, &wrong), libc::EINVAL, "{name}");
                assert_eq!(at(qp).state, before, "{name}");
            }
            assert_eq!(modify(qp, STATES[number], mask, &good), 0, "{name}");
        }
        let (mut attr, mut init): (QpAttr, QpInitAttr) = (zeroed(), zeroed());
        assert_eq!(ibv_query_qp(qp, &raw mut attr, 0, &raw mut init), 0);
        assert_eq!((attr.qp_state, attr.dest_qp_num, attr.timeout), (QPS_RTS, 77, 8));
        assert_eq!((init.cap.max_send_wr, init.qp_type), (8, QPT_RC));
    }
}

#[test]
fn what_may_be_posted_depends_on_the_state() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let qp = a.qp(QPT_RC);
    let attr = rc_attr(&a, &b, 77);
    let sge = a.sge(0, 8);
    let rows = [
        (QPS_RESET, 0, libc::EINVAL, libc::EINVAL),
        (QPS_INIT, RC_INIT, libc::EINVAL, 0),
        (QPS_RTR, RC_RTR, libc::EINVAL, 0),
        (QPS_RTS, RC_RTS, 0, 0),
        (QPS_ERR, 0, 0, 0),
    ];
    for (state, mask, sends, receives) in rows {
        if state != QPS_RESET {
            assert_eq!(modify(qp, state, mask, &attr), 0);
        }
        assert_eq!(send(qp, 1, false, sge), sends, "send in {state}");
        assert_eq!(recv(qp, 2, &[sge]), receives, "receive in {state}");
    }
    // One send and three receives when it failed, one of each behind that: all are flushed.
    let mut found = ends(&poll(a.cq));
    found.sort_unstable();
    let (send, receive) = ((1, WC_WR_FLUSH_ERR), (2, WC_WR_FLUSH_ERR));
    assert_eq!(found, [send, send, receive, receive, receive, receive]);
    assert_eq!(modify(qp, QPS_RESET, 0, &attr), 0);
    assert_eq!(recv(qp, 2, &[sge]), libc::EINVAL);
}

#[test]
fn reset_forgets_requests_and_completions() {
    let _world = world("");
    let a = side(0);
    let raw = running(&a, QPT_RAW_PACKET);
    for id in 0..8 {
        assert_eq!(send(raw, id, true, a.sge(0, 60)), 0);
        assert_eq!(recv(raw, id, &[a.sge(0, 60)]), 0);
    }
    let attr = QpAttr { port_num: 1, ..QpAttr::default() };
    assert_eq!(modify(raw, QPS_RESET, 0, &attr), 0);
    assert!(poll(a.cq).is_empty());
    ready(raw, &attr);
    for id in 0..8 {
        assert_eq!(send(raw, id, false, a.sge(0, 60)), 0);
        assert_eq!(recv(raw, id, &[a.sge(0, 60)]), 0);
    }
}

#[test]
fn an_error_stops_sends_and_not_receives_of_datagrams() {
    let _world = world("");
    let a = side(0);
    let b = side(1);
    let qp = running(&a, QPT_RAW_PACKET);
    assert_eq!(recv(qp, 5, &[a.sge(0, 2000)]), 0);
    let attr =
        verbs_double::abi::flows::FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
    assert!(!rule(qp, &attr, &[]).is_null());
    let wrong = verbs_double::abi::work::Sge { lkey: 0, ..a.sge(0, 60) };
    assert_eq!(send(qp, 1, false, wrong), 0);
    assert_eq!(at(qp).state, QPS_SQE);
    assert_eq!(send(qp, 2, false, a.sge(0, 60)), 0);
    assert_eq!(ends(&poll(a.cq)), [(1, WC_LOC_PROT_ERR), (2, WC_WR_FLUSH_ERR)]);
    let peer = running(&b, QPT_RAW_PACKET);
    assert_eq!(send(peer, 1, false, b.sge(0, 60)), 0);
    assert_eq!(ends(&poll(a.cq)), [(5, WC_SUCCESS)]);
    // ibv_modify_qp(3): back to RTS from SQE.
    assert_eq!(modify(qp, QPS_RTS, 0, &zeroed()), 0);
    assert_eq!(send(qp, 3, true, a.sge(0, 60)), 0);
    assert_eq!(ends(&poll(a.cq)), [(3, WC_SUCCESS)]);
}

pub(crate) fn rule_attr() -> verbs_double::abi::flows::FlowAttr {
    verbs_double::abi::flows::FlowAttr {
        comp_mask: 0,
        attr_type: FLOW_ATTR_NORMAL,
        size: 0,
        priority: 0,
        num_of_specs: 0,
        port: 1,
        flags: 0,
    }
}
