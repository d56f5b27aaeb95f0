//! How an input is changed: a few small changes at random places, as fuzzers have them.

use crate::random::Random;

/// Longest input.
pub const LENGTH_MAX: usize = 16_384;

/// Values at which arithmetic goes wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];

/// Changes `bytes` in up to eight ways; `other` is an input to take parts from.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 << random.below(4) {
        change(bytes, other, random);
    }
    bytes.truncate(LENGTH_MAX);
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if bytes.is_empty() {
        bytes.extend((0..=random.below(64)).map(|_| random.byte()));
        return;
    }
    let at = random.below(bytes.len());
    match random.below(10) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.byte(),
        2 => bytes[at] = bytes[at].wrapping_add(random.byte() % 35).wrapping_sub(17),
        3 | 4 => {
            let width = 1 << random.below(4);
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let backwards = random.below(2) == 0;
            for index in 0..width.min(bytes.len() - at) {
                bytes[at + index] = edge[if backwards { width - 1 - index } else { index }];
            }
        }
        5 => {
            let count = length(random).min(bytes.len() - at);
            bytes.drain(at..at + count);
        }
        6 => {
            let count = length(random).min(bytes.len() - at);
            let copy = bytes[at..at + count].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, copy);
        }
        7 => {
            let fresh: Vec<u8> = (0..length(random).min(64)).map(|_| random.byte()).collect();
            bytes.splice(at..at, fresh);
        }
        8 => {
            let part = part(other, random);
            let until = (at + part.len()).min(bytes.len());
            bytes.splice(at..until, part.iter().copied());
        }
        _ => {
            let part = part(other, random);
            bytes.splice(at..at, part.iter().copied());
        }
    }
}

/// Mostly short.
fn length(random: &mut Random) -> usize {
    let most = 1 << random.below(9);
    1 + random.below(most)
}

fn part<'a>(other: &'a [u8], random: &mut Random) -> &'a [u8] {
    let start = random.below(other.len());
    let until = (start + length(random)).min(other.len());
    &other[start..until]
}
