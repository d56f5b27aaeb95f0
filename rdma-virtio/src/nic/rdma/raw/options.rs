//! What a user may say about `rdma:DEV,mode=raw` besides what all modes have.

/// Whether something is used that a device may do well, badly or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wish {
    /// If a trial at the start showed that it works.
    #[default]
    Tried,
    /// In any case: the user vouches for it.
    On,
    /// Never.
    Off,
}

impl Wish {
    /// Whether it is used where the trial found `works`, nothing if there was none.
    #[must_use]
    pub fn decide(self, works: Option<bool>) -> bool {
        match self {
            Wish::Tried => works == Some(true),
            Wish::On => true,
            Wish::Off => false,
        }
    }
}

/// How broadcast and multicast are received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Groups {
    /// By rules that leave the kernel its copies.
    #[default]
    Copy,
    /// By rules that take them from the kernel: for a port that it does not use.
    Take,
    /// Not at all: every peer must know this host's hardware address.
    Off,
}

/// Options of mode raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawOptions {
    /// Identifier of the VLAN whose frames are received, and whose tag sent ones bear.
    pub vlan: Option<u16>,
    /// Whether copies of all frames of the port are received.
    pub promiscuous: bool,
    /// Broadcast and multicast.
    pub groups: Groups,
    /// Checksums by the device, both ways.
    pub checksum: Wish,
    /// Segmentation by the device.
    pub tso: Wish,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_used_untried_unless_the_user_vouches_for_it() {
        let rows = [
            (Wish::Tried, [false, false, true]),
            (Wish::On, [true, true, true]),
            (Wish::Off, [false, false, false]),
        ];
        for (wish, expected) in rows {
            assert_eq!([None, Some(false), Some(true)].map(|tried| wish.decide(tried)), expected);
        }
    }
}
