//! Shared receive queues: ibv_create_srq(3), ibv_modify_srq(3).

use std::collections::VecDeque;

use crate::abi::consts;
use crate::abi::work::Sge;
use crate::events::Element;
use crate::world::World;

/// A posted receive.
#[derive(Clone, Debug)]
pub(crate) struct RecvWqe {
    /// Comes back in the completion.
    pub(crate) wr_id: u64,
    /// Where the message goes.
    pub(crate) sges: Vec<Sge>,
}

/// A shared receive queue.
pub(crate) struct Srq {
    /// Number of its device.
    pub(crate) device: usize,
    /// Handle of its context.
    pub(crate) context: u32,
    /// Handle of its protection domain.
    pub(crate) pd: u32,
    /// Address of its structure.
    pub(crate) pointer: usize,
    /// Requests that may be outstanding.
    pub(crate) max_wr: u32,
    /// Elements of one.
    pub(crate) max_sge: u32,
    /// The armed limit; 0 if it is not.
    pub(crate) limit: u32,
    /// Posted receives.
    pub(crate) queue: VecDeque<RecvWqe>,
    /// Posted and not yet polled as a completion.
    pub(crate) outstanding: u32,
    /// Whether it is in error.
    pub(crate) failed: bool,
    /// Queue pairs that use it.
    pub(crate) users: u32,
    /// Events fetched and not acknowledged.
    pub(crate) async_unacked: u32,
}

impl World {
    /// Takes the next receive of a shared queue and fires the limit event when "the number of WRs
    /// in the SRQ drops below srq_limit"; then the limit is disarmed (ibv_modify_srq(3)).
    pub(crate) fn take_shared(&mut self, handle: u32) -> Option<RecvWqe> {
        let srq = self.srqs.get_mut(handle)?;
        if srq.failed {
            return None;
        }
        let taken = srq.queue.pop_front()?;
        self.check_limit(handle);
        Some(taken)
    }

    /// Fires the limit event if the queue is below it.
    pub(crate) fn check_limit(&mut self, handle: u32) {
        let Some(srq) = self.srqs.get_mut(handle) else { return };
        let posted = u32::try_from(srq.queue.len()).unwrap_or(u32::MAX);
        if posted < srq.limit {
            srq.limit = 0;
            let context = srq.context;
            let reached = consts::EVENT_SRQ_LIMIT_REACHED;
            self.object_event(context, reached, Element::Srq(handle));
        }
    }
}
