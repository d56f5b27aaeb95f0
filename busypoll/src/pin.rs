//! Which cores to use and how to stay on them. Reads what the system says of its processors,
//! chooses, pins, and says in words what will spoil latency; it never changes the system.
//!
//! The choice: physical cores of one NUMA node, one hardware thread each, isolated ones first, then
//! the highest numbers, since devices interrupt the low ones.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

pub use crate::quota::Quota;

/// A hardware thread as the system numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Cpu(pub usize);

/// What is wrong with the cores at hand. Displayed as a sentence for the user.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Warning {
    /// Fewer hardware threads are allowed than wanted; several ends share one.
    TooFewCpus {
        /// Hardware threads that this process may use.
        allowed: usize,
        /// Hardware threads that were asked for.
        wanted: usize,
    },
    /// Two of the chosen are threads of one physical core.
    Siblings(Cpu, Cpu),
    /// Two of the chosen lie on different NUMA nodes.
    Nodes(Cpu, Cpu),
    /// The control group may use so many CPUs at most; beyond that it is stopped for milliseconds.
    Quota {
        /// CPUs' worth of time.
        cpus: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::TooFewCpus { allowed: 1, .. } => {
                write!(out, "only one core: both ends take turns on it, figures mean little")
            }
            Warning::TooFewCpus { allowed, wanted } => {
                write!(out, "only {allowed} cores for {wanted} busy threads: some share one")
            }
            Warning::Siblings(a, b) => {
                write!(out, "SMT siblings: cpus {} and {} are one physical core", a.0, b.0)
            }
            Warning::Nodes(a, b) => {
                write!(out, "two NUMA nodes: cpus {} and {} share no cache", a.0, b.0)
            }
            Warning::Quota { cpus } => write!(
                out,
                "cgroup quota {cpus:.1} cpus: a busy-polling process will be stopped when it is \
                 spent"
            ),
        }
    }
}

/// One hardware thread's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The processor's package.
    pub package: usize,
    /// The core in the package.
    pub core: usize,
    /// The NUMA node.
    pub node: usize,
    /// Whether the scheduler leaves it alone.
    pub isolated: bool,
}

/// The hardware threads that this thread may run on, and the limits around them.
#[derive(Clone, Debug)]
pub struct Topology {
    places: BTreeMap<Cpu, Place>,
    quota: Option<Quota>,
}

/// Cores chosen by [`Topology::choose`].
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// As many as were wanted; with too few at hand some are named twice.
    pub cpus: Vec<Cpu>,
    /// What is wrong with them.
    pub warnings: Vec<Warning>,
}

/// The thread could not be pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot pin to cpu {cpu}; this process may use {allowed}: choose one of these")]
pub struct PinError {
    cpu: usize,
    allowed: AllowedList,
}

/// How many hardware threads are allowed, and the first and last of them, for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct AllowedList(Option<(usize, usize, usize)>);

impl fmt::Display for AllowedList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((count, first, last)) => write!(out, "{count} cpus from {first} to {last}"),
            None => out.write_str("cpus that the system does not tell"),
        }
    }
}

/// CPUs that a `cpu_set_t` holds.
const CPU_SET_SIZE: usize = 1024;

/// Keeps the calling thread on `cpu`.
///
/// # Errors
/// If the CPU does not exist or the process may not use it.
pub fn pin_current_thread(cpu: Cpu) -> Result<(), PinError> {
    let allowed = allowed_cpus();
    // A number beyond the system's CPU set would end the process within the call.
    let known = cpu.0 < CPU_SET_SIZE;
    if known && core_affinity::set_for_current(core_affinity::CoreId { id: cpu.0 }) {
        return Ok(());
    }
    let list = match (allowed.first(), allowed.last()) {
        (Some(first), Some(last)) => Some((allowed.len(), first.0, last.0)),
        _ => None,
    };
    Err(PinError { cpu: cpu.0, allowed: AllowedList(list) })
}

/// Lets sleeps of the calling thread end on time: Linux otherwise adds up to 50 us. A refusal is
/// harmless and not reported.
pub fn want_precise_timers() {
    crate::sys::precise_timers().unwrap_or(());
}

/// The hardware threads that the calling thread may run on, ascending.
#[must_use]
pub fn allowed_cpus() -> Vec<Cpu> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|id| Cpu(id.id)).collect()
}

impl Topology {
    /// Reads the system. What it does not tell is taken as: every CPU its own core, one node, no
    /// quota.
    #[must_use]
    pub fn read() -> Topology {
        Topology::read_below(Path::new("/"), &allowed_cpus())
    }

