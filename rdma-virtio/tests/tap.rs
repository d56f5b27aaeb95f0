//! `tap:` against the host's kernel, each test in a network namespace of its own. Skipped, loudly,
//! without root.

mod tap_world;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use roceway_rdma_virtio::nic::rtnl::Interface;
use roceway_rdma_virtio::nic::tap::{TapNic, TapOptions};
use roceway_rdma_virtio::nic::{Armed, Nic, NicEvent, PostError, WcStatus};
use tap_world::*;

const HOST: [u8; 4] = [10, 8, 0, 1];
const US: [u8; 4] = [10, 8, 0, 2];

fn options() -> TapOptions {
    TapOptions {
        addresses: vec![(IpAddr::V4(Ipv4Addr::from(HOST)), 24)],
        up: true,
        ..TapOptions::default()
    }
}

fn open(options: &TapOptions) -> Port<TapNic> {
    let mut port = Port::new(TapNic::open("t0", options).unwrap());
    port.wait_for_link();
    port
}

fn host_mac() -> [u8; 6] {
    Interface::new("t0").unwrap().mac().unwrap()
}

#[test]
fn the_kernel_answers_arp_and_ping() {
    in_namespace("the_kernel_answers_arp_and_ping", || {
        let mut port = open(&options());
        assert_eq!(port.send(&arp_request(US, HOST)), WcStatus::Success);
        let answer = port.expect("ARP reply", |m| arp_reply(m).is_some());
        assert_eq!(arp_reply(&answer), Some(host_mac()));
        for length in [0, 1, 100, 1472] {
            let data = vec![0x5a; length];
            assert_eq!(port.send(&ping(host_mac(), US, HOST, &data)), WcStatus::Success);
            port.expect("pong", |m| is_pong(m, &data));
        }
        assert_eq!(port.counter("tx_failed"), 0);
        assert_eq!(port.counter("rx_errors"), 0);
    });
}

#[test]
fn ipv6_addresses_are_usable_at_once() {
    in_namespace("ipv6_addresses_are_usable_at_once", || {
        allow_ipv6(true);
        let address: IpAddr = "fd00::1".parse().unwrap();
        let _port = open(&TapOptions { addresses: vec![(address, 64)], ..options() });
        std::net::UdpSocket::bind((address, 0)).unwrap();
    });
}

#[test]
fn the_kernel_takes_a_64_kb_segment_whole() {
    in_namespace("the_kernel_takes_a_64_kb_segment_whole", || {
        let mut port = open(&options());
        assert!(port.nic.capabilities().tso4);
        let raw = raw_tcp();
        large_send(&mut port, host_mac(), HOST, || read_packets(&raw, 65_000));
    });
}

#[test]
fn offloads_follow_the_options_whatever_an_earlier_process_set() {
    in_namespace("offloads_follow_the_options_whatever_an_earlier_process_set", || {
        ip("tuntap add t0 mode tap");
        let off = TapOptions { checksum: false, ..options() };
        let plain = TapOptions { large_receive: false, ..options() };
        // Large frames and partial checksums must vanish as soon as they are not wanted.
        let rows = [
            (options(), true, true),
            (off.clone(), false, false),
            (options(), true, true),
            (plain, false, true),
            (off, false, false),
        ];
        for (number, (options, large, partial)) in rows.into_iter().enumerate() {
            let mut port = open(&options);
            let capabilities = port.nic.capabilities();
            assert_eq!((capabilities.rx_large4, capabilities.rx_checksum), (large, partial));
            let listener = TcpListener::bind((Ipv4Addr::from(HOST), 80)).unwrap();
            assert_eq!(port.send(&arp_request(US, HOST)), WcStatus::Success);
            let server = serve_14000(listener);
            let seen = tcp_receive(&mut port, host_mac(), HOST, 80);
            server.join().unwrap();
            assert_eq!(seen.longest > 1600, large, "row {number}: {seen:?}");
            assert_eq!(seen.partial > 0, partial, "row {number}: {seen:?}");
            assert_eq!(seen.right > 0, !partial, "row {number}: {seen:?}");
        }
    });
}

#[test]
fn an_interface_that_goes_down_and_up_tells_so() {
    in_namespace("an_interface_that_goes_down_and_up_tells_so", || {
        let mut port = open(&options());
        ip("link set t0 down");
        assert_eq!(port.event(), NicEvent::LinkDown);
        assert_eq!(port.try_send(&arp_request(US, HOST)), Err(PostError::LinkDown));
        ip("link set t0 up");
        assert_eq!(port.event(), NicEvent::LinkUp);
        assert_eq!(port.send(&arp_request(US, HOST)), WcStatus::Success);
        port.expect("ARP reply", |m| arp_reply(m).is_some());
    });
}

