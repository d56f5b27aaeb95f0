//! The assembled interface over a NIC in memory: every wire, receive manner and layout.

mod virtio_support;

use roceway_rdma_virtio::memory::arena::ArenaConfig;
use roceway_rdma_virtio::memory::slot::{Piece, SlotClass};
use roceway_rdma_virtio::nic::{Capabilities, Receive, WcStatus, Wire};
use roceway_rdma_virtio::virtio::driver::{Received, TransmitError};
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::interface::{InterfaceError, NetInterface};
use roceway_rdma_virtio::virtio::net_header::{
    DATA_VALID, GSO_ECN, GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, NetHeader,
};
use virtio_support::{MemoryNic, capabilities};

type Interface = NetInterface<MemoryNic>;

fn config() -> ArenaConfig {
    ArenaConfig { small: 256, chunks: 128, receive: 256, ..ArenaConfig::default() }
}

fn interface(capabilities: Capabilities, wanted: Features) -> Interface {
    NetInterface::new(MemoryNic::new(capabilities), &config(), wanted, 64).unwrap()
}

/// A frame of `len` bytes, 60 of them in a small slot and the rest in chunks, filled from `seed`.
fn frame(interface: &mut Interface, len: usize, seed: usize) -> (Vec<Piece>, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|i| u8::try_from((i * 7 + seed) % 251).unwrap()).collect();
    let memory = interface.memory();
    let slot = memory.allocate(SlotClass::Small).unwrap();
    let head = len.min(60);
    memory.bytes_mut(slot, 18, 60)[..head].copy_from_slice(&bytes[..head]);
    let mut pieces = vec![Piece { slot, start: 18, len: u32::try_from(head).unwrap() }];
    for part in bytes[head..].chunks(4000) {
        let slot = memory.allocate(SlotClass::Chunk).unwrap();
        let len = u32::try_from(part.len()).unwrap();
        memory.bytes_mut(slot, 50, len).copy_from_slice(part);
        pieces.push(Piece { slot, start: 50, len });
    }
    (pieces, bytes)
}

fn take(interface: &mut Interface) -> Option<(Vec<u8>, NetHeader)> {
    let mut received = Received::default();
    if !interface.receive(&mut received) {
        return None;
    }
    let mut bytes = Vec::new();
    for piece in &received.pieces {
        bytes.extend_from_slice(interface.memory_ref().piece(*piece));
        interface.memory().release(piece.slot);
    }
    Some((bytes, received.header))
}

fn assert_conserved(interface: &Interface) {
    let (driver, device) = interface.counters();
    let dropped = driver.rx_drop_short + driver.rx_drop_merge + driver.rx_drop_header;
    assert_eq!(driver.rx_returned, driver.rx_frames + dropped, "{driver:?}");
    let lost = device.rx_drop_short + device.rx_drop_header + device.rx_drop_span;
    assert_eq!(device.rx_messages, device.rx_passed + lost, "{device:?}");
    let (sends, _) = interface.work_in_flight();
    let done = device.tx_completed + device.tx_failed;
    assert_eq!(device.tx_posted, done + u64::from(sends), "{device:?}");
    let in_flight = u64::from(interface.transmit_in_flight());
    assert_eq!(driver.tx_frames, driver.tx_completed + in_flight, "{driver:?}");
    assert_eq!(interface.memory_ref().counters().misuse, 0);
}

/// Everything that was allocated is free again, but for the posted receives.
fn assert_no_leak(interface: &mut Interface) {
    interface.refill();
    let (_, receives) = interface.work_in_flight();
    let slots = u32::from(interface.receive_layout().slots) * receives;
    let memory = interface.memory_ref();
    assert_eq!(memory.free(SlotClass::Small), config().small);
    assert_eq!(memory.free(SlotClass::Chunk), config().chunks);
    assert_eq!(memory.free_receive() + slots, config().receive);
}

