//! A TCP connection whose peer says anything at any time: each segment is forged near what a real
//! peer would send, since one that is not near is dropped at the first check.
//!
//! An input is a byte of offloads and then steps: a byte that says which, and its arguments.

use std::net::SocketAddr;

use roceway_stack::frame::{Offloads, RxChecksum};
use roceway_stack::tcp::{Readiness, TcpOption};
use roceway_stack::time::Duration;
use roceway_stack::wire::tcp::{Options, TcpFlags, TcpHeader};

use super::host::{Host, OUR_PORT, PEER_PORT, fix_checksum, packet, peer_address};
use crate::input::Input;

const STEPS_MAX: u32 = 200;
const ACK: u8 = 0x10;

/// The target over IPv4.
pub(crate) fn run_v4(data: &[u8]) {
    run(data, false);
}

/// The target over IPv6.
pub(crate) fn run_v6(data: &[u8]) {
    run(data, true);
}

/// What the peer knows.
struct Peer {
    v6: bool,
    /// Its own next sequence number.
    seq: u32,
    /// What it expects of us.
    ack: u32,
    port: u16,
    /// Our last timestamp, and its own clock; none if not agreed upon.
    timestamps: Option<(u32, u32)>,
}

/// One forged segment.
#[derive(Clone, Copy, Default)]
struct Forged<'a> {
    flags: u8,
    /// Added to the right sequence and acknowledgment numbers.
    seq_off: u32,
    ack_off: u32,
    window: u16,
    urgent: u16,
    options: &'a [u8],
    payload: &'a [u8],
}

fn run(data: &[u8], v6: bool) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let bit = |n: u8| choice & n != 0;
    let mut host = Host::new(Offloads {
        tx_checksum: bit(1),
        tso4: bit(2),
        tso6: bit(2),
        tso_ecn: bit(2),
        uso: bit(2),
    });
    let mut peer = Peer { v6, seq: 1000, ack: 0, port: PEER_PORT, timestamps: None };
    introduce(&mut host, v6);
    peer.open(&mut host, bit(4), bit(8));
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut host, &mut peer, &mut input);
        peer.listen(&mut host);
    }
    host.end();
}

/// The stack learns where the peer is.
fn introduce(host: &mut Host, v6: bool) {
    let frame = if v6 {
        let mut bytes = vec![135, 0, 0, 0, 0, 0, 0, 0, 0xfd];
        bytes.extend_from_slice(&[0; 14]);
        bytes.extend_from_slice(&[1, 1, 1, 2, 0, 0, 0, 0, 2]);
        fix_checksum(true, 58, &mut bytes, 2);
        packet(true, 58, &bytes)
    } else {
        let words =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
        super::host::ethernet(0x0806, &words)
    };
    host.deliver(&frame, RxChecksum::Unknown, 0);
    host.out.clear();
}

impl Peer {
    /// Makes a connection, from its side or from ours.
    fn open(&mut self, host: &mut Host, passive: bool, bare: bool) {
        // MSS 1460, SACK permitted, timestamps, window scale 7.
        let full = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let options: &[u8] = if bare { &[] } else { &full };
        let syn = Forged { flags: 2, window: 60_000, options, ..Forged::default() };
        if passive {
            let remote = SocketAddr::new(peer_address(self.v6), PEER_PORT);
            let (tcp, ip) = host.stack.tcp();
            let id = tcp.connect(remote, None, (host.now, ip)).expect("a port");
            host.connections.push(id);
            host.settle();
            self.listen(host);
            self.send(host, Forged { flags: 0x12, ..syn });
        } else {
            self.send(host, syn);
            self.listen(host);
            self.send(host, Forged { flags: ACK, window: 60_000, ..Forged::default() });
        }
        self.listen(host);
    }

    /// Reads what the stack sent.
    fn listen(&mut self, host: &mut Host) {
        let at = if self.v6 { 54 } else { 34 };
        for frame in std::mem::take(&mut host.out) {
            let transport = if self.v6 { 20 } else { 23 };
            if frame.get(transport) != Some(&6) {
                continue;
            }
            let Some(Ok(header)) = frame.get(at..).map(TcpHeader::parse) else { continue };
            let length = frame.len() - at - usize::from(header.header_len);
            let length = u32::try_from(length).unwrap_or(0);
            let controls = [TcpFlags::SYN, TcpFlags::FIN];
            let controls = controls.iter().filter(|flag| header.flags.contains(**flag)).count();
            self.ack = header.seq.get().wrapping_add(length);
            self.ack = self.ack.wrapping_add(u32::try_from(controls).unwrap_or(0));
            self.port = if header.source_port == OUR_PORT { OUR_PORT } else { header.source_port };
            let options = Options::parse(header.options(&frame[at..]));
            if let Some(timestamps) = options.timestamps {
                let clock = self.timestamps.map_or(1, |(_, clock)| clock);
                self.timestamps = Some((timestamps.value, clock));
            }
        }
    }

