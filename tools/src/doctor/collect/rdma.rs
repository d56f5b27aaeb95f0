//! RDMA devices, their ports and their GIDs, from `/sys/class/infiniband` (the kernel's
//! `Documentation/ABI/stable/sysfs-class-infiniband`) and the PCI functions behind them.
//!
//! Never opens a device.

use std::net::Ipv6Addr;

use roceway_runtime::rdma_virtio::nic::spec::DeviceSpec;

use super::super::facts::{Device, Function, Gid, IdleFunction, Library, PcieLink, Port, Rdma};
use super::super::sysfs::Sysfs;
use super::{DEVICES_MAX, GIDS_MAX, PORTS_MAX};

/// The class's folder.
pub(super) const CLASS: &str = "sys/class/infiniband";

/// PCI vendors whose network functions are RDMA NICs, the Ethernet driver that they have, and the
/// module that makes RDMA devices of them. Only drivers that exist for nothing but such NICs.
const RDMA_DRIVERS: [(&str, &str, &str); 5] = [
    ("0x15b3", "mlx5_core", "mlx5_ib"),
    ("0x15b3", "mlx4_core", "mlx4_ib"),
    ("0x14e4", "bnxt_en", "bnxt_re"),
    ("0x8086", "ice", "irdma"),
    ("0x1077", "qede", "qedr"),
];

/// The devices, as far as files tell.
pub(super) fn read(sysfs: &Sysfs) -> Rdma {
    let names = sysfs.names(CLASS).into_iter().take(DEVICES_MAX);
    let devices: Vec<Device> = names.map(|name| device(sysfs, &name)).collect();
    let idle_functions = idle_functions(sysfs, &devices);
    Rdma {
        modes: modes(),
        library: Library::Unknown,
        connection_manager: Library::Unknown,
        devices,
        idle_functions,
    }
}

/// The modes that a device may be given. Nothing is opened to learn them.
fn modes() -> Vec<String> {
    // A wire needs a peer, and bare Ethernet may refuse one.
    let parses = |rest: &str| DeviceSpec::parse(&format!("rdma:DEV,mode={rest}")).is_ok();
    let known = |mode: &&str| parses(mode) || parses(&format!("{mode},peer=192.0.2.1"));
    ["raw", "rc", "ud"].into_iter().filter(known).map(str::to_owned).collect()
}

fn device(sysfs: &Sysfs, name: &str) -> Device {
    let folder = format!("{CLASS}/{name}");
    let bus = format!("{folder}/device");
    let parent = sysfs.value(&format!("{folder}/parent"));
    let driver = software_driver(sysfs, &folder, parent.is_some())
        .or_else(|| sysfs.link_name(&format!("{bus}/driver")));
    let function = function(sysfs, &bus, parent.as_deref());
    let numbers = sysfs.names(&format!("{folder}/ports"));
    let mut numbers: Vec<u32> = numbers.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.truncate(PORTS_MAX);
    // -1: the bus does not say.
    let node = sysfs.number::<i64>(&format!("{bus}/numa_node"));
    let board = ["board_id", "hca_type"];
    Device {
        name: name.to_owned(),
        node_type: sysfs.value(&format!("{folder}/node_type")).map(|text| name_of(&text)),
        driver,
        node: node.and_then(|node| usize::try_from(node).ok()),
        firmware: sysfs.value(&format!("{folder}/fw_ver")).filter(|text| text != "0.0.0"),
        board: board.iter().find_map(|file| sysfs.value(&format!("{folder}/{file}"))),
        uverbs: uverbs(sysfs, name),
        link: matches!(function, Function::Physical { .. }).then(|| link(sysfs, &bus)).flatten(),
        ports: numbers
            .iter()
            .map(|number| port(sysfs, &folder, *number, parent.as_deref()))
            .collect(),
        function,
        capabilities: None,
        verbs_error: None,
    }
}

/// The driver of a device that is software. Of the kernel's software drivers rxe alone names its
/// interface; siw's device type is an RNIC, which is iWARP.
fn software_driver(sysfs: &Sysfs, folder: &str, has_parent: bool) -> Option<String> {
    if has_parent {
        return Some("rdma_rxe".to_owned());
    }
    if sysfs.exists(&format!("{folder}/device")) {
        return None;
    }
    let kind = sysfs.value(&format!("{folder}/node_type"))?;
    kind.starts_with('4').then(|| "siw".to_owned())
}

fn function(sysfs: &Sysfs, bus: &str, parent: Option<&str>) -> Function {
    let Some(address) = sysfs.link_name(bus).filter(|_| parent.is_none()) else {
        let software = parent.is_some() || !sysfs.exists(bus);
        return match software {
            true => Function::Software { parent: parent.map(str::to_owned) },
            false => Function::Unknown,
        };
    };
    if let Some(parent) = sysfs.link_name(&format!("{bus}/physfn")) {
        let physical = format!("{bus}/physfn");
        return Function::Virtual {
            index: virtual_index(sysfs, &physical, &address),
            parent_interface: sysfs.names(&format!("{physical}/net")).into_iter().next(),
            address,
            parent: Some(parent),
        };
    }
    if !sysfs.exists(&format!("{bus}/vendor")) {
        return Function::Auxiliary { address };
    }
    let virtual_functions = sysfs.number(&format!("{bus}/sriov_numvfs"));
    if virtual_functions.is_none() && is_known_virtual(sysfs, bus) {
        return Function::Virtual { address, parent: None, parent_interface: None, index: None };
    }
    Function::Physical { address, virtual_functions: virtual_functions.unwrap_or(0) }
}

