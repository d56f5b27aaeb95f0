//! The calls of sockets as plain data, so that a queue between threads (or, one day, between
//! processes) can carry them: what to do, to which socket by number and generation, with how many
//! bytes. The bytes themselves are borrowed from wherever the carrier keeps them.

use std::io;
use std::net::{Shutdown, SocketAddr};

use roceway_rdma_virtio::memory::leases::LeaseError;
use roceway_stack::ip::{Mark, Marking};
use roceway_stack::slab::Id;
use roceway_stack::tcp::{
    ConnectError, Connection, ConnectionError, ListenError, Listener, Readiness, ReceiveError,
    SendError, TcpInfo, TcpOption, TcpState,
};
use roceway_stack::udp::{UdpError, UdpId};

use crate::core::Core;
use crate::io_error;
use crate::marking;
use crate::waits::Socket;
use crate::zero_copy::{GiveError, Moved};

/// A call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Listen { at: SocketAddr, backlog: u32 },
    ListenerAddr(Id<Listener>),
    Accept(Id<Listener>),
    CloseListener(Id<Listener>),
    Connect { to: SocketAddr, from: Option<SocketAddr> },
    Connected(Id<Connection>),
    Send(Id<Connection>),
    Receive(Id<Connection>),
    Peek(Id<Connection>),
    Give(Id<Connection>),
    Take(Id<Connection>, usize),
    Block,
    Shutdown(Id<Connection>, Shutdown),
    Close(Id<Connection>),
    Abort(Id<Connection>),
    SetOption(Id<Connection>, TcpOption),
    NoDelay(Id<Connection>),
    Info(Id<Connection>),
    TakeError(Id<Connection>),
    Bind(SocketAddr),
    SetPeer(UdpId, SocketAddr),
    SendDatagram(UdpId, Option<SocketAddr>),
    SendSegments(UdpId, Option<SocketAddr>, u16),
    ReceiveDatagram(UdpId),
    PeekDatagram(UdpId),
    DatagramAddr(UdpId),
    PeerAddr(UdpId),
    SetBroadcast(UdpId, bool),
    TakeDatagramError(UdpId),
    CloseDatagram(UdpId),
    SetMark(Socket, Mark),
    Marking(Socket),
}

/// The bytes that a call reads or writes.
pub(crate) enum Data<'a> {
    None,
    Out(&'a [u8]),
    In(&'a mut [u8]),
    Moved(&'a mut Moved),
}

impl Data<'_> {
    /// The same bytes for one more try.
    pub(crate) fn reborrow(&mut self) -> Data<'_> {
        match self {
            Data::None => Data::None,
            Data::Out(bytes) => Data::Out(bytes),
            Data::In(out) => Data::In(out),
            Data::Moved(moved) => Data::Moved(moved),
        }
    }
}

/// What a call came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    Done,
    Flag(bool),
    Bytes(usize),
    Listener(Id<Listener>),
    Connection(Id<Connection>),
    Accepted(Id<Connection>, SocketAddr),
    Datagram(UdpId),
    BytesFrom(usize, SocketAddr),
    Address(SocketAddr),
    Info(TcpInfo),
    Marking(Marking),
    Error(Option<CallError>),
}

/// Why a call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallError {
    WouldBlock,
    /// The listener or socket was shut down, or was never there (EINVAL).
    NoSocket,
    NotConnected,
    Send(SendError),
    Receive(ReceiveError),
    Give(GiveError),
    Connect(ConnectError),
    Connection(ConnectionError),
    Listen(ListenError),
    Udp(UdpError),
    /// The worker was stopped.
    Stopped,
}

impl CallError {
    /// Whether the call can be tried again when the socket is ready.
    pub(crate) fn is_would_block(self) -> bool {
        matches!(
            self,
            CallError::WouldBlock
                | CallError::Send(SendError::WouldBlock)
                | CallError::Receive(ReceiveError::WouldBlock)
                | CallError::Give(
                    GiveError::Send(SendError::WouldBlock)
                        | GiveError::Lease(LeaseError::Exhausted)
                )
                | CallError::Udp(UdpError::WouldBlock)
        )
    }
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> io::Error {
        match error {
            CallError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            CallError::NoSocket => io::ErrorKind::InvalidInput.into(),
            CallError::NotConnected => io::ErrorKind::NotConnected.into(),
            CallError::Send(error) => io_error::of_send(error),
            CallError::Receive(error) => io_error::of_receive(error),
            CallError::Give(error) => io_error::of_give(error),
            CallError::Connect(error) => io_error::of_connect(error),
            CallError::Connection(error) => io_error::of_connection(error),
            CallError::Listen(error) => io_error::of_listen(error),
            CallError::Udp(error) => io_error::of_udp(error),
            CallError::Stopped => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the worker was stopped")
            }
        }
    }
}

