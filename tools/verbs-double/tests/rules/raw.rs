//! RAW_PACKET: steering, copies, segmentation, checksums, and what the wire does to frames.

use super::harness::*;
use super::states::rule_attr;
use verbs_double::abi::consts::*;
use verbs_double::abi::flows::FlowAttr;
use verbs_double::abi::objects::{Qp, QpInitAttrEx};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];

/// Ethernet, IPv4, TCP, no payload; sums are right after the device completed them.
fn frame(destination: [u8; 6], port: u16) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34]);
    frame.extend_from_slice(&port.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0, 0x50, 0x18, 16, 0, 0, 0, 0, 0]);
    frame
}

fn eth(destination: [u8; 6], mask: [u8; 6]) -> Vec<u8> {
    let mut spec = 0x20u32.to_le_bytes().to_vec();
    spec.extend_from_slice(&40u16.to_le_bytes());
    spec.extend_from_slice(&destination);
    spec.extend_from_slice(&[0; 10]);
    spec.extend_from_slice(&mask);
    spec.extend_from_slice(&[0; 12]);
    spec
}

fn ipv4(destination: [u8; 4], mask: u8) -> Vec<u8> {
    let mut spec = 0x30u32.to_le_bytes().to_vec();
    spec.extend_from_slice(&[24, 0, 0, 0, 0, 0, 0, 0]);
    spec.extend_from_slice(&destination);
    spec.extend_from_slice(&[0, 0, 0, 0, mask, mask, mask, mask]);
    spec
}

fn tcp(destination: u16, mask: u16) -> Vec<u8> {
    let mut spec = 0x40u32.to_le_bytes().to_vec();
    spec.extend_from_slice(&[16, 0]);
    for word in [destination, 0, mask, 0, 0] {
        spec.extend_from_slice(&word.to_be_bytes());
    }
    spec
}

fn normal(specs: u8) -> FlowAttr {
    FlowAttr { num_of_specs: specs, ..rule_attr() }
}

struct Wire {
    a: Side,
    b: Side,
    sender: *mut Qp,
}

impl Wire {
    fn new(text: &str) -> Wire {
        let (a, b) = (side_with(0, 256), side_with(1, 256));
        assert!(!text.is_empty());
        let sender = running(&a, QPT_RAW_PACKET);
        Wire { a, b, sender }
    }

    /// A queue pair with receives at the other end.
    fn receiver(&self) -> *mut Qp {
        let qp = running(&self.b, QPT_RAW_PACKET);
        for id in 0..8 {
            assert_eq!(recv(qp, id, &[self.b.sge(0, 4096)]), 0);
        }
        qp
    }

    /// Sends a frame; numbers of the queue pairs that got it.
    fn send(&self, bytes: &[u8]) -> Vec<u32> {
        self.a.bytes(0, bytes.len()).copy_from_slice(bytes);
        assert_eq!(
            post(self.sender, wr(1, WR_SEND, SEND_SIGNALED), &[self.a.sge(0, bytes.len())]),
            0
        );
        assert_eq!(ends(&poll(self.a.cq)), [(1, WC_SUCCESS)]);
        poll(self.b.cq).iter().map(|wc| wc.qp_num).collect()
    }
}

#[test]
fn rules_match_layers_ports_and_priorities() {
    let _world = world("");
    let wire = Wire::new("rules");
    let [by_mac, by_port, low, defaults] = [0; 4].map(|_| wire.receiver());
    let number = |qp: *mut Qp| at(qp).qp_num;
    assert!(wire.send(&frame(OURS, 80)).is_empty(), "no rule, no frame");
    assert_eq!(counter("frames_unwanted"), 1);

    let five = [eth(OURS, [0xff; 6]), ipv4([10, 0, 0, 2], 0xff), tcp(80, 0xffff)].concat();
    let one = rule(by_port, &normal(3), &five);
    let mac = FlowAttr { priority: 1, ..normal(1) };
    assert!(!rule(by_mac, &mac, &eth(OURS, [0xff; 6])).is_null());
    let last = FlowAttr { priority: 9, ..normal(1) };
    assert!(!rule(low, &last, &eth(OURS, [0xff; 6])).is_null());
    let rest = FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
    assert!(!rule(defaults, &rest, &[]).is_null());

    assert_eq!(wire.send(&frame(OURS, 80)), [number(by_port)]);
    assert_eq!(wire.send(&frame(OURS, 81)), [number(by_mac)]);
    assert_eq!(wire.send(&frame(OTHER, 80)), [number(defaults)]);
    assert_eq!(end_rule(at(one)), 0);
    assert_eq!(wire.send(&frame(OURS, 80)), [number(by_mac)]);
    assert_eq!(ibv_destroy_qp(by_mac), libc::EBUSY, "a rule points at it");
}

