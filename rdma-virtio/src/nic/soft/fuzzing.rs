//! What the fuzz targets call: a soft NIC against a peer that an input plays. In builds with
//! `--cfg fuzzing` only.
//!
//! Fails if the NIC's counters do not conserve, a receive is completed that was not posted, or the
//! NIC no longer takes a good message after all the bad ones.

use std::sync::atomic::Ordering;

use super::channel::{Channel, WORDS_LEN_MAX};
use super::hostile::{Hostile, SLOTS, Show, Victim, linked};
use super::layout::{REVOKED, sequence_of};

const STEPS_MAX: usize = 200;

/// Takes bytes off the front, zeroes at the end.
fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let (first, rest) = data.split_at(N.min(data.len()));
    *data = rest;
    let mut bytes = [0; N];
    bytes[..first.len()].copy_from_slice(first);
    bytes
}

/// A linked peer that writes anything into its ring and its progress: steps of a byte that says
/// what
/// and its arguments.
pub fn ring(mut data: &[u8]) {
    let (mut victim, mut hostile) = linked();
    for _ in 0..STEPS_MAX {
        if data.is_empty() {
            break;
        }
        ring_step(&mut victim, &mut hostile, &mut data);
    }
    // What lies ahead of the NIC is taken away, and a good message put there.
    victim.poll();
    hostile.head = victim.nic.receiver.head();
    for position in hostile.head..hostile.head + u64::from(SLOTS) {
        hostile.slot(position).sequence().store(0, Ordering::Release);
    }
    hostile.put(79, &[1, 2, 3], 1);
    assert_eq!(victim.poll(), 1, "the next good message does not arrive");
}

fn ring_step(victim: &mut Victim, hostile: &mut Hostile, data: &mut &[u8]) {
    let [what] = take(data);
    let word = u64::from_le_bytes(take(data));
    match what % 8 {
        // A message that is near to sense: inline, then of elements.
        0 => hostile.put(word % 130, &[word; 3], 1),
        1..=3 => {
            let elements = usize::from(what >> 3) % 34;
            let words: Vec<u64> = (0..elements).map(|_| u64::from_le_bytes(take(data))).collect();
            // Elements of the one region that is shown, unless bit 63 says otherwise.
            let words: Vec<u64> = words
                .iter()
                .map(|word| if word >> 63 == 0 { word & 0x0000_ffff_0000_ffff } else { *word })
                .collect();
            let sum = words.iter().fold(0_u64, |sum, word| sum + (word >> 32 & 0x00ff_ffff));
            let length = if word & 1 == 0 { sum } else { word & 0xffff_ffff };
            let count = u64::try_from(elements).unwrap_or(0);
            let slots = if elements <= 14 { 1 } else { count.div_ceil(14) };
            hostile.put(length & 0xffff_ffff | count << 32 | (word >> 1 & 1) << 48, &words, slots);
        }
        4 => hostile.put(word, &[word; 14], 1),
        5 => {
            let position = hostile.head.wrapping_add(word % 4).wrapping_sub(2);
            let sequence = match word >> 62 {
                0 => sequence_of(position),
                1 => sequence_of(position) | REVOKED,
                _ => word,
            };
            hostile.slot(position).sequence().store(sequence, Ordering::Release);
        }
        6 => hostile.set_consumed(if word & 1 == 0 { word >> 1 & 15 } else { word }),
        _ => {
            victim.poll();
            // What was put where the NIC does not look is put where it does.
            hostile.head = victim.nic.receiver.head();
        }
    }
}

/// A peer that says anything on the socket: a byte says whether it was linked before, then messages
/// behind a byte of length.
pub fn words(mut data: &[u8]) {
    let [setup] = take(&mut data);
    let mut greets = setup & 1 != 0;
    let (mut victim, hostile) = if greets {
        let (left, right) = Channel::pair().expect("there are descriptors");
        (Victim::new(left), Hostile::new(right))
    } else {
        linked()
    };
    for _ in 0..STEPS_MAX {
        if data.is_empty() {
            break;
        }
        let [length] = take(&mut data);
        let length = usize::from(length).min(data.len()).min(WORDS_LEN_MAX);
        let (bytes, rest) = data.split_at(length);
        data = rest;
        if std::mem::take(&mut greets) {
            // Right but for the bytes that are changed.
            let mut greeting = hostile.greeting().encode();
            greeting.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
            hostile.show(&greeting, Show::Properly);
        } else {
            let _ = hostile.channel.send(bytes, &[]);
        }
        let _ = victim.maintain();
        victim.poll();
    }
}
