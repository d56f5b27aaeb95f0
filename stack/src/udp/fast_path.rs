//! The fast path of both directions, over IPv4. In: header prediction, a datagram of the flow that
//! the last one was of, in one slot, whose checksum the device answers for. Out: a short datagram
//! to where the last one went, with nothing before it. What is not exactly that goes the full way;
//! nothing here does what the full way would not do.

use core::net::SocketAddr;

use super::template::{LEN_V4, LEN_V4_U32};
use super::{Udp, UdpContext, UdpId};
use crate::copy::copy;
use crate::frame::{TX_HEADROOM, Taken, TxChecksum};
use crate::memory::{Memory, Piece, SMALL_SLOT_LEN, Slot, SlotClass};
use crate::wire::prediction::FlowV4;
use crate::wire::{protocol, udp};

/// The flow of the last datagram, and the socket that it was for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) flow: FlowV4,
    pub(super) source: SocketAddr,
    pub(super) id: UdpId,
}

/// Longest payload of the fast path.
const PAYLOAD_MAX: usize = (SMALL_SLOT_LEN - TX_HEADROOM - LEN_V4_U32) as usize;

/// The checksum that a frame of [`Udp::send_at_once`] leaves to the device.
pub(crate) const EXPECTED_CHECKSUM: TxChecksum =
    TxChecksum { start: 34, offset: udp::CHECKSUM_OFFSET };

impl Udp {
    /// Takes a frame whose headers are those of the last datagram but for what differs from one to
    /// the next: no parsing, no hashing. Its checksum is answered for by the device. A short
    /// payload is copied.
    #[inline(always)]
    pub(crate) fn on_expected_frame<M: Memory>(&mut self, piece: Piece, mem: &mut M) -> Taken {
        let Some(expected) = &self.demux.expected else { return Taken::No };
        let Some((head, payload)) = mem.bytes(piece).split_first_chunk::<LEN_V4>() else {
            return Taken::No;
        };
        let flow = &expected.flow;
        if flow.difference(head, protocol::UDP) != 0 || !flow.header_sum_is_right(head) {
            return Taken::No;
        }
        let total = u32::from(u16::from_be_bytes([head[16], head[17]]));
        let length = u32::from(u16::from_be_bytes([head[38], head[39]]));
        if total + 14 != piece.len || length + 20 != total {
            return Taken::No;
        }
        let Some(socket) = self.sockets.get_mut(expected.id) else { return Taken::No };
        let is_copied = socket.receive.push_short(expected.source, payload, &self.config);
        if !is_copied {
            let (len, config) = (piece.len - LEN_V4_U32, &self.config);
            let (datagrams, bytes) = (config.receive_datagrams, config.receive_bytes);
            let has_room = socket.receive.has_room(len, datagrams, bytes)
                && socket.receive.slots() < u32::from(config.receive_slots);
            if !has_room || mem.receive_is_low() {
                return Taken::No;
            }
            socket.receive.push_slot(expected.source, piece.skip(LEN_V4_U32));
            if !socket.holding {
                socket.holding = true;
                self.holders.push_back(expected.id);
            }
        }
        if socket.interest.readable && !socket.listed {
            socket.listed = true;
            self.events.push_back(expected.id);
        }
        self.counters.received += 1;
        self.counters.predicted += 1;
        self.counters.queued += 1;
        if is_copied { Taken::Copied } else { Taken::Kept }
    }

    /// Takes the slot of a frame of [`Udp::send_at_once`] back, that nobody reads any more: the
    /// next one is written into it.
    #[inline(always)]
    pub(crate) fn keep_spare<M: Memory>(&mut self, slot: Slot, mem: &mut M) {
        if self.spare.is_some() {
            return mem.release(slot);
        }
        self.spare = Some(slot);
    }

    /// Whether there was a datagram like which the next one may be.
    #[inline(always)]
    pub(crate) fn expects(&self) -> bool {
        self.demux.expected.is_some()
    }

    /// Takes a short datagram for the destination of the last one, if nothing waits before it, and
    /// gives the frame that carries it, with [`EXPECTED_CHECKSUM`] left to the device; the frame's
    /// reference passes to the caller, who gives it back by [`Udp::keep_spare`] if nobody reads it
    /// any more. `None`: nothing was done, and the datagram is for [`Udp::send_to`].
    #[inline(always)]
    pub(crate) fn send_at_once<M: Memory>(
        &mut self,
        cx: &mut UdpContext<'_, M>,
        id: UdpId,
        data: &[u8],
        to: Option<SocketAddr>,
    ) -> Option<Piece> {
        let socket = self.sockets.get_mut(id)?;
        let template = &mut socket.template;
        let plain = template.holds_for(to, cx.ip.neighbor_generation())
            && template.is_short_v4(data.len())
            && data.len() <= PAYLOAD_MAX
            && socket.error.is_none()
            && (self.outgoing.len() | self.waiting.len() == 0)
            && cx.offloads.tx_checksum;
        if !plain {
            return None;
        }
        let slot = match self.spare.take() {
            Some(slot) => slot,
            None if cx.mem.small_is_low() => return None,
            None => cx.mem.allocate(SlotClass::Small)?,
        };
        let len = u16::try_from(data.len()).unwrap_or(0);
        let frame = Piece { slot, start: TX_HEADROOM, len: LEN_V4_U32 + u32::from(len) };
        let (head, payload) = cx.mem.bytes_mut(frame).split_first_chunk_mut::<LEN_V4>()?;
        template.write_short_v4(head, len, cx.ip.next_ident());
        copy(payload, data);
        self.counters.sent += 1;
        self.counters.frames_sent += 1;
        Some(frame)
    }
}
