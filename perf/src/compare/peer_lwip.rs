//! lwIP over the same soft link, by its raw interface, polled by hand. A frame is copied into a
//! buffer of lwIP's, as its drivers do; the application reads the bytes there.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use roceway_lwip::{Around, Frame, Options, Side, Stack};
use roceway_runtime::rdma_virtio::nic::frames::FrameNic;
use roceway_runtime::rdma_virtio::nic::soft::SoftNic;

use super::peers::{End, PeerRow, Test};
use crate::pattern;

/// The link below, and what came above.
struct Surroundings {
    nic: FrameNic<SoftNic>,
    /// Bytes that came and were not taken, of round trips.
    waiting: Cell<usize>,
}

impl Around for Surroundings {
    fn send(&self, frame: Frame<'_>) -> bool {
        self.nic.has_room() && self.nic.send(frame.length(), |to| frame.copy_to(to)).is_ok()
    }

    fn received(&self, bytes: &[u8]) {
        black_box(pattern::read(bytes));
        self.waiting.set(self.waiting.get() + bytes.len());
    }
}

/// One end: a copy of lwIP, its surroundings, its clock.
pub(super) struct Lwip {
    stack: Stack<Surroundings>,
    around: Surroundings,
    start: Instant,
    is_udp: bool,
}

impl End for Lwip {
    const STACK: &'static str = "lwip";

    fn new(nic: FrameNic<SoftNic>, row: PeerRow, host: u8) -> Result<Lwip, String> {
        let around = Surroundings { nic, waiting: Cell::new(0) };
        let (side, peer) = if host == 1 { (Side::Left, 2) } else { (Side::Right, 1) };
        let PeerRow { test, mtu, checksums } = row;
        let is_udp = test == Test::UdpRr;
        let options = Options { mtu, host, peer, checksums, udp: is_udp, listens: host == 2 };
        let stack = Stack::start(side, options, &around)
            .ok_or("this copy of lwIP is in use, or does not open its socket")?;
        Ok(Lwip { stack, around, start: Instant::now(), is_udp })
    }

    fn nic(&mut self) -> &mut FrameNic<SoftNic> {
        &mut self.around.nic
    }

    fn is_open(&mut self) -> bool {
        self.stack.is_ready()
    }

    fn take_frame(&mut self) {
        let Lwip { stack, around, .. } = self;
        let Some(taken) = around.nic.take() else { return };
        // A frame for which lwIP has no memory is lost, as on any link; a receive that cannot be
        // posted again is missed by the link, which stalls and says so.
        let _taken: bool = around
            .nic
            .read(taken, |frame| stack.input(around, frame))
            .expect("the receive that was taken is posted again");
    }

    fn send(&mut self) {
        // Seven weeks fit.
        let now_ms = u32::try_from(self.start.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.stack.timers(&self.around, now_ms);
    }

    fn take_byte(&mut self) -> bool {
        let waiting = self.around.waiting.get();
        self.around.waiting.set(waiting.saturating_sub(1));
        waiting > 0
    }

    fn give_byte(&mut self) -> Result<(), String> {
        let is_given = if self.is_udp {
            self.stack.send_datagram(&self.around, &[1])
        } else {
            self.stack.write(&self.around, &[1]) == 1
        };
        if is_given { Ok(()) } else { Err("lwIP does not take a byte".into()) }
    }

    fn read_all(&mut self) {
        // They were read as they came.
        self.around.waiting.set(0);
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        Ok(self.stack.write(&self.around, bytes))
    }
}