#[test]
fn frames_of_every_length_pass_every_wire_and_layout() {
    let without_merge = Features::ALL_OURS.without(Features::MRG_RXBUF);
    let chained = Features::ALL_OURS.without(Features::INDIRECT_DESC);
    let rows = [
        ("virtio, spanning, mergeable", Wire::VirtioNet, Receive::Spanning, Features::ALL_OURS),
        ("virtio, spanning, next chains", Wire::VirtioNet, Receive::Spanning, chained),
        ("virtio, spanning, big packets", Wire::VirtioNet, Receive::Spanning, without_merge),
        ("virtio, one message", Wire::VirtioNet, Receive::OneMessage, Features::ALL_OURS),
        ("frames, one message", Wire::Frames, Receive::OneMessage, Features::ALL_OURS),
        ("frames, spanning", Wire::Frames, Receive::Spanning, Features::ALL_OURS),
        ("frames, bare", Wire::Frames, Receive::OneMessage, Features::VERSION_1),
    ];
    for (name, wire, receive, wanted) in rows {
        let mut interface = interface(capabilities(wire, receive), wanted);
        let longest = if interface.features().has(Features::GUEST_LARGE) { 65_000 } else { 1514 };
        for (seed, len) in
            [14, 60, 61, 79, 128, 1514, 4084, 4085, 9000, longest].into_iter().enumerate()
        {
            if len > longest {
                continue;
            }
            let (pieces, bytes) = frame(&mut interface, len, seed);
            interface.transmit(&pieces, &NetHeader::default()).unwrap();
            interface.doorbell();
            assert!(interface.recv_ready(), "{name} {len}");
            let (found, header) = take(&mut interface).unwrap();
            assert!(found == bytes, "{name} {len}");
            assert!(header.is_plain());
            let vouched = wire == Wire::Frames && wanted != Features::VERSION_1;
            assert_eq!(header.flags == DATA_VALID, vouched, "{name}");
            assert!(take(&mut interface).is_none());
            interface.reap();
            interface.refill();
            interface.doorbell();
            assert_conserved(&interface);
        }
        assert_no_leak(&mut interface);
    }
}

#[test]
fn an_inline_frame_is_released_within_transmit() {
    let mut interface =
        interface(capabilities(Wire::VirtioNet, Receive::Spanning), Features::ALL_OURS);
    let (pieces, _) = frame(&mut interface, 60, 0);
    interface.transmit(&pieces, &NetHeader::default()).unwrap();
    assert_eq!(interface.memory_ref().free(SlotClass::Small), config().small);
    assert_eq!(interface.counters().1.tx_inline, 1);
    assert_conserved(&interface);
}

#[test]
fn every_tail_of_a_batch_completes() {
    for max_send_wr in [1, 2, 5, 64] {
        let capabilities =
            Capabilities { max_send_wr, ..capabilities(Wire::VirtioNet, Receive::Spanning) };
        let mut interface = interface(capabilities, Features::ALL_OURS);
        interface.nic_mut().loops = false;
        for batch in 1..60 {
            for seed in 0..batch % 7 {
                // Long ones, and short ones that would go inline.
                let (pieces, _) = frame(&mut interface, [900, 40][seed % 2], seed);
                interface.transmit(&pieces, &NetHeader::default()).unwrap();
            }
            for _ in 0..8 {
                interface.doorbell();
                interface.reap();
                assert_conserved(&interface);
            }
            assert_eq!(interface.transmit_in_flight(), 0, "{max_send_wr} {batch}");
        }
        assert_no_leak(&mut interface);
    }
}

/// Frames of one piece each, as long as these.
fn burst(interface: &mut Interface, lengths: &[u32], seed: usize) -> (Vec<Piece>, Vec<Vec<u8>>) {
    let one = |(number, &len): (usize, &u32)| {
        let slot = interface.memory().allocate(SlotClass::Chunk).unwrap();
        let value = u8::try_from((seed * 31 + number) % 251).unwrap();
        interface.memory().bytes_mut(slot, 18, len).fill(value);
        (Piece { slot, start: 18, len }, vec![value; len as usize])
    };
    lengths.iter().enumerate().map(one).unzip()
}

