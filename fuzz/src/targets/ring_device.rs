//! The device half of virtio-net against a driver that writes anything into the rings and into
//! the memory that it names, over both policies and both kinds of wire.
//!
//! An input is a byte of setup and then steps: descriptors, heads, publishing, and turns of the
//! device. A segment that leaves its region fails in the NIC.

use roceway_rdma_virtio::memory::arena::{Arena, ArenaConfig, ArenaExtra};
use roceway_rdma_virtio::memory::region::{Region, RegionTable};
use roceway_rdma_virtio::nic::{Nic, Receive, WcStatus, Wire};
use roceway_rdma_virtio::virtio::device::{DeviceQueues, NetDevice, SCRATCH_COUNT, SCRATCH_LEN};
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::layout::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, OwnQueue,
};
use roceway_rdma_virtio::virtio::ring::{DriverRing, Policy, SameThread, Shared};

use super::nic::SinkNic;
use crate::input::Input;

const SIZE: u16 = 32;
const STEPS_MAX: u32 = 300;

/// The target.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let setup = input.byte();
    if setup & 1 == 0 {
        with::<SameThread>(setup, &mut input);
    } else {
        with::<Shared>(setup, &mut input);
    }
}

fn with<P: Policy>(setup: u8, input: &mut Input<'_>) {
    let config = ArenaConfig { small: 64, chunks: 32, receive: 32, ..ArenaConfig::default() };
    let scratch_len = SCRATCH_LEN * SCRATCH_COUNT;
    let extra = ArenaExtra { scratch_len, ..ArenaExtra::default() };
    let arena = Arena::new(&config, extra).expect("there is memory");
    let mut queues = [SIZE, SIZE].map(|size| OwnQueue::new(size).expect("a legal size"));
    let [transmit, receive] = queues.each_mut().map(|queue| {
        // SAFETY: the halves below are dropped before their queues, which are declared first.
        unsafe { queue.memory() }
    });
    let wire = if setup & 2 == 0 { Wire::VirtioNet } else { Wire::Frames };
    let receives = if setup & 4 == 0 { Receive::Spanning } else { Receive::OneMessage };
    let mut nic = SinkNic::new(wire, receives, setup & 8 == 0);
    let mut regions = RegionTable::new();
    let views = [arena.transmit_region(), arena.receive_region()];
    for view in views {
        // SAFETY: the arena is declared before the NIC and the device, so it outlives them.
        let lkey = unsafe { nic.register(view) }.expect("a sink takes any region");
        let region = Region { base: view.addr, length: view.length, host: view.addr, lkey };
        // SAFETY: as above.
        unsafe { regions.insert(region) }.expect("regions do not overlap");
    }
    let (scratch, _) = arena.scratch();
    let scratch = regions.find(scratch, scratch_len);
    let both = DeviceQueues { transmit: transmit.clone(), receive: receive.clone() };
    let mut features = Features::ALL_OURS;
    if setup & 16 != 0 {
        features = Features::native(nic.capabilities()).and(features);
    }
    let capabilities = nic.capabilities().clone();
    let device = NetDevice::<P>::new(&capabilities, (features, features), regions, both, scratch);
    let rings = [DriverRing::new(transmit, false), DriverRing::new(receive, false)];
    let bases = [views[0].addr, views[1].addr];
    let lengths = [views[0].length, views[1].length];
    let mut world = World { device, nic, rings, bases, lengths };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(input);
    }
    world.end();
}

struct World<P: Policy> {
    device: NetDevice<P>,
    nic: SinkNic,
    /// Transmit and receive, as the hostile driver has them.
    rings: [DriverRing<P>; 2],
    bases: [u64; 2],
    lengths: [u64; 2],
}

impl<P: Policy> World<P> {
    fn step(&mut self, input: &mut Input<'_>) {
        let word = input.byte();
        let which = usize::from(word >> 7);
        match word & 0x0f {
            0..=3 => {
                let id = u16::from(input.byte()) % SIZE;
                let descriptor = self.descriptor(which, input);
                self.rings[which].write(id, descriptor);
            }
            4..=6 => self.rings[which].push_available(u16::from(input.byte()) % (SIZE + 1)),
            7 => self.rings[which].push_available(input.u16()),
            8 => {
                let _ = self.rings[which].publish();
            }
            9 => self.fill(input),
            10 => {
                let bytes = vec![input.byte(); usize::from(input.u16())];
                let status = if word & 0x10 == 0 { WcStatus::Success } else { WcStatus::General };
                self.nic.deliver(&bytes, status);
            }
            11 => {
                self.nic.completes = word & 0x10 == 0;
                self.nic.link_down = word & 0x20 != 0;
            }
            _ => self.turn(),
        }
    }

