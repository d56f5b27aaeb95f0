//! Flow rules: which frames or datagrams a queue pair gets (ibv_create_flow(3)).
//!
//! Owns the rule in the device, which ends with the object. A rule names what it compares; what it
//! leaves out matches anything. Fields are compared whole.

use super::queue_pair::PairInner;
use super::sys::{self, Zero};
use crate::nic::DeviceError;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes that the longest rule needs: its head and three specifications.
const RULE_BYTES_MAX: usize = 256;

/// Which traffic a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowScope {
    /// What the rule describes.
    Described,
    /// Everything that no other rule takes (`IBV_FLOW_ATTR_ALL_DEFAULT`).
    All,
    /// All multicast that no other rule takes (`IBV_FLOW_ATTR_MC_DEFAULT`).
    Multicast,
    /// A copy of everything (`IBV_FLOW_ATTR_SNIFFER`).
    Sniffer,
}

/// Fields of the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EthernetMatch {
    /// Destination address.
    pub destination: Option<MacMatch>,
    /// Source address.
    pub source: Option<[u8; 6]>,
    /// Ethertype.
    pub ethertype: Option<u16>,
    /// VLAN identifier, 12 bits.
    pub vlan: Option<u16>,
}

/// A destination address, or a group of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacMatch {
    /// The address.
    pub address: [u8; 6],
    /// Bits of it that are compared.
    pub mask: [u8; 6],
}

impl MacMatch {
    /// Exactly this address.
    #[must_use]
    pub fn exactly(address: [u8; 6]) -> MacMatch {
        MacMatch { address, mask: [0xff; 6] }
    }

    /// Every group address, broadcast among them.
    #[must_use]
    pub fn any_group() -> MacMatch {
        MacMatch { address: [1, 0, 0, 0, 0, 0], mask: [1, 0, 0, 0, 0, 0] }
    }
}

/// Addresses of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpMatch {
    /// IPv4; a field that is none matches any.
    V4 {
        /// Source address.
        source: Option<Ipv4Addr>,
        /// Destination address.
        destination: Option<Ipv4Addr>,
    },
    /// IPv6; a field that is none matches any.
    V6 {
        /// Source address.
        source: Option<Ipv6Addr>,
        /// Destination address.
        destination: Option<Ipv6Addr>,
    },
}

/// The transport protocol above IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Protocol and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportMatch {
    /// The protocol.
    pub protocol: TransportProtocol,
    /// Source port.
    pub source: Option<u16>,
    /// Destination port.
    pub destination: Option<u16>,
}

/// A flow rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRule {
    /// Port, from 1.
    pub port: u8,
    /// 0 is looked at first.
    pub priority: u16,
    /// Which traffic it is about; the fields below are for [`FlowScope::Described`].
    pub scope: FlowScope,
    /// Whether others, the kernel among them, get their copies all the same
    /// (`IBV_FLOW_ATTR_FLAGS_DONT_TRAP`).
    pub copies: bool,
    /// The Ethernet header.
    pub ethernet: Option<EthernetMatch>,
    /// The IP header.
    pub ip: Option<IpMatch>,
    /// The TCP or UDP header.
    pub transport: Option<TransportMatch>,
}

/// A rule in the form of verbs: the head, immediately followed by its specifications.
#[repr(C, align(8))]
struct Encoded {
    bytes: [u8; RULE_BYTES_MAX],
    len: usize,
}

impl Encoded {
    fn new(rule: &FlowRule) -> Encoded {
        let mut encoded = Encoded { bytes: [0; RULE_BYTES_MAX], len: 0 };
        let mut attr = sys::ibv_flow_attr::zero();
        attr.type_ = match rule.scope {
            FlowScope::Described => sys::IBV_FLOW_ATTR_NORMAL,
            FlowScope::All => sys::IBV_FLOW_ATTR_ALL_DEFAULT,
            FlowScope::Multicast => sys::IBV_FLOW_ATTR_MC_DEFAULT,
            FlowScope::Sniffer => sys::IBV_FLOW_ATTR_SNIFFER,
        };
        attr.priority = rule.priority;
        attr.port = rule.port;
        attr.flags = if rule.copies { sys::IBV_FLOW_ATTR_FLAGS_DONT_TRAP } else { 0 };
        encoded.len = size_of::<sys::ibv_flow_attr>();
        if let Some(ethernet) = &rule.ethernet {
            encoded.append(ethernet_spec(ethernet));
            attr.num_of_specs += 1;
        }
        if let Some(ip) = &rule.ip {
            match *ip {
                IpMatch::V4 { source, destination } => {
                    encoded.append(ipv4_spec(source, destination));
                }
                IpMatch::V6 { source, destination } => {
                    encoded.append(ipv6_spec(source, destination));
                }
            }
            attr.num_of_specs += 1;
        }
        if let Some(transport) = &rule.transport {
            encoded.append(transport_spec(transport));
            attr.num_of_specs += 1;
        }
        attr.size = u16::try_from(encoded.len).unwrap_or(u16::MAX);
        encoded.place(0, attr);
        encoded
    }

