//! The exchange, by whichever way the other host is reached: the connection manager, or TCP of the
//! host's kernel.
//!
//! Owns both and the choice between them. With `exchange=auto` both are listened on, a host is
//! called through the connection manager first, and a call that came to nothing is followed by one
//! the other way; the way that worked is taken again. Invariant: a conversation belongs to one way.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::conversation::{Caller, Conversations, Heard, Watch};
use super::managed::{self, Managed};
use super::options::Exchange;
use super::wire::exchange::{Mode, Word};
use super::wire::give_up::Retry;
use super::wire::peer::ConnId;
use crate::nic::DeviceError;
use crate::verbs::connect::Service;

/// A way to another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Managed,
    Tcp,
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::Managed => Way::Tcp,
            Way::Tcp => Way::Managed,
        }
    }
}

/// All conversations.
pub(super) struct Talk {
    tcp: Option<Conversations>,
    managed: Option<Managed>,
    /// How a host is called next. One entry a host that is in the list.
    next: HashMap<SocketAddr, Way>,
    /// Calls under way. One a host.
    calls: Vec<(ConnId, SocketAddr, Way)>,
    /// Calls that were answered, and callers, by their way.
    counters: [u64; 4],
}

/// What every way of meeting needs to know.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    /// The device as the user named it, and as verbs do.
    pub(super) device: String,
    pub(super) verbs: String,
    pub(super) mode: Mode,
    pub(super) port: u16,
    pub(super) exchange: Exchange,
    pub(super) traffic_class: u8,
    pub(super) retry: Retry,
}

impl Meeting {
    fn tcp(&self, own: IpAddr, watch: &Watch) -> Result<Conversations, DeviceError> {
        Conversations::new(own, self.port, watch).map_err(|source| DeviceError {
            device: self.device.clone(),
            call: "listen for peers",
            source,
            remedy: format!("{own} port {}: give another port=, or port=0", self.port),
        })
    }

    fn managed(&self, own: IpAddr, watch: &Watch) -> Result<Managed, DeviceError> {
        let service = match self.mode {
            Mode::Rc => Service::Reliable,
            Mode::Ud => Service::Datagram,
        };
        let plan = managed::Plan {
            own,
            port: self.port,
            service,
            traffic_class: self.traffic_class,
            retry_count: self.retry.retry_cnt,
            rnr_retry: self.retry.rnr_retry,
        };
        Managed::new(plan, &self.verbs, watch)
    }
}

impl Talk {
    /// Listens as the user said, or as works, from an address of this host; and what that is, in
    /// words.
    pub(super) fn open(
        meeting: &Meeting,
        own: IpAddr,
        watch: &Watch,
    ) -> Result<(Talk, String), DeviceError> {
        let place = format!("{own} port {}", meeting.port);
        if meeting.exchange == Exchange::Tcp {
            let talk = Talk::new(Some(meeting.tcp(own, watch)?), None);
            return Ok((talk, format!("TCP, {place}")));
        }
        match (meeting.managed(own, watch), meeting.exchange) {
            (Ok(managed), Exchange::Managed) => {
                Ok((Talk::new(None, Some(managed)), format!("connection manager, {place}")))
            }
            (Err(mut error), Exchange::Managed) => {
                error.device = format!("{}: {}", meeting.device, error.device);
                let other = "exchange=tcp does without the connection manager";
                error.remedy = match error.remedy.as_str() {
                    "" => other.to_owned(),
                    remedy => format!("{remedy}; {other}"),
                };
                Err(error)
            }
            (Ok(managed), _) => {
                let talk = Talk::new(Some(meeting.tcp(own, watch)?), Some(managed));
                Ok((talk, format!("connection manager, then TCP, {place}")))
            }
            (Err(error), _) => {
                let talk = Talk::new(Some(meeting.tcp(own, watch)?), None);
                Ok((talk, format!("TCP, {place} (no connection manager: {error})")))
            }
        }
    }

