//! Limits, and the errors that calls return.

use thiserror::Error;

use core::ops::RangeInclusive;

/// Limits of the UDP layer. A socket that has nothing to do holds about 400 bytes.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Sockets open at once.
    pub sockets: u32,
    /// Number of the worker, which its ids carry.
    pub worker: u8,
    /// Datagrams that wait to be read, per socket.
    pub receive_datagrams: u16,
    /// Bytes of those, with 64 for each one's keeping.
    pub receive_bytes: u32,
    /// Receive slots that those hold, per socket; beyond them datagrams are copied out of their
    /// slots.
    pub receive_slots: u16,
    /// Frames that wait to be sent, per socket.
    pub send_frames: u16,
    /// Frames that wait for a neighbour's address, per socket.
    pub waiting_frames: u16,
    /// Ports that are given to those who ask for any (RFC 6335 §6).
    pub ephemeral: RangeInclusive<u16>,
    /// Which of those ports may be given: with several workers, those whose hash lands on this one.
    pub port_is_ours: fn(u16) -> bool,
}

impl Default for UdpConfig {
    fn default() -> UdpConfig {
        UdpConfig {
            sockets: 65_536,
            worker: 0,
            receive_datagrams: 512,
            receive_bytes: 256 * 1024,
            receive_slots: 128,
            send_frames: 256,
            waiting_frames: 8,
            ephemeral: 49_152..=65_535,
            port_is_ours: |_| true,
        }
    }
}

/// Why a call on a socket failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UdpError {
    /// The id names no open socket.
    #[error("no such socket")]
    NotFound,
    /// The address or port is taken.
    #[error("the address is in use")]
    AddressInUse,
    /// The address to bind to is not one of the interface's.
    #[error("the address is not ours")]
    AddressNotAvailable,
    /// A destination without port, of the other family, or unspecified.
    #[error("not an address to send to")]
    InvalidAddress,
    /// Every ephemeral port is taken.
    #[error("no ephemeral port is left")]
    NoPort,
    /// As many sockets as the configuration allows.
    #[error("too many sockets")]
    TooManySockets,
    /// No destination given, and none connected.
    #[error("the socket is not connected")]
    NotConnected,
    /// Longer than a datagram can be, or than an IPv6 path takes.
    #[error("the datagram is too long")]
    MessageTooLong,
    /// Nothing to read, or no room to send; an event tells when there is.
    #[error("the call would block")]
    WouldBlock,
    /// There is no route.
    #[error("the network is unreachable")]
    NetworkUnreachable,
    /// The neighbour does not answer.
    #[error("the host is unreachable")]
    HostUnreachable,
    /// The connected peer said that nobody listens (RFC 1122 §4.1.3.3).
    #[error("the connection was refused")]
    ConnectionRefused,
    /// Broadcast without permission to.
    #[error("broadcast is not permitted on this socket")]
    PermissionDenied,
}
