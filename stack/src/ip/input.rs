//! The way of a received frame through layer 3. The common case comes first: a whole TCP or UDP
//! packet between two addresses that were checked for the packet before it. Everything else is
//! examined step by step, out of line.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::counters::IpDrop;
use super::fragments::{Fragment, FragmentKey, Stored};
use super::packet::{IcmpError, Incoming, Packet, Transport};
use super::{Ip, is_host_v4, is_host_v6};
use crate::checksum::Sum;
use crate::frame::RxFrame;
use crate::memory::{Memory, Piece};
use crate::time::Instant;
use crate::wire::ethernet::{self, EthernetHeader, HEADER_LEN, HEADER_LEN_U32, ethertype};
use crate::wire::ipv4::{self, Ipv4Error, Ipv4View};
use crate::wire::ipv6::{self, Ipv6Error, Ipv6View};
use crate::wire::protocol;

const V4_LEN: usize = HEADER_LEN + ipv4::HEADER_LEN;
const V6_LEN: usize = HEADER_LEN + ipv6::HEADER_LEN;

/// What an examined frame is.
enum Verdict {
    Arp,
    Whole(Packet, u8),
    Fragment(Packet, FragmentPlace),
    Drop(IpDrop),
    /// Of no use, and its sender is told so.
    Refuse(Packet, IpDrop),
}

struct FragmentPlace {
    key: FragmentKey,
    offset: u32,
    more: bool,
}

/// What became of an ICMP message.
#[derive(Clone, Copy)]
pub(super) enum IcmpOutcome {
    Handled,
    Ndp,
    Error(IcmpError),
    Dropped(IpDrop),
}

/// Bytes of a frame.
#[inline]
pub(super) fn frame_len(pieces: &[Piece]) -> u32 {
    match pieces {
        [piece] => piece.len,
        pieces => pieces.iter().map(|piece| piece.len).fold(0, u32::saturating_add),
    }
}

/// Gives a frame's pieces back.
pub(crate) fn release<M: Memory>(pieces: &[Piece], mem: &mut M) {
    for piece in pieces {
        mem.release(piece.slot);
    }
}

/// The `len` bytes of a frame from `start` on, or as many of them as there are.
pub(crate) fn gather<M: Memory>(pieces: &[Piece], start: u32, len: u32, mem: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(len as usize);
    let mut skip = start as usize;
    for piece in pieces {
        let bytes = mem.bytes(*piece);
        let wanted = len as usize - out.len();
        if let Some(rest) = bytes.get(skip..) {
            out.extend_from_slice(&rest[..wanted.min(rest.len())]);
            skip = 0;
        } else {
            skip -= bytes.len();
        }
    }
    out
}

