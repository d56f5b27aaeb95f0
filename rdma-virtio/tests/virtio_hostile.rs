//! A hostile driver against the device half, a hostile device against the driver half, over both
//! policies: everything against the rules is refused and counted, nothing is lost, nothing panics.

mod virtio_support;

use roceway_rdma_virtio::counters::DriverCounters;
use roceway_rdma_virtio::memory::arena::{Arena, ArenaConfig, ArenaExtra};
use roceway_rdma_virtio::memory::region::{Region, RegionTable};
use roceway_rdma_virtio::memory::slot::{Piece, SlotClass};
use roceway_rdma_virtio::nic::{Nic, Receive, Wire};
use roceway_rdma_virtio::virtio::device::{DeviceQueues, NetDevice};
use roceway_rdma_virtio::virtio::driver::{NetDriver, ReceiveLayout, Received};
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::layout::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, OwnQueue, QueueMemory,
};
use roceway_rdma_virtio::virtio::net_header::{
    GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, NetHeader,
};
use roceway_rdma_virtio::virtio::ring::{DeviceRing, DriverRing, Policy, SameThread, Shared};
use virtio_support::{MemoryNic, capabilities};

const SIZE: u16 = 32;
const ALL: Features = Features::ALL_OURS;

fn arena() -> Arena {
    let config = ArenaConfig { small: 64, chunks: 32, receive: 64, ..ArenaConfig::default() };
    Arena::new(&config, ArenaExtra::default()).unwrap()
}

/// Two queues; dropped after the memories taken from them.
struct Queues {
    transmit: OwnQueue,
    receive: OwnQueue,
}

impl Queues {
    fn new() -> Queues {
        Queues { transmit: OwnQueue::new(SIZE).unwrap(), receive: OwnQueue::new(SIZE).unwrap() }
    }

    fn memories(&mut self) -> (QueueMemory, QueueMemory) {
        // SAFETY: every test drops its halves before its queues, which it declares first.
        let transmit = unsafe { self.transmit.memory() };
        // SAFETY: as above.
        (transmit, unsafe { self.receive.memory() })
    }
}

/// A device half over a NIC in memory, and a driver's rings in hostile hands. The driver has
/// agreed to these features.
fn with_device<P: Policy>(
    features: Features,
    test: impl FnOnce(&mut NetDevice<P>, &mut MemoryNic, [DriverRing<P>; 2], u64, QueueMemory),
) {
    let arena = arena();
    let mut queues = Queues::new();
    let (transmit, receive) = queues.memories();
    let mut nic = MemoryNic::new(capabilities(Wire::VirtioNet, Receive::Spanning));
    let mut regions = RegionTable::new();
    let (first, second) = (arena.transmit_region(), arena.receive_region());
    for view in [first, second] {
        // SAFETY: the arena lives until the end of this function.
        let lkey = unsafe { nic.register(view) }.unwrap();
        let region = Region { base: view.addr, length: view.length, host: view.addr, lkey };
        // SAFETY: as above.
        unsafe { regions.insert(region) }.unwrap();
    }
    let both = DeviceQueues { transmit: transmit.clone(), receive: receive.clone() };
    let capabilities = nic.capabilities().clone();
    let mut device = NetDevice::<P>::new(&capabilities, (features, ALL), regions, both, None);
    let rings = [DriverRing::new(transmit.clone(), false), DriverRing::new(receive, false)];
    test(&mut device, &mut nic, rings, second.addr, transmit);
}

