//! The other end of a soft NIC in hostile hands, and the NIC that it is up against: for the
//! tests of
//! this folder and for fuzzing. Nothing of it is in an ordinary build.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::channel::FDS_MAX;
use super::greeting::{Greeting, Word};
use super::layout::{CONSUMED_OFFSET, RING_OFFSET, SLOT_LEN, sequence_of};
use super::session::say;
use super::shared::Slot;
use super::*;
use crate::memory::mapping::{Mapping, PageWish};
use crate::nic::{NicEvent, Sge, WcStatus};

pub(super) const SLOTS: u32 = 64;
pub(super) const TX_LEN: usize = 65_536;
pub(super) const RECV_LEN: u32 = 4096;
pub(super) const RECEIVES: u32 = 8;

/// The other end, with nothing of the NIC's own manners.
pub(super) struct Hostile {
    pub(super) channel: Channel,
    link: Mapping,
    tx: Mapping,
    pub(super) head: u64,
}

/// What is wrong with what the hostile peer shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Show {
    Properly,
    LinkUnsealed,
    TxUnsealed,
    OneFdTooFew,
    OneFdTooMany,
    PipesForMemory,
}

impl Hostile {
    pub(super) fn new(channel: Channel) -> Hostile {
        let link_len = Greeting::link_len_of(SLOTS, 0);
        let link = Mapping::create(c"hostile-link", link_len, PageWish::Ordinary).unwrap();
        let tx = Mapping::create(c"hostile-tx", TX_LEN, PageWish::Ordinary).unwrap();
        Hostile { channel, link, tx, head: 0 }
    }

    pub(super) fn greeting(&self) -> Greeting {
        let mut exports = ArrayVec::new();
        let bytes = u64::try_from(TX_LEN).unwrap();
        exports.push(Export { file_len: bytes, start: 0, length: bytes });
        Greeting {
            identity: 666,
            slots: SLOTS,
            mtu: 1500,
            frames: false,
            forces_barriers: false,
            accepted: Accepted::ALL,
            bounce_len: 0,
            link_len: u64::try_from(self.link.len()).unwrap(),
            exports,
        }
    }

    pub(super) fn show(&self, bytes: &[u8], how: Show) {
        if how != Show::LinkUnsealed {
            self.link.seal().unwrap();
        }
        if how != Show::TxUnsealed {
            self.tx.seal().unwrap();
        }
        let mut fds: ArrayVec<_, FDS_MAX> = ArrayVec::new();
        if how == Show::PipesForMemory {
            fds.extend([std::io::stdin().as_fd().try_clone_to_owned().unwrap()]);
        }
        let borrowed: ArrayVec<_, FDS_MAX> = match how {
            Show::OneFdTooFew => [self.link.memfd(0)].into_iter().collect(),
            Show::OneFdTooMany => {
                [self.link.memfd(0), self.tx.memfd(0), self.tx.memfd(0)].into_iter().collect()
            }
            Show::PipesForMemory => [fds[0].as_fd(), fds[0].as_fd()].into_iter().collect(),
            Show::Properly | Show::LinkUnsealed | Show::TxUnsealed => {
                [self.link.memfd(0), self.tx.memfd(0)].into_iter().collect()
            }
        };
        self.channel.send(bytes, &borrowed).unwrap();
        let _ = say(&self.channel, Word::Ready, "");
    }

    pub(super) fn slot(&self, position: u64) -> &Slot {
        let index = usize::try_from(position % u64::from(SLOTS)).unwrap();
        let at = self.link.as_ptr().wrapping_add(RING_OFFSET + index * SLOT_LEN).cast::<Slot>();
        // SAFETY: a slot of our own mapping, which lives as long as `self`; atomics only.
        unsafe { at.as_ref() }.unwrap()
    }

