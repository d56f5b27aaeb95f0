//! What happens to port, queue pair and device, and how a link that failed is replaced.
//!
//! Invariant: while there is no link nothing is with the device, and every receive and send that
//! was is handed back.

use super::RawNic;
use super::link::Link;
use crate::nic::{DeviceError, NicEvent};
use crate::verbs::events::{AsyncEvent, PortEvent};

/// Asynchronous events taken in one look.
const EVENTS_MAX: u32 = 64;
/// Pauses between attempts to make a link.
const PAUSE_NS_MIN: u64 = 1_000_000;
const PAUSE_NS_MAX: u64 = 1_000_000_000;

impl RawNic {
    /// Takes the asynchronous events that came.
    pub(super) fn take_async_events(&mut self) {
        for _ in 0..EVENTS_MAX {
            match self.base.context.take_async_event() {
                Ok(Some(event)) => self.on_async_event(event),
                Ok(None) => return,
                Err(_) => {
                    self.fatal = Some("ibv_get_async_event: the device was removed");
                    return;
                }
            }
        }
    }

    fn on_async_event(&mut self, event: AsyncEvent) {
        match event {
            AsyncEvent::Port(port, _) if port != self.plan.port => self.counters.other_events += 1,
            AsyncEvent::Port(_, PortEvent::Active) => {
                self.counters.ports_up += 1;
                self.set_port(true);
            }
            AsyncEvent::Port(_, PortEvent::Error) => {
                self.counters.ports_down += 1;
                self.set_port(false);
            }
            // Frames bear no GID: only the kernel's addresses have changed.
            AsyncEvent::Port(_, PortEvent::GidChange) => self.counters.gid_changes += 1,
            AsyncEvent::QueuePair(number, what) => {
                self.counters.queue_pair_events += 1;
                let ours = self.link.as_ref().is_some_and(|link| link.number() == number);
                self.sends.failed |= ours && what.is_an_end();
            }
            AsyncEvent::CompletionQueueError(_) => {
                self.counters.completion_queue_events += 1;
                self.sends.failed = true;
            }
            AsyncEvent::DeviceFatal => self.fatal = Some("the device has failed or was removed"),
            AsyncEvent::Port(_, PortEvent::Management)
            | AsyncEvent::SharedReceiveLimit(_)
            | AsyncEvent::SharedReceiveError(_)
            | AsyncEvent::Other(_) => self.counters.other_events += 1,
        }
    }

    fn set_port(&mut self, up: bool) {
        if std::mem::replace(&mut self.port_up, up) != up {
            self.events.push_back(if up { NicEvent::LinkUp } else { NicEvent::LinkDown });
            self.sends.set_port(up);
        }
    }

    /// Replaces a link that has failed.
    pub(super) fn mend(&mut self, now_ns: u64) {
        if self.fatal.is_some() {
            self.drop_link();
            return;
        }
        if let Some(link) = self.link.as_ref().filter(|_| self.sends.outstanding() > 0) {
            // Of small frames nobody else asks how they ended.
            self.sends.poll(link);
        }
        if self.sends.failed || self.arrivals.get_mut().failed {
            // Of queues that are gone nothing is told any more.
            self.take_async_events();
            self.drop_link();
            (self.again_ns, self.pause_ns) = (now_ns, PAUSE_NS_MIN);
        }
        if self.link.is_some() || now_ns < self.again_ns {
            return;
        }
        match self.make_link() {
            Ok(link) => {
                self.link = Some(link);
                self.counters.links_renewed += 1;
                if std::mem::take(&mut self.told_down) {
                    self.events.push_back(NicEvent::LinkUp);
                }
            }
            Err(_) => {
                self.counters.renewals_failed += 1;
                self.again_ns = now_ns.saturating_add(self.pause_ns);
                self.pause_ns = (self.pause_ns * 2).min(PAUSE_NS_MAX);
                if !std::mem::replace(&mut self.told_down, true) {
                    self.events.push_back(NicEvent::LinkDown);
                }
            }
        }
    }

    fn make_link(&mut self) -> Result<Link, DeviceError> {
        let mut link = Link::new(&self.base, &self.plan)?;
        link.steer(&mut self.steering)?;
        Ok(link)
    }

    fn drop_link(&mut self) {
        if self.link.take().is_some() {
            self.sends.take_back();
            self.arrivals.get_mut().take_back();
        }
    }

    pub(super) fn visit_all(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let (sends, events) = (&self.sends.counters, &self.counters);
        let arrivals = self.arrivals.borrow();
        let receives = &arrivals.counters;
        let rules = self.link.as_ref().map_or(0, Link::rules);
        let rows = [
            ("raw_rx_frames", receives.frames),
            ("raw_rx_bytes", receives.bytes),
            ("raw_rx_delivered", receives.delivered()),
            ("raw_rx_checksums_verified", receives.verified()),
            ("raw_rx_drop_not_ours", receives.dropped_not_ours),
            ("raw_rx_drop_vlan", receives.dropped_vlan),
            ("raw_rx_failed", receives.failed),
            ("raw_rx_flushed", receives.flushed),
            ("raw_rx_unknown_completions", receives.unknown),
            ("raw_rx_lists", receives.lists),
            ("raw_rx_posted", u64::from(arrivals.outstanding())),
            ("raw_rx_posts_failed", receives.posts_failed),
            ("raw_polls_failed", receives.polls_failed),
            ("raw_tx_frames", sends.frames()),
            ("raw_tx_bytes", sends.bytes),
            ("raw_tx_inline", sends.inline()),
            ("raw_tx_segmented", sends.segmented),
            ("raw_tx_checksummed", sends.checksummed),
            ("raw_tx_doorbells", sends.doorbells),
            ("rdma_turns_that_sent", sends.turns()),
            ("raw_tx_signalled_completions", sends.signals),
            ("raw_tx_completed", sends.completed),
            ("raw_tx_flushed", sends.flushed),
            ("raw_tx_failed", sends.failed),
            ("raw_tx_outstanding", u64::from(self.sends.outstanding())),
            ("raw_tx_full", sends.full),
            ("raw_tx_refused", sends.refused),
            ("raw_tx_link_down", sends.link_down),
            ("raw_tx_posts_failed", sends.posts_failed),
            ("raw_rules", u64::try_from(rules).unwrap_or(0)),
            ("raw_links_renewed", events.links_renewed),
            ("raw_renewals_failed", events.renewals_failed),
            ("rdma_events", events.wake_ups),
            ("rdma_port_down", events.ports_down),
            ("rdma_port_up", events.ports_up),
            ("rdma_gid_changes", events.gid_changes),
            ("rdma_queue_pair_events", events.queue_pair_events),
            ("rdma_completion_queue_events", events.completion_queue_events),
            ("rdma_other_events", events.other_events),
            ("rdma_registered_bytes", events.registered_bytes),
        ];
        for (name, value) in rows {
            visit(name, value);
        }
    }
}
