//! Windows, silly and zero; acknowledgements; urgent data: RFC 9293 §3.7.4, §3.8.4 to §3.8.6.

use roceway_stack::slab::Id;
use roceway_stack::tcp::{
    Connection, ConnectionError, KeepAlive, ReceiveError, TcpConfig, TcpOption, TcpState,
};
use roceway_stack::time::Duration;

use crate::support::Setup;
use crate::support::script::{Script, seg};

fn with_window(window: u16) -> (Script, Id<Connection>) {
    Script::established_with(Setup::default(), seg("S", 0, 0).mss(1000).window(window))
}

fn small_buffer(bytes: u32) -> (Script, Id<Connection>) {
    let tcp = TcpConfig { receive_buffer: bytes, ..TcpConfig::default() };
    Script::established_with(Setup { tcp, ..Setup::default() }, seg("S", 0, 0).mss(1000))
}

#[test]
fn rfc9293_3_8_6_nothing_beyond_the_peers_window() {
    let (mut script, id) = with_window(2500);
    script.write(id, &[0; 10_000]);
    script.expect_data(1, 1000);
    script.expect_data(1001, 1000);
    script.nothing();
    script.send(seg("A", 1, 2001).window(4000));
    assert_eq!(script.drain().iter().map(|it| it.data.len()).sum::<usize>(), 4000);
}

#[test]
fn must_34_a_window_that_shrinks_is_survived() {
    let (mut script, id) = with_window(5000);
    script.write(id, &[0; 10_000]);
    assert_eq!(script.drain().len(), 5);
    // Half of what was promised is taken back: nothing new (SHLD-15), old data again (SHLD-16).
    script.send(seg("A", 1, 1001).window(1000));
    script.nothing();
    script.wait(Duration::from_millis(1100));
    assert_eq!(script.next().seq, 1001);
    script.drain();
    script.send(seg("A", 1, 5001).window(5000));
    assert_eq!(script.next().seq, 5001);
}

#[test]
fn shld_17_a_peer_that_shrank_its_window_and_answers_is_not_given_up() {
    let (mut script, id) = with_window(5000);
    script.write(id, &[0; 5000]);
    script.drain();
    script.send(seg("A", 1, 1001).window(0));
    for _ in 0..60 {
        script.wait(Duration::from_secs(10));
        script.drain();
        script.send(seg("A", 1, 1001).window(0));
    }
    assert_eq!(script.state(id), TcpState::Established);
    script.send(seg("A", 1, 5001).window(5000));
    script.write(id, b"more");
    assert_eq!(script.drain().last().unwrap().data, b"more");
}

#[test]
fn must_36_a_zero_window_is_probed_at_growing_intervals() {
    let (mut script, id) = with_window(0);
    script.write(id, b"waiting");
    script.nothing();
    let mut gaps = Vec::new();
    let mut last = script.now();
    while gaps.len() < 8 {
        script.wait(Duration::from_millis(50));
        for probe in script.drain() {
            assert_eq!((probe.seq, probe.data.len()), (0, 0), "below the window: it must answer");
            gaps.push(script.now().since(last).as_millis());
            last = script.now();
            script.send(seg("A", 1, 1).window(0));
        }
    }
    assert!((150..=1100).contains(&gaps[0]), "SHLD-29: first after an RTO: {gaps:?}");
    assert!(gaps.windows(2).all(|it| it[1] + 51 >= it[0]), "SHLD-30: {gaps:?}");
    assert!(*gaps.last().unwrap() <= 60_100);
    script.send(seg("A", 1, 1).window(1000));
    script.expect_data(1, 7);
}

#[test]
fn must_37_a_zero_window_that_is_answered_may_last() {
    let (mut script, id) = with_window(0);
    script.write(id, b"waiting");
    for _ in 0..720 {
        script.wait(Duration::from_secs(5));
        for _ in script.drain() {
            script.send(seg("A", 1, 1).window(0));
        }
    }
    assert_eq!(script.state(id), TcpState::Established);
}

#[test]
fn a_zero_window_that_is_not_answered_ends_by_r2() {
    let (mut script, id) = with_window(0);
    script.write(id, b"waiting");
    script.wait(Duration::from_secs(400));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::TimedOut)));
}

/// The peer answers every segment for so long, its window shut; whether the connection is left.
fn outlives(script: &mut Script, ack: u32, seconds: u64) -> bool {
    for _ in 0..seconds {
        script.wait(Duration::from_secs(1));
        for sent in script.drain() {
            if sent.flags.contains('R') {
                return false;
            }
            script.send(seg("A", 1, ack).window(0));
        }
    }
    script.host().stack.tcp().0.connections() > 0
}

