//! One side of a soft link with its memory, for the tests.
//!
//! Receives are 4 KiB each, `wr_id` is the number of the buffer, and every posted buffer is
//! posted again when its message was read.

use std::time::{Duration, Instant};

use roceway_rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_rdma_virtio::memory::region::{Region, RegionTable, Segment};
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, RegionView, SendWr, Sge,
    WcChecksum, WcStatus,
};

/// Bytes of each receive.
pub(crate) const RECV_LEN: u32 = 4096;
/// Bytes of transmit memory.
pub(crate) const TX_LEN: usize = 1 << 20;

/// Nothing yet.
pub(crate) const NO_COMPLETION: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// A NIC and its memory. The memory is declared last: it must outlive the NIC.
pub(crate) struct Side<N: Nic> {
    pub(crate) nic: N,
    pub(crate) tx_lkey: Lkey,
    pub(crate) rx_lkey: Lkey,
    pub(crate) tx: Mapping,
    pub(crate) rx: Mapping,
    began: Instant,
    /// A message of which more is to come.
    partial: Vec<u8>,
}

impl<N: Nic> Side<N> {
    pub(crate) fn new(mut nic: N, receives: u32) -> Side<N> {
        let tx = Mapping::create(c"test-tx", TX_LEN, PageWish::Ordinary).unwrap();
        tx.seal().unwrap();
        let length = usize::try_from(receives.max(1) * RECV_LEN).unwrap();
        let rx = Mapping::create(c"test-rx", length, PageWish::Ordinary).unwrap();
        let view = |mapping: &Mapping, writable| RegionView {
            addr: mapping.addr(),
            length: u64::try_from(mapping.len()).unwrap(),
            memfd: Some((std::os::fd::AsRawFd::as_raw_fd(&mapping.memfd(0)), 0)),
            writable,
        };
        // SAFETY: the mapping is dropped after the NIC.
        let tx_lkey = unsafe { nic.register(view(&tx, false)) }.unwrap();
        // SAFETY: as above; the tests read received bytes only after their completion.
        let rx_lkey = unsafe { nic.register(view(&rx, true)) }.unwrap();
        let mut side =
            Side { nic, tx_lkey, rx_lkey, tx, rx, began: Instant::now(), partial: Vec::new() };
        for number in 0..receives {
            side.post_receive(u64::from(number));
        }
        side
    }

    pub(crate) fn now_ns(&self) -> u64 {
        // Not 0 at the start, as the real clock is not.
        u64::try_from(self.began.elapsed().as_nanos()).unwrap() + 1_000_000_000
    }

    pub(crate) fn maintain(&mut self) -> Option<NicEvent> {
        let now = self.now_ns();
        self.nic.maintain(now).unwrap()
    }

