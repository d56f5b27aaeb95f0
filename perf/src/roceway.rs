//! Roceway as a transport: a worker on the calling thread and its poll-based sockets.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roceway_runtime::busypoll::Turned;
use roceway_runtime::local::{
    Buffer, BufferMut, Pieces, Readiness, TcpListener, TcpStream, UdpSocket, Worker,
};
use rustix::time::ClockId;

use crate::arithmetic::count;
use crate::kernel::{SocketOptions, clock_ns};
use crate::state::WorkerState;
use crate::transport::{Manner, Pass, Ready, Role, Token, Transport};

/// A broken device, and a wish for the state, are noticed after so many turns.
const LOOK_TURNS: u32 = 1024;

/// What a socket is watched for.
const EVERYTHING: Readiness = Readiness::READABLE.union(Readiness::WRITABLE);

/// A socket of a worker. It shows nothing of itself, since its worker is in use while it is.
pub struct Socket<S>(S);

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// A listener of a worker, with the role that its connections inherit.
#[derive(Debug)]
pub struct Listener {
    socket: Socket<TcpListener>,
    role: Role,
}

/// A worker as a transport.
pub struct Roceway {
    worker: Worker,
    options: SocketOptions,
    turns: u32,
    asked: Option<Asked>,
    at_end: Option<WorkerState>,
    keeps_end: bool,
    is_inside: bool,
    lending: Option<Lending>,
}

/// What streams without copies need.
struct Lending {
    /// Buffers to write to. The one that came back first is the next, so that all take turns, as
    /// those of the bare link do: the lines of one that has just come back lie in the cache of the
    /// core that read them.
    free: VecDeque<BufferMut>,
    pieces: Pieces,
    cookie: u64,
}

/// A buffer whose first bytes are a message.
#[derive(Debug)]
pub struct Filled {
    buffer: Buffer,
    length: usize,
}

/// How its state is asked for while it runs.
struct Asked {
    whose: String,
    flag: Arc<AtomicBool>,
}

impl Roceway {
    /// A transport on a worker of the calling thread.
    #[must_use]
    pub fn new(worker: Worker, options: SocketOptions) -> Self {
        Self {
            worker,
            options,
            turns: 0,
            asked: None,
            at_end: None,
            keeps_end: false,
            is_inside: true,
            lending: None,
        }
    }

    /// Prints the worker's state to standard error whenever `flag` is set, which a signal handler
    /// may do; `whose` names the worker.
    pub fn tell_when(&mut self, flag: Arc<AtomicBool>, whose: &str) {
        self.asked = Some(Asked { whose: whose.to_owned(), flag });
    }

    /// Uses the sockets between turns, and not inside them.
    pub fn stay_outside(&mut self) {
        self.is_inside = false;
    }

    /// Sends and receives streams in buffers of the worker's own from now on.
    pub fn copy_nothing(&mut self) {
        let pieces = self.worker.pieces();
        let free = std::iter::from_fn(|| self.worker.buffer().ok()).collect();
        self.lending = Some(Lending { free, pieces, cookie: 0 });
    }

    /// Keeps the worker's state when a test is over and its connections are still open.
    pub fn keep_end(&mut self) {
        self.keeps_end = true;
    }

    /// The state at the end of the last test if it was kept, otherwise the present one.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.at_end.clone().unwrap_or_else(|| WorkerState::of(&self.worker))
    }

    /// The worker, for its counters.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Turns until the link is up, so that the first frame is not lost on a cable that is not
    /// plugged in yet.
    ///
    /// # Errors
    /// `TimedOut` if nobody answers at the other end of the link within `limit_ns`.
    pub fn wait_for_link(&mut self, limit_ns: u64) -> io::Result<()> {
        let start = self.worker.now_ns();
        loop {
            let mut ups = 0;
            self.worker.visit_counters(&mut |layer, name, value| {
                if (layer, name) == ("link", "link_up") {
                    ups = value;
                }
            });
            if ups > 0 {
                return Ok(());
            }
            if self.worker.now_ns().saturating_sub(start) > limit_ns {
                let what = "nobody at the other end of the link";
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            let _whether_anything_moved = self.worker.turn_or_sleep()?;
        }
    }

    /// Now and then, and whenever nothing happens, looks for a broken device and for whoever asks.
    #[inline]
    fn look_after(&mut self, turned: Turned) -> io::Result<()> {
        self.turns = self.turns.wrapping_add(1);
        if turned == Turned::Spent || self.turns.is_multiple_of(LOOK_TURNS) {
            return self.look();
        }
        Ok(())
    }

    #[cold]
    fn look(&mut self) -> io::Result<()> {
        if let Some(Asked { whose, flag }) = &self.asked
            && flag.swap(false, Ordering::Relaxed)
        {
            eprint!("{}", WorkerState::of(&self.worker).text(whose));
        }
        self.worker.broken().map_or(Ok(()), |reason| Err(io::Error::other(reason)))
    }

    /// Appends the tokens of those watched sockets that became ready.
    #[inline]
    fn list(&self, ready: &mut Vec<Token>) {
        while let Some(event) = self.worker.poll_event() {
            ready.extend(Token::try_from(event.token));
        }
    }

    fn prepared(
        &self,
        stream: TcpStream,
        role: Role,
        token: Token,
    ) -> io::Result<Socket<TcpStream>> {
        if role != Role::Direct {
            stream.watch(count(token), EVERYTHING);
        }
        stream.set_nodelay(true)?;
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        if let Some(size) = self.options.send_buffer {
            stream.set_send_buffer(bytes(size));
        }
        if let Some(size) = self.options.receive_buffer {
            stream.set_receive_buffer(bytes(size));
        }
        Ok(Socket(stream))
    }
}

