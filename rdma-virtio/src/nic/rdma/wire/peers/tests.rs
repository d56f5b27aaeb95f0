//! Tables of peers that meet over a virtual network with a virtual clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::exchange::tests::HELLO;
use super::super::exchange::{Endpoint, WordError};
use super::*;

const MS: u64 = 1_000_000;

/// A host: its table, and what was done for it.
struct Host {
    peers: Peers,
    counters: WireCounters,
    macs: Macs,
    ip: IpAddr,
    /// Queue pairs by peer, connected or not.
    queue_pairs: BTreeMap<PeerId, bool>,
    up: BTreeMap<PeerId, Hello>,
    losses: Vec<Loss>,
    replaced: u32,
    doubted: Vec<PeerId>,
}

enum Event {
    Incoming { from: usize, conn: ConnId, to: SocketAddr },
    Connected { host: usize, conn: ConnId, through: bool },
    Word { host: usize, conn: ConnId, word: Word },
    Closed { host: usize, conn: ConnId },
}

/// Hosts and what is under way between them.
struct World {
    hosts: Vec<Host>,
    now_ns: u64,
    /// By time and number.
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    /// Both ends of each connection.
    links: Vec<[(usize, ConnId); 2]>,
    /// Whether nothing gets through.
    cut: bool,
    /// Words that wait for the path.
    held: Vec<Event>,
    delays: Vec<u64>,
    /// Words never overtake each other on a connection.
    last_word: BTreeMap<(usize, u32), u64>,
}

fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, n))
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::new(ip(n), 4796)
}

fn identity(n: u8, life: u32) -> Identity {
    Identity {
        mode: Mode::Rc,
        mac: [2, 0, 0, 0, 0, n],
        mtu: 1500,
        message_max: 65_598,
        port: 4796,
        incarnation: u32::from(n) << 8 | life,
        host: u64::from(n) << 8 | u64::from(life),
    }
}

fn host(n: u8, identity: Identity, admission: Admission) -> Host {
    Host {
        peers: Peers::new(identity, admission, u64::from(n)),
        counters: WireCounters::default(),
        macs: Macs::new(identity.mac, 5),
        ip: ip(n),
        queue_pairs: BTreeMap::new(),
        up: BTreeMap::new(),
        losses: Vec::new(),
        replaced: 0,
        doubted: Vec::new(),
    }
}

fn listing(others: &[u8]) -> Admission {
    let listed: Vec<SocketAddr> = others.iter().map(|n| at(*n)).collect();
    Admission { peers_max: 8, listed, accept: Vec::new() }
}

impl World {
    fn new(hosts: Vec<Host>, delays: Vec<u64>) -> World {
        World {
            hosts,
            now_ns: 0,
            events: BTreeMap::new(),
            count: 0,
            links: Vec::new(),
            cut: false,
            held: Vec::new(),
            delays,
            last_word: BTreeMap::new(),
        }
    }

    /// Hosts 1 to `n`, each with all others in its list.
    fn mesh(n: u8, delays: Vec<u64>) -> World {
        let hosts = (1..=n).map(|own| {
            let others: Vec<u8> = (1..=n).filter(|other| *other != own).collect();
            host(own, identity(own, 1), listing(&others))
        });
        World::new(hosts.collect(), delays)
    }

    fn later(&mut self, event: Event) {
        self.count += 1;
        let index = usize::try_from(self.count).unwrap() % self.delays.len();
        let mut time = self.now_ns + self.delays[index];
        if let Event::Word { host, conn, .. } | Event::Closed { host, conn } = &event {
            let last = self.last_word.entry((*host, conn.0)).or_default();
            time = time.max(*last);
            *last = time;
        }
        self.events.insert((time, self.count), event);
    }

    fn other_end(&self, host: usize, conn: ConnId) -> Option<(usize, ConnId)> {
        let link = self.links.iter().find(|link| link.contains(&(host, conn)))?;
        Some(if link[0] == (host, conn) { link[1] } else { link[0] })
    }

