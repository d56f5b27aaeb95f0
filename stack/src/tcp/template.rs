//! The headers of a connection's segments, ready to be copied: Ethernet, IP, TCP and, where they
//! were negotiated, timestamps. What changes from segment to segment is patched in; lengths and the
//! sums over them stay in the template, for a segment is mostly as long as the one before it.
//!
//! The IPv4 identification stays 0: with DF set a datagram is atomic (RFC 6864 §4.1).

use core::net::IpAddr;
use core::num::NonZeroU8;

use super::ecn::ECT0;
#[cfg(test)]
use super::hot_lines::{Place, places};
use super::seq::SeqNum;
use super::tuple::FourTuple;
use crate::checksum::Sum;
use crate::frame::TxChecksum;
use crate::ip::Marking;
use crate::wire::prediction::{FLOW_LEN, FlowV4};
#[cfg(test)]
use alloc::vec::Vec;
#[cfg(test)]
use core::mem::offset_of;

/// Longest headers without options other than timestamps: Ethernet, IPv6, TCP, timestamps.
const TEMPLATE_LEN_MAX: usize = 14 + 40 + 20 + 12;
const ETHERNET_LEN: usize = 14;
const TCP_LEN: usize = 20;
/// NOP NOP and the timestamps option (RFC 7323 appendix A).
pub(super) const TIMESTAMPS_LEN: usize = 12;

/// What changes from segment to segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) seq: SeqNum,
    pub(super) ack: SeqNum,
    /// The flags' wire byte.
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) ts_value: u32,
    pub(super) ts_echo: u32,
    /// Bytes behind the fixed TCP header: options other than the template's, and payload.
    pub(super) behind: u32,
    /// Whether the packet may say that its transport is ECN-capable.
    pub(super) capable: bool,
}

/// The template. The fast path touches the beginning of it, as far as headers of IPv4 go.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct HeaderTemplate {
    /// What lengths and sums in `bytes` are for: the bytes behind the fixed TCP header.
    sized_for: u32,
    /// Of the neighbour cache when the link header was filled in.
    neighbor_generation: u32,
    /// Sum over addresses and protocol, not folded.
    pseudo_sum: u32,
    bytes: [u8; TEMPLATE_LEN_MAX],
    len: u8,
    v6: bool,
    timestamps: bool,
    /// The ECN field of what carries new data.
    ecn: u8,
    /// Type of service of the peer's last packet on the full path: what its next one will have.
    peer_tos: u8,
    /// The link header is filled in.
    linked: bool,
    /// Sum over the IPv4 header with its length and checksum zero, not folded.
    ip_sum: u32,
}

#[cfg(test)]
impl HeaderTemplate {
    /// What a segment on the fast path touches: IPv4 with timestamps.
    pub(super) fn hot() -> Vec<Place> {
        let bytes = (offset_of!(HeaderTemplate, bytes), 66);
        [places!(HeaderTemplate: sized_for, neighbor_generation, pseudo_sum), alloc::vec![bytes]]
            .concat()
    }
}

/// A link header, and whether and since when it is filled in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    bytes: [u8; 12],
    linked: bool,
    neighbor_generation: u32,
}

impl HeaderTemplate {
    /// What the peer's segments look like where that never changes, once the link header is known:
    /// IPv4 with timestamps only.
    pub(super) fn expectation(&self) -> Option<FlowV4> {
        if self.v6 || !self.timestamps || !self.linked {
            return None;
        }
        let b = &self.bytes;
        let mut frame = [0; FLOW_LEN];
        frame[0..6].copy_from_slice(&b[6..12]);
        frame[6..12].copy_from_slice(&b[0..6]);
        frame[12..15].copy_from_slice(&b[12..15]);
        frame[15] = self.peer_tos;
        frame[26..30].copy_from_slice(&b[30..34]);
        frame[30..34].copy_from_slice(&b[26..30]);
        frame[34..36].copy_from_slice(&b[36..38]);
        frame[36..38].copy_from_slice(&b[34..36]);
        Some(FlowV4::of(&frame))
    }

