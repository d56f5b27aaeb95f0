//! What applications set and ask of a socket besides moving bytes: options, errors, `TCP_INFO`.

use super::Tcp;
use super::config::KeepAlive;
use super::connection::{Connection, SoftReport};
use super::error::ConnectionError;
use super::info::TcpInfo;
use super::listener::Listener;
use crate::ip::{Mark, Marking};
use crate::slab::Id;
use crate::time::{Duration, Instant};

/// Options of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// Send small segments at once (`TCP_NODELAY`): RFC 9293 §3.7.4, MUST-17.
    NoDelay(bool),
    /// Keep-alive (`SO_KEEPALIVE` and its times), or off.
    KeepAlive(Option<KeepAlive>),
    /// How long data may go unacknowledged (`TCP_USER_TIMEOUT`); `None` is the default.
    UserTimeout(Option<Duration>),
    /// Most bytes queued for sending (`SO_SNDBUF`); at least 4096.
    SendBuffer(u32),
    /// Most unread bytes (`SO_RCVBUF`); at least 4096. Not below what was promised to the peer.
    ReceiveBuffer(u32),
    /// How far segments go, or of what class they are (`IP_TTL`, `IP_TOS`): RFC 9293 MUST-48,
    /// MUST-49. The two ECN bits are TCP's own.
    Mark(Mark),
    /// Whether [`Tcp::take_error`] also tells errors that end nothing yet (`IP_RECVERR`): ICMP
    /// errors, and [`ConnectionError::TimedOut`] when R1 is reached. At first it does not.
    SoftErrors(bool),
}

/// The least buffer of a connection.
const BUFFER_MIN: u32 = 4096;

impl Tcp {
    /// Sets an option.
    pub fn set_option(&mut self, id: Id<Connection>, option: TcpOption, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match option {
            TcpOption::NoDelay(on) => connection.snd.nodelay = on,
            TcpOption::KeepAlive(keep_alive) => connection.set_keep_alive(keep_alive, now),
            TcpOption::UserTimeout(timeout) => connection.user_timeout = timeout,
            TcpOption::SendBuffer(bytes) => connection.snd.limit = bytes.max(BUFFER_MIN),
            TcpOption::ReceiveBuffer(bytes) => {
                let largest = u32::from(u16::MAX) << self.config.window_scale();
                connection.rcv.set_limit(bytes.clamp(BUFFER_MIN, largest));
            }
            TcpOption::Mark(mark) => {
                let template = &mut connection.snd.template;
                template.set_marking(template.marking().with(mark));
            }
            TcpOption::SoftErrors(true) if connection.soft_report == SoftReport::Off => {
                connection.soft_report = SoftReport::Nothing;
            }
            TcpOption::SoftErrors(true) => {}
            TcpOption::SoftErrors(false) => connection.soft_report = SoftReport::Off,
        }
        self.settle(id.index());
    }

    /// Whether small segments go at once.
    #[must_use]
    pub fn nodelay(&self, id: Id<Connection>) -> Option<bool> {
        self.connections.get(id).map(|connection| connection.snd.nodelay)
    }

    /// A snapshot of a connection.
    #[must_use]
    pub fn info(&self, id: Id<Connection>) -> Option<TcpInfo> {
        self.connections.get(id).map(Connection::info)
    }

    /// Calls `visit` with a snapshot of every connection.
    pub fn visit_connections(&self, visit: &mut dyn FnMut(&TcpInfo)) {
        for index in 0..self.connections.index_end() {
            if let Some(connection) = self.connections.at(index) {
                visit(&connection.info());
            }
        }
    }

    /// How far segments of the connection go, and of what class they are.
    #[must_use]
    pub fn marking(&self, id: Id<Connection>) -> Option<Marking> {
        self.connections.get(id).map(|connection| connection.snd.template.marking())
    }

    /// Sets how far segments of connections that are still to come go, or of what class they are.
    pub fn mark_listener(&mut self, id: Id<Listener>, mark: Mark) {
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.marking = listener.marking.with(mark).without_ecn();
        }
    }

    /// What [`Tcp::mark_listener`] set.
    #[must_use]
    pub fn listener_marking(&self, id: Id<Listener>) -> Option<Marking> {
        self.listeners.get(id).map(|listener| listener.marking)
    }

    /// The error that ended a connection, if one did. It stays: every later call says the same.
    #[must_use]
    pub fn error(&self, id: Id<Connection>) -> Option<ConnectionError> {
        self.connections.get(id).and_then(|connection| connection.error)
    }

    /// As [`Tcp::error`]; while the connection lives, and with [`TcpOption::SoftErrors`], the
    /// latest error that ended nothing, once. No other call fails because of such an error.
    pub fn take_error(&mut self, id: Id<Connection>) -> Option<ConnectionError> {
        self.connections.get_mut(id).and_then(Connection::take_error)
    }
}
