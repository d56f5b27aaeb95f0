//! What happens to each message: rates, a small seeded generator, and the verdict.
//!
//! For a seed and a sequence of messages the verdicts are always the same: each message draws the
//! same number of values, whatever the rates are and whatever became of earlier ones.

/// Faults to inject. Rates are fractions from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FaultOptions {
    /// Rate of received messages that are dropped.
    pub loss: f64,
    /// Rate of received messages that are delivered twice.
    pub duplicate: f64,
    /// Rate of received messages that are overtaken by up to [`REORDER_DISTANCE_MAX`] later ones.
    pub reorder: f64,
    /// Rate of received messages in which one bit is flipped.
    pub corrupt: f64,
    /// Rate of sends that complete in error although they went out.
    pub send_error: f64,
    /// Time for which each received message is held back, at most [`DELAY_NS_MAX`].
    pub delay_ns: u64,
    /// Seed of all verdicts.
    pub seed: u64,
    /// Whether loss, duplication and reordering befall what is sent, too.
    pub sends: bool,
}

/// By how many later messages a reordered one is overtaken at most.
pub const REORDER_DISTANCE_MAX: u64 = 8;
/// Longest delay: 10 s.
pub const DELAY_NS_MAX: u64 = 10_000_000_000;

impl Default for FaultOptions {
    fn default() -> FaultOptions {
        FaultOptions {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            send_error: 0.0,
            delay_ns: 0,
            seed: 1,
            sends: false,
        }
    }
}

impl FaultOptions {
    /// Whether anything is to be injected at all.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let rates = [self.loss, self.duplicate, self.reorder, self.corrupt, self.send_error];
        self.delay_ns > 0 || rates.iter().any(|rate| *rate > 0.0)
    }

    /// Says which value is out of range, if any.
    ///
    /// # Errors
    /// One sentence with the allowed range.
    pub fn check(&self) -> Result<(), String> {
        let rates = [
            ("loss", self.loss),
            ("dup", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
            ("error", self.send_error),
        ];
        for (name, rate) in rates {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name}={rate} is out of range: choose 0 to 1, or 0% to 100%"));
            }
        }
        if self.delay_ns > DELAY_NS_MAX {
            return Err(format!("delay={}ns is out of range: choose 0 to 10s", self.delay_ns));
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mix for each value.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with the given rate.
    pub(super) fn chance(&mut self, rate: f64) -> bool {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        let drawn = f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX);
        // A rate of 1 is always, a rate of 0 never.
        rate > 0.0 && drawn <= rate
    }
}

/// What happens to one received message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) lose: bool,
    pub(super) duplicate: bool,
    /// By how many later messages it is overtaken; 0 if it keeps its place.
    pub(super) overtaken_by: u64,
    /// The bit to flip, to be taken modulo the message's bits.
    pub(super) flip: Option<u64>,
}

impl Verdict {
    /// Draws the verdict over the next message: always six values.
    pub(super) fn draw(random: &mut Random, options: &FaultOptions) -> Verdict {
        let lose = random.chance(options.loss);
        let duplicate = random.chance(options.duplicate);
        let reorder = random.chance(options.reorder);
        let distance = 1 + random.next() % REORDER_DISTANCE_MAX;
        let corrupt = random.chance(options.corrupt);
        let bit = random.next();
        Verdict {
            lose,
            duplicate,
            overtaken_by: if reorder { distance } else { 0 },
            flip: corrupt.then_some(bit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(options: &FaultOptions, count: usize) -> Vec<Verdict> {
        let mut random = Random::new(options.seed);
        (0..count).map(|_| Verdict::draw(&mut random, options)).collect()
    }

    #[test]
    fn verdicts_depend_on_the_seed_alone_and_rates_do_not_disturb_each_other() {
        let options = FaultOptions { loss: 0.1, corrupt: 0.2, seed: 7, ..FaultOptions::default() };
        assert_eq!(verdicts(&options, 500), verdicts(&options, 500));
        let other = FaultOptions { seed: 8, ..options };
        assert_ne!(verdicts(&options, 500), verdicts(&other, 500));
        let more = FaultOptions { reorder: 0.5, ..options };
        let losses = |all: Vec<Verdict>| all.iter().map(|one| one.lose).collect::<Vec<_>>();
        assert_eq!(losses(verdicts(&options, 500)), losses(verdicts(&more, 500)));
    }

    #[test]
    fn rates_are_met_and_the_ends_are_exact() {
        for (rate, least, most) in
            [(0.0, 0, 0), (0.01, 60, 140), (0.5, 4800, 5200), (1.0, 10_000, 10_000)]
        {
            let options = FaultOptions { loss: rate, ..FaultOptions::default() };
            let lost = verdicts(&options, 10_000).iter().filter(|one| one.lose).count();
            assert!((least..=most).contains(&lost), "{rate}: {lost}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        for rate in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let options = FaultOptions { duplicate: rate, ..FaultOptions::default() };
            assert!(options.check().unwrap_err().contains("choose 0 to 1"), "{rate}");
        }
        let options = FaultOptions { delay_ns: u64::MAX, ..FaultOptions::default() };
        assert!(options.check().unwrap_err().contains("10s"));
        assert!(FaultOptions::default().check().is_ok() && !FaultOptions::default().is_any());
    }
}
