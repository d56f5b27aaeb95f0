//! The double's own functions, for tests that load it: `verbs_double_control`,
//! `verbs_double_configure`, `verbs_double_counter`, `verbs_double_clear_counters`,
//! `verbs_double_counters`. A program finds them with dlsym(3).

use std::ffi::{CStr, c_char, c_int};

use super::status;
use crate::counters::Counters;
use crate::world;

fn text(line: *const c_char) -> Option<String> {
    if line.is_null() {
        return None;
    }
    // SAFETY: a C string that lives through the call.
    Some(unsafe { CStr::from_ptr(line) }.to_string_lossy().into_owned())
}

fn report(result: Result<(), String>) -> c_int {
    status(result.map_err(|error| {
        eprintln!("libibverbs double: {error}");
        libc::EINVAL
    }))
}

/// Executes a control line: 0, or `EINVAL` and a sentence on standard error.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn verbs_double_control(line: *const c_char) -> c_int {
    let Some(line) = text(line) else { return status(Err(libc::EINVAL)) };
    report(world::with(|world| world.control(&line)))
}

/// Forgets all objects and begins again with another text than that of the environment: 0, or
/// `EINVAL`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn verbs_double_configure(line: *const c_char) -> c_int {
    let Some(line) = text(line) else { return status(Err(libc::EINVAL)) };
    report(world::replace(&line))
}

/// A counter by name; `u64::MAX` if there is none of this name.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn verbs_double_counter(name: *const c_char) -> u64 {
    let name = text(name).unwrap_or_default();
    world::with(|world| world.counters.by_name(&name)).unwrap_or(u64::MAX)
}

/// Sets all counters to 0.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn verbs_double_clear_counters() {
    world::with(|world| world.counters = Counters::default());
}

/// Writes "name value" lines of all counters, ended by a zero byte, into `room` bytes; returns the
/// length that it needs without the zero.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn verbs_double_counters(out: *mut u8, room: usize) -> usize {
    let lines = world::with(|world| world.counters.lines());
    if room > 0 && !out.is_null() {
        let mut bytes = lines.as_bytes()[..lines.len().min(room - 1)].to_vec();
        bytes.push(0);
        // SAFETY: the program states room for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, bytes.len()) };
    }
    lines.len()
}
