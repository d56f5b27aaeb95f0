//! A stack with a listener, a UDP socket and a peer that this file plays: what arrives is decided
//! by the target, what leaves is read back, so that forged segments can lie near the truth.
//!
//! Owns the promises that hold whatever arrives: counters conserve, a bounded number of frames is
//! answered, and once all sockets are closed no memory, connection or timer is left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use roceway_stack::checksum::Sum;
use roceway_stack::frame::{Offloads, RxChecksum, RxFrame, TxFrame};
use roceway_stack::heap_memory::{HeapLimits, HeapMemory};
use roceway_stack::ip::{InterfaceAddress, IpConfig};
use roceway_stack::memory::Memory;
use roceway_stack::slab::Id;
use roceway_stack::stack::{Stack, StackConfig, StackKeys};
use roceway_stack::tcp::{Connection, Listener, TcpConfig};
use roceway_stack::time::{Duration, Instant};
use roceway_stack::udp::{UdpConfig, UdpSocket};

/// Ethernet address of the stack.
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Ethernet address of the peer.
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The port that the stack's listener and UDP socket have.
pub(crate) const OUR_PORT: u16 = 7;
/// The peer's port.
pub(crate) const PEER_PORT: u16 = 40_000;

/// Frames that one thing arriving may cause at most: what the send queue holds, and some.
const ANSWERS_MAX: u32 = 3000;
/// Timers that the end of all sockets may take.
const LAST_STEPS_MAX: u32 = 20_000;

/// The stack's address.
pub(crate) fn our_address(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))
    }
}

/// The peer's address.
pub(crate) fn peer_address(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))
    }
}

/// The host under test.
pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) mem: HeapMemory,
    pub(crate) now: Instant,
    pub(crate) listeners: [Id<Listener>; 2],
    pub(crate) datagrams: [Id<UdpSocket>; 2],
    pub(crate) connections: Vec<Id<Connection>>,
    /// Frames that left since they were last taken, oldest first.
    pub(crate) out: Vec<Vec<u8>>,
}

impl Host {
    /// A host whose memory is small, so that its exhaustion is within reach.
    pub(crate) fn new(offloads: Offloads) -> Host {
        let addresses = [
            InterfaceAddress { address: our_address(false), prefix_len: 24 },
            InterfaceAddress { address: our_address(true), prefix_len: 64 },
        ];
        let config = StackConfig {
            ip: IpConfig::new(OUR_MAC, &addresses),
            tcp: TcpConfig { connections_max: 64, time_wait_max: 16, ..TcpConfig::default() },
            udp: UdpConfig { sockets: 4, ..UdpConfig::default() },
            offloads,
            worker: 1,
        };
        let keys = StackKeys { ip: [1; 16], udp: [2; 16], tcp: [3; 16] };
        let now = Instant::from_nanos(1_000_000_000);
        let stack = Stack::new(config, &keys, now).expect("the configuration is right");
        let limits = HeapLimits { small: 256, chunks: 128, receive: 96, ..HeapLimits::default() };
        let mut mem = HeapMemory::new(HeapLimits { receive_low: 16, ..limits });
        let mut stack = stack;
        let families = [false, true];
        let listeners = families.map(|v6| {
            let (tcp, ip) = stack.tcp();
            tcp.listen(SocketAddr::new(our_address(v6), OUR_PORT), 4, ip).expect("a free port")
        });
        let datagrams = families.map(|v6| {
            let (udp, cx) = stack.udp(now, &mut mem);
            udp.bind(cx.ip, SocketAddr::new(our_address(v6), OUR_PORT)).expect("a free port")
        });
        Host { stack, mem, now, listeners, datagrams, connections: Vec::new(), out: Vec::new() }
    }

    /// A frame arrives, and what it causes leaves.
    pub(crate) fn deliver(&mut self, bytes: &[u8], checksum: RxChecksum, gso_size: u16) {
        if bytes.is_empty() {
            return;
        }
        let Some(pieces) = self.mem.receive_chain(bytes) else { return };
        let frame = RxFrame { pieces: &pieces, checksum, gso_size };
        self.stack.on_frame(self.now, &frame, &mut self.mem);
        self.settle();
    }

    /// Sends what is ready, accepts who waits, and checks the counters.
    pub(crate) fn settle(&mut self) {
        let mut frame = TxFrame::default();
        let mut sent = 0;
        while self.stack.poll_frame(self.now, &mut self.mem, &mut frame) {
            let mut bytes = Vec::new();
            for piece in &frame.pieces {
                bytes.extend_from_slice(self.mem.bytes(*piece));
                self.mem.release(piece.slot);
            }
            self.out.push(bytes);
            sent += 1;
            assert!(sent <= ANSWERS_MAX, "the stack sends without end");
        }
        for listener in self.listeners {
            while let Some(id) = self.stack.tcp().0.accept(listener) {
                self.connections.push(id);
            }
        }
        self.stack.check();
    }

