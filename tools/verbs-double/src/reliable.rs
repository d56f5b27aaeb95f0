//! The reliable connected transport: acknowledgements, retries, "receiver not ready", remote
//! access. One message counts as one packet; a loss is repaired by going back to the first message
//! that was not acknowledged.
//!
//! Source: InfiniBand Architecture Specification §9.7 for acknowledgement, NAK codes, timers and
//! retries; ibv_modify_qp(3) for the attributes that govern them.

use std::time::{Duration, Instant};

use crate::abi::consts::*;
use crate::abi::work::Wc;
use crate::address::gid_bytes;
use crate::faults::Direction;
use crate::message::{IMMEDIATE, Kind, Message, PROBE, ROCE_V2, SOLICITED, answer};
use crate::queue_pair::{Data, Extra, SendWqe};
use crate::transport::{Arrival, byte_len};
use crate::world::World;

/// State of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reliable {
    /// Number of the next message.
    pub(crate) next: u32,
    /// Number of the message that is expected.
    pub(crate) expected: u32,
    /// Leading entries of the send queue that were sent and not acknowledged.
    pub(crate) sent: usize,
    attempts: u32,
    not_ready: u32,
    timer: Option<Instant>,
    wait: Option<Instant>,
    refused: bool,
}

const MASK: u32 = 0xff_ffff;

/// The wait of each code of `min_rnr_timer`, in units of 10 µs: InfiniBand Architecture
/// Specification table 45.
const NOT_READY_WAIT: [u32; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

impl Reliable {
    /// When something is to be done without a message.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (self.timer, self.wait) {
            (Some(timer), Some(wait)) => Some(timer.min(wait)),
            (timer, wait) => timer.or(wait),
        }
    }

    /// Ends all timers.
    pub(crate) fn stop(&mut self) {
        (self.timer, self.wait, self.sent) = (None, None, 0);
    }

    fn go_back(&mut self) {
        (self.sent, self.timer) = (0, None);
    }
}

/// Local ACK timeout: 4.096 µs · 2^code; 0 means none (ibv_modify_qp(3), `timeout`).
fn timeout(code: u8) -> Option<Duration> {
    (code > 0).then(|| Duration::from_nanos(4096 << code))
}

impl World {
    /// Sends the next message of a queue pair; says whether there may be more.
    pub(crate) fn send_reliable(&mut self, handle: u32) -> bool {
        let Some(qp) = self.qps.get(handle) else { return false };
        let (device, number, pd, at) = (qp.device, qp.number, qp.pd, qp.rc.sent);
        let Some(wqe) = qp.sends.get(at) else { return false };
        if qp.rc.wait.is_some() {
            return false;
        }
        let mut verdict = wqe.verdict;
        if verdict.is_none() && wqe.psn.is_none() {
            verdict = self.faults.of_request(device, number, Direction::Send);
        }
        let payload = match wqe.opcode {
            WR_RDMA_READ => Ok(Vec::new()),
            _ => self.payload(pd, wqe),
        };
        let limit = self.devices[device].config.limits.max_msg_sz;
        let payload = payload.unwrap_or_else(|_| {
            verdict = verdict.or(Some(WC_LOC_PROT_ERR));
            Vec::new()
        });
        if byte_len(&payload) > limit {
            verdict = verdict.or(Some(WC_LOC_LEN_ERR));
        }
        if let Some(status) = verdict {
            self.give_verdict(handle, at, status);
            return false;
        }
        let Some(message) = self.request(handle, at, payload) else { return false };
        let Some(qp) = self.qps.get_mut(handle) else { return false };
        qp.rc.sent += 1;
        if qp.rc.timer.is_none() {
            qp.rc.timer = timeout(qp.attr.timeout).map(|wait| Instant::now() + wait);
        }
        self.transmit(device, message);
        true
    }

    /// Completes a send in error once it is the oldest.
    fn give_verdict(&mut self, handle: u32, at: usize, status: u32) {
        let Some(qp) = self.qps.get_mut(handle) else { return };
        if at > 0 {
            qp.sends[at].verdict = Some(status);
        } else if let Some(wqe) = qp.sends.pop_front() {
            self.complete_send(handle, &wqe, status);
            self.fail_sends(handle);
        }
    }