    fn append<T: Copy>(&mut self, specification: T) {
        self.place(self.len, specification);
        self.len += size_of::<T>();
    }

    fn place<T: Copy>(&mut self, at: usize, value: T) {
        assert!(at + size_of::<T>() <= RULE_BYTES_MAX, "three specifications fit");
        let place = self.bytes[at..].as_mut_ptr().cast::<T>();
        // SAFETY: within the array, as asserted; unaligned writes are allowed here.
        unsafe { place.write_unaligned(value) };
    }
}

fn size<T>() -> u16 {
    u16::try_from(size_of::<T>()).unwrap_or(u16::MAX)
}

fn ethernet_spec(fields: &EthernetMatch) -> sys::ibv_flow_spec_eth {
    let mut spec = sys::ibv_flow_spec_eth::zero();
    spec.type_ = sys::IBV_FLOW_SPEC_ETH;
    spec.size = size::<sys::ibv_flow_spec_eth>();
    if let Some(destination) = fields.destination {
        spec.val.dst_mac = destination.address;
        spec.mask.dst_mac = destination.mask;
    }
    if let Some(source) = fields.source {
        spec.val.src_mac = source;
        spec.mask.src_mac = [0xff; 6];
    }
    if let Some(ethertype) = fields.ethertype {
        spec.val.ether_type = ethertype.to_be();
        spec.mask.ether_type = u16::MAX;
    }
    if let Some(vlan) = fields.vlan {
        spec.val.vlan_tag = vlan.to_be();
        spec.mask.vlan_tag = 0x0fff_u16.to_be();
    }
    spec
}

fn ipv4_spec(source: Option<Ipv4Addr>, destination: Option<Ipv4Addr>) -> sys::ibv_flow_spec_ipv4 {
    let mut spec = sys::ibv_flow_spec_ipv4::zero();
    spec.type_ = sys::IBV_FLOW_SPEC_IPV4;
    spec.size = size::<sys::ibv_flow_spec_ipv4>();
    if let Some(source) = source {
        spec.val.src_ip = source.to_bits().to_be();
        spec.mask.src_ip = u32::MAX;
    }
    if let Some(destination) = destination {
        spec.val.dst_ip = destination.to_bits().to_be();
        spec.mask.dst_ip = u32::MAX;
    }
    spec
}

fn ipv6_spec(source: Option<Ipv6Addr>, destination: Option<Ipv6Addr>) -> sys::ibv_flow_spec_ipv6 {
    let mut spec = sys::ibv_flow_spec_ipv6::zero();
    spec.type_ = sys::IBV_FLOW_SPEC_IPV6;
    spec.size = size::<sys::ibv_flow_spec_ipv6>();
    if let Some(source) = source {
        spec.val.src_ip = source.octets();
        spec.mask.src_ip = [0xff; 16];
    }
    if let Some(destination) = destination {
        spec.val.dst_ip = destination.octets();
        spec.mask.dst_ip = [0xff; 16];
    }
    spec
}

fn transport_spec(fields: &TransportMatch) -> sys::ibv_flow_spec_tcp_udp {
    let mut spec = sys::ibv_flow_spec_tcp_udp::zero();
    spec.type_ = match fields.protocol {
        TransportProtocol::Tcp => sys::IBV_FLOW_SPEC_TCP,
        TransportProtocol::Udp => sys::IBV_FLOW_SPEC_UDP,
    };
    spec.size = size::<sys::ibv_flow_spec_tcp_udp>();
    if let Some(source) = fields.source {
        spec.val.src_port = source.to_be();
        spec.mask.src_port = u16::MAX;
    }
    if let Some(destination) = fields.destination {
        spec.val.dst_port = destination.to_be();
        spec.mask.dst_port = u16::MAX;
    }
    spec
}

/// A flow rule in the device. Holds its queue pair.
pub struct Flow {
    pair: Arc<PairInner>,
    flow: NonNull<sys::ibv_flow>,
}

// SAFETY: libibverbs may be called from any thread.
unsafe impl Send for Flow {}
// SAFETY: as above.
unsafe impl Sync for Flow {}

impl Drop for Flow {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed here; its queue pair is held.
        let _destroyed = unsafe { sys::ibv_destroy_flow(self.flow.as_ptr()) };
    }
}

