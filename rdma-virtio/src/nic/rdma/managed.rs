//! The exchange through the connection manager (librdmacm): words are the private data of its
//! messages.
//!
//! Hello is a request, Accept a reply, Refuse a rejection, Ready "ready to use", and the end of the
//! connection is Bye; for datagrams Hello and the answer are a service ID resolution (SIDR), and
//! there is no connection that could end. Owns identifiers only: queue pairs are connected by what
//! the words say, as over the host's TCP. Invariants: an identifier is named by its conversation's
//! number; of a session that failed it is kept for a while, since its end would say that the
//! process ended.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::conversation::{Caller, Heard, Watch};
use super::wire::backoff::DIAL_NS_MAX;
use super::wire::exchange::{Parting, Word};
use super::wire::peer::ConnId;
use crate::nic::DeviceError;
use crate::verbs::connect::{
    ConnectEvent, ConnectEventKind, ConnectParameters, EventChannel, Identifier, Service,
};
use crate::verbs::gid::Gid;

/// The listener's name among identifiers.
const LISTENER: u64 = u64::MAX;
/// The name of one that is only kept.
const KEPT: u64 = u64::MAX - 1;
/// Requests that wait to be looked at.
const BACKLOG: u16 = 64;
/// Events taken in one look.
const EVENTS_MAX: usize = 64;
/// How long an identifier of a failed session is kept: the other side finds out by itself within
/// this time, by its queue pair or by silence.
const KEPT_NS: u64 = 3_000_000_000;
/// Identifiers that are kept at once; beyond, the oldest goes.
const KEPT_MAX: usize = 64;
/// Rejected since nobody listens there (InfiniBand 12.6.7.2: invalid service ID).
const REJECTED_NOBODY: i32 = 8;
/// SIDR: the service ID is not supported.
const RESOLVED_NOBODY: i32 = 1;

/// What an identifier is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Address or way are being resolved.
    Resolving,
    /// The words are being said.
    Talking,
    /// The connection stands.
    Up,
}

struct Call {
    id: ConnId,
    identifier: Identifier,
    stage: Stage,
    /// Its session failed: the end must not look like the process's.
    failed: bool,
}

/// What every conversation has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// This host's address on the wire.
    pub(super) own: IpAddr,
    /// Where it listens; 0 if it does not.
    pub(super) port: u16,
    pub(super) service: Service,
    pub(super) traffic_class: u8,
    pub(super) retry_count: u8,
    pub(super) rnr_retry: u8,
}

/// All conversations through the connection manager.
pub(super) struct Managed {
    plan: Plan,
    calls: Vec<Call>,
    kept: Vec<(Identifier, u64)>,
    /// Held, not used: dropping it ends the listening.
    _listener: Option<Identifier>,
    channel: EventChannel,
    /// What failed at once, to be told at the next look.
    pending: Vec<Heard>,
}

