//! The way in: whom a datagram is for, what it costs, what is refused.

use super::*;

/// Sends one datagram so that both hosts know each other.
fn acquainted() -> (Host, Host, UdpId) {
    let (mut a, mut b) = pair();
    let client = a.bind(any_v4(1000));
    let server = b.bind(any_v4(9999));
    a.send(client, b"x", Some(at(2, 9999))).unwrap();
    exchange(&mut a, &mut b);
    b.recv(server).unwrap();
    b.udp.close(server, &mut b.mem).unwrap();
    b.events();
    (a, b, client)
}

#[test]
fn the_most_exact_socket_wins() {
    let (mut a, mut b, client) = acquainted();
    let anywhere = b.bind(any_v4(2000));
    let clash = b.udp.bind(&b.ip, at(2, 2000));
    assert_eq!(clash, Err(UdpError::AddressInUse));
    let other_family = b.bind(SocketAddr::from(([0u16; 8], 2000)));
    let exact = b.bind(at(2, 2001));
    let connected = b.bind(any_v4(2002));
    b.udp.connect(&b.ip, connected, at(1, 1000)).unwrap();
    for (port, id) in [(2000u16, anywhere), (2001, exact), (2002, connected), (2000, anywhere)] {
        a.send(client, &port.to_be_bytes(), Some(at(2, port))).unwrap();
        exchange(&mut a, &mut b);
        assert_eq!(b.recv(id).unwrap().0, port.to_be_bytes());
    }
    assert_eq!(b.recv(other_family), Err(UdpError::WouldBlock));
}

#[test]
fn rfc_1122_4_1_3_1_nobody_listens_and_the_connected_peer_is_told() {
    let (mut a, mut b, client) = acquainted();
    a.udp.connect(&a.ip, client, at(2, 2000)).unwrap();
    a.send(client, b"x", None).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.udp.drops().get(UdpDrop::NoSocket), 1);
    assert_eq!(a.events(), [(client, Readiness { readable: true, writable: true })]);
    assert_eq!(a.recv(client), Err(UdpError::ConnectionRefused));
    assert_eq!(a.recv(client), Err(UdpError::WouldBlock), "said once");
    a.send(client, b"x", None).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.send(client, b"x", None), Err(UdpError::ConnectionRefused));
    let unconnected = a.bind(any_v4(1001));
    a.send(unconnected, b"x", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.udp.take_error(unconnected), None);
    assert_eq!(a.udp.counters().errors_unmatched, 1);
}

#[test]
fn the_last_connection_is_found_without_a_hash_and_forgotten_in_time() {
    let (mut a, mut b, client) = acquainted();
    let server = b.bind(any_v4(2000));
    for _ in 0..3 {
        a.send(client, b"x", Some(at(2, 2000))).unwrap();
        exchange(&mut a, &mut b);
        b.recv(server).unwrap();
    }
    assert_eq!(b.udp.counters().last_hits, 2);
    b.udp.close(server, &mut b.mem).unwrap();
    let again = b.bind(any_v4(2000));
    assert_ne!(again.to_raw(), server.to_raw());
    a.send(client, b"y", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.recv(server), Err(UdpError::NotFound));
    assert_eq!(b.recv(again).unwrap().0, b"y");
}

#[test]
fn each_socket_is_named_once_however_much_comes() {
    let (mut a, mut b, client) = acquainted();
    let servers = [b.bind(any_v4(2000)), b.bind(any_v4(2001))];
    for _ in 0..3 {
        a.send(client, b"x", Some(at(2, 2001))).unwrap();
        a.send(client, b"x", Some(at(2, 2000))).unwrap();
    }
    exchange(&mut a, &mut b);
    let ready = Readiness { readable: true, writable: true };
    assert_eq!(b.events(), [(servers[1], ready), (servers[0], ready)]);
    assert!(b.events().is_empty());
    b.recv(servers[0]).unwrap();
    a.send(client, b"x", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.events(), [(servers[0], ready)]);
}

#[test]
fn the_receive_queue_is_bounded_by_datagrams_and_bytes() {
    for (datagrams, bytes) in [(5, 1 << 20), (1000, 5 * 164)] {
        let config = UdpConfig {
            receive_datagrams: datagrams,
            receive_bytes: bytes,
            ..UdpConfig::default()
        };
        let mut a = Host::new(1);
        let mut b = Host::with(2, |_| {}, config, HeapLimits::default());
        let client = a.bind(any_v4(1000));
        let server = b.bind(any_v4(2000));
        for _ in 0..8 {
            a.send(client, &[0; 100], Some(at(2, 2000))).unwrap();
        }
        exchange(&mut a, &mut b);
        assert_eq!(b.udp.drops().get(UdpDrop::QueueFull), 3);
        assert_eq!((0..8).filter(|_| b.recv(server).is_ok()).count(), 5);
    }
}

#[test]
fn one_unread_byte_pins_no_slot_when_slots_are_few() {
    let (mut a, mut b, client) = acquainted();
    b.mem = HeapMemory::new(HeapLimits { receive: 20, receive_low: 10, ..HeapLimits::default() });
    let servers: Vec<UdpId> = (0..100).map(|n| b.bind(any_v4(3000 + n))).collect();
    for n in 0..100u8 {
        let port = 3000 + u16::from(n);
        a.send(client, &[n], Some(at(2, port))).unwrap();
        exchange(&mut a, &mut b);
        if b.mem.receive_is_low() {
            b.udp.compact(&mut b.mem);
        }
        assert!(!b.mem.receive_is_low());
    }
    for (n, server) in servers.iter().enumerate() {
        assert_eq!(usize::from(b.recv(*server).unwrap().0[0]), n);
    }
    assert!(b.udp.counters().compacted > 50);
}

