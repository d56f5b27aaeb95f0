//! The ACK field of a segment that the window test let pass (RFC 9293 §3.10.7.4, fifth step): what
//! it acknowledges, the peer's window, and what both do to timers and state. Loss recovery and
//! congestion control are asked here and nowhere else, the fast path aside.

use super::connection::{Connection, Context, Ownership, Readiness};
use super::recovery::{AckInfo, RecoveryEvent};
use super::segment::{Disposition, Segment, Step};
use super::sender::Fin;
use super::seq::SeqNum;
use super::state::State;
use super::timers::Timer;
use crate::memory::Memory;
use crate::wire::tcp::TcpFlags;

impl Connection {
    /// Fifth step: the ACK field.
    pub(super) fn check_ack<M: Memory>(
        &mut self,
        segment: &Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Step {
        if !segment.header.flags.intersects(TcpFlags::ACK) {
            return Err(Disposition::Done);
        }
        let ack = segment.header.ack;
        if matches!(self.state, State::SynReceived(_)) {
            if ack != self.snd.nxt || self.snd.nxt == self.snd.una {
                return Err(Disposition::Reset);
            }
            self.measure_handshake(ack, segment, ctx);
            self.establish(ctx);
            self.update_window(segment, true);
        }
        if ack.after(self.snd.nxt) {
            // RFC 9293 §3.10.7.4: it acknowledges what was not sent.
            self.challenge(ctx);
            return Err(Disposition::Done);
        }
        if ack.before(self.snd.una) {
            if ack.distance_to(self.snd.una) > self.snd.wnd_max.max(u32::from(u16::MAX)) {
                // RFC 5961 §5.2.
                self.challenge(ctx);
                return Err(Disposition::Done);
            }
        } else {
            self.on_acceptable_ack(segment, ctx);
        }
        Ok(())
    }

    /// SND.UNA =< SEG.ACK =< SND.NXT.
    fn on_acceptable_ack<M: Memory>(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_, M>) {
        let ack = segment.header.ack;
        let window_before = self.snd.wnd;
        self.update_window(segment, false);
        let acked = self.snd.una.distance_to(ack);
        let is_duplicate = acked == 0
            && self.snd.in_flight() > 0
            && segment.span() == 0
            && self.snd.wnd == window_before;
        let echoed = segment
            .options
            .timestamps
            .filter(|_| self.rcv.timestamps && acked > 0)
            .and_then(|ts| self.snd.clock.elapsed(ts.echo, ctx.now));
        if acked > 0 {
            let _sample = self.snd.rtt.on_ack(ack, echoed, ctx.now);
        }
        let info = AckInfo {
            now: ctx.now,
            snd_una: self.snd.una,
            snd_nxt: self.snd.nxt,
            ack,
            sack: if self.rcv.sack { &segment.options.sack } else { &[] },
            is_duplicate,
            mss: u32::from(self.snd.mss),
            srtt: self.snd.rtt.srtt(),
            cwnd_limited: self.snd.cwnd_limited && !self.is_congestion_echo(segment),
        };
        let outcome = self.snd.recovery.on_ack(&info, &mut self.snd.congestion);
        ctx.counters.fast_recoveries += u64::from(outcome.event == RecoveryEvent::Entered);
        ctx.counters.sack_reneged += u64::from(outcome.reneged);
        ctx.counters.sack_ignored += u64::from(outcome.blocks_ignored);
        if outcome.event == RecoveryEvent::Entered {
            self.ecn.on_reduced(self.snd.nxt);
        } else {
            self.on_congestion_echo(segment, ctx);
        }
        self.on_bytes_acknowledged(ack, acked, ctx);
    }

    /// Drops what is acknowledged and moves the timers and the state on.
    fn on_bytes_acknowledged<M: Memory>(
        &mut self,
        ack: SeqNum,
        acked: u32,
        ctx: &mut Context<'_, M>,
    ) {
        if self.snd.wnd > 0 {
            self.timers.disarm(Timer::Persist);
        }
        if acked == 0 {
            return;
        }
        let fin_acked = self.snd.fin == Fin::Sent && ack == self.snd.nxt;
        self.snd.queue.acknowledge(acked - u32::from(fin_acked), ctx.mem);
        self.snd.una = ack;
        self.snd.retransmissions = 0;
        self.keep_alive_probes_sent = 0;
        self.forget_soft_error();
        if self.snd.in_flight() == 0 {
            self.timers.disarm(Timer::Retransmit);
        } else {
            self.snd.outstanding_since = ctx.now;
            self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
        }
        if self.snd.urgent.is_some_and(|up| up.at_or_before(ack)) {
            self.snd.urgent = None;
        }
        self.notify(Readiness::WRITABLE);
        if fin_acked {
            self.on_fin_acknowledged(ctx);
        }
    }

    fn on_fin_acknowledged<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                if self.ownership == Ownership::Orphan {
                    self.arm(Timer::TimeWait, ctx.now + ctx.config.fin_wait_2);
                }
            }
            State::Closing => self.enter_time_wait(ctx),
            State::LastAck => self.state = State::Closed,
            _ => {}
        }
    }

    /// The send window (RFC 9293 §3.10.7.4, fifth step): only from segments newer than the last.
    pub(super) fn update_window(&mut self, segment: &Segment<'_>, force: bool) {
        let (seq, ack) = (segment.header.seq, segment.header.ack);
        let snd = &mut self.snd;
        let newer = snd.wl1.before(seq) || (snd.wl1 == seq && snd.wl2.at_or_before(ack));
        if newer || force {
            snd.set_window(segment.header.window);
            snd.wl1 = seq;
            snd.wl2 = ack;
        }
    }
}
