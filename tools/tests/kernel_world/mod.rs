//! Roceway on one side, the host's kernel on the other, in network namespaces that vanish: what
//! the tests of `kernel_*.rs` share.
//!
//! Every wait has an end, [`LIMIT`]; no test asserts how fast anything is.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod flows;
mod gateway;
mod host;
mod joint;
mod messages;
#[path = "../../../rdma-virtio/tests/tap_world/namespaces.rs"]
mod namespaces;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roceway_runtime::local::{TcpListener, TcpStream, Worker};
use roceway_runtime::{StartError, WorkerConfig};

pub(crate) use flows::*;
pub(crate) use gateway::*;
pub(crate) use host::*;
pub(crate) use joint::*;
pub(crate) use messages::*;
pub(crate) use namespaces::*;

/// The kernel's addresses.
pub(crate) const HOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
];
/// Roceway's addresses.
pub(crate) const US: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 8, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
];
/// The longest that anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How Roceway and the kernel are joined, and where the kernel's side is.
pub(crate) struct World {
    device: String,
    /// The kernel's namespace, where it is not the test's own.
    peer: Option<Peer>,
    /// The process between both, if there is one.
    pub(crate) gateway: Option<Gateway>,
}

impl World {
    /// A TAP between Roceway and the kernel of this namespace. `options` begin with a comma.
    pub(crate) fn tap(options: &str) -> World {
        allow_ipv6(true);
        World {
            device: format!("tap:t0,up=on,addr=10.8.0.1/24,addr=fd00::1/64{options}"),
            peer: None,
            gateway: None,
        }
    }

    /// A veth pair: Roceway at `va` here, the kernel at `vb` in a namespace of its own.
    pub(crate) fn veth(options: &str) -> World {
        let peer = veth();
        peer.run(|| {
            allow_ipv6(true);
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/vb/disable_ipv6", "0");
            ip("addr add fd00::1/64 dev vb nodad");
        });
        World { device: format!("packet:va{options}"), peer: Some(peer), gateway: None }
    }

    /// What a worker on the device is told.
    pub(crate) fn config() -> WorkerConfig {
        let mut config = WorkerConfig::new("10.8.0.2/24".parse().unwrap());
        config.addresses.push("fd00::2/64".parse().unwrap());
        config
    }

    /// Opens the device.
    pub(crate) fn open(&self, config: &WorkerConfig) -> Result<Worker, StartError> {
        Worker::open(&self.device, config)
    }

    /// A worker with the usual configuration.
    pub(crate) fn node(&self) -> Node {
        self.node_with(&World::config())
    }

    /// A worker with a configuration of the test's.
    pub(crate) fn node_with(&self, config: &WorkerConfig) -> Node {
        Node { worker: self.open(config).unwrap() }
    }

    /// Runs `job` on a thread in the kernel's namespace.
    pub(crate) fn kernel<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.peer {
            Some(peer) => peer.run(|| std::thread::spawn(job)),
            None => std::thread::spawn(job),
        }
    }

    /// Runs `job` in the kernel's namespace and waits for it.
    pub(crate) fn in_kernel<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.kernel(job).join().unwrap()
    }
}

/// A worker, and calls on its sockets that wait by turning it.
pub(crate) struct Node {
    pub(crate) worker: Worker,
}

impl Node {
    /// Turns until `attempt` no longer blocks.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let limit = Instant::now() + LIMIT;
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            assert!(Instant::now() < limit, "{what}: {}", self.state());
            self.worker.turn_or_sleep().unwrap();
        }
    }

    /// Turns until a thread has ended, and gives its result.
    pub(crate) fn join<T>(&self, what: &str, thread: JoinHandle<T>) -> T {
        self.until(what, || pending(!thread.is_finished())).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Turns for a while.
    pub(crate) fn run_for(&self, time: Duration) {
        let end = Instant::now() + time;
        let _ = self.until("a pause", || pending(Instant::now() < end));
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.worker, to)?;
        self.until("to connect", || pending(!stream.is_connected()?))?;
        Ok(stream)
    }

    pub(crate) fn accept(&self, listener: &TcpListener) -> TcpStream {
        self.until("to accept", || listener.accept()).unwrap().0
    }

    pub(crate) fn write_all(&self, stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.until("to write", || stream.write(bytes))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    pub(crate) fn read_exact(&self, stream: &TcpStream, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let count = self.until("to read", || stream.read(&mut out[done..]))?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
        }
        Ok(())
    }

    /// Reads and compares to the end of the stream; returns how many bytes there were.
    pub(crate) fn read_all(&self, stream: &TcpStream) -> io::Result<u64> {
        let mut out = vec![0; CHUNK];
        let mut received = 0;
        loop {
            let count = self.until("the end of the stream", || stream.read(&mut out))?;
            if count == 0 {
                return Ok(received);
            }
            check(received, &out[..count]);
            received += count as u64;
        }
    }

    /// The sum of all counters of this name.
    pub(crate) fn counter(&self, wanted: &str) -> u64 {
        let mut sum = 0;
        self.worker.visit_counters(&mut |_, name, value| {
            sum += if name == wanted { value } else { 0 };
        });
        sum
    }

    /// Every counter that is not zero, and every connection, for messages.
    pub(crate) fn state(&self) -> String {
        let mut text = String::new();
        self.worker.visit_counters(&mut |layer, name, value| {
            if value != 0 {
                text += &format!("{layer}.{name}={value} ");
            }
        });
        self.worker.visit_connections(&mut |info| text += &format!("\n{info:?}"));
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.worker.check_counters();
            assert_eq!(self.counter("frames_refused"), 0, "{}", self.state());
        }
    }
}

/// `WouldBlock` as long as something is awaited.
pub(crate) fn pending(waiting: bool) -> io::Result<()> {
    if waiting { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// A refused connection is tried again: the other side may not listen yet.
pub(crate) fn retried<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable => {
            io::ErrorKind::WouldBlock.into()
        }
        _ => error,
    })
}
