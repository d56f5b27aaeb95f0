//! One way as fast as it goes: the sender keeps its queue filled, the receiver posts its receives
//! again and says at the end that it has all.
//!
//! Owns the loops. One completion in `SIGNALLED_EACH` sends; what the receiver has not posted yet
//! the transport waits for (RNR retry), so that the figure is one of the wire and its pace.

use crate::Failure;
use crate::rounds::Progress;
use crate::setup::{Ready, SENDS};
use std::time::{Duration, Instant};

/// Sends that share a completion.
const SIGNALLED_EACH: u64 = 16;

/// Sends `count` messages and waits for the receiver's answer; returns the time it took.
///
/// # Errors
/// If a message does not arrive.
pub fn send(ready: &mut Ready, count: u64) -> Result<Duration, Failure> {
    let window = u64::try_from(SENDS).unwrap_or(0);
    let mut progress = Progress::default();
    let start = Instant::now();
    let mut next = 0;
    while progress.sent < count || progress.received == 0 {
        let mut pushed = false;
        while next < count && next < progress.sent + window {
            let last = next + 1 == count;
            ready.push_send(next, last || (next + 1) % SIGNALLED_EACH == 0)?;
            next += 1;
            pushed = true;
        }
        if pushed {
            ready.post_sends()?;
        }
        progress.advance(ready)?;
    }
    Ok(start.elapsed())
}

/// Receives `count` messages and says so with one.
///
/// # Errors
/// If a message does not arrive, or arrives altered.
pub fn receive(ready: &mut Ready, count: u64) -> Result<(), Failure> {
    let mut progress = Progress::default();
    while progress.received < count {
        progress.advance(ready)?;
    }
    ready.push_send(0, true)?;
    ready.post_sends()?;
    while progress.sent == 0 {
        progress.advance(ready)?;
    }
    Ok(())
}
