//! The headers of a socket's datagrams to one destination, ready to be copied: Ethernet, IP, UDP.
//! Lengths, identification and checksums are patched in.

use core::net::{IpAddr, SocketAddr};

use crate::checksum::Sum;
use crate::frame::{TX_HEADROOM, TxChecksum};
use crate::ip::{Marking, Route};
use crate::memory::CHUNK_SLOT_LEN;
use crate::wire::ethernet::{EthernetHeader, MacAddr, ethertype};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::ipv6::Ipv6Header;
use crate::wire::protocol;
use crate::wire::udp::{CHECKSUM_OFFSET, HEADER_LEN, UdpHeader};
use crate::wire::{ethernet, ipv4, ipv6};

/// Ethernet, IPv4 and UDP.
pub(super) const LEN_V4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + HEADER_LEN;
pub(super) const LEN_V4_U32: u32 = 14 + 20 + 8;
/// Ethernet, IPv6 and UDP.
pub(super) const LEN_V6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + HEADER_LEN;

/// Where the IP header begins.
const IP: usize = ethernet::HEADER_LEN;

/// The template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The destination.
    made_for: Option<SocketAddr>,
    /// Whether that is the socket's peer.
    is_peer: bool,
    /// What [`crate::ip::Ip::neighbor_generation`] was when it was made.
    generation: u32,
    /// Bytes of the longest frame that fits into one slot and the MTU.
    single_len_max: usize,
    /// Over IPv4 with the lengths, and the partial checksum, of the last short datagram.
    bytes: [u8; LEN_V6],
    /// Payload bytes that those are for.
    sized_for: Option<u16>,
    /// Sum over the IPv4 header with that length and without identification, folded.
    sized_sum: u16,
    is_v6: bool,
    mtu: u16,
    /// Over addresses and protocol.
    pseudo: Sum,
    /// Over the ports.
    ports: Sum,
    /// Over the IPv4 header without length, identification and checksum.
    header: Sum,
}

impl Default for Template {
    fn default() -> Template {
        Template {
            made_for: None,
            is_peer: false,
            generation: 0,
            single_len_max: 0,
            bytes: [0; LEN_V6],
            sized_for: None,
            sized_sum: 0,
            is_v6: false,
            mtu: 0,
            pseudo: Sum::ZERO,
            ports: Sum::ZERO,
            header: Sum::ZERO,
        }
    }
}

/// The ends of a datagram to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) source_port: u16,
    pub(super) to: SocketAddr,
    pub(super) route: Route,
    /// All zeros while the neighbour is not known.
    pub(super) mac: MacAddr,
    pub(super) own_mac: MacAddr,
    pub(super) marking: Marking,
}

/// How a datagram's checksum comes about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Checksum {
    /// The device computes it.
    Partial,
    /// This is the payload's sum.
    Full(Sum),
}

impl Template {
    /// Headers for a flow; `None` if source and destination are of two families.
    pub(super) fn new(flow: &Flow) -> Option<Template> {
        let mut template = Template { mtu: flow.route.mtu, ..Template::default() };
        let link = |ethertype| {
            EthernetHeader { destination: flow.mac, source: flow.own_mac, ethertype }.to_bytes()
        };
        let udp = match (flow.route.source, flow.to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header {
                    tos: flow.marking.tos,
                    total_len: 0,
                    ident: 0,
                    flags_and_offset: 0,
                    ttl: flow.marking.ttl.get(),
                    protocol: protocol::UDP,
                    source,
                    destination,
                }
                .to_bytes();
                header[ipv4::CHECKSUM_OFFSET..][..2].fill(0);
                template.header = Sum::of_header(&header);
                template.pseudo = Sum::pseudo_v4(source, destination, protocol::UDP, 0);
                template.bytes[..IP].copy_from_slice(&link(ethertype::IPV4));
                template.bytes[IP..][..header.len()].copy_from_slice(&header);
                IP + ipv4::HEADER_LEN
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class: flow.marking.tos,
                    payload_len: 0,
                    next_header: protocol::UDP,
                    hop_limit: flow.marking.ttl.get(),
                    source,
                    destination,
                }
                .to_bytes();
                template.is_v6 = true;
                template.pseudo = Sum::pseudo_v6(source, destination, protocol::UDP, 0);
                template.bytes[..IP].copy_from_slice(&link(ethertype::IPV6));
                template.bytes[IP..][..header.len()].copy_from_slice(&header);
                IP + ipv6::HEADER_LEN
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let (source_port, destination_port) = (flow.source_port, flow.to.port());
        let header = UdpHeader { source_port, destination_port, length: 0, checksum: 0 };
        template.bytes[udp..][..HEADER_LEN].copy_from_slice(&header.to_bytes());
        template.ports = Sum::of_u16(source_port).plus(Sum::of_u16(destination_port));
        Some(template)
    }

