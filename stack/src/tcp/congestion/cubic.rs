//! CUBIC (RFC 9438), in integers.
//!
//! Owns the cubic curve, the Reno-friendly estimate and fast convergence. Windows are bytes; time
//! on the curve counts 2^-20 s, so that a cube of it fits into 128 bits and a division by the unit
//! is a shift. An increase is a fraction whose remainder is carried over, so slow growth is exact.
//! Constants: C = 0.4, beta = 0.7 (§4.6, §5.1).

use super::{AckSample, Timeout, Window};
use crate::time::{Duration, Instant};

/// beta_cubic as a fraction (§4.6).
const BETA: (u64, u64) = (7, 10);
/// (1 + beta_cubic) / 2 as a fraction (§4.7).
const FAST_CONVERGENCE: (u64, u64) = (17, 20);
/// alpha_cubic = 3 (1 - beta) / (1 + beta) as a fraction (§4.3).
const ALPHA: (u64, u64) = (9, 17);
/// Fraction bits of a second in curve time.
const TIME_BITS: u32 = 20;
/// 2^20 / 10^9, as a fraction of 2^40.
const UNITS_PER_NS: u128 = 1_152_921_505;
/// C = 0.4, as a fraction of 2^20.
const C: u128 = 419_430;
/// Curve times beyond this (2.3 hours) are all alike: the window is bounded long before.
const CURVE_TIME_MAX: u64 = 1 << 33;

/// The state of RFC 9438. All windows are bytes.
#[derive(Clone, Debug)]
pub struct Cubic {
    pub(super) window: Window,
    /// W_max: where the curve is flat.
    w_max: u32,
    /// cwnd when it was last reduced: up to here the estimate grows with alpha.
    cwnd_prior: u32,
    /// W_est of the Reno-friendly region (§4.3).
    w_est: u32,
    /// What is left over of W_est's increases, in 1/17 of bytes times cwnd.
    est_rest: u64,
    /// What is left over of the window's increases, in bytes times cwnd.
    rest: u64,
    /// K, in curve time.
    k: u64,
    /// Beginning of the current congestion avoidance; NEVER outside one.
    epoch: Instant,
    /// When an acknowledgement last found the window holding the sender back.
    last_limited: Instant,
    /// The next epoch is the first after a timeout (§4.8).
    after_timeout: bool,
}

impl Cubic {
    pub(super) fn new(window: Window) -> Cubic {
        Cubic {
            window,
            w_max: 0,
            cwnd_prior: 0,
            w_est: 0,
            est_rest: 0,
            rest: 0,
            k: 0,
            epoch: Instant::NEVER,
            last_limited: Instant::ZERO,
            after_timeout: false,
        }
    }

    #[inline]
    pub(super) fn on_ack(&mut self, ack: &AckSample) {
        if !ack.cwnd_limited || self.window.is_full() {
            return;
        }
        let acked = self.window.slow_start(ack.acked);
        if acked > 0 {
            self.avoid_congestion(ack, acked);
        }
    }

    /// Congestion avoidance (§4.2 to §4.5).
    fn avoid_congestion(&mut self, ack: &AckSample, acked: u32) {
        if self.epoch == Instant::NEVER {
            self.begin_epoch(ack.now);
        }
        // §5.8: time without a full window is not time on the curve. While the window is full,
        // acknowledgements come at least once a round trip.
        let gap = ack.now.since(self.last_limited);
        if ack.srtt != Duration::ZERO && gap > ack.srtt + ack.srtt {
            self.epoch += gap.saturating_sub(ack.srtt);
        }
        self.last_limited = ack.now;
        let elapsed = ack.now.since(self.epoch);
        self.grow_estimate(acked);
        if self.curve(elapsed) < self.w_est {
            // §4.3, the Reno-friendly region.
            self.window.grow(self.w_est.saturating_sub(self.window.cwnd));
            return;
        }
        let cwnd = self.window.cwnd;
        // §4.2: the target is where the curve is one round trip on, at most half as much again.
        let target = self.curve(elapsed + ack.srtt).clamp(cwnd, cwnd.saturating_add(cwnd / 2));
        let wanted = self.rest + u64::from(target - cwnd) * u64::from(acked);
        self.rest = wanted % u64::from(cwnd);
        self.window.grow(narrow(wanted / u64::from(cwnd)));
    }