#[test]
fn a_burst_leaves_in_order_whatever_the_nic_has_room_for() {
    for wire in [Wire::VirtioNet, Wire::Frames] {
        for max_send_wr in [1, 2, 5, 64] {
            let capabilities =
                Capabilities { max_send_wr, ..capabilities(wire, Receive::Spanning) };
            let mut interface = interface(capabilities, Features::ALL_OURS);
            interface.nic_mut().loops = false;
            let mut expected = Vec::new();
            for round in 0..40 {
                // Long ones, short ones that go inline, and now and then one before the burst.
                let lengths = [1514, 900, 40, 1514, 700, 41, 1200];
                let lengths = &lengths[..round % (lengths.len() + 1)];
                if round % 3 == 0 {
                    let (pieces, bytes) = frame(&mut interface, 900, round);
                    interface.transmit(&pieces, &NetHeader::default()).unwrap();
                    expected.push(bytes);
                }
                let (pieces, bytes) = burst(&mut interface, lengths, round);
                assert!(interface.transmit_room() >= lengths.len());
                let taken = interface.transmit_burst(&pieces, &NetHeader::default());
                assert_eq!(taken, lengths.len());
                expected.extend(bytes);
                for _ in 0..10 {
                    interface.doorbell();
                    interface.reap();
                    assert_conserved(&interface);
                }
                assert_eq!(interface.transmit_in_flight(), 0, "{wire:?} {max_send_wr} {round}");
            }
            let in_front = if wire == Wire::VirtioNet { 12 } else { 0 };
            let sent = interface.nic().sent.iter().map(|message| &message.bytes[in_front..]);
            assert!(sent.eq(expected.iter().map(Vec::as_slice)), "{wire:?} {max_send_wr}");
            assert_no_leak(&mut interface);
        }
    }
}

#[test]
fn a_burst_is_released_if_the_link_is_down_and_ends_before_a_bad_piece() {
    let wire = capabilities(Wire::VirtioNet, Receive::Spanning);
    let mut interface = interface(wire, Features::ALL_OURS);
    interface.nic_mut().link_down = true;
    let (pieces, _) = burst(&mut interface, &[900, 1514, 40], 1);
    assert_eq!(interface.transmit_burst(&pieces, &NetHeader::default()), 3);
    interface.reap();
    assert_eq!(interface.counters().1.tx_link_down, 3);
    assert_no_leak(&mut interface);
    interface.nic_mut().link_down = false;
    let (mut pieces, _) = burst(&mut interface, &[900, 1514, 40], 2);
    pieces[1].start = 11;
    assert_eq!(interface.transmit_burst(&pieces, &NetHeader::default()), 1);
    pieces[1..].iter().for_each(|piece| interface.memory().release(piece.slot));
    for _ in 0..2 {
        interface.doorbell();
        interface.reap();
    }
    assert_eq!(interface.transmit_in_flight(), 0);
    assert_conserved(&interface);
}

/// The device half cannot know that the last of a batch will be refused when it posts those before.
#[test]
fn what_precedes_a_refused_last_one_completes_without_a_further_frame() {
    let good = NetHeader::default();
    let unknown = NetHeader { gso_type: GSO_UDP_L4, flags: NEEDS_CSUM, gso_size: 500, ..good };
    let rows = [
        ("refused by the device", 900, unknown),
        ("refused by the device, of several pieces", 9000, unknown),
        ("refused by the NIC", 64_000, good),
    ];
    for (name, len, header) in rows {
        for before in 1..5 {
            let wire = capabilities(Wire::VirtioNet, Receive::Spanning);
            let capabilities = Capabilities { max_message: 20_000, ..wire };
            let mut interface = interface(capabilities, Features::ALL_OURS);
            interface.nic_mut().loops = false;
            for seed in 0..before {
                let (pieces, _) = frame(&mut interface, [900, 9000][seed % 2], seed);
                interface.transmit(&pieces, &good).unwrap();
            }
            let (pieces, _) = frame(&mut interface, len, 9);
            interface.transmit(&pieces, &header).unwrap();
            interface.doorbell();
            interface.reap();
            assert_eq!(interface.transmit_in_flight(), 0, "{name} {before}");
            assert_conserved(&interface);
            assert_no_leak(&mut interface);
        }
    }
}

#[test]
fn a_full_ring_takes_nothing_and_recovers() {
    let mut interface =
        interface(capabilities(Wire::VirtioNet, Receive::Spanning), Features::ALL_OURS);
    interface.nic_mut().loops = false;
    interface.nic_mut().completes = false;
    let (pieces, _) = frame(&mut interface, 900, 0);
    let mut taken = 0;
    loop {
        for piece in &pieces {
            interface.memory().retain(piece.slot);
        }
        match interface.transmit(&pieces, &NetHeader::default()) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error, TransmitError::RingFull);
                break;
            }
        }
    }
    assert_eq!(taken, 64);
    for piece in &pieces {
        interface.memory().release(piece.slot);
        interface.memory().release(piece.slot);
    }
    assert_conserved(&interface);
    interface.nic_mut().completes = true;
    interface.doorbell();
    interface.reap();
    assert_eq!(interface.transmit_in_flight(), 0);
    assert_no_leak(&mut interface);
}

