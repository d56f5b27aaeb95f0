//! The NIC modes rc and ud over the test-only double of libibverbs: frames, faults and ends.

mod rdma_world;

use std::time::{Duration, Instant};

use rdma_world::*;
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{Nic, NicEvent, PolledOne, PostError, spec};

fn messages(mode: &str, ports: (u16, u16), lengths: &[usize]) {
    let (mut first, mut second) = pair(mode, ports);
    assert!(first.events.contains(&NicEvent::LinkUp) && second.events.contains(&NicEvent::LinkUp));
    let (a, b) = (first.mac(), second.mac());
    let mut sends = 0;
    for &length in lengths {
        first.send(b, a, length).unwrap();
        let mut came = Vec::new();
        run(&mut [&mut first, &mut second], "a message", |ends| {
            came.extend(ends[1].receive());
            !came.is_empty()
        });
        assert_eq!(came, [length]);
        sends += 1;
    }
    assert_eq!(second.counter("wire_rx_delivered"), sends);
    // Far more than there are credits, one way only: updates keep it going.
    let (mut came, mut sent) = (0, 0);
    run(&mut [&mut first, &mut second], "600 messages", |ends| {
        ends[0].reap();
        ends[0].receive();
        while sent < 600 && ends[0].send(b, a, 80).is_ok() {
            sent += 1;
        }
        came += ends[1].receive().len();
        came >= 600
    });
    assert!(second.counter("wire_tx_updates") > 0);
    assert_eq!((second.counter("wire_violations"), first.counter("wire_violations")), (0, 0));
    // Somebody else's address, and this host's own.
    let before = second.counter("wire_rx_drop_mac");
    first.send(b, b, 80).unwrap();
    run(&mut [&mut first, &mut second], "a drop", |ends| {
        assert!(ends[1].receive().is_empty());
        ends[1].counter("wire_rx_drop_mac") == before + 1
    });
    first.check_conservation();
    second.check_conservation();
}

#[test]
fn frames_of_every_length_cross_rc() {
    with_double("frames_of_every_length_cross_rc", || {
        messages("rc", (21_796, 21_797), &[26, 80, 1514, 4096, 4097, 20_000, 65_562]);
    });
}

#[test]
fn frames_of_every_length_cross_ud() {
    with_double("frames_of_every_length_cross_ud", || {
        messages("ud", (21_798, 21_799), &[26, 80, 512, 970]);
    });
}

#[test]
fn a_peer_that_closes_is_gone_and_its_successor_is_found() {
    with_double("a_peer_that_closes_is_gone_and_its_successor_is_found", || {
        for (mode, port) in [("rc", 21_800), ("ud", 21_810)] {
            let (mut first, second) = pair(mode, (port, port + 1));
            drop(second);
            run(&mut [&mut first], "the end", |ends| ends[0].events.contains(&NicEvent::PeerGone));
            assert_eq!(first.counter("rdma_peers_up"), 0);
            let mac = first.mac();
            assert_eq!(first.send([0xff; 6], mac, 80), Err(PostError::LinkDown));
            let own = port + 1;
            let spec = format!("rdma:double1,mode={mode},gid=3,port={own},peer=127.0.0.1:{port}");
            let mut second = End::open(&spec);
            run(&mut [&mut first, &mut second], "a new session", is_up);
            first.send([0xff; 6], mac, 80).unwrap();
            run(&mut [&mut first, &mut second], "a broadcast", |ends| {
                !ends[1].receive().is_empty()
            });
        }
    });
}

