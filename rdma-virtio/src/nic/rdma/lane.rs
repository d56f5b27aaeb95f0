//! A queue pair's send queue: what was posted, in order, and what its completions say.
//!
//! Invariants: an entry leaves when its own or a later completion of the lane comes, or when the
//! queue pair is gone; its header's cell and its slot are free only then. What is posted at once
//! ends with a request that is signalled, so no tail waits for a later one.

use std::collections::VecDeque;

use crate::nic::{Sge, WcStatus};
use crate::verbs::queue_pair::{QueuePair, Rts};
use crate::verbs::work_list::{
    Destination, Operation, PushError, SendList, SendListSize, SendRequest,
};

/// A signal at least every so many work requests of a lane.
const SIGNAL_EVERY: u32 = 32;
/// Work requests posted with one call.
const LIST_LEN: usize = 64;
/// Entries kept for control messages.
pub(super) const CONTROL_ENTRIES: usize = 4;

/// No slot: a control message.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// A work request that is with the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The slot of the frame, or [`NO_SLOT`].
    pub(super) slot: u32,
    /// The cell of its header.
    pub(super) cell: u16,
}

/// What is to be posted.
pub(super) struct Posting<'a> {
    pub(super) sges: &'a [Sge],
    pub(super) sent: Sent,
    pub(super) signalled: bool,
    pub(super) inline: bool,
    pub(super) destination: Option<Destination<'a>>,
}

/// A lane.
pub(super) struct Lane {
    pub(super) pair: QueuePair<Rts>,
    list: SendList,
    sent: VecDeque<Sent>,
    /// Number of the next work request, and of the oldest that is not complete.
    next: u32,
    oldest: u32,
    depth: usize,
    unsignalled: u32,
    /// Upper half of every work request's id.
    tag: u32,
    pub(super) max_inline: u32,
}

impl Lane {
    /// A lane over a connected queue pair. `tag` names it in completions, differently from any
    /// before.
    pub(super) fn new(pair: QueuePair<Rts>, tag: u32, depth: usize, sges: usize) -> Lane {
        let requests = LIST_LEN.min(depth);
        let list = SendList::new(SendListSize { requests, sges, header: 0 });
        let max_inline = pair.sizes().max_inline;
        Lane {
            pair,
            list,
            sent: VecDeque::with_capacity(depth),
            next: 0,
            oldest: 0,
            depth,
            unsignalled: 0,
            tag,
            max_inline,
        }
    }

    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    /// Whether there is room for a message.
    #[inline]
    pub(super) fn has_room(&self, control: bool) -> bool {
        let kept = if control { 0 } else { CONTROL_ENTRIES };
        self.sent.len() + kept < self.depth
    }

    /// Puts a request into the list; false if it cannot be posted at all.
    #[inline]
    pub(super) fn push(&mut self, posting: &Posting<'_>) -> bool {
        let signalled = posting.signalled || self.unsignalled + 1 >= SIGNAL_EVERY;
        let request = SendRequest {
            wr_id: u64::from(self.tag) << 32 | u64::from(self.next),
            sges: posting.sges,
            operation: Operation::Send,
            signalled,
            solicited: false,
            checksum: false,
            destination: posting.destination,
        };
        let mut pushed = self.append(&request, posting.inline);
        if pushed == Err(PushError::Full) {
            if self.flush().is_err() {
                return false;
            }
            pushed = self.append(&request, posting.inline);
        }
        if pushed.is_err() {
            return false;
        }
        self.unsignalled = if signalled { 0 } else { self.unsignalled + 1 };
        self.next = self.next.wrapping_add(1);
        self.sent.push_back(posting.sent);
        true
    }

    #[inline]
    fn append(&mut self, request: &SendRequest<'_>, inline: bool) -> Result<(), PushError> {
        if inline {
            // SAFETY: the elements are buffers of a slot and a cell, neither of which is free
            // before the completion (the invariant of this file), which comes after posting.
            unsafe { self.list.push_inline(request) }
        } else {
            self.list.push(request)
        }
    }

    /// Whether something waits to be posted.
    #[inline]
    pub(super) fn has_list(&self) -> bool {
        !self.list.is_empty()
    }

    /// Posts the list: one doorbell.
    ///
    /// # Errors
    /// The errno; the queue pair is to be given up then.
    #[inline]
    pub(super) fn flush(&mut self) -> Result<(), i32> {
        if self.list.is_empty() {
            return Ok(());
        }
        // Nothing more may follow for long, and somebody waits for what was sent.
        if self.unsignalled != 0 {
            self.list.signal_last();
            self.unsignalled = 0;
        }
        self.pair.post_send(&mut self.list).map_err(|failure| {
            self.list.clear();
            failure.errno
        })
    }

    /// A completion with this number: the next entry that it completes, if any is left.
    #[inline]
    pub(super) fn complete(&mut self, number: u32) -> Option<Sent> {
        let covered = number.wrapping_sub(self.oldest) < u32::MAX / 2;
        if !covered {
            return None;
        }
        let sent = self.sent.pop_front()?;
        self.oldest = self.oldest.wrapping_add(1);
        Some(sent)
    }

    /// Number of the oldest entry, and of the next.
    pub(super) fn span(&self) -> (u32, u32) {
        (self.oldest, self.next)
    }

    /// Gives the queue pair up: it is moved to the error state and destroyed, after which the
    /// device touches nothing of it. What was posted is handed back.
    pub(super) fn close(self) -> VecDeque<Sent> {
        // A device that is gone refuses; destroying follows in any case.
        let _refused = self.pair.error();
        self.sent
    }
}

/// A send from the device half, until its last copy is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) wr_id: u64,
    pub(super) status: WcStatus,
}
