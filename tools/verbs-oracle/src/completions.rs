//! Waiting for completions, spinning or asleep.
//!
//! Owns the counts of both. Asleep means: arm, poll once more, poll(2) on the channel, take the
//! events. Nothing is allocated.

use crate::options::Wait;
use crate::{Failure, said};
use roceway_rdma_virtio::verbs::completion::{CompletionChannel, CompletionQueue};
use roceway_rdma_virtio::verbs::work_completion::WorkCompletion;
use std::time::{Duration, Instant};

/// Completions taken at once.
pub const BATCH: usize = 32;

/// A completion queue and the manner of waiting for it.
pub struct Waiter {
    /// The queue.
    pub queue: CompletionQueue,
    /// Its channel.
    pub channel: CompletionChannel,
    /// How to wait.
    pub wait: Wait,
    /// How long to wait at most.
    pub patience: Duration,
    /// Polls that found nothing.
    pub empty: u64,
    /// Events taken.
    pub events: u64,
}

impl Waiter {
    /// Takes completions; waits until there is one.
    ///
    /// # Errors
    /// If none comes in time, or one is an error.
    pub fn next(&mut self, out: &mut [WorkCompletion; BATCH]) -> Result<usize, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let taken = self.queue.poll(out)?;
            if taken > 0 {
                return checked(out, taken);
            }
            self.empty += 1;
            if Instant::now() > deadline {
                let seconds = self.patience.as_secs();
                return Err(said(format!("no completion within {seconds} s")));
            }
            match self.wait {
                Wait::Poll => std::thread::yield_now(),
                Wait::Event => {
                    if let Some(taken) = self.sleep(out)? {
                        return checked(out, taken);
                    }
                }
            }
        }
    }

    /// Sleeps until an event, unless a completion came before it was asked for.
    fn sleep(&mut self, out: &mut [WorkCompletion; BATCH]) -> Result<Option<usize>, Failure> {
        self.queue.arm()?;
        let taken = self.queue.poll(out)?;
        if taken > 0 {
            return Ok(Some(taken));
        }
        readable(self.channel.fd(), Duration::from_secs(1))?;
        self.events += u64::from(self.channel.take_events()?);
        Ok(None)
    }
}

/// Waits until a descriptor is readable or the time is over.
///
/// # Errors
/// If poll(2) fails.
pub fn readable(fd: i32, patience: Duration) -> Result<bool, Failure> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let timeout = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one entry.
    let result = unsafe { libc::poll(&mut entry, 1, timeout) };
    if result < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(result > 0) }
}

fn checked(out: &[WorkCompletion], taken: usize) -> Result<usize, Failure> {
    match out[..taken].iter().find(|completion| !completion.is_success()) {
        None => Ok(taken),
        Some(bad) => Err(said(format!(
            "work request {:#x} of queue pair {}: {} (vendor's code {:#x})",
            bad.wr_id(),
            bad.queue_pair(),
            bad.status(),
            bad.vendor_error()
        ))),
    }
}
