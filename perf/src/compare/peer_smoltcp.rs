//! smoltcp over the same soft link: the NIC calls of the bare link, frame by frame, and its own
//! stack above them, polled by hand, which is its fastest way. It has no segmentation offload here,
//! so it is compared with Roceway's rows at the same MTU.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};

use roceway_runtime::rdma_virtio::nic::frames::{FrameNic, Taken};
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::rivals::{Contender, rtt_row, stream_row};
use super::{Measured, Plan};
use crate::arithmetic::{count, nanoseconds};
use crate::control::{RECEIVE_DEFAULT, SEND_DEFAULT};
use crate::histogram::Latency;
use crate::local::pin;
use crate::pattern;
use crate::report::Place;

/// Looks at clock, timers, link and stop flag once in so many rounds without a frame.
const ROUNDS: u32 = 256;
/// Bytes of each buffer of a socket: Roceway's default.
const BUFFER: usize = 1 << 20;
/// A link that is not up after so many rounds of cold work never will be.
const MAINTAIN_MAX: u64 = 1000;
const PORT: u16 = 7;
const ETHERNET: usize = 14;
/// The frames of the larger MTU fit a page.
const MTU_LARGE: u16 = 4000;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    TcpRr,
    UdpRr,
    TcpStream,
}

/// One row of smoltcp.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmoltcpRival {
    test: Test,
    mtu: u16,
    checksums: bool,
}

/// Every row.
pub(super) fn all() -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for checksums in [false, true] {
        for (test, mtu) in [
            (Test::TcpRr, 1500),
            (Test::UdpRr, 1500),
            (Test::TcpStream, 1500),
            (Test::TcpStream, MTU_LARGE),
        ] {
            all.push(Box::new(SmoltcpRival { test, mtu, checksums }));
        }
    }
    all
}

fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

/// The link as smoltcp sees a device.
struct Device<'a> {
    nic: &'a FrameNic<SoftNic>,
    mtu: u16,
    checksums: bool,
}

struct Rx<'a>(&'a FrameNic<SoftNic>, Taken);
struct Tx<'a>(&'a FrameNic<SoftNic>);

impl phy::RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // A receive that cannot be posted again is missed by the link, which stalls and says so.
        self.0.read(self.1, f).expect("the receive that was taken is posted again")
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let length = u32::try_from(len).unwrap_or(u32::MAX);
        self.0.send(length, f).expect("there is room for a frame, and it fits")
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'t>
        = Rx<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Tx<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        if !self.nic.has_room() {
            return None;
        }
        self.nic.take().map(|taken| (Rx(self.nic, taken), Tx(self.nic)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        self.nic.has_room().then_some(Tx(self.nic))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ethernet;
        all.max_transmission_unit = usize::from(self.mtu) + ETHERNET;
        if !self.checksums {
            all.checksum = ChecksumCapabilities::ignored();
        }
        all
    }
}

/// One end: its interface, its socket, its clock.
struct End {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    start: std::time::Instant,
    nic: FrameNic<SoftNic>,
    rival: SmoltcpRival,
    quiet: u32,
}

fn address(host: u8) -> IpAddress {
    IpAddress::v4(10, 79, 0, host)
}

