//! What a soft NIC counts, and the sums that must hold.
//!
//! Received: `taken = received + Σ drop_*`. Work requests: `work_requests = sends_completed +
//! sends_flushed + sends_retry_exceeded + sends_outstanding`, where the last is no counter but the
//! queue's length.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counters of a soft NIC.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SoftCounters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl SoftCounters {
            /// Calls `visit` with each name and value.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(concat!("soft_", stringify!($name)), self.$name);)+
            }
        }
    };
}

counters! {
    /// Messages put into the send ring.
    sent,
    /// Bytes of these.
    sent_bytes,
    /// Sends that were not inline, so that they complete.
    work_requests,
    /// Work requests that the peer took.
    sends_completed,
    /// Work requests that ended with the link.
    sends_flushed,
    /// Work requests that the peer did not take in time.
    sends_retry_exceeded,
    /// Posts refused since there is no link.
    refused_link_down,
    /// Posts refused since the ring or the queue was full.
    refused_full,
    /// Posts refused for a bad lkey, range, length or number of elements.
    refused_invalid,
    /// Messages found in the peer's ring and taken out of it.
    taken,
    /// Messages delivered into posted receives.
    received,
    /// Bytes of these.
    received_bytes,
    /// Receives that these used.
    receives_used,
    /// Times that a message had to wait for more posted receives.
    waits_for_receives,
    /// Messages dropped: length, elements or ranges that make no sense.
    drop_malformed,
    /// Messages dropped: their sender had taken them back.
    drop_revoked,
    /// Messages dropped: their sender changed them while they were pulled.
    drop_torn,
    /// Messages dropped: longer than the receive ([`crate::nic::Receive::OneMessage`]).
    drop_too_long,
    /// Progress read from the peer that is not possible; ignored.
    peer_progress_impossible,
    /// Frames cut into segments by the NIC.
    segmented,
    /// Segments that came of it.
    segments,
    /// Checksums computed by the NIC.
    checksums,
    /// Frames refused since the NIC cannot segment or checksum them.
    refused_offload,
    /// Times that the sleeping peer was woken.
    wakes_sent,
    /// Wake-ups and other words received from the peer.
    wakes_received,
    /// Times armed for sleep.
    arms,
    /// Of these, found something to do at once.
    arms_pending,
    /// Links that came up.
    links_up,
    /// Links that went down.
    links_down,
    /// Peers that died or left.
    peers_gone,
    /// Peers that stalled.
    peers_stalled,
    /// Peers refused: wrong user, version, memory, seals or options.
    peers_refused,
    /// Peers told that the link is taken.
    peers_told_busy,
}
