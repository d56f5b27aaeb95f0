//! What the programs of this crate share: how two ends find each other, memory, figures, and a
//! queue pair of Roceway's with all that it needs.
//!
//! Owns nothing of Roceway's data path: these are the bare verbs that it is compared with.

#[cfg(feature = "rdma-sys")]
pub mod compare;
pub mod completions;
pub mod connect;
pub mod exchange;
pub mod figures;
pub mod load;
pub mod memory;
pub mod options;
pub mod rounds;
pub mod setup;
pub mod shape;
pub mod stream;

/// Why a program of this crate failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A verb or the connection manager.
    #[error(transparent)]
    Device(#[from] roceway_rdma_virtio::nic::DeviceError),
    /// Work requests were not posted.
    #[error("post: {0}")]
    Post(#[from] roceway_rdma_virtio::verbs::work_list::PostFailure),
    /// A work request does not fit into its list.
    #[error("push: {0}")]
    Push(#[from] roceway_rdma_virtio::verbs::work_list::PushError),
    /// Completions could not be polled.
    #[error(transparent)]
    Poll(#[from] roceway_rdma_virtio::verbs::completion::PollFailure),
    /// The TCP connection over which both ends find each other.
    #[error("exchange: {0}")]
    Exchange(#[from] std::io::Error),
    /// What is said in words.
    #[error("{0}")]
    Said(String),
}

/// A failure in words.
#[must_use]
pub fn said(what: impl Into<String>) -> Failure {
    Failure::Said(what.into())
}
