//! Opening an RDMA device for a wire: device, port, GID, queues, memory; what was chosen is kept
//! as text.
//!
//! Every refusal names what was asked for, what there is, and what to do.

use std::fs::File;
use std::io::{self, Read};

use super::conversation::Watch;
use super::engine::{DatagramPlan, Engine, GRH_LEN, Objects, Parts, PathPlan};
use super::lane::{CONTROL_ENTRIES, LanePlan};
use super::options::RdmaOptions;
use super::receives::{BUFFERS_MAX, ReceivePlan, Receives, Sink};
use super::scratch::Scratch;
use super::sessions::datagrams;
use super::slots::SEND_SGES_MAX;
use super::talk::{Meeting, Talk};
use super::wire::exchange::Mode;
use super::wire::header::HEADER_BYTES;
use super::wire::ledger::Ledger;
use super::wire::macs::Macs;
use super::wire::peers::{Admission, Identity, PEERS_MAX, Peers};
use crate::nic::{Capabilities, DeviceError, Receive, Wire};
use crate::verbs::address::Path;
use crate::verbs::attributes::{DeviceAttributes, PortAttributes, PortState};
use crate::verbs::completion::CompletionQueueOptions;
use crate::verbs::device::{self, Found};
use crate::verbs::gid::{self, Gid, GidEntry, GidWish};
use crate::verbs::queue_pair::QueueSizes;
use crate::verbs::shared_receive::SharedReceiveOptions;

/// Inline bytes asked for: a header and a small frame.
pub(super) const INLINE_MAX: u32 = 220;
/// Shortest buffer that the sizes reckon with.
const BUFFER_LEN: u32 = 4096;

/// What was chosen, by name, for people.
pub type Settings = Vec<(&'static str, String)>;

/// An opened device, not yet a NIC.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) capabilities: Capabilities,
    pub(super) settings: Settings,
}

pub(super) fn refuse(device: &str, call: &'static str, what: String, remedy: &str) -> DeviceError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, what);
    DeviceError { device: device.to_owned(), call, source, remedy: remedy.to_owned() }
}

pub(super) fn random(device: &str) -> Result<u64, DeviceError> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| DeviceError {
        device: device.to_owned(),
        call: "read /dev/urandom",
        source,
        remedy: String::new(),
    })?;
    Ok(u64::from_ne_bytes(bytes) | 1)
}

/// A hardware address that stays the same from start to start: made of GID and port.
fn stable_mac(gid: Gid, port: u16) -> [u8; 6] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in gid.0.into_iter().chain(port.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [.., b1, b2, b3, b4, b5] = (hash ^ hash >> 40).to_be_bytes();
    [0x02, b1, b2, b3, b4, b5]
}

/// What the device is, before anything is made on it.
struct Survey {
    device: String,
    mode: Mode,
    found: Found,
    attributes: DeviceAttributes,
    port: PortAttributes,
    gid: GidEntry,
    wish: GidWish,
    mtu: u16,
    message_max: u32,
    receive_sges: u16,
    send_sges: u16,
}

/// Opens `name` as a wire.
pub(super) fn open(name: &str, options: &RdmaOptions) -> Result<Opened, DeviceError> {
    let device = format!("rdma:{name}");
    let options = options.clone();
    options.check().map_err(|what| refuse(&device, "options", what, ""))?;
    let Some(mode) = options.mode else {
        return Err(refuse(&device, "mode", "raw is no wire".to_owned(), ""));
    };
    let survey = survey(device, mode, name, &options)?;
    build(&survey, options)
}

