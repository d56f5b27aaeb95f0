//! The engine of a wire: completions in, frames and credits out.
//!
//! Owns everything of the NIC but its capabilities, and the books of credits. Receiving is in
//! `reception`, sending in `transmit`, the life of sessions in `sessions`. Invariant: a peer that
//! may be owed an update is in the list of those once.

use std::collections::VecDeque;

use super::conversation::{Heard, Watch};
use super::failures::Failures;
use super::lane::{Lane, LanePlan};
use super::options::RdmaOptions;
use super::receives::{Receives, Sink};
use super::scratch::Scratch;
use super::slots::Slots;
use super::talk::{Meeting, Talk};
use super::wire::counters::WireCounters;
use super::wire::credit::Credit;
use super::wire::exchange::Mode;
use super::wire::header::{HEADER_BYTES, HEADER_LEN, START_LEN};
use super::wire::ledger::Ledger;
use super::wire::macs::{Macs, number};
use super::wire::peer::PeerId;
use super::wire::peers::{Outside, Peers};
use crate::nic::NicEvent;
use crate::verbs::address::{AddressHandle, Path};
use crate::verbs::attributes::Mtu;
use crate::verbs::completion::{CompletionChannel, CompletionQueue};
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::gid::{Gid, GidWish};
use crate::verbs::queue_pair::{Init, QueuePair, QueueSizes, Rts};
use crate::verbs::work_completion::WorkCompletion;

/// Completions taken at a time.
pub(super) const BATCH: usize = 16;
/// No count.
pub(super) const NEVER: usize = usize::MAX;
/// Most receives that wait to be posted together.
const POSTED_TOGETHER_MAX: u32 = 32;
/// So many of a queue with fewer than eight times as many.
const FEW: u32 = 4;
/// The GRH area in front of a datagram.
pub(super) const GRH_LEN: u32 = 40;
/// virtio-net header and Ethernet header: the shortest frame.
pub(super) const FRAME_MIN: u32 = 12 + 14;
/// Where the source address lies behind the header of the wire.
pub(super) const SOURCE_AT: u32 = 12 + 6;

/// How no message begins: the session that it names is none of those there may be.
const NO_START: [u8; START_LEN] = [0xff; START_LEN];

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
    /// Whether a frame to everyone passed this peer by for want of credit.
    pub(super) passed_by: bool,
    /// What its messages bear, and what those to it do.
    pub(super) session_in: u32,
    pub(super) session_out: u32,
    pub(super) incarnation: u32,
    /// How its data messages begin, once it is up, and those to it.
    pub(super) start_in: [u8; START_LEN],
    pub(super) start_out: [u8; START_LEN],
    pub(super) up: bool,
    /// Its hardware address; also as a number.
    pub(super) mac: [u8; 6],
    pub(super) mac_number: u64,
    /// When it was heard of last, but for messages taken the short way: those count from when
    /// somebody asks, who keeps how many there were then. And when it was asked last whether it is
    /// there.
    pub(super) heard_ns: u64,
    pub(super) heard_of: u32,
    pub(super) asked_ns: u64,
    /// Whether it is in the engine's list of those that may be owed an update.
    pub(super) dirty: bool,
    /// Whether it is in the list of those that used credits since receives were posted.
    pub(super) touched: bool,
    /// Messages of it after which nothing is to be done but to pass them on.
    pub(super) calm: u32,
    /// Longest short message, and longest one that may go now if there is credit: 0 while the
    /// peer is not up, or others wait.
    pub(super) short_limit: u32,
    pub(super) short_max: u32,
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
            passed_by: false,
            session_in: 0,
            session_out: 0,
            incarnation: 0,
            start_in: NO_START,
            start_out: [0; START_LEN],
            up: false,
            mac: [0; 6],
            mac_number: 0,
            heard_ns: 0,
            heard_of: 0,
            asked_ns: 0,
            dirty: false,
            touched: false,
            calm: 0,
            short_limit: 0,
            short_max: 0,
        }
    }
}

impl Full {
    /// Whether this is the peer's own hardware address, not one that it bridges.
    #[inline(always)]
    pub(super) fn is_from_itself(&self, source: [u8; 6]) -> bool {
        number(source) == self.mac_number
    }

    /// When it was heard of last, as far as is known now.
    pub(super) fn heard_ns(&mut self, now_ns: u64) -> u64 {
        let received = self.credit.received();
        if std::mem::replace(&mut self.heard_of, received) != received {
            self.heard_ns = now_ns;
        }
        self.heard_ns
    }

