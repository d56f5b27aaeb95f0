//! Medians over repetitions and over each round's ratios, and the table with its two honest lines.

use serde::Serialize;

use super::{Block, Document, Measured};
use crate::arithmetic::median;
use crate::report::{Row, columns, number};

/// What the reader of a comparison must not forget.
const HONEST: &str = "\
soft is two cores that share memory, not a NIC: no bus, no cable, no switch is in these figures.
On a real wire both sides gain the same cable time, so there the ratios are smaller.
";

/// Why a stream's copies may be unknown.
const UNCOUNTED: &str = "\
copies of a stream that are `-` were not counted: sockets of the kernel copy each byte once at
either end, by construction; of a TAP one end is the kernel's.
";

/// A ratio of two rows: the median over the rounds in which both were measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// Of what, and of what to what.
    pub name: String,
    /// The ratio.
    pub value: f64,
}

/// The fields of a row that are medians.
const FIELDS: [fn(&mut Row) -> &mut Option<f64>; 9] = [
    |row| &mut row.p50_ns,
    |row| &mut row.p99_ns,
    |row| &mut row.p999_ns,
    |row| &mut row.transactions_per_s,
    |row| &mut row.gbit_per_s,
    |row| &mut row.cpu_s_per_gbyte,
    |row| &mut row.cpu_s_per_transaction,
    |row| &mut row.cycles,
    |row| &mut row.copies_per_byte,
];

/// A row's name in pictures.
fn name_of(row: &Row) -> String {
    let mode = row.mode.as_deref().unwrap_or_default();
    format!("{} {} {mode} {}", row.stack, row.device, row.test)
}

fn is_same(a: &Row, b: &Row) -> bool {
    (&a.test, &a.stack, &a.device, &a.mode, a.message_bytes)
        == (&b.test, &b.stack, &b.device, &b.mode, b.message_bytes)
}

/// Makes medians and distributions of what was measured in which round, rows in the order of the
/// contenders.
pub(super) fn reduce(block: &mut Block, measured: &[(usize, Measured)]) {
    let last = measured.iter().map(|(round, _)| *round).max().unwrap_or(0);
    block.rounds = vec![Vec::new(); last + 1];
    for (round, one) in measured {
        block.rounds[*round].push(one.row.clone());
    }
    block.rounds.retain(|round| !round.is_empty());
    for (_, first) in measured {
        if block.rows.iter().any(|row| is_same(row, &first.row)) {
            continue;
        }
        let all = measured.iter().map(|(_, one)| one);
        let all: Vec<&Measured> = all.filter(|one| is_same(&one.row, &first.row)).collect();
        let mut row = first.row.clone();
        for field in FIELDS {
            let values: Vec<f64> =
                all.iter().filter_map(|one| *field(&mut one.row.clone())).collect();
            *field(&mut row) = median(&values);
        }
        let mut latencies = all.iter().filter_map(|one| one.latency.as_ref());
        if let Some(first) = latencies.next() {
            let mut sum = first.clone();
            latencies.for_each(|latency| sum.add(latency));
            block.latencies.push((name_of(&row), sum));
        }
        block.rows.push(row);
    }
}

/// One side of a ratio: which row.
struct Side(&'static str, &'static str, Option<&'static str>);

/// Which figure of its rows a ratio compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    /// The median round trip.
    P50,
    /// The throughput of a stream.
    Stream,
    /// Transactions a second.
    Rate,
}

/// A ratio that a comparison gives.
struct Wanted {
    name: &'static str,
    test: &'static str,
    figure: Figure,
    /// Bytes of a stream's message, of both sides.
    message: Option<u64>,
    dividend: Side,
    divisor: Side,
    /// What Roceway aims at; empty if nothing is aimed at.
    aim: &'static str,
}

const fn rr(
    name: &'static str,
    test: &'static str,
    dividend: Side,
    divisor: Side,
    aim: &'static str,
) -> Wanted {
    Wanted { name, test, figure: Figure::P50, message: None, dividend, divisor, aim }
}

const fn stream(
    name: &'static str,
    message: u64,
    dividend: Side,
    divisor: Side,
    aim: &'static str,
) -> Wanted {
    let (test, figure, message) = ("TCP_STREAM", Figure::Stream, Some(message));
    Wanted { name, test, figure, message, dividend, divisor, aim }
}

