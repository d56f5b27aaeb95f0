//! UDP sockets for any thread, with the names and semantics of `std::net`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use roceway_stack::udp::UdpId;

use super::patience::{Patience, each};
use super::{Worker, unexpected};
use crate::calls::{Data, Reply, Request};

pub(super) struct Bound {
    pub(super) worker: Worker,
    pub(super) id: UdpId,
    pub(super) patience: Patience,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.worker.cast(Request::CloseDatagram(self.id));
    }
}

/// A UDP socket.
pub struct UdpSocket(pub(super) Arc<Bound>);

impl UdpSocket {
    /// A socket on an address of the worker, or on all of them if it is unspecified. Port 0 takes
    /// a free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn bind(worker: &Worker, address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        each(address, |at| match worker.ask(Request::Bind(at))? {
            Reply::Datagram(id) => {
                let (worker, patience) = (worker.clone(), Patience::new());
                Ok(UdpSocket(Arc::new(Bound { worker, id, patience })))
            }
            _ => unexpected(),
        })
    }

    /// Sets the peer: `send` goes there and only what comes from there is received.
    ///
    /// # Errors
    /// `InvalidInput`, `NetworkUnreachable`.
    pub fn connect(&self, to: impl ToSocketAddrs) -> io::Result<()> {
        each(to, |to| self.0.worker.ask(Request::SetPeer(self.0.id, to)).map(|_done| ()))
    }

    /// Sends a datagram to the peer.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused` if the peer's host said so of an earlier datagram,
    /// `InvalidInput` if it is too long.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.send_datagram(data, None)
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// As [`UdpSocket::send`], and `NetworkUnreachable`.
    pub fn send_to(&self, data: &[u8], to: impl ToSocketAddrs) -> io::Result<usize> {
        match to.to_socket_addrs()?.next() {
            Some(to) => self.send_datagram(data, Some(to)),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send to")),
        }
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
    pub fn send_segments_to(
        &self,
        data: &[u8],
        size: u16,
        to: impl ToSocketAddrs,
    ) -> io::Result<usize> {
        match to.to_socket_addrs()?.next() {
            Some(to) => self.send_many(data, size, Some(to)),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send to")),
        }
    }

    fn send_many(&self, data: &[u8], size: u16, to: Option<SocketAddr>) -> io::Result<usize> {
        let Bound { worker, id, patience } = &*self.0;
        let request = Request::SendSegments(*id, to, size);
        match worker.call(request, Data::Out(data), patience.to_write())? {
            Reply::Bytes(n) => Ok(n),
            _ => unexpected(),
        }
    }

    fn send_datagram(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        let Bound { worker, id, patience } = &*self.0;
        let request = Request::SendDatagram(*id, to);
        match worker.call(request, Data::Out(data), patience.to_write())? {
            Reply::Bytes(n) => Ok(n),
            _ => unexpected(),
        }
    }

    /// The next datagram and where it came from; what does not fit into `out` is cut off.
    ///
    /// # Errors
    /// `WouldBlock` if it is set not to wait or the time is up; `ConnectionRefused` if the peer's
    /// host said so of an earlier datagram.
    pub fn recv_from(&self, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let Bound { worker, id, patience } = &*self.0;
        let request = Request::ReceiveDatagram(*id);
        match worker.call(request, Data::In(out), patience.to_read())? {
            Reply::BytesFrom(n, source) => Ok((n, source)),
            _ => unexpected(),
        }
    }

    /// As [`UdpSocket::recv_from`], without the address.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn recv(&self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.recv_from(out)?.0)
    }

    /// As [`UdpSocket::recv_from`], but the datagram stays.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn peek_from(&self, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let Bound { worker, id, patience } = &*self.0;
        match worker.call(Request::PeekDatagram(*id), Data::In(out), patience.to_read())? {
            Reply::BytesFrom(n, source) => Ok((n, source)),
            _ => unexpected(),
        }
    }

    /// As [`UdpSocket::peek_from`], without the address.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.peek_from(out)?.0)
    }

    fn address(&self, request: Request) -> io::Result<SocketAddr> {
        match self.0.worker.ask(request)? {
            Reply::Address(address) => Ok(address),
            _ => unexpected(),
        }
    }

    /// Our end.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address(Request::DatagramAddr(self.0.id))
    }

    /// The peer's end, if one was set.
    ///
    /// # Errors
    /// `NotConnected` if none was.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.address(Request::PeerAddr(self.0.id))
    }

    /// What the peer's host said of an earlier datagram; taken.
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self.0.worker.ask(Request::TakeDatagramError(self.0.id))? {
            Reply::Error(error) => Ok(error.map(io::Error::from)),
            _ => unexpected(),
        }
    }

    /// Allows or forbids broadcast (`SO_BROADCAST`).
    ///
    /// # Errors
    /// `BrokenPipe` if the worker was stopped.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.0.worker.ask(Request::SetBroadcast(self.0.id, on)).map(|_done| ())
    }
}
