//! The like-for-like block: each contender over a veth pair of its own, equal in MTU and offloads,
//! in a child process with namespaces of its own that vanish with it. Nothing of the host changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::ours::{PAIR, over_veth};
use super::rivals::{Case, Contender, cases, measured, workload};
use super::{Block, Measured, Plan, Told};
use crate::kernel::{Kernel, Waiting};
use crate::local::{kernel_client, with_server};
use crate::report::{Place, Row};
use crate::workload::{Outcome, Workload};

/// The hidden argument that makes a process the child of a comparison.
pub const CHILD_ARGUMENT: &str = "compare-veth";
/// Names of the kernel's pair; the second goes to the server's namespace.
const KERNEL_PAIR: [&str; 2] = ["kclient", "kserver"];
/// Addresses of the kernel's pair.
const KERNEL_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];

/// What the child tells its parent.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    rows: Vec<Row>,
    rounds: Vec<Vec<Row>>,
    notes: Vec<String>,
    workers: Vec<Told>,
    repetitions: usize,
}

/// Runs the block in a child process: this program with `arguments`.
///
/// # Errors
/// Why the block is skipped, in words for the user.
pub fn parent(arguments: &[String]) -> Result<Block, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("the child process does not start: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let first = text.lines().next().unwrap_or("the child process failed");
        return Err(first.trim_start_matches("roceway: ").to_owned());
    }
    let told: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the child process answered nonsense: {error}"))?;
    let Answer { rows, rounds, notes, workers, repetitions } = told;
    Ok(Block { rows, rounds, latencies: Vec::new(), notes, workers, repetitions })
}

/// The child: enters namespaces of its own, runs the block, answers with one document.
///
/// # Errors
/// Why it cannot, in words for the user.
pub fn child(plan: &Plan) -> Result<String, String> {
    let kernel = VethKernel::new()?;
    let [here, there] = PAIR;
    ip(&["link", "add", here, "type", "veth", "peer", "name", there])?;
    for name in PAIR {
        ip(&["link", "set", name, "up"])?;
    }
    let mut contenders = over_veth();
    for case in cases() {
        contenders.push(Box::new(VethRival { case, kernel: kernel.clone() }));
    }
    contenders.extend(super::tap::both());
    // The kernel's row of the direction that only these have.
    for case in super::tap::TESTS.into_iter().filter_map(Case::named) {
        if cases().all(|other| other != case) {
            contenders.push(Box::new(VethRival { case, kernel: kernel.clone() }));
        }
    }
    let block =
        super::run(plan, &mut contenders, &mut || super::look(plan.cores), &mut |_, _, _| ());
    let Block { rows, rounds, notes, workers, repetitions, .. } = block;
    let answer = Answer { rows, rounds, notes, workers, repetitions };
    serde_json::to_string(&answer).map_err(|error| error.to_string())
}

/// Leaves the host's user and network namespaces; only this process is affected.
fn enter_namespaces() -> Result<(), String> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)
        .map_err(|error| format!("user namespaces are not allowed here ({error})"))?;
    // Root inside is this user outside, so that programs started here keep their capabilities.
    for (file, text) in [
        ("uid_map", format!("0 {} 1", user.as_raw())),
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("0 {} 1", group.as_raw())),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("the user namespace cannot be set up ({file}: {error})"))?;
    }
    ip(&["link", "set", "lo", "up"])
}

/// Moves the calling thread into new namespaces.
#[expect(deprecated, reason = "unsafe only for file tables, and those are not asked for here")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

/// Runs the `ip` command of iproute2 in the namespace of the calling thread.
fn ip(arguments: &[&str]) -> Result<(), String> {
    run_command("ip", "iproute2", arguments)
}

fn run_command(command: &str, package: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).output().map_err(|error| {
        format!("the {command} command cannot run ({error}): install {package} for this")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command} {}: {}", arguments.join(" "), text.trim()))
}

/// The kernel's two ends over a veth pair, in namespaces that vanish with this process.
#[derive(Clone, Debug)]
pub struct VethKernel {
    server: ServerNamespace,
    _keeper: Arc<NamespaceKeeper>,
}

impl VethKernel {
    /// Moves this process, which must have no other thread yet, into user and network namespaces
    /// of its own, and makes the pair.
    ///
    /// # Errors
    /// Why it cannot, in words for the user.
    pub fn new() -> Result<VethKernel, String> {
        enter_namespaces()?;
        let (keeper, server) = ServerNamespace::new()?;
        Ok(VethKernel { server, _keeper: Arc::new(keeper) })
    }

