//! Tables of the judgements: facts of one machine each, changed in one point.

use super::super::facts::*;
use super::*;

const ALL_CAPABILITIES: u64 = 0x1ff_ffff_ffff;

/// A ConnectX port where everything works.
fn good_device() -> Device {
    let gid = Gid {
        index: 3,
        address: "::ffff:10.0.0.1".parse().unwrap(),
        kind: Some("RoCE v2".into()),
        interface: Some("eth2".into()),
    };
    let port = Port {
        number: 1,
        state: Some("ACTIVE".into()),
        link_layer: Some("Ethernet".into()),
        active_mtu: Some(4096),
        interface: Some("eth2".into()),
        gids: vec![gid],
        ..Port::default()
    };
    let capabilities = Capabilities {
        raw_packet: true,
        tso_max: 262_144,
        raw_checksum: true,
        steering: true,
        srq_max: 1000,
        srq_sge_max: 31,
        ..Capabilities::default()
    };
    Device {
        name: "mlx5_0".into(),
        node_type: Some("CA".into()),
        driver: Some("mlx5_core".into()),
        function: Function::Physical { address: "0000:3b:00.0".into(), virtual_functions: 0 },
        node: Some(0),
        uverbs: Some("uverbs0".into()),
        ports: vec![port],
        capabilities: Some(capabilities),
        ..Device::default()
    }
}

/// A tuned host with that port.
fn good() -> Facts {
    let node = |path: &str| Node { path: path.into(), error: None };
    let module = |name: &str| Module { name: name.into(), loaded: true, available: Some(true) };
    Facts {
        host: Host {
            distribution: Distribution::Debian,
            online: Some("0-3".into()),
            isolated: vec![3],
            worker: Some(WorkerCpu {
                cpu: 3,
                node: 0,
                siblings: vec![],
                governor: Some("performance".into()),
            }),
            nodes: vec![NodeCpus { node: 0, cpus: vec![2, 3] }],
            huge_pages: vec![HugePages { size_kib: 2048, total: 8, free: 8 }],
            memlock: Some(MemoryLock::Unlimited),
            ..Host::default()
        },
        access: Access {
            privileges: Some(Privileges {
                uid: 0,
                effective: ALL_CAPABILITIES,
                initial_user_namespace: Some(true),
            }),
            infiniband: vec![node("/dev/infiniband/rdma_cm"), node("/dev/infiniband/uverbs0")],
            tun: Some(node("/dev/net/tun")),
            modules: ["ib_uverbs", "rdma_rxe", "tun"].map(module).into(),
            ..Access::default()
        },
        rdma: Rdma {
            modes: ["raw", "rc", "ud"].map(str::to_owned).into(),
            library: Library::Loaded,
            connection_manager: Library::Loaded,
            devices: vec![good_device()],
            idle_functions: vec![],
        },
        interfaces: vec![Interface {
            name: "eth2".into(),
            ethernet: true,
            up: Some(true),
            driver: Some("mlx5_core".into()),
            ..Interface::default()
        }],
        skipped: vec![],
    }
}

fn device(facts: &mut Facts) -> &mut Device {
    &mut facts.rdma.devices[0]
}

fn port(facts: &mut Facts) -> &mut Port {
    &mut facts.rdma.devices[0].ports[0]
}

fn capabilities(facts: &mut Facts) -> &mut Capabilities {
    facts.rdma.devices[0].capabilities.as_mut().unwrap()
}

/// Takes capabilities of the process away.
fn drop_rights(facts: &mut Facts) {
    facts.access.privileges = Some(Privileges { uid: 1000, ..Privileges::default() });
}

/// Letters of what does not work, `s`oft, `t`ap, `p`acket, `R`aw, rc as `C`, `U`d, and `-` where
/// there is no RDMA at all.
fn broken(judgement: &Judgement) -> String {
    let letter = |device: &str| match device {
        name if name.starts_with("soft") => 's',
        name if name.starts_with("tap") => 't',
        name if name.starts_with("packet") => 'p',
        name if name.ends_with("mode=raw") => 'R',
        name if name.ends_with("mode=rc") => 'C',
        name if name.ends_with("mode=ud") => 'U',
        _ => '-',
    };
    let broken = judgement.verdicts.iter().filter(|verdict| !verdict.works);
    broken.map(|verdict| letter(&verdict.device)).collect()
}

