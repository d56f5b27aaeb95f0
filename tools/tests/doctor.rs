//! `roceway doctor` as a user runs it: on machines written down as text, on trees of garbage, and
//! on this machine.
//!
//! The machines in `doctor/*.tree` are composed from the kernel's documentation, besides
//! `rxe-recorded.tree`: that one was recorded.

#[path = "../src/doctor/tree.rs"]
mod tree;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tree::Tree;

const MLX5: &str = include_str!("doctor/mlx5-vf-bond.tree");
const RXE: &str = include_str!("doctor/rxe.tree");
const RECORDED: &str = include_str!("doctor/rxe-recorded.tree");
const PLAIN: &str = include_str!("doctor/no-rdma.tree");
const CONTAINER: &str = include_str!("doctor/container.tree");

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roceway"));
    command.arg("doctor").args(arguments).output().expect("it runs")
}

fn doctor_on(tree: &Tree, arguments: &[&str]) -> Output {
    let root = tree.root().to_str().expect("a plain path");
    doctor(&[&["--root", root], arguments].concat())
}

fn text(output: &Output) -> String {
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).expect("one JSON document")
}

/// Names of the devices that would work.
fn working(report: &Value) -> Vec<String> {
    let verdicts = report["verdicts"].as_array().expect("verdicts");
    let works = verdicts.iter().filter(|verdict| verdict["works"] == true);
    works.map(|verdict| verdict["device"].as_str().expect("a name").to_owned()).collect()
}

/// What is said of problems with this severity.
fn problems<'a>(report: &'a Value, severity: &str) -> Vec<&'a str> {
    let all = report["problems"].as_array().expect("problems");
    let of = all.iter().filter(|problem| problem["severity"] == severity);
    of.map(|problem| problem["what"].as_str().expect("a text")).collect()
}

fn has(list: &[&str], part: &str) -> bool {
    list.iter().any(|what| what.contains(part))
}

