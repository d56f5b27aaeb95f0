//! The queue against a plain list of bytes: what leaves is what was written, whatever the writes,
//! the ends of segments, losses and acknowledgements; sums are those of the bytes; slots come back.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::heap_memory::HeapMemory;

const HEADERS: u32 = 66;

/// What an application, a peer or a device does next.
#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    /// A piece of a slot that the application filled.
    Give(u32),
    /// At most so many bytes, of a whole segment if none.
    Send(Option<u32>),
    /// Some bytes again from some place, in thousandths of what was sent.
    Again(u32, u32),
    /// So many thousandths of what was sent.
    Acknowledge(u32),
    /// The oldest frames have left the device.
    Complete(usize),
    /// The path takes segments of this length.
    Mss(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![1..200_usize, 1..20_000_usize].prop_map(Step::Write),
        1 => (1..3000_u32).prop_map(Step::Give),
        6 => Just(Step::Send(None)),
        1 => (1..2000_u32).prop_map(|len| Step::Send(Some(len))),
        1 => (0..1000_u32, 1..1449_u32).prop_map(|(at, len)| Step::Again(at, len)),
        2 => (0..=1000_u32).prop_map(Step::Acknowledge),
        2 => (1..8_usize).prop_map(Step::Complete),
        1 => prop_oneof![Just(1448), Just(536), Just(1399), Just(1460)].prop_map(Step::Mss),
    ]
}

/// The queue, the bytes that it should hold, and what a device has.
struct World {
    mem: HeapMemory,
    queue: SendQueue,
    bytes: VecDeque<u8>,
    sent: usize,
    mss: u32,
    written: u8,
    frames: VecDeque<Vec<Slot>>,
}

impl World {
    fn next_bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                self.written = self.written.wrapping_mul(5).wrapping_add(113);
                // Sums that carry.
                if self.written.is_multiple_of(3) { 0xff } else { self.written }
            })
            .collect()
    }

    fn write(&mut self, count: usize) {
        let data = self.next_bytes(count);
        let all_sent = self.sent == self.bytes.len();
        let layout = WriteLayout::of_segments(HEADERS, self.mss, true);
        assert_eq!(layout.segment, self.mss, "these fill a slot well");
        let layout = WriteLayout { all_sent, ..layout };
        let n = self.queue.write(&data, u32::MAX, layout, &mut self.mem);
        assert_eq!(n, count, "there is memory");
        self.bytes.extend(data);
    }

    fn give(&mut self, len: u32) {
        let data = self.next_bytes(len as usize);
        let slot = self.mem.allocate(SlotClass::Chunk).unwrap();
        let piece = Piece { slot, start: 1, len };
        self.mem.bytes_mut(piece).copy_from_slice(&data);
        self.queue.push_piece(piece);
        self.bytes.extend(data);
    }

    /// As a connection does it: in place if it can be, else pieces.
    fn send(&mut self, most: Option<u32>) {
        let unsent = clamp_len(self.bytes.len() - self.sent, u32::MAX);
        let len = unsent.min(most.unwrap_or(self.mss));
        if len == 0 {
            return;
        }
        if let Some(piece) = self.queue.take_with_headroom(len) {
            let sum = self.queue.sum_of_taken();
            self.check(self.sent, &[piece], sum);
            assert!(piece.start >= TX_HEADROOM + HEADERS, "room for headers");
            // Nothing of what lies elsewhere is in the room that headers are written to.
            let room = Piece { slot: piece.slot, start: piece.start - HEADERS, len: HEADERS };
            self.mem.bytes_mut(room).fill(0xaa);
            self.sent += piece.len as usize;
            self.hold(&[piece]);
            return;
        }
        let len = len.min(self.queue.rest_of_segment().unwrap_or(u32::MAX));
        let mut pieces = Pieces::new();
        let (place, taken) = self.queue.peek_unsent(len, &mut pieces);
        assert!(taken > 0 && taken <= len);
        self.check(self.sent, &pieces, None);
        self.queue.sent_up_to(place);
        self.sent += taken as usize;
        self.hold(&pieces);
    }

    fn again(&mut self, at: u32, len: u32) {
        let at = clamp_len(self.sent, u32::MAX) * at / 1000;
        let len = len.min(clamp_len(self.sent, u32::MAX) - at);
        let mut pieces = Pieces::new();
        let taken = self.queue.peek(at, len, &mut pieces);
        assert!(taken == len || pieces.is_full());
        self.check(at as usize, &pieces, None);
        let held = |piece: &Piece| self.frames.iter().flatten().any(|slot| *slot == piece.slot);
        let held = pieces.iter().any(held);
        assert_eq!(self.queue.in_device(at, len, &self.mem), held);
        self.hold(&pieces);
    }

    fn hold(&mut self, pieces: &[Piece]) {
        let slots: Vec<Slot> = pieces.iter().map(|piece| piece.slot).collect();
        slots.iter().for_each(|slot| self.mem.retain(*slot));
        self.frames.push_back(slots);
    }

    fn complete(&mut self, count: usize) {
        for slot in self.frames.drain(..count.min(self.frames.len())).flatten() {
            self.mem.release(slot);
        }
    }

    fn acknowledge(&mut self, part: u32) {
        let n = self.sent * part as usize / 1000;
        self.queue.acknowledge(clamp_len(n, u32::MAX), &mut self.mem);
        self.bytes.drain(..n);
        self.sent -= n;
        assert_eq!(self.queue.len() as usize, self.bytes.len());
    }

    /// The pieces hold the bytes from `at` on, and have this sum, if one is known.
    fn check(&self, at: usize, pieces: &[Piece], sum: Option<Sum>) {
        let mut bytes: Vec<u8> = Vec::new();
        for piece in pieces {
            bytes.extend(self.mem.bytes(*piece));
        }
        assert!(bytes.iter().eq(self.bytes.range(at..at + bytes.len())), "bytes from {at} on");
        if let Some(sum) = sum {
            assert_eq!(sum.checksum(), Sum::of(&bytes).checksum(), "sum from {at} on");
        }
    }
}

