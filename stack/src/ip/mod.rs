//! Layer 3 of one interface: addresses, routes, neighbours, reassembly, ICMP.
//!
//! [`Ip::on_frame`] takes each received frame first. It answers ARP, neighbour discovery and ICMP
//! itself, by queueing frames that [`Ip::poll_frame`] hands out, and passes packets of TCP and UDP
//! on. It knows no port and no connection.
//!
//! Invariants: a frame's pieces are released or passed on, never both; a packet that is passed on
//! has a source that one other host can have; every received frame is counted once
//! ([`Ip::check`]); every table has a limit ([`IpLimits`]).

mod config;
mod control;
mod counters;
mod discovery;
mod fragments;
mod icmp;
mod icmp_error;
mod input;
mod marking;
mod neighbor;
mod packet;
mod path_mtu;
mod route;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

pub use config::{
    ADDRESSES_MAX, InterfaceAddress, IpConfig, IpConfigError, IpLimits, MTU_MIN, ROUTES_MAX,
    StaticRoute,
};
pub use counters::{IpCounters, IpDrop, IpDrops};
pub use marking::{Mark, Marking};
pub use packet::{IcmpError, IcmpErrorKind, Incoming, Packet, Resolution, Route, Transport};

pub(crate) use icmp::fragment_payload;
pub(crate) use input::{gather, release};

use control::ControlQueue;
use fragments::Reassembly;
use icmp::RateLimit;
use neighbor::{Keyed, NeighborCache};
use path_mtu::PathMtus;
use route::RouteTable;

use crate::frame::TxFrame;
use crate::memory::Memory;
use crate::time::Instant;
use crate::wire::ethernet::{self, EthernetHeader, MacAddr};

/// The time to live that our packets start with (RFC 1122 §3.2.1.7).
pub const TTL: u8 = 64;

/// Layer 3 of one interface.
#[derive(Debug)]
pub struct Ip {
    mac: MacAddr,
    mtu: u16,
    /// Source and destination of the last IPv4 packet that passed every check: 8 bytes as they
    /// stand in the header.
    expected_v4: [u8; 8],
    /// The same for IPv6.
    expected_v6: [u8; 32],
    counters: IpCounters,
    drops: IpDrops,
    addresses: ArrayVec<InterfaceAddress, ADDRESSES_MAX>,
    routes: RouteTable,
    path_mtus: PathMtus,
    neighbors: NeighborCache,
    reassembly: Reassembly,
    control: ControlQueue,
    error_limit: RateLimit,
    /// Not before this is an address defended again (RFC 5227 §2.4).
    defend_at: Instant,
    ident: u16,
}

impl Ip {
    /// An interface. `key` makes its hashes unpredictable.
    ///
    /// # Errors
    ///
    /// What of the configuration cannot be.
    pub fn new(config: IpConfig, key: [u8; 16]) -> Result<Ip, IpConfigError> {
        config.check()?;
        let mut addresses: ArrayVec<InterfaceAddress, ADDRESSES_MAX> =
            config.addresses.iter().copied().collect();
        if let Some(address) = missing_link_local(config.mac, &addresses) {
            addresses.push(address);
        }
        let mut routes = RouteTable::default();
        for entry in &addresses {
            if !routes.add_connected(entry.address, entry.prefix_len) {
                return Err(IpConfigError::TooManyRoutes);
            }
        }
        let secret = Keyed(key);
        let [low, high] = [secret.of(b"neighbor0"), secret.of(b"neighbor1")];
        let mut neighbor_key = [0; 16];
        neighbor_key[..8].copy_from_slice(&low.to_le_bytes());
        neighbor_key[8..].copy_from_slice(&high.to_le_bytes());
        let [a, b, ..] = secret.of(b"ident").to_le_bytes();
        let mut ip = Ip {
            mac: config.mac,
            mtu: config.mtu,
            expected_v4: [0; 8],
            expected_v6: [0; 32],
            counters: IpCounters::default(),
            drops: IpDrops::default(),
            addresses,
            routes,
            path_mtus: PathMtus::default(),
            neighbors: NeighborCache::new(usize::from(config.limits.neighbors), neighbor_key),
            reassembly: Reassembly::new(&config.limits),
            control: ControlQueue::new(&config.limits),
            error_limit: RateLimit::new(config.limits.icmp_errors_per_second),
            defend_at: Instant::ZERO,
            ident: u16::from_le_bytes([a, b]),
        };
        for route in config.routes {
            ip.add_route(route)?;
        }
        Ok(ip)
    }

    /// The interface's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Bytes of the longest packet, IP header included.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The interface's addresses, a link-local one that it added itself included.
    #[must_use]
    pub fn addresses(&self) -> &[InterfaceAddress] {
        &self.addresses
    }

