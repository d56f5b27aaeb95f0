//! What a send queue counts, kept so that a quick frame costs two additions.

/// What a send queue counts.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::nic::rdma::raw) struct SendCounters {
    /// Frames but for quick ones, those among them that were read at once, and quick ones, which
    /// all were.
    pub(super) slow: u64,
    pub(super) slow_inline: u64,
    pub(super) quick: u64,
    pub(in crate::nic::rdma::raw) segmented: u64,
    pub(in crate::nic::rdma::raw) checksummed: u64,
    pub(in crate::nic::rdma::raw) doorbells: u64,
    /// Those among them because a batch outgrew its headers: all others end a turn.
    pub(super) outgrown: u64,
    pub(in crate::nic::rdma::raw) signals: u64,
    pub(in crate::nic::rdma::raw) full: u64,
    pub(in crate::nic::rdma::raw) refused: u64,
    pub(in crate::nic::rdma::raw) link_down: u64,
    /// By how they ended; with those outstanding they are all frames.
    pub(in crate::nic::rdma::raw) completed: u64,
    pub(in crate::nic::rdma::raw) flushed: u64,
    pub(in crate::nic::rdma::raw) failed: u64,
    pub(in crate::nic::rdma::raw) posts_failed: u64,
    /// Apart from the frames: two sums that lie together are added up as a vector, which takes
    /// longer.
    pub(in crate::nic::rdma::raw) bytes: u64,
}

impl SendCounters {
    pub(in crate::nic::rdma::raw) fn frames(&self) -> u64 {
        self.slow + self.quick
    }

    /// Turns with something to post.
    pub(in crate::nic::rdma::raw) fn turns(&self) -> u64 {
        self.doorbells - self.outgrown
    }

    pub(in crate::nic::rdma::raw) fn inline(&self) -> u64 {
        self.slow_inline + self.quick
    }
}
