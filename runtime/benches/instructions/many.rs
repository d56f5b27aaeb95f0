//! One stack with 100,000 connections. Their peer is a few lines that make frames, so that setting
//! them up costs an instruction counter seconds and not minutes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roceway_runtime::stack::frame::{Offloads, RxChecksum, RxFrame, TxFrame};
use roceway_runtime::stack::heap_memory::HeapMemory;
use roceway_runtime::stack::ip::{InterfaceAddress, IpConfig};
use roceway_runtime::stack::memory::Memory;
use roceway_runtime::stack::stack::{Stack, StackConfig, StackKeys};
use roceway_runtime::stack::tcp::TcpConfig;
use roceway_runtime::stack::tcp::seq::SeqNum;
use roceway_runtime::stack::time::{Duration, Instant};
use roceway_runtime::stack::udp::UdpConfig;
use roceway_runtime::stack::wire::arp::{ArpOperation, ArpPacket};
use roceway_runtime::stack::wire::ethernet::{EthernetHeader, ethertype};
use roceway_runtime::stack::wire::ipv4::{DONT_FRAGMENT, Ipv4Header};
use roceway_runtime::stack::wire::tcp::{TcpFlags, TcpHeader};

use super::counted_step;

const CONNECTIONS: usize = 100_000;
/// Each listener has connections from so many ports.
const PORTS: [u16; 2] = [7, 8];
const PORT_FIRST: u16 = 10_000;
const EACH: usize = CONNECTIONS / PORTS.len();
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The peer's initial sequence number in all of them.
const PEER_ISS: u32 = 1000;
/// A stride without a common divisor with the number of connections: neighbours in time are none
/// in memory.
const STRIDE: usize = 38_197;

struct World {
    stack: Stack,
    mem: HeapMemory,
    now: Instant,
    out: TxFrame,
}

/// Ports of connection `n`: the peer's, ours.
fn ports(n: usize) -> (u16, u16) {
    let from = PORT_FIRST + u16::try_from(n % EACH).expect("a port");
    (from, PORTS[n / EACH])
}

/// A segment of connection `n` without payload.
fn segment(n: usize, flags: TcpFlags, (seq, ack): (u32, u32)) -> [u8; 54] {
    let (source_port, destination_port) = ports(n);
    let mut frame = [0; 54];
    let ethernet =
        EthernetHeader { destination: MAC, source: PEER_MAC, ethertype: ethertype::IPV4 };
    frame[..14].copy_from_slice(&ethernet.to_bytes());
    let ip = Ipv4Header {
        tos: 0,
        total_len: 40,
        ident: 0,
        flags_and_offset: DONT_FRAGMENT,
        ttl: 64,
        protocol: 6,
        source: PEER,
        destination: OURS,
    };
    frame[14..34].copy_from_slice(&ip.to_bytes());
    let tcp = TcpHeader {
        source_port,
        destination_port,
        seq: SeqNum::new(seq),
        ack: SeqNum::new(ack),
        flags,
        window: 65_535,
        urgent: 0,
        header_len: 20,
    };
    let (_, fixed) = frame.split_last_chunk_mut::<20>().expect("a TCP header");
    tcp.emit(fixed);
    frame
}

impl World {
    fn new() -> World {
        let address = InterfaceAddress { address: IpAddr::V4(OURS), prefix_len: 24 };
        let tcp = TcpConfig { connections_max: 1 << 17, ..TcpConfig::default() };
        let config = StackConfig {
            ip: IpConfig::new(MAC, &[address]),
            tcp,
            udp: UdpConfig::default(),
            offloads: Offloads { tx_checksum: true, tso4: true, tso6: true, ..Offloads::default() },
            worker: 0,
        };
        let keys = StackKeys { ip: [1; 16], udp: [2; 16], tcp: [3; 16] };
        let now = Instant::ZERO + Duration::from_secs(1);
        let stack = Stack::new(config, &keys, now).expect("a stack");
        World { stack, mem: HeapMemory::default(), now, out: TxFrame::default() }
    }

    fn take(&mut self, bytes: &[u8]) {
        let piece = self.mem.receive(bytes).expect("a receive slot");
        let pieces = [piece];
        let frame = RxFrame { pieces: &pieces, checksum: RxChecksum::Valid, gso_size: 0 };
        self.stack.on_frame(self.now, &frame, &mut self.mem);
    }

    /// The next frame that the stack sends, if there is one.
    fn sent(&mut self) -> Option<Vec<u8>> {
        self.out = TxFrame::default();
        if !self.stack.poll_frame(self.now, &mut self.mem, &mut self.out) {
            return None;
        }
        let mut bytes = Vec::new();
        for piece in &self.out.pieces {
            bytes.extend_from_slice(self.mem.bytes(*piece));
            self.mem.release(piece.slot);
        }
        Some(bytes)
    }

    /// Says what the peer's hardware address is, if that is asked.
    fn answer_arp(&mut self, asked: &[u8]) {
        let packet = ArpPacket::parse(&asked[14..]).expect("an ARP request");
        assert_eq!(packet.target, PEER);
        let reply = ArpPacket {
            operation: ArpOperation::Reply,
            sender_mac: PEER_MAC,
            sender: PEER,
            target_mac: MAC,
            target: OURS,
        };
        let ethernet =
            EthernetHeader { destination: MAC, source: PEER_MAC, ethertype: ethertype::ARP };
        let mut bytes = ethernet.to_bytes().to_vec();
        bytes.extend_from_slice(&reply.to_bytes());
        self.take(&bytes);
    }

    /// Opens connection `n`; returns the sequence number that the stack sends next in it.
    fn open(&mut self, n: usize) -> u32 {
        self.take(&segment(n, TcpFlags::SYN, (PEER_ISS, 0)));
        let mut answer = self.sent().expect("a frame after a SYN");
        if answer[12..14] == ethertype::ARP.to_be_bytes() {
            self.answer_arp(&answer);
            answer = self.sent().expect("SYN and ACK");
        }
        let header = TcpHeader::parse(&answer[34..]).expect("a TCP header");
        let snd_nxt = header.seq.get().wrapping_add(1);
        self.take(&segment(n, TcpFlags::ACK, (PEER_ISS + 1, snd_nxt)));
        snd_nxt
    }
}

/// An acknowledgement that says nothing new for another one of 100,000 connections each time:
/// headers parsed, the connection found by its hash, RFC 9293's steps.
pub(super) fn lookup(count: u64) {
    let mut world = World::new();
    let (tcp, ip) = world.stack.tcp();
    let listeners = PORTS
        .map(|port| tcp.listen(SocketAddr::new(OURS.into(), port), 128, ip).expect("a listener"));
    let mut next = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        next.push(world.open(n));
        let accepted = world.stack.tcp().0.accept(listeners[n / EACH]);
        assert!(accepted.is_some(), "connection {n} was not established");
    }
    let before = world.stack.tcp().0.counters();
    let mut n = 0;
    for _ in 0..count {
        n = (n + STRIDE) % CONNECTIONS;
        let bytes = segment(n, TcpFlags::ACK, (PEER_ISS + 1, next[n]));
        let piece = world.mem.receive(&bytes).expect("a receive slot");
        let pieces = [piece];
        let frame = RxFrame { pieces: &pieces, checksum: RxChecksum::Valid, gso_size: 0 };
        counted_step(|| world.stack.on_frame(world.now, &frame, &mut world.mem));
    }
    let after = world.stack.tcp().0.counters();
    assert_eq!(after.processed - before.processed, count, "each segment found its connection");
    assert_eq!(after.predicted, before.predicted, "none was for the last connection hit");
}
