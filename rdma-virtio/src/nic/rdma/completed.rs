//! Sends that completed: what their entries and cells serve for next, and who hears of them.
//!
//! Invariant: a completion stands for all sends of its queue pair before it, which were done, or
//! would have failed first.

use super::engine::Engine;
use super::lane::{Lane, NO_CELL, NO_SLOT};
use super::transmit::SHARED_TAG;
use super::wire::peer::PeerId;
use crate::nic::{Completion, WcChecksum, WcStatus};
use crate::verbs::work_completion::{CompletionStatus, WorkCompletion};

/// Completions taken at a time.
const BATCH: usize = 16;

pub(super) fn status_of(status: CompletionStatus) -> WcStatus {
    match status {
        CompletionStatus::Success => WcStatus::Success,
        CompletionStatus::LocalLength => WcStatus::LocalLength,
        CompletionStatus::LocalProtection => WcStatus::LocalProtection,
        CompletionStatus::Flushed => WcStatus::Flushed,
        CompletionStatus::RetryExceeded | CompletionStatus::ReceiverNotReady => {
            WcStatus::RetryExceeded
        }
        _ => WcStatus::General,
    }
}

impl Engine {
    /// Looks for completed sends, and gives up peers whose sends failed.
    pub(super) fn poll_sends(&mut self) {
        let mut completions = [WorkCompletion::default(); BATCH];
        loop {
            let Ok(found) = self.objects.send_queue.poll(&mut completions) else {
                self.local.polls_failed += 1;
                self.fatal = Some("a completion queue failed or overran");
                return;
            };
            for completion in &completions[..found] {
                self.on_sent(completion);
            }
            if found < BATCH {
                break;
            }
        }
        self.retire_broken();
    }

    #[inline]
    fn on_sent(&mut self, completion: &WorkCompletion) {
        let tag = u32::try_from(completion.wr_id() >> 32).unwrap_or(u32::MAX);
        let number = u32::try_from(completion.wr_id() & 0xffff_ffff).unwrap_or(0);
        let peer = PeerId(u16::try_from(tag & 0xffff).unwrap_or(u16::MAX));
        let lane: Option<&mut Lane> = match self.links.full(peer) {
            Some(full) => full.lane.as_mut(),
            None => self.shared.as_mut(),
        };
        // One of a queue pair that is no more is of no interest: its sends were handed back.
        let Some(lane) = lane.filter(|lane| lane.tag() == tag) else { return };
        self.local.signals += 1;
        let mut status = WcStatus::Success;
        if !completion.is_success() {
            status = status_of(completion.status());
            self.local.sends_failed += 1;
            self.local.failures.note(completion.status());
            if lane.tag() == SHARED_TAG {
                self.shared_broken = true;
            } else {
                self.broken.push(peer);
            }
        }
        if lane.complete_shorts(number) {
            return self.send_what_waited(peer);
        }
        let (oldest, _) = lane.span();
        let covered = number.wrapping_sub(oldest).wrapping_add(1);
        if covered > u32::MAX / 2 {
            return;
        }
        for left in (0..covered).rev() {
            let Some(sent) = lane.complete(number) else { break };
            if sent.cell != NO_CELL {
                self.cells.push(sent.cell);
            }
            if sent.slot != NO_SLOT {
                // Those before it were done, or would have failed first.
                let status = if left == 0 { status } else { WcStatus::Success };
                self.slots.complete(sent.slot, status);
            }
        }
        self.send_what_waited(peer);
    }

    /// There is room again.
    #[inline]
    fn send_what_waited(&mut self, peer: PeerId) {
        if self.full(peer).is_some_and(|full| !full.waiting.is_empty()) {
            self.send_waiting(peer);
            self.flush_all();
        }
    }

    /// Reports completed sends, oldest first.
    pub(super) fn take_sent(&mut self, out: &mut [Completion]) -> usize {
        let mut taken = 0;
        for place in out {
            let Some(done) = self.slots.pop() else { break };
            *place = Completion {
                wr_id: done.wr_id,
                status: done.status,
                byte_len: 0,
                more: false,
                checksum: WcChecksum::Unknown,
            };
            taken += 1;
        }
        taken
    }
}
