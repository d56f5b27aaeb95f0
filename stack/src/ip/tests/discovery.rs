//! ARP and neighbour discovery, honest and forged.

use super::*;
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::ndp::{self, NdpMessage};

const OTHER_MAC: MacAddr = [2, 0, 0, 0, 0, 66];

fn arp(
    operation: ArpOperation,
    sender_mac: MacAddr,
    sender: Ipv4Addr,
    target: Ipv4Addr,
) -> Vec<u8> {
    let packet = ArpPacket { operation, sender_mac, sender, target_mac: OUR_MAC, target };
    let mut frame = link(OUR_MAC, ethertype::ARP, &packet.to_bytes());
    frame[6..12].copy_from_slice(&sender_mac);
    frame
}

fn reply(mac: MacAddr) -> Vec<u8> {
    arp(ArpOperation::Reply, mac, PEER_V4, OUR_V4)
}

fn ndp_frame(message: NdpMessage, destination: Ipv6Addr, change: fn(&mut Ipv6Header)) -> Vec<u8> {
    let (mut bytes, len) = message.to_bytes();
    let mut header = Ipv6Header { hop_limit: 255, destination, ..header_v6(58, len) };
    change(&mut header);
    let checksum = pseudo_icmp_v6(&header).plus(Sum::of(&bytes[..len])).checksum();
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame_v6(header, &bytes[..len])
}

fn parse_arp(frame: &[u8]) -> (MacAddr, ArpPacket) {
    let header = EthernetHeader::parse(frame).unwrap();
    assert_eq!(header.ethertype, ethertype::ARP);
    (header.destination, ArpPacket::parse(&frame[14..]).unwrap())
}

#[test]
fn rfc_826_a_question_for_us_is_answered_and_its_sender_learned() {
    let mut world = World::new();
    world.feed(&arp(ArpOperation::Request, PEER_MAC, PEER_V4, OUR_V4));
    let (to, answer) = parse_arp(&world.sent()[0]);
    assert_eq!(to, PEER_MAC);
    assert_eq!(answer.operation, ArpOperation::Reply);
    assert_eq!((answer.sender_mac, answer.sender), (OUR_MAC, OUR_V4));
    assert_eq!((answer.target_mac, answer.target), (PEER_MAC, PEER_V4));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(PEER_MAC));
    let (to, probe) = parse_arp(&world.sent()[0]);
    assert_eq!((to, probe.target), (PEER_MAC, PEER_V4), "first use probes it by unicast");
    world.feed(&arp(ArpOperation::Request, PEER_MAC, PEER_V4, Ipv4Addr::new(10, 0, 0, 9)));
    assert!(world.sent().is_empty(), "a question for another");
}

#[test]
fn a_neighbour_is_asked_for_three_times_and_then_given_up_for_a_while() {
    let mut world = World::new();
    let generation = world.ip.neighbor_generation();
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    let mut asked = world.sent().len();
    for _ in 0..3 {
        assert_eq!(world.ip.neighbor_generation(), generation);
        let deadline = world.ip.next_deadline();
        world.now = deadline;
        world.wait(Duration::ZERO);
        asked += world.sent().len();
    }
    assert_eq!(asked, 3);
    assert_ne!(world.ip.neighbor_generation(), generation, "those who wait are told");
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Unreachable);
    assert_eq!(world.ip.counters().neighbor_failures, 1);
    world.wait(Duration::from_secs(3));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    world.feed(&reply(PEER_MAC));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(PEER_MAC));
    world.sent();
}

#[test]
fn nobody_is_given_up_while_a_link_that_is_down_may_come_up() {
    let mut world = World::new();
    world.ip.on_link_down(world.now);
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    world.sent();
    for _ in 0..9 {
        world.wait(Duration::from_secs(1));
        assert_eq!(world.sent().len(), 1, "asked again");
        assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    }
    // It stays down: given up, as on a link that is up.
    for _ in 0..3 {
        world.wait(Duration::from_secs(1));
    }
    world.sent();
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Unreachable);
    // It comes up: asked at once, and three times from then on.
    world.ip.on_link_up(world.now);
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    for _ in 0..3 {
        world.wait(Duration::from_secs(1));
    }
    world.sent();
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Unreachable);
}

