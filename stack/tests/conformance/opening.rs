//! Opening: RFC 9293 §3.5, §3.10.7.1 to §3.10.7.3; RFC 6528, RFC 6056, RFC 1122.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use roceway_stack::tcp::{ConnectionError, ReceiveError, TcpState};
use roceway_stack::time::Duration;

use crate::support::script::{PORT, Script, seg};
use crate::support::{Setup, World};

#[test]
fn rfc9293_3_5_passive_open() {
    let (mut script, id) = Script::established();
    assert_eq!(script.state(id), TcpState::Established);
}

#[test]
fn rfc9293_3_5_active_open() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    script.send(seg("SA", 0, 1).mss(1000));
    script.expect("A", 1, 1);
    assert_eq!(script.state(id), TcpState::Established);
}

#[test]
fn must_10_figure_7_simultaneous_open() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    script.send(seg("S", 0, 0).mss(1000));
    script.expect("SA", 0, 1);
    assert_eq!(script.state(id), TcpState::SynReceived);
    script.send(seg("SA", 0, 1).mss(1000));
    assert_eq!(script.state(id), TcpState::Established);
    for answer in script.drain() {
        assert_eq!(answer.flags, "A", "no second SYN");
    }
    script.send(seg("PA", 1, 1).data(b"hello"));
    assert_eq!(script.read(id).unwrap(), b"hello");
}

#[test]
fn rfc9293_3_5_simultaneous_open_ended_by_a_bare_ack() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    script.send(seg("S", 0, 0).mss(1000));
    script.expect("SA", 0, 1);
    script.send(seg("A", 1, 1));
    assert_eq!(script.state(id), TcpState::Established);
}

#[test]
fn rfc9293_3_5_two_stacks_open_at_once() {
    for v6 in [false, true] {
        let mut world = World::new(Setup { v6, ..Setup::default() });
        let ids: Vec<_> = (0..2)
            .map(|host| {
                let local = SocketAddr::new(world.hosts[host].address, 5000);
                let remote = SocketAddr::new(world.hosts[1 - host].address, 5000);
                let now = world.now;
                let it = &mut world.hosts[host];
                let (tcp, ip) = it.stack.tcp();
                tcp.connect(remote, Some(local), (now, ip)).unwrap()
            })
            .collect();
        world.run_for(Duration::from_millis(100));
        assert!(world.sent < 40, "{} frames to open", world.sent);
        for (host, id) in ids.iter().enumerate() {
            let info = world.hosts[host].stack.tcp().0.info(*id).unwrap();
            assert_eq!(info.state, TcpState::Established);
        }
        world.write(0, ids[0], b"both");
        world.run_for(Duration::from_millis(1));
        let mut out = [0; 8];
        assert_eq!(world.read(1, ids[1], &mut out), Some(4));
    }
}

#[test]
fn rfc9293_3_10_7_1_closed_answers_with_a_reset() {
    let rows = [
        (seg("S", 0, 0), "RA", 0, 1),
        (seg("A", 0, 77), "R", 77, 0),
        (seg("FA", 5, 77), "R", 77, 0),
        (seg("F", 5, 0), "RA", 0, 6),
        (seg("", 5, 0).bytes(10), "RA", 0, 15),
    ];
    for (segment, flags, seq, ack) in rows {
        let mut script = Script::new(Setup::default());
        script.local_port = 81;
        script.iss = Some(0);
        script.send(segment.clone());
        let reset = script.expect_reset();
        assert_eq!((reset.flags.as_str(), reset.seq), (flags, seq), "{segment:?}");
        if flags == "RA" {
            assert_eq!(reset.ack, ack, "{segment:?}");
        }
        script.send(seg("R", 5, 0));
        script.nothing();
    }
}

#[test]
fn rfc9293_3_10_7_2_listen() {
    let mut script = Script::new(Setup::default());
    script.iss = Some(0);
    script.send(seg("R", 0, 0));
    script.nothing();
    script.send(seg("A", 0, 9));
    assert_eq!(script.expect_reset().seq, 9);
    script.send(seg("F", 0, 0));
    script.nothing();
    script.send(seg("SF", 0, 0));
    script.nothing();
    script.send(seg("SA", 0, 9));
    assert_eq!(script.expect_reset().seq, 9);
}

