//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861 §7.2): answers to questions about our
//! addresses, questions about others', and the defence of ours.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use super::Ip;
use super::counters::IpDrop;
use super::neighbor::{Heard, Solicit};
use super::packet::Packet;
use crate::checksum::Sum;
use crate::time::{Duration, Instant};
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::ethernet::{self, EthernetHeader, MacAddr, ethertype};
use crate::wire::ipv6::Ipv6Header;
use crate::wire::ndp::{self, NdpMessage};
use crate::wire::protocol;

/// Least time between two defences of an address (RFC 5227 §1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Everyone on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl Ip {
    /// Tells everyone on the link which Ethernet address our addresses have (RFC 5227 §2.3,
    /// RFC 4861 §7.2.6): worth doing once at the start, as a peer may know a predecessor's.
    pub fn announce(&mut self) {
        for entry in self.addresses.clone() {
            self.announce_address(entry.address);
        }
    }

    fn announce_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.push_arp(
                    ethernet::BROADCAST,
                    ArpPacket {
                        operation: ArpOperation::Request,
                        sender_mac: self.mac,
                        sender: address,
                        target_mac: [0; 6],
                        target: address,
                    },
                );
            }
            IpAddr::V6(target) => {
                let target_mac = Some(self.mac);
                let message = NdpMessage::Advertisement { target, target_mac, solicited: false };
                self.push_ndp(ethernet::multicast_v6(ALL_NODES), target, ALL_NODES, message);
            }
        }
    }

    /// Takes an ARP packet.
    pub(super) fn on_arp(
        &mut self,
        now: Instant,
        link: EthernetHeader,
        bytes: &[u8],
    ) -> Result<(), IpDrop> {
        let packet = ArpPacket::parse(bytes).ok_or(IpDrop::BadDiscovery)?;
        let sender_is_sound = ethernet::is_unicast(packet.sender_mac)
            && packet.sender_mac == link.source
            && packet.sender_mac != self.mac
            && (super::is_host_v4(packet.sender) || packet.sender.is_unspecified());
        if !sender_is_sound {
            return Err(IpDrop::BadDiscovery);
        }
        let sender = IpAddr::V4(packet.sender);
        let asks_us = self.is_local(IpAddr::V4(packet.target));
        if self.is_local(sender) {
            self.defend(now, sender);
            return Ok(());
        }
        let is_announcement = packet.sender == packet.target;
        match packet.operation {
            ArpOperation::Request if asks_us => {
                if !packet.sender.is_unspecified() {
                    self.learn_from_question(now, sender, packet.sender_mac);
                }
                self.push_arp(
                    packet.sender_mac,
                    ArpPacket {
                        operation: ArpOperation::Reply,
                        sender_mac: self.mac,
                        sender: packet.target,
                        target_mac: packet.sender_mac,
                        target: packet.sender,
                    },
                );
            }
            ArpOperation::Reply => {
                let solicited = asks_us && link.destination == self.mac;
                self.learn_from_answer(now, sender, packet.sender_mac, solicited);
            }
            ArpOperation::Request if is_announcement => {
                self.learn_from_answer(now, sender, packet.sender_mac, false);
            }
            ArpOperation::Request => {}
        }
        Ok(())
    }

    /// Takes a neighbour discovery message; the ICMPv6 checksum has been checked.
    pub(super) fn on_ndp(
        &mut self,
        now: Instant,
        packet: &Packet,
        link_source: MacAddr,
        bytes: &[u8],
    ) -> Result<(), IpDrop> {
        // RFC 4861 §7.1.1, §7.1.2: what a router forwarded is forged.
        if packet.ttl != ndp::HOP_LIMIT {
            return Err(IpDrop::BadDiscovery);
        }
        match NdpMessage::parse(bytes).ok_or(IpDrop::BadDiscovery)? {
            NdpMessage::Solicitation { target, source_mac } => {
                self.on_solicitation(now, packet, target, source_mac.unwrap_or(link_source))
            }
            NdpMessage::Advertisement { target, target_mac, solicited } => {
                let mac = target_mac.unwrap_or(link_source);
                let to_us = self.is_local(packet.destination);
                // RFC 4861 §7.1.2: what goes to a group answers nobody.
                if !ethernet::is_unicast(mac) || packet.source.is_unspecified() {
                    return Err(IpDrop::BadDiscovery);
                }
                if self.is_local(IpAddr::V6(target)) {
                    if mac != self.mac {
                        self.defend(now, IpAddr::V6(target));
                    }
                    return Ok(());
                }
                self.learn_from_answer(now, IpAddr::V6(target), mac, solicited && to_us);
                Ok(())
            }
        }
    }

    fn on_solicitation(
        &mut self,
        now: Instant,
        packet: &Packet,
        target: Ipv6Addr,
        mac: MacAddr,
    ) -> Result<(), IpDrop> {
        let IpAddr::V6(source) = packet.source else { return Err(IpDrop::BadDiscovery) };
        if !ethernet::is_unicast(mac) {
            return Err(IpDrop::BadDiscovery);
        }
        if !self.is_local(IpAddr::V6(target)) {
            return Ok(());
        }
        let target_mac = Some(self.mac);
        // RFC 4861 §7.2.4: a host that is still choosing its address is told with everyone else.
        if source.is_unspecified() {
            let message = NdpMessage::Advertisement { target, target_mac, solicited: false };
            self.push_ndp(ethernet::multicast_v6(ALL_NODES), target, ALL_NODES, message);
            return Ok(());
        }
        self.learn_from_question(now, packet.source, mac);
        let message = NdpMessage::Advertisement { target, target_mac, solicited: true };
        self.push_ndp(mac, target, source, message);
        Ok(())
    }

    fn learn_from_question(&mut self, now: Instant, address: IpAddr, mac: MacAddr) {
        if !self.routes.is_connected(address) || self.is_broadcast(address) {
            self.counters.unsolicited += 1;
            return;
        }
        let heard = self.neighbors.on_question(now, address, mac);
        self.account(heard);
    }

    fn learn_from_answer(&mut self, now: Instant, address: IpAddr, mac: MacAddr, solicited: bool) {
        if !self.routes.is_connected(address) {
            self.counters.unsolicited += 1;
            return;
        }
        let heard = self.neighbors.on_answer(now, address, mac, solicited);
        self.account(heard);
    }

    fn account(&mut self, heard: Heard) {
        match heard {
            Heard::Fine => {}
            Heard::Unsolicited => self.counters.unsolicited += 1,
            Heard::Refused => self.counters.neighbor_refusals += 1,
            Heard::Conflict(question) => {
                self.counters.neighbor_conflicts += 1;
                if let Some(question) = question {
                    self.solicit(question);
                }
            }
        }
    }

    /// RFC 5227 §2.4 (b): say once that the address is ours, and not again for a while.
    fn defend(&mut self, now: Instant, address: IpAddr) {
        self.counters.address_conflicts += 1;
        if now >= self.defend_at {
            self.defend_at = now + DEFEND_INTERVAL;
            self.announce_address(address);
        }
    }

    /// Queues a question about a neighbour.
    pub(super) fn solicit(&mut self, question: Solicit) {
        let Some(source) = self.source_for(question.target) else { return };
        self.counters.solicitations += 1;
        match (question.target, source) {
            (IpAddr::V4(target), IpAddr::V4(sender)) => {
                self.push_arp(
                    question.to.unwrap_or(ethernet::BROADCAST),
                    ArpPacket {
                        operation: ArpOperation::Request,
                        sender_mac: self.mac,
                        sender,
                        target_mac: [0; 6],
                        target,
                    },
                );
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                let group = ndp::solicited_node(target);
                let (mac, destination) = match question.to {
                    Some(mac) => (mac, target),
                    None => (ethernet::multicast_v6(group), group),
                };
                let source_mac = Some(self.mac);
                let message = NdpMessage::Solicitation { target, source_mac };
                self.push_ndp(mac, source, destination, message);
            }
            // The source has the family of the target.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
        }
    }

    fn push_arp(&mut self, to: MacAddr, packet: ArpPacket) {
        let mut frame = Vec::with_capacity(42);
        frame.extend_from_slice(&self.link_header(to, ethertype::ARP));
        frame.extend_from_slice(&packet.to_bytes());
        self.control.push(frame);
    }

    fn push_ndp(
        &mut self,
        mac: MacAddr,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        message: NdpMessage,
    ) {
        let (mut bytes, len) = message.to_bytes();
        let message = &mut bytes[..len];
        let payload_len = u16::try_from(len).unwrap_or(u16::MAX);
        let pseudo = Sum::pseudo_v6(source, destination, protocol::ICMPV6, u32::from(payload_len));
        let checksum = pseudo.plus(Sum::of(message)).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let header = Ipv6Header {
            traffic_class: 0,
            payload_len,
            next_header: protocol::ICMPV6,
            hop_limit: ndp::HOP_LIMIT,
            source,
            destination,
        };
        let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + 40 + len);
        frame.extend_from_slice(&self.link_header(mac, ethertype::IPV6));
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(message);
        self.control.push(frame);
    }

    /// Whether an IPv6 group is one that we belong to.
    pub(super) fn is_our_group(&self, group: Ipv6Addr) -> bool {
        group == ALL_NODES
            || self.addresses.iter().any(|entry| match entry.address {
                IpAddr::V6(address) => ndp::solicited_node(address) == group,
                IpAddr::V4(_) => false,
            })
    }

    /// The Ethernet groups that we belong to, besides broadcast; some may come twice.
    pub fn link_groups(&self) -> impl Iterator<Item = MacAddr> + '_ {
        let nodes = self.addresses.iter().filter_map(|entry| match entry.address {
            IpAddr::V6(address) => Some(ethernet::multicast_v6(ndp::solicited_node(address))),
            IpAddr::V4(_) => None,
        });
        let v6 = self.addresses.iter().any(|entry| entry.address.is_ipv6());
        nodes.chain(v6.then(|| ethernet::multicast_v6(ALL_NODES)))
    }

    /// Whether frames to an Ethernet group are for us.
    pub(super) fn is_our_link_group(&self, mac: MacAddr) -> bool {
        mac == ethernet::multicast_v6(ALL_NODES)
            || self.addresses.iter().any(|entry| match entry.address {
                IpAddr::V6(address) => ethernet::multicast_v6(ndp::solicited_node(address)) == mac,
                IpAddr::V4(_) => false,
            })
    }
}
