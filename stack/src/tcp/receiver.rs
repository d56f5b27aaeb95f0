//! The receiving half of a connection: the window, what arrived, and when to acknowledge.

use core::hint::cold_path;

use arrayvec::ArrayVec;

use super::connection::{Connection, Context, Readiness};
#[cfg(test)]
use super::hot_lines::{Place, places, within};
use super::options;
use super::reassembly::{Data, Reassembly, ReceiveWindow};
use super::receive_queue::ReceiveQueue;
use super::seq::SeqNum;
use super::timers::Timer;
use super::zero_copy::{Most, Taken, Taker};
use crate::memory::{Memory, Piece};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{SACK_BLOCKS_MAX, SackBlock};
#[cfg(test)]
use alloc::vec::Vec;
#[cfg(test)]
use core::mem::offset_of;

/// Segments acknowledged at once when a connection begins, so that the peer's slow start is not
/// held back by delayed acknowledgements.
const QUICK_ACKS: u8 = 16;
/// A timestamp older than this says nothing about PAWS (RFC 7323 §5.5).
const TS_RECENT_MAX_AGE: Duration = Duration::from_secs(24 * 24 * 3600);

/// Most pieces of a segment that are taken: 64 KiB in buffers of 2 KiB that begin with headers.
const RX_PIECES_MAX: usize = 34;

/// Payload of a segment under processing; what is left of it at the end is released.
pub(super) type PayloadPieces = ArrayVec<Piece, RX_PIECES_MAX>;

/// Payload as it came.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "pieces stay on the stack: a box would allocate")]
pub(super) enum Payload<'a> {
    /// In NIC buffers; each piece carries a reference.
    Pieces(PayloadPieces),
    /// Put together from IP fragments, in ordinary memory.
    Bytes(&'a [u8]),
}

impl Payload<'_> {
    /// Number of bytes.
    pub(super) fn len(&self) -> u32 {
        match self {
            Payload::Pieces(pieces) => pieces.iter().map(|piece| piece.len).sum(),
            Payload::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// Gives back what was not taken.
    pub(super) fn release<M: Memory>(&mut self, mem: &mut M) {
        if let Payload::Pieces(pieces) = self {
            for piece in pieces.drain(..) {
                mem.release(piece.slot);
            }
        }
    }
}

/// Whether and when an acknowledgement is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AckDue {
    No,
    /// The timer is armed; data going out carries it along.
    Delayed,
    Now,
}

/// The application holds as many slots as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sated;

/// The receiving half. The fast path touches the beginning of it, to within `queue`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Receiver {
    pub(super) nxt: SeqNum,
    /// Right edge of the window that the peer knows.
    pub(super) edge: SeqNum,
    pub(super) last_ack_sent: SeqNum,
    /// Bytes that may come after `last_ack_sent`, and be read, before the window field changes; 0
    /// if that is not known.
    steady: u32,
    pub(super) ts_recent: u32,
    pub(super) limit: u32,
    /// The window field of the last segment.
    window_field: u16,
    /// The largest segment seen: what "full-sized" means in RFC 9293 §3.8.6.3.
    pub(super) segment_size: u16,
    pub(super) ack: AckDue,
    pub(super) scale: u8,
    quick_acks: u8,
    /// The application answers what it reads: acknowledgements ride on its answers.
    pub(super) interactive: bool,
    pub(super) ts_recent_at: Instant,
    /// When the last segment of the peer came.
    pub(super) last_heard: Instant,
    pub(super) queue: ReceiveQueue,
    /// Bytes that the application took without a copy and has not given back, and the slots that
    /// they pin.
    lent: u32,
    lent_slots: u16,
    /// It was refused more, since it holds as much as it may.
    sated: bool,
    /// Segments of both ends carry timestamps.
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    /// The application reads no more.
    pub(super) shut: bool,
    /// Place of a FIN that came, in order or not.
    pub(super) fin: Option<SeqNum>,
    /// RCV.UP (RFC 9293 §3.8.5): first byte after urgent data that was not yet read.
    pub(super) urgent: Option<SeqNum>,
    pub(super) reassembly: Reassembly,
}

#[cfg(test)]
impl Receiver {
    /// What the fast path touches in each transaction.
    pub(super) fn hot() -> Vec<Place> {
        let own = places!(
            Receiver: nxt, edge, last_ack_sent, steady, ts_recent, limit, window_field,
            segment_size, ack, scale, quick_acks, interactive, ts_recent_at, last_heard
        );
        [own, within(offset_of!(Receiver, queue), ReceiveQueue::hot())].concat()
    }
}

