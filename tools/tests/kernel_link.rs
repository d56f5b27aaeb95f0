//! A TAP or interface that goes down, or away, while connections are open: they recover or end,
//! and nothing spins or hangs. Skipped, loudly, without root.

mod kernel_world;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use kernel_world::*;

/// More turns than a worker that sleeps makes in [`PAUSE`], fewer than one that spins: 50 ms of
/// polling at most, and some dozen wake-ups.
const TURNS_MAX: u64 = 1_000_000;
const PAUSE: Duration = Duration::from_millis(1500);

/// Turns for a while, and checks that the worker slept for most of it.
fn sleeps(node: &Node) {
    let (turns, sleeps) = (node.counter("turns"), node.counter("sleeps"));
    node.run_for(PAUSE);
    let (turns, sleeps) = (node.counter("turns") - turns, node.counter("sleeps") - sleeps);
    assert!(turns < TURNS_MAX && sleeps > 0, "{turns} turns, {sleeps} sleeps: {}", node.state());
}

/// Takes the link away under a connection with data on the way, and gives it back.
fn down_and_up(world: &World, down: impl FnOnce(), up: impl FnOnce()) {
    let node = world.node();
    let (ours, theirs) = connection(world, &node, WAYS[0]);
    down();
    node.until("the news", || pending(node.counter("link_down") == 0)).unwrap();
    assert_eq!(ours.write(pattern(0, 100_000)).unwrap(), 100_000);
    let theirs = kernel_flow(theirs, 100_000);
    sleeps(&node);
    up();
    node.until("the news", || pending(node.counter("link_up") == 0)).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(node.read_all(&ours).unwrap(), 100_000);
    assert_eq!(node.join("the kernel's end", theirs), 100_000);
}

/// Deletes the interface under open connections.
fn deleted(world: &World, delete: impl FnOnce()) {
    let node = world.node();
    let (idle, _theirs) = connection(world, &node, WAYS[0]);
    let (busy, _theirs) = connection(world, &node, WAYS[1]);
    node.until("to write", || busy.write(pattern(0, 100_000))).unwrap();
    delete();
    for stream in [&idle, &busy] {
        let error = node.until("the end", || stream.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }
    assert_eq!(node.counter("device_removed"), 1, "{}", node.state());
    assert!(busy.write(b"x").is_err());
    sleeps(&node);
}

#[test]
fn a_tap_that_goes_down_and_up_keeps_its_connections() {
    in_namespace("a_tap_that_goes_down_and_up_keeps_its_connections", || {
        let world = World::tap("");
        down_and_up(&world, || ip("link set t0 down"), || ip("link set t0 up"));
    });
}

#[test]
fn a_tap_that_is_deleted_ends_its_connections() {
    in_namespace("a_tap_that_is_deleted_ends_its_connections", || {
        deleted(&World::tap(""), || ip("link del t0"));
    });
}

#[test]
fn an_interface_that_goes_down_and_up_keeps_its_connections() {
    in_namespace("an_interface_that_goes_down_and_up_keeps_its_connections", || {
        let world = World::veth("");
        down_and_up(&world, || ip("link set va down"), || ip("link set va up"));
        // When the far end goes down, the carrier goes.
        let far =
            |state: &'static str| world.in_kernel(move || ip(&format!("link set vb {state}")));
        down_and_up(&world, || far("down"), || far("up"));
    });
}

#[test]
fn an_interface_that_is_deleted_ends_its_connections() {
    in_namespace("an_interface_that_is_deleted_ends_its_connections", || {
        deleted(&World::veth(""), || ip("link del va"));
    });
}
