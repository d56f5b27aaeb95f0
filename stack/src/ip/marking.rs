//! What a socket may say of the IP headers of its packets: how far they go, and of what class they
//! are. Both families have both, under two names; here they have IPv4's.

use core::num::NonZeroU8;

use super::TTL;

/// What the IP headers of a socket's packets say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marking {
    /// Time to live, or hop limit: routers that a packet passes at most.
    pub ttl: NonZeroU8,
    /// Type of service, or traffic class: the differentiated services field (RFC 2474) in the
    /// upper six bits, ECN (RFC 3168) in the lower two.
    pub tos: u8,
}

/// One of them, to be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// `IP_TTL`, `IPV6_UNICAST_HOPS`; [`TTL`] if nothing is said.
    Ttl(NonZeroU8),
    /// `IP_TOS`, `IPV6_TCLASS`; 0 if nothing is said.
    Tos(u8),
}

impl Default for Marking {
    fn default() -> Marking {
        Marking { ttl: NonZeroU8::new(TTL).unwrap_or(NonZeroU8::MAX), tos: 0 }
    }
}

impl Marking {
    /// The same but for one of them.
    #[must_use]
    pub fn with(self, mark: Mark) -> Marking {
        match mark {
            Mark::Ttl(ttl) => Marking { ttl, ..self },
            Mark::Tos(tos) => Marking { tos, ..self },
        }
    }

    /// The same for a transport that does not use ECN: its two bits must be zero then
    /// (RFC 3168 §5: not-ECT), whatever the application says, as Linux has it for TCP.
    #[must_use]
    pub fn without_ecn(self) -> Marking {
        Marking { tos: self.tos & !3, ..self }
    }
}
