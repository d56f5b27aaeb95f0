//! Recovery against the RFCs, a naive model of the scoreboard, and a simulated lossy link.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::scoreboard::{Honesty, Scoreboard};
use super::*;
use crate::tcp::congestion::Algorithm;

const MSS: u32 = 1000;
/// Sequence numbers wrap in the middle of every test.
const BASE: SeqNum = SeqNum::new(u32::MAX - 5 * MSS);

fn seq(offset: u32) -> SeqNum {
    BASE.plus(offset)
}

fn block(start: u32, end: u32) -> SackBlock {
    SackBlock { start: seq(start), end: seq(end) }
}

/// A sender with its recovery, in units of bytes from `BASE`.
struct Sender {
    recovery: Recovery,
    congestion: Congestion,
    una: u32,
    nxt: u32,
    unsent: u32,
}

impl Sender {
    /// `in_flight` segments were sent and filled the window.
    fn new(sack: bool, in_flight: u32) -> Sender {
        let mut congestion = Congestion::new(Algorithm::NewReno, 1000, 1 << 20);
        while congestion.window() < in_flight * MSS {
            congestion.on_ack(&AckSample {
                now: Instant::ZERO,
                acked: MSS,
                srtt: Duration::ZERO,
                cwnd_limited: true,
            });
        }
        let recovery = Recovery::new(sack);
        Sender { recovery, congestion, una: 0, nxt: in_flight * MSS, unsent: 1 << 20 }
    }

    fn ack(&mut self, ack: u32, sack: &[SackBlock]) -> AckOutcome {
        let info = AckInfo {
            now: Instant::ZERO,
            snd_una: seq(self.una),
            snd_nxt: seq(self.nxt),
            ack: seq(ack),
            sack,
            is_duplicate: ack == self.una && self.una != self.nxt,
            mss: MSS,
            srtt: Duration::from_millis(1),
            cwnd_limited: true,
        };
        let outcome = self.recovery.on_ack(&info, &mut self.congestion);
        self.una = ack;
        outcome
    }

    fn see(&mut self, ack: u32, sack: &[SackBlock]) {
        let _outcome = self.ack(ack, sack);
    }

    fn timeout(&mut self) {
        self.recovery.on_timeout(seq(self.una), seq(self.nxt), &mut self.congestion);
    }

    fn poll(&self) -> Option<SendGrant> {
        self.recovery.poll_send(&SendRequest {
            snd_una: seq(self.una),
            snd_nxt: seq(self.nxt),
            mss: MSS,
            unsent: self.unsent,
            window: self.congestion.window(),
        })
    }

    /// Sends one segment if it may; returns its first byte and kind.
    fn send(&mut self) -> Option<(u32, SendKind)> {
        let grant = self.poll()?;
        if grant.kind == SendKind::New && grant.limit < MSS {
            // Silly-window avoidance, which is the sender's.
            return None;
        }
        let len = grant.limit.min(MSS);
        self.recovery.on_sent(grant.from, len, grant.kind);
        if grant.kind == SendKind::New {
            assert_eq!(grant.from, seq(self.nxt));
            self.nxt += len;
            self.unsent -= len;
        }
        Some((BASE.distance_to(grant.from), grant.kind))
    }

    fn send_all(&mut self) -> Vec<(u32, SendKind)> {
        core::iter::from_fn(|| self.send()).collect()
    }

    fn pipe(&self) -> u32 {
        self.recovery.pipe(seq(self.una), seq(self.nxt))
    }
}

use SendKind::{New, Rescue, Retransmission};

#[test]
fn an_undisturbed_flow_stays_clean() {
    let mut it = Sender::new(true, 20);
    assert!(it.recovery.is_open_and_clean());
    assert_eq!(it.send_all(), []);
    let outcome = it.ack(2 * MSS, &[]);
    assert_eq!(outcome, AckOutcome::default());
    assert!(it.recovery.is_open_and_clean());
    assert_eq!(it.send_all().len(), 4);
}

