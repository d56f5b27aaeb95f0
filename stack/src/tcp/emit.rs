//! Making frames: headers into slots, payload as pieces behind them.

use super::connection::{Connection, Context};
use super::options::{self, WantedOptions};
use super::receiver::AckDue;
use super::reply;
use super::send_queue::Pieces;
use super::sender::{Plan, ProbeDue};
use super::seq::SeqNum;
use super::state::State;
use super::template::Fields;
use super::timers::Timer;
use crate::checksum::Sum;
use crate::frame::{SegmentKind, TX_HEADROOM, TxFrame, TxSegmentation};
use crate::memory::{Memory, Piece, SlotClass};
use crate::wire::tcp::{TcpFlags, Timestamps};

/// Whether a frame was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Emitted {
    /// The frame is filled in.
    Frame,
    /// There is nothing to send now.
    Nothing,
    /// There would be, but no transmit slot is free.
    NoSlot,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Bytes of payload.
    len: u32,
    /// Their sum, if it is known.
    sum: Option<Sum>,
    /// Whether the frame bears CWR, which the first segment of it alone may.
    reduced: bool,
}

/// What a frame says besides its payload.
#[derive(Clone, Copy, Debug)]
struct Head {
    seq: SeqNum,
    flags: TcpFlags,
    /// Bytes of payload.
    len: u32,
}

impl Connection {
    /// The next frame of this connection.
    #[inline]
    pub(super) fn poll_frame<M: Memory>(
        &mut self,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) -> Emitted {
        if self.state.is_opening() {
            return self.poll_handshake(ctx, out);
        }
        if self.state == State::Closed {
            return Emitted::Nothing;
        }
        if self.snd.has_something() {
            self.restart_after_idle(ctx.now);
            if let Some(plan) = self.plan(ctx) {
                return self.emit_plan(plan, ctx, out);
            }
            self.arm_persist_if_blocked(ctx.now);
        }
        if self.rcv.ack != AckDue::Now && self.snd.probe == ProbeDue::No {
            return Emitted::Nothing;
        }
        self.emit_bare_ack(ctx, out)
    }

    /// An acknowledgement without payload, or a probe: the same with an old sequence number.
    fn emit_bare_ack<M: Memory>(&mut self, ctx: &mut Context<'_, M>, out: &mut TxFrame) -> Emitted {
        let seq = match self.snd.probe {
            ProbeDue::No => self.snd.nxt,
            ProbeDue::Now => self.snd.una.minus(1),
        };
        let head = Head { seq, flags: TcpFlags::ACK, len: 0 };
        let emitted = self.emit(head, &Pieces::new(), ctx, out);
        if emitted == Emitted::Frame {
            self.snd.probe = ProbeDue::No;
        }
        emitted
    }

    /// Data, a FIN, or both.
    #[inline]
    fn emit_plan<M: Memory>(
        &mut self,
        plan: Plan,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) -> Emitted {
        let mut flags = TcpFlags::ACK;
        if plan.push {
            flags = flags.with(TcpFlags::PSH);
        }
        if plan.fin {
            flags = flags.with(TcpFlags::FIN);
        }
        let head = Head { seq: plan.from, flags, len: plan.len };
        let is_new = plan.from == self.snd.nxt;
        if is_new
            && plan.len > 0
            && self.rcv.reassembly.is_empty()
            && let Some(payload) = self.snd.queue.take_with_headroom(plan.len)
        {
            self.emit_in_place(head, payload, ctx, out);
            self.on_planned_sent(&plan, ctx);
            return Emitted::Frame;
        }
        self.emit_pieces(plan, head, ctx, out)
    }

