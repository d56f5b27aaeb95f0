//! A worker where its process forks, and in a signal handler; and how workers end.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{MANNERS, address, config, each_manner, nics, pair};
use roceway_runtime::shared::{Manner, TcpListener, TcpStream, Worker};

const LONG: Duration = Duration::from_secs(10);

/// The tests of this file run one after the other: a child forked while another one maps memory
/// would find it before it was taken from children.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(client: &Worker, server: &Worker) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(server, address(2, 7)).expect("a listener");
    let one = TcpStream::connect_timeout(client, &address(2, 7), LONG).expect("a connection");
    (one, listener.accept().expect("the connection").0)
}

/// What is wrong in the child, as its exit status: 0 if nothing is.
fn in_child(mut stream: TcpStream, worker: Worker) -> i32 {
    let refused = |kind: Option<ErrorKind>| kind == Some(ErrorKind::Unsupported);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let outcomes = [
        refused(stream.write(b"x").err().map(|error| error.kind())),
        refused(stream.read(&mut [0]).err().map(|error| error.kind())),
        refused(TcpStream::connect(&worker, address(2, 7)).err().map(|error| error.kind())),
        refused(worker.counters().err().map(|error| error.kind())),
        // Memory for a NIC is not inherited.
        maps.contains("[stack]") && !maps.contains("memfd:roceway"),
    ];
    // Nor does the child end the worker, or wait for threads that it has not.
    drop(stream);
    worker.stop();
    drop(worker);
    outcomes.iter().position(|fine| !fine).map_or(0, |at| i32::try_from(at).unwrap_or(99) + 1)
}

#[test]
fn a_forked_child_is_refused_and_harms_nothing() {
    let _alone = alone();
    for manner in MANNERS {
        let (client, server) = pair([manner, manner]);
        let (mut one, mut two) = connect(&client, &server);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
        assert!(maps.contains("memfd:roceway"), "what the child must not have:\n{maps}");
        let (handle, inherited) = (one.try_clone().expect("a handle"), client.clone());
        // SAFETY: the child runs `in_child` and ends by `_exit`. It takes no lock that another
        // thread of this process may have held, but the allocator's, which glibc sees to.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let status = in_child(handle, inherited);
            // SAFETY: ends the process; nothing of it is used after.
            unsafe { libc::_exit(status) }
        }
        assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
        assert_eq!(status_of(child), Some(0), "{manner:?}");
        drop((handle, inherited));
        one.write_all(b"still here").expect("room");
        let mut out = [0; 10];
        two.read_exact(&mut out).expect("bytes");
        assert_eq!(&out, b"still here");
    }
}

/// The exit status of a child; `None` if it did not exit by itself within [`LONG`].
fn status_of(child: libc::pid_t) -> Option<i32> {
    let end = Instant::now() + LONG;
    let mut status = 0;
    loop {
        // SAFETY: a child of ours, and a place for its status.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if waited == child {
            return libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        }
        if Instant::now() >= end {
            // SAFETY: a child of ours that was not waited for yet.
            let _killed = unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            let _gone = unsafe { libc::waitpid(child, &raw mut status, 0) };
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The socket that the handler uses, and what came of that.
static STREAM: OnceLock<TcpStream> = OnceLock::new();
static DEADLOCKS: AtomicU32 = AtomicU32::new(0);
static OTHERS: AtomicU32 = AtomicU32::new(0);

extern "C" fn call_in(_signal: libc::c_int) {
    if let Some(stream) = STREAM.get() {
        match stream.info().map_err(|error| error.kind()) {
            Err(ErrorKind::Deadlock) => DEADLOCKS.fetch_add(1, Ordering::Relaxed),
            _ => OTHERS.fetch_add(1, Ordering::Relaxed),
        };
    }
}

#[test]
fn a_signal_handler_that_calls_in_while_its_thread_holds_the_worker_is_refused() {
    let _alone = alone();
    let (a, b) = nics();
    // The reader turns all the time: it holds the worker when the signal comes, mostly.
    let client = Worker::with_nic(a, &config(1).spinning(), Manner::CallerDriven);
    let client = client.expect("a worker");
    let server = Worker::with_nic(b, &config(2), Manner::Owned).expect("a worker");
    let (one, mut two) = connect(&client, &server);
    let mut reader = one.try_clone().expect("a handle");
    assert!(STREAM.set(one).is_ok());
    let handler: extern "C" fn(libc::c_int) = call_in;
    // SAFETY: the handler touches atomics and a socket, as its test is about.
    let before = unsafe { libc::signal(libc::SIGURG, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
    let (tell, told) = std::sync::mpsc::channel();
    let reading = thread::spawn(move || {
        // SAFETY: the call has no arguments and cannot fail.
        tell.send(unsafe { libc::pthread_self() }).expect("the test waits");
        reader.read(&mut [0; 8])
    });
    let thread = told.recv().expect("a thread");
    let end = Instant::now() + LONG;
    while DEADLOCKS.load(Ordering::Relaxed) == 0 && Instant::now() < end {
        // SAFETY: the thread lives until it is joined below.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGURG) }, 0);
        thread::sleep(Duration::from_millis(1));
    }
    two.write_all(b"answer").expect("room");
    assert_eq!(reading.join().expect("the reader").expect("bytes"), 6, "it was not disturbed");
    let others = OTHERS.load(Ordering::Relaxed);
    assert!(DEADLOCKS.load(Ordering::Relaxed) > 0, "never held it; {others} others");
    // SAFETY: puts back what was there.
    unsafe { libc::signal(libc::SIGURG, before) };
}

#[test]
fn what_was_closed_before_its_worker_ends_is_still_delivered() {
    let _alone = alone();
    each_manner(|client, server| {
        let (mut one, mut two) = connect(&client, &server);
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            two.read_to_end(&mut all).map(|_| all)
        });
        one.write_all(&[7; 5000]).expect("room");
        drop(one);
        client.stop();
        let all = reading.join().expect("the reader").expect("the end, not an error");
        assert!(all == [7; 5000], "{} of 5000 bytes", all.len());
    });
}

#[test]
fn a_worker_that_ends_waits_no_longer_than_it_says() {
    let _alone = alone();
    for manner in MANNERS {
        let (client, server) = pair([manner, Manner::CallerDriven]);
        let (mut one, two) = connect(&client, &server);
        // More than the other end takes, which nobody reads.
        one.set_write_timeout(Some(Duration::from_millis(30))).expect("an option");
        while one.write(&[7; 65_536]).is_ok() {}
        let began = Instant::now();
        drop(one);
        client.stop();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(200), "{manner:?} did not wait: {took:?}");
        assert!(took < Duration::from_secs(5), "{manner:?}: {took:?}");
        drop(two);
    }
}