/// netperf's message size, and the larger one.
const NETPERF: u64 = 16_384;
const LARGE: u64 = 65_536;

const LINE: Side = Side("line", "soft", None);
const LINE_PAIR: Side = Side("line", "soft", Some("pair"));
const LINK: Side = Side("link", "soft", Some("copy"));
const LINK_ZERO: Side = Side("link", "soft", Some("zero-copy"));
const LINK_ZERO_LARGE: Side = Side("link", "soft", Some("zero-copy/64k"));
const BARE: Side = Side("bare", "soft", Some("copy"));
const BARE_ZERO: Side = Side("bare", "soft", Some("zero-copy"));
const BARE_ZERO_LARGE: Side = Side("bare", "soft", Some("zero-copy/64k"));
const SOFT: Side = Side("roceway", "soft", Some("copy"));
const ZERO: Side = Side("roceway", "soft", Some("zero-copy"));
const ZERO_LARGE: Side = Side("roceway", "soft", Some("zero-copy/64k"));
const CSUM: Side = Side("roceway", "soft", Some("copy+csum"));
const FRAMES: Side = Side("roceway", "soft", Some("copy/1500"));
const FRAMES_CSUM: Side = Side("roceway", "soft", Some("copy/1500+csum"));
const IDLE: Side = Side("roceway", "soft", Some("copy, 10k idle"));
const ACTIVE: Side = Side("roceway", "soft", Some("copy, 1000"));
const RESTED: Side = Side("roceway", "soft", Some("copy, rested"));
const SPIN: Side = Side("kernel", "loopback", Some("spin"));
const BLOCK: Side = Side("kernel", "loopback", Some("block"));
const EPOLL: Side = Side("kernel", "loopback", Some("epoll, 1000"));
const BLOCK_RESTED: Side = Side("kernel", "loopback", Some("block, rested"));
const VETH: Side = Side("roceway", "veth", Some("copy"));
const SMOLTCP: Side = Side("smoltcp", "soft", Some("copy"));
const SMOLTCP_FRAMES: Side = Side("smoltcp", "soft", Some("copy/1500"));
const SMOLTCP_FRAMES_CSUM: Side = Side("smoltcp", "soft", Some("copy/1500+csum"));
const LWIP: Side = Side("lwip", "soft", Some("copy"));
const LWIP_FRAMES: Side = Side("lwip", "soft", Some("copy/1500"));
const LWIP_FRAMES_CSUM: Side = Side("lwip", "soft", Some("copy/1500+csum"));
const TAP: Side = Side("roceway", "tap", Some("copy"));
const CHURN: Side = Side("roceway", "soft", Some("client closes"));
const KERNEL_CHURN: Side = Side("kernel", "loopback", None);
const VETH_SPIN: Side = Side("kernel", "veth", Some("spin"));

