//! Frames that nobody honest sends, before a live connection: it survives, and nothing leaks.

use proptest::prelude::*;
use roceway_stack::heap_memory::HeapLimits;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, TcpConfig, TcpState};
use roceway_stack::time::Duration;

use crate::support::script::{Script, seg};
use crate::support::{Faults, Random, Setup, World};

/// The connection still works: bytes go both ways.
fn works(script: &mut Script, id: Id<Connection>, (peer, ours): (u32, u32)) {
    script.drain();
    let _unread = script.read(id);
    script.send(seg("PA", peer, ours).data(b"still"));
    assert_eq!(script.read(id).unwrap(), b"still");
    script.write(id, b"here");
    let sent = script.drain();
    assert!(sent.iter().any(|it| it.data == b"here"), "{sent:?}");
    script.world.check();
}

#[test]
fn christmas_trees_do_no_harm() {
    for flags in ["SFRPAU", "SFPAU", "SFRP", "FRPU", "SR", "SRA", "SFU", "FPU"] {
        let (mut script, id) = Script::established();
        for seq in [0, 2, 500, 1 << 20, 1 << 31] {
            script.send(seg(flags, seq, 1).urgent(7).bytes(3));
            script.send(seg(flags, seq, 0).urgent(7));
        }
        assert_eq!(script.state(id), TcpState::Established, "{flags}");
        works(&mut script, id, (1, 1));
        let mut listening = Script::new(Setup::default());
        listening.iss = Some(0);
        listening.send(seg(flags, 1, 1).urgent(7).bytes(3));
        assert_eq!(listening.host().stack.tcp().0.connections(), 0, "{flags} opens nothing");
    }
}

#[test]
fn frames_cut_at_every_byte_do_no_harm() {
    let (mut script, id) = Script::established();
    let frame = script.frame(&seg("PA", 1, 1).ts(1, 2).bytes(40));
    for len in 1..frame.len() {
        script.deliver(frame[..len].to_vec());
    }
    works(&mut script, id, (1, 1));
}

#[test]
fn a_segment_larger_than_the_announced_mss_is_taken_up_to_the_window() {
    // RFC 9293 §3.8.4: the MSS asks, the window bounds.
    let tcp = TcpConfig { receive_buffer: 8192, ..TcpConfig::default() };
    let setup = Setup { tcp, ..Setup::default() };
    let (mut script, id) = Script::established_with(setup, seg("S", 0, 0).mss(1000));
    let data: Vec<u8> = (0..30_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
    script.send(seg("PA", 1, 1).data(&data[..4000]));
    assert_eq!(script.read(id).unwrap(), data[..4000]);
    let window = usize::from(script.drain().last().expect("an acknowledgement").window);
    assert!((4000..=8192).contains(&window), "{window}");
    script.send(seg("PA", 4001, 1).data(&data[4000..]));
    let acknowledged = script.drain().last().expect("an answer").ack;
    let taken = script.read(id).unwrap_or_default();
    assert_eq!(taken.len(), window, "all that the window lets in, and no more");
    assert_eq!(taken, data[4000..4000 + taken.len()]);
    let next = 4001 + u32::try_from(taken.len()).unwrap();
    assert_eq!(acknowledged, next);
    works(&mut script, id, (next, 1));
}

#[test]
fn overlapping_segments_keep_what_came_first() {
    let (mut script, id) = Script::established();
    script.send(seg("A", 6, 1).data(b"FGHIJ"));
    script.send(seg("A", 4, 1).data(b"defghijklm"));
    script.send(seg("A", 2, 1).data(b"bcd"));
    script.send(seg("A", 1, 1).data(b"a"));
    let read = script.read(id).unwrap();
    assert_eq!(read.to_ascii_lowercase(), b"abcdefghijklm");
    assert_eq!(&read[5..10], b"FGHIJ");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any bytes as a frame, any bytes as a TCP segment, any change of a good segment: with their
    /// checksums right, so that they are looked at.
    #[test]
    fn random_frames_do_no_harm(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let syn = seg("S", 0, 0).mss(1000).sack_permitted().scale(4);
        let (mut script, id) = Script::established_with(Setup::default(), syn);
        script.write(id, b"in flight");
        for _ in 0..40 {
            let junk: Vec<u8> =
                (0..random.index(100)).map(|_| random.next().to_le_bytes()[0]).collect();
            let frame = match random.below(4) {
                0 => [script.frame(&seg("A", 1, 1))[..12].to_vec(), junk].concat(),
                1 => {
                    let protocol = random.of(&[1, 6, 17, 58, 99]);
                    script.ip(protocol, 64, &junk)
                }
                2 => {
                    let mut frame = script.frame(&seg("PA", 1, 1).bytes(random.index(50)));
                    let at = random.index(frame.len());
                    frame[at] = random.next().to_le_bytes()[0];
                    frame
                }
                _ => {
                    // Without RST, FIN and SYN the connection must live on.
                    let flags = random.of(&["A", "PA", "UA", "", "U", "P"]);
                    let seq = u32::from_le_bytes(random.next().to_le_bytes()[..4].try_into()?);
                    let ack = u32::from_le_bytes(random.next().to_le_bytes()[..4].try_into()?);
                    let near = random.chance(500);
                    let (seq, ack) = if near { (seq % 5000, ack % 20) } else { (seq, ack) };
                    script.frame(&seg(flags, seq.max(2), ack).option(&junk[..junk.len().min(40)]))
                }
            };
            script.deliver(frame);
        }
        prop_assert_eq!(script.state(id), TcpState::Established);
        script.world.check();
        let host = script.host();
        host.stack.tcp().0.abort(id, &mut host.mem);
        script.wait(Duration::from_secs(600));
        script.drain();
        prop_assert_eq!(script.host().mem.live_slots(), 0);
    }
}

#[test]
fn a_syn_flood_leaves_other_connections_alone() {
    let (mut script, id) = Script::established();
    for n in 0..20_000_u32 {
        script.peer_port = u16::try_from(1 + n % 39_000).unwrap();
        script.send(seg("S", n, 0));
    }
    assert!(script.host().stack.tcp().0.connections() <= 129);
    script.peer_port = crate::support::script::PEER_PORT;
    script.drain();
    let tcp = script.host().stack.tcp().0;
    assert_eq!(tcp.info(id).unwrap().state, TcpState::Established);
    script.world.check();
}

fn connect_ten_thousand(world: &mut World) -> Vec<Id<Connection>> {
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        idle.push(world.connect(0, 8));
        if idle.len() % 100 == 0 {
            world.run_for(Duration::from_millis(50));
        }
    }
    world.run_for(Duration::from_secs(1));
    idle
}

