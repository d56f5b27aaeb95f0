//! `rdma:DEV,mode=raw`: an RDMA NIC as a plain Ethernet NIC, over a RAW_PACKET queue pair.
//!
//! The process is a host of its own: it has a hardware address and IP addresses beside those of the
//! kernel on the same port, and reaches every host that the port reaches. Flow rules bring it the
//! frames to its address and copies of broadcast and multicast; everything else stays the kernel's.
//!
//! Nothing is copied either way. Small frames go inline, large TCP segments as one work request
//! that the device cuts, and checksums are the device's, each of them if a trial at the start
//! showed that the device does it (`probe`); else the device half does it in software.
//!
//! A queue pair, a completion queue or a rule that fails takes the link with it, and another is
//! made (`link`): receives and sends come back flushed, and TCP goes on. Opening is in `open`,
//! rules are in `steering`, sending in `sends`, receiving in `arrivals`, events in `events`.

mod arrivals;
mod events;
mod link;
mod open;
pub mod options;
mod probe;
mod sends;
mod steering;
mod tag;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::RawFd;

use self::arrivals::Arrivals;
use self::link::{Base, Link, LinkPlan};
use self::sends::Sends;
use self::steering::Steering;
use super::conversation::Watch;
use super::open::Settings;
use super::options::RdmaOptions;
use crate::nic::polled::PolledWords;
use crate::nic::{
    Armed, BareFrame, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PolledOne,
    PostError, RecvBatch, RecvWr, RegionView, SendWr, Sge,
};
use crate::verbs::region::{Access, Region};

/// How long nobody looks for the device's events, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;

/// What happened besides frames.
#[derive(Clone, Copy, Debug, Default)]
struct EventCounters {
    wake_ups: u64,
    ports_down: u64,
    ports_up: u64,
    gid_changes: u64,
    queue_pair_events: u64,
    completion_queue_events: u64,
    other_events: u64,
    links_renewed: u64,
    renewals_failed: u64,
    registered_bytes: u64,
}

/// An RDMA NIC in mode raw.
pub struct RawNic {
    capabilities: Capabilities,
    settings: Settings,
    /// Before the regions: its queue pair reaches them. None while there is none.
    link: Option<Link>,
    sends: Sends,
    arrivals: RefCell<Arrivals>,
    /// Whether the next look for frames may be spared.
    is_spent: Cell<bool>,
    steering: Steering,
    plan: LinkPlan,
    regions: Vec<Region>,
    watch: Watch,
    base: Base,
    port_up: bool,
    /// When the device's events are looked for again.
    events_due_ns: u64,
    /// When a link is tried to be made again, and how long was waited for that.
    again_ns: u64,
    pause_ns: u64,
    /// Whether the stack was told that there is no link.
    told_down: bool,
    events: VecDeque<NicEvent>,
    /// Why the device is of no use any more; told once.
    fatal: Option<&'static str>,
    told_fatal: bool,
    counters: EventCounters,
}

impl fmt::Debug for RawNic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RawNic").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl RawNic {
    /// Opens a device: `mlx5_0`, `mlx5_0:1`, or an interface of one, `eth2`.
    ///
    /// # Errors
    /// [`DeviceError`] with what lacks and what to do: no library, no such device (with a list of
    /// those there are), port down, no privilege, no raw packets, no flow rules, too little memory
    /// that may be locked.
    pub fn open(name: &str, options: &RdmaOptions) -> Result<RawNic, DeviceError> {
        open::open(name, options)
    }

    /// What was chosen and what was found by trial, by name, for people.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// As [`Nic::poll_recv_lent`].
    #[inline(never)]
    pub(in crate::nic) fn look_for_verified(&mut self) -> PolledWords {
        match self.lend_one(true) {
            Some(BareFrame { wr_id, byte_len, .. }) => PolledWords::verified(wr_id, byte_len),
            None => PolledWords::UNKNOWN,
        }
    }

    /// Lends the next frame, if it is one that needs no look, and is verified if that is wanted.
    #[inline]
    fn lend_one(&mut self, verified: bool) -> Option<BareFrame> {
        let arrivals = self.arrivals.get_mut();
        let found = arrivals.lend_one(self.link.as_ref(), verified);
        self.is_spent.set(found.is_some() && arrivals.is_spent());
        found
    }

    #[inline(never)]
    fn look(&self) -> bool {
        self.arrivals.borrow_mut().look(self.link.as_ref())
    }

    fn error(&self, call: &'static str) -> DeviceError {
        DeviceError {
            device: self.capabilities.name.clone(),
            call,
            source: std::io::Error::from_raw_os_error(libc::EIO),
            remedy: "see the kernel's log, and start again".to_owned(),
        }
    }
}

