//! What is delivered and what is dropped, and why.

use super::*;
use crate::wire::ipv4::{DONT_FRAGMENT, MORE_FRAGMENTS};
use crate::wire::protocol::{ICMP, TCP, UDP};

fn packet_v4(payload_len: u32) -> Packet {
    Packet {
        source: PEER_V4.into(),
        destination: OUR_V4.into(),
        transport_start: 34,
        transport_len: payload_len,
        ttl: 64,
        tos: 0,
        to_broadcast: false,
    }
}

#[test]
fn packets_for_us_are_delivered_first_and_again() {
    let mut world = World::new();
    let tcp = frame_v4(header_v4(TCP, 20), &[1; 20]);
    let udp =
        frame_v4(Ipv4Header { flags_and_offset: DONT_FRAGMENT, ..header_v4(UDP, 9) }, &[2; 9]);
    for _ in 0..3 {
        assert_eq!(world.give(&tcp), Incoming::Tcp(packet_v4(20)));
        assert_eq!(world.give(&udp), Incoming::Udp(packet_v4(9)));
    }
    let v6 = Packet {
        source: PEER_V6.into(),
        destination: OUR_V6.into(),
        transport_start: 54,
        ..packet_v4(20)
    };
    let tcp = frame_v6(header_v6(TCP, 20), &[1; 20]);
    let udp = frame_v6(header_v6(UDP, 20), &[1; 20]);
    for _ in 0..3 {
        assert_eq!(world.give(&tcp), Incoming::Tcp(v6));
        assert_eq!(world.give(&udp), Incoming::Udp(v6));
    }
    let seen = world.ip.counters();
    assert_eq!((seen.delivered_tcp, seen.delivered_udp), (6, 6));
}

