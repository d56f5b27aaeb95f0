//! The unreliable datagram transport: one packet a message, addressed by an address handle, with
//! 40 bytes for the GRH before it at the receiver (ibv_post_recv(3)).

use crate::abi::consts::*;
use crate::abi::work::Wc;
use crate::address::{self, gid_bytes};
use crate::message::{IMMEDIATE, Kind, Message, ROCE_V2, SOLICITED};
use crate::queue_pair::{Extra, SendWqe};
use crate::transport::{Arrival, MULTICAST, byte_len};
use crate::world::World;

impl World {
    /// Sends a datagram; returns the status of the send.
    pub(crate) fn send_datagram(&mut self, handle: u32, wqe: &SendWqe) -> u32 {
        let Some(qp) = self.qps.get(handle) else { return WC_LOC_QP_OP_ERR };
        let device = &self.devices[qp.device];
        let (ah, destination, key) = wqe.datagram;
        let Some(ah) = self.addresses.get(ah) else { return WC_LOC_QP_OP_ERR };
        let source = device.gid(u32::from(ah.attr.sgid_index));
        let Ok(payload) = self.payload(qp.pd, wqe) else { return WC_LOC_PROT_ERR };
        // A datagram is one packet: no longer than the port's MTU (ibv_query_port(3)).
        if byte_len(&payload) > device.config.active_mtu {
            return WC_LOC_LEN_ERR;
        }
        let Some(source) = source else { return WC_LOC_QP_OP_ERR };
        let mut flags = if wqe.flags & SEND_SOLICITED != 0 { SOLICITED } else { 0 };
        flags |= if wqe.opcode == WR_SEND_WITH_IMM { IMMEDIATE } else { 0 };
        flags |= if source.kind == GID_TYPE_ROCE_V2 { ROCE_V2 } else { 0 };
        let message = Message {
            kind: Kind::Datagram,
            flags,
            class: ah.attr.traffic_class,
            hops: ah.attr.hop_limit,
            level: ah.attr.sl,
            label: ah.attr.flow_label,
            source: qp.number,
            destination,
            // InfiniBand Architecture Specification §10.2.5: a Q_Key with the highest bit means
            // that of the sending queue pair.
            key: if key >> 31 != 0 { qp.attr.qkey } else { key },
            immediate: wqe.immediate,
            sgid: source.raw,
            dgid: gid_bytes(ah.attr.dgid),
            payload,
            ..Message::default()
        };
        let device = qp.device;
        self.transmit(device, message);
        WC_SUCCESS
    }

    /// Gives a datagram to its queue pair, or to all that are attached to its group.
    pub(crate) fn deliver_datagram(&mut self, message: &Message) {
        if message.destination != MULTICAST {
            if let Some(handle) = self.receiver(message, QPT_UD) {
                self.take_datagram(handle, message);
            }
            return;
        }
        let members = self.qps.handles(|qp| {
            qp.kind == QPT_UD
                && qp.receives_now()
                && qp.number != message.source
                && qp.groups.contains(&message.dgid)
        });
        for handle in members {
            let device = self.qps.get(handle).map_or(usize::MAX, |qp| qp.device);
            if self.is_live(device) {
                self.take_datagram(handle, message);
            }
        }
    }

    fn take_datagram(&mut self, handle: u32, message: &Message) {
        let Some(qp) = self.qps.get(handle) else { return };
        if qp.attr.qkey != message.key {
            let device = qp.device;
            self.counters.datagrams_wrong_key += 1;
            self.devices[device].key_violations += 1;
            return;
        }
        let Some(wqe) = self.take_receive(handle) else {
            self.counters.datagrams_no_receive += 1;
            return;
        };
        let mut data = address::route_header(message).to_vec();
        data.extend_from_slice(&message.payload);
        let immediate = message.flags & IMMEDIATE != 0;
        let wc = Wc {
            opcode: WC_OP_RECV,
            byte_len: byte_len(&data),
            imm_data: if immediate { message.immediate } else { 0 },
            src_qp: message.source,
            wc_flags: WC_FLAG_GRH | if immediate { WC_FLAG_WITH_IMM } else { 0 },
            sl: message.level,
            ..Wc::default()
        };
        let solicited = message.flags & SOLICITED != 0;
        let extra = Extra { flow_tag: 0, solicited };
        self.land(handle, &wqe, Arrival { data: &data, wc, extra });
    }
}