fn survey(
    device: String,
    mode: Mode,
    name: &str,
    options: &RdmaOptions,
) -> Result<Survey, DeviceError> {
    let found = device::find(name)?;
    let attributes = found.context.attributes()?;
    let port = found.context.port(found.port)?;
    let (PortState::Active, Some(active_mtu)) = (port.state, port.active_mtu) else {
        let what = format!("port {} is {:?}", found.port, port.state);
        let remedy = "bring its link up: ip link set IF up, and see the cable";
        return Err(refuse(&device, "ibv_query_port", what, remedy));
    };
    let here = gid::interface_addresses().map_err(|source| DeviceError {
        device: device.clone(),
        call: "getifaddrs",
        source,
        remedy: String::new(),
    })?;
    let wish = GidWish {
        port: found.port,
        link_layer: port.link_layer,
        interface: found.interface,
        address: None,
        index: options.gid,
    };
    let gid = gid::choose(&found.context.gids()?, &here, &wish)
        .map_err(|none| refuse(&device, "gid", none.to_string(), none.remedy()))?;
    let mtu = options.mtu(active_mtu.bytes()).map_err(|what| refuse(&device, "mtu", what, ""))?;
    let message_max = options.message_max(mtu);
    let sges = |limit: u32, most: usize| {
        u16::try_from(limit).unwrap_or(u16::MAX).min(u16::try_from(most).unwrap_or(u16::MAX))
    };
    let limit = match mode {
        Mode::Rc => attributes.max_srq_sge,
        Mode::Ud => attributes.max_sge,
    };
    let wanted = 1 + (message_max - HEADER_BYTES).div_ceil(BUFFER_LEN);
    let receive_sges = sges(limit, BUFFERS_MAX + 1);
    if u32::from(receive_sges) < wanted {
        let what = format!("messages of {message_max} bytes need {wanted} elements, not {limit}");
        return Err(refuse(&device, "max_sge", what, "choose large=off or a smaller mtu="));
    }
    let send_sges = sges(attributes.max_sge, SEND_SGES_MAX + 1);
    let receive_sges = receive_sges.min(u16::try_from(2 * wanted).unwrap_or(u16::MAX));
    Ok(Survey {
        device,
        mode,
        found,
        attributes,
        port,
        gid,
        wish,
        mtu,
        message_max,
        receive_sges,
        send_sges,
    })
}

/// The numbers of queues and cells.
struct Sizes {
    receives: u16,
    peers_max: u16,
    depth: usize,
    cells: u32,
}

fn sizes(survey: &Survey, options: &RdmaOptions) -> Result<Sizes, DeviceError> {
    let peers_max = options.peers_max();
    let refuse = |what: String, remedy: &str| refuse(&survey.device, "sizes", what, remedy);
    if peers_max > PEERS_MAX {
        return Err(refuse(format!("peers={peers_max}"), "at most 1024"));
    }
    let most = match survey.mode {
        Mode::Rc => survey.attributes.max_srq_wr,
        Mode::Ud => survey.attributes.max_qp_wr,
    };
    let receives = options.receives().min(u16::try_from(most).unwrap_or(u16::MAX));
    let least = Ledger::receives_min(u32::from(peers_max));
    if u32::from(receives) < least {
        let what = format!("{peers_max} peers need {least} receives, there are {receives}");
        return Err(refuse(what, "choose a larger receives=, or a smaller peers="));
    }
    let queue = usize::from(options.queue).next_power_of_two();
    let most = usize::try_from(survey.attributes.max_qp_wr).unwrap_or(usize::MAX);
    let depth = queue.saturating_add(usize::try_from(CONTROL_ENTRIES).unwrap_or(0)).min(most);
    let sends = u32::try_from(queue).unwrap_or(0) + 4 * u32::from(peers_max) + 32;
    // Cells are named by 16 bits.
    Ok(Sizes { receives, peers_max, depth, cells: sends.min(u32::from(u16::MAX)) })
}

