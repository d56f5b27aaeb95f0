//! Reassembly against a map of bytes, and the rules of RFC 2018.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::heap_memory::{HeapLimits, HeapMemory};

/// Sequence numbers wrap in the middle of every test.
const BASE: SeqNum = SeqNum::new(u32::MAX - 500);

fn seq(offset: u32) -> SeqNum {
    BASE.plus(offset)
}

fn window(nxt: u32, end: u32) -> ReceiveWindow {
    ReceiveWindow { nxt: seq(nxt), end: seq(end) }
}

fn memory() -> HeapMemory {
    HeapMemory::new(HeapLimits { receive_len: 64, ..HeapLimits::default() })
}

/// Inserts bytes whose value tells their place and `mark`.
fn insert(it: &mut Reassembly, mem: &mut HeapMemory, range: (u32, u32), mark: u8) -> Inserted {
    let bytes: Vec<u8> = (range.0..range.1).map(|at| value(at, mark)).collect();
    let pieces = mem.receive_chain(&bytes).unwrap();
    it.insert(seq(range.0), &pieces, window(0, 2000), mem)
}

fn value(at: u32, mark: u8) -> u8 {
    u8::try_from(at % 13).unwrap() + 16 * mark
}

/// Takes out everything that is ready from `nxt` on; returns the bytes.
fn drain(it: &mut Reassembly, mem: &mut HeapMemory, nxt: u32) -> Vec<u8> {
    let mut out: Vec<u8> = vec![];
    while let Some(data) = it.pop_ready(seq(nxt + u32::try_from(out.len()).unwrap()), mem) {
        assert!(!data.is_empty());
        match data {
            Data::Piece(piece) => {
                out.extend_from_slice(mem.bytes(piece));
                mem.release(piece.slot);
            }
            Data::Owned(owned) => out.extend_from_slice(owned.as_slice()),
        }
    }
    out
}

fn blocks(it: &Reassembly) -> Vec<(u32, u32)> {
    it.sack_blocks()
        .iter()
        .map(|block| (BASE.distance_to(block.start), BASE.distance_to(block.end)))
        .collect()
}

#[test]
fn a_filled_hole_makes_everything_ready() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    assert_eq!(insert(&mut it, &mut mem, (100, 300), 0).stored, 200);
    assert_eq!(insert(&mut it, &mut mem, (400, 500), 0).stored, 100);
    assert!(it.pop_ready(seq(0), &mut mem).is_none());
    // The caller takes bytes 0 to 150 in order by itself.
    let ready = drain(&mut it, &mut mem, 150);
    assert_eq!(ready, (150..300).map(|at| value(at, 0)).collect::<Vec<_>>());
    assert_eq!((it.bytes(), it.held_slots()), (100, 2));
    assert_eq!(drain(&mut it, &mut mem, 600), []);
    assert!(it.is_empty());
    assert_eq!((it.bytes(), it.held_slots(), mem.live_slots()), (0, 0, 0));
}

#[test]
fn held_bytes_win_over_later_ones() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    let _ = insert(&mut it, &mut mem, (20, 30), 1);
    let inserted = insert(&mut it, &mut mem, (10, 40), 2);
    assert_eq!(inserted, Inserted { stored: 20, duplicate: 10, refused: 0 });
    // The one slot of the second insertion is held twice.
    assert_eq!((it.held_slots(), mem.live_slots()), (3, 2));
    let ready = drain(&mut it, &mut mem, 10);
    let expected: Vec<u8> =
        (10..40).map(|at| value(at, if (20..30).contains(&at) { 1 } else { 2 })).collect();
    assert_eq!(ready, expected);
    assert_eq!(mem.live_slots(), 0);
}

#[test]
fn what_lies_outside_the_window_is_cut_off() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    for (range, stored, duplicate, refused) in [
        ((0, 50), 0, 50, 0),
        ((90, 120), 20, 10, 0),
        ((180, 230), 20, 0, 30),
        ((200, 260), 0, 0, 60),
        ((90, 210), 60, 50, 10),
    ] {
        let bytes: Vec<u8> = vec![7; usize::try_from(range.1 - range.0).unwrap()];
        let pieces = mem.receive_chain(&bytes).unwrap();
        let inserted = it.insert(seq(range.0), &pieces, window(100, 200), &mut mem);
        assert_eq!(inserted, Inserted { stored, duplicate, refused }, "{range:?}");
    }
    assert_eq!(it.bytes(), 100);
    it.clear(&mut mem);
    assert_eq!((it.bytes(), it.held_slots(), mem.live_slots()), (0, 0, 0));
    assert!(it.sack_blocks().is_empty());
}

