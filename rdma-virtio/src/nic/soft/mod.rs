//! A software RDMA NIC over shared memory, between two threads or two processes.
//!
//! Each side has one link memory that only it writes (`layout`): its ring of send slots and its
//! progress in the peer's ring. It shows it, and the regions that it transmits from, to the other
//! side, which maps them read-only and whose core pulls each message once into its own private
//! posted receives: that copy is the DMA.
//!
//! - `layout`, `shared`: where everything lies, and access to it as atomics.
//! - `sender`, `receiver`, `posted`, `regions`: the data path.
//! - `offload`, `segment`, `bounce`: what hardware does to bare frames (`tso=on`).
//! - `channel`, `greeting`, `session`, `path`: how two sides meet; never on the data path.
//! - `barrier`, `sleep`, `events`: sleeping without losing an event.
//!
//! What this backend does within the contract of [`Nic`]:
//!
//! - Receives stay posted when the link goes down, and take the next peer's messages.
//! - A message for which too few receives are posted waits in the peer's ring. If it waits longer
//!   than the timeout, its sender takes the link down.
//! - When the peer stalls, the oldest send ends with [`super::WcStatus::RetryExceeded`], all behind
//!   it with [`super::WcStatus::Flushed`], as on a reliable connection.
//! - A message of at most 112 bytes is read by `post_send` even if it is not inline; a longer one
//!   must lie in regions that are shown, that is, not writable and backed by a memfd.
//! - Regions that are shown must be registered before the first `maintain`.
//! - While the link is not up, `maintain` must be called now and then even by a sleeper, since a
//!   peer may have to be tried again.

mod barrier;
mod bounce;
mod channel;
mod counters;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod greeting;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "the tests use more of it"))]
mod hostile;
mod layout;
mod link;
mod offload;
mod options;
mod path;
mod posted;
mod receiver;
mod regions;
mod segment;
mod sender;
mod session;
mod shared;
mod sleep;

use std::hint::cold_path;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

pub use counters::SoftCounters;
pub use options::{MESSAGE_MAX, MTU_MIN, SoftOptions, TIMEOUT_NS_MAX, TIMEOUT_NS_MIN};

use crate::memory::region::Segment;
use crate::nic::{
    Accepted, Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PolledOne,
    PostError, RecvBatch, RecvWr, RegionView, SendWr, Sge, Wire,
};
use bounce::Bounce;
use channel::Channel;
use events::Events;
use greeting::Export;
use link::Link;
use path::Meeting;
use receiver::Receiver;
use regions::Regions;
use sender::Sender;
use sleep::Sleep;

/// A software RDMA NIC; see the module's description.
#[derive(Debug)]
pub struct SoftNic {
    sender: Sender,
    receiver: Receiver,
    sleep: Sleep,
    regions: Regions,
    counters: SoftCounters,
    link: Link,
    events: Events,
    bounce: Bounce,
    /// Whether messages are bare frames, so that sends may ask for offloads.
    frames: bool,
    /// What the peer takes whole.
    peer: Accepted,
    /// Whether a message may have to be cut before it is posted.
    looks: bool,
    capabilities: Capabilities,
}

impl SoftNic {
    /// A NIC that meets its peer at a path: whoever comes first listens there, with mode 0600, and
    /// the other one connects. Nothing happens before the first `maintain`.
    ///
    /// # Errors
    /// If an option is out of range, the path is too long for a socket, or descriptors are short.
    pub fn open(path: &Path, options: &SoftOptions) -> Result<SoftNic, DeviceError> {
        let name = format!("soft:{}", path.display());
        SoftNic::new(&name, Meeting::at_path(&name, path)?, options)
    }

    /// Two NICs linked to each other within this process. The link comes up when each has been
    /// maintained a few times.
    ///
    /// # Errors
    /// If an option is out of range or descriptors are short.
    pub fn pair(options: &SoftOptions) -> Result<(SoftNic, SoftNic), DeviceError> {
        let (left, right) = Channel::pair()
            .map_err(|error| device_error("soft:", "socketpair", error, "raise ulimit -n"))?;
        Ok((
            SoftNic::new("soft:left", Meeting::with(left), options)?,
            SoftNic::new("soft:right", Meeting::with(right), options)?,
        ))
    }

