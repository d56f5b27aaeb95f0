//! Messages between two sides in one thread: arrival, completions, checks, limits.

use crate::world::{NO_COMPLETION, RECV_LEN, Side, conserved, linked_pair, pattern};
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{
    ChecksumRequest, Nic, Offload, PolledOne, PostError, Receive, RecvBatch, RecvPlace,
    SegmentationKind, SegmentationRequest, SendWr, Sge, WcStatus, Wire,
};

#[test]
fn messages_of_every_kind_arrive_as_they_were_sent() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 64);
    let lengths = [1, 79, 111, 112, 113, 500, 4095, 4096, 4097, 9000, 60_000, 65_536, 65_562];
    for (number, length) in lengths.into_iter().enumerate() {
        let wr_id = u64::try_from(number).unwrap();
        let bytes = pattern(wr_id + 3, length);
        left.send_bytes(100, &bytes, wr_id).unwrap();
        assert_eq!(right.receive().as_deref(), Some(&bytes[..]), "{length}");
        right.maintain();
        assert_eq!(left.completions(), [(wr_id, WcStatus::Success)], "{length}");
    }
    assert_eq!(left.nic.counters().sent, right.nic.counters().received);
    assert_eq!(left.nic.counters().sent_bytes, right.nic.counters().received_bytes);
    conserved(&[&left, &right]);
}

#[test]
fn inline_sends_are_reusable_at_once_and_make_no_completion() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 8);
    for round in 0..2000 {
        let bytes = pattern(round, 79);
        left.write_tx(0, &bytes);
        left.send(&[left.tx_sge(0, 12), left.tx_sge(12, 67)], true, round).unwrap();
        left.write_tx(0, &[0xff; 79]);
        assert_eq!(right.receive(), Some(bytes), "{round}");
        assert!(left.completions().is_empty());
    }
    conserved(&[&left, &right]);
}

#[test]
fn the_short_ways_take_what_is_short_and_refuse_what_is_wrong() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 4);
    assert_eq!(right.nic.poll_recv_one(), PolledOne::Nothing);
    for length in [1, 63, 64, 65, 79, 111, 112] {
        let bytes = pattern(u64::from(length), usize::try_from(length).unwrap());
        left.write_tx(100, &bytes);
        assert!(left.nic.post_send_short(left.tx_segment(100, length)), "{length}");
        left.write_tx(100, &[0xff; 112]);
        let PolledOne::Taken { wr_id, byte_len } = right.nic.poll_recv_one() else {
            panic!("{length}");
        };
        assert_eq!(byte_len, length);
        assert!(right.received(wr_id, byte_len) == bytes, "{length}");
        right.post_receive(wr_id);
        assert_eq!(right.nic.poll_recv_one(), PolledOne::Nothing);
    }
    let sent = left.nic.counters().sent;
    let mut bad_key = left.tx_sge(0, 64);
    bad_key.lkey.0 ^= 1 << 9;
    let mut beyond = left.tx_sge(0, 64);
    beyond.addr += 1 << 20;
    for length in [113, 0] {
        assert!(!left.nic.post_send_short(left.tx_segment(0, length)), "{length}");
    }
    for wrong in [left.tx_sge(0, 113), left.tx_sge(0, 0), bad_key, beyond] {
        assert!(left.send(&[wrong], true, 0).is_err(), "{wrong:?}");
    }
    assert_eq!(left.nic.counters().sent, sent);
    let good = Sge { addr: right.rx.addr(), length: 64, lkey: right.rx_lkey };
    let mut bad_key = good;
    bad_key.lkey.0 ^= 1 << 9;
    let rows = [
        ("read-only", right.tx_sge(0, 64), PostError::BadLkey),
        ("unknown key", bad_key, PostError::BadLkey),
        ("beyond", Sge { addr: good.addr + (1 << 40), ..good }, PostError::OutOfBounds),
        ("before", Sge { addr: good.addr - 1, ..good }, PostError::OutOfBounds),
        ("no bytes", Sge { length: 0, ..good }, PostError::OutOfBounds),
        ("too many bytes", Sge { length: u32::MAX, ..good }, PostError::OutOfBounds),
    ];
    for (name, Sge { addr, length, lkey }, error) in rows {
        let places = [addr, good.addr].map(|addr| RecvPlace { wr_id: 9, addr });
        let batch = RecvBatch { places: &places, length, lkey };
        assert_eq!(right.nic.post_recv_batch(&batch), Err(error), "{name}");
    }
    let places = [good.addr, good.addr - 1, good.addr].map(|addr| RecvPlace { wr_id: 9, addr });
    let batch = RecvBatch { places: &places, length: 64, lkey: good.lkey };
    assert_eq!(right.nic.post_recv_batch(&batch), Ok(1), "up to the wrong one");
    // A message that is not short has another way, wherever its parts lie, if it fits a receive;
    // the long one otherwise.
    assert_eq!(right.nic.poll_recv_long(), None);
    let whole = [left.tx_sge(0, 113)];
    let parts = [left.tx_sge(0, 60), left.tx_sge(60, 1), left.tx_sge(61, 52)];
    for (round, sges) in [(1, &whole[..]), (2, &parts)] {
        left.write_tx(0, &pattern(round, 113));
        left.send(sges, false, round).unwrap();
        assert_eq!(right.nic.poll_recv_one(), PolledOne::Unknown);
        let Some((wr_id, 113)) = right.nic.poll_recv_long() else { panic!("{sges:?}") };
        assert!(right.received(wr_id, 113) == pattern(round, 113), "{sges:?}");
    }
    conserved(&[&left, &right]);
}

