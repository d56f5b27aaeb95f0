//! A queue pair of Roceway's with all that it needs: device, GID, queues, memory, receives.
//!
//! Owns the objects. The receive slots are all posted before the queue pair receives, and posted
//! again as their messages are taken. A slot of a datagram begins with 40 bytes for the GRH.

use crate::completions::{BATCH, Queue, Seen, Waiter};
use crate::exchange::Hello;
use crate::memory::Memory;
use crate::options::{Calls, Options, Transport};
use crate::shape::{BUFFER, Bed, HEADER, Like};
use crate::{Failure, said};
use roceway_rdma_virtio::verbs::address::{AddressHandle, Path};
use roceway_rdma_virtio::verbs::attributes::{Mtu, PortAttributes, PortState};
use roceway_rdma_virtio::verbs::completion::{CompletionQueue, CompletionQueueOptions};
use roceway_rdma_virtio::verbs::context::Context;
use roceway_rdma_virtio::verbs::device;
use roceway_rdma_virtio::verbs::domain::ProtectionDomain;
use roceway_rdma_virtio::verbs::extended::BatchSend;
use roceway_rdma_virtio::verbs::gid::{self, Gid, GidEntry, GidWish};
use roceway_rdma_virtio::verbs::queue_pair::{
    Init, QueuePair, QueuePairKind, QueuePairOptions, QueueSizes, Receives, Reset, Rts,
};
use roceway_rdma_virtio::verbs::shared_receive::{SharedReceiveOptions, SharedReceiveQueue};
use roceway_rdma_virtio::verbs::transition::{
    InitAttributes, ReceiveAttributes, ReliableReceive, ReliableSend, SendAttributes,
};
use roceway_rdma_virtio::verbs::work_completion::WorkCompletion;
use roceway_rdma_virtio::verbs::work_list::{
    Destination, Operation, ReceiveList, SendList, SendListSize, SendRequest,
};

/// Receives posted.
pub const RECEIVES: usize = 64;
/// Sends outstanding.
pub const SENDS: usize = 64;
/// Bytes before a datagram's payload.
const GRH: usize = 40;
/// Marks work requests that are sends.
pub const SEND_ID: u64 = 1 << 32;
/// Key of datagram queue pairs that find each other over TCP.
const QKEY: u32 = 0x1111_1111;

/// A device and what was chosen of it.
pub struct Chosen {
    /// The opened device.
    pub context: Context,
    /// The port.
    pub port: u8,
    /// What the port is.
    pub attributes: PortAttributes,
    /// The GID.
    pub gid: GidEntry,
}

/// Opens the device and chooses the GID.
///
/// # Errors
/// If there is no such device, its port is down, or no GID is usable.
pub fn choose(options: &Options) -> Result<Chosen, Failure> {
    let found = device::find(&options.device)?;
    let (context, port) = (found.context, found.port);
    let attributes = context.port(port)?;
    if attributes.state != PortState::Active {
        return Err(said(format!("{} port {port} is {:?}", options.device, attributes.state)));
    }
    let wish = GidWish {
        port,
        link_layer: attributes.link_layer,
        interface: found.interface,
        address: None,
        index: options.gid,
    };
    let gid = gid::choose(&context.gids()?, &gid::interface_addresses()?, &wish)
        .map_err(|none| said(format!("{none}; {}", none.remedy())))?;
    Ok(Chosen { context, port, attributes, gid })
}

/// Where datagrams go.
pub struct Peer {
    /// The way.
    pub handle: AddressHandle,
    /// The peer's queue pair.
    pub queue_pair: u32,
    /// Its key.
    pub qkey: u32,
}

/// What does not change with the queue pair's state.
pub struct Base {
    /// The device.
    pub chosen: Chosen,
    /// The domain of all objects.
    pub domain: ProtectionDomain,
    /// Completions.
    pub waiter: Waiter,
    /// Completions of sends, if they have a queue of their own.
    sends: Option<CompletionQueue>,
    shared: Option<SharedReceiveQueue>,
    receives: ReceiveList,
    memory: Memory,
    slot: usize,
    length: usize,
    transport: Transport,
    like: Like,
}

/// An end whose queue pair is in state `S`.
pub struct End<S: roceway_rdma_virtio::verbs::queue_pair::State> {
    // Dropped before the memory.
    /// The queue pair.
    pub pair: QueuePair<S>,
    /// The rest.
    pub base: Base,
}