#[test]
fn an_orphan_waits_for_a_window_no_longer_than_r2() {
    // Nothing of it sent; sent in part, and the window then taken back; a shorter time set.
    for (first, taken_back, timeout, at_least, at_most) in [
        (0, false, None, 100, 200),
        (5000, true, None, 100, 260),
        (0, false, Some(Duration::from_secs(10)), 9, 40),
    ] {
        let (mut script, id) = with_window(first);
        let now = script.now();
        script.host().stack.tcp().0.set_option(id, TcpOption::UserTimeout(timeout), now);
        script.write(id, &[0; 5000]);
        script.drain();
        let ack = if taken_back { 1001 } else { 1 };
        script.send(seg("A", 1, ack).window(0));
        if timeout.is_none() {
            assert!(outlives(&mut script, ack, 1000), "MUST-37: held, it may last");
        }
        script.close(id);
        assert!(outlives(&mut script, ack, at_least), "{first} {timeout:?}");
        assert!(!outlives(&mut script, ack, at_most - at_least), "{first} {timeout:?}");
        script.wait(Duration::from_secs(60));
        assert_eq!(script.host().mem.live_slots(), 0);
        assert_eq!(script.host().stack.tcp().0.counters().timed_out, 1);
    }
}

#[test]
fn an_orphan_whose_window_opens_in_time_delivers_everything() {
    let (mut script, id) = with_window(0);
    script.write(id, &[0; 900]);
    script.close(id);
    assert!(outlives(&mut script, 1, 90));
    script.send(seg("A", 1, 1).window(1000));
    let sent = script.expect_data(1, 900);
    assert!(sent.flags.contains('F'), "{sent:?}");
}

#[test]
fn must_35_we_answer_probes_of_our_zero_window() {
    let (mut script, id) = small_buffer(4096);
    let mut seq = 1;
    for _ in 0..5 {
        script.send(seg("A", seq, 1).bytes(1000));
        seq += 1000;
    }
    let last = script.drain().pop().unwrap();
    assert_eq!((last.ack, last.window), (4097, 0), "what does not fit is cut off");
    // A probe of one byte, and one below the window.
    script.send(seg("A", 4097, 1).bytes(1));
    assert_eq!(script.expect("A", 1, 4097).window, 0);
    script.send(seg("A", 4096, 1));
    assert_eq!(script.expect("A", 1, 4097).window, 0);
    // Reading opens the window, and the peer is told at once.
    assert_eq!(script.read(id).unwrap().len(), 4096);
    assert_eq!(script.expect("A", 1, 4097).window, 4096);
}

#[test]
fn must_39_the_receiver_avoids_silly_windows() {
    let (mut script, id) = small_buffer(4096);
    for n in 0..4 {
        script.send(seg("A", 1 + n * 1000, 1).bytes(1000));
    }
    script.send(seg("A", 4001, 1).bytes(96));
    script.drain();
    let mut out = [0; 500];
    assert_eq!(script.world.read(0, id, &mut out), Some(500));
    script.nothing();
    assert_eq!(script.world.read(0, id, &mut out), Some(500));
    script.nothing();
    let mut out = [0; 1100];
    assert_eq!(script.world.read(0, id, &mut out), Some(1100));
    script.pump();
    assert!(script.next().window >= 2000, "half the buffer is worth telling");
}

#[test]
fn must_38_the_sender_avoids_silly_windows() {
    let (mut script, id) = with_window(10_000);
    script.write(id, &[0; 30_000]);
    assert_eq!(script.drain().len(), 10);
    script.send(seg("A", 1, 10_001).window(300));
    // 300 of 10,000 bytes: neither a segment nor half the window. The override timer lets it go.
    script.nothing();
    script.wait(Duration::from_millis(1200));
    assert_eq!(script.next().data.len(), 300);
}

#[test]
fn shld_14_the_window_is_not_taken_back() {
    let (mut script, _) = small_buffer(20_000);
    let mut edge = 0;
    for n in 0..20 {
        script.send(seg("A", 1 + n * 1000, 1).bytes(1000));
        for sent in script.drain() {
            let told = sent.ack + u32::from(sent.window);
            assert!(told >= edge, "the edge moved back");
            edge = told;
        }
    }
}

#[test]
fn shld_14_a_smaller_buffer_takes_back_nothing_that_was_promised() {
    let (mut script, id) = small_buffer(60_000);
    let now = script.now();
    script.host().stack.tcp().0.set_option(id, TcpOption::ReceiveBuffer(8192), now);
    for n in 0..60 {
        script.send(seg("A", 1 + n * 1000, 1).bytes(1000));
        for sent in script.drain() {
            assert_eq!(sent.ack + u32::from(sent.window), 60_001, "the edge stands");
        }
    }
    assert_eq!(script.read(id).unwrap().len(), 60_000, "all that was promised is taken");
    assert_eq!(script.next().window, 8192, "the smaller buffer is what is offered from here on");
}

#[test]
fn a_peer_that_sends_byte_by_byte_cannot_fill_more_than_the_buffer() {
    let tcp = TcpConfig { receive_buffer: 1 << 20, ..TcpConfig::default() };
    let syn = seg("S", 0, 0).mss(1000).scale(7);
    let (mut script, _) = Script::established_with(Setup { tcp, ..Setup::default() }, syn);
    let mut seq = 1;
    let mut window = 1 << 20;
    let mut len = 1400;
    for _ in 0..2_000_000 {
        if window == 0 {
            break;
        }
        if window < 3000 {
            len = 1;
        }
        script.send(seg("A", seq, 1).bytes(len.min(usize::try_from(window).unwrap())));
        for sent in script.drain() {
            seq = sent.ack;
            window = u32::from(sent.window) << 5;
        }
        if seq > 2 << 20 {
            break;
        }
    }
    assert!(seq <= (1 << 20) + (1 << 18) + 64, "{seq} bytes are queued for 1 MiB");
}