#[test]
fn a_frame_to_a_station_comes_back_where_the_device_does_that_and_two_contexts_are_open() {
    for (text, contexts, expected) in [("", 2, 0), ("loopback=on", 1, 0), ("loopback=on", 2, 1)] {
        let items = if text.is_empty() { String::new() } else { format!(",{text}") };
        let _world = world(&format!("dev=double0{items};dev=double1"));
        let side = side_with(0, 256);
        let other = (contexts == 2).then(|| open(0));
        let qp = running(&side, QPT_RAW_PACKET);
        assert_eq!(recv(qp, 7, &[side.sge(2048, 2048)]), 0);
        assert!(!rule(qp, &normal(1), &eth(OURS, [0xff; 6])).is_null());
        for destination in [GROUP, OURS] {
            let bytes = frame(destination, 80);
            side.bytes(0, bytes.len()).copy_from_slice(&bytes);
            assert_eq!(post(qp, wr(1, WR_SEND, 0), &[side.sge(0, bytes.len())]), 0);
        }
        assert_eq!(poll(side.cq).len(), expected, "{text} with {contexts} contexts");
        if let Some(context) = other {
            assert_eq!(ibv_close_device(context), 0);
        }
    }
}

fn ipv6(destination: [u8; 16], mask: u8, next_header_mask: u8) -> Vec<u8> {
    let mut spec = 0x31u32.to_le_bytes().to_vec();
    spec.extend_from_slice(&[88, 0, 0, 0]);
    spec.extend_from_slice(&[0; 16]);
    spec.extend_from_slice(&destination);
    spec.extend_from_slice(&[0; 8 + 16]);
    spec.extend_from_slice(&[mask; 16]);
    spec.extend_from_slice(&[0, 0, 0, 0, next_header_mask, 0, 0, 0]);
    spec
}

