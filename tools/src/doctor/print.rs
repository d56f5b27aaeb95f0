//! A report as text: what would work, the problems with the worst first, then what was found.
//!
//! Only arranges; every judgement was made before.

use std::fmt::Write;

use super::Report;
use super::facts::{
    Access, CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_RAW, Capabilities, Device, Facts, Function, Gid,
    Host, Interface, Library, MemoryLock, Namespaces, Port, Quality,
};
use super::judge::{Judgement, Problem, Severity, Verdict};

/// Column in which values begin.
const LABEL: usize = 14;
/// Columns of running text; commands are never broken.
const WIDTH: usize = 96;
/// Most GIDs of a port that are printed.
const GIDS_MAX: usize = 8;

/// What mode=raw was run on.
const RAW_UNTRIED: &str = "mode=raw was run on a double of libibverbs, and on no NIC yet: what it \
                           needs is here,\nand `roceway verify` shows what comes of it";

/// The whole text.
pub(super) fn text(report: &Report) -> String {
    let Report { judgement, facts, .. } = report;
    let mut out = Lines::default();
    head(&mut out, report);
    verdicts(&mut out, judgement);
    problems(&mut out, judgement);
    rdma(&mut out, facts, report.tried);
    host(&mut out, &facts.host);
    access(&mut out, facts);
    out.0
}

/// Lines with a label in front.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn title(&mut self, text: &str) {
        self.0 += "\n";
        self.line(0, text);
    }

    fn line(&mut self, indent: usize, text: &str) {
        self.0 += &" ".repeat(indent);
        self.0 += text;
        self.0 += "\n";
    }

    /// A label and a value, which is broken at blanks if it is long.
    fn value(&mut self, indent: usize, label: &str, value: &str) {
        let mut label = format!("{label:<width$} ", width = LABEL.saturating_sub(indent));
        for part in wrapped(value, WIDTH - LABEL) {
            self.line(indent, &format!("{label}{part}"));
            label = " ".repeat(label.chars().count());
        }
    }
}

/// A text in lines of at most `width` columns, unless a word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(last) = lines.last_mut() else { continue };
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn or_unknown(value: Option<&String>) -> &str {
    value.map_or("unknown", String::as_str)
}

fn numbers(list: &[usize]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
}

fn head(out: &mut Lines, report: &Report) {
    let host = &report.facts.host;
    out.line(0, &format!("{}, Linux {}", report.build, or_unknown(host.kernel.as_ref())));
    if !report.tried {
        out.line(0, "a recorded machine: its files were read, and nothing was tried");
    }
}

fn verdicts(out: &mut Lines, judgement: &Judgement) {
    let width = judgement.verdicts.iter().map(|verdict| verdict.device.len()).max().unwrap_or(0);
    for (title, works) in [("would work here", true), ("would not", false)] {
        let chosen: Vec<_> = judgement.verdicts.iter().filter(|v| v.works == works).collect();
        if chosen.is_empty() {
            continue;
        }
        out.title(title);
        for verdict in chosen {
            let marks: Vec<String> = verdict.problems.iter().map(|n| format!("[{n}]")).collect();
            let line = format!("{:<width$}  {}", verdict.device, marks.join(" "));
            out.line(2, line.trim_end());
        }
    }
    let raw = |verdict: &Verdict| verdict.works && verdict.device.ends_with("mode=raw");
    if judgement.verdicts.iter().any(raw) {
        out.line(0, "");
        out.line(0, RAW_UNTRIED);
    }
}

fn problems(out: &mut Lines, judgement: &Judgement) {
    if judgement.problems.is_empty() {
        out.title("no problems");
        return;
    }
    out.title("problems, the worst first");
    for (index, problem) in judgement.problems.iter().enumerate() {
        let Problem { severity, about, what, remedy } = problem;
        let word = match severity {
            Severity::Blocker => "blocks",
            Severity::Warning => "warning:",
            Severity::Note => "note:",
        };
        let mark = format!("[{}]", index + 1);
        // Whom a blocker concerns stands above, with its number.
        let about = match (severity, about.as_slice()) {
            (Severity::Blocker, [first, _, ..]) => format!("{first} and {} more", about.len() - 1),
            _ => about.join(", "),
        };
        for (number, part) in
            wrapped(&format!("{word} {about}: {what}"), WIDTH - 7).iter().enumerate()
        {
            let mark = if number == 0 { mark.as_str() } else { "" };
            out.line(2, &format!("{mark:<4} {part}"));
        }
        for command in remedy {
            out.line(7, &format!("  {command}"));
        }
    }
}

