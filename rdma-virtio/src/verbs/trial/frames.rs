//! A RAW_PACKET queue pair with rules: whole Ethernet frames out and in.
//!
//! Owns queue pair, rules and memory. What was received is copied out and its receive posted again
//! at once, so that only a burst longer than [`RECEIVES`] is lost.

use std::time::{Duration, Instant};

use super::memory::Memory;
use super::{BATCH, collect, failed, find, trouble};
use crate::nic::DeviceError;
use crate::verbs::completion::{CompletionQueue, CompletionQueueOptions};
use crate::verbs::context::Context;
use crate::verbs::domain::ProtectionDomain;
use crate::verbs::flow::{Flow, FlowRule};
use crate::verbs::queue_pair::{QueuePair, QueuePairKind, QueuePairOptions, QueueSizes, Rts};
use crate::verbs::transition::{InitAttributes, ReceiveAttributes, SendAttributes};
use crate::verbs::work_completion::{CompletionKind, CompletionStatus, WorkCompletion};
use crate::verbs::work_list::{Operation, ReceiveList, SendList, SendListSize, SendRequest};

/// Receives that are posted.
pub const RECEIVES: usize = 128;
/// Longest frame that is received: an MTU of 9000 and the headers.
pub const FRAME_MAX: usize = 9216;
/// Longest payload of a large send.
pub const LARGE_MAX: usize = 65_536;
/// Headers of a large send (Ethernet, IPv6, TCP with all options, rounded).
pub const HEADER_MAX: u16 = 118;
const INLINE_WANTED: u32 = 220;

/// What the device claims of raw packets, and what the queue pair was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claims {
    /// Checksums of sends (`IBV_RAW_PACKET_CAP_IP_CSUM` and its older forms).
    pub checksum: bool,
    /// Longest payload that is segmented; 0 for none.
    pub tso: u32,
    /// Flow rules.
    pub steering: bool,
    /// Bytes of an inline send.
    pub inline: usize,
}

/// How a frame is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// The device completes the checksums.
    pub checksum: bool,
    /// Inline, and the memory is overwritten as soon as it is posted.
    pub inline: bool,
    /// The device cuts it: the length of its headers, and of each segment's payload.
    pub cut: Option<(usize, u16)>,
}

/// A frame that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// From the Ethernet header on, without check sequence.
    pub bytes: Vec<u8>,
    /// Whether the device says that it has verified the checksums.
    pub verified: bool,
}

/// The queue pair.
pub struct Frames {
    // Rules go before their queue pair, and that before the memory that it names.
    rules: Vec<Flow>,
    pair: QueuePair<Rts>,
    send_queue: CompletionQueue,
    recv_queue: CompletionQueue,
    _domain: ProtectionDomain,
    _context: Context,
    memory: Memory,
    receives: ReceiveList,
    sends: SendList,
    claims: Claims,
    name: String,
    port: u8,
}

/// Where sends lie, behind the receives.
const SEND_AT: usize = RECEIVES * FRAME_MAX;

impl Frames {
    /// Opens a device and makes a queue pair; it receives nothing before there is a rule.
    ///
    /// # Errors
    /// The call that failed: without CAP_NET_RAW, or where the device has no such queue pairs.
    pub fn open(name: &str) -> Result<Frames, DeviceError> {
        let found = find(name)?;
        let context = found.context;
        let attributes = context.attributes()?;
        let tso = if attributes.tso.raw_packet { attributes.tso.max_bytes } else { 0 };
        let queue = |entries: usize| {
            context.completion_queue(&CompletionQueueOptions {
                entries: u32::try_from(entries).unwrap_or(u32::MAX),
                channel: None,
                vector: 0,
                token: 0,
            })
        };
        let (send_queue, recv_queue) = (queue(16)?, queue(2 * RECEIVES)?);
        let domain = context.protection_domain()?;
        let pair = domain.queue_pair_fitting(&QueuePairOptions {
            kind: QueuePairKind::RawPacket,
            send_queue: &send_queue,
            recv_queue: &recv_queue,
            shared_receive: None,
            sizes: QueueSizes {
                max_send_wr: 8,
                max_recv_wr: u32::try_from(RECEIVES).unwrap_or(u32::MAX),
                max_send_sge: 2,
                max_recv_sge: 1,
                max_inline: INLINE_WANTED,
            },
            max_tso_header: if tso > 0 { HEADER_MAX } else { 0 },
        })?;
        let inline = usize::try_from(pair.sizes().max_inline).unwrap_or(0);
        let init = InitAttributes { port: found.port, pkey_index: 0, qkey: 0 };
        let pair = pair.init(&init)?.rtr(&ReceiveAttributes::Unconnected)?;
        let pair = pair.rts(&SendAttributes::RawPacket)?;
        let memory = Memory::new(&domain, SEND_AT + usize::from(HEADER_MAX) + LARGE_MAX)?;
        let header = usize::from(HEADER_MAX);
        let mut frames = Frames {
            rules: Vec::new(),
            pair,
            send_queue,
            recv_queue,
            _domain: domain,
            _context: context,
            memory,
            receives: ReceiveList::new(RECEIVES, 1),
            sends: SendList::new(SendListSize { requests: 1, sges: 2, header, copies: false }),
            claims: Claims {
                checksum: attributes.raw_checksum,
                tso,
                steering: attributes.flow_steering,
                inline,
            },
            name: name.to_owned(),
            port: found.port,
        };
        for place in 0..RECEIVES {
            frames.push_receive(place)?;
        }
        frames.post_receives()?;
        Ok(frames)
    }