fn device_refuses_bad_sends<P: Policy>() {
    with_device::<P>(ALL, |device, nic, [mut tx, _], base, _| {
        let d = |addr, len, flags, next| Descriptor { addr, len, flags, next };
        let rows = [
            d(base, 0, 0, 0),
            d(base, 11, 0, 0),
            d(base, 25, 0, 0),
            d(base - (1 << 40), 100, 0, 0),
            d(base, u32::MAX, 0, 0),
            d(u64::MAX, 100, 0, 0),
            d(base, 100, DESC_WRITE, 0),
            d(base, 100, DESC_NEXT, SIZE),
            d(base, 100, DESC_INDIRECT | DESC_NEXT, 0),
            d(base, 100, DESC_INDIRECT, 0),
            d(base, 100, 0xFFF8 | DESC_NEXT, 0),
        ];
        for row in rows {
            let head = tx.take_descriptor().unwrap();
            // A link to itself is a loop.
            let next = if row.next == 0 { head } else { row.next };
            tx.write(head, Descriptor { next, ..row });
            tx.push_available(head);
            let _ = tx.publish();
            let _ = device.transmit(nic);
            let used = tx.pop_used().unwrap().unwrap();
            assert_eq!((used.id, used.len), (head.into(), 0), "{row:?}");
            tx.give_descriptor(head);
        }
        // A head that is no entry is taken, counted, and cannot be returned.
        tx.push_available(SIZE);
        tx.push_available(u16::MAX);
        let _ = tx.publish();
        let _ = device.transmit(nic);
        assert_eq!(tx.pop_used(), Ok(None));
        let counters = device.counters();
        let refused = counters.tx_bad_chain + counters.tx_bad_header;
        assert_eq!(refused, rows.len() as u64 + 2, "{counters:?}");
        assert_eq!((counters.tx_posted, nic.sent.len()), (0, 0));
        assert_eq!(counters.tx_chains, rows.len() as u64 + 2);
    });
}

const GOOD: NetHeader = NetHeader {
    flags: NEEDS_CSUM,
    gso_type: GSO_TCPV4,
    hdr_len: 0,
    gso_size: 1448,
    csum_start: 34,
    csum_offset: 16,
    num_buffers: 0,
};

/// Headers that ask for what cannot be: each frame is refused and counted, and nothing is sent.
fn device_refuses_bad_headers<P: Policy>() {
    let rows = [
        ("no size", NetHeader { gso_size: 0, ..GOOD }),
        ("a size beyond the MTU", NetHeader { gso_size: 1465, ..GOOD }),
        ("the largest size", NetHeader { gso_size: u16::MAX, ..GOOD }),
        ("UDP beyond the MTU", NetHeader { gso_type: GSO_UDP_L4, gso_size: 1477, ..GOOD }),
        ("a checksum outside", NetHeader { csum_start: 3000, ..GOOD }),
        ("an offset outside", NetHeader { csum_offset: 2965, ..GOOD }),
        ("an offset that wraps", NetHeader { csum_offset: u16::MAX, ..GOOD }),
        ("no checksum", NetHeader { flags: 0, ..GOOD }),
        ("an unknown kind", NetHeader { gso_type: 2, ..GOOD }),
        ("marks alone", NetHeader { gso_type: GSO_ECN, ..GOOD }),
        ("UDP with marks", NetHeader { gso_type: GSO_UDP_L4 | GSO_ECN, ..GOOD }),
        ("a partial checksum outside", NetHeader { gso_type: 0, csum_start: 2999, ..GOOD }),
    ];
    device_refuses::<P>(ALL, &rows);
}

/// What the driver never agreed to use.
fn device_refuses_what_was_not_agreed<P: Policy>() {
    let v6 = NetHeader { gso_type: GSO_TCPV6, ..GOOD };
    let rows = [
        (Features::HOST_TSO4, NetHeader { gso_type: GSO_TCPV4, ..GOOD }),
        (Features::HOST_TSO6, NetHeader { csum_start: 54, gso_size: 1428, ..v6 }),
        (Features::HOST_USO, NetHeader { gso_type: GSO_UDP_L4, csum_offset: 6, ..GOOD }),
        (Features::HOST_ECN, NetHeader { gso_type: GSO_TCPV4 | GSO_ECN, ..GOOD }),
        (Features::CSUM, NetHeader { gso_type: 0, ..GOOD }),
    ];
    for (missing, header) in rows {
        device_refuses::<P>(ALL.without(missing), &[("not agreed", header)]);
        with_device::<P>(ALL, |device, nic, [mut tx, _], base, _| {
            let _ = send_with(device, nic, (&mut tx, base), &header);
            let sent = (device.counters().tx_bad_header, nic.sent.len());
            assert_eq!(sent, (0, 1), "agreed, it is sent: {header:?}");
        });
    }
}

