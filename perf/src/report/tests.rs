//! Reports of made-up outcomes: what stands where.

use std::time::Duration;

use super::*;
use crate::catalogue::find;
use crate::histogram::Latency;
use crate::kernel::SocketOptions;
use crate::recorder::{Counted, Window};
use crate::workload::Remote;

fn host() -> Host {
    Host { cpu: "A CPU".into(), cpus: 2, kernel: "Linux 6".into(), build: "roceway 0".into() }
}

fn place() -> Place {
    Place { stack: "kernel".into(), device: "loopback".into(), mode: Some("spin".into()) }
}

fn workload(test: &str) -> Workload {
    Workload {
        test: find(test).unwrap(),
        request: 1,
        response: 1,
        message: 65_536,
        receive: 131_072,
        connections: 1,
        depth: 1,
        rate: None,
        window: Window {
            warmup: Duration::ZERO,
            until: Until::Elapsed(Duration::from_secs(2)),
            interval: None,
        },
        buffers: SocketOptions::default(),
    }
}

fn outcome(latency: Option<Latency>, transactions: u64, bytes: u64) -> Outcome {
    let remote =
        Remote { cpu_ns: Some(1_000_000_000), transactions, bytes, elapsed_ns: 2_000_000_000 };
    let counted = Counted { transactions, bytes, elapsed_ns: 2_000_000_000, ..Counted::default() };
    Outcome { counted, latency, samples: Vec::new(), cpu_ns: 2_000_000_000, remote }
}

#[test]
fn a_transaction_report_reads_so() {
    let mut latency = Latency::new();
    (0..1000).for_each(|_| latency.record(6300));
    let (workload, outcome) = (workload("tcp_rr"), outcome(Some(latency), 1000, 2000));
    let (settings, host, place) = (settings(&workload), host(), place());
    let report = TestReport {
        settings,
        host,
        place,
        workload: &workload,
        outcome: &outcome,
        states: Vec::new(),
    };
    let expected = "\
options: test TCP_RR; request,response 1,1 B; connections 1; under way 1; rate closed loop;
         length 2 s; warm-up 0 s; send buffer automatic; receive buffer automatic
cpu:     A CPU, 2 online
kernel:  Linux 6
build:   roceway 0

RTT p50                6.303 us
RTT p90                6.303 us
RTT p99                6.303 us
RTT p99.9              6.303 us
RTT max                6.303 us
RTT mean               6.302 us
transactions           1000
transactions/s         500
lost                   0
elapsed                2.000 s
CPU this end           2.000 s
CPU other end          1.000 s
CPU/transaction, both  3000.000 us
CPU/GB, both           1500000.000 s
";
    assert_eq!(report.text(), expected);
}

#[test]
fn a_json_row_has_the_fields_of_its_test_and_null_for_the_others() {
    let (workload, outcome) = (workload("tcp_stream"), outcome(None, 0, 4_000_000_000));
    let (settings, host, place) = (settings(&workload), host(), place());
    let report = TestReport {
        settings,
        host,
        place,
        workload: &workload,
        outcome: &outcome,
        states: Vec::new(),
    };
    let document: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    let expected = serde_json::json!({
        "test": "TCP_STREAM", "stack": "kernel", "device": "loopback", "mode": "spin",
        "p50_ns": null, "p99_ns": null, "p999_ns": null, "transactions_per_s": null,
        "gbit_per_s": 16.0, "cpu_s_per_gbyte": 0.75, "cpu_s_per_transaction": null,
        "message_bytes": 65_536,
    });
    assert_eq!(document["rows"][0], expected);
    assert_eq!(document["options"]["message"], "65536 B");
    assert_eq!(document["options"]["receive call"], "131072 B");
}

#[test]
fn tables_are_aligned() {
    let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "22.5".into()]];
    assert_eq!(columns(&["name", "us"], &rows, 1), "name    us\na        1\nlong  22.5\n");
}
