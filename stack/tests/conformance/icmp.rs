//! ICMP and what lies below: RFC 9293 §3.9.2, RFC 5927, RFC 1191, RFC 1122, RFC 4443, RFC 826.

use roceway_stack::checksum::Sum;
use roceway_stack::tcp::{ConnectionError, Readiness, ReceiveError, TcpOption, TcpState};
use roceway_stack::time::Duration;

use crate::support::script::{Script, Sent, packet, seg};
use crate::support::{Setup, host_address};

/// An ICMP error about a segment of the stack's with this relative number.
fn error(script: &Script, kind: (u8, u8), rest: u32, seq: u32) -> Vec<u8> {
    let raw = script.iss.unwrap().wrapping_add(seq);
    let mut quoted = Vec::new();
    quoted.extend_from_slice(&script.local_port.to_be_bytes());
    quoted.extend_from_slice(&script.peer_port.to_be_bytes());
    quoted.extend_from_slice(&raw.to_be_bytes());
    let ours = script.world.hosts[0].address;
    let quoted = packet(ours, script.peer, (6, 64), &[quoted, vec![0; 12]].concat());
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(&quoted[14..]);
    let v6 = script.peer.is_ipv6();
    let len = u32::try_from(message.len()).unwrap();
    let pseudo = if v6 { Sum::pseudo(script.peer, ours, 58, len) } else { Sum::ZERO };
    let sum = pseudo.plus(Sum::of(&message)).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    script.ip(if v6 { 58 } else { 1 }, 64, &message)
}

#[test]
fn must_56_soft_errors_do_not_end_a_connection() {
    for (v6, kinds) in [
        (false, vec![(3, 0), (3, 1), (3, 5), (11, 0), (12, 0)]),
        (true, vec![(1, 0), (1, 3), (3, 0), (4, 0)]),
    ] {
        for kind in kinds {
            let (mut script, id, _) = Script::syn_sent(Setup { v6, ..Setup::default() });
            let frame = error(&script, kind, 0, 0);
            script.deliver(frame);
            assert_eq!(script.state(id), TcpState::SynSent, "{kind:?}");
            script.send(seg("SA", 0, 1).mss(1000));
            assert_eq!(script.state(id), TcpState::Established);
        }
    }
}

#[test]
fn shld_25_a_soft_error_is_told_when_the_connection_times_out() {
    let (mut script, id, _) = Script::syn_sent(Setup::default());
    let frame = error(&script, (3, 1), 0, 0);
    script.deliver(frame);
    script.wait(Duration::from_secs(400));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::HostUnreachable)));
}

#[test]
fn must_47_soft_errors_are_told_to_who_asks_while_the_connection_lives() {
    for (asks, kind, told) in [
        (false, (3, 1), None),
        (true, (3, 1), Some(ConnectionError::HostUnreachable)),
        (true, (3, 0), Some(ConnectionError::NetworkUnreachable)),
        (true, (11, 0), Some(ConnectionError::HostUnreachable)),
    ] {
        let (mut script, id) = Script::established();
        let now = script.now();
        let tcp = script.host().stack.tcp().0;
        tcp.set_option(id, TcpOption::SoftErrors(asks), now);
        tcp.watch(id, Readiness::READABLE);
        assert_eq!((tcp.take_error(id), tcp.poll_event()), (None, None));
        script.write(id, b"x");
        script.drain();
        let frame = error(&script, kind, 0, 1);
        script.deliver(frame);
        let tcp = script.host().stack.tcp().0;
        assert_eq!(tcp.poll_event().is_some(), asks, "who waits may look");
        assert_eq!(tcp.error(id), None, "it ended nothing");
        assert_eq!(tcp.take_error(id), told);
        assert_eq!(tcp.take_error(id), None, "once");
        assert_eq!(script.read(id), Err(ReceiveError::WouldBlock), "and no call fails");
        script.send(seg("A", 1, 2).data(b"y"));
        assert_eq!(script.read(id).unwrap(), b"y");
    }
}

#[test]
fn shld_20_soft_errors_can_be_turned_off_again() {
    let (mut script, id) = Script::established();
    let now = script.now();
    script.host().stack.tcp().0.set_option(id, TcpOption::SoftErrors(true), now);
    script.write(id, b"x");
    let frame = error(&script, (3, 1), 0, 1);
    script.deliver(frame);
    let tcp = script.host().stack.tcp().0;
    tcp.set_option(id, TcpOption::SoftErrors(false), now);
    assert_eq!(tcp.take_error(id), None);
}

