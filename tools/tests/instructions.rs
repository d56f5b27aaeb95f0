//! The comparison of instruction counts with their baseline, without counting any.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions");
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.baseline");

/// Whether counts pass against a baseline that replaces an older one, and what is printed.
fn judge(counts: &str, baseline: &str, older: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let mut child = Command::new(SCRIPT)
        .arg("--judge")
        .args([write("baseline", baseline), write("older", older)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash runs");
    child.stdin.take().expect("a pipe").write_all(counts.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn more_than_three_percent_fail() {
    let base = "# comment\nrr 1000 as ever\nack 500 (within 20 %) by luck\n";
    for (counts, passes, says) in [
        ("rr 1000\nack 500\n", true, "+0.00 %"),
        ("rr 1030\nack 500\n", true, "+3.00 %"),
        ("rr 1031\nack 500\n", false, "WORSE"),
        ("rr 900\nack 500\n", true, "lower the baseline"),
        ("rr 1000\nack 600\n", true, "+20.00 %"),
        ("rr 1000\nack 601\n", false, "WORSE"),
        ("rr 1000\n", false, "was not counted"),
        ("rr 1000\nack 500\nnew 7\n", false, "NOT IN THE BASELINE"),
        ("SKIPPED rr: no valgrind\nrr 1000\nack 500\n", true, "SKIPPED rr"),
    ] {
        let (passed, text) = judge(counts, base, base);
        assert_eq!(passed, passes, "{counts}{text}");
        assert!(text.contains(says), "{counts}{text}");
    }
}

#[test]
fn one_name_is_held_to_so_many_above_another() {
    let base = "rr 1000 as ever\nrc 1500 (within 9 %) (at most 500 above rr) by verbs\n";
    for (counts, passes, says) in [
        ("rr 1000\nrc 1500\n", true, "500  above rr, at most 500"),
        ("rr 999\nrc 1500\n", false, "501  above rr, at most 500  WORSE"),
        ("rr 1020\nrc 1510\n", true, "490  above rr"),
    ] {
        let (passed, text) = judge(counts, base, base);
        assert_eq!(passed, passes, "{counts}{text}");
        assert!(text.contains(says), "{counts}{text}");
    }
    let (passed, text) = judge("rc 1\n", "rc 1 (at most 5 above rr) by verbs\n", "");
    assert!(!passed && text.contains("in no baseline"), "{text}");
}

#[test]
fn a_number_rises_with_another_reason_only() {
    let (counts, older) = ("rr 1100\n", "rr 1000 as ever\n");
    for (base, passes) in [
        ("rr 1100 as ever\n", false),
        ("rr 1100\n", false),
        ("rr 1100 SACK blocks are validated\n", true),
        ("rr 1000 as ever\n", false),
        ("rr many as ever\n", false),
    ] {
        let (passed, text) = judge(counts, base, older);
        assert_eq!(passed, passes, "{base}{text}");
    }
}

#[test]
fn the_baseline_names_what_is_counted() {
    let script = std::fs::read_to_string(SCRIPT).expect("the script");
    let baseline = std::fs::read_to_string(BASELINE).expect("the baseline");
    let list = script.split("benches=(").nth(1).and_then(|rest| rest.split(")\n").next());
    let mut counted: Vec<String> = list
        .expect("the list of benches")
        .split('"')
        .skip(1)
        .step_by(2)
        .flat_map(|entry| entry.split_whitespace().skip(2))
        .map(|name| name.split(':').next().unwrap_or_default().to_owned())
        .collect();
    let lines = baseline.lines().filter(|line| !line.starts_with('#'));
    let mut kept: Vec<String> =
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    counted.sort();
    kept.sort();
    assert_eq!(kept, counted);
    assert!(Path::new(BASELINE).is_file() && kept.len() >= 11);
}
