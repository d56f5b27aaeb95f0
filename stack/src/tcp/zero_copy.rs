//! Calls that move no bytes: the application gives slots to be sent, and takes received pieces
//! where the NIC put them.
//!
//! What is given follows everything written before it. What is taken stays in the receive window
//! until it comes back, so that an application that is slow stops its own peer and nobody else.

use alloc::vec::Vec;

use super::Tcp;
use super::connection::{Connection, Readiness};
use super::error::{ReceiveError, SendError};
use super::receiver::{AckDue, Sated};
use crate::memory::{Memory, Piece};
use crate::slab::Id;

/// Longest piece that is taken to be sent: 1 GiB, as the largest send buffer.
const GIVEN_MAX: u32 = 1 << 30;

/// What became of a piece that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Whether it still lies in its receive slot; otherwise that was released.
    pub slot: bool,
    /// Whether there is room for a further one.
    pub more: bool,
}

/// What was taken of a run of pieces: whole ones, from its front.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// Pieces, each of which still lies in its receive slot.
    pub pieces: u16,
    /// Their bytes.
    pub bytes: u32,
}

/// How much may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    /// Receive slots.
    pub slots: u16,
    /// Bytes.
    pub bytes: u32,
}

/// Who takes received bytes without a copy.
pub trait Taker<M> {
    /// Whether there is room for a further piece.
    fn has_room(&self) -> bool;

    /// Some of these pieces, from the front, where the NIC put them, as many as there is room for;
    /// their references pass to the taker. None if the first one is to come by itself.
    fn run(&mut self, mem: &mut M, pieces: &[Piece], most: Most) -> Taken;

    /// A piece where the NIC put it; its reference passes to the taker.
    fn piece(&mut self, mem: &mut M, piece: Piece) -> Kept;

    /// Bytes that were copied out of the NIC's buffers earlier; they come alone.
    fn copied(&mut self, mem: &mut M, bytes: Vec<u8>);
}

impl Connection {
    /// Queues a piece, all of it or nothing: into an empty queue always, else within the limit.
    fn give(&mut self, piece: Piece) -> Result<(), SendError> {
        if !self.state.may_send() {
            return Err(self.send_refusal());
        }
        let queued = self.snd.queue.len();
        let fits = queued == 0 || queued.saturating_add(piece.len) <= self.snd.limit;
        if !fits || piece.len > GIVEN_MAX {
            return Err(SendError::WouldBlock);
        }
        self.snd.queue.push_piece(piece);
        Ok(())
    }
}

impl Tcp {
    /// Queues a piece of a slot that the application filled; on success its reference passes to the
    /// connection, and nobody writes its bytes while that or a device has one.
    ///
    /// # Errors
    /// See [`SendError`]; `WouldBlock` while other bytes are queued and the limit has no room for
    /// all of this.
    pub fn give(&mut self, id: Id<Connection>, piece: Piece) -> Result<(), SendError> {
        let connection = self.connections.get_mut(id).ok_or(SendError::NoSocket)?;
        if piece.len == 0 {
            return Err(SendError::WouldBlock);
        }
        connection.give(piece)?;
        self.counters.bytes_given += u64::from(piece.len);
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(id.index());
        }
        Ok(())
    }

    /// Takes received bytes, at most `max`, without a copy, and hands them over piece by piece;
    /// returns how many, 0 at the end of the stream. They count as unread to the peer until
    /// [`Tcp::give_back`].
    ///
    /// # Errors
    /// See [`ReceiveError`]; `WouldBlock` also while the application holds as many slots as it may.
    #[inline]
    pub fn take<M: Memory>(
        &mut self,
        id: Id<Connection>,
        max: u32,
        mem: &mut M,
        taker: &mut impl Taker<M>,
    ) -> Result<u32, ReceiveError> {
        let connection = self.connections.get_mut(id).ok_or(ReceiveError::NoSocket)?;
        match connection.rcv.take(max, self.config.lent_slots, mem, taker) {
            Ok(0) => connection.receive_nothing().map(|_end| 0),
            Ok(bytes) => {
                self.counters.bytes_taken += u64::from(bytes);
                Ok(bytes)
            }
            Err(Sated) => {
                self.counters.taking_refused += 1;
                Err(ReceiveError::WouldBlock)
            }
        }
    }

    /// Bytes that were taken come back, with the slots that they lay in. Nothing happens if the
    /// connection is gone.
    pub fn give_back(&mut self, id: Id<Connection>, bytes: u32, slots: u16) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.rcv.give_back(bytes, slots) {
            connection.notify(Readiness::READABLE);
        }
        if connection.rcv.ack == AckDue::Now || !connection.watch.pending.is_empty() {
            self.settle(id.index());
        }
    }
}