    fn with<R>(&mut self, index: usize, call: impl FnOnce(&mut Peers, &mut Outside<'_>) -> R) -> R {
        let host = &mut self.hosts[index];
        let (counters, macs) = (&mut host.counters, &mut host.macs);
        let mut outside = Outside { now_ns: self.now_ns, counters, macs };
        let result = call(&mut host.peers, &mut outside);
        self.act(index);
        result
    }

    fn act(&mut self, index: usize) {
        while let Some(action) = self.hosts[index].peers.poll_action() {
            match action {
                Action::Dial { conn, to } => self.later(Event::Incoming { from: index, conn, to }),
                Action::Say { conn, word } => {
                    if let Some((host, conn)) = self.other_end(index, conn) {
                        self.later(Event::Word { host, conn, word });
                    }
                }
                Action::HangUp { conn } => {
                    if let Some((host, other)) = self.other_end(index, conn) {
                        self.links.retain(|link| !link.contains(&(index, conn)));
                        self.later(Event::Closed { host, conn: other });
                    }
                }
                Action::Prepare { peer } => {
                    let before = self.hosts[index].queue_pairs.insert(peer, false);
                    assert_eq!(before, None, "a second queue pair for {peer:?}");
                    let endpoint = Endpoint { qpn: 77, ..HELLO.endpoint };
                    let prepared = Prepared { endpoint, credits: 4 };
                    self.with(index, |peers, o| peers.on_prepared(peer, Some(prepared), o));
                }
                Action::Establish { peer, .. } => {
                    let before = self.hosts[index].queue_pairs.insert(peer, true);
                    assert_eq!(before, Some(false), "no queue pair to connect for {peer:?}");
                    self.with(index, |peers, o| peers.on_established(peer, true, o));
                }
                Action::Up { peer } => {
                    let hello = *self.hosts[index].peers.up(peer).expect("up");
                    self.hosts[index].up.insert(peer, hello);
                }
                Action::Down { peer, loss } => {
                    let host = &mut self.hosts[index];
                    assert!(host.queue_pairs.remove(&peer).is_some());
                    assert_eq!(host.up.remove(&peer).is_none(), loss == Loss::Never);
                    host.losses.push(loss);
                }
                Action::Doubt { peer } => self.hosts[index].doubted.push(peer),
                Action::Replaced { .. } => self.hosts[index].replaced += 1,
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            // The kernels' TCP brings them later, in their order.
            Event::Word { .. } | Event::Closed { .. } if self.cut => self.held.push(event),
            Event::Incoming { from, conn, to } => {
                let target = self.hosts.iter().position(|host| host.ip == to.ip());
                let (Some(target), false) = (target, self.cut) else { return };
                let ip = self.hosts[from].ip;
                let accepted = self.with(target, |peers, o| peers.on_incoming(ip, o));
                if let Some(other) = accepted {
                    self.links.push([(from, conn), (target, other)]);
                    self.act(target);
                }
                let through = accepted.is_some();
                self.later(Event::Connected { host: from, conn, through });
            }
            Event::Connected { host, conn, through } => {
                self.with(host, |peers, o| peers.on_connected(conn, through, o));
            }
            Event::Word { host, conn, word } => {
                self.with(host, |peers, o| peers.on_word(conn, word, o));
            }
            Event::Closed { host, conn } => {
                self.with(host, |peers, o| peers.on_closed(conn, true, o));
            }
        }
    }

    /// Time passes.
    fn run(&mut self, for_ns: u64) {
        let end = self.now_ns + for_ns;
        if !self.cut {
            // Before what was said later and is still on its way.
            for (number, event) in (0_u64..).zip(std::mem::take(&mut self.held)) {
                self.events.insert((0, number), event);
            }
        }
        loop {
            let due = self.events.keys().next().map_or(u64::MAX, |(time, _)| *time);
            let ticks = self.hosts.iter().map(|host| host.peers.deadline()).min();
            let next = due.min(ticks.unwrap_or(u64::MAX));
            if next > end {
                break;
            }
            self.now_ns = self.now_ns.max(next);
            if due <= self.now_ns
                && let Some((_, event)) = self.events.pop_first()
            {
                self.happen(event);
            }
            for index in 0..self.hosts.len() {
                self.with(index, |peers, o| peers.on_tick(o));
            }
        }
        self.now_ns = end;
    }

    /// Every host has one session with every other, and both ends mean the same one.
    fn is_meshed(&self) -> bool {
        let others = self.hosts.len() - 1;
        self.hosts.iter().all(|host| {
            host.up.len() == others
                && host.queue_pairs.len() == others
                && host.up.iter().all(|(peer, hello)| {
                    let other = self.hosts.iter().find(|h| h.peers.identity.mac == hello.mac);
                    let other = other.expect("a host");
                    let own = host.peers.identity.mac;
                    let back = other.up.values().find(|hello| hello.mac == own);
                    back.is_some_and(|back| {
                        back.session == host.peers.peers[usize::from(peer.0)].session
                    })
                })
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn simultaneous_calls_resolve_to_one_queue_pair(
        hosts in 2_u8..5, delays in proptest::collection::vec(1..40 * MS, 1..30)
    ) {
        let mut world = World::mesh(hosts, delays);
        world.run(4_000 * MS);
        prop_assert!(world.is_meshed());
        let up: Vec<u64> = world.hosts.iter().map(|host| host.counters.sessions_up).collect();
        world.run(4_000 * MS);
        let later: Vec<u64> = world.hosts.iter().map(|host| host.counters.sessions_up).collect();
        prop_assert_eq!(up, later, "sessions that are up stay up");
    }

    #[test]
    fn a_path_that_returns_is_used_again_within_two_seconds(
        delays in proptest::collection::vec(1..2 * MS, 1..30), down in 1_u64..9_000
    ) {
        let mut world = World::mesh(2, delays);
        world.run(1_000 * MS);
        prop_assert!(world.is_meshed());
        world.cut = true;
        for host in 0..2 {
            world.with(host, |peers, o| peers.on_broken(PeerId(0), o));
        }
        world.run(down * MS);
        world.cut = false;
        world.run(2_000 * MS);
        prop_assert!(world.is_meshed());
        let losses = world.hosts.iter().flat_map(|host| &host.losses);
        prop_assert!(losses.into_iter().all(|loss| *loss != Loss::Gone));
    }
}

#[test]
fn a_restarted_process_is_answered_at_once_and_the_old_one_is_gone() {
    let mut world = World::mesh(2, vec![MS]);
    world.run(100 * MS);
    assert!(world.is_meshed());
    // The process is killed: its kernel closes its connections.
    let ends: Vec<(usize, ConnId)> =
        world.links.iter().flatten().copied().filter(|(host, _)| *host == 0).collect();
    for (host, conn) in ends {
        let link = world.links.iter().find(|link| link.contains(&(0, conn))).copied().unwrap();
        let end = if link[0].0 == 0 { link[1] } else { link[0] };
        assert_eq!(host, 0);
        world.links.retain(|other| *other != link);
        world.later(Event::Closed { host: end.0, conn: end.1 });
    }
    world.hosts[0] = host(1, Identity { incarnation: 999, ..identity(1, 2) }, listing(&[2]));
    world.run(50 * MS);
    assert!(world.is_meshed());
    assert_eq!(world.hosts[1].losses, [Loss::Gone]);
}

#[test]
fn a_new_process_behind_a_broken_path_is_told_from_the_old_one() {
    let mut world = World::mesh(2, vec![MS]);
    world.run(100 * MS);
    world.links.clear();
    world.with(1, |peers, o| peers.on_broken(PeerId(0), o));
    world.hosts[0] = host(1, identity(1, 9), listing(&[2]));
    world.run(1_000 * MS);
    assert!(world.is_meshed());
    assert_eq!(world.hosts[1].replaced, 1);
}

#[test]
fn only_list_and_prefixes_are_answered() {
    let prefix = Prefix { address: ip(64), bits: 26 };
    let admission = Admission { listed: vec![], accept: vec![prefix], peers_max: 2 };
    let mut hosts = vec![host(1, identity(1, 1), admission)];
    for n in [65, 66, 67, 128] {
        hosts.push(host(n, identity(n, 1), listing(&[1])));
    }
    let mut world = World::new(hosts, vec![MS]);
    world.run(300 * MS);
    assert_eq!(world.hosts[0].up.len(), 2);
    let refusals: Vec<Option<Refusal>> =
        world.hosts[1..].iter().map(|h| h.peers.refusal(PeerId(0)).map(|r| r.1)).collect();
    assert_eq!(refusals.iter().filter(|r| **r == Some(Refusal::Full)).count(), 1);
    assert_eq!(refusals[3], None, "its hello never was read");
    assert!(world.hosts[4].up.is_empty() && world.hosts[0].counters.incoming_unwanted > 0);
}

#[test]
fn hosts_that_do_not_fit_are_refused_with_the_reason() {
    type Change = fn(&mut Identity);
    let rows: [(&str, Change, Refusal); 5] = [
        ("MTU", |own| own.mtu = 9000, Refusal::Mtu),
        ("mode", |own| own.mode = Mode::Ud, Refusal::Mode),
        ("message", |own| own.message_max = 1600, Refusal::Message),
        ("address", |own| own.mac = [2, 0, 0, 0, 0, 2], Refusal::Mac),
        ("itself", |own| own.host = identity(2, 1).host, Refusal::Itself),
    ];
    for (name, change, expected) in rows {
        let mut other = identity(1, 1);
        change(&mut other);
        let hosts = vec![
            host(1, other, listing(&[2])),
            host(2, identity(2, 1), Admission { listed: vec![], ..listing(&[]) }),
        ];
        let mut world = World::new(hosts, vec![MS]);
        world.hosts[1].peers.admission.accept = vec![Prefix { address: ip(0), bits: 24 }];
        world.run(100 * MS);
        let refusal = world.hosts[0].peers.refusal(PeerId(0)).map(|(_, refusal, _)| refusal);
        assert_eq!(refusal, Some(expected), "{name}");
        assert!(world.hosts[1].up.is_empty() && world.hosts[1].queue_pairs.is_empty(), "{name}");
    }
}

#[test]
fn a_peer_whose_hardware_address_calls_from_elsewhere_is_asked_whether_it_is_there() {
    let hosts = vec![
        host(1, identity(1, 1), listing(&[])),
        host(2, identity(2, 1), listing(&[1])),
        host(3, Identity { mac: identity(2, 1).mac, ..identity(3, 1) }, listing(&[1])),
    ];
    let mut world = World::new(hosts, vec![MS]);
    world.hosts[0].peers.admission.accept = vec![Prefix { address: ip(0), bits: 24 }];
    world.run(100 * MS);
    let up: Vec<PeerId> = world.hosts[0].up.keys().copied().collect();
    let refused: Vec<usize> = (1..3).filter(|n| world.hosts[*n].up.is_empty()).collect();
    assert_eq!((up.len(), refused.len()), (1, 1), "one of both has the address");
    // The one that is up is asked, each time; its session stands until it does not answer.
    assert!(!world.hosts[0].doubted.is_empty());
    assert!(world.hosts[0].doubted.iter().all(|peer| *peer == up[0]));
    assert!(world.hosts[0].losses.is_empty());
}

#[test]
fn strangers_are_few_and_get_a_second() {
    let admission = listing(&[2]);
    let mut world = World::new(vec![host(1, identity(1, 1), admission)], vec![MS]);
    for _ in 0..STRANGERS_MAX {
        assert!(world.with(0, |peers, o| peers.on_incoming(ip(2), o)).is_some());
    }
    assert!(world.with(0, |peers, o| peers.on_incoming(ip(2), o)).is_none());
    world.run(WORD_NS_MAX);
    assert!(world.hosts[0].peers.strangers.is_empty());
    let conn = world.with(0, |peers, o| peers.on_incoming(ip(2), o)).expect("taken");
    world.with(0, |peers, o| peers.on_garbage(conn, WordError::Version, o));
    assert!(world.hosts[0].peers.strangers.is_empty());
}

#[test]
fn a_message_before_the_last_word_makes_the_session() {
    let mut world = World::new(vec![host(1, identity(1, 1), listing(&[2]))], vec![MS]);
    let conn = world.with(0, |peers, o| peers.on_incoming(ip(2), o)).expect("taken");
    let hello = Hello { host: 77, ..HELLO };
    world.with(0, |peers, o| peers.on_word(conn, Word::Hello(hello), o));
    assert!(world.hosts[0].up.is_empty() && world.hosts[0].queue_pairs.len() == 1);
    world.with(0, |peers, o| peers.on_heard(PeerId(0), o));
    assert_eq!(world.hosts[0].up.len(), 1);
    world.with(0, |peers, o| peers.on_word(conn, Word::Ready, o));
    assert_eq!(world.hosts[0].counters.sessions_up, 1);
    world.with(0, |peers, o| peers.on_word(conn, Word::Bye(Parting::Closing), o));
    assert_eq!(world.hosts[0].losses, [Loss::Gone]);
}

#[test]
fn prefixes_hold_what_begins_with_them() {
    let rows = [
        ("10.9.0.0", 24, "10.9.0.255", true),
        ("10.9.0.0", 24, "10.9.1.0", false),
        ("10.9.0.0", 0, "192.0.2.1", true),
        ("10.9.0.1", 32, "10.9.0.1", true),
        ("10.9.0.1", 32, "10.9.0.0", false),
        ("10.9.0.0", 24, "::ffff:10.9.0.7", true),
        ("fd00::", 64, "fd00::9", true),
        ("fd00::", 64, "fd00:0:0:1::9", false),
        ("fd00::1", 128, "fd00::1", true),
        ("::", 0, "fd00::1", true),
        ("::", 0, "10.9.0.1", false),
    ];
    for (address, bits, other, expected) in rows {
        let prefix = Prefix { address: address.parse().unwrap(), bits };
        assert_eq!(prefix.contains(other.parse().unwrap()), expected, "{address}/{bits} {other}");
    }
}

#[test]
fn a_process_that_is_not_there_any_more_is_gone_and_one_that_never_was_is_not() {
    let listed = Admission { listed: vec![at(2)], accept: vec![], peers_max: 1 };
    let mut one = host(1, identity(1, 1), listed);
    let act = |one: &mut Host, now_ns: u64, call: &dyn Fn(&mut Peers, &mut Outside<'_>)| {
        let mut outside = Outside { now_ns, counters: &mut one.counters, macs: &mut one.macs };
        call(&mut one.peers, &mut outside);
        let mut actions = Vec::new();
        while let Some(action) = one.peers.poll_action() {
            actions.push(action);
        }
        actions
    };
    let called = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Dial { conn, .. } => Some(*conn),
            _ => None,
        })
    };
    let replaced =
        |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Replaced { .. }));
    // Nobody was there yet: nothing is lost.
    let conn = called(&act(&mut one, 0, &|peers, o| peers.on_tick(o))).unwrap();
    assert!(!replaced(&act(&mut one, MS, &|peers, o| peers.on_nobody(conn, o))));
    // A session, whose queue pair fails.
    let conn = called(&act(&mut one, 1000 * MS, &|peers, o| peers.on_tick(o))).unwrap();
    act(&mut one, 1001 * MS, &|peers, o| peers.on_connected(conn, true, o));
    let prepared = Prepared { endpoint: HELLO.endpoint, credits: 4 };
    act(&mut one, 1001 * MS, &|peers, o| peers.on_prepared(PeerId(0), Some(prepared), o));
    let other = Hello { host: 99, mac: [2, 0, 0, 0, 0, 2], ..HELLO };
    let other = Hello { mtu: 1500, message_max: 65_598, mode: Mode::Rc, ..other };
    act(&mut one, 1002 * MS, &|peers, o| peers.on_word(conn, Word::Accept(other), o));
    act(&mut one, 1002 * MS, &|peers, o| peers.on_established(PeerId(0), true, o));
    assert_eq!(one.peers.up_count(), 1);
    let actions = act(&mut one, 1100 * MS, &|peers, o| peers.on_broken(PeerId(0), o));
    assert!(!replaced(&actions), "its process may live");
    // It is called again, and nobody is there any more: its connections end, once.
    let conn = called(&act(&mut one, 2000 * MS, &|peers, o| peers.on_tick(o))).unwrap();
    assert!(replaced(&act(&mut one, 2001 * MS, &|peers, o| peers.on_nobody(conn, o))));
    let conn = called(&act(&mut one, 3000 * MS, &|peers, o| peers.on_tick(o))).unwrap();
    assert!(!replaced(&act(&mut one, 3001 * MS, &|peers, o| peers.on_nobody(conn, o))));
}
