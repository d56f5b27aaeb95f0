//! What a look for one received message found, by value.

/// What [`Nic::poll_recv_one`] or [`Nic::poll_recv_lent`] found.
///
/// [`Nic::poll_recv_one`]: super::Nic::poll_recv_one
/// [`Nic::poll_recv_lent`]: super::Nic::poll_recv_lent
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolledOne {
    /// A whole message in one receive, without errors and without checksum knowledge.
    Taken {
        /// Of the work request.
        wr_id: u64,
        /// Bytes received.
        byte_len: u32,
    },
    /// The same, but the receive is not taken yet: [`Nic::take_lent`] or [`Nic::repost_lent`] is to
    /// follow before the next one is polled. Posted again, it is the next one that is filled.
    ///
    /// [`Nic::take_lent`]: super::Nic::take_lent
    /// [`Nic::repost_lent`]: super::Nic::repost_lent
    Lent {
        /// Of the work request.
        wr_id: u64,
        /// Bytes received.
        byte_len: u32,
    },
    /// As [`PolledOne::Lent`], but all other receives are filled before it.
    LentInTurn {
        /// Of the work request.
        wr_id: u64,
        /// Bytes received.
        byte_len: u32,
    },
    /// As [`PolledOne::LentInTurn`], a frame of [`Wire::Frames`] whose checksum is right.
    ///
    /// [`Wire::Frames`]: super::Wire::Frames
    Verified {
        /// Of the work request.
        wr_id: u64,
        /// Bytes received.
        byte_len: u32,
    },
    /// There is no completion.
    Nothing,
    /// Only [`Nic::poll_recv`] knows.
    ///
    /// [`Nic::poll_recv`]: super::Nic::poll_recv
    Unknown,
}

/// The same of a NIC that lends in turn, in two words, which a function gives back in registers.
#[derive(Clone, Copy)]
pub(super) struct PolledWords {
    wr_id: u64,
    /// The bytes, and above them the kind.
    word: u64,
}

impl PolledWords {
    const LENT_IN_TURN: u64 = 0;
    const VERIFIED: u64 = 1 << 32;
    pub(super) const NOTHING: PolledWords = PolledWords { wr_id: 0, word: 2 << 32 };
    pub(super) const UNKNOWN: PolledWords = PolledWords { wr_id: 0, word: 3 << 32 };

    #[inline(always)]
    pub(super) fn lent_in_turn(wr_id: u64, byte_len: u32) -> PolledWords {
        PolledWords { wr_id, word: Self::LENT_IN_TURN | u64::from(byte_len) }
    }

    #[inline(always)]
    pub(super) fn verified(wr_id: u64, byte_len: u32) -> PolledWords {
        PolledWords { wr_id, word: Self::VERIFIED | u64::from(byte_len) }
    }

    #[inline(always)]
    pub(super) fn polled(self) -> PolledOne {
        let PolledWords { wr_id, word } = self;
        let byte_len = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        match word & !u64::from(u32::MAX) {
            Self::LENT_IN_TURN => PolledOne::LentInTurn { wr_id, byte_len },
            Self::VERIFIED => PolledOne::Verified { wr_id, byte_len },
            _ if word == Self::NOTHING.word => PolledOne::Nothing,
            _ => PolledOne::Unknown,
        }
    }
}

/// A whole frame of [`Wire::Frames`] in one receive, without errors.
///
/// [`Wire::Frames`]: super::Wire::Frames
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BareFrame {
    /// Of the work request.
    pub wr_id: u64,
    /// Bytes received.
    pub byte_len: u32,
    /// Whether the NIC found its transport checksum right.
    pub verified: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_polled_is_the_same_in_two_words() {
        let (wr_id, byte_len) = (u64::MAX - 1, u32::MAX);
        let words = PolledWords::lent_in_turn(wr_id, byte_len);
        assert_eq!(words.polled(), PolledOne::LentInTurn { wr_id, byte_len });
        let words = PolledWords::verified(wr_id, byte_len);
        assert_eq!(words.polled(), PolledOne::Verified { wr_id, byte_len });
        assert_eq!(PolledWords::NOTHING.polled(), PolledOne::Nothing);
        assert_eq!(PolledWords::UNKNOWN.polled(), PolledOne::Unknown);
    }
}
