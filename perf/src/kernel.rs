//! The host kernel's sockets as a transport: the yardstick. Spinning on non-blocking sockets,
//! blocking in the call, or sleeping in epoll (edge-triggered). CUBIC and `TCP_NODELAY` on every
//! TCP socket, so that runs on hosts with different defaults compare.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use rustix::time::{ClockId, clock_gettime};

use crate::arithmetic::nanoseconds;
use crate::transport::{Manner, Pass, Ready, Role, Token, Transport, WAIT_MAX_MS};

/// How the kernel's sockets are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Waiting {
    /// Non-blocking calls, again and again.
    #[default]
    Spin,
    /// Blocking calls; a thread for each connection.
    Block,
    /// One thread, epoll, edge-triggered.
    Epoll,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Block => "block",
            Self::Epoll => "epoll",
        })
    }
}

/// Options of every socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// `SO_SNDBUF`, or the kernel's own tuning.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF`, or the kernel's own tuning.
    pub receive_buffer: Option<usize>,
}

/// The congestion control that is asked for.
const CONGESTION: &str = "cubic";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Events that one `epoll_wait` takes.
const EVENTS_MAX: usize = 256;
/// How long a turn pauses while no test runs, or while a blocking transport has only its control
/// connection to look at; its data calls sleep by themselves.
const PAUSE: Duration = Duration::from_micros(200);

/// The host kernel as a transport.
#[derive(Debug)]
pub struct Kernel {
    waiting: Waiting,
    options: SocketOptions,
    epoch: Instant,
    epoll: Option<Epoll>,
}

struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Kernel {
    /// A transport for the calling thread.
    ///
    /// # Errors
    /// If the process may have no further descriptor.
    pub fn new(waiting: Waiting, options: SocketOptions) -> io::Result<Self> {
        let epoll = match waiting {
            Waiting::Spin | Waiting::Block => None,
            Waiting::Epoll => Some(Epoll {
                fd: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                events: Vec::with_capacity(EVENTS_MAX),
            }),
        };
        Ok(Self { waiting, options, epoch: Instant::now(), epoll })
    }

    /// How it waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Its socket options.
    #[must_use]
    pub fn options(&self) -> SocketOptions {
        self.options
    }

    /// The congestion control that the kernel really gives when CUBIC is asked for.
    ///
    /// # Errors
    /// If no socket can be had.
    pub fn congestion_control() -> io::Result<String> {
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
        // Refused where the module is not there; the answer below then says what is used.
        let _ = sockopt::set_tcp_congestion(&fd, CONGESTION);
        Ok(sockopt::tcp_congestion(&fd)?)
    }

    fn blocks(&self, role: Role) -> bool {
        self.waiting == Waiting::Block && role != Role::Control
    }

    fn socket(&self, address: SocketAddr, kind: SocketType, role: Role) -> io::Result<OwnedFd> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let mut flags = SocketFlags::CLOEXEC;
        if !self.blocks(role) {
            flags |= SocketFlags::NONBLOCK;
        }
        let fd = rustix::net::socket_with(family, kind, flags, None)?;
        if kind == SocketType::STREAM {
            sockopt::set_tcp_nodelay(&fd, true)?;
            // Refused where the module is not there; the report names what is in effect.
            let _ = sockopt::set_tcp_congestion(&fd, CONGESTION);
        }
        if let Some(bytes) = self.options.send_buffer {
            sockopt::set_socket_send_buffer_size(&fd, bytes)?;
        }
        if let Some(bytes) = self.options.receive_buffer {
            sockopt::set_socket_recv_buffer_size(&fd, bytes)?;
        }
        self.limit_waits(&fd, role)?;
        Ok(fd)
    }

    fn limit_waits(&self, fd: &OwnedFd, role: Role) -> io::Result<()> {
        if self.blocks(role) {
            let limit = Some(Duration::from_millis(WAIT_MAX_MS.into()));
            sockopt::set_socket_timeout(fd, Timeout::Recv, limit)?;
            sockopt::set_socket_timeout(fd, Timeout::Send, limit)?;
        }
        Ok(())
    }

    fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        if let Some(epoll) = &self.epoll {
            let data = epoll::EventData::new_u64(crate::arithmetic::count(token));
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            epoll::add(&epoll.fd, fd, data, flags)?;
        }
        Ok(())
    }
}

/// A listening socket, with the role that its connections inherit.
#[derive(Debug)]
pub struct KernelListener {
    socket: TcpListener,
    role: Role,
}

