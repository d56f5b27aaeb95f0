//! The full procedure for a segment that arrives (RFC 9293 §3.10.7.4), one function a step. The
//! fast path takes most segments before they get here; the fifth step is in `acknowledgment`.

use super::connection::{Connection, Context, Ownership, Readiness};
use super::error::ConnectionError;
use super::receiver::{AckDue, Payload};
use super::seq::SeqNum;
use super::state::{Origin, State};
use super::timers::Timer;
use crate::memory::Memory;
use crate::wire::tcp::{Options, TcpFlags, TcpHeader};

/// A segment under processing.
pub(super) struct Segment<'a> {
    pub(super) header: TcpHeader,
    pub(super) options: Options,
    pub(super) payload: Payload<'a>,
    /// Type of service or traffic class of its packet.
    pub(super) tos: u8,
}

impl Segment<'_> {
    /// SEG.LEN: payload, SYN and FIN.
    pub(super) fn span(&self) -> u32 {
        self.payload.len()
            + u32::from(self.header.flags.intersects(TcpFlags::SYN))
            + u32::from(self.header.flags.intersects(TcpFlags::FIN))
    }
}

/// What must happen after a segment was taken in; performed by the table of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Disposition {
    /// Nothing but what the connection itself wants to send.
    Done,
    /// The segment is answered by a reset; the connection stays as it is.
    Reset,
    /// The connection ends with an error.
    Fail(ConnectionError),
    /// As `Fail`, and the peer is told by a reset.
    Abort(ConnectionError),
    /// A passive open is complete.
    Accepted,
    /// A half-open passive connection is forgotten.
    Forget,
    /// Both sides have closed and nothing is left to wait for.
    Finished,
    /// Both sides have closed; 2 MSL begin.
    TimeWait,
}

/// Whether the procedure goes on to the next step.
pub(super) type Step = Result<(), Disposition>;

impl Connection {
    /// Takes a segment in any state.
    pub(super) fn on_segment<M: Memory>(
        &mut self,
        segment: &mut Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        self.rcv.last_heard = ctx.now;
        self.keep_alive_probes_sent = 0;
        let disposition = match self.state {
            State::SynSent => self.on_segment_syn_sent(segment, ctx),
            State::Closed => Disposition::Reset,
            _ => self.on_segment_synchronized(segment, ctx),
        };
        let first_unread = self.rcv.nxt.minus(self.rcv.queue.len());
        if self.rcv.urgent.is_some_and(|up| up.at_or_before(first_unread)) {
            // Read over: the mark is no more.
            self.rcv.urgent = None;
        }
        self.snd.template.expect_tos(self.ecn.expected_tos(segment.tos));
        self.refresh_fast();
        disposition
    }

    fn on_segment_synchronized<M: Memory>(
        &mut self,
        segment: &mut Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        let passive = matches!(self.state, State::SynReceived(Origin::Passive(_)));
        self.take_crossed_syn(segment);
        let steps = self
            .check_timestamps(segment, ctx)
            .and_then(|()| self.check_sequence(segment, ctx))
            .and_then(|()| self.check_reset(segment, ctx))
            .and_then(|()| self.check_syn(segment, ctx))
            .and_then(|()| self.check_ack(segment, ctx));
        if let Err(disposition) = steps {
            return disposition;
        }
        self.on_congestion_mark(segment, ctx);
        self.on_urgent(segment);
        let after_text = self.on_text_and_fin(segment, ctx);
        if after_text != Disposition::Done {
            return after_text;
        }
        match self.state {
            State::Closed => Disposition::Finished,
            State::TimeWait => Disposition::TimeWait,
            _ if passive => Disposition::Accepted,
            _ => Disposition::Done,
        }
    }

    /// Simultaneous open (RFC 9293 §3.5, figure 7): the peer's SYN comes again, now with the ACK
    /// of ours. The SYN is known; the rest counts as a segment behind it.
    fn take_crossed_syn(&self, segment: &mut Segment<'_>) {
        let header = &mut segment.header;
        if self.state == State::SynReceived(Origin::Simultaneous)
            && header.flags.contains(TcpFlags::SYN.with(TcpFlags::ACK))
            && header.seq.plus(1) == self.rcv.nxt
        {
            header.seq = self.rcv.nxt;
            header.flags = header.flags.without(TcpFlags::SYN);
            // RFC 7323 §2.2: its window is not scaled.
            header.window >>= self.snd.scale;
        }
    }