    /// To be called when the peer comes up, and when frames begin to wait or wait no more.
    pub(super) fn set_short_max(&mut self) {
        self.short_max = if self.up && self.waiting.is_empty() { self.short_limit } else { 0 };
    }

    /// Whether this is how a data message of the session begins; kinds of no interest and bytes
    /// that are reserved are left to who looks closer.
    #[inline]
    pub(super) fn is_next_data(&self, head: &[u8; HEADER_LEN]) -> bool {
        head[..START_LEN] == self.start_in
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
    pub(super) lane: LanePlan,
}

/// Verbs' objects, dropped from the top down.
pub(super) struct Objects {
    pub(super) recv_queue: CompletionQueue,
    pub(super) send_queue: CompletionQueue,
    pub(super) channel: CompletionChannel,
    pub(super) domain: ProtectionDomain,
    pub(super) context: Context,
}

/// Peers to whom a list is to be posted: most often one.
pub(super) struct Unflushed {
    pub(super) first: Option<PeerId>,
    pub(super) others: Vec<PeerId>,
}

impl Unflushed {
    #[inline(always)]
    pub(super) fn add(&mut self, peer: PeerId) {
        match self.first {
            None => self.first = Some(peer),
            Some(_) => self.add_other(peer),
        }
    }

    #[cold]
    fn add_other(&mut self, peer: PeerId) {
        self.others.push(peer);
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// What happened besides messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EngineCounters {
    pub(super) polls_failed: u64,
    pub(super) sends_failed: u64,
    /// Why, of sends and of receives.
    pub(super) failures: Failures,
    pub(super) posts_failed: u64,
    /// Calls of post_send, and turns of the worker that made one: what is more was sent while a
    /// turn received or slept.
    pub(super) doorbells: u64,
    pub(super) sending_turns: u64,
    pub(super) signals: u64,
    pub(super) wake_ups: u64,
    pub(super) ports_down: u64,
    pub(super) ports_up: u64,
    pub(super) gid_changes: u64,
    pub(super) gid_moves: u64,
    pub(super) gid_missing: u64,
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
    /// Cells that are left for control messages.
    pub(super) cells_kept: usize,
    pub(super) slots: Slots,
    pub(super) ledger: Ledger,
    pub(super) peers: Peers,
    pub(super) macs: Macs,
    pub(super) talk: Talk,
    pub(super) heard: Vec<Heard>,
    /// Wakes a sleeper: completions, and what is rare.
    pub(super) watch: Watch,
    /// What is rare: conversations and the device's events; and whether there may be some, and when
    /// it was looked at last, all together and each.
    pub(super) rare: Watch,
    pub(super) rare_doubted: bool,
    pub(super) looked_ns: u64,
    pub(super) listened_ns: u64,
    /// Whether the last look before a sleep found nothing.
    pub(super) is_quiet: bool,
    pub(super) objects: Objects,
    pub(super) mode: Mode,
    /// Bytes in front of a message.
    pub(super) in_front: u32,
    pub(super) path: PathPlan,
    pub(super) options: RdmaOptions,
    pub(super) message_max: u32,
    pub(super) lane: LanePlan,
    pub(super) tags: u16,
    pub(super) random: u64,
    /// Completions of receives, and which of them were not looked at yet.
    pub(super) completions: Box<[WorkCompletion; BATCH]>,
    pub(super) at: usize,
    pub(super) count: usize,
    /// When so many were looked at, nothing more is to be expected now; [`NEVER`] if the look
    /// filled its batch.
    pub(super) spent_at: usize,
    /// The receive whose message is lent, if one is.
    pub(super) lent: usize,
    /// Messages that were taken the short way and are not in the books yet.
    pub(super) plain: u32,
    /// Receives are posted again when so many are staged, or when a peer has so few credits.
    pub(super) posted_together: usize,
    /// So many staged ones make work: as many as are posted together, or any number.
    pub(super) attend_at: usize,
    pub(super) credits_low: u32,
    pub(super) touched: Vec<PeerId>,
    pub(super) dirty: Vec<PeerId>,
    pub(super) unflushed: Unflushed,
    pub(super) broken: Vec<PeerId>,
    pub(super) events: VecDeque<NicEvent>,
    /// The hardware address that each peer had last.
    pub(super) last_macs: Vec<[u8; 6]>,
    pub(super) counters: WireCounters,
    pub(super) local: EngineCounters,
    pub(super) now_ns: u64,
    pub(super) up_count: usize,
    /// Polls of receives since something was owed.
    pub(super) idle_polls: u32,
    /// Whether a peer has fewer credits than its share.
    pub(super) hungry: bool,
    /// UD: the one queue pair failed and is to be made anew.
    pub(super) shared_broken: bool,
    pub(super) datagrams: Option<DatagramPlan>,
    /// How hosts are met, and which GID is to be used for it.
    pub(super) meeting: Meeting,
    pub(super) wish: GidWish,
    /// Whether the GID in use may not be there any more.
    pub(super) gid_doubted: bool,
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
    pub(super) talk: Talk,
    pub(super) watch: Watch,
    pub(super) rare: Watch,
    pub(super) objects: Objects,
    pub(super) path: PathPlan,
    pub(super) datagrams: Option<DatagramPlan>,
    pub(super) meeting: Meeting,
    pub(super) wish: GidWish,
    pub(super) options: RdmaOptions,
    pub(super) message_max: u32,
    pub(super) lane: LanePlan,
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
            rare: parts.rare,
            rare_doubted: false,
            looked_ns: 0,
            listened_ns: 0,
            is_quiet: false,
            objects: parts.objects,
            mode,
            in_front: match mode {
                Mode::Rc => HEADER_BYTES,
                Mode::Ud => HEADER_BYTES + GRH_LEN,
            },
            path: parts.path,
            options: parts.options,
            message_max: parts.message_max,
            lane: parts.lane,
            tags: 0,
            random: parts.random,
            completions: Box::new([WorkCompletion::default(); BATCH]),
            at: 0,
            count: 0,
            spent_at: NEVER,
            lent: 0,
            plain: 0,
            posted_together: 1,
            attend_at: 1,
            credits_low: 0,
            touched: Vec::with_capacity(places),
            dirty: Vec::with_capacity(places),
            unflushed: Unflushed { first: None, others: Vec::with_capacity(places) },
            broken: Vec::with_capacity(places),
            events: VecDeque::new(),
            last_macs: vec![[0; 6]; places],
            counters: WireCounters::default(),
            local,
            now_ns: 0,
            up_count: 0,
            idle_polls: 0,
            hungry: false,
            shared_broken: false,
            datagrams: parts.datagrams,
            meeting: parts.meeting,
            wish: parts.wish,
            gid_doubted: false,
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
        self.keep_books();
        let mut outside =
            Outside { now_ns: self.now_ns, counters: &mut self.counters, macs: &mut self.macs };
        let result = call(&mut self.peers, &mut outside);
        self.act();
        result
    }

