//! The fast path of both directions. In: header prediction, the segment that an established
//! connection expects next, in order, with nothing but timestamps in its options. Out: one small
//! write that is all there is to send. What is not exactly that goes the full way; nothing here
//! does what the full way would not do.

use super::congestion::AckSample;
use super::connection::{Connection, Context, Readiness};
use super::receiver::AckDue;
use super::send_queue::small_write_max;
use super::sender::{Fin, ProbeDue};
use super::seq::SeqNum;
use super::template::Fields;
use super::timers::Timer;
use crate::checksum::Sum;
use crate::copy::copy;
use crate::frame::TX_HEADROOM;
use crate::memory::{Memory, Piece, SlotClass};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{TcpFlags, Timestamps};

/// An idle time that is shorter than any retransmission timeout: no restart (RFC 5681 §4.1).
const SURELY_NOT_IDLE: Duration = Duration::from_millis(200);
/// Bytes of all headers on the fast path: Ethernet, IPv4, TCP with timestamps.
pub(super) const EXPECTED_HEADERS_LEN: u32 = 14 + 20 + 32;
/// Bytes of options of a segment on the fast path: timestamps.
pub(super) const EXPECTED_OPTIONS_LEN: u32 = 12;
const ACK_PUSH: u8 = TcpFlags::ACK.bits() | TcpFlags::PSH.bits();

/// What the fast path looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) seq: SeqNum,
    pub(super) ack: SeqNum,
    /// As it stands in the header.
    pub(super) window: u16,
    pub(super) timestamps: Timestamps,
    pub(super) payload_len: u32,
}

impl Connection {
    /// Whether the segment is the expected one, for a connection on the fast path: then how many
    /// bytes it acknowledges.
    #[inline(always)]
    pub(super) fn expects(&self, segment: &Expected) -> Option<u32> {
        let acked = self.snd.una.distance_to(segment.ack);
        let older = segment.timestamps.value.wrapping_sub(self.rcv.ts_recent) > u32::MAX / 2;
        let expected = segment.seq == self.rcv.nxt
            && acked <= self.snd.in_flight()
            && self.rcv.has_window_for(segment.payload_len)
            && (segment.payload_len | acked) != 0
            && !older;
        expected.then_some(acked)
    }

    /// Queues the payload of the expected segment where it lies, whose reference is taken over.
    #[inline(never)]
    pub(super) fn queue_expected<M: Memory>(&mut self, piece: Piece, ctx: &mut Context<'_, M>) {
        let compacted = self.rcv.queue.push(piece.skip(EXPECTED_HEADERS_LEN), ctx.mem);
        ctx.counters.bytes_compacted += u64::from(compacted);
    }

    /// The same for a payload in several pieces.
    #[inline(never)]
    pub(super) fn queue_expected_pieces<M: Memory>(
        &mut self,
        pieces: &[Piece],
        ctx: &mut Context<'_, M>,
    ) {
        let compacted = self.rcv.queue.push_several(pieces, EXPECTED_HEADERS_LEN, ctx.mem);
        ctx.counters.bytes_compacted += u64::from(compacted);
    }

    /// Takes the expected segment, as [`Connection::expects`] said it is, whose payload is queued.
    #[inline(always)]
    pub(super) fn on_expected<M: Memory>(
        &mut self,
        (segment, acked): (&Expected, u32),
        ctx: &mut Context<'_, M>,
    ) {
        self.rcv.last_heard = ctx.now;
        // What comes next is never before the last acknowledgement (RFC 7323 §4.3).
        if segment.seq == self.rcv.last_ack_sent {
            self.rcv.ts_recent = segment.timestamps.value;
            self.rcv.ts_recent_at = ctx.now;
        }
        if u32::from(segment.window) != self.snd.window_field {
            self.snd.set_window(segment.window);
        }
        self.snd.wl1 = segment.seq;
        self.snd.wl2 = segment.ack;
        // The data first: fewer values are alive in the longer part.
        let mut ready = Readiness::NONE;
        if segment.payload_len > 0 {
            self.on_expected_data(segment, ctx);
            ready = Readiness::READABLE;
        }
        if acked > 0 {
            self.on_expected_ack(segment, acked, ctx);
            ready = ready.union(Readiness::WRITABLE);
        }
        self.notify(ready);
    }

    #[inline(always)]
    fn on_expected_ack<M: Memory>(
        &mut self,
        segment: &Expected,
        acked: u32,
        ctx: &mut Context<'_, M>,
    ) {
        self.snd.rtt.on_timed_ack(segment.ack, ctx.now);
        if self.snd.cwnd_limited {
            self.snd.congestion.on_ack(&AckSample {
                now: ctx.now,
                acked,
                srtt: self.snd.rtt.srtt(),
                cwnd_limited: true,
            });
        }
        self.snd.queue.acknowledge(acked, ctx.mem);
        self.snd.una = segment.ack;
        self.snd.retransmissions = 0;
        if self.snd.in_flight() == 0 {
            self.timers.disarm(Timer::Retransmit);
        } else {
            self.snd.outstanding_since = ctx.now;
            self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
        }
    }

