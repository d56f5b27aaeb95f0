//! Receiving: completions, what they are, and what becomes of them.
//!
//! Invariants: a receive that completed is delivered or posted again, and counted as one thing;
//! nothing that a message says is used before its session, incarnation and queue pair were found
//! to be those of one peer.

use super::engine::{BATCH, Engine, FRAME_MIN, GRH_LEN, Link, SOURCE_AT};
use super::wire::credit::Arrival;
use super::wire::exchange::Mode;
use super::wire::header::{HEADER_BYTES, Header};
use super::wire::macs::Source;
use super::wire::peer::PeerId;
use crate::verbs::work_completion::WorkCompletion;

impl Engine {
    /// Looks for received messages; what there is lies with the receives afterwards.
    #[inline]
    pub(super) fn poll_receives(&mut self) {
        let found = match self.objects.recv_queue.poll(&mut self.completions[..]) {
            Ok(found) => found,
            Err(_) => {
                self.on_poll_failed();
                return;
            }
        };
        if found == 0 {
            if !self.dirty.is_empty() {
                self.idle_polls += 1;
                // Once for the turn in which a frame to the peer may carry it.
                if self.idle_polls > 1 {
                    self.settle();
                    self.flush_all();
                }
            }
            return;
        }
        for at in 0..found.min(BATCH) {
            let completion = self.completions[at];
            self.on_receive(&completion);
        }
        self.after_receives();
    }

    #[cold]
    fn on_poll_failed(&mut self) {
        self.local.polls_failed += 1;
        self.fatal = Some("a completion queue failed or overran");
    }

    /// The receives are posted again; who may send more is told at the next chance.
    fn after_receives(&mut self) {
        let pair = self.shared.as_ref().map(|lane| &lane.pair);
        let posted = self.receives.replenish((&self.sink, pair));
        self.ledger.on_posted(posted);
        for at in 0..self.dirty.len() {
            let peer = self.dirty[at];
            self.grant(peer);
            self.send_waiting(peer);
        }
        self.idle_polls = self.idle_polls.saturating_add(1);
        if self.idle_polls > 2 {
            self.settle();
        }
        if !self.broken.is_empty() || self.shared_broken {
            self.retire_broken();
        }
        if !self.unflushed.is_empty() && self.has_waited() {
            self.flush_all();
        }
    }

    /// Whether frames were posted outside of the stack's turn to send.
    fn has_waited(&self) -> bool {
        !self.slots.is_empty() || self.idle_polls > 2
    }

    #[inline]
    fn on_receive(&mut self, completion: &WorkCompletion) {
        let Some(index) = self.receives.index_of(completion.wr_id()) else { return };
        self.counters.rx_messages += 1;
        self.ledger.on_completed();
        match self.judge(index, completion) {
            Some((peer, length)) => {
                self.counters.rx_delivered += 1;
                self.mark(peer);
                let pair = self.shared.as_ref().map(|lane| &lane.pair);
                let posted = self.receives.deliver(index, length, (&self.sink, pair));
                self.ledger.on_posted(posted);
            }
            None if self.shared_broken => self.receives.discard(index),
            None => {
                let pair = self.shared.as_ref().map(|lane| &lane.pair);
                let posted = self.receives.reuse(index, (&self.sink, pair));
                self.ledger.on_posted(posted);
            }
        }
    }

    /// Whose frame it is, and its length with virtio-net header; nothing if there is none to pass
    /// on, which is counted.
    #[inline]
    fn judge(&mut self, index: u16, completion: &WorkCompletion) -> Option<(PeerId, u32)> {
        if !completion.is_success() {
            self.counters.rx_failed += 1;
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
        let Ok(header) = Header::decode(&self.scratch.read(u32::from(index))) else {
            self.counters.rx_drop_header += 1;
            return None;
        };
        let peer = PeerId(u16::try_from(header.session & 0xffff).unwrap_or(u16::MAX));
        let from = match self.mode {
            Mode::Rc => completion.queue_pair(),
            Mode::Ud => completion.source_queue_pair(),
        };
        let full = match self.links.get_mut(usize::from(peer.0)) {
            Some(Link::Full(full))
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
        self.mark(peer);
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

    #[inline]
    fn check_frame(&mut self, index: u16, peer: PeerId, length: u32) -> Option<(PeerId, u32)> {
        let source = self.receives.read::<6>(index, SOURCE_AT);
        let (Some(source), true) = (source, length >= FRAME_MIN) else {
            self.counters.rx_drop_short += 1;
            return None;
        };
        if self.macs.source(source, peer) == Source::Foreign {
            self.counters.rx_drop_mac += 1;
            return None;
        }
        Some((peer, length))
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
        match self.by_queue_pair(completion.queue_pair()) {
            Some(peer) => self.broken.push(peer),
            None => self.shared_broken |= self.shared.is_some(),
        }
    }
}
