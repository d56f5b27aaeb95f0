//! The same calls by Roceway's bindings and by the crate rdma-sys, and what differs in the results.
//!
//! Owns no device longer than a comparison. Both hands open each device by themselves.

use crate::Failure;
use rdma_sys as theirs;
use roceway_rdma_virtio::verbs::attributes::{LinkLayer, Mtu, PortState};
use roceway_rdma_virtio::verbs::context::Context;
use roceway_rdma_virtio::verbs::device::{self, Device, NodeType, Transport};
use roceway_rdma_virtio::verbs::gid::GidEntry;
use std::ffi::CStr;
use std::fmt::Debug;

/// What was compared and what differs.
#[derive(Debug, Default)]
pub struct Report {
    /// Comparisons made.
    pub compared: usize,
    /// Devices that both hands found.
    pub devices: usize,
    /// What differs.
    pub differences: Vec<String>,
}

impl Report {
    fn compare<T: PartialEq + Debug>(&mut self, what: &str, ours: &T, theirs: &T) {
        self.compared += 1;
        if ours != theirs {
            self.differences.push(format!("{what}: {ours:?}, theirs {theirs:?}"));
        }
    }
}

/// Their list of devices, freed when dropped.
struct List {
    list: *mut *mut theirs::ibv_device,
    count: usize,
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by ibv_get_device_list.
        unsafe { theirs::ibv_free_device_list(self.list) };
    }
}

impl List {
    fn device(&self, index: usize) -> *mut theirs::ibv_device {
        assert!(index < self.count, "within the list");
        // SAFETY: within the list.
        let place = unsafe { self.list.add(index) };
        // SAFETY: as above.
        unsafe { place.read() }
    }
}

/// Compares everything on this machine.
///
/// # Errors
/// If one hand opens what the other cannot, or a query fails.
pub fn everything() -> Result<Report, Failure> {
    let mut report = Report::default();
    let mut count = 0;
    // SAFETY: a place for the number.
    let list = unsafe { theirs::ibv_get_device_list(&mut count) };
    let their_errno = std::io::Error::last_os_error().raw_os_error();
    let ours = device::devices();
    if list.is_null() {
        let our_errno = ours.err().and_then(|error| error.source.raw_os_error());
        report.compare("errno of the device list", &our_errno, &their_errno);
        return Ok(report);
    }
    let list = List { list, count: usize::try_from(count).unwrap_or(0) };
    let ours = ours?;
    report.compare("number of devices", &ours.len(), &list.count);
    for (index, ours) in ours.iter().enumerate().take(list.count) {
        report.devices += 1;
        device_alike(&mut report, ours, list.device(index))?;
    }
    Ok(report)
}

fn device_alike(
    report: &mut Report,
    ours: &Device,
    their: *mut theirs::ibv_device,
) -> Result<(), Failure> {
    // SAFETY: a device of a list that lives.
    let name = unsafe { theirs::ibv_get_device_name(their) };
    // SAFETY: a C string that lives as long as the device.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    report.compare("name", &ours.name(), &name.as_str());
    // SAFETY: a device of a list that lives.
    let guid = unsafe { theirs::ibv_get_device_guid(their) };
    report.compare(&format!("{name}: GUID"), &ours.guid(), &u64::from_be(guid));
    // SAFETY: as above; nobody writes to it.
    let structure = unsafe { &*their };
    let node = match structure.node_type {
        theirs::ibv_node_type::IBV_NODE_CA => NodeType::ChannelAdapter,
        theirs::ibv_node_type::IBV_NODE_RNIC => NodeType::Rnic,
        other => NodeType::Other(other),
    };
    report.compare(&format!("{name}: node type"), &ours.node_type(), &node);
    let transport = match structure.transport_type {
        theirs::ibv_transport_type::IBV_TRANSPORT_IB => Transport::InfiniBand,
        theirs::ibv_transport_type::IBV_TRANSPORT_IWARP => Transport::Iwarp,
        other => Transport::Other(other),
    };
    report.compare(&format!("{name}: transport"), &ours.transport(), &transport);
    let ours = ours.open()?;
    // SAFETY: a device of a list that lives.
    let context = unsafe { theirs::ibv_open_device(their) };
    report.compare(&format!("{name}: opened"), &true, &!context.is_null());
    if !context.is_null() {
        context_alike(report, &name, &ours, context)?;
        // SAFETY: opened above.
        unsafe { theirs::ibv_close_device(context) };
    }
    Ok(())
}

