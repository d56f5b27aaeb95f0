//! Roceway among the contenders: over the soft link with its variants, and over a veth pair.

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::SoftOptions;
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::{Prefix, WorkerConfig};

use super::rivals::{Contender, TESTS, measured, workload};
use super::{Measured, Plan};
use crate::catalogue::{Test, find};
use crate::ends::{self, ADDRESSES, Opening};
use crate::report::Place;

/// How Roceway runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    /// Over the soft link: large segments whole, checksums left to it.
    Soft,
    /// The same, and every checksum computed at both ends.
    SoftChecksums,
    /// Every frame has at most 1500 bytes; checksums left to the link.
    SoftFrames,
    /// The same, and every checksum computed at both ends.
    SoftFramesChecksums,
    /// Over the two ends of a veth pair.
    Veth,
    /// As `Soft`, with [`IDLE_CONNECTIONS`] open besides.
    Idle,
    /// As `Soft`, with [`ACTIVE_CONNECTIONS`], all active.
    Active,
}

/// Idle connections of the row that has some.
pub(super) const IDLE_CONNECTIONS: usize = 10_000;
/// Active connections of the rows that have many.
pub(super) const ACTIVE_CONNECTIONS: usize = 1000;

impl Variant {
    fn place(self) -> Place {
        let (device, mode) = match self {
            Self::Soft => ("soft", "copy"),
            Self::SoftChecksums => ("soft", "copy+csum"),
            Self::SoftFrames => ("soft", "copy/1500"),
            Self::SoftFramesChecksums => ("soft", "copy/1500+csum"),
            Self::Veth => ("veth", "copy"),
            Self::Idle => ("soft", "copy, 10k idle"),
            Self::Active => ("soft", "copy, 1000"),
        };
        Place { stack: "roceway".into(), device: device.into(), mode: Some(mode.into()) }
    }

    fn nics(self) -> Result<(AnyNic, AnyNic), String> {
        let (large, csum) = match self {
            Self::Soft | Self::Idle | Self::Active => (true, true),
            Self::SoftFrames => (false, true),
            Self::SoftChecksums | Self::SoftFramesChecksums => (false, false),
            Self::Veth => {
                let [here, there] = PAIR.map(|name| spec::open(&format!("packet:{name}")));
                return Ok((here.map_err(text)?, there.map_err(text)?));
            }
        };
        let options = SoftOptions { large, csum, ..SoftOptions::default() };
        ends::soft_pair(&options).map_err(text)
    }
}

/// Names of the veth pair under Roceway.
pub(super) const PAIR: [&str; 2] = ["rclient", "rserver"];

/// An error in words; by value, for `map_err`.
fn text<E: Into<Box<dyn std::error::Error>>>(error: E) -> String {
    error.into().to_string()
}

/// Roceway at both ends, each worker on its core, spinning.
#[derive(Debug)]
struct RocewayRival {
    test: &'static Test,
    variant: Variant,
}

impl Contender for RocewayRival {
    fn name(&self) -> String {
        let Place { stack, device, mode } = self.variant.place();
        format!("{stack} {}, {device}, {}", mode.unwrap_or_default(), self.test.name)
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let mut workload = workload(self.test, plan);
        if self.variant == Variant::Active {
            workload.connections = ACTIVE_CONNECTIONS;
        }
        let config = WorkerConfig::new(Prefix { address: ADDRESSES[0].into(), length: 24 });
        let opening = Opening::new(config.spinning(), workload.buffers);
        let idle_connections = if self.variant == Variant::Idle { IDLE_CONNECTIONS } else { 0 };
        let ends = [
            Opening { idle_connections, ..opening.clone() }.at(ADDRESSES[0], plan.cores.client),
            opening.at(ADDRESSES[1], plan.cores.server),
        ];
        let (outcome, _) =
            ends::pair(self.variant.nics()?, &ends, &workload, &mut |_| ()).map_err(text)?;
        Ok(measured(&workload, &self.variant.place(), outcome))
    }
}

fn rivals(rows: &[(&str, Variant)]) -> Vec<Box<dyn Contender>> {
    let known = rows.iter().filter_map(|(name, variant)| Some((find(name).ok()?, *variant)));
    known
        .map(|(test, variant)| Box::new(RocewayRival { test, variant }) as Box<dyn Contender>)
        .collect()
}

/// Roceway's rows over the soft link.
#[must_use]
pub fn over_soft() -> Vec<Box<dyn Contender>> {
    rivals(&[
        ("TCP_RR", Variant::Soft),
        ("TCP_STREAM", Variant::Soft),
        ("UDP_RR", Variant::Soft),
        ("TCP_RR", Variant::SoftChecksums),
        ("TCP_STREAM", Variant::SoftFrames),
        ("TCP_STREAM", Variant::SoftFramesChecksums),
    ])
}

/// Roceway's rows with many connections.
pub(super) fn with_many() -> Vec<Box<dyn Contender>> {
    rivals(&[("TCP_RR", Variant::Idle), ("TCP_RR", Variant::Active)])
}

/// Roceway's rows over the veth pair [`PAIR`] of the calling thread's namespace.
pub(super) fn over_veth() -> Vec<Box<dyn Contender>> {
    rivals(&TESTS.map(|name| (name, Variant::Veth)))
}
