//! Two stacks, a wire between them and a virtual clock: a world in which a day takes seconds and
//! every run has a seed. Faults are verdicts on single frames; nothing here knows connections.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of the world")]

pub mod script;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use roceway_stack::frame::{Burst, Offloads, RxChecksum, RxFrame, TxFrame};
use roceway_stack::heap_memory::{HeapLimits, HeapMemory};
use roceway_stack::ip::{InterfaceAddress, IpConfig};
use roceway_stack::memory::{Memory, Piece};
use roceway_stack::slab::Id;
use roceway_stack::stack::{Stack, StackConfig, StackKeys};
use roceway_stack::tcp::{Connection, Listener, TcpConfig, TcpCounters};
use roceway_stack::time::{Duration, Instant};
use roceway_stack::udp::UdpConfig;

pub use wire::Wire;

/// A small generator of pseudo-random numbers (SplitMix64): the same run for the same seed.
#[derive(Clone, Debug)]
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

    /// As `below`, for indices and lengths.
    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `choices`.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
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
    /// Large frames are cut into segments on the way; else they pass whole.
    pub cut: bool,
    /// The stack is asked for single frames only.
    pub single: bool,
    /// The wire completes checksums, so that the receiver must compute them.
    pub finish: bool,
    pub tcp: TcpConfig,
    pub mtu: u16,
    pub delay: Duration,
    pub faults: Faults,
    pub memory: HeapLimits,
    /// The longest time until the device completes a frame; it completes them in any order.
    pub device_lag: Duration,
    /// How far each host's clock is ahead of the world's.
    pub skew: [Duration; 2],
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            seed: 1,
            v6: false,
            offloads: Offloads { tx_checksum: true, ..Offloads::default() },
            cut: false,
            single: false,
            finish: false,
            tcp: TcpConfig::default(),
            mtu: 1500,
            delay: Duration::from_micros(10),
            faults: Faults::default(),
            memory: HeapLimits::default(),
            device_lag: Duration::ZERO,
            skew: [Duration::ZERO; 2],
        }
    }
}

/// One end.
pub struct Host {
    pub stack: Stack,
    pub mem: HeapMemory,
    pub address: IpAddr,
    /// Frames that the device has not completed, and when it will.
    in_device: Vec<(Instant, Vec<Piece>)>,
    /// Until then the host does not turn.
    pub stalled_until: Instant,
    skew: Duration,
}

/// What becomes of a frame; returned by a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Drop,
    Damage,
    Duplicate,
    /// Arrives this much later.
    Delay(Duration),
}

/// Decides about a frame (sender, frame).
pub type Filter = Box<dyn FnMut(usize, &Wire) -> Verdict>;

/// The world.
pub struct World {
    pub now: Instant,
    pub hosts: [Host; 2],
    pub random: Random,
    pub setup: Setup,
    pub link_up: bool,
    /// Frames under way by arrival time and order.
    flight: BTreeMap<(u64, u64), (usize, Wire)>,
    order: u64,
    /// Steps since the clock last moved.
    idle_steps: u32,
    pub sent: u64,
    pub lost: u64,
    pub corrupted: u64,
    /// Frames that left in bursts.
    pub in_bursts: usize,
    /// Frames that found no receive slot.
    pub overrun: u64,
    /// Looks at every frame (sender, frame) before the faults.
    pub filter: Option<Filter>,
}

pub fn host_address(v6: bool, n: u8) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
    }
}

fn host(setup: &Setup, n: u8) -> Host {
    let address = host_address(setup.v6, n);
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
    let skew = setup.skew[usize::from(n) - 1];
    let stack = Stack::new(config, &keys, Instant::ZERO + skew).unwrap();
    let mem = HeapMemory::new(setup.memory);
    Host { stack, mem, address, in_device: Vec::new(), stalled_until: Instant::ZERO, skew }
}

impl World {
    pub fn new(setup: Setup) -> World {
        World {
            now: Instant::from_nanos(1_000_000_000),
            hosts: [host(&setup, 1), host(&setup, 2)],
            random: Random::new(setup.seed),
            link_up: true,
            flight: BTreeMap::new(),
            order: 0,
            idle_steps: 0,
            sent: 0,
            lost: 0,
            corrupted: 0,
            in_bursts: 0,
            overrun: 0,
            filter: None,
            setup,
        }
    }

    /// What a host's clock shows.
    pub fn now_at(&self, host: usize) -> Instant {
        self.now + self.hosts[host].skew
    }

    /// Sends what both hosts have; frames arrive after the delay.
    pub fn transmit(&mut self) {
        for from in 0..2 {
            if self.hosts[from].stalled_until > self.now {
                continue;
            }
            let now = self.now_at(from);
            let mut frame = TxFrame::default();
            loop {
                let burst = self.burst(from);
                burst.iter().for_each(|frame| self.transmit_one(from, frame));
                let host = &mut self.hosts[from];
                if host.stack.poll_frame(now, &mut host.mem, &mut frame) {
                    self.transmit_one(from, &frame);
                } else if burst.is_empty() {
                    break;
                }
            }
        }
    }

