//! The NIC mode raw under traffic, over the test-only double of libibverbs: perf's six tests, a
//! stream byte for byte, each error status, each asynchronous event, and devices that lie.
//!
//! Both ends are in one process, on two devices of the double that hear each other.

mod double;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use double::{Pair, control, counter_of};
use roceway_perf::catalogue::TESTS;
use roceway_perf::ends::{self, ADDRESSES, Opening};
use roceway_perf::kernel::SocketOptions;
use roceway_perf::recorder::{Until, Window};
use roceway_perf::workload::Workload;
use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::rdma_virtio::nic::rtnl::Interface;
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::{Gso, OffloadWish, Prefix, WorkerConfig};

/// Runs `test` in a process that has the double for its libibverbs, once for each row, the items of
/// both devices.
fn with_double(name: &str, rows: &[&str], test: fn(usize)) {
    let rows: Vec<_> = rows.iter().map(|items| format!("dev=a,{items};dev=b,{items}")).collect();
    double::with_double(name, &rows, test);
}

fn config(address: Ipv4Addr) -> WorkerConfig {
    let mut config = WorkerConfig::new(Prefix { address: address.into(), length: 24 });
    config.addresses.push("fd00:78::1/64".parse().expect("a prefix"));
    let [.., last] = address.octets();
    config.addresses[1].address = IpAddr::V6([0xfd00, 0x78, 0, 0, 0, 0, 0, last.into()].into());
    config
}

#[test]
fn every_test_of_perf_moves_something() {
    let rows = ["loopback=on", "loopback=off", "loopback=on,mtu=9000"];
    with_double("every_test_of_perf_moves_something", &rows, |_| {
        for test in &TESTS {
            let nic = |name: &str| {
                spec::open(&format!("rdma:{name}")).unwrap_or_else(|error| panic!("{error}"))
            };
            let opening = |address| {
                let opening = Opening::new(config(address), SocketOptions::default());
                Opening { keep_end: true, ..opening }
            };
            let work = Workload {
                test,
                request: 1,
                response: 1,
                message: 1400,
                receive: 131_072,
                connections: 1,
                depth: 1,
                rate: None,
                window: Window {
                    warmup: Duration::from_millis(5),
                    until: Until::Elapsed(Duration::from_millis(100)),
                    interval: None,
                },
                buffers: SocketOptions::default(),
            };
            let nics = (nic("a"), nic("b"));
            let (outcome, _) = ends::pair(nics, &ADDRESSES.map(opening), &work, &mut |_| ())
                .unwrap_or_else(|error| panic!("{}: {error}", test.name));
            let what = format!("{} {outcome:?}", test.name);
            assert!(outcome.counted.bytes > 0 && outcome.remote.bytes > 0, "{what}");
            assert_eq!(outcome.latency.is_some(), test.has_rtt(), "{what}");
        }
    });
}

fn pair(options: &str) -> Pair {
    pair_with(options, OffloadWish::default())
}

fn pair_with(options: &str, offloads: OffloadWish) -> Pair {
    let worker = |device: &str, address: Ipv4Addr| {
        let text = format!("rdma:{device}{options}");
        let config = WorkerConfig { offloads, ..config(address) };
        Worker::open(&text, &config).unwrap_or_else(|error| panic!("{error}"))
    };
    Pair { client: worker("a", ADDRESSES[0]), server: worker("b", ADDRESSES[1]) }
}

fn connect(pair: &Pair, v6: bool, port: u16) -> (TcpStream, TcpStream) {
    let address: IpAddr = match v6 {
        true => "fd00:78::2".parse().expect("an address"),
        false => ADDRESSES[1].into(),
    };
    pair.connect(SocketAddr::new(address, port))
}

/// What was received and what was sent is in one counter each.
fn check(pair: &Pair) {
    let sum = |names: &[&str]| names.iter().map(|name| pair.counter(name)).sum::<u64>();
    assert_eq!(
        pair.counter("raw_rx_frames"),
        sum(&["raw_rx_delivered", "raw_rx_drop_not_ours", "raw_rx_drop_vlan"])
    );
    assert_eq!(
        pair.counter("raw_tx_frames"),
        sum(&["raw_tx_completed", "raw_tx_flushed", "raw_tx_failed", "raw_tx_outstanding"])
    );
}

