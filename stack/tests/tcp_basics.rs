//! Two stacks talk: opening, data, closing, each in both families.

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use roceway_stack::checksum::Sum;
use roceway_stack::frame::{Offloads, Taken};
use roceway_stack::memory::{Memory, Piece};
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, TcpOption, TcpState};
use roceway_stack::time::Duration;
use support::{Faults, Setup, Verdict, Wire, World};

fn both_families(test: impl Fn(Setup)) {
    for v6 in [false, true] {
        test(Setup { v6, ..Setup::default() });
    }
}

#[test]
fn request_and_response() {
    both_families(|setup| {
        let mut world = World::new(setup);
        let (client, server) = world.pair();
        for round in 0..100u8 {
            assert_eq!(world.write(0, client, &[round]), 1);
            world.run_for(Duration::from_micros(30));
            let mut byte = [0];
            assert_eq!(world.read(1, server, &mut byte), Some(1));
            assert_eq!(byte, [round]);
            assert_eq!(world.write(1, server, &[!round]), 1);
            world.run_for(Duration::from_micros(30));
            assert_eq!(world.read(0, client, &mut byte), Some(1));
            assert_eq!(byte, [!round]);
        }
        let predicted = world.hosts[1].stack.tcp().0.counters().predicted;
        if !world.setup.v6 {
            assert!(predicted > 90, "only {predicted} segments were predicted");
        }
        world.check();
    });
}

#[test]
fn segments_of_many_connections_in_turn_are_predicted() {
    let mut world = World::new(Setup::default());
    let listener = world.listen(1, 7);
    let mut pairs = Vec::new();
    for _ in 0..8 {
        let client = world.connect(0, 7);
        world.run_for(Duration::from_millis(1));
        pairs.push((client, world.accept(1, listener).unwrap()));
    }
    for round in 0..50u8 {
        for &(client, server) in &pairs {
            for (from, to, at) in [(client, server, 0), (server, client, 1)] {
                assert_eq!(world.write(at, from, &[round]), 1);
                world.run_for(Duration::from_micros(30));
                let mut byte = [0];
                assert_eq!(world.read(1 - at, to, &mut byte), Some(1));
                assert_eq!(byte, [round]);
            }
        }
    }
    for host in &mut world.hosts {
        let counters = host.stack.tcp().0.counters();
        let (predicted, received) = (counters.predicted, counters.segments_received);
        assert!(predicted * 10 > received * 9, "only {predicted} of {received} were predicted");
    }
    world.check();
}

#[test]
fn both_ends_close() {
    both_families(|setup| {
        let mut world = World::new(setup);
        let (client, server) = world.pair();
        world.write(0, client, b"last words");
        world.close(0, client);
        world.run_for(Duration::from_millis(1));
        let mut out = [0; 32];
        assert_eq!(world.read(1, server, &mut out), Some(10));
        assert_eq!(world.read(1, server, &mut out), Some(0));
        let state = world.hosts[1].stack.tcp().0.info(server).unwrap().state;
        assert_eq!(state, TcpState::CloseWait);
        world.close(1, server);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.hosts[1].stack.tcp().0.connections(), 0);
        assert_eq!(world.hosts[0].stack.tcp().0.connections(), 0);
        assert_eq!(world.hosts[0].stack.tcp().0.time_waits(), 1);
        world.run_for(Duration::from_secs(61));
        assert_eq!(world.hosts[0].stack.tcp().0.time_waits(), 0);
        world.check();
        for host in &world.hosts {
            assert_eq!(host.mem.live_slots(), 0, "slots leaked");
        }
    });
}

