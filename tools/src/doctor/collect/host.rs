//! Processors, memory, limits, privileges and namespaces, from procfs and sysfs.
//!
//! Opens nothing but files of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use roceway_busypoll::pin::{self, Cpu, Topology};
use roceway_perf::host::cpu_model;

use super::super::facts::{
    Access, Distribution, Host, HugePages, MemoryLock, Namespaces, NodeCpus, Privileges, Quota,
    WorkerCpu,
};
use super::super::sysfs::Sysfs;

const CPUS: &str = "sys/devices/system/cpu";

/// Processors, memory and limits.
pub(super) fn read(sysfs: &Sysfs) -> Host {
    let list = |name: &str| {
        sysfs.value(&format!("{CPUS}/{name}")).map(|text| pin::cpu_list(&text)).unwrap_or_default()
    };
    let topology = Topology::read_below(sysfs.root(), &allowed_cpus(sysfs));
    let transparent = sysfs.value("sys/kernel/mm/transparent_hugepage/enabled");
    Host {
        kernel: sysfs.value("proc/sys/kernel/osrelease"),
        cpu: sysfs.text("proc/cpuinfo").map(|text| cpu_model(&text)),
        distribution: distribution(&sysfs.text("etc/os-release").unwrap_or_default()),
        online: sysfs.value(&format!("{CPUS}/online")),
        isolated: list("isolated"),
        nohz_full: list("nohz_full"),
        worker: worker(sysfs, &topology),
        nodes: nodes(&topology),
        quota: topology
            .quota()
            .map(|quota| Quota { cpus: quota.cpus, file: inside(sysfs, &quota.file) }),
        huge_pages: huge_pages(sysfs),
        transparent_huge_pages: transparent.as_deref().and_then(marked).map(str::to_owned),
        memlock: memlock(&sysfs.text("proc/self/limits").unwrap_or_default()),
    }
}

/// What this process may do, without trying.
pub(super) fn access(sysfs: &Sysfs) -> Access {
    let status = sysfs.text("proc/self/status").unwrap_or_default();
    let map = sysfs.text("proc/self/uid_map");
    let privileges = privileges(&status, map.as_deref());
    // Docker and Podman leave these files; a user namespace of its own is a mark, too.
    let marked = sysfs.exists(".dockerenv") || sysfs.exists("run/.containerenv");
    let own = privileges.and_then(|found| found.initial_user_namespace) == Some(false);
    Access {
        privileges,
        namespaces: namespaces(sysfs),
        container: marked || own,
        ..Access::default()
    }
}

/// A file's path as that machine names it.
fn inside(sysfs: &Sysfs, path: &Path) -> String {
    let path = path.strip_prefix(sysfs.root()).unwrap_or(path).display().to_string();
    let plain = |c: char| if c.is_control() { '?' } else { c };
    format!("/{}", path.trim_start_matches('/')).chars().map(plain).collect()
}

/// A field of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

/// The cpus that this process may use; where it does not tell, those online.
fn allowed_cpus(sysfs: &Sysfs) -> Vec<Cpu> {
    let status = sysfs.text("proc/self/status").unwrap_or_default();
    let online = || sysfs.value(&format!("{CPUS}/online"));
    let list = field(&status, "Cpus_allowed_list").map(str::to_owned).or_else(online);
    let online = online().map(|text| pin::cpu_list(&text));
    let allowed = pin::cpu_list(&list.unwrap_or_default()).into_iter();
    let mut cpus: Vec<Cpu> = allowed
        .filter(|cpu| online.as_ref().is_none_or(|online| online.contains(cpu)))
        .map(Cpu)
        .collect();
    cpus.dedup();
    cpus
}

fn worker(sysfs: &Sysfs, topology: &Topology) -> Option<WorkerCpu> {
    let cpu = *topology.choose(1).cpus.first()?;
    let place = topology.place(cpu)?;
    let same_core = |other: &Cpu| {
        topology.place(*other).is_some_and(|o| (o.package, o.core) == (place.package, place.core))
    };
    let siblings = topology.cpus().filter(|other| *other != cpu && same_core(other));
    Some(WorkerCpu {
        cpu: cpu.0,
        node: place.node,
        siblings: siblings.map(|Cpu(id)| id).collect(),
        governor: sysfs.value(&format!("{CPUS}/cpu{}/cpufreq/scaling_governor", cpu.0)),
    })
}

fn nodes(topology: &Topology) -> Vec<NodeCpus> {
    let mut nodes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for cpu in topology.cpus() {
        let node = topology.place(cpu).map_or(0, |place| place.node);
        nodes.entry(node).or_default().push(cpu.0);
    }
    nodes.into_iter().map(|(node, cpus)| NodeCpus { node, cpus }).collect()
}

fn huge_pages(sysfs: &Sysfs) -> Vec<HugePages> {
    const FOLDER: &str = "sys/kernel/mm/hugepages";
    let size = |name: &String| {
        let size_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let number = |file: &str| sysfs.number(&format!("{FOLDER}/{name}/{file}"));
        Some(HugePages {
            size_kib,
            total: number("nr_hugepages")?,
            free: number("free_hugepages").unwrap_or(0),
        })
    };
    sysfs.names(FOLDER).iter().filter_map(size).collect()
}

