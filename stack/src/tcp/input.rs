//! What IP hands up: segments, and ICMP errors about segments of ours.

use core::net::Ipv4Addr;

use super::connection::{Connection, Ownership};
use super::demux::Endpoint;
use super::error::ConnectionError;
use super::fast_path::Expected;
use super::receiver::{Payload, PayloadPieces, Receiver};
use super::reply::Reply;
use super::segment::Segment;
use super::sender::Sender;
use super::seq::SeqNum;
use super::state::{Origin, State};
use super::time_wait::TimeWaitVerdict;
use super::tuple::FourTuple;
use super::{Disposition, Tcp};
use crate::checksum::Sum;
use crate::frame::{RxChecksum, RxFrame, Taken};
use crate::ip::{IcmpError, IcmpErrorKind, Ip, Packet};
use crate::memory::{Memory, Piece};
use crate::time::Instant;
use crate::wire::prediction::{FlowV4, native, word};
use crate::wire::protocol;
use crate::wire::tcp::{ALIGNED_TIMESTAMPS_WORD, Options, TcpFlags, TcpHeader, Timestamps};

/// Ethernet and IPv4 headers, and TCP's with timestamps.
const V4_HEADERS: usize = 14 + 20 + 32;
const V4_HEADERS_LEN: u32 = 14 + 20 + 32;
const ETHERNET_LEN: u32 = 14;

/// Where the bytes of a frame are that the fast path may be for.
#[derive(Clone, Copy)]
pub(crate) enum FramePieces<'a> {
    One(Piece),
    Several(&'a [Piece]),
}

impl FramePieces<'_> {
    #[inline]
    fn checksum_is_right<M: Memory>(self, len: u32, mem: &M) -> bool {
        match self {
            FramePieces::One(piece) => checksum_is_right(&[piece], len, mem),
            FramePieces::Several(pieces) => checksum_is_right(pieces, len, mem),
        }
    }
}

/// Where a segment's bytes are.
pub(crate) enum SegmentBytes<'a> {
    /// In a frame; the pieces are owned.
    Frame(&'a RxFrame<'a>),
    /// Put together from fragments, from the TCP header on.
    Whole(&'a [u8]),
}

