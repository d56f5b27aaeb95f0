//! One connection: what it knows, and what the application can do with it. How it answers
//! segments is in `segment` and `fast_path`, how it makes them in `sender` and `emit`.
//!
//! Invariants: `snd.una <= snd.nxt`; the send queue begins at `snd.una` (one later while our SYN
//! is unacknowledged); `fast` is true only while nothing unusual is going on.

use alloc::boxed::Box;

use super::config::{KeepAlive, TcpConfig};
use super::counters::TcpCounters;
use super::ecn::Ecn;
use super::error::{ConnectionError, ReceiveError, SendError};
use super::fast_path::EXPECTED_HEADERS_LEN;
#[cfg(test)]
use super::hot_lines::{Place, places};
use super::listener::Listener;
use super::receiver::{AckDue, Receiver};
use super::send_queue::WriteLayout;
use super::sender::Sender;
use super::state::State;
use super::timers::{Timer, TimerSet};
use super::tuple::FourTuple;
use crate::frame::Offloads;
use crate::memory::Memory;
use crate::slab::Id;
use crate::time::{Duration, Instant};
use crate::wire::prediction::FlowV4;
#[cfg(test)]
use alloc::vec::Vec;

/// What every operation on a connection works with.
pub(super) struct Context<'a, M: Memory> {
    pub(super) now: Instant,
    pub(super) mem: &'a mut M,
    pub(super) config: &'a TcpConfig,
    pub(super) counters: &'a mut TcpCounters,
    pub(super) offloads: &'a Offloads,
}

/// What may be waited for, and what has come: bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// A read, or an accept, would not block.
    pub const READABLE: Readiness = Readiness(1);
    /// A write would not block, or the connection was established or ended.
    pub const WRITABLE: Readiness = Readiness(2);

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Readiness) -> Readiness {
        Readiness(self.0 & other.0)
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is there.
    #[must_use]
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Who listens to the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// What somebody waits for.
    pub(super) interest: Readiness,
    /// What has come and was not yet reported.
    pub(super) pending: Readiness,
    /// In the queue of events.
    pub(super) listed: bool,
}

/// Whether the application is told of errors that end nothing yet (RFC 9293 §3.9.1.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SoftReport {
    /// It did not ask for that.
    Off,
    /// There is nothing to tell.
    Nothing,
    /// The latest one, not yet told.
    Due(ConnectionError),
}

/// Whether the application still holds the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ownership {
    /// It waits in an accept queue, or has not got there yet.
    Unaccepted,
    /// The application holds it.
    Held,
    /// The application let it go; it ends when both sides have closed.
    Orphan,
}

/// A TCP connection. What the fast path touches lies in one row, from the end of `snd` to the
/// beginning of `rcv`; `hot_lines` asserts in how many cache lines.
#[repr(C)]
pub struct Connection {
    /// Challenge ACKs sent in the second that began here: `challenge_acks`.
    pub(super) challenge_since: Instant,
    pub(super) snd: Sender,
    pub(super) timers: TimerSet,
    pub(super) expectation: FlowV4,
    /// When the wheel will look at this connection.
    pub(super) scheduled: Instant,
    pub(super) fast: bool,
    /// In the ready queue.
    pub(super) queued: bool,
    /// A timer was set to before `scheduled`.
    pub(super) reschedule: bool,
    pub(super) watch: Watch,
    pub(super) ownership: Ownership,
    /// Found by its four-tuple.
    pub(super) in_demux: bool,
    pub(super) rcv: Receiver,
    pub(super) tuple: FourTuple,
    pub(super) ecn: Ecn,
    pub(super) error: Option<ConnectionError>,
    pub(super) state: State,
    /// The listener that a half-open connection counts towards.
    pub(super) listener: Option<Id<Listener>>,
    /// Last ICMP error that was not fatal (RFC 9293 §3.9.2.2); told when the connection times out.
    pub(super) soft_error: Option<ConnectionError>,
    pub(super) soft_report: SoftReport,
    pub(super) keep_alive_probes_sent: u8,
    pub(super) challenge_acks: u8,
    /// In a box, since few connections have it and an idle one is to be small.
    pub(super) keep_alive: Option<Box<KeepAlive>>,
    pub(super) user_timeout: Option<Duration>,
}