#[test]
fn a_socket_holds_no_more_slots_than_it_may() {
    let config = UdpConfig { receive_slots: 3, ..UdpConfig::default() };
    let mut a = Host::new(1);
    let mut b = Host::with(2, |_| {}, config, HeapLimits::default());
    let client = a.bind(any_v4(1000));
    let server = b.bind(any_v4(2000));
    for n in 0..8 {
        a.send(client, &[n; 50], Some(at(2, 2000))).unwrap();
    }
    exchange(&mut a, &mut b);
    assert!(b.mem.live_slots() <= 3);
    for n in 0..8 {
        assert_eq!(b.recv(server).unwrap().0, [n; 50]);
    }
}

#[test]
fn a_short_buffer_gets_the_head_and_is_told() {
    let (mut a, mut b, client) = acquainted();
    let server = b.bind(any_v4(2000));
    a.send(client, b"abcdef", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    let mut buffer = [0; 4];
    let expected = Received { len: 4, datagram_len: 6, source: at(1, 1000) };
    assert_eq!(b.udp.peek_from(server, &mut buffer, &b.mem), Ok(expected));
    assert_eq!(b.udp.recv_from(server, &mut buffer, &mut b.mem), Ok(expected));
    assert_eq!(&buffer, b"abcd");
    assert_eq!(b.recv(server), Err(UdpError::WouldBlock));
}

#[test]
fn checksums_are_verified_unless_the_device_vouches() {
    let (mut a, mut b, client) = acquainted();
    let server = b.bind(any_v4(2000));
    a.send(client, b"abcdef", Some(at(2, 2000))).unwrap();
    let mut frame = a.sent().pop().unwrap().0;
    frame[44] ^= 1;
    b.give(&frame);
    assert_eq!(b.udp.drops().get(UdpDrop::Checksum), 1);
    for vouched in [RxChecksum::Valid, RxChecksum::Partial] {
        b.received_checksum = vouched;
        b.give(&frame);
        b.recv(server).unwrap();
    }
    b.received_checksum = RxChecksum::Unknown;
    frame[40..42].fill(0); // RFC 768: no checksum
    b.give(&frame);
    b.recv(server).unwrap();
}

#[test]
fn rfc_8200_8_1_ipv6_needs_a_checksum() {
    let (mut a, mut b) = pair();
    let client = a.bind(at_v6(1, 1000));
    let server = b.bind(at_v6(2, 2000));
    a.send(client, b"x", Some(at_v6(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    b.recv(server).unwrap();
    a.send(client, b"x", Some(at_v6(2, 2000))).unwrap();
    let mut frame = a.sent().pop().unwrap().0;
    frame[60..62].fill(0);
    b.give(&frame);
    assert_eq!(b.udp.drops().get(UdpDrop::NoChecksum), 1);
}

#[test]
fn ports_are_given_until_none_is_left_and_not_in_order() {
    let config = UdpConfig { ephemeral: 50_000..=50_099, ..UdpConfig::default() };
    let mut a = Host::with(1, |_| {}, config, HeapLimits::default());
    let ids: Vec<UdpId> = (0..100).map(|_| a.bind(any_v4(0))).collect();
    let ports: Vec<u16> = ids.iter().map(|id| a.udp.local_addr(*id).unwrap().port()).collect();
    let mut sorted = ports.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (50_000..=50_099).collect::<Vec<u16>>());
    assert_ne!(ports[0], 50_000);
    assert_eq!(a.udp.bind(&a.ip, any_v4(0)), Err(UdpError::NoPort));
    let only_even = UdpConfig { port_is_ours: |port| port % 2 == 0, ..UdpConfig::default() };
    let mut b = Host::with(2, |_| {}, only_even, HeapLimits::default());
    for _ in 0..50 {
        let id = b.bind(any_v4(0));
        assert_eq!(b.udp.local_addr(id).unwrap().port() % 2, 0);
    }
}

#[test]
fn sockets_are_bounded_and_addresses_must_be_ours() {
    let config = UdpConfig { sockets: 2, ..UdpConfig::default() };
    let mut a = Host::with(1, |_| {}, config, HeapLimits::default());
    a.bind(any_v4(0));
    let second = a.bind(any_v4(0));
    assert_eq!(a.udp.bind(&a.ip, any_v4(0)), Err(UdpError::TooManySockets));
    assert_eq!(a.udp.bind(&a.ip, at(9, 5)), Err(UdpError::AddressNotAvailable));
    a.udp.close(second, &mut a.mem).unwrap();
    a.bind(any_v4(7));
}

#[test]
fn a_path_mtu_that_a_connected_socket_hears_of_holds_for_the_next_datagram() {
    let (mut a, mut b) = pair();
    let client = a.bind(any_v4(1000));
    b.bind(any_v4(2000));
    a.udp.connect(&a.ip, client, at(2, 2000)).unwrap();
    a.send(client, b"x", None).unwrap();
    exchange(&mut a, &mut b);
    let error = IcmpError {
        transport: crate::ip::Transport::Udp,
        local: at(1, 1000),
        remote: at(2, 2000),
        kind: IcmpErrorKind::PacketTooBig(1000),
        sequence: 0,
    };
    a.udp.on_error(a.now, &mut a.ip, &error);
    a.send(client, &[0; 1400], None).unwrap();
    let frames = a.sent();
    assert!(frames.len() == 2 && frames.iter().all(|(frame, _)| frame.len() <= 1014));
}