impl Tcp {
    /// Takes a frame whose headers are exactly those that the connection of the last segment
    /// expects (header prediction): no parsing, no hashing. A short payload is copied.
    #[inline]
    pub(crate) fn on_expected_frame<M: Memory>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        mem: &mut M,
    ) -> Taken {
        let pieces = match frame.pieces {
            [piece] => FramePieces::One(*piece),
            pieces => FramePieces::Several(pieces),
        };
        self.on_expected_pieces(now, pieces, (frame.checksum, frame.gso_size), mem)
    }

    /// As [`Tcp::on_expected_frame`]; what is known of the frame is mostly known where it is
    /// compiled.
    #[inline(always)]
    pub(crate) fn on_expected_pieces<M: Memory>(
        &mut self,
        now: Instant,
        pieces: FramePieces<'_>,
        (checksum, gso_size): (RxChecksum, u16),
        mem: &mut M,
    ) -> Taken {
        let index = self.last_hit;
        let Some((connection, mut ctx)) = self.at(index, now, mem) else { return Taken::No };
        if !connection.fast {
            return Taken::No;
        }
        let (first, len) = match pieces {
            FramePieces::One(piece) => (piece, piece.len),
            FramePieces::Several(pieces) => {
                let Some(&first) = pieces.first() else { return Taken::No };
                (first, pieces.iter().map(|piece| piece.len).sum())
            }
        };
        let bytes = ctx.mem.bytes(first);
        let Some((headers, behind)) = bytes.split_first_chunk::<V4_HEADERS>() else {
            return Taken::No;
        };
        let Some(expected) = expect_v4(headers, len, &connection.expectation) else {
            return Taken::No;
        };
        // The headers of joined segments are still those of the first.
        let total = u32::from(u16::from_be_bytes([headers[16], headers[17]]));
        if total + ETHERNET_LEN != len && (gso_size == 0 || total + ETHERNET_LEN < V4_HEADERS_LEN) {
            return Taken::No;
        }
        if checksum == RxChecksum::Unknown && !pieces.checksum_is_right(len, ctx.mem) {
            return Taken::No;
        }
        let Some(acked) = connection.expects(&expected) else { return Taken::No };
        let is_one = matches!(pieces, FramePieces::One(_));
        let is_copied = is_one && connection.rcv.queue.push_short(behind);
        let is_kept = !is_copied && expected.payload_len > 0;
        if is_kept {
            match pieces {
                FramePieces::One(piece) => connection.queue_expected(piece, &mut ctx),
                FramePieces::Several(pieces) => {
                    connection.queue_expected_pieces(pieces, &mut ctx);
                }
            }
        }
        connection.on_expected((&expected, acked), &mut ctx);
        ctx.counters.predicted += 1;
        let unsettled = connection.is_unsettled();
        if unsettled {
            self.settle(index);
        }
        if is_kept { Taken::Kept } else { Taken::Copied }
    }

    /// The same for the connection that the frame is for, if it looks like one for the fast path
    /// and the last segment was not of that connection.
    #[inline(never)]
    pub(crate) fn on_expected_of_another<M: Memory>(
        &mut self,
        now: Instant,
        frame: &RxFrame<'_>,
        mem: &mut M,
    ) -> Taken {
        let Some(tuple) = frame.pieces.first().and_then(|first| plain_tuple(mem.bytes(*first)))
        else {
            return Taken::No;
        };
        let Some(Endpoint::Connection(index)) = self.find(&tuple) else { return Taken::No };
        if index == self.last_hit {
            return Taken::No;
        }
        self.last_hit = index;
        self.on_expected_frame(now, frame, mem)
    }

    /// Takes a segment.
    pub(crate) fn on_packet<M: Memory>(
        &mut self,
        packet: &Packet,
        bytes: &SegmentBytes<'_>,
        (now, ip): (Instant, &Ip),
        mem: &mut M,
    ) {
        self.counters.segments_received += 1;
        let parsed = parse(packet, bytes, mem);
        let (header, options) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => {
                match why {
                    Malformed::Header => self.counters.dropped_malformed += 1,
                    Malformed::Checksum => self.counters.dropped_checksum += 1,
                }
                release_all(bytes, mem);
                return;
            }
        };
        if ip.is_broadcast(packet.destination) || packet.destination.is_multicast() {
            // RFC 9293 §3.9.2.3, MUST-57.
            self.counters.dropped_bad_source += 1;
            release_all(bytes, mem);
            return;
        }
        let tuple = FourTuple {
            local: packet.destination,
            remote: packet.source,
            local_port: header.destination_port,
            remote_port: header.source_port,
        };
        // Filled where it lies, and handed on by reference: it has room for many pieces.
        let payload = Payload::Pieces(PayloadPieces::new());
        let mut segment = Segment { header, options, payload, tos: packet.tos };
        let header_len = u32::from(header.header_len);
        take_payload(&mut segment.payload, (packet, header_len), bytes, mem);
        if segment.payload.len() + header_len < packet.transport_len {
            // More pieces than are taken at once: the rest will come again, and the FIN with it.
            segment.header.flags = header.flags.without(TcpFlags::FIN);
        }
        self.dispatch(&tuple, &mut segment, (now, ip), mem);
    }

    fn dispatch<M: Memory>(
        &mut self,
        tuple: &FourTuple,
        segment: &mut Segment<'_>,
        (now, ip): (Instant, &Ip),
        mem: &mut M,
    ) {
        let hit =
            self.connections.at(self.last_hit).is_some_and(|c| c.in_demux && c.tuple == *tuple);
        let endpoint =
            if hit { Some(Endpoint::Connection(self.last_hit)) } else { self.find(tuple) };
        match endpoint {
            Some(Endpoint::Connection(index)) => {
                self.last_hit = index;
                self.counters.processed += 1;
                self.on_connection_segment(index, segment, now, mem);
                segment.payload.release(mem);
            }
            Some(Endpoint::TimeWait(index)) => {
                self.on_time_wait_segment(index, segment, (now, ip), mem);
            }
            None => self.on_unknown_segment(tuple, segment, (now, ip), mem),
        }
    }

    fn on_connection_segment<M: Memory>(
        &mut self,
        index: u32,
        segment: &mut Segment<'_>,
        now: Instant,
        mem: &mut M,
    ) {
        let payload_len = segment.payload.len();
        let Some((connection, mut ctx)) = self.at(index, now, mem) else { return };
        let disposition = connection.on_segment(segment, &mut ctx);
        if disposition == Disposition::Reset {
            let tuple = connection.tuple;
            let marking = connection.snd.template.marking();
            if let Some(reply) = Reply::reset(tuple, &segment.header, payload_len) {
                let reply = Reply { marking, ..reply };
                self.counters.resets_sent += 1;
                self.reply(reply);
            }
        }
        self.perform(index, disposition, now, mem);
    }

    fn on_time_wait_segment<M: Memory>(
        &mut self,
        index: u32,
        segment: &mut Segment<'_>,
        (now, ip): (Instant, &Ip),
        mem: &mut M,
    ) {
        let lasts = self.config.msl.saturating_mul(2);
        let Some(entry) = self.time_waits.at_mut(index) else {
            segment.payload.release(mem);
            return;
        };
        let tuple = entry.tuple;
        let payload_len = segment.payload.len();
        match entry.on_segment(&segment.header, &segment.options, payload_len, (now, lasts)) {
            TimeWaitVerdict::Ignore => {}
            TimeWaitVerdict::Answer(reply) => self.reply(reply),
            TimeWaitVerdict::Reopen => {
                self.counters.time_waits_reused += 1;
                self.remove_time_wait(index);
                self.on_unknown_segment(&tuple, segment, (now, ip), mem);
                return;
            }
        }
        self.counters.processed += 1;
        segment.payload.release(mem);
    }

    /// LISTEN and CLOSED (RFC 9293 §3.10.7.1, §3.10.7.2).
    fn on_unknown_segment<M: Memory>(
        &mut self,
        tuple: &FourTuple,
        segment: &mut Segment<'_>,
        (now, ip): (Instant, &Ip),
        mem: &mut M,
    ) {
        let flags = segment.header.flags;
        let listener = self.listeners.find(tuple.local, tuple.local_port);
        let opens = flags.intersects(TcpFlags::SYN)
            && !flags.intersects(TcpFlags::ACK.with(TcpFlags::RST).with(TcpFlags::FIN));
        if let (Some(listener), true) = (listener, opens) {
            self.open_passively(tuple, segment, listener, (now, ip));
        } else {
            self.counters.dropped_no_endpoint += 1;
            // To a listener, a reset or a stray FIN says nothing (§3.10.7.2).
            let silent = listener.is_some() && !flags.intersects(TcpFlags::ACK);
            let reply = Reply::reset(*tuple, &segment.header, segment.payload.len());
            if let Some(reply) = reply.filter(|_| !silent) {
                self.counters.resets_sent += 1;
                self.reply(reply);
            }
        }
        segment.payload.release(mem);
    }

    fn open_passively(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        listener_id: crate::slab::Id<super::Listener>,
        (now, ip): (Instant, &Ip),
    ) {
        let listener = self.listeners.get(listener_id).filter(|listener| !listener.is_full());
        let (Some(marking), Some(route)) =
            (listener.map(|listener| listener.marking), ip.route(tuple.remote))
        else {
            self.counters.dropped_backlog += 1;
            return;
        };
        let iss = self.secrets.initial_sequence(tuple, now);
        let offset = self.secrets.timestamp_offset(tuple);
        let snd = Sender::new(iss, tuple, &self.config, offset);
        let rcv = Receiver::new(self.config.receive_buffer, self.config.window_scale());
        let state = State::SynReceived(Origin::Passive(listener_id));
        let mut connection = Connection::new(*tuple, state, snd, rcv);
        connection.ownership = Ownership::Unaccepted;
        connection.listener = Some(listener_id);
        connection.snd.mss_offered = super::calls::mss_of(&route, tuple.remote);
        connection.snd.template.set_marking(marking);
        connection.on_peer_syn(segment, now, &self.config);
        match self.add(connection) {
            Ok(id) => {
                self.counters.processed += 1;
                if let Some(listener) = self.listeners.get_mut(listener_id) {
                    listener.half_open += 1;
                }
                self.settle(id.index());
            }
            Err(()) => self.counters.dropped_connection_limit += 1,
        }
    }

    /// An ICMP error about a segment of ours (RFC 9293 §3.9.2.2, RFC 5927).
    pub(crate) fn on_icmp_error<M: Memory>(
        &mut self,
        error: &IcmpError,
        (now, ip): (Instant, &mut Ip),
        mem: &mut M,
    ) {
        let tuple = FourTuple {
            local: error.local.ip(),
            remote: error.remote.ip(),
            local_port: error.local.port(),
            remote_port: error.remote.port(),
        };
        let Some(Endpoint::Connection(index)) = self.find(&tuple) else { return };
        let Some((connection, ctx)) = self.at(index, now, mem) else { return };
        let seq = SeqNum::new(error.sequence);
        // RFC 5927 §4.1: only what is in flight can have caused an error.
        if seq.before(connection.snd.una) || seq.at_or_after(connection.snd.nxt) {
            ctx.counters.icmp_errors_ignored += 1;
            return;
        }
        ctx.counters.icmp_errors += 1;
        let opening = connection.state.is_opening();
        let disposition = match error.kind {
            IcmpErrorKind::PacketTooBig(mtu) => {
                ip.note_path_mtu(now, tuple.remote, mtu);
                connection.on_path_mtu(mtu, ctx.offloads);
                Disposition::Done
            }
            // Hard errors end a connection only while it opens (RFC 5927 §5.2).
            IcmpErrorKind::PortUnreachable | IcmpErrorKind::ProtocolUnreachable if opening => {
                Disposition::Fail(ConnectionError::Refused)
            }
            IcmpErrorKind::NetworkUnreachable => {
                connection.note_soft_error(ConnectionError::NetworkUnreachable);
                Disposition::Done
            }
            IcmpErrorKind::HostUnreachable
            | IcmpErrorKind::ProtocolUnreachable
            | IcmpErrorKind::PortUnreachable
            | IcmpErrorKind::Prohibited
            | IcmpErrorKind::TimeExceeded
            | IcmpErrorKind::ParameterProblem => {
                connection.note_soft_error(ConnectionError::HostUnreachable);
                Disposition::Done
            }
        };
        self.perform(index, disposition, now, mem);
    }
}

