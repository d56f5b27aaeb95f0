//! Round trips: one message there and back at a time, what came checked at both ends.
//!
//! Owns the loop. Each end posts one send a round, and its receive again before it; signalled and
//! one by one, unless the run is to be more like Roceway's (see [`crate::shape`]).

use crate::Failure;
use crate::completions::{BATCH, Seen};
use crate::figures::Samples;
use crate::load::{Load, When};
use crate::setup::{Ready, SEND_ID};
use crate::shape::SIGNALLED_EACH;
use std::hint::black_box;
use std::time::Instant;

/// Messages that were received and sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Received, checked, and their receives posted again.
    pub received: u64,
    /// Sent: completed, or before one that has.
    pub sent: u64,
}

impl Progress {
    /// Waits for a completion and handles what is there.
    ///
    /// # Errors
    /// If none comes in time, or a message is not the one that is next.
    pub fn advance(&mut self, ready: &mut Ready) -> Result<(), Failure> {
        let mut out = [Seen::default(); BATCH];
        let taken = ready.end.base.waiter.next(&mut out)?;
        let before = self.received;
        for completion in &out[..taken] {
            if completion.wr_id & SEND_ID != 0 {
                self.sent = (completion.wr_id & !SEND_ID) + 1;
                continue;
            }
            let slot = ready.end.base.check(completion, self.received)?;
            ready.end.base.push_receive(slot)?;
            self.received += 1;
        }
        if self.received > before && ready.end.base.is_to_post() {
            ready.post_receives()?;
        }
        Ok(())
    }

    /// Sends message `number`, with the work around it. One that nobody waits for is as good as
    /// sent.
    fn send(&mut self, ready: &mut Ready, number: u64, load: &Load) -> Result<(), Failure> {
        black_box(load.bear(When::Before));
        let apart = ready.end.base.sends_are_apart();
        ready.push_send(number, !apart || number % SIGNALLED_EACH == SIGNALLED_EACH - 1)?;
        ready.post_sends()?;
        if apart {
            ready.end.base.sent_apart()?;
            self.sent = number + 1;
        }
        black_box(load.bear(When::After));
        Ok(())
    }
}

/// Asks `count` times and measures each answer.
///
/// # Errors
/// If a message does not come back, or comes back altered.
pub fn ask(ready: &mut Ready, count: u64, load: &Load) -> Result<Samples, Failure> {
    let mut samples = Samples::new(usize::try_from(count).unwrap_or(0));
    let mut progress = Progress::default();
    for number in 0..count {
        let start = Instant::now();
        progress.send(ready, number, load)?;
        while progress.received <= number || progress.sent <= number {
            progress.advance(ready)?;
        }
        samples.add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    post_the_rest(ready)?;
    Ok(samples)
}

/// Receives that would have waited for others.
fn post_the_rest(ready: &mut Ready) -> Result<(), Failure> {
    if ready.end.base.has_unposted() { ready.post_receives() } else { Ok(()) }
}

/// Answers `count` times.
///
/// # Errors
/// If a question does not come, or comes altered.
pub fn answer(ready: &mut Ready, count: u64, load: &Load) -> Result<(), Failure> {
    let mut progress = Progress::default();
    for number in 0..count {
        while progress.received <= number {
            progress.advance(ready)?;
        }
        progress.send(ready, number, load)?;
    }
    while progress.sent < count {
        progress.advance(ready)?;
    }
    post_the_rest(ready)
}