impl Receiver {
    /// A receiver before the peer's SYN is known.
    pub(super) fn new(limit: u32, scale: u8) -> Receiver {
        Receiver {
            nxt: SeqNum::default(),
            edge: SeqNum::default(),
            last_ack_sent: SeqNum::default(),
            steady: 0,
            window_field: 0,
            ts_recent: 0,
            ack: AckDue::No,
            timestamps: false,
            sack: false,
            scale,
            quick_acks: QUICK_ACKS,
            interactive: false,
            shut: false,
            limit,
            lent: 0,
            lent_slots: 0,
            sated: false,
            segment_size: 536,
            queue: ReceiveQueue::default(),
            reassembly: Reassembly::new(),
            ts_recent_at: Instant::ZERO,
            last_heard: Instant::ZERO,
            fin: None,
            urgent: None,
        }
    }

    /// Starts after the peer's SYN.
    pub(super) fn synchronize(&mut self, irs: SeqNum) {
        self.nxt = irs.plus(1);
        self.edge = self.nxt;
        self.last_ack_sent = self.nxt;
        self.steady = 0;
    }

    /// Bytes of the window that the peer knows and has not used.
    #[inline]
    pub(super) fn window(&self) -> u32 {
        let ahead = self.nxt.distance_to(self.edge);
        if ahead <= u32::MAX / 2 { ahead } else { 0 }
    }

    /// Whether a segment of so many bytes lies in that window. False, too, where the window is
    /// behind what came.
    #[inline]
    pub(super) fn has_window_for(&self, len: u32) -> bool {
        self.nxt.distance_to(self.edge).cast_signed() >= len.cast_signed()
    }

    /// Bytes in the buffer: unread, or lent to the application.
    #[inline]
    fn held(&self) -> u32 {
        self.queue.len() + self.lent
    }

    /// Bytes that could be advertised: the free part of the buffer.
    #[inline]
    fn room(&self) -> u32 {
        self.limit.saturating_sub(self.held())
    }

    /// The window field of a segment that goes out now; never takes back what was promised
    /// (RFC 9293 §3.8.6, SHLD-14), and moves the edge only by worthwhile steps (§3.8.6.2.2). A
    /// SYN's window is not scaled: `shift` is 0 there (RFC 7323 §2.2), and `scale` elsewhere.
    /// Windows, buffers and what lies in them are below 2^30 bytes, so that no sum overflows.
    #[inline(always)]
    pub(super) fn advertise(&mut self, shift: u8) -> u16 {
        let come = self.last_ack_sent.distance_to(self.nxt);
        if come < self.steady && self.queue.len() == 0 {
            // What the sum below would come to: as many bytes as came are promised anew.
            self.edge = self.edge.plus(come);
            self.last_ack_sent = self.nxt;
            self.ack = AckDue::No;
            return self.window_field;
        }
        self.advertise_anew(shift)
    }

    #[inline(never)]
    fn advertise_anew(&mut self, shift: u8) -> u16 {
        let known = self.window();
        let room = self.room();
        let step = (self.limit / 2).min(u32::from(self.segment_size));
        let window = if room >= known + step { room } else { known };
        let shift = shift & 15;
        // Rounded up, for the peer must not see the edge move back by a fraction of the scale. A
        // peer that sends byte by byte would so push it on for ever: a quarter of the buffer is
        // where that ends.
        let full = self.held() + window > self.limit + self.limit / 4;
        let up = if full { 0 } else { (1 << shift) - 1 };
        let units = ((window + up) >> shift).min(u32::from(u16::MAX));
        let advertised = units << shift;
        if advertised > known {
            self.edge = self.nxt.plus(advertised);
        }
        self.last_ack_sent = self.nxt;
        self.ack = AckDue::No;
        self.window_field = u16::try_from(units).unwrap_or(u16::MAX);
        let usual = self.held() == 0 && !full && advertised >= known && shift == self.scale;
        let until_reopened = (advertised + step).saturating_sub(self.limit);
        self.steady = if usual { until_reopened.min(1 << shift) } else { 0 };
        self.window_field
    }

