//! The assembled network interface of a worker: arena, driver half, device half, NIC, one thread.
//!
//! Owns all four and the order in which they go. Decides when the device half looks at its queues:
//! at once for what goes inline, at the doorbell for everything else, so that the last work
//! request of a turn is known and signalled. Knows no protocol above Ethernet.
//!
//! Both halves being in one thread, the usual case (one small frame, nothing else under way) passes
//! a descriptor or a used element by value instead of through the rings: the same checks on the
//! same two sides, without the memory between them.

mod lending;
mod setup;

use std::hint::cold_path;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use arrayvec::ArrayVec;

pub use self::lending::{Arrived, Looked};
use self::lending::{Found, Known};
pub use self::setup::InterfaceError;
use self::setup::{Places, accepted, plan_receive, register};
use super::device::{
    DeviceQueues, NetDevice, POSTS_MAX, ReceivedDirectly, SCRATCH_COUNT, SCRATCH_LEN,
};
use super::driver::{NetDriver, ReceiveLayout, Received, TABLE_LEN, TransmitError};
use super::features::{Features, Wish};
use super::layout::{QueueLayout, check_queue_size};
use super::net_header::{NET_HEADER_LEN, NetHeader};
use super::ring::{Notify, SameThread};
use crate::counters::{DeviceCounters, DriverCounters};
use crate::memory::arena::{Arena, ArenaConfig, ArenaExtra};
use crate::memory::buffer::BufferMut;
use crate::memory::mapping::Mapping;
use crate::memory::region::RegionTable;
use crate::memory::slot::Piece;
use crate::nic::{Nic, RegionView, Wire};

/// Bytes of a receive chain that takes the longest coalesced packet, header included
/// (virtio 1.2 §5.1.6.3.1).
pub const LARGE_PACKET_LEN: u32 = 65_562;

/// Receives that are posted at a time.
const BATCH: u16 = 32;
const _: () = assert!(BATCH as usize == POSTS_MAX);

/// Driver half, device half, their memory and their NIC.
#[derive(Debug)]
pub struct NetInterface<N: Nic> {
    // The NIC is dropped first: it may reach the arena until then.
    nic: N,
    device: NetDevice<SameThread>,
    driver: NetDriver<SameThread>,
    arena: Arena,
    features: Features,
    native: Features,
    layout: ReceiveLayout,
    /// Longest frame that is posted inline, at once, if it can be.
    short_frame_max: u32,
    /// Longest frame that always is.
    inline_frame_max: u32,
    /// Whether the device half may have returned received frames through the queue.
    has_returned: bool,
    /// Whether receives wait on the queue that the NIC did not take.
    nic_lacks_receives: bool,
    /// Frames that were lent and whose buffers were posted again.
    again: u64,
    /// What is for [`NetInterface::look_further`].
    found: Found,
    known: Known,
}

impl<N: Nic> NetInterface<N> {
    /// Allocates the arena, registers it, negotiates features and posts receives.
    ///
    /// Of `wanted`, what the device half offers with this NIC is taken (see
    /// [`Features::offered`]); [`NetInterface::features`] says what that was, and the NIC is told
    /// what may be delivered. `queue_size` is a
    /// power of two from 16 to 4096, for both queues.
    ///
    /// # Errors
    /// If a number is absurd, `wanted` is illegal in itself, or the kernel or the NIC refuses.
    pub fn new(
        mut nic: N,
        config: &ArenaConfig,
        wanted: impl Into<Wish>,
        queue_size: u16,
    ) -> Result<NetInterface<N>, InterfaceError> {
        check_queue_size(queue_size)?;
        let wish: Wish = wanted.into();
        wish.features.check()?;
        let capabilities = nic.capabilities().clone();
        let (features, layout) =
            plan_receive(&capabilities, config.receive_len, wish.features, queue_size)?;
        let native = Features::native(&capabilities).without(wish.software).and(features);
        nic.accept(accepted(features))?;
        let extra = ArenaExtra {
            scratch_len: SCRATCH_LEN * SCRATCH_COUNT,
            private_len: 2 * QueueLayout::of(queue_size).length + u32::from(queue_size) * TABLE_LEN,
        };
        let arena = Arena::new(config, extra)?;
        let mut regions = RegionTable::new();
        for view in [arena.transmit_region(), arena.receive_region()] {
            register(&mut nic, &mut regions, view)?;
        }
        let places = Places::of(&arena, queue_size)?;
        let (scratch_addr, scratch_len) = arena.scratch();
        let scratch = regions.find(scratch_addr, scratch_len);
        let queues =
            DeviceQueues { transmit: places.transmit.clone(), receive: places.receive.clone() };
        let tables = features.has(Features::INDIRECT_DESC).then_some(places.tables);
        let device = NetDevice::new(&capabilities, (features, native), regions, queues, scratch);
        let driver = NetDriver::new(places.transmit, places.receive, tables, layout, false);
        let in_message = match capabilities.wire {
            Wire::Frames => 0,
            Wire::VirtioNet => NET_HEADER_LEN,
        };
        let short_frame_max = nic.short_max().saturating_sub(in_message);
        let mut interface = NetInterface {
            nic,
            device,
            driver,
            arena,
            features,
            native,
            layout,
            short_frame_max,
            inline_frame_max: capabilities.max_inline.saturating_sub(in_message),
            has_returned: false,
            nic_lacks_receives: false,
            again: 0,
            found: Found::Nothing,
            known: Known::NONE,
        };
        interface.refill();
        interface.nic.doorbell();
        Ok(interface)
    }

