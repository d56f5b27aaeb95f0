//! Every test over the kernel's loopback in every manner of waiting, through the control protocol,
//! with tiny lengths. Nothing here asserts a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roceway_perf::catalogue::{TESTS, find};
use roceway_perf::client;
use roceway_perf::control::message::{MESSAGE_BYTES, Message};
use roceway_perf::kernel::{Kernel, SocketOptions, Waiting};
use roceway_perf::local::{self, Cores};
use roceway_perf::pacing::Rate;
use roceway_perf::recorder::{Until, Window};
use roceway_perf::server::Server;
use roceway_perf::workload::{Outcome, Workload};

const MANNERS: [Waiting; 3] = [Waiting::Spin, Waiting::Block, Waiting::Epoll];

fn workload(test: &str) -> Workload {
    Workload {
        test: find(test).unwrap(),
        request: 1,
        response: 1,
        message: 1400,
        receive: 131_072,
        connections: 1,
        depth: 1,
        rate: None,
        window: Window {
            warmup: Duration::from_millis(5),
            until: Until::Elapsed(Duration::from_millis(30)),
            interval: Some(Duration::from_millis(10)),
        },
        buffers: SocketOptions::default(),
    }
}

fn run(waiting: Waiting, workload: &Workload) -> Outcome {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    local::kernel(waiting, workload, Cores::default(), any, &mut |_| ())
        .unwrap_or_else(|error| panic!("{} {waiting}: {error}", workload.test.name))
}

#[test]
fn every_test_moves_something_in_every_manner() {
    for waiting in MANNERS {
        for test in &TESTS {
            let work = workload(test.name);
            let outcome = run(waiting, &work);
            let what = format!("{} {waiting}: {outcome:?}", test.name);
            assert!(outcome.counted.bytes > 0, "{what}");
            assert_eq!(outcome.latency.is_some(), test.has_rtt(), "{what}");
            assert!(outcome.remote.bytes > 0 && outcome.remote.cpu_ns.is_some(), "{what}");
            if let Some(latency) = &outcome.latency {
                let samples = latency.summary().map_or(0, |summary| summary.count);
                assert_eq!(samples, outcome.counted.transactions, "{what}");
                assert!(outcome.remote.transactions >= outcome.counted.transactions, "{what}");
            }
        }
    }
}

#[test]
fn a_count_is_reached_exactly_over_several_connections() {
    for waiting in MANNERS {
        for (test, burst) in [("tcp_rr", 0), ("tcp_rr", 7), ("udp_rr", 0), ("tcp_crr", 0)] {
            let mut work = workload(test);
            work.connections = 3;
            work.depth = 1 + burst;
            work.window =
                Window { warmup: Duration::ZERO, until: Until::Count(300), interval: None };
            let outcome = run(waiting, &work);
            assert_eq!(outcome.counted.transactions, 300, "{test} {waiting} {outcome:?}");
        }
    }
}

