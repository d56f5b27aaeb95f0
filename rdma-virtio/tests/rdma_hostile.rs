//! A peer that keeps to the exchange and then sends what it must not, over the double of
//! libibverbs: each offence is counted, costs its own session at most, and disturbs nobody else.

mod rdma_world;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use rdma_world::*;
use roceway_rdma_virtio::memory::mapping::Mapping;
use roceway_rdma_virtio::nic::Sge;
use roceway_rdma_virtio::nic::rdma::wire::exchange::{Endpoint, Hello, Mode, Refusal, Word};
use roceway_rdma_virtio::nic::rdma::wire::header::{Header, Kind};
use roceway_rdma_virtio::verbs::address::{AddressHandle, Path};
use roceway_rdma_virtio::verbs::attributes::Mtu;
use roceway_rdma_virtio::verbs::completion::{CompletionQueue, CompletionQueueOptions};
use roceway_rdma_virtio::verbs::device;
use roceway_rdma_virtio::verbs::domain::ProtectionDomain;
use roceway_rdma_virtio::verbs::gid::Gid;
use roceway_rdma_virtio::verbs::queue_pair::{
    Init, QueuePair, QueuePairKind, QueuePairOptions, QueueSizes, Rts,
};
use roceway_rdma_virtio::verbs::region::{Access, Region};
use roceway_rdma_virtio::verbs::transition::{
    InitAttributes, ReceiveAttributes, ReliableReceive, ReliableSend, SendAttributes,
};
use roceway_rdma_virtio::verbs::work_list::{
    Destination, Operation, SendList, SendListSize, SendRequest,
};

const QKEY: u32 = 0x1234;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
const SESSION: u32 = 0x0bad_0001;
const INCARNATION: u32 = 0x0666_0001;
const LONG: usize = 80_000;

/// A victim and its good peer, which talk all the while.
struct Pair {
    victim: End,
    good: End,
    port: u16,
    mode: Mode,
}

impl Pair {
    fn new(mode: Mode, port: u16) -> Pair {
        let name = mode.name();
        let victim = format!(
            "rdma:double0,mode={name},gid=3,port={port},peers=3,accept=127.0.0.0/8,exchange=tcp"
        );
        let good = format!("rdma:double1,mode={name},gid=3,port=0,peer=127.0.0.1:{port}");
        let mut pair = Pair { victim: End::open(&victim), good: End::open(&good), port, mode };
        run(&mut [&mut pair.victim, &mut pair.good], "a session", is_up);
        pair
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut End) -> bool) {
        run(&mut [&mut self.victim, &mut self.good], what, |ends| {
            ends[1].receive();
            ends[0].receive();
            done(ends[0])
        });
    }

    /// Frames cross both ways as if nothing had been.
    fn check(&mut self) {
        let (a, b) = (self.victim.mac(), self.good.mac());
        for _ in 0..3 {
            self.victim.send(b, a, 200).unwrap();
            self.good.send(a, b, 200).unwrap();
            let mut came = (0, 0);
            run(&mut [&mut self.victim, &mut self.good], "good frames", |ends| {
                came.0 += ends[0].receive().len();
                came.1 += ends[1].receive().len();
                ends[0].reap();
                ends[1].reap();
                came.0 > 0 && came.1 > 0
            });
        }
        self.victim.check_conservation();
        assert_eq!(self.good.counter("wire_sessions_down"), 0, "the good peer was not touched");
    }
}

fn hello(mode: Mode, endpoint: Endpoint) -> Hello {
    Hello {
        versions: (1, 1),
        mode,
        mac: MAC,
        mtu: if mode == Mode::Rc { 1500 } else { 970 },
        message_max: if mode == Mode::Rc { 65_586 } else { 1024 },
        endpoint,
        session: SESSION,
        incarnation: INCARNATION,
        credits: 4,
        port: 0,
        host: 0x6666,
    }
}

