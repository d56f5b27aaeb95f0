//! A NIC in memory: what is sent comes back as received, checked as hardware would check it.
//!
//! Each test file uses a part of it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test files, each of which uses a part"
)]

use std::collections::VecDeque;
use std::os::fd::RawFd;

use roceway_rdma_virtio::memory::region::Segment;
use roceway_rdma_virtio::nic::{
    Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, Offload, PolledOne,
    PostError, Receive, RecvWr, RegionView, SendWr, Sge, WcChecksum, WcStatus, Wire,
};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

/// The NIC. Fields are knobs and records for tests.
pub struct MemoryNic {
    pub capabilities: Capabilities,
    pub regions: Vec<RegionView>,
    /// Receives posted and not yet used.
    pub posted: VecDeque<(u64, Vec<Sge>)>,
    /// Messages that reached the wire.
    pub wire: VecDeque<Message>,
    /// Whether the doorbell delivers the wire to the posted receives.
    pub loops: bool,
    /// Every send, for the test to look at.
    pub sent: Vec<Message>,
    pub keep_sent: bool,
    /// Sends that wait for their completion to be found, with their signal.
    outstanding: VecDeque<(u64, bool, WcStatus)>,
    /// How the next sends end.
    pub fail_sends: u32,
    pub link_down: bool,
    /// Whether sends complete.
    pub completes: bool,
    pub receive_checksum: WcChecksum,
    pub received: VecDeque<Completion>,
    pub doorbells: u64,
    /// Whether the short ways were there the last time: they are every other time.
    short: bool,
}

/// Capabilities that a test changes where it needs others.
pub fn capabilities(wire: Wire, receive: Receive) -> Capabilities {
    Capabilities {
        name: "memory:".to_owned(),
        mac: None,
        mtu: 1500,
        wire,
        receive,
        max_message: 70_000,
        max_send_wr: 64,
        max_recv_wr: 256,
        max_send_sge: 32,
        max_recv_sge: 20,
        max_inline: 128,
        tx_checksum: true,
        rx_checksum: true,
        tso4: true,
        tso6: true,
        rx_large4: true,
        rx_large6: true,
        tso_ecn: true,
        uso: true,
        rx_ecn: true,
        rx_uso4: true,
        rx_uso6: true,
    }
}

impl MemoryNic {
    pub fn new(capabilities: Capabilities) -> MemoryNic {
        MemoryNic {
            capabilities,
            regions: Vec::new(),
            posted: VecDeque::new(),
            wire: VecDeque::new(),
            loops: true,
            sent: Vec::new(),
            keep_sent: true,
            outstanding: VecDeque::new(),
            fail_sends: 0,
            link_down: false,
            completes: true,
            receive_checksum: WcChecksum::Valid,
            received: VecDeque::new(),
            doorbells: 0,
            short: false,
        }
    }

    fn check(&self, sge: &Sge, write: bool) -> Result<(), PostError> {
        let region = self.regions.get(sge.lkey.0 as usize).ok_or(PostError::BadLkey)?;
        let inside = sge.addr >= region.addr
            && sge.addr + u64::from(sge.length) <= region.addr + region.length;
        if !inside || (write && !region.writable) {
            return Err(PostError::OutOfBounds);
        }
        Ok(())
    }

    /// Puts one message into posted receives, spanning them if the NIC does; false if none fits.
    pub fn deliver(&mut self, bytes: &[u8]) -> bool {
        let mut needed = 0;
        let mut room = 0;
        for (_, sges) in &self.posted {
            if needed > 0 && (room >= bytes.len() || self.capabilities.receive != Receive::Spanning)
            {
                break;
            }
            room += sges.iter().map(|s| s.length as usize).sum::<usize>();
            needed += 1;
        }
        if needed == 0 || (room < bytes.len() && self.capabilities.receive == Receive::Spanning) {
            return false;
        }
        let mut rest = bytes;
        for left in (0..needed).rev() {
            let (wr_id, sges) = self.posted.pop_front().unwrap();
            if room < bytes.len() {
                self.complete(wr_id, WcStatus::LocalLength, 0, false);
                return true;
            }
            let mut taken = 0;
            for sge in sges {
                let n = rest.len().min(sge.length as usize);
                let to = std::ptr::with_exposed_provenance_mut(usize::try_from(sge.addr).unwrap());
                // SAFETY: the range was checked against a registered region when it was posted.
                unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), to, n) };
                rest = &rest[n..];
                taken += n;
            }
            self.complete(wr_id, WcStatus::Success, taken, left > 0);
        }
        true
    }

    pub fn complete(&mut self, wr_id: u64, status: WcStatus, len: usize, more: bool) {
        self.received.push_back(Completion {
            wr_id,
            status,
            byte_len: u32::try_from(len).unwrap(),
            more,
            checksum: self.receive_checksum,
        });
    }

    pub fn flush(&mut self) {
        while let Some((wr_id, _)) = self.posted.pop_front() {
            self.complete(wr_id, WcStatus::Flushed, 0, false);
        }
    }
}

