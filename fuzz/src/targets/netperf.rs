//! netperf's control messages: any 656 bytes are a message; a request that is understood is served,
//! so its sizes must be within bounds, and it comes back as it was written.

use roceway_perf::control::message::{MESSAGE_BYTES, Message, kind};
use roceway_perf::control::{ServerResults, TestRequest};
use roceway_perf::flow::MESSAGE_MAX;

/// The target: bytes of a message, those that are missing zero.
pub(crate) fn run(data: &[u8]) {
    let mut bytes = [0; MESSAGE_BYTES];
    let count = data.len().min(MESSAGE_BYTES);
    bytes[..count].copy_from_slice(&data[..count]);
    let message = Message::decode(&bytes);
    assert_eq!(message.encode(), bytes);
    if let Ok(request) = TestRequest::decode(&message) {
        for size in [request.request, request.response, request.message] {
            assert!((1..=MESSAGE_MAX).contains(&size), "{request:?}");
        }
        let again = TestRequest::decode(&request.encode());
        assert!(again.is_ok(), "{request:?}: {again:?}");
        let _ = request.grant(7).encode();
    }
    if let Ok(results) = ServerResults::decode(&message) {
        let _ = results.encode(2);
    }
}

/// A request of each direction, and results.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for direction in [2, 4, 6] {
        let mut message = Message::new(kind::OMNI, 0);
        for word in 0..60 {
            message.set(word, direction);
        }
        seeds.push(message.encode().to_vec());
    }
    seeds.push(Message::new(kind::OMNI_RESPONSE, 0).encode().to_vec());
    seeds
}
