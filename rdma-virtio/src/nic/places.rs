//! Where the headers of a frame lie and how long they are, for NICs that look into frames as
//! hardware does. Knows no protocol beyond that.

/// Bytes of the virtio-net header in front of a frame (virtio 1.2 §5.1.6).
pub(super) const NET_HEADER_LEN: u32 = 12;
/// Bytes of an Ethernet header; its type is the last two.
pub(super) const ETHERNET_HEADER_LEN: usize = 14;
/// Ethernet type of IPv4.
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Bytes of an IPv6 header without extensions.
pub(super) const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a UDP header.
pub(super) const UDP_HEADER_LEN: usize = 8;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER_LEN: usize = 20;
