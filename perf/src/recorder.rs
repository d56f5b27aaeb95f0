//! What a run counts: warm-up is thrown away, then transactions, bytes and latencies are counted
//! until the time is over or the count is reached. It reads no clock: the time is an argument.

use std::time::Duration;

use crate::arithmetic::nanoseconds;
use crate::histogram::Latency;

/// Samples that a run keeps at most; later ones are added to the last.
pub const SAMPLES_MAX: usize = 100_000;

/// When a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After this time, warm-up not counted.
    Elapsed(Duration),
    /// After so many transactions, or bytes of a stream, warm-up not counted.
    Count(u64),
    /// When the other end says so.
    PeerEnds,
}

/// The times of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Not counted at the start.
    pub warmup: Duration,
    /// The end.
    pub until: Until,
    /// Distance of interval samples.
    pub interval: Option<Duration>,
}

/// What happened in one interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Sample {
    /// End of the interval, from the end of warm-up.
    pub at_ns: u64,
    /// Transactions in it.
    pub transactions: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// What a run counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Completed transactions.
    pub transactions: u64,
    /// Payload bytes moved in the direction of the test; of transactions, both directions.
    pub bytes: u64,
    /// Send calls.
    pub sends: u64,
    /// Receive calls that brought something.
    pub receives: u64,
    /// UDP requests given up after [`crate::flow::LOST_AFTER_NS`].
    pub lost: u64,
    /// UDP answers to none of the requests under way: late, or doubled.
    pub late: u64,
    /// From the end of warm-up to the end.
    pub elapsed_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    WarmingUp,
    Counting,
    Over,
}

/// Counts a run.
#[derive(Debug)]
pub struct Recorder {
    state: State,
    window: Window,
    begin_ns: u64,
    counted: Counted,
    latency: Option<Latency>,
    samples: Vec<Sample>,
    current: Sample,
}

impl Recorder {
    /// A run that starts at `now_ns`.
    #[must_use]
    pub fn new(window: Window, latency: Option<Latency>, now_ns: u64) -> Self {
        let state = if window.warmup.is_zero() { State::Counting } else { State::WarmingUp };
        let begin_ns = now_ns.saturating_add(nanoseconds(window.warmup));
        let (counted, current) = (Counted::default(), Sample::default());
        Self { state, window, begin_ns, counted, latency, samples: Vec::new(), current }
    }

    /// Notes the time; returns whether warm-up ended just now.
    pub fn on_time(&mut self, now_ns: u64) -> bool {
        if self.state == State::Over || now_ns < self.begin_ns {
            return false;
        }
        let began = self.state == State::WarmingUp;
        if began {
            self.state = State::Counting;
            self.begin_ns = now_ns;
            self.counted = Counted::default();
            self.current = Sample::default();
            if let Some(latency) = &mut self.latency {
                latency.reset();
            }
        }
        self.counted.elapsed_ns = now_ns - self.begin_ns;
        self.close_interval();
        let over = match self.window.until {
            Until::Elapsed(duration) => self.counted.elapsed_ns >= nanoseconds(duration),
            Until::Count(_) | Until::PeerEnds => false,
        };
        if over {
            self.state = State::Over;
        }
        began
    }

