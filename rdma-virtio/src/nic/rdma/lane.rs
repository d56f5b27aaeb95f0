//! A queue pair's send queue: what was posted, in order, and what its completions say.
//!
//! Invariants: an entry leaves when its own or a later completion of the lane comes, or when the
//! queue pair is gone; its header's cell and its slot are free only then. Every 32nd is signalled,
//! and those beyond half of the queue; and what is posted at once with a frame of a slot among it
//! ends with one that is signalled, so that nobody's frame waits for a later one. Short messages
//! up to the number `quick_until` go without a signal, and without any other look at the queue.

use super::open::INLINE_MAX;
use super::wire::header::{HEADER_BYTES, HEADER_LEN};
use crate::nic::{Sge, WcStatus};
use crate::verbs::queue_pair::{QueuePair, Rts};
use crate::verbs::work_list::{
    Destination, Operation, PushError, QuickLength, SendList, SendListSize, SendRequest,
};

/// A signal at least every so many work requests of a lane.
const SIGNAL_EVERY: usize = 32;
/// Work requests posted with one call.
const LIST_LEN: usize = 64;
/// Entries kept for control messages.
pub(super) const CONTROL_ENTRIES: u32 = 4;

/// No slot: a control message, or a frame that was copied beside its header.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// No cell: a frame that was copied beside its header.
pub(super) const NO_CELL: u16 = u16::MAX;
/// A work request that is with the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    /// The slot of the frame, or [`NO_SLOT`] if nobody waits for it.
    pub(super) slot: u32,
    /// The cell of its header, or [`NO_CELL`].
    pub(super) cell: u16,
}

impl Sent {
    /// A short message, of which nothing is to be given back.
    const SHORT: Sent = Sent { slot: NO_SLOT, cell: NO_CELL };
}

/// What is to be posted.
pub(super) struct Posting<'a> {
    pub(super) sges: &'a [Sge],
    pub(super) sent: Sent,
    pub(super) signalled: bool,
    pub(super) inline: bool,
    pub(super) destination: Option<Destination<'a>>,
}

/// What a lane is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LanePlan {
    /// Work requests that may be outstanding.
    pub(super) depth: usize,
    /// Elements of each.
    pub(super) sges: usize,
    /// Cells there are for each lane: so many of them may wait for a signal that others have some.
    pub(super) cells_each: usize,
}

/// A lane.
pub(super) struct Lane {
    pub(super) pair: QueuePair<Rts>,
    list: SendList,
    /// By number, modulo the length; of those that are not outstanding, [`Sent::SHORT`].
    sent: Box<[Sent]>,
    /// Number of the next work request, and of the oldest that is not complete.
    next: u32,
    oldest: u32,
    depth: u32,
    half: u32,
    /// Entries with a cell.
    with_cell: u32,
    /// Number of the next one that is signalled in any case.
    signal_at: u32,
    signal_every: u32,
    /// Short messages before this number go without a look.
    quick_until: u32,
    /// Whether a slot's frame is among those that were not signalled.
    is_waited_for: bool,
    /// Upper half of every work request's id.
    tag: u64,
    pub(super) max_inline: u32,
    /// Longest message, without its header, that goes the short way.
    pub(super) short_max: u32,
}

impl Lane {
    /// A lane over a connected queue pair. `tag` names it in completions, differently from any
    /// before.
    pub(super) fn new(pair: QueuePair<Rts>, tag: u32, plan: &LanePlan) -> Lane {
        let LanePlan { depth, sges, cells_each } = *plan;
        let signal_every = SIGNAL_EVERY.min(cells_each / 4).min(depth / 4).max(1);
        let requests = LIST_LEN.min(depth);
        let list = SendList::new(SendListSize { requests, sges, header: 0, copies: true });
        let max_inline = pair.sizes().max_inline;
        let signal_every = u32::try_from(signal_every).unwrap_or(1);
        Lane {
            pair,
            list,
            sent: vec![Sent::SHORT; depth.next_power_of_two()].into(),
            next: 0,
            oldest: 0,
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
            with_cell: 0,
            half: u32::try_from(depth / 2).unwrap_or(u32::MAX),
            signal_at: signal_every - 1,
            signal_every,
            quick_until: 0,
            is_waited_for: false,
            tag: u64::from(tag) << 32,
            max_inline,
            short_max: max_inline.min(INLINE_MAX).saturating_sub(HEADER_BYTES),
        }
    }

    pub(super) fn tag(&self) -> u32 {
        u32::try_from(self.tag >> 32).unwrap_or(u32::MAX)
    }

    /// Whether there is room for a message.
    #[inline]
    pub(super) fn has_room(&self, control: bool) -> bool {
        let kept = if control { 0 } else { CONTROL_ENTRIES };
        self.outstanding() + kept < self.depth
    }

    #[inline]
    fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    #[inline]
    fn at(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or(0) & (self.sent.len() - 1)
    }

    /// Whether half of the queue is in use.
    #[inline]
    pub(super) fn is_half_full(&self) -> bool {
        self.outstanding() >= self.half
    }

