//! What came of the ladders: a table for people, a document for programs, charts.

use serde::Serialize;

use super::chart::{Bar, Chart};
use super::ladder::{FIGURES, Figure, SOURCE, Unit, differences, options};
use super::measure::Under;
use crate::report::{Row, columns, number};

/// A rung as it was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RungRow {
    /// The figure's number in the paper.
    pub figure: u8,
    /// The rung's name.
    pub rung: &'static str,
    /// Median over the repetitions; null if it was not measured.
    pub value: Option<f64>,
    /// `us` of the median round trip, or `Gbit/s` of payload.
    pub unit: &'static str,
    /// What the paper says there, if it does.
    pub paper: Option<f64>,
    /// What that is called there.
    pub paper_rung: Option<&'static str>,
    /// CPU seconds of both ends for a transaction.
    pub cpu_s_per_transaction: Option<f64>,
    /// CPU seconds of both ends for 10^9 bytes.
    pub cpu_s_per_gbyte: Option<f64>,
    /// Processor cycles of both ends for a transaction or for 10^9 bytes; null where the machine
    /// counts none.
    pub cycles: Option<f64>,
    /// Every option, in the order in which the rungs set them.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// What the rung below has otherwise: option, there, here.
    pub differs: Vec<(&'static str, String, String)>,
}

/// The ladders, measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Figure by figure, from the lowest rung up.
    pub rows: Vec<RungRow>,
    /// What Roceway's rungs ran over.
    pub under: Under,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// Repetitions that count.
    pub repetitions: usize,
}

/// The row of a rung, from those of a comparison.
pub(super) fn row(figure: &'static Figure, index: usize, rows: &[Row]) -> RungRow {
    let mode = format!("figure {} rung {index}", figure.number);
    let row = rows.iter().find(|row| row.mode.as_deref() == Some(&mode));
    let rung = figure.rungs.get(index);
    let paper = rung.and_then(|rung| rung.paper);
    RungRow {
        figure: figure.number,
        rung: rung.map_or("", |rung| rung.name),
        value: row.and_then(|row| match figure.unit {
            Unit::Microseconds => row.p50_ns.map(|ns| ns / 1000.0),
            Unit::Gigabits => row.gbit_per_s,
        }),
        unit: figure.unit.name(),
        paper: paper.map(|paper| paper.value),
        paper_rung: paper.map(|paper| paper.rung),
        cpu_s_per_transaction: row.and_then(|row| row.cpu_s_per_transaction),
        cpu_s_per_gbyte: row.and_then(|row| row.cpu_s_per_gbyte),
        cycles: row.and_then(|row| row.cycles),
        options: options(figure, index)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
        differs: differences(figure, index),
    }
}

impl RungRow {
    /// What it cost, for people.
    fn cost(&self) -> String {
        let cycles = self.cycles.map(|cycles| format!(", {} cycles", number(Some(cycles))));
        let cycles = cycles.unwrap_or_default();
        match (self.cpu_s_per_transaction, self.cpu_s_per_gbyte) {
            (Some(s), _) => format!("CPU {:.2} us a transaction{cycles}", s * 1e6),
            (None, Some(s)) => format!("CPU {s:.2} s a GB{cycles}"),
            (None, None) => "CPU time unknown".into(),
        }
    }

    fn changes(&self) -> String {
        if self.differs.is_empty() {
            return "-".into();
        }
        // Another stack has few of the options: only what it has is said.
        let is_other = self.differs.iter().any(|(name, ..)| *name == "stack");
        let said = self.differs.iter().filter(|(_, _, after)| !is_other || after != "-");
        let all = said.map(|(name, before, after)| {
            if before == "-" {
                return format!("{name} {after}");
            }
            match after.strip_prefix(before.as_str()).filter(|more| more.starts_with(',')) {
                Some(more) => format!("{name} +{}", more.trim_start_matches(',')),
                None => format!("{name} {before} > {after}"),
            }
        });
        all.collect::<Vec<_>>().join("; ")
    }
}

