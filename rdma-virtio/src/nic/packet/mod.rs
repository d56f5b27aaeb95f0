//! `packet:IFNAME`: an ordinary network interface through an `AF_PACKET` socket with a mapped
//! receive ring: the same wire as the kernel's stack.
//!
//! A message is a 12-byte virtio-net header and an Ethernet frame; the header carries partial
//! checksums and segment sizes between this socket and the interface's driver (`PACKET_VNET_HDR`),
//! so a frame from a veth peer whose checksum was never computed arrives as "partial", not as
//! wrong. With the option `checksum` off, such a checksum is computed here.
//!
//! Receiving: the kernel copies a frame into the ring; it is copied once more, into the posted
//! receives, which is this NIC's DMA. Looking for a frame is one load. A message that is longer
//! than all posted receives waits in the ring, and is dropped and counted after 100 ms.
//!
//! Sending: one `write` or `writev` a message, made when it is posted. There is no transmit ring:
//! the kernel would send its pages by reference, and copies them itself before it lets go of a slot
//! wherever the frame stays on this host, so a frame would be copied twice and pages allocated: a
//! round trip over veth took 1.9 us with it and 1.6 without. A frame for which the interface's
//! queue has no room waits in order, and fails after 20 ms without progress.
//!
//! Addresses: the NIC has a hardware address of its own beside the interface's. The host's stack
//! drops frames to it (they are for another host), and sees broadcasts as ever. Frames between this
//! NIC and the *same* host's address on the same interface do not meet: the wire does not loop
//! back. Let through: our own address, broadcast, and IPv6 multicast. A switch port, hypervisor or
//! wireless interface that knows a single address a port does not let a second one pass. With the
//! option `promisc`, for a bridge, everything is let through but what is for the host itself, and
//! frames are sent from any address.
//!
//! Link: an interface that goes down flushes waiting sends and keeps posted receives; one that is
//! deleted flushes both.

mod open;
mod ring;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::host::events::Events;
use super::host::receives::{RECV_SGE_MAX, Receives};
use super::host::sends::{INLINE_MAX, SEND_SGE_MAX, Sends};
use super::host::{MESSAGE_MAX, NET_HEADER_LEN, plain_message_max};
use super::regions::Regions;
use super::rtnl::{self, LinkState, LinkWatch};
use super::{
    Accepted, Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PostError,
    Receive, RecvWr, RegionView, SendWr, Wire,
};
use ring::{Frame, Ring, Slot};

pub use open::PacketOptions;

/// A message that waits for posted receives so long is dropped.
const WAIT_NS_MAX: u64 = 100_000_000;

/// How often the kernel is asked for the ring's drops.
const STATISTICS_NS: u64 = 1_000_000_000;

/// Virtio-net header (virtio 1.2 §5.1.6): where the segmentation type stands, and its values.
const GSO_TYPE: usize = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[derive(Debug, Default)]
struct ReceiveCounters {
    frames: u64,
    bytes: u64,
    waited: u64,
    dropped_no_buffers: u64,
    dropped_unusable: u64,
    dropped_too_large: u64,
    dropped_ring_full: u64,
}

/// A packet socket on an interface.
#[derive(Debug)]
pub struct PacketNic {
    capabilities: Capabilities,
    accepted: Accepted,
    ring: Ring,
    fd: OwnedFd,
    regions: Regions,
    receives: Receives,
    sends: Sends,
    watch: LinkWatch,
    events: Events,
    /// Length of the message at the head of the ring that found too few receives, else 1.
    needed: usize,
    /// Since when it waits, in the time of `maintain`.
    needed_ns: Option<u64>,
    statistics_ns: u64,
    removed: bool,
    link_events: u64,
    counters: ReceiveCounters,
}