#[test]
fn rfc6675_5_three_reports_start_fast_recovery() {
    let mut it = Sender::new(true, 20);
    // The first segment is lost; limited transmit sends one for each that is reported.
    for n in 1..3 {
        let outcome = it.ack(0, &[block(MSS, (1 + n) * MSS)]);
        assert_eq!((outcome.event, outcome.newly_sacked), (RecoveryEvent::None, MSS));
        assert_eq!(it.send_all(), [((19 + n) * MSS, New)]);
    }
    let outcome = it.ack(0, &[block(MSS, 4 * MSS)]);
    assert_eq!(outcome.event, RecoveryEvent::Entered);
    // FlightSize without what limited transmit sent (RFC 5681 §3.2).
    assert_eq!(it.congestion.ssthresh(), 10 * MSS);
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    // 22 outstanding, less 3 reported and 1 lost, and 1 again.
    assert_eq!(it.pipe(), 19 * MSS);
    // Each further report takes a segment from the pipe, until there is room below the window.
    for n in 4..13 {
        assert_eq!(it.ack(0, &[block(MSS, (1 + n) * MSS)]).event, RecoveryEvent::None);
        assert_eq!(it.send_all(), []);
    }
    assert_eq!(it.pipe(), 10 * MSS);
    it.see(0, &[block(MSS, 14 * MSS)]);
    assert_eq!(it.send_all(), [(22 * MSS, New)]);
    assert_eq!(it.ack(22 * MSS, &[]).event, RecoveryEvent::Exited);
    assert!(it.recovery.is_open_and_clean());
    assert_eq!(it.congestion.window(), 10 * MSS);
}

#[test]
fn rfc6675_4_is_lost_needs_three_ranges_or_more_than_two_segments() {
    for (blocks, lost) in [
        (&[block(1000, 2000)][..], None),
        (&[block(1000, 2000), block(3000, 4000)], None),
        (&[block(1000, 2000), block(3000, 4000), block(5000, 5001)], Some(1000)),
        (&[block(1000, 3000)], None),
        (&[block(1000, 3001)], Some(1000)),
        (&[block(1000, 2000), block(3000, 5001)], Some(3000)),
        (&[block(1000, 2000), block(3000, 4000), block(5000, 6001)], Some(3000)),
    ] {
        let mut board = Scoreboard::new();
        let _update = board.update(seq(0), seq(10_000), blocks);
        assert_eq!(board.lost_before(MSS), lost.map(seq), "{blocks:?}");
    }
}

#[test]
fn rfc6675_4_next_seg_takes_lost_then_new_then_doubtful_then_rescue() {
    let mut it = Sender::new(true, 20);
    // Lost: 0, 2, 4. Doubtful: 16, as only two segments above it are reported.
    let sack = [block(5000, 16_000), block(17_000, 19_000), block(3000, 4000), block(1000, 2000)];
    assert_eq!(it.ack(0, &sack).event, RecoveryEvent::Entered);
    it.unsent = MSS;
    assert_eq!(
        it.send_all(),
        [
            (0, Retransmission),
            (2000, Retransmission),
            (4000, Retransmission),
            (20_000, New),
            (16_000, Retransmission),
        ]
    );
    // The cumulative acknowledgment passes the first retransmission: one rescue, of the tail.
    assert_eq!(it.ack(2000, &sack).event, RecoveryEvent::PartialAck);
    assert_eq!(it.send_all(), [(20_000, Rescue)]);
    it.see(4000, &sack[..2]);
    assert_eq!(it.send_all(), []);
}

#[test]
fn rfc6675_5_step_c_doubtful_bytes_and_rescues_wait_for_room_too() {
    let mut it = Sender::new(true, 20);
    it.unsent = 0;
    // Lost: 0. Doubtful: from 4000 to 17,000. 15 segments and the resent one fill the pipe.
    let sack = [block(17_000, 18_000), block(1000, 4000)];
    assert_eq!(it.ack(0, &sack).event, RecoveryEvent::Entered);
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    assert_eq!((it.pipe(), it.congestion.window()), (16 * MSS, 10 * MSS));
    // The cumulative acknowledgment leaves 15 in the pipe: no room for a rescue either.
    assert_eq!(it.ack(4000, &sack[..1]).event, RecoveryEvent::PartialAck);
    assert_eq!(it.send_all(), []);
}

