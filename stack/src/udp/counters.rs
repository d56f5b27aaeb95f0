//! What the UDP layer counts.

use crate::counted::{counters, reasons};

reasons! {
    /// Why a received datagram went no further.
    UdpDrop, UdpDrops {
        /// Shorter than its header, or than its header says.
        Truncated = "truncated",
        /// The checksum is wrong.
        Checksum = "checksum",
        /// No checksum over IPv6 (RFC 8200 §8.1).
        NoChecksum = "no_checksum",
        /// Nobody has the port.
        NoSocket = "no_socket",
        /// The socket's queue is full.
        QueueFull = "queue_full",
        /// Several datagrams in one frame, so many that it makes no sense, or only one.
        Coalesced = "coalesced",
    }
}

counters! {
    /// What the UDP layer saw. Every datagram received is queued or dropped; every queued one is
    /// read, thrown away with its socket, or still there ([`super::Udp::check`]).
    UdpCounters {
        /// Datagrams received from layer 3.
        received,
        /// Datagrams queued at a socket.
        queued,
        /// Datagrams read.
        read,
        /// Datagrams thrown away unread when their socket closed.
        discarded,
        /// Datagrams copied out of their receive slots, to give those back.
        compacted,
        /// Datagrams taken from the application.
        sent,
        /// Frames handed to the device.
        frames_sent,
        /// Frames of several datagrams that were left to the device to cut.
        sent_large,
        /// Frames of several datagrams received; each of these is counted as received.
        received_large,
        /// Datagrams sent in fragments.
        sent_fragmented,
        /// Calls to send that found no room or no memory.
        send_blocked,
        /// Frames that waited for a neighbour's address.
        waited,
        /// Frames thrown away because the neighbour did not answer, or their socket closed first.
        wait_failed,
        /// ICMP errors that belong to a socket.
        errors,
        /// ICMP errors that belong to none.
        errors_unmatched,
        /// Packets whose connection was that of the packet before.
        last_hits,
        /// Datagrams that went the short way in: their headers were predicted.
        predicted,
    }
}
