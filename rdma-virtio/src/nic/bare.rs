//! A NIC with memory of its own and nothing above it: no virtqueue, no stack. What a link costs by
//! itself, with every check of the NIC, and the yardstick for what is built on it.
//!
//! Owns the NIC, its arena and the names of its posted receives. Safe to use, since the memory
//! outlives the NIC and received bytes are read only between completion and posting.

use arrayvec::ArrayVec;

use crate::memory::arena::{Arena, ArenaConfig, ArenaError, ArenaExtra};
use crate::memory::buffer::BufferMut;
use crate::memory::copy::copy;
use crate::memory::slot::{CHUNK_LEN, PostedSlot, Slot, SlotClass};
use crate::nic::{
    Completion, DeviceError, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, SendWr, Sge,
    WcChecksum, WcStatus,
};

/// Elements of a large message that lies in chunks, without its headers.
const MESSAGE_CHUNKS: usize = 16;
/// Payload of a large message: 45 segments of 1448 bytes, as TCP sends in one frame at an MTU of
/// 1500 with timestamps.
pub const PAYLOAD_LEN: u32 = 45 * 1448;
/// What goes before it: a virtio-net header and 66 bytes of others.
const HEADERS_LEN: u32 = 12 + 66;
/// Large messages under way at once, unless the load says otherwise: 1.5 MiB, as many chunks as an
/// arena has by default, and more than a second-level cache holds. With 1 MiB, all of an EPYC's
/// cache of that level, what is written next still lies in the cache of the core that read it if
/// that one is right behind, and not if it lags: streams ran at two speeds.
pub const LARGE_DEPTH: usize = 24;
/// Completions that one call takes.
const BURST: usize = 64;

const NOTHING: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// The index that a work request carries; one that is too large names no receive.
#[inline]
fn index_of(wr_id: u64) -> usize {
    usize::try_from(wr_id).unwrap_or(usize::MAX)
}

/// Why there is no bare NIC.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// The memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The NIC.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The NIC took no receive.
    #[error(transparent)]
    Post(#[from] PostError),
}

/// What a bare NIC has of buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Receives posted, at most what the NIC takes.
    pub receives: u32,
    /// Bytes of each.
    pub receive_len: u32,
    /// Large messages under way at once.
    pub depth: usize,
}

impl Default for Load {
    fn default() -> Load {
        Load { receives: 256, receive_len: 4096, depth: LARGE_DEPTH }
    }
}

/// Where the bytes of a large message come from.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Every byte is rewritten where it is sent from.
    Rewritten(u8),
    /// They are copied from here, [`PAYLOAD_LEN`] of them at least.
    Copied(&'a [u8]),
}

/// A NIC with memory.
#[derive(Debug)]
pub struct BareNic<N: Nic> {
    // The NIC is dropped first: it may reach the arena until then.
    nic: N,
    arena: Arena,
    transmit: Lkey,
    receive: Lkey,
    posted: Vec<Option<PostedSlot>>,
    small: Slot,
    /// Of each large message: headers, a block, chunks.
    headers: Vec<Slot>,
    blocks: Vec<BufferMut>,
    chunks: Vec<Slot>,
    sent: u64,
    completed: u64,
    /// Bytes that were copied to be sent.
    copied: u64,
    up: bool,
}

impl<N: Nic> BareNic<N> {
    /// Allocates memory, registers it, posts receives.
    ///
    /// # Errors
    /// If the kernel or the NIC refuses.
    pub fn new(mut nic: N, load: Load) -> Result<BareNic<N>, BareError> {
        let blocks = u32::try_from(load.depth).unwrap_or(u32::MAX);
        let receive = load.receives.max(32);
        let config = ArenaConfig {
            blocks,
            receive,
            receive_len: load.receive_len,
            ..ArenaConfig::default()
        };
        let mut arena = Arena::new(&config, ArenaExtra::default())?;
        // SAFETY: the arena is a later field of the same value, so it outlives the NIC.
        let transmit = unsafe { nic.register(arena.transmit_region()) }?;
        // SAFETY: as above; the arena hands out a posted slot's bytes only after `complete`.
        let receive = unsafe { nic.register(arena.receive_region()) }?;
        let exhausted = || ArenaError::Config {
            field: "chunks",
            value: 0,
            allowed: "enough for the messages of a bare link",
        };
        let mut take = |class, count: usize| {
            let all = (0..count).map(|_| arena.allocate(class));
            all.collect::<Option<Vec<_>>>().ok_or_else(exhausted)
        };
        let small = take(SlotClass::Small, 1)?[0];
        let headers = take(SlotClass::Small, load.depth)?;
        let chunks = take(SlotClass::Chunk, MESSAGE_CHUNKS * load.depth)?;
        let blocks = (0..load.depth).map(|_| arena.buffer()).collect::<Option<Vec<_>>>();
        let wanted = nic.capabilities().max_recv_wr.min(load.receives);
        let mut bare = BareNic {
            nic,
            arena,
            transmit,
            receive,
            posted: Vec::new(),
            small,
            headers,
            blocks: blocks.ok_or_else(exhausted)?,
            chunks,
            sent: 0,
            completed: 0,
            copied: 0,
            up: false,
        };
        for index in 0..wanted {
            let slot = bare.arena.allocate_receive();
            bare.posted.push(slot);
            bare.post(index as usize)?;
        }
        bare.nic.doorbell();
        Ok(bare)
    }

