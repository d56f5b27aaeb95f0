//! One interface, frames made by hand, and after each test the check that every frame and slot is
//! accounted for.

mod discovery;
mod hostile;
mod icmp;
mod input;

use std::vec::Vec;

use super::*;
use crate::checksum::Sum;
use crate::frame::{RxChecksum, RxFrame};
use crate::heap_memory::{HeapLimits, HeapMemory};
use crate::time::Duration;
use crate::wire::ethernet::ethertype;
use crate::wire::ipv4::Ipv4Header;
use crate::wire::ipv6::Ipv6Header;

const OUR_MAC: MacAddr = [2, 0, 0, 0, 0, 1];
const PEER_MAC: MacAddr = [2, 0, 0, 0, 0, 2];
const OUR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

fn config() -> IpConfig {
    let mut config = IpConfig::new(
        OUR_MAC,
        &[
            InterfaceAddress { address: OUR_V4.into(), prefix_len: 24 },
            InterfaceAddress { address: OUR_V6.into(), prefix_len: 64 },
        ],
    );
    config.routes.push(StaticRoute::default_through(IpAddr::from([10, 0, 0, 254])));
    config
}

/// An interface and its memory.
struct World {
    ip: Ip,
    mem: HeapMemory,
    now: Instant,
    checksum: RxChecksum,
}

impl World {
    fn new() -> World {
        World::with(config())
    }

    fn with(config: IpConfig) -> World {
        World {
            ip: Ip::new(config, [7; 16]).unwrap(),
            mem: HeapMemory::new(HeapLimits::default()),
            now: Instant::from_nanos(1),
            checksum: RxChecksum::Unknown,
        }
    }

    /// Receives a frame; a packet that is handed on is given back at once.
    fn give(&mut self, bytes: &[u8]) -> Incoming {
        let pieces = self.mem.receive_chain(bytes).unwrap();
        let frame = RxFrame { pieces: &pieces, checksum: self.checksum, gso_size: 0 };
        let incoming = self.ip.on_frame(self.now, &frame, &mut self.mem);
        if matches!(incoming, Incoming::Tcp(_) | Incoming::Udp(_)) {
            release(&pieces, &mut self.mem);
        }
        incoming
    }

    /// Receives a frame that is nobody's but layer 3's.
    fn feed(&mut self, bytes: &[u8]) {
        assert_eq!(self.give(bytes), Incoming::Consumed);
    }

    /// Every control frame that waits.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut out = TxFrame::default();
        while self.ip.poll_frame(&mut self.mem, &mut out) {
            assert_eq!(out.pieces[0].start, crate::frame::TX_HEADROOM);
            let len = out.pieces.iter().map(|piece| piece.len).sum();
            frames.push(gather(&out.pieces, 0, len, &self.mem));
            release(&out.pieces, &mut self.mem);
        }
        frames
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.ip.on_timers(self.now);
    }

    /// Whether the frame was dropped for exactly this reason.
    fn drops(&mut self, bytes: &[u8], reason: IpDrop) -> bool {
        let before = self.ip.drops().get(reason);
        let incoming = self.give(bytes);
        incoming == Incoming::Consumed && self.ip.drops().get(reason) == before + 1
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ip.check();
            assert_eq!(self.mem.live_slots(), 0, "slots leak");
        }
    }
}

fn link(destination: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header = EthernetHeader { destination, source: PEER_MAC, ethertype };
    let mut frame = header.to_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// The header of a packet from the peer to us.
fn header_v4(protocol: u8, payload_len: usize) -> Ipv4Header {
    Ipv4Header {
        tos: 0,
        total_len: u16::try_from(20 + payload_len).unwrap(),
        ident: 77,
        flags_and_offset: 0,
        ttl: 64,
        protocol,
        source: PEER_V4,
        destination: OUR_V4,
    }
}

fn frame_v4(header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = header.to_bytes().to_vec();
    packet.extend_from_slice(payload);
    link(OUR_MAC, ethertype::IPV4, &packet)
}

fn header_v6(next_header: u8, payload_len: usize) -> Ipv6Header {
    Ipv6Header {
        traffic_class: 0,
        payload_len: u16::try_from(payload_len).unwrap(),
        next_header,
        hop_limit: 64,
        source: PEER_V6,
        destination: OUR_V6,
    }
}

fn frame_v6(header: Ipv6Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = header.to_bytes().to_vec();
    packet.extend_from_slice(payload);
    link(OUR_MAC, ethertype::IPV6, &packet)
}

/// An ICMP message with its checksum; the pseudo-header's sum is zero over IPv4.
fn icmp_message(kind: u8, code: u8, rest: [u8; 4], data: &[u8], pseudo: Sum) -> Vec<u8> {
    let mut message = std::vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(data);
    let checksum = pseudo.plus(Sum::of(&message)).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn pseudo_icmp_v6(header: &Ipv6Header) -> Sum {
    Sum::pseudo_v6(header.source, header.destination, 58, u32::from(header.payload_len))
}
