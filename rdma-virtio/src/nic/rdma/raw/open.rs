//! Opening a device as an Ethernet NIC: device, port, queue pair, rules, trial; what was chosen and
//! found is kept as text.
//!
//! Every refusal names what lacks and what to do, and offers the other modes; none of them is ever
//! chosen instead.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;

use super::arrivals::{self, Arrivals};
use super::link::{Base, Link, LinkPlan};
use super::options::{Groups, Wish};
use super::probe::{Claims, Found, probe};
use super::sends::{self, SGES_OF_TAG, SendLimits, Sends, TSO_HEADER_MAX};
use super::steering::{Sorter, Steering};
use super::tag::Tag;
use super::{EventCounters, RawNic};
use crate::nic::rdma::conversation::Watch;
use crate::nic::rdma::open::{INLINE_MAX, Settings, random, refuse};
use crate::nic::rdma::options::RdmaOptions;
use crate::nic::rtnl::Interface;
use crate::nic::{Capabilities, DeviceError, Receive, Wire};
use crate::verbs::attributes::{DeviceAttributes, LinkLayer, PortState};
use crate::verbs::device::{self, Found as Device};
use crate::verbs::gid;
use crate::verbs::queue_pair::QueueSizes;

/// Ethernet header and a VLAN tag.
const AROUND_PACKET: u32 = 18;
/// Longest frame that a stack makes: headers and 64 KiB.
const LARGE_MAX: u32 = 14 + 65_536;
/// Elements below which a large frame may not fit (64 KB in pages that are not aligned).
const LARGE_SGES_MIN: u32 = 19;
/// What every refusal ends with.
const INSTEAD: &str = "or choose mode=rc or mode=ud, over which hosts that run Roceway reach each \
                       other, plain TCP hosts not";

/// Offers the other modes, too.
fn offering(error: DeviceError) -> DeviceError {
    let separator = if error.remedy.is_empty() { "" } else { "; " };
    DeviceError { remedy: format!("{}{separator}{INSTEAD}", error.remedy), ..error }
}

/// Says which capability lacks, if the error says that one does.
fn lacking(what: &str, error: DeviceError) -> DeviceError {
    let absent = [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL, libc::ENXIO];
    match error.source.raw_os_error() {
        Some(errno) if absent.contains(&errno) => DeviceError {
            source: io::Error::other(format!("the device has no {what} ({})", error.source)),
            remedy: String::new(),
            ..error
        },
        _ => error,
    }
}

struct Survey {
    name: String,
    device: Device,
    attributes: DeviceAttributes,
    mac: [u8; 6],
    mtu: u16,
}

/// Opens `name`.
pub(super) fn open(name: &str, options: &RdmaOptions) -> Result<RawNic, DeviceError> {
    let survey = survey(name, options)?;
    let base = base(&survey)?;
    let watch = watch(&survey, &base)?;
    let (plan, steering) = (plan(&survey, options), steering(&survey, options));
    let (plan, found, steering) = tried(&survey, &base, (plan, steering))?;
    build(&survey, options, (base, watch), (plan, found, steering))
}

fn survey(name: &str, options: &RdmaOptions) -> Result<Survey, DeviceError> {
    let full = format!("rdma:{name}");
    let device = device::find(name)?;
    let attributes = device.context.attributes()?;
    let port = device.context.port(device.port)?;
    if port.link_layer == LinkLayer::InfiniBand {
        let what = format!("port {} is InfiniBand, which has no Ethernet frames", device.port);
        return Err(offering(refuse(&full, "ibv_query_port", what, "")));
    }
    if port.state != PortState::Active {
        let what = format!("port {} is {:?}", device.port, port.state);
        let remedy = "bring its link up: ip link set IF up, and see the cable";
        return Err(refuse(&full, "ibv_query_port", what, remedy));
    }
    let mtu = mtu(&full, &device, options)?;
    let mac = match options.mac {
        Some(mac) => mac,
        None => {
            let [_, b1, b2, b3, b4, b5, ..] = random(&full)?.to_be_bytes();
            [0x02, b1, b2, b3, b4, b5]
        }
    };
    Ok(Survey { name: full, device, attributes, mac, mtu })
}

