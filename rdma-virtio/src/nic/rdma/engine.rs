//! The engine of a wire: completions in, frames and credits out.
//!
//! Owns everything of the NIC but its capabilities. Receiving is here, sending in `transmit`, the
//! life of sessions in `sessions`. Invariants: a receive that completed is delivered or posted
//! again, and counted as one thing; nothing that a message says is used before its session,
//! incarnation and queue pair were found to be those of one peer.

use std::collections::VecDeque;

use super::conversation::{Conversations, Heard, Watch};
use super::lane::Lane;
use super::options::RdmaOptions;
use super::receives::{Receives, Sink};
use super::scratch::Scratch;
use super::slots::Slots;
use super::wire::counters::WireCounters;
use super::wire::credit::{Arrival, Credit};
use super::wire::exchange::Mode;
use super::wire::header::{HEADER_BYTES, Header};
use super::wire::ledger::Ledger;
use super::wire::macs::{Macs, Source};
use super::wire::peer::PeerId;
use super::wire::peers::{Outside, Peers};
use crate::nic::NicEvent;
use crate::verbs::address::{AddressHandle, Path};
use crate::verbs::attributes::Mtu;
use crate::verbs::completion::{CompletionChannel, CompletionQueue};
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::gid::Gid;
use crate::verbs::queue_pair::{Init, QueuePair, QueueSizes, Rts};
use crate::verbs::work_completion::WorkCompletion;

/// Completions taken at a time.
const BATCH: usize = 16;
/// The GRH area in front of a datagram.
pub(super) const GRH_LEN: u32 = 40;
/// virtio-net header and Ethernet header: the shortest frame.
const FRAME_MIN: u32 = 12 + 14;
/// Where the source address lies behind the header of the wire.
const SOURCE_AT: u32 = 12 + 6;

/// A queue pair that is not connected yet.
pub(super) struct Half {
    /// RC only.
    pub(super) pair: Option<QueuePair<Init>>,
    pub(super) psn: u32,
    pub(super) granted: u32,
}

/// The way of datagrams to a peer.
pub(super) struct Way {
    pub(super) handle: AddressHandle,
    pub(super) queue_pair: u32,
    pub(super) qkey: u32,
}

/// A session.
pub(super) struct Full {
    /// RC: the peer's own queue pair.
    pub(super) lane: Option<Lane>,
    /// UD: the way to it.
    pub(super) way: Option<Way>,
    /// The queue pair that its messages name: this side's (RC) or its own (UD).
    pub(super) source: u32,
    pub(super) credit: Credit,
    /// Slots of frames that wait for credit or room.
    pub(super) waiting: VecDeque<u32>,
    pub(super) waiting_since_ns: u64,
    /// What its messages bear, and what those to it do.
    pub(super) session_in: u32,
    pub(super) session_out: u32,
    pub(super) incarnation: u32,
    pub(super) up: bool,
    /// When it was heard of last, and asked last whether it is there.
    pub(super) heard_ns: u64,
    pub(super) asked_ns: u64,
    /// Whether it is in the engine's list of those that may be owed an update.
    dirty: bool,
}

impl Full {
    pub(super) fn new(credit: Credit, lane: Option<Lane>, way: Option<Way>) -> Full {
        Full {
            lane,
            way,
            source: 0,
            credit,
            waiting: VecDeque::new(),
            waiting_since_ns: 0,
            session_in: 0,
            session_out: 0,
            incarnation: 0,
            up: false,
            heard_ns: 0,
            asked_ns: 0,
            dirty: false,
        }
    }
}

/// What there is for a peer.
pub(super) enum Link {
    None,
    Half(Half),
    Full(Box<Full>),
}

/// What the port and the user say of every path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathPlan {
    pub(super) template: Path,
    pub(super) own: Gid,
    pub(super) mtu: Mtu,
    pub(super) qkey: u32,
}

/// The datagram queue pair, as it is made at start and again after it failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramPlan {
    pub(super) sizes: QueueSizes,
    pub(super) port: u8,
    pub(super) qkey: u32,
    pub(super) depth: usize,
}

/// Verbs' objects, dropped from the top down.
pub(super) struct Objects {
    pub(super) recv_queue: CompletionQueue,
    pub(super) send_queue: CompletionQueue,
    pub(super) channel: CompletionChannel,
    pub(super) domain: ProtectionDomain,
    pub(super) context: Context,
}

