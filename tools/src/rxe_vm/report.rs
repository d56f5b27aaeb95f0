//! What came out of scenarios: verdicts, rows, and both as text and JSON. Pure; never prints.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Trouble;
use super::lines::Verdict;
use super::scenario::{Scenario, Topology};

/// A check as a side reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// One of the scenario's list.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// Detail or reason; may be empty.
    pub detail: String,
}

/// The outcome of one scenario on one topology.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// Where it ran.
    pub topology: Topology,
    /// Names of checks that must be reported.
    pub expected: Vec<String>,
    /// What was reported, in order.
    pub checks: Vec<Check>,
    /// Rows in the form of `perf --json`.
    pub rows: Vec<Value>,
    /// Why it ended early.
    pub broken: Option<String>,
    /// Why it was not run.
    pub skipped: Option<String>,
    /// The consoles' last lines, after a failure.
    pub consoles: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Outcome {
    /// An outcome without anything yet.
    #[must_use]
    pub fn new(scenario: &Scenario, topology: Topology) -> Self {
        Self {
            scenario: scenario.name.clone(),
            topology,
            expected: scenario.checks.clone(),
            checks: Vec::new(),
            rows: Vec::new(),
            broken: None,
            skipped: None,
            consoles: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// Takes a verdict in.
    ///
    /// # Errors
    ///
    /// A name that is not on the list, or was reported already.
    pub fn check(&mut self, name: String, verdict: Verdict, detail: String) -> Result<(), Trouble> {
        if !self.expected.contains(&name) {
            return Err(Trouble::new(format!("check {name} is not in the scenario's list")));
        }
        if self.checks.iter().any(|check| check.name == name) {
            return Err(Trouble::new(format!("check {name} was reported twice")));
        }
        self.checks.push(Check { name, verdict, detail });
        Ok(())
    }

    /// What failed, in sentences; empty if nothing did.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        if self.skipped.is_some() {
            return Vec::new();
        }
        let mut all: Vec<String> = self.broken.clone().into_iter().collect();
        for check in self.checks.iter().filter(|check| check.verdict == Verdict::Failed) {
            all.push(format!("{}: {}", check.name, check.detail));
        }
        let reported = |name: &String| self.checks.iter().any(|check| check.name == *name);
        let missing = self.expected.iter().filter(|name| !reported(name));
        all.extend(missing.map(|name| format!("{name}: never reported")));
        all
    }

    /// Whether anything failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        !self.failures().is_empty()
    }

    /// `SKIPPED name: reason` lines, for the whole scenario or single checks.
    #[must_use]
    pub fn skips(&self) -> Vec<String> {
        let place = format!("rxe-vm {} on {}", self.scenario, self.topology);
        let whole = self.skipped.iter().map(|reason| format!("SKIPPED {place}: {reason}"));
        let checks = self.checks.iter().filter(|check| check.verdict == Verdict::Skipped);
        let single =
            checks.map(|check| format!("SKIPPED {place}, {}: {}", check.name, check.detail));
        whole.chain(single).collect()
    }

    /// Rows with where they come from.
    fn rows(&self) -> impl Iterator<Item = Value> + '_ {
        self.rows.iter().cloned().map(|mut row| {
            row["scenario"] = self.scenario.clone().into();
            row["topology"] = self.topology.name().into();
            row
        })
    }
}

/// The report for people.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let verdict = match (&outcome.skipped, outcome.is_failed()) {
        (Some(_), _) => "skipped",
        (None, true) => "FAILED",
        (None, false) => "ok",
    };
    let mut text = format!(
        "{:7} {} on {} ({:.1} s)\n",
        verdict,
        outcome.scenario,
        outcome.topology,
        outcome.elapsed.as_secs_f64()
    );
    // Writing to a string cannot fail.
    for check in outcome.checks.iter().filter(|check| check.verdict == Verdict::Passed) {
        let _ = writeln!(text, "          {} {}", check.name, check.detail);
    }
    for row in &outcome.rows {
        let _ = writeln!(text, "          {}", figures(row));
    }
    for line in outcome.skips() {
        let _ = writeln!(text, "{line}");
    }
    for failure in outcome.failures() {
        let _ = writeln!(text, "    FAILED {failure}");
    }
    for (index, console) in outcome.consoles.iter().enumerate() {
        let side = outcome.topology.guests().get(index).copied().unwrap_or_default();
        let _ = writeln!(text, "--- console of guest {side}\n{console}\n---");
    }
    text
}