enum Malformed {
    Header,
    Checksum,
}

/// Reads and checks the TCP header.
fn parse<M: Memory>(
    packet: &Packet,
    bytes: &SegmentBytes<'_>,
    mem: &M,
) -> Result<(TcpHeader, Options), Malformed> {
    let len = packet.transport_len;
    let (head, right) = match bytes {
        SegmentBytes::Whole(whole) => {
            let sum = Sum::pseudo(packet.source, packet.destination, protocol::TCP, len);
            (*whole, sum.plus(Sum::of(whole)).is_valid())
        }
        SegmentBytes::Frame(frame) => {
            let first = frame.pieces.first().ok_or(Malformed::Header)?;
            let head = mem.bytes(*first);
            let start = packet.transport_start as usize;
            let right =
                frame.checksum != RxChecksum::Unknown || frame_sum_is_right(packet, frame, mem);
            (head.get(start..).ok_or(Malformed::Header)?, right)
        }
    };
    let head = head.get(..head.len().min(len as usize)).ok_or(Malformed::Header)?;
    let header = TcpHeader::parse(head).map_err(|_short| Malformed::Header)?;
    if !right {
        return Err(Malformed::Checksum);
    }
    Ok((header, Options::parse(header.options(head))))
}

fn frame_sum_is_right<M: Memory>(packet: &Packet, frame: &RxFrame<'_>, mem: &M) -> bool {
    let sum = Sum::pseudo(packet.source, packet.destination, protocol::TCP, packet.transport_len);
    let end = packet.transport_start + packet.transport_len;
    sum.plus(sum_of(frame.pieces, packet.transport_start, end, mem)).is_valid()
}

