//! Integrity under every legal set of offloads, in virtual time: two whole workers on a soft link,
//! each with a set of its own, and payload that is compared byte by byte. Never does one end's
//! offload alone vouch for what the other end's sent: what is checked is what applications wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use roceway_busypoll::Work;
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::virtio::features::Features;
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, EcnMode};
use roceway_stack::udp::UdpId;

use crate::config::{Prefix, WorkerConfig};
use crate::core::Core;
use crate::offload::OffloadWish;
use crate::start;

const NAMES: [&str; OffloadWish::NAMES.len()] = OffloadWish::NAMES;
/// Bytes of a stream, each way and family, and of what is sent as datagrams.
const STREAM: usize = 24_000;
const DATAGRAMS: usize = 9_500;
const DATAGRAM: usize = 1_000;
const STEP_NS: u64 = 10_000;
const STEPS_MAX: u32 = 20_000;

/// Every legal set, as texts.
fn legal_sets() -> Vec<(String, OffloadWish)> {
    let mut sets = Vec::new();
    for bits in 0..1_u32 << NAMES.len() {
        let names: Vec<&str> = (0..NAMES.len())
            .filter(|place| bits >> place & 1 != 0)
            .map(|place| NAMES[place])
            .collect();
        let text = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        if let Ok(understood) = OffloadWish::parse(&text, OffloadWish::NONE) {
            sets.push((text, understood.wish));
        }
    }
    sets
}

fn address(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)).into()
    } else {
        Ipv4Addr::new(10, 0, 0, number).into()
    }
}

