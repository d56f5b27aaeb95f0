//! What is not as it should be with RDMA devices that may work all the same.

use roceway_runtime::rdma_virtio::nic::rdma::options::AROUND_PACKET;

use super::super::facts::{Device, Facts, Function, Interface, MemoryLock, Moved, Port, WorkerCpu};
use super::modes::{MEMLOCK_MIN, port_name};
use super::remedy;
use super::{Problem, Severity};

/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5).
const IPV6_MTU_MIN: u32 = 1280;
/// MTU of an interface that gives a path MTU of 4096.
const INTERFACE_MTU: u32 = 4200;

/// Counters that say that something is wrong when they move, and what (the names are mlx5's and
/// rxe's, as rdma-core's `rdma statistic` shows them).
const BAD: [(&str, &str); 14] = [
    ("out_of_sequence", "packets are lost or overtake each other on the way here"),
    ("packet_seq_err", "packets are lost on the way to the peer"),
    ("implied_nak_seq_err", "packets are lost on the way to the peer"),
    ("local_ack_timeout_err", "acknowledgements do not come in time"),
    ("rnr_nak_retry_err", "a peer posts too few receives"),
    ("out_of_buffer", "too few receives are posted here"),
    ("rx_icrc_encapsulated", "packets arrive damaged"),
    ("duplicate_request", "a peer repeats what came already"),
    ("np_ecn_marked_roce_packets", "the network marks congestion"),
    ("rp_cnp_handled", "the network slows us down"),
    ("out_of_seq_request", "packets are lost or overtake each other on the way here"),
    ("rcvd_seq_err", "packets are lost on the way to the peer"),
    ("retry_exceeded_err", "a peer did not answer at all"),
    ("send_err", "packets could not be sent"),
];

/// The problems of every RDMA device.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for device in &facts.rdma.devices {
        problems.extend(numa(facts, device));
        problems.extend(link(device));
        problems.extend(spoof_check(device));
        for port in &device.ports {
            let name = port_name(device, port);
            problems.extend(moved(&name, port));
            problems.extend(datagram_mtu(&name, port));
            problems.extend(bond(facts, &name, port));
            problems.extend(quality(facts, &name, port));
            problems.extend(lifespan(&name, port));
        }
    }
    if !facts.rdma.devices.is_empty() {
        problems.extend(connection_manager(facts));
        problems.extend(memlock(facts));
        problems.extend(exclusive(facts));
    }
    problems
}

fn interface<'a>(facts: &'a Facts, name: &str) -> Option<&'a Interface> {
    facts.interfaces.iter().find(|interface| interface.name == name)
}

fn numa(facts: &Facts, device: &Device) -> Option<Problem> {
    let (node, worker) = (device.node?, facts.host.worker.as_ref()?);
    let WorkerCpu { cpu, node: own, .. } = worker;
    if node == *own {
        return None;
    }
    let what = format!("it is on NUMA node {node}; a worker would take cpu {cpu} of node {own}");
    let problem = Problem::new(Severity::Warning, &device.name, what);
    let near = facts.host.nodes.iter().find(|place| place.node == node);
    Some(match near.and_then(|near| near.cpus.last()) {
        Some(near) => problem.with(format!("roceway ... --set cpu={near}")),
        None => problem.with(format!("let this process use cpus of node {node}")),
    })
}

fn link(device: &Device) -> Option<Problem> {
    let link = device.link.as_ref()?;
    if link.width >= link.width_max && link.speed == link.speed_max {
        return None;
    }
    let what = format!(
        "its PCI Express link runs at {} x{} of {} x{}: move the card to a wider or faster slot",
        link.speed, link.width, link.speed_max, link.width_max
    );
    Some(Problem::new(Severity::Warning, &device.name, what))
}

fn spoof_check(device: &Device) -> Option<Problem> {
    let Function::Virtual { parent_interface, index, .. } = &device.function else { return None };
    let what = "a virtual function: with mode=raw the physical function must let it send from an \
                address of its own";
    let problem = Problem::new(Severity::Warning, &device.name, what);
    Some(match (parent_interface, index) {
        (Some(parent), Some(index)) => {
            problem.with(format!("sudo ip link set dev {parent} vf {index} spoofchk off trust on"))
        }
        _ => problem.with("on its host: sudo ip link set dev PF vf N spoofchk off trust on"),
    })
}

fn moved(name: &str, port: &Port) -> Vec<Problem> {
    let meaning = |moved: &Moved| {
        let (_, meaning) = BAD.iter().find(|(bad, _)| *bad == moved.name)?;
        let what = format!("{} rose by {} in a second: {meaning}", moved.name, moved.by);
        Some(Problem::new(Severity::Warning, name, what))
    };
    port.moved.iter().filter_map(meaning).collect()
}

