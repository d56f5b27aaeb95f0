//! Instructions of a turn besides the work's own, for counting under valgrind:
//! `turn idle|busy COUNT` takes COUNT turns and prints nothing. Two counts give the cost of one:
//! the difference of the instructions over the difference of the turns.
//!
//! The work is as small as work can be: a ready flag, and in the busy turn one received item.

use roceway_busypoll::{Armed, Limits, Loop, Progress, Spin, Turned, Work};

struct Flag(bool);

impl Work for Flag {
    #[inline]
    fn ready(&mut self) -> bool {
        std::hint::black_box(self.0)
    }
    #[inline]
    fn control(&mut self, _: u64, _: u32) -> Progress {
        Progress::NONE
    }
    #[inline]
    fn receive(&mut self, _: u64, _: u32) -> Progress {
        Progress::done(u32::from(std::hint::black_box(self.0)))
    }
    #[inline]
    fn timers(&mut self, _: u64, _: u32) -> Progress {
        Progress::done(std::hint::black_box(0))
    }
    #[inline]
    fn application(&mut self, _: u64, _: u32) -> Progress {
        Progress::done(std::hint::black_box(0))
    }
    #[inline]
    fn transmit(&mut self, _: u64, _: u32) -> Progress {
        Progress::done(u32::from(std::hint::black_box(self.0)))
    }
    fn doorbell(&mut self) {}
    #[inline]
    fn after(&mut self, _: u64, _: u32) -> Progress {
        Progress::done(std::hint::black_box(0))
    }
    fn cold(&mut self, _: u64) {}
    #[inline]
    fn deadline(&mut self) -> u64 {
        u64::MAX
    }
    fn arm(&mut self) -> Armed {
        Armed::Pending
    }
    fn disarm(&mut self) {}
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (busy, count) = match arguments.get(1..3) {
        Some([name, count]) if name == "idle" || name == "busy" => {
            (name == "busy", count.parse::<u64>().expect("COUNT is a number"))
        }
        // `cargo bench` and `cargo test --benches` pass other arguments: show that it runs.
        _ => (true, 1_000),
    };
    // No cold work and no end of polling in between: they come by time, not by turns.
    let limits = Limits { spin: Spin::Forever, cold_period_ns: u64::MAX, ..Limits::default() };
    let (mut turns, mut work) = (Loop::new(limits), Flag(busy));
    assert!(counted(&mut turns, &mut work, count) <= count);
}

/// The part that `tools/instructions` counts: not the start, which measures the clock's rate for a
/// while and so never takes the same number of instructions twice.
#[inline(never)]
fn counted(turns: &mut Loop, work: &mut Flag, count: u64) -> u64 {
    let mut progress = 0;
    for _ in 0..count {
        progress += u64::from(turns.turn(work) == Turned::Busy);
    }
    progress
}