fn rdma(out: &mut Lines, facts: &Facts, is_live: bool) {
    out.title("rdma");
    let library = |library: &Library| match library {
        Library::Loaded => "loaded".to_owned(),
        Library::Missing(error) => error.clone(),
        Library::Unknown => "not looked for".to_owned(),
    };
    out.value(2, "libibverbs", &library(&facts.rdma.library));
    out.value(2, "librdmacm", &library(&facts.rdma.connection_manager));
    if facts.rdma.devices.is_empty() {
        out.value(2, "devices", "none");
    }
    for device in &facts.rdma.devices {
        out.value(2, &device.name, &describe(device));
        for port in &device.ports {
            ports(out, facts, port);
        }
        if let Some(capabilities) = &device.capabilities {
            out.value(4, "claims", &can(capabilities));
        }
    }
    if let (true, Some(device)) = (is_live, facts.rdma.devices.first()) {
        out.value(2, "by use", &format!("roceway verify rdma:{} tries the claims", device.name));
    }
}

fn describe(device: &Device) -> String {
    let mut parts = vec![or_unknown(device.driver.as_ref()).to_owned()];
    parts.push(match &device.function {
        Function::Unknown => "of an unknown bus".to_owned(),
        Function::Software { parent: Some(parent) } => format!("software over {parent}"),
        Function::Software { parent: None } => "software".to_owned(),
        Function::Physical { address, virtual_functions: 0 } => {
            format!("physical function {address}")
        }
        Function::Physical { address, virtual_functions } => {
            format!("physical function {address} with {virtual_functions} virtual ones")
        }
        Function::Virtual { address, parent: Some(parent), .. } => {
            format!("virtual function {address} of {parent}")
        }
        Function::Virtual { address, .. } => format!("virtual function {address}"),
        Function::Auxiliary { address } => format!("auxiliary function {address}"),
    });
    parts.extend(device.node.map(|node| format!("NUMA node {node}")));
    let board = device.board.as_ref().map(|board| format!(" ({board})")).unwrap_or_default();
    parts.extend(device.firmware.as_ref().map(|version| format!("firmware {version}{board}")));
    parts.extend(device.link.as_ref().map(|link| format!("PCIe {} x{}", link.speed, link.width)));
    parts.join(", ")
}

fn ports(out: &mut Lines, facts: &Facts, port: &Port) {
    let mut parts = vec![
        format!("{} ({})", or_unknown(port.state.as_ref()), or_unknown(port.physical.as_ref())),
        or_unknown(port.link_layer.as_ref()).to_owned(),
    ];
    parts.extend(port.rate.clone());
    parts.extend(port.active_mtu.map(|mtu| format!("path MTU {mtu}")));
    parts.extend(port.traffic_class.as_ref().map(|class| format!("traffic class {class}")));
    out.value(4, &format!("port {}", port.number), &parts.join(", "));
    if let Some(name) = &port.interface {
        let found = facts.interfaces.iter().find(|interface| interface.name == *name);
        let told = |found: &Interface| interface(facts, found);
        let text = found.map_or_else(|| "not of this namespace".to_owned(), told);
        out.value(4, "interface", &format!("{name}: {text}"));
    }
    for gid in port.gids.iter().take(GIDS_MAX) {
        let chosen = port.gid_choice.as_ref().and_then(|choice| choice.index) == Some(gid.index);
        let mark = if chosen { "; the one to use" } else { "" };
        out.value(4, &format!("gid {}", gid.index), &(describe_gid(gid) + mark));
    }
    if port.gids.len() > GIDS_MAX {
        let more = port.gids.len() - GIDS_MAX;
        out.value(4, "gids", &format!("{more} more; --json has them all"));
    }
    if port.counters > 0 {
        let moved: Vec<String> =
            port.moved.iter().map(|m| format!("{} +{}", m.name, m.by)).collect();
        let text = match moved.is_empty() {
            true => format!("none of {} counters within a second", port.counters),
            false => moved.join(", "),
        };
        out.value(4, "moved", &text);
    }
}

