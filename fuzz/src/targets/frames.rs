//! Frames of any content into a whole stack: Ethernet, ARP, NDP, IPv4 with fragments, IPv6, ICMP,
//! UDP and TCP without a connection.
//!
//! An input is a byte of offloads and then frames, each a byte of shape, a 16-bit length and bytes.
//! The shape says what is put around the bytes and set right, so that they get past the first
//! checks.

use roceway_stack::frame::{Offloads, RxChecksum};
use roceway_stack::time::Duration;

use super::host::{Host, OUR_PORT, PEER_PORT, ethernet, fix_checksum, fragment, packet};
use super::recorded;
use crate::input::Input;

const FRAMES_MAX: u32 = 96;

/// The target.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let offloads = input.byte();
    let bit = |n: u8| offloads & n != 0;
    let mut host = Host::new(Offloads {
        tx_checksum: bit(1),
        tso4: bit(2),
        tso6: bit(4),
        tso_ecn: bit(4),
        uso: bit(4),
    });
    steps(&mut host, &mut input);
    host.end();
}

/// Takes an input behind its first byte.
pub(crate) fn steps(host: &mut Host, input: &mut Input<'_>) {
    for _ in 0..FRAMES_MAX {
        if input.is_empty() {
            break;
        }
        step(host, input);
    }
}

fn step(host: &mut Host, input: &mut Input<'_>) {
    let shape = input.byte();
    let bytes = input.slice();
    let v6 = shape & 0x80 != 0;
    let checksum = match shape & 0x60 {
        0x20 => RxChecksum::Valid,
        0x40 => RxChecksum::Partial,
        _ => RxChecksum::Unknown,
    };
    let mut payload = bytes.to_vec();
    let frame = match shape & 0x0f {
        0 => payload,
        1 => ethernet(0x0806, &payload),
        2 => ethernet(if v6 { 0x86dd } else { 0x0800 }, &payload),
        3 => {
            let protocol = if v6 { 58 } else { 1 };
            fix_checksum(v6, protocol, &mut payload, 2);
            packet(v6, protocol, &payload)
        }
        4 => {
            fix_checksum(v6, 17, &mut payload, 6);
            packet(v6, 17, &payload)
        }
        5 => packet(v6, 17, &datagram(v6, &payload)),
        6 => {
            fix_checksum(v6, 6, &mut payload, 16);
            packet(v6, 6, &payload)
        }
        7 => fragment_of(&payload),
        8 => packet(v6, if v6 { 58 } else { 1 }, &quoting(v6, &payload)),
        9 => {
            host.advance(Duration::from_millis(u64::from(Input::new(&payload).u16())));
            return;
        }
        10 => {
            let mut buffer = [0; 2048];
            for id in host.datagrams {
                let (udp, cx) = host.stack.udp(host.now, &mut host.mem);
                let _ = udp.recv_from(id, &mut buffer, cx.mem);
            }
            return;
        }
        12 => {
            host.echo();
            return;
        }
        13 => {
            host.close();
            return;
        }
        _ => packet(v6, payload.pop().unwrap_or(0), &payload),
    };
    host.deliver(&frame, checksum, 0);
    host.out.clear();
}

/// A datagram to the socket, with its right checksum.
fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&PEER_PORT.to_be_bytes());
    bytes.extend_from_slice(&OUR_PORT.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(payload.len() + 8).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(payload);
    fix_checksum(v6, 17, &mut bytes, 6);
    bytes
}

/// A fragment of any place; the first byte says of which protocol.
fn fragment_of(payload: &[u8]) -> Vec<u8> {
    let mut input = Input::new(payload);
    let protocol = [17, 6, 1, input.byte()][usize::from(input.byte() & 3)];
    let word = input.u16();
    let rest = input.take(usize::MAX);
    fragment(false, protocol, rest, word)
}

/// An ICMP error that quotes a packet of ours, made of the bytes.
fn quoting(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut input = Input::new(payload);
    let mut bytes = vec![input.byte(), input.byte(), 0, 0];
    bytes.extend_from_slice(&input.array::<4>());
    let protocol = if input.byte() & 1 == 0 { 6 } else { 17 };
    let inner = packet(v6, protocol, input.take(usize::MAX));
    let mut inner = inner[14..].to_vec();
    // Of ours: from us to the peer.
    let (at, length) = if v6 { (8, 16) } else { (12, 4) };
    let (first, second) = inner[at..at + 2 * length].split_at_mut(length);
    first.swap_with_slice(second);
    bytes.extend_from_slice(&inner);
    fix_checksum(v6, if v6 { 58 } else { 1 }, &mut bytes, 2);
    bytes
}

/// An input of these shapes and bytes.
pub(crate) fn shaped(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0];
    for (shape, part) in parts {
        bytes.push(*shape);
        bytes.extend_from_slice(&u16::try_from(part.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Recorded connections, and one frame of each kind that is of use.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = alone();
    seeds.extend([recorded::connection(false), recorded::connection(true)]);
    seeds
}

fn alone() -> Vec<Vec<u8>> {
    let arp =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0, 0xfd];
    solicitation.extend_from_slice(&[0; 14]);
    solicitation.extend_from_slice(&[1, 1, 1, 2, 0, 0, 0, 0, 2]);
    let echo = [8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let echo6 = [128, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let syn =
        [0x9c, 0x40, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let quoted = [3, 4, 0, 0, 5, 0, 0, 0, 7, 0x9c, 0x40, 0, 0, 0, 1];
    let first: Vec<u8> = [0, 0, 0, 0x20].iter().copied().chain([7; 64]).collect();
    let last: Vec<u8> = [0, 0, 8, 0].iter().copied().chain([7; 30]).collect();
    vec![
        shaped(&[(1, &arp), (3, &echo), (5, b"hello"), (10, &[])]),
        shaped(&[(0x83, &solicitation), (0x83, &echo6), (0x85, b"hello"), (10, &[])]),
        shaped(&[(1, &arp), (6, &syn), (9, &[0, 4]), (8, &quoted)]),
        shaped(&[(0x83, &solicitation), (0x86, &syn), (9, &[0, 4]), (0x88, &quoted)]),
        shaped(&[(7, &first), (7, &last), (9, &[0xff, 0xff])]),
        shaped(&[(0x45, b"partial"), (0x25, b"valid"), (11, b"\x32other")]),
    ]
}