#[test]
fn errors_and_a_dead_link_release_everything() {
    let mut interface =
        interface(capabilities(Wire::Frames, Receive::OneMessage), Features::ALL_OURS);
    interface.nic_mut().fail_sends = 2;
    for seed in 0..4 {
        let (pieces, _) = frame(&mut interface, 900, seed);
        interface.transmit(&pieces, &NetHeader::default()).unwrap();
    }
    interface.doorbell();
    interface.reap();
    assert_eq!(interface.counters().1.tx_failed, 2);
    assert_conserved(&interface);
    while take(&mut interface).is_some() {}
    interface.refill();

    interface.nic_mut().link_down = true;
    interface.nic_mut().flush();
    let (pieces, _) = frame(&mut interface, 900, 0);
    interface.transmit(&pieces, &NetHeader::default()).unwrap();
    interface.doorbell();
    interface.reap();
    while interface.recv_ready() {
        assert!(take(&mut interface).is_none());
    }
    assert_eq!(interface.counters().1.tx_link_down, 1);
    assert!(interface.counters().1.rx_failed > 0);
    assert_conserved(&interface);
    assert_no_leak(&mut interface);
}

#[test]
fn bad_pieces_are_refused() {
    let mut interface =
        interface(capabilities(Wire::VirtioNet, Receive::Spanning), Features::ALL_OURS);
    let (pieces, _) = frame(&mut interface, 100, 0);
    let good = pieces[0];
    let rows = [
        vec![],
        vec![Piece { start: 11, ..good }],
        vec![Piece { len: 256, ..good }],
        vec![good, Piece { start: u32::MAX, ..good }],
        vec![good; 19],
    ];
    for row in rows {
        let result = interface.transmit(&row, &NetHeader::default());
        assert_eq!(result, Err(TransmitError::BadPieces), "{row:?}");
    }
    assert_eq!(interface.counters().0.tx_refused, 5);
    assert_conserved(&interface);
}

#[test]
fn messages_that_make_no_sense_are_dropped_and_their_buffers_recycled() {
    let mut interface =
        interface(capabilities(Wire::VirtioNet, Receive::Spanning), Features::ALL_OURS);
    let partial = NetHeader { flags: NEEDS_CSUM, csum_start: 900, ..NetHeader::default() };
    let unknown = NetHeader { gso_type: 9, gso_size: 1, ..NetHeader::default() };
    let mut rows = vec![vec![], vec![0; 12], vec![0; 25]];
    let large = NetHeader { flags: NEEDS_CSUM, gso_type: GSO_TCPV4, ..NetHeader::default() };
    let large = NetHeader { gso_size: 1448, csum_start: 34, csum_offset: 16, ..large };
    let bad = [
        partial,
        unknown,
        NetHeader { gso_size: 0, ..large },
        // Segments that no wire of this MTU can have had.
        NetHeader { gso_size: 1600, ..large },
        NetHeader { gso_size: u16::MAX, gso_type: GSO_UDP_L4, csum_offset: 6, ..large },
        NetHeader { csum_offset: u16::MAX, ..large },
        NetHeader { csum_start: 59, ..large },
        NetHeader { flags: 0, ..large },
        NetHeader { gso_type: GSO_ECN, ..large },
    ];
    for header in bad {
        let mut bytes = header.encode().to_vec();
        bytes.extend([0; 60]);
        rows.push(bytes);
    }
    rows.push(vec![0; 69_999 + 4096 * 2]);
    for row in rows {
        interface.nic_mut().deliver(&row);
        while interface.recv_ready() {
            assert!(take(&mut interface).is_none(), "{}", row.len());
        }
        assert_conserved(&interface);
        interface.refill();
    }
    // A message whose parts end in an error.
    let head = interface.nic_mut().posted.pop_front().unwrap().0;
    interface.nic_mut().complete(head, WcStatus::Success, 4096, true);
    let head = interface.nic_mut().posted.pop_front().unwrap().0;
    interface.nic_mut().complete(head, WcStatus::Flushed, 0, false);
    // Completions that name nothing.
    interface.nic_mut().complete(head, WcStatus::Success, 100, false);
    interface.nic_mut().complete(u64::MAX, WcStatus::Success, 100, false);
    while interface.recv_ready() {
        assert!(take(&mut interface).is_none());
    }
    assert_eq!(interface.counters().1.rx_bad_completion, 2);
    assert_conserved(&interface);
    assert_no_leak(&mut interface);
}

