//! Frames that the interface lends: each is posted again as it is, or becomes the caller's, and
//! nothing is lost or counted twice.

use roceway_rdma_virtio::memory::arena::ArenaConfig;
use roceway_rdma_virtio::memory::slot::{Piece, SlotClass};
use roceway_rdma_virtio::nic::Nic;
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::virtio::driver::Received;
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::interface::{Arrived, NetInterface};
use roceway_rdma_virtio::virtio::net_header::{GSO_TCPV4, NEEDS_CSUM, NetHeader};

use super::world::Side;

type Interface = NetInterface<SoftNic>;

const PLAIN: NetHeader = NetHeader { num_buffers: 0, ..NetHeader::RECEIVED };

fn config() -> ArenaConfig {
    ArenaConfig { small: 64, chunks: 32, receive: 64, ..ArenaConfig::default() }
}

/// Two interfaces on one link that is up, with receive queues of 16.
fn linked() -> (Interface, Interface) {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).unwrap();
    let new = |nic| NetInterface::new(nic, &config(), Features::ALL_OURS, 16).unwrap();
    let mut sides = [new(left), new(right)];
    for round in 1..1000 {
        for side in &mut sides {
            let _event = side.nic_mut().maintain(round * 1_000_000).unwrap();
        }
        if sides.iter().all(|side| side.nic().is_up()) {
            break;
        }
    }
    let [left, right] = sides;
    (left, right)
}

/// Sends a frame of `len` bytes that are all `byte`; whether it left at once.
fn send(side: &mut Interface, (byte, len): (u8, u32), header: &NetHeader) -> bool {
    let slot = side.memory().allocate(SlotClass::Small).unwrap();
    side.memory().bytes_mut(slot, 12, len).fill(byte);
    let sent = side.transmit_lent(Piece { slot, start: 12, len }, header);
    side.memory().release(slot);
    sent
}

/// An interface with a receive queue of 16, and a bare side that sends what it likes.
fn linked_to_a_bare_side(options: &SoftOptions) -> (Side<SoftNic>, Interface) {
    let (left, right) = SoftNic::pair(options).unwrap();
    let mut left = Side::new(left, 1);
    let mut right = NetInterface::new(right, &config(), Features::ALL_OURS, 16).unwrap();
    while !(left.nic.is_up() && right.nic().is_up()) {
        let _event = left.maintain();
        let _event = right.nic_mut().maintain(left.now_ns()).unwrap();
    }
    (left, right)
}

fn assert_whole(side: &Interface) {
    let (driver, device) = side.counters();
    let dropped = driver.rx_drop_short + driver.rx_drop_merge + driver.rx_drop_header;
    assert_eq!(driver.rx_returned, driver.rx_frames + dropped, "{driver:?}");
    assert_eq!(device.rx_messages, device.rx_passed + device.rx_drop_header, "{device:?}");
    let (_, with_nic) = side.work_in_flight();
    assert_eq!(driver.rx_posted - driver.rx_returned, u64::from(with_nic), "{driver:?}");
    assert_eq!(side.nic().check_conservation(), Ok(()));
}

#[test]
fn a_lent_frame_is_posted_again_or_kept_and_counted_once() {
    let (mut left, mut right) = linked();
    let mut frame = Received::default();
    let (mut held, mut bytes) = (Vec::new(), 0);
    for round in 0..1000_u32 {
        let (byte, len) = (round.to_le_bytes()[0], 14 + round % 80);
        assert!(send(&mut left, (byte, len), &PLAIN), "{round}");
        bytes += u64::from(len);
        let Arrived::Lent(lent) = right.look(&mut frame) else { panic!("{round}") };
        let seen = right.memory_ref().piece(lent.piece()).to_vec();
        assert_eq!(seen, vec![byte; usize::try_from(len).unwrap()], "{round}");
        match round % 5 {
            0 => {
                held.push(lent.piece());
                right.let_go(lent);
            }
            1 => {
                right.keep(lent, &mut frame);
                held.extend_from_slice(&frame.pieces);
            }
            _ => right.post_again(lent),
        }
        assert_whole(&right);
        if held.len() > 10 {
            held.drain(..).for_each(|piece| right.memory().release(piece.slot));
        }
        right.refill();
        assert!(matches!(right.look(&mut frame), Arrived::Nothing));
    }
    held.drain(..).for_each(|piece| right.memory().release(piece.slot));
    let (driver, _) = right.counters();
    assert_eq!((driver.rx_frames, driver.rx_bytes), (1000, bytes));
    let (_, with_nic) = right.work_in_flight();
    assert_eq!(right.memory().free_receive() + with_nic, config().receive);
}

