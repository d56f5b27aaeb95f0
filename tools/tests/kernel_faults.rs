//! Bulk between Roceway and the kernel over a TAP that loses, duplicates, reorders and corrupts, on
//! the way in and on the way out. Skipped, loudly, without root.

mod kernel_world;

use kernel_world::*;

#[test]
fn every_byte_arrives_over_a_bad_wire() {
    in_namespace("every_byte_arrives_over_a_bad_wire", || {
        let rows = [
            "loss=1%",
            "loss=1%,dup=1%,reorder=1%",
            "loss=1%,dup=1%,reorder=1%,sends=on",
            "loss=1%,dup=1%,reorder=1%,sends=on,tso=off,gro=off",
            "loss=1%,dup=1%,reorder=1%,corrupt=1%",
            "reorder=10%,dup=10%",
        ];
        for (number, options) in rows.into_iter().enumerate() {
            let world = World::tap(&format!(",{options},seed={number}"));
            let node = world.node();
            for way in [WAYS[number % 4], WAYS[(number + 2) % 4]] {
                bulk(&world, &node, way, 8 << 20);
            }
            let faults = ["fault_lost", "fault_duplicated", "fault_reordered"];
            let seen: u64 = faults.iter().map(|name| node.counter(name)).sum();
            assert!(seen > 0, "{options}: {}", node.state());
            if options.contains("sends=on,tso=off") {
                for name in ["fault_sends_lost", "fault_sends_duplicated", "fault_sends_reordered"]
                {
                    assert!(node.counter(name) > 0, "{options}: {}", node.state());
                }
            }
            if options.contains("corrupt") {
                assert!(node.counter("dropped_checksum") > 0, "{options}: {}", node.state());
            }
        }
    });
}
