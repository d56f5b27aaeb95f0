//! Every test over Roceway at both ends of a soft link, through the control protocol, with tiny
//! lengths. Nothing here asserts a time.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use roceway_perf::catalogue::{TESTS, find};
use roceway_perf::client;
use roceway_perf::control::message::{MESSAGE_BYTES, Message};
use roceway_perf::ends::{self, ADDRESSES, Handles, Opening, soft_pair};
use roceway_perf::kernel::SocketOptions;
use roceway_perf::local::with_server;
use roceway_perf::pacing::Rate;
use roceway_perf::recorder::{Until, Window};
use roceway_perf::roceway::Roceway;
use roceway_perf::transport::{Role, Transport, wait_for};
use roceway_perf::workload::{Outcome, Workload};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::fault::{FaultOptions, FaultyNic};
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::shared::Manner;
use roceway_runtime::{Prefix, WorkerConfig};

/// How long anything may take before a test is given up.
const PATIENCE_NS: u64 = 20_000_000_000;

/// An end with the default idle policy: tests share their cores with others.
fn opening(address: Ipv4Addr) -> Opening {
    let config = WorkerConfig::new(Prefix { address: address.into(), length: 24 });
    Opening { keep_end: true, ..Opening::new(config, SocketOptions::default()) }
}

fn run(workload: &Workload, options: &SoftOptions) -> Outcome {
    let nics = soft_pair(options).unwrap();
    let (outcome, states) = ends::pair(nics, &ADDRESSES.map(opening), workload, &mut |_| ())
        .unwrap_or_else(|error| panic!("{} {options:?}: {error}", workload.test.name));
    for state in &states {
        assert!(!state.counters.is_empty(), "{state:?}");
    }
    // Control and data connections are still open when the state is taken.
    assert!(!states[0].connections.is_empty(), "{states:?}");
    outcome
}

/// Runs `body` with a client's worker against a server over a soft link.
fn with_client(body: impl FnOnce(&mut Roceway, SocketAddr)) {
    let (here, there) = soft_pair(&SoftOptions::default()).unwrap();
    with_server(
        None,
        SocketAddr::new(ADDRESSES[1].into(), 0),
        move || opening(ADDRESSES[1]).start(there, "server").map_err(io::Error::other),
        |transport, server, stop| server.serve(transport, stop),
        |server| {
            let mut transport = opening(ADDRESSES[0]).start(here, "client").unwrap();
            transport.wait_for_link(PATIENCE_NS).unwrap();
            body(&mut transport, server);
            transport.worker().check_counters();
            Ok(())
        },
    )
    .unwrap();
}

fn workload(test: &'static roceway_perf::catalogue::Test) -> Workload {
    Workload {
        test,
        request: 1,
        response: 1,
        message: 1400,
        receive: 131_072,
        connections: 1,
        depth: 1,
        rate: None,
        window: Window {
            warmup: Duration::from_millis(5),
            until: Until::Elapsed(Duration::from_millis(50)),
            interval: None,
        },
        buffers: SocketOptions::default(),
    }
}

#[test]
fn every_test_moves_something_with_every_offload() {
    let plain = SoftOptions { large: false, csum: false, ..SoftOptions::default() };
    let frames = SoftOptions { large: false, ..SoftOptions::default() };
    for options in [SoftOptions::default(), plain, frames] {
        for test in &TESTS {
            let outcome = run(&workload(test), &options);
            let what = format!("{} {outcome:?}", test.name);
            assert!(outcome.counted.bytes > 0 && outcome.remote.bytes > 0, "{what}");
            assert_eq!(outcome.latency.is_some(), test.has_rtt(), "{what}");
        }
    }
}

/// Sockets between turns, and those for any thread in both manners, run every test too.
#[test]
fn every_test_moves_something_over_every_kind_of_socket() {
    let manners = [Manner::Owned, Manner::CallerDriven].map(Handles::Shared);
    for handles in [Handles::Between].into_iter().chain(manners) {
        for test in &TESTS {
            let nics = soft_pair(&SoftOptions::default()).unwrap();
            let ends = ADDRESSES.map(|address| Opening { handles, ..opening(address) });
            let (outcome, states) = ends::pair(nics, &ends, &workload(test), &mut |_| ())
                .unwrap_or_else(|error| panic!("{} {handles:?}: {error}", test.name));
            assert!(outcome.counted.bytes > 0 && outcome.remote.bytes > 0, "{handles:?}");
            assert!(outcome.cpu_ns > 0, "{} {handles:?}", test.name);
            assert!(states.iter().all(|state| !state.counters.is_empty()), "{handles:?}");
        }
    }
}

#[test]
fn many_connections_and_large_messages_share_a_worker() {
    for test in TESTS.iter().filter(|test| test.has_rtt() && test.name != "UDP_RR") {
        let mut work = workload(test);
        (work.connections, work.request, work.response) = (20, 5000, 20_000);
        work.window.warmup = Duration::ZERO;
        work.window.until = Until::Count(200);
        let outcome = run(&work, &SoftOptions::default());
        assert_eq!(outcome.counted.transactions, 200, "{}", test.name);
        assert_eq!(outcome.counted.bytes, 200 * 25_000, "{}", test.name);
    }
}

