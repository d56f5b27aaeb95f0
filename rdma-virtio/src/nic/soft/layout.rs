//! The link memory that each side shows to the other: where everything lies and what it means.
//!
//! One memfd a side, written by its creator only:
//!
//! ```text
//!      0  (nothing; the greeting on the socket carries the geometry)
//!    256  armed word: sleeping or not                     own line
//!    512  consumed: positions of the peer's ring taken    own line
//!   4096  ring of 128-byte send slots
//!  + ring bounce area (only if this side segments or completes checksums itself)
//! ```
//!
//! A slot is two adjacent cache lines, which the prefetcher of common processors fetches as a pair:
//!
//! ```text
//!      0  sequence u64: 2 * (position + 1), lowest bit set if the message was revoked
//!      8  length u32 | elements u16 << 32 | bit 48: its sender waits for its completion
//!     16  elements = 0: the message itself, at most 112 bytes
//!         else: elements as (offset u32 | length u24 << 32 | region u8 << 56), 14 a slot; they go
//!         on in the following slots, whose first 16 bytes stay as they were
//! ```
//!
//! The sequence is written last with release ordering, and read first with acquire ordering. A
//! following slot keeps the sequence of an earlier lap, which no reader waits for.

/// Says on the socket that this is our protocol.
pub(super) const MAGIC: u64 = 0x526f_6365_5f53_4f46;
/// Version of the memory layout and of the greeting; both sides must have the same.
pub(super) const VERSION: u32 = 2;

/// Bytes of a slot.
pub(super) const SLOT_LEN: usize = 128;
/// Bytes of a slot before its message or elements.
pub(super) const SLOT_HEADER_LEN: usize = 16;
/// Longest message that lies in its slot.
pub(super) const INLINE_MAX: usize = SLOT_LEN - SLOT_HEADER_LEN;
/// The same as a word of a slot.
pub(super) const INLINE_MAX_U64: u64 = 112;
pub(super) const INLINE_MAX_U32: u32 = 112;
const _: () = assert!(INLINE_MAX == 112);
/// Elements in one slot.
pub(super) const ELEMENTS_PER_SLOT: usize = INLINE_MAX / 8;
/// Elements of one message: 64 KiB in 4 KiB chunks that need not be aligned is 18.
pub(super) const ELEMENTS_MAX: usize = 32;

/// Place of the armed word.
pub(super) const ARMED_OFFSET: usize = 256;
/// Place of the consumed counter.
pub(super) const CONSUMED_OFFSET: usize = 512;
/// Place of the first slot.
pub(super) const RING_OFFSET: usize = 4096;

/// Fewest slots of a ring.
pub(super) const SLOTS_MIN: u32 = 64;
/// Most slots of a ring.
pub(super) const SLOTS_MAX: u32 = 8192;

/// Regions that one side may show besides its link memory.
pub(super) const EXPORTS_MAX: usize = 8;
/// The region number that means the sender's own bounce area.
pub(super) const BOUNCE_REGION: u8 = u8::MAX;

/// The sequence of the message at `position`.
#[inline]
pub(super) const fn sequence_of(position: u64) -> u64 {
    position.wrapping_add(1) << 1
}

/// Whether a sequence that was read belongs to the expected message, revoked or not.
#[inline]
pub(super) const fn is_expected(read: u64, expected: u64) -> bool {
    read ^ expected < 2
}

/// The bit of a sequence that says that the sender took the message back.
pub(super) const REVOKED: u64 = 1;

/// Slots that a message with so many elements takes; one if it lies in its slot.
#[inline]
pub(super) const fn slots_for(elements: usize) -> usize {
    if elements <= ELEMENTS_PER_SLOT { 1 } else { elements.div_ceil(ELEMENTS_PER_SLOT) }
}

/// The second word of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Description {
    /// Bytes of the message.
    pub(super) length: u32,
    /// Number of elements, 0 for a message that lies in its slot.
    pub(super) elements: u16,
    /// Whether its sender waits for its completion, so that progress is to be shown at once.
    pub(super) awaited: bool,
}

/// The bit of [`Description::awaited`].
pub(super) const AWAITED: u64 = 1 << 48;

impl Description {
    /// As it lies in the slot.
    #[inline]
    pub(super) fn encode(self) -> u64 {
        let awaited = if self.awaited { AWAITED } else { 0 };
        u64::from(self.length) | u64::from(self.elements) << 32 | awaited
    }

    /// From the slot; the highest 15 bits must be 0.
    #[inline]
    pub(super) fn decode(word: u64) -> Option<Description> {
        let [l0, l1, l2, l3, e0, e1, flags, zero] = word.to_le_bytes();
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let elements = u16::from_le_bytes([e0, e1]);
        let awaited = flags == 1;
        (flags < 2 && zero == 0).then_some(Description { length, elements, awaited })
    }
}

/// A piece of a message: bytes of a region that its sender shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Element {
    /// Number of the region.
    pub(super) region: u8,
    /// First byte in the region.
    pub(super) offset: u32,
    /// Number of bytes, below 2^24.
    pub(super) length: u32,
}

impl Element {
    /// As it lies in the slot.
    #[inline]
    pub(super) fn encode(self) -> u64 {
        debug_assert!(self.length < 1 << 24);
        u64::from(self.offset) | u64::from(self.length) << 32 | u64::from(self.region) << 56
    }

    /// From the slot. Every value decodes; whether it makes sense is checked against the regions.
    #[inline]
    pub(super) fn decode(word: u64) -> Element {
        let [o0, o1, o2, o3, l0, l1, l2, region] = word.to_le_bytes();
        Element {
            region,
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            length: u32::from_le_bytes([l0, l1, l2, 0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_went_in() {
        for (length, elements) in [(0, 0), (79, 0), (65_562, 18), (u32::MAX, u16::MAX)] {
            for awaited in [false, true] {
                let description = Description { length, elements, awaited };
                assert_eq!(Description::decode(description.encode()), Some(description));
            }
        }
        for (region, offset, length) in [(0, 0, 1), (7, u32::MAX, 0x00ff_ffff), (255, 4096, 64)] {
            let element = Element { region, offset, length };
            assert_eq!(Element::decode(element.encode()), element);
        }
        assert_eq!(Description::decode(1 << 49), None);
    }

    #[test]
    fn only_the_message_itself_or_its_revocation_is_expected() {
        let expected = sequence_of(41);
        let rows = [
            (expected, true),
            (expected | REVOKED, true),
            (sequence_of(40) | REVOKED, false),
            (sequence_of(42), false),
            (0, false),
            (u64::MAX, false),
        ];
        for (read, wanted) in rows {
            assert_eq!(is_expected(read, expected), wanted, "{read:#x}");
        }
        assert!(!is_expected(0, sequence_of(0)) && !is_expected(1, sequence_of(0)));
    }

    #[test]
    fn elements_take_as_many_slots_as_they_need() {
        for (elements, slots) in [(0, 1), (1, 1), (14, 1), (15, 2), (18, 2), (28, 2), (32, 3)] {
            assert_eq!(slots_for(elements), slots, "{elements}");
        }
    }
}
