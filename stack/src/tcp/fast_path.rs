//! Header prediction: the segment that an established connection expects next, in order, with
//! nothing but timestamps in its options. What is not exactly that goes the full way.

use super::congestion::AckSample;
use super::connection::{Connection, Context, Readiness};
use super::seq::SeqNum;
use super::timers::Timer;
use crate::memory::{Memory, Piece};
use crate::wire::tcp::Timestamps;

/// What the fast path looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) seq: SeqNum,
    pub(super) ack: SeqNum,
    /// As it stands in the header.
    pub(super) window: u16,
    pub(super) timestamps: Timestamps,
    /// Bytes before the payload, from the Ethernet header on.
    pub(super) header_len: u32,
    pub(super) payload_len: u32,
}

impl Connection {
    /// Takes the segment if it is the expected one; otherwise does nothing and says false.
    /// On true the pieces are taken over.
    #[inline(always)]
    pub(super) fn on_expected<M: Memory>(
        &mut self,
        segment: &Expected,
        pieces: &[Piece],
        ctx: &mut Context<'_, M>,
    ) -> bool {
        let acked = self.snd.una.distance_to(segment.ack);
        let older = segment.timestamps.value.wrapping_sub(self.rcv.ts_recent) > u32::MAX / 2;
        if !self.fast
            || segment.seq != self.rcv.nxt
            || acked > self.snd.in_flight()
            || segment.payload_len > self.rcv.window()
            || (segment.payload_len == 0 && acked == 0)
            || older
        {
            return false;
        }
        self.rcv.last_heard = ctx.now;
        self.rcv.on_timestamp(segment.timestamps.value, segment.seq, ctx.now);
        self.snd.wnd =
            u32::from(segment.window) << if self.snd.scaling { self.snd.scale } else { 0 };
        self.snd.wnd_max = self.snd.wnd_max.max(self.snd.wnd);
        self.snd.wl1 = segment.seq;
        self.snd.wl2 = segment.ack;
        if acked > 0 {
            self.on_expected_ack(segment, acked, ctx);
        }
        if segment.payload_len > 0 {
            self.on_expected_data(segment, pieces, ctx);
        } else {
            for piece in pieces {
                ctx.mem.release(piece.slot);
            }
        }
        true
    }

    #[inline(always)]
    fn on_expected_ack<M: Memory>(
        &mut self,
        segment: &Expected,
        acked: u32,
        ctx: &mut Context<'_, M>,
    ) {
        let echoed = None;
        let _sample = self.snd.rtt.on_ack(segment.ack, echoed, ctx.now);
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
        self.notify(Readiness::WRITABLE);
    }

    #[inline(always)]
    fn on_expected_data<M: Memory>(
        &mut self,
        segment: &Expected,
        pieces: &[Piece],
        ctx: &mut Context<'_, M>,
    ) {
        let len = segment.payload_len;
        self.rcv.nxt = self.rcv.nxt.plus(len);
        ctx.counters.bytes_received += u64::from(len);
        if len > u32::from(self.rcv.segment_size) {
            self.rcv.segment_size = u16::try_from(len).unwrap_or(u16::MAX).min(self.snd.mss);
        }
        let mut skip = segment.header_len;
        for piece in pieces {
            let compacted = self.rcv.queue.push(piece.skip(skip), ctx.mem);
            ctx.counters.bytes_compacted += u64::from(compacted);
            skip = 0;
        }
        self.schedule_ack(ctx.now, ctx.config.delayed_ack);
        self.notify(Readiness::READABLE);
    }
}
