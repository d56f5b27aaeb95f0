//! A connection for each transaction: connect, request, response, close.

use std::io;
use std::net::SocketAddr;

use super::pipe::is_gone;
use super::{OPERATIONS_MAX, Step};
use crate::arithmetic::count;
use crate::recorder::Recorder;
use crate::transport::{Role, Token, Transport, ready};

/// Connections that a server may have open at once for one test.
const OPEN_MAX: usize = 1024;

/// Where one short connection is.
#[derive(Debug)]
enum Stage {
    Connecting,
    /// Bytes of the outgoing message sent.
    Sending(usize),
    /// Bytes of the incoming message received.
    Receiving(usize),
    /// Waiting for the other end's FIN.
    Closing,
}

#[derive(Debug)]
struct Short<T: Transport> {
    stream: T::Stream,
    stage: Stage,
}

/// The client's end: one connection after the other.
#[derive(Debug)]
pub struct Connector<T: Transport> {
    to: SocketAddr,
    /// Role and token of its sockets.
    named: (Role, Token),
    request: Vec<u8>,
    response: usize,
    inbox: Vec<u8>,
    /// Connections that may still be opened, if their number is bounded.
    left: Option<u64>,
    current: Option<(Short<T>, u64)>,
}

impl<T: Transport> Connector<T> {
    /// Connects to `to`, at most `left` times if bounded; its sockets have this role and token.
    #[must_use]
    pub fn new(
        to: SocketAddr,
        named: (Role, Token),
        (request, response): (usize, usize),
        left: Option<u64>,
    ) -> Self {
        let inbox = vec![0; response + 1];
        Self { to, named, request: vec![0x5a; request], response, inbox, left, current: None }
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        for _ in 0..OPERATIONS_MAX {
            let Some((short, from_ns)) = &mut self.current else {
                match &mut self.left {
                    Some(0) => return Ok(Step::Waiting),
                    Some(left) => *left -= 1,
                    None => {}
                }
                let from_ns = transport.now_ns();
                let stream = transport.connect(self.to, self.named.0, self.named.1)?;
                self.current = Some((Short { stream, stage: Stage::Connecting }, from_ns));
                continue;
            };
            match short.stage {
                Stage::Connecting => match ready(transport.connected(&mut short.stream))? {
                    Some(()) => short.stage = Stage::Sending(0),
                    None => return Ok(Step::Waiting),
                },
                Stage::Sending(sent) => {
                    let rest = self.request.get(sent..).unwrap_or_default();
                    let Some(more) = ready(transport.try_send(&mut short.stream, rest))? else {
                        return Ok(Step::Waiting);
                    };
                    recorder.on_send();
                    let all = sent + more >= self.request.len();
                    short.stage =
                        if all { Stage::Receiving(0) } else { Stage::Sending(sent + more) };
                }
                Stage::Receiving(_) | Stage::Closing => {
                    let Some(received) = receive(transport, short, &mut self.inbox)? else {
                        return Ok(Step::Waiting);
                    };
                    recorder.on_receive();
                    let from_ns = *from_ns;
                    if self.on_received(received, transport)? {
                        let bytes = count(self.request.len() + self.response);
                        recorder.on_transaction(from_ns, transport.now_ns(), bytes);
                        self.current = None;
                        return Ok(Step::Moved);
                    }
                }
            }
        }
        Ok(Step::Moved)
    }

    /// Takes response bytes, or the FIN; returns whether the connection has come to its end.
    fn on_received(&mut self, received: usize, transport: &mut T) -> io::Result<bool> {
        let Some((short, _)) = &mut self.current else { return Ok(false) };
        match short.stage {
            Stage::Receiving(got) if received > 0 => {
                if got + received < self.response {
                    short.stage = Stage::Receiving(got + received);
                } else {
                    // The server may wait for this end to close first.
                    transport.shutdown_write(&mut short.stream).or_else(gone_is_closed)?;
                    short.stage = Stage::Closing;
                }
                Ok(false)
            }
            Stage::Receiving(_) => {
                let what = "the server closed the connection before its response";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
            }
            Stage::Closing => Ok(received == 0),
            Stage::Connecting | Stage::Sending(_) => Ok(false),
        }
    }
}

