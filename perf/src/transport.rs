//! What a test needs of a stack: the host kernel and Roceway are two implementations of one trait.
//!
//! Handles never block unless the transport's own manner says so ([`Manner::Blocks`]); an operation
//! that cannot go on answers `WouldBlock`. Nothing here knows a test, a histogram or a message.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

/// Names the flow or session that a socket belongs to; several sockets may share one.
pub type Token = usize;

/// What a socket is for. A transport that blocks does so on data sockets only, so that the control
/// connection can be looked at while a test runs. A listener's connections have its role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// netperf's control connection.
    Control,
    /// A socket under test.
    Data,
    /// A socket under test that its owner looks at in every pass: a transport that spins need not
    /// list it, and lists nothing of it if that costs anything.
    Direct,
}

/// Data sockets that one thread looks at in every pass, at most: asking so few whether something
/// has come is cheaper than being told.
pub const DIRECT_MAX: usize = 4;

impl Role {
    /// The role of the data sockets of `flows` flows over a transport of this manner.
    #[must_use]
    pub fn of_data(manner: Manner, flows: usize) -> Role {
        match manner {
            Manner::Spins if flows <= DIRECT_MAX => Role::Direct,
            Manner::Spins | Manner::Sleeps | Manner::Blocks => Role::Data,
        }
    }
}

/// How a transport waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// It looks again at once.
    Spins,
    /// A turn sleeps until something is ready.
    Sleeps,
    /// The operation itself sleeps; each flow needs a thread of its own.
    Blocks,
}

/// Whether the pass before a turn moved anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Something moved: more is likely.
    Busy,
    /// Nothing moved.
    Idle,
    /// No test runs: even a transport that spins may sleep for a moment.
    Resting,
}

/// What a turn knows of readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Ready {
    /// Anything may be ready: step every flow.
    Any,
    /// Exactly the tokens that the turn listed are, and perhaps sockets of [`Role::Direct`].
    Listed,
}

/// How long a turn that sleeps, or an operation that blocks, may take at most.
pub const WAIT_MAX_MS: u16 = 20;

/// A stack under test.
pub trait Transport {
    /// A listening TCP socket.
    type Listener: Debug;
    /// A TCP connection.
    type Stream: Debug;
    /// A UDP socket.
    type Datagram: Debug;
    /// A filled buffer of the stack's own, for sending without a copy.
    type Filled: Debug;

    /// How it waits.
    fn manner(&self) -> Manner;

    /// Monotonic nanoseconds.
    fn now_ns(&self) -> u64;

    /// CPU time that this end has used, in nanoseconds.
    fn cpu_ns(&self) -> u64;

    /// Starts to listen; port 0 takes any free port.
    ///
    /// # Errors
    /// As `std::net::TcpListener::bind`.
    fn listen(
        &mut self,
        address: SocketAddr,
        role: Role,
        token: Token,
    ) -> io::Result<Self::Listener>;

    /// Where a listener listens.
    ///
    /// # Errors
    /// If the stack cannot say.
    fn listener_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// Takes a connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    fn accept(&mut self, listener: &mut Self::Listener, token: Token) -> io::Result<Self::Stream>;

    /// Starts to connect; [`Transport::connected`] says when it is done.
    ///
    /// # Errors
    /// If it fails at once.
    fn connect(&mut self, to: SocketAddr, role: Role, token: Token) -> io::Result<Self::Stream>;

