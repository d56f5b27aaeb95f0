//! What a worker is told, with every limit and its default.

use std::net::IpAddr;
use std::path::PathBuf;

use roceway_busypoll::{Limits, Spin};
use roceway_rdma_virtio::memory::arena::ArenaConfig;
use roceway_rdma_virtio::virtio::layout::QUEUE_SIZE_MAX;
use roceway_stack::tcp::TcpConfig;
use roceway_stack::udp::UdpConfig;

use crate::offload::OffloadWish;

/// Entries of a virtqueue where neither user nor NIC want others.
const QUEUE_SIZE: u16 = 256;

/// An address with the length of its network prefix, such as `10.0.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network part; at least 1, since with none every host would be a neighbour.
    pub length: u8,
}

/// Why a text is no address with prefix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// There is no slash.
    #[error("`{0}` has no prefix length; write it as {0}/24 (IPv6: /64)")]
    Missing(String),
    /// The address does not parse.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Address(String),
    /// The length does not parse or is too long.
    #[error("`{text}` is no prefix length: 1 to {max} bits")]
    Length {
        /// What was written.
        text: String,
        /// The longest that there is.
        max: u8,
    },
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (address, length) =
            text.split_once('/').ok_or_else(|| PrefixError::Missing(text.to_owned()))?;
        let address: IpAddr =
            address.parse().map_err(|_bad| PrefixError::Address(address.to_owned()))?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        match length.parse() {
            Ok(length) if (1..=max).contains(&length) => Ok(Prefix { address, length }),
            _ => Err(PrefixError::Length { text: length.to_owned(), max }),
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Addresses of this end; at least one.
    pub addresses: Vec<Prefix>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Hardware address; `None` lets the device or a random number decide.
    pub mac: Option<[u8; 6]>,
    /// Longest IP packet, bytes; `None` is what the device says.
    pub mtu: Option<u16>,
    /// Offloads.
    pub offloads: OffloadWish,
    /// TCP.
    pub tcp: TcpConfig,
    /// UDP.
    pub udp: UdpConfig,
    /// Memory: by default 8 MiB with everything in it.
    pub memory: ArenaConfig,
    /// Entries of each virtqueue, a power of two from 16 to 4096. `None` is 256, and more where the
    /// NIC keeps several buffers ready for every message (rc: 17 of 4 KiB): as many as its receives
    /// hold, but at most half of the receive slots, by default 512.
    pub queue_size: Option<u16>,
    /// The turn: budgets, idle policy, cold work.
    pub turn: Limits,
    /// Core to pin the turning thread to.
    pub cpu: Option<usize>,
    /// Number of this worker; part of every socket id.
    pub worker: u8,
    /// Where every frame is written to, as pcapng; an existing file is replaced.
    pub capture: Option<PathBuf>,
}

impl WorkerConfig {
    /// The defaults for an end with this address.
    #[must_use]
    pub fn new(address: Prefix) -> WorkerConfig {
        WorkerConfig {
            addresses: vec![address],
            gateways: Vec::new(),
            mac: None,
            mtu: None,
            offloads: OffloadWish::default(),
            tcp: TcpConfig::default(),
            udp: UdpConfig::default(),
            memory: ArenaConfig::default(),
            queue_size: None,
            turn: Limits::default(),
            cpu: None,
            worker: 0,
            capture: None,
        }
    }

    /// The same that never sleeps: for the smallest latency, at the cost of a core.
    #[must_use]
    pub fn spinning(mut self) -> WorkerConfig {
        self.turn.spin = Spin::Forever;
        self
    }

    /// Entries of each virtqueue for a NIC whose receives hold so many buffers.
    #[must_use]
    pub fn queue_size(&self, receive_buffers: u32) -> u16 {
        self.queue_size.unwrap_or_else(|| {
            let half = 1 << (self.memory.receive / 2).max(1).ilog2();
            let wanted = receive_buffers.next_power_of_two().min(half);
            u16::try_from(wanted).unwrap_or(u16::MAX).clamp(QUEUE_SIZE, QUEUE_SIZE_MAX)
        })
    }

    /// Free small slots below which they are kept for headers: a quarter.
    #[must_use]
    pub fn small_low(&self) -> u32 {
        self.memory.small / 4
    }

    /// Free receive slots below which the stack copies data out of them: an eighth.
    #[must_use]
    pub fn receive_low(&self) -> u32 {
        self.memory.receive / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_as_long_as_the_nics_receives_and_half_of_the_slots_allow() {
        // rc by default, and with buffers that take a message in two.
        let (ordinary, wide) = (64 * 17, 64 * 2);
        let rows = [
            ("one buffer a receive", None, 1024, 0, 256),
            ("rc", None, 1024, ordinary, 512),
            ("rc with more slots", None, 2048, ordinary, 1024),
            ("rc with as many as it can use", None, 16_384, ordinary, 2048),
            ("rc with few slots", None, 200, ordinary, 256),
            ("rc with long slots", None, 1024, wide, 256),
            ("many receives", None, 1 << 20, 1 << 20, 4096),
            ("what the user says", Some(64), 1024, ordinary, 64),
        ];
        for (name, queue_size, slots, receive_buffers, expected) in rows {
            let address = Prefix { address: std::net::Ipv4Addr::LOCALHOST.into(), length: 8 };
            let mut config = WorkerConfig { queue_size, ..WorkerConfig::new(address) };
            config.memory.receive = slots;
            assert_eq!(config.queue_size(receive_buffers), expected, "{name}");
        }
    }
}
