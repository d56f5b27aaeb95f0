//! From receive completions to the receive queue.
//!
//! Invariants: receives complete in posting order, so posted chains are a queue of their own; a
//! chain returns to the driver exactly once; the buffers of one message return together, with
//! their number in the first one's header.

mod deliver;
mod direct;
mod staging;

use arrayvec::ArrayVec;

use self::deliver::{Message, Segments, deliver};
pub(in crate::virtio) use self::direct::ReceivedDirectly;
use self::staging::look_for;
pub(in crate::virtio) use self::staging::{Staged, Staging};
use super::{FRAME_LEN_MIN, NO_COMPLETION, Setup};
use crate::counters::DeviceCounters;
use crate::memory::region::{Near, RegionTable, Segment};
use crate::nic::{Completion, Nic, RecvBatch, RecvPlace, RecvWr, Sge, WcChecksum, WcStatus};
use crate::virtio::chain::{self, CHAIN_MAX, Chain, Direction};
use crate::virtio::checksum;
use crate::virtio::layout::{DESC_WRITE, Descriptor};
use crate::virtio::net_header::NET_HEADER_LEN;
use crate::virtio::ring::{DeviceRing, Notify, Policy};

/// Most buffers that one message spans: 64 KiB in buffers of 4 KiB, and one.
pub(super) const SPAN_MAX: usize = 18;
/// Work requests posted at a time.
pub(in crate::virtio) const BATCH: usize = 32;
/// Completions taken at a time: a message of [`SPAN_MAX`] buffers, and a few more.
const COMPLETIONS: usize = 32;

/// A buffer that holds a part of a message whose end has not come yet.
#[derive(Clone, Copy, Debug)]
struct Part {
    head: u16,
    /// Bytes in it, as the used ring counts them.
    length: u32,
}

/// The receive queue and what is with the NIC.
#[derive(Debug)]
pub(super) struct ReceiveSide<P: Policy> {
    ring: DeviceRing<P>,
    /// By head: the one buffer that the NIC has under it; of several the place of the first,
    /// without bytes; else nothing.
    rooms: Box<[Segment]>,
    /// By head, where chains of several buffers are allowed: those that the NIC has under it.
    chains: Box<[Chain]>,
    outstanding: u32,
    /// The region of the last buffer.
    near: Near,
    /// What is about to be posted.
    places: Box<[RecvPlace; BATCH]>,
    parts: ArrayVec<Part, SPAN_MAX>,
    /// Whether the message under way lost a part and only its end is waited for.
    skipping: bool,
    /// Whether there are parts, or skipping.
    midway: bool,
    /// Whether a whole message with a header for the driver may be handed over by value: not
    /// midway, and the NIC's headers are passed in.
    may_pass: bool,
    passes_in: bool,
    /// Messages that were handed over by value.
    direct: u64,
    completions: Box<[Completion; COMPLETIONS]>,
    broken: bool,
}

impl<P: Policy> ReceiveSide<P> {
    pub(super) fn new(ring: DeviceRing<P>, setup: &Setup) -> Self {
        let size = usize::from(ring.size());
        let chains = if setup.mergeable { 0 } else { size };
        ReceiveSide {
            ring,
            rooms: vec![Segment::EMPTY; size].into_boxed_slice(),
            chains: vec![Chain::new(); chains].into_boxed_slice(),
            outstanding: 0,
            near: Near::default(),
            places: Box::new([RecvPlace::default(); BATCH]),
            parts: ArrayVec::new(),
            skipping: false,
            midway: false,
            may_pass: setup.passes_in,
            passes_in: setup.passes_in,
            direct: 0,
            completions: Box::new([NO_COMPLETION; COMPLETIONS]),
            broken: false,
        }
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    pub(super) fn post<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        regions: &RegionTable,
        counters: &mut DeviceCounters,
    ) -> Notify {
        loop {
            let waiting = match self.ring.waiting() {
                Ok(waiting) if !self.broken => waiting,
                _ => {
                    counters.broken_ring += u64::from(!self.broken);
                    self.broken = true;
                    return Notify::NotNeeded;
                }
            };
            if waiting == 0 {
                break;
            }
            let taken = match self.post_simple(nic, setup, regions, waiting) {
                0 => self.post_chain(nic, setup, regions, counters),
                taken => taken,
            };
            if taken == 0 {
                break;
            }
            self.ring.consume(taken);
        }
        self.ring.publish()
    }

