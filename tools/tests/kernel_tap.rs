//! `tap:` against the kernel's TCP, UDP and ICMP, both ways and in both families, each test in a
//! network namespace of its own. Skipped, loudly, without root.

mod kernel_world;

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use kernel_world::*;
use roceway_runtime::stack::tcp::{KeepAlive, Readiness};
use roceway_runtime::stack::time;

/// What must not happen where nothing is lost.
const NEVER: [&str; 4] =
    ["dropped_checksum", "header_checksum", "resets_sent", "dropped_malformed"];

#[test]
fn requests_are_answered_both_ways() {
    in_namespace("requests_are_answered_both_ways", || {
        let world = World::tap("");
        let node = world.node();
        for way in WAYS {
            requests(&world, &node, way);
        }
        assert_eq!(node.counter("retransmissions"), 0, "{}", node.state());
    });
}

#[test]
fn bulk_both_ways_with_every_offload() {
    in_namespace("bulk_both_ways_with_every_offload", || {
        let rows = ["", ",tso=off", ",gro=off", ",tso=off,gro=off", ",csum=off"];
        for (number, options) in rows.into_iter().enumerate() {
            for mtu in [1500, 9000] {
                let world = World::tap(&format!(",mtu={mtu}{options}"));
                let node = world.node();
                for way in [WAYS[number % 4], WAYS[(number + 2) % 4]] {
                    bulk(&world, &node, way, 16 << 20);
                }
                for name in NEVER {
                    assert_eq!(node.counter(name), 0, "{options} {mtu}: {}", node.state());
                }
            }
        }
    });
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    in_namespace("one_direction_ends_and_the_other_goes_on", || {
        let world = World::tap("");
        let node = world.node();
        for way in WAYS {
            // We end first: the kernel sees the end, and still sends.
            let (ours, theirs) = connection(&world, &node, way);
            ours.shutdown(Shutdown::Write).unwrap();
            let thread = world.kernel(move || {
                assert_eq!(kernel_reads(&theirs).unwrap(), 0);
                kernel_writes(&theirs, 3_000_000).unwrap();
            });
            assert_eq!(ours.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(node.read_all(&ours).unwrap(), 3_000_000);
            node.join("the kernel's end", thread);
            // The kernel ends first.
            let (ours, theirs) = connection(&world, &node, way);
            theirs.shutdown(Shutdown::Write).unwrap();
            assert_eq!(node.read_all(&ours).unwrap(), 0);
            let thread = world.kernel(move || kernel_reads(&theirs).unwrap());
            let mut sent = 0;
            while sent < 3_000_000 {
                let bytes = pattern(sent, usize::try_from(3_000_000 - sent).unwrap());
                node.write_all(&ours, bytes).unwrap();
                sent += bytes.len() as u64;
            }
            drop(ours);
            assert_eq!(node.join("the kernel's end", thread), 3_000_000);
        }
        for name in NEVER {
            assert_eq!(node.counter(name), 0, "{}", node.state());
        }
    });
}

#[test]
fn resets_end_connections_on_both_sides() {
    in_namespace("resets_end_connections_on_both_sides", || {
        let world = World::tap("");
        let node = world.node();
        for way in WAYS {
            let (ours, theirs) = connection(&world, &node, way);
            reset(theirs);
            let error = node.until("the reset", || ours.read(&mut [0])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            let (ours, theirs) = connection(&world, &node, way);
            ours.abort();
            let thread = world.kernel(move || kernel_reads(&theirs).unwrap_err().kind());
            assert_eq!(node.join("the kernel's end", thread), ErrorKind::ConnectionReset);
            // Closed with data unread: RFC 9293 §3.6 (and RFC 2525 §2.17) ask for a reset.
            let (ours, theirs) = connection(&world, &node, way);
            kernel_writes(&theirs, 1000).unwrap();
            node.until("data", || pending(!ours.readiness().contains(Readiness::READABLE)))
                .unwrap();
            drop(ours);
            let thread = world.kernel(move || kernel_reads(&theirs).unwrap_err().kind());
            assert_eq!(node.join("the kernel's end", thread), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn closed_ports_refuse_connections() {
    in_namespace("closed_ports_refuse_connections", || {
        let world = World::tap("");
        let node = world.node();
        for family in [0, 1] {
            let error = node.connect(SocketAddr::new(HOST[family], 9)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let to = SocketAddr::new(US[family], 9);
            let thread = world.kernel(move || connect(to).unwrap_err().kind());
            assert_eq!(node.join("the kernel's connect", thread), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn connections_in_sequence_and_at_once() {
    in_namespace("connections_in_sequence_and_at_once", || {
        let world = World::tap("");
        let node = world.node();
        for family in [0, 1] {
            from_us_in_sequence(&world, &node, family, 200);
            from_kernel_in_sequence(&world, &node, family, 200);
            at_once(&world, &node, family, 200);
        }
        for name in NEVER {
            assert_eq!(node.counter(name), 0, "{}", node.state());
        }
    });
}

#[test]
fn datagrams_of_every_size_both_ways() {
    in_namespace("datagrams_of_every_size_both_ways", || {
        let world = World::tap("");
        let node = world.node();
        datagrams(&world, &node);
        for name in NEVER {
            assert_eq!(node.counter(name), 0, "{}", node.state());
        }
    });
}

#[test]
fn the_kernel_pings() {
    in_namespace("the_kernel_pings", || {
        let world = World::tap("");
        let node = world.node();
        pings(&world, &node);
        assert_eq!(node.counter("icmp_checksum"), 0, "{}", node.state());
    });
}

#[test]
fn closed_udp_ports_are_reported_both_ways() {
    in_namespace("closed_udp_ports_are_reported_both_ways", || {
        let world = World::tap("");
        unreachable_ports(&world, &world.node());
    });
}

#[test]
fn a_narrow_path_is_found_out_in_both_directions() {
    in_namespace("a_narrow_path_is_found_out_in_both_directions", || {
        // Behind the TAP the kernel is a router; the path to the far host is narrower than both
        // ends can see, and the far host offers a full-sized MSS.
        let world = World::tap("");
        let far = Peer::new();
        ip("link add r0 type veth peer name r1");
        ip(&format!("link set r1 netns {}", far.thread_id()));
        for (place, on) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            std::fs::write(format!("/proc/sys/net/{place}"), on).unwrap();
        }
        ip("addr add 10.9.0.1/24 dev r0");
        ip("addr add fd09::1/64 dev r0 nodad");
        ip("link set r0 mtu 1300 up");
        far.run(|| {
            allow_ipv6(true);
            ip("addr add 10.9.0.2/24 dev r1");
            ip("addr add fd09::2/64 dev r1 nodad");
            ip("link set r1 up");
            ip("route add 10.8.0.0/24 via 10.9.0.1 advmss 1460");
            ip("route add fd00::/64 via fd09::1 advmss 1440");
        });
        let mut config = World::config();
        config.gateways = HOST.to_vec();
        let node = world.node_with(&config);
        for address in ["10.9.0.2", "fd09::2"] {
            let to: std::net::IpAddr = address.parse().unwrap();
            let listener = far.run(move || std::net::TcpListener::bind((to, 0)).unwrap());
            let stream = node.connect(listener.local_addr().unwrap()).unwrap();
            let theirs = accept(&listener);
            // What the far host sends is held to its own interface, which is wide: lower it too.
            let thread = far.run(move || kernel_flow(theirs, 0));
            let mut flows = [Flow::new(stream, 4 << 20)];
            node.run_flows(&mut flows);
            assert_eq!(node.join("the far end", thread), 4 << 20);
        }
        assert!(node.counter("icmp_errors") >= 2, "{}", node.state());
        // The kernel's own route narrowed: it sends and asks for less, and still all arrives.
        ip("route change 10.8.0.0/24 dev t0 mtu 1000");
        ip("-6 route replace fd00::/64 dev t0 proto kernel metric 256 mtu 1280");
        for way in WAYS {
            bulk(&world, &node, way, 1 << 20);
        }
    });
}

#[test]
fn who_does_not_read_stops_the_sender_and_loses_nothing() {
    in_namespace("who_does_not_read_stops_the_sender_and_loses_nothing", || {
        let world = World::tap("");
        let node = world.node();
        for way in [WAYS[0], WAYS[3]] {
            // The kernel's reader sleeps until both its buffer and ours are full.
            let (ours, theirs) = connection(&world, &node, way);
            let reader = world.kernel(move || {
                std::thread::sleep(Duration::from_millis(1500));
                kernel_reads(&theirs).unwrap()
            });
            let mut flow = Flow::new(ours, 24 << 20);
            flow.ended = true;
            node.run_flows(std::slice::from_mut(&mut flow));
            drop(flow);
            assert_eq!(node.join("the reader", reader), 24 << 20);
            // And ours.
            let (ours, theirs) = connection(&world, &node, way);
            let writer = world.kernel(move || {
                kernel_writes(&theirs, 24 << 20).unwrap();
                theirs.shutdown(Shutdown::Write).unwrap();
            });
            node.run_for(Duration::from_millis(1500));
            assert_eq!(node.read_all(&ours).unwrap(), 24 << 20);
            node.join("the writer", writer);
        }
        assert!(node.counter("window_probes") >= 1, "{}", node.state());
    });
}

#[test]
fn keep_alive_asks_and_answers_and_notices_who_is_gone() {
    in_namespace("keep_alive_asks_and_answers_and_notices_who_is_gone", || {
        let world = World::tap("");
        let node = world.node();
        let time = time::Duration::from_millis;
        let often = KeepAlive { idle: time(100), interval: time(100), probes: 5 };
        // We ask, the kernel answers.
        let (ours, theirs) = connection(&world, &node, WAYS[0]);
        ours.set_keep_alive(Some(often));
        node.run_for(Duration::from_millis(1000));
        assert!(node.counter("keep_alive_probes") >= 3, "{}", node.state());
        assert_eq!(node.counter("timed_out"), 0);
        // The kernel asks, we answer.
        let (quiet, asking) = connection(&world, &node, WAYS[2]);
        keep_alive_every_second(&asking, 1);
        node.run_for(Duration::from_millis(3500));
        assert!(asking.take_error().unwrap().is_none());
        kernel_writes(&asking, 1).unwrap();
        assert_eq!(node.until("a byte", || quiet.read(&mut [0])).unwrap(), 1);
        // Now the kernel falls silent.
        ip("link set t0 arp off");
        ip("route add blackhole 10.8.0.2/32");
        let error = node.until("the end", || ours.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(theirs);
    });
}