    /// What was negotiated.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Of what was negotiated, what the NIC does itself; the device half does the rest in software.
    #[must_use]
    pub fn native(&self) -> Features {
        self.native
    }

    /// How receive buffers lie on the queue.
    #[must_use]
    pub fn receive_layout(&self) -> ReceiveLayout {
        self.layout
    }

    /// Sends a frame. Takes one reference of every piece, and writes the virtio-net header into
    /// the 12 bytes before the first one, which must be free. A frame that goes inline is gone
    /// on return and its references released; any other is posted at the latest at the doorbell.
    ///
    /// # Errors
    /// See [`TransmitError`]; nothing is taken then.
    #[inline(always)]
    pub fn transmit(&mut self, pieces: &[Piece], header: &NetHeader) -> Result<(), TransmitError> {
        if let [piece] = *pieces
            && self.transmit_lent(piece, header)
        {
            self.arena.release(piece.slot);
            return Ok(());
        }
        self.transmit_queued(pieces, header)
    }

    /// Sends a frame of one piece inline, if that can be done at once: true says that its bytes
    /// were read. Takes no reference; otherwise as [`NetInterface::transmit`], which is to be
    /// called after false.
    #[inline(always)]
    pub fn transmit_lent(&mut self, piece: Piece, header: &NetHeader) -> bool {
        if piece.len <= self.short_frame_max
            && let Some(descriptor) = self.driver.describe(&mut self.arena, piece, header)
            && self.device.transmit_directly(&mut self.nic, descriptor, *header)
        {
            self.driver.sent_directly(piece);
            return true;
        }
        cold_path();
        false
    }

    #[inline(never)]
    fn transmit_queued(
        &mut self,
        pieces: &[Piece],
        header: &NetHeader,
    ) -> Result<(), TransmitError> {
        match self.driver.transmit(&mut self.arena, pieces, header) {
            Ok(_) => {}
            Err(TransmitError::RingFull) => self.transmit_again(pieces, header)?,
            Err(error) => return Err(error),
        }
        if let [piece] = pieces
            && piece.len <= self.inline_frame_max
        {
            let _: Notify = self.device.transmit(&mut self.nic);
            self.driver.reap(&mut self.arena);
        }
        Ok(())
    }

    /// Frames of one piece for which the queue has room.
    #[must_use]
    pub fn transmit_room(&self) -> usize {
        usize::from(self.driver.transmit_room())
    }

    /// Sends frames of one piece each, all with the same header, as [`NetInterface::transmit`]
    /// does; to be called with at most [`NetInterface::transmit_room`] of them. Returns how many
    /// were taken; the one behind them never will be.
    #[inline(never)]
    pub fn transmit_burst(&mut self, pieces: &[Piece], header: &NetHeader) -> usize {
        let mut by_value = self.device.takes_burst();
        let mut taken = 0;
        for piece in pieces {
            let frame = self.driver.take_frame(&mut self.arena, *piece, header);
            let Some((head, descriptor)) = frame else { break };
            taken += 1;
            let last = taken == pieces.len();
            let frame = (head, descriptor, header);
            by_value = by_value && self.device.transmit_later(&mut self.nic, frame, last);
            if !by_value {
                let _: Notify = self.driver.queue_frame(head, descriptor);
            }
        }
        let _: Notify = self.device.end_burst(&mut self.nic);
        taken
    }

