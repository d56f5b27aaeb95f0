//! The simulated world as the judge: every seed is a world of its own, in which connections move
//! bytes both ways under faults, pauses and shortages. Every byte is looked at; at the end counters
//! conserve and no connection, slot or timer is left.
//!
//! `ROCEWAY_SIM_SEEDS=n` runs n seeds of each kind, `ROCEWAY_SIM_FIRST=s` begins at seed s. A
//! failure names its seed and how to run it again.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use roceway_stack::frame::Offloads;
use roceway_stack::heap_memory::HeapLimits;
use roceway_stack::slab::Id;
use roceway_stack::tcp::congestion::Algorithm;
use roceway_stack::tcp::{Connection, ConnectionError, EcnMode, Listener, TcpConfig, TcpOption};
use roceway_stack::time::{Duration, Instant};
use support::{Faults, Random, Setup, World};

/// Seeds of each kind of world unless told otherwise.
const SEEDS: u64 = 150;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs a kind of world for many seeds; a failure says how to see it again.
/// Seeds that once found something run always.
fn for_seeds(kind: &str, share: u64, found: &[u64], run: impl Fn(u64)) {
    let first = number("ROCEWAY_SIM_FIRST", 0);
    let count = (number("ROCEWAY_SIM_SEEDS", SEEDS) / share).max(1);
    for seed in found.iter().copied().chain(first..first + count) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            let commit = option_env!("ROCEWAY_COMMIT").unwrap_or("the working tree");
            eprintln!(
                "{kind} fails at seed {seed} of {commit}; again: ROCEWAY_SIM_SEEDS=1 \
                 ROCEWAY_SIM_FIRST={seed} cargo test -p roceway-stack --test simulation {kind}"
            );
            resume_unwind(panic);
        }
    }
}

/// Bytes without a short period, at every offset of a stream.
struct Pattern(Vec<u8>);

/// A prime, so that no segment or slot size divides it.
const PERIOD: u64 = 65_521;
/// The longest piece of a stream that is written or read at once.
const PIECE: usize = 100_000;

impl Pattern {
    fn new() -> Pattern {
        let mut random = Random::new(99);
        let period: Vec<u8> = (0..PERIOD).map(|_| random.next().to_le_bytes()[3]).collect();
        Pattern([&period[..], &period[..], &period[..]].concat())
    }

    fn at(&self, salt: u64, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from((offset + salt * 7919) % PERIOD).unwrap();
        &self.0[start..start + len]
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    salt: u64,
    total: u64,
    written: u64,
    read: u64,
    /// The writer has shut down; the reader saw the end.
    shut: bool,
    ended: bool,
}

impl Stream {
    fn new(salt: u64, total: u64) -> Stream {
        Stream { salt, total, written: 0, read: 0, shut: false, ended: false }
    }
}

/// A connection, and how its ends behave.
struct Flow {
    /// The ends at host 0 and host 1; the passive one is known once it is accepted.
    ends: [Option<Id<Connection>>; 2],
    /// `streams[n]` is written by host n.
    streams: [Stream; 2],
    /// Longest writes and reads.
    write_max: usize,
    read_max: usize,
    /// Of a thousand turns, in how many the readers sleep.
    lazy: u64,
    closed: [bool; 2],
    /// How often it had to be opened again, for want of an answer from the neighbour.
    attempts: u16,
}

/// Most flows of a world; the client's port names flow and attempt.
const FLOWS_MAX: u16 = 64;
const FIRST_PORT: u16 = 10_000;

/// A world with its flows.
struct Trial {
    world: World,
    flows: Vec<Flow>,
    listener: Id<Listener>,
    pattern: Pattern,
    buffer: Vec<u8>,
    started: Instant,
    turns: u64,
    turns_max: u64,
}

/// More turns than any world needs: time passes, but bytes do not.
const TURNS_MAX: u64 = 1_000_000;

impl Trial {
    fn new(setup: Setup) -> Trial {
        let mut world = World::new(setup);
        let listener = world.listen(1, 7);
        let started = world.now;
        let buffer = vec![0; PIECE];
        let pattern = Pattern::new();
        Trial {
            world,
            flows: Vec::new(),
            listener,
            pattern,
            buffer,
            started,
            turns: 0,
            turns_max: TURNS_MAX,
        }
    }

