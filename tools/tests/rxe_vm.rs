//! The virtual machine test bed fails loudly and cleans up: scenarios that must not pass, in real
//! guests. Skipped, loudly, where `tools/rxe-vm --prepare` has not been run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that one run may take; a boot takes 5 to 10 s.
const LIMIT: Duration = Duration::from_secs(180);
/// One run at a time: emulation takes all that the machine has.
static TURN: Mutex<()> = Mutex::new(());

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/rxe_vm/{name}.sh"))
}

/// The command, or none where there is no guest to be had.
fn bed(test: &str, topology: &str, names: &[&str]) -> Option<Command> {
    if std::env::var_os("ROCEWAY_RXE_VM_KERNEL").is_none() {
        println!("SKIPPED {test}: ROCEWAY_RXE_VM_KERNEL is not set; run tools/rxe-vm --prepare");
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_rxe-vm"));
    command.args(["--json", "--topology", topology, "--limit", &LIMIT.as_secs().to_string()]);
    for name in names {
        command.arg("--file").arg(scenario(name));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// The scenarios of a document, by name.
fn scenarios(output: &Output) -> impl Fn(&str) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    move |name| {
        let all = document["scenarios"].as_array().unwrap();
        all.iter().find(|one| one["scenario"] == name).unwrap_or(&Value::Null).clone()
    }
}

/// Scenarios of one run, and what the failed ones must be told of.
struct Loud {
    topology: &'static str,
    names: &'static [&'static str],
    reasons: &'static [(&'static str, &'static str)],
}

/// Two guests differ from one in the wire and in how the sides meet only.
const LOUD: [Loud; 2] = [
    Loud {
        topology: "pair",
        names: &["panics", "waits", "lies", "ends", "babbles", "needs", "works"],
        reasons: &[
            ("panics", "ended without its end line"),
            ("waits", "it took too long"),
            ("waits", "after: never reported"),
            ("lies", "wrong: status 1"),
            ("lies", "forgotten: never reported"),
            ("ends", "side b of ends ended with status 7"),
            ("babbles", "not a line of a guest"),
        ],
    },
    Loud {
        topology: "hosts",
        names: &["panics", "works"],
        reasons: &[("panics", "ended without its end line")],
    },
];

fn fails_loudly(output: &Output, reasons: &[(&str, &str)]) {
    assert_eq!(output.status.code(), Some(1));
    let find = scenarios(output);
    let told = String::from_utf8_lossy(&output.stderr);
    for (name, reason) in reasons {
        let scenario = find(name);
        assert_eq!(scenario["passed"], false, "{scenario}");
        assert!(scenario["failures"].to_string().contains(reason), "{scenario}");
    }
    assert!(told.contains("Kernel panic"), "no console: {told}");
    // What failed before does not disturb what comes after.
    let works = find("works");
    assert_eq!(works["passed"], true, "{works}");
    assert_eq!(works["checks"].as_array().unwrap().len(), 3, "{works}");
}

/// Processes that have this word in their command line.
fn processes(word: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

/// The folder that a run of this process makes.
fn folder(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("roceway-rxe-vm.{id}"))
}

mod guests {
    use super::*;

    #[test]
    fn what_goes_wrong_in_a_guest_is_a_failure_with_its_reason() {
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for Loud { topology, names, reasons } in LOUD {
            let test = "what_goes_wrong_in_a_guest_is_a_failure_with_its_reason";
            let Some(mut command) = bed(test, topology, names) else { return };
            let child = command.spawn().unwrap();
            let id = child.id();
            let output = child.wait_with_output().unwrap();
            fails_loudly(&output, reasons);
            assert!(!folder(id).exists());
            assert_eq!(processes(&folder(id).display().to_string()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_run_that_is_ended_or_killed_leaves_no_guest() {
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let test = "a_run_that_is_ended_or_killed_leaves_no_guest";
        for signal in ["TERM", "KILL"] {
            let Some(mut command) = bed(test, "hosts", &["waits"]) else { return };
            let mut child = command.stderr(Stdio::null()).spawn().unwrap();
            let folder = folder(child.id());
            let word = folder.display().to_string();
            let started = Instant::now();
            while processes(&word).len() < 2 {
                assert!(started.elapsed() < LIMIT, "no guests");
                std::thread::sleep(Duration::from_millis(50));
            }
            let status = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status();
            assert!(status.unwrap().success());
            let status = child.wait().unwrap();
            assert!(!status.success());
            let started = Instant::now();
            while !processes(&word).is_empty() {
                assert!(started.elapsed() < Duration::from_secs(10), "{:?}", processes(&word));
                std::thread::sleep(Duration::from_millis(50));
            }
            if signal == "TERM" {
                assert!(!folder.exists());
            } else {
                std::fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
}

#[test]
fn without_a_kernel_it_says_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rxe-vm"));
    let output = command.env_remove("ROCEWAY_RXE_VM_KERNEL").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("remedy: start this through tools/rxe-vm"), "{told}");
}

#[test]
fn a_scenario_that_is_not_there_is_refused_with_those_that_are() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rxe-vm"));
    let output = command.arg("no-such-scenario").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("no scenario no-such-scenario"), "{told}");
    assert!(told.contains("stock-pingpong"), "{told}");
}
