//! What goes down: frames of connections that have something to send, and time.

use super::emit::Emitted;
use super::error::ConnectionError;
use super::state::{Origin, State};
use super::{Disposition, Tcp};
use crate::frame::{TxChecksum, TxFrame};
use crate::ip::{Ip, Resolution};
use crate::memory::{Memory, Piece};
use crate::time::Instant;

/// Where the checksum of a frame of [`Tcp::poll_expected`] lies.
pub(crate) const EXPECTED_CHECKSUM: TxChecksum = TxChecksum { start: 34, offset: 16 };

/// Whether a connection's link header is filled in.
enum Link {
    Ready,
    Waiting,
    Failed,
}

impl Tcp {
    /// The next frame, if any connection or reply has one. Connections take turns.
    #[inline]
    pub(crate) fn poll_frame<M: Memory>(
        &mut self,
        now: Instant,
        ip: &mut Ip,
        mem: &mut M,
        out: &mut TxFrame,
    ) -> bool {
        if self.replies.is_ready(ip.neighbor_generation()) && self.poll_reply(now, ip, mem, out) {
            return true;
        }
        if !self.unresolved.is_empty() {
            self.retry_unresolved(now, ip);
        }
        while let Some(index) = self.ready.pop_front() {
            let generation = ip.neighbor_generation();
            let Some(connection) = self.connections.at_mut(index) else { continue };
            connection.queued = false;
            if !connection.snd.template.is_linked(generation) {
                match self.resolve(index, now, ip) {
                    Link::Ready => {}
                    Link::Waiting => continue,
                    Link::Failed => {
                        self.perform_unreachable(index, now, mem);
                        continue;
                    }
                }
            }
            let Some((connection, mut ctx)) = self.at(index, now, mem) else { continue };
            match connection.poll_frame(&mut ctx, out) {
                Emitted::Frame => {
                    if connection.state == State::TimeWait {
                        self.perform(index, Disposition::TimeWait, now, mem);
                    } else {
                        self.settle(index);
                    }
                    return true;
                }
                Emitted::Nothing if connection.snd.deferred => self.wait_for_device(index, now),
                Emitted::Nothing => self.settle_idle(index),
                Emitted::NoSlot => {
                    connection.queued = true;
                    self.ready.push_front(index);
                    return false;
                }
            }
        }
        false
    }

    /// The next frame if it is one small segment of a connection in its plainest state: the whole
    /// frame in one piece, with a partial checksum at [`EXPECTED_CHECKSUM`] if the device completes
    /// it. The piece is lent: a
    /// device that reads it later than now needs a reference of its own.
    #[inline(always)]
    pub(crate) fn poll_expected<M: Memory>(
        &mut self,
        now: Instant,
        ip: &Ip,
        mem: &mut M,
    ) -> Option<Piece> {
        let index = self.ready.front()?;
        let (connection, mut ctx) = self.at(index, now, mem)?;
        if !connection.fast || !connection.snd.template.is_current(ip.neighbor_generation()) {
            return None;
        }
        let frame = connection.send_expected(&mut ctx)?;
        connection.queued = false;
        let reschedule = connection.reschedule;
        let _sent = self.ready.pop_front();
        if reschedule {
            self.settle(index);
        }
        Some(frame)
    }

    /// As `settle`, but a connection that just had nothing to send is not asked again.
    fn settle_idle(&mut self, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.queued = true;
        self.settle(index);
        if let Some(connection) = self.connections.at_mut(index) {
            connection.queued = false;
        }
    }

    fn poll_reply<M: Memory>(
        &mut self,
        now: Instant,
        ip: &mut Ip,
        mem: &mut M,
        out: &mut TxFrame,
    ) -> bool {
        let sent = self.replies.poll_frame(now, (ip, &self.offloads), mem, out);
        self.counters.segments_sent += u64::from(sent.is_some());
        sent.is_some()
    }

    /// Fills in the link header of a connection's frames.
    fn resolve(&mut self, index: u32, now: Instant, ip: &mut Ip) -> Link {
        let Some(connection) = self.connections.at_mut(index) else { return Link::Failed };
        let Some(route) = ip.route(connection.tuple.remote) else { return Link::Failed };
        if core::mem::take(&mut connection.snd.path_doubted) {
            ip.doubt(now, route.next_hop);
        }
        match ip.resolve(now, route.next_hop) {
            Resolution::Resolved(mac) => {
                let generation = ip.neighbor_generation();
                connection.snd.template.set_link(ip.mac(), mac, generation);
                connection.refresh_fast();
                Link::Ready
            }
            Resolution::Pending => {
                // Not queued as ready while it waits: a change of the cache brings it back.
                connection.queued = true;
                self.unresolved_since = ip.neighbor_generation();
                self.unresolved.push_back(index);
                Link::Waiting
            }
            Resolution::Unreachable => Link::Failed,
        }
    }

