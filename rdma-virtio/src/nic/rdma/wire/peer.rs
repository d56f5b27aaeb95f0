//! One peer: who it is, what was agreed, how far the two have come.

use std::net::{IpAddr, SocketAddr};

use super::backoff::Backoff;
use super::exchange::{Endpoint, Hello, Refusal};

/// A place in the table of peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PeerId(pub u16);

/// A connection of the exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConnId(pub u32);

/// The queue pair that was made for a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Credits that the peer gets with the hello.
    pub credits: u16,
}

/// What a queue pair is being made or connected for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A call of this side.
    Call,
    /// The answer to a hello.
    Answer(Hello),
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing; a call is due then, if this side knows where.
    Idle { retry_ns: u64 },
    /// The connection of the exchange is being made.
    Dialling { conn: ConnId, since_ns: u64 },
    /// A queue pair is being made.
    Preparing { conn: ConnId, purpose: Purpose, since_ns: u64 },
    /// Hello was said.
    Greeted { conn: ConnId, since_ns: u64 },
    /// The queue pair is being connected.
    Establishing { conn: ConnId, purpose: Purpose, hello: Hello, since_ns: u64 },
    /// Accept was said; Ready, or a message on the wire, is to come.
    Answered { conn: ConnId, hello: Hello, since_ns: u64 },
    /// The session is up.
    Up { conn: ConnId, hello: Hello },
}

impl State {
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            State::Idle { .. } => None,
            State::Dialling { conn, .. }
            | State::Preparing { conn, .. }
            | State::Greeted { conn, .. }
            | State::Establishing { conn, .. }
            | State::Answered { conn, .. }
            | State::Up { conn, .. } => Some(*conn),
        }
    }

    /// Whether a queue pair exists for it.
    pub(super) fn has_queue_pair(&self) -> bool {
        match self {
            State::Idle { .. } | State::Dialling { .. } | State::Preparing { .. } => false,
            State::Greeted { .. }
            | State::Establishing { .. }
            | State::Answered { .. }
            | State::Up { .. } => true,
        }
    }

    /// Since when a word or an answer is waited for, and for how long at most.
    pub(super) fn deadline(&self, dial_ns: u64, word_ns: u64) -> u64 {
        match self {
            State::Idle { retry_ns } => *retry_ns,
            State::Dialling { since_ns, .. } => since_ns.saturating_add(dial_ns),
            State::Preparing { since_ns, .. }
            | State::Greeted { since_ns, .. }
            | State::Establishing { since_ns, .. }
            | State::Answered { since_ns, .. } => since_ns.saturating_add(word_ns),
            State::Up { .. } => u64::MAX,
        }
    }
}

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Where it is called, if it is in the list.
    pub(super) listed: Option<SocketAddr>,
    /// Where it is.
    pub(super) ip: IpAddr,
    /// Where it listens, if it said so, and which process it was at last.
    pub(super) port: u16,
    pub(super) host: u64,
    pub(super) incarnation: Option<u32>,
    pub(super) state: State,
    pub(super) backoff: Backoff,
    /// The session's number, as this side gave it.
    pub(super) session: u32,
    /// Why its last call was refused, if it was.
    pub(super) refusal: Option<(Refusal, u32)>,
}

impl Peer {
    pub(super) fn listed(to: SocketAddr) -> Peer {
        Peer {
            listed: Some(to),
            ip: to.ip(),
            port: to.port(),
            host: 0,
            incarnation: None,
            state: State::Idle { retry_ns: 0 },
            backoff: Backoff::default(),
            session: 0,
            refusal: None,
        }
    }

    pub(super) fn accepted(ip: IpAddr) -> Peer {
        Peer {
            listed: None,
            ip,
            port: 0,
            host: 0,
            incarnation: None,
            state: State::Idle { retry_ns: u64::MAX },
            backoff: Backoff::default(),
            session: 0,
            refusal: None,
        }
    }

    /// Whether a hello from there is this peer's.
    pub(super) fn is(&self, ip: IpAddr, hello: &Hello) -> bool {
        let same = self.host == hello.host && self.host != 0;
        let listens = hello.port != 0 && self.port == hello.port;
        let hidden = self.listed.is_some() && hello.port == 0;
        self.ip == ip && (same || listens || hidden)
    }
}
