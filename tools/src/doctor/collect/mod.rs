//! From files and trials to [`Facts`]. Collects and never judges; whatever is missing stays empty.
//!
//! Files are read below a root. Trials (opening devices, asking verbs and netlink) say something
//! of the machine that runs this program only, so a recorded tree gets none.

mod dcb;
mod host;
mod interfaces;
mod modules;
mod movement;
mod probe;
mod rdma;
mod verbs;

use std::time::Duration;

use super::facts::Facts;
use super::sysfs::Sysfs;

/// What is being looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Machine {
    /// The one that this program runs on: things are tried, too.
    Live,
    /// A tree that was recorded elsewhere: files are read and nothing else.
    Recorded,
}

/// Most devices, ports and GIDs that are looked at.
const DEVICES_MAX: usize = 64;
const PORTS_MAX: usize = 16;
const GIDS_MAX: usize = 1024;

/// Collects everything; waits `watch` for counters to move if there are any, and tells `progress`
/// so before.
pub(crate) fn facts(
    sysfs: &Sysfs,
    machine: Machine,
    watch: Duration,
    progress: &mut dyn FnMut(&str),
) -> Facts {
    let mut facts = Facts {
        host: host::read(sysfs),
        access: host::access(sysfs),
        rdma: rdma::read(sysfs),
        interfaces: interfaces::read(sysfs),
        skipped: Vec::new(),
    };
    facts.access.modules = modules::read(sysfs);
    probe::nodes(sysfs, &mut facts.access);
    if machine == Machine::Live {
        probe::everything(sysfs, &mut facts.access);
        facts.host.memlock.get_or_insert_with(probe::memlock);
        verbs::ask(&mut facts.rdma);
        for interface in facts.interfaces.iter_mut().filter(|interface| interface.ethernet) {
            dcb::ask(interface);
        }
        let first = movement::sample(sysfs, &facts.rdma);
        if !first.is_empty() {
            progress("watching the counters of the RDMA ports");
            std::thread::sleep(watch);
            movement::compare(&first, &movement::sample(sysfs, &facts.rdma), &mut facts.rdma);
        }
    }
    facts.skipped = sysfs.skipped();
    facts
}
