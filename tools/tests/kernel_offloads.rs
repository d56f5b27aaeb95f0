//! `tap:` with the kernel as the peer, under sets of offloads: what applications wrote is compared
//! at both ends, streams both ways in both families, and datagrams that one end cuts.
//!
//! A plain run takes a covering set, in which each legal pair of settings occurs, named as it runs.
//! `tools/test --all` sets `ROCEWAY_ALL_OFFLOADS=1`: every legal set. Skipped, loudly, without
//! root.

mod kernel_world;

use std::net::SocketAddr;

use kernel_world::*;
use roceway::offload_sets::{covering, legal};
use roceway_runtime::local::UdpSocket;

/// What must not happen where nothing is lost.
const NEVER: [&str; 6] = [
    "dropped_checksum",
    "header_checksum",
    "dropped_malformed",
    "resets_sent",
    "rx_drop_header",
    "tx_bad_header",
];
/// Bytes of a stream of the covering set, and of every set.
const BYTES: [u64; 2] = [1 << 20, 1 << 17];
const SIZE: u16 = 1111;

/// Datagrams of ours that the device or software cuts, to a socket of the kernel's.
fn segments(world: &World, node: &Node, family: usize) {
    let theirs = world.in_kernel(move || udp(HOST[family]));
    let to = theirs.local_addr().unwrap();
    let ours = UdpSocket::bind(&node.worker, SocketAddr::new(US[family], 0)).unwrap();
    ours.connect(to).unwrap();
    // The neighbour is asked for by the first.
    let sent = node.until("room", || ours.send(b"first")).unwrap();
    let mut out = vec![0; 65_536];
    let reader = theirs.try_clone().unwrap();
    let first = world.kernel(move || reader.recv(&mut out).unwrap());
    assert_eq!(node.join("the first", first), sent);
    let bytes = pattern(0, 20_000);
    let taken = node.until("room", || ours.send_segments(bytes, SIZE)).unwrap();
    let thread = world.kernel(move || {
        let mut out = vec![0; 65_536];
        let mut at = 0;
        while at < taken {
            let count = theirs.recv(&mut out).unwrap();
            assert_eq!(count, usize::from(SIZE).min(taken - at), "a datagram's bounds");
            check(at as u64, &out[..count]);
            at += count;
        }
        at
    });
    assert_eq!(node.join("the datagrams", thread), 20_000);
}

#[test]
fn sets_of_offloads_keep_every_byte_against_the_kernel() {
    in_namespace("sets_of_offloads_keep_every_byte_against_the_kernel", || {
        let all = std::env::var_os("ROCEWAY_ALL_OFFLOADS").is_some_and(|value| value == "1");
        let sets = legal(|_| true);
        let sets = if all { sets } else { covering(&sets) };
        for (number, set) in sets.iter().enumerate() {
            println!("set {number}: {}", set.text());
            let world = World::tap(",mtu=1500");
            let mut config = World::config();
            config.offloads = set.wish;
            // A thread of the kernel's side that ends wakes no worker: seen within 2 ms, not 50.
            config.turn.cold_period_asleep_ns = 2_000_000;
            let node = world.node_with(&config);
            let bytes = BYTES[usize::from(all)];
            for way in [WAYS[number % 4], WAYS[(number + 2) % 4], WAYS[(number + 1) % 4]] {
                bulk(&world, &node, way, bytes);
            }
            segments(&world, &node, number % 2);
            for name in NEVER {
                assert_eq!(node.counter(name), 0, "{}: {}", set.text(), node.state());
            }
        }
    });
}
