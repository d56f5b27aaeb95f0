//! A socket's state: its ends, what waits to be read, what waits for a neighbour.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Readiness;
use super::config::{UdpConfig, UdpError};
use super::template::Template;
use crate::copy::{copy, copy_any};
use crate::frame::TxChecksum;
use crate::ip::{Marking, gather};
use crate::memory::{Memory, Piece};
use crate::ring::Ring;

/// Bytes that a queued datagram is charged besides its own.
const OVERHEAD: u32 = 64;

/// A UDP socket, named by a [`super::UdpId`]; its fields are the layer's own.
#[derive(Debug)]
pub struct UdpSocket {
    /// What it was bound to.
    pub(super) bound: SocketAddr,
    /// The same, but with the address that a connection chose.
    pub(super) local: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    pub(super) receive: ReceiveQueue,
    pub(super) template: Template,
    /// Frames that wait for a neighbour's address.
    pub(super) waiting: VecDeque<Waiting>,
    /// Frames in the layer's queue.
    pub(super) frames_queued: u16,
    /// What the peer said, until a call reports it.
    pub(super) error: Option<UdpError>,
    pub(super) may_broadcast: bool,
    pub(super) marking: Marking,
    /// Whether a call found no room to send.
    pub(super) blocked: bool,
    /// What somebody waits for: nothing, and it is never listed.
    pub(super) interest: Readiness,
    /// Whether it is in the list of events.
    pub(super) listed: bool,
    /// Whether it is in the list of those that hold receive slots.
    pub(super) holding: bool,
}

impl UdpSocket {
    pub(super) fn new(bound: SocketAddr) -> UdpSocket {
        UdpSocket {
            bound,
            local: bound,
            remote: None,
            receive: ReceiveQueue::default(),
            template: Template::default(),
            waiting: VecDeque::new(),
            frames_queued: 0,
            error: None,
            may_broadcast: false,
            marking: Marking::default(),
            blocked: false,
            interest: Readiness::NONE,
            listed: false,
            holding: false,
        }
    }

    /// What the socket is ready for.
    #[inline]
    pub(super) fn readiness(&self) -> Readiness {
        Readiness {
            readable: !self.receive.is_empty() || self.error.is_some(),
            writable: !self.blocked,
        }
    }
}

/// A frame that waits for the Ethernet address of `next_hop`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) next_hop: IpAddr,
    pub(super) piece: Piece,
    pub(super) checksum: Option<TxChecksum>,
}

/// Where a queued datagram's payload lies.
#[derive(Clone, Copy, Debug)]
enum Payload {
    /// In a receive slot.
    Slot(Piece),
    /// In so many slots, in the queue's chain.
    Chain(u16),
    /// Copied, among the queue's copies.
    Heap,
}

#[derive(Clone, Copy, Debug)]
struct Datagram {
    source: SocketAddr,
    len: u32,
    payload: Payload,
}

/// Most bytes of a datagram that is copied at once: what a message that lies in a slot of the soft
/// NIC has left for them.
const SHORT_MAX: usize = 58;

/// A short datagram that came while nothing was queued: copied at once, so that the buffer in which
/// it came takes the next frame as it is.
#[derive(Clone, Copy, Debug)]
struct Short {
    source: SocketAddr,
    /// None if there is no such datagram.
    len: Option<u8>,
    bytes: [u8; SHORT_MAX],
}

impl Default for Short {
    fn default() -> Short {
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Short { source, len: None, bytes: [0; SHORT_MAX] }
    }
}

impl Short {
    #[inline(always)]
    fn as_slice(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len?))
    }
}

/// Datagrams that wait to be read.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    /// The first of all, if it is there.
    short: Short,
    datagrams: Ring<Datagram>,
    /// The slots of datagrams that lie in several, in order.
    chain: VecDeque<Piece>,
    /// The payloads that were copied, in order.
    copies: VecDeque<Vec<u8>>,
    bytes: u32,
    slots: u32,
}