#[test]
fn layouts_follow_the_nic_and_impossible_ones_are_refused() {
    let big = capabilities(Wire::Frames, Receive::OneMessage);
    let layout = interface(big.clone(), Features::ALL_OURS).receive_layout();
    assert!(!layout.mergeable && u32::from(layout.slots) * 4096 >= 65_562);

    let few = Capabilities { max_recv_sge: 4, ..big };
    let without = interface(few.clone(), Features::ALL_OURS);
    assert!(!without.features().has(Features::GUEST_LARGE));
    assert!(without.receive_layout().mergeable);
    assert_eq!(without.receive_layout().slots, 1);

    let jumbo = Capabilities { mtu: 9000, max_recv_sge: 2, ..few };
    let result = NetInterface::new(MemoryNic::new(jumbo), &config(), Features::ALL_OURS, 64);
    assert!(matches!(result.err(), Some(InterfaceError::ReceiveSlots { needed: 3, .. })));
}

#[test]
fn large_frames_go_whole_to_a_nic_that_segments() {
    for wire in [Wire::Frames, Wire::VirtioNet] {
        let mut interface = interface(capabilities(wire, Receive::Spanning), Features::ALL_OURS);
        interface.nic_mut().loops = false;
        let mut head = vec![0_u8; 54];
        head[12] = 8;
        head[14] = 0x45;
        head[46] = 0x50;
        let (pieces, mut bytes) = frame(&mut interface, 20_054, 0);
        bytes[..54].copy_from_slice(&head);
        interface.memory().bytes_mut(pieces[0].slot, 18, 54).copy_from_slice(&head);
        let header = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            gso_size: 1460,
            hdr_len: 54,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        };
        interface.transmit(&pieces, &header).unwrap();
        interface.doorbell();
        interface.reap();
        let sent = &interface.nic().sent;
        assert_eq!(sent.len(), 1);
        match wire {
            Wire::Frames => {
                assert!(sent[0].bytes == bytes);
                let segmentation = sent[0].offload.segmentation.unwrap();
                assert_eq!((segmentation.size, segmentation.header_len), (1460, 54));
                assert_eq!(sent[0].offload.checksum.unwrap().start, 34);
            }
            Wire::VirtioNet => {
                assert_eq!(sent[0].bytes[..12], header.encode());
                assert!(sent[0].bytes[12..] == bytes);
            }
        }
        assert_no_leak(&mut interface);
    }
}