#[test]
fn rfc2018_4_the_latest_block_comes_first() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    for (range, expected) in [
        ((100, 110), &[(100, 110)][..]),
        ((200, 210), &[(200, 210), (100, 110)]),
        ((110, 120), &[(100, 120), (200, 210)]),
        ((300, 310), &[(300, 310), (100, 120), (200, 210)]),
        ((400, 410), &[(400, 410), (300, 310), (100, 120), (200, 210)]),
        ((500, 510), &[(500, 510), (400, 410), (300, 310), (100, 120)]),
        // Two runs become one, which is named once.
        ((310, 400), &[(300, 410), (500, 510), (100, 120)]),
    ] {
        let _ = insert(&mut it, &mut mem, range, 0);
        assert_eq!(blocks(&it), expected, "{range:?}");
    }
    drain(&mut it, &mut mem, 100);
    assert_eq!(blocks(&it), [(300, 410), (500, 510)]);
    it.clear(&mut mem);
    assert_eq!(mem.live_slots(), 0);
}

#[test]
fn a_duplicate_names_its_block_again() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    let _ = insert(&mut it, &mut mem, (100, 110), 0);
    let _ = insert(&mut it, &mut mem, (200, 210), 0);
    let inserted = insert(&mut it, &mut mem, (100, 110), 0);
    assert_eq!(inserted, Inserted { stored: 0, duplicate: 10, refused: 0 });
    assert_eq!(blocks(&it), [(100, 110), (200, 210)]);
    it.clear(&mut mem);
}

#[test]
fn compaction_gives_all_slots_back_and_changes_no_byte() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    for range in [(10, 11), (11, 100), (200, 500), (150, 160), (100, 130)] {
        let _ = insert(&mut it, &mut mem, range, 0);
    }
    let before = blocks(&it);
    assert_eq!(it.compact(&mut mem), 120 + 10 + 300);
    assert_eq!((it.held_slots(), mem.live_slots(), it.bytes()), (0, 0, 430));
    assert_eq!(blocks(&it), before);
    assert_eq!(it.compact(&mut mem), 0);
    // New data lands between compacted data.
    let _ = insert(&mut it, &mut mem, (0, 300), 0);
    let ready = drain(&mut it, &mut mem, 0);
    assert_eq!(ready, (0..500).map(|at| value(at, 0)).collect::<Vec<_>>());
    assert_eq!(mem.live_slots(), 0);
}

#[test]
fn the_number_of_gaps_is_bounded() {
    let (mut it, mut mem) = (Reassembly::new(), memory());
    let mut refused = 0;
    for n in 0..1200 {
        let piece = mem.receive(&[1]).unwrap();
        refused += it.insert(seq(1 + 2 * n), &[piece], window(0, 1 << 20), &mut mem).refused;
    }
    assert_eq!((it.bytes(), refused), (1024, 1200 - 1024));
    assert_eq!(mem.live_slots(), 1024);
    it.clear(&mut mem);
}

#[test]
fn an_empty_queue_is_small() {
    assert!(size_of::<Reassembly>() <= 96, "{}", size_of::<Reassembly>());
}

proptest! {
    #[test]
    fn it_agrees_with_a_map_of_bytes(
        steps in prop::collection::vec((0_u32..400, 0_u32..120, 0_u32..8), 1..60),
    ) {
        let (mut it, mut mem) = (Reassembly::new(), memory());
        let mut naive: BTreeMap<u32, u8> = BTreeMap::new();
        let mut nxt = 0;
        for (step, (start, len, action)) in steps.into_iter().enumerate() {
            let mark = u8::try_from(step % 15).unwrap();
            let win = window(nxt, nxt + 300);
            let bytes: Vec<u8> = (start..start + len).map(|at| value(at, mark)).collect();
            let pieces = mem.receive_chain(&bytes).unwrap();
            let inserted = it.insert(seq(start), &pieces, win, &mut mem);
            let mut stored = 0;
            for at in (start..start + len).filter(|at| (nxt..nxt + 300).contains(at)) {
                naive.entry(at).or_insert_with(|| {
                    stored += 1;
                    value(at, mark)
                });
            }
            prop_assert_eq!(inserted.stored, stored);
            prop_assert_eq!(inserted.stored + inserted.duplicate + inserted.refused, len);
            match action {
                0 => {
                    it.compact(&mut mem);
                    prop_assert_eq!((it.held_slots(), mem.live_slots()), (0, 0));
                }
                1 => nxt += len / 2,
                _ => {}
            }
            naive.retain(|at, _| *at >= nxt);
            let ready = drain(&mut it, &mut mem, nxt);
            let mut expected = vec![];
            while let Some(byte) = naive.remove(&nxt) {
                expected.push(byte);
                nxt += 1;
            }
            prop_assert_eq!(ready, expected);
            prop_assert_eq!(it.bytes() as usize, naive.len());
            for block in it.sack_blocks() {
                let (from, to) = (BASE.distance_to(block.start), BASE.distance_to(block.end));
                prop_assert!(from > nxt && (from..to).all(|at| naive.contains_key(&at)));
                prop_assert!(!naive.contains_key(&(from - 1)) && !naive.contains_key(&to));
            }
        }
        it.clear(&mut mem);
        prop_assert_eq!(mem.live_slots(), 0);
    }
}