#[test]
fn a_lent_receive_is_posted_again_as_the_oldest_or_taken() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 3);
    let mut posted = std::collections::VecDeque::from([0, 1, 2]);
    for round in 0..500_u64 {
        left.write_tx(0, &pattern(round, 79));
        assert!(left.nic.post_send_short(left.tx_segment(0, 79)));
        let PolledOne::Lent { wr_id, byte_len: 79 } = right.nic.poll_recv_lent() else {
            panic!("{round}");
        };
        assert_eq!(Some(wr_id), posted.pop_front(), "{round}");
        assert!(right.received(wr_id, 79) == pattern(round, 79), "{round}");
        match round % 7 {
            0 => {
                right.nic.take_lent();
                right.post_receive(wr_id);
                posted.push_back(wr_id);
            }
            _ => {
                right.nic.repost_lent();
                posted.push_front(wr_id);
            }
        }
        assert_eq!(right.nic.poll_recv_lent(), PolledOne::Nothing);
    }
    conserved(&[&left, &right]);
}

#[test]
fn a_message_without_a_receive_waits_on_the_short_way_too() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 1);
    for round in 0..2_u64 {
        left.write_tx(0, &pattern(round, 79));
        assert!(left.nic.post_send_short(left.tx_segment(0, 79)));
    }
    assert_eq!(right.nic.poll_recv_one(), PolledOne::Taken { wr_id: 0, byte_len: 79 });
    assert_eq!(right.nic.poll_recv_one(), PolledOne::Unknown);
    right.post_receive(0);
    assert_eq!(right.nic.poll_recv_one(), PolledOne::Taken { wr_id: 0, byte_len: 79 });
    assert!(right.received(0, 79) == pattern(1, 79));
    conserved(&[&left, &right]);
}