impl Request {
    /// What must become ready before a call that would block can be tried again.
    pub(crate) fn waits_for(self) -> Option<(Socket, Readiness)> {
        match self {
            Request::Accept(id) => Some((Socket::Listener(id), Readiness::READABLE)),
            Request::Connected(id) | Request::Send(id) | Request::Give(id) => {
                Some((Socket::Connection(id), Readiness::WRITABLE))
            }
            Request::Receive(id) | Request::Peek(id) | Request::Take(id, _) => {
                Some((Socket::Connection(id), Readiness::READABLE))
            }
            Request::SendDatagram(id, _) => Some((Socket::Datagram(id), Readiness::WRITABLE)),
            Request::ReceiveDatagram(id) | Request::PeekDatagram(id) => {
                Some((Socket::Datagram(id), Readiness::READABLE))
            }
            _ => None,
        }
    }

    /// The socket whose waiters must look again once this call is done: it may have ended what
    /// they wait for, and the stack reports only what came from outside.
    pub(crate) fn disturbs(self) -> Option<Socket> {
        match self {
            Request::Shutdown(id, _) | Request::Abort(id) => Some(Socket::Connection(id)),
            Request::CloseListener(id) => Some(Socket::Listener(id)),
            _ => None,
        }
    }

    /// Runs the call. `core.now` is the time.
    #[inline]
    pub(crate) fn execute(self, core: &mut Core, data: Data<'_>) -> Result<Reply, CallError> {
        match (self, data) {
            (Request::Send(id), Data::Out(bytes)) => {
                let sent = core.send(id, bytes);
                sent.map(Reply::Bytes).map_err(CallError::Send)
            }
            (Request::Receive(id), Data::In(out)) => {
                let (stack, mut memory) = core.parts();
                let received = stack.tcp().0.receive(id, out, &mut memory);
                received.map(Reply::Bytes).map_err(CallError::Receive)
            }
            (Request::Peek(id), Data::In(out)) => {
                let (stack, memory) = core.parts();
                let peeked = stack.tcp().0.peek(id, out, &memory);
                peeked.map(Reply::Bytes).map_err(CallError::Receive)
            }
            (
                Request::SendDatagram(..)
                | Request::SendSegments(..)
                | Request::ReceiveDatagram(_)
                | Request::PeekDatagram(_),
                data,
            ) => self.datagram(core, data),
            (Request::Give(_) | Request::Take(..) | Request::Block, Data::Moved(moved)) => {
                self.moving(core, moved)
            }
            _ => self.rare(core),
        }
    }

    /// What moves no bytes but hands over where they lie.
    fn moving(self, core: &mut Core, moved: &mut Moved) -> Result<Reply, CallError> {
        match (self, &*moved) {
            (Request::Give(id), Moved::Given(buffer, range)) => {
                core.give(id, buffer, *range, None).map_err(CallError::Give)?;
                core.expect_work();
                Ok(Reply::Bytes(range.1))
            }
            (Request::Take(id, max), _) => {
                let mut pieces = core.port.interface.memory_ref().pieces();
                let bytes = core.take(id, max, &mut pieces).map_err(CallError::Receive)?;
                *moved = Moved::Taken(pieces.drain().collect());
                Ok(Reply::Bytes(bytes))
            }
            (Request::Block, _) => {
                *moved = Moved::Block(core.block().ok_or(CallError::WouldBlock)?);
                Ok(Reply::Done)
            }
            _ => Err(CallError::NoSocket),
        }
    }