fn describe_gid(gid: &Gid) -> String {
    let address =
        gid.address.to_ipv4_mapped().map_or_else(|| gid.address.to_string(), |v4| v4.to_string());
    let place = gid.interface.as_deref().unwrap_or("no interface of this namespace");
    format!("{address}, {}, {place}", or_unknown(gid.kind.as_ref()))
}

fn interface(facts: &Facts, interface: &Interface) -> String {
    let mut parts = vec![match interface.up {
        Some(true) => format!("up ({})", or_unknown(interface.operstate.as_ref())),
        Some(false) => "switched off".to_owned(),
        None => "unknown state".to_owned(),
    }];
    parts.extend(interface.mtu.map(|mtu| format!("MTU {mtu}")));
    parts.extend(interface.speed_mbit.map(|speed| format!("{speed} Mbit/s")));
    parts.extend(interface.bond_mode.as_ref().map(|mode| format!("bond of mode {mode}")));
    parts.extend(interface.kind.iter().filter(|kind| *kind != "bond").cloned());
    if !interface.uppers.is_empty() {
        let uppers: Vec<String> = interface.uppers.iter().map(|name| upper(facts, name)).collect();
        parts.push(format!("under {}", uppers.join(", ")));
    }
    parts.extend(interface.quality.iter().flat_map(quality));
    parts.join(", ")
}

/// What lies upon an interface: its name, and what it is.
fn upper(facts: &Facts, name: &str) -> String {
    let found = facts.interfaces.iter().find(|interface| interface.name == name);
    let kind = found.and_then(|found| match (&found.bond_mode, &found.kind) {
        (Some(mode), _) => Some(format!("bond of mode {mode}")),
        (None, kind) => kind.clone(),
    });
    kind.map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"))
}

fn quality(quality: &Quality) -> Vec<String> {
    let list = |list: &Vec<u8>| {
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
    };
    let trust = |dscp: bool| format!("trusts {}", if dscp { "DSCP" } else { "VLAN priority" });
    let mut parts: Vec<String> = quality.trusts_dscp.map(trust).into_iter().collect();
    parts.extend(quality.flow_control.as_ref().map(|on| format!("flow control on {}", list(on))));
    parts.extend(quality.congestion_notification.as_ref().map(|on| format!("ECN on {}", list(on))));
    parts
}

fn can(can: &Capabilities) -> String {
    let mut parts = Vec::new();
    let mut lacks = Vec::new();
    for (name, has) in [
        ("RAW_PACKET", can.raw_packet),
        ("flow rules", can.steering),
        ("raw checksums", can.raw_checksum),
        ("TSO", can.tso_max > 0),
        ("RSS", can.rss),
        ("shared receive queues", can.srq_max > 0),
    ] {
        if has { parts.push(name.to_owned()) } else { lacks.push(name) }
    }
    parts.extend((can.tso_max > 0).then(|| format!("segments up to {} bytes", can.tso_max)));
    parts.extend(can.inline_max.map(|bytes| format!("inline {bytes} bytes")));
    parts.push(format!("{} SGEs ({} shared)", can.sge_max, can.srq_sge_max));
    parts.push(format!("{} queue pairs of {}", can.qp_max, can.qp_wr_max));
    parts.push(format!("{} address handles", can.ah_max));
    let mut text = parts.join(", ");
    if !lacks.is_empty() {
        let _ = write!(text, "; not {}", lacks.join(", "));
    }
    text
}