    /// Time passes, at most to the next timer after each step.
    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..64 {
            let next = self.stack.next_deadline().max(self.now);
            if next > until {
                break;
            }
            self.now = next;
            self.stack.on_timers(self.now, 1000, &mut self.mem);
            self.settle();
        }
        self.now = self.now.max(until);
    }

    /// The application reads from every connection and writes the same back.
    pub(crate) fn echo(&mut self) {
        let mut buffer = [0; 2048];
        for id in self.connections.clone() {
            let tcp = self.stack.tcp().0;
            if let Ok(count) = tcp.receive(id, &mut buffer, &mut self.mem) {
                let _ = tcp.send(id, &buffer[..count], &mut self.mem);
            }
        }
        self.settle();
    }

    /// The application closes every connection.
    pub(crate) fn close(&mut self) {
        for id in std::mem::take(&mut self.connections) {
            self.stack.tcp().0.close(id, self.now, &mut self.mem);
        }
        self.settle();
    }

    /// Closes all sockets and waits until nothing is left.
    pub(crate) fn end(mut self) {
        self.settle();
        for listener in self.listeners {
            self.stack.tcp().0.close_listener(listener, &mut self.mem);
        }
        for id in std::mem::take(&mut self.connections) {
            self.stack.tcp().0.abort(id, &mut self.mem);
        }
        for id in self.datagrams {
            let (udp, cx) = self.stack.udp(self.now, &mut self.mem);
            udp.close(id, cx.mem).expect("the socket is open");
        }
        self.settle();
        let mut steps = 0;
        while self.stack.next_deadline() != Instant::NEVER {
            self.now = self.now.max(self.stack.next_deadline());
            self.stack.on_timers(self.now, 1000, &mut self.mem);
            self.settle();
            steps += 1;
            assert!(steps < LAST_STEPS_MAX, "a timer stays for ever");
        }
        let tcp = self.stack.tcp().0;
        assert_eq!(tcp.connections(), 0, "connections stay");
        assert_eq!(tcp.time_waits(), 0, "TIME-WAITs stay");
        assert_eq!(self.mem.live_slots(), 0, "slots are not given back");
    }
}

/// An Ethernet frame from the peer to the stack.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(14 + payload.len());
    bytes.extend_from_slice(&OUR_MAC);
    bytes.extend_from_slice(&PEER_MAC);
    bytes.extend_from_slice(&ethertype.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A packet from the peer to the stack in its frame, without fragmentation.
pub(crate) fn packet(v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    fragment(v6, protocol, payload, 0)
}

/// The same with an IPv4 fragment word: flags and offset.
pub(crate) fn fragment(v6: bool, protocol: u8, payload: &[u8], word: u16) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(40 + payload.len());
    if v6 {
        bytes.extend_from_slice(&[0x60, 0, 0, 0]);
        bytes.extend_from_slice(&length.to_be_bytes());
        // Neighbour discovery must not have passed a router (RFC 4861 §7.1).
        bytes.extend_from_slice(&[protocol, 255]);
    } else {
        bytes.extend_from_slice(&[0x45, 0]);
        bytes.extend_from_slice(&length.saturating_add(20).to_be_bytes());
        bytes.extend_from_slice(&[0, 9]);
        bytes.extend_from_slice(&word.to_be_bytes());
        bytes.extend_from_slice(&[64, protocol, 0, 0]);
    }
    for address in [peer_address(v6), our_address(v6)] {
        match address {
            IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
        }
    }
    if !v6 {
        let sum = Sum::of(&bytes).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.extend_from_slice(payload);
    ethernet(if v6 { 0x86dd } else { 0x0800 }, &bytes)
}

/// Puts the right checksum of a transport payload at `place`, with a pseudo-header or without.
pub(crate) fn fix_checksum(v6: bool, protocol: u8, payload: &mut [u8], place: usize) {
    if payload.len() < place + 2 {
        return;
    }
    payload[place..place + 2].fill(0);
    let mut sum = Sum::of(payload);
    if protocol != 1 {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        sum = sum.plus(Sum::pseudo(peer_address(v6), our_address(v6), protocol, length));
    }
    let mut value = sum.checksum();
    if protocol == 17 && value == 0 {
        value = u16::MAX;
    }
    payload[place..place + 2].copy_from_slice(&value.to_be_bytes());
}
