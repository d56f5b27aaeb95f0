//! Which devices of Roceway would work, and why the others would not.
//!
//! A device works if everything that is looked at is as it must be. For `rdma:` that is what kernel
//! and driver say; whether the wire carries, only traffic shows.

use roceway_runtime::rdma_virtio::memory::arena::{ARENA_LEN_DEFAULT_MAX, ArenaConfig};
use roceway_runtime::rdma_virtio::nic::rdma::options::MESSAGE_LARGE;

use super::super::facts::{
    CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_RAW, Capabilities, Device, Facts, Gid, IdleFunction,
    Interface, Library, MemoryLock, Port, Privileges, Probe,
};
use super::{Reason, remedy};

/// Bytes of locked memory that a worker on RDMA needs by default: its arena and the NIC's queues.
pub(super) const MEMLOCK_MIN: u64 = ARENA_LEN_DEFAULT_MAX;

/// What stands behind `mode=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Bare Ethernet.
    Raw,
    /// Reliable connected queue pairs.
    Rc,
    /// Datagrams.
    Ud,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Raw, Mode::Rc, Mode::Ud];

    fn name(self) -> &'static str {
        match self {
            Mode::Raw => "raw",
            Mode::Rc => "rc",
            Mode::Ud => "ud",
        }
    }
}

/// How a port is named on the command line: with its number only where there are several.
pub(super) fn port_name(device: &Device, port: &Port) -> String {
    match device.ports.as_slice() {
        [_] => device.name.clone(),
        _ => format!("{}:{}", device.name, port.number),
    }
}

/// Every device and mode, with what keeps it from working.
pub(super) fn all(facts: &Facts) -> Vec<(String, Vec<Reason>)> {
    let mut all = vec![
        ("soft:/PATH.sock".to_owned(), soft(facts)),
        ("tap:NAME".to_owned(), tap(facts)),
        (packet_name(facts), packet(facts)),
    ];
    let absent = absent(facts);
    if !absent.is_empty() {
        all.push(("rdma:DEV".to_owned(), absent));
        return all;
    }
    for device in &facts.rdma.devices {
        if device.ports.is_empty() {
            let none = "it shows no ports: it went away, or another namespace has it";
            let what = device.verbs_error.clone().unwrap_or_else(|| none.to_owned());
            all.push((format!("rdma:{}", device.name), vec![Reason::new(what, &[])]));
        }
        for port in &device.ports {
            for mode in Mode::ALL {
                let name = format!("rdma:{},mode={}", port_name(device, port), mode.name());
                all.push((name, rdma(facts, device, port, mode)));
            }
        }
    }
    all
}

fn tried(probe: &Probe) -> Vec<Reason> {
    let reason = |error: &String| Reason::new(error.clone(), &[&probe.remedy]);
    probe.error.iter().map(reason).collect()
}

fn soft(facts: &Facts) -> Vec<Reason> {
    facts.access.soft.as_ref().map(tried).unwrap_or_default()
}

fn lacks(facts: &Facts, capability: u32) -> bool {
    facts.access.privileges.is_some_and(|privileges| !privileges.has(capability))
}

fn tap(facts: &Facts) -> Vec<Reason> {
    let Some(node) = &facts.access.tun else {
        let mend = match facts.access.container {
            true => "docker run --device=/dev/net/tun --cap-add=NET_ADMIN IMAGE".to_owned(),
            false => remedy::load(facts, "tun"),
        };
        return vec![Reason::new("there is no /dev/net/tun", &[&mend])];
    };
    if let Some(error) = &node.error {
        let remedy = "sudo chmod 666 /dev/net/tun";
        return vec![Reason::new(format!("{}: {error}", node.path), &[remedy])];
    }
    if let Some(probe) = &facts.access.tap {
        return tried(probe);
    }
    match lacks(facts, CAP_NET_ADMIN) {
        true => vec![Reason::new("no CAP_NET_ADMIN", &[&remedy::capability("cap_net_admin")])],
        false => Vec::new(),
    }
}