#[test]
fn ten_thousand_connections_with_a_byte_each_leave_room_for_a_stream() {
    let setup = Setup {
        tcp: TcpConfig { receive_buffer: 65_535, ..TcpConfig::default() },
        memory: HeapLimits {
            // The sender of those bytes holds them all.
            small: 60_000,
            chunks: 30_000,
            receive: 2048,
            receive_low: 256,
            ..HeapLimits::default()
        },
        faults: Faults::default(),
        ..Setup::default()
    };
    let mut world = World::new(setup);
    let (client, server) = world.pair();
    let address = world.hosts[1].address;
    let listener = {
        let (tcp, ip) = world.hosts[1].stack.tcp();
        tcp.listen((address, 8).into(), 20_000, ip).unwrap()
    };
    let idle = connect_ten_thousand(&mut world);
    let mut accepted = Vec::new();
    while let Some(id) = world.accept(1, listener) {
        accepted.push(id);
    }
    assert_eq!(accepted.len(), 10_000);
    // Each sends three bytes in three segments, the second of which is lost, now and always.
    world.filter = Some(Box::new(|from, wire| {
        let lost = from == 0 && wire.bytes.len() == 67 && wire.bytes[66] == b'2';
        if lost { crate::support::Verdict::Drop } else { crate::support::Verdict::Pass }
    }));
    for (n, id) in idle.iter().enumerate() {
        let now = world.now;
        let option = roceway_stack::tcp::TcpOption::NoDelay(true);
        world.hosts[0].stack.tcp().0.set_option(*id, option, now);
        for byte in [b"1", b"2", b"3"] {
            world.write(0, *id, byte);
            world.transmit();
        }
        if n % 50 == 0 {
            world.run_for(Duration::from_micros(50));
        }
    }
    world.run_for(Duration::from_millis(10));
    let overrun = world.overrun;
    let (mut written, mut read) = (0, 0);
    let started = world.now;
    let mut buffer = vec![0; 65_536];
    while read < 20_000_000 {
        written += world.write(0, client, &buffer);
        let soon = world.now + Duration::from_micros(100);
        world.step(soon);
        assert!(soon.since(started) < Duration::from_secs(10), "stuck at {read}");
        while let Some(n) = world.read(1, server, &mut buffer) {
            read += n;
        }
    }
    assert!(written >= read);
    let took = world.now.since(started);
    assert!(took < Duration::from_secs(1), "20 MB took {took:?} at a window of 64 KiB");
    assert_eq!(world.overrun, overrun, "no frame of the stream was without a slot");
    world.check();
}
