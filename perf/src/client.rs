//! The client of a test: asks a netserver, ours or the stock one, for it, runs it, takes the
//! results. A control connection and a data connection for each connection under test.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use crate::arithmetic::{count, nanoseconds};
use crate::catalogue::{Kind, Protocol};
use crate::control::message::kind;
use crate::control::{self, Family, LENGTH_S_MAX, Length, ServerResults, TestRequest};
use crate::flow::{Connector, Exchange, Flow, Peer, Pipe, Receiver, Requester, Sender, run};
use crate::histogram::Latency;
use crate::kernel::{Kernel, Waiting, wildcard};
use crate::pacing::{Pacer, Rate};
use crate::recorder::{Recorder, Until};
use crate::transport::{Role, Token, Transport, wait_for};
use crate::workload::{Outcome, Remote, Workload};

/// How long a control message or a connection may take.
const ANSWER_NS_MAX: u64 = 10_000_000_000;
/// Connections that are prepared together; well below what a listener's queue holds.
const BATCH: usize = 256;
/// How long the other end may take to close after its test.
const CLOSE_NS_MAX: u64 = 10_000_000_000;

/// Why a test failed.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A socket or the stack failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The server refused.
    #[error("the server at {server} refused the test with error {errno}")]
    Refused {
        /// Its control address.
        server: SocketAddr,
        /// Its errno word.
        errno: u32,
    },
    /// Something that is no netserver answered.
    #[error(
        "{server} answered with message type {kind}, so it is no netserver of version 2.6 or later"
    )]
    NotNetserver {
        /// Its address.
        server: SocketAddr,
        /// Its type word.
        kind: u32,
    },
    /// Roceway's worker does not start.
    #[error(transparent)]
    Start(Box<roceway_runtime::StartError>),
    /// Nobody joined the link.
    #[error("{device}: nobody at the other end of the link")]
    NoLink {
        /// The device.
        device: String,
    },
    /// The length cannot be said in the protocol.
    #[error("{0}")]
    Length(&'static str),
}

impl TestError {
    /// What the user can do about it; may be empty.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "start `roceway perf server` or netserver there, or name its port with -p"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::HostUnreachable => {
                "nobody on the link answers for that address: compare it with the --address there"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                "check that the server runs, that no firewall drops its ports, and that other \
                 clients do not hold all of its 16,384 sessions"
            }
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                "the other end went away or gave up; its own messages say why"
            }
            Self::Refused { .. } => "choose smaller sizes, or look at the server's own limits",
            Self::NotNetserver { .. } => "name the control port of a netserver with -p",
            Self::NoLink { .. } => {
                "start `roceway perf server` with the same --device and another --address"
            }
            Self::Io { .. } | Self::Start(_) | Self::Length(_) => "",
        }
    }
}

fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> TestError {
    let what = what.into();
    move |source| TestError::Io { what, source }
}

/// The data side of one connection under test.
#[derive(Debug)]
enum Data<T: Transport> {
    Pipe(Pipe<T>),
    /// CRR opens its connections itself.
    To(SocketAddr),
}

/// One connection under test, ready to start.
#[derive(Debug)]
pub struct Prepared<T: Transport> {
    control: T::Stream,
    data: Data<T>,
    /// The server returns the first bytes of a datagram.
    echoes: bool,
}

/// Asks the server for a test and opens the data connection; its sockets carry `token`.
///
/// # Errors
/// If the server is not there, refuses, or is no netserver.
pub fn prepare<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    server: SocketAddr,
    token: Token,
) -> Result<Prepared<T>, TestError> {
    let mut prepared = Vec::with_capacity(1);
    prepare_batch(transport, workload, server, token..token + 1, &mut prepared)?;
    prepared.pop().ok_or(TestError::Length("a test needs at least one connection"))
}

/// Prepares one connection for each token.
fn prepare_batch<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    server: SocketAddr,
    tokens: Range<Token>,
    prepared: &mut Vec<Prepared<T>>,
) -> Result<(), TestError> {
    let mut granted = Vec::with_capacity(tokens.len());
    ask(transport, workload, server, tokens, &mut granted)?;
    open(transport, workload, granted, prepared)
}

/// A test that the server is ready for.
struct Granted<T: Transport> {
    control: T::Stream,
    /// Where the data connection goes.
    to: SocketAddr,
    echoes: bool,
    token: Token,
}

