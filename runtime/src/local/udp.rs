//! UDP sockets on the worker's own thread, with the names and semantics of `std::net`.

use std::io;
use std::net::SocketAddr;

use roceway_stack::udp::UdpId;

use super::Worker;
use crate::io_error;

/// A UDP socket.
///
/// A datagram whose neighbour is not known yet waits for it, at most eight a socket
/// (`UdpConfig::waiting_frames`). So do those that are sent while a link has no other end, as over
/// an interface without carrier in Linux: they leave when it comes up, and if nobody answers for
/// three seconds they are dropped and the socket's next call is `HostUnreachable`.
pub struct UdpSocket {
    worker: Worker,
    id: UdpId,
}

impl UdpSocket {
    #[inline]
    pub(crate) fn id(&self) -> UdpId {
        self.id
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// A socket on an address of the worker, or on all of them if it is unspecified. Port 0 takes
    /// a free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(worker: &Worker, address: SocketAddr) -> io::Result<UdpSocket> {
        let core = &mut *worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        let id = udp.bind(cx.ip, address).map_err(io_error::of_udp)?;
        Ok(UdpSocket { worker: worker.clone(), id })
    }

    /// Sets the peer: `send` goes there and only what comes from there is received.
    ///
    /// # Errors
    /// `InvalidInput`, `NetworkUnreachable`.
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        udp.connect(cx.ip, self.id, to).map_err(io_error::of_udp)
    }

    /// Sends a datagram to the peer; it leaves in the turn under way, or in the next one.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now, `NotConnected`, `ConnectionRefused` if the peer's host
    /// said so of an earlier datagram.
    #[inline(always)]
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.send_datagram(data, None)
    }

    /// Sends a datagram to an address; it leaves in the turn under way, or in the next one.
    ///
    /// # Errors
    /// As [`UdpSocket::send`].
    #[inline]
    pub fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_datagram(data, Some(to))
    }

    /// Sends `data` to the peer as datagrams of `size` bytes, the last one with what is left, as
    /// `UDP_SEGMENT` does: in frames that the device cuts where it can. Says how many bytes were
    /// taken, always whole datagrams; fewer than all of them if there is no more room.
    ///
    /// # Errors
    /// `InvalidInput` if `size` is 0 or does not fit a packet; otherwise as [`UdpSocket::send`].
    pub fn send_segments(&self, data: &[u8], size: u16) -> io::Result<usize> {
        self.send_many(data, size, None)
    }

    /// As [`UdpSocket::send_segments`], to an address.
    ///
    /// # Errors
    /// As [`UdpSocket::send_segments`].
    pub fn send_segments_to(&self, data: &[u8], size: u16, to: SocketAddr) -> io::Result<usize> {
        self.send_many(data, size, Some(to))
    }

    fn send_many(&self, data: &[u8], size: u16, to: Option<SocketAddr>) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, mut cx) = stack.udp(now, &mut memory);
        udp.send_segments(&mut cx, self.id, (data, size), to).map_err(io_error::of_udp)
    }

    #[inline(always)]
    fn send_datagram(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        core.send_datagram(self.id, data, to).map_err(io_error::of_udp)?;
        Ok(data.len())
    }

    /// Takes a datagram and says where it came from; what does not fit into `out` is cut off.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    #[inline]
    pub fn recv_from(&self, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        let received = udp.recv_from(self.id, out, cx.mem).map_err(io_error::of_udp)?;
        Ok((received.len, received.source))
    }

    /// As [`UdpSocket::recv_from`], without the address.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    #[inline(always)]
    pub fn recv(&self, out: &mut [u8]) -> io::Result<usize> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        udp.recv(self.id, out, cx.mem).map_err(io_error::of_udp)
    }

    /// Our end.
    ///
    /// # Errors
    /// None in practice; the signature is `std::net`'s.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let address = stack.udp(now, &mut memory).0.local_addr(self.id);
        address.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The peer's end, if one was set.
    ///
    /// # Errors
    /// `NotConnected` if none was.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let address = stack.udp(now, &mut memory).0.peer_addr(self.id);
        address.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Allows or forbids broadcast (`SO_BROADCAST`).
    ///
    /// # Errors
    /// None in practice; the signature is `std::net`'s.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        stack.udp(now, &mut memory).0.set_broadcast(self.id, on).map_err(io_error::of_udp)
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let core = &mut *self.worker.shared.core.borrow_mut();
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        // The id is ours and open: there is nothing to be told.
        let _closed = udp.close(self.id, cx.mem);
    }
}
