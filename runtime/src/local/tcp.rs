//! TCP sockets on the worker's own thread, with the names and semantics of `std::net`.

use std::io;
use std::net::{Shutdown, SocketAddr};

use roceway_stack::slab::Id;
use roceway_stack::tcp::{
    Connection, KeepAlive, Listener, Readiness, SendError, TcpInfo, TcpOption, TcpState,
};
use roceway_stack::time::Duration;

use super::Worker;
use crate::io_error;

/// Connections that a listener holds for `accept`, half-open ones included.
const BACKLOG: u32 = 1024;

/// A listening TCP socket.
pub struct TcpListener {
    worker: Worker,
    id: Id<Listener>,
}

impl TcpListener {
    #[inline]
    pub(crate) fn id(&self) -> Id<Listener> {
        self.id
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Listens on an address of the worker, or on all of them if it is unspecified. Port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(worker: &Worker, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind_with_backlog(worker, address, BACKLOG)
    }

    /// As [`TcpListener::bind`], with a limit on half-open and unaccepted connections.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind_with_backlog(
        worker: &Worker,
        address: SocketAddr,
        backlog: u32,
    ) -> io::Result<TcpListener> {
        let core = &mut *worker.shared.core.borrow_mut();
        let (tcp, ip) = core.stack.tcp();
        let id = tcp.listen(address, backlog, ip).map_err(io_error::of_listen)?;
        Ok(TcpListener { worker: worker.clone(), id })
    }

    /// Takes an established connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (tcp, _) = core.stack.tcp();
        let id = tcp.accept(self.id).ok_or(io::ErrorKind::WouldBlock)?;
        let peer = tcp.info(id).ok_or(io::ErrorKind::NotConnected)?.ends.remote_addr();
        Ok((TcpStream { worker: self.worker.clone(), id }, peer))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None in practice; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let address = core.stack.tcp().0.listener_addr(self.id);
        address.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (stack, mut memory) = core.parts();
        stack.tcp().0.close_listener(self.id, &mut memory);
    }
}

/// A TCP connection. Dropping it closes it gracefully: what was written is still delivered.
pub struct TcpStream {
    worker: Worker,
    id: Id<Connection>,
}

impl TcpStream {
    #[inline]
    pub(crate) fn id(&self) -> Id<Connection> {
        self.id
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Starts to connect; [`TcpStream::is_connected`] says when it is done.
    ///
    /// # Errors
    /// `NetworkUnreachable`, `InvalidInput`, `AddrInUse` if no port is free.
    pub fn connect(worker: &Worker, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_from(worker, None, to)
    }

    /// As [`TcpStream::connect`], from a chosen address and port of this end.
    ///
    /// # Errors
    /// As [`TcpStream::connect`], and `AddrNotAvailable`.
    pub fn connect_from(
        worker: &Worker,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let core = &mut *worker.shared.core.borrow_mut();
        let now = core.now;
        let (tcp, ip) = core.stack.tcp();
        let id = tcp.connect(to, from, (now, ip)).map_err(io_error::of_connect)?;
        core.expect_work();
        Ok(TcpStream { worker: worker.clone(), id })
    }

    /// Whether the connection is established.
    ///
    /// # Errors
    /// Why it failed, if it did.
    pub fn is_connected(&self) -> io::Result<bool> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (tcp, _) = core.stack.tcp();
        if let Some(error) = tcp.error(self.id) {
            return Err(io_error::of_connection(error));
        }
        let state = tcp.info(self.id).map(|info| info.state);
        Ok(!matches!(state, None | Some(TcpState::SynSent | TcpState::SynReceived)))
    }

    /// Copies received bytes to `out`; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there are none now; otherwise why the connection ended.
    #[inline(always)]
    pub fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (stack, mut memory) = core.parts();
        stack.tcp().0.receive(self.id, out, &mut memory).map_err(io_error::of_receive)
    }

    /// As [`TcpStream::read`], but the bytes stay.
    ///
    /// # Errors
    /// As [`TcpStream::read`].
    pub fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (stack, memory) = core.parts();
        stack.tcp().0.peek(self.id, out, &memory).map_err(io_error::of_receive)
    }

    /// Queues bytes; returns how many were taken. They leave in the next turn.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now; otherwise why nothing can be written.
    #[inline(always)]
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        core.send(self.id, data).map_err(|error| {
            if error == SendError::WouldBlock {
                self.on_no_room(core);
            }
            io_error::of_send(error)
        })
    }

    /// Shuts down one direction or both.
    ///
    /// # Errors
    /// `NotConnected` before the connection is established.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let (read, write) = match how {
            Shutdown::Read => (true, false),
            Shutdown::Write => (false, true),
            Shutdown::Both => (true, true),
        };
        let core = &mut *self.worker.shared.core.borrow_mut();
        core.stack.tcp().0.shutdown(self.id, read, write).map_err(io_error::of_send)
    }

    /// Ends the connection at once by a reset.
    pub fn abort(&self) {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let (stack, mut memory) = core.parts();
        stack.tcp().0.abort(self.id, &mut memory);
    }

    /// The peer's end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.info().ok_or(io::ErrorKind::NotConnected)?.ends.remote_addr())
    }

    /// Our end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.info().ok_or(io::ErrorKind::NotConnected)?.ends.local_addr())
    }

    /// What `TCP_INFO` tells.
    #[must_use]
    pub fn info(&self) -> Option<TcpInfo> {
        self.worker.shared.core.borrow_mut().stack.tcp().0.info(self.id)
    }

    /// What can be done without waiting.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.worker.shared.core.borrow_mut().stack.tcp().0.readiness(self.id)
    }

    fn set(&self, option: TcpOption) {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        core.stack.tcp().0.set_option(self.id, option, now);
        core.expect_work();
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// None; the signature is `std::net`'s.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set(TcpOption::NoDelay(on));
        Ok(())
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let on = core.stack.tcp().0.nodelay(self.id);
        on.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Keep-alive with these times, or none (`SO_KEEPALIVE`).
    pub fn set_keep_alive(&self, keep_alive: Option<KeepAlive>) {
        self.set(TcpOption::KeepAlive(keep_alive));
    }

    /// How long data may go unacknowledged before the connection ends (`TCP_USER_TIMEOUT`).
    pub fn set_user_timeout(&self, timeout: Option<std::time::Duration>) {
        let nanos = |t: std::time::Duration| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
        self.set(TcpOption::UserTimeout(timeout.map(|t| Duration::from_nanos(nanos(t)))));
    }

    /// Most bytes queued for sending (`SO_SNDBUF`); at least 4096.
    pub fn set_send_buffer(&self, bytes: u32) {
        self.set(TcpOption::SendBuffer(bytes));
    }

    /// Most unread bytes (`SO_RCVBUF`); at least 4096.
    pub fn set_receive_buffer(&self, bytes: u32) {
        self.set(TcpOption::ReceiveBuffer(bytes));
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        stack.tcp().0.close(self.id, now, &mut memory);
        core.expect_work();
    }
}
