//! TCP sockets for any thread, with the names and semantics of `std::net`.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use roceway_stack::slab::Id;
use roceway_stack::tcp::{Connection, KeepAlive, Listener, TcpInfo, TcpOption};
use roceway_stack::time;

use super::patience::{Patience, each};
use super::{Wait, Worker, unexpected};
use crate::calls::{Data, Reply, Request};

/// Connections that a listener holds for `accept`, half-open ones included.
const BACKLOG: u32 = 1024;

pub(super) struct Listening {
    pub(super) worker: Worker,
    pub(super) id: Id<Listener>,
    pub(super) patience: Patience,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.worker.cast(Request::CloseListener(self.id));
    }
}

/// A listening TCP socket.
pub struct TcpListener(pub(super) Arc<Listening>);

impl TcpListener {
    /// Listens on an address of the worker, or on all of them if it is unspecified. Port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(worker: &Worker, address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        TcpListener::bind_with_backlog(worker, address, BACKLOG)
    }

    /// As [`TcpListener::bind`], with a limit on half-open and unaccepted connections.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind_with_backlog(
        worker: &Worker,
        address: impl ToSocketAddrs,
        backlog: u32,
    ) -> io::Result<TcpListener> {
        each(address, |at| match worker.ask(Request::Listen { at, backlog })? {
            Reply::Listener(id) => {
                let (worker, patience) = (worker.clone(), Patience::new());
                Ok(TcpListener(Arc::new(Listening { worker, id, patience })))
            }
            _ => unexpected(),
        })
    }

    /// Takes an established connection, waiting for one.
    ///
    /// # Errors
    /// `WouldBlock` if it is set not to wait; `InvalidInput` once it was shut down.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let Listening { worker, id, patience } = &*self.0;
        match worker.call(Request::Accept(*id), Data::None, patience.to_read())? {
            Reply::Accepted(id, peer) => Ok((TcpStream::of(worker, id), peer)),
            _ => unexpected(),
        }
    }

    /// Connections as they come, for ever.
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// Stops listening, also for clones; threads that wait in `accept` return with `InvalidInput`,
    /// as with the kernel's `shutdown`.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn shutdown(&self) -> io::Result<()> {
        self.0.worker.ask(Request::CloseListener(self.0.id)).map(|_done| ())
    }

    /// Where it listens.
    ///
    /// # Errors
    /// `InvalidInput` once it was shut down.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.0.worker.ask(Request::ListenerAddr(self.0.id))? {
            Reply::Address(address) => Ok(address),
            _ => unexpected(),
        }
    }
}

/// Connections of a listener; see [`TcpListener::incoming`].
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

pub(super) struct Connected {
    pub(super) worker: Worker,
    pub(super) id: Id<Connection>,
    pub(super) patience: Patience,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.worker.cast(Request::Close(self.id));
    }
}

/// A TCP connection. Dropping the last handle closes it gracefully: what was written is still
/// delivered.
pub struct TcpStream(pub(super) Arc<Connected>);

impl TcpStream {
    fn of(worker: &Worker, id: Id<Connection>) -> TcpStream {
        let (worker, patience) = (worker.clone(), Patience::new());
        TcpStream(Arc::new(Connected { worker, id, patience }))
    }

    /// Connects, waiting until the connection is established.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`, `HostUnreachable`, `InvalidInput`,
    /// `AddrInUse` if no port is free.
    pub fn connect(worker: &Worker, to: impl ToSocketAddrs) -> io::Result<TcpStream> {
        each(to, |to| TcpStream::open(worker, None, to, Wait::Forever))
    }

