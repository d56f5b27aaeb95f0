//! A gateway as a process of its own between Roceway's wire and the kernel.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Peer, World, allow_ipv6, ip, veth};

/// What a test's process may be told of the double of libibverbs.
const WIRE: &str = "ROCEWAY_DOUBLE";

/// Which wire is on the gateway's one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    /// Shared memory.
    Soft,
    /// RDMA, reliable connections, on the double of libibverbs.
    Rc,
    /// RDMA, datagrams, on the double.
    Ud,
}

/// A gateway that runs; killed when the test ends, however it ends.
pub(crate) struct Gateway {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    /// What it said of itself at its start.
    pub(crate) announced: Value,
    folder: PathBuf,
}

impl Gateway {
    /// Starts one in the namespace of the calling thread, and waits until it runs.
    pub(crate) fn start(folder: PathBuf, wire: &str, host: &str) -> Gateway {
        let mut process = Command::new(env!("CARGO_BIN_EXE_roceway"))
            .args(["gateway", wire, host, "--json", "--counters"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let announced = serde_json::from_str(&line).unwrap_or_else(|error| {
            let mut said = String::new();
            let _ = process.stderr.take().unwrap().read_to_string(&mut said);
            panic!("{error}: {line}{said}");
        });
        Gateway { process, output, announced, folder }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end: exit code, counters if it told them, standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, Value, String) {
        let (mut told, mut said) = (String::new(), String::new());
        self.output.read_to_string(&mut told).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = self.process.wait().unwrap().code();
        (code, serde_json::from_str(&told).unwrap_or(Value::Null), said)
    }

    /// Ends it as a user would, and gives its counters, which must account for every frame.
    pub(crate) fn stop(self) -> Value {
        self.signal("-TERM");
        let (code, told, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        conserves(&told["counters"]);
        told["counters"].clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether every frame that came in is in one counter.
pub(crate) fn conserves(counters: &Value) {
    for side in ["wire", "host"] {
        let all = counters[side].as_object().cloned().unwrap_or_default();
        let value = |name: &str| all.get(name).and_then(Value::as_u64).unwrap_or(0);
        let drops: u64 = all
            .iter()
            .filter(|(name, _)| name.starts_with("drop_"))
            .map(|(name, _)| value(name))
            .sum();
        let rest = value("forwarded") + value("beacons") + value("waiting");
        assert_eq!(value("received"), rest + drops, "{side}: {counters}");
    }
}

/// A folder of this test's own.
fn folder() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("roceway-gateway-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Both ends of the wire: Roceway's and the gateway's.
fn wires(link: Link, folder: &Path, options: &str) -> (String, String) {
    let mode = match link {
        Link::Soft => {
            let path = folder.join("wire.sock");
            let text = format!("soft:{}{options}", path.display());
            return (text.clone(), text);
        }
        Link::Rc => "rc",
        Link::Ud => "ud",
    };
    let end = |own: u8, other: u8| {
        format!(
            "rdma:double{own},mode={mode},gid=3,port={},peer=127.0.0.{}:{}{options}",
            23_000 + u16::from(own),
            other + 1,
            23_000 + u16::from(other)
        )
    };
    (end(0, 1), end(1, 0))
}

impl World {
    /// Roceway behind a gateway to a TAP of the kernel's. Options begin with a comma.
    pub(crate) fn behind_tap(link: Link, wire_options: &str, tap_options: &str) -> World {
        allow_ipv6(true);
        let folder = folder();
        let (ours, theirs) = wires(link, &folder, wire_options);
        let tap = format!("tap:t0,up=on,addr=10.8.0.1/24,addr=fd00::1/64{tap_options}");
        let gateway = Gateway::start(folder, &theirs, &tap);
        World { device: ours, peer: None, gateway: Some(gateway) }
    }

    /// Roceway behind a gateway to an interface, with the kernel at its other end.
    pub(crate) fn behind_veth(link: Link, wire_options: &str, options: &str) -> World {
        let peer: Peer = veth();
        peer.run(|| {
            allow_ipv6(true);
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/vb/disable_ipv6", "0");
            ip("addr add fd00::1/64 dev vb nodad");
        });
        let folder = folder();
        let (ours, theirs) = wires(link, &folder, wire_options);
        let gateway = Gateway::start(folder, &theirs, &format!("packet:va{options}"));
        World { device: ours, peer: Some(peer), gateway: Some(gateway) }
    }
}

/// The double, beside the folder of the tests' programs.
fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` in a process, and its children, that have the double for their libibverbs: a
/// process loads the library once.
pub(crate) fn with_double(name: &str, test: fn()) {
    if std::env::var_os(WIRE).is_some() {
        return test();
    }
    let Some(double) = double() else {
        let reason = "no double of libibverbs; cargo build -p roceway-verbs-double";
        return super::skipped(name, reason);
    };
    let folder = folder();
    let devices = format!(
        "wire={};dev=double0,mac=02:00:00:00:00:0a,ip=127.0.0.1,active_mtu=4096;\
         dev=double1,mac=02:00:00:00:00:0b,ip=127.0.0.2,active_mtu=4096",
        folder.display()
    );
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("ROCEWAY_LIBIBVERBS", double)
        .env(WIRE, devices)
        .status()
        .unwrap();
    let _ = std::fs::remove_dir_all(&folder);
    assert!(status.success(), "{name} failed in its own process");
}
