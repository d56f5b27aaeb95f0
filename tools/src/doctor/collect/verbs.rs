//! What the RDMA libraries tell: whether they are there, and of each device its capabilities, path
//! MTU and the GID that would be chosen.
//!
//! Opens every device, and makes and destroys a queue pair on each, to learn how much travels
//! inline. Sends nothing.

use roceway_runtime::rdma_virtio::nic::DeviceError;
use roceway_runtime::rdma_virtio::verbs::attributes::{
    DeviceAttributes, LinkLayer, PortAttributes,
};
use roceway_runtime::rdma_virtio::verbs::completion::CompletionQueueOptions;
use roceway_runtime::rdma_virtio::verbs::context::Context;
use roceway_runtime::rdma_virtio::verbs::device;
use roceway_runtime::rdma_virtio::verbs::gid::{self, GidEntry, GidWish, InterfaceAddress};
use roceway_runtime::rdma_virtio::verbs::library;
use roceway_runtime::rdma_virtio::verbs::queue_pair::{
    QueuePairKind, QueuePairOptions, QueueSizes,
};

use super::super::facts::{Capabilities, Device, Gid, GidChoice, Library, Port, Rdma};
use super::{DEVICES_MAX, GIDS_MAX, PORTS_MAX};

/// Most bytes inline that are asked for.
const INLINE_MAX: u32 = 4096;

/// Asks the libraries.
pub(super) fn ask(rdma: &mut Rdma) {
    rdma.library = state(library::library().map(drop));
    if rdma.library != Library::Loaded {
        return;
    }
    rdma.connection_manager = state(library::connect_library().map(drop));
    let found = match device::devices() {
        Ok(found) => found,
        // Without the kernel's part (ENOSYS) the list cannot be read; then sysfs shows no device.
        Err(error) => {
            for device in &mut rdma.devices {
                device.verbs_error = Some(text(&error));
            }
            return;
        }
    };
    let here = gid::interface_addresses().unwrap_or_default();
    for device in &mut rdma.devices {
        match found.iter().find(|other| other.name() == device.name) {
            Some(other) => describe(device, other, &here),
            // The library lists what it has a driver for.
            None => {
                let what = "libibverbs has no driver for it (ibv_devices does not list it)";
                device.verbs_error = Some(what.to_owned());
            }
        }
    }
    // Without sysfs, and with a double of the library, devices are known to the library only.
    for other in found.iter().take(DEVICES_MAX) {
        if !rdma.devices.iter().any(|device| device.name == other.name()) {
            let mut device = Device { name: other.name().to_owned(), ..Device::default() };
            describe(&mut device, other, &here);
            rdma.devices.push(device);
        }
    }
}

fn state(result: Result<(), DeviceError>) -> Library {
    match result {
        Ok(()) => Library::Loaded,
        Err(error) => Library::Missing(error.to_string()),
    }
}

/// An error as a sentence; its remedy comes from the judgement, which knows the distribution.
fn text(error: &DeviceError) -> String {
    match error.call {
        "" => error.source.to_string(),
        call => format!("{call}: {}", error.source),
    }
}

fn describe(device: &mut Device, other: &device::Device, here: &[InterfaceAddress]) {
    let context = match other.open() {
        Ok(context) => context,
        Err(error) => {
            device.verbs_error = Some(text(&error));
            return;
        }
    };
    let attributes = match context.attributes() {
        Ok(attributes) => attributes,
        Err(error) => {
            device.verbs_error = Some(text(&error));
            return;
        }
    };
    if device.ports.is_empty() {
        let count = attributes.ports.min(u32::try_from(PORTS_MAX).unwrap_or(1));
        device.ports = (1..=count).map(|number| Port { number, ..Port::default() }).collect();
    }
    let table = context.gids().unwrap_or_default();
    for port in &mut device.ports {
        describe_port(port, &context, &table, here);
    }
    device.capabilities = Some(capabilities(&context, &attributes));
}

