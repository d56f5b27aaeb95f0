//! Closing: RFC 9293 §3.6, §3.10.4; TIME-WAIT with RFC 6191 and RFC 1337.

use roceway_stack::tcp::{ConnectError, ReceiveError, SendError, TcpState};
use roceway_stack::time::Duration;

use crate::support::Setup;
use crate::support::script::{PEER_TS, Script, seg};

#[test]
fn rfc9293_3_6_the_peer_closes_first() {
    let (mut script, id) = Script::established();
    script.send(seg("FA", 1, 1));
    script.expect("A", 1, 2);
    assert_eq!(script.state(id), TcpState::CloseWait);
    assert_eq!(script.read(id).unwrap(), b"");
    // Half-closed: we may still send (RFC 9293 §3.6, SHLD-3 is about telling the application).
    script.write(id, b"still here");
    script.expect_data(1, 10);
    script.send(seg("A", 2, 11));
    script.close(id);
    script.expect("FA", 11, 2);
    script.send(seg("A", 2, 12));
    assert_eq!(script.host().stack.tcp().0.connections(), 0, "no TIME-WAIT on this side");
}

#[test]
fn rfc9293_3_6_we_close_first_and_still_receive() {
    let (mut script, id) = Script::established();
    script.shutdown(id);
    script.expect("FA", 1, 1);
    assert_eq!(script.state(id), TcpState::FinWait1);
    let host = script.host();
    assert_eq!(host.stack.tcp().0.send(id, b"late", &mut host.mem), Err(SendError::BrokenPipe));
    script.send(seg("A", 1, 2));
    assert_eq!(script.state(id), TcpState::FinWait2);
    script.send(seg("PA", 1, 2).data(b"half-closed"));
    assert_eq!(script.read(id).unwrap(), b"half-closed");
    script.send(seg("FA", 12, 2));
    assert_eq!(script.state(id), TcpState::TimeWait);
    assert_eq!(script.read(id).unwrap(), b"");
    script.drain();
    script.wait(Duration::from_secs(61));
    assert_eq!(script.state(id), TcpState::Closed, "MUST-13: 2 MSL");
}

#[test]
fn rfc9293_3_6_figure_13_simultaneous_close() {
    let (mut script, id) = Script::established();
    script.shutdown(id);
    script.expect("FA", 1, 1);
    script.send(seg("FA", 1, 1));
    script.expect("A", 2, 2);
    assert_eq!(script.state(id), TcpState::Closing);
    script.send(seg("A", 2, 2));
    assert_eq!(script.state(id), TcpState::TimeWait);
}

#[test]
fn rfc9293_3_10_7_4_fin_and_its_ack_in_one_segment() {
    let (mut script, id) = Script::established();
    script.shutdown(id);
    script.expect("FA", 1, 1);
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2);
    assert_eq!(script.state(id), TcpState::TimeWait);
}

#[test]
fn a_fin_ahead_of_a_gap_waits_for_it() {
    let (mut script, id) = Script::established();
    script.send(seg("FA", 6, 1).data(b"world"));
    script.expect("A", 1, 1);
    assert_eq!(script.state(id), TcpState::Established);
    script.send(seg("A", 1, 1).data(b"hello"));
    script.expect("A", 1, 12);
    assert_eq!(script.read(id).unwrap(), b"helloworld");
    assert_eq!(script.state(id), TcpState::CloseWait);
}

#[test]
fn rfc9293_3_10_4_close_waits_for_what_is_queued() {
    let (mut script, id) =
        Script::established_with(Setup::default(), seg("S", 0, 0).mss(1000).window(1000));
    script.write(id, &[1; 2500]);
    script.close(id);
    script.expect_data(1, 1000);
    script.send(seg("A", 1, 1001).window(1000));
    script.expect_data(1001, 1000);
    script.send(seg("A", 1, 2001).window(1000));
    let last = script.expect_data(2001, 500);
    assert!(last.flags.contains('F'));
}

#[test]
fn rfc9293_3_10_7_4_the_fin_again_restarts_2_msl() {
    let (mut script, id) = Script::established();
    script.close(id);
    script.expect("FA", 1, 1);
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2);
    script.wait(Duration::from_secs(50));
    script.send(seg("FA", 1, 2));
    script.expect("A", 2, 2);
    script.wait(Duration::from_secs(50));
    assert_eq!(script.host().stack.tcp().0.time_waits(), 1);
    script.wait(Duration::from_secs(11));
    assert_eq!(script.host().stack.tcp().0.time_waits(), 0);
    // RFC 9293 §3.10.7.1: now it is CLOSED.
    script.send(seg("FA", 1, 2));
    script.expect_reset();
}