/// Makes a queue pair.
///
/// # Errors
/// If the device refuses.
pub fn prepare(chosen: Chosen, options: &Options) -> Result<End<Reset>, Failure> {
    let domain = chosen.context.protection_domain()?;
    let channel = chosen.context.completion_channel()?;
    let queue_options = CompletionQueueOptions {
        entries: u32::try_from(RECEIVES + SENDS).unwrap_or(u32::MAX),
        channel: Some(&channel),
        vector: 0,
        token: 1,
    };
    let context = &chosen.context;
    let queue = match options.calls {
        Calls::Lists => Queue::Plain(context.completion_queue(&queue_options)?),
        Calls::Extended => Queue::Extended(context.extended_completion_queue(&queue_options)?),
    };
    let own = (options.like >= Like::Sends).then(|| context.completion_queue(&queue_options));
    let own = own.transpose()?;
    let receives = u32::try_from(RECEIVES).unwrap_or(u32::MAX);
    let elements = options.like.elements(options.transport == Transport::Ud);
    let max_sge = u32::try_from(elements).unwrap_or(u32::MAX);
    let shared_options = SharedReceiveOptions { max_wr: receives, max_sge, token: 2 };
    let shared = options.srq.then(|| domain.shared_receive_queue(&shared_options)).transpose()?;
    let kind = match options.transport {
        Transport::Rc => QueuePairKind::Rc,
        Transport::Ud => QueuePairKind::Ud,
    };
    let pair_options = QueuePairOptions {
        kind,
        send_queue: own.as_ref().unwrap_or(queue.plain()),
        recv_queue: queue.plain(),
        shared_receive: shared.as_ref(),
        sizes: sizes(options, (receives, max_sge)),
        max_tso_header: 0,
    };
    let pair = match options.calls {
        Calls::Lists => domain.queue_pair(&pair_options)?,
        Calls::Extended => domain.extended_queue_pair(&pair_options)?,
    };
    let head = if options.transport == Transport::Ud { GRH } else { 0 };
    let slot = (head + options.length()).next_multiple_of(64);
    let memory = Memory::new(&domain, slot * (RECEIVES + SENDS) + BUFFER)?;
    let bed = (options.like >= Like::Sleep).then(|| Bed::new(channel.fd())).transpose()?;
    let waiter = Waiter {
        queue,
        channel,
        bed,
        wait: options.wait,
        patience: options.patience(),
        empty: 0,
        events: 0,
    };
    let base = Base {
        chosen,
        domain,
        waiter,
        sends: own,
        shared,
        receives: ReceiveList::new(RECEIVES, elements),
        memory,
        slot,
        length: options.length(),
        transport: options.transport,
        like: options.like,
    };
    Ok(End { pair, base })
}

/// How much the queue pair takes, with so many receives of so many elements.
fn sizes(options: &Options, (receives, max_recv_sge): (u32, u32)) -> QueueSizes {
    QueueSizes {
        max_send_wr: u32::try_from(SENDS).unwrap_or(u32::MAX),
        max_recv_wr: if options.srq { 0 } else { receives },
        max_send_sge: 1,
        max_recv_sge,
        max_inline: if options.inline { options.size } else { 0 },
    }
}

impl Base {
    /// Bytes before the payload of a received message.
    fn head(&self) -> usize {
        if self.transport == Transport::Ud { GRH } else { 0 }
    }

    /// The path MTU: what the port has now.
    #[must_use]
    pub fn mtu(&self) -> Mtu {
        self.chosen.attributes.active_mtu.unwrap_or(Mtu::B256)
    }

    /// The way to a peer's GID.
    #[must_use]
    pub fn path(&self, gid: [u8; 16], lid: u16) -> Path {
        Path {
            port: self.chosen.port,
            source_index: u8::try_from(self.chosen.gid.index).unwrap_or(u8::MAX),
            destination: Gid(gid),
            lid,
            service_level: 0,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
        }
    }

    /// Puts the receive of a slot onto the list that is posted next.
    ///
    /// # Errors
    /// If the list is full.
    pub fn push_receive(&mut self, slot: usize) -> Result<(), Failure> {
        let (at, head) = (slot * self.slot, self.head());
        let wr_id = u64::try_from(slot).unwrap_or(u64::MAX);
        let elements = self.like.elements(self.transport == Transport::Ud);
        if elements == 1 {
            let sge = self.memory.sge(at, head + self.length);
            return Ok(self.receives.push(wr_id, &[sge])?);
        }
        // Of the buffers only the first one is ever filled: the others may be the same.
        let front = head + HEADER.min(self.length);
        let unused = self.memory.sge((RECEIVES + SENDS) * self.slot, BUFFER);
        let mut sges = vec![unused; elements];
        sges[0] = self.memory.sge(at, front);
        sges[1] = self.memory.sge(at + front, head + self.length - front);
        Ok(self.receives.push(wr_id, &sges)?)
    }

