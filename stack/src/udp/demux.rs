//! Which socket a datagram is for: by all four ends first, then by local address and port, then
//! by port alone. Keyed hashes (SipHash-1-3), so that nobody outside can choose collisions, behind
//! a memory of the last answer.

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::UdpId;
use super::fast_path::Expected;
use super::socket::UdpSocket;
use crate::ip::Packet;
use crate::slab::Slab;

/// The ends of a datagram, or of a connected socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// The ends of the last datagram, as its headers had them, and the socket that it was for.
#[derive(Clone, Copy, Debug)]
struct Last {
    source: IpAddr,
    destination: IpAddr,
    /// The ports' four bytes.
    ports: [u8; 4],
    id: UdpId,
}

/// The tables. Entries are indices of sockets in the slab.
#[derive(Debug)]
pub(super) struct Demux {
    key: [u8; 16],
    last: Option<Last>,
    /// The same for the fast path, where there is one.
    pub(super) expected: Option<Expected>,
    /// Connected sockets, by all four ends.
    connected: HashTable<u32>,
    /// Every socket, by its local port.
    bound: HashTable<u32>,
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn hash_ends(key: &[u8; 16], ends: &Ends) -> u64 {
    let mut bytes = [0; 36];
    bytes[..16].copy_from_slice(&octets(ends.local.ip()));
    bytes[16..32].copy_from_slice(&octets(ends.remote.ip()));
    bytes[32..34].copy_from_slice(&ends.local.port().to_le_bytes());
    bytes[34..].copy_from_slice(&ends.remote.port().to_le_bytes());
    SipHasher13::new_with_key(key).hash(&bytes)
}

fn hash_port(key: &[u8; 16], port: u16) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u16(port);
    hasher.finish()
}

fn ends_of(sockets: &Slab<UdpSocket>, index: u32) -> Option<Ends> {
    let socket = sockets.at(index)?;
    Some(Ends { local: socket.local, remote: socket.remote? })
}

fn port_of(sockets: &Slab<UdpSocket>, index: u32) -> Option<u16> {
    sockets.at(index).map(|socket| socket.local.port())
}

impl Demux {
    pub(super) fn new(key: [u8; 16]) -> Demux {
        Demux {
            key,
            last: None,
            expected: None,
            connected: HashTable::new(),
            bound: HashTable::new(),
        }
    }

    /// The socket that the last datagram was for, if this one has the same ends. `ports` are the
    /// first four bytes of its header.
    #[inline]
    pub(super) fn last(&self, packet: &Packet, ports: [u8; 4]) -> Option<UdpId> {
        let last = self.last.as_ref()?;
        let is_same = last.ports == ports
            && last.source == packet.source
            && last.destination == packet.destination;
        is_same.then_some(last.id)
    }

    /// The socket that a datagram with these ends is for, which is remembered.
    #[inline(never)]
    pub(super) fn find(&mut self, sockets: &Slab<UdpSocket>, ends: &Ends) -> Option<UdpId> {
        let found = self.find_connected(sockets, ends).or_else(|| {
            let unspecified = match ends.local.ip() {
                IpAddr::V4(_) => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
            };
            let anywhere = SocketAddr::new(unspecified, ends.local.port());
            self.find_bound(sockets, ends.local).or_else(|| self.find_bound(sockets, anywhere))
        })?;
        let id = sockets.id_at(found)?;
        let [a, b] = ends.remote.port().to_be_bytes();
        let [c, d] = ends.local.port().to_be_bytes();
        let (source, destination) = (ends.remote.ip(), ends.local.ip());
        self.last = Some(Last { source, destination, ports: [a, b, c, d], id });
        Some(id)
    }

    /// The socket connected between these ends.
    pub(super) fn find_connected(&self, sockets: &Slab<UdpSocket>, ends: &Ends) -> Option<u32> {
        let same = |index: &u32| ends_of(sockets, *index).as_ref() == Some(ends);
        self.connected.find(hash_ends(&self.key, ends), same).copied()
    }

    /// The unconnected socket bound to exactly this address and port.
    fn find_bound(&self, sockets: &Slab<UdpSocket>, local: SocketAddr) -> Option<u32> {
        let same = |index: &u32| {
            sockets
                .at(*index)
                .is_some_and(|socket| socket.remote.is_none() && socket.local == local)
        };
        self.bound.find(hash_port(&self.key, local.port()), same).copied()
    }

    /// Whether a socket has the port at this address, or at all addresses of its family, or at
    /// any address if this one is unspecified.
    pub(super) fn is_taken(&self, sockets: &Slab<UdpSocket>, local: SocketAddr) -> bool {
        let clashes = |index: &u32| {
            sockets.at(*index).is_some_and(|socket| {
                let (a, b) = (socket.bound.ip(), local.ip());
                socket.bound.port() == local.port()
                    && a.is_ipv4() == b.is_ipv4()
                    && (a == b || a.is_unspecified() || b.is_unspecified())
            })
        };
        self.bound.find(hash_port(&self.key, local.port()), clashes).is_some()
    }

    /// Enters a socket by its port, and by its four ends if it is connected.
    pub(super) fn insert(&mut self, sockets: &Slab<UdpSocket>, index: u32) {
        self.last = None;
        self.expected = None;
        let key = self.key;
        if let Some(port) = port_of(sockets, index) {
            let rehash =
                |index: &u32| port_of(sockets, *index).map_or(0, |port| hash_port(&key, port));
            self.bound.insert_unique(hash_port(&key, port), index, rehash);
        }
        if let Some(ends) = ends_of(sockets, index) {
            let rehash =
                |index: &u32| ends_of(sockets, *index).map_or(0, |ends| hash_ends(&key, &ends));
            self.connected.insert_unique(hash_ends(&key, &ends), index, rehash);
        }
    }

    /// Takes a socket out; its ends are still what they were when it was entered.
    pub(super) fn remove(&mut self, sockets: &Slab<UdpSocket>, index: u32) {
        self.last = None;
        self.expected = None;
        if let Some(port) = port_of(sockets, index) {
            let hash = hash_port(&self.key, port);
            if let Ok(entry) = self.bound.find_entry(hash, |other| *other == index) {
                entry.remove();
            }
        }
        if let Some(ends) = ends_of(sockets, index) {
            let hash = hash_ends(&self.key, &ends);
            if let Ok(entry) = self.connected.find_entry(hash, |other| *other == index) {
                entry.remove();
            }
        }
    }

    /// A number that nobody outside can foresee, for the choice of a port (RFC 6056 §3.3.3).
    pub(super) fn port_offset(&self, local: IpAddr, count: u32) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(b"port");
        hasher.write(&octets(local));
        hasher.write_u32(count >> 8);
        hasher.finish().wrapping_add(u64::from(count))
    }
}