#[test]
fn what_is_lent_was_checked_and_what_is_coalesced_is_not_lent() {
    let (mut left, mut right) = linked_to_a_bare_side(&SoftOptions::default());
    let mut frame = Received::default();
    let beyond = NetHeader { flags: NEEDS_CSUM, csum_start: 90, csum_offset: 16, ..PLAIN };
    let coalesced = NetHeader { gso_type: GSO_TCPV4, gso_size: 10, csum_start: 34, ..beyond };
    for round in 1..=100_u64 {
        for header in [beyond, coalesced] {
            left.write_tx(0, &header.encode());
            assert!(left.nic.post_send_short(left.tx_segment(0, 72)));
        }
        assert!(matches!(right.look(&mut frame), Arrived::Nothing), "{round}");
        assert_eq!(right.counters().0.rx_drop_header, round);
        assert!(matches!(right.look(&mut frame), Arrived::Frame), "{round}");
        assert_eq!(frame.header.gso_type, GSO_TCPV4);
        right.memory().release(frame.pieces[0].slot);
        assert_whole(&right);
        right.refill();
    }
}

/// A partial checksum behind an IPv4 header, as nearly all short frames have it.
const PARTIAL: NetHeader =
    NetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..PLAIN };

#[test]
fn what_is_known_of_a_buffer_that_was_lent_ends_when_it_leaves_the_queue() {
    let (mut left, mut right) = linked_to_a_bare_side(&SoftOptions::default());
    let mut frame = Received::default();
    let (mut held, mut dropped) = (Vec::new(), 0);
    for round in 0..3600_u32 {
        let (byte, len) = (round.to_le_bytes()[0], 60 + round % 40);
        // Now and then a frame that takes the buffer by another way.
        let (len, header) = match round % 11 {
            // Also any number of them, so that the buffer's turn comes again.
            _ if round % 60 < round / 60 => (400, PARTIAL),
            3 => (400, PARTIAL),
            5 => (len, PLAIN),
            7 => (len, NetHeader { csum_offset: 99, ..PARTIAL }),
            _ => (len, PARTIAL),
        };
        let message = [&header.encode()[..], &vec![byte; usize::try_from(len).unwrap()]].concat();
        if len == 400 {
            left.send_bytes(0, &message, u64::from(round)).unwrap();
        } else {
            left.write_tx(0, &message);
            assert!(left.nic.post_send_short(left.tx_segment(0, 12 + len)));
        }
        match right.look(&mut frame) {
            Arrived::Lent(lent) => {
                let seen = right.memory_ref().piece(lent.piece()).to_vec();
                assert_eq!(seen, vec![byte; usize::try_from(len).unwrap()], "{round}");
                assert_eq!(frame.header, NetHeader { num_buffers: 1, ..header }, "{round}");
                match round % 5 {
                    0 => {
                        held.push(lent.piece());
                        right.let_go(lent);
                    }
                    1 => {
                        right.keep(lent, &mut frame);
                        held.extend_from_slice(&frame.pieces);
                    }
                    _ => right.post_again(lent),
                }
            }
            Arrived::Frame => {
                assert_eq!(len, 400, "{round}");
                let seen = right.memory_ref().piece(frame.pieces[0]).to_vec();
                assert_eq!(seen, vec![byte; 400], "{round}");
                held.extend_from_slice(&frame.pieces);
            }
            Arrived::Nothing => {
                assert_eq!(header.csum_offset, 99, "{round}");
                dropped += 1;
            }
        }
        assert_eq!(right.counters().0.rx_drop_header, dropped);
        assert_whole(&right);
        // Heads and slots meet anew, for more slots than heads are under way.
        if held.len() > 40 {
            held.drain(..).for_each(|piece| right.memory().release(piece.slot));
        }
        right.refill();
        left.completions();
        assert!(matches!(right.look(&mut frame), Arrived::Nothing), "{round}");
    }
    assert!(dropped > 100);
}

#[test]
fn without_checksums_only_what_asks_for_nothing_is_lent() {
    let options = SoftOptions { large: false, csum: false, ..SoftOptions::default() };
    let (mut left, mut right) = linked_to_a_bare_side(&options);
    let mut frame = Received::default();
    for round in 1..=100_u64 {
        for header in [PLAIN, PARTIAL] {
            left.write_tx(0, &header.encode());
            assert!(left.nic.post_send_short(left.tx_segment(0, 92)));
        }
        let Arrived::Lent(lent) = right.look(&mut frame) else { panic!("{round}") };
        assert_eq!((lent.piece().len, frame.header), (80, NetHeader::RECEIVED), "{round}");
        right.post_again(lent);
        // The device half has computed the checksum, since none may be left to the driver.
        assert!(matches!(right.look(&mut frame), Arrived::Frame), "{round}");
        assert_eq!(frame.header.flags & NEEDS_CSUM, 0, "{round}");
        right.memory().release(frame.pieces[0].slot);
        assert_whole(&right);
        right.refill();
    }
}
