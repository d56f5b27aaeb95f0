//! Copies of many bytes without the instruction that some processors are slow at.

use std::hint::cold_path;
use std::ptr;

/// Longest copy for which no C library takes `rep movsb`.
const VECTORS_MAX: usize = 2048;
/// Where two addresses are told apart by a processor that compares them before it knows all of
/// their bits, and how near they may come there.
const PAGE: usize = 4096;
const NEAR: usize = 32;

/// Copies `count` bytes. AMD's Zen 3 and Zen 4 are slow at `rep movsb` where the copy begins less
/// than `NEAR` bytes further into its page than what it copies: each load is taken for one of
/// bytes just stored, and they copy 2.8 GB/s where vectors copy 16 to 29 (glibc's bug 30994;
/// measured on family 25, model 17). There the copy is made in pieces for which vectors are taken.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`].
#[inline(always)]
pub unsafe fn copy_long(from: *const u8, to: *mut u8, count: usize) {
    if runs_into_itself(from, to, count) {
        cold_path();
        // SAFETY: the caller's promise.
        return unsafe { copy_in_pieces(from, to, count) };
    }
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, count) }
}

#[inline(always)]
fn runs_into_itself(from: *const u8, to: *mut u8, count: usize) -> bool {
    let ahead = to.addr().wrapping_sub(from.addr()) % PAGE;
    count > VECTORS_MAX && ahead.wrapping_sub(1) < NEAR - 1
}

#[inline(never)]
unsafe fn copy_in_pieces(from: *const u8, to: *mut u8, count: usize) {
    let mut done = 0;
    while done < count {
        let piece = VECTORS_MAX.min(count - done);
        // SAFETY: a piece of what the caller vouches for.
        unsafe { ptr::copy_nonoverlapping(from.wrapping_add(done), to.wrapping_add(done), piece) };
        done += piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_copies_are_whole_wherever_they_begin() {
        let source: Vec<u8> = (0..3 * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for ahead in [0, 1, NEAR - 1, NEAR, PAGE - 1] {
            for len in [VECTORS_MAX, VECTORS_MAX + 1, 2 * PAGE - 1] {
                let mut all = vec![0; 4 * PAGE];
                let apart = all.as_ptr().addr().wrapping_sub(source.as_ptr().addr());
                let at = ahead.wrapping_sub(apart) % PAGE;
                let (from, to) = (source.as_ptr(), all[at..].as_mut_ptr());
                let slow = runs_into_itself(from, to, len);
                assert_eq!(slow, len > VECTORS_MAX && (1..NEAR).contains(&ahead));
                // SAFETY: both have so many bytes.
                unsafe { copy_long(from, to, len) };
                assert_eq!(all[at..at + len], source[..len], "{ahead} {len}");
                assert!(all[at + len..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
