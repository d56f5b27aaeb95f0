//! Bytes that change hands without a copy, between stack, arena and application.

use roceway_rdma_virtio::memory::buffer::Buffer;
use roceway_rdma_virtio::memory::leases::LeaseError;
use roceway_rdma_virtio::memory::lent::Pieces;
use roceway_stack::memory::{Piece, Slot};
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, ReceiveError, SendError, Taken};

use crate::core::Core;
use crate::memory::to_device;

/// Of the receive slots, the part that applications may hold: a half. What they take beyond it is
/// copied, so that the NIC always has buffers for everybody.
const LENT_PART: u32 = 2;

/// Why a buffer was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveError {
    /// The connection does not take it.
    Send(SendError),
    /// The buffer, the range or the cookie is wrong, or too many are under way.
    Lease(LeaseError),
}

impl Core {
    /// Gives a range of a buffer, first byte and length, to be sent after what was written before.
    pub(crate) fn give(
        &mut self,
        id: Id<Connection>,
        buffer: &Buffer,
        range: (usize, usize),
        cookie: u64,
    ) -> Result<(), GiveError> {
        let arena = self.port.interface.memory();
        let slot = arena.lease(buffer, range, cookie).map_err(GiveError::Lease)?;
        let len = u32::try_from(range.1).unwrap_or(u32::MAX);
        let piece = Piece { slot: Slot::from_raw(slot.raw()), start: 0, len };
        let given = self.stack.tcp().0.give(id, piece);
        if given.is_err() {
            self.port.interface.memory().cancel_lease(slot);
        }
        given.map_err(GiveError::Send)
    }

    /// Appends received pieces to `out` while there are any, there is room, and they have at most
    /// `max` bytes together; returns their bytes. 0 is the end of the stream.
    pub(crate) fn take(
        &mut self,
        id: Id<Connection>,
        max: usize,
        out: &mut Pieces,
    ) -> Result<usize, ReceiveError> {
        let mut done = 0;
        while done < max && !out.is_full() && self.port.interface.memory_ref().may_lend() {
            let left = u32::try_from(max - done).unwrap_or(u32::MAX);
            let mut memory = self.port.memory();
            match self.stack.tcp().0.take(id, left, &mut memory) {
                Ok(Some(taken)) => done += self.lend(id, taken, out),
                Ok(None) => return Ok(done),
                Err(_later) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        if done == 0 { Err(ReceiveError::WouldBlock) } else { Ok(done) }
    }

    fn lend(&mut self, id: Id<Connection>, taken: Taken, out: &mut Pieces) -> usize {
        self.lends = true;
        let arena = self.port.interface.memory();
        let piece = match taken {
            Taken::Piece(piece) => to_device(piece),
            Taken::Bytes(bytes) => {
                let len = bytes.len();
                arena.lend_owned(bytes.into_boxed_slice(), id.to_raw(), out);
                return len;
            }
        };
        let len = usize::try_from(piece.len).unwrap_or(0);
        let many = arena.lent_slots() >= arena.total_receive() / LENT_PART;
        if many || !arena.lend(piece, id.to_raw(), out) {
            // The slot stays the NIC's, and the application has bytes of its own.
            arena.lend_owned(arena.piece(piece).into(), id.to_raw(), out);
            arena.release(piece.slot);
            self.lends_copied += u64::from(piece.len);
            self.stack.tcp().0.give_back(id, 0, 1);
        }
        len
    }

    /// Takes pieces back at once.
    pub(crate) fn take_back(&mut self, pieces: &mut Pieces) {
        let (mut owner, mut bytes, mut slots) = (0, 0, 0);
        while let Some(back) = self.port.interface.memory().take_back(pieces) {
            if back.owner != owner && bytes > 0 {
                self.stack.tcp().0.give_back(Id::from_raw(owner), bytes, slots);
                (bytes, slots) = (0, 0);
            }
            owner = back.owner;
            bytes += back.bytes;
            slots += u32::from(back.in_slot);
        }
        if bytes > 0 {
            self.stack.tcp().0.give_back(Id::from_raw(owner), bytes, slots);
        }
        self.lends = self.port.interface.memory_ref().lent() > 0;
    }

    /// Takes what came back from other threads.
    #[cold]
    pub(crate) fn take_returns(&mut self) {
        while let Some(back) = self.port.interface.memory().drain() {
            let slots = u32::from(back.in_slot);
            self.stack.tcp().0.give_back(Id::from_raw(back.owner), back.bytes, slots);
        }
        self.lends = self.port.interface.memory_ref().lent() > 0;
    }

    /// Whether a turn has something to do that the queues do not show.
    #[cold]
    pub(crate) fn wants_attention(&self) -> bool {
        self.expect_work || self.port.interface.memory_ref().has_returns()
    }
}
