//! Memory of the application's own: it is sent from where it lies, stays while anything needs it,
//! and what is no such memory is refused.

mod common;

use std::ffi::CStr;
use std::fs::File;
use std::io::{ErrorKind, Write};

use common::config;
use common::local::{PATIENCE, Pair, counter, pattern, settle};
use roceway_runtime::local::{BufferMut, SendOutcome, Worker};
use roceway_runtime::rdma_virtio::memory::mapping::{Mapping, PageWish};

const BLOCK: usize = 65_536;
/// Names of memory, of which the first is looked for.
const NAME: &CStr = c"roceway-test-own";
const OTHER: &CStr = c"roceway-test-other";

/// An application's memory.
fn own(name: &CStr, length: u64) -> File {
    let mapping = Mapping::create(name, 4096, PageWish::Ordinary).expect("a memfd");
    let file = File::from(mapping.memfd(0).try_clone_to_owned().expect("a descriptor"));
    file.set_len(length).expect("a length");
    file
}

fn register(worker: &Worker, name: &CStr, blocks: usize) -> Vec<BufferMut> {
    let length = u64::try_from(blocks * BLOCK).expect("small");
    worker.register(own(name, length).into(), BLOCK).expect("memory")
}

/// Whether memory of the test's is mapped for writing by this process.
fn is_mapped() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    let name = NAME.to_str().expect("a name");
    maps.lines().any(|line| line.contains(name) && line.contains("rw-s"))
}

