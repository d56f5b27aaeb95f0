//! A NIC that ends in itself: it checks what it is asked to do as hardware would, takes the bytes,
//! and delivers what the target tells it to.
//!
//! A request that hardware would refuse for its lkey or bounds is a failure of the device half,
//! which
//! must have checked it before.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use roceway_rdma_virtio::nic::{
    Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PostError, Receive, RecvWr,
    RegionView, SendWr, Sge, WcChecksum, WcStatus, Wire,
};

/// The NIC.
pub(crate) struct SinkNic {
    capabilities: Capabilities,
    regions: Vec<RegionView>,
    posted: VecDeque<(u64, Vec<Sge>)>,
    outstanding: VecDeque<(u64, bool)>,
    received: VecDeque<Completion>,
    /// Whether sends complete.
    pub(crate) completes: bool,
    /// Whether sends are refused as if there were no link.
    pub(crate) link_down: bool,
    /// Sums of what was sent, so that it is read.
    pub(crate) digest: u64,
}

impl SinkNic {
    pub(crate) fn new(wire: Wire, receive: Receive, tso: bool) -> SinkNic {
        let capabilities = Capabilities {
            name: "sink:".to_owned(),
            mac: None,
            mtu: 1500,
            wire,
            receive,
            max_message: 70_000,
            max_send_wr: 16,
            max_recv_wr: 32,
            max_send_sge: 20,
            max_recv_sge: 20,
            max_inline: 128,
            tx_checksum: tso,
            rx_checksum: true,
            tso4: tso,
            tso6: tso,
            rx_large4: true,
            rx_large6: true,
            tso_ecn: tso,
            uso: tso,
            rx_ecn: true,
            rx_uso4: true,
            rx_uso6: true,
        };
        SinkNic {
            capabilities,
            regions: Vec::new(),
            posted: VecDeque::new(),
            outstanding: VecDeque::new(),
            received: VecDeque::new(),
            completes: true,
            link_down: false,
            digest: 0,
        }
    }

    /// Whether the region may be written, which only the NIC knows; everything else must hold.
    fn check(&self, sge: &Sge) -> bool {
        let index = usize::try_from(sge.lkey.0).unwrap_or(usize::MAX);
        let region = self.regions.get(index).expect("the lkey is a region's");
        let end = sge.addr.checked_add(sge.length.into()).expect("the range does not wrap");
        let inside = sge.addr >= region.addr && end <= region.addr + region.length;
        assert!(inside, "{sge:?} leaves its region");
        region.writable
    }

    /// A message of this length arrives, in as many receives as it takes.
    pub(crate) fn deliver(&mut self, bytes: &[u8], status: WcStatus) {
        let mut rest = bytes;
        while let Some((wr_id, sges)) = self.posted.pop_front() {
            let mut taken = 0;
            for sge in sges {
                assert!(self.check(&sge), "{sge:?} was posted");
                let length = rest.len().min(usize::try_from(sge.length).unwrap_or(0));
                let addr = usize::try_from(sge.addr).expect("an address");
                let to = std::ptr::with_exposed_provenance_mut::<u8>(addr);
                // SAFETY: the range was just checked against a registered region, which its owner
                // keeps mapped, and a posted receive is the NIC's to write.
                unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), to, length) };
                rest = &rest[length..];
                taken += length;
            }
            let spans = self.capabilities.receive == Receive::Spanning;
            let more = spans && !rest.is_empty() && !self.posted.is_empty();
            let byte_len = if status == WcStatus::Success { taken } else { 0 };
            self.received.push_back(Completion {
                wr_id,
                status,
                byte_len: u32::try_from(byte_len).expect("a message is short"),
                more,
                checksum: WcChecksum::Unknown,
            });
            if !more {
                break;
            }
        }
    }
}

impl Nic for SinkNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        self.regions.push(region);
        Ok(Lkey(u32::try_from(self.regions.len() - 1).unwrap_or(0)))
    }

    fn deregister(&mut self, lkey: Lkey) {
        if let Some(region) = self.regions.get_mut(lkey.0 as usize) {
            region.length = 0;
        }
    }

    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        let room = usize::try_from(self.capabilities.max_recv_wr).unwrap_or(0);
        for (taken, wr) in wrs.iter().enumerate() {
            if !wr.sges.iter().all(|sge| self.check(sge)) {
                return if taken > 0 { Ok(taken) } else { Err(PostError::OutOfBounds) };
            }
            assert!((1..=usize::from(self.capabilities.max_recv_sge)).contains(&wr.sges.len()));
            if self.posted.len() >= room {
                return if taken > 0 { Ok(taken) } else { Err(PostError::QueueFull) };
            }
            self.posted.push_back((wr.wr_id, wr.sges.to_vec()));
        }
        Ok(wrs.len())
    }

    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        assert!((1..=usize::from(self.capabilities.max_send_sge)).contains(&wr.sges.len()));
        let mut length = 0;
        for sge in wr.sges {
            let _readable = self.check(sge);
            length += sge.length;
        }
        if length > self.capabilities.max_message {
            return Err(PostError::TooLong);
        }
        if self.link_down {
            return Err(PostError::LinkDown);
        }
        assert!(!wr.inline || (!wr.signalled && length <= self.capabilities.max_inline));
        let room = usize::try_from(self.capabilities.max_send_wr).unwrap_or(0);
        if !wr.inline && self.outstanding.len() >= room {
            return Err(PostError::QueueFull);
        }
        if !wr.inline {
            self.outstanding.push_back((wr.wr_id, wr.signalled));
        }
        for sge in wr.sges.iter().filter(|sge| sge.length > 0) {
            let addr = usize::try_from(sge.addr).expect("an address");
            let first = std::ptr::with_exposed_provenance::<u8>(addr);
            // SAFETY: the range was checked against a registered region above.
            let byte = unsafe { first.read_volatile() };
            self.digest = self.digest.wrapping_mul(31).wrapping_add(byte.into());
        }
        Ok(())
    }

    fn doorbell(&mut self) {}

    fn recv_ready(&self) -> bool {
        !self.received.is_empty()
    }

    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let count = out.len().min(self.received.len());
        for (place, completion) in out.iter_mut().zip(self.received.drain(..count)) {
            *place = completion;
        }
        count
    }

    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        let mut count = 0;
        while self.completes && count < out.len() {
            let Some(at) = self.outstanding.iter().position(|send| send.1) else { break };
            let Some((wr_id, _)) = self.outstanding.drain(..=at).next_back() else { break };
            let (status, checksum) = (WcStatus::Success, WcChecksum::Unknown);
            out[count] = Completion { wr_id, status, byte_len: 0, more: false, checksum };
            count += 1;
        }
        count
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
        visit("digest", self.digest);
    }
}