/// A limit that was lost with the message that bore it is asked for also by one who only sends to
/// everyone: such frames wait for no credit.
#[test]
fn who_has_no_credit_for_a_broadcast_asks_for_some() {
    with_double("who_has_no_credit_for_a_broadcast_asks_for_some", || {
        let (mut first, mut second) = pair("ud", (21_964, 21_965));
        let (a, b) = (first.mac(), second.mac());
        control("lose double1 1000000");
        let mut before = None;
        run(&mut [&mut first, &mut second], "a probe after the end of all credit", |ends| {
            ends[0].reap();
            // What this end says is lost, and it takes its limit for told, until its own credit and
            // queue end, too.
            ends[1].receive();
            let _may_be_full = ends[1].send(a, b, 80);
            ends[1].reap();
            for _ in 0..16 {
                let probes = ends[0].counter("wire_tx_probes");
                ends[0].send([0xff; 6], a, 80).unwrap();
                if before.is_none() && ends[0].counter("wire_tx_drop_flood") > 0 {
                    before = Some(probes);
                }
            }
            // One that was sent when the session began may still wait for its answer.
            before.is_some_and(|before| ends[0].counter("wire_tx_probes") > before)
        });
        control("lose double1 0");
        let sent = first.counter("wire_tx_data");
        run(&mut [&mut first, &mut second], "credit", |ends| {
            ends[0].receive();
            ends[1].receive();
            ends[0].send([0xff; 6], a, 80).unwrap();
            ends[0].reap();
            ends[0].counter("wire_tx_data") > sent
        });
        second.check_conservation();
    });
}

/// Whoever has used all credit that it knows of is told of more when its messages are taken:
/// without a doorbell, which may have to wait for an application.
#[test]
fn a_peer_without_credit_is_told_before_the_doorbell() {
    with_double("a_peer_without_credit_is_told_before_the_doorbell", || {
        for (mode, port) in [("rc", 21_960), ("ud", 21_962)] {
            let (mut first, mut second) = pair(mode, (port, port + 1));
            let (a, b) = (first.mac(), second.mac());
            // What the sessions' beginning left to say is said.
            run(&mut [&mut first, &mut second], "a message", |ends| {
                let _no_matter = ends[0].send(b, a, 80);
                !ends[1].receive().is_empty()
            });
            let updates = second.counter("wire_tx_updates");
            while first.counter("wire_tx_waited") == 0 {
                first.send(b, a, 80).unwrap();
                first.reap();
            }
            // Long enough for all of them to arrive, so that one look finds them.
            std::thread::sleep(Duration::from_millis(200));
            let taken = second.receive().len();
            assert!(taken > 1, "{mode}: {taken}");
            assert_eq!(second.counter("wire_tx_updates"), updates + 1, "{mode}: after {taken}");
        }
    });
}

/// A session ends by `fault` and is replaced; frames cross again, and nothing is lost of the count.
fn recovers(mode: &str, port: u16, fault: &str) {
    let (mut first, mut second) = pair(mode, (port, port + 1));
    let (a, b) = (first.mac(), second.mac());
    first.send(b, a, 200).unwrap();
    run(&mut [&mut first, &mut second], "a message", |ends| !ends[1].receive().is_empty());
    let before = first.counter("wire_sessions_up");
    control(fault);
    run(&mut [&mut first, &mut second], fault, |ends| {
        // A fault may need traffic to show; while there is no session it is refused.
        let _no_matter = ends[0].send(b, a, 200);
        ends[0].reap();
        ends[0].receive();
        ends[1].receive();
        ends[0].counter("wire_sessions_up") > before && is_up(ends)
    });
    run(&mut [&mut first, &mut second], "messages again", |ends| {
        let _no_matter = ends[0].send(b, a, 200);
        ends[0].reap();
        ends[0].receive();
        !ends[1].receive().is_empty()
    });
    first.check_conservation();
    second.check_conservation();
    let posted = first.counter("rdma_receives_posted");
    assert!(posted >= 10, "receives were lost: {posted} of 10 are left");
}

#[test]
fn a_session_whose_queue_pair_failed_is_replaced() {
    with_double("a_session_whose_queue_pair_failed_is_replaced", || {
        let rows = [
            ("rc", "qp double0 all fatal"),
            ("rc", "wc double0 all retry_exc_err send"),
            ("rc", "wc double1 all loc_len_err recv"),
            ("ud", "qp double0 all fatal"),
            ("ud", "wc double0 all general_err send"),
        ];
        let mut port = 21_840;
        for (mode, fault) in rows {
            recovers(mode, port, fault);
            port += 2;
        }
    });
}

