//! UD: the GRH area, keys, lengths, groups, and the way back.

use super::harness::*;
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::Ah;
use verbs_double::abi::work::SendWr;

/// A request to a queue pair: number and key.
pub(crate) fn to(mut request: SendWr, ah: *mut Ah, (number, key): (u32, u32)) -> SendWr {
    let address = u64::try_from(ah.expose_provenance()).unwrap();
    request.wr = [address, u64::from(number) | u64::from(key) << 32, 0, 0];
    request
}

/// ibv_post_recv(3): "the actual data of the incoming message will start at an offset of 40 bytes".
#[test]
fn a_datagram_lands_behind_forty_bytes_and_can_be_answered() {
    let _world = world("dev=a;dev=b,gid=fd00::b/v2,gid=fd00::b/v1,gid=fe80::b/v1,gid=10.77.0.2");
    let (a, b) = (side(0), side(1));
    let (one, other) = (running(&a, QPT_UD), running(&b, QPT_UD));
    let (own, peer) = (at(one).qp_num, at(other).qp_num);
    let ah = ibv_create_ah(a.pd, &a.way_to(&b));
    a.bytes(0, 5).copy_from_slice(b"hello");
    assert_eq!(recv(other, 7, &[b.sge(0, 30), b.sge(30, 100)]), 0);
    let mut request = to(wr(1, WR_SEND_WITH_IMM, SEND_SIGNALED), ah, (peer, QKEY));
    request.imm_data = 0x1234_5678;
    assert_eq!(post(one, request, &[a.sge(0, 5)]), 0);
    assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)]);
    let wc = poll(b.cq)[0];
    assert_eq!((wc.wr_id, wc.byte_len, wc.src_qp, wc.imm_data), (7, 45, own, 0x1234_5678));
    assert_eq!(wc.wc_flags, WC_FLAG_GRH | WC_FLAG_WITH_IMM);
    assert_eq!(b.bytes(40, 5), b"hello");
    let area: &mut [u8; 40] = b.bytes(0, 40).try_into().unwrap();
    // RoCE v2 over IPv4: the header lies in the last twenty bytes.
    assert_eq!((area[20], area[29]), (0x45, 17));
    assert_eq!((&area[32..36], &area[36..40]), (&[10, 77, 0, 1][..], &[10, 77, 0, 2][..]));
    let back = at(ibv_create_ah_from_wc(b.pd, &raw const wc, area, 1));
    assert_eq!(recv(one, 8, &[a.sge(0, 100)]), 0);
    assert_eq!(post(other, to(wr(2, WR_SEND, 0), back, (own, QKEY)), &[b.sge(40, 5)]), 0);
    assert_eq!(ends(&poll(a.cq)), [(8, WC_SUCCESS)]);
}

/// With an IPv6 address, and with RoCE v1, the area holds a whole GRH. The way back leads by the
/// GID of the same type.
#[test]
fn a_route_header_of_ipv6_and_of_roce_v1_leads_back() {
    for (kind, next_header) in [("v2", 17), ("v1", 0x1b)] {
        let other_kind = if kind == "v2" { "v1" } else { "v2" };
        let text = ["a", "b"].map(|name| {
            let gid = format!("gid=fd00::{name}");
            format!("dev={name},{gid}/{other_kind},gid=empty,gid=empty,{gid}/{kind}")
        });
        let _world = world(&text.join(";"));
        let (a, b) = (side(0), side(1));
        let (one, other) = (running(&a, QPT_UD), running(&b, QPT_UD));
        let ah = ibv_create_ah(a.pd, &a.way_to(&b));
        assert_eq!(recv(other, 7, &[b.sge(0, 100)]), 0);
        let request = to(wr(1, WR_SEND, 0), ah, (at(other).qp_num, QKEY));
        assert_eq!(post(one, request, &[a.sge(0, 5)]), 0);
        let wc = poll(b.cq)[0];
        let area: &mut [u8; 40] = b.bytes(0, 40).try_into().unwrap();
        assert_eq!((area[0] >> 4, area[6], area[23], area[39]), (6, next_header, 0xa, 0xb));
        let back = ibv_create_ah_from_wc(b.pd, &raw const wc, area, 1);
        assert_eq!(recv(one, 8, &[a.sge(0, 100)]), 0);
        let answer = to(wr(2, WR_SEND, 0), back, (wc.src_qp, QKEY));
        assert_eq!(post(other, answer, &[b.sge(40, 5)]), 0);
        assert_eq!(ends(&poll(a.cq)), [(8, WC_SUCCESS)]);
        let area: &mut [u8; 40] = a.bytes(0, 40).try_into().unwrap();
        assert_eq!((area[6], area[23], area[39]), (next_header, 0xb, 0xa));
        // A destination that is no address of this port leads nowhere.
        area[39] = 0xc;
        assert!(ibv_create_ah_from_wc(a.pd, &raw const wc, area, 1).is_null());
    }
}

