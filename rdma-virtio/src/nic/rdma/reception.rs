//! Receiving: completions, what they are, and what becomes of them.
//!
//! Invariants: a receive that completed is delivered or posted again, and counted as one thing;
//! nothing that a message says is used before its session, incarnation and queue pair were found
//! to be those of one peer.

use super::engine::{Engine, FRAME_MIN, GRH_LEN, SOURCE_AT};
use super::scratch::mac_at;
use super::wire::credit::Arrival;
use super::wire::exchange::Mode;
use super::wire::header::{HEADER_BYTES, HEADER_LEN, Header};
use super::wire::macs::Source;
use super::wire::peer::PeerId;
use crate::nic::{Completion, PolledOne};
use crate::verbs::work_completion::WorkCompletion;

/// The peer that a header names by its session, as an index.
#[inline]
fn session_index(head: &[u8; HEADER_LEN]) -> u16 {
    u16::from_be_bytes([head[6], head[7]])
}

impl Engine {
    /// Whether there is a completion of a receive, or a message that was taken out of one.
    #[inline]
    pub(super) fn has_received(&mut self) -> bool {
        !self.arrivals.is_empty() || self.receives.has_done() || self.poll_receives()
    }

    /// Looks for completions, none of an earlier look being left; says whether there are some.
    fn poll_receives(&mut self) -> bool {
        if self.arrivals.poll(&self.objects.recv_queue).is_some() {
            return true;
        }
        self.on_none();
        false
    }

    /// A poll found nothing.
    #[inline]
    fn on_none(&mut self) {
        if self.arrivals.take_failure() {
            self.on_poll_failed();
        } else if !self.dirty.is_empty() || !self.unflushed.is_empty() {
            self.on_idle();
        }
    }

    #[cold]
    fn on_poll_failed(&mut self) {
        self.local.polls_failed += 1;
        self.fatal = Some("a completion queue failed or overran");
    }

    /// Nothing came, and something is to be sent that no turn's doorbell did: what waited for room,
    /// at once; an update that is owed, after the turn in which a frame may carry it.
    #[inline(never)]
    fn on_idle(&mut self) {
        self.idle_polls = self.idle_polls.saturating_add(1);
        if self.idle_polls > 1 {
            self.settle();
        }
        self.flush_all();
    }

    /// Takes received messages, as completions of the stack's buffers.
    pub(super) fn take_received(&mut self, out: &mut [Completion]) -> usize {
        while !self.receives.has_done() && (!self.arrivals.is_empty() || self.poll_receives()) {
            while let Some((index, length)) = self.take_message() {
                self.receives.deliver(index, length);
            }
            self.after_receives();
        }
        self.receives.take_done(out)
    }

    /// The next message if it is a plain one, as nearly all are, which is lent; or what there is.
    #[inline(always)]
    pub(super) fn look(&mut self) -> PolledOne {
        match self.lend_plain() {
            Some((wr_id, byte_len)) => PolledOne::LentInTurn { wr_id, byte_len },
            None => self.look_closer(),
        }
    }

    /// The next completion, if it is the next data message of the session at hand in one buffer,
    /// no other message waits, and nothing else is to be done: what names the buffer, and the
    /// message's length. Otherwise nothing was done, but that the queue was looked at if nothing
    /// was left of the last look.
    #[inline(always)]
    fn lend_plain(&mut self) -> Option<(u64, u32)> {
        let head = match self.arrivals.head() {
            Some(head) => head,
            None => self.arrivals.poll(&self.objects.recv_queue)?,
        };
        let completion = head.completion();
        let rest = completion.byte_len().wrapping_sub(self.before_rest);
        let from = match self.mode {
            Mode::Rc => completion.queue_pair(),
            Mode::Ud => completion.source_queue_pair(),
        };
        if !completion.is_success() {
            return None;
        }
        let receive = self.receives.arrived(completion.wr_id())?;
        let full = self.links.near();
        let sge = receive.only(rest)?;
        // SAFETY: a posted buffer, whose receive is complete and which was not reported yet.
        let source = unsafe { mac_at(&sge, SOURCE_AT) }?;
        if full.source != from
            || !full.is_from_itself(source) && !self.macs.is_last(source, full.peer)
            || !full.take_next(self.scratch.read(receive.number()))
        {
            return None;
        }
        self.plain += 1;
        head.take();
        Some((receive.lend(), rest + FRAME_MIN))
    }