    /// Switches checksum and segmentation offload of both ends.
    ///
    /// # Errors
    /// What `ethtool` says.
    pub fn set_offloads(&self, on: bool) -> Result<(), String> {
        let [here, there] = KERNEL_PAIR;
        ethtool(here, on)?;
        let server = self.server.clone();
        std::thread::spawn(move || server.enter().and_then(|()| ethtool(there, on)))
            .join()
            .map_err(|_| "a thread in the server's namespace died".to_owned())?
    }

    /// Runs a test between the two ends. The calling thread is pinned.
    ///
    /// # Errors
    /// Why it failed, in words for the user.
    pub fn run(
        &self,
        plan: &Plan,
        workload: &Workload,
        waiting: Waiting,
    ) -> Result<Outcome, String> {
        let options = workload.buffers;
        let address = SocketAddr::new(KERNEL_ADDRESSES[1].into(), 0);
        let namespace = self.server.clone();
        with_server(
            plan.cores.server,
            address,
            move || {
                namespace.enter().map_err(std::io::Error::other)?;
                Kernel::new(waiting, options)
            },
            |transport, server, stop| server.serve(transport, stop),
            |server| kernel_client(waiting, workload, plan.cores.client, server, &mut |_| ()),
        )
        .map_err(|error| error.to_string())
    }
}

/// Switches an interface's offloads with `ethtool`, in the namespace of the calling thread.
fn ethtool(interface: &str, on: bool) -> Result<(), String> {
    let to = if on { "on" } else { "off" };
    let mut arguments = vec!["-K", interface];
    for feature in ["tx", "rx", "sg", "tso", "gso", "gro"] {
        arguments.extend([feature, to]);
    }
    run_command("ethtool", "ethtool", &arguments)
}

/// A thread that does nothing but keep the server's namespace; it ends when this is dropped.
#[derive(Debug)]
struct NamespaceKeeper {
    _end: mpsc::Sender<()>,
}

/// Lends the server's namespace to a server thread.
#[derive(Clone, Debug)]
struct ServerNamespace {
    path: String,
}

impl ServerNamespace {
    /// Makes the namespace and the pair into it.
    fn new() -> Result<(NamespaceKeeper, Self), String> {
        let (end, ended) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let made = unshare(UnshareFlags::NEWNET).map(|()| rustix::thread::gettid());
            let _ = tell.send(made.map_err(|error| error.to_string()));
            // Until the sender is dropped.
            let _ = ended.recv();
        });
        let thread = told.recv().map_err(|error| error.to_string())??;
        let number = thread.as_raw_nonzero().to_string();
        let namespace = Self { path: format!("/proc/self/task/{number}/ns/net") };
        let [here, there] = KERNEL_PAIR;
        ip(&["link", "add", here, "type", "veth", "peer", "name", there])?;
        ip(&["link", "set", there, "netns", &number])?;
        configure(here, KERNEL_ADDRESSES[0])?;
        let inside = namespace.clone();
        std::thread::spawn(move || {
            inside.enter().and_then(|()| configure(there, KERNEL_ADDRESSES[1]))
        })
        .join()
        .map_err(|_| "configuring the server's namespace failed".to_owned())??;
        Ok((NamespaceKeeper { _end: end }, namespace))
    }

    /// Moves the calling thread into it.
    fn enter(&self) -> Result<(), String> {
        let file = std::fs::File::open(&self.path).map_err(|error| error.to_string())?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
            .map_err(|error| format!("entering the server's namespace: {error}"))
    }
}

fn configure(interface: &str, address: Ipv4Addr) -> Result<(), String> {
    ip(&["addr", "add", &format!("{address}/24"), "dev", interface])?;
    ip(&["link", "set", interface, "up"])
}

/// The kernel over a veth pair, both ends spinning.
#[derive(Debug)]
struct VethRival {
    case: Case,
    kernel: VethKernel,
}

impl Contender for VethRival {
    fn name(&self) -> String {
        format!("kernel spin, veth, {}", self.case.name())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Measured, String> {
        let workload = workload(self.case, plan);
        let outcome = self.kernel.run(plan, &workload, Waiting::Spin)?;
        let mode = Some(Waiting::Spin.to_string());
        let place = Place { stack: "kernel".into(), device: "veth".into(), mode };
        Ok(measured(&workload, &place, outcome))
    }
}