#[test]
fn shld_7_nagle() {
    let (mut script, id) = with_window(60_000);
    script.write(id, b"a");
    script.expect_data(1, 1);
    script.write(id, b"b");
    script.write(id, b"c");
    script.nothing();
    script.send(seg("A", 1, 2));
    script.expect_data(2, 2);
    script.write(id, &[0; 1000]);
    script.expect_data(4, 1000);
}

#[test]
fn must_17_nagle_can_be_turned_off() {
    let (mut script, id) = with_window(60_000);
    let now = script.now();
    script.host().stack.tcp().0.set_option(id, TcpOption::NoDelay(true), now);
    for seq in 1..5 {
        script.write(id, b"x");
        script.expect_data(seq, 1);
    }
}

#[test]
fn shld_18_acknowledgements_are_delayed_and_cumulative() {
    let (mut script, id) = with_window(60_000);
    script.write(id, b"interactive");
    script.drain();
    script.send(seg("A", 1, 12).data(b"one"));
    script.nothing();
    script.wait(Duration::from_millis(39));
    script.nothing();
    script.wait(Duration::from_millis(461));
    script.expect("A", 12, 4);
    // SHLD-19: every second full-sized segment is acknowledged at once.
    script.send(seg("A", 4, 12).bytes(1000));
    script.send(seg("A", 1004, 12).bytes(1000));
    script.expect("A", 12, 2004);
}

#[test]
fn rfc5681_4_2_out_of_order_data_is_acknowledged_at_once() {
    let (mut script, _) = with_window(60_000);
    script.send(seg("A", 101, 1).bytes(100));
    script.expect("A", 1, 1);
    script.send(seg("A", 201, 1).bytes(100));
    script.expect("A", 1, 1);
    script.send(seg("A", 1, 1).bytes(100));
    script.expect("A", 1, 301);
    // So is what was there already.
    script.send(seg("A", 1, 1).bytes(100));
    script.expect("A", 1, 301);
}

#[test]
fn must_30_to_33_and_62_urgent_data_both_ways() {
    let (mut script, id) = with_window(60_000);
    script.send(seg("UA", 1, 1).urgent(3).data(b"urgent"));
    let info = script.host().stack.tcp().0.info(id).unwrap();
    assert_eq!(info.urgent, Some(3), "RFC 6093: the byte behind the urgent data");
    assert_eq!(script.read(id).unwrap(), b"urgent", "it stays in the stream");
    assert_eq!(script.host().stack.tcp().0.info(id).unwrap().urgent, None);
    script.drain();
    let host = script.host();
    host.stack.tcp().0.send_urgent(id, b"now!", &mut host.mem).unwrap();
    script.pump();
    let sent = script.expect_data(1, 4);
    assert!(sent.flags.contains('U'));
    assert_eq!(sent.urgent, 4);
    script.send(seg("A", 7, 5));
    script.write(id, b"calm");
    assert!(!script.next().flags.contains('U'));
}

#[test]
fn must_24_to_29_keep_alive() {
    let (mut script, id) = with_window(60_000);
    script.wait(Duration::from_secs(3 * 7200));
    script.nothing();
    let keep_alive =
        KeepAlive { idle: Duration::from_secs(100), interval: Duration::from_secs(10), probes: 3 };
    let now = script.now();
    script.host().stack.tcp().0.set_option(id, TcpOption::KeepAlive(Some(keep_alive)), now);
    script.wait(Duration::from_secs(101));
    let probe = script.next();
    assert_eq!((probe.seq, probe.data.len()), (0, 0), "SEG.SEQ = SND.NXT-1, no data (SHLD-12)");
    script.send(seg("A", 1, 1));
    script.wait(Duration::from_secs(95));
    script.nothing();
    // MUST-29: one unanswered probe ends nothing; three do.
    script.wait(Duration::from_secs(25));
    assert_eq!(script.state(id), TcpState::Established);
    script.wait(Duration::from_secs(20));
    assert_eq!(script.read(id), Err(ReceiveError::Connection(ConnectionError::TimedOut)));
}

#[test]
fn must_28_keep_alive_waits_two_hours() {
    assert_eq!(KeepAlive::default().idle, Duration::from_secs(7200));
}

#[test]
fn must_61_push_is_set_when_nothing_more_is_queued() {
    let (mut script, id) = with_window(60_000);
    script.write(id, &[0; 1500]);
    assert!(!script.expect_data(1, 1000).flags.contains('P'));
    script.send(seg("A", 1, 1001));
    assert!(script.expect_data(1001, 500).flags.contains('P'));
}
