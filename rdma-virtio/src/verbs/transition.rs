//! What a queue pair is told on its way from reset to ready to send (ibv_modify_qp(3)).
//!
//! Owns the attributes of each transition and which of them belong to which transport.

use super::address::Path;
use super::attributes::Mtu;
use super::queue_pair::QueuePairKind;
use super::sys::{self, Zero};

type Modification = (sys::ibv_qp_attr, sys::ibv_qp_attr_mask);

/// Reset to init.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitAttributes {
    /// Port, from 1.
    pub port: u8,
    /// Entry of the partition key table; 0 on Ethernet.
    pub pkey_index: u16,
    /// Key that a datagram must bring; for datagram queue pairs only.
    pub qkey: u32,
}

impl InitAttributes {
    pub(super) fn to_verbs(self, kind: QueuePairKind) -> Modification {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_INIT;
        attr.port_num = self.port;
        attr.pkey_index = self.pkey_index;
        attr.qkey = self.qkey;
        let common = sys::IBV_QP_STATE | sys::IBV_QP_PORT;
        let mask = match kind {
            // The access flags are none: peers may send, not read or write.
            QueuePairKind::Rc => common | sys::IBV_QP_PKEY_INDEX | sys::IBV_QP_ACCESS_FLAGS,
            QueuePairKind::Ud => common | sys::IBV_QP_PKEY_INDEX | sys::IBV_QP_QKEY,
            QueuePairKind::RawPacket => common,
        };
        (attr, mask)
    }
}

/// The peer of a reliable connection, and how it is received from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReliableReceive {
    /// The way to it.
    pub path: Path,
    /// Path MTU, the same at both ends.
    pub mtu: Mtu,
    /// Its queue pair.
    pub queue_pair: u32,
    /// The packet sequence number that it begins with, 24 bits.
    pub psn: u32,
    /// How long it waits after it found no receive posted, coded as in ibv_modify_qp(3), 5 bits: 12
    /// is 0.64 ms, 1 is 0.01 ms.
    pub min_rnr_timer: u8,
}

/// Init to ready to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveAttributes {
    /// For a reliable connection.
    Reliable(ReliableReceive),
    /// For datagrams and raw packets, which need nothing.
    Unconnected,
}

impl ReceiveAttributes {
    pub(super) fn to_verbs(self) -> Modification {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_RTR;
        let ReceiveAttributes::Reliable(peer) = self else {
            return (attr, sys::IBV_QP_STATE);
        };
        attr.ah_attr = peer.path.attributes();
        attr.path_mtu = peer.mtu.to_enum();
        attr.dest_qp_num = peer.queue_pair;
        attr.rq_psn = peer.psn;
        attr.min_rnr_timer = peer.min_rnr_timer;
        // No remote reads or atomics.
        attr.max_dest_rd_atomic = 0;
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_AV
            | sys::IBV_QP_PATH_MTU
            | sys::IBV_QP_DEST_QPN
            | sys::IBV_QP_RQ_PSN
            | sys::IBV_QP_MAX_DEST_RD_ATOMIC
            | sys::IBV_QP_MIN_RNR_TIMER;
        (attr, mask)
    }
}

/// How a reliable connection is sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReliableSend {
    /// The packet sequence number to begin with, 24 bits.
    pub psn: u32,
    /// Time until a packet is repeated: 4.096 us * 2^timeout, 5 bits; 0 is for ever.
    pub timeout: u8,
    /// Repetitions before giving up, 3 bits.
    pub retry_count: u8,
    /// Repetitions after the peer found no receive posted, 3 bits; 7 is for ever.
    pub rnr_retry: u8,
}

/// Ready to receive to ready to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendAttributes {
    /// For a reliable connection.
    Reliable(ReliableSend),
    /// For datagrams: the packet sequence number to begin with.
    Datagram {
        /// 24 bits.
        psn: u32,
    },
    /// For raw packets, which need nothing.
    RawPacket,
}

impl SendAttributes {
    pub(super) fn to_verbs(self) -> Modification {
        let mut attr = sys::ibv_qp_attr::zero();
        attr.qp_state = sys::IBV_QPS_RTS;
        let mask = match self {
            SendAttributes::Reliable(send) => {
                attr.sq_psn = send.psn;
                attr.timeout = send.timeout;
                attr.retry_cnt = send.retry_count;
                attr.rnr_retry = send.rnr_retry;
                // No remote reads or atomics.
                attr.max_rd_atomic = 0;
                sys::IBV_QP_SQ_PSN
                    | sys::IBV_QP_TIMEOUT
                    | sys::IBV_QP_RETRY_CNT
                    | sys::IBV_QP_RNR_RETRY
                    | sys::IBV_QP_MAX_QP_RD_ATOMIC
            }
            SendAttributes::Datagram { psn } => {
                attr.sq_psn = psn;
                sys::IBV_QP_SQ_PSN
            }
            SendAttributes::RawPacket => 0,
        };
        (attr, mask | sys::IBV_QP_STATE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gid::Gid;
    use super::*;

    /// The masks that ibv_modify_qp(3) requires, by the numbers of the headers.
    #[test]
    fn each_transition_names_what_its_manual_page_requires() {
        let (state, access, pkey, port, qkey) = (1, 8, 16, 32, 64);
        let (av, mtu, timeout, retry, rnr) = (128, 256, 512, 1024, 2048);
        let (rq_psn, rd, min_rnr, sq_psn, dest_rd, dest) =
            (4096, 8192, 32768, 65536, 131_072, 1 << 20);
        let init = InitAttributes { port: 1, pkey_index: 0, qkey: 7 };
        for (kind, expected) in [
            (QueuePairKind::Rc, state | pkey | port | access),
            (QueuePairKind::Ud, state | pkey | port | qkey),
            (QueuePairKind::RawPacket, state | port),
        ] {
            let (attr, mask) = init.to_verbs(kind);
            assert_eq!((mask, attr.qp_state), (expected, 1), "{kind:?}");
        }
        let path = Path {
            port: 1,
            source_index: 1,
            destination: Gid([9; 16]),
            lid: 0,
            service_level: 0,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 1,
        };
        let peer =
            ReliableReceive { path, mtu: Mtu::B1024, queue_pair: 17, psn: 5, min_rnr_timer: 1 };
        let (attr, mask) = ReceiveAttributes::Reliable(peer).to_verbs();
        assert_eq!(mask, state | av | mtu | dest | rq_psn | dest_rd | min_rnr);
        assert_eq!((attr.qp_state, attr.path_mtu, attr.dest_qp_num, attr.rq_psn), (2, 3, 17, 5));
        assert_eq!(ReceiveAttributes::Unconnected.to_verbs().1, state);
        let send = ReliableSend { psn: 3, timeout: 14, retry_count: 7, rnr_retry: 6 };
        let (attr, mask) = SendAttributes::Reliable(send).to_verbs();
        assert_eq!(mask, state | timeout | retry | rnr | sq_psn | rd);
        assert_eq!((attr.qp_state, attr.timeout, attr.retry_cnt, attr.rnr_retry), (3, 14, 7, 6));
        assert_eq!(SendAttributes::Datagram { psn: 1 }.to_verbs().1, state | sq_psn);
        assert_eq!(SendAttributes::RawPacket.to_verbs().1, state);
    }
}