#[test]
fn an_answer_is_probed_when_it_ages_and_the_same_answer_changes_nothing() {
    let mut world = World::new();
    let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
    world.feed(&reply(PEER_MAC));
    world.sent();
    let generation = world.ip.neighbor_generation();
    for _ in 0..5 {
        world.wait(Duration::from_secs(31));
        let (to, question) = parse_arp(&world.sent()[0]);
        assert_eq!((to, question.target), (PEER_MAC, PEER_V4));
        world.feed(&reply(PEER_MAC));
    }
    assert_eq!(world.ip.neighbor_generation(), generation);
}

#[test]
fn a_neighbour_that_moved_is_found_again() {
    let mut world = World::new();
    let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
    world.feed(&reply(PEER_MAC));
    world.sent();
    // It announces itself from elsewhere: the known address is probed three times, then everyone.
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, PEER_V4, PEER_V4));
    assert_eq!(world.ip.counters().neighbor_conflicts, 1);
    let mut to = Vec::new();
    for _ in 0..4 {
        to.extend(world.sent().iter().map(|frame| parse_arp(frame).0));
        world.wait(Duration::from_millis(300));
    }
    assert_eq!(to, [PEER_MAC, PEER_MAC, PEER_MAC, ethernet::BROADCAST]);
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Pending);
    world.feed(&reply(OTHER_MAC));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(OTHER_MAC));
}

#[test]
fn forged_answers_neither_create_nor_replace() {
    let mut world = World::new();
    world.feed(&reply(OTHER_MAC));
    assert_eq!(world.ip.neighbors_len(), 0, "nobody had asked");
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, Ipv4Addr::new(192, 0, 2, 1), OUR_V4));
    assert_eq!(world.ip.neighbors_len(), 0, "on no link of ours");
    let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
    world.feed(&reply(PEER_MAC));
    let generation = world.ip.neighbor_generation();
    world.feed(&reply(OTHER_MAC));
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, PEER_V4, OUR_V4));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(PEER_MAC));
    // The true neighbour answers the probe.
    world.feed(&reply(PEER_MAC));
    world.wait(Duration::from_secs(2));
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(PEER_MAC));
    assert_eq!(world.ip.neighbor_generation(), generation);
    world.sent();
    let mismatched = {
        let mut frame = reply(OTHER_MAC);
        frame[6..12].copy_from_slice(&PEER_MAC);
        frame
    };
    assert!(world.drops(&mismatched, IpDrop::BadDiscovery), "link and packet disagree");
    let group = arp(ArpOperation::Reply, [1, 0, 0, 0, 0, 2], PEER_V4, OUR_V4);
    assert!(world.drops(&group, IpDrop::BadDiscovery), "a group as sender");
}

#[test]
fn a_flood_of_questions_displaces_nobody_in_use() {
    let mut world = World::with(IpConfig {
        limits: IpLimits { neighbors: 8, ..IpLimits::default() },
        ..config()
    });
    let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
    world.feed(&reply(PEER_MAC));
    for n in 3..250u8 {
        let sender = Ipv4Addr::new(10, 0, 0, n);
        world.feed(&arp(ArpOperation::Request, [2, 0, 0, 0, 1, n], sender, OUR_V4));
        world.sent();
    }
    assert_eq!(world.ip.neighbors_len(), 8);
    assert!(world.ip.counters().neighbor_evictions > 200);
    assert_eq!(world.ip.resolve(world.now, PEER_V4.into()), Resolution::Resolved(PEER_MAC));
    for n in 3..11u8 {
        let address = IpAddr::from([10, 0, 0, n]);
        assert_ne!(world.ip.resolve(world.now, address), Resolution::Unreachable);
    }
    world.sent();
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, Ipv4Addr::new(10, 0, 0, 99), OUR_V4));
    assert_eq!(world.ip.counters().neighbor_refusals, 1, "all entries are in use");
    assert_eq!(world.ip.neighbors_len(), 8);
}

#[test]
fn unused_neighbours_are_forgotten_and_then_nothing_is_due() {
    let mut world = World::new();
    let _: Resolution = world.ip.resolve(world.now, PEER_V4.into());
    world.feed(&reply(PEER_MAC));
    for _ in 0..700 {
        world.wait(Duration::from_secs(1));
        if !world.sent().is_empty() {
            world.feed(&reply(PEER_MAC));
        }
    }
    assert_eq!(world.ip.neighbors_len(), 0);
    assert_eq!(world.ip.next_deadline(), Instant::NEVER);
}

