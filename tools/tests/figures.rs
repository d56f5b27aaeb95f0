//! The ladders as a user asks for them: every rung is measured or named as left out, with its
//! options, and there is a chart of each figure. Nothing here asserts a time.

use std::process::Command;

const ROCEWAY: &str = env!("CARGO_BIN_EXE_roceway");

#[test]
fn the_ladders_are_run_from_the_first_rung_to_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(ROCEWAY)
        .args(["perf", "figures", "--repetitions", "1", "--json", "--charts"])
        .arg(folder.path())
        .output()
        .expect("the command runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let notes = document["notes"].to_string();
    let rows = document["rows"].as_array().expect("rows");
    assert!(rows.len() >= 19, "{} rungs", rows.len());
    for row in rows {
        let name = row["rung"].as_str().expect("a name");
        let is_left_out = notes.contains(name) || notes.contains("over veth is left out");
        assert!(row["value"].as_f64() > Some(0.0) || is_left_out, "{row} {notes}");
        if row["value"].is_f64() {
            let cost =
                ["cpu_s_per_transaction", "cpu_s_per_gbyte"][usize::from(row["figure"] != 6)];
            assert!(row[cost].as_f64() > Some(0.0), "{row}");
        }
        assert!(row["options"]["stack"].is_string(), "{row}");
    }
    let polling = rows.iter().find(|row| row["rung"] == "busy polling").expect("a rung");
    assert_eq!(polling["paper"], 33.0);
    assert_eq!(polling["differs"][0][0], "turn.spin");
    for figure in [6, 7, 8] {
        let path = folder.path().join(format!("figure{figure}.svg"));
        let svg = std::fs::read_to_string(path).expect("a chart");
        assert!(svg.ends_with("</svg>\n") && svg.contains("the paper"), "{svg}");
    }
    if notes.contains("over veth is left out") {
        eprintln!("SKIPPED rungs of the kernel over veth: {notes}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (arguments, says) in [
        (vec!["10.0.0.1"], "--device is missing"),
        (vec!["--device", "soft:/x.sock", "--address", "10.0.0.1/24"], "HOST is missing"),
        (vec!["--figure", "5"], "6..=8"),
        (vec!["-T", "1"], "cpus of both ends"),
    ] {
        let output =
            Command::new(ROCEWAY).args(["perf", "figures"]).args(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(says), "{arguments:?}: {text}");
    }
}