    /// As [`TcpStream::connect`], waiting for so long at most.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]; `TimedOut` once the time is up.
    pub fn connect_timeout(
        worker: &Worker,
        to: &SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a timeout must not be zero"));
        }
        TcpStream::open(worker, None, *to, Wait::for_at_most(timeout))
    }

    /// As [`TcpStream::connect`], from a chosen address and port of this end.
    ///
    /// # Errors
    /// As [`TcpStream::connect`], and `AddrNotAvailable`.
    pub fn connect_from(
        worker: &Worker,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        TcpStream::open(worker, Some(from), to, Wait::Forever)
    }

    fn open(
        worker: &Worker,
        from: Option<SocketAddr>,
        to: SocketAddr,
        wait: Wait,
    ) -> io::Result<TcpStream> {
        let Reply::Connection(id) = worker.ask(Request::Connect { to, from })? else {
            return unexpected();
        };
        // If it fails, the drop takes the half-open connection away.
        let stream = TcpStream::of(worker, id);
        match worker.call(Request::Connected(id), Data::None, wait) {
            Ok(_) => Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: impl FnOnce(Id<Connection>) -> Request) -> io::Result<Reply> {
        self.0.worker.ask(request(self.0.id))
    }

    fn bytes(&self, request: Request, data: Data<'_>, wait: Wait) -> io::Result<usize> {
        match self.0.worker.call(request, data, wait)? {
            Reply::Bytes(n) => Ok(n),
            _ => unexpected(),
        }
    }

    fn receive(&self, out: &mut [u8]) -> io::Result<usize> {
        let Connected { id, patience, .. } = &*self.0;
        self.bytes(Request::Receive(*id), Data::In(out), patience.to_read())
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        let Connected { id, patience, .. } = &*self.0;
        self.bytes(Request::Send(*id), Data::Out(data), patience.to_write())
    }

    /// As reading, but the bytes stay.
    ///
    /// # Errors
    /// As reading.
    pub fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        let Connected { id, patience, .. } = &*self.0;
        self.bytes(Request::Peek(*id), Data::In(out), patience.to_read())
    }

    /// Shuts down one direction or both; threads that wait in a call on it return.
    ///
    /// # Errors
    /// `NotConnected` before the connection is established.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.ask(|id| Request::Shutdown(id, how)).map(|_done| ())
    }

    /// Ends the connection at once by a reset; threads that wait in a call on it return.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn abort(&self) -> io::Result<()> {
        self.ask(Request::Abort).map(|_done| ())
    }

    /// What `TCP_INFO` tells.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn info(&self) -> io::Result<TcpInfo> {
        match self.ask(Request::Info)? {
            Reply::Info(info) => Ok(info),
            _ => unexpected(),
        }
    }

    /// The peer's end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.info()?.ends.remote_addr())
    }

    /// Our end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.info()?.ends.local_addr())
    }

    /// The error that ended the connection, if one did, which stays; or, once, the latest of those
    /// that [`TcpStream::set_soft_errors`] asked for.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self.ask(Request::TakeError)? {
            Reply::Error(error) => Ok(error.map(io::Error::from)),
            _ => unexpected(),
        }
    }

    /// Whether [`TcpStream::take_error`] also tells errors that end nothing yet (`IP_RECVERR`):
    /// that a router or host on the way said so, or that data went unacknowledged for three
    /// retransmissions. At first it does not. No other call fails because of them.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_soft_errors(&self, on: bool) -> io::Result<()> {
        self.set(TcpOption::SoftErrors(on))
    }

    fn set(&self, option: TcpOption) -> io::Result<()> {
        self.ask(|id| Request::SetOption(id, option)).map(|_done| ())
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set(TcpOption::NoDelay(on))
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        match self.ask(Request::NoDelay)? {
            Reply::Flag(on) => Ok(on),
            _ => unexpected(),
        }
    }

    /// Keep-alive with these times, or none (`SO_KEEPALIVE`).
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_keep_alive(&self, keep_alive: Option<KeepAlive>) -> io::Result<()> {
        self.set(TcpOption::KeepAlive(keep_alive))
    }

    /// How long data may go unacknowledged before the connection ends (`TCP_USER_TIMEOUT`).
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let nanos = |t: Duration| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
        let timeout = timeout.map(|t| time::Duration::from_nanos(nanos(t)));
        self.set(TcpOption::UserTimeout(timeout))
    }

    /// Most bytes queued for sending (`SO_SNDBUF`); at least 4096.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_send_buffer(&self, bytes: u32) -> io::Result<()> {
        self.set(TcpOption::SendBuffer(bytes))
    }

    /// Most unread bytes (`SO_RCVBUF`); at least 4096.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_receive_buffer(&self, bytes: u32) -> io::Result<()> {
        self.set(TcpOption::ReceiveBuffer(bytes))
    }
}

impl Read for &TcpStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.receive(out)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // The first that holds anything: one copy, as with a plain write.
        let first = slices.iter().find(|slice| !slice.is_empty());
        first.map_or(Ok(0), |slice| self.send(slice))
    }

    /// Does nothing: what was written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.receive(out)
    }
}

impl Write for TcpStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
