//! Why a worker cannot start.

use roceway_busypoll::pin::PinError;
use roceway_rdma_virtio::nic::DeviceError;
use roceway_rdma_virtio::virtio::interface::InterfaceError;
use roceway_stack::ip::IpConfigError;

/// Why there is no worker. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device specification, or the device itself.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Memory, features or queues.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Addresses and routes.
    #[error("{0}")]
    Address(#[from] IpConfigError),
    /// The offloads that are wanted make no legal set.
    #[error("offload: {0}")]
    Offloads(String),
    /// No address at all.
    #[error("no address: say which one this end has, with its prefix, such as 10.0.0.1/24")]
    NoAddress,
    /// The core cannot be pinned to.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The file of a capture cannot be made.
    #[error("capture to {path}: {source}; choose a file that can be written")]
    Capture {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no random numbers, event descriptor or the like.
    #[error("{call}: {source}")]
    System {
        /// What was asked for.
        call: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}
