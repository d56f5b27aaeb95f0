//! Sending: frames of the device half, and control messages.
//!
//! Invariants: data goes only with credit; what a peer has no credit for waits, and what waits
//! too long is dropped and counted; control messages wait for nobody, having entries and cells of
//! their own.

use arrayvec::ArrayVec;

use super::engine::Engine;
use super::lane::{NO_SLOT, Posting, Sent};
use super::link::{Full, Link, Way};
use super::scratch::{mac_at, read_at};
use super::slots::SEND_SGES_MAX;
use super::wire::credit::{Owed, SILENCE_NS, SILENCE_NS_MAX};
use super::wire::header::{HEADER_BYTES, Header, Kind};
use super::wire::macs::{Target, number};
use super::wire::peer::PeerId;
use crate::nic::{PostError, SendWr, Sge, WcStatus};
use crate::verbs::work_list::{Destination, QuickLength};

/// A frame that waits for credit so long is dropped, in nanoseconds.
pub(super) const WAIT_NS_MAX: u64 = 1_000_000_000;
/// The tag of the lane that all peers share.
pub(super) const SHARED_TAG: u32 = 0xffff;
/// Where the destination address lies in a message.
const DESTINATION_AT: u32 = 12;

/// The address of datagrams to a peer, where it has one.
#[inline(always)]
fn destination_of(way: &Option<Way>) -> Option<Destination<'_>> {
    way.as_ref().map(|way| Destination {
        handle: &way.handle,
        queue_pair: way.queue_pair,
        qkey: way.qkey,
    })
}

/// The destination address of a frame.
#[inline]
fn destination(sges: &[Sge]) -> Option<[u8; 6]> {
    let mut skip = DESTINATION_AT;
    for sge in sges {
        if sge.length > skip {
            // SAFETY: memory that the sender owns and has registered; the device half looked the
            // range up, and nobody writes it before the send is complete.
            return unsafe { read_at(sge, skip) };
        }
        skip -= sge.length;
    }
    None
}