    /// Says that the template holds for a destination as long as the generation is this.
    pub(super) fn keep_for(&mut self, to: SocketAddr, is_peer: bool, generation: u32) {
        self.made_for = Some(to);
        self.is_peer = is_peer;
        self.generation = generation;
        let slot_room = (CHUNK_SLOT_LEN - TX_HEADROOM) as usize;
        self.single_len_max = slot_room.min(usize::from(self.mtu) + IP);
    }

    /// Whether the template holds for a destination, or for the peer.
    #[inline(always)]
    pub(super) fn holds_for(&self, to: Option<SocketAddr>, generation: u32) -> bool {
        let is_for = match to {
            None => self.is_peer,
            Some(to) => self.made_for == Some(to),
        };
        is_for && self.generation == generation
    }

    /// Bytes of the longest frame that needs one slot and one packet.
    #[inline]
    pub(super) fn single_len_max(&self) -> usize {
        self.single_len_max
    }

    /// Bytes of the headers.
    #[inline]
    pub(super) fn len(&self) -> usize {
        if self.is_v6 { LEN_V6 } else { LEN_V4 }
    }

    /// Bytes of the longest packet.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether the destination is an IPv6 address.
    pub(super) fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// The checksum field of a datagram with a payload of `len` bytes.
    #[inline(always)]
    fn udp_checksum(&self, length: u16, checksum: Checksum) -> u16 {
        let pseudo = self.pseudo.plus(Sum::of_u16(length));
        match checksum {
            Checksum::Partial => pseudo.partial(),
            Checksum::Full(payload) => {
                let sum = pseudo.plus(self.ports).plus(Sum::of_u16(length)).plus(payload);
                // RFC 768: a sum of zero is sent as all ones, as zero means none.
                match sum.checksum() {
                    0 => 0xffff,
                    checksum => checksum,
                }
            }
        }
    }

    /// Writes the headers of a whole datagram to the start of `frame`, which is at least as long.
    /// `len` is the payload's, at most 65,507.
    #[inline]
    pub(super) fn write(&self, frame: &mut [u8], len: u16, ident: u16, checksum: Checksum) {
        let length = len + 8;
        let [a, b] = length.to_be_bytes();
        let [c, d] = self.udp_checksum(length, checksum).to_be_bytes();
        if self.is_v6 {
            let Some(head) = frame.first_chunk_mut::<LEN_V6>() else { return };
            *head = self.bytes;
            head[IP + 4..IP + 6].copy_from_slice(&[a, b]);
            head[LEN_V6 - 4..].copy_from_slice(&[a, b, c, d]);
        } else if let Some(head) = frame.first_chunk_mut::<LEN_V4>() {
            head.copy_from_slice(&self.bytes[..LEN_V4]);
            self.patch_v4(&mut head[IP..], len + 28, ident, 0);
            head[LEN_V4 - 4..].copy_from_slice(&[a, b, c, d]);
        }
    }

    /// Whether a payload of `len` bytes over IPv4 needs one slot and one packet.
    #[inline]
    pub(super) fn is_short_v4(&self, len: usize) -> bool {
        !self.is_v6 && len + LEN_V4 <= self.single_len_max
    }

