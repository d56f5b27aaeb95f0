//! The bridge between two soft links: single frames, TCP between two workers, and a side that takes
//! nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use roceway_runtime::WorkerConfig;
use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};

use super::super::addresses::SETTLED_NS;
use super::super::beacon::HOLD_NS;
use super::*;

const LIMITS: Limits = Limits { addresses: 8, age_ns: 300_000_000_000 };
const MILLI: u64 = 1_000_000;
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const ALL: Mac = [0xff; 6];

/// A bridge, and the other ends of its links.
struct World {
    bridge: Bridge,
    ends: [Side; 2],
    now: u64,
}

fn links(options: [SoftOptions; 2]) -> [(AnyNic, AnyNic); 2] {
    options.map(|options| {
        let (own, far) = SoftNic::pair(&options).unwrap();
        (own.into(), far.into())
    })
}

impl World {
    fn new(id: u64) -> World {
        let [(wire, a), (host, b)] = links([SoftOptions::default(), SoftOptions::default()]);
        let sides = [wire, host].map(|nic| Side::new(nic).unwrap());
        let [wire, host] = sides;
        let ends = [a, b].map(|nic| Side::new(nic).unwrap());
        let mut world = World { bridge: Bridge::new(wire, host, &LIMITS, id), ends, now: MILLI };
        for _ in 0..100 {
            world.pass(MILLI);
        }
        world.take(Which::Wire);
        world.take(Which::Host);
        world
    }

    /// Some time, with a turn of the bridge in it.
    fn pass(&mut self, ns: u64) {
        self.now += ns;
        for end in &mut self.ends {
            end.interface.nic_mut().maintain(self.now).unwrap();
            end.interface.reap();
            end.interface.refill();
        }
        self.turn();
        self.bridge.cold(self.now);
        assert!(self.bridge.conserves());
    }

    fn turn(&mut self) {
        let _done = self.bridge.receive(self.now, 64);
        self.bridge.doorbell();
        let _done = self.bridge.after(self.now, 64);
    }

    /// An end sends a frame of so many bytes; the bridge turns.
    fn send(&mut self, from: Which, (to, source): (Mac, Mac), length: usize) {
        let mut frame = vec![0; length.max(12)];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&source);
        self.send_bytes(from, &frame[..length]);
    }

    fn send_bytes(&mut self, from: Which, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        let end = &mut self.ends[from as usize];
        assert_eq!(end.send(length, NetHeader::default(), [frame].into_iter()), Sent::Yes);
        end.doorbell();
        self.turn();
        self.turn();
    }

    /// Frames but beacons that came to an end.
    fn take(&mut self, at: Which) -> Vec<Vec<u8>> {
        let interface = &mut self.ends[at as usize].interface;
        let (mut frame, mut all) = (Received::default(), Vec::new());
        while interface.receive(&mut frame) {
            let mut bytes = Vec::new();
            for piece in frame.pieces.drain(..) {
                bytes.extend_from_slice(interface.memory().piece(piece));
                interface.memory().release(piece.slot);
            }
            if Beacons::read(&bytes).is_none() {
                all.push(bytes);
            }
        }
        interface.refill();
        all
    }

    fn counters(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut all = BTreeMap::new();
        self.bridge.visit_counters(&mut |layer, name, value| {
            all.insert((layer, name), value);
        });
        all
    }
}

#[test]
fn frames_go_to_the_other_side_once_and_never_back() {
    let mut world = World::new(1);
    world.send(Which::Wire, (ALL, A), 60);
    assert_eq!(world.take(Which::Host).len(), 1);
    world.send(Which::Host, (A, B), 1514);
    assert_eq!(world.take(Which::Wire)[0].len(), 1514);
    // A neighbour on the wire's side: its frames to A are none of the gateway's business.
    world.send(Which::Wire, (A, [2, 0, 0, 0, 0, 0xc]), 60);
    world.send(Which::Wire, ([2, 0, 0, 0, 0, 0xd], A), 60);
    assert_eq!((world.take(Which::Host).len(), world.take(Which::Wire).len()), (1, 0));
    let counters = world.counters();
    assert_eq!(counters[&("wire", "drop_local")], 1);
    assert_eq!(counters[&("wire", "flooded")], 2);
    assert_eq!(counters[&("host", "flooded")], 0);
    assert_eq!(counters[&("gateway", "addresses")], 3);
}

#[test]
fn frames_that_nobody_may_send_are_dropped_and_counted() {
    let mut world = World::new(1);
    world.send(Which::Wire, (B, A), 14);
    world.send(Which::Host, (ALL, A), 60);
    world.send(Which::Host, (ALL, ALL), 60);
    world.send(Which::Host, (ALL, [0; 6]), 60);
    assert_eq!((world.take(Which::Wire).len(), world.take(Which::Host).len()), (0, 1));
    let counters = world.counters();
    assert_eq!(counters[&("host", "drop_elsewhere")], 1, "A is on the wire");
    assert_eq!(counters[&("host", "drop_source")], 2);
    // When it was quiet for a while it may have moved.
    world.pass(SETTLED_NS);
    world.send(Which::Host, (ALL, A), 60);
    assert_eq!(world.take(Which::Wire).len(), 1);
    assert_eq!(world.counters()[&("gateway", "addresses_moved")], 1);
}

#[test]
fn more_addresses_than_there_is_room_for_still_pass() {
    let mut world = World::new(1);
    for host in 0..20 {
        world.send(Which::Host, (ALL, [2, 0, 0, 0, 1, host]), 60);
    }
    assert_eq!(world.take(Which::Wire).len(), 20);
    assert_eq!(world.counters()[&("gateway", "addresses")], 8);
    assert_eq!(world.counters()[&("host", "unlearned")], 12);
}

