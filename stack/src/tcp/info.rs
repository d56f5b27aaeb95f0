//! What a connection knows about itself, in the words of Linux's `TCP_INFO`.

use super::connection::Connection;
use super::recovery::RecoveryState;
use super::sender::Sender;
use super::state::TcpState;
use super::tuple::FourTuple;
use crate::time::Duration;

/// A snapshot of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State.
    pub state: TcpState,
    /// Both ends.
    pub ends: FourTuple,
    /// Smoothed round-trip time; zero before the first measurement.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_var: Duration,
    /// Least round trip measured.
    pub min_rtt: Duration,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// Slow start threshold, bytes.
    pub ssthresh: u32,
    /// Payload of a segment towards the peer, bytes.
    pub snd_mss: u16,
    /// The peer's window, bytes.
    pub snd_wnd: u32,
    /// Bytes sent and not acknowledged.
    pub unacked: u32,
    /// Bytes written and never sent.
    pub unsent: u32,
    /// Bytes received and not read.
    pub unread: u32,
    /// Bytes that the application took without a copy and has not given back.
    pub lent: u32,
    /// The window that the peer was told, bytes.
    pub rcv_wnd: u32,
    /// Retransmissions of the oldest unacknowledged segment.
    pub retransmits: u8,
    /// In loss recovery.
    pub recovering: bool,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// SACK is in use.
    pub sack: bool,
    /// Explicit congestion notification is in use.
    pub ecn: bool,
    /// Our and the peer's window scale, if in use.
    pub window_scales: Option<(u8, u8)>,
    /// Bytes up to the urgent mark that were not yet read, if there is one (RFC 6093).
    pub urgent: Option<u32>,
}

impl Connection {
    /// A snapshot.
    pub(super) fn info(&self) -> TcpInfo {
        let snd: &Sender = &self.snd;
        TcpInfo {
            state: self.state.name(),
            ends: self.tuple,
            rtt: snd.rtt.srtt(),
            rtt_var: snd.rtt.rttvar(),
            min_rtt: snd.rtt.min_rtt().unwrap_or_default(),
            rto: snd.rtt.rto().duration(),
            cwnd: snd.congestion.window(),
            ssthresh: snd.congestion.ssthresh(),
            snd_mss: snd.mss,
            snd_wnd: snd.wnd,
            unacked: snd.in_flight(),
            unsent: snd.unsent(),
            unread: self.rcv.queue.len(),
            lent: self.rcv.lent(),
            rcv_wnd: self.rcv.window(),
            retransmits: snd.retransmissions,
            recovering: snd.recovery.state() != RecoveryState::Open,
            timestamps: self.rcv.timestamps,
            sack: self.rcv.sack,
            ecn: self.ecn.is_on(),
            window_scales: snd.scaling.then_some((self.rcv.scale, snd.scale)),
            urgent: self.urgent_offset(),
        }
    }
}
