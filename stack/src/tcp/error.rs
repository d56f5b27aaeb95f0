//! What an application is told when a call cannot do what it asks. One small enum an operation;
//! each has its errno in RFC and POSIX words.

/// Why a connection ended other than by both ends closing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer answered our SYN with a reset (ECONNREFUSED).
    #[error("connection refused by the peer")]
    Refused,
    /// The peer reset the connection (ECONNRESET).
    #[error("connection reset by the peer")]
    Reset,
    /// Data or SYN went unacknowledged for too long (ETIMEDOUT).
    #[error("connection timed out")]
    TimedOut,
    /// The peer's host cannot be reached (EHOSTUNREACH).
    #[error("no route to the peer's host")]
    HostUnreachable,
    /// The peer's network cannot be reached (ENETUNREACH).
    #[error("the peer's network is unreachable")]
    NetworkUnreachable,
    /// The link to the only peer is gone for good (ECONNABORTED).
    #[error("the link to the peer is gone")]
    LinkLost,
    /// This end aborted it (ECONNABORTED).
    #[error("connection aborted")]
    Aborted,
}

/// Why a connection cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No route to the address (ENETUNREACH).
    #[error("no route to the address; add a gateway or an address on its network")]
    NoRoute,
    /// The address or port is zero, multicast, broadcast or our own (EINVAL).
    #[error("the address cannot be connected to")]
    BadAddress,
    /// The local address is not ours (EADDRNOTAVAIL).
    #[error("the local address does not belong to this interface")]
    AddressNotAvailable,
    /// The four-tuple is in use, or every ephemeral port is (EADDRINUSE).
    #[error("no free port towards this address")]
    AddressInUse,
    /// The limit on connections is reached (ENOBUFS).
    #[error("the limit on connections is reached")]
    TooMany,
}

/// Why a listener cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListenError {
    /// Another listener has the address and port (EADDRINUSE).
    #[error("the address and port are in use")]
    AddressInUse,
    /// The address is not ours (EADDRNOTAVAIL).
    #[error("the address does not belong to this interface")]
    AddressNotAvailable,
    /// The limit on listeners is reached (ENOBUFS).
    #[error("the limit on listeners is reached")]
    TooMany,
}

/// Why nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// No room now; try again when the socket is writable (EAGAIN).
    #[error("the send buffer is full")]
    WouldBlock,
    /// The connection is not established yet (ENOTCONN).
    #[error("not connected")]
    NotConnected,
    /// This end has shut down its direction, or the connection has ended (EPIPE).
    #[error("the sending direction is shut down")]
    BrokenPipe,
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The socket does not exist any more (EBADF).
    #[error("no such socket")]
    NoSocket,
}

/// Why nothing was read. End of stream is no error: it is a read of 0 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Nothing there now; try again when the socket is readable (EAGAIN).
    #[error("no data is there")]
    WouldBlock,
    /// The connection is not established yet (ENOTCONN).
    #[error("not connected")]
    NotConnected,
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The socket does not exist any more (EBADF).
    #[error("no such socket")]
    NoSocket,
}
