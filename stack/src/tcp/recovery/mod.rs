//! Loss recovery: which bytes are sent next.
//!
//! Owns the states of RFC 6675 (with SACK) and RFC 6582 (without), limited transmit (RFC 3042),
//! and recovery after a timeout. Tells congestion control what happened, and never sets a window
//! itself; never measures time, never sees a payload. Both kinds of peer share one account of what
//! is in the network: what is outstanding, less what is reported, lost or (without SACK)
//! inferred from duplicate acknowledgements to have arrived, plus what was sent again. Inflating
//! the window, as RFC 6582 words it, is the same as taking that much from the pipe.
//!
//! Invariant: `clean` is true exactly if there is nothing to remember, so that an acknowledgement
//! of new bytes concerns congestion control only.

mod scoreboard;
#[cfg(test)]
mod tests;

use crate::tcp::congestion::{AckSample, Congestion, Timeout};
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::tcp::SackBlock;

pub use scoreboard::RANGES_MAX;
use scoreboard::{DUP_THRESH, Honesty, Scoreboard};

/// Where recovery stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryState {
    /// No loss known.
    Open,
    /// Fast recovery, until `point` is acknowledged.
    FastRecovery {
        /// SND.NXT when the loss was found.
        point: SeqNum,
    },
    /// Recovery from a timeout, until `point` is acknowledged.
    Loss {
        /// SND.NXT when the timer expired.
        point: SeqNum,
    },
}

/// An acceptable acknowledgement (SND.UNA =< SEG.ACK =< SND.NXT).
#[derive(Clone, Copy, Debug)]
pub struct AckInfo<'a> {
    /// Now.
    pub now: Instant,
    /// SND.UNA before this acknowledgement.
    pub snd_una: SeqNum,
    /// SND.NXT.
    pub snd_nxt: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// The segment's SACK blocks.
    pub sack: &'a [SackBlock],
    /// Whether it is a duplicate acknowledgement as RFC 5681 §2 defines it. Used without SACK
    /// only: with it, one that reports new bytes is (RFC 6675 §2).
    pub is_duplicate: bool,
    /// The sender's segment size, options taken off.
    pub mss: u32,
    /// The smoothed round-trip time.
    pub srtt: Duration,
    /// See [`AckSample::cwnd_limited`].
    pub cwnd_limited: bool,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecoveryEvent {
    /// Nothing that the sender must know.
    #[default]
    None,
    /// Fast recovery began: ask `poll_send` now, the first lost segment goes out whatever the
    /// window.
    Entered,
    /// Part of what was outstanding at the loss is acknowledged; recovery goes on.
    PartialAck,
    /// All that was outstanding at the loss is acknowledged.
    Exited,
}

/// The outcome of an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct AckOutcome {
    /// What changed.
    pub event: RecoveryEvent,
    /// Bytes newly reported by SACK.
    pub newly_sacked: u32,
    /// SACK blocks ignored, as they lie outside what is in flight or the scoreboard is full.
    pub blocks_ignored: u8,
    /// Whether the peer was found to have dropped bytes that it had reported.
    pub reneged: bool,
}

/// What the sender can send, asked by [`Recovery::poll_send`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendRequest {
    /// SND.UNA.
    pub snd_una: SeqNum,
    /// SND.NXT.
    pub snd_nxt: SeqNum,
    /// The sender's segment size, options taken off.
    pub mss: u32,
    /// Bytes queued and not yet sent that the peer's window allows.
    pub unsent: u32,
    /// The congestion window.
    pub window: u32,
}

/// Why bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendKind {
    /// For the first time.
    New,
    /// Again.
    Retransmission,
    /// Again, the last segment in flight, to provoke an acknowledgement (RFC 6675 §4 NextSeg
    /// rule 4).
    Rescue,
}

/// Leave to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendGrant {
    /// First byte.
    pub from: SeqNum,
    /// Most bytes, never 0.
    pub limit: u32,
    /// Why.
    pub kind: SendKind,
}

/// The loss recovery of one connection.
#[derive(Clone, Debug)]
pub struct Recovery {
    state: RecoveryState,
    board: Scoreboard,
    /// Duplicate acknowledgements in a row.
    dup_acks: u32,
    /// Bytes that left the network as far as duplicate acknowledgements without SACK tell.
    inflation: u32,
    /// Bytes reported or lost, which are not in the network.
    discount: u32,
    /// Bytes sent again and not reported, which are in the network once more.
    retransmitted: u32,
    /// Bytes sent by limited transmit, which the decrease leaves out (RFC 5681 §3.2 step 2).
    limited: u32,
    /// HighRxt: the end of what was retransmitted in this recovery.
    high_rxt: SeqNum,
    /// RescueRxt (RFC 6675 §4).
    rescue: SeqNum,
    /// The end of what is known to be lost.
    lost_before: SeqNum,
    /// `recover` of RFC 6582: duplicate acknowledgements at this number may be echoes of our own
    /// retransmissions.
    recover: Option<SeqNum>,
    sack: bool,
    /// The segment at SND.UNA goes out next, whatever the window.
    forced: bool,
    clean: bool,
}