impl Flow {
    pub(super) fn new(pair: &Arc<PairInner>, rule: &FlowRule) -> Result<Flow, DeviceError> {
        let mut encoded = Encoded::new(rule);
        let attr = encoded.bytes.as_mut_ptr().cast::<sys::ibv_flow_attr>();
        // SAFETY: the head is followed by its specifications, and says how long they are.
        let pointer = unsafe { sys::ibv_create_flow(pair.as_ptr(), attr) };
        let flow = pair.context().object("ibv_create_flow", pointer)?;
        Ok(Flow { pair: Arc::clone(pair), flow })
    }

    /// The number of the queue pair that gets the traffic.
    #[must_use]
    pub fn queue_pair(&self) -> u32 {
        // SAFETY: the queue pair lives; the member is constant.
        unsafe { (*self.pair.as_ptr()).qp_num }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: FlowRule = FlowRule {
        port: 1,
        priority: 0,
        scope: FlowScope::Described,
        copies: false,
        ethernet: None,
        ip: None,
        transport: None,
    };

    /// Offsets are those of the headers' structures on 64-bit Linux: the head has 20 bytes.
    #[test]
    fn a_five_tuple_is_laid_out_as_verbs_have_it() {
        let rule = FlowRule {
            port: 2,
            priority: 3,
            copies: true,
            ethernet: Some(EthernetMatch {
                destination: Some(MacMatch::exactly([2, 0, 0, 0, 0, 9])),
                ethertype: Some(0x0800),
                vlan: Some(100),
                ..EthernetMatch::default()
            }),
            ip: Some(IpMatch::V4 { source: None, destination: Some(Ipv4Addr::new(10, 9, 0, 1)) }),
            transport: Some(TransportMatch {
                protocol: TransportProtocol::Tcp,
                source: Some(80),
                destination: Some(0x1234),
            }),
            ..ANY
        };
        let encoded = Encoded::new(&rule);
        let bytes = &encoded.bytes;
        assert_eq!(encoded.len, 20 + 40 + 24 + 16);
        assert_eq!(bytes[4..8], 0_u32.to_ne_bytes(), "type normal");
        assert_eq!(bytes[8..10], 100_u16.to_ne_bytes(), "size");
        assert_eq!(bytes[10..12], 3_u16.to_ne_bytes(), "priority");
        assert_eq!(bytes[12..14], [3, 2], "specifications, port");
        assert_eq!(bytes[16..20], 2_u32.to_ne_bytes(), "do not trap");
        let ethernet = &bytes[20..60];
        assert_eq!(ethernet[..4], 0x20_u32.to_ne_bytes());
        assert_eq!(ethernet[4..6], 40_u16.to_ne_bytes());
        assert_eq!(ethernet[6..12], [2, 0, 0, 0, 0, 9]);
        assert_eq!(ethernet[18..22], [8, 0, 0, 100]);
        assert_eq!(ethernet[22..28], [0xff; 6]);
        assert_eq!(ethernet[28..34], [0; 6], "any source");
        assert_eq!(ethernet[34..38], [0xff, 0xff, 0x0f, 0xff]);
        let ip = &bytes[60..84];
        assert_eq!(ip[..4], 0x30_u32.to_ne_bytes());
        assert_eq!(ip[8..12], [0; 4], "any source");
        assert_eq!(ip[12..16], [10, 9, 0, 1]);
        assert_eq!(ip[16..24], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let tcp = &bytes[84..100];
        assert_eq!(tcp[..4], 0x40_u32.to_ne_bytes());
        assert_eq!(tcp[6..10], [0x12, 0x34, 0, 80], "destination first");
        assert_eq!(tcp[10..14], [0xff; 4]);
    }

    #[test]
    fn scopes_and_protocols_have_their_numbers() {
        for (scope, number) in [
            (FlowScope::Described, 0_u32),
            (FlowScope::All, 1),
            (FlowScope::Multicast, 2),
            (FlowScope::Sniffer, 3),
        ] {
            let encoded = Encoded::new(&FlowRule { scope, ..ANY });
            assert_eq!(encoded.bytes[4..8], number.to_ne_bytes(), "{scope:?}");
            assert_eq!(encoded.len, 20);
        }
        let udp = TransportMatch {
            protocol: TransportProtocol::Udp,
            source: None,
            destination: Some(53),
        };
        let ip = IpMatch::V6 { source: Some(Ipv6Addr::LOCALHOST), destination: None };
        let encoded = Encoded::new(&FlowRule { ip: Some(ip), transport: Some(udp), ..ANY });
        assert_eq!(encoded.bytes[20..24], 0x31_u32.to_ne_bytes());
        let ipv6 = usize::from(u16::from_ne_bytes([encoded.bytes[24], encoded.bytes[25]]));
        assert_eq!(encoded.bytes[20 + ipv6..24 + ipv6], 0x41_u32.to_ne_bytes());
        assert_eq!(encoded.len, 20 + ipv6 + 16);
    }
}
