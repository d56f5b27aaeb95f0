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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::seq::SeqNum;
    use crate::wire::tcp::{Options, aligned_timestamps};

    const TIMESTAMPS: Timestamps = Timestamps { value: 1, echo: 2 };

    fn blocks(n: u32) -> ArrayVec<SackBlock, 8> {
        (0..n)
            .map(|it| SackBlock { start: SeqNum::new(it * 10), end: SeqNum::new(it * 10 + 5) })
            .collect()
    }

    #[test]
    fn what_is_granted_is_what_the_peer_reads() {
        for bits in 0..16_u8 {
            for sack in 0..=6 {
                let sack = blocks(sack);
                let wanted = WantedOptions {
                    mss: (bits & 1 != 0).then_some(1460),
                    window_scale: (bits & 2 != 0).then_some(7),
                    sack_permitted: bits & 4 != 0,
                    timestamps: (bits & 8 != 0).then_some(TIMESTAMPS),
                    sack: &sack,
                };
                let granted = grant(&wanted);
                assert!(granted.len() <= OPTIONS_LEN_MAX && granted.len().is_multiple_of(4));
                let read = Options::parse(&granted);
                assert_eq!(read.mss, wanted.mss);
                assert_eq!(read.window_scale, wanted.window_scale);
                assert_eq!(read.sack_permitted, wanted.sack_permitted);
                assert_eq!(read.timestamps, wanted.timestamps);
                assert_eq!(read.sack[..], sack[..read.sack.len()]);
            }
        }
    }

    #[test]
    fn rfc2018_3_four_blocks_fit_or_three_beside_timestamps() {
        for (timestamps, count, len) in [(None, 4, 36), (Some(TIMESTAMPS), 3, 40)] {
            let sack = blocks(5);
            let granted = grant(&WantedOptions { timestamps, sack: &sack, ..Default::default() });
            assert_eq!((Options::parse(&granted).sack.len(), granted.len()), (count, len));
        }
    }

    #[test]
    fn a_syn_takes_twenty_bytes() {
        let granted = grant(&WantedOptions {
            mss: Some(1460),
            window_scale: Some(9),
            sack_permitted: true,
            timestamps: Some(TIMESTAMPS),
            sack: &[],
        });
        assert_eq!(granted.len(), 20);
    }

    #[test]
    fn timestamps_alone_have_the_form_that_is_recognised_fast() {
        let granted =
            grant(&WantedOptions { timestamps: Some(TIMESTAMPS), ..WantedOptions::default() });
        assert_eq!(aligned_timestamps(&granted), Some(TIMESTAMPS));
    }

    #[test]
    fn a_scale_above_14_is_not_sent() {
        let granted = grant(&WantedOptions { window_scale: Some(20), ..WantedOptions::default() });
        assert_eq!(granted[..], [1, 3, 3, 14]);
    }
}