/// A connection in TIME-WAIT that nobody holds, with timestamps; the peer's last TSval is given.
fn time_wait(timestamps: bool) -> Script {
    let syn = seg("S", 0, 0).mss(1000);
    let syn = if timestamps { syn.ts(PEER_TS, 0) } else { syn };
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.close(id);
    script.expect("FA", 1, 1);
    let fin = seg("FA", 1, 2);
    script.send(if timestamps { fin.ts(PEER_TS + 10, 0) } else { fin });
    script.expect("A", 2, 2);
    assert_eq!(script.host().stack.tcp().0.time_waits(), 1);
    script
}

#[test]
fn rfc6191_a_new_syn_reopens_from_time_wait() {
    let rows = [
        ("a later timestamp", true, seg("S", 1, 0).ts(PEER_TS + 11, 0), true),
        ("the same timestamp, a later number", true, seg("S", 100, 0).ts(PEER_TS + 10, 0), true),
        ("the same timestamp, an old number", true, seg("S", 1, 0).ts(PEER_TS + 10, 0), false),
        ("an older timestamp", true, seg("S", 100, 0).ts(PEER_TS + 9, 0), false),
        ("no timestamps, a later number", false, seg("S", 100, 0), true),
        ("no timestamps, an old number", false, seg("S", 1, 0), false),
    ];
    for (name, timestamps, syn, reopens) in rows {
        let mut script = time_wait(timestamps);
        script.send(syn);
        let answer = script.next();
        assert_eq!(answer.flags == "SA", reopens, "{name}: {answer:?}");
        let time_waits = script.host().stack.tcp().0.time_waits();
        assert_eq!(time_waits, u32::from(!reopens), "{name}");
    }
}

#[test]
fn rfc6191_we_open_from_time_wait_only_if_the_clock_moved() {
    for (timestamps, wait, opens) in [(true, 2000, true), (true, 0, false), (false, 2000, false)] {
        let mut script = time_wait(timestamps);
        script.wait(Duration::from_micros(wait));
        let now = script.now();
        let local = std::net::SocketAddr::new(script.world.hosts[0].address, script.local_port);
        let remote = std::net::SocketAddr::new(script.peer, script.peer_port);
        let old = script.iss.unwrap();
        let host = script.host();
        let (tcp, ip) = host.stack.tcp();
        let result = tcp.connect(remote, Some(local), (now, ip));
        assert_eq!(result.is_ok(), opens, "timestamps {timestamps}, {wait} us");
        if opens {
            script.pump();
            let syn = script.next();
            let ahead = syn.raw_seq.wrapping_sub(old);
            assert!(ahead < 1 << 31, "its number lies after the old ones");
        } else {
            assert_eq!(result.err(), Some(ConnectError::AddressInUse));
        }
    }
}

#[test]
fn two_time_waits_do_not_answer_each_other() {
    let mut script = time_wait(false);
    for seq in [1, 2, 500] {
        script.send(seg("A", seq, 2));
    }
    script.nothing();
}

#[test]
fn an_orphan_does_not_wait_for_ever_in_fin_wait_2() {
    let (mut script, id) = Script::established();
    script.close(id);
    script.expect("FA", 1, 1);
    script.send(seg("A", 1, 2));
    script.wait(Duration::from_secs(61));
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
    script.nothing();
}

#[test]
fn data_behind_the_fin_is_refused() {
    let (mut script, id) = Script::established();
    script.send(seg("FA", 1, 1).data(b"end"));
    script.send(seg("PA", 5, 1).data(b"more"));
    assert_eq!(script.read(id).unwrap(), b"end");
    assert_eq!(script.read(id), Ok(Vec::new()));
    assert_ne!(script.read(id), Err(ReceiveError::WouldBlock));
}

#[test]
fn time_waits_that_are_used_again_leave_nothing_behind() {
    let mut script = time_wait(true);
    for round in 1..500 {
        // The peer opens again at once, with a later timestamp and number, and we close again.
        let ts = PEER_TS + 100 * round;
        script.peer_iss = script.peer_iss.wrapping_add(1000);
        script.send(seg("S", 0, 0).mss(1000).ts(ts, 0));
        script.expect("SA", 0, 1);
        script.send(seg("A", 1, 1).ts(ts + 1, 0));
        let id = script.world.accept(0, script.listener).unwrap();
        script.close(id);
        script.expect("FA", 1, 1);
        script.send(seg("FA", 1, 2).ts(ts + 2, 0));
        script.expect("A", 2, 2);
        script.wait(Duration::from_millis(2));
    }
    assert_eq!(script.host().stack.tcp().0.time_waits(), 1);
    assert_eq!(script.host().stack.tcp().0.counters().time_waits_reused, 499);
    script.wait(Duration::from_secs(61));
    assert_eq!(script.host().stack.tcp().0.time_waits(), 0);
}
