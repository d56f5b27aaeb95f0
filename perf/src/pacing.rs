//! Open loop: when the n-th request is meant to leave. A late request keeps its intended time, and
//! latency counts from there, so that a stall is seen by every request it delayed (no coordinated
//! omission).

/// A rate in thousandths of a request per second; not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(u64);

/// The highest rate that may be asked for: one request a nanosecond.
pub const RATE_MAX: f64 = 1e9;

impl Rate {
    /// Checks a rate in requests per second.
    #[must_use]
    pub fn new(per_second: f64) -> Option<Self> {
        if !(0.001..=RATE_MAX).contains(&per_second) {
            return None;
        }
        // Below 10^12 and positive, so the text form is an integer that fits.
        format!("{:.0}", per_second * 1000.0).parse().ok().filter(|milli| *milli > 0).map(Self)
    }

    /// Requests per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        crate::arithmetic::real(self.0) / 1000.0
    }
}

/// The schedule of one of several flows that share a rate.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Rate,
    start_ns: u64,
    next: u64,
    stride: u64,
}

impl Pacer {
    /// The schedule of flow `index` of `flows`: it takes every `flows`-th request.
    #[must_use]
    pub fn new(rate: Rate, start_ns: u64, index: usize, flows: usize) -> Self {
        let whole = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self { rate, start_ns, next: whole(index), stride: whole(flows).max(1) }
    }

    /// When the next request is meant to leave.
    #[must_use]
    pub fn intended_ns(&self) -> u64 {
        let offset = u128::from(self.next) * 1_000_000_000_000 / u128::from(self.rate.0);
        self.start_ns.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// The next request has left.
    pub fn advance(&mut self) {
        self.next = self.next.saturating_add(self.stride);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_drift() {
        let mut pacer = Pacer::new(Rate::new(3.0).unwrap(), 1000, 0, 1);
        for _ in 0..3_000_000 {
            pacer.advance();
        }
        assert_eq!(pacer.intended_ns(), 1000 + 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn flows_share_one_schedule() {
        let rate = Rate::new(1000.0).unwrap();
        let mut all = Vec::new();
        for index in 0..4 {
            let mut pacer = Pacer::new(rate, 0, index, 4);
            for _ in 0..3 {
                all.push(pacer.intended_ns());
                pacer.advance();
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..12).map(|n| n * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn absurd_rates_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12, 0.000_01] {
            assert_eq!(Rate::new(rate), None, "{rate}");
        }
        assert_eq!(Rate::new(1e9).map(Rate::per_second), Some(1e9));
    }
}
