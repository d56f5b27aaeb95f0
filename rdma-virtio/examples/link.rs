//! How fast the soft link itself is: no virtqueue, no stack, but every check of the NIC.
//!
//! `cargo run --release --example link` prints, for several repetitions in turn, the ping-pong of
//! one cache line between two cores (`line`), of a 79-byte message over the link (`link`), and
//! bulk transfer in 64 KiB messages of 4 KiB elements, whose sender rewrites every byte and whose
//! receiver reads every byte. Two virtual processors on one physical core make far lower figures.
//!
//! `link instructions N` does N round trips in one thread, for `valgrind --tool=callgrind
//! --toggle-collect='*round_trips*'`.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use roceway_rdma_virtio::memory::mapping::{Mapping, PageWish};
use roceway_rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_rdma_virtio::nic::{
    Completion, Lkey, Nic, Offload, RecvWr, RegionView, SendWr, Sge, WcChecksum, WcStatus,
};

const REPETITIONS: usize = 5;
const ROUNDS: usize = 200_000;
const BULK_TIME: Duration = Duration::from_millis(300);
const MESSAGE_LEN: u32 = 79;
const CHUNK_LEN: u32 = 4096;
const BULK_CHUNKS: u32 = 16;
/// Messages of bulk in flight: 1 MiB, which fits into the second-level cache.
const BULK_DEPTH: u32 = 16;
const RECEIVES: u32 = 512;

const NOTHING: Completion = Completion {
    wr_id: 0,
    status: WcStatus::Success,
    byte_len: 0,
    more: false,
    checksum: WcChecksum::Unknown,
};

/// A NIC with its memory, which is dropped after it.
struct Side {
    nic: SoftNic,
    tx_lkey: Lkey,
    rx_lkey: Lkey,
    tx: Mapping,
    rx: Mapping,
}

impl Side {
    fn new(mut nic: SoftNic) -> Side {
        let bytes = |chunks: u32| usize::try_from(chunks * CHUNK_LEN).expect("64-bit");
        let tx = Mapping::create(c"link-tx", bytes(BULK_CHUNKS * BULK_DEPTH), PageWish::Ordinary)
            .expect("memory");
        tx.seal().expect("seals");
        let rx = Mapping::create(c"link-rx", bytes(RECEIVES), PageWish::Ordinary).expect("memory");
        let view = |mapping: &Mapping, writable| RegionView {
            addr: mapping.addr(),
            length: u64::try_from(mapping.len()).expect("64-bit"),
            memfd: Some((mapping.memfd(0).as_raw_fd(), 0)),
            writable,
        };
        // SAFETY: the mapping is a later field of the same value, so it outlives the NIC.
        let tx_lkey = unsafe { nic.register(view(&tx, false)) }.expect("register");
        // SAFETY: as above; received bytes are read only after their completion.
        let rx_lkey = unsafe { nic.register(view(&rx, true)) }.expect("register");
        let mut side = Side { nic, tx_lkey, rx_lkey, tx, rx };
        for number in 0..RECEIVES {
            side.post_receive(u64::from(number));
        }
        side
    }

    #[inline]
    fn post_receive(&mut self, number: u64) {
        let addr = self.rx.addr() + number * u64::from(CHUNK_LEN);
        let sges = [Sge { addr, length: CHUNK_LEN, lkey: self.rx_lkey }];
        let posted = self.nic.post_recv(&[RecvWr { wr_id: number, sges: &sges }]);
        assert_eq!(posted, Ok(1));
    }

    #[inline]
    fn send_inline(&mut self) {
        let sges = [Sge { addr: self.tx.addr(), length: MESSAGE_LEN, lkey: self.tx_lkey }];
        let wr = SendWr {
            wr_id: 0,
            sges: &sges,
            signalled: false,
            inline: true,
            offload: Offload::default(),
        };
        assert_eq!(self.nic.post_send(&wr), Ok(()));
        self.nic.doorbell();
    }

    /// Takes a message, posts its receive again.
    #[inline]
    fn receive(&mut self) {
        let mut out = [NOTHING];
        assert_eq!(self.nic.poll_recv(&mut out), 1);
        assert_eq!((out[0].status, out[0].byte_len), (WcStatus::Success, MESSAGE_LEN));
        self.post_receive(out[0].wr_id);
    }

    fn wait(&self) {
        while !self.nic.recv_ready() {
            std::hint::spin_loop();
        }
    }
}

fn linked_pair() -> (Side, Side) {
    let (left, right) = SoftNic::pair(&SoftOptions::default()).expect("a pair");
    let (mut left, mut right) = (Side::new(left), Side::new(right));
    for now_ns in 1..100 {
        left.nic.maintain(now_ns).expect("left");
        right.nic.maintain(now_ns).expect("right");
    }
    assert!(left.nic.is_up() && right.nic.is_up());
    (left, right)
}

/// Ping-pong in one thread, for instruction counts.
#[inline(never)]
fn round_trips(left: &mut Side, right: &mut Side, count: usize) {
    for _ in 0..count {
        left.send_inline();
        right.receive();
        right.send_inline();
        left.receive();
    }
}

