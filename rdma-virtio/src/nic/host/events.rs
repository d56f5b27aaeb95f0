//! The fd to sleep on: an epoll instance that holds the link watch always and the device's own fd
//! only while armed, so that a spinning worker costs the kernel's side no wake-up.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::super::rtnl::owned;

/// An epoll instance over a device and its link watch.
#[derive(Debug)]
pub(in super::super) struct Events {
    epoll: OwnedFd,
    armed: bool,
}

fn control(epoll: RawFd, operation: i32, fd: RawFd, events: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: u32::try_from(events).unwrap_or(0), u64: 0 };
    // SAFETY: `event` is a valid epoll_event that outlives the call.
    let result = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Events {
    /// Watches `link` from now on.
    pub(in super::super) fn new(link: RawFd) -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        control(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, link, libc::EPOLLIN)?;
        Ok(Self { epoll, armed: false })
    }

    /// The fd that becomes readable.
    pub(in super::super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Watches the device for `events` too; the latest call counts.
    pub(in super::super) fn arm(&mut self, device: RawFd, events: i32) -> io::Result<()> {
        let operation = if self.armed { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        control(self.epoll.as_raw_fd(), operation, device, events)?;
        self.armed = true;
        Ok(())
    }

    /// Watches the device no longer.
    pub(in super::super) fn disarm(&mut self, device: RawFd) {
        if std::mem::take(&mut self.armed) {
            // It fails only if the fd is not there, which is what is wanted.
            let _ = control(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, device, 0);
        }
    }
}
