//! The short way of one message in one buffer, both halves being in one thread: what would go
//! through the rings goes by value.
//!
//! The checks are those of the long way. Whatever is not the usual case is left to it, or handed to
//! it, before anything was changed.

use std::hint::cold_path;

use super::deliver::{Checked, check_received, finish_checksum};
use super::{COMPLETIONS, ReceiveSide, SPAN_MAX};
use crate::counters::DeviceCounters;
use crate::memory::region::{Near, Segment};
use crate::nic::{BareFrame, Completion, Nic, WcChecksum, WcStatus, Wire};
use crate::virtio::device::{FRAME_LEN_MIN, NO_COMPLETION, Setup};
use crate::virtio::features::Features;
use crate::virtio::low_word;
use crate::virtio::net_header::{DATA_VALID, GSO_NONE, NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{Notify, Policy, UsedElement};

/// What a longer look at the NIC brought.
#[derive(Debug)]
pub(in crate::virtio) enum ReceivedDirectly<'a> {
    /// A message in one buffer, with its header in it.
    One(UsedElement),
    /// A message in several buffers, each with its head and its bytes; its header was put out.
    Span(&'a [Completion]),
    /// What there is lies on the queue.
    Queued,
}

impl<P: Policy> ReceiveSide<P> {
    /// As [`ReceiveSide::poll`], but a single whole message is handed over by value.
    #[inline]
    pub(in crate::virtio::device) fn poll_directly<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        counters: &mut DeviceCounters,
        header: &mut NetHeader,
    ) -> ReceivedDirectly<'_> {
        let n = nic.poll_recv(&mut self.completions[..]).min(COMPLETIONS);
        let mut done = 0;
        if n == 1 {
            if let Some((head, len)) = self.take_whole(setup, counters, self.completions[0]) {
                return ReceivedDirectly::One(UsedElement { id: u32::from(head), len });
            }
        } else if self.take_span(setup, counters, n, header) {
            return ReceivedDirectly::Span(&self.completions[..n]);
        } else {
            while done < n
                && let Some((head, len)) = self.take_whole(setup, counters, self.completions[done])
            {
                self.ring.push_used(head, len);
                done += 1;
            }
        }
        for i in done..n {
            let completion = self.completions[i];
            if !self.take_part(setup, counters, completion) {
                self.collect(setup, counters, completion);
            }
        }
        let _: Notify = self.ring.publish();
        ReceivedDirectly::Queued
    }

    /// Whether these completions are one whole message that spans single buffers, which is done
    /// with then: its header by value. Otherwise nothing was changed.
    #[inline(always)]
    fn take_span(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        n: usize,
        header: &mut NetHeader,
    ) -> bool {
        let Some((last, _)) = self.completions[..n].split_last() else { return false };
        if !setup.may_span || self.midway || last.more || n > SPAN_MAX {
            return false;
        }
        let mut total = 0;
        for (left, part) in (0..n).rev().zip(&self.completions[..n]) {
            let room = self.rooms.get(usize::try_from(part.wr_id).unwrap_or(usize::MAX));
            let fits = room.is_some_and(|room| (1..=room.length()).contains(&part.byte_len));
            if !fits || part.status != WcStatus::Success || part.more != (left > 0) {
                return false;
            }
            total += part.byte_len;
        }
        if !self.take_header(setup, total, header) {
            return false;
        }
        header.num_buffers = u16::try_from(n).unwrap_or(0);
        for part in &self.completions[..n] {
            let head = usize::try_from(part.wr_id).unwrap_or(usize::MAX);
            if let Some(room) = self.rooms.get_mut(head) {
                *room = Segment::EMPTY;
            }
        }
        self.outstanding -= u32::try_from(n).unwrap_or(0);
        counters.rx_messages += 1;
        counters.rx_passed += 1;
        true
    }

    /// Reads the header of a message whose first part is the first completion; false if the driver
    /// may not see it as it is, or the message is too short to have one.
    #[inline(always)]
    fn take_header(&self, setup: &Setup, total: u32, header: &mut NetHeader) -> bool {
        let Completion { wr_id, byte_len, .. } = self.completions[0];
        let room = self.rooms.get(usize::try_from(wr_id).unwrap_or(usize::MAX));
        let Some(first) = room.map(|room| room.take(byte_len)) else { return false };
        let long_enough = total >= NET_HEADER_LEN + FRAME_LEN_MIN && byte_len >= NET_HEADER_LEN;
        if !long_enough || !first.read_all(header.as_bytes_mut()) {
            cold_path();
            return false;
        }
        check_received(setup, header, total) == Checked::Good
    }

    /// Looks at a message that the NIC lends; see [`super::super::NetDevice::lend`]. It may be lent
    /// if it is not coalesced; a partial checksum is for the driver, who looks whether it lies
    /// inside.
    #[inline(always)]
    pub(in crate::virtio::device) fn lend(
        &mut self,
        (wr_id, byte_len): (u64, u32),
    ) -> Option<(UsedElement, NetHeader)> {
        let first = self.rooms.get(usize::try_from(wr_id).ok()?)?;
        let fits = byte_len >= NET_HEADER_LEN + FRAME_LEN_MIN && byte_len <= first.length();
        if !self.may_pass || !fits {
            return None;
        }
        let mut header = NetHeader::RECEIVED;
        first.read_all(header.as_bytes_mut());
        Some((UsedElement { id: low_word(wr_id), len: byte_len }, header))
    }

    /// Takes a message that the NIC let go of, if it needs no more than a look at its header.
    /// Anything else goes the queue's way.
    #[inline(always)]
    pub(in crate::virtio::device) fn receive_taken(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        taken: (u64, u32),
        header: &mut NetHeader,
    ) -> Option<UsedElement> {
        let used = self.take_one(setup, counters, taken, header);
        if used.is_some() {
            return used;
        }
        cold_path();
        self.take_other(setup, counters, taken, header)
    }

    /// The buffer of a head; no bytes if it is not posted.
    #[inline]
    pub(in crate::virtio::device) fn room(&self, head: u32) -> Segment {
        self.rooms.get(head as usize).copied().unwrap_or(Segment::EMPTY)
    }

    /// A buffer that was lent, and that the NIC has no more, is the driver's again.
    #[inline(always)]
    pub(in crate::virtio::device) fn let_go(&mut self, head: u16) {
        if let Some(room) = self.rooms.get_mut(usize::from(head)) {
            *room = Segment::EMPTY;
            self.outstanding -= 1;
        }
        self.direct += 1;
    }

    /// As [`ReceiveSide::take_whole`], for a message that is one buffer: its header by value.
    #[inline(always)]
    fn take_one(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        (wr_id, byte_len): (u64, u32),
        header: &mut NetHeader,
    ) -> Option<UsedElement> {
        let room = self.rooms.get_mut(usize::try_from(wr_id).ok()?)?;
        let first = *room;
        // What has no header in it, does not fit or needs work is for the queue's way.
        let fits = byte_len >= NET_HEADER_LEN + FRAME_LEN_MIN && byte_len <= first.length();
        if !self.may_pass || !fits {
            cold_path();
            return None;
        }
        first.read_all(header.as_bytes_mut());
        *room = Segment::EMPTY;
        self.outstanding -= 1;
        let mut len = byte_len;
        // A partial checksum is for the driver, who looks whether it lies inside.
        if header.gso_type == GSO_NONE {
            self.direct += 1;
        } else if !check_one(setup, counters, first.take(len), header) {
            len = 0;
        }
        Some(UsedElement { id: low_word(wr_id), len })
    }

    /// Looks at a frame that the NIC lends without a header, or with one that asks for nothing: the
    /// header that the driver may see, whatever was negotiated. `None` if it is not for one buffer.
    #[inline(always)]
    pub(in crate::virtio::device) fn lend_bare(
        &self,
        setup: &Setup,
        frame: &BareFrame,
    ) -> Option<(UsedElement, NetHeader)> {
        let &BareFrame { wr_id, byte_len, verified } = frame;
        let room = self.rooms.get(usize::try_from(wr_id).ok()?)?;
        let len = byte_len.saturating_add(setup.in_front);
        let fits = len >= NET_HEADER_LEN + FRAME_LEN_MIN && len <= room.length();
        if !fits || self.midway {
            return None;
        }
        let mut header = NetHeader::RECEIVED;
        if setup.wire == Wire::VirtioNet {
            room.read_all(header.as_bytes_mut());
            if header.flags != 0 || header.gso_type != GSO_NONE {
                return None;
            }
        } else if verified && setup.features.has(Features::GUEST_CSUM) {
            header.flags = DATA_VALID;
        }
        Some((UsedElement { id: low_word(wr_id), len }, header))
    }

    /// Such a frame that the NIC let go of goes the queue's way.
    #[cold]
    pub(in crate::virtio::device) fn collect_bare(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        frame: BareFrame,
    ) {
        let BareFrame { wr_id, byte_len, verified } = frame;
        let checksum = if verified { WcChecksum::Valid } else { WcChecksum::Unknown };
        let completion = Completion { wr_id, byte_len, checksum, ..NO_COMPLETION };
        self.collect(setup, counters, completion);
        let _: Notify = self.ring.publish();
    }

    /// What [`ReceiveSide::take_one`] is not for but is a whole frame in one buffer that needs no
    /// work: one without a header, or one whose header asks for nothing. Anything else goes the
    /// queue's way.
    #[inline(never)]
    fn take_other(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        (wr_id, byte_len): (u64, u32),
        header: &mut NetHeader,
    ) -> Option<UsedElement> {
        let room = usize::try_from(wr_id).ok().and_then(|head| self.rooms.get_mut(head));
        let len = byte_len.saturating_add(setup.in_front);
        let fits = |room: &Segment| len >= NET_HEADER_LEN + FRAME_LEN_MIN && len <= room.length();
        if let Some(room) = room.filter(|room| !self.midway && fits(room)) {
            *header = NetHeader::RECEIVED;
            if setup.wire == Wire::VirtioNet {
                room.read_all(header.as_bytes_mut());
            }
            if header.flags == 0 && header.gso_type == GSO_NONE {
                *room = Segment::EMPTY;
                self.outstanding -= 1;
                self.direct += 1;
                return Some(UsedElement { id: low_word(wr_id), len });
            }
        }
        self.collect_one(setup, counters, (wr_id, byte_len));
        None
    }

    /// The region table may change.
    pub(in crate::virtio::device) fn forget_region(&mut self) {
        self.near = Near::default();
    }

    /// The counters with the messages that were handed over by value.
    pub(in crate::virtio::device) fn count_direct(
        &self,
        mut counters: DeviceCounters,
    ) -> DeviceCounters {
        counters.rx_messages += self.direct;
        counters.rx_passed += self.direct;
        counters
    }

    /// A message that is not whole, or under a head that is not known, goes the queue's way.
    #[cold]
    fn collect_one(
        &mut self,
        setup: &Setup,
        counters: &mut DeviceCounters,
        (wr_id, byte_len): (u64, u32),
    ) {
        self.collect(setup, counters, Completion { wr_id, byte_len, ..NO_COMPLETION });
        let _: Notify = self.ring.publish();
    }
}

/// Makes the header of a whole message that is not simple what the driver may see; false if the
/// message is dropped.
#[inline(never)]
fn check_one(
    setup: &Setup,
    counters: &mut DeviceCounters,
    message: Segment,
    header: &mut NetHeader,
) -> bool {
    counters.rx_messages += 1;
    match check_received(setup, header, message.length()) {
        Checked::Good => {}
        Checked::Unfinished => {
            finish_checksum(&[message], header);
            counters.rx_software_checksums += 1;
        }
        Checked::Bad => {
            counters.rx_drop_header += 1;
            return false;
        }
    }
    counters.rx_passed += 1;
    true
}