impl Managed {
    /// Listens, if the port is not 0. `device` is the one that the address must be of.
    pub(super) fn new(plan: Plan, device: &str, watch: &Watch) -> Result<Managed, DeviceError> {
        let channel = EventChannel::new()?;
        let bound = channel.identifier(plan.service, LISTENER)?;
        bound.bind(SocketAddr::new(plan.own, plan.port))?;
        if bound.device_name().is_some_and(|name| name != device) {
            let source = std::io::Error::from_raw_os_error(libc::ENODEV);
            let found = bound.device_name().unwrap_or_default();
            return Err(DeviceError {
                device: "rdma_cm".to_owned(),
                call: "rdma_bind_addr",
                source,
                remedy: format!("it takes {} for {found}'s, not {device}'s", plan.own),
            });
        }
        let mut listener = None;
        if plan.port != 0 {
            bound.listen(BACKLOG)?;
            listener = Some(bound);
        }
        watch.add(channel.fd()).map_err(|source| DeviceError {
            device: "rdma_cm".to_owned(),
            call: "epoll_ctl",
            source,
            remedy: String::new(),
        })?;
        let (calls, kept, pending) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Managed { plan, calls, kept, _listener: listener, channel, pending })
    }

    /// Whether something is to be told that no descriptor tells of.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a conversation is one of these.
    pub(super) fn has(&self, id: ConnId) -> bool {
        self.calls.iter().any(|call| call.id == id)
    }

    /// Begins a call; false if it failed at once.
    pub(super) fn dial(&mut self, id: ConnId, to: SocketAddr) -> bool {
        let begun = self.begin(id, to);
        begun.map(|identifier| self.push(id, identifier, Stage::Resolving)).is_ok()
    }

    fn begin(&self, id: ConnId, to: SocketAddr) -> Result<Identifier, DeviceError> {
        let identifier = self.channel.identifier(self.plan.service, u64::from(id.0))?;
        identifier.set_traffic_class(self.plan.traffic_class)?;
        let own = Some(SocketAddr::new(self.plan.own, 0));
        identifier.resolve_address(own, to, Duration::from_nanos(DIAL_NS_MAX))?;
        Ok(identifier)
    }

    fn push(&mut self, id: ConnId, identifier: Identifier, stage: Stage) {
        self.calls.push(Call { id, identifier, stage, failed: false });
    }

    /// Takes a request over; its word is told at the next look.
    pub(super) fn adopt(&mut self, id: ConnId, mut identifier: Identifier, data: &[u8]) {
        let gid = gid_of(&identifier);
        identifier.set_token(u64::from(id.0));
        self.push(id, identifier, Stage::Talking);
        self.hear(id, data, gid);
    }

    /// The word in private data.
    fn hear(&mut self, id: ConnId, data: &[u8], gid: [u8; 16]) {
        self.pending.push(match Word::decode_short(data, gid) {
            Ok(word) => Heard::Word(id, word),
            Err(error) => Heard::Garbage(id, error),
        });
    }

    /// Says a word.
    pub(super) fn say(&mut self, id: ConnId, word: &Word) {
        let plan = self.plan;
        let Some(call) = self.calls.iter_mut().find(|call| call.id == id) else { return };
        let data = word.encode_short().unwrap_or_default();
        let parameters = |queue_pair| ConnectParameters {
            queue_pair,
            shared_receive: plan.service == Service::Reliable,
            retry_count: plan.retry_count,
            rnr_retry: plan.rnr_retry,
            private_data: &data,
        };
        let reliable = plan.service == Service::Reliable;
        let said = match word {
            Word::Hello(hello) => call.identifier.connect(&parameters(hello.endpoint.qpn)),
            Word::Accept(hello) => call.identifier.accept(&parameters(hello.endpoint.qpn)),
            Word::Refuse(..) if reliable => call.identifier.reject(&data),
            // A refused resolution carries no reason: it is an answer like any other.
            Word::Refuse(..) => call.identifier.accept(&parameters(0)),
            Word::Ready => {
                call.stage = Stage::Up;
                if reliable { call.identifier.establish() } else { Ok(()) }
            }
            Word::Bye(parting) => {
                call.failed = *parting == Parting::Broken;
                Ok(())
            }
        };
        if said.is_err() {
            self.pending.push(Heard::Closed(id, false));
        }
    }

    /// Ends a conversation. The connection manager tells the other side, if there is a connection.
    pub(super) fn hang_up(&mut self, id: ConnId, now_ns: u64) {
        let Some(at) = self.calls.iter().position(|call| call.id == id) else { return };
        let mut call = self.calls.swap_remove(at);
        if call.failed && call.stage == Stage::Up && self.plan.service == Service::Reliable {
            if self.kept.len() >= KEPT_MAX {
                self.kept.remove(0);
            }
            call.identifier.set_token(KEPT);
            self.kept.push((call.identifier, now_ns.saturating_add(KEPT_NS)));
        }
    }

    /// What happened next, if anything did.
    pub(super) fn listen(
        &mut self,
        now_ns: u64,
        heard: &mut Vec<Heard>,
    ) -> Result<(), DeviceError> {
        self.kept.retain(|(_, until_ns)| now_ns < *until_ns);
        for _ in 0..EVENTS_MAX {
            match self.channel.take_event()? {
                Some(event) => self.on_event(event, heard),
                None => break,
            }
        }
        heard.append(&mut self.pending);
        Ok(())
    }

    fn on_event(&mut self, mut event: ConnectEvent, heard: &mut Vec<Heard>) {
        if let Some(identifier) = event.request.take() {
            let Some(from) = identifier.peer_address() else { return };
            let caller = Caller::Managed(Box::new((identifier, event.private_data)));
            heard.push(Heard::Incoming(caller, from.ip()));
            return;
        }
        let Some(at) = self.calls.iter().position(|call| u64::from(call.id.0) == event.token)
        else {
            return;
        };
        let call = &mut self.calls[at];
        let id = call.id;
        match event.kind {
            ConnectEventKind::AddressResolved => {
                let patience = Duration::from_nanos(DIAL_NS_MAX);
                if call.identifier.resolve_route(patience).is_err() {
                    heard.push(Heard::Connected(id, false));
                }
            }
            ConnectEventKind::RouteResolved => {
                call.stage = Stage::Talking;
                heard.push(Heard::Connected(id, true));
            }
            ConnectEventKind::Response => {
                let gid = gid_of(&call.identifier);
                self.hear(id, &event.private_data, gid);
            }
            ConnectEventKind::Established if self.plan.service == Service::Reliable => {
                call.stage = Stage::Up;
                heard.push(Heard::Word(id, Word::Ready));
            }
            ConnectEventKind::Established => {
                let gid = gid_of(&call.identifier);
                self.hear(id, &event.private_data, gid);
            }
            ConnectEventKind::Rejected | ConnectEventKind::Failed => {
                let gid = gid_of(&call.identifier);
                heard.push(rejection(call, &event, gid));
            }
            ConnectEventKind::Disconnected => heard.push(Heard::Closed(id, true)),
            ConnectEventKind::DeviceRemoval | ConnectEventKind::AddressChange => {
                heard.push(Heard::Closed(id, false));
            }
            ConnectEventKind::Request
            | ConnectEventKind::TimeWaitExit
            | ConnectEventKind::Other(_) => {}
        }
    }
}

/// What a request came to that was not granted.
fn rejection(call: &Call, event: &ConnectEvent, gid: [u8; 16]) -> Heard {
    if let Ok(word @ Word::Refuse(..)) = Word::decode_short(&event.private_data, gid) {
        return Heard::Word(call.id, word);
    }
    match (event.kind, event.status) {
        (ConnectEventKind::Rejected, REJECTED_NOBODY)
        | (ConnectEventKind::Failed, RESOLVED_NOBODY) => Heard::Nobody(call.id),
        _ if call.stage == Stage::Resolving => Heard::Connected(call.id, false),
        _ => Heard::Closed(call.id, false),
    }
}

/// The GID of the peer: the connection manager knows ports by their addresses.
fn gid_of(identifier: &Identifier) -> [u8; 16] {
    identifier.peer_address().map_or([0; 16], |peer| Gid::from(peer.ip()).0)
}
