//! Who gets the 40 bytes of option space: the one place that grants it.
//!
//! Owns the order of precedence and the padding. Never looks at a connection's state: callers say
//! what they want, and get what fits.

use arrayvec::ArrayVec;

use crate::wire::tcp::{
    OPTIONS_LEN_MAX, SACK_BLOCKS_MAX, SackBlock, Timestamps, WINDOW_SCALE_MAX, kind,
};

/// What a segment would like to say. On a SYN the first three may be set, on others they are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WantedOptions<'a> {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, at most 14.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks, the most important first; as many are sent as fit.
    pub sack: &'a [SackBlock],
}

/// Option bytes ready to be copied behind a header: a multiple of 4, at most 40.
pub type OptionBytes = ArrayVec<u8, OPTIONS_LEN_MAX>;

/// Grants option space and writes the options. Precedence: the options of a SYN, timestamps
/// (RFC 7323 §3.2: on every segment once negotiated), then as many SACK blocks as are left room
/// for: 4, or 3 beside timestamps.
#[must_use]
pub fn grant(wanted: &WantedOptions<'_>) -> OptionBytes {
    let mut out = OptionBytes::new();
    if let Some(mss) = wanted.mss {
        let [high, low] = mss.to_be_bytes();
        put(&mut out, &[kind::MSS, 4, high, low]);
    }
    if let Some(shift) = wanted.window_scale {
        put(&mut out, &[kind::NOP, kind::WINDOW_SCALE, 3, shift.min(WINDOW_SCALE_MAX)]);
    }
    // SACK permitted takes the place of the padding before the timestamps where both are sent.
    let pad = if wanted.sack_permitted { [kind::SACK_PERMITTED, 2] } else { [kind::NOP; 2] };
    match wanted.timestamps {
        Some(Timestamps { value, echo }) => {
            put(&mut out, &pad);
            put(&mut out, &[kind::TIMESTAMPS, 10]);
            put(&mut out, &value.to_be_bytes());
            put(&mut out, &echo.to_be_bytes());
        }
        None if wanted.sack_permitted => {
            put(&mut out, &[kind::NOP; 2]);
            put(&mut out, &pad);
        }
        None => {}
    }
    let blocks = sack_blocks_that_fit(out.len()).min(wanted.sack.len());
    if let Some(len) = (blocks > 0).then(|| u8::try_from(2 + 8 * blocks).unwrap_or(0)) {
        put(&mut out, &[kind::NOP, kind::NOP, kind::SACK, len]);
        for block in &wanted.sack[..blocks] {
            put(&mut out, &block.start.get().to_be_bytes());
            put(&mut out, &block.end.get().to_be_bytes());
        }
    }
    debug_assert!(out.len().is_multiple_of(4));
    out
}

/// SACK blocks that fit behind `used` bytes of other options.
#[must_use]
#[inline]
pub const fn sack_blocks_that_fit(used: usize) -> usize {
    let room = OPTIONS_LEN_MAX.saturating_sub(used + 4) / 8;
    if room < SACK_BLOCKS_MAX { room } else { SACK_BLOCKS_MAX }
}

/// Appends bytes that are known to fit: the SYN's options and timestamps need 24, and the SACK
/// blocks are counted before.
fn put(out: &mut OptionBytes, bytes: &[u8]) {
    debug_assert!(bytes.len() <= out.remaining_capacity());
    out.extend(bytes.iter().copied().take(out.remaining_capacity()));
}
