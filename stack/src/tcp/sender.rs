//! The sending half of a connection: what may go out now, and why.

use super::config::TcpConfig;
use super::congestion::Congestion;
use super::connection::{Connection, Context};
#[cfg(test)]
use super::hot_lines::{Place, places, within};
use super::recovery::{Recovery, SendKind, SendRequest};
use super::rtt::{Rtt, TimestampClock};
use super::send_queue::{SendQueue, WriteLayout};
use super::seq::SeqNum;
use super::state::State;
use super::template::HeaderTemplate;
use super::timers::Timer;
use super::tuple::FourTuple;
use crate::frame::Offloads;
use crate::memory::Memory;
use crate::time::{Duration, Instant};
#[cfg(test)]
use alloc::vec::Vec;
#[cfg(test)]
use core::mem::offset_of;

/// Bytes of payload in the largest frame: the IP packet stays below 65,536 bytes with every
/// header that may be in it.
const LARGE_SEGMENT_MAX: u32 = 65_535 - 40 - 60;
/// Free bytes from which on a socket counts as writable.
const WRITABLE_BYTES: u32 = 1;

/// Our FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fin {
    /// The application may still write.
    None,
    /// It follows the queue's end.
    Queued,
    /// It was sent at least once; `snd.nxt` counts it.
    Sent,
}

/// Zero-window and keep-alive probes that are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProbeDue {
    No,
    /// A segment of an old sequence number, which the peer answers with its window.
    Now,
}

/// The sending half. The fast path touches the end of it, from within `queue` on.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Sender {
    pub(super) recovery: Recovery,
    pub(super) congestion: Congestion,
    /// SND.UP: first byte after urgent data (RFC 9293 §3.8.5 with RFC 6093).
    pub(super) urgent: Option<SeqNum>,
    /// The largest window that the peer ever told.
    pub(super) wnd_max: u32,
    /// Payload of the largest frame: several segments if the device cuts them.
    pub(super) frame_max: u32,
    pub(super) limit: u32,
    /// The peer's MSS option, or the default.
    pub(super) peer_mss: u16,
    /// Our MSS option: what our path takes, and so also the most that we send.
    pub(super) mss_offered: u16,
    pub(super) scale: u8,
    pub(super) fin: Fin,
    pub(super) probe: ProbeDue,
    /// A SYN, or SYN and ACK, is to be sent.
    pub(super) syn_due: bool,
    /// What should be sent again is still in the device: to be asked again soon.
    pub(super) deferred: bool,
    /// The window scale was negotiated.
    pub(super) scaling: bool,
    /// R1 was reached: IP is told when the next hop is looked up again.
    pub(super) path_doubted: bool,
    /// How writes are laid out, unless all before them was sent.
    pub(super) layout: WriteLayout,
    pub(super) queue: SendQueue,
    pub(super) una: SeqNum,
    pub(super) nxt: SeqNum,
    /// The peer's window, in bytes.
    pub(super) wnd: u32,
    /// The field that told it, or more than any field after a SYN, whose window is not scaled.
    pub(super) window_field: u32,
    /// Sequence and acknowledgment number of the segment that told `wnd` (RFC 9293 §3.10.7.4).
    pub(super) wl1: SeqNum,
    pub(super) wl2: SeqNum,
    pub(super) clock: TimestampClock,
    /// Payload of a segment on the wire: the peer's MSS or ours, options taken off.
    pub(super) mss: u16,
    pub(super) nodelay: bool,
    /// The congestion window is what held the last transmission back.
    pub(super) cwnd_limited: bool,
    /// When the oldest unacknowledged byte was first sent, for R2; while nothing is in flight and
    /// the peer's window is what holds data back, since when it does.
    pub(super) outstanding_since: Instant,
    pub(super) last_sent: Instant,
    pub(super) rtt: Rtt,
    pub(super) template: HeaderTemplate,
    pub(super) retransmissions: u8,
}

