//! A hostile peer: it greets with nonsense, writes garbage into its ring and progress, rewrites
//! what it sent, and talks rubbish on the socket. Each is refused or dropped and counted, and the
//! NIC goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::channel::{Incoming, WORDS_LEN_MAX};
use super::greeting::{Greeting, Word};
use super::hostile::{Hostile, Show, TX_LEN, Victim, linked};
use super::layout::{Element, REVOKED, sequence_of};
use super::*;
use crate::nic::{Offload, Sge, WcStatus};

fn refusal(change: impl FnOnce(&mut Greeting), how: Show) -> String {
    let (left, right) = Channel::pair().unwrap();
    let (mut victim, hostile) = (Victim::new(left), Hostile::new(right));
    assert_eq!(victim.maintain().unwrap(), None);
    let mut greeting = hostile.greeting();
    change(&mut greeting);
    hostile.show(&greeting.encode(), how);
    let error = victim.maintain().unwrap_err();
    assert!(!victim.nic.is_up());
    assert_eq!(victim.nic.counters().peers_refused, 1);
    // The peer is told, after our own greeting.
    let mut bytes = [0; WORDS_LEN_MAX];
    assert!(matches!(hostile.channel.receive(&mut bytes), Ok(Incoming::Message(..))));
    assert!(matches!(hostile.channel.receive(&mut bytes), Ok(Incoming::Message(..))));
    assert_eq!(Word::of(&bytes), Some(Word::Refused));
    error.to_string()
}

#[test]
fn greetings_that_do_not_match_their_memory_are_refused() {
    type Change = fn(&mut Greeting);
    let rows: [(&str, Change, Show); 14] = [
        ("lacks seals", |_| (), Show::LinkUnsealed),
        ("lacks seals", |_| (), Show::TxUnsealed),
        ("1 descriptors came", |_| (), Show::OneFdTooFew),
        ("3 descriptors came", |_| (), Show::OneFdTooMany),
        ("F_GET_SEALS", |_| (), Show::PipesForMemory),
        ("100 slots", |it| it.slots = 100, Show::Properly),
        ("0 slots", |it| it.slots = 0, Show::Properly),
        ("slots", |it| it.slots = 1 << 31, Show::Properly),
        ("link memory is", |it| it.slots = 128, Show::Properly),
        ("link memory is", |it| it.bounce_len = 1 << 20, Show::Properly),
        ("announces", |it| it.bounce_len = u64::MAX, Show::Properly),
        ("bytes long, but it", |it| it.exports[0].file_len = 1 << 20, Show::Properly),
        ("leaves its memory", |it| it.exports[0].start = 1, Show::Properly),
        ("mtu=9000", |it| it.mtu = 9000, Show::Properly),
    ];
    for (wanted, change, how) in rows {
        let found = refusal(change, how);
        assert!(found.contains(wanted), "{wanted}: {found}");
    }
    assert!(refusal(|it| it.frames = true, Show::Properly).contains("tso=on"));
}

#[test]
fn rubbish_on_the_socket_ends_the_connection() {
    for bytes in [&[99_u8][..], &[1, 2, 3], &[0; 300]] {
        let (mut victim, hostile) = linked();
        hostile.channel.send(bytes, &[]).unwrap();
        assert!(victim.maintain().is_err());
        assert!(!victim.nic.is_up());
    }
}

fn element(region: u8, offset: u32, length: u32) -> u64 {
    Element { region, offset, length }.encode()
}

#[test]
fn messages_that_make_no_sense_are_dropped_and_the_next_one_arrives() {
    let tx_len = u32::try_from(TX_LEN).unwrap();
    let one = |length: u64| length | 1 << 32;
    let rows: [(&str, u64, &[u64], u64); 13] = [
        ("no bytes", 0, &[], 1),
        ("one too many for the slot", 113, &[], 1),
        ("inline of four gigabytes", u64::from(u32::MAX), &[], 1),
        ("unknown bits", 79 | 1 << 50, &[], 1),
        ("all bits", u64::MAX, &[], 1),
        ("too many elements", 200 | 33 << 32, &[], 1),
        ("elements of another sum", one(201), &[element(0, 0, 200)], 1),
        ("an empty element", 200 | 2 << 32, &[element(0, 0, 200), element(0, 9, 0)], 1),
        ("one byte beyond", one(200), &[element(0, tx_len - 199, 200)], 1),
        ("far beyond", one(200), &[element(0, u32::MAX, 200)], 1),
        ("a region that is not shown", one(200), &[element(1, 0, 200)], 1),
        ("a bounce area that is not there", one(200), &[element(255, 0, 200)], 1),
        ("longer than a message", one(65_563), &[element(0, 0, 65_536)], 1),
    ];
    let (mut victim, mut hostile) = linked();
    for (number, (name, description, words, slots)) in rows.iter().enumerate() {
        hostile.put(*description, words, *slots);
        hostile.put(79, &[1, 2, 3], 1);
        assert_eq!(victim.poll(), 1, "{name}");
        let dropped = victim.nic.counters().drop_malformed;
        assert_eq!(dropped, u64::try_from(number).unwrap() + 1, "{name}");
    }
}

