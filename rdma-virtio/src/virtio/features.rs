//! Feature bits of virtio and virtio-net, and which combinations are legal (virtio 1.2 §5.1.3.1).

use std::fmt;

use crate::nic::{Capabilities, Receive};

/// A set of feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Features(pub u64);

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Features = Features(1 << $bit);)*
        }
        const NAMES: &[(Features, &str)] = &[$((Features::$name, stringify!($name))),*];
    };
}

features! {
    /// The device completes partial checksums.
    CSUM = 0;
    /// The driver takes packets with partial checksums.
    GUEST_CSUM = 1;
    /// The driver takes coalesced TCP over IPv4.
    GUEST_TSO4 = 7;
    /// The driver takes coalesced TCP over IPv6.
    GUEST_TSO6 = 8;
    /// The driver takes coalesced TCP with ECN.
    GUEST_ECN = 9;
    /// The device segments TCP over IPv4.
    HOST_TSO4 = 11;
    /// The device segments TCP over IPv6.
    HOST_TSO6 = 12;
    /// The device segments TCP with ECN.
    HOST_ECN = 13;
    /// A packet may span several receive buffers.
    MRG_RXBUF = 15;
    /// Descriptors may name tables of descriptors.
    INDIRECT_DESC = 28;
    /// `used_event` and `avail_event` are used.
    EVENT_IDX = 29;
    /// The standard's layout, not that of before it.
    VERSION_1 = 32;
    /// The driver takes coalesced UDP over IPv4.
    GUEST_USO4 = 54;
    /// The driver takes coalesced UDP over IPv6.
    GUEST_USO6 = 55;
    /// The device segments UDP.
    HOST_USO = 56;
}

/// Each feature of the left needs one of the right.
const RULES: &[(Features, Features)] = &[
    (Features::GUEST_TSO4, Features::GUEST_CSUM),
    (Features::GUEST_TSO6, Features::GUEST_CSUM),
    (Features::GUEST_USO4, Features::GUEST_CSUM),
    (Features::GUEST_USO6, Features::GUEST_CSUM),
    (Features::GUEST_ECN, Features(Features::GUEST_TSO4.0 | Features::GUEST_TSO6.0)),
    (Features::HOST_TSO4, Features::CSUM),
    (Features::HOST_TSO6, Features::CSUM),
    (Features::HOST_USO, Features::CSUM),
    (Features::HOST_ECN, Features(Features::HOST_TSO4.0 | Features::HOST_TSO6.0)),
];

/// Why features were not agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeatureError {
    /// One feature makes no sense without another.
    #[error("{feature:?} needs {missing:?}")]
    Missing {
        /// The feature that is there.
        feature: Features,
        /// The one that is not.
        missing: Features,
    },
    /// The driver took what was not offered.
    #[error("{0:?} was not offered")]
    NotOffered(Features),
}

impl Features {
    /// No feature.
    pub const NONE: Features = Features(0);
    /// All that coalesce on reception, whose packets are up to 64 KiB long.
    pub const GUEST_LARGE: Features = Features(
        Features::GUEST_TSO4.0
            | Features::GUEST_TSO6.0
            | Features::GUEST_USO4.0
            | Features::GUEST_USO6.0,
    );

    /// All by which a device segments.
    pub const HOST_LARGE: Features = Features(
        Features::HOST_TSO4.0 | Features::HOST_TSO6.0 | Features::HOST_ECN.0 | Features::HOST_USO.0,
    );

    /// What Roceway's own device half offers and its driver half takes, whatever the NIC:
    /// checksums and segmentation of TCP and UDP, in software where the NIC does neither.
    pub const ALL_OURS: Features = Features(
        Features::CSUM.0
            | Features::GUEST_CSUM.0
            | Features::GUEST_TSO4.0
            | Features::GUEST_TSO6.0
            | Features::HOST_TSO4.0
            | Features::HOST_TSO6.0
            | Features::HOST_ECN.0
            | Features::GUEST_ECN.0
            | Features::HOST_USO.0
            | Features::GUEST_USO4.0
            | Features::GUEST_USO6.0
            | Features::MRG_RXBUF.0
            | Features::INDIRECT_DESC.0
            | Features::VERSION_1.0,
    );

    /// Whether one of `other` is there.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// These but not the others.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Adds `other` if `condition`.
    #[must_use]
    const fn with_if(self, condition: bool, other: Features) -> Features {
        if condition { self.with(other) } else { self }
    }

