//! Flipping a bit of a frame so that it can be noticed.
//!
//! On a real cable a flipped bit is caught by the frame check sequence or by the transport's
//! checksum. Here there is neither if the checksum was left partial: so it is completed first, and
//! the virtio-net header no longer vouches for it. A frame without a checksum over it (ARP) is not
//! changed but lost, as the frame check sequence would have it. One flipped bit changes a
//! one's-complement sum always.

use crate::nic::Wire;
use crate::nic::places::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, NET_HEADER_LEN};

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// What became of a message that was to be corrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Corrupted {
    /// A bit was flipped.
    Flipped,
    /// Nothing in it would notice: it must be lost.
    MustBeLost,
}

/// Flips the bit with this number, modulo the bits behind the Ethernet header.
pub(super) fn corrupt(message: &mut [u8], wire: Wire, bit: u64) -> Corrupted {
    let frame_start = match wire {
        Wire::Frames => 0,
        Wire::VirtioNet => NET_HEADER_LEN as usize,
    };
    let packet_start = frame_start + ETHERNET_HEADER_LEN;
    if message.len() <= packet_start {
        return Corrupted::MustBeLost;
    }
    let ethertype = u16::from_be_bytes([message[packet_start - 2], message[packet_start - 1]]);
    if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
        return Corrupted::MustBeLost;
    }
    if wire == Wire::VirtioNet && !complete_checksum(message) {
        return Corrupted::MustBeLost;
    }
    let packet = &mut message[packet_start..];
    let bits = u64::try_from(packet.len()).unwrap_or(1) * 8;
    let chosen = bit % bits;
    let byte = usize::try_from(chosen / 8).unwrap_or(0);
    packet[byte] ^= 1 << (chosen % 8);
    Corrupted::Flipped
}

/// Completes a partial checksum and withdraws what the virtio-net header says of it; whether the
/// header made sense.
fn complete_checksum(message: &mut [u8]) -> bool {
    let flags = message[0];
    message[0] &= !(NEEDS_CSUM | DATA_VALID);
    if flags & NEEDS_CSUM == 0 {
        return true;
    }
    let start = usize::from(u16::from_le_bytes([message[6], message[7]]));
    let offset = usize::from(u16::from_le_bytes([message[8], message[9]]));
    let frame = &mut message[NET_HEADER_LEN as usize..];
    if start + offset + 2 > frame.len() {
        return false;
    }
    let sum = !ones_complement_sum(&frame[start..]);
    // UDP sends 0 as all ones, since 0 means "none" (RFC 768); TCP does not mind.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The sum of RFC 1071, folded to 16 bits, not complemented.
pub(super) fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(u16::from_be_bytes([*last, 0]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtio-net header, an IPv4 header and a TCP header with a partial checksum.
    fn message(flags: u8) -> Vec<u8> {
        let mut message = vec![0_u8; 12 + 14 + 20 + 20 + 5];
        message[0] = flags;
        message[6..8].copy_from_slice(&34_u16.to_le_bytes());
        message[8..10].copy_from_slice(&16_u16.to_le_bytes());
        message[24..26].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        for (number, byte) in message[26..].iter_mut().enumerate() {
            *byte = u8::try_from(number).unwrap();
        }
        message[62..64].copy_from_slice(&0x1234_u16.to_be_bytes());
        message
    }

    #[test]
    fn a_partial_checksum_is_completed_before_the_bit_is_flipped() {
        for bit in 0..45 * 8 {
            let mut message = message(NEEDS_CSUM);
            // What the sum must be: all ones over the segment, with the pseudo-header's sum in
            // place of the field taken away.
            let before = message.clone();
            assert_eq!(corrupt(&mut message, Wire::VirtioNet, bit), Corrupted::Flipped);
            assert_eq!(message[0] & (NEEDS_CSUM | DATA_VALID), 0);
            let byte = usize::try_from(bit / 8).unwrap() + 26;
            message[byte] ^= 1 << (bit % 8);
            let whole = ones_complement_sum(&message[46..]);
            let pseudo = u64::from(0x1234_u16);
            assert_eq!((u64::from(whole) + pseudo) % 0xffff, 0, "{bit}");
            assert_eq!(before[26..62], message[26..62]);
            assert_eq!(before[64..], message[64..]);
        }
    }

    #[test]
    fn what_no_checksum_covers_is_lost_instead() {
        let mut arp = message(0);
        arp[24..26].copy_from_slice(&0x0806_u16.to_be_bytes());
        assert_eq!(corrupt(&mut arp, Wire::VirtioNet, 5), Corrupted::MustBeLost);
        let mut short = vec![0; 26];
        assert_eq!(corrupt(&mut short, Wire::VirtioNet, 5), Corrupted::MustBeLost);
        let mut absurd = message(NEEDS_CSUM);
        absurd[6..8].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(corrupt(&mut absurd, Wire::VirtioNet, 5), Corrupted::MustBeLost);
    }

    #[test]
    fn the_sum_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(ones_complement_sum(&bytes), 0xddf2);
        assert_eq!(ones_complement_sum(&[1]), 0x0100);
        assert_eq!(ones_complement_sum(&[]), 0);
    }
}