    /// What the stack has in a row, unless it is only asked for single frames.
    fn burst(&mut self, from: usize) -> Vec<TxFrame> {
        if self.setup.single {
            return Vec::new();
        }
        let now = self.now_at(from);
        let host = &mut self.hosts[from];
        let mut burst = Burst::new();
        host.stack.poll_burst(now, &mut host.mem, &mut burst);
        let checksum = self.setup.offloads.tx_checksum.then_some(Stack::PLAIN_CHECKSUM);
        self.in_bursts += burst.len();
        let frame = |&piece: &Piece| TxFrame {
            pieces: core::iter::once(piece).collect(),
            checksum,
            segmentation: None,
        };
        burst.iter().map(frame).collect()
    }

    fn transmit_one(&mut self, from: usize, frame: &TxFrame) {
        let lag = self.random.below(self.setup.device_lag.as_nanos() + 1);
        let wire = self.hosts[from].take(frame, self.now + Duration::from_nanos(lag));
        if self.setup.cut {
            wire.cut().into_iter().for_each(|wire| self.send(from, wire));
        } else {
            self.send(from, wire);
        }
    }

    fn send(&mut self, from: usize, mut wire: Wire) {
        self.sent += 1;
        let faults = self.setup.faults;
        let verdict = self.filter.as_mut().map_or(Verdict::Pass, |filter| filter(from, &wire));
        if verdict == Verdict::Drop || !self.link_up || self.random.chance(faults.loss) {
            self.lost += 1;
            return;
        }
        if self.setup.finish && wire.gso_size == 0 {
            wire.finish_checksum();
        }
        if verdict == Verdict::Damage || self.random.chance(faults.corruption) {
            wire.damage(&mut self.random);
            self.corrupted += 1;
        }
        let twice = verdict == Verdict::Duplicate || self.random.chance(faults.duplication);
        for _ in 0..if twice { 2 } else { 1 } {
            let mut delay = self.setup.delay;
            if let Verdict::Delay(more) = verdict {
                delay = delay + more;
            }
            if self.random.chance(faults.reordering) {
                let longest = 20 * self.setup.delay.as_nanos().max(1000);
                delay = delay + Duration::from_nanos(self.random.below(longest));
            }
            self.arrive(1 - from, delay, wire.clone());
        }
    }

    fn arrive(&mut self, to: usize, delay: Duration, wire: Wire) {
        self.order += 1;
        self.flight.insert(((self.now + delay).as_nanos(), self.order), (to, wire));
    }

    /// Puts a frame on the wire as if host `from` had sent it.
    pub fn inject(&mut self, from: usize, bytes: Vec<u8>) {
        self.arrive(1 - from, self.setup.delay, Wire::whole(bytes));
    }

    /// The next thing that happens, or `NEVER`.
    pub fn next(&self) -> Instant {
        let first = self.flight.keys().next();
        let mut next = first.map_or(Instant::NEVER, |key| Instant::from_nanos(key.0));
        for host in &self.hosts {
            let done = host.in_device.iter().map(|it| it.0).min().unwrap_or(Instant::NEVER);
            let timer = host.stack.next_deadline();
            let timer = if timer == Instant::NEVER { timer } else { timer - host.skew };
            next = next.min(done.min(timer).max(host.stalled_until));
        }
        next
    }

    /// Jumps to the next thing that happens and lets it; false if nothing will, or it lies
    /// beyond `until`.
    pub fn step(&mut self, until: Instant) -> bool {
        self.transmit();
        let next = self.next();
        if next == Instant::NEVER || next > until {
            return false;
        }
        self.idle_steps = if next > self.now { 0 } else { self.idle_steps + 1 };
        assert!(self.idle_steps < 100_000, "time stands still, seed {}", self.setup.seed);
        self.now = self.now.max(next);
        self.arrivals();
        for host in &mut self.hosts {
            host.complete(self.now);
            if host.stalled_until <= self.now {
                host.stack.on_timers(self.now + host.skew, 1000, &mut host.mem);
            }
        }
        self.transmit();
        true
    }

    /// Delivers what has arrived; a host that does not turn finds it when it does.
    fn arrivals(&mut self) {
        while let Some(entry) = self.flight.first_entry() {
            if entry.key().0 > self.now.as_nanos() {
                break;
            }
            let ((_, order), (to, wire)) = entry.remove_entry();
            let until = self.hosts[to].stalled_until;
            if until > self.now {
                self.flight.insert((until.as_nanos(), order), (to, wire));
            } else if !self.hosts[to].deliver(self.now, &wire) {
                self.overrun += 1;
            }
        }
    }

    /// Runs for a while, or until nothing happens any more.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// The host does not turn for a while.
    pub fn stall(&mut self, host: usize, time: Duration) {
        self.hosts[host].stalled_until = self.now + time;
    }