/// The interface that the port belongs to, if its GIDs tell.
fn interface(device: &Device) -> Option<String> {
    let gids = device.context.gids().unwrap_or_default();
    let of_port = gids.iter().find(|gid| gid.port == device.port && gid.interface != 0);
    let index = device.interface.or(of_port.map(|gid| gid.interface))?;
    let all = gid::interface_addresses().ok()?;
    all.into_iter().find(|address| address.index == index).map(|address| address.name)
}

/// The MTU: what was asked for, within what the port's interface has; else the interface's.
fn mtu(full: &str, device: &Device, options: &RdmaOptions) -> Result<u16, DeviceError> {
    let name = interface(device);
    let most = name.as_ref().and_then(|name| Interface::new(name).ok()?.mtu().ok());
    match (options.mtu, most, name) {
        (0, most, _) => Ok(most.unwrap_or(1500)),
        (mtu, Some(most), Some(name)) if mtu > most => {
            let what = format!("the interface {name} has an MTU of {most}");
            let remedy = format!("ip link set dev {name} mtu {mtu}, or mtu={most}");
            Err(refuse(full, "mtu", what, &remedy))
        }
        (mtu, ..) => Ok(mtu),
    }
}

fn base(survey: &Survey) -> Result<Base, DeviceError> {
    let context = survey.device.context.clone();
    let channel = context.completion_channel()?;
    let domain = context.protection_domain()?;
    Ok(Base { channel, domain, context })
}

fn watch(survey: &Survey, base: &Base) -> Result<Watch, DeviceError> {
    let failed = |source: io::Error| DeviceError {
        device: survey.name.clone(),
        call: "epoll_create1",
        source,
        remedy: "raise ulimit -n".to_owned(),
    };
    let watch = Watch::new().map_err(failed)?;
    for fd in [base.channel.fd(), base.context.async_fd()] {
        watch.add(fd).map_err(failed)?;
    }
    Ok(watch)
}

fn steering(survey: &Survey, options: &RdmaOptions) -> Steering {
    Steering::new(survey.device.port, survey.mac, options.raw)
}

fn plan(survey: &Survey, options: &RdmaOptions) -> LinkPlan {
    let attributes = &survey.attributes;
    let vlan = if options.raw.vlan.is_some() { SGES_OF_TAG } else { 0 };
    let sges = |most: usize| u32::try_from(most + vlan).unwrap_or(u32::MAX).min(attributes.max_sge);
    let receives = if options.receives == 0 { 512 } else { options.receives };
    let tso = attributes.tso.raw_packet || options.raw.tso == Wish::On;
    LinkPlan {
        port: survey.device.port,
        sizes: QueueSizes {
            // Inline sends take places too, and their posters see none of them.
            max_send_wr: (2 * u32::from(options.queue)).min(attributes.max_qp_wr),
            max_recv_wr: u32::from(receives).min(attributes.max_qp_wr),
            max_send_sge: sges(sends::SGES_MAX),
            max_recv_sge: sges(arrivals::SGES_MAX),
            max_inline: INLINE_MAX,
        },
        tso_header: if tso && options.raw.tso != Wish::Off { TSO_HEADER_MAX } else { 0 },
        entries_max: attributes.max_cqe,
    }
}