impl Ip {
    /// Takes a frame from the device. Its pieces are released, unless the answer hands a packet
    /// on: then they are the caller's.
    #[inline]
    pub fn on_frame<M: Memory>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        mem: &mut M,
    ) -> Incoming {
        self.counters.received += 1;
        if let Some(first) = frame.pieces.first() {
            let bytes = mem.bytes(*first);
            let frame_len = frame_len(frame.pieces);
            if let Some((packet, number)) = self.expected_v4(bytes, frame_len) {
                return self.deliver(packet, number);
            }
        }
        self.on_other_frame(now, frame, mem)
    }

    /// Hands on a packet of one of the two protocols.
    #[inline]
    fn deliver(&mut self, packet: Packet, number: u8) -> Incoming {
        if number == protocol::TCP {
            self.counters.delivered_tcp += 1;
            return Incoming::Tcp(packet);
        }
        self.counters.delivered_udp += 1;
        Incoming::Udp(packet)
    }

    /// A whole IPv4 packet of TCP or UDP without options, from and to the addresses of the last
    /// good one. Its header checksum is checked; the addresses were.
    #[inline]
    fn expected_v4(&self, bytes: &[u8], frame_len: u32) -> Option<(Packet, u8)> {
        let head = bytes.first_chunk::<V4_LEN>()?;
        let (link, header) = head.split_first_chunk::<HEADER_LEN>()?;
        let header = header.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let is_expected = header[12..] == self.expected_v4
            && header[0] == 0x45
            && link[..6] == self.mac
            && link[12..] == [0x08, 0x00]
            && header[6] & 0x3f == 0
            && header[7] == 0
            && (header[9] == protocol::TCP || header[9] == protocol::UDP);
        if !is_expected {
            return None;
        }
        let total_len = u32::from(u16::from_be_bytes([header[2], header[3]]));
        let transport_len = total_len.checked_sub(20)?;
        if total_len + HEADER_LEN_U32 > frame_len || !Sum::of_header(header).is_valid() {
            return None;
        }
        let packet = Packet {
            source: IpAddr::from([header[12], header[13], header[14], header[15]]),
            destination: IpAddr::from([header[16], header[17], header[18], header[19]]),
            transport_start: 34,
            transport_len,
            ttl: header[8],
            tos: header[1],
            to_broadcast: false,
        };
        Some((packet, header[9]))
    }

    /// The same for IPv6.
    fn expected_v6(&self, bytes: &[u8], frame_len: u32) -> Option<(Packet, u8)> {
        let head = bytes.first_chunk::<V6_LEN>()?;
        let (link, header) = head.split_first_chunk::<HEADER_LEN>()?;
        let header = header.first_chunk::<{ ipv6::HEADER_LEN }>()?;
        let is_expected = header[8..] == self.expected_v6
            && header[0] >> 4 == 6
            && link[..6] == self.mac
            && link[12..] == [0x86, 0xdd]
            && (header[6] == protocol::TCP || header[6] == protocol::UDP);
        if !is_expected {
            return None;
        }
        let view = Ipv6View::new(header).ok()?;
        let transport_len = u32::from(view.payload_len());
        if transport_len + 54 > frame_len {
            return None;
        }
        let packet = Packet {
            source: IpAddr::V6(view.source()),
            destination: IpAddr::V6(view.destination()),
            transport_start: 54,
            transport_len,
            ttl: view.hop_limit(),
            tos: view.traffic_class(),
            to_broadcast: false,
        };
        Some((packet, view.next_header()))
    }

    #[inline(never)]
    fn on_other_frame<M: Memory>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        mem: &mut M,
    ) -> Incoming {
        let first = frame.pieces.first().map_or(&[][..], |piece| mem.bytes(*piece));
        if let Some((packet, number)) = self.expected_v6(first, frame_len(frame.pieces)) {
            return self.deliver(packet, number);
        }
        let incoming = match EthernetHeader::parse(first) {
            None => self.drop_frame(IpDrop::Truncated),
            Some(link) => match self.examine(&link, first, frame_len(frame.pieces)) {
                Verdict::Drop(reason) => self.drop_frame(reason),
                Verdict::Arp => {
                    match self.on_arp(now, link, &first[HEADER_LEN..]) {
                        Ok(()) => self.counters.arp += 1,
                        Err(reason) => self.drops.add(reason),
                    }
                    Incoming::Consumed
                }
                Verdict::Whole(packet, number @ (protocol::TCP | protocol::UDP)) => {
                    self.expect(&packet, first);
                    return self.deliver(packet, number);
                }
                Verdict::Whole(packet, _) => {
                    let start = packet.transport_start;
                    let message = gather(frame.pieces, start, packet.transport_len, mem);
                    let outcome = self.on_icmp(now, &packet, &link, &message);
                    self.settle_icmp(outcome)
                }
                Verdict::Fragment(packet, place) => {
                    let start = packet.transport_start;
                    let bytes = gather(frame.pieces, start, packet.transport_len, mem);
                    self.on_fragment(now, (packet, place), &link, &bytes)
                }
                Verdict::Refuse(packet, reason) => {
                    self.refuse(now, (frame.pieces, &packet), mem);
                    self.drop_frame(reason)
                }
            },
        };
        release(frame.pieces, mem);
        incoming
    }

    fn drop_frame(&mut self, reason: IpDrop) -> Incoming {
        self.drops.add(reason);
        Incoming::Consumed
    }

    /// Remembers the addresses of a packet that passed every check, for the short way.
    fn expect(&mut self, packet: &Packet, bytes: &[u8]) {
        if packet.to_broadcast {
            return;
        }
        if packet.source.is_ipv4() {
            if let Some(pair) = bytes.get(HEADER_LEN + 12..).and_then(|rest| rest.first_chunk()) {
                self.expected_v4 = *pair;
            }
        } else if let Some(pair) = bytes.get(HEADER_LEN + 8..).and_then(|rest| rest.first_chunk()) {
            self.expected_v6 = *pair;
        }
    }

    /// Everything that can be said of a frame before its payload is read.
    fn examine(&self, link: &EthernetHeader, bytes: &[u8], frame_len: u32) -> Verdict {
        let to_us = link.destination == self.mac;
        let to_everyone = link.destination == ethernet::BROADCAST;
        if !to_us && !to_everyone && !self.is_our_link_group(link.destination) {
            return Verdict::Drop(IpDrop::NotOurMac);
        }
        let examined = match link.ethertype {
            ethertype::IPV4 => self.examine_v4(&bytes[HEADER_LEN..], frame_len),
            ethertype::IPV6 => self.examine_v6(&bytes[HEADER_LEN..], frame_len),
            ethertype::ARP => return Verdict::Arp,
            _ => return Verdict::Drop(IpDrop::UnknownEthertype),
        };
        match examined {
            // RFC 1122 §3.3.6: sent to everyone on the link but to one address.
            Ok(Verdict::Whole(packet, _) | Verdict::Fragment(packet, _))
                if !to_us && !packet.to_broadcast =>
            {
                Verdict::Drop(IpDrop::LinkBroadcast)
            }
            Ok(Verdict::Refuse(_, reason)) if !to_us => Verdict::Drop(reason),
            Ok(verdict) => verdict,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn examine_v4(&self, bytes: &[u8], frame_len: u32) -> Result<Verdict, IpDrop> {
        let view = Ipv4View::new(bytes).map_err(|error| match error {
            Ipv4Error::Truncated => IpDrop::Truncated,
            Ipv4Error::Malformed => IpDrop::Malformed,
            Ipv4Error::Checksum => IpDrop::HeaderChecksum,
        })?;
        let total_len = u32::from(view.total_len());
        if total_len + HEADER_LEN_U32 > frame_len {
            return Err(IpDrop::Truncated);
        }
        let (source, destination) = (IpAddr::V4(view.source()), IpAddr::V4(view.destination()));
        if self.is_local(source) {
            return Err(IpDrop::Land);
        }
        if !is_host_v4(view.source()) || self.is_broadcast(source) {
            return Err(IpDrop::BadSource);
        }
        let to_broadcast = self.is_broadcast(destination);
        if !to_broadcast && !self.is_local(destination) {
            return Err(IpDrop::NotForUs);
        }
        let header_len = u32::from(bytes[0] & 0x0f) * 4;
        let packet = Packet {
            source,
            destination,
            transport_start: HEADER_LEN_U32 + header_len,
            transport_len: total_len - header_len,
            ttl: view.ttl(),
            tos: view.tos(),
            to_broadcast,
        };
        if to_broadcast && view.protocol() != protocol::UDP {
            return Err(IpDrop::BroadcastNotUdp);
        }
        let is_known = matches!(view.protocol(), protocol::TCP | protocol::UDP | protocol::ICMP);
        if !is_known {
            return Ok(Verdict::Refuse(packet, IpDrop::UnknownProtocol));
        }
        if !view.is_fragment() {
            return Ok(Verdict::Whole(packet, view.protocol()));
        }
        let key = FragmentKey {
            source: view.source(),
            destination: view.destination(),
            protocol: view.protocol(),
            ident: view.ident(),
        };
        let (offset, more) = (view.fragment_offset(), view.more_fragments());
        Ok(Verdict::Fragment(packet, FragmentPlace { key, offset, more }))
    }

    fn examine_v6(&self, bytes: &[u8], frame_len: u32) -> Result<Verdict, IpDrop> {
        let view = Ipv6View::new(bytes).map_err(|error| match error {
            Ipv6Error::Truncated => IpDrop::Truncated,
            Ipv6Error::Malformed => IpDrop::Malformed,
        })?;
        let transport_len = u32::from(view.payload_len());
        if transport_len + 54 > frame_len {
            return Err(IpDrop::Truncated);
        }
        let (source, destination) = (IpAddr::V6(view.source()), IpAddr::V6(view.destination()));
        if self.is_local(source) {
            return Err(IpDrop::Land);
        }
        // RFC 4861 §4.3: a host that is choosing its address solicits from none.
        let is_icmp = view.next_header() == protocol::ICMPV6;
        let is_choosing = is_icmp && view.source().is_unspecified();
        if !is_host_v6(view.source()) && !is_choosing {
            return Err(IpDrop::BadSource);
        }
        let to_group = self.is_our_group(view.destination());
        if !to_group && !self.is_local(destination) {
            return Err(IpDrop::NotForUs);
        }
        let packet = Packet {
            source,
            destination,
            transport_start: 54,
            transport_len,
            ttl: view.hop_limit(),
            tos: view.traffic_class(),
            to_broadcast: to_group,
        };
        match view.next_header() {
            protocol::ICMPV6 => Ok(Verdict::Whole(packet, protocol::ICMPV6)),
            _ if to_group => Err(IpDrop::BroadcastNotUdp),
            number @ (protocol::TCP | protocol::UDP) => Ok(Verdict::Whole(packet, number)),
            // RFC 8200 §4: hop-by-hop, routing, fragment, ESP, AH, no next header, destination
            // options, mobility, HIP, shim6.
            0 | 43 | 44 | 50 | 51 | 59 | 60 | 135 | 139 | 140 => {
                Ok(Verdict::Refuse(packet, IpDrop::ExtensionHeader))
            }
            _ => Ok(Verdict::Refuse(packet, IpDrop::UnknownProtocol)),
        }
    }

    fn settle_icmp(&mut self, outcome: IcmpOutcome) -> Incoming {
        match outcome {
            IcmpOutcome::Handled => self.counters.icmp += 1,
            IcmpOutcome::Ndp => self.counters.ndp += 1,
            IcmpOutcome::Dropped(reason) => self.drops.add(reason),
            IcmpOutcome::Error(error) => {
                self.counters.delivered_errors += 1;
                return Incoming::Error(error);
            }
        }
        Incoming::Consumed
    }

    fn on_fragment(
        &mut self,
        now: Instant,
        (packet, place): (Packet, FragmentPlace),
        link: &EthernetHeader,
        bytes: &[u8],
    ) -> Incoming {
        let FragmentPlace { key, offset, more } = place;
        let fragment = Fragment { key, offset, more, ecn: packet.tos & 3, bytes };
        let whole = match self.reassembly.on_fragment(now, &fragment) {
            Stored::Dropped(reason) => return self.drop_frame(reason),
            Stored::Waiting => {
                self.counters.fragments += 1;
                return Incoming::Consumed;
            }
            Stored::Whole(whole) => whole,
        };
        self.counters.fragments += 1;
        self.counters.fragments_used += whole.fragments;
        self.counters.reassembled += 1;
        let packet = Packet {
            transport_start: 0,
            transport_len: u32::try_from(whole.payload.len()).unwrap_or(0),
            tos: packet.tos & !3 | whole.ecn,
            ..packet
        };
        match key.protocol {
            protocol::TCP => {
                self.counters.reassembled_delivered += 1;
                Incoming::ReassembledTcp(packet, whole.payload)
            }
            protocol::UDP => {
                self.counters.reassembled_delivered += 1;
                Incoming::ReassembledUdp(packet, whole.payload)
            }
            _ => match self.on_icmp(now, &packet, link, &whole.payload) {
                IcmpOutcome::Handled | IcmpOutcome::Ndp => {
                    self.counters.reassembled_icmp += 1;
                    Incoming::Consumed
                }
                IcmpOutcome::Dropped(_) => {
                    self.counters.reassembled_dropped += 1;
                    Incoming::Consumed
                }
                IcmpOutcome::Error(error) => {
                    self.counters.reassembled_delivered += 1;
                    Incoming::Error(error)
                }
            },
        }
    }

    /// The transport of a protocol number, if it has ports.
    pub(super) fn transport(number: u8) -> Option<Transport> {
        match number {
            protocol::TCP => Some(Transport::Tcp),
            protocol::UDP => Some(Transport::Udp),
            _ => None,
        }
    }
}