impl Nic for RawNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        let access = if region.writable { Access::LocalWrite } else { Access::Read };
        // SAFETY: the caller keeps the region mapped until this NIC is dropped, which destroys the
        // queue pair first, and leaves posted receives alone; sends are left alone by the driver
        // half until they complete.
        let registered = unsafe { self.base.domain.register(region.addr, region.length, access) }?;
        let lkey = registered.lkey();
        self.counters.registered_bytes += registered.length();
        self.regions.push(registered);
        Ok(lkey)
    }

    fn deregister(&mut self, lkey: Lkey) {
        let counters = &mut self.counters;
        self.regions.retain(|region| {
            let stays = region.lkey() != lkey;
            counters.registered_bytes -= if stays { 0 } else { region.length() };
            stays
        });
    }

    fn join(&mut self, group: [u8; 6]) -> Result<(), DeviceError> {
        match &mut self.link {
            Some(link) => link.join(&mut self.steering, group),
            None => Ok(()),
        }
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        match &self.link {
            Some(link) => self.arrivals.get_mut().post_all(link, wrs),
            None => Err(PostError::LinkDown),
        }
    }

    #[inline]
    fn post_recv_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        match &self.link {
            Some(link) => self.arrivals.get_mut().post_batch(link, batch),
            None => Err(PostError::LinkDown),
        }
    }

    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        let Some(link) = self.link.as_mut().filter(|_| self.port_up) else {
            self.sends.counters.link_down += 1;
            return Err(PostError::LinkDown);
        };
        self.sends.post(link, self.arrivals.get_mut().tag(), wr)
    }

    fn signal_last(&mut self) -> bool {
        self.link.as_mut().is_some_and(|link| self.sends.signal_last(link))
    }

    #[inline]
    fn post_bare_short(&mut self, sge: Sge, checksum: bool) -> bool {
        let Some(link) = &mut self.link else { return false };
        self.sends.post_short(link, sge, checksum)
    }

    #[inline(never)]
    fn doorbell(&mut self) {
        if let Some(link) = &mut self.link {
            self.sends.flush(link);
        }
    }

    #[inline]
    fn recv_ready(&self) -> bool {
        // A turn that took all there was has looked already.
        !self.is_spent.take() && self.look()
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        self.arrivals.get_mut().take(self.link.as_ref(), &self.steering, out)
    }

    fn take_lent(&mut self) {
        self.arrivals.get_mut().take_lent();
    }

    #[inline(always)]
    fn repost_lent(&mut self) {
        self.arrivals.get_mut().repost(self.link.as_ref());
    }

    fn poll_recv_lent(&mut self) -> PolledOne {
        self.look_for_verified().polled()
    }

    fn poll_bare_lent(&mut self) -> Option<BareFrame> {
        self.lend_one(false)
    }

    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        if let Some(link) = &self.link {
            self.sends.poll(link);
        }
        self.sends.take(out)
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        if let Some(link) = &self.link {
            link.recv_queue.arm()?;
            self.sends.poll(link);
            if self.sends.is_waited_for() {
                link.send_queue.arm()?;
                self.sends.poll(link);
            }
        }
        let pending = self.sends.has_done()
            || self.sends.failed
            || self.arrivals.get_mut().look(self.link.as_ref());
        Ok(if pending { Armed::Pending } else { Armed::Quiet })
    }

    fn disarm(&mut self) {
        match self.base.channel.take_events() {
            Ok(events) => self.counters.wake_ups += u64::from(events),
            Err(_) => self.fatal = Some("the completion channel failed"),
        }
        self.take_async_events();
    }

    fn event_fd(&self) -> RawFd {
        self.watch.fd()
    }

    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        if self.told_fatal {
            return Ok(self.events.pop_front());
        }
        // Besides, a sleeper looks that one wakes.
        if now_ns >= self.events_due_ns {
            self.events_due_ns = now_ns.saturating_add(LOOK_NS);
            self.take_async_events();
        }
        self.mend(now_ns);
        match (self.events.pop_front(), self.fatal) {
            (Some(event), _) => Ok(Some(event)),
            (None, Some(what)) => {
                self.told_fatal = true;
                Err(self.error(what))
            }
            (None, None) => Ok(None),
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        self.visit_all(visit);
    }
}
