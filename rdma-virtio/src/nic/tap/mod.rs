//! `tap:NAME`: the host's kernel as the peer, through a TAP interface with virtio-net headers.
//!
//! A message is what the TAP reads and writes: 12 bytes of virtio-net header and an Ethernet frame,
//! straight from and to the posted buffers, short ones by way of a buffer of this NIC's. The kernel
//! does not fill in `num_buffers`; who reads the header must set it.
//!
//! What it costs: a TAP has no shared ring, so whether a frame is there is known only by asking.
//! [`TapNic::recv_ready`] therefore makes one non-blocking read if receives are posted, which an
//! idle turn pays too, and a found frame lands in its receives at once. Each send is one `write` or
//! `writev`, made when it is posted. A burst is read with one more call a frame, and the
//! call that finds nothing is spared in request-response traffic: the number read a poll starts at
//! 1, doubles while frames keep coming, up to [`BURST_MAX`], and returns to 1 when none is there.
//!
//! A message that is longer than all posted receives waits until there is room, in a buffer of its
//! own, and is dropped and counted after 100 ms without; meanwhile further frames wait in the
//! TAP's own queue, which the kernel bounds (1,000 frames) and drops from.
//!
//! Link: an interface that goes down flushes waiting sends and keeps posted receives; one that is
//! deleted flushes both.

mod open;

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::host::events::Events;
use super::host::receives::{RECV_SGE_MAX, Receives};
use super::host::sends::{INLINE_MAX, SEND_SGE_MAX, Sends};
use super::host::{Io, IoVec, MESSAGE_MAX, plain_message_max, read_message};
use super::regions::Regions;
use super::rtnl::{self, LinkState, LinkWatch};
use super::{
    Accepted, Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PostError,
    Receive, RecvWr, RegionView, SendWr, Wire,
};

pub use open::TapOptions;

/// Frames read in one poll at most.
pub const BURST_MAX: u32 = 32;

/// After a message up to this length the next one is expected to be short too.
const BOUNCE_MAX: usize = 2048;

/// A message that waits for posted receives so long is dropped.
const WAIT_NS_MAX: u64 = 100_000_000;

/// Room for a message that does not fit the posted receives; one byte more than the longest, so
/// that a longer one shows.
const SPILL_LEN: usize = MESSAGE_MAX as usize + 1;

/// The receive side: interior-mutable, since asking whether a frame is there reads it.
#[derive(Debug)]
struct Reader {
    receives: Receives,
    spill: Box<[u8]>,
    /// Length of the message that waits in `spill`.
    spilled: Option<usize>,
    /// Since when it waits, in the time of `maintain`.
    spilled_ns: Option<u64>,
    /// Bytes of the longest message that is expected.
    longest: usize,
    /// Whether reads go straight into the posted receives, as many as the longest message takes.
    /// While messages are short they do not: reading into one buffer and copying is cheaper than
    /// `readv` into two, also when no frame is there.
    direct: bool,
    /// Frames to read in one poll.
    burst: u32,
    /// Whether reading makes sense: not after the interface was deleted.
    open: bool,
    frames: u64,
    bytes: u64,
    waited: u64,
    dropped: u64,
    errors: u64,
    last_errno: u64,
}

/// A TAP interface.
#[derive(Debug)]
pub struct TapNic {
    capabilities: Capabilities,
    fd: OwnedFd,
    regions: Regions,
    reader: RefCell<Reader>,
    sends: Sends,
    watch: LinkWatch,
    events: Events,
    removed: bool,
    link_events: u64,
}

impl TapNic {
    /// Opens the interface `name`, creating it if it is not there (then with `CAP_NET_ADMIN`).
    ///
    /// # Errors
    /// [`DeviceError`] with the call that failed and what to do.
    pub fn open(name: &str, options: &TapOptions) -> Result<Self, DeviceError> {
        let device = format!("tap:{name}");
        let opened = open::open(&device, name, options)?;
        let large_tx = options.checksum && options.tso;
        let granted = opened.granted;
        let large_rx = granted.large4 || granted.large6;
        let longest = |large| if large { MESSAGE_MAX } else { plain_message_max(opened.mtu) };
        let capabilities = Capabilities {
            name: device,
            mac: None,
            mtu: opened.mtu,
            wire: Wire::VirtioNet,
            receive: Receive::Spanning,
            max_message: longest(large_tx || large_rx),
            max_send_wr: u32::from(options.queue),
            max_recv_wr: u32::from(options.queue),
            max_send_sge: SEND_SGE_MAX,
            max_recv_sge: RECV_SGE_MAX,
            max_inline: INLINE_MAX,
            tx_checksum: options.checksum,
            rx_checksum: granted.checksum,
            tso4: large_tx,
            tso6: large_tx,
            tso_ecn: large_tx,
            uso: large_tx && opened.uso,
            rx_large4: granted.large4,
            rx_large6: granted.large6,
            rx_ecn: granted.ecn,
            rx_uso4: granted.uso4,
            rx_uso6: granted.uso6,
        };
        let longest_rx = usize::try_from(longest(large_rx)).unwrap_or(SPILL_LEN);
        Self::assemble(capabilities, opened.fd, opened.watch, longest_rx)
    }

