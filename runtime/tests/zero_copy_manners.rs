//! Sending and receiving without a copy from other threads and from tasks.

mod common;

use std::io::ErrorKind;
use std::thread;

use common::{address, config, each_manner, nics};
use roceway_runtime::asynchronous::{self, Executor};
use roceway_runtime::local::{self, SendOutcome};
use roceway_runtime::shared::{Lent, TcpListener, TcpStream, Worker};

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
