//! Frames made by hand, and exchanges of them with the kernel.

use std::io::Write;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use roceway_rdma_virtio::nic::{Nic, WcStatus};

use super::{OUR_MAC, Port};

/// The Internet checksum of `parts`, whose lengths are even but the last.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    !partial_sum(parts)
}

fn partial_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Header and frame of `payload` from us to `mac`.
pub(crate) fn frame(mac: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 12];
    message.extend_from_slice(&mac);
    message.extend_from_slice(&OUR_MAC);
    message.extend_from_slice(&ethertype.to_be_bytes());
    message.extend_from_slice(payload);
    message
}

/// The ethertype of a message.
pub(crate) fn ethertype(message: &[u8]) -> u16 {
    message.get(24..26).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// An IPv4 packet.
pub(crate) fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&from);
    packet.extend_from_slice(&to);
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// An ARP request from us.
pub(crate) fn arp_request(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend_from_slice(&OUR_MAC);
    packet.extend_from_slice(&from);
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&to);
    frame([0xff; 6], 0x0806, &packet)
}

/// The hardware address in the answer to an ARP request.
pub(crate) fn arp_reply(message: &[u8]) -> Option<[u8; 6]> {
    let is_reply = ethertype(message) == 0x0806 && message.get(32..34) == Some(&[0, 2]);
    is_reply.then(|| message[34..40].try_into().unwrap())
}

/// An ICMP echo request from us.
pub(crate) fn ping(mac: [u8; 6], from: [u8; 4], to: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    icmp.extend_from_slice(data);
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(mac, 0x0800, &ipv4(1, from, to, &icmp))
}

/// Whether a message is the answer to a ping with `data`.
pub(crate) fn is_pong(message: &[u8], data: &[u8]) -> bool {
    ethertype(message) == 0x0800
        && message.get(35) == Some(&1)
        && message.get(46) == Some(&0)
        && message.get(54..54 + data.len()) == Some(data)
}

/// A TCP segment by hand.
#[derive(Clone)]
pub(crate) struct Tcp {
    pub(crate) mac: [u8; 6],
    pub(crate) from: ([u8; 4], u16),
    pub(crate) to: ([u8; 4], u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
}

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

impl Tcp {
    /// The segment with `data`: its checksum left to the host, and, above 1,460 bytes, its cutting.
    pub(crate) fn message(&self, data: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&self.from.1.to_be_bytes());
        tcp.extend_from_slice(&self.to.1.to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        tcp.extend_from_slice(&[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        let length = u16::try_from(tcp.len() + data.len()).unwrap();
        let pseudo = partial_sum(&[&self.from.0, &self.to.0, &[0, 6], &length.to_be_bytes()]);
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        tcp.extend_from_slice(data);
        let mut message = frame(self.mac, 0x0800, &ipv4(6, self.from.0, self.to.0, &tcp));
        let large = data.len() > 1460;
        message[0] = 1;
        message[1] = u8::from(large);
        message[2..4].copy_from_slice(&54_u16.to_le_bytes());
        message[4..6].copy_from_slice(&(if large { 1460_u16 } else { 0 }).to_le_bytes());
        message[6..8].copy_from_slice(&34_u16.to_le_bytes());
        message[8..10].copy_from_slice(&16_u16.to_le_bytes());
        message
    }
}

/// Whether a message is TCP to our port.
pub(crate) fn is_tcp_to(message: &[u8], port: u16) -> bool {
    ethertype(message) == 0x0800
        && message.get(35) == Some(&6)
        && message.get(48..50) == Some(&port.to_be_bytes()[..])
}

/// Whether the TCP checksum of a message is right as it stands.
pub(crate) fn tcp_checksum_is_right(message: &[u8]) -> bool {
    let length = u16::from_be_bytes([message[28], message[29]]);
    let segment = &message[46..26 + usize::from(length)];
    let tcp_length = (length - 20).to_be_bytes();
    checksum(&[&message[38..46], &[0, 6], &tcp_length, segment]) == 0
}

/// What a TCP exchange with the kernel showed.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Length of the longest received message.
    pub(crate) longest: usize,
    /// Data messages whose checksum was left to us.
    pub(crate) partial: usize,
    /// Data messages whose checksum was right in the frame.
    pub(crate) right: usize,
}

/// Connects from 10.x.0.2 to a kernel listener, which then writes 14,000 bytes; checks each byte.
pub(crate) fn tcp_receive<N: Nic>(
    port: &mut Port<N>,
    mac: [u8; 6],
    host: [u8; 4],
    to: u16,
) -> Exchange {
    let us = [host[0], host[1], host[2], 2];
    // A port of its own for each exchange: the kernel remembers the last one.
    static PORTS: AtomicU16 = AtomicU16::new(40_000);
    let ours = PORTS.fetch_add(1, Ordering::Relaxed);
    let mut tcp = Tcp { mac, from: (us, ours), to: (host, to), seq: 1, ack: 0, flags: SYN };
    assert_eq!(port.send(&tcp.message(&[])), WcStatus::Success);
    let answer = port.expect("SYN-ACK", |m| is_tcp_to(m, ours) && m[59] == SYN | ACK);
    tcp.seq = 2;
    tcp.ack = u32::from_be_bytes(answer[50..54].try_into().unwrap()).wrapping_add(1);
    tcp.flags = ACK;
    let first = tcp.ack;
    assert_eq!(port.send(&tcp.message(&[])), WcStatus::Success);
    let mut seen = Exchange { longest: 0, partial: 0, right: 0 };
    while tcp.ack.wrapping_sub(first) < 14_000 {
        let data = port.expect("data", |m| {
            is_tcp_to(m, ours)
                && m[50..54] == tcp.ack.to_be_bytes()
                && u16::from_be_bytes([m[28], m[29]]) > 40
        });
        let length = u16::from_be_bytes([data[28], data[29]]);
        let header = 20 + usize::from(data[58] >> 4) * 4;
        let body = &data[26 + header..26 + usize::from(length)];
        for (i, byte) in body.iter().enumerate() {
            let at = tcp.ack.wrapping_sub(first) as usize + i;
            assert_eq!(*byte, (at % 251).to_le_bytes()[0], "byte {at}");
        }
        seen.longest = seen.longest.max(data.len());
        seen.partial += usize::from(data[0] & 1 != 0);
        seen.right += usize::from(tcp_checksum_is_right(&data));
        tcp.ack = tcp.ack.wrapping_add(u32::try_from(body.len()).unwrap());
        assert_eq!(port.send(&tcp.message(&[])), WcStatus::Success);
    }
    seen
}

/// Accepts one connection in this namespace and writes what [`tcp_receive`] expects.
pub(crate) fn serve_14000(listener: std::net::TcpListener) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let bytes: Vec<u8> = (0..14_000).map(|i: usize| (i % 251).to_le_bytes()[0]).collect();
        stream.write_all(&bytes).unwrap();
        // Kept open: a FIN would end the exchange differently on each run.
        std::thread::sleep(Duration::from_millis(300));
    })
}