    /// A descriptor that is near to sense.
    fn descriptor(&self, which: usize, input: &mut Input<'_>) -> Descriptor {
        let shape = input.byte();
        let mut flags = u16::from(shape) & (DESC_NEXT | DESC_WRITE | DESC_INDIRECT);
        if shape & 8 == 0 {
            flags = if which == 1 { flags | DESC_WRITE } else { flags & !DESC_WRITE };
        }
        let addr = match shape >> 6 {
            0 => self.bases[which].wrapping_add(input.u16().into()),
            1 => self.bases[1 - which].wrapping_add(input.u16().into()),
            2 => (self.bases[which] + self.lengths[which]).wrapping_sub(input.u16().into()),
            _ => input.u64(),
        };
        let len = if shape & 0x20 == 0 { input.u16().into() } else { input.u32() };
        let next = if shape & 0x10 == 0 { u16::from(input.byte()) % SIZE } else { input.u16() };
        Descriptor { addr, len, flags, next }
    }

    /// Bytes into transmit memory: headers, frames, indirect tables.
    fn fill(&self, input: &mut Input<'_>) {
        let at = self.bases[0] + u64::from(input.u16());
        let length = usize::from(input.u16());
        let mut bytes = input.take(length).to_vec();
        bytes.resize(length, 0);
        let room = self.bases[0] + self.lengths[0] - at;
        let length = length.min(usize::try_from(room).unwrap_or(0));
        let to = usize::try_from(at).expect("an address");
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: inside of the arena's transmit region, which nobody holds a reference to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) };
    }

    fn turn(&mut self) {
        let _ = self.device.post_receives(&mut self.nic);
        let _ = self.device.receive(&mut self.nic);
        let _ = self.device.transmit(&mut self.nic);
        let _ = self.device.reap(&mut self.nic);
        for ring in &mut self.rings {
            for _ in 0..SIZE {
                if !matches!(ring.pop_used(), Ok(Some(_))) {
                    break;
                }
            }
        }
        let (sends, receives) = self.device.in_flight();
        assert!(sends <= u32::from(SIZE) && receives <= u32::from(SIZE));
    }

    /// Everything that the NIC has comes back, at the latest with the next good frame: a batch
    /// whose
    /// last chain was refused ends without a signal.
    fn end(mut self) {
        self.nic.completes = true;
        self.nic.link_down = false;
        (0..8).for_each(|_| self.turn());
        self.fill(&mut Input::new(&[0, 0, 112, 0]));
        self.rings[0].write(0, Descriptor { addr: self.bases[0], len: 112, flags: 0, next: 0 });
        self.rings[0].push_available(0);
        let _ = self.rings[0].publish();
        (0..8).for_each(|_| self.turn());
        let broken = self.device.counters().broken_ring > 0;
        assert!(broken || !self.device.has_sends(), "sends stay");
    }
}

/// A frame sent, in one descriptor, in a chain, through a table; one received.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setup in [0, 1, 2, 3, 6, 8, 10, 16, 27] {
        let mut seed = vec![setup];
        // Header and frame at 0: plain.
        let mut message = [0; 112];
        message[24..26].copy_from_slice(&[8, 0]);
        seed.extend_from_slice(&[9, 0, 0, 112, 0]);
        seed.extend_from_slice(&message);
        seed.extend_from_slice(&[0, 0, 0, 0, 0, 112, 0, 0, 4, 0, 8, 12]);
        // A chain of two.
        seed.extend_from_slice(&[0, 1, 1, 0, 0, 12, 0, 2, 0, 2, 0, 12, 0, 100, 0, 0, 4, 1, 8, 12]);
        // Receives, and a message into them.
        seed.extend_from_slice(&[0x80, 3, 2, 0, 0, 0, 16, 0, 0x84, 3, 0x88, 12, 10, 7, 100, 0, 12]);
        seeds.push(seed);
    }
    seeds
}
