//! Losing and finding again: RFC 6298, RFC 5681, RFC 6582, RFC 6675, RFC 9293 §3.8.1 to §3.8.3.

use roceway_stack::frame::Offloads;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, ConnectionError, ReceiveError, TcpOption, TcpState};
use roceway_stack::time::Duration;

use crate::support::Setup;
use crate::support::script::{Script, seg};

fn with_sack() -> (Script, Id<Connection>) {
    let syn = seg("S", 0, 0).mss(1000).sack_permitted();
    Script::established_with(Setup::default(), syn)
}

fn sizes(script: &mut Script) -> Vec<(u32, usize)> {
    script.drain().iter().map(|it| (it.seq, it.data.len())).collect()
}

#[test]
fn rfc6298_5_the_timeout_doubles_and_the_first_segment_goes_again() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 3000]);
    assert_eq!(script.drain().len(), 3);
    let mut last = script.now();
    let mut gaps = Vec::new();
    while gaps.len() < 6 {
        script.wait(Duration::from_millis(20));
        for sent in script.drain() {
            assert_eq!(sent.seq, 1, "one segment, the first");
            gaps.push(script.now().since(last).as_millis());
            last = script.now();
        }
    }
    assert!((180..=240).contains(&gaps[0]), "least RTO 200 ms: {gaps:?}");
    for pair in gaps.windows(2) {
        assert!(pair[1].abs_diff(2 * pair[0]) <= 60, "{gaps:?}");
    }
    let info = script.host().stack.tcp().0.info(id).unwrap();
    assert_eq!(info.cwnd, 1000, "RFC 5681 §3.1: the loss window is one segment");
}

#[test]
fn rfc6298_5_3_an_acknowledgement_restarts_the_timer() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 3000]);
    script.drain();
    script.wait(Duration::from_millis(150));
    script.send(seg("A", 1, 1001));
    script.wait(Duration::from_millis(150));
    script.nothing();
    script.wait(Duration::from_millis(1500));
    assert_eq!(script.next().seq, 1001);
}

#[test]
fn rfc6298_5_2_everything_acknowledged_turns_it_off() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 3000]);
    script.drain();
    script.send(seg("A", 1, 3001));
    script.wait(Duration::from_secs(3600));
    script.nothing();
}

#[test]
fn rfc6298_3_karn_a_retransmitted_segment_is_not_measured() {
    let (mut script, id) = Script::established();
    let before = script.host().stack.tcp().0.info(id).unwrap().rtt;
    script.write(id, b"x");
    script.wait(Duration::from_secs(1));
    script.send(seg("A", 1, 2));
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().rtt, before);
}

#[test]
fn rfc5681_3_2_three_duplicates_resend_and_halve() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 20_000]);
    assert_eq!(script.drain().len(), 10, "RFC 6928: ten segments");
    script.send(seg("A", 1, 1));
    script.send(seg("A", 1, 1));
    // RFC 3042: the first two let a new segment go each.
    assert_eq!(sizes(&mut script), [(10_001, 1000), (11_001, 1000)]);
    script.send(seg("A", 1, 1));
    assert_eq!(sizes(&mut script)[0], (1, 1000));
    let counters = script.host().stack.tcp().0.counters();
    assert_eq!((counters.fast_recoveries, counters.timeouts), (1, 0));
    let ssthresh = script.host().stack.tcp().0.info(id).unwrap().ssthresh;
    assert!((5000..=8000).contains(&ssthresh), "RFC 9438: 0.7 of what was in flight: {ssthresh}");
    // RFC 6582: a partial acknowledgement sends the next hole.
    script.send(seg("A", 1, 4001));
    assert_eq!(sizes(&mut script)[0], (4001, 1000));
    script.send(seg("A", 1, 12_001));
    assert!(!script.host().stack.tcp().0.info(id).unwrap().recovering);
}

#[test]
fn rfc5681_2_what_is_no_duplicate_acknowledgement() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 5000]);
    script.drain();
    for window in 1..6 {
        script.send(seg("A", 1, 1).window(20_000 + window));
    }
    for n in 0..5 {
        script.send(seg("A", 1 + n, 1).window(20_005).data(b"d"));
    }
    assert_eq!(script.host().stack.tcp().0.counters().fast_recoveries, 0);
    assert!(script.drain().iter().all(|it| it.data.is_empty()));
}

