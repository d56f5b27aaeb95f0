//! What a device and a port say of themselves, as values.
//!
//! Owns the reading of `ibv_device_attr_ex` and `ibv_port_attr`. Never concludes from a flag that
//! something works.

use super::sys;
use std::ffi::c_int;

/// A path MTU (`ibv_mtu`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mtu {
    /// 256 bytes.
    B256,
    /// 512 bytes.
    B512,
    /// 1024 bytes.
    B1024,
    /// 2048 bytes.
    B2048,
    /// 4096 bytes.
    B4096,
}

impl Mtu {
    /// Bytes of payload.
    #[must_use]
    pub fn bytes(self) -> u16 {
        match self {
            Mtu::B256 => 256,
            Mtu::B512 => 512,
            Mtu::B1024 => 1024,
            Mtu::B2048 => 2048,
            Mtu::B4096 => 4096,
        }
    }

    /// The MTU with so many bytes.
    #[must_use]
    pub fn from_bytes(bytes: u16) -> Option<Mtu> {
        ALL_MTUS.into_iter().find(|mtu| mtu.bytes() == bytes)
    }

    pub(super) fn from_enum(value: sys::ibv_mtu) -> Option<Mtu> {
        ALL_MTUS.into_iter().find(|mtu| mtu.to_enum() == value)
    }

    pub(super) fn to_enum(self) -> sys::ibv_mtu {
        match self {
            Mtu::B256 => sys::IBV_MTU_256,
            Mtu::B512 => sys::IBV_MTU_512,
            Mtu::B1024 => sys::IBV_MTU_1024,
            Mtu::B2048 => sys::IBV_MTU_2048,
            Mtu::B4096 => sys::IBV_MTU_4096,
        }
    }
}

const ALL_MTUS: [Mtu; 5] = [Mtu::B256, Mtu::B512, Mtu::B1024, Mtu::B2048, Mtu::B4096];

/// The state of a port (`ibv_port_state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortState {
    /// No link.
    Down,
    /// A link that is not configured.
    Init,
    /// Configured, not yet active.
    Armed,
    /// Up.
    Active,
    /// Another; its number in `ibv_port_state`.
    Other(u32),
}

/// What a port's link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE or iWARP.
    Ethernet,
    /// Not said; the number.
    Other(u8),
}

/// What a port is and does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortAttributes {
    /// Whether it is up.
    pub state: PortState,
    /// Largest MTU, if it is one of the known.
    pub max_mtu: Option<Mtu>,
    /// MTU in force, if it is one of the known.
    pub active_mtu: Option<Mtu>,
    /// Entries of the GID table.
    pub gid_table_len: u32,
    /// Entries of the partition key table.
    pub pkey_table_len: u16,
    /// Longest message in bytes.
    pub max_message: u32,
    /// Local identifier; 0 on Ethernet.
    pub lid: u16,
    /// What the link is.
    pub link_layer: LinkLayer,
    /// Lanes as `ibv_port_attr` codes them.
    pub active_width: u8,
    /// Speed as `ibv_port_attr` codes it.
    pub active_speed: u8,
    /// Physical state as `ibv_port_attr` codes it.
    pub physical_state: u8,
    /// `port_cap_flags`, uninterpreted.
    pub capabilities: u32,
}

impl PortAttributes {
    pub(super) fn new(attr: &sys::ibv_port_attr) -> PortAttributes {
        PortAttributes {
            state: match attr.state {
                sys::IBV_PORT_DOWN => PortState::Down,
                sys::IBV_PORT_INIT => PortState::Init,
                sys::IBV_PORT_ARMED => PortState::Armed,
                sys::IBV_PORT_ACTIVE => PortState::Active,
                other => PortState::Other(other),
            },
            max_mtu: Mtu::from_enum(attr.max_mtu),
            active_mtu: Mtu::from_enum(attr.active_mtu),
            gid_table_len: count(attr.gid_tbl_len),
            pkey_table_len: attr.pkey_tbl_len,
            max_message: attr.max_msg_sz,
            lid: attr.lid,
            link_layer: match u32::from(attr.link_layer) {
                sys::IBV_LINK_LAYER_INFINIBAND => LinkLayer::InfiniBand,
                sys::IBV_LINK_LAYER_ETHERNET => LinkLayer::Ethernet,
                _ => LinkLayer::Other(attr.link_layer),
            },
            active_width: attr.active_width,
            active_speed: attr.active_speed,
            physical_state: attr.phys_state,
            capabilities: attr.port_cap_flags,
        }
    }

    /// Bits a second of the link, if width and speed are coded in a known manner.
    #[must_use]
    pub fn bits_per_second(&self) -> Option<u64> {
        let lanes: u64 = match self.active_width {
            1 => 1,
            2 => 4,
            4 => 8,
            8 => 12,
            16 => 2,
            _ => return None,
        };
        let lane_megabits: u64 = match self.active_speed {
            1 => 2_500,
            2 => 5_000,
            4 | 8 => 10_000,
            16 => 14_000,
            32 => 25_000,
            64 => 50_000,
            128 => 100_000,
            _ => return None,
        };
        Some(lanes * lane_megabits * 1_000_000)
    }
}

