//! What creating and destroying objects refuses, and completion channels.

use super::harness::*;
use std::ptr::null_mut;
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::*;

#[test]
fn regions_keep_the_rules_of_rights_and_memory() {
    let _world = world("dev=a,max_mr=2,memlock=600000");
    let a = side(0);
    let base = a.memory.cast();
    // ibv_reg_mr(3), by row: rights, length, errno.
    let rows = [
        ("remote write without local write", ACCESS_REMOTE_WRITE, 100, libc::EINVAL),
        ("atomics without local write", ACCESS_REMOTE_ATOMIC, 100, libc::EINVAL),
        ("no such right", 1 << 9, 100, libc::EINVAL),
        ("on demand, which the device lacks", ACCESS_ON_DEMAND, 100, libc::EOPNOTSUPP),
        ("nothing", 0, 0, libc::EINVAL),
    ];
    for (name, rights, length, expected) in rows {
        assert!(ibv_reg_mr(a.pd, base, length, rights).is_null(), "{name}");
        assert_eq!(errno(), expected, "{name}");
    }
    let nowhere = std::ptr::without_provenance_mut(0x1000);
    assert!(ibv_reg_mr(a.pd, nowhere, 100, 0).is_null());
    assert_eq!(errno(), libc::EFAULT);
    let big: *mut [u8] = Box::into_raw(vec![0u8; 400_000].into_boxed_slice());
    assert!(ibv_reg_mr(a.pd, big.cast(), 400_000, 0).is_null(), "locked memory");
    assert_eq!(errno(), libc::ENOMEM);
    // Optional rights are for whoever can (ibv_reg_mr(3), IBV_ACCESS_RELAXED_ORDERING).
    assert!(!ibv_reg_mr(a.pd, base, 100, 1 << 20).is_null());
    assert!(ibv_reg_mr(a.pd, base, 100, 0).is_null(), "max_mr");
    assert_eq!(errno(), libc::ENOMEM);
}

