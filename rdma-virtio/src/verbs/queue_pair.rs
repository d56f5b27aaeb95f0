//! Queue pairs, with their state in their type.
//!
//! Owns the queue pair, which keeps its queues, its domain and the device alive. A transition
//! consumes the queue pair and returns it in its new state, so that what is not allowed in a state
//! does not compile. The device may move a queue pair to the error state by itself: completions and
//! asynchronous events say so, the type does not; posting is then flushed or refused.

use super::completion::{CompletionQueue, QueueInner};
use super::context::ContextInner;
use super::domain::DomainInner;
use super::flow::{Flow, FlowRule};
use super::gid::Gid;
use super::receive_slots::ReceiveSlots;
use super::shared_receive::{SharedInner, SharedReceiveQueue};
use super::sys::{self, Zero};
use super::transition::{InitAttributes, ReceiveAttributes, SendAttributes};
use super::work_list::{PostFailure, ReceiveList, SendList};
use crate::nic::DeviceError;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// What a queue pair transports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueuePairKind {
    /// Reliable connected messages.
    Rc,
    /// Unreliable datagrams.
    Ud,
    /// Ethernet frames.
    RawPacket,
}

impl QueuePairKind {
    fn to_enum(self) -> sys::ibv_qp_type {
        match self {
            QueuePairKind::Rc => sys::IBV_QPT_RC,
            QueuePairKind::Ud => sys::IBV_QPT_UD,
            QueuePairKind::RawPacket => sys::IBV_QPT_RAW_PACKET,
        }
    }
}

/// Sizes of the queues (`ibv_qp_cap`): asked for, and what was given, which is at least that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSizes {
    /// Sends outstanding.
    pub max_send_wr: u32,
    /// Receives posted; without meaning with a shared receive queue.
    pub max_recv_wr: u32,
    /// Elements of a send.
    pub max_send_sge: u32,
    /// Elements of a receive.
    pub max_recv_sge: u32,
    /// Bytes of an inline send.
    pub max_inline: u32,
}

/// What a queue pair is to be.
#[derive(Clone, Copy)]
pub struct QueuePairOptions<'a> {
    /// What it transports.
    pub kind: QueuePairKind,
    /// Where sends complete.
    pub send_queue: &'a CompletionQueue,
    /// Where receives complete; may be the same.
    pub recv_queue: &'a CompletionQueue,
    /// Where it takes its receives from, if it does not have its own.
    pub shared_receive: Option<&'a SharedReceiveQueue>,
    /// Sizes, at least.
    pub sizes: QueueSizes,
    /// Longest header of a send with segmentation; 0 if there will be none.
    pub max_tso_header: u16,
}

/// How sends are to be posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SendCalls {
    /// As lists.
    Lists,
    /// As lists, or built in the queue.
    Extended,
}

mod sealed {
    pub trait Sealed {}
}

/// A state of a queue pair.
pub trait State: sealed::Sealed {}
/// A state in which receives may be posted.
pub trait Receives: State {}

