//! The short way in and out does what the full way does, or nothing.

use super::*;
use crate::frame::Taken;

type Change = fn(&mut Vec<u8>);

/// Two hosts that partially sum, with a socket each; a datagram was received, and another one sent
/// after the neighbour was found.
fn expecting() -> (Host, Host, UdpId, UdpId) {
    let (mut a, mut b) = pair();
    a.offloads.tx_checksum = true;
    b.received_checksum = RxChecksum::Partial;
    let client = a.bind(any_v4(1000));
    let server = b.bind(any_v4(2000));
    for _ in 0..2 {
        a.send(client, b"first", Some(at(2, 2000))).unwrap();
        exchange(&mut a, &mut b);
        b.recv(server).unwrap();
    }
    (a, b, client, server)
}

/// Gives a frame to the short way in; whether it was taken.
fn give_short(host: &mut Host, bytes: &[u8]) -> bool {
    let pieces = host.mem.receive_chain(bytes).unwrap();
    let [piece] = pieces[..] else { panic!("one slot") };
    let taken = host.udp.on_expected_frame(piece, &mut host.mem);
    if taken != Taken::Kept {
        host.mem.release(piece.slot);
    }
    host.udp.check();
    taken != Taken::No
}

/// The bytes that the short way out makes of a datagram.
fn send_short(host: &mut Host, id: UdpId, data: &[u8], to: Option<SocketAddr>) -> Option<Vec<u8>> {
    let (ip, mem) = (&mut host.ip, &mut host.mem);
    let mut cx = UdpContext { now: host.now, ip, mem, offloads: host.offloads };
    let piece = host.udp.send_at_once(&mut cx, id, data, to)?;
    let bytes = host.mem.bytes(piece).to_vec();
    host.mem.release(piece.slot);
    Some(bytes)
}

#[test]
fn both_ways_out_make_the_same_bytes_and_both_ways_in_queue_them() {
    let (mut a, mut b, client, server) = expecting();
    for len in [0, 1, 15, 16, 100, 196] {
        let data: Vec<u8> = (0..=255).cycle().take(len).collect();
        let short = send_short(&mut a, client, &data, Some(at(2, 2000))).unwrap();
        a.send(client, &data, Some(at(2, 2000))).unwrap();
        let [(full, Some(checksum))] = &a.sent()[..] else { panic!("one frame, partly summed") };
        assert_eq!(*checksum, EXPECTED_CHECKSUM);
        // The identification differs, and with it the header checksum.
        assert_eq!((&short[..18], &short[20..24]), (&full[..18], &full[20..24]));
        assert_eq!(short[26..], full[26..]);
        assert!(give_short(&mut b, &short));
        b.give(full);
        for _ in 0..2 {
            assert_eq!(b.recv(server).unwrap(), (data.clone(), at(1, 1000)));
        }
    }
    assert_eq!(b.udp.counters().predicted, 6);
}

#[test]
fn short_and_long_datagrams_keep_their_order_however_they_leave() {
    let (mut a, mut b, client, server) = expecting();
    let datagram = |n: u8| alloc::vec![n; [1, 58, 59, 150][usize::from(n) % 4]];
    for round in 0..60_u8 {
        let count = 1 + round % 5;
        for n in 0..count {
            let data = datagram(round.wrapping_add(n));
            let frame = send_short(&mut a, client, &data, Some(at(2, 2000))).unwrap();
            assert!(give_short(&mut b, &frame));
        }
        if round % 3 == 0 {
            b.udp.compact(&mut b.mem);
        }
        let mut peeked = [0; 200];
        let first = b.udp.peek_from(server, &mut peeked, &b.mem).unwrap();
        assert_eq!((&peeked[..first.len], first.source), (&datagram(round)[..], at(1, 1000)));
        for n in 0..count {
            assert_eq!(b.recv(server).unwrap(), (datagram(round.wrapping_add(n)), at(1, 1000)));
        }
        b.udp.check();
    }
    let frame = send_short(&mut a, client, b"unread", Some(at(2, 2000))).unwrap();
    assert!(give_short(&mut b, &frame));
    b.udp.close(server, &mut b.mem).unwrap();
    b.udp.check();
    assert_eq!(b.mem.live_slots(), 0);
}

