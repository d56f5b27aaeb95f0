//! The data path of a flow: a TCP connection or a UDP socket with one peer.

use std::io;

use crate::transport::{Transport, ready, wait_for};

/// Whether a UDP socket has its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// It has.
    Known,
    /// The first sender will be it.
    FirstSender,
}

/// A TCP connection or a UDP socket.
#[derive(Debug)]
pub enum Pipe<T: Transport> {
    /// A TCP connection.
    Stream(T::Stream),
    /// A UDP socket, and whether its peer is known; otherwise the first sender becomes the peer.
    Datagram(T::Datagram, Peer),
}

impl<T: Transport> Pipe<T> {
    /// Whether messages keep their bounds.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        match self {
            Self::Stream(_) => false,
            Self::Datagram(..) => true,
        }
    }

    /// Sends what fits; nothing is `None`.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn send(&mut self, transport: &mut T, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Stream(stream) => ready(transport.try_send(stream, bytes)),
            Self::Datagram(socket, Peer::Known) => {
                ready(transport.try_send_datagram(socket, bytes))
            }
            Self::Datagram(_, Peer::FirstSender) => Ok(None),
        }
    }

    /// Sends all of a filled buffer; nothing is `None`.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn give(&mut self, transport: &mut T, filled: &T::Filled) -> io::Result<Option<usize>> {
        match self {
            Self::Stream(stream) => ready(transport.try_give(stream, filled)),
            Self::Datagram(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Shows what is there, at most `max` bytes; nothing is `None`, the end of a stream is 0.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn take(
        &mut self,
        transport: &mut T,
        max: usize,
        read: impl FnMut(&[u8]),
    ) -> io::Result<Option<usize>> {
        match self {
            Self::Stream(stream) => ready(transport.try_take(stream, max, read)),
            Self::Datagram(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Receives what is there; nothing is `None`, the end of a stream is 0.
    ///
    /// # Errors
    /// Why the connection broke.
    pub fn receive(&mut self, transport: &mut T, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Stream(stream) => ready(transport.try_recv(stream, into)),
            Self::Datagram(socket, state) => {
                let Some((length, peer)) = ready(transport.try_recv_datagram(socket, into))? else {
                    return Ok(None);
                };
                if *state == Peer::FirstSender {
                    transport.set_peer(socket, peer)?;
                    *state = Peer::Known;
                }
                Ok(Some(length))
            }
        }
    }

    /// Ends a stream's own direction and reads on until the other end has closed.
    ///
    /// # Errors
    /// If that takes longer than `limit_ns`.
    pub fn finish(&mut self, transport: &mut T, limit_ns: u64) -> io::Result<()> {
        let Self::Stream(stream) = self else { return Ok(()) };
        if transport.shutdown_write(stream).is_err() {
            return Ok(());
        }
        let mut rest = vec![0; 65_536];
        wait_for(transport, limit_ns, "closing the data connection", |transport| {
            match transport.try_recv(stream, &mut rest) {
                Ok(0) => Ok(()),
                Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) if is_gone(&error) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// Whether an error says that the other end is gone, which ends a test as its FIN would.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            // What a UDP socket hears when its peer has closed.
            | io::ErrorKind::ConnectionRefused
    )
}
