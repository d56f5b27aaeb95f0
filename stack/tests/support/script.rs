//! A hand-made peer: segments are put before one stack byte by byte, and what it answers is looked
//! at segment by segment. Numbers are relative: the peer's from its ISS, the stack's from its own.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use roceway_stack::checksum::Sum;
use roceway_stack::frame::TxFrame;
use roceway_stack::memory::{Memory, Slot};
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, Listener, ReceiveError, TcpState};
use roceway_stack::time::{Duration, Instant};
use roceway_stack::wire::arp::{ArpOperation, ArpPacket};
use roceway_stack::wire::ethernet::{EthernetHeader, ethertype};
use roceway_stack::wire::ndp::NdpMessage;
use roceway_stack::wire::tcp::{Options, TcpFlags, TcpHeader};

use super::{Host, Setup, Wire, World, host_address};

/// The peer's initial sequence number.
pub const PEER_ISS: u32 = 0xffff_fff0;
/// The peer's port, if nothing else is said.
pub const PEER_PORT: u16 = 40_000;
/// The port that the stack listens at.
pub const PORT: u16 = 80;
/// Bytes that a TSval of the peer begins at.
pub const PEER_TS: u32 = 1_000_000;

/// A segment, numbers relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub flags: &'static str,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

/// A segment with these flags (letters of SFRPAUEW; E is ECE and W is CWR), number and
/// acknowledgment.
pub fn seg(flags: &'static str, seq: u32, ack: u32) -> Seg {
    Seg { flags, seq, ack, window: 65_535, urgent: 0, options: Vec::new(), data: Vec::new() }
}

impl Seg {
    pub fn window(self, window: u16) -> Seg {
        Seg { window, ..self }
    }

    pub fn data(self, data: &[u8]) -> Seg {
        Seg { data: data.to_vec(), ..self }
    }

    pub fn bytes(self, n: usize) -> Seg {
        Seg { data: vec![b'x'; n], ..self }
    }

    pub fn urgent(self, urgent: u16) -> Seg {
        Seg { urgent, ..self }
    }

    pub fn option(mut self, bytes: &[u8]) -> Seg {
        self.options.extend_from_slice(bytes);
        self
    }

    pub fn mss(self, mss: u16) -> Seg {
        let [a, b] = mss.to_be_bytes();
        self.option(&[2, 4, a, b])
    }

    pub fn scale(self, shift: u8) -> Seg {
        self.option(&[1, 3, 3, shift])
    }

    pub fn sack_permitted(self) -> Seg {
        self.option(&[1, 1, 4, 2])
    }

    pub fn ts(self, value: u32, echo: u32) -> Seg {
        self.option(&[1, 1, 8, 10]).option(&value.to_be_bytes()).option(&echo.to_be_bytes())
    }

    pub fn sack(self, blocks: &[(u32, u32)], base: u32) -> Seg {
        let len = u8::try_from(2 + 8 * blocks.len()).unwrap();
        let mut it = self.option(&[1, 1, 5, len]);
        for (start, end) in blocks {
            it = it.option(&base.wrapping_add(*start).to_be_bytes());
            it = it.option(&base.wrapping_add(*end).to_be_bytes());
        }
        it
    }
}

/// What the stack sent, numbers relative.
#[derive(Clone, Debug)]
pub struct Sent {
    pub flags: String,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub urgent: u16,
    pub options: Options,
    pub data: Vec<u8>,
    pub ports: (u16, u16),
    /// SEG.SEQ as it stands in the header.
    pub raw_seq: u32,
    /// Time to live and type of service, or hop limit and traffic class.
    pub marks: (u8, u8),
}

fn flags_of(letters: &str) -> TcpFlags {
    letters.chars().fold(TcpFlags::NONE, |flags, letter| {
        flags.with(match letter {
            'F' => TcpFlags::FIN,
            'S' => TcpFlags::SYN,
            'R' => TcpFlags::RST,
            'P' => TcpFlags::PSH,
            'A' => TcpFlags::ACK,
            'U' => TcpFlags::URG,
            'E' => TcpFlags::ECE,
            'W' => TcpFlags::CWR,
            other => panic!("no flag {other}"),
        })
    })
}

fn letters_of(flags: TcpFlags) -> String {
    "SFRPAUEW".chars().filter(|it| flags.intersects(flags_of(&it.to_string()))).collect()
}

