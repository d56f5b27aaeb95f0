//! What sockets for any thread have in common: handles that can be cloned, how long calls wait,
//! time to live and class of packets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use roceway_stack::ip::{Mark, Marking};

use super::{TcpListener, TcpStream, UdpSocket, unexpected};
use crate::calls::{Reply, Request};
use crate::marking;
use crate::waits::Socket;

/// What every kind of socket has.
macro_rules! socket {
    ($name:ident, $kind:ident) => {
        impl $name {
            /// Another handle to the same socket.
            ///
            /// # Errors
            /// None; the signature is `std::net`'s.
            pub fn try_clone(&self) -> io::Result<$name> {
                Ok($name(Arc::clone(&self.0)))
            }

            /// Whether calls return at once in any case.
            ///
            /// # Errors
            /// None; the signature is `std::net`'s.
            pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
                self.0.patience.set_nonblocking(on);
                Ok(())
            }

            /// Routers that packets of this socket pass at most (`IP_TTL`, or
            /// `IPV6_UNICAST_HOPS`); 64 if nothing is said. A listener's is that of the
            /// connections that it takes.
            ///
            /// # Errors
            /// `InvalidInput` unless it is 1 to 255; `BrokenPipe` if the worker was
            /// stopped.
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                self.set_mark(marking::ttl(ttl)?)
            }

            /// What [`Self::set_ttl`] set.
            ///
            /// # Errors
            /// `BrokenPipe` if the worker was stopped, `NotConnected` once the connection is
            /// gone.
            pub fn ttl(&self) -> io::Result<u32> {
                Ok(u32::from(self.marking()?.ttl.get()))
            }

            /// Type of service or traffic class of packets of this socket (`IP_TOS`,
            /// `IPV6_TCLASS`): DSCP in the upper six bits, ECN in the lower two, which TCP
            /// leaves zero. 0 if nothing is said.
            ///
            /// # Errors
            /// `BrokenPipe` if the worker was stopped, `NotConnected` once the connection is
            /// gone.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.set_mark(Mark::Tos(tos))
            }

            /// What [`Self::set_tos`] set.
            ///
            /// # Errors
            /// `BrokenPipe` if the worker was stopped, `NotConnected` once the connection is
            /// gone.
            pub fn tos(&self) -> io::Result<u8> {
                Ok(self.marking()?.tos)
            }

            fn set_mark(&self, mark: Mark) -> io::Result<()> {
                let request = Request::SetMark(Socket::$kind(self.0.id), mark);
                self.0.worker.ask(request).map(|_done| ())
            }

            fn marking(&self) -> io::Result<Marking> {
                match self.0.worker.ask(Request::Marking(Socket::$kind(self.0.id)))? {
                    Reply::Marking(marking) => Ok(marking),
                    _ => unexpected(),
                }
            }
        }
    };
}

/// What those have that read and write.
macro_rules! timeouts {
    ($name:ident) => {
        impl $name {
            /// How long reading may wait; `None` is for ever. It ends with `WouldBlock`.
            ///
            /// # Errors
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.patience.set_read(timeout)
            }

            /// How long writing may wait; `None` is for ever. It ends with `WouldBlock`.
            ///
            /// # Errors
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.patience.set_write(timeout)
            }

            /// How long reading may wait.
            ///
            /// # Errors
            /// None; the signature is `std::net`'s.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.0.patience.read_timeout())
            }

            /// How long writing may wait.
            ///
            /// # Errors
            /// None; the signature is `std::net`'s.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.0.patience.write_timeout())
            }
        }
    };
}

socket!(TcpListener, Listener);
socket!(TcpStream, Connection);
socket!(UdpSocket, Datagram);
timeouts!(TcpStream);
timeouts!(UdpSocket);
