//! Figures of a run: percentiles of exact samples.
//!
//! Owns the samples, which are allocated before the run.

/// Times of round trips in nanoseconds.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Room for so many.
    #[must_use]
    pub fn new(capacity: usize) -> Samples {
        Samples(Vec::with_capacity(capacity))
    }

    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        self.0.push(ns);
    }

    /// Sorts them, and prints the usual ones as `key=value`.
    #[must_use]
    pub fn summary(&mut self) -> String {
        self.0.sort_unstable();
        let at = |numerator: usize| {
            let last = self.0.len().saturating_sub(1);
            self.0.get(last * numerator / 1000).copied().unwrap_or(0)
        };
        format!(
            "min_ns={} p50_ns={} p90_ns={} p99_ns={} p999_ns={} max_ns={}",
            at(0),
            at(500),
            at(900),
            at(990),
            at(999),
            at(1000)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_the_run() {
        let mut samples = Samples::new(101);
        for ns in (0..=100).rev() {
            samples.add(ns);
        }
        assert_eq!(
            samples.summary(),
            "min_ns=0 p50_ns=50 p90_ns=90 p99_ns=99 p999_ns=99 max_ns=100"
        );
        assert!(Samples::new(0).summary().starts_with("min_ns=0 "));
    }
}
