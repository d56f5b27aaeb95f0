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
use crate::transport::{Manner, Pass, Ready, Transport};

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
    let mut list: Vec<usize> = (0..flows.len()).collect();
    let mut again = Vec::with_capacity(flows.len());
    let mut done = 0;
    let mut turns = 0_u32;
    while !recorder.is_over() {
        let mut pass = Pass::Idle;
        for &index in &list {
            let Some(flow) = flows.get_mut(index) else { continue };
            match flow.step(transport, recorder)? {
                Step::Moved | Step::Scheduled => {
                    pass = Pass::Busy;
                    again.push(index);
                }
                Step::Waiting => {}
                Step::Done => done += 1,
            }
        }
        if done >= flows.len() {
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
            break;
        }
        next_list(transport, pass, flows.len(), (&mut list, &mut again))?;
    }
    Ok(CpuTime(transport.cpu_ns().saturating_sub(cpu_start)))
}

/// Turns, then says which flows to step: all, or those that moved and those that became ready.
fn next_list<T: Transport>(
    transport: &mut T,
    pass: Pass,
    flows: usize,
    (list, again): (&mut Vec<usize>, &mut Vec<usize>),
) -> io::Result<()> {
    match transport.turn(pass, again)? {
        Ready::Any if list.len() == flows => again.clear(),
        Ready::Any => {
            again.clear();
            list.clear();
            list.extend(0..flows);
        }
        Ready::Listed => {
            again.sort_unstable();
            again.dedup();
            std::mem::swap(list, again);
            again.clear();
        }
    }
    Ok(())
}