/// What segmentation a device claims (`ibv_tso_caps`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TsoCapabilities {
    /// Longest message that is segmented, in bytes; 0 for none.
    pub max_bytes: u32,
    /// For datagram queue pairs.
    pub ud: bool,
    /// For raw packet queue pairs.
    pub raw_packet: bool,
}

/// What receive side scaling a device claims (`ibv_rss_caps`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RssCapabilities {
    /// For raw packet queue pairs.
    pub raw_packet: bool,
    /// Indirection tables; 0 for none.
    pub tables: u32,
    /// Entries of one.
    pub table_len: u32,
    /// Bits of `ibv_rx_hash_fields`.
    pub fields: u64,
    /// Whether Toeplitz is among the functions.
    pub toeplitz: bool,
}

/// What a device claims it can do, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceAttributes {
    /// Firmware, as text.
    pub firmware: String,
    /// Vendor's number.
    pub vendor_id: u32,
    /// Vendor's number of the part.
    pub vendor_part_id: u32,
    /// Hardware revision.
    pub hardware_version: u32,
    /// Ports.
    pub ports: u32,
    /// Longest region in bytes.
    pub max_mr_size: u64,
    /// Regions.
    pub max_mr: u32,
    /// Protection domains.
    pub max_pd: u32,
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests outstanding on one queue.
    pub max_qp_wr: u32,
    /// Scatter-gather elements of a work request.
    pub max_sge: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Entries of one.
    pub max_cqe: u32,
    /// Shared receive queues.
    pub max_srq: u32,
    /// Receives posted to one.
    pub max_srq_wr: u32,
    /// Scatter-gather elements of a receive in one.
    pub max_srq_sge: u32,
    /// Address handles.
    pub max_ah: u32,
    /// Raw packet queue pairs; 0 says nothing where drivers do not fill it in.
    pub max_raw_packet_qp: u32,
    /// Multicast groups.
    pub max_multicast_groups: u32,
    /// `device_cap_flags_ex`, or the older 32 bits of it.
    pub flags: u64,
    /// Checksums of raw packets: sent ones, and `IBV_WC_IP_CSUM_OK` (`IBV_DEVICE_RAW_IP_CSUM`).
    pub raw_checksum: bool,
    /// The same for datagrams (`IBV_DEVICE_UD_IP_CSUM`).
    pub ud_checksum: bool,
    /// Flow rules (`IBV_DEVICE_MANAGED_FLOW_STEERING`).
    pub flow_steering: bool,
    /// `raw_packet_caps`, uninterpreted.
    pub raw_packet_flags: u32,
    /// Segmentation.
    pub tso: TsoCapabilities,
    /// Receive side scaling.
    pub rss: RssCapabilities,
    /// Completion moderation: longest count; 0 for none.
    pub max_moderation_count: u16,
    /// Completion moderation: longest period in microseconds.
    pub max_moderation_us: u16,
    /// Bytes of memory on the device.
    pub max_device_memory: u64,
    /// Registration without pinning (`IBV_ODP_SUPPORT`).
    pub on_demand_paging: bool,
    /// Ticks a second of the device's clock in kHz; 0 if it has none.
    pub clock_khz: u64,
}

fn count(value: c_int) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// Whether a bit mask over `ibv_qp_type` has this type.
fn has_type(mask: u32, kind: sys::ibv_qp_type) -> bool {
    1_u32.checked_shl(kind).is_some_and(|bit| mask & bit != 0)
}

