//! netperf's control protocol, both sides: a test is asked for and answered in [`message`]s over a
//! control connection. Reading what the other side wrote is bounded here and nowhere else: a size
//! or length that leaves this module can be used as it is.

mod exchange;
pub mod message;

use std::time::Duration;

pub use exchange::{Arrived, Inbox, receive, send};
use message::{ECHO, ECHO_WORD, Message, direction, errno, flag, kind, request, response, results};

use crate::catalogue::{Kind, Protocol};
use crate::flow::{DATAGRAM_MAX, MESSAGE_MAX};

/// The longest test that may be asked for: a day.
pub const LENGTH_S_MAX: u32 = 86_400;
/// Bytes of a send call of a TCP stream unless the user says otherwise. netperf takes the send
/// buffer that a new socket has, which on Linux is the second number of `net.ipv4.tcp_wmem`.
pub const SEND_DEFAULT: usize = 16_384;
/// Bytes of a receive call unless the user says otherwise. netperf takes the receive buffer that a
/// new socket has, which on Linux is the second number of `net.ipv4.tcp_rmem`.
pub const RECEIVE_DEFAULT: usize = 131_072;
/// netperf's numbers for sockets: stream and datagram.
const SOCKET_TYPES: [u32; 2] = [1, 2];
/// IP's numbers for the protocols.
const PROTOCOLS: [u32; 2] = [6, 17];
/// netperf's numbers for address families.
const FAMILIES: [u32; 2] = [4, 6];

/// How long a test is, as the protocol says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// So long.
    Seconds(u32),
    /// So many transactions, or bytes of a stream.
    Count(u32),
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A test as one side asks the other for it. Sizes and lengths are within limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestRequest {
    /// What the client does.
    pub kind: Kind,
    /// Over what.
    pub protocol: Protocol,
    /// Address family of the data connection.
    pub family: Family,
    /// Bytes of a request.
    pub request: usize,
    /// Bytes of a response.
    pub response: usize,
    /// Bytes of a send call of a stream.
    pub message: usize,
    /// Bytes of a receive call of a stream.
    pub receive: usize,
    /// `SO_SNDBUF` of the server.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` of the server.
    pub receive_buffer: Option<usize>,
    /// How long.
    pub length: Length,
    /// The data port wanted, or 0.
    pub data_port: u16,
    /// Whether answers to datagrams shall begin as the datagrams did, so that the client can tell
    /// whose they are.
    pub echo: bool,
}

/// Whether an answer to a request says that the server echoes.
#[must_use]
pub fn echoes(answer: &Message) -> bool {
    answer.word(ECHO_WORD) == ECHO
}

/// A request that cannot be served; its value is the errno word of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRequest {
    /// The type is not 97.
    #[error("message type {0} is not one that is served (97, omni, is)")]
    Kind(u32),
    /// Socket type and protocol do not fit, or are neither TCP nor UDP.
    #[error("socket type {0} with protocol {1} is not served")]
    Protocol(u32, u32),
    /// Neither 4 nor 6.
    #[error("address family {0} is not served")]
    Family(u32),
    /// None of RR, STREAM, MAERTS, or one that the protocol cannot do.
    #[error("direction {0} is not served")]
    Direction(u32),
    /// A size is zero, negative or beyond the limit.
    #[error("word {0}: a size of {1} is not served")]
    Size(usize, i32),
    /// Longer than a day, or nothing.
    #[error("a length of {0} is not served")]
    Length(i32),
    /// Not a port.
    #[error("data port {0} is not a port")]
    Port(u32),
}

impl BadRequest {
    /// The errno word that says so.
    #[must_use]
    pub fn errno(self) -> u32 {
        match self {
            Self::Protocol(..) | Self::Family(_) | Self::Direction(_) => errno::UNSUPPORTED,
            Self::Kind(_) | Self::Size(..) | Self::Length(_) | Self::Port(_) => errno::INVALID,
        }
    }
}

