//! Two workers on one soft link, in either manner.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod local;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roceway_runtime::rdma_virtio::nic::any::AnyNic;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::shared::{Manner, Worker};
use roceway_runtime::{Prefix, WorkerConfig};

/// Both manners.
pub(crate) const MANNERS: [Manner; 2] = [Manner::Owned, Manner::CallerDriven];

/// Address of an end.
pub(crate) fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

/// Configuration of an end.
pub(crate) fn config(host: u8) -> WorkerConfig {
    WorkerConfig::new(Prefix { address: address(host, 0).ip(), length: 24 })
}

/// Two NICs on one link.
pub(crate) fn nics() -> (AnyNic, AnyNic) {
    let (a, b) = SoftNic::pair(&SoftOptions::default()).expect("a soft link");
    (AnyNic::from(a), AnyNic::from(b))
}

/// Hosts 1 and 2.
pub(crate) fn pair(manners: [Manner; 2]) -> (Worker, Worker) {
    let (a, b) = nics();
    let one = Worker::with_nic(a, &config(1), manners[0]).expect("a worker");
    let two = Worker::with_nic(b, &config(2), manners[1]).expect("a worker");
    (one, two)
}

/// Runs a test in every combination of manners.
pub(crate) fn each_manner(test: impl Fn(Worker, Worker)) {
    for one in MANNERS {
        for two in MANNERS {
            println!("{one:?} with {two:?}");
            let (one, two) = pair([one, two]);
            test(one, two);
        }
    }
}
