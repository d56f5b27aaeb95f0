//! The TCP header and its options (RFC 9293 §3.1): bytes to small values and back.
//!
//! Owns the layout. Never decides which options are sent (that is `tcp::options`), never computes
//! a checksum. Parsing checks every length and cannot panic, whatever the bytes.

use arrayvec::ArrayVec;

use crate::tcp::seq::SeqNum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Most bytes of options.
pub const OPTIONS_LEN_MAX: usize = 40;
/// Place of the checksum in the header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Bytes of the timestamps option in its usual, aligned form: NOP NOP TS.
pub const ALIGNED_TIMESTAMPS_LEN: usize = 12;
/// Most SACK blocks that fit into one header (RFC 2018 §3).
pub const SACK_BLOCKS_MAX: usize = 4;
/// The largest window scale (RFC 7323 §2.3).
pub const WINDOW_SCALE_MAX: u8 = 14;

/// Kinds of options.
pub mod kind {
    /// End of the list.
    pub const END: u8 = 0;
    /// Padding.
    pub const NOP: u8 = 1;
    /// Maximum segment size (RFC 9293 §3.7.1).
    pub const MSS: u8 = 2;
    /// Window scale (RFC 7323 §2).
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted (RFC 2018 §2).
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK (RFC 2018 §3).
    pub const SACK: u8 = 5;
    /// Timestamps (RFC 7323 §3).
    pub const TIMESTAMPS: u8 = 8;
}

/// The first word of NOP NOP TS, in network order.
pub const ALIGNED_TIMESTAMPS_WORD: u32 =
    u32::from_be_bytes([kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No bit.
    pub const NONE: TcpFlags = TcpFlags(0);
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is significant.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// The bits as they lie in the header's 14th byte.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Flags with these bits.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u8) -> TcpFlags {
        TcpFlags(bits)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    #[inline]
    pub const fn intersects(self, other: TcpFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    #[must_use]
    #[inline]
    pub const fn with(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }

    /// The bits that are not in `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 & !other.0)
    }
}

/// Why bytes are not a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TcpHeaderError {
    /// Fewer bytes than the header says, or than the shortest header has.
    #[error("the TCP header is cut short")]
    Truncated,
    /// The data offset is below 5 words.
    #[error("the TCP data offset is below 5")]
    DataOffset,
}

/// The fixed part of a header. The checksum is not in it: who has all bytes checks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first byte, or of SYN.
    pub seq: SeqNum,
    /// Next sequence number that the sender expects, if ACK is set.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Bytes of header and options: a multiple of 4 from 20 to 60.
    pub header_len: u8,
}

impl TcpHeader {
    /// Reads the header at the start of `bytes`, which must hold all of it, options included.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<TcpHeader, TcpHeaderError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(TcpHeaderError::Truncated);
        };
        let header_len = (fixed[12] >> 4) * 4;
        if usize::from(header_len) < HEADER_LEN {
            return Err(TcpHeaderError::DataOffset);
        }
        if usize::from(header_len) > bytes.len() {
            return Err(TcpHeaderError::Truncated);
        }
        Ok(TcpHeader {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            seq: SeqNum::new(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
            ack: SeqNum::new(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            flags: TcpFlags(fixed[13]),
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            urgent: u16::from_be_bytes([fixed[18], fixed[19]]),
            header_len,
        })
    }

    /// Writes the fixed part, with a checksum of zero. The options follow it; `header_len` counts
    /// them already.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        debug_assert!(self.header_len.is_multiple_of(4) && (20..=60).contains(&self.header_len));
        out[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.get().to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.get().to_be_bytes());
        out[12] = self.header_len << 2;
        out[13] = self.flags.0;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].copy_from_slice(&[0, 0]);
        out[18..20].copy_from_slice(&self.urgent.to_be_bytes());
    }

    /// The option bytes of the header that `bytes` begins with; empty if they are not all there.
    #[must_use]
    #[inline]
    pub fn options<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(HEADER_LEN..usize::from(self.header_len)).unwrap_or(&[])
    }
}

/// A range of received bytes, `start` included, `end` not (RFC 2018 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub start: SeqNum,
    /// The sequence number after its last.
    pub end: SeqNum,
}

/// The values of a timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the value it echoes.
    pub echo: u32,
}

/// What a header's options say. Unknown options are skipped; known ones of a wrong length are
/// ignored; a length that leaves the header ends the list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, at most [`WINDOW_SCALE_MAX`].
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks in the order of the option, not checked against any window.
    pub sack: ArrayVec<SackBlock, SACK_BLOCKS_MAX>,
}

impl Options {
    /// Reads an option list.
    #[must_use]
    pub fn parse(list: &[u8]) -> Options {
        let mut options = Options::default();
        let mut rest = list;
        while let [option, tail @ ..] = rest {
            match *option {
                kind::END => break,
                kind::NOP => rest = tail,
                option => {
                    // The length counts kind and length bytes themselves.
                    let Some(&len) = tail.first() else { break };
                    let len = usize::from(len);
                    if len < 2 || len > rest.len() {
                        break;
                    }
                    options.take(option, &rest[2..len]);
                    rest = &rest[len..];
                }
            }
        }
        options
    }

    fn take(&mut self, option: u8, value: &[u8]) {
        match (option, value) {
            (kind::MSS, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            (kind::WINDOW_SCALE, &[shift]) => {
                // RFC 7323 §2.3: a larger shift counts as 14.
                self.window_scale = Some(shift.min(WINDOW_SCALE_MAX));
            }
            (kind::SACK_PERMITTED, []) => self.sack_permitted = true,
            (kind::TIMESTAMPS, value) if value.len() == 8 => {
                self.timestamps = Some(Timestamps { value: word(value, 0), echo: word(value, 4) });
            }
            (kind::SACK, value) if value.len() % 8 == 0 => {
                for block in value.chunks_exact(8) {
                    let block = SackBlock {
                        start: SeqNum::new(word(block, 0)),
                        end: SeqNum::new(word(block, 4)),
                    };
                    if self.sack.try_push(block).is_err() {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
}

/// The timestamps of a header whose options are exactly NOP NOP TS, as nearly every segment of an
/// established connection has them: one comparison of a word.
#[must_use]
#[inline]
pub fn aligned_timestamps(options: &[u8]) -> Option<Timestamps> {
    let options = <&[u8; ALIGNED_TIMESTAMPS_LEN]>::try_from(options).ok()?;
    if word(options, 0) != ALIGNED_TIMESTAMPS_WORD {
        return None;
    }
    Some(Timestamps { value: word(options, 4), echo: word(options, 8) })
}

/// Writes NOP NOP TS.
#[inline]
pub fn emit_aligned_timestamps(out: &mut [u8; ALIGNED_TIMESTAMPS_LEN], timestamps: Timestamps) {
    out[0..4].copy_from_slice(&ALIGNED_TIMESTAMPS_WORD.to_be_bytes());
    out[4..8].copy_from_slice(&timestamps.value.to_be_bytes());
    out[8..12].copy_from_slice(&timestamps.echo.to_be_bytes());
}

/// The word at `at`, or 0 beyond the end: callers have checked the length.
#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