    fn send(&mut self, host: &mut Host, forged: Forged<'_>) {
        let mut options = forged.options.to_vec();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        let words = u8::try_from((20 + options.len()) / 4).unwrap_or(5);
        let seq = self.seq.wrapping_add(forged.seq_off);
        let ack = if forged.flags & ACK == 0 { 0 } else { self.ack.wrapping_add(forged.ack_off) };
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&PEER_PORT.to_be_bytes());
        bytes.extend_from_slice(&self.port_of(host).to_be_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
        bytes.extend_from_slice(&ack.to_be_bytes());
        bytes.extend_from_slice(&[words << 4, forged.flags]);
        bytes.extend_from_slice(&forged.window.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&forged.urgent.to_be_bytes());
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(forged.payload);
        fix_checksum(self.v6, 6, &mut bytes, 16);
        if forged.seq_off == 0 {
            // As if it were right: what follows goes on from here.
            let controls = u32::from(forged.flags & 2 != 0) + u32::from(forged.flags & 1 != 0);
            let length = u32::try_from(forged.payload.len()).unwrap_or(0);
            self.seq = self.seq.wrapping_add(length).wrapping_add(controls);
        }
        host.deliver(&packet(self.v6, 6, &bytes), RxChecksum::Unknown, 0);
    }

    /// Before the first segment from the stack, its listener.
    fn port_of(&self, host: &Host) -> u16 {
        if host.connections.is_empty() || self.port == PEER_PORT { OUR_PORT } else { self.port }
    }

    /// Options with timestamps that the stack believes, if they are agreed upon.
    fn timestamps(&mut self, step: u8) -> Vec<u8> {
        let Some((theirs, clock)) = self.timestamps.as_mut() else { return Vec::new() };
        *clock = clock.wrapping_add(u32::from(step));
        let mut bytes = vec![1, 1, 8, 10];
        bytes.extend_from_slice(&clock.to_be_bytes());
        bytes.extend_from_slice(&theirs.to_be_bytes());
        bytes
    }
}

/// A distance that is mostly short, either way, in three bytes.
fn distance(input: &mut Input<'_>) -> u32 {
    let scale = input.byte();
    let short = input.u16();
    let wide = u32::from(short) << (scale & 0x0f);
    if scale & 0x80 == 0 { wide } else { wide.wrapping_neg() }
}

fn step(host: &mut Host, peer: &mut Peer, input: &mut Input<'_>) {
    match input.byte() % 14 {
        // The next piece of the stream, and other well-behaved segments.
        0 | 1 => {
            let options = peer.timestamps(1);
            let window = input.u16();
            let payload = input.slice();
            let forged = Forged { flags: 0x18, window, payload, ..Forged::default() };
            peer.send(host, Forged { options: &options, ..forged });
        }
        2 => {
            let options = peer.timestamps(input.byte());
            let forged = Forged { flags: ACK, window: input.u16(), ..Forged::default() };
            peer.send(host, Forged { options: &options, ack_off: distance(input), ..forged });
        }
        // Anything, near.
        3 | 4 => {
            let options = peer.timestamps(input.byte());
            forge(host, peer, input, &options);
        }
        5 => {
            let count = usize::from(input.byte() & 63);
            let options = input.take(count).to_vec();
            forge(host, peer, input, &options);
        }
        6 => {
            let options = sack(peer, input);
            forge(host, peer, input, &options);
        }
        7 => host.advance(Duration::from_millis(u64::from(input.u16()))),
        8 => host.advance(Duration::from_micros(u64::from(input.u16()))),
        9 => {
            let error = error_of(peer, input);
            host.deliver(&error, RxChecksum::Unknown, 0);
        }
        _ => call(host, input),
    }
}

fn forge(host: &mut Host, peer: &mut Peer, input: &mut Input<'_>, options: &[u8]) {
    let forged = Forged {
        flags: input.byte(),
        seq_off: distance(input),
        ack_off: distance(input),
        window: input.u16(),
        urgent: input.u16(),
        options,
        payload: input.slice(),
    };
    peer.send(host, forged);
}

