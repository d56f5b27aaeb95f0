//! What the modes of an RDMA NIC ask of the library, counted by the test-only double of libibverbs:
//! the table of docs/verbs-calls.md, and that streams over rc and ud arrive byte for byte.
//!
//! Both ends are in one process, on two devices of the double that hear each other.

mod double;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use double::{MODES, Pair, control, control_path, specs, with_each_mode};
use roceway_perf::ends::ADDRESSES;
use roceway_runtime::local::{TcpStream, Worker};
use roceway_runtime::{Prefix, WorkerConfig};

/// The double's counters now.
struct Counted(String);

impl Counted {
    fn now() -> Counted {
        let file = format!("{}.counters", control_path());
        control(&format!("counters {file}"));
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

fn pair(mode: &str) -> Pair {
    let worker = |text: &str, address: std::net::Ipv4Addr| {
        let prefix = Prefix { address: address.into(), length: 24 };
        let mut config = WorkerConfig::new(prefix).spinning();
        // What is counted is the way of frames, without what is done once in a while.
        config.turn.cold_period_ns = 20_000_000;
        Worker::open(text, &config).unwrap_or_else(|error| panic!("{error}"))
    };
    let [a, b] = specs(mode);
    let server = worker(&b, ADDRESSES[1]);
    Pair { client: worker(&a, ADDRESSES[0]), server }
}

fn connect(pair: &Pair) -> (TcpStream, TcpStream) {
    let (client, server) = pair.connect(SocketAddr::new(ADDRESSES[1].into(), 7));
    client.set_nodelay(true).expect("no delay");
    server.set_nodelay(true).expect("no delay");
    (client, server)
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
    ("rc", [200, 200, 200, 0, 6, 63, 200, 3600], [200, 300, 100, 2100, 203, 125, 300, 5400]),
    ("ud", [200, 200, 200, 0, 6, 7, 200, 400], [400, 7400, 200, 14_400, 406, 210, 7400, 14_800]),
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

/// Of both ends: turns of the workers, turns in which an NIC had something to send, and how often
/// it rang its doorbell.
fn doorbells(pair: &Pair) -> [u64; 3] {
    let mut found = [0; 3];
    for worker in [&pair.client, &pair.server] {
        worker.visit_counters(&mut |_, name, value| match name {
            "turns" => found[0] += value,
            "rdma_turns_that_sent" => found[1] += value,
            "rdma_doorbells" | "raw_tx_doorbells" => found[2] += value,
            _ => {}
        });
    }
    found
}

#[test]
fn the_table_of_calls_is_what_the_double_counts() {
    with_each_mode("the_table_of_calls_is_what_the_double_counts", |row| {
        let mode = MODES[row];
        let pair = pair(mode);
        let both = connect(&pair);
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
        let [turns, sent, rung] = std::array::from_fn(|at| now[at] - rang[at]);
        assert!(sent > 0 && sent == rung, "one doorbell a turn that sends: {sent}, {rung}");
        assert!(sent <= turns, "and no other: {sent} of {turns}");
    });
}

fn byte_at(place: usize) -> u8 {
    u8::try_from(place % 251).expect("less than 251")
}

#[test]
fn streams_arrive_byte_for_byte() {
    with_each_mode("streams_arrive_byte_for_byte", |row| {
        let mode = MODES[row];
        let pair = pair(mode);
        let (client, server) = connect(&pair);
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