/// One stack and its hand-made peer.
pub struct Script {
    pub world: World,
    pub listener: Id<Listener>,
    pub peer_port: u16,
    pub local_port: u16,
    pub peer: IpAddr,
    pub peer_iss: u32,
    /// The stack's ISS, once seen.
    pub iss: Option<u32>,
    sent: VecDeque<Sent>,
    /// Frames of other protocols: ICMP.
    pub other: Vec<Vec<u8>>,
    answer_neighbors: bool,
    /// Frames that asked for the peer's Ethernet address.
    pub questions: Vec<Vec<u8>>,
    /// What the device has not completed, while it is told to be slow.
    in_device: Option<Vec<Slot>>,
}

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

impl Script {
    pub fn new(setup: Setup) -> Script {
        let peer = host_address(setup.v6, 9);
        let mut world = World::new(setup);
        let listener = world.listen(0, PORT);
        Script {
            world,
            listener,
            peer_port: PEER_PORT,
            local_port: PORT,
            peer,
            peer_iss: PEER_ISS,
            iss: None,
            sent: VecDeque::new(),
            other: Vec::new(),
            answer_neighbors: true,
            questions: Vec::new(),
            in_device: None,
        }
    }

    /// A passive connection to which the peer offered nothing but an MSS of 1000.
    pub fn established() -> (Script, Id<Connection>) {
        Script::established_with(Setup::default(), seg("S", 0, 0).mss(1000))
    }

    /// A passive connection opened by this SYN.
    pub fn established_with(setup: Setup, syn: Seg) -> (Script, Id<Connection>) {
        let mut script = Script::new(setup);
        let with_ts = syn.options.windows(2).any(|it| it == [8, 10]);
        let window = syn.window;
        script.send(syn);
        let answer = script.expect("SA", 0, 1);
        let mut ack = seg("A", 1, 1).window(window);
        if with_ts {
            ack = ack.ts(PEER_TS, answer.options.timestamps.unwrap().value);
        }
        script.send(ack);
        let id = script.world.accept(0, script.listener).expect("no connection to accept");
        script.nothing();
        (script, id)
    }

    /// An active connection of which only the SYN went out.
    pub fn syn_sent(setup: Setup) -> (Script, Id<Connection>, Sent) {
        let mut script = Script::new(setup);
        let remote = SocketAddr::new(script.peer, script.peer_port);
        let now = script.world.now;
        let host = &mut script.world.hosts[0];
        let (tcp, ip) = host.stack.tcp();
        let id = tcp.connect(remote, None, (now, ip)).unwrap();
        script.pump();
        let syn = script.sent.pop_front().expect("no SYN");
        assert!(syn.flags.starts_with('S') && syn.seq == 0, "{syn:?}");
        script.local_port = syn.ports.0;
        (script, id, syn)
    }

    pub fn host(&mut self) -> &mut Host {
        &mut self.world.hosts[0]
    }

    pub fn state(&mut self, id: Id<Connection>) -> TcpState {
        self.host().stack.tcp().0.info(id).expect("no connection").state
    }

    pub fn write(&mut self, id: Id<Connection>, data: &[u8]) -> usize {
        let n = self.world.write(0, id, data);
        self.pump();
        n
    }

    pub fn read(&mut self, id: Id<Connection>) -> Result<Vec<u8>, ReceiveError> {
        let mut out = vec![0; 1 << 20];
        let host = self.host();
        let n = host.stack.tcp().0.receive(id, &mut out, &mut host.mem)?;
        out.truncate(n);
        self.pump();
        Ok(out)
    }

    pub fn shutdown(&mut self, id: Id<Connection>) {
        self.host().stack.tcp().0.shutdown(id, false, true).unwrap();
        self.pump();
    }

    pub fn close(&mut self, id: Id<Connection>) {
        self.world.close(0, id);
        self.pump();
    }

    /// Time passes; timers run as they are due.
    pub fn wait(&mut self, time: Duration) {
        let until = self.world.now + time;
        loop {
            self.pump();
            let next = self.host().stack.next_deadline();
            if next > until {
                break;
            }
            self.world.now = self.world.now.max(next);
            let now = self.world.now;
            let host = self.host();
            host.stack.on_timers(now, 1000, &mut host.mem);
        }
        self.world.now = until;
        self.pump();
    }

    pub fn now(&self) -> Instant {
        self.world.now
    }

    /// The peer answers no question for its Ethernet address.
    pub fn hide_peer(&mut self) {
        self.answer_neighbors = false;
    }

    /// From now on the device sends, but completes nothing.
    pub fn stall_completions(&mut self) {
        self.in_device = Some(Vec::new());
    }

