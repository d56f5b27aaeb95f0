//! Workers over the test-only double of libibverbs, both ends in one process: what the tests over
//! it share.
//!
//! Each test runs in a process of its own, since a process loads the library once. A test that
//! finds no double says so and is skipped.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use roceway_runtime::local::{TcpListener, TcpStream, Worker};

/// Time within which anything that will happen has.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The modes of an RDMA NIC.
pub(crate) const MODES: [&str; 3] = ["raw", "rc", "ud"];

/// The double, beside the folder of the tests' programs.
pub(crate) fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` in a process that has the double for its libibverbs, once for each row of devices;
/// the row's number is the argument.
pub(crate) fn with_double(name: &str, rows: &[String], test: fn(usize)) {
    if let Ok(row) = std::env::var("ROCEWAY_TEST_ROW") {
        test(row.parse().expect("a number"));
        return;
    }
    let Some(double) = double() else {
        eprintln!("SKIPPED {name}: no double of libibverbs; cargo build -p roceway-verbs-double");
        return;
    };
    let path = std::env::temp_dir().join(format!("roceway-{}-{name:.20}", std::process::id()));
    for (row, devices) in rows.iter().enumerate() {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env("ROCEWAY_LIBIBVERBS", &double)
            .env("ROCEWAY_DOUBLE", format!("control={};{devices}", path.display()))
            .env("ROCEWAY_TEST_ROW", row.to_string())
            .status()
            .expect("a process of its own");
        let _none_was_made = std::fs::remove_file(&path);
        assert!(status.success(), "{name} failed in row {row}: {devices}");
    }
}

/// Runs `test` for each mode, with devices that hear themselves.
pub(crate) fn with_each_mode(name: &str, test: fn(usize)) {
    let devices = "dev=a,mac=02:00:00:00:00:0a,ip=127.0.0.1,loopback=on;\
                   dev=b,mac=02:00:00:00:00:0b,ip=127.0.0.2,loopback=on";
    with_double(name, &MODES.map(|_| devices.to_owned()), test);
}

/// How the devices of [`with_each_mode`] are opened in a mode: who asks, who is asked.
pub(crate) fn specs(mode: &str) -> [String; 2] {
    let port = 20_000 + std::process::id() % 20_000;
    let way = format!("mode={mode},gid=3,exchange=tcp");
    // A datagram wire that four may share has fewer credits a peer than 64 KB are datagrams.
    let room = if mode == "ud" { ",peers=1" } else { "" };
    match mode {
        "raw" => ["rdma:a".to_owned(), "rdma:b".to_owned()],
        _ => [
            format!("rdma:a,{way},port=0,peer=127.0.0.2:{port}"),
            format!("rdma:b,{way},port={port},accept=127.0.0.0/8{room}"),
        ],
    }
}

/// Where the double of this process listens.
pub(crate) fn control_path() -> String {
    let text = std::env::var("ROCEWAY_DOUBLE").expect("in the child");
    let path = text.split(';').next().and_then(|entry| entry.strip_prefix("control="));
    path.expect("a path").to_owned()
}

/// Says a line to the double.
pub(crate) fn control(line: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(line.as_bytes(), control_path()).expect("the double listens");
}

/// A counter, of all layers that have one of this name.
pub(crate) fn counter_of(worker: &Worker, name: &str) -> u64 {
    let mut sum = 0;
    worker.visit_counters(&mut |_, counter, value| {
        if counter == name {
            sum += value;
        }
    });
    sum
}

/// Two workers, turned one after the other.
pub(crate) struct Pair {
    pub(crate) client: Worker,
    pub(crate) server: Worker,
}

impl Pair {
    pub(crate) fn turn(&self) {
        let _ = self.client.turn();
        let _ = self.server.turn();
    }

    pub(crate) fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if let Some(value) = attempt() {
                return value;
            }
            if Instant::now() > limit {
                self.tell();
                panic!("never came: {what}");
            }
        }
    }

    /// Shows what both NICs and TCP counted.
    fn tell(&self) {
        for worker in [&self.client, &self.server] {
            worker.visit_counters(&mut |layer, name, value| {
                if value > 0 && ["nic", "tcp", "link"].contains(&layer) {
                    eprintln!("{layer} {name} {value}");
                }
            });
        }
    }

    /// A connection from the client to an address of the server.
    pub(crate) fn connect(&self, at: SocketAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(&self.server, at).expect("a listener");
        let client = TcpStream::connect(&self.client, at).expect("a connection");
        let server = self.until("a connection", || listener.accept().ok()).0;
        (client, server)
    }

    /// Counters of both workers together.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        counter_of(&self.client, name) + counter_of(&self.server, name)
    }
}