/// Moves `total` bytes from host 0 to host 1 and checks each of them.
fn transfer(setup: Setup, total: usize) -> World {
    let seed = setup.seed;
    let mut world = World::new(setup);
    let (client, server) = world.pair();
    let pattern = |at: usize| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ at.to_le_bytes()[2];
    let (mut written, mut read) = (0, 0);
    let mut buffer = vec![0; 100_000];
    let start = world.now;
    while read < total {
        let chunk = (total - written).min(buffer.len());
        let data: Vec<u8> = (written..written + chunk).map(pattern).collect();
        written += world.write(0, client, &data);
        let now = world.now;
        world.step(now + Duration::from_secs(200));
        while let Some(n) = world.read(1, server, &mut buffer) {
            assert!(n > 0, "end of stream at {read} of {total}, seed {seed}");
            for (i, byte) in buffer[..n].iter().enumerate() {
                assert_eq!(*byte, pattern(read + i), "byte {} is wrong, seed {seed}", read + i);
            }
            read += n;
        }
        let alive = world.hosts[0].stack.tcp().0.take_error(client);
        assert_eq!(alive, None, "at {read} of {total}, seed {seed}");
        assert!(
            world.now.since(start) < Duration::from_secs(36_000),
            "stuck at {read} of {total}, seed {seed}: {:?}",
            world.hosts[0].stack.tcp().0.info(client)
        );
    }
    world.close(0, client);
    world.close(1, server);
    world.check_over();
    world
}

#[test]
fn a_megabyte_arrives() {
    both_families(|setup| {
        let world = transfer(setup, 1 << 20);
        assert_eq!(world.lost, 0);
    });
}

#[test]
fn large_segments_arrive() {
    let offloads = Offloads { tx_checksum: true, tso4: true, tso6: true, tso_ecn: true, uso: true };
    both_families(|setup| {
        let world = transfer(Setup { offloads, ..setup }, 8 << 20);
        assert!(world.sent < 2000, "{} frames for 8 MiB", world.sent);
    });
}

#[test]
fn every_fault_together() {
    for seed in 0..40 {
        let faults = Faults { loss: 20, duplication: 20, reordering: 50, corruption: 10 };
        let v6 = seed % 2 == 1;
        transfer(Setup { seed, v6, faults, ..Setup::default() }, 200_000);
    }
}

#[test]
fn computed_checksums_and_a_lagging_device() {
    for seed in 0..10 {
        let faults = Faults { loss: 10, ..Faults::default() };
        let setup = Setup {
            seed,
            faults,
            offloads: Offloads::default(),
            device_lag: Duration::from_micros(200),
            ..Setup::default()
        };
        transfer(setup, 300_000);
    }
}

#[test]
fn a_host_that_is_gone_takes_its_own_connections_with_it_and_no_others() {
    both_families(|setup| {
        let mut world = World::new(setup);
        let (client, server) = world.pair();
        let lose = |world: &mut World, mac: [u8; 6]| {
            let host = &mut world.hosts[0];
            host.stack.on_neighbor_lost(mac, &mut host.mem);
        };
        // Another host on the same link.
        lose(&mut world, [2, 0, 0, 0, 0, 99]);
        assert_eq!(world.write(0, client, b"still here"), 10);
        world.run_for(Duration::from_millis(5));
        let mut out = [0; 32];
        assert_eq!(world.read(1, server, &mut out), Some(10));
        // The one at the other end.
        lose(&mut world, [2, 0, 0, 0, 0, 2]);
        assert_eq!(world.read(0, client, &mut out), None, "it ended with an error");
        assert_eq!(world.write(0, client, b"x"), 0);
        // Whoever comes to its address is asked for anew.
        let again = world.connect(0, 7);
        world.run_for(Duration::from_millis(5));
        let state = world.hosts[0].stack.tcp().0.info(again).unwrap().state;
        assert_eq!(state, TcpState::Established);
        world.check();
    });
}

/// A small write in one frame of one piece, by either of the two short ways out.
fn small_frame(world: &mut World, id: Id<Connection>, data: &[u8], at_once: bool) -> Vec<u8> {
    let now = world.now_at(0);
    let host = &mut world.hosts[0];
    let piece = if at_once {
        host.stack.send_at_once(id, data, now, &mut host.mem)
    } else {
        assert_eq!(host.stack.tcp().0.send(id, data, &mut host.mem), Ok(data.len()));
        host.stack.poll_plain_frame(now, &mut host.mem)
    };
    let piece = piece.expect("a short way");
    host.mem.bytes(piece).to_vec()
}

