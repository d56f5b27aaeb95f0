//! The engine of a wire: completions in, frames and credits out.
//!
//! Owns everything of the NIC but its capabilities, and the books of credits. Receiving is in
//! `reception`, sending in `transmit`, the life of sessions in `sessions`. Invariant: a peer that
//! may be owed an update is in the list of those once.

use std::collections::VecDeque;

use super::conversation::{Heard, Watch};
use super::failures::Failures;
use super::lane::{Lane, LanePlan};
use super::link::{Full, Link, Links, Unflushed};
use super::options::RdmaOptions;
use super::receives::{Receives, Sink};
use super::scratch::Scratch;
use super::slots::Slots;
use super::talk::{Meeting, Talk};
use super::wire::counters::WireCounters;
use super::wire::exchange::Mode;
use super::wire::header::HEADER_BYTES;
use super::wire::ledger::Ledger;
use super::wire::macs::Macs;
use super::wire::peer::PeerId;
use super::wire::peers::{Outside, Peers};
use crate::nic::NicEvent;
use crate::verbs::address::{AddressHandle, Path};
use crate::verbs::attributes::Mtu;
use crate::verbs::completion::{CompletionChannel, CompletionQueue};
use crate::verbs::completion_batch::CompletionBatch;
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::gid::{Gid, GidWish};
use crate::verbs::queue_pair::{QueuePair, QueueSizes, Rts};

/// The GRH area in front of a datagram.
pub(super) const GRH_LEN: u32 = 40;
/// virtio-net header and Ethernet header: the shortest frame.
pub(super) const FRAME_MIN: u32 = 12 + 14;
/// Where the source address lies behind the header of the wire.
pub(super) const SOURCE_AT: u32 = 12 + 6;

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
    pub(super) links: Links,
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
    /// Bytes in front of a message, and of the shortest one.
    pub(super) before_rest: u32,
    pub(super) path: PathPlan,
    pub(super) options: RdmaOptions,
    pub(super) message_max: u32,
    pub(super) lane: LanePlan,
    pub(super) tags: u16,
    pub(super) random: u64,
    /// Completions of receives.
    pub(super) arrivals: CompletionBatch,
    /// Messages that were taken the short way and are not in the books yet.
    pub(super) plain: u32,
    /// So many staged ones make work: as many as are posted together, or any number.
    pub(super) attend_at: usize,
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
            links: Links::new(peers_max),
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
            before_rest: FRAME_MIN
                + match mode {
                    Mode::Rc => HEADER_BYTES,
                    Mode::Ud => HEADER_BYTES + GRH_LEN,
                },
            path: parts.path,
            options: parts.options,
            message_max: parts.message_max,
            lane: parts.lane,
            tags: 0,
            random: parts.random,
            arrivals: CompletionBatch::default(),
            plain: 0,
            attend_at: 1,
            touched: Vec::with_capacity(places),
            dirty: Vec::with_capacity(places),
            unflushed: Unflushed::new(places),
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
        self.links.full(peer)
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
        let Some(full) = self.links.full(peer) else { return };
        let held = full.credit.outstanding();
        let more = self.ledger.grant(held);
        full.credit.grant(more);
        self.hungry |= held + more < self.ledger.share();
    }

    /// Gives a peer that used credits new ones; says whether it got some, and is to be looked at
    /// the next time, too.
    #[inline]
    fn refill(&mut self, peer: PeerId) -> bool {
        let Some(full) = self.links.full(peer) else { return false };
        let held = full.credit.outstanding();
        let more = self.ledger.grant(held);
        full.credit.grant(more);
        self.hungry |= held + more < self.ledger.share();
        full.touched = more > 0;
        let found = full.calm_down(self.ledger.low());
        if !full.touched {
            full.credit.be_careful();
        }
        if found.marked {
            self.mark(peer);
        }
        more > 0
    }

    /// Receives were posted: those who had too few credits get some.
    pub(super) fn feed(&mut self) {
        if !self.hungry {
            return;
        }
        self.hungry = false;
        for peer in self.links.peers() {
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
        if let Some(full) = self.links.full(peer)
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
    pub(super) fn by_queue_pair(&mut self, number: u32) -> Option<PeerId> {
        let found = self.links.places().iter().position(|link| match link {
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
        if self.receives.staged_count() >= self.ledger.posted_together() {
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
        let mut at = 0;
        while let Some(&peer) = self.touched.get(at) {
            if self.refill(peer) {
                at += 1;
            } else {
                self.touched.swap_remove(at);
            }
        }
        self.feed();
    }
}
