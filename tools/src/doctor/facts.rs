//! What a machine is, as far as it tells: plain values, filled by `collect`, judged by `judge`.
//!
//! Holds no opinion. A fact that the machine does not tell is `None` or an empty list.

use serde::Serialize;

use super::sysfs::Skip;

/// Everything that was found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// Processors, memory and limits.
    pub(crate) host: Host,
    /// What this process may do.
    pub(crate) access: Access,
    /// RDMA devices and what serves them.
    pub(crate) rdma: Rdma,
    /// Network interfaces.
    pub(crate) interfaces: Vec<Interface>,
    /// Facts that are there and could not be read.
    pub(crate) skipped: Vec<Skip>,
}

/// Which packages and commands a remedy may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Distribution {
    /// Debian, Ubuntu and what comes from them.
    Debian,
    /// Fedora, RHEL and what comes from them.
    RedHat,
    /// SUSE.
    Suse,
    /// Something else, or it does not tell.
    #[default]
    Other,
}

/// Processors, memory and limits.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Host {
    /// Release of the kernel.
    pub(crate) kernel: Option<String>,
    /// Model of the processor.
    pub(crate) cpu: Option<String>,
    /// The distribution's kind.
    pub(crate) distribution: Distribution,
    /// Cpus online, as the kernel lists them.
    pub(crate) online: Option<String>,
    /// Cpus that the scheduler leaves alone.
    pub(crate) isolated: Vec<usize>,
    /// Cpus without a timer tick while one thread runs.
    pub(crate) nohz_full: Vec<usize>,
    /// The cpu that a worker would take.
    pub(crate) worker: Option<WorkerCpu>,
    /// NUMA nodes with the cpus that this process may use.
    pub(crate) nodes: Vec<NodeCpus>,
    /// What the control group allows.
    pub(crate) quota: Option<Quota>,
    /// Reserved huge pages.
    pub(crate) huge_pages: Vec<HugePages>,
    /// The mode of transparent huge pages that is set.
    pub(crate) transparent_huge_pages: Option<String>,
    /// Locked memory.
    pub(crate) memlock: Option<MemoryLock>,
}

/// The cpu that a worker would take.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct WorkerCpu {
    /// Its number.
    pub(crate) cpu: usize,
    /// Its NUMA node.
    pub(crate) node: usize,
    /// Hardware threads of the same core that are online, without itself.
    pub(crate) siblings: Vec<usize>,
    /// Its frequency governor.
    pub(crate) governor: Option<String>,
}

/// A NUMA node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct NodeCpus {
    /// Its number.
    pub(crate) node: usize,
    /// Its cpus that this process may use.
    pub(crate) cpus: Vec<usize>,
}

/// CPU time that the control group allows.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Quota {
    /// In cpus.
    pub(crate) cpus: f64,
    /// The file that says so.
    pub(crate) file: String,
}

/// Reserved huge pages of one size.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct HugePages {
    /// Size of a page, in KiB.
    pub(crate) size_kib: u64,
    /// Pages reserved.
    pub(crate) total: u64,
    /// Of them free.
    pub(crate) free: u64,
}

/// The limit of locked memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MemoryLock {
    /// None.
    Unlimited,
    /// Soft and hard limit.
    Bytes {
        /// What holds now.
        soft: u64,
        /// How far the process may raise it; none if without limit.
        hard: Option<u64>,
    },
}

/// What this process may do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Access {
    /// User and capabilities.
    pub(crate) privileges: Option<Privileges>,
    /// Namespaces.
    pub(crate) namespaces: Namespaces,
    /// Whether there are marks of a container.
    pub(crate) container: bool,
    /// Character devices of RDMA.
    pub(crate) infiniband: Vec<Node>,
    /// The TUN driver's character device.
    pub(crate) tun: Option<Node>,
    /// Whether `soft:` works, tried.
    pub(crate) soft: Option<Probe>,
    /// Whether a TAP interface can be made, tried.
    pub(crate) tap: Option<Probe>,
    /// Whether a packet socket can be opened, tried.
    pub(crate) packet: Option<Probe>,
    /// Kernel modules that matter.
    pub(crate) modules: Vec<Module>,
}

/// User and capabilities of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Privileges {
    /// Effective user.
    pub(crate) uid: u32,
    /// Effective capabilities, a bit each.
    pub(crate) effective: u64,
    /// Whether they count on the whole machine, not only in a user namespace.
    pub(crate) initial_user_namespace: Option<bool>,
}

