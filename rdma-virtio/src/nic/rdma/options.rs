//! What a user may say about `rdma:`, with its checks.
//!
//! Owns the limits and the arithmetic; opens nothing.

use std::net::{IpAddr, SocketAddr};

use super::raw::options::RawOptions;
use super::wire::exchange::Mode;
use super::wire::give_up::{GIVE_UP_NS_DEFAULT, Retry};
use super::wire::header::HEADER_BYTES;
use super::wire::peers::Prefix;

/// The TCP port of the exchange, unless another is given.
pub const PORT_DEFAULT: u16 = 4796;
/// Length of the virtio-net header in a message.
const NET_HEADER_LEN: u32 = 12;
/// Longest message with large segments: header of the wire, virtio-net header, Ethernet header and
/// 64 KiB (virtio 1.2 §5.1.6.3.1).
pub const MESSAGE_LARGE: u32 = HEADER_BYTES + NET_HEADER_LEN + 14 + 65_536;
/// What a message has besides the IP packet: headers, Ethernet header and one VLAN tag.
pub const AROUND_PACKET: u32 = HEADER_BYTES + NET_HEADER_LEN + 18;

/// How hosts are to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Exchange {
    /// The connection manager, and TCP where that does not work.
    #[default]
    Auto,
    /// The connection manager (librdmacm) only.
    Managed,
    /// TCP of the host's kernel only.
    Tcp,
}

impl Exchange {
    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Exchange::Auto => "auto",
            Exchange::Managed => "cm",
            Exchange::Tcp => "tcp",
        }
    }
}

/// Options of `rdma:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RdmaOptions {
    /// The wire; none for plain Ethernet, mode raw.
    pub mode: Option<Mode>,
    /// Peers that are called and answered.
    pub peers: Vec<SocketAddr>,
    /// Peers that are answered.
    pub accept: Vec<Prefix>,
    /// Most peers; 0 for as many as listed, and 3 more if some are accepted.
    pub peers_max: u16,
    /// Longest IP packet; 0 for 1500 (rc) or what a datagram takes (ud).
    pub mtu: u16,
    /// Own hardware address; none for one made of the GID.
    pub mac: Option<[u8; 6]>,
    /// Whether segments of 64 KB are one message; rc only.
    pub large: bool,
    /// Index of the GID.
    pub gid: Option<u32>,
    /// Port of the exchange, TCP's and the connection manager's; 0 not to listen.
    pub port: u16,
    /// How hosts find each other.
    pub exchange: Exchange,
    /// Traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Service level (VLAN priority).
    pub service_level: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// How RC tries.
    pub retry: Retry,
    /// The bound of its give-up time, in nanoseconds.
    pub give_up_ns: u64,
    /// Sends that may be outstanding.
    pub queue: u16,
    /// Receives of a whole message that may be posted; 0 for 64 (large) or 512.
    pub receives: u16,
    /// What is for mode raw only.
    pub raw: RawOptions,
}

impl Default for RdmaOptions {
    fn default() -> RdmaOptions {
        RdmaOptions {
            mode: None,
            peers: Vec::new(),
            accept: Vec::new(),
            peers_max: 0,
            mtu: 0,
            mac: None,
            large: true,
            gid: None,
            port: PORT_DEFAULT,
            exchange: Exchange::default(),
            traffic_class: 0,
            service_level: 0,
            flow_label: 0,
            retry: Retry::DEFAULT,
            give_up_ns: GIVE_UP_NS_DEFAULT,
            queue: 256,
            receives: 0,
            raw: RawOptions::default(),
        }
    }
}

