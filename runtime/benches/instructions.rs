//! Runs N transactions of a named test between two worlds turned alternately by one thread, for
//! an instruction counter outside to count what happens in `counted`: `instructions NAME N`.
//! Prints nothing.
//!
//! The path is the product's own from end to end: socket call, stack, driver, virtqueue, device,
//! soft NIC, the turn and its counters; one turn a side per frame, the application inside the turn.
//! `tcp_rr_raw`, `tcp_rr_rc` and `tcp_rr_ud` have an RDMA NIC over the double of libibverbs.

#[path = "instructions/link.rs"]
mod link;
#[path = "instructions/many.rs"]
mod many;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roceway_runtime::local::{TcpListener, TcpStream, UdpSocket, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::stack::tcp::timers::TimerWheel;
use roceway_runtime::stack::time::{Duration, Instant};
use roceway_runtime::{OffloadWish, Prefix, WorkerConfig};

use link::Link;

const PORT: u16 = 7;
/// The set of offloads that a worker has unless told otherwise.
const DEFAULT: &str = "all,-gro,+gso_uso";

/// Two workers on one link.
struct Worlds {
    client: Worker,
    server: Worker,
    server_addr: SocketAddr,
}

fn worker(nic: AnyNic, host: u8, offload: &str) -> Worker {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
    let mut config = WorkerConfig::new(Prefix { address, length: 24 }).spinning();
    // Under an instruction counter time runs some fifty times faster than the program: cold work
    // once a millisecond would then weigh fifty times its share.
    config.turn.cold_period_ns = 50_000_000;
    let understood = OffloadWish::parse(offload, config.offloads).expect("a legal set");
    config.offloads = understood.wish;
    Worker::with_nic(nic, &config).expect("a worker on the link")
}

impl Worlds {
    fn new() -> Worlds {
        Worlds::over(Link::Soft, "all")
    }

    /// Both ends with this set of offloads.
    fn over(link: Link, offload: &str) -> Worlds {
        let (a, b) = link.ends();
        let worlds = Worlds {
            client: worker(a, 1, offload),
            server: worker(b, 2, offload),
            server_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), PORT),
        };
        // Cold work joins the link.
        let start = worlds.client.now_ns();
        while worlds.client.now_ns() - start < 300_000_000 {
            worlds.turn();
        }
        worlds
    }

    fn turn(&self) {
        let _ = self.client.turn();
        let _ = self.server.turn();
    }

    fn until<T>(&self, mut what: impl FnMut() -> std::io::Result<T>) -> T {
        loop {
            self.turn();
            if let Ok(value) = what() {
                return value;
            }
        }
    }

    fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(&self.client, self.server_addr).expect("a connection");
        let server = self.until(|| listener.accept()).0;
        client.set_nodelay(true).expect("no delay");
        server.set_nodelay(true).expect("no delay");
        (client, server)
    }
}

/// What is counted: the transactions, not their setting up.
#[inline(never)]
fn counted(count: u64, mut transaction: impl FnMut()) {
    for _ in 0..count {
        transaction();
    }
}

/// One step among others that are not counted.
#[inline(never)]
fn counted_step<T>(step: impl FnOnce() -> T) -> T {
    step()
}

/// A counter of TCP.
fn tcp_counter(worker: &Worker, wanted: &str) -> u64 {
    let mut found = None;
    worker.visit_counters(&mut |layer, name, value| {
        if (layer, name) == ("tcp", wanted) {
            found = Some(value);
        }
    });
    found.expect("a counter of this name")
}

fn tcp_rr(count: u64, link: Link) {
    let worlds = Worlds::over(link, "all");
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let mut byte = [0];
    client.write(&[1]).expect("room for a byte");
    let _ = worlds.client.turn();
    counted(count, || {
        let _ = worlds.server.turn_with(|| answer(&server, &mut byte));
        let _ = worlds.client.turn_with(|| answer(&client, &mut byte));
    });
}

/// Reads a byte and writes it back; the other end has sent it.
#[inline(always)]
fn answer(stream: &TcpStream, byte: &mut [u8; 1]) -> u32 {
    stream.read(byte).expect("a byte");
    stream.write(byte).expect("room for a byte");
    1
}

fn udp_rr(count: u64) {
    let worlds = Worlds::new();
    let server = UdpSocket::bind(&worlds.server, worlds.server_addr).expect("a socket");
    let client = UdpSocket::bind(&worlds.client, "0.0.0.0:0".parse().expect("an address"))
        .expect("a socket");
    client.connect(worlds.server_addr).expect("a peer");
    let mut byte = [0];
    client.send(&[1]).expect("room for a datagram");
    let (_, peer) = worlds.until(|| server.recv_from(&mut byte));
    server.connect(peer).expect("a peer");
    client.send(&[1]).expect("room for a datagram");
    let _ = worlds.client.turn();
    let mut answer = |socket: &UdpSocket| {
        socket.recv(&mut byte).expect("a datagram");
        socket.send(&byte).expect("room for a datagram");
        1
    };
    counted(count, || {
        let _ = worlds.server.turn_with(|| answer(&server));
        let _ = worlds.client.turn_with(|| answer(&client));
    });
}