#[test]
fn rfc6675_5_1_a_timeout_resends_all_that_is_not_reported() {
    let mut it = Sender::new(true, 10);
    it.see(0, &[block(2000, 4000), block(6000, 7000)]);
    it.timeout();
    assert_eq!(it.congestion.window(), MSS);
    assert_eq!(it.recovery.state(), RecoveryState::Loss { point: seq(10_000) });
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    assert_eq!(it.ack(1000, &[]).event, RecoveryEvent::PartialAck);
    assert_eq!(it.send_all(), [(1000, Retransmission), (4000, Retransmission)]);
    it.see(4000, &[]);
    it.see(5000, &[]);
    assert_eq!(
        it.send_all(),
        [
            (5000, Retransmission),
            (7000, Retransmission),
            (8000, Retransmission),
            (9000, Retransmission),
        ]
    );
    // Duplicate acknowledgements do not start fast recovery before the point is reached.
    for n in 0..5 {
        assert_eq!(it.ack(5000, &[block(8000, 8001 + n)]).event, RecoveryEvent::None);
    }
    assert_eq!(it.ack(10_000, &[]).event, RecoveryEvent::Exited);
    assert!(it.recovery.is_open_and_clean());
}

#[test]
fn rfc5681_3_1_a_second_timeout_in_a_row_keeps_ssthresh_and_forgets_sack() {
    let mut it = Sender::new(true, 10);
    it.see(0, &[block(2000, 4000)]);
    it.timeout();
    let ssthresh = it.congestion.ssthresh();
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    it.timeout();
    assert_eq!(it.congestion.ssthresh(), ssthresh);
    assert_eq!(it.recovery.sacked(), 0);
    assert_eq!(it.send_all(), [(0, Retransmission)]);
}

#[test]
fn rfc2018_8_reneging_is_noticed_and_forgotten() {
    let mut it = Sender::new(true, 10);
    it.see(0, &[block(2000, 4000), block(6000, 7000)]);
    it.timeout();
    it.send_all();
    let outcome = it.ack(2000, &[]);
    assert!(outcome.reneged);
    assert_eq!(it.recovery.sacked(), 0);
    // The reported bytes are sent again.
    assert_eq!(it.send_all(), [(2000, Retransmission), (3000, Retransmission)]);
}

#[test]
fn a_lying_receiver_is_not_believed() {
    let mut it = Sender::new(true, 10);
    it.see(1000, &[]);
    let nonsense = [
        block(1000, 2000),   // begins at SND.UNA: it would be acknowledged
        block(9000, 10_001), // ends after SND.NXT
        block(20_000, 30_000),
        block(5000, 5000), // empty
        block(6000, 5000), // backwards
        SackBlock { start: seq(2000), end: seq(2000).plus(1 << 31) },
        SackBlock { start: seq(2000).minus(1 << 31), end: seq(3000) },
    ];
    for chunk in nonsense.chunks(4) {
        let outcome = it.ack(1000, chunk);
        assert_eq!(usize::from(outcome.blocks_ignored), chunk.len());
        assert_eq!(outcome.newly_sacked, 0);
    }
    // D-SACK (RFC 2883) is none of these.
    let outcome = it.ack(1000, &[block(0, 1000)]);
    assert_eq!(outcome.blocks_ignored, 0);
    assert!(it.recovery.is_open_and_clean());
}

#[test]
fn the_scoreboard_is_bounded() {
    let mut it = Sender::new(true, 900);
    let mut ignored = 0;
    for n in 1..400 {
        ignored += u32::from(it.ack(0, &[block(n * 2000, n * 2000 + 1000)]).blocks_ignored);
    }
    assert_eq!(ignored, 399 - 128);
    assert_eq!(it.recovery.sacked(), 128_000);
}