    /// The device completes everything, and does so at once from now on.
    pub fn complete(&mut self) {
        let mem = &mut self.world.hosts[0].mem;
        for slot in self.in_device.take().unwrap_or_default() {
            mem.release(slot);
        }
    }

    /// Takes out all frames that the stack has.
    pub fn pump(&mut self) {
        let mut frame = TxFrame::default();
        loop {
            let now = self.world.now;
            let host = &mut self.world.hosts[0];
            if !host.stack.poll_frame(now, &mut host.mem, &mut frame) {
                return;
            }
            let mut bytes = Vec::new();
            for piece in &frame.pieces {
                bytes.extend_from_slice(host.mem.bytes(*piece));
                match &mut self.in_device {
                    Some(slots) => slots.push(piece.slot),
                    None => host.mem.release(piece.slot),
                }
            }
            let mut wire = Wire::of(&frame, bytes);
            if wire.gso_size == 0 {
                wire.finish_checksum();
            }
            self.sort(wire.bytes);
        }
    }

    fn sort(&mut self, bytes: Vec<u8>) {
        let ip = &bytes[14..];
        match (u16::from_be_bytes([bytes[12], bytes[13]]), self.peer) {
            (ethertype::ARP, _) => self.answer_arp(&bytes),
            (ethertype::IPV4, _) if ip[9] == 6 => {
                assert_eq!(Sum::of(&bytes[14..34]).checksum(), 0, "the IPv4 header's checksum");
                self.note(&bytes[34..], (bytes[22], bytes[15]));
            }
            (ethertype::IPV6, _) if ip[6] == 6 => {
                self.note(&bytes[54..], (bytes[21], bytes[14] << 4 | bytes[15] >> 4));
            }
            (ethertype::IPV6, _) if ip[6] == 58 && ip[40] == 135 => self.answer_ndp(&bytes),
            _ => self.other.push(bytes),
        }
    }

    fn note(&mut self, tcp: &[u8], marks: (u8, u8)) {
        let header = TcpHeader::parse(tcp).expect("the stack sent a malformed header");
        let raw_seq = header.seq.get();
        if header.flags.intersects(TcpFlags::SYN) {
            self.iss = Some(raw_seq);
        }
        self.sent.push_back(Sent {
            flags: letters_of(header.flags),
            seq: raw_seq.wrapping_sub(self.iss.unwrap_or(0)),
            ack: header.ack.get().wrapping_sub(self.peer_iss),
            window: header.window,
            urgent: header.urgent,
            options: Options::parse(header.options(tcp)),
            data: tcp[usize::from(header.header_len)..].to_vec(),
            ports: (header.source_port, header.destination_port),
            raw_seq,
            marks,
        });
    }

    fn answer_arp(&mut self, bytes: &[u8]) {
        let Some(asked) = ArpPacket::parse(&bytes[14..]) else { return };
        if asked.operation != ArpOperation::Request {
            return;
        }
        self.questions.push(bytes.to_vec());
        if !self.answer_neighbors {
            return;
        }
        let reply = ArpPacket {
            operation: ArpOperation::Reply,
            sender_mac: PEER_MAC,
            sender: asked.target,
            target_mac: asked.sender_mac,
            target: asked.sender,
        };
        let mut frame = link(ethertype::ARP);
        frame.extend_from_slice(&reply.to_bytes());
        self.deliver(frame);
    }

    fn answer_ndp(&mut self, bytes: &[u8]) {
        let Some(NdpMessage::Solicitation { target, .. }) = NdpMessage::parse(&bytes[54..]) else {
            return;
        };
        self.questions.push(bytes.to_vec());
        if !self.answer_neighbors {
            return;
        }
        let answer =
            NdpMessage::Advertisement { target, target_mac: Some(PEER_MAC), solicited: true };
        let (message, len) = answer.to_bytes();
        let mut message = message[..len].to_vec();
        let ours = self.world.hosts[0].address;
        let sum = Sum::pseudo(IpAddr::V6(target), ours, 58, u32::try_from(len).unwrap());
        let sum = sum.plus(Sum::of(&message)).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let frame = self.ip(58, 255, &message);
        self.deliver(frame);
    }

    /// A packet of the peer's with this payload.
    pub fn ip(&self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        packet(self.peer, self.world.hosts[0].address, (protocol, ttl), payload)
    }

    /// Puts a frame before the stack and takes out what it says.
    pub fn deliver(&mut self, frame: Vec<u8>) {
        let now = self.world.now;
        assert!(self.world.hosts[0].deliver(now, &Wire::whole(frame)), "no receive slot");
        self.pump();
    }

