//! ICMPv6 (RFC 4443). Its first eight bytes have the shape of ICMP's for IPv4, and so
//! [`super::icmpv4::IcmpHeader`] serves both; types, codes and the checksum differ.

/// Values of the type field.
pub mod kind {
    /// A packet could not be delivered.
    pub const UNREACHABLE: u8 = 1;
    /// A packet was too big; the rest holds the MTU.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// A packet's time ran out.
    pub const TIME_EXCEEDED: u8 = 3;
    /// A packet's header was bad.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Request for an echo.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
}

/// Codes of [`kind::UNREACHABLE`].
pub mod unreachable {
    /// No route.
    pub const NO_ROUTE: u8 = 0;
    /// Forbidden.
    pub const PROHIBITED: u8 = 1;
    /// The address does not answer.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens on the port.
    pub const PORT: u8 = 4;
}

/// Codes of [`kind::PARAMETER_PROBLEM`].
pub mod parameter_problem {
    /// The next header's type is not known.
    pub const UNKNOWN_NEXT_HEADER: u8 = 1;
}

/// Whether a type is an error, to which no error answers (RFC 4443 §2.4 (e.1)).
#[must_use]
pub fn is_error(kind: u8) -> bool {
    kind < 128
}
