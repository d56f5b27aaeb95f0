//! TCP, RFC 9293: all connections of one worker.
//!
//! - [`Tcp`] is the table: `calls` and `socket_options` have what applications call, `input` what
//!   IP hands up, `output` what goes down.
//! - A connection is `connection` (its state and the application's side), `sender`, `receiver`
//!   and the queues; `fast_path`, `segment` and `acknowledgment` take segments in, `emit` and
//!   `burst` make them, `timeout` handles timers, `handshake` opens.
//! - [`congestion`], [`recovery`], [`rtt`], [`reassembly`], [`timers`] are leaves without
//!   knowledge of each other.
//!
//! Every operation on a connection ends in `Tcp::settle`, which is where its timers, events and
//! its place in the ready queue are brought up to date.

mod acknowledgment;
mod burst;
mod calls;
mod config;
pub mod congestion;
mod connection;
mod counters;
mod demux;
mod ecn;
mod emit;
mod error;
mod fast_path;
mod handshake;
#[cfg(test)]
mod hot_lines;
mod info;
mod input;
mod isn;
mod listener;
pub mod options;
mod output;
mod ranges;
mod ready;
pub mod reassembly;
mod receive_queue;
mod receiver;
pub mod recovery;
mod reply;
pub mod rtt;
mod segment;
mod send_queue;
mod sender;
pub mod seq;
mod socket_options;
mod state;
mod template;
mod time_wait;
mod timeout;
pub mod timers;
mod tuple;
mod zero_copy;

use alloc::collections::VecDeque;

pub use calls::Event;
pub use config::{KeepAlive, TcpConfig};
pub use connection::{Connection, Readiness};
pub use counters::TcpCounters;
pub use ecn::EcnMode;
pub use error::{ConnectError, ConnectionError, ListenError, ReceiveError, SendError};
pub use info::TcpInfo;
pub(crate) use input::{FramePieces, SegmentBytes};
pub use listener::Listener;
pub(crate) use output::EXPECTED_CHECKSUM;
pub use socket_options::TcpOption;
pub use state::TcpState;
pub use tuple::FourTuple;
pub use zero_copy::{Kept, Most, Taken, Taker};

use calls::Listed;
use connection::{Context, Ownership};
use demux::{Demux, Endpoint};
use isn::Secrets;
use listener::Listeners;
use ready::ReadyQueue;
use reply::{Replies, Reply};
use segment::Disposition;
use state::State;
use time_wait::{TimeWait, TimeWaits};
use timers::TimerWheel;

use crate::frame::Offloads;
use crate::memory::Memory;
use crate::slab::{Id, Slab};
use crate::time::Instant;
use crate::wire::tcp::TcpFlags;

/// Connections looked at in one go when receive buffers run low.
const COMPACTED_AT_ONCE: u32 = 64;

/// TCP of one worker.
pub struct Tcp {
    /// Index of the connection that the last segment was for.
    last_hit: u32,
    offloads: Offloads,
    connections: Slab<Connection>,
    counters: TcpCounters,
    ready: ReadyQueue,
    wheel: TimerWheel,
    demux: Demux,
    listeners: Listeners,
    time_waits: TimeWaits,
    replies: Replies,
    /// Connections whose neighbour is not resolved, and since which generation they wait; and
    /// those whose retransmission waits for the device.
    unresolved: VecDeque<u32>,
    unresolved_since: u32,
    /// When one of them came to wait for the device instead; `NEVER` if none does.
    deferred_at: Instant,
    events: VecDeque<Listed>,
    secrets: Secrets,
    /// RFC 6056 algorithm 3: counts ports given out.
    port_counter: u32,
    /// Where the next search for connections that hold receive buffers begins.
    compaction_hand: u32,
    config: TcpConfig,
}

impl Tcp {
    /// A TCP without connections. `key` is secret and random; `worker` goes into every id.
    #[must_use]
    pub fn new(config: TcpConfig, key: [u8; 16], worker: u8, now: Instant) -> Tcp {
        let secrets = Secrets::derive(key);
        Tcp {
            last_hit: 0,
            offloads: Offloads::default(),
            connections: Slab::new(config.connections_max, worker),
            counters: TcpCounters::default(),
            ready: ReadyQueue::default(),
            wheel: TimerWheel::new(config.connections_max, now),
            demux: Demux::new(secrets.demux),
            listeners: Listeners::new(config.listeners_max, worker),
            time_waits: TimeWaits::new(config.time_wait_max, worker),
            replies: Replies::default(),
            unresolved: VecDeque::new(),
            unresolved_since: 0,
            deferred_at: Instant::NEVER,
            events: VecDeque::new(),
            secrets,
            port_counter: 0,
            compaction_hand: 0,
            config,
        }
    }

