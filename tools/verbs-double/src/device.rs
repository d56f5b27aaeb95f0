//! A device of the double: what it is, its port, its rules, and what it answers to queries.

use std::ffi::c_char;

use crate::abi::consts;
use crate::abi::objects::{self, CompatPortAttr, DeviceAttr, DeviceAttrEx, PortAttr};
use crate::config::{DeviceConfig, Gid};
use crate::faults::Loss;
use crate::steering::Rule;
use crate::tap::Tap;

/// Longest frame that goes out: Ethernet header and one VLAN tag beyond the MTU.
pub(crate) const FRAME_EXTRA: usize = 18;

/// A device with one port.
pub(crate) struct Device {
    /// What was asked for.
    pub(crate) config: DeviceConfig,
    /// Address of the `struct ibv_device`, which lives as long as the process.
    pub(crate) pointer: usize,
    /// GID table; it changes at run time.
    pub(crate) gids: Vec<Gid>,
    /// Whether the port is active.
    pub(crate) up: bool,
    /// Whether the device is gone (`IBV_EVENT_DEVICE_FATAL`).
    pub(crate) dead: bool,
    /// Contexts that are open.
    pub(crate) open: u32,
    /// Flow rules.
    pub(crate) rules: Vec<Rule>,
    /// Counts up, so that rules keep their order.
    pub(crate) rules_made: u32,
    /// The kernel side.
    pub(crate) tap: Option<Tap>,
    /// Losses.
    pub(crate) loss: Loss,
    /// `qkey_viol_cntr`.
    pub(crate) key_violations: u32,
}

fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (place, byte) in out[..N - 1].iter_mut().zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    out
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn mtu_code(bytes: u32) -> u32 {
    // enum ibv_mtu: 256 is 1, each next is twice as long.
    bytes.trailing_zeros() - 7
}

impl Device {
    /// A device as configured, its `struct ibv_device` included.
    pub(crate) fn new(config: DeviceConfig, number: usize) -> Device {
        let structure = Box::new(objects::Device {
            ops: [std::ptr::null(); 2],
            node_type: consts::NODE_CA,
            transport_type: consts::TRANSPORT_IB,
            name: text(&config.name),
            dev_name: text(&format!("uverbs{number}")),
            dev_path: text(&format!("/sys/class/infiniband_verbs/uverbs{number}")),
            ibdev_path: text(&format!("/sys/class/infiniband/{}", config.name)),
        });
        Device {
            pointer: Box::into_raw(structure).expose_provenance(),
            gids: config.gids.clone(),
            up: !config.down,
            dead: false,
            open: 0,
            rules: Vec::new(),
            rules_made: 0,
            tap: None,
            loss: Loss::default(),
            key_violations: 0,
            config,
        }
    }