fn describe_port(
    port: &mut Port,
    context: &Context,
    table: &[GidEntry],
    here: &[InterfaceAddress],
) {
    let Ok(number) = u8::try_from(port.number) else { return };
    let Ok(told) = context.port(number) else { return };
    port.active_mtu = told.active_mtu.map(|mtu| mtu.bytes().into());
    fill(port, &told);
    let own = table.iter().filter(|entry| entry.port == number).take(GIDS_MAX);
    if port.gids.is_empty() {
        port.gids = own.map(|entry| gid_of(entry, here)).collect();
        port.interface = port.gids.iter().find_map(|gid| gid.interface.clone());
    }
    let link_layer = told.link_layer;
    let wish = GidWish { port: number, link_layer, interface: None, address: None, index: None };
    port.gid_choice = Some(match gid::choose(table, here, &wish) {
        Ok(entry) => GidChoice { index: Some(entry.index), refusal: None },
        Err(none) => GidChoice { index: None, refusal: Some(none.to_string()) },
    });
}

/// What sysfs did not tell.
fn fill(port: &mut Port, told: &PortAttributes) {
    port.state.get_or_insert_with(|| format!("{:?}", told.state).to_uppercase());
    port.link_layer.get_or_insert_with(|| match told.link_layer {
        LinkLayer::Ethernet => "Ethernet".to_owned(),
        LinkLayer::InfiniBand => "InfiniBand".to_owned(),
        LinkLayer::Other(number) => format!("link layer {number}"),
    });
}

fn gid_of(entry: &GidEntry, here: &[InterfaceAddress]) -> Gid {
    let interface = here.iter().find(|address| address.index == entry.interface);
    Gid {
        index: entry.index,
        address: entry.gid.0.into(),
        kind: Some(entry.kind.to_string()),
        interface: interface.map(|address| address.name.clone()),
    }
}

fn capabilities(context: &Context, told: &DeviceAttributes) -> Capabilities {
    let (raw_packet, raw_permitted) = raw_packet(context, told);
    Capabilities {
        raw_packet,
        raw_permitted,
        tso_max: if told.tso.raw_packet { told.tso.max_bytes } else { 0 },
        raw_checksum: told.raw_checksum,
        steering: told.flow_steering,
        rss: told.rss.raw_packet && told.rss.tables > 0,
        inline_max: inline_max(context),
        sge_max: told.max_sge,
        qp_max: told.max_qp,
        qp_wr_max: told.max_qp_wr,
        srq_max: told.max_srq,
        srq_sge_max: told.max_srq_sge,
        cqe_max: told.max_cqe,
        ah_max: told.max_ah,
    }
}

/// Whether there are RAW_PACKET queue pairs, and whether this process may make one. The number of
/// them that a device tells is 0 with some drivers that have them, so one is made; where that is
/// forbidden, the other claims of raw packets decide.
fn raw_packet(context: &Context, told: &DeviceAttributes) -> (bool, Option<bool>) {
    let sizes = QueueSizes {
        max_send_wr: 1,
        max_recv_wr: 1,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline: 0,
    };
    match pair(context, QueuePairKind::RawPacket, sizes) {
        Ok(_) => (true, Some(true)),
        Err(error) if error.source.raw_os_error() == Some(libc::EPERM) => {
            let claimed = told.max_raw_packet_qp > 0
                || told.raw_packet_flags != 0
                || told.raw_checksum
                || told.tso.raw_packet;
            (claimed, claimed.then_some(false))
        }
        Err(_) => (false, None),
    }
}

/// The longest inline send that a queue pair is made for. No attribute tells it.
fn inline_max(context: &Context) -> Option<u32> {
    let given = |max_inline| {
        let sizes = QueueSizes {
            max_send_wr: 16,
            max_recv_wr: 1,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline,
        };
        pair(context, QueuePairKind::Rc, sizes).ok().map(|sizes| sizes.max_inline)
    };
    let mut best = given(0)?;
    let (mut works, mut fails) = (0, INLINE_MAX + 1);
    while fails - works > 1 {
        let middle = works.midpoint(fails);
        match given(middle) {
            Some(bytes) => {
                best = best.max(bytes);
                works = middle;
            }
            None => fails = middle,
        }
    }
    Some(best)
}

/// Makes a queue pair, and destroys it; returns the sizes that it got.
fn pair(
    context: &Context,
    kind: QueuePairKind,
    sizes: QueueSizes,
) -> Result<QueueSizes, DeviceError> {
    let domain = context.protection_domain()?;
    let options = CompletionQueueOptions { entries: 32, channel: None, token: 0, vector: 0 };
    let queue = context.completion_queue(&options)?;
    let pair = domain.queue_pair(&QueuePairOptions {
        kind,
        send_queue: &queue,
        recv_queue: &queue,
        shared_receive: None,
        sizes,
        max_tso_header: 0,
    })?;
    Ok(pair.sizes())
}
