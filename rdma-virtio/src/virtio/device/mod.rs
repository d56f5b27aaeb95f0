//! The device half: it takes chains off the queues, checks them, and turns them into work requests.
//!
//! Believes nothing that it reads from a queue or a descriptor. What the NIC cannot do
//! (checksums, segmentation) it does last, in software. Owns no buffers but its scratch; never
//! looks at a slot or the stack. Transmission is in `transmit`, reception in `receive`.

mod offload;
mod receive;
mod transmit;

use self::receive::ReceiveSide;
pub(super) use self::receive::{BATCH as POSTS_MAX, ReceivedDirectly, Staged, Staging};
use self::transmit::TransmitSide;
use super::features::Features;
use super::layout::{Descriptor, QueueMemory};
use super::net_header::{NET_HEADER_LEN, NetHeader};
use super::ring::{DeviceRing, Notify, Policy, UsedElement};
use crate::counters::DeviceCounters;
use crate::memory::region::{RegionTable, Segment};
use crate::nic::{BareFrame, Capabilities, Completion, Nic, Receive, WcChecksum, WcStatus, Wire};

/// Shortest frame: an Ethernet header.
pub const FRAME_LEN_MIN: u32 = 14;

/// Bytes of one scratch place: a virtio-net header and the headers of a segment.
pub const SCRATCH_LEN: u32 = 256;
/// Posts of scratch: more segments than that of software segmentation are never in flight.
pub const SCRATCH_COUNT: u32 = 256;

/// An empty completion, for arrays that the NIC fills.
const NO_COMPLETION: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// What the NIC does and what was negotiated, as the data path asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) wire: Wire,
    pub(super) mergeable: bool,
    /// Whether a message may span buffers.
    pub(super) may_span: bool,
    /// Negotiated with the driver.
    pub(super) features: Features,
    /// Of these, what the NIC does itself.
    pub(super) native: Features,
    /// Bytes in front of a frame that do not go to the NIC.
    pub(super) in_front: u32,
    /// Whether a checksum that is still to be computed is passed on as it stands: from the driver
    /// to the wire, and from the wire to the driver.
    pub(super) passes_out: bool,
    pub(super) passes_in: bool,
    pub(super) max_inline: u32,
    /// Longest frame on the wire: a VLAN tag may come on top of the MTU.
    pub(super) frame_max: u32,
    pub(super) max_message: u32,
    pub(super) max_send_sge: usize,
    pub(super) max_recv_sge: usize,
}

/// The queues of a device, as its half sees them.
#[derive(Debug)]
pub struct DeviceQueues {
    /// Packets to send.
    pub transmit: QueueMemory,
    /// Room for received packets.
    pub receive: QueueMemory,
}

/// The device half.
#[derive(Debug)]
pub struct NetDevice<P: Policy> {
    setup: Setup,
    regions: RegionTable,
    tx: TransmitSide<P>,
    rx: ReceiveSide<P>,
    counters: DeviceCounters,
}

impl<P: Policy> NetDevice<P> {
    /// A device for a NIC with these capabilities and the features that the driver accepted, with
    /// those of them that the NIC does itself.
    /// `scratch` is [`SCRATCH_LEN`] × [`SCRATCH_COUNT`] bytes in registered transmit memory, the
    /// device's own.
    #[must_use]
    pub fn new(
        nic: &Capabilities,
        (features, native): (Features, Features),
        regions: RegionTable,
        queues: DeviceQueues,
        scratch: Option<Segment>,
    ) -> NetDevice<P> {
        let event_index = features.has(Features::EVENT_IDX);
        let native = Features::native(nic).and(features).and(native);
        let in_message = nic.wire == Wire::VirtioNet;
        let setup = Setup {
            passes_out: in_message && native.has(Features::CSUM),
            passes_in: in_message && features.has(Features::GUEST_CSUM),
            wire: nic.wire,
            mergeable: features.has(Features::MRG_RXBUF),
            may_span: in_message
                && nic.receive == Receive::Spanning
                && features.has(Features::MRG_RXBUF),
            features,
            native,
            in_front: match nic.wire {
                Wire::Frames => NET_HEADER_LEN,
                Wire::VirtioNet => 0,
            },
            max_inline: nic.max_inline,
            frame_max: u32::from(nic.mtu) + FRAME_LEN_MIN + 4,
            max_message: nic.max_message,
            max_send_sge: usize::from(nic.max_send_sge),
            max_recv_sge: usize::from(nic.max_recv_sge),
        };
        NetDevice {
            setup,
            regions,
            tx: TransmitSide::new(
                DeviceRing::new(queues.transmit, event_index),
                nic.max_send_wr,
                scratch,
            ),
            rx: ReceiveSide::new(DeviceRing::new(queues.receive, event_index), &setup),
            counters: DeviceCounters::default(),
        }
    }