#[test]
fn rfc6675_4_only_the_holes_are_sent_again() {
    let (mut script, id) = with_sack();
    script.write(id, &[0; 10_000]);
    script.drain();
    let iss = script.iss.unwrap();
    script.send(seg("A", 1, 1).sack(&[(1001, 2001)], iss));
    script.send(seg("A", 1, 1).sack(&[(1001, 2001), (3001, 4001)], iss));
    script.nothing();
    script.send(seg("A", 1, 1).sack(&[(1001, 2001), (3001, 4001), (5001, 6001)], iss));
    let first = sizes(&mut script);
    assert_eq!(first[0], (1, 1000));
    script.send(seg("A", 1, 1).sack(&[(1001, 2001), (3001, 4001), (5001, 10_001)], iss));
    let all = [first, sizes(&mut script)].concat();
    let mut holes: Vec<u32> = all.iter().map(|it| it.0).collect();
    holes.sort_unstable();
    assert_eq!(holes, [1, 2001, 4001], "{all:?}");
}

#[test]
fn rfc2018_8_a_peer_that_reneges_gets_everything_again() {
    let (mut script, id) = with_sack();
    script.write(id, &[0; 3000]);
    script.drain();
    let iss = script.iss.unwrap();
    script.send(seg("A", 1, 1).sack(&[(1001, 3001)], iss));
    script.wait(Duration::from_secs(2));
    script.drain();
    script.send(seg("A", 1, 1001));
    script.wait(Duration::from_secs(30));
    let again = sizes(&mut script);
    assert!(again.iter().any(|it| it.0 == 1001) && again.iter().any(|it| it.0 + 1000 > 2001));
    script.send(seg("A", 1, 3001));
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().unacked, 0);
}

#[test]
fn sack_blocks_that_lie_are_ignored() {
    let (mut script, id) = with_sack();
    script.write(id, &[0; 3000]);
    script.drain();
    let iss = script.iss.unwrap();
    let lies = [
        [(3001, 9001), (0, 1), (5, 5)],
        [(2001, 1001), (1 << 31, (1 << 31) + 5), (3001, 3002)],
        [(u32::MAX - 5, u32::MAX), (1, u32::MAX), (4000, 2000)],
    ];
    for row in lies {
        for _ in 0..4 {
            script.send(seg("A", 1, 1).sack(&row, iss));
        }
    }
    script.nothing();
    assert!(script.host().stack.tcp().0.counters().sack_ignored >= 12);
    script.wait(Duration::from_millis(1500));
    assert_eq!(script.next().seq, 1);
    script.drain();
    script.send(seg("A", 1, 3001));
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().unacked, 0);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_frees_nothing() {
    let (mut script, id) = Script::established();
    script.write(id, &[0; 3000]);
    script.drain();
    script.send(seg("A", 1, 3002));
    script.send(seg("A", 1, 50_000));
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().unacked, 3000);
    assert_eq!(script.host().stack.tcp().0.counters().challenge_acks, 2);
}

/// Questions for the peer's Ethernet address that the stack has sent: to whom.
fn questions(script: &mut Script) -> Vec<Vec<u8>> {
    std::mem::take(&mut script.questions)
}

#[test]
fn must_20_r1_is_negative_advice_to_ip_which_asks_whether_the_neighbour_is_there() {
    for v6 in [false, true] {
        let syn = seg("S", 0, 0).mss(1000);
        let (mut script, id) = Script::established_with(Setup { v6, ..Setup::default() }, syn);
        let now = script.now();
        let told = TcpOption::SoftErrors(true);
        script.host().stack.tcp().0.set_option(id, told, now);
        // The answer of the opening was believed for 30 s: it says no more when that is over.
        questions(&mut script);
        script.write(id, b"into the void");
        let mut sent = script.drain().len();
        while sent < 4 {
            assert!(questions(&mut script).is_empty(), "before R1");
            assert_eq!(script.host().stack.tcp().0.take_error(id), None, "before R1");
            script.wait(Duration::from_millis(10));
            sent += script.drain().len();
        }
        let asked = questions(&mut script);
        assert_eq!(asked.len(), 1, "R1: three retransmissions");
        assert_eq!(
            asked[0][..6],
            [2, 0, 0, 0, 0, 9],
            "the neighbour itself is asked, not everyone"
        );
        assert_eq!(script.host().stack.ip().counters().neighbors_doubted, 1);
        assert_eq!(script.host().stack.tcp().0.counters().paths_doubted, 1);
        let told = script.host().stack.tcp().0.take_error(id);
        assert_eq!(told, Some(ConnectionError::TimedOut), "SHLD-9, SHLD-10: before R2");
        // It answered: the same way is taken, and nobody is asked at each further timeout.
        script.wait(Duration::from_secs(8));
        assert!(questions(&mut script).is_empty());
        assert_eq!(script.state(id), TcpState::Established);
    }
}