impl Recovery {
    /// `sack`: whether SACK was negotiated.
    #[must_use]
    pub fn new(sack: bool) -> Recovery {
        Recovery {
            state: RecoveryState::Open,
            board: Scoreboard::new(),
            dup_acks: 0,
            inflation: 0,
            discount: 0,
            retransmitted: 0,
            limited: 0,
            high_rxt: SeqNum::new(0),
            rescue: SeqNum::new(0),
            lost_before: SeqNum::new(0),
            recover: None,
            sack,
            forced: false,
            clean: true,
        }
    }

    /// Where recovery stands.
    #[must_use]
    #[inline]
    pub fn state(&self) -> RecoveryState {
        self.state
    }

    /// Whether an acknowledgement of new bytes without SACK blocks needs only
    /// [`Congestion::on_ack`].
    #[must_use]
    #[inline]
    pub fn is_open_and_clean(&self) -> bool {
        self.clean
    }

    /// Bytes thought to be in the network (SetPipe of RFC 6675 §4).
    #[must_use]
    #[inline]
    pub fn pipe(&self, snd_una: SeqNum, snd_nxt: SeqNum) -> u32 {
        let gone = self.discount.saturating_add(self.inflation);
        snd_una.distance_to(snd_nxt).saturating_sub(gone).saturating_add(self.retransmitted)
    }

    /// Bytes that the peer reported by SACK and has not acknowledged.
    #[must_use]
    pub fn sacked(&self) -> u32 {
        self.board.bytes()
    }

    /// Takes in an acknowledgement, and tells `congestion`.
    pub fn on_ack(&mut self, ack: &AckInfo<'_>, congestion: &mut Congestion) -> AckOutcome {
        let acked = ack.snd_una.distance_to(ack.ack);
        let mut outcome = AckOutcome::default();
        if self.sack {
            self.update_board(ack, acked, &mut outcome);
        }
        if acked > 0 {
            self.on_advance(ack.ack);
        }
        let duplicate =
            acked == 0 && if self.sack { outcome.newly_sacked > 0 } else { ack.is_duplicate };
        outcome.event = match self.state {
            RecoveryState::Open => {
                self.grow(ack, acked, congestion);
                self.on_ack_open(ack, duplicate)
            }
            RecoveryState::FastRecovery { point } if ack.ack.at_or_after(point) => {
                self.exit(ack, congestion)
            }
            RecoveryState::FastRecovery { .. } => self.on_ack_recovering(ack, acked, duplicate),
            RecoveryState::Loss { point } => {
                self.grow(ack, acked, congestion);
                if ack.ack.at_or_after(point) {
                    self.exit(ack, congestion)
                } else if acked > 0 {
                    RecoveryEvent::PartialAck
                } else {
                    RecoveryEvent::None
                }
            }
        };
        if self.must_enter(ack) {
            self.enter(ack, congestion);
            outcome.event = RecoveryEvent::Entered;
        }
        self.account(ack.ack, ack.mss);
        outcome
    }

    fn update_board(&mut self, ack: &AckInfo<'_>, acked: u32, outcome: &mut AckOutcome) {
        if acked > 0 && self.board.on_advance(ack.ack) == Honesty::Reneged {
            // What was retransmitted below is acknowledged; above it, everything is open again.
            outcome.reneged = true;
            self.high_rxt = ack.ack;
        }
        let update = self.board.update(ack.ack, ack.snd_nxt, ack.sack);
        outcome.newly_sacked = update.newly_sacked;
        outcome.blocks_ignored = update.ignored;
    }

    fn on_advance(&mut self, snd_una: SeqNum) {
        self.dup_acks = 0;
        self.limited = 0;
        self.forced = false;
        self.high_rxt = self.high_rxt.max(snd_una);
        if self.recover.is_some_and(|recover| snd_una.after(recover)) {
            self.recover = None;
        }
    }

    /// Outside fast recovery the window grows by what is acknowledged; after a timeout it is
    /// always the window that holds the sender back.
    fn grow(&self, ack: &AckInfo<'_>, acked: u32, congestion: &mut Congestion) {
        if acked > 0 {
            let cwnd_limited = ack.cwnd_limited || self.state != RecoveryState::Open;
            congestion.on_ack(&AckSample { now: ack.now, acked, srtt: ack.srtt, cwnd_limited });
        }
    }

