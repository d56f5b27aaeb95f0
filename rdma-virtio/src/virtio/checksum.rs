//! The Internet checksum (RFC 1071) over scattered bytes, for NICs that do not compute it.

use crate::memory::region::Segment;
use crate::memory::sum::{self, add_carry};

/// A ones' complement sum under way. Bytes may come in pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// Adds bytes behind those added before.
    pub fn add(&mut self, bytes: &[u8]) {
        let (part, rest) = if bytes.len() < WIDE_MIN { (0, bytes) } else { sum::blocks(bytes) };
        self.add_sum(add_words(part, rest), bytes.len());
    }

    /// Adds the sum of so many bytes.
    fn add_sum(&mut self, part: u64, length: usize) {
        let part = fold(part);
        // A piece that begins at an odd place has its bytes in the other halves of the words.
        self.total += u64::from(if self.odd { part.swap_bytes() } else { part });
        self.odd ^= !length.is_multiple_of(2);
    }

    /// Adds a 16-bit number as it would lie on the wire, at an even place.
    pub fn add_u16(&mut self, value: u16) {
        debug_assert!(!self.odd);
        self.total += u64::from(value.to_be());
    }

    /// Adds all bytes of segments, which may be someone else's to change.
    pub fn add_segments(&mut self, segments: impl Iterator<Item = Segment>) {
        let mut copy = [0_u8; WIDE_MIN];
        for segment in segments {
            let (part, rest) = if (segment.length() as usize) < WIDE_MIN {
                (0, segment)
            } else {
                segment.sum_blocks()
            };
            let n = rest.read_into(&mut copy);
            self.add_sum(add_words(part, &copy[..n]), segment.length() as usize);
        }
    }

    /// The folded sum, not inverted: what a partial checksum field holds. In wire order.
    #[must_use]
    pub fn partial(self) -> [u8; 2] {
        fold(self.total).to_ne_bytes()
    }

    /// The checksum, in wire order.
    #[must_use]
    pub fn checksum(self) -> [u8; 2] {
        (!fold(self.total)).to_ne_bytes()
    }

    /// The checksum as it is stored for UDP, where 0 would say that there is none (RFC 768): the
    /// same number in ones' complement is stored, which does no harm to TCP.
    #[must_use]
    pub fn stored(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xFF, 0xFF],
            other => other,
        }
    }
}

/// From so many bytes on whole blocks are summed in lanes.
const WIDE_MIN: usize = 256;
const _: () = assert!(WIDE_MIN >= sum::BLOCK);

/// Adds the words of bytes, the last one padded with zeros.
fn add_words(accumulator: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = accumulator;
    for word in words {
        sum = add_carry(sum, u64::from_ne_bytes(*word));
    }
    let mut last = [0_u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    add_carry(sum, u64::from_ne_bytes(last))
}

/// Folds the carries in.
#[expect(clippy::cast_possible_truncation, reason = "three folds leave 16 bits")]
fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    sum = (sum >> 16) + (sum & 0xFFFF);
    sum = (sum >> 16) + (sum & 0xFFFF);
    sum = (sum >> 16) + (sum & 0xFFFF);
    sum as u16
}

/// The bytes from `start` of a frame that lies in segments.
pub fn from_offset(segments: &[Segment], start: u32) -> impl Iterator<Item = Segment> + '_ {
    let mut to_skip = start;
    segments.iter().filter_map(move |segment| {
        let skipped = to_skip.min(segment.length());
        to_skip -= skipped;
        let rest = segment.skip(skipped);
        (rest.length() > 0).then_some(rest)
    })
}

/// Finishes a partial checksum where it lies. Returns whether the place lies inside.
pub fn finish(segments: &[Segment], start: u16, offset: u16) -> bool {
    let mut sum = Sum::default();
    sum.add_segments(from_offset(segments, u32::from(start)));
    let checksum = sum.stored();
    let mut written = 0;
    for place in from_offset(segments, u32::from(start) + u32::from(offset)) {
        written += place.write(&checksum[written..]);
        if written == 2 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::region::{Region, RegionTable};
    use crate::nic::Lkey;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for (i, &byte) in bytes.iter().enumerate() {
            sum += if i % 2 == 0 { u32::from(byte) << 8 } else { u32::from(byte) };
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// The pieces of `all` as segments, without the empty ones.
    fn segments(all: &[u8], pieces: &[Vec<u8>]) -> Vec<Segment> {
        let host = u64::try_from(all.as_ptr().expose_provenance()).unwrap();
        let mut table = RegionTable::new();
        let length = u64::try_from(all.len()).unwrap();
        if length > 0 {
            // SAFETY: the caller keeps the bytes while it uses the segments.
            unsafe { table.insert(Region { base: 0, length, host, lkey: Lkey(0) }) }.unwrap();
        }
        let mut at = 0;
        let lengths = pieces.iter().map(|piece| u32::try_from(piece.len()).unwrap());
        lengths
            .filter(|&length| length > 0)
            .map(|length| {
                let segment = table.find(at, length).unwrap();
                at += u64::from(length);
                segment
            })
            .collect()
    }

    proptest! {
        #[test]
        fn pieces_sum_like_the_whole_rfc_1071(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..700), 0..8)
        ) {
            let mut sum = Sum::default();
            for piece in &pieces {
                sum.add(piece);
            }
            let all = pieces.concat();
            let mut of_segments = Sum::default();
            of_segments.add_segments(segments(&all, &pieces).into_iter());
            prop_assert_eq!(of_segments.partial(), sum.partial());
            prop_assert_eq!(u16::from_be_bytes(sum.partial()), naive(&pieces.concat()));
        }
    }
}
