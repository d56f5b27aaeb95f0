//! What posting refuses, and what memory protection, depth and queue sizes do.

use super::harness::*;
use verbs_double::abi::consts::*;
use verbs_double::abi::work::Sge;

#[test]
fn a_send_that_cannot_be_is_refused_at_once() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (rc, _) = connected(&a, &b);
    let (ud, raw) = (running(&a, QPT_UD), running(&a, QPT_RAW_PACKET));
    let sge = a.sge(0, 60);
    let long = a.sge(0, 65);
    // ibv_post_send(3) and ibv_create_qp(3), by row: what is wrong.
    let rows = [
        ("opcode that only RC has", ud, wr(1, WR_RDMA_WRITE, 0), vec![sge]),
        ("opcode that RAW_PACKET lacks", raw, wr(1, WR_SEND_WITH_IMM, 0), vec![sge]),
        ("TSO on RC", rc, wr(1, WR_TSO, 0), vec![sge]),
        ("atomics, which the device lacks", rc, wr(1, 5, 0), vec![sge]),
        ("no such opcode", rc, wr(1, 77, 0), vec![sge]),
        ("no such flag", rc, wr(1, WR_SEND, 1 << 9), vec![sge]),
        ("fence, for RC only", ud, wr(1, WR_SEND, SEND_FENCE), vec![sge]),
        ("solicited read", rc, wr(1, WR_RDMA_READ, SEND_SOLICITED), vec![sge]),
        ("inline read", rc, wr(1, WR_RDMA_READ, SEND_INLINE), vec![sge]),
        ("checksum on RC", rc, wr(1, WR_SEND, SEND_IP_CSUM), vec![sge]),
        ("checksum on UD", ud, wr(1, WR_SEND, SEND_IP_CSUM), vec![sge]),
        ("too many elements", rc, wr(1, WR_SEND, 0), vec![sge; 4]),
        ("inline beyond the limit", rc, wr(1, WR_SEND, SEND_INLINE), vec![long]),
        ("datagram without address handle", ud, wr(1, WR_SEND, 0), vec![sge]),
    ];
    for (name, qp, request, sges) in rows {
        assert_eq!(post(qp, request, &sges), libc::EINVAL, "{name}");
    }
    // What `num_sge` says is no number of elements.
    let mut negative = wr(1, WR_SEND, 0);
    let mut list = [sge];
    (negative.sg_list, negative.num_sge) = (list.as_mut_ptr(), -1);
    assert_eq!(post_list(rc, &raw mut negative).0, libc::EINVAL, "fewer than no elements");
    assert_eq!(counter("send_requests"), 0);
    assert_eq!(counter("send_refused"), 15);
    // The same requests without the fault.
    assert_eq!(post(rc, wr(1, WR_SEND, SEND_FENCE | SEND_SOLICITED), &[sge; 3]), 0);
    assert_eq!(post(rc, wr(1, WR_SEND, SEND_INLINE), &[a.sge(0, 64)]), 0);
    assert_eq!(post(raw, wr(1, WR_SEND, SEND_IP_CSUM), &[sge]), 0);
}

#[test]
fn checksum_and_segmentation_need_the_devices_capability() {
    let _world = world("dev=poor,csum=off,tso=off,raw=on");
    let a = side(0);
    let raw = running(&a, QPT_RAW_PACKET);
    let sge = [a.sge(0, 60)];
    assert_eq!(post(raw, wr(1, WR_SEND, SEND_IP_CSUM), &sge), libc::EINVAL);
    assert_eq!(post(raw, wr(1, WR_TSO, 0), &sge), libc::EINVAL);
    assert_eq!(post(raw, wr(1, WR_SEND, 0), &sge), 0);
}

#[test]
fn a_list_stops_at_the_request_that_fails() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (qp, other) = connected(&a, &b);
    assert_eq!(recv(other, 1, &[b.sge(0, 100)]), 0);
    let mut sge = a.sge(0, 4);
    let mut list = [wr(1, WR_SEND, SEND_SIGNALED), wr(2, 99, 0), wr(3, WR_SEND, 0)];
    for one in &mut list {
        one.sg_list = &raw mut sge;
        one.num_sge = 1;
    }
    let places = list.each_mut().map(std::ptr::from_mut);
    at(places[0]).next = places[1];
    at(places[1]).next = places[2];
    let (result, bad) = post_list(qp, places[0]);
    assert_eq!((result, bad), (libc::EINVAL, places[1]));
    assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)]);
    assert_eq!(poll(b.cq).len(), 1);
}

/// ibv_reg_mr(3): key, bounds, domain and rights, of sends and of receives.
#[test]
fn wrong_keys_bounds_and_rights_complete_in_error() {
    for place in 0..7 {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let (qp, other) = connected(&a, &b);
        let foreign = ibv_alloc_pd(a.context);
        let mr = ibv_reg_mr(foreign, a.memory.cast(), ROOM, 0);
        let gone = ibv_reg_mr(a.pd, a.memory.cast(), ROOM, 0);
        let stale = at(gone).lkey;
        assert_eq!(ibv_dereg_mr(gone), 0);
        let good = a.sge(0, 16);
        let sge = match place {
            0 => good,
            1 => Sge { lkey: good.lkey ^ 1, ..good },
            2 => Sge { lkey: at(mr).lkey, ..good },
            3 => Sge { lkey: stale, ..good },
            4 => Sge { addr: a.address(ROOM - 15), ..good },
            5 => Sge { addr: good.addr - 1, ..good },
            _ => Sge { lkey: at(a.mr).rkey, ..good },
        };
        assert_eq!(recv(other, 9, &[b.sge(0, 16)]), 0);
        assert_eq!(send(qp, 1, true, sge), 0);
        assert_eq!(send(qp, 2, false, good), 0);
        if place == 0 {
            // The second finds no receive; nothing more is known of it yet.
            assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)]);
        } else {
            // All behind the failing one are flushed, signalled or not.
            let expected = [(1, WC_LOC_PROT_ERR), (2, WC_WR_FLUSH_ERR)];
            assert_eq!(ends(&poll(a.cq)), expected, "{place}");
            assert_eq!(at(qp).state, QPS_ERR);
            assert!(poll(b.cq).is_empty());
        }
    }
}