/// Connection set up and torn down, the client closing first.
fn tcp_crr(count: u64) {
    let worlds = Worlds::new();
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let mut byte = [0];
    counted(count, || {
        let (client, server) = worlds.connect(&listener);
        client.write(&[1]).expect("room for a byte");
        let _ = worlds.until(|| server.read(&mut byte));
        server.write(&byte).expect("room for a byte");
        let _ = worlds.until(|| client.read(&mut byte));
        drop(client);
        while server.read(&mut byte).ok() != Some(0) {
            worlds.turn();
        }
        drop(server);
        worlds.turn();
        worlds.turn();
    });
}

/// 64 KiB written, sent, received and read, `count` times.
fn tcp_stream_64k(count: u64, link: Link, offload: &str) {
    let worlds = Worlds::over(link, offload);
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let data = vec![7; 65_536];
    let mut out = vec![0; 65_536];
    counted(count, || {
        let (mut written, mut read) = (0, 0);
        while read < data.len() {
            written += client.write(&data[written..]).unwrap_or(0);
            worlds.turn();
            read += server.read(&mut out).unwrap_or(0);
        }
    });
}

/// 64 KiB given at once as datagrams of full size, sent, received and read one by one.
fn datagrams_64k(count: u64, link: Link, offload: &str) {
    let worlds = Worlds::over(link, offload);
    let server = UdpSocket::bind(&worlds.server, worlds.server_addr).expect("a socket");
    let client = UdpSocket::bind(&worlds.client, "0.0.0.0:0".parse().expect("an address"))
        .expect("a socket");
    client.connect(worlds.server_addr).expect("a peer");
    let (data, mut out) = (vec![7; 65_536], [0; 1472]);
    client.send(&[1]).expect("room for a datagram");
    let _ = worlds.until(|| server.recv_from(&mut out));
    counted(count, || {
        let (mut sent, mut came) = (0, 0);
        while came < data.len() {
            sent += client.send_segments(&data[sent..], 1472).unwrap_or(0);
            worlds.turn();
            while let Ok(length) = server.recv(&mut out) {
                came += length;
            }
        }
    });
}

/// The payload of a segment of full size: 1500 bytes without IP's and TCP's headers.
const SEGMENT_LEN: usize = 1448;

/// The receiving end's turn that takes a segment of full size in order and reads it, with its half
/// of an acknowledgement.
fn segment_received(count: u64, link: Link) {
    let worlds = Worlds::over(link, "all");
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let (data, mut out) = ([7; SEGMENT_LEN], [0; SEGMENT_LEN]);
    for _ in 0..count {
        assert_eq!(client.write(&data).expect("room for a segment"), SEGMENT_LEN);
        let _ = worlds.client.turn();
        counted_step(|| {
            let _ = worlds.server.turn_with(|| {
                assert_eq!(server.read(&mut out).expect("a segment"), SEGMENT_LEN);
                1
            });
        });
        let _ = worlds.client.turn();
    }
}

/// The sending end's turn that takes an acknowledgement of two segments.
fn ack_received(count: u64) {
    let worlds = Worlds::new();
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let (data, mut out) = ([7; SEGMENT_LEN], [0; 2 * SEGMENT_LEN]);
    let before = tcp_counter(&worlds.client, "segments_received");
    for _ in 0..count {
        for _ in 0..2 {
            assert_eq!(client.write(&data).expect("room for a segment"), SEGMENT_LEN);
            let _ = worlds.client.turn();
        }
        let mut read = 0;
        while read < out.len() {
            let _ = worlds.server.turn();
            read += server.read(&mut out).unwrap_or(0);
        }
        let _ = worlds.server.turn();
        counted_step(|| {
            let _ = worlds.client.turn();
        });
    }
    let taken = tcp_counter(&worlds.client, "segments_received") - before;
    assert!((count..=count + count / 8).contains(&taken), "{taken} segments in {count} turns");
}

/// 64 KiB written and sent by one end; what the other does is not counted, nor is what the
/// acknowledgements cost.
fn sent_64k(count: u64, link: Link) {
    let worlds = Worlds::over(link, "all");
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let data = vec![7; 65_536];
    let mut out = vec![0; 65_536];
    for _ in 0..count {
        let mut written = 0;
        let mut read = 0;
        while read < data.len() {
            if written < data.len() {
                written += counted_step(|| {
                    let more = client.write(&data[written..]).unwrap_or(0);
                    let _ = worlds.client.turn();
                    more
                });
            }
            let _ = worlds.server.turn_with(|| {
                read += server.read(&mut out).unwrap_or(0);
                1
            });
            let _ = worlds.client.turn();
        }
    }
}