    fn on_ack_open(&mut self, ack: &AckInfo<'_>, duplicate: bool) -> RecoveryEvent {
        if duplicate {
            self.dup_acks = self.dup_acks.saturating_add(1);
        }
        // RFC 3042: two segments beyond the window. With SACK what is reported makes the room.
        self.inflation =
            if self.sack { 0 } else { self.dup_acks.min(DUP_THRESH - 1).saturating_mul(ack.mss) };
        RecoveryEvent::None
    }

    /// RFC 6675 §5 step (B), RFC 6582 §3.2 steps 2 and 3.
    fn on_ack_recovering(
        &mut self,
        ack: &AckInfo<'_>,
        acked: u32,
        duplicate: bool,
    ) -> RecoveryEvent {
        if !self.sack {
            let flight = ack.ack.distance_to(ack.snd_nxt);
            if acked > 0 {
                // Deflate by what is acknowledged, add back one segment, resend the next hole.
                let back = if acked >= ack.mss { ack.mss } else { 0 };
                self.inflation = self.inflation.saturating_sub(acked).saturating_add(back);
                self.forced = true;
            } else if duplicate {
                self.inflation = self.inflation.saturating_add(ack.mss);
            }
            self.inflation = self.inflation.min(flight);
        }
        if acked > 0 { RecoveryEvent::PartialAck } else { RecoveryEvent::None }
    }

    fn exit(&mut self, ack: &AckInfo<'_>, congestion: &mut Congestion) -> RecoveryEvent {
        if let RecoveryState::FastRecovery { point } | RecoveryState::Loss { point } = self.state
            && !self.sack
        {
            congestion.on_recovery_exit(ack.ack.distance_to(ack.snd_nxt));
            self.recover = (!ack.ack.after(point)).then_some(point);
        }
        self.state = RecoveryState::Open;
        self.inflation = 0;
        self.forced = false;
        RecoveryEvent::Exited
    }

    /// RFC 6675 §5 steps (1) and (2), RFC 6582 §3.2 step 1.
    fn must_enter(&self, ack: &AckInfo<'_>) -> bool {
        if self.state != RecoveryState::Open || ack.ack == ack.snd_nxt {
            return false;
        }
        if self.sack {
            let lost = self.board.lost_before(ack.mss);
            return (self.dup_acks >= DUP_THRESH && !self.board.is_empty())
                || lost.is_some_and(|end| end.after(ack.ack));
        }
        self.dup_acks >= DUP_THRESH && self.recover.is_none()
    }

    /// RFC 6675 §5 step (4).
    fn enter(&mut self, ack: &AckInfo<'_>, congestion: &mut Congestion) {
        let flight = ack.ack.distance_to(ack.snd_nxt).saturating_sub(self.limited);
        congestion.on_congestion_event(flight);
        self.state = RecoveryState::FastRecovery { point: ack.snd_nxt };
        self.high_rxt = ack.ack;
        self.rescue = ack.ack;
        self.forced = true;
        self.limited = 0;
        self.inflation = if self.sack { 0 } else { DUP_THRESH * ack.mss };
    }

    /// The retransmission timer expired; tells `congestion`. Everything outstanding that was not
    /// reported counts as lost, and `poll_send` begins at SND.UNA. SACK information is kept (see
    /// RFC 6675 §5.1), until a second timeout in a row casts doubt on it (RFC 2018 §8).
    pub fn on_timeout(&mut self, snd_una: SeqNum, snd_nxt: SeqNum, congestion: &mut Congestion) {
        let flight = snd_una.distance_to(snd_nxt).saturating_sub(self.limited);
        let repeated = matches!(self.state, RecoveryState::Loss { .. }) && self.rescue == snd_una;
        if repeated {
            self.board.clear();
        }
        let timeout = if repeated { Timeout::Repeated } else { Timeout::First };
        congestion.on_retransmission_timeout(flight, timeout);
        self.state = RecoveryState::Loss { point: snd_nxt };
        self.high_rxt = snd_una;
        // Outside fast recovery there is no rescue; it remembers where the timeout was.
        self.rescue = snd_una;
        self.dup_acks = 0;
        self.inflation = 0;
        self.limited = 0;
        self.forced = true;
        self.account(snd_una, 0);
    }

