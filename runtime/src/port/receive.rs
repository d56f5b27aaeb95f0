//! The way up: received frames to the stack, lent ones without a copy of their buffers.

use std::hint::cold_path;

use roceway_rdma_virtio::virtio::driver::Lent;
use roceway_rdma_virtio::virtio::interface::{Arrived, Looked};
use roceway_rdma_virtio::virtio::net_header::{DATA_VALID, GSO_NONE, NEEDS_CSUM};
use roceway_stack::frame::{RxChecksum, RxFrame, TX_PIECES_MAX, Taken};
use roceway_stack::memory::{Piece, Slot};
use roceway_stack::stack::Stack;
use roceway_stack::time::Instant;

use super::Port;
use crate::memory::{StackMemory, to_stack};

/// Bytes of a received frame that count as one item of a turn, as many as a receive buffer has
/// unless configured.
const ITEM_LEN: u32 = 4096;

/// No bytes.
const NO_PIECE: Piece = Piece { slot: Slot::from_raw(0), start: 0, len: 0 };

/// How a frame came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// As the first of a turn, which is mostly the only one.
    Alone,
    /// Behind others, to which it may be joined.
    InBurst,
}

impl Port {
    /// Hands received frames to the stack, at most `budget` items of them; returns how many. A
    /// large frame counts by its bytes, for they are what it costs; and were a whole window taken
    /// in one turn, the application and the acknowledgement would come so late that the peer has
    /// nothing left that it may send, and both ends would wait for each other in turn.
    #[inline(always)]
    pub(crate) fn pump_receive(&mut self, stack: &mut Stack, now: Instant, budget: u32) -> u32 {
        // Mostly there is one, and a look for the next is shorter than an attempt to take it.
        let Some(len) = self.receive_one(stack, now) else { return 0 };
        if !self.interface.recv_ready() {
            return 1;
        }
        self.receive_more(stack, now, (items_of(len), budget))
    }

    /// The frames behind the first of a turn.
    #[inline(never)]
    fn receive_more(
        &mut self,
        stack: &mut Stack,
        now: Instant,
        (mut done, budget): (u32, u32),
    ) -> u32 {
        if self.gro {
            return done + self.receive_burst(stack, now, budget.saturating_sub(done));
        }
        while done < budget
            && let Some(len) = self.receive_next(stack, now)
        {
            if !self.interface.recv_ready() {
                return done + 1;
            }
            done += items_of(len);
        }
        done
    }

    /// The rest of a burst, once it is known to be one: a frame that comes alone never gets here.
    #[inline(never)]
    fn receive_burst(&mut self, stack: &mut Stack, now: Instant, budget: u32) -> u32 {
        let mut done = 0;
        while done < budget && self.interface.receive(&mut self.received) {
            if self.capture.is_some() {
                self.capture_received(now);
            }
            if !self.receive_datagram(stack) {
                self.receive_any(stack, now, Came::InBurst);
            }
            if !self.interface.recv_ready() {
                done += 1;
                break;
            }
            done += items_of(self.received.pieces.iter().map(|piece| piece.len).sum());
        }
        stack.end_burst(now, &mut self.memory());
        done
    }

    /// Hands up a frame of a burst that is a datagram like the last one; false if it is not.
    #[inline]
    fn receive_datagram(&mut self, stack: &mut Stack) -> bool {
        let header = &self.received.header;
        let [piece] = self.received.pieces[..] else { return false };
        if header.flags & (NEEDS_CSUM | DATA_VALID) == 0 || header.gso_type != GSO_NONE {
            return false;
        }
        let taken = stack.on_plain_datagram(to_stack(piece), &mut self.memory());
        if taken == Taken::Copied {
            self.interface.memory().release(piece.slot);
        }
        taken != Taken::No
    }

    /// Hands up the next frame, if there is one; returns its length.
    #[inline(always)]
    fn receive_one(&mut self, stack: &mut Stack, now: Instant) -> Option<u32> {
        let lent = match self.interface.look_for_plain() {
            Looked::Plain(lent) => lent,
            Looked::Nothing => return None,
            Looked::Other => return self.receive_other(stack, now),
        };
        if self.capture.is_some() {
            cold_path();
            return Some(self.receive_lent(stack, now, lent));
        }
        let len = lent.piece().len;
        self.receive_vouched(stack, now, lent);
        Some(len)
    }

    /// The next one of a burst: most long ones lie on the queue.
    #[inline(always)]
    fn receive_next(&mut self, stack: &mut Stack, now: Instant) -> Option<u32> {
        if self.interface.has_returned() {
            let arrived = self.interface.look(&mut self.received);
            return self.receive_arrived(stack, now, arrived);
        }
        self.receive_one(stack, now)
    }

    /// What [`Port::receive_one`] does for a frame that is not plain.
    #[inline(never)]
    fn receive_other(&mut self, stack: &mut Stack, now: Instant) -> Option<u32> {
        let arrived = self.interface.look_further(&mut self.received);
        self.receive_arrived(stack, now, arrived)
    }