#[cfg(test)]
impl Sender {
    /// What the fast path touches in each transaction.
    pub(super) fn hot() -> Vec<Place> {
        let own = places!(
            Sender: una, nxt, wnd, window_field, wl1, wl2, clock, mss, nodelay, cwnd_limited,
            outstanding_since, last_sent, retransmissions
        );
        [
            own,
            within(offset_of!(Sender, queue), SendQueue::hot()),
            within(offset_of!(Sender, rtt), alloc::vec![(0, size_of::<Rtt>())]),
            within(offset_of!(Sender, template), HeaderTemplate::hot()),
        ]
        .concat()
    }
}

/// What to send next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) from: SeqNum,
    /// Payload bytes; 0 for a FIN alone.
    pub(super) len: u32,
    pub(super) fin: bool,
    pub(super) push: bool,
    pub(super) kind: SendKind,
}

impl Sender {
    /// A sender whose SYN has number `iss`.
    pub(super) fn new(iss: SeqNum, tuple: &FourTuple, config: &TcpConfig, ts: u32) -> Sender {
        let template = HeaderTemplate::new(tuple, false);
        Sender {
            una: iss,
            nxt: iss,
            wnd: 0,
            window_field: u32::MAX,
            wl1: SeqNum::default(),
            wl2: iss,
            wnd_max: 0,
            mss: default_mss(tuple),
            peer_mss: default_mss(tuple),
            mss_offered: default_mss(tuple),
            scale: 0,
            fin: Fin::None,
            probe: ProbeDue::No,
            nodelay: false,
            cwnd_limited: false,
            syn_due: true,
            deferred: false,
            scaling: false,
            path_doubted: false,
            retransmissions: 0,
            frame_max: u32::from(default_mss(tuple)),
            limit: config.send_buffer,
            layout: WriteLayout::unknown(template.len()),
            queue: SendQueue::default(),
            rtt: Rtt::new(),
            clock: TimestampClock::new(ts),
            recovery: Recovery::new(false),
            congestion: Congestion::new(config.congestion, default_mss(tuple), config.send_buffer),
            template,
            outstanding_since: Instant::NEVER,
            last_sent: Instant::ZERO,
            urgent: None,
        }
    }

    /// Sequence numbers in flight, a FIN included.
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.una.distance_to(self.nxt)
    }

    /// Bytes queued and never sent.
    #[inline]
    pub(super) fn unsent(&self) -> u32 {
        self.queue.len().saturating_sub(self.in_flight())
    }

    /// The peer's window, from the field of a segment that is no SYN.
    pub(super) fn set_window(&mut self, field: u16) {
        self.window_field = u32::from(field);
        self.wnd = u32::from(field) << (self.scale & 15);
        self.wnd_max = self.wnd_max.max(self.wnd);
    }

    /// Whether the application may write at least a byte.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() + WRITABLE_BYTES <= self.limit
    }

    /// The sequence number of our FIN, if one is queued or sent.
    fn fin_seq(&self) -> SeqNum {
        self.una.plus(self.queue.len())
    }

    /// The stream ends after what is queued.
    pub(super) fn queue_fin(&mut self) {
        if self.fin == Fin::None {
            self.fin = Fin::Queued;
        }
    }

    /// Settles the payload of a segment, options taken off, and so that of the largest frame.
    pub(super) fn set_mss(&mut self, mss: u16, offloads: &Offloads) {
        self.mss = mss.max(1);
        let large = if self.template.is_v6() { offloads.tso6 } else { offloads.tso4 };
        let mss = u32::from(self.mss);
        self.frame_max = if large { (LARGE_SEGMENT_MAX / mss).max(1) * mss } else { mss };
        self.congestion.set_mss(self.mss);
        let header_len = self.template.len();
        let sums = !offloads.tx_checksum;
        self.layout = match large {
            true => WriteLayout::unknown(header_len),
            false => WriteLayout::of_segments(header_len, mss, sums),
        };
    }

    /// Whether writes are laid out in segments.
    #[inline]
    pub(super) fn lays_out(&self) -> bool {
        self.layout.segment != 0
    }

    /// Whether anything may go out; leaves the details to [`Connection::plan`].
    #[inline]
    pub(super) fn has_something(&self) -> bool {
        self.unsent() > 0 || self.fin == Fin::Queued || !self.recovery.is_open_and_clean()
    }
}

