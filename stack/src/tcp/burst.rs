//! A stream whose bytes lie in memory as they will leave: the segments that may go now, all at
//! once. What is the same in their headers is put together once; each segment then takes a copy of
//! it, its own sequence number, and its checksum from the sum that was kept of its payload.
//!
//! Does nothing that the way of single frames would not do; what is not exactly a full segment of a
//! connection on the fast path is left to that.

use super::Tcp;
use super::connection::{Connection, Context};
use super::fast_path::{EXPECTED_HEADERS_LEN, EXPECTED_OPTIONS_LEN};
use super::seq::SeqNum;
use super::template::{Fields, fold};
use super::timers::Timer;
use crate::checksum::Sum;
use crate::frame::Burst;
use crate::ip::Ip;
use crate::memory::{Memory, Piece};
use crate::time::Instant;
use crate::wire::tcp::TcpFlags;

/// Bytes of the headers.
const LEN: usize = EXPECTED_HEADERS_LEN as usize;
/// Where TCP begins in them.
const TCP: usize = 34;

/// The headers of segments of one length.
struct Headers {
    /// With sequence number 0.
    bytes: [u8; LEN],
    /// Their sum and the pseudo-header's, if the stack computes checksums.
    sum: Option<u16>,
}

impl Headers {
    /// Writes them to the front of a frame whose payload has this sum.
    #[inline(always)]
    fn write(&self, frame: &mut [u8], (seq, flags): (SeqNum, TcpFlags), payload: Option<Sum>) {
        let Some((out, behind)) = frame.split_first_chunk_mut::<LEN>() else { return };
        let seq = seq.get();
        *out = self.bytes;
        out[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
        out[TCP + 13] = flags.bits();
        let Some(sum) = self.sum else { return };
        // What was not summed while it was copied is read once more.
        let payload = payload.unwrap_or_else(|| Sum::of(behind));
        let push = flags.without(TcpFlags::ACK).bits();
        let words = [sum, payload.partial(), u16::from(push)].map(u32::from);
        let sum = words.into_iter().fold((seq >> 16) + (seq & 0xffff), |sum, word| sum + word);
        out[TCP + 16..TCP + 18].copy_from_slice(&(!fold(sum)).to_be_bytes());
    }
}

impl Connection {
    /// Full segments of new data, as many as windows and `out` have room for.
    #[inline(never)]
    fn emit_burst<M: Memory>(&mut self, ctx: &mut Context<'_, M>, out: &mut Burst) {
        let mss = u32::from(self.snd.mss);
        self.restart_after_idle(ctx.now);
        let window = self.snd.congestion.window();
        let usable = window.min(self.snd.wnd).saturating_sub(self.snd.in_flight());
        let count = (usable.min(self.snd.unsent()) / mss) as usize;
        if count == 0 {
            return;
        }
        let headers = self.burst_headers(mss, ctx);
        let first = self.snd.nxt;
        for _ in 0..count.min(out.remaining_capacity()) {
            let Some((payload, sum)) = self.snd.queue.take_segment(mss) else { break };
            let start = payload.start.wrapping_sub(EXPECTED_HEADERS_LEN);
            let frame = Piece { slot: payload.slot, start, len: EXPECTED_HEADERS_LEN + mss };
            let last = self.snd.unsent() == mss;
            let flags = if last { TcpFlags::ACK.with(TcpFlags::PSH) } else { TcpFlags::ACK };
            headers.write(ctx.mem.bytes_mut(frame), (self.snd.nxt, flags), sum);
            ctx.mem.retain(frame.slot);
            self.snd.nxt = self.snd.nxt.plus(mss);
            out.push(frame);
        }
        if self.snd.nxt != first {
            self.on_burst_sent(first, mss, ctx);
        }
    }

    /// What segments with `mss` bytes of payload have in common.
    fn burst_headers<M: Memory>(&mut self, mss: u32, ctx: &mut Context<'_, M>) -> Headers {
        let fields = Fields {
            seq: SeqNum::default(),
            ack: self.rcv.nxt,
            flags: TcpFlags::ACK.bits(),
            window: self.rcv.advertise(self.rcv.scale),
            urgent: 0,
            ts_value: self.snd.clock.value(ctx.now),
            ts_echo: self.rcv.ts_recent,
            behind: mss + EXPECTED_OPTIONS_LEN,
            capable: true,
        };
        let mut bytes = [0; LEN];
        self.snd.template.emit_expected(&mut bytes, &fields);
        if ctx.offloads.tx_checksum {
            return Headers { bytes, sum: None };
        }
        self.snd.template.complete_expected(&mut bytes, fields, Sum::ZERO);
        let sum = !u16::from_be_bytes([bytes[TCP + 16], bytes[TCP + 17]]);
        Headers { bytes, sum: Some(sum) }
    }

    /// Bookkeeping after segments from `first` on went out.
    fn on_burst_sent<M: Memory>(&mut self, first: SeqNum, mss: u32, ctx: &mut Context<'_, M>) {
        let snd = &mut self.snd;
        let len = first.distance_to(snd.nxt);
        if snd.una == first {
            snd.outstanding_since = ctx.now;
        }
        snd.rtt.on_sent(first.plus(mss), ctx.now);
        snd.last_sent = ctx.now;
        // As it was before the last one.
        let room = snd.congestion.window().saturating_sub(snd.in_flight() - mss);
        snd.cwnd_limited = room < snd.unsent() + mss;
        ctx.counters.segments_sent += u64::from(len / mss);
        ctx.counters.bytes_sent += u64::from(len);
        self.rcv.interactive = true;
        self.timers.disarm(Timer::DelayedAck);
        if !self.timers.is_armed(Timer::Retransmit) {
            self.arm(Timer::Retransmit, ctx.now + self.snd.rtt.rto().duration());
        }
    }
}

impl Tcp {
    /// Puts frames of the connection whose turn it is into `out`, if they are full segments that
    /// were laid out as such and nothing else waits: the whole frame in one piece each, with a
    /// reference, and with a partial checksum at [`super::EXPECTED_CHECKSUM`] if the device
    /// completes it. Nothing says nothing about other frames.
    #[inline(always)]
    pub(crate) fn poll_burst<M: Memory>(
        &mut self,
        now: Instant,
        ip: &Ip,
        mem: &mut M,
        out: &mut Burst,
    ) {
        let Some(index) = self.ready.front() else { return };
        let alone = self.replies.len() == 0 && self.unresolved.is_empty();
        let Some((connection, mut ctx)) = self.at(index, now, mem) else { return };
        let current = connection.snd.template.is_current(ip.neighbor_generation());
        if !alone || !connection.fast || !current || !connection.snd.lays_out() {
            return;
        }
        connection.emit_burst(&mut ctx, out);
        if !out.is_empty() {
            connection.queued = false;
            let _sent = self.ready.pop_front();
            self.settle(index);
        }
    }
}
