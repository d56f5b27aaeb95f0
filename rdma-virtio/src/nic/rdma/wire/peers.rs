//! The table of peers: who is called, who is answered, which sessions are up.
//!
//! Events come in with the time, actions go out through [`Peers::poll_action`], in order. Owns
//! neither connections nor queue pairs, only the decision what becomes of them. Invariants: a peer
//! has at most one queue pair, and of two simultaneous calls one stands; nobody outside list and
//! prefixes is answered; the number of peers, of strangers that have not said hello, and of
//! actions a event causes are bounded.

mod answer;
mod ending;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::backoff::{DIAL_NS_MAX, WORD_NS_MAX};
use super::counters::WireCounters;
use super::exchange::{Hello, Mode, Parting, Refusal, Word};
use super::header::{VERSION, VERSION_MIN};
use super::macs::Macs;
use super::peer::{ConnId, Peer, PeerId, Prepared, Purpose, State};

/// Most peers of one wire.
pub const PEERS_MAX: u16 = 1024;
/// Most connections that have not said hello.
pub const STRANGERS_MAX: usize = 16;

/// What this host says of itself in every hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The wire's mode.
    pub mode: Mode,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Longest IP packet.
    pub mtu: u16,
    /// Longest message that it sends, and the least that a peer must take.
    pub message_max: u32,
    /// TCP port where it listens; 0 if it does not.
    pub port: u16,
    /// Its process.
    pub incarnation: u32,
    /// Random; settles simultaneous calls.
    pub host: u64,
}

/// Addresses that may call: all whose first `bits` are those of `address`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Any of them.
    pub address: IpAddr,
    /// Length in bits.
    pub bits: u8,
}

impl Prefix {
    /// Whether the address is one of them. An IPv4 address mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                bits == 0 || differ >> 32_u32.saturating_sub(bits).min(31) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                bits == 0 || differ >> 128_u32.saturating_sub(bits).min(127) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Who may be a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admission {
    /// Called, and answered.
    pub listed: Vec<SocketAddr>,
    /// Answered.
    pub accept: Vec<Prefix>,
    /// Most peers; at least as many as listed.
    pub peers_max: u16,
}

/// Why a session went down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The peer's process ended, and its connections with it.
    Gone,
    /// The path or the queue pair failed; the process may live.
    Broken,
    /// It never came up.
    Never,
}

/// What is to be done, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect, and say how it went by [`Peers::on_connected`].
    Dial {
        /// The connection's name from now on.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Say a word on a connection.
    Say {
        /// The connection.
        conn: ConnId,
        /// The word.
        word: Word,
    },
    /// Close a connection, when what was said is on its way. It causes no event any more.
    HangUp {
        /// The connection.
        conn: ConnId,
    },
    /// Make a queue pair, ready to receive nothing yet, and call [`Peers::on_prepared`].
    Prepare {
        /// For whom.
        peer: PeerId,
    },
    /// Connect the queue pair to the peer's, so that it receives and may send, and call
    /// [`Peers::on_established`].
    Establish {
        /// For whom.
        peer: PeerId,
        /// What the peer said.
        hello: Hello,
        /// What messages from it bear as session.
        session: u32,
    },
    /// Frames may be sent.
    Up {
        /// To whom.
        peer: PeerId,
    },
    /// No frames any more; the queue pair goes.
    Down {
        /// To whom.
        peer: PeerId,
        /// Why.
        loss: Loss,
    },
    /// Ask whether it is still there: somebody calls with its hardware address, as it does itself
    /// from an address that it was not at before.
    Doubt {
        /// Whom.
        peer: PeerId,
    },
    /// The process that the peer was before is gone, and its connections with it.
    Replaced {
        /// Which.
        peer: PeerId,
    },
}

#[derive(Clone, Copy, Debug)]
struct Stranger {
    conn: ConnId,
    ip: IpAddr,
    since_ns: u64,
}

/// The table.
#[derive(Debug)]
pub struct Peers {
    identity: Identity,
    admission: Admission,
    peers: Vec<Peer>,
    strangers: Vec<Stranger>,
    actions: VecDeque<Action>,
    next_conn: u32,
    random: u64,
}

/// A step of SplitMix64, for spread and session numbers.
fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The table and what its events may touch besides.
#[derive(Debug)]
pub struct Outside<'a> {
    /// The time in nanoseconds.
    pub now_ns: u64,
    /// Counters.
    pub counters: &'a mut WireCounters,
    /// Addresses of the peers that are up.
    pub macs: &'a mut Macs,
}