#[test]
fn each_machine_gets_what_works_on_it() {
    for (name, tree, expected) in [
        ("mlx5", MLX5, &["soft:/PATH.sock"][..]),
        (
            "rxe",
            RXE,
            &[
                "soft:/PATH.sock",
                "tap:NAME",
                "packet:eth0",
                "rdma:rxe0,mode=rc",
                "rdma:rxe0,mode=ud",
            ],
        ),
        (
            "rxe, recorded",
            RECORDED,
            &[
                "soft:/PATH.sock",
                "tap:NAME",
                "packet:v0",
                "rdma:rxe0,mode=rc",
                "rdma:rxe0,mode=ud",
                "rdma:rxe1,mode=rc",
                "rdma:rxe1,mode=ud",
            ],
        ),
        ("plain", PLAIN, &["soft:/PATH.sock"]),
        ("container", CONTAINER, &["soft:/PATH.sock", "packet:eth0"]),
    ] {
        let output = doctor_on(&Tree::of(tree), &["--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(working(&json(&output)), expected, "{name}");
    }
}

#[test]
fn a_bonded_nic_with_a_virtual_function_is_seen_through() {
    let report = json(&doctor_on(&Tree::of(MLX5), &["--json"]));
    let blockers = problems(&report, "blocker");
    assert!(has(&blockers, "64 KiB may be locked"), "{blockers:?}");
    assert!(has(&blockers, "ens1f0v0 has no address"), "{blockers:?}");
    assert!(has(&blockers, "the port is DOWN (physical state Disabled)"), "{blockers:?}");
    let warnings = problems(&report, "warning");
    for part in ["virtual function", "x8 of 8.0 GT/s x16", "1.5 cpus", "powersave", "NUMA node 1"] {
        assert!(has(&warnings, part), "{part}: {warnings:?}");
    }
    assert!(!has(&warnings, "another network namespace"), "{warnings:?}");
    let bond = &report["facts"]["rdma"]["devices"][1];
    assert_eq!(bond["name"], "mlx5_bond_0");
    assert_eq!(bond["ports"][0]["interface"], "bond0");
    assert_eq!(bond["function"]["physical"]["virtual_functions"], 1);
}

#[test]
fn a_container_is_told_what_to_be_started_with() {
    let text = text(&doctor_on(&Tree::of(CONTAINER), &[]));
    for part in [
        "docker run --device=/dev/infiniband",
        "docker run --device=/dev/net/tun",
        "in a user namespace",
        "(10.20.0.2) belong",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn the_exit_code_answers_for_the_device_that_was_asked_for() {
    let tree = Tree::of(RXE);
    for (device, code) in [
        ("soft", 0),
        ("rdma", 0),
        ("rdma:rxe0", 0),
        ("rdma:rxe0:1,mode=rc", 0),
        ("rdma:eth0,mode=ud", 0),
        ("rdma:rxe0,mode=raw", 1),
        ("rdma:mlx5_0", 1),
        ("tape", 1),
    ] {
        assert_eq!(doctor_on(&tree, &[device]).status.code(), Some(code), "{device}");
    }
    let unknown = doctor_on(&tree, &["rdma:mlx5_0"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("there is no rdma:mlx5_0; there are soft:/PATH.sock"), "{said}");
    let misused = doctor(&["--root", "/proc/self/status"]);
    assert_eq!(misused.status.code(), Some(2));
}

/// Every file of a tree, from its root; links are not followed.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

#[test]
fn garbage_in_any_file_is_no_more_than_a_missing_fact() {
    let long = [b'1'; 10_000];
    let rows: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("long", &long),
        ("binary", &[0xff, 0xfe, 0, 1, 2, 3]),
        ("an escape sequence", b"\x1b[2J\x1b]0;owned\x07"),
        ("a large number", b"99999999999999999999999999999999"),
        ("a negative number", b"-9223372036854775808"),
    ];
    for machine in [MLX5, RXE, CONTAINER] {
        for (name, bytes) in rows {
            let tree = Tree::of(machine);
            let mut all = Vec::new();
            files(tree.root(), &mut all);
            for file in &all {
                fs::write(file, bytes).expect("a file");
            }
            tree.bytes("proc/cpuinfo", &vec![b'x'; 5 << 20]);
            let output = doctor_on(&tree, &[]);
            let said = text(&output);
            assert!(output.status.code().is_some_and(|code| code < 2), "{name}: {output:?}");
            assert!(!said.contains('\x1b') && !said.contains('\x07'), "{name}: {said}");
        }
    }
}

#[test]
fn folders_in_the_place_of_files_and_missing_parts_are_survived() {
    for (part, severity, what) in [
        ("proc", "warning", "/proc tells nothing"),
        ("sys", "warning", "/sys tells nothing"),
        ("sys/class", "blocker", "no RDMA device, though mlx5_ib is loaded"),
        ("sys/class/infiniband", "blocker", "no RDMA device, though mlx5_ib is loaded"),
        ("sys/class/net", "blocker", "no Ethernet interface is up"),
        ("dev", "blocker", "there is no /dev/infiniband/uverbs0"),
    ] {
        let tree = Tree::of(MLX5);
        tree.remove(part);
        let report = json(&doctor_on(&tree, &["--json"]));
        assert!(working(&report).contains(&"soft:/PATH.sock".to_owned()), "{part}: {report}");
        assert!(has(&problems(&report, severity), what), "{part}: {report}");
    }
    let tree = Tree::of(RXE);
    let mut all = Vec::new();
    files(tree.root(), &mut all);
    for file in &all {
        fs::remove_file(file).expect("a file");
        fs::create_dir(file).expect("a folder");
    }
    let report = json(&doctor_on(&tree, &["--json"]));
    assert!(has(&problems(&report, "note"), "could not be read"), "{report}");
    let empty = doctor_on(&Tree::new(), &["--json"]);
    assert_eq!(working(&json(&empty)), ["soft:/PATH.sock"]);
}

/// The double of libibverbs, if it was built: `cargo build -p roceway-verbs-double`.
fn double() -> Option<std::path::PathBuf> {
    let found = Path::new(env!("CARGO_BIN_EXE_roceway")).with_file_name("libverbs_double.so");
    if !found.is_file() {
        println!("SKIPPED what_verbs_tell: no libverbs_double.so beside the program");
    }
    found.is_file().then_some(found)
}

#[test]
fn what_verbs_tell_decides_on_modes() {
    let Some(library) = double() else { return };
    // The double's addresses belong to no interface here, so rc and ud do not work on it.
    for (name, text, raw, what) in [
        ("all of it", "dev=d0,max_inline=220", true, ""),
        ("no raw packets", "dev=d0,raw=off", false, "the device has no RAW_PACKET"),
        ("no right", "dev=d0,privileged=no", false, "no CAP_NET_RAW"),
        ("no rules", "dev=d0,flows=off", false, "does not steer"),
        ("down", "dev=d0,link=down", false, "the port is DOWN"),
        ("InfiniBand", "dev=d0,link_layer=infiniband", false, "InfiniBand"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roceway"));
        command.args(["doctor", "--json", "rdma:d0,mode=raw"]);
        command.env("ROCEWAY_LIBIBVERBS", &library).env("ROCEWAY_DOUBLE", text);
        let output = command.output().expect("it runs");
        let report = json(&output);
        let has_raw = report["facts"]["rdma"]["modes"][0] == "raw";
        let works = raw && has_raw;
        assert_eq!(output.status.code(), Some(i32::from(!works)), "{name}: {output:?}");
        let what = if has_raw { what } else { "has no mode=raw" };
        assert!(works || has(&problems(&report, "blocker"), what), "{name}: {report}");
        let claims = &report["facts"]["rdma"]["devices"][0]["capabilities"];
        assert_eq!(claims["raw_packet"], name != "no raw packets", "{name}");
        if raw {
            assert_eq!(
                (&claims["inline_max"], &claims["raw_permitted"]),
                (&220.into(), &true.into())
            );
        }
    }
}

#[test]
fn this_machine_is_examined_and_left_as_it_was() {
    let interfaces = || {
        let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before = interfaces();
    let output = doctor(&["--json"]);
    // Other tests make interfaces at the same time; ours have names of their own.
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("rwdoc");
    assert!(!interfaces().iter().any(ours), "{before:?}");
    let report = json(&output);
    assert_eq!(report["version"], 1);
    assert_eq!(report["tried"], true);
    assert!(working(&report).contains(&"soft:/PATH.sock".to_owned()), "{report}");
    assert_eq!(output.status.code(), Some(0));
    // Nobody reads a terminal's progress here.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