    /// Whether so many receives are on the list as are posted together.
    #[must_use]
    pub fn is_to_post(&self) -> bool {
        self.receives.len() >= self.like.together(self.transport == Transport::Ud)
    }

    /// Whether receives are on the list.
    #[must_use]
    pub fn has_unposted(&self) -> bool {
        !self.receives.is_empty()
    }

    /// Takes completions of sends that have a queue of their own: how many were sent, if one says.
    ///
    /// # Errors
    /// If the queue, or a send, has failed.
    pub fn sent_apart(&self) -> Result<Option<u64>, Failure> {
        let Some(queue) = &self.sends else { return Ok(None) };
        let mut taken = [WorkCompletion::default(); BATCH];
        let count = queue.poll(&mut taken)?;
        match taken[..count].iter().find(|completion| !completion.is_success()) {
            Some(failed) => Err(said(format!("a send failed: {}", failed.status()))),
            None => Ok(taken[..count].last().map(|last| (last.wr_id() & !SEND_ID) + 1)),
        }
    }

    /// Whether nobody waits for a send.
    #[must_use]
    pub fn sends_are_apart(&self) -> bool {
        self.sends.is_some()
    }

    /// Posts the receives on the list.
    ///
    /// # Errors
    /// If the queue refuses.
    pub fn post_receives<S: Receives>(&mut self, pair: &QueuePair<S>) -> Result<(), Failure> {
        match &self.shared {
            Some(shared) => shared.post_recv(&mut self.receives)?,
            None => pair.post_recv(&mut self.receives)?,
        }
        Ok(())
    }

    /// Whether a completed receive is message `number`, and its slot.
    ///
    /// # Errors
    /// If it is something else.
    pub fn check(&self, completion: &Seen, number: u64) -> Result<usize, Failure> {
        let slot = usize::try_from(completion.wr_id).unwrap_or(usize::MAX);
        let head = self.head();
        let length = usize::try_from(completion.byte_len).unwrap_or(0);
        if slot >= RECEIVES || length != head + self.length {
            return Err(said(format!("{length} bytes in slot {slot}")));
        }
        if !self.memory.holds(slot * self.slot + head, self.length, number) {
            return Err(said(format!("message {number} is not what was sent")));
        }
        Ok(slot)
    }
}

impl End<Reset> {
    /// What to tell the other end.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            queue_pair: self.pair.number(),
            psn: 0x12_3456,
            lid: self.base.chosen.attributes.lid,
            mtu: self.base.mtu().bytes(),
            qkey: if self.base.transport == Transport::Ud { QKEY } else { 0 },
            gid: self.base.chosen.gid.gid.0,
        }
    }

    /// To init, with all receives posted.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn init(self) -> Result<End<Init>, Failure> {
        let attributes = InitAttributes { port: self.base.chosen.port, pkey_index: 0, qkey: QKEY };
        let pair = self.pair.init(&attributes)?;
        with_receives(pair, self.base)
    }
}

/// Posts all receives.
///
/// # Errors
/// If the queue refuses.
pub fn with_receives(pair: QueuePair<Init>, mut base: Base) -> Result<End<Init>, Failure> {
    for slot in 0..RECEIVES {
        base.push_receive(slot)?;
    }
    base.post_receives(&pair)?;
    Ok(End { pair, base })
}

impl End<Init> {
    /// To ready to send, to the peer that said hello.
    ///
    /// # Errors
    /// If the device refuses or does not find the way.
    pub fn ready(self, own: &Hello, peer: &Hello) -> Result<(End<Rts>, Option<Peer>), Failure> {
        let path = self.base.path(peer.gid, peer.lid);
        if self.base.transport == Transport::Ud {
            let pair = self.pair.rtr(&ReceiveAttributes::Unconnected)?;
            let pair = pair.rts(&SendAttributes::Datagram { psn: own.psn })?;
            let handle = self.base.domain.address_handle(&path)?;
            let peer = Peer { handle, queue_pair: peer.queue_pair, qkey: peer.qkey };
            return Ok((End { pair, base: self.base }, Some(peer)));
        }
        let mtu = Mtu::from_bytes(peer.mtu).unwrap_or(Mtu::B256).min(self.base.mtu());
        let pair = self.pair.rtr(&ReceiveAttributes::Reliable(ReliableReceive {
            path,
            mtu,
            queue_pair: peer.queue_pair,
            psn: peer.psn,
            min_rnr_timer: 12,
        }))?;
        let send = ReliableSend { psn: own.psn, timeout: 14, retry_count: 7, rnr_retry: 7 };
        let pair = pair.rts(&SendAttributes::Reliable(send))?;
        Ok((End { pair, base: self.base }, None))
    }
}