impl TestRequest {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// The first thing in it that cannot be served.
    pub fn decode(message: &Message) -> Result<Self, BadRequest> {
        if message.kind != kind::OMNI {
            return Err(BadRequest::Kind(message.kind));
        }
        let protocol = decode_protocol(message)?;
        let family = match message.word(request::FAMILY) {
            family if family == FAMILIES[0] => Family::V4,
            family if family == FAMILIES[1] => Family::V6,
            family => return Err(BadRequest::Family(family)),
        };
        let kind = decode_kind(message, protocol)?;
        let largest = match protocol {
            Protocol::Tcp => MESSAGE_MAX,
            Protocol::Udp => DATAGRAM_MAX,
        };
        let size = |word, default| decode_size(message, word, default, largest);
        // Of the calls' sizes only that of the server's own direction matters.
        let sends = size(request::SEND_SIZE, SEND_DEFAULT);
        let receives = decode_size(message, request::RECV_SIZE, RECEIVE_DEFAULT, MESSAGE_MAX);
        let (message_size, receive) = match kind {
            Kind::Receive => (sends?, receives.unwrap_or(RECEIVE_DEFAULT)),
            Kind::Send => (sends.unwrap_or(SEND_DEFAULT), receives?),
            Kind::RequestResponse | Kind::ConnectRequestResponse => {
                (sends.unwrap_or(SEND_DEFAULT), receives.unwrap_or(RECEIVE_DEFAULT))
            }
        };
        let port = message.word(request::DATA_PORT);
        Ok(Self {
            kind,
            protocol,
            family,
            request: size(request::REQUEST_SIZE, 1)?,
            response: size(request::RESPONSE_SIZE, 1)?,
            message: message_size,
            receive,
            send_buffer: decode_buffer(message, request::SEND_BUFFER),
            receive_buffer: decode_buffer(message, request::RECV_BUFFER),
            length: decode_length(message.signed(request::LENGTH))?,
            data_port: u16::try_from(port).map_err(|_| BadRequest::Port(port))?,
            echo: echoes(message),
        })
    }

    /// Writes a request as netperf does.
    #[must_use]
    pub fn encode(&self) -> Message {
        let mut message = Message::new(kind::OMNI, 0);
        let unset = |message: &mut Message, word| message.set_signed(word, -1);
        let buffer = |message: &mut Message, word, size: Option<usize>| match size {
            Some(size) => message.set_size(word, size),
            None => message.set_signed(word, -1),
        };
        buffer(&mut message, request::SEND_BUFFER, self.send_buffer);
        buffer(&mut message, request::RECV_BUFFER, self.receive_buffer);
        message.set_size(request::SEND_SIZE, self.message);
        message.set_size(request::RECV_SIZE, self.receive);
        for (word, value) in [
            (request::SEND_ALIGN, 8),
            (request::RECV_ALIGN, 8),
            (request::SEND_WIDTH, 1),
            (request::RECV_WIDTH, 1),
        ] {
            message.set(word, value);
        }
        match self.kind {
            Kind::RequestResponse | Kind::ConnectRequestResponse => {
                message.set_size(request::REQUEST_SIZE, self.request);
                message.set_size(request::RESPONSE_SIZE, self.response);
            }
            Kind::Send | Kind::Receive => {
                unset(&mut message, request::REQUEST_SIZE);
                unset(&mut message, request::RESPONSE_SIZE);
            }
        }
        message.set(request::FLAGS, self.flags());
        let length = match self.length {
            Length::Seconds(seconds) => i32::try_from(seconds).unwrap_or(i32::MAX),
            Length::Count(count) => -i32::try_from(count).unwrap_or(i32::MAX),
        };
        message.set_signed(request::LENGTH, length);
        for word in [
            request::SEND_DIRTY,
            request::RECV_DIRTY,
            request::RECV_CLEAN,
            request::PRIORITY,
            request::TOS,
        ] {
            unset(&mut message, word);
        }
        message.set(request::DATA_PORT, self.data_port.into());
        self.encode_sockets(&mut message);
        self.set_echo(&mut message);
        message
    }

    fn flags(&self) -> u32 {
        let common = flag::NO_DELAY | flag::MEASURE_CPU | flag::ROUTED;
        match self.kind {
            Kind::ConnectRequestResponse => common | flag::CONNECT,
            Kind::RequestResponse | Kind::Send | Kind::Receive => common,
        }
    }

    fn encode_sockets(&self, message: &mut Message) {
        let place = match self.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
        };
        message.set(request::SOCKET_TYPE, SOCKET_TYPES[place]);
        message.set(request::PROTOCOL, PROTOCOLS[place]);
        message.set(
            request::FAMILY,
            match self.family {
                Family::V4 => FAMILIES[0],
                Family::V6 => FAMILIES[1],
            },
        );
        message.set(
            request::DIRECTION,
            match self.kind {
                Kind::RequestResponse | Kind::ConnectRequestResponse => direction::RR,
                Kind::Send => direction::STREAM,
                Kind::Receive => direction::MAERTS,
            },
        );
    }

    /// The answer that grants the request.
    #[must_use]
    pub fn grant(&self, data_port: u16) -> Message {
        let mut message = Message::new(kind::OMNI_RESPONSE, 0);
        for (word, size) in [
            (response::RECV_BUFFER, self.receive_buffer),
            (response::SEND_BUFFER, self.send_buffer),
        ] {
            match size {
                Some(size) => message.set_size(word, size),
                None => message.set_signed(word, -1),
            }
        }
        message.set_size(response::RECV_SIZE, self.receive);
        message.set_size(response::SEND_SIZE, self.message);
        message.set(response::RECV_WIDTH, 1);
        message.set(response::SEND_WIDTH, 1);
        message.set(response::FLAGS, self.flags());
        let length = match self.length {
            Length::Seconds(length) | Length::Count(length) => length,
        };
        message.set(response::LENGTH, length);
        message.set(response::DATA_PORT, data_port.into());
        self.set_echo(&mut message);
        message
    }

    fn set_echo(&self, message: &mut Message) {
        if self.echo {
            message.set(ECHO_WORD, ECHO);
        }
    }
}

