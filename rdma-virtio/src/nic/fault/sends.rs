//! Faults on what is sent: loss, duplication and reordering, for a peer with no wrapper of its own,
//! such as the host's kernel behind a TAP.
//!
//! Every request goes beneath under a number of its own and signalled, and completes upwards in the
//! order of posting, when everything before it has: a completion means what it means without the
//! wrapper. A lost request is done at once; one that is held keeps its memory until it went out.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::buffers::ELEMENTS_MAX;
use super::verdict::{FaultOptions, Random, Verdict};
use super::{Completion, NOTHING, Nic, Offload, PostError, SendWr, Sge, WcStatus};

/// The number of a duplicate, whose completion is of no interest.
const DUPLICATE: u64 = u64::MAX;

/// A request of the caller's that has not completed upwards.
#[derive(Debug)]
struct Sent {
    wr_id: u64,
    signalled: bool,
    /// How it ended, once it has.
    ended: Option<WcStatus>,
}

/// A request that is held to be overtaken.
#[derive(Debug)]
struct HeldSend {
    number: u64,
    sges: ArrayVec<Sge, ELEMENTS_MAX>,
    offload: Offload,
    /// Requests that must still overtake it.
    ahead: u64,
    since_ns: u64,
}

/// What became of the faults on sends.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SendFaults {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}

/// The send side of a wrapper.
#[derive(Debug)]
pub(super) struct Sends {
    random: Random,
    capacity: usize,
    outstanding: VecDeque<Sent>,
    /// Number of the first in `outstanding`.
    first: u64,
    held: Option<HeldSend>,
    pub(super) faults: SendFaults,
}

impl Sends {
    pub(super) fn new(seed: u64, capacity: usize) -> Sends {
        Sends {
            random: Random::new(seed),
            capacity,
            outstanding: VecDeque::with_capacity(capacity),
            first: 0,
            held: None,
            faults: SendFaults::default(),
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn post<N: Nic>(
        &mut self,
        nic: &mut N,
        wr: &SendWr<'_>,
        options: &FaultOptions,
        now_ns: u64,
    ) -> Result<(), PostError> {
        if self.outstanding.len() == self.capacity {
            return Err(PostError::QueueFull);
        }
        let verdict = Verdict::draw(&mut self.random, options);
        let number = self.first + u64::try_from(self.outstanding.len()).unwrap_or(u64::MAX);
        let mut ended = None;
        if verdict.lose {
            self.faults.lost += 1;
            ended = Some(WcStatus::Success);
        } else if verdict.overtaken_by > 0 && self.held.is_none() && wr.sges.len() <= ELEMENTS_MAX {
            self.faults.reordered += 1;
            let sges = wr.sges.iter().copied().collect();
            let (offload, ahead) = (wr.offload, verdict.overtaken_by + 1);
            self.held = Some(HeldSend { number, sges, offload, ahead, since_ns: now_ns });
        } else {
            // First, so that the completion of the other says that this one, too, was read.
            if verdict.duplicate
                && nic.post_send(&SendWr { wr_id: DUPLICATE, signalled: false, ..*wr }).is_ok()
            {
                self.faults.duplicated += 1;
            }
            nic.post_send(&SendWr { wr_id: number, signalled: true, ..*wr })?;
        }
        self.outstanding.push_back(Sent { wr_id: wr.wr_id, signalled: wr.signalled, ended });
        if let Some(held) = &mut self.held {
            held.ahead = held.ahead.saturating_sub(1);
            self.release(nic, u64::MAX);
        }
        Ok(())
    }

    /// See [`Nic::signal_last`]; beneath, each request is signalled.
    pub(super) fn signal_last(&mut self) -> bool {
        let newest = self.outstanding.back_mut();
        newest.map(|sent| sent.signalled = true).is_some()
    }

    /// Sends what is held if enough has overtaken it, or if it was held since before `limit_ns`
    /// comes to pass.
    pub(super) fn release<N: Nic>(&mut self, nic: &mut N, limit_ns: u64) {
        let Some(held) = &self.held else { return };
        let expired = limit_ns != u64::MAX && held.since_ns <= limit_ns;
        if held.ahead > 0 && !expired {
            return;
        }
        let wr = SendWr {
            wr_id: held.number,
            sges: &held.sges,
            signalled: true,
            inline: false,
            offload: held.offload,
        };
        let ended = match nic.post_send(&wr) {
            Ok(()) => None,
            Err(PostError::QueueFull) => return,
            Err(_) => Some(WcStatus::Flushed),
        };
        if let Some(status) = ended {
            self.end(held.number, status);
        }
        self.held = None;
        nic.doorbell();
    }

    fn end(&mut self, number: u64, status: WcStatus) {
        let place = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(sent) = self.outstanding.get_mut(place) {
            sent.ended = Some(status);
        }
    }

    /// Completions for the caller, in the order of posting.
    pub(super) fn poll<N: Nic>(&mut self, nic: &mut N, out: &mut [Completion]) -> usize {
        loop {
            let count = nic.poll_send(out);
            for completion in &out[..count] {
                if completion.wr_id != DUPLICATE {
                    self.end(completion.wr_id, completion.status);
                }
            }
            if count < out.len() || out.is_empty() {
                break;
            }
        }
        let mut count = 0;
        while count < out.len()
            && let Some(Sent { wr_id, signalled, ended: Some(status) }) = self.outstanding.front()
        {
            if *signalled || *status != WcStatus::Success {
                out[count] = Completion { wr_id: *wr_id, status: *status, ..NOTHING };
                count += 1;
            }
            self.outstanding.pop_front();
            self.first += 1;
        }
        count
    }
}
