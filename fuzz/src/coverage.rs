//! Which edges of the program an input reached, as LLVM's inline counters say.
//!
//! Owns the record of what was seen. The counters exist only in a build with
//! `-Cpasses=sancov-module` (`fuzz/run` makes one, on a stable compiler); in any other nothing is
//! ever new, and inputs are replayed and mutated without guidance.

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static FIRST: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Called by the instrumented program before `main`, with the range of its counters.
// SAFETY: the name is the one that LLVM's pass calls, and nobody else defines it.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    FIRST.store(start, Ordering::Relaxed);
    COUNT.store(stop.addr().saturating_sub(start.addr()), Ordering::Relaxed);
}

/// What was seen so far.
#[derive(Debug)]
pub struct Coverage {
    seen: Vec<u8>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { seen: vec![0; counters().len()] }
    }
}

/// The counters; empty if the program has none.
fn counters() -> &'static mut [u8] {
    let Some(first) = NonNull::new(FIRST.load(Ordering::Relaxed)) else { return &mut [] };
    let length = COUNT.load(Ordering::Relaxed);
    // SAFETY: the range that the instrumented program announced, mapped as long as it runs. Only
    // its one fuzzing thread counts in it, and never while the result is in use: the functions of
    // this file, which are not instrumented in what matters, use it for a moment each.
    unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), length) }
}

/// A class for about each doubling, as a bit: how often is news only when it is much more often.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128..=255 => 128,
    }
}

/// Notes what a few edges counted; whether it is new.
fn note(seen: &mut [u8], counts: &[u8]) -> bool {
    let mut new = false;
    for (seen, count) in seen.iter_mut().zip(counts) {
        let class = class(*count);
        new |= class & !*seen != 0;
        *seen |= class;
    }
    new
}

impl Coverage {
    /// Whether this build counts at all.
    #[must_use]
    pub fn is_guided(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Forgets what the last input reached.
    pub fn begin(&mut self) {
        counters().fill(0);
    }

    /// Whether the input since [`Coverage::begin`] reached something new; it is no longer new then.
    pub fn end(&mut self) -> bool {
        let mut new = false;
        let (words, rest) = counters().as_chunks::<16>();
        for (index, word) in words.iter().enumerate() {
            // Nearly all of them: this loop is most of what a short target takes.
            if u128::from_ne_bytes(*word) != 0 {
                new |= note(&mut self.seen[16 * index..], word);
            }
        }
        new |= note(&mut self.seen[16 * words.len()..], rest);
        new
    }

    /// Edges reached so far.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}
