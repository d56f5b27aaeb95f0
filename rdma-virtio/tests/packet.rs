//! `packet:` over veth pairs: against itself and against the host's kernel, each test in network
//! namespaces of its own. Skipped, loudly, without root.

mod tap_world;

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use roceway_rdma_virtio::nic::packet::{PacketNic, PacketOptions};
use roceway_rdma_virtio::nic::{Armed, Nic, NicEvent, PostError, WcStatus};
use tap_world::*;

const HOST: [u8; 4] = [10, 8, 0, 1];
const US: [u8; 4] = [10, 8, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn options() -> PacketOptions {
    PacketOptions { mac: Some(OUR_MAC), ring: 64, ..PacketOptions::default() }
}

fn open(options: &PacketOptions) -> Port<PacketNic> {
    let mut port = Port::new(PacketNic::open("va", options).unwrap());
    port.wait_for_link();
    port
}

/// What the kernel at the other end needs to know of us.
fn introduce(port: &mut Port<PacketNic>) {
    // More than once: an interface that has just come up loses frames for some milliseconds.
    for _ in 0..20 {
        assert_eq!(port.send(&arp_request(US, HOST)), WcStatus::Success);
        while let Some(message) = port.recv(Duration::from_millis(100)) {
            if let Some(mac) = arp_reply(&message) {
                assert_eq!(mac, HOST_MAC);
                return;
            }
        }
    }
    panic!("no ARP reply; counters: {:?}", port.counters());
}

#[test]
fn the_kernel_at_the_other_end_answers_arp_and_ping() {
    in_namespace("the_kernel_at_the_other_end_answers_arp_and_ping", || {
        let _peer = veth();
        let mut port = open(&options());
        introduce(&mut port);
        for length in [0, 1, 100, 1472] {
            let data = vec![0x5a; length];
            assert_eq!(port.send(&ping(HOST_MAC, US, HOST, &data)), WcStatus::Success);
            port.expect("pong", |m| is_pong(m, &data));
        }
        // More than the MTU on the wire is refused, and that request alone.
        let long = ping(HOST_MAC, US, HOST, &[0; 1600]);
        assert_eq!(port.send(&long), WcStatus::General);
        assert_eq!(port.counter("tx_last_errno"), u64::from(libc::EMSGSIZE.unsigned_abs()));
        introduce(&mut port);
    });
}

#[test]
fn two_nics_meet_over_a_veth_pair() {
    in_namespace("two_nics_meet_over_a_veth_pair", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), ..options() };
        let mut there = Port::new(PacketNic::open("vb", &far).unwrap());
        assert_eq!(there.nic.capabilities().mac, Some(other_mac));
        for length in [1, 60, 1000, 1500] {
            let data: Vec<u8> = (0..length).map(|i: usize| (i % 199).to_le_bytes()[0]).collect();
            let message = frame(other_mac, 0x88b5, &data);
            assert_eq!(here.send(&message), WcStatus::Success);
            assert_eq!(there.expect("frame", |m| ethertype(m) == 0x88b5), message);
        }
        // What is for somebody else, or what we sent ourselves, is not ours.
        assert_eq!(here.send(&frame([2, 0, 0, 0, 0, 9], 0x88b5, &[1; 50])), WcStatus::Success);
        assert_eq!(here.send(&frame([1, 0, 0x5e, 0, 0, 1], 0x88b5, &[2; 50])), WcStatus::Success);
        assert_eq!(here.send(&frame([0xff; 6], 0x88b5, &[3; 50])), WcStatus::Success);
        assert_eq!(
            here.send(&frame([0x33, 0x33, 0, 0, 0, 1], 0x88b5, &[4; 50])),
            WcStatus::Success
        );
        for first in [3, 4] {
            let got = there.expect("group frame", |m| ethertype(m) == 0x88b5);
            assert_eq!(got[26], first);
        }
        while let Some(message) = here.recv(Duration::from_millis(20)) {
            assert_ne!(ethertype(&message), 0x88b5);
        }
    });
}