#[test]
fn padding_is_not_part_of_the_packet_and_options_are_skipped() {
    let mut world = World::new();
    let mut padded = frame_v4(header_v4(TCP, 5), &[1; 5]);
    padded.resize(60, 0xee);
    for _ in 0..2 {
        assert_eq!(world.give(&padded), Incoming::Tcp(packet_v4(5)));
    }
    let mut header = Ipv4Header { total_len: 44, ..header_v4(TCP, 0) }.to_bytes().to_vec();
    header[0] = 0x46;
    header.extend_from_slice(&[1, 1, 1, 0]);
    header[10..12].fill(0);
    let checksum = Sum::of(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend_from_slice(&[0; 20]);
    let expected = Packet { transport_start: 38, ..packet_v4(20) };
    assert_eq!(world.give(&link(OUR_MAC, ethertype::IPV4, &header)), Incoming::Tcp(expected));
}

/// Each row is checked once fresh and once after a good packet has opened the short way.
#[test]
fn what_cannot_be_is_dropped_and_named() {
    let v4 = |change: fn(&mut Ipv4Header)| {
        let mut header = header_v4(TCP, 20);
        change(&mut header);
        frame_v4(header, &[0; 20])
    };
    let v6 = |change: fn(&mut Ipv6Header)| {
        let mut header = header_v6(TCP, 20);
        change(&mut header);
        frame_v6(header, &[0; 20])
    };
    let broken = |at: usize, value: u8| {
        let mut frame = frame_v4(header_v4(TCP, 20), &[0; 20]);
        frame[at] = value;
        frame
    };
    let good = frame_v4(header_v4(TCP, 20), &[0; 20]);
    let rows = [
        ("no Ethernet header", good[..13].to_vec(), IpDrop::Truncated),
        ("a cut IPv4 header", good[..33].to_vec(), IpDrop::Truncated),
        ("a cut payload", good[..53].to_vec(), IpDrop::Truncated),
        ("version 5", broken(14, 0x55), IpDrop::Malformed),
        ("a short header", broken(14, 0x43), IpDrop::Malformed),
        ("options that are not there", broken(14, 0x4f), IpDrop::Truncated),
        ("a wrong header checksum", broken(24, good[24] ^ 1), IpDrop::HeaderChecksum),
        ("a changed TTL", broken(22, 9), IpDrop::HeaderChecksum),
        ("another's Ethernet address", broken(5, 9), IpDrop::NotOurMac),
        ("VLAN", broken(12, 0x81), IpDrop::UnknownEthertype),
        ("land", v4(|h| h.source = OUR_V4), IpDrop::Land),
        ("from nobody", v4(|h| h.source = Ipv4Addr::UNSPECIFIED), IpDrop::BadSource),
        ("from loopback", v4(|h| h.source = Ipv4Addr::LOCALHOST), IpDrop::BadSource),
        ("from a group", v4(|h| h.source = Ipv4Addr::new(224, 0, 0, 5)), IpDrop::BadSource),
        ("from class E", v4(|h| h.source = Ipv4Addr::new(250, 0, 0, 5)), IpDrop::BadSource),
        ("from everyone", v4(|h| h.source = Ipv4Addr::BROADCAST), IpDrop::BadSource),
        (
            "from our link's broadcast address",
            v4(|h| h.source = Ipv4Addr::new(10, 0, 0, 255)),
            IpDrop::BadSource,
        ),
        ("to another", v4(|h| h.destination = Ipv4Addr::new(10, 0, 0, 9)), IpDrop::NotForUs),
        ("to a group", v4(|h| h.destination = Ipv4Addr::new(224, 0, 0, 1)), IpDrop::NotForUs),
        ("TCP to all", v4(|h| h.destination = Ipv4Addr::BROADCAST), IpDrop::BroadcastNotUdp),
        ("an unknown protocol", v4(|h| h.protocol = 132), IpDrop::UnknownProtocol),
        ("v6 land", v6(|h| h.source = OUR_V6), IpDrop::Land),
        ("v6 from nobody", v6(|h| h.source = Ipv6Addr::UNSPECIFIED), IpDrop::BadSource),
        ("v6 from loopback", v6(|h| h.source = Ipv6Addr::LOCALHOST), IpDrop::BadSource),
        ("v6 from a group", v6(|h| h.source = "ff02::1".parse().unwrap()), IpDrop::BadSource),
        (
            "v6 from a mapped address",
            v6(|h| h.source = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped()),
            IpDrop::BadSource,
        ),
        ("v6 to another", v6(|h| h.destination.clone_from(&PEER_V6)), IpDrop::NotForUs),
        (
            "TCP to a v6 group",
            v6(|h| h.destination = "ff02::1".parse().unwrap()),
            IpDrop::BroadcastNotUdp,
        ),
        ("v6 longer than its frame", v6(|h| h.payload_len = 21), IpDrop::Truncated),
        ("a hop-by-hop header", v6(|h| h.next_header = 0), IpDrop::ExtensionHeader),
        ("a v6 fragment", v6(|h| h.next_header = 44), IpDrop::ExtensionHeader),
        ("an unknown v6 protocol", v6(|h| h.next_header = 132), IpDrop::UnknownProtocol),
    ];
    let mut fresh = World::new();
    let mut opened = World::new();
    for (name, frame, reason) in rows {
        assert!(fresh.drops(&frame, reason), "{name}, fresh");
        assert!(matches!(opened.give(&good), Incoming::Tcp(_)));
        let good_v6 = frame_v6(header_v6(TCP, 20), &[0; 20]);
        assert!(matches!(opened.give(&good_v6), Incoming::Tcp(_)));
        assert!(opened.drops(&frame, reason), "{name}, after a good packet");
    }
}

/// RFC 1122 §3.3.6 and §3.2.1.3.
#[test]
fn broadcasts_are_for_udp_and_must_be_broadcasts_on_both_layers() {
    let mut world = World::new();
    for destination in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        let header = Ipv4Header { destination, ..header_v4(UDP, 8) };
        let mut frame = frame_v4(header, &[0; 8]);
        frame[..6].fill(0xff);
        let Incoming::Udp(packet) = world.give(&frame) else { panic!("not delivered") };
        assert!(packet.to_broadcast);
    }
    let mut frame = frame_v4(header_v4(TCP, 20), &[0; 20]);
    frame[..6].fill(0xff);
    assert!(world.drops(&frame, IpDrop::LinkBroadcast));
    let ping = frame_v4(
        Ipv4Header { destination: Ipv4Addr::BROADCAST, ..header_v4(ICMP, 8) },
        &icmp_message(8, 0, [0; 4], &[], Sum::ZERO),
    );
    assert!(world.drops(&ping, IpDrop::BroadcastNotUdp));
    assert!(world.sent().is_empty());
}

#[test]
fn fragments_are_made_whole_for_the_transports() {
    let mut world = World::new();
    let payload: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut last = Incoming::Consumed;
    for (offset, len, more) in [(1480, 1480, true), (2960, 40, false), (0, 1480, true)] {
        assert_eq!(last, Incoming::Consumed);
        let flags = if more { MORE_FRAGMENTS } else { 0 };
        let flags_and_offset = u16::try_from(offset / 8).unwrap() | flags;
        let header = Ipv4Header { flags_and_offset, ..header_v4(UDP, len) };
        last = world.give(&frame_v4(header, &payload[offset..offset + len]));
    }
    let Incoming::ReassembledUdp(packet, bytes) = last else { panic!("not whole: {last:?}") };
    assert_eq!((packet.transport_start, packet.transport_len), (0, 3000));
    assert_eq!(bytes, payload);
    assert_eq!(world.ip.next_deadline(), Instant::NEVER);
}