    /// Node GUID in network order, from the MAC by EUI-64.
    pub(crate) fn guid(&self) -> u64 {
        let [a, b, c, d, e, f] = self.config.mac;
        u64::from_ne_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Whether a GID is one of this port.
    pub(crate) fn has_gid(&self, gid: &[u8; 16]) -> bool {
        *gid != [0; 16] && self.gids.iter().any(|entry| entry.raw == *gid)
    }

    /// The entry of an index that is not empty.
    pub(crate) fn gid(&self, index: u32) -> Option<Gid> {
        let entry = *self.gids.get(usize::try_from(index).ok()?)?;
        (entry.raw != [0; 16]).then_some(entry)
    }

    /// Interface index that GID entries bear; 0 without one.
    pub(crate) fn interface(&self) -> u32 {
        let name = self.config.netdev.as_deref().or(self.config.tap.as_deref());
        let Some(name) = name.and_then(|name| std::ffi::CString::new(name).ok()) else { return 0 };
        // SAFETY: a C string that lives through the call.
        unsafe { libc::if_nametoindex(name.as_ptr()) }
    }

    fn capabilities(&self) -> u32 {
        let config = &self.config;
        let mut flags = consts::DEVICE_BAD_QKEY_CNTR
            | consts::DEVICE_PORT_ACTIVE_EVENT
            | consts::DEVICE_SYS_IMAGE_GUID
            | consts::DEVICE_RC_RNR_NAK_GEN
            | consts::DEVICE_SRQ_RESIZE;
        if config.raw && config.checksum {
            flags |= consts::DEVICE_RAW_IP_CSUM;
        }
        if config.raw && config.flows {
            flags |= consts::DEVICE_MANAGED_FLOW_STEERING;
        }
        flags & !config.limits.cap_flags_without
    }

    /// Whether sends on RAW_PACKET may ask for checksums, and receives tell of them.
    pub(crate) fn checksums(&self) -> bool {
        self.capabilities() & consts::DEVICE_RAW_IP_CSUM != 0
    }

    /// Whether flow rules can be made.
    pub(crate) fn steers(&self) -> bool {
        self.capabilities() & consts::DEVICE_MANAGED_FLOW_STEERING != 0
    }

    /// Whether queue pairs of a type segment.
    pub(crate) fn segments(&self, kind: u32) -> bool {
        let limits = &self.config.limits;
        limits.max_tso > 0 && limits.tso_qpts & (1 << kind) != 0
    }

    /// ibv_query_device(3).
    pub(crate) fn attributes(&self) -> DeviceAttr {
        let limits = &self.config.limits;
        DeviceAttr {
            fw_ver: text("1.0.0-double"),
            node_guid: self.guid(),
            sys_image_guid: self.guid(),
            max_mr_size: u64::MAX,
            page_size_cap: 0xffff_f000,
            vendor_id: 0,
            vendor_part_id: 0,
            hw_ver: 1,
            max_qp: int(limits.max_qp),
            max_qp_wr: int(limits.max_qp_wr),
            device_cap_flags: self.capabilities(),
            max_sge: int(limits.max_sge),
            max_sge_rd: int(limits.max_sge),
            max_cq: int(limits.max_cq),
            max_cqe: int(limits.max_cqe),
            max_mr: int(limits.max_mr),
            max_pd: int(limits.max_pd),
            max_qp_rd_atom: int(limits.max_rd_atom),
            max_ee_rd_atom: 0,
            max_res_rd_atom: int(limits.max_rd_atom),
            max_qp_init_rd_atom: int(limits.max_rd_atom),
            max_ee_init_rd_atom: 0,
            atomic_cap: 0,
            max_ee: 0,
            max_rdd: 0,
            max_mw: 0,
            max_raw_ipv6_qp: 0,
            max_raw_ethy_qp: if self.config.raw { int(limits.max_qp) } else { 0 },
            max_mcast_grp: 64,
            max_mcast_qp_attach: 64,
            max_total_mcast_qp_attach: 4096,
            max_ah: int(limits.max_ah),
            max_fmr: 0,
            max_map_per_fmr: 0,
            max_srq: int(limits.max_srq),
            max_srq_wr: int(limits.max_srq_wr),
            max_srq_sge: int(limits.max_srq_sge),
            max_pkeys: 1,
            local_ca_ack_delay: 0,
            phys_port_cnt: 1,
        }
    }

    /// ibv_query_device_ex(3).
    pub(crate) fn attributes_ex(&self) -> DeviceAttrEx {
        let config = &self.config;
        let raw_csum = if self.checksums() { consts::RAW_PACKET_CAP_IP_CSUM } else { 0 };
        let qpts = if config.limits.max_tso > 0 { config.limits.tso_qpts } else { 0 };
        DeviceAttrEx {
            orig_attr: self.attributes(),
            comp_mask: 0,
            odp_caps: objects::OdpCaps::default(),
            completion_timestamp_mask: 0,
            hca_core_clock: 0,
            device_cap_flags_ex: u64::from(self.capabilities()),
            tso_caps: [config.limits.max_tso, qpts],
            rss_caps: objects::RssCaps::default(),
            max_wq_type_rq: 0,
            packet_pacing_caps: [0; 3],
            raw_packet_caps: raw_csum,
            tm_caps: [0; 5],
            cq_mod_caps: [0; 2],
            max_dm_size: 0,
            pci_atomic_caps: [0; 3],
            xrc_odp_caps: 0,
            phys_port_cnt_ex: 1,
        }
    }

    /// ibv_query_port(3).
    pub(crate) fn port(&self) -> PortAttr {
        let ethernet = !self.config.infiniband;
        PortAttr {
            compat: CompatPortAttr {
                state: if self.up { consts::PORT_ACTIVE } else { consts::PORT_DOWN },
                max_mtu: consts::MTU_4096,
                active_mtu: mtu_code(self.config.active_mtu),
                gid_tbl_len: i32::try_from(self.gids.len()).unwrap_or(i32::MAX),
                port_cap_flags: consts::PORT_CM_SUP | consts::PORT_IP_BASED_GIDS,
                max_msg_sz: self.config.limits.max_msg_sz,
                bad_pkey_cntr: 0,
                qkey_viol_cntr: self.key_violations,
                pkey_tbl_len: 1,
                lid: u16::from(!ethernet),
                sm_lid: 0,
                lmc: 0,
                max_vl_num: 1,
                sm_sl: 0,
                subnet_timeout: 0,
                init_type_reply: 0,
                active_width: 2,
                active_speed: 32,
                phys_state: if self.up { 5 } else { 3 },
                link_layer: if ethernet {
                    consts::LINK_LAYER_ETHERNET
                } else {
                    consts::LINK_LAYER_INFINIBAND
                },
                flags: if ethernet { consts::QPF_GRH_REQUIRED } else { 0 },
            },
            port_cap_flags2: 0,
        }
    }
}