#[test]
fn a_good_host_has_no_problem_and_everything_works() {
    let judgement = judge(&good());
    assert_eq!(judgement.problems, []);
    let names: Vec<_> = judgement.verdicts.iter().map(|v| v.device.as_str()).collect();
    let rdma = ["rdma:mlx5_0,mode=raw", "rdma:mlx5_0,mode=rc", "rdma:mlx5_0,mode=ud"];
    assert_eq!(names[..3], ["soft:/PATH.sock", "tap:NAME", "packet:eth2"]);
    assert_eq!(names[3..], rdma);
    assert_eq!(broken(&judgement), "");
}

/// A row: name, what is changed, what breaks, a part of the first problem and of its remedy.
type Row = (&'static str, fn(&mut Facts), &'static str, &'static str, &'static str);

fn check(rows: &[Row]) {
    for (name, change, letters, what, remedy) in rows {
        let mut facts = good();
        change(&mut facts);
        let judgement = judge(&facts);
        assert_eq!(broken(&judgement), *letters, "{name}");
        let first = judgement.problems.first().unwrap_or_else(|| panic!("{name}: no problem"));
        assert!(first.what.contains(what), "{name}: {}", first.what);
        assert!(first.remedy.join("\n").contains(remedy), "{name}: {:?}", first.remedy);
        let expected = if letters.is_empty() { None } else { Some(Severity::Blocker) };
        let blocker = Some(first.severity).filter(|severity| *severity == Severity::Blocker);
        assert_eq!(blocker, expected, "{name}");
    }
}

const NO_RDMA: &[Row] = &[
    (
        "no library",
        |facts| {
            let error = "no RDMA: libibverbs.so.1 not found; install rdma-core".to_owned();
            facts.rdma.library = Library::Missing(error);
        },
        "-",
        "no RDMA: libibverbs.so.1 not found",
        "sudo apt install rdma-core",
    ),
    (
        "a library of the user's own that cannot be opened",
        |facts| {
            let error = "no RDMA: /d.so cannot be loaded: /d.so: Permission denied; unset \
                         ROCEWAY_LIBIBVERBS, or have it name a library that this user may read";
            facts.rdma.library = Library::Missing(error.to_owned());
        },
        "-",
        "Permission denied",
        "unset ROCEWAY_LIBIBVERBS",
    ),
    (
        "no device",
        |facts| facts.rdma.devices.clear(),
        "-",
        "no RDMA device",
        "sudo modprobe rdma_rxe\nsudo rdma link add rxe0 type rxe netdev eth2",
    ),
    (
        "no device, and a kernel without soft-RoCE",
        |facts| {
            facts.rdma.devices.clear();
            facts.host.kernel = Some("6.1.0-28-cloud-amd64".into());
            facts.access.modules[1].loaded = false;
            facts.access.modules[1].available = Some(false);
        },
        "-",
        "no RDMA device",
        "sudo apt install linux-image-amd64",
    ),
    (
        "the NIC's RDMA module is not loaded",
        |facts| {
            facts.rdma.devices.clear();
            facts.rdma.idle_functions = vec![IdleFunction {
                address: "0000:3b:00.0".into(),
                module: "mlx5_ib".into(),
                driver: Some("mlx5_core".into()),
            }];
        },
        "-",
        "0000:3b:00.0 has the driver mlx5_core and no RDMA device",
        "sudo modprobe mlx5_ib",
    ),
    ("no ports", |facts| device(facts).ports.clear(), "-", "no ports", ""),
    ("iWARP", |facts| device(facts).node_type = Some("RNIC".into()), "RCU", "iWARP", ""),
    (
        "InfiniBand",
        |facts| port(facts).link_layer = Some("InfiniBand".into()),
        "RCU",
        "InfiniBand",
        "mlxconfig -d 0000:3b:00.0 set LINK_TYPE_P1=2",
    ),
];

#[test]
fn what_keeps_all_of_rdma_from_working() {
    check(NO_RDMA);
}

