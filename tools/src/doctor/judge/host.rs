//! What slows a worker down that no device is to blame for.

use super::super::facts::{Facts, WorkerCpu};
use super::remedy::kernel_argument;
use super::{Problem, Severity};

/// The host's problems.
pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(quota(facts));
    if let Some(worker) = &facts.host.worker {
        problems.extend(cpus(facts, worker));
        problems.extend(governor(worker));
        problems.extend(isolation(facts, worker));
        problems.extend(siblings(worker));
    }
    problems.extend(huge_pages(facts));
    problems.extend(untold(facts));
    problems.extend(foreign_sysfs(facts));
    problems.extend(skipped(facts));
    problems
}

fn quota(facts: &Facts) -> Option<Problem> {
    let quota = facts.host.quota.as_ref()?;
    let what = format!(
        "the control group allows {:.1} cpus: a worker that polls is stopped for milliseconds when \
         they are spent",
        quota.cpus
    );
    let none = if quota.file.ends_with("cpu.max") { "max" } else { "-1" };
    let remedy = format!("echo {none} | sudo tee {}", quota.file);
    Some(Problem::new(Severity::Warning, "cpu", what).with(remedy))
}

fn cpus(facts: &Facts, worker: &WorkerCpu) -> Option<Problem> {
    let allowed: usize = facts.host.nodes.iter().map(|node| node.cpus.len()).sum();
    let what =
        format!("only cpu {} is at hand: worker, kernel and peers take turns on it", worker.cpu);
    (allowed == 1).then(|| Problem::new(Severity::Warning, "cpu", what))
}

fn governor(worker: &WorkerCpu) -> Option<Problem> {
    let governor = worker.governor.as_deref().filter(|name| *name != "performance")?;
    let what = format!("cpu {} has the governor {governor}: it may run slowly", worker.cpu);
    let remedy =
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
    Some(Problem::new(Severity::Warning, "cpu", what).with(remedy))
}

fn isolation(facts: &Facts, worker: &WorkerCpu) -> Option<Problem> {
    let cpu = worker.cpu;
    if facts.host.isolated.contains(&cpu) {
        return None;
    }
    // A cpu must be left for the rest of the system.
    let allowed: usize = facts.host.nodes.iter().map(|node| node.cpus.len()).sum();
    if allowed < 2 {
        return None;
    }
    let what = format!("cpu {cpu}, which a worker would take, is not isolated from other work");
    let arguments = format!("isolcpus={cpu} nohz_full={cpu} rcu_nocbs={cpu}");
    let remedy = kernel_argument(facts, &arguments);
    Some(Problem::new(Severity::Note, "cpu", what).with(remedy))
}

fn siblings(worker: &WorkerCpu) -> Option<Problem> {
    let first = worker.siblings.first()?;
    let list: Vec<String> = worker.siblings.iter().map(ToString::to_string).collect();
    let what = format!(
        "cpu {} shares its core with cpu {}: work there slows the worker down",
        worker.cpu,
        list.join(",")
    );
    let remedy = format!("echo 0 | sudo tee /sys/devices/system/cpu/cpu{first}/online");
    Some(Problem::new(Severity::Note, "cpu", what).with(remedy))
}

fn huge_pages(facts: &Facts) -> Option<Problem> {
    const SIZE_KIB: u64 = 2048;
    let pages = facts.host.huge_pages.iter().find(|pages| pages.size_kib == SIZE_KIB)?;
    if pages.free > 0 {
        return None;
    }
    let what = match pages.total {
        0 => "no huge pages are reserved: memory.huge_pages=on gets ordinary ones".to_owned(),
        total => {
            format!("all {total} huge pages are taken: memory.huge_pages=on gets ordinary ones")
        }
    };
    let wanted = pages.total + 16;
    let remedy = format!(
        "echo {wanted} | sudo tee /sys/kernel/mm/hugepages/hugepages-{SIZE_KIB}kB/nr_hugepages"
    );
    Some(Problem::new(Severity::Note, "memory", what).with(remedy))
}

/// File systems in which the kernel would tell, and does not.
fn untold(facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if facts.access.privileges.is_none() {
        let what = "/proc tells nothing: rights and limits are unknown, and taken as given";
        let problem = Problem::new(Severity::Warning, "doctor", what);
        problems.push(problem.with("sudo mount -t proc proc /proc"));
    }
    if facts.host.online.is_none() {
        let what = "/sys tells nothing: devices, cpus and interfaces are unknown";
        let problem = Problem::new(Severity::Warning, "doctor", what);
        problems.push(problem.with("sudo mount -t sysfs sysfs /sys"));
    }
    problems
}

fn foreign_sysfs(facts: &Facts) -> Option<Problem> {
    if facts.access.namespaces.sysfs_foreign != Some(true) {
        return None;
    }
    let what = "/sys shows another network namespace: what is said of interfaces is not ours";
    let remedy = "sudo unshare --mount sh -c 'mount -t sysfs sysfs /sys && exec roceway doctor'";
    Some(Problem::new(Severity::Warning, "network namespace", what).with(remedy))
}

fn skipped(facts: &Facts) -> Option<Problem> {
    let first = facts.skipped.first()?;
    let count = facts.skipped.len();
    let what = format!("{count} facts could not be read, the first {}: {}", first.path, first.why);
    Some(Problem::new(Severity::Note, "doctor", what))
}
