//! How conversations and sessions end, and what is said then.

use super::super::exchange::{Parting, Refusal, Word, WordError};
use super::super::header::VERSION;
use super::super::peer::{ConnId, PeerId, State};
use super::{Action, Loss, Outside, Peers, step};

impl Peers {
    /// The connection ended; `gone` if the other process ended it, as against the path.
    pub fn on_closed(&mut self, conn: ConnId, gone: bool, outside: &mut Outside<'_>) {
        self.strangers.retain(|stranger| stranger.conn != conn);
        let Some(index) = self.by_conn(conn) else { return };
        if let State::Greeted { .. } = self.peers[index].state {
            outside.counters.dials_failed += 1;
        }
        let loss = if gone { Loss::Gone } else { Loss::Broken };
        self.drop_session(index, loss, outside);
    }

    /// The host answers, and the process that was called is not there: what it was before is gone,
    /// and its connections with it.
    pub fn on_nobody(&mut self, conn: ConnId, outside: &mut Outside<'_>) {
        let Some(index) = self.by_conn(conn) else { return };
        outside.counters.dials_failed += 1;
        self.drop_session(index, Loss::Never, outside);
        if self.peers[index].incarnation.take().is_some() {
            outside.counters.gone += 1;
            self.actions.push_back(Action::Replaced { peer: Self::id(index) });
        }
    }

    /// A peer's queue pair failed, or it broke the rules.
    pub fn on_broken(&mut self, peer: PeerId, outside: &mut Outside<'_>) {
        let index = usize::from(peer.0);
        if self.peers.get(index).is_some_and(|peer| peer.state.has_queue_pair()) {
            outside.counters.broken += 1;
            self.part(index, Parting::Broken, outside);
        }
    }

    /// This process ends: says so to all.
    pub fn close(&mut self, outside: &mut Outside<'_>) {
        for index in 0..self.peers.len() {
            self.peers[index].listed = None;
            self.part(index, Parting::Closing, outside);
        }
        for stranger in std::mem::take(&mut self.strangers) {
            self.actions.push_back(Action::HangUp { conn: stranger.conn });
        }
    }

    /// Ends the session from this side.
    pub(super) fn part(&mut self, index: usize, parting: Parting, outside: &mut Outside<'_>) {
        self.end(index, (Loss::Broken, parting), outside);
    }

    /// Ends whatever there is with a peer; it is called again later if it is in the list.
    pub(super) fn drop_session(&mut self, index: usize, loss: Loss, outside: &mut Outside<'_>) {
        self.end(index, (loss, Parting::Broken), outside);
    }

    /// A connection that is closed without goodbye would mean that this process ended.
    fn end(&mut self, index: usize, (loss, parting): (Loss, Parting), outside: &mut Outside<'_>) {
        if self.peers[index].state.has_queue_pair()
            && let Some(conn) = self.peers[index].state.conn()
        {
            self.actions.push_back(Action::Say { conn, word: Word::Bye(parting) });
        }
        let seed = step(&mut self.random);
        let id = Self::id(index);
        outside.macs.forget(id);
        let peer = &mut self.peers[index];
        if let Some(conn) = peer.state.conn() {
            self.actions.push_back(Action::HangUp { conn });
        }
        if peer.state.has_queue_pair() {
            let was_up = matches!(peer.state, State::Up { .. });
            let loss = if was_up { loss } else { Loss::Never };
            if loss == Loss::Gone {
                // What comes back is a new process; nothing more of the old one will be found.
                peer.incarnation = None;
                outside.counters.gone += 1;
            }
            outside.counters.sessions_down += u64::from(was_up);
            self.actions.push_back(Action::Down { peer: id, loss });
        }
        let retry_ns = match peer.listed {
            Some(_) => outside.now_ns.saturating_add(peer.backoff.next_wait(seed)),
            None => u64::MAX,
        };
        peer.state = State::Idle { retry_ns };
    }

    /// What was said makes no sense: the conversation ends.
    pub fn on_garbage(&mut self, conn: ConnId, error: WordError, outside: &mut Outside<'_>) {
        outside.counters.garbage += 1;
        if let Some(at) = self.strangers.iter().position(|stranger| stranger.conn == conn) {
            self.strangers.swap_remove(at);
            match error {
                WordError::Version => self.refuse(conn, Refusal::Version, u32::from(VERSION)),
                WordError::Malformed => self.refuse(conn, Refusal::Failed, 0),
                // Whatever it is, it does not understand our words.
                WordError::Magic => self.actions.push_back(Action::HangUp { conn }),
            }
        } else if let Some(index) = self.by_conn(conn) {
            self.part(index, Parting::Broken, outside);
        }
    }

    pub(super) fn refuse(&mut self, conn: ConnId, refusal: Refusal, number: u32) {
        self.actions.push_back(Action::Say { conn, word: Word::Refuse(refusal, number) });
        self.actions.push_back(Action::HangUp { conn });
    }
}