#[test]
fn requests_under_way_on_several_connections_are_counted_exactly() {
    for (test, connections, depth) in [("tcp_rr", 1, 64), ("tcp_rr", 8, 4), ("udp_rr", 4, 8)] {
        let mut work = workload(find(test).unwrap());
        (work.connections, work.depth) = (connections, depth);
        work.window.warmup = Duration::ZERO;
        work.window.until = Until::Count(4000);
        let outcome = run(&work, &SoftOptions::default());
        assert_eq!(outcome.counted.transactions, 4000, "{test} {connections} {depth}");
        let samples = outcome.latency.and_then(|latency| latency.summary());
        assert_eq!(samples.map(|summary| summary.count), Some(4000));
    }
}

#[test]
fn an_open_loop_never_exceeds_its_rate() {
    let mut work = workload(find("tcp_rr").unwrap());
    (work.connections, work.depth, work.rate) = (2, 64, Rate::new(2000.0));
    work.window.until = Until::Elapsed(Duration::from_millis(200));
    let counted = run(&work, &SoftOptions::default()).counted;
    // Those of the warm-up may be answered late; how many fewer depends on the machine's load.
    let due = counted.elapsed_ns / 500_000 + 2 * 64;
    assert!((1..=due).contains(&counted.transactions), "{counted:?}");
}

/// Runs a test over a link whose client's end has faults.
fn run_with_faults(workload: &Workload, faults: FaultOptions) -> Outcome {
    let (here, there) = soft_pair(&SoftOptions::default()).unwrap();
    let here = AnyNic::Faulty(Box::new(FaultyNic::new(here, faults).unwrap()));
    let (outcome, _) = ends::pair((here, there), &ADDRESSES.map(opening), workload, &mut |_| ())
        .unwrap_or_else(|error| panic!("{} {faults:?}: {error}", workload.test.name));
    outcome
}

#[test]
fn answers_that_come_twice_or_never_are_taken_for_no_others() {
    // One flow that is looked at in every pass, and many that are told when something came.
    for connections in [1, 8] {
        let mut work = workload(find("udp_rr").unwrap());
        (work.connections, work.depth) = (connections, 16);
        work.window.warmup = Duration::ZERO;
        work.window.until = Until::Count(4000);
        let faults =
            FaultOptions { loss: 0.002, duplicate: 0.05, reorder: 0.02, ..FaultOptions::default() };
        let counted = run_with_faults(&work, faults).counted;
        assert_eq!(counted.transactions, 4000, "{connections}: {counted:?}");
        assert!(counted.late > 20 && counted.lost > 0, "{connections}: {counted:?}");
    }
}

#[test]
fn many_streams_share_a_worker() {
    for test in TESTS.iter().filter(|test| !test.has_rtt()) {
        let mut work = workload(test);
        work.connections = 12;
        let outcome = run(&work, &SoftOptions::default());
        assert!(outcome.counted.bytes > 0 && outcome.remote.bytes > 0, "{}", test.name);
    }
}

/// Sends `bytes` on a control connection of its own; what comes back, until it has a message's
/// length or the server closes.
fn tell(transport: &mut Roceway, server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = client::open_quiet(transport, server, 1).unwrap().remove(0);
    let (mut sent, mut answer, mut part) = (0, Vec::new(), [0; MESSAGE_BYTES]);
    wait_for(transport, PATIENCE_NS, "answer", |transport| {
        if sent < bytes.len() {
            sent += transport.try_send(&mut stream, &bytes[sent..])?;
            return Err(ErrorKind::WouldBlock.into());
        }
        match transport.try_recv(&mut stream, &mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
        if answer.len() < MESSAGE_BYTES { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    })
    .unwrap();
    answer
}

#[test]
fn a_bad_client_is_answered_and_disturbs_nobody() {
    with_client(|transport, server| {
        for kind in [0, 1, 96, u32::MAX] {
            let answer = tell(transport, server, &Message::new(kind, 0).encode());
            let answer: &[u8; MESSAGE_BYTES] = answer.as_slice().try_into().unwrap();
            assert_ne!(Message::decode(answer).errno, 0, "type {kind}");
        }
        let all_ones = [0xff; MESSAGE_BYTES];
        assert!(!tell(transport, server, &all_ones).is_empty());
        let mut half = client::open_quiet(transport, server, 1).unwrap().remove(0);
        transport.try_send(&mut half, &[0; 100]).unwrap();
        // One that asks for a test and never opens its data connection, and one that goes away.
        drop(transport.connect(server, Role::Control, 0).unwrap());
        let outcome =
            client::test(transport, &workload(find("tcp_rr").unwrap()), server, &mut |_| ());
        assert!(outcome.unwrap().counted.transactions > 0);
        drop(half);
    });
}

#[test]
fn thousands_of_quiet_connections_leave_a_test_alone() {
    let mut client = opening(ADDRESSES[0]);
    client.idle_connections = 2000;
    let nics = soft_pair(&SoftOptions::default()).unwrap();
    let work = workload(find("tcp_rr").unwrap());
    let (outcome, states) =
        ends::pair(nics, &[client, opening(ADDRESSES[1])], &work, &mut |_| ()).unwrap();
    assert!(outcome.counted.transactions > 0);
    assert_eq!(states[0].connections.len(), 2002);
}
