//! Congestion control: how much may be in flight.
use crate::time::{Duration, Instant};

/// Which algorithm a connection uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 5681 and 6582.
    NewReno,
    /// RFC 9438.
    #[default]
    Cubic,
}

/// One acknowledgement of new bytes, as congestion control sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckSample {
    /// Now.
    pub now: Instant,
    /// Bytes newly acknowledged by the cumulative acknowledgment.
    pub acked: u32,
    /// The smoothed round-trip time; zero if none was measured.
    pub srtt: Duration,
    /// Whether the window was what held the sender back: set when data was left unsent because
    /// of it, cleared when sending stopped for lack of data. The window does not grow without.
    pub cwnd_limited: bool,
}

/// Whether a timeout is the first for the oldest unacknowledged bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// It is.
    First,
    /// They were sent again after a timeout before: ssthresh stays (RFC 5681 §3.1).
    Repeated,
}

/// The congestion control of one connection.
#[derive(Clone, Debug)]
pub enum Congestion {
    /// RFC 5681.
    NewReno(u8),
    /// RFC 9438.
    Cubic(u8),
}

impl Congestion {
    /// The initial window for this segment size (RFC 6928); never grows beyond `window_max`.
    #[must_use]
    pub fn new(_algorithm: Algorithm, _mss: u16, _window_max: u32) -> Congestion {
        unreachable!("being written")
    }
    /// Bytes that may be in flight.
    #[must_use]
    #[inline]
    pub fn window(&self) -> u32 {
        unreachable!("being written")
    }
    /// Bytes above which slow start ends.
    #[must_use]
    #[inline]
    pub fn ssthresh(&self) -> u32 {
        unreachable!("being written")
    }
    /// Whether the window is below ssthresh.
    #[must_use]
    #[inline]
    pub fn in_slow_start(&self) -> bool {
        unreachable!("being written")
    }
    /// The segment size has changed: path MTU, or the handshake's result before any data.
    pub fn set_mss(&mut self, _mss: u16) {
        unreachable!("being written")
    }
    /// The SYN was retransmitted: the initial window is one segment (RFC 5681 §3.1).
    pub fn on_syn_lost(&mut self) {
        unreachable!("being written")
    }
    /// New bytes were acknowledged outside fast recovery.
    #[inline]
    pub fn on_ack(&mut self, _ack: &AckSample) {
        unreachable!("being written")
    }
    /// Loss was detected by duplicate acknowledgements with `flight` bytes outstanding.
    pub fn on_congestion_event(&mut self, _now: Instant, _flight: u32) {
        unreachable!("being written")
    }
    /// The retransmission timer expired with `flight` bytes outstanding.
    pub fn on_retransmission_timeout(&mut self, _now: Instant, _flight: u32, _timeout: Timeout) {
        unreachable!("being written")
    }
    /// Nothing was sent for longer than the retransmission timeout: back to the restart window
    /// (RFC 5681 §4.1).
    pub fn on_idle(&mut self, _now: Instant) {
        unreachable!("being written")
    }
}
