//! Round-trip time and retransmission timeout (RFC 6298), and the clock of timestamps (RFC 7323).
//!
//! Owns the estimate, the timeout with its backoff, and one timed range of bytes, by which a
//! round trip is measured to the nanosecond. Timestamps tick only each 1.05 ms, so they serve where
//! that measurement is spoilt by a retransmission (Karn's algorithm). Never arms a timer.

use core::hint::cold_path;

use crate::tcp::seq::SeqNum;
use crate::time::{Duration, Instant};

/// A retransmission timeout: between a connection's least and [`Rto::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rto(Duration);

impl Rto {
    /// The least timeout by default. RFC 6298 §2.4 asks for 1 s; Linux, FreeBSD and Windows use
    /// 200 to 300 ms, which still exceeds every usual delayed-ACK timer, and recover five times
    /// sooner from a lost tail.
    pub const MIN: Rto = Rto(Duration::from_millis(200));
    /// The greatest timeout, the least that RFC 6298 §2.5 allows as a bound.
    pub const MAX: Rto = Rto(Duration::from_secs(60));
    /// Before any measurement (RFC 6298 §2.1).
    pub const INITIAL: Rto = Rto(Duration::from_secs(1));
    /// For data after a handshake whose SYN was retransmitted (RFC 6298 §5.7).
    pub const AFTER_SYN_LOSS: Rto = Rto(Duration::from_secs(3));

    /// The timeout nearest to `wanted` between `least` and [`Rto::MAX`].
    #[must_use]
    #[inline]
    pub fn clamped(wanted: Duration, least: Rto) -> Rto {
        Rto(wanted.clamp(least.0.min(Rto::MAX.0), Rto::MAX.0))
    }

    /// Its length.
    #[must_use]
    #[inline]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// The granularity of timers, G of RFC 6298: a tick of the timer wheel.
const GRANULARITY_NS: u64 = 1 << 20;
/// A round trip that took longer counts as this long: an hour is beyond every timeout.
const RTT_MAX: Duration = Duration::from_secs(3_600);
/// Doublings after which [`Rto::MAX`] is reached from any timeout.
const BACKOFF_MAX: u8 = 12;

/// The estimator of one connection.
#[derive(Clone, Debug)]
pub struct Rtt {
    /// SRTT times 8 and RTTVAR times 4, so that a sample is taken in by shifts and sums.
    srtt8_ns: u64,
    rttvar4_ns: u64,
    min_ns: u64,
    rto: Rto,
    /// At most [`Rto::MAX`].
    least: Rto,
    timed_at: Instant,
    timed_end: SeqNum,
    backoff: u8,
    syn_lost: bool,
}

impl Rtt {
    /// An estimator without measurements, with [`Rto::MIN`] as the least timeout.
    #[must_use]
    pub fn new() -> Rtt {
        Rtt::with_least(Rto::MIN)
    }

    /// An estimator without measurements, with this least timeout.
    #[must_use]
    pub fn with_least(least: Rto) -> Rtt {
        Rtt {
            srtt8_ns: 0,
            rttvar4_ns: 0,
            min_ns: u64::MAX,
            rto: Rto::INITIAL,
            least: least.min(Rto::MAX),
            timed_at: Instant::NEVER,
            timed_end: SeqNum::new(0),
            backoff: 0,
            syn_lost: false,
        }
    }

    /// Whether a round trip was ever measured.
    #[must_use]
    #[inline]
    pub fn is_measured(&self) -> bool {
        self.min_ns != u64::MAX
    }

    /// The smoothed round-trip time; zero before the first measurement.
    #[must_use]
    #[inline]
    pub fn srtt(&self) -> Duration {
        Duration::from_nanos(self.srtt8_ns / 8)
    }

    /// The mean deviation of the round-trip time; zero before the first measurement.
    #[must_use]
    #[inline]
    pub fn rttvar(&self) -> Duration {
        Duration::from_nanos(self.rttvar4_ns / 4)
    }

    /// The least round trip measured.
    #[must_use]
    #[inline]
    pub fn min_rtt(&self) -> Option<Duration> {
        self.is_measured().then(|| Duration::from_nanos(self.min_ns))
    }

    /// The timeout to arm, backoff included.
    #[must_use]
    #[inline]
    pub fn rto(&self) -> Rto {
        self.rto
    }

    /// How often the timeout was doubled since the last measurement.
    #[must_use]
    #[inline]
    pub fn backoff(&self) -> u8 {
        self.backoff
    }

    /// New bytes up to `end` were handed to the device: they are timed if nothing else is.
    #[inline]
    pub fn on_sent(&mut self, end: SeqNum, now: Instant) {
        if self.timed_at == Instant::NEVER {
            self.timed_at = now;
            self.timed_end = end;
        }
    }

