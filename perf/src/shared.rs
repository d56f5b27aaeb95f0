//! Roceway's sockets for any thread as a transport: a worker that a thread of its own turns, or
//! those that call. Calls on data sockets wait, as the kernel's blocking ones do.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use roceway_runtime::shared::{Manner as Turning, TcpListener, TcpStream, UdpSocket, Worker};
use rustix::time::ClockId;

use crate::arithmetic::nanoseconds;
use crate::kernel::{SocketOptions, clock_ns};
use crate::state::WorkerState;
use crate::transport::{Manner, Pass, Ready, Role, Token, Transport, WAIT_MAX_MS};

/// How long a turn pauses that has only control connections to look at.
const PAUSE: Duration = Duration::from_micros(200);
/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A socket of a shared worker. It shows nothing of itself, since others may use its worker.
pub struct Socket<S>(S);

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// A listener of a shared worker, with the role that its connections inherit.
#[derive(Debug)]
pub struct Listener {
    socket: Socket<TcpListener>,
    role: Role,
}

/// A worker for any thread as a transport of the calling one.
pub struct Shared {
    worker: Worker,
    options: SocketOptions,
    epoch: Instant,
}

impl Shared {
    /// A transport on a worker.
    #[must_use]
    pub fn new(worker: Worker, options: SocketOptions) -> Self {
        Self { worker, options, epoch: Instant::now() }
    }

    /// What the worker tells of itself; nothing once it was stopped.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        let counters = self.worker.counters().unwrap_or_default();
        WorkerState {
            counters: counters.into_iter().filter(|(_, _, value)| *value > 0).collect(),
            connections: self.worker.connections().unwrap_or_default(),
            offloads: self.worker.offloads().unwrap_or_default(),
        }
    }

    /// CPU time of the worker's own thread, if it has one, in nanoseconds.
    fn worker_cpu_ns(&self) -> u64 {
        if self.worker.manner() == Turning::CallerDriven {
            return 0;
        }
        let (tell, told) = mpsc::sync_channel(1);
        let ask = move |_: &_| {
            let _asker_may_be_gone = tell.send(clock_ns(ClockId::ThreadCPUTime));
        };
        // A worker that was stopped uses nothing any more.
        self.worker.run_inside(ask).ok().and_then(|()| told.recv().ok()).unwrap_or(0)
    }

    fn prepared(&self, stream: TcpStream, role: Role) -> io::Result<Socket<TcpStream>> {
        stream.set_nodelay(true)?;
        let wait = Some(Duration::from_millis(WAIT_MAX_MS.into()));
        match role {
            Role::Control => stream.set_nonblocking(true)?,
            Role::Data | Role::Direct => {
                stream.set_read_timeout(wait)?;
                stream.set_write_timeout(wait)?;
            }
        }
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        if let Some(size) = self.options.send_buffer {
            stream.set_send_buffer(bytes(size))?;
        }
        if let Some(size) = self.options.receive_buffer {
            stream.set_receive_buffer(bytes(size))?;
        }
        Ok(Socket(stream))
    }
}

impl Transport for Shared {
    type Listener = Listener;
    type Stream = Socket<TcpStream>;
    type Datagram = Socket<UdpSocket>;
    type Filled = std::convert::Infallible;

    fn manner(&self) -> Manner {
        Manner::Blocks
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }

    fn cpu_ns(&self) -> u64 {
        clock_ns(ClockId::ThreadCPUTime) + self.worker_cpu_ns()
    }

    fn listen(&mut self, address: SocketAddr, role: Role, _token: Token) -> io::Result<Listener> {
        let socket = TcpListener::bind(&self.worker, address)?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket: Socket(socket), role })
    }

    fn listener_address(&self, listener: &Listener) -> io::Result<SocketAddr> {
        listener.socket.0.local_addr()
    }

    fn accept(&mut self, listener: &mut Listener, _token: Token) -> io::Result<Self::Stream> {
        let (stream, _) = listener.socket.0.accept()?;
        self.prepared(stream, listener.role)
    }

    /// Returns once the connection is established.
    fn connect(&mut self, to: SocketAddr, role: Role, _token: Token) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect_timeout(&self.worker, &to, CONNECT_MAX)?;
        self.prepared(stream, role)
    }

    fn connected(&mut self, _stream: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }

    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr> {
        stream.0.local_addr()
    }

    #[inline]
    fn try_send(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut stream.0, bytes)
    }

    #[inline]
    fn try_recv(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut stream.0, into)
    }

    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        stream.0.shutdown(Shutdown::Write)
    }

    fn bind(
        &mut self,
        address: SocketAddr,
        _role: Role,
        _token: Token,
    ) -> io::Result<Self::Datagram> {
        let socket = UdpSocket::bind(&self.worker, address)?;
        socket.set_read_timeout(Some(Duration::from_millis(WAIT_MAX_MS.into())))?;
        Ok(Socket(socket))
    }

    fn datagram_address(&self, socket: &Self::Datagram) -> io::Result<SocketAddr> {
        socket.0.local_addr()
    }

    fn set_peer(&mut self, socket: &mut Self::Datagram, peer: SocketAddr) -> io::Result<()> {
        socket.0.connect(peer)
    }

    #[inline]
    fn try_send_datagram(
        &mut self,
        socket: &mut Self::Datagram,
        bytes: &[u8],
    ) -> io::Result<usize> {
        socket.0.send(bytes)
    }

    #[inline]
    fn try_recv_datagram(
        &mut self,
        socket: &mut Self::Datagram,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        socket.0.recv_from(into)
    }

    /// Calls wait for themselves: there is nothing to turn, and nobody tells what is ready.
    fn turn(&mut self, pass: Pass, _ready: &mut Vec<Token>) -> io::Result<Ready> {
        match pass {
            Pass::Busy => {}
            Pass::Idle | Pass::Resting => std::thread::sleep(PAUSE),
        }
        Ok(Ready::Any)
    }
}