    /// What the NIC does itself, without software.
    #[must_use]
    pub fn native(nic: &Capabilities) -> Features {
        Features::VERSION_1
            .with(Features::INDIRECT_DESC)
            .with(Features::EVENT_IDX)
            .with_if(nic.tx_checksum, Features::CSUM)
            .with_if(nic.tx_checksum && nic.tso4, Features::HOST_TSO4)
            .with_if(nic.tx_checksum && nic.tso6, Features::HOST_TSO6)
            .with_if(nic.tx_checksum && nic.uso, Features::HOST_USO)
            .with_if((nic.tso4 || nic.tso6) && nic.tso_ecn, Features::HOST_ECN)
            .with_if(nic.rx_checksum, Features::GUEST_CSUM)
            .with_if(nic.rx_checksum && nic.rx_large4, Features::GUEST_TSO4)
            .with_if(nic.rx_checksum && nic.rx_large6, Features::GUEST_TSO6)
            .with_if((nic.rx_large4 || nic.rx_large6) && nic.rx_ecn, Features::GUEST_ECN)
            .with_if(nic.rx_checksum && nic.rx_uso4, Features::GUEST_USO4)
            .with_if(nic.rx_checksum && nic.rx_uso6, Features::GUEST_USO6)
            .with_if(nic.receive == Receive::Spanning, Features::MRG_RXBUF)
    }

    /// What the device half offers with this NIC: what the NIC does, and transmit checksums and
    /// segmentation in any case, in software where the NIC does neither.
    #[must_use]
    pub fn offered(nic: &Capabilities) -> Features {
        Features::native(nic)
            .with(Features::CSUM)
            .with(Features::HOST_TSO4)
            .with(Features::HOST_TSO6)
            .with(Features::HOST_ECN)
            .with(Features::HOST_USO)
            .with(Features::MRG_RXBUF)
    }

    /// The features that are there, each with its name in the specification.
    pub fn names(self) -> impl Iterator<Item = (Features, &'static str)> {
        NAMES.iter().copied().filter(move |(feature, _)| self.has(*feature))
    }

    /// Whether the combination is legal.
    ///
    /// # Errors
    /// The first feature that lacks one that it needs.
    pub fn check(self) -> Result<(), FeatureError> {
        if !self.has(Features::VERSION_1) {
            return Err(FeatureError::Missing { feature: self, missing: Features::VERSION_1 });
        }
        for &(feature, missing) in RULES {
            if self.has(feature) && !self.has(missing) {
                return Err(FeatureError::Missing { feature, missing });
            }
        }
        Ok(())
    }

    /// What the driver accepts of what was offered.
    ///
    /// # Errors
    /// If it takes what was not offered, or the combination is illegal.
    pub fn accept(offered: Features, accepted: Features) -> Result<Features, FeatureError> {
        let beyond = accepted.without(offered);
        if beyond != Features::NONE {
            return Err(FeatureError::NotOffered(beyond));
        }
        accepted.check()?;
        Ok(accepted)
    }
}

/// What a driver asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// What it takes of what is offered.
    pub features: Features,
    /// Of these, what the device half is to do in software though the NIC can.
    pub software: Features,
}

impl From<Features> for Wish {
    fn from(features: Features) -> Wish {
        Wish { features, software: Features::NONE }
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for &(feature, name) in NAMES {
            if self.has(feature) {
                write!(f, "{separator}{name}")?;
                separator = " or ";
                rest = rest.without(feature);
            }
        }
        if rest != Features::NONE || separator.is_empty() {
            write!(f, "{separator}{:#x}", rest.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illegal_combinations_are_refused_with_the_missing_name() {
        let v1 = Features::VERSION_1;
        let rows: [(&[Features], Option<&str>); 12] = [
            (&[], None),
            (&[Features::CSUM, Features::HOST_TSO4, Features::HOST_TSO6], None),
            (&[Features::HOST_TSO4], Some("HOST_TSO4 needs CSUM")),
            (&[Features::HOST_TSO6], Some("HOST_TSO6 needs CSUM")),
            (&[Features::HOST_USO], Some("HOST_USO needs CSUM")),
            (&[Features::GUEST_TSO4], Some("GUEST_TSO4 needs GUEST_CSUM")),
            (&[Features::GUEST_TSO6, Features::CSUM], Some("GUEST_TSO6 needs GUEST_CSUM")),
            (&[Features::GUEST_USO4], Some("GUEST_USO4 needs GUEST_CSUM")),
            (&[Features::GUEST_USO6], Some("GUEST_USO6 needs GUEST_CSUM")),
            (&[Features::HOST_ECN, Features::CSUM], Some("HOST_ECN needs HOST_TSO4 or HOST_TSO6")),
            (&[Features::GUEST_ECN], Some("GUEST_ECN needs GUEST_TSO4 or GUEST_TSO6")),
            (&[Features::GUEST_ECN, Features::GUEST_TSO6, Features::GUEST_CSUM], None),
        ];
        for (set, expected) in rows {
            let set = set.iter().fold(v1, |all, &one| all.with(one));
            let found = set.check().err().map(|e| e.to_string());
            assert_eq!(found.as_deref(), expected, "{set:?}");
        }
        assert_eq!(
            Features::NONE.check().unwrap_err().to_string(),
            "0x0 needs VERSION_1",
            "before the standard"
        );
        assert_eq!(Features::ALL_OURS.check(), Ok(()));
    }

    #[test]
    fn what_was_not_offered_cannot_be_taken() {
        let error = Features::accept(Features::VERSION_1, Features::ALL_OURS).unwrap_err();
        assert!(error.to_string().contains("was not offered"), "{error}");
    }
}