fn gone_is_closed(error: io::Error) -> io::Result<()> {
    if is_gone(&error) { Ok(()) } else { Err(error) }
}

/// Receives; a reset while closing is the end, like a FIN.
fn receive<T: Transport>(
    transport: &mut T,
    short: &mut Short<T>,
    inbox: &mut [u8],
) -> io::Result<Option<usize>> {
    match ready(transport.try_recv(&mut short.stream, inbox)) {
        Err(error) if matches!(short.stage, Stage::Closing) && is_gone(&error) => Ok(Some(0)),
        other => other,
    }
}

/// The server's end: answers each connection's request and closes it.
#[derive(Debug)]
pub struct ConnectResponder<T: Transport> {
    listener: T::Listener,
    token: Token,
    request: usize,
    response: Vec<u8>,
    inbox: Vec<u8>,
    open: Vec<Short<T>>,
    blocking: bool,
    /// The client sends its FIN first, and TIME-WAIT stays there.
    client_closes: bool,
}

impl<T: Transport> ConnectResponder<T> {
    /// Serves connections of `listener`; one at a time if the transport blocks.
    #[must_use]
    pub fn new(
        listener: T::Listener,
        token: Token,
        (request, response): (usize, usize),
        blocking: bool,
    ) -> Self {
        let (inbox, response) = (vec![0; request + 1], vec![0xa5; response]);
        let (open, client_closes) = (Vec::new(), false);
        Self { listener, token, request, response, inbox, open, blocking, client_closes }
    }

    /// The same, and leaves it to the client to send its FIN first.
    #[must_use]
    pub fn client_closes_first(mut self) -> Self {
        self.client_closes = true;
        self
    }

    pub(super) fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        let mut step = Step::Waiting;
        let room = if self.blocking { 1 } else { OPEN_MAX };
        if self.open.len() < room
            && let Some(stream) = ready(transport.accept(&mut self.listener, self.token))?
        {
            self.open.push(Short { stream, stage: Stage::Receiving(0) });
            step = Step::Moved;
        }
        let mut index = 0;
        while let Some(short) = self.open.get_mut(index) {
            let how = (self.request, self.client_closes);
            let served = Self::serve(transport, short, (&mut self.inbox, &self.response), how);
            match served {
                // A client that breaks its connection ends that connection only.
                Ok(Served::Closed) | Err(_) => {
                    self.open.swap_remove(index);
                    step = Step::Moved;
                    continue;
                }
                Ok(Served::Answered) => {
                    recorder.tally(1, count(self.request + self.response.len()));
                    step = Step::Moved;
                }
                Ok(Served::Waits) => {}
            }
            index += 1;
        }
        Ok(step)
    }

    fn serve(
        transport: &mut T,
        short: &mut Short<T>,
        (inbox, response): (&mut [u8], &[u8]),
        (request, client_closes): (usize, bool),
    ) -> io::Result<Served> {
        loop {
            match short.stage {
                Stage::Receiving(got) => match ready(transport.try_recv(&mut short.stream, inbox))?
                {
                    None => return Ok(Served::Waits),
                    Some(0) => return Ok(Served::Closed),
                    Some(n) if got + n >= request => short.stage = Stage::Sending(0),
                    Some(n) => short.stage = Stage::Receiving(got + n),
                },
                Stage::Sending(sent) => {
                    let rest = response.get(sent..).unwrap_or_default();
                    let Some(more) = ready(transport.try_send(&mut short.stream, rest))? else {
                        return Ok(Served::Waits);
                    };
                    short.stage = Stage::Sending(sent + more);
                    if sent + more >= response.len() {
                        // This end's FIN first: TIME_WAIT stays here and the client's ports free.
                        if !client_closes {
                            transport.shutdown_write(&mut short.stream)?;
                        }
                        short.stage = Stage::Closing;
                        return Ok(Served::Answered);
                    }
                }
                Stage::Closing | Stage::Connecting => {
                    return match ready(transport.try_recv(&mut short.stream, inbox))? {
                        None => Ok(Served::Waits),
                        Some(0) => Ok(Served::Closed),
                        Some(_) => continue,
                    };
                }
            }
        }
    }
}

enum Served {
    Waits,
    Answered,
    Closed,
}
