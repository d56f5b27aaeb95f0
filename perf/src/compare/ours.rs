//! Roceway among the contenders: over the soft link with its variants, and over a veth pair.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roceway_runtime::local::Worker;
use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::rdma_virtio::nic::spec;
use roceway_runtime::{Prefix, WorkerConfig};

use super::rivals::{Contender, TESTS, measured, workload};
use super::{Measured, Plan};
use crate::catalogue::{Test, find};
use crate::client;
use crate::local::{pin, with_server};
use crate::report::Place;
use crate::roceway::Roceway;

/// Addresses of client and server.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];

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
}

impl Variant {
    fn place(self) -> Place {
        let (device, mode) = match self {
            Self::Soft => ("soft", "copy"),
            Self::SoftChecksums => ("soft", "copy, checksums"),
            Self::SoftFrames => ("soft", "copy, 1500 B"),
            Self::SoftFramesChecksums => ("soft", "copy, 1500 B, checksums"),
            Self::Veth => ("veth", "copy"),
        };
        Place { stack: "roceway".into(), device: device.into(), mode: Some(mode.into()) }
    }

    fn nics(self) -> Result<(AnyNic, AnyNic), String> {
        let (large, csum) = match self {
            Self::Soft => (true, true),
            Self::SoftFrames => (false, true),
            Self::SoftChecksums | Self::SoftFramesChecksums => (false, false),
            Self::Veth => {
                let [here, there] = PAIR.map(|name| spec::open(&format!("packet:{name}")));
                return Ok((here.map_err(text)?, there.map_err(text)?));
            }
        };
        let options = SoftOptions { large, csum, ..SoftOptions::default() };
        let (left, right) = SoftNic::pair(&options).map_err(text)?;
        Ok((left.into(), right.into()))
    }
}

/// Names of the veth pair under Roceway.
pub(super) const PAIR: [&str; 2] = ["rclient", "rserver"];

/// How long the link may take to come up.
const LINK_NS_MAX: u64 = 2_000_000_000;

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

fn worker(nic: AnyNic, address: Ipv4Addr) -> io::Result<Roceway> {
    let prefix = Prefix { address: IpAddr::V4(address), length: 24 };
    let config = WorkerConfig::new(prefix).spinning();
    let worker = Worker::with_nic(nic, &config).map_err(io::Error::other)?;
    Ok(Roceway::new(worker, crate::kernel::SocketOptions::default()))
}

impl Contender for RocewayRival {
    fn name(&self) -> String {
        let Place { stack, device, mode } = self.variant.place();
        format!("{stack} {}, {device}, {}", mode.unwrap_or_default(), self.test.name)
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let workload = workload(self.test, plan);
        let (here, there) = self.variant.nics()?;
        let outcome = with_server(
            plan.cores.server,
            SocketAddr::new(ADDRESSES[1].into(), 0),
            move || worker(there, ADDRESSES[1]),
            |transport, server, stop| server.serve(transport, stop),
            |server| {
                let failed =
                    |source: io::Error| client::TestError::Io { what: "this end".into(), source };
                pin(plan.cores.client).map_err(failed)?;
                let mut transport = worker(here, ADDRESSES[0]).map_err(failed)?;
                // A veth pair is up before its NICs are opened.
                if self.variant != Variant::Veth {
                    transport.wait_for_link(LINK_NS_MAX).map_err(failed)?;
                }
                client::test(&mut transport, &workload, server, &mut |_| ())
            },
        )
        .map_err(text)?;
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

/// Roceway's rows over the veth pair [`PAIR`] of the calling thread's namespace.
pub(super) fn over_veth() -> Vec<Box<dyn Contender>> {
    rivals(&TESTS.map(|name| (name, Variant::Veth)))
}
