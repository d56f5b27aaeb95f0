//! The way out: the application's calls build frames at once, which wait in one queue for the
//! device, or at their socket for a neighbour's address.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::socket::{UdpSocket, Waiting};
use super::template::{Checksum, Flow, FragmentHead, Template};
use super::{Udp, UdpContext, UdpError, UdpId};
use crate::checksum::{Sum, copy_and_sum};
use crate::frame::{SegmentKind, TX_HEADROOM, TxChecksum, TxFrame, TxSegmentation};
use crate::ip::{Resolution, fragment_payload};
use crate::memory::{CHUNK_SLOT_LEN, Memory, Piece, SMALL_SLOT_LEN, SlotClass};
use crate::ring::Ring;
use crate::wire::ipv4::MORE_FRAGMENTS;

/// Longest payload over IPv4: 65,535 bytes less both headers.
pub(super) const PAYLOAD_MAX: usize = 65_507;

/// A frame in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub(super) socket: UdpId,
    pub(super) first: Piece,
    /// Pieces besides the first, in the queue's chain.
    pub(super) more: u16,
    pub(super) checksum: Option<TxChecksum>,
    /// Payload bytes of each datagram if the frame is several, else 0.
    pub(super) segment: u16,
}

/// Frames of one datagram on their way into the queue.
pub(super) struct Build<'a, M> {
    pub(super) mem: &'a mut M,
    pub(super) chain: &'a mut VecDeque<Piece>,
    pub(super) cut: &'a mut Vec<Outgoing>,
    pub(super) socket: UdpId,
    pub(super) template: &'a Template,
}

