//! Flow attributes and specifications (`infiniband/verbs.h`). The specifications lie packed
//! behind the attribute, so they are read as bytes, at the offsets that stand here.

#![allow(missing_docs, reason = "each is the header's structure and member of the same name")]

use super::objects::Context;
use std::ffi::c_uint;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct FlowAttr {
    pub comp_mask: u32,
    pub attr_type: c_uint,
    pub size: u16,
    pub priority: u16,
    pub num_of_specs: u8,
    pub port: u8,
    pub flags: u32,
}

#[repr(C)]
pub struct Flow {
    pub comp_mask: u32,
    pub context: *mut Context,
    pub handle: u32,
}

/// `sizeof(struct ibv_flow_spec_eth)` with `val` at 6 and `mask` at 22, 16 bytes each.
pub const SPEC_ETH_SIZE: usize = 40;
/// Offset of `val` in every specification whose members are 16-bit words.
pub const SPEC_ETH_VALUE: usize = 6;
/// Length of `struct ibv_flow_eth_filter`: dst_mac, src_mac, ether_type, vlan_tag.
pub const ETH_FILTER: usize = 16;
/// `sizeof(struct ibv_flow_spec_ipv4)`: `val` at 8, `mask` at 16.
pub const SPEC_IPV4_SIZE: usize = 24;
/// Offset of `val` in specifications whose members are 32-bit words.
pub const SPEC_WORD_VALUE: usize = 8;
/// Length of `struct ibv_flow_ipv4_filter`: src_ip, dst_ip.
pub const IPV4_FILTER: usize = 8;
/// `sizeof(struct ibv_flow_spec_ipv6)`: `val` at 8, `mask` at 48.
pub const SPEC_IPV6_SIZE: usize = 88;
/// Length of `struct ibv_flow_ipv6_filter`: src_ip, dst_ip, flow_label, next_hdr, traffic_class,
/// hop_limit, and a byte of padding.
pub const IPV6_FILTER: usize = 40;
/// `sizeof(struct ibv_flow_spec_tcp_udp)`: `val` at 6, `mask` at 10, and two bytes of padding.
pub const SPEC_PORTS_SIZE: usize = 16;
/// Length of `struct ibv_flow_tcp_udp_filter`: dst_port, src_port.
pub const PORTS_FILTER: usize = 4;
/// `sizeof(struct ibv_flow_spec_action_tag)`: `tag_id` at 8.
pub const SPEC_TAG_SIZE: usize = 12;
/// `sizeof(struct ibv_flow_spec_action_drop)`.
pub const SPEC_DROP_SIZE: usize = 8;
