//! What the connection manager tells, as values (rdma_get_cm_event(3)).
//!
//! Owns copies only: private data are valid in the library until the event is acknowledged.

use super::Identifier;
use crate::verbs::address::Path;
use crate::verbs::sys;
use std::ffi::c_void;
use std::ptr::NonNull;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectEventKind {
    /// The peer's address was resolved.
    AddressResolved,
    /// The way to it was found.
    RouteResolved,
    /// A peer asks for a connection, or for the number of a datagram queue pair.
    Request,
    /// The peer has granted the request.
    Response,
    /// The connection stands; of datagrams: the peer has told its queue pair.
    Established,
    /// The peer has refused, or nobody listens; the status says why (28: the peer itself).
    Rejected,
    /// The address or the way was not found, the peer does not answer, or the request failed; the
    /// status is a negative errno.
    Failed,
    /// The connection has ended.
    Disconnected,
    /// The device is being removed.
    DeviceRemoval,
    /// The address has moved to another device.
    AddressChange,
    /// The queue pair may be used again.
    TimeWaitExit,
    /// Another; its number in `rdma_cm_event_type`.
    Other(u32),
}

impl ConnectEventKind {
    fn new(event: sys::rdma_cm_event_type) -> ConnectEventKind {
        use ConnectEventKind as Kind;
        match event {
            sys::RDMA_CM_EVENT_ADDR_RESOLVED => Kind::AddressResolved,
            sys::RDMA_CM_EVENT_ROUTE_RESOLVED => Kind::RouteResolved,
            sys::RDMA_CM_EVENT_CONNECT_REQUEST => Kind::Request,
            sys::RDMA_CM_EVENT_CONNECT_RESPONSE => Kind::Response,
            sys::RDMA_CM_EVENT_ESTABLISHED => Kind::Established,
            sys::RDMA_CM_EVENT_REJECTED => Kind::Rejected,
            sys::RDMA_CM_EVENT_ADDR_ERROR
            | sys::RDMA_CM_EVENT_ROUTE_ERROR
            | sys::RDMA_CM_EVENT_CONNECT_ERROR
            | sys::RDMA_CM_EVENT_UNREACHABLE => Kind::Failed,
            sys::RDMA_CM_EVENT_DISCONNECTED => Kind::Disconnected,
            sys::RDMA_CM_EVENT_DEVICE_REMOVAL => Kind::DeviceRemoval,
            sys::RDMA_CM_EVENT_ADDR_CHANGE => Kind::AddressChange,
            sys::RDMA_CM_EVENT_TIMEWAIT_EXIT => Kind::TimeWaitExit,
            other => Kind::Other(other),
        }
    }
}

/// How a datagram peer is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramPeer {
    /// The way, from the port that the identifier is bound to.
    pub path: Path,
    /// Its queue pair.
    pub queue_pair: u32,
    /// Its key.
    pub qkey: u32,
}

/// Something that happened to an identifier.
#[derive(Debug)]
pub struct ConnectEvent {
    /// What.
    pub kind: ConnectEventKind,
    /// The token of the identifier, for a request that of the listener.
    pub token: u64,
    /// 0, or why it failed.
    pub status: i32,
    /// What the peer sent along. Longer than what the peer gave: padded with zeroes.
    pub private_data: Vec<u8>,
    /// Number of the peer's queue pair, in a request or response of a reliable connection.
    pub queue_pair: u32,
    /// The peer, in `Established` of datagrams.
    pub datagram: Option<DatagramPeer>,
    /// The new identifier of a request; dropping it refuses the request.
    pub request: Option<Identifier>,
}

/// An event, and the new identifier that comes with it.
pub(super) struct Taken {
    pub(super) event: ConnectEvent,
    pub(super) request: Option<NonNull<sys::rdma_cm_id>>,
}