fn build(survey: &Survey, options: RdmaOptions) -> Result<Opened, DeviceError> {
    let sizes = sizes(survey, &options)?;
    let objects = objects(survey, &sizes)?;
    let scratch =
        Scratch::new(&survey.device, &objects.domain, (u32::from(sizes.receives), sizes.cells))?;
    let random = random(&survey.device)?;
    let path = plan(survey, &options, random);
    let sink = match survey.mode {
        Mode::Rc => Sink::Shared(objects.domain.shared_receive_queue(&SharedReceiveOptions {
            max_wr: u32::from(sizes.receives),
            max_sge: u32::from(survey.receive_sges),
            token: 0,
        })?),
        Mode::Ud => Sink::Own,
    };
    let plan_of_datagrams = match survey.mode {
        Mode::Rc => None,
        Mode::Ud => Some(datagram_plan(survey, &sizes, &path)),
    };
    let shared = match &plan_of_datagrams {
        None => None,
        Some(plan) => Some(datagrams(&objects, plan)?),
    };
    let receives = receives(survey, &sizes, &scratch);
    let cells = (0..sizes.cells).rev().filter_map(|cell| u16::try_from(cell).ok()).collect();
    let meeting = Meeting {
        device: survey.device.clone(),
        verbs: survey.found.context.device().name().to_owned(),
        mode: survey.mode,
        port: options.port,
        exchange: options.exchange,
        traffic_class: options.traffic_class,
        retry: options.retry,
    };
    let (watch, rare) = watches(&survey.device, &objects)?;
    let (talk, found_by) = Talk::open(&meeting, survey.gid.gid.ip(), &rare)?;
    let identity = identity(survey, &options, random);
    let admission = Admission {
        listed: options.peers.clone(),
        accept: options.accept.clone(),
        peers_max: sizes.peers_max,
    };
    let mut settings = settings(survey, &options, &sizes);
    settings.push(("exchange", found_by));
    let capabilities = capabilities(survey, &options, &sizes, identity.mac);
    let parts = Parts {
        shared,
        sink,
        receives,
        scratch,
        cells,
        peers: Peers::new(identity, admission, random),
        macs: Macs::new(identity.mac, random),
        meeting,
        wish: survey.wish,
        talk,
        watch,
        rare,
        objects,
        path,
        datagrams: plan_of_datagrams,
        message_max: survey.message_max,
        lane: lane_plan(survey, &sizes),
        random,
        options,
    };
    Ok(Opened { engine: Engine::new(survey.mode, parts), capabilities, settings })
}

fn receives(survey: &Survey, sizes: &Sizes, scratch: &Scratch) -> Receives {
    let in_front = match survey.mode {
        Mode::Rc => HEADER_BYTES,
        Mode::Ud => HEADER_BYTES + GRH_LEN,
    };
    let plan = ReceivePlan {
        receives: sizes.receives,
        in_front,
        longest: survey.message_max - HEADER_BYTES,
        max_sge: survey.receive_sges,
    };
    Receives::new(plan, scratch)
}

/// What wakes a sleeper, and the part of it that is rare.
fn watches(device: &str, objects: &Objects) -> Result<(Watch, Watch), DeviceError> {
    let failed = |source: io::Error| DeviceError {
        device: device.to_owned(),
        call: "epoll_ctl",
        source,
        remedy: String::new(),
    };
    let (watch, rare) = (Watch::new().map_err(failed)?, Watch::new().map_err(failed)?);
    rare.add(objects.context.async_fd()).map_err(failed)?;
    for fd in [objects.channel.fd(), rare.fd()] {
        watch.add(fd).map_err(failed)?;
    }
    Ok((watch, rare))
}

fn objects(survey: &Survey, sizes: &Sizes) -> Result<Objects, DeviceError> {
    let context = survey.found.context.clone();
    let channel = context.completion_channel()?;
    let queue = |entries: u32| {
        context.completion_queue(&CompletionQueueOptions {
            entries: entries.min(survey.attributes.max_cqe),
            channel: Some(&channel),
            vector: 0,
            token: 0,
        })
    };
    // Every entry of every send queue has a cell, so cells bound the completions; and as many of
    // queue pairs that are gone may lie there still.
    let send_queue = queue(2 * sizes.cells)?;
    let recv_queue = queue(2 * u32::from(sizes.receives) + 16)?;
    let domain = context.protection_domain()?;
    Ok(Objects { recv_queue, send_queue, channel, domain, context })
}

fn plan(survey: &Survey, options: &RdmaOptions, random: u64) -> PathPlan {
    let template = Path {
        port: survey.found.port,
        source_index: u8::try_from(survey.gid.index).unwrap_or(u8::MAX),
        destination: survey.gid.gid,
        lid: survey.port.lid,
        service_level: options.service_level,
        traffic_class: options.traffic_class,
        flow_label: options.flow_label,
        hop_limit: 64,
    };
    let mtu = survey.port.active_mtu.unwrap_or(crate::verbs::attributes::Mtu::B1024);
    // Keys with the highest bit are for privileged consumers.
    let qkey = u32::try_from(random >> 33).unwrap_or(1) & 0x7fff_ffff;
    PathPlan { template, own: survey.gid.gid, mtu, qkey }
}

