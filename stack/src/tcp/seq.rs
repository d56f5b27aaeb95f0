//! Sequence numbers: 32 bits that wrap (RFC 9293 §3.4). There is no total order on them, so the
//! type has no `PartialOrd`: comparisons are named and hold for distances below 2^31.

/// A TCP sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SeqNum(u32);

impl SeqNum {
    /// The sequence number with this wire value.
    #[must_use]
    pub const fn new(value: u32) -> SeqNum {
        SeqNum(value)
    }

    /// The wire value.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether `self` comes before `other`; false at equality and at a distance of exactly 2^31.
    #[must_use]
    pub const fn before(self, other: SeqNum) -> bool {
        (self.0.wrapping_sub(other.0)) > 1 << 31
    }

    /// Whether `self` comes after `other`; false at equality and at a distance of exactly 2^31.
    #[must_use]
    pub const fn after(self, other: SeqNum) -> bool {
        other.before(self)
    }

    /// Whether `self` is `other` or comes before it.
    #[must_use]
    pub const fn at_or_before(self, other: SeqNum) -> bool {
        !self.after(other)
    }

    /// Whether `self` is `other` or comes after it.
    #[must_use]
    pub const fn at_or_after(self, other: SeqNum) -> bool {
        !self.before(other)
    }

    /// Bytes from `self` forward to `later`, modulo 2^32.
    #[must_use]
    pub const fn distance_to(self, later: SeqNum) -> u32 {
        later.0.wrapping_sub(self.0)
    }

    /// `n` bytes further on.
    #[must_use]
    pub const fn plus(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(n))
    }

    /// `n` bytes back.
    #[must_use]
    pub const fn minus(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(n))
    }

    /// The later of two.
    #[must_use]
    pub const fn max(self, other: SeqNum) -> SeqNum {
        if self.before(other) { other } else { self }
    }

    /// The earlier of two.
    #[must_use]
    pub const fn min(self, other: SeqNum) -> SeqNum {
        if other.before(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNum;

    #[test]
    fn comparisons_hold_across_the_wrap() {
        for base in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, u32::MAX] {
            let a = SeqNum::new(base);
            for step in [1, 2, 1000, 0x7fff_ffff] {
                let b = a.plus(step);
                assert!(a.before(b) && b.after(a) && !b.before(a) && !a.after(b));
                assert_eq!(a.distance_to(b), step);
                assert_eq!(b.minus(step), a);
                assert_eq!(a.max(b), b);
                assert_eq!(a.min(b), a);
            }
            assert!(!a.before(a) && !a.after(a) && a.at_or_before(a) && a.at_or_after(a));
            let far = a.plus(1 << 31);
            assert!(!a.before(far) && !far.before(a));
        }
    }
}