    /// Hands up what was found.
    #[inline(always)]
    fn receive_arrived(
        &mut self,
        stack: &mut Stack,
        now: Instant,
        arrived: Arrived,
    ) -> Option<u32> {
        match arrived {
            Arrived::Lent(lent) => Some(self.receive_lent(stack, now, lent)),
            Arrived::Frame => Some(self.receive_whole(stack, now)),
            Arrived::Nothing => None,
        }
    }

    /// Hands up a lent frame whose checksum the device answers for.
    #[inline(never)]
    fn receive_vouched(&mut self, stack: &mut Stack, now: Instant, lent: Lent) {
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        let taken = stack.on_plain_frame(now, to_stack(lent.piece()), &mut memory);
        self.settle_lent(stack, now, (lent, taken));
    }

    /// The same where nobody answers for the checksum.
    #[inline(never)]
    fn receive_lent_unverified(&mut self, stack: &mut Stack, now: Instant, lent: Lent) {
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        let taken = stack.on_unverified_frame(now, to_stack(lent.piece()), &mut memory);
        self.settle_lent(stack, now, (lent, taken));
    }

    /// What becomes of a lent frame of which the stack took so much.
    #[inline(always)]
    fn settle_lent(&mut self, stack: &mut Stack, now: Instant, (lent, taken): (Lent, Taken)) {
        match taken {
            Taken::Copied => self.interface.post_again(lent),
            Taken::Kept => {
                cold_path();
                self.interface.let_go(lent);
            }
            Taken::No => {
                cold_path();
                self.interface.keep(lent, &mut self.received);
                self.receive_any(stack, now, Came::Alone);
            }
        }
    }

    /// A lent frame that is captured, or that is not the plainest; returns its length.
    #[inline(never)]
    fn receive_lent(&mut self, stack: &mut Stack, now: Instant, lent: Lent) -> u32 {
        let len = lent.piece().len;
        if self.capture.is_some() {
            self.interface.keep(lent, &mut self.received);
            self.hand_up(stack, now);
        } else if self.received.header.flags & (NEEDS_CSUM | DATA_VALID) == 0 {
            self.receive_lent_unverified(stack, now, lent);
        } else {
            self.receive_vouched(stack, now, lent);
        }
        len
    }

    /// A frame that is not lent; returns its length.
    #[inline]
    fn receive_whole(&mut self, stack: &mut Stack, now: Instant) -> u32 {
        let len = self.received.pieces.iter().map(|piece| piece.len).sum();
        self.hand_up(stack, now);
        len
    }

    /// Hands up a frame that is ours, by the short way if it may be the plainest there is.
    fn hand_up(&mut self, stack: &mut Stack, now: Instant) {
        if self.capture.is_some() {
            self.capture_received(now);
        }
        let [piece] = self.received.pieces[..] else {
            return self.receive_any(stack, now, Came::Alone);
        };
        let taken = if self.received.header.flags & (NEEDS_CSUM | DATA_VALID) == 0 {
            self.receive_unverified(stack, now)
        } else {
            self.receive_plain(stack, now)
        };
        match taken {
            Taken::No => self.receive_any(stack, now, Came::Alone),
            Taken::Copied => self.interface.memory().release(piece.slot),
            Taken::Kept => {}
        }
    }

    /// Hands up a frame of one piece whose checksum the device answers for, if it is the plainest
    /// there is.
    fn receive_plain(&mut self, stack: &mut Stack, now: Instant) -> Taken {
        let [piece] = self.received.pieces[..] else { return Taken::No };
        if self.received.header.gso_type != GSO_NONE {
            return Taken::No;
        }
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        stack.on_plain_frame(now, to_stack(piece), &mut memory)
    }

    /// The same where nobody answers for the checksum.
    #[inline(never)]
    fn receive_unverified(&mut self, stack: &mut Stack, now: Instant) -> Taken {
        let [piece] = self.received.pieces[..] else { return Taken::No };
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        stack.on_unverified_frame(now, to_stack(piece), &mut memory)
    }

    /// Hands up a frame of any kind.
    #[inline(never)]
    fn receive_any(&mut self, stack: &mut Stack, now: Instant, came: Came) {
        let header = &self.received.header;
        let checksum = match header.flags & (NEEDS_CSUM | DATA_VALID) {
            0 => RxChecksum::Unknown,
            DATA_VALID => RxChecksum::Valid,
            _ => RxChecksum::Partial,
        };
        let gso_size = if header.gso_type == GSO_NONE { 0 } else { header.gso_size };
        let mut pieces = [NO_PIECE; TX_PIECES_MAX];
        let count = self.received.pieces.len();
        for (to, from) in pieces.iter_mut().zip(&self.received.pieces) {
            *to = to_stack(*from);
        }
        let pieces = &pieces[..count];
        let frame = RxFrame { pieces, checksum, gso_size };
        let mut memory = StackMemory { arena: self.interface.memory(), low: &self.low };
        match came {
            Came::Alone => stack.on_frame(now, &frame, &mut memory),
            Came::InBurst => stack.on_burst_frame(now, &frame, &mut memory),
        }
    }
}

/// For how many items a frame of so many bytes counts.
#[inline(always)]
fn items_of(len: u32) -> u32 {
    1 + len / ITEM_LEN
}