/// Asks for a test for each token, each step for all of them together: one after the other,
/// thousands of connections would outlast the server's patience with the first.
fn ask<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    server: SocketAddr,
    tokens: Range<Token>,
    granted: &mut Vec<Granted<T>>,
) -> Result<(), TestError> {
    let request = request_of(workload, server.ip())?.encode();
    let what = || doing(format!("control connection to {server}"));
    let mut controls = Vec::with_capacity(tokens.len());
    for token in tokens.clone() {
        controls.push(transport.connect(server, Role::Control, token).map_err(what())?);
    }
    for control in &mut controls {
        wait_connected(transport, control).map_err(what())?;
        control::send(transport, control, &request, ANSWER_NS_MAX).map_err(what())?;
    }
    for (mut control, token) in controls.into_iter().zip(tokens) {
        let answer =
            control::receive(transport, &mut control, ANSWER_NS_MAX, "asking for the test")
                .map_err(what())?;
        let to = SocketAddr::new(server.ip(), data_port(&answer, server)?);
        granted.push(Granted { control, to, echoes: control::echoes(&answer), token });
    }
    Ok(())
}

/// Opens the data connections of tests that were granted.
fn open<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    granted: Vec<Granted<T>>,
    prepared: &mut Vec<Prepared<T>>,
) -> Result<(), TestError> {
    let begin = prepared.len();
    for Granted { control, to, echoes, token } in granted {
        let data = begin_data(transport, workload, to, token)
            .map_err(doing(format!("data connection to {to}")))?;
        prepared.push(Prepared { control, data, echoes });
    }
    for one in prepared.iter_mut().skip(begin) {
        if let Data::Pipe(Pipe::Stream(stream)) = &mut one.data {
            wait_connected(transport, stream).map_err(doing("data connection"))?;
        }
    }
    Ok(())
}

/// The data port of an answer.
fn data_port(answer: &control::message::Message, server: SocketAddr) -> Result<u16, TestError> {
    if answer.errno != 0 {
        return Err(TestError::Refused { server, errno: answer.errno });
    }
    let port = answer.word(control::message::response::DATA_PORT);
    match (answer.kind, u16::try_from(port).ok().filter(|port| *port != 0)) {
        (kind::OMNI_RESPONSE, Some(port)) => Ok(port),
        (kind, _) => Err(TestError::NotNetserver { server, kind }),
    }
}

fn wait_connected<T: Transport>(transport: &mut T, stream: &mut T::Stream) -> io::Result<()> {
    wait_for(transport, ANSWER_NS_MAX, "connecting", |transport| transport.connected(stream))
}

/// Opens control connections that never ask for anything.
///
/// # Errors
/// If one is not established in time.
pub fn open_quiet<T: Transport>(
    transport: &mut T,
    server: SocketAddr,
    number: usize,
) -> io::Result<Vec<T::Stream>> {
    let mut all: Vec<T::Stream> = Vec::with_capacity(number);
    while all.len() < number {
        let begin = all.len();
        for _ in begin..number.min(begin + BATCH) {
            all.push(transport.connect(server, Role::Control, 0)?);
        }
        for stream in all.iter_mut().skip(begin) {
            wait_connected(transport, stream)?;
        }
    }
    Ok(all)
}

/// The role of the data sockets of a workload on one thread.
fn role_of<T: Transport>(transport: &T, workload: &Workload) -> Role {
    Role::of_data(transport.manner(), workload.connections)
}

/// Starts to open the data connection.
fn begin_data<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    to: SocketAddr,
    token: Token,
) -> io::Result<Data<T>> {
    let role = role_of(transport, workload);
    match (workload.test.protocol, workload.test.kind) {
        (Protocol::Tcp, Kind::ConnectRequestResponse) => Ok(Data::To(to)),
        (Protocol::Tcp, Kind::RequestResponse | Kind::Send | Kind::Receive) => {
            Ok(Data::Pipe(Pipe::Stream(transport.connect(to, role, token)?)))
        }
        (Protocol::Udp, _) => {
            let mut socket = transport.bind(wildcard(to), role, token)?;
            transport.set_peer(&mut socket, to)?;
            Ok(Data::Pipe(Pipe::Datagram(socket, Peer::Known)))
        }
    }
}