fn datagram_mtu(name: &str, port: &Port) -> Option<Problem> {
    let path = port.active_mtu?;
    let mtu = path.saturating_sub(AROUND_PACKET);
    if mtu >= IPV6_MTU_MIN {
        return None;
    }
    let what = format!("its path MTU is {path}: mode=ud carries IPv4 of {mtu} bytes, and no IPv6");
    let problem = Problem::new(Severity::Warning, name, what);
    let interface = port.interface.as_deref().unwrap_or("INTERFACE");
    Some(problem.with(format!("sudo ip link set dev {interface} mtu {INTERFACE_MTU}")))
}

/// A bond under which the NIC cannot be one device.
fn bond(facts: &Facts, name: &str, port: &Port) -> Option<Problem> {
    // What the kernel's mlx5 driver and its documentation of RoCE LAG accept.
    const MODES: [&str; 3] = ["active-backup", "balance-xor", "802.3ad"];
    let own = interface(facts, port.interface.as_deref()?)?;
    let above = own.uppers.iter().filter_map(|upper| interface(facts, upper));
    let bond = std::iter::once(own).chain(above).find(|one| one.bond_mode.is_some())?;
    let mode = bond.bond_mode.as_deref().filter(|mode| !MODES.contains(mode))?;
    let what =
        format!("{} is a bond of the mode {mode}, under which RoCE does not work", bond.name);
    let remedy = format!("sudo ip link set dev {} type bond mode 802.3ad", bond.name);
    Some(Problem::new(Severity::Warning, name, what).with(remedy))
}

/// Where the driver tells: a port that sorts by VLAN priority and pauses nothing loses packets
/// under congestion. RoCE v2 and TCP bear that; it costs time.
fn quality(facts: &Facts, name: &str, port: &Port) -> Option<Problem> {
    let own = interface(facts, port.interface.as_deref()?)?;
    let quality = own.quality.as_ref()?;
    if quality.trusts_dscp != Some(false) {
        return None;
    }
    let pauses = quality.flow_control.as_ref().is_some_and(|list| !list.is_empty());
    let what = match pauses {
        true => "DSCP is not trusted: untagged packets miss the priority with flow control",
        false => "DSCP is not trusted and no priority has flow control",
    };
    let mut problem = Problem::new(Severity::Note, name, what)
        .with(format!("sudo dcb app add dev {} dscp-prio 26:3", own.name));
    if !pauses {
        problem = problem.with(format!("sudo dcb pfc set dev {} prio-pfc 3:on", own.name));
    }
    Some(problem)
}

fn lifespan(name: &str, port: &Port) -> Option<Problem> {
    let lifespan = port.counter_lifespan_ms.filter(|ms| *ms >= 1000)?;
    let what = format!("its counters are up to {lifespan} ms old: a second shows nothing");
    let (device, number) = (name.split(':').next().unwrap_or(name), port.number);
    let remedy = format!(
        "echo 10 | sudo tee /sys/class/infiniband/{device}/ports/{number}/hw_counters/lifespan"
    );
    Some(Problem::new(Severity::Note, name, what).with(remedy))
}

fn connection_manager(facts: &Facts) -> Option<Problem> {
    const PATH: &str = "/dev/infiniband/rdma_cm";
    const INSTEAD: &str = "peers are met over the host's TCP instead";
    if let super::super::facts::Library::Missing(error) = &facts.rdma.connection_manager {
        let what = format!("{error}: {INSTEAD}");
        let problem = Problem::new(Severity::Note, "rdma_cm", what);
        return Some(problem.with(remedy::install_rdma_core(facts)));
    }
    let node = facts.access.infiniband.iter().find(|node| node.path == PATH);
    let (what, remedy) = match node {
        None => (format!("there is no {PATH}: {INSTEAD}"), remedy::load(facts, "rdma_ucm")),
        Some(node) => (
            format!("{PATH}: {}: {INSTEAD}", node.error.as_ref()?),
            format!("sudo chmod 666 {PATH}"),
        ),
    };
    Some(Problem::new(Severity::Note, "rdma_cm", what).with(remedy))
}

/// A limit that the default fits into, and little more.
fn memlock(facts: &Facts) -> Option<Problem> {
    const ROOMY: u64 = 64 << 20;
    let MemoryLock::Bytes { soft, .. } = facts.host.memlock? else { return None };
    let privileged = facts
        .access
        .privileges
        .is_some_and(|privileges| privileges.has(super::super::facts::CAP_IPC_LOCK));
    if privileged || !(MEMLOCK_MIN..ROOMY).contains(&soft) {
        return None;
    }
    let what = format!("{} KiB may be locked: one worker of the default size", soft / 1024);
    let remedy = "sudo prlimit --pid $$ --memlock=unlimited";
    Some(Problem::new(Severity::Note, "memory", what).with(remedy))
}

fn exclusive(facts: &Facts) -> Option<Problem> {
    if facts.access.namespaces.rdma_shared != Some(false) {
        return None;
    }
    let what = "RDMA devices belong to one network namespace each: others do not see them";
    let problem = Problem::new(Severity::Note, "network namespace", what);
    Some(problem.with("sudo rdma system set netns shared"))
}