/// What end `number` sends: different for each, so that nothing can be taken for the other's.
fn pattern(number: u8, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ u32::from(number);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// One connection's end and what has gone through it.
struct Stream {
    id: Id<Connection>,
    written: usize,
    read: usize,
}

struct End {
    number: u8,
    core: Core,
    streams: Vec<Stream>,
    sockets: Vec<UdpId>,
    own: Vec<u8>,
    others: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
}

impl End {
    fn new(nic: SoftNic, number: u8, wish: OffloadWish, now: u64) -> End {
        let of = |v6, length| Prefix { address: address(number, v6), length };
        let mut config = WorkerConfig::new(of(false, 24));
        config.addresses.push(of(true, 64));
        config.offloads = wish;
        config.tcp.ecn = EcnMode::On;
        config.memory.small = 128;
        config.memory.chunks = 64;
        config.memory.receive = 128;
        config.queue_size = Some(128);
        let core = start::start(nic.into(), &config, now).expect("a worker");
        End {
            number,
            core,
            streams: Vec::new(),
            sockets: Vec::new(),
            own: pattern(number, STREAM),
            others: pattern(3 - number, STREAM),
            datagrams: Vec::new(),
        }
    }

    fn bind(&mut self, v6: bool) {
        let now = self.core.now;
        let (stack, mut memory) = self.core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        let id = udp.bind(cx.ip, SocketAddr::new(address(self.number, v6), 7)).unwrap();
        let peer = SocketAddr::new(address(3 - self.number, v6), 7);
        udp.connect(cx.ip, id, peer).unwrap();
        self.sockets.push(id);
    }

    /// One turn, with what applications do in the middle of it.
    fn turn(&mut self, now: u64) {
        let _ = self.core.control(now, 0);
        let _ = self.core.receive(now, 64);
        let _ = self.core.timers(now, 64);
        self.move_streams();
        self.read_datagrams();
        let _ = self.core.transmit(now, 64);
        self.core.doorbell();
        let _ = self.core.after(now, 64);
    }

    fn move_streams(&mut self) {
        let mut buffer = [0; 8192];
        for stream in &mut self.streams {
            if stream.written < STREAM {
                // Odd sizes, so that pieces begin anywhere.
                let end = (stream.written + 7_777).min(STREAM);
                let data = &self.own[stream.written..end];
                stream.written += self.core.send(stream.id, data).unwrap_or(0);
            }
            let (stack, mut memory) = self.core.parts();
            while let Ok(n @ 1..) = stack.tcp().0.receive(stream.id, &mut buffer, &mut memory) {
                let wanted = &self.others[stream.read..stream.read + n];
                assert!(buffer[..n] == *wanted, "bytes from {} differ", stream.read);
                stream.read += n;
            }
        }
    }

    fn read_datagrams(&mut self) {
        let mut buffer = [0; 2048];
        let now = self.core.now;
        let (stack, mut memory) = self.core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        for &id in &self.sockets {
            while let Ok(received) = udp.recv_from(id, &mut buffer, cx.mem) {
                self.datagrams.push(buffer[..received.len].to_vec());
            }
        }
    }

    fn send_datagrams(&mut self, number: usize) {
        let now = self.core.now;
        let data = &self.own[..DATAGRAMS];
        let (stack, mut memory) = self.core.parts();
        let (udp, mut cx) = stack.udp(now, &mut memory);
        let size = u16::try_from(DATAGRAM).unwrap();
        let sent = udp.send_segments(&mut cx, self.sockets[number], (data, size), None);
        assert_eq!(sent, Ok(DATAGRAMS));
    }

    fn is_done(&self) -> bool {
        let whole = |it: &Stream| it.written == STREAM && it.read == STREAM;
        self.streams.iter().all(whole) && self.datagrams.len() == 2 * DATAGRAMS.div_ceil(DATAGRAM)
    }

    fn counter(&self, layer: &str, name: &str) -> u64 {
        let mut found = None;
        self.core.visit_counters(&mut |in_layer, called, value| {
            if (in_layer, called) == (layer, name) {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("no counter {layer} {name}"))
    }

    /// Nothing was refused, dropped or thought wrong on the way.
    fn check(&self) {
        self.core.stack.check();
        let never = [
            ("device", "rx_drop_header"),
            ("device", "rx_drop_span"),
            ("device", "tx_bad_header"),
            ("device", "tx_refused"),
            ("driver", "rx_drop_header"),
            ("driver", "rx_drop_merge"),
            ("port", "frames_refused"),
            ("tcp", "dropped_checksum"),
            ("tcp", "dropped_malformed"),
            ("tcp", "resets_sent"),
            ("tcp", "timeouts"),
            ("nic", "soft_refused_offload"),
        ];
        for (layer, name) in never {
            assert_eq!(self.counter(layer, name), 0, "{layer} {name}");
        }
        let wanted: Vec<Vec<u8>> =
            self.others[..DATAGRAMS].chunks(DATAGRAM).map(<[u8]>::to_vec).collect();
        for family in self.datagrams.chunks(wanted.len()) {
            assert!(family == wanted, "datagrams differ");
        }
    }
}

/// Two ends on a link, and the time.
struct World {
    ends: [End; 2],
    now: u64,
}

impl World {
    fn new(wishes: [OffloadWish; 2], link: &SoftOptions) -> World {
        let now = 1_000_000_000;
        let (left, right) = SoftNic::pair(link).expect("shared memory");
        let ends = [End::new(left, 1, wishes[0], now), End::new(right, 2, wishes[1], now)];
        let mut world = World { ends, now };
        for _ in 0..10 {
            world.ends.iter_mut().for_each(|end| end.core.cold(now));
        }
        assert!(world.ends.iter().all(|end| end.core.link.link_up == 1), "no link");
        world
    }

    fn step(&mut self) {
        self.now += STEP_NS;
        for end in &mut self.ends {
            end.turn(self.now);
        }
        let idle = self.ends.iter_mut().all(|end| !end.core.ready());
        let due = self.ends.iter_mut().map(|end| end.core.deadline()).min().unwrap_or(u64::MAX);
        if idle && due != u64::MAX {
            self.now = self.now.max(due);
        }
    }

    fn connect(&mut self, v6: bool) {
        let at = SocketAddr::new(address(2, v6), 80);
        let [client, server] = &mut self.ends;
        let (tcp, ip) = server.core.stack.tcp();
        let listener = tcp.listen(at, 4, ip).unwrap();
        let now = client.core.now;
        let (tcp, ip) = client.core.stack.tcp();
        let id = tcp.connect(at, None, (now, ip)).unwrap();
        client.streams.push(Stream { id, written: 0, read: 0 });
        for _ in 0..STEPS_MAX {
            self.step();
            if let Some(id) = self.ends[1].core.stack.tcp().0.accept(listener) {
                self.ends[1].streams.push(Stream { id, written: 0, read: 0 });
                return;
            }
        }
        panic!("no connection");
    }

    /// Everything both ways over both families.
    fn run(&mut self) {
        for v6 in [false, true] {
            self.ends.iter_mut().for_each(|end| end.bind(v6));
            self.connect(v6);
        }
        for number in 0..2 {
            self.ends.iter_mut().for_each(|end| end.send_datagrams(number));
            // The families in turn, so that their datagrams stay apart.
            (0..20).for_each(|_| self.step());
        }
        for _ in 0..STEPS_MAX {
            if self.ends.iter().all(End::is_done) {
                self.ends.iter().for_each(End::check);
                return;
            }
            self.step();
        }
        panic!("not done: {:?}", self.ends.each_ref().map(|end| end.datagrams.len()));
    }
}

fn wish(text: &str) -> OffloadWish {
    OffloadWish::parse(text, OffloadWish::NONE).unwrap().wish
}

#[test]
fn every_legal_set_of_offloads_keeps_every_byte() {
    let sets = legal_sets();
    // One without CSUM and 14 with it, each of which software adds nothing to, USO or all; as many
    // with GUEST_CSUM as ever; MRG_RXBUF and GRO.
    assert_eq!(sets.len(), (1 + 14 * 3) * (1 + 28) * 4);
    for (number, (text, wish)) in sets.iter().enumerate() {
        // Each set meets another one, so that neither end's offloads alone are at work.
        let (other, others) = &sets[(number * 1999 + 1000) % sets.len()];
        let mut world = World::new([*wish, *others], &SoftOptions::default());
        for (end, asked) in world.ends.iter().zip([wish, others]) {
            let in_use = &end.core.offloads;
            assert!(in_use.missing.is_empty(), "{text}: {in_use}");
            assert_eq!(in_use.names.contains(&"gro"), asked.gro());
            let large = asked.features().has(Features::GUEST_LARGE);
            let big = large && !asked.features().has(Features::MRG_RXBUF);
            assert_eq!(in_use.names.contains(&"big_packets"), big, "{text}");
        }
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(ran.is_ok(), "{text} against {other}");
    }
}

#[test]
fn a_link_that_does_less_keeps_every_byte_of_every_legal_set() {
    let whole = SoftOptions::default();
    let links = [
        ("cuts itself", SoftOptions { large: false, tso: true, ..whole.clone() }),
        ("checksums only", SoftOptions { large: false, ..whole.clone() }),
        ("nothing", SoftOptions { large: false, csum: false, ..whole }),
    ];
    let sets = legal_sets();
    for (number, (text, wish)) in sets.iter().enumerate() {
        // Each set over one of them: the sets are in no order that the links would follow.
        let (does, link) = &links[number % links.len()];
        let (other, others) = &sets[(number * 1999 + 1000) % sets.len()];
        let mut world = World::new([*wish, *others], link);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(ran.is_ok(), "{text} against {other} over a link that does: {does}");
    }
}

/// Messages that one end's NIC was given for the whole exchange, and what software did.
fn work_of(text: &str) -> (u64, u64, u64, u64) {
    let mut world = World::new([wish(text), wish(text)], &SoftOptions::default());
    world.run();
    let end = &world.ends[0];
    let count = |layer, name| end.counter(layer, name);
    let software = count("device", "tx_software_segmented");
    (count("nic", "soft_sent"), software, count("gro", "joined"), count("device", "rx_passed"))
}

#[test]
fn each_step_of_the_ladder_has_an_effect() {
    let none = work_of("none");
    let gso = work_of("csum,guest_csum,gso");
    let gro = work_of("csum,guest_csum,gso,gro");
    let uso = work_of("csum,guest_csum,gso_uso");
    let tso = work_of("csum,guest_csum,host_tso4,host_tso6,guest_tso4,guest_tso6");
    assert_eq!((none.1, none.2), (0, 0));
    assert!(gso.1 > 0 && gso.2 == 0, "{gso:?}");
    assert!(gro.1 > 0 && gro.2 > 0, "{gro:?}");
    // One large frame of datagrams in each family, and none of TCP.
    assert_eq!((uso.1, uso.2), (2, 0));
    assert!(tso.1 == 0 && tso.2 == 0 && tso.0 < none.0, "{tso:?} {none:?}");
}

/// Large frames that software cut at one end, of streams and then of datagrams, over a NIC that
/// computes checksums and does not segment; and what the NIC was given for the streams.
fn cut_by_software(wish: OffloadWish) -> ([u64; 2], u64) {
    let link = SoftOptions { large: false, ..SoftOptions::default() };
    let mut world = World::new([wish, wish], &link);
    let counts = |world: &World| {
        let end = &world.ends[0];
        [end.counter("device", "tx_software_segmented"), end.counter("nic", "soft_sent")]
    };
    for v6 in [false, true] {
        world.ends.iter_mut().for_each(|end| end.bind(v6));
        world.connect(v6);
    }
    let whole = |it: &Stream| it.written == STREAM && it.read == STREAM;
    for _ in 0..STEPS_MAX {
        world.step();
        if world.ends.iter().all(|end| end.streams.iter().all(whole)) {
            break;
        }
    }
    let [of_streams, sent] = counts(&world);
    for number in 0..2 {
        world.ends.iter_mut().for_each(|end| end.send_datagrams(number));
        (0..20).for_each(|_| world.step());
    }
    assert!(world.ends.iter().all(End::is_done), "not everything came");
    world.ends.iter().for_each(End::check);
    ([of_streams, counts(&world)[0] - of_streams], sent)
}

#[test]
fn by_default_software_cuts_datagrams_and_leaves_tcp_to_the_stack() {
    // Each family's datagrams are one call, and so one large frame.
    let ([streams, datagrams], sent) = cut_by_software(OffloadWish::default());
    assert_eq!([streams, datagrams], [0, 2]);
    let ([streams, datagrams], cut) = cut_by_software(wish("csum,guest_csum,gso"));
    assert!(streams > 0 && datagrams == 2, "{streams} {datagrams}");
    assert_eq!(cut_by_software(wish("csum,guest_csum")).0, [0, 0]);
    // Either way the NIC is given segments of full size.
    let least = 2 * STREAM.div_ceil(1460) as u64;
    assert!(sent >= least && cut >= least, "{sent} {cut} {least}");
}
