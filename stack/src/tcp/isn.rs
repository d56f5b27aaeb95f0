//! Initial sequence numbers (RFC 6528), timestamp offsets (RFC 7323 §5.4) and ephemeral ports
//! (RFC 6056), all from keyed hashes of the connection's ends.

use super::demux::hash_tuple;
use super::seq::SeqNum;
use super::tuple::FourTuple;
use crate::time::Instant;

/// The secrets, one for each use.
#[derive(Clone, Copy)]
pub(super) struct Secrets {
    /// Of the demultiplexing table.
    pub(super) demux: [u8; 16],
    isn: [u8; 16],
    timestamp: [u8; 16],
    port: [u8; 16],
}

impl Secrets {
    /// Derives one key for each use from a 128-bit key.
    pub(super) fn derive(key: [u8; 16]) -> Secrets {
        let sub = |label: u8| {
            let mut out = [0; 16];
            for (half, chunk) in out.chunks_exact_mut(8).enumerate() {
                use core::hash::Hasher;
                let mut hasher = siphasher::sip::SipHasher24::new_with_key(&key);
                hasher.write(&[label, u8::from(half == 1)]);
                chunk.copy_from_slice(&hasher.finish().to_le_bytes());
            }
            out
        };
        Secrets { demux: sub(0), isn: sub(1), timestamp: sub(2), port: sub(3) }
    }

    /// RFC 6528 §3: a 4-microsecond clock plus a keyed hash of the ends.
    pub(super) fn initial_sequence(&self, tuple: &FourTuple, now: Instant) -> SeqNum {
        let clock = low32(now.as_nanos() >> 12);
        SeqNum::new(low32(hash_tuple(&self.isn, tuple)).wrapping_add(clock))
    }

    /// RFC 7323 §5.4: a random offset of the timestamp clock, the same for one pair of ends.
    pub(super) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        low32(hash_tuple(&self.timestamp, &FourTuple { local_port: 0, ..*tuple }))
    }

    /// RFC 6056 §3.3.3: where the search for a port towards this destination begins.
    pub(super) fn port_offset(&self, tuple: &FourTuple) -> u32 {
        low32(hash_tuple(&self.port, &FourTuple { local_port: 0, ..*tuple }))
    }
}

fn low32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
