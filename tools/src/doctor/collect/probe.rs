//! What this process may do, found by doing it: opening character devices, a TAP interface, a
//! packet socket, a pair of soft NICs.
//!
//! Everything that is opened is closed before the function returns, and nothing is left behind: a
//! TAP interface that was made by opening goes with its descriptor.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use roceway_runtime::rdma_virtio::nic::DeviceError;
use roceway_runtime::rdma_virtio::nic::rtnl::setcap_remedy;
use roceway_runtime::rdma_virtio::nic::soft::{SoftNic, SoftOptions};
use roceway_runtime::rdma_virtio::nic::tap::{TapNic, TapOptions};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};

use super::super::facts::{Access, MemoryLock, Node, Probe};
use super::super::sysfs::Sysfs;

/// Name that a remedy gives to a TAP interface.
const TAP_NAME: &str = "rw0";

/// Tries everything that needs this machine.
pub(super) fn everything(sysfs: &Sysfs, access: &mut Access) {
    let soft = SoftNic::pair(&SoftOptions::default());
    access.soft = Some(probe(soft.map(drop)));
    let name = tap_name(sysfs);
    let tap = TapNic::open(&name, &TapOptions::default());
    let mut tap = probe(tap.map(drop));
    tap.remedy = tap.remedy.replace(&name, TAP_NAME);
    access.tap = Some(tap);
    access.packet = Some(packet());
}

/// The character devices that devices of ours need.
pub(super) fn nodes(sysfs: &Sysfs, access: &mut Access) {
    const FOLDER: &str = "dev/infiniband";
    let names = sysfs.names(FOLDER).into_iter();
    let ours = names.filter(|name| name.starts_with("uverbs") || name == "rdma_cm");
    access.infiniband = ours.map(|name| node(sysfs, &format!("{FOLDER}/{name}"))).collect();
    access.tun = sysfs.exists("dev/net/tun").then(|| node(sysfs, "dev/net/tun"));
}

/// Whether a file can be opened for reading and writing. A device group may forbid what the file's
/// mode allows, so only opening tells.
fn node(sysfs: &Sysfs, path: &str) -> Node {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(sysfs.path(path));
    Node { path: format!("/{path}"), error: file.err().map(|error| error.to_string()) }
}

/// A name that no interface has.
fn tap_name(sysfs: &Sysfs) -> String {
    let name = |number: u32| format!("rwdoc{}", number % 100_000);
    let numbers = (0..100).map(|offset| std::process::id().wrapping_add(offset));
    let mut free = numbers.map(name).filter(|n| !sysfs.exists(&format!("sys/class/net/{n}")));
    free.next().unwrap_or_else(|| name(0))
}

fn packet() -> Probe {
    let flags = SocketFlags::CLOEXEC;
    // Protocol 0 receives nothing.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None);
    probe(socket.map(drop).map_err(|errno| {
        let source = io::Error::from(errno);
        let remedy = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => setcap_remedy("cap_net_raw"),
            _ => "the kernel has no AF_PACKET: sudo modprobe af_packet".to_owned(),
        };
        DeviceError { device: "packet:".into(), call: "socket(AF_PACKET)", source, remedy }
    }))
}

/// The limit of locked memory, where procfs does not tell it.
pub(super) fn memlock() -> MemoryLock {
    let limit = getrlimit(Resource::Memlock);
    match limit.current {
        None => MemoryLock::Unlimited,
        Some(soft) => MemoryLock::Bytes { soft, hard: limit.maximum },
    }
}

fn probe(result: Result<(), DeviceError>) -> Probe {
    match result {
        Ok(()) => Probe { error: None, remedy: String::new() },
        Err(error) => {
            Probe { error: Some(format!("{}: {}", error.call, error.source)), remedy: error.remedy }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tree::Tree;
    use std::path::Path;

    #[test]
    fn nodes_that_cannot_be_opened_say_why() {
        // A folder cannot be written to, by root either.
        let tree = Tree::of("dev/infiniband/uverbs0/\ndev/infiniband/rdma_cm = x\ndev/a/");
        let mut access = Access::default();
        nodes(&Sysfs::below(tree.root()), &mut access);
        assert_eq!(access.tun, None);
        let found: Vec<_> =
            access.infiniband.iter().map(|n| (n.path.as_str(), n.error.is_some())).collect();
        assert_eq!(found, [("/dev/infiniband/rdma_cm", false), ("/dev/infiniband/uverbs0", true)]);
    }

    #[test]
    fn trials_leave_nothing_behind() {
        let interfaces = || {
            let mut names: Vec<_> = std::fs::read_dir("/sys/class/net")
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.starts_with("rwdoc"))
                .collect();
            names.sort();
            names
        };
        let before = interfaces();
        let mut access = Access::default();
        everything(&Sysfs::below(Path::new("/")), &mut access);
        assert_eq!(interfaces(), before);
        for probe in [access.soft, access.tap, access.packet] {
            let probe = probe.expect("it was tried");
            assert_eq!(probe.error.is_some(), !probe.remedy.is_empty(), "{probe:?}");
        }
    }
}
