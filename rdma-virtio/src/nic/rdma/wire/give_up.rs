//! RC's worst give-up time: how long a reliable queue pair may try before it reports that a
//! message did not get through.
//!
//! TCP above does not send a segment again while its work request is not complete, so this time
//! bounds how long a dead path goes unnoticed. InfiniBand Architecture Specification, volume 1,
//! §9.7.6.1.3 (transport timer) and table 45 (RNR NAK timer).

/// The bound that is kept unless the user says otherwise, in nanoseconds.
pub const GIVE_UP_NS_DEFAULT: u64 = 1_000_000_000;

/// The RNR NAK timer field in units of 10 µs, by its code.
const RNR_TIMER_10US: [u32; 32] = [
    65_536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768, 49_152,
];

/// The retry attributes of an RC queue pair (`ibv_qp_attr`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Local ACK timeout: 4.096 µs × 2^timeout; 1 to 31 (0 would be for ever).
    pub timeout: u8,
    /// Transport retries; 0 to 7.
    pub retry_cnt: u8,
    /// Retries after "receiver not ready"; 0 to 6 (7 would be for ever).
    pub rnr_retry: u8,
    /// Code of the shortest wait that this side asks for when it is not ready; 0 to 31.
    pub min_rnr_timer: u8,
}

/// Why attributes have no give-up time, or one that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GiveUpError {
    /// A field is out of its range, or means "for ever".
    #[error("timeout={}, retry={}, rnr={}, rnr-timer={} never give up or are out of range",
        .0.timeout, .0.retry_cnt, .0.rnr_retry, .0.min_rnr_timer)]
    Endless(Retry),
    /// It is longer than the bound.
    #[error("a queue pair would give up after {found_ns} ns at worst; the bound is {bound_ns} ns")]
    TooLong {
        /// The computed time in nanoseconds.
        found_ns: u64,
        /// The bound in nanoseconds.
        bound_ns: u64,
    },
}

impl Retry {
    /// Six transport retries after 16.8 ms each, which a NIC may stretch to four times that, and
    /// six of "not ready" after 0.64 ms: at worst 474 ms.
    pub const DEFAULT: Retry = Retry { timeout: 12, retry_cnt: 6, rnr_retry: 6, min_rnr_timer: 12 };

    /// The worst time from posting to the error completion, in nanoseconds.
    ///
    /// The transport timer may expire anywhere between one and four times its value (o9-141 and
    /// following); each of the first try and `retry_cnt` more waits for it once. Each wait for a
    /// receiver that is not ready comes on top.
    ///
    /// # Errors
    /// If the attributes never give up, or are out of range.
    pub fn give_up_ns(&self) -> Result<u64, GiveUpError> {
        let endless = self.timeout == 0 || self.timeout > 31 || self.retry_cnt > 7;
        if endless || self.rnr_retry > 6 || self.min_rnr_timer > 31 {
            return Err(GiveUpError::Endless(*self));
        }
        let timer_ns = 4096_u64 << self.timeout;
        let tries = u64::from(self.retry_cnt) + 1;
        let wait_10us = RNR_TIMER_10US[usize::from(self.min_rnr_timer)];
        Ok(4 * timer_ns * tries + u64::from(wait_10us) * 10_000 * u64::from(self.rnr_retry))
    }

    /// The give-up time, if it is below the bound.
    ///
    /// # Errors
    /// See [`GiveUpError`].
    pub fn within(&self, bound_ns: u64) -> Result<u64, GiveUpError> {
        match self.give_up_ns()? {
            found_ns if found_ns <= bound_ns => Ok(found_ns),
            found_ns => Err(GiveUpError::TooLong { found_ns, bound_ns }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_time_is_four_timers_a_try_and_every_wait_for_a_receiver() {
        let rows = [
            ("default", Retry::DEFAULT, Ok(4 * 7 * 16_777_216 + 6 * 640_000)),
            ("no retries", Retry { timeout: 1, retry_cnt: 0, rnr_retry: 0, min_rnr_timer: 0 }, {
                Ok(4 * 8192)
            }),
            (
                "code 0 is the longest wait",
                Retry { timeout: 1, retry_cnt: 0, rnr_retry: 1, min_rnr_timer: 0 },
                Ok(4 * 8192 + 655_360_000),
            ),
            ("timer off", Retry { timeout: 0, ..Retry::DEFAULT }, Err(())),
            ("ready for ever", Retry { rnr_retry: 7, ..Retry::DEFAULT }, Err(())),
            ("no such retry", Retry { retry_cnt: 8, ..Retry::DEFAULT }, Err(())),
            ("no such timer", Retry { min_rnr_timer: 32, ..Retry::DEFAULT }, Err(())),
        ];
        for (name, retry, expected) in rows {
            assert_eq!(retry.give_up_ns().map_err(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn the_default_is_within_the_default_bound_and_a_longer_one_says_both_times() {
        assert!(Retry::DEFAULT.within(GIVE_UP_NS_DEFAULT).is_ok());
        let long = Retry { timeout: 14, retry_cnt: 7, ..Retry::DEFAULT };
        let found = long.within(GIVE_UP_NS_DEFAULT).unwrap_err().to_string();
        assert!(found.contains("2151323648 ns") && found.contains("1000000000 ns"), "{found}");
    }
}