/// Whether a function that does not name its physical function, as in a virtual machine, has the
/// device number of a virtual one. mlx5's (Mellanox) are listed in its driver's table.
fn is_known_virtual(sysfs: &Sysfs, bus: &str) -> bool {
    const MELLANOX: [&str; 7] =
        ["0x1012", "0x1014", "0x1016", "0x1018", "0x101a", "0x101c", "0x101e"];
    sysfs.value(&format!("{bus}/vendor")).as_deref() == Some("0x15b3")
        && sysfs
            .value(&format!("{bus}/device"))
            .is_some_and(|number| MELLANOX.contains(&number.as_str()))
}

/// Which of its physical function's virtual functions has this address.
fn virtual_index(sysfs: &Sysfs, physical: &str, address: &str) -> Option<u32> {
    let names = sysfs.names(physical);
    let mut links = names.iter().filter_map(|name| Some((name, name.strip_prefix("virtfn")?)));
    let (_, number) = links.find(|(name, _)| {
        sysfs.link_name(&format!("{physical}/{name}")).as_deref() == Some(address)
    })?;
    number.parse().ok()
}

fn link(sysfs: &Sysfs, bus: &str) -> Option<PcieLink> {
    // `8.0 GT/s PCIe`; older kernels leave the last word out.
    let speed = |file: &str| {
        let text = sysfs.value(&format!("{bus}/{file}"))?;
        Some(text.trim_end_matches(" PCIe").to_owned())
    };
    Some(PcieLink {
        speed: speed("current_link_speed")?,
        width: sysfs.number(&format!("{bus}/current_link_width"))?,
        speed_max: speed("max_link_speed")?,
        width_max: sysfs.number(&format!("{bus}/max_link_width"))?,
    })
}

/// The file below `/dev/infiniband` that belongs to a device.
fn uverbs(sysfs: &Sysfs, device: &str) -> Option<String> {
    const FOLDER: &str = "sys/class/infiniband_verbs";
    let names = sysfs.names(FOLDER);
    let mut candidates = names.into_iter().filter(|name| name.starts_with("uverbs"));
    candidates
        .find(|name| sysfs.value(&format!("{FOLDER}/{name}/ibdev")).as_deref() == Some(device))
}

fn port(sysfs: &Sysfs, device: &str, number: u32, parent: Option<&str>) -> Port {
    let folder = format!("{device}/ports/{number}");
    let value = |name: &str| sysfs.value(&format!("{folder}/{name}"));
    let gids = gids(sysfs, &folder);
    let interface = parent
        .map(str::to_owned)
        .or_else(|| gids.iter().find_map(|gid| gid.interface.clone()))
        .or_else(|| interface_of_port(sysfs, device, number));
    Port {
        number,
        state: value("state").map(|text| name_of(&text)),
        physical: value("phys_state").map(|text| name_of(&text)),
        link_layer: value("link_layer"),
        rate: value("rate"),
        active_mtu: None,
        interface,
        gids,
        gid_choice: None,
        traffic_class: sysfs.value(&format!("{device}/tc/{number}/traffic_class")),
        moved: Vec::new(),
        counters: 0,
        counter_lifespan_ms: sysfs.number(&format!("{folder}/hw_counters/lifespan")),
    }
}

/// `4: ACTIVE` is `ACTIVE`.
fn name_of(text: &str) -> String {
    text.split_once(':').map_or(text, |(_, name)| name).trim().to_owned()
}

/// The interface of a port without GIDs: the bus device's interface with the port's number.
fn interface_of_port(sysfs: &Sysfs, device: &str, number: u32) -> Option<String> {
    let folder = format!("{device}/device/net");
    let names = sysfs.names(&folder);
    if let [only] = names.as_slice() {
        return Some(only.clone());
    }
    let index = number.checked_sub(1)?;
    names
        .into_iter()
        .find(|name| sysfs.number::<u32>(&format!("{folder}/{name}/dev_port")) == Some(index))
}

fn gids(sysfs: &Sysfs, port: &str) -> Vec<Gid> {
    let names = sysfs.names(&format!("{port}/gids"));
    let mut indices: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    indices.sort_unstable();
    let gid = |index: u32| {
        let text = sysfs.value(&format!("{port}/gids/{index}"))?;
        let address: Ipv6Addr = text.parse().ok()?;
        let attribute = |name| sysfs.value(&format!("{port}/gid_attrs/{name}/{index}"));
        // An empty entry is all zero, or has the link-local prefix and no more.
        let empty = address.octets()[8..] == [0; 8];
        let kind = attribute("types");
        (!empty).then(|| Gid { index, address, kind, interface: attribute("ndevs") })
    };
    indices.into_iter().take(GIDS_MAX).filter_map(gid).collect()
}

