//! The bare soft link: the NIC calls that the device half makes, with all their checks, but no
//! virtqueue and no stack.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roceway_runtime::rdma_virtio::memory::copy::copy;
use roceway_runtime::rdma_virtio::nic::bare::{BareNic, Load, PAYLOAD_LEN, Payload};
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};

use super::rivals::{Contender, MESSAGE_LARGE, rtt_row, stream_row};
use super::{Measured, Plan};
use crate::arithmetic::{count, nanoseconds, real};
use crate::block::Block;
use crate::control::RECEIVE_DEFAULT;
use crate::histogram::Latency;
use crate::local::pin;
use crate::pattern;
use crate::report::Place;

/// Bytes of a 1-byte TCP segment on the link: 12 of virtio-net header, 66 of headers, 1 of payload.
const MESSAGE_LEN: u32 = 79;
/// The mode of streams with receive buffers of 64 KiB.
pub(super) const ZERO_COPY_LARGE: &str = "zero-copy/64k";
/// Those buffers, as many as are posted: 1 MiB of them, as of the 256 of 4 KiB.
pub(super) const RECEIVES_LARGE: u16 = 16;
pub(super) const RECEIVE_LEN_LARGE: u32 = 65_536;
/// Looks at clock or stop flag once in so many spins.
const SPINS: u32 = 256;
/// A link that is not up after so many rounds of cold work never will be.
const MAINTAIN_MAX: u64 = 1000;

pub(super) type Side = BareNic<SoftNic>;

/// Which of its two rows a link measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkRival {
    /// Small messages back and forth.
    RoundTrip,
    /// Large messages one way, each byte copied before and after the NIC's own copy.
    Copy,
    /// The same, written where they are sent from and read where they are received.
    ZeroCopy,
    /// The same in receive buffers of 64 KiB.
    ZeroCopyLarge,
}

impl LinkRival {
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::RoundTrip | Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
            Self::ZeroCopyLarge => ZERO_COPY_LARGE,
        }
    }

    /// Whether a stream's bytes are copied at either end.
    pub(super) fn copies(self) -> bool {
        matches!(self, Self::RoundTrip | Self::Copy)
    }

    fn place(self) -> Place {
        let mode = Some(self.mode().into());
        Place { stack: "link".into(), device: "soft".into(), mode }
    }

    /// As many buffers as Roceway has at work in the same mode.
    pub(super) fn load(self) -> Load {
        match self {
            Self::RoundTrip | Self::Copy | Self::ZeroCopy => Load::default(),
            Self::ZeroCopyLarge => Load {
                receives: RECEIVES_LARGE.into(),
                receive_len: RECEIVE_LEN_LARGE,
                ..Load::default()
            },
        }
    }
}

/// Bytes that an end moved, and those of them that it copied: before or after the NIC did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    bytes: u64,
    of: u64,
}

impl Copied {
    fn ratio(self) -> Option<f64> {
        (self.of > 0).then(|| real(self.bytes) / real(self.of))
    }
}

/// An error in words; by value, for `map_err`.
pub(super) fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

fn linked(load: Load) -> Result<(Side, Side), String> {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).map_err(text)?;
    let mut left = BareNic::new(left, load).map_err(text)?;
    let mut right = BareNic::new(right, load).map_err(text)?;
    for round in 1..MAINTAIN_MAX {
        left.maintain(round).map_err(text)?;
        right.maintain(round).map_err(text)?;
        if left.is_up() && right.is_up() {
            return Ok((left, right));
        }
    }
    Err("the link does not come up".into())
}

impl Contender for LinkRival {
    fn name(&self) -> String {
        match self {
            Self::RoundTrip => "link".into(),
            Self::Copy | Self::ZeroCopy | Self::ZeroCopyLarge => {
                format!("link, stream, {}", self.mode())
            }
        }
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let copies = self.copies();
        if *self == Self::RoundTrip {
            let here = |side: &mut Side, gone: Gone<'_>| ask(side, plan, gone);
            let ((), latency) = both_ends(self.load(), plan, answer, here)?;
            return Ok(rtt_row("TCP_RR", self.place(), latency));
        }
        let there = |side: &mut Side, stop: &AtomicBool| flood(side, copies, stop);
        let here = |side: &mut Side, gone: Gone<'_>| drain(side, copies, plan, gone);
        let (before, (after, elapsed)) = both_ends(self.load(), plan, there, here)?;
        Ok(copied_row(self.place(), (before, after), elapsed))
    }
}

/// Whether the other end has stopped.
pub(super) type Gone<'a> = &'a dyn Fn() -> bool;

/// The row of a stream of segments: bytes received in so many nanoseconds, and the copies that
/// sender and receiver made.
pub(super) fn copied_row(
    place: Place,
    (before, after): (Copied, Copied),
    elapsed_ns: u64,
) -> Measured {
    let mut measured = stream_row(place, PAYLOAD_LEN.into(), (after.of, elapsed_ns));
    measured.row.copies_per_byte =
        before.ratio().zip(after.ratio()).map(|(before, after)| before + after);
    measured
}

/// Runs the two ends of a link, each on its core: `here` on the calling thread until it returns,
/// `there` until it is told to stop.
pub(super) fn both_ends<O: Send, H>(
    load: Load,
    plan: &Plan,
    there: impl FnOnce(&mut Side, &AtomicBool) -> Result<O, String> + Send,
    here: impl FnOnce(&mut Side, Gone<'_>) -> Result<H, String>,
) -> Result<(O, H), String> {
    let (mut left, mut right) = linked(load)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(plan.cores.server).map_err(text)?;
            there(&mut right, &stop)
        });
        let gone = || other.is_finished();
        let got = pin(plan.cores.client).map_err(text).and_then(|()| here(&mut left, &gone));
        stop.store(true, Ordering::Relaxed);
        let Ok(other) = other.join() else { return Err("its other thread died".into()) };
        Ok((other?, got?))
    })
}