/// Sends one 64 KB segment, whose checksum and cutting are left to the host, to a raw socket of
/// the kernel, which `received` reads; compares each byte.
pub(crate) fn large_send<N: Nic>(
    port: &mut Port<N>,
    mac: [u8; 6],
    host: [u8; 4],
    received: impl FnOnce() -> Vec<Vec<u8>>,
) {
    let us = [host[0], host[1], host[2], 2];
    let tcp = Tcp { mac, from: (us, 1), to: (host, 9), seq: 7, ack: 0, flags: ACK };
    let data: Vec<u8> = (0..65_000).map(|i: usize| (i % 241).to_le_bytes()[0]).collect();
    assert_eq!(port.send(&tcp.message(&data)), WcStatus::Success);
    let packets = received();
    let payload: Vec<u8> = packets.iter().flat_map(|p| p[40..].to_vec()).collect();
    assert_eq!(payload.len(), data.len());
    assert_eq!(payload, data);
}

/// A raw TCP socket of the kernel, which sees every TCP packet of its namespace.
pub(crate) fn raw_tcp() -> std::fs::File {
    use std::os::fd::FromRawFd;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_TCP) };
    assert!(fd >= 0);
    // SAFETY: the fd is fresh and nobody else's.
    unsafe { std::fs::File::from_raw_fd(fd) }
}

/// Reads packets until they hold `payload` bytes of TCP data.
pub(crate) fn read_packets(mut raw: &std::fs::File, payload: usize) -> Vec<Vec<u8>> {
    use std::io::Read;
    let mut packets = Vec::new();
    let mut total = 0;
    while total < payload {
        let mut packet = vec![0; 70_000];
        let length = raw.read(&mut packet).unwrap();
        packet.truncate(length);
        // Only port 9: the kernel's own answers pass here too.
        if packet.len() > 40 && packet[22..24] == [0, 9] {
            total += length - 40;
            packets.push(packet);
        }
    }
    packets
}