    /// Whether the connection is established.
    ///
    /// # Errors
    /// `WouldBlock` while it is not, otherwise why it failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// The address of this end.
    ///
    /// # Errors
    /// If the stack cannot say.
    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Sends what fits.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits, otherwise why the connection broke.
    fn try_send(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    /// Receives what is there; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, otherwise why the connection broke.
    fn try_recv(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize>;

    /// Whether streams are sent and received without copies: by [`Transport::fill`],
    /// [`Transport::try_give`] and [`Transport::try_take`].
    fn is_zero_copy(&self) -> bool {
        false
    }

    /// Has the first `length` bytes of a free buffer written.
    ///
    /// # Errors
    /// `WouldBlock` if none is free, `InvalidInput` if they are shorter, `Unsupported` if the stack
    /// has none.
    fn fill(&mut self, _length: usize, _write: impl FnOnce(&mut [u8])) -> io::Result<Self::Filled> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends all of a filled buffer, which is then used up, or nothing.
    ///
    /// # Errors
    /// As [`Transport::try_send`].
    fn try_give(
        &mut self,
        _stream: &mut Self::Stream,
        _filled: &Self::Filled,
    ) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Shows what was received where it lies, at most `max` bytes, and returns how many; 0 is the
    /// end of the stream.
    ///
    /// # Errors
    /// As [`Transport::try_recv`].
    fn try_take(
        &mut self,
        _stream: &mut Self::Stream,
        _max: usize,
        _read: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends this end's direction.
    ///
    /// # Errors
    /// If the connection is broken already.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Opens a UDP socket; port 0 takes any free port.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::bind`.
    fn bind(&mut self, address: SocketAddr, role: Role, token: Token)
    -> io::Result<Self::Datagram>;

    /// The address of a UDP socket.
    ///
    /// # Errors
    /// If the stack cannot say.
    fn datagram_address(&self, socket: &Self::Datagram) -> io::Result<SocketAddr>;

    /// Fixes the peer of a UDP socket.
    ///
    /// # Errors
    /// As `std::net::UdpSocket::connect`.
    fn set_peer(&mut self, socket: &mut Self::Datagram, peer: SocketAddr) -> io::Result<()>;

    /// Sends one datagram to the peer.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room.
    fn try_send_datagram(&mut self, socket: &mut Self::Datagram, bytes: &[u8])
    -> io::Result<usize>;

    /// Receives one datagram and its sender.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    fn try_recv_datagram(
        &mut self,
        socket: &mut Self::Datagram,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)>;

    /// One step of the stack: a busy-polling stack turns, a sleeping one waits if the pass was
    /// idle, and the tokens of ready sockets are appended to `ready` if it knows them.
    ///
    /// # Errors
    /// If the stack is broken for good.
    fn turn(&mut self, pass: Pass, ready: &mut Vec<Token>) -> io::Result<Ready>;

    /// Called when a test is over and its connections are still open.
    fn at_end(&mut self) {}

    /// A turn, and `step`, which uses the sockets and says what it did. `step` finds in the list
    /// the tokens that the caller left there and those that became ready. A stack that lets the
    /// application into its turn calls `step` between receiving and sending, only when something
    /// came or the pass before was busy; then an answer leaves in the turn that took the question.
    ///
    /// # Errors
    /// If the stack is broken for good, or what `step` fails with.
    #[inline]
    fn turn_with(
        &mut self,
        pass: Pass,
        ready: &mut Vec<Token>,
        mut step: impl FnMut(&mut Self, Ready, &mut Vec<Token>) -> io::Result<Pass>,
    ) -> io::Result<Pass>
    where
        Self: Sized,
    {
        let known = self.turn(pass, ready)?;
        step(self, known, ready)
    }
}

/// Takes `WouldBlock` for nothing.
///
/// # Errors
/// Every other error.
pub fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Turns until `attempt` has an answer.
///
/// # Errors
/// What `attempt` fails with, or `TimedOut` with `what` after `limit_ns`.
pub fn wait_for<T: Transport, V>(
    transport: &mut T,
    limit_ns: u64,
    what: &str,
    mut attempt: impl FnMut(&mut T) -> io::Result<V>,
) -> io::Result<V> {
    let start = transport.now_ns();
    let mut tokens = Vec::new();
    loop {
        if let Some(value) = ready(attempt(transport))? {
            return Ok(value);
        }
        if transport.now_ns().saturating_sub(start) > limit_ns {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: no answer")));
        }
        let _every_flow_is_asked = transport.turn(Pass::Idle, &mut tokens)?;
        tokens.clear();
    }
}
