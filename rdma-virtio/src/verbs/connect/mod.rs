//! Connecting by address through librdmacm: reliable connections, and the queue pair numbers of
//! datagram peers (SIDR), with private data both ways (rdma_cm(7)).
//!
//! Owns event channels and identifiers. Queue pairs stay the caller's, made in the caller's own
//! context: the connection manager only says what to set in them. Invariants: the fd of a channel
//! never blocks; every event is copied and acknowledged before it is handed out.
//!
//! A reliable connection, active side: [`Identifier::resolve_address`], `AddressResolved`,
//! [`Identifier::resolve_route`], `RouteResolved`, `QueuePair::init_for`, [`Identifier::connect`],
//! `Response`, `rtr_for`, `rts_for`, [`Identifier::establish`]. Passive side: `listen`, `Request`
//! with a new identifier, `init_for`, `rtr_for`, `rts_for`, [`Identifier::accept`], `Established`.
//! Datagrams: the same to `connect`, then `Established` with the way to the peer; the passive side
//! accepts with its queue pair's number, which has [`DATAGRAM_QKEY`].

mod event;
mod pair;

pub use event::{ConnectEvent, ConnectEventKind, DatagramPeer};

use super::interfaces::{socket_address, to_storage};
use super::library::{ConnectLibrary, connect_library};
use super::sys::{self, Zero};
use super::{context, error};
use crate::nic::DeviceError;
use event::Taken;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// Key of the datagram queue pairs whose numbers the connection manager exchanges
/// (`RDMA_UDP_QKEY`).
pub const DATAGRAM_QKEY: u32 = sys::RDMA_UDP_QKEY;
/// Bytes of private data that a request carries on a reliable connection.
pub const PRIVATE_DATA_MAX: usize = 56;

/// What is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// A reliable connection (`RDMA_PS_TCP`).
    Reliable,
    /// Datagrams (`RDMA_PS_UDP`).
    Datagram,
}

struct ChannelInner {
    library: &'static ConnectLibrary,
    channel: NonNull<sys::rdma_event_channel>,
}

// SAFETY: librdmacm may be called from any thread (rdma_cm(7)).
unsafe impl Send for ChannelInner {}
// SAFETY: as above.
unsafe impl Sync for ChannelInner {}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let destroy = self.library.table.rdma_destroy_event_channel;
        // SAFETY: made once, destroyed here, after the identifiers that hold it.
        unsafe { destroy(self.channel.as_ptr()) };
    }
}

fn check(call: &'static str, result: i32) -> Result<(), DeviceError> {
    error::check(result).map_err(|errno| error::failure("rdma_cm", call, errno))
}

/// Where the connection manager tells what happened. A handle: its clones are the same channel.
#[derive(Clone)]
pub struct EventChannel {
    inner: Arc<ChannelInner>,
}

impl EventChannel {
    /// Opens a channel.
    ///
    /// # Errors
    /// If librdmacm or the kernel's module (rdma_ucm) is not there.
    pub fn new() -> Result<EventChannel, DeviceError> {
        let library = connect_library()?;
        let create = library.table.rdma_create_event_channel;
        // SAFETY: no arguments.
        let pointer = unsafe { create() };
        let channel = error::object(pointer).map_err(|errno| {
            let mut failure = error::failure("rdma_cm", "rdma_create_event_channel", errno);
            failure.remedy = "load the kernel's module: modprobe rdma_ucm".to_owned();
            failure
        })?;
        let channel = EventChannel { inner: Arc::new(ChannelInner { library, channel }) };
        context::set_nonblocking(channel.fd())
            .map_err(|errno| error::failure("rdma_cm", "fcntl", errno))?;
        Ok(channel)
    }

