//! Every test over Roceway at both ends of a soft link, through the control protocol, with tiny
//! lengths. Nothing here asserts a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use roceway_perf::catalogue::TESTS;
use roceway_perf::client;
use roceway_perf::kernel::SocketOptions;
use roceway_perf::local::with_server;
use roceway_perf::recorder::{Until, Window};
use roceway_perf::roceway::Roceway;
use roceway_perf::workload::{Outcome, Workload};
use roceway_runtime::local::Worker;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::{Prefix, WorkerConfig};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn worker(nic: SoftNic, address: Ipv4Addr) -> io::Result<Roceway> {
    let config = WorkerConfig::new(Prefix { address: IpAddr::V4(address), length: 24 });
    let worker = Worker::with_nic(AnyNic::from(nic), &config).map_err(io::Error::other)?;
    Ok(Roceway::new(worker, SocketOptions::default()))
}

fn run(workload: &Workload, options: &SoftOptions) -> Outcome {
    let (here, there) = SoftNic::pair(options).unwrap();
    with_server(
        None,
        SocketAddr::new(SERVER.into(), 0),
        move || worker(there, SERVER),
        |transport, server, stop| server.serve(transport, stop),
        |server| {
            let mut transport = worker(here, CLIENT).unwrap();
            transport.wait_for_link(5_000_000_000).unwrap();
            let outcome = client::test(&mut transport, workload, server, &mut |_| ());
            transport.worker().check_counters();
            outcome
        },
    )
    .unwrap_or_else(|error| panic!("{} {options:?}: {error}", workload.test.name))
}

fn workload(test: &'static roceway_perf::catalogue::Test) -> Workload {
    Workload {
        test,
        request: 1,
        response: 1,
        message: 1400,
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