/// Every ratio. `bare` is what any TCP has to do on the link; `kernel` is the kernel spinning over
/// loopback unless the name says otherwise.
const RATIOS: [Wanted; 39] = [
    rr("tcp_rr link/line", "TCP_RR", LINK, LINE, "at most 2"),
    rr("tcp_rr link/line, a line each way", "TCP_RR", LINK, LINE_PAIR, ""),
    rr("tcp_rr roceway/link", "TCP_RR", SOFT, LINK, "at most 1.5"),
    rr("tcp_rr roceway/link, checksums computed", "TCP_RR", CSUM, LINK, ""),
    rr("tcp_rr kernel/roceway", "TCP_RR", SPIN, SOFT, "at least 12"),
    rr("tcp_rr kernel blocking/roceway", "TCP_RR", BLOCK, SOFT, ""),
    rr("udp_rr kernel/roceway", "UDP_RR", SPIN, SOFT, ""),
    stream("tcp_stream roceway/link, 64 KiB messages", LARGE, SOFT, LINK, "at least 0.85"),
    stream("tcp_stream roceway/link, zero-copy", LARGE, ZERO, LINK_ZERO, "at least 0.85"),
    stream(
        "tcp_stream roceway/link, zero-copy, 64 KiB buffers",
        LARGE,
        ZERO_LARGE,
        LINK_ZERO_LARGE,
        "at least 0.85",
    ),
    stream("tcp_stream roceway/bare, 64 KiB messages", LARGE, SOFT, BARE, "at least 0.95"),
    stream("tcp_stream roceway/bare, zero-copy", LARGE, ZERO, BARE_ZERO, "at least 0.95"),
    stream(
        "tcp_stream roceway/bare, zero-copy, 64 KiB buffers",
        LARGE,
        ZERO_LARGE,
        BARE_ZERO_LARGE,
        "at least 0.95",
    ),
    stream("tcp_stream bare/link", LARGE, BARE, LINK, ""),
    stream("tcp_stream bare/link, zero-copy", LARGE, BARE_ZERO, LINK_ZERO, ""),
    stream(
        "tcp_stream bare/link, zero-copy, 64 KiB buffers",
        LARGE,
        BARE_ZERO_LARGE,
        LINK_ZERO_LARGE,
        "",
    ),
    stream("tcp_stream 4/64 KiB buffers, zero-copy", LARGE, ZERO, ZERO_LARGE, "at least 0.9"),
    stream("tcp_stream roceway/kernel, zero-copy", LARGE, ZERO, SPIN, "at least 1.7"),
    stream("tcp_stream roceway/kernel", NETPERF, SOFT, SPIN, "at least 1.3"),
    stream("tcp_stream roceway/kernel, 64 KiB messages", LARGE, SOFT, SPIN, "at least 1.3"),
    stream("tcp_stream roceway at MTU 1500/kernel", NETPERF, FRAMES, SPIN, "at least 0.45"),
    stream(
        "tcp_stream roceway at MTU 1500/kernel, checksums computed",
        NETPERF,
        FRAMES_CSUM,
        SPIN,
        "at least 0.3",
    ),
    rr("tcp_rr smoltcp/roceway", "TCP_RR", SMOLTCP, SOFT, ""),
    rr("udp_rr smoltcp/roceway", "UDP_RR", SMOLTCP, SOFT, ""),
    stream("tcp_stream roceway/smoltcp, MTU 1500", NETPERF, FRAMES, SMOLTCP_FRAMES, "at least 1.2"),
    stream(
        "tcp_stream roceway/smoltcp, MTU 1500, checksums computed",
        NETPERF,
        FRAMES_CSUM,
        SMOLTCP_FRAMES_CSUM,
        "at least 1.8",
    ),
    rr("tcp_rr lwip/roceway", "TCP_RR", LWIP, SOFT, ""),
    rr("udp_rr lwip/roceway", "UDP_RR", LWIP, SOFT, ""),
    stream("tcp_stream roceway/lwip, MTU 1500", NETPERF, FRAMES, LWIP_FRAMES, ""),
    stream(
        "tcp_stream roceway/lwip, MTU 1500, checksums computed",
        NETPERF,
        FRAMES_CSUM,
        LWIP_FRAMES_CSUM,
        "",
    ),
    rr("tcp_rr kernel/roceway, veth", "TCP_RR", VETH_SPIN, VETH, "at least 2.5"),
    rr("udp_rr kernel/roceway, veth", "UDP_RR", VETH_SPIN, VETH, ""),
    stream("tcp_stream roceway/kernel, veth", NETPERF, VETH, VETH_SPIN, ""),
    stream("tcp_stream roceway out of a TAP/kernel, veth", NETPERF, TAP, VETH_SPIN, "at least 0.9"),
    Wanted {
        name: "tcp_maerts roceway in from a TAP/kernel, veth",
        test: "TCP_MAERTS",
        figure: Figure::Stream,
        message: Some(NETPERF),
        dividend: TAP,
        divisor: VETH_SPIN,
        aim: "at least 0.9",
    },
    Wanted {
        name: "tcp_crr connections/s, client closes first, roceway/kernel",
        test: "TCP_CRR",
        figure: Figure::Rate,
        message: None,
        dividend: CHURN,
        divisor: KERNEL_CHURN,
        aim: "at least 20",
    },
    rr("tcp_rr roceway, 10000 idle connections/none", "TCP_RR", IDLE, SOFT, "at most 1.1"),
    Wanted {
        name: "tcp_rr transactions/s of 1000 connections, roceway/kernel epoll",
        test: "TCP_RR",
        figure: Figure::Rate,
        message: None,
        dividend: ACTIVE,
        divisor: EPOLL,
        aim: "at least 3",
    },
    rr(
        "tcp_rr after a second's rest, roceway/kernel",
        "TCP_RR",
        RESTED,
        BLOCK_RESTED,
        "at most 1.5",
    ),
];