impl Document {
    /// The ladders for people.
    #[must_use]
    pub fn text(&self) -> String {
        let head =
            ["figure", "rung", "what differs from the rung before", "", "unit", "paper", "CPU"];
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.figure.to_string(),
                    row.rung.to_owned(),
                    row.changes(),
                    number(row.value),
                    row.unit.to_owned(),
                    number(row.paper),
                    row.cost().replace("CPU ", ""),
                ]
            })
            .collect();
        let mut text = columns(&head, &rows, 3);
        text.push('\n');
        for figure in FIGURES.iter().filter(|one| self.has(one.number)) {
            let first = self.rows.iter().find(|row| row.figure == figure.number);
            let base = first.map(|row| {
                let all = row.options.iter();
                all.map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default()))
                    .collect::<Vec<_>>()
                    .join(", ")
            });
            text.push_str(&format!(
                "figure {}: its first rung has {}\n          {}\n",
                figure.number,
                base.unwrap_or_default(),
                self.note(figure)
            ));
        }
        text.push_str(&format!("paper: {SOURCE}\n"));
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    /// What a figure's reader must know.
    fn note(&self, figure: &Figure) -> String {
        match &self.under {
            Under::Soft => format!("ours is over a soft link; {}", figure.note),
            Under::Device { device, .. } => {
                let kernel =
                    figure.rungs.iter().any(|rung| rung.changes.contains(&("stack", "kernel")));
                // Its options stand at the head; a chart has room for two lines.
                let device = device.split(',').next().unwrap_or_default();
                let its = if kernel { ", the kernel's rungs are not" } else { "" };
                format!("ours is over {device}{its}; {}", figure.note)
            }
        }
    }

    fn has(&self, figure: u8) -> bool {
        self.rows.iter().any(|row| row.figure == figure)
    }

    /// The ladders for programs; `options` and `host` are told as they are.
    #[must_use]
    pub fn json(&self, options: &serde_json::Value, total_s: f64) -> String {
        let document = serde_json::json!({
            "options": options,
            "repetitions": self.repetitions,
            "paper": SOURCE,
            "rows": self.rows,
            "notes": self.notes,
            "total_s": total_s,
        });
        format!("{document:#}\n")
    }

    /// A chart for each figure, with its number; `foot` says when and where.
    #[must_use]
    pub fn charts(&self, foot: &[String]) -> Vec<(u8, Chart)> {
        let figures = FIGURES.iter().filter(|figure| self.has(figure.number));
        figures.map(|figure| (figure.number, self.chart(figure, foot))).collect()
    }

    fn chart(&self, figure: &Figure, foot: &[String]) -> Chart {
        let rows = self.rows.iter().filter(|row| row.figure == figure.number);
        let mut foot = foot.to_vec();
        foot.push(format!("paper: {SOURCE}"));
        Chart {
            title: format!("Figure {}: {}", figure.number, figure.title),
            note: self.note(figure),
            unit: figure.unit,
            bars: rows
                .map(|row| Bar {
                    name: row.rung.into(),
                    ours: row.value,
                    paper: row.paper.zip(row.paper_rung.map(str::to_owned)),
                    cost: row.cost(),
                })
                .collect(),
            foot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let figure = &FIGURES[0];
        let rows = (0..figure.rungs.len()).map(|index| row(figure, index, &[])).collect();
        Document { rows, under: Under::Soft, notes: vec!["a note".into()], repetitions: 0 }
    }

    #[test]
    fn what_it_ran_over_is_said_in_text_and_charts() {
        let mut document = document();
        let chart = |document: &Document| document.charts(&[])[0].1.note.clone();
        assert!(document.text().contains("ours is over a soft link"));
        assert!(chart(&document).contains("a soft link"));
        let server = ([10, 0, 0, 1], 12_865).into();
        document.under = Under::Device { device: "packet:eth0,up=on".into(), server };
        let text = document.text();
        let wanted = "ours is over packet:eth0, the kernel's rungs are not";
        assert!(text.contains(wanted) && !text.contains("soft link"), "{text}");
        assert!(chart(&document).contains(wanted));
    }

    #[test]
    fn another_stack_is_told_by_what_it_has() {
        let document = document();
        let kernel = document.rows.iter().find(|row| row.rung == "the kernel, sleeping").unwrap();
        assert_eq!(kernel.changes(), "stack roceway > kernel; device loopback; wait block");
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let document = document();
        let text = document.text();
        for part in ["busy polling", "33.0", "a note", "turn.spin 0us..0us > forever"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&document.json(&serde_json::json!({}), 1.5)).unwrap();
        let rows = json["rows"].as_array().unwrap();
        let polling = rows.iter().find(|row| row["rung"] == "busy polling").unwrap();
        assert_eq!(polling["figure"], 6);
        assert_eq!(polling["unit"], "us");
        assert_eq!(polling["paper"], 33.0);
        assert!(polling["value"].is_null());
        assert_eq!(polling["options"]["manner"], "caller-driven");
        assert_eq!(document.charts(&[]).len(), 1);
    }
}
