//! Network namespaces that vanish with their thread, a NIC with memory, and hand-made frames, for
//! the tests of `tap:` and `packet:`.
//!
//! Nothing here touches the namespace of whoever runs the tests.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, RegionView, SendWr, Sge,
    WcChecksum, WcStatus,
};

/// Runs `body` on a thread in a network namespace of its own, or says loudly why it does not.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if let Some(reason) = missing() {
        // Past the harness, which would keep it to itself.
        let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {reason}");
        return;
    }
    let thread = std::thread::spawn(|| {
        enter_new_namespace();
        ip("link set lo up");
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What the machine lacks for these tests.
fn missing() -> Option<String> {
    // SAFETY: no argument, no failure.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it needs root, for network namespaces".to_owned());
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("there is no ip; install iproute2".to_owned());
    }
    let can = std::thread::spawn(|| {
        // SAFETY: it changes this thread alone, which ends at once.
        unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
    });
    if !can.join().unwrap_or(false) {
        return Some("network namespaces are not allowed here".to_owned());
    }
    None
}

fn enter_new_namespace() {
    // SAFETY: it changes this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    // A kernel that greets its neighbours at times of its own would disturb what is counted.
    allow_ipv6(false);
}

/// Switches IPv6 in the namespace of the calling thread.
pub(crate) fn allow_ipv6(on: bool) {
    for place in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{place}/disable_ipv6");
        // A kernel without IPv6 has no such file, and is quiet.
        let _ = std::fs::write(path, if on { "0" } else { "1" });
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {text}");
}

type Job = Box<dyn FnOnce() + Send>;

/// A second namespace, held by a thread that runs what it is given.
pub(crate) struct Peer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Peer {
    /// Makes the namespace.
    pub(crate) fn new() -> Self {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            enter_new_namespace();
            ip("link set lo up");
            // SAFETY: no argument, no failure.
            tell.send(unsafe { libc::gettid() }).unwrap();
            for job in queue {
                job();
            }
        });
        let tid = told.recv().unwrap();
        Self { jobs: Some(jobs), thread: Some(thread), tid }
    }

    /// Runs `job` there and waits for its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job = Box::new(move || {
            let _ = tell.send(job());
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the peer's thread panicked")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A veth pair `va` here and `vb`, with 10.8.0.1/24 and address 02:00:00:00:00:01, at a peer.
pub(crate) fn veth() -> Peer {
    let peer = Peer::new();
    ip("link add va type veth peer name vb");
    ip(&format!("link set vb netns {}", peer.tid));
    ip("link set va up");
    peer.run(|| {
        ip("link set vb address 02:00:00:00:00:01");
        ip("addr add 10.8.0.1/24 dev vb");
        ip("link set vb up");
    });
    peer
}

/// Our own hardware address in these tests.
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const RECEIVES: usize = 64;
const RECEIVE_LEN: usize = 4096;
const SEND_AT: usize = RECEIVES * RECEIVE_LEN;
const ARENA: usize = SEND_AT + (1 << 17);

/// A NIC with memory: receives of 4 KiB are posted, messages go in and out as vectors.
pub(crate) struct Port<N: Nic> {
    pub(crate) nic: N,
    memory: Vec<u8>,
    lkey: Lkey,
    started: Instant,
    sends: u64,
}

impl<N: Nic> Port<N> {
    pub(crate) fn new(nic: N) -> Self {
        let mut port = Self::bare(nic);
        for wr_id in 0..RECEIVES as u64 {
            port.post(wr_id);
        }
        port
    }

    /// Without a posted receive.
    pub(crate) fn bare(mut nic: N) -> Self {
        let mut memory = vec![0_u8; ARENA];
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let view = RegionView { addr, length: ARENA as u64, memfd: None, writable: true };
        // SAFETY: the memory is the port's, outlives the NIC's use of it, and posted parts of it
        // are left alone.
        let lkey = unsafe { nic.register(view) }.unwrap();
        Self { nic, memory, lkey, started: Instant::now(), sends: 0 }
    }

    fn sge(&self, offset: usize, length: usize) -> Sge {
        let addr = self.memory.as_ptr().expose_provenance() as u64 + offset as u64;
        Sge { addr, length: u32::try_from(length).unwrap(), lkey: self.lkey }
    }

    pub(crate) fn post(&mut self, wr_id: u64) {
        let slot = usize::try_from(wr_id).unwrap();
        let sges = [self.sge(slot * RECEIVE_LEN, RECEIVE_LEN)];
        assert_eq!(self.nic.post_recv(&[RecvWr { wr_id, sges: &sges }]), Ok(1));
    }

