//! `tap:` with the kernel as the peer, under sets of offloads: what applications wrote is compared
//! at both ends, streams both ways in both families, and datagrams that one end cuts.
//!
//! A plain run takes a covering set, in which each legal pair of settings occurs, named as it runs.
//! `tools/test --all` sets `ROCEWAY_ALL_OFFLOADS=1`: every legal set. Skipped, loudly, without
//! root.

mod kernel_world;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kernel_world::*;
use roceway_runtime::local::UdpSocket;
use roceway_runtime::{OffloadWish, Understood};

/// Every name that can be switched.
const NAMES: [&str; 14] = [
    "csum",
    "guest_csum",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_uso",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_uso4",
    "guest_uso6",
    "mrg_rxbuf",
    "gso",
    "gro",
];
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

/// A legal set: a bit for each name.
#[derive(Clone, Copy)]
struct Set {
    bits: u32,
    wish: OffloadWish,
}

impl Set {
    fn text(self) -> String {
        let on = |place: &usize| self.bits >> place & 1 != 0;
        let names: Vec<&str> = (0..NAMES.len()).filter(on).map(|place| NAMES[place]).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(",") }
    }

    /// The pairs of settings, on or off, that occur in it.
    fn pairs(self) -> impl Iterator<Item = (usize, bool, usize, bool)> {
        let on = move |place: usize| self.bits >> place & 1 != 0;
        (0..NAMES.len()).flat_map(move |a| (0..a).map(move |b| (a, on(a), b, on(b))))
    }
}

fn legal_sets() -> Vec<Set> {
    let understood = |bits: u32| {
        let none = Set { bits, wish: OffloadWish::NONE };
        let parsed = OffloadWish::parse(&none.text(), OffloadWish::NONE);
        parsed.ok().map(|Understood { wish, .. }| Set { bits, wish })
    };
    (0..1 << NAMES.len()).filter_map(understood).collect()
}

/// Few sets in which each pair that any legal set has occurs: always the one that adds most.
fn covering(sets: &[Set]) -> Vec<Set> {
    let mut open: BTreeSet<_> = sets.iter().flat_map(|set| set.pairs()).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let added = |set: &&Set| set.pairs().filter(|pair| open.contains(pair)).count();
        let best = *sets.iter().max_by_key(added).expect("a set");
        let covered: BTreeSet<_> = best.pairs().collect();
        open.retain(|pair| !covered.contains(pair));
        chosen.push(best);
    }
    chosen
}

#[test]
fn each_pair_of_settings_occurs_in_the_covering_set() {
    let sets = legal_sets();
    let few = covering(&sets);
    let all: BTreeSet<_> = sets.iter().flat_map(|set| set.pairs()).collect();
    let covered: BTreeSet<_> = few.iter().flat_map(|set| set.pairs()).collect();
    assert_eq!(all, covered);
    assert!(few.len() <= 20, "{} sets", few.len());
    // What the rules forbid is in neither: a TSO without its checksum.
    assert!(!all.contains(&(2, true, 0, false)));
}

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
        let sets = legal_sets();
        let sets = if all { sets } else { covering(&sets) };
        for (number, set) in sets.iter().enumerate() {
            println!("set {number}: {}", set.text());
            let world = World::tap(",mtu=1500");
            let mut config = World::config();
            config.offloads = set.wish;
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
