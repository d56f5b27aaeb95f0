//! UDP (RFC 768, RFC 1122 §4.1): sockets as state, between layer 3 and the application's calls.
//!
//! A datagram is copied once on its way out, into a slot behind its headers, and once on its way
//! in, out of the slot in which the device left it. [`Udp::poll_frame`] hands frames out,
//! [`Udp::poll_event`] tells which of the sockets named by [`Udp::watch`] became readable or
//! writable. Nothing here walks over sockets, but for [`Udp::check`].
//!
//! Invariants: every queue has a limit ([`UdpConfig`]); a slot is held by exactly one queue; a
//! datagram received is read, thrown away with its socket, or dropped and counted.

mod config;
mod counters;
mod demux;
mod fast_path;
mod receive;
mod segments;
mod send;
mod socket;
mod template;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub use config::{UdpConfig, UdpError};
pub use counters::{UdpCounters, UdpDrop, UdpDrops};
pub(crate) use fast_path::EXPECTED_CHECKSUM;
pub use socket::{Received, UdpSocket};

use demux::{Demux, Ends};
use send::Outgoing;
use template::Template;

use crate::frame::Offloads;
use crate::ip::{IcmpError, IcmpErrorKind, Ip, Mark, Marking};
use crate::memory::{Memory, Piece, Slot};
use crate::ring::Ring;
use crate::slab::{Id, Slab};
use crate::time::Instant;

/// Names a socket for ever.
pub type UdpId = Id<UdpSocket>;

/// What calls that send or receive need from outside.
#[derive(Debug)]
pub struct UdpContext<'a, M> {
    /// The time.
    pub now: Instant,
    /// Layer 3.
    pub ip: &'a mut Ip,
    /// Where frames lie.
    pub mem: &'a mut M,
    /// What the device does.
    pub offloads: Offloads,
}

/// What a socket is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// A datagram or an error waits to be read.
    pub readable: bool,
    /// A datagram may be sent, as far as is known.
    pub writable: bool,
}

impl Readiness {
    /// For nothing.
    pub const NONE: Readiness = Readiness { readable: false, writable: false };

    /// What both have.
    #[must_use]
    pub const fn intersection(self, other: Readiness) -> Readiness {
        Readiness {
            readable: self.readable && other.readable,
            writable: self.writable && other.writable,
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.readable && !self.writable
    }
}

/// Every UDP socket of an interface.
pub struct Udp {
    config: UdpConfig,
    sockets: Slab<UdpSocket>,
    demux: Demux,
    /// Frames to send, in order.
    outgoing: Ring<Outgoing>,
    /// Pieces of those after the first, in order.
    chain: VecDeque<Piece>,
    /// Frames of a datagram that is being cut up; empty between calls.
    cut: Vec<Outgoing>,
    /// Watched sockets that became ready, each once.
    events: Ring<UdpId>,
    /// Sockets whose last call to send found no room, each once.
    blocked: Ring<UdpId>,
    /// Sockets with frames that wait for a neighbour, each once.
    waiting: Ring<UdpId>,
    /// Sockets that may hold receive slots, each once.
    holders: Ring<UdpId>,
    /// A small slot with one reference, for the next datagram that leaves at once.
    spare: Option<Slot>,
    /// Of the neighbours, when the waiting frames were looked at last.
    seen_generation: u32,
    /// Ephemeral ports given so far.
    ports_given: u32,
    counters: UdpCounters,
    drops: UdpDrops,
}

impl Udp {
    /// No sockets. `key` makes hashes and ports unpredictable.
    #[must_use]
    pub fn new(config: UdpConfig, key: [u8; 16]) -> Udp {
        Udp {
            sockets: Slab::new(config.sockets, config.worker),
            config,
            demux: Demux::new(key),
            outgoing: Ring::default(),
            chain: VecDeque::new(),
            cut: Vec::new(),
            events: Ring::default(),
            blocked: Ring::default(),
            waiting: Ring::default(),
            holders: Ring::default(),
            spare: None,
            seen_generation: 0,
            ports_given: 0,
            counters: UdpCounters::default(),
            drops: UdpDrops::default(),
        }
    }