/// A TCP frame over IPv4 of 54 header bytes and `payload` more, with a partial checksum.
fn tcp_frame(interface: &mut Interface, payload: usize) -> (Vec<Piece>, Vec<u8>, NetHeader) {
    let (pieces, mut bytes) = frame(interface, 54 + payload, 3);
    let total = u16::try_from(40 + payload).unwrap_or(0).to_be_bytes();
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let ip = [0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes[14..34].copy_from_slice(&ip);
    bytes[34..54]
        .copy_from_slice(&[0, 80, 0, 81, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, 24, 1, 0, 0, 0, 0, 0]);
    let length = u16::try_from(20 + payload).unwrap().to_be_bytes();
    let sum = sum(&[&bytes[26..34], &[0, 6], &length]);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    let head = u32::try_from(bytes.len().min(60)).unwrap();
    interface.memory().bytes_mut(pieces[0].slot, 18, head).copy_from_slice(&bytes[..head as usize]);
    let header =
        NetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..NetHeader::default() };
    (pieces, bytes, header)
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Whether the transport checksum of a frame over IPv4 is right.
fn is_right(frame: &[u8]) -> bool {
    let length = u16::try_from(frame.len() - 34).unwrap().to_be_bytes();
    sum(&[&frame[26..34], &[0, 6], &length, &frame[34..]]) == 0xFFFF
}

#[test]
fn what_the_nic_cannot_do_is_done_in_software() {
    for (wire, max_send_wr, tx_checksum) in [
        (Wire::Frames, 64, false),
        (Wire::Frames, 3, false),
        (Wire::Frames, 1, true),
        (Wire::VirtioNet, 64, false),
        (Wire::VirtioNet, 2, true),
    ] {
        let capabilities = Capabilities {
            tx_checksum,
            tso4: false,
            tso6: false,
            max_send_wr,
            ..capabilities(wire, Receive::OneMessage)
        };
        let mut interface = interface(capabilities, Features::ALL_OURS);
        interface.nic_mut().loops = false;
        assert!(interface.features().has(Features::HOST_TSO4));
        let (pieces, bytes, header) = tcp_frame(&mut interface, 20_000);
        let large = NetHeader { gso_type: GSO_TCPV4, gso_size: 1448, hdr_len: 54, ..header };
        interface.transmit(&pieces, &large).unwrap();
        // One that goes after it, with a partial checksum and short enough to go inline.
        let (pieces, small, header) = tcp_frame(&mut interface, 3);
        interface.transmit(&pieces, &header).unwrap();
        for _ in 0..40 {
            interface.doorbell();
            interface.reap();
            assert_conserved(&interface);
        }
        assert_eq!(interface.transmit_in_flight(), 0);
        let sent = std::mem::take(&mut interface.nic_mut().sent);
        assert_eq!(sent.len(), 15, "{wire:?} {max_send_wr}");
        let in_front = if wire == Wire::VirtioNet { 12 } else { 0 };
        let mut payload = Vec::new();
        for (i, message) in sent.iter().enumerate() {
            let frame = &message.bytes[in_front..];
            if tx_checksum {
                let asked = message.offload.checksum.is_some()
                    || (in_front > 0 && message.bytes[0] == NEEDS_CSUM);
                assert!(asked, "{wire:?} {i}");
            } else {
                assert!(is_right(frame), "{wire:?} {i}");
                assert!(message.bytes[..in_front].iter().all(|&b| b == 0));
            }
            if i < 14 {
                assert_eq!(
                    u32::from_be_bytes(frame[38..42].try_into().unwrap()),
                    9 + 1448 * u32::try_from(i).unwrap()
                );
                payload.extend_from_slice(&frame[54..]);
            } else {
                assert!(frame[54..] == small[54..]);
            }
        }
        assert!(payload == bytes[54..]);
        assert_no_leak(&mut interface);
    }
}

#[test]
fn a_partial_checksum_that_was_not_agreed_to_is_finished_on_arrival() {
    let wanted = Features::VERSION_1.with(Features::CSUM).with(Features::MRG_RXBUF);
    let mut interface = interface(capabilities(Wire::VirtioNet, Receive::Spanning), wanted);
    for payload in [1, 700, 5000] {
        let (pieces, _, header) = tcp_frame(&mut interface, payload);
        interface.transmit(&pieces, &header).unwrap();
        interface.doorbell();
        let (found, header) = take(&mut interface).unwrap();
        assert!(is_right(&found));
        assert!(header.is_plain() && header.flags == 0);
        interface.reap();
    }
    assert_eq!(interface.counters().1.rx_software_checksums, 3);
    assert_conserved(&interface);
    assert_no_leak(&mut interface);
}

#[test]
fn receives_that_the_nic_does_not_take_wait_and_come_later() {
    for posted in [0, 5, 20] {
        let mut interface =
            interface(capabilities(Wire::VirtioNet, Receive::Spanning), Features::ALL_OURS);
        interface.nic_mut().flush();
        interface.nic_mut().capabilities.max_recv_wr = posted;
        while interface.recv_ready() {
            assert!(take(&mut interface).is_none());
        }
        for _ in 0..5 {
            interface.refill();
            assert_eq!(interface.work_in_flight().1, posted);
        }
        interface.nic_mut().capabilities.max_recv_wr = 256;
        interface.refill();
        assert_eq!(interface.work_in_flight().1, 64);
        for seed in 0..70 {
            let (pieces, bytes) = frame(&mut interface, 60, seed);
            interface.transmit(&pieces, &NetHeader::default()).unwrap();
            interface.doorbell();
            assert!(take(&mut interface).unwrap().0 == bytes);
            interface.refill();
        }
        assert_conserved(&interface);
        assert_no_leak(&mut interface);
    }
}