    #[inline]
    fn post(&mut self, index: usize) -> Result<(), PostError> {
        let Some(Some(slot)) = self.posted.get(index) else { return Err(PostError::OutOfBounds) };
        let addr = self.arena.posted_addr(slot);
        let sges = [Sge { addr, length: self.arena.receive_len(), lkey: self.receive }];
        self.nic.post_recv(&[RecvWr { wr_id: index as u64, sges: &sges }]).map(|_| ())
    }

    /// Cold work of the NIC; to be called about once a millisecond.
    ///
    /// # Errors
    /// If the NIC is broken for good.
    pub fn maintain(&mut self, now_ns: u64) -> Result<(), DeviceError> {
        match self.nic.maintain(now_ns)? {
            Some(NicEvent::LinkUp) => self.up = true,
            Some(NicEvent::LinkDown | NicEvent::PeerGone | NicEvent::Removed) => self.up = false,
            Some(NicEvent::HostGone(_)) | None => {}
        }
        Ok(())
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether a message waits: one load in the common case.
    #[inline]
    #[must_use]
    pub fn recv_ready(&self) -> bool {
        self.nic.recv_ready()
    }

    /// Sends `length` bytes inline, at most 256 and what the NIC allows.
    ///
    /// # Errors
    /// See [`PostError`].
    #[inline]
    pub fn send_small(&mut self, length: u32) -> Result<(), PostError> {
        let sges = [Sge { addr: self.arena.addr(self.small), length, lkey: self.transmit }];
        let offload = Offload::default();
        let wr = SendWr { wr_id: 0, sges: &sges, signalled: false, inline: true, offload };
        self.nic.post_send(&wr)?;
        self.nic.doorbell();
        Ok(())
    }

    /// Takes one message that fits one receive and posts the receive again; returns its length.
    ///
    /// # Errors
    /// If the receive cannot be posted again.
    #[inline]
    pub fn receive_small(&mut self) -> Result<Option<u32>, PostError> {
        let mut out = [NOTHING];
        if self.nic.poll_recv(&mut out) == 0 {
            return Ok(None);
        }
        self.post(index_of(out[0].wr_id))?;
        Ok(Some(out[0].byte_len))
    }

    /// Sends a large message, if there is room for one more; returns whether it was sent.
    ///
    /// # Errors
    /// See [`PostError`].
    pub fn send_large(&mut self, payload: Payload<'_>) -> Result<bool, PostError> {
        let mut done = [NOTHING; BURST];
        self.completed += self.nic.poll_send(&mut done) as u64;
        let depth = self.headers.len();
        if self.sent - self.completed >= depth as u64 {
            return Ok(false);
        }
        let place = index_of(self.sent % depth as u64);
        let lkey = self.transmit;
        let headers = self.arena.addr(self.headers[place]);
        let mut sges: ArrayVec<Sge, { 1 + MESSAGE_CHUNKS }> = ArrayVec::new();
        sges.push(Sge { addr: headers, length: HEADERS_LEN, lkey });
        match payload {
            Payload::Rewritten(value) => {
                let block = &mut self.blocks[place];
                block[..PAYLOAD_LEN as usize].fill(value);
                sges.push(Sge { addr: block.addr(), length: PAYLOAD_LEN, lkey });
            }
            Payload::Copied(bytes) => {
                let slots = &self.chunks[place * MESSAGE_CHUNKS..];
                let bytes = &bytes[..PAYLOAD_LEN as usize];
                for (slot, part) in slots.iter().zip(bytes.chunks(CHUNK_LEN as usize)) {
                    let length = u32::try_from(part.len()).unwrap_or(CHUNK_LEN);
                    copy(self.arena.bytes_mut(*slot, 0, length), part);
                    self.copied += u64::from(length);
                    sges.push(Sge { addr: self.arena.addr(*slot), length, lkey });
                }
            }
        }
        let offload = Offload::default();
        let wr = SendWr { wr_id: self.sent, sges: &sges, signalled: true, inline: false, offload };
        self.nic.post_send(&wr)?;
        self.nic.doorbell();
        self.sent += 1;
        Ok(true)
    }

    /// Bytes of large messages that were sent, and how many of them were copied before.
    #[must_use]
    pub fn sent_and_copied(&self) -> (u64, u64) {
        (self.sent * u64::from(PAYLOAD_LEN), self.copied)
    }

    /// Shows the bytes of what has arrived to `read`, posts the receives again, and returns the
    /// number of bytes.
    ///
    /// # Errors
    /// If a receive cannot be posted again.
    pub fn receive_large(&mut self, mut read: impl FnMut(&[u8])) -> Result<u64, PostError> {
        let mut out = [NOTHING; BURST];
        let count = self.nic.poll_recv(&mut out);
        let mut bytes = 0;
        for completion in out.iter().take(count) {
            let index = index_of(completion.wr_id);
            let Some(posted) = self.posted.get_mut(index).and_then(Option::take) else { continue };
            let slot = self.arena.complete(posted);
            let length = completion.byte_len.min(self.arena.receive_len());
            read(self.arena.bytes(slot, 0, length));
            bytes += u64::from(length);
            self.arena.release(slot);
            self.posted[index] = self.arena.allocate_receive();
            self.post(index)?;
        }
        self.nic.doorbell();
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::soft::{SoftNic, SoftOptions};

    fn pair() -> (BareNic<SoftNic>, BareNic<SoftNic>) {
        let (left, right) = SoftNic::pair(&SoftOptions::default()).unwrap();
        let load = Load::default();
        let mut left = BareNic::new(left, load).unwrap();
        let mut right = BareNic::new(right, load).unwrap();
        for now_ns in 1..100 {
            left.maintain(now_ns).unwrap();
            right.maintain(now_ns).unwrap();
        }
        assert!(left.is_up() && right.is_up());
        (left, right)
    }

    #[test]
    fn small_messages_go_and_come() {
        let (mut left, mut right) = pair();
        for _ in 0..2000 {
            left.send_small(79).unwrap();
            assert_eq!(right.receive_small(), Ok(Some(79)));
            right.send_small(79).unwrap();
            assert_eq!(left.receive_small(), Ok(Some(79)));
        }
        assert_eq!(left.receive_small(), Ok(None));
    }

    #[test]
    fn large_messages_arrive_whole_with_their_bytes() {
        let (mut left, mut right) = pair();
        for value in 0..100 {
            let copied = vec![value; 65_536];
            for payload in [Payload::Rewritten(value), Payload::Copied(&copied)] {
                let before = left.sent_and_copied();
                assert_eq!(left.send_large(payload), Ok(true));
                let after = left.sent_and_copied();
                let (sent, came) = (after.0 - before.0, after.1 - before.1);
                let copies = matches!(payload, Payload::Copied(_));
                assert_eq!((sent, came), (PAYLOAD_LEN.into(), if copies { sent } else { 0 }));
                let (mut got, mut right_ones) = (0, 0);
                while got < u64::from(HEADERS_LEN + PAYLOAD_LEN) {
                    got += right
                        .receive_large(|bytes| {
                            right_ones += bytes.iter().filter(|b| **b == value).count();
                        })
                        .unwrap();
                }
                assert_eq!(got, u64::from(HEADERS_LEN + PAYLOAD_LEN));
                assert!(right_ones >= PAYLOAD_LEN as usize);
            }
        }
    }

    #[test]
    fn a_link_that_is_full_takes_no_more() {
        let (mut left, _right) = pair();
        let sent = (0..100).filter(|_| left.send_large(Payload::Rewritten(1)) == Ok(true)).count();
        // Of the receives, 24 messages of 17 buffers each take more than there are.
        assert_eq!(sent, LARGE_DEPTH);
    }
}