    /// What the connection must send again has not left the device: it is asked again when time
    /// has moved on, since completions tell the stack nothing.
    #[cold]
    fn wait_for_device(&mut self, index: u32, now: Instant) {
        self.settle_idle(index);
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.snd.deferred = false;
        connection.queued = true;
        self.deferred_at = now;
        self.unresolved.push_back(index);
    }

    #[cold]
    fn retry_unresolved(&mut self, now: Instant, ip: &Ip) {
        let later = self.deferred_at != Instant::NEVER && self.deferred_at != now;
        if later || ip.neighbor_generation() != self.unresolved_since {
            self.deferred_at = Instant::NEVER;
            for index in self.unresolved.drain(..) {
                self.ready.push_back(index);
            }
        }
    }

    /// The next hop does not answer: fatal for an opening connection, a soft error for others.
    #[cold]
    fn perform_unreachable<M: Memory>(&mut self, index: u32, now: Instant, mem: &mut M) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        let error = ConnectionError::HostUnreachable;
        if connection.soft_error.is_none() && connection.snd.in_flight() == 0 {
            // Nothing of it was ever on the wire: R2 counts from here.
            connection.snd.outstanding_since = now;
        }
        connection.note_soft_error(error);
        let silent = now.since(connection.snd.outstanding_since);
        let over = silent >= connection.give_up_after(&self.config);
        let unsent = connection.snd.in_flight() == 0;
        if unsent && matches!(connection.state, State::SynReceived(Origin::Passive(_))) {
            // Our SYN and ACK never left: nobody is there to wait for it.
            self.perform(index, Disposition::Forget, now, mem);
        } else if over || connection.state == State::SynSent {
            self.perform(index, Disposition::Fail(error), now, mem);
        } else {
            // What is due goes out with the next retransmission; the timer must run for that.
            let at = now + connection.snd.rtt.rto().duration();
            connection.arm(super::timers::Timer::Retransmit, at);
            self.settle_idle(index);
        }
    }

    /// Whether anything waits in a queue; it may wait for something else than its turn.
    #[inline(always)]
    pub(crate) fn has_queued(&self) -> bool {
        !self.ready.is_empty() | (self.replies.len() | self.unresolved.len() != 0)
    }

    /// Whether a frame may be ready: one look at three queues.
    #[inline]
    #[must_use]
    pub(crate) fn has_frames(&self, neighbor_generation: u32) -> bool {
        // What waits for a neighbour waits until the cache has changed.
        !self.ready.is_empty()
            || self.replies.is_ready(neighbor_generation)
            || (!self.unresolved.is_empty()
                && (self.deferred_at != Instant::NEVER
                    || self.unresolved_since != neighbor_generation))
    }

    /// Handles timers that have expired, at most `budget`; returns how many.
    pub(crate) fn on_timers<M: Memory>(&mut self, now: Instant, budget: u32, mem: &mut M) -> u32 {
        let mut done = 0;
        while done < budget {
            let Some(index) = self.wheel.pop_expired(now) else { break };
            done += 1;
            let Some((connection, mut ctx)) = self.at(index, now, mem) else { continue };
            let disposition = connection.on_timers(&mut ctx);
            connection.scheduled = Instant::NEVER;
            connection.reschedule = true;
            self.perform(index, disposition, now, mem);
        }
        while done < budget {
            let Some(index) = self.time_waits.expired(now) else { break };
            done += 1;
            self.remove_time_wait(index);
        }
        if mem.receive_is_low() {
            self.compact_some(now, mem);
        }
        done
    }

    /// When [`Tcp::on_timers`] has something to do next.
    #[inline]
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Instant {
        self.wheel.next_deadline().min(self.time_waits.next_deadline())
    }

    /// Receive buffers run low: copy data out of those that connections hold, a bounded number
    /// of connections at a time.
    #[cold]
    fn compact_some<M: Memory>(&mut self, now: Instant, mem: &mut M) {
        let end = self.connections.index_end();
        for _ in 0..super::COMPACTED_AT_ONCE.min(end) {
            self.compaction_hand =
                if self.compaction_hand + 1 < end { self.compaction_hand + 1 } else { 0 };
            let index = self.compaction_hand;
            let Some((connection, mut ctx)) = self.at(index, now, mem) else { continue };
            if connection.receive_slots() > 0 {
                connection.compact(&mut ctx);
            }
        }
    }
}
