//! Files over HTTP between Roceway and programs on the kernel's sockets: curl fetches from the
//! example `http_server`, and Roceway fetches from Python's. Skipped, loudly, without root, curl,
//! Python or the example (`cargo build --examples`).

mod kernel_world;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kernel_world::*;

/// Longest time of one transfer.
const TRANSFER_SECONDS: &str = "120";

/// A directory with a file of the pattern in it.
struct Files(PathBuf);

impl Files {
    fn new(test: &str, bytes: u64) -> Files {
        let path = std::env::temp_dir().join(format!("roceway-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let mut file = File::create(path.join("large")).unwrap();
        let mut written = 0;
        while written < bytes {
            let left = usize::try_from(bytes - written).unwrap();
            file.write_all(pattern(written, left)).unwrap();
            written += left.min(CHUNK) as u64;
        }
        Files(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The example, where cargo puts it beside the tests.
fn example() -> Option<PathBuf> {
    let tests = std::env::current_exe().ok()?;
    let path = tests.parent()?.parent()?.join("examples/http_server");
    path.is_file().then_some(path)
}

/// Waits until a port of the kernel's or of Roceway's takes connections.
fn wait_for(to: SocketAddr) {
    let limit = Instant::now() + LIMIT;
    while TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_err() {
        assert!(Instant::now() < limit, "nobody listens on {to}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Has curl fetch the file from the example over `device`; compares every byte.
fn curl_fetches(test: &str, bytes: u64, faults: &str) {
    let Some(example) = example() else {
        return skipped(test, "there is no example; cargo build --examples");
    };
    let files = Files::new(test, bytes);
    let device = format!("tap:t0,up=on,addr=10.8.0.1/24{faults}");
    let root = files.0.to_str().unwrap();
    let arguments = ["--device", &device, "--address", "10.8.0.2/24", "--port", "80", root];
    let _server = Program::start(example.to_str().unwrap(), &arguments).unwrap();
    wait_for(SocketAddr::new(US[0], 80));
    let url = "http://10.8.0.2/large";
    let arguments = ["--silent", "--show-error", "--fail", "--max-time", TRANSFER_SECONDS, url];
    let Ok(mut curl) = Program::start("curl", &arguments) else {
        return skipped(test, "there is no curl; install curl");
    };
    let fetched = compare(curl.0.stdout.take().unwrap()).unwrap();
    let (good, _, errors) = curl.finish();
    assert!(good, "curl: {errors}");
    assert_eq!(fetched, bytes);
}

/// Reads to the end and compares with the pattern; returns how many bytes there were.
fn compare(mut from: impl Read) -> io::Result<u64> {
    let mut out = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let count = from.read(&mut out)?;
        if count == 0 {
            return Ok(offset);
        }
        check(offset, &out[..count]);
        offset += count as u64;
    }
}

#[test]
fn curl_fetches_a_gibibyte() {
    in_namespace("curl_fetches_a_gibibyte", || {
        curl_fetches("curl_fetches_a_gibibyte", 1 << 30, "");
    });
}

#[test]
fn curl_fetches_over_a_bad_wire() {
    in_namespace("curl_fetches_over_a_bad_wire", || {
        let faults = ",loss=1%,dup=1%,reorder=1%,sends=on";
        curl_fetches("curl_fetches_over_a_bad_wire", 64 << 20, faults);
    });
}

#[test]
fn roceway_fetches_from_python() {
    in_namespace("roceway_fetches_from_python", || {
        let test = "roceway_fetches_from_python";
        const BYTES: u64 = 256 << 20;
        let files = Files::new(test, BYTES);
        let world = World::tap("");
        let node = world.node();
        let root = files.0.to_str().unwrap();
        let arguments = ["-m", "http.server", "--bind", "10.8.0.1", "--directory", root, "8000"];
        let Ok(_server) = Program::start("python3", &arguments) else {
            return skipped(test, "there is no python3; install python3");
        };
        let to = SocketAddr::new(HOST[0], 8000);
        wait_for(to);
        let stream = node.connect(to).unwrap();
        node.write_all(&stream, b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            node.read_exact(&stream, &mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert_eq!(node.read_all(&stream).unwrap(), BYTES);
    });
}
