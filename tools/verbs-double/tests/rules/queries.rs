//! What a device tells of itself, through exported functions and through `struct verbs_context`.

use super::harness::*;
use std::ffi::{CStr, c_char, c_int, c_uint};
use verbs_double::abi::consts::*;
use verbs_double::abi::objects::*;

// SAFETY: as in the harness. The last argument of `_ibv_query_gid_ex` is not read.
unsafe extern "C" {
    safe fn ibv_query_device(context: *mut Context, attr: *mut DeviceAttr) -> c_int;
    safe fn ibv_query_port(context: *mut Context, port: u8, attr: *mut CompatPortAttr) -> c_int;
    safe fn _ibv_query_gid_ex(
        context: *mut Context,
        port: u32,
        index: u32,
        entry: *mut GidEntry,
        flags: u32,
    ) -> c_int;
    safe fn _ibv_query_gid_table(
        context: *mut Context,
        entries: *mut GidEntry,
        room: usize,
        flags: u32,
        size: usize,
    ) -> isize;
    safe fn ibv_query_pkey(context: *mut Context, port: u8, index: c_int, key: *mut u16) -> c_int;
    safe fn ibv_wc_status_str(status: c_uint) -> *const c_char;
    safe fn ibv_event_type_str(event: c_uint) -> *const c_char;
}

const DEVICE: &str = "dev=a,max_sge=7,max_qp_wr=99,max_tso=65536,active_mtu=2048,netdev=lo,\
    gid=fe80::1/v1,gid=empty,gid=10.1.2.3;dev=poor,raw=off,max_tso=0,csum=off,flows=off";

#[test]
fn a_device_tells_what_was_configured() {
    let _world = world(DEVICE);
    let (rich, poor) = (open(0), open(1));
    let mut attr: DeviceAttr = zeroed();
    assert_eq!(ibv_query_device(rich, &raw mut attr), 0);
    assert_eq!((attr.max_sge, attr.max_qp_wr), (7, 99));
    let offloads = DEVICE_RAW_IP_CSUM | DEVICE_MANAGED_FLOW_STEERING;
    assert_eq!(attr.device_cap_flags & offloads, offloads);
    assert_eq!(ibv_query_device(poor, &raw mut attr), 0);
    assert_eq!((attr.device_cap_flags & offloads, attr.max_raw_ethy_qp), (0, 0));

    let call = verbs(rich).query_device_ex.unwrap();
    let mut more: DeviceAttrEx = zeroed();
    let size = size_of::<DeviceAttrEx>();
    // SAFETY: attributes that live through the call, here and below.
    assert_eq!(unsafe { call(rich, std::ptr::null(), &raw mut more, size) }, 0);
    assert_eq!(more.tso_caps, [65536, 1 << QPT_RAW_PACKET]);
    assert_eq!(more.raw_packet_caps, RAW_PACKET_CAP_IP_CSUM);
    // An older program has room for less, and no more is written.
    more.tso_caps = [1, 2];
    let less = size_of::<DeviceAttr>();
    // SAFETY: as above.
    assert_eq!(unsafe { call(rich, std::ptr::null(), &raw mut more, less) }, 0);
    assert_eq!(more.tso_caps, [1, 2]);
    let mask = 1u32;
    // SAFETY: as above.
    assert_eq!(unsafe { call(rich, &raw const mask, &raw mut more, size) }, libc::EINVAL);
}

#[test]
fn both_forms_tell_the_port() {
    let _world = world(DEVICE);
    let context = open(0);
    let mut old = CompatPortAttr::default();
    assert_eq!(ibv_query_port(context, 1, &raw mut old), 0);
    assert_eq!(ibv_query_port(context, 2, &raw mut old), libc::EINVAL);
    let call = verbs(context).query_port.unwrap();
    let mut new: PortAttr = zeroed();
    // SAFETY: attributes that live through the call.
    assert_eq!(unsafe { call(context, 1, &raw mut new, size_of::<PortAttr>()) }, 0);
    for port in [old, new.compat] {
        assert_eq!((port.state, port.active_mtu, port.gid_tbl_len), (PORT_ACTIVE, 4, 3));
        assert_eq!((port.link_layer, port.flags), (LINK_LAYER_ETHERNET, QPF_GRH_REQUIRED));
    }
    control("port a down");
    assert_eq!(ibv_query_port(context, 1, &raw mut old), 0);
    assert_eq!(old.state, PORT_DOWN);
}

/// ibv_query_gid_ex(3): "ENODATA: gid_index is within the GID table size but there is no data".
#[test]
fn the_gid_table_has_holes() {
    let _world = world(DEVICE);
    let context = open(0);
    let mut entry = GidEntry::default();
    let mut ask = |port: u32, index: u32, flags: u32| {
        _ibv_query_gid_ex(context, port, index, &raw mut entry, flags)
    };
    assert_eq!(ask(1, 0, 0), 0);
    assert_eq!(ask(1, 1, 0), libc::ENODATA);
    assert_eq!(ask(1, 3, 0), libc::EINVAL);
    assert_eq!(ask(2, 0, 0), libc::EINVAL);
    assert_eq!(ask(1, 0, 1), libc::EOPNOTSUPP);
    assert_eq!(ask(1, 2, 0), 0);
    assert_eq!((entry.gid_index, entry.gid_type), (2, GID_TYPE_ROCE_V2));
    assert_ne!(entry.ndev_ifindex, 0);
    let mut table = [GidEntry::default(); 4];
    let size = size_of::<GidEntry>();
    let count = _ibv_query_gid_table(context, table.as_mut_ptr(), 4, 0, size);
    assert_eq!((count, table[0].gid_index, table[1].gid_index), (2, 0, 2));
    let little = _ibv_query_gid_table(context, table.as_mut_ptr(), 1, 0, size);
    assert_eq!(little, -22);
    let mut gid = [1; 16];
    assert_eq!(ibv_query_gid(context, 1, 1, &raw mut gid), 0);
    assert_eq!(gid, [0; 16]);
    assert_eq!(ibv_query_gid(context, 1, 3, &raw mut gid), -1);
    control("gid a 1 10.9.9.9");
    assert_eq!(_ibv_query_gid_table(context, table.as_mut_ptr(), 4, 0, size), 3);
    let mut key = 0;
    assert_eq!((ibv_query_pkey(context, 1, 0, &raw mut key), key), (0, 0xffff));
    assert_eq!(ibv_query_pkey(context, 1, 1, &raw mut key), -1);
}

#[test]
fn texts_are_those_of_the_page() {
    let text = |pointer: *const c_char| {
        // SAFETY: the library returns constant strings.
        unsafe { CStr::from_ptr(pointer) }.to_str().unwrap()
    };
    assert_eq!(text(ibv_wc_status_str(WC_RETRY_EXC_ERR)), "transport retry counter exceeded");
    assert_eq!(text(ibv_wc_status_str(99)), "unknown");
    assert_eq!(text(ibv_event_type_str(EVENT_DEVICE_FATAL)), "local catastrophic error");
}