    fn close_interval(&mut self) {
        let Some(interval) = self.window.interval else { return };
        if self.counted.elapsed_ns < self.current.at_ns + nanoseconds(interval) {
            return;
        }
        let start = self.counted.elapsed_ns;
        let sample = Sample { at_ns: start, ..self.current };
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        } else if let Some(last) = self.samples.last_mut() {
            last.at_ns = sample.at_ns;
            last.transactions += sample.transactions;
            last.bytes += sample.bytes;
        }
        self.current = Sample { at_ns: start, ..Sample::default() };
    }

    /// Counts a transaction that was meant to start at `from_ns` and moved `bytes`.
    pub fn on_transaction(&mut self, from_ns: u64, now_ns: u64, bytes: u64) {
        if self.state == State::Over {
            return;
        }
        self.on_time(now_ns);
        self.counted.transactions += 1;
        self.current.transactions += 1;
        self.add_bytes(bytes);
        if let Some(latency) = &mut self.latency {
            latency.record(now_ns.saturating_sub(from_ns));
        }
        if let Until::Count(count) = self.window.until
            && self.state == State::Counting
            && self.counted.transactions >= count
        {
            self.state = State::Over;
        }
    }

    /// Counts bytes of a stream.
    pub fn on_bytes(&mut self, now_ns: u64, bytes: u64) {
        if self.state == State::Over {
            return;
        }
        self.on_time(now_ns);
        self.add_bytes(bytes);
        if let Until::Count(count) = self.window.until
            && self.state == State::Counting
            && self.counted.bytes >= count
        {
            self.state = State::Over;
        }
    }

    /// Counts without a time: for the end of a run that only the other end times.
    pub fn tally(&mut self, transactions: u64, bytes: u64) {
        self.counted.transactions += transactions;
        self.counted.bytes += bytes;
    }

    /// Whether this end times the run.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.window.until != Until::PeerEnds
    }

    fn add_bytes(&mut self, bytes: u64) {
        self.counted.bytes += bytes;
        self.current.bytes += bytes;
    }

    /// Counts a send call.
    pub fn on_send(&mut self) {
        self.counted.sends += 1;
    }

    /// Counts a receive call.
    pub fn on_receive(&mut self) {
        self.counted.receives += 1;
    }

    /// Counts lost requests.
    pub fn on_lost(&mut self, requests: u64) {
        self.counted.lost += requests;
    }

    /// Counts an answer that came too late, or twice.
    #[cold]
    pub fn on_late(&mut self) {
        self.counted.late += 1;
    }

    /// Ends the run, since the other end did.
    pub fn end(&mut self, now_ns: u64) {
        self.on_time(now_ns);
        self.state = State::Over;
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether warm-up is over.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.state != State::WarmingUp
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// The distribution, the interval samples and the counts.
    #[must_use]
    pub fn into_parts(self) -> (Counted, Option<Latency>, Vec<Sample>) {
        (self.counted, self.latency, self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(warmup: u64, until: Until) -> Window {
        Window { warmup: Duration::from_nanos(warmup), until, interval: None }
    }

    #[test]
    fn warm_up_is_thrown_away() {
        let until = Until::Elapsed(Duration::from_nanos(100));
        let mut run = Recorder::new(window(50, until), Some(Latency::new()), 1000);
        run.on_transaction(1000, 1040, 2);
        assert!(!run.is_counting());
        run.on_transaction(1040, 1060, 2);
        run.on_transaction(1060, 1100, 2);
        assert!(run.is_counting() && !run.is_over());
        run.on_transaction(1100, 1160, 2);
        assert!(run.is_over());
        run.on_transaction(1160, 1170, 2);
        let (counted, latency, _) = run.into_parts();
        assert_eq!((counted.transactions, counted.bytes, counted.elapsed_ns), (3, 6, 100));
        assert_eq!(latency.unwrap().summary().unwrap().max_ns, 60);
    }

    #[test]
    fn a_count_ends_the_run_exactly() {
        let mut run = Recorder::new(window(0, Until::Count(3)), None, 0);
        (1..=5).for_each(|n| run.on_transaction(n, n + 1, 1));
        assert!(run.is_over());
        assert_eq!(run.counted().transactions, 3);
        let mut run = Recorder::new(window(0, Until::Count(100)), None, 0);
        (1..=5).for_each(|n| run.on_bytes(n, 40));
        assert_eq!(run.counted().bytes, 120);
    }

    #[test]
    fn interval_samples_add_up() {
        let interval = Some(Duration::from_nanos(10));
        let mut run = Recorder::new(Window { interval, ..window(0, Until::Count(100)) }, None, 0);
        (1..=100).for_each(|n| run.on_transaction(n, n, 1));
        let (_, _, samples) = run.into_parts();
        assert_eq!(samples.len(), 10);
        assert!(samples[1..].iter().all(|sample| sample.transactions == 10), "{samples:?}");
    }
}
