//! UDP sockets of tasks.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use roceway_stack::tcp::Readiness;

use super::Handle;
use super::tcp::poll_io;
use crate::host::Host;
use crate::local;
use crate::waits::Socket;

/// A UDP socket of a task.
pub struct UdpSocket {
    host: Rc<Host>,
    inner: local::UdpSocket,
}

impl UdpSocket {
    /// As [`local::UdpSocket::bind`].
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(handle: &Handle, address: SocketAddr) -> io::Result<UdpSocket> {
        let inner = local::UdpSocket::bind(handle.worker(), address)?;
        Ok(UdpSocket { host: Rc::clone(handle.host()), inner })
    }

    /// The socket beneath, for options and for what needs no waiting.
    #[must_use]
    pub fn local(&self) -> &local::UdpSocket {
        &self.inner
    }

    /// Sets the peer.
    ///
    /// # Errors
    /// `InvalidInput`, `NetworkUnreachable`.
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        self.inner.connect(to)
    }

    /// Sends a datagram to the peer.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused`, `InvalidInput` if it is too long.
    pub async fn send(&self, data: &[u8]) -> io::Result<usize> {
        let wait = (self.socket(), Readiness::WRITABLE);
        poll_fn(|cx| poll_io(&self.host, wait, cx, || self.inner.send(data))).await
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// As [`UdpSocket::send`], and `NetworkUnreachable`.
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        let wait = (self.socket(), Readiness::WRITABLE);
        poll_fn(|cx| poll_io(&self.host, wait, cx, || self.inner.send_to(data, to))).await
    }

    /// Sends `data` to the peer as datagrams of `size` bytes, the last one with what is left; waits
    /// for room and takes at least one datagram.
    ///
    /// # Errors
    /// `InvalidInput` if `size` is 0 or does not fit a packet; otherwise as [`UdpSocket::send`].
    pub async fn send_segments(&self, data: &[u8], size: u16) -> io::Result<usize> {
        let wait = (self.socket(), Readiness::WRITABLE);
        poll_fn(|cx| poll_io(&self.host, wait, cx, || self.inner.send_segments(data, size))).await
    }

    /// As [`UdpSocket::send_segments`], to an address.
    ///
    /// # Errors
    /// As [`UdpSocket::send_segments`].
    pub async fn send_segments_to(
        &self,
        data: &[u8],
        size: u16,
        to: SocketAddr,
    ) -> io::Result<usize> {
        let wait = (self.socket(), Readiness::WRITABLE);
        let send = || self.inner.send_segments_to(data, size, to);
        poll_fn(|cx| poll_io(&self.host, wait, cx, send)).await
    }

    /// The next datagram; what does not fit into `out` is cut off.
    ///
    /// # Errors
    /// `ConnectionRefused` if the peer's host said so of an earlier datagram.
    pub async fn recv_from(&self, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let wait = (self.socket(), Readiness::READABLE);
        poll_fn(|cx| poll_io(&self.host, wait, cx, || self.inner.recv_from(out))).await
    }

    /// As [`UdpSocket::recv_from`], without the address.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub async fn recv(&self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.recv_from(out).await?.0)
    }

    /// Our end.
    ///
    /// # Errors
    /// None in practice; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn socket(&self) -> Socket {
        Socket::Datagram(self.inner.id())
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.host.forget(self.socket());
    }
}
