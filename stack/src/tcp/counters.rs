//! What TCP counts. Plain numbers, owned by one worker, copied out whole.

use crate::counted::counters;

counters! {
    /// Counters of TCP. Each received segment is counted in `segments_received` and in exactly
    /// one of `predicted`, `processed` and the `dropped_*`.
    TcpCounters {
        /// Segments that IP handed up.
        segments_received,
        /// Segments taken by the full procedure of RFC 9293 §3.10.
        processed,
        /// Segments taken by the fast path.
        predicted,
        /// Dropped: header or options malformed.
        dropped_malformed,
        /// Dropped: wrong checksum.
        dropped_checksum,
        /// Dropped: no connection or listener; answered by a reset.
        dropped_no_endpoint,
        /// Dropped: SYN for a listener whose backlog is full.
        dropped_backlog,
        /// Dropped: SYN when the limit on connections is reached.
        dropped_connection_limit,
        /// Dropped: source is broadcast, multicast or otherwise no peer.
        dropped_bad_source,
        /// Segments handed to the device, retransmissions and resets included.
        segments_sent,
        /// Segments sent again.
        retransmissions,
        /// Payload bytes handed to the device, retransmissions included.
        bytes_sent,
        /// Of these, bytes sent again.
        bytes_retransmitted,
        /// Payload bytes received in order.
        bytes_received,
        /// Payload bytes copied from applications.
        bytes_written,
        /// Payload bytes copied to applications.
        bytes_read,
        /// Payload bytes that applications gave to be sent where they lie.
        bytes_given,
        /// Payload bytes that applications took where the NIC put them.
        bytes_taken,
        /// Times an application could take no more, since it held as many slots as it may.
        taking_refused,
        /// Expiries of the retransmission timer.
        timeouts,
        /// Paths doubted, since the first segment went unacknowledged R1 times (RFC 9293 §3.8.3).
        paths_doubted,
        /// Fast recoveries entered.
        fast_recoveries,
        /// Times a retransmission waited for the device to complete the earlier transmission.
        retransmissions_deferred,
        /// Times a peer dropped bytes that it had reported by SACK.
        sack_reneged,
        /// SACK blocks ignored, since they lie outside what is in flight.
        sack_ignored,
        /// Segments that arrived ahead of a gap.
        out_of_order,
        /// Payload bytes that were there already.
        bytes_duplicate,
        /// Payload bytes beyond the window, or that the reassembly queue could not take.
        bytes_refused,
        /// Payload bytes copied out of NIC buffers before the application read them.
        bytes_compacted,
        /// Segments with data that were marked by congestion (RFC 3168).
        ecn_marked,
        /// Reductions of the congestion window since the peer told of marks.
        ecn_reductions,
        /// Segments refused by PAWS (RFC 7323 §5).
        paws_rejected,
        /// Segments outside the window.
        unacceptable,
        /// Challenge ACKs sent (RFC 5961).
        challenge_acks,
        /// Challenge ACKs not sent, because of the limit per connection.
        challenge_acks_limited,
        /// Resets sent.
        resets_sent,
        /// Resets received and accepted.
        resets_received,
        /// Zero-window probes sent.
        window_probes,
        /// Keep-alive probes sent.
        keep_alive_probes,
        /// Connections opened by us.
        active_opens,
        /// Connections opened by peers.
        passive_opens,
        /// Connections that reached ESTABLISHED.
        established,
        /// Connections that ended in error.
        aborted,
        /// Connections that timed out.
        timed_out,
        /// Connections that entered TIME-WAIT.
        time_waits,
        /// TIME-WAITs used again for a new connection (RFC 6191).
        time_waits_reused,
        /// TIME-WAITs that ended early, because there were too many.
        time_waits_evicted,
        /// Frames not sent for want of a transmit slot; they are tried again.
        no_transmit_slot,
        /// Resets and acknowledgements without a connection, not sent for want of room.
        replies_dropped,
        /// ICMP errors that matched a connection.
        icmp_errors,
        /// ICMP errors ignored, since their sequence number is not in flight.
        icmp_errors_ignored,
    }
}

impl TcpCounters {
    /// Checks conservation: each received segment is counted exactly once.
    ///
    /// # Errors
    /// Received and accounted segments, if they differ.
    pub fn check(&self) -> Result<(), (u64, u64)> {
        let accounted = self.predicted
            + self.processed
            + self.dropped_malformed
            + self.dropped_checksum
            + self.dropped_no_endpoint
            + self.dropped_backlog
            + self.dropped_connection_limit
            + self.dropped_bad_source;
        if accounted == self.segments_received {
            Ok(())
        } else {
            Err((self.segments_received, accounted))
        }
    }
}
