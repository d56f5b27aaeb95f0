//! One control connection of the server: request, answer, data, results, and again. A client that
//! breaks the protocol is answered with an errno word, or loses its connection;
//! nobody else notices.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::arithmetic::count;
use crate::catalogue::{Kind, Protocol};
use crate::control::message::{Message, errno, kind};
use crate::control::{Arrived, BadRequest, Family, Inbox, Length, ServerResults, TestRequest};
use crate::flow::{ConnectResponder, Flow, Peer, Pipe, Receiver, Responder, Sender, Step};
use crate::recorder::{Counted, Recorder, Until, Window};
use crate::transport::{Manner, Role, Token, Transport, ready};

/// How long the end of a test may take beyond the length that was asked for, as in netserver.
const PAD: Duration = Duration::from_secs(4);
/// How long a client may take to open its data connection.
const OPEN_NS_MAX: u64 = 10_000_000_000;

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Life {
    Moved,
    Waits,
    Over,
}

/// A running test.
#[derive(Debug)]
struct Running<T: Transport> {
    flow: Flow<T>,
    recorder: Recorder,
    started_ns: u64,
    cpu_ns: u64,
    deadline_ns: Option<u64>,
}

#[derive(Debug)]
enum Phase<T: Transport> {
    /// Waiting for a request.
    Idle,
    /// Waiting for the data connection since then.
    Opening(T::Listener, u64),
    /// The test runs; boxed, since it is much larger than the others.
    Running(Box<Running<T>>),
}

/// One control connection.
#[derive(Debug)]
pub(super) struct Session<T: Transport> {
    control: T::Stream,
    /// Of its data sockets.
    token: Token,
    inbox: Inbox,
    outgoing: Vec<u8>,
    request: Option<TestRequest>,
    phase: Phase<T>,
    control_ended: bool,
    /// Its place in the server's list of those with a test.
    pub(super) active_at: Option<usize>,
    /// Its data sockets are looked at in every pass.
    pub(super) is_direct: bool,
    /// Most sessions that ran at once on this thread since this one started: they share its CPU.
    pub(super) sharers: usize,
}

