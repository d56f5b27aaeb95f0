//! From the transmit queue to send work requests.
//!
//! Invariants: a chain returns to the driver exactly once, when its last work request is
//! complete; a work request posted without a signal is always followed by one with, or its signal
//! is asked for when none follows; a chain for which the NIC has no room stays on the queue.

mod direct;

use arrayvec::ArrayVec;

use super::offload::{
    finish_checksum, fits_wire, is_negotiated, native_checksum, native_segmentation,
};
use super::{FRAME_LEN_MIN, NO_COMPLETION, SCRATCH_COUNT, SCRATCH_LEN, Setup};
use crate::counters::DeviceCounters;
use crate::memory::region::{Near, RegionTable, Segment};
use crate::nic::{
    ChecksumRequest, Completion, Nic, Offload, PostError, SendWr, Sge, WcStatus, Wire,
};
use crate::virtio::chain::{self, CHAIN_MAX, Chain, Direction};
use crate::virtio::checksum;
use crate::virtio::features::Features;
use crate::virtio::net_header::{GSO_NONE, NEEDS_CSUM, NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{DeviceRing, Notify, Policy};
use crate::virtio::segmentation::{HEADERS_MAX, Plan, SegmentChecksum, cut};

/// Most sends that one device has with its NIC.
const SENDS_MAX: u32 = 4096;
/// A signal at least every so many work requests, and every so many bytes: what was sent is free
/// again, and whoever gave it away told so, only after the next signal. Were a whole window one
/// signal's, the sender would fill it anew while the receiver has nothing, and wait while that
/// takes it.
const SIGNAL_EVERY: u32 = 32;
const SIGNAL_EVERY_BYTES: u32 = 32 << 10;
/// Completions taken at a time.
const BATCH: usize = 16;

const NONE: u16 = u16::MAX;

/// What returns when a work request is complete.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// The chain whose last work request this is, or [`NONE`].
    head: u16,
    /// The place of scratch that it used, or [`NONE`].
    scratch: u16,
}

/// What became of the chain at the front of the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is off the queue.
    Taken,
    /// The NIC has no room; again later.
    Later,
}

/// What became of a work request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Posted {
    /// With the NIC, or done.
    Yes,
    /// The NIC has no room.
    Full,
    /// Refused and counted.
    Refused,
}

/// One work request to post.
struct Request<'a> {
    sges: &'a [Sge],
    length: u32,
    offload: Offload,
    record: Record,
    /// Whether nothing follows for now.
    last: bool,
}

/// Everything of a call that stays the same from chain to chain.
struct Context<'a, N> {
    nic: &'a mut N,
    setup: &'a Setup,
    regions: &'a RegionTable,
    counters: &'a mut DeviceCounters,
}

/// The transmit queue and what is with the NIC.
#[derive(Debug)]
pub(super) struct TransmitSide<P: Policy> {
    ring: DeviceRing<P>,
    /// By sequence number of the work request, modulo the length.
    records: Box<[Record]>,
    /// Sequence number of the next work request and of the oldest one with the NIC.
    next: u32,
    oldest: u32,
    capacity: u32,
    /// Work requests posted since the last signalled one, and their bytes.
    unsignalled: u32,
    unsignalled_bytes: u32,
    signal_every: u32,
    scratch: Option<Segment>,
    scratch_free: Vec<u16>,
    /// First segment not yet posted of the frame at the front, when it is segmented here.
    resume_at: u32,
    chain: Option<Box<Chain>>,
    completions: Box<[Completion; BATCH]>,
    /// The NIC was full when the queue was last looked at.
    backlog: bool,
    /// The region of the last direct descriptor.
    near: Near,
    /// Chains that were handed over by value.
    direct: u64,
    broken: bool,
}

impl<P: Policy> TransmitSide<P> {
    pub(super) fn new(ring: DeviceRing<P>, max_send_wr: u32, scratch: Option<Segment>) -> Self {
        let capacity = max_send_wr.clamp(1, SENDS_MAX);
        let records = vec![Record { head: NONE, scratch: NONE }; SENDS_MAX as usize];
        let places = scratch.map_or(0, |s| (s.length() / SCRATCH_LEN).min(SCRATCH_COUNT));
        TransmitSide {
            ring,
            records: records.into_boxed_slice(),
            next: 0,
            oldest: 0,
            capacity,
            unsignalled: 0,
            unsignalled_bytes: 0,
            signal_every: SIGNAL_EVERY.min(capacity / 2).max(1),
            scratch,
            scratch_free: (0..places).rev().filter_map(|i| u16::try_from(i).ok()).collect(),
            resume_at: 0,
            chain: Some(Box::new(Chain::new())),
            completions: Box::new([NO_COMPLETION; BATCH]),
            backlog: false,
            near: Near::default(),
            direct: 0,
            broken: false,
        }
    }