    /// Puts a NIC together over an fd that keeps message boundaries.
    fn assemble(
        capabilities: Capabilities,
        fd: OwnedFd,
        watch: LinkWatch,
        longest: usize,
    ) -> Result<Self, DeviceError> {
        let events = Events::new(watch.fd())
            .map_err(|e| rtnl::error(&capabilities.name, "epoll_create1", e, ""))?;
        let reader = Reader {
            receives: Receives::new(capabilities.max_recv_wr),
            spill: vec![0; SPILL_LEN].into_boxed_slice(),
            spilled: None,
            spilled_ns: None,
            longest,
            direct: false,
            burst: 1,
            open: true,
            frames: 0,
            bytes: 0,
            waited: 0,
            dropped: 0,
            errors: 0,
            last_errno: 0,
        };
        let sends = Sends::new(capabilities.max_send_wr, capabilities.max_message, false);
        let mut nic = Self {
            capabilities,
            fd,
            regions: Regions::default(),
            reader: RefCell::new(reader),
            sends,
            watch,
            events,
            removed: false,
            link_events: 0,
        };
        // The present state is known at once; it is no event.
        if let Some(state) = nic.watch.poll() {
            nic.sends.link_up = state == LinkState::Up;
        }
        Ok(nic)
    }

    /// Whether the fd still has an interface: one that only moved to another network namespace
    /// has.
    fn still_attached(&self) -> bool {
        let Ok(mut request) = rtnl::request("x") else { return false };
        rtnl::ioctl(self.fd.as_raw_fd(), libc::TUNGETIFF, &mut request).is_ok()
    }

    fn on_link(&mut self, state: LinkState) -> Option<NicEvent> {
        let was_up = self.sends.link_up;
        match state {
            LinkState::Up => {
                self.sends.link_up = true;
                (!was_up).then_some(NicEvent::LinkUp)
            }
            LinkState::Down => {
                self.sends.link_up = false;
                self.sends.flush();
                was_up.then_some(NicEvent::LinkDown)
            }
            // In another namespace nobody tells of the link any more; writes themselves will.
            LinkState::Gone if self.still_attached() => {
                self.sends.link_up = true;
                (!was_up).then_some(NicEvent::LinkUp)
            }
            LinkState::Gone => {
                self.removed = true;
                self.sends.link_up = false;
                self.sends.flush();
                let reader = self.reader.get_mut();
                reader.open = false;
                reader.receives.flush();
                self.events.disarm(self.fd.as_raw_fd());
                Some(NicEvent::Removed)
            }
        }
    }
}

impl Reader {
    /// Reads one message into the first posted receives; whether there is anything to take.
    fn read(&mut self, fd: RawFd) -> bool {
        if self.receives.room() == 0 || !self.open {
            return false;
        }
        if let Some(length) = self.spilled {
            return self.deliver_spilled(length);
        }
        let spill =
            IoVec { base: self.spill.as_mut_ptr().expose_provenance(), len: self.spill.len() };
        let (result, room) = if self.direct {
            self.receives.with_window(self.longest, spill, |vectors| {
                // SAFETY: the posted ranges were checked against their regions for writing, and
                // the last one is the spill buffer of this reader, to whom nobody else refers.
                unsafe { read_message(fd, vectors) }
            })
        } else {
            // SAFETY: it is the spill buffer of this reader, to whom nobody else refers.
            (unsafe { read_message(fd, &[spill]) }, 0)
        };
        match result {
            Io::Done(length) if length <= room && length > 0 => {
                self.deliver(length);
                true
            }
            Io::Done(length) => self.finish(length, room),
            Io::Again => false,
            Io::LinkFault(errno) | Io::Refused(errno) => {
                self.errors += 1;
                self.last_errno = u64::from(errno.unsigned_abs());
                false
            }
        }
    }

    fn deliver(&mut self, length: usize) {
        self.frames += 1;
        self.bytes += u64::try_from(length).unwrap_or(0);
        self.receives.complete(length);
        self.direct = length > BOUNCE_MAX;
    }

    /// All of a message but its first `room` bytes is in the spill buffer: puts it into receives,
    /// or makes the message whole there and lets it wait.
    fn finish(&mut self, length: usize, room: usize) -> bool {
        if length == 0 || length >= SPILL_LEN {
            self.dropped += 1;
            return false;
        }
        if length <= self.receives.room() {
            // SAFETY: the spill buffer holds so many bytes and is part of no region.
            unsafe { self.receives.scatter(room, self.spill.as_ptr(), length - room) };
            self.deliver(length);
            return true;
        }
        self.spill.copy_within(0..length - room, room);
        self.receives.gather(&mut self.spill[..room]);
        self.spilled = Some(length);
        self.waited += 1;
        false
    }

