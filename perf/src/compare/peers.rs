//! Other stacks over the same soft link, polled by hand: what their tests have in common. A stack
//! is an [`End`]; it sees frames only, without segmentation offload, so that it is compared with
//! Roceway's rows at the same MTU.

use std::hint::spin_loop;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roceway_runtime::rdma_virtio::nic::frames::FrameNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};

use super::rivals::{Contender, rtt_row, stream_row};
use super::{Measured, Plan};
use crate::arithmetic::{count, nanoseconds};
use crate::control::SEND_DEFAULT;
use crate::histogram::Latency;
use crate::local::pin;
use crate::pattern;
use crate::report::Place;

/// Looks at clock, timers, link and stop flag once in so many rounds without a frame.
const ROUNDS: u32 = 256;
/// A link that is not up after so many rounds of cold work never will be.
const MAINTAIN_MAX: u64 = 1000;
/// The frames of the larger MTU fit a page.
const MTU_LARGE: u16 = 4000;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    TcpRr,
    UdpRr,
    TcpStream,
}

/// What one row measures, of whichever stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerRow {
    pub(super) test: Test,
    pub(super) mtu: u16,
    pub(super) checksums: bool,
}

/// One end of another stack: its interface and one socket. Host 1 opens, host 2 waits.
pub(super) trait End: Sized + Send {
    /// Its name in rows.
    const STACK: &'static str;

    /// An end whose link is up.
    fn new(nic: FrameNic<SoftNic>, row: PeerRow, host: u8) -> Result<Self, String>;

    fn nic(&mut self) -> &mut FrameNic<SoftNic>;

    /// Whether bytes may go both ways.
    fn is_open(&mut self) -> bool;

    /// Lets the stack have the frame that waits.
    fn take_frame(&mut self);

    /// Looks at timers, and sends what the socket has.
    fn send(&mut self);

    /// Takes a byte if one has come; the next that is given answers it.
    fn take_byte(&mut self) -> bool;

    /// Gives a byte to the socket and sends it.
    fn give_byte(&mut self) -> Result<(), String>;

    /// Reads every byte that has come.
    fn read_all(&mut self);

    /// Gives bytes to the stream and sends what may be sent; how many, 0 if there is no room.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, String>;
}

/// Every row of a stack.
pub(super) fn all<E: End + 'static>() -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for checksums in [false, true] {
        for (test, mtu) in [
            (Test::TcpRr, 1500),
            (Test::UdpRr, 1500),
            (Test::TcpStream, 1500),
            (Test::TcpStream, MTU_LARGE),
        ] {
            let row = PeerRow { test, mtu, checksums };
            all.push(Box::new(Rival::<E> { row, stack: PhantomData }));
        }
    }
    all
}

pub(super) fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

/// An end and how it waits.
struct Peer<E> {
    end: E,
    start: Instant,
    quiet: u32,
}