impl Peers {
    /// A table; `seed` is random.
    #[must_use]
    pub fn new(identity: Identity, admission: Admission, seed: u64) -> Peers {
        let peers = admission.listed.iter().map(|to| Peer::listed(*to)).collect();
        Peers {
            identity,
            admission,
            peers,
            strangers: Vec::new(),
            actions: VecDeque::new(),
            next_conn: 0,
            random: seed,
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Who this host is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The session with a peer, if it is up: its hello.
    #[must_use]
    pub fn up(&self, peer: PeerId) -> Option<&Hello> {
        match &self.peers.get(usize::from(peer.0))?.state {
            State::Up { hello, .. } => Some(hello),
            _ => None,
        }
    }

    /// Sessions that are up.
    #[must_use]
    pub fn up_count(&self) -> usize {
        self.peers.iter().filter(|peer| matches!(peer.state, State::Up { .. })).count()
    }

    /// Where a peer is, and why its last call was refused, for messages.
    #[must_use]
    pub fn refusal(&self, peer: PeerId) -> Option<(IpAddr, Refusal, u32)> {
        let peer = self.peers.get(usize::from(peer.0))?;
        peer.refusal.map(|(refusal, number)| (peer.ip, refusal, number))
    }

    /// When [`Peers::on_tick`] is due, in nanoseconds.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        let peers = self.peers.iter().map(|peer| peer.state.deadline(DIAL_NS_MAX, WORD_NS_MAX));
        let strangers = self.strangers.iter().map(|s| s.since_ns.saturating_add(WORD_NS_MAX));
        peers.chain(strangers).min().unwrap_or(u64::MAX)
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn = self.next_conn.wrapping_add(1);
        ConnId(self.next_conn)
    }

    fn id(index: usize) -> PeerId {
        PeerId(u16::try_from(index).unwrap_or(u16::MAX))
    }

    fn by_conn(&self, conn: ConnId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.state.conn() == Some(conn))
    }

    /// Time has passed: calls that are due, and words that did not come.
    pub fn on_tick(&mut self, outside: &mut Outside<'_>) {
        let now_ns = outside.now_ns;
        for index in 0..self.peers.len() {
            if self.peers[index].state.deadline(DIAL_NS_MAX, WORD_NS_MAX) > now_ns {
                continue;
            }
            match self.peers[index].state {
                State::Idle { .. } => self.dial(index, outside),
                State::Up { .. } => {}
                _ => {
                    outside.counters.timeouts += 1;
                    self.drop_session(index, Loss::Broken, outside);
                }
            }
        }
        while let Some(at) =
            self.strangers.iter().position(|s| s.since_ns.saturating_add(WORD_NS_MAX) <= now_ns)
        {
            let stranger = self.strangers.swap_remove(at);
            outside.counters.timeouts += 1;
            self.actions.push_back(Action::HangUp { conn: stranger.conn });
        }
    }

    fn dial(&mut self, index: usize, outside: &mut Outside<'_>) {
        let conn = self.new_conn();
        let peer = &mut self.peers[index];
        let Some(to) = peer.listed else {
            peer.state = State::Idle { retry_ns: u64::MAX };
            return;
        };
        peer.state = State::Dialling { conn, since_ns: outside.now_ns };
        outside.counters.dials += 1;
        self.actions.push_back(Action::Dial { conn, to });
    }

    /// Somebody connected; gives the connection's name, or nothing if it is to be closed at once.
    pub fn on_incoming(&mut self, ip: IpAddr, outside: &mut Outside<'_>) -> Option<ConnId> {
        let ip = ip.to_canonical();
        let known = self.admission.listed.iter().any(|to| to.ip().to_canonical() == ip);
        let allowed = known || self.admission.accept.iter().any(|prefix| prefix.contains(ip));
        if self.strangers.len() >= STRANGERS_MAX {
            outside.counters.incoming_unwanted += 1;
            return None;
        }
        let conn = self.new_conn();
        if !allowed {
            outside.counters.incoming_unwanted += 1;
            self.refuse(conn, Refusal::NotAllowed, 0);
            return Some(conn);
        }
        self.strangers.push(Stranger { conn, ip, since_ns: outside.now_ns });
        Some(conn)
    }

    /// A call got through, or not.
    pub fn on_connected(&mut self, conn: ConnId, through: bool, outside: &mut Outside<'_>) {
        let Some(index) = self.by_conn(conn) else { return };
        if !through {
            outside.counters.dials_failed += 1;
            self.drop_session(index, Loss::Broken, outside);
            return;
        }
        self.prepare(index, conn, Purpose::Call, outside);
    }

