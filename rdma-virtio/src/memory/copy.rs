//! Copies of many bytes: by the C library, or in vectors of our own where that is known to be
//! faster. Keeps nothing but which of them this processor is for.
//!
//! For copies of some length C libraries take the instruction `rep movsb`. AMD's processors take a
//! while to start it, and crawl where a copy begins 1 to 31 bytes further into its page than what
//! it copies: each load is taken for one of bytes just stored (glibc's bug 30994). On an EPYC of
//! family 25, 64 KiB that another core wrote, in 16 pieces of 4 KiB, take 2.50 µs so in the median
//! and 21.9 µs where it crawls; a plain loop over vectors takes 2.44 and 2.58 µs
//! (`examples/copy_ways.rs`). Of AMD's only that family was tried; other
//! vendors' processors were not, and are left to their C library.

use std::ptr;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicU8, Ordering};

/// Longest copy for which no C library takes `rep movsb`.
const LIBRARY_MAX: usize = 2048;
/// Bytes of a turn of the loop.
const TURN: usize = 128;
const _: () = assert!(TURN <= LIBRARY_MAX);

/// Copies `from` to `to`.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy of one length to another");
    // SAFETY: two slices of one length, one of which nobody else has.
    unsafe { copy_long(from.as_ptr(), to.as_mut_ptr(), from.len()) }
}

/// Copies `count` bytes.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`]; but what is copied may be written meanwhile by another
/// process, and comes torn then.
#[inline(always)]
pub unsafe fn copy_long(from: *const u8, to: *mut u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if count > LIBRARY_MAX && is_for_vectors() {
        // SAFETY: the caller's promise; the processor has AVX2, and there is more than a turn.
        return unsafe { copy_in_vectors(from, to, count) };
    }
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, count) }
}

/// Whether this is a processor of AMD's with AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn is_for_vectors() -> bool {
    const NO: u8 = 1;
    const YES: u8 = 2;
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    #[cold]
    fn look() -> bool {
        let vendor = std::arch::x86_64::__cpuid(0);
        let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        let yes =
            is_amd.as_flattened() == b"AuthenticAMD" && std::arch::is_x86_feature_detected!("avx2");
        KNOWN.store(if yes { YES } else { NO }, Ordering::Relaxed);
        yes
    }
    match KNOWN.load(Ordering::Relaxed) {
        YES => true,
        NO => false,
        _ => look(),
    }
}

/// A loop over vectors of AVX2. Its last turn may copy bytes again.
///
/// # Safety
/// As for [`copy_long`]; the processor has AVX2, and `count` is at least [`TURN`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn copy_in_vectors(from: *const u8, to: *mut u8, count: usize) {
    let last = count - TURN;
    let mut at = 0;
    while at < last {
        // SAFETY: a turn from here ends within `count`.
        unsafe { turn(from.wrapping_add(at), to.wrapping_add(at)) };
        at += TURN;
    }
    // SAFETY: it ends at `count`.
    unsafe { turn(from.wrapping_add(last), to.wrapping_add(last)) };
}

/// Copies [`TURN`] bytes.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn turn(from: *const u8, to: *mut u8) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_storeu_si256};
    const VECTORS: usize = TURN / size_of::<__m256i>();
    let (from, to) = (from.cast::<__m256i>(), to.cast::<__m256i>());
    let vectors: [__m256i; VECTORS] = std::array::from_fn(|n| {
        // SAFETY: the caller's promise; it needs no alignment.
        unsafe { _mm256_loadu_si256(from.wrapping_add(n)) }
    });
    for (n, vector) in vectors.into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.wrapping_add(n), vector) };
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::slice;

    use super::*;

    type Way = unsafe fn(*const u8, *mut u8, usize);

    #[test]
    fn long_copies_are_whole_wherever_they_begin() {
        let source: Vec<u8> = (0..16_384).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut ways: Vec<Way> = vec![copy_any];
        if std::arch::is_x86_feature_detected!("avx2") {
            ways.push(copy_in_vectors);
        }
        for way in ways {
            for (at, ahead) in [(0, 0), (0, 1), (7, 31), (1, 32), (64, 4_095)] {
                for len in [TURN, TURN + 1, 255, 256, LIBRARY_MAX, LIBRARY_MAX + 1, 4_096, 8_191] {
                    let mut all = vec![0; 16_384];
                    let from = &source[at..];
                    // SAFETY: both have so many bytes, and overlap nowhere.
                    unsafe { way(from.as_ptr(), all[at + ahead..].as_mut_ptr(), len) };
                    assert_eq!(all[at + ahead..][..len], from[..len], "{at} {ahead} {len}");
                    assert!(all[..at + ahead].iter().all(|&byte| byte == 0));
                    assert!(all[at + ahead + len..].iter().all(|&byte| byte == 0));
                }
            }
        }
    }

    /// By slices, as the stack's bytes go.
    unsafe fn copy_any(from: *const u8, to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        let from = unsafe { slice::from_raw_parts(from, count) };
        // SAFETY: the same.
        let to = unsafe { slice::from_raw_parts_mut(to, count) };
        copy(to, from);
    }

    #[test]
    #[should_panic(expected = "a copy of one length to another")]
    fn slices_of_two_lengths_are_not_copied() {
        copy(&mut [0; 2], &[0; 3]);
    }
}
