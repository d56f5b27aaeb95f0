//! What every backend offers: a NIC with verbs semantics. Work requests in, completions out.
//!
//! The contract, in InfiniBand's words:
//!
//! - Memory is registered as regions before use; every [`Sge`] names its region's [`Lkey`], and a
//!   request that leaves its region fails with [`PostError`] and posts nothing.
//! - A posted buffer belongs to the NIC until its completion. Receives complete in posting
//!   order. Sends complete in posting order; an unsignalled send is complete when a later
//!   signalled one is. A send that fails completes in error, whether signalled or not.
//! - An inline send has read its bytes when `post_send` returns and makes no completion.
//! - Nothing reaches the wire later than the next [`Nic::doorbell`].
//! - Nothing here blocks, and nothing on the data path makes a system call that its wire does not
//!   need.

pub mod any;
pub mod bare;
pub mod fault;
pub mod frames;
mod host;
pub mod packet;
mod places;
mod polled;
pub mod rdma;
pub mod regions;
pub mod rtnl;
pub mod soft;
pub mod spec;
pub mod tap;
mod work_request;

use std::os::fd::RawFd;

use arrayvec::ArrayVec;

pub use self::polled::{BareFrame, PolledOne};
pub use self::work_request::{
    ChecksumRequest, Completion, Lkey, Offload, RecvBatch, RecvPlace, RecvWr, SegmentationKind,
    SegmentationRequest, SendWr, Sge, WcChecksum, WcStatus,
};
use crate::memory::region::Segment;

/// Receives of a [`RecvBatch`] that are posted in one list.
const RECEIVES_AT_A_TIME: usize = 16;

/// What a message consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// An Ethernet frame; offloads travel in the work request and are done by the NIC.
    Frames,
    /// A 12-byte virtio-net header and an Ethernet frame; the header travels with it, so partial
    /// checksums and segment sizes reach the peer (soft, tap, later rc and ud).
    VirtioNet,
}

/// What the owner of a NIC takes of received messages with [`Wire::VirtioNet`]: what else the peer
/// would send whole is cut for it, by whoever can, or dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// Partial checksums.
    pub checksum: bool,
    /// Coalesced TCP over IPv4.
    pub large4: bool,
    /// Coalesced TCP over IPv6.
    pub large6: bool,
    /// Coalesced TCP that was marked by congestion.
    pub ecn: bool,
    /// Coalesced UDP over IPv4.
    pub uso4: bool,
    /// Coalesced UDP over IPv6.
    pub uso6: bool,
}

impl Accepted {
    /// All of it.
    pub const ALL: Accepted =
        Accepted { checksum: true, large4: true, large6: true, ecn: true, uso4: true, uso6: true };

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Accepted) -> Accepted {
        Accepted {
            checksum: self.checksum && other.checksum,
            large4: self.large4 && other.large4,
            large6: self.large6 && other.large6,
            ecn: self.ecn && other.ecn,
            uso4: self.uso4 && other.uso4,
            uso6: self.uso6 && other.uso6,
        }
    }
}

/// How messages meet posted receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receive {
    /// One message, one receive, as verbs have it; a longer message is an error.
    OneMessage,
    /// A message longer than one receive goes on in the next posted ones (completions with
    /// [`Completion::more`]), as mergeable receive buffers do. If too few are posted, none is used
    /// and the message waits or is dropped and counted, as the backend says.
    Spanning,
}

/// What a NIC can do and how much of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// The device as the user wrote it, for messages.
    pub name: String,
    /// Hardware address that the backend prescribes, if any.
    pub mac: Option<[u8; 6]>,
    /// Longest IP packet on the wire, in bytes.
    pub mtu: u16,
    /// What a message is.
    pub wire: Wire,
    /// How messages meet receives.
    pub receive: Receive,
    /// Longest message, virtio-net header included where there is one.
    pub max_message: u32,
    /// Sends that may be outstanding.
    pub max_send_wr: u32,
    /// Receives that may be posted.
    pub max_recv_wr: u32,
    /// Elements of one send.
    pub max_send_sge: u16,
    /// Elements of one receive.
    pub max_recv_sge: u16,
    /// Bytes of an inline send; 0 if there are none.
    pub max_inline: u32,
    /// The NIC, or its peer, completes transmit checksums.
    pub tx_checksum: bool,
    /// The NIC says of received checksums whether they are right, or vouches for partial ones.
    pub rx_checksum: bool,
    /// Segments TCP over IPv4, or passes it whole.
    pub tso4: bool,
    /// Segments TCP over IPv6, or passes it whole.
    pub tso6: bool,
    /// Segments TCP with congestion marks, or passes it whole: CWR on the first segment only.
    pub tso_ecn: bool,
    /// Segments UDP, or passes it whole.
    pub uso: bool,
    /// May deliver coalesced TCP over IPv4.
    pub rx_large4: bool,
    /// May deliver coalesced TCP over IPv6.
    pub rx_large6: bool,
    /// May deliver coalesced TCP with congestion marks.
    pub rx_ecn: bool,
    /// May deliver coalesced UDP over IPv4.
    pub rx_uso4: bool,
    /// May deliver coalesced UDP over IPv6.
    pub rx_uso6: bool,
}

