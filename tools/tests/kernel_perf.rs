//! The command's six tests over `tap:` against the kernel's sockets, both ways, in both families;
//! and the same with stock netperf and netserver at the other end, where they are to be had.

mod kernel_world;

use std::time::{Duration, Instant};

use kernel_world::*;

const ROCEWAY: &str = env!("CARGO_BIN_EXE_roceway");
const TESTS: [&str; 6] = ["tcp_rr", "tcp_stream", "tcp_maerts", "tcp_crr", "udp_rr", "udp_stream"];
/// A server is up and an attempt has worked within this time.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const DEVICE: &str = "tap:t0,up=on,addr=10.8.0.1/24,addr=fd00::1/64";
/// Roceway's end: its device and addresses.
const OURS: [&str; 6] = ["--device", DEVICE, "--address", "10.8.0.2/24", "--address", "fd00::2/64"];
const HOSTS: [&str; 2] = ["10.8.0.1", "fd00::1"];
const OWN: [&str; 2] = ["10.8.0.2", "fd00::2"];

/// Runs a client until it finds its server; returns what it said.
fn client(program: &str, arguments: &[&str]) -> String {
    let limit = Instant::now() + STARTS_WITHIN;
    loop {
        let (ok, out, err) = Program::start(program, arguments).unwrap().finish();
        if ok {
            return out;
        }
        assert!(Instant::now() < limit, "{program} {arguments:?}: {err}{out}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether a report of `test` tells of work done.
fn check_report(test: &str, json: &str) {
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    let key = if test.ends_with("rr") { "transactions_per_s" } else { "gbit_per_s" };
    let rows = report["rows"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row[key].as_f64() > Some(0.0)), "{json}");
}

/// `roceway perf TEST HOST` with further arguments.
fn measure(test: &str, host: &str, further: &[&str]) {
    let mut arguments = vec!["perf", test, host, "-l", "0.2", "--json"];
    arguments.extend(further);
    check_report(test, &client(ROCEWAY, &arguments));
}

fn server(arguments: &[&str]) -> Program {
    let mut all = vec!["perf", "server"];
    all.extend(arguments);
    Program::start(ROCEWAY, &all).unwrap()
}

#[test]
fn every_test_towards_the_kernels_sockets() {
    in_namespace("every_test_towards_the_kernels_sockets", || {
        allow_ipv6(true);
        let _server = server(&["--stack", "kernel", "--wait", "epoll"]);
        for test in TESTS {
            for host in HOSTS {
                measure(test, host, &OURS);
            }
        }
    });
}

#[test]
fn every_test_from_the_kernels_sockets() {
    in_namespace("every_test_from_the_kernels_sockets", || {
        allow_ipv6(true);
        let _server = server(&OURS);
        for test in TESTS {
            for host in OWN {
                measure(test, host, &["--stack", "kernel", "--wait", "block"]);
            }
        }
    });
}

/// Whether the stock programs are here; says so if not.
fn has_netperf(test: &str) -> bool {
    let found = ["netperf", "netserver"]
        .iter()
        .all(|program| Program::start(program, &["-V"]).map(Program::finish).is_ok());
    if !found {
        skipped(test, "there is no netperf; tools/test fetches it");
    }
    found
}

#[test]
fn every_test_towards_a_stock_netserver() {
    in_namespace("every_test_towards_a_stock_netserver", || {
        if !has_netperf("every_test_towards_a_stock_netserver") {
            return;
        }
        allow_ipv6(true);
        let _server = Program::start("netserver", &["-D", "-4"]).unwrap();
        for test in TESTS {
            measure(test, HOSTS[0], &OURS);
        }
    });
}

#[test]
fn every_test_from_a_stock_netperf() {
    in_namespace("every_test_from_a_stock_netperf", || {
        if !has_netperf("every_test_from_a_stock_netperf") {
            return;
        }
        allow_ipv6(true);
        let _server = server(&OURS);
        for test in TESTS {
            let name = test.to_uppercase();
            // -P 0 leaves numbers alone on standard output.
            let out = client("netperf", &["-H", OWN[0], "-t", &name, "-l", "1", "-P", "0"]);
            let largest = out
                .split_whitespace()
                .filter_map(|word| word.parse::<f64>().ok())
                .fold(0.0, f64::max);
            assert!(largest > 0.0, "{name}: {out}");
        }
    });
}
