//! What a host on the RDMA wire says: headers of messages, and words of the exchange. Its hooks
//! exist with `--cfg fuzzing` only, which `fuzz/run` sets; else nothing is done.

/// The target for headers.
pub(crate) fn run_headers(data: &[u8]) {
    #[cfg(fuzzing)]
    roceway_rdma_virtio::nic::rdma::wire::fuzzing::headers(data);
    let _unused_otherwise = data;
}

/// The target for words.
pub(crate) fn run_words(data: &[u8]) {
    #[cfg(fuzzing)]
    roceway_rdma_virtio::nic::rdma::wire::fuzzing::words(data);
    let _unused_otherwise = data;
}

/// Headers of each kind in order; a hello that is answered, and the words after it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let header = |kind: u8, sequence: u8| {
        let mut bytes = [0_u8; 24];
        bytes[..4].copy_from_slice(&[1, kind, 1, 1]);
        (bytes[15], bytes[19], bytes[23]) = (sequence, 9 + sequence, 8);
        bytes
    };
    let word = |kind: u8, body: &[u8]| {
        let length = u8::try_from(body.len()).unwrap_or(0);
        [b"RcWy", &[kind, 1, 0, length], body].concat()
    };
    let mut hello = [0_u8; 68];
    hello[..16].copy_from_slice(&[1, 1, 1, 0, 2, 0, 0, 0, 0, 9, 5, 220, 0, 1, 0, 62]);
    (hello[19], hello[43], hello[47], hello[51]) = (17, 9, 1, 7);
    (hello[53], hello[56], hello[67]) = (4, 3, 99);
    vec![
        [header(1, 0), header(1, 1), header(2, 2), header(3, 2)].concat(),
        [header(1, 0), header(1, 5), header(1, 3)].concat(),
        [word(1, &hello), word(4, &[]), word(5, &[1, 0, 0, 0])].concat(),
        [word(1, &hello), vec![0xfe], word(1, &hello), word(4, &[])].concat(),
    ]
}
