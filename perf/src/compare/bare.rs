//! What any TCP has to do on the soft link, and nothing else: where a stack's figure lies between
//! this and the bare link, the rest is the stack's own; what this lies below the link is TCP's.
//!
//! To what a stream over the bare link does (`link`) it adds:
//!
//! - The 78 bytes of headers before each segment are written by its sender and read by its
//!   receiver, and the application gets the payload alone, which lies behind them.
//! - Segments are acknowledged by small frames, one for what a turn took: at most
//!   [`TURN_SEGMENTS`], which is what Roceway takes in one, and less if no more has come.
//! - No more than a window is under way without being acknowledged, and no buffer is rewritten
//!   before its segment was acknowledged, besides having left the NIC.
//!
//! What it cannot show: the bare NIC keeps the headers that it sends to itself, so those written
//! here lie beside them; it sends no bytes of ours inline, so an acknowledgement tells by its
//! length how many segments it is for; and it takes all that waits in receives of one segment
//! each, so that there one acknowledgement may be for the whole window.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};

use roceway_runtime::rdma_virtio::nic::bare::{LARGE_DEPTH, PAYLOAD_LEN};

use super::link::{
    Copied, Gone, LinkRival, Side, Sink, Source, both_ends, copied_row, receive_timed,
    sent_and_copied, text,
};
use super::rivals::Contender;
use super::{Measured, Plan};
use crate::arithmetic::count;
use crate::pattern;
use crate::report::Place;

/// Bytes before the payload: 12 of virtio-net header, 66 of Ethernet, IPv4 and TCP with timestamps.
const HEADERS_LEN: usize = 12 + 66;
/// The same as the length of an acknowledgement, to which one byte is added for each segment.
const ACK_LEN: u32 = 12 + 66;
/// Bytes of a segment on the link.
const SEGMENT_LEN: usize = HEADERS_LEN + PAYLOAD_LEN as usize;
/// Segments of a turn: 64 items of 4 KiB, as each of these counts for 16.
const TURN_SEGMENTS: u64 = 4;
/// Room for headers, as a small slot has it: no two share a pair of cache lines.
const HEADERS_ROOM: usize = 256;

/// Which link stream TCP's part is added to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BareRival(LinkRival);

impl BareRival {
    /// All of them.
    pub(super) const ALL: [BareRival; 3] = [
        BareRival(LinkRival::Copy),
        BareRival(LinkRival::ZeroCopy),
        BareRival(LinkRival::ZeroCopyLarge),
    ];

    /// The bare link's stream in the same mode.
    pub(super) fn link(self) -> LinkRival {
        self.0
    }
}

impl Contender for BareRival {
    fn name(&self) -> String {
        format!("bare, stream, {}", self.0.mode())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let copies = self.0.copies();
        let there = |side: &mut Side, stop: &AtomicBool| send(side, copies, stop);
        let here = |side: &mut Side, gone: Gone<'_>| {
            let mut receiver = Receiver::new(copies);
            receive_timed(plan, gone, &mut receiver, |receiver| receiver.turn(side))
        };
        let (before, (after, elapsed)) = both_ends(self.0.load(), plan, there, here)?;
        let mode = Some(self.0.mode().into());
        let place = Place { stack: "bare".into(), device: "soft".into(), mode };
        Ok(copied_row(place, (before, after), elapsed))
    }
}

/// Sends until told to stop, within the window.
fn send(side: &mut Side, copies: bool, stop: &AtomicBool) -> Result<Copied, String> {
    let mut source = Source::new(copies);
    let mut headers = [[0_u8; HEADERS_ROOM]; LARGE_DEPTH];
    let mut places = (0..LARGE_DEPTH).cycle();
    let (mut under_way, mut written) = (0, false);
    while !stop.load(Ordering::Relaxed) {
        under_way -= acknowledged(side)?;
        // As many buffers as segments may be under way: what is acknowledged is the oldest of them.
        if under_way >= count(LARGE_DEPTH) {
            spin_loop();
            continue;
        }
        if !written && let Some(place) = places.next() {
            pattern::rewrite(&mut headers[place][..HEADERS_LEN], source.round());
            black_box(&headers[place]);
            written = true;
        }
        if source.send(side)? {
            under_way += 1;
            written = false;
        } else {
            spin_loop();
        }
    }
    Ok(sent_and_copied(side))
}

/// Segments whose acknowledgement has come.
fn acknowledged(side: &mut Side) -> Result<u64, String> {
    let mut segments = 0;
    while side.recv_ready() {
        let Some(length) = side.receive_small().map_err(text)? else { break };
        segments += u64::from(length.saturating_sub(ACK_LEN));
    }
    Ok(segments)
}

/// The end that receives.
struct Receiver {
    sink: Sink,
    /// Bytes that have come of the segment under way.
    within: usize,
    /// Segments that have come whole and are not acknowledged.
    whole: u32,
}

impl AsMut<Sink> for Receiver {
    fn as_mut(&mut self) -> &mut Sink {
        &mut self.sink
    }
}

impl Receiver {
    fn new(copies: bool) -> Receiver {
        Receiver { sink: Sink::new(copies), within: 0, whole: 0 }
    }

    /// Takes what has come, at most a turn of it or what the NIC gives at a time, and acknowledges
    /// it; returns the bytes of payload in it.
    fn turn(&mut self, side: &mut Side) -> Result<u64, String> {
        while u64::from(self.whole) < TURN_SEGMENTS && side.recv_ready() {
            side.receive_large(|part| self.take(part)).map_err(text)?;
        }
        let segments = std::mem::take(&mut self.whole);
        if segments > 0 {
            side.send_small(ACK_LEN + segments).map_err(text)?;
        }
        Ok(u64::from(segments) * u64::from(PAYLOAD_LEN))
    }

    /// Takes what one receive holds: all of a segment, or its next part.
    fn take(&mut self, part: &[u8]) {
        let headers = HEADERS_LEN.saturating_sub(self.within).min(part.len());
        let (headers, payload) = part.split_at(headers);
        black_box(pattern::read(headers));
        self.sink.take(payload);
        self.within += part.len();
        if self.within >= SEGMENT_LEN {
            self.within = 0;
            self.whole += 1;
        }
    }
}