/// Among the deadlines of 10,000 connections one is moved away, as an acknowledgement does, and one
/// comes due and is armed again.
fn timer(count: u64) {
    const HALF: u64 = 5_000;
    const STEP_US: u64 = 20;
    let at = |us: u64| Instant::ZERO + Duration::from_micros(us);
    let index = |n: u64| u32::try_from(n).expect("small");
    let mut wheel = TimerWheel::new(1 << 16, Instant::ZERO);
    for n in 0..HALF {
        wheel.arm(index(n), at(STEP_US * (n + 1)));
        wheel.arm(index(HALF + n), at(2 * STEP_US * HALF));
    }
    let (mut now, mut turn, mut fired) = (0, 0, 0);
    counted(count, || {
        now += STEP_US;
        turn = (turn + 1) % HALF;
        wheel.arm(index(HALF + turn), at(now + 2 * STEP_US * HALF));
        while let Some(due) = wheel.pop_expired(at(now)) {
            wheel.arm(due, at(now + STEP_US * HALF));
            fired += 1;
        }
    });
    // Each fires up to a tick late, a millisecond in a hundred, and the last 50 are still to come.
    assert!(fired <= count && fired + count / 50 + 100 >= count, "{fired} of {count} fired");
}

/// 64 KiB given, sent, taken and given back, `count` times; nobody touches the bytes.
fn tcp_stream_zero_copy_64k(count: u64) {
    let worlds = Worlds::new();
    let listener = TcpListener::bind(&worlds.server, worlds.server_addr).expect("a listener");
    let (client, server) = worlds.connect(&listener);
    let buffer = worlds.client.buffer().expect("a buffer").freeze();
    let mut pieces = worlds.server.pieces();
    let mut cookie = 0;
    counted(count, || {
        client.give(&buffer, 0..buffer.len(), cookie).expect("room");
        cookie += 1;
        let mut taken = 0;
        while taken < buffer.len() {
            worlds.turn();
            taken += server.take(&mut pieces, usize::MAX).unwrap_or(0);
        }
        pieces.clear();
        while worlds.client.poll_sent().is_none() {
            worlds.turn();
        }
    });
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(name), Some(count)) = (args.next(), args.next()) else { return };
    let count = count.parse().expect("a number of transactions");
    match name.as_str() {
        "tcp_rr" => tcp_rr(count, Link::Soft),
        // Every checksum computed and verified in software.
        "tcp_rr_csum" => tcp_rr(count, Link::NoChecksums),
        "tcp_rr_raw" => tcp_rr(count, Link::Raw),
        "tcp_rr_rc" => tcp_rr(count, Link::Rc),
        "tcp_rr_ud" => tcp_rr(count, Link::Ud),
        "udp_rr" => udp_rr(count),
        "tcp_crr" => tcp_crr(count),
        "tcp_stream_64k" => tcp_stream_64k(count, Link::Soft, "all"),
        // The same in frames of 1500 bytes, step by step.
        "frames_64k_none" => tcp_stream_64k(count, Link::Soft, "none"),
        "frames_64k_checksum" => tcp_stream_64k(count, Link::Soft, "csum,guest_csum"),
        "frames_64k_gso_uso" => tcp_stream_64k(count, Link::Soft, "csum,guest_csum,gso_uso"),
        "frames_64k_gso" => tcp_stream_64k(count, Link::Soft, "csum,guest_csum,gso"),
        "frames_64k_gro" => tcp_stream_64k(count, Link::Soft, "csum,guest_csum,gro"),
        "frames_64k_gso_gro" => tcp_stream_64k(count, Link::Soft, "csum,guest_csum,gso,gro"),
        // The same with every checksum computed and verified, sums taken with the copy.
        "tcp_stream_64k_csum" => tcp_stream_64k(count, Link::NoChecksums, DEFAULT),
        // The default over a NIC that does not segment: the stack cuts streams, software the rest.
        "tcp_stream_64k_no_tso" => tcp_stream_64k(count, Link::NoSegmentation, DEFAULT),
        "datagrams_64k_no_uso" => datagrams_64k(count, Link::NoSegmentation, DEFAULT),
        // Datagrams in frames of 1500 bytes, by who cuts them.
        "datagrams_64k_checksum" => datagrams_64k(count, Link::Soft, "csum,guest_csum"),
        "datagrams_64k_gso_uso" => datagrams_64k(count, Link::Soft, "csum,guest_csum,gso_uso"),
        "datagrams_64k_gso" => datagrams_64k(count, Link::Soft, "csum,guest_csum,gso"),
        "segment_received" => segment_received(count, Link::Soft),
        "segment_received_csum" => segment_received(count, Link::NoChecksums),
        "ack_received" => ack_received(count),
        "sent_64k" => sent_64k(count, Link::Soft),
        "sent_64k_csum" => sent_64k(count, Link::NoChecksums),
        "timer" => timer(count),
        "lookup_100k" => many::lookup(count),
        "tcp_stream_zero_copy_64k" => tcp_stream_zero_copy_64k(count),
        other => panic!("no test `{other}`: see tools/instructions"),
    }
}
