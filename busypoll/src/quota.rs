//! The CPU time that the control groups of this process allow, cgroup v2 and v1.

use std::fs;
use std::path::{Path, PathBuf};

/// CPU time that a control group allows.
#[derive(Clone, PartialEq, Debug)]
pub struct Quota {
    /// In CPUs.
    pub cpus: f64,
    /// The file that says so.
    pub file: PathBuf,
}

/// The smallest quota among this process's group and those above it; none if unlimited.
pub(crate) fn cgroup_quota(root: &Path) -> Option<Quota> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut smallest: Option<Quota> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let mounts: &[&str] = match controllers {
            "" => &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
            list if list.split(',').any(|name| name == "cpu") => {
                &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
            }
            _ => continue,
        };
        for mount in mounts {
            for folder in upward(&root.join(mount), group) {
                let quota = quota_v2(&folder).or_else(|| quota_v1(&folder));
                smallest = match (smallest, quota) {
                    (Some(one), Some(other)) if other.cpus < one.cpus => Some(other),
                    (one, other) => one.or(other),
                };
            }
        }
    }
    smallest
}

/// The folder of `group` below `mount`, and those above it down to `mount` itself.
fn upward(mount: &Path, group: &str) -> Vec<PathBuf> {
    let full = mount.join(group.trim_start_matches('/'));
    full.ancestors().take_while(|path| path.starts_with(mount)).map(Path::to_path_buf).collect()
}

/// `cpu.max`: `quota period` or `max period`, in microseconds.
fn quota_v2(folder: &Path) -> Option<Quota> {
    let file = folder.join("cpu.max");
    let text = fs::read_to_string(&file).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(Quota { cpus: ratio(quota, period)?, file })
}

/// `cpu.cfs_quota_us` (-1 is none) and `cpu.cfs_period_us`.
fn quota_v1(folder: &Path) -> Option<Quota> {
    let file = folder.join("cpu.cfs_quota_us");
    let quota = fs::read_to_string(&file).ok()?;
    let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
    Some(Quota { cpus: ratio(quota.trim(), period.trim())?, file })
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u32>().ok()?, period.parse::<u32>().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}