#[test]
fn a_large_segment_reaches_another_nic_whole() {
    in_namespace("a_large_segment_reaches_another_nic_whole", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), ..options() };
        let mut there = Port::new(PacketNic::open("vb", &far).unwrap());
        let tcp = Tcp { mac: other_mac, from: (US, 1), to: (HOST, 9), seq: 1, ack: 0, flags: ACK };
        // The longest frame that an interface passes: 65,535 bytes with its Ethernet header.
        for length in [1, 1460, 1461, 20_000, 65_481] {
            let data: Vec<u8> = (0..length).map(|i: usize| (i % 199).to_le_bytes()[0]).collect();
            let message = tcp.message(&data);
            assert_eq!(here.send(&message), WcStatus::Success, "{length}");
            let got = there.expect("segment", |m| is_tcp_to(m, 9));
            assert_eq!(got[12..], message[12..], "{length}");
            assert_eq!(got[..2], message[..2], "{length}: partial, and segmentation kept");
            assert_eq!(got[4..10], message[4..10], "{length}");
        }
        let longer = tcp.message(&[0; 65_482]);
        assert_eq!(here.try_send(&longer), Err(PostError::TooLong));
    });
}

#[test]
fn the_kernel_takes_a_64_kb_segment_whole() {
    in_namespace("the_kernel_takes_a_64_kb_segment_whole", || {
        let peer = veth();
        let mut port = open(&options());
        introduce(&mut port);
        assert!(port.nic.capabilities().tso4);
        let raw = peer.run(raw_tcp);
        large_send(&mut port, HOST_MAC, HOST, || read_packets(&raw, 65_000));
    });
}

#[test]
fn an_interface_that_cannot_segment_is_not_asked_to() {
    in_namespace("an_interface_that_cannot_segment_is_not_asked_to", || {
        let _peer = veth();
        assert!(PacketNic::open("va", &options()).unwrap().capabilities().tso4);
        ip("link set va gso_max_size 30000");
        let mut port = open(&options());
        assert_eq!(port.nic.capabilities().max_message, 12 + 29_999);
        let tcp = Tcp { mac: HOST_MAC, from: (US, 1), to: (HOST, 9), seq: 1, ack: 0, flags: ACK };
        assert_eq!(port.send(&tcp.message(&[0; 29_999 - 54])), WcStatus::Success);
        assert_eq!(port.try_send(&tcp.message(&[0; 30_000 - 54])), Err(PostError::TooLong));
        set_tso("va", false);
        let nic = PacketNic::open("va", &options()).unwrap();
        assert!(!nic.capabilities().tso4 && !nic.capabilities().tso6);
    });
}

/// What `ethtool -K IF tso on|off` does.
fn set_tso(name: &str, on: bool) {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STSO: u32 = 0x1f;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut value = [ETHTOOL_STSO, u32::from(on)];
    // SAFETY: ifreq is plain integers and byte arrays; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request points to an ethtool_value that outlives the call.
    let result = unsafe { libc::ioctl(fd, SIOCETHTOOL, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn the_kernel_s_partial_checksums_and_large_frames_arrive() {
    in_namespace("the_kernel_s_partial_checksums_and_large_frames_arrive", || {
        let peer = veth();
        for (number, checksum) in [true, false].into_iter().enumerate() {
            let mut port = open(&PacketOptions { checksum, ..options() });
            introduce(&mut port);
            if !checksum {
                // Nothing larger than the MTU may come then; on this wire its sender decides.
                peer.run(|| set_tso("vb", false));
            }
            let server =
                peer.run(|| serve_14000(TcpListener::bind((Ipv4Addr::from(HOST), 80)).unwrap()));
            let seen = tcp_receive(&mut port, HOST_MAC, HOST, 80);
            server.join().unwrap();
            assert_eq!(seen.longest > 1600, checksum, "row {number}: {seen:?}");
            assert_eq!(seen.partial > 0, checksum, "row {number}: {seen:?}");
            assert_eq!(seen.right > 0, !checksum, "row {number}: {seen:?}");
            assert_eq!(port.counter("rx_dropped_too_large"), 0);
        }
    });
}

#[test]
fn large_frames_that_are_not_wanted_are_dropped_and_counted() {
    in_namespace("large_frames_that_are_not_wanted_are_dropped_and_counted", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), large_receive: false, ..options() };
        let mut there = Port::new(PacketNic::open("vb", &far).unwrap());
        let tcp = Tcp { mac: other_mac, from: (US, 1), to: (HOST, 9), seq: 1, ack: 0, flags: ACK };
        for length in [20_000, 1470, 100] {
            assert_eq!(here.send(&tcp.message(&vec![0; length])), WcStatus::Success);
        }
        let got = there.expect("segment", |m| is_tcp_to(m, 9));
        assert_eq!(got.len(), 12 + 54 + 100);
        let dropped = there.counter("rx_dropped_too_large") + there.counter("rx_dropped_unusable");
        assert_eq!(dropped, 2);
    });
}