/// Sends 3000 bytes with headers that could be segmented, and this one before them.
fn send_with<P: Policy>(
    device: &mut NetDevice<P>,
    nic: &mut MemoryNic,
    (tx, base): (&mut DriverRing<P>, u64),
    header: &NetHeader,
) -> u16 {
    let mut bytes = [0; 12 + 80];
    bytes[..12].copy_from_slice(&header.encode());
    let kind = if header.gso_type == GSO_TCPV6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    bytes[12 + 12..12 + 14].copy_from_slice(&kind);
    // TCP's data offset: no options.
    if let Some(byte) = bytes.get_mut(12 + usize::from(header.csum_start) + 12) {
        *byte = 5 << 4;
    }
    let addr = usize::try_from(base).unwrap();
    let place = std::ptr::with_exposed_provenance_mut::<[u8; 12 + 80]>(addr);
    // SAFETY: memory of the test's arena, of which nothing is posted.
    unsafe { place.write_unaligned(bytes) };
    let head = tx.take_descriptor().unwrap();
    tx.write(head, Descriptor { addr: base, len: 12 + 3000, flags: 0, next: 0 });
    tx.push_available(head);
    let _ = tx.publish();
    let _ = device.transmit(nic);
    head
}

fn device_refuses<P: Policy>(features: Features, rows: &[(&str, NetHeader)]) {
    with_device::<P>(features, |device, nic, [mut tx, _], base, _| {
        for (number, (name, header)) in rows.iter().enumerate() {
            let head = send_with(device, nic, (&mut tx, base), header);
            let used = tx.pop_used().unwrap().unwrap();
            assert_eq!((used.id, used.len), (head.into(), 0), "{name}");
            tx.give_descriptor(head);
            let refused = device.counters().tx_bad_header;
            assert_eq!(refused, number as u64 + 1, "{name}: {header:?}");
        }
        assert_eq!((device.counters().tx_posted, nic.sent.len()), (0, 0));
    });
}

fn device_refuses_bad_room<P: Policy>() {
    with_device::<P>(ALL, |device, nic, [_, mut rx], base, _| {
        let d = |addr, len, flags, next| Descriptor { addr, len, flags, next };
        let rows = [
            d(base, 4096, 0, 0),
            d(base, 20, DESC_WRITE, 0),
            d(base - (1 << 40), 4096, DESC_WRITE, 0),
            d(base, 4096, DESC_WRITE | DESC_NEXT, 99),
        ];
        for row in rows {
            let head = rx.take_descriptor().unwrap();
            rx.write(head, row);
            rx.push_available(head);
            let _ = rx.publish();
            let _ = device.post_receives(nic);
            assert_eq!(rx.pop_used().unwrap().unwrap().len, 0, "{row:?}");
        }
        // One head twice: the second time it is with the NIC already.
        let head = rx.take_descriptor().unwrap();
        rx.write(head, d(base, 4096, DESC_WRITE, 0));
        for _ in 0..3 {
            rx.push_available(head);
        }
        rx.push_available(SIZE + 5);
        let _ = rx.publish();
        let _ = device.post_receives(nic);
        assert_eq!(device.in_flight().1, 1);
        assert_eq!(device.counters().rx_bad_chain, rows.len() as u64 + 3);
    });
}

fn device_survives_a_runaway_index<P: Policy>() {
    with_device::<P>(ALL, |device, nic, [mut tx, mut rx], _, _| {
        for _ in 0..=SIZE {
            tx.push_available(0);
            rx.push_available(0);
        }
        let _ = tx.publish();
        let _ = rx.publish();
        for _ in 0..3 {
            let _ = device.transmit(nic);
            let _ = device.post_receives(nic);
        }
        assert_eq!(device.counters().broken_ring, 2);
        assert_eq!(device.in_flight(), (0, 0));
    });
}

