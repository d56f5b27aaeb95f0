//! A port that talks to itself: two queue pairs joined with each other, RC over a shared receive
//! queue, or UD.
//!
//! Messages go from the first to the second. Every message has a receive of its own, which was
//! filled with [`UNTOUCHED`] before, so that what was written is seen to the byte.

use std::time::{Duration, Instant};

use super::memory::Memory;
use super::{PATIENCE, collect, find, readable, trouble};
use crate::nic::DeviceError;
use crate::verbs::address::{AddressHandle, Path};
use crate::verbs::attributes::Mtu;
use crate::verbs::completion::{CompletionChannel, CompletionQueue, CompletionQueueOptions};
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::events::AsyncEvent;
use crate::verbs::gid::{self, GidEntry, GidWish};
use crate::verbs::queue_pair::{
    Init, QueuePair, QueuePairKind, QueuePairOptions, QueueSizes, Reset, Rts,
};
use crate::verbs::shared_receive::{SharedReceiveOptions, SharedReceiveQueue};
use crate::verbs::transition::{
    InitAttributes, ReceiveAttributes, ReliableReceive, ReliableSend, SendAttributes,
};
use crate::verbs::work_completion::{CompletionKind, WorkCompletion};
use crate::verbs::work_list::{
    Destination, Operation, ReceiveList, SendList, SendListSize, SendRequest,
};

/// Longest message of a trial.
pub const MESSAGE_MAX: usize = 65_536;
/// Most messages at a time.
pub const MESSAGES_MAX: usize = 32;
/// What a receive is filled with before it is posted.
pub const UNTOUCHED: u8 = 0xa5;
/// The GRH in front of a datagram.
const GRH: usize = 40;
/// Bytes behind each receive that must stay as they are.
const GUARD: usize = 64;
/// Bytes of the sends' memory, and of the receives'.
const AREA: usize = 192 << 10;
const QKEY: u32 = 0x1234_5678;
const PSN: u32 = 0x00_1234;
const SHARED_TOKEN: u64 = 0x5e;
/// As much as the modes use.
const INLINE_WANTED: u32 = 220;

/// What carries the messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Reliable connected.
    Rc,
    /// Datagrams.
    Ud,
}

/// What a trial may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest message.
    pub message: usize,
    /// Longest inline send of the queue pairs.
    pub inline: usize,
    /// Elements of a send or a receive, whichever is fewer.
    pub pieces: usize,
    /// The path MTU.
    pub mtu: u16,
}

/// How messages are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// Elements of each message, at both ends; 0 means 1.
    pub pieces: usize,
    /// Inline, and the memory is overwritten as soon as they are posted.
    pub inline: bool,
    /// Whether every send is signalled, and not the last alone.
    pub signal_all: bool,
    /// Sleeps for the completion channel's event instead of polling.
    pub asleep: bool,
}

/// What came of a call of [`Joined::exchange`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arrived {
    /// The messages, in the order in which they came.
    pub messages: Vec<Vec<u8>>,
    /// Bytes written behind the end of a message.
    pub strays: usize,
    /// Completions of sends.
    pub send_completions: usize,
    /// Events of the completion channel.
    pub events: u32,
    /// Time until everything was complete.
    pub elapsed: Duration,
}

struct Objects {
    shared: Option<SharedReceiveQueue>,
    queue: CompletionQueue,
    channel: CompletionChannel,
    domain: ProtectionDomain,
    context: Context,
}

/// The port.
pub struct Joined {
    // Queue pairs go before the memory that they name.
    ends: [QueuePair<Rts>; 2],
    way: Option<AddressHandle>,
    objects: Objects,
    memory: Memory,
    sends: SendList,
    receives: ReceiveList,
    name: String,
    gid: GidEntry,
    transport: Transport,
    limits: Limits,
}

/// What of a port is chosen first.
struct Chosen {
    context: Context,
    port: u8,
    gid: GidEntry,
    mtu: Mtu,
    lid: u16,
}

fn choose(name: &str, index: Option<u32>) -> Result<Chosen, DeviceError> {
    let found = find(name)?;
    let attributes = found.context.port(found.port)?;
    let here = gid::interface_addresses()
        .map_err(|error| trouble(name, "getifaddrs", error.to_string()))?;
    let wish = GidWish {
        port: found.port,
        link_layer: attributes.link_layer,
        interface: found.interface,
        address: None,
        index,
    };
    let gid = gid::choose(&found.context.gids()?, &here, &wish).map_err(|none| {
        let mut error = trouble(name, "gid", none.to_string());
        error.remedy = none.remedy().to_owned();
        error
    })?;
    let mtu = attributes.active_mtu.unwrap_or(Mtu::B256);
    Ok(Chosen { context: found.context, port: found.port, gid, mtu, lid: attributes.lid })
}