/// `CAP_NET_ADMIN`, a bit in [`Privileges::effective`] (linux/capability.h).
pub(crate) const CAP_NET_ADMIN: u32 = 12;
/// `CAP_NET_RAW`.
pub(crate) const CAP_NET_RAW: u32 = 13;
/// `CAP_IPC_LOCK`: the limit of locked memory does not hold.
pub(crate) const CAP_IPC_LOCK: u32 = 14;

impl Privileges {
    /// Whether a capability is effective.
    pub(crate) fn has(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }
}

/// Which namespaces this process is in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Namespaces {
    /// The network namespace, such as `net:[4026531840]`.
    pub(crate) network: Option<String>,
    /// Whether it is process 1's.
    pub(crate) network_initial: Option<bool>,
    /// Whether `/sys` shows the interfaces of another network namespace.
    pub(crate) sysfs_foreign: Option<bool>,
    /// Whether every network namespace sees all RDMA devices.
    pub(crate) rdma_shared: Option<bool>,
}

/// A character device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Node {
    /// Its path.
    pub(crate) path: String,
    /// Why it cannot be opened for reading and writing; none if it can.
    pub(crate) error: Option<String>,
}

/// Something that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Probe {
    /// What failed; none if it worked.
    pub(crate) error: Option<String>,
    /// What mends it, as the device's own error says.
    pub(crate) remedy: String,
}

/// A kernel module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Module {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is loaded or built in.
    pub(crate) loaded: bool,
    /// Whether the running kernel's package has it; unknown without `/lib/modules`.
    pub(crate) available: Option<bool>,
}

/// RDMA devices and what serves them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Rdma {
    /// Modes of `rdma:` that this program knows.
    pub(crate) modes: Vec<String>,
    /// libibverbs.
    pub(crate) library: Library,
    /// librdmacm.
    pub(crate) connection_manager: Library,
    /// The devices.
    pub(crate) devices: Vec<Device>,
    /// PCI functions of vendors of RDMA NICs which have no RDMA device.
    pub(crate) idle_functions: Vec<IdleFunction>,
}

/// A shared library.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Library {
    /// Not looked for.
    #[default]
    Unknown,
    /// It was loaded.
    Loaded,
    /// It was not, and why.
    Missing(String),
}

/// A network function without RDMA device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct IdleFunction {
    /// PCI address.
    pub(crate) address: String,
    /// The module that would make an RDMA device of it.
    pub(crate) module: String,
    /// The driver that it has.
    pub(crate) driver: Option<String>,
}

/// An RDMA device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Device {
    /// Its name, such as `mlx5_0`.
    pub(crate) name: String,
    /// Such as `CA`, or `RNIC` for iWARP.
    pub(crate) node_type: Option<String>,
    /// The driver of its bus device, or the software driver's name.
    pub(crate) driver: Option<String>,
    /// What it is a function of.
    pub(crate) function: Function,
    /// NUMA node.
    pub(crate) node: Option<usize>,
    /// Firmware's version.
    pub(crate) firmware: Option<String>,
    /// Type or board of the adapter.
    pub(crate) board: Option<String>,
    /// Its file below `/dev/infiniband`.
    pub(crate) uverbs: Option<String>,
    /// PCI Express link.
    pub(crate) link: Option<PcieLink>,
    /// Ports.
    pub(crate) ports: Vec<Port>,
    /// What it can, asked through verbs.
    pub(crate) capabilities: Option<Capabilities>,
    /// Why verbs would not tell.
    pub(crate) verbs_error: Option<String>,
}

/// What an RDMA device is a function of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Function {
    /// It does not tell.
    #[default]
    Unknown,
    /// Software over a network interface.
    Software {
        /// The interface.
        parent: Option<String>,
    },
    /// A physical function.
    Physical {
        /// Bus address.
        address: String,
        /// Virtual functions that are switched on.
        virtual_functions: u32,
    },
    /// A virtual function.
    Virtual {
        /// Bus address.
        address: String,
        /// The physical function's bus address; none in a virtual machine.
        parent: Option<String>,
        /// The physical function's interface.
        parent_interface: Option<String>,
        /// Number of the function.
        index: Option<u32>,
    },
    /// A part of a function, as mlx5's scalable functions.
    Auxiliary {
        /// Its name on the auxiliary bus.
        address: String,
    },
}

/// Speed and width of a PCI Express link, as the kernel says them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PcieLink {
    /// Now, such as `8.0 GT/s`.
    pub(crate) speed: String,
    /// Now, in lanes.
    pub(crate) width: u32,
    /// At best.
    pub(crate) speed_max: String,
    /// At best, in lanes.
    pub(crate) width_max: u32,
}