    /// The regions that descriptors may name. A region whose segments are with the NIC must not
    /// be removed.
    pub fn regions_mut(&mut self) -> &mut RegionTable {
        self.tx.forget_region();
        self.rx.forget_region();
        &mut self.regions
    }

    /// Posts what waits on the transmit queue; the last of it is signalled, so that no completion
    /// is waited for in vain. What does not fit stays on the queue.
    #[inline]
    pub fn transmit<N: Nic>(&mut self, nic: &mut N) -> Notify {
        self.tx.drain(nic, &self.setup, &self.regions, &mut self.counters)
    }

    /// The short form for one thread: takes a descriptor, and the header that lies in front, by
    /// value. True if it is done with.
    #[inline(always)]
    pub(super) fn transmit_directly<N: Nic>(
        &mut self,
        nic: &mut N,
        descriptor: Descriptor,
        header: NetHeader,
    ) -> bool {
        self.tx.send_directly(nic, (&self.setup, &self.regions), descriptor, header)
    }

    /// Whether [`NetDevice::transmit_later`] may be called.
    pub(super) fn takes_burst(&mut self) -> bool {
        self.tx.takes_burst()
    }

    /// The short form for one thread: takes a descriptor with its head, and the header that lies in
    /// front, by value; `last` if nothing follows for now. False: it and what is behind it must
    /// come through the queue. [`NetDevice::end_burst`] follows in any case.
    #[inline(always)]
    pub(super) fn transmit_later<N: Nic>(
        &mut self,
        nic: &mut N,
        frame: (u16, Descriptor, &NetHeader),
        last: bool,
    ) -> bool {
        let with = (&self.setup, &self.regions, &mut self.counters);
        self.tx.send_later(nic, with, frame, last)
    }

    /// See [`NetDevice::transmit_later`].
    pub(super) fn end_burst<N: Nic>(&mut self, nic: &mut N) -> Notify {
        self.tx.end_burst(nic)
    }

    /// As [`NetDevice::reap`]; `each` is called with the head of each chain instead.
    #[inline(always)]
    pub(super) fn reap_directly<N: Nic>(&mut self, nic: &mut N, each: impl FnMut(u16)) {
        self.tx.reap_directly(nic, &mut self.counters, each);
    }

