//! Datagrams and a link without its other end: what is held, for how long, and what is told.
//!
//! As over an interface without carrier in Linux: a datagram waits for its neighbour's address, and
//! so for the link, within the limits of every neighbour that does not answer; after that its
//! socket is told. Nothing is lost that was taken while the link was down but for that.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{address, config, nics};
use roceway_runtime::local::{UdpSocket, Worker};

const PATIENCE: Duration = Duration::from_secs(20);
/// Datagrams that wait for one neighbour, at most (`UdpConfig::waiting_frames`).
const HELD: u8 = 8;

fn turn_for(worker: &Worker, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let _ = worker.turn_or_sleep().expect("the system waits");
    }
}

/// Sends numbers until no more are taken; returns how many were.
fn fill(socket: &UdpSocket) -> u8 {
    for number in 0..=HELD {
        match socket.send_to(&[number], address(2, 9)) {
            Ok(sent) => assert_eq!(sent, 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return number;
            }
        }
    }
    HELD + 1
}

/// Takes so many numbers at the other end, in their order.
fn expect(ends: [&Worker; 2], socket: &UdpSocket, numbers: u8) {
    let start = Instant::now();
    for number in 0..numbers {
        let mut byte = [0];
        while socket.recv_from(&mut byte).is_err() {
            for end in ends {
                let _ = end.turn();
            }
            assert!(start.elapsed() < PATIENCE, "datagram {number}");
        }
        assert_eq!(byte, [number]);
    }
}

#[test]
fn datagrams_sent_before_the_link_is_up_wait_for_it() {
    let (here, there) = nics();
    let client = Worker::with_nic(here, &config(1)).expect("a worker");
    let asking = UdpSocket::bind(&client, address(1, 9)).expect("a socket");
    assert_eq!(fill(&asking), HELD);
    turn_for(&client, Duration::from_millis(300));
    let server = Worker::with_nic(there, &config(2)).expect("a worker");
    let answering = UdpSocket::bind(&server, address(2, 9)).expect("a socket");
    expect([&client, &server], &answering, HELD);
}

#[test]
fn a_link_that_does_not_come_up_is_told_to_the_socket() {
    let (here, _there) = nics();
    let client = Worker::with_nic(here, &config(1)).expect("a worker");
    let asking = UdpSocket::bind(&client, address(1, 9)).expect("a socket");
    asking.send_to(b"x", address(2, 9)).expect("room");
    let (start, mut byte) = (Instant::now(), [0]);
    loop {
        let _ = client.turn_or_sleep().expect("the system waits");
        match asking.recv_from(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => break assert_eq!(error.kind(), ErrorKind::HostUnreachable),
            Ok(_) => panic!("a datagram from nowhere"),
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(start.elapsed() > Duration::from_secs(2), "three questions, a second apart");
}

#[test]
fn datagrams_sent_after_the_peer_went_wait_for_its_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = format!("soft:{}", Path::new(folder.path()).join("link.sock").display());
    let open = |host| Worker::open(&device, &config(host)).expect("a worker");
    let client = open(1);
    let asking = UdpSocket::bind(&client, address(1, 9)).expect("a socket");
    for round in 0..3 {
        let server = open(2);
        let answering = UdpSocket::bind(&server, address(2, 9)).expect("a socket");
        if round == 0 {
            assert_eq!(fill(&asking), HELD);
        }
        expect([&client, &server], &answering, HELD);
        drop((answering, server));
        let gone = |worker: &Worker| {
            let mut gone = 0;
            worker.visit_counters(&mut |layer, name, value| {
                if (layer, name) == ("link", "peers_gone") {
                    gone = value;
                }
            });
            gone
        };
        let start = Instant::now();
        while gone(&client) <= round {
            turn_for(&client, Duration::from_millis(1));
            assert!(start.elapsed() < PATIENCE);
        }
        // The address is known from before, but whoever comes may have another.
        assert_eq!(fill(&asking), HELD, "round {round}");
    }
}