#[test]
fn a_full_ring_drops_and_counts_and_what_it_holds_waits() {
    in_namespace("a_full_ring_drops_and_counts_and_what_it_holds_waits", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), ..options() };
        let mut there = Port::bare(PacketNic::open("vb", &far).unwrap());
        there.maintain();
        for i in 0..100_u8 {
            assert_eq!(here.send(&frame(other_mac, 0x88b5, &[i; 50])), WcStatus::Success);
        }
        assert!(!there.nic.recv_ready(), "nothing is posted");
        assert_eq!(there.nic.arm().unwrap(), Armed::Quiet);
        assert!(!there.readable(Duration::ZERO));
        there.nic.disarm();
        for i in 0..64 {
            there.post(i);
        }
        let mut frames = 0;
        while let Some(message) = there.recv(Duration::from_millis(20)) {
            if ethertype(&message) == 0x88b5 {
                assert_eq!(message[26], frames);
                frames += 1;
            }
        }
        assert!((50..=64).contains(&frames), "{frames}");
        there.nic.maintain(u64::MAX).unwrap();
        assert!(there.counter("rx_dropped_ring_full") >= 36);
    });
}

#[test]
fn a_message_longer_than_all_posted_receives_waits_or_is_dropped() {
    in_namespace("a_message_longer_than_all_posted_receives_waits_or_is_dropped", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), ..options() };
        let mut there = Port::bare(PacketNic::open("vb", &far).unwrap());
        let tcp = Tcp { mac: other_mac, from: (US, 1), to: (HOST, 9), seq: 1, ack: 0, flags: ACK };
        there.post(0);
        let message = tcp.message(&[7; 10_000]);
        assert_eq!(here.send(&message), WcStatus::Success);
        let mut out = [blank(); 4];
        // Noise of the kernel's (router solicitations) may take the receive first.
        let limit = std::time::Instant::now() + Duration::from_secs(2);
        while there.counter("rx_waited_for_buffers") == 0 {
            assert!(std::time::Instant::now() < limit);
            if there.nic.poll_recv(&mut out) == 1 {
                there.post(0);
            }
        }
        assert!(!there.nic.recv_ready());
        there.post(1);
        assert!(!there.nic.recv_ready());
        there.post(2);
        let got = there.expect("segment", |m| is_tcp_to(m, 9));
        assert_eq!(got[12..], message[12..]);
        // Three receives of 4 KiB are posted again; 60,000 bytes never find room.
        assert_eq!(here.send(&tcp.message(&[7; 60_000])), WcStatus::Success);
        assert_eq!(here.send(&frame(other_mac, 0x88b5, &[1; 50])), WcStatus::Success);
        assert_eq!(there.nic.poll_recv(&mut out), 0);
        there.nic.maintain(1 << 40).unwrap();
        there.nic.maintain((1 << 40) + 100_000_000).unwrap();
        assert_eq!(there.counter("rx_dropped_no_buffers"), 1);
        there.expect("frame behind it", |m| ethertype(m) == 0x88b5);
    });
}

