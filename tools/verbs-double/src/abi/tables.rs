//! The extended objects with their tables of operations: `struct verbs_context`,
//! `struct ibv_qp_ex`, `struct ibv_cq_ex` (`infiniband/verbs.h`).

#![allow(missing_docs, reason = "each is the header's structure and member of the same name")]

use super::flows::{Flow, FlowAttr};
use super::objects::{
    Ah, Context, Cq, CqInitAttrEx, DataBuf, DeviceAttrEx, PortAttr, Qp, QpInitAttrEx, SgeList,
};
use std::ffi::{c_int, c_uint, c_void};

/// An operation that this device does not have.
pub type Absent = Option<unsafe extern "C" fn() -> c_int>;

/// `struct verbs_context`, which "grows up": a program finds it in front of its `ibv_context`.
#[repr(C)]
pub struct VerbsContext {
    pub query_port: Option<unsafe extern "C" fn(*mut Context, u8, *mut PortAttr, usize) -> c_int>,
    pub advise_mr: Absent,
    pub alloc_null_mr: Absent,
    pub counters: [Absent; 4],
    pub reg_dm_mr: Absent,
    pub alloc_dm: Absent,
    pub free_dm: Absent,
    pub flow_actions: [Absent; 3],
    pub modify_qp_rate_limit: Absent,
    pub alloc_parent_domain: Absent,
    pub dealloc_td: Absent,
    pub alloc_td: Absent,
    pub modify_cq: Absent,
    pub post_srq_ops: Absent,
    pub destroy_rwq_ind_table: Absent,
    pub create_rwq_ind_table: Absent,
    pub destroy_wq: Absent,
    pub modify_wq: Absent,
    pub create_wq: Absent,
    pub query_rt_values: Absent,
    pub create_cq_ex: Option<unsafe extern "C" fn(*mut Context, *mut CqInitAttrEx) -> *mut CqEx>,
    pub private: *mut c_void,
    pub query_device_ex:
        Option<unsafe extern "C" fn(*mut Context, *const u32, *mut DeviceAttrEx, usize) -> c_int>,
    pub destroy_flow: Option<unsafe extern "C" fn(*mut Flow) -> c_int>,
    pub placeholder2: Absent,
    pub create_flow: Option<unsafe extern "C" fn(*mut Qp, *mut FlowAttr) -> *mut Flow>,
    pub placeholder1: Absent,
    pub open_qp: Absent,
    pub create_qp_ex: Option<unsafe extern "C" fn(*mut Context, *mut QpInitAttrEx) -> *mut Qp>,
    pub get_srq_num: Absent,
    pub create_srq_ex: Absent,
    pub open_xrcd: Absent,
    pub close_xrcd: Absent,
    pub placeholder3: u64,
    pub sz: usize,
    pub context: Context,
}

type Builder<A> = Option<unsafe extern "C" fn(*mut QpEx, A)>;

/// `struct ibv_qp_ex`.
#[repr(C)]
pub struct QpEx {
    pub qp_base: Qp,
    pub comp_mask: u64,
    pub wr_id: u64,
    pub wr_flags: c_uint,
    pub wr_atomic_cmp_swp: Absent,
    pub wr_atomic_fetch_add: Absent,
    pub wr_bind_mw: Absent,
    pub wr_local_inv: Absent,
    pub wr_rdma_read: Option<unsafe extern "C" fn(*mut QpEx, u32, u64)>,
    pub wr_rdma_write: Option<unsafe extern "C" fn(*mut QpEx, u32, u64)>,
    pub wr_rdma_write_imm: Option<unsafe extern "C" fn(*mut QpEx, u32, u64, u32)>,
    pub wr_send: Option<unsafe extern "C" fn(*mut QpEx)>,
    pub wr_send_imm: Builder<u32>,
    pub wr_send_inv: Absent,
    pub wr_send_tso: Option<unsafe extern "C" fn(*mut QpEx, *mut c_void, u16, u16)>,
    pub wr_set_ud_addr: Option<unsafe extern "C" fn(*mut QpEx, *mut Ah, u32, u32)>,
    pub wr_set_xrc_srqn: Absent,
    pub wr_set_inline_data: Option<unsafe extern "C" fn(*mut QpEx, *mut c_void, usize)>,
    pub wr_set_inline_data_list: Option<unsafe extern "C" fn(*mut QpEx, usize, *const DataBuf)>,
    pub wr_set_sge: Option<unsafe extern "C" fn(*mut QpEx, u32, u64, u32)>,
    pub wr_set_sge_list: Option<unsafe extern "C" fn(*mut QpEx, usize, SgeList)>,
    pub wr_start: Option<unsafe extern "C" fn(*mut QpEx)>,
    pub wr_complete: Option<unsafe extern "C" fn(*mut QpEx) -> c_int>,
    pub wr_abort: Option<unsafe extern "C" fn(*mut QpEx)>,
    pub wr_atomic_write: Absent,
}

type Reader<R> = Option<unsafe extern "C" fn(*mut CqEx) -> R>;

/// `struct ibv_cq_ex`.
#[repr(C)]
pub struct CqEx {
    pub cq_base: Cq,
    pub comp_mask: u32,
    pub status: c_uint,
    pub wr_id: u64,
    pub start_poll: Option<unsafe extern "C" fn(*mut CqEx, *const u32) -> c_int>,
    pub next_poll: Reader<c_int>,
    pub end_poll: Reader<()>,
    pub read_opcode: Reader<c_uint>,
    pub read_vendor_err: Reader<u32>,
    pub read_byte_len: Reader<u32>,
    pub read_imm_data: Reader<u32>,
    pub read_qp_num: Reader<u32>,
    pub read_src_qp: Reader<u32>,
    pub read_wc_flags: Reader<c_uint>,
    pub read_slid: Reader<u32>,
    pub read_sl: Reader<u8>,
    pub read_dlid_path_bits: Reader<u8>,
    pub read_completion_ts: Absent,
    pub read_cvlan: Absent,
    pub read_flow_tag: Reader<u32>,
    pub read_tm_info: Absent,
    pub read_completion_wallclock_ns: Absent,
}