/// RFC 9293 §3.7.1 (MUST-15): without an MSS option the peer takes 536 bytes, or 1220 over IPv6.
pub(super) fn default_mss(tuple: &FourTuple) -> u16 {
    if tuple.remote.is_ipv6() { 1220 } else { 536 }
}

impl Connection {
    /// What to send next of the stream, if windows, Nagle (RFC 9293 §3.7.4) and the sender's
    /// silly-window avoidance (§3.8.6.2.1) let anything go.
    #[inline]
    pub(super) fn plan<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Option<Plan> {
        let snd = &self.snd;
        if !snd.recovery.is_open_and_clean() {
            return self.plan_in_recovery(ctx);
        }
        if snd.unsent() == 0 {
            return self.plan_fin();
        }
        let in_flight = snd.in_flight();
        let cwnd = snd.congestion.window();
        let usable = cwnd.min(snd.wnd).saturating_sub(in_flight);
        self.snd.cwnd_limited = cwnd.saturating_sub(in_flight) < self.snd.unsent();
        self.plan_new(usable)
    }

    /// New data within `usable` bytes.
    #[inline]
    fn plan_new(&mut self, usable: u32) -> Option<Plan> {
        let snd = &self.snd;
        let unsent = snd.unsent();
        let mut mss = u32::from(snd.mss);
        let mut len = unsent.min(usable).min(snd.frame_max);
        if !self.rcv.reassembly.is_empty() {
            // SACK blocks take room in each segment, so the device cannot cut this one, and what
            // is left is what a full-sized segment has.
            let blocks = self.rcv.sack_option_len(snd.template.option_len());
            mss = mss.saturating_sub(blocks).max(1);
            len = len.min(mss);
        }
        if self.ecn.wants_lone_segment() {
            len = len.min(mss);
        }
        let last = len == unsent;
        let fin = last && snd.fin == Fin::Queued;
        if len >= mss {
            if !last {
                len -= len % mss;
            }
        } else if !self.may_send_small(len, last, fin) {
            return None;
        }
        Some(Plan { from: self.snd.nxt, len, fin, push: last, kind: SendKind::New })
    }

    /// Whether a segment below full size may go: all there is and Nagle agrees, or the window
    /// never was large.
    fn may_send_small(&mut self, len: u32, last: bool, fin: bool) -> bool {
        let snd = &self.snd;
        if len > 0 && last {
            return snd.nodelay || fin || snd.in_flight() == 0;
        }
        len > 0 && len >= snd.wnd_max / 2
    }

    fn plan_fin(&mut self) -> Option<Plan> {
        if self.snd.fin != Fin::Queued {
            return None;
        }
        let from = self.snd.nxt;
        Some(Plan { from, len: 0, fin: true, push: false, kind: SendKind::New })
    }

    #[cold]
    fn plan_in_recovery<M: Memory>(&mut self, ctx: &mut Context<'_, M>) -> Option<Plan> {
        let snd = &self.snd;
        let wnd_left = snd.wnd.saturating_sub(snd.in_flight());
        let request = SendRequest {
            snd_una: snd.una,
            snd_nxt: snd.nxt,
            mss: u32::from(snd.mss),
            unsent: snd.unsent().min(wnd_left),
            window: snd.congestion.window(),
        };
        let Some(grant) = snd.recovery.poll_send(&request) else {
            let idle = snd.unsent() == 0 && snd.fin == Fin::Queued;
            return if idle { self.plan_fin() } else { None };
        };
        if grant.kind == SendKind::New {
            return self.plan_new(grant.limit.min(request.unsent));
        }
        let offset = snd.una.distance_to(grant.from);
        let data = snd.queue.len().saturating_sub(offset);
        let blocks = self.rcv.sack_option_len(snd.template.option_len());
        let segment = if blocks == 0 { snd.frame_max } else { u32::from(snd.mss) - blocks };
        let len = grant.limit.min(segment).min(data);
        if self.snd.queue.in_device(offset, len, ctx.mem) {
            // The device still reads these bytes: nothing is lost yet that we know of.
            ctx.counters.retransmissions_deferred += 1;
            self.snd.deferred = true;
            return None;
        }
        let snd = &self.snd;
        let fin = snd.fin == Fin::Sent && grant.from.plus(len) == snd.fin_seq();
        if len == 0 && !fin {
            return None;
        }
        Some(Plan { from: grant.from, len, fin, push: true, kind: grant.kind })
    }

