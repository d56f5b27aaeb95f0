//! `roceway gateway` between Roceway on a wire and the kernel behind a TAP or an
//! interface: TCP, UDP and ICMP, both ways, in namespaces that the tests make. Skipped, loudly,
//! without root.

mod kernel_world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use kernel_world::*;
use serde_json::Value;

/// What must not happen where nothing is lost.
const NEVER: [&str; 3] = ["dropped_checksum", "header_checksum", "dropped_malformed"];
/// What a gateway between two hosts that behave has no reason to do.
const NO_DROPS: [&str; 7] = [
    "drop_short",
    "drop_source",
    "drop_elsewhere",
    "drop_too_long",
    "drop_no_room",
    "drop_refused",
    "drop_standing_by",
];

fn has_none_of(counters: &Value, names: &[&str]) {
    for side in ["wire", "host"] {
        for name in names {
            assert_eq!(counters[side][*name].as_u64().unwrap_or(0), 0, "{side} {name}: {counters}");
        }
    }
}

/// Everything that hosts ask of each other, through the gateway.
fn everything(mut world: World, bytes: u64) -> Value {
    let node = world.node();
    for way in WAYS {
        requests(&world, &node, way);
    }
    for way in [WAYS[0], WAYS[3]] {
        bulk(&world, &node, way, bytes);
    }
    for family in [0, 1] {
        from_us_in_sequence(&world, &node, family, 20);
        from_kernel_in_sequence(&world, &node, family, 20);
    }
    datagrams(&world, &node);
    pings(&world, &node);
    for name in NEVER {
        assert_eq!(node.counter(name), 0, "{name}: {}", node.state());
    }
    drop(node);
    let counters = world.gateway.take().unwrap().stop();
    has_none_of(&counters, &NO_DROPS);
    counters
}

#[test]
fn hosts_reach_each_other_through_a_gateway_to_a_tap() {
    in_namespace("hosts_reach_each_other_through_a_gateway_to_a_tap", || {
        let rows = [
            ("", "", true),
            ("", ",tso=off", true),
            ("", ",gro=off", true),
            (",large=off", "", true),
            (",csum=off", "", true),
            ("", ",csum=off", true),
            (",large=off", ",tso=off,gro=off", false),
        ];
        for (wire, tap, large) in rows {
            let counters = everything(World::behind_tap(Link::Soft, wire, tap), 4 << 20);
            let segments = |side: &str| counters[side]["segments"].as_u64().unwrap_or(0);
            assert_eq!(segments("wire") + segments("host") > 0, large, "{wire} {tap}: {counters}");
        }
    });
}

#[test]
fn hosts_reach_each_other_through_a_gateway_to_an_interface() {
    in_namespace("hosts_reach_each_other_through_a_gateway_to_an_interface", || {
        for options in ["", ",tso=off"] {
            everything(World::behind_veth(Link::Soft, "", options), 4 << 20);
        }
    });
}

#[test]
fn hosts_reach_each_other_through_a_gateway_to_rc() {
    with_double("hosts_reach_each_other_through_a_gateway_to_rc", || {
        in_namespace("hosts_reach_each_other_through_a_gateway_to_rc", || {
            for (wire, tap) in [("", ""), (",large=off", ""), ("", ",csum=off")] {
                everything(World::behind_tap(Link::Rc, wire, tap), 2 << 20);
            }
            everything(World::behind_veth(Link::Rc, "", ""), 2 << 20);
        });
    });
}

#[test]
fn hosts_reach_each_other_through_a_gateway_to_ud() {
    with_double("hosts_reach_each_other_through_a_gateway_to_ud", || {
        in_namespace("hosts_reach_each_other_through_a_gateway_to_ud", || {
            for (wire, tap) in [(",mtu=1500", ""), (",mtu=1500", ",gro=off")] {
                let world = World::behind_tap(Link::Ud, wire, tap);
                // A TAP without an MTU of its own has the wire's.
                let announced = &world.gateway.as_ref().unwrap().announced["settings"];
                assert_eq!(announced["host packets"], announced["wire packets"], "{announced}");
                everything(world, 1 << 20);
            }
        });
    });
}