/// The sum over the bytes from `start` to `end` of a frame.
fn sum_of<M: Memory>(pieces: &[Piece], start: u32, end: u32, mem: &M) -> Sum {
    let mut sum = Sum::ZERO;
    let mut place = 0;
    for piece in pieces {
        let from = start.max(place) - place;
        let to = end.min(place + piece.len).saturating_sub(place);
        if from < to {
            let part = piece.skip(from).take(to - from);
            sum = sum.plus_at((place + from - start) as usize, mem.sum(part));
        }
        place += piece.len;
    }
    sum
}

/// Whether the TCP checksum of an unfragmented IPv4 frame without IP options is right; `end` is
/// its length. The addresses lie just before the segment.
fn checksum_is_right<M: Memory>(pieces: &[Piece], end: u32, mem: &M) -> bool {
    const SEGMENT: u32 = 34;
    const ADDRESSES: u32 = 26;
    let length = u16::try_from(end - SEGMENT).unwrap_or(u16::MAX);
    let pseudo = Sum::of_u16(u16::from(protocol::TCP)).plus(Sum::of_u16(length));
    let sum = match pieces {
        [piece] => mem.sum(piece.skip(ADDRESSES).take(end - ADDRESSES)),
        pieces => sum_of(pieces, ADDRESSES, end, mem),
    };
    pseudo.plus(sum).is_valid()
}

