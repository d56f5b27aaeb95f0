//! The way in: checks, the socket, its queue; and the application's reads.

use alloc::vec::Vec;
use core::net::SocketAddr;

use arrayvec::ArrayVec;

use super::counters::UdpDrop;
use super::demux::Ends;
use super::fast_path::Expected;
use super::socket::{Received, UdpSocket};
use super::{Udp, UdpContext, UdpError, UdpId};
use crate::checksum::Sum;
use crate::frame::{RxChecksum, RxFrame};
use crate::ip::{Packet, gather, release};
use crate::memory::{Memory, Piece};
use crate::wire::prediction::FlowV4;
use crate::wire::protocol;
use crate::wire::udp::HEADER_LEN;

/// Most pieces that a datagram is queued in; one in more is copied.
const PIECES_MAX: usize = 48;

/// A datagram whose header was read.
#[derive(Clone, Copy)]
pub(super) struct Datagram {
    /// Source and destination port as they stand in the header.
    pub(super) ports: [u8; 4],
    pub(super) checksum: u16,
    /// First byte of the payload, counted from the Ethernet header.
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Datagram {
    fn source(&self, packet: &Packet) -> SocketAddr {
        let [a, b, ..] = self.ports;
        SocketAddr::new(packet.source, u16::from_be_bytes([a, b]))
    }

    fn ends(&self, packet: &Packet) -> Ends {
        let [.., c, d] = self.ports;
        let local = SocketAddr::new(packet.destination, u16::from_be_bytes([c, d]));
        Ends { local, remote: self.source(packet) }
    }
}

impl Udp {
    /// Takes a datagram in a frame, whose pieces it releases or keeps.
    pub fn on_packet<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        frame: &RxFrame<'_>,
        packet: &Packet,
    ) {
        self.counters.received += 1;
        if let Err(reason) = self.take(cx, frame, packet) {
            self.drops.add(reason);
            release(frame.pieces, cx.mem);
        }
    }