    /// PAWS, and the rule that timestamps are on every segment or none (RFC 7323 §3.2, §5.3).
    fn check_timestamps<M: Memory>(
        &mut self,
        segment: &Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Step {
        if !self.rcv.timestamps || segment.header.flags.intersects(TcpFlags::RST) {
            return Ok(());
        }
        match segment.options.timestamps {
            None => {
                ctx.counters.paws_rejected += 1;
                Err(Disposition::Done)
            }
            Some(ts) if self.rcv.is_old_timestamp(ts.value, ctx.now) => {
                ctx.counters.paws_rejected += 1;
                self.answer_unacceptable(segment, ctx);
                Err(Disposition::Done)
            }
            Some(_) => Ok(()),
        }
    }

    /// First step: the sequence number (RFC 9293 §3.4, table 6).
    fn check_sequence<M: Memory>(
        &mut self,
        segment: &Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Step {
        let (nxt, window) = (self.rcv.nxt, self.rcv.window());
        let seq = segment.header.seq;
        let span = segment.span();
        let inside = |at: SeqNum| nxt.at_or_before(at) && nxt.distance_to(at) < window;
        let acceptable = seq == nxt
            || inside(seq)
            || (span > 0 && window > 0 && inside(seq.plus(span - 1)))
            // Starts before and ends behind the window: everything asked for is in it.
            || (span > 0 && seq.before(nxt) && seq.plus(span).after(nxt));
        if acceptable {
            if let Some(ts) = segment.options.timestamps {
                self.rcv.on_timestamp(ts.value, seq, ctx.now);
            }
            return Ok(());
        }
        ctx.counters.unacceptable += 1;
        if segment.header.flags.intersects(TcpFlags::RST) {
            return Err(Disposition::Done);
        }
        if matches!(self.state, State::SynReceived(_))
            && segment.header.flags.intersects(TcpFlags::SYN)
        {
            // The peer has not seen our SYN and ACK.
            self.snd.syn_due = true;
            return Err(Disposition::Done);
        }
        if self.state == State::TimeWait {
            // RFC 9293 §3.10.7.4, eighth step: the FIN again restarts 2 MSL.
            self.arm(Timer::TimeWait, ctx.now + ctx.config.msl.saturating_mul(2));
        }
        self.answer_unacceptable(segment, ctx);
        Err(Disposition::Done)
    }

    /// A segment that cannot be accepted is acknowledged (RFC 9293 §3.10.7.4); one that carries
    /// nothing only so many times a second, for two ends that disagree would answer each other
    /// for ever.
    fn answer_unacceptable<M: Memory>(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_, M>) {
        if segment.span() > 0 {
            self.rcv.ack = AckDue::Now;
        } else {
            self.challenge(ctx);
        }
    }

    /// Second step: RST, with RFC 5961 §3.2: only the exact number resets.
    fn check_reset<M: Memory>(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_, M>) -> Step {
        if !segment.header.flags.intersects(TcpFlags::RST) {
            return Ok(());
        }
        if segment.header.seq != self.rcv.nxt {
            self.challenge(ctx);
            return Err(Disposition::Done);
        }
        ctx.counters.resets_received += 1;
        Err(match self.state {
            State::SynReceived(Origin::Passive(_)) => Disposition::Forget,
            State::SynReceived(Origin::Simultaneous) => Disposition::Fail(ConnectionError::Refused),
            State::Closing | State::LastAck | State::TimeWait => Disposition::Finished,
            _ => Disposition::Fail(ConnectionError::Reset),
        })
    }

    /// Fourth step: a SYN within the window is challenged (RFC 5961 §4.2).
    fn check_syn<M: Memory>(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_, M>) -> Step {
        if !segment.header.flags.intersects(TcpFlags::SYN) {
            return Ok(());
        }
        self.challenge(ctx);
        Err(Disposition::Done)
    }

    /// Asks the peer what it knows, so many times a second.
    pub(super) fn challenge<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        if self.may_challenge(ctx.now, ctx.config.challenge_acks_per_second) {
            ctx.counters.challenge_acks += 1;
            self.rcv.ack = AckDue::Now;
        } else {
            ctx.counters.challenge_acks_limited += 1;
        }
    }

    /// 2 MSL begin.
    pub(super) fn enter_time_wait<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        ctx.counters.time_waits += 1;
        self.state = State::TimeWait;
        self.timers.disarm_all();
        self.arm(Timer::TimeWait, ctx.now + ctx.config.msl.saturating_mul(2));
        self.notify(Readiness::READABLE.union(Readiness::WRITABLE));
    }

