//! The short way of plain frames, both halves being in one thread: the descriptor and the header
//! that lies in it are handed over by value, and what is complete is, too.
//!
//! The checks are those of the long way, and whatever does not pass them is left to it, which
//! counts it.

use std::hint::cold_path;

use super::{Context, Step, TransmitSide};
use crate::counters::DeviceCounters;
use crate::memory::region::{Near, RegionTable, Segment};
use crate::nic::{Nic, SendWr, Wire};
use crate::virtio::device::offload::{bare_checksum, native_checksum};
use crate::virtio::device::{FRAME_LEN_MIN, Setup};
use crate::virtio::layout::Descriptor;
use crate::virtio::net_header::{GSO_NONE, NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{Notify, Policy};

impl<P: Policy> TransmitSide<P> {
    /// A plain descriptor handed over by value, with the header that lies in it, while nothing else
    /// is on the queue. True if the device is done with it; false if it must come through the
    /// queue, untouched.
    #[inline(always)]
    pub(in crate::virtio::device) fn send_directly<N: Nic>(
        &mut self,
        nic: &mut N,
        (setup, regions): (&Setup, &RegionTable),
        descriptor: Descriptor,
        header: NetHeader,
    ) -> bool {
        let Descriptor { addr, len, .. } = descriptor;
        if len < NET_HEADER_LEN + FRAME_LEN_MIN || self.unsignalled != 0 {
            cold_path();
            return false;
        }
        let Some(segment) = regions.find_near(&mut self.near, addr, len) else {
            cold_path();
            return false;
        };
        // A message that asks for nothing needs no native checksum.
        let passes = setup.passes_out || (setup.wire == Wire::VirtioNet && header.flags == 0);
        let plain = passes && header.gso_type == GSO_NONE && header.check(len - NET_HEADER_LEN);
        if !(plain && nic.post_send_short(segment)) {
            cold_path();
            if !self.send_inline(nic, (setup, regions), descriptor, &header) {
                return false;
            }
        }
        self.direct += 1;
        true
    }

    /// Whether frames may be handed over by value to be read later: none waits on the queue.
    pub(in crate::virtio::device) fn takes_burst(&mut self) -> bool {
        !self.backlog && !self.broken && self.ring.waiting() == Ok(0)
    }

    /// A plain frame that is read later, handed over by value with its head, while nothing waits on
    /// the queue; `last` if nothing follows for now. False: it must come through the queue, as all
    /// behind it must.
    #[inline(always)]
    pub(in crate::virtio::device) fn send_later<N: Nic>(
        &mut self,
        nic: &mut N,
        (setup, regions, counters): (&Setup, &RegionTable, &mut DeviceCounters),
        (head, descriptor, header): (u16, Descriptor, &NetHeader),
        last: bool,
    ) -> bool {
        let Descriptor { addr, len, .. } = descriptor;
        if head >= self.ring.size() || len < NET_HEADER_LEN + FRAME_LEN_MIN {
            cold_path();
            return false;
        }
        let Some(segment) = regions.find_near(&mut self.near, addr, len) else { return false };
        let mut context = Context { nic, setup, regions, counters };
        let step = self.send_plain(&mut context, (head, segment), header, last);
        step == Some(Step::Taken)
    }

    /// A burst is over, perhaps before its last frame, which was to be signalled; what of it was
    /// done with at once may be seen by the driver.
    pub(in crate::virtio::device) fn end_burst<N: Nic>(&mut self, nic: &mut N) -> Notify {
        if self.unsignalled != 0 {
            self.signal_last(nic);
        }
        self.ring.publish()
    }

    /// Takes completions, whose chains are handed over by value.
    #[inline(always)]
    pub(in crate::virtio::device) fn reap_directly<N: Nic>(
        &mut self,
        nic: &mut N,
        counters: &mut DeviceCounters,
        mut each: impl FnMut(u16),
    ) {
        self.reap_each(nic, counters, |_, head| each(head));
    }

    /// The region table may change.
    pub(in crate::virtio::device) fn forget_region(&mut self) {
        self.near = Near::default();
    }

    /// An inline send of one element, in a frame's short way if the NIC has one. Whatever it is
    /// that is refused: the queue's way handles and counts it.
    #[inline(never)]
    fn send_inline<N: Nic>(
        &mut self,
        nic: &mut N,
        (setup, regions): (&Setup, &RegionTable),
        descriptor: Descriptor,
        header: &NetHeader,
    ) -> bool {
        let Descriptor { addr, len, .. } = descriptor;
        let Some(segment) = regions.find_near(&mut self.near, addr, len) else { return false };
        let frame = segment.skip(NET_HEADER_LEN);
        if setup.wire == Wire::Frames
            && let Some(checksum) = bare_checksum(setup, header, frame)
            && nic.post_bare_short(frame.sge(), checksum)
        {
            return true;
        }
        self.send_any(nic, setup, segment, header)
    }

    /// The same by an ordinary send.
    #[cold]
    fn send_any<N: Nic>(
        &mut self,
        nic: &mut N,
        setup: &Setup,
        segment: Segment,
        header: &NetHeader,
    ) -> bool {
        let frame = segment.skip(NET_HEADER_LEN);
        let Some(offload) = native_checksum(setup, header, &[frame], frame.length()) else {
            return false;
        };
        let message = segment.skip(setup.in_front);
        let wr_id = u64::from(self.next);
        let sges = [message.sge()];
        let wr = SendWr { wr_id, sges: &sges, signalled: false, inline: true, offload };
        message.length() <= setup.max_inline && nic.post_send(&wr).is_ok()
    }

    /// The counters with the chains that were handed over by value: each one inline work request.
    pub(in crate::virtio::device) fn count_direct(
        &self,
        mut counters: DeviceCounters,
    ) -> DeviceCounters {
        counters.tx_chains += self.direct;
        counters.tx_posted += self.direct;
        counters.tx_inline += self.direct;
        counters.tx_completed += self.direct;
        counters
    }
}