#[test]
fn a_sequence_that_is_not_the_next_one_is_no_message() {
    let (mut victim, hostile) = linked();
    for sequence in [sequence_of(1), sequence_of(63), u64::MAX, 0, 1, sequence_of(64)] {
        hostile.slot(0).description().store(79, Ordering::Relaxed);
        hostile.slot(0).sequence().store(sequence, Ordering::Release);
        assert!(!victim.nic.recv_ready(), "{sequence:#x}");
        assert_eq!(victim.poll(), 0);
    }
    // The next one, but taken back.
    hostile.slot(0).sequence().store(sequence_of(0) | REVOKED, Ordering::Release);
    assert_eq!(victim.poll(), 0);
    assert_eq!(victim.nic.counters().drop_revoked, 1);
}

#[test]
fn impossible_progress_is_not_believed() {
    let (mut victim, hostile) = linked();
    let sge = Sge { addr: victim.rx.addr(), length: 79, lkey: victim.rx_lkey };
    let wr = SendWr {
        wr_id: 7,
        sges: &[sge],
        signalled: true,
        inline: false,
        offload: Offload::default(),
    };
    assert_eq!(victim.nic.post_send(&wr), Ok(()));
    let mut out = [Completion {
        wr_id: 0,
        status: WcStatus::General,
        byte_len: 0,
        more: false,
        checksum: crate::nic::WcChecksum::Unknown,
    }];
    for value in [2, u64::MAX, 1 << 63] {
        hostile.set_consumed(value);
        assert_eq!(victim.nic.poll_send(&mut out), 0, "{value}");
    }
    hostile.set_consumed(1);
    assert_eq!(victim.nic.poll_send(&mut out), 1);
    assert_eq!((out[0].wr_id, out[0].status), (7, WcStatus::Success));
    hostile.set_consumed(0);
    assert_eq!(victim.nic.post_send(&wr), Ok(()));
    assert_eq!(victim.nic.poll_send(&mut out), 0);
    assert_eq!(victim.nic.counters().peer_progress_impossible, 4);
    victim.nic.check_conservation().unwrap();
}

#[test]
fn a_peer_that_rewrites_what_it_sends_harms_only_its_own_messages() {
    let (mut victim, mut hostile) = linked();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 88_172_645_463_325_252_u64;
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let position = random % 4 + sent.saturating_sub(2);
                let slot = hostile.slot(position);
                match random >> 60 {
                    0..6 => {
                        hostile.put((1 << 32) | ((random >> 8) % 200), &[element(0, 64, 150)], 1)
                    }
                    6..9 => hostile.put((random >> 8) % 128, &[random; 3], 1),
                    9 => slot.sequence().store(sequence_of(position) | REVOKED, Ordering::Release),
                    10 => slot.description().store(random, Ordering::Relaxed),
                    11 => slot.element(0).store(random, Ordering::Relaxed),
                    12 => slot.sequence().store(random, Ordering::Release),
                    _ => std::thread::yield_now(),
                }
                sent = hostile.head;
            }
        });
        let mut received = 0;
        for _ in 0..2000 {
            received += victim.poll();
            victim.maintain().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(victim.nic.counters().received, received);
    });
}

#[test]
fn a_message_that_is_taken_back_while_it_is_pulled_is_dropped_as_torn() {
    let name = "a_message_that_is_taken_back_while_it_is_pulled_is_dropped_as_torn";
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("SKIPPED {name}: one core cannot take back what it is pulling");
        return;
    }
    let (mut victim, mut hostile) = linked();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (hostile, next, stop) = (&mut hostile, &next, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let position = next.load(Ordering::Relaxed);
                let slot = hostile.slot(position);
                for number in 0..14 {
                    slot.element(number).store(element(0, 0, 100), Ordering::Relaxed);
                }
                slot.description().store(1400 | 14 << 32, Ordering::Relaxed);
                slot.sequence().store(sequence_of(position), Ordering::Release);
                std::hint::spin_loop();
                slot.sequence().store(sequence_of(position) | REVOKED, Ordering::Release);
            }
        });
        let end = Instant::now() + Duration::from_secs(120);
        while victim.nic.counters().drop_torn == 0 && Instant::now() < end {
            victim.poll_times(2);
            next.store(victim.nic.receiver.head(), Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(victim.nic.counters().drop_torn > 0, "{:?}", victim.nic.counters());
    victim.nic.check_conservation().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_content_of_a_slot_is_received_or_dropped(
        messages in proptest::collection::vec(
            (any::<u64>(), proptest::collection::vec(any::<u64>(), 14), 0..4_u8), 1..100
        )
    ) {
        let (mut victim, mut hostile) = linked();
        for (word, words, shape) in messages {
            // Bit patterns near to sense reach deeper than random ones.
            let description = match shape {
                0 => word,
                1 => word % 130,
                2 => (word % 70_000) | (((word >> 32) % 40) << 32),
                _ => (word % 70_000) | (1 << 32),
            };
            let words: Vec<u64> = match shape {
                3 => words.iter().map(|word| word & 0x0000_ffff_0000_ffff).collect(),
                _ => words,
            };
            let before = victim.nic.counters().taken;
            hostile.head = victim.nic.receiver.head();
            hostile.put(description, &words, 1);
            victim.poll();
            prop_assert_eq!(victim.nic.counters().taken, before + 1);
        }
    }
}
