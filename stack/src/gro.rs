//! Generic receive offload: segments of one TCP flow that came in one burst, in order, become one
//! large one before TCP sees them, as a device that coalesces would have delivered them.
//!
//! Holds at most one large segment, for no longer than a burst lasts. Joins only what differs in
//! nothing but sequence number and PSH: addresses, ports, class and ECN marks, acknowledgment,
//! window, timestamps and every other option are the same, and checksums are right. Never
//! reorders: whatever does not fit ends what is held. Allocates nothing.

use arrayvec::ArrayVec;

use crate::checksum::Sum;
use crate::frame::{RxChecksum, RxFrame};
use crate::memory::{Memory, Piece};
use crate::wire::tcp::TcpFlags;

/// Most segments that are joined.
const SEGMENTS_MAX: usize = 32;
/// Longest IP packet.
const PACKET_LEN_MAX: u32 = 65_535;
/// Frames below this length are not worth it.
const FRAME_LEN_MIN: u32 = 192;
/// Longest headers that are looked at: Ethernet, IPv6, TCP with options.
const HEADERS_LEN_MAX: usize = 14 + 40 + 60;

const ETHERNET_LEN: usize = 14;
const PROTOCOL_TCP: u8 = 6;
const PUSH: u8 = TcpFlags::PSH.bits();

/// Where things lie in a segment that may be joined.
#[derive(Clone, Copy, Debug)]
struct Shape {
    v6: bool,
    /// First byte of the TCP header.
    tcp: usize,
    header_len: usize,
    payload_len: u32,
    seq: u32,
    push: bool,
}

/// The segment that is held.
#[derive(Clone, Copy, Debug)]
struct Held {
    shape: Shape,
    /// Payload bytes of each segment but the last.
    size: u32,
    payload_len: u32,
    checksum: RxChecksum,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Joined {
    /// It is part of the held segment.
    Yes,
    /// It is, and nothing may follow it there: [`Gro::release`] comes next.
    Last,
    /// It is not: [`Gro::release`] comes before it, and [`Gro::hold`] may be asked then.
    No,
}

/// What is held of a burst.
#[derive(Debug, Default)]
pub(crate) struct Gro {
    pieces: ArrayVec<Piece, SEGMENTS_MAX>,
    held: Option<Held>,
    /// Segments that became part of another.
    joined: u64,
}

impl Gro {
    /// Segments that became part of another one.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether a frame may be worth it.
    #[inline]
    pub(crate) fn is_candidate(frame: &RxFrame<'_>) -> bool {
        frame.gso_size == 0 && frame.pieces.len() == 1 && frame.pieces[0].len >= FRAME_LEN_MIN
    }

    /// Joins a frame to what is held, if it goes on where that ends.
    pub(crate) fn join<M: Memory>(&mut self, frame: &RxFrame<'_>, mem: &M) -> Joined {
        let (Some(held), Some(&piece), Some(&first)) =
            (&mut self.held, frame.pieces.first(), self.pieces.first())
        else {
            return Joined::No;
        };
        let bytes = mem.bytes(piece);
        let Some(shape) = shape_of(bytes) else { return Joined::No };
        let packet_len = held.shape.header_len - ETHERNET_LEN;
        let packet_len = u32::try_from(packet_len).unwrap_or(u32::MAX);
        let fits = shape.seq == held.shape.seq.wrapping_add(held.payload_len)
            && shape.payload_len <= held.size
            && packet_len + held.payload_len + shape.payload_len <= PACKET_LEN_MAX
            && is_alike(mem.bytes(first), bytes, &held.shape, &shape)
            && (frame.checksum != RxChecksum::Unknown || is_right(bytes, &shape));
        if !fits || self.pieces.is_full() {
            return Joined::No;
        }
        let header_len = u32::try_from(shape.header_len).unwrap_or(u32::MAX);
        self.pieces.push(piece.skip(header_len));
        self.joined += 1;
        held.payload_len += shape.payload_len;
        let last = shape.push || shape.payload_len < held.size || self.pieces.is_full();
        if last { Joined::Last } else { Joined::Yes }
    }