    /// Whether the address is one of ours.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|entry| entry.address == address)
    }

    /// Whether packets to the address go to everyone on a link of ours.
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        address.is_broadcast() || self.addresses.iter().any(|entry| is_directed(entry, address))
    }

    /// Adds a route or replaces the one of the same prefix.
    ///
    /// # Errors
    ///
    /// The prefix is too long, the gateway is on no connected link, or the table is full.
    pub fn add_route(&mut self, route: StaticRoute) -> Result<(), IpConfigError> {
        let longest = if route.destination.is_ipv4() { 32 } else { 128 };
        if route.prefix_len > longest {
            return Err(IpConfigError::PrefixLen(route.prefix_len));
        }
        let is_usable = route.gateway.is_ipv4() == route.destination.is_ipv4()
            && self.routes.is_connected(route.gateway)
            && !self.is_local(route.gateway);
        if !is_usable {
            return Err(IpConfigError::Gateway(route.gateway));
        }
        self.neighbors.change();
        if self.routes.add_static(route) { Ok(()) } else { Err(IpConfigError::TooManyRoutes) }
    }

    /// Takes a route through a gateway away; `false` if there was none.
    pub fn remove_route(&mut self, destination: IpAddr, prefix_len: u8) -> bool {
        self.neighbors.change();
        self.routes.remove_static(destination, prefix_len)
    }

    /// Where a packet to `destination` goes first, or `None` if there is no way. Our own
    /// addresses are no destination: nothing loops back.
    #[must_use]
    pub fn route(&self, destination: IpAddr) -> Option<Route> {
        if destination.is_unspecified() || destination.is_loopback() || self.is_local(destination) {
            return None;
        }
        let to_group = destination.is_multicast() || self.is_broadcast(destination);
        let next_hop = if to_group { destination } else { self.routes.next_hop(destination)? };
        let source = self.source_for(if to_group { destination } else { next_hop })?;
        let mtu = self.path_mtus.get(destination).unwrap_or(self.mtu);
        Some(Route { source, next_hop, mtu })
    }

    /// Remembers that packets to `destination` must not be longer than `mtu`, for ten minutes
    /// (RFC 1191 §6.3). Only after a transport found the error that says so to be genuine.
    pub fn note_path_mtu(&mut self, now: Instant, destination: IpAddr, mtu: u16) {
        if mtu < self.mtu {
            self.path_mtus.note(now, destination, mtu);
            self.neighbors.change();
        }
    }

    /// The Ethernet address of a neighbour; it is asked for if it is not known.
    pub fn resolve(&mut self, now: Instant, next_hop: IpAddr) -> Resolution {
        if next_hop.is_multicast() {
            return Resolution::Resolved(ethernet::multicast(next_hop));
        }
        if self.is_broadcast(next_hop) {
            return Resolution::Resolved(ethernet::BROADCAST);
        }
        if !self.routes.is_connected(next_hop) || self.is_local(next_hop) {
            return Resolution::Unreachable;
        }
        let (resolution, question) = self.neighbors.resolve(now, next_hop);
        if let Some(question) = question {
            self.solicit(question);
        }
        resolution
    }

    /// Negative advice of a transport (RFC 9293 §3.8.3, RFC 1122 §3.3.1.4): what it sends this way
    /// is not acknowledged. A neighbour that is believed to be there is asked whether it is; if
    /// it does not answer, [`Ip::resolve`] stops naming it.
    pub fn doubt(&mut self, now: Instant, next_hop: IpAddr) {
        if let Some(question) = self.neighbors.doubt(now, next_hop) {
            self.counters.neighbors_doubted += 1;
            self.solicit(question);
        }
    }

    /// Changes whenever [`Ip::resolve`] or [`Ip::route`] could answer otherwise than before: a
    /// connection may keep what they said as long as this number is the same.
    #[must_use]
    pub fn neighbor_generation(&self) -> u32 {
        self.neighbors.generation()
    }

    /// The Ethernet header of a frame from us.
    #[must_use]
    pub fn link_header(&self, destination: MacAddr, ethertype: u16) -> [u8; ethernet::HEADER_LEN] {
        EthernetHeader { destination, source: self.mac, ethertype }.to_bytes()
    }

    /// The next identification for an IPv4 packet that may be fragmented on its way.
    pub fn next_ident(&mut self) -> u16 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }

    /// Puts the next control frame into `out`; `false` if there is none or no memory for it.
    pub fn poll_frame<M: Memory>(&mut self, mem: &mut M, out: &mut TxFrame) -> bool {
        !self.control.is_empty() && self.control.poll(mem, out)
    }

    /// Whether a control frame waits to be sent.
    #[must_use]
    #[inline(always)]
    pub fn has_frames(&self) -> bool {
        !self.control.is_empty()
    }

    /// Does what is due: questions to neighbours, fragments given up.
    pub fn on_timers(&mut self, now: Instant) {
        self.reassembly.on_timers(now);
        self.path_mtus.on_timers(now);
        if now < self.neighbors.deadline() {
            return;
        }
        let mut questions = alloc::vec::Vec::new();
        self.neighbors.on_timers(now, |question| questions.push(question));
        for question in questions {
            self.solicit(question);
        }
    }

    /// The link came up: whoever is there learns of us, and what was asked before is asked again.
    pub fn on_link_up(&mut self, now: Instant) {
        self.announce();
        let mut questions = alloc::vec::Vec::new();
        self.neighbors.on_link_up(now, |question| questions.push(question));
        for question in questions {
            self.solicit(question);
        }
    }

    /// The link is down, and may come up soon: no neighbour is given up for 10 s.
    pub fn on_link_down(&mut self, now: Instant) {
        self.neighbors.on_link_down(now);
    }

    /// Everyone on the link is gone, as when a cable is pulled: neighbours are forgotten, and what
    /// is sent from now on waits for its neighbour as at first.
    pub fn on_link_lost(&mut self) {
        self.neighbors.on_link_lost();
    }

    /// One host on the link is gone: it is asked for anew.
    pub fn on_neighbor_lost(&mut self, mac: MacAddr) {
        self.neighbors.on_neighbor_lost(mac);
    }

    /// When [`Ip::on_timers`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.neighbors.deadline().min(self.reassembly.deadline()).min(self.path_mtus.deadline())
    }

    /// Number of known or asked neighbours.
    #[must_use]
    pub fn neighbors_len(&self) -> usize {
        self.neighbors.len()
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> IpCounters {
        IpCounters {
            fragments_discarded: self.reassembly.discarded,
            fragment_timeouts: self.reassembly.timeouts,
            fragment_evictions: self.reassembly.evictions,
            control_sent: self.control.sent,
            control_dropped: self.control.dropped,
            neighbor_failures: self.neighbors.failures,
            neighbor_evictions: self.neighbors.evictions,
            ..self.counters
        }
    }

    /// Why frames were dropped.
    #[must_use]
    pub fn drops(&self) -> IpDrops {
        self.drops
    }

    /// Panics unless every frame, fragment and datagram is accounted for exactly once.
    pub fn check(&self) {
        let seen = self.counters();
        let delivered = seen.delivered_tcp + seen.delivered_udp + seen.delivered_errors;
        let consumed = seen.arp + seen.ndp + seen.icmp + seen.fragments;
        assert_eq!(seen.received, delivered + consumed + self.drops.sum(), "frames");
        let gone = seen.fragments_used + seen.fragments_discarded;
        assert_eq!(seen.fragments, gone + self.reassembly.held(), "fragments");
        let used = seen.reassembled_delivered + seen.reassembled_icmp + seen.reassembled_dropped;
        assert_eq!(seen.reassembled, used, "reassembled datagrams");
    }

    /// The best of our addresses to send to a neighbour from: on its link, else the first of its
    /// family.
    fn source_for(&self, neighbor: IpAddr) -> Option<IpAddr> {
        let same_family = |entry: &&InterfaceAddress| entry.address.is_ipv4() == neighbor.is_ipv4();
        let on_link =
            |entry: &&InterfaceAddress| route::in_prefix(neighbor, entry.address, entry.prefix_len);
        let best = self.addresses.iter().find(on_link);
        best.or_else(|| self.addresses.iter().find(same_family)).map(|entry| entry.address)
    }
}

