//! The life of sessions: what the table of peers says is done here, with sockets and verbs.
//!
//! All of it is cold. Invariants: what a queue pair had with the device comes back, as completed
//! in error, only after the queue pair was destroyed; a receive that was lost with a queue pair is
//! found again when no queue pair is left.

use super::conversation::Heard;
use super::engine::{DatagramPlan, Engine, Objects};
use super::lane::{Lane, NO_CELL, NO_SLOT};
use super::link::{Full, Half, Link, Way};
use super::receives::Sink;
use super::transmit::SHARED_TAG;
use super::wire::credit::{Credit, DOUBT_NS_MAX, Delivery, SILENCE_NS_MAX};
use super::wire::exchange::{Endpoint, Hello, Mode};
use super::wire::header::{Header, Kind};
use super::wire::macs::number;
use super::wire::peer::{PeerId, Prepared};
use super::wire::peers::{Action, Loss};
use crate::nic::{DeviceError, NicEvent, WcStatus};
use crate::verbs::attributes::Mtu;
use crate::verbs::gid::Gid;
use crate::verbs::queue_pair::{Init, QueuePair, QueuePairKind, QueuePairOptions, QueueSizes, Rts};
use crate::verbs::shared_receive::SharedReceiveOptions;
use crate::verbs::transition::{
    InitAttributes, ReceiveAttributes, ReliableReceive, ReliableSend, SendAttributes,
};

/// Most address handles that wait for the sends that name them.
const RETIRED_MAX: usize = 1024;

/// How long nobody looks for words and events while all is well, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;
/// How long nobody looks at each for itself.
const LISTEN_NS: u64 = 100_000_000;

/// The path MTU as `enum ibv_mtu` has it.
pub(super) fn mtu_code(mtu: Mtu) -> u8 {
    match mtu {
        Mtu::B256 => 1,
        Mtu::B512 => 2,
        Mtu::B1024 => 3,
        Mtu::B2048 => 4,
        Mtu::B4096 => 5,
    }
}

fn mtu_of(code: u8) -> Mtu {
    match code {
        1 => Mtu::B256,
        2 => Mtu::B512,
        3 => Mtu::B1024,
        4 => Mtu::B2048,
        _ => Mtu::B4096,
    }
}

/// The one queue pair of a datagram wire.
pub(super) fn datagrams(objects: &Objects, plan: &DatagramPlan) -> Result<Lane, DeviceError> {
    let pair = objects.domain.queue_pair_fitting(&QueuePairOptions {
        kind: QueuePairKind::Ud,
        send_queue: &objects.send_queue,
        recv_queue: &objects.recv_queue,
        shared_receive: None,
        sizes: plan.sizes,
        max_tso_header: 0,
    })?;
    let pair = pair.init(&InitAttributes { port: plan.port, pkey_index: 0, qkey: plan.qkey })?;
    let pair = pair.rtr(&ReceiveAttributes::Unconnected)?;
    let pair = pair.rts(&SendAttributes::Datagram { psn: 0 })?;
    Ok(Lane::new(pair, SHARED_TAG, &plan.lane))
}

