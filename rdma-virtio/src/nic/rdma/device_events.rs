//! What the device tells of itself: ports, queues that failed, addresses that changed.
//!
//! All of it is cold. Invariant: the sessions' queue pairs name the GID that the engine's path
//! names; when that is gone or another one is to be used, every session ends, and is made again.

use super::engine::Engine;
use super::talk::Talk;
use crate::verbs::events::{AsyncEvent, PortEvent, QueuePairEvent};
use crate::verbs::gid::{self, GidEntry};

/// Most asynchronous events taken at a time.
const EVENTS_MAX: usize = 64;

impl Engine {
    pub(super) fn take_async_events(&mut self) {
        for _ in 0..EVENTS_MAX {
            match self.objects.context.take_async_event() {
                Ok(Some(event)) => self.on_async_event(event),
                Ok(None) => return,
                Err(_) => {
                    self.fatal = Some("the device gives no events any more");
                    return;
                }
            }
        }
    }

    fn on_async_event(&mut self, event: AsyncEvent) {
        match event {
            AsyncEvent::Port(_, PortEvent::Active) => self.local.ports_up += 1,
            AsyncEvent::Port(_, PortEvent::Error) => self.local.ports_down += 1,
            AsyncEvent::Port(_, PortEvent::GidChange) => {
                self.local.gid_changes += 1;
                self.gid_doubted = true;
            }
            AsyncEvent::Port(_, PortEvent::Management) => self.local.other_events += 1,
            AsyncEvent::QueuePair(number, what) => {
                self.local.queue_pair_events += 1;
                let failed = matches!(what, QueuePairEvent::Fatal | QueuePairEvent::Request);
                match self.by_queue_pair(number) {
                    Some(peer) if failed => {
                        self.with_peers(|peers, o| peers.on_broken(peer, o));
                    }
                    None if failed && self.shared_pair().is_some_and(|p| p.number() == number) => {
                        self.shared_broken = true;
                    }
                    Some(_) | None => {}
                }
            }
            AsyncEvent::CompletionQueueError(_) => {
                self.fatal = Some("a completion queue failed or overran");
            }
            AsyncEvent::SharedReceiveError(_) => {
                self.fatal = Some("the shared receive queue failed");
            }
            AsyncEvent::DeviceFatal => self.fatal = Some("the device failed or was removed"),
            AsyncEvent::SharedReceiveLimit(_) | AsyncEvent::Other(_) => {
                self.local.other_events += 1;
            }
        }
    }

    /// The table of GIDs changed: the one in use may be gone, or have moved.
    pub(super) fn look_for_gid(&mut self) {
        let (Ok(table), Ok(here)) = (self.objects.context.gids(), gid::interface_addresses())
        else {
            return;
        };
        let own = (u32::from(self.path.template.source_index), self.path.own);
        let in_use =
            |entry: &GidEntry| entry.port == self.wish.port && (entry.index, entry.gid) == own;
        // A better one is no reason to leave one that is good.
        let good: Vec<GidEntry> = table.iter().copied().filter(in_use).collect();
        if gid::choose(&good, &here, &self.wish).is_ok() {
            self.gid_doubted = false;
            return;
        }
        match gid::choose(&table, &here, &self.wish) {
            Ok(entry) => self.move_to(&entry),
            // Looked for again with the next cold work; what still gets through does.
            Err(_) => self.local.gid_missing += 1,
        }
    }

    /// Uses another GID: the sessions over the old one end, and hosts are called from the new one.
    fn move_to(&mut self, entry: &GidEntry) {
        for peer in self.links.peers() {
            self.with_peers(|peers, outside| peers.on_broken(peer, outside));
        }
        if entry.gid != self.path.own {
            // What listens is bound to the old address.
            let Ok((talk, _)) = Talk::open(&self.meeting, entry.gid.ip(), &self.rare) else {
                self.local.gid_missing += 1;
                return;
            };
            self.talk = talk;
        }
        self.path.own = entry.gid;
        self.path.template.source_index = u8::try_from(entry.index).unwrap_or(u8::MAX);
        self.path.template.destination = entry.gid;
        self.local.gid_moves += 1;
        self.gid_doubted = false;
    }
}
