//! The soft NIC against a peer in hostile hands: what lies in shared memory, and what comes over
//! the socket. Its hook exists with `--cfg fuzzing` only, which `fuzz/run` sets; else nothing is
//! done.

/// The target for shared memory.
pub(crate) fn run_ring(data: &[u8]) {
    #[cfg(fuzzing)]
    roceway_rdma_virtio::nic::soft::fuzzing::ring(data);
    let _unused_otherwise = data;
}

/// The target for the socket.
pub(crate) fn run_words(data: &[u8]) {
    #[cfg(fuzzing)]
    roceway_rdma_virtio::nic::soft::fuzzing::words(data);
    let _unused_otherwise = data;
}

/// Messages of each kind; words of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let word = |what: u8, word: u64| [&[what][..], &word.to_le_bytes()].concat();
    let element = (200_u64 | 64 << 32).to_le_bytes();
    vec![
        [word(0, 79), word(7, 0), word(9, 0), element.to_vec(), word(7, 0)].concat(),
        [word(0x79, 0), element.repeat(15), word(7, 0), word(5, 1 << 62), word(7, 0)].concat(),
        [word(6, 2), word(6, 1), word(4, 200 | 33 << 32), word(7, 0)].concat(),
        vec![0, 1, 3, 1, 4, 9, 6, b'b', b'e', b'c', b'a', b'u', b's', b'e', b'.'],
        vec![3, 1, 0, 1, 2, 1, 3],
        vec![1, 1, 2, 1, 5],
    ]
}
