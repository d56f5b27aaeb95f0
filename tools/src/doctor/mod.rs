//! What would work on a machine, what would not, and what mends it.
//!
//! - [`sysfs`]: files below a root, bounded and never believed.
//! - `collect`: from files and trials to [`facts`].
//! - `judge`: from facts to verdicts and problems; pure.
//! - `print`: from both to text; JSON is the same values serialized.
//!
//! Changes nothing on the machine. A machine that tells little, or lies, gets a short report.

mod collect;
mod facts;
mod judge;
mod print;
mod sysfs;
#[cfg(test)]
pub(crate) mod tree;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use facts::Facts;
use judge::{Judgement, Verdict};
use sysfs::Sysfs;

pub(crate) use collect::Machine;

/// How long counters are watched.
const WATCH: Duration = Duration::from_secs(1);

/// A machine, and what is thought of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this form; it rises when a field changes its meaning or goes away.
    version: u32,
    /// Version and profile of this program.
    build: String,
    /// Whether things were tried, or only a recorded machine's files read.
    tried: bool,
    #[serde(flatten)]
    judgement: Judgement,
    facts: Facts,
}

/// Examines a machine whose files lie below `root`. `progress` is told what takes long.
pub(crate) fn examine(root: &Path, machine: Machine, progress: &mut dyn FnMut(&str)) -> Report {
    let facts = collect::facts(&Sysfs::below(root), machine, WATCH, progress);
    Report {
        version: 1,
        build: roceway_perf::host::Host::read().build,
        tried: machine == Machine::Live,
        judgement: judge::judge(&facts),
        facts,
    }
}

impl Report {
    /// For people.
    pub(crate) fn text(&self) -> String {
        print::text(self)
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        // Strings, numbers and lists only: there is nothing that cannot be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Whether anything works of what `wish` names (everything, if none): `soft`, `rdma`,
    /// `rdma:DEV` or `rdma:DEV,mode=rc`, DEV a verbs device or its interface.
    ///
    /// # Errors
    /// If there is nothing of this name: what there is.
    pub(crate) fn works(&self, wish: Option<&str>) -> Result<bool, String> {
        let all = &self.judgement.verdicts;
        let Some(wish) = wish else { return Ok(all.iter().any(|verdict| verdict.works)) };
        let chosen: Vec<&Verdict> =
            all.iter().filter(|verdict| self.is_of(verdict, wish)).collect();
        if chosen.is_empty() {
            let names: Vec<&str> = all.iter().map(|verdict| verdict.device.as_str()).collect();
            return Err(format!("there is no {wish}; there are {}", names.join(" ")));
        }
        Ok(chosen.iter().any(|verdict| verdict.works))
    }

    fn is_of(&self, verdict: &Verdict, wish: &str) -> bool {
        let (kind, name) = wish.split_once(':').unwrap_or((wish, ""));
        let (own_kind, own_name) = verdict.device.split_once(':').unwrap_or((&verdict.device, ""));
        if kind != own_kind {
            return false;
        }
        // The names of the others are examples.
        if kind != "rdma" || name.is_empty() {
            return true;
        }
        let (name, option) = name.split_once(',').map_or((name, None), |(n, o)| (n, Some(o)));
        let (own_name, own_option) = own_name.split_once(',').unwrap_or((own_name, ""));
        option.is_none_or(|option| option == own_option) && self.is_named(own_name, name)
    }

    /// Whether the port `own`, `DEV` or `DEV:PORT`, is called `name`: by that, by its device or by
    /// its interface.
    fn is_named(&self, own: &str, name: &str) -> bool {
        let (device, number) = own.split_once(':').unwrap_or((own, ""));
        if own == name || device == name || name == format!("{own}:1") {
            return true;
        }
        let ports = self.facts.rdma.devices.iter().filter(|found| found.name == device);
        let mut ports = ports.flat_map(|device| &device.ports);
        ports.any(|port| {
            (number.is_empty() || number == port.number.to_string())
                && port.interface.as_deref() == Some(name)
        })
    }
}