#[test]
fn an_interface_that_goes_down_and_up_tells_so() {
    in_namespace("an_interface_that_goes_down_and_up_tells_so", || {
        let peer = veth();
        let mut port = open(&options());
        introduce(&mut port);
        while port.recv(Duration::from_millis(20)).is_some() {}
        ip("link set va down");
        assert_eq!(port.event(), NicEvent::LinkDown);
        assert_eq!(port.try_send(&arp_request(US, HOST)), Err(PostError::LinkDown));
        assert_eq!(port.nic.arm().unwrap(), Armed::Quiet);
        assert!(!port.readable(Duration::from_millis(20)), "a link that is down is no event");
        port.nic.disarm();
        ip("link set va up");
        assert_eq!(port.event(), NicEvent::LinkUp);
        introduce(&mut port);
        // Carrier goes when the other end does.
        peer.run(|| ip("link set vb down"));
        assert_eq!(port.event(), NicEvent::LinkDown);
        peer.run(|| ip("link set vb up"));
        assert_eq!(port.event(), NicEvent::LinkUp);
        introduce(&mut port);
    });
}

#[test]
fn an_interface_that_is_deleted_is_removed_and_nothing_spins() {
    in_namespace("an_interface_that_is_deleted_is_removed_and_nothing_spins", || {
        let _peer = veth();
        let mut port = open(&options());
        introduce(&mut port);
        while port.recv(Duration::from_millis(20)).is_some() {}
        ip("link del va");
        assert_eq!(port.try_send(&arp_request(US, HOST)), Err(PostError::LinkDown));
        assert_eq!(port.event(), NicEvent::Removed);
        let mut out = [blank(); 128];
        let flushed = port.nic.poll_recv(&mut out);
        assert_eq!(flushed, 64);
        assert!(out[..flushed].iter().all(|c| c.status == WcStatus::Flushed));
        assert_eq!(port.nic.arm().unwrap(), Armed::Quiet);
        assert!(!port.readable(Duration::from_millis(50)));
        assert_eq!(port.maintain(), None);
    });
}

#[test]
fn an_armed_nic_wakes_for_a_frame_of_its_own_only() {
    in_namespace("an_armed_nic_wakes_for_a_frame_of_its_own_only", || {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let other_mac = [2, 0, 0, 0, 0, 3];
        let mut here = open(&options());
        let far = PacketOptions { mac: Some(other_mac), ..options() };
        let mut there = Port::new(PacketNic::open("vb", &far).unwrap());
        // The kernel's own frames of a fresh interface come first; wait for silence.
        while there.recv(Duration::from_millis(1500)).is_some() {}
        there.maintain();
        assert_eq!(there.nic.arm().unwrap(), Armed::Quiet);
        assert_eq!(here.send(&frame([2, 0, 0, 0, 0, 9], 0x88b5, &[1; 50])), WcStatus::Success);
        assert!(!there.readable(Duration::from_millis(20)));
        assert_eq!(here.send(&frame(other_mac, 0x88b5, &[1; 50])), WcStatus::Success);
        assert!(there.readable(Duration::from_secs(1)));
        there.nic.disarm();
        there.expect("frame", |m| ethertype(m) == 0x88b5);
        assert_eq!(there.nic.arm().unwrap(), Armed::Quiet);
        there.nic.disarm();
    });
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    in_namespace("what_is_missing_is_named_with_its_remedy", || {
        let error = PacketNic::open("nosuch0", &options()).unwrap_err().to_string();
        assert!(
            error.starts_with("packet:nosuch0: ioctl(SIOCGIFINDEX): No such device"),
            "{error}"
        );
        assert!(error.contains("`ip link` lists the interfaces"), "{error}");
        ip("link add va type veth peer name vb");
        let nic = PacketNic::open("va", &PacketOptions { mac: None, ..options() }).unwrap();
        let mac = nic.capabilities().mac.unwrap();
        assert_eq!(mac[0] & 3, 2, "locally administered unicast");
        let rows = [
            ("ring", PacketOptions { ring: 0, ..options() }, "must be 64 to 4096"),
            ("queue", PacketOptions { queue: 0, ..options() }, "must be 1 to 4096"),
            ("mac", PacketOptions { mac: Some([0xff; 6]), ..options() }, "nor all zero"),
        ];
        for (name, options, text) in rows {
            let error = PacketNic::open("va", &options).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(text), "{error}");
        }
        drop_network_capabilities();
        let error = PacketNic::open("va", &options()).unwrap_err().to_string();
        assert!(
            error.starts_with("packet:va: socket(AF_PACKET): Operation not permitted"),
            "{error}"
        );
        assert!(error.contains("sudo setcap cap_net_raw+ep /"), "{error}");
    });
}