/// Whether one host can have the address (RFC 1122 §3.2.1.3, RFC 6890).
fn is_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..=223).contains(&first) && first != 127
}

/// Whether one host can have the address (RFC 4291 §2.5, §2.7): an IPv4 address in IPv6's clothes
/// cannot appear on a wire.
fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && address.to_ipv4_mapped().is_none()
}

/// Whether `address` is the broadcast address of the entry's link (RFC 1122 §3.2.1.3 (d)).
fn is_directed(entry: &InterfaceAddress, address: Ipv4Addr) -> bool {
    let IpAddr::V4(own) = entry.address else { return false };
    if entry.prefix_len >= 31 {
        return false;
    }
    let host_bits = u32::MAX >> entry.prefix_len;
    own.to_bits() | host_bits == address.to_bits()
}

/// The link-local address that an IPv6 interface has at least (RFC 4291 §2.8), unless there is
/// one already or the interface has no IPv6.
fn missing_link_local(mac: MacAddr, present: &[InterfaceAddress]) -> Option<InterfaceAddress> {
    let mut has_v6 = false;
    for entry in present {
        if let IpAddr::V6(address) = entry.address {
            has_v6 = true;
            if address.is_unicast_link_local() {
                return None;
            }
        }
    }
    // RFC 4291 appendix A: the modified EUI-64 identifier.
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let address = IpAddr::V6(Ipv6Addr::from_octets(octets));
    has_v6.then_some(InterfaceAddress { address, prefix_len: 64 })
}

#[cfg(test)]
mod tests;