/// The interface that a trial would best use: Ethernet, up, hardware before what lies upon it.
fn packet_interface(facts: &Facts) -> Option<&Interface> {
    let usable = |interface: &&Interface| interface.ethernet && interface.up == Some(true);
    let mut usable: Vec<_> = facts.interfaces.iter().filter(usable).collect();
    usable.sort_by_key(|interface| (interface.driver.is_none(), !interface.uppers.is_empty()));
    usable.first().copied()
}

fn packet_name(facts: &Facts) -> String {
    let name = packet_interface(facts).map_or("INTERFACE", |interface| &interface.name);
    format!("packet:{name}")
}

fn packet(facts: &Facts) -> Vec<Reason> {
    let mut reasons = match &facts.access.packet {
        Some(probe) => tried(probe),
        None if lacks(facts, CAP_NET_RAW) => {
            vec![Reason::new("no CAP_NET_RAW", &[&remedy::capability("cap_net_raw")])]
        }
        None => Vec::new(),
    };
    if packet_interface(facts).is_none() {
        let remedy = match facts.interfaces.iter().find(|interface| interface.ethernet) {
            Some(down) => format!("sudo ip link set dev {} up", down.name),
            None => "sudo ip link add rw0 type veth peer name rw1 && sudo ip link set rw0 up && \
                     sudo ip link set rw1 up"
                .to_owned(),
        };
        reasons.push(Reason::new("no Ethernet interface is up", &[&remedy]));
    }
    reasons
}

/// What of the library's remedy is a command, where the user named another one.
const NAMED: &str = "unset ROCEWAY_LIBIBVERBS";

/// Why there is no RDMA at all.
fn absent(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Library::Missing(error) = &facts.rdma.library {
        if error.contains(NAMED) {
            // It is the user's own, and what devices there are nobody can say without it.
            return vec![Reason::new(error.clone(), &[NAMED])];
        }
        reasons.push(Reason::new(error.clone(), &[&remedy::install_rdma_core(facts)]));
    }
    if !facts.rdma.devices.is_empty() {
        return reasons;
    }
    if let Some(idle) = facts.rdma.idle_functions.first() {
        reasons.push(idle_function(facts, idle));
        return reasons;
    }
    let what = "there is no RDMA device; soft-RoCE makes one of an interface, for trials";
    let interface = packet_interface(facts).map_or("eth0", |interface| interface.name.as_str());
    let add = format!("sudo rdma link add rxe0 type rxe netdev {interface}");
    reasons.push(Reason::new(what, &[&remedy::load(facts, "rdma_rxe"), &add]));
    reasons
}

/// Why an RDMA NIC has no RDMA device.
fn idle_function(facts: &Facts, idle: &IdleFunction) -> Reason {
    let IdleFunction { address, module, driver } = idle;
    let Some(driver) = driver else {
        return Reason::new(format!("{address} has no driver"), &[&remedy::load(facts, module)]);
    };
    let what = format!("{address} has the driver {driver} and no RDMA device");
    if remedy::module(facts, module).is_some_and(|module| module.loaded) {
        let what = format!("{what}, though {module} is loaded: another namespace may have it");
        return Reason::new(what, &["sudo nsenter --target 1 --net rdma dev"]);
    }
    Reason::new(what, &[&remedy::load(facts, module)])
}

fn rdma(facts: &Facts, device: &Device, port: &Port, mode: Mode) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !facts.rdma.modes.iter().any(|known| known == mode.name()) {
        let what = format!("this version of Roceway has no mode={}", mode.name());
        return vec![Reason::new(what, &["use another mode"])];
    }
    reasons.extend(wrong_kind(device, port));
    if mode == Mode::Raw {
        reasons.extend(raw_packet(device));
    }
    // What the device can never do makes the rest idle.
    if !reasons.is_empty() {
        return reasons;
    }
    reasons.extend(character_device(facts, device));
    reasons.extend(port_state(facts, port));
    match mode {
        Mode::Raw => reasons.extend(raw_right(facts, device)),
        Mode::Rc => {
            reasons.extend(shared_receives(device));
            reasons.extend(gid(facts, port));
        }
        Mode::Ud => reasons.extend(gid(facts, port)),
    }
    reasons.extend(memlock(facts));
    reasons
}