    fn datagram(self, core: &mut Core, data: Data<'_>) -> Result<Reply, CallError> {
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, mut cx) = stack.udp(now, &mut memory);
        match (self, data) {
            (Request::SendDatagram(id, to), Data::Out(bytes)) => udp
                .send_to(&mut cx, id, bytes, to)
                .map(|()| Reply::Bytes(bytes.len()))
                .map_err(CallError::Udp),
            (Request::SendSegments(id, to, size), Data::Out(bytes)) => udp
                .send_segments(&mut cx, id, (bytes, size), to)
                .map(Reply::Bytes)
                .map_err(CallError::Udp),
            (Request::ReceiveDatagram(id), Data::In(out)) => udp
                .recv_from(id, out, cx.mem)
                .map(|received| Reply::BytesFrom(received.len, received.source))
                .map_err(CallError::Udp),
            (Request::PeekDatagram(id), Data::In(out)) => udp
                .peek_from(id, out, cx.mem)
                .map(|received| Reply::BytesFrom(received.len, received.source))
                .map_err(CallError::Udp),
            _ => Err(CallError::NoSocket),
        }
    }

    /// Everything that moves no bytes.
    #[inline(never)]
    fn rare(self, core: &mut Core) -> Result<Reply, CallError> {
        // It may bring a deadline nearer.
        core.expect_work();
        let now = core.now;
        match self {
            Request::SetMark(socket, mark) => {
                return marking::set(core, socket, mark).map(|()| Reply::Done);
            }
            Request::Marking(socket) => return marking::get(core, socket).map(Reply::Marking),
            _ => {}
        }
        let (stack, mut memory) = core.parts();
        let (tcp, ip) = stack.tcp();
        match self {
            Request::Listen { at, backlog } => {
                tcp.listen(at, backlog, ip).map(Reply::Listener).map_err(CallError::Listen)
            }
            Request::ListenerAddr(id) => {
                tcp.listener_addr(id).map(Reply::Address).ok_or(CallError::NoSocket)
            }
            Request::Accept(id) => {
                tcp.listener_addr(id).ok_or(CallError::NoSocket)?;
                let accepted = tcp.accept(id).ok_or(CallError::WouldBlock)?;
                let info = tcp.info(accepted).ok_or(CallError::WouldBlock)?;
                Ok(Reply::Accepted(accepted, info.ends.remote_addr()))
            }
            Request::CloseListener(id) => {
                tcp.close_listener(id, &mut memory);
                Ok(Reply::Done)
            }
            Request::Connect { to, from } => {
                tcp.connect(to, from, (now, ip)).map(Reply::Connection).map_err(CallError::Connect)
            }
            Request::Close(id) => {
                tcp.close(id, now, &mut memory);
                Ok(Reply::Done)
            }
            Request::Abort(id) => {
                tcp.abort(id, &mut memory);
                Ok(Reply::Done)
            }
            Request::Connected(_)
            | Request::Shutdown(..)
            | Request::SetOption(..)
            | Request::NoDelay(_)
            | Request::Info(_)
            | Request::TakeError(_) => self.of_connection(core),
            _ => self.of_datagram(core),
        }
    }

    fn of_connection(self, core: &mut Core) -> Result<Reply, CallError> {
        let now = core.now;
        let (tcp, _) = core.stack.tcp();
        match self {
            Request::Connected(id) => {
                if let Some(error) = tcp.error(id) {
                    return Err(CallError::Connection(error));
                }
                match tcp.info(id).ok_or(CallError::NotConnected)?.state {
                    TcpState::SynSent | TcpState::SynReceived => Err(CallError::WouldBlock),
                    _ => Ok(Reply::Done),
                }
            }
            Request::Shutdown(id, how) => {
                let read = how != Shutdown::Write;
                let write = how != Shutdown::Read;
                tcp.shutdown(id, read, write).map(|()| Reply::Done).map_err(CallError::Send)
            }
            Request::SetOption(id, option) => {
                tcp.set_option(id, option, now);
                Ok(Reply::Done)
            }
            Request::NoDelay(id) => tcp.nodelay(id).map(Reply::Flag).ok_or(CallError::NotConnected),
            Request::Info(id) => tcp.info(id).map(Reply::Info).ok_or(CallError::NotConnected),
            Request::TakeError(id) => {
                Ok(Reply::Error(tcp.take_error(id).map(CallError::Connection)))
            }
            _ => Err(CallError::NoSocket),
        }
    }

    fn of_datagram(self, core: &mut Core) -> Result<Reply, CallError> {
        let now = core.now;
        let (stack, mut memory) = core.parts();
        let (udp, cx) = stack.udp(now, &mut memory);
        let result = match self {
            Request::Bind(at) => udp.bind(cx.ip, at).map(Reply::Datagram),
            Request::SetPeer(id, peer) => udp.connect(cx.ip, id, peer).map(|()| Reply::Done),
            Request::DatagramAddr(id) => {
                udp.local_addr(id).map(Reply::Address).ok_or(UdpError::NotFound)
            }
            Request::PeerAddr(id) => {
                udp.peer_addr(id).map(Reply::Address).ok_or(UdpError::NotConnected)
            }
            Request::SetBroadcast(id, on) => udp.set_broadcast(id, on).map(|()| Reply::Done),
            Request::TakeDatagramError(id) => {
                Ok(Reply::Error(udp.take_error(id).map(CallError::Udp)))
            }
            Request::CloseDatagram(id) => udp.close(id, cx.mem).map(|()| Reply::Done),
            _ => return Err(CallError::NoSocket),
        };
        result.map_err(CallError::Udp)
    }
}