impl Capabilities {
    /// All that may be delivered.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        Accepted {
            checksum: self.rx_checksum,
            large4: self.rx_large4,
            large6: self.rx_large6,
            ecn: self.rx_ecn,
            uso4: self.rx_uso4,
            uso6: self.rx_uso6,
        }
    }
}

/// Why a work request was not posted. Nothing was posted then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PostError {
    /// As many are outstanding as the queue holds; post again after completions.
    #[error("the queue is full")]
    QueueFull,
    /// An lkey names no region of this NIC.
    #[error("an lkey names no registered region")]
    BadLkey,
    /// A range leaves its region.
    #[error("a range leaves its registered region")]
    OutOfBounds,
    /// More elements than [`Capabilities`] allows, or none.
    #[error("too many or no scatter-gather elements")]
    SgeCount,
    /// Longer than [`Capabilities::max_message`] or, inline, than [`Capabilities::max_inline`].
    #[error("the message is too long")]
    TooLong,
    /// There is no link: the frame is lost, as on a cable that is not plugged in.
    #[error("the link is down")]
    LinkDown,
}

/// Something that happened to the NIC itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicEvent {
    /// The link came up: a peer or carrier is there.
    LinkUp,
    /// The link went down; work requests outstanding complete in error.
    LinkDown,
    /// The peer at the other end is gone for good, and with it the state of all its connections.
    PeerGone,
    /// The host with this hardware address is gone for good, and the state of its connections with
    /// it; other hosts on the link are there.
    HostGone([u8; 6]),
    /// The device no longer exists.
    Removed,
}

/// The result of [`Nic::arm`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Armed {
    /// Nothing waits: the event fd becomes readable with the next completion.
    Quiet,
    /// Something is there already; do not sleep.
    Pending,
}

/// A registered region: memory of this process that the NIC may read, and write if `writable`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionView {
    /// First byte.
    pub addr: u64,
    /// Length in bytes.
    pub length: u64,
    /// The memfd that backs it and the place of the region in it, for backends that pass memory.
    pub memfd: Option<(RawFd, u64)>,
    /// Whether receives may land here. A region that is writable is never shown to a peer.
    pub writable: bool,
}

/// A device error at start or in the background: which device, which call, which errno, and what
/// to do about it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{device}: {call}{}{source}{}{remedy}",
    if .call.is_empty() { "" } else { ": " },
    if .remedy.is_empty() { "" } else { "; " }
)]
pub struct DeviceError {
    /// The device as the user named it.
    pub device: String,
    /// The call that failed; empty if none was made.
    pub call: &'static str,
    /// Its errno.
    #[source]
    pub source: std::io::Error,
    /// What the user can do; may be empty.
    pub remedy: String,
}

/// A NIC. One thread owns it.
pub trait Nic {
    /// What it can do; constant once it was opened.
    fn capabilities(&self) -> &Capabilities;

    /// Lets the NIC reach a region.
    ///
    /// # Safety
    /// The region must stay mapped until it is deregistered or the NIC is dropped, and while a
    /// receive that names bytes of it is posted nobody else may touch those bytes.
    ///
    /// # Errors
    /// If the backend cannot register it (memlock limit, too many regions).
    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError>;

    /// Forgets a region, which no work request that has not completed names: from now on its lkey
    /// names nothing. One that is not known is ignored.
    fn deregister(&mut self, lkey: Lkey);

    /// Says what of received messages is taken; once, before the first `maintain`. Without it a NIC
    /// delivers whatever its capabilities name.
    ///
    /// # Errors
    /// If the backend cannot tell those who send.
    fn accept(&mut self, _accepted: Accepted) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Has the NIC receive frames to this group address, besides broadcast, if it does not receive
    /// those to all groups anyway.
    ///
    /// # Errors
    /// If the device makes no rule for it.
    fn join(&mut self, _group: [u8; 6]) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Posts receives in order; returns how many were taken before the first error.
    ///
    /// # Errors
    /// The error of the first request that was not taken, if none was taken.
    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError>;