/// Makes links until the device can have one: with less inline, then without segmentation. The one
/// that is there serves for the trial.
fn first_link(base: &Base, plan: &mut LinkPlan) -> Result<Link, DeviceError> {
    let inline = [plan.sizes.max_inline, 94, 0];
    let headers = [plan.tso_header, 0];
    let mut refused = None;
    for (tso_header, max_inline) in
        headers.into_iter().flat_map(|header| inline.map(|inline| (header, inline)))
    {
        let sizes = QueueSizes { max_inline, ..plan.sizes };
        let attempt = LinkPlan { sizes, tso_header, ..*plan };
        match Link::new(base, &attempt) {
            Ok(link) => {
                *plan = attempt;
                plan.sizes.max_inline = link.pair.pair().sizes().max_inline.min(INLINE_MAX);
                return Ok(link);
            }
            Err(error) => {
                let errno = error.source.raw_os_error();
                refused = refused.or(Some(error));
                if !matches!(errno, Some(libc::EINVAL | libc::ENOMEM)) {
                    break;
                }
            }
        }
    }
    Err(refused.expect("at least one attempt"))
}

/// A plan that the device can have, what it does, and the rules that fit it.
fn tried(
    survey: &Survey,
    base: &Base,
    (mut plan, mut steering): (LinkPlan, Steering),
) -> Result<(LinkPlan, Found, Steering), DeviceError> {
    let named = |error: DeviceError| {
        let device = survey.name.clone();
        offering(DeviceError { device, ..error })
    };
    let link = first_link(base, &mut plan)
        .map_err(|error| named(lacking("RAW_PACKET queue pairs with extended sends", error)))?;
    let claims = Claims {
        checksum: survey.attributes.raw_checksum || steering.options.checksum == Wish::On,
        tso: plan.tso_header > 0,
    };
    let found = probe(base, link, (&steering, claims))
        .map_err(|error| named(lacking("flow rules (flow steering)", error)))?;
    if found.steers == Some(false) {
        steering.sorter = Sorter::Process;
    }
    Ok((plan, found, steering))
}

fn build(
    survey: &Survey,
    options: &RdmaOptions,
    (base, watch): (Base, Watch),
    (plan, found, mut steering): (LinkPlan, Found, Steering),
) -> Result<RawNic, DeviceError> {
    let named = |error: DeviceError| offering(DeviceError { device: survey.name.clone(), ..error });
    let mut link = Link::new(&base, &plan).map_err(named)?;
    link.steer(&mut steering).map_err(named)?;
    let capabilities = capabilities(survey, options, (&plan, &found));
    let frame_max = u32::from(survey.mtu) + AROUND_PACKET;
    let sends = Sends::new(SendLimits {
        depth: plan.sizes.max_send_wr,
        max_inline: capabilities.max_inline,
        // With a tag a frame is of several pieces.
        short_max: if options.raw.vlan.is_some() { 0 } else { capabilities.max_inline },
        frame_max,
        message_max: capabilities.max_message,
    });
    let receives = plan.sizes.max_recv_wr;
    let tag = match options.raw.vlan {
        None => None,
        Some(vlan) => {
            let places = (vlan, receives.next_power_of_two());
            Some(Tag::new(&survey.name, &base.domain, places)?)
        }
    };
    let registered_bytes = tag.as_ref().map_or(0, Tag::length);
    let mut arrivals = Arrivals::new(receives, arrivals::SGES_MAX, tag);
    arrivals.sort_by(steering.sorter);
    arrivals.trusts_checksums = capabilities.rx_checksum;
    let settings = settings(survey, options, (&plan, &found), (&steering, &capabilities));
    Ok(RawNic {
        capabilities,
        settings,
        link: Some(link),
        sends,
        arrivals: RefCell::new(arrivals),
        is_spent: Cell::new(false),
        steering,
        plan,
        regions: Vec::new(),
        watch,
        base,
        port_up: true,
        events_due_ns: 0,
        again_ns: 0,
        pause_ns: 0,
        told_down: false,
        events: VecDeque::new(),
        fatal: None,
        told_fatal: false,
        counters: EventCounters { registered_bytes, ..EventCounters::default() },
    })
}

