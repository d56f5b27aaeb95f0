//! The worker's arena as the stack sees it. Both crates number slots alike, so a conversion is
//! a change of type and costs nothing.

use roceway_rdma_virtio::memory::arena::Arena;
use roceway_rdma_virtio::memory::slot::{self as device, SlotClass as DeviceClass};
use roceway_rdma_virtio::memory::{copy, sum};
use roceway_stack::checksum::Sum;
use roceway_stack::memory::{Memory, Piece, Slot, SlotClass};

/// From so many bytes on whole blocks are summed in vectors.
const WIDE_MIN: usize = 256;

/// The arena, borrowed for the stack.
pub(crate) struct StackMemory<'a> {
    pub(crate) arena: &'a mut Arena,
    pub(crate) low: &'a Low,
}

/// When free slots are few.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Low {
    /// Free receive slots below which the stack copies data out of them.
    pub(crate) receive: u32,
    /// Free small slots below which they are kept for headers.
    pub(crate) small: u32,
}

/// A slot of the stack as the device names it.
#[inline]
pub(crate) fn to_device(piece: Piece) -> device::Piece {
    let slot = device::Slot::from_raw(piece.slot.raw());
    device::Piece { slot, start: piece.start, len: piece.len }
}

/// A slot of the device as the stack names it.
#[inline]
pub(crate) fn to_stack(piece: device::Piece) -> Piece {
    Piece { slot: Slot::from_raw(piece.slot.raw()), start: piece.start, len: piece.len }
}

impl Memory for StackMemory<'_> {
    #[inline(always)]
    fn allocate(&mut self, class: SlotClass) -> Option<Slot> {
        let class = match class {
            SlotClass::Small => DeviceClass::Small,
            SlotClass::Chunk => DeviceClass::Chunk,
        };
        self.arena.allocate(class).map(|slot| Slot::from_raw(slot.raw()))
    }

    #[inline(always)]
    fn retain(&mut self, slot: Slot) {
        self.arena.retain(device::Slot::from_raw(slot.raw()));
    }

    #[inline(always)]
    fn release(&mut self, slot: Slot) {
        self.arena.release(device::Slot::from_raw(slot.raw()));
    }

    #[cold]
    fn abandon(&mut self, slot: Slot) {
        let slot = device::Slot::from_raw(slot.raw());
        self.arena.mark_dropped(slot);
        self.arena.release(slot);
    }

    #[inline(always)]
    fn is_shared(&self, slot: Slot) -> bool {
        self.arena.is_shared(device::Slot::from_raw(slot.raw()))
    }

    #[inline(always)]
    fn bytes(&self, piece: Piece) -> &[u8] {
        self.arena.bytes(device::Slot::from_raw(piece.slot.raw()), piece.start, piece.len)
    }

    #[inline(always)]
    fn bytes_mut(&mut self, piece: Piece) -> &mut [u8] {
        self.arena.bytes_mut(device::Slot::from_raw(piece.slot.raw()), piece.start, piece.len)
    }

    #[inline]
    fn sum(&self, piece: Piece) -> Sum {
        let bytes = self.bytes(piece);
        if bytes.len() < WIDE_MIN {
            return Sum::of(bytes);
        }
        let (front, rest) = sum::blocks(bytes);
        Sum::of_parts(front, rest)
    }

    #[inline]
    fn copy_and_sum(&mut self, piece: Piece, data: &[u8]) -> Sum {
        let (front, place, rest) = sum::copied_blocks(self.bytes_mut(piece), data);
        place.copy_from_slice(rest);
        Sum::of_parts(front, rest)
    }

    #[inline(always)]
    fn copy(to: &mut [u8], from: &[u8]) {
        copy::copy(to, from);
    }

    #[inline(always)]
    fn expect_writing(&mut self, rest: Option<Piece>, len: u32) {
        match rest {
            Some(piece) => self.arena.expect_writing(to_device(piece)),
            None => self.arena.expect_allocation(DeviceClass::Chunk, len),
        }
    }

    #[inline(always)]
    fn small_is_low(&self) -> bool {
        self.arena.free(DeviceClass::Small) < self.low.small
    }

    #[inline(always)]
    fn receive_is_low(&self) -> bool {
        self.arena.free_receive() < self.low.receive
    }
}
