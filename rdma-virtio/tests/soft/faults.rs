//! Faults put upon a soft link: what is lost, doubled, overtaken and flipped, and that it adds up.

use std::time::Duration;

use proptest::prelude::*;
use roceway_rdma_virtio::nic::fault::{FaultCounters, FaultOptions, FaultyNic};
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{Nic, WcStatus};

use crate::world::{Side, link, pattern};

/// A plain side that sends and a faulty one that receives.
fn faulty_pair(options: FaultOptions) -> (Side<SoftNic>, Side<FaultyNic<SoftNic>>) {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).unwrap();
    let mut left = Side::new(left, 4);
    let mut right = Side::new(FaultyNic::new(right, options).unwrap(), 64);
    link(&mut left, &mut right);
    (left, right)
}

/// An IPv4 frame behind an empty virtio-net header, its number in the payload.
fn frame(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = pattern(number, length.max(64));
    bytes[..12].fill(0);
    bytes[24..26].copy_from_slice(&0x0800_u16.to_be_bytes());
    bytes[26..34].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends numbered frames and returns what arrives, each with its counters' sums checked.
fn run(options: FaultOptions, count: u64, length: usize) -> (Vec<Vec<u8>>, FaultCounters) {
    let (mut left, mut right) = faulty_pair(options);
    let mut arrived = Vec::new();
    for number in 0..count {
        left.send_bytes(0, &frame(number, length), number).unwrap();
        arrived.extend(std::iter::from_fn(|| right.receive()));
        left.completions();
        sums_hold(&right);
    }
    std::thread::sleep(Duration::from_millis(11));
    right.maintain();
    arrived.extend(std::iter::from_fn(|| right.receive()));
    sums_hold(&right);
    assert_eq!(right.nic.counters().held, 0);
    assert_eq!(right.nic.counters().received, count);
    left.nic.check_conservation().unwrap();
    right.nic.inner().check_conservation().unwrap();
    (arrived, right.nic.counters())
}

fn sums_hold(side: &Side<FaultyNic<SoftNic>>) {
    let FaultCounters { received, duplicated, delivered, lost, lost_uncheckable, held, .. } =
        side.nic.counters();
    assert_eq!(received + duplicated, delivered + lost + lost_uncheckable + held);
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[26..34].try_into().unwrap())
}

#[test]
fn without_faults_nothing_changes() {
    let (arrived, counters) = run(FaultOptions::default(), 200, 5000);
    assert_eq!(arrived, (0..200).map(|number| frame(number, 5000)).collect::<Vec<_>>());
    assert_eq!(counters.delivered, 200);
}

#[test]
fn losses_are_those_of_the_seed() {
    let options = FaultOptions { loss: 0.3, seed: 5, ..FaultOptions::default() };
    let (first, counters) = run(options, 300, 100);
    let (second, _) = run(options, 300, 100);
    assert_eq!(first, second);
    assert!((60..120).contains(&counters.lost), "{}", counters.lost);
    let (other, _) = run(FaultOptions { seed: 6, ..options }, 300, 100);
    assert_ne!(first, other);
}

#[test]
fn duplicates_are_whole_copies_also_of_spanning_messages() {
    let options = FaultOptions { duplicate: 1.0, ..FaultOptions::default() };
    for length in [64, 9000] {
        let (arrived, counters) = run(options, 50, length);
        assert_eq!((counters.duplicated, counters.duplicates_skipped), (50, 0));
        for (number, pair) in arrived.chunks(2).enumerate() {
            let wanted = frame(u64::try_from(number).unwrap(), length);
            assert!(pair[0] == wanted && pair[1] == wanted, "{number}");
        }
    }
}

#[test]
fn reordered_messages_are_overtaken_by_few_and_none_is_lost() {
    let options = FaultOptions { reorder: 0.2, ..FaultOptions::default() };
    let (arrived, counters) = run(options, 500, 200);
    let numbers: Vec<u64> = arrived.iter().map(|bytes| number_of(bytes)).collect();
    assert!(counters.reordered > 50 && !numbers.is_sorted());
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    for (place, number) in numbers.iter().enumerate() {
        assert!(u64::try_from(place).unwrap().abs_diff(*number) <= 64, "{place} {number}");
    }
}

#[test]
fn corruption_flips_exactly_one_bit_behind_the_ethernet_header() {
    let options = FaultOptions { corrupt: 1.0, ..FaultOptions::default() };
    let (arrived, counters) = run(options, 100, 5000);
    assert_eq!((counters.corrupted, arrived.len()), (100, 100));
    for (number, bytes) in arrived.iter().enumerate() {
        let wanted = frame(u64::try_from(number).unwrap(), 5000);
        assert_eq!(bytes[..26], wanted[..26]);
        let flipped: u32 =
            bytes.iter().zip(&wanted).map(|(left, right)| (left ^ right).count_ones()).sum();
        assert_eq!(flipped, 1, "{number}");
    }
}

#[test]
fn a_delay_holds_messages_back_and_short_receives_release_them() {
    let options = FaultOptions { delay_ns: 30_000_000, ..FaultOptions::default() };
    let (mut left, mut right) = faulty_pair(options);
    right.maintain();
    left.send_bytes(0, &frame(1, 100), 1).unwrap();
    assert_eq!(right.receive(), None);
    assert!(matches!(right.nic.arm(), Ok(roceway_rdma_virtio::nic::Armed::Pending)));
    std::thread::sleep(Duration::from_millis(31));
    assert_eq!(right.receive(), None, "time is what maintain says");
    right.maintain();
    assert_eq!(right.receive(), Some(frame(1, 100)));
    // 64 receives and 200 messages: the early ones must come although their time has not.
    let mut arrived = 0;
    for number in 0..200 {
        left.send_bytes(0, &frame(number, 100), number).unwrap();
        while right.receive().is_some() {
            arrived += 1;
        }
        left.completions();
    }
    assert!(arrived > 100 && right.nic.counters().released_early > 100);
    sums_hold(&right);
}

#[test]
fn sends_that_went_out_may_complete_in_error() {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).unwrap();
    let options = FaultOptions { send_error: 0.5, ..FaultOptions::default() };
    let mut left = Side::new(FaultyNic::new(left, options).unwrap(), 4);
    let mut right = Side::new(right, 64);
    link(&mut left, &mut right);
    let mut errors = 0;
    for number in 0..100 {
        left.send_bytes(0, &frame(number, 200), number).unwrap();
        assert!(right.receive().is_some());
        let done = left.completions();
        assert_eq!(done.len(), 1);
        errors += u64::from(done[0] == (number, WcStatus::General));
    }
    assert!((30..70).contains(&errors));
    assert_eq!(left.nic.counters().send_errors, errors);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_faults_together_conserve(
        rates in proptest::array::uniform4(0.0..0.4_f64),
        seed in any::<u64>(),
        length in 64..20_000_usize,
    ) {
        let [loss, duplicate, reorder, corrupt] = rates;
        let options = FaultOptions {
            loss, duplicate, reorder, corrupt, seed, ..FaultOptions::default()
        };
        let (arrived, counters) = run(options, 60, length);
        prop_assert_eq!(u64::try_from(arrived.len()).unwrap(), counters.delivered);
        prop_assert!(arrived.iter().all(|bytes| bytes.len() == length));
    }
}