impl Nic for MemoryNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        self.regions.push(region);
        Ok(Lkey(u32::try_from(self.regions.len() - 1).unwrap()))
    }

    fn deregister(&mut self, lkey: Lkey) {
        if let Some(region) = self.regions.get_mut(lkey.0 as usize) {
            region.length = 0;
        }
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for (i, wr) in wrs.iter().enumerate() {
            for sge in wr.sges {
                self.check(sge, true)?;
            }
            if self.posted.len() >= self.capabilities.max_recv_wr as usize {
                return if i > 0 { Ok(i) } else { Err(PostError::QueueFull) };
            }
            self.posted.push_back((wr.wr_id, wr.sges.to_vec()));
        }
        Ok(wrs.len())
    }

    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        if wr.sges.is_empty() || wr.sges.len() > usize::from(self.capabilities.max_send_sge) {
            return Err(PostError::SgeCount);
        }
        let mut bytes = Vec::new();
        for sge in wr.sges {
            self.check(sge, false)?;
            let from = std::ptr::with_exposed_provenance(usize::try_from(sge.addr).unwrap());
            // SAFETY: the range was just checked against a registered region.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(from, sge.length as usize)
            });
        }
        if bytes.len() > self.capabilities.max_message as usize {
            return Err(PostError::TooLong);
        }
        if self.link_down {
            return Err(PostError::LinkDown);
        }
        if wr.inline {
            assert!(!wr.signalled && bytes.len() <= self.capabilities.max_inline as usize);
        } else if self.outstanding.len() >= self.capabilities.max_send_wr as usize {
            return Err(PostError::QueueFull);
        } else {
            let status = if self.fail_sends > 0 { WcStatus::General } else { WcStatus::Success };
            self.fail_sends = self.fail_sends.saturating_sub(1);
            self.outstanding.push_back((wr.wr_id, wr.signalled, status));
        }
        let message = Message { bytes, offload: wr.offload };
        if self.keep_sent {
            self.sent.push(message.clone());
        }
        self.wire.push_back(message);
        Ok(())
    }

    fn signal_last(&mut self) -> bool {
        self.outstanding.back_mut().map(|newest| newest.1 = true).is_some()
    }

    fn doorbell(&mut self) {
        self.doorbells += 1;
        while self.loops {
            let Some(message) = self.wire.pop_front() else { break };
            if !self.deliver(&message.bytes) {
                self.wire.push_front(message);
                break;
            }
        }
    }

    fn recv_ready(&self) -> bool {
        !self.received.is_empty()
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let n = out.len().min(self.received.len());
        for place in &mut out[..n] {
            *place = self.received.pop_front().unwrap();
        }
        n
    }

    fn post_send_short(&mut self, segment: Segment) -> bool {
        self.short = !self.short;
        let sge = segment.sge();
        let wr = SendWr {
            wr_id: 0,
            sges: &[sge],
            signalled: false,
            inline: true,
            offload: Offload::default(),
        };
        self.short && sge.length <= self.capabilities.max_inline && self.post_send(&wr).is_ok()
    }

    fn poll_recv_one(&mut self) -> PolledOne {
        self.short = !self.short;
        let Some(first) = self.received.front() else { return PolledOne::Nothing };
        let known = self.capabilities.wire == Wire::Frames && first.checksum != WcChecksum::Unknown;
        if !self.short || known || first.more || first.status != WcStatus::Success {
            return PolledOne::Unknown;
        }
        let taken = PolledOne::Taken { wr_id: first.wr_id, byte_len: first.byte_len };
        self.received.pop_front();
        taken
    }

    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        let mut n = 0;
        while self.completes && n < out.len() {
            // Up to the next that completes visibly: an unsignalled tail stays unseen.
            let visible = |&(_, signalled, status): &(u64, bool, WcStatus)| {
                signalled || status != WcStatus::Success
            };
            let Some(at) = self.outstanding.iter().position(visible) else { break };
            let (wr_id, _, status) = self.outstanding.drain(..=at).next_back().unwrap();
            out[n] = Completion {
                wr_id,
                status,
                byte_len: 0,
                more: false,
                checksum: WcChecksum::Unknown,
            };
            n += 1;
        }
        n
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        Ok(if self.recv_ready() { Armed::Pending } else { Armed::Quiet })
    }

    fn disarm(&mut self) {}

    fn event_fd(&self) -> RawFd {
        -1
    }

    fn maintain(&mut self, _now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        Ok(None)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("doorbells", self.doorbells);
    }
}