#[test]
fn rfc_5227_our_address_is_defended_but_not_in_a_loop() {
    let mut world = World::new();
    for _ in 0..5 {
        world.feed(&arp(ArpOperation::Reply, OTHER_MAC, OUR_V4, OUR_V4));
    }
    assert_eq!(world.ip.counters().address_conflicts, 5);
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    let (to, packet) = parse_arp(&sent[0]);
    assert_eq!((to, packet.sender, packet.target), (ethernet::BROADCAST, OUR_V4, OUR_V4));
    world.wait(Duration::from_secs(10));
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, OUR_V4, OUR_V4));
    assert_eq!(world.sent().len(), 1);
    world.feed(&arp(ArpOperation::Request, OTHER_MAC, Ipv4Addr::UNSPECIFIED, OUR_V4));
    assert_eq!(world.sent().len(), 1, "a probe for our address is answered");
    assert_eq!(world.ip.neighbors_len(), 0);
}

#[test]
fn rfc_4861_solicitations_are_answered_and_sent() {
    let mut world = World::new();
    let question = NdpMessage::Solicitation { target: OUR_V6, source_mac: Some(PEER_MAC) };
    let group = ndp::solicited_node(OUR_V6);
    let mut frame = ndp_frame(question, group, |_| {});
    frame[..6].copy_from_slice(&ethernet::multicast_v6(group));
    world.feed(&frame);
    let sent = world.sent();
    let answer = NdpMessage::parse(&sent[0][54..]).unwrap();
    let target_mac = Some(OUR_MAC);
    assert_eq!(answer, NdpMessage::Advertisement { target: OUR_V6, target_mac, solicited: true });
    assert_eq!(sent[0][..6], PEER_MAC);
    assert_eq!(sent[0][21], 255);

    let other: Ipv6Addr = "fd00::77".parse().unwrap();
    assert_eq!(world.ip.resolve(world.now, other.into()), Resolution::Pending);
    let sent = world.sent();
    let expected = NdpMessage::Solicitation { target: other, source_mac: Some(OUR_MAC) };
    assert_eq!(NdpMessage::parse(&sent[0][54..]), Some(expected));
    assert_eq!(sent[0][..6], ethernet::multicast_v6(ndp::solicited_node(other)));
    let answer = NdpMessage::Advertisement { target: other, target_mac: None, solicited: true };
    let frame = ndp_frame(answer, OUR_V6, |_| {});
    let generation = world.ip.neighbor_generation();
    world.feed(&frame);
    assert_ne!(world.ip.neighbor_generation(), generation);
    assert_eq!(world.ip.resolve(world.now, other.into()), Resolution::Resolved(PEER_MAC));
    assert_eq!(world.ip.counters().ndp, 2);
}

#[test]
fn rfc_4861_7_1_forged_discovery_is_dropped() {
    let mut world = World::new();
    let answer =
        NdpMessage::Advertisement { target: PEER_V6, target_mac: Some(OTHER_MAC), solicited: true };
    let routed = ndp_frame(answer, OUR_V6, |header| header.hop_limit = 254);
    assert!(world.drops(&routed, IpDrop::BadDiscovery), "it was forwarded");
    let mut bad_sum = ndp_frame(answer, OUR_V6, |_| {});
    bad_sum[60] ^= 1;
    assert!(world.drops(&bad_sum, IpDrop::IcmpChecksum));
    world.feed(&ndp_frame(answer, OUR_V6, |_| {}));
    assert_eq!(world.ip.neighbors_len(), 0, "nobody had asked");
    let _: Resolution = world.ip.resolve(world.now, PEER_V6.into());
    let to_all = ndp_frame(answer, "ff02::1".parse().unwrap(), |_| {});
    world.feed(&to_all);
    assert_eq!(world.ip.resolve(world.now, PEER_V6.into()), Resolution::Pending, "said to all");
    world.sent();
}

#[test]
fn a_host_that_is_choosing_our_address_is_told_with_everyone() {
    let mut world = World::new();
    let question = NdpMessage::Solicitation { target: OUR_V6, source_mac: None };
    let group = ndp::solicited_node(OUR_V6);
    let frame = ndp_frame(question, group, |header| header.source = Ipv6Addr::UNSPECIFIED);
    world.feed(&frame);
    let sent = world.sent();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    assert_eq!(sent[0][38..54], all.octets());
    assert_eq!(world.ip.neighbors_len(), 0);
}

#[test]
fn an_interface_announces_every_address() {
    let mut world = World::new();
    world.ip.announce();
    assert_eq!(world.sent().len(), 3, "IPv4, IPv6 and the link-local address");
}