impl Engine {
    /// Does what the table of peers says, in order.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.peers.poll_action() {
            match action {
                Action::Dial { conn, to } => {
                    if !self.talk.dial(conn, to, &self.rare) {
                        self.with_peers(|peers, o| peers.on_connected(conn, false, o));
                    }
                }
                Action::Say { conn, word } => self.talk.say(conn, &word),
                Action::HangUp { conn } => self.talk.hang_up(conn, self.now_ns),
                Action::Prepare { peer } => {
                    let prepared = self.prepare(peer);
                    self.with_peers(|peers, o| peers.on_prepared(peer, prepared, o));
                }
                Action::Establish { peer, hello, session } => {
                    let done = self.establish(peer, &hello, session).is_some();
                    self.with_peers(|peers, o| peers.on_established(peer, done, o));
                }
                Action::Up { peer } => self.rise(peer),
                Action::Down { peer, loss } => self.fall(peer, loss),
                Action::Doubt { peer } => self.doubt(peer),
                Action::Replaced { peer } => self.tell_gone(peer),
            }
        }
    }

    fn next_random(&mut self, bits: u32) -> u32 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        u32::try_from(self.random >> 32).unwrap_or(0) & ((1 << bits) - 1)
    }

    /// A queue pair for a peer, and its first credits.
    fn prepare(&mut self, peer: PeerId) -> Option<Prepared> {
        if !matches!(self.links.place(peer)?, Link::None) {
            return None;
        }
        let psn = self.next_random(24);
        let (pair, qpn) = match self.mode {
            Mode::Rc => {
                let pair = self.make_pair().ok()?;
                let qpn = pair.number();
                (Some(pair), qpn)
            }
            Mode::Ud => (None, self.shared_pair()?.number()),
        };
        self.ledger.join();
        let granted = self.ledger.grant(0);
        self.hungry = true;
        *self.links.place(peer)? = Link::Half(Half { pair, psn, granted });
        let gid = self.path.own.0;
        let path_mtu = mtu_code(self.path.mtu);
        let endpoint = Endpoint { qpn, psn, qkey: self.path.qkey, gid, path_mtu };
        Some(Prepared { endpoint, credits: u16::try_from(granted).unwrap_or(u16::MAX) })
    }

    fn make_pair(&self) -> Result<QueuePair<Init>, DeviceError> {
        let shared_receive = match &self.sink {
            Sink::Shared(queue) => Some(queue),
            Sink::Own => None,
        };
        let objects = &self.objects;
        let pair = objects.domain.queue_pair_fitting(&QueuePairOptions {
            kind: QueuePairKind::Rc,
            send_queue: &objects.send_queue,
            recv_queue: &objects.recv_queue,
            shared_receive,
            sizes: QueueSizes {
                max_send_wr: u32::try_from(self.lane.depth).unwrap_or(u32::MAX),
                max_recv_wr: 0,
                max_send_sge: u32::try_from(self.lane.sges).unwrap_or(u32::MAX),
                max_recv_sge: 0,
                max_inline: super::open::INLINE_MAX,
            },
            max_tso_header: 0,
        })?;
        pair.init(&InitAttributes { port: self.path.template.port, pkey_index: 0, qkey: 0 })
    }

    /// Connects to what the peer said.
    fn establish(&mut self, peer: PeerId, hello: &Hello, session: u32) -> Option<()> {
        let place = self.links.place(peer)?;
        let half = match std::mem::replace(place, Link::None) {
            Link::Half(half) => half,
            other => {
                *place = other;
                return None;
            }
        };
        let granted = half.granted;
        let connected = self.connect(peer, half, hello);
        let Ok((lane, way, source)) = connected else {
            self.ledger.leave(granted);
            return None;
        };
        let delivery = match self.mode {
            Mode::Rc => Delivery::Reliable,
            Mode::Ud => Delivery::Datagram,
        };
        let credit = Credit::new(delivery, granted, u32::from(hello.credits));
        let mut full = Full::new(peer, credit, lane, way);
        full.source = source;
        full.session_in = session;
        full.session_out = hello.session;
        full.incarnation = hello.incarnation;
        let own = self.peers.identity().incarnation;
        full.start_out = Header::data_start(hello.session, own);
        full.mac = hello.mac;
        full.mac_number = number(hello.mac);
        let lane = full.lane.as_ref().or(self.shared.as_ref());
        full.short_limit = lane.map_or(0, |lane| lane.short_max);
        *self.links.place(peer)? = Link::Full(Box::new(full));
        Some(())
    }

    fn connect(
        &mut self,
        peer: PeerId,
        half: Half,
        hello: &Hello,
    ) -> Result<(Option<Lane>, Option<Way>, u32), DeviceError> {
        let mut path = self.path.template;
        path.destination = Gid(hello.endpoint.gid);
        let Some(pair) = half.pair else {
            let handle = self.objects.domain.address_handle(&path)?;
            let Endpoint { qpn, qkey, .. } = hello.endpoint;
            return Ok((None, Some(Way { handle, queue_pair: qpn, qkey }), qpn));
        };
        let retry = self.options.retry;
        let pair = pair.rtr(&ReceiveAttributes::Reliable(ReliableReceive {
            path,
            mtu: self.path.mtu.min(mtu_of(hello.endpoint.path_mtu)),
            queue_pair: hello.endpoint.qpn,
            psn: hello.endpoint.psn,
            min_rnr_timer: retry.min_rnr_timer,
        }))?;
        let pair: QueuePair<Rts> = pair.rts(&SendAttributes::Reliable(ReliableSend {
            psn: half.psn,
            timeout: retry.timeout,
            retry_count: retry.retry_cnt,
            rnr_retry: retry.rnr_retry,
        }))?;
        self.tags = self.tags.wrapping_add(1);
        let tag = u32::from(self.tags) << 16 | u32::from(peer.0);
        let number = pair.number();
        Ok((Some(Lane::new(pair, tag, &self.lane)), None, number))
    }

    /// What the peer was is gone: nobody is left, or others are.
    fn tell_gone(&mut self, peer: PeerId) {
        let mac = self.last_macs.get(usize::from(peer.0)).copied().unwrap_or_default();
        self.events.push_back(match self.up_count {
            0 => NicEvent::PeerGone,
            _ => NicEvent::HostGone(mac),
        });
    }

    fn rise(&mut self, peer: PeerId) {
        let now_ns = self.now_ns;
        let Some(full) = self.full(peer) else { return };
        let mac = full.mac;
        full.up = true;
        full.heard_ns = now_ns;
        full.set_short_max();
        full.start_in = Header::data_start(full.session_in, full.incarnation);
        let datagrams = full.way.is_some();
        self.up_count += 1;
        if let Some(last) = self.last_macs.get_mut(usize::from(peer.0)) {
            *last = mac;
        }
        self.grant(peer);
        self.mark(peer);
        // A resolution through the connection manager has no third word: this message is it.
        if datagrams {
            self.post_control(peer, Kind::Probe);
        }
        self.events.push_back(NicEvent::LinkUp);
    }

    /// Asks a datagram peer at once, and waits less long for it than for one that is only silent.
    /// On RC the queue pair itself finds out.
    fn doubt(&mut self, peer: PeerId) {
        let now_ns = self.now_ns;
        let Some(full) = self.full(peer) else { return };
        if !full.up || full.way.is_none() {
            return;
        }
        full.heard_ns =
            full.heard_ns(now_ns).min(now_ns.saturating_sub(SILENCE_NS_MAX - DOUBT_NS_MAX));
        if now_ns.saturating_sub(full.asked_ns) < DOUBT_NS_MAX / 4 {
            return;
        }
        full.asked_ns = now_ns;
        self.post_control(peer, Kind::Probe);
    }

    /// A session is over: all that was under way comes back.
    fn fall(&mut self, peer: PeerId, loss: Loss) {
        let Some(place) = self.links.place(peer) else { return };
        match std::mem::replace(place, Link::None) {
            Link::None => {}
            Link::Half(half) => self.ledger.leave(half.granted),
            Link::Full(full) => self.dismantle(*full),
        }
        self.dirty.retain(|other| *other != peer);
        self.touched.retain(|other| *other != peer);
        match loss {
            Loss::Gone => self.tell_gone(peer),
            Loss::Broken if self.up_count == 0 => self.events.push_back(NicEvent::LinkDown),
            Loss::Broken | Loss::Never => {}
        }
        if self.links.places().iter().all(|link| matches!(link, Link::None)) {
            self.renew_receives();
        }
        self.feed();
    }

    fn dismantle(&mut self, full: Full) {
        self.up_count -= usize::from(full.up);
        self.ledger.leave(full.credit.outstanding());
        for slot in full.waiting {
            self.counters.tx_drop_down += 1;
            self.slots.complete(slot, WcStatus::Flushed);
        }
        if let Some(lane) = full.lane {
            for sent in lane.close() {
                if sent.cell != NO_CELL {
                    self.cells.push(sent.cell);
                }
                if sent.slot != NO_SLOT {
                    self.counters.tx_drop_down += 1;
                    self.slots.complete(sent.slot, WcStatus::Flushed);
                }
            }
        }
        if let (Some(way), Some(shared)) = (full.way, &self.shared) {
            self.retired.push_back((way.handle, shared.span().1));
        }
    }

    /// A queue pair that failed in the middle of a message may have taken a receive with it. When
    /// no queue pair is left, a new queue brings all receives back.
    fn renew_receives(&mut self) {
        let Sink::Shared(old) = &self.sink else { return };
        let (max_wr, max_sge) = (old.max_wr(), old.max_sge());
        let options = SharedReceiveOptions { max_wr, max_sge, token: 0 };
        let Ok(queue) = self.objects.domain.shared_receive_queue(&options) else { return };
        self.sink = Sink::Shared(queue);
        self.local.queues_renewed += 1;
        self.receives.take_back();
        self.ledger.on_renewed();
        self.receives.replenish();
        self.post_receives();
    }

    /// Ends the sessions whose queue pair failed or whose peer broke the rules.
    #[cold]
    pub(super) fn retire_broken(&mut self) {
        // The stack, which may be what sends, looks at a message whose receive would come back; it
        // is tried again when that is settled, or with the next cold work.
        if self.receives.has_lent() {
            return;
        }
        while let Some(peer) = self.broken.pop() {
            self.with_peers(|peers, outside| peers.on_broken(peer, outside));
        }
        if self.shared_broken {
            self.drop_shared();
        }
    }

    /// The datagram queue pair failed, as it does when a send finds the link down: all sessions
    /// end, and all that was with the device comes back. `maintain` makes a new one.
    fn drop_shared(&mut self) {
        self.keep_books();
        self.shared_broken = false;
        let Some(shared) = self.shared.take() else { return };
        for sent in shared.close() {
            if sent.cell != NO_CELL {
                self.cells.push(sent.cell);
            }
            if sent.slot != NO_SLOT {
                self.counters.tx_drop_down += 1;
                self.slots.complete(sent.slot, WcStatus::Flushed);
            }
        }
        self.receives.take_back();
        self.ledger.on_renewed();
        for peer in self.links.peers() {
            self.with_peers(|peers, outside| peers.on_broken(peer, outside));
        }
        self.retired.clear();
    }

    /// A new datagram queue pair, if there is none; the next try comes with the next cold work.
    fn renew_shared(&mut self) {
        let (None, Some(plan)) = (&self.shared, &self.datagrams) else { return };
        let Ok(lane) = datagrams(&self.objects, plan) else { return };
        self.shared = Some(lane);
        self.local.queues_renewed += 1;
        self.receives.replenish();
        self.post_receives();
    }

    /// Cold work.
    pub(super) fn maintain(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.look_for_what_is_rare();
        if self.peers.deadline() <= self.now_ns {
            self.with_peers(|peers, outside| peers.on_tick(outside));
        }
        if self.gid_doubted {
            self.look_for_gid();
        }
        self.poll_sends();
        self.renew_shared();
        for peer in self.links.peers() {
            self.send_waiting(peer);
        }
        self.expire_waiting();
        self.post_receives();
        self.feed();
        self.settle_all();
        self.ask_the_silent();
        self.flush_all();
        self.release_handles();
    }

    /// Words of other hosts and events of the device, which a system call each would find. While
    /// all is well they are asked for together, and that seldom; a sleeper that one of them woke,
    /// and who is not through with the words, asks each time.
    fn look_for_what_is_rare(&mut self) {
        let since_ns = |then: u64| self.now_ns.saturating_sub(then);
        let midway = self.peers.deadline() != u64::MAX;
        let at_once = std::mem::take(&mut self.rare_doubted) || midway;
        if !at_once && since_ns(self.looked_ns) < LOOK_NS && !self.talk.has_pending() {
            return;
        }
        // What a descriptor does not tell, as that there is room for a word, is seen later.
        let ready = since_ns(self.listened_ns) >= LISTEN_NS
            || self.talk.has_pending()
            || self.rare.is_ready();
        self.looked_ns = self.now_ns;
        if ready {
            self.listened_ns = self.now_ns;
            self.converse();
            self.take_async_events();
        }
    }

    fn converse(&mut self) {
        let mut heard = std::mem::take(&mut self.heard);
        self.talk.listen(self.now_ns, &self.rare, &mut heard);
        for what in heard.drain(..) {
            match what {
                Heard::Incoming(caller, ip) => {
                    let mut outside = super::wire::peers::Outside {
                        now_ns: self.now_ns,
                        counters: &mut self.counters,
                        macs: &mut self.macs,
                    };
                    if let Some(conn) = self.peers.on_incoming(ip, &mut outside) {
                        self.talk.adopt(conn, caller, &self.rare);
                    }
                    self.act();
                }
                Heard::Connected(conn, through) => {
                    self.with_peers(|peers, o| peers.on_connected(conn, through, o));
                }
                Heard::Word(conn, word) => self.with_peers(|p, o| p.on_word(conn, word, o)),
                Heard::Garbage(conn, error) => {
                    self.with_peers(|peers, o| peers.on_garbage(conn, error, o));
                    self.talk.hang_up(conn, self.now_ns);
                }
                Heard::Closed(conn, gone) => {
                    self.with_peers(|peers, o| peers.on_closed(conn, gone, o));
                    self.talk.hang_up(conn, self.now_ns);
                }
                Heard::Nobody(conn) => {
                    self.with_peers(|peers, o| peers.on_nobody(conn, o));
                    self.talk.hang_up(conn, self.now_ns);
                }
            }
        }
        self.heard = heard;
    }

    /// Lets go of address handles that no send names any more.
    fn release_handles(&mut self) {
        let Some(shared) = &self.shared else { return };
        let (oldest, _) = shared.span();
        while let Some((_, until)) = self.retired.front() {
            let still_named = until.wrapping_sub(oldest).wrapping_sub(1) < u32::MAX / 2;
            if still_named && self.retired.len() < RETIRED_MAX {
                return;
            }
            self.retired.pop_front();
        }
    }

    /// Ends everything: goodbye to all, queue pairs destroyed, sends back in error.
    pub(super) fn close(&mut self) {
        self.with_peers(|peers, outside| peers.close(outside));
        if let Some(shared) = self.shared.take() {
            debug_assert!(shared.tag() == SHARED_TAG);
            for sent in shared.close() {
                if sent.cell != NO_CELL {
                    self.cells.push(sent.cell);
                }
                if sent.slot != NO_SLOT {
                    self.slots.complete(sent.slot, WcStatus::Flushed);
                }
            }
        }
    }
}
