//! A queue pair of Ethernet frames with its completion queues and flow rules: everything that is
//! made again when one of them has failed.
//!
//! Invariant: rules go first, then the queue pair, then its queues; what was posted is the
//! device's until the link is closed.

use super::steering::Steering;
use crate::nic::DeviceError;
use crate::verbs::completion::{CompletionChannel, CompletionQueue, CompletionQueueOptions};
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::extended::BatchedPair;
use crate::verbs::flow::Flow;
use crate::verbs::queue_pair::{QueuePairKind, QueuePairOptions, QueueSizes};
use crate::verbs::transition::{InitAttributes, ReceiveAttributes, SendAttributes};
use crate::verbs::work_completion::WorkCompletion;

/// Polls of each queue until what was flushed is given up for.
const DRAIN_POLLS_MAX: u32 = 1000;

/// What links are made of, dropped from the top down.
pub(super) struct Base {
    pub(super) channel: CompletionChannel,
    pub(super) domain: ProtectionDomain,
    pub(super) context: Context,
}

/// How a link is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkPlan {
    pub(super) port: u8,
    pub(super) sizes: QueueSizes,
    /// Longest header of a send with segmentation; 0 if there are none.
    pub(super) tso_header: u16,
    /// Most completions that a queue of the device holds.
    pub(super) entries_max: u32,
}

/// A link. Dropping it ends it: no more frames, the queue pair into the error state, and its queues
/// drained, after which the device touches nothing of what was posted.
pub(super) struct Link {
    flows: Vec<Flow>,
    pub(super) pair: BatchedPair,
    pub(super) send_queue: CompletionQueue,
    pub(super) recv_queue: CompletionQueue,
}

impl Link {
    /// Makes a queue pair that sends and receives, and has no rules yet.
    pub(super) fn new(base: &Base, plan: &LinkPlan) -> Result<Link, DeviceError> {
        let queue = |entries: u32| {
            base.context.completion_queue(&CompletionQueueOptions {
                entries: entries.min(plan.entries_max),
                channel: Some(&base.channel),
                vector: 0,
                token: 0,
            })
        };
        let send_queue = queue(plan.sizes.max_send_wr)?;
        let recv_queue = queue(plan.sizes.max_recv_wr)?;
        let pair = base.domain.extended_queue_pair(&QueuePairOptions {
            kind: QueuePairKind::RawPacket,
            send_queue: &send_queue,
            recv_queue: &recv_queue,
            shared_receive: None,
            sizes: plan.sizes,
            max_tso_header: plan.tso_header,
        })?;
        let pair = pair
            .init(&InitAttributes { port: plan.port, pkey_index: 0, qkey: 0 })?
            .rtr(&ReceiveAttributes::Unconnected)?
            .rts(&SendAttributes::RawPacket)?;
        let pair = pair.batched().ok_or_else(|| DeviceError {
            device: base.context.device().name().to_owned(),
            call: "ibv_qp_to_qp_ex",
            source: std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            remedy: "its provider has no extended sends: install a newer rdma-core".to_owned(),
        })?;
        Ok(Link { flows: Vec::new(), pair, send_queue, recv_queue })
    }

    /// Begins to receive what the rules describe.
    pub(super) fn steer(&mut self, steering: &mut Steering) -> Result<(), DeviceError> {
        steering.install(self.pair.pair(), &mut self.flows)
    }

    /// Receives one more group.
    pub(super) fn join(
        &mut self,
        steering: &mut Steering,
        group: [u8; 6],
    ) -> Result<(), DeviceError> {
        steering.join(self.pair.pair(), &mut self.flows, group)
    }

    /// The number of its queue pair.
    pub(super) fn number(&self) -> u32 {
        self.pair.pair().number()
    }

    /// Rules in the device.
    pub(super) fn rules(&self) -> usize {
        self.flows.len()
    }

    fn drain(queue: &CompletionQueue) {
        let mut completions = [WorkCompletion::default(); 16];
        let mut empty = 0;
        for _ in 0..DRAIN_POLLS_MAX {
            match queue.poll(&mut completions) {
                Ok(0) if empty > 2 => break,
                Ok(0) => empty += 1,
                Ok(_) => empty = 0,
                Err(_) => break,
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.flows.clear();
        self.pair.abort();
        // A device that is gone refuses; destroying follows in any case.
        let _refused = self.pair.pair().fail();
        Link::drain(&self.send_queue);
        Link::drain(&self.recv_queue);
    }
}
