//! The eventfd of a doorbell. Under loom a condition variable stands in for it, so that a sleep
//! that nobody ends is a deadlock that loom reports.

#[cfg(not(loom))]
pub(crate) use in_linux::Event;
#[cfg(loom)]
pub(crate) use in_loom::Event;

#[cfg(not(loom))]
mod in_linux {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, RawFd};

    /// A non-blocking eventfd: readable from `signal` to `take`.
    pub(crate) struct Event(File);

    impl Event {
        pub(crate) fn new() -> io::Result<Event> {
            Ok(Event(File::from(crate::sys::eventfd()?)))
        }

        /// Makes it readable. A full counter (2^64 - 2 signals untaken) is readable already, so
        /// the refusal loses nothing.
        pub(crate) fn signal(&self) {
            while let Err(error) = (&self.0).write(&1u64.to_ne_bytes())
                && error.kind() == io::ErrorKind::Interrupted
            {}
        }

        /// Makes it unreadable; returns whether it was readable.
        pub(crate) fn take(&self) -> bool {
            loop {
                match (&self.0).read(&mut [0; 8]) {
                    Ok(_) => return true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
        }

        pub(crate) fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

#[cfg(loom)]
mod in_loom {
    use loom::sync::{Condvar, Mutex};
    use std::io;
    use std::os::fd::RawFd;

    pub(crate) struct Event {
        readable: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        pub(crate) fn new() -> io::Result<Event> {
            Ok(Event { readable: Mutex::new(false), changed: Condvar::new() })
        }

        pub(crate) fn signal(&self) {
            *self.readable.lock().unwrap() = true;
            self.changed.notify_one();
        }

        pub(crate) fn take(&self) -> bool {
            std::mem::take(&mut *self.readable.lock().unwrap())
        }

        /// Sleeps until readable and takes it, as `EventWait` does.
        #[cfg(test)]
        pub(crate) fn wait(&self) {
            let mut readable = self.readable.lock().unwrap();
            while !*readable {
                readable = self.changed.wait(readable).unwrap();
            }
            *readable = false;
        }

        pub(crate) fn fd(&self) -> RawFd {
            -1
        }
    }
}