impl End {
    fn new(nic: FrameNic<SoftNic>, rival: SmoltcpRival, host: u8) -> Result<End, String> {
        let start = std::time::Instant::now();
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, host]));
        let mut config = Config::new(mac);
        config.random_seed = u64::from(host);
        let mut device = Device { nic: &nic, mtu: rival.mtu, checksums: rival.checksums };
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|all| {
            // Room for one address there always is.
            let _pushed = all.push(IpCidr::new(address(host), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let socket = match rival.test {
            Test::TcpRr | Test::TcpStream => {
                let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                if host == 2 {
                    socket.listen(PORT).map_err(|error| format!("{error:?}"))?;
                } else {
                    let to = IpEndpoint::new(address(2), PORT);
                    socket
                        .connect(interface.context(), to, 49_152)
                        .map_err(|error| format!("{error:?}"))?;
                }
                sockets.add(socket)
            }
            Test::UdpRr => {
                let buffer = || {
                    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65_536])
                };
                let mut socket = udp::Socket::new(buffer(), buffer());
                socket.bind(PORT).map_err(|error| format!("{error:?}"))?;
                sockets.add(socket)
            }
        };
        Ok(End { interface, sockets, socket, start, nic, rival, quiet: 0 })
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    fn time(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes one frame if there is one; now and then timers and the link. False: nothing came.
    fn receive(&mut self) -> Result<bool, String> {
        if !self.nic.recv_ready() {
            self.quiet = self.quiet.wrapping_add(1);
            if self.quiet.is_multiple_of(ROUNDS) {
                self.send();
                let now = self.now_ns();
                self.nic.maintain(now).map_err(text)?;
            }
            spin_loop();
            return Ok(false);
        }
        let now = self.time();
        let SmoltcpRival { mtu, checksums, .. } = self.rival;
        let mut device = Device { nic: &self.nic, mtu, checksums };
        let _result = self.interface.poll_ingress_single(now, &mut device, &mut self.sockets);
        Ok(true)
    }

    /// Sends what the socket has.
    fn send(&mut self) {
        let now = self.time();
        let SmoltcpRival { mtu, checksums, .. } = self.rival;
        let mut device = Device { nic: &self.nic, mtu, checksums };
        let _result = self.interface.poll_egress(now, &mut device, &mut self.sockets);
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Takes a byte if one has come, with who sent it, for UDP.
    fn take_byte(&mut self) -> Option<Option<udp::UdpMetadata>> {
        let mut byte = [0];
        match self.rival.test {
            Test::UdpRr => {
                let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.socket);
                socket.recv_slice(&mut byte).ok().map(|(_, from)| Some(from))
            }
            Test::TcpRr | Test::TcpStream => {
                let got = self.tcp().recv_slice(&mut byte);
                matches!(got, Ok(1)).then_some(None)
            }
        }
    }

    /// Gives a byte to the socket and sends it.
    fn give_byte(&mut self, to: Option<udp::UdpMetadata>) -> Result<(), String> {
        if let Some(to) = to {
            let socket: &mut udp::Socket<'_> = self.sockets.get_mut(self.socket);
            socket.send_slice(&[1], to).map_err(|error| format!("{error:?}"))?;
        } else {
            self.tcp().send_slice(&[1]).map_err(|error| format!("{error:?}"))?;
        }
        self.send();
        Ok(())
    }
}

/// The server's end, until it is told to stop.
fn serve(end: &mut End, stop: &AtomicBool) -> Result<(), String> {
    let mut inbox = vec![0; RECEIVE_DEFAULT];
    let mut rounds = 0_u32;
    loop {
        if end.receive()? {
            if end.rival.test == Test::TcpStream {
                while let Ok(got @ 1..) = end.tcp().recv_slice(&mut inbox) {
                    black_box(pattern::read(inbox.get(..got).unwrap_or_default()));
                }
            } else if let Some(from) = end.take_byte() {
                end.give_byte(from)?;
                continue;
            }
            end.send();
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS) && stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// The client of round trips.
fn ask(end: &mut End, plan: &Plan, gone: impl Fn() -> bool) -> Result<Latency, String> {
    let mut latency = Latency::new();
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let to = (end.rival.test == Test::UdpRr)
        .then(|| udp::UdpMetadata::from(IpEndpoint::new(address(2), PORT)));
    let begin = end.now_ns();
    let (mut before, mut rounds) = (begin, 0_u32);
    while before - begin < all {
        end.give_byte(to)?;
        while end.take_byte().is_none() {
            end.receive()?;
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(ROUNDS) && gone() {
                return Err("the other end stopped".into());
            }
        }
        let now = end.now_ns();
        if before - begin >= warmup {
            latency.record(now - before);
        }
        before = now;
    }
    Ok(latency)
}

/// The client of a stream: rewrites every byte and sends; returns bytes and nanoseconds.
fn flood(end: &mut End, plan: &Plan, gone: impl Fn() -> bool) -> Result<(u64, u64), String> {
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let mut block = vec![0; SEND_DEFAULT];
    let (begin, mut round, mut left) = (end.now_ns(), 0, 0);
    let (mut bytes, mut since) = (0, None);
    loop {
        while end.tcp().can_send() {
            if left == 0 {
                pattern::rewrite(&mut block, round);
                round += 1;
                left = block.len();
            }
            let from = block.len() - left;
            let rest = block.get(from..).unwrap_or_default();
            let sent = end.tcp().send_slice(rest).map_err(|error| format!("{error:?}"))?;
            left -= sent;
            bytes += count(sent);
            end.send();
        }
        while end.receive()? {}
        end.send();
        let now = end.now_ns() - begin;
        if since.is_none() && now >= warmup {
            (bytes, since) = (0, Some(now));
        }
        if now >= all {
            return Ok((bytes, now - since.unwrap_or(0)));
        }
        if gone() {
            return Err("the other end stopped".into());
        }
    }
}

impl SmoltcpRival {
    fn place(&self) -> Place {
        let mode = match (self.test, self.mtu, self.checksums) {
            (Test::TcpStream, mtu, false) => format!("copy/{mtu}"),
            (Test::TcpStream, mtu, true) => format!("copy/{mtu}+csum"),
            (_, _, false) => "copy".into(),
            (_, _, true) => "copy+csum".into(),
        };
        Place { stack: "smoltcp".into(), device: "soft".into(), mode: Some(mode) }
    }

    fn test_name(&self) -> &'static str {
        match self.test {
            Test::TcpRr => "TCP_RR",
            Test::UdpRr => "UDP_RR",
            Test::TcpStream => "TCP_STREAM",
        }
    }

    /// Two ends whose link is up and whose connection is open, as far as one is needed.
    fn ends(self) -> Result<(End, End), String> {
        let options = SoftOptions { mtu: self.mtu, large: false, ..SoftOptions::default() };
        let (left, right) = SoftNic::pair(&options).map_err(text)?;
        let mut left = FrameNic::new(left).map_err(text)?;
        let mut right = FrameNic::new(right).map_err(text)?;
        for round in 1..MAINTAIN_MAX {
            left.maintain(round).map_err(text)?;
            right.maintain(round).map_err(text)?;
        }
        if !left.is_up() || !right.is_up() {
            return Err("the link does not come up".into());
        }
        let (mut client, mut server) = (End::new(left, self, 1)?, End::new(right, self, 2)?);
        for _ in 0..1_000_000 {
            if self.test == Test::UdpRr || client.tcp().may_send() && server.tcp().may_recv() {
                return Ok((client, server));
            }
            for end in [&mut client, &mut server] {
                end.receive()?;
                end.send();
            }
        }
        Err("the connection does not open".into())
    }
}

impl Contender for SmoltcpRival {
    fn name(&self) -> String {
        let mode = self.place().mode.unwrap_or_default();
        format!("smoltcp, soft, {mode}, {}", self.test_name())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let stop = AtomicBool::new(false);
        let (mut client, server) = self.ends()?;
        std::thread::scope(|scope| {
            let stopped = &stop;
            let other = scope.spawn(move || -> Result<(), String> {
                pin(plan.cores.server).map_err(text)?;
                let mut server = server;
                serve(&mut server, stopped)
            });
            let gone = || other.is_finished();
            let place = self.place();
            let measured = pin(plan.cores.client).map_err(text).and_then(|()| match self.test {
                Test::TcpRr | Test::UdpRr => ask(&mut client, plan, gone)
                    .map(|latency| rtt_row(self.test_name(), place, latency)),
                Test::TcpStream => flood(&mut client, plan, gone)
                    .map(|moved| stream_row(place, count(SEND_DEFAULT), moved)),
            });
            stop.store(true, Ordering::Relaxed);
            match other.join() {
                Ok(Ok(())) => measured,
                Ok(Err(error)) => Err(error),
                Err(_) => Err("its other thread died".into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Cores;
    use std::time::Duration;

    #[test]
    fn every_row_of_smoltcp_moves_something() {
        let plan = Plan {
            // On a busy machine a round trip of two threads that spin takes turns on the cpus.
            length: Duration::from_millis(200),
            warmup: Duration::ZERO,
            ..Plan::new(Cores::default())
        };
        for mut rival in all() {
            let name = rival.name();
            let row = rival.measure(&plan).unwrap_or_else(|error| panic!("{name}: {error}")).row;
            let moved = row.gbit_per_s.or(row.transactions_per_s);
            assert!(moved > Some(0.0), "{name}: {row:?}");
        }
    }
}