    fn prepare(&mut self, index: usize, conn: ConnId, purpose: Purpose, outside: &mut Outside<'_>) {
        let low = u32::from(Self::id(index).0);
        let high = u32::try_from(step(&mut self.random) >> 48).unwrap_or(0);
        let peer = &mut self.peers[index];
        peer.session = high << 16 | low;
        peer.state = State::Preparing { conn, purpose, since_ns: outside.now_ns };
        self.actions.push_back(Action::Prepare { peer: Self::id(index) });
    }

    /// The queue pair for a peer was made, or could not be.
    pub fn on_prepared(
        &mut self,
        peer: PeerId,
        prepared: Option<Prepared>,
        outside: &mut Outside<'_>,
    ) {
        let index = usize::from(peer.0);
        let Some(State::Preparing { conn, purpose, .. }) = self.peers.get(index).map(|p| p.state)
        else {
            return;
        };
        let Some(prepared) = prepared else {
            if let Purpose::Answer(_) = purpose {
                outside.counters.refusals += 1;
                let word = Word::Refuse(Refusal::Failed, 0);
                self.actions.push_back(Action::Say { conn, word });
            }
            self.drop_session(index, Loss::Broken, outside);
            return;
        };
        let own = self.hello(index, prepared);
        let since_ns = outside.now_ns;
        match purpose {
            Purpose::Call => {
                self.peers[index].state = State::Greeted { conn, since_ns };
                self.actions.push_back(Action::Say { conn, word: Word::Hello(own) });
            }
            Purpose::Answer(hello) => {
                let version = VERSION.min(hello.versions.1);
                let own = Hello { versions: (version, version), ..own };
                let purpose = Purpose::Answer(own);
                let state = State::Establishing { conn, purpose, hello, since_ns };
                self.peers[index].state = state;
                let session = self.peers[index].session;
                self.actions.push_back(Action::Establish { peer, hello, session });
            }
        }
    }

    fn hello(&self, index: usize, prepared: Prepared) -> Hello {
        let Identity { mode, mac, mtu, message_max, port, incarnation, host } = self.identity;
        Hello {
            versions: (VERSION_MIN, VERSION),
            mode,
            mac,
            mtu,
            message_max,
            endpoint: prepared.endpoint,
            session: self.peers[index].session,
            incarnation,
            credits: prepared.credits,
            port,
            host,
        }
    }

    /// The queue pair of a peer is connected, or could not be.
    pub fn on_established(&mut self, peer: PeerId, done: bool, outside: &mut Outside<'_>) {
        let index = usize::from(peer.0);
        let Some(State::Establishing { conn, purpose, hello, .. }) =
            self.peers.get(index).map(|p| p.state)
        else {
            return;
        };
        if !done {
            self.part(index, Parting::Broken, outside);
            return;
        }
        match purpose {
            Purpose::Call => {
                self.actions.push_back(Action::Say { conn, word: Word::Ready });
                self.rise(index, conn, hello, outside);
            }
            Purpose::Answer(own) => {
                let since_ns = outside.now_ns;
                self.peers[index].state = State::Answered { conn, hello, since_ns };
                self.actions.push_back(Action::Say { conn, word: Word::Accept(own) });
            }
        }
    }

    /// A message came over a peer's queue pair: it is ready, whether its word came or not.
    pub fn on_heard(&mut self, peer: PeerId, outside: &mut Outside<'_>) {
        let index = usize::from(peer.0);
        if let Some(State::Answered { conn, hello, .. }) = self.peers.get(index).map(|p| p.state) {
            self.rise(index, conn, hello, outside);
        }
    }

    fn rise(&mut self, index: usize, conn: ConnId, hello: Hello, outside: &mut Outside<'_>) {
        let id = Self::id(index);
        let peer = &mut self.peers[index];
        let before = peer.incarnation.replace(hello.incarnation);
        peer.host = hello.host;
        if hello.port != 0 && peer.listed.is_none() {
            peer.port = hello.port;
        }
        peer.backoff.reset();
        peer.refusal = None;
        peer.state = State::Up { conn, hello };
        outside.counters.sessions_up += 1;
        if before.is_some_and(|before| before != hello.incarnation) {
            outside.counters.gone += 1;
            self.actions.push_back(Action::Replaced { peer: id });
        }
        self.actions.push_back(Action::Up { peer: id });
    }
}

#[cfg(test)]
mod tests;
