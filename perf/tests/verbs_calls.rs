//! What the modes of an RDMA NIC ask of the library, counted by the test-only double of libibverbs:
//! the table of docs/verbs-calls.md, and that streams over rc and ud arrive byte for byte.
//!
//! Both ends are in one process, on two devices of the double that hear each other. Each test runs
//! in a process of its own, since a process loads the library once. A test that finds no double
//! says so and is skipped.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use roceway_perf::ends::ADDRESSES;
use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::{Prefix, WorkerConfig};

const MODES: [&str; 3] = ["raw", "rc", "ud"];

/// The double, beside the folder of the tests' programs.
fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` for each mode in a process that has the double for its libibverbs.
fn with_double(name: &str, test: fn(&str)) {
    if let Ok(mode) = std::env::var("ROCEWAY_TEST_ROW") {
        test(&mode);
        return;
    }
    let Some(double) = double() else {
        eprintln!("SKIPPED {name}: no double of libibverbs; cargo build -p roceway-verbs-double");
        return;
    };
    let folder = std::env::temp_dir();
    for mode in MODES {
        let path = folder.join(format!("roceway-{}-{mode}-{name:.20}", std::process::id()));
        let devices = format!(
            "control={};dev=a,mac=02:00:00:00:00:0a,ip=127.0.0.1,loopback=on;\
             dev=b,mac=02:00:00:00:00:0b,ip=127.0.0.2,loopback=on",
            path.display()
        );
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env("ROCEWAY_LIBIBVERBS", &double)
            .env("ROCEWAY_DOUBLE", devices)
            .env("ROCEWAY_TEST_ROW", mode)
            .status()
            .expect("a process of its own");
        let _none_was_made = std::fs::remove_file(&path);
        assert!(status.success(), "{name} failed over {mode}");
    }
}

/// Where the double of this process listens.
fn control_path() -> String {
    let text = std::env::var("ROCEWAY_DOUBLE").expect("in the child");
    let path = text.split(';').next().and_then(|entry| entry.strip_prefix("control="));
    path.expect("a path").to_owned()
}

/// The double's counters now.
struct Counted(String);

impl Counted {
    fn now() -> Counted {
        let (to, file) = (control_path(), format!("{}.counters", control_path()));
        let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        socket.send_to(format!("counters {file}").as_bytes(), to).expect("the double listens");
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                std::fs::remove_file(&file).expect("it is ours");
                return Counted(text);
            }
            assert!(Instant::now() < limit, "the double did not count");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn of(&self, name: &str) -> u64 {
        let lines = self.0.lines().filter_map(|line| line.split_once(' '));
        let found = lines.into_iter().find(|(counter, _)| *counter == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1.parse().expect("a number")
    }
}

struct Pair {
    client: Worker,
    server: Worker,
}

impl Pair {
    fn new(mode: &str) -> Pair {
        let port = 20_000 + std::process::id() % 20_000;
        let way = format!("mode={mode},gid=3,exchange=tcp");
        // A datagram wire that four may share has fewer credits a peer than 64 KB are datagrams.
        let room = if mode == "ud" { ",peers=1" } else { "" };
        let (a, b) = match mode {
            "raw" => ("rdma:a".to_owned(), "rdma:b".to_owned()),
            _ => (
                format!("rdma:a,{way},port=0,peer=127.0.0.2:{port}"),
                format!("rdma:b,{way},port={port},accept=127.0.0.0/8{room}"),
            ),
        };
        let worker = |text: &str, address: std::net::Ipv4Addr| {
            let prefix = Prefix { address: address.into(), length: 24 };
            let mut config = WorkerConfig::new(prefix).spinning();
            // What is counted is the way of frames, without what is done once in a while.
            config.turn.cold_period_ns = 20_000_000;
            Worker::open(text, &config).unwrap_or_else(|error| panic!("{error}"))
        };
        let server = worker(&b, ADDRESSES[1]);
        Pair { client: worker(&a, ADDRESSES[0]), server }
    }

    fn turn(&self) {
        let _ = self.client.turn();
        let _ = self.server.turn();
    }

    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            self.turn();
            if let Some(value) = attempt() {
                return value;
            }
            assert!(Instant::now() < limit, "never came: {what}");
        }
    }

    fn connect(&self, port: u16) -> (TcpStream, TcpStream) {
        let at = SocketAddr::new(ADDRESSES[1].into(), port);
        let listener = TcpListener::bind(&self.server, at).expect("a listener");
        let client = TcpStream::connect(&self.client, at).expect("a connection");
        let server = self.until("a connection", || listener.accept().ok()).0;
        client.set_nodelay(true).expect("no delay");
        server.set_nodelay(true).expect("no delay");
        (client, server)
    }
}

/// One byte there and back, each end turned when there is something for it.
fn transactions(pair: &Pair, (client, server): &(TcpStream, TcpStream), count: u32) {
    let mut byte = [0];
    let mut take = |stream: &TcpStream| {
        let limit = Instant::now() + Duration::from_secs(30);
        while stream.read(&mut byte).is_err() {
            assert!(Instant::now() < limit, "a byte never came");
            pair.turn();
        }
    };
    for _ in 0..count {
        assert_eq!(client.write(&[1]).ok(), Some(1));
        let _ = pair.client.turn();
        take(server);
        assert_eq!(server.write(&[2]).ok(), Some(1));
        let _ = pair.server.turn();
        take(client);
    }
}

/// `count` times 64 KB.
fn stream(pair: &Pair, (client, server): &(TcpStream, TcpStream), count: usize) {
    let data: Vec<u8> = (0..65_536).map(byte_at).collect();
    let mut out = vec![0; 65_536];
    for _ in 0..count {
        let (mut written, mut read) = (0, 0);
        pair.until("64 KB", || {
            written += client.write(&data[written..]).unwrap_or(0);
            let some = server.read(&mut out).unwrap_or(0);
            assert!(out[..some] == data[read..read + some], "behind {read}");
            read += some;
            (read == data.len()).then_some(())
        });
    }
}

/// What of the double's counters is in the table.
const NAMES: [&str; 8] = [
    "post_send_calls",
    "send_requests",
    "send_inline",
    "send_sges",
    "send_signalled",
    "post_recv_calls",
    "recv_requests",
    "recv_sges",
];

/// The table of docs/verbs-calls.md: for one transaction and for 64 KB, in hundredths.
const TABLE: [(&str, [u64; 8], [u64; 8]); 3] = [
    ("raw", [200, 200, 200, 0, 6, 13, 200, 200], [200, 300, 100, 1800, 203, 206, 4700, 4700]),
    ("rc", [200, 200, 200, 0, 6, 75, 200, 3600], [200, 300, 100, 2100, 203, 125, 300, 5400]),
    ("ud", [200, 200, 200, 0, 6, 7, 200, 400], [400, 7400, 200, 23_100, 406, 210, 7400, 14_800]),
];

/// Compares what was counted in so many rounds with a row. Receives are posted some at a time and
/// every 32nd send is signalled, so that of these a few may lie before or after.
fn compare(what: &str, (before, after): (&Counted, &Counted), rounds: u64, row: [u64; 8]) {
    let count = |name| (100 * (after.of(name) - before.of(name)) + rounds / 2) / rounds;
    let all = NAMES.map(count);
    for ((name, wanted), found) in NAMES.into_iter().zip(row).zip(all) {
        let slack = match name {
            "send_signalled" => 3,
            name if name.contains("recv") => 2 + wanted / 12,
            _ => 1,
        };
        let close = found.abs_diff(wanted) <= slack;
        assert!(close, "{what}: {name} {found}, in the table {wanted}; all {all:?}");
    }
}

/// Turns in which an end rang its doorbell, and how often it did.
fn doorbells(pair: &Pair) -> (u64, u64) {
    let (mut turns, mut rung) = (0, 0);
    for worker in [&pair.client, &pair.server] {
        worker.visit_counters(&mut |_, name, value| match name {
            "rdma_turns_that_sent" => turns += value,
            "rdma_doorbells" => rung += value,
            _ => {}
        });
    }
    (turns, rung)
}

#[test]
fn the_table_of_calls_is_what_the_double_counts() {
    with_double("the_table_of_calls_is_what_the_double_counts", |mode| {
        let pair = Pair::new(mode);
        let both = pair.connect(7);
        let (_, transaction, large) =
            TABLE.into_iter().find(|(name, ..)| *name == mode).expect("a mode");
        transactions(&pair, &both, 200);
        let (before, rang) = (Counted::now(), doorbells(&pair));
        transactions(&pair, &both, 640);
        let after = Counted::now();
        compare(&format!("{mode}, a transaction"), (&before, &after), 640, transaction);
        stream(&pair, &both, 20);
        let before = Counted::now();
        stream(&pair, &both, 64);
        let after = Counted::now();
        compare(&format!("{mode}, 64 KB"), (&before, &after), 64, large);
        assert_eq!(after.of("notify_calls"), 0, "nobody sleeps");
        let now = doorbells(&pair);
        assert_eq!(now.0 - rang.0, now.1 - rang.1, "one doorbell a turn");
    });
}

fn byte_at(place: usize) -> u8 {
    u8::try_from(place % 251).expect("less than 251")
}

#[test]
fn streams_arrive_byte_for_byte() {
    with_double("streams_arrive_byte_for_byte", |mode| {
        let pair = Pair::new(mode);
        let (client, server) = pair.connect(7);
        let (mut sent, mut received, mut buffer) = (0_usize, 0_usize, vec![0; 30_000]);
        // Of lengths that go every way: copied, gathered, of several buffers.
        let lengths = [1, 100, 130, 190, 1400, 5000, 30_000, 65_536];
        pair.until("all bytes", || {
            for length in lengths {
                let part: Vec<u8> = (sent..sent + length).map(byte_at).collect();
                match client.write(&part) {
                    Ok(written) => sent += written,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                pair.turn();
            }
            while let Ok(read @ 1..) = server.read(&mut buffer) {
                for (offset, byte) in buffer[..read].iter().enumerate() {
                    assert_eq!(*byte, byte_at(received + offset), "{received} + {offset}");
                }
                received += read;
            }
            (received >= 5_000_000).then_some(())
        });
    });
}