/// Says a word and waits for the answer.
fn ask(pair: &mut Pair, word: &[u8]) -> (TcpStream, Word) {
    let mut stream = TcpStream::connect(("127.0.0.1", pair.port)).unwrap();
    stream.write_all(word).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut bytes, mut answer) = (Vec::new(), None);
    pair.until("an answer", |_| {
        let mut some = [0; 256];
        match stream.read(&mut some) {
            Ok(count) => bytes.extend_from_slice(&some[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if let [_, _, _, _, kind, _, high, low, body @ ..] = &bytes[..]
            && body.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        {
            answer = Word::decode(*kind, body).ok();
        }
        answer.is_some()
    });
    (stream, answer.unwrap())
}

/// The hostile peer, connected.
struct Hostile {
    // Before what they name.
    pair: QueuePair<Rts>,
    way: Option<AddressHandle>,
    _queue: CompletionQueue,
    region: Region,
    memory: Mapping,
    _domain: ProtectionDomain,
    _stream: TcpStream,
    theirs: Hello,
    victim: [u8; 6],
}

impl Hostile {
    fn join(pair: &mut Pair) -> Hostile {
        let found = device::find("double2").unwrap();
        let domain = found.context.protection_domain().unwrap();
        let options = CompletionQueueOptions { entries: 256, channel: None, vector: 0, token: 0 };
        let queue = found.context.completion_queue(&options).unwrap();
        let kind = match pair.mode {
            Mode::Rc => QueuePairKind::Rc,
            Mode::Ud => QueuePairKind::Ud,
        };
        let made = domain.queue_pair(&QueuePairOptions {
            kind,
            send_queue: &queue,
            recv_queue: &queue,
            shared_receive: None,
            sizes: QueueSizes {
                max_send_wr: 128,
                max_recv_wr: 4,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline: 0,
            },
            max_tso_header: 0,
        });
        let begun = InitAttributes { port: 1, pkey_index: 0, qkey: QKEY };
        let begun: QueuePair<Init> = made.unwrap().init(&begun).unwrap();
        let own = Gid::from(std::net::IpAddr::from([127, 0, 0, 3]));
        let endpoint =
            Endpoint { qpn: begun.number(), psn: 7, qkey: QKEY, gid: own.0, path_mtu: 3 };
        let word = Word::Hello(hello(pair.mode, endpoint));
        let (mut stream, answer) = ask(pair, &word.encode());
        let Word::Accept(theirs) = answer else { panic!("{answer:?}") };
        let path = Path {
            port: 1,
            source_index: 3,
            destination: Gid(theirs.endpoint.gid),
            lid: 0,
            service_level: 0,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
        };
        let (queue_pair, way) = connected(begun, &domain, path, (&theirs, kind));
        stream.write_all(&Word::Ready.encode()).unwrap();
        pair.until("the hostile session", |victim| victim.counter("rdma_peers_up") == 2);
        let memory = region(c"hostile", LONG);
        let length = u64::try_from(LONG).unwrap();
        // SAFETY: the mapping is dropped after the region and the queue pair; a message is not
        // written while it is sent, since each test waits for what becomes of it.
        let region = unsafe { domain.register(memory.addr(), length, Access::LocalWrite) };
        Hostile {
            pair: queue_pair,
            way,
            _queue: queue,
            region: region.unwrap(),
            memory,
            _domain: domain,
            _stream: stream,
            theirs,
            victim: pair.victim.mac(),
        }
    }

    fn send(&mut self, message: &[u8]) {
        let place = self.memory.as_mut_ptr();
        // SAFETY: within the mapping; nothing that was sent before is under way, or it has the
        // same bytes but for counts that do not matter.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place, message.len()) };
        let sge = Sge {
            addr: self.memory.addr(),
            length: u32::try_from(message.len()).unwrap(),
            lkey: self.region.lkey(),
        };
        let mut list =
            SendList::new(SendListSize { requests: 1, sges: 1, header: 0, copies: false });
        let (queue_pair, qkey) = (self.theirs.endpoint.qpn, self.theirs.endpoint.qkey);
        let destination = self.way.as_ref().map(|handle| Destination { handle, queue_pair, qkey });
        let request = SendRequest {
            wr_id: 1,
            sges: &[sge],
            operation: Operation::Send,
            signalled: true,
            solicited: false,
            checksum: false,
            destination,
        };
        list.push(&request).unwrap();
        // A queue pair that the victim gave up takes no more.
        let _gone = self.pair.post_send(&mut list);
    }

    /// A data message of this session with a frame of so many bytes.
    fn data(&self, session: u32, sequence: u32, frame: usize) -> Vec<u8> {
        let header = Header {
            kind: Kind::Data,
            session,
            incarnation: INCARNATION,
            sequence,
            limit: 4,
            echo: 0,
        };
        let mut message = header.encode().to_vec();
        message.extend([0; NET_HEADER_LEN]);
        message.extend(self.victim);
        message.extend(MAC);
        // As the good ones, whose receiver looks at every byte.
        let at = NET_HEADER_LEN + 12;
        message.extend((at..at + frame).map(|n| u8::try_from(n % 251).unwrap()));
        message
    }
}

fn connected(
    begun: QueuePair<Init>,
    domain: &ProtectionDomain,
    path: Path,
    (theirs, kind): (&Hello, QueuePairKind),
) -> (QueuePair<Rts>, Option<AddressHandle>) {
    if kind == QueuePairKind::Ud {
        let ready = begun.rtr(&ReceiveAttributes::Unconnected).unwrap();
        let ready = ready.rts(&SendAttributes::Datagram { psn: 0 }).unwrap();
        return (ready, Some(domain.address_handle(&path).unwrap()));
    }
    let ready = begun.rtr(&ReceiveAttributes::Reliable(ReliableReceive {
        path,
        mtu: Mtu::B1024,
        queue_pair: theirs.endpoint.qpn,
        psn: theirs.endpoint.psn,
        min_rnr_timer: 12,
    }));
    let ready = ready.unwrap().rts(&SendAttributes::Reliable(ReliableSend {
        psn: 7,
        timeout: 12,
        retry_count: 6,
        rnr_retry: 6,
    }));
    (ready.unwrap(), None)
}

/// What a message costs: the counter that tells of it, and whether the session ends.
fn offence(pair: &mut Pair, what: &str, ends: bool, act: impl FnOnce(&mut Hostile)) {
    let mut hostile = Hostile::join(pair);
    let before = pair.victim.counter(what);
    let down = pair.victim.counter("wire_sessions_down");
    act(&mut hostile);
    pair.until(what, |victim| {
        victim.counter(what) > before && (!ends || victim.counter("wire_sessions_down") > down)
    });
    assert_eq!(pair.victim.counter("wire_sessions_down") > down, ends, "{what}");
    pair.check();
    drop(hostile);
    pair.until("the hostile end", |victim| victim.counter("rdma_peers_up") == 1);
    pair.check();
}

#[test]
fn a_peer_of_rc_that_breaks_the_rules_loses_its_session_and_nobody_else_does() {
    let name = "a_peer_of_rc_that_breaks_the_rules_loses_its_session_and_nobody_else_does";
    with_double(name, || {
        let mut pair = Pair::new(Mode::Rc, 21_920);
        let theirs = |hostile: &Hostile| hostile.theirs.session;
        offence(&mut pair, "wire_rx_drop_header", false, |hostile| hostile.send(&[0xff; 64]));
        offence(&mut pair, "wire_rx_drop_short", false, |hostile| hostile.send(&[1; 10]));
        offence(&mut pair, "wire_violations", true, |hostile| {
            let message = hostile.data(theirs(hostile) ^ 0x1_0000, 0, 60);
            hostile.send(&message);
        });
        offence(&mut pair, "wire_rx_drop_violation", true, |hostile| {
            for sequence in 0..u32::from(hostile.theirs.credits) + 8 {
                let message = hostile.data(theirs(hostile), sequence, 60);
                hostile.send(&message);
            }
        });
        // Longer than the longest receive.
        offence(&mut pair, "wire_rx_failed", true, |hostile| {
            let message = hostile.data(theirs(hostile), 0, 79_000);
            hostile.send(&message);
        });
        let posted = pair.victim.counter("rdma_receives_posted");
        assert!(posted >= 9, "one message may take one receive with it: {posted}");
    });
}

#[test]
fn datagrams_of_strangers_and_garbage_are_dropped_and_counted() {
    with_double("datagrams_of_strangers_and_garbage_are_dropped_and_counted", || {
        let mut pair = Pair::new(Mode::Ud, 21_930);
        offence(&mut pair, "wire_rx_drop_header", false, |hostile| hostile.send(&[0xff; 64]));
        offence(&mut pair, "wire_rx_drop_short", false, |hostile| hostile.send(&[1; 10]));
        offence(&mut pair, "wire_rx_drop_sender", false, |hostile| {
            let message = hostile.data(hostile.theirs.session ^ 0x1_0000, 0, 60);
            hostile.send(&message);
        });
        offence(&mut pair, "wire_rx_drop_mac", false, |hostile| {
            let mut message = hostile.data(hostile.theirs.session, 0, 60);
            let victim = hostile.victim;
            message[24 + NET_HEADER_LEN + 6..24 + NET_HEADER_LEN + 12].copy_from_slice(&victim);
            hostile.send(&message);
        });
    });
}

#[test]
fn hosts_of_another_version_mode_or_mtu_are_told_why_they_are_refused() {
    with_double("hosts_of_another_version_mode_or_mtu_are_told_why_they_are_refused", || {
        let mut pair = Pair::new(Mode::Rc, 21_940);
        let endpoint = Endpoint { qpn: 9, psn: 1, qkey: 0, gid: [1; 16], path_mtu: 3 };
        let fine = hello(Mode::Rc, endpoint);
        let rows = [
            (Hello { versions: (9, 9), ..fine }, Refusal::Version, 1),
            (Hello { mode: Mode::Ud, ..fine }, Refusal::Mode, 0),
            (Hello { mtu: 9000, ..fine }, Refusal::Mtu, 1500),
            (Hello { message_max: 99_999, ..fine }, Refusal::Message, 65_586),
        ];
        for (wrong, refusal, number) in rows {
            let (_, answer) = ask(&mut pair, &Word::Hello(wrong).encode());
            assert_eq!(answer, Word::Refuse(refusal, number));
        }
        pair.check();
    });
}
