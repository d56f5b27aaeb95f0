//! Tasks on the worker's thread: sockets, wakes from other threads, bounded polls, stalls.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{address, config, nics};
use futures_util::future::join_all;
use futures_util::io::{AsyncReadExt, AsyncWriteExt, copy};
use roceway_runtime::asynchronous::{Executor, POLLS_PER_TURN, TcpListener, TcpStream, UdpSocket};
use roceway_runtime::local::Worker;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::shared::{self, Manner};

fn executor(nic: AnyNic, host: u8) -> Executor {
    Executor::new(Worker::with_nic(nic, &config(host)).expect("a worker"))
}

/// An echo server in a thread of its own, for ever; returns once it listens.
fn echo_server(nic: AnyNic) {
    let (listening, listens) = mpsc::channel();
    thread::spawn(move || {
        let executor = executor(nic, 2);
        let handle = executor.handle().clone();
        let listener = TcpListener::bind(&handle, address(2, 7)).expect("a listener");
        let udp = UdpSocket::bind(&handle, address(2, 9)).expect("a socket");
        let datagrams = executor.spawn("datagrams", async move {
            let mut out = [0; 2000];
            while let Ok((n, peer)) = udp.recv_from(&mut out).await {
                udp.send_to(&out[..n], peer).await.expect("room");
            }
        });
        listening.send(()).expect("the test waits");
        executor.run(async move {
            let _datagrams = datagrams;
            while let Ok((stream, _)) = listener.accept().await {
                let task = handle.spawn("echo", async move { copy(&stream, &mut &stream).await });
                task.expect("an executor").detach();
            }
        })
    });
    listens.recv().expect("it listens");
}

#[test]
fn many_tasks_share_a_worker() {
    let (one, two) = nics();
    echo_server(two);
    let executor = executor(one, 1);
    let handle = executor.handle().clone();
    let clients = (0..100_u8).map(|number| {
        let handle = handle.clone();
        executor.spawn("client", async move {
            let mut stream = TcpStream::connect(&handle, address(2, 7)).await?;
            let data = vec![number; 20_000];
            let mut back = Vec::new();
            for _ in 0..5 {
                stream.write_all(&data).await?;
                let mut answer = vec![0; data.len()];
                stream.read_exact(&mut answer).await?;
                back.extend(answer);
            }
            stream.close().await?;
            stream.read_to_end(&mut back).await?;
            Ok::<bool, std::io::Error>(back == vec![number; 100_000])
        })
    });
    let clients: Vec<_> = clients.collect();
    let outcomes = executor.run(join_all(clients)).expect("the system waits");
    assert!(outcomes.into_iter().all(|same| same.expect("no error")));
    handle.worker().check_counters();
}

#[test]
fn datagrams_and_refusals_reach_their_task() {
    let (one, two) = nics();
    echo_server(two);
    let executor = executor(one, 1);
    let handle = executor.handle().clone();
    let outcome = executor.run(async move {
        let error = TcpStream::connect(&handle, address(2, 8)).await.err().expect("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let udp = UdpSocket::bind(&handle, address(1, 0)).expect("a socket");
        udp.connect(address(2, 9)).expect("a peer");
        let mut out = [0; 2000];
        for i in 0..100_u8 {
            udp.send(&[i; 1000]).await.expect("room");
            assert_eq!(udp.recv(&mut out).await.expect("a datagram"), 1000);
            assert_eq!(out[999], i);
        }
    });
    outcome.expect("the system waits");
}

#[test]
fn a_waker_of_another_thread_ends_the_sleep() {
    let (one, _two) = nics();
    let executor = executor(one, 1);
    let (tell, told) = mpsc::channel::<Waker>();
    let ringer = thread::spawn(move || {
        for waker in told {
            thread::sleep(Duration::from_millis(3));
            waker.wake();
        }
    });
    let outcome = executor.run(async move {
        for _ in 0..20 {
            let mut asked = false;
            poll_fn(|cx| match std::mem::replace(&mut asked, true) {
                false => {
                    tell.send(cx.waker().clone()).expect("the ringer waits");
                    Poll::Pending
                }
                true => Poll::Ready(()),
            })
            .await;
        }
    });
    outcome.expect("the system waits");
    ringer.join().expect("the ringer");
    let mut wakes = 0;
    executor.handle().worker().visit_counters(&mut |_, name, value| {
        if name == "wakes_doorbell" {
            wakes = value;
        }
    });
    assert!(wakes > 0, "it slept and was woken");
}

#[test]
fn a_turn_polls_a_bounded_number_of_tasks() {
    let (one, _two) = nics();
    let executor = executor(one, 1);
    let polls = Rc::new(Cell::new(0_u32));
    for _ in 0..1000 {
        let polls = Rc::clone(&polls);
        executor
            .spawn("restless", async move {
                poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    cx.waker().wake_by_ref();
                    Poll::<()>::Pending
                })
                .await;
            })
            .detach();
    }
    // The first poll of the driver shows it the tasks.
    executor.run(async {}).expect("the system waits");
    for _ in 0..10 {
        let before = polls.get();
        let _ = executor.turn();
        let polled = polls.get() - before;
        assert!((1..=POLLS_PER_TURN).contains(&polled), "{polled} polls");
    }
}

#[test]
fn a_stall_names_its_task() {
    let (one, _two) = nics();
    let executor = executor(one, 1);
    let slow = executor.spawn("slow", async { thread::sleep(Duration::from_millis(3)) });
    executor.run(slow).expect("the system waits");
    let mut seen = Vec::new();
    executor.visit_stalls(&mut |stall| seen.push((stall.name, stall.count)));
    assert_eq!(seen, [("slow", 1)]);
}

/// Threads outside, a task inside, one worker.
#[test]
fn an_owned_worker_has_tasks_beside_its_callers() {
    let (one, two) = nics();
    echo_server(two);
    let worker = shared::Worker::with_nic(one, &config(1), Manner::Owned).expect("a worker");
    let (tell, told) = mpsc::channel();
    worker
        .run_inside(move |executor| {
            let handle = executor.handle().clone();
            executor
                .spawn("inside", async move {
                    let mut stream =
                        TcpStream::connect(&handle, address(2, 7)).await.expect("a connection");
                    stream.write_all(b"inside").await.expect("room");
                    let mut answer = [0; 6];
                    stream.read_exact(&mut answer).await.expect("an answer");
                    tell.send(answer).expect("the test waits");
                })
                .detach();
        })
        .expect("a worker");
    let mut stream = shared::TcpStream::connect(&worker, address(2, 7)).expect("a connection");
    std::io::Write::write_all(&mut stream, b"outside").expect("room");
    let mut answer = [0; 7];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
    assert_eq!(&answer, b"outside");
    assert_eq!(&told.recv().expect("the task"), b"inside");
}

/// A handle for any thread that the worker's own thread uses would wait for itself.
#[test]
fn the_workers_own_thread_is_refused() {
    let (one, _two) = nics();
    let worker = shared::Worker::with_nic(one, &config(1), Manner::Owned).expect("a worker");
    let (tell, told) = mpsc::channel();
    let inside = worker.clone();
    worker
        .run_inside(move |_| {
            let outcome = shared::TcpListener::bind(&inside, address(1, 7));
            tell.send(outcome.err().map(|error| error.kind())).expect("the test waits");
        })
        .expect("a worker");
    assert_eq!(told.recv().expect("the job"), Some(ErrorKind::Deadlock));
}