#[test]
fn wrong_keys_numbers_and_missing_receives_lose_datagrams() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, other) = (running(&a, QPT_UD), running(&b, QPT_UD));
    let peer = at(other).qp_num;
    let ah = ibv_create_ah(a.pd, &a.way_to(&b));
    let post_to = |number: u32, key: u32| {
        let request = to(wr(1, WR_SEND, SEND_SIGNALED), ah, (number, key));
        assert_eq!(post(one, request, &[a.sge(0, 5)]), 0);
        assert_eq!(ends(&poll(a.cq)), [(1, WC_SUCCESS)], "the sender learns nothing");
    };
    post_to(peer, QKEY);
    assert_eq!(counter("datagrams_no_receive"), 1);
    assert_eq!(recv(other, 7, &[b.sge(0, 100)]), 0);
    post_to(peer, QKEY + 1);
    assert_eq!(counter("datagrams_wrong_key"), 1);
    post_to(peer + 100, QKEY);
    assert_eq!(counter("messages_unwanted"), 1);
    assert!(poll(b.cq).is_empty());
    // The highest bit stands for the sender's own key.
    post_to(peer, 0x8000_0000);
    assert_eq!(ends(&poll(b.cq)), [(7, WC_SUCCESS)]);
}

#[test]
fn a_datagram_is_one_packet() {
    let _world = world("dev=a,active_mtu=1024;dev=b");
    let (a, b) = (side(0), side(1));
    for (length, room, ours, theirs) in [
        (1024, 1064, WC_SUCCESS, Some(WC_SUCCESS)),
        (1025, 2000, WC_LOC_LEN_ERR, None),
        (100, 139, WC_SUCCESS, Some(WC_LOC_LEN_ERR)),
    ] {
        let (one, other) = (running(&a, QPT_UD), running(&b, QPT_UD));
        let ah = ibv_create_ah(a.pd, &a.way_to(&b));
        assert_eq!(recv(other, 7, &[b.sge(0, room)]), 0);
        let request = to(wr(1, WR_SEND, SEND_SIGNALED), ah, (at(other).qp_num, QKEY));
        assert_eq!(post(one, request, &[a.sge(0, length)]), 0);
        assert_eq!(ends(&poll(a.cq)), [(1, ours)]);
        let expected: Vec<_> = theirs.into_iter().map(|status| (7, status)).collect();
        assert_eq!(ends(&poll(b.cq)), expected);
    }
}

#[test]
fn a_group_gets_a_copy_each() {
    let _world = world("");
    let (a, b) = (side(0), side(1));
    let (one, two, three) = (running(&a, QPT_UD), running(&b, QPT_UD), running(&b, QPT_UD));
    let mut way = a.way_to(&b);
    way.dgid = [u64::from_ne_bytes([0xff, 0x0e, 0, 0, 0, 0, 0, 0]), 9];
    let mut group = [0; 16];
    group[..8].copy_from_slice(&way.dgid[0].to_ne_bytes());
    group[8..].copy_from_slice(&way.dgid[1].to_ne_bytes());
    for qp in [one, two, three] {
        assert_eq!(recv(qp, 7, &[b.sge(0, 100)]), 0);
    }
    assert_eq!(ibv_attach_mcast(one, &raw const group, 0), 0);
    assert_eq!(ibv_attach_mcast(two, &raw const group, 0), 0);
    let rc = a.qp(QPT_RC);
    assert_eq!(ibv_attach_mcast(rc, &raw const group, 0), libc::EINVAL);
    assert_eq!(ibv_detach_mcast(three, &raw const group, 0), libc::EINVAL);
    let ah = ibv_create_ah(a.pd, &raw const way);
    let request = to(wr(1, WR_SEND, 0), ah, (0xff_ffff, QKEY));
    assert_eq!(post(one, request, &[a.sge(0, 5)]), 0);
    let found = poll(b.cq);
    assert_eq!(found.iter().map(|wc| wc.qp_num).collect::<Vec<_>>(), [at(two).qp_num]);
    assert!(poll(a.cq).is_empty(), "not to the sender");
}
