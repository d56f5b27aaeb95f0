//! `packet:` on one end of a veth pair: against the kernel at the other end, in a namespace of its
//! own, and Roceway at both ends. Skipped, loudly, without root.

mod kernel_world;

use std::net::SocketAddr;
use std::time::Duration;

use kernel_world::*;
use roceway_runtime::WorkerConfig;
use roceway_runtime::local::{TcpListener, Worker};

#[test]
fn requests_connections_and_messages_over_a_veth() {
    in_namespace("requests_connections_and_messages_over_a_veth", || {
        let world = World::veth("");
        let node = world.node();
        for way in WAYS {
            requests(&world, &node, way);
        }
        for family in [0, 1] {
            from_us_in_sequence(&world, &node, family, 50);
            from_kernel_in_sequence(&world, &node, family, 50);
            at_once(&world, &node, family, 40);
        }
        datagrams(&world, &node);
        pings(&world, &node);
        unreachable_ports(&world, &node);
        for name in ["dropped_checksum", "header_checksum", "dropped_malformed"] {
            assert_eq!(node.counter(name), 0, "{}", node.state());
        }
    });
}

#[test]
fn bulk_over_a_veth_with_every_offload() {
    in_namespace("bulk_over_a_veth_with_every_offload", || {
        // The far end's own offloads must fit, since nobody segments on this wire.
        let rows = [
            ("", "on", "on"),
            (",bypass=off", "on", "on"),
            (",tso=off", "on", "on"),
            (",gro=off", "on", "off"),
            (",csum=off", "off", "off"),
        ];
        for (number, (options, checksum, tso)) in rows.into_iter().enumerate() {
            for mtu in [1500, 9000] {
                let world = World::veth(options);
                ip(&format!("link set va mtu {mtu}"));
                let set = world.in_kernel(move || {
                    ip(&format!("link set vb mtu {mtu}"));
                    let offloads = ["-K", "vb", "tx", checksum, "tso", tso, "gso", tso];
                    Program::start("ethtool", &offloads).is_ok_and(|program| program.finish().0)
                });
                if !set && checksum == "off" {
                    skipped("bulk_over_a_veth_with_every_offload, csum=off", "install ethtool");
                    continue;
                }
                let node = world.node();
                for way in [WAYS[number % 4], WAYS[(number + 2) % 4]] {
                    bulk(&world, &node, way, 8 << 20);
                }
                assert_eq!(node.counter("dropped_checksum"), 0, "{options} {mtu}");
                drop(node);
                ip("link del va");
            }
        }
    });
}

#[test]
fn roceway_at_both_ends_of_a_veth() {
    in_namespace("roceway_at_both_ends_of_a_veth", || {
        const TOTAL: u64 = 64 << 20;
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let to = SocketAddr::new(HOST[0], PORT);
        let server = std::thread::spawn(move || {
            let config = WorkerConfig::new("10.8.0.1/24".parse().unwrap());
            let node = Node { worker: Worker::open("packet:vb", &config).unwrap() };
            let listener = TcpListener::bind(&node.worker, to).unwrap();
            let mut flows = [Flow::new(node.accept(&listener), TOTAL)];
            node.run_flows(&mut flows);
            assert_eq!(flows[0].received, TOTAL);
            drop(flows);
            node.run_for(Duration::from_millis(200));
        });
        let config = WorkerConfig::new("10.8.0.2/24".parse().unwrap());
        let node = Node { worker: Worker::open("packet:va", &config).unwrap() };
        let stream = node.until("a listener", || retried(node.connect(to))).unwrap();
        let mut flows = [Flow::new(stream, TOTAL)];
        node.run_flows(&mut flows);
        assert_eq!(flows[0].received, TOTAL);
        drop(flows);
        node.join("the other end", server);
    });
}
