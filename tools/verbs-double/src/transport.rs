//! What all transports share: executing sends in order, finding the receiver, taking receives.

use crate::abi::consts::*;
use crate::abi::work::Wc;
use crate::faults::Direction;
use crate::memory::Denied;
use crate::message::{Kind, Message};
use crate::queue_pair::{Data, Extra, SendWqe};
use crate::shared_receive::RecvWqe;
use crate::world::World;

/// Number of a datagram's receiver that means a group.
pub(crate) const MULTICAST: u32 = 0xff_ffff;

impl World {
    /// Executes what a queue pair has to send.
    pub(crate) fn progress(&mut self, handle: u32) {
        while let Some(qp) = self.qps.get(handle) {
            let (state, kind) = (qp.state, qp.kind);
            let stalled = self.devices.get(qp.device).is_none_or(|device| device.loss.stalled);
            match state {
                QPS_SQE | QPS_ERR => return self.flush_sends(handle),
                QPS_RTS if !stalled => {}
                _ => return,
            }
            let more = match kind {
                QPT_RC => self.send_reliable(handle),
                _ => self.send_unreliable(handle),
            };
            if !more {
                return;
            }
        }
    }

    /// Executes the oldest send of a UD or RAW_PACKET queue pair.
    fn send_unreliable(&mut self, handle: u32) -> bool {
        let Some(qp) = self.qps.get_mut(handle) else { return false };
        let (kind, device, number) = (qp.kind, qp.device, qp.number);
        let Some(wqe) = qp.sends.pop_front() else { return false };
        let forced = self.faults.of_request(device, number, Direction::Send);
        let status = match forced {
            Some(status) => status,
            None if kind == QPT_UD => self.send_datagram(handle, &wqe),
            None => self.send_raw(handle, &wqe),
        };
        self.complete_send(handle, &wqe, status);
        if status != WC_SUCCESS {
            self.fail_sends(handle);
        }
        true
    }

    /// The payload of a send.
    ///
    /// # Errors
    /// If an SGE fails the checks of memory protection.
    pub(crate) fn payload(&self, pd: u32, wqe: &SendWqe) -> Result<Vec<u8>, Denied> {
        match &wqe.data {
            Data::Inline(bytes) => Ok(bytes.clone()),
            Data::Sges(sges) => {
                let mut out = Vec::new();
                self.regions.gather(pd, sges, &mut out)?;
                Ok(out)
            }
        }
    }

    /// Whether a device can send or receive now.
    pub(crate) fn is_live(&self, device: usize) -> bool {
        self.devices.get(device).is_some_and(|device| device.up && !device.dead)
    }

    /// Sends a message of a queue pair to another, in this process or another.
    pub(crate) fn transmit(&mut self, device: usize, message: Message) {
        self.counters.messages_sent += 1;
        if !self.is_live(device) {
            self.counters.dropped_port_down += 1;
            return;
        }
        if self.loses(device) {
            return;
        }
        if message.destination == MULTICAST {
            self.send_to_all(&message);
            self.inbox.push_back(message);
        } else if self.wire.is_here(message.destination) {
            self.inbox.push_back(message);
        } else {
            self.send_to(&message);
        }
    }

    /// Whether the next message of a device is lost on purpose.
    pub(crate) fn loses(&mut self, device: usize) -> bool {
        let Some(device) = self.devices.get_mut(device) else { return true };
        let lost = self.faults.loses(&mut device.loss);
        self.counters.lost_on_purpose += u64::from(lost);
        lost
    }

    /// Gives a message to its receiver.
    pub(crate) fn deliver(&mut self, message: &Message) {
        match message.kind {
            Kind::Frame => self.deliver_frame(message),
            Kind::Datagram => self.deliver_datagram(message),
            Kind::Send | Kind::Write | Kind::ReadRequest => self.respond(message),
            Kind::ReadResponse | Kind::Ack => self.answered(message),
            Kind::Hello => {}
        }
    }

    /// The queue pair that a message of its transport is for, if it takes messages now and its
    /// port has the address.
    pub(crate) fn receiver(&mut self, message: &Message, kind: u32) -> Option<u32> {
        let handle = self.numbers.get(&message.destination).copied();
        let fits = handle.and_then(|handle| self.qps.get(handle)).is_some_and(|qp| {
            let device = &self.devices[qp.device];
            qp.kind == kind
                && qp.receives_now()
                && device.up
                && !device.dead
                && device.has_gid(&message.dgid)
        });
        if !fits {
            self.counters.messages_unwanted += 1;
        }
        handle.filter(|_| fits)
    }

    /// Takes the next receive of a queue pair, its own or a shared one.
    pub(crate) fn take_receive(&mut self, handle: u32) -> Option<RecvWqe> {
        match self.qps.get(handle)?.srq {
            Some(srq) => self.take_shared(srq),
            None => self.qps.get_mut(handle)?.receives.pop_front(),
        }
    }

    /// Puts a message into a receive and completes it; an error completes it too and puts the
    /// queue pair into ERR. Returns the status.
    pub(crate) fn land(&mut self, handle: u32, wqe: &RecvWqe, arrival: Arrival<'_>) -> u32 {
        let Some(qp) = self.qps.get(handle) else { return WC_LOC_QP_OP_ERR };
        let (device, number, pd) = (qp.device, qp.number, qp.pd);
        let room: u64 = wqe.sges.iter().map(|sge| u64::from(sge.length)).sum();
        let status = match self.faults.of_request(device, number, Direction::Receive) {
            Some(status) => status,
            None if arrival.data.len() as u64 > room => WC_LOC_LEN_ERR,
            None => match self.regions.scatter(pd, &wqe.sges, arrival.data) {
                Ok(()) => WC_SUCCESS,
                Err(Denied) => WC_LOC_PROT_ERR,
            },
        };
        let wc = Wc { status, ..arrival.wc };
        self.complete_receive(handle, wqe, wc, arrival.extra);
        if status != WC_SUCCESS {
            self.fail_qp(handle);
        }
        status
    }
}

/// A message that lands in a receive.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// Its bytes.
    pub(crate) data: &'a [u8],
    /// The completion, without what the receive itself knows.
    pub(crate) wc: Wc,
    /// What stands beside it.
    pub(crate) extra: Extra,
}

/// The length of a message as completions bear it.
pub(crate) fn byte_len(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
