//! Reassembly against a naive version, and its limits.

use super::*;
use proptest::prelude::*;

const KEY: FragmentKey = FragmentKey {
    source: Ipv4Addr::new(10, 0, 0, 2),
    destination: Ipv4Addr::new(10, 0, 0, 1),
    protocol: 17,
    ident: 1,
};

fn limits() -> IpLimits {
    IpLimits { fragmented_datagrams: 4, fragment_bytes: 20_000, ..IpLimits::default() }
}

fn fragment(ident: u16, offset: u32, more: bool, bytes: &[u8]) -> Fragment<'_> {
    Fragment { key: FragmentKey { ident, ..KEY }, offset, more, ecn: 0, bytes }
}

fn give(table: &mut Reassembly, part: &Fragment<'_>) -> Stored {
    let stored = table.on_fragment(Instant::ZERO, part);
    let charged: u32 = table.datagrams.iter().map(Datagram::charge).sum();
    assert_eq!(table.bytes, charged);
    assert!(table.bytes <= table.bytes_max && table.datagrams.len() <= table.datagrams_max);
    stored
}

#[test]
fn overlaps_and_contradictions_give_the_datagram_up() {
    let rows = [
        ("the tail of the one before", (8, true, &[0; 16][..]), IpDrop::FragmentOverlap),
        ("the head of the next", (32, true, &[0; 16][..]), IpDrop::FragmentOverlap),
        ("all of another", (0, true, &[0; 64][..]), IpDrop::FragmentOverlap),
        ("the same place with other bytes", (0, true, &[9; 16][..]), IpDrop::FragmentOverlap),
        ("beyond the end", (64, true, &[0; 8][..]), IpDrop::FragmentMalformed),
        ("another end", (56, false, &[0; 4][..]), IpDrop::FragmentMalformed),
    ];
    for (name, (offset, more, bytes), reason) in rows {
        let mut table = Reassembly::new(&limits());
        for part in [
            fragment(1, 0, true, &[0; 16]),
            fragment(1, 40, true, &[0; 8]),
            fragment(1, 48, false, &[0; 4]),
        ] {
            assert_eq!(give(&mut table, &part), Stored::Waiting);
        }
        let stored = give(&mut table, &fragment(1, offset, more, bytes));
        assert_eq!(stored, Stored::Dropped(reason), "{name}");
        let rest = fragment(1, 16, true, &[0; 24]);
        let stored = give(&mut table, &rest);
        assert_eq!(stored, Stored::Dropped(IpDrop::FragmentOverlap), "{name}: what is left");
        assert_eq!(table.discarded, 3);
        assert_eq!(table.held(), 0);
    }
}

#[test]
fn fragments_that_cannot_be_are_dropped_alone() {
    let mut table = Reassembly::new(&limits());
    assert_eq!(give(&mut table, &fragment(1, 0, true, &[0; 16])), Stored::Waiting);
    for (name, part) in [
        ("no bytes", fragment(1, 16, true, &[])),
        ("not a multiple of 8", fragment(1, 16, true, &[0; 9])),
        ("beyond the longest datagram", fragment(1, 65_512, false, &[0; 8])),
    ] {
        let stored = give(&mut table, &part);
        assert_eq!(stored, Stored::Dropped(IpDrop::FragmentMalformed), "{name}");
    }
    let again = fragment(1, 0, true, &[0; 16]);
    assert_eq!(give(&mut table, &again), Stored::Dropped(IpDrop::FragmentDuplicate));
    assert!(matches!(give(&mut table, &fragment(1, 16, false, &[0; 1])), Stored::Whole(_)));
}