    /// Enters what was taken the short way. Before anything that reads the books, or changes who is
    /// in them.
    #[inline]
    pub(super) fn keep_books(&mut self) {
        let count = std::mem::take(&mut self.plain);
        self.ledger.on_used(count);
        self.counters.rx_messages += u64::from(count);
        self.counters.rx_delivered += u64::from(count);
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
    /// Buffers came: receives are made of them, and posted.
    pub(super) fn replenish(&mut self) {
        self.receives.replenish();
        if self.receives.staged_count() >= self.posted_together {
            self.post_receives();
        }
    }

    /// Posts the receives that are staged; who used credits gets others.
    #[inline(never)]
    pub(super) fn post_receives(&mut self) {
        if self.receives.staged_count() == 0 {
            return;
        }
        self.keep_books();
        let pair = self.shared.as_ref().map(|lane| &lane.pair);
        let posted = self.receives.flush((&self.sink, pair));
        self.ledger.on_posted(posted);
        while let Some(peer) = self.touched.pop() {
            if let Some(full) = self.full(peer) {
                full.touched = false;
                full.calm = 0;
                self.grant(peer);
            }
            if self.full(peer).is_some_and(|full| full.credit.may_owe()) {
                self.mark(peer);
            }
        }
        self.feed();
        // An eighth of the queue, or some of a short one, so that credits do not run out meanwhile.
        let peak = self.ledger.posted_peak();
        let together = (peak / 8).max((peak / 3).min(FEW)).min(POSTED_TOGETHER_MAX);
        // Nor are so few left that those posted must be told of at once.
        let together = together.min(self.ledger.share().saturating_sub(1) / 2).max(1);
        self.posted_together = usize::try_from(together).unwrap_or(1);
        self.credits_low = self.ledger.share() / 2;
    }
}
