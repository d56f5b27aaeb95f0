//! The choice of cores over machines written as folders.

use super::*;
use std::path::PathBuf;

/// A folder that is removed in the end.
struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Machine {
    fn new(name: &str) -> Machine {
        let path = std::env::temp_dir().join(format!("roceway-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Machine(path)
    }

    fn file(self, path: &str, text: &str) -> Machine {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// CPU numbers with package and core.
    fn cpus(mut self, cpus: &[(usize, usize, usize)]) -> Machine {
        for (cpu, package, core) in cpus {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            self = self
                .file(&format!("{folder}/physical_package_id"), &format!("{package}\n"))
                .file(&format!("{folder}/core_id"), &format!("{core}\n"));
        }
        self
    }

    fn read(&self, allowed: &[usize]) -> Topology {
        let allowed: Vec<Cpu> = allowed.iter().map(|&cpu| Cpu(cpu)).collect();
        Topology::read_below(&self.0, &allowed)
    }
}

fn texts(choice: &Choice) -> Vec<String> {
    choice.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn siblings_are_avoided_where_there_are_cores() {
    let machine = Machine::new("smt").cpus(&[(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 0, 1)]);
    let choice = machine.read(&[0, 1, 2, 3]).choose(2);
    assert_eq!(choice, Choice { cpus: vec![Cpu(3), Cpu(1)], warnings: vec![] });
    let choice = machine.read(&[2, 3]).choose(2);
    assert_eq!(choice.cpus, [Cpu(3), Cpu(2)]);
    assert_eq!(texts(&choice), ["SMT siblings: cpus 3 and 2 are one physical core"]);
}

#[test]
fn two_cores_of_one_node_come_before_two_nodes() {
    let machine = Machine::new("numa")
        .cpus(&[(0, 0, 0), (1, 0, 1), (2, 1, 0)])
        .file("sys/devices/system/node/node0/cpulist", "0-1\n")
        .file("sys/devices/system/node/node1/cpulist", "2\n");
    let topology = machine.read(&[0, 1, 2]);
    assert_eq!(topology.choose(2), Choice { cpus: vec![Cpu(1), Cpu(0)], warnings: vec![] });
    assert_eq!(topology.warnings(&[Cpu(0), Cpu(2)]), [Warning::Nodes(Cpu(0), Cpu(2))]);
    assert_eq!(topology.choose(3).warnings.len(), 2);
}

#[test]
fn isolated_cores_come_first() {
    let machine = Machine::new("isolated")
        .cpus(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)])
        .file("sys/devices/system/cpu/isolated", "1-2\n");
    assert_eq!(machine.read(&[0, 1, 2, 3]).choose(2).cpus, [Cpu(2), Cpu(1)]);
}

#[test]
fn one_core_is_shared_and_named() {
    let choice = Machine::new("one").read(&[5]).choose(2);
    assert_eq!(choice.cpus, [Cpu(5), Cpu(5)]);
    assert_eq!(texts(&choice), ["only one core: both ends take turns on it, figures mean little"]);
    let none = Machine::new("none").read(&[]).choose(2);
    assert_eq!((none.cpus.len(), none.warnings.len()), (0, 0));
}

#[test]
fn quota_is_the_smallest_on_the_way_up() {
    let v2 = Machine::new("v2")
        .file("proc/self/cgroup", "0::/a/b\n")
        .file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
        .file("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    let warning = &v2.read(&[0, 1]).choose(2).warnings[0];
    assert_eq!(*warning, Warning::Quota { cpus: 1.5 });
    assert!(warning.to_string().starts_with("cgroup quota 1.5 cpus"));
    let v1 = Machine::new("v1")
        .file("proc/self/cgroup", "5:memory:/x\n1:cpu,cpuacct:/c\n0::/\n")
        .file("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n")
        .file("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n")
        .file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_eq!(v1.read(&[0]).quota().map(|quota| quota.cpus), Some(0.5));
    assert_eq!(Machine::new("unlimited").read(&[0]).quota(), None);
}

#[test]
fn lists_of_cpus_are_read_and_garbage_is_left_out() {
    let machine = Machine::new("list").file("list", "0-2,7,x,9-,4-3\n").file("empty", "\n");
    assert_eq!(read_list(&machine.0.join("list")), [0, 1, 2, 7]);
    assert_eq!(read_list(&machine.0.join("empty")), [0; 0]);
}

#[test]
fn this_machine_can_be_read_and_pinned() {
    let choice = Topology::read().choose(2);
    assert_eq!(choice.cpus.len(), 2);
    let cpu = choice.cpus[0];
    std::thread::spawn(move || {
        pin_current_thread(cpu).unwrap();
        assert_eq!(allowed_cpus(), [cpu]);
        want_precise_timers();
        let error = pin_current_thread(Cpu(1_000)).unwrap_err().to_string();
        assert!(error.contains("cannot pin to cpu 1000; this process may use 1 cpus"), "{error}");
    })
    .join()
    .unwrap();
}