fn datagram_plan(survey: &Survey, sizes: &Sizes, path: &PathPlan) -> DatagramPlan {
    let sizes_of_queues = QueueSizes {
        max_send_wr: u32::try_from(sizes.depth).unwrap_or(u32::MAX),
        max_recv_wr: u32::from(sizes.receives),
        max_send_sge: u32::from(survey.send_sges),
        max_recv_sge: u32::from(survey.receive_sges),
        max_inline: INLINE_MAX,
    };
    let (port, qkey) = (survey.found.port, path.qkey);
    DatagramPlan { sizes: sizes_of_queues, port, qkey, lane: lane_plan(survey, sizes) }
}

fn lane_plan(survey: &Survey, sizes: &Sizes) -> LanePlan {
    let lanes = match survey.mode {
        Mode::Rc => usize::from(sizes.peers_max).max(1),
        Mode::Ud => 1,
    };
    let cells_each = usize::try_from(sizes.cells).unwrap_or(0) / lanes;
    LanePlan { depth: sizes.depth, sges: usize::from(survey.send_sges), cells_each }
}

fn identity(survey: &Survey, options: &RdmaOptions, random: u64) -> Identity {
    let mac = match (options.mac, options.port) {
        (Some(mac), _) => mac,
        (None, 0) => {
            let salt = u16::try_from(random & 0xffff).unwrap_or(0);
            stable_mac(survey.gid.gid, salt)
        }
        (None, port) => stable_mac(survey.gid.gid, port),
    };
    Identity {
        mode: survey.mode,
        mac,
        mtu: survey.mtu,
        message_max: survey.message_max,
        port: options.port,
        incarnation: u32::try_from(random >> 32).unwrap_or(1),
        host: random.rotate_left(17) | 1,
    }
}

fn capabilities(
    survey: &Survey,
    options: &RdmaOptions,
    sizes: &Sizes,
    mac: [u8; 6],
) -> Capabilities {
    let large = options.is_large();
    let buffers = (survey.message_max - HEADER_BYTES).div_ceil(BUFFER_LEN);
    Capabilities {
        name: survey.device.clone(),
        mac: Some(mac),
        mtu: survey.mtu,
        wire: Wire::VirtioNet,
        receive: Receive::Spanning,
        max_message: survey.message_max - HEADER_BYTES,
        max_send_wr: u32::from(options.queue),
        max_recv_wr: (u32::from(sizes.receives) * buffers).min(4096),
        max_send_sge: survey.send_sges - 1,
        max_recv_sge: 1,
        // What is inline for the device is a matter of this NIC: until the peer has a message its
        // send is not complete.
        max_inline: 0,
        tx_checksum: true,
        rx_checksum: true,
        tso4: large,
        tso6: large,
        rx_large4: large,
        rx_large6: large,
        tso_ecn: large,
        uso: large,
        rx_ecn: large,
        rx_uso4: large,
        rx_uso6: large,
    }
}

fn settings(survey: &Survey, options: &RdmaOptions, sizes: &Sizes) -> Settings {
    let mut settings = vec![
        ("mode", survey.mode.name().to_owned()),
        ("device", format!("{} port {}", survey.found.context.device().name(), survey.found.port)),
        ("gid", format!("index {} {} ({})", survey.gid.index, survey.gid.gid, survey.gid.kind)),
        ("mtu", survey.mtu.to_string()),
        ("path mtu", survey.port.active_mtu.map_or(0, |mtu| mtu.bytes()).to_string()),
        ("longest message", survey.message_max.to_string()),
        ("traffic class", options.traffic_class.to_string()),
        ("service level", options.service_level.to_string()),
        ("flow label", options.flow_label.to_string()),
        ("peers", format!("{} listed, {} at most", options.peers.len(), sizes.peers_max)),
        ("receives", sizes.receives.to_string()),
    ];
    if survey.mode == Mode::Rc
        && let Ok(give_up_ns) = options.retry.give_up_ns()
    {
        let (found, bound) = (give_up_ns / 1_000_000, options.give_up_ns / 1_000_000);
        settings.push(("gives up after", format!("{found} ms at worst (bound {bound} ms)")));
    }
    settings
}