proptest! {
    #[test]
    fn what_leaves_is_what_was_written_with_its_sum(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World {
            mem: HeapMemory::default(),
            queue: SendQueue::default(),
            bytes: VecDeque::new(),
            sent: 0,
            mss: 1448,
            written: 0,
            frames: VecDeque::new(),
        };
        for step in steps {
            match step {
                Step::Write(count) => world.write(count),
                Step::Give(len) => world.give(len),
                Step::Send(most) => world.send(most),
                Step::Again(at, len) => world.again(at, len),
                Step::Acknowledge(part) => world.acknowledge(part),
                Step::Complete(count) => world.complete(count),
                Step::Mss(mss) => world.mss = mss,
            }
        }
        while world.sent < world.bytes.len() {
            world.send(None);
        }
        world.complete(usize::MAX);
        world.acknowledge(1000);
        prop_assert_eq!(world.mem.live_slots(), 0);
    }
}

fn stream(mss: u32) -> World {
    World {
        mem: HeapMemory::default(),
        queue: SendQueue::default(),
        bytes: VecDeque::new(),
        sent: 0,
        mss,
        written: 0,
        frames: VecDeque::new(),
    }
}

#[test]
fn a_stream_leaves_in_whole_frames_that_were_summed_when_they_were_written() {
    let mut world = stream(1448);
    for _ in 0..4 {
        world.write(16_384);
    }
    let mut frames = 0;
    while world.bytes.len() - world.sent >= 1448 {
        let piece = world.queue.take_with_headroom(1448).expect("a segment in one piece");
        let sum = world.queue.sum_of_taken();
        assert!(sum.is_some());
        world.check(world.sent, &[piece], sum);
        world.sent += 1448;
        frames += 1;
    }
    assert_eq!(frames, 65_536 / 1448);
    // Two in a slot.
    assert_eq!(world.mem.live_slots(), 23);
    world.queue.clear(&mut world.mem);
    assert_eq!(world.mem.live_slots(), 0);
}

#[test]
fn a_segment_that_was_cut_is_finished_and_the_next_ones_are_whole_again() {
    let mut world = stream(1448);
    world.write(10_000);
    world.send(Some(1000));
    let before = world.sent;
    world.send(None);
    assert_eq!(world.sent - before, 448, "the rest of the segment");
    assert!(world.queue.take_with_headroom(1448).is_some());
    assert!(world.queue.sum_of_taken().is_some());
}

#[test]
fn the_sum_of_a_segment_that_was_acknowledged_in_part_is_not_known() {
    let mut world = stream(1448);
    world.write(3000);
    world.send(None);
    world.send(None);
    world.acknowledge(100);
    assert_eq!(world.queue.sum_of_taken().map(Sum::checksum), {
        let second: Vec<u8> = world.bytes.range(1448 - 289..2896 - 289).copied().collect();
        Some(Sum::of(&second).checksum())
    });
    world.acknowledge(600);
    assert_eq!(world.queue.sum_of_taken(), None);
}

#[test]
fn what_fills_a_slot_badly_is_not_laid_out() {
    for (mss, wanted) in [(1448, 1448), (536, 536), (3934, 3934), (2100, 0), (8948, 0), (1, 0)] {
        assert_eq!(WriteLayout::of_segments(HEADERS, mss, true).segment, wanted, "{mss}");
    }
}
