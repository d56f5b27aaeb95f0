//! One side of the gateway: a device behind virtqueues, and the frames that go out on it.
//!
//! Owns the device, its memory, and the copy of a frame from one side's memory to the other's. A
//! frame keeps its virtio-net header, so a checksum stays partial and a large segment whole; what
//! this side's device cannot do the device half does in software. Invariant: every slot that is
//! allocated here is with the device or released when a call returns.

use arrayvec::ArrayVec;
use roceway_runtime::rdma_virtio::memory::arena::{Arena, ArenaConfig};
use roceway_runtime::rdma_virtio::memory::slot::{CHUNK_LEN, Piece, SMALL_LEN, SlotClass};
use roceway_runtime::rdma_virtio::nic::Nic;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::virtio::driver::{PIECES_MAX, Received, TransmitError};
use roceway_runtime::rdma_virtio::virtio::features::Features;
use roceway_runtime::rdma_virtio::virtio::interface::{InterfaceError, NetInterface};
use roceway_runtime::rdma_virtio::virtio::net_header::{GSO_ECN, GSO_NONE, GSO_TCPV6, NetHeader};

/// Entries of each virtqueue.
const QUEUE: u16 = 256;
/// Room before a frame, for its virtio-net header.
const HEADROOM: u32 = 16;
/// Ethernet header and a VLAN tag.
const AROUND_PACKET: u32 = 18;

/// What became of a frame that was to go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// There is no room for it now.
    Later,
    /// It can never go out on this side.
    TooLong,
    /// The device will never take it.
    Refused,
}

/// A side.
pub struct Side {
    /// The device with its queues.
    pub interface: NetInterface<AnyNic>,
    /// Frames were handed over since the last doorbell.
    unrung: bool,
    /// Longest frame that is not a large segment.
    frame_max: u32,
}

impl Side {
    /// A side over a device.
    ///
    /// # Errors
    /// If its memory cannot be had or registered.
    pub fn new(nic: AnyNic) -> Result<Side, InterfaceError> {
        let frame_max = u32::from(nic.capabilities().mtu) + AROUND_PACKET;
        let memory = ArenaConfig::default();
        let interface = NetInterface::new(nic, &memory, Features::ALL_OURS, QUEUE)?;
        Ok(Side { interface, unrung: false, frame_max })
    }

    /// Sends a copy of a frame of the other side.
    pub fn carry(&mut self, from: &Arena, frame: &Received) -> Sent {
        let length: u32 = frame.pieces.iter().map(|piece| piece.len).sum();
        if !fits(&frame.header, length, self.frame_max) {
            return Sent::TooLong;
        }
        let header = NetHeader { num_buffers: 0, ..frame.header };
        self.send(length, header, frame.pieces.iter().map(|piece| from.piece(*piece)))
    }

    /// Sends a frame of these parts.
    pub fn send<'a>(
        &mut self,
        length: u32,
        header: NetHeader,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Sent {
        let arena = self.interface.memory();
        let Some(pieces) = room(arena, length) else { return Sent::Later };
        fill(arena, &pieces, parts);
        match self.interface.transmit(&pieces, &header) {
            Ok(()) => {
                self.unrung = true;
                Sent::Yes
            }
            Err(error) => {
                release(self.interface.memory(), &pieces);
                match error {
                    TransmitError::RingFull => Sent::Later,
                    TransmitError::BadPieces | TransmitError::Broken => Sent::Refused,
                }
            }
        }
    }

    /// Rings the doorbell if there is anything to ring it for.
    pub fn doorbell(&mut self) {
        if self.unrung || self.interface.has_backlog() {
            self.unrung = false;
            self.interface.doorbell();
        }
    }
}

/// Whether a frame is no longer than packets may be, or its segments are not.
fn fits(header: &NetHeader, length: u32, frame_max: u32) -> bool {
    // At least IP and TCP headers come on top of a segment's payload; the length that the
    // virtio-net header says of them is a hint only, and the device half reads the true one.
    let least = match header.gso_type & !GSO_ECN {
        GSO_NONE => return length <= frame_max,
        GSO_TCPV6 => 60,
        _ => 40,
    };
    u32::from(header.gso_size) + least + AROUND_PACKET <= frame_max
}

