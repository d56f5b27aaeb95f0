//! Queue pairs: their states and what each transition asks for.
//!
//! Source: the tables of ibv_modify_qp(3) for the attributes that a transition needs, and "if any
//! of the modify attributes or the modify mask are invalid, none of the attributes will be
//! modified". The attributes that a transition may have beside them are those of the InfiniBand
//! Architecture Specification, table 91 (modifiers of Modify Queue Pair).

use std::collections::VecDeque;

use crate::abi::consts::{self, *};
use crate::abi::objects::{QpAttr, QpCap};
use crate::abi::work::{Sge, Wc};
use crate::address;
use crate::completion::{Entry, Release};
use crate::events::Element;
use crate::reliable::Reliable;
use crate::shared_receive::RecvWqe;
use crate::world::World;

/// The bytes of a send.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Named by SGEs, read when it is sent.
    Sges(Vec<Sge>),
    /// Read when it was posted.
    Inline(Vec<u8>),
}

/// A posted send.
#[derive(Clone, Debug)]
pub(crate) struct SendWqe {
    /// Comes back in the completion.
    pub(crate) wr_id: u64,
    /// `enum ibv_wr_opcode`.
    pub(crate) opcode: u32,
    /// `enum ibv_send_flags`.
    pub(crate) flags: u32,
    /// Its payload.
    pub(crate) data: Data,
    /// Immediate data.
    pub(crate) immediate: u32,
    /// Remote address and key.
    pub(crate) remote: (u64, u32),
    /// Address handle, queue pair number and key.
    pub(crate) datagram: (u32, u32, u32),
    /// TSO header.
    pub(crate) header: Vec<u8>,
    /// TSO segment size.
    pub(crate) mss: u16,
    /// Position since the queue pair was made.
    pub(crate) sequence: u64,
    /// Packet sequence number, once it was sent.
    pub(crate) psn: Option<u32>,
    /// The status that it will complete with, once those before it are done.
    pub(crate) verdict: Option<u32>,
}

/// A queue pair.
pub(crate) struct Qp {
    /// Number of its device.
    pub(crate) device: usize,
    /// Handle of its context.
    pub(crate) context: u32,
    /// Handle of its protection domain.
    pub(crate) pd: u32,
    /// Address of its structure.
    pub(crate) pointer: usize,
    /// `qp_num`.
    pub(crate) number: u32,
    /// `enum ibv_qp_type`.
    pub(crate) kind: u32,
    /// `enum ibv_qp_state`.
    pub(crate) state: u32,
    /// Limits as created.
    pub(crate) cap: QpCap,
    /// Longest TSO header.
    pub(crate) tso_header_max: u16,
    /// Handle of the send completion queue.
    pub(crate) send_cq: u32,
    /// Handle of the receive completion queue.
    pub(crate) recv_cq: u32,
    /// Handle of the shared receive queue.
    pub(crate) srq: Option<u32>,
    /// Whether every send is signalled.
    pub(crate) signal_all: bool,
    /// Attributes as modified.
    pub(crate) attr: QpAttr,
    /// Sends that are not complete.
    pub(crate) sends: VecDeque<SendWqe>,
    /// Sends posted so far.
    pub(crate) send_posted: u64,
    /// Sends whose place is free again.
    pub(crate) send_freed: u64,
    /// Receives posted.
    pub(crate) receives: VecDeque<RecvWqe>,
    /// Receives posted and not yet polled.
    pub(crate) recv_outstanding: u32,
    /// State of the reliable transport.
    pub(crate) rc: Reliable,
    /// Multicast groups.
    pub(crate) groups: Vec<[u8; 16]>,
    /// Events fetched and not acknowledged.
    pub(crate) async_unacked: u32,
}