/// A port of an RDMA device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Port {
    /// From 1.
    pub(crate) number: u32,
    /// Such as `ACTIVE`.
    pub(crate) state: Option<String>,
    /// Such as `LinkUp`.
    pub(crate) physical: Option<String>,
    /// `Ethernet` or `InfiniBand`.
    pub(crate) link_layer: Option<String>,
    /// Such as `100 Gb/sec (4X EDR)`.
    pub(crate) rate: Option<String>,
    /// Bytes of payload in a packet, asked through verbs.
    pub(crate) active_mtu: Option<u32>,
    /// Its interface.
    pub(crate) interface: Option<String>,
    /// GIDs that are not empty.
    pub(crate) gids: Vec<Gid>,
    /// The GID that a queue pair would take, asked through verbs.
    pub(crate) gid_choice: Option<GidChoice>,
    /// Traffic class that the administrator forces upon all queue pairs.
    pub(crate) traffic_class: Option<String>,
    /// Counters that moved while they were watched.
    pub(crate) moved: Vec<Moved>,
    /// Counters that were watched.
    pub(crate) counters: usize,
    /// How old counters may be when they are read, in milliseconds.
    pub(crate) counter_lifespan_ms: Option<u32>,
}

/// An entry of a port's GID table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Gid {
    /// Its index.
    pub(crate) index: u32,
    /// As an IPv6 address; IPv4 addresses are mapped.
    pub(crate) address: std::net::Ipv6Addr,
    /// Such as `RoCE v2`.
    pub(crate) kind: Option<String>,
    /// Its interface; none if that lies in another network namespace.
    pub(crate) interface: Option<String>,
}

/// The GID that a queue pair would take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct GidChoice {
    /// Its index.
    pub(crate) index: Option<u32>,
    /// Why there is none.
    pub(crate) refusal: Option<String>,
}

/// A counter that moved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Moved {
    /// Its name.
    pub(crate) name: String,
    /// By how much in the time that it was watched.
    pub(crate) by: u64,
}

/// What a device can, as verbs tell. A claim of the driver's, not a trial.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Capabilities {
    /// RAW_PACKET queue pairs.
    pub(crate) raw_packet: bool,
    /// Whether this process may make them, tried; none if there are none.
    pub(crate) raw_permitted: Option<bool>,
    /// Longest segment that RAW_PACKET sends in parts, in bytes; 0 for none.
    pub(crate) tso_max: u32,
    /// Transmit and receive checksums on RAW_PACKET.
    pub(crate) raw_checksum: bool,
    /// Steering by flow rules.
    pub(crate) steering: bool,
    /// Receive-side scaling.
    pub(crate) rss: bool,
    /// Bytes that travel in a work request; tried.
    pub(crate) inline_max: Option<u32>,
    /// Scatter-gather elements of a work request.
    pub(crate) sge_max: u32,
    /// Queue pairs.
    pub(crate) qp_max: u32,
    /// Work requests of a queue.
    pub(crate) qp_wr_max: u32,
    /// Shared receive queues.
    pub(crate) srq_max: u32,
    /// Scatter-gather elements of a shared receive.
    pub(crate) srq_sge_max: u32,
    /// Completions of a queue.
    pub(crate) cqe_max: u32,
    /// Address handles.
    pub(crate) ah_max: u32,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is an Ethernet interface (not loopback or a tunnel).
    pub(crate) ethernet: bool,
    /// Whether the administrator switched it on.
    pub(crate) up: Option<bool>,
    /// Such as `up`, `down`, `lowerlayerdown`.
    pub(crate) operstate: Option<String>,
    /// In bytes.
    pub(crate) mtu: Option<u32>,
    /// Mbit/s, where the driver tells.
    pub(crate) speed_mbit: Option<u32>,
    /// The driver of its bus device.
    pub(crate) driver: Option<String>,
    /// Bus address.
    pub(crate) bus_address: Option<String>,
    /// `vlan`, `bond`, `bridge` and so on; none for most hardware.
    pub(crate) kind: Option<String>,
    /// Interfaces upon it: bonds, bridges, VLANs.
    pub(crate) uppers: Vec<String>,
    /// Mode of the bond that it is.
    pub(crate) bond_mode: Option<String>,
    /// Quality of service, as the driver tells.
    pub(crate) quality: Option<Quality>,
}

/// Priorities of an interface, where the driver tells of them (IEEE 802.1Q).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Quality {
    /// Whether packets are sorted by DSCP instead of by VLAN priority.
    pub(crate) trusts_dscp: Option<bool>,
    /// Priorities with priority flow control.
    pub(crate) flow_control: Option<Vec<u8>>,
    /// Priorities on which congestion is marked and reacted to (RoCE ECN).
    pub(crate) congestion_notification: Option<Vec<u8>>,
}
