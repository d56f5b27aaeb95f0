//! Options that sockets of the worker's own thread have in common, and what TCP tells of soft
//! errors.

use std::io;

use roceway_stack::ip::{Mark, Marking};
use roceway_stack::tcp::TcpOption;

use super::{TcpListener, TcpStream, UdpSocket};
use crate::io_error;
use crate::marking;
use crate::waits::Socket;

/// Time to live and class of the packets of a socket of this kind.
macro_rules! marked {
    ($name:ident, $kind:ident) => {
        impl $name {
            /// Routers that packets of this socket pass at most (`IP_TTL`, or
            /// `IPV6_UNICAST_HOPS`); 64 if nothing is said. A listener's is that of the
            /// connections that it takes.
            ///
            /// # Errors
            /// `InvalidInput` unless it is 1 to 255.
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                self.set_mark(marking::ttl(ttl)?)
            }

            /// What [`Self::set_ttl`] set.
            ///
            /// # Errors
            /// `NotConnected` once the connection is gone.
            pub fn ttl(&self) -> io::Result<u32> {
                Ok(u32::from(self.marking()?.ttl.get()))
            }

            /// Type of service or traffic class of packets of this socket (`IP_TOS`,
            /// `IPV6_TCLASS`): DSCP in the upper six bits, ECN in the lower two, which TCP
            /// leaves zero. 0 if nothing is said.
            ///
            /// # Errors
            /// `NotConnected` once the connection is gone.
            pub fn set_tos(&self, tos: u8) -> io::Result<()> {
                self.set_mark(Mark::Tos(tos))
            }

            /// What [`Self::set_tos`] set.
            ///
            /// # Errors
            /// `NotConnected` once the connection is gone.
            pub fn tos(&self) -> io::Result<u8> {
                Ok(self.marking()?.tos)
            }

            fn set_mark(&self, mark: Mark) -> io::Result<()> {
                let core = &mut *self.worker().shared.core.borrow_mut();
                Ok(marking::set(core, Socket::$kind(self.id()), mark)?)
            }

            fn marking(&self) -> io::Result<Marking> {
                let core = &mut *self.worker().shared.core.borrow_mut();
                Ok(marking::get(core, Socket::$kind(self.id()))?)
            }
        }
    };
}

marked!(TcpListener, Listener);
marked!(TcpStream, Connection);
marked!(UdpSocket, Datagram);

impl TcpStream {
    /// Whether [`TcpStream::take_error`] also tells errors that end nothing yet (`IP_RECVERR`):
    /// that a router or host on the way said so, or that data went unacknowledged for three
    /// retransmissions. At first it does not. No other call fails because of them.
    pub fn set_soft_errors(&self, on: bool) {
        let core = &mut *self.worker().shared.core.borrow_mut();
        let now = core.now;
        core.stack.tcp().0.set_option(self.id(), TcpOption::SoftErrors(on), now);
    }

    /// The error that ended the connection, if one did, which stays; or, once, the latest of those
    /// that [`TcpStream::set_soft_errors`] asked for.
    ///
    /// # Errors
    /// None; the signature is `std::net`'s.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let core = &mut *self.worker().shared.core.borrow_mut();
        Ok(core.stack.tcp().0.take_error(self.id()).map(io_error::of_connection))
    }
}
