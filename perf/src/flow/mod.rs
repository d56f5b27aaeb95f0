//! The parts that tests are made of: what each end of a connection does, and the loop that steps
//! many of them over one transport. No part knows which stack it runs on, or which test.

mod connect;
mod exchange;
mod pipe;
mod respond;
mod run;
mod stream;
mod under_way;

use std::io;

pub use connect::{ConnectResponder, Connector};
pub use exchange::Requester;
pub use pipe::{Peer, Pipe};
pub use respond::Responder;
pub use run::{CpuTime, Run, run};
pub use stream::{Receiver, Sender};
pub use under_way::tag_bytes;

use crate::pacing::Pacer;
use crate::recorder::Recorder;
use crate::transport::Transport;

/// A UDP request without an answer for so long is given up and counted as lost: its own answer if
/// answers say whose they are ([`tag_bytes`]), otherwise any.
pub const LOST_AFTER_NS: u64 = 500_000_000;
/// The largest request, response or message.
pub const MESSAGE_MAX: usize = 16 << 20;
/// The largest UDP payload.
pub const DATAGRAM_MAX: usize = 65_507;
/// Connections of one run.
pub const CONNECTIONS_MAX: usize = crate::server::SESSIONS_MAX;
/// Requests under way on one connection.
pub const DEPTH_MAX: usize = 65_536;
/// What one step of one flow may do before the next flow has its turn.
const OPERATIONS_MAX: usize = 16;

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Something moved, and more may be possible at once.
    Moved,
    /// Nothing more until the transport says that something is ready.
    Waiting,
    /// Nothing more until a time that only the flow knows.
    Scheduled,
    /// The other end has finished.
    Done,
}

/// Sizes and pace of requests.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Bytes of a request; at least 1.
    pub request: usize,
    /// Bytes of a response; at least 1.
    pub response: usize,
    /// Requests under way at once.
    pub depth: usize,
    /// Open loop, if any.
    pub pacer: Option<Pacer>,
    /// Requests in all, if bounded.
    pub issue_max: Option<u64>,
    /// Whether the other end returns the first bytes of a datagram.
    pub echoes: bool,
}

/// One end of one connection.
#[derive(Debug)]
pub enum Flow<T: Transport> {
    /// Client of an RR test.
    Request(Requester<T>),
    /// Server of an RR test.
    Respond(Responder<T>),
    /// Client of a CRR test.
    Connect(Connector<T>),
    /// Server of a CRR test.
    ConnectRespond(ConnectResponder<T>),
    /// The end that sends a stream.
    Send(Sender<T>),
    /// The end that receives a stream.
    Receive(Receiver<T>),
}

impl<T: Transport> Flow<T> {
    /// Does what can be done now.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn step(&mut self, transport: &mut T, recorder: &mut Recorder) -> io::Result<Step> {
        match self {
            Self::Request(flow) => flow.step(transport, recorder),
            Self::Respond(flow) => flow.step(transport, recorder),
            Self::Connect(flow) => flow.step(transport, recorder),
            Self::ConnectRespond(flow) => flow.step(transport, recorder),
            Self::Send(flow) => flow.step(transport, recorder),
            Self::Receive(flow) => flow.step(transport, recorder),
        }
    }

    /// Notes the time; returns whether that gave the flow something to do. Only flows that say so
    /// by [`Flow::keeps_time`] need it.
    fn on_time(&mut self, now_ns: u64, recorder: &mut Recorder) -> bool {
        match self {
            Self::Request(flow) => flow.on_time(now_ns, recorder),
            Self::Respond(_)
            | Self::Connect(_)
            | Self::ConnectRespond(_)
            | Self::Send(_)
            | Self::Receive(_) => false,
        }
    }

    /// Whether time alone can give the flow something to do: an answer may be lost.
    fn keeps_time(&self) -> bool {
        matches!(self, Self::Request(flow) if flow.pipe.is_datagram())
    }

    /// Ends the connection in order, as far as there is one.
    ///
    /// # Errors
    /// If the other end does not close within `limit_ns`.
    pub fn finish(&mut self, transport: &mut T, limit_ns: u64) -> io::Result<()> {
        match self {
            Self::Request(flow) => flow.pipe.finish(transport, limit_ns),
            Self::Send(flow) => flow.pipe.finish(transport, limit_ns),
            Self::Receive(flow) => flow.pipe.finish(transport, limit_ns),
            Self::Respond(_) | Self::Connect(_) | Self::ConnectRespond(_) => Ok(()),
        }
    }
}