#[test]
fn fragments_that_do_not_come_together_expire() {
    let mut world = World::new();
    let header = Ipv4Header { flags_and_offset: MORE_FRAGMENTS, ..header_v4(TCP, 16) };
    assert_eq!(world.give(&frame_v4(header, &[0; 16])), Incoming::Consumed);
    world.ip.check();
    let deadline = world.ip.next_deadline();
    assert_eq!(deadline, world.now + Duration::from_secs(30));
    world.wait(Duration::from_secs(30));
    assert_eq!(world.ip.counters().fragment_timeouts, 1);
    assert_eq!(world.ip.next_deadline(), Instant::NEVER);
}

#[test]
fn routes_say_source_next_hop_and_mtu() {
    let mut world = World::new();
    let gateway = IpAddr::from([10, 0, 0, 254]);
    let route = world.ip.route(PEER_V4.into()).unwrap();
    assert_eq!(route, Route { source: OUR_V4.into(), next_hop: PEER_V4.into(), mtu: 1500 });
    let far = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(world.ip.route(far).unwrap().next_hop, gateway);
    let generation = world.ip.neighbor_generation();
    world.ip.note_path_mtu(world.now, far, 1400);
    assert_ne!(world.ip.neighbor_generation(), generation);
    assert_eq!(world.ip.route(far).unwrap().mtu, 1400);
    let link_local: IpAddr = "fe80::9".parse().unwrap();
    let route = world.ip.route(link_local).unwrap();
    assert_eq!(route.source, "fe80::ff:fe00:1".parse::<IpAddr>().unwrap());
    for nowhere in ["10.0.0.1", "127.0.0.1", "0.0.0.0", "::1", "2001:db8::1"] {
        assert_eq!(world.ip.route(nowhere.parse().unwrap()), None, "{nowhere}");
    }
    assert_eq!(
        world.ip.resolve(world.now, [10, 0, 0, 255].into()),
        Resolution::Resolved([0xff; 6])
    );
    assert_eq!(world.ip.resolve(world.now, far), Resolution::Unreachable);
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let address =
        |text: &str, prefix_len| InterfaceAddress { address: text.parse().unwrap(), prefix_len };
    let with = |entry: InterfaceAddress| IpConfig::new(OUR_MAC, &[entry]);
    let network = address("10.0.0.0", 24);
    let rows = [
        (IpConfig::new([1, 0, 0, 0, 0, 1], &[address("10.0.0.1", 24)]), IpConfigError::Mac),
        (IpConfig::new(OUR_MAC, &[]), IpConfigError::NoAddress),
        (with(network), IpConfigError::NetworkAddress(network.address)),
        (with(address("10.0.0.1", 33)), IpConfigError::PrefixLen(33)),
        (with(address("10.0.0.1", 0)), IpConfigError::NoPrefix([10, 0, 0, 1].into())),
        (with(address("fd00::1", 0)), IpConfigError::NoPrefix(address("fd00::1", 0).address)),
        (with(address("fd00::1", 129)), IpConfigError::PrefixLen(129)),
        (with(address("127.0.0.1", 8)), IpConfigError::Address([127, 0, 0, 1].into())),
        (IpConfig { mtu: 500, ..with(address("10.0.0.1", 24)) }, IpConfigError::Mtu(500)),
        (IpConfig { mtu: 1279, ..with(address("fd00::1", 64)) }, IpConfigError::Mtu(1279)),
        (
            IpConfig {
                routes: std::vec![StaticRoute::default_through([10, 0, 1, 1].into())],
                ..with(address("10.0.0.1", 24))
            },
            IpConfigError::Gateway([10, 0, 1, 1].into()),
        ),
        (
            IpConfig {
                limits: IpLimits { neighbors: 0, ..IpLimits::default() },
                ..with(address("10.0.0.1", 24))
            },
            IpConfigError::ZeroLimit("neighbors"),
        ),
        (IpConfig::new(OUR_MAC, &[address("fd00::1", 64); 16]), IpConfigError::TooManyAddresses),
    ];
    for (config, error) in rows {
        assert_eq!(Ip::new(config, [0; 16]).err(), Some(error));
    }
    // RFC 3021.
    assert!(Ip::new(with(address("10.0.0.0", 31)), [0; 16]).is_ok());
}
