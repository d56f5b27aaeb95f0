//! ICMP for both families (RFC 792, RFC 1122 §3.2.2, RFC 4443): echo, and the errors that we send,
//! under a rate limit.
//!
//! Answers go to the Ethernet address that the question came from: no lookup, no waiting.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::counters::IpDrop;
use super::input::{IcmpOutcome, gather};
use super::packet::Packet;
use super::{Ip, TTL};
use crate::checksum::Sum;
use crate::frame::RxFrame;
use crate::memory::{Memory, Piece};
use crate::time::Instant;
use crate::wire::ethernet::{EthernetHeader, HEADER_LEN_U32, MacAddr, ethertype, is_unicast};
use crate::wire::icmpv4::{self, IcmpHeader};
use crate::wire::icmpv6;
use crate::wire::ipv4::{Ipv4Header, MORE_FRAGMENTS};
use crate::wire::ipv6::Ipv6Header;
use crate::wire::{ndp, protocol};

/// Longest ICMP error over IPv4, IP header included (RFC 1812 §4.3.2.3).
const ERROR_LEN_V4: u32 = 576;
/// The same over IPv6 (RFC 4443 §2.4 (c)).
const ERROR_LEN_V6: u32 = 1280;

/// A token bucket: so many a second, and as many at once after a pause.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u64,
    /// In billionths of a token.
    credit: u64,
    updated: Instant,
}

impl RateLimit {
    const TOKEN: u64 = 1_000_000_000;

    pub(super) fn new(per_second: u16) -> RateLimit {
        let per_second = u64::from(per_second);
        RateLimit { per_second, credit: per_second * Self::TOKEN, updated: Instant::ZERO }
    }

    /// Whether one more may go now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.updated).as_nanos().saturating_mul(self.per_second);
        self.credit = self.credit.saturating_add(earned).min(self.per_second * Self::TOKEN);
        self.updated = now;
        match self.credit.checked_sub(Self::TOKEN) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

/// An error to send, as its header says it.
struct ErrorHead {
    kind: u8,
    code: u8,
    rest: [u8; 4],
}

/// Where an answer goes: everything of its headers that depends on the question.
struct Answer {
    mac: MacAddr,
    source: IpAddr,
    destination: IpAddr,
}

impl Ip {
    /// Takes an ICMP message of either family.
    pub(super) fn on_icmp(
        &mut self,
        now: Instant,
        packet: &Packet,
        link: &EthernetHeader,
        message: &[u8],
    ) -> IcmpOutcome {
        let Some(header) = IcmpHeader::parse(message) else {
            return IcmpOutcome::Dropped(IpDrop::Truncated);
        };
        let is_v6 = packet.source.is_ipv6();
        let pseudo = if is_v6 {
            Sum::pseudo(packet.source, packet.destination, protocol::ICMPV6, packet.transport_len)
        } else {
            Sum::ZERO
        };
        if !pseudo.plus(Sum::of(message)).is_valid() {
            return IcmpOutcome::Dropped(IpDrop::IcmpChecksum);
        }
        let quoted = &message[icmpv4::HEADER_LEN..];
        let echo_request =
            if is_v6 { icmpv6::kind::ECHO_REQUEST } else { icmpv4::kind::ECHO_REQUEST };
        if header.kind == echo_request {
            self.on_echo(packet, link, message);
            return IcmpOutcome::Handled;
        }
        if is_v6 && matches!(header.kind, ndp::SOLICITATION | ndp::ADVERTISEMENT) {
            return match self.on_ndp(now, packet, link.source, message) {
                Ok(()) => IcmpOutcome::Ndp,
                Err(reason) => IcmpOutcome::Dropped(reason),
            };
        }
        let error = match is_v6 {
            true if icmpv6::is_error(header.kind) => self.parse_error_v6(&header, quoted),
            false if icmpv4::is_error(header.kind) => self.parse_error_v4(&header, quoted),
            // Echo replies, router discovery, multicast listener queries: nothing of ours.
            _ => Ok(None),
        };
        match error {
            Ok(Some(error)) => IcmpOutcome::Error(error),
            Ok(None) => IcmpOutcome::Handled,
            Err(reason) => IcmpOutcome::Dropped(reason),
        }
    }

    /// RFC 1122 §3.2.2.6, RFC 4443 §4.2: the same data back. Requests to a group are not answered
    /// (RFC 1122 lets a host ignore them; they amplify).
    fn on_echo(&mut self, packet: &Packet, link: &EthernetHeader, message: &[u8]) {
        if packet.to_broadcast || packet.source.is_unspecified() || !is_unicast(link.source) {
            return;
        }
        let is_v6 = packet.source.is_ipv6();
        let mut reply = message.to_vec();
        reply[0] = if is_v6 { icmpv6::kind::ECHO_REPLY } else { icmpv4::kind::ECHO_REPLY };
        reply[1] = 0;
        let answer =
            Answer { mac: link.source, source: packet.destination, destination: packet.source };
        if self.push_icmp(&answer, reply) {
            self.counters.echo_replies += 1;
        }
    }

    /// Tells the sender of a datagram in a frame that nobody listens on its port (RFC 1122
    /// §4.1.3.1), within the rate limit. The frame's pieces stay the caller's.
    #[inline(never)]
    pub fn port_unreachable<M: Memory>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        packet: &Packet,
        mem: &M,
    ) {
        let head = if packet.source.is_ipv6() {
            let (kind, code) = (icmpv6::kind::UNREACHABLE, icmpv6::unreachable::PORT);
            ErrorHead { kind, code, rest: [0; 4] }
        } else {
            let (kind, code) = (icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PORT);
            ErrorHead { kind, code, rest: [0; 4] }
        };
        self.send_error(now, (frame.pieces, packet), &head, mem);
    }