impl Joined {
    /// Opens a device, makes two queue pairs and joins them; `index` is that of the GID, if not the
    /// best is to be taken.
    ///
    /// # Errors
    /// The call that failed.
    pub fn open(
        name: &str,
        index: Option<u32>,
        transport: Transport,
    ) -> Result<Joined, DeviceError> {
        let chosen = choose(name, index)?;
        let attributes = chosen.context.attributes()?;
        let receive_pieces = match transport {
            Transport::Rc => attributes.max_srq_sge,
            Transport::Ud => attributes.max_sge,
        };
        let pieces = attributes.max_sge.min(receive_pieces).clamp(1, 16);
        let objects = objects(&chosen.context, transport, pieces)?;
        let one = pair(&objects, transport, pieces)?;
        let other = pair(&objects, transport, pieces)?;
        let inline = one.sizes().max_inline;
        let init = InitAttributes { port: chosen.port, pkey_index: 0, qkey: QKEY };
        let (one, other) = (one.init(&init)?, other.init(&init)?);
        let path = path(&chosen);
        let numbers = [one.number(), other.number()];
        let ends = [
            ready(one, &chosen, transport, numbers[1])?,
            ready(other, &chosen, transport, numbers[0])?,
        ];
        let way = match transport {
            Transport::Rc => None,
            Transport::Ud => Some(objects.domain.address_handle(&path)?),
        };
        let message = match transport {
            Transport::Rc => MESSAGE_MAX,
            Transport::Ud => usize::from(chosen.mtu.bytes()),
        };
        let memory = Memory::new(&objects.domain, 2 * AREA)?;
        let pieces = usize::try_from(pieces).unwrap_or(1);
        Ok(Joined {
            ends,
            way,
            objects,
            memory,
            sends: SendList::new(SendListSize {
                requests: MESSAGES_MAX,
                sges: pieces,
                header: 0,
                copies: false,
            }),
            receives: ReceiveList::new(MESSAGES_MAX, pieces),
            name: name.to_owned(),
            gid: chosen.gid,
            transport,
            limits: Limits {
                message,
                inline: usize::try_from(inline).unwrap_or(0),
                pieces,
                mtu: chosen.mtu.bytes(),
            },
        })
    }

    /// What a trial may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The GID that was chosen.
    #[must_use]
    pub fn gid(&self) -> &GidEntry {
        &self.gid
    }

    fn head(&self) -> usize {
        match self.transport {
            Transport::Rc => 0,
            Transport::Ud => GRH,
        }
    }

    /// Sends messages, at most [`MESSAGES_MAX`] and none empty, and waits until all have come.
    ///
    /// # Errors
    /// The call that failed, or that something did not complete within [`PATIENCE`].
    pub fn exchange(
        &mut self,
        messages: &[&[u8]],
        manner: &Manner,
    ) -> Result<Arrived, DeviceError> {
        let longest = messages.iter().map(|message| message.len()).max().unwrap_or(0);
        let slot = (self.head() + longest + GUARD).next_multiple_of(64);
        if messages.len() > MESSAGES_MAX || messages.len() * slot > AREA || longest == 0 {
            return Err(trouble(&self.name, "exchange", "no such messages".to_owned()));
        }
        let pieces = manner.pieces.clamp(1, self.limits.pieces);
        self.post_receives(messages.len(), (slot, longest), pieces)?;
        for (number, message) in messages.iter().enumerate() {
            self.push_send(number, (slot, message), (pieces, messages.len()), manner)?;
        }
        if manner.asleep {
            self.objects.queue.arm()?;
        }
        let started = Instant::now();
        self.ends[0]
            .post_send(&mut self.sends)
            .map_err(|failure| trouble(&self.name, "ibv_post_send", failure.to_string()))?;
        if manner.inline {
            self.memory.fill(0, AREA, !UNTOUCHED);
        }
        let mut arrived = Arrived::default();
        if manner.asleep {
            if !readable(self.objects.channel.fd(), PATIENCE) {
                let what = format!("no event within {} s", PATIENCE.as_secs());
                return Err(trouble(&self.name, "ibv_get_cq_event", what));
            }
            arrived.events = self.objects.channel.take_events()?;
        }
        let signals = if manner.signal_all { messages.len() } else { 1 };
        let received = self.wait(messages.len(), signals, &mut arrived)?;
        arrived.elapsed = started.elapsed();
        for (place, length) in received {
            self.take(place * slot, (length, slot), &mut arrived);
        }
        Ok(arrived)
    }