    /// Headers for `tuple`; the link header is still empty.
    pub(super) fn new(tuple: &FourTuple, timestamps: bool) -> HeaderTemplate {
        let v6 = tuple.remote.is_ipv6();
        let ip_len = if v6 { 40 } else { 20 };
        let tcp = ETHERNET_LEN + ip_len;
        let len = tcp + TCP_LEN + if timestamps { TIMESTAMPS_LEN } else { 0 };
        let mut bytes = [0; TEMPLATE_LEN_MAX];
        match (tuple.local, tuple.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                bytes[12..14].copy_from_slice(&[0x08, 0x00]);
                bytes[14..16].copy_from_slice(&[0x45, 0]);
                bytes[20..24].copy_from_slice(&[0x40, 0, 0, 6]);
                bytes[26..30].copy_from_slice(&local.octets());
                bytes[30..34].copy_from_slice(&remote.octets());
            }
            (local, remote) => {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[14] = 0x60;
                bytes[20] = 6;
                bytes[22..38].copy_from_slice(&to_v6(local));
                bytes[38..54].copy_from_slice(&to_v6(remote));
            }
        }
        bytes[tcp..tcp + 2].copy_from_slice(&tuple.local_port.to_be_bytes());
        bytes[tcp + 2..tcp + 4].copy_from_slice(&tuple.remote_port.to_be_bytes());
        bytes[tcp + 12] = 5 << 4;
        if timestamps {
            bytes[tcp + 12] = 8 << 4;
            bytes[tcp + 20..tcp + 24].copy_from_slice(&[1, 1, 8, 10]);
        }
        let addresses = if v6 { 22..54 } else { 26..34 };
        let mut template = HeaderTemplate {
            pseudo_sum: sum_words(&bytes[addresses]) + 6,
            ip_sum: 0,
            bytes,
            len: u8::try_from(len).unwrap_or(u8::MAX),
            v6,
            timestamps,
            ecn: 0,
            peer_tos: 0,
            sized_for: u32::MAX,
            linked: false,
            neighbor_generation: 0,
        };
        template.set_marking(Marking::default());
        template
    }

    /// Sets how far packets go and of what class they are (RFC 9293 MUST-48, MUST-49). Lengths and
    /// sums follow with the next segment.
    pub(super) fn set_marking(&mut self, marking: Marking) {
        let Marking { ttl, tos } = marking.without_ecn();
        let tos = tos | self.ecn;
        if self.v6 {
            // RFC 8200 §3: the version, then the class across both bytes, then the flow label.
            self.bytes[14] = 0x60 | (tos >> 4);
            self.bytes[15] = tos << 4;
            self.bytes[21] = ttl.get();
        } else {
            self.bytes[15] = tos;
            self.bytes[22] = ttl.get();
            self.bytes[16..18].fill(0);
            self.bytes[24..26].fill(0);
            self.ip_sum = sum_words(&self.bytes[14..34]);
        }
        self.sized_for = u32::MAX;
    }

    /// Both ends use ECN: data says so with the marking that is set next (RFC 3168 §6.1.2).
    pub(super) fn set_ecn_capable(&mut self, capable: bool) {
        self.ecn = if capable { ECT0 } else { 0 };
    }

    /// Takes the ECN field out of a header that was written: not ECN-capable.
    #[cold]
    fn clear_ecn(&self, out: &mut [u8]) {
        if self.v6 {
            out[15] &= !(3 << 4);
            return;
        }
        let checksum = u16::from_be_bytes([out[24], out[25]]);
        let word = u16::from(out[15] & 3);
        out[15] &= !3;
        // RFC 1624: the sum has so much less in it, so its complement has so much more.
        let sum = fold(u32::from(checksum) + u32::from(word));
        out[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    /// The peer's packets are of this class.
    pub(super) fn expect_tos(&mut self, tos: u8) {
        self.peer_tos = tos;
    }

    /// How far packets go and of what class they are.
    pub(super) fn marking(&self) -> Marking {
        let (tos, ttl) = if self.v6 {
            (self.bytes[14] << 4 | self.bytes[15] >> 4, self.bytes[21])
        } else {
            (self.bytes[15], self.bytes[22])
        };
        let ttl = NonZeroU8::new(ttl).unwrap_or(NonZeroU8::MAX);
        Marking { ttl, tos }.without_ecn()
    }

    /// Fills in the link header.
    pub(super) fn set_link(&mut self, source: [u8; 6], destination: [u8; 6], generation: u32) {
        self.bytes[0..6].copy_from_slice(&destination);
        self.bytes[6..12].copy_from_slice(&source);
        self.neighbor_generation = generation;
        self.linked = true;
    }

    /// Where segments went last, if any went.
    pub(super) fn neighbor(&self) -> Option<[u8; 6]> {
        self.bytes.first_chunk().copied().filter(|mac| *mac != [0; 6])
    }

    /// The link header is to be filled in afresh.
    pub(super) fn forget_link(&mut self) {
        self.linked = false;
    }

    /// Whether the link header is filled in, from the neighbour cache as it is now.
    #[inline]
    pub(super) fn is_linked(&self, generation: u32) -> bool {
        self.linked && self.is_current(generation)
    }

    /// [`HeaderTemplate::is_linked`] where the link header is known to be filled in, as it is for
    /// whatever [`HeaderTemplate::expectation`] was asked.
    #[inline(always)]
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.neighbor_generation == generation
    }

    /// The link header, for another template towards the same peer.
    pub(super) fn link(&self) -> Link {
        Link {
            bytes: self.bytes.first_chunk::<12>().copied().unwrap_or_default(),
            linked: self.linked,
            neighbor_generation: self.neighbor_generation,
        }
    }

    /// Takes the link header of another template towards the same peer.
    pub(super) fn restore_link(&mut self, link: Link) {
        self.bytes[..12].copy_from_slice(&link.bytes);
        self.linked = link.linked;
        self.neighbor_generation = link.neighbor_generation;
    }

    /// Length of the headers, timestamps included.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        u32::from(self.len)
    }

    /// Bytes that options of the template take in each segment.
    pub(super) fn option_len(&self) -> u32 {
        if self.timestamps { 12 } else { 0 }
    }

    /// Whether the segments are IPv6.
    #[inline]
    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    /// Length of the headers up to and without TCP options.
    pub(super) fn fixed_len(&self) -> u32 {
        u32::from(self.len) - self.option_len()
    }

    /// Where TCP's checksum lies.
    #[inline]
    pub(super) fn checksum_place(&self) -> TxChecksum {
        TxChecksum { start: if self.v6 { 54 } else { 34 }, offset: 16 }
    }

    /// Writes the headers with the template's own options to the front of `out`, the checksum
    /// holding the pseudo-header's sum. `fields.behind` counts from the fixed header's end.
    #[inline]
    pub(super) fn emit(&mut self, out: &mut [u8], fields: &Fields) {
        let ok = if self.timestamps && !self.v6 {
            self.emit_fixed::<66, 34>(out, fields, true)
        } else if self.timestamps {
            self.emit_fixed::<86, 54>(out, fields, true)
        } else {
            self.emit_bare(out, fields)
        };
        debug_assert!(ok, "header room is too small");
        if self.ecn != 0 && !fields.capable {
            self.clear_ecn(out);
        }
    }

    /// As [`HeaderTemplate::emit`] on the fast path, which only takes IPv4 with timestamps.
    #[inline(always)]
    pub(super) fn emit_expected(&mut self, out: &mut [u8], fields: &Fields) {
        let ok = self.emit_fixed::<66, 34>(out, fields, true);
        debug_assert!(ok, "header room is too small");
    }

    /// Completes the checksum of headers that [`HeaderTemplate::emit_expected`] has just written
    /// from the same fields, before a payload with this sum. Nothing of them is read again: words
    /// that were written in parts a moment ago are not there yet.
    #[inline(never)]
    pub(super) fn complete_expected(&self, out: &mut [u8], fields: Fields, payload: Sum) {
        const TCP: usize = 34;
        let Some(out) = out.first_chunk_mut::<66>() else { return };
        let b = &self.bytes;
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let offset_and_flags = u32::from_be_bytes([b[TCP + 12], fields.flags, 0, 0]);
        let pseudo = u32::from(u16::from_be_bytes([b[TCP + 16], b[TCP + 17]]));
        let sum = [
            word(TCP),
            fields.seq.get(),
            fields.ack.get(),
            offset_and_flags,
            u32::from(fields.window),
            pseudo,
            u32::from(fields.urgent),
            word(TCP + 20),
            fields.ts_value,
            fields.ts_echo,
            u32::from(payload.partial()),
        ];
        let checksum = !fold_wide(sum.into_iter().map(u64::from).sum());
        out[TCP + 16..TCP + 18].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Writes the headers without any option and with a data offset for `option_len` bytes of
    /// options, which the caller writes behind.
    pub(super) fn emit_with_options(&mut self, out: &mut [u8], fields: &Fields, option_len: u32) {
        let ok = self.emit_bare(out, fields);
        debug_assert!(ok, "header room is too small");
        if self.ecn != 0 && !fields.capable {
            self.clear_ecn(out);
        }
        let offset = if self.v6 { 54 } else { 34 } + 12;
        let words = u8::try_from(5 + option_len / 4).unwrap_or(15).min(15);
        out[offset] = words << 4;
    }

    fn emit_bare(&mut self, out: &mut [u8], fields: &Fields) -> bool {
        if self.v6 {
            self.emit_fixed::<74, 54>(out, fields, false)
        } else {
            self.emit_fixed::<54, 34>(out, fields, false)
        }
    }

    /// `LEN` bytes of headers with TCP at `TCP`.
    #[inline(always)]
    fn emit_fixed<const LEN: usize, const TCP: usize>(
        &mut self,
        out: &mut [u8],
        fields: &Fields,
        timestamps: bool,
    ) -> bool {
        if self.sized_for != fields.behind {
            self.resize(fields.behind);
        }
        let Some(out) = out.first_chunk_mut::<LEN>() else { return false };
        let Some(source) = self.bytes.first_chunk::<LEN>() else { return false };
        *out = *source;
        out[TCP + 4..TCP + 8].copy_from_slice(&fields.seq.get().to_be_bytes());
        out[TCP + 8..TCP + 12].copy_from_slice(&fields.ack.get().to_be_bytes());
        out[TCP + 13] = fields.flags;
        out[TCP + 14..TCP + 16].copy_from_slice(&fields.window.to_be_bytes());
        out[TCP + 18..TCP + 20].copy_from_slice(&fields.urgent.to_be_bytes());
        if timestamps {
            out[TCP + 24..TCP + 28].copy_from_slice(&fields.ts_value.to_be_bytes());
            out[TCP + 28..TCP + 32].copy_from_slice(&fields.ts_echo.to_be_bytes());
        } else {
            out[TCP + 12] = 5 << 4;
        }
        true
    }

    /// Puts lengths, the IPv4 header's checksum and the pseudo-header's sum into the template, for
    /// segments with `behind` bytes behind the fixed TCP header.
    #[inline(never)]
    fn resize(&mut self, behind: u32) {
        self.sized_for = behind;
        let tcp_len = 20 + behind;
        let (length_at, length, tcp) =
            if self.v6 { (18, tcp_len, 54) } else { (16, 20 + tcp_len, 34) };
        let pseudo_sum = fold(self.pseudo_sum + tcp_len);
        self.bytes[length_at..length_at + 2].copy_from_slice(&low16(length).to_be_bytes());
        self.bytes[tcp + 16..tcp + 18].copy_from_slice(&pseudo_sum.to_be_bytes());
        if !self.v6 {
            let checksum = !fold(self.ip_sum + length);
            self.bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

fn to_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn sum_words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum()
}

/// Folds a sum of 16-bit words to 16 bits (RFC 1071).
#[inline]
pub(super) fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    low16((sum & 0xffff) + (sum >> 16))
}

/// The same of a sum of so few 32-bit words that it has 36 bits at most.
#[inline]
fn fold_wide(sum: u64) -> u16 {
    let words = [sum & 0xffff, (sum >> 16) & 0xffff, sum >> 32];
    fold(words.into_iter().map(|word| u32::try_from(word).unwrap_or(0)).sum())
}

#[inline]
fn low16(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}
