//! Counters of RDMA ports that move: two samples and their difference.
//!
//! Reads `hw_counters` of each port and device, and nothing else; resets none.

use super::super::facts::{Moved, Rdma};
use super::super::sysfs::Sysfs;
use super::rdma::CLASS;

/// Most counters of a port.
const COUNTERS_MAX: usize = 512;

/// One port's counters: device, port, and names with values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    device: String,
    port: u32,
    values: Vec<(String, u64)>,
}

/// The counters of every port that has some.
pub(super) fn sample(sysfs: &Sysfs, rdma: &Rdma) -> Vec<Sample> {
    let mut samples = Vec::new();
    for device in &rdma.devices {
        for port in &device.ports {
            let folder = format!("{CLASS}/{}/ports/{}/hw_counters", device.name, port.number);
            let names = sysfs.names(&folder).into_iter().take(COUNTERS_MAX);
            // How old the values may be is no counter.
            let names = names.filter(|name| name != "lifespan");
            let value = |name: String| Some((sysfs.number(&format!("{folder}/{name}"))?, name));
            let values: Vec<_> = names.filter_map(value).map(|(n, name)| (name, n)).collect();
            if !values.is_empty() {
                samples.push(Sample { device: device.name.clone(), port: port.number, values });
            }
        }
    }
    samples
}

/// Writes into the ports what moved between two samples. A counter that went back was reset, and
/// one that went away is left out.
pub(super) fn compare(first: &[Sample], second: &[Sample], rdma: &mut Rdma) {
    for before in first {
        let same = |after: &&Sample| (&after.device, after.port) == (&before.device, before.port);
        let after = second.iter().find(same);
        let device = rdma.devices.iter_mut().find(|device| device.name == before.device);
        let port = device.and_then(|d| d.ports.iter_mut().find(|port| port.number == before.port));
        let Some(port) = port else { continue };
        port.counters = before.values.len();
        let values = after.map_or(&[][..], |after| after.values.as_slice());
        port.moved = before.values.iter().filter_map(|value| moved(value, values)).collect();
    }
}

fn moved(before: &(String, u64), after: &[(String, u64)]) -> Option<Moved> {
    let (name, value) = before;
    let (_, now) = after.iter().find(|(other, _)| other == name)?;
    let by = now.checked_sub(*value).filter(|by| *by > 0)?;
    Some(Moved { name: name.clone(), by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::collect::rdma;
    use crate::doctor::tree::Tree;

    #[test]
    fn only_what_moved_forward_is_told() {
        let tree = Tree::of(include_str!("../../../tests/doctor/rxe.tree"));
        let sysfs = Sysfs::below(tree.root());
        let folder = "sys/devices/virtual/infiniband/rxe0/ports/1/hw_counters";
        let mut rdma = rdma::read(&sysfs);
        tree.bytes(&format!("{folder}/duplicate_request"), b"9\n");
        tree.bytes(&format!("{folder}/garbage"), b"-\n");
        let first = sample(&sysfs, &rdma);
        for (name, value) in [("rcvd_pkts", "7"), ("duplicate_request", "2"), ("lifespan", "99")] {
            tree.bytes(&format!("{folder}/{name}"), value.as_bytes());
        }
        tree.remove(&format!("{folder}/sent_pkts"));
        let second = sample(&sysfs, &rdma);
        compare(&first, &second, &mut rdma);
        let port = &rdma.devices[0].ports[0];
        assert_eq!(port.moved, [Moved { name: "rcvd_pkts".into(), by: 7 }]);
        assert_eq!((port.counters, port.counter_lifespan_ms), (3, Some(10)));
        compare(&first, &[], &mut rdma);
        assert_eq!(rdma.devices[0].ports[0].moved, []);
    }
}
