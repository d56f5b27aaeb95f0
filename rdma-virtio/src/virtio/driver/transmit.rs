//! The transmit queue, driver's side.
//!
//! A frame of one piece is one descriptor, header and all, since the header lies before the frame
//! in the same slot. A frame of several is one descriptor for a table of them, or a chain.
//! Invariants: a head has a record from `push_available` until it came back; a reference is held
//! of each of its pieces meanwhile.

use std::hint::cold_path;

use super::{PIECES_MAX, TransmitError};
use crate::counters::DriverCounters;
use crate::memory::arena::Arena;
use crate::memory::slot::{Piece, Slot};
use crate::virtio::layout::{DESC_INDIRECT, DESC_LEN, DESC_NEXT, Descriptor};
use crate::virtio::net_header::{NET_HEADER_LEN, NetHeader};
use crate::virtio::ring::{DriverRing, Notify, Policy};

/// Bytes of one indirect table: a descriptor a piece, rounded up to cache lines.
pub const TABLE_LEN: u32 = 320;

const _: () = assert!(PIECES_MAX * (DESC_LEN as usize) <= TABLE_LEN as usize);

/// Room for one indirect table a head, in memory that the device may read.
#[derive(Debug)]
pub struct IndirectTables {
    first: *mut [u64; 2],
    addr: u64,
    count: u16,
}

// SAFETY: the tables belong to this value alone; the device only reads them.
unsafe impl Send for IndirectTables {}

impl IndirectTables {
    /// The tables at `host`, named `addr` in descriptors.
    ///
    /// # Safety
    /// `count` × [`TABLE_LEN`] bytes at `host`, aligned to 16, are mapped, writable and used for
    /// nothing else while this value lives; their provenance is exposed.
    #[must_use]
    pub unsafe fn new(host: usize, addr: u64, count: u16) -> IndirectTables {
        IndirectTables { first: std::ptr::with_exposed_provenance_mut(host), addr, count }
    }

    /// Writes an entry of the table of `head`.
    fn write(&mut self, head: u16, entry: usize, descriptor: Descriptor) {
        assert!(head < self.count && entry < PIECES_MAX);
        let at = usize::from(head) * (TABLE_LEN / DESC_LEN) as usize + entry;
        // SAFETY: head and entry are in range, so the place lies in the memory that `new` was
        // promised.
        let place = unsafe { self.first.add(at) };
        // SAFETY: as above; aligned, and nobody else writes it.
        unsafe { place.write(descriptor.to_words()) };
    }

    fn addr(&self, head: u16) -> u64 {
        self.addr + u64::from(head) * u64::from(TABLE_LEN)
    }
}

/// What is to be released when a head comes back.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// 0 if the head is not on the queue.
    pieces: u8,
    /// Descriptors of the chain, linked in the ring's own copy of the links.
    descriptors: u8,
    slots: [Slot; PIECES_MAX],
}

/// The transmit queue.
#[derive(Debug)]
pub(super) struct TransmitQueue<P: Policy> {
    ring: DriverRing<P>,
    records: Box<[Record]>,
    tables: Option<IndirectTables>,
    in_flight: u16,
    broken: bool,
}