    /// Bookkeeping after `plan` went out.
    #[inline]
    pub(super) fn on_planned_sent<M: Memory>(&mut self, plan: &Plan, ctx: &mut Context<'_, M>) {
        let span = plan.len + u32::from(plan.fin);
        let end = plan.from.plus(span);
        if plan.fin {
            self.snd.fin = Fin::Sent;
        }
        if plan.kind == SendKind::New {
            if self.snd.in_flight() == 0 {
                self.snd.outstanding_since = ctx.now;
            }
            self.snd.nxt = end;
            self.snd.rtt.on_sent(end, ctx.now);
        } else {
            ctx.counters.retransmissions += 1;
            ctx.counters.bytes_retransmitted += u64::from(plan.len);
            self.snd.rtt.on_retransmitted();
        }
        if plan.kind != SendKind::New || !self.snd.recovery.is_open_and_clean() {
            self.snd.recovery.on_sent(plan.from, span, plan.kind);
        }
        self.snd.last_sent = ctx.now;
        self.rcv.interactive = true;
        if !self.timers.is_armed(Timer::Retransmit) {
            self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
        }
    }

    /// Nothing could be planned: if the window is what holds data back and nothing is in flight
    /// to open it, probes must (RFC 9293 §3.8.6.1).
    pub(super) fn arm_persist_if_blocked(&mut self, now: Instant) {
        let blocked = self.snd.unsent() > 0 && self.snd.in_flight() == 0;
        if blocked && self.state.is_synchronized() && !self.timers.is_armed(Timer::Persist) {
            self.snd.outstanding_since = now;
            self.arm(Timer::Persist, now + self.snd.rtt.rto().duration());
            self.fast = false;
        }
    }

    /// An idle connection starts from the restart window (RFC 5681 §4.1).
    #[inline]
    pub(super) fn restart_after_idle(&mut self, now: Instant) {
        let idle = now.since(self.snd.last_sent);
        if self.snd.in_flight() == 0 && idle > self.snd.rtt.rto().duration() {
            self.snd.congestion.on_idle();
        }
    }

    /// Whether the connection has anything for the wire now.
    #[inline]
    pub(super) fn wants_to_send(&self) -> bool {
        if self.fast {
            // Established, with clean recovery: data and acknowledgements are all there is.
            return self.rcv.ack == super::receiver::AckDue::Now || self.snd.unsent() > 0;
        }
        self.wants_to_send_in_state()
    }

    fn wants_to_send_in_state(&self) -> bool {
        match self.state {
            State::Closed => false,
            State::SynSent | State::SynReceived(_) => {
                self.snd.syn_due || self.rcv.ack == super::receiver::AckDue::Now
            }
            _ => {
                self.rcv.ack == super::receiver::AckDue::Now
                    || self.snd.probe == ProbeDue::Now
                    || self.snd.has_something()
            }
        }
    }

    /// How long the oldest unacknowledged data may stay so (R2), or the user timeout.
    pub(super) fn give_up_after(&self, config: &TcpConfig) -> Duration {
        match (self.user_timeout, self.state.is_opening()) {
            (Some(timeout), _) => timeout,
            (None, true) => config.syn_give_up,
            (None, false) => config.give_up,
        }
    }
}