const NO_DEVICE: &[Row] = &[
    (
        "no uverbs",
        |facts| {
            device(facts).uverbs = None;
            device(facts).capabilities = None;
        },
        "RCU",
        "shows it to no program",
        "sudo modprobe ib_uverbs",
    ),
    (
        "no character device",
        |facts| {
            facts.access.infiniband.pop();
            device(facts).capabilities = None;
        },
        "RCU",
        "there is no /dev/infiniband/uverbs0",
        "sudo udevadm trigger",
    ),
    (
        "no character device, in a container",
        |facts| {
            facts.access.infiniband.pop();
            facts.access.container = true;
            device(facts).capabilities = None;
        },
        "RCU",
        "there is no /dev/infiniband/uverbs0",
        "docker run --device=/dev/infiniband",
    ),
    (
        "no permission",
        |facts| {
            facts.access.infiniband[1].error = Some("Permission denied".into());
            device(facts).capabilities = None;
        },
        "RCU",
        "/dev/infiniband/uverbs0: Permission denied",
        "sudo chmod 666 /dev/infiniband/uverbs0",
    ),
    (
        "no provider",
        |facts| {
            device(facts).verbs_error = Some("no driver".into());
            device(facts).capabilities = None;
        },
        "RCU",
        "no driver",
        "ibverbs-providers",
    ),
    (
        "interface off",
        |facts| {
            port(facts).state = Some("DOWN".into());
            facts.interfaces[0].up = Some(false);
        },
        "pRCU",
        "no Ethernet interface is up",
        "sudo ip link set dev eth2 up",
    ),
    (
        "no link",
        |facts| port(facts).state = Some("DOWN".into()),
        "RCU",
        "the port is DOWN",
        "ethtool eth2",
    ),
    (
        "link-local only",
        |facts| port(facts).gids[0].address = "fe80::1".parse().unwrap(),
        "CU",
        "no address besides the link-local",
        "sudo ip address add",
    ),
    (
        "RoCE v1 only",
        |facts| port(facts).gids[0].kind = Some("IB/RoCE v1".into()),
        "CU",
        "no address",
        "sudo ip address add",
    ),
    (
        "address in another namespace",
        |facts| port(facts).gids[0].interface = None,
        "CU",
        "10.0.0.1",
        "sudo nsenter",
    ),
    (
        "verbs choose none",
        |facts| port(facts).gid_choice = Some(GidChoice { index: None, refusal: None }),
        "CU",
        "eth2 has not the address of GID 3",
        "sudo ip address add 10.0.0.1/PREFIX dev eth2",
    ),
];

#[test]
fn what_keeps_a_device_from_working() {
    check(NO_DEVICE);
}

const NO_MODE: &[Row] = &[
    (
        "no raw packets",
        |facts| capabilities(facts).raw_packet = false,
        "R",
        "no RAW_PACKET",
        "use mode=rc or mode=ud",
    ),
    (
        "soft-RoCE, not asked",
        |facts| {
            device(facts).driver = Some("rdma_rxe".into());
            device(facts).capabilities = None;
        },
        "R",
        "soft-RoCE has no RAW_PACKET",
        "use mode=rc or mode=ud",
    ),
    ("no rules", |facts| capabilities(facts).steering = false, "R", "does not steer", "mode=rc"),
    (
        "short shared receives",
        |facts| capabilities(facts).srq_sge_max = 6,
        "C",
        "need receives of 18 elements, it has 6",
        "large=off",
    ),
    (
        "a version without raw",
        |facts| facts.rdma.modes.retain(|mode| mode != "raw"),
        "R",
        "has no mode=raw",
        "another mode",
    ),
    ("no shared queues", |facts| capabilities(facts).srq_max = 0, "C", "shared", "mode=ud"),
    ("no rights", drop_rights, "tpR", "no CAP_NET_ADMIN", "setcap cap_net_admin+ep"),
    (
        "rights in a user namespace",
        |facts| {
            let privileges = facts.access.privileges.as_mut().unwrap();
            privileges.initial_user_namespace = Some(false);
        },
        "R",
        "user namespace only",
        "outside",
    ),
    (
        "a packet socket was refused",
        |facts| {
            let error = Some("socket(AF_PACKET): no".to_owned());
            facts.access.packet = Some(Probe { error, remedy: "mend".into() });
        },
        "p",
        "socket(AF_PACKET): no",
        "mend",
    ),
    (
        "a TAP was refused",
        |facts| {
            let error = Some("ioctl(TUNSETIFF): no".to_owned());
            facts.access.tap = Some(Probe { error, remedy: "mend".into() });
        },
        "t",
        "ioctl(TUNSETIFF): no",
        "mend",
    ),
    ("no TUN driver", |facts| facts.access.tun = None, "t", "/dev/net/tun", "modprobe tun"),
];