impl<T: Transport> Session<T> {
    pub(super) fn new(control: T::Stream, token: Token) -> Self {
        Self {
            control,
            token,
            inbox: Inbox::default(),
            outgoing: Vec::new(),
            request: None,
            phase: Phase::Idle,
            control_ended: false,
            active_at: None,
            is_direct: false,
            sharers: 1,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Whether a test runs, is about to, or has an answer that is still to leave.
    pub(super) fn has_test(&self) -> bool {
        !matches!(self.phase, Phase::Idle) || !self.outgoing.is_empty()
    }

    /// Does what can be done. `look` says that it is time to look at clock and control connection,
    /// `role` what data sockets that are opened now are to be.
    pub(super) fn step(&mut self, transport: &mut T, look: bool, role: Role) -> Life {
        match self.try_step(transport, look, role) {
            Ok(life) => life,
            // The control connection is broken: there is nobody to tell.
            Err(_) => Life::Over,
        }
    }

    fn try_step(&mut self, transport: &mut T, look: bool, role: Role) -> io::Result<Life> {
        if !self.outgoing.is_empty() {
            let Some(sent) = ready(transport.try_send(&mut self.control, &self.outgoing))? else {
                return Ok(Life::Waits);
            };
            self.outgoing.drain(..sent);
            return Ok(Life::Moved);
        }
        match &mut self.phase {
            Phase::Idle => self.poll_request(transport, role),
            Phase::Opening(..) => self.poll_data_connection(transport),
            Phase::Running(_) => self.poll_test(transport, look),
        }
    }

    fn poll_request(&mut self, transport: &mut T, role: Role) -> io::Result<Life> {
        if self.control_ended {
            return Ok(Life::Over);
        }
        match self.inbox.poll(transport, &mut self.control)? {
            Arrived::Nothing => Ok(Life::Waits),
            Arrived::Closed => Ok(Life::Over),
            Arrived::Message(message) => {
                if let Err(code) = self.on_request(transport, &message, role) {
                    let answers_omni = message.kind == kind::OMNI;
                    let kind = if answers_omni { kind::OMNI_RESPONSE } else { message.kind };
                    self.answer(&Message::new(kind, code));
                }
                Ok(Life::Moved)
            }
        }
    }

    fn answer(&mut self, message: &Message) {
        self.outgoing.extend_from_slice(&message.encode());
    }

    /// Serves a request, or says why not in an errno word.
    fn on_request(&mut self, transport: &mut T, message: &Message, role: Role) -> Result<(), u32> {
        let request = TestRequest::decode(message).map_err(BadRequest::errno)?;
        let opened = self.open(transport, &request, role).map_err(|_| errno::ADDRESS)?;
        self.is_direct = role == Role::Direct;
        self.request = Some(request);
        self.answer(&request.grant(opened));
        Ok(())
    }

    /// Opens the data socket on the address that the client reached; returns its port.
    fn open(&mut self, transport: &mut T, request: &TestRequest, role: Role) -> io::Result<u16> {
        let here = transport.local_address(&self.control)?.ip();
        let address = match (request.family, here) {
            (Family::V4, std::net::IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (Family::V6, std::net::IpAddr::V4(_)) => Ipv6Addr::UNSPECIFIED.into(),
            (_, here) => here,
        };
        let address = SocketAddr::new(address, request.data_port);
        match request.protocol {
            Protocol::Udp => {
                let socket = transport.bind(address, role, self.token)?;
                let port = transport.datagram_address(&socket)?.port();
                let pipe = Pipe::Datagram(socket, Peer::FirstSender);
                self.start(transport, request, flow_on(pipe, request));
                Ok(port)
            }
            Protocol::Tcp => {
                let listener = transport.listen(address, role, self.token)?;
                let port = transport.listener_address(&listener)?.port();
                if request.kind == Kind::ConnectRequestResponse {
                    let sizes = (request.request, request.response);
                    let blocking = transport.manner() == Manner::Blocks;
                    let flow = ConnectResponder::new(listener, self.token, sizes, blocking);
                    self.start(transport, request, Flow::ConnectRespond(flow));
                } else {
                    self.phase = Phase::Opening(listener, transport.now_ns());
                }
                Ok(port)
            }
        }
    }

    fn start(&mut self, transport: &mut T, request: &TestRequest, flow: Flow<T>) {
        let now = transport.now_ns();
        let until = match (request.kind, request.length) {
            (Kind::Receive, Length::Seconds(seconds)) => {
                Until::Elapsed(Duration::from_secs(seconds.into()))
            }
            (Kind::Receive, Length::Count(bytes)) => Until::Count(bytes.into()),
            (Kind::Send | Kind::RequestResponse | Kind::ConnectRequestResponse, _) => {
                Until::PeerEnds
            }
        };
        let window = Window { warmup: Duration::ZERO, until, interval: None };
        let deadline_ns = match request.length {
            Length::Seconds(seconds) => {
                let longest = Duration::from_secs(seconds.into()) + PAD;
                Some(now.saturating_add(crate::arithmetic::nanoseconds(longest)))
            }
            Length::Count(_) => None,
        };
        self.sharers = 1;
        self.phase = Phase::Running(Box::new(Running {
            flow,
            recorder: Recorder::new(window, None, now),
            started_ns: now,
            cpu_ns: transport.cpu_ns(),
            deadline_ns,
        }));
    }

    fn poll_data_connection(&mut self, transport: &mut T) -> io::Result<Life> {
        let Phase::Opening(listener, since) = &mut self.phase else { return Ok(Life::Waits) };
        if let Some(stream) = ready(transport.accept(listener, self.token))? {
            if let Some(request) = self.request {
                self.start(transport, &request, flow_on(Pipe::Stream(stream), &request));
            }
            return Ok(Life::Moved);
        }
        if transport.now_ns().saturating_sub(*since) > OPEN_NS_MAX {
            return Ok(Life::Over);
        }
        // The client may give up before it connects.
        match self.inbox.poll(transport, &mut self.control)? {
            Arrived::Closed => Ok(Life::Over),
            Arrived::Nothing | Arrived::Message(_) => Ok(Life::Waits),
        }
    }

    fn poll_test(&mut self, transport: &mut T, look: bool) -> io::Result<Life> {
        let Phase::Running(running) = &mut self.phase else { return Ok(Life::Waits) };
        let step = running.flow.step(transport, &mut running.recorder);
        let life = match step {
            Ok(Step::Moved | Step::Scheduled) => Life::Moved,
            Ok(Step::Waiting) => Life::Waits,
            Ok(Step::Done) => return Ok(self.end(transport, 0)),
            Err(_) => return Ok(self.end(transport, errno::BROKEN)),
        };
        if running.recorder.is_over() || self.count_reached() {
            return Ok(self.end(transport, 0));
        }
        if look && self.should_stop(transport)? {
            return Ok(self.end(transport, 0));
        }
        Ok(life)
    }

    /// Whether a test that has no other end has all the transactions that were asked for. Of
    /// datagrams a part may be lost or doubled: a client of our own says by its control connection
    /// when it has all, and netperf goes by this count.
    fn count_reached(&self) -> bool {
        let (Some(request), Phase::Running(running)) = (&self.request, &self.phase) else {
            return false;
        };
        let Length::Count(limit) = request.length else { return false };
        let counted = running.recorder.counted();
        match (request.kind, request.protocol) {
            (Kind::ConnectRequestResponse, _) => counted.transactions >= limit.into(),
            (_, Protocol::Udp) if request.echo => false,
            (Kind::RequestResponse, Protocol::Udp) => counted.transactions >= limit.into(),
            (Kind::Send, Protocol::Udp) => counted.bytes >= limit.into(),
            (Kind::RequestResponse | Kind::Send | Kind::Receive, _) => false,
        }
    }

    /// Whether time is over, or the client has ended its direction of the control connection: a
    /// client that has all it wants need not wait for the timer of a test without connection.
    fn should_stop(&mut self, transport: &mut T) -> io::Result<bool> {
        if !self.control_ended {
            let arrived = self.inbox.poll(transport, &mut self.control)?;
            self.control_ended = arrived == Arrived::Closed;
        }
        let Phase::Running(running) = &self.phase else { return Ok(true) };
        let late = running.deadline_ns.is_some_and(|deadline| transport.now_ns() > deadline);
        let connectionless = match &running.flow {
            Flow::Respond(_) | Flow::Receive(_) | Flow::Send(_) | Flow::Request(_) => {
                self.request.is_some_and(|request| request.protocol == Protocol::Udp)
            }
            Flow::Connect(_) | Flow::ConnectRespond(_) => true,
        };
        Ok(late || (self.control_ended && connectionless))
    }

    fn end(&mut self, transport: &mut T, code: u32) -> Life {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let (Phase::Running(running), Some(request)) = (phase, self.request.take()) else {
            return Life::Over;
        };
        let Running { flow, recorder, started_ns, cpu_ns, .. } = *running;
        drop(flow);
        let elapsed_ns = transport.now_ns().saturating_sub(started_ns);
        let shared = transport.cpu_ns().saturating_sub(cpu_ns) / count(self.sharers.max(1));
        let (counted, _, _) = recorder.into_parts();
        let results = results_of(&request, &counted, elapsed_ns, shared);
        let cpus = crate::host::cpus();
        let mut message = results.encode(u32::try_from(cpus).unwrap_or(1));
        message.errno = code;
        self.answer(&message);
        Life::Moved
    }
}

fn flow_on<T: Transport>(pipe: Pipe<T>, request: &TestRequest) -> Flow<T> {
    match request.kind {
        Kind::RequestResponse | Kind::ConnectRequestResponse => {
            let sizes = (request.request, request.response);
            Flow::Respond(Responder::new(pipe, sizes, request.echo))
        }
        Kind::Send => Flow::Receive(Receiver::new(pipe, request.receive)),
        Kind::Receive => Flow::Send(Sender::new(pipe, request.message, None)),
    }
}

fn results_of(
    request: &TestRequest,
    counted: &Counted,
    elapsed_ns: u64,
    cpu_ns: u64,
) -> ServerResults {
    let (received, sent) = match request.kind {
        Kind::Send => (counted.bytes, 0),
        Kind::Receive => (0, counted.bytes),
        Kind::RequestResponse | Kind::ConnectRequestResponse => (
            counted.transactions.saturating_mul(count(request.request)),
            counted.transactions.saturating_mul(count(request.response)),
        ),
    };
    ServerResults {
        bytes_received: received,
        receives: counted.receives,
        bytes_sent: sent,
        sends: counted.sends,
        transactions: counted.transactions,
        elapsed: Duration::from_nanos(elapsed_ns),
        cpu: Some(Duration::from_nanos(cpu_ns)),
    }
}