#[test]
fn a_hostile_driver_is_refused() {
    device_refuses_bad_sends::<SameThread>();
    device_refuses_bad_sends::<Shared>();
    device_refuses_bad_headers::<SameThread>();
    device_refuses_bad_headers::<Shared>();
    device_refuses_what_was_not_agreed::<SameThread>();
    device_refuses_what_was_not_agreed::<Shared>();
    device_refuses_bad_room::<SameThread>();
    device_refuses_bad_room::<Shared>();
    device_survives_a_runaway_index::<SameThread>();
    device_survives_a_runaway_index::<Shared>();
}

/// A driver half, and a device's rings in hostile hands.
fn with_driver<P: Policy>(
    layout: ReceiveLayout,
    test: impl FnOnce(&mut NetDriver<P>, &mut Arena, [DeviceRing<P>; 2]),
) {
    let mut arena = arena();
    let mut queues = Queues::new();
    let (transmit, receive) = queues.memories();
    let rings = [DeviceRing::new(transmit.clone(), false), DeviceRing::new(receive.clone(), false)];
    let mut driver = NetDriver::<P>::new(transmit, receive, None, layout, false);
    let _ = driver.refill(&mut arena);
    test(&mut driver, &mut arena, rings);
    assert_eq!(arena.counters().misuse, 0);
    let posted = u32::from(driver.in_flight().1) * u32::from(layout.slots);
    assert_eq!(arena.free_receive() + posted, arena.total_receive(), "no receive slot is lost");
}

const MERGEABLE: ReceiveLayout = ReceiveLayout { mergeable: true, slots: 1, posted_max: 32 };
const CHAINED: ReceiveLayout = ReceiveLayout { mergeable: false, slots: 4, posted_max: 8 };

fn release(arena: &mut Arena, frame: &Received) {
    for piece in &frame.pieces {
        arena.release(piece.slot);
    }
}

fn driver_refuses_bad_returns<P: Policy>(layout: ReceiveLayout) {
    with_driver::<P>(layout, |driver, arena, [_, mut rx]| {
        let mut frame = Received::default();
        let head = rx.peek(0);
        let room = u32::from(layout.slots) * 4096;
        // Ids that are not out, and one of them twice; lengths beyond and below.
        for (id, len) in [(SIZE, 100), (u16::MAX, 100), (head, room + 1), (head, 100)] {
            rx.push_used(id, len);
        }
        rx.push_used(rx.peek(1), 25);
        rx.push_used(rx.peek(2), 0);
        rx.push_used(rx.peek(3), u32::MAX);
        let _ = rx.publish();
        assert!(!driver.receive(arena, &mut frame));
        let counters = driver.counters();
        assert_eq!(counters.bad_used_id, 3, "{counters:?}");
        assert_eq!(counters.bad_used_len, 2, "{counters:?}");
        assert_eq!(counters.rx_drop_short, 4, "{counters:?}");
        assert_conserved(&counters);

        // The queue goes on.
        let good = rx.peek(4);
        write_header(&rx, good, NetHeader::RECEIVED);
        rx.push_used(good, 100);
        let _ = rx.publish();
        assert!(driver.receive(arena, &mut frame));
        assert_eq!(frame.pieces.iter().map(|p| p.len).sum::<u32>(), 88);
        release(arena, &frame);

        // Until the index runs away.
        for _ in 0..=SIZE {
            rx.push_used(0, 0);
        }
        let _ = rx.publish();
        for _ in 0..3 {
            assert!(!driver.receive(arena, &mut frame));
        }
        assert_eq!(driver.counters().broken_ring, 1);
    });
}

fn assert_conserved(counters: &DriverCounters) {
    let dropped = counters.rx_drop_short + counters.rx_drop_merge + counters.rx_drop_header;
    assert_eq!(counters.rx_returned, counters.rx_frames + dropped, "{counters:?}");
}

/// Writes a header with this number of buffers at the start of the posted buffer `head`.
fn write_header<P: Policy>(rx: &DeviceRing<P>, head: u16, header: NetHeader) {
    let addr = usize::try_from(rx.descriptor(head).addr).unwrap();
    let place = std::ptr::with_exposed_provenance_mut::<[u8; 12]>(addr);
    // SAFETY: a posted buffer of the test's arena, which is the device's to write.
    unsafe { place.write_unaligned(header.encode()) };
}

