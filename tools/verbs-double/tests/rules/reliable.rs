//! RC: order, lengths, acknowledgement, retries, remote access, shared receive queues.

use super::harness::*;
use std::ptr::null_mut;
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::*;

#[test]
fn messages_arrive_whole_and_in_order() {
    let _world = world("");
    let (a, b) = (side_with(0, 512), side_with(1, 512));
    let (one, other) = connected(&a, &b);
    for round in 0..100u64 {
        // Over the wrap of the sequence number, which began two short of it.
        let length = 1 + usize::try_from(round).unwrap() * 2000;
        let fill = u8::try_from(round).unwrap();
        a.bytes(0, length).fill(fill);
        assert_eq!(recv(other, round, &[b.sge(0, 10), b.sge(10, length)]), 0);
        assert_eq!(post(one, wr(round, WR_SEND, SEND_SIGNALED), &[a.sge(0, length)]), 0);
        assert_eq!(ends(&poll(a.cq)), [(round, WC_SUCCESS)]);
        let wc = poll(b.cq)[0];
        let expected = u32::try_from(length).unwrap();
        assert_eq!((wc.wr_id, wc.byte_len, wc.qp_num), (round, expected, at(other).qp_num));
        assert!(b.bytes(0, length).iter().all(|byte| *byte == fill));
    }
}

#[test]
fn a_message_longer_than_its_receive_ends_both() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, other) = connected(&a, &b);
    assert_eq!(recv(other, 7, &[b.sge(0, 50), b.sge(50, 49)]), 0);
    assert_eq!(recv(other, 8, &[b.sge(0, 500)]), 0);
    assert_eq!(send(one, 1, false, a.sge(0, 100)), 0);
    assert_eq!(ends(&poll(a.cq)), [(1, WC_REM_INV_REQ_ERR)]);
    assert_eq!(ends(&poll(b.cq)), [(7, WC_LOC_LEN_ERR), (8, WC_WR_FLUSH_ERR)]);
    assert_eq!((at(one).state, at(other).state), (QPS_ERR, QPS_ERR));
}

/// After an error only four members are valid (ibv_poll_cq(3)): the rest is nonsense here.
#[test]
fn what_is_not_valid_after_an_error_is_nonsense() {
    let _world = world("");
    let a = side(0);
    let qp = running(&a, QPT_UD);
    assert_eq!(recv(qp, 7, &[a.sge(0, 50)]), 0);
    assert_eq!(modify(qp, QPS_ERR, 0, &zeroed()), 0);
    let wc = poll(a.cq)[0];
    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (7, WC_WR_FLUSH_ERR, at(qp).qp_num));
    assert_eq!((wc.opcode, wc.byte_len, wc.wc_flags), (0x5a5a, 0x5a5a_5a5a, 0x5a58));
}

/// `min_rnr_timer` and `rnr_retry` of ibv_modify_qp(3).
#[test]
fn a_receiver_that_is_not_ready_is_waited_for_so_often() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, other) = connected(&a, &b);
    assert_eq!(send(one, 1, true, a.sge(0, 100)), 0);
    assert!(poll(a.cq).is_empty());
    assert_eq!(recv(other, 7, &[b.sge(0, 100)]), 0);
    assert_eq!(ends(&wait(a.cq, 1)), [(1, WC_SUCCESS)]);
    assert_eq!(ends(&poll(b.cq)), [(7, WC_SUCCESS)]);
    let before = counter("not_ready_answers");
    assert_eq!(send(one, 2, false, a.sge(0, 100)), 0);
    assert_eq!(ends(&wait(a.cq, 1)), [(2, WC_RNR_RETRY_EXC_ERR)]);
    // Once and three times again.
    assert_eq!(counter("not_ready_answers") - before, 4);
    assert_eq!(at(other).state, QPS_RTS, "the receiver lives on");
}

#[test]
fn seven_means_to_wait_without_end() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, other) = (a.qp(QPT_RC), b.qp(QPT_RC));
    ready(one, &QpAttr { rnr_retry: 7, ..rc_attr(&a, &b, at(other).qp_num) });
    ready(other, &QpAttr { min_rnr_timer: 1, ..rc_attr(&b, &a, at(one).qp_num) });
    assert_eq!(send(one, 1, true, a.sge(0, 100)), 0);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while counter("not_ready_answers") < 20 && std::time::Instant::now() < limit {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(counter("not_ready_answers") >= 20 && poll(a.cq).is_empty());
    assert_eq!(recv(other, 7, &[b.sge(0, 100)]), 0);
    assert_eq!(ends(&wait(a.cq, 1)), [(1, WC_SUCCESS)]);
}

