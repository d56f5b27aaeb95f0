//! The core of a worker: stack and port, and what a turn does with them.

use std::net::SocketAddr;

use roceway_busypoll::{Armed, Progress, Work};
use roceway_rdma_virtio::nic::{self, Nic, NicEvent};
use roceway_stack::memory::Memory;
use roceway_stack::slab::Id;
use roceway_stack::stack::Stack;
use roceway_stack::tcp::{Connection, SendError};
use roceway_stack::time::{Duration, Instant};
use roceway_stack::udp::{UdpError, UdpId};

use crate::memory::StackMemory;
use crate::offload::OffloadsInUse;
use crate::port::Port;

/// Reasons for attention: work is expected; pieces are lent.
const EXPECTS: u8 = 1;
const LENDS: u8 = 2;

/// Timers have a resolution of a millisecond: looking at them more often than this buys nothing.
const TIMERS_PERIOD: Duration = Duration::from_micros(50);

/// What happened to the device while the worker ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) link_up: u64,
    pub(crate) link_down: u64,
    pub(crate) peers_gone: u64,
    pub(crate) hosts_gone: u64,
    pub(crate) device_removed: u64,
    pub(crate) device_errors: u64,
}

/// Stack and port. One thread at a time holds it.
pub(crate) struct Core {
    pub(crate) stack: Stack,
    pub(crate) port: Port,
    /// Time of the turn under way, or of the last one.
    pub(crate) now: Instant,
    pub(crate) link: LinkCounters,
    /// Why a turn may have something to do that the queues do not show: bits.
    attention: u8,
    /// Bytes copied instead of lent, since too many slots were with applications.
    pub(crate) lends_copied: u64,
    /// A turn is under way: `now` is the present.
    in_turn: bool,
    /// Not before this time are timers looked at again.
    timers_looked_at: Instant,
    /// The device is broken for good, and why.
    pub(crate) broken: Option<String>,
    /// Offloads that were agreed on.
    pub(crate) offloads: OffloadsInUse,
}

impl Core {
    /// A core that has not turned yet.
    pub(crate) fn new((stack, offloads): (Stack, OffloadsInUse), port: Port, now: Instant) -> Core {
        Core {
            stack,
            port,
            now,
            link: LinkCounters::default(),
            attention: 0,
            lends_copied: 0,
            in_turn: false,
            timers_looked_at: now,
            broken: None,
            offloads,
        }
    }

    /// A call outside a turn made work that the queues do not show, such as a nearer deadline.
    #[inline]
    pub(crate) fn expect_work(&mut self) {
        self.attention |= EXPECTS;
    }

    /// Whether received pieces are lent to the application, so that they may come back from any
    /// thread.
    #[inline]
    pub(crate) fn set_lends(&mut self, lends: bool) {
        self.attention = if lends { self.attention | LENDS } else { self.attention & EXPECTS };
    }

    /// Whether a turn has something to do that the queues do not show.
    #[cold]
    fn wants_attention(&self) -> bool {
        self.attention & EXPECTS != 0 || self.port.interface.memory_ref().has_returns()
    }

