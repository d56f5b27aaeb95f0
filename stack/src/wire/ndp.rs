//! Neighbour solicitation and advertisement (RFC 4861 §4.3, §4.4), with the link-layer address
//! option (§4.6.1); other options are skipped.

use core::net::Ipv6Addr;

use super::array;
use super::ethernet::MacAddr;

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// The hop limit that every message has (RFC 4861 §7.1).
pub const HOP_LIMIT: u8 = 255;
/// Bytes of a message with one link-layer address option.
pub const MESSAGE_LEN: usize = 32;
/// Bytes of a message without options.
const FIXED_LEN: usize = 24;

const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A neighbour discovery message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NdpMessage {
    /// Who has the target address?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's Ethernet address, if given.
        source_mac: Option<MacAddr>,
    },
    /// The sender has the target address.
    Advertisement {
        /// The address.
        target: Ipv6Addr,
        /// Its Ethernet address, if given.
        target_mac: Option<MacAddr>,
        /// Whether it answers a solicitation.
        solicited: bool,
    },
}

impl NdpMessage {
    /// The ICMPv6 message in `bytes`, or `None` if it is neither of the two, its code is not 0,
    /// its target is a group, or its options are malformed (RFC 4861 §7.1). The checksum and the
    /// hop limit are the caller's to check.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<NdpMessage> {
        let fixed = bytes.first_chunk::<FIXED_LEN>()?;
        let target = Ipv6Addr::from_octets(array(fixed, 8));
        if fixed[1] != 0 || target.is_multicast() {
            return None;
        }
        let options = &bytes[FIXED_LEN..];
        match fixed[0] {
            SOLICITATION => Some(NdpMessage::Solicitation {
                target,
                source_mac: mac_option(options, OPTION_SOURCE_MAC)?,
            }),
            ADVERTISEMENT => Some(NdpMessage::Advertisement {
                target,
                target_mac: mac_option(options, OPTION_TARGET_MAC)?,
                solicited: fixed[4] & FLAG_SOLICITED != 0,
            }),
            _ => None,
        }
    }

    /// The message's bytes with the checksum zero, and how many of them it has.
    #[must_use]
    pub fn to_bytes(self) -> ([u8; MESSAGE_LEN], usize) {
        let mut bytes = [0; MESSAGE_LEN];
        let (kind, flags, target, option, mac) = match self {
            NdpMessage::Solicitation { target, source_mac } => {
                (SOLICITATION, 0, target, OPTION_SOURCE_MAC, source_mac)
            }
            NdpMessage::Advertisement { target, target_mac, solicited } => {
                let flags = if solicited { FLAG_SOLICITED | FLAG_OVERRIDE } else { FLAG_OVERRIDE };
                (ADVERTISEMENT, flags, target, OPTION_TARGET_MAC, target_mac)
            }
        };
        bytes[0] = kind;
        bytes[4] = flags;
        bytes[8..24].copy_from_slice(&target.octets());
        let Some(mac) = mac else { return (bytes, FIXED_LEN) };
        bytes[24..26].copy_from_slice(&[option, 1]);
        bytes[26..32].copy_from_slice(&mac);
        (bytes, MESSAGE_LEN)
    }
}

/// The Ethernet address in the option of this type, `Some(None)` if there is no such option, and
/// `None` if an option has no length or leaves the message. At most one step a byte octet.
fn mac_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(length)?;
        if kind == wanted && units == 1 {
            found = option[2..].first_chunk::<6>().copied();
        }
        options = rest;
    }
    if options.is_empty() { Some(found) } else { None }
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const MAC: MacAddr = [2, 0, 0, 0, 0, 7];

    #[test]
    fn messages_survive_the_wire() {
        let rows = [
            NdpMessage::Solicitation { target: TARGET, source_mac: Some(MAC) },
            NdpMessage::Solicitation { target: TARGET, source_mac: None },
            NdpMessage::Advertisement { target: TARGET, target_mac: Some(MAC), solicited: true },
            NdpMessage::Advertisement { target: TARGET, target_mac: None, solicited: false },
        ];
        for message in rows {
            let (bytes, len) = message.to_bytes();
            assert_eq!(NdpMessage::parse(&bytes[..len]), Some(message));
            assert_eq!(NdpMessage::parse(&bytes[..23]), None);
        }
    }

    #[test]
    fn rfc_4861_7_1_malformed_messages_are_refused() {
        let message = NdpMessage::Solicitation { target: TARGET, source_mac: Some(MAC) };
        let (bytes, _) = message.to_bytes();
        let rows = [
            (0, 133, "router solicitation"),
            (1, 1, "code 1"),
            (8, 0xff, "a group as target"),
            (25, 0, "an option without length"),
            (25, 2, "an option that leaves the message"),
        ];
        for (at, value, name) in rows {
            let mut bad = bytes;
            bad[at] = value;
            assert_eq!(NdpMessage::parse(&bad), None, "{name}");
        }
        assert_eq!(NdpMessage::parse(&bytes[..31]), None, "a cut option");
    }

    #[test]
    fn unknown_options_are_skipped() {
        let message = NdpMessage::Solicitation { target: TARGET, source_mac: Some(MAC) };
        let (bytes, _) = message.to_bytes();
        let mut long = [0; 40];
        long[..24].copy_from_slice(&bytes[..24]);
        long[24..26].copy_from_slice(&[14, 1]); // nonce
        long[32..].copy_from_slice(&bytes[24..]);
        assert_eq!(NdpMessage::parse(&long), Some(message));
    }

    #[test]
    fn the_group_of_rfc_4291_2_7_1() {
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
    }
}