    /// The message of a send, which has its number from now on.
    fn request(&mut self, handle: u32, at: usize, payload: Vec<u8>) -> Option<Message> {
        let qp = self.qps.get_mut(handle)?;
        let attr = &qp.attr;
        let source = self.devices[qp.device].gid(u32::from(attr.ah_attr.sgid_index));
        let wqe = &mut qp.sends[at];
        if wqe.psn.is_some() {
            self.counters.messages_repeated += 1;
        }
        let psn = *wqe.psn.get_or_insert(qp.rc.next);
        if psn == qp.rc.next {
            qp.rc.next = (psn + 1) & MASK;
        }
        let immediate = matches!(wqe.opcode, WR_SEND_WITH_IMM | WR_RDMA_WRITE_WITH_IMM);
        let mut flags = if wqe.flags & SEND_SOLICITED != 0 { SOLICITED } else { 0 };
        flags |= if immediate { IMMEDIATE } else { 0 };
        let v2 = source.is_some_and(|gid| gid.kind == GID_TYPE_ROCE_V2);
        flags |= if v2 { ROCE_V2 } else { 0 };
        let message = Message {
            kind: match wqe.opcode {
                WR_RDMA_READ => Kind::ReadRequest,
                WR_RDMA_WRITE | WR_RDMA_WRITE_WITH_IMM => Kind::Write,
                _ => Kind::Send,
            },
            flags,
            source: qp.number,
            destination: attr.dest_qp_num,
            psn,
            immediate: wqe.immediate,
            address: wqe.remote.0,
            key: wqe.remote.1,
            length: read_length(wqe),
            level: attr.ah_attr.sl,
            class: attr.ah_attr.traffic_class,
            sgid: source.map_or([0; 16], |gid| gid.raw),
            dgid: gid_bytes(attr.ah_attr.dgid),
            payload,
            ..Message::default()
        };
        Some(message)
    }

