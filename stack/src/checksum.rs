//! The Internet checksum (RFC 1071): one's complement sums that combine, at even and odd offsets,
//! in any order. Sums are kept in the machine's byte order, where the sum is the same but for its
//! bytes' order (RFC 1071 §2(B)), and turned once at the end.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A one's complement sum of 16-bit words, not yet folded and not inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// Adds with the end-around carry.
const fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The sum of eight words, carries kept in one chain.
fn add_words(accumulator: u64, words: &[u8; 64]) -> u64 {
    let mut sum = accumulator;
    let mut carry = false;
    for word in words.as_chunks::<8>().0 {
        (sum, carry) = sum.carrying_add(u64::from_ne_bytes(*word), carry);
    }
    add_carry(sum, u64::from(carry))
}

/// The sum of fewer than 64 bytes; an odd last byte is padded with zero (RFC 1071 §1).
#[inline]
fn add_tail(accumulator: u64, tail: &[u8]) -> u64 {
    let (words, rest) = tail.as_chunks::<8>();
    let mut sum = accumulator;
    for word in words {
        sum = add_carry(sum, u64::from_ne_bytes(*word));
    }
    add_carry(sum, last_word(tail, rest))
}

/// The last bytes, fewer than eight, as a word padded with zeros behind; `all` ends with them.
#[inline]
fn last_word(all: &[u8], rest: &[u8]) -> u64 {
    if rest.is_empty() {
        return 0;
    }
    if let Some(word) = all.last_chunk::<8>() {
        // The bytes before them are shifted out: no loop over a number that is hard to predict.
        return (u64::from_le_bytes(*word) >> (64 - 8 * rest.len())).to_le();
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_ne_bytes(last)
}

/// From so many bytes on the lanes are faster than the chain of carries.
const WIDE_MIN: usize = 256;
/// Lanes that do not wait for each other, and the bytes that they take at a time.
const LANES: usize = 8;
const LANES_LEN: usize = 4 * LANES;

/// The sum of many bytes, and what is left of them: 32-bit words in 64-bit lanes, which have room
/// for the carries of four thousand million. The compiler makes vectors of the lanes, with what
/// every x86-64 has; it takes two thirds of the time of a chain of carries.
#[inline(never)]
fn wide(bytes: &[u8]) -> (u64, &[u8]) {
    let (blocks, tail) = bytes.as_chunks::<LANES_LEN>();
    let mut lanes = [0_u64; LANES];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    (lanes.into_iter().fold(0, add_carry), tail)
}

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `bytes`, the first of which lies at an even offset.
    #[must_use]
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let (mut sum, bytes) = if bytes.len() < WIDE_MIN { (0, bytes) } else { wide(bytes) };
        let (blocks, tail) = bytes.as_chunks::<64>();
        for block in blocks {
            sum = add_words(sum, block);
        }
        Sum(add_tail(sum, tail))
    }

    /// The sum of bytes of which the first ones were summed elsewhere: `front` is the sum of words
    /// in the machine's byte order, with or without the end-around carry, of an even number of
    /// bytes; `rest` lies behind them.
    #[must_use]
    #[inline]
    pub fn of_parts(front: u64, rest: &[u8]) -> Sum {
        Sum(front).plus(Sum::of(rest))
    }

    /// The sum of a header of constant length, unrolled by the compiler.
    #[must_use]
    #[inline]
    pub fn of_header<const N: usize>(header: &[u8; N]) -> Sum {
        let (words, rest) = header.as_chunks::<4>();
        let mut sum = 0;
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        Sum(add_tail(sum, rest))
    }

    /// The sum of a number that stands in the packet as two bytes in network order.
    #[must_use]
    pub const fn of_u16(value: u16) -> Sum {
        Sum(value.to_be() as u64)
    }

    /// The sum of a number that stands in the packet as four bytes in network order.
    #[must_use]
    pub const fn of_u32(value: u32) -> Sum {
        Sum(value.to_be() as u64)
    }

    /// The sum of both, the bytes of each having begun at an even offset.
    #[must_use]
    #[inline]
    pub const fn plus(self, other: Sum) -> Sum {
        Sum(add_carry(self.0, other.0))
    }

    /// The sum of both, the bytes of `other` having begun `offset` bytes after those of `self`.
    #[must_use]
    pub const fn plus_at(self, offset: usize, other: Sum) -> Sum {
        if offset.is_multiple_of(2) {
            return self.plus(other);
        }
        self.plus(Sum(other.fold().swap_bytes() as u64))
    }

    /// The pseudo-header's sum for IPv4 (RFC 9293 §3.1, RFC 768).
    #[must_use]
    pub const fn pseudo_v4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: u16,
    ) -> Sum {
        let addresses = Sum::of_u32(source.to_bits()).plus(Sum::of_u32(destination.to_bits()));
        addresses.plus(Sum::of_u16(protocol as u16)).plus(Sum::of_u16(length))
    }

    /// The pseudo-header's sum for IPv6 (RFC 8200 §8.1).
    #[must_use]
    pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u32) -> Sum {
        let addresses =
            Sum::of_header(&source.octets()).plus(Sum::of_header(&destination.octets()));
        addresses.plus(Sum::of_u16(u16::from(protocol))).plus(Sum::of_u32(length))
    }

    /// The pseudo-header's sum for addresses of one family; two families give [`Sum::ZERO`].
    #[must_use]
    pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Sum {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Sum::of_u32(source.to_bits())
                .plus(Sum::of_u32(destination.to_bits()))
                .plus(Sum::of_u16(u16::from(protocol)))
                .plus(Sum::of_u32(length)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Sum::pseudo_v6(source, destination, protocol, length)
            }
            _ => {
                debug_assert!(false, "a packet has one family");
                Sum::ZERO
            }
        }
    }

    /// Sixteen bits in the machine's byte order.
    const fn fold(self) -> u16 {
        // Adding the halves to each other, both ways round, leaves their sum with its end-around
        // carry in the upper half.
        let halves = self.0.wrapping_add(self.0.rotate_left(32)) >> 32;
        let wide = halves.to_le_bytes();
        let half = u32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]);
        let bytes = half.wrapping_add(half.rotate_left(16)).to_le_bytes();
        u16::from_le_bytes([bytes[2], bytes[3]])
    }

    /// The sum as a number, not inverted: what a partial checksum field holds.
    #[must_use]
    #[inline]
    pub const fn partial(self) -> u16 {
        u16::from_be(self.fold())
    }

    /// The checksum: the inverted sum.
    #[must_use]
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.partial()
    }

    /// Whether the bytes summed, their checksum and pseudo-header included, are consistent.
    #[must_use]
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// Copies `source` to the start of `destination`, which is no shorter, and sums it on the way.
/// Panics if `destination` is shorter.
#[must_use]
pub fn copy_and_sum(destination: &mut [u8], source: &[u8]) -> Sum {
    // Blocks stay in the first-level cache between the copy and the sum.
    const BLOCK: usize = 4096;
    let mut total = Sum::ZERO;
    let destination = &mut destination[..source.len()];
    for (to, from) in destination.chunks_mut(BLOCK).zip(source.chunks(BLOCK)) {
        to.copy_from_slice(from);
        total = total.plus(Sum::of(to));
    }
    total
}

