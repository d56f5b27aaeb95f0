//! Starting a worker: device, memory, stack, keys.

use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

use roceway_rdma_virtio::nic::any::AnyNic;
use roceway_rdma_virtio::nic::{Capabilities, Nic};
use roceway_rdma_virtio::virtio::features::Features;
use roceway_rdma_virtio::virtio::interface::{LARGE_PACKET_LEN, NetInterface};
use roceway_stack::frame::Offloads;
use roceway_stack::ip::{InterfaceAddress, IpConfig, StaticRoute};
use roceway_stack::stack::{Stack, StackConfig, StackKeys};
use roceway_stack::time::Instant;

use crate::capture::Capture;
use crate::config::WorkerConfig;
use crate::core::Core;
use crate::error::StartError;
use crate::offload::OffloadsInUse;
use crate::port::Port;

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| StartError::System { call: "read /dev/urandom", source })?;
    Ok(bytes)
}

/// Joins a NIC and a configuration to a core.
pub(crate) fn start(nic: AnyNic, config: &WorkerConfig, now: u64) -> Result<Core, StartError> {
    // Together with `now`: what follows takes milliseconds.
    let wall = SystemTime::now();
    if config.addresses.is_empty() {
        return Err(StartError::NoAddress);
    }
    let capabilities = nic.capabilities().clone();
    // A link between hosts, which is up when they have found each other.
    let meets_hosts = matches!(nic, AnyNic::Soft(_) | AnyNic::Rdma(_));
    config.offloads.check().map_err(StartError::Offloads)?;
    let wish = match nic {
        AnyNic::Rdma(_) => {
            let sges = u32::from(capabilities.max_recv_sge);
            let room = config.memory.receive_len.saturating_mul(sges);
            config.offloads.alike(room >= LARGE_PACKET_LEN)
        }
        _ => config.offloads,
    };
    let wanted = wish.for_device(&capabilities);
    let queue_size = config.queue_size(nic.receive_buffers(config.memory.receive_len));
    let mut interface = NetInterface::new(nic, &config.memory, wanted, queue_size)?;
    let features = interface.features();
    let native = features.and(interface.native());
    let tx_checksum = native.has(Features::CSUM);
    // The device half cuts where the NIC only completes checksums. Where it does not, the stack
    // cuts: it knows the sum of a segment's bytes since it copied them, and nobody else does.
    let large = |tso| features.has(tso) && (tx_checksum || native.has(tso));
    let offloads = Offloads {
        // What the NIC does not do itself the stack does better than the device half, which would
        // need a copy for it. Of large frames the device half completes each segment in any case.
        tx_checksum,
        tso4: large(Features::HOST_TSO4),
        tso6: large(Features::HOST_TSO6),
        tso_ecn: features.has(Features::HOST_ECN),
        uso: features.has(Features::HOST_USO),
    };
    let now = Instant::from_nanos(now);
    let stack_config = StackConfig {
        ip: ip_config(&capabilities, config)?,
        tcp: config.tcp.clone(),
        udp: config.udp.clone(),
        offloads,
        worker: config.worker,
    };
    let keys = StackKeys { ip: random()?, udp: random()?, tcp: random()? };
    let mut stack = Stack::new(stack_config, &keys, now)?;
    if meets_hosts {
        stack.on_link_down(now);
    }
    for group in stack.ip().link_groups() {
        interface.nic_mut().join(group)?;
    }
    let in_use = OffloadsInUse::new(config.offloads, features, interface.native());
    let mut port = Port::new(interface, config.receive_low(), config.small_low());
    port.gro = config.offloads.gro();
    port.checksums_by_stack = !offloads.tx_checksum;
    port.capture = capture(config, &capabilities.name, (now, wall))?;
    Ok(Core::new((stack, in_use), port, now))
}

fn capture(
    config: &WorkerConfig,
    device: &str,
    times: (Instant, SystemTime),
) -> Result<Option<Box<Capture>>, StartError> {
    let Some(path) = &config.capture else { return Ok(None) };
    match Capture::create(path, device, times) {
        Ok(capture) => Ok(Some(Box::new(capture))),
        Err(source) => Err(StartError::Capture { path: path.display().to_string(), source }),
    }
}

fn ip_config(capabilities: &Capabilities, config: &WorkerConfig) -> Result<IpConfig, StartError> {
    let mac = match config.mac.or(capabilities.mac) {
        Some(mac) => mac,
        None => random_mac()?,
    };
    let addresses: Vec<InterfaceAddress> = config
        .addresses
        .iter()
        .map(|prefix| InterfaceAddress { address: prefix.address, prefix_len: prefix.length })
        .collect();
    let mut ip = IpConfig::new(mac, &addresses);
    ip.mtu = config.mtu.unwrap_or(capabilities.mtu).min(capabilities.mtu);
    ip.routes =
        config.gateways.iter().map(|&gateway| StaticRoute::default_through(gateway)).collect();
    Ok(ip)
}

/// A locally administered unicast address (IEEE 802, section 8.4).
fn random_mac() -> Result<[u8; 6], StartError> {
    let mut mac: [u8; 6] = random()?;
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Ok(mac)
}
