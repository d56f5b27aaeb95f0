//! How long calls on a socket wait, and to which of several addresses they go.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Wait;

/// No timeout.
const NEVER: u64 = u64::MAX;

/// How calls on a socket wait; shared by its clones, as with the kernel's descriptors.
pub(super) struct Patience {
    nonblocking: AtomicBool,
    read_ns: AtomicU64,
    write_ns: AtomicU64,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience {
            nonblocking: AtomicBool::new(false),
            read_ns: AtomicU64::new(NEVER),
            write_ns: AtomicU64::new(NEVER),
        }
    }

    pub(super) fn set_nonblocking(&self, on: bool) {
        self.nonblocking.store(on, Ordering::Relaxed);
    }

    fn wait(&self, timeout_ns: &AtomicU64) -> Wait {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Wait::Never;
        }
        match timeout_ns.load(Ordering::Relaxed) {
            NEVER => Wait::Forever,
            ns => Wait::for_at_most(Duration::from_nanos(ns)),
        }
    }

    pub(super) fn to_read(&self) -> Wait {
        self.wait(&self.read_ns)
    }

    pub(super) fn to_write(&self) -> Wait {
        self.wait(&self.write_ns)
    }

    pub(super) fn set_read(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.read_ns, timeout)
    }

    pub(super) fn set_write(&self, timeout: Option<Duration>) -> io::Result<()> {
        set(&self.write_ns, timeout)
    }

    pub(super) fn read_timeout(&self) -> Option<Duration> {
        get(&self.read_ns)
    }

    pub(super) fn write_timeout(&self) -> Option<Duration> {
        get(&self.write_ns)
    }
}

fn set(timeout_ns: &AtomicU64, timeout: Option<Duration>) -> io::Result<()> {
    // As std has it: a timeout of zero would be no timeout to the kernel, so it is refused.
    if timeout == Some(Duration::ZERO) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a timeout must not be zero"));
    }
    let ns = timeout.map_or(NEVER, |t| u64::try_from(t.as_nanos()).unwrap_or(NEVER));
    timeout_ns.store(ns, Ordering::Relaxed);
    Ok(())
}

fn get(timeout_ns: &AtomicU64) -> Option<Duration> {
    Some(timeout_ns.load(Ordering::Relaxed)).filter(|&ns| ns != NEVER).map(Duration::from_nanos)
}

/// Tries each address until one works, as `std::net` does.
pub(super) fn each<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "could not resolve to any addresses");
    for address in addresses.to_socket_addrs()? {
        match attempt(address) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}
