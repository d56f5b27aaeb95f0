//! Copies of a few bytes without a call: requests and responses are often that short. Many bytes
//! are for the memory that they lie in.

use crate::memory::Memory;

/// Longest copy that is done in place.
const SHORT_MAX: usize = 16;

/// Copies `source` to `destination`, which is as long, to or from a slot of `M`; many bytes in the
/// way that is fastest there. Panics if it is not.
#[inline(always)]
pub(crate) fn copy_any<M: Memory>(destination: &mut [u8], source: &[u8]) {
    if source.len() > SHORT_MAX {
        M::copy(destination, source);
    } else {
        copy(destination, source);
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
