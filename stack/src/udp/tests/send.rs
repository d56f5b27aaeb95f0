//! The way out, and whole exchanges.

use super::*;
use core::num::NonZeroU8;

use crate::checksum::Sum;
use crate::ip::{Mark, Marking};
use crate::wire::protocol;
use crate::wire::udp::UdpHeader;

#[test]
fn datagrams_go_both_ways_over_both_families() {
    let (mut a, mut b) = pair();
    for (here, there) in [(at(1, 1000), at(2, 2000)), (at_v6(1, 1000), at_v6(2, 2000))] {
        let client = a.bind(here);
        let server = b.bind(there);
        for len in [0, 1, 3, 196, 197, 1400, 1452] {
            let data: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            a.send(client, &data, Some(there)).unwrap();
            exchange(&mut a, &mut b);
            let (received, source) = b.recv(server).unwrap();
            assert_eq!((&received, source), (&data, here));
            b.send(server, &received, Some(source)).unwrap();
            exchange(&mut a, &mut b);
            assert_eq!(a.recv(client).unwrap(), (data, there));
        }
        assert_eq!(a.recv(client), Err(UdpError::WouldBlock));
    }
}

#[test]
fn a_connected_pair_needs_no_address_and_hears_nobody_else() {
    let (mut a, mut b) = pair();
    let client = a.bind(any_v4(0));
    let server = b.bind(any_v4(2000));
    a.udp.connect(&a.ip, client, at(2, 2000)).unwrap();
    let own = a.udp.local_addr(client).unwrap();
    assert_eq!(own.ip(), address(1)[0]);
    assert!((49_152..=65_535).contains(&own.port()));
    a.send(client, b"question", None).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.recv(server).unwrap().1, own);
    let stranger = b.bind(any_v4(2001));
    b.send(stranger, b"noise", Some(own)).unwrap();
    b.send(server, b"answer", Some(own)).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.recv(client).unwrap().0, b"answer");
    assert_eq!(a.recv(client), Err(UdpError::WouldBlock));
    assert_eq!(a.udp.drops().get(UdpDrop::NoSocket), 1);
}