#[test]
fn the_signal_of_the_newest_send_can_be_asked_for_afterwards() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 8);
    assert!(!left.nic.signal_last(), "nothing was sent");
    let mut wr_id = 0;
    for lengths in [&[500][..], &[79], &[500, 79], &[79, 500]] {
        for &length in lengths {
            wr_id += 1;
            left.write_tx(0, &pattern(wr_id, length));
            let sges = [left.tx_sge(0, u32::try_from(length).unwrap())];
            let offload = Offload::default();
            let wr = SendWr { wr_id, sges: &sges, signalled: false, inline: false, offload };
            left.nic.post_send(&wr).unwrap();
        }
        assert!(left.nic.signal_last());
        left.nic.doorbell();
        while right.receive().is_some() {}
        assert_eq!(left.completions(), [(wr_id, WcStatus::Success)], "{lengths:?}");
        assert!(!left.nic.signal_last(), "all is complete");
    }
    conserved(&[&left, &right]);
}

#[test]
fn requests_are_checked_as_hardware_checks_them() {
    let (mut left, _right) = linked_pair(&SoftOptions::default(), 1);
    let mut bad_key = left.tx_sge(0, 64);
    bad_key.lkey.0 ^= 1 << 9;
    let mut beyond = left.tx_sge(0, 64);
    beyond.addr += 1 << 20;
    let mut private = left.tx_sge(0, 200);
    private.addr = left.rx.addr();
    private.lkey = left.rx_lkey;
    let many = vec![left.tx_sge(0, 8); 33];
    let long = vec![left.tx_sge(0, 32_768); 3];
    let rows: [(&str, &[_], bool, PostError); 7] = [
        ("no elements", &[], false, PostError::SgeCount),
        ("too many elements", &many, false, PostError::SgeCount),
        ("wrong key", &[bad_key], false, PostError::BadLkey),
        ("out of bounds", &[beyond], true, PostError::OutOfBounds),
        ("memory that is never shown", &[private], false, PostError::BadLkey),
        ("longer than a message", &long, false, PostError::TooLong),
        ("longer than inline", &[left.tx_sge(0, 113)], true, PostError::TooLong),
    ];
    for (name, sges, inline, wanted) in rows {
        assert_eq!(left.send(sges, inline, 1), Err(wanted), "{name}");
    }
    assert_eq!(left.nic.counters().refused_invalid, 7);
    assert_eq!(left.nic.counters().sent, 0);
    conserved(&[&left]);
}

#[test]
fn without_a_link_a_frame_is_lost_and_counted() {
    let (left, _right) = SoftNic::pair(&SoftOptions::default()).unwrap();
    let mut left = Side::new(left, 4);
    assert_eq!(left.send(&[left.tx_sge(0, 64)], true, 1), Err(PostError::LinkDown));
    assert_eq!(left.nic.counters().refused_link_down, 1);
    assert!(!left.nic.recv_ready());
    assert_eq!(left.nic.poll_recv(&mut [NO_COMPLETION; 4]), 0);
}

#[test]
fn a_message_waits_until_enough_receives_are_posted() {
    let (mut left, mut right) = linked_pair(&SoftOptions::default(), 0);
    let bytes = pattern(5, 2 * 4096 - 10);
    left.send_bytes(0, &bytes, 9).unwrap();
    assert!(right.receive().is_none());
    assert!(!right.nic.recv_ready(), "nothing can be done before a receive is posted");
    assert_eq!(right.nic.counters().waits_for_receives, 1);
    right.post_receive(0);
    assert!(right.receive().is_none());
    right.post_receive(0);
    let mut out = [NO_COMPLETION];
    assert_eq!(right.nic.poll_recv(&mut out), 1);
    assert!(out[0].more && out[0].byte_len == RECV_LEN);
    assert!(right.nic.recv_ready());
    assert_eq!(right.nic.poll_recv(&mut out), 1);
    assert!(!out[0].more && out[0].byte_len == RECV_LEN - 10);
    assert_eq!(left.completions(), [(9, WcStatus::Success)]);
    assert_eq!(right.nic.counters().waits_for_receives, 2);
    conserved(&[&left, &right]);
}