fn context_alike(
    report: &mut Report,
    name: &str,
    ours: &Context,
    their: *mut theirs::ibv_context,
) -> Result<(), Failure> {
    // SAFETY: integers only.
    let mut attr: theirs::ibv_device_attr_ex = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open.
    let result = unsafe { theirs::ibv_query_device_ex(their, std::ptr::null(), &mut attr) };
    report.compare(&format!("{name}: ibv_query_device_ex"), &0, &result);
    let found = ours.attributes()?;
    let base = &attr.orig_attr;
    for (what, ours, theirs) in [
        ("max_qp", found.max_qp, base.max_qp),
        ("max_qp_wr", found.max_qp_wr, base.max_qp_wr),
        ("max_sge", found.max_sge, base.max_sge),
        ("max_cq", found.max_cq, base.max_cq),
        ("max_cqe", found.max_cqe, base.max_cqe),
        ("max_mr", found.max_mr, base.max_mr),
        ("max_pd", found.max_pd, base.max_pd),
        ("max_srq", found.max_srq, base.max_srq),
        ("max_srq_wr", found.max_srq_wr, base.max_srq_wr),
        ("max_srq_sge", found.max_srq_sge, base.max_srq_sge),
        ("max_ah", found.max_ah, base.max_ah),
        ("max_raw_ethy_qp", found.max_raw_packet_qp, base.max_raw_ethy_qp),
        ("max_mcast_grp", found.max_multicast_groups, base.max_mcast_grp),
    ] {
        report.compare(&format!("{name}: {what}"), &i64::from(ours), &i64::from(theirs));
    }
    report.compare(&format!("{name}: max_mr_size"), &found.max_mr_size, &base.max_mr_size);
    report.compare(&format!("{name}: max_tso"), &found.tso.max_bytes, &attr.tso_caps.max_tso);
    report.compare(&format!("{name}: vendor"), &found.vendor_id, &base.vendor_id);
    let flags = attr.device_cap_flags_ex | u64::from(base.device_cap_flags);
    report.compare(&format!("{name}: flags"), &found.flags, &flags);
    report.compare(&format!("{name}: ports"), &found.ports, &u32::from(base.phys_port_cnt));
    let gids = ours.gids()?;
    for port in 1..=base.phys_port_cnt {
        port_alike(report, &format!("{name}:{port}"), (ours, their), port)?;
        let of_port: Vec<&GidEntry> = gids.iter().filter(|entry| entry.port == port).collect();
        gids_alike(report, &format!("{name}:{port}"), &of_port, (their, port));
    }
    Ok(())
}

fn port_alike(
    report: &mut Report,
    name: &str,
    (ours, their): (&Context, *mut theirs::ibv_context),
    port: u8,
) -> Result<(), Failure> {
    // SAFETY: integers only.
    let mut attr: theirs::ibv_port_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open.
    let result = unsafe { theirs::___ibv_query_port(their, port, &mut attr) };
    report.compare(&format!("{name}: ibv_query_port"), &0, &result);
    let found = ours.port(port)?;
    let state = match attr.state {
        theirs::ibv_port_state::IBV_PORT_DOWN => PortState::Down,
        theirs::ibv_port_state::IBV_PORT_INIT => PortState::Init,
        theirs::ibv_port_state::IBV_PORT_ARMED => PortState::Armed,
        theirs::ibv_port_state::IBV_PORT_ACTIVE => PortState::Active,
        other => PortState::Other(other),
    };
    report.compare(&format!("{name}: state"), &found.state, &state);
    let bytes = |mtu: theirs::ibv_mtu::Type| 128_u32.checked_shl(mtu).unwrap_or(0);
    let our_bytes = |mtu: Option<Mtu>| mtu.map_or(0, |mtu| u32::from(mtu.bytes()));
    let ours_active = our_bytes(found.active_mtu);
    report.compare(&format!("{name}: active MTU"), &ours_active, &bytes(attr.active_mtu));
    report.compare(&format!("{name}: MTU"), &our_bytes(found.max_mtu), &bytes(attr.max_mtu));
    let layer = match attr.link_layer {
        1 => LinkLayer::InfiniBand,
        2 => LinkLayer::Ethernet,
        other => LinkLayer::Other(other),
    };
    report.compare(&format!("{name}: link layer"), &found.link_layer, &layer);
    report.compare(&format!("{name}: LID"), &found.lid, &attr.lid);
    report.compare(&format!("{name}: longest message"), &found.max_message, &attr.max_msg_sz);
    let entries = u32::try_from(attr.gid_tbl_len).unwrap_or(0);
    report.compare(&format!("{name}: GID table"), &found.gid_table_len, &entries);
    let widths = (found.active_width, found.active_speed, found.physical_state);
    let their_widths = (attr.active_width, attr.active_speed, attr.phys_state);
    report.compare(&format!("{name}: width, speed, state"), &widths, &their_widths);
    let mut pkey = 0;
    // SAFETY: the context is open; a place for the key.
    unsafe { theirs::ibv_query_pkey(their, port, 0, &mut pkey) };
    report.compare(&format!("{name}: P_Key 0"), &ours.pkey(port, 0)?, &u16::from_be(pkey));
    Ok(())
}

/// The table by the old call, entry by entry, against the new one's list of valid entries.
fn gids_alike(
    report: &mut Report,
    name: &str,
    ours: &[&GidEntry],
    (their, port): (*mut theirs::ibv_context, u8),
) {
    let last = ours.iter().map(|entry| entry.index).max().unwrap_or(0);
    for index in 0..=last {
        let mut gid = theirs::ibv_gid { raw: [0; 16] };
        let at = i32::try_from(index).unwrap_or(i32::MAX);
        // SAFETY: the context is open; a place for the GID.
        let result = unsafe { theirs::ibv_query_gid(their, port, at, &mut gid) };
        // SAFETY: any bytes are a GID.
        let raw = if result == 0 { unsafe { gid.raw } } else { [0; 16] };
        let found = ours.iter().find(|entry| entry.index == index);
        let found = found.map_or([0; 16], |entry| entry.gid.0);
        report.compare(&format!("{name}: GID {index}"), &found, &raw);
    }
}
