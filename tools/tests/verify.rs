//! `roceway verify` as a user runs it, on the double of libibverbs: alone, with another process as
//! the other host, and on devices that lie.
//!
//! Skipped, loudly, where the double was not built (`cargo build -p roceway-verbs-double`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// The double, beside the folder of the tests' programs.
fn double(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let this = std::env::current_exe().ok()?;
    let beside = this.parent()?.parent()?.join("libverbs_double.so");
    let found = named.into_iter().chain([beside]).find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED {test}: no double of libibverbs; cargo build -p roceway-verbs-double");
    }
    found
}

/// A wire of its own, with addresses of its own: tests run side by side.
struct Bed {
    double: PathBuf,
    folder: tempfile::TempDir,
    /// The lower 24 bits of its addresses, without the host's four: of process and bed, so that
    /// runs of several trees on one machine meet neither.
    net: u32,
}

static NETS: AtomicU32 = AtomicU32::new(1);
/// Beds of a process.
const NETS_MAX: u32 = 15;

impl Bed {
    fn new(test: &str) -> Option<Bed> {
        let double = double(test)?;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("w")).expect("a wire");
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        assert!(number <= NETS_MAX, "as many beds as there are numbers for");
        let process = std::process::id() & 0xffff;
        Some(Bed { double, folder, net: (process << 4 | number) << 4 })
    }

    fn address(&self, host: u8) -> String {
        assert!(host < 16, "four bits");
        let [_, a, b, c] = (self.net | u32::from(host)).to_be_bytes();
        format!("127.{a}.{b}.{c}")
    }

    fn command(&self, host: u8, items: &str) -> Command {
        let wire = self.folder.path().join("w");
        let device = format!(
            "wire={};dev=double0,mac=02:00:00:00:00:{host:02x},ip={}{items}",
            wire.display(),
            self.address(host)
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_roceway"));
        command
            .current_dir(self.folder.path())
            .env("ROCEWAY_LIBIBVERBS", &self.double)
            .env("ROCEWAY_DOUBLE", device)
            .stdin(Stdio::null())
            .arg("verify");
        command
    }

    fn alone(&self, arguments: &[&str]) -> Output {
        self.command(1, "").args(arguments).output().expect("it runs")
    }

    fn server(&self, items: &str) -> Server {
        self.server_of("rdma:double0,gid=3", items)
    }

    fn server_of(&self, device: &str, items: &str) -> Server {
        let mut command = self.command(2, items);
        command.args(["server", device, "--listen", &self.address(2)]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        assert!(line.contains("listens at"), "{line}");
        Server(child)
    }

    fn report(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("the report")
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

/// Names of the checks of a mode with this verdict.
fn checks(report: &Value, mode: &str, verdict: &str) -> Vec<String> {
    let all = report["checks"].as_array().expect("checks");
    let of = all.iter().filter(|check| check["mode"] == mode && check["verdict"] == verdict);
    of.map(|check| check["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn one_host_shows_what_rc_and_ud_can_and_says_what_needs_another() {
    let Some(bed) = Bed::new("one_host_shows_what_rc_and_ud_can") else { return };
    let output = bed.alone(&["rdma:double0,gid=3", "--report", "r.txt"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    let file = bed.report("r.txt");
    assert!(file.starts_with(&told) && told.contains("every byte compared at both ends"), "{file}");
    let report = last_line(&file);
    for (mode, names) in [
        (
            "rc",
            &[
                "queue_pairs",
                "integrity",
                "inline",
                "unsignalled",
                "events",
                "asynchronous_events",
                "wire",
                "udp",
                "tcp",
                "tcp_rr",
                "tcp_stream",
                "tcp_maerts",
                "counters",
                "bytes_seen",
                "counters",
            ][..],
        ),
        (
            "ud",
            &[
                "queue_pairs",
                "integrity",
                "inline",
                "unsignalled",
                "events",
                "wire",
                "udp",
                "tcp",
                "tcp_rr",
                "tcp_stream",
                "tcp_maerts",
                "counters",
                "bytes_seen",
                "counters",
            ],
        ),
        ("raw", &["queue_pairs"]),
    ] {
        assert_eq!(checks(&report, mode, "passed"), names, "{told}");
        assert_eq!(checks(&report, mode, "failed"), [""; 0]);
    }
    let untried = checks(&report, "raw", "not_tried");
    assert!(untried.iter().any(|name| name == "segmentation_out"), "{untried:?}");
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(6));
    assert_eq!(report["facts"]["device"]["name"], "double0");
}

#[test]
fn sets_of_offloads_are_tried_by_name_and_each_keeps_every_byte() {
    let Some(bed) = Bed::new("sets_of_offloads_are_tried_by_name") else { return };
    let output = bed.alone(&["rdma:double0,gid=3", "--offloads", "--report", "r.txt"]);
    let told = text(&output.stdout);
    // RAW_PACKET queue pairs need a peer, which is no failure.
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    let report = last_line(&bed.report("r.txt"));
    for (mode, least, name) in [
        ("rc", 20, "offloads mrg_rxbuf,gro, IPv4"),
        ("rc", 20, "guest_ecn,guest_uso4,guest_uso6,mrg_rxbuf,gso,gro, IPv6"),
        ("rc", 20, "guest_ecn,guest_uso4,guest_uso6,gso_uso, IPv6"),
        ("ud", 3, "offloads csum,guest_csum,mrg_rxbuf,gso,gro, IPv4"),
        ("ud", 3, "offloads csum,guest_csum,mrg_rxbuf,gso_uso,gro, IPv4"),
    ] {
        let sets = checks(&report, mode, "passed");
        let sets: Vec<&String> = sets.iter().filter(|n| n.starts_with("offloads ")).collect();
        assert!(sets.len() >= least, "{mode}: {sets:?}");
        assert!(sets.iter().any(|set| set.contains(name)), "{mode}, {name}: {sets:?}");
    }
    let with_peer = bed.alone(&["rdma:double0,gid=3", "--offloads", "--peer", "127.0.0.1"]);
    assert_eq!(with_peer.status.code(), Some(2), "{}", text(&with_peer.stderr));
}

/// What two hosts can show is all shown, and each claim that does not hold is found out.
#[test]
fn two_hosts_show_the_rest_and_lies_are_found_out() {
    let Some(bed) = Bed::new("two_hosts_show_the_rest_and_lies_are_found_out") else { return };
    let both = |name: &str| vec![format!("{name}_out"), format!("{name}_in")];
    for (items, failed) in [
        ("", vec![]),
        (",lie=flow", both("rules")),
        (",lie=tso", both("segmentation")),
        (",lie=csum", [both("checksum"), both("segmentation")].concat()),
    ] {
        let server = bed.server(items);
        let peer = bed.address(2);
        let arguments = ["rdma:double0,gid=3,mode=raw", "--peer", &peer, "--json"];
        let output = bed.command(1, items).args(arguments).output().expect("it runs");
        let report = last_line(&text(&output.stdout));
        let mut found = checks(&report, "raw", "failed");
        // Roceway's own device finds out for itself what it can use: that is not in question here.
        found.retain(|name| name.ends_with("_out") || name.ends_with("_in"));
        found.sort();
        let mut expected = failed.clone();
        expected.sort();
        assert_eq!(found, expected, "{items}: {report:#}");
        if !failed.is_empty() {
            assert_eq!(output.status.code(), Some(1), "{items}");
        }
        if items.is_empty() {
            let passed = checks(&report, "raw", "passed");
            for name in ["rules", "rules_by_port", "integrity", "checksum", "segmentation"] {
                assert!(both(name).iter().all(|name| passed.contains(name)), "{passed:?}");
            }
        }
        drop(server);
    }
}

#[test]
fn two_hosts_compare_every_byte_of_the_wire() {
    let Some(bed) = Bed::new("two_hosts_compare_every_byte_of_the_wire") else { return };
    // A process that is the double of a NIC answers when it is on a core: where ten others want
    // that core, not within the tenth of a second after which rc gives up by default.
    for (mode, patience) in [("rc", ",timeout=17,give-up=60s"), ("ud", "")] {
        let device = format!("rdma:double0,gid=3,mode={mode}{patience}");
        let _server = bed.server_of(&device, "");
        let peer = bed.address(2);
        let output = bed.alone(&[&device, "--peer", &peer, "--json"]);
        let report = last_line(&text(&output.stdout));
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert_eq!(checks(&report, mode, "not_tried"), [""; 0], "{report:#}");
        let seen: Vec<&Value> = report["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .filter(|check| check["name"] == "bytes_seen" && check["side"] == "peer")
            .collect();
        assert_eq!(seen.len(), 1, "{report:#}");
        assert!(seen[0]["evidence"].to_string().contains("4194304 bytes"), "{report:#}");
    }
}

/// A device that breaks bytes, loses its port, or lacks what a mode needs.
#[test]
fn what_a_device_lacks_is_no_failure_and_what_it_breaks_is_one() {
    let Some(bed) = Bed::new("what_a_device_lacks_is_no_failure") else { return };
    let run = |items: &str, device: &str| {
        let output = bed.command(1, items).args([device, "--json"]).output().expect("it runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    // Nothing of mode rc can be tried where the port has no address.
    let (code, told, error) = run("", "rdma:double0,mode=rc");
    let report = last_line(&told);
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(checks(&report, "rc", "failed"), [""; 0], "{told}");
    assert!(error.contains("nothing could be tried"), "{error}");
    let (_, told, _) = run(",max_inline=0", "rdma:double0,mode=ud,gid=3");
    assert_eq!(checks(&last_line(&told), "ud", "not_tried"), ["inline"], "{told}");
    let (_, told, _) = run(",raw=off", "rdma:double0,mode=raw,gid=3");
    assert!(checks(&last_line(&told), "raw", "not_tried").contains(&"queue_pairs".to_owned()));
}

#[test]
fn what_cannot_be_is_answered_clearly() {
    let Some(bed) = Bed::new("what_cannot_be_is_answered_clearly") else { return };
    let device = "rdma:double0,gid=3,mode=rc";
    let missing = bed.address(9);
    for (arguments, code, says) in [
        (&["rdma:nothing0"][..], 1, "there are double0"),
        (&["soft:/x"], 2, "only RDMA devices are verified"),
        (&["rdma:double0,mode=xy"], 2, "say raw, rc or ud"),
        (&[device, "--peer", &missing], 1, "roceway verify server"),
        (&[device, "--report", "none/r.txt"], 1, "none/r.txt: create: No such file"),
        (&["server", device, "--listen", "nowhere"], 2, "ADDRESS:PORT"),
        (&["server", device, "--listen", "192.0.2.1"], 1, "cannot listen at 192.0.2.1:4797"),
    ] {
        let output = bed.alone(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

/// One answer of the server to a line.
fn ask(address: &str, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect((address, 4797)).expect("the server");
    let mut answers = String::new();
    for line in lines {
        stream.write_all(line.as_bytes()).expect("it listens");
        stream.write_all(b"\n").expect("it listens");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("a connection");
    stream.read_to_string(&mut answers).expect("answers");
    answers
}

/// Strangers get an answer or the end, and never a frame from or to somebody else's address.
#[test]
fn a_server_refuses_what_is_no_part_of_a_trial() {
    let Some(bed) = Bed::new("a_server_refuses_what_is_no_part_of_a_trial") else { return };
    let _server = bed.server("");
    let address = bed.address(2);
    let frame = |to: &str, from: &str| {
        let frame = format!("{to}{from}0800{}", "00".repeat(50));
        format!(r#"{{"do":"send","frame":"{frame}","checksum":false,"inline":false,"cut":null}}"#)
    };
    let (trial, other) = ("025257000001", "ffffffffffff");
    let open = r#"{"do":"frames"}"#;
    for (lines, says) in [
        (vec!["GET / HTTP/1.1"], ""),
        (vec![r#"{"do":"hello","version":99,"build":"x"}"#], "this one version 99"),
        (vec![r#"{"do":"end_wire"}"#], "there is no wire"),
        (vec![r#"{"do":"forget"}"#], "no queue pair"),
        (vec![open, &frame(other, trial)], "02:52:57"),
        (vec![open, &frame(trial, other)], "02:52:57"),
        (vec![open, r#"{"do":"rule","mac":[1,2,3,4,5,6],"udp_port":null}"#], "02:52:57"),
        (
            vec![open, r#"{"do":"send","frame":"zz","checksum":false,"inline":false,"cut":null}"#],
            "this is no frame",
        ),
        (vec![open, &frame(trial, trial)], r#""said":"done""#),
    ] {
        let answer = ask(&address, &lines);
        assert!(answer.contains(says), "{lines:?}: {answer}");
        assert!(!says.is_empty() || answer.is_empty(), "{lines:?}: {answer}");
    }
    // It serves on.
    let hello = r#"{"do":"hello","version":1,"build":"x"}"#;
    assert!(ask(&address, &[hello]).contains(r#""device":"double0""#));
}

#[test]
fn the_report_of_a_recorded_name_is_where_it_was_asked_for() {
    let Some(bed) = Bed::new("the_report_is_where_it_was_asked_for") else { return };
    let output = bed.alone(&["rdma:double0,mode=raw"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let name = "roceway-verify-double0-mode-raw.txt";
    assert!(text(&output.stderr).contains(name));
    assert!(Path::new(&bed.folder.path().join(name)).exists());
}
