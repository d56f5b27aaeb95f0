//! The bare soft link: the NIC calls that the device half makes, with all their checks, but no
//! virtqueue and no stack.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roceway_runtime::rdma_virtio::nic::bare::{BareNic, Load, PAYLOAD_LEN, Payload};
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};

use super::rivals::{Contender, MESSAGE_LARGE, rtt_row, stream_row};
use super::{Measured, Plan};
use crate::arithmetic::{count, nanoseconds, real};
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

type Side = BareNic<SoftNic>;

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
    /// All of them.
    pub(super) const ALL: [LinkRival; 4] =
        [LinkRival::RoundTrip, LinkRival::Copy, LinkRival::ZeroCopy, LinkRival::ZeroCopyLarge];

    fn mode(self) -> &'static str {
        match self {
            Self::RoundTrip | Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
            Self::ZeroCopyLarge => ZERO_COPY_LARGE,
        }
    }

    fn place(self) -> Place {
        let mode = Some(self.mode().into());
        Place { stack: "link".into(), device: "soft".into(), mode }
    }

    /// As many buffers as Roceway has at work in the same mode.
    fn load(self) -> Load {
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
struct Copied {
    bytes: u64,
    of: u64,
}

impl Copied {
    fn ratio(self) -> Option<f64> {
        (self.of > 0).then(|| real(self.bytes) / real(self.of))
    }
}

/// An error in words; by value, for `map_err`.
fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
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
        let (mut left, mut right) = linked(self.load())?;
        let stop = AtomicBool::new(false);
        let kind = *self;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Result<Copied, String> {
                pin(plan.cores.server).map_err(text)?;
                match kind {
                    Self::RoundTrip => answer(&mut right, &stop).map(|()| Copied::default()),
                    Self::Copy | Self::ZeroCopy | Self::ZeroCopyLarge => {
                        flood(&mut right, kind == Self::Copy, &stop)
                    }
                }
            });
            let gone = || other.is_finished();
            let measured = pin(plan.cores.client).map_err(text).and_then(|()| match kind {
                Self::RoundTrip => {
                    let latency = ask(&mut left, plan, gone)?;
                    Ok((rtt_row("TCP_RR", self.place(), latency), Copied::default()))
                }
                Self::Copy | Self::ZeroCopy | Self::ZeroCopyLarge => {
                    let (copied, elapsed) = drain(&mut left, kind == Self::Copy, plan, gone)?;
                    let moved = (copied.of, elapsed);
                    Ok((stream_row(self.place(), PAYLOAD_LEN.into(), moved), copied))
                }
            });
            stop.store(true, Ordering::Relaxed);
            let before = match other.join() {
                Ok(before) => before?,
                Err(_) => return Err("its other thread died".into()),
            };
            let (mut measured, after) = measured?;
            measured.row.copies_per_byte =
                before.ratio().zip(after.ratio()).map(|(before, after)| before + after);
            Ok(measured)
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

fn flood(side: &mut Side, copies: bool, stop: &AtomicBool) -> Result<Copied, String> {
    let (mut round, mut fresh) = (0_u64, false);
    let mut block = vec![0; MESSAGE_LARGE];
    while !stop.load(Ordering::Relaxed) {
        if copies && !fresh {
            pattern::rewrite(&mut block, round);
            fresh = true;
        }
        let payload = match copies {
            true => Payload::Copied(&block),
            false => Payload::Rewritten(round.to_le_bytes()[0]),
        };
        if side.send_large(payload).map_err(text)? {
            round += 1;
            fresh = false;
        } else {
            spin_loop();
        }
    }
    let (of, bytes) = side.sent_and_copied();
    Ok(Copied { bytes, of })
}

/// Receives and reads every byte; returns bytes and nanoseconds after warm-up.
fn drain(
    side: &mut Side,
    copies: bool,
    plan: &Plan,
    gone: impl Fn() -> bool,
) -> Result<(Copied, u64), String> {
    // As the inbox of a stream's receiver.
    let mut inbox = vec![0; RECEIVE_DEFAULT];
    let mut filled = 0;
    let (warmup, all) = (nanoseconds(plan.warmup), nanoseconds(plan.warmup + plan.length));
    let start = Instant::now();
    let (mut bytes, mut copied, mut since) = (0, 0, None);
    loop {
        let read = |part: &[u8]| {
            if !copies {
                black_box(pattern::read(part));
                return;
            }
            if filled + part.len() > inbox.len() {
                black_box(pattern::read(&inbox[..filled]));
                filled = 0;
            }
            inbox[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
            copied += count(part.len());
        };
        bytes += side.receive_large(read).map_err(text)?;
        let now = nanoseconds(start.elapsed());
        if since.is_none() && now >= warmup {
            (bytes, copied, since) = (0, 0, Some(now));
        }
        if now >= all {
            return Ok((Copied { bytes: copied, of: bytes }, now - since.unwrap_or(0)));
        }
        if bytes == 0 && gone() {
            return Err("the other end stopped".into());
        }
    }
}