/// The choice in brackets of a list such as `always [madvise] never`.
fn marked(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

/// The line `Max locked memory` of `/proc/self/limits`.
fn memlock(limits: &str) -> Option<MemoryLock> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let mut words = line.split_whitespace();
    let (soft, hard) = (words.next()?, words.next()?);
    let hard = match hard {
        "unlimited" => None,
        number => Some(number.parse().ok()?),
    };
    match soft {
        "unlimited" => Some(MemoryLock::Unlimited),
        number => Some(MemoryLock::Bytes { soft: number.parse().ok()?, hard }),
    }
}

fn privileges(status: &str, uid_map: Option<&str>) -> Option<Privileges> {
    let initial = uid_map.map(|map| {
        let words: Vec<&str> = map.split_whitespace().collect();
        words == ["0", "0", "4294967295"]
    });
    // Real, effective, saved and file system user.
    let uid = field(status, "Uid")?.split_whitespace().nth(1)?.parse().ok()?;
    let effective = u64::from_str_radix(field(status, "CapEff")?, 16).ok()?;
    Some(Privileges { uid, effective, initial_user_namespace: initial })
}

fn namespaces(sysfs: &Sysfs) -> Namespaces {
    let network = sysfs.link_name("proc/self/ns/net");
    let initial = sysfs.link_name("proc/1/ns/net");
    let sysfs_foreign = foreign(sysfs);
    Namespaces {
        // A container's first process is in the container's namespace: then this says little,
        // and a user namespace of one's own says it.
        network_initial: network.as_ref().zip(initial).map(|(own, first)| *own == first),
        network,
        sysfs_foreign,
        rdma_shared: sysfs
            .value("sys/module/ib_core/parameters/netns_mode")
            .map(|text| matches!(text.as_str(), "Y" | "1")),
    }
}

/// Whether `/sys/class/net` shows other interfaces than this process has.
fn foreign(sysfs: &Sysfs) -> Option<bool> {
    let table = sysfs.text("proc/self/net/dev")?;
    if !sysfs.exists("sys/class/net") {
        return None;
    }
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let own: BTreeSet<String> = lines.map(|(name, _)| name.trim().to_owned()).collect();
    // Among the interfaces lie files such as `bonding_masters`.
    let is_interface = |name: &String| sysfs.path(&format!("sys/class/net/{name}")).is_dir();
    let shown: BTreeSet<String> =
        sysfs.names("sys/class/net").into_iter().filter(is_interface).collect();
    Some(own != shown)
}

fn distribution(release: &str) -> Distribution {
    let fields = release.lines().filter_map(|line| line.split_once('='));
    let values = fields.filter(|(key, _)| ["ID", "ID_LIKE"].contains(key));
    let words = values.flat_map(|(_, value)| value.trim_matches('"').split_whitespace());
    let known = |word: &str| match word {
        "debian" | "ubuntu" => Some(Distribution::Debian),
        "fedora" | "rhel" | "centos" => Some(Distribution::RedHat),
        "suse" | "opensuse" | "sles" => Some(Distribution::Suse),
        _ => None,
    };
    words.into_iter().find_map(known).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_locked_memory_is_read() {
        let line = |text: &str| format!("Max cpu time  x\nMax locked memory     {text}   bytes \n");
        for (text, limit) in [
            ("8388608 8388608", Some(MemoryLock::Bytes { soft: 8_388_608, hard: Some(8_388_608) })),
            ("65536 unlimited", Some(MemoryLock::Bytes { soft: 65_536, hard: None })),
            ("unlimited unlimited", Some(MemoryLock::Unlimited)),
            ("lots lots", None),
            ("", None),
        ] {
            assert_eq!(memlock(&line(text)), limit, "{text}");
        }
    }

    #[test]
    fn capabilities_are_read_and_their_namespace() {
        let status = "Uid:\t1000\t0\t0\t0\nCapEff:\t0000000000002000\n";
        let found = privileges(status, Some("         0     100000      65536\n")).unwrap();
        assert_eq!((found.uid, found.initial_user_namespace), (0, Some(false)));
        use crate::doctor::facts::{CAP_NET_ADMIN, CAP_NET_RAW};
        assert!(found.has(CAP_NET_RAW) && !found.has(CAP_NET_ADMIN));
        let initial = privileges(status, Some("         0          0 4294967295\n")).unwrap();
        assert_eq!(initial.initial_user_namespace, Some(true));
        for garbage in ["", "Uid:\t0\nCapEff:\tff", "Uid:\t0\t0\nCapEff:\tzz"] {
            assert_eq!(privileges(garbage, None), None, "{garbage}");
        }
    }

    #[test]
    fn distributions_are_known_by_what_they_are_like() {
        for (text, kind) in [
            ("ID=debian\n", Distribution::Debian),
            ("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n", Distribution::RedHat),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Distribution::Suse),
            ("VERSION_ID=debian\n", Distribution::Other),
            ("", Distribution::Other),
        ] {
            assert_eq!(distribution(text), kind, "{text}");
        }
    }

    #[test]
    fn the_marked_choice_is_found() {
        assert_eq!(marked("always [madvise] never"), Some("madvise"));
        assert_eq!(marked("always"), None);
    }
}