macro_rules! states {
    ($($(#[$doc:meta])* $state:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $state;
        impl sealed::Sealed for $state {}
        impl State for $state {}
    )*};
}

states! {
    /// Made, nothing set.
    Reset,
    /// Receives may be posted; none is filled.
    Init,
    /// Ready to receive.
    Rtr,
    /// Ready to send, too.
    Rts,
    /// Everything posted is flushed.
    Error,
}

impl Receives for Init {}
impl Receives for Rtr {}
impl Receives for Rts {}

pub(super) struct PairInner {
    domain: Arc<DomainInner>,
    pair: NonNull<sys::ibv_qp>,
    kind: QueuePairKind,
    sizes: QueueSizes,
    /// The same queue pair for extended calls, if it was made for them.
    extended: Option<NonNull<sys::ibv_qp_ex>>,
    /// Held so that they are destroyed later.
    _queues: (Arc<QueueInner>, Arc<QueueInner>, Option<Arc<SharedInner>>),
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for PairInner {}
// SAFETY: as above.
unsafe impl Sync for PairInner {}

impl Drop for PairInner {
    fn drop(&mut self) {
        let destroy = self.context().table().ibv_destroy_qp;
        // SAFETY: made once, destroyed here, after the rules that hold it.
        let _destroyed = unsafe { destroy(self.pair.as_ptr()) };
    }
}

impl PairInner {
    pub(super) fn context(&self) -> &Arc<ContextInner> {
        self.domain.context()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ibv_qp {
        self.pair.as_ptr()
    }

    pub(super) fn extended(&self) -> Option<NonNull<sys::ibv_qp_ex>> {
        self.extended
    }

    pub(super) fn modify(
        &self,
        attr: &mut sys::ibv_qp_attr,
        mask: sys::ibv_qp_attr_mask,
    ) -> Result<(), DeviceError> {
        let mask = i32::try_from(mask).unwrap_or(0);
        let modify = self.context().table().ibv_modify_qp;
        // SAFETY: the queue pair lives.
        let result = unsafe { modify(self.as_ptr(), attr, mask) };
        self.context().check("ibv_modify_qp", result)
    }
}

/// A queue pair in state `S`.
pub struct QueuePair<S: State> {
    pub(super) inner: Arc<PairInner>,
    poster: Poster,
    state: PhantomData<S>,
}

/// A queue pair's address and the operation that posts its sends, which a provider sets when the
/// context is made.
#[derive(Clone, Copy)]
struct Poster {
    pair: NonNull<sys::ibv_qp>,
    post_send: sys::PostSend,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Poster {}
// SAFETY: as above.
unsafe impl Sync for Poster {}

impl QueuePair<Reset> {
    pub(super) fn new(
        domain: &Arc<DomainInner>,
        options: &QueuePairOptions<'_>,
        calls: SendCalls,
    ) -> Result<QueuePair<Reset>, DeviceError> {
        let context = domain.context();
        let shared = options.shared_receive.map(|shared| Arc::clone(&shared.inner));
        let mut attr = sys::ibv_qp_init_attr_ex::zero();
        attr.send_cq = options.send_queue.as_ptr();
        attr.recv_cq = options.recv_queue.as_ptr();
        attr.srq = shared.as_ref().map_or(ptr::null_mut(), |shared| shared.as_ptr());
        attr.cap = sys::ibv_qp_cap {
            max_send_wr: options.sizes.max_send_wr,
            max_recv_wr: options.sizes.max_recv_wr,
            max_send_sge: options.sizes.max_send_sge,
            max_recv_sge: options.sizes.max_recv_sge,
            max_inline_data: options.sizes.max_inline,
        };
        attr.qp_type = options.kind.to_enum();
        attr.comp_mask = sys::IBV_QP_INIT_ATTR_PD;
        attr.pd = domain.as_ptr();
        if options.max_tso_header > 0 {
            attr.comp_mask |= sys::IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
            attr.max_tso_header = options.max_tso_header;
        }
        if calls == SendCalls::Extended {
            attr.comp_mask |= sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
            let segments = options.max_tso_header > 0;
            let tso = if segments { sys::IBV_QP_EX_WITH_TSO } else { 0 };
            attr.send_ops_flags = u64::from(sys::IBV_QP_EX_WITH_SEND | tso);
        }
        let legacy = context.table().ibv_create_qp;
        // SAFETY: domain and queues live, and the queue pair holds them.
        let pointer = unsafe { sys::ibv_create_qp_ex(context.as_ptr(), &mut attr, legacy) };
        let pair = context.object("ibv_create_qp", pointer)?;
        let sizes = QueueSizes {
            max_send_wr: attr.cap.max_send_wr,
            max_recv_wr: attr.cap.max_recv_wr,
            max_send_sge: attr.cap.max_send_sge,
            max_recv_sge: attr.cap.max_recv_sge,
            max_inline: attr.cap.max_inline_data,
        };
        let (send, recv) = (options.send_queue.inner(), options.recv_queue.inner());
        let _queues = (Arc::clone(send), Arc::clone(recv), shared);
        let extended = match (calls, context.table().ibv_qp_to_qp_ex) {
            // SAFETY: a queue pair that was made just now.
            (SendCalls::Extended, Some(extend)) => NonNull::new(unsafe { extend(pair.as_ptr()) }),
            _ => None,
        };
        let (domain, kind) = (Arc::clone(domain), options.kind);
        let inner = PairInner { domain, pair, kind, sizes, extended, _queues };
        if calls == SendCalls::Extended && inner.extended.is_none() {
            return Err(inner.context().failure("ibv_qp_to_qp_ex", libc::EOPNOTSUPP));
        }
        // SAFETY: the queue pair lives.
        let post_send = unsafe { sys::post_send_of(pair.as_ptr()) };
        let poster = Poster { pair, post_send };
        Ok(QueuePair { inner: Arc::new(inner), poster, state: PhantomData })
    }

    /// To the state in which receives may be posted.
    ///
    /// # Errors
    /// If the device refuses the attributes; the queue pair is destroyed then.
    pub fn init(self, attributes: &InitAttributes) -> Result<QueuePair<Init>, DeviceError> {
        let (mut attr, mask) = attributes.to_verbs(self.inner.kind);
        self.to(&mut attr, mask)
    }
}

impl QueuePair<Init> {
    /// To the state in which it receives.
    ///
    /// # Errors
    /// If the device refuses the attributes or does not find the way; the queue pair is destroyed
    /// then.
    pub fn rtr(self, attributes: &ReceiveAttributes) -> Result<QueuePair<Rtr>, DeviceError> {
        let (mut attr, mask) = attributes.to_verbs();
        self.to(&mut attr, mask)
    }
}

impl QueuePair<Rtr> {
    /// To the state in which it sends, too.
    ///
    /// # Errors
    /// If the device refuses the attributes; the queue pair is destroyed then.
    pub fn rts(self, attributes: &SendAttributes) -> Result<QueuePair<Rts>, DeviceError> {
        let (mut attr, mask) = attributes.to_verbs();
        self.to(&mut attr, mask)
    }
}

impl<S: Receives> QueuePair<S> {
    /// Posts receives in order; not for a queue pair with a shared receive queue.
    ///
    /// # Errors
    /// If one was not taken: those from it on stay in the list.
    #[inline]
    pub fn post_recv(&self, list: &mut ReceiveList) -> Result<(), PostFailure> {
        let pair = self.inner.as_ptr();
        // SAFETY: the queue pair lives; the chain ends, and what it points at is the list's.
        list.post(|head, bad| unsafe { sys::ibv_post_recv(pair, head, bad) })
    }

    /// The same with receives that keep their elements; says how many were posted.
    ///
    /// # Errors
    /// If one was not taken: those from it on stay staged.
    #[inline]
    pub fn post_slots(&self, slots: &mut ReceiveSlots) -> Result<usize, PostFailure> {
        slots.post(self.inner.pair)
    }
}

impl QueuePair<Rts> {
    /// Posts sends in order, with one doorbell.
    ///
    /// # Errors
    /// If one was not taken: those from it on stay in the list.
    #[inline(always)]
    pub fn post_send(&self, list: &mut SendList) -> Result<(), PostFailure> {
        let Poster { pair, post_send } = self.poster;
        // SAFETY: the queue pair lives, and the operation is its own; the chain ends, and what it
        // points at is the list's.
        list.post(|head, bad| unsafe { post_send(pair.as_ptr(), head, bad) })
    }
}

impl<S: State> QueuePair<S> {
    /// The state that `attr` asks for, which is `T`.
    pub(super) fn to<T: State>(
        self,
        attr: &mut sys::ibv_qp_attr,
        mask: sys::ibv_qp_attr_mask,
    ) -> Result<QueuePair<T>, DeviceError> {
        self.inner.modify(attr, mask)?;
        Ok(QueuePair { inner: self.inner, poster: self.poster, state: PhantomData })
    }

    /// To the error state: everything posted completes as flushed, which is how a queue is drained.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn error(self) -> Result<QueuePair<Error>, DeviceError> {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_ERR;
        self.to(&mut attr, sys::IBV_QP_STATE)
    }

    /// As [`QueuePair::error`], for a queue pair that is about to be destroyed and keeps its type.
    ///
    /// # Errors
    /// If the device is gone.
    pub(crate) fn fail(&self) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_ERR;
        self.inner.modify(&mut attr, sys::IBV_QP_STATE)
    }

    /// The name of its device.
    #[must_use]
    pub fn device(&self) -> &str {
        self.inner.context().name()
    }

    /// Back to the beginning; what was posted is forgotten, without completions.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn reset(self) -> Result<QueuePair<Reset>, DeviceError> {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_RESET;
        self.to(&mut attr, sys::IBV_QP_STATE)
    }

    /// Its number, 24 bits, by which peers and completions name it.
    #[must_use]
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair lives; the member is constant.
        unsafe { (*self.inner.as_ptr()).qp_num }
    }

    /// What it transports.
    #[must_use]
    pub fn kind(&self) -> QueuePairKind {
        self.inner.kind
    }

    /// The sizes that it was given.
    #[must_use]
    pub fn sizes(&self) -> QueueSizes {
        self.inner.sizes
    }

    /// Whether the device has moved it to the error state (`ibv_query_qp`, a system call).
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn is_in_error(&self) -> Result<bool, DeviceError> {
        let mut attr = sys::ibv_qp_attr::zero();
        let mut init = sys::ibv_qp_init_attr::zero();
        let mask = i32::try_from(sys::IBV_QP_STATE).unwrap_or(0);
        let query = self.inner.context().table().ibv_query_qp;
        // SAFETY: the queue pair lives; places for both answers.
        let result = unsafe { query(self.inner.as_ptr(), &mut attr, mask, &mut init) };
        self.inner.context().check("ibv_query_qp", result)?;
        Ok(matches!(attr.qp_state, sys::IBV_QPS_ERR | sys::IBV_QPS_SQE))
    }

    /// Steers frames or datagrams that the rule describes here while the result lives.
    ///
    /// # Errors
    /// If the device has no such rules, or the process may not.
    pub fn flow(&self, rule: &FlowRule) -> Result<Flow, DeviceError> {
        Flow::new(&self.inner, rule)
    }

    /// Joins a multicast group: its datagrams are received from now on, until the queue pair leaves
    /// the group or is destroyed.
    ///
    /// # Errors
    /// If the device has no room for it.
    pub fn attach_multicast(&self, group: &Gid, lid: u16) -> Result<(), DeviceError> {
        let group = sys::ibv_gid { raw: group.0 };
        let attach = self.inner.context().table().ibv_attach_mcast;
        // SAFETY: the queue pair lives.
        let result = unsafe { attach(self.inner.as_ptr(), &group, lid) };
        self.inner.context().check("ibv_attach_mcast", result)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// If it is not in it.
    pub fn detach_multicast(&self, group: &Gid, lid: u16) -> Result<(), DeviceError> {
        let group = sys::ibv_gid { raw: group.0 };
        let detach = self.inner.context().table().ibv_detach_mcast;
        // SAFETY: the queue pair lives.
        let result = unsafe { detach(self.inner.as_ptr(), &group, lid) };
        self.inner.context().check("ibv_detach_mcast", result)
    }
}