    fn new(name: &str, meeting: Meeting, options: &SoftOptions) -> Result<SoftNic, DeviceError> {
        options.check().map_err(|remedy| {
            let source = std::io::Error::from_raw_os_error(libc::EINVAL);
            device_error(name, "open", source, &remedy)
        })?;
        let events = Events::new()
            .map_err(|error| device_error(name, "epoll_create1", error, "raise ulimit -n"))?;
        let capabilities = options.capabilities(name);
        Ok(SoftNic {
            sender: Sender::new(options.slots, capabilities.max_message),
            receiver: Receiver::new(
                capabilities.max_recv_wr,
                options.receive,
                capabilities.max_message,
            ),
            sleep: Sleep::new(),
            regions: Regions::default(),
            counters: SoftCounters::default(),
            link: Link::new(name, meeting, options)?,
            events,
            bounce: Bounce::default(),
            frames: capabilities.wire == Wire::Frames,
            peer: Accepted::ALL,
            looks: capabilities.wire == Wire::Frames,
            capabilities,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> SoftCounters {
        self.sender.count_short(self.receiver.count_short(self.counters))
    }

    /// Work requests whose completion was not polled.
    #[must_use]
    pub fn sends_outstanding(&self) -> u64 {
        self.sender.outstanding()
    }

    /// Whether there is a peer.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.sender.is_up()
    }

    #[inline(never)]
    fn show_progress(&mut self) {
        if self.receiver.publish() {
            self.sleep.on_progress(&mut self.counters, &self.link);
        }
    }

    fn error(&self, call: &'static str, source: std::io::Error, remedy: &str) -> DeviceError {
        device_error(&self.capabilities.name, call, source, remedy)
    }

    /// Keeps the memory of a region that will be shown.
    fn export(&mut self, view: &RegionView, fd: RawFd, start: u64) -> Result<(), DeviceError> {
        // SAFETY: the caller of `register` says that this descriptor backs the region, so it is
        // open now; the copy is made before the borrow ends.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let memfd: OwnedFd = borrowed
            .try_clone_to_owned()
            .map_err(|error| self.error("fcntl(F_DUPFD_CLOEXEC)", error, "raise ulimit -n"))?;
        let file = std::fs::File::from(memfd);
        let file_len = file.metadata().map_err(|error| self.error("fstat", error, ""))?.len();
        self.link.export(file.into(), Export { file_len, start, length: view.length });
        Ok(())
    }
}

fn device_error(
    device: &str,
    call: &'static str,
    source: std::io::Error,
    remedy: &str,
) -> DeviceError {
    DeviceError { device: device.to_owned(), call, source, remedy: remedy.to_owned() }
}

impl Nic for SoftNic {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        if !region.writable && region.memfd.is_some() && self.link.has_told() {
            let busy = std::io::Error::from_raw_os_error(libc::EBUSY);
            let remedy = "register what is sent from before the peer comes";
            return Err(self.error("register", busy, remedy));
        }
        let lkey = self.regions.add(&region, self.link.next_key()).ok_or_else(|| {
            let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
            self.error("register", full, "register fewer regions: 32, of which 8 are shown")
        })?;
        if let (Some((fd, start)), false) = (region.memfd, region.writable) {
            self.export(&region, fd, start)?;
        }
        Ok(lkey)
    }

    /// What the peer was shown it keeps until it goes.
    fn deregister(&mut self, lkey: Lkey) {
        self.regions.remove(lkey);
    }

    fn accept(&mut self, accepted: Accepted) -> Result<(), DeviceError> {
        self.link.accept(accepted);
        Ok(())
    }

    #[inline]
    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for (taken, wr) in wrs.iter().enumerate() {
            if let Err(error) = self.receiver.posted_mut().post(&self.regions, wr) {
                return if taken > 0 { Ok(taken) } else { Err(error) };
            }
        }
        Ok(wrs.len())
    }

    #[inline(never)]
    fn post_recv_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        self.receiver.posted_mut().post_batch(&self.regions, batch)
    }

    #[inline]
    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        if self.looks && !self.is_plain(wr) {
            return self.post_looked(wr);
        }
        self.sender.post(&self.regions, wr, &mut self.counters)
    }

    #[inline(always)]
    fn post_send_short(&mut self, segment: Segment) -> bool {
        self.sender.post_short((segment.addr(), segment.length()), &mut self.counters)
    }

    #[inline]
    fn post_bare_short(&mut self, sge: Sge, checksum: bool) -> bool {
        self.frames && !checksum && self.sender.post_one(&self.regions, &sge, &mut self.counters)
    }

    fn signal_last(&mut self) -> bool {
        self.sender.signal_last()
    }

    #[inline]
    fn doorbell(&mut self) {
        self.sleep.on_posted(&mut self.counters, &self.link);
    }

    #[inline]
    fn recv_ready(&self) -> bool {
        self.receiver.ready()
    }

    #[inline]
    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let (count, progress) = self.receiver.poll(out, &mut self.counters);
        if progress {
            self.sleep.on_progress(&mut self.counters, &self.link);
        }
        count
    }

    #[inline]
    fn poll_recv_one(&mut self) -> PolledOne {
        match self.poll_recv_lent() {
            PolledOne::Lent { wr_id, byte_len } => {
                self.take_lent();
                PolledOne::Taken { wr_id, byte_len }
            }
            other => other,
        }
    }

    #[inline(always)]
    fn poll_recv_lent(&mut self) -> PolledOne {
        let found = self.receiver.poll_lent(&mut self.counters);
        if matches!(found, PolledOne::Lent { .. }) && self.receiver.owes_progress() {
            cold_path();
            self.show_progress();
        }
        found
    }

    #[inline]
    fn poll_recv_long(&mut self) -> Option<(u64, u32)> {
        let found = self.receiver.poll_long(&mut self.counters);
        if found.is_some() && self.receiver.owes_progress() {
            self.show_progress();
        }
        found
    }

    #[inline(always)]
    fn take_lent(&mut self) {
        self.receiver.posted_mut().take_filled(1);
    }

    #[inline(always)]
    fn repost_lent(&mut self) {
        self.receiver.posted_mut().post_again();
    }

    #[inline]
    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        self.sender.poll(out, &mut self.counters)
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        if self.receiver.publish() {
            self.sleep.on_progress(&mut self.counters, &self.link);
        }
        self.counters.arms += 1;
        if self.link.has_news() {
            self.counters.arms_pending += 1;
            return Ok(Armed::Pending);
        }
        self.sleep
            .arm(self.sender.wants_progress())
            .map_err(|error| self.error("membarrier", error, ""))?;
        if self.receiver.ready() || self.sender.has_news() {
            self.sleep.disarm();
            self.counters.arms_pending += 1;
            return Ok(Armed::Pending);
        }
        Ok(Armed::Quiet)
    }

    fn disarm(&mut self) {
        self.sleep.disarm();
        self.read_words();
    }

    fn event_fd(&self) -> RawFd {
        self.events.fd()
    }

    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        self.keep_up(now_ns)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        self.counters().visit(visit);
    }
}

#[cfg(test)]
mod tests;