#[test]
fn must_20_r1_a_neighbour_that_does_not_answer_is_no_way_any_more() {
    let (mut script, id) = Script::established();
    script.hide_peer();
    script.write(id, b"into the void");
    let began = script.now();
    while script.host().stack.ip().counters().neighbor_failures == 0 {
        script.wait(Duration::from_millis(100));
        assert!(script.now().since(began) < Duration::from_secs(20), "a dead way is found by R1");
    }
    script.wait(Duration::from_secs(200));
    let unreachable = ConnectionError::HostUnreachable;
    assert_eq!(script.read(id), Err(ReceiveError::Connection(unreachable)), "R2 says why");
}

#[test]
fn must_20_r2_ends_a_connection_after_two_minutes() {
    let (mut script, id) = Script::established();
    script.write(id, b"into the void");
    script.wait(Duration::from_secs(100));
    assert_eq!(script.state(id), TcpState::Established, "SHLD-11: at least 100 s");
    script.wait(Duration::from_secs(120));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::TimedOut)));
    assert!(script.drain().last().unwrap().flags.contains('R'), "the peer is told, if it hears");
    script.wait(Duration::from_secs(1000));
    script.nothing();
    assert_eq!(script.host().mem.live_slots(), 0);
}

#[test]
fn must_21_the_user_can_set_r2() {
    let (mut script, id) = Script::established();
    let now = script.now();
    let tcp = script.host().stack.tcp().0;
    tcp.set_option(id, TcpOption::UserTimeout(Some(Duration::from_secs(5))), now);
    script.write(id, b"into the void");
    script.wait(Duration::from_secs(14));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::TimedOut)));
}

#[test]
fn a_neighbour_that_dies_ends_what_was_never_sent() {
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0).mss(1000));
    script.expect("SA", 0, 1);
    script.send(seg("A", 1, 1));
    let id = script.world.accept(0, script.listener).unwrap();
    script.hide_peer();
    // Long enough for what is known of the neighbour to age.
    script.wait(Duration::from_secs(3600));
    script.write(id, b"nobody is there");
    script.wait(Duration::from_secs(400));
    assert!(matches!(script.read(id), Err(ReceiveError::Connection(_))));
    script.drain();
}

#[test]
fn rfc5681_4_1_an_idle_connection_starts_from_the_restart_window() {
    let (mut script, id) = Script::established();
    for _ in 0..6 {
        script.write(id, &[0; 200_000]);
        while let Some(last) = script.drain().last() {
            let ack = last.seq + u32::try_from(last.data.len()).unwrap();
            script.send(seg("A", 1, ack));
        }
    }
    assert!(script.host().stack.tcp().0.info(id).unwrap().cwnd > 20_000);
    script.wait(Duration::from_secs(60));
    script.write(id, &[0; 60_000]);
    assert_eq!(script.drain().len(), 10);
}

#[test]
fn what_the_device_still_reads_is_not_sent_again_by_the_timer() {
    let (mut script, id) = Script::established();
    script.stall_completions();
    script.write(id, &[7; 3000]);
    assert_eq!(script.drain().len(), 3);
    script.wait(Duration::from_secs(5));
    script.nothing();
    let counters = script.host().stack.tcp().0.counters();
    assert!(counters.retransmissions_deferred >= 4, "{counters:?}");
    assert_eq!((counters.retransmissions, counters.timeouts), (0, 0), "nothing is lost yet");
    script.complete();
    script.wait(Duration::from_millis(1100));
    let again = script.expect_data(1, 1000);
    assert_eq!(again.data, [7; 1000]);
    script.drain();
    script.send(seg("A", 1, 3001));
    assert_eq!(script.host().mem.live_slots(), 0);
}

#[test]
fn what_the_device_still_reads_is_not_sent_again_by_duplicates() {
    let (mut script, id) = with_sack();
    script.stall_completions();
    script.write(id, &[7; 5000]);
    script.drain();
    let iss = script.iss.unwrap();
    for end in [2001, 3001, 4001, 5001] {
        script.send(seg("A", 1, 1).sack(&[(1001, end)], iss));
    }
    script.nothing();
    script.complete();
    // A completion tells the stack nothing: it asks again when time has moved on.
    script.wait(Duration::from_millis(1));
    script.expect_data(1, 1000);
    script.nothing();
    let counters = script.host().stack.tcp().0.counters();
    assert_eq!((counters.retransmissions, counters.timeouts), (1, 0));
}

#[test]
fn large_frames_hold_whole_segments() {
    let offloads = Offloads { tx_checksum: true, tso4: true, tso6: true, tso_ecn: true, uso: true };
    let syn = seg("S", 0, 0).mss(1000).scale(7);
    let (mut script, id) = Script::established_with(Setup { offloads, ..Setup::default() }, syn);
    script.write(id, &[0; 100_500]);
    let sent = script.drain();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].data.len(), 10_000, "the congestion window, in whole segments");
}