/// What happened besides messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EngineCounters {
    pub(super) polls_failed: u64,
    pub(super) sends_failed: u64,
    pub(super) posts_failed: u64,
    pub(super) doorbells: u64,
    pub(super) signals: u64,
    pub(super) wake_ups: u64,
    pub(super) ports_down: u64,
    pub(super) ports_up: u64,
    pub(super) gid_changes: u64,
    pub(super) queue_pair_events: u64,
    pub(super) other_events: u64,
    pub(super) queues_renewed: u64,
    pub(super) registered_bytes: u64,
}

/// The engine.
pub(super) struct Engine {
    // Queue pairs go before the queues and the memory that they name.
    pub(super) links: Vec<Link>,
    /// UD: the one queue pair.
    pub(super) shared: Option<Lane>,
    pub(super) retired: VecDeque<(AddressHandle, u32)>,
    pub(super) sink: Sink,
    pub(super) receives: Receives,
    pub(super) scratch: Scratch,
    pub(super) cells: Vec<u16>,
    pub(super) cells_kept: usize,
    pub(super) slots: Slots,
    pub(super) ledger: Ledger,
    pub(super) peers: Peers,
    pub(super) macs: Macs,
    pub(super) talk: Conversations,
    pub(super) heard: Vec<Heard>,
    pub(super) watch: Watch,
    pub(super) objects: Objects,
    pub(super) mode: Mode,
    pub(super) path: PathPlan,
    pub(super) options: RdmaOptions,
    pub(super) message_max: u32,
    pub(super) depth: usize,
    pub(super) send_sges: usize,
    pub(super) tags: u16,
    pub(super) random: u64,
    completions: Box<[WorkCompletion; BATCH]>,
    pub(super) dirty: Vec<PeerId>,
    pub(super) unflushed: Vec<PeerId>,
    pub(super) broken: Vec<PeerId>,
    pub(super) events: VecDeque<NicEvent>,
    pub(super) counters: WireCounters,
    pub(super) local: EngineCounters,
    pub(super) now_ns: u64,
    pub(super) up_count: usize,
    /// Polls of receives since something was owed.
    idle_polls: u32,
    /// Whether a peer has fewer credits than its share.
    pub(super) hungry: bool,
    /// UD: the one queue pair failed and is to be made anew.
    pub(super) shared_broken: bool,
    pub(super) datagrams: Option<DatagramPlan>,
    /// Why the device is of no use any more.
    pub(super) fatal: Option<&'static str>,
}

/// What an engine is made of.
pub(super) struct Parts {
    pub(super) shared: Option<Lane>,
    pub(super) sink: Sink,
    pub(super) receives: Receives,
    pub(super) scratch: Scratch,
    pub(super) cells: Vec<u16>,
    pub(super) peers: Peers,
    pub(super) macs: Macs,
    pub(super) talk: Conversations,
    pub(super) watch: Watch,
    pub(super) objects: Objects,
    pub(super) path: PathPlan,
    pub(super) datagrams: Option<DatagramPlan>,
    pub(super) options: RdmaOptions,
    pub(super) message_max: u32,
    pub(super) depth: usize,
    pub(super) send_sges: usize,
    pub(super) random: u64,
}

impl Engine {
    pub(super) fn new(mode: Mode, parts: Parts) -> Engine {
        let peers_max = parts.options.peers_max();
        let places = usize::from(peers_max);
        let local =
            EngineCounters { registered_bytes: parts.scratch.length(), ..Default::default() };
        Engine {
            links: (0..peers_max).map(|_| Link::None).collect(),
            shared: parts.shared,
            retired: VecDeque::new(),
            sink: parts.sink,
            receives: parts.receives,
            scratch: parts.scratch,
            cells_kept: 2 * places + 4,
            cells: parts.cells,
            slots: Slots::new(parts.options.queue),
            ledger: Ledger::new(u32::from(peers_max)),
            peers: parts.peers,
            macs: parts.macs,
            talk: parts.talk,
            heard: Vec::new(),
            watch: parts.watch,
            objects: parts.objects,
            mode,
            path: parts.path,
            options: parts.options,
            message_max: parts.message_max,
            depth: parts.depth,
            send_sges: parts.send_sges,
            tags: 0,
            random: parts.random,
            completions: Box::new([WorkCompletion::default(); BATCH]),
            dirty: Vec::with_capacity(places),
            unflushed: Vec::with_capacity(places),
            broken: Vec::with_capacity(places),
            events: VecDeque::new(),
            counters: WireCounters::default(),
            local,
            now_ns: 0,
            up_count: 0,
            idle_polls: 0,
            hungry: false,
            shared_broken: false,
            datagrams: parts.datagrams,
            fatal: None,
        }
    }

    #[inline]
    pub(super) fn full(&mut self, peer: PeerId) -> Option<&mut Full> {
        match self.links.get_mut(usize::from(peer.0)) {
            Some(Link::Full(full)) => Some(full),
            _ => None,
        }
    }

