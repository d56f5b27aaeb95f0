//! Explicit congestion notification: RFC 3168 §6.1, and §5 for the codepoints.

use roceway_stack::frame::Offloads;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, EcnMode, TcpConfig};
use roceway_stack::time::Duration;

use crate::support::Setup;
use crate::support::script::{PEER_TS, Script, Seg, seg};

const NOT_ECT: u8 = 0;
const ECT_0: u8 = 2;
const CE: u8 = 3;

fn setup(ecn: EcnMode, v6: bool) -> Setup {
    let mut setup = Setup { v6, ..Setup::default() };
    setup.tcp.ecn = ecn;
    setup
}

/// A connection that uses ECN, opened by the peer.
fn established(v6: bool) -> (Script, Id<Connection>) {
    let mut script = Script::new(setup(EcnMode::Accept, v6));
    script.send(seg("SEW", 0, 0).mss(1000));
    let answer = script.expect("SAE", 0, 1);
    assert_eq!(answer.marks.1, NOT_ECT, "§6.1.1: no ECT on a SYN and ACK");
    script.send(seg("A", 1, 1));
    let id = script.world.accept(0, script.listener).expect("no connection to accept");
    (script, id)
}

fn uses_ecn(script: &mut Script, id: Id<Connection>) -> bool {
    script.host().stack.tcp().0.info(id).unwrap().ecn
}

fn cwnd(script: &mut Script, id: Id<Connection>) -> u32 {
    script.host().stack.tcp().0.info(id).unwrap().cwnd
}

#[test]
fn rfc3168_6_1_1_only_an_ecn_setup_syn_is_accepted() {
    let rows: [(&str, EcnMode, &str); 6] = [
        ("SEW", EcnMode::Accept, "SAE"),
        ("SEW", EcnMode::On, "SAE"),
        ("SEW", EcnMode::Off, "SA"),
        ("S", EcnMode::On, "SA"),
        ("SE", EcnMode::On, "SA"),
        ("SW", EcnMode::On, "SA"),
    ];
    for (syn, mode, answer) in rows {
        let mut script = Script::new(setup(mode, false));
        script.send(seg(syn, 0, 0).mss(1000));
        script.expect(answer, 0, 1);
        script.send(seg("A", 1, 1));
        let id = script.world.accept(0, script.listener).unwrap();
        assert_eq!(uses_ecn(&mut script, id), answer == "SAE", "{syn} {mode:?}");
        script.write(id, b"data");
        let marks = script.expect_data(1, 4).marks;
        assert_eq!(marks.1, if answer == "SAE" { ECT_0 } else { NOT_ECT });
    }
}

/// A connection opened by the stack, and the flags of its SYN.
fn opened(mode: EcnMode, answer: Seg) -> (Script, Id<Connection>, String) {
    let (mut script, id, syn) = Script::syn_sent(setup(mode, false));
    script.send(answer);
    script.drain();
    (script, id, syn.flags)
}

#[test]
fn rfc3168_6_1_1_an_opener_asks_and_believes_only_ece_alone() {
    for (mode, answer, sent, used) in [
        (EcnMode::On, "SAE", "SEW", true),
        (EcnMode::On, "SA", "SEW", false),
        (EcnMode::On, "SAEW", "SEW", false),
        (EcnMode::Accept, "SAE", "S", false),
        (EcnMode::Off, "SAE", "S", false),
    ] {
        let (mut script, id, syn) = opened(mode, seg(answer, 0, 1).mss(1000));
        assert_eq!(syn, sent, "{mode:?}");
        assert_eq!(uses_ecn(&mut script, id), used, "{mode:?} {answer}");
    }
}

#[test]
fn rfc3168_6_1_1_1_a_syn_that_was_lost_goes_again_without() {
    let (mut script, id, syn) = Script::syn_sent(setup(EcnMode::On, false));
    assert_eq!(syn.flags, "SEW");
    script.wait(Duration::from_millis(1500));
    assert_eq!(script.next().flags, "S");
    // The answer to the first one may come late.
    script.send(seg("SAE", 0, 1).mss(1000));
    assert!(uses_ecn(&mut script, id));
}

#[test]
fn rfc3168_6_1_3_marks_are_echoed_until_cwr() {
    for v6 in [false, true] {
        let (mut script, id) = established(v6);
        script.send_marked(seg("A", 1, 1).bytes(10), ECT_0);
        script.expect("A", 1, 11);
        script.send_marked(seg("A", 11, 1).bytes(10), CE);
        script.expect("AE", 1, 21);
        // Every acknowledgement says it, data of ours too.
        script.send_marked(seg("A", 21, 1).bytes(10), ECT_0);
        script.expect("AE", 1, 31);
        script.write(id, b"x");
        assert!(script.expect_data(1, 1).flags.contains('E'));
        script.send_marked(seg("AW", 31, 2).bytes(10), ECT_0);
        script.wait(Duration::from_millis(50));
        let after = script.drain().pop().expect("an acknowledgement");
        assert!(!after.flags.contains('E'), "CWR ends it: {after:?}");
        // A mark on the very segment that says CWR begins it anew.
        script.send_marked(seg("A", 41, 2).bytes(10), CE);
        script.drain();
        script.send_marked(seg("AW", 51, 2).bytes(10), CE);
        script.wait(Duration::from_millis(50));
        assert!(script.drain().pop().unwrap().flags.contains('E'));
        let counters = script.host().stack.tcp().0.counters();
        assert_eq!(counters.ecn_marked, 3);
    }
}

