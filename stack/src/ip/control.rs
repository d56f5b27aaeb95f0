//! Frames that the interface sends of its own accord (ARP, NDP, ICMP): a bounded queue of bytes,
//! copied into slots when they are sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::config::IpLimits;
use crate::frame::{TX_HEADROOM, TxFrame};
use crate::memory::{CHUNK_SLOT_LEN, Memory, Piece, SMALL_SLOT_LEN, SlotClass};

/// The queue.
#[derive(Debug)]
pub(super) struct ControlQueue {
    frames: VecDeque<Vec<u8>>,
    frames_max: usize,
    bytes: usize,
    bytes_max: usize,
    pub(super) sent: u64,
    pub(super) dropped: u64,
}

impl ControlQueue {
    pub(super) fn new(limits: &IpLimits) -> ControlQueue {
        ControlQueue {
            frames: VecDeque::new(),
            frames_max: usize::from(limits.control_frames),
            bytes: 0,
            bytes_max: limits.control_bytes as usize,
            sent: 0,
            dropped: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Queues a frame; `false` if there is no room, which is counted.
    pub(super) fn push(&mut self, frame: Vec<u8>) -> bool {
        if self.frames.len() >= self.frames_max || self.bytes + frame.len() > self.bytes_max {
            self.dropped += 1;
            return false;
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        true
    }

    /// Puts the next frame into `out`; `false` if there is none or no memory for it.
    pub(super) fn poll<M: Memory>(&mut self, mem: &mut M, out: &mut TxFrame) -> bool {
        let Some(frame) = self.frames.front() else { return false };
        if !lay_out(frame, mem, out) {
            return false;
        }
        self.bytes -= frame.len();
        self.frames.pop_front();
        self.sent += 1;
        true
    }
}

/// Copies a frame into fresh slots; `false` and nothing held if they run out.
fn lay_out<M: Memory>(frame: &[u8], mem: &mut M, out: &mut TxFrame) -> bool {
    out.pieces.clear();
    out.checksum = None;
    out.segmentation = None;
    let mut rest = frame;
    let mut start = TX_HEADROOM;
    while !rest.is_empty() {
        let fits_small = start as usize + rest.len() <= SMALL_SLOT_LEN as usize;
        let (class, slot_len) = if fits_small {
            (SlotClass::Small, SMALL_SLOT_LEN)
        } else {
            (SlotClass::Chunk, CHUNK_SLOT_LEN)
        };
        let slot = if out.pieces.is_full() { None } else { mem.allocate(class) };
        let Some(slot) = slot else {
            out.pieces.drain(..).for_each(|piece| mem.release(piece.slot));
            return false;
        };
        let room = (slot_len - start) as usize;
        let (now, later) = rest.split_at(room.min(rest.len()));
        let len = u32::try_from(now.len()).unwrap_or(slot_len);
        let piece = Piece { slot, start, len };
        mem.bytes_mut(piece).copy_from_slice(now);
        out.pieces.push(piece);
        rest = later;
        start = 0;
    }
    true
}
