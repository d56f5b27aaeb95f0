//! One type for every backend: chosen once by name, dispatched by a match.
//!
//! A match rather than a `dyn` object, so that the calls of the soft link, the fastest one, are
//! inlined into the device; they cost one predictable branch.

use std::hint::cold_path;
use std::os::fd::RawFd;

use super::fault::FaultyNic;
use super::packet::PacketNic;
use super::polled::PolledWords;
use super::rdma::RdmaNic;
use super::rdma::raw::RawNic;
use super::soft::SoftNic;
use super::tap::TapNic;
use super::{
    Accepted, Armed, BareFrame, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent,
    PolledOne, PostError, RecvBatch, RecvWr, RegionView, SendWr, Sge,
};
use crate::memory::region::Segment;

/// Any of the NICs.
#[derive(Debug)]
pub enum AnyNic {
    /// Shared memory between two threads or processes.
    Soft(Box<SoftNic>),
    /// The host kernel behind a TAP interface.
    Tap(Box<TapNic>),
    /// An interface of the host through a packet socket.
    Packet(Box<PacketNic>),
    /// An RDMA NIC through verbs, as a wire between hosts.
    Rdma(Box<RdmaNic>),
    /// An RDMA NIC through verbs, as an Ethernet NIC.
    Raw(Box<RawNic>),
    /// Any of them with faults.
    Faulty(Box<FaultyNic<AnyNic>>),
}

impl From<SoftNic> for AnyNic {
    fn from(nic: SoftNic) -> AnyNic {
        AnyNic::Soft(Box::new(nic))
    }
}

macro_rules! each {
    ($self:ident, $nic:ident => $call:expr) => {
        match $self {
            AnyNic::Soft($nic) => $call,
            AnyNic::Tap($nic) => $call,
            AnyNic::Packet($nic) => $call,
            AnyNic::Rdma($nic) => $call,
            AnyNic::Raw($nic) => $call,
            AnyNic::Faulty($nic) => $call,
        }
    };
}

impl AnyNic {
    /// What the device chose where the user did not say, by name, for people; empty for those that
    /// choose nothing.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            AnyNic::Rdma(nic) => nic.settings().clone(),
            AnyNic::Raw(nic) => nic.settings().clone(),
            AnyNic::Faulty(nic) => nic.inner().settings(),
            AnyNic::Soft(_) | AnyNic::Tap(_) | AnyNic::Packet(_) => Vec::new(),
        }
    }

    /// Buffers of so many bytes that its receives hold, where each keeps several ready for a
    /// message however short that is; 0 for those whose receives are one buffer each.
    #[must_use]
    pub fn receive_buffers(&self, buffer_len: u32) -> u32 {
        match self {
            AnyNic::Rdma(nic) => nic.receive_buffers(buffer_len),
            AnyNic::Faulty(nic) => nic.inner().receive_buffers(buffer_len),
            AnyNic::Soft(_) | AnyNic::Tap(_) | AnyNic::Packet(_) | AnyNic::Raw(_) => 0,
        }
    }
}

/// The calls of the hot path for backends that are not inlined.
impl AnyNic {
    #[cold]
    #[inline(never)]
    fn doorbell_called(&mut self) {
        each!(self, nic => nic.doorbell());
    }

    // Of more than two at the place of the call a table would be made.
    #[inline(never)]
    fn poll_recv_lent_called(&mut self) -> PolledWords {
        match self {
            AnyNic::Raw(nic) => nic.look_for_verified(),
            _ => PolledWords::UNKNOWN,
        }
    }

    #[inline(never)]
    fn repost_lent_called(&mut self) {
        if let AnyNic::Raw(nic) = self {
            nic.repost_lent();
        }
    }

    #[inline(never)]
    fn recv_ready_called(&self) -> bool {
        each!(self, nic => nic.recv_ready())
    }
}