/// A ready end and what it sends with.
pub struct Ready {
    /// The end.
    pub end: End<Rts>,
    sends: SendList,
    peer: Option<Peer>,
    inline: bool,
    calls: Calls,
}

impl Ready {
    /// Makes it.
    #[must_use]
    pub fn new(end: End<Rts>, peer: Option<Peer>, options: &Options) -> Ready {
        let inline = options.inline && end.pair.sizes().max_inline >= options.size;
        let sends =
            SendList::new(SendListSize { requests: SENDS, sges: 1, header: 0, copies: false });
        Ready { end, sends, peer, inline, calls: options.calls }
    }

    /// Whether messages are sent inline.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.inline
    }

    /// Puts message `number` onto the list that is posted next; by extended calls it is posted
    /// here.
    ///
    /// # Errors
    /// If the list is full, or the queue refuses.
    pub fn push_send(&mut self, number: u64, signalled: bool) -> Result<(), Failure> {
        if self.calls == Calls::Extended {
            return self.send_at_once(number, signalled);
        }
        let base = &self.end.base;
        let place = usize::try_from(number).unwrap_or(0) % SENDS;
        let offset = (RECEIVES + place) * base.slot;
        base.memory.fill(offset, base.length, number);
        let sges = [base.memory.sge(offset, base.length)];
        let request = SendRequest {
            wr_id: SEND_ID | number,
            sges: &sges,
            operation: Operation::Send,
            signalled,
            solicited: false,
            checksum: false,
            destination: self.peer.as_ref().map(|peer| Destination {
                handle: &peer.handle,
                queue_pair: peer.queue_pair,
                qkey: peer.qkey,
            }),
        };
        if self.inline {
            // SAFETY: the element names registered memory, which is readable while the end lives.
            unsafe { self.sends.push_inline(&request) }?;
        } else {
            self.sends.push(&request)?;
        }
        Ok(())
    }

    fn send_at_once(&mut self, number: u64, signalled: bool) -> Result<(), Failure> {
        let base = &self.end.base;
        let place = usize::try_from(number).unwrap_or(0) % SENDS;
        let offset = (RECEIVES + place) * base.slot;
        base.memory.fill(offset, base.length, number);
        let sge = base.memory.sge(offset, base.length);
        let destination = self.peer.as_ref().map(|peer| Destination {
            handle: &peer.handle,
            queue_pair: peer.queue_pair,
            qkey: peer.qkey,
        });
        let send = BatchSend { wr_id: SEND_ID | number, signalled, checksum: false, destination };
        let inline = self.inline.then(|| base.memory.copy(offset, base.length));
        let batch = self.end.pair.batch();
        let mut batch = batch.ok_or_else(|| said("the queue pair has no extended calls"))?;
        match inline {
            Some(bytes) => batch.send_inline(&send, &bytes),
            None => batch.send(&send, &[sge])?,
        }
        Ok(batch.post()?)
    }

    /// Posts the sends on the list.
    ///
    /// # Errors
    /// If the queue refuses.
    pub fn post_sends(&mut self) -> Result<(), Failure> {
        Ok(self.end.pair.post_send(&mut self.sends)?)
    }

    /// Posts the receives on the list.
    ///
    /// # Errors
    /// If the queue refuses.
    pub fn post_receives(&mut self) -> Result<(), Failure> {
        self.end.base.post_receives(&self.end.pair)
    }

    /// Moves the queue pair to the error state and waits until everything posted is flushed;
    /// returns how many completions that were. With a shared receive queue its receives stay.
    ///
    /// # Errors
    /// If they do not come.
    pub fn drain(self) -> Result<usize, Failure> {
        let End { pair, mut base } = self.end;
        let expected = if base.shared.is_some() { 0 } else { RECEIVES };
        let error = pair.error()?;
        let mut out = [Seen::default(); BATCH];
        let mut flushed = 0;
        let deadline = std::time::Instant::now() + base.waiter.patience;
        while flushed < expected {
            flushed += base.waiter.queue.poll(&mut out)?;
            if std::time::Instant::now() > deadline {
                return Err(said(format!("{flushed} of {expected} flushed")));
            }
            std::thread::yield_now();
        }
        base.waiter.events += u64::from(base.waiter.channel.take_events()?);
        drop(error);
        Ok(flushed)
    }
}