#[cfg(test)]
impl Connection {
    /// What the fast path touches in each transaction, besides what its parts say of themselves.
    pub(super) fn hot() -> Vec<Place> {
        places!(Connection: expectation, scheduled, fast, queued, reschedule, watch)
    }
}

/// How the application closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The connection goes on until both sides have closed.
    Graceful,
    /// It must be reset at once.
    Abortive,
    /// Nothing is left of it.
    Gone,
}

impl Connection {
    /// A connection in an opening state.
    pub(super) fn new(tuple: FourTuple, state: State, snd: Sender, rcv: Receiver) -> Connection {
        Connection {
            fast: false,
            queued: false,
            in_demux: false,
            reschedule: false,
            state,
            ecn: Ecn::default(),
            ownership: Ownership::Held,
            watch: Watch::default(),
            expectation: FlowV4::default(),
            rcv,
            snd,
            timers: TimerSet::new(),
            scheduled: Instant::NEVER,
            tuple,
            listener: None,
            error: None,
            soft_error: None,
            soft_report: SoftReport::Off,
            keep_alive: None,
            keep_alive_probes_sent: 0,
            user_timeout: None,
            challenge_acks: 0,
            challenge_since: Instant::ZERO,
        }
    }

    /// Arms a timer; the wheel learns of it after the operation.
    #[inline]
    pub(super) fn arm(&mut self, timer: Timer, at: Instant) {
        self.timers.arm(timer, at);
        if at < self.scheduled {
            self.reschedule = true;
        }
    }

    /// Whether timers, events or the ready queue must learn of this connection, which is on the
    /// fast path.
    #[inline(always)]
    pub(super) fn is_unsettled(&self) -> bool {
        let due = self.rcv.ack == AckDue::Now || self.snd.unsent() > 0;
        self.reschedule || !self.watch.pending.is_empty() || (!self.queued && due)
    }

    /// Says that something may now be read or written.
    #[inline]
    pub(super) fn notify(&mut self, readiness: Readiness) {
        self.watch.pending = self.watch.pending.union(readiness.intersection(self.watch.interest));
    }

    /// Whether the fast path may take this connection's segments; asked again after everything
    /// that may change the answer.
    pub(super) fn refresh_fast(&mut self) {
        let expectation = self.snd.template.expectation();
        self.expectation = expectation.unwrap_or_default();
        self.fast = expectation.is_some()
            && self.state == State::Established
            && self.rcv.reassembly.is_empty()
            && self.rcv.urgent.is_none()
            && self.snd.urgent.is_none()
            && self.snd.recovery.is_open_and_clean()
            && !self.ecn.is_busy()
            && !self.timers.is_armed(Timer::Persist)
            && self.keep_alive_probes_sent == 0;
    }

    /// Takes all of `data` if it is one small write in the plainest state; otherwise does nothing.
    #[inline(always)]
    pub(super) fn send_lone<M: Memory>(&mut self, data: &[u8], mem: &mut M) -> Option<usize> {
        if !self.fast {
            return None;
        }
        self.snd.queue.write_lone(data, EXPECTED_HEADERS_LEN, mem)
    }

    /// Copies bytes into the send queue.
    pub(super) fn send<M: Memory>(&mut self, data: &[u8], mem: &mut M) -> Result<usize, SendError> {
        if let Some(n) = self.send_lone(data, mem) {
            return Ok(n);
        }
        if !self.state.may_send() {
            return Err(self.send_refusal());
        }
        let all_sent = self.snd.queue.len() == self.snd.in_flight();
        let layout = WriteLayout { all_sent, ..self.snd.layout };
        let n = self.snd.queue.write(data, self.snd.limit, layout, mem);
        if n == 0 && !data.is_empty() { Err(SendError::WouldBlock) } else { Ok(n) }
    }

