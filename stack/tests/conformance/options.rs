//! Options: RFC 7323 (window scale, timestamps, PAWS), RFC 2018 (SACK as a receiver).

use roceway_stack::tcp::{ReceiveError, TcpConfig, TcpState};
use roceway_stack::time::Duration;

use crate::support::script::{PEER_ISS, PEER_TS, Script, Sent, seg};
use crate::support::{Random, Setup};

fn blocks(sent: &Sent) -> Vec<(u32, u32)> {
    let relative = |it: u32| it.wrapping_sub(PEER_ISS);
    sent.options.sack.iter().map(|it| (relative(it.start.get()), relative(it.end.get()))).collect()
}

#[test]
fn rfc7323_1_3_options_are_offered_and_only_then_used() {
    let (_, _, syn) = Script::syn_sent(Setup::default());
    assert_eq!(syn.options.window_scale, Some(5), "1 MiB >> 5 fits in 16 bits");
    assert!(syn.options.sack_permitted && syn.options.timestamps.is_some());
    let rows = [
        (seg("S", 0, 0), (false, false, false)),
        (seg("S", 0, 0).scale(3), (true, false, false)),
        (seg("S", 0, 0).sack_permitted(), (false, true, false)),
        (seg("S", 0, 0).ts(1, 0), (false, false, true)),
        (seg("S", 0, 0).scale(3).sack_permitted().ts(1, 0), (true, true, true)),
    ];
    for (syn, expected) in rows {
        let mut script = Script::new(Setup::default());
        script.send(syn);
        let answer = script.next().options;
        let got =
            (answer.window_scale.is_some(), answer.sack_permitted, answer.timestamps.is_some());
        assert_eq!(got, expected);
    }
}

#[test]
fn rfc7323_what_is_turned_off_is_not_offered() {
    let tcp = TcpConfig { timestamps: false, sack: false, ..TcpConfig::default() };
    let (_, _, syn) = Script::syn_sent(Setup { tcp, ..Setup::default() });
    assert!(!syn.options.sack_permitted && syn.options.timestamps.is_none());
}

#[test]
fn rfc7323_2_2_windows_are_scaled_but_not_on_a_syn() {
    let syn = seg("S", 0, 0).mss(1000).scale(2).window(4000);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    // The handshake's ACK had window 4000: 16,000 bytes. The congestion window is 10 segments.
    script.write(id, &[0; 30_000]);
    assert_eq!(script.drain().len(), 10);
    let info = script.host().stack.tcp().0.info(id).unwrap();
    assert_eq!((info.snd_wnd, info.window_scales), (16_000, Some((5, 2))));
    // Ours: 1 MiB in units of 32 bytes, and never scaled on the SYN and ACK.
    let mut script = Script::new(Setup::default());
    script.send(seg("S", 0, 0).scale(2));
    assert_eq!(script.next().window, 65_535);
    script.send(seg("A", 1, 1));
    script.send(seg("A", 1, 1).bytes(1).window(9));
    assert!(u32::from(script.next().window) << 5 >= (1 << 20) - 1);
}

#[test]
fn rfc7323_2_3_a_shift_above_14_counts_as_14() {
    let syn = seg("S", 0, 0).mss(1000).scale(200);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    let info = script.host().stack.tcp().0.info(id).unwrap();
    assert_eq!(info.window_scales, Some((5, 14)));
}

#[test]
fn rfc7323_3_2_timestamps_are_on_every_segment_and_echo_the_right_one() {
    let syn = seg("S", 0, 0).mss(1000).ts(PEER_TS, 0);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.send(seg("A", 1, 1).data(b"x").ts(PEER_TS + 5, 0));
    assert_eq!(script.next().options.timestamps.unwrap().echo, PEER_TS + 5);
    // RFC 7323 §4.3: data ahead of a gap does not change what is echoed.
    script.send(seg("A", 10, 1).data(b"ahead").ts(PEER_TS + 9, 0));
    assert_eq!(script.next().options.timestamps.unwrap().echo, PEER_TS + 5);
    script.write(id, b"ours");
    assert_eq!(script.next().options.timestamps.unwrap().echo, PEER_TS + 5);
    script.read(id).unwrap();
    script.close(id);
    assert!(script.drain().iter().all(|it| it.options.timestamps.is_some()));
}

#[test]
fn rfc7323_3_2_a_segment_without_timestamps_is_dropped() {
    let syn = seg("S", 0, 0).mss(1000).ts(PEER_TS, 0);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.send(seg("A", 1, 1).data(b"bare"));
    script.nothing();
    assert_eq!(script.read(id), Err(ReceiveError::WouldBlock));
    // But a reset needs none.
    script.send(seg("R", 1, 0));
    assert_eq!(script.state(id), TcpState::Closed);
}