#[test]
fn partial_checksums_are_left_to_the_device_and_completed_are_the_full_ones() {
    for (here, there) in [(at(1, 1000), at(2, 2000)), (at_v6(1, 1000), at_v6(2, 2000))] {
        for len in [0, 5, 300, 1400] {
            let data = std::vec![0xa5; len];
            let mut frames = Vec::new();
            for tx_checksum in [false, true] {
                let (mut a, mut b) = pair();
                a.offloads.tx_checksum = tx_checksum;
                let client = a.bind(here);
                b.bind(there);
                a.send(client, &data, Some(there)).unwrap();
                for _ in 0..2 {
                    a.sent().iter().for_each(|(frame, _)| b.give(frame));
                    b.sent().iter().for_each(|(frame, _)| a.give(frame));
                }
                a.send(client, &data, Some(there)).unwrap();
                let (mut frame, checksum) = a.sent().pop().unwrap();
                assert_eq!(checksum.is_some(), tx_checksum);
                if let Some(left) = checksum {
                    let (start, at) = (usize::from(left.start), usize::from(left.offset));
                    let sum = Sum::of(&frame[start..]).checksum();
                    frame[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
                }
                // The identification, and with it the header checksum, may differ.
                if here.is_ipv4() {
                    frame[18..20].fill(0);
                    frame[24..26].fill(0);
                }
                frames.push(frame);
            }
            assert_eq!(frames[0], frames[1], "{len} bytes to {there}");
            let start = if here.is_ipv4() { 34 } else { 54 };
            let length = u32::try_from(len + 8).unwrap();
            let pseudo = Sum::pseudo(here.ip(), there.ip(), protocol::UDP, length);
            assert!(pseudo.plus(Sum::of(&frames[0][start..])).is_valid());
        }
    }
}

#[test]
fn rfc_1122_4_1_4_time_to_live_and_class_are_the_sockets() {
    for (here, there) in [(at(1, 1000), at(2, 2000)), (at_v6(1, 1000), at_v6(2, 2000))] {
        let (mut a, mut b) = pair();
        let (client, server) = (a.bind(here), b.bind(there));
        let marks = |frame: &[u8]| match here.ip() {
            IpAddr::V4(_) => (frame[22], frame[15]),
            IpAddr::V6(_) => (frame[21], frame[14] << 4 | frame[15] >> 4),
        };
        a.send(client, b"who are you", Some(there)).unwrap();
        exchange(&mut a, &mut b);
        a.send(client, b"plain", Some(there)).unwrap();
        assert_eq!(marks(&a.sent()[0].0), (64, 0));
        // ECN is the application's where the transport knows nothing of it.
        a.udp.mark(client, Mark::Tos(0xb9)).unwrap();
        a.udp.mark(client, Mark::Ttl(NonZeroU8::MIN)).unwrap();
        let set = Marking { ttl: NonZeroU8::MIN, tos: 0xb9 };
        assert_eq!(a.udp.marking(client), Some(set));
        a.send(client, b"marked", Some(there)).unwrap();
        let frame = a.sent().pop().unwrap().0;
        assert_eq!(marks(&frame), (1, 0xb9));
        b.give(&frame);
        assert_eq!(b.recv(server).unwrap().0, b"who are you");
        assert_eq!(b.recv(server).unwrap().0, b"marked", "its sums are right");
    }
}

#[test]
fn rfc_768_a_checksum_of_zero_is_sent_as_all_ones() {
    let (mut a, mut b) = pair();
    let client = a.bind(at(1, 1000));
    let server = b.bind(at(2, 2000));
    a.send(client, &[0, 0], Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    b.recv(server).unwrap();
    a.send(client, &[0, 0], Some(at(2, 2000))).unwrap();
    let frame = a.sent().pop().unwrap().0;
    let checksum = UdpHeader::parse(&frame[34..]).unwrap().checksum;
    // The payload that brings the sum to zero.
    a.send(client, &checksum.to_be_bytes(), Some(at(2, 2000))).unwrap();
    let frame = a.sent().pop().unwrap().0;
    assert_eq!(UdpHeader::parse(&frame[34..]).unwrap().checksum, 0xffff);
    b.give(&frame);
    assert_eq!(b.recv(server).unwrap().0, checksum.to_be_bytes());
}

#[test]
fn long_datagrams_are_fragmented_over_ipv4_and_refused_over_ipv6() {
    for (mtu, frames) in [(1500, 45), (1280, 53), (4096, 17), (9000, 8)] {
        let mut a = Host::with_mtu(1, mtu);
        let mut b = Host::with_mtu(2, mtu);
        let client = a.bind(at(1, 1000));
        let server = b.bind(at(2, 2000));
        a.send(client, b"who are you", Some(at(2, 2000))).unwrap();
        exchange(&mut a, &mut b);
        b.recv(server).unwrap();
        let data: Vec<u8> = (0..65_507u32).map(|n| (n * 7).to_le_bytes()[1]).collect();
        a.send(client, &data, Some(at(2, 2000))).unwrap();
        let sent = a.sent();
        assert_eq!(sent.len(), frames, "MTU {mtu}");
        for (frame, checksum) in sent.iter().rev() {
            assert!(frame.len() <= usize::from(mtu) + 14 && checksum.is_none());
            b.give(frame);
        }
        assert_eq!(b.recv(server).unwrap().0, data);
        let too_long = std::vec![0; 65_508];
        assert_eq!(a.send(client, &too_long, Some(at(2, 2000))), Err(UdpError::MessageTooLong));
    }
    let (mut a, mut b) = pair();
    let client = a.bind(at_v6(1, 1000));
    let server = b.bind(at_v6(2, 2000));
    assert_eq!(a.send(client, &[0; 1453], Some(at_v6(2, 2000))), Err(UdpError::MessageTooLong));
    a.send(client, &[0; 1452], Some(at_v6(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.recv(server).unwrap().0.len(), 1452);
}

#[test]
fn jumbo_datagrams_lie_in_several_pieces() {
    for (here, there) in [(at(1, 1000), at(2, 2000)), (at_v6(1, 1000), at_v6(2, 2000))] {
        let mut a = Host::with_mtu(1, 65_535);
        let mut b = Host::with_mtu(2, 65_535);
        let client = a.bind(here);
        let server = b.bind(there);
        a.send(client, b"hello", Some(there)).unwrap();
        exchange(&mut a, &mut b);
        b.recv(server).unwrap();
        for len in [4035, 4036, 4037, 9001, 65_487] {
            let data: Vec<u8> = (0..len).map(|n: usize| (n * 3).to_le_bytes()[1]).collect();
            a.send(client, &data, Some(there)).unwrap();
            exchange(&mut a, &mut b);
            assert_eq!(b.recv(server).unwrap().0, data);
        }
    }
}

#[test]
fn datagrams_wait_for_the_neighbour_within_a_limit() {
    let (mut a, mut b) = pair();
    let client = a.bind(any_v4(1000));
    let server = b.bind(any_v4(2000));
    for n in 0..8 {
        a.send(client, &[n], Some(at(2, 2000))).unwrap();
    }
    assert_eq!(a.send(client, &[8], Some(at(2, 2000))), Err(UdpError::WouldBlock));
    exchange(&mut a, &mut b);
    for n in 0..8 {
        assert_eq!(b.recv(server).unwrap().0, [n]);
    }
    assert_eq!(a.events(), [(client, Readiness { readable: false, writable: true })]);
    a.send(client, &[8], Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.recv(server).unwrap().0, [8]);
}

#[test]
fn a_neighbour_that_does_not_answer_is_reported() {
    let mut a = Host::new(1);
    let client = a.bind(any_v4(1000));
    a.send(client, b"x", Some(at(9, 2000))).unwrap();
    for _ in 0..4 {
        a.sent();
        a.wait(Duration::from_secs(1));
    }
    a.sent();
    assert_eq!(a.events(), [(client, Readiness { readable: true, writable: true })]);
    assert_eq!(a.recv(client), Err(UdpError::HostUnreachable));
    assert_eq!(a.send(client, b"x", Some(at(9, 2000))), Err(UdpError::HostUnreachable));
    assert_eq!(a.udp.counters().wait_failed, 1);
}

#[test]
fn a_full_queue_and_exhausted_memory_block_and_wake() {
    let limits = HeapLimits { small: 20, ..HeapLimits::default() };
    let config = UdpConfig { send_frames: 4, ..UdpConfig::default() };
    let mut a = Host::with(1, |_| {}, config, limits);
    let mut b = Host::new(2);
    let first = a.bind(any_v4(1000));
    let second = a.bind(any_v4(1001));
    b.bind(any_v4(2000));
    a.send(first, b"x", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    for _ in 0..4 {
        a.send(first, b"x", Some(at(2, 2000))).unwrap();
    }
    assert_eq!(a.send(first, b"x", Some(at(2, 2000))), Err(UdpError::WouldBlock));
    a.send(second, b"x", Some(at(2, 2000))).unwrap();
    assert_eq!(a.udp.readiness(first), Some(Readiness { readable: false, writable: false }));
    assert_eq!(a.sent().len(), 5);
    assert_eq!(a.events(), [(first, Readiness { readable: false, writable: true })]);

    let hogs: Vec<_> =
        core::iter::from_fn(|| a.mem.allocate(crate::memory::SlotClass::Small)).collect();
    assert_eq!(hogs.len(), 20);
    assert_eq!(a.send(second, b"x", Some(at(2, 2000))), Err(UdpError::WouldBlock));
    hogs.into_iter().for_each(|slot| a.mem.release(slot));
    assert!(a.sent().is_empty());
    assert_eq!(a.events(), [(second, Readiness { readable: false, writable: true })]);
    a.send(second, b"x", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
}

#[test]
fn fragments_that_find_no_memory_leave_nothing_behind() {
    let limits = HeapLimits { chunks: 10, ..HeapLimits::default() };
    let mut a = Host::with(1, |_| {}, UdpConfig::default(), limits);
    let mut b = Host::new(2);
    let client = a.bind(any_v4(1000));
    let server = b.bind(any_v4(2000));
    a.send(client, b"x", Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    b.recv(server).unwrap();
    let long = std::vec![1; 20_000];
    assert_eq!(a.send(client, &long, Some(at(2, 2000))), Err(UdpError::WouldBlock));
    assert_eq!(a.mem.live_slots(), 0);
    a.send(client, &long[..14_000], Some(at(2, 2000))).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(b.recv(server).unwrap().0, long[..14_000]);
}

#[test]
fn destinations_that_cannot_be_are_refused() {
    let mut a = Host::new(1);
    let v4 = a.bind(any_v4(1000));
    let rows = [
        (Some(at(2, 0)), UdpError::InvalidAddress),
        (Some(at_v6(2, 5)), UdpError::InvalidAddress),
        (Some(any_v4(5)), UdpError::InvalidAddress),
        (None, UdpError::NotConnected),
        (Some(SocketAddr::from(([192, 0, 2, 1], 5))), UdpError::NetworkUnreachable),
        (Some(at(1, 5)), UdpError::NetworkUnreachable),
        (Some(SocketAddr::from(([255; 4], 5))), UdpError::PermissionDenied),
        (Some(at(255, 5)), UdpError::PermissionDenied),
    ];
    for (to, error) in rows {
        assert_eq!(a.send(v4, b"x", to), Err(error), "{to:?}");
    }
    let (ip, udp) = (&a.ip, &mut a.udp);
    assert_eq!(udp.connect(ip, v4, at_v6(2, 5)), Err(UdpError::InvalidAddress));
    assert_eq!(udp.connect(ip, v4, at(2, 0)), Err(UdpError::InvalidAddress));
    a.udp.close(v4, &mut a.mem).unwrap();
    assert_eq!(a.udp.close(v4, &mut a.mem), Err(UdpError::NotFound));
    assert_eq!(a.send(v4, b"x", Some(at(2, 5))), Err(UdpError::NotFound));
}

#[test]
fn broadcasts_reach_sockets_bound_to_every_address() {
    let (mut a, mut b) = pair();
    let client = a.bind(any_v4(1000));
    a.udp.set_broadcast(client, true).unwrap();
    let server = b.bind(any_v4(2000));
    b.bind(at(2, 2001));
    for to in [SocketAddr::from(([255; 4], 2000)), at(255, 2000), at(255, 2001)] {
        a.send(client, b"all", Some(to)).unwrap();
        exchange(&mut a, &mut b);
    }
    assert_eq!(b.recv(server).unwrap().0, b"all");
    assert_eq!(b.recv(server).unwrap().0, b"all");
    assert_eq!(b.udp.drops().get(UdpDrop::NoSocket), 1);
    assert_eq!(b.ip.counters().icmp_errors, 0, "no error answers a broadcast");
}