impl RdmaOptions {
    /// Whether the options make sense together.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let Some(mode) = self.mode else { return Ok(()) };
        if self.peers.is_empty() && self.accept.is_empty() {
            return Err("a wire without peers: give peer=ADDRESS for each host to call, or \
                        accept=ADDRESS/PREFIX for those that may call"
                .to_owned());
        }
        if usize::from(self.peers_max()) < self.peers.len() {
            return Err(format!("peers={} is less than listed", self.peers_max));
        }
        if mode == Mode::Rc {
            self.retry
                .within(self.give_up_ns)
                .map_err(|error| format!("{error}; lower timeout= or retry=, or raise give-up="))?;
        }
        Ok(())
    }

    /// Most peers.
    #[must_use]
    pub fn peers_max(&self) -> u16 {
        let listed = u16::try_from(self.peers.len()).unwrap_or(u16::MAX);
        let strangers = if self.accept.is_empty() { 0 } else { 3 };
        match self.peers_max {
            0 => listed.saturating_add(strangers),
            peers_max => peers_max,
        }
    }

    /// Whether messages are large in this mode.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.large && self.mode == Some(Mode::Rc)
    }

    /// The MTU where a datagram takes `path_mtu` bytes.
    ///
    /// # Errors
    /// If the one asked for does not fit a datagram.
    pub fn mtu(&self, path_mtu: u16) -> Result<u16, String> {
        let room = path_mtu.saturating_sub(u16::try_from(AROUND_PACKET).unwrap_or(u16::MAX));
        match (self.mode, self.mtu) {
            (Some(Mode::Ud), 0) => Ok(room),
            (Some(Mode::Ud), mtu) if mtu > room => Err(format!(
                "mtu={mtu} does not fit datagrams of {path_mtu} bytes: at most {room}; raise the \
                 interface's MTU, or use mode=rc"
            )),
            (_, 0) => Ok(1500),
            (_, mtu) => Ok(mtu),
        }
    }

    /// Longest message where the MTU is `mtu`, header of the wire included.
    #[must_use]
    pub fn message_max(&self, mtu: u16) -> u32 {
        let plain = AROUND_PACKET + u32::from(mtu);
        if self.is_large() { plain.max(MESSAGE_LARGE) } else { plain }
    }

    /// Receives of a whole message that may be posted.
    #[must_use]
    pub fn receives(&self) -> u16 {
        match self.receives {
            0 if self.is_large() => 64,
            0 => 512,
            receives => receives,
        }
    }
}

/// A peer as users write it: `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`;
/// nothing if it is none.
#[must_use]
pub fn peer(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, PORT_DEFAULT));
    }
    text.parse::<SocketAddr>().ok().filter(|to| to.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rc() -> RdmaOptions {
        let peers = vec![peer("10.0.0.2").unwrap()];
        RdmaOptions { mode: Some(Mode::Rc), peers, ..RdmaOptions::default() }
    }

    #[test]
    fn a_wire_needs_peers_and_a_bounded_give_up_time() {
        assert!(rc().check().is_ok());
        let none = RdmaOptions { peers: vec![], ..rc() };
        assert!(none.check().unwrap_err().contains("peer=ADDRESS"));
        let slow = RdmaOptions { retry: Retry { timeout: 18, ..Retry::DEFAULT }, ..rc() };
        assert!(slow.check().unwrap_err().contains("lower timeout="));
        let ud = RdmaOptions { mode: Some(Mode::Ud), ..slow };
        assert!(ud.check().is_ok(), "datagrams are not repeated");
        let few = RdmaOptions { peers: vec![rc().peers[0]; 3], peers_max: 2, ..rc() };
        assert!(few.check().is_err());
    }

    #[test]
    fn sizes_follow_mode_and_path() {
        let ud = RdmaOptions { mode: Some(Mode::Ud), ..rc() };
        assert_eq!((rc().mtu(1024), ud.mtu(4096)), (Ok(1500), Ok(4042)));
        assert!(RdmaOptions { mtu: 1500, ..ud.clone() }.mtu(1024).is_err());
        assert_eq!(rc().message_max(1500), 65_586);
        assert_eq!(ud.message_max(970), 1024);
        assert_eq!((rc().receives(), ud.receives()), (64, 512));
        let accept = vec![Prefix { address: IpAddr::from([10, 0, 0, 0]), bits: 8 }];
        assert_eq!(RdmaOptions { accept, ..rc() }.peers_max(), 4);
    }

    #[test]
    fn peers_are_addresses_with_or_without_port() {
        let rows = [
            ("10.0.0.2", Some("10.0.0.2:4796")),
            ("10.0.0.2:99", Some("10.0.0.2:99")),
            ("fd00::2", Some("[fd00::2]:4796")),
            ("[fd00::2]:99", Some("[fd00::2]:99")),
            ("10.0.0.2:0", None),
            ("host", None),
        ];
        for (text, expected) in rows {
            assert_eq!(peer(text).map(|to| to.to_string()), expected.map(str::to_owned), "{text}");
        }
    }
}