    /// The fd that becomes readable with an event; it does not block.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        // SAFETY: the channel lives; the member is constant.
        unsafe { (*self.inner.channel.as_ptr()).fd }
    }

    /// Makes an identifier; `token` names it in events.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn identifier(&self, service: Service, token: u64) -> Result<Identifier, DeviceError> {
        let space = match service {
            Service::Reliable => sys::RDMA_PS_TCP,
            Service::Datagram => sys::RDMA_PS_UDP,
        };
        let mut id = ptr::null_mut();
        let create = self.inner.library.table.rdma_create_id;
        let context = token_pointer(token);
        // SAFETY: the channel lives; a place for the identifier.
        let result = unsafe { create(self.inner.channel.as_ptr(), &mut id, context, space) };
        check("rdma_create_id", result)?;
        let id = error::object(id)
            .map_err(|errno| error::failure("rdma_cm", "rdma_create_id", errno))?;
        Ok(Identifier { channel: Arc::clone(&self.inner), id })
    }

    /// Takes an event, acknowledged, if there is one. A request comes with its identifier, which
    /// has the listener's token until it is given its own.
    ///
    /// # Errors
    /// If the connection manager is gone.
    pub fn take_event(&self) -> Result<Option<ConnectEvent>, DeviceError> {
        let table = &self.inner.library.table;
        let mut pointer = ptr::null_mut();
        let get = table.rdma_get_cm_event;
        // SAFETY: the channel lives and does not block; a place for the event.
        let result = unsafe { get(self.inner.channel.as_ptr(), &mut pointer) };
        match error::check(result) {
            Ok(()) => {}
            Err(libc::EAGAIN | libc::EINTR) => return Ok(None),
            Err(errno) => return Err(error::failure("rdma_cm", "rdma_get_cm_event", errno)),
        }
        let failed = |errno| error::failure("rdma_cm", "rdma_get_cm_event", errno);
        let event = error::object(pointer).map_err(failed)?;
        // SAFETY: returned just now and not acknowledged.
        let returned = unsafe { event.as_ref() };
        // SAFETY: as above.
        let Taken { event: taken, request } = unsafe { Taken::new(returned) };
        let acknowledge = table.rdma_ack_cm_event;
        // SAFETY: once for each event returned.
        let result = unsafe { acknowledge(event.as_ptr()) };
        let own = |id| Identifier { channel: Arc::clone(&self.inner), id };
        let taken = ConnectEvent { request: request.map(own), ..taken };
        check("rdma_ack_cm_event", result)?;
        Ok(Some(taken))
    }
}

fn token_pointer(token: u64) -> *mut std::ffi::c_void {
    ptr::without_provenance_mut(usize::try_from(token).unwrap_or(usize::MAX))
}

/// What is said of a queue pair to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectParameters<'a> {
    /// Number of the own queue pair.
    pub queue_pair: u32,
    /// Whether it takes its receives from a shared queue.
    pub shared_receive: bool,
    /// Repetitions before giving up, 3 bits; reliable connections only.
    pub retry_count: u8,
    /// Repetitions after the peer found no receive posted, 3 bits; 7 is for ever.
    pub rnr_retry: u8,
    /// For the peer to read; at most [`PRIVATE_DATA_MAX`] bytes in a request.
    pub private_data: &'a [u8],
}

impl ConnectParameters<'_> {
    fn to_verbs(self) -> Result<sys::rdma_conn_param, DeviceError> {
        let mut parameters = sys::rdma_conn_param::zero();
        parameters.private_data = self.private_data.as_ptr().cast();
        parameters.private_data_len =
            u8::try_from(self.private_data.len()).map_err(|_| too_long())?;
        parameters.retry_count = self.retry_count;
        parameters.rnr_retry_count = self.rnr_retry;
        parameters.srq = u8::from(self.shared_receive);
        parameters.qp_num = self.queue_pair;
        Ok(parameters)
    }
}

fn too_long() -> DeviceError {
    error::failure("rdma_cm", "private data", libc::EMSGSIZE)
}

/// One end of a connection, or a listener (`rdma_cm_id`).
pub struct Identifier {
    channel: Arc<ChannelInner>,
    id: NonNull<sys::rdma_cm_id>,
}

// SAFETY: librdmacm may be called from any thread.
unsafe impl Send for Identifier {}
// SAFETY: as above.
unsafe impl Sync for Identifier {}