    /// Brings the account of the network up to date, after anything but sending.
    fn account(&mut self, snd_una: SeqNum, mss: u32) {
        self.lost_before = match self.state {
            RecoveryState::Open => snd_una,
            RecoveryState::FastRecovery { .. } => {
                self.board.lost_before(mss).map_or(snd_una, |end| end.max(snd_una))
            }
            RecoveryState::Loss { point } => point,
        };
        self.discount = self.board.bytes() + self.board.missing(snd_una, self.lost_before);
        self.retransmitted = match self.state {
            RecoveryState::Open => 0,
            RecoveryState::FastRecovery { .. } | RecoveryState::Loss { .. } => {
                self.board.missing(snd_una, self.high_rxt)
            }
        };
        self.clean = self.state == RecoveryState::Open
            && self.board.is_empty()
            && self.dup_acks == 0
            && self.recover.is_none();
    }

    /// What to send next, as far as the congestion window allows anything.
    #[must_use]
    #[inline]
    pub fn poll_send(&self, request: &SendRequest) -> Option<SendGrant> {
        if !self.clean {
            return self.poll_send_unclean(request);
        }
        let room = request.window.saturating_sub(request.snd_una.distance_to(request.snd_nxt));
        new_data(request, room)
    }

    fn poll_send_unclean(&self, request: &SendRequest) -> Option<SendGrant> {
        let SendRequest { snd_una, snd_nxt, mss, unsent, window } = *request;
        if self.forced {
            return again(self.board.gap(snd_una, snd_nxt)?, mss, SendKind::Retransmission);
        }
        let room = window.saturating_sub(self.pipe(snd_una, snd_nxt));
        if self.state == RecoveryState::Open {
            return new_data(request, room);
        }
        // RFC 6675 §5 step (C): room for a whole segment, or nothing.
        if room < mss || mss == 0 {
            return None;
        }
        let room = room - room % mss;
        // NextSeg of RFC 6675 §4, rules 1 to 4.
        let next = self.high_rxt.max(snd_una);
        if let Some(gap) = self.board.gap(next, self.lost_before.min(snd_nxt)) {
            return again(gap, room, SendKind::Retransmission);
        }
        if unsent > 0 {
            return new_data(request, room);
        }
        let RecoveryState::FastRecovery { .. } = self.state else { return None };
        if !self.sack {
            return None;
        }
        let highest = self.board.highest();
        if let Some(gap) = highest.and_then(|it| self.board.gap(next, it.start)) {
            return again(gap, mss, SendKind::Retransmission);
        }
        if !snd_una.after(self.rescue) {
            return None;
        }
        // The highest outstanding unreported byte is in the last gap, or there is none.
        let tail = highest.map_or(snd_una, |it| it.end.max(snd_una));
        let tail = self.board.gap(tail, snd_nxt)?;
        let len = tail.start.distance_to(tail.end).min(mss);
        Some(SendGrant { from: tail.end.minus(len), limit: len, kind: SendKind::Rescue })
    }

    /// `len` bytes from `from` were handed to the device, as granted.
    #[inline]
    pub fn on_sent(&mut self, from: SeqNum, len: u32, kind: SendKind) {
        if !self.clean {
            self.on_sent_unclean(from, len, kind);
        }
    }

    fn on_sent_unclean(&mut self, from: SeqNum, len: u32, kind: SendKind) {
        let end = from.plus(len);
        match (kind, self.state) {
            (SendKind::New, RecoveryState::Open) if self.dup_acks > 0 => {
                self.limited = self.limited.saturating_add(len);
            }
            (SendKind::New, _) | (SendKind::Retransmission, RecoveryState::Open) => {}
            (SendKind::Retransmission, RecoveryState::FastRecovery { .. }) if !self.sack => {
                // The lost segment itself still counts as in flight (RFC 6582).
                self.forced = false;
            }
            (SendKind::Retransmission, state) => {
                if self.forced && matches!(state, RecoveryState::FastRecovery { .. }) {
                    // RFC 6675 §5 step (4.3).
                    self.rescue = end;
                }
                self.forced = false;
                self.high_rxt = self.high_rxt.max(end);
                self.retransmitted = self.retransmitted.saturating_add(len);
            }
            (SendKind::Rescue, RecoveryState::FastRecovery { point }) => {
                self.rescue = point;
                self.retransmitted = self.retransmitted.saturating_add(len);
            }
            (SendKind::Rescue, _) => {}
        }
    }
}

#[inline]
fn new_data(request: &SendRequest, room: u32) -> Option<SendGrant> {
    let limit = room.min(request.unsent);
    (limit > 0).then_some(SendGrant { from: request.snd_nxt, limit, kind: SendKind::New })
}

/// The first `room` bytes of a gap.
fn again(gap: SackBlock, room: u32, kind: SendKind) -> Option<SendGrant> {
    let limit = gap.start.distance_to(gap.end).min(room);
    (limit > 0).then_some(SendGrant { from: gap.start, limit, kind })
}
