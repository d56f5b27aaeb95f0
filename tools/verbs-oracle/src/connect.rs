//! How both ends come to a ready queue pair: over the host's TCP, or by librdmacm.
//!
//! Owns the order of steps. By librdmacm, each end's queue pair stays in its own context; a
//! datagram end tells its number and GID in the request's private data, 20 bytes.

use crate::completions::readable;
use crate::exchange::Wire;
use crate::options::{By, Options, Transport};
use crate::setup::{End, Peer, Ready, with_receives};
use crate::{Failure, said};
use roceway_rdma_virtio::verbs::connect::{
    ConnectEvent, ConnectEventKind, ConnectParameters, DATAGRAM_QKEY, EventChannel, Identifier,
    Service,
};
use roceway_rdma_virtio::verbs::queue_pair::Reset;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time until a packet is repeated, coded: 67 ms.
const TIMEOUT: u8 = 14;
/// How long the peer waits without a receive, coded: 0.64 ms.
const MIN_RNR_TIMER: u8 = 12;

/// What holds a connection.
pub enum Held {
    /// TCP.
    Wire(Wire),
    /// The connection manager's identifiers and channel.
    Identifiers(EventChannel, Vec<Identifier>),
}

/// Connects; returns the ready end and what holds the connection.
///
/// # Errors
/// If the other end does not come, or a verb fails.
pub fn connect(end: End<Reset>, options: &Options) -> Result<(Ready, Held), Failure> {
    match (options.by, options.listen, options.connect) {
        (By::Tcp, Some(address), _) => over_tcp(end, options, Wire::listen(address)?),
        (By::Tcp, None, Some(address)) => {
            over_tcp(end, options, Wire::dial(address, options.patience())?)
        }
        (By::Cm, Some(address), _) => serve(end, options, address),
        (By::Cm, None, Some(address)) => dial(end, options, address),
        (_, None, None) => Err(said("neither --listen nor --connect")),
    }
}

fn over_tcp(end: End<Reset>, options: &Options, mut wire: Wire) -> Result<(Ready, Held), Failure> {
    let own = end.hello();
    let peer = wire.introduce(&own)?;
    let (end, peer) = end.init()?.ready(&own, &peer)?;
    wire.meet("ready")?;
    Ok((Ready::new(end, peer, options), Held::Wire(wire)))
}

/// Waits for an event of this kind.
fn expect(
    channel: &EventChannel,
    kind: ConnectEventKind,
    patience: Duration,
) -> Result<ConnectEvent, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(event) = channel.take_event()? {
            if event.kind == kind {
                return Ok(event);
            }
            let (found, status) = (event.kind, event.status);
            return Err(said(format!("{found:?} (status {status}) instead of {kind:?}")));
        }
        if Instant::now() > deadline {
            return Err(said(format!("no {kind:?} within {} s", patience.as_secs())));
        }
        readable(channel.fd(), Duration::from_secs(1))?;
    }
}

fn service(options: &Options) -> Service {
    match options.transport {
        Transport::Rc => Service::Reliable,
        Transport::Ud => Service::Datagram,
    }
}

fn parameters<'a>(end: &End<Reset>, options: &Options, data: &'a [u8]) -> ConnectParameters<'a> {
    ConnectParameters {
        queue_pair: end.pair.number(),
        shared_receive: options.srq,
        retry_count: 7,
        rnr_retry: 7,
        private_data: data,
    }
}

/// The device that the connection manager has chosen must be the one that was named.
fn same_device(end: &End<Reset>, identifier: &Identifier) -> Result<(), Failure> {
    let named = end.base.chosen.context.device().name();
    match identifier.device_name() {
        Some(chosen) if chosen == named => Ok(()),
        chosen => Err(said(format!("the connection manager chose {chosen:?}, not {named}"))),
    }
}

fn own_data(end: &End<Reset>) -> [u8; 20] {
    let mut data = [0; 20];
    data[..16].copy_from_slice(&end.base.chosen.gid.gid.0);
    data[16..].copy_from_slice(&end.pair.number().to_be_bytes());
    data
}

fn serve(
    end: End<Reset>,
    options: &Options,
    address: SocketAddr,
) -> Result<(Ready, Held), Failure> {
    let channel = EventChannel::new()?;
    let listener = channel.identifier(service(options), 1)?;
    listener.bind(address)?;
    listener.listen(1)?;
    let event = expect(&channel, ConnectEventKind::Request, Duration::from_secs(60))?;
    let mut identifier = event.request.ok_or_else(|| said("a request without identifier"))?;
    identifier.set_token(2);
    same_device(&end, &identifier)?;
    let parameters = parameters(&end, options, b"");
    let base = end.base;
    let init = with_receives(end.pair.init_for(&identifier)?, base)?;
    let pair = init.pair.rtr_for(&identifier, MIN_RNR_TIMER)?.rts_for(&identifier, TIMEOUT)?;
    let end = End { pair, base: init.base };
    identifier.accept(&parameters)?;
    let peer = match options.transport {
        Transport::Rc => {
            expect(&channel, ConnectEventKind::Established, options.patience())?;
            None
        }
        Transport::Ud => {
            let data: [u8; 20] = event
                .private_data
                .get(..20)
                .and_then(|data| data.try_into().ok())
                .ok_or_else(|| said("the request does not say who asks"))?;
            let mut gid = [0; 16];
            gid.copy_from_slice(&data[..16]);
            let queue_pair = u32::from_be_bytes([data[16], data[17], data[18], data[19]]);
            let handle = end.base.domain.address_handle(&end.base.path(gid, 0))?;
            Some(Peer { handle, queue_pair, qkey: DATAGRAM_QKEY })
        }
    };
    let held = Held::Identifiers(channel, vec![listener, identifier]);
    Ok((Ready::new(end, peer, options), held))
}

fn dial(end: End<Reset>, options: &Options, address: SocketAddr) -> Result<(Ready, Held), Failure> {
    let (channel, patience) = (EventChannel::new()?, options.patience());
    let identifier = channel.identifier(service(options), 3)?;
    let own = SocketAddr::new(end.base.chosen.gid.gid.ip(), 0);
    identifier.resolve_address(Some(own), address, patience)?;
    expect(&channel, ConnectEventKind::AddressResolved, patience)?;
    identifier.resolve_route(patience)?;
    expect(&channel, ConnectEventKind::RouteResolved, patience)?;
    same_device(&end, &identifier)?;
    let data = own_data(&end);
    let parameters = parameters(&end, options, &data);
    let base = end.base;
    let init = with_receives(end.pair.init_for(&identifier)?, base)?;
    identifier.connect(&parameters)?;
    let (end, peer) = if options.transport == Transport::Rc {
        expect(&channel, ConnectEventKind::Response, patience)?;
        let pair = init.pair.rtr_for(&identifier, MIN_RNR_TIMER)?.rts_for(&identifier, TIMEOUT)?;
        identifier.establish()?;
        (End { pair, base: init.base }, None)
    } else {
        let event = expect(&channel, ConnectEventKind::Established, patience)?;
        let peer = event.datagram.ok_or_else(|| said("the peer did not say who it is"))?;
        let pair = init.pair.rtr_for(&identifier, MIN_RNR_TIMER)?.rts_for(&identifier, TIMEOUT)?;
        let handle = init.base.domain.address_handle(&peer.path)?;
        let peer = Peer { handle, queue_pair: peer.queue_pair, qkey: peer.qkey };
        (End { pair, base: init.base }, Some(peer))
    };
    Ok((Ready::new(end, peer, options), Held::Identifiers(channel, vec![identifier])))
}