    fn new(tcp: Option<Conversations>, managed: Option<Managed>) -> Talk {
        Talk { tcp, managed, next: HashMap::new(), calls: Vec::new(), counters: [0; 4] }
    }

    fn way(&self, to: SocketAddr) -> Way {
        match (&self.managed, &self.tcp) {
            (Some(_), Some(_)) => self.next.get(&to).copied().unwrap_or(Way::Managed),
            (Some(_), None) => Way::Managed,
            (None, _) => Way::Tcp,
        }
    }

    /// Begins a call; false if it failed at once.
    pub(super) fn dial(&mut self, id: ConnId, to: SocketAddr, watch: &Watch) -> bool {
        let way = self.way(to);
        // Until it is answered it counts as one that came to nothing.
        self.next.insert(to, way.other());
        self.calls.push((id, to, way));
        match (way, &mut self.managed, &mut self.tcp) {
            (Way::Managed, Some(managed), _) => managed.dial(id, to),
            (Way::Tcp, _, Some(tcp)) => tcp.dial(id, to, watch),
            _ => false,
        }
    }

    /// Takes a connection over that came in.
    pub(super) fn adopt(&mut self, id: ConnId, caller: Caller, watch: &Watch) {
        match (caller, &mut self.managed, &mut self.tcp) {
            (Caller::Tcp(stream), _, Some(tcp)) => {
                self.counters[2 + Way::Tcp as usize] += 1;
                tcp.adopt(id, stream, watch);
            }
            (Caller::Managed(request), Some(managed), _) => {
                self.counters[2 + Way::Managed as usize] += 1;
                let (identifier, data) = *request;
                managed.adopt(id, identifier, &data);
            }
            _ => {}
        }
    }

    /// Says a word.
    pub(super) fn say(&mut self, id: ConnId, word: &Word) {
        match &mut self.managed {
            Some(managed) if managed.has(id) => managed.say(id, word),
            _ => {
                if let Some(tcp) = &mut self.tcp {
                    tcp.say(id, word);
                }
            }
        }
    }

    /// Closes a conversation; what was said goes out before.
    pub(super) fn hang_up(&mut self, id: ConnId, now_ns: u64) {
        self.calls.retain(|(call, ..)| *call != id);
        match &mut self.managed {
            Some(managed) if managed.has(id) => managed.hang_up(id, now_ns),
            _ => {
                if let Some(tcp) = &mut self.tcp {
                    tcp.hang_up(id);
                }
            }
        }
    }

    /// Whether something is to be told that no descriptor tells of.
    pub(super) fn has_pending(&self) -> bool {
        self.managed.as_ref().is_some_and(Managed::has_pending)
    }

    /// What happened since the last look.
    pub(super) fn listen(&mut self, now_ns: u64, watch: &Watch, heard: &mut Vec<Heard>) {
        if let Some(tcp) = &mut self.tcp {
            tcp.listen(watch, heard);
        }
        if let Some(managed) = &mut self.managed
            && managed.listen(now_ns, heard).is_err()
        {
            // Without the manager the other way is left, if it is there; sessions live on.
            if self.tcp.is_some() {
                self.managed = None;
            }
        }
        for what in heard.iter() {
            if let Heard::Word(id, Word::Accept(_)) = what
                && let Some((_, to, way)) = self.calls.iter().find(|(call, ..)| call == id)
            {
                self.counters[*way as usize] += 1;
                self.next.insert(*to, *way);
            }
        }
    }

    /// Calls `visit` with the name and value of every counter.
    pub(super) fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        let names = [
            "rdma_calls_by_manager",
            "rdma_calls_by_tcp",
            "rdma_callers_by_manager",
            "rdma_callers_by_tcp",
        ];
        for (name, value) in names.into_iter().zip(self.counters) {
            visit(name, value);
        }
    }
}