#[test]
fn what_keeps_a_mode_from_working() {
    check(NO_MODE);
}

#[test]
fn the_limit_of_locked_memory_counts_without_the_capability() {
    let bytes = |soft, hard| Some(MemoryLock::Bytes { soft, hard });
    let (small, enough) = (65_536, 8 << 20);
    for (name, limit, works, remedy) in [
        ("unlimited", Some(MemoryLock::Unlimited), true, ""),
        ("unknown", None, true, ""),
        ("enough", bytes(enough, Some(enough)), true, ""),
        ("raisable", bytes(small, None), false, "ulimit -l 8192"),
        ("raisable to enough", bytes(small, Some(enough)), false, "ulimit -l 8192"),
        ("hard", bytes(small, Some(small)), false, "sudo prlimit --pid $$ --memlock=unlimited"),
    ] {
        let mut facts = good();
        facts.host.memlock = limit;
        assert_eq!(broken(&judge(&facts)), "", "{name}, with CAP_IPC_LOCK");
        drop_rights(&mut facts);
        let judgement = judge(&facts);
        let rc = judgement.verdicts.iter().find(|v| v.device.ends_with("mode=rc")).unwrap();
        assert_eq!(rc.works, works, "{name}");
        let all: Vec<_> = judgement.problems.iter().flat_map(|p| &p.remedy).collect();
        assert!(remedy.is_empty() || all.iter().any(|line| *line == remedy), "{name}: {all:?}");
    }
}

const WORSE: &[Row] = &[
    (
        "another NUMA node",
        |facts| {
            device(facts).node = Some(1);
            facts.host.nodes.push(NodeCpus { node: 1, cpus: vec![4, 5] });
        },
        "",
        "NUMA node 1; a worker would take cpu 3 of node 0",
        "--set cpu=5",
    ),
    (
        "a narrow slot",
        |facts| {
            let (speed, speed_max) = ("8.0 GT/s".into(), "16.0 GT/s".into());
            device(facts).link = Some(PcieLink { speed, width: 8, speed_max, width_max: 16 });
        },
        "",
        "8.0 GT/s x8 of 16.0 GT/s x16",
        "",
    ),
    (
        "a virtual function",
        |facts| {
            device(facts).function = Function::Virtual {
                address: "0000:3b:00.2".into(),
                parent: Some("0000:3b:00.0".into()),
                parent_interface: Some("eth2".into()),
                index: Some(0),
            };
        },
        "",
        "virtual function",
        "sudo ip link set dev eth2 vf 0 spoofchk off trust on",
    ),
    (
        "a counter of errors",
        |facts| {
            port(facts).moved = vec![Moved { name: "out_of_sequence".into(), by: 3 }];
        },
        "",
        "out_of_sequence rose by 3",
        "",
    ),
    (
        "a small path MTU",
        |facts| port(facts).active_mtu = Some(1024),
        "",
        "path MTU is 1024",
        "sudo ip link set dev eth2 mtu 4200",
    ),
    (
        "a bond that cannot be one device",
        |facts| facts.interfaces[0].bond_mode = Some("balance-rr".into()),
        "",
        "balance-rr",
        "type bond mode 802.3ad",
    ),
    (
        "no connection manager",
        |facts| facts.access.infiniband.retain(|node| !node.path.ends_with("rdma_cm")),
        "",
        "no /dev/infiniband/rdma_cm",
        "sudo modprobe rdma_ucm",
    ),
    (
        "DSCP not trusted",
        |facts| {
            let flow_control = Some(vec![]);
            let quality = Quality { trusts_dscp: Some(false), flow_control, ..Quality::default() };
            facts.interfaces[0].quality = Some(quality);
        },
        "",
        "no priority has flow control",
        "sudo dcb pfc set dev eth2 prio-pfc 3:on",
    ),
    (
        "old counters",
        |facts| port(facts).counter_lifespan_ms = Some(10_000),
        "",
        "10000 ms old",
        "/sys/class/infiniband/mlx5_0/ports/1/hw_counters/lifespan",
    ),
    (
        "exclusive namespaces",
        |facts| facts.access.namespaces.rdma_shared = Some(false),
        "",
        "one network namespace each",
        "sudo rdma system set netns shared",
    ),
];