#[test]
fn rfc6582_new_reno_resends_one_hole_a_partial_acknowledgement() {
    let mut it = Sender::new(false, 20);
    // RFC 3042: limited transmit.
    for n in 1..3 {
        assert_eq!(it.ack(0, &[]).event, RecoveryEvent::None);
        assert_eq!(it.send_all(), [((19 + n) * MSS, New)]);
    }
    assert_eq!(it.ack(0, &[]).event, RecoveryEvent::Entered);
    assert_eq!(it.congestion.window(), 10 * MSS);
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    // 22 outstanding, window 10, inflated by 3: room after 10 more duplicates.
    for _ in 0..9 {
        it.see(0, &[]);
        assert_eq!(it.send_all(), []);
    }
    it.see(0, &[]);
    assert_eq!(it.send_all(), [(22_000, New)]);
    // Segment 5 is lost as well.
    assert_eq!(it.ack(5000, &[]).event, RecoveryEvent::PartialAck);
    let sent = it.send_all();
    assert_eq!(sent[0], (5000, Retransmission));
    assert!(sent[1..].iter().all(|it| it.1 == New) && sent.len() <= 2, "{sent:?}");
    assert_eq!(it.ack(22_000, &[]).event, RecoveryEvent::Exited);
    assert!(it.congestion.window() <= 10 * MSS);
    // RFC 6582 §3.2 step 1: duplicates at the recovery point may be our own echoes.
    it.send_all();
    for _ in 0..5 {
        assert_eq!(it.ack(22_000, &[]).event, RecoveryEvent::None);
    }
    it.see(23_000, &[]);
    assert!(it.recovery.is_open_and_clean());
}

#[test]
fn rfc6582_a_timeout_goes_back_to_the_first_byte() {
    let mut it = Sender::new(false, 10);
    it.timeout();
    assert_eq!(it.send_all(), [(0, Retransmission)]);
    it.see(1000, &[]);
    assert_eq!(it.send_all(), [(1000, Retransmission), (2000, Retransmission)]);
    it.see(10_000, &[]);
    assert_eq!(it.recovery.state(), RecoveryState::Open);
}

#[test]
fn forged_duplicate_acknowledgements_open_no_more_than_the_flight() {
    let mut it = Sender::new(false, 20);
    for _ in 0..100_000 {
        it.see(0, &[]);
    }
    let sent = it.send_all().len();
    // Each segment in flight can have produced one duplicate; the window bounds the rest.
    assert!(sent <= 1 + 22, "{sent}");
}

#[test]
fn a_connection_s_recovery_and_congestion_are_small() {
    assert!(size_of::<Recovery>() <= 96, "{}", size_of::<Recovery>());
    assert!(size_of::<Congestion>() <= 96, "{}", size_of::<Congestion>());
}

/// The scoreboard as a set of bytes.
#[derive(Default)]
struct NaiveBoard {
    bytes: BTreeSet<u32>,
}

impl NaiveBoard {
    fn update(&mut self, una: u32, nxt: u32, (start, end): (u32, u32)) -> u32 {
        if start <= una || end > nxt || start >= end {
            return 0;
        }
        let before = self.bytes.len();
        self.bytes.extend(start..end);
        u32::try_from(self.bytes.len() - before).unwrap()
    }

    fn lost_before(&self, mss: u32) -> Option<u32> {
        let mut ranges: Vec<(u32, u32)> = vec![];
        for byte in &self.bytes {
            match ranges.last_mut() {
                Some((_, end)) if *end == *byte => *end += 1,
                _ => ranges.push((*byte, byte + 1)),
            }
        }
        (0..ranges.len()).rev().find_map(|first| {
            let above = &ranges[first..];
            let bytes: u32 = above.iter().map(|(start, end)| end - start).sum();
            (above.len() >= 3 || bytes > 2 * mss).then_some(ranges[first].0)
        })
    }

    fn missing(&self, from: u32, to: u32) -> Vec<u32> {
        (from..to).filter(|it| !self.bytes.contains(it)).collect()
    }
}

proptest! {
    #[test]
    fn the_scoreboard_agrees_with_a_set_of_bytes(
        base in any::<u32>(),
        steps in prop::collection::vec((0_u32..300, 0_u32..40, 0_u32..4), 1..60),
    ) {
        let at = |offset: u32| SeqNum::new(base).plus(offset);
        let mut board = Scoreboard::new();
        let mut naive = NaiveBoard::default();
        let mut una = 0;
        let nxt = 280;
        for (start, len, advance) in steps {
            let end = start + len;
            let sack = SackBlock { start: at(start), end: at(end) };
            let update = board.update(at(una), at(nxt), &[sack]);
            prop_assert_eq!(update.newly_sacked, naive.update(una, nxt, (start, end)));
            if advance == 0 {
                una = (una + len).min(nxt);
                naive.bytes.retain(|it| *it >= una);
                let reneged = naive.bytes.contains(&una);
                prop_assert_eq!(board.on_advance(at(una)) == Honesty::Reneged, reneged);
                if reneged {
                    naive.bytes.clear();
                }
            }
            prop_assert_eq!(board.bytes() as usize, naive.bytes.len());
            prop_assert_eq!(board.lost_before(10), naive.lost_before(10).map(at));
            let missing = naive.missing(start.min(nxt), nxt);
            prop_assert_eq!(board.missing(at(start.min(nxt)), at(nxt)) as usize, missing.len());
            let gap = board.gap(at(start.min(nxt)), at(nxt));
            prop_assert_eq!(gap.map(|it| it.start), missing.first().map(|it| at(*it)));
            for range in board.ranges() {
                prop_assert!(range.start.before(range.end) && range.start.after(at(una)));
            }
        }
    }
}