    #[inline]
    fn take<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        frame: &RxFrame<'_>,
        packet: &Packet,
    ) -> Result<(), UdpDrop> {
        let first = *frame.pieces.first().ok_or(UdpDrop::Truncated)?;
        let bytes = cx.mem.bytes(first);
        let transport = bytes.get(packet.transport_start as usize..).unwrap_or(&[]);
        let datagram = read_header(transport, packet)?;
        verify(frame, packet, &datagram, cx.mem)?;
        if frame.gso_size != 0 {
            let size = u32::from(frame.gso_size);
            return self.take_coalesced(cx, (frame, size), packet, &datagram);
        }
        self.queue(cx, frame.pieces, packet, &datagram)
    }

    /// Finds the socket of a datagram and queues it there; its pieces are taken over.
    #[inline]
    pub(super) fn queue<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        pieces: &[Piece],
        packet: &Packet,
        datagram: &Datagram,
    ) -> Result<(), UdpDrop> {
        let found = match self.demux.last(packet, datagram.ports) {
            Some(id) => {
                self.counters.last_hits += 1;
                Some(id)
            }
            None => self.demux.find(&self.sockets, &datagram.ends(packet)),
        };
        let Some((id, socket)) = found.and_then(|id| Some((id, self.sockets.get_mut(id)?))) else {
            // Of several in one frame, none has the headers that an answer quotes.
            if datagram.start != 0 {
                let frame = RxFrame { pieces, checksum: RxChecksum::Valid, gso_size: 0 };
                cx.ip.port_unreachable(cx.now, &frame, packet, cx.mem);
            }
            return Err(UdpDrop::NoSocket);
        };
        let (len, source, config) = (datagram.len, datagram.source(packet), &self.config);
        if !socket.receive.has_room(len, config.receive_datagrams, config.receive_bytes) {
            return Err(UdpDrop::QueueFull);
        }
        let slots_left = u32::from(config.receive_slots).saturating_sub(socket.receive.slots());
        let is_tight = slots_left < u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        // Only what is a frame by itself says what the next one will look like.
        if datagram.start != 0
            && let [piece] = pieces
            && let Some(flow) = flow_of(packet, cx.mem.bytes(*piece))
        {
            self.demux.expected = Some(Expected { flow, source, id });
        }
        if is_tight || cx.mem.receive_is_low() {
            self.counters.compacted += queue_copy(socket, (pieces, datagram, source), cx.mem);
        } else if let [piece] = pieces {
            let start = piece.start + datagram.start;
            socket.receive.push_slot(source, Piece { slot: piece.slot, start, len });
        } else {
            queue_pieces(socket, (pieces, datagram, source), cx.mem);
        }
        if !socket.holding {
            socket.holding = true;
            self.holders.push_back(id);
        }
        if socket.interest.readable && !socket.listed {
            socket.listed = true;
            self.events.push_back(id);
        }
        self.counters.queued += 1;
        Ok(())
    }

    /// Takes a datagram that was made whole from fragments.
    pub fn on_reassembled(&mut self, packet: &Packet, mut bytes: Vec<u8>) {
        self.counters.received += 1;
        let checked = read_header(&bytes, packet).and_then(|datagram| {
            let whole = bytes.get(..HEADER_LEN + datagram.len as usize).unwrap_or(&[]);
            check_sum(packet, &datagram, Sum::of(whole))?;
            Ok(datagram)
        });
        let queued = checked.and_then(|datagram| {
            let found = self.demux.find(&self.sockets, &datagram.ends(packet));
            let id = found.ok_or(UdpDrop::NoSocket)?;
            let socket = self.sockets.get_mut(id).ok_or(UdpDrop::NoSocket)?;
            let (len, config) = (datagram.len, &self.config);
            if !socket.receive.has_room(len, config.receive_datagrams, config.receive_bytes) {
                return Err(UdpDrop::QueueFull);
            }
            bytes.truncate(HEADER_LEN + len as usize);
            bytes.drain(..HEADER_LEN);
            socket.receive.push_heap(datagram.source(packet), bytes);
            Ok(id)
        });
        match queued {
            Ok(id) => {
                self.counters.queued += 1;
                self.announce(id);
            }
            Err(reason) => self.drops.add(reason),
        }
    }

    /// Copies the oldest datagram into `buffer` and takes it out of the queue. What does not fit
    /// is lost, as the answer tells.
    ///
    /// # Errors
    ///
    /// [`UdpError::WouldBlock`] if there is none; what the peer said, once.
    #[inline(never)]
    pub fn recv_from<M: Memory>(
        &mut self,
        id: UdpId,
        buffer: &mut [u8],
        mem: &mut M,
    ) -> Result<Received, UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let received = socket.receive.pop(buffer, mem).ok_or(UdpError::WouldBlock)?;
        self.counters.read += 1;
        Ok(received)
    }

    /// As [`Udp::recv_from`], for those who do not ask where the datagram came from: the bytes
    /// copied.
    ///
    /// # Errors
    ///
    /// As [`Udp::recv_from`].
    #[inline(always)]
    pub fn recv<M: Memory>(
        &mut self,
        id: UdpId,
        buffer: &mut [u8],
        mem: &mut M,
    ) -> Result<usize, UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        if socket.error.is_none()
            && let Some(len) = socket.receive.pop_short(buffer, mem)
        {
            self.counters.read += 1;
            return Ok(len);
        }
        self.recv_from(id, buffer, mem).map(|received| received.len)
    }

    /// Copies the oldest datagram into `buffer` and leaves it in the queue.
    ///
    /// # Errors
    ///
    /// As [`Udp::recv_from`].
    pub fn peek_from<M: Memory>(
        &mut self,
        id: UdpId,
        buffer: &mut [u8],
        mem: &M,
    ) -> Result<Received, UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        socket.receive.peek(buffer, mem).ok_or(UdpError::WouldBlock)
    }

    /// Gives back every receive slot that sockets hold, by copying: for when few are left.
    pub fn compact<M: Memory>(&mut self, mem: &mut M) {
        while let Some(id) = self.holders.pop_front() {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.holding = false;
                self.counters.compacted += socket.receive.compact(mem);
            }
        }
    }
}

/// The flow of a packet for header prediction: over IPv4 without options.
#[inline]
fn flow_of(packet: &Packet, bytes: &[u8]) -> Option<FlowV4> {
    let is_plain = packet.source.is_ipv4() && packet.transport_start == 34 && !packet.to_broadcast;
    bytes.first_chunk().filter(|_| is_plain).map(FlowV4::of)
}