    /// §4.3: W_est += alpha * segments_acked / cwnd, in bytes.
    fn grow_estimate(&mut self, acked: u32) {
        let (numerator, denominator) =
            if self.w_est < self.cwnd_prior { ALPHA } else { (ALPHA.1, ALPHA.1) };
        let whole = u64::from(self.window.cwnd) * denominator;
        // At most 2^32 * 2^16 * 17.
        let wanted = self.est_rest + u64::from(acked) * u64::from(self.window.mss) * numerator;
        self.est_rest = wanted % whole;
        self.w_est = self.w_est.saturating_add(narrow(wanted / whole));
    }

    fn begin_epoch(&mut self, now: Instant) {
        let cwnd = self.window.cwnd;
        if self.after_timeout || cwnd >= self.w_max {
            // §4.8, and §4.2 for a window beyond the last maximum: K = 0.
            self.w_max = cwnd;
        }
        self.after_timeout = false;
        // K = cbrt((W_max - cwnd) / C), segments and seconds (§4.2).
        let gap = u128::from(self.w_max - cwnd) << (3 * TIME_BITS);
        self.k = cube_root((gap << TIME_BITS) / (C * u128::from(self.window.mss)));
        self.epoch = now;
        self.last_limited = now;
        self.w_est = cwnd;
        self.est_rest = 0;
        self.rest = 0;
    }

    pub(super) fn end_epoch(&mut self) {
        self.epoch = Instant::NEVER;
    }

    /// W_cubic(t) = C (t - K)^3 + W_max (§4.2 figure 1).
    fn curve(&self, elapsed: Duration) -> u32 {
        let units = (u128::from(elapsed.as_nanos()) * UNITS_PER_NS) >> 40;
        let t = u64::try_from(units).unwrap_or(u64::MAX);
        let distance = u128::from(t.abs_diff(self.k).min(CURVE_TIME_MAX));
        // 3 * 33 - 20 bits times 19 + 16 bits: fits.
        let cube = (distance * distance * distance) >> TIME_BITS;
        let bytes = (cube * C * u128::from(self.window.mss)) >> (3 * TIME_BITS);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if t >= self.k {
            self.w_max.saturating_add(bytes)
        } else {
            self.w_max.saturating_sub(bytes)
        }
    }

    pub(super) fn on_congestion_event(&mut self, flight: u32) {
        self.remember_maximum();
        self.window.reduce(fraction(flight, BETA));
    }

    pub(super) fn on_retransmission_timeout(&mut self, flight: u32, timeout: Timeout) {
        match timeout {
            Timeout::First => self.remember_maximum(),
            Timeout::Repeated => self.end_epoch(),
        }
        self.window.collapse(fraction(flight, BETA), timeout);
        self.after_timeout = true;
    }

    /// §4.6 and fast convergence, §4.7: a flow that loses below its last maximum gives way.
    fn remember_maximum(&mut self) {
        let cwnd = self.window.cwnd;
        self.w_max = if cwnd < self.w_max { fraction(cwnd, FAST_CONVERGENCE) } else { cwnd };
        self.cwnd_prior = cwnd;
        self.end_epoch();
    }
}

#[cfg(test)]
impl Cubic {
    pub(super) fn w_max(&self) -> u32 {
        self.w_max
    }

    /// Undoes fast convergence, which the RFC's model of a single flow does not have.
    pub(super) fn set_w_max(&mut self, w_max: u32) {
        self.w_max = w_max;
    }
}

fn fraction(value: u32, (numerator, denominator): (u64, u64)) -> u32 {
    narrow(u64::from(value) * numerator / denominator)
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The greatest integer whose cube is at most `value`; at most 2^42 here.
fn cube_root(value: u128) -> u64 {
    let mut root = 0_u128;
    for bit in (0..42).rev() {
        let candidate = root | (1 << bit);
        if candidate * candidate * candidate <= value {
            root = candidate;
        }
    }
    u64::try_from(root).unwrap_or(u64::MAX)
}