/// Needed and allowed attributes of a transition, beyond the state itself.
fn masks(kind: u32, from: u32, to: u32) -> Option<(i32, i32)> {
    let (rc, ud) = (kind == QPT_RC, kind == QPT_UD);
    let own = |for_rc, for_ud, for_raw| match kind {
        QPT_RC => for_rc,
        QPT_UD => for_ud,
        _ => for_raw,
    };
    let init =
        own(QP_PKEY_INDEX | QP_PORT | QP_ACCESS_FLAGS, QP_PKEY_INDEX | QP_PORT | QP_QKEY, QP_PORT);
    let settled = own(
        QP_CUR_STATE | QP_ACCESS_FLAGS | QP_MIN_RNR_TIMER | QP_ALT_PATH | QP_PATH_MIG_STATE,
        QP_CUR_STATE | QP_QKEY,
        QP_CUR_STATE | QP_RATE_LIMIT,
    );
    Some(match (from, to) {
        (_, QPS_RESET | QPS_ERR) => (0, 0),
        (QPS_RESET, QPS_INIT) => (init, 0),
        (QPS_INIT, QPS_INIT) => (0, init),
        (QPS_INIT, QPS_RTR) if rc => (
            QP_AV
                | QP_PATH_MTU
                | QP_DEST_QPN
                | QP_RQ_PSN
                | QP_MAX_DEST_RD_ATOMIC
                | QP_MIN_RNR_TIMER,
            QP_ALT_PATH | QP_ACCESS_FLAGS | QP_PKEY_INDEX,
        ),
        (QPS_INIT, QPS_RTR) => (0, if ud { QP_PKEY_INDEX | QP_QKEY } else { 0 }),
        (QPS_RTR, QPS_RTS) if rc => {
            (QP_TIMEOUT | QP_RETRY_CNT | QP_RNR_RETRY | QP_SQ_PSN | QP_MAX_QP_RD_ATOMIC, settled)
        }
        (QPS_RTR, QPS_RTS) => (if ud { QP_SQ_PSN } else { 0 }, settled),
        (QPS_RTS, QPS_RTS) | (QPS_SQD, QPS_RTS) => (0, settled),
        (QPS_RTS, QPS_SQD) => (0, QP_EN_SQD_ASYNC_NOTIFY),
        (QPS_SQD, QPS_SQD) => (0, settled),
        // The reliable transport has no state SQE.
        (QPS_SQE, QPS_RTS) if !rc => (0, settled),
        _ => return None,
    })
}

/// Whether the values named by the mask are in their ranges.
fn values_hold(world: &World, device: usize, attr: &QpAttr, mask: i32) -> bool {
    let has = |bit: i32| mask & bit != 0;
    let Some(own) = world.devices.get(device) else { return false };
    let atoms = own.config.limits.max_rd_atom;
    let mtu = own.port().compat.active_mtu;
    let rights = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ;
    (!has(QP_PORT) || attr.port_num == 1)
        && (!has(QP_PKEY_INDEX) || attr.pkey_index == 0)
        && (!has(QP_PATH_MTU) || (MTU_256..=mtu).contains(&attr.path_mtu))
        && (!has(QP_DEST_QPN) || attr.dest_qp_num <= 0xff_ffff)
        && (!has(QP_RQ_PSN) || attr.rq_psn <= 0xff_ffff)
        && (!has(QP_SQ_PSN) || attr.sq_psn <= 0xff_ffff)
        && (!has(QP_TIMEOUT) || attr.timeout <= 31)
        && (!has(QP_RETRY_CNT) || attr.retry_cnt <= 7)
        && (!has(QP_RNR_RETRY) || attr.rnr_retry <= 7)
        && (!has(QP_MIN_RNR_TIMER) || attr.min_rnr_timer <= 31)
        && (!has(QP_MAX_QP_RD_ATOMIC) || u32::from(attr.max_rd_atomic) <= atoms)
        && (!has(QP_MAX_DEST_RD_ATOMIC) || u32::from(attr.max_dest_rd_atomic) <= atoms)
        && (!has(QP_ACCESS_FLAGS) || attr.qp_access_flags & !(rights | ACCESS_REMOTE_ATOMIC) == 0)
        && (!has(QP_AV) || address::is_usable(world, device, &attr.ah_attr))
        && !has(QP_ALT_PATH | QP_PATH_MIG_STATE)
}

