//! What an interface counts.

use crate::counted::{counters, reasons};

reasons! {
    /// Why a received frame went no further.
    IpDrop, IpDrops {
        /// Shorter than its headers say.
        Truncated = "truncated",
        /// A header contradicts itself.
        Malformed = "malformed",
        /// The IPv4 header's checksum is wrong.
        HeaderChecksum = "header_checksum",
        /// The Ethernet destination is not ours.
        NotOurMac = "not_our_mac",
        /// An Ethernet type that we do not speak.
        UnknownEthertype = "unknown_ethertype",
        /// The IP destination is not ours.
        NotForUs = "not_for_us",
        /// A source that no host has: unspecified, loopback, group or broadcast.
        BadSource = "bad_source",
        /// The source is our own address ("land").
        Land = "land",
        /// Sent to everyone on the link but addressed to us alone (RFC 1122 §3.3.6).
        LinkBroadcast = "link_broadcast",
        /// To everyone, and not UDP.
        BroadcastNotUdp = "broadcast_not_udp",
        /// A protocol that nobody here speaks.
        UnknownProtocol = "unknown_protocol",
        /// An IPv6 extension header: not supported yet.
        ExtensionHeader = "extension_header",
        /// An ARP or neighbour discovery packet that fails its checks.
        BadDiscovery = "bad_discovery",
        /// An ICMP message with a wrong checksum.
        IcmpChecksum = "icmp_checksum",
        /// An ICMP error that quotes nothing of ours.
        IcmpNotOurs = "icmp_not_ours",
        /// An ICMP error with a path MTU that cannot be.
        IcmpBadMtu = "icmp_bad_mtu",
        /// A fragment that contradicts its lengths, or leaves the longest datagram.
        FragmentMalformed = "fragment_malformed",
        /// A fragment that overlaps another (RFC 5722).
        FragmentOverlap = "fragment_overlap",
        /// A fragment that was here already.
        FragmentDuplicate = "fragment_duplicate",
        /// A fragment beyond the limits.
        FragmentLimit = "fragment_limit",
    }
}

counters! {
    /// What an interface saw. Every received frame is in exactly one of the counters that
    /// [`super::Ip::check`] adds up.
    IpCounters {
        /// Frames received.
        received,
        /// Segments given to TCP.
        delivered_tcp,
        /// Datagrams given to UDP.
        delivered_udp,
        /// ICMP errors given to a transport.
        delivered_errors,
        /// ARP packets handled.
        arp,
        /// Neighbour discovery messages handled.
        ndp,
        /// Other ICMP messages handled.
        icmp,
        /// Fragments put aside, and those that completed a datagram.
        fragments,
        /// Datagrams made whole again.
        reassembled,
        /// Reassembled datagrams given to a transport.
        reassembled_delivered,
        /// Reassembled ICMP messages handled.
        reassembled_icmp,
        /// Reassembled datagrams of no use: an unknown protocol, or a bad ICMP message.
        reassembled_dropped,
        /// Fragments that went into a reassembled datagram.
        fragments_used,
        /// Fragments put aside and thrown away since: out of time, overlapped, or evicted.
        fragments_discarded,
        /// Datagrams given up because their time ran out.
        fragment_timeouts,
        /// Datagrams given up because another took their place.
        fragment_evictions,
        /// Echo requests answered.
        echo_replies,
        /// ICMP errors queued.
        icmp_errors,
        /// ICMP errors not sent because of the rate limit.
        icmp_errors_limited,
        /// Control frames sent.
        control_sent,
        /// Control frames not queued because the queue was full.
        control_dropped,
        /// ARP and neighbour solicitations queued.
        solicitations,
        /// Neighbours that did not answer.
        neighbor_failures,
        /// Neighbours asked again because a transport got no acknowledgement through them.
        neighbors_doubted,
        /// Neighbours that had to go because the table was full.
        neighbor_evictions,
        /// Neighbours not learned because the table was full of better ones.
        neighbor_refusals,
        /// Answers that nobody had asked for, or from outside every connected prefix.
        unsolicited,
        /// Claims of another Ethernet address for a known neighbour, which is probed instead.
        neighbor_conflicts,
        /// Someone else claims an address of ours.
        address_conflicts,
    }
}
