//! Bytes that change hands without a copy, between stack, arena and application.

use std::os::fd::OwnedFd;

use roceway_rdma_virtio::memory::arena::Arena;
use roceway_rdma_virtio::memory::buffer::{Buffer, BufferMut};
use roceway_rdma_virtio::memory::leases::LeaseError;
use roceway_rdma_virtio::memory::lent::{Lent, Pieces};
use roceway_rdma_virtio::virtio::interface::InterfaceError;
use roceway_stack::memory::{Piece, Slot};
use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, Kept, Most, ReceiveError, SendError, Taken, Taker};

use crate::core::Core;
use crate::memory::{StackMemory, to_device};
use crate::shared::OwnMemory;

/// Of the receive slots, the part that applications may hold: a half. What they take beyond it is
/// copied, so that the NIC always has buffers for everybody.
const LENT_PART: u32 = 2;

/// What changes hands in a call of another thread.
#[derive(Default)]
pub(crate) enum Moved {
    #[default]
    Nothing,
    /// A range of a buffer, first byte and length, to be sent.
    Given(Buffer, (usize, usize)),
    /// Received pieces.
    Taken(Vec<Lent>),
    /// A buffer to be filled.
    Block(BufferMut),
}

/// Why a buffer was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveError {
    /// The connection does not take it.
    Send(SendError),
    /// The buffer, the range or the cookie is wrong, or too many are under way.
    Lease(LeaseError),
}

impl Core {
    /// A buffer to be filled, if one is free.
    pub(crate) fn block(&mut self) -> Option<BufferMut> {
        if let Some(buffer) = self.port.interface.memory().buffer() {
            return Some(buffer);
        }
        self.take_returns();
        self.port.interface.memory().buffer()
    }

    /// Whether a buffer is free.
    pub(crate) fn has_free_block(&self) -> bool {
        self.port.interface.memory_ref().free_blocks() > 0
    }

    /// Memory of the application's own, in blocks to be filled.
    pub(crate) fn register(
        &mut self,
        memfd: OwnedFd,
        block: usize,
    ) -> Result<Vec<BufferMut>, InterfaceError> {
        // What nobody holds any more makes room.
        self.take_returns();
        self.port.interface.register(memfd, block)
    }

    /// The same of several before the first turn; the buffers of each.
    pub(crate) fn register_all(
        &mut self,
        memory: Vec<OwnMemory>,
    ) -> Result<Vec<Vec<BufferMut>>, InterfaceError> {
        memory.into_iter().map(|own| self.register(own.memfd, own.block_len)).collect()
    }

    /// Gives a range of a buffer, first byte and length, to be sent after what was written before.
    pub(crate) fn give(
        &mut self,
        id: Id<Connection>,
        buffer: &Buffer,
        range: (usize, usize),
        cookie: Option<u64>,
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
    #[inline]
    pub(crate) fn take(
        &mut self,
        id: Id<Connection>,
        max: usize,
        out: &mut Pieces,
    ) -> Result<usize, ReceiveError> {
        let room = self.port.interface.memory_ref().lendable(out);
        if max == 0 || room == 0 {
            return Err(ReceiveError::WouldBlock);
        }
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let mut lender = Lender { owner: id.to_raw(), out, room, copied: 0 };
        let (stack, mut memory) = self.parts();
        let taken = stack.tcp().0.take(id, max, &mut memory, &mut lender);
        self.lends_copied += lender.copied;
        self.set_lends(true);
        taken.map(|bytes| usize::try_from(bytes).unwrap_or(0))
    }

    /// Takes pieces back at once.
    pub(crate) fn take_back(&mut self, pieces: &mut Pieces) {
        let tcp = self.stack.tcp().0;
        self.port.interface.memory().take_back(pieces, |back| {
            tcp.give_back(Id::from_raw(back.owner), back.bytes, back.slots);
        });
        let lends = self.port.interface.memory_ref().lent() > 0;
        self.set_lends(lends);
    }

    /// Takes what came back from other threads.
    #[cold]
    pub(crate) fn take_returns(&mut self) {
        while let Some(back) = self.port.interface.memory().drain() {
            self.stack.tcp().0.give_back(Id::from_raw(back.owner), back.bytes, back.slots);
        }
        self.port.interface.give_up_unused();
        let lends = self.port.interface.memory_ref().lent() > 0;
        self.set_lends(lends);
    }
}

/// Lends what is taken.
struct Lender<'a> {
    /// The connection.
    owner: u64,
    out: &'a mut Pieces,
    /// Pieces for which there is room.
    room: u32,
    /// Bytes that were copied, so that the NIC has buffers.
    copied: u64,
}

impl Taker<StackMemory<'_>> for Lender<'_> {
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.room > 0
    }

    #[inline(always)]
    fn run(&mut self, memory: &mut StackMemory<'_>, pieces: &[Piece], most: Most) -> Taken {
        let arena = &mut *memory.arena;
        let spare = (arena.total_receive() / LENT_PART).saturating_sub(arena.lent_slots());
        let count = spare.min(self.room).min(u32::from(most.slots));
        let run = pieces.iter().take(usize::try_from(count).unwrap_or(0));
        let run = run.map(|piece| to_device(*piece));
        let (lent, bytes) = arena.lend(run, most.bytes, self.owner, self.out);
        self.room -= lent;
        // No more than `most.slots`.
        Taken { pieces: u16::try_from(lent).unwrap_or(0), bytes }
    }

    /// A part of a piece, or one that cannot be lent with others.
    #[cold]
    fn piece(&mut self, memory: &mut StackMemory<'_>, piece: Piece) -> Kept {
        let most = Most { slots: 1, bytes: piece.len };
        if self.run(memory, &[piece], most).pieces == 1 {
            return Kept { slot: true, more: self.room > 0 };
        }
        self.room -= 1;
        self.copy(memory.arena, piece);
        Kept { slot: false, more: self.room > 0 }
    }

    #[cold]
    fn copied(&mut self, memory: &mut StackMemory<'_>, bytes: Vec<u8>) {
        memory.arena.lend_owned(bytes.into_boxed_slice(), self.owner, self.out);
    }
}

impl Lender<'_> {
    /// The slot stays the NIC's, and the application has bytes of its own.
    #[cold]
    fn copy(&mut self, arena: &mut Arena, piece: Piece) {
        let piece = to_device(piece);
        arena.lend_owned(arena.piece(piece).into(), self.owner, self.out);
        arena.release(piece.slot);
        self.copied += u64::from(piece.len);
    }
}