/// Pins this thread; an unpinned one only makes the figures worse.
fn pin(core: usize) {
    // Asked once: a pinned thread is told of its own core only.
    static CORES: OnceLock<Vec<core_affinity::CoreId>> = OnceLock::new();
    let cores = CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if cores.len() < 2 || !core_affinity::set_for_current(cores[core % cores.len()]) {
        eprintln!("not pinned: fewer than two cores, or not allowed");
    }
}

/// Middle and 99th percentile of round trips, in nanoseconds.
fn quantiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn timed(mut round: impl FnMut()) -> Vec<u64> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let before = Instant::now();
        round();
        times.push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    times
}

#[repr(align(128))]
struct Line(AtomicU64);

fn line() -> (u64, u64) {
    let line = Line(AtomicU64::new(0));
    let await_value = |value| {
        while line.0.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    };
    let rounds = u64::try_from(ROUNDS).expect("64-bit");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            for round in 0..rounds {
                await_value(2 * round + 1);
                line.0.store(2 * round + 2, Ordering::Release);
            }
        });
        pin(0);
        let mut round = 0;
        quantiles(timed(|| {
            line.0.store(2 * round + 1, Ordering::Release);
            await_value(2 * round + 2);
            round += 1;
        }))
    })
}

fn link() -> (u64, u64) {
    let (mut left, mut right) = linked_pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            for _ in 0..ROUNDS {
                right.wait();
                right.receive();
                right.send_inline();
            }
        });
        pin(0);
        quantiles(timed(|| {
            left.send_inline();
            left.wait();
            left.receive();
        }))
    })
}

/// Sends rewritten messages until told to stop; returns how many.
fn send_bulk(side: &mut Side, stop: &AtomicBool) {
    let mut out = [NOTHING; 64];
    let (mut sent, mut completed) = (0_u32, 0_u32);
    while !stop.load(Ordering::Relaxed) {
        completed += u32::try_from(side.nic.poll_send(&mut out)).expect("small");
        if sent - completed == BULK_DEPTH {
            std::hint::spin_loop();
            continue;
        }
        let start = u64::from(sent % BULK_DEPTH * BULK_CHUNKS * CHUNK_LEN);
        let at = |chunk: u32| side.tx.addr() + start + u64::from(chunk * CHUNK_LEN);
        let sges: [Sge; 16] = std::array::from_fn(|chunk| {
            let chunk = u32::try_from(chunk).expect("small");
            Sge { addr: at(chunk), length: CHUNK_LEN, lkey: side.tx_lkey }
        });
        let place = usize::try_from(start).expect("64-bit");
        let length = usize::try_from(BULK_CHUNKS * CHUNK_LEN).expect("64-bit");
        let to = side.tx.as_mut_ptr().wrapping_add(place);
        // SAFETY: inside the transmit mapping, in a part whose last message has completed.
        unsafe { std::ptr::write_bytes(to, sent.to_le_bytes()[0], length) };
        let wr = SendWr {
            wr_id: u64::from(sent),
            sges: &sges,
            signalled: true,
            inline: false,
            offload: Offload::default(),
        };
        assert_eq!(side.nic.post_send(&wr), Ok(()));
        side.nic.doorbell();
        sent = sent.wrapping_add(1);
    }
}

/// Receives and reads every byte; returns gigabits per second.
fn receive_bulk(side: &mut Side) -> f64 {
    let mut out = [NOTHING; 16];
    let (mut bytes, mut sum) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed() < BULK_TIME {
        let count = side.nic.poll_recv(&mut out);
        for completion in &out[..count] {
            let offset = completion.wr_id * u64::from(CHUNK_LEN);
            let start = usize::try_from(offset).expect("64-bit");
            let words = usize::try_from(completion.byte_len / 8).expect("64-bit");
            let from = side.rx.as_ptr().wrapping_add(start).cast::<u64>();
            // SAFETY: a completed receive within the mapping is ours, and aligned to its page.
            let received = unsafe { std::slice::from_raw_parts(from, words) };
            sum = received.iter().fold(sum, |sum, word| sum.wrapping_add(*word));
            bytes += u64::from(completion.byte_len);
            side.post_receive(completion.wr_id);
        }
    }
    std::hint::black_box(sum);
    let bits = f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0 * 8.0;
    bits / began.elapsed().as_secs_f64() / 1e9
}

fn bulk() -> f64 {
    let (mut left, mut right) = linked_pair();
    let stop = AtomicBool::new(false);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            start.wait();
            send_bulk(&mut left, &stop);
        });
        pin(0);
        start.wait();
        let rate = receive_bulk(&mut right);
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, count] = &arguments[..]
        && word == "instructions"
    {
        let count = count.parse().expect("a number of round trips");
        let (mut left, mut right) = linked_pair();
        round_trips(&mut left, &mut right, count);
        return;
    }
    println!("line p50/p99 ns   link p50/p99 ns   link/line   bulk Gbit/s");
    for _ in 0..REPETITIONS {
        let ((line50, line99), (link50, link99), rate) = (line(), link(), bulk());
        let ratio = f64::from(u32::try_from(link50).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(line50.max(1)).unwrap_or(u32::MAX));
        println!("{line50:>8}/{line99:<8} {link50:>8}/{link99:<8} {ratio:>8.2} {rate:>13.1}");
    }
}