/// What a device does that completes partial checksums.
fn completed(mut frame: Vec<u8>) -> Vec<u8> {
    let sum = Sum::of(&frame[34..]).checksum();
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Gives the second host a frame for which nobody answers; whether it was taken the short way.
fn takes_unverified(world: &mut World, piece: Piece) -> bool {
    let now = world.now_at(1);
    let peer = &mut world.hosts[1];
    let taken = peer.stack.on_unverified_frame(now, piece, &mut peer.mem);
    if taken != Taken::Kept {
        peer.mem.release(piece.slot);
    }
    taken != Taken::No
}

#[test]
fn a_small_write_has_the_same_checksum_whoever_computes_it() {
    let frames: Vec<Vec<Vec<u8>>> = [false, true]
        .into_iter()
        .map(|tx_checksum| {
            let offloads = Offloads { tx_checksum, ..Offloads::default() };
            let mut world = World::new(Setup { offloads, ..Setup::default() });
            let (client, server) = world.pair();
            let now = world.now;
            world.hosts[0].stack.tcp().0.set_option(client, TcpOption::NoDelay(true), now);
            let mut sent = Vec::new();
            for len in (1..=172).chain([1, 2, 1]) {
                for at_once in [false, true] {
                    let data: Vec<u8> = (0..len).map(|byte: u8| 0xff - byte % 3).collect();
                    let frame = small_frame(&mut world, client, &data, at_once);
                    let frame = if tx_checksum { completed(frame) } else { frame };
                    let piece = world.hosts[1].mem.receive(&frame).expect("a slot");
                    assert!(takes_unverified(&mut world, piece), "{len}");
                    let mut out = [0; 256];
                    assert_eq!(world.read(1, server, &mut out), Some(data.len()));
                    assert_eq!(out[..data.len()], data);
                    world.run_for(Duration::from_millis(100));
                    sent.push(frame);
                }
            }
            sent
        })
        .collect();
    assert_eq!(frames[0], frames[1]);
}

/// Everything that the first host sends of a stream, window by window, in bursts or not.
fn frames_of_a_stream(offloads: Offloads, single: bool) -> Vec<Vec<u8>> {
    let mut world = World::new(Setup { offloads, single, ..Setup::default() });
    let (client, server) = world.pair();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&sent);
    world.filter = Some(Box::new(move |from, wire: &Wire| {
        if from == 0 {
            seen.borrow_mut().push(wire.bytes.clone());
        }
        Verdict::Pass
    }));
    let data: Vec<u8> =
        (0..300_000_u32).map(|at| (at.wrapping_mul(at) >> 5).to_le_bytes()[0]).collect();
    let mut out = vec![0; data.len()];
    let (mut written, mut read) = (0, 0);
    while read < data.len() {
        // Ends that fall into segments, too.
        let end = data.len().min(written + 9_999);
        written += world.write(0, client, &data[written..end]);
        world.run_for(Duration::from_micros(15));
        read += world.read(1, server, &mut out[read..]).unwrap_or(0);
    }
    assert!(out == data, "what arrives is what was sent");
    assert_eq!(world.in_bursts > 100, !single, "{} in bursts", world.in_bursts);
    sent.take()
}

#[test]
fn a_burst_has_the_frames_that_would_leave_one_by_one() {
    for tx_checksum in [false, true] {
        let offloads = Offloads { tx_checksum, ..Offloads::default() };
        let bursts = frames_of_a_stream(offloads, false);
        let single = frames_of_a_stream(offloads, true);
        assert!(single.len() > 207, "{} frames", single.len());
        assert!(bursts == single, "{} frames and {}", bursts.len(), single.len());
    }
}

#[test]
fn a_damaged_small_segment_is_not_taken_on_trust() {
    let mut world = World::new(Setup { offloads: Offloads::default(), ..Setup::default() });
    let (client, server) = world.pair();
    let frame = small_frame(&mut world, client, b"whole", false);
    for place in 34..frame.len() {
        let mut damaged = frame.clone();
        damaged[place] ^= 4;
        let piece = world.hosts[1].mem.receive(&damaged).expect("a slot");
        assert!(!takes_unverified(&mut world, piece), "byte {place}");
    }
    assert_eq!(world.read(1, server, &mut [0; 8]), None);
    let piece = world.hosts[1].mem.receive(&frame).expect("a slot");
    assert!(takes_unverified(&mut world, piece), "undamaged");
    assert_eq!(world.read(1, server, &mut [0; 8]), Some(5));
}
