//! Two stacks, a wire between them and a virtual clock: a world in which a day takes seconds and
//! every run has a seed. Faults are verdicts on single frames; nothing here knows TCP.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of the world")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use roceway_stack::checksum::Sum;
use roceway_stack::frame::{Offloads, RxChecksum, RxFrame, TxFrame};
use roceway_stack::heap_memory::{HeapLimits, HeapMemory};
use roceway_stack::ip::{InterfaceAddress, IpConfig};
use roceway_stack::memory::{Memory, Piece};
use roceway_stack::slab::Id;
use roceway_stack::stack::{Stack, StackConfig, StackKeys};
use roceway_stack::tcp::{Connection, Listener, TcpConfig};
use roceway_stack::time::{Duration, Instant};
use roceway_stack::udp::UdpConfig;

/// A small generator of pseudo-random numbers (SplitMix64): the same run for the same seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the wire does, each in thousandths of the frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplication: u64,
    pub reordering: u64,
    pub corruption: u64,
}

/// How the world is made.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub v6: bool,
    pub offloads: Offloads,
    pub tcp: TcpConfig,
    pub mtu: u16,
    pub delay: Duration,
    pub faults: Faults,
    pub memory: HeapLimits,
    /// Device completions that lag behind: frames held by the device at a time.
    pub device_depth: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            seed: 1,
            v6: false,
            offloads: Offloads { tx_checksum: true, tso4: false, tso6: false },
            tcp: TcpConfig::default(),
            mtu: 1500,
            delay: Duration::from_micros(10),
            faults: Faults::default(),
            memory: HeapLimits::default(),
            device_depth: 0,
        }
    }
}

/// One end.
pub struct Host {
    pub stack: Stack,
    pub mem: HeapMemory,
    pub address: IpAddr,
    in_device: Vec<Vec<Piece>>,
}

/// A frame on the wire.
#[derive(Clone)]
pub struct Wire {
    pub bytes: Vec<u8>,
    pub partial: bool,
    pub gso_size: u16,
}

/// What becomes of a frame; returned by a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Drop,
}

/// Decides about a frame (sender, frame).
pub type Filter = Box<dyn FnMut(usize, &Wire) -> Verdict>;

/// The world.
pub struct World {
    pub now: Instant,
    pub hosts: [Host; 2],
    pub random: Random,
    pub setup: Setup,
    /// Frames under way by arrival time and order.
    flight: BTreeMap<(u64, u64), (usize, Wire)>,
    order: u64,
    pub sent: u64,
    pub lost: u64,
    pub corrupted: u64,
    /// Looks at every frame (sender, frame) before the faults.
    pub filter: Option<Filter>,
}

fn host(setup: &Setup, n: u8) -> Host {
    let address = if setup.v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
    };
    let prefix_len = if setup.v6 { 64 } else { 24 };
    let mac = [2, 0, 0, 0, 0, n];
    let mut ip = IpConfig::new(mac, &[InterfaceAddress { address, prefix_len }]);
    ip.mtu = setup.mtu;
    let seed = u8::try_from(setup.seed % 251).unwrap();
    let keys = StackKeys { ip: [n; 16], udp: [n ^ 7; 16], tcp: [n.wrapping_add(seed); 16] };
    let config = StackConfig {
        ip,
        tcp: setup.tcp.clone(),
        udp: UdpConfig::default(),
        offloads: setup.offloads,
        worker: n,
    };
    let stack = Stack::new(config, &keys, Instant::ZERO).unwrap();
    Host { stack, mem: HeapMemory::new(setup.memory), address, in_device: Vec::new() }
}

impl World {
    pub fn new(setup: Setup) -> World {
        World {
            now: Instant::from_nanos(1_000_000_000),
            hosts: [host(&setup, 1), host(&setup, 2)],
            random: Random::new(setup.seed),
            flight: BTreeMap::new(),
            order: 0,
            sent: 0,
            lost: 0,
            corrupted: 0,
            filter: None,
            setup,
        }
    }

    /// Sends what both hosts have; frames arrive after the delay.
    pub fn transmit(&mut self) {
        for from in 0..2 {
            let mut frame = TxFrame::default();
            loop {
                let host = &mut self.hosts[from];
                if !host.stack.poll_frame(self.now, &mut host.mem, &mut frame) {
                    break;
                }
                let wire = host.take(&frame, self.setup.device_depth);
                self.send(from, wire);
            }
        }
    }

    fn send(&mut self, from: usize, mut wire: Wire) {
        self.sent += 1;
        if let Some(filter) = &mut self.filter
            && filter(from, &wire) == Verdict::Drop
        {
            self.lost += 1;
            return;
        }
        let faults = self.setup.faults;
        if self.random.chance(faults.loss) {
            self.lost += 1;
            return;
        }
        if self.random.chance(faults.corruption) {
            finish_checksum(&mut wire);
            let at = usize::try_from(self.random.below(wire.bytes.len() as u64)).unwrap();
            wire.bytes[at] ^= 1 << self.random.below(8);
            self.corrupted += 1;
        }
        let copies = if self.random.chance(faults.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.setup.delay.as_nanos();
            if self.random.chance(faults.reordering) {
                delay += self.random.below(20 * delay.max(1000));
            }
            self.order += 1;
            let at = (self.now.as_nanos() + delay, self.order);
            self.flight.insert(at, (1 - from, wire.clone()));
        }
    }

