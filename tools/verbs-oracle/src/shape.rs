//! What Roceway's calls look like beside the barest ones, a part at a time: so that what it costs
//! more than bare verbs can be told apart from what its stack costs.
//!
//! Owns the numbers, which are Roceway's defaults for one peer.

use crate::{Failure, said};
use clap::ValueEnum;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How much of Roceway's shape a run has; each has all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Like {
    /// Nothing: one queue for all completions, every send signalled and waited for, receives of one
    /// element that are posted again one by one.
    Bare,
    /// Sends that have a completion queue of their own, which is not armed, and of which one in 32
    /// is signalled; nobody waits for them.
    Sends,
    /// Receives of a header and the buffers of the longest message (rc: 17, ud: 1), posted again
    /// some at a time.
    Receives,
    /// Sleeping as a worker does: ppoll(2) on the doorbell and on an epoll(7) descriptor with the
    /// completion channel and the one of what is rare in it.
    Sleep,
}

/// A send in so many is signalled.
pub const SIGNALLED_EACH: u64 = 32;
/// Bytes of the header in front of a message.
pub const HEADER: usize = 24;
/// Bytes of a buffer.
pub const BUFFER: usize = 4096;

impl Like {
    /// Elements of a receive.
    #[must_use]
    pub fn elements(self, datagrams: bool) -> usize {
        match (self < Like::Receives, datagrams) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 18,
        }
    }

    /// Receives posted together.
    #[must_use]
    pub fn together(self, datagrams: bool) -> usize {
        match (self < Like::Receives, datagrams) {
            (true, _) => 1,
            (false, true) => 30,
            (false, false) => 4,
        }
    }
}

/// What a worker sleeps on.
pub struct Bed {
    bell: OwnedFd,
    watch: OwnedFd,
    _rare: OwnedFd,
}

fn owned(fd: RawFd) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: opened just now, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn epoll() -> Result<OwnedFd, Failure> {
    // SAFETY: no memory is passed.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

fn add(epoll: &OwnedFd, fd: RawFd) -> Result<(), Failure> {
    let events = u32::try_from(libc::EPOLLIN).unwrap_or(0);
    let mut event = libc::epoll_event { events, u64: 0 };
    // SAFETY: an event that lives across the call.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

impl Bed {
    /// One that the channel with this descriptor wakes.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new(channel: RawFd) -> Result<Bed, Failure> {
        // SAFETY: no memory is passed.
        let bell = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let (watch, rare) = (epoll()?, epoll()?);
        add(&rare, bell.as_raw_fd())?;
        add(&watch, channel)?;
        add(&watch, rare.as_raw_fd())?;
        Ok(Bed { bell, watch, _rare: rare })
    }

    /// Sleeps a second at most.
    ///
    /// # Errors
    /// If ppoll(2) fails.
    pub fn sleep(&self) -> Result<(), Failure> {
        let wait = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut entries = [wait(self.bell.as_raw_fd()), wait(self.watch.as_raw_fd()), wait(-1)];
        let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // SAFETY: three entries and a time that live across the call; no signal mask.
        let result = unsafe { libc::ppoll(entries.as_mut_ptr(), 3, &second, std::ptr::null()) };
        if result < 0 { Err(said(std::io::Error::last_os_error().to_string())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bed_is_left_when_the_channel_has_something() {
        // SAFETY: no memory is passed.
        let channel = owned(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC) }).unwrap();
        let before = std::time::Instant::now();
        Bed::new(channel.as_raw_fd()).unwrap().sleep().unwrap();
        assert!(before.elapsed() < std::time::Duration::from_millis(900));
    }

    #[test]
    fn each_step_has_what_the_one_before_has() {
        let all = [Like::Bare, Like::Sends, Like::Receives, Like::Sleep];
        assert!(all.is_sorted());
        assert_eq!(all.map(|like| like.elements(false)), [1, 1, 18, 18]);
        assert_eq!(all.map(|like| like.together(true)), [1, 1, 30, 30]);
    }
}
