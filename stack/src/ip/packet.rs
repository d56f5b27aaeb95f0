//! What the transports are given: a packet in a frame, or an error that someone reported.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// A packet for a transport: checked up to and with the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Where it comes from: the address of one host, never ours.
    pub source: IpAddr,
    /// Where it goes: ours, or everyone.
    pub destination: IpAddr,
    /// First byte of the transport header, counted from the Ethernet header.
    pub transport_start: u32,
    /// Bytes from there to the packet's end. The frame may be longer (padding), never shorter.
    pub transport_len: u32,
    /// Hops left.
    pub ttl: u8,
    /// Type of service or traffic class, ECN in the lower two bits.
    pub tos: u8,
    /// Whether everyone was addressed; only with UDP.
    pub to_broadcast: bool,
}

/// What became of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Incoming {
    /// Nothing to do; its pieces have been released.
    Consumed,
    /// For TCP. The pieces are the caller's.
    Tcp(Packet),
    /// For UDP. The pieces are the caller's.
    Udp(Packet),
    /// An error for a transport; the frame's pieces have been released.
    Error(IcmpError),
    /// A segment made whole from fragments, from its first byte on; `transport_start` is 0 and
    /// the frame's pieces have been released.
    ReassembledTcp(Packet, Vec<u8>),
    /// A datagram made whole from fragments, likewise.
    ReassembledUdp(Packet, Vec<u8>),
}

/// A transport that has ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpErrorKind {
    /// No route to the network.
    NetworkUnreachable,
    /// The host does not answer.
    HostUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// Somebody forbids it.
    Prohibited,
    /// Too big for a link on the way, whose MTU this is. Smaller than the interface's; at least
    /// 552 over IPv4 and 1280 over IPv6.
    PacketTooBig(u16),
    /// The time to live, or the time to reassemble, ran out.
    TimeExceeded,
    /// Something in the header was not understood.
    ParameterProblem,
}

/// An ICMP error about a packet that one of our addresses sent. Anyone can forge one: the
/// transport checks `sequence` (RFC 5927 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// The transport of the packet.
    pub transport: Transport,
    /// The packet's source: ours.
    pub local: SocketAddr,
    /// The packet's destination.
    pub remote: SocketAddr,
    /// What happened to it.
    pub kind: IcmpErrorKind,
    /// The sequence number of a TCP segment; for UDP, length and checksum.
    pub sequence: u32,
}

/// Where a packet goes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The address of ours to send from.
    pub source: IpAddr,
    /// The neighbour to give it to: the destination itself or a gateway.
    pub next_hop: IpAddr,
    /// Bytes of the longest packet, IP header included.
    pub mtu: u16,
}

/// A neighbour's Ethernet address, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Known.
    Resolved([u8; 6]),
    /// Asked for. [`super::Ip::neighbor_generation`] changes when it is known or given up.
    Pending,
    /// It did not answer, or is on no link of ours.
    Unreachable,
}