    /// Sets the size of the buffer.
    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.steady = 0;
    }

    /// The application read: tell the peer if the window grew by enough to matter.
    #[inline]
    pub(super) fn on_read(&mut self) {
        // Steady is a window that was promised up to the last segment or so: more than half of the
        // buffer, where nothing is to be told below.
        if self.last_ack_sent.distance_to(self.nxt) >= self.steady {
            self.tell_of_room();
        }
    }

    #[inline(never)]
    fn tell_of_room(&mut self) {
        let known = self.window();
        let step = (self.limit / 2).min(2 * u32::from(self.segment_size));
        if known < self.limit / 2 && self.room() >= known.saturating_add(step) {
            self.ack = AckDue::Now;
        }
    }

    /// Takes unread bytes out without a copy, at most `max`: they stay in the window until they are
    /// given back. Says how many, and whether the application holds as many slots as it may.
    #[inline]
    pub(super) fn take<M: Memory>(
        &mut self,
        max: u32,
        slots_max: u16,
        mem: &mut M,
        taker: &mut impl Taker<M>,
    ) -> Result<u32, Sated> {
        let mut slots = self.lent_slots;
        if slots >= slots_max && self.queue.len() > 0 {
            self.sated = true;
            return Err(Sated);
        }
        let bytes = match self.queue.take_copied(max) {
            Some(copied) => {
                let count = u32::try_from(copied.len()).unwrap_or(max);
                taker.copied(mem, copied);
                count
            }
            None => {
                let most = Most { slots: slots_max.saturating_sub(slots), bytes: max };
                let taken = self.take_runs(most, mem, taker);
                slots += taken.pieces;
                let mut bytes = taken.bytes;
                // What is not whole, or cannot stay where it lies.
                if bytes < max && slots < slots_max && self.queue.len() > 0 && taker.has_room() {
                    cold_path();
                    bytes += self.queue.take_each(max - bytes, mem, |mem, piece| {
                        let kept = taker.piece(mem, piece);
                        slots += u16::from(kept.slot);
                        kept.more && slots < slots_max
                    });
                }
                bytes
            }
        };
        self.lent_slots = slots;
        self.lent += bytes;
        self.steady = 0;
        Ok(bytes)
    }

    /// Takes whole pieces, in as few runs as they lie in.
    #[inline(always)]
    fn take_runs<M: Memory>(
        &mut self,
        most: Most,
        mem: &mut M,
        taker: &mut impl Taker<M>,
    ) -> Taken {
        let mut all = Taken::default();
        while self.queue.len() > 0 {
            let most = Most { slots: most.slots - all.pieces, bytes: most.bytes - all.bytes };
            let taken = self.queue.take_run(|run| taker.run(mem, run, most));
            if taken.pieces == 0 {
                break;
            }
            all.pieces += taken.pieces;
            all.bytes += taken.bytes;
        }
        all
    }

    /// What was taken comes back; says whether more may be taken that could not before.
    pub(super) fn give_back(&mut self, bytes: u32, slots: u16) -> bool {
        self.lent = self.lent.saturating_sub(bytes);
        self.lent_slots = self.lent_slots.saturating_sub(slots);
        self.on_read();
        slots > 0 && core::mem::take(&mut self.sated)
    }

    /// Bytes that the application took and has not given back.
    pub(super) fn lent(&self) -> u32 {
        self.lent
    }

    /// Whether everything that the peer will ever send was taken, its FIN included.
    pub(super) fn has_ended(&self) -> bool {
        self.fin.is_some_and(|fin| fin.before(self.nxt))
    }

    /// Takes note of a timestamp (RFC 7323 §4.3, the rule for the segment's place).
    #[inline]
    pub(super) fn on_timestamp(&mut self, value: u32, seq: SeqNum, now: Instant) {
        if seq.at_or_before(self.last_ack_sent) {
            self.ts_recent = value;
            self.ts_recent_at = now;
        }
    }

    /// RFC 7323 §5.3 R1: whether a segment's timestamp is older than what was seen.
    pub(super) fn is_old_timestamp(&self, value: u32, now: Instant) -> bool {
        let older = value.wrapping_sub(self.ts_recent) > u32::MAX / 2;
        older && now.since(self.ts_recent_at) < TS_RECENT_MAX_AGE
    }

    /// SACK blocks to report now.
    pub(super) fn sack_blocks(&self) -> ArrayVec<SackBlock, SACK_BLOCKS_MAX> {
        if self.sack { self.reassembly.sack_blocks() } else { ArrayVec::new() }
    }

    /// Bytes that options of the next segment take, given what the template carries.
    pub(super) fn sack_option_len(&self, used: u32) -> u32 {
        if !self.sack || self.reassembly.is_empty() {
            return 0;
        }
        let blocks = self.sack_blocks().len();
        let fit = options::sack_blocks_that_fit(used as usize).min(blocks);
        if fit == 0 { 0 } else { 4 + 8 * u32::try_from(fit).unwrap_or(0) }
    }
}