/// Bytes that depend on their place, so that none may be missing, twice or elsewhere.
fn byte_at(place: usize) -> u8 {
    // splitmix64 of the word's number.
    let mut word = (place as u64 / 8).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ word >> 31).to_le_bytes()[place % 8]
}

/// Moves bytes over a connection, and compares every one; `during` is called now and then.
fn stream(pair: &Pair, v6: bool, port: u16, bytes: usize, mut during: impl FnMut(usize)) {
    let (client, server) = connect(pair, v6, port);
    let (mut sent, mut received) = (0, 0);
    let mut buffer = vec![0; 65_536];
    pair.until("all bytes", || {
        while sent < bytes {
            let end = bytes.min(sent + 30_000);
            let part: Vec<u8> = (sent..end).map(byte_at).collect();
            match client.write(&part) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        loop {
            match server.read(&mut buffer) {
                Ok(0) => panic!("ended after {received} bytes"),
                Ok(read) => {
                    for (offset, byte) in buffer[..read].iter().enumerate() {
                        assert_eq!(*byte, byte_at(received + offset), "{}", received + offset);
                    }
                    received += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("read after {received} bytes: {error}"),
            }
        }
        during(received);
        (received == bytes).then_some(())
    });
}

#[test]
fn a_stream_arrives_byte_for_byte_whatever_the_device_does_or_only_says() {
    let rows = [
        "loopback=on",
        "loopback=off",
        "loopback=on,lie=tso",
        "loopback=on,lie=csum",
        "loopback=on,lie=flow",
        "loopback=on,csum=off",
        "loopback=on,max_tso=8192",
        "loopback=on,max_sge=4",
        "loopback=on,max_inline=0",
        "loopback=on,max_qp_wr=16,max_cqe=16",
    ];
    with_double(
        "a_stream_arrives_byte_for_byte_whatever_the_device_does_or_only_says",
        &rows,
        |row| {
            let by_name = OffloadWish::parse("all,-gro", OffloadWish::NONE).unwrap().wish;
            for offloads in [OffloadWish::default(), by_name] {
                let pair = pair_with("", offloads);
                for (port, v6) in [(7, false), (8, true)] {
                    stream(&pair, v6, port, 3_000_000, |_| ());
                }
                check(&pair);
                let software = pair.counter("tx_software_segmented");
                let native = pair.counter("raw_tx_segmented");
                let counts = format!("{row}, {offloads}: {native} {software}");
                // Where the device computes checksums and does not cut, who does is said by name.
                let by_software = offloads.gso() == Gso::All;
                match row {
                    0 | 4 => assert!(native > 0 && software == 0, "{counts}"),
                    6 => assert!(native > 0, "{counts}"),
                    8 => assert_eq!(pair.counter("raw_tx_inline"), 0),
                    // Without the device's checksums the stack cuts, and sums as it copies.
                    1 | 3 | 5 => assert!(native == 0 && software == 0, "{counts}"),
                    9 => {}
                    _ => assert!(native == 0 && (software > 0) == by_software, "{counts}"),
                }
            }
        },
    );
}

#[test]
fn a_vlan_has_its_tag_both_ways_and_nothing_else_enters_it() {
    with_double(
        "a_vlan_has_its_tag_both_ways_and_nothing_else_enters_it",
        &["loopback=on"],
        |_| {
            let pair = pair(",vlan=7");
            for (port, v6) in [(7, false), (8, true)] {
                stream(&pair, v6, port, 1_000_000, |_| ());
            }
            assert!(pair.counter("raw_tx_segmented") > 0 && pair.counter("raw_tx_inline") > 0);
            check(&pair);
            drop(pair);
            // An untagged host and one of another VLAN are not heard.
            for options in ["", ",vlan=8"] {
                let client =
                    Worker::open(&format!("rdma:a{options}"), &config(ADDRESSES[0])).unwrap();
                let server = Worker::open("rdma:b,vlan=7", &config(ADDRESSES[1])).unwrap();
                let pair = Pair { client, server };
                let at = SocketAddr::new(ADDRESSES[1].into(), 7);
                let _listener = TcpListener::bind(&pair.server, at).unwrap();
                let _stream = TcpStream::connect(&pair.client, at).unwrap();
                let limit = Instant::now() + Duration::from_millis(100);
                while Instant::now() < limit {
                    pair.turn();
                }
                assert_eq!(pair.counter("raw_rx_delivered"), 0, "{options}");
            }
        },
    );
}

#[test]
fn a_promiscuous_station_sees_what_is_not_for_it_and_its_connections_live() {
    with_double(
        "a_promiscuous_station_sees_what_is_not_for_it_and_its_connections_live",
        &["loopback=on"],
        |_| {
            let pair = pair(",promisc=on");
            stream(&pair, false, 7, 500_000, |_| ());
            check(&pair);
        },
    );
}

/// Faults after which the link is made anew and the stream goes on.
const FAULTS: &[&str] = &[
    "qp a all fatal",
    "qp b all fatal",
    "qp a all qp_req_err",
    "qp b all qp_access_err",
    "cq a err",
    "cq b err",
    "wc a all loc_len_err send",
    "wc a all loc_qp_op_err send",
    "wc a all loc_prot_err send",
    "wc a all wr_flush_err send",
    "wc a all bad_resp_err send",
    "wc a all rem_inv_req_err send",
    "wc a all retry_exc_err send",
    "wc a all rnr_retry_exc_err send",
    "wc a all fatal_err send",
    "wc a all general_err send",
    "wc b all loc_len_err recv",
    "wc b all loc_qp_op_err recv",
    "wc b all loc_prot_err recv",
    "wc b all wr_flush_err recv",
    "wc b all loc_access_err recv",
    "wc b all fatal_err recv",
    "wc b all general_err recv",
];

#[test]
fn a_link_that_failed_is_made_anew_and_tcp_goes_on() {
    with_double("a_link_that_failed_is_made_anew_and_tcp_goes_on", &["loopback=on"], |_| {
        let pair = pair("");
        for (number, fault) in FAULTS.iter().enumerate() {
            let before = pair.counter("raw_links_renewed");
            let port = 1000 * (1 + u16::try_from(number).unwrap());
            let mut told = false;
            stream(&pair, false, port, 1_000_000, |received| {
                if received > 200_000 && !std::mem::replace(&mut told, true) {
                    control(fault);
                }
            });
            // The double may hear of it when everything was sent.
            for more in 1..500 {
                if pair.counter("raw_links_renewed") > before {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
                stream(&pair, false, port + more, 20_000, |_| ());
            }
            assert!(pair.counter("raw_links_renewed") > before, "{fault}");
            check(&pair);
        }
        assert!(pair.counter("rdma_queue_pair_events") > 0);
        assert!(pair.counter("rdma_completion_queue_events") > 0);
    });
}

#[test]
fn a_link_that_cannot_be_made_at_once_is_tried_again() {
    with_double("a_link_that_cannot_be_made_at_once_is_tried_again", &["loopback=on"], |_| {
        let pair = pair("");
        // A link that cannot be made again at once is tried until it can.
        control("fail ibv_create_qp 12 3");
        control("qp a all fatal");
        pair.until("three failures", || (pair.counter("raw_renewals_failed") >= 3).then_some(()));
        stream(&pair, false, 300, 300_000, |_| ());
        assert!(pair.counter("link_down") > 0 && pair.counter("link_up") > 0);
        check(&pair);
    });
}

#[test]
fn events_that_change_nothing_are_counted_and_a_port_comes_back() {
    with_double(
        "events_that_change_nothing_are_counted_and_a_port_comes_back",
        &["loopback=on"],
        |_| {
            let pair = pair("");
            stream(&pair, false, 7, 100_000, |_| ());
            let rows = [
                ("gid a 0 fe80::9/v1", "rdma_gid_changes"),
                ("event a lid_change", "rdma_other_events"),
                ("event a pkey_change", "rdma_other_events"),
                ("event a sm_change", "rdma_other_events"),
                ("event a client_reregister", "rdma_other_events"),
                ("qp a all comm_est", "rdma_queue_pair_events"),
                ("qp a all sq_drained", "rdma_queue_pair_events"),
                ("qp a all path_mig", "rdma_queue_pair_events"),
                ("qp a all path_mig_err", "rdma_queue_pair_events"),
                ("qp a all qp_last_wqe_reached", "rdma_queue_pair_events"),
            ];
            for (line, counter) in rows {
                let before = pair.counter(counter);
                control(line);
                pair.until(line, || (pair.counter(counter) > before).then_some(()));
            }
            assert_eq!(pair.counter("raw_links_renewed"), 0);
            let mut step = 0;
            stream(&pair, false, 9, 1_000_000, |received| {
                if step == 0 && received > 100_000 {
                    control("port a down");
                    step = 1;
                } else if step == 1 && pair.counter("rdma_port_down") > 0 {
                    control("port a up");
                    step = 2;
                }
            });
            assert_eq!((pair.counter("rdma_port_down"), pair.counter("rdma_port_up")), (1, 1));
            assert!(pair.counter("link_down") > 0 && pair.counter("link_up") > 0);
            check(&pair);
        },
    );
}

#[test]
fn a_device_that_is_removed_under_load_ends_its_connections_and_nothing_else() {
    with_double(
        "a_device_that_is_removed_under_load_ends_its_connections_and_nothing_else",
        &["loopback=on"],
        |_| {
            let pair = pair("");
            let (client, server) = connect(&pair, false, 7);
            let mut buffer = [0; 4096];
            let mut received = 0;
            pair.until("some bytes", || {
                let _full = client.write(&[7; 4096]);
                received += server.read(&mut buffer).unwrap_or(0);
                (received > 100_000).then_some(())
            });
            control("fatal a");
            let error = pair.until("the end", || {
                let _reads_on = server.read(&mut buffer);
                client.write(&[7; 100]).err().filter(|e| e.kind() != ErrorKind::WouldBlock)
            });
            assert_ne!(error.kind(), ErrorKind::WouldBlock);
            assert_eq!(pair.counter("device_removed"), 1);
            check(&pair);
        },
    );
}

/// The kernel's end of a connection: writes every byte, reads every byte back, and compares.
fn kernel_echoes(mut stream: std::net::TcpStream, bytes: usize) {
    use std::io::{Read, Write};
    let mut writer = stream.try_clone().expect("a handle");
    let writing = std::thread::spawn(move || {
        let all: Vec<u8> = (0..bytes).map(byte_at).collect();
        writer.write_all(&all).expect("the peer reads");
    });
    let (mut buffer, mut received) = (vec![0; 65_536], 0);
    while received < bytes {
        let read = stream.read(&mut buffer).expect("the peer writes");
        assert!(read > 0, "ended after {received} bytes");
        let right = buffer[..read].iter().enumerate().all(|(i, b)| *b == byte_at(received + i));
        assert!(right, "behind {received}");
        received += read;
    }
    writing.join().expect("all was written");
}

/// Roceway's end: turns until `done`, and sends back whatever comes.
fn echo_until(worker: &Worker, stream: &TcpStream, done: impl Fn() -> bool) {
    let (mut buffer, mut held) = (vec![0; 16_384], Vec::new());
    let limit = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < limit, "the kernel's end never ended");
        let _ = worker.turn();
        if held.is_empty()
            && let Ok(read) = stream.read(&mut buffer)
        {
            held.extend_from_slice(&buffer[..read]);
        }
        if let Ok(written) = stream.write(&held) {
            held.drain(..written);
        }
    }
}

/// The kernel's TCP behind the TAP of device b, in a network namespace of the test's own.
#[test]
fn a_plain_kernel_host_is_reached_both_ways() {
    const NAME: &str = "a_plain_kernel_host_is_reached_both_ways";
    const BYTES: usize = 400_000;
    if std::env::var_os("ROCEWAY_TEST_ROW").is_none() {
        let Some(double) = double::double() else {
            eprintln!(
                "SKIPPED {NAME}: no double of libibverbs; cargo build -p roceway-verbs-double"
            );
            return;
        };
        let run = |program: &str, rest: &[&str]| {
            Command::new("unshare").arg("--net").arg(program).args(rest).status()
        };
        if !run("test", &["-w", "/dev/net/tun"]).is_ok_and(|status| status.success()) {
            eprintln!(
                "SKIPPED {NAME}: no right to a network namespace and a TAP (root), or no unshare"
            );
            return;
        }
        let status = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env("ROCEWAY_LIBIBVERBS", &double)
            .env("ROCEWAY_DOUBLE", "dev=a,loopback=on;dev=b,tap=rwraw0")
            .env("ROCEWAY_TEST_ROW", "0")
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{NAME} failed in its own process");
        return;
    }
    let worker = Worker::open("rdma:a", &config(ADDRESSES[0])).expect("a worker");
    let tap = Interface::new("rwraw0").expect("a name");
    tap.add_address(ADDRESSES[1].into(), 24).expect("an address");
    tap.set_up(true).expect("an interface that is up");
    let own = SocketAddr::new(ADDRESSES[0].into(), 7);
    let listener = TcpListener::bind(&worker, own).expect("a listener");
    let kernel = std::thread::spawn(move || {
        kernel_echoes(std::net::TcpStream::connect(own).expect("a connection"), BYTES);
    });
    let accepted = loop {
        let _ = worker.turn();
        if let Ok((stream, _)) = listener.accept() {
            break stream;
        }
        assert!(!kernel.is_finished(), "the kernel did not get through");
    };
    echo_until(&worker, &accepted, || kernel.is_finished());
    kernel.join().expect("the kernel's end");

    let theirs = std::net::TcpListener::bind((ADDRESSES[1], 8)).expect("a listener");
    let stream = TcpStream::connect(&worker, SocketAddr::new(ADDRESSES[1].into(), 8));
    let stream = stream.expect("a connection");
    let kernel = std::thread::spawn(move || {
        kernel_echoes(theirs.accept().expect("a connection").0, BYTES);
    });
    echo_until(&worker, &stream, || kernel.is_finished());
    kernel.join().expect("the kernel's end");
    assert!(counter_of(&worker, "raw_tx_segmented") > 0);
    assert!(counter_of(&worker, "raw_rx_checksums_verified") > 0);
}

#[test]
fn idle_ends_sleep_and_frames_wake_them() {
    with_double("idle_ends_sleep_and_frames_wake_them", &["loopback=on"], |_| {
        let at = SocketAddr::new(ADDRESSES[1].into(), 7);
        let rounds = 30_u8;
        let echo = std::thread::spawn(move || {
            let worker = Worker::open("rdma:b", &config(ADDRESSES[1])).expect("a worker");
            let listener = TcpListener::bind(&worker, at).expect("a listener");
            let mut stream = None;
            let mut byte = [0];
            loop {
                worker.turn_or_sleep().expect("a turn");
                stream = stream.or_else(|| listener.accept().ok());
                let Some((stream, _)) = &stream else { continue };
                stream.set_nodelay(true).expect("no delay");
                match stream.read(&mut byte) {
                    Ok(0) => return counter_of(&worker, "rdma_events"),
                    Ok(_) => assert_eq!(stream.write(&byte).ok(), Some(1)),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        });
        let worker = Worker::open("rdma:a", &config(ADDRESSES[0])).expect("a worker");
        let stream = TcpStream::connect(&worker, at).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut byte = [0];
        let turned_until = |mut done: Box<dyn FnMut() -> bool + '_>| {
            let start = Instant::now();
            while !done() {
                worker.turn_or_sleep().expect("a turn");
                assert!(start.elapsed() < Duration::from_secs(20));
            }
            start.elapsed()
        };
        turned_until(Box::new(|| stream.is_connected().expect("a connection")));
        let mut waits = Vec::new();
        for round in 0..rounds {
            // Long enough for the other end to fall asleep.
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(stream.write(&[round]).ok(), Some(1));
            waits.push(turned_until(Box::new(|| stream.read(&mut byte).is_ok())));
            assert_eq!(byte[0], round);
        }
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        let mut ended = false;
        turned_until(Box::new(|| {
            ended |= echo.is_finished();
            ended
        }));
        // A sleeper that no frame wakes sleeps for 50 ms.
        waits.sort();
        assert!(waits[waits.len() / 2] < Duration::from_millis(25), "{waits:?}");
        let events = echo.join().expect("the other end") + counter_of(&worker, "rdma_events");
        assert!(events >= u64::from(rounds), "{events}");
    });
}