impl Nic for AnyNic {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        each!(self, nic => nic.capabilities())
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        // SAFETY: the caller upholds the same contract.
        each!(self, nic => unsafe { nic.register(region) })
    }

    fn deregister(&mut self, lkey: Lkey) {
        each!(self, nic => nic.deregister(lkey));
    }

    fn accept(&mut self, accepted: Accepted) -> Result<(), DeviceError> {
        each!(self, nic => nic.accept(accepted))
    }

    fn join(&mut self, group: [u8; 6]) -> Result<(), DeviceError> {
        each!(self, nic => nic.join(group))
    }

    #[inline]
    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        each!(self, nic => nic.post_recv(wrs))
    }

    #[inline]
    fn post_recv_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        each!(self, nic => nic.post_recv_batch(batch))
    }

    #[inline]
    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        each!(self, nic => nic.post_send(wr))
    }

    fn signal_last(&mut self) -> bool {
        each!(self, nic => nic.signal_last())
    }

    #[inline(always)]
    fn doorbell(&mut self) {
        match self {
            AnyNic::Soft(nic) => nic.doorbell(),
            AnyNic::Rdma(nic) => nic.doorbell(),
            AnyNic::Raw(nic) => nic.doorbell(),
            other => other.doorbell_called(),
        }
    }

    #[inline(always)]
    fn recv_ready(&self) -> bool {
        match self {
            AnyNic::Soft(nic) => nic.recv_ready(),
            AnyNic::Rdma(nic) => nic.recv_ready(),
            AnyNic::Raw(nic) => nic.recv_ready(),
            other => other.recv_ready_called(),
        }
    }

    fn short_max(&self) -> u32 {
        each!(self, nic => nic.short_max())
    }

    #[inline(always)]
    fn post_send_short(&mut self, segment: Segment) -> bool {
        match self {
            AnyNic::Soft(nic) => nic.post_send_short(segment),
            AnyNic::Rdma(nic) => nic.post_send_short(segment),
            AnyNic::Tap(_) | AnyNic::Packet(_) | AnyNic::Raw(_) | AnyNic::Faulty(_) => {
                cold_path();
                false
            }
        }
    }

    #[inline]
    fn post_bare_short(&mut self, sge: Sge, checksum: bool) -> bool {
        // No match of both, which becomes a table.
        if let AnyNic::Raw(nic) = self {
            return nic.post_bare_short(sge, checksum);
        }
        if let AnyNic::Soft(nic) = self { nic.post_bare_short(sge, checksum) } else { false }
    }

    #[inline(always)]
    fn poll_recv_lent(&mut self) -> PolledOne {
        match self {
            AnyNic::Soft(nic) => nic.poll_recv_lent(),
            AnyNic::Rdma(nic) => nic.look().polled(),
            other => other.poll_recv_lent_called().polled(),
        }
    }

    #[inline(always)]
    fn take_lent(&mut self) {
        match self {
            AnyNic::Soft(nic) => nic.take_lent(),
            AnyNic::Rdma(nic) => nic.take_lent(),
            AnyNic::Raw(nic) => nic.take_lent(),
            AnyNic::Tap(_) | AnyNic::Packet(_) | AnyNic::Faulty(_) => {}
        }
    }

    #[inline(always)]
    fn repost_lent(&mut self) {
        match self {
            AnyNic::Soft(nic) => nic.repost_lent(),
            AnyNic::Rdma(nic) => nic.repost_lent(),
            other => other.repost_lent_called(),
        }
    }

    #[inline]
    fn poll_recv_long(&mut self) -> Option<(u64, u32)> {
        match self {
            AnyNic::Soft(nic) => nic.poll_recv_long(),
            AnyNic::Raw(_)
            | AnyNic::Tap(_)
            | AnyNic::Packet(_)
            | AnyNic::Rdma(_)
            | AnyNic::Faulty(_) => None,
        }
    }

    #[inline]
    fn poll_bare_lent(&mut self) -> Option<BareFrame> {
        match self {
            AnyNic::Raw(nic) => nic.poll_bare_lent(),
            AnyNic::Soft(_)
            | AnyNic::Tap(_)
            | AnyNic::Packet(_)
            | AnyNic::Rdma(_)
            | AnyNic::Faulty(_) => None,
        }
    }

    #[inline]
    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        each!(self, nic => nic.poll_recv(out))
    }

    #[inline]
    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        each!(self, nic => nic.poll_send(out))
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        each!(self, nic => nic.arm())
    }

    fn disarm(&mut self) {
        each!(self, nic => nic.disarm());
    }

    fn event_fd(&self) -> RawFd {
        each!(self, nic => nic.event_fd())
    }

    #[inline]
    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        each!(self, nic => nic.maintain(now_ns))
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        each!(self, nic => nic.visit_counters(visit));
    }
}
