//! The steady state allocates nothing: counted by the allocator of this process, in the worker's
//! own thread and in those that call it.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{address, config, each_manner, nics};
use roceway_runtime::local::{self, Worker};
use roceway_runtime::shared::{TcpListener, TcpStream};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments that it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the same contract, and `alloc` gave the system's memory.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One at a time: they count the same allocations.
static ALONE: Mutex<()> = Mutex::new(());

fn allocations_during(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_local_worker_allocates_nothing_per_packet() {
    let _alone = ALONE.lock().expect("no test failed");
    let (one, two) = nics();
    let client = Worker::with_nic(one, &config(1)).expect("a worker");
    let server = Worker::with_nic(two, &config(2)).expect("a worker");
    let turn = || {
        let _ = client.turn();
        let _ = server.turn();
    };
    let listener = local::TcpListener::bind(&server, address(2, 7)).expect("a listener");
    let ours = local::TcpStream::connect(&client, address(2, 7)).expect("a connection");
    let theirs = loop {
        turn();
        if let Ok((stream, _)) = listener.accept() {
            break stream;
        }
    };
    let udp = local::UdpSocket::bind(&server, address(2, 9)).expect("a socket");
    let asking = local::UdpSocket::bind(&client, address(1, 9)).expect("a socket");
    theirs.watch(1, local::Readiness::READABLE);
    udp.watch(2, local::Readiness::READABLE);
    let mut told = [false; 3];
    let mut out = vec![0; 100_000];
    let data = vec![3; 60_000];
    let mut exchange = |count: u32| {
        for _ in 0..count {
            // A short message, a long one, a datagram.
            let mut due = 1;
            ours.write(&data[..1]).expect("room");
            due += ours.write(&data).expect("room");
            asking.send_to(&data[..100], address(2, 9)).expect("room");
            while due > 0 {
                turn();
                due -= theirs.read(&mut out).unwrap_or(0);
                while let Some(event) = server.poll_event() {
                    told[usize::try_from(event.token).expect("one of three")] = true;
                }
            }
            while udp.recv_from(&mut out).is_err() {
                turn();
            }
        }
    };
    exchange(500);
    assert_eq!(allocations_during(|| exchange(2000)), 0);
    assert_eq!(told, [false, true, true], "events were taken, too");
}

#[test]
fn calls_of_other_threads_allocate_nothing() {
    let _alone = ALONE.lock().expect("no test failed");
    each_manner(|client, server| {
        let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
        let mut ours = TcpStream::connect(&client, address(2, 7)).expect("a connection");
        let (mut theirs, _) = listener.accept().expect("the connection");
        let answering = thread::spawn(move || {
            let mut out = vec![0; 1000];
            while theirs.read_exact(&mut out).is_ok() {
                theirs.write_all(&out).expect("room");
            }
        });
        let mut data = vec![3; 1000];
        let mut exchange = |count: u32| {
            for _ in 0..count {
                ours.write_all(&data).expect("room");
                ours.read_exact(&mut data).expect("an answer");
            }
        };
        exchange(500);
        assert_eq!(allocations_during(|| exchange(1000)), 0);
        drop(ours);
        answering.join().expect("the other end");
    });
}