/// Functions with an RDMA NIC's Ethernet driver and without RDMA device.
fn idle_functions(sysfs: &Sysfs, devices: &[Device]) -> Vec<IdleFunction> {
    let taken: Vec<&str> = devices
        .iter()
        .filter_map(|device| match &device.function {
            Function::Physical { address, .. } | Function::Virtual { address, .. } => {
                Some(address.as_str())
            }
            Function::Unknown | Function::Software { .. } | Function::Auxiliary { .. } => None,
        })
        .collect();
    let mut idle = Vec::new();
    for address in sysfs.names("sys/bus/pci/devices") {
        let folder = format!("sys/bus/pci/devices/{address}");
        // Class 0x02: network controllers.
        let class = sysfs.value(&format!("{folder}/class"));
        if taken.contains(&address.as_str()) || !class.is_some_and(|c| c.starts_with("0x02")) {
            continue;
        }
        let vendor = sysfs.value(&format!("{folder}/vendor")).unwrap_or_default();
        let driver = sysfs.link_name(&format!("{folder}/driver"));
        let known = RDMA_DRIVERS.iter().find(|(of, ethernet, _)| {
            *of == vendor && driver.as_deref().is_none_or(|driver| driver == *ethernet)
        });
        // Without driver only Mellanox's functions are surely RDMA NICs.
        let (true, Some((_, ethernet, module))) = (driver.is_some() || vendor == "0x15b3", known)
        else {
            continue;
        };
        let module = if driver.is_some() { module } else { ethernet };
        idle.push(IdleFunction { address, module: (*module).to_owned(), driver });
    }
    idle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tree::Tree;

    const MLX5: &str = include_str!("../../../tests/doctor/mlx5-vf-bond.tree");
    const RXE: &str = include_str!("../../../tests/doctor/rxe.tree");

    fn read_tree(tree: &Tree) -> Rdma {
        read(&Sysfs::below(tree.root()))
    }

    #[test]
    fn functions_are_told_apart() {
        let rdma = read_tree(&Tree::of(MLX5));
        let names: Vec<_> = rdma.devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["mlx5_2", "mlx5_bond_0"]);
        assert_eq!(
            rdma.devices[0].function,
            Function::Virtual {
                address: "0000:3b:00.2".into(),
                parent: Some("0000:3b:00.0".into()),
                parent_interface: Some("ens1f0".into()),
                index: Some(0),
            }
        );
        assert_eq!(
            rdma.devices[1].function,
            Function::Physical { address: "0000:3b:00.0".into(), virtual_functions: 1 }
        );
        assert_eq!(rdma.devices[1].node, Some(1));
        assert_eq!(rdma.devices[1].uverbs.as_deref(), Some("uverbs0"));
        let link = rdma.devices[1].link.as_ref().expect("a PCI Express link");
        assert_eq!((link.width, link.width_max), (8, 16));
    }

    #[test]
    fn gids_that_are_empty_are_left_out() {
        let rdma = read_tree(&Tree::of(MLX5));
        let port = &rdma.devices[1].ports[0];
        let gids: Vec<_> = port
            .gids
            .iter()
            .map(|gid| (gid.index, gid.address.to_string(), gid.kind.as_deref()))
            .collect();
        let v2 = Some("RoCE v2");
        assert_eq!(
            gids,
            [
                (0, "fe80::e42:a1ff:fe00:1".to_owned(), Some("IB/RoCE v1")),
                (1, "fe80::e42:a1ff:fe00:1".to_owned(), v2),
                (3, "::ffff:10.20.0.1".to_owned(), v2),
            ]
        );
        assert_eq!(port.interface.as_deref(), Some("bond0"));
        assert_eq!(port.state.as_deref(), Some("ACTIVE"));
    }

    #[test]
    fn rxe_is_software_over_its_parent() {
        let rdma = read_tree(&Tree::of(RXE));
        let device = &rdma.devices[0];
        assert_eq!(device.driver.as_deref(), Some("rdma_rxe"));
        assert_eq!(device.function, Function::Software { parent: Some("eth0".into()) });
        assert_eq!((device.node, device.firmware.as_deref()), (None, None));
        assert_eq!(device.ports[0].interface.as_deref(), Some("eth0"));
    }

    #[test]
    fn a_device_that_goes_away_while_it_is_read_leaves_holes() {
        let tree = Tree::of(MLX5);
        tree.remove("sys/devices/pci0000:3a/0000:3b:00.0/infiniband/mlx5_bond_0/ports");
        let rdma = read_tree(&tree);
        assert_eq!(rdma.devices[1].ports, []);
        tree.remove("sys/devices/pci0000:3a/0000:3b:00.0");
        // The class's link is left and points nowhere.
        let rdma = read_tree(&tree);
        assert_eq!(rdma.devices[1].ports, []);
    }
}