    /// Sixth step: the urgent pointer (RFC 9293 §3.8.5; RFC 6093: it points behind the data).
    fn on_urgent(&mut self, segment: &Segment<'_>) {
        if !segment.header.flags.intersects(TcpFlags::URG) || !self.state.may_receive() {
            return;
        }
        let up = segment.header.seq.plus(u32::from(segment.header.urgent));
        if up.after(self.rcv.nxt) && self.rcv.urgent.is_none_or(|old| up.after(old)) {
            self.rcv.urgent = Some(up);
            self.notify(Readiness::READABLE);
        }
    }

    /// Seventh and eighth step: the text, and the FIN behind it.
    pub(super) fn on_text_and_fin<M: Memory>(
        &mut self,
        segment: &mut Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        if segment.header.flags.intersects(TcpFlags::FIN) {
            self.note_fin(segment.header.seq.plus(segment.payload.len()));
        }
        let after_text = self.on_text(segment.header.seq, &mut segment.payload, ctx);
        self.on_fin_if_reached(ctx);
        after_text
    }

    /// Takes what of `payload` is new and within the window.
    fn on_text<M: Memory>(
        &mut self,
        seq: SeqNum,
        payload: &mut Payload<'_>,
        ctx: &mut Context<'_, M>,
    ) -> Disposition {
        if payload.len() == 0 || !self.state.may_receive() {
            payload.release(ctx.mem);
            return Disposition::Done;
        }
        let duplicate = trim_front(payload, seq, self.rcv.nxt, ctx);
        let seq = seq.plus(duplicate);
        let end = self.rcv.fin.map_or(self.rcv.edge, |fin| fin.min(self.rcv.edge));
        let beyond = trim_back(payload, seq, end, ctx);
        if duplicate > 0 || beyond > 0 {
            self.rcv.ack = AckDue::Now;
        }
        if payload.len() == 0 {
            payload.release(ctx.mem);
        } else if self.ownership == Ownership::Orphan {
            // RFC 9293 §3.10.4, RFC 2525 §2.17: nobody will read it, and the peer must know.
            payload.release(ctx.mem);
            return Disposition::Abort(ConnectionError::Aborted);
        } else {
            self.on_data(seq, payload, ctx);
        }
        Disposition::Done
    }

    /// A FIN is at `at`; it counts once everything before it is there.
    fn note_fin(&mut self, at: SeqNum) {
        let within = at.at_or_after(self.rcv.nxt) && at.at_or_before(self.rcv.edge);
        if self.rcv.fin.is_none() && self.state.may_receive() && within {
            self.rcv.fin = Some(at);
        }
        self.rcv.ack = AckDue::Now;
    }

    fn on_fin_if_reached<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        if self.rcv.fin != Some(self.rcv.nxt) || !self.state.may_receive() {
            return;
        }
        self.rcv.nxt = self.rcv.nxt.plus(1);
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
        self.rcv.ack = AckDue::Now;
        self.notify(Readiness::READABLE);
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(ctx),
            _ => {}
        }
    }
}

/// Cuts off what lies before `nxt`; returns how much.
fn trim_front<M: Memory>(
    payload: &mut Payload<'_>,
    seq: SeqNum,
    nxt: SeqNum,
    ctx: &mut Context<'_, M>,
) -> u32 {
    if seq.at_or_after(nxt) {
        return 0;
    }
    let cut = seq.distance_to(nxt).min(payload.len());
    ctx.counters.bytes_duplicate += u64::from(cut);
    match payload {
        Payload::Bytes(bytes) => *bytes = &bytes[cut as usize..],
        Payload::Pieces(pieces) => {
            let mut left = cut;
            while let Some(first) = pieces.first_mut() {
                if left < first.len {
                    *first = first.skip(left);
                    break;
                }
                left -= first.len;
                ctx.mem.release(first.slot);
                let _gone = pieces.remove(0);
            }
        }
    }
    cut
}

/// Cuts off what lies at or behind `edge`; returns how much.
fn trim_back<M: Memory>(
    payload: &mut Payload<'_>,
    seq: SeqNum,
    edge: SeqNum,
    ctx: &mut Context<'_, M>,
) -> u32 {
    let room = if edge.after(seq) { seq.distance_to(edge) } else { 0 };
    let cut = payload.len().saturating_sub(room);
    ctx.counters.bytes_refused += u64::from(cut);
    match payload {
        Payload::Bytes(bytes) => *bytes = &bytes[..bytes.len() - cut as usize],
        Payload::Pieces(pieces) => {
            let mut left = cut;
            while let Some(last) = pieces.last_mut() {
                if left < last.len {
                    *last = last.take(last.len - left);
                    break;
                }
                left -= last.len;
                ctx.mem.release(last.slot);
                let _gone = pieces.pop();
            }
        }
    }
    cut
}