    /// Holds a frame to which others may be joined; false if none may. Nothing is held before.
    pub(crate) fn hold<M: Memory>(&mut self, frame: &RxFrame<'_>, mem: &M) -> bool {
        debug_assert!(self.held.is_none());
        let Some(&piece) = frame.pieces.first() else { return false };
        let bytes = mem.bytes(piece);
        let Some(shape) = shape_of(bytes).filter(|shape| !shape.push) else { return false };
        let unknown = frame.checksum == RxChecksum::Unknown;
        if unknown && !is_right(bytes, &shape) {
            return false;
        }
        let checksum = if unknown { RxChecksum::Valid } else { frame.checksum };
        let size = shape.payload_len;
        self.held = Some(Held { shape, size, payload_len: size, checksum });
        self.pieces.push(piece);
        true
    }

    /// Ends what is held; its pieces are the caller's. The headers stay those of the first segment,
    /// for received memory may be anybody's to read; the length of the frame is that of the whole.
    #[inline]
    pub(crate) fn release(&mut self) -> Option<(ArrayVec<Piece, SEGMENTS_MAX>, RxChecksum, u16)> {
        let held = self.held.take()?;
        let pieces = self.pieces.take();
        if pieces.len() == 1 {
            return Some((pieces, held.checksum, 0));
        }
        let size = u16::try_from(held.size).unwrap_or(u16::MAX);
        Some((pieces, RxChecksum::Valid, size))
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Understands a whole frame with a TCP segment that carries data and nothing unusual.
fn shape_of(bytes: &[u8]) -> Option<Shape> {
    let len = bytes.len();
    if len < HEADERS_LEN_MAX {
        return None;
    }
    let (v6, tcp, packet_len) = match (be16(bytes, 12), bytes[14]) {
        (0x0800, 0x45) => {
            let whole = be16(bytes, 20) & 0x3fff == 0 && bytes[23] == PROTOCOL_TCP;
            let header = Sum::of(&bytes[ETHERNET_LEN..34]);
            if !whole || !header.is_valid() {
                return None;
            }
            (false, 34, usize::from(be16(bytes, 16)))
        }
        (0x86dd, 0x60..=0x6f) if bytes[20] == PROTOCOL_TCP => {
            (true, 54, 40 + usize::from(be16(bytes, 18)))
        }
        _ => return None,
    };
    let header_len = tcp + usize::from(bytes[tcp + 12] >> 4) * 4;
    let flags = bytes[tcp + 13];
    let plain = flags & !PUSH == TcpFlags::ACK.bits();
    if packet_len + ETHERNET_LEN != len || header_len < tcp + 20 || !plain {
        return None;
    }
    let payload_len = u32::try_from(len.checked_sub(header_len)?).ok().filter(|len| *len > 0)?;
    let seq = u32::from_be_bytes([bytes[tcp + 4], bytes[tcp + 5], bytes[tcp + 6], bytes[tcp + 7]]);
    Some(Shape { v6, tcp, header_len, payload_len, seq, push: flags & PUSH != 0 })
}

/// Whether two segments differ in nothing but lengths, the IPv4 identification, sequence numbers,
/// PSH and checksums.
fn is_alike(first: &[u8], next: &[u8], held: &Shape, shape: &Shape) -> bool {
    let same = |from: usize, to: usize| first.get(from..to) == next.get(from..to);
    let tcp = shape.tcp;
    let ip = if shape.v6 {
        same(0, 18) && same(20, 54)
    } else {
        same(0, 16) && same(20, 24) && same(26, 34)
    };
    held.v6 == shape.v6
        && held.header_len == shape.header_len
        && ip
        && same(tcp, tcp + 4)
        && same(tcp + 8, tcp + 13)
        && same(tcp + 14, tcp + 16)
        && same(tcp + 18, shape.header_len)
}

/// Whether the TCP checksum is right.
fn is_right(bytes: &[u8], shape: &Shape) -> bool {
    let addresses = if shape.v6 { 22..54 } else { 26..34 };
    let segment = &bytes[shape.tcp..];
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
    Sum::of(&bytes[addresses])
        .plus(Sum::of_u16(u16::from(PROTOCOL_TCP)))
        .plus(Sum::of_u16(length))
        .plus(Sum::of(segment))
        .is_valid()
}

#[cfg(test)]
mod tests;
