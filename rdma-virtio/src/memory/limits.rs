//! The sizes of an arena: what may be asked for, and the arithmetic of the default.
//!
//! Owns the limits and their refusal; allocates nothing.

use super::mapping::{HUGE_PAGE_LEN, MappingError, PageWish};
use super::slot::{CHUNK_LEN, SMALL_LEN};

/// Longest arena: 16 GiB.
pub const ARENA_LEN_MAX: u64 = 16 << 30;
/// What the default arena stays below, with everything in it: the usual limit of locked memory.
pub const ARENA_LEN_DEFAULT_MAX: u64 = 8 << 20;

/// How many slots of which size. The default: 1 MiB of small slots, 1.5 MiB of chunks, 0.5 MiB of
/// blocks and 4 MiB of receive slots, 7 MiB in all; scratch and queues of 256 entries add 0.2 MiB,
/// and the last 0.8 MiB stay for the NIC's own rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaConfig {
    /// Small slots; at least 64.
    pub small: u32,
    /// Chunks; at least 32, which is one segment of 64 KiB in flight and one being made. Each holds
    /// 4096 bytes that wait to be sent or acknowledged, or two segments of 1448 bytes where no
    /// device cuts large frames.
    pub chunks: u32,
    /// Blocks: what an application fills itself and sends without a copy. May be 0.
    pub blocks: u32,
    /// Bytes in a block; a power of two from 4096 to 1 MiB.
    pub block_len: u32,
    /// Receive slots; at least 32.
    pub receive: u32,
    /// Bytes in a receive slot; a power of two from 2048 to 65536.
    pub receive_len: u32,
    /// Which pages are wanted.
    pub pages: PageWish,
}

impl Default for ArenaConfig {
    fn default() -> ArenaConfig {
        ArenaConfig {
            small: 4096,
            chunks: 384,
            blocks: 8,
            block_len: 65_536,
            receive: 1024,
            receive_len: 4096,
            pages: PageWish::Ordinary,
        }
    }
}

/// What the assembled interface needs in the arena besides slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArenaExtra {
    /// Bytes of scratch in the transmit memfd.
    pub scratch_len: u32,
    /// Bytes for virtqueues in the receive memfd.
    pub private_len: u32,
}

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// A number is out of its range.
    #[error("{field} is {value}, but must be {allowed}")]
    Config {
        /// The field of [`ArenaConfig`].
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The kernel refused.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

/// Bytes that an arena of this configuration maps, if ordinary pages are used.
pub(super) fn length_of(config: &ArenaConfig, extra: ArenaExtra) -> u64 {
    u64::from(config.small) * u64::from(SMALL_LEN)
        + u64::from(config.chunks) * u64::from(CHUNK_LEN)
        + u64::from(config.blocks) * u64::from(config.block_len)
        + u64::from(config.receive) * u64::from(config.receive_len)
        + u64::from(extra.scratch_len)
        + u64::from(extra.private_len)
        + 2 * u64::from(config.receive_len.max(CHUNK_LEN))
}

/// Whether the numbers make sense.
pub(super) fn check(config: &ArenaConfig, extra: ArenaExtra) -> Result<(), ArenaError> {
    let error =
        |field, value: u64, allowed| Err::<(), _>(ArenaError::Config { field, value, allowed });
    if config.small < 64 {
        return error("memory.small", config.small.into(), "at least 64");
    }
    if config.chunks < 32 {
        return error("memory.chunks", config.chunks.into(), "at least 32");
    }
    if config.receive < 32 {
        return error("memory.receive", config.receive.into(), "at least 32");
    }
    let len = config.block_len;
    if !len.is_power_of_two() || !(CHUNK_LEN..=1 << 20).contains(&len) {
        let allowed = "a power of two from 4096 to 1048576";
        return error("memory.block_len", len.into(), allowed);
    }
    let len = config.receive_len;
    if !len.is_power_of_two() || !(2048..=65536).contains(&len) {
        let allowed = "a power of two from 2048 to 65536";
        return error("memory.receive_len", len.into(), allowed);
    }
    let total = length_of(config, extra) + 2 * HUGE_PAGE_LEN as u64;
    if total > ARENA_LEN_MAX {
        return error("memory in all", total, "at most 16 GiB");
    }
    Ok(())
}
