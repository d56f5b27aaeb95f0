//! What applications call. Every call returns at once; waiting is the runtime's business, with
//! the help of [`Event`]s.

use core::net::{IpAddr, SocketAddr};

use super::connection::{Connection, Context, Ending, Ownership, Readiness};
use super::demux::Endpoint;
use super::error::{ConnectError, ConnectionError, ListenError, ReceiveError, SendError};
use super::listener::Listener;
use super::receiver::Receiver;
use super::sender::Sender;
use super::state::State;
use super::timers::Timer;
use super::tuple::FourTuple;
use super::{Disposition, Tcp};
use crate::ip::{Ip, Route};
use crate::memory::{Memory, Piece};
use crate::slab::Id;
use crate::time::Instant;

/// Something that a waiter asked for has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// On a connection.
    Connection(Id<Connection>, Readiness),
    /// On a listener: a connection can be accepted.
    Listener(Id<Listener>),
}

/// A place in the queue of events; resolved when the event is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listed {
    Connection(u32),
    Listener(u32),
}

impl Tcp {
    /// Opens a connection (RFC 9293 §3.10.1, active). It is established when it is writable.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        (now, ip): (Instant, &Ip),
    ) -> Result<Id<Connection>, ConnectError> {
        let bad = remote.port() == 0
            || remote.ip().is_unspecified()
            || remote.ip().is_multicast()
            || ip.is_broadcast(remote.ip());
        if bad {
            return Err(ConnectError::BadAddress);
        }
        let route = ip.route(remote.ip()).ok_or(ConnectError::NoRoute)?;
        let source = match local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()) {
            Some(source) if ip.is_local(source) && source.is_ipv4() == remote.is_ipv4() => source,
            Some(_) => return Err(ConnectError::AddressNotAvailable),
            None => route.source,
        };
        let port = local.map_or(0, |local| local.port());
        let tuple = self.choose_port(source, port, remote, now)?;
        let (tuple, iss_floor) = tuple;
        let iss = self.secrets.initial_sequence(&tuple, now);
        let iss = iss_floor.filter(|floor| iss.before(*floor)).unwrap_or(iss);
        let snd = Sender::new(iss, &tuple, &self.config, self.secrets.timestamp_offset(&tuple));
        let rcv = Receiver::new(self.config.receive_buffer, self.config.window_scale());
        let mut connection = Connection::new(tuple, State::SynSent, snd, rcv);
        connection.snd.mss_offered = mss_of(&route, remote.ip());
        let id = self.add(connection).map_err(|()| ConnectError::TooMany)?;
        self.counters.active_opens += 1;
        self.settle(id.index());
        Ok(id)
    }

    /// A four-tuple that is free, or that a TIME-WAIT gives up (RFC 6191); with the sequence
    /// number that the new connection must begin after.
    fn choose_port(
        &mut self,
        source: IpAddr,
        port: u16,
        remote: SocketAddr,
        now: Instant,
    ) -> Result<(FourTuple, Option<super::seq::SeqNum>), ConnectError> {
        let tuple_for = |local_port| FourTuple {
            local: source,
            remote: remote.ip(),
            local_port,
            remote_port: remote.port(),
        };
        if port != 0 {
            let tuple = tuple_for(port);
            let floor = self.claim(&tuple, now).ok_or(ConnectError::AddressInUse)?;
            return Ok((tuple, floor));
        }
        // RFC 6056 §3.3.3, algorithm 3.
        let (low, high) = self.config.port_range;
        let count = u32::from(high.saturating_sub(low)) + 1;
        let offset = self.secrets.port_offset(&tuple_for(0));
        for _ in 0..count {
            let place = offset.wrapping_add(self.port_counter) % count;
            self.port_counter = self.port_counter.wrapping_add(1);
            let port = low.saturating_add(u16::try_from(place).unwrap_or(0));
            if self.listeners.has_port(port) {
                continue;
            }
            let tuple = tuple_for(port);
            if let Some(floor) = self.claim(&tuple, now) {
                return Ok((tuple, floor));
            }
        }
        Err(ConnectError::AddressInUse)
    }

    /// Whether a tuple is free for a new active open; a TIME-WAIT that allows it is ended.
    fn claim(&mut self, tuple: &FourTuple, now: Instant) -> Option<Option<super::seq::SeqNum>> {
        match self.find(tuple) {
            None => Some(None),
            Some(Endpoint::Connection(_)) => None,
            Some(Endpoint::TimeWait(index)) => {
                let entry = self.time_waits.at(index)?;
                if !entry.may_reopen_actively(now) {
                    return None;
                }
                let floor = entry.snd_nxt.plus(u32::from(u16::MAX) + 2);
                self.counters.time_waits_reused += 1;
                self.remove_time_wait(index);
                Some(Some(floor))
            }
        }
    }

    /// Listens (RFC 9293 §3.10.1, passive). Port 0 chooses one.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(
        &mut self,
        local: SocketAddr,
        backlog: u32,
        ip: &Ip,
    ) -> Result<Id<Listener>, ListenError> {
        if !local.ip().is_unspecified() && !ip.is_local(local.ip()) {
            return Err(ListenError::AddressNotAvailable);
        }
        if local.port() != 0 {
            return self.listeners.add(local, backlog);
        }
        let (low, high) = self.config.port_range;
        for _ in low..=high {
            let count = u32::from(high.saturating_sub(low)) + 1;
            let place = self.port_counter % count;
            self.port_counter = self.port_counter.wrapping_add(1);
            let port = low.saturating_add(u16::try_from(place).unwrap_or(0));
            if !self.listeners.has_port(port) {
                return self.listeners.add(SocketAddr::new(local.ip(), port), backlog);
            }
        }
        Err(ListenError::AddressInUse)
    }

    /// The address and port of a listener.
    #[must_use]
    pub fn listener_addr(&self, id: Id<Listener>) -> Option<SocketAddr> {
        self.listeners.get(id).map(|listener| listener.local)
    }

    /// Takes an established connection from a listener.
    pub fn accept(&mut self, id: Id<Listener>) -> Option<Id<Connection>> {
        loop {
            let accepted = self.listeners.get_mut(id)?.accepted.pop_front()?;
            if let Some(connection) = self.connections.get_mut(accepted) {
                connection.ownership = Ownership::Held;
                return Some(accepted);
            }
        }
    }

    /// Stops listening; connections that nobody accepted are reset.
    pub fn close_listener<M: Memory>(&mut self, id: Id<Listener>, mem: &mut M) {
        let Some(listener) = self.listeners.remove(id) else { return };
        for waiting in listener.accepted {
            if self.connections.get(waiting).is_some() {
                self.reset_peer(waiting.index());
                self.forget(waiting.index(), mem);
            }
        }
    }

    /// Takes a small write that Nagle's algorithm does not hold back (`TCP_NODELAY`) and that
    /// nothing precedes, and gives the frame that carries it, lent as one of
    /// [`Tcp::poll_expected`] is. `None`: nothing was done, and the write is for [`Tcp::send`].
    /// `now` is the present, not an earlier turn's.
    #[inline(always)]
    pub(crate) fn send_at_once<M: Memory>(
        &mut self,
        id: Id<Connection>,
        data: &[u8],
        (now, ip): (Instant, &Ip),
        mem: &mut M,
    ) -> Option<Piece> {
        let connection = self.connections.get_mut(id)?;
        if !connection.snd.template.is_current(ip.neighbor_generation()) {
            return None;
        }
        let mut ctx = Context {
            now,
            mem,
            config: &self.config,
            counters: &mut self.counters,
            offloads: &self.offloads,
        };
        let frame = connection.send_at_once(data, &mut ctx)?;
        ctx.counters.bytes_written += data.len() as u64;
        if connection.reschedule {
            self.settle(id.index());
        }
        Some(frame)
    }

    /// Queues bytes; returns how many were taken.
    ///
    /// # Errors
    /// See [`SendError`].
    #[inline(never)]
    pub fn send<M: Memory>(
        &mut self,
        id: Id<Connection>,
        data: &[u8],
        mem: &mut M,
    ) -> Result<usize, SendError> {
        let connection = self.connections.get_mut(id).ok_or(SendError::NoSocket)?;
        let result = connection.send(data, mem);
        self.counters.bytes_written += result.map_or(0, |n| n as u64);
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(id.index());
        }
        result
    }

    /// Copies received bytes to `out`; `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    #[inline(always)]
    pub fn receive<M: Memory>(
        &mut self,
        id: Id<Connection>,
        out: &mut [u8],
        mem: &mut M,
    ) -> Result<usize, ReceiveError> {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(n) = connection.receive_lone(out, mem)
        {
            self.counters.bytes_read += n as u64;
            if connection.rcv.ack == super::receiver::AckDue::Now {
                self.settle(id.index());
            }
            return Ok(n);
        }
        self.receive_any(id, out, mem)
    }

    #[inline(never)]
    fn receive_any<M: Memory>(
        &mut self,
        id: Id<Connection>,
        out: &mut [u8],
        mem: &mut M,
    ) -> Result<usize, ReceiveError> {
        let connection = self.connections.get_mut(id).ok_or(ReceiveError::NoSocket)?;
        let result = connection.receive(out, mem);
        self.counters.bytes_read += result.map_or(0, |n| n as u64);
        if connection.rcv.ack == super::receiver::AckDue::Now {
            self.settle(id.index());
        }
        result
    }

    /// As [`Tcp::receive`], but the bytes stay.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub fn peek<M: Memory>(
        &mut self,
        id: Id<Connection>,
        out: &mut [u8],
        mem: &M,
    ) -> Result<usize, ReceiveError> {
        let connection = self.connections.get_mut(id).ok_or(ReceiveError::NoSocket)?;
        match connection.rcv.queue.peek(out, mem) {
            0 if !out.is_empty() => connection.receive_nothing(),
            n => Ok(n),
        }
    }

    /// Marks the bytes queued so far as urgent (RFC 9293 §3.8.5; the pointer as RFC 6093 has it).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_urgent<M: Memory>(
        &mut self,
        id: Id<Connection>,
        data: &[u8],
        mem: &mut M,
    ) -> Result<usize, SendError> {
        let sent = self.send(id, data, mem)?;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.snd.urgent = Some(connection.snd.una.plus(connection.snd.queue.len()));
            connection.fast = false;
        }
        Ok(sent)
    }

    /// Shuts a direction down, or both.
    ///
    /// # Errors
    /// [`SendError::NotConnected`] before the connection is established.
    pub fn shutdown(
        &mut self,
        id: Id<Connection>,
        read: bool,
        write: bool,
    ) -> Result<(), SendError> {
        let connection = self.connections.get_mut(id).ok_or(SendError::NoSocket)?;
        if connection.state == State::SynSent {
            return Err(SendError::NotConnected);
        }
        if connection.state == State::Closed && connection.error.is_none() {
            return Err(SendError::NotConnected);
        }
        if read {
            connection.rcv.shut = true;
            connection.notify(Readiness::READABLE);
        }
        if write {
            connection.shutdown_write();
        }
        self.settle(id.index());
        Ok(())
    }

    /// Lets go of a connection: what is queued is still delivered, then it ends.
    pub fn close<M: Memory>(&mut self, id: Id<Connection>, now: Instant, mem: &mut M) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.close(now, &self.config) {
            Ending::Graceful if connection.state == State::TimeWait => {
                self.perform(id.index(), Disposition::TimeWait, now, mem);
            }
            Ending::Graceful => self.settle(id.index()),
            Ending::Abortive => self.abort(id, mem),
            Ending::Gone => self.forget(id.index(), mem),
        }
    }

    /// Ends a connection at once by a reset (RFC 9293 §3.10.5) and lets go of it.
    pub fn abort<M: Memory>(&mut self, id: Id<Connection>, mem: &mut M) {
        let Some(connection) = self.connections.get(id) else { return };
        let tell = match connection.state {
            State::SynReceived(_)
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait => true,
            State::SynSent | State::Closing | State::LastAck | State::TimeWait | State::Closed => {
                false
            }
        };
        if tell {
            self.reset_peer(id.index());
        }
        self.forget(id.index(), mem);
    }

    /// Ends every connection whose segments go to this hardware address, or every one: what was
    /// there is gone, and the state of its connections with it.
    pub fn on_neighbor_lost<M: Memory>(&mut self, mac: Option<[u8; 6]>, mem: &mut M) {
        for index in 0..self.connections.index_end() {
            let lost = self.connections.at(index).is_some_and(|c| {
                c.state != State::Closed && (mac.is_none() || c.snd.template.neighbor() == mac)
            });
            if lost {
                self.fail(index, ConnectionError::LinkLost, mem);
                self.settle(index);
            }
        }
    }

    /// Ends every connection: the link to the only peer is gone, and the peer's state with it.
    pub fn on_link_lost<M: Memory>(&mut self, mem: &mut M) {
        self.on_neighbor_lost(None, mem);
        while let Some(index) = self.time_waits.oldest() {
            self.remove_time_wait(index);
        }
    }

    /// The link came up: what was lost on the way there is tried again at once.
    pub fn on_link_up(&mut self, now: Instant) {
        for index in 0..self.connections.index_end() {
            let Some(connection) = self.connections.at_mut(index) else { continue };
            if connection.state == State::SynSent {
                connection.snd.syn_due = true;
                connection.snd.outstanding_since = now;
                self.settle(index);
            } else if connection.snd.rtt.backoff() > 0
                && connection.timers.is_armed(Timer::Retransmit)
            {
                // What backed off while there was no path does not wait for its next timer.
                connection.arm(Timer::Retransmit, now);
                self.settle(index);
            }
        }
    }

    /// What can be done on a connection without waiting.
    #[must_use]
    pub fn readiness(&self, id: Id<Connection>) -> Readiness {
        let all = Readiness::READABLE.union(Readiness::WRITABLE);
        self.connections.get(id).map_or(all, Connection::readiness)
    }

    /// Whether a connection can be accepted, or the listener is gone.
    #[must_use]
    pub fn listener_readable(&self, id: Id<Listener>) -> bool {
        self.listeners.get(id).is_none_or(|listener| !listener.accepted.is_empty())
    }

    /// Sets what [`Tcp::poll_event`] reports of a connection. What is ready already is reported
    /// at once.
    pub fn watch(&mut self, id: Id<Connection>, interest: Readiness) {
        if let Some(connection) = self.connections.get_mut(id) {
            let watch = &mut connection.watch;
            watch.interest = interest;
            // Nobody waits for the rest any more.
            watch.pending = watch.pending.intersection(interest);
            let ready = connection.readiness();
            connection.notify(ready);
            self.settle(id.index());
        }
    }

    /// Sets whether [`Tcp::poll_event`] reports a listener.
    pub fn watch_listener(&mut self, id: Id<Listener>, on: bool) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.watch.interest = if on { Readiness::READABLE } else { Readiness::NONE };
        listener.watch.pending = Readiness::NONE;
        if on && !listener.accepted.is_empty() {
            listener.watch.pending = Readiness::READABLE;
            if !listener.watch.listed {
                listener.watch.listed = true;
                self.events.push_back(Listed::Listener(id.index()));
            }
        }
    }

    /// Whether [`Tcp::poll_event`] may have something to tell.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event; each socket is in the queue at most once.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(listed) = self.events.pop_front() {
            match listed {
                Listed::Connection(index) => {
                    let Some(id) = self.connections.id_at(index) else { continue };
                    let Some(connection) = self.connections.at_mut(index) else { continue };
                    connection.watch.listed = false;
                    let pending = core::mem::take(&mut connection.watch.pending);
                    if !pending.is_empty() {
                        return Some(Event::Connection(id, pending));
                    }
                }
                Listed::Listener(index) => {
                    let Some((id, listener)) = self.listeners.at_mut(index) else { continue };
                    listener.watch.listed = false;
                    if !core::mem::take(&mut listener.watch.pending).is_empty() {
                        return Some(Event::Listener(id));
                    }
                }
            }
        }
        None
    }
}

/// Our MSS option: what the path takes of TCP payload (RFC 9293 §3.7.1, MUST-16: the MTU without
/// fixed headers).
pub(super) fn mss_of(route: &Route, remote: IpAddr) -> u16 {
    route.mtu.saturating_sub(if remote.is_ipv6() { 60 } else { 40 })
}
