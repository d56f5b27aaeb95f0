//! Address handles: ibv_create_ah(3), and ibv_init_ah_from_wc(3) with its reading of the GRH area.

use crate::abi::objects::AhAttr;
use crate::abi::work::Wc;
use crate::message::{Message, ROCE_V2};
use crate::world::World;

/// An address handle.
pub(crate) struct Ah {
    /// Number of its device.
    pub(crate) device: usize,
    /// Handle of its protection domain.
    pub(crate) pd: u32,
    /// What it was made from.
    pub(crate) attr: AhAttr,
}

/// The 16 bytes of a GID as the header keeps it in words.
pub(crate) fn gid_bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

/// The words of a GID.
pub(crate) fn gid_words(bytes: [u8; 16]) -> [u64; 2] {
    let (mut first, mut second) = ([0; 8], [0; 8]);
    first.copy_from_slice(&bytes[..8]);
    second.copy_from_slice(&bytes[8..]);
    [u64::from_ne_bytes(first), u64::from_ne_bytes(second)]
}

/// Whether a device can send along an address: a real port, a GRH where the port asks for one
/// (ibv_create_ah(3), `IBV_QPF_GRH_REQUIRED`), a source GID that is there, a destination.
pub(crate) fn is_usable(world: &World, device: usize, attr: &AhAttr) -> bool {
    let Some(device) = world.devices.get(device) else { return false };
    let grh = attr.is_global != 0;
    let route =
        grh && device.gid(u32::from(attr.sgid_index)).is_some() && gid_bytes(attr.dgid) != [0; 16];
    attr.port_num == 1 && attr.sl < 16 && (route || (!grh && device.config.infiniband))
}

/// The mapping of IPv4 that RoCE v2 uses.
fn is_v4(gid: &[u8; 16]) -> bool {
    gid[..10] == [0; 10] && gid[10..12] == [0xff; 2]
}

fn sum(header: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in header.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The 40 bytes before a datagram (ibv_post_recv(3)). RoCE v2 over IPv4 has an IPv4 header in the
/// last 20 and leaves the first 20 undefined: InfiniBand annex A17.4.5.2.
pub(crate) fn route_header(message: &Message) -> [u8; 40] {
    let mut area = [0; 40];
    let length = u16::try_from(message.payload.len() + 8 + 12 + 8 + 4).unwrap_or(u16::MAX);
    if message.flags & ROCE_V2 != 0 && is_v4(&message.dgid) {
        // Undefined bytes are not zero, lest someone relies on it.
        area[..20].fill(0xa5);
        let header = &mut area[20..];
        header[0] = 0x45;
        header[1] = message.class;
        header[2..4].copy_from_slice(&length.saturating_add(20).to_be_bytes());
        header[6] = 0x40;
        header[8] = message.hops;
        header[9] = crate::segment::PROTOCOL_UDP;
        header[12..16].copy_from_slice(&message.sgid[12..]);
        header[16..20].copy_from_slice(&message.dgid[12..]);
        let check = sum(header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        return area;
    }
    let first = 0x6000_0000 | u32::from(message.class) << 20 | (message.label & 0xf_ffff);
    area[..4].copy_from_slice(&first.to_be_bytes());
    area[4..6].copy_from_slice(&length.to_be_bytes());
    // Next header: UDP for RoCE v2, BTH (0x1b) for RoCE v1 and InfiniBand.
    area[6] = if message.flags & ROCE_V2 != 0 { 17 } else { 0x1b };
    area[7] = message.hops;
    area[8..24].copy_from_slice(&message.sgid);
    area[24..40].copy_from_slice(&message.dgid);
    area
}

/// ibv_init_ah_from_wc(3): the way back to the sender of a completion. `None` if the GRH's
/// destination is no GID of the port.
pub(crate) fn from_completion(
    world: &World,
    device: usize,
    wc: &Wc,
    area: &[u8; 40],
) -> Option<AhAttr> {
    let mut attr = AhAttr { dlid: wc.slid, sl: wc.sl, port_num: 1, ..AhAttr::default() };
    if wc.wc_flags & crate::abi::consts::WC_FLAG_GRH == 0 {
        return Some(attr);
    }
    let four = &area[20..];
    let (source, destination, class, label, hops, v4);
    if four[0] == 0x45 && sum(four) == 0 {
        let mapped = |bytes: &[u8]| {
            let mut gid = [0; 16];
            gid[10..12].fill(0xff);
            gid[12..].copy_from_slice(bytes);
            gid
        };
        (source, destination) = (mapped(&four[12..16]), mapped(&four[16..20]));
        (class, label, hops, v4) = (four[1], 0, four[8], true);
    } else {
        let first = u32::from_be_bytes([area[0], area[1], area[2], area[3]]);
        let (mut from, mut to) = ([0; 16], [0; 16]);
        from.copy_from_slice(&area[8..24]);
        to.copy_from_slice(&area[24..]);
        (source, destination) = (from, to);
        class = u8::try_from((first >> 20) & 0xff).unwrap_or(0);
        (label, hops, v4) = (first & 0xf_ffff, area[7], area[6] == 17);
    }
    let v2 = crate::abi::consts::GID_TYPE_ROCE_V2;
    let gids = &world.devices.get(device)?.gids;
    let index = gids.iter().position(|gid| gid.raw == destination && (gid.kind == v2) == v4)?;
    attr.is_global = 1;
    attr.dgid = gid_words(source);
    attr.sgid_index = u8::try_from(index).ok()?;
    attr.traffic_class = class;
    attr.flow_label = label;
    attr.hop_limit = hops.max(64);
    Some(attr)
}