    #[cold]
    fn deliver_spilled(&mut self, length: usize) -> bool {
        if self.receives.room() < length {
            return false;
        }
        // SAFETY: the spill buffer holds `length` bytes and is part of no region.
        unsafe { self.receives.scatter(0, self.spill.as_ptr(), length) };
        self.spilled = None;
        self.spilled_ns = None;
        self.deliver(length);
        true
    }

    /// Drops a message that has waited too long for receives.
    fn expire(&mut self, now_ns: u64) {
        if self.spilled.is_none() {
            self.spilled_ns = None;
            return;
        }
        let since = *self.spilled_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) >= WAIT_NS_MAX {
            self.spilled = None;
            self.spilled_ns = None;
            self.dropped += 1;
        }
    }

    /// Whether a read can lead to a completion now.
    fn can_read(&self) -> bool {
        self.open && self.receives.room() >= self.spilled.unwrap_or(1)
    }
}

impl Nic for TapNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        self.regions.add(&self.capabilities.name, region)
    }

    fn deregister(&mut self, lkey: Lkey) {
        self.regions.remove(lkey);
    }

    /// The host sends nothing else from now on.
    fn accept(&mut self, accepted: Accepted) -> Result<(), DeviceError> {
        let both = accepted.and(self.capabilities.accepted());
        open::tell(&self.fd, open::bits_of(&both))
            .map_err(|e| rtnl::error(&self.capabilities.name, "ioctl(TUNSETOFFLOAD)", e, ""))
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        let reader = self.reader.get_mut();
        if !reader.open {
            return Err(PostError::LinkDown);
        }
        reader.receives.post_all(wrs, &self.regions)
    }

    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        self.sends.post(self.fd.as_raw_fd(), wr, &self.regions)
    }

    fn signal_last(&mut self) -> bool {
        self.sends.signal_last()
    }

    fn doorbell(&mut self) {
        if self.sends.is_waiting() {
            self.sends.push(self.fd.as_raw_fd());
        }
    }

    /// Costs one read if receives are posted and no completion waits.
    fn recv_ready(&self) -> bool {
        let mut reader = self.reader.borrow_mut();
        if reader.receives.has_done() {
            return true;
        }
        let ready = reader.read(self.fd.as_raw_fd());
        if !ready {
            reader.burst = 1;
        }
        ready
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let reader = self.reader.get_mut();
        let mut taken = reader.receives.take(out, 0);
        // What was there had been read by `recv_ready`: it counts.
        let mut read = u32::from(taken > 0);
        while taken < out.len() && read < reader.burst {
            if !reader.read(self.fd.as_raw_fd()) {
                reader.burst = 1;
                return taken;
            }
            read += 1;
            taken = reader.receives.take(out, taken);
        }
        if read > 0 {
            reader.burst = (reader.burst * 2).min(BURST_MAX);
        }
        taken
    }

    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        if self.sends.is_waiting() {
            self.sends.push(self.fd.as_raw_fd());
        }
        self.sends.take(out)
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        if self.removed {
            return Ok(Armed::Quiet);
        }
        // An event that cannot be served must not end the sleep at once: without receives the fd
        // is not watched for frames, since only this thread can post some.
        let mut events = 0;
        if self.reader.get_mut().can_read() {
            events |= libc::EPOLLIN;
        }
        if self.sends.is_waiting() {
            events |= libc::EPOLLOUT;
        }
        self.events
            .arm(self.fd.as_raw_fd(), events)
            .map_err(|e| rtnl::error(&self.capabilities.name, "epoll_ctl", e, ""))?;
        if self.sends.is_waiting() {
            self.sends.push(self.fd.as_raw_fd());
        }
        if self.sends.has_done() || self.recv_ready() {
            self.disarm();
            return Ok(Armed::Pending);
        }
        Ok(Armed::Quiet)
    }

    fn disarm(&mut self) {
        self.events.disarm(self.fd.as_raw_fd());
    }

    fn event_fd(&self) -> RawFd {
        self.events.fd()
    }

    fn maintain(&mut self, now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        self.sends.expire(now_ns);
        self.reader.get_mut().expire(now_ns);
        if self.removed {
            return Ok(None);
        }
        let event = self.watch.poll().and_then(|state| self.on_link(state));
        self.link_events += u64::from(event.is_some());
        Ok(event)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let reader = self.reader.borrow();
        visit("rx_frames", reader.frames);
        visit("rx_bytes", reader.bytes);
        visit("rx_waited_for_buffers", reader.waited);
        visit("rx_dropped_no_buffers", reader.dropped);
        visit("rx_errors", reader.errors);
        visit("rx_last_errno", reader.last_errno);
        visit("link_events", self.link_events);
        self.sends.counters.visit(visit);
    }
}

#[cfg(test)]
mod tests;