    #[cold]
    pub(super) fn send_refusal(&self) -> SendError {
        match (self.error, self.state.is_opening()) {
            (Some(error), _) => SendError::Connection(error),
            (None, true) => SendError::NotConnected,
            (None, false) => SendError::BrokenPipe,
        }
    }

    /// Copies out all received bytes if they are one piece that fits; otherwise does nothing.
    #[inline(always)]
    pub(super) fn receive_lone<M: Memory>(&mut self, out: &mut [u8], mem: &mut M) -> Option<usize> {
        let n = self.rcv.queue.read_lone(out, mem)?;
        self.rcv.on_read();
        Some(n)
    }

    /// Copies received bytes out. `Ok(0)` is the end of the stream, unless `out` is empty.
    pub(super) fn receive<M: Memory>(
        &mut self,
        out: &mut [u8],
        mem: &mut M,
    ) -> Result<usize, ReceiveError> {
        let n = self.rcv.queue.read(out, mem);
        if n > 0 {
            self.rcv.on_read();
            return Ok(n);
        }
        if out.is_empty() { Ok(0) } else { self.receive_nothing() }
    }

    /// What a read says when no byte is there.
    pub(super) fn receive_nothing(&mut self) -> Result<usize, ReceiveError> {
        if let Some(error) = self.error {
            // Whoever has read all that the peer sent before it closed has lost nothing if it is
            // gone then; a reset is told (RFC 9293 §3.10.7.4).
            return match error {
                ConnectionError::LinkLost if self.rcv.has_ended() => Ok(0),
                error => Err(ReceiveError::Connection(error)),
            };
        }
        match self.state {
            State::SynSent | State::SynReceived(_) => Err(ReceiveError::NotConnected),
            State::Established | State::FinWait1 | State::FinWait2 if !self.rcv.shut => {
                Err(ReceiveError::WouldBlock)
            }
            _ => Ok(0),
        }
    }

    /// Something went wrong that may mend itself: it is told when the connection gives up, and
    /// before that to an application that asked for it.
    #[cold]
    pub(super) fn note_soft_error(&mut self, error: ConnectionError) {
        self.soft_error = Some(error);
        self.report_soft_error(error);
    }

    pub(super) fn report_soft_error(&mut self, error: ConnectionError) {
        if self.soft_report != SoftReport::Off {
            self.soft_report = SoftReport::Due(error);
            // Whoever waits may look: both, as with the kernel's POLLERR.
            self.notify(Readiness::READABLE.union(Readiness::WRITABLE));
        }
    }

    /// The peer was heard of: what went wrong has mended itself. What is not told yet still is.
    pub(super) fn forget_soft_error(&mut self) {
        self.soft_error = None;
        self.snd.path_doubted = false;
    }

    /// The error that ended the connection, which stays, or the latest soft one, once.
    pub(super) fn take_error(&mut self) -> Option<ConnectionError> {
        match self.soft_report {
            SoftReport::Due(soft) if self.error.is_none() => {
                self.soft_report = SoftReport::Nothing;
                Some(soft)
            }
            SoftReport::Off | SoftReport::Nothing | SoftReport::Due(_) => self.error,
        }
    }

    /// What could be done now without blocking.
    pub(super) fn readiness(&self) -> Readiness {
        let mut ready = Readiness::NONE;
        let ended = self.state == State::Closed || self.error.is_some();
        let eof = !self.state.may_receive() && !self.state.is_opening();
        if ended || eof || self.rcv.shut || self.rcv.queue.len() > 0 {
            ready = ready.union(Readiness::READABLE);
        }
        let shut = !self.state.may_send() && !self.state.is_opening();
        if ended || shut || (self.state.may_send() && self.snd.has_room()) {
            ready = ready.union(Readiness::WRITABLE);
        }
        ready
    }