impl Taken {
    /// Copies an event.
    ///
    /// # Safety
    /// It was returned by rdma_get_cm_event and is not yet acknowledged.
    pub(super) unsafe fn new(event: &sys::rdma_cm_event) -> Taken {
        let kind = ConnectEventKind::new(event.event);
        let is_request = kind == ConnectEventKind::Request;
        let named = if is_request { event.listen_id } else { event.id };
        let mut taken = ConnectEvent {
            kind,
            token: 0,
            status: event.status,
            private_data: Vec::new(),
            queue_pair: 0,
            datagram: None,
            request: None,
        };
        if !named.is_null() {
            // SAFETY: an identifier is not destroyed before its events are acknowledged.
            let context = unsafe { (*named).context };
            taken.token = u64::try_from(context.addr()).unwrap_or(u64::MAX);
        }
        let has_parameters = matches!(
            kind,
            ConnectEventKind::Request
                | ConnectEventKind::Response
                | ConnectEventKind::Established
                | ConnectEventKind::Rejected
        );
        // SAFETY: as above; an event has its identifier.
        let datagram = !event.id.is_null() && unsafe { (*event.id).ps } == sys::RDMA_PS_UDP;
        if has_parameters && datagram {
            // SAFETY: events of datagram identifiers have these parameters.
            let parameters = unsafe { &event.param.ud };
            // SAFETY: valid until the event is acknowledged.
            taken.private_data =
                unsafe { copied(parameters.private_data, parameters.private_data_len) };
            taken.datagram = (kind == ConnectEventKind::Established).then(|| DatagramPeer {
                path: Path::from_attributes(&parameters.ah_attr),
                queue_pair: parameters.qp_num,
                qkey: parameters.qkey,
            });
        } else if has_parameters {
            // SAFETY: events of other identifiers have these parameters.
            let parameters = unsafe { &event.param.conn };
            // SAFETY: valid until the event is acknowledged.
            taken.private_data =
                unsafe { copied(parameters.private_data, parameters.private_data_len) };
            taken.queue_pair = parameters.qp_num;
        }
        let request = if is_request { NonNull::new(event.id) } else { None };
        Taken { event: taken, request }
    }
}

/// # Safety
/// `length` readable bytes at `data`, unless it is null.
unsafe fn copied(data: *const c_void, length: u8) -> Vec<u8> {
    if data.is_null() || length == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), usize::from(length)) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as the library hands it out, of an identifier with this token.
    fn event_of(id: &mut sys::rdma_cm_id, event: u32, data: &'static [u8]) -> sys::rdma_cm_event {
        // SAFETY: integers and pointers that may be null.
        let mut made: sys::rdma_cm_event = unsafe { std::mem::zeroed() };
        made.id = id;
        made.event = event;
        let length = u8::try_from(data.len()).unwrap();
        if id.ps == sys::RDMA_PS_UDP {
            made.param.ud.private_data = data.as_ptr().cast();
            made.param.ud.private_data_len = length;
            made.param.ud.qp_num = 33;
            made.param.ud.qkey = 44;
        } else {
            made.param.conn.private_data = data.as_ptr().cast();
            made.param.conn.private_data_len = length;
            made.param.conn.qp_num = 55;
        }
        made
    }

    fn identifier(space: sys::rdma_port_space, token: usize) -> sys::rdma_cm_id {
        // SAFETY: integers and pointers that may be null.
        let mut id: sys::rdma_cm_id = unsafe { std::mem::zeroed() };
        id.ps = space;
        id.context = std::ptr::without_provenance_mut(token);
        id
    }

    #[test]
    fn events_are_copied_with_the_parameters_of_their_service() {
        let mut reliable = identifier(sys::RDMA_PS_TCP, 7);
        let event = event_of(&mut reliable, sys::RDMA_CM_EVENT_CONNECT_RESPONSE, b"hello");
        // SAFETY: made as the library makes it.
        let taken = unsafe { Taken::new(&event) };
        assert_eq!(taken.event.kind, ConnectEventKind::Response);
        assert_eq!((taken.event.token, taken.event.queue_pair), (7, 55));
        assert_eq!(taken.event.private_data, b"hello");
        assert!(taken.request.is_none() && taken.event.datagram.is_none());

        let mut datagram = identifier(sys::RDMA_PS_UDP, 8);
        let event = event_of(&mut datagram, sys::RDMA_CM_EVENT_ESTABLISHED, b"");
        // SAFETY: as above.
        let taken = unsafe { Taken::new(&event) }.event;
        let peer = taken.datagram.expect("a datagram peer");
        assert_eq!((peer.queue_pair, peer.qkey, taken.token), (33, 44, 8));
    }

    #[test]
    fn a_request_has_its_listeners_token_and_its_own_identifier() {
        let (mut listener, mut new) =
            (identifier(sys::RDMA_PS_TCP, 1), identifier(sys::RDMA_PS_TCP, 1));
        let mut event = event_of(&mut new, sys::RDMA_CM_EVENT_CONNECT_REQUEST, b"x");
        listener.context = std::ptr::without_provenance_mut(99);
        event.listen_id = &mut listener;
        // SAFETY: made as the library makes it.
        let taken = unsafe { Taken::new(&event) };
        assert_eq!(taken.event.token, 99);
        assert_eq!(taken.request.map(NonNull::as_ptr), Some(&raw mut new));
    }

    #[test]
    fn failures_carry_no_parameters() {
        let mut id = identifier(sys::RDMA_PS_TCP, 3);
        let mut event = event_of(&mut id, sys::RDMA_CM_EVENT_UNREACHABLE, b"junk");
        event.status = -110;
        // SAFETY: made as the library makes it.
        let taken = unsafe { Taken::new(&event) }.event;
        assert_eq!((taken.kind, taken.status), (ConnectEventKind::Failed, -110));
        assert!(taken.private_data.is_empty());
    }
}
