//! Medians over repetitions, ratios of medians, and the table with its two honest lines.

use serde::Serialize;

use super::{Block, Document, Measured};
use crate::arithmetic::median;
use crate::report::{Row, columns, number};

/// What the reader of a comparison must not forget.
const HONEST: &str = "\
soft is two cores that share memory, not a NIC: no bus, no cable, no switch is in these figures.
On a real wire both sides gain the same cable time, so there the ratios are smaller.
";

/// A ratio of two medians.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// Of what, and of what to what.
    pub name: String,
    /// The ratio.
    pub value: f64,
}

/// The fields of a row that are medians.
const FIELDS: [fn(&mut Row) -> &mut Option<f64>; 6] = [
    |row| &mut row.p50_ns,
    |row| &mut row.p99_ns,
    |row| &mut row.p999_ns,
    |row| &mut row.transactions_per_s,
    |row| &mut row.gbit_per_s,
    |row| &mut row.cpu_s_per_gbyte,
];

/// A row's name in pictures.
fn name_of(row: &Row) -> String {
    let mode = row.mode.as_deref().unwrap_or_default();
    format!("{} {} {mode} {}", row.stack, row.device, row.test)
}

fn is_same(a: &Row, b: &Row) -> bool {
    (&a.test, &a.stack, &a.device, &a.mode) == (&b.test, &b.stack, &b.device, &b.mode)
}

/// Makes medians and distributions of the repetitions, in the order of the contenders.
pub(super) fn reduce(block: &mut Block, repetitions: &[Vec<Measured>]) {
    for first in repetitions.iter().flatten() {
        if block.rows.iter().any(|row| is_same(row, &first.row)) {
            continue;
        }
        let all: Vec<&Measured> =
            repetitions.iter().flatten().filter(|one| is_same(&one.row, &first.row)).collect();
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

/// One side of a ratio: which row, and which of its figures.
struct Side(&'static str, &'static str, Option<&'static str>);

/// Ratios that a comparison gives: name, test, dividend, divisor.
const RATIOS: [(&str, &str, Side, Side); 12] = [
    ("link to line, round trip", "TCP_RR", LINK, LINE),
    ("roceway to link, round trip", "TCP_RR", SOFT, LINK),
    ("kernel spinning on loopback to roceway over soft, TCP round trip", "TCP_RR", SPIN, SOFT),
    ("kernel blocking on loopback to roceway over soft, TCP round trip", "TCP_RR", BLOCK, SOFT),
    ("kernel spinning on loopback to roceway over soft, UDP round trip", "UDP_RR", SPIN, SOFT),
    ("roceway over soft to link, stream", "TCP_STREAM", SOFT, LINK),
    ("roceway over soft to kernel spinning on loopback, stream", "TCP_STREAM", SOFT, SPIN),
    ("kernel spinning to roceway, veth, TCP round trip", "TCP_RR", VETH_SPIN, VETH),
    ("kernel spinning to roceway, veth, UDP round trip", "UDP_RR", VETH_SPIN, VETH),
    ("roceway to kernel spinning, veth, stream", "TCP_STREAM", VETH, VETH_SPIN),
    ("kernel spinning on loopback to line, round trip", "TCP_RR", SPIN, LINE),
    ("kernel blocking to spinning on loopback, TCP round trip", "TCP_RR", BLOCK, SPIN),
];
const LINE: Side = Side("line", "memory", None);
const LINK: Side = Side("link", "soft", None);
const SOFT: Side = Side("roceway", "soft", Some("copy"));
const SPIN: Side = Side("kernel", "loopback", Some("spin"));
const BLOCK: Side = Side("kernel", "loopback", Some("block"));
const VETH: Side = Side("roceway", "veth", Some("copy"));
const VETH_SPIN: Side = Side("kernel", "veth", Some("spin"));

/// The ratios whose rows are there: of median round trips, or of throughputs.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let figure = |test: &str, side: &Side| {
        let row = rows.iter().find(|row| {
            row.test == test
                && row.stack == side.0
                && row.device == side.1
                && side.2.is_none_or(|mode| row.mode.as_deref() == Some(mode))
        })?;
        row.p50_ns.or(row.gbit_per_s).filter(|value| *value > 0.0)
    };
    let all = RATIOS.iter().filter_map(|(name, test, dividend, divisor)| {
        let value = figure(test, dividend)? / figure(test, divisor)?;
        Some(Ratio { name: (*name).into(), value })
    });
    all.collect()
}

fn microseconds(ns: Option<f64>) -> String {
    ns.map_or("-".into(), |ns| format!("{:.3}", ns / 1000.0))
}

impl Document {
    /// The comparison for people: rows, ratios, notes, and what not to forget.
    #[must_use]
    pub fn text(&self) -> String {
        let head = [
            "test",
            "stack",
            "device",
            "mode",
            "RTT p50 us",
            "p99 us",
            "p99.9 us",
            "trans/s",
            "Gbit/s",
            "CPU s/GB",
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
                    microseconds(row.p50_ns),
                    microseconds(row.p99_ns),
                    microseconds(row.p999_ns),
                    number(row.transactions_per_s),
                    number(row.gbit_per_s),
                    number(row.cpu_s_per_gbyte),
                ]
            })
            .collect();
        let mut text = columns(&head, &rows, 4);
        if !self.ratios.is_empty() {
            let ratios: Vec<_> = self
                .ratios
                .iter()
                .map(|ratio| vec![ratio.name.clone(), format!("{:.2}", ratio.value)])
                .collect();
            text.push('\n');
            text.push_str(&columns(&["ratio", ""], &ratios, 1));
        }
        text.push('\n');
        text.push_str(HONEST);
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
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