    /// What timers do at `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        let due = |qp: &crate::queue_pair::Qp| qp.rc.deadline().is_some_and(|at| at <= now);
        for handle in self.qps.handles(due) {
            let Some(qp) = self.qps.get_mut(handle) else { continue };
            if qp.rc.wait.is_some_and(|at| at <= now) {
                qp.rc.wait = None;
            }
            if qp.rc.timer.is_some_and(|at| at <= now) {
                self.probe(handle);
            }
            self.ready.push_back(handle);
        }
        self.run();
    }

    /// No acknowledgement in time: sends the oldest message once more, or gives up. The others
    /// are sent again only if that one was new to the receiver, so that a slow receiver is not
    /// buried. While bytes for it have not left this process nothing is late.
    fn probe(&mut self, handle: u32) {
        let Some(qp) = self.qps.get_mut(handle) else { return };
        qp.rc.timer = timeout(qp.attr.timeout).map(|wait| Instant::now() + wait);
        let (device, pd, number) = (qp.device, qp.pd, qp.attr.dest_qp_num);
        let Some(wqe) = qp.sends.front().filter(|wqe| wqe.psn.is_some()).cloned() else {
            return qp.rc.stop();
        };
        if self.wire.unsent_to(number) {
            return;
        }
        qp.rc.attempts += 1;
        if qp.rc.attempts > u32::from(qp.attr.retry_cnt) {
            return self.give_verdict(handle, 0, WC_RETRY_EXC_ERR);
        }
        let payload = match wqe.opcode {
            WR_RDMA_READ => Ok(Vec::new()),
            _ => self.payload(pd, &wqe),
        };
        let Ok(payload) = payload else {
            return self.give_verdict(handle, 0, WC_LOC_PROT_ERR);
        };
        if let Some(mut message) = self.request(handle, 0, payload) {
            message.flags |= PROBE;
            self.transmit(device, message);
        }
    }

    /// Goes back to the oldest message, or gives up.
    fn try_again(&mut self, handle: u32) {
        let Some(qp) = self.qps.get_mut(handle) else { return };
        qp.rc.go_back();
        qp.rc.attempts += 1;
        if qp.rc.attempts > u32::from(qp.attr.retry_cnt) {
            self.give_verdict(handle, 0, WC_RETRY_EXC_ERR);
        }
    }

    /// An acknowledgement or a response came.
    pub(crate) fn answered(&mut self, message: &Message) {
        let Some(handle) = self.receiver(message, QPT_RC) else { return };
        let Some(qp) = self.qps.get_mut(handle) else { return };
        if qp.attr.dest_qp_num != message.source || !qp.sends_now() {
            return;
        }
        // All before it are acknowledged too (§9.7.5.1.2); it itself if it was done.
        let own = message.status == answer::OK;
        let upto = if own { message.psn } else { message.psn.wrapping_sub(1) & MASK };
        let response = (message.kind == Kind::ReadResponse).then_some(message);
        self.acknowledged(handle, upto, response);
        if message.flags & PROBE != 0 {
            // The oldest was lost, and what came behind it was refused.
            if let Some(qp) = self.qps.get_mut(handle) {
                qp.rc.go_back();
            }
        }
        match message.status {
            answer::OK => {}
            answer::NOT_READY => self.not_ready(handle, message.length),
            answer::SEQUENCE => self.try_again(handle),
            status => {
                let status = match status {
                    answer::ACCESS => WC_REM_ACCESS_ERR,
                    answer::OPERATION => WC_REM_OP_ERR,
                    _ => WC_REM_INV_REQ_ERR,
                };
                if let Some(qp) = self.qps.get_mut(handle) {
                    qp.rc.go_back();
                }
                self.give_verdict(handle, 0, status);
            }
        }
        self.ready.push_back(handle);
    }

    /// Completes sends up to a number; a read completes by its response only.
    fn acknowledged(&mut self, handle: u32, upto: u32, response: Option<&Message>) {
        while let Some(qp) = self.qps.get_mut(handle) {
            let Some(psn) = qp.sends.front().and_then(|wqe| wqe.psn) else { break };
            // Neither older than the oldest nor newer than the newest that was sent.
            let newest = qp.rc.next.wrapping_sub(1);
            let known = (upto.wrapping_sub(psn) & MASK) < 0x80_0000
                && (newest.wrapping_sub(upto) & MASK) < 0x80_0000;
            if !known {
                break;
            }
            let reads = qp.sends[0].opcode == WR_RDMA_READ;
            let bytes = response.filter(|response| response.psn == psn);
            if reads && bytes.is_none() {
                // Its response was lost.
                return self.try_again(handle);
            }
            let pd = qp.pd;
            let Some(wqe) = qp.sends.pop_front() else { break };
            qp.rc.sent = qp.rc.sent.saturating_sub(1);
            (qp.rc.attempts, qp.rc.not_ready) = (0, 0);
            let left = qp.sends.front().is_some_and(|wqe| wqe.psn.is_some());
            let wait = timeout(qp.attr.timeout).filter(|_| left);
            qp.rc.timer = wait.map(|wait| Instant::now() + wait);
            let mut status = WC_SUCCESS;
            if let (Some(response), Data::Sges(sges)) = (bytes.filter(|_| reads), &wqe.data)
                && self.regions.scatter(pd, sges, &response.payload).is_err()
            {
                status = WC_LOC_PROT_ERR;
            }
            self.complete_send(handle, &wqe, status);
            if status != WC_SUCCESS {
                return self.fail_sends(handle);
            }
        }
    }

    fn not_ready(&mut self, handle: u32, code: u32) {
        let Some(qp) = self.qps.get_mut(handle) else { return };
        qp.rc.go_back();
        qp.rc.not_ready += 1;
        // 7 means without end (ibv_modify_qp(3) and §9.7.5.2.8).
        if qp.attr.rnr_retry != 7 && qp.rc.not_ready > u32::from(qp.attr.rnr_retry) {
            return self.give_verdict(handle, 0, WC_RNR_RETRY_EXC_ERR);
        }
        let code = usize::try_from(code & 31).unwrap_or(0);
        let wait = Duration::from_micros(u64::from(NOT_READY_WAIT[code]) * 10);
        qp.rc.wait = Some(Instant::now() + wait);
    }

    /// A request came.
    pub(crate) fn respond(&mut self, message: &Message) {
        let Some(handle) = self.receiver(message, QPT_RC) else { return };
        let Some(qp) = self.qps.get_mut(handle) else { return };
        let known = qp.attr.dest_qp_num == message.source
            && gid_bytes(qp.attr.ah_attr.dgid) == message.sgid;
        if !known {
            self.counters.messages_unwanted += 1;
            return;
        }
        let (expected, reads) = (qp.rc.expected, message.kind == Kind::ReadRequest);
        let new = if message.psn == expected { message.flags & PROBE } else { 0 };
        let ahead = message.psn.wrapping_sub(expected) & MASK;
        if ahead >= 0x80_0000 && !reads {
            let last = expected.wrapping_sub(1) & MASK;
            return self.answer(handle, message, (answer::OK, last, 0), 0);
        }
        if ahead > 0 && ahead < 0x80_0000 {
            if !std::mem::replace(&mut qp.rc.refused, true) {
                self.answer(handle, message, (answer::SEQUENCE, expected, 0), 0);
            }
            return;
        }
        let status = match message.kind {
            Kind::Send => self.take_send(handle, message),
            Kind::Write => self.take_write(handle, message),
            _ => self.take_read(handle, message),
        };
        let Some(qp) = self.qps.get_mut(handle) else { return };
        let code = u32::from(qp.attr.min_rnr_timer);
        if status == answer::OK && ahead == 0 {
            qp.rc.expected = (expected + 1) & MASK;
            qp.rc.refused = false;
        }
        if status != answer::OK || !reads {
            self.answer(handle, message, (status, message.psn, code), new);
        }
    }

    /// Answers a message. The port is the queue pair's own, whatever state it is in now.
    fn answer(
        &mut self,
        handle: u32,
        to: &Message,
        (status, psn, length): (u8, u32, u32),
        flags: u8,
    ) {
        self.counters.not_ready_answers += u64::from(status == answer::NOT_READY);
        let kind = Kind::Ack;
        self.reply(handle, to, Message { kind, flags, status, psn, length, ..Message::default() });
    }

    fn reply(&mut self, handle: u32, to: &Message, reply: Message) {
        let Some(qp) = self.qps.get(handle) else { return };
        let reply = Message {
            source: qp.number,
            destination: to.source,
            sgid: to.dgid,
            dgid: to.sgid,
            ..reply
        };
        let device = qp.device;
        self.transmit(device, reply);
    }

    fn take_send(&mut self, handle: u32, message: &Message) -> u8 {
        let Some(wqe) = self.take_receive(handle) else { return answer::NOT_READY };
        let arrival = arrival(message, WC_OP_RECV, &message.payload);
        match self.land(handle, &wqe, arrival) {
            WC_SUCCESS => answer::OK,
            WC_LOC_LEN_ERR => answer::INVALID_REQUEST,
            _ => answer::OPERATION,
        }
    }

    fn allows(&self, handle: u32, right: u32) -> Option<u32> {
        let qp = self.qps.get(handle)?;
        (qp.attr.qp_access_flags & right != 0).then_some(qp.pd)
    }

    fn take_write(&mut self, handle: u32, message: &Message) -> u8 {
        let at = (message.key, message.address);
        let done = self
            .allows(handle, ACCESS_REMOTE_WRITE)
            .is_some_and(|pd| self.regions.write_remote(pd, at, &message.payload).is_ok());
        if !done {
            return self.access_violation(handle);
        }
        if message.flags & IMMEDIATE == 0 {
            return answer::OK;
        }
        let Some(wqe) = self.take_receive(handle) else { return answer::NOT_READY };
        let mut arrival = arrival(message, WC_OP_RECV_RDMA_WITH_IMM, &[]);
        arrival.wc.byte_len = byte_len(&message.payload);
        match self.land(handle, &wqe, arrival) {
            WC_SUCCESS => answer::OK,
            _ => answer::OPERATION,
        }
    }

    fn take_read(&mut self, handle: u32, message: &Message) -> u8 {
        let at = (message.key, message.address);
        let read = self
            .allows(handle, ACCESS_REMOTE_READ)
            .and_then(|pd| self.regions.read_remote(pd, at, message.length).ok());
        let Some(payload) = read else { return self.access_violation(handle) };
        let response = Message {
            kind: Kind::ReadResponse,
            flags: message.flags & PROBE,
            psn: message.psn,
            payload,
            ..Message::default()
        };
        self.reply(handle, message, response);
        answer::OK
    }

    /// A wrong remote access ends the responder too, with an event (ibv_get_async_event(3),
    /// `IBV_EVENT_QP_ACCESS_ERR`).
    fn access_violation(&mut self, handle: u32) -> u8 {
        const QP_ACCESS_ERR: u32 = 3;
        let context = self.qps.get(handle).map_or(u32::MAX, |qp| qp.context);
        self.object_event(context, QP_ACCESS_ERR, crate::events::Element::Qp(handle));
        self.fail_qp(handle);
        answer::ACCESS
    }
}

fn read_length(wqe: &SendWqe) -> u32 {
    match (&wqe.data, wqe.opcode) {
        (Data::Sges(sges), WR_RDMA_READ) => {
            sges.iter().fold(0u32, |sum, sge| sum.saturating_add(sge.length))
        }
        _ => 0,
    }
}

/// The completion of a message. Like rxe it bears `IBV_WC_GRH`, which means something for UD only
/// (ibv_poll_cq(3)).
fn arrival<'a>(message: &Message, opcode: u32, data: &'a [u8]) -> Arrival<'a> {
    let immediate = message.flags & IMMEDIATE != 0;
    let wc = Wc {
        opcode,
        byte_len: byte_len(data),
        imm_data: if immediate { message.immediate } else { 0 },
        wc_flags: WC_FLAG_GRH | if immediate { WC_FLAG_WITH_IMM } else { 0 },
        sl: message.level,
        ..Wc::default()
    };
    let solicited = message.flags & SOLICITED != 0;
    Arrival { data, wc, extra: Extra { flow_tag: 0, solicited } }
}