    /// The bytes of a segment of the peer's, from the TCP header on, its checksum right.
    pub fn tcp_bytes(&self, seg: &Seg) -> Vec<u8> {
        let mut options = seg.options.clone();
        while !options.len().is_multiple_of(4) {
            options.push(1);
        }
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.peer_port.to_be_bytes());
        bytes.extend_from_slice(&self.local_port.to_be_bytes());
        bytes.extend_from_slice(&self.peer_iss.wrapping_add(seg.seq).to_be_bytes());
        let has_ack = seg.flags.contains('A');
        let ack = if has_ack { self.iss.unwrap_or(0).wrapping_add(seg.ack) } else { 0 };
        bytes.extend_from_slice(&ack.to_be_bytes());
        bytes.push(u8::try_from((20 + options.len()) / 4).unwrap() << 4);
        bytes.push(flags_of(seg.flags).bits());
        bytes.extend_from_slice(&seg.window.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&seg.urgent.to_be_bytes());
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(&seg.data);
        let len = u32::try_from(bytes.len()).unwrap();
        let sum = Sum::pseudo(self.peer, self.world.hosts[0].address, 6, len);
        let sum = sum.plus(Sum::of(&bytes)).checksum();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The frame of a segment.
    pub fn frame(&self, seg: &Seg) -> Vec<u8> {
        self.ip(6, 64, &self.tcp_bytes(seg))
    }

    /// The peer sends a segment.
    #[expect(clippy::needless_pass_by_value, reason = "a call reads as what is sent")]
    pub fn send(&mut self, seg: Seg) {
        let frame = self.frame(&seg);
        self.deliver(frame);
    }

    /// The peer's segment arrives with this ECN field in its IP header.
    #[expect(clippy::needless_pass_by_value, reason = "a call reads as what is sent")]
    pub fn send_marked(&mut self, seg: Seg, ecn: u8) {
        let mut frame = self.frame(&seg);
        if self.peer.is_ipv6() {
            frame[15] |= ecn << 4;
        } else {
            frame[15] |= ecn;
            frame[24..26].fill(0);
            let sum = Sum::of(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        self.deliver(frame);
    }

    /// The next segment of the stack, whatever it is.
    #[track_caller]
    pub fn next(&mut self) -> Sent {
        self.sent.pop_front().expect("the stack sent nothing")
    }

    /// Everything that the stack sent and nobody looked at.
    pub fn drain(&mut self) -> Vec<Sent> {
        self.sent.drain(..).collect()
    }

    /// The next segment, which must have these flags (PSH left aside) and numbers.
    #[track_caller]
    pub fn expect(&mut self, flags: &str, seq: u32, ack: u32) -> Sent {
        let sent = self.next();
        let shown = sent.flags.replace('P', "");
        assert_eq!((shown.as_str(), sent.seq, sent.ack), (flags, seq, ack), "{sent:?}");
        sent
    }

    /// The next segment: data of `len` bytes at `seq`.
    #[track_caller]
    pub fn expect_data(&mut self, seq: u32, len: usize) -> Sent {
        let sent = self.next();
        assert_eq!((sent.seq, sent.data.len()), (seq, len), "{sent:?}");
        sent
    }

    /// A reset with the number that answers a segment without ACK or with it.
    #[track_caller]
    pub fn expect_reset(&mut self) -> Sent {
        let sent = self.next();
        assert!(sent.flags.contains('R'), "no reset but {sent:?}");
        sent
    }

    /// The stack has sent nothing.
    #[track_caller]
    pub fn nothing(&mut self) {
        self.pump();
        assert!(self.sent.is_empty(), "the stack sent {:?}", self.sent);
    }
}

fn link(ethertype: u16) -> Vec<u8> {
    EthernetHeader { destination: OUR_MAC, source: PEER_MAC, ethertype }.to_bytes().to_vec()
}

/// An Ethernet frame with an IP packet.
pub fn packet(from: IpAddr, to: IpAddr, (protocol, ttl): (u8, u8), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut head = vec![0x45, 0];
            head.extend_from_slice(&(len + 20).to_be_bytes());
            head.extend_from_slice(&[0, 0, 0x40, 0, ttl, protocol, 0, 0]);
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            let sum = Sum::of(&head).checksum();
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            [link(ethertype::IPV4), head, payload.to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut head = vec![0x60, 0, 0, 0];
            head.extend_from_slice(&len.to_be_bytes());
            head.extend_from_slice(&[protocol, ttl]);
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            [link(ethertype::IPV6), head, payload.to_vec()].concat()
        }
        _ => panic!("two families"),
    }
}
