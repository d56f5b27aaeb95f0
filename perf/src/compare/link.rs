//! The bare soft link: the NIC calls that the device half makes, with all their checks, but no
//! virtqueue and no stack.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roceway_runtime::rdma_virtio::nic::bare::{BareNic, LARGE_LEN};
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};

use super::rivals::{Contender, rtt_row, stream_row};
use super::{Measured, Plan};
use crate::arithmetic::nanoseconds;
use crate::histogram::Latency;
use crate::local::pin;
use crate::pattern;
use crate::report::Place;

/// Bytes of a 1-byte TCP segment on the link: 12 of virtio-net header, 66 of headers, 1 of payload.
const MESSAGE_LEN: u32 = 79;
/// Looks at clock or stop flag once in so many spins.
const SPINS: u32 = 256;
/// A link that is not up after so many rounds of cold work never will be.
const MAINTAIN_MAX: u64 = 1000;

type Side = BareNic<SoftNic>;

/// Which of its two rows a link measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkRival {
    /// Small messages back and forth.
    RoundTrip,
    /// Large messages one way.
    Stream,
}

fn place() -> Place {
    Place { stack: "link".into(), device: "soft".into(), mode: Some("copy".into()) }
}

/// An error in words; by value, for `map_err`.
fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

fn linked() -> Result<(Side, Side), String> {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).map_err(text)?;
    let mut left = BareNic::new(left).map_err(text)?;
    let mut right = BareNic::new(right).map_err(text)?;
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
            Self::Stream => "link, stream".into(),
        }
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let (mut left, mut right) = linked()?;
        let stop = AtomicBool::new(false);
        let kind = *self;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Result<(), String> {
                pin(plan.cores.server).map_err(text)?;
                match kind {
                    Self::RoundTrip => answer(&mut right, &stop),
                    Self::Stream => flood(&mut right, &stop),
                }
            });
            let gone = || other.is_finished();
            let measured = pin(plan.cores.client).map_err(text).and_then(|()| match kind {
                Self::RoundTrip => {
                    ask(&mut left, plan, gone).map(|latency| rtt_row("TCP_RR", place(), latency))
                }
                Self::Stream => drain(&mut left, plan, gone)
                    .map(|moved| stream_row(place(), LARGE_LEN.into(), moved)),
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

fn ask(side: &mut Side, plan: &Plan, gone: impl Fn() -> bool) -> Result<Latency, String> {
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

fn flood(side: &mut Side, stop: &AtomicBool) -> Result<(), String> {
    let mut value = 0_u8;
    while !stop.load(Ordering::Relaxed) {
        if side.send_large(value).map_err(text)? {
            value = value.wrapping_add(1);
        } else {
            spin_loop();
        }
    }
    Ok(())
}

/// Receives and reads every byte; returns bytes and nanoseconds after warm-up.
fn drain(side: &mut Side, plan: &Plan, gone: impl Fn() -> bool) -> Result<(u64, u64), String> {
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let (mut bytes, mut since) = (0, None);
    loop {
        let read = |part: &[u8]| {
            black_box(pattern::read(part));
        };
        bytes += side.receive_large(read).map_err(text)?;
        let now = nanoseconds(start.elapsed());
        if since.is_none() && now >= warmup {
            (bytes, since) = (0, Some(now));
        }
        if now >= all {
            return Ok((bytes, now - since.unwrap_or(0)));
        }
        if bytes == 0 && gone() {
            return Err("the other end stopped".into());
        }
    }
}