    fn post_receives(
        &mut self,
        count: usize,
        (slot, longest): (usize, usize),
        pieces: usize,
    ) -> Result<(), DeviceError> {
        self.memory.fill(AREA, AREA, UNTOUCHED);
        for number in 0..count {
            let offset = AREA + number * slot;
            let sges = self.memory.sges(offset, self.head() + longest, pieces);
            let pushed = self.receives.push(u64::try_from(number).unwrap_or(0), &sges);
            pushed.map_err(|error| trouble(&self.name, "ibv_post_recv", error.to_string()))?;
        }
        let posted = match &self.objects.shared {
            Some(shared) => shared.post_recv(&mut self.receives),
            None => self.ends[1].post_recv(&mut self.receives),
        };
        posted.map_err(|failure| trouble(&self.name, "ibv_post_recv", failure.to_string()))
    }

    fn push_send(
        &mut self,
        number: usize,
        (slot, message): (usize, &[u8]),
        (pieces, count): (usize, usize),
        manner: &Manner,
    ) -> Result<(), DeviceError> {
        let offset = number * slot;
        self.memory.write(offset, message);
        let sges = self.memory.sges(offset, message.len(), pieces);
        let request = SendRequest {
            wr_id: u64::try_from(number).unwrap_or(0),
            sges: &sges,
            operation: Operation::Send,
            signalled: manner.signal_all || number + 1 == count,
            solicited: false,
            checksum: false,
            destination: self.way.as_ref().map(|handle| Destination {
                handle,
                queue_pair: self.ends[1].number(),
                qkey: QKEY,
            }),
        };
        let pushed = if manner.inline {
            // SAFETY: the elements are bytes of `memory`, which lives as long as the list.
            unsafe { self.sends.push_inline(&request) }
        } else {
            self.sends.push(&request)
        };
        pushed.map_err(|error| trouble(&self.name, "ibv_post_send", error.to_string()))
    }

    /// Waits for so many receives and at least so many completed sends; returns place and length of
    /// what was received.
    fn wait(
        &self,
        receives: usize,
        sends: usize,
        arrived: &mut Arrived,
    ) -> Result<Vec<(usize, usize)>, DeviceError> {
        let head = self.head();
        let mut received = Vec::with_capacity(receives);
        let mut sent = 0;
        let mut on = |completion: &WorkCompletion| {
            if completion.kind() == CompletionKind::Send {
                sent += 1;
            } else {
                let place = usize::try_from(completion.wr_id()).unwrap_or(usize::MAX);
                let length = usize::try_from(completion.byte_len()).unwrap_or(0);
                received.push((place, length.saturating_sub(head)));
            }
            received.len() >= receives && sent >= sends
        };
        collect(&self.name, &self.objects.queue, &mut on)?;
        arrived.send_completions = sent;
        Ok(received)
    }

    /// A message out of its slot, and what was written behind it.
    fn take(&self, offset: usize, (length, slot): (usize, usize), arrived: &mut Arrived) {
        if offset + slot > AREA || self.head() + length > slot {
            arrived.strays += length;
            return;
        }
        let bytes = self.memory.read(AREA + offset, slot);
        let end = self.head() + length;
        arrived.strays += bytes[end..].iter().filter(|byte| **byte != UNTOUCHED).count();
        arrived.messages.push(bytes[self.head()..end].to_vec());
    }