#[test]
fn an_interface_that_is_deleted_is_removed_and_nothing_spins() {
    in_namespace("an_interface_that_is_deleted_is_removed_and_nothing_spins", || {
        let mut port = open(&options());
        while port.recv(Duration::from_millis(20)).is_some() {}
        ip("link del t0");
        // Before the event is seen, errors are counted and harmless.
        assert_eq!(port.try_send(&arp_request(US, HOST)), Err(PostError::LinkDown));
        assert!(!port.nic.recv_ready());
        assert!(port.counter("rx_errors") >= 1);
        assert_eq!(port.event(), NicEvent::Removed);
        let mut out = [blank(); 128];
        let flushed = port.nic.poll_recv(&mut out);
        assert_eq!(flushed, 64);
        assert!(out[..flushed].iter().all(|c| c.status == WcStatus::Flushed));
        let errors = port.counter("rx_errors");
        for _ in 0..100 {
            assert!(!port.nic.recv_ready());
        }
        assert_eq!(port.counter("rx_errors"), errors);
        assert_eq!(port.nic.arm().unwrap(), Armed::Quiet);
        assert!(!port.readable(Duration::from_millis(50)));
        assert_eq!(port.maintain(), None);
    });
}

#[test]
fn an_armed_nic_wakes_for_a_frame_and_for_the_link() {
    in_namespace("an_armed_nic_wakes_for_a_frame_and_for_the_link", || {
        let mut port = open(&options());
        while port.recv(Duration::from_millis(20)).is_some() {}
        port.maintain();
        assert_eq!(port.nic.arm().unwrap(), Armed::Quiet);
        let peer = std::net::UdpSocket::bind((Ipv4Addr::from(HOST), 0)).unwrap();
        peer.set_broadcast(true).unwrap();
        peer.send_to(b"x", (Ipv4Addr::new(10, 8, 0, 255), 9)).unwrap();
        assert!(port.readable(Duration::from_secs(2)));
        port.nic.disarm();
        port.expect("broadcast", |m| ethertype(m) == 0x0800);
        while port.recv(Duration::from_millis(20)).is_some() {}
        port.maintain();
        assert_eq!(port.nic.arm().unwrap(), Armed::Quiet);
        ip("link set t0 down");
        assert!(port.readable(Duration::from_secs(2)));
        port.nic.disarm();
        assert_eq!(port.event(), NicEvent::LinkDown);
    });
}

#[test]
fn the_mtu_is_the_one_asked_for() {
    in_namespace("the_mtu_is_the_one_asked_for", || {
        for mtu in [68, 1500, 9000, 65_521] {
            let options = TapOptions { mtu: Some(mtu), ..TapOptions::default() };
            let nic = TapNic::open("t0", &options).unwrap();
            assert_eq!(nic.capabilities().mtu, mtu);
        }
        for mtu in [0, 67, 65_522] {
            let options = TapOptions { mtu: Some(mtu), ..TapOptions::default() };
            let error = TapNic::open("t0", &options).unwrap_err().to_string();
            assert!(error.contains("must be 68 to 65521"), "{error}");
        }
        // What one opening made, and what a failed one did, is gone.
        let bad = vec![(IpAddr::V4(Ipv4Addr::from(HOST)), 33)];
        let options = TapOptions { addresses: bad, ..TapOptions::default() };
        let error = TapNic::open("t0", &options).unwrap_err().to_string();
        assert!(error.starts_with("tap:t0: netlink(RTM_NEWADDR): Invalid argument"), "{error}");
        assert!(Interface::new("t0").unwrap().index().is_err());
    });
}

#[test]
fn without_privilege_the_error_names_call_and_remedy() {
    in_namespace("without_privilege_the_error_names_call_and_remedy", || {
        drop_network_capabilities();
        let error = TapNic::open("t0", &options()).unwrap_err().to_string();
        assert!(error.starts_with("tap:t0: ioctl(TUNSETIFF): Operation not permitted"), "{error}");
        assert!(error.contains("sudo setcap cap_net_admin+ep /"), "{error}");
        assert!(error.contains("sudo ip tuntap add dev t0 mode tap user $USER"), "{error}");
    });
}

#[test]
fn the_owner_of_a_persistent_tap_needs_no_privilege() {
    in_namespace("the_owner_of_a_persistent_tap_needs_no_privilege", || {
        ip("tuntap add t0 mode tap user 0");
        ip("addr add 10.8.0.1/24 dev t0");
        ip("link set t0 up");
        drop_network_capabilities();
        let mut port = open(&TapOptions::default());
        assert_eq!(port.send(&arp_request(US, HOST)), WcStatus::Success);
        port.expect("ARP reply", |m| arp_reply(m).is_some());
        let second = TapNic::open("t0", &TapOptions::default()).unwrap_err().to_string();
        assert!(second.contains("another process has it open"), "{second}");
    });
}

#[test]
fn an_interface_of_another_kind_is_refused() {
    in_namespace("an_interface_of_another_kind_is_refused", || {
        ip("link add va type veth peer name vb");
        for name in ["va", "lo"] {
            let error = TapNic::open(name, &TapOptions::default()).unwrap_err().to_string();
            assert!(error.contains("is not a single-queue TAP"), "{error}");
        }
        let error = TapNic::open("a name", &TapOptions::default()).unwrap_err().to_string();
        assert!(error.contains("1 to 15 characters"), "{error}");
    });
}
