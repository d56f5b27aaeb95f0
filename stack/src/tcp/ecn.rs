//! Explicit congestion notification (RFC 3168): what a connection agreed to, and what it owes.
//!
//! Owns the state of both halves: the receiver's echo and the sender's "window reduced". Decides
//! flags; congestion control reacts elsewhere, through its own interface. Invariants: without an
//! agreement nothing is marked, echoed or believed; one reduction a window of data.

use super::connection::{Connection, Context};
use super::segment::Segment;
use super::seq::SeqNum;
use crate::memory::Memory;
use crate::wire::tcp::TcpFlags;

/// The codepoint "congestion experienced" of the ECN field (RFC 3168 §5); the field is two bits.
const CE: u8 = 3;
/// ECN-capable transport, ECT(0): what a sender marks its data with.
pub(super) const ECT0: u8 = 2;
const BOTH: TcpFlags = TcpFlags::ECE.with(TcpFlags::CWR);

/// Whether connections use ECN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EcnMode {
    /// Never.
    Off,
    /// If the peer asks for it.
    #[default]
    Accept,
    /// Asked for on every SYN, too.
    On,
}

/// The state of a connection, in few bytes: every connection has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ecn {
    /// Of the constants below.
    bits: u8,
    /// Behind what was in flight at the last reduction, if there was one: what acknowledges less
    /// tells nothing new. Bytes, so that the whole needs no alignment.
    reduced: [u8; 4],
}

impl Ecn {
    /// Both ends agreed.
    const ON: u8 = 1;
    /// Our SYN asked for it.
    const ASKED: u8 = 2;
    /// ECE goes out with every acknowledgement until CWR comes (RFC 3168 §6.1.3).
    const ECHO: u8 = 4;
    /// CWR is due with the next new data (RFC 3168 §6.1.2).
    const CWR_DUE: u8 = 8;
    /// The window was reduced before.
    const REDUCED: u8 = 16;
    /// The device cuts a frame that bears CWR as RFC 3168 has it.
    const CUTS_CWR: u8 = 32;

    #[inline]
    fn has(self, bits: u8) -> bool {
        self.bits & bits != 0
    }

    fn set(&mut self, bits: u8, on: bool) {
        self.bits = if on { self.bits | bits } else { self.bits & !bits };
    }

    fn reduced(self) -> SeqNum {
        SeqNum::new(u32::from_ne_bytes(self.reduced))
    }

    /// Whether both ends agreed.
    #[inline]
    pub(super) fn is_on(self) -> bool {
        self.has(Self::ON)
    }

    /// Whether the next segments say something of it in their flags.
    #[inline]
    pub(super) fn is_busy(self) -> bool {
        self.has(Self::ECHO | Self::CWR_DUE)
    }

    /// Whether the device cuts frames that bear CWR.
    pub(super) fn set_device(&mut self, cuts_cwr: bool) {
        self.set(Self::CUTS_CWR, cuts_cwr);
    }

    /// Whether the next segment with new data bears CWR and must be one that nobody cuts.
    #[inline]
    pub(super) fn wants_lone_segment(self) -> bool {
        self.bits & (Self::CWR_DUE | Self::CUTS_CWR) == Self::CWR_DUE
    }

    /// Flags of our SYN, or SYN and ACK (RFC 3168 §6.1.1). A SYN that was lost goes again without,
    /// for its loss may have been an answer (§6.1.1.1); what the first one asked for stands.
    pub(super) fn syn_flags(&mut self, mode: EcnMode, answers: bool, again: bool) -> TcpFlags {
        match (answers, mode) {
            (true, _) if self.is_on() => TcpFlags::ECE,
            (false, EcnMode::On) if !again => {
                self.set(Self::ASKED, true);
                BOTH
            }
            _ => TcpFlags::NONE,
        }
    }

    /// The peer's SYN, or SYN and ACK.
    pub(super) fn on_peer_syn(&mut self, flags: TcpFlags, mode: EcnMode) {
        let (ece, cwr) = (flags.intersects(TcpFlags::ECE), flags.intersects(TcpFlags::CWR));
        let agreed = if flags.intersects(TcpFlags::ACK) {
            self.has(Self::ASKED) && ece && !cwr
        } else {
            mode != EcnMode::Off && ece && cwr
        };
        self.set(Self::ON, agreed);
    }

    /// A segment of the peer that may be believed (RFC 3168 §6.1.3): CWR ends the echo, a mark on
    /// data begins it anew. Says whether it just began.
    pub(super) fn on_segment(&mut self, flags: TcpFlags, tos: u8, has_data: bool) -> bool {
        if !self.is_on() || !has_data {
            return false;
        }
        let before = self.has(Self::ECHO);
        let goes_on = before && !flags.intersects(TcpFlags::CWR);
        self.set(Self::ECHO, goes_on || tos & CE == CE);
        self.has(Self::ECHO) && !before
    }

    /// Whether an acknowledgement of `ack` tells of congestion that was not yet reacted to.
    fn is_news(self, ack: SeqNum) -> bool {
        self.is_on() && (!self.has(Self::REDUCED) || ack.after(self.reduced()))
    }

    /// The window was reduced, for whatever reason, with data up to `nxt` in flight.
    pub(super) fn on_reduced(&mut self, nxt: SeqNum) {
        if self.is_on() {
            self.set(Self::CWR_DUE | Self::REDUCED, true);
            self.reduced = nxt.get().to_ne_bytes();
        }
    }

    /// Flags of a segment that goes out; `new_data` takes CWR along.
    #[inline]
    pub(super) fn flags(&mut self, new_data: bool) -> TcpFlags {
        let mut flags = if self.has(Self::ECHO) { TcpFlags::ECE } else { TcpFlags::NONE };
        if self.has(Self::CWR_DUE) && new_data {
            self.set(Self::CWR_DUE, false);
            flags = flags.with(TcpFlags::CWR);
        }
        flags
    }

    /// The type of service that the peer's next packet is expected to have, after this one: marks
    /// are never expected, so that each is seen.
    pub(super) fn expected_tos(self, tos: u8) -> u8 {
        if self.is_on() && tos & CE == CE { tos & !CE | ECT0 } else { tos }
    }
}

impl Connection {
    /// What an acceptable segment says of congestion on the peer's path to us.
    pub(super) fn on_congestion_mark<M: Memory>(
        &mut self,
        segment: &Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) {
        let has_data = segment.payload.len() > 0;
        if self.ecn.is_on() && has_data && segment.tos & CE == CE {
            ctx.counters.ecn_marked += 1;
        }
        if self.ecn.on_segment(segment.header.flags, segment.tos, has_data) {
            self.rcv.ack = super::receiver::AckDue::Now;
        }
    }

    /// Whether the peer says that a packet of ours met congestion.
    pub(super) fn is_congestion_echo(&self, segment: &Segment<'_>) -> bool {
        let flags = segment.header.flags;
        self.ecn.is_on() && flags.intersects(TcpFlags::ECE) && !flags.intersects(TcpFlags::SYN)
    }

    /// ECE of the peer: one reduction a window of data (RFC 3168 §6.1.2).
    pub(super) fn on_congestion_echo<M: Memory>(
        &mut self,
        segment: &Segment<'_>,
        ctx: &mut Context<'_, M>,
    ) {
        let flight = self.snd.in_flight();
        let is_news = self.is_congestion_echo(segment) && self.ecn.is_news(segment.header.ack);
        if is_news && flight > 0 {
            ctx.counters.ecn_reductions += 1;
            self.snd.congestion.on_congestion_event(flight);
            self.ecn.on_reduced(self.snd.nxt);
        }
    }
}
