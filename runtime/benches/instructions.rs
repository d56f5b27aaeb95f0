//! Runs N transactions of a named test between two worlds turned alternately by one thread, for
//! an instruction counter outside to count what happens in `counted`: `instructions NAME N`.
//! Prints nothing.
//!
//! The path is the product's own from end to end: socket call, stack, driver, virtqueue, device,
//! soft NIC, the turn and its counters; one turn a side per frame, the application inside the turn.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roceway_runtime::local::{TcpListener, TcpStream, UdpSocket, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::{Prefix, WorkerConfig};

const PORT: u16 = 7;

/// Two workers on one soft link.
struct Worlds {
    client: Worker,
    server: Worker,
    server_addr: SocketAddr,
}

fn worker(nic: SoftNic, host: u8) -> Worker {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
    let mut config = WorkerConfig::new(Prefix { address, length: 24 }).spinning();
    // Under an instruction counter time runs some fifty times faster than the program: cold work
    // once a millisecond would then weigh fifty times its share.
    config.turn.cold_period_ns = 50_000_000;
    Worker::with_nic(AnyNic::from(nic), &config).expect("a worker on the soft link")
}

impl Worlds {
    fn new() -> Worlds {
        let (a, b) = SoftNic::pair(&SoftOptions::default()).expect("a soft link");
        let worlds = Worlds {
            client: worker(a, 1),
            server: worker(b, 2),
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

fn tcp_rr(count: u64) {
    let worlds = Worlds::new();
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
fn tcp_stream_64k(count: u64) {
    let worlds = Worlds::new();
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

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(name), Some(count)) = (args.next(), args.next()) else { return };
    let count = count.parse().expect("a number of transactions");
    match name.as_str() {
        "tcp_rr" => tcp_rr(count),
        "udp_rr" => udp_rr(count),
        "tcp_crr" => tcp_crr(count),
        "tcp_stream_64k" => tcp_stream_64k(count),
        other => panic!("no test `{other}`: tcp_rr, udp_rr, tcp_crr, tcp_stream_64k"),
    }
}
