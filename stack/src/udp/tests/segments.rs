//! Several datagrams in one frame, both ways.

use super::*;
use crate::frame::SegmentKind;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 253).to_le_bytes()[0]).collect()
}

/// A connected pair whose ends know each other's address.
fn connected(v6: bool) -> (Host, Host, UdpId, UdpId) {
    let (mut a, mut b) = pair();
    let place = |number, port| if v6 { at_v6(number, port) } else { at(number, port) };
    let (client, server) = (a.bind(place(1, 1000)), b.bind(place(2, 2000)));
    a.udp.connect(&a.ip, client, place(2, 2000)).unwrap();
    a.send(client, b"who are you", None).unwrap();
    exchange(&mut a, &mut b);
    b.recv(server).unwrap();
    (a, b, client, server)
}

fn received(host: &mut Host, id: UdpId) -> Vec<Vec<u8>> {
    core::iter::from_fn(|| host.recv(id).ok().map(|(bytes, _)| bytes)).collect()
}

#[test]
fn what_the_device_cuts_goes_as_one_frame() {
    for v6 in [false, true] {
        for (len, size) in [(5000, 1000), (5001, 1000), (64_000, 1000), (9, 2), (20_000, 1400)] {
            let (mut a, mut b, client, server) = connected(v6);
            a.offloads = Offloads { tx_checksum: true, uso: true, ..Offloads::default() };
            let bytes = data(len);
            assert_eq!(a.send_segments(client, &bytes, size), Ok(len));
            let count = len.div_ceil(usize::from(size));
            assert_eq!(a.udp.counters().sent, 1 + u64::try_from(count).unwrap());
            let (frames, segmentation) = (a.sent(), a.out.segmentation.unwrap());
            assert_eq!(frames.len(), 1, "{len} in {size}");
            assert_eq!((segmentation.kind, segmentation.size), (SegmentKind::Udp, size));
            assert_eq!(usize::from(segmentation.header_len) + len, frames[0].0.len());
            b.received_checksum = RxChecksum::Partial;
            b.give_coalesced(&frames[0].0, size);
            let found = received(&mut b, server);
            let wanted: Vec<Vec<u8>> =
                bytes.chunks(usize::from(size)).map(<[u8]>::to_vec).collect();
            assert_eq!(found, wanted);
            assert_eq!(b.udp.counters().received_large, 1);
        }
    }
}

#[test]
fn without_the_device_each_datagram_is_a_frame() {
    let (mut a, mut b, client, server) = connected(false);
    let bytes = data(5500);
    assert_eq!(a.send_segments(client, &bytes, 1000), Ok(5500));
    let frames = a.sent();
    assert_eq!(frames.len(), 6);
    frames.iter().for_each(|(frame, _)| b.give(frame));
    assert_eq!(received(&mut b, server).concat(), bytes);
}

#[test]
fn more_than_a_frame_holds_goes_in_several_and_room_is_respected() {
    let (mut a, _b, client, _) = connected(false);
    a.offloads = Offloads { tx_checksum: true, uso: true, ..Offloads::default() };
    // 64 datagrams a frame, as in Linux.
    assert_eq!(a.send_segments(client, &data(130 * 100), 100), Ok(13_000));
    assert_eq!(a.sent().len(), 3);
    let taken = a.send_segments(client, &data(1 << 20), 1400).unwrap();
    assert!(taken % 1400 == 0 || taken == 1 << 20, "{taken}");
    while a.send_segments(client, &data(64_000), 1000).is_ok() {}
    assert_eq!(a.send_segments(client, b"x", 1), Err(UdpError::WouldBlock));
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let (mut a, _b, client, _) = connected(false);
    for size in [0, 1473, u16::MAX] {
        assert_eq!(a.send_segments(client, &data(3000), size), Err(UdpError::MessageTooLong));
    }
    assert_eq!(a.send_segments(client, &[], 100), Ok(0));
    let stranger = a.bind(any_v4(77));
    assert_eq!(a.send_segments(stranger, b"x", 1), Err(UdpError::NotConnected));
}

#[test]
fn coalesced_frames_that_make_no_sense_are_dropped_and_counted() {
    let (mut a, mut b, client, server) = connected(false);
    a.offloads = Offloads { tx_checksum: true, uso: true, ..Offloads::default() };
    assert_eq!(a.send_segments(client, &data(1000), 100), Ok(1000));
    let frame = a.sent().remove(0).0;
    b.received_checksum = RxChecksum::Partial;
    // One datagram that says that it is several, and far too many.
    b.give_coalesced(&frame, 1000);
    b.give_coalesced(&frame, 1);
    assert_eq!(b.udp.drops().get(UdpDrop::Coalesced), 2);
    assert!(received(&mut b, server).is_empty());
    // Without anybody's word for the checksum it is wrong: that of the whole is in it.
    b.received_checksum = RxChecksum::Unknown;
    b.give_coalesced(&frame, 100);
    assert_eq!(b.udp.drops().get(UdpDrop::Checksum), 1);
    // Nobody has the port: each datagram is dropped, and nothing is answered.
    b.udp.close(server, &mut b.mem).unwrap();
    b.received_checksum = RxChecksum::Partial;
    b.give_coalesced(&frame, 100);
    assert_eq!(b.udp.drops().get(UdpDrop::NoSocket), 10);
    assert!(b.sent().is_empty());
}