#[test]
fn a_gateway_stands_by_for_another_one_and_takes_over() {
    let mut world = World::new(5);
    let first = Beacons::new(4).frame();
    world.send_bytes(Which::Wire, &first);
    world.send(Which::Wire, (ALL, A), 60);
    assert_eq!(world.take(Which::Host).len(), 1, "it joins other networks");
    world.send_bytes(Which::Host, &first);
    assert_eq!(world.bridge.standing(), Standing::StandsBy);
    world.send(Which::Wire, (ALL, A), 60);
    assert_eq!(world.take(Which::Host).len(), 0);
    assert_eq!(world.counters()[&("wire", "drop_standing_by")], 1);
    world.pass(HOLD_NS);
    world.send(Which::Wire, (ALL, A), 60);
    assert_eq!(world.take(Which::Host).len(), 1);
    // Its own beacon comes back: others made a loop.
    let own = Beacons::new(5).frame();
    world.send_bytes(Which::Host, &own);
    assert_eq!(world.bridge.standing(), Standing::Loops);
    let counters = world.counters();
    assert_eq!((counters[&("wire", "beacons")], counters[&("host", "beacons")]), (1, 2));
}

#[test]
fn a_side_that_takes_nothing_holds_the_other_up_for_a_bounded_time_only() {
    let mut world = World::new(1);
    // The host's end posts no receives any more: what it was sent stays where it is.
    let mut sent = 0_u64;
    while world.counters()[&("wire", "waited")] == 0 {
        let end = &mut world.ends[0];
        let frame = [ALL.as_slice(), &A, &[0; 1400]].concat();
        let length = u32::try_from(frame.len()).unwrap();
        if end.send(length, NetHeader::default(), [&frame[..]].into_iter()) == Sent::Yes {
            sent += 1;
        }
        end.doorbell();
        end.interface.reap();
        world.turn();
        assert!(sent < 10_000, "there is room for ever");
    }
    assert_eq!(world.counters()[&("wire", "waiting")], 1);
    assert!(world.bridge.conserves() && world.bridge.ready());
    // The other direction goes on.
    world.send(Which::Host, (A, B), 60);
    world.ends[0].interface.reap();
    assert_eq!(world.take(Which::Wire).len(), 1);
    // After its time the frame is lost, and the next one waits.
    world.now += ROOM_NS_MAX;
    world.turn();
    assert!(world.counters()[&("wire", "drop_no_room")] >= 1);
    assert!(world.bridge.conserves());
    // And with room again everything moves.
    for _ in 0..200 {
        world.take(Which::Host);
        world.pass(MILLI);
    }
    assert_eq!(world.counters()[&("wire", "waiting")], 0);
    world.send(Which::Wire, (B, A), 60);
    assert_eq!(world.take(Which::Host).len(), 1);
}

/// A client behind one side and a server behind the other, with a gateway between them.
struct Joint {
    bridge: Bridge,
    workers: [Worker; 2],
    turning: roceway_busypoll::Loop,
}

impl Joint {
    fn new(options: [SoftOptions; 2]) -> Joint {
        let [(wire, a), (host, b)] = links(options);
        let [wire, host] = [wire, host].map(|nic| Side::new(nic).unwrap());
        let workers = [(a, "10.3.0.1/24"), (b, "10.3.0.2/24")].map(|(nic, address)| {
            Worker::with_nic(nic, &WorkerConfig::new(address.parse().unwrap())).unwrap()
        });
        let turning = roceway_busypoll::Loop::new(roceway_busypoll::Limits::default());
        Joint { bridge: Bridge::new(wire, host, &LIMITS, 1), workers, turning }
    }

    fn until<T>(&mut self, mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done.unwrap(),
            }
            assert!(Instant::now() < limit, "nothing moves");
            for worker in &self.workers {
                worker.turn();
            }
            self.turning.turn(&mut self.bridge);
        }
    }
}

#[test]
fn tcp_crosses_between_sides_of_unlike_ability() {
    let plain = || SoftOptions { large: false, ..SoftOptions::default() };
    let poor = || SoftOptions { large: false, csum: false, ..SoftOptions::default() };
    let rows = [
        ("both large", [SoftOptions::default(), SoftOptions::default()]),
        ("one large", [SoftOptions::default(), plain()]),
        ("no checksums", [SoftOptions::default(), poor()]),
        ("neither", [poor(), poor()]),
    ];
    for (name, options) in rows {
        let mut joint = Joint::new(options);
        let [client, server] = joint.workers.clone();
        let listener = TcpListener::bind(&server, "10.3.0.2:80".parse().unwrap()).unwrap();
        let ours = TcpStream::connect(&client, "10.3.0.2:80".parse().unwrap()).unwrap();
        let (theirs, _) = joint.until(|| listener.accept());
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            let bytes: Vec<u8> =
                (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let (mut sent, mut got) = (0, Vec::new());
            let mut chunk = vec![0; 1 << 16];
            joint.until(|| {
                if sent < bytes.len()
                    && let Ok(count) = from.write(&bytes[sent..])
                {
                    sent += count;
                }
                if let Ok(count) = to.read(&mut chunk) {
                    got.extend_from_slice(&chunk[..count]);
                }
                if got.len() < bytes.len() { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            assert!(got == bytes, "{name}: other bytes");
        }
        assert!(joint.bridge.conserves(), "{name}");
        let mut segments = 0;
        joint.bridge.visit_counters(&mut |_, counter, value| {
            segments += if counter == "segments" { value } else { 0 };
            assert!(!counter.starts_with("drop_") || value == 0, "{name}: {counter}={value}");
        });
        assert_eq!(segments > 0, name != "neither", "{name}: {segments}");
    }
}
