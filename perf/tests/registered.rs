//! Memory of the application's own over the modes of an RDMA NIC: it is sent from where it lies by
//! workers of each manner, arrives byte for byte, and stays with the NIC until the last buffer was
//! dropped and the last send of it has ended.
//!
//! Both ends are in one process, on two devices of the test-only double of libibverbs.

mod double;

use std::ffi::CStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use double::{MODES, PATIENCE, Pair, counter_of, specs, with_each_mode};
use roceway_perf::ends::ADDRESSES;
use roceway_runtime::asynchronous::{self, Executor};
use roceway_runtime::local::{Buffer, BufferMut, SendOutcome, TcpStream, Worker};
use roceway_runtime::rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_runtime::shared::{self, Manner};
use roceway_runtime::{Prefix, WorkerConfig};

const BLOCK: usize = 65_536;
const BLOCKS: usize = 4;
const NAME: &CStr = c"roceway-test-rdma-own";

fn at() -> SocketAddr {
    SocketAddr::new(ADDRESSES[1].into(), 7)
}

fn config(address: Ipv4Addr) -> WorkerConfig {
    WorkerConfig::new(Prefix { address: address.into(), length: 24 })
}

/// An application's memory of so many blocks.
fn own(blocks: usize) -> File {
    let mapping = Mapping::create(NAME, 4096, PageWish::Ordinary).expect("a memfd");
    let file = File::from(mapping.memfd(0).try_clone_to_owned().expect("a descriptor"));
    file.set_len(u64::try_from(blocks * BLOCK).expect("small")).expect("a length");
    file
}

/// The byte at a place of the stream.
fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).expect("below 251")
}

/// Buffers with the bytes of the stream, one behind the other.
fn filled(blocks: Vec<BufferMut>) -> Vec<Buffer> {
    let fill = |(number, mut block): (usize, BufferMut)| {
        (number * BLOCK..).zip(block.iter_mut()).for_each(|(at, byte)| *byte = pattern(at));
        block.freeze()
    };
    blocks.into_iter().enumerate().map(fill).collect()
}

/// Whether memory of the test's is mapped for writing by this process.
fn is_mapped() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    let name = NAME.to_str().expect("a name");
    maps.lines().any(|line| line.contains(name) && line.contains("rw-s"))
}

fn pair(mode: &str) -> Pair {
    let worker = |text: &str, address| {
        let config = config(address).spinning();
        Worker::open(text, &config).unwrap_or_else(|error| panic!("{error}"))
    };
    let [a, b] = specs(mode);
    let server = worker(&b, ADDRESSES[1]);
    Pair { client: worker(&a, ADDRESSES[0]), server }
}

/// Takes the bytes of the stream from `from` to `to`.
fn take(pair: &Pair, server: &TcpStream, from: usize, to: usize) {
    let (mut pieces, mut at) = (pair.server.pieces(), from);
    pair.until("the bytes", || {
        if server.take(&mut pieces, usize::MAX).is_ok() {
            for byte in pieces.iter().flatten() {
                assert_eq!(*byte, pattern(at), "byte {at}");
                at += 1;
            }
        }
        (at == to).then_some(())
    });
}

#[test]
fn it_stays_with_the_nic_while_a_buffer_or_a_send_needs_it() {
    with_each_mode("it_stays_with_the_nic_while_a_buffer_or_a_send_needs_it", |row| {
        let pair = pair(MODES[row]);
        let (client, server) = pair.connect(at());
        let known = |name: &str| counter_of(&pair.client, name);
        let before = known("rdma_registered_bytes");
        // There is traffic already: a NIC of verbs takes memory at any time.
        let blocks = pair.client.register(own(BLOCKS).into(), BLOCK).expect("memory");
        let memory = u64::try_from(BLOCKS * BLOCK).expect("small");
        assert_eq!(known("rdma_registered_bytes"), before + memory);
        let mut blocks = filled(blocks);
        let last = blocks.pop().expect("some");
        for (cookie, block) in (0..).zip(&blocks) {
            pair.until("room", || client.give(block, 0..BLOCK, cookie).ok());
        }
        take(&pair, &server, 0, (BLOCKS - 1) * BLOCK);
        for cookie in 0..u64::try_from(BLOCKS - 1).expect("small") {
            let sent = pair.until("the end of a send", || pair.client.poll_sent());
            assert_eq!((sent.cookie, sent.outcome), (cookie, SendOutcome::Acknowledged));
        }
        drop(blocks);
        let stays = |what: &str| {
            for _ in 0..200 {
                let _ = pair.client.turn();
            }
            assert_eq!(known("unregistered"), 0, "{what}");
            assert_eq!(known("rdma_registered_bytes"), before + memory, "{what}");
            assert!(is_mapped(), "{what}");
        };
        stays("a buffer is out");
        client.give(&last, 0..BLOCK, 9).expect("room");
        drop(last);
        stays("a send is under way");
        take(&pair, &server, (BLOCKS - 1) * BLOCK, BLOCKS * BLOCK);
        let sent = pair.until("the end of a send", || pair.client.poll_sent());
        assert_eq!((sent.cookie, sent.outcome), (9, SendOutcome::Acknowledged));
        stays("who sent it holds it");
        drop(sent);
        pair.until("giving it up", || (known("unregistered") == 1).then_some(()));
        assert_eq!(known("rdma_registered_bytes"), before);
        assert!(!is_mapped());
        assert_eq!(known("misuse") + known("bytes_written"), 0);
        // What was taken away is missed by nobody.
        pair.until("a write", || client.write(b"on").ok());
        pair.until("a read", || server.read(&mut [0; 8]).ok());
    });
}