    /// Whether a short message may go without a look at the queue.
    #[inline(always)]
    pub(super) fn is_quick(&self) -> bool {
        self.next != self.quick_until
    }

    /// Looks how many short messages may go without one from now on; says whether the next may.
    pub(super) fn quicken(&mut self) -> bool {
        let until_half = self.half.saturating_sub(self.outstanding());
        let until_signal = self.signal_at.wrapping_sub(self.next);
        self.quick_until = self.next.wrapping_add(until_half.min(until_signal));
        self.is_quick()
    }

    /// Puts a request into the list; false if it cannot be posted at all.
    #[inline]
    pub(super) fn push(&mut self, posting: &Posting<'_>) -> bool {
        let signalled = posting.signalled || self.next == self.signal_at || self.is_half_full();
        let request = SendRequest {
            wr_id: self.tag | u64::from(self.next),
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
        self.record(posting.sent, signalled);
        true
    }

    /// The same for a short message that is copied behind its header and goes inline, for which
    /// nobody waits; without a signal only after [`Lane::is_quick`] or [`Lane::quicken`]. False if
    /// the list is full; no header was asked for then.
    ///
    /// # Safety
    /// `message` names readable bytes of this process that nobody writes during the call; the
    /// destination's handle lives until the lane was flushed.
    #[inline(always)]
    pub(super) unsafe fn push_short<'d>(
        &mut self,
        signalled: bool,
        header: impl FnOnce(&mut [u8; HEADER_LEN]),
        message: (&Sge, Option<QuickLength>),
        destination: impl FnOnce() -> Option<Destination<'d>>,
    ) -> bool {
        let id = (self.tag | u64::from(self.next), signalled);
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.list.push_copied(id, header, message, destination) };
        match (pushed, signalled) {
            (false, _) => {}
            (true, true) => self.record(Sent::SHORT, true),
            (true, false) => self.next = self.next.wrapping_add(1),
        }
        pushed
    }

    #[inline]
    fn record(&mut self, sent: Sent, signalled: bool) {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.quick_until = self.next;
        if signalled {
            self.is_waited_for = false;
            self.signal_at = number.wrapping_add(self.signal_every);
        } else {
            self.is_waited_for |= sent.slot != NO_SLOT;
        }
        self.with_cell += u32::from(sent.cell != NO_CELL);
        let at = self.at(number);
        self.sent[at] = sent;
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

    /// Whether that is one request.
    #[inline]
    pub(super) fn has_one(&self) -> bool {
        self.list.len() == 1
    }

    /// Posts the list: one doorbell.
    ///
    /// # Errors
    /// The errno; the queue pair is to be given up then.
    #[inline(always)]
    pub(super) fn flush(&mut self) -> Result<(), i32> {
        // Nothing more may follow for long, and somebody waits for what was sent.
        if self.is_waited_for {
            self.signal_last();
        }
        self.pair.post_send(&mut self.list).map_err(|failure| {
            self.list.clear();
            failure.errno
        })
    }

    #[inline]
    fn signal_last(&mut self) {
        self.list.signal_last();
        self.is_waited_for = false;
        self.signal_at = self.next.wrapping_sub(1).wrapping_add(self.signal_every);
        self.quick_until = self.next;
    }

    /// A completion with this number: the next entry that it completes, if any is left.
    #[inline]
    pub(super) fn complete(&mut self, number: u32) -> Option<Sent> {
        let covered = number.wrapping_sub(self.oldest) < u32::MAX / 2;
        if !covered {
            return None;
        }
        if self.outstanding() == 0 {
            return None;
        }
        let at = self.at(self.oldest);
        let sent = std::mem::replace(&mut self.sent[at], Sent::SHORT);
        self.with_cell -= u32::from(sent.cell != NO_CELL);
        self.oldest = self.oldest.wrapping_add(1);
        Some(sent)
    }

    /// Completes all up to this number at once, if nothing of any of them is to be given back.
    #[inline]
    pub(super) fn complete_shorts(&mut self, number: u32) -> bool {
        let covered = number.wrapping_sub(self.oldest) < self.outstanding();
        if !covered || self.with_cell != 0 {
            return false;
        }
        self.oldest = number.wrapping_add(1);
        true
    }

    /// Number of the oldest entry, and of the next.
    pub(super) fn span(&self) -> (u32, u32) {
        (self.oldest, self.next)
    }

    /// Gives the queue pair up: it is moved to the error state and destroyed, after which the
    /// device touches nothing of it. What was posted is handed back.
    pub(super) fn close(self) -> Vec<Sent> {
        let numbers = (0..self.outstanding()).map(|ahead| self.oldest.wrapping_add(ahead));
        let sent = numbers.map(|number| self.sent[self.at(number)]).collect();
        // A device that is gone refuses; destroying follows in any case.
        let _refused = self.pair.error();
        sent
    }
}

/// A send from the device half, until its last copy is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) wr_id: u64,
    pub(super) status: WcStatus,
}
