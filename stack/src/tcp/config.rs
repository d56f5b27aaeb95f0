//! What a TCP can be told, with defaults, and the limits of its memory.

use super::congestion::Algorithm;
use super::ecn::EcnMode;
use crate::time::Duration;

/// Keep-alive, RFC 9293 §3.8.4. Off unless asked for (MUST-25).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// Idle time before the first probe; at least two hours unless asked otherwise (MUST-28).
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection ends.
    pub probes: u8,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 }
    }
}

/// Configuration of TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// Most unread bytes of a connection: the largest window it advertises. 1 KiB to 1 GiB.
    pub receive_buffer: u32,
    /// Most receive slots that a connection's application may hold of what it took without a copy.
    pub lent_slots: u16,
    /// Most unacknowledged and unsent bytes of a connection. 1 KiB to 1 GiB.
    pub send_buffer: u32,
    /// Congestion control of new connections.
    pub congestion: Algorithm,
    /// Offer timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Use explicit congestion notification (RFC 3168).
    pub ecn: EcnMode,
    /// Longest delay of an acknowledgement; below 500 ms (RFC 9293 MUST-40).
    pub delayed_ack: Duration,
    /// Maximum segment lifetime; TIME-WAIT lasts two of them.
    pub msl: Duration,
    /// How long an orphan waits in FIN-WAIT-2 for the peer's FIN.
    pub fin_wait_2: Duration,
    /// R1 of RFC 9293 §3.8.3: retransmissions after which the path is doubted; at least 3.
    pub retransmissions_doubt: u8,
    /// R2: how long data goes unacknowledged before the connection ends; at least 100 s.
    pub give_up: Duration,
    /// R2 of a SYN; at least 3 minutes (MUST-23).
    pub syn_give_up: Duration,
    /// Challenge ACKs of one connection in one second (RFC 5961 §7).
    pub challenge_acks_per_second: u8,
    /// Most connections, half-open ones included.
    pub connections_max: u32,
    /// Most listeners.
    pub listeners_max: u32,
    /// Most compact TIME-WAIT entries; beyond it the oldest ends early, counted.
    pub time_wait_max: u32,
    /// Ephemeral ports, both inclusive.
    pub port_range: (u16, u16),
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            receive_buffer: 1 << 20,
            lent_slots: 256,
            send_buffer: 1 << 20,
            congestion: Algorithm::Cubic,
            timestamps: true,
            sack: true,
            ecn: EcnMode::Accept,
            delayed_ack: Duration::from_millis(40),
            msl: Duration::from_secs(30),
            fin_wait_2: Duration::from_secs(60),
            retransmissions_doubt: 3,
            give_up: Duration::from_secs(120),
            syn_give_up: Duration::from_secs(180),
            challenge_acks_per_second: 10,
            connections_max: 65_536,
            listeners_max: 1_024,
            time_wait_max: 65_536,
            port_range: (32_768, 60_999),
        }
    }
}

impl TcpConfig {
    /// The window scale that lets `receive_buffer` be advertised (RFC 7323 §2.3).
    #[must_use]
    pub fn window_scale(&self) -> u8 {
        let mut scale = 0;
        while scale < 14 && (u32::from(u16::MAX) << scale) < self.receive_buffer {
            scale += 1;
        }
        scale
    }
}
