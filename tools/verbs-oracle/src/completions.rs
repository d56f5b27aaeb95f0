//! Waiting for completions, spinning or asleep, by plain or extended polls.
//!
//! Owns the counts of all. Asleep means: arm, poll once more, poll(2) on the channel, take the
//! events. Nothing is allocated.

use crate::options::Wait;
use crate::shape::Bed;
use crate::{Failure, said};
use roceway_rdma_virtio::verbs::completion::{CompletionChannel, CompletionQueue};
use roceway_rdma_virtio::verbs::extended::ExtendedCompletionQueue;
use roceway_rdma_virtio::verbs::work_completion::{CompletionStatus, WorkCompletion};
use std::time::{Duration, Instant};

/// Completions taken at once.
pub const BATCH: usize = 32;

/// A completion, however it was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Of the work request.
    pub wr_id: u64,
    /// How it ended.
    pub status: CompletionStatus,
    /// Bytes received.
    pub byte_len: u32,
    /// The vendor's code for an error.
    pub vendor_error: u32,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { wr_id: 0, status: CompletionStatus::Success, byte_len: 0, vendor_error: 0 }
    }
}

/// A completion queue, with the calls that it is polled by.
pub enum Queue {
    /// `ibv_poll_cq`.
    Plain(CompletionQueue),
    /// `ibv_start_poll` and what follows it.
    Extended(ExtendedCompletionQueue),
}

impl Queue {
    /// The queue, for making queue pairs and arming.
    #[must_use]
    pub fn plain(&self) -> &CompletionQueue {
        match self {
            Queue::Plain(queue) => queue,
            Queue::Extended(queue) => queue.queue(),
        }
    }

    /// Takes completions; returns how many.
    ///
    /// # Errors
    /// If the queue has failed.
    pub fn poll(&mut self, out: &mut [Seen; BATCH]) -> Result<usize, Failure> {
        match self {
            Queue::Plain(queue) => {
                let mut taken = [WorkCompletion::default(); BATCH];
                let count = queue.poll(&mut taken)?;
                for (seen, completion) in out.iter_mut().zip(&taken[..count]) {
                    *seen = Seen {
                        wr_id: completion.wr_id(),
                        status: completion.status(),
                        byte_len: completion.byte_len(),
                        vendor_error: completion.vendor_error(),
                    };
                }
                Ok(count)
            }
            Queue::Extended(queue) => {
                let mut places = out.iter_mut();
                Ok(queue.poll(BATCH, |polled| {
                    if let Some(seen) = places.next() {
                        *seen = Seen {
                            wr_id: polled.wr_id(),
                            status: polled.status(),
                            byte_len: polled.byte_len(),
                            vendor_error: polled.vendor_error(),
                        };
                    }
                })?)
            }
        }
    }
}

/// A completion queue and the manner of waiting for it.
pub struct Waiter {
    /// The queue.
    pub queue: Queue,
    /// Its channel.
    pub channel: CompletionChannel,
    /// What is slept on, if not on the channel alone.
    pub bed: Option<Bed>,
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
    pub fn next(&mut self, out: &mut [Seen; BATCH]) -> Result<usize, Failure> {
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
    fn sleep(&mut self, out: &mut [Seen; BATCH]) -> Result<Option<usize>, Failure> {
        self.queue.plain().arm()?;
        let taken = self.queue.poll(out)?;
        if taken > 0 {
            return Ok(Some(taken));
        }
        self.events += u64::from(match &self.bed {
            None => {
                readable(self.channel.fd(), Duration::from_secs(1))?;
                self.channel.take_events()?
            }
            Some(bed) => {
                bed.sleep()?;
                self.channel.take_events_of(1)?
            }
        });
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

fn checked(out: &[Seen], taken: usize) -> Result<usize, Failure> {
    match out[..taken].iter().find(|seen| seen.status != CompletionStatus::Success) {
        None => Ok(taken),
        Some(bad) => Err(said(format!(
            "work request {:#x}: {} (vendor's code {:#x})",
            bad.wr_id, bad.status, bad.vendor_error
        ))),
    }
}
