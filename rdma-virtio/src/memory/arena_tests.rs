//! Tests of the arena: conservation of slots, refusal of misuse, and the default's arithmetic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::state::LENT_MORE;
use super::*;

fn small_config() -> ArenaConfig {
    ArenaConfig { small: 64, chunks: 32, receive: 32, ..ArenaConfig::default() }
}

fn arena() -> Arena {
    Arena::new(&small_config(), ArenaExtra { scratch_len: 512, private_len: 100 }).unwrap()
}

#[test]
fn the_default_fits_the_usual_limit_of_locked_memory() {
    let extra = ArenaExtra { scratch_len: 64 << 10, private_len: 128 << 10 };
    assert!(Arena::length_of(&ArenaConfig::default(), extra) + (700 << 10) < ARENA_LEN_DEFAULT_MAX);
}

#[test]
fn absurd_numbers_are_refused_by_name() {
    let rows = [
        (ArenaConfig { small: 0, ..small_config() }, "memory.small"),
        (ArenaConfig { chunks: 1, ..small_config() }, "memory.chunks"),
        (ArenaConfig { receive: 0, ..small_config() }, "memory.receive is"),
        (ArenaConfig { receive_len: 3000, ..small_config() }, "memory.receive_len"),
        (ArenaConfig { receive_len: 1 << 20, ..small_config() }, "memory.receive_len"),
        (ArenaConfig { chunks: u32::MAX, ..small_config() }, "memory in all"),
    ];
    for (config, name) in rows {
        let message = Arena::new(&config, ArenaExtra::default()).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn chunks_take_turns_and_the_small_slot_freed_last_comes_first() {
    let mut arena = arena();
    let all: Vec<Slot> = std::iter::from_fn(|| arena.allocate(SlotClass::Chunk)).collect();
    assert_eq!((all.len(), arena.free(SlotClass::Chunk)), (32, 0));
    // In an order of its own, from none free on, and again from some.
    for round in [[7, 3, 20], [3, 20, 7]] {
        round.iter().for_each(|&at: &usize| arena.release(all[at]));
        for at in &round[..2] {
            assert_eq!(arena.allocate(SlotClass::Chunk), Some(all[*at]));
        }
        arena.release(all[round[0]]);
        assert_eq!(arena.allocate(SlotClass::Chunk), Some(all[round[2]]), "waited longer");
        assert_eq!(arena.allocate(SlotClass::Chunk), Some(all[round[0]]));
        assert_eq!(arena.allocate(SlotClass::Chunk), None);
    }
    let small = [0; 2].map(|_| arena.allocate(SlotClass::Small).unwrap());
    small.iter().for_each(|&slot| arena.release(slot));
    assert_eq!(arena.allocate(SlotClass::Small), Some(small[1]));
}

#[test]
fn classes_are_apart_and_aligned() {
    let mut arena = arena();
    let chunk = arena.allocate(SlotClass::Chunk).unwrap();
    assert_eq!(arena.addr(chunk) % u64::from(CHUNK_LEN), 0);
    let posted = arena.allocate_receive().unwrap();
    assert_eq!(arena.posted_addr(&posted) % 4096, 0);
    let receive = arena.receive_region();
    assert!((receive.addr..receive.addr + receive.length).contains(&arena.posted_addr(&posted)));
    let transmit = arena.transmit_region();
    assert_eq!(transmit.addr + transmit.length, receive.addr);
    assert!(!transmit.writable && receive.writable);
    let slot = arena.complete(posted);
    assert_eq!(arena.slot_len(slot), 4096);
    arena.release(slot);
    arena.release(chunk);
    assert_eq!(arena.free_receive(), 32);
}

#[test]
fn misuse_is_refused_and_in_debug_builds_a_panic() {
    let mut arena = arena();
    let slot = arena.allocate(SlotClass::Small).unwrap();
    arena.release(slot);
    let chunk = arena.allocate(SlotClass::Chunk).unwrap();
    for wrong in [slot, Slot(chunk.raw() + 1), Slot(u32::MAX)] {
        let outcome = catch_unwind(AssertUnwindSafe(|| arena.release(wrong)));
        assert_eq!(outcome.is_err(), cfg!(debug_assertions));
        assert!(!arena.is_shared(wrong));
        assert_eq!(arena.addr_of(wrong, 0, 1), None);
        assert_eq!(arena.addr_of(wrong, 0, 0), None, "not even no bytes of it");
        assert_eq!(arena.slot_len(wrong), 0);
    }
    assert_eq!(arena.counters().misuse, 3);
    assert_eq!(arena.addr_of(chunk, 4000, 97), None);
    assert_eq!(arena.addr_of(chunk, u32::MAX, 2), None);
    assert!(arena.addr_of(chunk, 4000, 96).is_some());
}

#[test]
fn no_more_pieces_are_lent_than_can_wait_to_come_back() {
    let mut arena = arena();
    let (mut pieces, mut kept) = (arena.pieces(), Vec::new());
    let most = arena.total_receive() as usize + LENT_MORE as usize;
    while arena.lendable(&pieces) > 0 {
        arena.lend_owned(Box::from([7]), 1, &mut pieces);
        kept.extend(pieces.drain());
        assert!(kept.len() <= most, "{} pieces", kept.len());
    }
    assert_eq!((kept.len(), arena.lent() as usize), (most, most));
    // All at once, from another thread: none is lost on the way.
    std::thread::spawn(move || drop(kept)).join().expect("no panic");
    let mut back = 0;
    while let Some(returned) = arena.drain() {
        back += returned.bytes as usize;
    }
    assert_eq!((back, arena.lent()), (most, 0));
    assert!(arena.lendable(&pieces) > 0);
}

proptest! {
    /// Against a naive model: a list of held references.
    #[test]
    fn slots_are_conserved(steps in proptest::collection::vec((0..4_u8, any::<usize>()), 1..400)) {
        let mut arena = arena();
        let mut held: Vec<Slot> = Vec::new();
        for (what, pick) in steps {
            match what {
                0 => held.extend(arena.allocate(SlotClass::Small)),
                1 => held.extend(arena.allocate(SlotClass::Chunk)),
                2 if !held.is_empty() => {
                    let slot = held[pick % held.len()];
                    arena.retain(slot);
                    held.push(slot);
                }
                3 if !held.is_empty() => {
                    let slot = held.swap_remove(pick % held.len());
                    arena.release(slot);
                }
                _ => {}
            }
            let mut distinct: Vec<u32> = held.iter().map(|s| s.raw()).collect();
            distinct.sort_unstable();
            distinct.dedup();
            let free = arena.free(SlotClass::Small) + arena.free(SlotClass::Chunk);
            prop_assert_eq!(distinct.len(), (64 + 32 - free) as usize);
            for &slot in &held {
                let count = held.iter().filter(|&&s| s == slot).count();
                prop_assert_eq!(arena.is_shared(slot), count > 1);
            }
        }
        prop_assert_eq!(arena.counters().misuse, 0);
    }
}