impl PacketNic {
    /// Opens the interface `name`; needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// [`DeviceError`] with the call that failed and what to do.
    pub fn open(name: &str, options: &PacketOptions) -> Result<Self, DeviceError> {
        let device = format!("packet:{name}");
        let opened = open::open(&device, name, options)?;
        let plain = plain_message_max(opened.mtu);
        let large = NET_HEADER_LEN + opened.large_frame;
        let large_tx = options.checksum && options.tso && large > plain;
        let large_rx = options.checksum && options.large_receive;
        let max_message = match (large_tx, large_rx) {
            (true, _) => large,
            (false, true) => MESSAGE_MAX,
            (false, false) => plain,
        };
        let capabilities = Capabilities {
            name: device,
            mac: Some(opened.mac),
            mtu: opened.mtu,
            wire: Wire::VirtioNet,
            receive: Receive::Spanning,
            max_message,
            max_send_wr: u32::from(options.queue),
            max_recv_wr: u32::from(options.queue),
            max_send_sge: SEND_SGE_MAX,
            max_recv_sge: RECV_SGE_MAX,
            max_inline: INLINE_MAX,
            tx_checksum: options.checksum,
            rx_checksum: options.checksum,
            tso4: large_tx,
            tso6: large_tx,
            rx_large4: large_rx,
            rx_large6: large_rx,
            tso_ecn: large_tx,
            // Whether an interface segments UDP cannot be asked for with one call, and what it
            // does not segment would be dropped.
            uso: false,
            rx_ecn: large_rx,
            rx_uso4: large_rx,
            rx_uso6: large_rx,
        };
        let events = Events::new(opened.watch.fd())
            .map_err(|e| rtnl::error(&capabilities.name, "epoll_create1", e, ""))?;
        let mut nic = Self {
            receives: Receives::new(capabilities.max_recv_wr),
            sends: Sends::new(capabilities.max_send_wr, max_message, true),
            accepted: capabilities.accepted(),
            capabilities,
            ring: opened.ring,
            fd: opened.fd,
            regions: Regions::default(),
            watch: opened.watch,
            events,
            needed: 1,
            needed_ns: None,
            statistics_ns: 0,
            removed: false,
            link_events: 0,
            counters: ReceiveCounters::default(),
        };
        // The present state is known at once; it is no event.
        if let Some(state) = nic.watch.poll() {
            nic.sends.link_up = state == LinkState::Up;
        }
        Ok(nic)
    }

    /// Moves the frame at the head of the ring into posted receives. False if it must wait.
    #[inline]
    fn receive(&mut self, frame: Frame) -> bool {
        let length = frame.length + NET_HEADER_LEN as usize;
        if self.receives.room() < length {
            self.wait_for_room(length);
            return false;
        }
        let mut header = frame.header();
        // The congestion bit matters to who segments; nobody will.
        header[GSO_TYPE] &= !GSO_ECN;
        let fits = match header[GSO_TYPE] {
            GSO_NONE => length <= plain_message_max(self.capabilities.mtu) as usize,
            GSO_TCPV4 => self.accepted.large4,
            GSO_TCPV6 => self.accepted.large6,
            GSO_UDP_L4 => self.accepted.uso4 || self.accepted.uso6,
            _ => false,
        };
        if !fits {
            self.counters.dropped_too_large += 1;
            self.step();
            return true;
        }
        if !self.accepted.checksum {
            self.ring.complete_checksum(&mut header, frame);
        }
        // SAFETY: `header` is 12 bytes of our own.
        unsafe { self.receives.scatter(0, header.as_ptr(), header.len()) };
        // SAFETY: the slot holds the frame, is ours and part of no region.
        unsafe { self.receives.scatter(header.len(), frame.start, frame.length) };
        self.step();
        self.counters.frames += 1;
        self.counters.bytes += length as u64;
        self.receives.complete(length);
        true
    }

    #[inline]
    fn step(&mut self) {
        self.ring.release();
        self.needed = 1;
    }

