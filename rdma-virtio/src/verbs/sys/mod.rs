//! The C interface: declarations made from the headers, and the calls that the headers define
//! inline.
//!
//! Owns no object and no policy; everything here is as unsafe as C. Nothing outside `verbs/` uses
//! it, except the test that compares it with another set of bindings. The layout is that of 64-bit
//! Linux.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    clippy::all,
    clippy::pedantic,
    reason = "generated: names are the headers', and documented there"
)]
mod generated;
mod inline;

pub use generated::*;
pub use inline::*;

/// A structure of the headers whose members are integers, unions of them and pointers that may be
/// null.
///
/// # Safety
/// All bytes zero is a value of the type.
pub(super) unsafe trait Zero: Sized {
    /// That value.
    fn zero() -> Self {
        // SAFETY: the promise of whoever implements the trait.
        unsafe { core::mem::zeroed() }
    }
}

macro_rules! zero {
    ($($structure:ident,)*) => {$(
        // SAFETY: read in the headers: integers, and pointers that may be null.
        unsafe impl Zero for $structure {}
    )*};
}

zero! {
    ibv_ah_attr, ibv_async_event, ibv_cq_init_attr_ex, ibv_device_attr_ex, ibv_flow_attr,
    ibv_flow_spec_eth, ibv_flow_spec_ipv4, ibv_flow_spec_ipv6, ibv_flow_spec_tcp_udp,
    ibv_gid_entry, ibv_port_attr, ibv_qp_attr, ibv_qp_init_attr, ibv_qp_init_attr_ex, ibv_recv_wr,
    ibv_send_wr, ibv_sge, ibv_srq_attr, ibv_srq_init_attr, ibv_wc, rdma_conn_param,
}
