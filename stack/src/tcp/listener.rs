//! Listeners: LISTEN as a thing of its own, with limits on half-open and on accepted connections.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::connection::{Connection, Watch};
use super::error::ListenError;
use crate::ip::Marking;
use crate::slab::{Id, Slab};

/// A listener.
pub struct Listener {
    pub(super) local: SocketAddr,
    /// Most connections that are half-open or wait to be accepted.
    pub(super) backlog: u32,
    /// Connections in SYN-RECEIVED.
    pub(super) half_open: u32,
    pub(super) accepted: VecDeque<Id<Connection>>,
    pub(super) watch: Watch,
    /// Of the connections that it takes, from their SYN and ACK on.
    pub(super) marking: Marking,
}

impl Listener {
    /// Whether a further SYN is one too many.
    pub(super) fn is_full(&self) -> bool {
        let waiting = u32::try_from(self.accepted.len()).unwrap_or(u32::MAX);
        self.half_open.saturating_add(waiting) >= self.backlog
    }
}

/// All listeners, found by port and address.
pub(super) struct Listeners {
    slab: Slab<Listener>,
    by_port: BTreeMap<u16, Vec<Id<Listener>>>,
}

impl Listeners {
    /// No listener, at most `limit`.
    pub(super) fn new(limit: u32, worker: u8) -> Listeners {
        Listeners { slab: Slab::new(limit, worker), by_port: BTreeMap::new() }
    }

    /// Begins to listen. An unspecified address takes SYNs to every address of its family.
    pub(super) fn add(
        &mut self,
        local: SocketAddr,
        backlog: u32,
    ) -> Result<Id<Listener>, ListenError> {
        let taken = self.by_port.get(&local.port()).is_some_and(|ids| {
            ids.iter().filter_map(|&id| self.slab.get(id)).any(|other| {
                let (a, b) = (other.local.ip(), local.ip());
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            })
        });
        if taken {
            return Err(ListenError::AddressInUse);
        }
        let listener = Listener {
            local,
            backlog: backlog.max(1),
            half_open: 0,
            accepted: VecDeque::new(),
            watch: Watch::default(),
            marking: Marking::default(),
        };
        let id = self.slab.insert(listener).map_err(|_full| ListenError::TooMany)?;
        self.by_port.entry(local.port()).or_default().push(id);
        Ok(id)
    }

    /// The listener for a SYN to this address and port: an exact one before one for all addresses.
    pub(super) fn find(&self, address: IpAddr, port: u16) -> Option<Id<Listener>> {
        let ids = self.by_port.get(&port)?;
        let with = |wanted: &dyn Fn(IpAddr) -> bool| {
            ids.iter()
                .copied()
                .find(|&id| self.slab.get(id).is_some_and(|listener| wanted(listener.local.ip())))
        };
        with(&|local| local == address).or_else(|| {
            with(&|local| local.is_unspecified() && local.is_ipv4() == address.is_ipv4())
        })
    }

    /// Whether anything listens on the port.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.by_port.contains_key(&port)
    }

    /// The listener.
    pub(super) fn get(&self, id: Id<Listener>) -> Option<&Listener> {
        self.slab.get(id)
    }

    /// The listener.
    pub(super) fn get_mut(&mut self, id: Id<Listener>) -> Option<&mut Listener> {
        self.slab.get_mut(id)
    }

    /// The listener at an index, with its id.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<(Id<Listener>, &mut Listener)> {
        let id = self.slab.id_at(index)?;
        self.slab.at_mut(index).map(|listener| (id, listener))
    }

    /// Stops listening; gives the listener back, so that its connections can be ended.
    pub(super) fn remove(&mut self, id: Id<Listener>) -> Option<Listener> {
        let port = self.slab.get(id)?.local.port();
        if let Some(ids) = self.by_port.get_mut(&port) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                let _none = self.by_port.remove(&port);
            }
        }
        self.slab.remove_at(id.index())
    }
}