#[test]
fn rfc9293_3_10_7_3_syn_sent() {
    let open = || Script::syn_sent(Setup::default());
    // An ACK of what was not sent is answered by a reset; with RST it is nothing.
    let (mut script, id, _) = open();
    script.send(seg("A", 0, 2));
    assert_eq!(script.expect_reset().seq, 2);
    script.send(seg("SA", 0, 0));
    assert_eq!(script.expect_reset().seq, 0);
    script.send(seg("RA", 0, 7));
    script.nothing();
    // RST without ACK means nothing (RFC 9293 §3.10.7.3, second).
    script.send(seg("R", 0, 0));
    assert_eq!(script.state(id), TcpState::SynSent);
    // Neither SYN nor RST: dropped.
    script.send(seg("A", 0, 1));
    script.nothing();
    assert_eq!(script.state(id), TcpState::SynSent);
    // With an acceptable ACK the peer refuses.
    script.send(seg("RA", 0, 1));
    assert_eq!(
        script.read(id),
        Err(ReceiveError::Connection(ConnectionError::Refused)),
        "connection refused"
    );
}

#[test]
fn rfc9293_3_10_7_4_a_syn_again_is_answered_again() {
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0).mss(1000));
    script.expect("SA", 0, 1);
    script.send(seg("S", 0, 0).mss(1000));
    script.expect("SA", 0, 1);
    script.send(seg("A", 1, 1));
    assert!(script.world.accept(0, script.listener).is_some());
}

#[test]
fn rfc9293_3_10_7_4_syn_received_wants_the_right_ack() {
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1);
    for wrong in [0, 2, 1000] {
        script.send(seg("A", 1, wrong));
        assert_eq!(script.expect_reset().seq, wrong);
    }
    script.send(seg("A", 1, 1));
    assert!(script.world.accept(0, script.listener).is_some());
}

#[test]
fn rfc9293_3_10_7_4_data_and_fin_with_the_handshakes_ack() {
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1);
    script.send(seg("FA", 1, 1).data(b"all at once"));
    let id = script.world.accept(0, script.listener).unwrap();
    script.expect("A", 1, 13);
    assert_eq!(script.read(id).unwrap(), b"all at once");
    assert_eq!(script.read(id).unwrap(), b"");
    assert_eq!(script.state(id), TcpState::CloseWait);
}

#[test]
fn must_14_an_mss_option_is_sent() {
    for (v6, mtu, mss) in [(false, 1500, 1460), (true, 1500, 1440), (false, 9000, 8960)] {
        let (_, _, syn) = Script::syn_sent(Setup { v6, mtu, ..Setup::default() });
        assert_eq!(syn.options.mss, Some(mss), "MUST-67: the MTU without fixed headers");
        let mut script = Script::new(Setup { v6, mtu, ..Setup::default() });
        script.send(seg("S", 0, 0));
        assert_eq!(script.next().options.mss, Some(mss));
    }
}

#[test]
fn must_15_the_default_mss() {
    for (v6, mss) in [(false, 536), (true, 1220)] {
        let setup = Setup { v6, ..Setup::default() };
        let (mut script, id) = Script::established_with(setup, seg("S", 0, 0));
        script.write(id, &[0; 3000]);
        script.expect_data(1, mss);
        script.expect_data(1 + u32::try_from(mss).unwrap(), mss);
    }
}

#[test]
fn must_16_never_more_than_the_peers_mss() {
    for mss in [88, 536, 1000, 1460, 9000] {
        let (mut script, id) = Script::established_with(Setup::default(), seg("S", 0, 0).mss(mss));
        script.write(id, &[0; 9000]);
        let longest = script.drain().iter().map(|it| it.data.len()).max().unwrap();
        assert_eq!(longest, usize::from(mss.min(1460)), "nor than our own path takes");
    }
}

#[test]
fn must_16_timestamps_take_room_from_the_segment() {
    let syn = seg("S", 0, 0).mss(1000).ts(1, 0);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.write(id, &[0; 3000]);
    script.expect_data(1, 988);
}

#[test]
fn must_46_57_63_no_connection_to_or_from_a_group() {
    let mut script = Script::new(Setup::default());
    let now = script.now();
    for address in ["224.0.0.1:80", "255.255.255.255:80", "10.0.0.255:80", "0.0.0.0:80"] {
        let host = script.host();
        let (tcp, ip) = host.stack.tcp();
        let to = address.parse().unwrap();
        assert!(tcp.connect(to, None, (now, ip)).is_err(), "{address}");
    }
    let syn = script.tcp_bytes(&seg("S", 0, 0));
    for from in ["224.0.0.1", "255.255.255.255", "10.0.0.255", "127.0.0.1", "0.0.0.0"] {
        let ours = script.world.hosts[0].address;
        let frame = crate::support::script::packet(from.parse().unwrap(), ours, (6, 64), &syn);
        script.deliver(frame);
        script.nothing();
    }
}

