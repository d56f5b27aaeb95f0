//! Runs N transactions of a named test between perf's own client and server, turned alternately by
//! one thread over a soft link, for an instruction counter outside to count what happens in
//! `counted`: `instructions NAME N`. Prints nothing.
//!
//! What the tests of the runtime's bench of this name do without, this has: the server's sessions,
//! the recorder, and a choice of connections. `tcp_rr` has one; `tcp_rr_idle` has 10,000 control
//! connections open besides that never say anything; `tcp_rr_many` has 64, all active.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use roceway_perf::catalogue::{Kind, Protocol};
use roceway_perf::control::message::{Message, response};
use roceway_perf::control::{
    Arrived, Family, Inbox, Length, RECEIVE_DEFAULT, SEND_DEFAULT, TestRequest,
};
use roceway_perf::ends::{ADDRESSES, Opening, soft_pair};
use roceway_perf::flow::{Exchange, Flow, Pipe, Requester, Run};
use roceway_perf::histogram::Latency;
use roceway_perf::kernel::SocketOptions;
use roceway_perf::recorder::{Recorder, Until, Window};
use roceway_perf::roceway::Roceway;
use roceway_perf::server::Server;
use roceway_perf::transport::{Role, Transport, ready};
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::{Prefix, WorkerConfig};

/// Connections that are opened together: fewer than a listener holds.
const BATCH: usize = 256;
/// Idle connections of the test that has some.
const IDLE: usize = 10_000;

type Stream = <Roceway as Transport>::Stream;

/// perf's two ends on one link.
struct Ends {
    client: Roceway,
    transport: Roceway,
    server: Server<Roceway>,
    at: SocketAddr,
}

fn end(nic: roceway_runtime::rdma_virtio::nic::any::AnyNic, index: usize) -> Roceway {
    let prefix = Prefix { address: ADDRESSES[index].into(), length: 24 };
    let mut config = WorkerConfig::new(prefix).spinning();
    // Under an instruction counter time runs some fifty times faster than the program: cold work
    // once a millisecond would then weigh fifty times its share.
    config.turn.cold_period_ns = 50_000_000;
    Opening::new(config, SocketOptions::default()).start(nic, "an end").expect("a worker")
}

impl Ends {
    fn new() -> Ends {
        let (here, there) = soft_pair(&SoftOptions::default()).expect("a soft link");
        let (client, mut transport) = (end(here, 0), end(there, 1));
        let any = SocketAddr::new(ADDRESSES[1].into(), 0);
        let server = Server::listen(&mut transport, any).expect("a listener");
        let at = server.addresses(&transport).expect("an address")[0];
        let mut ends = Ends { client, transport, server, at };
        // Cold work joins the link.
        let start = ends.client.now_ns();
        while ends.client.now_ns() - start < 300_000_000 {
            ends.turn();
        }
        ends
    }

    fn turn(&mut self) {
        let _ = self.client.turn(roceway_perf::transport::Pass::Idle, &mut Vec::new());
        self.server.turn(&mut self.transport).expect("a turn");
    }

    fn until<V>(&mut self, mut attempt: impl FnMut(&mut Roceway) -> io::Result<V>) -> V {
        loop {
            self.turn();
            if let Some(value) = ready(attempt(&mut self.client)).expect("a connection") {
                return value;
            }
        }
    }

    fn connect(&mut self, to: SocketAddr, role: Role, token: usize) -> Stream {
        let mut stream = self.client.connect(to, role, token).expect("a connection");
        self.until(|client| client.connected(&mut stream));
        stream
    }

    /// Control connections that never ask for anything.
    fn quiet(&mut self, number: usize) -> Vec<Stream> {
        let mut all = Vec::with_capacity(number);
        while all.len() < number {
            let begin = all.len();
            for _ in begin..number.min(begin + BATCH) {
                all.push(self.client.connect(self.at, Role::Control, 0).expect("a connection"));
            }
            for stream in all.iter_mut().skip(begin) {
                self.until(|client| client.connected(stream));
            }
        }
        all
    }

    /// A test of one connection: its control connection and its flow.
    fn prepare(&mut self, role: Role, token: usize) -> (Stream, Flow<Roceway>) {
        let mut control = self.connect(self.at, Role::Control, token);
        let request = request().encode().encode();
        self.until(|client| client.try_send(&mut control, &request));
        let mut inbox = Inbox::default();
        let answer: Box<Message> = self.until(|client| match inbox.poll(client, &mut control)? {
            Arrived::Message(message) => Ok(message),
            Arrived::Nothing | Arrived::Closed => Err(io::ErrorKind::WouldBlock.into()),
        });
        assert_eq!(answer.errno, 0, "the server grants the test");
        let port = u16::try_from(answer.word(response::DATA_PORT)).expect("a port");
        let data = self.connect(SocketAddr::new(self.at.ip(), port), role, token);
        let exchange = Exchange {
            request: 1,
            response: 1,
            depth: 1,
            pacer: None,
            issue_max: None,
            echoes: false,
        };
        (control, Flow::Request(Requester::new(Pipe::Stream(data), exchange)))
    }
}

fn request() -> TestRequest {
    TestRequest {
        kind: Kind::RequestResponse,
        protocol: Protocol::Tcp,
        family: Family::V4,
        request: 1,
        response: 1,
        message: SEND_DEFAULT,
        receive: RECEIVE_DEFAULT,
        send_buffer: None,
        receive_buffer: None,
        length: Length::Seconds(3600),
        data_port: 0,
        echo: false,
    }
}

/// What is counted: the transactions, not their setting up.
#[inline(never)]
fn counted(mut transactions: impl FnMut()) {
    transactions();
}

fn tcp_rr(count: u64, connections: usize, idle: usize) {
    let mut ends = Ends::new();
    let quiet = ends.quiet(idle);
    let role = Role::of_data(ends.client.manner(), connections);
    let (controls, mut flows): (Vec<Stream>, Vec<Flow<Roceway>>) =
        (0..connections).map(|token| ends.prepare(role, token)).unzip();
    let window = Window { warmup: Duration::ZERO, until: Until::Count(count), interval: None };
    let mut recorder = Recorder::new(window, Some(Latency::new()), ends.client.now_ns());
    let mut run = Run::new(&ends.client, &mut flows, &recorder);
    counted(|| {
        while !recorder.is_over() {
            run.turn(&mut ends.client, &mut recorder, &mut |_| ()).expect("a turn");
            ends.server.turn(&mut ends.transport).expect("a turn");
        }
    });
    assert_eq!(recorder.counted().transactions, count);
    drop((quiet, controls));
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (Some(name), Some(count)) = (args.next(), args.next()) else { return };
    let count = count.parse().expect("a number of transactions");
    match name.as_str() {
        "tcp_rr" => tcp_rr(count, 1, 0),
        "tcp_rr_idle" => tcp_rr(count, 1, IDLE),
        "tcp_rr_many" => tcp_rr(count, 64, 0),
        other => panic!("no test `{other}`: tcp_rr, tcp_rr_idle, tcp_rr_many"),
    }
}