#[test]
fn shld_26_hard_errors_end_an_opening_connection_and_no_other() {
    for (v6, kind) in [(false, (3, 2)), (false, (3, 3)), (true, (1, 4))] {
        let (mut script, id, _) = Script::syn_sent(Setup { v6, ..Setup::default() });
        let frame = error(&script, kind, 0, 0);
        script.deliver(frame);
        let refused = Err(ReceiveError::Connection(ConnectionError::Refused));
        assert_eq!(script.read(id), refused, "{kind:?}");
        // RFC 5927 §5.2: forged errors are too easy to let them end an established connection.
        let syn = seg("S", 0, 0).mss(1220);
        let (mut script, id) = Script::established_with(Setup { v6, ..Setup::default() }, syn);
        script.write(id, b"x");
        let frame = error(&script, kind, 0, 1);
        script.deliver(frame);
        assert_eq!(script.state(id), TcpState::Established);
    }
}

#[test]
fn must_54_and_rfc5927_4_1_errors_about_what_is_not_in_flight_are_ignored() {
    for wrong in [1, 2, 1000, u32::MAX] {
        let (mut script, id, _) = Script::syn_sent(Setup::default());
        let frame = error(&script, (3, 3), 0, wrong);
        script.deliver(frame);
        assert_eq!(script.state(id), TcpState::SynSent, "{wrong}");
        assert_eq!(script.host().stack.tcp().0.counters().icmp_errors_ignored, 1);
    }
}

#[test]
fn must_55_source_quench_is_ignored() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 3000]);
    script.drain();
    let before = script.host().stack.tcp().0.info(id).unwrap();
    let frame = error(&script, (4, 0), 0, 1);
    script.deliver(frame);
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap(), before);
}

#[test]
fn rfc1191_a_path_that_takes_less_gets_less() {
    for (v6, kind, mtu, payload) in
        [(false, (3, 4), 1000, 960), (false, (3, 4), 600, 560), (true, (2, 0), 1300, 1240)]
    {
        let syn = seg("S", 0, 0).mss(1400);
        let (mut script, id) = Script::established_with(Setup { v6, ..Setup::default() }, syn);
        script.write(id, &[0; 2800]);
        script.expect_data(1, 1400);
        let frame = error(&script, kind, mtu, 1);
        script.deliver(frame);
        let again: Vec<Sent> = script.drain().into_iter().filter(|it| it.seq == 1).collect();
        assert_eq!(again[0].data.len(), payload, "sent again at once, smaller");
    }
}

#[test]
fn rfc1191_an_error_that_says_more_or_nonsense_is_no_reason_to_send_crumbs() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 5000]);
    script.drain();
    for mtu in [0, 1, 40, 68, 9000] {
        let frame = error(&script, (3, 4), mtu, 1);
        script.deliver(frame);
    }
    let mss = script.host().stack.tcp().0.info(id).unwrap().snd_mss;
    assert!((64..=1000).contains(&mss), "{mss}");
    script.drain();
    script.send(seg("A", 1, 5001));
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().unacked, 0);
}

#[test]
fn rfc1122_3_2_2_6_and_rfc4443_4_2_echo_is_answered() {
    for v6 in [false, true] {
        let mut script = Script::new(Setup { v6, ..Setup::default() });
        // The neighbour must be known: a connection makes it so.
        script.send(seg("S", 0, 0));
        script.drain();
        let ours = script.world.hosts[0].address;
        let mut echo = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 1, 2, 3, 4, b'p', b'i', b'n', b'g'];
        let pseudo = if v6 { Sum::pseudo(script.peer, ours, 58, 12) } else { Sum::ZERO };
        let sum = pseudo.plus(Sum::of(&echo)).checksum();
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        let frame = script.ip(if v6 { 58 } else { 1 }, 64, &echo);
        script.deliver(frame);
        let answer = script.other.pop().expect("no answer");
        let start = if v6 { 54 } else { 34 };
        assert_eq!(answer[start], if v6 { 129 } else { 0 });
        assert_eq!(answer[start + 4..], echo[4..]);
    }
}

#[test]
fn packets_for_others_and_from_nowhere_are_dropped() {
    let mut script = Script::new(Setup::default());
    let syn = script.tcp_bytes(&seg("S", 0, 0));
    let other = packet(script.peer, host_address(false, 77), (6, 64), &syn);
    script.deliver(other);
    script.nothing();
    let mut wrong_sum = script.frame(&seg("S", 0, 0));
    wrong_sum[24] ^= 1;
    script.deliver(wrong_sum);
    script.nothing();
    let mut wrong_tcp_sum = script.frame(&seg("S", 0, 0));
    wrong_tcp_sum[50] ^= 1;
    script.deliver(wrong_tcp_sum);
    script.nothing();
    assert_eq!(script.host().stack.tcp().0.counters().dropped_checksum, 1);
    script.world.check();
}
