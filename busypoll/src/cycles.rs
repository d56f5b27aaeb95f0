//! Processor cycles, where the machine counts them and lets this process know.

use std::fs::File;
use std::io::{self, Read};

/// Counts the cycles of the thread that opened it and of all threads that come of it.
#[derive(Debug)]
pub struct CycleCounter(File);

impl CycleCounter {
    /// Begins to count.
    ///
    /// # Errors
    /// `NotFound` where the machine has no such counter, as many virtual ones, and
    /// `PermissionDenied` where `kernel.perf_event_paranoid` forbids it.
    pub fn open() -> io::Result<CycleCounter> {
        crate::sys::cycle_counter().map(|fd| CycleCounter(File::from(fd)))
    }

    /// Cycles since it was opened; those of a thread are in it for sure once it has ended.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_grow_or_the_machine_says_why_not() {
        match CycleCounter::open() {
            Ok(counter) => {
                let before = counter.read().unwrap();
                let work = std::thread::spawn(|| (0..100_000_u64).fold(1, |a, b| a ^ (b * a)));
                std::hint::black_box(work.join().unwrap());
                assert!(counter.read().unwrap() > before);
            }
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }
}