    /// Maintains until the event comes; panics after ten seconds.
    pub(crate) fn wait_for(&mut self, event: NicEvent) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.maintain() != Some(event) {
            assert!(Instant::now() < end, "no {event:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn post_receive(&mut self, number: u64) {
        let addr = self.rx.addr() + number * u64::from(RECV_LEN);
        let sges = [Sge { addr, length: RECV_LEN, lkey: self.rx_lkey }];
        assert_eq!(self.nic.post_recv(&[RecvWr { wr_id: number, sges: &sges }]), Ok(1));
    }

    pub(crate) fn tx_sge(&self, offset: u32, length: u32) -> Sge {
        Sge { addr: self.tx.addr() + u64::from(offset), length, lkey: self.tx_lkey }
    }

    pub(crate) fn tx_segment(&self, offset: u32, length: u32) -> Segment {
        let (addr, lkey) = (self.tx.addr(), self.tx_lkey);
        let mut table = RegionTable::new();
        let region = Region { base: addr, length: TX_LEN as u64, host: addr, lkey };
        // SAFETY: the mapping outlives the segment, which the test uses at once.
        unsafe { table.insert(region) }.unwrap();
        table.find(addr + u64::from(offset), length).unwrap()
    }

    /// Writes transmit memory, which no outstanding request may be reading.
    pub(crate) fn write_tx(&mut self, offset: u32, bytes: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        assert!(start + bytes.len() <= TX_LEN);
        let to = self.tx.as_mut_ptr().wrapping_add(start);
        // SAFETY: inside the mapping, as just asserted; the test has completed what reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    pub(crate) fn send(&mut self, sges: &[Sge], inline: bool, wr_id: u64) -> Result<(), PostError> {
        let wr = SendWr { wr_id, sges, signalled: !inline, inline, offload: Offload::default() };
        let result = self.nic.post_send(&wr);
        self.nic.doorbell();
        result
    }

    /// Sends bytes from the given place in pieces of at most 4 KiB.
    pub(crate) fn send_bytes(
        &mut self,
        offset: u32,
        bytes: &[u8],
        wr_id: u64,
    ) -> Result<(), PostError> {
        self.write_tx(offset, bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let sges: Vec<Sge> = (0..length)
            .step_by(4096)
            .map(|start| self.tx_sge(offset + start, 4096.min(length - start)))
            .collect();
        self.send(&sges, false, wr_id)
    }

    /// Takes the next whole message and posts its receives again.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut out = [NO_COMPLETION];
        while self.nic.poll_recv(&mut out) == 1 {
            let [completion] = out;
            assert_eq!(completion.status, WcStatus::Success);
            let bytes = self.received(completion.wr_id, completion.byte_len);
            self.partial.extend_from_slice(&bytes);
            self.post_receive(completion.wr_id);
            if !completion.more {
                return Some(std::mem::take(&mut self.partial));
            }
        }
        None
    }

    /// The bytes of a receive that has completed.
    pub(crate) fn received(&self, wr_id: u64, byte_len: u32) -> Vec<u8> {
        let length = usize::try_from(byte_len).unwrap();
        let start = usize::try_from(wr_id * u64::from(RECV_LEN)).unwrap();
        assert!(start + length <= self.rx.len());
        let mut bytes = vec![0_u8; length];
        let from = self.rx.as_ptr().wrapping_add(start);
        // SAFETY: a completed receive within the mapping belongs to the test.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length) };
        bytes
    }

    /// Takes all send completions that are there.
    pub(crate) fn completions(&mut self) -> Vec<(u64, WcStatus)> {
        let mut all = Vec::new();
        let mut out = [NO_COMPLETION; 8];
        loop {
            let count = self.nic.poll_send(&mut out);
            all.extend(out[..count].iter().map(|done| (done.wr_id, done.status)));
            if count == 0 {
                return all;
            }
        }
    }
}

/// Two linked sides in one thread.
pub(crate) fn linked_pair(options: &SoftOptions, receives: u32) -> (Side<SoftNic>, Side<SoftNic>) {
    let (left, right) = SoftNic::pair(options).unwrap();
    let mut left = Side::new(left, receives);
    let mut right = Side::new(right, receives);
    link(&mut left, &mut right);
    (left, right)
}

/// Maintains both until the link is up.
pub(crate) fn link<M: Nic, N: Nic>(left: &mut Side<M>, right: &mut Side<N>) {
    let (mut left_up, mut right_up) = (false, false);
    for _ in 0..2000 {
        left_up |= left.maintain() == Some(NicEvent::LinkUp);
        right_up |= right.maintain() == Some(NicEvent::LinkUp);
        if left_up && right_up {
            return;
        }
        std::thread::sleep(Duration::from_millis(u64::from(!left_up)));
    }
    panic!("the link does not come up");
}

/// Bytes that differ from message to message.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0_u64..)
        .map(|number| (number.wrapping_mul(seed | 1) ^ seed.rotate_left(7)).to_le_bytes()[1])
        .take(length)
        .collect()
}

/// The sums of the counters hold.
pub(crate) fn conserved(sides: &[&Side<SoftNic>]) {
    for side in sides {
        side.nic.check_conservation().unwrap();
    }
}