impl Udp {
    /// Sends a datagram to `to`, or to the connected peer. It is sent by a later
    /// [`Udp::poll_frame`], or as soon as the neighbour's address is known.
    ///
    /// # Errors
    ///
    /// [`UdpError::WouldBlock`] if there is no room: an event tells when there is. Otherwise what
    /// is wrong with the destination or the length, or what the peer said since the last call.
    #[inline]
    pub fn send_to<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let template = &socket.template;
        if !template.holds_for(to, cx.ip.neighbor_generation()) {
            return self.send_unprepared(cx, id, data, to);
        }
        let is_single = data.len() + template.len() <= template.single_len_max();
        if !is_single || socket.frames_queued >= self.config.send_frames {
            return self.send_prepared(cx, id, data);
        }
        let ident = cx.ip.next_ident();
        let Some((first, checksum)) =
            build_single(template, (data, ident, cx.offloads.tx_checksum), cx.mem)
        else {
            return self.block(id);
        };
        self.outgoing.push_back(Outgoing { socket: id, first, more: 0, checksum, segment: 0 });
        socket.frames_queued += 1;
        self.counters.sent += 1;
        Ok(())
    }

    /// Sends a datagram for which there are no headers yet.
    #[inline(never)]
    fn send_unprepared<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<(), UdpError> {
        let socket = self.sockets.get(id).ok_or(UdpError::NotFound)?;
        let to = to.or(socket.remote).ok_or(UdpError::NotConnected)?;
        match self.prepare(cx, id, to)? {
            Prepared::Ready => self.send_prepared(cx, id, data),
            Prepared::Pending(template, next_hop) => {
                self.send_later(cx, (id, &template, next_hop), data)
            }
        }
    }

    /// Makes the headers for a destination, and keeps them if the neighbour is known.
    pub(super) fn prepare<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        to: SocketAddr,
    ) -> Result<Prepared, UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        let is_sound =
            to.port() != 0 && to.is_ipv4() == socket.local.is_ipv4() && !to.ip().is_unspecified();
        if !is_sound {
            return Err(UdpError::InvalidAddress);
        }
        if cx.ip.is_broadcast(to.ip()) && !socket.may_broadcast {
            return Err(UdpError::PermissionDenied);
        }
        let mut route = cx.ip.route(to.ip()).ok_or(UdpError::NetworkUnreachable)?;
        if !socket.local.ip().is_unspecified() {
            route.source = socket.local.ip();
        }
        let resolution = cx.ip.resolve(cx.now, route.next_hop);
        let mac = match resolution {
            Resolution::Resolved(mac) => mac,
            Resolution::Pending => [0; 6],
            Resolution::Unreachable => return Err(UdpError::HostUnreachable),
        };
        let own_mac = cx.ip.mac();
        let (source_port, marking) = (socket.local.port(), socket.marking);
        let flow = Flow { source_port, to, route, mac, own_mac, marking };
        let mut template = Template::new(&flow).ok_or(UdpError::InvalidAddress)?;
        if resolution == Resolution::Pending {
            return Ok(Prepared::Pending(template, route.next_hop));
        }
        let is_peer = socket.remote == Some(to);
        template.keep_for(to, is_peer, cx.ip.neighbor_generation());
        socket.template = template;
        Ok(Prepared::Ready)
    }

    /// Queues a datagram with the headers that the socket keeps, in as many frames and slots as it
    /// takes.
    #[inline(never)]
    fn send_prepared<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        data: &[u8],
    ) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        let frames = frames_of(&socket.template, data.len())?;
        if socket.frames_queued + frames > self.config.send_frames {
            return self.block(id);
        }
        let mut build = Build {
            mem: cx.mem,
            chain: &mut self.chain,
            cut: &mut self.cut,
            socket: id,
            template: &socket.template,
        };
        let is_built = if frames == 1 {
            build.whole(data, cx.ip.next_ident(), cx.offloads.tx_checksum)
        } else {
            build.fragments(data, cx.ip.next_ident())
        };
        if !is_built {
            return self.block(id);
        }
        self.counters.sent_fragmented += u64::from(frames > 1);
        for frame in self.cut.drain(..) {
            self.outgoing.push_back(frame);
        }
        socket.frames_queued += frames;
        self.counters.sent += 1;
        Ok(())
    }

    /// Lets a datagram wait for the neighbour. Only one in a single piece does: others are not
    /// taken before the address is known.
    #[inline(never)]
    fn send_later<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        (id, template, next_hop): (UdpId, &Template, IpAddr),
        data: &[u8],
    ) -> Result<(), UdpError> {
        let frames = frames_of(template, data.len())?;
        let socket = self.sockets.get_mut(id).ok_or(UdpError::NotFound)?;
        let is_full = socket.waiting.len() >= usize::from(self.config.waiting_frames);
        let room = (CHUNK_SLOT_LEN - TX_HEADROOM) as usize - template.len();
        if frames != 1 || data.len() > room || is_full {
            return self.block(id);
        }
        let ident = cx.ip.next_ident();
        let Some((piece, checksum)) =
            build_single(template, (data, ident, cx.offloads.tx_checksum), cx.mem)
        else {
            return self.block(id);
        };
        if socket.waiting.is_empty() {
            self.waiting.push_back(id);
        }
        socket.waiting.push_back(Waiting { next_hop, piece, checksum });
        self.counters.waited += 1;
        self.counters.sent += 1;
        Ok(())
    }

    /// Remembers that a call found no room.
    #[cold]
    pub(super) fn block(&mut self, id: UdpId) -> Result<(), UdpError> {
        self.counters.send_blocked += 1;
        if let Some(socket) = self.sockets.get_mut(id)
            && !socket.blocked
        {
            socket.blocked = true;
            self.blocked.push_back(id);
        }
        Err(UdpError::WouldBlock)
    }

    /// Whether a frame waits to be sent.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether [`Udp::poll_frame`] has anything to do: frames to hand out, or somebody to wake
    /// because room or a neighbour has come.
    #[must_use]
    #[inline(always)]
    pub fn wants_poll(&self, neighbor_generation: u32) -> bool {
        (self.outgoing.len() | self.blocked.len() != 0)
            | (self.seen_generation != neighbor_generation)
    }

    /// Puts the next frame into `out`; `false` if there is none. To be called each turn until
    /// there is none: it is also what wakes those who wait for room or for a neighbour.
    #[inline]
    pub fn poll_frame<M: Memory>(&mut self, cx: &mut UdpContext<'_, M>, out: &mut TxFrame) -> bool {
        let is_idle = self.outgoing.is_empty()
            && self.blocked.is_empty()
            && self.seen_generation == cx.ip.neighbor_generation();
        !is_idle && self.poll_frame_now(cx, out)
    }

    fn poll_frame_now<M: Memory>(&mut self, cx: &mut UdpContext<'_, M>, out: &mut TxFrame) -> bool {
        if self.seen_generation != cx.ip.neighbor_generation() {
            self.retry_waiting(cx);
        }
        let Some(frame) = self.outgoing.pop_front() else {
            self.wake_blocked();
            return false;
        };
        out.pieces.clear();
        out.pieces.push(frame.first);
        if frame.more > 0 {
            out.pieces.extend(self.chain.drain(..usize::from(frame.more)));
        }
        out.checksum = frame.checksum;
        out.segmentation = match (frame.segment, frame.checksum) {
            (0, _) | (_, None) => None,
            (size, Some(checksum)) => Some(TxSegmentation {
                kind: SegmentKind::Udp,
                size,
                header_len: checksum.start + 8,
                ecn: false,
            }),
        };
        self.counters.frames_sent += 1;
        if let Some(socket) = self.sockets.get_mut(frame.socket) {
            socket.frames_queued -= 1;
        }
        true
    }

    /// Says to those who found no room that there is some: the queue has run empty.
    fn wake_blocked(&mut self) {
        while let Some(id) = self.blocked.pop_front() {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.blocked = false;
            }
            self.announce(id);
        }
    }

    /// Looks again at every frame that waits for a neighbour: at most `waiting_frames` of each
    /// socket in the list, each time something about a neighbour changes.
    #[inline(never)]
    fn retry_waiting<M: Memory>(&mut self, cx: &mut UdpContext<'_, M>) {
        self.seen_generation = cx.ip.neighbor_generation();
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { return };
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            let failed = retry_socket(socket, cx, id, &mut self.outgoing);
            self.counters.wait_failed += failed;
            if failed > 0 {
                socket.error = Some(UdpError::HostUnreachable);
            }
            if !socket.waiting.is_empty() {
                self.waiting.push_back(id);
            }
            if failed > 0 {
                self.announce(id);
            }
        }
    }
}