fn unsupported<V>() -> io::Result<V> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Transport for Roceway {
    type Listener = Listener;
    type Stream = Socket<TcpStream>;
    type Datagram = Socket<UdpSocket>;
    type Filled = Filled;

    fn manner(&self) -> Manner {
        Manner::Spins
    }

    fn now_ns(&self) -> u64 {
        self.worker.now_ns()
    }

    fn cpu_ns(&self) -> u64 {
        clock_ns(ClockId::ThreadCPUTime)
    }

    fn listen(&mut self, address: SocketAddr, role: Role, token: Token) -> io::Result<Listener> {
        let socket = TcpListener::bind(&self.worker, address)?;
        if role != Role::Direct {
            socket.watch(count(token));
        }
        Ok(Listener { socket: Socket(socket), role })
    }

    fn listener_address(&self, listener: &Listener) -> io::Result<SocketAddr> {
        listener.socket.0.local_addr()
    }

    fn accept(&mut self, listener: &mut Listener, token: Token) -> io::Result<Self::Stream> {
        let (stream, _) = listener.socket.0.accept()?;
        self.prepared(stream, listener.role, token)
    }

    fn connect(&mut self, to: SocketAddr, role: Role, token: Token) -> io::Result<Self::Stream> {
        let stream = TcpStream::connect(&self.worker, to)?;
        self.prepared(stream, role, token)
    }

    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        if stream.0.is_connected()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr> {
        stream.0.local_addr()
    }

    #[inline]
    fn try_send(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize> {
        stream.0.write(bytes)
    }

    #[inline]
    fn try_recv(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize> {
        stream.0.read(into)
    }

    fn is_zero_copy(&self) -> bool {
        self.lending.is_some()
    }

    #[inline]
    fn fill(&mut self, length: usize, write: impl FnOnce(&mut [u8])) -> io::Result<Filled> {
        let Some(lending) = &mut self.lending else { return unsupported() };
        while let Some(sent) = self.worker.poll_sent() {
            lending.free.extend(sent.buffer.try_into_mut());
        }
        let Some(mut buffer) = lending.free.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let Some(room) = buffer.get_mut(..length) else {
            let text = format!(
                "a message of {length} bytes does not fit a buffer of {}; raise memory.block",
                buffer.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        write(room);
        Ok(Filled { buffer: buffer.freeze(), length })
    }

    #[inline]
    fn try_give(&mut self, stream: &mut Self::Stream, filled: &Filled) -> io::Result<usize> {
        let Some(lending) = &mut self.lending else { return unsupported() };
        stream.0.give(&filled.buffer, 0..filled.length, lending.cookie)?;
        lending.cookie = lending.cookie.wrapping_add(1);
        Ok(filled.length)
    }

    #[inline]
    fn try_take(
        &mut self,
        stream: &mut Self::Stream,
        max: usize,
        read: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let Some(lending) = &mut self.lending else { return unsupported() };
        let bytes = stream.0.take(&mut lending.pieces, max)?;
        lending.pieces.iter().for_each(read);
        lending.pieces.clear();
        Ok(bytes)
    }

    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        stream.0.shutdown(Shutdown::Write)
    }

    fn bind(
        &mut self,
        address: SocketAddr,
        role: Role,
        token: Token,
    ) -> io::Result<Self::Datagram> {
        let socket = UdpSocket::bind(&self.worker, address)?;
        if role != Role::Direct {
            socket.watch(count(token), EVERYTHING);
        }
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

    fn at_end(&mut self) {
        if self.keeps_end {
            self.at_end = Some(WorkerState::of(&self.worker));
        }
    }

    /// One turn, which takes no events. Whether it may sleep is the worker's idle policy alone: a
    /// spinning worker never does, also while no test runs.
    #[inline]
    fn turn(&mut self, _pass: Pass, _ready: &mut Vec<Token>) -> io::Result<Ready> {
        let turned = self.worker.turn_or_sleep()?;
        self.look_after(turned)?;
        Ok(Ready::Any)
    }

    /// One turn with the step inside. What the worker cannot see, such as more to send than one
    /// step may, is done before it.
    #[inline]
    fn turn_with(
        &mut self,
        pass: Pass,
        ready: &mut Vec<Token>,
        mut step: impl FnMut(&mut Self, Ready, &mut Vec<Token>) -> io::Result<Pass>,
    ) -> io::Result<Pass> {
        if !self.is_inside {
            let _any = self.turn(pass, ready)?;
            self.list(ready);
            return step(self, Ready::Listed, ready);
        }
        let before = match pass {
            Pass::Busy => step(self, Ready::Listed, ready)?,
            Pass::Idle | Pass::Resting => pass,
        };
        let worker = self.worker.clone();
        let mut inside = Ok(before);
        let turned = worker.turn_with_or_sleep(|| {
            self.list(ready);
            let stepped = step(self, Ready::Listed, ready);
            let moved = u32::from(matches!(stepped, Ok(Pass::Busy)));
            inside = stepped;
            moved
        })?;
        self.look_after(turned)?;
        match inside? {
            Pass::Busy => Ok(Pass::Busy),
            after => Ok(if before == Pass::Busy { Pass::Busy } else { after }),
        }
    }
}
