//! Looking at what was received before it is known whose it becomes: a frame in one buffer is lent,
//! and mostly its buffer is posted again as it is.

use std::hint::cold_path;

use super::NetInterface;
use crate::memory::region::Segment;
use crate::memory::slot::Slot;
use crate::nic::{BareFrame, Nic, PolledOne};
use crate::virtio::driver::{Lent, Received};
use crate::virtio::net_header::{DATA_VALID, GSO_NONE, NetHeader};
use crate::virtio::ring::UsedElement;

/// What [`NetInterface::look_for_plain`] found.
#[derive(Debug)]
#[must_use]
pub enum Looked {
    /// A frame in one buffer, lent, whose header is that of most ([`NetHeader::is_partial_v4`]) and
    /// not put out yet; or that came without one, its checksum verified.
    Plain(Lent),
    /// Nothing more is there now.
    Nothing,
    /// Something else, for [`NetInterface::look_further`].
    Other,
}

/// The buffer that was lent last, as both halves have looked it up and checked it: while it is
/// posted again as it is, and the NIC fills it once more, neither does so anew. It is forgotten
/// before any chain leaves the queue.
#[derive(Debug)]
pub(super) struct Known {
    wr_id: u64,
    /// Longest message that both take; 0 for no buffer.
    len_max: u32,
    room: Segment,
    slot: Slot,
}

impl Known {
    pub(super) const NONE: Known =
        Known { wr_id: 0, len_max: 0, room: Segment::EMPTY, slot: Slot::from_raw(0) };

    /// It may leave the queue.
    #[inline(always)]
    fn forget(&mut self) {
        self.len_max = 0;
    }
}

/// What a look for a plain frame found instead.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// Frames that lie on the queue.
    Returned,
    /// As [`PolledOne::Lent`].
    Lent(u64, u32),
    /// As [`PolledOne::Verified`].
    Verified(u64, u32),
    /// As [`PolledOne::Taken`].
    Taken(u64, u32),
    /// As [`PolledOne::Unknown`].
    Unknown,
}

/// What [`NetInterface::look`] found.
#[derive(Debug)]
#[must_use]
pub enum Arrived {
    /// A frame in one buffer, lent, and its header put out.
    Lent(Lent),
    /// A frame, put out.
    Frame,
    /// Nothing more is there now.
    Nothing,
}

impl Arrived {
    #[inline]
    fn of(received: bool) -> Arrived {
        if received { Arrived::Frame } else { Arrived::Nothing }
    }
}

impl<N: Nic> NetInterface<N> {
    /// As [`NetInterface::receive`], but a frame in one buffer that the NIC had at once is only
    /// lent: [`NetInterface::keep`], [`NetInterface::let_go`] or [`NetInterface::post_again`]
    /// follows before anything else is received or posted.
    #[inline]
    pub fn look(&mut self, frame: &mut Received) -> Arrived {
        if self.has_returned {
            return Arrived::of(self.look_at_returned(frame));
        }
        match self.look_for_plain() {
            Looked::Plain(lent) => {
                self.put_out(&lent, frame);
                Arrived::Lent(lent.with_header_put_out())
            }
            Looked::Nothing => Arrived::Nothing,
            Looked::Other => self.look_further(frame),
        }
    }

    /// As [`NetInterface::look`] for what is nearly all of the short ones; for anything else
    /// [`NetInterface::look_further`] is to follow.
    #[inline(always)]
    pub fn look_for_plain(&mut self) -> Looked {
        if self.has_returned {
            return self.found(Found::Returned);
        }
        match self.nic.poll_recv_lent() {
            PolledOne::Lent { wr_id, byte_len } => self.look_at_known(wr_id, byte_len),
            PolledOne::LentInTurn { wr_id, byte_len } => self.look_at_plain(wr_id, byte_len),
            PolledOne::Verified { wr_id, byte_len } => self.look_at_verified(wr_id, byte_len),
            other => self.look_at_other(other),
        }
    }

    /// What is not to be looked at yet.
    #[inline(never)]
    fn look_at_other(&mut self, polled: PolledOne) -> Looked {
        match polled {
            PolledOne::Nothing => Looked::Nothing,
            PolledOne::Taken { wr_id, byte_len } => self.found(Found::Taken(wr_id, byte_len)),
            _ => self.found(Found::Unknown),
        }
    }

    /// A message that is mostly in the buffer that was lent last.
    #[inline(always)]
    fn look_at_known(&mut self, wr_id: u64, byte_len: u32) -> Looked {
        let known = &self.known;
        if wr_id == known.wr_id
            && byte_len <= known.len_max
            && let Some(header) = known.room.read().as_ref().map(NetHeader::decode)
            && header.is_partial_v4()
            && let Some(lent) = self.driver.lend_known((known.slot, wr_id), byte_len, &header)
        {
            return Looked::Plain(lent.with_header_before());
        }
        self.look_anew(wr_id, byte_len)
    }

    /// The same for a buffer that is not the one that was lent last.
    #[inline(never)]
    fn look_anew(&mut self, wr_id: u64, byte_len: u32) -> Looked {
        let looked = self.look_at_plain(wr_id, byte_len);
        if let Looked::Plain(lent) = &looked {
            let room = self.device.room(u32::from(lent.head()));
            let len_max = room.length().min(self.arena.receive_len());
            self.known = Known { wr_id, len_max, room, slot: lent.piece().slot };
        }
        looked
    }

    /// A message with a header in any buffer.
    #[inline(always)]
    fn look_at_plain(&mut self, wr_id: u64, byte_len: u32) -> Looked {
        if let Some((used, header)) = self.device.lend((wr_id, byte_len))
            && header.is_partial_v4()
        {
            return match self.driver.lend(&mut self.arena, used, &header) {
                Some(lent) => Looked::Plain(lent.with_header_before()),
                None => self.refused(used.id),
            };
        }
        self.found(Found::Lent(wr_id, byte_len))
    }