#[test]
fn land_a_syn_from_ourselves_is_dropped() {
    let mut script = Script::new(Setup::default());
    script.peer = script.world.hosts[0].address;
    script.peer_port = PORT;
    script.send(seg("S", 0, 0));
    script.nothing();
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
}

#[test]
fn rfc6528_initial_numbers_follow_the_clock_and_hide_their_offset() {
    let mut script = Script::new(Setup::default());
    let mut seen = BTreeSet::new();
    for port in 1000..1064 {
        script.peer_port = port;
        script.send(seg("S", 0, 0));
        seen.insert(script.next().raw_seq);
    }
    assert_eq!(seen.len(), 64, "each pair of ends has its own");
    let values: Vec<u32> = seen.into_iter().collect();
    let close = values.windows(2).filter(|it| it[1] - it[0] < 1 << 16).count();
    assert!(close < 8, "they are spread over the space");
    // The same ends a second later: the clock has moved by 4 microseconds a tick.
    let first = {
        let mut script = Script::new(Setup::default());
        script.send(seg("S", 0, 0));
        script.next().raw_seq
    };
    let mut later = Script::new(Setup::default());
    later.wait(Duration::from_secs(1));
    later.send(seg("S", 0, 0));
    let moved = later.next().raw_seq.wrapping_sub(first);
    assert!(moved.abs_diff(1_000_000_000 >> 12) <= 1, "a tick each 4.096 microseconds: {moved}");
}

#[test]
fn rfc6056_ports_differ_and_lie_in_the_range() {
    let mut script = Script::new(Setup::default());
    let mut ports = BTreeSet::new();
    for n in 0..200_u16 {
        let remote = SocketAddr::new(script.peer, 1 + n % 3);
        let now = script.now();
        let host = script.host();
        let (tcp, ip) = host.stack.tcp();
        tcp.connect(remote, None, (now, ip)).unwrap();
        script.pump();
        let (port, _) = script.next().ports;
        assert!((32_768..=60_999).contains(&port));
        ports.insert(port);
    }
    assert!(ports.len() > 190);
}

#[test]
fn the_backlog_limits_what_is_half_open_or_waits() {
    let mut script = Script::new(Setup::default());
    for port in 0..200 {
        script.peer_port = 1000 + port;
        script.send(seg("S", 0, 0));
    }
    assert_eq!(script.drain().len(), 128);
    assert_eq!(script.host().stack.tcp().0.counters().dropped_backlog, 72);
    // Those that never answer are forgotten, and the listener takes others.
    script.wait(Duration::from_secs(400));
    script.drain();
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
    script.peer_port = 5000;
    script.iss = None;
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1);
    script.world.check();
}

#[test]
fn a_flood_from_hosts_that_do_not_exist_ends() {
    let mut script = Script::new(Setup::default());
    script.hide_peer();
    for port in 0..200 {
        script.peer_port = 1000 + port;
        script.send(seg("S", 0, 0));
    }
    assert_eq!(script.host().stack.tcp().0.connections(), 128);
    script.wait(Duration::from_secs(200));
    script.nothing();
    assert_eq!(script.host().stack.tcp().0.connections(), 0, "nobody is there to wait for");
}

#[test]
fn must_23_a_syn_is_tried_for_three_minutes() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    script.wait(Duration::from_secs(170));
    assert_eq!(script.state(id), TcpState::SynSent);
    let times = script.drain().len();
    assert!((5..=9).contains(&times), "{times} SYNs in three minutes");
    script.wait(Duration::from_secs(90));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::TimedOut)));
    script.drain();
    script.nothing();
}

#[test]
fn rfc6298_5_7_a_lost_syn_leaves_three_seconds_and_one_segment() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    script.wait(Duration::from_millis(1100));
    script.expect("S", 0, 0u32.wrapping_sub(script.peer_iss));
    script.send(seg("SA", 0, 1).mss(1000));
    script.expect("A", 1, 1);
    let info = script.host().stack.tcp().0.info(id).unwrap();
    assert_eq!(info.rto, Duration::from_secs(3));
    assert_eq!(info.cwnd, 1000, "RFC 5681 §3.1");
}