    /// Nothing came; or the next completion is of another session than that at hand, or its session
    /// is not calm: most often it is a plain message all the same, after which there may be more to
    /// do.
    #[inline(never)]
    fn look_closer(&mut self) -> PolledOne {
        if self.receives.has_done() {
            return PolledOne::Unknown;
        }
        let Some(head) = self.arrivals.head() else {
            self.on_none();
            return PolledOne::Nothing;
        };
        let wr_id = head.completion().wr_id();
        let number = self.receives.arrived(wr_id).map(|receive| receive.number());
        let session = number.map(|number| session_index(self.scratch.read(number)));
        let peer = PeerId(session.unwrap_or(u16::MAX));
        if let Some(full) = self.links.bring_near(peer) {
            full.credit.calm_down(1);
            if let Some((wr_id, byte_len)) = self.lend_plain() {
                self.attend_to(peer);
                return PolledOne::LentInTurn { wr_id, byte_len };
            }
            self.links.near().credit.be_careful();
        }
        self.take_other()
    }

    /// The message that was lent is the stack's.
    #[inline]
    pub(super) fn take_lent(&mut self) {
        self.receives.take_lent();
        if self.receives.staged_count() >= self.attend_at {
            self.after_receives();
        }
    }

    /// The message that was lent was looked at: its receive is posted again as it is.
    #[inline(always)]
    pub(super) fn repost_lent(&mut self) {
        self.receives.repost_lent();
        if self.receives.staged_count() >= self.attend_at {
            self.after_receives();
        }
    }

    /// What is no plain message goes the long way.
    fn take_other(&mut self) -> PolledOne {
        if let Some((index, length)) = self.take_message() {
            self.receives.deliver(index, length);
        }
        if self.receives.staged_count() >= self.attend_at {
            self.after_receives();
        }
        PolledOne::Unknown
    }

    /// The receive of the next completion that is a message, and its length with virtio-net header.
    /// Nothing if no completion is left.
    fn take_message(&mut self) -> Option<(u16, u32)> {
        self.keep_books();
        while let Some(completion) = self.arrivals.pop() {
            let Some(index) = self.receives.completed(completion.wr_id()) else { continue };
            self.receives.take(index);
            self.counters.rx_messages += 1;
            self.ledger.on_completed();
            if let Some(length) = self.judge(index, &completion) {
                self.counters.rx_delivered += 1;
                return Some((index, length));
            }
            self.give_back(index);
        }
        None
    }

    #[cold]
    fn give_back(&mut self, index: u16) {
        self.attend_at = 0;
        if self.shared_broken {
            self.receives.discard(index);
        } else {
            self.receives.reuse(index);
        }
    }

    /// Receives are posted again, who has credit again sends, and who broke the rules ends. What is
    /// to be sent waits for the turn's doorbell, or until nothing more comes.
    #[inline(never)]
    fn after_receives(&mut self) {
        self.receives.replenish();
        self.post_receives();
        self.attend_at = self.ledger.posted_together();
        if !self.dirty.is_empty() {
            self.send_to_the_owed();
        }
        if !self.broken.is_empty() || self.shared_broken {
            self.retire_broken();
        }
    }

    #[inline(never)]
    fn send_to_the_owed(&mut self) {
        let mut starves = false;
        for at in 0..self.dirty.len() {
            let peer = self.dirty[at];
            self.send_waiting(peer);
            starves |= self.full(peer).is_some_and(|full| full.credit.starves());
        }
        // The turn's doorbell comes after the application, for which nobody is to wait.
        if starves {
            self.settle();
            self.flush_all();
        }
    }