fn request_of(workload: &Workload, server: IpAddr) -> Result<TestRequest, TestError> {
    let family = match server {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    Ok(TestRequest {
        kind: workload.test.kind,
        protocol: workload.test.protocol,
        family,
        request: workload.request,
        response: workload.response,
        message: workload.message,
        receive: workload.receive,
        send_buffer: workload.buffers.send_buffer,
        receive_buffer: workload.buffers.receive_buffer,
        length: length_of(workload)?,
        data_port: 0,
        echo: true,
    })
}

/// The length as the protocol says it: whole seconds that cover warm-up and test, or this
/// connection's share of the count.
fn length_of(workload: &Workload) -> Result<Length, TestError> {
    match workload.window.until {
        Until::Elapsed(duration) => {
            let whole = duration.saturating_add(workload.window.warmup);
            let seconds = whole.as_secs() + u64::from(whole.subsec_nanos() > 0);
            u32::try_from(seconds)
                .ok()
                .filter(|seconds| (1..=LENGTH_S_MAX).contains(seconds))
                .map(Length::Seconds)
                .ok_or(TestError::Length("a test takes between a nanosecond and a day"))
        }
        Until::Count(_) | Until::PeerEnds => {
            let share = share_of(workload).unwrap_or(0);
            u32::try_from(share)
                .ok()
                .filter(|count| *count > 0 && i32::try_from(*count).is_ok())
                .map(Length::Count)
                .ok_or(TestError::Length("a count is between 1 and 2^31-1 for each connection"))
        }
    }
}

/// What one connection does of a count, rounded up.
fn share_of(workload: &Workload) -> Option<u64> {
    match workload.window.until {
        Until::Count(all) => Some(all.div_ceil(count(workload.connections.max(1)))),
        Until::Elapsed(_) | Until::PeerEnds => None,
    }
}

/// The flow of a prepared connection; its sockets have `role` and `token`.
fn flow_of<T: Transport>(
    (data, echoes): (Data<T>, bool),
    workload: &Workload,
    (role, token): (Role, Token),
    start_ns: u64,
) -> Flow<T> {
    let pacer = workload.rate.map(|rate| Pacer::new(rate, start_ns, token, workload.connections));
    match (data, workload.test.kind) {
        (Data::To(to), _) => {
            let sizes = (workload.request, workload.response);
            Flow::Connect(Connector::new(to, (role, token), sizes, share_of(workload)))
        }
        (Data::Pipe(pipe), Kind::Send) => Flow::Send(Sender::new(pipe, workload.message, pacer)),
        (Data::Pipe(pipe), Kind::Receive) => Flow::Receive(Receiver::new(pipe, workload.receive)),
        (Data::Pipe(pipe), Kind::RequestResponse | Kind::ConnectRequestResponse) => {
            let exchange = Exchange {
                request: workload.request,
                response: workload.response,
                depth: workload.depth,
                pacer,
                issue_max: share_of(workload),
                echoes,
            };
            Flow::Request(Requester::new(pipe, exchange))
        }
    }
}

/// Runs prepared connections together on one thread.
///
/// # Errors
/// If a connection breaks, or the server does not give its results.
pub fn execute<T: Transport>(
    transport: &mut T,
    prepared: Vec<Prepared<T>>,
    workload: &Workload,
    watch: &mut dyn FnMut(&Recorder),
) -> Result<Outcome, TestError> {
    let start_ns = transport.now_ns();
    let role = role_of(transport, workload);
    let (mut controls, mut flows) = (Vec::new(), Vec::new());
    for (token, Prepared { control, data, echoes }) in prepared.into_iter().enumerate() {
        controls.push(control);
        flows.push(flow_of((data, echoes), workload, (role, token), start_ns));
    }
    let latency = workload.test.has_rtt().then(Latency::new);
    let mut recorder = Recorder::new(workload.window, latency, transport.now_ns());
    let cpu = run(transport, &mut flows, &mut recorder, watch).map_err(doing("the test"))?;
    transport.at_end();
    for flow in &mut flows {
        flow.finish(transport, CLOSE_NS_MAX).map_err(doing("closing"))?;
    }
    drop(flows);
    let mut remote = Remote::default();
    for control in &mut controls {
        remote.add(&take_results(transport, control, workload)?);
    }
    let (counted, latency, samples) = recorder.into_parts();
    Ok(Outcome { counted, latency, samples, cpu_ns: cpu.0, remote })
}

/// Takes the results. This end's direction is closed first, which our server understands as the
/// end of a test without connection, and the stock one reads after its results.
fn take_results<T: Transport>(
    transport: &mut T,
    control: &mut T::Stream,
    workload: &Workload,
) -> Result<Remote, TestError> {
    transport.shutdown_write(control).map_err(doing("control connection"))?;
    let own = match workload.window.until {
        Until::Elapsed(duration) => nanoseconds(duration.saturating_add(workload.window.warmup)),
        Until::Count(_) | Until::PeerEnds => 0,
    };
    let message =
        control::receive(transport, control, own.saturating_add(ANSWER_NS_MAX), "results")
            .map_err(doing("control connection"))?;
    let results = ServerResults::decode(&message).map_err(|errno| TestError::Io {
        what: "the server's end of the test".into(),
        source: io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0)),
    })?;
    Ok(Remote {
        cpu_ns: results.cpu.map(nanoseconds),
        transactions: results.transactions,
        bytes: results.bytes_received + results.bytes_sent,
        elapsed_ns: nanoseconds(results.elapsed),
    })
}