/// The ratios whose rows are there in any of the rounds.
#[must_use]
pub fn ratios(rounds: &[Vec<Row>]) -> Vec<Ratio> {
    let all = RATIOS.iter().filter_map(|wanted| {
        let each: Vec<f64> = rounds.iter().filter_map(|rows| wanted.ratio(rows)).collect();
        Some(Ratio { name: wanted.name.into(), value: median(&each)? })
    });
    all.collect()
}

impl Wanted {
    /// The ratio in one round.
    fn ratio(&self, rows: &[Row]) -> Option<f64> {
        Some(self.figure_of(rows, &self.dividend)? / self.figure_of(rows, &self.divisor)?)
    }

    fn figure_of(&self, rows: &[Row], side: &Side) -> Option<f64> {
        let row = rows.iter().find(|row| {
            row.test == self.test
                && (row.message_bytes == self.message || matches!(side.0, "link" | "bare"))
                && row.stack == side.0
                && row.device == side.1
                && side.2.is_none_or(|mode| row.mode.as_deref() == Some(mode))
        })?;
        let value = match self.figure {
            Figure::P50 => row.p50_ns,
            Figure::Stream => row.gbit_per_s,
            Figure::Rate => row.transactions_per_s,
        };
        value.filter(|value| *value > 0.0)
    }
}

fn aim_of(name: &str) -> &'static str {
    RATIOS.iter().find(|wanted| wanted.name == name).map_or("", |wanted| wanted.aim)
}

fn microseconds(ns: Option<f64>) -> String {
    match ns.map(|ns| ns / 1000.0) {
        None => "-".into(),
        Some(us) if us >= 10_000.0 => format!("{us:.0}"),
        Some(us) if us >= 100.0 => format!("{us:.1}"),
        Some(us) => format!("{us:.3}"),
    }
}

impl Document {
    /// The comparison for people: rows, ratios, notes, and what not to forget.
    #[must_use]
    pub fn text(&self) -> String {
        let head = [
            "test", "stack", "device", "mode", "bytes", "RTT p50", "p99", "p99.9", "trans/s",
            "Gbit/s", "CPU s/GB", "copies",
        ];
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.test.clone(),
                    row.stack.clone(),
                    row.device.clone(),
                    row.mode.clone().unwrap_or_else(|| "-".into()),
                    row.message_bytes.map_or_else(|| "-".into(), |bytes| bytes.to_string()),
                    microseconds(row.p50_ns),
                    microseconds(row.p99_ns),
                    microseconds(row.p999_ns),
                    number(row.transactions_per_s),
                    number(row.gbit_per_s),
                    number(row.cpu_s_per_gbyte),
                    row.copies_per_byte.map_or_else(|| "-".into(), |copies| format!("{copies:.2}")),
                ]
            })
            .collect();
        let mut text = "round-trip times (RTT) in us, bytes of a stream's message, bytes that its \
                        sockets and stacks copy\nfor each byte of payload, medians of the \
                        repetitions\n"
            .to_owned();
        text.push_str(&columns(&head, &rows, 4));
        if !self.ratios.is_empty() {
            let ratios: Vec<_> = self
                .ratios
                .iter()
                .map(|ratio| {
                    let aim = aim_of(&ratio.name).to_owned();
                    vec![ratio.name.clone(), format!("{:.2}", ratio.value), aim]
                })
                .collect();
            text.push('\n');
            text.push_str(&columns(&["ratio", "", "aim"], &ratios, 1));
        }
        text.push('\n');
        text.push_str(HONEST);
        let is_unknown = |row: &Row| row.gbit_per_s.is_some() && row.copies_per_byte.is_none();
        if self.rows.iter().any(is_unknown) {
            text.push_str(UNCOUNTED);
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        for told in self.workers.iter().flatten() {
            text.push_str(&told.text);
        }
        text
    }

    /// The comparison for programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self)
            .map_or_else(|error| error.to_string(), |json| json + "\n")
    }
}