#[test]
fn rfc3168_6_1_3_each_mark_is_seen_between_predicted_segments() {
    let mut script = Script::new(setup(EcnMode::Accept, false));
    script.send(seg("SEW", 0, 0).mss(1000).ts(PEER_TS, 0));
    let echo = script.expect("SAE", 0, 1).options.timestamps.unwrap().value;
    script.send(seg("A", 1, 1).ts(PEER_TS, echo));
    let mut at = 1;
    for round in 0..20_u32 {
        let marked = round % 4 == 3;
        let flags = if round % 4 == 0 && round > 0 { "AW" } else { "A" };
        script.send_marked(
            seg(flags, at, 1).bytes(10).ts(PEER_TS, echo),
            if marked { CE } else { ECT_0 },
        );
        at += 10;
        let echoed = script.drain().iter().any(|sent| sent.flags.contains('E'));
        assert_eq!(echoed, marked, "round {round}");
    }
    let counters = script.host().stack.tcp().0.counters();
    assert_eq!(counters.ecn_marked, 5);
    assert!(counters.predicted > 5, "{}", counters.predicted);
}

#[test]
fn rfc3168_6_1_3_marks_outside_the_window_or_without_data_say_nothing() {
    let (mut script, _) = established(false);
    script.send_marked(seg("A", 1, 1).bytes(10), ECT_0);
    script.drain();
    script.send_marked(seg("A", 1, 1).bytes(10), CE);
    script.send_marked(seg("A", 11, 1), CE);
    script.send_marked(seg("A", 3_000_000, 1).bytes(10), CE);
    assert!(script.drain().iter().all(|sent| !sent.flags.contains('E')));
}

#[test]
fn rfc3168_6_1_2_an_echo_halves_once_a_window_and_cwr_says_so_once() {
    let (mut script, id) = established(false);
    script.write(id, &[0; 30_000]);
    assert_eq!(script.drain().len(), 10);
    let before = cwnd(&mut script, id);
    script.send(seg("AE", 1, 1001));
    let after = cwnd(&mut script, id);
    assert!(after < before, "{before} {after}");
    // The rest of this window says the same: nothing further.
    for n in 2..=10 {
        script.send(seg("AE", 1, n * 1000 + 1));
        assert!(cwnd(&mut script, id) <= after, "no growth by an acknowledgement with ECE");
    }
    let sent = script.drain();
    let with_cwr: Vec<bool> = sent.iter().map(|it| it.flags.contains('W')).collect();
    assert!(with_cwr[0] && with_cwr[1..].iter().all(|it| !it), "{with_cwr:?}");
    assert!(sent.iter().all(|it| it.marks.1 == ECT_0));
    let reductions = |script: &mut Script| script.host().stack.tcp().0.counters().ecn_reductions;
    assert_eq!(reductions(&mut script), 1);
    // The next window does it again.
    let end = sent.last().map(|it| it.seq + u32::try_from(it.data.len()).unwrap()).unwrap();
    script.send(seg("AE", 1, end));
    assert_eq!(reductions(&mut script), 2);
}

#[test]
fn rfc3168_6_1_2_a_loss_says_cwr_too() {
    let (mut script, id) = established(false);
    script.write(id, &[0; 30_000]);
    script.drain();
    for _ in 0..3 {
        script.send(seg("A", 1, 1));
    }
    let sent = script.drain();
    let lost = sent.iter().find(|it| it.seq == 1).expect("no retransmission");
    assert_eq!(lost.marks.1, NOT_ECT, "§6.1.5: no ECT on retransmissions");
    assert!(!lost.flags.contains('W'), "CWR is for new data");
    let end = sent.iter().map(|it| it.seq + u32::try_from(it.data.len()).unwrap()).max();
    script.send(seg("A", 1, end.unwrap()));
    let sent = script.drain();
    assert!(sent[0].flags.contains('W') && sent[0].marks.1 == ECT_0, "{:?}", sent[0]);
    assert!(sent[1..].iter().all(|it| !it.flags.contains('W')));
}

#[test]
fn rfc3168_6_1_4_and_6_1_6_acknowledgements_and_probes_are_not_capable() {
    for v6 in [false, true] {
        let (mut script, id) = established(v6);
        script.send_marked(seg("A", 1, 1).bytes(10), ECT_0);
        assert_eq!(script.expect("A", 1, 11).marks.1, NOT_ECT);
        script.send(seg("A", 11, 1).window(0));
        script.write(id, b"blocked");
        script.wait(Duration::from_secs(3));
        let probes = script.drain();
        assert!(!probes.is_empty());
        assert!(probes.iter().all(|it| it.marks.1 == NOT_ECT));
    }
}

#[test]
fn rfc3168_6_1_2_large_frames_bear_cwr_only_where_the_device_cuts_it_right() {
    for tso_ecn in [false, true] {
        let offloads = Offloads { tx_checksum: true, tso4: true, tso_ecn, ..Offloads::default() };
        let tcp = TcpConfig { ecn: EcnMode::On, ..TcpConfig::default() };
        let mut script = Script::new(Setup { offloads, tcp, ..Setup::default() });
        script.send(seg("SEW", 0, 0).mss(1000));
        script.expect("SAE", 0, 1);
        script.send(seg("A", 1, 1));
        let id = script.world.accept(0, script.listener).unwrap();
        script.write(id, &[0; 60_000]);
        assert_eq!(script.drain()[0].data.len(), 10_000);
        script.send(seg("AE", 1, 10_001));
        let sent = script.drain();
        assert!(sent[0].flags.contains('W'));
        assert_eq!(sent[0].data.len() > 1000, tso_ecn, "{}", sent[0].data.len());
    }
}
