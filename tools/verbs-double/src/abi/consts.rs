//! Constants of `infiniband/verbs.h`, under the names they have there without `IBV_`.

#![allow(missing_docs, reason = "each is the header's constant of the same name")]

use std::ffi::{c_int, c_uint};

pub const NODE_CA: c_int = 1;
pub const TRANSPORT_IB: c_int = 0;

pub const DEVICE_BAD_QKEY_CNTR: c_uint = 1 << 2;
pub const DEVICE_PORT_ACTIVE_EVENT: c_uint = 1 << 10;
pub const DEVICE_SYS_IMAGE_GUID: c_uint = 1 << 11;
pub const DEVICE_RC_RNR_NAK_GEN: c_uint = 1 << 12;
pub const DEVICE_SRQ_RESIZE: c_uint = 1 << 13;
pub const DEVICE_UD_IP_CSUM: c_uint = 1 << 18;
pub const DEVICE_RAW_IP_CSUM: c_uint = 1 << 26;
pub const DEVICE_MANAGED_FLOW_STEERING: c_uint = 1 << 29;
pub const RAW_PACKET_CAP_IP_CSUM: u32 = 1 << 2;

pub const MTU_256: c_uint = 1;
pub const MTU_4096: c_uint = 5;

pub const PORT_DOWN: c_uint = 1;
pub const PORT_ACTIVE: c_uint = 4;
pub const LINK_LAYER_INFINIBAND: u8 = 1;
pub const LINK_LAYER_ETHERNET: u8 = 2;
pub const QPF_GRH_REQUIRED: u8 = 1;
pub const PORT_CM_SUP: u32 = 1 << 16;
pub const PORT_IP_BASED_GIDS: u32 = 1 << 26;

pub const GID_TYPE_IB: u32 = 0;
pub const GID_TYPE_ROCE_V1: u32 = 1;
pub const GID_TYPE_ROCE_V2: u32 = 2;

pub const EVENT_CQ_ERR: c_uint = 0;
pub const EVENT_QP_FATAL: c_uint = 1;
pub const EVENT_DEVICE_FATAL: c_uint = 8;
pub const EVENT_PORT_ACTIVE: c_uint = 9;
pub const EVENT_PORT_ERR: c_uint = 10;
pub const EVENT_SRQ_ERR: c_uint = 14;
pub const EVENT_SRQ_LIMIT_REACHED: c_uint = 15;
pub const EVENT_QP_LAST_WQE_REACHED: c_uint = 16;
pub const EVENT_GID_CHANGE: c_uint = 18;

pub const WC_SUCCESS: c_uint = 0;
pub const WC_LOC_LEN_ERR: c_uint = 1;
pub const WC_LOC_QP_OP_ERR: c_uint = 2;
pub const WC_LOC_PROT_ERR: c_uint = 4;
pub const WC_WR_FLUSH_ERR: c_uint = 5;
pub const WC_REM_INV_REQ_ERR: c_uint = 9;
pub const WC_REM_ACCESS_ERR: c_uint = 10;
pub const WC_REM_OP_ERR: c_uint = 11;
pub const WC_RETRY_EXC_ERR: c_uint = 12;
pub const WC_RNR_RETRY_EXC_ERR: c_uint = 13;

pub const WC_OP_SEND: c_uint = 0;
pub const WC_OP_RDMA_WRITE: c_uint = 1;
pub const WC_OP_RDMA_READ: c_uint = 2;
pub const WC_OP_TSO: c_uint = 7;
pub const WC_OP_RECV: c_uint = 1 << 7;
pub const WC_OP_RECV_RDMA_WITH_IMM: c_uint = (1 << 7) + 1;

pub const WC_FLAG_GRH: c_uint = 1;
pub const WC_FLAG_WITH_IMM: c_uint = 1 << 1;
pub const WC_FLAG_IP_CSUM_OK: c_uint = 1 << 2;

/// All wc flags that an extended CQ may ask for and this device has: no timestamps, no VLAN.
pub const WC_EX_SUPPORTED: u64 = 0x7f | (1 << 9);

pub const ACCESS_LOCAL_WRITE: c_uint = 1;
pub const ACCESS_REMOTE_WRITE: c_uint = 1 << 1;
pub const ACCESS_REMOTE_READ: c_uint = 1 << 2;
pub const ACCESS_REMOTE_ATOMIC: c_uint = 1 << 3;
pub const ACCESS_MW_BIND: c_uint = 1 << 4;
pub const ACCESS_ZERO_BASED: c_uint = 1 << 5;
pub const ACCESS_ON_DEMAND: c_uint = 1 << 6;
pub const ACCESS_HUGETLB: c_uint = 1 << 7;
pub const ACCESS_OPTIONAL_RANGE: c_uint = ((1 << 30) - 1) & !((1 << 20) - 1);

