//! Echo, and errors both ways.

use super::*;
use crate::wire::icmpv4::IcmpHeader;
use crate::wire::ipv4::{Ipv4View, MORE_FRAGMENTS};
use crate::wire::protocol::{ICMP, ICMPV6, TCP, UDP};
use core::net::SocketAddr;

fn error_v4(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let message = icmp_message(kind, code, rest, quoted, Sum::ZERO);
    frame_v4(header_v4(ICMP, message.len()), &message)
}

/// A TCP packet of ours as a router would quote it.
fn ours_v4() -> Vec<u8> {
    let header =
        Ipv4Header { source: OUR_V4, destination: PEER_V4, total_len: 1500, ..header_v4(TCP, 0) };
    let mut quoted = header.to_bytes().to_vec();
    quoted.extend_from_slice(&[0x12, 0x34, 0, 80, 1, 2, 3, 4]);
    quoted
}

#[test]
fn echoes_of_both_families_return_the_data() {
    let mut world = World::new();
    let message = icmp_message(8, 0, [0, 1, 0, 2], b"hello", Sum::ZERO);
    world.feed(&frame_v4(header_v4(ICMP, message.len()), &message));
    let header = header_v6(ICMPV6, 13);
    let message = icmp_message(128, 0, [0, 1, 0, 2], b"hello", pseudo_icmp_v6(&header));
    world.feed(&frame_v6(header, &message));
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0][..6], PEER_MAC);
    assert!(Ipv4View::new(&sent[0][14..]).is_ok());
    assert!(Sum::of(&sent[0][34..]).is_valid());
    assert_eq!(sent[0][34], 0);
    assert_eq!(sent[0][38..], *b"\0\x01\0\x02hello");
    let pseudo = Sum::pseudo_v6(OUR_V6, PEER_V6, ICMPV6, 13);
    assert!(pseudo.plus(Sum::of(&sent[1][54..])).is_valid());
    assert_eq!(sent[1][54], 129);
    assert_eq!(world.ip.counters().echo_replies, 2);
}

#[test]
fn an_echo_in_fragments_returns_in_fragments() {
    let mut world = World::new();
    let data: Vec<u8> = (0..9000u32).map(|n| n.to_be_bytes()[3]).collect();
    let message = icmp_message(8, 0, [0; 4], &data, Sum::ZERO);
    for (n, part) in message.chunks(1480).enumerate() {
        let more = if (n + 1) * 1480 < message.len() { MORE_FRAGMENTS } else { 0 };
        let flags_and_offset = u16::try_from(n * 185).unwrap() | more;
        let header = Ipv4Header { flags_and_offset, ..header_v4(ICMP, part.len()) };
        world.feed(&frame_v4(header, part));
    }
    let sent = world.sent();
    assert_eq!(sent.len(), 7);
    let mut whole = Vec::new();
    for frame in &sent {
        assert!(frame.len() <= 1514);
        let view = Ipv4View::new(&frame[14..]).unwrap();
        assert_eq!(view.fragment_offset() as usize, whole.len());
        whole.extend_from_slice(&frame[34..]);
    }
    assert!(Sum::of(&whole).is_valid());
    assert_eq!(whole[8..], data[..]);
    assert_eq!(world.ip.counters().reassembled_icmp, 1);
}

#[test]
fn the_queue_of_replies_is_bounded() {
    let mut world = World::new();
    let message = icmp_message(8, 0, [0; 4], &[0; 1000], Sum::ZERO);
    for _ in 0..500 {
        world.feed(&frame_v4(header_v4(ICMP, message.len()), &message));
    }
    assert_eq!(world.sent().len(), 128);
    assert_eq!(world.ip.counters().control_dropped, 372);
}

#[test]
fn a_wrong_checksum_and_a_short_message_are_dropped() {
    let mut world = World::new();
    let mut message = icmp_message(8, 0, [0; 4], b"x", Sum::ZERO);
    message[8] ^= 1;
    let frame = frame_v4(header_v4(ICMP, message.len()), &message);
    assert!(world.drops(&frame, IpDrop::IcmpChecksum));
    let frame = frame_v4(header_v4(ICMP, 7), &[0; 7]);
    assert!(world.drops(&frame, IpDrop::Truncated));
}

#[test]
fn errors_are_parsed_down_to_the_ports() {
    let rows = [
        (3, 0, [0; 4], IcmpErrorKind::NetworkUnreachable),
        (3, 1, [0; 4], IcmpErrorKind::HostUnreachable),
        (3, 2, [0; 4], IcmpErrorKind::ProtocolUnreachable),
        (3, 3, [0; 4], IcmpErrorKind::PortUnreachable),
        (3, 4, [0, 0, 5, 0], IcmpErrorKind::PacketTooBig(1280)),
        (3, 4, [0, 0, 0, 100], IcmpErrorKind::PacketTooBig(552)),
        (3, 4, [0; 4], IcmpErrorKind::PacketTooBig(1492)),
        (3, 13, [0; 4], IcmpErrorKind::Prohibited),
        (11, 0, [0; 4], IcmpErrorKind::TimeExceeded),
        (12, 0, [0; 4], IcmpErrorKind::ParameterProblem),
    ];
    let mut world = World::new();
    for (kind, code, rest, expected) in rows {
        let error = IcmpError {
            transport: Transport::Tcp,
            local: SocketAddr::new(OUR_V4.into(), 0x1234),
            remote: SocketAddr::new(PEER_V4.into(), 80),
            kind: expected,
            sequence: 0x0102_0304,
        };
        let incoming = world.give(&error_v4(kind, code, rest, &ours_v4()));
        assert_eq!(incoming, Incoming::Error(error));
    }
}