    /// The link goes up or down.
    pub fn set_link(&mut self, up: bool) {
        if up && !self.link_up {
            for host in 0..2 {
                let now = self.now_at(host);
                self.hosts[host].stack.on_link_up(now);
            }
        }
        self.link_up = up;
    }

    pub fn listen(&mut self, at: usize, port: u16) -> Id<Listener> {
        let address = self.hosts[at].address;
        let (tcp, ip) = self.hosts[at].stack.tcp();
        tcp.listen(SocketAddr::new(address, port), 128, ip).unwrap()
    }

    pub fn connect(&mut self, from: usize, port: u16) -> Id<Connection> {
        self.connect_from(from, None, port)
    }

    /// With a local port.
    pub fn connect_from(&mut self, from: usize, local: Option<u16>, port: u16) -> Id<Connection> {
        let remote = SocketAddr::new(self.hosts[1 - from].address, port);
        let local = local.map(|port| SocketAddr::new(self.hosts[from].address, port));
        let now = self.now_at(from);
        let host = &mut self.hosts[from];
        let (tcp, ip) = host.stack.tcp();
        tcp.connect(remote, local, (now, ip)).unwrap()
    }

    pub fn accept(&mut self, at: usize, listener: Id<Listener>) -> Option<Id<Connection>> {
        self.hosts[at].stack.tcp().0.accept(listener)
    }

    /// A connection from host 0 to host 1, both ends.
    pub fn pair(&mut self) -> (Id<Connection>, Id<Connection>) {
        let listener = self.listen(1, 7);
        let client = self.connect(0, 7);
        for _ in 0..10_000 {
            let now = self.now;
            self.step(now + Duration::from_secs(10));
            if let Some(server) = self.accept(1, listener) {
                return (client, server);
            }
        }
        panic!("no connection, seed {}", self.setup.seed);
    }

    pub fn write(&mut self, at: usize, id: Id<Connection>, data: &[u8]) -> usize {
        let host = &mut self.hosts[at];
        host.stack.tcp().0.send(id, data, &mut host.mem).unwrap_or(0)
    }

    pub fn read(&mut self, at: usize, id: Id<Connection>, out: &mut [u8]) -> Option<usize> {
        let host = &mut self.hosts[at];
        host.stack.tcp().0.receive(id, out, &mut host.mem).ok()
    }

    pub fn close(&mut self, at: usize, id: Id<Connection>) {
        let now = self.now_at(at);
        let host = &mut self.hosts[at];
        host.stack.tcp().0.close(id, now, &mut host.mem);
    }

    pub fn counters(&mut self, at: usize) -> TcpCounters {
        self.hosts[at].stack.tcp().0.counters()
    }

    /// Counters conserve.
    pub fn check(&self) {
        for host in &self.hosts {
            host.stack.check();
        }
    }

    /// Counters conserve, and nothing is left once all is over: no connection, slot or timer.
    pub fn check_over(&mut self) {
        let sent = self.sent;
        let until = self.now + Duration::from_secs(24 * 3600);
        while self.step(until) {
            assert!(self.sent < sent + 100_000, "no end of frames, seed {}", self.setup.seed);
        }
        self.check();
        let seed = self.setup.seed;
        for host in &mut self.hosts {
            let tcp = host.stack.tcp().0;
            assert_eq!(tcp.connections(), 0, "connections stay, seed {seed}");
            assert_eq!(tcp.time_waits(), 0, "TIME-WAITs stay, seed {seed}");
            assert_eq!(host.mem.live_slots(), 0, "slots leaked, seed {seed}");
        }
        assert_eq!(self.next(), Instant::NEVER, "a timer is left, seed {seed}");
    }
}

impl Host {
    /// Copies a frame out as the device does; completed at `done`.
    pub fn take(&mut self, frame: &TxFrame, done: Instant) -> Wire {
        let mut bytes = Vec::new();
        for piece in &frame.pieces {
            bytes.extend_from_slice(self.mem.bytes(*piece));
        }
        self.in_device.push((done, frame.pieces.iter().copied().collect()));
        Wire::of(frame, bytes)
    }

    /// Completes what the device has finished.
    fn complete(&mut self, now: Instant) {
        let mem = &mut self.mem;
        self.in_device.retain(|(done, pieces)| {
            if *done <= now {
                pieces.iter().for_each(|piece| mem.release(piece.slot));
            }
            *done > now
        });
    }

    /// Takes a frame in; false if there is no receive slot for it.
    pub fn deliver(&mut self, now: Instant, wire: &Wire) -> bool {
        let Some(pieces) = self.mem.receive_chain(&wire.bytes) else { return false };
        let checksum = if wire.partial { RxChecksum::Partial } else { RxChecksum::Unknown };
        let frame = RxFrame { pieces: &pieces, checksum, gso_size: wire.gso_size };
        self.stack.on_frame(now + self.skew, &frame, &mut self.mem);
        true
    }
}