    /// Posts a batch of chains that are one descriptor each, all alike; stops before the first that
    /// is not.
    fn post_simple<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        regions: &RegionTable,
        waiting: u16,
    ) -> u16 {
        let ring = &self.ring;
        let first = ring.descriptor(ring.peek(0));
        let alike = look_for(regions, &mut self.near, (first.addr, first.len));
        let Some(alike) = alike else { return 0 };
        let mut staging = Staging::new(setup, &mut self.rooms, alike, &mut self.places);
        for ahead in 0..waiting {
            let head = ring.peek(ahead);
            let Descriptor { addr, len, flags, .. } = ring.descriptor(head);
            if flags != DESC_WRITE || len != first.len || !staging.add(head, addr) {
                break;
            }
        }
        let staged = staging.end();
        u16::try_from(self.post_staged(nic, staged)).unwrap_or(0)
    }

    /// Prepares to post single buffers, each of the same length and in the same region as `first`,
    /// at most [`BATCH`]; `None` if the NIC cannot have such buffers.
    #[inline(always)]
    pub(in crate::virtio::device) fn stage(
        &mut self,
        (setup, regions): (&Setup, &RegionTable),
        first: (u64, u32),
    ) -> Option<Staging<'_>> {
        let alike = look_for(regions, &mut self.near, first)?;
        Some(Staging::new(setup, &mut self.rooms, alike, &mut self.places))
    }

    /// Posts staged buffers; returns how many the NIC took. The others are as if never staged.
    #[inline(always)]
    pub(in crate::virtio::device) fn post_staged<N: Nic>(
        &mut self,
        nic: &mut N,
        staged: Staged,
    ) -> usize {
        let Staged { count, length, lkey } = staged;
        let places = &self.places[..count.min(BATCH)];
        let batch = RecvBatch { places, length, lkey };
        let posted = if places.is_empty() { 0 } else { nic.post_recv_batch(&batch).unwrap_or(0) };
        let posted = posted.min(places.len());
        for head in posted..count {
            self.clear(self.staged_head(head));
        }
        self.outstanding += u32::try_from(posted).unwrap_or(0);
        posted
    }

    /// The head of the staged buffer with this number.
    pub(in crate::virtio::device) fn staged_head(&self, number: usize) -> u16 {
        let place = self.places.get(number).map_or(u64::MAX, |place| place.wr_id);
        u16::try_from(place).unwrap_or(u16::MAX)
    }

    /// Posts or refuses the chain at the front; returns how many were taken, 0 if the NIC is full.
    fn post_chain<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        regions: &RegionTable,
        counters: &mut DeviceCounters,
    ) -> u16 {
        let head = self.ring.peek(0);
        if usize::from(head) >= self.rooms.len() || !self.buffers(head).is_empty() {
            // No entry of the queue, or one that the NIC has already: it cannot be returned.
            counters.rx_bad_chain += 1;
            return 1;
        }
        let mut chain = Chain::new();
        let walked = chain::walk(&self.ring, regions, head, Direction::Writable, &mut chain);
        let fits = chain.len() <= setup.max_recv_sge && (!setup.mergeable || chain.len() == 1);
        let first = chain.first().copied().unwrap_or(Segment::EMPTY);
        if walked.is_err() || !fits || first.length() < NET_HEADER_LEN + FRAME_LEN_MIN {
            counters.rx_bad_chain += 1;
            self.ring.push_used(head, 0);
            return 1;
        }
        let sges: ArrayVec<Sge, CHAIN_MAX> =
            checksum::from_offset(&chain, setup.in_front).map(Segment::sge).collect();
        match nic.post_recv(&[RecvWr { wr_id: u64::from(head), sges: &sges }]) {
            Ok(1..) => {}
            _ => return 0,
        }
        self.rooms[usize::from(head)] = match self.chains.get_mut(usize::from(head)) {
            Some(place) => {
                *place = chain;
                first.take(0)
            }
            None => first,
        };
        self.outstanding += 1;
        1
    }

    #[inline]
    pub(super) fn poll<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        counters: &mut DeviceCounters,
    ) -> Notify {
        let n = nic.poll_recv(&mut self.completions[..]).min(COMPLETIONS);
        if n == 0 {
            return Notify::NotNeeded;
        }
        for i in 0..n {
            let completion = self.completions[i];
            if let Some(used) = self.take_whole(setup, counters, completion) {
                self.ring.push_used(used.0, used.1);
            } else if !self.take_part(setup, counters, completion) {
                self.collect(setup, counters, completion);
            }
        }
        self.ring.publish()
    }

    /// The short way: a whole message in one buffer. Gives the head and the bytes in it.
    #[inline(always)]
    fn take_whole(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        completion: Completion,
    ) -> Option<(u16, u32)> {
        let head = u16::try_from(completion.wr_id).ok()?;
        let room = self.rooms.get_mut(usize::from(head))?;
        let first = *room;
        let whole = first.length() != 0
            && completion.status == WcStatus::Success
            && !completion.more
            && !self.midway;
        if !whole {
            return None;
        }
        *room = Segment::EMPTY;
        self.outstanding -= 1;
        counters.rx_messages += 1;
        let length = completion.byte_len.saturating_add(setup.in_front);
        let length = if length <= first.length() { length } else { 0 };
        let first = first.take(length);
        let message = Message { first, total: length, buffers: 1 };
        let all = || Segments::from_iter([first]);
        let passed = deliver(setup, counters, message, completion.checksum, all);
        Some((head, if passed { length } else { 0 }))
    }

    /// The other short way: a part of a message that spans single buffers.
    #[inline(always)]
    fn take_part(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        completion: Completion,
    ) -> bool {
        let Ok(head) = u16::try_from(completion.wr_id) else { return false };
        let Some(room) = self.rooms.get(usize::from(head)) else { return false };
        let fits = completion.byte_len <= room.length() && setup.may_span && !self.skipping;
        let part = Part { head, length: completion.byte_len };
        // A buffer that is not out has no length, and is no part even of no bytes.
        if !fits
            || completion.byte_len == 0
            || completion.status != WcStatus::Success
            || self.parts.try_push(part).is_err()
        {
            return false;
        }
        self.outstanding -= 1;
        self.set_midway(true);
        if !completion.more {
            self.finish(setup, counters, completion.checksum);
            self.set_midway(false);
        }
        true
    }

    #[inline]
    fn set_midway(&mut self, midway: bool) {
        self.midway = midway;
        self.may_pass = self.passes_in && !midway;
    }

    /// The buffers that the NIC has under a head.
    fn buffers(&self, head: u16) -> &[Segment] {
        match self.rooms.get(usize::from(head)) {
            Some(room) if room.length() != 0 => std::slice::from_ref(room),
            Some(room) if room.exists() => {
                self.chains.get(usize::from(head)).map_or(&[], |chain| chain.as_slice())
            }
            _ => &[],
        }
    }

    /// The NIC has nothing under this head any more.
    fn clear(&mut self, head: u16) {
        if let Some(room) = self.rooms.get_mut(usize::from(head)) {
            *room = Segment::EMPTY;
        }
    }

    /// One completion of any kind.
    #[inline(never)]
    fn collect(&mut self, setup: &Setup, counters: &mut DeviceCounters, completion: Completion) {
        self.collect_part(setup, counters, completion);
        self.set_midway(self.skipping || !self.parts.is_empty());
    }

    fn collect_part(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        completion: Completion,
    ) {
        let head = u16::try_from(completion.wr_id).unwrap_or(u16::MAX);
        let room_len: u32 = self.buffers(head).iter().map(|s| s.length()).sum();
        if room_len == 0 {
            counters.rx_bad_completion += 1;
            return;
        }
        self.outstanding -= 1;
        if completion.status != WcStatus::Success {
            counters.rx_failed += 1;
            self.clear(head);
            if !self.parts.is_empty() {
                counters.rx_messages += 1;
                self.give_up(counters);
            }
            self.skipping = false;
            self.ring.push_used(head, 0);
            return;
        }
        let in_front = if self.parts.is_empty() { setup.in_front } else { 0 };
        let length = completion.byte_len.saturating_add(in_front);
        let fits = length <= room_len && (setup.may_span || !completion.more);
        let part = Part { head, length };
        if self.skipping || !fits || self.parts.try_push(part).is_err() {
            self.clear(head);
            self.ring.push_used(head, 0);
            if !self.skipping {
                counters.rx_messages += 1;
                self.give_up(counters);
            }
            self.skipping = completion.more;
            return;
        }
        if !completion.more {
            self.finish(setup, counters, completion.checksum);
        }
    }

    /// Drops the parts of a message that will not be whole.
    fn give_up(&mut self, counters: &mut DeviceCounters) {
        counters.rx_drop_span += 1;
        for part in self.parts.take() {
            self.clear(part.head);
            self.ring.push_used(part.head, 0);
        }
    }

    /// The message is whole: passes its buffers on together.
    fn finish(&mut self, setup: &Setup, counters: &mut DeviceCounters, checksum: WcChecksum) {
        counters.rx_messages += 1;
        let total = self.parts.iter().map(|part| part.length).sum();
        let count = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        let first = self.parts.first().and_then(|part| {
            let buffers = self.buffers(part.head);
            buffers.first().map(|buffer| buffer.take(part.length))
        });
        let first = first.unwrap_or(Segment::EMPTY);
        let message = Message { first, total, buffers: count };
        let passed = deliver(setup, counters, message, checksum, || self.segments());
        for part in &self.parts {
            if let Some(room) = self.rooms.get_mut(usize::from(part.head)) {
                *room = Segment::EMPTY;
            }
            self.ring.push_used(part.head, if passed { part.length } else { 0 });
        }
        self.parts.clear();
    }

    /// The bytes of the message whose parts are all there.
    #[cold]
    fn segments(&self) -> Segments {
        let mut segments = Segments::new();
        for part in &self.parts {
            let mut left = part.length;
            for segment in self.buffers(part.head) {
                let used = segment.take(left);
                left -= used.length();
                if used.length() > 0 {
                    segments.push(used);
                }
            }
        }
        segments
    }
}
