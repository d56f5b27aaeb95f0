//! `rdma:DEV`: an RDMA NIC through verbs.
//!
//! The modes `rc` and `ud` are a virtual Ethernet between Roceway hosts, over reliable-connected or
//! datagram queue pairs of any RDMA device, soft-RoCE included; `wire` is their protocol, without
//! devices, and `docs/wire.md` its specification. A message is a header of 24 bytes, a virtio-net
//! header and a frame, gathered from and scattered to the buffers of the arena.
//!
//! Mode `raw` is a NIC of its own kind, in `raw`: plain Ethernet, without any of this.
//!
//! Opening is in `open`, sessions in `sessions`, the data path in `engine`, `transmit` and
//! `receives`. Invariants: a buffer that the device may touch is in one posted work request, and
//! comes back only by its completion or after its queue pair was destroyed; one peer's failure
//! costs the others nothing.

mod completed;
mod conversation;
mod device_events;
mod engine;
mod failures;
mod lane;
mod link;
mod managed;
mod open;
pub mod options;
pub mod raw;
mod receives;
mod reception;
mod scratch;
mod sessions;
mod slots;
mod talk;
mod transmit;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::RawFd;

use self::engine::{Engine, EngineCounters};
pub use self::open::Settings;
use self::options::RdmaOptions;
use super::polled::PolledWords;
use super::{
    Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PolledOne, PostError,
    RecvBatch, RecvWr, RegionView, SendWr,
};
use crate::memory::region::Segment;
use crate::verbs::region::{Access, Region};

/// An RDMA NIC in mode rc or ud.
pub struct RdmaNic {
    capabilities: Capabilities,
    settings: Settings,
    /// Before the regions: its queue pairs reach them.
    engine: RefCell<Engine>,
    /// Whether the next look for received messages may be spared.
    is_spent: Cell<bool>,
    regions: Vec<Region>,
    /// Queues that were armed for the sleep under way.
    armed: u32,
    closed: bool,
}

impl fmt::Debug for RdmaNic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RdmaNic")
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

impl RdmaNic {
    /// Opens a device: `mlx5_0`, `mlx5_0:1`, or an interface of one, `eth2`.
    ///
    /// # Errors
    /// [`DeviceError`] with the call that failed and what to do: no library, no such device (with a
    /// list of those there are), port down, no usable GID, too little memory that may be locked.
    pub fn open(name: &str, options: &RdmaOptions) -> Result<RdmaNic, DeviceError> {
        let opened = open::open(name, options)?;
        Ok(RdmaNic {
            capabilities: opened.capabilities,
            settings: opened.settings,
            engine: RefCell::new(opened.engine),
            is_spent: Cell::new(false),
            regions: Vec::new(),
            armed: 0,
            closed: false,
        })
    }

    /// As [`Nic::poll_recv_lent`].
    #[inline(never)]
    pub(super) fn look(&mut self) -> PolledWords {
        let engine = self.engine.get_mut();
        match engine.look() {
            PolledOne::LentInTurn { wr_id, byte_len } => {
                self.is_spent.set(engine.arrivals.is_spent());
                PolledWords::lent_in_turn(wr_id, byte_len)
            }
            PolledOne::Nothing => {
                self.is_spent.set(false);
                PolledWords::NOTHING
            }
            _ => {
                self.is_spent.set(false);
                PolledWords::UNKNOWN
            }
        }
    }

    /// What was chosen, by name, for people.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[inline(never)]
    fn has_received(&self) -> bool {
        self.engine.borrow_mut().has_received()
    }

    /// Buffers of so many bytes that all receives hold; 0 if one holds a message.
    #[must_use]
    pub fn receive_buffers(&self, buffer_len: u32) -> u32 {
        self.engine.borrow().receives.buffers(buffer_len)
    }

    fn fatal(&self, what: &'static str) -> DeviceError {
        DeviceError {
            device: self.capabilities.name.clone(),
            call: what,
            source: std::io::Error::from_raw_os_error(libc::EIO),
            remedy: "see the kernel's log, and start again".to_owned(),
        }
    }
}

impl Drop for RdmaNic {
    fn drop(&mut self) {
        self.engine.get_mut().close();
    }
}

