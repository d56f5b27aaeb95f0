//! Datagrams, pings and closed ports between Roceway and the kernel.

use std::io::ErrorKind;
use std::net::SocketAddr;

use roceway_runtime::local::UdpSocket;

use super::{HOST, Node, PORT, US, World, pattern, ping, udp};

/// Whole, at the edge of one packet, and in fragments.
const DATAGRAMS: [usize; 7] = [0, 1, 1452, 1472, 1473, 9000, 65_507];

/// Datagrams of every size to the kernel, which sends them back.
pub(crate) fn datagrams(world: &World, node: &Node) {
    for family in [0, 1] {
        let theirs = world.in_kernel(move || udp(HOST[family]));
        let far = theirs.local_addr().unwrap();
        let ours = UdpSocket::bind(&node.worker, SocketAddr::new(US[family], PORT)).unwrap();
        // IPv6 fragments are not supported: what needs them is refused.
        let most = if family == 0 { 65_507 } else { 1452 };
        for length in DATAGRAMS {
            let bytes = pattern(length as u64, length);
            let sent = node.until("to send", || ours.send_to(bytes, far));
            if length > most {
                assert_eq!(sent.unwrap_err().kind(), ErrorKind::InvalidInput, "{length}");
                continue;
            }
            sent.unwrap();
            let socket = theirs.try_clone().unwrap();
            let echo = world.kernel(move || {
                let mut out = vec![0; 70_000];
                let (count, from) = socket.recv_from(&mut out).unwrap();
                socket.send_to(&out[..count], from).unwrap();
            });
            let mut out = vec![1; 70_000];
            let (count, from) = node.until("the echo", || ours.recv_from(&mut out)).unwrap();
            assert_eq!((count, from), (length, far));
            assert!(out[..count] == *bytes, "{length}");
            node.join("the echo", echo);
        }
    }
}

/// Echo requests of the kernel's, over IPv4 also in fragments.
pub(crate) fn pings(world: &World, node: &Node) {
    for (to, lengths) in [(US[0], &[0, 1, 1472, 1473, 8000][..]), (US[1], &[0, 1, 1452][..])] {
        for &length in lengths {
            node.join("the reply", world.kernel(move || ping(to, length)));
        }
    }
}

/// Each side sends to a port that nobody has at the other, and is told so.
pub(crate) fn unreachable_ports(world: &World, node: &Node) {
    for family in [0, 1] {
        let ours = UdpSocket::bind(&node.worker, SocketAddr::new(US[family], 0)).unwrap();
        ours.connect(SocketAddr::new(HOST[family], 9)).unwrap();
        node.until("to send", || ours.send(b"anyone?")).unwrap();
        let error = node.until("the error", || ours.recv(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let to = SocketAddr::new(US[family], 9);
        let thread = world.kernel(move || {
            let theirs = udp(HOST[family]);
            theirs.connect(to).unwrap();
            theirs.send(b"anyone?").unwrap();
            theirs.recv(&mut [0]).unwrap_err().kind()
        });
        assert_eq!(node.join("the error", thread), ErrorKind::ConnectionRefused);
    }
}
