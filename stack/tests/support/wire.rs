//! Frames between the stacks: what a device makes of them, and how they are damaged.

use roceway_stack::checksum::Sum;
use roceway_stack::frame::TxFrame;

use super::Random;

/// A frame on the wire.
#[derive(Clone, Debug)]
pub struct Wire {
    pub bytes: Vec<u8>,
    /// The transport checksum is only that of the pseudo-header.
    pub partial: bool,
    /// Payload of a segment, if this is several in one frame.
    pub gso_size: u16,
    pub header_len: u16,
}

impl Wire {
    /// What `frame` with these bytes becomes.
    pub fn of(frame: &TxFrame, bytes: Vec<u8>) -> Wire {
        Wire {
            bytes,
            partial: frame.checksum.is_some(),
            gso_size: frame.segmentation.map_or(0, |it| it.size),
            header_len: frame.segmentation.map_or(0, |it| it.header_len),
        }
    }

    pub fn whole(bytes: Vec<u8>) -> Wire {
        Wire { bytes, partial: false, gso_size: 0, header_len: 0 }
    }

    fn is_v6(&self) -> bool {
        self.bytes[12..14] == [0x86, 0xdd]
    }

    fn is_ip(&self) -> bool {
        self.is_v6() || self.bytes[12..14] == [0x08, 0x00]
    }

    /// Completes a partial transport checksum, as a NIC would, so that damage can be seen.
    pub fn finish_checksum(&mut self) {
        if !std::mem::take(&mut self.partial) {
            return;
        }
        let start = if self.is_v6() { 54 } else { 34 };
        let protocol = if self.is_v6() { self.bytes[20] } else { self.bytes[23] };
        let place = start + if protocol == 6 { 16 } else { 6 };
        let sum = Sum::of(&self.bytes[start..]).checksum();
        self.bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Cuts a large TCP frame into segments, as a device without a peer for large ones does.
    pub fn cut(self) -> Vec<Wire> {
        let size = usize::from(self.gso_size);
        if size == 0 {
            return vec![self];
        }
        let head = usize::from(self.header_len);
        let (header, payload) = self.bytes.split_at(head);
        let count = payload.len().div_ceil(size);
        payload
            .chunks(size)
            .enumerate()
            .map(|(n, part)| {
                let mut bytes = header.to_vec();
                bytes.extend_from_slice(part);
                let (at, last) = (n * size, n + 1 == count);
                fix_headers(&mut bytes, self.is_v6(), u32::try_from(at).unwrap(), last);
                Wire { bytes, partial: true, gso_size: 0, header_len: 0 }
            })
            .collect()
    }

    /// Damages one bit, or cuts the frame short. Ethernet's own checksum guards the link header
    /// and whatever carries no checksum of its own.
    pub fn damage(&mut self, random: &mut Random) {
        if !self.is_ip() {
            return;
        }
        self.finish_checksum();
        if random.chance(100) {
            let keep = 14 + random.below(self.bytes.len() as u64 - 14);
            self.bytes.truncate(usize::try_from(keep).unwrap());
            return;
        }
        let at = 14 + usize::try_from(random.below(self.bytes.len() as u64 - 14)).unwrap();
        self.bytes[at] ^= 1 << random.below(8);
    }
}

/// Lengths, checksums, sequence number and flags of one segment out of several.
fn fix_headers(bytes: &mut [u8], v6: bool, offset: u32, last: bool) {
    let len = bytes.len();
    let tcp = if v6 { 54 } else { 34 };
    let transport = u16::try_from(len - tcp).unwrap();
    let addresses = if v6 {
        bytes[18..20].copy_from_slice(&transport.to_be_bytes());
        Sum::of(&bytes[22..54])
    } else {
        bytes[16..18].copy_from_slice(&(transport + 20).to_be_bytes());
        bytes[24..26].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&bytes[14..34]).checksum();
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        Sum::of(&bytes[26..34])
    };
    let seq = u32::from_be_bytes(bytes[tcp + 4..tcp + 8].try_into().unwrap());
    bytes[tcp + 4..tcp + 8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
    if !last {
        bytes[tcp + 13] &= !0x09;
    }
    let pseudo = addresses.plus(Sum::of_u16(6)).plus(Sum::of_u16(transport));
    let partial = !pseudo.checksum();
    bytes[tcp + 16..tcp + 18].copy_from_slice(&partial.to_be_bytes());
}
