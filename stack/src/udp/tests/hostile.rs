//! Random calls and frames: nothing panics, nothing leaks, everything is counted.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Bind(u8),
    Connect(u8),
    Close(u8),
    Send(u8, u16),
    Recv(u8),
    Exchange,
    Lose,
    Corrupt(u16),
    Wait(u16),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(Step::Bind),
        any::<u8>().prop_map(Step::Connect),
        any::<u8>().prop_map(Step::Close),
        (any::<u8>(), 0..5000u16).prop_map(|(id, len)| Step::Send(id, len)),
        any::<u8>().prop_map(Step::Recv),
        Just(Step::Exchange),
        Just(Step::Lose),
        any::<u16>().prop_map(Step::Corrupt),
        (0..5000u16).prop_map(Step::Wait),
        Just(Step::Compact),
    ]
}

/// One of the socket's ids, of which some are closed already.
fn pick(ids: &[UdpId], number: u8) -> Option<UdpId> {
    ids.get(usize::from(number) % ids.len().max(1)).copied()
}

fn act(a: &mut Host, b: &mut Host, ids: &mut Vec<UdpId>, step: &Step) {
    match *step {
        Step::Bind(port) => {
            if let Ok(id) = a.udp.bind(&a.ip, any_v4(u16::from(port % 16))) {
                ids.push(id);
            }
        }
        Step::Connect(number) => {
            if let Some(id) = pick(ids, number) {
                let _: Result<(), UdpError> = a.udp.connect(&a.ip, id, at(2, 2000));
            }
        }
        Step::Close(number) => {
            if let Some(id) = pick(ids, number) {
                let _: Result<(), UdpError> = a.udp.close(id, &mut a.mem);
            }
        }
        Step::Send(number, len) => {
            if let Some(id) = pick(ids, number) {
                let data = std::vec![number; usize::from(len)];
                let _: Result<(), UdpError> = a.send(id, &data, Some(at(2, 2000)));
            }
        }
        Step::Recv(number) => {
            if let Some(id) = pick(ids, number) {
                let _: Result<_, UdpError> = a.recv(id);
            }
        }
        Step::Exchange => exchange(a, b),
        Step::Lose => drop(a.sent()),
        Step::Corrupt(at) => {
            for (mut frame, _) in a.sent() {
                let at = usize::from(at) % frame.len();
                frame[at] ^= 0x55;
                b.give(&frame);
                frame[..6].copy_from_slice(&a.ip.mac());
                a.give(&frame);
            }
        }
        Step::Wait(ms) => a.wait(Duration::from_millis(u64::from(ms))),
        Step::Compact => a.udp.compact(&mut a.mem),
    }
    a.events();
    a.udp.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_calls_leave_nothing_behind(
        steps in proptest::collection::vec(step(), 1..80), seed in any::<u8>()
    ) {
        let config = UdpConfig { sockets: 8, send_frames: 6, ..UdpConfig::default() };
        let limits = HeapLimits { small: 12, chunks: 12, receive: 64, ..HeapLimits::default() };
        let mut a = Host::with(1, |_| {}, config, limits);
        let mut b = Host::new(2);
        let echo = b.bind(any_v4(2000));
        let mut ids = Vec::new();
        for step in &steps {
            act(&mut a, &mut b, &mut ids, step);
            while let Ok((data, source)) = b.recv(echo) {
                let answer = &data[..data.len().min(999)];
                let _: Result<(), UdpError> = b.send(echo, answer, Some(source));
            }
        }
        prop_assert!(a.udp.len() <= 8, "{}", seed);
    }

    #[test]
    fn a_random_datagram_is_counted_once(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..64), valid in any::<bool>()
    ) {
        let mut a = Host::new(1);
        a.bind(any_v4(2000));
        if valid {
            a.received_checksum = RxChecksum::Valid;
        }
        if bytes.len() >= 4 {
            bytes[2..4].copy_from_slice(&2000u16.to_be_bytes());
        }
        let header = crate::wire::ipv4::Ipv4Header {
            tos: 0,
            total_len: u16::try_from(20 + bytes.len()).unwrap(),
            ident: 0,
            flags_and_offset: 0,
            ttl: 9,
            protocol: 17,
            source: core::net::Ipv4Addr::new(10, 0, 0, 2),
            destination: core::net::Ipv4Addr::new(10, 0, 0, 1),
        };
        let mut frame = a.ip.link_header(a.ip.mac(), 0x0800).to_vec();
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(&bytes);
        a.give(&frame);
        prop_assert_eq!(a.udp.counters().received, 1);
    }
}
