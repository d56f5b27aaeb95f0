//! Completion queues and channels: ibv_create_cq(3), ibv_poll_cq(3), ibv_req_notify_cq(3),
//! ibv_get_cq_event(3).
//!
//! A queue holds exactly what was asked for. One completion more is an overrun: "the async event
//! IBV_EVENT_CQ_ERR will be triggered, and the CQ cannot be used" (ibv_poll_cq(3)).

use std::collections::VecDeque;

use crate::abi::consts;
use crate::abi::work::Wc;
use crate::events::{self, Element};
use crate::world::World;

/// What a completion gives back when it is polled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Release {
    /// Room of a send queue up to this sequence number.
    Send {
        /// Handle of the queue pair.
        qp: u32,
        /// First sequence number that stays taken.
        upto: u64,
    },
    /// One place of a receive queue.
    Receive {
        /// Handle of the queue pair.
        qp: u32,
    },
    /// One place of a shared receive queue.
    Shared {
        /// Handle of the shared queue.
        srq: u32,
        /// Handle of the queue pair.
        qp: u32,
    },
}

impl Release {
    fn qp(self) -> u32 {
        match self {
            Release::Send { qp, .. } | Release::Receive { qp } | Release::Shared { qp, .. } => qp,
        }
    }
}

/// A completion in its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// What the program gets.
    pub(crate) wc: Wc,
    /// For `ibv_wc_read_flow_tag`.
    pub(crate) flow_tag: u32,
    /// What polling it gives back.
    pub(crate) release: Release,
    /// Whether it is a receive whose message had the solicited bit.
    pub(crate) solicited: bool,
}

/// What `ibv_req_notify_cq` asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Armed {
    /// Nothing.
    No,
    /// Any completion.
    Any,
    /// Solicited ones and errors.
    Solicited,
}

/// A completion queue.
pub(crate) struct Cq {
    /// Number of its device.
    pub(crate) device: usize,
    /// Handle of its context.
    pub(crate) context: u32,
    /// Address of its structure.
    pub(crate) pointer: usize,
    /// Completions it holds.
    pub(crate) capacity: usize,
    /// Oldest first.
    pub(crate) entries: VecDeque<Entry>,
    /// One-shot wish for an event.
    pub(crate) armed: Armed,
    /// Handle of its channel.
    pub(crate) channel: Option<u32>,
    /// Whether it overran or was made to fail.
    pub(crate) failed: bool,
    /// Queue pairs that use it, once for each direction.
    pub(crate) users: u32,
    /// Completion events fetched and not acknowledged.
    pub(crate) unacked: u32,
    /// Asynchronous events fetched and not acknowledged.
    pub(crate) async_unacked: u32,
}

/// A completion channel.
pub(crate) struct Channel {
    /// Address of its structure.
    pub(crate) pointer: usize,
    /// The descriptor, an eventfd that counts.
    pub(crate) fd: i32,
    /// Handles of queues with an event, in order.
    pub(crate) events: VecDeque<u32>,
    /// Completion queues that use it.
    pub(crate) users: u32,
}

impl World {
    /// Adds a completion to a queue, and the event that is asked for.
    pub(crate) fn complete(&mut self, cq: u32, entry: Entry) {
        let Some(queue) = self.cqs.get_mut(cq) else { return };
        if queue.failed {
            return;
        }
        if queue.entries.len() >= queue.capacity {
            self.fail_cq(cq);
            return;
        }
        let failed = entry.wc.status != consts::WC_SUCCESS;
        queue.entries.push_back(entry);
        let wanted = match queue.armed {
            Armed::No => false,
            Armed::Any => true,
            // ibv_req_notify_cq(3): "if the status is not successful" it is solicited too.
            Armed::Solicited => entry.solicited || failed,
        };
        if wanted {
            queue.armed = Armed::No;
            if let Some(channel) = queue.channel {
                self.completion_event(channel, cq);
            }
        }
    }

    fn completion_event(&mut self, channel: u32, cq: u32) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.events.push_back(cq);
            self.counters.completion_events += 1;
            events::signal(channel.fd);
        }
    }

    /// Puts a queue into error, and with it every queue pair that uses it.
    pub(crate) fn fail_cq(&mut self, handle: u32) {
        let Some(queue) = self.cqs.get_mut(handle) else { return };
        if queue.failed {
            return;
        }
        queue.failed = true;
        let context = queue.context;
        self.object_event(context, consts::EVENT_CQ_ERR, Element::Cq(handle));
        for qp in self.qps.handles(|qp| qp.send_cq == handle || qp.recv_cq == handle) {
            self.fatal_qp(qp);
        }
    }

    /// Takes the oldest completion and gives back what it held.
    ///
    /// # Errors
    /// If the queue is in error.
    pub(crate) fn poll(&mut self, handle: u32) -> Result<Option<Entry>, ()> {
        let queue = self.cqs.get_mut(handle).ok_or(())?;
        if queue.failed {
            return Err(());
        }
        let Some(entry) = queue.entries.pop_front() else { return Ok(None) };
        self.counters.completions += 1;
        if entry.wc.status != consts::WC_SUCCESS {
            self.counters.completions_error += 1;
        }
        match entry.release {
            Release::Send { qp, upto } => {
                self.counters.completions_send += 1;
                if let Some(qp) = self.qps.get_mut(qp) {
                    qp.send_freed = qp.send_freed.max(upto);
                }
            }
            Release::Receive { qp } => {
                if let Some(qp) = self.qps.get_mut(qp) {
                    qp.recv_outstanding = qp.recv_outstanding.saturating_sub(1);
                }
            }
            Release::Shared { srq, .. } => {
                if let Some(srq) = self.srqs.get_mut(srq) {
                    srq.outstanding = srq.outstanding.saturating_sub(1);
                }
            }
        }
        Ok(Some(entry))
    }

    /// Removes the completions of a queue pair that is reset or destroyed.
    pub(crate) fn purge(&mut self, qp: u32) {
        for cq in self.cqs.handles(|_| true) {
            let Some(queue) = self.cqs.get_mut(cq) else { continue };
            let mut shared = Vec::new();
            queue.entries.retain(|entry| {
                let own = entry.release.qp() == qp;
                if let (true, Release::Shared { srq, .. }) = (own, entry.release) {
                    shared.push(srq);
                }
                !own
            });
            for srq in shared {
                if let Some(srq) = self.srqs.get_mut(srq) {
                    srq.outstanding = srq.outstanding.saturating_sub(1);
                }
            }
        }
    }

    /// Forgets the events of a queue that is destroyed and were not fetched.
    pub(crate) fn forget_completion_events(&mut self, cq: u32) {
        let channel = self.cqs.get(cq).and_then(|queue| queue.channel);
        let Some(channel) = channel.and_then(|channel| self.channels.get_mut(channel)) else {
            return;
        };
        let before = channel.events.len();
        channel.events.retain(|event| *event != cq);
        for _ in channel.events.len()..before {
            if events::is_signalled(channel.fd) {
                events::take(channel.fd);
            }
        }
    }
}
