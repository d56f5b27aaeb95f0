//! The stack's errors in the words of `std::io`: kinds only, so that none costs an allocation.

use std::io::{Error, ErrorKind};

use roceway_rdma_virtio::memory::arena::RegisterError;
use roceway_rdma_virtio::memory::leases::LeaseError;
use roceway_rdma_virtio::virtio::interface::InterfaceError;
use roceway_stack::tcp::{ConnectError, ConnectionError, ListenError, ReceiveError, SendError};
use roceway_stack::udp::UdpError;

use crate::zero_copy::GiveError;

pub(crate) fn of_connection(error: ConnectionError) -> Error {
    Error::from(match error {
        ConnectionError::Refused => ErrorKind::ConnectionRefused,
        ConnectionError::Reset => ErrorKind::ConnectionReset,
        ConnectionError::TimedOut => ErrorKind::TimedOut,
        ConnectionError::HostUnreachable => ErrorKind::HostUnreachable,
        ConnectionError::NetworkUnreachable => ErrorKind::NetworkUnreachable,
        ConnectionError::LinkLost | ConnectionError::Aborted => ErrorKind::ConnectionAborted,
    })
}

pub(crate) fn of_send(error: SendError) -> Error {
    match error {
        SendError::WouldBlock => ErrorKind::WouldBlock.into(),
        SendError::NotConnected | SendError::NoSocket => ErrorKind::NotConnected.into(),
        SendError::BrokenPipe => ErrorKind::BrokenPipe.into(),
        SendError::Connection(error) => of_connection(error),
    }
}

pub(crate) fn of_give(error: GiveError) -> Error {
    match error {
        GiveError::Send(error) => of_send(error),
        GiveError::Lease(LeaseError::Exhausted) => ErrorKind::WouldBlock.into(),
        GiveError::Lease(error @ LeaseError::CookieInUse) => {
            Error::new(ErrorKind::AlreadyExists, error)
        }
        GiveError::Lease(error @ (LeaseError::BadRange | LeaseError::Foreign)) => {
            Error::new(ErrorKind::InvalidInput, error)
        }
    }
}

pub(crate) fn of_register(error: InterfaceError) -> Error {
    let kind = match &error {
        InterfaceError::Register(RegisterError::TooMany) => ErrorKind::OutOfMemory,
        InterfaceError::Mapping(error) => error.source.kind(),
        InterfaceError::Device(error) => error.source.kind(),
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, error)
}

pub(crate) fn of_receive(error: ReceiveError) -> Error {
    match error {
        ReceiveError::WouldBlock => ErrorKind::WouldBlock.into(),
        ReceiveError::NotConnected | ReceiveError::NoSocket => ErrorKind::NotConnected.into(),
        ReceiveError::Connection(error) => of_connection(error),
    }
}

pub(crate) fn of_connect(error: ConnectError) -> Error {
    let kind = match error {
        ConnectError::NoRoute => ErrorKind::NetworkUnreachable,
        ConnectError::BadAddress => ErrorKind::InvalidInput,
        ConnectError::AddressNotAvailable => ErrorKind::AddrNotAvailable,
        ConnectError::AddressInUse => ErrorKind::AddrInUse,
        ConnectError::TooMany => ErrorKind::OutOfMemory,
    };
    Error::new(kind, error)
}

pub(crate) fn of_listen(error: ListenError) -> Error {
    let kind = match error {
        ListenError::AddressInUse => ErrorKind::AddrInUse,
        ListenError::AddressNotAvailable => ErrorKind::AddrNotAvailable,
        ListenError::TooMany => ErrorKind::OutOfMemory,
    };
    Error::new(kind, error)
}

pub(crate) fn of_udp(error: UdpError) -> Error {
    match error {
        UdpError::WouldBlock => ErrorKind::WouldBlock.into(),
        UdpError::NotFound | UdpError::NotConnected => ErrorKind::NotConnected.into(),
        UdpError::AddressInUse => ErrorKind::AddrInUse.into(),
        UdpError::AddressNotAvailable => ErrorKind::AddrNotAvailable.into(),
        UdpError::InvalidAddress => ErrorKind::InvalidInput.into(),
        UdpError::ConnectionRefused => ErrorKind::ConnectionRefused.into(),
        UdpError::NoPort => Error::new(ErrorKind::AddrInUse, error),
        UdpError::TooManySockets => Error::new(ErrorKind::OutOfMemory, error),
        UdpError::MessageTooLong => Error::new(ErrorKind::InvalidInput, error),
        UdpError::NetworkUnreachable => ErrorKind::NetworkUnreachable.into(),
        UdpError::HostUnreachable => ErrorKind::HostUnreachable.into(),
        UdpError::PermissionDenied => ErrorKind::PermissionDenied.into(),
    }
}
