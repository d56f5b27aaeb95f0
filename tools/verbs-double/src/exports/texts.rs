//! Texts, rates, and calls that answer without a device: ibv_wc_status_str(3),
//! ibv_event_type_str(3), ibv_rate_to_mult(3), ibv_rate_to_mbps(3), ibv_fork_init(3).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::strings;

fn at(table: &[(&'static CStr, &str)], value: c_uint, other: &'static CStr) -> *const c_char {
    let row = usize::try_from(value).ok().and_then(|value| table.get(value));
    row.map_or(other, |row| row.0).as_ptr()
}

/// ibv_wc_status_str(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_wc_status_str(status: c_uint) -> *const c_char {
    at(&strings::WC_STATUS, status, c"unknown")
}

/// ibv_event_type_str(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_event_type_str(event: c_uint) -> *const c_char {
    at(&strings::EVENT, event, c"unknown")
}

/// ibv_event_type_str(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_port_state_str(state: c_uint) -> *const c_char {
    let state = usize::try_from(state).ok().and_then(|state| strings::PORT_STATE.get(state));
    state.copied().unwrap_or(c"unknown").as_ptr()
}

/// ibv_event_type_str(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_node_type_str(kind: c_int) -> *const c_char {
    let place = usize::try_from(kind - 1).ok();
    place.and_then(|place| strings::NODE_TYPE.get(place)).copied().unwrap_or(c"unknown").as_ptr()
}

/// `enum ibv_rate`, its multiple of 2.5 Gbit/s, and Mbit/s (verbs.h, ibv_rate_to_mbps(3)).
const RATES: [(c_uint, c_int, c_int); 23] = [
    (2, 1, 2500),
    (5, 2, 5000),
    (3, 4, 10000),
    (6, 8, 20000),
    (4, 12, 30000),
    (7, 16, 40000),
    (8, 24, 60000),
    (9, 32, 80000),
    (10, 48, 120_000),
    (11, 5, 14062),
    (12, 22, 56250),
    (13, 45, 112_500),
    (14, 67, 168_750),
    (15, 10, 25781),
    (16, 41, 103_125),
    (17, 82, 206_250),
    (18, 123, 309_375),
    (19, 11, 28125),
    (20, 20, 53125),
    (21, 160, 425_000),
    (22, 240, 637_500),
    (23, 320, 850_000),
    (24, 480, 1_275_000),
];

/// ibv_rate_to_mult(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_rate_to_mult(rate: c_uint) -> c_int {
    RATES.iter().find(|row| row.0 == rate).map_or(-1, |row| row.1)
}

/// ibv_rate_to_mult(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mult_to_ibv_rate(multiple: c_int) -> c_uint {
    RATES.iter().find(|row| row.1 == multiple).map_or(0, |row| row.0)
}

/// ibv_rate_to_mbps(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_rate_to_mbps(rate: c_uint) -> c_int {
    RATES.iter().find(|row| row.0 == rate).map_or(-1, |row| row.2)
}

/// ibv_rate_to_mbps(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mbps_to_ibv_rate(mbps: c_int) -> c_uint {
    RATES.iter().find(|row| row.2 == mbps).map_or(0, |row| row.0)
}

/// ibv_fork_init(3): nothing here is shared with a device, so nothing is to be prepared.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_fork_init() -> c_int {
    0
}

/// ibv_is_fork_initialized(3): IBV_FORK_UNNEEDED.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_is_fork_initialized() -> c_uint {
    2
}

/// See ibv_fork_init(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_dontfork_range(_base: *mut c_void, _size: usize) -> c_int {
    0
}

/// See ibv_fork_init(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_dofork_range(_base: *mut c_void, _size: usize) -> c_int {
    0
}

/// Where sysfs is mounted; private to rdma-core and its tools.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ibv_get_sysfs_path() -> *const c_char {
    c"/sys".as_ptr()
}

/// Reads a file of a folder as text without its last line end: its length, or -1. Private to
/// rdma-core and its tools; the devices of the double have no folder, so it finds nothing.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ibv_read_sysfs_file(
    folder: *const c_char,
    file: *const c_char,
    buffer: *mut u8,
    size: usize,
) -> c_int {
    if folder.is_null() || file.is_null() || buffer.is_null() || size == 0 {
        return -1;
    }
    // SAFETY: a C string that lives through the call.
    let folder = unsafe { CStr::from_ptr(folder) }.to_string_lossy();
    // SAFETY: as above.
    let file = unsafe { CStr::from_ptr(file) }.to_string_lossy();
    let Ok(mut text) = std::fs::read(format!("{folder}/{file}")) else { return -1 };
    text.truncate(size - 1);
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    // SAFETY: the buffer has `size` bytes, and the text is shorter.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len()) };
    // SAFETY: the text is at least one byte shorter than the buffer.
    let end = unsafe { buffer.add(text.len()) };
    // SAFETY: within the buffer, see above.
    unsafe { end.write(0) };
    c_int::try_from(text.len()).unwrap_or(-1)
}
