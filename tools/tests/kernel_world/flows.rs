//! Streams of known bytes: written, read and compared at both ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream as KernelStream};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roceway_runtime::local::TcpStream;

use super::{LIMIT, Node};

/// A prime, so that no segment or buffer size divides it.
const PERIOD: usize = 1_000_003;
/// Bytes written or read at once, at most.
pub(crate) const CHUNK: usize = 128 * 1024;
/// Calls of one flow in one turn, so that each gets its share.
const CALLS_A_TURN: usize = 4;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1_u32;
    let byte = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let mut bytes: Vec<u8> = (0..PERIOD).map(|_| byte(&mut state)).collect();
    bytes.extend_from_within(..CHUNK);
    bytes
});

/// Bytes of every stream at `offset`, at most [`CHUNK`].
pub(crate) fn pattern(offset: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).unwrap();
    &PATTERN[start..start + length.min(CHUNK)]
}

/// Panics where bytes differ from the pattern.
pub(crate) fn check(offset: u64, bytes: &[u8]) {
    if bytes != pattern(offset, bytes.len()) {
        let wrong = bytes.iter().zip(pattern(offset, bytes.len())).position(|(a, b)| a != b);
        panic!("byte {} of the stream is wrong", offset + wrong.unwrap() as u64);
    }
}

/// Writes `total` bytes of the pattern from the kernel's side.
pub(crate) fn kernel_writes(mut stream: &KernelStream, total: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < total {
        let bytes = pattern(sent, usize::try_from(total - sent).unwrap_or(CHUNK));
        sent += stream.write(bytes)? as u64;
    }
    Ok(())
}

/// Reads and compares until the end of the stream; returns how many bytes there were.
pub(crate) fn kernel_reads(mut stream: &KernelStream) -> io::Result<u64> {
    let mut out = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let count = stream.read(&mut out)?;
        if count == 0 {
            return Ok(received);
        }
        check(received, &out[..count]);
        received += count as u64;
    }
}

/// The kernel's end of a flow: writes `total` bytes and the end of its stream while it reads the
/// other's to the end; returns how many came.
pub(crate) fn kernel_flow(stream: KernelStream, total: u64) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        for set in [KernelStream::set_read_timeout, KernelStream::set_write_timeout] {
            set(&stream, Some(LIMIT)).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                kernel_writes(&stream, total).expect("the kernel writes");
                stream.shutdown(Shutdown::Write).unwrap();
            });
            kernel_reads(&stream).expect("the kernel reads")
        })
    })
}

/// Roceway's end of a flow: sends so many bytes and the end of the stream, and receives to the end.
pub(crate) struct Flow {
    pub(crate) stream: TcpStream,
    pub(crate) send: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    shut: bool,
    /// The peer's stream has ended.
    pub(crate) ended: bool,
}

impl Flow {
    pub(crate) fn new(stream: TcpStream, send: u64) -> Flow {
        Flow { stream, send, sent: 0, received: 0, shut: false, ended: false }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.shut && self.ended
    }

    /// Does what can be done now; returns how many calls did something.
    fn step(&mut self, out: &mut [u8]) -> io::Result<u32> {
        let mut done = 0;
        for _ in 0..CALLS_A_TURN {
            if self.sent == self.send {
                break;
            }
            let bytes = pattern(self.sent, usize::try_from(self.send - self.sent).unwrap_or(CHUNK));
            let Some(count) = unless_blocked(self.stream.write(bytes))? else { break };
            self.sent += count as u64;
            done += 1;
        }
        if self.sent == self.send && !self.shut {
            self.stream.shutdown(Shutdown::Write)?;
            self.shut = true;
            done += 1;
        }
        for _ in 0..CALLS_A_TURN {
            if self.ended {
                break;
            }
            let Some(count) = unless_blocked(self.stream.read(out))? else { break };
            check(self.received, &out[..count]);
            self.received += count as u64;
            self.ended = count == 0;
            done += 1;
        }
        Ok(done)
    }
}

/// `None` for what would block.
pub(crate) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Node {
    /// Turns until every flow has sent and received everything.
    pub(crate) fn run_flows(&self, flows: &mut [Flow]) {
        let mut out = vec![0; CHUNK];
        let mut limit = (0, Instant::now() + LIMIT);
        while !flows.iter().all(Flow::is_done) {
            let application = || flows.iter_mut().map(|flow| flow.step(&mut out).unwrap()).sum();
            self.worker.turn_with_or_sleep(application).unwrap();
            let moved: u64 = flows.iter().map(|flow| flow.sent + flow.received).sum();
            if moved > limit.0 {
                limit = (moved, Instant::now() + Duration::from_secs(30));
            }
            assert!(Instant::now() < limit.1, "flows stand still at {moved}: {}", self.state());
        }
    }
}