    /// Tells the sender of a packet what of it was not understood (RFC 1122 §3.2.2.1, RFC 4443
    /// §3.4).
    pub(super) fn refuse<M: Memory>(
        &mut self,
        now: Instant,
        offender: (&[Piece], &Packet),
        mem: &M,
    ) {
        let head = if offender.1.source.is_ipv6() {
            // What is not known is named by the fixed header's next header field, at offset 6.
            let kind = icmpv6::kind::PARAMETER_PROBLEM;
            let code = icmpv6::parameter_problem::UNKNOWN_NEXT_HEADER;
            ErrorHead { kind, code, rest: [0, 0, 0, 6] }
        } else {
            let (kind, code) = (icmpv4::kind::UNREACHABLE, icmpv4::unreachable::PROTOCOL);
            ErrorHead { kind, code, rest: [0; 4] }
        };
        self.send_error(now, offender, &head, mem);
    }

    /// Queues an error about a packet that is no ICMP error itself, was sent to us alone and by
    /// one host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
    fn send_error<M: Memory>(
        &mut self,
        now: Instant,
        (pieces, packet): (&[Piece], &Packet),
        head: &ErrorHead,
        mem: &M,
    ) {
        let Some(link) = pieces.first().and_then(|piece| EthernetHeader::parse(mem.bytes(*piece)))
        else {
            return;
        };
        let is_answerable = !packet.to_broadcast
            && link.destination == self.mac
            && is_unicast(link.source)
            && !packet.source.is_unspecified();
        if !is_answerable {
            return;
        }
        if !self.error_limit.take(now) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let ours = if packet.source.is_ipv6() { ERROR_LEN_V6 - 48 } else { ERROR_LEN_V4 - 28 };
        let packet_len = packet.transport_start - HEADER_LEN_U32 + packet.transport_len;
        let quoted = gather(pieces, HEADER_LEN_U32, packet_len.min(ours), mem);
        let header = IcmpHeader { kind: head.kind, code: head.code, checksum: 0, rest: head.rest };
        let mut message = Vec::with_capacity(icmpv4::HEADER_LEN + quoted.len());
        message.extend_from_slice(&header.to_bytes());
        message.extend_from_slice(&quoted);
        let answer =
            Answer { mac: link.source, source: packet.destination, destination: packet.source };
        if self.push_icmp(&answer, message) {
            self.counters.icmp_errors += 1;
        }
    }

    /// Sets the checksum of a message and queues it, in fragments if it must be (IPv4 only).
    fn push_icmp(&mut self, answer: &Answer, mut message: Vec<u8>) -> bool {
        message[2..4].fill(0);
        let Ok(len) = u16::try_from(message.len()) else { return false };
        match (answer.source, answer.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let checksum = Sum::of(&message).checksum();
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                let header = Ipv4Header {
                    tos: 0,
                    total_len: 0,
                    ident: self.next_ident(),
                    flags_and_offset: 0,
                    ttl: TTL,
                    protocol: protocol::ICMP,
                    source,
                    destination,
                };
                self.push_v4(answer.mac, header, &message)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let pseudo = Sum::pseudo_v6(source, destination, protocol::ICMPV6, u32::from(len));
                let checksum = pseudo.plus(Sum::of(&message)).checksum();
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                let header = Ipv6Header {
                    traffic_class: 0,
                    payload_len: len,
                    next_header: protocol::ICMPV6,
                    hop_limit: TTL,
                    source,
                    destination,
                };
                let mut frame = Vec::with_capacity(54 + message.len());
                frame.extend_from_slice(&self.link_header(answer.mac, ethertype::IPV6));
                frame.extend_from_slice(&header.to_bytes());
                frame.extend_from_slice(&message);
                self.control.push(frame)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Queues an IPv4 packet in as many fragments as the MTU asks for; `false` if not all found
    /// room.
    fn push_v4(&mut self, mac: MacAddr, header: Ipv4Header, payload: &[u8]) -> bool {
        let per_fragment = fragment_payload(self.mtu);
        let mut offset = 0u16;
        let mut rest = payload;
        loop {
            let room = usize::from(self.mtu) - 20;
            let take = if rest.len() <= room { rest.len() } else { usize::from(per_fragment) };
            let (now, later) = rest.split_at(take);
            let more = if later.is_empty() { 0 } else { MORE_FRAGMENTS };
            let total_len = u16::try_from(20 + now.len()).unwrap_or(u16::MAX);
            let header = Ipv4Header { total_len, flags_and_offset: (offset / 8) | more, ..header };
            let mut frame = Vec::with_capacity(34 + now.len());
            frame.extend_from_slice(&self.link_header(mac, ethertype::IPV4));
            frame.extend_from_slice(&header.to_bytes());
            frame.extend_from_slice(now);
            if !self.control.push(frame) {
                return false;
            }
            if later.is_empty() {
                return true;
            }
            offset = offset.saturating_add(per_fragment);
            rest = later;
        }
    }
}

/// Payload bytes of each IPv4 fragment but the last: a multiple of 8 (RFC 791 §3.2).
pub(crate) fn fragment_payload(mtu: u16) -> u16 {
    (mtu.saturating_sub(20) & !7).max(8)
}