    /// Bytes are sent again: what is being timed could no longer be told apart (RFC 6298 §3).
    #[inline]
    pub fn on_retransmitted(&mut self) {
        self.timed_at = Instant::NEVER;
    }

    /// `ack` acknowledges new bytes. `echoed` is the round trip that its timestamps tell, if they
    /// were negotiated. Returns the measurement taken, after the estimate has taken it in.
    #[inline]
    pub fn on_ack(
        &mut self,
        ack: SeqNum,
        echoed: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let sample = if self.timed_at != Instant::NEVER {
            if ack.before(self.timed_end) {
                return None;
            }
            let sample = now.since(self.timed_at);
            self.timed_at = Instant::NEVER;
            sample
        } else {
            echoed?
        };
        self.on_sample(sample);
        Some(sample)
    }

    /// [`Rtt::on_ack`] where timestamps tell nothing better: only the timed range counts.
    #[inline(always)]
    pub fn on_timed_ack(&mut self, ack: SeqNum, now: Instant) {
        if self.timed_at != Instant::NEVER && !ack.before(self.timed_end) {
            let sample = now.since(self.timed_at);
            self.timed_at = Instant::NEVER;
            self.take_in(sample);
        }
    }

    /// Takes in one round trip (RFC 6298 §2.2, §2.3) and ends the backoff (§5.7 of it, Karn).
    pub fn on_sample(&mut self, rtt: Duration) {
        self.take_in(rtt.min(RTT_MAX));
    }

    /// Any two readings of a clock that counts from its machine's start are closer than would
    /// overflow here.
    #[inline(always)]
    fn take_in(&mut self, rtt: Duration) {
        let rtt_ns = rtt.as_nanos();
        if self.is_measured() {
            let srtt_ns = self.srtt8_ns / 8;
            self.rttvar4_ns = self.rttvar4_ns - self.rttvar4_ns / 4 + srtt_ns.abs_diff(rtt_ns);
            self.srtt8_ns = self.srtt8_ns - srtt_ns + rtt_ns;
        } else {
            self.srtt8_ns = rtt_ns * 8;
            self.rttvar4_ns = rtt_ns * 2;
        }
        self.min_ns = self.min_ns.min(rtt_ns);
        self.backoff = 0;
        let wanted = self.srtt8_ns / 8 + self.rttvar4_ns.max(GRANULARITY_NS);
        // Mostly the least one is more.
        self.rto = self.least;
        if wanted > self.least.0.as_nanos() {
            cold_path();
            self.rto = Rto(Duration::from_nanos(wanted).min(Rto::MAX.0));
        }
    }

    /// The retransmission timer expired: the next timeout is twice as long (RFC 6298 §5.5).
    pub fn on_timeout(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
        self.rto = Rto::clamped(self.rto.duration().saturating_mul(2), self.least);
        self.on_retransmitted();
    }

    /// A SYN of ours is sent again after its timeout.
    pub fn on_syn_timeout(&mut self) {
        self.syn_lost = true;
        self.on_timeout();
    }

    /// The handshake is complete: data begins with 3 s if the SYN was lost and the handshake gave
    /// no measurement (RFC 6298 §5.7).
    pub fn on_established(&mut self) {
        self.backoff = 0;
        if self.syn_lost && !self.is_measured() {
            self.rto = Rto::AFTER_SYN_LOSS;
        }
    }
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt::new()
    }
}

/// The clock of our timestamps (RFC 7323 §5.4): a tick is 2^20 ns, 1.05 ms, from an offset that
/// differs between connections (§7.1). At that rate the sign of a timestamp wraps in 26 days.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimestampClock {
    offset: u32,
}

const TIMESTAMP_SHIFT: u32 = 20;

impl TimestampClock {
    /// A clock that shows `offset` at the origin of time.
    #[must_use]
    pub const fn new(offset: u32) -> TimestampClock {
        TimestampClock { offset }
    }

    /// TSval at `now`.
    #[must_use]
    #[inline]
    pub fn value(self, now: Instant) -> u32 {
        self.offset.wrapping_add(low_word(now.as_nanos() >> TIMESTAMP_SHIFT))
    }

    /// The time since the tick that the peer echoes; `None` if it echoes the future or more than
    /// 10 minutes ago, which no segment of ours can have said.
    #[must_use]
    #[inline]
    pub fn elapsed(self, echo: u32, now: Instant) -> Option<Duration> {
        const TICKS_MAX: u32 = 600 * 954;
        let ticks = self.value(now).wrapping_sub(echo);
        (ticks <= TICKS_MAX).then(|| Duration::from_nanos(u64::from(ticks) << TIMESTAMP_SHIFT))
    }
}

/// The low 32 bits.
#[inline]
fn low_word(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
