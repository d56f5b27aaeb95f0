//! Work requests and completions (`infiniband/verbs.h`).

#![allow(missing_docs, reason = "each is the header's structure and member of the same name")]

use std::ffi::{c_int, c_uint};

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sge {
    pub addr: u64,
    pub length: u32,
    pub lkey: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SendWr {
    pub wr_id: u64,
    pub next: *mut SendWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
    pub opcode: c_uint,
    pub send_flags: c_uint,
    /// The union of `imm_data` (network order) and `invalidate_rkey`.
    pub imm_data: u32,
    /// The union `wr`: `rdma`, `atomic` or `ud`.
    pub wr: [u64; 4],
    /// The union `qp_type`.
    pub remote_srqn: u32,
    /// The union of `bind_mw` and `tso`.
    pub tail: [u64; 6],
}

/// The low half of a word.
const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

impl SendWr {
    /// `wr.rdma.remote_addr` and `wr.rdma.rkey`.
    pub const fn rdma(&self) -> (u64, u32) {
        (self.wr[0], low(self.wr[1]))
    }

    /// `wr.ud.ah`, `wr.ud.remote_qpn` and `wr.ud.remote_qkey`.
    pub const fn ud(&self) -> (u64, u32, u32) {
        (self.wr[0], low(self.wr[1]), low(self.wr[1] >> 32))
    }

    /// `tso.hdr`, `tso.hdr_sz` and `tso.mss`.
    pub const fn tso(&self) -> (u64, u16, u16) {
        let sizes = self.tail[1];
        (self.tail[0], (sizes & 0xffff) as u16, ((sizes >> 16) & 0xffff) as u16)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RecvWr {
    pub wr_id: u64,
    pub next: *mut RecvWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Wc {
    pub wr_id: u64,
    pub status: c_uint,
    pub opcode: c_uint,
    pub vendor_err: u32,
    pub byte_len: u32,
    /// The union of `imm_data` (network order) and `invalidated_rkey`.
    pub imm_data: u32,
    pub qp_num: u32,
    pub src_qp: u32,
    pub wc_flags: c_uint,
    pub pkey_index: u16,
    pub slid: u16,
    pub sl: u8,
    pub dlid_path_bits: u8,
}