// One test, since what is mapped is the process's.
#[test]
fn it_is_sent_from_where_it_lies_and_stays_while_anything_needs_it() {
    let pair = Pair::new();
    let mut blocks = register(&pair.left, NAME, 3);
    assert_eq!((blocks.len(), blocks[0].len()), (3, BLOCK));
    let (client, server) = pair.connect(80);
    for (number, block) in blocks.iter_mut().enumerate() {
        (number * BLOCK..).zip(block.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
    }
    let mut blocks: Vec<_> = blocks.into_iter().map(BufferMut::freeze).collect();
    let last = blocks.pop().expect("three");
    let (mut pieces, mut at) = (pair.right.pieces(), 0);
    let mut take = |up_to: usize| {
        pair.until("the bytes", || {
            if server.take(&mut pieces, usize::MAX).is_ok() {
                for byte in pieces.iter().flatten() {
                    assert_eq!(*byte, pattern(at), "byte {at}");
                    at += 1;
                }
            }
            (at == up_to).then_some(())
        });
    };
    for (cookie, block) in (0..).zip(&blocks) {
        client.give(block, 0..BLOCK, cookie).expect("room");
    }
    take(2 * BLOCK);
    assert_eq!((pair.sent().cookie, pair.sent().cookie), (0, 1));
    drop(blocks);
    let given_up = || counter(&pair.left, "memory", "unregistered") == 1;
    settle(&pair);
    assert!(!given_up(), "a block is out");
    client.give(&last, 0..BLOCK, 2).expect("room");
    drop(last);
    for _ in 0..100 {
        let _ = pair.left.turn();
    }
    assert!(!given_up(), "a send is under way");
    assert!(is_mapped());
    take(3 * BLOCK);
    let sent = pair.sent();
    assert_eq!((sent.cookie, sent.outcome), (2, SendOutcome::Acknowledged));
    settle(&pair);
    assert!(!given_up(), "its buffer is held");
    drop(sent);
    pair.until("giving it up", || given_up().then_some(()));
    assert!(!is_mapped(), "what nobody needs is given up");
    assert_eq!(counter(&pair.left, "memory", "misuse"), 0);

    // Buffers that outlive their worker are memory still.
    let Pair { left, right } = Pair::new();
    let mut block = register(&left, NAME, 1).pop().expect("one");
    drop((left, right));
    block.fill(1);
    assert!(is_mapped() && block.iter().all(|byte| *byte == 1));
    drop(block);
    assert!(!is_mapped());
}

#[test]
fn nobody_cuts_it_or_writes_to_the_file_afterwards() {
    let pair = Pair::new();
    let file = own(OTHER, 4 * 4096);
    let mut copy = file.try_clone().expect("a descriptor");
    let _blocks = pair.left.register(file.into(), 4096).expect("memory");
    assert!(copy.set_len(1).is_err());
    assert!(copy.write(b"x").is_err());
}

#[test]
fn what_is_no_such_memory_is_refused() {
    let pair = Pair::new();
    let refusal = |memory: File, block: usize| {
        let error = pair.left.register(memory.into(), block).expect_err("a refusal");
        (error.kind(), error.to_string())
    };
    for block in [0, 2 * BLOCK + 1] {
        let (kind, words) = refusal(own(OTHER, 2 * BLOCK as u64), block);
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(words.contains("another length of a block"), "{words}");
    }
    let (kind, words) = refusal(own(OTHER, 4097), 1);
    assert_eq!(kind, ErrorKind::InvalidInput, "more blocks than handles: {words}");
    let plain = tempfile::tempfile_in("/tmp").expect("a file");
    plain.set_len(4096).expect("a length");
    let (kind, words) = refusal(plain, 4096);
    assert!(words.contains("F_GET_SEALS") || words.contains("F_ADD_SEALS"), "{kind}: {words}");
    assert!(words.contains("memfd_create"), "{words}");
    assert_eq!(refusal(own(OTHER, 0), 1).0, ErrorKind::InvalidInput);

    let held: Vec<_> = (0..6).map(|_| register(&pair.left, OTHER, 1)).collect();
    // The peer is shown eight regions, of which the arena has one.
    let mut refused = None;
    let more: Vec<_> = (0..3)
        .map_while(|_| match pair.left.register(own(OTHER, BLOCK as u64).into(), BLOCK) {
            Ok(blocks) => Some(blocks),
            Err(error) => {
                refused = Some(error.to_string());
                None
            }
        })
        .collect();
    let words = refused.expect("there is an end");
    assert!(words.contains("fewer") || words.contains("drop"), "{words}");
    drop((held, more));
    pair.until("giving all up", || {
        (counter(&pair.left, "memory", "unregistered") == 7).then_some(())
    });
    too_late(&pair.left);
}

/// What the peer sees was settled when they met.
fn too_late(worker: &Worker) {
    let error = worker.register(own(OTHER, BLOCK as u64).into(), BLOCK).expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
    assert!(error.to_string().contains("before the peer comes"), "{error}");
}

#[test]
fn over_a_soft_link_it_is_taken_until_the_peer_comes_and_again_when_that_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = format!("soft:{}", folder.path().join("link").display());
    let worker = |host| Worker::open(&spec, &config(host).spinning()).expect("a worker");
    let left = worker(1);
    for _ in 0..1000 {
        let _nobody_is_there = left.turn();
    }
    let mut all = Vec::new();
    for round in 0..2_u16 {
        let mut block = register(&left, OTHER, 1).pop().expect("one");
        let start = usize::from(round) * 7;
        (start..).zip(block.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
        all.push(block.freeze());
        let pair = Pair { left: left.clone(), right: worker(2) };
        let (client, server) = pair.connect(80 + round);
        too_late(&left);
        // What was registered before this peer came, whoever was shown it first.
        for (number, block) in all.iter().enumerate() {
            client.give(block, 0..BLOCK, 1).expect("room");
            let (mut at, end) = (number * 7, number * 7 + BLOCK);
            let mut pieces = pair.right.pieces();
            pair.until("the bytes", || {
                if server.take(&mut pieces, usize::MAX).is_ok() {
                    for byte in pieces.iter().flatten() {
                        assert_eq!(*byte, pattern(at), "byte {at}");
                        at += 1;
                    }
                }
                (at == end).then_some(())
            });
            assert_eq!(pair.sent().outcome, SendOutcome::Acknowledged);
        }
        assert_eq!(counter(&left, "tcp", "bytes_written"), 0);
        drop((client, server));
        drop(pair);
        let start = std::time::Instant::now();
        while counter(&left, "link", "peers_gone") <= u64::from(round) {
            assert!(start.elapsed() < PATIENCE, "the peer is never gone");
            let _ = left.turn();
        }
    }
}
