//! What an idle process costs: counted in turns and sleeps, and in the CPU time that the kernel
//! charged.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{address, each_manner};
use roceway_runtime::shared::{TcpListener, TcpStream, Worker};

/// CPU time of this process: user and system, in clock ticks of 10 ms (proc(5)).
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields = stat.rsplit(')').next().expect("a name").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

fn counter(worker: &Worker, wanted: &str) -> u64 {
    let counters = worker.counters().expect("a worker");
    counters.iter().find(|(layer, name, _)| (*layer, *name) == ("turn", wanted)).expect("known").2
}

/// Two workers, each with a listener, an open connection, and a thread that waits on it.
#[test]
fn an_idle_worker_sleeps() {
    each_manner(|client, server| {
        let listener = TcpListener::bind(&server, address(2, 7)).expect("a listener");
        let stream = TcpStream::connect(&client, address(2, 7)).expect("a connection");
        let (peer, _) = listener.accept().expect("the connection");
        let waiting: Vec<_> = [stream.try_clone(), peer.try_clone()]
            .map(|handle| {
                let mut handle = handle.expect("a handle");
                thread::spawn(move || std::io::Read::read(&mut handle, &mut [0]))
            })
            .into();
        // The spin budget, and what the connection still has to say.
        thread::sleep(Duration::from_millis(300));
        let before = [&client, &server].map(|worker| counter(worker, "turns"));
        let sleeps = [&client, &server].map(|worker| counter(worker, "sleeps"));
        let ticks = cpu_ticks();
        let start = Instant::now();
        thread::sleep(Duration::from_secs(1));
        let elapsed = start.elapsed();
        let after = [&client, &server].map(|worker| counter(worker, "turns"));
        let slept = [&client, &server].map(|worker| counter(worker, "sleeps"));
        let used = Duration::from_millis(10) * u32::try_from(cpu_ticks() - ticks).expect("few");
        for end in 0..2 {
            // 20 sleeps a second for the cold work, and a polling budget after each counter read.
            assert!(slept[end] - sleeps[end] < 200, "{} sleeps", slept[end] - sleeps[end]);
            let turns = after[end] - before[end];
            assert!(turns < 100_000, "{turns} turns in a second");
        }
        // Both ends and this test's own thread: 1 % for each end, and a tick for rounding.
        assert!(used <= elapsed / 50 + Duration::from_millis(10), "{used:?} of {elapsed:?}");
        stream.abort().expect("a worker");
        waiting.into_iter().for_each(|thread| drop(thread.join().expect("a thread")));
    });
}
