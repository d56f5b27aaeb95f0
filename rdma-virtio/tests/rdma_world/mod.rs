//! NICs of the modes rc and ud over the test-only double of libibverbs, in one process: what the
//! tests of `rdma_*.rs` share.
//!
//! The double is a shared object that is loaded in the place of libibverbs; it is built by
//! `cargo build -p roceway-verbs-double`. Each test runs in a process of its own, since a process
//! loads the library once. A test that finds no double says so and is skipped.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use roceway_rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, RegionView, SendWr, Sge,
    WcChecksum, WcStatus, spec,
};

/// Bytes of a buffer, and buffers of an end.
pub(crate) const BUFFER_LEN: u32 = 4096;
pub(crate) const BUFFERS: u64 = 200;
pub(crate) const NET_HEADER_LEN: usize = 12;

pub(crate) const EMPTY: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// Devices whose addresses this host has.
pub(crate) const DEVICES: &str = "dev=double0,mac=02:00:00:00:00:0a,ip=127.0.0.1;\
                       dev=double1,mac=02:00:00:00:00:0b,ip=127.0.0.2;\
                       dev=double2,mac=02:00:00:00:00:0c,ip=127.0.0.3";

/// The double, beside the folder of the tests' programs.
pub(crate) fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` in a process that has the double for its libibverbs.
pub(crate) fn with_double(name: &str, test: fn()) {
    if std::env::var_os("ROCEWAY_DOUBLE").is_some() {
        test();
        return;
    }
    let Some(double) = double() else {
        eprintln!("SKIPPED {name}: no double of libibverbs; cargo build -p roceway-verbs-double");
        return;
    };
    let path = std::env::temp_dir().join(format!("roceway-{}-{name:.20}", std::process::id()));
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("ROCEWAY_LIBIBVERBS", double)
        .env("ROCEWAY_DOUBLE", format!("control={};{DEVICES}", path.display()))
        .status()
        .expect("a process of its own");
    let _none_was_made = std::fs::remove_file(&path);
    assert!(status.success(), "{name} failed in its own process");
}

/// A NIC with its memory.
pub(crate) struct End {
    pub(crate) nic: AnyNic,
    pub(crate) receive: Mapping,
    pub(crate) transmit: Mapping,
    pub(crate) lkeys: (Lkey, Lkey),
    pub(crate) now_ns: u64,
    pub(crate) events: Vec<NicEvent>,
    pub(crate) started: Instant,
}

pub(crate) fn region(name: &CStr, bytes: usize) -> Mapping {
    Mapping::create(name, bytes, PageWish::Ordinary).expect("memory")
}

pub(crate) fn register(nic: &mut AnyNic, mapping: &Mapping, writable: bool) -> Lkey {
    let length = u64::try_from(mapping.len()).unwrap();
    let view = RegionView { addr: mapping.addr(), length, memfd: None, writable };
    // SAFETY: a later field of `End` than the NIC, so it is unmapped after it is dropped; posted
    // buffers are read only after their completion.
    unsafe { nic.register(view) }.expect("a registered region")
}

impl End {
    pub(crate) fn open(device: &str) -> End {
        let mut nic = spec::open(device).unwrap_or_else(|error| panic!("{error}"));
        let bytes = usize::try_from(BUFFERS * u64::from(BUFFER_LEN)).unwrap();
        let (receive, transmit) = (region(c"receive", bytes), region(c"transmit", 1 << 18));
        let lkeys = (register(&mut nic, &receive, true), register(&mut nic, &transmit, false));
        let (started, events) = (Instant::now(), Vec::new());
        let mut end = End { nic, receive, transmit, lkeys, now_ns: 0, events, started };
        for id in 0..BUFFERS {
            end.post(id);
        }
        end
    }

    pub(crate) fn post(&mut self, id: u64) {
        let addr = self.receive.addr() + id * u64::from(BUFFER_LEN);
        let sge = Sge { addr, length: BUFFER_LEN, lkey: self.lkeys.0 };
        let posted = self.nic.post_recv(&[RecvWr { wr_id: id, sges: &[sge] }]);
        assert_eq!(posted, Ok(1));
    }

    pub(crate) fn maintain(&mut self) {
        self.now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap();
        let event = self.nic.maintain(self.now_ns).unwrap_or_else(|error| panic!("{error}"));
        self.events.extend(event);
    }

    /// Sends a frame of the source's address, of so many bytes with its virtio-net header.
    pub(crate) fn send(
        &mut self,
        to: [u8; 6],
        from: [u8; 6],
        length: usize,
    ) -> Result<(), PostError> {
        self.post_frame((to, from), length, true)?;
        self.nic.doorbell();
        Ok(())
    }

    /// The same without the doorbell.
    pub(crate) fn post_frame(
        &mut self,
        (to, from): ([u8; 6], [u8; 6]),
        length: usize,
        signalled: bool,
    ) -> Result<(), PostError> {
        let mut message = vec![0_u8; length];
        message[NET_HEADER_LEN..NET_HEADER_LEN + 6].copy_from_slice(&to);
        message[NET_HEADER_LEN + 6..NET_HEADER_LEN + 12].copy_from_slice(&from);
        for (number, byte) in message.iter_mut().enumerate().skip(NET_HEADER_LEN + 12) {
            *byte = u8::try_from(number % 251).unwrap();
        }
        let place = self.transmit.as_mut_ptr();
        // SAFETY: within the mapping; earlier sends from there were completed, or are inline, or
        // have the same bytes.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place, length) };
        let sge = Sge {
            addr: self.transmit.addr(),
            length: u32::try_from(length).unwrap(),
            lkey: self.lkeys.1,
        };
        let wr = SendWr {
            wr_id: 1,
            sges: &[sge],
            signalled,
            inline: false,
            offload: Offload::default(),
        };
        self.nic.post_send(&wr)
    }

    /// Lengths of the messages that came, each in one or more buffers, and checked.
    pub(crate) fn receive(&mut self) -> Vec<usize> {
        let (mut out, mut lengths, mut message) = ([EMPTY; 32], Vec::new(), Vec::new());
        while self.nic.recv_ready() {
            let found = self.nic.poll_recv(&mut out);
            for completion in &out[..found] {
                assert_eq!(completion.status, WcStatus::Success);
                let offset = usize::try_from(completion.wr_id).unwrap() * 4096;
                let bytes = usize::try_from(completion.byte_len).unwrap();
                let from = self.receive.as_ptr().wrapping_add(offset);
                // SAFETY: a completed buffer of the mapping, which is posted again only below.
                message.extend_from_slice(unsafe { std::slice::from_raw_parts(from, bytes) });
                self.post(completion.wr_id);
                if !completion.more {
                    let body = message.iter().enumerate().skip(NET_HEADER_LEN + 12);
                    for (number, byte) in body {
                        assert_eq!(usize::from(*byte), number % 251, "byte {number}");
                    }
                    lengths.push(message.len());
                    message.clear();
                }
            }
        }
        lengths
    }

    /// Takes the completions of sends.
    pub(crate) fn reap(&mut self) {
        while self.nic.poll_send(&mut [EMPTY; 16]) > 0 {}
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.nic.visit_counters(&mut |counter, value| {
            if counter == name {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Every message that was received is in one counter.
    pub(crate) fn check_conservation(&self) {
        let drops = ["short", "header", "sender", "violation", "duplicate", "mac"];
        let dropped: u64 =
            drops.iter().map(|drop| self.counter(&format!("wire_rx_drop_{drop}"))).sum();
        let rest = ["delivered", "control", "failed"];
        let rest: u64 = rest.iter().map(|kind| self.counter(&format!("wire_rx_{kind}"))).sum();
        assert_eq!(self.counter("wire_rx_messages"), rest + dropped);
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.nic.capabilities().mac.expect("an address")
    }
}

pub(crate) fn run(
    ends: &mut [&mut End],
    what: &str,
    mut done: impl FnMut(&mut [&mut End]) -> bool,
) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done(ends) {
        assert!(Instant::now() < limit, "never came: {what}");
        for end in ends.iter_mut() {
            end.maintain();
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

pub(crate) fn is_up(ends: &mut [&mut End]) -> bool {
    ends.iter().all(|end| end.counter("rdma_peers_up") == 1)
}

pub(crate) fn pair(mode: &str, ports: (u16, u16)) -> (End, End) {
    let (a, b) = ports;
    let device = |own: u8, port: u16, other: u8, to: u16| {
        format!("rdma:double{own},mode={mode},gid=3,port={port},peer=127.0.0.{other}:{to}")
    };
    let mut first = End::open(&device(0, a, 2, b));
    let mut second = End::open(&device(1, b, 1, a));
    run(&mut [&mut first, &mut second], "a session", is_up);
    (first, second)
}

/// Says a line to the double.
pub(crate) fn control(line: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(line.as_bytes(), control_path()).expect("the double listens");
}

/// Where the double of this process listens, as its parent named it.
pub(crate) fn control_path() -> PathBuf {
    let text = std::env::var("ROCEWAY_DOUBLE").expect("in the child");
    let path = text.split(';').next().and_then(|entry| entry.strip_prefix("control="));
    PathBuf::from(path.expect("a path"))
}
