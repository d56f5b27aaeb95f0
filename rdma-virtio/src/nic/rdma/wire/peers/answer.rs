//! What a word of the other side changes.

use std::net::IpAddr;

use super::super::backoff::BACKOFF_MIN_NS;
use super::super::exchange::{Hello, Parting, Refusal, Word};
use super::super::peer::{ConnId, Peer, Purpose, State};
use super::{Action, Loss, Outside, PEERS_MAX, Peers};

impl Peers {
    /// A word came over a connection.
    pub fn on_word(&mut self, conn: ConnId, word: Word, outside: &mut Outside<'_>) {
        if let Some(at) = self.strangers.iter().position(|stranger| stranger.conn == conn) {
            let stranger = self.strangers.swap_remove(at);
            match word {
                Word::Hello(hello) => self.on_hello((conn, stranger.ip), hello, outside),
                Word::Accept(_) | Word::Refuse(..) | Word::Ready | Word::Bye(_) => {
                    outside.counters.garbage += 1;
                    self.actions.push_back(Action::HangUp { conn });
                }
            }
            return;
        }
        let Some(index) = self.by_conn(conn) else { return };
        match (self.peers[index].state, word) {
            (State::Greeted { conn, .. }, Word::Accept(hello)) => {
                self.on_accept(index, conn, hello, outside);
            }
            (State::Greeted { .. }, Word::Refuse(refusal, number)) => {
                self.on_refuse(index, (refusal, number), outside);
            }
            (State::Answered { conn, hello, .. }, Word::Ready) => {
                self.rise(index, conn, hello, outside);
            }
            // The message that came before it did the same.
            (State::Up { .. }, Word::Ready) => {}
            (_, Word::Bye(parting)) => {
                let loss = match parting {
                    Parting::Closing => Loss::Gone,
                    Parting::Broken => Loss::Broken,
                };
                self.drop_session(index, loss, outside);
            }
            (_, Word::Hello(_) | Word::Accept(_) | Word::Refuse(..) | Word::Ready) => {
                outside.counters.garbage += 1;
                self.part(index, Parting::Broken, outside);
            }
        }
    }

    fn on_accept(&mut self, index: usize, conn: ConnId, hello: Hello, outside: &mut Outside<'_>) {
        let id = Self::id(index);
        let taken = outside.macs.is_taken(hello.mac, id);
        let unfit = if taken { Some((Refusal::Mac, 0)) } else { self.unfit(&hello) };
        if let Some(refusal) = unfit {
            outside.counters.refusals += 1;
            self.peers[index].refusal = Some(refusal);
            self.part(index, Parting::Broken, outside);
            return;
        }
        if !outside.macs.add(hello.mac, id) {
            self.part(index, Parting::Broken, outside);
            return;
        }
        let since_ns = outside.now_ns;
        let state = State::Establishing { conn, purpose: Purpose::Call, hello, since_ns };
        self.peers[index].state = state;
        let session = self.peers[index].session;
        self.actions.push_back(Action::Establish { peer: id, hello, session });
    }

    fn on_refuse(&mut self, index: usize, refusal: (Refusal, u32), outside: &mut Outside<'_>) {
        if refusal.0 != Refusal::Crossed {
            outside.counters.refused += 1;
            self.peers[index].refusal = Some(refusal);
        }
        self.drop_session(index, Loss::Never, outside);
    }

    /// Why this host and that one cannot be peers, if so, with the number that explains it.
    fn unfit(&self, hello: &Hello) -> Option<(Refusal, u32)> {
        let own = &self.identity;
        if hello.host == own.host {
            Some((Refusal::Itself, 0))
        } else if hello.mode != own.mode {
            Some((Refusal::Mode, 0))
        } else if hello.mtu != own.mtu {
            Some((Refusal::Mtu, u32::from(own.mtu)))
        } else if hello.message_max != own.message_max {
            Some((Refusal::Message, own.message_max))
        } else {
            None
        }
    }

    fn on_hello(&mut self, (conn, ip): (ConnId, IpAddr), hello: Hello, outside: &mut Outside<'_>) {
        outside.counters.incoming += 1;
        let fit = match self.unfit(&hello) {
            Some(refusal) => Err(refusal),
            None => self.place_for(ip, &hello).and_then(|index| {
                let taken = outside.macs.is_taken(hello.mac, Self::id(index));
                if taken { Err((Refusal::Mac, 0)) } else { Ok(index) }
            }),
        };
        let index = match fit {
            Ok(index) => index,
            Err((refusal, number)) => {
                outside.counters.refusals += 1;
                self.refuse(conn, refusal, number);
                let holder = outside.macs.holder(hello.mac).filter(|_| refusal == Refusal::Mac);
                self.actions.extend(holder.map(|peer| Action::Doubt { peer }));
                return;
            }
        };
        let own_call_stands = self.identity.host > hello.host;
        match self.peers[index].state {
            State::Preparing { purpose: Purpose::Call, .. }
            | State::Greeted { .. }
            | State::Establishing { purpose: Purpose::Call, .. }
                if own_call_stands =>
            {
                self.refuse(conn, Refusal::Crossed, 0);
                return;
            }
            State::Idle { .. } => {}
            State::Up { hello: old, .. } if old.incarnation != hello.incarnation => {
                self.drop_session(index, Loss::Gone, outside);
            }
            // The newest hello is the one that its caller still means.
            State::Dialling { .. }
            | State::Preparing { .. }
            | State::Greeted { .. }
            | State::Establishing { .. }
            | State::Answered { .. }
            | State::Up { .. } => self.drop_session(index, Loss::Broken, outside),
        }
        if !outside.macs.add(hello.mac, Self::id(index)) {
            outside.counters.refusals += 1;
            self.refuse(conn, Refusal::Mac, 0);
            let retry_ns = outside.now_ns.saturating_add(BACKOFF_MIN_NS);
            self.peers[index].state = State::Idle { retry_ns };
            return;
        }
        self.prepare(index, conn, Purpose::Answer(hello), outside);
    }

    /// The place of the peer that says hello: its own, a new one, or that of one that is away.
    fn place_for(&mut self, ip: IpAddr, hello: &Hello) -> Result<usize, (Refusal, u32)> {
        if let Some(index) = self.peers.iter().position(|peer| peer.is(ip, hello)) {
            return Ok(index);
        }
        // From a listed address, but another port: as if by the prefix of one address.
        let idle = |peer: &Peer| matches!(peer.state, State::Idle { .. });
        let most = usize::from(self.admission.peers_max.min(PEERS_MAX));
        let index = if self.peers.len() < most {
            self.peers.push(Peer::accepted(ip));
            self.peers.len() - 1
        } else {
            let away = |peer: &Peer| peer.listed.is_none() && idle(peer);
            let index = self.peers.iter().position(away);
            let index = index.ok_or((Refusal::Full, u32::from(self.admission.peers_max)))?;
            self.peers[index] = Peer::accepted(ip);
            index
        };
        self.peers[index].host = hello.host;
        self.peers[index].port = hello.port;
        Ok(index)
    }
}
