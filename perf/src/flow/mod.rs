//! The parts that tests are made of: what each end of a connection does, and the loop that steps
//! many of them over one transport. No part knows which stack it runs on, or which test.

mod connect;
mod exchange;
mod pipe;
mod stream;

use std::io;

pub use connect::{ConnectResponder, Connector};
pub use exchange::{Requester, Responder};
pub use pipe::{Peer, Pipe};
pub use stream::{Receiver, Sender};

use crate::pacing::Pacer;
use crate::recorder::Recorder;
use crate::transport::{Manner, Pass, Ready, Token, Transport};

/// A UDP request without an answer for so long is given up and counted as lost.
pub const LOST_AFTER_NS: u64 = 500_000_000;
/// The largest request, response or message.
pub const MESSAGE_MAX: usize = 16 << 20;
/// The largest UDP payload.
pub const DATAGRAM_MAX: usize = 65_507;
/// Connections of one run.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Requests under way on one connection.
pub const DEPTH_MAX: usize = 65_536;
/// What one step of one flow may do before the next flow has its turn.
const OPERATIONS_MAX: usize = 16;
/// A spinning loop looks at the clock once in so many idle turns.
const IDLE_TURNS: u32 = 64;

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

/// CPU time of this end over the counted part of a run, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTime(pub u64);

/// Steps all flows until the recorder says that the run is over. `watch` is called now and then.
///
/// # Errors
/// The first flow's failure.
pub fn run<T: Transport>(
    transport: &mut T,
    flows: &mut [Flow<T>],
    recorder: &mut Recorder,
    watch: &mut dyn FnMut(&Recorder),
) -> io::Result<CpuTime> {
    let spins = transport.manner() == Manner::Spins;
    let mut cpu_start = transport.cpu_ns();
    let mut counting = recorder.is_counting();
    let mut tokens: Vec<Token> = (0..flows.len()).collect();
    let over = vec![false; flows.len()];
    let mut stepper = Stepper { flows, list: Vec::with_capacity(tokens.len()), over, done: 0 };
    let mut pass = Pass::Busy;
    let mut turns = 0_u32;
    loop {
        pass = transport.turn_with(pass, &mut tokens, |transport, known, tokens| {
            stepper.step(transport, recorder, known, tokens)
        })?;
        if stepper.done >= stepper.flows.len() {
            recorder.end(transport.now_ns());
        }
        turns = turns.wrapping_add(1);
        if !spins || turns.is_multiple_of(IDLE_TURNS) {
            recorder.on_time(transport.now_ns());
            watch(recorder);
        }
        if !counting && recorder.is_counting() {
            counting = true;
            cpu_start = transport.cpu_ns();
        }
        if recorder.is_over() {
            return Ok(CpuTime(transport.cpu_ns().saturating_sub(cpu_start)));
        }
    }
}

/// Steps those flows that may have something to do.
struct Stepper<'a, T: Transport> {
    flows: &'a mut [Flow<T>],
    list: Vec<Token>,
    /// Which flows are done, and how many.
    over: Vec<bool>,
    done: usize,
}

impl<T: Transport> Stepper<'_, T> {
    /// One pass: all flows, or those listed. Those that moved are left in the list.
    #[inline]
    fn step(
        &mut self,
        transport: &mut T,
        recorder: &mut Recorder,
        known: Ready,
        tokens: &mut Vec<Token>,
    ) -> io::Result<Pass> {
        let mut pass = Pass::Idle;
        match known {
            Ready::Any => {
                tokens.clear();
                for index in 0..self.flows.len() {
                    self.step_one(index, (transport, &mut *recorder), &mut pass)?;
                }
            }
            Ready::Listed => {
                tokens.sort_unstable();
                tokens.dedup();
                std::mem::swap(&mut self.list, tokens);
                tokens.clear();
                for at in 0..self.list.len() {
                    let Some(&index) = self.list.get(at) else { break };
                    if self.step_one(index, (transport, &mut *recorder), &mut pass)? {
                        tokens.push(index);
                    }
                }
            }
        }
        Ok(pass)
    }

    /// Steps one flow; returns whether it is to be stepped again.
    #[inline]
    fn step_one(
        &mut self,
        index: usize,
        (transport, recorder): (&mut T, &mut Recorder),
        pass: &mut Pass,
    ) -> io::Result<bool> {
        let (Some(flow), Some(over)) = (self.flows.get_mut(index), self.over.get_mut(index)) else {
            return Ok(false);
        };
        if *over {
            return Ok(false);
        }
        match flow.step(transport, recorder)? {
            Step::Moved | Step::Scheduled => {
                *pass = Pass::Busy;
                Ok(true)
            }
            Step::Waiting => Ok(false),
            Step::Done => {
                *over = true;
                self.done += 1;
                Ok(false)
            }
        }
    }
}
