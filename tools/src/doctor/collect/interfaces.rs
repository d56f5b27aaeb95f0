//! Network interfaces, from `/sys/class/net` (the kernel's `sysfs-class-net`).
//!
//! Quality of service is read here where a driver tells it in files; `dcb` asks the kernel for the
//! rest.

use super::super::facts::{Interface, Quality};
use super::super::sysfs::Sysfs;

const CLASS: &str = "sys/class/net";
/// Most interfaces that are looked at.
const INTERFACES_MAX: usize = 1024;
/// `ARPHRD_ETHER` (linux/if_arp.h).
const ETHERNET: u32 = 1;
/// `IFF_UP` (linux/if.h).
const IFF_UP: u32 = 1;

/// The interfaces that sysfs shows.
pub(super) fn read(sysfs: &Sysfs) -> Vec<Interface> {
    // Among them are files such as `bonding_masters`.
    let names = sysfs.names(CLASS).into_iter();
    let names = names.filter(|name| sysfs.path(&format!("{CLASS}/{name}")).is_dir());
    names.take(INTERFACES_MAX).map(|name| interface(sysfs, &name)).collect()
}

fn interface(sysfs: &Sysfs, name: &str) -> Interface {
    let folder = format!("{CLASS}/{name}");
    let file = |file: &str| format!("{folder}/{file}");
    let flags = sysfs.value(&file("flags"));
    let flags = flags.and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    let uevent = sysfs.text(&file("uevent")).unwrap_or_default();
    let entries = sysfs.names(&folder);
    let uppers = entries.iter().filter_map(|entry| entry.strip_prefix("upper_"));
    // `802.3ad 4`
    let bond_mode = sysfs.value(&file("bonding/mode"));
    let bond_mode = bond_mode.and_then(|text| Some(text.split_whitespace().next()?.to_owned()));
    // -1 or an error without a carrier.
    let speed = if entries.iter().any(|entry| entry == "speed") {
        sysfs.number::<i64>(&file("speed"))
    } else {
        None
    };
    Interface {
        name: name.to_owned(),
        ethernet: sysfs.number(&file("type")) == Some(ETHERNET),
        up: flags.map(|flags| flags & IFF_UP != 0),
        operstate: sysfs.value(&file("operstate")),
        mtu: sysfs.number(&file("mtu")),
        speed_mbit: speed.and_then(|speed| u32::try_from(speed).ok()),
        driver: sysfs.link_name(&file("device/driver")),
        bus_address: sysfs.link_name(&file("device")),
        kind: uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(str::to_owned),
        uppers: uppers.map(str::to_owned).collect(),
        bond_mode,
        quality: congestion_notification(sysfs, &folder),
    }
}

/// RoCE ECN as the vendor's own driver packages show it: `ecn/roce_np/enable/N` (who marks) and
/// `ecn/roce_rp/enable/N` (who reacts), a priority each. The kernel's own drivers have no such
/// files.
fn congestion_notification(sysfs: &Sysfs, interface: &str) -> Option<Quality> {
    let side = |name: &str| {
        let folder = format!("{interface}/ecn/{name}/enable");
        let is_on = |priority: &u8| {
            sysfs.number::<u8>(&format!("{folder}/{priority}")).is_some_and(|value| value != 0)
        };
        sysfs.exists(&folder).then(|| (0..8).filter(is_on).collect::<Vec<u8>>())
    };
    let (marks, reacts) = (side("roce_np")?, side("roce_rp")?);
    let both = marks.into_iter().filter(|priority| reacts.contains(priority)).collect();
    Some(Quality { congestion_notification: Some(both), ..Quality::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tree::Tree;

    #[test]
    fn bonds_and_vlans_above_are_found() {
        let tree = Tree::of(include_str!("../../../tests/doctor/mlx5-vf-bond.tree"));
        let all = read(&Sysfs::below(tree.root()));
        let find = |name: &str| all.iter().find(|interface| interface.name == name).unwrap();
        assert_eq!(find("ens1f0").uppers, ["bond0"]);
        assert_eq!(find("ens1f0").driver.as_deref(), Some("mlx5_core"));
        let bond = find("bond0");
        assert_eq!(
            (bond.bond_mode.as_deref(), bond.kind.as_deref()),
            (Some("802.3ad"), Some("bond"))
        );
        assert_eq!(bond.uppers, ["bond0.100"]);
        assert_eq!((find("lo").ethernet, bond.up, bond.mtu), (false, Some(true), Some(1500)));
        assert!(!all.iter().any(|interface| interface.name == "bonding_masters"));
    }

    #[test]
    fn congestion_notification_needs_both_sides() {
        let tree = Tree::of(
            "sys/class/net/e/ecn/roce_np/enable/3 = 1
             sys/class/net/e/ecn/roce_np/enable/4 = 1
             sys/class/net/e/ecn/roce_rp/enable/3 = 1
             sys/class/net/e/ecn/roce_rp/enable/4 = 0
             sys/class/net/plain/mtu = 1500",
        );
        let all = read(&Sysfs::below(tree.root()));
        let on = all[0].quality.as_ref().and_then(|q| q.congestion_notification.clone());
        assert_eq!((on, all[1].quality.clone()), (Some(vec![3]), None));
    }

    #[test]
    fn an_interface_of_garbage_is_an_interface_that_does_not_tell() {
        let tree = Tree::of("sys/class/net/e/mtu = lots\nsys/class/net/e/flags = up");
        tree.bytes("sys/class/net/e/operstate", &[0xff; 5000]);
        let sysfs = Sysfs::below(tree.root());
        let expected = Interface { name: "e".into(), ..Interface::default() };
        assert_eq!(read(&sysfs), [expected]);
        assert_eq!(sysfs.skipped().len(), 2);
    }
}