    /// The short form for one thread: a single whole message is handed over by value, everything
    /// else goes through the queue. `header` is that of a message in several buffers.
    #[inline]
    pub(super) fn receive_directly<N: Nic>(
        &mut self,
        nic: &mut N,
        header: &mut NetHeader,
    ) -> ReceivedDirectly<'_> {
        self.rx.poll_directly(nic, &self.setup, &mut self.counters, header)
    }

    /// Looks at a message that the NIC lends, if it is a whole one in one buffer that may stay the
    /// device's, too, meanwhile; its header by value. [`Nic::take_lent`] with
    /// [`NetDevice::let_go`], or [`Nic::repost_lent`], follows.
    #[inline(always)]
    pub(super) fn lend(&mut self, lent: (u64, u32)) -> Option<(UsedElement, NetHeader)> {
        self.rx.lend(lent)
    }

    /// The buffer of a head that is posted.
    #[inline]
    pub(super) fn room(&self, head: u32) -> Segment {
        self.rx.room(head)
    }

    /// As [`NetDevice::receive_directly`] for a NIC that has a short way to one message, whose
    /// header is handed over by value, too. `None`: it may be on the queue.
    #[inline(always)]
    pub(super) fn receive_taken(
        &mut self,
        taken: (u64, u32),
        header: &mut NetHeader,
    ) -> Option<UsedElement> {
        self.rx.receive_taken(&self.setup, &mut self.counters, taken, header)
    }

    /// A buffer that was lent and not posted again is the driver's.
    #[inline(always)]
    pub(super) fn let_go(&mut self, head: u16) {
        self.rx.let_go(head);
    }

    /// The same for a frame without a header, or with one that asks for nothing. `None`: the NIC is
    /// to let go of it, and [`NetDevice::collect_bare`] or [`NetDevice::receive_taken`] follows.
    #[inline(always)]
    pub(super) fn lend_bare(&self, frame: &BareFrame) -> Option<(UsedElement, NetHeader)> {
        self.rx.lend_bare(&self.setup, frame)
    }

    /// A frame without a header goes the queue's way.
    pub(super) fn collect_bare(&mut self, frame: BareFrame) {
        self.rx.collect_bare(&self.setup, &mut self.counters, frame);
    }

    /// The short form of posting for one thread: prepares to take single buffers by value, all of
    /// the same length and in the same region as `first`. [`NetDevice::post_staged`] follows.
    /// `None` if they must come through the queue.
    #[inline(always)]
    pub(super) fn stage(&mut self, first: (u64, u32)) -> Option<Staging<'_>> {
        self.rx.stage((&self.setup, &self.regions), first)
    }

    /// Posts what was staged; returns how many of them were posted. The others must come through
    /// the queue.
    #[inline(always)]
    pub(super) fn post_staged<N: Nic>(&mut self, nic: &mut N, staged: Staged) -> usize {
        self.rx.post_staged(nic, staged)
    }

    /// The head of the staged buffer with this number.
    pub(super) fn staged_head(&self, number: usize) -> u16 {
        self.rx.staged_head(number)
    }

    /// Takes send completions and returns their chains.
    #[inline]
    pub fn reap<N: Nic>(&mut self, nic: &mut N) -> Notify {
        self.tx.reap(nic, &mut self.counters)
    }

    /// Whether sends are with the NIC.
    #[must_use]
    #[inline]
    pub fn has_sends(&self) -> bool {
        self.tx.outstanding() != 0
    }

    /// Whether chains wait on the transmit queue because the NIC was full: call
    /// [`NetDevice::transmit`] again.
    #[must_use]
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.tx.has_backlog()
    }

    /// Posts the receive buffers that wait on the receive queue.
    #[inline]
    pub fn post_receives<N: Nic>(&mut self, nic: &mut N) -> Notify {
        self.rx.post(nic, &self.setup, &self.regions, &mut self.counters)
    }

    /// Takes receive completions and passes the messages on.
    #[inline]
    pub fn receive<N: Nic>(&mut self, nic: &mut N) -> Notify {
        self.rx.poll(nic, &self.setup, &mut self.counters)
    }

    /// The counters; `again` messages were lent and their buffers posted again, which nobody
    /// counted.
    #[must_use]
    pub(super) fn counters_with(&self, again: u64) -> DeviceCounters {
        let mut counters = self.counters();
        counters.rx_messages += again;
        counters.rx_passed += again;
        counters
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> DeviceCounters {
        self.rx.count_direct(self.tx.count_direct(self.counters))
    }

    /// Work requests that the NIC has not completed: sends, receives.
    #[must_use]
    pub fn in_flight(&self) -> (u32, u32) {
        (self.tx.outstanding(), self.rx.outstanding())
    }
}
