//! Asynchronous events of a device, as values (ibv_get_async_event(3)).
//!
//! Owns their names. Never acknowledges: [`super::context::Context::take_async_event`] does.

use super::completion::Cookie;
use super::sys;

/// Something that happened to a device, a port or an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsyncEvent {
    /// To a port, counted from 1.
    Port(u8, PortEvent),
    /// To a queue pair, by its number.
    QueuePair(u32, QueuePairEvent),
    /// A completion queue has overrun or failed (`IBV_EVENT_CQ_ERR`); its token.
    CompletionQueueError(u64),
    /// Fewer receives are posted than the limit, which is no longer set
    /// (`IBV_EVENT_SRQ_LIMIT_REACHED`); the queue's token.
    SharedReceiveLimit(u64),
    /// A shared receive queue has failed (`IBV_EVENT_SRQ_ERR`); its token.
    SharedReceiveError(u64),
    /// The device has failed or was removed (`IBV_EVENT_DEVICE_FATAL`).
    DeviceFatal,
    /// Another; its number in `ibv_event_type`.
    Other(u32),
}

/// What happened to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortEvent {
    /// It is up.
    Active,
    /// It is down.
    Error,
    /// Its GID table has changed.
    GidChange,
    /// Its LID, partition keys or subnet manager have changed, or it is to register anew.
    Management,
}

/// What happened to a queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueuePairEvent {
    /// It is in the error state, without a completion that says why.
    Fatal,
    /// The peer's request was wrong (`IBV_EVENT_QP_REQ_ERR`, `IBV_EVENT_QP_ACCESS_ERR`).
    Request,
    /// A message came before it was ready to send.
    Established,
    /// It has sent what it had (`IBV_EVENT_SQ_DRAINED`).
    Drained,
    /// It takes nothing more from its shared receive queue (`IBV_EVENT_QP_LAST_WQE_REACHED`).
    LastReceive,
    /// Its alternate path is used, or could not be.
    Path,
}

impl QueuePairEvent {
    /// Whether the queue pair is of no use any more.
    #[must_use]
    pub fn is_an_end(self) -> bool {
        match self {
            QueuePairEvent::Fatal | QueuePairEvent::Request => true,
            QueuePairEvent::Established
            | QueuePairEvent::Drained
            | QueuePairEvent::LastReceive
            | QueuePairEvent::Path => false,
        }
    }
}

impl AsyncEvent {
    /// Reads an event.
    ///
    /// # Safety
    /// It was returned by ibv_get_async_event for a context of ours and is not yet acknowledged, so
    /// that its object cannot have been destroyed.
    pub(super) unsafe fn new(event: &sys::ibv_async_event) -> AsyncEvent {
        use QueuePairEvent as Qp;
        let port = |what| AsyncEvent::Port(port_of(event), what);
        // SAFETY: only called for events of queue pairs; the caller's promise.
        let pair = |what| AsyncEvent::QueuePair(unsafe { queue_pair_of(event) }, what);
        // SAFETY: only called for events of shared receive queues; the caller's promise.
        let shared = || unsafe { shared_receive_of(event) };
        match event.event_type {
            sys::IBV_EVENT_PORT_ACTIVE => port(PortEvent::Active),
            sys::IBV_EVENT_PORT_ERR => port(PortEvent::Error),
            sys::IBV_EVENT_GID_CHANGE => port(PortEvent::GidChange),
            sys::IBV_EVENT_LID_CHANGE
            | sys::IBV_EVENT_PKEY_CHANGE
            | sys::IBV_EVENT_SM_CHANGE
            | sys::IBV_EVENT_CLIENT_REREGISTER => port(PortEvent::Management),
            sys::IBV_EVENT_QP_FATAL => pair(Qp::Fatal),
            sys::IBV_EVENT_QP_REQ_ERR | sys::IBV_EVENT_QP_ACCESS_ERR => pair(Qp::Request),
            sys::IBV_EVENT_COMM_EST => pair(Qp::Established),
            sys::IBV_EVENT_SQ_DRAINED => pair(Qp::Drained),
            sys::IBV_EVENT_QP_LAST_WQE_REACHED => pair(Qp::LastReceive),
            sys::IBV_EVENT_PATH_MIG | sys::IBV_EVENT_PATH_MIG_ERR => pair(Qp::Path),
            sys::IBV_EVENT_CQ_ERR => {
                // SAFETY: an event of a completion queue; the caller's promise.
                AsyncEvent::CompletionQueueError(unsafe { completion_queue_of(event) })
            }
            sys::IBV_EVENT_SRQ_LIMIT_REACHED => AsyncEvent::SharedReceiveLimit(shared()),
            sys::IBV_EVENT_SRQ_ERR => AsyncEvent::SharedReceiveError(shared()),
            sys::IBV_EVENT_DEVICE_FATAL => AsyncEvent::DeviceFatal,
            other => AsyncEvent::Other(other),
        }
    }
}

fn port_of(event: &sys::ibv_async_event) -> u8 {
    // SAFETY: any bytes are an integer.
    u8::try_from(unsafe { event.element.port_num }).unwrap_or(0)
}

/// # Safety
/// An event of a queue pair that is not yet acknowledged.
unsafe fn queue_pair_of(event: &sys::ibv_async_event) -> u32 {
    // SAFETY: the caller's promise: this member is set.
    let qp = unsafe { event.element.qp };
    // SAFETY: the queue pair is not destroyed before the event is acknowledged.
    unsafe { (*qp).qp_num }
}

/// # Safety
/// An event of a shared receive queue that is not yet acknowledged.
unsafe fn shared_receive_of(event: &sys::ibv_async_event) -> u64 {
    // SAFETY: the caller's promise: this member is set.
    let srq = unsafe { event.element.srq };
    // SAFETY: the queue is not destroyed before the event is acknowledged. Its context is a number.
    let token = unsafe { (*srq).srq_context };
    u64::try_from(token.addr()).unwrap_or(0)
}

/// # Safety
/// An event of a completion queue that is not yet acknowledged.
unsafe fn completion_queue_of(event: &sys::ibv_async_event) -> u64 {
    // SAFETY: the caller's promise: this member is set.
    let cq = unsafe { event.element.cq };
    // SAFETY: the queue is not destroyed before the event is acknowledged.
    let cookie = unsafe { (*cq).cq_context };
    // SAFETY: all completion queues of ours are made with a cookie, which outlives them.
    unsafe { Cookie::token(cookie) }
}
