//! The driver half: it puts frames and room for frames on the queues, and takes them back.
//!
//! Keeps its own record of everything that it handed out and uses nothing that it finds in the
//! rings before checking it against that. Owns the references to slots that are on a queue; never
//! looks into a frame behind its virtio-net header.

mod receive;
mod transmit;

use arrayvec::ArrayVec;

pub use self::receive::Lent;
use self::receive::ReceiveQueue;
use self::transmit::TransmitQueue;
pub use self::transmit::{IndirectTables, TABLE_LEN};
use super::layout::{Descriptor, QueueMemory};
use super::net_header::NetHeader;
use super::ring::{DriverRing, Notify, Policy, UsedElement};
use crate::counters::DriverCounters;
use crate::memory::arena::Arena;
use crate::memory::slot::{Piece, Slot};
use crate::nic::Completion;

/// Most pieces of one frame, sent or received.
pub const PIECES_MAX: usize = 18;

/// Why a frame was not taken. Nothing was taken then: the references stay the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransmitError {
    /// The queue is full; try again after completions were reaped.
    #[error("the transmit queue is full")]
    RingFull,
    /// No pieces, too many, or one that leaves its slot or lacks the room before it.
    #[error("a piece leaves its slot, lacks 12 bytes before it, or there are none or too many")]
    BadPieces,
    /// The queue is broken for good.
    #[error("the device broke the queue")]
    Broken,
}

/// A received frame. The caller owns one reference of each piece.
#[derive(Clone, Debug)]
pub struct Received {
    /// The bytes from the Ethernet header on, in order.
    pub pieces: ArrayVec<Piece, PIECES_MAX>,
    /// What the device says of it; checked against the length.
    pub header: NetHeader,
}

impl Default for Received {
    fn default() -> Received {
        Received { pieces: ArrayVec::new(), header: NetHeader::RECEIVED }
    }
}

/// How receive buffers lie on the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveLayout {
    /// Whether a frame may span several chains (`MRG_RXBUF`).
    pub mergeable: bool,
    /// Slots in a chain; 1 if mergeable.
    pub slots: u16,
    /// Chains that are posted at most.
    pub posted_max: u16,
}

/// The driver half.
#[derive(Debug)]
pub struct NetDriver<P: Policy> {
    tx: TransmitQueue<P>,
    rx: ReceiveQueue<P>,
    counters: DriverCounters,
    /// Frames sent without the queue.
    direct: u64,
}

impl<P: Policy> NetDriver<P> {
    /// A driver on two fresh queues. With tables, frames of several pieces are indirect.
    #[must_use]
    pub fn new(
        transmit: QueueMemory,
        receive: QueueMemory,
        tables: Option<IndirectTables>,
        layout: ReceiveLayout,
        event_index: bool,
    ) -> NetDriver<P> {
        NetDriver {
            tx: TransmitQueue::new(DriverRing::new(transmit, event_index), tables),
            rx: ReceiveQueue::new(DriverRing::new(receive, event_index), layout),
            counters: DriverCounters::default(),
            direct: 0,
        }
    }

    /// Puts a frame on the transmit queue; takes one reference of every piece.
    ///
    /// # Errors
    /// See [`TransmitError`].
    #[inline]
    pub fn transmit(
        &mut self,
        arena: &mut Arena,
        pieces: &[Piece],
        header: &NetHeader,
    ) -> Result<Notify, TransmitError> {
        self.tx.transmit(arena, pieces, header, &mut self.counters)
    }

    /// The short form for one thread: if nothing is on the queue, the descriptor of a frame of one
    /// piece, for the device to take at once. [`NetDriver::sent_directly`] follows if it did.
    #[inline(always)]
    pub(super) fn describe(
        &self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
    ) -> Option<Descriptor> {
        self.tx.describe(arena, piece, header)
    }

    /// The device took the descriptor and is done with it.
    #[inline(always)]
    pub(super) fn sent_directly(&mut self, piece: Piece) {
        self.direct += 1;
        self.counters.tx_bytes += u64::from(piece.len);
    }

    /// Frames of one piece for which there is room.
    #[must_use]
    pub fn transmit_room(&self) -> u16 {
        self.tx.room()
    }

    /// The short form for one thread: takes a frame of one piece, with its reference, and returns
    /// head and descriptor for the device to take by value. [`NetDriver::queue_frame`] follows if
    /// it does not. `None`: nothing was taken.
    #[inline(always)]
    pub(super) fn take_frame(
        &mut self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
    ) -> Option<(u16, Descriptor)> {
        self.tx.take_frame(arena, piece, header, &mut self.counters)
    }

    /// See [`NetDriver::take_frame`].
    pub(super) fn queue_frame(&mut self, head: u16, descriptor: Descriptor) -> Notify {
        self.tx.queue_frame(head, descriptor)
    }

    /// The device is done with a chain, whose head it says by value.
    #[inline(always)]
    pub(super) fn take_back(&mut self, arena: &mut Arena, head: u16) {
        self.tx.take_back(arena, head, &mut self.counters);
    }