impl Nic for RdmaNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        let engine = self.engine.get_mut();
        let access = if region.writable { Access::LocalWrite } else { Access::Read };
        // SAFETY: the caller keeps the region mapped until this NIC is dropped, which destroys the
        // queue pairs first, and leaves posted receives alone; sends are left alone by the driver
        // half until they complete.
        let registered =
            unsafe { engine.objects.domain.register(region.addr, region.length, access) }?;
        let lkey = registered.lkey();
        engine.local.registered_bytes += registered.length();
        self.regions.push(registered);
        Ok(lkey)
    }

    fn deregister(&mut self, lkey: Lkey) {
        let local = &mut self.engine.get_mut().local;
        self.regions.retain(|region| {
            let stays = region.lkey() != lkey;
            local.registered_bytes -= if stays { 0 } else { region.length() };
            stays
        });
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        let engine = self.engine.get_mut();
        let taken = engine.receives.add(wrs)?;
        engine.replenish();
        Ok(taken)
    }

    #[inline]
    fn post_recv_batch(&mut self, batch: &RecvBatch<'_>) -> Result<usize, PostError> {
        let engine = self.engine.get_mut();
        let taken = engine.receives.add_batch(batch)?;
        engine.replenish();
        Ok(taken)
    }

    #[inline]
    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        self.engine.get_mut().post_send(wr)
    }

    /// Its queue pair tells with the doorbell: each list that is posted ends with a signal.
    fn signal_last(&mut self) -> bool {
        self.engine.get_mut().slots.signal_last()
    }

    #[inline(never)]
    fn doorbell(&mut self) {
        let engine = self.engine.get_mut();
        if !engine.dirty.is_empty() {
            engine.settle();
        }
        if !engine.unflushed.is_empty() {
            engine.local.sending_turns += 1;
            engine.flush_all();
        }
    }

    fn short_max(&self) -> u32 {
        open::INLINE_MAX - wire::header::HEADER_BYTES
    }

    #[inline(never)]
    fn post_send_short(&mut self, segment: Segment) -> bool {
        self.engine.get_mut().post_short(segment.sge())
    }

    #[inline]
    fn recv_ready(&self) -> bool {
        // A turn that took all there was has looked already.
        !self.is_spent.take() && self.has_received()
    }

    #[inline]
    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        self.engine.get_mut().take_received(out)
    }

    #[inline]
    fn poll_recv_lent(&mut self) -> PolledOne {
        self.look().polled()
    }

    #[inline]
    fn take_lent(&mut self) {
        self.engine.get_mut().take_lent();
    }

    #[inline(always)]
    fn repost_lent(&mut self) {
        self.engine.get_mut().repost_lent();
    }

    #[inline]
    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        let engine = self.engine.get_mut();
        engine.poll_sends();
        engine.take_sent(out)
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        let engine = self.engine.get_mut();
        engine.objects.recv_queue.arm()?;
        self.armed = 1;
        engine.poll_sends();
        // Few short messages can wait for the next wake-up, or for cold work.
        if engine.slots.are_worth_waking() {
            engine.objects.send_queue.arm()?;
            self.armed = 2;
            engine.poll_sends();
        }
        engine.post_receives();
        engine.settle();
        engine.flush_all();
        let pending = engine.has_received() || engine.slots.has_done();
        engine.is_quiet = !pending;
        Ok(if pending { Armed::Pending } else { Armed::Quiet })
    }

    fn disarm(&mut self) {
        let engine = self.engine.get_mut();
        match engine.objects.channel.take_events_of(self.armed) {
            Ok(events) => {
                engine.local.wake_ups += u64::from(events);
                engine.rare_doubted |= events == 0 && engine.is_quiet;
            }
            Err(_) => engine.fatal = Some("the completion channel failed"),
        }
    }

    fn event_fd(&self) -> RawFd {
        self.engine.borrow().watch.fd()
    }

    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        let engine = self.engine.get_mut();
        if engine.fatal.is_none() {
            engine.maintain(now_ns);
        }
        if let Some(event) = engine.events.pop_front() {
            return Ok(Some(event));
        }
        match engine.fatal {
            Some(what) if !self.closed => {
                self.closed = true;
                engine.close();
                engine.receives.fail_all();
                Err(self.fatal(what))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let mut engine = self.engine.borrow_mut();
        engine.keep_books();
        engine.counters.visit(visit);
        visit_local(&engine.local, visit);
        visit("rdma_receives_posted", u64::from(engine.ledger.posted()));
        visit("rdma_credits_granted", u64::from(engine.ledger.outstanding()));
        visit("rdma_posts_of_receives", engine.receives.lists);
        visit("rdma_posts_of_receives_failed", engine.receives.post_failed);
        engine.talk.visit_counters(visit);
        visit("rdma_peers_up", u64::try_from(engine.up_count).unwrap_or(0));
    }
}

fn visit_local(local: &EngineCounters, visit: &mut dyn FnMut(&'static str, u64)) {
    let rows = [
        ("rdma_polls_failed", local.polls_failed),
        ("rdma_sends_failed", local.sends_failed),
        ("rdma_posts_failed", local.posts_failed),
        ("rdma_doorbells", local.doorbells),
        ("rdma_turns_that_sent", local.sending_turns),
        ("rdma_signalled_completions", local.signals),
        ("rdma_events", local.wake_ups),
        ("rdma_port_down", local.ports_down),
        ("rdma_port_up", local.ports_up),
        ("rdma_gid_changes", local.gid_changes),
        ("rdma_gid_moves", local.gid_moves),
        ("rdma_gid_missing", local.gid_missing),
        ("rdma_queue_pair_events", local.queue_pair_events),
        ("rdma_other_events", local.other_events),
        ("rdma_receive_queues_renewed", local.queues_renewed),
        ("rdma_registered_bytes", local.registered_bytes),
    ];
    for (name, value) in rows {
        visit(name, value);
    }
    local.failures.visit(visit);
}
