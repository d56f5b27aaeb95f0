//! Time to live and class of segments: RFC 9293 §3.9.1 (MUST-48, MUST-49), RFC 2474, RFC 3168.

use std::num::NonZeroU8;

use roceway_stack::ip::Mark;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, TcpOption};
use roceway_stack::time::Duration;

use crate::support::script::{PEER_TS, Script, seg};
use crate::support::{Setup, World};

/// Expedited forwarding, and both bits of ECN.
const CLASS: u8 = 0xbb;
/// What of it TCP sends: it does not use ECN.
const SENT: (u8, u8) = (7, 0xb8);

fn mark(script: &mut Script, id: Id<Connection>) {
    let now = script.now();
    let tcp = script.host().stack.tcp().0;
    let ttl = NonZeroU8::new(7).unwrap();
    tcp.set_option(id, TcpOption::Mark(Mark::Ttl(ttl)), now);
    tcp.set_option(id, TcpOption::Mark(Mark::Tos(CLASS)), now);
}

#[test]
fn must_48_49_every_segment_of_a_connection_is_marked_as_it_says() {
    for v6 in [false, true] {
        let syn = seg("S", 0, 0).mss(1000).ts(5, 0);
        let (mut script, id) = Script::established_with(Setup { v6, ..Setup::default() }, syn);
        script.write(id, b"plain");
        let plain = script.expect_data(1, 5);
        assert_eq!(plain.marks, (64, 0), "RFC 1122 §3.2.1.7, RFC 2474 §4.1");
        let echo = plain.options.timestamps.unwrap().value;
        script.send(seg("A", 1, 6).ts(PEER_TS, echo));
        mark(&mut script, id);
        // As long as the last one, and of another length: both kinds of sums follow.
        for (seq, data) in [(6, &b"short"[..]), (11, b"longer"), (17, b"longest")] {
            script.write(id, data);
            assert_eq!(script.expect_data(seq, data.len()).marks, SENT);
            let end = seq + u32::try_from(data.len()).unwrap();
            script.send(seg("A", 1, end).ts(PEER_TS, echo));
        }
        let marking = script.host().stack.tcp().0.marking(id).unwrap();
        assert_eq!((marking.ttl.get(), marking.tos), SENT);
        // A retransmission, and the reset that ends it.
        script.write(id, b"lost");
        script.wait(Duration::from_millis(1500));
        assert!(script.drain().iter().all(|sent| sent.marks == SENT));
        let host = script.host();
        host.stack.tcp().0.abort(id, &mut host.mem);
        script.pump();
        assert_eq!(script.expect_reset().marks, SENT);
    }
}

#[test]
fn must_48_49_a_syn_and_what_follows_are_marked() {
    let (mut script, id, syn) = Script::syn_sent(Setup::default());
    assert_eq!(syn.marks, (64, 0));
    mark(&mut script, id);
    script.wait(Duration::from_millis(1100));
    assert_eq!(script.expect("S", 0, 0_u32.wrapping_sub(script.peer_iss)).marks, SENT);
    script.send(seg("SA", 0, 1).mss(1000));
    assert_eq!(script.expect("A", 1, 1).marks, SENT, "through the handshake");
}

#[test]
fn must_48_49_what_a_listener_says_holds_for_its_connections() {
    let mut script = Script::new(Setup::default());
    let listener = script.listener;
    let tcp = script.host().stack.tcp().0;
    tcp.mark_listener(listener, Mark::Ttl(NonZeroU8::new(7).unwrap()));
    tcp.mark_listener(listener, Mark::Tos(CLASS));
    let marking = tcp.listener_marking(listener).unwrap();
    assert_eq!((marking.ttl.get(), marking.tos), SENT);
    script.send(seg("S", 0, 0).mss(1000));
    assert_eq!(script.expect("SA", 0, 1).marks, SENT);
    script.send(seg("A", 1, 1));
    let id = script.world.accept(0, listener).unwrap();
    script.write(id, b"x");
    assert_eq!(script.expect_data(1, 1).marks, SENT);
    // To the end, TIME-WAIT included.
    script.send(seg("A", 1, 2));
    script.close(id);
    script.expect("FA", 2, 1);
    script.send(seg("FA", 1, 3));
    assert_eq!(script.expect("A", 3, 2).marks, SENT);
    script.send(seg("FA", 1, 3));
    assert_eq!(script.expect("A", 3, 2).marks, SENT, "from TIME-WAIT");
    // Others are not marked.
    script.peer_port += 1;
    script.send(seg("A", 5, 5));
    assert_eq!(script.expect_reset().marks, (64, 0));
}

#[test]
fn a_class_costs_neither_end_the_fast_path() {
    let mut world = World::new(Setup::default());
    let (client, server) = world.pair();
    let now = world.now;
    let tcp = world.hosts[0].stack.tcp().0;
    tcp.set_option(client, TcpOption::Mark(Mark::Tos(CLASS)), now);
    let mut out = [0; 16];
    for _ in 0..100 {
        assert_eq!(world.write(0, client, b"ping"), 4);
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.read(1, server, &mut out), Some(4));
        assert_eq!(world.write(1, server, b"pong"), 4);
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.read(0, client, &mut out), Some(4));
    }
    for host in 0..2 {
        let predicted = world.counters(host).predicted;
        assert!(predicted > 95, "host {host}: only {predicted} segments were predicted");
    }
}
