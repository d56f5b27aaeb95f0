//! Network namespaces that vanish with their thread, and a NIC with memory, for the tests of `tap:`
//! and `packet:`.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod frames;
mod namespaces;

use std::time::{Duration, Instant};

use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, RegionView, SendWr, Sge,
    WcChecksum, WcStatus,
};

pub(crate) use frames::*;
pub(crate) use namespaces::*;

/// Our own hardware address in these tests.
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const RECEIVES: usize = 64;
const RECEIVE_LEN: usize = 4096;
const SEND_AT: usize = RECEIVES * RECEIVE_LEN;
const ARENA: usize = SEND_AT + (1 << 17);

/// A NIC with memory: receives of 4 KiB are posted, messages go in and out as vectors.
pub(crate) struct Port<N: Nic> {
    pub(crate) nic: N,
    memory: Vec<u8>,
    lkey: Lkey,
    started: Instant,
    sends: u64,
}

impl<N: Nic> Port<N> {
    pub(crate) fn new(nic: N) -> Self {
        let mut port = Self::bare(nic);
        for wr_id in 0..RECEIVES as u64 {
            port.post(wr_id);
        }
        port
    }

    /// Without a posted receive.
    pub(crate) fn bare(mut nic: N) -> Self {
        let mut memory = vec![0_u8; ARENA];
        let addr = memory.as_mut_ptr().expose_provenance() as u64;
        let view = RegionView { addr, length: ARENA as u64, memfd: None, writable: true };
        // SAFETY: the memory is the port's, outlives the NIC's use of it, and posted parts of it
        // are left alone.
        let lkey = unsafe { nic.register(view) }.unwrap();
        Self { nic, memory, lkey, started: Instant::now(), sends: 0 }
    }

    fn sge(&self, offset: usize, length: usize) -> Sge {
        let addr = self.memory.as_ptr().expose_provenance() as u64 + offset as u64;
        Sge { addr, length: u32::try_from(length).unwrap(), lkey: self.lkey }
    }

    pub(crate) fn post(&mut self, wr_id: u64) {
        let slot = usize::try_from(wr_id).unwrap();
        let sges = [self.sge(slot * RECEIVE_LEN, RECEIVE_LEN)];
        assert_eq!(self.nic.post_recv(&[RecvWr { wr_id, sges: &sges }]), Ok(1));
    }

    /// Sends one message; waits for its completion.
    pub(crate) fn send(&mut self, message: &[u8]) -> WcStatus {
        self.try_send(message).unwrap();
        let mut out = [blank()];
        self.nic.doorbell();
        let limit = Instant::now() + Duration::from_secs(2);
        while self.nic.poll_send(&mut out) == 0 {
            assert!(Instant::now() < limit, "the send does not complete");
            self.maintain();
        }
        assert_eq!(out[0].wr_id, self.sends);
        out[0].status
    }

    /// Posts one message, in three elements.
    pub(crate) fn try_send(&mut self, message: &[u8]) -> Result<(), PostError> {
        self.sends += 1;
        self.memory[SEND_AT..SEND_AT + message.len()].copy_from_slice(message);
        let cut = [0, message.len().min(12), message.len().min(66), message.len()];
        let sges: Vec<Sge> = cut
            .windows(2)
            .filter(|w| w[1] > w[0])
            .map(|w| self.sge(SEND_AT + w[0], w[1] - w[0]))
            .collect();
        self.nic.post_send(&SendWr {
            wr_id: self.sends,
            sges: &sges,
            signalled: true,
            inline: false,
            offload: Offload::default(),
        })
    }

    /// The next message, if one comes in time.
    pub(crate) fn recv(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let limit = Instant::now() + limit;
        let mut message = Vec::new();
        let mut out = [blank(); 1];
        loop {
            if self.nic.recv_ready() && self.nic.poll_recv(&mut out) == 1 {
                let completion = out[0];
                assert_eq!(completion.status, WcStatus::Success);
                let start = usize::try_from(completion.wr_id).unwrap() * RECEIVE_LEN;
                let length = usize::try_from(completion.byte_len).unwrap();
                message.extend_from_slice(&self.memory[start..start + length]);
                self.post(completion.wr_id);
                if !completion.more {
                    return Some(message);
                }
            } else if Instant::now() > limit {
                return None;
            }
        }
    }

    /// The next message that `wanted` accepts, within two seconds.
    pub(crate) fn expect(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let limit = Instant::now() + Duration::from_secs(2);
        while Instant::now() < limit {
            match self.recv(Duration::from_millis(50)) {
                Some(message) if wanted(&message) => return message,
                _ => {}
            }
        }
        panic!("no {what} came; counters: {:?}", self.counters());
    }

    pub(crate) fn maintain(&mut self) -> Option<NicEvent> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap();
        self.nic.maintain(now).unwrap()
    }

    /// The next event, within two seconds.
    pub(crate) fn event(&mut self) -> NicEvent {
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            if let Some(event) = self.maintain() {
                return event;
            }
            assert!(Instant::now() < limit, "no event comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the NIC notice that its link came up, if it was not at opening.
    pub(crate) fn wait_for_link(&mut self) {
        let limit = Instant::now() + Duration::from_secs(2);
        while self.try_send(&[0; 12 + 60]) == Err(PostError::LinkDown) {
            assert!(Instant::now() < limit, "the link does not come up");
            self.maintain();
            std::thread::sleep(Duration::from_millis(1));
        }
        while self.nic.poll_send(&mut [blank()]) > 0 {}
    }

    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = Vec::new();
        self.nic.visit_counters(&mut |name, value| all.push((name, value)));
        all
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters().into_iter().find(|c| c.0 == name).map_or(0, |c| c.1)
    }

    pub(crate) fn readable(&self, limit: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.nic.event_fd(), events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).unwrap();
        // SAFETY: one pollfd, borrowed for the call.
        unsafe { libc::poll(&raw mut poll, 1, limit) == 1 }
    }
}

pub(crate) fn blank() -> Completion {
    Completion {
        wr_id: 0,
        status: WcStatus::General,
        byte_len: 0,
        more: false,
        checksum: WcChecksum::Unknown,
    }
}