    pub(super) fn set_consumed(&self, value: u64) {
        let at = self.link.as_ptr().wrapping_add(CONSUMED_OFFSET).cast::<AtomicU64>();
        // SAFETY: a word of our own mapping, which lives as long as `self`.
        unsafe { at.as_ref() }.unwrap().store(value, Ordering::Release);
    }

    /// Puts a message into the ring, whatever it is; `slots` is what the NIC will take for it.
    pub(super) fn put(&mut self, description: u64, words: &[u64], slots: u64) {
        for (number, word) in words.iter().enumerate() {
            let ahead = u64::try_from(number / 14).unwrap();
            let slot = self.slot(self.head + ahead);
            slot.element(number % 14).store(*word, Ordering::Relaxed);
        }
        let slot = self.slot(self.head);
        slot.description().store(description, Ordering::Relaxed);
        slot.sequence().store(sequence_of(self.head), Ordering::Release);
        self.head += slots;
    }
}

/// The NIC under test and its receive memory, which is dropped after it.
pub(super) struct Victim {
    pub(super) nic: SoftNic,
    pub(super) rx_lkey: Lkey,
    pub(super) rx: Mapping,
    now_ns: u64,
}

impl Victim {
    pub(super) fn new(channel: Channel) -> Victim {
        let options = SoftOptions { slots: SLOTS, ..SoftOptions::default() };
        let mut nic = SoftNic::new("soft:victim", Meeting::with(channel), &options).unwrap();
        let length = usize::try_from(RECEIVES * RECV_LEN).unwrap();
        let rx = Mapping::create(c"victim-rx", length, PageWish::Ordinary).unwrap();
        let length = u64::from(RECEIVES * RECV_LEN);
        let view = RegionView { addr: rx.addr(), length, memfd: None, writable: true };
        // SAFETY: the mapping is dropped after the NIC.
        let rx_lkey = unsafe { nic.register(view) }.unwrap();
        let mut victim = Victim { nic, rx_lkey, rx, now_ns: 1 };
        (0..RECEIVES).for_each(|number| victim.post(u64::from(number)));
        victim
    }

    pub(super) fn post(&mut self, number: u64) {
        let addr = self.rx.addr() + number * u64::from(RECV_LEN);
        let sges = [Sge { addr, length: RECV_LEN, lkey: self.rx_lkey }];
        assert_eq!(self.nic.post_recv(&[RecvWr { wr_id: number, sges: &sges }]), Ok(1));
    }

    pub(super) fn maintain(&mut self) -> Result<Option<NicEvent>, DeviceError> {
        self.now_ns += 1000;
        self.nic.maintain(self.now_ns)
    }

    /// Takes what is there; how many whole messages.
    pub(super) fn poll(&mut self) -> u64 {
        self.poll_times(200)
    }

    /// Polls so often; how many whole messages came.
    pub(super) fn poll_times(&mut self, times: u32) -> u64 {
        let none = Completion {
            wr_id: 0,
            status: WcStatus::Success,
            byte_len: 0,
            more: false,
            checksum: crate::nic::WcChecksum::Unknown,
        };
        let mut out = [none; 3];
        let mut whole = 0;
        for _ in 0..times {
            let count = self.nic.poll_recv(&mut out);
            for done in &out[..count] {
                assert_eq!(done.status, WcStatus::Success);
                assert!(done.byte_len > 0 && done.byte_len <= RECV_LEN);
                whole += u64::from(!done.more);
                self.post(done.wr_id);
            }
        }
        self.nic.check_conservation().unwrap();
        whole
    }
}

pub(super) fn linked() -> (Victim, Hostile) {
    let (left, right) = Channel::pair().unwrap();
    let (mut victim, hostile) = (Victim::new(left), Hostile::new(right));
    assert_eq!(victim.maintain().unwrap(), None);
    hostile.show(&hostile.greeting().encode(), Show::Properly);
    assert_eq!(victim.maintain().unwrap(), Some(NicEvent::LinkUp));
    (victim, hostile)
}