fn answer(side: &mut Side, stop: &AtomicBool) -> Result<(), String> {
    let mut spins = 0_u32;
    loop {
        if side.recv_ready() {
            if side.receive_small().map_err(text)?.is_some() {
                side.send_small(MESSAGE_LEN).map_err(text)?;
            }
            continue;
        }
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS) && stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        spin_loop();
    }
}

fn ask(side: &mut Side, plan: &Plan, gone: Gone<'_>) -> Result<Latency, String> {
    let mut latency = Latency::new();
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let mut before = 0;
    while before < all {
        side.send_small(MESSAGE_LEN).map_err(text)?;
        let mut spins = 0_u32;
        while !side.recv_ready() {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(SPINS) && gone() {
                return Err("the other end stopped".into());
            }
            spin_loop();
        }
        if side.receive_small().map_err(text)? != Some(MESSAGE_LEN) {
            return Err("a message came back with another length".into());
        }
        let now = nanoseconds(start.elapsed());
        if before >= warmup {
            latency.record(now - before);
        }
        before = now;
    }
    Ok(latency)
}

/// Where the bytes of a stream come from: every message is rewritten once, in a block of the
/// application's that is copied from, or where it is sent from.
#[derive(Debug)]
pub(super) struct Source {
    copies: bool,
    block: Block,
    round: u64,
    fresh: bool,
}

impl Source {
    /// The application's end, with copies or without.
    pub(super) fn new(copies: bool) -> Source {
        Source { copies, block: Block::new(MESSAGE_LARGE), round: 0, fresh: false }
    }

    /// Sends one more message if the link has room; returns whether it did.
    pub(super) fn send(&mut self, side: &mut Side) -> Result<bool, String> {
        if self.copies && !self.fresh {
            pattern::rewrite(&mut self.block, self.round);
            self.fresh = true;
        }
        let payload = match self.copies {
            true => Payload::Copied(&self.block),
            false => Payload::Rewritten(self.round.to_le_bytes()[0]),
        };
        let sent = side.send_large(payload).map_err(text)?;
        if sent {
            self.round += 1;
            self.fresh = false;
        }
        Ok(sent)
    }

    /// Messages that were sent.
    pub(super) fn round(&self) -> u64 {
        self.round
    }
}

/// Bytes that an end has sent, and those of them that it copied before.
pub(super) fn sent_and_copied(side: &Side) -> Copied {
    let (of, bytes) = side.sent_and_copied();
    Copied { bytes, of }
}

/// Where the bytes of a stream go: each is read, in an inbox that it was copied to, or where it
/// was received.
#[derive(Debug)]
pub(super) struct Sink {
    copies: bool,
    /// As the inbox of a stream's receiver.
    inbox: Block,
    filled: usize,
    copied: u64,
}

impl Sink {
    /// The application's end, with copies or without.
    pub(super) fn new(copies: bool) -> Sink {
        Sink { copies, inbox: Block::new(RECEIVE_DEFAULT), filled: 0, copied: 0 }
    }

    /// Takes what came.
    pub(super) fn take(&mut self, part: &[u8]) {
        if !self.copies {
            black_box(pattern::read(part));
            return;
        }
        if self.filled + part.len() > self.inbox.len() {
            black_box(pattern::read(&self.inbox[..self.filled]));
            self.filled = 0;
        }
        copy(&mut self.inbox[self.filled..self.filled + part.len()], part);
        self.filled += part.len();
        self.copied += count(part.len());
    }
}

impl AsMut<Sink> for Sink {
    fn as_mut(&mut self) -> &mut Sink {
        self
    }
}

fn flood(side: &mut Side, copies: bool, stop: &AtomicBool) -> Result<Copied, String> {
    let mut source = Source::new(copies);
    while !stop.load(Ordering::Relaxed) {
        if !source.send(side)? {
            spin_loop();
        }
    }
    Ok(sent_and_copied(side))
}

/// Receives and reads every byte; returns bytes and nanoseconds after warm-up.
fn drain(
    side: &mut Side,
    copies: bool,
    plan: &Plan,
    gone: Gone<'_>,
) -> Result<(Copied, u64), String> {
    receive_timed(plan, gone, &mut Sink::new(copies), |sink| {
        side.receive_large(|part| sink.take(part)).map_err(text)
    })
}

/// Has `receive` take what comes until the time is over: it returns how many bytes that was.
/// Returns those after warm-up, and nanoseconds.
pub(super) fn receive_timed<R: AsMut<Sink>>(
    plan: &Plan,
    gone: Gone<'_>,
    receiver: &mut R,
    mut receive: impl FnMut(&mut R) -> Result<u64, String>,
) -> Result<(Copied, u64), String> {
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let (mut of, mut since) = (0, None);
    loop {
        of += receive(receiver)?;
        let now = nanoseconds(start.elapsed());
        if since.is_none() && now >= warmup {
            (of, since) = (0, Some(now));
            receiver.as_mut().copied = 0;
        }
        if now >= all {
            let bytes = receiver.as_mut().copied;
            return Ok((Copied { bytes, of }, now - since.unwrap_or(0)));
        }
        if of == 0 && gone() {
            return Err("the other end stopped".into());
        }
    }
}