/// Ethernet with a VLAN tag, IPv6, UDP.
fn tagged_frame(destination: [u8; 16], port: u16) -> Vec<u8> {
    let mut frame = OURS.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x81, 0, 0xa0, 5, 0x86, 0xdd]);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 12, 17, 64]);
    frame.extend_from_slice(&[9; 16]);
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&[0x12, 0x34]);
    frame.extend_from_slice(&port.to_be_bytes());
    frame.extend_from_slice(&[0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

#[test]
fn rules_look_behind_a_tag_and_into_ipv6_and_udp() {
    let _world = world("");
    let wire = Wire::new("tag");
    let udp = |port: u16| {
        let mut spec = tcp(port, 0xffff);
        spec[0] = 0x41;
        spec
    };
    let mut tag = eth([0; 6], [0; 6]);
    tag[20..22].copy_from_slice(&[0, 5]);
    tag[36..38].copy_from_slice(&[0x0f, 0xff]);
    let mut other_tag = tag.clone();
    other_tag[21] = 6;
    let here = [7; 16];
    // Specifications, and whether the frame is theirs.
    let rows = [
        ("address and port", [ipv6(here, 0xff, 0), udp(99)].concat(), 2, true),
        ("another port", [ipv6(here, 0xff, 0), udp(98)].concat(), 2, false),
        ("another address", [ipv6([8; 16], 0xff, 0), udp(99)].concat(), 2, false),
        ("TCP", [ipv6(here, 0xff, 0), tcp(99, 0xffff)].concat(), 2, false),
        ("IPv4", ipv4([7; 4], 0), 1, false),
        ("tag", tag, 1, true),
        ("another tag", other_tag, 1, false),
    ];
    for (name, specs, count, takes) in rows {
        let qp = wire.receiver();
        let made = rule(qp, &normal(count), &specs);
        let got = wire.send(&tagged_frame(here, 99));
        assert_eq!(got, if takes { vec![at(qp).qp_num] } else { vec![] }, "{name}");
        assert_eq!(end_rule(at(made)), 0);
    }
    let qp = wire.receiver();
    assert!(rule(qp, &normal(1), &ipv6(here, 0xff, 0xff)).is_null(), "next header");
    assert_eq!(errno(), libc::EINVAL);
}

#[test]
fn groups_copies_and_the_sniffer() {
    let _world = world("");
    let wire = Wire::new("copies");
    let [one, two, sniffer, multicast] = [0; 4].map(|_| wire.receiver());
    let number = |qp: *mut Qp| at(qp).qp_num;
    let sorted = |mut found: Vec<u32>| {
        found.sort_unstable();
        found
    };
    let copy = FlowAttr { flags: FLOW_ATTR_FLAGS_DONT_TRAP, ..normal(1) };
    assert!(!rule(one, &copy, &eth(GROUP, [0xff; 6])).is_null());
    assert_eq!(wire.send(&frame(GROUP, 1)), [number(one)]);
    let default = FlowAttr { attr_type: FLOW_ATTR_MC_DEFAULT, ..rule_attr() };
    assert!(!rule(multicast, &default, &[]).is_null());
    assert_eq!(sorted(wire.send(&frame(GROUP, 1))), sorted(vec![number(one), number(multicast)]));
    assert!(wire.send(&frame(OTHER, 1)).is_empty(), "multicast only");
    // The same specification twice: both get a copy, and nothing goes on.
    for qp in [one, two] {
        assert!(!rule(qp, &FlowAttr { priority: 3, ..normal(1) }, &eth(OURS, [0xff; 6])).is_null());
    }
    assert_eq!(sorted(wire.send(&frame(OURS, 1))), sorted(vec![number(one), number(two)]));
    let all = FlowAttr { attr_type: FLOW_ATTR_SNIFFER, ..rule_attr() };
    assert!(!rule(sniffer, &all, &[]).is_null());
    assert_eq!(wire.send(&frame(OTHER, 1)), [number(sniffer)]);
    assert_eq!(wire.send(&frame(OURS, 1)).len(), 3);
}

#[test]
fn a_rule_that_cannot_be_is_refused() {
    let _world = world("dev=a;dev=b,dont_trap=off;dev=c,flows=off");
    let [a, b, c] = [0, 1, 2].map(side);
    let [raw, copies, none] = [&a, &b, &c].map(|side| running(side, QPT_RAW_PACKET));
    let ud = running(&a, QPT_UD);
    let full = eth(OURS, [0xff; 6]);
    let mut short = full.clone();
    short[4] = 38;
    let mut unknown = full.clone();
    unknown[0] = 0x99;
    let with =
        |attr_type: u32, flags: u32, specs: u8| FlowAttr { attr_type, flags, ..normal(specs) };
    let copy = FLOW_ATTR_FLAGS_DONT_TRAP;
    let twice = [full.clone(), full.clone()].concat();
    // ibv_create_flow(3), by row: what is wrong.
    let rows: [(&str, *mut Qp, FlowAttr, &[u8], i32); 13] = [
        ("partial mask", raw, normal(1), &eth(OURS, [0xff, 0xff, 0xff, 0, 0, 0]), libc::EINVAL),
        ("partial address", raw, normal(1), &ipv4([10, 0, 0, 2], 0xf0), libc::EINVAL),
        ("size of a specification", raw, normal(1), &short, libc::EINVAL),
        ("kind of a specification", raw, normal(1), &unknown, libc::EINVAL),
        ("fewer than stated", raw, normal(2), &full, libc::EINVAL),
        ("more than stated", raw, normal(1), &twice, libc::EINVAL),
        ("one layer twice", raw, normal(2), &twice, libc::EINVAL),
        ("no specification", raw, normal(0), &[], libc::EINVAL),
        ("port", raw, FlowAttr { port: 2, ..normal(1) }, &full, libc::EINVAL),
        ("copies by default rules", raw, with(FLOW_ATTR_MC_DEFAULT, copy, 0), &[], libc::EINVAL),
        ("connected or datagram queue pairs", ud, normal(1), &full, libc::EINVAL),
        ("copies, which the device lacks", copies, with(0, copy, 1), &full, libc::EOPNOTSUPP),
        ("steering, which the device lacks", none, normal(1), &full, libc::ENXIO),
    ];
    for (name, qp, attr, specs, expected) in rows {
        assert!(rule(qp, &attr, specs).is_null(), "{name}");
        assert_eq!(errno(), expected, "{name}");
    }
    assert!(!rule(raw, &normal(1), &full).is_null());
}

/// A queue pair that segments.
fn segmenting(side: &Side) -> *mut Qp {
    let mut attr: QpInitAttrEx = zeroed();
    attr.set_base(&side.init(QPT_RAW_PACKET));
    attr.pd = side.pd;
    attr.comp_mask = QP_INIT_ATTR_PD | QP_INIT_ATTR_MAX_TSO_HEADER;
    attr.max_tso_header = 118;
    let call = verbs(side.context).create_qp_ex.unwrap();
    // SAFETY: attributes that live through the call.
    let qp = unsafe { call(side.context, &raw mut attr) };
    ready(qp, &verbs_double::abi::objects::QpAttr { port_num: 1, ..zeroed() });
    qp
}

fn large(qp: *mut Qp, header: &[u8], mss: u64, side: &Side, length: usize) {
    let address = u64::try_from(header.as_ptr().expose_provenance()).unwrap();
    let mut request = wr(1, WR_TSO, SEND_SIGNALED | SEND_IP_CSUM);
    let size = u64::try_from(header.len()).unwrap();
    request.tail[..2].copy_from_slice(&[address, size | mss << 16]);
    assert_eq!(post(qp, request, &[side.sge(0, length)]), 0);
}

#[test]
fn a_large_segment_leaves_as_frames_that_are_verified_at_the_other_end() {
    for (text, frames, verified) in [("dev=a;dev=b", 4, true), ("dev=a;dev=b,csum=off", 4, false)] {
        let _world = world(text);
        let wire = Wire::new("tso");
        let qp = segmenting(&wire.a);
        let other = running(&wire.b, QPT_RAW_PACKET);
        let rest = FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
        assert!(!rule(other, &rest, &[]).is_null());
        for id in 0..8usize {
            assert_eq!(recv(other, id as u64, &[wire.b.sge(id * 2000, 2000)]), 0);
        }
        for (place, byte) in wire.a.bytes(0, 5000).iter_mut().enumerate() {
            *byte = u8::try_from(place % 253).unwrap();
        }
        large(qp, &frame(OURS, 80), 1448, &wire.a, 5000);
        assert_eq!(ends(&poll(wire.a.cq)), [(1, WC_SUCCESS)]);
        let found = poll(wire.b.cq);
        assert_eq!(found.len(), frames);
        let mut joined = Vec::new();
        for (place, wc) in found.iter().enumerate() {
            assert_eq!(wc.wc_flags, if verified { WC_FLAG_IP_CSUM_OK } else { 0 });
            let length = usize::try_from(wc.byte_len).unwrap();
            joined.extend_from_slice(&wire.b.bytes(place * 2000, length)[54..]);
        }
        assert_eq!(joined, wire.a.bytes(0, 5000));
    }
}

#[test]
fn a_segment_beyond_the_devices_limit_or_without_tcp_fails() {
    for (header, length, expected) in [
        (frame(OURS, 80), 4096, WC_SUCCESS),
        (frame(OURS, 80), 4097, WC_LOC_LEN_ERR),
        (frame(OURS, 80)[..50].to_vec(), 100, WC_LOC_QP_OP_ERR),
    ] {
        let _world = world("dev=a,max_tso=4096");
        let a = side(0);
        let qp = segmenting(&a);
        large(qp, &header, 1000, &a, length);
        assert_eq!(ends(&poll(a.cq)), [(1, expected)]);
    }
}

/// What a probe by use must find out.
#[test]
fn a_device_may_lie_about_what_it_does() {
    let rows = [("", 2, true), ("lie=tso,mtu=9000", 1, true), ("lie=csum", 2, false)];
    for (lie, frames, verified) in rows {
        let _world = world(&format!("dev=a,mtu=9000,{lie};dev=b").replace(",;", ";"));
        let wire = Wire::new("lies");
        let qp = segmenting(&wire.a);
        let other = wire.receiver();
        let rest = FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
        assert!(!rule(other, &rest, &[]).is_null());
        large(qp, &frame(OURS, 80), 1000, &wire.a, 2000);
        let found = poll(wire.b.cq);
        let right = found.iter().all(|wc| wc.wc_flags == WC_FLAG_IP_CSUM_OK);
        assert_eq!((found.len(), right), (frames, verified), "{lie}");
    }
    let _world = world("dev=a;dev=b,lie=flow");
    let wire = Wire::new("lies");
    let other = wire.receiver();
    assert!(!rule(other, &normal(1), &eth(OURS, [0xff; 6])).is_null());
    assert!(wire.send(&frame(OURS, 80)).is_empty());
}

#[test]
fn the_wire_pads_loses_corrupts_and_limits() {
    let _world = world("dev=a,mtu=1000;dev=b");
    let wire = Wire::new("wire");
    let other = wire.receiver();
    let rest = FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
    assert!(!rule(other, &rest, &[]).is_null());
    let got = |bytes: &[u8], flags: u32| {
        wire.a.bytes(0, bytes.len()).copy_from_slice(bytes);
        assert_eq!(post(wire.sender, wr(1, WR_SEND, flags), &[wire.a.sge(0, bytes.len())]), 0);
        poll(wire.b.cq).iter().map(|wc| (wc.byte_len, wc.wc_flags)).collect::<Vec<_>>()
    };
    let plain = frame(OURS, 80);
    assert_eq!(got(&plain, SEND_IP_CSUM), [(60, WC_FLAG_IP_CSUM_OK)], "padded");
    assert_eq!(got(&plain, 0), [(60, 0)], "without right sums nothing is said");
    assert_eq!(got(&vec![0; 1018], 0).len(), 1);
    assert!(got(&vec![0; 1019], 0).is_empty());
    assert_eq!(counter("frames_too_long"), 1);
    poll(wire.a.cq);
    control("corrupt a 1");
    assert_eq!(got(&plain, SEND_IP_CSUM), [(60, 0)]);
    control("lose a next 1");
    assert!(got(&plain, 0).is_empty());
    control("port b down");
    assert!(got(&plain, SEND_SIGNALED).is_empty());
    control("port b up");
    assert_eq!(got(&plain, 0).len(), 1);
}

#[test]
fn a_frame_longer_than_its_receive_or_too_short_is_an_error() {
    let _world = world("");
    let wire = Wire::new("lengths");
    let other = running(&wire.b, QPT_RAW_PACKET);
    let rest = FlowAttr { attr_type: FLOW_ATTR_ALL_DEFAULT, ..rule_attr() };
    assert!(!rule(other, &rest, &[]).is_null());
    assert_eq!(recv(other, 5, &[wire.b.sge(0, 59)]), 0);
    assert_eq!(send(wire.sender, 1, false, wire.a.sge(0, 20)), 0);
    assert_eq!(ends(&poll(wire.b.cq)), [(5, WC_LOC_LEN_ERR)]);
    assert_eq!(send(wire.sender, 2, false, wire.a.sge(0, 13)), 0);
    assert_eq!(ends(&poll(wire.a.cq)), [(2, WC_LOC_LEN_ERR)]);
}