impl Engine {
    /// Takes a frame: to its peer, or to all.
    #[inline]
    pub(super) fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > SEND_SGES_MAX {
            return Err(PostError::SgeCount);
        }
        let length = wr.sges.iter().fold(0_u32, |sum, sge| sum.saturating_add(sge.length));
        if length.saturating_add(HEADER_BYTES) > self.message_max {
            return Err(PostError::TooLong);
        }
        let Some(mac) = destination(wr.sges) else { return Err(PostError::SgeCount) };
        if self.up_count == 0 {
            self.counters.tx_drop_no_peer += 1;
            return Err(PostError::LinkDown);
        }
        if self.slots.is_full() {
            return Err(PostError::QueueFull);
        }
        match self.macs.target(number(mac)) {
            Target::Peer(peer) => self.send_to(peer, wr, length),
            Target::Everyone => {
                self.send_to_all(wr, length);
                Ok(())
            }
        }
    }

    /// A short frame that may go at once is copied beside its header, and nobody waits for it. On
    /// false nothing was done.
    #[inline(always)]
    pub(super) fn post_short(&mut self, sge: Sge) -> bool {
        // SAFETY: memory that the sender owns and has registered; the device half looked the range
        // up, and nobody writes it during this call.
        let Some(mac) = (unsafe { mac_at(&sge, DESTINATION_AT) }) else { return false };
        let full = self.links.near();
        if let Some(quick) = full.quick(mac, sge.length)
            && full.credit.available() != 0
        {
            let Full { peer, lane: Some(lane), credit, start_out, .. } = full else {
                return self.post_short_datagram(&sge, quick);
            };
            if lane.is_quick() {
                let header = |to: &mut _| Header::write_data(to, start_out, credit.data_counts());
                // SAFETY: as above.
                if unsafe { !lane.push_short(false, header, (&sge, Some(quick)), || None) } {
                    return false;
                }
                self.unflushed.add(*peer, || lane.has_one());
                self.counters.on_data_sent(sge.length + HEADER_BYTES);
                return true;
            }
        }
        self.post_short_closer(mac, &sge)
    }

    /// The same for a datagram to the peer at hand, who has credit.
    #[inline(never)]
    fn post_short_datagram(&mut self, sge: &Sge, quick: QuickLength) -> bool {
        let Full { peer, way, credit, start_out, mac_number, .. } = self.links.near();
        if let Some(lane) = &mut self.shared
            && lane.is_quick()
        {
            let header = |to: &mut _| Header::write_data(to, start_out, credit.data_counts());
            let to = || destination_of(way);
            // SAFETY: as in `post_short`; the handle outlives the list (`dismantle`).
            if unsafe { !lane.push_short(false, header, (sge, Some(quick)), to) } {
                return false;
            }
            self.unflushed.add(*peer, || lane.has_one());
            self.counters.on_data_sent(sge.length + HEADER_BYTES);
            return true;
        }
        let mac = *mac_number;
        self.post_short_closer(mac, sge)
    }

    /// The frame is for another session than that at hand, or of no usual length; or the lane wants
    /// a look: a signal is due, or half of the queue is in use. Then most often sends are complete
    /// that nobody looked for; else the long way is left, which waits for room.
    #[cold]
    fn post_short_closer(&mut self, mac: u64, sge: &Sge) -> bool {
        let Target::Peer(peer) = self.macs.target(mac) else { return false };
        let Some(full) = self.links.bring_near(peer) else { return false };
        let quick = full.quick(mac, sge.length);
        let Full { lane, way, credit, start_out, short_max, .. } = full;
        let Some(lane) = lane.as_mut().or(self.shared.as_mut()) else { return false };
        if sge.length > *short_max || credit.available() == 0 {
            return false;
        }
        if lane.is_half_full() {
            let before = self.local.signals;
            self.poll_sends();
            return self.local.signals != before && self.post_short_closer(mac, sge);
        }
        let signalled = !lane.is_quick() && !lane.quicken();
        let header = |to: &mut _| Header::write_data(to, start_out, credit.data_counts());
        // SAFETY: as in `post_short`.
        if unsafe { !lane.push_short(signalled, header, (sge, quick), || destination_of(way)) } {
            return false;
        }
        if signalled {
            lane.quicken();
        }
        self.unflushed.add(peer, || lane.has_one());
        self.counters.on_data_sent(sge.length + HEADER_BYTES);
        true
    }

    /// The peer is given up at the next doorbell, if that is not what failed.
    #[cold]
    fn on_push_failed(&mut self, peer: PeerId) {
        self.local.posts_failed += 1;
        self.broken.push(peer);
        self.unflushed.others().push(peer);
    }

    fn send_to(&mut self, peer: PeerId, wr: &SendWr<'_>, length: u32) -> Result<(), PostError> {
        // One peer alone may fill the queue; of several, none may fill it for the others.
        let most = usize::from(self.options.queue) / if self.up_count > 1 { 4 } else { 1 };
        let many = self.up_count > 1;
        let now_ns = self.now_ns;
        let waits = match self.full(peer) {
            Some(full) if !full.up => return Err(PostError::LinkDown),
            Some(full) if full.waiting.len() >= most => {
                self.counters.tx_drop_stalled += 1;
                return Err(PostError::LinkDown);
            }
            Some(full) => !full.waiting.is_empty() || full.credit.available() == 0,
            None => return Err(PostError::LinkDown),
        };
        let slot = self.slots.take(wr.wr_id, wr.signalled, wr.sges, length);
        self.slots.add_copy(slot);
        if waits || !self.post_data(peer, slot, many) {
            self.counters.tx_waited += 1;
            if let Some(full) = self.full(peer) {
                if full.waiting.is_empty() {
                    full.waiting_since_ns = now_ns;
                }
                full.waiting.push_back(slot);
                full.credit.be_careful();
                full.set_short_max();
                self.mark(peer);
            }
        }
        Ok(())
    }

    /// A copy to each peer that takes one.
    #[inline(never)]
    fn send_to_all(&mut self, wr: &SendWr<'_>, length: u32) {
        self.counters.tx_to_all += 1;
        let slot = self.slots.take(wr.wr_id, wr.signalled, wr.sges, length);
        for peer in self.links.peers() {
            let Some(full) = self.full(peer) else { continue };
            if !full.up {
                continue;
            }
            let has_credit = full.credit.available() > 0;
            let ready = full.waiting.is_empty() && has_credit;
            if ready && self.post_data(peer, slot, true) {
                self.slots.add_copy(slot);
                continue;
            }
            self.counters.tx_drop_flood += 1;
            if !has_credit {
                self.ask_for_credit(peer);
            }
        }
    }

    /// What is dropped waits for no credit, so nothing else would ask for it.
    #[cold]
    fn ask_for_credit(&mut self, peer: PeerId) {
        if let Some(full) = self.full(peer) {
            full.passed_by = true;
            self.mark(peer);
        }
    }

    /// Posts a slot's message to a peer that has credit; false if there is no room.
    #[inline]
    fn post_data(&mut self, peer: PeerId, slot: u32, signal: bool) -> bool {
        let incarnation = self.peers.identity().incarnation;
        let Some(full) = self.links.full(peer) else { return false };
        let Full { lane, way, credit, session_out, .. } = full;
        let Some(lane) = lane.as_mut().or(self.shared.as_mut()) else { return false };
        if self.cells.len() <= self.cells_kept || !lane.has_room(false) {
            return false;
        }
        let Some(cell) = self.cells.pop() else { return false };
        let header = credit.data_header(*session_out, incarnation);
        self.scratch.write(cell, header.encode());
        let (message, length, wanted) = self.slots.message(slot);
        let mut sges: ArrayVec<Sge, { SEND_SGES_MAX + 1 }> = ArrayVec::new();
        sges.push(self.scratch.sge(cell, HEADER_BYTES));
        sges.extend(message.iter().copied());
        let total = length + HEADER_BYTES;
        let posting = Posting {
            sges: &sges,
            sent: Sent { slot, cell },
            signalled: signal || wanted,
            inline: way.is_none() && total <= lane.max_inline,
            destination: destination_of(way),
        };
        if !lane.push(&posting) {
            credit.unsend();
            self.cells.push(cell);
            self.on_push_failed(peer);
            return false;
        }
        self.unflushed.add(peer, || lane.has_one());
        self.counters.on_data_sent(total);
        true
    }

    /// Posts a control message; false if there is no room even for that.
    pub(super) fn post_control(&mut self, peer: PeerId, kind: Kind) -> bool {
        let (incarnation, now_ns) = (self.peers.identity().incarnation, self.now_ns);
        let Some(full) = self.links.full(peer) else { return false };
        let Full { lane, way, credit, session_out, .. } = full;
        let Some(lane) = lane.as_mut().or(self.shared.as_mut()) else { return false };
        if !lane.has_room(true) {
            return false;
        }
        let Some(cell) = self.cells.pop() else { return false };
        let header = credit.control_header(kind, (*session_out, incarnation), now_ns);
        self.scratch.write(cell, header.encode());
        let posting = Posting {
            sges: &[self.scratch.sge(cell, HEADER_BYTES)],
            sent: Sent { slot: NO_SLOT, cell },
            signalled: true,
            inline: way.is_none() && HEADER_BYTES <= lane.max_inline,
            destination: destination_of(way),
        };
        if !lane.push(&posting) {
            self.cells.push(cell);
            self.broken.push(peer);
            return false;
        }
        match kind {
            Kind::Credit => self.counters.tx_updates += 1,
            Kind::Probe => self.counters.tx_probes += 1,
            Kind::Data => {}
        }
        self.unflushed.add(peer, || lane.has_one());
        true
    }

    /// Frames that waited go, as far as there is credit and room.
    #[inline]
    pub(super) fn send_waiting(&mut self, peer: PeerId) {
        loop {
            let now_ns = self.now_ns;
            let Some(full) = self.full(peer) else { return };
            if full.waiting.is_empty() || full.credit.available() == 0 {
                return;
            }
            full.waiting_since_ns = now_ns;
            let Some(&slot) = full.waiting.front() else { return };
            if !self.post_data(peer, slot, true) {
                return;
            }
            if let Some(full) = self.full(peer) {
                full.waiting.pop_front();
                full.set_short_max();
            }
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire_waiting(&mut self) {
        let now_ns = self.now_ns;
        for link in self.links.places() {
            let Link::Full(full) = link else { continue };
            let since_ns = full.waiting_since_ns;
            if full.waiting.is_empty() || now_ns.saturating_sub(since_ns) < WAIT_NS_MAX {
                continue;
            }
            for slot in full.waiting.drain(..) {
                self.counters.tx_drop_stalled += 1;
                self.slots.complete(slot, WcStatus::RetryExceeded);
            }
            full.set_short_max();
        }
    }

    /// Sends the updates and probes that are owed now.
    pub(super) fn settle(&mut self) {
        let dirty = self.unmark_all();
        for peer in &dirty {
            self.settle_one(*peer);
        }
        // Its memory serves again.
        if self.dirty.is_empty() {
            self.dirty = dirty;
            self.dirty.clear();
        }
    }

    /// The same for every peer, marked or not.
    pub(super) fn settle_all(&mut self) {
        for peer in self.links.peers() {
            self.settle_one(peer);
        }
    }

    /// Asks those who were silent whether they are there; gives those up who do not answer.
    pub(super) fn ask_the_silent(&mut self) {
        let now_ns = self.now_ns;
        for peer in self.links.peers() {
            let Some(full) = self.full(peer) else { continue };
            let silent_ns = now_ns.saturating_sub(full.heard_ns(now_ns));
            if !full.up || silent_ns < SILENCE_NS {
                continue;
            }
            if full.way.is_some() && silent_ns >= SILENCE_NS_MAX {
                self.counters.timeouts += 1;
                self.broken.push(peer);
            } else if now_ns.saturating_sub(full.asked_ns) >= SILENCE_NS {
                full.asked_ns = now_ns;
                self.post_control(peer, Kind::Probe);
            }
        }
    }

    fn settle_one(&mut self, peer: PeerId) {
        let now_ns = self.now_ns;
        let Some(full) = self.full(peer) else { return };
        if !full.up {
            return;
        }
        full.passed_by &= full.credit.available() == 0;
        let starved = full.passed_by || !full.waiting.is_empty();
        let kind = match full.credit.owed(now_ns, starved) {
            Owed::Nothing => return,
            Owed::Update => Kind::Credit,
            Owed::Probe => Kind::Probe,
        };
        if !self.post_control(peer, kind) {
            self.mark(peer);
        }
    }

    /// Posts every list: one doorbell for each queue pair that has one. Peers to whom that failed
    /// are given up.
    #[inline(always)]
    pub(super) fn flush_all(&mut self) {
        if let Some(peer) = self.unflushed.take_first() {
            self.flush(peer);
        }
        if !self.unflushed.others().is_empty() {
            self.flush_others();
        }
    }

    #[cold]
    fn flush_others(&mut self) {
        while let Some(peer) = self.unflushed.others().pop() {
            self.flush(peer);
        }
        self.retire_broken();
    }

    #[inline(always)]
    fn flush(&mut self, peer: PeerId) {
        let Some(full) = self.links.full(peer) else { return };
        let Some(lane) = full.lane.as_mut().or(self.shared.as_mut()) else { return };
        if !lane.has_list() {
            return;
        }
        if lane.flush().is_err() {
            self.on_push_failed(peer);
        }
        self.local.doorbells += 1;
    }
}