/// Sends what a socket has waiting and can be sent; answers how many frames cannot ever be.
fn retry_socket<M: Memory>(
    socket: &mut UdpSocket,
    cx: &mut UdpContext<'_, M>,
    id: UdpId,
    outgoing: &mut Ring<Outgoing>,
) -> u64 {
    let mut failed = 0;
    for _ in 0..socket.waiting.len() {
        let Some(frame) = socket.waiting.pop_front() else { break };
        match cx.ip.resolve(cx.now, frame.next_hop) {
            Resolution::Pending => socket.waiting.push_back(frame),
            Resolution::Resolved(mac) => {
                cx.mem.bytes_mut(frame.piece)[..6].copy_from_slice(&mac);
                let Waiting { piece: first, checksum, .. } = frame;
                outgoing.push_back(Outgoing { socket: id, first, more: 0, checksum, segment: 0 });
                socket.frames_queued += 1;
            }
            Resolution::Unreachable => {
                cx.mem.release(frame.piece.slot);
                failed += 1;
            }
        }
    }
    failed
}

/// Whether the headers for a destination are complete.
pub(super) enum Prepared {
    Ready,
    /// All but the Ethernet address of this neighbour.
    Pending(Template, IpAddr),
}

/// How many frames a datagram takes.
#[inline]
fn frames_of(template: &Template, len: usize) -> Result<u16, UdpError> {
    let mtu = usize::from(template.mtu());
    if len + template.len() <= mtu + 14 {
        return Ok(1);
    }
    // Fragments of IPv6 are the sender's business too (RFC 8200 §4.5), but come later.
    if template.is_v6() || len > PAYLOAD_MAX {
        return Err(UdpError::MessageTooLong);
    }
    let frames = (len + 8).div_ceil(usize::from(fragment_payload(template.mtu())));
    u16::try_from(frames).map_err(|_| UdpError::MessageTooLong)
}

/// Builds a frame that fits into one slot; `None` if there is no slot.
#[inline]
fn build_single<M: Memory>(
    template: &Template,
    (data, ident, partial): (&[u8], u16, bool),
    mem: &mut M,
) -> Option<(Piece, Option<TxChecksum>)> {
    let header_len = template.len();
    let data_len = u16::try_from(data.len()).ok()?;
    let len = u32::try_from(header_len).ok()? + u32::from(data_len);
    let class =
        if len <= SMALL_SLOT_LEN - TX_HEADROOM { SlotClass::Small } else { SlotClass::Chunk };
    let slot = mem.allocate(class)?;
    let piece = Piece { slot, start: TX_HEADROOM, len };
    let frame = mem.bytes_mut(piece);
    let sum = copy(&mut frame[header_len..], data, !partial);
    let (checksum, left) = if partial {
        (Checksum::Partial, Some(template.partial_checksum()))
    } else {
        (Checksum::Full(sum), None)
    };
    template.write(frame, data_len, ident, checksum);
    Some((piece, left))
}

