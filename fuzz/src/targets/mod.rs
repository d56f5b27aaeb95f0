//! The targets, by what they read.

mod conversation;
mod frames;
mod host;
mod link;
mod netperf;
mod nic;
mod rdma_wire;
mod recorded;
mod ring_device;
mod ring_driver;
mod soft;
mod texts;
mod wire;

use crate::Target;

/// All of them.
pub(crate) const ALL: &[Target] = &[
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "conversation4", run: conversation::run_v4, seeds: conversation::seeds },
    Target { name: "conversation6", run: conversation::run_v6, seeds: conversation::seeds },
    Target { name: "wire", run: wire::run, seeds: wire::seeds },
    Target { name: "ring_device", run: ring_device::run, seeds: ring_device::seeds },
    Target { name: "ring_driver", run: ring_driver::run, seeds: ring_driver::seeds },
    Target { name: "segmentation", run: link::run, seeds: link::seeds },
    Target { name: "soft_ring", run: soft::run_ring, seeds: soft::seeds },
    Target { name: "soft_words", run: soft::run_words, seeds: soft::seeds },
    Target { name: "rdma_headers", run: rdma_wire::run_headers, seeds: rdma_wire::seeds },
    Target { name: "rdma_words", run: rdma_wire::run_words, seeds: rdma_wire::seeds },
    Target { name: "netperf", run: netperf::run, seeds: netperf::seeds },
    Target { name: "texts", run: texts::run, seeds: texts::seeds },
];
