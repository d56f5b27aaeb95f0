//! A NIC with memory of its own whose frames are lent to whoever has a stack: what another stack
//! needs to run over the same link code.
//!
//! Received and transmitted frames lie in arenas of their own, so that an answer can be written
//! while its question is read. Safe to use, since the arenas outlive the NIC, received bytes are
//! read only between completion and posting, and bytes are written only while no send reads them.

use std::cell::RefCell;

use super::bare::BareError;
use super::{
    Completion, DeviceError, Lkey, Nic, NicEvent, Offload, PostError, RecvWr, SendWr, Sge,
    WcChecksum, WcStatus,
};
use crate::memory::arena::{Arena, ArenaConfig, ArenaError, ArenaExtra};
use crate::memory::slot::{CHUNK_LEN, PostedSlot, Slot, SlotClass};

/// Bytes of the virtio-net header before each frame; all zero: nothing is said of the frame.
const HEADER: u32 = 12;
/// The longest frame, from its Ethernet header on.
pub const FRAME_MAX: u32 = CHUNK_LEN - HEADER;
/// Frames under way at once.
const DEPTH: u32 = 256;
/// Completions that one call takes.
const BURST: usize = 64;

const NOTHING: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// Frames that are sent.
struct Outgoing {
    arena: Arena,
    lkey: Lkey,
    slots: Vec<Slot>,
    small: Slot,
    sent: u64,
    completed: u64,
}

/// Frames that are received.
struct Incoming {
    arena: Arena,
    lkey: Lkey,
    posted: Vec<Option<PostedSlot>>,
}

/// A received frame, until it is read.
#[derive(Debug)]
#[must_use]
pub struct Taken {
    slot: Slot,
    length: u32,
    index: usize,
}

/// A NIC with memory, frame by frame.
pub struct FrameNic<N: Nic> {
    // The NIC is dropped first: it may reach the arenas until then.
    nic: RefCell<N>,
    outgoing: RefCell<Outgoing>,
    incoming: RefCell<Incoming>,
    inline_max: u32,
    up: bool,
}

impl<N: Nic> FrameNic<N> {
    /// Allocates memory, registers it, posts receives.
    ///
    /// # Errors
    /// If the kernel or the NIC refuses.
    pub fn new(mut nic: N) -> Result<FrameNic<N>, BareError> {
        let exhausted =
            || ArenaError::Config { field: "chunks", value: 0, allowed: "enough for the frames" };
        let config = ArenaConfig { chunks: DEPTH, receive: 32, ..ArenaConfig::default() };
        let mut arena = Arena::new(&config, ArenaExtra::default())?;
        // SAFETY: the arena is in a later field of the same value, so it outlives the NIC.
        let lkey = unsafe { nic.register(arena.transmit_region()) }?;
        let chunks = (0..DEPTH).map(|_| arena.allocate(SlotClass::Chunk));
        let slots = chunks.collect::<Option<Vec<_>>>().ok_or_else(exhausted)?;
        let small = arena.allocate(SlotClass::Small).ok_or_else(exhausted)?;
        for slot in slots.iter().chain([&small]) {
            arena.bytes_mut(*slot, 0, HEADER).fill(0);
        }
        let outgoing = Outgoing { arena, lkey, slots, small, sent: 0, completed: 0 };
        let config = ArenaConfig { small: 64, chunks: 32, ..ArenaConfig::default() };
        let arena = Arena::new(&config, ArenaExtra::default())?;
        // SAFETY: as above; the arena hands out a posted slot's bytes only after `complete`.
        let lkey = unsafe { nic.register(arena.receive_region()) }?;
        let capabilities = nic.capabilities();
        let inline_max = capabilities.max_inline.min(256);
        let wanted = capabilities.max_recv_wr.min(arena.total_receive());
        let incoming = Incoming { arena, lkey, posted: Vec::new() };
        let frames = FrameNic {
            nic: RefCell::new(nic),
            outgoing: RefCell::new(outgoing),
            incoming: RefCell::new(incoming),
            inline_max,
            up: false,
        };
        for index in 0..wanted {
            let mut incoming = frames.incoming.borrow_mut();
            let slot = incoming.arena.allocate_receive();
            incoming.posted.push(slot);
            frames.post(&incoming, index as usize)?;
        }
        frames.nic.borrow_mut().doorbell();
        Ok(frames)
    }

    #[inline]
    fn post(&self, incoming: &Incoming, index: usize) -> Result<(), PostError> {
        let Some(Some(slot)) = incoming.posted.get(index) else {
            return Err(PostError::OutOfBounds);
        };
        let addr = incoming.arena.posted_addr(slot);
        let sges = [Sge { addr, length: incoming.arena.receive_len(), lkey: incoming.lkey }];
        let wr = RecvWr { wr_id: index as u64, sges: &sges };
        self.nic.borrow_mut().post_recv(&[wr]).map(|_| ())
    }

