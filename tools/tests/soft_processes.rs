//! `soft:` between two processes, through workers and sockets: who comes first, kill -9, restart;
//! and what is said of devices, addresses and sizes that cannot be.
//!
//! The other process is this test program itself, asked by an environment variable to play a
//! part; without it `child` is an empty test.

mod kernel_world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel_world::*;
use roceway_runtime::local::{TcpListener, TcpStream, UdpSocket, Worker};
use roceway_runtime::{Prefix, WorkerConfig};

const PART: &str = "ROCEWAY_TEST_PART";
const PATH: &str = "ROCEWAY_TEST_PATH";
/// After this time a child ends by itself.
const CHILD_LIFE: Duration = Duration::from_secs(60);
/// Within this time a connection learns that its peer's process is gone.
const NOTICED: Duration = Duration::from_secs(1);

fn address(host: usize) -> SocketAddr {
    SocketAddr::new([HOST[0], US[0]][host], PORT)
}

fn node(path: &Path, host: usize) -> Node {
    let prefix = Prefix { address: address(host).ip(), length: 24 };
    let device = format!("soft:{}", path.display());
    Node { worker: Worker::open(&device, &WorkerConfig::new(prefix)).unwrap() }
}

fn spawn(part: &str, path: &Path) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture"]).env(PART, part).env(PATH, path);
    Program(command.stdout(Stdio::null()).spawn().unwrap())
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let name = format!("roceway-processes-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn link(&self) -> PathBuf {
        self.0.join("link.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Plays the part that the environment asks for.
#[test]
fn child() {
    let (Ok(part), Ok(path)) = (std::env::var(PART), std::env::var(PATH)) else { return };
    let node = node(Path::new(&path), 1);
    match part.as_str() {
        "serve" => serve(&node),
        _ => call(&node),
    }
}

/// Returns what comes on every connection, for as long as the process lives.
fn serve(node: &Node) {
    let listener = TcpListener::bind(&node.worker, address(1)).unwrap();
    let end = Instant::now() + CHILD_LIFE;
    let mut streams = Vec::new();
    let mut bytes = vec![0; CHUNK];
    while Instant::now() < end {
        streams.extend(listener.accept().ok().map(|(stream, _)| stream));
        streams.retain(|stream| match stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => node.write_all(stream, &bytes[..count]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        node.worker.turn_or_sleep().unwrap();
    }
}

/// Connects and sends for as long as the process lives.
fn call(node: &Node) {
    let stream = node.until("a listener", || retried(node.connect(address(0)))).unwrap();
    let end = Instant::now() + CHILD_LIFE;
    while Instant::now() < end && node.write_all(&stream, pattern(0, 1000)).is_ok() {
        node.run_for(Duration::from_millis(10));
    }
}

/// Sends something and sees it come back.
fn echo(node: &Node, stream: &TcpStream) {
    for length in [1, 1000, 100_000] {
        node.write_all(stream, pattern(7, length)).unwrap();
        let mut back = vec![0; length];
        node.read_exact(stream, &mut back).unwrap();
        assert!(back == pattern(7, length));
    }
}

/// Reads whatever comes until the stream ends.
fn drain(node: &Node, stream: &TcpStream) -> std::io::Result<()> {
    let mut out = vec![0; CHUNK];
    node.until("the end", || match stream.read(&mut out) {
        Ok(1..) => pending(true),
        Ok(0) => Ok(()),
        Err(error) => Err(error),
    })
}

#[test]
fn either_process_may_start_first() {
    let directory = Directory::new("first");
    for child_first in [false, true] {
        let path = directory.link();
        let early = child_first.then(|| spawn("serve", &path));
        if child_first {
            let limit = Instant::now() + LIMIT;
            while !path.exists() {
                assert!(Instant::now() < limit, "the child does not open its device");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let node = node(&path, 0);
        node.run_for(Duration::from_millis(20));
        let child = early.unwrap_or_else(|| spawn("serve", &path));
        let stream = node.until("a listener", || retried(node.connect(address(1)))).unwrap();
        echo(&node, &stream);
        drop((stream, node, child));
        let _ = std::fs::remove_file(&path);
    }
}

#[test]
fn a_killed_server_ends_its_connections_and_its_successor_takes_the_port() {
    let directory = Directory::new("server");
    let node = node(&directory.link(), 0);
    for round in 0..3 {
        let child = spawn("serve", &directory.link());
        let stream = node.until("a listener", || retried(node.connect(address(1)))).unwrap();
        let other = node.connect(address(1)).unwrap();
        echo(&node, &stream);
        if round == 1 {
            // With data on the way.
            node.until("to write", || other.write(pattern(0, CHUNK))).unwrap();
        }
        // Dropping kills it.
        drop(child);
        let killed = Instant::now();
        for stream in [&stream, &other] {
            let ended = drain(&node, stream);
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        }
        assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    }
    assert_eq!(node.counter("peers_gone"), 3, "{}", node.state());
}

#[test]
fn a_killed_client_ends_its_connection_and_its_successor_connects() {
    let directory = Directory::new("client");
    let node = node(&directory.link(), 0);
    let listener = TcpListener::bind(&node.worker, address(0)).unwrap();
    for _ in 0..3 {
        let child = spawn("call", &directory.link());
        let stream = node.accept(&listener);
        node.read_exact(&stream, &mut [0; 2000]).unwrap();
        drop(child);
        let killed = Instant::now();
        assert_eq!(drain(&node, &stream).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    }
}

/// The text of the error with which a worker does not start.
fn refusal(device: &str, set: impl FnOnce(&mut WorkerConfig)) -> String {
    let mut config = WorkerConfig::new("10.8.0.2/24".parse().unwrap());
    set(&mut config);
    match Worker::open(device, &config) {
        Ok(_) => "it opens".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_is_answered_with_cause_and_remedy() {
    type Set = fn(&mut WorkerConfig);
    let same: Set = |_| ();
    let rows: [(&str, Set, &[&str]); 15] = [
        ("sofd:/tmp/x.sock", same, &["sofd", "soft"]),
        ("soft:", same, &["name is missing", "soft:/PATH.sock"]),
        (
            "soft:/tmp/roceway-x.sock,mtuu=9000",
            same,
            &["soft:/tmp/roceway-x.sock,mtuu=9000: unknown option 'mtuu'; did you mean 'mtu'?"],
        ),
        ("soft:/tmp/roceway-x.sock,mtu=0", same, &["mtu=0", "68 to 65535"]),
        ("packet:nosuch0", same, &["packet:nosuch0", "nosuch0"]),
        ("soft:/tmp/roceway-x.sock", |c| c.addresses.clear(), &["no address", "10.0.0.1/24"]),
        ("soft:/tmp/roceway-x.sock", |c| c.addresses[0].length = 33, &["33"]),
        ("soft:/tmp/roceway-x.sock", |c| c.addresses[0].length = 0, &["10.8.0.2/0", "gateway"]),
        (
            "soft:/tmp/roceway-x.sock",
            |c| c.addresses[0].address = "224.0.0.1".parse().unwrap(),
            &["224.0.0.1"],
        ),
        (
            "soft:/tmp/roceway-x.sock",
            |c| c.gateways = vec!["192.0.2.1".parse().unwrap()],
            &["192.0.2.1"],
        ),
        ("soft:/tmp/roceway-x.sock", |c| c.queue_size = Some(0), &["0", "16", "4096"]),
        ("soft:/tmp/roceway-x.sock", |c| c.queue_size = Some(100), &["100", "power of two"]),
        ("soft:/tmp/roceway-x.sock", |c| c.queue_size = Some(32_768), &["32768", "4096"]),
        ("soft:/tmp/roceway-x.sock", |c| c.mtu = Some(0), &["0"]),
        ("soft:/tmp/roceway-x.sock", |c| c.cpu = Some(100_000), &["100000"]),
    ];
    let mut wrong = Vec::new();
    for (number, (device, set, wanted)) in rows.into_iter().enumerate() {
        let found = refusal(device, set);
        if wanted.iter().any(|word| !found.contains(word)) {
            wrong.push(format!("row {number}, {device}, wants {wanted:?}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (text, wanted) in [
        ("10.0.0.1", "no prefix length"),
        ("10.0.0.1/33", "1 to 32"),
        ("10.0.0.1/0", "1 to 32"),
        ("10.0.0/24", "not an IPv4 or IPv6 address"),
        ("fd00::1/129", "1 to 128"),
    ] {
        let found = text.parse::<Prefix>().unwrap_err().to_string();
        assert!(found.contains(wanted), "{text}: {found}");
    }
}

#[test]
fn ports_and_addresses_that_are_taken_or_not_ours_are_refused() {
    let directory = Directory::new("taken");
    let node = node(&directory.link(), 0);
    let first = TcpListener::bind(&node.worker, address(0)).unwrap();
    let taken = TcpListener::bind(&node.worker, address(0)).err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let foreign = TcpListener::bind(&node.worker, address(1)).err().unwrap();
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    let datagrams = UdpSocket::bind(&node.worker, address(0)).unwrap();
    let taken = UdpSocket::bind(&node.worker, address(0)).err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let foreign = UdpSocket::bind(&node.worker, address(1)).err().unwrap();
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    drop((first, datagrams));
    TcpListener::bind(&node.worker, address(0)).unwrap();
    UdpSocket::bind(&node.worker, address(0)).unwrap();
}

#[test]
fn a_device_without_privilege_says_what_it_takes() {
    in_namespace("a_device_without_privilege_says_what_it_takes", || {
        ip("link add va type veth peer name vb");
        drop_network_capabilities();
        let same: fn(&mut WorkerConfig) = |_| ();
        for (device, wanted) in [("tap:t0", "cap_net_admin"), ("packet:va", "cap_net_raw")] {
            let found = refusal(device, same);
            assert!(found.contains("Operation not permitted"), "{found}");
            assert!(found.contains(wanted), "{found}");
        }
    });
}