/// Nobody there, another number, another PSN, a port that is down: retries, then the error.
#[test]
fn what_is_never_acknowledged_ends_after_its_retries() {
    for place in 0..6 {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let (one, other) = (a.qp(QPT_RC), b.qp(QPT_RC));
        let (to, from) = (at(other).qp_num, at(one).qp_num);
        ready(one, &rc_attr(&a, &b, to));
        let theirs = rc_attr(&b, &a, from);
        match place {
            0 => {}
            1 => ready(other, &QpAttr { dest_qp_num: from + 1, ..theirs }),
            2 => ready(other, &QpAttr { rq_psn: 5, ..theirs }),
            3 => ready(other, &QpAttr { rq_psn: 0xff_fff0, ..theirs }),
            4 => ready(other, &QpAttr { ah_attr: b.way_to(&b), ..theirs }),
            _ => {
                ready(other, &theirs);
                control("port double1 down");
            }
        }
        if place > 0 {
            assert_eq!(recv(other, 7, &[b.sge(0, 100)]), 0);
        }
        let begun = std::time::Instant::now();
        assert_eq!(send(one, 1, false, a.sge(0, 100)), 0);
        assert_eq!(ends(&wait(a.cq, 1)), [(1, WC_RETRY_EXC_ERR)], "{place}");
        // Four times 4.096 us times 2^8, unless a NAK said so earlier.
        let least = if place == 3 { 0 } else { 4 };
        assert!(begun.elapsed() >= std::time::Duration::from_millis(least));
        assert!(poll(b.cq).is_empty());
    }
}

#[test]
fn losses_are_repaired() {
    let _world = world("seed=3");
    let (a, b) = (side_with(0, 512), side_with(1, 512));
    let (one, other) = (a.qp(QPT_RC), b.qp(QPT_RC));
    // Losses are many here: eight in a row end a connection.
    ready(one, &QpAttr { retry_cnt: 7, ..rc_attr(&a, &b, at(other).qp_num) });
    ready(other, &QpAttr { retry_cnt: 7, ..rc_attr(&b, &a, at(one).qp_num) });
    control("lose double0 100000");
    control("lose double1 100000");
    for round in 0..60u64 {
        for id in 0..4 {
            let place = usize::try_from(round * 4 + id).unwrap();
            a.bytes(place, 1)[0] = u8::try_from(place % 251).unwrap();
            assert_eq!(recv(other, id, &[b.sge(place, 1)]), 0);
            assert_eq!(send(one, id, true, a.sge(place, 1)), 0);
        }
        let found = wait(a.cq, 4);
        assert_eq!(ends(&found), [0, 1, 2, 3].map(|id| (id, WC_SUCCESS)));
        assert_eq!(ends(&wait(b.cq, 4)), [0, 1, 2, 3].map(|id| (id, WC_SUCCESS)));
    }
    assert_eq!(a.bytes(0, 240), b.bytes(0, 240));
    assert!(counter("lost_on_purpose") > 20 && counter("messages_repeated") > 20);
}

#[test]
fn remote_access_needs_key_bounds_and_rights() {
    let good = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ;
    let (write, read) = (WR_RDMA_WRITE, WR_RDMA_READ);
    // Opcode, rights of region and queue pair, offset, whether the key is right, whether it holds.
    let rows = [
        (write, good, good, 0, true, true),
        (read, good, good, 0, true, true),
        (write, good, good, ROOM - 99, true, false),
        (write, good, good, 0, false, false),
        (write, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ, good, 0, true, false),
        (read, ACCESS_LOCAL_WRITE, good, 0, true, false),
        (write, good, ACCESS_REMOTE_READ, 0, true, false),
        (read, good, ACCESS_REMOTE_WRITE, 0, true, false),
    ];
    for (number, (opcode, region, rights, offset, right_key, holds)) in rows.into_iter().enumerate()
    {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let (one, other) = (a.qp(QPT_RC), b.qp(QPT_RC));
        ready(one, &rc_attr(&a, &b, at(other).qp_num));
        let theirs = rc_attr(&b, &a, at(one).qp_num);
        ready(other, &QpAttr { qp_access_flags: rights & !ACCESS_LOCAL_WRITE, ..theirs });
        let mr = at(ibv_reg_mr(b.pd, b.memory.cast(), ROOM, region));
        a.bytes(0, 100).fill(3);
        b.bytes(0, 100).fill(4);
        let mut request = wr(1, opcode, 0);
        let key = if right_key { mr.rkey } else { mr.lkey };
        request.wr = [b.address(offset), u64::from(key), 0, 0];
        request.send_flags = SEND_SIGNALED;
        assert_eq!(post(one, request, &[a.sge(0, 100)]), 0);
        let expected = if holds { WC_SUCCESS } else { WC_REM_ACCESS_ERR };
        assert_eq!(ends(&poll(a.cq)), [(1, expected)], "{number}");
        assert_eq!(a.bytes(0, 100) == b.bytes(0, 100), holds, "{number}");
        assert!(poll(b.cq).is_empty(), "the other side sees no completion");
        assert_eq!(at(other).state == QPS_ERR, !holds, "{number}");
    }
}