/// The checksum after a 16-bit word of what it covers changed (RFC 1624 §3, equation 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = Sum::of_u16(!checksum).plus(Sum::of_u16(!old)).plus(Sum::of_u16(new));
    sum.checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).partial(), 0xddf2);
        assert_eq!(Sum::of_header(&bytes).partial(), 0xddf2);
    }

    #[test]
    fn all_ones_and_zeros_at_every_length() {
        for length in (0..600).chain([65_535, 65_536]) {
            for value in [0u8, 1, 0x80, 0xff] {
                let bytes = vec![value; length];
                assert_eq!(Sum::of(&bytes).checksum(), naive(&bytes), "{length} of {value}");
            }
        }
    }

    #[test]
    fn the_update_of_rfc_1624_section_4() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn pseudo_headers_of_both_forms_agree() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 168, 255, 254));
        let bytes = [10, 0, 0, 1, 192, 168, 255, 254, 0, 17, 0x12, 0x34];
        assert_eq!(Sum::pseudo_v4(a, b, 17, 0x1234).checksum(), naive(&bytes));
        let general = Sum::pseudo(IpAddr::V4(a), IpAddr::V4(b), 17, 0x1234);
        assert_eq!(general.checksum(), naive(&bytes));
    }

    proptest! {
        #[test]
        fn the_sum_is_the_naive_sum(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..2000),
            from in 0..9_usize,
        ) {
            // At any alignment, too: what is read in words may begin between them.
            let bytes = bytes.get(from..).unwrap_or_default();
            prop_assert_eq!(Sum::of(bytes).checksum(), naive(bytes));
            let mut copy = vec![0; bytes.len() + 3];
            prop_assert_eq!(copy_and_sum(&mut copy, bytes).checksum(), naive(bytes));
            prop_assert_eq!(&copy[..bytes.len()], bytes);
        }

        #[test]
        fn sums_of_pieces_combine_at_any_offset(
            bytes in proptest::collection::vec(any::<u8>(), 1..2000),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = Sum::ZERO;
            for pair in cuts.windows(2) {
                sum = sum.plus_at(pair[0], Sum::of(&bytes[pair[0]..pair[1]]));
            }
            prop_assert_eq!(sum.checksum(), naive(&bytes));
        }

        #[test]
        fn an_incremental_update_is_a_new_sum(mut bytes in any::<[u8; 20]>(), new in any::<u16>()) {
            bytes[10] |= 1; // an all-zero header has two representations of its sum
            let before = Sum::of(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[4], bytes[5]]);
            bytes[4..6].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), naive(&bytes));
        }
    }
}
