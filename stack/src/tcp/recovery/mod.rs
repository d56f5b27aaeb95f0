//! Loss recovery: which bytes go next.
use crate::tcp::congestion::Congestion;
use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::tcp::SackBlock;

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
    /// Whether it is a duplicate acknowledgement as RFC 5681 §2 defines it.
    pub is_duplicate: bool,
    /// The sender's segment size, options taken off.
    pub mss: u32,
    /// The smoothed round-trip time.
    pub srtt: Duration,
    /// See [`crate::tcp::congestion::AckSample::cwnd_limited`].
    pub cwnd_limited: bool,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecoveryEvent {
    /// Nothing that the sender must know.
    #[default]
    None,
    /// Fast recovery began: call `poll_send` now, the first lost segment goes out whatever the
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
    /// Again, the last segment in flight, to provoke an acknowledgement (RFC 6675 §4 rule 4).
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
}

impl Recovery {
    /// `sack`: whether SACK was negotiated.
    #[must_use]
    pub fn new(_sack: bool) -> Recovery {
        Recovery { state: RecoveryState::Open }
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
        unreachable!("being written")
    }
    /// Takes in an acknowledgement; calls `congestion`.
    pub fn on_ack(&mut self, _ack: &AckInfo<'_>, _congestion: &mut Congestion) -> AckOutcome {
        unreachable!("being written")
    }
    /// The retransmission timer expired; calls `congestion`. Then `poll_send` starts from SND.UNA.
    pub fn on_timeout(
        &mut self,
        _now: Instant,
        _snd_una: SeqNum,
        _snd_nxt: SeqNum,
        _congestion: &mut Congestion,
    ) {
        unreachable!("being written")
    }
    /// What to send next, if the congestion window allows anything.
    #[must_use]
    #[inline]
    pub fn poll_send(&self, _request: &SendRequest) -> Option<SendGrant> {
        unreachable!("being written")
    }
    /// `len` bytes from `from` were handed to the device.
    #[inline]
    pub fn on_sent(&mut self, _from: SeqNum, _len: u32, _kind: SendKind) {
        unreachable!("being written")
    }
    /// Bytes thought to be in the network.
    #[must_use]
    #[inline]
    pub fn pipe(&self, _snd_una: SeqNum, _snd_nxt: SeqNum) -> u32 {
        unreachable!("being written")
    }
}
