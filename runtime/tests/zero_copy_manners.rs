//! Sending and receiving without a copy from other threads and from tasks.

mod common;

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use common::{MANNERS, address, config, each_manner, nics};
use roceway_runtime::asynchronous::{self, Executor};
use roceway_runtime::local::{self, SendOutcome};
use roceway_runtime::rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_runtime::shared::{Lent, OwnMemory, TcpListener, TcpStream, Worker};

/// The byte at a place of the stream.
fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).expect("below 251")
}

fn counter(worker: &Worker, layer: &str, name: &str) -> u64 {
    let counters = worker.counters().expect("a worker");
    let found = counters.iter().find(|(l, n, _)| (*l, *n) == (layer, name));
    found.expect("a counter of this name").2
}

const TOTAL: usize = 2 << 20;
const BLOCK: usize = 65_536;

#[test]
fn any_thread_gives_and_takes() {
    each_manner(|one, two| {
        let listener = TcpListener::bind(&two, address(2, 80)).expect("a listener");
        let sender = one.clone();
        let sending = thread::spawn(move || {
            let stream = TcpStream::connect(&sender, address(2, 80)).expect("a connection");
            let mut at = 0;
            while at < TOTAL {
                let mut buffer = match sender.buffer() {
                    Ok(buffer) => buffer,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        thread::yield_now();
                        continue;
                    }
                };
                let n = buffer.len().min(TOTAL - at);
                (at..).zip(buffer[..n].iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
                stream.give(&buffer.freeze(), 0..n).expect("room comes");
                at += n;
            }
            let foreign = stream.give(&two.buffer().expect("a buffer").freeze(), 0..1);
            assert_eq!(foreign.expect_err("another worker's").kind(), ErrorKind::InvalidInput);
            (stream, two)
        });
        let (stream, _) = listener.accept().expect("a connection");
        let mut at = 0;
        let mut kept: Vec<Lent> = Vec::new();
        while at < TOTAL {
            for piece in stream.take(usize::MAX).expect("bytes") {
                assert!(piece.iter().enumerate().all(|(i, byte)| *byte == pattern(at + i)));
                at += piece.len();
                kept.push(piece);
            }
            if kept.len() > 100 {
                kept.clear();
            }
        }
        drop(kept);
        let (sending, two) = sending.join().expect("no panic");
        sending.shutdown(std::net::Shutdown::Write).expect("open");
        assert!(stream.take(1).expect("the end").is_empty());
        let total = u64::try_from(TOTAL).expect("small");
        for (worker, name, expected) in [
            (&one, "bytes_given", total),
            (&one, "bytes_written", 0),
            (&two, "bytes_taken", total),
            (&two, "bytes_read", 0),
        ] {
            assert_eq!(counter(worker, "tcp", name), expected, "{name}");
        }
        assert_eq!(counter(&one, "memory", "misuse") + counter(&two, "memory", "misuse"), 0);
    });
}

#[test]
fn tasks_give_and_take() {
    let (one, two) = nics();
    let (listening, listens) = std::sync::mpsc::channel();
    let receiving = thread::spawn(move || {
        let executor = Executor::new(local::Worker::with_nic(two, &config(2)).expect("a worker"));
        let handle = executor.handle().clone();
        let listener =
            asynchronous::TcpListener::bind(&handle, address(2, 80)).expect("a listener");
        listening.send(()).expect("the test waits");
        let run = executor.run(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut pieces = handle.worker().pieces();
            let mut at = 0;
            loop {
                match stream.take(&mut pieces, usize::MAX).await.expect("bytes") {
                    0 => break,
                    _ => {
                        // To another thread as `bytes::Bytes`, and dropped there.
                        let kept: Vec<bytes::Bytes> =
                            pieces.drain().map(bytes::Bytes::from_owner).collect();
                        let checked = thread::spawn(move || {
                            let mut from = at;
                            for piece in kept {
                                let right = |(i, byte): (usize, &u8)| *byte == pattern(from + i);
                                assert!(piece.iter().enumerate().all(right));
                                from += piece.len();
                            }
                            from
                        });
                        at = checked.join().expect("the right bytes");
                    }
                }
            }
            at
        });
        run.expect("it turns")
    });
    listens.recv().expect("it listens");
    let executor = Executor::new(local::Worker::with_nic(one, &config(1)).expect("a worker"));
    let handle = executor.handle().clone();
    let outcomes = executor.run(async move {
        let stream =
            asynchronous::TcpStream::connect(&handle, address(2, 80)).await.expect("a connection");
        let mut sends = Vec::new();
        let mut at = 0;
        while at < TOTAL {
            let mut buffer = handle.buffer().await;
            let n = buffer.len().min(TOTAL - at);
            (at..).zip(buffer[..n].iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
            sends.push(stream.give(&buffer.freeze(), 0..n).await.expect("room"));
            at += n;
        }
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        let mut outcomes = Vec::new();
        for send in sends {
            outcomes.push(send.await);
        }
        outcomes
    });
    let outcomes = outcomes.expect("it turns");
    assert_eq!(outcomes, vec![SendOutcome::Acknowledged; TOTAL / 65_536]);
    assert_eq!(receiving.join().expect("no panic"), TOTAL);
}

#[test]
fn any_thread_sends_memory_of_its_own_that_was_registered_at_the_start() {
    for manner in MANNERS {
        let (one, two) = nics();
        let mapping = Mapping::create(c"roceway-test-manners", BLOCK * 2, PageWish::Ordinary);
        let mapping = mapping.expect("a memfd");
        let memfd = mapping.memfd(0).try_clone_to_owned().expect("a descriptor");
        drop(mapping);
        let memory = vec![OwnMemory { memfd, block_len: BLOCK }];
        let (one, blocks) = Worker::with_memory(one, &config(1), manner, memory).expect("a worker");
        let two = Worker::with_nic(two, &config(2), manner).expect("a worker");
        let listener = TcpListener::bind(&two, address(2, 80)).expect("a listener");
        let stream = TcpStream::connect(&one, address(2, 80)).expect("a connection");
        let (receiver, _) = listener.accept().expect("a connection");
        let giving = thread::spawn(move || {
            let blocks: Vec<_> = blocks.into_iter().flatten().collect();
            assert_eq!(blocks.len(), 2);
            for (number, mut block) in blocks.into_iter().enumerate() {
                let bytes = (number * BLOCK..).zip(block.iter_mut());
                bytes.for_each(|(at, byte)| *byte = pattern(at));
                stream.give(&block.freeze(), 0..BLOCK).expect("room comes");
            }
            stream
        });
        let mut at = 0;
        while at < 2 * BLOCK {
            for byte in receiver.take(usize::MAX).expect("bytes").iter().flat_map(|one| one.iter())
            {
                assert_eq!(*byte, pattern(at), "byte {at}");
                at += 1;
            }
        }
        let _open = giving.join().expect("no panic");
        let start = Instant::now();
        while counter(&one, "memory", "unregistered") == 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "it is never given up");
            thread::yield_now();
        }
        assert_eq!(counter(&one, "tcp", "bytes_written"), 0);
        // The peer was shown what there was when it came.
        let late = Mapping::create(c"roceway-test-late", 4096, PageWish::Ordinary);
        let late = late.expect("a memfd").memfd(0).try_clone_to_owned().expect("a descriptor");
        let error = one.register(late, 4096).expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
        one.stop();
        let late = Mapping::create(c"roceway-test-late", 4096, PageWish::Ordinary);
        let late = late.expect("a memfd").memfd(0).try_clone_to_owned().expect("a descriptor");
        let error = one.register(late, 4096).expect_err("it has ended");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    }
}