#[test]
fn one_message_mode_completes_a_too_short_receive_in_error() {
    let options = SoftOptions { receive: Receive::OneMessage, ..SoftOptions::default() };
    let (mut left, mut right) = linked_pair(&options, 2);
    left.send_bytes(0, &pattern(1, 5000), 1).unwrap();
    left.send_bytes(8192, &pattern(2, 4000), 2).unwrap();
    let mut out = [NO_COMPLETION; 4];
    assert_eq!(right.nic.poll_recv(&mut out), 2);
    assert_eq!((out[0].wr_id, out[0].status), (0, WcStatus::LocalLength));
    assert_eq!((out[1].wr_id, out[1].status, out[1].byte_len), (1, WcStatus::Success, 4000));
    assert_eq!(right.nic.counters().drop_too_long, 1);
    assert_eq!(left.completions().len(), 2);
    conserved(&[&left, &right]);
}

#[test]
fn the_ring_wraps_and_pushes_back_when_it_is_full() {
    let options = SoftOptions { slots: 64, ..SoftOptions::default() };
    let (mut left, mut right) = linked_pair(&options, 64);
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut refused = 0;
    while received < 5000 {
        let length = usize::try_from(sent % 3 * 700 + 30).unwrap();
        let offset = u32::try_from(sent % 128 * 4096).unwrap();
        match left.send_bytes(offset, &pattern(sent, length), sent) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error, PostError::QueueFull);
                refused += 1;
                while let Some(bytes) = right.receive() {
                    let length = usize::try_from(received % 3 * 700 + 30).unwrap();
                    assert_eq!(bytes, pattern(received, length));
                    received += 1;
                }
                right.maintain();
                left.completions();
            }
        }
    }
    assert!(refused > 10);
    conserved(&[&left, &right]);
}

#[test]
fn with_tso_the_nic_cuts_and_checksums_as_hardware_does() {
    let options = SoftOptions { large: false, tso: true, ..SoftOptions::default() };
    let (mut left, mut right) = linked_pair(&options, 64);
    assert_eq!(left.nic.capabilities().wire, Wire::Frames);
    let mut frame = pattern(3, 54 + 40_000);
    frame[14] = 0x45;
    let payload = frame[54..].to_vec();
    for round in 0..200 {
        let place = u32::try_from(round % 2 * 65_536).unwrap();
        left.write_tx(place, &frame);
        let sges = [left.tx_sge(place, 54), left.tx_sge(place + 54, 40_000)];
        let kind = SegmentationKind::Tcp4;
        let request = SegmentationRequest { kind, size: 1446, header_len: 54 };
        let checksum = Some(ChecksumRequest { start: 34, offset: 16 });
        let offload = Offload { checksum, segmentation: Some(request) };
        let wr = SendWr { wr_id: round, sges: &sges, signalled: true, inline: false, offload };
        assert_eq!(left.nic.post_send(&wr), Ok(()), "{round}");
        left.nic.doorbell();
        let frames: Vec<Vec<u8>> = std::iter::from_fn(|| right.receive()).collect();
        assert_eq!(frames.len(), 28);
        assert!(frames.iter().all(|frame| frame.len() <= 1500 && frame[14] == 0x45));
        let received: Vec<u8> = frames.iter().flat_map(|frame| frame[54..].to_vec()).collect();
        assert!(received == payload, "{round}");
        assert_eq!(left.completions(), [(round, WcStatus::Success)]);
    }
    let counters = left.nic.counters();
    assert_eq!((counters.segmented, counters.segments, counters.sent), (200, 5600, 5600));

    // A frame longer than the wire takes is refused if it is not to be cut.
    assert_eq!(left.send(&[left.tx_sge(0, 1515)], false, 1), Err(PostError::TooLong));
    assert_eq!(left.send(&[left.tx_sge(0, 1514)], false, 1), Ok(()));
    assert!(right.receive().is_some());
    assert_eq!(left.nic.counters().refused_offload, 1);
    conserved(&[&left, &right]);
}