impl Connection {
    /// New bytes arrived in order: decide when to acknowledge (RFC 9293 §3.8.6.3, RFC 5681 §4.2:
    /// every second full-sized segment at least, and within the delay).
    #[inline(always)]
    pub(super) fn schedule_ack(&mut self, now: Instant, delay: Duration) {
        let rcv = &mut self.rcv;
        let unacknowledged = rcv.last_ack_sent.distance_to(rcv.nxt);
        if unacknowledged >= 2 * u32::from(rcv.segment_size) {
            rcv.ack = AckDue::Now;
        } else if rcv.quick_acks > 0 && !rcv.interactive {
            rcv.quick_acks -= 1;
            rcv.ack = AckDue::Now;
        } else if rcv.ack == AckDue::No {
            rcv.ack = AckDue::Delayed;
            self.arm(Timer::DelayedAck, now.plus(delay));
        }
    }

    /// Takes payload that lies at `seq`, within the window already; no piece is left in it.
    pub(super) fn on_data<M: Memory>(
        &mut self,
        seq: SeqNum,
        payload: &mut Payload<'_>,
        ctx: &mut Context<'_, M>,
    ) {
        let len = payload.len();
        self.rcv.segment_size =
            self.rcv.segment_size.max(u16::try_from(len).unwrap_or(u16::MAX)).min(self.snd.mss);
        if seq == self.rcv.nxt {
            let had_gap = !self.rcv.reassembly.is_empty();
            self.deliver(payload, ctx);
            self.deliver_ready(ctx);
            self.schedule_ack(ctx.now, ctx.config.delayed_ack);
            if had_gap {
                // RFC 5681 §4.2: a segment that fills a gap is acknowledged at once.
                self.rcv.ack = AckDue::Now;
            }
        } else {
            ctx.counters.out_of_order += 1;
            if let Payload::Pieces(pieces) = payload {
                let window = ReceiveWindow { nxt: self.rcv.nxt, end: self.rcv.edge };
                let inserted = self.rcv.reassembly.insert(seq, pieces, window, ctx.mem);
                pieces.clear();
                if ctx.mem.receive_is_low() {
                    let copied = self.rcv.reassembly.compact(ctx.mem);
                    ctx.counters.bytes_compacted += u64::from(copied);
                }
                ctx.counters.bytes_duplicate += u64::from(inserted.duplicate);
                ctx.counters.bytes_refused += u64::from(inserted.refused);
            } else {
                ctx.counters.bytes_refused += u64::from(len);
            }
            self.rcv.ack = AckDue::Now;
        }
    }

    fn deliver<M: Memory>(&mut self, payload: &mut Payload<'_>, ctx: &mut Context<'_, M>) {
        let len = payload.len();
        self.rcv.nxt = self.rcv.nxt.plus(len);
        ctx.counters.bytes_received += u64::from(len);
        match payload {
            Payload::Pieces(pieces) => {
                for piece in pieces.drain(..) {
                    ctx.counters.bytes_compacted += u64::from(self.rcv.queue.push(piece, ctx.mem));
                }
            }
            Payload::Bytes(bytes) => self.rcv.queue.push_bytes(bytes, ctx.mem),
        }
        self.notify(Readiness::READABLE);
    }

    /// Moves what has become contiguous from the reassembly queue to the receive queue.
    fn deliver_ready<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        while let Some(data) = self.rcv.reassembly.pop_ready(self.rcv.nxt, ctx.mem) {
            match data {
                Data::Piece(piece) => {
                    let mut pieces = PayloadPieces::new();
                    pieces.push(piece);
                    self.deliver(&mut Payload::Pieces(pieces), ctx);
                }
                Data::Owned(owned) => self.deliver(&mut Payload::Bytes(owned.as_slice()), ctx),
            }
        }
    }

    /// Copies what the connection holds out of NIC buffers, since they run low.
    pub(super) fn compact<M: Memory>(&mut self, ctx: &mut Context<'_, M>) {
        let copied = self.rcv.queue.compact(ctx.mem) + self.rcv.reassembly.compact(ctx.mem);
        ctx.counters.bytes_compacted += u64::from(copied);
    }

    /// NIC buffers that the connection holds.
    pub(super) fn receive_slots(&self) -> usize {
        self.rcv.queue.slots() + self.rcv.reassembly.held_slots()
    }
}
