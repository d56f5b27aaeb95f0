//! The NIC modes rc and ud over the test-only double of libibverbs: two NICs in one process.
//!
//! The double is a shared object that is loaded in the place of libibverbs; it is built by
//! `cargo build -p roceway-verbs-double`. Each test runs in a process of its own, since a process
//! loads the library once. A test that finds no double says so and is skipped.

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
const BUFFER_LEN: u32 = 4096;
const BUFFERS: u64 = 200;
const NET_HEADER_LEN: usize = 12;

const EMPTY: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// Devices whose addresses this host has.
const DEVICES: &str = "dev=double0,mac=02:00:00:00:00:0a,ip=127.0.0.1;\
                       dev=double1,mac=02:00:00:00:00:0b,ip=127.0.0.2;\
                       dev=double2,mac=02:00:00:00:00:0c,ip=127.0.0.3";

/// The double, beside the folder of the tests' programs.
fn double() -> Option<PathBuf> {
    let named = std::env::var_os("ROCEWAY_TEST_DOUBLE").map(PathBuf::from);
    let beside = std::env::current_exe().ok()?.parent()?.parent()?.join("libverbs_double.so");
    named.into_iter().chain([beside]).find(|path| path.exists())
}

/// Runs `test` in a process that has the double for its libibverbs.
fn with_double(name: &str, test: fn()) {
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
struct End {
    nic: AnyNic,
    receive: Mapping,
    transmit: Mapping,
    lkeys: (Lkey, Lkey),
    now_ns: u64,
    events: Vec<NicEvent>,
    started: Instant,
}

fn region(name: &CStr, bytes: usize) -> Mapping {
    Mapping::create(name, bytes, PageWish::Ordinary).expect("memory")
}

fn register(nic: &mut AnyNic, mapping: &Mapping, writable: bool) -> Lkey {
    let length = u64::try_from(mapping.len()).unwrap();
    let view = RegionView { addr: mapping.addr(), length, memfd: None, writable };
    // SAFETY: a later field of `End` than the NIC, so it is unmapped after it is dropped; posted
    // buffers are read only after their completion.
    unsafe { nic.register(view) }.expect("a registered region")
}

impl End {
    fn open(device: &str) -> End {
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

    fn post(&mut self, id: u64) {
        let addr = self.receive.addr() + id * u64::from(BUFFER_LEN);
        let sge = Sge { addr, length: BUFFER_LEN, lkey: self.lkeys.0 };
        let posted = self.nic.post_recv(&[RecvWr { wr_id: id, sges: &[sge] }]);
        assert_eq!(posted, Ok(1));
    }

    fn maintain(&mut self) {
        self.now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap();
        let event = self.nic.maintain(self.now_ns).unwrap_or_else(|error| panic!("{error}"));
        self.events.extend(event);
    }

    /// Sends a frame of the source's address, of so many bytes with its virtio-net header.
    fn send(&mut self, to: [u8; 6], from: [u8; 6], length: usize) -> Result<(), PostError> {
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
            signalled: true,
            inline: false,
            offload: Offload::default(),
        };
        self.nic.post_send(&wr)?;
        self.nic.doorbell();
        Ok(())
    }

    /// Lengths of the messages that came, each in one or more buffers, and checked.
    fn receive(&mut self) -> Vec<usize> {
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
    fn reap(&mut self) {
        while self.nic.poll_send(&mut [EMPTY; 16]) > 0 {}
    }

    fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.nic.visit_counters(&mut |counter, value| {
            if counter == name {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Every message that was received is in one counter.
    fn check_conservation(&self) {
        let drops = ["short", "header", "sender", "violation", "duplicate", "mac"];
        let dropped: u64 =
            drops.iter().map(|drop| self.counter(&format!("wire_rx_drop_{drop}"))).sum();
        let rest = ["delivered", "control", "failed"];
        let rest: u64 = rest.iter().map(|kind| self.counter(&format!("wire_rx_{kind}"))).sum();
        assert_eq!(self.counter("wire_rx_messages"), rest + dropped);
    }

    fn mac(&self) -> [u8; 6] {
        self.nic.capabilities().mac.expect("an address")
    }
}

fn run(ends: &mut [&mut End], what: &str, mut done: impl FnMut(&mut [&mut End]) -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done(ends) {
        assert!(Instant::now() < limit, "never came: {what}");
        for end in ends.iter_mut() {
            end.maintain();
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn is_up(ends: &mut [&mut End]) -> bool {
    ends.iter().all(|end| end.counter("rdma_peers_up") == 1)
}

fn pair(mode: &str, ports: (u16, u16)) -> (End, End) {
    let (a, b) = ports;
    let device = |own: u8, port: u16, other: u8, to: u16| {
        format!("rdma:double{own},mode={mode},gid=3,port={port},peer=127.0.0.{other}:{to}")
    };
    let mut first = End::open(&device(0, a, 2, b));
    let mut second = End::open(&device(1, b, 1, a));
    run(&mut [&mut first, &mut second], "a session", is_up);
    (first, second)
}

fn messages(mode: &str, ports: (u16, u16), lengths: &[usize]) {
    let (mut first, mut second) = pair(mode, ports);
    assert!(first.events.contains(&NicEvent::LinkUp) && second.events.contains(&NicEvent::LinkUp));
    let (a, b) = (first.mac(), second.mac());
    let mut sends = 0;
    for &length in lengths {
        first.send(b, a, length).unwrap();
        let mut came = Vec::new();
        run(&mut [&mut first, &mut second], "a message", |ends| {
            came.extend(ends[1].receive());
            !came.is_empty()
        });
        assert_eq!(came, [length]);
        sends += 1;
    }
    assert_eq!(second.counter("wire_rx_delivered"), sends);
    // Far more than there are credits, one way only: updates keep it going.
    let (mut came, mut sent) = (0, 0);
    run(&mut [&mut first, &mut second], "600 messages", |ends| {
        ends[0].reap();
        ends[0].receive();
        while sent < 600 && ends[0].send(b, a, 80).is_ok() {
            sent += 1;
        }
        came += ends[1].receive().len();
        came >= 600
    });
    assert!(second.counter("wire_tx_updates") > 0);
    assert_eq!((second.counter("wire_violations"), first.counter("wire_violations")), (0, 0));
    // Somebody else's address, and this host's own.
    let before = second.counter("wire_rx_drop_mac");
    first.send(b, b, 80).unwrap();
    run(&mut [&mut first, &mut second], "a drop", |ends| {
        assert!(ends[1].receive().is_empty());
        ends[1].counter("wire_rx_drop_mac") == before + 1
    });
    first.check_conservation();
    second.check_conservation();
}

#[test]
fn frames_of_every_length_cross_rc() {
    with_double("frames_of_every_length_cross_rc", || {
        messages("rc", (21_796, 21_797), &[26, 80, 1514, 4096, 4097, 20_000, 65_562]);
    });
}

#[test]
fn frames_of_every_length_cross_ud() {
    with_double("frames_of_every_length_cross_ud", || {
        messages("ud", (21_798, 21_799), &[26, 80, 512, 970]);
    });
}

#[test]
fn a_peer_that_closes_is_gone_and_its_successor_is_found() {
    with_double("a_peer_that_closes_is_gone_and_its_successor_is_found", || {
        for (mode, port) in [("rc", 21_800), ("ud", 21_810)] {
            let (mut first, second) = pair(mode, (port, port + 1));
            drop(second);
            run(&mut [&mut first], "the end", |ends| ends[0].events.contains(&NicEvent::PeerGone));
            assert_eq!(first.counter("rdma_peers_up"), 0);
            let mac = first.mac();
            assert_eq!(first.send([0xff; 6], mac, 80), Err(PostError::LinkDown));
            let own = port + 1;
            let spec = format!("rdma:double1,mode={mode},gid=3,port={own},peer=127.0.0.1:{port}");
            let mut second = End::open(&spec);
            run(&mut [&mut first, &mut second], "a new session", is_up);
            first.send([0xff; 6], mac, 80).unwrap();
            run(&mut [&mut first, &mut second], "a broadcast", |ends| {
                !ends[1].receive().is_empty()
            });
        }
    });
}

/// Says a line to the double.
fn control(line: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(line.as_bytes(), control_path()).expect("the double listens");
}

/// Where the double of this process listens, as its parent named it.
fn control_path() -> PathBuf {
    let text = std::env::var("ROCEWAY_DOUBLE").expect("in the child");
    let path = text.split(';').next().and_then(|entry| entry.strip_prefix("control="));
    PathBuf::from(path.expect("a path"))
}

/// A session ends by `fault` and is replaced; frames cross again, and nothing is lost of the count.
fn recovers(mode: &str, port: u16, fault: &str) {
    let (mut first, mut second) = pair(mode, (port, port + 1));
    let (a, b) = (first.mac(), second.mac());
    first.send(b, a, 200).unwrap();
    run(&mut [&mut first, &mut second], "a message", |ends| !ends[1].receive().is_empty());
    let before = first.counter("wire_sessions_up");
    control(fault);
    run(&mut [&mut first, &mut second], fault, |ends| {
        // A fault may need traffic to show; while there is no session it is refused.
        let _no_matter = ends[0].send(b, a, 200);
        ends[0].reap();
        ends[0].receive();
        ends[1].receive();
        ends[0].counter("wire_sessions_up") > before && is_up(ends)
    });
    run(&mut [&mut first, &mut second], "messages again", |ends| {
        let _no_matter = ends[0].send(b, a, 200);
        ends[0].reap();
        ends[0].receive();
        !ends[1].receive().is_empty()
    });
    first.check_conservation();
    second.check_conservation();
    let posted = first.counter("rdma_receives_posted");
    assert!(posted >= 11, "receives were lost: {posted} of 12 are left");
}

#[test]
fn a_session_whose_queue_pair_failed_is_replaced() {
    with_double("a_session_whose_queue_pair_failed_is_replaced", || {
        let rows = [
            ("rc", "qp double0 all fatal"),
            ("rc", "wc double0 all retry_exc_err send"),
            ("rc", "wc double1 all loc_len_err recv"),
            ("ud", "qp double0 all fatal"),
            ("ud", "wc double0 all general_err send"),
        ];
        let mut port = 21_840;
        for (mode, fault) in rows {
            recovers(mode, port, fault);
            port += 2;
        }
    });
}

#[test]
fn a_device_that_failed_is_told_once_and_everything_comes_back() {
    with_double("a_device_that_failed_is_told_once_and_everything_comes_back", || {
        // The device that is gone for good comes last.
        let rows = [("ud", 21_862, "cq double1 err"), ("rc", 21_860, "fatal double0")];
        for (mode, port, fault) in rows {
            let (first, second) = pair(mode, (port, port + 1));
            let (mut hit, mut other) =
                if fault.contains("double0") { (first, second) } else { (second, first) };
            control(fault);
            let limit = Instant::now() + Duration::from_secs(10);
            let error = loop {
                assert!(Instant::now() < limit, "the failure was never told");
                other.maintain();
                hit.now_ns += 1_000_000;
                if let Err(error) = hit.nic.maintain(hit.now_ns) {
                    break error.to_string();
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            assert!(error.contains("fail"), "{error}");
            assert!(hit.nic.maintain(hit.now_ns + 1).is_ok());
            let mac = hit.mac();
            assert_eq!(hit.send([0xff; 6], mac, 80), Err(PostError::LinkDown));
            run(&mut [&mut other], "the end at the other side", |ends| {
                ends[0].counter("rdma_peers_up") == 0
            });
            drop(hit);
        }
    });
}

#[test]
fn hosts_that_do_not_fit_never_come_together() {
    with_double("hosts_that_do_not_fit_never_come_together", || {
        let spec = |own: u8, other: u8, more: &str| {
            let (port, to) = (21_820 + u16::from(own), 21_820 + u16::from(other) - 1);
            format!("rdma:double{own},gid=3,port={port},peer=127.0.0.{other}:{to},{more}")
        };
        let mut first = End::open(&spec(0, 2, "mode=rc,mtu=1500"));
        let mut second = End::open(&spec(1, 1, "mode=rc,mtu=1400"));
        run(&mut [&mut first, &mut second], "a refusal", |ends| {
            ends[0].counter("wire_refused") + ends[1].counter("wire_refused") > 0
        });
        assert_eq!(first.counter("rdma_peers_up") + second.counter("rdma_peers_up"), 0);
    });
}

#[test]
fn a_device_that_is_not_there_is_answered_with_those_that_are() {
    with_double("a_device_that_is_not_there_is_answered_with_those_that_are", || {
        let rows = [
            ("rdma:mlx5_9,mode=rc,peer=127.0.0.2", "double0"),
            ("rdma:double0,mode=rc,peer=127.0.0.2", "no usable GID"),
            ("rdma:double0,mode=ud,gid=3,peer=127.0.0.2,mtu=9000", "at most"),
        ];
        for (spec, wanted) in rows {
            let error = spec::open(spec).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{spec}: {error}");
        }
    });
}