    /// Posts receives that are alike, in order: [`Nic::post_recv`] without the lists. Returns how
    /// many were taken before the first error.
    ///
    /// # Errors
    /// The error of the first request that was not taken, if none was taken.
    #[inline]
    fn post_recv_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        let mut taken = 0;
        for part in batch.places.chunks(RECEIVES_AT_A_TIME) {
            let sges: ArrayVec<Sge, RECEIVES_AT_A_TIME> = part
                .iter()
                .map(|place| Sge { addr: place.addr, length: batch.length, lkey: batch.lkey })
                .collect();
            let list: ArrayVec<RecvWr<'_>, RECEIVES_AT_A_TIME> = part
                .iter()
                .zip(&sges)
                .map(|(place, sge)| RecvWr { wr_id: place.wr_id, sges: std::slice::from_ref(sge) })
                .collect();
            match self.post_recv(&list) {
                Ok(count) => {
                    taken += count;
                    if count < part.len() {
                        break;
                    }
                }
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Posts one send.
    ///
    /// # Errors
    /// See [`PostError`]; nothing was posted then.
    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError>;

    /// Asks for the completion of the newest send that was posted without a signal: its poster
    /// learnt only then that no other one follows. False if there is none, or this NIC cannot do
    /// that: it is complete with the next signalled one then.
    fn signal_last(&mut self) -> bool {
        false
    }

    /// Longest message that [`Nic::post_send_short`] takes.
    fn short_max(&self) -> u32 {
        self.capabilities().max_inline
    }

    /// Posts an inline send of one element without offloads, if this NIC has a short way for it.
    /// That the bytes lie in a registered region was seen when the segment was found, and is not
    /// looked at again. False says only that nothing was posted: [`Nic::post_send`] is to be called
    /// then.
    #[inline]
    fn post_send_short(&mut self, _segment: Segment) -> bool {
        false
    }

    /// The same with [`Wire::Frames`], with a checksum by the NIC if that is asked for.
    #[inline]
    fn post_bare_short(&mut self, _sge: Sge, _checksum: bool) -> bool {
        false
    }

    /// Makes all posted work visible to the wire.
    fn doorbell(&mut self);

    /// Whether a receive completion is there: one load in the common case.
    fn recv_ready(&self) -> bool;

    /// Takes receive completions, oldest first; returns their number.
    fn poll_recv(&mut self, out: &mut [Completion]) -> usize;

    /// Takes the oldest receive completion, if this NIC has a short way to it.
    #[inline]
    fn poll_recv_one(&mut self) -> PolledOne {
        PolledOne::Unknown
    }

    /// As [`Nic::poll_recv_one`], but the message may be lent ([`PolledOne::Lent`]).
    #[inline]
    fn poll_recv_lent(&mut self) -> PolledOne {
        self.poll_recv_one()
    }

    /// Takes the oldest receive completion after [`PolledOne::Unknown`], if this NIC has a short
    /// way to a message that is not small: `wr_id` and bytes of one as [`PolledOne::Taken`] is.
    #[inline]
    fn poll_recv_long(&mut self) -> Option<(u64, u32)> {
        None
    }

    /// The receive of what was lent is taken: it is not posted any more.
    #[inline]
    fn take_lent(&mut self) {}

    /// The receive of what was lent is posted again, for the same bytes; as the newest or as the
    /// oldest is the NIC's business.
    #[inline]
    fn repost_lent(&mut self) {}

    /// Lends the frame of the oldest receive completion, if this NIC has a short way to it and it
    /// is a whole one; as after [`PolledOne::Lent`], [`Nic::take_lent`] or [`Nic::repost_lent`] is
    /// to follow.
    #[inline]
    fn poll_bare_lent(&mut self) -> Option<BareFrame> {
        None
    }

    /// Takes send completions, oldest first; returns their number.
    fn poll_send(&mut self, out: &mut [Completion]) -> usize;

    /// Asks for an event at the next completion, then looks once more. After
    /// [`Armed::Quiet`] the event fd becomes readable for anything that comes.
    ///
    /// # Errors
    /// If the backend's call fails.
    fn arm(&mut self) -> Result<Armed, DeviceError>;

    /// Ends the wish for events and takes those that came. Called when the worker wakes.
    fn disarm(&mut self);

    /// The fd that becomes readable (level-triggered) after [`Nic::arm`].
    fn event_fd(&self) -> RawFd;

    /// Cold work: connecting, peers that died, requests that took too long. Called about once a
    /// millisecond with the monotonic time in nanoseconds.
    ///
    /// # Errors
    /// If the device is broken for good.
    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError>;

    /// Calls `visit` with the name and value of every counter.
    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64));
}
