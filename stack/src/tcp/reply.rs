//! Segments that answer for no connection: resets, and acknowledgements from TIME-WAIT. A bounded
//! queue; what does not fit is dropped and counted, for the peer asks again.

use alloc::collections::VecDeque;

use super::seq::SeqNum;
use super::template::{Fields, HeaderTemplate};
use super::tuple::FourTuple;
use crate::checksum::Sum;
use crate::frame::{Offloads, TX_HEADROOM, TxFrame};
use crate::ip::{Ip, Marking, Resolution};
use crate::memory::{Memory, Piece, SlotClass};
use crate::time::Instant;
use crate::wire::tcp::{TcpFlags, TcpHeader, Timestamps};

/// Most replies that wait.
const REPLIES_MAX: usize = 128;

/// A segment without payload for an end that may not exist here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) tuple: FourTuple,
    pub(super) seq: SeqNum,
    pub(super) ack: SeqNum,
    pub(super) flags: TcpFlags,
    pub(super) window: u16,
    pub(super) timestamps: Option<Timestamps>,
    pub(super) marking: Marking,
}

impl Reply {
    /// The reset that answers a segment (RFC 9293 §3.10.7.1); none answers a reset.
    pub(super) fn reset(tuple: FourTuple, header: &TcpHeader, payload_len: u32) -> Option<Reply> {
        if header.flags.intersects(TcpFlags::RST) {
            return None;
        }
        let mut reply = Reply {
            tuple,
            seq: header.ack,
            ack: SeqNum::default(),
            flags: TcpFlags::RST,
            window: 0,
            timestamps: None,
            marking: Marking::default(),
        };
        if !header.flags.intersects(TcpFlags::ACK) {
            let span = payload_len
                + u32::from(header.flags.intersects(TcpFlags::SYN))
                + u32::from(header.flags.intersects(TcpFlags::FIN));
            reply.seq = SeqNum::default();
            reply.ack = header.seq.plus(span);
            reply.flags = TcpFlags::RST.with(TcpFlags::ACK);
        }
        Some(reply)
    }
}

/// Replies that wait to be sent.
#[derive(Default)]
pub(super) struct Replies {
    queue: VecDeque<Reply>,
    /// Neighbour generation at which the first reply found its neighbour unresolved.
    waits_for: Option<u32>,
}

impl Replies {
    /// Adds one; false if there is no room.
    pub(super) fn push(&mut self, reply: Reply) -> bool {
        let room = self.queue.len() < REPLIES_MAX;
        if room {
            self.queue.push_back(reply);
        }
        room
    }

    /// Number of replies that wait.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether one may be ready: it is not while the first waits for its neighbour.
    #[inline]
    pub(super) fn is_ready(&self, neighbor_generation: u32) -> bool {
        !self.queue.is_empty() && self.waits_for != Some(neighbor_generation)
    }

    /// The next reply as a frame; `None` if none can be sent now.
    #[cold]
    pub(super) fn poll_frame<M: Memory>(
        &mut self,
        now: Instant,
        (ip, offloads): (&mut Ip, &Offloads),
        mem: &mut M,
        out: &mut TxFrame,
    ) -> Option<Reply> {
        let generation = ip.neighbor_generation();
        if self.waits_for == Some(generation) {
            return None;
        }
        self.waits_for = None;
        while let Some(reply) = self.queue.front().copied() {
            let Some(route) = ip.route(reply.tuple.remote) else {
                let _unroutable = self.queue.pop_front();
                continue;
            };
            match ip.resolve(now, route.next_hop) {
                Resolution::Resolved(mac) => {
                    let slot = mem.allocate(SlotClass::Small)?;
                    let _sent = self.queue.pop_front();
                    let mut template =
                        HeaderTemplate::new(&reply.tuple, reply.timestamps.is_some());
                    template.set_marking(reply.marking);
                    template.set_link(ip.mac(), mac, generation);
                    write(&reply, &mut template, slot, mem, out);
                    if !offloads.tx_checksum {
                        complete(out, (0, None), mem);
                    }
                    return Some(reply);
                }
                Resolution::Pending => {
                    self.waits_for = Some(ip.neighbor_generation());
                    return None;
                }
                Resolution::Unreachable => {
                    let _unreachable = self.queue.pop_front();
                }
            }
        }
        None
    }
}

fn write<M: Memory>(
    reply: &Reply,
    template: &mut HeaderTemplate,
    slot: crate::memory::Slot,
    mem: &mut M,
    out: &mut TxFrame,
) {
    let piece = Piece { slot, start: TX_HEADROOM, len: template.len() };
    let timestamps = reply.timestamps.unwrap_or_default();
    let fields = Fields {
        seq: reply.seq,
        ack: reply.ack,
        flags: reply.flags.bits(),
        window: reply.window,
        urgent: 0,
        ts_value: timestamps.value,
        ts_echo: timestamps.echo,
        behind: template.option_len(),
        capable: false,
    };
    template.emit(mem.bytes_mut(piece), &fields);
    out.pieces.clear();
    out.pieces.push(piece);
    out.segmentation = None;
    out.checksum = Some(template.checksum_place());
}

/// Computes the checksum of a frame that consists of one or more pieces, in software. If the sum
/// of the payload is known, whose length goes with it, it lies in the only piece and is not read.
pub(super) fn complete<M: Memory>(
    out: &mut TxFrame,
    (payload_len, payload): (u32, Option<Sum>),
    mem: &mut M,
) {
    let Some(request) = out.checksum.take() else { return };
    let Some(head) = out.pieces.first().copied() else { return };
    let start = u32::from(request.start);
    // Headers are a multiple of four bytes from there on.
    let known = payload.map_or(0, |_| payload_len);
    let summed = mem.sum(head.take(head.len - known).skip(start));
    let mut sum = summed.plus(payload.unwrap_or(Sum::ZERO));
    let mut offset = head.len - start;
    for piece in &out.pieces[1..] {
        sum = sum.plus_at(offset as usize, mem.sum(*piece));
        offset += piece.len;
    }
    let place = head.start + start + u32::from(request.offset);
    let place = Piece { slot: head.slot, start: place, len: 2 };
    mem.bytes_mut(place).copy_from_slice(&sum.checksum().to_be_bytes());
}