/// A row's names and those figures that it has.
fn figures(row: &Value) -> String {
    let name = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let mut text = ["test", "stack", "device", "mode"].map(name).join(" ");
    for (key, value) in row.as_object().into_iter().flatten() {
        let Some(number) = value.as_f64() else { continue };
        let (key, number, unit) = match key.strip_suffix("_ns") {
            Some(key) => (key, number / 1000.0, " us"),
            None => (key.as_str(), number, ""),
        };
        let _ = write!(text, ", {key} {number:.3}{unit}");
    }
    text
}

/// The report for programs: one JSON document.
#[must_use]
pub fn json(release: &str, outcomes: &[Outcome]) -> Value {
    let scenarios: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "scenario": outcome.scenario,
                "topology": outcome.topology.name(),
                "passed": outcome.skipped.is_none() && !outcome.is_failed(),
                "skipped": outcome.skipped,
                "failures": outcome.failures(),
                "elapsed_s": outcome.elapsed.as_secs_f64(),
                "checks": outcome.checks.iter().map(|check| json!({
                    "name": check.name,
                    "verdict": match check.verdict {
                        Verdict::Passed => "passed",
                        Verdict::Failed => "failed",
                        Verdict::Skipped => "skipped",
                    },
                    "detail": check.detail,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "guest": {"kernel": release, "emulation": "QEMU TCG"},
        "rows": outcomes.iter().flat_map(Outcome::rows).collect::<Vec<_>>(),
        "scenarios": scenarios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let head = "# title: t\n# topologies: pair\n# programs:\n# seconds: 9\n# checks: one two\n";
        let scenario = Scenario::parse("name", &format!("{head}a() {{ :; }}\nb() {{ :; }}\n"));
        Outcome::new(&scenario.unwrap(), Topology::Pair)
    }

    fn passed(outcome: &mut Outcome, name: &str) -> Result<(), Trouble> {
        outcome.check(name.into(), Verdict::Passed, String::new())
    }

    #[test]
    fn only_what_reported_all_its_checks_has_passed() {
        let mut all = outcome();
        assert_eq!(all.failures(), ["one: never reported", "two: never reported"]);
        passed(&mut all, "one").unwrap();
        assert!(all.is_failed());
        passed(&mut all, "two").unwrap();
        assert!(!all.is_failed());
        all.broken = Some("it took too long".into());
        assert_eq!(all.failures(), ["it took too long"]);
    }

    #[test]
    fn a_failed_check_and_a_skipped_one_are_named() {
        let mut all = outcome();
        all.check("one".into(), Verdict::Failed, "3 of 4".into()).unwrap();
        all.check("two".into(), Verdict::Skipped, "no such device".into()).unwrap();
        assert_eq!(all.failures(), ["one: 3 of 4"]);
        assert_eq!(all.skips(), ["SKIPPED rxe-vm name on pair, two: no such device"]);
        let text = text(&all);
        assert!(text.starts_with("FAILED  name on pair") && text.contains("3 of 4"), "{text}");
    }

    #[test]
    fn checks_are_reported_once_and_only_those_of_the_list() {
        let mut all = outcome();
        passed(&mut all, "one").unwrap();
        assert!(passed(&mut all, "one").unwrap_err().cause.contains("twice"));
        assert!(passed(&mut all, "three").unwrap_err().cause.contains("list"));
    }

    #[test]
    fn rows_come_out_in_the_form_of_perf_with_their_place() {
        let mut all = outcome();
        all.rows.push(json!({"test": "TCP_RR", "stack": "roceway",
            "device": "rdma:rxe0,mode=rc", "mode": "block", "p50_ns": 1500.0}));
        let document = json("6.1", &[all.clone()]);
        let row: roceway_perf::report::Row =
            serde_json::from_value(document["rows"][0].clone()).unwrap();
        assert_eq!((row.device.as_str(), row.p50_ns), ("rdma:rxe0,mode=rc", Some(1500.0)));
        assert_eq!(document["rows"][0]["topology"], "pair");
        assert_eq!(document["scenarios"][0]["passed"], false);
        assert!(text(&all).contains("TCP_RR roceway rdma:rxe0,mode=rc block, p50 1.500 us"));
    }
}