    /// A socket bound to an address of the interface or to all of a family (unspecified). Port 0
    /// asks for any.
    ///
    /// # Errors
    ///
    /// The address is not ours, the port is taken or none is left, or there are too many sockets.
    pub fn bind(&mut self, ip: &Ip, local: SocketAddr) -> Result<UdpId, UdpError> {
        let address = local.ip();
        if !address.is_unspecified() && !ip.is_local(address) {
            return Err(UdpError::AddressNotAvailable);
        }
        let local = if local.port() == 0 {
            self.ephemeral(address)?
        } else if self.demux.is_taken(&self.sockets, local) {
            return Err(UdpError::AddressInUse);
        } else {
            local
        };
        let inserted = self.sockets.insert(UdpSocket::new(local));
        let id = inserted.map_err(|_| UdpError::TooManySockets)?;
        self.demux.insert(&self.sockets, id.index());
        Ok(id)
    }

    /// RFC 6056 §3.3.3: a keyed offset, from which the first free port is taken.
    fn ephemeral(&mut self, address: IpAddr) -> Result<SocketAddr, UdpError> {
        let (first, last) = (*self.config.ephemeral.start(), *self.config.ephemeral.end());
        let count = u64::from(last.checked_sub(first).ok_or(UdpError::NoPort)?) + 1;
        self.ports_given = self.ports_given.wrapping_add(1);
        let offset = self.demux.port_offset(address, self.ports_given) % count;
        for step in 0..count {
            let place = u16::try_from((offset + step) % count).map_err(|_| UdpError::NoPort)?;
            let candidate = SocketAddr::new(address, first + place);
            let is_free = (self.config.port_is_ours)(candidate.port())
                && !self.demux.is_taken(&self.sockets, candidate);
            if is_free {
                return Ok(candidate);
            }
        }
        Err(UdpError::NoPort)
    }

    /// Fixes the peer: only its datagrams are received from now on, and [`Udp::send_to`] needs no
    /// destination. Datagrams that wait already stay.
    ///
    /// # Errors
    ///
    /// The address cannot be a peer, or there is no route to it.
    pub fn connect(&mut self, ip: &Ip, id: UdpId, remote: SocketAddr) -> Result<(), UdpError> {
        let bound = self.sockets.get(id).ok_or(UdpError::NotFound)?.bound;
        let is_sound = remote.port() != 0 && remote.is_ipv4() == bound.is_ipv4();
        if !is_sound || remote.ip().is_unspecified() {
            return Err(UdpError::InvalidAddress);
        }
        let route = ip.route(remote.ip()).ok_or(UdpError::NetworkUnreachable)?;
        let source = if bound.ip().is_unspecified() { route.source } else { bound.ip() };
        self.demux.remove(&self.sockets, id.index());
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.local = SocketAddr::new(source, bound.port());
            socket.remote = Some(remote);
            socket.template = Template::default();
        }
        self.demux.insert(&self.sockets, id.index());
        Ok(())
    }

    /// Closes a socket. Frames that it handed over before are still sent.
    ///
    /// # Errors
    ///
    /// There is no such socket.
    pub fn close<M: Memory>(&mut self, id: UdpId, mem: &mut M) -> Result<(), UdpError> {
        if self.sockets.get(id).is_none() {
            return Err(UdpError::NotFound);
        }
        self.demux.remove(&self.sockets, id.index());
        let Some(mut socket) = self.sockets.remove_at(id.index()) else { return Ok(()) };
        while socket.receive.discard(mem) {
            self.counters.discarded += 1;
        }
        for frame in socket.waiting.drain(..) {
            self.counters.wait_failed += 1;
            mem.release(frame.piece.slot);
        }
        Ok(())
    }

    /// The address and port that the socket has.
    #[must_use]
    pub fn local_addr(&self, id: UdpId) -> Option<SocketAddr> {
        self.sockets.get(id).map(|socket| socket.local)
    }

    /// The peer, if the socket is connected.
    #[must_use]
    pub fn peer_addr(&self, id: UdpId) -> Option<SocketAddr> {
        self.sockets.get(id)?.remote
    }

