//! Resets and challenges: RFC 9293 §3.10.7.4, RFC 5961, RFC 1337, RFC 2525.

use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, ConnectionError, ReceiveError, TcpState};
use roceway_stack::time::Duration;

use crate::support::Setup;
use crate::support::script::{PEER_ISS, Script, seg};

/// A connection in each synchronised state, with the peer's and our next sequence number.
fn in_state(state: TcpState) -> (Script, Id<Connection>, u32, u32) {
    let (mut script, id) = Script::established();
    let (mut peer, mut ours) = (1, 1);
    let active = matches!(
        state,
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::TimeWait
    );
    if active {
        script.shutdown(id);
        script.expect("FA", 1, 1);
        ours = 2;
    }
    if matches!(state, TcpState::FinWait2 | TcpState::TimeWait) {
        script.send(seg("A", 1, 2));
    }
    let fin = matches!(
        state,
        TcpState::Closing | TcpState::TimeWait | TcpState::CloseWait | TcpState::LastAck
    );
    if fin {
        let ack = if state == TcpState::Closing { 1 } else { ours };
        script.send(seg("FA", 1, ack));
        script.expect("A", ours, 2);
        peer = 2;
    }
    if state == TcpState::LastAck {
        script.shutdown(id);
        script.expect("FA", 1, 2);
        ours = 2;
    }
    assert_eq!(script.state(id), state);
    (script, id, peer, ours)
}

const STATES: [TcpState; 7] = [
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::TimeWait,
];

#[test]
fn rfc9293_3_10_7_4_a_reset_in_each_state() {
    for state in STATES {
        let (mut script, id, peer, _) = in_state(state);
        script.send(seg("R", peer, 0));
        script.nothing();
        let told = script.read(id);
        let reset = Err(ReceiveError::Connection(ConnectionError::Reset));
        let ends = matches!(state, TcpState::Closing | TcpState::LastAck | TcpState::TimeWait);
        assert_eq!(told, if ends { Ok(Vec::new()) } else { reset }, "{state:?}");
        assert_eq!(script.state(id), TcpState::Closed);
        script.close(id);
        assert_eq!(script.host().stack.tcp().0.connections(), 0);
    }
}

#[test]
fn must_11_a_reset_in_syn_received_goes_back_to_listen() {
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1);
    script.send(seg("R", 1, 0));
    script.nothing();
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
    assert!(script.world.accept(0, script.listener).is_none());
    script.iss = None;
    script.send(seg("S", 0, 0));
    script.expect("SA", 0, 1);
}

#[test]
fn rfc5961_3_2_a_reset_within_the_window_is_challenged() {
    for state in STATES {
        let (mut script, id, peer, ours) = in_state(state);
        script.send(seg("R", peer + 1, 0));
        script.expect("A", ours, peer);
        assert_eq!(script.state(id), state);
        // Outside the window it is nothing.
        script.send(seg("R", peer + (1 << 24), 0));
        script.send(seg("R", peer - 1, 0));
        script.nothing();
        assert_eq!(script.state(id), state);
    }
}

#[test]
fn rfc5961_4_2_a_syn_is_challenged_in_each_state() {
    for state in STATES {
        for offset in [0, 1, 100_000_000, u32::MAX] {
            let (mut script, id, peer, ours) = in_state(state);
            script.send(seg("S", peer.wrapping_add(offset), 0));
            script.expect("A", ours, peer);
            assert_eq!(script.state(id), state);
        }
    }
}

#[test]
fn rfc5961_5_2_acks_far_away_are_challenged_and_say_nothing() {
    let (mut script, id) = Script::established();
    script.write(id, b"one");
    script.expect_data(1, 3);
    script.send(seg("A", 1, 5).data(b"forged"));
    script.expect("A", 4, 1);
    script.send(seg("A", 1, 1_u32.wrapping_sub(70_000)).data(b"forged"));
    script.expect("A", 4, 1);
    assert_eq!(script.read(id), Err(ReceiveError::WouldBlock));
    // An old ACK within the largest window is an ordinary duplicate: its data is taken.
    script.send(seg("A", 1, 0).data(b"genuine"));
    assert_eq!(script.read(id).unwrap(), b"genuine");
}

#[test]
fn rfc5961_7_challenges_are_limited_for_each_connection() {
    let (mut script, _) = Script::established();
    for _ in 0..100 {
        script.send(seg("S", 1, 0));
    }
    assert_eq!(script.drain().len(), 10);
    script.wait(Duration::from_millis(1001));
    for _ in 0..100 {
        script.send(seg("R", 2, 0));
    }
    assert_eq!(script.drain().len(), 10);
    let counters = script.host().stack.tcp().0.counters();
    assert_eq!((counters.challenge_acks, counters.challenge_acks_limited), (20, 180));
}

#[test]
fn two_ends_that_disagree_do_not_answer_each_other_for_ever() {
    let (mut script, _) = Script::established();
    for _ in 0..100 {
        // A bare acknowledgement from outside the window.
        script.send(seg("A", 1 << 24, 1));
    }
    assert_eq!(script.drain().len(), 10);
}

#[test]
fn rfc1337_a_reset_does_not_end_a_closed_time_wait() {
    let (mut script, id, peer, _) = in_state(TcpState::TimeWait);
    script.close(id);
    assert_eq!(script.host().stack.tcp().0.time_waits(), 1);
    script.send(seg("R", peer, 0));
    assert_eq!(script.host().stack.tcp().0.time_waits(), 1);
}

#[test]
fn rfc2525_2_17_closing_with_unread_data_resets() {
    let (mut script, id) = Script::established();
    script.send(seg("PA", 1, 1).data(b"unread"));
    script.drain();
    script.close(id);
    let reset = script.expect_reset();
    assert_eq!((reset.seq, reset.ack), (1, 7));
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
    assert_eq!(script.host().mem.live_slots(), 0);
}

#[test]
fn rfc9293_3_10_4_data_after_close_resets() {
    let (mut script, id) = Script::established();
    script.close(id);
    script.expect("FA", 1, 1);
    script.send(seg("A", 1, 2));
    script.send(seg("PA", 1, 2).data(b"nobody reads this"));
    let reset = script.expect_reset();
    assert_eq!(reset.seq, 2);
    assert_eq!(script.host().stack.tcp().0.connections(), 0);
}

#[test]
fn rfc9293_3_10_5_abort_in_each_state() {
    for state in STATES {
        let (mut script, id, _, ours) = in_state(state);
        let host = script.host();
        host.stack.tcp().0.abort(id, &mut host.mem);
        script.pump();
        match state {
            TcpState::Closing | TcpState::LastAck | TcpState::TimeWait => script.nothing(),
            _ => assert_eq!(script.expect_reset().seq, ours, "{state:?}"),
        }
        assert_eq!(script.host().stack.tcp().0.connections(), 0);
    }
}

#[test]
fn rfc9293_3_10_7_4_no_ack_bit_is_dropped() {
    let (mut script, id) = Script::established();
    script.send(seg("", 1, 0).data(b"no ack"));
    script.nothing();
    assert_eq!(script.read(id), Err(ReceiveError::WouldBlock));
}

#[test]
fn a_reset_leaves_what_came_before_it_readable() {
    let (mut script, id) = Script::established();
    script.send(seg("PA", 1, 1).data(b"last"));
    script.drain();
    script.send(seg("R", 5, 0));
    assert_eq!(script.read(id).unwrap(), b"last");
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::Reset)));
}

// The peer's numbers wrap in these tests.
const _: () = assert!(PEER_ISS > u32::MAX - 100);