fn decode_protocol(message: &Message) -> Result<Protocol, BadRequest> {
    match (message.word(request::SOCKET_TYPE), message.word(request::PROTOCOL)) {
        (1, 0 | 6) => Ok(Protocol::Tcp),
        (2, 0 | 17) => Ok(Protocol::Udp),
        (socket, protocol) => Err(BadRequest::Protocol(socket, protocol)),
    }
}

fn decode_kind(message: &Message, protocol: Protocol) -> Result<Kind, BadRequest> {
    let connect = message.word(request::FLAGS) & flag::CONNECT != 0;
    match (message.word(request::DIRECTION), protocol) {
        (direction::RR, Protocol::Tcp) if connect => Ok(Kind::ConnectRequestResponse),
        (direction::RR, _) => Ok(Kind::RequestResponse),
        (direction::STREAM, _) => Ok(Kind::Send),
        (direction::MAERTS, Protocol::Tcp) => Ok(Kind::Receive),
        (other, _) => Err(BadRequest::Direction(other)),
    }
}

/// A size; -1 and 0 stand for the default.
fn decode_size(
    message: &Message,
    word: usize,
    default: usize,
    largest: usize,
) -> Result<usize, BadRequest> {
    match message.signed(word) {
        -1 | 0 => Ok(default),
        value => usize::try_from(value)
            .ok()
            .filter(|size| *size <= largest)
            .ok_or(BadRequest::Size(word, value)),
    }
}

fn decode_buffer(message: &Message, word: usize) -> Option<usize> {
    usize::try_from(message.signed(word)).ok().filter(|size| *size > 0)
}

fn decode_length(length: i32) -> Result<Length, BadRequest> {
    match length {
        0 => Err(BadRequest::Length(0)),
        1.. => u32::try_from(length)
            .ok()
            .filter(|seconds| *seconds <= LENGTH_S_MAX)
            .map(Length::Seconds)
            .ok_or(BadRequest::Length(length)),
        _ => Ok(Length::Count(length.unsigned_abs())),
    }
}

/// What a server found, as it goes over the wire.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ServerResults {
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Receive calls.
    pub receives: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Send calls.
    pub sends: u64,
    /// Transactions.
    pub transactions: u64,
    /// How long the test was.
    pub elapsed: Duration,
    /// CPU time that the server's end used, if it measured.
    pub cpu: Option<Duration>,
}

impl ServerResults {
    /// Writes results; `cpus` is the number of cpus that the CPU use is a part of.
    #[must_use]
    pub fn encode(&self, cpus: u32) -> Message {
        let low = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap_or(u32::MAX);
        let mut message = Message::new(kind::OMNI_RESPONSE, 0);
        message.set_long(results::BYTES_RECEIVED, self.bytes_received);
        message.set(results::RECEIVES, low(self.receives));
        message.set_signed(results::RECV_BUFFER, -1);
        message.set_long(results::BYTES_SENT, self.bytes_sent);
        message.set(results::SENDS, low(self.sends));
        message.set_signed(results::SEND_BUFFER, -1);
        message.set(results::TRANSACTIONS, low(self.transactions));
        let elapsed = self.elapsed.as_secs_f64();
        message.set_float(results::ELAPSED, elapsed);
        let percent = match self.cpu {
            Some(cpu) if elapsed > 0.0 => {
                100.0 * cpu.as_secs_f64() / elapsed / f64::from(cpus.max(1))
            }
            Some(_) | None => -1.0,
        };
        message.set_float(results::CPU, percent);
        message.set(results::CPUS, cpus);
        message
    }

    /// Reads results. The type word means nothing in them. Absurd floats are taken for none.
    ///
    /// # Errors
    /// The errno word, if it is not 0.
    pub fn decode(message: &Message) -> Result<Self, u32> {
        if message.errno != 0 {
            return Err(message.errno);
        }
        let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let elapsed = duration(message.float(results::ELAPSED).into()).unwrap_or_default();
        let cpus = f64::from(message.word(results::CPUS).max(1));
        let percent = f64::from(message.float(results::CPU));
        let cpu = duration(percent / 100.0 * cpus * elapsed.as_secs_f64());
        Ok(Self {
            bytes_received: message.long(results::BYTES_RECEIVED),
            receives: message.word(results::RECEIVES).into(),
            bytes_sent: message.long(results::BYTES_SENT),
            sends: message.word(results::SENDS).into(),
            transactions: message.word(results::TRANSACTIONS).into(),
            elapsed,
            cpu: cpu.filter(|_| percent > 0.0),
        })
    }
}

#[cfg(test)]
mod tests;