#[test]
fn the_oldest_datagram_goes_when_there_is_no_room() {
    let mut table = Reassembly::new(&limits());
    for ident in 0..5 {
        assert_eq!(give(&mut table, &fragment(ident, 0, true, &[0; 16])), Stored::Waiting);
    }
    assert_eq!((table.evictions, table.discarded), (1, 1));
    assert_eq!(give(&mut table, &fragment(9, 0, true, &[0; 16_000])), Stored::Waiting);
    assert_eq!(give(&mut table, &fragment(8, 0, true, &[0; 16_000])), Stored::Waiting);
    assert_eq!(table.held(), 1, "the big one displaced the others");
    let huge = [0; 32_000];
    let stored = give(&mut table, &fragment(7, 0, true, &huge));
    assert_eq!(stored, Stored::Dropped(IpDrop::FragmentLimit));
}

#[test]
fn a_datagram_of_too_many_fragments_is_given_up() {
    let mut table = Reassembly::new(&IpLimits::default());
    let mut last = Stored::Waiting;
    for n in 0..=u32::try_from(FRAGMENTS_MAX).unwrap() {
        assert_eq!(last, Stored::Waiting);
        last = give(&mut table, &fragment(1, n * 16, true, &[0; 8]));
    }
    assert_eq!(last, Stored::Dropped(IpDrop::FragmentLimit));
    assert_eq!(table.held(), 0);
}

#[test]
fn rfc_3168_5_3_one_congestion_mark_marks_the_datagram() {
    let mut table = Reassembly::new(&limits());
    let marked = Fragment { ecn: 3, ..fragment(1, 8, false, &[0; 8]) };
    assert_eq!(give(&mut table, &marked), Stored::Waiting);
    let Stored::Whole(whole) = give(&mut table, &fragment(1, 0, true, &[0; 8])) else {
        panic!("not whole")
    };
    assert_eq!(whole.ecn, 3);
}

proptest! {
    /// Every way to cut a payload and every order of the parts gives the payload back.
    #[test]
    fn any_cut_in_any_order_is_made_whole(
        payload in proptest::collection::vec(any::<u8>(), 1..4000),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        order in any::<u64>(),
        duplicates in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
    ) {
        let mut cuts: Vec<usize> =
            cuts.iter().map(|cut| cut.index(payload.len()) / 8 * 8).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts: Vec<(usize, usize)> =
            cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
        for duplicate in duplicates {
            parts.push(parts[duplicate.index(parts.len())]);
        }
        parts.sort_by_key(|(start, end)| (*start as u64 + 1).wrapping_mul(order) ^ *end as u64);
        let mut table = Reassembly::new(&limits());
        let mut whole = None;
        for (start, end) in parts {
            let offset = u32::try_from(start).unwrap();
            let part = fragment(1, offset, end < payload.len(), &payload[start..end]);
            if let Stored::Whole(found) = give(&mut table, &part) {
                prop_assert_eq!(&found.payload, &payload);
                whole = Some(found);
            }
        }
        prop_assert!(whole.is_some());
    }

    /// Whatever comes, a datagram that is called whole is what a naive buffer holds, in which the
    /// first byte to come stays.
    #[test]
    fn random_fragments_agree_with_a_naive_buffer(
        parts in proptest::collection::vec((0u32..8, 0usize..5, any::<bool>(), any::<u8>()), 1..30)
    ) {
        let mut table = Reassembly::new(&limits());
        let mut naive = [None; 128];
        for (offset, units, more, value) in parts {
            let bytes = std::vec![value; units * 8];
            let offset = offset * 8;
            match give(&mut table, &fragment(1, offset, more, &bytes)) {
                Stored::Whole(found) => {
                    for (at, byte) in bytes.iter().enumerate() {
                        naive[offset as usize + at] = Some(*byte);
                    }
                    let expected: Option<Vec<u8>> =
                        naive[..found.payload.len()].iter().copied().collect();
                    prop_assert_eq!(Some(found.payload), expected);
                    naive = [None; 128];
                }
                Stored::Waiting => {
                    for (at, byte) in bytes.iter().enumerate() {
                        prop_assert_eq!(naive[offset as usize + at], None, "an overlap");
                        naive[offset as usize + at] = Some(*byte);
                    }
                }
                Stored::Dropped(_) => {}
            }
        }
    }
}