/// The queue pair of datagrams that fails while a message is lent is given up only afterwards: else
/// its receives came back, and that of the message with them, twice in the end.
#[test]
fn nobody_is_given_up_while_a_message_is_lent() {
    with_double("nobody_is_given_up_while_a_message_is_lent", || {
        let (mut first, mut second) = pair("ud", (21_990, 21_991));
        let (a, b) = (first.mac(), second.mac());
        // No more than one, so that the first end keeps its credit.
        first.send(b, a, 80).unwrap();
        run(&mut [&mut first, &mut second], "a message", |ends| !ends[1].receive().is_empty());
        let lent = lent_by(&mut first, &mut second, (a, b));
        control("wc double0 all general_err send");
        // The double hears it before all credit is used.
        std::thread::sleep(Duration::from_millis(100));
        // As a stack does that answers, and finds no room: it sends, rings and reaps.
        let limit = Instant::now() + Duration::from_secs(10);
        while first.counter("rdma_sends_failed") + first.counter("rdma_posts_failed") == 0 {
            assert!(Instant::now() < limit, "nothing failed");
            let _may_be_full = first.send(b, a, 80);
            first.reap();
        }
        first.reap();
        assert_eq!(first.counter("rdma_peers_up"), 1);
        first.nic.take_lent();
        first.post(lent);
        run(&mut [&mut first, &mut second], "another session", |ends| {
            let _no_matter = ends[0].send(b, a, 80);
            ends[0].reap();
            ends[0].receive();
            ends[1].receive();
            ends[0].counter("wire_sessions_up") > 1 && is_up(ends)
        });
        first.check_conservation();
        let posted = first.counter("rdma_receives_posted");
        assert!(posted >= 10, "receives were lost: {posted} of 10 are left");
    });
}

/// Sends frames from the second end until the first one lends one; what names its buffer.
fn lent_by(first: &mut End, second: &mut End, (a, b): ([u8; 6], [u8; 6])) -> u64 {
    let mut lent = None;
    run(&mut [first, second], "a message that is lent", |ends| {
        let _no_matter = ends[1].send(a, b, 80);
        ends[1].reap();
        match ends[0].nic.poll_recv_lent() {
            PolledOne::LentInTurn { wr_id, byte_len } => {
                assert_eq!(byte_len, 80);
                lent = Some(wr_id);
            }
            _ => drop(ends[0].receive()),
        }
        lent.is_some()
    });
    lent.expect("it was lent")
}

