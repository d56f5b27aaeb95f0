//! Round trips of control messages, netperf's own layouts, and garbage.

use proptest::prelude::*;

use super::message::MESSAGE_BYTES;
use super::*;

/// The request of a stock `netperf -t TCP_RR -l 1 -H 127.0.0.1`, by word number.
const STOCK_TCP_RR: [(usize, i32); 22] = [
    (0, -1),
    (2, 8),
    (4, 1),
    (5, 1),
    (6, -1),
    (8, 8),
    (10, 1),
    (11, 1),
    (12, 0x20),
    (14, 1),
    (17, -1),
    (18, -1),
    (19, -1),
    (20, 0),
    (21, 4),
    (22, 1),
    (23, 6),
    (24, 6),
    (25, 0),
    (28, 0x7f00_0001),
    (36, -1),
    (37, -1),
];

fn stock(changes: &[(usize, i32)]) -> Message {
    let mut message = Message::new(kind::OMNI, 0);
    for (word, value) in STOCK_TCP_RR.iter().chain(changes) {
        message.set_signed(*word, *value);
    }
    Message::decode(&message.encode())
}

#[test]
fn a_stock_request_of_each_test_is_understood() {
    use Kind::{ConnectRequestResponse, Receive, RequestResponse, Send};
    let udp = [(22, 2), (23, 17)];
    let stream = [(1, 16_384), (5, -1), (11, -1), (24, 4)];
    let maerts = [(1, 16_384), (5, -1), (11, -1), (24, 2)];
    let udp_stream = [(7, 65_507), (5, -1), (11, -1), (12, 0), (24, 4), (22, 2), (23, 17)];
    for (changes, protocol, kind) in [
        (&[][..], Protocol::Tcp, RequestResponse),
        (&stream, Protocol::Tcp, Send),
        (&maerts, Protocol::Tcp, Receive),
        (&[(12, 0x24)], Protocol::Tcp, ConnectRequestResponse),
        (&udp, Protocol::Udp, RequestResponse),
        (&udp_stream, Protocol::Udp, Send),
    ] {
        let request = TestRequest::decode(&stock(changes)).unwrap();
        assert_eq!((request.protocol, request.kind), (protocol, kind), "{changes:?}");
        assert_eq!(request.length, Length::Seconds(1));
        assert_eq!((request.request, request.response), (1, 1));
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_its_word() {
    for (changes, refusal) in [
        (&[(21, 7)][..], BadRequest::Family(7)),
        (&[(22, 3)], BadRequest::Protocol(3, 6)),
        (&[(22, 1), (23, 17)], BadRequest::Protocol(1, 17)),
        (&[(24, 0)], BadRequest::Direction(0)),
        (&[(22, 2), (23, 17), (24, 2)], BadRequest::Direction(2)),
        (&[(5, i32::MIN)], BadRequest::Size(5, i32::MIN)),
        (&[(11, i32::MAX)], BadRequest::Size(11, i32::MAX)),
        (&[(14, 0)], BadRequest::Length(0)),
        (&[(14, i32::MAX)], BadRequest::Length(i32::MAX)),
        (&[(20, 65_536)], BadRequest::Port(65_536)),
    ] {
        assert_eq!(TestRequest::decode(&stock(changes)), Err(refusal), "{changes:?}");
    }
    let other = Message::new(1, 0);
    assert_eq!(TestRequest::decode(&other), Err(BadRequest::Kind(1)));
}

#[test]
fn words_lie_where_netperf_has_them() {
    let request = TestRequest::decode(&stock(&[(14, -5000)])).unwrap();
    assert_eq!(request.length, Length::Count(5000));
    let bytes = request.encode().encode();
    let word = |data: usize| -> i32 {
        let at = 8 + 4 * data;
        i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    assert_eq!(bytes[..8], [0, 0, 0, 97, 0, 0, 0, 0]);
    let flags = 0x20 | 0x08 | 0x01;
    let expected = [(0, -1), (5, 1), (11, 1), (12, flags), (14, -5000), (21, 4), (24, 6), (36, -1)];
    for (place, value) in expected {
        assert_eq!(word(place), value, "word {place}");
    }
    let answer = request.grant(4711).encode();
    assert_eq!(answer[..8], [0, 0, 0, 98, 0, 0, 0, 0]);
    assert_eq!(answer[8 + 44..8 + 48], [0, 0, 0x12, 0x67]);
}

#[test]
fn results_survive_the_wire() {
    let results = ServerResults {
        bytes_received: (3 << 32) + 7,
        receives: 9,
        bytes_sent: 5 << 33,
        sends: 11,
        transactions: 13,
        elapsed: Duration::from_millis(1500),
        cpu: Some(Duration::from_millis(750)),
    };
    let mut message = Message::decode(&results.encode(8).encode());
    // The type word of results means nothing.
    message.kind = 0xdead_beef;
    let read = ServerResults::decode(&message).unwrap();
    assert_eq!(ServerResults { cpu: None, ..read }, ServerResults { cpu: None, ..results });
    let cpu = read.cpu.unwrap().as_secs_f64();
    assert!((cpu - 0.75).abs() < 1e-6, "{cpu}");
    message.errno = 5;
    assert_eq!(ServerResults::decode(&message), Err(5));
}

#[test]
fn absurd_floats_in_results_are_taken_for_none() {
    for bits in [f32::NAN, f32::INFINITY, -1.0, 3e38].map(f32::to_bits) {
        for word in [results::ELAPSED, results::CPU] {
            let mut message = Message::new(0, 0);
            message.set_float(results::ELAPSED, 1.0);
            message.set(word, bits);
            let read = ServerResults::decode(&message).unwrap();
            assert!(read.cpu.is_none() || word == results::CPU, "{read:?}");
        }
    }
}

fn any_message() -> impl Strategy<Value = [u8; MESSAGE_BYTES]> {
    proptest::collection::vec(any::<u8>(), MESSAGE_BYTES)
        .prop_map(|bytes| bytes.try_into().unwrap_or([0; MESSAGE_BYTES]))
}

proptest! {
    #[test]
    fn any_bytes_survive_decoding_and_encoding(bytes in any_message()) {
        prop_assert_eq!(Message::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn garbage_is_answered_and_never_exceeds_a_limit(
        bytes in any_message(),
        likely in any::<bool>(),
    ) {
        let mut message = Message::decode(&bytes);
        if likely {
            message.kind = kind::OMNI;
            message.set(request::FAMILY, 4);
            message.set(request::SOCKET_TYPE, 1);
            message.set(request::PROTOCOL, 6);
            message.set(request::DIRECTION, 2 + 2 * (message.word(request::DIRECTION) % 3));
        }
        match TestRequest::decode(&message) {
            Err(refusal) => prop_assert_ne!(refusal.errno(), 0),
            Ok(test) => {
                for size in [test.request, test.response, test.message, test.receive] {
                    prop_assert!((1..=MESSAGE_MAX).contains(&size));
                }
            }
        }
        let _ = ServerResults::decode(&message);
    }

    #[test]
    fn a_request_survives_the_wire(
        (request, response) in (1..=MESSAGE_MAX, 1..=MESSAGE_MAX),
        (message, receive) in (1..=MESSAGE_MAX, 1..=MESSAGE_MAX),
        seconds in 1..=LENGTH_S_MAX,
        (port, echo) in (any::<u16>(), any::<bool>()),
        kind in prop_oneof![
            Just(Kind::RequestResponse), Just(Kind::ConnectRequestResponse),
            Just(Kind::Send), Just(Kind::Receive)
        ],
    ) {
        let has_rtt = matches!(kind, Kind::RequestResponse | Kind::ConnectRequestResponse);
        let asked = TestRequest {
            kind,
            protocol: Protocol::Tcp,
            family: Family::V6,
            request: if has_rtt { request } else { 1 },
            response: if has_rtt { response } else { 1 },
            message,
            receive,
            send_buffer: None,
            receive_buffer: Some(1 << 20),
            length: Length::Seconds(seconds),
            data_port: port,
            echo,
        };
        prop_assert_eq!(TestRequest::decode(&asked.encode()), Ok(asked));
        prop_assert_eq!(echoes(&asked.grant(port)), echo);
    }
}