impl<P: Policy> TransmitQueue<P> {
    pub(super) fn new(ring: DriverRing<P>, tables: Option<IndirectTables>) -> Self {
        let none = Record { pieces: 0, descriptors: 0, slots: [Slot::from_raw(0); PIECES_MAX] };
        TransmitQueue {
            records: vec![none; usize::from(ring.size())].into_boxed_slice(),
            ring,
            tables,
            in_flight: 0,
            broken: false,
        }
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(super) fn ring_mut(&mut self) -> &mut DriverRing<P> {
        &mut self.ring
    }

    #[inline]
    pub(super) fn transmit(
        &mut self,
        arena: &mut Arena,
        pieces: &[Piece],
        header: &NetHeader,
        counters: &mut DriverCounters,
    ) -> Result<Notify, TransmitError> {
        let (head, bytes) = match pieces {
            [only] => (self.push_one(arena, *only, header), u64::from(only.len)),
            _ => {
                let bytes = pieces.iter().map(|p| u64::from(p.len)).sum();
                (self.push_several(arena, pieces, header), bytes)
            }
        };
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                match error {
                    TransmitError::RingFull => counters.tx_ring_full += 1,
                    TransmitError::BadPieces | TransmitError::Broken => counters.tx_refused += 1,
                }
                return Err(error);
            }
        };
        self.ring.push_available(head);
        self.in_flight += 1;
        counters.tx_frames += 1;
        counters.tx_bytes += bytes;
        Ok(self.ring.publish())
    }

    /// The short form of [`TransmitQueue::transmit`] for an idle queue: the descriptor is made, and
    /// handed over by value instead of through the ring.
    #[inline(always)]
    pub(super) fn describe(
        &self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
    ) -> Option<Descriptor> {
        if self.in_flight != 0 {
            return None;
        }
        let addr = arena.put_before(piece.slot, piece.start, piece.len, header.encode())?;
        Some(Descriptor { addr, len: piece.len + NET_HEADER_LEN, flags: 0, next: 0 })
    }

    /// Descriptors that are free.
    pub(super) fn room(&self) -> u16 {
        if self.broken { 0 } else { self.ring.free() }
    }

    /// Takes a frame of one piece: its head and descriptor, which go to the device by value, or
    /// onto the queue by [`TransmitQueue::queue_frame`].
    #[inline(always)]
    pub(super) fn take_frame(
        &mut self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
        counters: &mut DriverCounters,
    ) -> Option<(u16, Descriptor)> {
        let Ok(taken) = self.describe_one(arena, piece, header) else {
            cold_path();
            counters.tx_refused += 1;
            return None;
        };
        self.in_flight += 1;
        counters.tx_frames += 1;
        counters.tx_bytes += u64::from(piece.len);
        Some(taken)
    }

    /// Puts what was taken onto the queue.
    #[cold]
    pub(super) fn queue_frame(&mut self, head: u16, descriptor: Descriptor) -> Notify {
        self.ring.write(head, descriptor);
        self.ring.push_available(head);
        self.ring.publish()
    }

    #[inline]
    fn push_one(
        &mut self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
    ) -> Result<u16, TransmitError> {
        let (head, descriptor) = self.describe_one(arena, piece, header)?;
        self.ring.write(head, descriptor);
        Ok(head)
    }

    #[inline(always)]
    fn describe_one(
        &mut self,
        arena: &mut Arena,
        piece: Piece,
        header: &NetHeader,
    ) -> Result<(u16, Descriptor), TransmitError> {
        if self.ring.free() == 0 {
            return Err(self.full());
        }
        let addr = arena
            .put_before(piece.slot, piece.start, piece.len, header.encode())
            .ok_or(TransmitError::BadPieces)?;
        let head = self.ring.take_descriptor().ok_or(TransmitError::RingFull)?;
        let record = self.records.get_mut(usize::from(head)).ok_or(TransmitError::Broken)?;
        record.pieces = 1;
        record.descriptors = 1;
        record.slots[0] = piece.slot;
        Ok((head, Descriptor { addr, len: piece.len + NET_HEADER_LEN, flags: 0, next: 0 }))
    }

    #[cold]
    fn full(&self) -> TransmitError {
        if self.broken { TransmitError::Broken } else { TransmitError::RingFull }
    }

    fn push_several(
        &mut self,
        arena: &mut Arena,
        pieces: &[Piece],
        header: &NetHeader,
    ) -> Result<u16, TransmitError> {
        let [first, rest @ ..] = pieces else { return Err(TransmitError::BadPieces) };
        let count = u8::try_from(pieces.len()).map_err(|_| TransmitError::BadPieces)?;
        let needed = if self.tables.is_some() { 1 } else { count };
        if pieces.len() > PIECES_MAX {
            return Err(TransmitError::BadPieces);
        }
        if self.ring.free() < u16::from(needed) {
            return Err(self.full());
        }
        let mut parts = [(0_u64, 0_u32); PIECES_MAX];
        let mut slots = [Slot::from_raw(0); PIECES_MAX];
        for ((part, slot), piece) in parts.iter_mut().zip(&mut slots).zip(pieces).skip(1) {
            let addr = arena.addr_of(piece.slot, piece.start, piece.len);
            *part = (addr.ok_or(TransmitError::BadPieces)?, piece.len);
            *slot = piece.slot;
        }
        let addr = arena
            .put_before(first.slot, first.start, first.len, header.encode())
            .ok_or(TransmitError::BadPieces)?;
        parts[0] = (addr, first.len + NET_HEADER_LEN);
        slots[0] = first.slot;

        let parts = &parts[..=rest.len()];
        let head = match &mut self.tables {
            Some(tables) => push_indirect(&mut self.ring, tables, parts),
            None => push_chain(&mut self.ring, parts),
        }
        .ok_or(TransmitError::RingFull)?;
        let record = self.records.get_mut(usize::from(head)).ok_or(TransmitError::Broken)?;
        *record = Record { pieces: count, descriptors: needed, slots };
        Ok(head)
    }

    #[inline]
    pub(super) fn reap(&mut self, arena: &mut Arena, counters: &mut DriverCounters) {
        loop {
            let used = match self.ring.pop_used() {
                Ok(None) => return,
                Ok(Some(used)) => used,
                Err(_) => {
                    counters.broken_ring += u64::from(!self.broken);
                    self.broken = true;
                    return;
                }
            };
            // What a device says that it wrote into a packet to send is not looked at.
            let head = u16::try_from(used.id).unwrap_or(u16::MAX);
            self.take_back(arena, head, counters);
        }
    }

    /// The device is done with a chain.
    #[inline(always)]
    pub(super) fn take_back(
        &mut self,
        arena: &mut Arena,
        head: u16,
        counters: &mut DriverCounters,
    ) {
        let record = match self.records.get_mut(usize::from(head)) {
            Some(record) if record.pieces != 0 => record,
            _ => {
                cold_path();
                counters.bad_used_id += 1;
                return;
            }
        };
        let pieces = usize::from(record.pieces);
        let descriptors = u16::from(record.descriptors);
        record.pieces = 0;
        for slot in record.slots.iter().take(pieces) {
            arena.release(*slot);
        }
        self.ring.give_chain(head, descriptors);
        self.in_flight -= 1;
        counters.tx_completed += 1;
    }
}