/// A receiver that acknowledges each segment at once.
#[derive(Default)]
struct Receiver {
    nxt: u32,
    held: BTreeSet<u32>,
    latest: Vec<u32>,
}

impl Receiver {
    fn receive(&mut self, segment: u32) -> (u32, Vec<SackBlock>) {
        if segment >= self.nxt {
            self.held.insert(segment);
            self.latest.retain(|it| *it != segment);
            self.latest.insert(0, segment);
            self.latest.truncate(8);
        }
        while self.held.remove(&self.nxt) {
            self.nxt += MSS;
        }
        let mut blocks: Vec<SackBlock> = vec![];
        for first in self.latest.iter().filter(|it| self.held.contains(it)) {
            let (mut start, mut end) = (*first, *first + MSS);
            while self.held.contains(&end) {
                end += MSS;
            }
            while start >= MSS && self.held.contains(&(start - MSS)) {
                start -= MSS;
            }
            if !blocks.contains(&block(start, end)) && blocks.len() < 3 {
                blocks.push(block(start, end));
            }
        }
        (self.nxt, blocks)
    }
}

/// Moves `segments` over a link that drops and reorders; returns transmissions and timeouts.
fn transfer(sack: bool, segments: u32, drop_one_in: u64, mut seed: u64) -> (u32, u32) {
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        seed >> 33
    };
    let mut it = Sender::new(sack, 0);
    it.unsent = segments * MSS;
    let mut receiver = Receiver::default();
    let mut forward: VecDeque<u32> = VecDeque::new();
    let mut back: VecDeque<(u32, Vec<SackBlock>)> = VecDeque::new();
    let (mut transmissions, mut timeouts) = (0, 0);
    while it.una < segments * MSS {
        while let Some((first, _)) = it.send() {
            transmissions += 1;
            assert!(transmissions < 4 * segments + 100, "it never stops sending");
            if random() % drop_one_in != 0 {
                let place = forward.len() - usize::from(!forward.is_empty() && random() % 50 == 0);
                forward.insert(place, first);
            }
        }
        if let Some(segment) = forward.pop_front() {
            let reply = receiver.receive(segment);
            if random() % drop_one_in != 0 {
                back.push_back(reply);
            }
        }
        if forward.len() < 3 || random() % 3 == 0 {
            if let Some((ack, blocks)) = back.pop_front() {
                if ack >= it.una {
                    let _outcome = it.ack(ack, if sack { &blocks } else { &[] });
                }
            } else if forward.is_empty() {
                timeouts += 1;
                it.timeout();
            }
        }
        assert!(timeouts < segments, "no progress");
    }
    assert_eq!(receiver.nxt, segments * MSS);
    (transmissions, timeouts)
}

#[test]
fn transfers_end_whatever_is_lost() {
    for sack in [true, false] {
        for drop_one_in in [1_000_000, 100, 20, 5] {
            for seed in 0..50 {
                transfer(sack, 600, drop_one_in, seed);
            }
        }
    }
}

#[test]
fn sack_needs_few_timeouts_and_few_needless_retransmissions() {
    let (mut transmissions, mut timeouts) = (0, 0);
    for seed in 0..50 {
        let (sent, expired) = transfer(true, 2000, 100, seed);
        transmissions += sent;
        timeouts += expired;
    }
    // One percent is lost: at least 1.01 a segment.
    assert!(transmissions < 50 * 2000 * 103 / 100, "{transmissions} transmissions");
    assert!(timeouts < 50 * 3, "{timeouts} timeouts");
}