fn host(out: &mut Lines, host: &Host) {
    out.title("host");
    let online = or_unknown(host.online.as_ref());
    let cpu = or_unknown(host.cpu.as_ref());
    out.value(2, "cpus", &format!("{cpu}, {online} online, isolated {}", numbers(&host.isolated)));
    if let Some(worker) = &host.worker {
        let mut text = format!("would take cpu {} of NUMA node {}", worker.cpu, worker.node);
        text += &match worker.siblings.as_slice() {
            [] => ", no SMT sibling".to_owned(),
            siblings => format!(", SMT sibling {}", numbers(siblings)),
        };
        if let Some(governor) = &worker.governor {
            let _ = write!(text, ", governor {governor}");
        }
        if host.nohz_full.contains(&worker.cpu) {
            text += ", no timer tick";
        }
        out.value(2, "worker", &text);
    }
    let quota = host.quota.as_ref().map(|quota| format!("{:.1} cpus", quota.cpus));
    out.value(2, "quota", &quota.unwrap_or_else(|| "none".to_owned()));
    let memlock = match host.memlock {
        Some(MemoryLock::Unlimited) => "locked without limit".to_owned(),
        Some(MemoryLock::Bytes { soft, .. }) => format!("locked up to {} KiB", soft / 1024),
        None => "unknown limit of locked memory".to_owned(),
    };
    let mut parts = vec![memlock];
    let reserved: Vec<_> = host.huge_pages.iter().filter(|pages| pages.total > 0).collect();
    if reserved.is_empty() {
        parts.push("no huge pages reserved".to_owned());
    }
    for pages in reserved {
        let size = pages.size_kib;
        parts.push(format!("{} of {} huge pages of {size} KiB free", pages.free, pages.total));
    }
    parts.extend(host.transparent_huge_pages.as_ref().map(|m| format!("transparent ones {m}")));
    out.value(2, "memory", &parts.join(", "));
}

fn access(out: &mut Lines, facts: &Facts) {
    let Access { privileges, namespaces, infiniband, tun, modules, .. } = &facts.access;
    if let Some(privileges) = privileges {
        let has = |name, capability| {
            format!("{name} {}", if privileges.has(capability) { "yes" } else { "no" })
        };
        let mut parts = vec![format!("uid {}", privileges.uid)];
        parts.push(has("CAP_NET_ADMIN", CAP_NET_ADMIN));
        parts.push(has("CAP_NET_RAW", CAP_NET_RAW));
        parts.push(has("CAP_IPC_LOCK", CAP_IPC_LOCK));
        if privileges.initial_user_namespace == Some(false) {
            parts.push("in a user namespace".to_owned());
        }
        out.value(2, "rights", &parts.join(", "));
    }
    out.value(2, "namespaces", &describe_namespaces(namespaces));
    let nodes = infiniband.iter().chain(tun).map(|node| match &node.error {
        None => format!("{} opens", node.path),
        Some(error) => format!("{}: {error}", node.path),
    });
    let nodes: Vec<String> = nodes.collect();
    let none = "neither /dev/infiniband nor /dev/net/tun".to_owned();
    out.value(2, "files", &if nodes.is_empty() { none } else { nodes.join(", ") });
    let loaded = modules.iter().filter(|module| module.loaded);
    let loaded: Vec<&str> = loaded.map(|module| module.name.as_str()).collect();
    let could = modules.iter().filter(|module| !module.loaded && module.available == Some(true));
    let could: Vec<&str> = could.map(|module| module.name.as_str()).collect();
    let mut text = if loaded.is_empty() { "none is loaded".to_owned() } else { loaded.join(" ") };
    if !could.is_empty() {
        let _ = write!(text, "; could be loaded: {}", could.join(" "));
    }
    out.value(2, "modules", &text);
}

fn describe_namespaces(namespaces: &Namespaces) -> String {
    let network = or_unknown(namespaces.network.as_ref());
    let place = match namespaces.network_initial {
        Some(true) => " (process 1's)",
        Some(false) => " (not process 1's)",
        None => "",
    };
    let shared = match namespaces.rdma_shared {
        Some(true) => ", RDMA devices shared by all",
        Some(false) => ", RDMA devices of one each",
        None => "",
    };
    format!("{network}{place}{shared}")
}