impl Qp {
    /// Takes over the attributes of the mask.
    fn assign(&mut self, new: &QpAttr, mask: i32) {
        let attr = &mut self.attr;
        macro_rules! take {
            ($($bit:ident => $field:ident),+ $(,)?) => {
                $(if mask & consts::$bit != 0 { attr.$field = new.$field; })+
            };
        }
        take! {
            QP_ACCESS_FLAGS => qp_access_flags, QP_PKEY_INDEX => pkey_index, QP_PORT => port_num,
            QP_QKEY => qkey, QP_AV => ah_attr, QP_PATH_MTU => path_mtu, QP_TIMEOUT => timeout,
            QP_RETRY_CNT => retry_cnt, QP_RNR_RETRY => rnr_retry, QP_RQ_PSN => rq_psn,
            QP_MAX_QP_RD_ATOMIC => max_rd_atomic, QP_MIN_RNR_TIMER => min_rnr_timer,
            QP_SQ_PSN => sq_psn, QP_MAX_DEST_RD_ATOMIC => max_dest_rd_atomic,
            QP_DEST_QPN => dest_qp_num, QP_RATE_LIMIT => rate_limit,
        }
        if mask & QP_RQ_PSN != 0 {
            self.rc.expected = new.rq_psn;
        }
        if mask & QP_SQ_PSN != 0 {
            self.rc.next = new.sq_psn;
        }
    }

    /// Whether it executes sends.
    pub(crate) fn sends_now(&self) -> bool {
        self.state == QPS_RTS
    }

    /// Whether it takes messages.
    pub(crate) fn receives_now(&self) -> bool {
        matches!(self.state, QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE)
    }
}

impl World {
    /// ibv_modify_qp(3).
    ///
    /// # Errors
    /// `EINVAL` for a transition, a mask or a value that does not hold; nothing changed then.
    pub(crate) fn modify_qp(&mut self, handle: u32, attr: &QpAttr, mask: i32) -> Result<(), i32> {
        let qp = self.qps.get(handle).ok_or(libc::EINVAL)?;
        let (device, from) = (qp.device, qp.state);
        let to = if mask & QP_STATE != 0 { attr.qp_state } else { from };
        let (needed, allowed) = masks(qp.kind, from, to).ok_or(libc::EINVAL)?;
        let given = mask & !QP_STATE;
        let current = mask & QP_CUR_STATE == 0 || attr.cur_qp_state == from;
        let complete = given & needed == needed && given & !(needed | allowed) == 0;
        if !current || !complete || !values_hold(self, device, attr, given) {
            return Err(libc::EINVAL);
        }
        if self.devices.get(device).is_none_or(|device| device.dead) {
            return Err(libc::EIO);
        }
        if let Some(qp) = self.qps.get_mut(handle) {
            qp.assign(attr, given);
        }
        match to {
            QPS_RESET => self.reset_qp(handle),
            QPS_ERR => self.fail_qp(handle),
            _ => self.set_state(handle, to),
        }
        self.ready.push_back(handle);
        self.run();
        Ok(())
    }

    /// Writes the state here and into the structure that the program sees.
    pub(crate) fn set_state(&mut self, handle: u32, state: u32) {
        let Some(qp) = self.qps.get_mut(handle) else { return };
        qp.state = state;
        crate::exports::mirror_state(qp.pointer, state);
    }

    /// To RESET: "all WRs and CQEs of it are forgotten".
    pub(crate) fn reset_qp(&mut self, handle: u32) {
        self.purge(handle);
        self.set_state(handle, QPS_RESET);
        if let Some(qp) = self.qps.get_mut(handle) {
            qp.sends.clear();
            qp.receives.clear();
            qp.send_freed = qp.send_posted;
            qp.recv_outstanding = 0;
            qp.rc = Reliable::default();
        }
    }

    /// To ERR: everything posted completes with `IBV_WC_WR_FLUSH_ERR`; on a shared receive queue
    /// the event "last WQE reached" comes instead of receives.
    pub(crate) fn fail_qp(&mut self, handle: u32) {
        let Some(qp) = self.qps.get(handle) else { return };
        let (was, shared, context) = (qp.state, qp.srq.is_some(), qp.context);
        if was == QPS_RESET {
            self.set_state(handle, QPS_ERR);
            return;
        }
        self.set_state(handle, QPS_ERR);
        self.flush_sends(handle);
        self.flush_receives(handle);
        if shared && was != QPS_ERR {
            let last = EVENT_QP_LAST_WQE_REACHED;
            self.object_event(context, last, Element::Qp(handle));
        }
    }

