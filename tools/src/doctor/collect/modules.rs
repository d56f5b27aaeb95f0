//! Kernel modules that matter: whether they are loaded, and whether they could be.
//!
//! Loads nothing.

use super::super::facts::Module;
use super::super::sysfs::Sysfs;

/// The modules: RDMA's core, its user interfaces, the drivers, and what `tap:` and `packet:` need.
const MODULES: [&str; 12] = [
    "ib_core",
    "ib_uverbs",
    "rdma_cm",
    "rdma_ucm",
    "rdma_rxe",
    "mlx5_core",
    "mlx5_ib",
    "bnxt_re",
    "irdma",
    "qedr",
    "tun",
    "af_packet",
];

/// The modules that matter and are loaded, or that the running kernel's package has.
pub(super) fn read(sysfs: &Sysfs) -> Vec<Module> {
    let release = sysfs.value("proc/sys/kernel/osrelease").unwrap_or_default();
    // A release with a slash would lead elsewhere.
    let folder = format!("lib/modules/{}", release.replace('/', ""));
    let known = !release.is_empty() && sysfs.exists(&folder);
    let list = |name: &str| match known {
        true => sysfs.text(&format!("{folder}/{name}")).unwrap_or_default(),
        false => String::new(),
    };
    let (loadable, builtin) = (list("modules.dep"), list("modules.builtin"));
    let module = |name: &str| {
        let is_builtin = lists(&builtin, name);
        Module {
            name: name.to_owned(),
            loaded: is_builtin || sysfs.exists(&format!("sys/module/{name}")),
            available: known.then(|| is_builtin || lists(&loadable, name)),
        }
    };
    MODULES.iter().map(|name| module(name)).collect()
}

/// Whether a list of paths such as `kernel/drivers/net/tun.ko.xz: ...` has the module.
fn lists(list: &str, module: &str) -> bool {
    let path = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
    list.lines().any(|line| {
        let path = path(line);
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(name, _)| name.replace('-', "_") == module)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tree::Tree;

    #[test]
    fn modules_are_loaded_or_available_or_unknown() {
        let tree = Tree::of(
            "proc/sys/kernel/osrelease = 6.1.0-x
             lib/modules/6.1.0-x/modules.dep = a/rdma_rxe.ko.xz: a/tun.ko\\na/irdma.ko:
             lib/modules/6.1.0-x/modules.builtin = kernel/net/af-packet.ko
             sys/module/ib_core/",
        );
        let all = read(&Sysfs::below(tree.root()));
        let find = |name: &str| all.iter().find(|module| module.name == name).unwrap();
        for (name, loaded, available) in [
            ("ib_core", true, Some(false)),
            ("rdma_rxe", false, Some(true)),
            ("irdma", false, Some(true)),
            ("af_packet", true, Some(true)),
            // It is only what another one needs.
            ("tun", false, Some(false)),
        ] {
            let module = find(name);
            assert_eq!((module.loaded, module.available), (loaded, available), "{name}");
        }
        let bare = Tree::of("proc/sys/kernel/osrelease = ../../etc");
        let all = read(&Sysfs::below(bare.root()));
        assert!(all.iter().all(|module| !module.loaded && module.available.is_none()));
    }
}