fn shared(side: &Side, max_wr: u32) -> *mut Srq {
    let attr = SrqAttr { max_wr, max_sge: 2, srq_limit: 5 };
    let mut init = SrqInitAttr { srq_context: null_mut(), attr };
    let srq = at(ibv_create_srq(side.pd, &raw mut init));
    assert_eq!(init.attr.srq_limit, 0);
    srq
}

/// ibv_create_srq(3), ibv_modify_srq(3), ibv_post_recv(3).
#[test]
fn a_shared_queue_serves_all_and_tells_once_when_it_runs_low() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let srq = shared(&b, 6);
    let pairs = [0, 1].map(|_| {
        let mut init = b.init(QPT_RC);
        init.srq = srq;
        let (one, other) = (a.qp(QPT_RC), at(ibv_create_qp(b.pd, &raw mut init)));
        assert_eq!((init.cap.max_recv_wr, init.cap.max_recv_sge), (0, 0));
        ready(one, &rc_attr(&a, &b, other.qp_num));
        ready(other, &rc_attr(&b, &a, at(one).qp_num));
        (one, std::ptr::from_mut(other))
    });
    assert_eq!(recv(pairs[0].1, 1, &[b.sge(0, 9)]), libc::EINVAL, "it has a shared queue");
    assert_eq!(recv_shared(srq, 1, &[b.sge(0, 9); 3]), libc::EINVAL, "elements");
    for id in 0..6 {
        assert_eq!(recv_shared(srq, id, &[b.sge(0, 100)]), 0);
    }
    assert_eq!(recv_shared(srq, 6, &[b.sge(0, 100)]), libc::ENOMEM);
    let limit = SrqAttr { max_wr: 0, max_sge: 0, srq_limit: 4 };
    assert_eq!(ibv_modify_srq(srq, &raw const limit, SRQ_LIMIT), 0);
    let wrong = SrqAttr { srq_limit: 7, ..limit };
    assert_eq!(ibv_modify_srq(srq, &raw const wrong, SRQ_LIMIT), libc::EINVAL);
    for id in 0..4 {
        let qp = pairs[usize::try_from(id).unwrap() % 2].0;
        assert_eq!(send(qp, id, true, a.sge(0, 10)), 0);
        let told = events(b.context);
        let place = u64::try_from(srq.addr()).unwrap();
        let expected = [(EVENT_SRQ_LIMIT_REACHED, place)];
        // Six posted, four left is the limit, three are below it.
        assert_eq!(told, if id == 2 { &expected[..] } else { &[] }, "{id}");
    }
    let found = poll(b.cq);
    assert_eq!(ends(&found), [0, 1, 2, 3].map(|id| (id, WC_SUCCESS)));
    assert_ne!(found[0].qp_num, found[1].qp_num);
    // A queue pair in error leaves the shared queue's receives to the others.
    assert_eq!(modify(pairs[0].1, QPS_ERR, 0, &zeroed()), 0);
    let qp = u64::try_from(pairs[0].1.addr()).unwrap();
    assert_eq!(events(b.context), [(EVENT_QP_LAST_WQE_REACHED, qp)]);
    assert!(poll(b.cq).is_empty());
    assert_eq!(send(pairs[1].0, 9, true, a.sge(0, 10)), 0);
    assert_eq!(ends(&poll(b.cq)), [(4, WC_SUCCESS)]);
}

#[test]
fn a_raw_queue_pair_takes_no_shared_queue() {
    let _world = world("");
    let a = side(0);
    let mut init = a.init(QPT_RAW_PACKET);
    init.srq = shared(&a, 4);
    assert!(ibv_create_qp(a.pd, &raw mut init).is_null());
    assert_eq!(errno(), libc::EINVAL);
}
