//! The report: text for people, then one line of JSON for programs, in one file that is there whole
//! or not at all.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roceway_perf::host::Host;
use roceway_perf::report::Row;
use serde::Serialize;
use serde_json::Value;

use super::client::Found;
use super::{Check, Verdict};
use crate::doctor::{Machine, examine};

/// Version of the JSON form; it rises when a field changes its meaning or goes away.
const VERSION: u32 = 1;
/// The line between both forms.
const BEFORE_JSON: &str = "--- the same as JSON, in one line:";

/// A report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    build: String,
    kernel: String,
    /// Seconds since 1970.
    time: u64,
    device: String,
    peer: Option<String>,
    seconds: f64,
    passed: usize,
    failed: usize,
    not_tried: usize,
    checks: Vec<Check>,
    rows: Vec<Row>,
    /// What doctor says of the device here, and of the peer's.
    facts: Value,
    peer_facts: Value,
}

/// Version and profile of this program.
pub(crate) fn build() -> String {
    Host::read().build
}

/// What doctor says of a device, and of what is about it: null where it knows none of this name.
pub(crate) fn facts(name: &str) -> Value {
    let report = examine(Path::new("/"), Machine::Live, &mut |_| {});
    let whole: Value = serde_json::from_str(&report.json()).unwrap_or_default();
    let empty = Vec::new();
    let devices = whole["facts"]["rdma"]["devices"].as_array().unwrap_or(&empty);
    let plain = name.split_once(':').map_or(name, |(device, _)| device);
    let owns = |device: &&Value| {
        device["name"] == plain
            || device["ports"]
                .as_array()
                .is_some_and(|ports| ports.iter().any(|port| port["interface"] == name))
    };
    let device = devices.iter().find(owns).cloned().unwrap_or_default();
    let verdicts: Vec<Value> = whole["verdicts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|verdict| verdict["device"].as_str().is_some_and(|d| d.starts_with("rdma:")))
        .cloned()
        .collect();
    serde_json::json!({
        "device": device,
        "kernel": whole["facts"]["host"]["kernel"],
        "cpu": whole["facts"]["host"]["cpu"],
        "libibverbs": whole["facts"]["rdma"]["library"],
        "verdicts": verdicts,
    })
}

impl Report {
    /// A report of what was found.
    pub(crate) fn new(
        device: &str,
        peer: Option<(&str, &Value)>,
        found: Found,
        (facts, took): (Value, Duration),
    ) -> Report {
        let count = |verdict| found.checks.iter().filter(|check| check.verdict == verdict).count();
        Report {
            version: VERSION,
            build: build(),
            kernel: Host::read().kernel,
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            device: device.to_owned(),
            peer: peer.map(|(name, _)| name.to_owned()),
            seconds: took.as_secs_f64(),
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            not_tried: count(Verdict::NotTried),
            checks: found.checks,
            rows: found.rows,
            facts,
            peer_facts: peer.map_or(Value::Null, |(_, facts)| facts.clone()),
        }
    }

    /// Names of the checks that failed.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| check.verdict == Verdict::Failed);
        failed.map(|check| format!("{} {}", check.mode, check.name)).collect()
    }

    /// How many checks passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        // Writing to a string cannot fail.
        let mut out = String::new();
        let _ = writeln!(out, "roceway verify {}", self.device);
        let _ = writeln!(out, "  build    {}, {}", self.build, self.kernel);
        let _ = writeln!(out, "  here     {}", describe(&self.facts));
        if let Some(peer) = &self.peer {
            let _ = writeln!(out, "  peer     {peer}; {}", describe(&self.peer_facts));
        } else {
            let _ = writeln!(out, "  peer     none: what one host can show");
        }
        let mut mode = None;
        let mut checks = self.checks.as_slice();
        while let Some((check, rest)) = checks.split_first() {
            if mode.replace(check.mode) != Some(check.mode) {
                let _ = writeln!(out, "\nmode={}", check.mode);
            }
            // Those that one reason keeps from being tried need one line.
            let alike = |other: &&Check| {
                check.verdict == Verdict::NotTried
                    && (other.mode, other.verdict, &other.evidence)
                        == (check.mode, check.verdict, &check.evidence)
            };
            let more = rest.iter().take_while(alike).count();
            checks = &rest[more..];
            let verdict = match check.verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::NotTried => "not tried",
            };
            let side = if check.side == "peer" { " (peer)" } else { "" };
            let name = match rest[..more].last() {
                None => format!("{}{side}", check.name),
                Some(last) => format!("{} to {}{side}", check.name, last.name),
            };
            let _ = writeln!(out, "  {verdict:9}  {name:24}  {}", check.evidence);
        }
        let _ = writeln!(
            out,
            "\n{} passed, {} failed, {} could not be tried, in {:.1} s",
            self.passed, self.failed, self.not_tried, self.seconds
        );
        out
    }

    /// For programs: one line.
    pub(crate) fn json(&self) -> String {
        // Strings, numbers and lists only: there is nothing that cannot be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Writes both forms into one file, whole or not at all.
    ///
    /// # Errors
    /// The call that failed, with the path.
    pub(crate) fn write(&self, path: &Path) -> Result<(), WriteError> {
        write_whole(path, format!("{}\n{BEFORE_JSON}\n{}", self.text(), self.json()).as_bytes())
    }
}