#[test]
fn what_is_not_exactly_expected_is_left_alone() {
    let (mut a, mut b, client, server) = expecting();
    let sound = send_short(&mut a, client, b"datagram", Some(at(2, 2000))).unwrap();
    let changes: &[(&str, Change)] = &[
        ("another destination", |frame| frame[5] ^= 1),
        ("another type", |frame| frame[13] = 6),
        ("options", |frame| frame[14] = 0x46),
        ("another class", |frame| frame[15] = 4),
        ("a wrong total length", |frame| frame[17] ^= 1),
        ("a fragment", |frame| frame[20] = 0x20),
        ("an offset", |frame| frame[21] = 1),
        ("another protocol", |frame| frame[23] = 6),
        ("a wrong header checksum", |frame| frame[24] ^= 1),
        ("another source", |frame| frame[29] ^= 1),
        ("another port", |frame| frame[37] ^= 1),
        ("a wrong length", |frame| frame[39] ^= 1),
        ("padding", |frame| frame.push(0)),
        ("a byte less", |frame| frame.truncate(frame.len() - 1)),
        ("no header", |frame| frame.truncate(41)),
    ];
    for (name, change) in changes {
        let mut frame = sound.clone();
        change(&mut frame);
        assert!(!give_short(&mut b, &frame), "{name}");
    }
    assert!(give_short(&mut b, &sound));
    assert_eq!(b.recv(server).unwrap().0, b"datagram");
}

#[test]
fn nothing_is_predicted_for_a_socket_that_closed_or_is_full_or_of_another_peer() {
    let (mut a, mut b, client, server) = expecting();
    let sound = send_short(&mut a, client, b"x", Some(at(2, 2000))).unwrap();
    let mut taken = 0;
    while give_short(&mut b, &sound) {
        taken += 1;
        assert!(taken < 10_000, "a queue without end");
    }
    while b.recv(server).is_ok() {}
    assert!(give_short(&mut b, &sound));
    b.udp.connect(&b.ip, server, at(1, 1001)).unwrap();
    assert!(!give_short(&mut b, &sound), "connected to another port");
    b.udp.close(server, &mut b.mem).unwrap();
    b.events();
    assert!(!give_short(&mut b, &sound), "closed");
}

#[test]
fn the_short_way_out_is_for_what_is_ready_to_leave() {
    let (mut a, _b, client, _) = expecting();
    assert!(send_short(&mut a, client, &[0; 197], Some(at(2, 2000))).is_none(), "too long");
    assert!(send_short(&mut a, client, b"x", Some(at(2, 2001))).is_none(), "elsewhere");
    assert!(send_short(&mut a, client, b"x", None).is_none(), "no peer");
    a.send(client, b"before", Some(at(2, 2000))).unwrap();
    assert!(send_short(&mut a, client, b"x", Some(at(2, 2000))).is_none(), "not the next");
    a.sent();
    assert!(send_short(&mut a, client, b"x", Some(at(2, 2000))).is_some());
    a.offloads.tx_checksum = false;
    assert!(send_short(&mut a, client, b"x", Some(at(2, 2000))).is_none(), "sums are ours");
}

#[test]
fn a_short_read_is_a_read_without_the_address() {
    let (mut a, mut b, client, server) = expecting();
    let mut buffer = [0; 4];
    assert_eq!(b.udp.recv(server, &mut buffer, &mut b.mem), Err(UdpError::WouldBlock));
    let frame = send_short(&mut a, client, b"longer", Some(at(2, 2000))).unwrap();
    assert!(give_short(&mut b, &frame));
    assert_eq!(b.udp.recv(server, &mut buffer, &mut b.mem), Ok(4));
    assert_eq!(&buffer, b"long");
    assert_eq!(b.udp.recv(server, &mut buffer, &mut b.mem), Err(UdpError::WouldBlock));
}
