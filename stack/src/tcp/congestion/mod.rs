//! Congestion control: how many bytes may be in flight (RFC 5681).
//!
//! Owns the congestion window and ssthresh, behind one interface for all algorithms. Never decides
//! which bytes are sent or whether one was lost (that is `tcp::recovery`), never reads a clock,
//! never allocates. Invariants: one segment <= window <= the bound given at construction, and the
//! window grows only by acknowledged bytes and only while it is what holds the sender back.

mod cubic;
mod new_reno;
#[cfg(test)]
mod tests;

use crate::time::{Duration, Instant};

pub use cubic::Cubic;
pub use new_reno::NewReno;

/// Which algorithm a connection uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 5681.
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
    /// of it, cleared when sending stopped for lack of data. The window does not grow without
    /// (the spirit of RFC 7661).
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
    NewReno(NewReno),
    /// RFC 9438.
    Cubic(Cubic),
}

impl Congestion {
    /// Starts with the initial window for this segment size (RFC 6928); never grows beyond
    /// `window_max`.
    #[must_use]
    pub fn new(algorithm: Algorithm, mss: u16, window_max: u32) -> Congestion {
        let window = Window::new(mss, window_max);
        match algorithm {
            Algorithm::NewReno => Congestion::NewReno(NewReno::new(window)),
            Algorithm::Cubic => Congestion::Cubic(Cubic::new(window)),
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    #[inline]
    pub fn window(&self) -> u32 {
        self.common().cwnd
    }

    /// Bytes above which slow start ends; `u32::MAX` before the first loss.
    #[must_use]
    #[inline]
    pub fn ssthresh(&self) -> u32 {
        self.common().ssthresh
    }

    /// Whether the window is below ssthresh.
    #[must_use]
    #[inline]
    pub fn in_slow_start(&self) -> bool {
        self.common().in_slow_start()
    }

    /// The segment size has changed. A window that is still the initial one becomes the initial
    /// one of the new size.
    pub fn set_mss(&mut self, mss: u16) {
        self.common_mut().set_mss(mss);
    }

    /// The SYN was retransmitted: the initial window is one segment (RFC 5681 §3.1).
    pub fn on_syn_lost(&mut self) {
        let window = self.common_mut();
        window.cwnd = window.mss;
    }

    /// New bytes were acknowledged outside fast recovery.
    #[inline]
    pub fn on_ack(&mut self, ack: &AckSample) {
        match self {
            Congestion::NewReno(it) => it.on_ack(ack),
            Congestion::Cubic(it) => it.on_ack(ack),
        }
    }

    /// Loss was found by duplicate acknowledgements with `flight` bytes outstanding. The window
    /// becomes ssthresh.
    pub fn on_congestion_event(&mut self, flight: u32) {
        match self {
            Congestion::NewReno(it) => it.on_congestion_event(flight),
            Congestion::Cubic(it) => it.on_congestion_event(flight),
        }
    }

    /// The retransmission timer expired with `flight` bytes outstanding. The window becomes one
    /// segment.
    pub fn on_retransmission_timeout(&mut self, flight: u32, timeout: Timeout) {
        match self {
            Congestion::NewReno(it) => it.on_retransmission_timeout(flight, timeout),
            Congestion::Cubic(it) => it.on_retransmission_timeout(flight, timeout),
        }
    }

    /// Fast recovery without SACK is over with `flight` bytes outstanding: no burst from a window
    /// much larger than that (RFC 6582 §3.2 step 3, option 1).
    pub fn on_recovery_exit(&mut self, flight: u32) {
        let window = self.common_mut();
        let at_most = flight.max(window.mss).saturating_add(window.mss);
        window.cwnd = window.cwnd.min(at_most).max(window.mss);
    }

    /// Nothing was sent for longer than the retransmission timeout: back to the restart window,
    /// with the old ssthresh (RFC 5681 §4.1).
    pub fn on_idle(&mut self) {
        let window = self.common_mut();
        window.cwnd = window.cwnd.min(initial_window(window.mss)).min(window.max);
        if let Congestion::Cubic(it) = self {
            it.end_epoch();
        }
    }

    #[inline]
    fn common(&self) -> &Window {
        match self {
            Congestion::NewReno(it) => &it.window,
            Congestion::Cubic(it) => &it.window,
        }
    }

    #[inline]
    fn common_mut(&mut self) -> &mut Window {
        match self {
            Congestion::NewReno(it) => &mut it.window,
            Congestion::Cubic(it) => &mut it.window,
        }
    }
}

/// RFC 6928 §2: min(10 MSS, max(2 MSS, 14600)).
#[must_use]
pub const fn initial_window(mss: u32) -> u32 {
    let ten = mss.saturating_mul(10);
    let two = mss.saturating_mul(2);
    let floor = if two > 14_600 { two } else { 14_600 };
    if ten < floor { ten } else { floor }
}

/// Segments by which one acknowledgement may widen the window in slow start. RFC 3465 §2.2 counts
/// bytes, so that an acknowledgement split into many gains nothing; the bound is for bursts, and
/// RFC 9406 §4.2 sets it to 8 for senders that do not pace: receivers that coalesce acknowledge
/// up to 64 KiB at once.
const SLOW_START_SEGMENTS_MAX: u32 = 8;

/// The least segment size that is reckoned with; smaller ones are counted as this.
const MSS_MIN: u16 = 48;

/// What all algorithms have in common. All numbers are bytes.
#[derive(Clone, Debug)]
struct Window {
    cwnd: u32,
    ssthresh: u32,
    mss: u32,
    max: u32,
    /// Slow start after a timeout, where an acknowledgement may cover bytes that were received
    /// long ago: it counts for one segment at most (RFC 3465 §2.3).
    after_timeout: bool,
}

impl Window {
    fn new(mss: u16, max: u32) -> Window {
        let mss = u32::from(mss.max(MSS_MIN));
        let max = max.max(2 * mss);
        Window {
            cwnd: initial_window(mss).min(max),
            ssthresh: u32::MAX,
            mss,
            max,
            after_timeout: false,
        }
    }

    fn set_mss(&mut self, mss: u16) {
        let mss = u32::from(mss.max(MSS_MIN));
        let untouched = self.cwnd == initial_window(self.mss).min(self.max);
        self.mss = mss;
        self.max = self.max.max(2 * mss);
        if untouched && self.ssthresh == u32::MAX {
            self.cwnd = initial_window(mss).min(self.max);
        }
        self.cwnd = self.cwnd.max(mss);
    }

    #[inline]
    fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Slow start (RFC 5681 §3.1 with RFC 3465): up to ssthresh, and not past it. Returns the
    /// acknowledged bytes that are left for congestion avoidance.
    #[inline]
    fn slow_start(&mut self, acked: u32) -> u32 {
        if !self.in_slow_start() {
            return acked;
        }
        let segments = if self.after_timeout { 1 } else { SLOW_START_SEGMENTS_MAX };
        let counted = acked.min(self.mss.saturating_mul(segments));
        let step = counted.min(self.ssthresh - self.cwnd);
        self.grow(step);
        if self.in_slow_start() { 0 } else { counted - step }
    }

    #[inline]
    fn grow(&mut self, bytes: u32) {
        self.cwnd = self.cwnd.saturating_add(bytes).min(self.max);
    }

    /// Whether congestion avoidance can change anything.
    #[inline]
    fn is_full(&self) -> bool {
        self.cwnd >= self.max
    }

    /// Multiplicative decrease to `ssthresh`, at least two segments (RFC 5681 §3.1 (4)).
    fn reduce(&mut self, ssthresh: u32) {
        self.ssthresh = ssthresh.max(2 * self.mss);
        self.cwnd = self.ssthresh.min(self.max);
        self.after_timeout = false;
    }

    /// The same after a timeout: one segment (RFC 5681 §3.1 (5)).
    fn collapse(&mut self, ssthresh: u32, timeout: Timeout) {
        match timeout {
            Timeout::First => self.reduce(ssthresh),
            Timeout::Repeated => {}
        }
        self.cwnd = self.mss;
        self.after_timeout = true;
    }
}