fn wrong_kind(device: &Device, port: &Port) -> Option<Reason> {
    if device.node_type.as_deref().is_some_and(|kind| kind != "CA") {
        return Some(Reason::new("it is not a RoCE adapter (iWARP, or of another kind)", &[]));
    }
    if port.link_layer.as_deref() == Some("InfiniBand") {
        let what = "its link layer is InfiniBand, and Roceway speaks RoCE v2";
        // The firmware's own tool; only ports of both kinds can be switched.
        let bus = match &device.function {
            super::super::facts::Function::Physical { address, .. } => Some(address),
            _ => None,
        };
        let remedy = bus.map(|address| {
            format!("sudo mlxconfig -d {address} set LINK_TYPE_P{}=2 && sudo reboot", port.number)
        });
        let remedy: Vec<&str> = remedy.as_deref().into_iter().collect();
        return Some(Reason::new(what, &remedy));
    }
    None
}

/// What a device must say of itself for `mode=raw`.
fn raw_packet(device: &Device) -> Option<Reason> {
    const INSTEAD: &str = "use mode=rc or mode=ud";
    if device.driver.as_deref() == Some("rdma_rxe") {
        let what = "soft-RoCE has no RAW_PACKET queue pairs";
        return Some(Reason::new(what, &[INSTEAD]));
    }
    let Capabilities { raw_packet, steering, .. } = device.capabilities?;
    let lacking = match (raw_packet, steering) {
        (false, _) => "the device has no RAW_PACKET queue pairs",
        (true, false) => "the device does not steer packets by flow rules",
        (true, true) => return None,
    };
    Some(Reason::new(lacking, &[INSTEAD]))
}

/// RAW_PACKET needs CAP_NET_RAW, with most kernels on the whole machine. A trial decides, if there
/// was one.
fn raw_right(facts: &Facts, device: &Device) -> Option<Reason> {
    let tried = device.capabilities.and_then(|capabilities| capabilities.raw_permitted);
    let inside = |privileges: &Privileges| {
        privileges.has(CAP_NET_RAW) && privileges.initial_user_namespace == Some(false)
    };
    if tried != Some(true) && facts.access.privileges.as_ref().is_some_and(inside) {
        let what =
            "CAP_NET_RAW counts in this user namespace only, and RAW_PACKET needs it outside";
        return Some(Reason::new(what, &["run it outside of the user namespace"]));
    }
    let lacking = tried.map_or_else(|| lacks(facts, CAP_NET_RAW), |permitted| !permitted);
    let mend = remedy::capability("cap_net_raw");
    lacking.then(|| Reason::new("no CAP_NET_RAW", &[&mend]))
}

/// The file below `/dev/infiniband`, and what verbs say of it.
fn character_device(facts: &Facts, device: &Device) -> Option<Reason> {
    if device.capabilities.is_some() {
        return None;
    }
    let Some(uverbs) = &device.uverbs else {
        let load = remedy::load(facts, "ib_uverbs");
        return Some(Reason::new("the kernel shows it to no program", &[&load]));
    };
    let path = format!("/dev/infiniband/{uverbs}");
    let Some(node) = facts.access.infiniband.iter().find(|node| node.path == path) else {
        let what = format!("there is no {path}");
        let mend = match facts.access.container {
            true => remedy::CONTAINER,
            false => "sudo udevadm trigger --subsystem-match=infiniband_verbs",
        };
        return Some(Reason::new(what, &[mend]));
    };
    if let Some(error) = &node.error {
        let remedy = format!("sudo chmod 666 {path}");
        return Some(Reason::new(format!("{path}: {error}"), &[&remedy]));
    }
    let error = device.verbs_error.as_ref()?;
    Some(Reason::new(error.clone(), &[&remedy::install_rdma_core(facts)]))
}

