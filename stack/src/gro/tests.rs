//! What is joined, what is not, and that nothing is lost, doubled or reordered.

use std::vec::Vec;

use super::*;
use crate::heap_memory::{HeapLimits, HeapMemory};

const MSS: usize = 1000;

/// A segment of a flow, changed by `change` before its checksums are made.
fn segment(v6: bool, seq: u32, len: usize, change: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
    let tcp = if v6 { 54 } else { 34 };
    let mut bytes = std::vec![0; tcp + 32];
    if v6 {
        bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        bytes[20..22].copy_from_slice(&[6, 64]);
        bytes[23] = 1;
        bytes[53] = 2;
    } else {
        bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
        bytes[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    }
    bytes[tcp..tcp + 4].copy_from_slice(&[0, 80, 0, 99]);
    bytes[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    bytes[tcp + 11] = 7;
    bytes[tcp + 12..tcp + 16].copy_from_slice(&[0x80, 0x10, 1, 0]);
    bytes[tcp + 20..tcp + 24].copy_from_slice(&[1, 1, 8, 10]);
    bytes[tcp + 27] = 5;
    let first = usize::try_from(seq).unwrap();
    bytes.extend((first..first + len).map(|at| (at % 251).to_le_bytes()[0]));
    let total = u16::try_from(bytes.len() - if v6 { 54 } else { 14 }).unwrap();
    let place = if v6 { 18 } else { 16 };
    bytes[place..place + 2].copy_from_slice(&total.to_be_bytes());
    change(&mut bytes, tcp);
    if !v6 {
        let sum = Sum::of(&bytes[14..34]).checksum();
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let addresses = if v6 { 22..54 } else { 26..34 };
    let length = u16::try_from(bytes.len() - tcp).unwrap();
    let sum = Sum::of(&bytes[addresses]).plus(Sum::of_u16(6)).plus(Sum::of_u16(length));
    let sum = sum.plus(Sum::of(&bytes[tcp..])).checksum();
    bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn plain(v6: bool, seq: usize, len: usize) -> Vec<u8> {
    segment(v6, u32::try_from(seq).unwrap(), len, |_, _| ())
}

/// What comes out of a burst: each frame's bytes, put together, and its segment size.
fn pass(burst: &[Vec<u8>], checksum: RxChecksum) -> (Vec<(Vec<u8>, u16)>, u64) {
    let mut mem = HeapMemory::new(HeapLimits::default());
    let mut gro = Gro::default();
    let mut out = Vec::new();
    let mut take = |gro: &mut Gro, mem: &mut HeapMemory| {
        if let Some((pieces, _, size)) = gro.release() {
            let bytes: Vec<u8> = pieces.iter().flat_map(|it| mem.bytes(*it).to_vec()).collect();
            pieces.iter().for_each(|piece| mem.release(piece.slot));
            out.push((bytes, size));
        }
    };
    let mut alone = Vec::new();
    for bytes in burst {
        let pieces = [mem.receive(bytes).unwrap()];
        let frame = RxFrame { pieces: &pieces, checksum, gso_size: 0 };
        let joined = if Gro::is_candidate(&frame) { gro.join(&frame, &mem) } else { Joined::No };
        if joined != Joined::Yes {
            take(&mut gro, &mut mem);
        }
        if joined == Joined::No && !(Gro::is_candidate(&frame) && gro.hold(&frame, &mem)) {
            alone.push(bytes.clone());
            mem.release(pieces[0].slot);
        }
    }
    take(&mut gro, &mut mem);
    assert_eq!(mem.live_slots(), 0);
    out.extend(alone.into_iter().map(|bytes| (bytes, 0)));
    (out, gro.joined())
}

#[test]
fn segments_in_order_become_one_whose_headers_are_right() {
    for v6 in [false, true] {
        for checksum in [RxChecksum::Unknown, RxChecksum::Valid, RxChecksum::Partial] {
            let burst: Vec<Vec<u8>> = (0..5).map(|n| plain(v6, n * MSS, MSS)).collect();
            let (out, joined) = pass(&burst, checksum);
            assert_eq!((out.len(), joined, out[0].1), (1, 4, 1000), "{v6} {checksum:?}");
            let whole = plain(v6, 0, 5 * MSS);
            let tcp = if v6 { 54 } else { 34 };
            // The headers of the first, and all payload.
            let header = tcp + 32;
            assert_eq!(out[0].0[..header], burst[0][..header]);
            assert_eq!(out[0].0[header..], whole[header..]);
        }
    }
}

#[test]
fn a_push_or_a_short_segment_ends_it_and_is_kept() {
    let push = |seq: u32| segment(false, seq, MSS, |b, tcp| b[tcp + 13] |= PUSH);
    let (out, _) =
        pass(&[plain(false, 0, MSS), push(1000), plain(false, 2000, MSS)], RxChecksum::Unknown);
    assert_eq!(out.len(), 2);
    assert_eq!(out[0].0.len(), 66 + 2 * MSS);
    let (out, _) = pass(
        &[plain(false, 0, MSS), plain(false, 1000, 400), plain(false, 1400, MSS)],
        RxChecksum::Valid,
    );
    assert_eq!((out[0].0.len(), out[1].0.len()), (66 + 1400, 66 + MSS));
    let (out, joined) = pass(&[push(0), plain(false, 1000, MSS)], RxChecksum::Valid);
    assert_eq!((out.len(), joined), (2, 0), "nothing follows a push");
}

#[test]
fn whatever_differs_is_not_joined() {
    type Change = fn(&mut Vec<u8>, usize);
    let rows: [(&str, Change); 14] = [
        ("another sequence number", |b, tcp| b[tcp + 7] ^= 1),
        ("acknowledgment", |b, tcp| b[tcp + 11] ^= 1),
        ("window", |b, tcp| b[tcp + 14] ^= 1),
        ("timestamp", |b, tcp| b[tcp + 27] ^= 1),
        ("option", |b, tcp| b[tcp + 20] = 2),
        ("port", |b, tcp| b[tcp] ^= 1),
        ("address", |b, _| b[27] ^= 1),
        ("mark of congestion", |b, _| b[15] |= 3),
        ("class", |b, _| b[15] |= 0x10),
        ("time to live", |b, _| b[22] ^= 1),
        ("fragment", |b, _| b[20] = 0x20),
        ("FIN", |b, tcp| b[tcp + 13] |= 1),
        ("CWR", |b, tcp| b[tcp + 13] |= 0x80),
        ("ECE", |b, tcp| b[tcp + 13] |= 0x40),
    ];
    for (name, change) in rows {
        let burst = [plain(false, 0, MSS), segment(false, 1000, MSS, change)];
        let (out, joined) = pass(&burst, RxChecksum::Unknown);
        assert_eq!((out.len(), joined), (2, 0), "{name}");
        assert_eq!(out[0].0, burst[0], "{name}");
    }
    let mut damaged = plain(false, 1000, MSS);
    *damaged.last_mut().unwrap() ^= 1;
    let (out, joined) = pass(&[plain(false, 0, MSS), damaged.clone()], RxChecksum::Unknown);
    assert_eq!((out.len(), joined), (2, 0), "damaged");
    let (out, _) = pass(&[damaged], RxChecksum::Unknown);
    assert_eq!(out.len(), 1, "damaged and first");
}

#[test]
fn the_longest_that_is_joined_is_bounded() {
    let burst: Vec<Vec<u8>> = (0..70).map(|n| plain(false, n * MSS, MSS)).collect();
    let (out, _) = pass(&burst, RxChecksum::Valid);
    let lengths: Vec<usize> = out.iter().map(|(bytes, _)| bytes.len() - 66).collect();
    assert_eq!(lengths, [32 * MSS, 32 * MSS, 6 * MSS]);
    let (out, joined) = pass(&[plain(false, 0, 20), plain(false, 20, 20)], RxChecksum::Valid);
    assert_eq!((out.len(), joined), (2, 0), "too short to be worth it");
}