    /// To ERR, with the event `IBV_EVENT_QP_FATAL`.
    pub(crate) fn fatal_qp(&mut self, handle: u32) {
        let Some(qp) = self.qps.get(handle) else { return };
        let context = qp.context;
        self.object_event(context, EVENT_QP_FATAL, Element::Qp(handle));
        self.fail_qp(handle);
    }

    /// What an error of the send queue does: ERR for RC, SQE for the others, whose receives go on
    /// (InfiniBand Architecture Specification §10.3.1.6).
    pub(crate) fn fail_sends(&mut self, handle: u32) {
        let Some(qp) = self.qps.get(handle) else { return };
        if qp.kind == QPT_RC {
            self.fail_qp(handle);
        } else {
            self.set_state(handle, QPS_SQE);
            self.flush_sends(handle);
        }
    }

    /// Flushes the send queue.
    pub(crate) fn flush_sends(&mut self, handle: u32) {
        while let Some(wqe) = self.qps.get_mut(handle).and_then(|qp| qp.sends.pop_front()) {
            self.complete_send(handle, &wqe, WC_WR_FLUSH_ERR);
        }
        if let Some(qp) = self.qps.get_mut(handle) {
            qp.rc.stop();
        }
    }

    /// Flushes the receive queue; a shared one stays.
    pub(crate) fn flush_receives(&mut self, handle: u32) {
        while let Some(wqe) = self.qps.get_mut(handle).and_then(|qp| qp.receives.pop_front()) {
            let wc = Wc { status: WC_WR_FLUSH_ERR, ..Wc::default() };
            self.complete_receive(handle, &wqe, wc, Extra::default());
        }
    }

    /// Completes a send, if it is signalled or failed.
    pub(crate) fn complete_send(&mut self, handle: u32, wqe: &SendWqe, status: u32) {
        let Some(qp) = self.qps.get(handle) else { return };
        let signalled = qp.signal_all || wqe.flags & SEND_SIGNALED != 0;
        if status == WC_SUCCESS && !signalled {
            return;
        }
        let opcode = match wqe.opcode {
            WR_RDMA_WRITE | WR_RDMA_WRITE_WITH_IMM => WC_OP_RDMA_WRITE,
            WR_RDMA_READ => WC_OP_RDMA_READ,
            WR_TSO => WC_OP_TSO,
            _ => WC_OP_SEND,
        };
        let wc = Wc { wr_id: wqe.wr_id, status, opcode, qp_num: qp.number, ..Wc::default() };
        let release = Release::Send { qp: handle, upto: wqe.sequence + 1 };
        let entry = Entry { wc: blurred(wc), flow_tag: 0, release, solicited: false };
        let cq = qp.send_cq;
        self.complete(cq, entry);
    }

    /// Completes a receive of a queue pair's own or shared queue.
    pub(crate) fn complete_receive(&mut self, handle: u32, wqe: &RecvWqe, wc: Wc, extra: Extra) {
        let Some(qp) = self.qps.get(handle) else { return };
        let release = match qp.srq {
            Some(srq) => Release::Shared { srq, qp: handle },
            None => Release::Receive { qp: handle },
        };
        let wc = Wc { wr_id: wqe.wr_id, qp_num: qp.number, ..wc };
        let Extra { flow_tag, solicited } = extra;
        let entry = Entry { wc: blurred(wc), flow_tag, release, solicited };
        let cq = qp.recv_cq;
        self.complete(cq, entry);
    }
}

/// What a receive completion has beside its `ibv_wc`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Extra {
    /// Tag of the rule that steered it.
    pub(crate) flow_tag: u32,
    /// Whether the message asked for an event.
    pub(crate) solicited: bool,
}

/// Fills what is not valid after an error with nonsense, lest someone relies on it: "only the
/// following attributes are valid: wr_id, status, qp_num, and vendor_err" (ibv_poll_cq(3)).
fn blurred(wc: Wc) -> Wc {
    if wc.status == WC_SUCCESS {
        return wc;
    }
    Wc {
        opcode: 0x5a5a,
        byte_len: 0x5a5a_5a5a,
        imm_data: 0x5a5a_5a5a,
        src_qp: 0x5a_5a5a,
        wc_flags: 0x5a58,
        vendor_err: 0xd0,
        ..wc
    }
}