    /// The application writes no more: a FIN follows what is queued.
    pub(super) fn shutdown_write(&mut self) {
        let next = match self.state {
            State::Established | State::SynReceived(_) => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return,
        };
        self.snd.queue_fin();
        // In SYN-RECEIVED the FIN waits for the handshake's end (RFC 9293 §3.10.4).
        if !matches!(self.state, State::SynReceived(_)) {
            self.state = next;
        }
        self.fast = false;
    }

    /// The application lets go of the connection (RFC 9293 §3.10.4); unread data means that the
    /// peer must be told by a reset (RFC 2525 §2.17).
    pub(super) fn close(&mut self, now: Instant, config: &TcpConfig) -> Ending {
        match self.state {
            State::Closed | State::SynSent => return Ending::Gone,
            _ if self.rcv.queue.len() > 0 && self.state != State::TimeWait => {
                return Ending::Abortive;
            }
            State::FinWait2 => self.arm(Timer::TimeWait, now + config.fin_wait_2),
            _ => self.shutdown_write(),
        }
        self.ownership = Ownership::Orphan;
        if self.snd.wnd < self.snd.in_flight().max(1) {
            // From here on a window that stays shut counts towards R2.
            self.snd.outstanding_since = now;
        }
        self.watch = Watch { listed: self.watch.listed, ..Watch::default() };
        Ending::Graceful
    }

    /// Gives all buffers back; nothing is sent from here on. Unread data stays when `keep_unread`.
    pub(super) fn release<M: Memory>(&mut self, keep_unread: bool, mem: &mut M) {
        self.snd.queue.clear(mem);
        self.rcv.reassembly.clear(mem);
        if !keep_unread {
            self.rcv.queue.clear(mem);
        }
        self.timers.disarm_all();
        self.fast = false;
    }

    /// Ends the connection with an error, for good. Data that came in order stays readable.
    pub(super) fn fail<M: Memory>(&mut self, error: ConnectionError, mem: &mut M) {
        self.error = Some(error);
        self.state = State::Closed;
        self.release(true, mem);
        self.notify(Readiness::READABLE.union(Readiness::WRITABLE));
    }

    /// Turns keep-alive on or off.
    pub(super) fn set_keep_alive(&mut self, keep_alive: Option<KeepAlive>, now: Instant) {
        self.keep_alive = keep_alive.map(Box::new);
        match keep_alive {
            Some(keep_alive) if self.state.is_synchronized() => {
                self.arm(Timer::KeepAlive, now + keep_alive.idle);
            }
            _ => self.timers.disarm(Timer::KeepAlive),
        }
    }

    /// Bytes up to the urgent mark that were not yet read.
    pub(super) fn urgent_offset(&self) -> Option<u32> {
        let first_unread = self.rcv.nxt.minus(self.rcv.queue.len());
        self.rcv.urgent.filter(|up| up.after(first_unread)).map(|up| first_unread.distance_to(up))
    }

    /// Whether a challenge ACK may be sent now (RFC 5961 §7): so many a second.
    pub(super) fn may_challenge(&mut self, now: Instant, limit: u8) -> bool {
        if now.since(self.challenge_since) >= Duration::from_secs(1) {
            self.challenge_since = now;
            self.challenge_acks = 0;
        }
        let allowed = self.challenge_acks < limit;
        self.challenge_acks = self.challenge_acks.saturating_add(u8::from(allowed));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::Connection;

    /// Of the table's entry besides the connection: its generation. Of the timer wheel: 24 bytes
    /// a connection. Of the demultiplexer: an index and a control byte, at 7/8 load at most, in a
    /// table that may just have doubled.
    const TABLES: usize = 8 + 24 + 2 * (8 + 1) * 8 / 7 + 1;

    #[test]
    fn an_idle_connection_takes_at_most_a_kibibyte_besides_its_buffers() {
        let bytes = size_of::<Connection>() + TABLES;
        assert!(bytes <= 1024, "{bytes} bytes");
    }
}