pub const SRQ_MAX_WR: c_int = 1;
pub const SRQ_LIMIT: c_int = 1 << 1;

pub const QPT_RC: c_uint = 2;
pub const QPT_UC: c_uint = 3;
pub const QPT_UD: c_uint = 4;
pub const QPT_RAW_PACKET: c_uint = 8;

pub const QP_INIT_ATTR_PD: u32 = 1;
pub const QP_INIT_ATTR_CREATE_FLAGS: u32 = 1 << 2;
pub const QP_INIT_ATTR_MAX_TSO_HEADER: u32 = 1 << 3;
pub const QP_INIT_ATTR_SEND_OPS_FLAGS: u32 = 1 << 6;
pub const QP_EX_WITH_SEND: u64 = 1 << 2;
pub const QP_EX_WITH_SEND_WITH_IMM: u64 = 1 << 3;
pub const QP_EX_WITH_RDMA_WRITE: u64 = 1;
pub const QP_EX_WITH_RDMA_WRITE_WITH_IMM: u64 = 1 << 1;
pub const QP_EX_WITH_RDMA_READ: u64 = 1 << 4;
pub const QP_EX_WITH_TSO: u64 = 1 << 10;

pub const QP_STATE: c_int = 1;
pub const QP_CUR_STATE: c_int = 1 << 1;
pub const QP_EN_SQD_ASYNC_NOTIFY: c_int = 1 << 2;
pub const QP_ACCESS_FLAGS: c_int = 1 << 3;
pub const QP_PKEY_INDEX: c_int = 1 << 4;
pub const QP_PORT: c_int = 1 << 5;
pub const QP_QKEY: c_int = 1 << 6;
pub const QP_AV: c_int = 1 << 7;
pub const QP_PATH_MTU: c_int = 1 << 8;
pub const QP_TIMEOUT: c_int = 1 << 9;
pub const QP_RETRY_CNT: c_int = 1 << 10;
pub const QP_RNR_RETRY: c_int = 1 << 11;
pub const QP_RQ_PSN: c_int = 1 << 12;
pub const QP_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub const QP_ALT_PATH: c_int = 1 << 14;
pub const QP_MIN_RNR_TIMER: c_int = 1 << 15;
pub const QP_SQ_PSN: c_int = 1 << 16;
pub const QP_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub const QP_PATH_MIG_STATE: c_int = 1 << 18;
pub const QP_DEST_QPN: c_int = 1 << 20;
pub const QP_RATE_LIMIT: c_int = 1 << 25;

pub const QPS_RESET: c_uint = 0;
pub const QPS_INIT: c_uint = 1;
pub const QPS_RTR: c_uint = 2;
pub const QPS_RTS: c_uint = 3;
pub const QPS_SQD: c_uint = 4;
pub const QPS_SQE: c_uint = 5;
pub const QPS_ERR: c_uint = 6;

pub const WR_RDMA_WRITE: c_uint = 0;
pub const WR_RDMA_WRITE_WITH_IMM: c_uint = 1;
pub const WR_SEND: c_uint = 2;
pub const WR_SEND_WITH_IMM: c_uint = 3;
pub const WR_RDMA_READ: c_uint = 4;
pub const WR_TSO: c_uint = 10;

pub const SEND_FENCE: c_uint = 1;
pub const SEND_SIGNALED: c_uint = 1 << 1;
pub const SEND_SOLICITED: c_uint = 1 << 2;
pub const SEND_INLINE: c_uint = 1 << 3;
pub const SEND_IP_CSUM: c_uint = 1 << 4;

pub const FLOW_ATTR_NORMAL: c_uint = 0;
pub const FLOW_ATTR_ALL_DEFAULT: c_uint = 1;
pub const FLOW_ATTR_MC_DEFAULT: c_uint = 2;
pub const FLOW_ATTR_SNIFFER: c_uint = 3;
pub const FLOW_ATTR_FLAGS_DONT_TRAP: u32 = 1 << 1;
pub const FLOW_SPEC_ETH: c_uint = 0x20;
pub const FLOW_SPEC_IPV4: c_uint = 0x30;
pub const FLOW_SPEC_IPV6: c_uint = 0x31;
pub const FLOW_SPEC_TCP: c_uint = 0x40;
pub const FLOW_SPEC_UDP: c_uint = 0x41;
pub const FLOW_SPEC_ACTION_TAG: c_uint = 0x1000;
pub const FLOW_SPEC_ACTION_DROP: c_uint = 0x1001;