    fn open(&mut self, totals: [u64; 2]) {
        // The port names the flow, as the listener may take them in another order.
        let n = self.flows.len();
        let port = FIRST_PORT + u16::try_from(n).unwrap();
        let client = self.world.connect_from(0, Some(port), 7);
        let random = &mut self.world.random;
        let salt = n as u64 * 2;
        self.flows.push(Flow {
            ends: [Some(client), None],
            streams: [Stream::new(salt, totals[0]), Stream::new(salt + 1, totals[1])],
            write_max: random.of(&[1, 100, 1448, 5000, PIECE]),
            read_max: random.of(&[100, 1448, PIECE]),
            lazy: random.of(&[0, 0, 500, 950]),
            closed: [false; 2],
            attempts: 0,
        });
        if self.world.random.chance(500) {
            let now = self.world.now;
            self.world.hosts[0].stack.tcp().0.set_option(client, TcpOption::NoDelay(true), now);
        }
    }

    fn is_over(&self) -> bool {
        self.flows.iter().all(|flow| flow.closed == [true; 2])
    }

    fn accept(&mut self) {
        while let Some(id) = self.world.accept(1, self.listener) {
            let info = self.world.hosts[1].stack.tcp().0.info(id).unwrap();
            let name = info.ends.remote_port - FIRST_PORT;
            let flow = &mut self.flows[usize::from(name % FLOWS_MAX)];
            if flow.attempts == name / FLOWS_MAX {
                flow.ends[1] = Some(id);
            } else {
                let host = &mut self.world.hosts[1];
                host.stack.tcp().0.abort(id, &mut host.mem);
            }
        }
    }

    /// Applications do something at both ends of every flow.
    fn applications(&mut self) {
        self.accept();
        for n in 0..self.flows.len() {
            for end in 0..2 {
                let stalled = self.world.hosts[end].stalled_until > self.world.now;
                if self.flows[n].ends[end].is_some() && !self.flows[n].closed[end] && !stalled {
                    self.write(n, end);
                    self.read(n, end);
                    self.close_if_done(n, end);
                }
            }
        }
    }

    fn write(&mut self, n: usize, end: usize) {
        let flow = &mut self.flows[n];
        let id = flow.ends[end].unwrap();
        let stream = &mut flow.streams[end];
        let left = usize::try_from(stream.total - stream.written).unwrap_or(PIECE);
        let len = left.min(1 + self.world.random.index(flow.write_max)).min(PIECE);
        if len > 0 {
            let data = self.pattern.at(stream.salt, stream.written, len);
            stream.written += self.world.write(end, id, data) as u64;
        }
        let tcp = self.world.hosts[end].stack.tcp().0;
        if stream.written == stream.total && !stream.shut && tcp.shutdown(id, false, true).is_ok() {
            stream.shut = true;
        }
    }

    fn read(&mut self, n: usize, end: usize) {
        let flow = &mut self.flows[n];
        let id = flow.ends[end].unwrap();
        let stream = &mut flow.streams[1 - end];
        if self.world.random.chance(flow.lazy) {
            return;
        }
        let most = 1 + self.world.random.index(flow.read_max);
        while let Some(len) = self.world.read(end, id, &mut self.buffer[..most]) {
            if len == 0 {
                let early = stream.read < stream.total;
                assert!(!early, "the stream of flow {n} ends early{}", self.report());
                self.flows[n].streams[1 - end].ended = true;
                return;
            }
            let right = self.pattern.at(stream.salt, stream.read, len) == &self.buffer[..len];
            assert!(right, "wrong bytes at {} of flow {n}", stream.read);
            stream.read += len as u64;
            if flow.lazy > 0 {
                return;
            }
        }
    }

    fn close_if_done(&mut self, n: usize, end: usize) {
        let flow = &mut self.flows[n];
        let id = flow.ends[end].unwrap();
        if flow.streams[end].shut && flow.streams[1 - end].ended {
            self.world.close(end, id);
            flow.closed[end] = true;
        }
        let error = self.world.hosts[end].stack.tcp().0.take_error(id);
        if error == Some(ConnectionError::HostUnreachable) && flow.ends[1].is_none() {
            self.world.close(end, id);
            flow.attempts += 1;
            let port = FIRST_PORT + u16::try_from(n).unwrap() + FLOWS_MAX * flow.attempts;
            flow.ends[0] = Some(self.world.connect_from(0, Some(port), 7));
            return;
        }
        assert_eq!(error, None, "connection {n} ends at host {end}{}", self.report());
    }

    fn turn(&mut self) {
        self.applications();
        let soon = self.world.now + self.world.setup.delay + Duration::from_micros(50);
        if !self.world.step(soon) {
            // Nobody moves on the wire, but applications may.
            self.world.now = soon;
            let next = self.world.next();
            if next > soon && next != Instant::NEVER && self.world.random.chance(900) {
                self.world.now = next;
            }
        }
        self.turns += 1;
        let waited = self.world.now.since(self.started);
        let stuck = waited > Duration::from_secs(48 * 3600) || self.turns > self.turns_max;
        assert!(!stuck, "stuck after {waited:?}: {}", self.report());
    }

