//! What happened on the wire, in numbers.
//!
//! Invariant: `rx_messages` is the sum of what was delivered, control and each kind of drop
//! ([`WireCounters::conserves`]).

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters of a wire, all its peers together.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct WireCounters {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl WireCounters {
            /// Calls `visit` with the name and value of each.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(concat!("wire_", stringify!($name)), self.$name);)+
            }
        }
    };
}

counters! {
    /// Messages that completed a receive, in error or not.
    rx_messages,
    /// Frames passed on.
    rx_delivered,
    /// Credit updates and probes.
    rx_control,
    /// Receives that completed in error.
    rx_failed,
    /// Shorter than a header, or data without a frame behind it.
    rx_drop_short,
    /// A version or kind that is not spoken.
    rx_drop_header,
    /// Session, incarnation or queue pair of no peer.
    rx_drop_sender,
    /// Messages of a peer that broke the rules; its session ended.
    rx_drop_violation,
    /// Datagrams that were taken already, or came too late.
    rx_drop_duplicate,
    /// A source address of another peer, of this host, or of no host.
    rx_drop_mac,
    /// Datagrams that never came, or not yet.
    rx_missing,
    /// Datagrams that came after later ones.
    rx_late,
    /// Data messages handed to the NIC.
    tx_data,
    /// Credit updates.
    tx_updates,
    /// Probes.
    tx_probes,
    /// Bytes of data messages, wire header included.
    tx_bytes,
    /// Frames to all peers.
    tx_to_all,
    /// Copies of a frame to all that a peer had no credit for.
    tx_drop_flood,
    /// Frames dropped as their peer took none for too long.
    tx_drop_stalled,
    /// Frames that found no peer up.
    tx_drop_no_peer,
    /// Frames for a peer that went down.
    tx_drop_down,
    /// Times that a frame waited for credit.
    tx_waited,
    /// Sessions that came up.
    sessions_up,
    /// Sessions that ended.
    sessions_down,
    /// Sessions that ended since the peer broke the rules.
    violations,
    /// Sessions whose queue pair failed.
    broken,
    /// Processes of peers that ended.
    gone,
    /// Calls made.
    dials,
    /// Calls that did not get through, or whose answer made no sense.
    dials_failed,
    /// Calls that were refused.
    refused,
    /// Calls that were taken.
    incoming,
    /// Calls from addresses that are not allowed, or more than there may be at once.
    incoming_unwanted,
    /// Conversations that ended since what was said made no sense.
    garbage,
    /// Hellos that were refused.
    refusals,
    /// Words or answers that did not come in time.
    timeouts,
}

impl WireCounters {
    /// A data message of so many bytes with its header was posted.
    #[inline(always)]
    pub fn on_data_sent(&mut self, bytes: u32) {
        self.tx_data += 1;
        self.tx_bytes += u64::from(bytes);
    }

    /// Whether every message that was received is accounted for.
    #[must_use]
    pub fn conserves(&self) -> bool {
        self.rx_messages
            == self.rx_delivered
                + self.rx_control
                + self.rx_failed
                + self.rx_drop_short
                + self.rx_drop_header
                + self.rx_drop_sender
                + self.rx_drop_violation
                + self.rx_drop_duplicate
                + self.rx_drop_mac
    }
}
