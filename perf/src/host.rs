//! What the machine and the build are, for the first lines of a report.

use std::fs;

use serde::Serialize;

/// The machine and the build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Host {
    /// The CPU's model name.
    pub cpu: String,
    /// Number of cpus that are online.
    pub cpus: usize,
    /// Kernel name, release and machine.
    pub kernel: String,
    /// Version and profile of this program.
    pub build: String,
}

impl Host {
    /// Reads what the system tells; what it does not tell is called unknown.
    #[must_use]
    pub fn read() -> Self {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let profile = if cfg!(debug_assertions) { "debug: figures mean little" } else { "release" };
        Self {
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cpus: cpus(),
            kernel: [names.sysname(), names.release(), names.machine()].map(text).join(" "),
            build: format!("roceway {} ({profile})", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Number of cpus that are online, whichever of them this thread may use.
#[must_use]
pub fn cpus() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    cpus_in(&text)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// The number of cpus in a list such as `0-3,8`.
fn cpus_in(list: &str) -> Option<usize> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum()
}

/// The model in the text of `/proc/cpuinfo`; processors other than x86 call it by other names.
#[must_use]
pub fn cpu_model(text: &str) -> String {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let mut models =
        fields.filter(|(name, _)| ["model name", "Model", "cpu model"].contains(&name.trim()));
    models.next().map_or_else(|| "unknown".into(), |(_, model)| model.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        for (list, count) in [("0\n", Some(1)), ("0-3,8,10-11", Some(7)), ("", None), ("3-1", None)]
        {
            assert_eq!(cpus_in(list), count, "{list}");
        }
    }

    #[test]
    fn the_model_is_found() {
        let text = "processor\t: 0\nmodel\t\t: 167\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(cpu_model(text), "Some CPU @ 2 GHz");
        assert_eq!(cpu_model(""), "unknown");
    }
}