#[test]
fn rfc7323_5_3_paws() {
    let syn = seg("S", 0, 0).mss(1000).ts(PEER_TS, 0);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    for old in [PEER_TS - 1, PEER_TS.wrapping_sub(1 << 30), PEER_TS.wrapping_add((1 << 31) + 1)] {
        script.send(seg("A", 1, 1).data(b"old").ts(old, 0));
        script.expect("A", 1, 1);
    }
    assert_eq!(script.read(id), Err(ReceiveError::WouldBlock));
    assert_eq!(script.host().stack.tcp().0.counters().paws_rejected, 3);
    script.send(seg("A", 1, 1).data(b"new").ts(PEER_TS, 0));
    assert_eq!(script.read(id).unwrap(), b"new");
}

#[test]
fn rfc7323_5_5_after_24_days_of_silence_paws_says_nothing() {
    let syn = seg("S", 0, 0).mss(1000).ts(PEER_TS, 0);
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.wait(Duration::from_secs(25 * 24 * 3600));
    script.send(seg("A", 1, 1).data(b"hello again").ts(PEER_TS - 1000, 0));
    assert_eq!(script.read(id).unwrap(), b"hello again");
}

#[test]
fn rfc7323_5_4_timestamp_offsets_differ_between_peers() {
    let value = |peer_port| {
        let mut script = Script::new(Setup::default());
        script.peer_port = peer_port;
        script.send(seg("S", 0, 0).ts(1, 0));
        script.next().options.timestamps.unwrap().value
    };
    assert_ne!(value(1000), value(1001));
}

#[test]
fn rfc2018_4_the_latest_block_comes_first_and_earlier_ones_follow() {
    let syn = seg("S", 0, 0).mss(1000).sack_permitted();
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.send(seg("A", 101, 1).bytes(100));
    assert_eq!(blocks(&script.next()), [(101, 201)]);
    script.send(seg("A", 301, 1).bytes(100));
    assert_eq!(blocks(&script.next()), [(301, 401), (101, 201)]);
    script.send(seg("A", 501, 1).bytes(100));
    assert_eq!(blocks(&script.next()), [(501, 601), (301, 401), (101, 201)]);
    script.send(seg("A", 201, 1).bytes(100));
    assert_eq!(blocks(&script.next()), [(101, 401), (501, 601)]);
    // Data segments carry the blocks too, and stay within the MSS.
    script.write(id, &[0; 4000]);
    for sent in script.drain() {
        assert!(!blocks(&sent).is_empty() && sent.data.len() <= 980, "{}", sent.data.len());
    }
    script.send(seg("A", 1, 1).bytes(100));
    let filled = script.drain().pop().unwrap();
    assert_eq!((filled.ack, blocks(&filled)), (401, vec![(501, 601)]));
}

#[test]
fn rfc2018_3_no_more_blocks_than_fit_beside_timestamps() {
    let syn = seg("S", 0, 0).mss(1000).sack_permitted().ts(PEER_TS, 0);
    let (mut script, _) = Script::established_with(Setup::default(), syn);
    for n in 1..10 {
        script.send(seg("A", n * 100, 1).bytes(10).ts(PEER_TS, 0));
    }
    assert_eq!(blocks(&script.drain().pop().unwrap()).len(), 3);
}

#[test]
fn rfc2018_without_permission_no_blocks_are_sent() {
    let (mut script, _) = Script::established();
    script.send(seg("A", 101, 1).bytes(100));
    assert!(blocks(&script.next()).is_empty());
}

#[test]
fn out_of_order_data_of_both_ends_does_not_stop_new_data() {
    let syn = seg("S", 0, 0).mss(1000).sack_permitted();
    let (mut script, id) = Script::established_with(Setup::default(), syn);
    script.send(seg("A", 101, 1).bytes(100));
    script.drain();
    script.write(id, &[0; 5000]);
    let sent = script.drain();
    let sizes: Vec<usize> = sent.iter().map(|it| it.data.len()).collect();
    assert_eq!(sizes, [988; 5], "full segments with a block each; Nagle holds the rest back");
}

#[test]
fn must_7_malformed_options_do_no_harm() {
    let mut random = Random::new(7);
    let (mut script, id) = Script::established();
    for seq in 1..=2000 {
        let len = 4 * random.index(11);
        let mut options: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        if let Some(first) = options.first_mut() {
            *first = random.of(&[2, 3, 4, 5, 8, 0, 1, 30, 254]);
        }
        script.send(seg("A", seq, 1).option(&options).data(b"z"));
    }
    assert_eq!(script.read(id).unwrap().len(), 2000);
}