fn port_state(facts: &Facts, port: &Port) -> Option<Reason> {
    let state = port.state.as_deref().filter(|state| *state != "ACTIVE")?;
    let physical = port.physical.as_deref().unwrap_or("unknown");
    let what = format!("the port is {state} (physical state {physical})");
    let Some(name) = &port.interface else { return Some(Reason::new(what, &["ip link"])) };
    let interface = facts.interfaces.iter().find(|interface| interface.name == *name);
    // Administratively down, or without a link.
    let remedy = match interface.and_then(|interface| interface.up) {
        Some(true) => format!("ethtool {name}    # up without a link: check cable and switch"),
        Some(false) | None => format!("sudo ip link set dev {name} up"),
    };
    Some(Reason::new(what, &[&remedy]))
}

/// Whether peers reach a GID: RoCE v2, not link-local, on an interface of this namespace.
pub(super) fn is_usable(gid: &Gid) -> bool {
    is_global(gid) && gid.interface.is_some()
}

/// A GID with its interface.
fn owner(gid: &Gid) -> Option<(&Gid, &str)> {
    Some((gid, gid.interface.as_deref()?))
}

fn is_global(gid: &Gid) -> bool {
    gid.kind.as_deref() == Some("RoCE v2")
        && !gid.address.is_unicast_link_local()
        && !gid.address.is_unspecified()
}

fn gid(facts: &Facts, port: &Port) -> Option<Reason> {
    let fits = match &port.gid_choice {
        Some(choice) => choice.index.is_some(),
        None => port.gids.iter().any(is_usable),
    };
    if fits {
        return None;
    }
    if let Some((gid, interface)) = port.gids.iter().find(|gid| is_usable(gid)).and_then(owner) {
        let what = format!("{interface} has not the address of GID {}", gid.index);
        let mend = format!("sudo ip address add {}/PREFIX dev {interface}", address(gid));
        return Some(Reason::new(what, &[&mend]));
    }
    if let Some(gid) = port.gids.iter().find(|gid| is_global(gid)) {
        let what = format!(
            "its addresses ({}) belong to an interface of another network namespace",
            address(gid)
        );
        let mend = match facts.access.container {
            true => remedy::CONTAINER,
            false => "sudo nsenter --target 1 --net roceway doctor    # if it is the host's",
        };
        return Some(Reason::new(what, &[mend]));
    }
    let interface = port.interface.as_deref().unwrap_or("INTERFACE");
    let what = format!("{interface} has no address besides the link-local one");
    let remedy = format!("sudo ip address add ADDRESS/PREFIX dev {interface}");
    Some(Reason::new(what, &[&remedy]))
}

/// A GID as people write the address.
pub(super) fn address(gid: &Gid) -> String {
    gid.address.to_ipv4_mapped().map_or_else(|| gid.address.to_string(), |v4| v4.to_string())
}

/// Receives of 64 KiB are one shared receive of several elements.
fn shared_receives(device: &Device) -> Option<Reason> {
    let capabilities = device.capabilities?;
    if capabilities.srq_max == 0 {
        let what = "the device has no shared receive queues";
        return Some(Reason::new(what, &["use mode=ud"]));
    }
    let buffer = ArenaConfig::default().receive_len;
    let needed = 1 + MESSAGE_LARGE.div_ceil(buffer);
    let has = capabilities.srq_sge_max;
    let what = format!("large segments need receives of {needed} elements, it has {has}");
    (has < needed).then(|| Reason::new(what, &["add large=off to the device's options"]))
}

fn memlock(facts: &Facts) -> Option<Reason> {
    let MemoryLock::Bytes { soft, hard } = facts.host.memlock? else { return None };
    if soft >= MEMLOCK_MIN || !lacks(facts, CAP_IPC_LOCK) {
        return None;
    }
    let needed = MEMLOCK_MIN / 1024;
    let what = format!("{} KiB may be locked, and {needed} KiB are needed", soft / 1024);
    let allowed = hard.is_none_or(|hard| hard >= MEMLOCK_MIN);
    let now = match allowed {
        true => format!("ulimit -l {needed}"),
        false => "sudo prlimit --pid $$ --memlock=unlimited".to_owned(),
    };
    let always =
        "echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/rdma.conf    # at login";
    Some(Reason::new(what, &[&now, always]))
}