fn driver_refuses_bad_merges<P: Policy>() {
    with_driver::<P>(MERGEABLE, |driver, arena, [_, mut rx]| {
        let mut frame = Received::default();
        let mut next = 0;
        let rows: [(&str, u16, Vec<u32>, bool); 7] = [
            ("three buffers", 3, vec![4096, 4096, 7], true),
            ("none", 0, vec![100], false),
            ("never complete", 3, vec![4096, 100], false),
            ("an empty one", 2, vec![4096, 0], false),
            ("one too long", 2, vec![4096, 4097], false),
            ("absurd", u16::MAX, vec![4096], false),
            ("more than 18", 19, vec![4096; 19], false),
        ];
        let mut dropped = 0;
        for (name, num_buffers, lengths, good) in rows {
            for (i, &len) in lengths.iter().enumerate() {
                let head = rx.peek(next);
                next += 1;
                if i == 0 {
                    write_header(&rx, head, NetHeader { num_buffers, ..NetHeader::RECEIVED });
                }
                rx.push_used(head, len);
            }
            let _ = rx.publish();
            assert_eq!(driver.receive(arena, &mut frame), good, "{name}");
            if good {
                assert_eq!(frame.pieces.len(), 3);
                assert_eq!(frame.pieces.iter().map(|p| p.len).sum::<u32>(), 8192 + 7 - 12);
                release(arena, &frame);
            } else {
                dropped += 1;
            }
            assert_eq!(driver.counters().rx_drop_merge, dropped, "{name}");
            assert_conserved(&driver.counters());
        }
    });
}

/// Headers that make no sense: each frame is dropped and counted.
fn driver_refuses_bad_headers<P: Policy>() {
    with_driver::<P>(MERGEABLE, |driver, arena, [_, mut rx]| {
        let mut frame = Received::default();
        let partial = NetHeader { flags: NEEDS_CSUM, csum_start: 999, ..NetHeader::RECEIVED };
        let large = NetHeader { gso_type: GSO_TCPV4, gso_size: 20, csum_start: 34, ..partial };
        let bad = [
            partial,
            NetHeader { csum_start: 34, csum_offset: u16::MAX, ..partial },
            NetHeader { gso_size: 0, ..large },
            NetHeader { flags: 0, ..large },
            NetHeader { gso_type: 7, ..large },
            NetHeader { gso_type: GSO_ECN, ..large },
        ];
        for (number, header) in bad.into_iter().enumerate() {
            let head = rx.peek(u16::try_from(number).unwrap());
            write_header(&rx, head, header);
            rx.push_used(head, 100);
            let _ = rx.publish();
            assert!(!driver.receive(arena, &mut frame), "{header:?}");
            assert_eq!(driver.counters().rx_drop_header, number as u64 + 1, "{header:?}");
            assert_conserved(&driver.counters());
        }
    });
}

fn driver_releases_once<P: Policy>() {
    with_driver::<P>(MERGEABLE, |driver, arena, [mut tx, _]| {
        let slot = arena.allocate(SlotClass::Small).unwrap();
        let piece = Piece { slot, start: 18, len: 60 };
        let _ = driver.transmit(arena, &[piece], &NetHeader::default()).unwrap();
        let head = tx.peek(0);
        for id in [head, head, SIZE, u16::MAX] {
            tx.push_used(id, u32::MAX);
        }
        let _ = tx.publish();
        driver.reap(arena);
        let counters = driver.counters();
        assert_eq!((counters.tx_completed, counters.bad_used_id), (1, 3));
        assert_eq!(arena.free(SlotClass::Small), 64);
    });
}

#[test]
fn a_hostile_device_is_refused() {
    for layout in [MERGEABLE, CHAINED] {
        driver_refuses_bad_returns::<SameThread>(layout);
        driver_refuses_bad_returns::<Shared>(layout);
    }
    driver_refuses_bad_merges::<SameThread>();
    driver_refuses_bad_merges::<Shared>();
    driver_refuses_bad_headers::<SameThread>();
    driver_refuses_bad_headers::<Shared>();
    driver_releases_once::<SameThread>();
    driver_releases_once::<Shared>();
}
