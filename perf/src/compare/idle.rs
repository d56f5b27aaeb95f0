//! The first request after a second of idleness, when both ends have gone to sleep, and what an
//! idle pair of ends costs meanwhile. Roceway with its own idle policy; the kernel blocking.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::{Prefix, WorkerConfig};
use rustix::time::ClockId;

use super::rivals::{Contender, rtt_row};
use super::{Measured, Plan};
use crate::arithmetic::{nanoseconds, real};
use crate::ends::{ADDRESSES, soft_pair};
use crate::histogram::Latency;
use crate::kernel::clock_ns;
use crate::local::pin;
use crate::report::Place;

/// How long both ends rest before each request.
const REST: Duration = Duration::from_secs(1);
/// Requests of one repetition.
const REQUESTS: u32 = 2;
/// How long the ends may take to find each other.
const START_MAX: Duration = Duration::from_secs(10);
/// Roceway's port.
const PORT: u16 = 7;

/// Both contenders.
pub(super) fn both() -> Vec<Box<dyn Contender>> {
    vec![Box::new(IdleRival::new(Over::Roceway)), Box::new(IdleRival::new(Over::Kernel))]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    Roceway,
    Kernel,
}

/// One stack's first requests.
#[derive(Debug)]
struct IdleRival {
    over: Over,
    /// CPU time and time of all rests so far, nanoseconds.
    rested: (u64, u64),
}

/// What one repetition came to.
#[derive(Default)]
struct Rests {
    round_trips: Vec<u64>,
    cpu_ns: u64,
    elapsed_ns: u64,
}

impl Rests {
    /// Counts what `rest` costs.
    fn count(&mut self, rest: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (cpu, start) = (clock_ns(ClockId::ProcessCPUTime), Instant::now());
        rest()?;
        self.cpu_ns += clock_ns(ClockId::ProcessCPUTime) - cpu;
        self.elapsed_ns += nanoseconds(start.elapsed());
        Ok(())
    }
}

impl IdleRival {
    fn new(over: Over) -> Self {
        Self { over, rested: (0, 0) }
    }

    fn place(&self) -> Place {
        let (stack, device, mode) = match self.over {
            Over::Roceway => ("roceway", "soft", "copy, rested"),
            Over::Kernel => ("kernel", "loopback", "block, rested"),
        };
        Place { stack: stack.into(), device: device.into(), mode: Some(mode.into()) }
    }
}

impl Contender for IdleRival {
    fn name(&self) -> String {
        let Place { stack, device, .. } = self.place();
        format!("{stack}, {device}, first request after a rest")
    }

    fn notes(&self) -> Vec<String> {
        let (cpu, all) = self.rested;
        let part = 100.0 * real(cpu) / real(all.max(1));
        let stack = self.place().stack;
        vec![format!("{stack}, idle: {part:.2} % of one cpu, both ends together")]
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let rests = match self.over {
            Over::Roceway => roceway(plan).map_err(|error| error.to_string())?,
            Over::Kernel => kernel(plan).map_err(|error| error.to_string())?,
        };
        self.rested.0 += rests.cpu_ns;
        self.rested.1 += rests.elapsed_ns;
        let mut latency = Latency::new();
        rests.round_trips.iter().for_each(|ns| latency.record(*ns));
        let mut measured = rtt_row("TCP_RR", self.place(), latency);
        // So few samples are no distribution and no rate.
        (measured.row.p99_ns, measured.row.p999_ns) = (None, None);
        measured.row.transactions_per_s = None;
        measured.latency = None;
        Ok(measured)
    }
}

fn worker(nic: AnyNic, address: Ipv4Addr, cpu: Option<usize>) -> io::Result<Worker> {
    let mut config = WorkerConfig::new(Prefix { address: IpAddr::V4(address), length: 24 });
    config.cpu = cpu;
    Worker::with_nic(nic, &config).map_err(io::Error::other)
}

/// Takes `WouldBlock` for nothing.
fn some<V>(result: io::Result<V>) -> io::Result<Option<V>> {
    crate::transport::ready(result)
}

fn roceway(plan: &Plan) -> io::Result<Rests> {
    let (here, there) = soft_pair(&SoftOptions::default()).map_err(io::Error::other)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let worker = worker(there, ADDRESSES[1], plan.cores.server)?;
            answer(&worker, &stop)
        });
        let asked = worker(here, ADDRESSES[0], plan.cores.client)
            .and_then(|worker| ask(&worker, || other.is_finished()));
        stop.store(true, Ordering::Relaxed);
        let served = other.join().unwrap_or_else(|_| Err(io::Error::other("its thread died")));
        asked.and_then(|rests| served.map(|()| rests))
    })
}

fn answer(worker: &Worker, stop: &AtomicBool) -> io::Result<()> {
    let listener = TcpListener::bind(worker, SocketAddr::new(ADDRESSES[1].into(), PORT))?;
    let mut connection: Option<TcpStream> = None;
    let mut byte = [0];
    while !stop.load(Ordering::Relaxed) {
        let _whether_it_slept = worker.turn_or_sleep()?;
        match &connection {
            None => connection = some(listener.accept())?.map(|(stream, _)| stream),
            Some(stream) => {
                // The end of the stream is the end of the test, which `stop` tells.
                if let Ok(Some(1)) = some(stream.read(&mut byte)) {
                    stream.write(&byte)?;
                }
            }
        }
    }
    Ok(())
}

fn ask(worker: &Worker, gone: impl Fn() -> bool) -> io::Result<Rests> {
    let start = Instant::now();
    let stream = TcpStream::connect(worker, SocketAddr::new(ADDRESSES[1].into(), PORT))?;
    while !stream.is_connected()? {
        if gone() || start.elapsed() > START_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let _whether_it_slept = worker.turn_or_sleep()?;
    }
    stream.set_nodelay(true)?;
    let mut rests = Rests::default();
    for _ in 0..REQUESTS {
        rests.count(|| {
            let rested = Instant::now();
            while rested.elapsed() < REST {
                let _whether_it_slept = worker.turn_or_sleep()?;
            }
            Ok(())
        })?;
        let (asked, mut byte) = (Instant::now(), [0]);
        stream.write(&[1])?;
        while some(stream.read(&mut byte))?.is_none() {
            if gone() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let _whether_it_slept = worker.turn_or_sleep()?;
        }
        rests.round_trips.push(nanoseconds(asked.elapsed()));
        black_box(byte);
    }
    Ok(rests)
}

fn kernel(plan: &Plan) -> io::Result<Rests> {
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || -> io::Result<()> {
            pin(plan.cores.server)?;
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let _ = tell.send(listener.local_addr()?);
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        pin(plan.cores.client)?;
        let to = told.recv().map_err(io::Error::other)?;
        let mut stream = std::net::TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let mut rests = Rests::default();
        for _ in 0..REQUESTS {
            rests.count(|| {
                std::thread::sleep(REST);
                Ok(())
            })?;
            let (asked, mut byte) = (Instant::now(), [0]);
            stream.write_all(&[1])?;
            stream.read_exact(&mut byte)?;
            rests.round_trips.push(nanoseconds(asked.elapsed()));
        }
        Ok(rests)
    })
}