/// The header of a datagram, its length compared with the packet's.
#[inline]
fn read_header(transport: &[u8], packet: &Packet) -> Result<Datagram, UdpDrop> {
    let header = transport.first_chunk::<HEADER_LEN>().ok_or(UdpDrop::Truncated)?;
    let [a, b, c, d, e, f, g, h] = *header;
    let length = u32::from(u16::from_be_bytes([e, f]));
    if length < 8 || length > packet.transport_len {
        return Err(UdpDrop::Truncated);
    }
    Ok(Datagram {
        ports: [a, b, c, d],
        checksum: u16::from_be_bytes([g, h]),
        start: packet.transport_start + 8,
        len: length - 8,
    })
}

/// Checks the checksum unless the device vouches for it.
#[inline]
fn verify<M: Memory>(
    frame: &RxFrame<'_>,
    packet: &Packet,
    datagram: &Datagram,
    mem: &M,
) -> Result<(), UdpDrop> {
    match frame.checksum {
        RxChecksum::Valid | RxChecksum::Partial => Ok(()),
        RxChecksum::Unknown => verify_sum(frame, packet, datagram, mem),
    }
}

/// Sums the datagram and checks its checksum.
fn verify_sum<M: Memory>(
    frame: &RxFrame<'_>,
    packet: &Packet,
    datagram: &Datagram,
    mem: &M,
) -> Result<(), UdpDrop> {
    let (start, len) = (packet.transport_start as usize, datagram.len as usize + HEADER_LEN);
    let mut sum = Sum::ZERO;
    let mut done = 0;
    let mut skip = start;
    for piece in frame.pieces {
        let bytes = mem.bytes(*piece);
        if let Some(rest) = bytes.get(skip..) {
            let now = &rest[..rest.len().min(len - done)];
            sum = sum.plus_at(done, Sum::of(now));
            done += now.len();
            skip = 0;
        } else {
            skip -= bytes.len();
        }
    }
    check_sum(packet, datagram, sum)
}

/// Whether the sum of header and payload is right with the pseudo-header's.
#[inline]
fn check_sum(packet: &Packet, datagram: &Datagram, sum: Sum) -> Result<(), UdpDrop> {
    if datagram.checksum == 0 {
        // RFC 768 allows none; RFC 8200 §8.1 does not.
        return if packet.source.is_ipv4() { Ok(()) } else { Err(UdpDrop::NoChecksum) };
    }
    let length = datagram.len + 8;
    let pseudo = Sum::pseudo(packet.source, packet.destination, protocol::UDP, length);
    if pseudo.plus(sum).is_valid() { Ok(()) } else { Err(UdpDrop::Checksum) }
}

/// Queues a copy of a datagram, and makes copies of those that wait already: answers how many.
#[cold]
fn queue_copy<M: Memory>(
    socket: &mut UdpSocket,
    (pieces, datagram, source): (&[Piece], &Datagram, SocketAddr),
    mem: &mut M,
) -> u64 {
    let copy = gather(pieces, datagram.start, datagram.len, mem);
    release(pieces, mem);
    socket.receive.push_heap(source, copy);
    1 + socket.receive.compact(mem)
}

/// Queues the payload of a datagram that lies in several pieces, and gives back those that hold
/// none of it.
#[inline(never)]
fn queue_pieces<M: Memory>(
    socket: &mut UdpSocket,
    (pieces, datagram, source): (&[Piece], &Datagram, SocketAddr),
    mem: &mut M,
) {
    if pieces.len() > PIECES_MAX {
        let copy = gather(pieces, datagram.start, datagram.len, mem);
        release(pieces, mem);
        socket.receive.push_heap(source, copy);
        return;
    }
    let mut kept: ArrayVec<Piece, PIECES_MAX> = ArrayVec::new();
    let (mut skip, mut left) = (datagram.start, datagram.len);
    for piece in pieces {
        let rest = piece.skip(skip.min(piece.len));
        skip -= piece.len - rest.len;
        let wanted = rest.take(left.min(rest.len));
        if wanted.len == 0 {
            mem.release(piece.slot);
            continue;
        }
        left -= wanted.len;
        kept.push(wanted);
    }
    socket.receive.push_chain(source, &kept);
}
