//! What a connection does when one of its timers expires.

use super::connection::{Connection, Context, Ownership};
use super::error::ConnectionError;
use super::receiver::AckDue;
use super::segment::Disposition;
use super::sender::{Fin, ProbeDue};
use super::state::{Origin, State};
use super::timers::Timer;
use crate::memory::Memory;
use crate::time::Duration;

/// The longest time between zero-window probes.
const PERSIST_MAX: Duration = Duration::from_secs(60);

impl Connection {
    /// Handles every timer that has expired.
    pub(super) fn on_timers<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Disposition {
        while let Some(timer) = self.timers.pop_expired(ctx.now) {
            let disposition = match timer {
                Timer::Retransmit => self.on_retransmit_timer(ctx),
                Timer::Persist => self.on_persist_timer(ctx),
                Timer::DelayedAck => {
                    if self.rcv.ack == AckDue::Delayed {
                        self.rcv.ack = AckDue::Now;
                    }
                    Disposition::Done
                }
                Timer::KeepAlive => self.on_keep_alive_timer(ctx),
                Timer::TimeWait => Disposition::Finished,
                Timer::UserTimeout => Disposition::Fail(ConnectionError::TimedOut),
            };
            if disposition != Disposition::Done {
                return disposition;
            }
        }
        self.refresh_fast();
        Disposition::Done
    }

    /// RFC 6298 §5.4 to §5.7, and the give-up rules of RFC 9293 §3.8.3.
    fn on_retransmit_timer<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Disposition {
        if self.snd.in_flight() == 0 {
            return Disposition::Done;
        }
        let mut since = self.snd.outstanding_since;
        if self.snd.wnd < self.snd.in_flight()
            && self.state.is_synchronized()
            && self.ownership != Ownership::Orphan
        {
            // The peer took its window back: as long as it answers, that is no reason to end
            // (RFC 9293 §3.8.6, SHLD-17).
            since = since.max(self.rcv.last_heard);
        }
        if ctx.now.since(since) >= self.give_up_after(ctx.config) {
            ctx.counters.timed_out += 1;
            return self.give_up();
        }
        if !self.state.is_opening() && self.first_segment_in_device(ctx) {
            // The NIC has not sent it yet: waiting is right, sending again is not.
            ctx.counters.retransmissions_deferred += 1;
            self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
            return Disposition::Done;
        }
        ctx.counters.timeouts += 1;
        self.snd.retransmissions = self.snd.retransmissions.saturating_add(1);
        if self.snd.retransmissions == ctx.config.retransmissions_doubt {
            self.doubt_path(ctx);
        }
        if self.state.is_opening() {
            self.snd.rtt.on_syn_timeout();
            self.snd.syn_due = true;
        } else {
            self.snd.rtt.on_timeout();
            let snd = &mut self.snd;
            snd.recovery.on_timeout(snd.una, snd.nxt, &mut snd.congestion);
            self.ecn.on_reduced(self.snd.nxt);
        }
        self.fast = false;
        self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
        Disposition::Done
    }

    /// R1 (RFC 9293 §3.8.3, MUST-20): route and neighbour are looked up afresh, and IP is told when
    /// they are, so that it asks whether the next hop is there. The application is told as well,
    /// if it asked for that (SHLD-9, SHLD-10).
    #[cold]
    fn doubt_path<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        ctx.counters.paths_doubted += 1;
        self.snd.template.forget_link();
        self.snd.path_doubted = true;
        self.report_soft_error(self.soft_error.unwrap_or(ConnectionError::TimedOut));
    }

    fn first_segment_in_device<M: Memory>(&mut self, ctx: &Context<'_, M>) -> bool {
        let len = self.snd.queue.len().min(u32::from(self.snd.mss));
        len > 0 && self.snd.queue.in_device(0, len, ctx.mem)
    }

    fn give_up(&self) -> Disposition {
        let error = self.soft_error.unwrap_or(ConnectionError::TimedOut);
        match self.state {
            State::SynReceived(Origin::Passive(_)) => Disposition::Forget,
            State::SynSent | State::SynReceived(_) => Disposition::Fail(error),
            _ => Disposition::Abort(error),
        }
    }

    /// RFC 9293 §3.8.6.1: probes at growing intervals, for as long as the peer answers (MUST-37).
    fn on_persist_timer<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Disposition {
        let waiting = self.snd.unsent() > 0 || self.snd.fin == Fin::Queued;
        if !waiting || self.snd.in_flight() > 0 {
            return Disposition::Done;
        }
        if self.plan(ctx).is_some() {
            return Disposition::Done;
        }
        if self.snd.wnd > 0 && self.snd.unsent() > 0 {
            // The window is small but not zero: RFC 9293 §3.8.6.2.1, the override timeout.
            self.snd.wnd_max = self.snd.wnd;
            return Disposition::Done;
        }
        let since = match self.ownership {
            // Nobody is there any more who could give up (MUST-37 is about those who wait): what
            // was left to deliver may wait for a window as long as for an acknowledgement.
            Ownership::Orphan => self.snd.outstanding_since,
            Ownership::Unaccepted | Ownership::Held => self.rcv.last_heard,
        };
        if ctx.now.since(since) >= self.give_up_after(ctx.config) {
            // The peer does not even answer probes, or its window stays shut.
            ctx.counters.timed_out += 1;
            return self.give_up();
        }
        ctx.counters.window_probes += 1;
        self.snd.probe = ProbeDue::Now;
        self.fast = false;
        self.snd.retransmissions = self.snd.retransmissions.saturating_add(1).min(12);
        let doubled = self.snd.rtt.rto().duration().saturating_mul(1 << self.snd.retransmissions);
        self.arm(Timer::Persist, ctx.now + doubled.min(PERSIST_MAX));
        Disposition::Done
    }

    /// RFC 9293 §3.8.4.
    fn on_keep_alive_timer<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Disposition {
        let Some(keep_alive) = self.keep_alive.as_deref().copied() else {
            return Disposition::Done;
        };
        if !self.state.is_synchronized() || self.snd.in_flight() > 0 {
            self.arm(Timer::KeepAlive, ctx.now + keep_alive.idle);
            return Disposition::Done;
        }
        let due = self.rcv.last_heard + keep_alive.idle;
        if self.keep_alive_probes_sent == 0 && due > ctx.now {
            self.arm(Timer::KeepAlive, due);
            return Disposition::Done;
        }
        if self.keep_alive_probes_sent >= keep_alive.probes {
            ctx.counters.timed_out += 1;
            return Disposition::Abort(self.soft_error.unwrap_or(ConnectionError::TimedOut));
        }
        self.keep_alive_probes_sent += 1;
        ctx.counters.keep_alive_probes += 1;
        self.snd.probe = ProbeDue::Now;
        self.fast = false;
        self.arm(Timer::KeepAlive, ctx.now + keep_alive.interval);
        Disposition::Done
    }
}