/// A datagram read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes written to the caller's buffer.
    pub len: usize,
    /// Bytes that the datagram had: more than `len` if the buffer was too short, and the rest is
    /// gone.
    pub datagram_len: usize,
    /// Who sent it.
    pub source: SocketAddr,
}

impl ReceiveQueue {
    pub(super) fn len(&self) -> usize {
        self.datagrams.len() + usize::from(self.short.len.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Receive slots held.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether a datagram of `len` bytes more is within the limits.
    pub(super) fn has_room(&self, len: u32, datagrams_max: u16, bytes_max: u32) -> bool {
        self.len() < usize::from(datagrams_max)
            && self.bytes.saturating_add(len).saturating_add(OVERHEAD) <= bytes_max
    }

    #[inline(always)]
    fn push(&mut self, source: SocketAddr, len: u32, payload: Payload) {
        self.bytes += len + OVERHEAD;
        self.datagrams.push_back(Datagram { source, len, payload });
    }

    /// Copies a short payload if nothing is queued; otherwise, or if it has no room, does nothing.
    #[inline(always)]
    pub(super) fn push_short(
        &mut self,
        source: SocketAddr,
        payload: &[u8],
        config: &UdpConfig,
    ) -> bool {
        let len = u8::try_from(payload.len()).unwrap_or(u8::MAX);
        let Some(place) = self.short.bytes.get_mut(..payload.len()) else { return false };
        // Each datagram is charged for, so without a charge there is none.
        let charge = u32::from(len) + OVERHEAD;
        if self.bytes != 0 || charge > config.receive_bytes || config.receive_datagrams == 0 {
            return false;
        }
        copy(place, payload);
        self.short.len = Some(len);
        self.short.source = source;
        self.bytes = charge;
        true
    }

    /// Queues a payload where it lies, in one slot.
    #[inline(always)]
    pub(super) fn push_slot(&mut self, source: SocketAddr, piece: Piece) {
        self.slots += 1;
        self.push(source, piece.len, Payload::Slot(piece));
    }

    /// Queues a payload where it lies, in several slots.
    pub(super) fn push_chain(&mut self, source: SocketAddr, pieces: &[Piece]) {
        let count = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
        let len = pieces.iter().map(|piece| piece.len).sum();
        self.chain.extend(pieces.iter().take(usize::from(count)).copied());
        self.slots += u32::from(count);
        self.push(source, len, Payload::Chain(count));
    }

    /// Queues a copy.
    pub(super) fn push_heap(&mut self, source: SocketAddr, bytes: Vec<u8>) {
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        self.copies.push_back(bytes);
        self.push(source, len, Payload::Heap);
    }

    /// Copies the oldest datagram into `buffer` and takes it out, if it lies in one place: the
    /// bytes copied.
    #[inline(always)]
    pub(super) fn pop_short<M: Memory>(&mut self, buffer: &mut [u8], mem: &mut M) -> Option<usize> {
        if let Some(bytes) = self.short.as_slice() {
            let len = bytes.len().min(buffer.len());
            copy(&mut buffer[..len], &bytes[..len]);
            self.drop_short();
            return Some(len);
        }
        let datagram = self.datagrams.get(0)?;
        let Payload::Slot(piece) = datagram.payload else { return None };
        let bytes = mem.bytes(piece);
        let len = bytes.len().min(buffer.len());
        copy_any::<M>(&mut buffer[..len], &bytes[..len]);
        self.bytes -= datagram.len + OVERHEAD;
        self.slots -= 1;
        self.datagrams.drop_front(1);
        mem.release(piece.slot);
        Some(len)
    }

    #[inline(always)]
    fn drop_short(&mut self) {
        self.bytes -= u32::from(self.short.len.take().unwrap_or(0)) + OVERHEAD;
    }

    /// Copies the oldest datagram into `buffer` and takes it out.
    #[inline]
    pub(super) fn pop<M: Memory>(&mut self, buffer: &mut [u8], mem: &mut M) -> Option<Received> {
        if self.short.len.is_some() {
            return self.pop_slowly(buffer, mem);
        }
        let Datagram { source, len, payload } = *self.datagrams.get(0)?;
        let Payload::Slot(piece) = payload else {
            return self.pop_slowly(buffer, mem);
        };
        let copied = copy_into(buffer, mem.bytes(piece));
        self.bytes -= len + OVERHEAD;
        self.slots -= 1;
        self.datagrams.pop_front();
        mem.release(piece.slot);
        Some(Received { len: copied, datagram_len: len as usize, source })
    }

    /// The same for a datagram that does not lie in one slot.
    #[inline(never)]
    fn pop_slowly<M: Memory>(&mut self, buffer: &mut [u8], mem: &mut M) -> Option<Received> {
        let received = self.peek(buffer, mem)?;
        self.discard(mem);
        Some(received)
    }

    /// Copies the oldest datagram into `buffer` and leaves it.
    pub(super) fn peek<M: Memory>(&self, buffer: &mut [u8], mem: &M) -> Option<Received> {
        if let Some(bytes) = self.short.as_slice() {
            let (len, datagram_len) = (copy_into(buffer, bytes), bytes.len());
            return Some(Received { len, datagram_len, source: self.short.source });
        }
        let datagram = self.datagrams.get(0)?;
        let len = match datagram.payload {
            Payload::Slot(piece) => copy_into(buffer, mem.bytes(piece)),
            Payload::Heap => copy_into(buffer, self.copies.front()?),
            Payload::Chain(count) => {
                let mut done = 0;
                for piece in self.chain.iter().take(usize::from(count)) {
                    done += copy_into(&mut buffer[done..], mem.bytes(*piece));
                }
                done
            }
        };
        Some(Received { len, datagram_len: datagram.len as usize, source: datagram.source })
    }

    /// Takes the oldest datagram out; `false` if there is none.
    pub(super) fn discard<M: Memory>(&mut self, mem: &mut M) -> bool {
        if self.short.len.is_some() {
            self.drop_short();
            return true;
        }
        let Some(datagram) = self.datagrams.pop_front() else { return false };
        self.bytes -= datagram.len + OVERHEAD;
        match datagram.payload {
            Payload::Heap => {
                self.copies.pop_front();
            }
            Payload::Slot(piece) => {
                self.slots -= 1;
                mem.release(piece.slot);
            }
            Payload::Chain(count) => {
                self.slots -= u32::from(count);
                for piece in self.chain.drain(..usize::from(count)) {
                    mem.release(piece.slot);
                }
            }
        }
        true
    }

    /// Copies every datagram out of its slots and gives those back; answers how many it copied.
    pub(super) fn compact<M: Memory>(&mut self, mem: &mut M) -> u64 {
        if self.slots == 0 {
            return 0;
        }
        let mut copied = 0;
        let mut copies = VecDeque::with_capacity(self.datagrams.len());
        for at in 0..self.datagrams.len() {
            let Some(datagram) = self.datagrams.get_mut(at) else { break };
            match datagram.payload {
                Payload::Heap => copies.extend(self.copies.pop_front()),
                Payload::Slot(piece) => {
                    copies.push_back(mem.bytes(piece).to_vec());
                    mem.release(piece.slot);
                    copied += 1;
                }
                Payload::Chain(count) => {
                    let pieces: Vec<Piece> = self.chain.drain(..usize::from(count)).collect();
                    copies.push_back(gather(&pieces, 0, datagram.len, mem));
                    pieces.iter().for_each(|piece| mem.release(piece.slot));
                    copied += 1;
                }
            }
            datagram.payload = Payload::Heap;
        }
        self.copies = copies;
        self.slots = 0;
        copied
    }
}

fn copy_into(buffer: &mut [u8], bytes: &[u8]) -> usize {
    let len = bytes.len().min(buffer.len());
    buffer[..len].copy_from_slice(&bytes[..len]);
    len
}