impl DeviceAttributes {
    pub(super) fn new(attr: &sys::ibv_device_attr_ex) -> DeviceAttributes {
        let base = &attr.orig_attr;
        let flags = attr.device_cap_flags_ex | u64::from(base.device_cap_flags);
        let has = |flag: sys::ibv_device_cap_flags| flags & u64::from(flag) != 0;
        let firmware = base.fw_ver.iter().map(|byte| char::from(byte.to_ne_bytes()[0]));
        DeviceAttributes {
            firmware: firmware.take_while(|&letter| letter != '\0').collect(),
            vendor_id: base.vendor_id,
            vendor_part_id: base.vendor_part_id,
            hardware_version: base.hw_ver,
            ports: attr.phys_port_cnt_ex.max(u32::from(base.phys_port_cnt)),
            max_mr_size: base.max_mr_size,
            max_mr: count(base.max_mr),
            max_pd: count(base.max_pd),
            max_qp: count(base.max_qp),
            max_qp_wr: count(base.max_qp_wr),
            max_sge: count(base.max_sge),
            max_cq: count(base.max_cq),
            max_cqe: count(base.max_cqe),
            max_srq: count(base.max_srq),
            max_srq_wr: count(base.max_srq_wr),
            max_srq_sge: count(base.max_srq_sge),
            max_ah: count(base.max_ah),
            max_raw_packet_qp: count(base.max_raw_ethy_qp),
            max_multicast_groups: count(base.max_mcast_grp),
            flags,
            raw_checksum: has(sys::IBV_DEVICE_RAW_IP_CSUM),
            ud_checksum: has(sys::IBV_DEVICE_UD_IP_CSUM),
            flow_steering: has(sys::IBV_DEVICE_MANAGED_FLOW_STEERING),
            raw_packet_flags: attr.raw_packet_caps,
            tso: TsoCapabilities {
                max_bytes: attr.tso_caps.max_tso,
                ud: has_type(attr.tso_caps.supported_qpts, sys::IBV_QPT_UD),
                raw_packet: has_type(attr.tso_caps.supported_qpts, sys::IBV_QPT_RAW_PACKET),
            },
            rss: RssCapabilities {
                raw_packet: has_type(attr.rss_caps.supported_qpts, sys::IBV_QPT_RAW_PACKET),
                tables: attr.rss_caps.max_rwq_indirection_tables,
                table_len: attr.rss_caps.max_rwq_indirection_table_size,
                fields: attr.rss_caps.rx_hash_fields_mask,
                toeplitz: u32::from(attr.rss_caps.rx_hash_function)
                    & sys::IBV_RX_HASH_FUNC_TOEPLITZ
                    != 0,
            },
            max_moderation_count: attr.cq_mod_caps.max_cq_count,
            max_moderation_us: attr.cq_mod_caps.max_cq_period,
            max_device_memory: attr.max_dm_size,
            on_demand_paging: attr.odp_caps.general_caps & u64::from(sys::IBV_ODP_SUPPORT) != 0,
            clock_khz: attr.hca_core_clock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sys::Zero;
    use super::*;

    #[test]
    fn mtus_are_their_bytes_and_their_numbers() {
        for (mtu, bytes, number) in [
            (Mtu::B256, 256, 1),
            (Mtu::B512, 512, 2),
            (Mtu::B1024, 1024, 3),
            (Mtu::B2048, 2048, 4),
            (Mtu::B4096, 4096, 5),
        ] {
            assert_eq!((mtu.bytes(), mtu.to_enum()), (bytes, number));
            assert_eq!(Mtu::from_enum(number), Some(mtu));
            assert_eq!(Mtu::from_bytes(bytes), Some(mtu));
        }
        assert_eq!(Mtu::from_enum(0), None);
        assert_eq!(Mtu::from_bytes(1500), None);
    }

    #[test]
    fn a_port_is_read_with_unknown_values_kept_apart() {
        let mut attr = sys::ibv_port_attr::zero();
        attr.state = 4;
        attr.active_mtu = 3;
        attr.max_mtu = 9;
        attr.link_layer = 2;
        attr.gid_tbl_len = -1;
        (attr.active_width, attr.active_speed) = (2, 32);
        let port = PortAttributes::new(&attr);
        assert_eq!(port.state, PortState::Active);
        assert_eq!((port.active_mtu, port.max_mtu), (Some(Mtu::B1024), None));
        assert_eq!(port.link_layer, LinkLayer::Ethernet);
        assert_eq!(port.gid_table_len, 0);
        assert_eq!(port.bits_per_second(), Some(100_000_000_000));
        attr.active_width = 3;
        attr.state = 17;
        let port = PortAttributes::new(&attr);
        assert_eq!((port.bits_per_second(), port.state), (None, PortState::Other(17)));
    }

    #[test]
    fn capabilities_are_read_bit_by_bit() {
        let mut attr = sys::ibv_device_attr_ex::zero();
        let none = DeviceAttributes::new(&attr);
        assert!(!none.raw_checksum && !none.ud_checksum && !none.flow_steering);
        assert!(!none.tso.raw_packet && !none.tso.ud && !none.rss.raw_packet);
        // Numbers of ibv_query_device_ex(3) and of the headers, not our constants.
        attr.device_cap_flags_ex = 1 << 26 | 1 << 29;
        attr.orig_attr.device_cap_flags = 1 << 18;
        attr.tso_caps.supported_qpts = 1 << 8;
        attr.tso_caps.max_tso = 65536;
        attr.rss_caps.supported_qpts = 1 << 4;
        attr.orig_attr.phys_port_cnt = 2;
        let all = DeviceAttributes::new(&attr);
        assert!(all.raw_checksum && all.ud_checksum && all.flow_steering);
        let tso = TsoCapabilities { max_bytes: 65536, ud: false, raw_packet: true };
        assert_eq!(all.tso, tso);
        assert!(!all.rss.raw_packet);
        assert_eq!(all.ports, 2);
    }
}