    /// Lets a shared receive queue run low, and waits for the asynchronous event that says so.
    ///
    /// # Errors
    /// The call that failed, or that the event did not come; [`std::io::ErrorKind::Unsupported`]
    /// where there is no shared receive queue.
    pub fn run_low(&mut self) -> Result<Duration, DeviceError> {
        const MESSAGES: usize = 4;
        let Some(shared) = &self.objects.shared else {
            let mut error = trouble(&self.name, "ibv_modify_srq", "no shared queue".to_owned());
            error.source = std::io::ErrorKind::Unsupported.into();
            return Err(error);
        };
        // Every receive goes, so that the queue is as before.
        self.memory.fill(AREA, AREA, UNTOUCHED);
        for number in 0..MESSAGES {
            let sge = self.memory.sge(AREA + number * 64, 64);
            let pushed = self.receives.push(0, &[sge]);
            pushed.map_err(|error| trouble(&self.name, "ibv_post_recv", error.to_string()))?;
        }
        let posted = shared.post_recv(&mut self.receives);
        posted.map_err(|failure| trouble(&self.name, "ibv_post_recv", failure.to_string()))?;
        shared.set_limit(2)?;
        let started = Instant::now();
        for number in 0..MESSAGES {
            self.push_send(number, (64, &[7; 64]), (1, MESSAGES), &Manner::default())?;
        }
        let posted = self.ends[0].post_send(&mut self.sends);
        posted.map_err(|failure| trouble(&self.name, "ibv_post_send", failure.to_string()))?;
        self.wait(MESSAGES, 1, &mut Arrived::default())?;
        let context = &self.objects.context;
        let deadline = started + PATIENCE;
        while readable(context.async_fd(), deadline.saturating_duration_since(Instant::now())) {
            if context.take_async_event()? == Some(AsyncEvent::SharedReceiveLimit(SHARED_TOKEN)) {
                return Ok(started.elapsed());
            }
        }
        let what = format!("no IBV_EVENT_SRQ_LIMIT_REACHED within {} s", PATIENCE.as_secs());
        Err(trouble(&self.name, "ibv_get_async_event", what))
    }
}

fn objects(context: &Context, transport: Transport, pieces: u32) -> Result<Objects, DeviceError> {
    let channel = context.completion_channel()?;
    let entries = u32::try_from(4 * MESSAGES_MAX).unwrap_or(u32::MAX);
    let options = CompletionQueueOptions { entries, channel: Some(&channel), vector: 0, token: 1 };
    let queue = context.completion_queue(&options)?;
    let domain = context.protection_domain()?;
    let max_wr = u32::try_from(MESSAGES_MAX).unwrap_or(u32::MAX);
    let shared = match transport {
        Transport::Ud => None,
        Transport::Rc => Some(domain.shared_receive_queue(&SharedReceiveOptions {
            max_wr,
            max_sge: pieces,
            token: SHARED_TOKEN,
        })?),
    };
    Ok(Objects { shared, queue, channel, domain, context: context.clone() })
}

fn pair(
    objects: &Objects,
    transport: Transport,
    pieces: u32,
) -> Result<QueuePair<Reset>, DeviceError> {
    let count = u32::try_from(MESSAGES_MAX).unwrap_or(u32::MAX);
    objects.domain.queue_pair_fitting(&QueuePairOptions {
        kind: match transport {
            Transport::Rc => QueuePairKind::Rc,
            Transport::Ud => QueuePairKind::Ud,
        },
        send_queue: &objects.queue,
        recv_queue: &objects.queue,
        shared_receive: objects.shared.as_ref(),
        sizes: QueueSizes {
            max_send_wr: count,
            max_recv_wr: if objects.shared.is_some() { 0 } else { count },
            max_send_sge: pieces,
            max_recv_sge: pieces,
            max_inline: INLINE_WANTED,
        },
        max_tso_header: 0,
    })
}

fn path(chosen: &Chosen) -> Path {
    Path {
        port: chosen.port,
        source_index: u8::try_from(chosen.gid.index).unwrap_or(u8::MAX),
        destination: chosen.gid.gid,
        lid: chosen.lid,
        service_level: 0,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
    }
}

fn ready(
    pair: QueuePair<Init>,
    chosen: &Chosen,
    transport: Transport,
    peer: u32,
) -> Result<QueuePair<Rts>, DeviceError> {
    let (receive, send) = match transport {
        Transport::Ud => (ReceiveAttributes::Unconnected, SendAttributes::Datagram { psn: PSN }),
        Transport::Rc => (
            ReceiveAttributes::Reliable(ReliableReceive {
                path: path(chosen),
                mtu: chosen.mtu,
                queue_pair: peer,
                psn: PSN,
                min_rnr_timer: 12,
            }),
            SendAttributes::Reliable(ReliableSend {
                psn: PSN,
                timeout: 12,
                retry_count: 6,
                rnr_retry: 6,
            }),
        ),
    };
    pair.rtr(&receive)?.rts(&send)
}