/// One descriptor for a table of all parts.
fn push_indirect<P: Policy>(
    ring: &mut DriverRing<P>,
    tables: &mut IndirectTables,
    parts: &[(u64, u32)],
) -> Option<u16> {
    let head = ring.take_descriptor()?;
    let mut next = 0;
    for (entry, &(addr, len)) in parts.iter().enumerate() {
        next += 1;
        let flags = if entry + 1 < parts.len() { DESC_NEXT } else { 0 };
        tables.write(head, entry, Descriptor { addr, len, flags, next });
    }
    let len = u32::from(next) * DESC_LEN;
    let addr = tables.addr(head);
    ring.write(head, Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 });
    Some(head)
}

/// A descriptor a part, linked. The caller saw that enough are free.
fn push_chain<P: Policy>(ring: &mut DriverRing<P>, parts: &[(u64, u32)]) -> Option<u16> {
    let head = ring.take_descriptor()?;
    let mut id = head;
    for (i, &(addr, len)) in parts.iter().enumerate() {
        let more = i + 1 < parts.len();
        let next = if more { ring.take_descriptor()? } else { 0 };
        let flags = if more { DESC_NEXT } else { 0 };
        ring.write(id, Descriptor { addr, len, flags, next });
        id = next;
    }
    Some(head)
}