    /// What is claimed.
    #[must_use]
    pub fn claims(&self) -> Claims {
        self.claims
    }

    /// The device's port, for rules.
    #[must_use]
    pub fn port(&self) -> u8 {
        self.port
    }

    /// Adds a rule, which holds until [`Frames::forget_rules`].
    ///
    /// # Errors
    /// If the device or the kernel refuses it.
    pub fn add_rule(&mut self, rule: &FlowRule) -> Result<(), DeviceError> {
        self.rules.push(self.pair.flow(rule)?);
        Ok(())
    }

    /// Ends all rules.
    pub fn forget_rules(&mut self) {
        self.rules.clear();
    }

    /// Sends a frame and waits for its completion.
    ///
    /// # Errors
    /// The call that failed, or how it completed.
    pub fn send(&mut self, frame: &[u8], manner: &Manner) -> Result<(), DeviceError> {
        let header = manner.cut.map_or(0, |(header, _)| header);
        if frame.len() > usize::from(HEADER_MAX) + LARGE_MAX || header >= frame.len() {
            return Err(trouble(&self.name, "ibv_post_send", "no such frame".to_owned()));
        }
        self.memory.write(SEND_AT, frame);
        let sges = self.memory.sges(SEND_AT + header, frame.len() - header, 2);
        let request = SendRequest {
            wr_id: 0,
            sges: &sges,
            operation: match manner.cut {
                None => Operation::Send,
                Some((length, mss)) => Operation::Tso { header: &frame[..length], mss },
            },
            signalled: true,
            solicited: false,
            checksum: manner.checksum,
            destination: None,
        };
        let pushed = if manner.inline {
            // SAFETY: the elements are bytes of `memory`, which lives as long as the list.
            unsafe { self.sends.push_inline(&request) }
        } else {
            self.sends.push(&request)
        };
        pushed.map_err(|error| trouble(&self.name, "ibv_post_send", error.to_string()))?;
        let posted = self.pair.post_send(&mut self.sends);
        posted.map_err(|failure| {
            self.sends.clear();
            trouble(&self.name, "ibv_post_send", failure.to_string())
        })?;
        if manner.inline {
            self.memory.fill(SEND_AT, frame.len(), 0);
        }
        collect(&self.name, &self.send_queue, |completion| {
            completion.kind() == CompletionKind::Send
        })
    }

    /// Takes frames until there are `most`, or `limit` is over.
    ///
    /// # Errors
    /// If the queue fails.
    pub fn receive(&mut self, most: usize, limit: Duration) -> Result<Vec<Frame>, DeviceError> {
        let deadline = Instant::now() + limit;
        let mut frames = Vec::new();
        let mut out = [WorkCompletion::default(); BATCH];
        while frames.len() < most {
            let found = self.recv_queue.poll(&mut out).map_err(|failure| {
                trouble(&self.name, "ibv_poll_cq", format!("the queue failed: {failure}"))
            })?;
            for completion in &out[..found.min(BATCH)] {
                if completion.status() != CompletionStatus::Success {
                    return Err(failed(&self.name, completion));
                }
                frames.extend(self.take(completion)?);
            }
            self.post_receives()?;
            if found > 0 {
                continue;
            }
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(frames)
    }

    fn take(&mut self, completion: &WorkCompletion) -> Result<Option<Frame>, DeviceError> {
        let place = usize::try_from(completion.wr_id()).unwrap_or(usize::MAX);
        let length = usize::try_from(completion.byte_len()).unwrap_or(usize::MAX);
        if place >= RECEIVES || length > FRAME_MAX {
            return Ok(None);
        }
        let bytes = self.memory.read(place * FRAME_MAX, length);
        self.push_receive(place)?;
        Ok(Some(Frame { bytes, verified: completion.checksum_verified() }))
    }

    fn push_receive(&mut self, place: usize) -> Result<(), DeviceError> {
        let sge = self.memory.sge(place * FRAME_MAX, FRAME_MAX);
        let pushed = self.receives.push(u64::try_from(place).unwrap_or(u64::MAX), &[sge]);
        pushed.map_err(|error| trouble(&self.name, "ibv_post_recv", error.to_string()))
    }

    fn post_receives(&mut self) -> Result<(), DeviceError> {
        if self.receives.is_empty() {
            return Ok(());
        }
        let posted = self.pair.post_recv(&mut self.receives);
        posted.map_err(|failure| trouble(&self.name, "ibv_post_recv", failure.to_string()))
    }
}