#[test]
fn a_device_that_failed_is_told_once_and_everything_comes_back() {
    with_double("a_device_that_failed_is_told_once_and_everything_comes_back", || {
        // The device that is gone for good comes last.
        let rows = [("ud", 21_862, "cq double1 err"), ("rc", 21_860, "fatal double0")];
        for (mode, port, fault) in rows {
            let (first, second) = pair(mode, (port, port + 1));
            let (mut hit, mut other) =
                if fault.contains("double0") { (first, second) } else { (second, first) };
            control(fault);
            let limit = Instant::now() + Duration::from_secs(10);
            let error = loop {
                assert!(Instant::now() < limit, "the failure was never told");
                other.maintain();
                hit.now_ns += 1_000_000;
                if let Err(error) = hit.nic.maintain(hit.now_ns) {
                    break error.to_string();
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            assert!(error.contains("fail"), "{error}");
            assert!(hit.nic.maintain(hit.now_ns + 1).is_ok());
            let mac = hit.mac();
            assert_eq!(hit.send([0xff; 6], mac, 80), Err(PostError::LinkDown));
            run(&mut [&mut other], "the end at the other side", |ends| {
                ends[0].counter("rdma_peers_up") == 0
            });
            drop(hit);
        }
    });
}

#[test]
fn hosts_that_do_not_fit_never_come_together() {
    with_double("hosts_that_do_not_fit_never_come_together", || {
        let spec = |own: u8, other: u8, more: &str| {
            let (port, to) = (21_820 + u16::from(own), 21_820 + u16::from(other) - 1);
            format!("rdma:double{own},gid=3,port={port},peer=127.0.0.{other}:{to},{more}")
        };
        let mut first = End::open(&spec(0, 2, "mode=rc,mtu=1500"));
        let mut second = End::open(&spec(1, 1, "mode=rc,mtu=1400"));
        run(&mut [&mut first, &mut second], "a refusal", |ends| {
            ends[0].counter("wire_refused") + ends[1].counter("wire_refused") > 0
        });
        assert_eq!(first.counter("rdma_peers_up") + second.counter("rdma_peers_up"), 0);
    });
}

#[test]
fn a_device_that_is_not_there_is_answered_with_those_that_are() {
    with_double("a_device_that_is_not_there_is_answered_with_those_that_are", || {
        let rows = [
            ("rdma:mlx5_9,mode=rc,peer=127.0.0.2", "double0"),
            ("rdma:double0,mode=rc,peer=127.0.0.2", "no usable GID"),
            ("rdma:double0,mode=ud,gid=3,peer=127.0.0.2,mtu=9000", "at most"),
        ];
        for (spec, wanted) in rows {
            let error = spec::open(spec).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{spec}: {error}");
        }
    });
}

#[test]
fn a_gid_that_changed_is_chosen_anew_and_sessions_are_made_again() {
    with_double("a_gid_that_changed_is_chosen_anew_and_sessions_are_made_again", || {
        for (mode, port) in [("rc", 21_870), ("ud", 21_880)] {
            let (first, second) = pair(mode, (port, port + 1));
            let (mut first, mut second) = (first, second);
            let (a, b) = (first.mac(), second.mac());
            let (before, moves) = (first.counter("wire_sessions_up"), |end: &End| {
                end.counter("rdma_gid_moves") + end.counter("rdma_gid_missing")
            });
            // Another entry: nothing that is in use.
            control("gid double0 2 10.77.9.9");
            run(&mut [&mut first, &mut second], "the news", |ends| {
                ends[0].counter("rdma_gid_changes") > 0
            });
            assert_eq!((moves(&first), first.counter("wire_sessions_up")), (0, before));
            // The one in use: an address of this host again, so that the other side finds it.
            control("gid double0 3 127.0.0.9");
            run(&mut [&mut first, &mut second], "a move", |ends| {
                ends[0].counter("rdma_gid_moves") == 1
            });
            assert!(first.events.contains(&NicEvent::LinkDown));
            control("gid double0 3 127.0.0.1");
            run(&mut [&mut first, &mut second], "a session again", |ends| {
                ends[0].counter("rdma_gid_moves") == 2
                    && ends[0].counter("wire_sessions_up") > before
                    && is_up(ends)
            });
            run(&mut [&mut first, &mut second], "a message", |ends| {
                let _no_matter = ends[0].send(b, a, 200);
                ends[0].reap();
                ends[0].receive();
                !ends[1].receive().is_empty()
            });
            assert!(!first.events.contains(&NicEvent::PeerGone), "the process lives");
            assert!(!second.events.contains(&NicEvent::PeerGone), "the process lives");
            first.check_conservation();
            second.check_conservation();
        }
    });
}

#[test]
fn of_several_hosts_the_one_that_is_gone_is_named() {
    with_double("of_several_hosts_the_one_that_is_gone_is_named", || {
        for (mode, port) in [("rc", 21_890), ("ud", 21_895)] {
            let to = |n: u16| format!("peer=127.0.0.{}:{}", n + 1, port + n);
            let spec = |own: u16, rest: &str| {
                format!("rdma:double{own},mode={mode},gid=3,port={},{rest}", port + own)
            };
            let mut first = End::open(&spec(0, &format!("{},{}", to(1), to(2))));
            let mut second = End::open(&spec(1, &to(0)));
            let mut third = End::open(&spec(2, &to(0)));
            run(&mut [&mut first, &mut second, &mut third], "two sessions", |ends| {
                ends[0].counter("rdma_peers_up") == 2
            });
            let mac = third.mac();
            drop(third);
            run(&mut [&mut first, &mut second], "the end of one", |ends| {
                ends[0].events.contains(&NicEvent::HostGone(mac))
            });
            assert_eq!(first.counter("rdma_peers_up"), 1);
            assert!(!first.events.contains(&NicEvent::PeerGone));
            drop(second);
            run(&mut [&mut first], "the end of the other", |ends| {
                ends[0].events.contains(&NicEvent::PeerGone)
            });
        }
    });
}

#[test]
fn the_last_of_a_list_that_was_not_signalled_completes_without_another() {
    with_double("the_last_of_a_list_that_was_not_signalled_completes_without_another", || {
        for (mode, port) in [("rc", 21_900), ("ud", 21_902)] {
            let (mut first, mut second) = pair(mode, (port, port + 1));
            let (a, b) = (first.mac(), second.mac());
            let post = |end: &mut End| end.post_frame((b, a), 80, false).unwrap();
            let reported = |first: &mut End, second: &mut End| {
                let mut found = 0;
                run(&mut [first, second], "a completion", |ends| {
                    ends[1].receive();
                    found += ends[0].nic.poll_send(&mut [EMPTY; 16]);
                    found > 0
                });
            };
            // Its poster learns only afterwards that nothing follows.
            post(&mut first);
            post(&mut first);
            assert!(first.nic.signal_last());
            first.nic.doorbell();
            reported(&mut first, &mut second);
            // And one that fails completes in any case, with nothing behind it.
            post(&mut first);
            first.nic.doorbell();
            second.nic.doorbell();
            run(&mut [&mut first, &mut second], "the message", |ends| {
                !ends[1].receive().is_empty()
            });
            first.check_conservation();
        }
    });
}

#[test]
fn a_device_that_is_removed_under_load_gives_every_send_back() {
    with_double("a_device_that_is_removed_under_load_gives_every_send_back", || {
        let (mut first, mut second) = pair("rc", (21_904, 21_905));
        let (a, b) = (first.mac(), second.mac());
        let mut sent = 0_usize;
        while sent < 100 && first.send(b, a, 20_000).is_ok() {
            sent += 1;
        }
        assert!(sent > 20, "there was load: {sent}");
        control("fatal double0");
        let limit = Instant::now() + Duration::from_secs(10);
        let mut back = 0;
        let mut failed = false;
        while !failed || back < sent {
            assert!(Instant::now() < limit, "{back} of {sent} came back");
            second.maintain();
            first.now_ns += 1_000_000;
            failed |= first.nic.maintain(first.now_ns).is_err();
            let mut out = [EMPTY; 16];
            back += first.nic.poll_send(&mut out);
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(back, sent, "each once");
        assert_eq!(first.send(b, a, 80), Err(PostError::LinkDown));
        run(&mut [&mut second], "the end at the other side", |ends| {
            ends[0].counter("rdma_peers_up") == 0
        });
    });
}

#[test]
fn how_hosts_find_each_other_is_chosen_and_told() {
    with_double("how_hosts_find_each_other_is_chosen_and_told", || {
        // The double has no connection manager, nor has its kernel.
        let open = |exchange: &str, port: u16| {
            let spec = format!(
                "rdma:double0,mode=rc,gid=3,port={port},peer=127.0.0.2:9,exchange={exchange}"
            );
            let told = |nic: AnyNic| {
                let all = nic.settings();
                all.into_iter().find(|(name, _)| *name == "exchange").unwrap().1
            };
            spec::open(&spec).map(told).map_err(|error| error.to_string())
        };
        assert_eq!(open("tcp", 21_906), Ok("TCP, 127.0.0.1 port 21906".to_owned()));
        let automatic = open("auto", 21_907).unwrap();
        assert!(automatic.starts_with("TCP, 127.0.0.1 port 21907 (no connection"), "{automatic}");
        let refused = open("cm", 21_908).unwrap_err();
        assert!(refused.contains("exchange=tcp") && refused.contains("double0"), "{refused}");
        let nonsense = open("cm2", 21_909).unwrap_err();
        assert!(nonsense.contains("auto, cm or tcp"), "{nonsense}");
    });
}