impl fmt::Debug for Identifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identifier").field("token", &self.token()).finish_non_exhaustive()
    }
}

impl Drop for Identifier {
    fn drop(&mut self) {
        let destroy = self.channel.library.table.rdma_destroy_id;
        // SAFETY: made once, destroyed here; all its events were acknowledged when taken.
        let _destroyed = unsafe { destroy(self.id.as_ptr()) };
    }
}

impl Identifier {
    fn table(&self) -> &'static super::library::ConnectTable {
        &self.channel.library.table
    }

    /// What names it in events.
    #[must_use]
    pub fn token(&self) -> u64 {
        // SAFETY: the identifier lives; its context is a number, set by its owner only.
        let context = unsafe { (*self.id.as_ptr()).context };
        u64::try_from(context.addr()).unwrap_or(u64::MAX)
    }

    /// Names it anew: for an identifier that came with a request.
    pub fn set_token(&mut self, token: u64) {
        // SAFETY: the identifier lives; librdmacm does not use its context.
        unsafe { (*self.id.as_ptr()).context = token_pointer(token) };
    }

    /// Binds it to a local address; port 0 takes any.
    ///
    /// # Errors
    /// If no RDMA device has the address, or the port is taken.
    pub fn bind(&self, address: SocketAddr) -> Result<(), DeviceError> {
        let mut address = to_storage(address);
        // SAFETY: the identifier lives; a socket address.
        let result = unsafe {
            (self.table().rdma_bind_addr)(self.id.as_ptr(), ptr::from_mut(&mut address).cast())
        };
        check("rdma_bind_addr", result)
    }

    /// Listens for requests, which come as events.
    ///
    /// # Errors
    /// If it is not bound.
    pub fn listen(&self, backlog: u16) -> Result<(), DeviceError> {
        // SAFETY: the identifier lives.
        let result = unsafe { (self.table().rdma_listen)(self.id.as_ptr(), i32::from(backlog)) };
        check("rdma_listen", result)
    }

    /// Asks which device leads to `peer` and what its address is there; an event answers.
    ///
    /// # Errors
    /// If no RDMA device leads there.
    pub fn resolve_address(
        &self,
        own: Option<SocketAddr>,
        peer: SocketAddr,
        patience: Duration,
    ) -> Result<(), DeviceError> {
        let mut own = own.map(to_storage);
        let own = own.as_mut().map_or(ptr::null_mut(), |own| ptr::from_mut(own).cast());
        let mut peer = to_storage(peer);
        let peer = ptr::from_mut(&mut peer).cast();
        let resolve = self.table().rdma_resolve_addr;
        // SAFETY: the identifier lives; two socket addresses, the first may be null.
        let result = unsafe { resolve(self.id.as_ptr(), own, peer, milliseconds(patience)) };
        check("rdma_resolve_addr", result)
    }

    /// Asks for the way to the resolved address; an event answers.
    ///
    /// # Errors
    /// If no address was resolved.
    pub fn resolve_route(&self, patience: Duration) -> Result<(), DeviceError> {
        let resolve = self.table().rdma_resolve_route;
        // SAFETY: the identifier lives.
        let result = unsafe { resolve(self.id.as_ptr(), milliseconds(patience)) };
        check("rdma_resolve_route", result)
    }

    /// Asks the peer for a connection, or for its datagram queue pair; an event answers.
    ///
    /// # Errors
    /// If no way was resolved or the private data are too long.
    pub fn connect(&self, parameters: &ConnectParameters<'_>) -> Result<(), DeviceError> {
        if parameters.private_data.len() > PRIVATE_DATA_MAX {
            return Err(too_long());
        }
        let mut parameters = parameters.to_verbs()?;
        let connect = self.table().rdma_connect;
        // SAFETY: the identifier lives; the private data do, during the call.
        let result = unsafe { connect(self.id.as_ptr(), &mut parameters) };
        check("rdma_connect", result)
    }

    /// Grants a request; on a reliable connection an event tells when the peer has it.
    ///
    /// # Errors
    /// If the request is gone or the private data are too long.
    pub fn accept(&self, parameters: &ConnectParameters<'_>) -> Result<(), DeviceError> {
        let mut parameters = parameters.to_verbs()?;
        let accept = self.table().rdma_accept;
        // SAFETY: the identifier lives; the private data do, during the call.
        let result = unsafe { accept(self.id.as_ptr(), &mut parameters) };
        check("rdma_accept", result)
    }

    /// Refuses a request.
    ///
    /// # Errors
    /// If the request is gone or the private data are too long.
    pub fn reject(&self, private_data: &[u8]) -> Result<(), DeviceError> {
        let length = u8::try_from(private_data.len()).map_err(|_| too_long())?;
        let reject = self.table().rdma_reject;
        // SAFETY: the identifier lives; the private data do, during the call.
        let result = unsafe { reject(self.id.as_ptr(), private_data.as_ptr().cast(), length) };
        check("rdma_reject", result)
    }

    /// Confirms a `Response`: the queue pair is ready to send.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn establish(&self) -> Result<(), DeviceError> {
        // SAFETY: the identifier lives.
        let result = unsafe { (self.table().rdma_establish)(self.id.as_ptr()) };
        check("rdma_establish", result)
    }

    /// Ends a reliable connection; both ends get an event.
    ///
    /// # Errors
    /// If there is none.
    pub fn disconnect(&self) -> Result<(), DeviceError> {
        // SAFETY: the identifier lives.
        let result = unsafe { (self.table().rdma_disconnect)(self.id.as_ptr()) };
        check("rdma_disconnect", result)
    }

    /// Sets the traffic class of the way: DSCP in the upper six bits. Before it is resolved.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_traffic_class(&self, class: u8) -> Result<(), DeviceError> {
        let (level, name) = (sys::RDMA_OPTION_ID, sys::RDMA_OPTION_ID_TOS);
        let (Ok(level), Ok(name)) = (i32::try_from(level), i32::try_from(name)) else {
            return Err(error::failure("rdma_cm", "rdma_set_option", libc::EINVAL));
        };
        let mut class = class;
        let value = ptr::from_mut(&mut class).cast();
        let set = self.table().rdma_set_option;
        // SAFETY: the identifier lives; a value of one byte.
        let result = unsafe { set(self.id.as_ptr(), level, name, value, 1) };
        check("rdma_set_option", result)
    }

    /// The RDMA device that it is bound to, once it is.
    #[must_use]
    pub fn device_name(&self) -> Option<String> {
        // SAFETY: the identifier lives; the member is set before the event that tells of it.
        let context = NonNull::new(unsafe { (*self.id.as_ptr()).verbs })?;
        // SAFETY: the context lives as long as librdmacm, which is never closed.
        let device = NonNull::new(unsafe { (*context.as_ptr()).device })?;
        // SAFETY: as above; the name is constant.
        let name = unsafe { (*device.as_ptr()).name };
        Some(super::device::text(&name))
    }

    /// The port of that device, from 1.
    #[must_use]
    pub fn port(&self) -> u8 {
        // SAFETY: the identifier lives.
        unsafe { (*self.id.as_ptr()).port_num }
    }

    /// Its own address, once it is bound or resolved.
    #[must_use]
    pub fn own_address(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives; the member is a union of socket addresses.
        let address = unsafe { &raw const (*self.id.as_ptr()).route.addr.__bindgen_anon_1 };
        // SAFETY: as large as the largest socket address.
        unsafe { socket_address(address.cast()) }
    }

    /// The peer's address, once it is resolved.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives; the member is a union of socket addresses.
        let address = unsafe { &raw const (*self.id.as_ptr()).route.addr.__bindgen_anon_2 };
        // SAFETY: as large as the largest socket address.
        unsafe { socket_address(address.cast()) }
    }
}

fn milliseconds(patience: Duration) -> i32 {
    i32::try_from(patience.as_millis()).unwrap_or(i32::MAX)
}