    /// A frame without a header in any buffer, whose checksum the NIC verified.
    #[inline(always)]
    fn look_at_verified(&mut self, wr_id: u64, byte_len: u32) -> Looked {
        let bare = BareFrame { wr_id, byte_len, verified: true };
        if let Some((used, header)) = self.device.lend_bare(&bare)
            && header.flags == DATA_VALID
        {
            return match self.driver.lend(&mut self.arena, used, &header) {
                Some(lent) => Looked::Plain(lent.without_header()),
                None => self.refused(used.id),
            };
        }
        self.found(Found::Verified(wr_id, byte_len))
    }

    #[inline(always)]
    fn found(&mut self, found: Found) -> Looked {
        cold_path();
        self.known.forget();
        self.found = found;
        Looked::Other
    }

    /// What [`NetInterface::look_for_plain`] found, if it is not plain.
    #[inline]
    pub fn look_further(&mut self, frame: &mut Received) -> Arrived {
        match std::mem::replace(&mut self.found, Found::Nothing) {
            Found::Nothing => Arrived::Nothing,
            Found::Returned => Arrived::of(self.look_at_returned(frame)),
            Found::Taken(wr_id, byte_len) => {
                Arrived::of(self.receive_taken((wr_id, byte_len), frame))
            }
            Found::Unknown => self.look_longer(frame),
            Found::Lent(wr_id, byte_len) => self.look_at_lent((wr_id, byte_len), frame),
            Found::Verified(wr_id, byte_len) => {
                self.look_at_bare(BareFrame { wr_id, byte_len, verified: true }, frame)
            }
        }
    }

    #[inline]
    fn look_at_lent(&mut self, found: (u64, u32), frame: &mut Received) -> Arrived {
        let (wr_id, byte_len) = found;
        // Of what has no header, or was not to have one with a checksum, nobody knows the checksum.
        let bare = BareFrame { wr_id, byte_len, verified: false };
        let lent = self.device.lend(found).or_else(|| self.device.lend_bare(&bare));
        match lent {
            Some((used, header)) if header.gso_type == GSO_NONE => self.lend(used, header, frame),
            _ => {
                self.nic.take_lent();
                Arrived::of(self.receive_taken(found, frame))
            }
        }
    }

    /// Lends a frame and puts its header out.
    #[inline(always)]
    fn lend(&mut self, used: UsedElement, header: NetHeader, frame: &mut Received) -> Arrived {
        frame.header = NetHeader { num_buffers: 1, ..header };
        match self.driver.lend(&mut self.arena, used, &frame.header) {
            Some(lent) => Arrived::Lent(lent),
            None => {
                let _nothing = self.refused(used.id);
                Arrived::Nothing
            }
        }
    }

    /// The driver refused what the device lent it.
    #[cold]
    fn refused(&mut self, head: u32) -> Looked {
        self.known.forget();
        self.nic.take_lent();
        self.device.let_go(u16::try_from(head).unwrap_or(u16::MAX));
        Looked::Nothing
    }

    /// Puts out the header of a lent frame, if that was not done yet.
    #[inline]
    fn put_out(&self, lent: &Lent, frame: &mut Received) {
        if let Some(header) = lent.header(&self.arena) {
            frame.header = header;
        }
    }

    /// A frame that lies on the queue.
    #[inline]
    pub(super) fn look_at_returned(&mut self, frame: &mut Received) -> bool {
        self.known.forget();
        self.receive_queued(frame)
    }

    /// A lent frame becomes the caller's, with the reference of its piece, and its header is put
    /// out.
    #[inline]
    pub fn keep(&mut self, lent: Lent, frame: &mut Received) {
        self.put_out(&lent, frame);
        frame.pieces.clear();
        frame.pieces.push(lent.piece());
        self.let_go(lent);
    }

    /// As [`NetInterface::keep`], for who knows what the frame was.
    #[inline(always)]
    #[expect(clippy::needless_pass_by_value, reason = "the lent frame ends here")]
    pub fn let_go(&mut self, lent: Lent) {
        self.known.forget();
        self.nic.take_lent();
        self.device.let_go(lent.head());
        self.driver.keep(&mut self.arena, &lent);
    }

    /// A lent frame was seen to the end, and nobody refers to it: its buffer is posted again as it
    /// is.
    #[inline(always)]
    #[expect(clippy::needless_pass_by_value, reason = "the lent frame ends here")]
    pub fn post_again(&mut self, lent: Lent) {
        debug_assert!(!self.arena.is_shared(lent.piece().slot), "it was seen to the end");
        self.nic.repost_lent();
        self.again += 1;
    }

    /// The same for a message that is not small, or a NIC that lends frames without headers.
    #[inline]
    fn look_longer(&mut self, frame: &mut Received) -> Arrived {
        if let Some(taken) = self.nic.poll_recv_long() {
            return Arrived::of(self.receive_taken(taken, frame));
        }
        let Some(bare) = self.nic.poll_bare_lent() else {
            return Arrived::of(self.receive_batch(frame));
        };
        self.look_at_bare(bare, frame)
    }

    /// A frame without a header that the NIC lends.
    #[inline]
    fn look_at_bare(&mut self, bare: BareFrame, frame: &mut Received) -> Arrived {
        let Some((used, header)) = self.device.lend_bare(&bare) else {
            cold_path();
            self.nic.take_lent();
            self.device.collect_bare(bare);
            return Arrived::of(self.receive_batch(frame));
        };
        self.lend(used, header, frame)
    }
}