    /// Cold work of the NIC; to be called about once a millisecond.
    ///
    /// # Errors
    /// If the NIC is broken for good.
    pub fn maintain(&mut self, now_ns: u64) -> Result<(), DeviceError> {
        match self.nic.get_mut().maintain(now_ns)? {
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

    /// Whether a frame waits: one load in the common case.
    #[inline]
    #[must_use]
    pub fn recv_ready(&self) -> bool {
        self.nic.borrow().recv_ready()
    }

    /// Whether a frame may be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.sent - outgoing.completed < u64::from(DEPTH) {
            return true;
        }
        let mut done = [NOTHING; BURST];
        outgoing.completed += self.nic.borrow_mut().poll_send(&mut done) as u64;
        outgoing.sent - outgoing.completed < u64::from(DEPTH)
    }

    /// Sends a frame of `length` bytes, at most [`FRAME_MAX`], that `fill` writes, after
    /// [`FrameNic::has_room`] said yes.
    ///
    /// # Errors
    /// See [`PostError`]; the frame is lost then.
    #[inline]
    pub fn send<R>(&self, length: u32, fill: impl FnOnce(&mut [u8]) -> R) -> Result<R, PostError> {
        let mut outgoing = self.outgoing.borrow_mut();
        let Outgoing { arena, lkey, slots, small, sent, .. } = &mut *outgoing;
        let length = HEADER + length.min(FRAME_MAX);
        let inline = length <= self.inline_max;
        // An inline send has read its bytes when the call returns, so its slot is free again.
        let place = usize::try_from(*sent % u64::from(DEPTH)).unwrap_or(0);
        let slot = if inline { *small } else { slots[place] };
        let filled = fill(arena.bytes_mut(slot, HEADER, length - HEADER));
        let sges = [Sge { addr: arena.addr(slot), length, lkey: *lkey }];
        let offload = Offload::default();
        let wr = SendWr { wr_id: *sent, sges: &sges, signalled: !inline, inline, offload };
        let mut nic = self.nic.borrow_mut();
        nic.post_send(&wr)?;
        nic.doorbell();
        *sent += u64::from(!inline);
        Ok(filled)
    }

    /// Takes the next frame, if one has come.
    #[inline]
    pub fn take(&self) -> Option<Taken> {
        let mut out = [NOTHING];
        if self.nic.borrow_mut().poll_recv(&mut out) == 0 {
            return None;
        }
        let [Completion { wr_id, byte_len, .. }] = out;
        let index = usize::try_from(wr_id).ok()?;
        let mut incoming = self.incoming.borrow_mut();
        let posted = incoming.posted.get_mut(index).and_then(Option::take)?;
        let slot = incoming.arena.complete(posted);
        let length = byte_len.min(incoming.arena.receive_len()).max(HEADER) - HEADER;
        Some(Taken { slot, length, index })
    }

    /// Shows a frame to `read` and posts its receive again.
    ///
    /// # Errors
    /// If the receive cannot be posted again.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a frame is read once")]
    pub fn read<R>(&self, taken: Taken, read: impl FnOnce(&[u8]) -> R) -> Result<R, PostError> {
        let Taken { slot, length, index } = taken;
        let result = read(self.incoming.borrow().arena.bytes(slot, HEADER, length));
        let mut incoming = self.incoming.borrow_mut();
        incoming.arena.release(slot);
        let fresh = incoming.arena.allocate_receive();
        if let Some(place) = incoming.posted.get_mut(index) {
            *place = fresh;
        }
        self.post(&incoming, index)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::soft::{SoftNic, SoftOptions};

    fn pair() -> (FrameNic<SoftNic>, FrameNic<SoftNic>) {
        let options = SoftOptions { large: false, ..SoftOptions::default() };
        let (left, right) = SoftNic::pair(&options).unwrap();
        let (mut left, mut right) = (FrameNic::new(left).unwrap(), FrameNic::new(right).unwrap());
        for now_ns in 1..100 {
            left.maintain(now_ns).unwrap();
            right.maintain(now_ns).unwrap();
        }
        assert!(left.is_up() && right.is_up());
        (left, right)
    }

    #[test]
    fn frames_arrive_whole_and_answers_leave_while_they_are_read() {
        let (left, right) = pair();
        for round in 0..3000_u32 {
            let length = 60 + round % 1454;
            let value = round.to_le_bytes()[0];
            assert!(left.has_room());
            left.send(length, |frame| frame.fill(value)).unwrap();
            let taken = right.take().expect("a frame");
            let seen = right.read(taken, |frame| {
                assert!(right.has_room());
                right.send(60, |answer| answer.copy_from_slice(&frame[..60])).unwrap();
                (frame.len(), frame.iter().all(|byte| *byte == value))
            });
            assert_eq!(seen, Ok((length as usize, true)));
            let answer = left.take().expect("an answer");
            assert_eq!(left.read(answer, <[u8]>::len), Ok(60));
        }
        assert!(left.take().is_none());
    }

    #[test]
    fn a_full_link_says_so_until_frames_are_taken() {
        let (left, right) = pair();
        let mut sent = 0;
        while left.has_room() {
            left.send(1000, |frame| frame.fill(1)).unwrap();
            sent += 1;
        }
        assert_eq!(sent, DEPTH);
        while let Some(taken) = right.take() {
            assert_eq!(right.read(taken, <[u8]>::len), Ok(1000));
            sent -= 1;
        }
        assert_eq!(sent, 0);
        assert!(left.has_room());
    }
}