    /// The short form for one thread: a returned chain handed over by value.
    #[inline]
    pub(super) fn received_directly(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        used: UsedElement,
    ) -> bool {
        self.rx.take(arena, frame, used, &mut self.counters)
    }

    /// As [`NetDriver::received_directly`], with a frame in several buffers whose header is in
    /// `frame`.
    #[inline]
    pub(super) fn received_span(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        parts: &[Completion],
    ) -> bool {
        let parts = parts.iter().map(|part| UsedElement {
            id: u32::try_from(part.wr_id).unwrap_or(u32::MAX),
            len: part.byte_len,
        });
        self.rx.take_span(arena, frame, parts, &mut self.counters)
    }

    /// As [`NetDriver::received_directly`], with a frame in one buffer whose header is in `frame`.
    #[inline(always)]
    pub(super) fn received_one(
        &mut self,
        arena: &mut Arena,
        frame: &mut Received,
        used: UsedElement,
    ) -> bool {
        self.rx.take_one(arena, frame, used, &mut self.counters)
    }

    /// As [`NetDriver::received_one`], for a frame that is lent, and whose header is `header`:
    /// it is posted again under the same head, or [`NetDriver::keep`] follows.
    #[inline(always)]
    pub(super) fn lend(
        &mut self,
        arena: &mut Arena,
        used: UsedElement,
        header: &NetHeader,
    ) -> Option<Lent> {
        self.rx.lend(arena, (used, header), &mut self.counters)
    }

    /// As [`NetDriver::lend`], for a slot that was lent before and is still posted, under the head
    /// that is the lower half of `wr_id`, and has room for `len` bytes. The header says that they
    /// hold IP's and more, so that they are no less than a frame; `None`, and nothing was done, if
    /// it does not fit.
    #[inline(always)]
    pub(super) fn lend_known(
        &mut self,
        (slot, wr_id): (Slot, u64),
        len: u32,
        header: &NetHeader,
    ) -> Option<Lent> {
        Lent::of_known((slot, wr_id), len, header, &mut self.counters)
    }

    /// A lent frame's buffer is the caller's.
    #[inline(always)]
    pub(super) fn keep(&mut self, arena: &mut Arena, lent: &Lent) {
        self.rx.keep(arena, lent);
    }

    /// The short form of posting receives for one thread: calls `each` with the head and the
    /// address of chains of one slot, at most `count_max` times; returns how often.
    /// [`NetDriver::queue_buffers`] follows for those that the device did not take.
    #[inline(always)]
    pub(super) fn take_buffers(
        &mut self,
        arena: &mut Arena,
        count_max: u16,
        each: impl FnMut(u16, u64),
    ) -> u16 {
        self.rx.take_buffers(arena, count_max, each, &mut self.counters)
    }

    /// Whether [`NetDriver::take_buffers`] would find a chain to post.
    #[inline]
    pub(super) fn lacks_buffers(&self, arena: &Arena) -> bool {
        self.rx.lacks_buffers(arena)
    }

    /// Puts chains on the queue that the device did not take by value.
    pub(super) fn queue_buffers(&mut self, arena: &Arena, heads: &[u16]) {
        self.rx.queue_buffers(arena, heads);
    }

    /// Whether [`NetDriver::refill`] would post something.
    #[must_use]
    #[inline]
    pub fn wants_refill(&self, arena: &Arena) -> bool {
        self.rx.wants_refill(arena)
    }

    /// Takes frames back that the device is done with, and releases their slots.
    #[inline]
    pub fn reap(&mut self, arena: &mut Arena) {
        self.tx.reap(arena, &mut self.counters);
    }

    /// Whether the device returned a received frame.
    #[must_use]
    #[inline]
    pub fn has_received(&self) -> bool {
        self.rx.has_used()
    }

    /// The next received frame; bad ones are dropped and counted.
    #[inline]
    pub fn receive(&mut self, arena: &mut Arena, frame: &mut Received) -> bool {
        self.rx.receive(arena, frame, &mut self.counters)
    }

    /// Posts free receive slots if it is worth it.
    #[inline]
    pub fn refill(&mut self, arena: &mut Arena) -> Notify {
        self.rx.refill(arena, &mut self.counters)
    }

    /// The counters; `again` frames were lent and their buffers posted again, which nobody counted.
    #[must_use]
    pub(super) fn counters_with(&self, again: u64) -> DriverCounters {
        let mut counters = self.counters();
        counters.rx_returned += again;
        counters.rx_frames += again;
        counters.rx_posted += again;
        counters
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> DriverCounters {
        let mut counters = self.rx.count_direct(self.counters);
        counters.tx_frames += self.direct;
        counters.tx_completed += self.direct;
        counters
    }

    /// Frames on the transmit queue, and chains on the receive queue.
    #[must_use]
    pub fn in_flight(&self) -> (u16, u16) {
        (self.tx.in_flight(), self.rx.posted())
    }

    /// The driver's ends of the queues, transmit and receive: for notifications.
    pub fn rings_mut(&mut self) -> (&mut DriverRing<P>, &mut DriverRing<P>) {
        (self.tx.ring_mut(), self.rx.ring_mut())
    }
}
