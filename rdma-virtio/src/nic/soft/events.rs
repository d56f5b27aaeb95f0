//! The fd that a sleeper waits for: an epoll over the sockets of a soft NIC.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An epoll descriptor, level-triggered.
#[derive(Debug)]
pub(super) struct Events {
    epoll: OwnedFd,
}

impl Events {
    /// A new one that waits for nothing yet.
    pub(super) fn new() -> io::Result<Events> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just returned this descriptor; nobody else has it.
        Ok(Events { epoll: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The descriptor to wait for.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Waits for `fd` too. It is forgotten when it is closed.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        let mut event =
            libc::epoll_event { events: u32::try_from(libc::EPOLLIN).unwrap_or(1), u64: 0 };
        // SAFETY: `event` is valid and outlives the call.
        let result = unsafe { libc::epoll_ctl(self.fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