/// Runs a whole test on the calling thread.
///
/// # Errors
/// As [`prepare`] and [`execute`].
pub fn test<T: Transport>(
    transport: &mut T,
    workload: &Workload,
    server: SocketAddr,
    watch: &mut dyn FnMut(&Recorder),
) -> Result<Outcome, TestError> {
    let mut all = Vec::with_capacity(workload.connections);
    let mut granted = Vec::new();
    let mut begin = 0;
    while begin < workload.connections {
        let end = workload.connections.min(begin + BATCH);
        ask(transport, workload, server, begin..end, &mut granted)?;
        begin = end;
        // A server that sends begins as soon as it can, and nobody reads yet: its memory would be
        // full of that before it had answered the last request. So all requests come first.
        if workload.test.kind != Kind::Receive || end == workload.connections {
            open(transport, workload, std::mem::take(&mut granted), &mut all)?;
        }
    }
    execute(transport, all, workload, watch)
}

/// Runs a whole test over the blocking kernel: a thread for each connection, started together.
///
/// # Errors
/// The first failure of any of them.
pub fn test_blocking(
    waiting: Waiting,
    workload: &Workload,
    server: SocketAddr,
    watch: &mut (dyn FnMut(&Recorder) + Send),
) -> Result<Outcome, TestError> {
    let mut single = workload.clone();
    single.connections = 1;
    single.rate = workload.rate.and_then(|rate| {
        Rate::new(rate.per_second() / crate::arithmetic::real(count(workload.connections)))
    });
    if let (Some(share), Until::Count(_)) = (share_of(workload), workload.window.until) {
        single.window.until = Until::Count(share);
    }
    let single = &single;
    let mut watch = Some(watch);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..workload.connections {
            let (go, wait) = mpsc::channel::<()>();
            let (tell, told) = mpsc::channel();
            let watch = watch.take();
            let thread = scope.spawn(move || -> Result<Outcome, TestError> {
                let mut own = Kernel::new(waiting, single.buffers).map_err(doing("a socket"))?;
                let prepared = prepare(&mut own, single, server, 0)?;
                let _ = tell.send(());
                // If the others failed, nobody says go, and there is nothing to do.
                if wait.recv_timeout(Duration::from_secs(60)).is_err() {
                    return Err(TestError::Length("another connection of the test failed"));
                }
                let mut quiet = |_: &Recorder| ();
                match watch {
                    Some(watch) => execute(&mut own, vec![prepared], single, watch),
                    None => execute(&mut own, vec![prepared], single, &mut quiet),
                }
            });
            let ready = told.recv().is_ok();
            threads.push((thread, go));
            if !ready {
                break;
            }
        }
        let complete = threads.len() == workload.connections
            && threads.last().is_some_and(|(thread, _)| !thread.is_finished());
        collect(threads, complete)
    })
}

type TestThread<'scope> =
    (std::thread::ScopedJoinHandle<'scope, Result<Outcome, TestError>>, mpsc::Sender<()>);

fn collect(threads: Vec<TestThread<'_>>, complete: bool) -> Result<Outcome, TestError> {
    if complete {
        for (_, go) in &threads {
            let _ = go.send(());
        }
    }
    let mut sum: Option<Outcome> = None;
    let mut failure = None;
    // Last first: where one failed to prepare, it is the last, and its reason is the one to tell.
    for (thread, go) in threads.into_iter().rev() {
        drop(go);
        match thread.join() {
            Ok(Ok(outcome)) => match &mut sum {
                Some(sum) => sum.add(&outcome),
                None => sum = Some(outcome),
            },
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(_) => failure = failure.or(Some(TestError::Length("a thread of the test died"))),
        }
    }
    match (failure, sum) {
        (None, Some(sum)) => Ok(sum),
        (Some(failure), _) => Err(failure),
        (None, None) => Err(TestError::Length("a test needs at least one connection")),
    }
}
