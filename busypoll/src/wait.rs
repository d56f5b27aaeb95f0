//! The sleep of a real core: one `ppoll` over the doorbell's eventfd and the device's descriptor.
//!
//! `ppoll` rather than epoll, timerfd and their set-up: few descriptors, a timeout in nanoseconds,
//! one call, on every kernel. A signal ends the sleep and is reported, never retried here, so that
//! the loop can look at what the handler left.

use crate::doorbell::Doorbell;
use crate::idle::{Sleeper, Wake};
use crate::sys;
use std::io;
use std::os::fd::RawFd;

/// Waits for a device, other threads and time.
pub struct EventWait {
    bell: Doorbell,
    /// The doorbell's eventfd, then the devices' descriptors (-1 if there is none).
    fds: [libc::pollfd; 3],
}

impl EventWait {
    /// Waits on `bell` and on `device`, which becomes readable with an event and which the caller
    /// keeps open. Without a device only the doorbell and the time end a sleep.
    #[must_use]
    pub fn new(bell: Doorbell, device: Option<RawFd>) -> EventWait {
        let fds = [bell.event().fd(), device.unwrap_or(-1), -1].map(sys::wait_for_input);
        EventWait { bell, fds }
    }

    /// The same, and on a second device: for work between two.
    #[must_use]
    pub fn and(mut self, device: RawFd) -> EventWait {
        self.fds[2] = sys::wait_for_input(device);
        self
    }

    /// The bell for other threads.
    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        &self.bell
    }
}

impl Sleeper for EventWait {
    fn arm(&mut self) {
        self.bell.arm();
    }

    fn sleep(&mut self, timeout_ns: Option<u64>) -> io::Result<Wake> {
        match sys::poll(&mut self.fds, timeout_ns) {
            Ok(0) => Ok(Wake::Timeout),
            Ok(_) => {
                // The eventfd is taken here in any case: a late ring's write would otherwise end
                // every sleep from now on.
                let rung = self.fds[0].revents != 0 && self.bell.event().take();
                // An error or hang-up of the device is an event too: its cold work will name it.
                let device = self.fds[1].revents != 0 || self.fds[2].revents != 0;
                Ok(if rung && !device { Wake::Doorbell } else { Wake::Device })
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Wake::Signal),
            Err(error) => Err(error),
        }
    }

    fn disarm(&mut self) {
        self.bell.disarm();
    }
}

#[cfg(all(test, not(loom)))]
#[path = "wait_tests.rs"]
mod tests;