    /// What the device can do; connections opened from now on make use of it.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> TcpCounters {
        // What was predicted is counted once.
        let segments_received = self.counters.segments_received + self.counters.predicted;
        TcpCounters { segments_received, ..self.counters }
    }

    /// Number of connections, TIME-WAIT not counted.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.len()
    }

    /// Number of compact TIME-WAITs.
    #[must_use]
    pub fn time_waits(&self) -> u32 {
        self.time_waits.len()
    }

    /// The connection at an index and what it works with.
    #[inline(always)]
    fn at<'a, M: Memory>(
        &'a mut self,
        index: u32,
        now: Instant,
        mem: &'a mut M,
    ) -> Option<(&'a mut Connection, Context<'a, M>)> {
        let connection = self.connections.at_mut(index)?;
        let ctx = Context {
            now,
            mem,
            config: &self.config,
            counters: &mut self.counters,
            offloads: &self.offloads,
        };
        Some((connection, ctx))
    }

    /// After an operation: timers, events and the ready queue.
    fn settle(&mut self, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        let wants = !connection.queued && connection.wants_to_send();
        if wants {
            connection.queued = true;
            self.ready.push_back(index);
        }
        if connection.reschedule || !connection.watch.pending.is_empty() {
            self.settle_rest(index);
        }
    }

    /// Timers and events.
    fn settle_rest(&mut self, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        if connection.reschedule {
            connection.reschedule = false;
            connection.scheduled = connection.timers.earliest();
            self.wheel.arm(index, connection.scheduled);
        }
        if !connection.watch.pending.is_empty() && !connection.watch.listed {
            connection.watch.listed = true;
            self.events.push_back(Listed::Connection(index));
        }
    }

    /// Does what a segment or timer demands.
    fn perform<M: Memory>(
        &mut self,
        index: u32,
        disposition: Disposition,
        now: Instant,
        mem: &mut M,
    ) {
        match disposition {
            Disposition::Done | Disposition::Reset => {}
            Disposition::Accepted => self.accept_ready(index, mem),
            Disposition::Forget => self.forget(index, mem),
            Disposition::Finished => self.finish(index, mem),
            Disposition::TimeWait => self.compact_time_wait(index, now, mem),
            Disposition::Fail(error) => self.fail(index, error, mem),
            Disposition::Abort(error) => {
                self.reset_peer(index);
                self.fail(index, error, mem);
            }
        }
        self.settle(index);
    }

    /// A passive open is complete: into the accept queue of its listener.
    fn accept_ready<M: Memory>(&mut self, index: u32, mem: &mut M) {
        let Some(id) = self.connections.id_at(index) else { return };
        let Some(connection) = self.connections.at_mut(index) else { return };
        let listener_id = connection.listener.take();
        let listener = listener_id.and_then(|listener| self.listeners.get_mut(listener));
        let Some(listener) = listener else {
            // Nobody listens any more: the peer is told.
            self.reset_peer(index);
            self.forget(index, mem);
            return;
        };
        self.counters.passive_opens += 1;
        listener.half_open = listener.half_open.saturating_sub(1);
        listener.accepted.push_back(id);
        let wanted = Readiness::READABLE.intersection(listener.watch.interest);
        listener.watch.pending = listener.watch.pending.union(wanted);
        if !wanted.is_empty() && !listener.watch.listed {
            listener.watch.listed = true;
            if let Some(listener_id) = listener_id {
                self.events.push_back(Listed::Listener(listener_id.index()));
            }
        }
    }

    /// Tells the peer by a reset that the connection is over.
    fn reset_peer(&mut self, index: u32) {
        let Some(connection) = self.connections.at(index) else { return };
        let reply = Reply {
            tuple: connection.tuple,
            seq: connection.snd.nxt,
            ack: connection.rcv.nxt,
            flags: TcpFlags::RST.with(TcpFlags::ACK),
            window: 0,
            timestamps: None,
            marking: connection.snd.template.marking(),
        };
        self.counters.resets_sent += 1;
        self.reply(reply);
    }

    fn reply(&mut self, reply: Reply) {
        if !self.replies.push(reply) {
            self.counters.replies_dropped += 1;
        }
    }

    /// Takes a connection out of the demultiplexer and the wheel.
    fn detach(&mut self, index: u32) {
        self.wheel.remove(index);
        if let Some(connection) = self.connections.at_mut(index) {
            connection.scheduled = Instant::NEVER;
            connection.reschedule = false;
            if core::mem::take(&mut connection.in_demux) {
                self.demux.remove(&connection.tuple, Endpoint::Connection(index));
            }
        }
    }

    /// Removes every trace of a connection.
    fn forget<M: Memory>(&mut self, index: u32, mem: &mut M) {
        self.detach(index);
        let Some(mut connection) = self.connections.remove_at(index) else { return };
        connection.release(false, mem);
        if let Some(listener) = connection.listener.and_then(|id| self.listeners.get_mut(id)) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    /// Both ends have closed, or the connection is over without error.
    fn finish<M: Memory>(&mut self, index: u32, mem: &mut M) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        if connection.ownership == Ownership::Orphan {
            self.forget(index, mem);
            return;
        }
        connection.state = State::Closed;
        connection.release(true, mem);
        connection.notify(Readiness::READABLE.union(Readiness::WRITABLE));
        self.detach(index);
    }

    fn fail<M: Memory>(&mut self, index: u32, error: ConnectionError, mem: &mut M) {
        self.counters.aborted += 1;
        let Some(connection) = self.connections.at_mut(index) else { return };
        match connection.ownership {
            Ownership::Orphan => self.forget(index, mem),
            Ownership::Unaccepted if connection.listener.is_some() => self.forget(index, mem),
            Ownership::Unaccepted | Ownership::Held => {
                connection.fail(error, mem);
                self.detach(index);
            }
        }
    }

    /// An orphan in TIME-WAIT needs no more than the compact form.
    fn compact_time_wait<M: Memory>(&mut self, index: u32, now: Instant, mem: &mut M) {
        let Some(connection) = self.connections.at(index) else { return };
        if connection.ownership != Ownership::Orphan || connection.wants_to_send() {
            // The acknowledgement of the peer's FIN goes out first.
            return;
        }
        let lasts = self.config.msl.saturating_mul(2);
        let entry = TimeWait::of(connection, now, lasts);
        let tuple = connection.tuple;
        self.forget(index, mem);
        self.insert_time_wait(entry, &tuple);
    }

    fn insert_time_wait(&mut self, mut entry: TimeWait, tuple: &FourTuple) {
        loop {
            match self.time_waits.insert(entry) {
                Ok(at) => {
                    let (connections, time_waits) = (&self.connections, &self.time_waits);
                    let tuple_of = |endpoint| tuple_of(connections, time_waits, endpoint);
                    self.demux.insert(tuple, Endpoint::TimeWait(at), tuple_of);
                    return;
                }
                Err(again) => {
                    entry = again;
                    let Some(oldest) = self.time_waits.oldest() else { return };
                    self.counters.time_waits_evicted += 1;
                    self.remove_time_wait(oldest);
                }
            }
        }
    }

    fn remove_time_wait(&mut self, index: u32) {
        if let Some(entry) = self.time_waits.remove(index) {
            self.demux.remove(&entry.tuple, Endpoint::TimeWait(index));
        }
    }

    /// The endpoint of a tuple.
    fn find(&self, tuple: &FourTuple) -> Option<Endpoint> {
        let (connections, time_waits) = (&self.connections, &self.time_waits);
        self.demux.find(tuple, |endpoint| tuple_of(connections, time_waits, endpoint))
    }

    /// Adds a connection to the tables; `Err` if there are too many.
    fn add(&mut self, connection: Connection) -> Result<Id<Connection>, ()> {
        let tuple = connection.tuple;
        let id = self.connections.insert(connection).map_err(|_full| ())?;
        if let Some(connection) = self.connections.at_mut(id.index()) {
            connection.in_demux = true;
        }
        let (connections, time_waits) = (&self.connections, &self.time_waits);
        let tuple_of = |endpoint| tuple_of(connections, time_waits, endpoint);
        self.demux.insert(&tuple, Endpoint::Connection(id.index()), tuple_of);
        Ok(id)
    }
}

fn tuple_of(
    connections: &Slab<Connection>,
    time_waits: &TimeWaits,
    endpoint: Endpoint,
) -> Option<FourTuple> {
    match endpoint {
        Endpoint::Connection(index) => connections.at(index).map(|connection| connection.tuple),
        Endpoint::TimeWait(index) => time_waits.at(index).map(|entry| entry.tuple),
    }
}
