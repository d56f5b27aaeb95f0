//! Opening: SYN-SENT and SYN-RECEIVED (RFC 9293 §3.10.7.3 and the opening parts of §3.10.7.4).

use super::config::TcpConfig;
use super::connection::{Connection, Context, Readiness};
use super::error::ConnectionError;
use super::options::WantedOptions;
use super::receiver::AckDue;
use super::recovery::Recovery;
use super::segment::{Disposition, Segment};
use super::seq::SeqNum;
use super::state::{Origin, State};
use super::template::HeaderTemplate;
use super::timers::Timer;
use crate::frame::Offloads;
use crate::memory::Memory;
use crate::time::Instant;
use crate::wire::tcp::{Options, TcpFlags, Timestamps};

/// The least MSS that is believed: a peer that says less would make us send mostly headers.
const MSS_MIN: u16 = 64;

impl Connection {
    /// Options of our SYN. On a SYN and ACK only what the peer offered is repeated.
    pub(super) fn syn_options<M: Memory>(
        &self,
        received: bool,
        ctx: &Context<'_, M>,
    ) -> WantedOptions<'static> {
        let offer = |ours: bool, peers: bool| ours && (!received || peers);
        let timestamps = offer(ctx.config.timestamps, self.rcv.timestamps);
        WantedOptions {
            mss: Some(self.snd.mss_offered),
            window_scale: offer(true, self.snd.scaling).then_some(self.rcv.scale),
            sack_permitted: offer(ctx.config.sack, self.rcv.sack),
            timestamps: timestamps.then(|| Timestamps {
                value: self.snd.clock.value(ctx.now),
                echo: self.rcv.ts_recent,
            }),
            sack: &[],
        }
    }

    /// A SYN went out: time it, and try again later.
    pub(super) fn on_syn_sent_out<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        self.snd.syn_due = false;
        let first = self.snd.nxt == self.snd.una;
        self.snd.nxt = self.snd.una.plus(1);
        if first {
            self.snd.outstanding_since = ctx.now;
            self.snd.rtt.on_sent(self.snd.nxt, ctx.now);
        } else {
            ctx.counters.retransmissions += 1;
            self.snd.rtt.on_retransmitted();
        }
        self.snd.last_sent = ctx.now;
        self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
    }

    /// The peer's SYN is known: sequence numbers, and what both ends can do.
    pub(super) fn on_peer_syn(&mut self, segment: &Segment<'_>, now: Instant, config: &TcpConfig) {
        let options: &Options = &segment.options;
        self.rcv.synchronize(segment.header.seq);
        self.ecn.on_peer_syn(segment.header.flags, config.ecn);
        if let Some(timestamps) = options.timestamps.filter(|_| config.timestamps) {
            self.rcv.timestamps = true;
            self.rcv.ts_recent = timestamps.value;
            self.rcv.ts_recent_at = now;
        }
        self.rcv.sack = config.sack && options.sack_permitted;
        if let Some(scale) = options.window_scale {
            self.snd.scaling = true;
            self.snd.scale = scale;
        } else {
            // RFC 7323 §1.3: both or none.
            self.rcv.scale = 0;
        }
        self.snd.peer_mss = options.mss.unwrap_or(super::sender::default_mss(&self.tuple));
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        self.snd.wnd = u32::from(segment.header.window);
        self.snd.window_field = u32::MAX;
        self.snd.wnd_max = self.snd.wnd;
        self.snd.wl1 = segment.header.seq;
    }

    /// Both SYNs are acknowledged: everything negotiated takes effect.
    pub(super) fn establish<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        ctx.counters.established += 1;
        self.snd.una = self.snd.una.plus(1);
        self.snd.recovery = Recovery::new(self.rcv.sack);
        let (link, marking) = (self.snd.template.link(), self.snd.template.marking());
        self.snd.template = HeaderTemplate::new(&self.tuple, self.rcv.timestamps);
        self.ecn.set_device(ctx.offloads.tso_ecn);
        self.snd.template.set_ecn_capable(self.ecn.is_on());
        self.snd.template.set_marking(marking);
        self.snd.template.restore_link(link);
        let mss = self.snd.peer_mss.max(MSS_MIN).min(self.snd.mss_offered);
        let options = u16::try_from(self.snd.template.option_len()).unwrap_or(0);
        self.snd.set_mss(mss - options, ctx.offloads);
        if self.snd.retransmissions > 0 {
            // RFC 5681 §3.1: after a lost SYN the initial window is one segment.
            self.snd.congestion.on_syn_lost();
        }
        self.snd.rtt.on_established();
        self.snd.retransmissions = 0;
        self.forget_soft_error();
        self.timers.disarm(Timer::Retransmit);
        self.state = if self.snd.fin == super::sender::Fin::Queued {
            State::FinWait1
        } else {
            State::Established
        };
        if let Some(idle) = self.keep_alive.as_ref().map(|keep_alive| keep_alive.idle) {
            self.arm(Timer::KeepAlive, ctx.now + idle);
        }
        self.notify(Readiness::WRITABLE);
    }

    /// SYN-SENT (RFC 9293 §3.10.7.3), step by step.
    pub(super) fn on_segment_syn_sent<M: Memory>(
        &mut self,
        segment: &mut Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        let header = segment.header;
        let ack = header.flags.intersects(TcpFlags::ACK).then_some(header.ack);
        // First, the ACK bit.
        if ack.is_some_and(|ack| ack != self.snd.nxt || self.snd.nxt == self.snd.una) {
            return Disposition::Reset;
        }
        // Second, the RST bit.
        if header.flags.intersects(TcpFlags::RST) {
            if ack.is_some() {
                ctx.counters.resets_received += 1;
                return Disposition::Fail(ConnectionError::Refused);
            }
            return Disposition::Done;
        }
        // Fourth, the SYN bit.
        if !header.flags.intersects(TcpFlags::SYN) {
            return Disposition::Done;
        }
        self.on_peer_syn(segment, ctx.now, ctx.config);
        let Some(ack) = ack else {
            // Simultaneous open: both SYNs crossed.
            self.state = State::SynReceived(Origin::Simultaneous);
            self.snd.syn_due = true;
            return Disposition::Done;
        };
        self.snd.wl2 = ack;
        self.measure_handshake(ack, segment, ctx);
        self.establish(ctx);
        self.rcv.ack = AckDue::Now;
        self.rest_of_syn(segment, ctx)
    }

    /// The path takes packets of `mtu` bytes only (RFC 1191, RFC 8201): smaller segments from now
    /// on, and what was too large is sent again.
    pub(super) fn on_path_mtu(&mut self, mtu: u16, offloads: &Offloads) {
        let fixed = u16::try_from(self.snd.template.len() - 14).unwrap_or(u16::MAX);
        let mss = mtu.saturating_sub(fixed).max(MSS_MIN);
        if mss >= self.snd.mss || !self.state.is_synchronized() {
            return;
        }
        self.snd.set_mss(mss, offloads);
        if self.snd.in_flight() > 0 {
            let snd = &mut self.snd;
            snd.recovery.on_timeout(snd.una, snd.nxt, &mut snd.congestion);
        }
        self.refresh_fast();
    }

    /// The round trip of our SYN, if it was sent once.
    pub(super) fn measure_handshake<M: Memory>(
        &mut self,
        ack: SeqNum,
        segment: &Segment<'_>,
        ctx: &Context<'_, M>,
    ) {
        let echoed = segment
            .options
            .timestamps
            .filter(|_| self.rcv.timestamps)
            .and_then(|ts| self.snd.clock.elapsed(ts.echo, ctx.now));
        let _sample = self.snd.rtt.on_ack(ack, echoed, ctx.now);
    }

    /// Data and FIN that came with the peer's SYN (RFC 9293 §3.10.7.3, at its end).
    fn rest_of_syn<M: Memory>(
        &mut self,
        segment: &mut Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        segment.header.seq = segment.header.seq.plus(1);
        segment.header.flags = segment.header.flags.without(TcpFlags::SYN);
        // Nothing was advertised yet: the window of the SYN field is what the peer may use.
        let window = self.rcv.limit.min(u32::from(u16::MAX));
        self.rcv.edge = self.rcv.nxt.plus(window);
        self.on_text_and_fin(segment, ctx)
    }
}