    /// Makes room on the queue, then tries once more.
    #[cold]
    fn transmit_again(
        &mut self,
        pieces: &[Piece],
        header: &NetHeader,
    ) -> Result<(), TransmitError> {
        let _: Notify = self.device.transmit(&mut self.nic);
        let _ended = self.reap();
        self.driver.transmit(&mut self.arena, pieces, header).map(|_| ())
    }

    /// Whether frames wait because the NIC was full: reap, and ring the doorbell again.
    #[must_use]
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.device.has_backlog()
    }

    /// Posts what waits and makes it visible to the wire. The last of it is signalled.
    #[inline]
    pub fn doorbell(&mut self) {
        if self.driver.in_flight().0 != 0 {
            cold_path();
            self.post_queued();
        }
        self.nic.doorbell();
    }

    #[inline(never)]
    fn post_queued(&mut self) {
        let _: Notify = self.device.transmit(&mut self.nic);
    }

    /// Takes send completions and releases the slots of what was sent, in error or not. Says
    /// whether sends of the application's own buffers have ended ([`Arena::take_ended`]).
    #[inline]
    pub fn reap(&mut self) -> bool {
        if self.driver.in_flight().0 == 0 {
            return false;
        }
        cold_path();
        self.reap_queued();
        self.arena.has_ended()
    }

    #[inline(never)]
    fn reap_queued(&mut self) {
        if self.device.has_sends() {
            let (driver, arena) = (&mut self.driver, &mut self.arena);
            self.device.reap_directly(&mut self.nic, |head| driver.take_back(arena, head));
        }
        self.driver.reap(&mut self.arena);
    }

    /// Whether [`NetInterface::receive`] has something to look at.
    #[must_use]
    #[inline]
    pub fn recv_ready(&self) -> bool {
        self.nic.recv_ready() || self.has_returned
    }

    /// The next received frame, of which the caller owns one reference of each piece. On `false`
    /// nothing more is there now and `frame` is meaningless.
    #[inline]
    pub fn receive(&mut self, frame: &mut Received) -> bool {
        if self.has_returned {
            return self.look_at_returned(frame);
        }
        let lent = match self.look_for_plain() {
            Looked::Plain(lent) => lent,
            Looked::Nothing => return false,
            Looked::Other => match self.look_further(frame) {
                Arrived::Lent(lent) => lent,
                Arrived::Frame => return true,
                Arrived::Nothing => return false,
            },
        };
        self.keep(lent, frame);
        true
    }

    /// Whether received frames lie on the queue, so that the next one is not lent.
    #[must_use]
    #[inline]
    pub fn has_returned(&self) -> bool {
        self.has_returned
    }

    /// A message that the NIC let go of.
    #[inline(never)]
    fn receive_taken(&mut self, taken: (u64, u32), frame: &mut Received) -> bool {
        match self.device.receive_taken(taken, &mut frame.header) {
            Some(used) => self.driver.received_one(&mut self.arena, frame, used),
            None => self.receive_batch(frame),
        }
    }

    #[inline(never)]
    fn receive_batch(&mut self, frame: &mut Received) -> bool {
        // The short look at the NIC may have returned frames through the queue.
        self.has_returned = self.driver.has_received();
        if self.has_returned {
            return self.receive_queued(frame);
        }
        if !self.nic.recv_ready() {
            return false;
        }
        match self.device.receive_directly(&mut self.nic, &mut frame.header) {
            ReceivedDirectly::One(used) => {
                self.driver.received_directly(&mut self.arena, frame, used)
            }
            ReceivedDirectly::Span(parts) => {
                self.driver.received_span(&mut self.arena, frame, parts)
            }
            ReceivedDirectly::Queued => self.receive_queued(frame),
        }
    }

    #[inline(never)]
    fn receive_queued(&mut self, frame: &mut Received) -> bool {
        let received = self.driver.receive(&mut self.arena, frame);
        self.has_returned = self.driver.has_received();
        received
    }

    /// Posts free receive slots, in batches: after the doorbell, it is nobody's wait.
    #[inline]
    pub fn refill(&mut self) {
        if self.nic_lacks_receives || self.driver.wants_refill(&self.arena) {
            cold_path();
            self.refill_now();
        }
    }

    #[inline(never)]
    fn refill_now(&mut self) {
        if self.layout.slots == 1 && !self.nic_lacks_receives {
            self.refill_directly();
        }
        if self.nic_lacks_receives || self.layout.slots != 1 {
            self.refill_queued();
        }
    }

    /// Buffers by value, until enough are posted or the NIC takes no more.
    #[inline(always)]
    fn refill_directly(&mut self) {
        let first = (self.arena.receive_region().addr, self.arena.receive_len());
        while self.driver.lacks_buffers(&self.arena) {
            let mut refused = ArrayVec::<u16, POSTS_MAX>::new();
            let Some(mut staging) = self.device.stage(first) else {
                self.nic_lacks_receives = true;
                return;
            };
            let count = self.driver.take_buffers(&mut self.arena, BATCH, |head, addr| {
                if !staging.add(head, addr) {
                    cold_path();
                    keep(&mut refused, head);
                }
            });
            let staged = staging.end();
            let taken = self.device.post_staged(&mut self.nic, staged);
            if taken < usize::from(count) {
                self.queue_refused(refused, taken..staged.count);
                return;
            }
        }
    }

    /// What the device or the NIC did not take by value waits on the queue.
    #[cold]
    fn queue_refused(&mut self, mut refused: ArrayVec<u16, POSTS_MAX>, late: Range<usize>) {
        refused.extend(late.map(|number| self.device.staged_head(number)));
        self.driver.queue_buffers(&self.arena, &refused);
        self.nic_lacks_receives = true;
    }

    #[inline(never)]
    fn refill_queued(&mut self) {
        let _: Notify = self.driver.refill(&mut self.arena);
        let _: Notify = self.device.post_receives(&mut self.nic);
        let (_, chains) = self.driver.in_flight();
        let (_, with_nic) = self.device.in_flight();
        self.nic_lacks_receives = with_nic < u32::from(chains);
        // Chains that the device refused come back at once.
        self.has_returned = self.driver.has_received();
    }

    /// Takes a memfd of the application's own to be sent from, in blocks of so many bytes: maps,
    /// seals and registers all of it. It is given up again when all blocks were dropped and their
    /// sends have ended.
    ///
    /// # Errors
    /// If it is no memfd, there is no room for it, or the NIC or the kernel refuses.
    pub fn register(
        &mut self,
        memfd: OwnedFd,
        block: usize,
    ) -> Result<Vec<BufferMut>, InterfaceError> {
        let mapping = Mapping::adopt(memfd)?;
        self.arena.may_adopt(mapping.len(), block)?;
        let view = RegionView {
            addr: mapping.addr(),
            length: mapping.len() as u64,
            memfd: Some((mapping.memfd(0).as_raw_fd(), 0)),
            writable: false,
        };
        register(&mut self.nic, self.device.regions_mut(), view)?;
        Ok(self.arena.adopt(mapping, block)?)
    }

    /// Takes memory of which no block is out any more away from the NIC.
    #[cold]
    pub fn give_up_unused(&mut self) {
        while let Some(mapping) = self.arena.take_unused() {
            if let Some(region) = self.device.regions_mut().remove(mapping.addr()) {
                self.nic.deregister(region.lkey);
            }
        }
    }

    /// The slots.
    #[must_use]
    #[inline]
    pub fn memory(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// The slots, to be read.
    #[must_use]
    #[inline]
    pub fn memory_ref(&self) -> &Arena {
        &self.arena
    }

    /// The NIC.
    #[must_use]
    pub fn nic(&self) -> &N {
        &self.nic
    }

    /// The NIC, to arm, to disarm and to maintain it.
    #[must_use]
    pub fn nic_mut(&mut self) -> &mut N {
        &mut self.nic
    }

    /// The counters of both halves.
    #[must_use]
    pub fn counters(&self) -> (DriverCounters, DeviceCounters) {
        (self.driver.counters_with(self.again), self.device.counters_with(self.again))
    }

    /// Frames that the driver has on the transmit queue.
    #[must_use]
    pub fn transmit_in_flight(&self) -> u16 {
        self.driver.in_flight().0
    }

    /// Work requests that the NIC has not completed: sends, receives.
    #[must_use]
    pub fn work_in_flight(&self) -> (u32, u32) {
        self.device.in_flight()
    }
}

#[cold]
fn keep(refused: &mut ArrayVec<u16, POSTS_MAX>, head: u16) {
    refused.push(head);
}