impl Transport for Kernel {
    type Listener = KernelListener;
    type Stream = TcpStream;
    type Datagram = UdpSocket;
    type Filled = Infallible;

    fn manner(&self) -> Manner {
        match self.waiting {
            Waiting::Spin => Manner::Spins,
            Waiting::Block => Manner::Blocks,
            Waiting::Epoll => Manner::Sleeps,
        }
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }

    fn cpu_ns(&self) -> u64 {
        clock_ns(ClockId::ThreadCPUTime)
    }

    fn listen(
        &mut self,
        address: SocketAddr,
        role: Role,
        token: Token,
    ) -> io::Result<KernelListener> {
        let fd = self.socket(address, SocketType::STREAM, role)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if address.is_ipv6() {
            // So that another listener can have the same port over IPv4.
            sockopt::set_ipv6_v6only(&fd, true)?;
        }
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
        self.watch(&fd, token)?;
        Ok(KernelListener { socket: TcpListener::from(fd), role })
    }

    fn listener_address(&self, listener: &KernelListener) -> io::Result<SocketAddr> {
        listener.socket.local_addr()
    }

    fn accept(&mut self, listener: &mut KernelListener, token: Token) -> io::Result<TcpStream> {
        let mut flags = SocketFlags::CLOEXEC;
        if !self.blocks(listener.role) {
            flags |= SocketFlags::NONBLOCK;
        }
        // NODELAY, congestion control and buffer sizes are inherited from the listener.
        let fd = rustix::net::accept_with(&listener.socket, flags)?;
        self.limit_waits(&fd, listener.role)?;
        self.watch(&fd, token)?;
        Ok(TcpStream::from(fd))
    }

    fn connect(&mut self, to: SocketAddr, role: Role, token: Token) -> io::Result<TcpStream> {
        let fd = self.socket(to, SocketType::STREAM, role)?;
        match rustix::net::connect(&fd, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.watch(&fd, token)?;
        Ok(TcpStream::from(fd))
    }

    fn connected(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if stream.peer_addr().is_ok() {
            return Ok(());
        }
        Err(stream.take_error()?.unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
    }

    fn local_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.local_addr()
    }

    fn try_send(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        stream.write(bytes)
    }

    fn try_recv(&mut self, stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        stream.read(into)
    }

    fn shutdown_write(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }

    fn bind(&mut self, address: SocketAddr, role: Role, token: Token) -> io::Result<UdpSocket> {
        let fd = self.socket(address, SocketType::DGRAM, role)?;
        rustix::net::bind(&fd, &address)?;
        self.watch(&fd, token)?;
        Ok(UdpSocket::from(fd))
    }

    fn datagram_address(&self, socket: &UdpSocket) -> io::Result<SocketAddr> {
        socket.local_addr()
    }

    fn set_peer(&mut self, socket: &mut UdpSocket, peer: SocketAddr) -> io::Result<()> {
        socket.connect(peer)
    }

    fn try_send_datagram(&mut self, socket: &mut UdpSocket, bytes: &[u8]) -> io::Result<usize> {
        socket.send(bytes)
    }

    fn try_recv_datagram(
        &mut self,
        socket: &mut UdpSocket,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(into)
    }

    fn turn(&mut self, pass: Pass, ready: &mut Vec<Token>) -> io::Result<Ready> {
        let Some(epoll) = &mut self.epoll else {
            match (self.waiting, pass) {
                (_, Pass::Resting) | (Waiting::Block, Pass::Idle) => std::thread::sleep(PAUSE),
                (_, Pass::Busy) | (Waiting::Spin | Waiting::Epoll, Pass::Idle) => {}
            }
            return Ok(Ready::Any);
        };
        let wait = match pass {
            Pass::Busy => 0,
            Pass::Idle | Pass::Resting => i64::from(WAIT_MAX_MS) * 1_000_000,
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait };
        epoll.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut epoll.events);
        match epoll::wait(&epoll.fd, spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let tokens = epoll.events.iter().map(|event| event.data.u64());
        ready.extend(tokens.filter_map(|token| Token::try_from(token).ok()));
        Ok(Ready::Listed)
    }
}

/// The time of one of the system's clocks, in nanoseconds.
#[must_use]
pub(crate) fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// The wildcard address of the family of `like`, any port: where a client's UDP socket is bound.
#[must_use]
pub fn wildcard(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