/// Puts the payload into `payload`, which is pieces and empty; they are still owned. What is not
/// payload is released.
fn take_payload<'a, M: Memory>(
    payload: &mut Payload<'a>,
    (packet, header_len): (&Packet, u32),
    bytes: &SegmentBytes<'a>,
    mem: &mut M,
) {
    let frame = match bytes {
        SegmentBytes::Whole(whole) => {
            *payload = Payload::Bytes(whole.get(header_len as usize..).unwrap_or(&[]));
            return;
        }
        SegmentBytes::Frame(frame) => frame,
    };
    let mut skip = packet.transport_start + header_len;
    let mut left = packet.transport_len.saturating_sub(header_len);
    let Payload::Pieces(pieces) = payload else { return };
    for piece in frame.pieces {
        let skipped = skip.min(piece.len);
        skip -= skipped;
        let rest = piece.skip(skipped);
        let part = rest.take(rest.len.min(left));
        left -= part.len;
        if part.len == 0 || pieces.try_push(part).is_err() {
            mem.release(piece.slot);
        }
    }
}

fn release_all<M: Memory>(bytes: &SegmentBytes<'_>, mem: &mut M) {
    if let SegmentBytes::Frame(frame) = bytes {
        for piece in frame.pieces {
            mem.release(piece.slot);
        }
    }
}

/// The fields of an IPv4 TCP segment in a frame of `len` bytes that looks as expected: our
/// connection's, no IP options, no fragment, right IP header checksum, ACK and at most PSH, and
/// timestamps as the only option.
#[inline(always)]
fn expect_v4(frame: &[u8; V4_HEADERS], len: u32, flow: &FlowV4) -> Option<Expected> {
    // Compared as they lie in memory.
    let offset_and_flags = native(frame, 46) & 0xfff7_0000_u32.to_be();
    let difference = flow.difference(frame, protocol::TCP)
        | u64::from(offset_and_flags ^ 0x8010_0000_u32.to_be())
        | u64::from(native(frame, 54) ^ ALIGNED_TIMESTAMPS_WORD.to_be());
    if difference != 0 || !flow.header_sum_is_right(frame) {
        return None;
    }
    Some(Expected {
        seq: SeqNum::new(word(frame, 38)),
        ack: SeqNum::new(word(frame, 42)),
        window: u16::from_be_bytes([frame[48], frame[49]]),
        timestamps: Timestamps { value: word(frame, 58), echo: word(frame, 62) },
        payload_len: len - V4_HEADERS_LEN,
    })
}

/// The ends of a frame that the fast path may be for, by the look of it: TCP over IPv4 without
/// options, ACK and at most PSH, timestamps.
#[inline]
fn plain_tuple(frame: &[u8]) -> Option<FourTuple> {
    let frame = frame.first_chunk::<V4_HEADERS>()?;
    let is_plain = word(frame, 12) >> 8 == 0x08_0045
        && frame[23] == protocol::TCP
        && word(frame, 46) & 0xfff7_0000 == 0x8010_0000
        && word(frame, 54) == ALIGNED_TIMESTAMPS_WORD;
    let ports = word(frame, 34).to_be_bytes();
    is_plain.then(|| FourTuple {
        local: Ipv4Addr::from_bits(word(frame, 30)).into(),
        remote: Ipv4Addr::from_bits(word(frame, 26)).into(),
        local_port: u16::from_be_bytes([ports[2], ports[3]]),
        remote_port: u16::from_be_bytes([ports[0], ports[1]]),
    })
}