    /// Whether chains wait on the queue because the NIC was full; completions do not post them.
    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog
    }

    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    #[inline]
    pub(super) fn drain<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        regions: &RegionTable,
        counters: &mut DeviceCounters,
    ) -> Notify {
        let waiting = match self.ring.waiting() {
            Ok(0) => return Notify::NotNeeded,
            Ok(waiting) if !self.broken => waiting,
            _ => {
                counters.broken_ring += u64::from(!self.broken);
                self.broken = true;
                return Notify::NotNeeded;
            }
        };
        let mut context = Context { nic, setup, regions, counters };
        self.backlog = false;
        for done in 1..=waiting {
            let head = self.ring.peek(0);
            match self.send(&mut context, head, done == waiting) {
                Step::Taken => self.ring.consume(1),
                Step::Later => {
                    context.counters.tx_nic_full += 1;
                    self.backlog = true;
                    break;
                }
            }
        }
        if self.unsignalled != 0 {
            self.signal_last(context.nic);
        }
        self.ring.publish()
    }

    /// The last of a batch was refused, or the NIC is full: what was posted before was to be
    /// signalled by it.
    #[cold]
    fn signal_last<N: Nic>(&mut self, nic: &mut N) {
        if nic.signal_last() {
            self.unsignalled = 0;
        }
    }

    /// One chain: the short way for one plain descriptor, the long way for everything else.
    #[inline]
    fn send<N: Nic>(&mut self, context: &mut Context<'_, N>, head: u16, last: bool) -> Step {
        let descriptor = self.ring.descriptor(head);
        if descriptor.flags == 0
            && head < self.ring.size()
            && descriptor.len >= NET_HEADER_LEN + FRAME_LEN_MIN
            && let Some(segment) = context.regions.find(descriptor.addr, descriptor.len)
            && let Some(bytes) = segment.read::<12>()
        {
            let header = NetHeader::decode(&bytes);
            if let Some(step) = self.send_plain(context, (head, segment), &header, last) {
                return step;
            }
        }
        self.send_chain(context, head, last)
    }

    /// A frame in one segment, behind its header; `None` if the NIC cannot do what that asks for.
    #[inline(always)]
    fn send_plain<N: Nic>(
        &mut self,
        context: &mut Context<'_, N>,
        (head, segment): (u16, Segment),
        header: &NetHeader,
        last: bool,
    ) -> Option<Step> {
        let frame_len = segment.length() - NET_HEADER_LEN;
        let frame = [segment.skip(NET_HEADER_LEN)];
        let offload = native_checksum(context.setup, header, &frame, frame_len)?;
        let segment = segment.skip(context.setup.in_front);
        let request = Request {
            sges: &[segment.sge()],
            length: segment.length(),
            offload,
            record: Record { head, scratch: NONE },
            last,
        };
        let posted = self.post(context, &request);
        Some(self.step(context, head, posted))
    }

    /// Settles a chain that is one work request.
    #[inline]
    fn step<N>(&mut self, context: &mut Context<'_, N>, head: u16, posted: Posted) -> Step {
        match posted {
            Posted::Full => return Step::Later,
            Posted::Yes => {}
            Posted::Refused => self.ring.push_used(head, 0),
        }
        context.counters.tx_chains += 1;
        Step::Taken
    }

    /// A chain of any shape, with any header.
    #[inline(never)]
    fn send_chain<N: Nic>(&mut self, context: &mut Context<'_, N>, head: u16, last: bool) -> Step {
        // Taken out and put back, by its pointer: nothing is allocated for a frame.
        let Some(mut chain) = self.chain.take() else { return Step::Later };
        let walked =
            chain::walk(&self.ring, context.regions, head, Direction::Readable, &mut chain);
        let step = match walked {
            Ok(total) => self.send_walked(context, &chain, total, (head, last)),
            Err(_) => {
                context.counters.tx_bad_chain += 1;
                self.refuse(context, head)
            }
        };
        self.chain = Some(chain);
        step
    }

    /// Drops the chain at the front. A head that is no entry of the queue cannot be returned.
    #[cold]
    fn refuse<N>(&mut self, context: &mut Context<'_, N>, head: u16) -> Step {
        if head < self.ring.size() {
            self.ring.push_used(head, 0);
        }
        self.resume_at = 0;
        context.counters.tx_chains += 1;
        Step::Taken
    }

    fn send_walked<N: Nic>(
        &mut self,
        context: &mut Context<'_, N>,
        chain: &[Segment],
        total: u32,
        (head, last): (u16, bool),
    ) -> Step {
        let mut bytes = [0_u8; NET_HEADER_LEN as usize];
        let mut have = 0;
        for segment in chain {
            have += segment.read_into(&mut bytes[have..]);
        }
        let header = NetHeader::decode(&bytes);
        let setup = context.setup;
        let sensible = total >= NET_HEADER_LEN + FRAME_LEN_MIN
            && header.check(total - NET_HEADER_LEN)
            && is_negotiated(setup.features, &header)
            && fits_wire(setup, &header, total - NET_HEADER_LEN);
        if !sensible {
            context.counters.tx_bad_header += 1;
            return self.refuse(context, head);
        }
        let frame: ArrayVec<Segment, CHAIN_MAX> =
            checksum::from_offset(chain, NET_HEADER_LEN).collect();
        let frame_len = total - NET_HEADER_LEN;
        let offload = if header.gso_type != GSO_NONE {
            match native_segmentation(setup, &header, &frame, frame_len) {
                Some(offload) => offload,
                None => return self.segment(context, &header, &frame, (head, frame_len)),
            }
        } else {
            native_checksum(setup, &header, &frame, frame_len).unwrap_or_else(|| {
                finish_checksum(chain, &frame, &header);
                context.counters.tx_software_checksums += 1;
                Offload::default()
            })
        };
        let sges: ArrayVec<Sge, CHAIN_MAX> =
            checksum::from_offset(chain, setup.in_front).map(Segment::sge).collect();
        let record = Record { head, scratch: NONE };
        let length = total - setup.in_front;
        let request = Request { sges: &sges, length, offload, record, last };
        let posted = self.post(context, &request);
        self.step(context, head, posted)
    }

    /// Posts one work request.
    #[inline(always)]
    fn post<N: Nic>(&mut self, context: &mut Context<'_, N>, request: &Request<'_>) -> Posted {
        let counters = &mut *context.counters;
        // Inline only when nothing before it waits for a signal that would then never come.
        let inline = request.length <= context.setup.max_inline
            && self.unsignalled == 0
            && request.record.scratch == NONE;
        if !inline && self.outstanding() >= self.capacity {
            return Posted::Full;
        }
        let signalled = !inline && self.wants_signal(request);
        let wr = SendWr {
            wr_id: u64::from(self.next),
            sges: request.sges,
            signalled,
            inline,
            offload: request.offload,
        };
        match context.nic.post_send(&wr) {
            Ok(()) => {}
            Err(PostError::QueueFull) => return Posted::Full,
            Err(PostError::LinkDown) => {
                counters.tx_link_down += 1;
                return Posted::Refused;
            }
            Err(
                PostError::BadLkey
                | PostError::OutOfBounds
                | PostError::SgeCount
                | PostError::TooLong,
            ) => {
                counters.tx_refused += 1;
                return Posted::Refused;
            }
        }
        counters.tx_posted += 1;
        if inline {
            counters.tx_inline += 1;
            counters.tx_completed += 1;
            self.ring.push_used(request.record.head, 0);
        } else {
            self.records[(self.next % SENDS_MAX) as usize] = request.record;
            self.next = self.next.wrapping_add(1);
            self.unsignalled = if signalled { 0 } else { self.unsignalled + 1 };
            let bytes = self.unsignalled_bytes + request.length;
            self.unsignalled_bytes = if signalled { 0 } else { bytes };
        }
        Posted::Yes
    }

    /// Whether a work request is to be signalled.
    #[inline]
    fn wants_signal(&self, request: &Request<'_>) -> bool {
        request.last
            || self.unsignalled + 1 >= self.signal_every
            || self.unsignalled_bytes + request.length >= SIGNAL_EVERY_BYTES
    }

    /// Segments the frame at the front; goes on where an earlier call had to stop.
    fn segment<N: Nic>(
        &mut self,
        context: &mut Context<'_, N>,
        header: &NetHeader,
        frame: &[Segment],
        (head, frame_len): (u16, u32),
    ) -> Step {
        let plan = match Plan::new(header, frame, frame_len) {
            Ok(plan) if plan.frame_len_max() <= context.setup.frame_max => plan,
            _ => {
                context.counters.tx_bad_header += 1;
                return self.refuse(context, head);
            }
        };
        let count = plan.count();
        if self.resume_at == 0 {
            context.counters.tx_software_segmented += 1;
        }
        // The frame may have been changed meanwhile by a driver that breaks the rules.
        while self.resume_at < count {
            let number = self.resume_at;
            match self.post_segment(context, &plan, frame, (number, head)) {
                Posted::Yes => self.resume_at += 1,
                Posted::Full => return Step::Later,
                Posted::Refused => return self.refuse_rest(context, head),
            }
        }
        self.resume_at = 0;
        context.counters.tx_chains += 1;
        Step::Taken
    }

    /// A segment was refused: the frame ends here. Segments that are with the NIC still read it,
    /// so it returns with the last of them.
    #[cold]
    fn refuse_rest<N>(&mut self, context: &mut Context<'_, N>, head: u16) -> Step {
        if self.resume_at > 0 && self.outstanding() > 0 {
            let newest = self.next.wrapping_sub(1) % SENDS_MAX;
            self.records[newest as usize].head = head;
            self.resume_at = 0;
            context.counters.tx_chains += 1;
            return Step::Taken;
        }
        self.refuse(context, head)
    }

    fn post_segment<N: Nic>(
        &mut self,
        context: &mut Context<'_, N>,
        plan: &Plan,
        frame: &[Segment],
        (number, head): (u32, u16),
    ) -> Posted {
        let setup = context.setup;
        let (Some(scratch), Some(place)) = (self.scratch, self.scratch_free.pop()) else {
            return if self.outstanding() > 0 { Posted::Full } else { Posted::Refused };
        };
        let native =
            setup.native.has(Features::CSUM) && (setup.wire == Wire::VirtioNet || plan.is_plain());
        let kind = if native { SegmentChecksum::Partial } else { SegmentChecksum::Full };
        let mut headers = [0_u8; HEADERS_MAX];
        plan.write_headers(number, frame, kind, &mut headers);
        let room = scratch.skip(u32::from(place) * SCRATCH_LEN).take(SCRATCH_LEN);
        let start = plan.checksum_start();
        let net_header = NetHeader {
            flags: if native { NEEDS_CSUM } else { 0 },
            csum_start: if native { start } else { 0 },
            csum_offset: if native { plan.checksum_offset() } else { 0 },
            ..NetHeader::default()
        };
        room.write(&net_header.encode());
        room.skip(NET_HEADER_LEN).write(&headers);

        let front = NET_HEADER_LEN - setup.in_front;
        let head_len = front + u32::from(plan.header_len());
        let range = plan.payload(number);
        let mut sges: ArrayVec<Sge, CHAIN_MAX> = ArrayVec::new();
        sges.push(room.skip(setup.in_front).take(head_len).sge());
        sges.extend(cut(frame, range).take(CHAIN_MAX - 1).map(Segment::sge));
        let request = ChecksumRequest { start, offset: plan.checksum_offset() };
        let checksum = (native && setup.wire == Wire::Frames).then_some(request);
        let is_last = number + 1 == plan.count();
        let request = Request {
            sges: &sges,
            length: head_len + range.len,
            offload: Offload { checksum, segmentation: None },
            record: Record { head: if is_last { head } else { NONE }, scratch: place },
            last: is_last,
        };
        let posted = self.post(context, &request);
        if posted != Posted::Yes {
            self.scratch_free.push(place);
        }
        posted
    }

    #[inline]
    pub(super) fn reap<N: Nic>(&mut self, nic: &mut N, counters: &mut DeviceCounters) -> Notify {
        if self.outstanding() == 0 {
            return Notify::NotNeeded;
        }
        self.reap_each(nic, counters, |ring, head| ring.push_used(head, 0));
        self.ring.publish()
    }

    /// Takes completions; `each` is called with the head of every chain that has ended.
    #[inline(always)]
    fn reap_each<N: Nic>(
        &mut self,
        nic: &mut N,
        counters: &mut DeviceCounters,
        mut each: impl FnMut(&mut DeviceRing<P>, u16),
    ) {
        loop {
            let n = nic.poll_send(&mut self.completions[..]).min(BATCH);
            for i in 0..n {
                self.complete(self.completions[i], counters, &mut each);
            }
            if n < BATCH {
                return;
            }
        }
    }

    /// Everything up to this work request is complete; itself perhaps in error.
    #[inline(always)]
    fn complete(
        &mut self,
        completion: Completion,
        counters: &mut DeviceCounters,
        each: &mut impl FnMut(&mut DeviceRing<P>, u16),
    ) {
        let Ok(sequence) = u32::try_from(completion.wr_id) else { return };
        let ahead = sequence.wrapping_sub(self.oldest);
        if ahead >= self.outstanding() {
            return;
        }
        for _ in 0..=ahead {
            let record = self.records[(self.oldest % SENDS_MAX) as usize];
            self.oldest = self.oldest.wrapping_add(1);
            if record.scratch != NONE {
                self.scratch_free.push(record.scratch);
            }
            if record.head != NONE {
                each(&mut self.ring, record.head);
            }
        }
        let failed = u64::from(completion.status != WcStatus::Success);
        counters.tx_failed += failed;
        counters.tx_completed += u64::from(ahead) + 1 - failed;
    }
}
