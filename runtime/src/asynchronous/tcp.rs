//! TCP sockets of tasks.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use roceway_stack::tcp::{Readiness, TcpInfo};

use super::Handle;
use crate::host::Host;
use crate::local;
use crate::waits::Socket;

/// Tries a call; if it would block, the task waits for the socket.
#[inline]
pub(super) fn poll_io<T>(
    host: &Host,
    (socket, interest): (Socket, Readiness),
    cx: &Context<'_>,
    call: impl FnOnce() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    match call() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            host.wait(socket, interest, cx.waker());
            Poll::Pending
        }
        result => Poll::Ready(result),
    }
}

/// A listening TCP socket of a task.
pub struct TcpListener {
    host: Rc<Host>,
    inner: local::TcpListener,
}

impl TcpListener {
    /// As [`local::TcpListener::bind`].
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(handle: &Handle, address: SocketAddr) -> io::Result<TcpListener> {
        let inner = local::TcpListener::bind(handle.worker(), address)?;
        Ok(TcpListener { host: Rc::clone(handle.host()), inner })
    }

    /// The listener beneath, for options and for what needs no waiting.
    #[must_use]
    pub fn local(&self) -> &local::TcpListener {
        &self.inner
    }

    /// The next connection.
    pub fn accept(&self) -> Accept<'_> {
        Accept(self)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None in practice; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.host.forget(Socket::Listener(self.inner.id()));
    }
}

/// Future of [`TcpListener::accept`].
#[must_use = "futures do nothing unless awaited"]
pub struct Accept<'a>(&'a TcpListener);

impl Future for Accept<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let TcpListener { host, inner } = self.0;
        let wait = (Socket::Listener(inner.id()), Readiness::READABLE);
        poll_io(host, wait, cx, || {
            let (inner, peer) = inner.accept()?;
            Ok((TcpStream { host: Rc::clone(host), inner }, peer))
        })
    }
}

/// A TCP connection of a task. Dropping it closes it gracefully.
pub struct TcpStream {
    host: Rc<Host>,
    inner: local::TcpStream,
}

impl TcpStream {
    /// Connects.
    pub fn connect(handle: &Handle, to: SocketAddr) -> Connect {
        let stream = local::TcpStream::connect(handle.worker(), to)
            .map(|inner| TcpStream { host: Rc::clone(handle.host()), inner });
        Connect(Some(stream))
    }

    /// The connection beneath, for options and for what needs no waiting.
    #[must_use]
    pub fn local(&self) -> &local::TcpStream {
        &self.inner
    }

    /// Reads what is there, at least one byte; 0 is the end of the stream.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| poll_io(&self.host, self.readable(), cx, || self.inner.read(out))).await
    }

    /// Writes what fits, at least one byte.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| poll_io(&self.host, self.writable(), cx, || self.inner.write(data))).await
    }

    /// Shuts down one direction or both.
    ///
    /// # Errors
    /// `NotConnected` before the connection is established.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)?;
        self.host.expect_work();
        Ok(())
    }

    /// The peer's end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }

    /// Our end.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// None; the signature is `std::net`'s.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.inner.set_nodelay(on)
    }

    /// What `TCP_INFO` tells.
    #[must_use]
    pub fn info(&self) -> Option<TcpInfo> {
        self.inner.info()
    }

    pub(super) fn host(&self) -> &Rc<Host> {
        &self.host
    }

    pub(super) fn readable(&self) -> (Socket, Readiness) {
        (Socket::Connection(self.inner.id()), Readiness::READABLE)
    }

    pub(super) fn writable(&self) -> (Socket, Readiness) {
        (Socket::Connection(self.inner.id()), Readiness::WRITABLE)
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.host.forget(Socket::Connection(self.inner.id()));
    }
}

/// Future of [`TcpStream::connect`].
#[must_use = "futures do nothing unless awaited"]
pub struct Connect(Option<io::Result<TcpStream>>);

impl Future for Connect {
    type Output = io::Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = match self.0.take() {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        let connected = poll_io(&stream.host, stream.writable(), cx, || {
            if stream.inner.is_connected()? {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        match connected {
            Poll::Pending => {
                self.0 = Some(Ok(stream));
                Poll::Pending
            }
            Poll::Ready(result) => Poll::Ready(result.map(|()| stream)),
        }
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        poll_io(&self.host, self.readable(), cx, || self.inner.read(out))
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll_io(&self.host, self.writable(), cx, || self.inner.write(data))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, out)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}