    /// Puts a frame on the wire as if host `from` had sent it.
    pub fn inject(&mut self, from: usize, bytes: Vec<u8>) {
        self.order += 1;
        let at = (self.now.as_nanos() + self.setup.delay.as_nanos(), self.order);
        self.flight.insert(at, (1 - from, Wire { bytes, partial: false, gso_size: 0 }));
    }

    /// The next thing that happens, or `NEVER`.
    pub fn next(&self) -> Instant {
        let wire = self.flight.keys().next().map_or(Instant::NEVER, |k| Instant::from_nanos(k.0));
        let a = self.hosts[0].stack.next_deadline();
        let b = self.hosts[1].stack.next_deadline();
        wire.min(a).min(b)
    }

    /// Jumps to the next thing that happens and lets it; false if nothing will, or it lies
    /// beyond `until`.
    pub fn step(&mut self, until: Instant) -> bool {
        self.transmit();
        let next = self.next();
        if next == Instant::NEVER || next > until {
            return false;
        }
        self.now = self.now.max(next);
        while let Some(entry) = self.flight.first_entry() {
            if entry.key().0 > self.now.as_nanos() {
                break;
            }
            let (to, wire) = entry.remove();
            self.hosts[to].deliver(self.now, &wire);
        }
        for host in &mut self.hosts {
            host.stack.on_timers(self.now, 1000, &mut host.mem);
        }
        self.transmit();
        true
    }

    /// Runs for a while, or until nothing happens any more.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    pub fn listen(&mut self, at: usize, port: u16) -> Id<Listener> {
        let address = self.hosts[at].address;
        let (tcp, ip) = self.hosts[at].stack.tcp();
        tcp.listen(SocketAddr::new(address, port), 128, ip).unwrap()
    }

    pub fn connect(&mut self, from: usize, port: u16) -> Id<Connection> {
        let remote = SocketAddr::new(self.hosts[1 - from].address, port);
        let now = self.now;
        let host = &mut self.hosts[from];
        let (tcp, ip) = host.stack.tcp();
        tcp.connect(remote, None, (now, ip), &mut host.mem).unwrap()
    }

    /// A connection from host 0 to host 1, both ends.
    pub fn pair(&mut self) -> (Id<Connection>, Id<Connection>) {
        let listener = self.listen(1, 7);
        let client = self.connect(0, 7);
        for _ in 0..10_000 {
            let now = self.now;
            self.step(now + Duration::from_secs(10));
            if let Some(server) = self.hosts[1].stack.tcp().0.accept(listener) {
                return (client, server);
            }
        }
        panic!("no connection, seed {}", self.setup.seed);
    }

    pub fn write(&mut self, at: usize, id: Id<Connection>, data: &[u8]) -> usize {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.stack.tcp().0.send(id, data, now, &mut host.mem).unwrap_or(0)
    }

    pub fn read(&mut self, at: usize, id: Id<Connection>, out: &mut [u8]) -> Option<usize> {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.stack.tcp().0.receive(id, out, now, &mut host.mem).ok()
    }

    pub fn close(&mut self, at: usize, id: Id<Connection>) {
        let now = self.now;
        let host = &mut self.hosts[at];
        host.stack.tcp().0.close(id, now, &mut host.mem);
    }

    /// Counters conserve and nothing leaks once all is over.
    pub fn check(&self) {
        for host in &self.hosts {
            host.stack.check();
        }
    }
}

impl Host {
    /// Copies a frame out as the device does, and completes it now or later.
    fn take(&mut self, frame: &TxFrame, depth: usize) -> Wire {
        let mut bytes = Vec::new();
        for piece in &frame.pieces {
            bytes.extend_from_slice(self.mem.bytes(*piece));
        }
        self.in_device.push(frame.pieces.iter().copied().collect());
        while self.in_device.len() > depth {
            for piece in self.in_device.remove(0) {
                self.mem.release(piece.slot);
            }
        }
        Wire {
            bytes,
            partial: frame.checksum.is_some(),
            gso_size: frame.segmentation.map_or(0, |s| s.size),
        }
    }

    /// Completes everything that the device holds.
    pub fn complete_all(&mut self) {
        for pieces in self.in_device.drain(..) {
            for piece in pieces {
                self.mem.release(piece.slot);
            }
        }
    }

    pub fn deliver(&mut self, now: Instant, wire: &Wire) {
        let Some(pieces) = self.mem.receive_chain(&wire.bytes) else { return };
        let checksum = if wire.partial { RxChecksum::Partial } else { RxChecksum::Unknown };
        let frame = RxFrame { pieces: &pieces, checksum, gso_size: wire.gso_size };
        self.stack.on_frame(now, &frame, &mut self.mem);
    }
}

/// Completes a partial transport checksum, as a NIC would, so that damage can be seen.
pub fn finish_checksum(wire: &mut Wire) {
    if !std::mem::take(&mut wire.partial) {
        return;
    }
    let v6 = wire.bytes[12..14] == [0x86, 0xdd];
    let start = if v6 { 54 } else { 34 };
    let protocol = if v6 { wire.bytes[20] } else { wire.bytes[23] };
    let place = start + if protocol == 6 { 16 } else { 6 };
    let sum = Sum::of(&wire.bytes[start..]).checksum();
    wire.bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}