    fn report(&mut self) -> String {
        let mut out = String::new();
        for flow in &self.flows {
            for end in 0..2 {
                let tcp = self.world.hosts[end].stack.tcp().0;
                let info = flow.ends[end].and_then(|id| tcp.info(id));
                out += &format!("\n{:?}\n  {info:?}", flow.streams[end]);
            }
        }
        for (n, host) in self.world.hosts.iter().enumerate() {
            host.stack.visit_counters(&mut |layer, name, value| {
                if value > 0 {
                    out += &format!("\nhost {n} {layer} {name} {value}");
                }
            });
        }
        out += &format!("\n{:?}", self.world.setup);
        out
    }

    fn finish(mut self) -> World {
        let now = self.world.now;
        let host = &mut self.world.hosts[1];
        host.stack.tcp().0.close_listener(self.listener, &mut host.mem);
        let _later = now;
        self.world.set_link(true);
        self.world.check_over();
        self.world
    }
}

fn patient() -> TcpConfig {
    // Faults may be as bad as a day without a link; what is tested is that bytes survive it.
    let long = Duration::from_secs(7 * 24 * 3600);
    TcpConfig { give_up: long, syn_give_up: long, fin_wait_2: long, ..TcpConfig::default() }
}

/// Everything that a seed can choose.
fn setup_of(seed: u64) -> Setup {
    let mut random = Random::new(seed ^ 0x5eed);
    let tso = random.chance(500);
    let tx_checksum = tso || random.chance(500);
    let tcp = TcpConfig {
        receive_buffer: random.of(&[4096, 20_000, 65_535, 300_000, 1 << 20]),
        send_buffer: random.of(&[4096, 20_000, 65_535, 300_000, 1 << 20]),
        congestion: random.of(&[Algorithm::Cubic, Algorithm::NewReno]),
        timestamps: random.chance(750),
        sack: random.chance(750),
        ecn: if seed.is_multiple_of(2) { EcnMode::On } else { EcnMode::Accept },
        ..patient()
    };
    Setup {
        seed,
        v6: random.chance(500),
        offloads: Offloads { tx_checksum, tso4: tso, tso6: tso, tso_ecn: tso, uso: tso },
        cut: random.chance(700),
        finish: random.chance(500),
        tcp,
        mtu: random.of(&[1280, 1500, 4096, 9000]),
        delay: Duration::from_micros(random.of(&[1, 10, 200, 20_000])),
        faults: Faults {
            loss: random.of(&[0, 0, 1, 10, 50, 150]),
            duplication: random.of(&[0, 0, 10, 100]),
            reordering: random.of(&[0, 0, 10, 100, 500]),
            corruption: random.of(&[0, 0, 10, 50]),
        },
        device_lag: Duration::from_micros(random.of(&[0, 0, 20, 2000, 300_000])),
        ..Setup::default()
    }
}

fn run(mut trial: Trial) -> World {
    while !trial.is_over() {
        trial.turn();
    }
    trial.finish()
}

#[test]
fn both_directions_under_every_fault() {
    for_seeds("both_directions_under_every_fault", 1, &[26, 1217], |seed| {
        let mut trial = Trial::new(setup_of(seed));
        let mut random = Random::new(seed);
        for _ in 0..random.of(&[1, 1, 2, 5]) {
            let totals = [random.of(&[0, 1, 3000, 60_000]), random.of(&[0, 1, 3000, 60_000])];
            trial.open(totals);
        }
        run(trial);
    });
}

#[test]
fn hosts_stall_and_links_fail() {
    for_seeds("hosts_stall_and_links_fail", 1, &[28, 1205], |seed| {
        let mut trial = Trial::new(setup_of(seed));
        let mut random = Random::new(seed);
        trial.open([random.of(&[0, 3000, 100_000]), random.of(&[0, 3000, 100_000])]);
        while !trial.is_over() {
            trial.turn();
            if random.chance(20) {
                let long = Duration::from_micros(random.of(&[10, 1000, 500_000, 90_000_000]));
                trial.world.stall(random.index(2), long);
            }
            if random.chance(if trial.world.link_up { 5 } else { 200 }) {
                let up = trial.world.link_up;
                trial.world.set_link(!up);
            }
        }
        run(trial);
    });
}

#[test]
fn memory_is_scarce() {
    for_seeds("memory_is_scarce", 1, &[9], |seed| {
        let mut random = Random::new(seed);
        let mut setup = setup_of(seed);
        let receive = random.of(&[8, 20, 64]);
        let receive_len = random.of(&[2048, 16_384, 70_000]);
        setup.memory = HeapLimits {
            small: random.of(&[3, 10, 64]),
            chunks: random.of(&[2, 10, 64]),
            // A frame of 64 KiB must fit between the slots.
            receive: receive + 70_000 / receive_len,
            receive_len,
            receive_low: receive / 2,
        };
        let mut trial = Trial::new(setup);
        for _ in 0..random.of(&[1, 2, 6]) {
            trial.open([random.of(&[0, 3000, 40_000]), random.of(&[0, 3000, 40_000])]);
        }
        run(trial);
    });
}

/// A setup in which both ISNs lie a little below the wrap: the clocks of the hosts are moved until
/// they do, for ISNs follow the clock (RFC 6528).
fn near_the_wrap(mut setup: Setup, before: u32) -> Setup {
    use std::{cell::RefCell, rc::Rc};
    let seen: Rc<RefCell<[Option<u32>; 2]>> = Rc::default();
    let note = Rc::clone(&seen);
    let mut world =
        World::new(Setup { faults: Faults::default(), finish: true, cut: true, ..setup.clone() });
    world.filter = Some(Box::new(move |from, wire| {
        let v6 = wire.bytes[12] == 0x86;
        let (tcp, protocol) = if v6 { (54, wire.bytes[20]) } else { (34, wire.bytes[23]) };
        if wire.bytes[12..14] != [8, 6] && protocol == 6 && wire.bytes[tcp + 13] & 2 != 0 {
            let seq: [u8; 4] = wire.bytes[tcp + 4..tcp + 8].try_into().unwrap();
            note.borrow_mut()[from] = Some(u32::from_be_bytes(seq));
        }
        support::Verdict::Pass
    }));
    let _listener = world.listen(1, 7);
    let _client = world.connect_from(0, Some(10_000), 7);
    world.run_for(Duration::from_secs(30));
    for (host, iss) in seen.borrow().iter().enumerate() {
        let ticks = 0_u32.wrapping_sub(before).wrapping_sub(iss.expect("no SYN"));
        setup.skew[host] = Duration::from_nanos(u64::from(ticks) << 12);
    }
    setup
}

#[test]
fn sequence_numbers_wrap() {
    for_seeds("sequence_numbers_wrap", 2, &[2], |seed| {
        let mut random = Random::new(seed);
        let mut setup = setup_of(seed);
        setup.delay = Duration::from_micros(10);
        let setup = near_the_wrap(setup, random.of(&[1, 2, 1000, 20_000]));
        let mut trial = Trial::new(setup);
        trial.open([60_000, 60_000]);
        run(trial);
    });
}

#[test]
fn timestamps_wrap() {
    // TSvals begin at an offset that only the stack knows: in steps of 2^27 ticks, one of the
    // hosts' clocks passes the wrap, and the sign of the difference, during some run.
    let step = Duration::from_nanos(1 << 47);
    for_seeds("timestamps_wrap", 10, &[], |seed| {
        for n in 0..32 {
            let mut setup = setup_of(seed);
            setup.tcp.timestamps = true;
            setup.delay = Duration::from_millis(20);
            setup.skew = [step.saturating_mul(n), step.saturating_mul(31 - n)];
            let mut trial = Trial::new(setup);
            trial.open([3000, 3000]);
            // 39 hours of silence are 2^27 ticks.
            trial.world.run_for(step);
            trial.started = trial.world.now;
            run(trial);
        }
    });
}

#[test]
fn more_than_four_gigabytes_both_ways() {
    // The sequence numbers of both directions go all the way round.
    let gigabytes = number("ROCEWAY_SIM_GIGABYTES", 9);
    let mut setup = setup_of(1);
    setup.tcp = TcpConfig { receive_buffer: 1 << 20, send_buffer: 1 << 20, ..patient() };
    setup.offloads =
        Offloads { tx_checksum: true, tso4: true, tso6: true, tso_ecn: true, uso: true };
    setup.mtu = 9000;
    (setup.cut, setup.finish, setup.device_lag) = (false, false, Duration::from_micros(5));
    setup.delay = Duration::from_micros(10);
    setup.faults = Faults { loss: 1, duplication: 1, reordering: 2, corruption: 1 };
    setup.memory = HeapLimits { receive_len: 65_536, ..HeapLimits::default() };
    let mut trial = Trial::new(setup);
    trial.open([gigabytes << 29, gigabytes << 29]);
    let flow = &mut trial.flows[0];
    (flow.write_max, flow.read_max, flow.lazy) = (PIECE, PIECE, 0);
    trial.turns_max = u64::MAX;
    let mut world = run(trial);
    for host in 0..2 {
        assert!(world.counters(host).retransmissions > 100, "there was something to survive");
    }
}