    /// Reads what a system tells below `root`, such as a recorded one.
    #[must_use]
    pub fn read_below(root: &Path, allowed: &[Cpu]) -> Topology {
        let cpu_folder = root.join("sys/devices/system/cpu");
        let isolated = read_list(&cpu_folder.join("isolated"));
        let nodes = nodes(&root.join("sys/devices/system/node"));
        let place = |&cpu: &Cpu| {
            let topology = cpu_folder.join(format!("cpu{}/topology", cpu.0));
            let place = Place {
                package: read_number(&topology.join("physical_package_id")).unwrap_or(0),
                core: read_number(&topology.join("core_id")).unwrap_or(cpu.0),
                node: nodes.get(&cpu.0).copied().unwrap_or(0),
                isolated: isolated.contains(&cpu.0),
            };
            (cpu, place)
        };
        let places = allowed.iter().map(place).collect();
        Topology { places, quota: crate::quota::cgroup_quota(root) }
    }

    /// Where a hardware thread is, if it is at hand.
    #[must_use]
    pub fn place(&self, cpu: Cpu) -> Option<Place> {
        self.places.get(&cpu).copied()
    }

    /// What the control groups allow, if they limit it.
    #[must_use]
    pub fn quota(&self) -> Option<&Quota> {
        self.quota.as_ref()
    }

    /// The hardware threads at hand.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> {
        self.places.keys().copied()
    }

    /// Chooses `wanted` hardware threads for busy threads.
    #[must_use]
    pub fn choose(&self, wanted: usize) -> Choice {
        let mut order: Vec<(Cpu, Place)> = self.places.iter().map(|(c, p)| (*c, *p)).collect();
        order.sort_by_key(|(cpu, place)| (!place.isolated, std::cmp::Reverse(*cpu)));
        let candidates = order.iter().map(|(_, place)| place.node);
        let best = candidates.map(|node| pick(&order, node)).max_by_key(|p| p.0.min(wanted));
        let picked = best.map(|(_, cpus)| cpus).unwrap_or_default();
        let cpus: Vec<Cpu> = picked.iter().copied().cycle().take(wanted).collect();
        let warnings = self.warnings(&cpus);
        Choice { cpus, warnings }
    }

    /// What is wrong with these hardware threads for threads that poll, one on each.
    #[must_use]
    pub fn warnings(&self, cpus: &[Cpu]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.places.len() < cpus.len() {
            warnings.push(Warning::TooFewCpus { allowed: self.places.len(), wanted: cpus.len() });
        }
        for (index, a) in cpus.iter().enumerate() {
            for b in cpus[index + 1..].iter().filter(|b| *b != a) {
                let (Some(one), Some(other)) = (self.places.get(a), self.places.get(b)) else {
                    continue;
                };
                if one.node != other.node {
                    warnings.push(Warning::Nodes(*a, *b));
                } else if (one.package, one.core) == (other.package, other.core) {
                    warnings.push(Warning::Siblings(*a, *b));
                }
            }
        }
        if let Some(quota) = &self.quota {
            warnings.push(Warning::Quota { cpus: quota.cpus });
        }
        warnings
    }
}

/// The hardware threads of `node` first, one a physical core, then their siblings, then the rest;
/// with the number of physical cores of the node.
fn pick(order: &[(Cpu, Place)], node: usize) -> (usize, Vec<Cpu>) {
    let mut seen = Vec::new();
    let (mut cores, mut siblings, mut far) = (Vec::new(), Vec::new(), Vec::new());
    for (cpu, place) in order {
        let core = (place.package, place.core);
        if place.node != node {
            far.push(*cpu);
        } else if seen.contains(&core) {
            siblings.push(*cpu);
        } else {
            seen.push(core);
            cores.push(*cpu);
        }
    }
    let count = cores.len();
    (count, [cores, far, siblings].concat())
}

fn nodes(folder: &Path) -> BTreeMap<usize, usize> {
    let mut nodes = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        if let Some(node) = number {
            let cpus = read_list(&entry.path().join("cpulist"));
            nodes.extend(cpus.into_iter().map(|cpu| (cpu, node)));
        }
    }
    nodes
}

fn read_number(path: &Path) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn read_list(path: &Path) -> Vec<usize> {
    cpu_list(&fs::read_to_string(path).unwrap_or_default())
}

/// The CPUs of a list such as `0-3,8`. What is not of this form is left out.
#[must_use]
pub fn cpu_list(text: &str) -> Vec<usize> {
    /// No machine numbers more CPUs; keeps a garbled list from filling memory.
    const CPU_MAX: usize = 65_536;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<usize>().ok()?);
        Some(first..=last.min(CPU_MAX))
    };
    text.trim().split(',').filter_map(range).flatten().take(CPU_MAX).collect()
}

#[cfg(all(test, not(loom)))]
#[path = "pin_tests.rs"]
mod tests;
