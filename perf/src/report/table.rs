//! Aligned text.

use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::Setting;
use crate::arithmetic::{real, seconds};
use crate::host::Host;
use crate::recorder::Sample;

/// The longest head line; settings wrap beyond it.
const WIDTH: usize = 96;

/// The first lines of a report: effective options, CPU, kernel, build.
#[must_use]
pub fn head(settings: &[Setting], host: &Host) -> String {
    let mut text = String::new();
    let mut line = String::from("options:");
    for (index, (name, value)) in settings.iter().enumerate() {
        let end = if index + 1 < settings.len() { ";" } else { "" };
        let item = format!(" {name} {value}{end}");
        if line.len() + item.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("        ");
        }
        line.push_str(&item);
    }
    text.push_str(&line);
    let Host { cpu, cpus, kernel, build } = host;
    text.push_str(&format!("\ncpu:     {cpu}, {cpus} online\nkernel:  {kernel}\n"));
    text.push_str(&format!("build:   {build}\n\n"));
    text
}

/// A table with a head line; the first `names` columns are words, the rest numbers.
#[must_use]
pub fn columns(head: &[&str], rows: &[Vec<String>], names: usize) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(ToString::to_string));
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= names {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Names and values, one pair a line.
pub(super) fn pairs(figures: &[(&str, String)]) -> String {
    let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    figures.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Interval samples as rates.
pub(super) fn samples(samples: &[Sample]) -> String {
    let mut before = 0;
    let rows: Vec<_> = samples
        .iter()
        .map(|sample| {
            let length = seconds(sample.at_ns - before).max(1e-9);
            before = sample.at_ns;
            vec![
                format!("{:.3}", seconds(sample.at_ns)),
                format!("{:.0}", real(sample.transactions) / length),
                format!("{:.3}", real(sample.bytes) * 8e-9 / length),
            ]
        })
        .collect();
    columns(&["until s", "transactions/s", "Gbit/s"], &rows, 0)
}

/// A number with three digits or so, or a dash for none.
#[must_use]
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}