    /// The length of a frame with its virtio-net header; nothing if there is none to pass on, which
    /// is counted.
    fn judge(&mut self, index: u16, completion: &WorkCompletion) -> Option<u32> {
        if !completion.is_success() {
            self.on_receive_failed(completion);
            return None;
        }
        let in_front = match self.mode {
            Mode::Rc => HEADER_BYTES,
            Mode::Ud => HEADER_BYTES + GRH_LEN,
        };
        let Some(length) = completion.byte_len().checked_sub(in_front) else {
            self.counters.rx_drop_short += 1;
            return None;
        };
        let Ok(header) = Header::decode(self.scratch.read(usize::from(index))) else {
            self.counters.rx_drop_header += 1;
            return None;
        };
        let peer = PeerId(u16::try_from(header.session & 0xffff).unwrap_or(u16::MAX));
        let from = match self.mode {
            Mode::Rc => completion.queue_pair(),
            Mode::Ud => completion.source_queue_pair(),
        };
        let full = match self.links.full(peer) {
            Some(full)
                if full.session_in == header.session
                    && full.incarnation == header.incarnation
                    && full.source == from =>
            {
                full
            }
            _ => {
                self.on_stranger(completion);
                return None;
            }
        };
        full.heard_ns = self.now_ns;
        let before = full.credit.outstanding();
        let arrival = full.credit.on_header(&header);
        let used = before.saturating_sub(full.credit.outstanding());
        let up = full.up;
        self.ledger.release(used);
        if !up {
            self.with_peers(|peers, outside| peers.on_heard(peer, outside));
        }
        self.attend_to(peer);
        match arrival {
            Arrival::Fresh { missing } => self.counters.rx_missing += u64::from(missing),
            Arrival::Late => self.counters.rx_late += 1,
            Arrival::Control { missing } => {
                self.counters.rx_control += 1;
                self.counters.rx_missing += u64::from(missing);
                return None;
            }
            Arrival::Duplicate => {
                self.counters.rx_drop_duplicate += 1;
                return None;
            }
            Arrival::Violation(_) => {
                self.counters.rx_drop_violation += 1;
                self.counters.violations += 1;
                self.broken.push(peer);
                return None;
            }
        }
        self.check_frame(index, peer, length)
    }

    /// A message after which there may be more to do than to pass it on.
    #[inline(never)]
    fn attend_to(&mut self, peer: PeerId) {
        let low = self.ledger.low();
        let Some(full) = self.links.full(peer) else { return };
        let newly = !std::mem::replace(&mut full.touched, true);
        let found = full.calm_down(low);
        if found.marked || found.low {
            self.attend_at = 0;
        }
        if newly {
            self.touched.push(peer);
        }
        if found.marked {
            self.mark(peer);
        }
    }

    fn check_frame(&mut self, index: u16, peer: PeerId, length: u32) -> Option<u32> {
        let source = self.receives.read::<6>(index, SOURCE_AT);
        let (Some(source), true) = (source, length >= FRAME_MIN) else {
            self.counters.rx_drop_short += 1;
            return None;
        };
        if self.macs.source(source, peer) == Source::Foreign {
            self.counters.rx_drop_mac += 1;
            return None;
        }
        Some(length)
    }

    /// A message of no session. On a queue pair of its own its sender breaks the rules.
    #[cold]
    fn on_stranger(&mut self, completion: &WorkCompletion) {
        self.counters.rx_drop_sender += 1;
        if self.mode == Mode::Rc
            && let Some(peer) = self.by_queue_pair(completion.queue_pair())
        {
            self.counters.violations += 1;
            self.broken.push(peer);
        }
    }

    /// A receive of a queue pair failed: so did the queue pair.
    #[cold]
    fn on_receive_failed(&mut self, completion: &WorkCompletion) {
        self.counters.rx_failed += 1;
        self.local.failures.note(completion.status());
        match self.by_queue_pair(completion.queue_pair()) {
            Some(peer) => self.broken.push(peer),
            None => self.shared_broken |= self.shared.is_some(),
        }
    }
}