impl<M: Memory> Build<'_, M> {
    /// Queues a datagram as one packet; `false` if memory ran out. The payload is at most what
    /// the MTU leaves, which is less than 64 KiB.
    #[inline]
    pub(super) fn whole(&mut self, data: &[u8], ident: u16, partial: bool) -> bool {
        let Ok(len) = u16::try_from(data.len()) else { return false };
        let Some((first, more, sum)) = self.place(self.template.len(), data, !partial) else {
            return false;
        };
        let (checksum, left) = if partial {
            (Checksum::Partial, Some(self.template.partial_checksum()))
        } else {
            (Checksum::Full(sum), None)
        };
        self.template.write(self.mem.bytes_mut(first), len, ident, checksum);
        let socket = self.socket;
        self.cut.push(Outgoing { socket, first, more, checksum: left, segment: 0 });
        true
    }

    /// Queues a datagram in fragments (RFC 791 §3.2); `false` and nothing queued if memory ran
    /// out. The checksum covers them all, and so no device can compute it.
    fn fragments(&mut self, data: &[u8], ident: u16) -> bool {
        let Ok(datagram_len) = u16::try_from(data.len()) else { return false };
        let per_fragment = fragment_payload(self.template.mtu());
        let checksum = Checksum::Full(Sum::of(data));
        let mut offset = 0u16;
        let mut rest = data;
        while !rest.is_empty() {
            let udp_len = if offset == 0 { 8 } else { 0 };
            let room = usize::from(per_fragment - udp_len);
            let (now, later) = rest.split_at(room.min(rest.len()));
            let header_len = 34 + usize::from(udp_len);
            let Some((first, more, _)) = self.place(header_len, now, false) else {
                self.abandon();
                return false;
            };
            let more_flag = if later.is_empty() { 0 } else { MORE_FRAGMENTS };
            let payload = u16::try_from(now.len()).unwrap_or(0);
            let head = FragmentHead {
                total_len: 20 + udp_len + payload,
                ident,
                flags_and_offset: (offset / 8) | more_flag,
                datagram_len,
                checksum,
            };
            self.template.write_fragment(self.mem.bytes_mut(first), &head);
            let socket = self.socket;
            self.cut.push(Outgoing { socket, first, more, checksum: None, segment: 0 });
            offset = offset.saturating_add(per_fragment);
            rest = later;
        }
        true
    }

    /// Gives back what was built of a datagram that cannot be sent as a whole.
    fn abandon(&mut self) {
        for frame in self.cut.drain(..) {
            self.mem.release(frame.first.slot);
            for _ in 0..frame.more {
                if let Some(piece) = self.chain.pop_back() {
                    self.mem.release(piece.slot);
                }
            }
        }
    }

    /// Copies a payload into slots, behind room for headers; answers the first piece, headers
    /// included, how many others follow in the chain, and the payload's sum if it is wanted.
    #[inline]
    fn place(&mut self, header_len: usize, data: &[u8], sum: bool) -> Option<(Piece, u16, Sum)> {
        let len = header_len + data.len();
        let (class, slot_len) = if len + TX_HEADROOM as usize <= SMALL_SLOT_LEN as usize {
            (SlotClass::Small, SMALL_SLOT_LEN)
        } else {
            (SlotClass::Chunk, CHUNK_SLOT_LEN)
        };
        let room = slot_len - TX_HEADROOM;
        let slot = self.mem.allocate(class)?;
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(room);
        let first = Piece { slot, start: TX_HEADROOM, len };
        let to = &mut self.mem.bytes_mut(first)[header_len..];
        let (here, rest) = data.split_at(to.len());
        let total = copy(to, here, sum);
        if rest.is_empty() {
            return Some((first, 0, total));
        }
        self.place_rest(first, rest, (sum, here.len(), total))
    }

    /// Copies what did not fit into the first slot into others.
    fn place_rest(
        &mut self,
        first: Piece,
        rest: &[u8],
        (sum, mut offset, mut total): (bool, usize, Sum),
    ) -> Option<(Piece, u16, Sum)> {
        let mut more = 0;
        for part in rest.chunks(CHUNK_SLOT_LEN as usize) {
            let Some(slot) = self.mem.allocate(SlotClass::Chunk) else {
                self.mem.release(first.slot);
                for _ in 0..more {
                    if let Some(piece) = self.chain.pop_back() {
                        self.mem.release(piece.slot);
                    }
                }
                return None;
            };
            let len = u32::try_from(part.len()).unwrap_or(CHUNK_SLOT_LEN);
            let piece = Piece { slot, start: 0, len };
            total = total.plus_at(offset, copy(self.mem.bytes_mut(piece), part, sum));
            offset += part.len();
            self.chain.push_back(piece);
            more += 1;
        }
        Some((first, more, total))
    }
}

#[inline]
fn copy(to: &mut [u8], from: &[u8], sum: bool) -> Sum {
    if sum {
        return copy_and_sum(to, from);
    }
    to.copy_from_slice(from);
    Sum::ZERO
}
