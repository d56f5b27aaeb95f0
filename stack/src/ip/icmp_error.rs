//! ICMP errors that we receive: parsed down to the transport's ports and sequence number, and
//! checked as far as layer 3 can (RFC 5927 §4). What remains is for the transport to check.

use core::net::{IpAddr, SocketAddr};

use super::Ip;
use super::counters::IpDrop;
use super::packet::{IcmpError, IcmpErrorKind};
use crate::wire::icmpv4::{self, IcmpHeader};
use crate::wire::icmpv6;
use crate::wire::ipv4::Ipv4View;
use crate::wire::ipv6::{self, Ipv6View};

/// The smallest path MTU believed over IPv4. No link of today is narrower than 552 bytes, and a
/// forged error must not make us send packets of 68.
const PATH_MTU_MIN: u16 = 552;

/// Link MTUs that a router without RFC 1191 may have meant (RFC 1191 §7.1), the largest first.
const PLATEAUS: [u16; 8] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 552];

/// What an error quotes of the packet that caused it.
struct Quoted {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    total_len: u16,
    /// From the transport header on: at least 8 bytes (RFC 792).
    transport: [u8; 8],
}

impl Ip {
    /// An error over IPv4. `quoted` is what follows the ICMP header.
    pub(super) fn parse_error_v4(
        &self,
        header: &IcmpHeader,
        quoted: &[u8],
    ) -> Result<Option<IcmpError>, IpDrop> {
        let quoted = quoted_v4(quoted).ok_or(IpDrop::IcmpNotOurs)?;
        let kind = match (header.kind, header.code) {
            (icmpv4::kind::UNREACHABLE, icmpv4::unreachable::FRAGMENTATION_NEEDED) => {
                let [_, _, high, low] = header.rest;
                let named = u16::from_be_bytes([high, low]);
                let mtu = self.believe_mtu_v4(named, quoted.total_len)?;
                IcmpErrorKind::PacketTooBig(mtu)
            }
            (icmpv4::kind::UNREACHABLE, code) => match unreachable_v4(code) {
                Some(kind) => kind,
                None => return Ok(None),
            },
            (icmpv4::kind::TIME_EXCEEDED, _) => IcmpErrorKind::TimeExceeded,
            (icmpv4::kind::PARAMETER_PROBLEM, _) => IcmpErrorKind::ParameterProblem,
            // Source quench (RFC 6633) and redirects (RFC 1122 §3.2.2.2 lets a host ignore them).
            _ => return Ok(None),
        };
        self.finish_error(&quoted, kind).map(Some)
    }

    /// An error over IPv6.
    pub(super) fn parse_error_v6(
        &self,
        header: &IcmpHeader,
        quoted: &[u8],
    ) -> Result<Option<IcmpError>, IpDrop> {
        let quoted = quoted_v6(quoted).ok_or(IpDrop::IcmpNotOurs)?;
        let kind = match header.kind {
            icmpv6::kind::UNREACHABLE => match header.code {
                icmpv6::unreachable::NO_ROUTE => IcmpErrorKind::NetworkUnreachable,
                icmpv6::unreachable::PROHIBITED | 5 | 6 => IcmpErrorKind::Prohibited,
                icmpv6::unreachable::PORT => IcmpErrorKind::PortUnreachable,
                _ => IcmpErrorKind::HostUnreachable,
            },
            icmpv6::kind::PACKET_TOO_BIG => {
                // RFC 8201 §4: what is below the least MTU, or not below ours, is not believed.
                let mtu = u16::try_from(header.rest_u32()).map_err(|_| IpDrop::IcmpBadMtu)?;
                if mtu < ipv6::MTU_MIN || mtu >= self.mtu {
                    return Err(IpDrop::IcmpBadMtu);
                }
                IcmpErrorKind::PacketTooBig(mtu)
            }
            icmpv6::kind::TIME_EXCEEDED => IcmpErrorKind::TimeExceeded,
            icmpv6::kind::PARAMETER_PROBLEM
                if header.code == icmpv6::parameter_problem::UNKNOWN_NEXT_HEADER =>
            {
                IcmpErrorKind::ProtocolUnreachable
            }
            icmpv6::kind::PARAMETER_PROBLEM => IcmpErrorKind::ParameterProblem,
            _ => return Ok(None),
        };
        self.finish_error(&quoted, kind).map(Some)
    }

    /// RFC 1191 §5: a router that names no MTU means the next plateau below the packet's length.
    fn believe_mtu_v4(&self, named: u16, quoted_len: u16) -> Result<u16, IpDrop> {
        let mtu = if named == 0 {
            let below = |plateau: &&u16| **plateau < quoted_len;
            *PLATEAUS.iter().find(below).unwrap_or(&PATH_MTU_MIN)
        } else {
            named
        };
        if mtu < 68 || mtu >= self.mtu {
            return Err(IpDrop::IcmpBadMtu);
        }
        Ok(mtu.max(PATH_MTU_MIN))
    }

    fn finish_error(&self, quoted: &Quoted, kind: IcmpErrorKind) -> Result<IcmpError, IpDrop> {
        let transport = Ip::transport(quoted.protocol).ok_or(IpDrop::IcmpNotOurs)?;
        if !self.is_local(quoted.source) {
            return Err(IpDrop::IcmpNotOurs);
        }
        let [a, b, c, d, rest @ ..] = quoted.transport;
        Ok(IcmpError {
            transport,
            local: SocketAddr::new(quoted.source, u16::from_be_bytes([a, b])),
            remote: SocketAddr::new(quoted.destination, u16::from_be_bytes([c, d])),
            kind,
            sequence: u32::from_be_bytes(rest),
        })
    }
}

/// RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1; `None` for codes that nobody defined.
fn unreachable_v4(code: u8) -> Option<IcmpErrorKind> {
    match code {
        icmpv4::unreachable::NETWORK | 6 | 11 => Some(IcmpErrorKind::NetworkUnreachable),
        // 5: source route failed, which we never send.
        icmpv4::unreachable::HOST | 5 | 7 | 8 | 12 => Some(IcmpErrorKind::HostUnreachable),
        icmpv4::unreachable::PROTOCOL => Some(IcmpErrorKind::ProtocolUnreachable),
        icmpv4::unreachable::PORT => Some(IcmpErrorKind::PortUnreachable),
        9 | 10 | 13 | 14 | 15 => Some(IcmpErrorKind::Prohibited),
        _ => None,
    }
}

fn quoted_v4(bytes: &[u8]) -> Option<Quoted> {
    let view = Ipv4View::quoted(bytes).ok()?;
    // Only a datagram's first fragment has ports.
    if view.fragment_offset() != 0 {
        return None;
    }
    Some(Quoted {
        source: IpAddr::V4(view.source()),
        destination: IpAddr::V4(view.destination()),
        protocol: view.protocol(),
        total_len: view.total_len(),
        transport: *bytes.get(view.header_len()..)?.first_chunk()?,
    })
}

fn quoted_v6(bytes: &[u8]) -> Option<Quoted> {
    let view = Ipv6View::new(bytes).ok()?;
    Some(Quoted {
        source: IpAddr::V6(view.source()),
        destination: IpAddr::V6(view.destination()),
        protocol: view.next_header(),
        total_len: view.payload_len(),
        transport: *bytes.get(ipv6::HEADER_LEN..)?.first_chunk()?,
    })
}
