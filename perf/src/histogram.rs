//! Latency by hdrhistogram: nanoseconds, three significant digits, one minute at most.

use hdrhistogram::Histogram;

use crate::arithmetic::real;

/// The longest latency that is told apart from longer ones: one minute.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant digits; with them a histogram takes about 220 KiB.
const DIGITS: u8 = 3;

/// A latency distribution.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// The figures that a report gives of a distribution, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Summary {
    /// Number of samples.
    pub count: u64,
    /// Least.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90 of 100 are not above.
    pub p90_ns: u64,
    /// 99 of 100 are not above.
    pub p99_ns: u64,
    /// 999 of 1000 are not above.
    pub p999_ns: u64,
    /// Greatest.
    pub max_ns: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty distribution; all memory it will need is taken now.
    ///
    /// # Panics
    /// Never: the constants are a valid configuration.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS)
            .unwrap_or_else(|error| unreachable!("constant bounds: {error:?}"));
        Self(histogram)
    }

    /// Counts one sample; longer than a minute counts as a minute.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// Adds the samples of another distribution.
    pub fn add(&mut self, other: &Self) {
        // Same bounds by construction, so that it cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// The figures, or none of an empty distribution.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let histogram = &self.0;
        (!histogram.is_empty()).then(|| Summary {
            count: histogram.len(),
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            mean_ns: histogram.mean(),
        })
    }

    /// The cumulative distribution: (nanoseconds, part of the samples not above), rising.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(u64, f64)> {
        let total = real(self.0.len());
        let mut below = 0;
        let points = self.0.iter_recorded().map(|step| {
            below += step.count_since_last_iteration();
            (step.value_iterated_to(), real(below) / total)
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut latency = Latency::new();
        assert_eq!(latency.summary(), None);
        (1..=1000).for_each(|ns| latency.record(ns));
        let summary = latency.summary().unwrap();
        assert_eq!((summary.p50_ns, summary.p90_ns, summary.p99_ns), (500, 900, 990));
        assert_eq!((summary.p999_ns, summary.max_ns, summary.min_ns), (999, 1000, 1));
        assert!((summary.mean_ns - 500.5).abs() < 1.0);
        let points = latency.cumulative();
        assert_eq!(points.last(), Some(&(1000, 1.0)));
        assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }

    #[test]
    fn absurd_samples_saturate() {
        let mut latency = Latency::new();
        latency.record(u64::MAX);
        latency.record(0);
        assert!(latency.summary().unwrap().max_ns >= LATENCY_NS_MAX);
    }
}
