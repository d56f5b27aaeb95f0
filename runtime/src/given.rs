//! Sends of tasks that are under way, by the cookie that the host gave them, and tasks that wait
//! for a free buffer. Never wakes anybody itself: what is due is handed to the caller.

use std::collections::HashMap;
use std::task::{Poll, Waker};

use roceway_rdma_virtio::memory::leases::SendOutcome;

/// A send.
enum Send {
    /// Under way, and who waits for it.
    UnderWay(Option<Waker>),
    /// Over, and nobody has asked yet.
    Ended(SendOutcome),
}

/// The table.
#[derive(Default)]
pub(crate) struct Given {
    next: u64,
    sends: HashMap<u64, Send>,
    /// Tasks that found no free buffer.
    starved: Vec<Waker>,
}

impl Given {
    /// A cookie that names no send.
    pub(crate) fn cookie(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// The send of this cookie is under way.
    pub(crate) fn begin(&mut self, cookie: u64) {
        self.sends.insert(cookie, Send::UnderWay(None));
    }

    /// A send has ended.
    pub(crate) fn end(&mut self, cookie: u64, outcome: SendOutcome, wake: &mut Vec<Waker>) {
        if let Some(send) = self.sends.get_mut(&cookie)
            && let Send::UnderWay(Some(waker)) = std::mem::replace(send, Send::Ended(outcome))
        {
            wake.push(waker);
        }
        wake.append(&mut self.starved);
    }

    /// How a send ended; if it has not, the task waits.
    pub(crate) fn poll(&mut self, cookie: u64, waker: &Waker) -> Poll<SendOutcome> {
        match self.sends.get_mut(&cookie) {
            Some(Send::UnderWay(waiting)) => {
                *waiting = Some(waker.clone());
                Poll::Pending
            }
            Some(Send::Ended(outcome)) => Poll::Ready(*outcome),
            None => Poll::Ready(SendOutcome::Dropped),
        }
    }

    /// Nobody asks for this send any more.
    pub(crate) fn forget(&mut self, cookie: u64) {
        self.sends.remove(&cookie);
    }

    /// A task waits for a free buffer.
    pub(crate) fn starve(&mut self, waker: &Waker) {
        self.starved.push(waker.clone());
    }

    /// Whether a task does.
    pub(crate) fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Those that wait for a free buffer.
    pub(crate) fn take_starved(&mut self, wake: &mut Vec<Waker>) {
        wake.append(&mut self.starved);
    }

    /// The worker ends: so do all sends.
    pub(crate) fn stop(&mut self, wake: &mut Vec<Waker>) {
        for send in self.sends.values_mut() {
            if let Send::UnderWay(waker) =
                std::mem::replace(send, Send::Ended(SendOutcome::Dropped))
            {
                wake.extend(waker);
            }
        }
        wake.append(&mut self.starved);
    }
}