/// Slots for a frame of so many bytes.
fn room(arena: &mut Arena, length: u32) -> Option<ArrayVec<Piece, PIECES_MAX>> {
    let mut pieces = ArrayVec::new();
    let (mut left, mut start) = (length, HEADROOM);
    let small = HEADROOM + length <= SMALL_LEN;
    let (class, most) =
        if small { (SlotClass::Small, SMALL_LEN) } else { (SlotClass::Chunk, CHUNK_LEN) };
    while left > 0 {
        let slot = if pieces.is_full() { None } else { arena.allocate(class) };
        let Some(slot) = slot else {
            release(arena, &pieces);
            return None;
        };
        let len = left.min(most - start);
        pieces.push(Piece { slot, start, len });
        left -= len;
        start = 0;
    }
    Some(pieces)
}

fn release(arena: &mut Arena, pieces: &[Piece]) {
    for piece in pieces {
        arena.release(piece.slot);
    }
}

/// Copies the parts, one after the other, into the pieces. Both have the same length in all.
fn fill<'a>(arena: &mut Arena, pieces: &[Piece], mut parts: impl Iterator<Item = &'a [u8]>) {
    let mut part: &[u8] = &[];
    for piece in pieces {
        let mut out = arena.bytes_mut(piece.slot, piece.start, piece.len);
        while !out.is_empty() {
            if part.is_empty() {
                let Some(next) = parts.next() else { return };
                part = next;
                continue;
            }
            let count = part.len().min(out.len());
            let (head, rest) = out.split_at_mut(count);
            head.copy_from_slice(&part[..count]);
            part = &part[count..];
            out = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use roceway_runtime::rdma_virtio::memory::arena::ArenaExtra;
    use roceway_runtime::rdma_virtio::virtio::net_header::{GSO_TCPV4, NEEDS_CSUM};

    use super::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig::default(), ArenaExtra::default()).unwrap()
    }

    #[test]
    fn frames_of_every_length_are_copied_whole_into_slots_with_room_in_front() {
        let mut arena = arena();
        let free = (arena.free(SlotClass::Small), arena.free(SlotClass::Chunk));
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for length in [14, 60, 240, 241, 1514, 4080, 4081, 65_550, 65_562] {
            let pieces = room(&mut arena, length).unwrap();
            let frame = &bytes[..usize::try_from(length).unwrap()];
            fill(&mut arena, &pieces, frame.chunks(4084));
            let copied: Vec<u8> = pieces.iter().flat_map(|p| arena.piece(*p).to_vec()).collect();
            assert_eq!(copied, frame);
            assert!(pieces[0].start >= 12);
            release(&mut arena, &pieces);
        }
        assert_eq!((arena.free(SlotClass::Small), arena.free(SlotClass::Chunk)), free);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let mut arena = arena();
        let free = arena.free(SlotClass::Chunk);
        assert!(room(&mut arena, 80_000).is_none(), "longer than any frame");
        assert_eq!(arena.free(SlotClass::Chunk), free);
        let mut all = Vec::new();
        while let Some(pieces) = room(&mut arena, 65_562) {
            all.push(pieces);
        }
        assert_eq!(arena.free(SlotClass::Chunk), free % 17);
    }

    #[test]
    fn large_segments_pass_and_long_packets_do_not() {
        let plain = NetHeader::RECEIVED;
        let large = NetHeader { flags: NEEDS_CSUM, gso_type: GSO_TCPV4, gso_size: 1460, ..plain };
        let jumbo = NetHeader { gso_size: 1461, ..large };
        assert!(fits(&plain, 1518, 1518) && !fits(&plain, 1519, 1518));
        assert!(fits(&large, 65_000, 1518) && !fits(&jumbo, 65_000, 1518));
    }
}