#[test]
fn it_outlives_its_worker_and_an_aborted_send_lets_it_go() {
    with_each_mode("it_outlives_its_worker_and_an_aborted_send_lets_it_go", |row| {
        let pair = pair(MODES[row]);
        let (aborted, its_peer) = pair.connect(at());
        let take_one = || {
            let blocks = pair.client.register(own(1).into(), BLOCK).expect("memory");
            filled(blocks).pop().expect("one")
        };
        let block = take_one();
        aborted.give(&block, 0..BLOCK, 1).expect("room");
        drop(block);
        aborted.abort();
        // The NIC may still read it until it says that it is done.
        let sent = pair.until("the end of a send", || pair.client.poll_sent());
        assert_eq!(sent.outcome, SendOutcome::Dropped);
        drop(sent);
        pair.until("giving it up", || {
            (counter_of(&pair.client, "unregistered") == 1).then_some(())
        });
        assert!(!is_mapped());
        // Buffers are memory still when their worker, its NIC and its device are gone; a send that
        // was under way then is over.
        let (block, given) = (take_one(), take_one());
        let (client, server) = pair.connect(SocketAddr::new(ADDRESSES[1].into(), 8));
        client.give(&given, 0..BLOCK, 2).expect("room");
        let _sends = pair.client.turn();
        // Streams hold their worker.
        drop((client, server, aborted, its_peer));
        drop(pair);
        for block in [block, given] {
            let mut block = block.try_into_mut().expect("no send is under way");
            assert_eq!(block[100], pattern(100));
            block.fill(1);
            assert!(is_mapped());
        }
        assert!(!is_mapped());
    });
}

/// A counter of a worker of any thread.
fn shared_counter(worker: &shared::Worker, name: &str) -> u64 {
    let counters = worker.counters().expect("a worker");
    counters.iter().filter(|(_, n, _)| *n == name).map(|(.., value)| value).sum()
}

/// What comes over a stream is the stream, and its end comes behind so many bytes.
fn takes_all(stream: &shared::TcpStream, bytes: usize) {
    let mut at = 0;
    loop {
        let pieces = stream.take(usize::MAX).expect("bytes");
        if pieces.is_empty() {
            break;
        }
        for byte in pieces.iter().flat_map(|piece| piece.iter()) {
            assert_eq!(*byte, pattern(at), "byte {at}");
            at += 1;
        }
    }
    assert_eq!(at, bytes);
}

fn any_thread_sends_it(mode: &str, manner: Manner) {
    let worker = |text: &str, address| {
        let started = shared::Worker::open(text, &config(address), manner);
        started.unwrap_or_else(|error| panic!("{error}"))
    };
    let [a, b] = specs(mode);
    let (server, client) = (worker(&b, ADDRESSES[1]), worker(&a, ADDRESSES[0]));
    let listener = shared::TcpListener::bind(&server, at()).expect("a listener");
    let sender = client.clone();
    let sending = thread::spawn(move || {
        let stream = shared::TcpStream::connect(&sender, at()).expect("a connection");
        let blocks = filled(sender.register(own(BLOCKS).into(), BLOCK).expect("memory"));
        // From threads of their own, in turn: buffers go anywhere.
        for block in blocks {
            let stream = &stream;
            thread::scope(|scope| {
                scope.spawn(move || stream.give(&block, 0..BLOCK).expect("room comes"));
            });
        }
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        stream
    });
    let (stream, _) = listener.accept().expect("a connection");
    takes_all(&stream, BLOCKS * BLOCK);
    let _stays_open = sending.join().expect("no panic");
    let start = Instant::now();
    while shared_counter(&client, "unregistered") == 0 {
        assert!(start.elapsed() < PATIENCE, "it is never given up");
        thread::yield_now();
    }
    assert!(!is_mapped());
    assert_eq!(shared_counter(&client, "bytes_written"), 0);
    assert_eq!(shared_counter(&client, "misuse"), 0);
}

#[test]
fn any_thread_of_an_owned_worker_sends_it() {
    with_each_mode("any_thread_of_an_owned_worker_sends_it", |row| {
        any_thread_sends_it(MODES[row], Manner::Owned);
    });
}

#[test]
fn any_thread_of_a_caller_driven_worker_sends_it() {
    with_each_mode("any_thread_of_a_caller_driven_worker_sends_it", |row| {
        any_thread_sends_it(MODES[row], Manner::CallerDriven);
    });
}

#[test]
fn tasks_send_it() {
    with_each_mode("tasks_send_it", |row| {
        let [a, b] = specs(MODES[row]);
        let server = shared::Worker::open(&b, &config(ADDRESSES[1]), Manner::Owned);
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        let listener = shared::TcpListener::bind(&server, at()).expect("a listener");
        let receiving = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            takes_all(&stream, BLOCKS * BLOCK);
        });
        let worker = Worker::open(&a, &config(ADDRESSES[0])).expect("a worker");
        let executor = Executor::new(worker);
        let handle = executor.handle().clone();
        let sends = executor.run(async move {
            let stream =
                asynchronous::TcpStream::connect(&handle, at()).await.expect("a connection");
            let blocks = filled(handle.register(own(BLOCKS).into(), BLOCK).expect("memory"));
            let mut sends = Vec::new();
            for block in blocks {
                sends.push(stream.give(&block, 0..BLOCK).await.expect("room"));
            }
            stream.shutdown(std::net::Shutdown::Write).expect("open");
            for send in sends {
                assert_eq!(send.await, SendOutcome::Acknowledged);
            }
        });
        sends.expect("it turns");
        receiving.join().expect("all bytes");
        let start = Instant::now();
        while counter_of(executor.handle().worker(), "unregistered") == 0 {
            assert!(start.elapsed() < PATIENCE, "it is never given up");
            let _ = executor.turn();
        }
        assert!(!is_mapped());
    });
}
