//! What a copy of 64 KiB takes that another core has just written, as the soft NIC makes them: by
//! the C library or in Roceway's way, in pieces of 4 KiB or in one. The ways take turns, message by
//! message, so that what else happens on the machine meets all alike.
//!
//! `cargo run --release -p roceway-rdma-virtio --example copy_ways [--json]`

use std::hint::{black_box, spin_loop};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use roceway_rdma_virtio::memory::copy::copy_long;

/// Bytes of a message: 45 segments of 1448 bytes.
const LEN: usize = 45 * 1448;
const PAGE: usize = 4096;
/// Messages that may lie there unread.
const DEPTH: usize = 16;
const MESSAGES: u64 = 40_000;
/// Where a message and its copy begin in their pages.
#[derive(Clone, Copy)]
enum Begin {
    /// The copy at the page's start, as a receive buffer does; the message each time elsewhere.
    Anywhere,
    /// The copy so many bytes further into its page than the message.
    Ahead(usize),
}

const BEGINS: [(Begin, &str); 3] =
    [(Begin::Anywhere, "anywhere"), (Begin::Ahead(8), "8 ahead"), (Begin::Ahead(64), "64 ahead")];

impl Begin {
    /// Where message number `n` and its copy begin.
    fn of(self, n: u64) -> (usize, usize) {
        match self {
            Begin::Anywhere => (usize::try_from(n).unwrap_or(0) * 136 % PAGE, 0),
            Begin::Ahead(ahead) => (0, ahead),
        }
    }
}

#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Bytes at a time.
    piece: usize,
    copy: unsafe fn(*const u8, *mut u8, usize),
}

unsafe fn of_library(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, count) }
}

unsafe fn of_roceway(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { copy_long(from, to, count) }
}

const WAYS: [Way; 4] = [
    Way { name: "library, 4 KiB", piece: PAGE, copy: of_library },
    Way { name: "roceway, 4 KiB", piece: PAGE, copy: of_roceway },
    Way { name: "library, in one", piece: LEN, copy: of_library },
    Way { name: "roceway, in one", piece: LEN, copy: of_roceway },
];

/// Memory at a page's start, shared by both threads.
struct Pages(*mut u8);

// SAFETY: who may touch which bytes is told by the two counters.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(length: usize) -> Pages {
        let all = Vec::leak(vec![1_u8; length + PAGE]);
        Pages(all.as_mut_ptr().wrapping_add(all.as_ptr().align_offset(PAGE)))
    }
}

/// Nanoseconds of each copy, by way.
fn measure(begin: Begin) -> [Vec<u64>; WAYS.len()] {
    let room = LEN + 2 * PAGE;
    let (source, place) = (Pages::new(room * DEPTH), Pages::new(room * DEPTH));
    let (written, read) = (AtomicU64::new(0), AtomicU64::new(0));
    let slot = |n: u64| usize::try_from(n).unwrap_or(0) % DEPTH * room / PAGE * PAGE;
    let mut times = [const { Vec::new() }; WAYS.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
            let source = &source;
            for n in 0..MESSAGES {
                while n - read.load(Ordering::Acquire) >= DEPTH as u64 {
                    spin_loop();
                }
                let first = source.0.wrapping_add(slot(n) + begin.of(n).0);
                // SAFETY: inside the memory, and the other end has done with it.
                unsafe { ptr::write_bytes(first, n.to_le_bytes()[0], LEN) };
                written.store(n + 1, Ordering::Release);
            }
        });
        core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
        for n in 0..MESSAGES {
            while written.load(Ordering::Acquire) <= n {
                spin_loop();
            }
            let which = usize::try_from(n / 16 + n).unwrap_or(0) % WAYS.len();
            let way = WAYS[which];
            let from = source.0.wrapping_add(slot(n) + begin.of(n).0);
            let to = place.0.wrapping_add(slot(n) + begin.of(n).1);
            let before = Instant::now();
            for at in (0..LEN).step_by(way.piece) {
                let count = way.piece.min(LEN - at);
                // SAFETY: both lie inside the memory, and the writer is done with this message.
                unsafe { (way.copy)(from.wrapping_add(at), to.wrapping_add(at), count) };
            }
            times[which].push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            // SAFETY: just written.
            black_box(unsafe { to.wrapping_add(LEN - 1).read() });
            read.store(n + 1, Ordering::Release);
        }
    });
    times
}

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let mut rows = Vec::new();
    if !json {
        println!(
            "{:<16} {:<8} {:>8} {:>8} {:>8}  ns for {LEN} bytes",
            "way", "begins", "p10", "p50", "p90"
        );
    }
    for (begin, begins) in BEGINS {
        for (way, mut times) in WAYS.iter().zip(measure(begin)) {
            times.sort_unstable();
            let [p10, p50, p90] = [1, 5, 9].map(|tenth| times[times.len() * tenth / 10]);
            let name = way.name;
            if json {
                let times = format!(r#""p10_ns":{p10},"p50_ns":{p50},"p90_ns":{p90}"#);
                rows.push(format!(r#"{{"way":"{name}","begins":"{begins}",{times}}}"#));
            } else {
                println!("{name:<16} {begins:<8} {p10:>8} {p50:>8} {p90:>8}");
            }
        }
    }
    if json {
        println!("{{\"bytes\":{LEN},\"rows\":[{}]}}", rows.join(","));
    }
}
