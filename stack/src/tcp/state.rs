//! The states of a connection (RFC 9293 §3.3.2) and what they allow.

use super::listener::Listener;
use crate::slab::Id;

/// Where a connection in SYN-RECEIVED came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A SYN for this listener.
    Passive(Id<Listener>),
    /// Both ends opened at once (RFC 9293 §3.5, figure 7).
    Simultaneous,
}

/// A connection's state. LISTEN is not among them: a listener is a thing of its own. Nor is the
/// TIME-WAIT of a connection that the application has let go: it is kept compactly elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    SynSent,
    SynReceived(Origin),
    Established,
    FinWait1,
    FinWait2,
    Closing,
    TimeWait,
    CloseWait,
    LastAck,
    /// Nothing goes over the wire any more; unread data and the error wait for the application.
    Closed,
}

/// The states by name, for people and for `TCP_INFO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// SYN-SENT
    SynSent,
    /// SYN-RECEIVED
    SynReceived,
    /// ESTABLISHED
    Established,
    /// FIN-WAIT-1
    FinWait1,
    /// FIN-WAIT-2
    FinWait2,
    /// CLOSING
    Closing,
    /// TIME-WAIT
    TimeWait,
    /// CLOSE-WAIT
    CloseWait,
    /// LAST-ACK
    LastAck,
    /// CLOSED
    Closed,
}

impl State {
    /// The state's public name.
    pub(super) fn name(self) -> TcpState {
        match self {
            State::SynSent => TcpState::SynSent,
            State::SynReceived(_) => TcpState::SynReceived,
            State::Established => TcpState::Established,
            State::FinWait1 => TcpState::FinWait1,
            State::FinWait2 => TcpState::FinWait2,
            State::Closing => TcpState::Closing,
            State::TimeWait => TcpState::TimeWait,
            State::CloseWait => TcpState::CloseWait,
            State::LastAck => TcpState::LastAck,
            State::Closed => TcpState::Closed,
        }
    }

    /// Whether the application may still write.
    #[inline]
    pub(super) fn may_send(self) -> bool {
        matches!(self, State::Established | State::CloseWait)
    }

    /// Whether data from the peer may still come.
    #[inline]
    pub(super) fn may_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Whether both ends have agreed on sequence numbers and the connection is on the wire.
    pub(super) fn is_synchronized(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived(_) | State::Closed)
    }

    /// Whether the connection has not been established yet.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, State::SynSent | State::SynReceived(_))
    }
}