#[test]
fn a_link_that_is_down_for_a_while_delays_and_a_deleted_one_ends_the_gateway() {
    let name = "a_link_that_is_down_for_a_while_delays_and_a_deleted_one_ends_the_gateway";
    in_namespace(name, || {
        let mut world = World::behind_tap(Link::Soft, "", "");
        let node = world.node();
        let (ours, mut theirs) = connection(&world, &node, WAYS[0]);
        ip("link set t0 down");
        node.write_all(&ours, b"ask").unwrap();
        node.run_for(Duration::from_millis(300));
        ip("link set t0 up");
        ip("neigh flush dev t0");
        let thread = world.kernel(move || {
            use std::io::{Read, Write};
            let mut bytes = [0; 3];
            theirs.read_exact(&mut bytes).unwrap();
            theirs.write_all(&bytes).unwrap();
            theirs
        });
        let mut reply = [0; 3];
        node.read_exact(&ours, &mut reply).unwrap();
        assert_eq!(&reply, b"ask");
        let theirs = node.join("the kernel's end", thread);
        ip("link del t0");
        let (code, told, said) = world.gateway.take().unwrap().end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("tap:t0") && said.contains("deleted"), "{said}");
        assert!(said.contains("remedy:"), "{said}");
        conserves(&told["counters"]);
        assert!(told["counters"]["host"]["link_down"].as_u64() >= Some(1), "{told}");
        // The gateway's process was the peer at the end of the wire: connections end with it.
        let error = node.until("the end", || ours.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        drop(theirs);
    });
}

#[test]
fn a_killed_gateway_is_succeeded_and_signals_are_answered() {
    in_namespace("a_killed_gateway_is_succeeded_and_signals_are_answered", || {
        let mut world = World::behind_tap(Link::Soft, "", "");
        let node = world.node();
        requests(&world, &node, WAYS[0]);
        let gateway = world.gateway.take().unwrap();
        gateway.signal("-USR1");
        node.run_for(Duration::from_millis(200));
        gateway.signal("-KILL");
        let (code, _, said) = gateway.end();
        assert_eq!(code, None);
        let told: Value = serde_json::from_str(&said).unwrap();
        assert!(told["counters"]["wire"]["forwarded"].as_u64() > Some(5), "{said}");
        drop(node);
        let mut world = World::behind_tap(Link::Soft, "", "");
        let node = world.node();
        requests(&world, &node, WAYS[1]);
        let gateway = world.gateway.take().unwrap();
        gateway.signal("-INT");
        assert_eq!(gateway.end().0, Some(0));
    });
}

#[test]
fn a_host_of_the_wire_and_two_behind_the_gateway_are_one_network() {
    in_namespace("a_host_of_the_wire_and_two_behind_the_gateway_are_one_network", || {
        // A bridge of the kernel's with the gateway's TAP and a veth pair to another host in it.
        let peer = veth();
        ip("link add br0 type bridge");
        ip("link set va master br0");
        let world = World::behind_tap(Link::Soft, "", "");
        ip("addr flush dev t0");
        ip("link set t0 master br0");
        ip("link set br0 up");
        ip("addr add 10.8.0.9/24 dev br0");
        let node = world.node();
        let near = std::net::TcpListener::bind("10.8.0.9:99").unwrap();
        let far = peer.run(|| std::net::TcpListener::bind("10.8.0.1:99").unwrap());
        for listener in [near, far] {
            let to: SocketAddr = listener.local_addr().unwrap();
            let thread = std::thread::spawn(move || accept(&listener));
            let ours = node.connect(to).unwrap();
            drop(node.join("the kernel's accept", thread));
            assert_eq!(node.read_all(&ours).unwrap(), 0);
        }
        drop(node);
        let mut world = world;
        let counters = world.gateway.take().unwrap().stop();
        assert!(counters["gateway"]["addresses"].as_u64() >= Some(3), "{counters}");
        has_none_of(&counters, &["drop_elsewhere", "drop_no_room", "drop_refused"]);
    });
}

#[test]
fn what_cannot_work_is_refused_with_cause_and_remedy() {
    let rows = [
        (["rdma:none0,mode=rc,peer=10.0.0.9", "tap:t0"], 1, "no RDMA"),
        (["rdma:none0", "tap:t0"], 2, "mode=rc or mode=ud"),
        (["tap:t1", "tap:t0"], 2, "is no wire"),
        (["soft:/tmp/x", "rdma:m,mode=rc,peer=10.0.0.9"], 2, "tap: or packet:"),
        (["soft:/tmp/x", "tap:t0,nonsense=1"], 2, "unknown option 'nonsense'"),
        (["soft:/nowhere/at/all/x.sock", "tap:t0"], 1, "/nowhere/at/all/x.sock"),
    ];
    for (devices, wanted, words) in rows {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_roceway"))
            .arg("gateway")
            .args(devices)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{devices:?}: {said}");
        assert!(said.contains(words), "{devices:?}: {said}");
        // A soft link finds out only when it runs.
        assert!(output.stdout.is_empty() || devices[0].starts_with("soft:"));
    }
}