fn capabilities(
    survey: &Survey,
    options: &RdmaOptions,
    (plan, found): (&LinkPlan, &Found),
) -> Capabilities {
    let vlan = if options.raw.vlan.is_some() { SGES_OF_TAG } else { 0 };
    let own = |sges: u32| {
        let rest = sges.saturating_sub(u32::try_from(vlan).unwrap_or(0));
        u16::try_from(rest).unwrap_or(u16::MAX)
    };
    let tx_checksum = options.raw.checksum.decide(found.tx_checksum);
    let wide = u32::from(own(plan.sizes.max_send_sge)) >= LARGE_SGES_MIN;
    let cuts = |tried| tx_checksum && wide && plan.tso_header > 0 && options.raw.tso.decide(tried);
    let (tso4, tso6) = (cuts(found.tso4), cuts(found.tso6));
    let frame_max = u32::from(survey.mtu) + AROUND_PACKET;
    let large = survey.attributes.tso.max_bytes.min(LARGE_MAX);
    Capabilities {
        name: survey.name.clone(),
        mac: Some(survey.mac),
        mtu: survey.mtu,
        wire: Wire::Frames,
        receive: Receive::OneMessage,
        max_message: if tso4 || tso6 { frame_max.max(large) } else { frame_max },
        max_send_wr: u32::from(options.queue).min(plan.sizes.max_send_wr),
        max_recv_wr: plan.sizes.max_recv_wr,
        max_send_sge: own(plan.sizes.max_send_sge),
        max_recv_sge: own(plan.sizes.max_recv_sge),
        max_inline: plan.sizes.max_inline.saturating_sub(if vlan > 0 { 4 } else { 0 }),
        tx_checksum,
        rx_checksum: options.raw.checksum.decide(found.rx_checksum),
        tso4,
        tso6,
        // What a device does to CWR was not tried.
        tso_ecn: false,
        uso: false,
        rx_large4: false,
        rx_large6: false,
        rx_ecn: false,
        rx_uso4: false,
        rx_uso6: false,
    }
}

/// Who does something, and how that is known.
fn done_by((device, wish): (bool, Wish), tried: Option<bool>) -> String {
    let how = match (wish, tried) {
        (Wish::Off, _) => "off",
        (_, Some(true)) => "tried: right",
        (_, Some(false)) => "tried: not done, or wrong",
        (_, None) => "could not be tried: frames to its own address do not come back",
    };
    format!("{} ({how})", if device { "by the device" } else { "in software" })
}

fn settings(
    survey: &Survey,
    options: &RdmaOptions,
    (plan, found): (&LinkPlan, &Found),
    (steering, can): (&Steering, &Capabilities),
) -> Settings {
    let [a, b, c, d, e, f] = survey.mac;
    let tried_rules = match found.steers {
        Some(_) => "tried",
        None => "could not be tried",
    };
    let context = &survey.device.context;
    let (checksum, tso) = (options.raw.checksum, options.raw.tso);
    let both = match (found.tso4, found.tso6) {
        (Some(v4), Some(v6)) => Some(v4 && v6),
        _ => None,
    };
    let longest = if can.tso4 || can.tso6 { can.max_message } else { 0 };
    let mut settings = vec![
        ("mode", "raw: a host of its own beside the kernel".to_owned()),
        ("device", format!("{} port {}", context.device().name(), survey.device.port)),
        ("mac", format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")),
        ("mtu", survey.mtu.to_string()),
        ("steering", format!("{} ({tried_rules})", steering.describe())),
        ("checksums sent", done_by((can.tx_checksum, checksum), found.tx_checksum)),
        ("checksums received", done_by((can.rx_checksum, checksum), found.rx_checksum)),
        ("segmentation", done_by((can.tso4 || can.tso6, tso), both)),
        ("longest segment", longest.to_string()),
        ("inline", can.max_inline.to_string()),
        ("queue", format!("{} sends, {} receives", can.max_send_wr, plan.sizes.max_recv_wr)),
    ];
    if let Some(vlan) = options.raw.vlan {
        settings.push(("vlan", vlan.to_string()));
    }
    if options.raw.groups == Groups::Off {
        settings.push(("peers", "must know the hardware address: nothing answers ARP".to_owned()));
    }
    settings
}