    /// Calls the table of peers, and does what it says.
    pub(super) fn with_peers<R>(
        &mut self,
        call: impl FnOnce(&mut Peers, &mut Outside<'_>) -> R,
    ) -> R {
        let mut outside =
            Outside { now_ns: self.now_ns, counters: &mut self.counters, macs: &mut self.macs };
        let result = call(&mut self.peers, &mut outside);
        self.act();
        result
    }

    /// Looks for received messages; what there is lies with the receives afterwards.
    #[inline]
    pub(super) fn poll_receives(&mut self) {
        let found = match self.objects.recv_queue.poll(&mut self.completions[..]) {
            Ok(found) => found,
            Err(_) => {
                self.on_poll_failed();
                return;
            }
        };
        if found == 0 {
            if !self.dirty.is_empty() {
                self.idle_polls += 1;
                // Once for the turn in which a frame to the peer may carry it.
                if self.idle_polls > 1 {
                    self.settle();
                    self.flush_all();
                }
            }
            return;
        }
        for at in 0..found.min(BATCH) {
            let completion = self.completions[at];
            self.on_receive(&completion);
        }
        self.after_receives();
    }

    #[cold]
    fn on_poll_failed(&mut self) {
        self.local.polls_failed += 1;
        self.fatal = Some("a completion queue failed or overran");
    }

    /// The receives are posted again; who may send more is told at the next chance.
    fn after_receives(&mut self) {
        let pair = self.shared.as_ref().map(|lane| &lane.pair);
        let posted = self.receives.replenish((&self.sink, pair));
        self.ledger.on_posted(posted);
        for at in 0..self.dirty.len() {
            let peer = self.dirty[at];
            self.grant(peer);
            self.send_waiting(peer);
        }
        self.idle_polls = self.idle_polls.saturating_add(1);
        if self.idle_polls > 2 {
            self.settle();
        }
        if !self.broken.is_empty() || self.shared_broken {
            self.retire_broken();
        }
        if !self.unflushed.is_empty() && self.has_waited() {
            self.flush_all();
        }
    }

    /// Whether frames were posted outside of the stack's turn to send.
    fn has_waited(&self) -> bool {
        !self.slots.is_empty() || self.idle_polls > 2
    }

    /// Books credits for a peer.
    #[inline]
    pub(super) fn grant(&mut self, peer: PeerId) {
        let Some(Link::Full(full)) = self.links.get_mut(usize::from(peer.0)) else { return };
        let held = full.credit.outstanding();
        let more = self.ledger.grant(held);
        full.credit.grant(more);
        self.hungry |= held + more < self.ledger.share();
    }

    /// Receives were posted: those who had too few credits get some.
    pub(super) fn feed(&mut self) {
        if !self.hungry {
            return;
        }
        self.hungry = false;
        for index in 0..self.links.len() {
            let peer = PeerId(u16::try_from(index).unwrap_or(u16::MAX));
            if let Some(full) = self.full(peer) {
                let before = full.credit.outstanding();
                self.grant(peer);
                if self.full(peer).is_some_and(|full| full.credit.outstanding() != before) {
                    self.mark(peer);
                }
            }
        }
    }

    /// A peer may be owed an update.
    #[inline]
    pub(super) fn mark(&mut self, peer: PeerId) {
        if let Some(Link::Full(full)) = self.links.get_mut(usize::from(peer.0))
            && !full.dirty
        {
            full.dirty = true;
            self.dirty.push(peer);
            self.idle_polls = 0;
        }
    }

    /// Whoever was owed an update was looked at.
    pub(super) fn unmark_all(&mut self) -> Vec<PeerId> {
        let dirty = std::mem::take(&mut self.dirty);
        for peer in &dirty {
            if let Some(full) = self.full(*peer) {
                full.dirty = false;
            }
        }
        self.idle_polls = 0;
        dirty
    }

    #[inline]
    fn on_receive(&mut self, completion: &WorkCompletion) {
        let Some(index) = self.receives.index_of(completion.wr_id()) else { return };
        self.counters.rx_messages += 1;
        self.ledger.on_completed();
        match self.judge(index, completion) {
            Some((peer, length)) => {
                self.counters.rx_delivered += 1;
                self.mark(peer);
                let pair = self.shared.as_ref().map(|lane| &lane.pair);
                let posted = self.receives.deliver(index, length, (&self.sink, pair));
                self.ledger.on_posted(posted);
            }
            None if self.shared_broken => self.receives.discard(index),
            None => {
                let pair = self.shared.as_ref().map(|lane| &lane.pair);
                let posted = self.receives.reuse(index, (&self.sink, pair));
                self.ledger.on_posted(posted);
            }
        }
    }

    /// Whose frame it is, and its length with virtio-net header; nothing if there is none to pass
    /// on, which is counted.
    #[inline]
    fn judge(&mut self, index: u16, completion: &WorkCompletion) -> Option<(PeerId, u32)> {
        if !completion.is_success() {
            self.counters.rx_failed += 1;
            self.on_receive_failed(completion);
            return None;
        }
        let in_front = match self.mode {
            Mode::Rc => HEADER_BYTES,
            Mode::Ud => HEADER_BYTES + GRH_LEN,
        };
        let Some(length) = completion.byte_len().checked_sub(in_front) else {
            self.counters.rx_drop_short += 1;
            return None;
        };
        let Ok(header) = Header::decode(&self.scratch.read(u32::from(index))) else {
            self.counters.rx_drop_header += 1;
            return None;
        };
        let peer = PeerId(u16::try_from(header.session & 0xffff).unwrap_or(u16::MAX));
        let from = match self.mode {
            Mode::Rc => completion.queue_pair(),
            Mode::Ud => completion.source_queue_pair(),
        };
        let full = match self.links.get_mut(usize::from(peer.0)) {
            Some(Link::Full(full))
                if full.session_in == header.session
                    && full.incarnation == header.incarnation
                    && full.source == from =>
            {
                full
            }
            _ => {
                self.on_stranger(completion);
                return None;
            }
        };
        full.heard_ns = self.now_ns;
        let before = full.credit.outstanding();
        let arrival = full.credit.on_header(&header);
        let used = before.saturating_sub(full.credit.outstanding());
        let up = full.up;
        self.ledger.release(used);
        if !up {
            self.with_peers(|peers, outside| peers.on_heard(peer, outside));
        }
        self.mark(peer);
        match arrival {
            Arrival::Fresh { missing } => self.counters.rx_missing += u64::from(missing),
            Arrival::Late => self.counters.rx_late += 1,
            Arrival::Control { missing } => {
                self.counters.rx_control += 1;
                self.counters.rx_missing += u64::from(missing);
                return None;
            }
            Arrival::Duplicate => {
                self.counters.rx_drop_duplicate += 1;
                return None;
            }
            Arrival::Violation(_) => {
                self.counters.rx_drop_violation += 1;
                self.counters.violations += 1;
                self.broken.push(peer);
                return None;
            }
        }
        self.check_frame(index, peer, length)
    }

    #[inline]
    fn check_frame(&mut self, index: u16, peer: PeerId, length: u32) -> Option<(PeerId, u32)> {
        let source = self.receives.read::<6>(index, SOURCE_AT);
        let (Some(source), true) = (source, length >= FRAME_MIN) else {
            self.counters.rx_drop_short += 1;
            return None;
        };
        if self.macs.source(source, peer) == Source::Foreign {
            self.counters.rx_drop_mac += 1;
            return None;
        }
        Some((peer, length))
    }

    /// A message of no session. On a queue pair of its own its sender breaks the rules.
    #[cold]
    fn on_stranger(&mut self, completion: &WorkCompletion) {
        self.counters.rx_drop_sender += 1;
        if self.mode == Mode::Rc
            && let Some(peer) = self.by_queue_pair(completion.queue_pair())
        {
            self.counters.violations += 1;
            self.broken.push(peer);
        }
    }

    /// A receive of a queue pair failed: so did the queue pair.
    #[cold]
    fn on_receive_failed(&mut self, completion: &WorkCompletion) {
        match self.by_queue_pair(completion.queue_pair()) {
            Some(peer) => self.broken.push(peer),
            None => self.shared_broken |= self.shared.is_some(),
        }
    }

    /// The peer of an RC queue pair.
    pub(super) fn by_queue_pair(&self, number: u32) -> Option<PeerId> {
        let found = self.links.iter().position(|link| match link {
            Link::Full(full) => full.lane.as_ref().is_some_and(|l| l.pair.number() == number),
            Link::None | Link::Half(_) => false,
        })?;
        u16::try_from(found).ok().map(PeerId)
    }

    /// The queue pair with which this side receives datagrams.
    pub(super) fn shared_pair(&self) -> Option<&QueuePair<Rts>> {
        self.shared.as_ref().map(|lane| &lane.pair)
    }
}

impl Engine {
    /// Buffers came: receives are made of them, and credits.
    pub(super) fn replenish(&mut self) {
        let pair = self.shared.as_ref().map(|lane| &lane.pair);
        let posted = self.receives.replenish((&self.sink, pair));
        self.ledger.on_posted(posted);
        self.feed();
    }
}