    /// Data in pieces of the send queue, headers in a slot of their own.
    fn emit_pieces<M: Memory>(
        &mut self,
        mut plan: Plan,
        mut head: Head,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) -> Emitted {
        let mut payload = Pieces::new();
        let is_new = plan.from == self.snd.nxt;
        let (place, taken) = if is_new {
            // With a list of ranges in it no segment is as long as it was laid out.
            let plain = self.rcv.reassembly.is_empty();
            let rest = self.snd.queue.rest_of_segment().filter(|_| plain);
            let len = plan.len.min(rest.unwrap_or(u32::MAX));
            let (place, taken) = self.snd.queue.peek_unsent(len, &mut payload);
            (Some(place), taken)
        } else {
            let offset = self.snd.una.distance_to(plan.from);
            (None, self.snd.queue.peek(offset, plan.len, &mut payload))
        };
        if taken < plan.len {
            // More pieces than a frame has, or the end of a segment: the rest follows in the next
            // frame.
            plan = Plan { len: taken, fin: false, ..plan };
            head.flags = head.flags.without(TcpFlags::FIN);
            head.len = taken;
        }
        let emitted = self.emit(head, &payload, ctx, out);
        if emitted == Emitted::Frame {
            if let Some(place) = place {
                self.snd.queue.sent_up_to(place);
            }
            self.on_planned_sent(&plan, ctx);
        }
        emitted
    }

    /// The payload is a whole small slot with room in front: headers and payload are one piece.
    #[inline]
    fn emit_in_place<M: Memory>(
        &mut self,
        head: Head,
        payload: Piece,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) {
        let header_len = self.snd.template.len();
        let start = payload.start - header_len;
        let frame = Piece { slot: payload.slot, start, len: header_len + payload.len };
        let behind = payload.len + self.snd.template.option_len();
        let fields = self.fields(head, behind, ctx);
        let reduced = fields.flags & TcpFlags::CWR.bits() != 0;
        self.snd.template.emit(ctx.mem.bytes_mut(frame), &fields);
        ctx.mem.retain(frame.slot);
        out.pieces.clear();
        out.pieces.push(frame);
        let sum = self.snd.queue.sum_of_taken();
        self.finish(Load { len: payload.len, sum, reduced }, ctx, out);
    }

    /// Headers in a slot of their own, payload pieces behind.
    fn emit<M: Memory>(
        &mut self,
        head: Head,
        payload: &Pieces,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) -> Emitted {
        let Some(slot) = ctx.mem.allocate(SlotClass::Small) else {
            ctx.counters.no_transmit_slot += 1;
            return Emitted::NoSlot;
        };
        let len = head.len;
        let blocks = self.rcv.sack_blocks();
        let mut reduced = false;
        let header_len = if blocks.is_empty() {
            let header_len = self.snd.template.len();
            let fields = self.fields(head, len + self.snd.template.option_len(), ctx);
            reduced = fields.flags & TcpFlags::CWR.bits() != 0;
            let place = Piece { slot, start: TX_HEADROOM, len: header_len };
            self.snd.template.emit(ctx.mem.bytes_mut(place), &fields);
            header_len
        } else {
            let timestamps = self.rcv.timestamps.then(|| Timestamps {
                value: self.snd.clock.value(ctx.now),
                echo: self.rcv.ts_recent,
            });
            let wanted = WantedOptions { timestamps, sack: &blocks, ..WantedOptions::default() };
            let options = options::grant(&wanted);
            self.emit_head_with_options(head, slot, &options, ctx)
        };
        out.pieces.clear();
        out.pieces.push(Piece { slot, start: TX_HEADROOM, len: header_len });
        for piece in payload {
            ctx.mem.retain(piece.slot);
            out.pieces.push(*piece);
        }
        self.finish(Load { len, sum: None, reduced }, ctx, out);
        Emitted::Frame
    }

    /// Writes headers with an option list of its own; returns their length.
    fn emit_head_with_options<M: Memory>(
        &mut self,
        head: Head,
        slot: crate::memory::Slot,
        options: &[u8],
        ctx: &mut Context<'_, M>,
    ) -> u32 {
        let option_len = u32::try_from(options.len()).unwrap_or(0);
        let fixed = self.snd.template.fixed_len();
        let fields = self.fields(head, head.len + option_len, ctx);
        let place = Piece { slot, start: TX_HEADROOM, len: fixed + option_len };
        let bytes = ctx.mem.bytes_mut(place);
        self.snd.template.emit_with_options(bytes, &fields, option_len);
        bytes[fixed as usize..].copy_from_slice(options);
        fixed + option_len
    }