    #[inline(always)]
    fn on_expected_data<M: Memory>(&mut self, segment: &Expected, ctx: &mut Context<'_, M>) {
        let len = segment.payload_len;
        self.rcv.nxt = self.rcv.nxt.plus(len);
        ctx.counters.bytes_received += u64::from(len);
        if len > u32::from(self.rcv.segment_size) {
            self.rcv.segment_size = u16::try_from(len).unwrap_or(u16::MAX).min(self.snd.mss);
        }
        self.schedule_ack(ctx.now, ctx.config.delayed_ack);
    }

    /// Sends all there is if that is one small write whose headers go in front of it, in its own
    /// slot: the whole frame, lent until it is acknowledged. Otherwise does nothing.
    #[inline(always)]
    pub(super) fn send_expected<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Option<Piece> {
        let snd = &mut self.snd;
        let in_flight = snd.in_flight();
        let len = snd.queue.len().wrapping_sub(in_flight);
        // A segment fits every congestion window.
        let cwnd = if in_flight == 0 { u32::MAX } else { snd.congestion.window() };
        let plain = self.fast
            && (snd.nodelay || in_flight == 0)
            && len.wrapping_sub(1) < u32::from(snd.mss)
            && in_flight + len <= snd.wnd.min(cwnd)
            && (in_flight > 0 || ctx.now.is_within(SURELY_NOT_IDLE, snd.last_sent));
        if !plain {
            return None;
        }
        let payload = snd.queue.take_with_headroom(len)?;
        let header_len = EXPECTED_HEADERS_LEN;
        let start = payload.start.wrapping_sub(header_len);
        let frame = Piece { slot: payload.slot, start, len: header_len + len };
        let fields = self.expected_fields(len, ctx.now);
        let bytes = ctx.mem.bytes_mut(frame);
        self.snd.template.emit_expected(bytes, &fields);
        if !ctx.offloads.tx_checksum {
            let (headers, payload) = bytes.split_at_mut(header_len as usize);
            let sum = self.snd.queue.sum_of_taken().unwrap_or_else(|| Sum::of(payload));
            self.snd.template.complete_expected(headers, fields, sum);
        }
        self.on_expected_sent(len, in_flight == 0, ctx);
        Some(frame)
    }

    /// Sends a small write at once, without a way through the queue of those that are ready, if
    /// Nagle's algorithm does not hold it back and nothing is before it. Otherwise does nothing.
    #[inline(always)]
    pub(super) fn send_at_once<M: Memory>(
        &mut self,
        data: &[u8],
        ctx: &mut Context<'_, M>,
    ) -> Option<Piece> {
        let snd = &self.snd;
        // Nothing queued is nothing in flight, and a segment fits every congestion window.
        let plain = self.fast
            && snd.nodelay
            && !self.queued
            && snd.queue.len() == 0
            && data.len().wrapping_sub(1) < small_write_max(EXPECTED_HEADERS_LEN)
            && data.len() <= usize::from(snd.mss)
            && data.len() <= snd.wnd as usize
            && ctx.now.is_within(SURELY_NOT_IDLE, snd.last_sent)
            && !ctx.mem.small_is_low();
        if !plain {
            return None;
        }
        let slot = ctx.mem.allocate(SlotClass::Small)?;
        let len = u32::try_from(data.len()).unwrap_or(0);
        let frame = Piece { slot, start: TX_HEADROOM, len: EXPECTED_HEADERS_LEN + len };
        let fields = self.expected_fields(len, ctx.now);
        let bytes = ctx.mem.bytes_mut(frame);
        let (headers, payload) = bytes.split_at_mut(EXPECTED_HEADERS_LEN as usize);
        copy(payload, data);
        self.snd.template.emit_expected(headers, &fields);
        if !ctx.offloads.tx_checksum {
            self.snd.template.complete_expected(headers, fields, Sum::of(data));
        }
        self.snd.queue.put_sent(frame.skip(EXPECTED_HEADERS_LEN));
        self.on_expected_sent(len, true, ctx);
        Some(frame)
    }

    /// What changes in the headers of a segment with `len` bytes of new data.
    #[inline(always)]
    fn expected_fields(&mut self, len: u32, now: Instant) -> Fields {
        Fields {
            seq: self.snd.nxt,
            ack: self.rcv.nxt,
            flags: ACK_PUSH,
            window: self.rcv.advertise(self.rcv.scale),
            urgent: 0,
            ts_value: self.snd.clock.value(now),
            ts_echo: self.rcv.ts_recent,
            behind: len + EXPECTED_OPTIONS_LEN,
            capable: true,
        }
    }

    /// A segment with `len` bytes of new data is on its way; `alone` if nothing else is.
    #[inline(always)]
    fn on_expected_sent<M: Memory>(&mut self, len: u32, alone: bool, ctx: &mut Context<'_, M>) {
        let snd = &mut self.snd;
        snd.nxt = snd.nxt.plus(len);
        snd.rtt.on_sent(snd.nxt, ctx.now);
        snd.last_sent = ctx.now;
        snd.cwnd_limited = false;
        self.rcv.interactive = true;
        self.timers.disarm(Timer::DelayedAck);
        if alone {
            self.snd.outstanding_since = ctx.now;
            self.arm(Timer::Retransmit, ctx.now.plus(self.snd.rtt.rto().duration()));
        }
        ctx.counters.segments_sent += 1;
        ctx.counters.bytes_sent += u64::from(len);
        debug_assert!(self.rcv.ack == AckDue::No);
        debug_assert!(self.snd.fin == Fin::None && self.snd.probe == ProbeDue::No);
    }
}
