//! The driver half of virtio-net against a device that returns anything: ids, lengths, headers,
//! indices. No slot is lost or handed out twice, and every return is counted.

use roceway_rdma_virtio::memory::arena::{Arena, ArenaConfig, ArenaExtra};
use roceway_rdma_virtio::memory::slot::{Piece, SlotClass};
use roceway_rdma_virtio::virtio::driver::{NetDriver, ReceiveLayout, Received};
use roceway_rdma_virtio::virtio::layout::OwnQueue;
use roceway_rdma_virtio::virtio::net_header::NetHeader;
use roceway_rdma_virtio::virtio::ring::{DeviceRing, Policy, SameThread, Shared};

use crate::input::Input;

const SIZE: u16 = 32;
const STEPS_MAX: u32 = 300;
const MERGEABLE: ReceiveLayout = ReceiveLayout { mergeable: true, slots: 1, posted_max: 32 };
const CHAINED: ReceiveLayout = ReceiveLayout { mergeable: false, slots: 4, posted_max: 8 };

/// The target.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let setup = input.byte();
    let layout = if setup & 2 == 0 { MERGEABLE } else { CHAINED };
    if setup & 1 == 0 {
        with::<SameThread>(layout, &mut input);
    } else {
        with::<Shared>(layout, &mut input);
    }
}

struct World<P: Policy> {
    driver: NetDriver<P>,
    arena: Arena,
    /// Transmit and receive, as the hostile device has them.
    rings: [DeviceRing<P>; 2],
    frame: Received,
}

fn with<P: Policy>(layout: ReceiveLayout, input: &mut Input<'_>) {
    let config = ArenaConfig { small: 64, chunks: 32, receive: 64, ..ArenaConfig::default() };
    let mut queues = [SIZE, SIZE].map(|size| OwnQueue::new(size).expect("a legal size"));
    let [transmit, receive] = queues.each_mut().map(|queue| {
        // SAFETY: the halves below are dropped before their queues, which are declared first.
        unsafe { queue.memory() }
    });
    let mut world = World {
        rings: [DeviceRing::new(transmit.clone(), false), DeviceRing::new(receive.clone(), false)],
        driver: NetDriver::<P>::new(transmit, receive, None, layout, false),
        arena: Arena::new(&config, ArenaExtra::default()).expect("there is memory"),
        frame: Received::default(),
    };
    let _ = world.driver.refill(&mut world.arena);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(input);
    }
    world.end(layout);
}

impl<P: Policy> World<P> {
    fn step(&mut self, input: &mut Input<'_>) {
        let word = input.byte();
        let which = usize::from(word >> 7);
        match word & 0x0f {
            // A return of something that was posted, or of nothing that was.
            0..=3 => {
                let head = self.rings[which].peek(u16::from(input.byte()) % SIZE);
                self.rings[which].push_used(head, input.u16().into());
            }
            4 => {
                let head = input.u16();
                self.rings[which].push_used(head, input.u32());
            }
            5 | 6 => {
                let _ = self.rings[which].publish();
            }
            7 => self.header(input),
            8 | 9 => self.send(input),
            10 => {
                if let Ok(waiting) = self.rings[which].waiting() {
                    let count = u16::from(input.byte()) % SIZE;
                    self.rings[which].consume(count.min(waiting));
                }
            }
            _ => self.turn(),
        }
    }

    /// A virtio-net header into a posted buffer.
    fn header(&self, input: &mut Input<'_>) {
        let ring = &self.rings[1];
        let descriptor = ring.descriptor(ring.peek(u16::from(input.byte()) % SIZE) % SIZE);
        let region = self.arena.receive_region();
        let bytes: [u8; 12] = input.array();
        let end = descriptor.addr.saturating_add(12);
        if descriptor.addr < region.addr || end > region.addr + region.length {
            return;
        }
        let to = usize::try_from(descriptor.addr).expect("an address");
        let to = std::ptr::with_exposed_provenance_mut::<[u8; 12]>(to);
        // SAFETY: inside of the arena's receive region, in a buffer that was posted; nobody holds a
        // reference to it now.
        unsafe { to.write_unaligned(bytes) };
    }

    /// A frame of one to four pieces.
    fn send(&mut self, input: &mut Input<'_>) {
        let mut pieces = Vec::new();
        for part in 0..=input.byte() % 4 {
            let class = if part == 0 { SlotClass::Small } else { SlotClass::Chunk };
            let Some(slot) = self.arena.allocate(class) else { break };
            pieces.push(Piece { slot, start: 18, len: u32::from(input.byte()) % 230 + 1 });
        }
        let sent = self.driver.transmit(&mut self.arena, &pieces, &NetHeader::default());
        if sent.is_err() {
            pieces.iter().for_each(|piece| self.arena.release(piece.slot));
        }
    }

    fn turn(&mut self) {
        self.driver.reap(&mut self.arena);
        for _ in 0..2 * SIZE {
            if !self.driver.receive(&mut self.arena, &mut self.frame) {
                break;
            }
            for piece in &self.frame.pieces {
                assert!(!self.arena.piece(*piece).is_empty(), "an empty piece");
                self.arena.release(piece.slot);
            }
        }
        let _ = self.driver.refill(&mut self.arena);
        let counters = self.driver.counters();
        let dropped = counters.rx_drop_short + counters.rx_drop_merge + counters.rx_drop_header;
        assert_eq!(counters.rx_returned, counters.rx_frames + dropped, "{counters:?}");
    }

    fn end(mut self, layout: ReceiveLayout) {
        self.turn();
        assert_eq!(self.arena.counters().misuse, 0, "a slot was given back twice");
        let posted = u32::from(self.driver.in_flight().1) * u32::from(layout.slots);
        assert_eq!(self.arena.free_receive() + posted, self.arena.total_receive());
    }
}

/// Frames received in one buffer and in three, one sent and completed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setup in 0..4 {
        let mut seed = vec![setup];
        seed.extend_from_slice(&[0x87, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        seed.extend_from_slice(&[0x80, 0, 100, 0, 0x85, 12]);
        seed.extend_from_slice(&[0x87, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
        seed.extend_from_slice(&[0x80, 1, 0, 16, 0x80, 2, 0, 16, 0x80, 3, 9, 0, 0x85, 12]);
        seed.extend_from_slice(&[8, 2, 40, 50, 60, 10, 1, 0, 0, 0, 0, 5, 12]);
        seeds.push(seed);
    }
    seeds
}
