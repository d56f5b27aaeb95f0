//! What there is for each peer: nothing, a queue pair that is not connected yet, or a session.
//!
//! Invariants: a session whose frames are under way lies at hand and nowhere else; while a session
//! is calm its next message needs only a look at its header ([`Credit::take_next`]).

use std::collections::VecDeque;

use super::lane::Lane;
use super::wire::credit::{Credit, Delivery};
use super::wire::header::{HEADER_LEN, START_LEN};
use super::wire::peer::PeerId;
use crate::verbs::address::AddressHandle;
use crate::verbs::queue_pair::{Init, QueuePair};
use crate::verbs::work_list::{QuickLength, QuickLengths};

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
    pub(super) peer: PeerId,
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
    /// Longest short message, and longest one that may go now if there is credit: 0 while the
    /// peer is not up, or others wait.
    pub(super) short_limit: u32,
    pub(super) short_max: u32,
    quick: QuickLengths,
}

impl Full {
    pub(super) fn new(peer: PeerId, credit: Credit, lane: Option<Lane>, way: Option<Way>) -> Full {
        Full {
            peer,
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
            short_limit: 0,
            short_max: 0,
            quick: QuickLengths::up_to(0),
        }
    }
}

impl Full {
    /// Whether this is the peer's own hardware address, not one that it bridges.
    #[inline(always)]
    pub(super) fn is_from_itself(&self, source: u64) -> bool {
        source == self.mac_number
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
        self.quick = QuickLengths::up_to(self.short_max);
    }

    /// So many messages need no more than a look until something is to be done for the peer: it is
    /// owed an update, or has no more than `low` credits.
    #[inline]
    pub(super) fn calm_down(&mut self, low: u32) -> Calm {
        let above = self.credit.outstanding().saturating_sub(low);
        let until = if self.waiting.is_empty() { self.credit.until_owed() } else { 0 };
        self.credit.calm_down(above.min(until).saturating_sub(1));
        Calm { marked: until == 0, low: above == 0 }
    }

    /// The length of a frame for this address, if it may go to the peer at once and unseen, but for
    /// credit and the queue.
    #[inline(always)]
    pub(super) fn quick(&self, target: u64, length: u32) -> Option<QuickLength> {
        if target == self.mac_number { self.quick.find(length) } else { None }
    }

    /// Takes the next data message of a calm session by its header; kinds of no interest and bytes
    /// that are reserved are left to who looks closer. On false nothing was done.
    #[inline(always)]
    pub(super) fn take_next(&mut self, head: &[u8; HEADER_LEN]) -> bool {
        head[..START_LEN] == self.start_in && self.credit.take_next(head)
    }
}

/// What is to be done for a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Calm {
    /// An update may be owed, or frames wait.
    pub(super) marked: bool,
    /// It has few credits.
    pub(super) low: bool,
}

/// What there is for all peers. The session used last lies at hand.
pub(super) struct Links {
    /// By peer; the place of the one at hand is empty.
    all: Box<[Link]>,
    /// The session at hand; that of nobody if there is none, with which no message can be
    /// exchanged.
    near: Box<Full>,
    /// Its peer's number; [`NO_NUMBER`] if there is none.
    near_number: u32,
    /// The session of nobody, while another is at hand.
    nobody: Option<Box<Full>>,
}

/// No peer's number.
const NO_NUMBER: u32 = u32::MAX;

/// No peer.
const NOBODY: PeerId = PeerId(u16::MAX);

impl Links {
    pub(super) fn new(count: u16) -> Links {
        let nobody = Full::new(NOBODY, Credit::new(Delivery::Reliable, 0, 0), None, None);
        Links {
            all: (0..count).map(|_| Link::None).collect(),
            near: Box::new(nobody),
            near_number: NO_NUMBER,
            nobody: None,
        }
    }

    /// The peers that there may be.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> + use<> {
        (0..u16::try_from(self.all.len()).unwrap_or(u16::MAX)).map(PeerId)
    }

    /// The session at hand, or that of nobody.
    #[inline(always)]
    pub(super) fn near(&mut self) -> &mut Full {
        &mut self.near
    }

    #[inline(always)]
    fn is_near(&self, peer: PeerId) -> bool {
        u32::from(peer.0) == self.near_number
    }

    /// The session with a peer.
    #[inline]
    pub(super) fn full(&mut self, peer: PeerId) -> Option<&mut Full> {
        if self.is_near(peer) {
            return Some(&mut self.near);
        }
        match self.all.get_mut(usize::from(peer.0)) {
            Some(Link::Full(full)) => Some(full),
            _ => None,
        }
    }

    /// The session with a peer, which lies at hand from now on.
    #[inline(never)]
    pub(super) fn bring_near(&mut self, peer: PeerId) -> Option<&mut Full> {
        if !self.is_near(peer) {
            let found = self.all.get_mut(usize::from(peer.0))?;
            match std::mem::replace(found, Link::None) {
                Link::Full(full) => {
                    self.put_back();
                    self.nobody = Some(std::mem::replace(&mut self.near, full));
                    self.near_number = u32::from(peer.0);
                }
                other => {
                    *found = other;
                    return None;
                }
            }
        }
        Some(&mut self.near)
    }

    fn put_back(&mut self) {
        let Some(nobody) = self.nobody.take() else { return };
        let full = std::mem::replace(&mut self.near, nobody);
        let place = usize::from(full.peer.0);
        self.all[place] = Link::Full(full);
        self.near_number = NO_NUMBER;
    }

    /// A peer's place.
    pub(super) fn place(&mut self, peer: PeerId) -> Option<&mut Link> {
        self.put_back();
        self.all.get_mut(usize::from(peer.0))
    }

    /// All places.
    pub(super) fn places(&mut self) -> &mut [Link] {
        self.put_back();
        &mut self.all
    }
}

/// What there is for a peer.
pub(super) enum Link {
    None,
    Half(Half),
    Full(Box<Full>),
}

/// Peers to whom a list is to be posted: most often one.
pub(super) struct Unflushed {
    first: PeerId,
    others: Vec<PeerId>,
}

impl Unflushed {
    pub(super) fn new(peers: usize) -> Unflushed {
        Unflushed { first: NOBODY, others: Vec::with_capacity(peers) }
    }

    /// A peer's list has one request more, which is all there is in it if it `begins`.
    #[inline(always)]
    pub(super) fn add(&mut self, peer: PeerId, begins: impl FnOnce() -> bool) {
        if self.first == NOBODY {
            self.first = peer;
        } else if self.first != peer {
            self.add_other(peer, begins());
        }
    }

    #[cold]
    fn add_other(&mut self, peer: PeerId, begins: bool) {
        if begins {
            self.others.push(peer);
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NOBODY
    }

    #[inline(always)]
    pub(super) fn take_first(&mut self) -> Option<PeerId> {
        let first = std::mem::replace(&mut self.first, NOBODY);
        (first != NOBODY).then_some(first)
    }

    /// Those besides the first.
    #[inline(always)]
    pub(super) fn others(&mut self) -> &mut Vec<PeerId> {
        &mut self.others
    }
}
