//! What a gateway counts, for each side of it.
//!
//! Invariant: `received` is the sum of what was forwarded, each kind of drop, beacons, and the
//! frame that waits, if one does ([`SideCounters::conserves`]).

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Frames that came in on one side.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SideCounters {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl SideCounters {
            /// Calls `visit` with the name and value of each.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name);)+
            }
        }
    };
}

counters! {
    /// Frames that came in.
    received,
    /// Their bytes.
    received_bytes,
    /// Frames that went out on the other side.
    forwarded,
    /// Frames to groups, to everybody and to addresses that are not known.
    flooded,
    /// Of these, large segments that were passed whole, or segmented for a side that takes none.
    segments,
    /// Beacons of gateways, this one's among them.
    beacons,
    /// Between two hosts of the side that it came from.
    drop_local,
    /// Shorter than an Ethernet header.
    drop_short,
    /// A source that is no host's address.
    drop_source,
    /// A source that was heard on the other side a moment ago.
    drop_elsewhere,
    /// Longer than the other side's packets may be.
    drop_too_long,
    /// The other side had no room for too long.
    drop_no_room,
    /// The other side's device refused it for good.
    drop_refused,
    /// Another gateway forwards, or there is a loop.
    drop_standing_by,
    /// Times that a frame waited for room on the other side.
    waited,
    /// Addresses that were not learned since the table was full.
    unlearned,
    /// The link came up, or a peer did.
    link_up,
    /// The link went down, or the last peer did.
    link_down,
    /// Hosts that went for good while others stayed.
    hosts_gone,
}

impl SideCounters {
    /// Whether every frame that was received is accounted for; `waiting` are those that are held.
    #[must_use]
    pub fn conserves(&self, waiting: u64) -> bool {
        self.received
            == self.forwarded
                + self.beacons
                + self.drop_local
                + self.drop_short
                + self.drop_source
                + self.drop_elsewhere
                + self.drop_too_long
                + self.drop_no_room
                + self.drop_refused
                + self.drop_standing_by
                + waiting
    }
}
