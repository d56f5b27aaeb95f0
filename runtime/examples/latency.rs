//! How long a one-byte question takes to be answered, over the sockets of the worker's own thread:
//! no lock, no copy between threads, no wake-up.
//!
//! Without arguments: both ends in one process, over a soft link, each on a core of its own.
//! With a device: `--connect ADDRESS:PORT` asks, its absence answers on port 7.

mod support;

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use roceway_runtime::WorkerConfig;
use roceway_runtime::busypoll::pin::Topology;
use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use support::{Arguments, fail, second, soft_pair};

const USAGE: &str = "latency [--device KIND:NAME --address ADDRESS/PREFIX] \
                     [--connect ADDRESS:PORT] [--seconds N]";
const PORT: u16 = 7;

fn worker(nic: AnyNic, config: WorkerConfig) -> Worker {
    Worker::with_nic(nic, &config.spinning()).unwrap_or_else(|error| fail(error))
}

/// Turns until the call need not wait.
fn until<T>(worker: &Worker, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                worker.turn_or_sleep()?;
            }
            outcome => return outcome,
        }
    }
}

/// Answers one connection after another.
fn answer(worker: &Worker) -> io::Result<()> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = TcpListener::bind(worker, at)?;
    println!("listening on {at}");
    let mut byte = [0];
    loop {
        let (stream, _) = until(worker, || listener.accept())?;
        stream.set_nodelay(true)?;
        while let Ok(1) = until(worker, || stream.read(&mut byte)) {
            until(worker, || stream.write(&byte))?;
        }
    }
}

fn ask(worker: &Worker, to: SocketAddr, length: Duration) -> io::Result<()> {
    let stream = TcpStream::connect(worker, to)?;
    until(worker, || match stream.is_connected()? {
        true => Ok(()),
        false => Err(ErrorKind::WouldBlock.into()),
    })?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(1 << 22);
    let mut byte = [7];
    let end = Instant::now() + length;
    loop {
        let start = Instant::now();
        until(worker, || stream.write(&byte))?;
        if until(worker, || stream.read(&mut byte))? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let now = Instant::now();
        times.push(now - start);
        if now > end || times.len() == times.capacity() {
            break;
        }
    }
    // The first ones warm caches and windows up.
    let warm_up = times.len() / 20;
    let times = &mut times[warm_up..];
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!(
        "{} transactions: p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        times.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    Ok(())
}

fn main() {
    let mut arguments = Arguments::read(USAGE, &["connect", "seconds"]);
    let length = Duration::from_secs(arguments.own("seconds").unwrap_or(2));
    let done = match arguments.device() {
        Some(nic) => {
            let worker = worker(nic, arguments.settings.worker.clone());
            match arguments.own::<SocketAddr>("connect") {
                Some(to) => ask(&worker, to, length),
                None => answer(&worker),
            }
        }
        None => {
            arguments.settings.worker.cpu = None;
            let [(one, mut client), (two, mut server)] = soft_pair(&arguments.settings);
            let choice = Topology::read().choose(2);
            choice.warnings.iter().for_each(|warning| println!("note: {warning}"));
            client.worker.cpu = choice.cpus.first().map(|cpu| cpu.0);
            server.worker.cpu = choice.cpus.get(1).map(|cpu| cpu.0);
            // The answering end ends with the process.
            std::thread::spawn(move || answer(&worker(two, server.worker)));
            ask(&worker(one, client.worker), second(PORT), length)
        }
    };
    if let Err(error) = done {
        fail(error);
    }
}