    /// Sends one message; waits for its completion.
    pub(crate) fn send(&mut self, message: &[u8]) -> WcStatus {
        self.try_send(message).unwrap();
        let mut out = [blank()];
        self.nic.doorbell();
        let limit = Instant::now() + Duration::from_secs(2);
        while self.nic.poll_send(&mut out) == 0 {
            assert!(Instant::now() < limit, "the send does not complete");
            self.maintain();
        }
        assert_eq!(out[0].wr_id, self.sends);
        out[0].status
    }

    /// Posts one message, in three elements.
    pub(crate) fn try_send(&mut self, message: &[u8]) -> Result<(), PostError> {
        self.sends += 1;
        self.memory[SEND_AT..SEND_AT + message.len()].copy_from_slice(message);
        let cut = [0, message.len().min(12), message.len().min(66), message.len()];
        let sges: Vec<Sge> = cut
            .windows(2)
            .filter(|w| w[1] > w[0])
            .map(|w| self.sge(SEND_AT + w[0], w[1] - w[0]))
            .collect();
        self.nic.post_send(&SendWr {
            wr_id: self.sends,
            sges: &sges,
            signalled: true,
            inline: false,
            offload: Offload::default(),
        })
    }

    /// The next message, if one comes in time.
    pub(crate) fn recv(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let limit = Instant::now() + limit;
        let mut message = Vec::new();
        let mut out = [blank(); 1];
        loop {
            if self.nic.recv_ready() && self.nic.poll_recv(&mut out) == 1 {
                let completion = out[0];
                assert_eq!(completion.status, WcStatus::Success);
                let start = usize::try_from(completion.wr_id).unwrap() * RECEIVE_LEN;
                let length = usize::try_from(completion.byte_len).unwrap();
                message.extend_from_slice(&self.memory[start..start + length]);
                self.post(completion.wr_id);
                if !completion.more {
                    return Some(message);
                }
            } else if Instant::now() > limit {
                return None;
            }
        }
    }

    /// The next message that `wanted` accepts, within two seconds.
    pub(crate) fn expect(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let limit = Instant::now() + Duration::from_secs(2);
        while Instant::now() < limit {
            match self.recv(Duration::from_millis(50)) {
                Some(message) if wanted(&message) => return message,
                _ => {}
            }
        }
        panic!("no {what} came; counters: {:?}", self.counters());
    }

    pub(crate) fn maintain(&mut self) -> Option<NicEvent> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap();
        self.nic.maintain(now).unwrap()
    }

    /// The next event, within two seconds.
    pub(crate) fn event(&mut self) -> NicEvent {
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            if let Some(event) = self.maintain() {
                return event;
            }
            assert!(Instant::now() < limit, "no event comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the NIC notice that its link came up, if it was not at opening.
    pub(crate) fn wait_for_link(&mut self) {
        let limit = Instant::now() + Duration::from_secs(2);
        while self.try_send(&[0; 12 + 60]) == Err(PostError::LinkDown) {
            assert!(Instant::now() < limit, "the link does not come up");
            self.maintain();
            std::thread::sleep(Duration::from_millis(1));
        }
        while self.nic.poll_send(&mut [blank()]) > 0 {}
    }

    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = Vec::new();
        self.nic.visit_counters(&mut |name, value| all.push((name, value)));
        all
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters().into_iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }

    pub(crate) fn readable(&self, limit: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.nic.event_fd(), events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).unwrap();
        // SAFETY: one pollfd, borrowed for the call.
        unsafe { libc::poll(&raw mut poll, 1, limit) == 1 }
    }
}

pub(crate) fn blank() -> Completion {
    Completion {
        wr_id: 0,
        status: WcStatus::General,
        byte_len: 0,
        more: false,
        checksum: WcChecksum::Unknown,
    }
}

/// Takes this thread's capabilities to configure networks and to open raw sockets, for good.
pub(crate) fn drop_network_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    const NET_ADMIN_AND_RAW: u32 = 1 << 12 | 1 << 13;
    let mut header = [VERSION_3, 0];
    let mut data = [0_u32; 6];
    // SAFETY: header and data have the sizes of version 3.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    assert_eq!(got, 0);
    for word in &mut data[..3] {
        *word &= !NET_ADMIN_AND_RAW;
    }
    // SAFETY: header and data have the sizes of version 3.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!(set, 0);
}

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