    /// Writes the headers of a whole datagram over IPv4 with `len` bytes of payload, whose checksum
    /// is the device's.
    #[inline(always)]
    pub(super) fn write_short_v4(&mut self, head: &mut [u8; LEN_V4], len: u16, ident: u16) {
        if self.sized_for != Some(len) {
            self.size_short_v4(len);
        }
        head.copy_from_slice(&self.bytes[..LEN_V4]);
        // RFC 1071: of the header only the identification is not in the sum yet.
        let sum = u32::from(self.sized_sum) + u32::from(ident);
        let [a, b, c, d] = sum.to_be_bytes();
        let checksum = !u16::from_be_bytes([c, d]).wrapping_add(u16::from_be_bytes([a, b]));
        head[IP + 4..IP + 6].copy_from_slice(&ident.to_be_bytes());
        head[IP + ipv4::CHECKSUM_OFFSET..][..2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Puts the lengths of a datagram over IPv4 with `len` bytes of payload, and its partial
    /// checksum, into the headers.
    #[inline(never)]
    fn size_short_v4(&mut self, len: u16) {
        let length = len + 8;
        let partial = self.udp_checksum(length, Checksum::Partial).to_be_bytes();
        self.bytes[IP + 2..IP + 4].copy_from_slice(&(len + 28).to_be_bytes());
        self.bytes[LEN_V4 - 4..LEN_V4 - 2].copy_from_slice(&length.to_be_bytes());
        self.bytes[LEN_V4 - 2..LEN_V4].copy_from_slice(&partial);
        self.sized_sum = !self.header.plus(Sum::of_u16(len + 28)).checksum();
        self.sized_for = Some(len);
    }

    /// Writes the Ethernet and IPv4 headers of a fragment to the start of `frame`, and the UDP
    /// header behind them if it is the first; answers how many bytes that were.
    pub(super) fn write_fragment(&self, frame: &mut [u8], fragment: &FragmentHead) -> usize {
        let is_first = fragment.flags_and_offset & 0x1fff == 0;
        let len = if is_first { LEN_V4 } else { LEN_V4 - HEADER_LEN };
        frame[..len].copy_from_slice(&self.bytes[..len]);
        let FragmentHead { total_len, ident, flags_and_offset, .. } = *fragment;
        self.patch_v4(&mut frame[IP..], total_len, ident, flags_and_offset);
        if is_first {
            let length = fragment.datagram_len + 8;
            let checksum = self.udp_checksum(length, fragment.checksum);
            frame[LEN_V4 - 4..LEN_V4 - 2].copy_from_slice(&length.to_be_bytes());
            frame[LEN_V4 - 2..LEN_V4].copy_from_slice(&checksum.to_be_bytes());
        }
        len
    }

    /// Fills in what differs from packet to packet in the IPv4 header at the start of `header`.
    #[inline(always)]
    fn patch_v4(&self, header: &mut [u8], total_len: u16, ident: u16, flags_and_offset: u16) {
        let sum = self
            .header
            .plus(Sum::of_u16(total_len))
            .plus(Sum::of_u16(ident))
            .plus(Sum::of_u16(flags_and_offset));
        let [a, b] = total_len.to_be_bytes();
        let [c, d] = ident.to_be_bytes();
        let [e, f] = flags_and_offset.to_be_bytes();
        header[2..8].copy_from_slice(&[a, b, c, d, e, f]);
        header[ipv4::CHECKSUM_OFFSET..][..2].copy_from_slice(&sum.checksum().to_be_bytes());
    }

    /// Where the device finds the checksum that is left to it.
    #[inline]
    pub(super) fn partial_checksum(&self) -> TxChecksum {
        let start = if self.is_v6 { 54 } else { 34 };
        TxChecksum { start, offset: CHECKSUM_OFFSET }
    }
}

/// What a fragment's headers say.
#[derive(Clone, Copy, Debug)]
pub(super) struct FragmentHead {
    pub(super) total_len: u16,
    pub(super) ident: u16,
    pub(super) flags_and_offset: u16,
    /// Payload bytes of the whole datagram.
    pub(super) datagram_len: u16,
    pub(super) checksum: Checksum,
}