#[test]
fn a_queue_pair_beyond_the_devices_limits_is_not_made() {
    let _world = world("dev=a,max_qp_wr=100,max_sge=4,max_inline=64,max_qp=2;dev=b,raw=off");
    let (a, b) = (side(0), side(1));
    type Change = fn(&mut QpInitAttr);
    let rows: [(&str, Change, i32); 8] = [
        ("sends", |init| init.cap.max_send_wr = 101, libc::EINVAL),
        ("receives", |init| init.cap.max_recv_wr = 101, libc::EINVAL),
        ("send elements", |init| init.cap.max_send_sge = 5, libc::EINVAL),
        ("receive elements", |init| init.cap.max_recv_sge = 5, libc::EINVAL),
        ("inline", |init| init.cap.max_inline_data = 65, libc::EINVAL),
        ("no send queue", |init| init.send_cq = null_mut(), libc::EINVAL),
        ("no receive queue", |init| init.recv_cq = null_mut(), libc::EINVAL),
        ("type", |init| init.qp_type = QPT_UC, libc::EOPNOTSUPP),
    ];
    for (name, change, expected) in rows {
        let mut init = a.init(QPT_RC);
        change(&mut init);
        assert!(ibv_create_qp(a.pd, &raw mut init).is_null(), "{name}");
        assert_eq!(errno(), expected, "{name}");
    }
    assert!(ibv_create_qp(b.pd, &mut b.init(QPT_RAW_PACKET)).is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    let mut foreign = a.init(QPT_RC);
    foreign.recv_cq = b.cq;
    assert!(ibv_create_qp(a.pd, &raw mut foreign).is_null());
    a.qp(QPT_RC);
    a.qp(QPT_UD);
    assert!(ibv_create_qp(a.pd, &mut a.init(QPT_RC)).is_null());
    assert_eq!(errno(), libc::ENOMEM);
}

#[test]
fn raw_packets_need_privilege() {
    let _world = world("dev=a,privileged=no");
    let a = side(0);
    assert!(ibv_create_qp(a.pd, &mut a.init(QPT_RAW_PACKET)).is_null());
    assert_eq!(errno(), libc::EPERM);
    a.qp(QPT_UD);
}

#[test]
fn a_segmentation_header_is_asked_for_at_creation() {
    let _world = world("dev=a,max_tso_header=100;dev=b,tso=off");
    let (a, b) = (side(0), side(1));
    let make = |side: &Side, kind: u32, header: u16, mask: u32| {
        let mut attr: QpInitAttrEx = zeroed();
        attr.set_base(&side.init(kind));
        attr.pd = side.pd;
        attr.comp_mask = mask;
        attr.max_tso_header = header;
        let call = verbs(side.context).create_qp_ex.unwrap();
        // SAFETY: attributes that live through the call.
        unsafe { call(side.context, &raw mut attr) }
    };
    let tso = QP_INIT_ATTR_PD | QP_INIT_ATTR_MAX_TSO_HEADER;
    assert!(!make(&a, QPT_RAW_PACKET, 100, tso).is_null());
    for (name, qp) in [
        ("longer than the device's", make(&a, QPT_RAW_PACKET, 101, tso)),
        ("for RC", make(&a, QPT_RC, 100, tso)),
        ("on a device without", make(&b, QPT_RAW_PACKET, 100, tso)),
        ("without a domain", make(&a, QPT_RAW_PACKET, 100, QP_INIT_ATTR_MAX_TSO_HEADER)),
    ] {
        assert!(qp.is_null(), "{name}");
    }
    let qp = make(&a, QPT_RAW_PACKET, 54, tso);
    ready(qp, &QpAttr { port_num: 1, ..QpAttr::default() });
    let header = [0u8; 128];
    let address = u64::try_from(header.as_ptr().expose_provenance()).unwrap();
    // ibv_post_send(3): hdr, hdr_sz, mss.
    for (name, hdr, size, mss) in [
        ("header longer than asked for", address, 55, 100),
        ("shorter than Ethernet's", address, 13, 100),
        ("no segment size", address, 54, 0),
        ("no header", 0, 54, 100),
    ] {
        let mut request = wr(1, WR_TSO, 0);
        request.tail[..2].copy_from_slice(&[hdr, size | mss << 16]);
        assert_eq!(post(qp, request, &[a.sge(0, 500)]), libc::EINVAL, "{name}");
    }
    // ibv_post_send(3): IBV_SEND_INLINE is valid for Send and RDMA Write.
    let mut request = wr(1, WR_TSO, SEND_INLINE);
    request.tail[..2].copy_from_slice(&[address, 54 | 100 << 16]);
    assert_eq!(post(qp, request, &[a.sge(0, 50)]), libc::EINVAL, "inline");
}

#[test]
fn objects_in_use_are_not_destroyed() {
    let _world = world("");
    let a = side(0);
    let channel = ibv_create_comp_channel(a.context);
    let cq = ibv_create_cq(a.context, 4, null_mut(), channel, 0);
    let mut init = a.init(QPT_UD);
    init.recv_cq = cq;
    let mut wanted = SrqInitAttr {
        srq_context: null_mut(),
        attr: SrqAttr { max_wr: 4, max_sge: 1, srq_limit: 0 },
    };
    let srq = ibv_create_srq(a.pd, &raw mut wanted);
    init.srq = srq;
    let qp = ibv_create_qp(a.pd, &raw mut init);
    assert_eq!(ibv_destroy_comp_channel(channel), libc::EBUSY);
    assert_eq!(ibv_destroy_cq(cq), libc::EBUSY);
    assert_eq!(ibv_destroy_srq(srq), libc::EBUSY);
    assert_eq!(ibv_dealloc_pd(a.pd), libc::EBUSY);
    let mut group = [0u8; 16];
    group[0] = 0xff;
    assert_eq!(ibv_attach_mcast(qp, &raw const group, 0), 0);
    assert_eq!(ibv_destroy_qp(qp), libc::EBUSY, "in a group");
    assert_eq!(ibv_detach_mcast(qp, &raw const group, 0), 0);
    assert_eq!(ibv_destroy_qp(qp), 0);
    assert_eq!(ibv_destroy_srq(srq), 0);
    assert_eq!(ibv_destroy_cq(cq), 0);
    assert_eq!(ibv_destroy_comp_channel(channel), 0);
    assert_eq!(ibv_dealloc_pd(a.pd), libc::EBUSY, "a region is left");
    assert_eq!(ibv_dereg_mr(a.mr), 0);
    assert_eq!(ibv_dealloc_pd(a.pd), 0);
    assert_eq!(ibv_destroy_cq(a.cq), 0);
    assert_eq!(ibv_close_device(a.context), 0);
}

#[test]
fn address_handles_need_a_route_and_are_limited() {
    let _world = world("dev=a,max_ah=2;dev=b");
    let (a, b) = (side(0), side(1));
    let good = a.way_to(&b);
    for (name, wrong) in [
        ("port", AhAttr { port_num: 2, ..good }),
        ("no GRH on Ethernet", AhAttr { is_global: 0, ..good }),
        ("source index", AhAttr { sgid_index: 4, ..good }),
        ("service level", AhAttr { sl: 16, ..good }),
    ] {
        assert!(ibv_create_ah(a.pd, &raw const wrong).is_null(), "{name}");
        assert_eq!(errno(), libc::EINVAL, "{name}");
    }
    let first = ibv_create_ah(a.pd, &raw const good);
    assert!(!ibv_create_ah(a.pd, &raw const good).is_null());
    assert!(ibv_create_ah(a.pd, &raw const good).is_null());
    assert_eq!(errno(), libc::ENOMEM);
    assert_eq!(ibv_destroy_ah(at(first)), 0);
    assert!(!ibv_create_ah(a.pd, &raw const good).is_null());
}

/// ibv_req_notify_cq(3) and ibv_get_cq_event(3).
#[test]
fn an_event_comes_once_for_the_next_completion_after_arming() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let channel = ibv_create_comp_channel(b.context);
    let fd = at(channel).fd;
    let token = std::ptr::without_provenance_mut(0x77);
    let cq = at(ibv_create_cq(b.context, 16, token, channel, 0));
    let mut init = b.init(QPT_UD);
    init.recv_cq = cq;
    let (sender, qp) = (running(&a, QPT_UD), ibv_create_qp(b.pd, &raw mut init));
    ready(qp, &QpAttr { port_num: 1, qkey: QKEY, ..QpAttr::default() });
    for id in 0..6 {
        assert_eq!(recv(qp, id, &[b.sge(0, 100)]), 0);
    }
    let ah = ibv_create_ah(a.pd, &a.way_to(&b));
    let datagram = |flags: u32| {
        let request = super::datagrams::to(wr(1, WR_SEND, flags), ah, (at(qp).qp_num, QKEY));
        assert_eq!(post(sender, request, &[a.sge(0, 8)]), 0);
    };
    datagram(0);
    arm(cq, false);
    assert!(!readable(fd), "the completion was there before");
    datagram(0);
    assert!(readable(fd));
    datagram(0);
    let (mut got, mut context) = (null_mut(), null_mut());
    assert_eq!(ibv_get_cq_event(channel, &raw mut got, &raw mut context), 0);
    assert_eq!((got, context), (std::ptr::from_mut(cq), token));
    assert!(!readable(fd), "one shot");
    ibv_ack_cq_events(cq, 1);
    arm(cq, true);
    datagram(0);
    assert!(!readable(fd), "not solicited");
    datagram(SEND_SOLICITED);
    assert!(readable(fd));
    assert_eq!(ibv_get_cq_event(channel, &raw mut got, &raw mut context), 0);
    arm(cq, true);
    assert_eq!(modify(qp, QPS_ERR, 0, &zeroed()), 0);
    assert!(readable(fd), "an error is solicited");
    assert_eq!(counter("completion_events"), 3);
    assert_eq!(ibv_destroy_qp(qp), 0);
    // One event was not acknowledged: the real library would wait for ever.
    assert_eq!(ibv_destroy_cq(cq), libc::EBUSY);
    ibv_ack_cq_events(cq, 1);
    assert_eq!(ibv_destroy_cq(cq), 0);
    assert!(!readable(fd), "the event of a queue that is gone");
}