#[test]
fn what_works_worse_than_it_could() {
    check(WORSE);
}

fn worker(facts: &mut Facts) -> &mut WorkerCpu {
    facts.host.worker.as_mut().unwrap()
}

const SLOW_HOST: &[Row] = &[
    (
        "a quota",
        |facts| {
            let file = "/sys/fs/cgroup/job/cpu.max".into();
            facts.host.quota = Some(Quota { cpus: 1.5, file });
        },
        "",
        "1.5 cpus",
        "echo max | sudo tee /sys/fs/cgroup/job/cpu.max",
    ),
    (
        "an old quota",
        |facts| {
            let file = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us".into();
            facts.host.quota = Some(Quota { cpus: 0.5, file });
        },
        "",
        "0.5 cpus",
        "echo -1 | sudo tee",
    ),
    (
        "a governor",
        |facts| worker(facts).governor = Some("powersave".into()),
        "",
        "powersave",
        "echo performance",
    ),
    (
        "no isolation",
        |facts| facts.host.isolated.clear(),
        "",
        "not isolated",
        "isolcpus=3 nohz_full=3",
    ),
    (
        "a sibling",
        |facts| worker(facts).siblings = vec![7],
        "",
        "shares its core with cpu 7",
        "echo 0 | sudo tee /sys/devices/system/cpu/cpu7/online",
    ),
    ("one cpu", |facts| facts.host.nodes[0].cpus = vec![3], "", "only cpu 3", ""),
    (
        "no huge pages",
        |facts| facts.host.huge_pages[0].free = 0,
        "",
        "all 8 huge pages are taken",
        "echo 24 | sudo tee",
    ),
    (
        "sysfs of another namespace",
        |facts| facts.access.namespaces.sysfs_foreign = Some(true),
        "",
        "another network namespace",
        "mount -t sysfs",
    ),
    (
        "no procfs",
        |facts| facts.access.privileges = None,
        "",
        "/proc tells nothing",
        "sudo mount -t proc proc /proc",
    ),
    (
        "no sysfs",
        |facts| facts.host.online = None,
        "",
        "/sys tells nothing",
        "sudo mount -t sysfs sysfs /sys",
    ),
    (
        "an unreadable fact",
        |facts| {
            let why = "Permission denied".into();
            facts.skipped = vec![super::super::sysfs::Skip { path: "/sys/x".into(), why }];
        },
        "",
        "/sys/x: Permission denied",
        "",
    ),
];

#[test]
fn what_slows_a_host_down() {
    check(SLOW_HOST);
}

#[test]
fn a_machine_that_tells_nothing_is_judged() {
    let judgement = judge(&Facts::default());
    assert_eq!(broken(&judgement), "tp-");
    for problem in &judgement.problems {
        assert!(!problem.remedy.is_empty(), "{problem:?}");
    }
}

#[test]
fn devices_with_the_same_reason_share_one_problem() {
    let mut facts = good();
    drop_rights(&mut facts);
    let judgement = judge(&facts);
    let raw: Vec<_> = judgement.problems.iter().filter(|p| p.what == "no CAP_NET_RAW").collect();
    assert_eq!(raw.len(), 1);
    assert_eq!(raw[0].about, ["packet:eth2", "rdma:mlx5_0,mode=raw"]);
    for verdict in &judgement.verdicts {
        for number in &verdict.problems {
            assert!(judgement.problems[number - 1].about.contains(&verdict.device));
        }
    }
}

#[test]
fn the_worst_comes_first() {
    let mut facts = good();
    drop_rights(&mut facts);
    facts.host.isolated.clear();
    facts.host.worker.as_mut().unwrap().governor = Some("powersave".into());
    let judgement = judge(&facts);
    let severities: Vec<_> = judgement.problems.iter().map(|problem| problem.severity).collect();
    let mut sorted = severities.clone();
    sorted.sort();
    assert_eq!(severities, sorted);
    sorted.dedup();
    assert_eq!(sorted, [Severity::Blocker, Severity::Warning, Severity::Note]);
}