/// Driver, firmware and kernel of a device.
fn describe(facts: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let device = &facts["device"];
    format!(
        "{} ({}), firmware {}, Linux {}",
        word(&device["name"]),
        word(&device["driver"]),
        word(&device["firmware"]),
        word(&facts["kernel"])
    )
}

/// Why a report could not be written.
#[derive(Debug)]
pub(crate) struct WriteError {
    /// What failed, with the file.
    pub(crate) what: String,
    /// What can be done.
    pub(crate) remedy: String,
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let result = write_and_move(&beside, path, bytes);
    if result.is_err() {
        // It may not have been made.
        let _gone = fs::remove_file(&beside);
    }
    result
}

fn write_and_move(beside: &Path, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let failed = |call: &str, error: &io::Error| WriteError {
        what: format!("{}: {call}: {error}", path.display()),
        remedy: match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room on that file system, or name another with --report"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "name a file that may be written with --report"
            }
            io::ErrorKind::NotFound => "make the folder first, or name another with --report",
            _ => "name another file with --report",
        }
        .to_owned(),
    };
    let mut file = File::create(beside).map_err(|error| failed("create", &error))?;
    file.write_all(bytes).map_err(|error| failed("write", &error))?;
    file.sync_all().map_err(|error| failed("fsync", &error))?;
    fs::rename(beside, path).map_err(|error| failed("rename", &error))
}

/// The file's name, unless the user gives one.
pub(crate) fn default_path(device: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = device.trim_start_matches("rdma:").chars().map(plain).collect();
    PathBuf::from(format!("roceway-verify-{name}.txt"))
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    fn check(name: &str, verdict: Verdict) -> Check {
        Check {
            mode: Mode::Rc,
            side: "here".into(),
            name: name.into(),
            verdict,
            evidence: format!("seen of {name}"),
            milliseconds: 3,
        }
    }

    fn report() -> Report {
        let checks = vec![
            check("integrity", Verdict::Passed),
            check("inline", Verdict::Failed),
            check("wire", Verdict::NotTried),
        ];
        let found = Found { checks, rows: Vec::new() };
        Report::new("rdma:x,mode=rc", None, found, (Value::Null, Duration::from_secs(2)))
    }

    #[test]
    fn both_forms_have_every_check_with_verdict_and_evidence() {
        let report = report();
        let text = report.text();
        for line in ["passed", "FAILED", "not tried", "seen of inline", "1 failed, 1 could not"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["checks"][1]["verdict"], "failed");
        assert_eq!((&json["passed"], &json["not_tried"]), (&1.into(), &1.into()));
        assert_eq!(report.failures(), ["rc inline"]);
    }

    #[test]
    fn a_file_is_written_whole_or_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.txt");
        fs::write(&path, "before").unwrap();
        report().write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().last().unwrap();
        assert_eq!(serde_json::from_str::<Value>(last).unwrap()["version"], 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let nowhere = folder.path().join("none/report.txt");
        let error = report().write(&nowhere).unwrap_err();
        assert!(error.what.contains("none/report.txt: create"), "{error:?}");
        assert!(error.remedy.contains("make the folder"), "{error:?}");
        // A folder is in the way: the rename fails, and nothing is left.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), "").unwrap();
        assert!(report().write(&taken).unwrap_err().what.contains("rename"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// `/dev/full` answers every write as a full disk does; beside it nothing can be made, so the
    /// step is tried by itself.
    #[test]
    fn a_full_disk_is_said_so() {
        let error = write_and_move(Path::new("/dev/full"), Path::new("/tmp/r"), b"x").unwrap_err();
        assert!(error.what.contains("/tmp/r: write: No space left"), "{error:?}");
        assert!(error.remedy.contains("make room"), "{error:?}");
    }

    #[test]
    fn the_file_is_named_after_the_device() {
        let path = default_path("rdma:mlx5_0:1,mode=rc");
        assert_eq!(path, PathBuf::from("roceway-verify-mlx5_0-1-mode-rc.txt"));
    }
}
