//! Instructions of one frame out and one frame in, through driver half, queues and device half.
//!
//! The NIC is a stand-in whose methods are never inlined, so that callgrind tells them apart:
//! `valgrind --tool=callgrind target/release/deps/virtio_path-* N [bytes [indirect|next]]` for
//! two values of N; the difference divided by that of N is exact.

use std::os::fd::RawFd;

use roceway_rdma_virtio::memory::arena::ArenaConfig;
use roceway_rdma_virtio::memory::slot::{Piece, SlotClass};
use roceway_rdma_virtio::nic::{
    Armed, Capabilities, Completion, DeviceError, Lkey, Nic, NicEvent, PostError, Receive, RecvWr,
    RegionView, SendWr, Sge, WcChecksum, WcStatus, Wire,
};
use roceway_rdma_virtio::virtio::driver::Received;
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::interface::NetInterface;
use roceway_rdma_virtio::virtio::net_header::{NEEDS_CSUM, NetHeader};

/// Sends vanish; each doorbell completes as many receives as there were sends since.
struct StandIn {
    capabilities: Capabilities,
    posted: [(u64, Sge); 512],
    first: usize,
    end: usize,
    sent: u32,
    length: u32,
    ready: u32,
    signalled: Option<u64>,
}

impl StandIn {
    fn new() -> StandIn {
        StandIn {
            capabilities: Capabilities {
                name: "stand-in".to_owned(),
                mac: None,
                mtu: 9000,
                wire: Wire::VirtioNet,
                receive: Receive::Spanning,
                max_message: 70_000,
                max_send_wr: 128,
                max_recv_wr: 512,
                max_send_sge: 32,
                max_recv_sge: 1,
                max_inline: 112,
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
            },
            posted: [(0, Sge { addr: 0, length: 0, lkey: Lkey(0) }); 512],
            first: 0,
            end: 0,
            sent: 0,
            length: 0,
            ready: 0,
            signalled: None,
        }
    }
}

impl Nic for StandIn {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    unsafe fn register(&mut self, region: RegionView) -> Result<Lkey, DeviceError> {
        Ok(Lkey(u32::from(region.writable)))
    }

    fn deregister(&mut self, _lkey: Lkey) {}

    #[inline(never)]
    fn post_recv(&mut self, wrs: &[RecvWr<'_>]) -> Result<usize, PostError> {
        for wr in wrs {
            self.posted[self.end % 512] = (wr.wr_id, wr.sges[0]);
            self.end += 1;
        }
        Ok(wrs.len())
    }

    #[inline(never)]
    fn post_send(&mut self, wr: &SendWr<'_>) -> Result<(), PostError> {
        self.sent += 1;
        self.length = wr.sges.iter().map(|s| s.length).sum();
        if wr.signalled {
            self.signalled = Some(wr.wr_id);
        }
        Ok(())
    }

    #[inline(never)]
    fn doorbell(&mut self) {
        self.ready += self.sent;
        self.sent = 0;
    }

    #[inline(never)]
    fn recv_ready(&self) -> bool {
        self.ready > 0
    }

    #[inline(never)]
    fn poll_recv(&mut self, out: &mut [Completion]) -> usize {
        let mut n = 0;
        while self.ready > 0 && n < out.len() && self.first < self.end {
            let (wr_id, sge) = self.posted[self.first % 512];
            self.first += 1;
            self.ready -= 1;
            let header = NetHeader {
                flags: NEEDS_CSUM,
                csum_start: 34,
                csum_offset: 16,
                ..NetHeader::RECEIVED
            };
            let place = usize::try_from(sge.addr).unwrap();
            let place = std::ptr::with_exposed_provenance_mut::<[u8; 12]>(place);
            // SAFETY: a posted receive of the interface's arena, which is ours to write.
            unsafe { place.write_unaligned(header.encode()) };
            out[n] = Completion {
                wr_id,
                status: WcStatus::Success,
                byte_len: self.length.min(sge.length),
                more: false,
                checksum: WcChecksum::Unknown,
            };
            n += 1;
        }
        n
    }

    #[inline(never)]
    fn poll_send(&mut self, out: &mut [Completion]) -> usize {
        let Some(wr_id) = self.signalled.take() else { return 0 };
        out[0] = Completion {
            wr_id,
            status: WcStatus::Success,
            byte_len: 0,
            more: false,
            checksum: WcChecksum::Unknown,
        };
        1
    }

    fn arm(&mut self) -> Result<Armed, DeviceError> {
        Ok(Armed::Pending)
    }

    fn disarm(&mut self) {}

    fn event_fd(&self) -> RawFd {
        -1
    }

    fn maintain(&mut self, _now_ns: u64) -> Result<Option<NicEvent>, DeviceError> {
        Ok(None)
    }

    fn visit_counters(&self, _visit: &mut dyn FnMut(&'static str, u64)) {}
}

/// The slots of one frame of `len` bytes: a small one, and chunks for what does not fit it.
#[inline(never)]
fn frame(interface: &mut NetInterface<StandIn>, len: u32) -> arrayvec::ArrayVec<Piece, 18> {
    let mut pieces = arrayvec::ArrayVec::new();
    let mut left = len;
    while left > 0 {
        let class = if pieces.is_empty() { SlotClass::Small } else { SlotClass::Chunk };
        let slot = interface.memory().allocate(class).expect("slots suffice");
        let (start, room) = if pieces.is_empty() { (18, 200) } else { (0, 4096) };
        let len = left.min(room);
        pieces.push(Piece { slot, start, len });
        left -= len;
    }
    pieces
}

#[inline(never)]
fn give_back(interface: &mut NetInterface<StandIn>, frame: &Received) {
    for piece in &frame.pieces {
        interface.memory().release(piece.slot);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let count: u64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1000);
    let length: u32 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(67);
    let next = arguments.next().is_some_and(|a| a == "next");
    let wanted =
        if next { Features::ALL_OURS.without(Features::INDIRECT_DESC) } else { Features::ALL_OURS };
    let mut interface =
        NetInterface::new(StandIn::new(), &ArenaConfig::default(), wanted, 256).expect("opens");
    let header =
        NetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..NetHeader::default() };
    let mut received = Received::default();
    for _ in 0..count {
        let pieces = frame(&mut interface, length);
        interface.transmit(&pieces, &header).expect("the queue has room");
        interface.doorbell();
        interface.reap();
        interface.refill();
        while interface.recv_ready() && interface.receive(&mut received) {
            give_back(&mut interface, &received);
        }
    }
    let (driver, device) = interface.counters();
    assert_eq!(driver.rx_frames, count);
    println!("{count} frames of {length} bytes each way, {} inline", device.tx_inline);
}