#[test]
fn sizes_that_fit_no_buffer_arrive() {
    for waiting in MANNERS {
        let mut work = workload("tcp_rr");
        (work.request, work.response) = (300_000, 1_000_000);
        work.window = Window { warmup: Duration::ZERO, until: Until::Count(3), interval: None };
        let outcome = run(waiting, &work);
        assert_eq!(outcome.counted.bytes, 3 * 1_300_000, "{waiting}");
        assert_eq!(outcome.remote.transactions, 3, "{waiting}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let mut work = workload("tcp_rr");
    work.connections = 2;
    work.depth = 64;
    work.rate = Rate::new(2000.0);
    work.window.until = Until::Elapsed(Duration::from_millis(200));
    for waiting in [Waiting::Spin, Waiting::Epoll] {
        let counted = run(waiting, &work).counted;
        // Those of the warm-up may be answered late; how many fewer depends on the machine's load.
        let due = counted.elapsed_ns / 500_000 + 2 * 64;
        assert!((1..=due).contains(&counted.transactions), "{waiting}: {counted:?}");
    }
}

#[test]
fn both_families_work() {
    let any = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    if std::net::TcpListener::bind(any).is_err() {
        println!("SKIPPED both_families_work: no IPv6 loopback");
        return;
    }
    for test in ["tcp_rr", "udp_rr", "tcp_crr"] {
        let outcome =
            local::kernel(Waiting::Spin, &workload(test), Cores::default(), any, &mut |_| ());
        assert!(outcome.unwrap().counted.transactions > 0, "{test}");
    }
}

/// Sets the flag also if its thread panics.
struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_server_listens_on_both_families() {
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    if std::net::TcpListener::bind(v6).is_err() {
        println!("SKIPPED one_server_listens_on_both_families: no IPv6 loopback");
        return;
    }
    for waiting in [Waiting::Spin, Waiting::Epoll] {
        let mut kernel = Kernel::new(waiting, SocketOptions::default()).unwrap();
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut server = Server::listen(&mut kernel, v4).unwrap();
        let port = server.addresses(&kernel).unwrap()[0].port();
        server.also_listen(&mut kernel, (Ipv6Addr::UNSPECIFIED, port).into()).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _end = StopsAtEnd(&stop);
                for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                    let to = SocketAddr::new(ip, port);
                    let mut own = Kernel::new(waiting, SocketOptions::default()).unwrap();
                    for test in ["tcp_rr", "udp_rr"] {
                        let mut work = workload(test);
                        work.window.warmup = Duration::ZERO;
                        work.window.until = Until::Count(20);
                        let outcome = client::test(&mut own, &work, to, &mut |_| ());
                        assert_eq!(outcome.unwrap().counted.transactions, 20, "{waiting} {to}");
                    }
                }
            });
            server.serve(&mut kernel, &stop).unwrap();
        });
    }
}

/// Runs `body` against a spinning server.
fn with_server(body: impl FnOnce(SocketAddr)) {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let open = || Kernel::new(Waiting::Spin, SocketOptions::default());
    let serve = |kernel: &mut Kernel, server: &mut Server<Kernel>, stop: &Arc<AtomicBool>| {
        server.serve(kernel, stop)
    };
    let body = |server| {
        body(server);
        Ok(())
    };
    local::with_server(None, any, open, serve, body).unwrap();
}

#[test]
fn a_bad_client_is_answered_and_disturbs_nobody() {
    with_server(|server| {
        for kind in [0, 1, 96, u32::MAX] {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.write_all(&Message::new(kind, 0).encode()).unwrap();
            let mut answer = [0; MESSAGE_BYTES];
            stream.read_exact(&mut answer).unwrap();
            assert_ne!(Message::decode(&answer).errno, 0, "type {kind}");
        }
        let mut half = TcpStream::connect(server).unwrap();
        half.write_all(&[0; 100]).unwrap();
        let mut none = TcpStream::connect(server).unwrap();
        none.write_all(&[97; 5 * MESSAGE_BYTES]).unwrap();
        drop(none);
        let mut kernel = Kernel::new(Waiting::Spin, SocketOptions::default()).unwrap();
        let outcome = client::test(&mut kernel, &workload("tcp_rr"), server, &mut |_| ());
        assert!(outcome.unwrap().counted.transactions > 0);
        drop(half);
    });
}

#[test]
fn a_server_that_is_none_is_named() {
    let mut kernel = Kernel::new(Waiting::Spin, SocketOptions::default()).unwrap();
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = nobody.local_addr().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = nobody.accept().unwrap();
            let _ = stream.write_all(&[b'x'; MESSAGE_BYTES]);
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let failed = client::test(&mut kernel, &workload("tcp_rr"), address, &mut |_| ());
        stop.store(true, Ordering::Relaxed);
        assert!(failed.unwrap_err().to_string().contains("refused"));
    });
    drop(nobody);
    let failed = client::test(&mut kernel, &workload("tcp_rr"), address, &mut |_| ());
    let error = failed.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.remedy().contains("perf server"), "{error}");
}