#[test]
fn rfc_5927_errors_that_cannot_be_about_us_are_dropped() {
    let mut world = World::new();
    let mut another = ours_v4();
    another[12..16].copy_from_slice(&[10, 0, 0, 9]);
    let mut later_fragment = ours_v4();
    later_fragment[7] = 1;
    let mut other_protocol = ours_v4();
    other_protocol[9] = 47;
    let rows = [
        (another, "another's packet"),
        (later_fragment, "a fragment without ports"),
        (other_protocol, "a protocol without ports"),
        (ours_v4()[..27].to_vec(), "seven bytes of the transport header"),
        (Vec::new(), "nothing"),
    ];
    for (quoted, name) in rows {
        assert!(world.drops(&error_v4(3, 3, [0; 4], &quoted), IpDrop::IcmpNotOurs), "{name}");
    }
    for mtu in [67u16, 1500, 9000] {
        let [a, b] = mtu.to_be_bytes();
        assert!(world.drops(&error_v4(3, 4, [0, 0, a, b], &ours_v4()), IpDrop::IcmpBadMtu));
    }
    // RFC 6633: source quench; RFC 1122 §3.2.2.2: redirect. Neither means anything here.
    for kind in [4, 5] {
        assert_eq!(world.give(&error_v4(kind, 0, [0; 4], &ours_v4())), Incoming::Consumed);
    }
}

#[test]
fn errors_over_ipv6_likewise() {
    let mut world = World::new();
    let quoted_header = Ipv6Header { source: OUR_V6, destination: PEER_V6, ..header_v6(UDP, 8) };
    let mut quoted = quoted_header.to_bytes().to_vec();
    quoted.extend_from_slice(&[0, 53, 0, 54, 0, 8, 0, 0]);
    let mut give = |kind: u8, code: u8, rest: [u8; 4]| {
        let header = header_v6(ICMPV6, 8 + quoted.len());
        let message = icmp_message(kind, code, rest, &quoted, pseudo_icmp_v6(&header));
        match world.give(&frame_v6(header, &message)) {
            Incoming::Error(error) => Some(error.kind),
            _ => None,
        }
    };
    assert_eq!(give(1, 4, [0; 4]), Some(IcmpErrorKind::PortUnreachable));
    assert_eq!(give(1, 0, [0; 4]), Some(IcmpErrorKind::NetworkUnreachable));
    assert_eq!(give(2, 0, [0, 0, 5, 0]), Some(IcmpErrorKind::PacketTooBig(1280)));
    assert_eq!(give(2, 0, [0, 0, 4, 0xff]), None, "below the least MTU");
    assert_eq!(give(2, 0, [0, 1, 0, 0]), None, "above ours");
    assert_eq!(give(4, 1, [0; 4]), Some(IcmpErrorKind::ProtocolUnreachable));
    assert_eq!(give(133, 0, [0; 4]), None, "router solicitation");
}

#[test]
fn port_unreachable_quotes_the_datagram_within_the_rate_limit() {
    let mut world = World::new();
    let frame = frame_v4(header_v4(UDP, 1000), &[9; 1000]);
    let mut errors = 0;
    for _ in 0..150 {
        let pieces = world.mem.receive_chain(&frame).unwrap();
        let rx = RxFrame { pieces: &pieces, checksum: RxChecksum::Unknown, gso_size: 0 };
        let Incoming::Udp(packet) = world.ip.on_frame(world.now, &rx, &mut world.mem) else {
            panic!("not delivered")
        };
        world.ip.port_unreachable(world.now, &rx, &packet, &world.mem);
        release(&pieces, &mut world.mem);
        for sent in world.sent() {
            errors += 1;
            assert_eq!(sent.len(), 14 + 576);
            let header = IcmpHeader::parse(&sent[34..]).unwrap();
            assert_eq!((header.kind, header.code), (3, 3));
            assert_eq!(sent[42..], frame[14..14 + 548]);
        }
    }
    assert_eq!(errors, 100);
    assert_eq!(world.ip.counters().icmp_errors_limited, 50);
}

#[test]
fn unknown_protocols_are_answered_but_never_those_of_groups() {
    let mut world = World::new();
    world.feed(&frame_v4(header_v4(132, 8), &[0; 8]));
    world.feed(&frame_v6(header_v6(43, 8), &[0; 8]));
    let sent = world.sent();
    assert_eq!((sent[0][34], sent[0][35]), (3, 2));
    assert_eq!((sent[1][54], sent[1][55]), (4, 1));
    assert_eq!(sent[1][58..62], [0, 0, 0, 6]);
    let mut frame = frame_v4(header_v4(132, 8), &[0; 8]);
    frame[..6].fill(0xff);
    world.feed(&frame);
    assert!(world.sent().is_empty());
}