    /// Stack and memory, for a call.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut Stack, StackMemory<'_>) {
        (&mut self.stack, self.port.memory())
    }

    /// Whether a peer has not acknowledged all that was written and closed. Walks over all
    /// connections: for a worker that ends.
    pub(crate) fn owes(&mut self) -> bool {
        use roceway_stack::tcp::TcpState::{Closing, FinWait1, LastAck};
        let mut owes = false;
        self.stack.tcp().0.visit_connections(&mut |info| {
            let fin = matches!(info.state, FinWait1 | Closing | LastAck);
            owes |= fin || info.unsent > 0 || info.unacked > 0;
        });
        owes
    }

    /// Queues bytes of a connection; returns how many were taken. What may leave at once does, with
    /// the doorbell of the turn under way.
    ///
    /// # Errors
    /// See [`SendError`].
    #[inline(always)]
    pub(crate) fn send(&mut self, id: Id<Connection>, data: &[u8]) -> Result<usize, SendError> {
        if self.send_at_once(id, data) {
            return Ok(data.len());
        }
        let (stack, mut memory) = self.parts();
        stack.tcp().0.send(id, data, &mut memory)
    }

    /// See [`Stack::send_at_once`]; false if nothing was done.
    #[inline(always)]
    fn send_at_once(&mut self, id: Id<Connection>, data: &[u8]) -> bool {
        if !self.in_turn || self.port.is_stalled() {
            return false;
        }
        let mut memory = self.port.memory();
        let Some(frame) = self.stack.send_at_once(id, data, self.now, &mut memory) else {
            return false;
        };
        self.port.transmit_at_once(frame, self.now);
        true
    }

    /// Sends a datagram, to the socket's peer without `to`. It leaves at once if it may, with the
    /// doorbell of the turn under way.
    ///
    /// # Errors
    /// See [`UdpError`].
    #[inline(always)]
    pub(crate) fn send_datagram(
        &mut self,
        id: UdpId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<(), UdpError> {
        if self.send_datagram_at_once(id, data, to) {
            return Ok(());
        }
        let now = self.now;
        let (stack, mut memory) = self.parts();
        let (udp, mut cx) = stack.udp(now, &mut memory);
        udp.send_to(&mut cx, id, data, to)
    }

    /// See [`Stack::send_datagram_at_once`]; false if nothing was done.
    #[inline(always)]
    fn send_datagram_at_once(&mut self, id: UdpId, data: &[u8], to: Option<SocketAddr>) -> bool {
        if !self.in_turn || self.port.is_stalled() {
            return false;
        }
        let mut memory = self.port.memory();
        let sent = self.stack.send_datagram_at_once(id, (data, to), self.now, &mut memory);
        let Some(frame) = sent else { return false };
        self.port.transmit_datagram(&mut self.stack, frame, self.now);
        true
    }

    fn on_nic_event(&mut self, event: NicEvent) {
        match event {
            NicEvent::LinkUp => {
                self.link.link_up += 1;
                self.stack.on_link_up(self.now);
            }
            NicEvent::LinkDown => {
                self.link.link_down += 1;
                self.stack.on_link_down(self.now);
            }
            NicEvent::PeerGone => {
                self.link.peers_gone += 1;
                self.stack.on_link_down(self.now);
                self.lose_link();
            }
            NicEvent::HostGone(mac) => {
                self.link.hosts_gone += 1;
                let (stack, mut memory) = self.parts();
                stack.on_neighbor_lost(mac, &mut memory);
                self.expect_work();
            }
            NicEvent::Removed => {
                self.link.device_removed += 1;
                self.lose_link();
            }
        }
    }

    /// Ends every connection. The application learns of it in the next turn, since its phase of
    /// this one is over.
    fn lose_link(&mut self) {
        let (stack, mut memory) = self.parts();
        stack.on_link_lost(&mut memory);
        self.expect_work();
    }

    /// Whether any frame waits in either direction.
    #[inline(always)]
    fn has_work(&self) -> bool {
        self.port.interface.recv_ready()
            || self.stack.has_frames()
            || (self.attention != 0 && self.wants_attention())
            || self.port.is_stalled()
    }

    #[inline(never)]
    fn look_at_timers(&mut self, budget: u32) -> Progress {
        self.timers_looked_at = self.now + TIMERS_PERIOD;
        let due = self.now >= self.stack.next_deadline();
        if !due && !self.port.memory().receive_is_low() {
            return Progress::NONE;
        }
        self.on_timers(budget)
    }

    #[inline(never)]
    fn on_timers(&mut self, budget: u32) -> Progress {
        let mut memory = self.port.memory();
        Progress::done(self.stack.on_timers(self.now, budget, &mut memory))
    }
}

impl Work for Core {
    #[inline(always)]
    fn ready(&mut self) -> bool {
        self.has_work()
    }

    #[inline(always)]
    fn control(&mut self, now: u64, _budget: u32) -> Progress {
        self.now = Instant::from_nanos(now);
        self.attention &= LENDS;
        if self.attention != 0 {
            self.take_returns();
        }
        self.in_turn = true;
        Progress::NONE
    }

    #[inline(always)]
    fn receive(&mut self, _now: u64, budget: u32) -> Progress {
        Progress::done(self.port.pump_receive(&mut self.stack, self.now, budget))
    }

    #[inline(always)]
    fn timers(&mut self, _now: u64, budget: u32) -> Progress {
        if self.now < self.timers_looked_at {
            return Progress::NONE;
        }
        self.look_at_timers(budget)
    }

    #[inline]
    fn application(&mut self, _now: u64, _budget: u32) -> Progress {
        Progress::NONE
    }

    #[inline(always)]
    fn transmit(&mut self, _now: u64, budget: u32) -> Progress {
        if !self.stack.has_frames() && !self.port.is_stalled() {
            return Progress::NONE;
        }
        Progress::done(self.port.pump_transmit(&mut self.stack, self.now, budget))
    }

    #[inline(always)]
    fn doorbell(&mut self) {
        self.port.doorbell();
    }

    #[inline(always)]
    fn after(&mut self, _now: u64, _budget: u32) -> Progress {
        self.in_turn = false;
        if self.port.interface.reap() {
            // Sends have ended: the application, whose phase is over, is to hear of it.
            self.expect_work();
        }
        self.port.interface.refill();
        Progress::NONE
    }

    fn cold(&mut self, now: u64) {
        if let Some(capture) = &mut self.port.capture {
            capture.maintain(now);
        }
        if self.port.interface.memory_ref().has_registered() {
            self.take_returns();
        }
        match self.port.interface.nic_mut().maintain(now) {
            Ok(Some(event)) => self.on_nic_event(event),
            Ok(None) => {}
            Err(error) => {
                self.link.device_errors += 1;
                if self.broken.is_none() {
                    self.broken = Some(error.to_string());
                    self.on_nic_event(NicEvent::Removed);
                }
            }
        }
    }

    fn deadline(&mut self) -> u64 {
        self.stack.next_deadline().as_nanos()
    }

    fn arm(&mut self) -> Armed {
        if self.port.is_stalled() {
            return Armed::Pending;
        }
        match self.port.interface.nic_mut().arm() {
            Ok(nic::Armed::Quiet) => Armed::Quiet,
            Ok(nic::Armed::Pending) | Err(_) => Armed::Pending,
        }
    }

    fn disarm(&mut self) {
        self.port.interface.nic_mut().disarm();
    }
}
