//! What a soft NIC can be asked for, with limits and defaults.

use super::layout::{ELEMENTS_MAX, INLINE_MAX, SLOTS_MAX, SLOTS_MIN};
use crate::nic::places::NET_HEADER_LEN;
use crate::nic::{Capabilities, Receive, Wire};

/// Shortest IP packet that a link must carry (RFC 791 §3.2).
pub const MTU_MIN: u16 = 68;
/// Largest message: a virtio-net header and the largest coalesced frame (virtio 1.2 §5.1.6.3.1).
pub const MESSAGE_MAX: u32 = 65_562;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER_LEN: u32 = 14;
/// Elements of one receive: 64 KiB in 4 KiB chunks, and scratch in front.
pub(super) const RECV_ELEMENTS_MAX: usize = 20;

/// Receives that may be posted. A message that finds none waits in the ring, so more would only
/// be more memory to go round: with 256 buffers of 4 KiB each lay outside of the cache of its core
/// when its turn came again.
const RECEIVES: u32 = 128;

/// Shortest time after which a peer may count as stalled: 10 ms.
pub const TIMEOUT_NS_MIN: u64 = 10_000_000;
/// Longest such time: one minute.
pub const TIMEOUT_NS_MAX: u64 = 60_000_000_000;

/// How a soft NIC behaves. Both sides of a link must agree on `mtu`, and on `tso`, which decides
/// what a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoftOptions {
    /// Longest IP packet on the wire; [`MTU_MIN`] to 65535.
    pub mtu: u16,
    /// Passes large segments whole; needs `csum`.
    pub large: bool,
    /// Segments TCP and completes checksums itself, as hardware does; not together with `large`.
    pub tso: bool,
    /// Offers transmit checksum offload.
    pub csum: bool,
    /// How messages meet receives.
    pub receive: Receive,
    /// Slots of the send ring, a power of two; 64 to 8192. A ring of 512 slots is 64 KiB.
    pub slots: u32,
    /// After so long without progress the peer counts as stalled.
    pub timeout_ns: u64,
}

impl Default for SoftOptions {
    fn default() -> SoftOptions {
        SoftOptions {
            mtu: 1500,
            large: true,
            tso: false,
            csum: true,
            receive: Receive::Spanning,
            slots: 512,
            timeout_ns: 1_000_000_000,
        }
    }
}

impl SoftOptions {
    /// Says what is wrong with the combination, if anything.
    ///
    /// # Errors
    /// One sentence with the allowed range or the missing feature.
    pub fn check(&self) -> Result<(), String> {
        if self.mtu < MTU_MIN {
            return Err(format!("mtu={} is out of range: choose {MTU_MIN} to 65535", self.mtu));
        }
        if self.large && self.tso {
            return Err("large=on and tso=on exclude each other: choose one".to_owned());
        }
        if (self.large || self.tso) && !self.csum {
            let which = if self.large { "large" } else { "tso" };
            return Err(format!("{which}=on needs csum=on"));
        }
        if !self.slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&self.slots) {
            return Err(format!(
                "slots={} is out of range: choose a power of two from {SLOTS_MIN} to {SLOTS_MAX}",
                self.slots
            ));
        }
        if !(TIMEOUT_NS_MIN..=TIMEOUT_NS_MAX).contains(&self.timeout_ns) {
            return Err(format!(
                "timeout={} ms is out of range: choose 10 ms to 60 s",
                self.timeout_ns / 1_000_000
            ));
        }
        Ok(())
    }

    /// What a message consists of.
    #[must_use]
    pub fn wire(&self) -> Wire {
        if self.tso { Wire::Frames } else { Wire::VirtioNet }
    }

    /// The capabilities of a NIC with these options.
    pub(super) fn capabilities(&self, name: &str) -> Capabilities {
        let large = self.large || self.tso;
        let whole = NET_HEADER_LEN + ETHERNET_HEADER_LEN + u32::from(self.mtu);
        Capabilities {
            name: name.to_owned(),
            mac: None,
            mtu: self.mtu,
            wire: self.wire(),
            receive: self.receive,
            max_message: if large { MESSAGE_MAX } else { whole },
            max_send_wr: self.slots,
            max_recv_wr: RECEIVES,
            max_send_sge: u16::try_from(ELEMENTS_MAX).unwrap_or(u16::MAX),
            max_recv_sge: u16::try_from(RECV_ELEMENTS_MAX).unwrap_or(u16::MAX),
            max_inline: u32::try_from(INLINE_MAX).unwrap_or(u32::MAX),
            tx_checksum: self.csum,
            rx_checksum: self.csum && !self.tso,
            tso4: large,
            tso6: large,
            rx_large4: self.large,
            rx_large6: self.large,
            tso_ecn: large,
            uso: large,
            rx_ecn: self.large,
            rx_uso4: self.large,
            rx_uso6: self.large,
        }
    }
}
