//! What `c/end.c` exports: one table of functions for each copy of lwIP.

use std::ffi::{c_int, c_void};

/// lwIP's `struct pbuf`, of which only pointers are seen.
#[repr(C)]
pub(crate) struct Pbuf {
    opaque: [u8; 0],
}

/// `struct roceway_callbacks`.
#[repr(C)]
pub(crate) struct Callbacks {
    pub(crate) send: unsafe extern "C" fn(*mut c_void, *const Pbuf, u32) -> c_int,
    pub(crate) received: unsafe extern "C" fn(*mut c_void, *const u8, u32),
}

/// `struct roceway_options`.
#[repr(C)]
pub(crate) struct RawOptions {
    pub(crate) mtu: u16,
    pub(crate) host: u8,
    pub(crate) peer: u8,
    pub(crate) checksums: u8,
    pub(crate) udp: u8,
    pub(crate) listens: u8,
}

/// `struct roceway_calls`.
#[repr(C)]
pub(crate) struct Calls {
    pub(crate) start:
        unsafe extern "C" fn(*mut c_void, *const Callbacks, *const RawOptions) -> c_int,
    pub(crate) finish: unsafe extern "C" fn(),
    pub(crate) is_ready: unsafe extern "C" fn() -> c_int,
    pub(crate) input: unsafe extern "C" fn(*mut c_void, *const u8, u32) -> c_int,
    pub(crate) timers: unsafe extern "C" fn(*mut c_void, u32),
    pub(crate) room: unsafe extern "C" fn() -> u32,
    pub(crate) write: unsafe extern "C" fn(*mut c_void, *const u8, u32) -> u32,
    pub(crate) send_datagram: unsafe extern "C" fn(*mut c_void, *const u8, u32) -> c_int,
    pub(crate) copy: unsafe extern "C" fn(*const Pbuf, *mut u8, u32) -> u32,
}

unsafe extern "C" {
    // SAFETY: constants of C that nobody writes; build.rs links both.
    pub(crate) safe static roceway_calls_left: Calls;
    pub(crate) safe static roceway_calls_right: Calls;
}