/// Timestamps and SACK blocks near what we have sent.
fn sack(peer: &mut Peer, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = peer.timestamps(1);
    let count = input.byte() % 4 + 1;
    bytes.extend_from_slice(&[1, 1, 5, count * 8 + 2]);
    for _ in 0..count {
        let left = peer.ack.wrapping_sub(u32::from(input.u16()));
        bytes.extend_from_slice(&left.to_be_bytes());
        bytes.extend_from_slice(&left.wrapping_add(distance(input)).to_be_bytes());
    }
    bytes
}

/// An ICMP error about a segment of ours.
fn error_of(peer: &Peer, input: &mut Input<'_>) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&PEER_PORT.to_be_bytes());
    segment.extend_from_slice(&peer.port.to_be_bytes());
    let mut bytes = vec![input.byte(), input.byte(), 0, 0];
    bytes.extend_from_slice(&input.array::<4>());
    let seq = peer.ack.wrapping_sub(distance(input));
    // From the stack to the peer, so the ports and addresses are swapped.
    let (source, destination) = segment.split_at_mut(2);
    source.swap_with_slice(destination);
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&[0; 12]);
    let mut inner = packet(peer.v6, 6, &segment)[14..].to_vec();
    let (at, length) = if peer.v6 { (8, 16) } else { (12, 4) };
    let (first, second) = inner[at..at + 2 * length].split_at_mut(length);
    first.swap_with_slice(second);
    bytes.extend_from_slice(&inner);
    let protocol = if peer.v6 { 58 } else { 1 };
    fix_checksum(peer.v6, protocol, &mut bytes, 2);
    packet(peer.v6, protocol, &bytes)
}

/// Something that an application does to its newest connection, or the one before.
fn call(host: &mut Host, input: &mut Input<'_>) {
    let what = input.byte();
    let newest = host.connections.len().checked_sub(1 + usize::from(what >> 7));
    let Some(id) = newest.and_then(|at| host.connections.get(at).copied()) else { return };
    let mut buffer = vec![0x5a; usize::from(input.u16() & 0x3fff)];
    let now = host.now;
    let tcp = host.stack.tcp().0;
    match what & 0x0f {
        0..=2 => drop(tcp.send(id, &buffer, &mut host.mem)),
        3..=5 => drop(tcp.receive(id, &mut buffer, &mut host.mem)),
        6 => drop(tcp.peek(id, &mut buffer, &host.mem)),
        7 => drop(tcp.send_urgent(id, &buffer, &mut host.mem)),
        8 => drop(tcp.shutdown(id, what & 0x10 != 0, what & 0x20 != 0)),
        9 => tcp.close(id, now, &mut host.mem),
        10 => tcp.abort(id, &mut host.mem),
        11 => tcp.set_option(id, TcpOption::NoDelay(what & 0x10 != 0), now),
        12 => tcp.watch(id, Readiness::default()),
        _ => {
            let _ = (tcp.info(id), tcp.readiness(id), tcp.take_error(id), tcp.poll_event());
        }
    }
    host.settle();
}

/// Requests and answers, a bulk each way, a close from either end, a loss.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let data = |bytes: &mut Vec<u8>, length: u16| {
        bytes.extend_from_slice(&[0, 0xff, 0xff]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.resize(bytes.len() + usize::from(length), 0x61);
    };
    let ack = [2, 1, 0xff, 0xff, 0, 0, 0];
    let (send, read, wait) = ([10, 0, 0, 0x10], [10, 3, 0, 0x20], [7, 0xf4, 1]);
    let (close, fin) = ([10, 9, 0, 0], [3, 1, 0x11, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    // A hole of 100 bytes, then what fills it.
    let ahead = [3, 1, 0x18, 0, 100, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 4, 0, 1, 2, 3, 4];
    let duplicate = [6, 1, 0xf4, 1, 0, 0xf4, 1, 0x10, 0, 0, 0, 0x80, 0, 4, 0xff, 0xff, 0, 0, 0, 0];
    let mut seeds = Vec::new();
    for choice in [0, 1, 3, 4, 5, 8, 12] {
        let mut one = vec![choice];
        data(&mut one, 300);
        one.extend([&read[..], &send, &ack, &send, &ahead, &duplicate, &duplicate].concat());
        data(&mut one, 100);
        one.extend([&duplicate[..], &wait, &ack, &read, &close, &fin, &ack, &wait].concat());
        seeds.push(one);
        let mut two = vec![choice];
        two.extend([&send[..], &send, &wait, &wait, &ack, &fin, &read, &close, &ack].concat());
        seeds.push(two);
    }
    seeds
}