    #[cold]
    fn wait_for_room(&mut self, length: usize) {
        if self.needed != length {
            self.needed = length;
            self.needed_ns = None;
            self.counters.waited += 1;
        }
    }

    /// Drops a message that has waited too long for receives.
    fn expire(&mut self, now_ns: u64) {
        if self.needed == 1 {
            self.needed_ns = None;
            return;
        }
        let since = *self.needed_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) >= WAIT_NS_MAX {
            self.counters.dropped_no_buffers += 1;
            self.needed_ns = None;
            self.step();
        }
    }

    fn read_statistics(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.statistics_ns) < STATISTICS_NS {
            return;
        }
        self.statistics_ns = now_ns;
        // The kernel's figures start anew with each call: frames, drops.
        if let Ok([_, drops]) = open::get(&self.fd, libc::SOL_PACKET, libc::PACKET_STATISTICS) {
            self.counters.dropped_ring_full += u64::from(drops);
        }
    }

    fn on_link(&mut self, state: LinkState) -> Option<NicEvent> {
        let was_up = std::mem::replace(&mut self.sends.link_up, state == LinkState::Up);
        // The socket keeps the error of an interface that went down and would give it to the first
        // send after.
        let _ = open::get(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR);
        match state {
            LinkState::Up => (!was_up).then_some(NicEvent::LinkUp),
            LinkState::Down => {
                self.sends.flush();
                was_up.then_some(NicEvent::LinkDown)
            }
            LinkState::Gone => {
                self.removed = true;
                self.sends.flush();
                self.receives.flush();
                self.events.disarm(self.fd.as_raw_fd());
                Some(NicEvent::Removed)
            }
        }
    }
}

impl Nic for PacketNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        self.regions.add(&self.capabilities.name, region)
    }

    fn deregister(&mut self, lkey: Lkey) {
        self.regions.remove(lkey);
    }

    /// The kernel cannot be told: what is not taken is dropped and counted, and a checksum that is
    /// still to be computed is computed here.
    fn accept(&mut self, accepted: Accepted) -> Result<(), DeviceError> {
        self.accepted = self.accepted.and(accepted);
        Ok(())
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        if self.removed {
            return Err(PostError::LinkDown);
        }
        self.receives.post_all(wrs, &self.regions)
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

    #[inline]
    fn recv_ready(&self) -> bool {
        self.receives.has_done() || (self.ring.is_ready() && self.receives.room() >= self.needed)
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let mut taken = self.receives.take(out, 0);
        while taken < out.len() {
            match self.ring.peek() {
                Slot::Empty => break,
                Slot::Unusable => {
                    self.counters.dropped_unusable += 1;
                    self.step();
                }
                Slot::Full(frame) => {
                    if !self.receive(frame) {
                        break;
                    }
                    taken = self.receives.take(out, taken);
                }
            }
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
        if self.receives.room() >= self.needed {
            events |= libc::EPOLLIN;
        }
        if self.sends.is_waiting() {
            events |= libc::EPOLLOUT;
        }
        // A pending socket error (the interface went down) would end every sleep; the link watch
        // tells of it.
        let _ = open::get(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR);
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
        self.expire(now_ns);
        if self.removed {
            return Ok(None);
        }
        self.read_statistics(now_ns);
        let event = self.watch.poll().and_then(|state| self.on_link(state));
        self.link_events += u64::from(event.is_some());
        Ok(event)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("rx_frames", self.counters.frames);
        visit("rx_bytes", self.counters.bytes);
        visit("rx_waited_for_buffers", self.counters.waited);
        visit("rx_dropped_no_buffers", self.counters.dropped_no_buffers);
        visit("rx_dropped_unusable", self.counters.dropped_unusable);
        visit("rx_dropped_too_large", self.counters.dropped_too_large);
        visit("rx_dropped_ring_full", self.counters.dropped_ring_full);
        visit("link_events", self.link_events);
        self.sends.counters.visit(visit);
    }
}