#[test]
fn a_receive_needs_local_write_and_its_own_bounds() {
    for place in 0..3 {
        let _world = world("");
        let (a, b) = (side(0), side(1));
        let (qp, other) = connected(&a, &b);
        let read_only = ibv_reg_mr(b.pd, b.memory.cast(), ROOM, ACCESS_REMOTE_READ);
        let good = b.sge(0, 16);
        let sge = match place {
            0 => good,
            1 => Sge { lkey: at(read_only).lkey, ..good },
            _ => Sge { addr: b.address(ROOM), ..good },
        };
        assert_eq!(recv(other, 9, &[sge]), 0);
        assert_eq!(send(qp, 1, true, a.sge(0, 16)), 0);
        let (ours, theirs) = match place {
            0 => (WC_SUCCESS, WC_SUCCESS),
            _ => (WC_REM_OP_ERR, WC_LOC_PROT_ERR),
        };
        assert_eq!(ends(&poll(b.cq)), [(9, theirs)]);
        assert_eq!(ends(&poll(a.cq)), [(1, ours)]);
    }
}

#[test]
fn inline_data_is_read_at_once_and_its_key_is_not_checked() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (qp, other) = connected(&a, &b);
    control("stall double0 on");
    let mut own = *b"inline";
    let addr = u64::try_from(own.as_mut_ptr().expose_provenance()).unwrap();
    let sge = Sge { addr, length: 6, lkey: 0 };
    assert_eq!(post(qp, wr(1, WR_SEND, SEND_INLINE | SEND_SIGNALED), &[sge]), 0);
    own.fill(0);
    assert_eq!(recv(other, 9, &[b.sge(0, 16)]), 0);
    control("stall double0 off");
    assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)]);
    assert_eq!((poll(b.cq)[0].byte_len, &*b.bytes(0, 6)), (6, &b"inline"[..]));
    assert_eq!(own, [0; 6]);
}

/// ibv_create_qp(3), `max_send_wr` "outstanding": until a completion at or behind it is polled.
#[test]
fn places_of_a_send_queue_come_back_with_a_polled_completion() {
    let _world = world("");
    let a = side(0);
    let raw = running(&a, QPT_RAW_PACKET);
    let sge = a.sge(0, 60);
    for id in 0..8 {
        assert_eq!(send(raw, id, false, sge), 0);
    }
    // All were executed, and nobody was told.
    assert_eq!(counter("frames_sent"), 8);
    assert!(poll(a.cq).is_empty());
    assert_eq!(send(raw, 8, true, sge), libc::ENOMEM);
    // That queue can never be used again; one with a signal in time can.
    let other = running(&a, QPT_RAW_PACKET);
    for id in 0..8 {
        assert_eq!(send(other, id, id == 5, sge), 0);
    }
    assert_eq!(send(other, 9, false, sge), libc::ENOMEM);
    assert_eq!(ends(&poll(a.cq)), [(5, WC_SUCCESS)]);
    for id in 0..6 {
        assert_eq!(send(other, id, false, sge), 0, "{id}");
    }
    assert_eq!(send(other, 9, false, sge), libc::ENOMEM);
}

#[test]
fn receives_are_limited_in_number_elements_and_state() {
    let _world = world("");
    let a = side(0);
    let qp = a.qp(QPT_UD);
    let sge = a.sge(0, 100);
    assert_eq!(recv(qp, 1, &[sge]), libc::EINVAL, "in RESET");
    let attr = verbs_double::abi::objects::QpAttr { port_num: 1, qkey: QKEY, ..zeroed() };
    assert_eq!(modify(qp, QPS_INIT, UD_INIT, &attr), 0);
    assert_eq!(recv(qp, 1, &[sge; 4]), libc::EINVAL, "elements");
    for id in 0..8 {
        assert_eq!(recv(qp, id, &[sge]), 0);
    }
    assert_eq!(recv(qp, 8, &[sge]), libc::ENOMEM);
    assert_eq!(counter("recv_refused"), 3);
}

/// ibv_poll_cq(3): "In case of a CQ overrun, the async event IBV_EVENT_CQ_ERR will be triggered,
/// and the CQ cannot be used."
#[test]
fn one_completion_too_many_ends_the_queue() {
    let _world = world("");
    let a = side_with(0, 4);
    let raw = running(&a, QPT_RAW_PACKET);
    for id in 0..4 {
        assert_eq!(send(raw, id, true, a.sge(0, 60)), 0);
    }
    assert_eq!(poll_some(a.cq, 4).0, 4);
    for id in 0..4 {
        assert_eq!(send(raw, id, true, a.sge(0, 60)), 0);
    }
    assert!(events(a.context).is_empty());
    assert_eq!(send(raw, 4, true, a.sge(0, 60)), 0);
    assert_eq!(poll_some(a.cq, 4).0, -1);
    let cq = u64::try_from(a.cq.addr()).unwrap();
    let qp = u64::try_from(raw.addr()).unwrap();
    assert_eq!(events(a.context), [(EVENT_CQ_ERR, cq), (EVENT_QP_FATAL, qp)]);
    assert_eq!(at(raw).state, QPS_ERR);
}