    /// The fields that differ between segments; advertises the window.
    #[inline]
    fn fields<M: Memory>(&mut self, head: Head, behind: u32, ctx: &mut Context<'_, M>) -> Fields {
        let syn = head.flags.intersects(TcpFlags::SYN);
        let window = self.rcv.advertise(if syn { 0 } else { self.rcv.scale });
        // RFC 3168 §6.1.4 to §6.1.6: only what carries new data is ECN-capable.
        let new_data = head.len > 0 && head.seq == self.snd.nxt;
        let mut flags = if syn { head.flags } else { head.flags.with(self.ecn.flags(new_data)) };
        let mut urgent = 0;
        if let Some(up) = self.snd.urgent {
            // RFC 9293 §3.8.5: the pointer stands as long as urgent data is unacknowledged.
            if up.after(head.seq) {
                flags = flags.with(TcpFlags::URG);
                urgent = u16::try_from(head.seq.distance_to(up)).unwrap_or(u16::MAX);
            }
        }
        Fields {
            seq: head.seq,
            ack: if flags.intersects(TcpFlags::ACK) { self.rcv.nxt } else { SeqNum::default() },
            flags: flags.bits(),
            window,
            urgent,
            ts_value: self.snd.clock.value(ctx.now),
            ts_echo: self.rcv.ts_recent,
            behind,
            capable: new_data,
        }
    }

    /// Checksum and segmentation, counters, and what sending an acknowledgement settles.
    #[inline]
    fn finish<M: Memory>(&mut self, load: Load, ctx: &mut Context<'_, M>, out: &mut TxFrame) {
        let Load { len: payload_len, sum, reduced } = load;
        ctx.counters.segments_sent += 1;
        ctx.counters.bytes_sent += u64::from(payload_len);
        self.timers.disarm(Timer::DelayedAck);
        out.segmentation = None;
        out.checksum = Some(self.snd.template.checksum_place());
        let header_len = out.pieces.first().map_or(0, |head| head.len);
        if payload_len > u32::from(self.snd.mss) {
            let header_len = header_len.min(out.frame_len() - payload_len);
            let v6 = self.snd.template.is_v6();
            out.segmentation = Some(TxSegmentation {
                kind: if v6 { SegmentKind::Tcp6 } else { SegmentKind::Tcp4 },
                size: self.snd.mss,
                header_len: u16::try_from(header_len).unwrap_or(u16::MAX),
                ecn: reduced,
            });
        } else if !ctx.offloads.tx_checksum {
            reply::complete(out, (payload_len, sum), ctx.mem);
        }
    }

    /// SYN, or SYN and ACK, or what a connection in an opening state must acknowledge.
    #[cold]
    fn poll_handshake<M: Memory>(
        &mut self,
        ctx: &mut Context<'_, M>,
        out: &mut TxFrame,
    ) -> Emitted {
        let received = matches!(self.state, State::SynReceived(_));
        if !self.snd.syn_due {
            if self.rcv.ack == AckDue::Now && received {
                return self.emit_bare_ack(ctx, out);
            }
            return Emitted::Nothing;
        }
        let Some(slot) = ctx.mem.allocate(SlotClass::Small) else {
            ctx.counters.no_transmit_slot += 1;
            return Emitted::NoSlot;
        };
        let again = self.snd.nxt != self.snd.una;
        let ecn = self.ecn.syn_flags(ctx.config.ecn, received, again);
        let flags = if received { TcpFlags::SYN.with(TcpFlags::ACK) } else { TcpFlags::SYN };
        let flags = flags.with(ecn);
        let options = options::grant(&self.syn_options(received, ctx));
        let head = Head { seq: self.snd.una, flags, len: 0 };
        let header_len = self.emit_head_with_options(head, slot, &options, ctx);
        out.pieces.clear();
        out.pieces.push(Piece { slot, start: TX_HEADROOM, len: header_len });
        self.finish(Load { len: 0, sum: None, reduced: false }, ctx, out);
        self.on_syn_sent_out(ctx);
        Emitted::Frame
    }
}