impl<E: End> Peer<E> {
    /// Two ends whose link is up and whose connection is open, as far as one is needed.
    fn pair(row: PeerRow) -> Result<(Peer<E>, Peer<E>), String> {
        let options = SoftOptions { mtu: row.mtu, large: false, ..SoftOptions::default() };
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
        let start = Instant::now();
        let peer = |nic, host| E::new(nic, row, host).map(|end| Peer { end, start, quiet: 0 });
        let (mut client, mut server) = (peer(left, 1)?, peer(right, 2)?);
        for _ in 0..1_000_000 {
            if client.end.is_open() && server.end.is_open() {
                return Ok((client, server));
            }
            for peer in [&mut client, &mut server] {
                peer.receive()?;
                peer.end.send();
            }
        }
        Err("the connection does not open".into())
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// Takes one frame if there is one; now and then timers and the link. False: nothing came.
    fn receive(&mut self) -> Result<bool, String> {
        if !self.end.nic().recv_ready() {
            self.quiet = self.quiet.wrapping_add(1);
            if self.quiet.is_multiple_of(ROUNDS) {
                self.end.send();
                let now = self.now_ns();
                self.end.nic().maintain(now).map_err(text)?;
            }
            spin_loop();
            return Ok(false);
        }
        self.end.take_frame();
        Ok(true)
    }
}

/// The server's end, until it is told to stop.
fn serve<E: End>(peer: &mut Peer<E>, test: Test, stop: &AtomicBool) -> Result<(), String> {
    let mut rounds = 0_u32;
    loop {
        if peer.receive()? {
            if test == Test::TcpStream {
                peer.end.read_all();
            } else if peer.end.take_byte() {
                peer.end.give_byte()?;
                continue;
            }
            peer.end.send();
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS) && stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// The client of round trips.
fn ask<E: End>(
    peer: &mut Peer<E>,
    plan: &Plan,
    gone: impl Fn() -> bool,
) -> Result<Latency, String> {
    let mut latency = Latency::new();
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let begin = peer.now_ns();
    let (mut before, mut rounds) = (begin, 0_u32);
    while before - begin < all {
        peer.end.give_byte()?;
        while !peer.end.take_byte() {
            peer.receive()?;
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(ROUNDS) && gone() {
                return Err("the other end stopped".into());
            }
        }
        let now = peer.now_ns();
        if before - begin >= warmup {
            latency.record(now - before);
        }
        before = now;
    }
    Ok(latency)
}

/// The client of a stream: rewrites every byte and sends; returns bytes and nanoseconds.
fn flood<E: End>(
    peer: &mut Peer<E>,
    plan: &Plan,
    gone: impl Fn() -> bool,
) -> Result<(u64, u64), String> {
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let mut block = vec![0; SEND_DEFAULT];
    let (begin, mut round, mut left) = (peer.now_ns(), 0, 0);
    let (mut bytes, mut since) = (0, None);
    loop {
        loop {
            if left == 0 {
                pattern::rewrite(&mut block, round);
                round += 1;
                left = block.len();
            }
            let from = block.len() - left;
            let sent = peer.end.write(block.get(from..).unwrap_or_default())?;
            left -= sent;
            bytes += count(sent);
            if sent == 0 {
                break;
            }
        }
        while peer.receive()? {}
        peer.end.send();
        let now = peer.now_ns() - begin;
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

/// One row of one stack.
struct Rival<E> {
    row: PeerRow,
    stack: PhantomData<fn() -> E>,
}

impl<E: End> Rival<E> {
    fn place(&self) -> Place {
        let mode = match (self.row.test, self.row.mtu, self.row.checksums) {
            (Test::TcpStream, mtu, false) => format!("copy/{mtu}"),
            (Test::TcpStream, mtu, true) => format!("copy/{mtu}+csum"),
            (Test::TcpRr | Test::UdpRr, _, false) => "copy".into(),
            (Test::TcpRr | Test::UdpRr, _, true) => "copy+csum".into(),
        };
        Place { stack: E::STACK.into(), device: "soft".into(), mode: Some(mode) }
    }

    fn test_name(&self) -> &'static str {
        match self.row.test {
            Test::TcpRr => "TCP_RR",
            Test::UdpRr => "UDP_RR",
            Test::TcpStream => "TCP_STREAM",
        }
    }
}

impl<E: End> Contender for Rival<E> {
    fn name(&self) -> String {
        let mode = self.place().mode.unwrap_or_default();
        format!("{}, soft, {mode}, {}", E::STACK, self.test_name())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let stop = AtomicBool::new(false);
        let (test, (mut client, server)) = (self.row.test, Peer::<E>::pair(self.row)?);
        std::thread::scope(|scope| {
            let stopped = &stop;
            let other = scope.spawn(move || -> Result<(), String> {
                pin(plan.cores.server).map_err(text)?;
                let mut server = server;
                serve(&mut server, test, stopped)
            });
            let gone = || other.is_finished();
            let place = self.place();
            let measured = pin(plan.cores.client).map_err(text).and_then(|()| match test {
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

    fn every_row_moves_something<E: End + 'static>() {
        let plan = Plan {
            // On a busy machine a round trip of two threads that spin takes turns on the cpus.
            length: Duration::from_millis(200),
            warmup: Duration::ZERO,
            ..Plan::new(Cores::default())
        };
        for mut rival in all::<E>() {
            let name = rival.name();
            let row = rival.measure(&plan).unwrap_or_else(|error| panic!("{name}: {error}")).row;
            let moved = row.gbit_per_s.or(row.transactions_per_s);
            assert!(moved > Some(0.0), "{name}: {row:?}");
        }
    }

    #[cfg(feature = "smoltcp")]
    #[test]
    fn every_row_of_smoltcp_moves_something() {
        every_row_moves_something::<super::super::peer_smoltcp::Smoltcp>();
    }

    #[cfg(feature = "lwip")]
    #[test]
    fn every_row_of_lwip_moves_something() {
        every_row_moves_something::<super::super::peer_lwip::Lwip>();
    }
}