    /// Allows or forbids to send to everyone on the link, which is forbidden at first.
    ///
    /// # Errors
    ///
    /// There is no such socket.
    pub fn set_broadcast(&mut self, id: UdpId, allowed: bool) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        socket.may_broadcast = allowed;
        socket.template = Template::default();
        Ok(())
    }

    /// Sets how far later datagrams go, or of what class they are.
    ///
    /// # Errors
    ///
    /// There is no such socket.
    pub fn mark(&mut self, id: UdpId, mark: Mark) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        socket.marking = socket.marking.with(mark);
        socket.template = Template::default();
        Ok(())
    }

    /// How far datagrams of the socket go, and of what class they are.
    #[must_use]
    pub fn marking(&self, id: UdpId) -> Option<Marking> {
        self.sockets.get(id).map(|socket| socket.marking)
    }

    /// What the peer said since the last call that reported it.
    pub fn take_error(&mut self, id: UdpId) -> Option<UdpError> {
        self.sockets.get_mut(id)?.error.take()
    }

    /// What the socket is ready for.
    #[must_use]
    pub fn readiness(&self, id: UdpId) -> Option<Readiness> {
        self.sockets.get(id).map(UdpSocket::readiness)
    }

    /// Sets what [`Udp::poll_event`] reports of a socket, at first nothing. What it is ready for
    /// already is reported at once.
    pub fn watch(&mut self, id: UdpId, interest: Readiness) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.interest = interest;
            self.announce(id);
        }
    }

    /// Whether [`Udp::poll_event`] may have something to tell.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A watched socket that became ready since it was last named here, and for what.
    #[inline]
    pub fn poll_event(&mut self) -> Option<(UdpId, Readiness)> {
        while let Some(id) = self.events.pop_front() {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.listed = false;
                let ready = socket.readiness().intersection(socket.interest);
                if !ready.is_empty() {
                    return Some((id, ready));
                }
            }
        }
        None
    }

    /// Takes an ICMP error about a datagram of ours. Only a connected socket learns of it
    /// (RFC 1122 §4.1.3.3): another could not tell whom it concerns.
    pub fn on_error(&mut self, now: Instant, ip: &mut Ip, error: &IcmpError) {
        let ends = Ends { local: error.local, remote: error.remote };
        let Some(index) = self.demux.find_connected(&self.sockets, &ends) else {
            self.counters.errors_unmatched += 1;
            return;
        };
        self.counters.errors += 1;
        match error.kind {
            IcmpErrorKind::PortUnreachable | IcmpErrorKind::ProtocolUnreachable => {
                self.fail(index, UdpError::ConnectionRefused);
            }
            IcmpErrorKind::PacketTooBig(mtu) => ip.note_path_mtu(now, error.remote.ip(), mtu),
            // Soft: the way may be there again with the next datagram.
            IcmpErrorKind::NetworkUnreachable
            | IcmpErrorKind::HostUnreachable
            | IcmpErrorKind::Prohibited
            | IcmpErrorKind::TimeExceeded
            | IcmpErrorKind::ParameterProblem => {}
        }
    }

    /// Keeps an error for the socket's next call, and says that there is one.
    fn fail(&mut self, index: u32, error: UdpError) {
        if let Some(id) = self.sockets.id_at(index) {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.error = Some(error);
            }
            self.announce(id);
        }
    }

    /// Puts a socket into the list of events if somebody waits for what it is ready for and it is
    /// not there.
    #[inline]
    fn announce(&mut self, id: UdpId) {
        if let Some(socket) = self.sockets.get_mut(id)
            && !socket.listed
            && !socket.readiness().intersection(socket.interest).is_empty()
        {
            socket.listed = true;
            self.events.push_back(id);
        }
    }

    /// Number of open sockets.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.sockets.len()
    }

    /// Whether no socket is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// Why datagrams were dropped.
    #[must_use]
    pub fn drops(&self) -> UdpDrops {
        self.drops
    }

    /// Panics unless every datagram is accounted for exactly once. Walks over all sockets.
    pub fn check(&self) {
        let seen = &self.counters;
        assert_eq!(seen.received, seen.queued + self.drops.sum(), "datagrams received");
        let sockets = (0..self.sockets.index_end()).filter_map(|index| self.sockets.at(index));
        let held: u64 = sockets.map(|socket| socket.receive.len() as u64).sum();
        assert_eq!(seen.queued, seen.read + seen.discarded + held, "datagrams queued");
    }
}

#[cfg(test)]
mod tests;
