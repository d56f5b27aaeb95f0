//! Copies of a few bytes without a call: requests and responses are often that short. And of many
//! bytes without the instruction that some processors are slow at.

/// Longest copy that is done in place.
const SHORT_MAX: usize = 16;

/// Longest copy for which no C library takes `rep movsb`.
const VECTORS_MAX: usize = 2048;
/// Where two addresses are told apart by a processor that compares them before it knows all of
/// their bits, and how near they may come there.
const PAGE: usize = 4096;
const NEAR: usize = 32;

/// Whether a copy begins less than [`NEAR`] bytes further into its page than what it copies. AMD's
/// Zen 3 and Zen 4 then take each load of `rep movsb` for one of bytes just stored: 2.8 GB/s where
/// vectors copy 16 to 29 (glibc's bug 30994; measured on family 25, model 17).
#[inline]
fn runs_into_itself(destination: &[u8], source: &[u8]) -> bool {
    let ahead = destination.as_ptr().addr().wrapping_sub(source.as_ptr().addr()) % PAGE;
    source.len() > VECTORS_MAX && ahead.wrapping_sub(1) < NEAR - 1
}

/// Copies such bytes in pieces for which vectors are taken.
#[cold]
fn copy_in_pieces(destination: &mut [u8], source: &[u8]) {
    for (to, from) in destination.chunks_mut(VECTORS_MAX).zip(source.chunks(VECTORS_MAX)) {
        to.copy_from_slice(from);
    }
}

/// Copies `source` to `destination`, which is as long. Panics if it is not.
#[inline(always)]
pub(crate) fn copy(destination: &mut [u8], source: &[u8]) {
    assert_eq!(destination.len(), source.len(), "a copy of one length to another");
    if let ([to], [from]) = (&mut *destination, source) {
        *to = *from;
        return;
    }
    if source.len() > SHORT_MAX {
        if runs_into_itself(destination, source) {
            return copy_in_pieces(destination, source);
        }
        destination.copy_from_slice(source);
        return;
    }
    if let (Some(from), Some(to)) = (source.first_chunk::<8>(), destination.first_chunk_mut()) {
        // Two words that may overlap cover every length from 8 to 16.
        let (first, last) = (*from, source.last_chunk::<8>().copied());
        *to = first;
        if let (Some(last), Some(to)) = (last, destination.last_chunk_mut()) {
            *to = last;
        }
        return;
    }
    for (to, from) in destination.iter_mut().zip(source) {
        *to = *from;
        // Keeps the loop a loop: as a call it would cost more than it does.
        core::hint::black_box(());
    }
}

#[cfg(test)]
mod tests {
    use super::{NEAR, PAGE, VECTORS_MAX};

    #[test]
    fn long_copies_are_whole_wherever_they_begin() {
        let source: std::vec::Vec<u8> =
            (0..3 * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for ahead in [0, 1, NEAR - 1, NEAR, PAGE - 1] {
            for len in [VECTORS_MAX, VECTORS_MAX + 1, 2 * PAGE - 1] {
                let mut all = std::vec![0; 4 * PAGE];
                let apart = all.as_ptr().addr().wrapping_sub(source.as_ptr().addr());
                let at = (ahead.wrapping_sub(apart)) % PAGE;
                super::copy(&mut all[at..at + len], &source[..len]);
                assert_eq!(all[at..at + len], source[..len], "{ahead} {len}");
                assert!(all[at + len..].iter().all(|&byte| byte == 0));
                let slow = super::runs_into_itself(&all[at..at + len], &source[..len]);
                let expected = len > VECTORS_MAX && (1..NEAR).contains(&ahead);
                assert_eq!(slow, expected, "{ahead} {len}");
            }
        }
    }

    #[test]
    fn every_length_is_copied_whole() {
        let source: std::vec::Vec<u8> = (1..=64).collect();
        for len in 0..64 {
            let mut destination = [0; 64];
            super::copy(&mut destination[..len], &source[..len]);
            assert_eq!(destination[..len], source[..len]);
            assert!(destination[len..].iter().all(|&byte| byte == 0));
        }
    }
}
