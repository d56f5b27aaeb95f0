//! Errors of verbs: which device, which call, which errno, and what to do about it.
//!
//! Owns the remedies. Never retries anything. Results come in three forms, which manual pages mix:
//! an errno, -1 with errno set, and a null pointer with errno set.

use crate::nic::DeviceError;
use std::ffi::c_int;
use std::io;
use std::ptr::NonNull;

/// The error of a call that said `errno`.
pub(super) fn failure(device: &str, call: &'static str, errno: i32) -> DeviceError {
    DeviceError {
        device: device.to_owned(),
        call,
        source: io::Error::from_raw_os_error(errno),
        remedy: remedy(call, errno).to_owned(),
    }
}

/// An error that no call made: `what` says it.
pub(super) fn refusal(device: &str, what: String, remedy: String) -> DeviceError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, what);
    DeviceError { device: device.to_owned(), call: "", source, remedy }
}

/// The errno in the result of a call that returns an integer.
///
/// # Errors
/// The errno; `EIO` if the call failed without one.
pub(super) fn check(result: c_int) -> Result<(), i32> {
    match result {
        0 => Ok(()),
        -1 => Err(last_errno()),
        errno if errno > 0 => Err(errno),
        negative => Err(negative.checked_neg().unwrap_or(libc::EIO)),
    }
}

/// The object of a call that returns a pointer.
///
/// # Errors
/// The errno; `EIO` if the call failed without one.
pub(super) fn object<T>(pointer: *mut T) -> Result<NonNull<T>, i32> {
    NonNull::new(pointer).ok_or_else(last_errno)
}

/// This thread's errno, `EIO` if it is none.
pub(super) fn last_errno() -> i32 {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if errno == 0 { libc::EIO } else { errno }
}

/// What the user can do about an errno of a call; empty if nothing is known.
fn remedy(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("ibv_open_device" | "ibv_get_device_list", libc::EACCES | libc::EPERM) => {
            "run as root, or give the user /dev/infiniband (group rdma)"
        }
        ("ibv_get_device_list", libc::ENOSYS) => {
            "load the kernel's RDMA modules: modprobe ib_uverbs"
        }
        ("ibv_reg_mr", libc::ENOMEM) => {
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=) or register less"
        }
        ("ibv_reg_mr", libc::EOPNOTSUPP | libc::EINVAL | libc::EFAULT) => {
            "the memory must be mapped, and of a kind that the device can reach"
        }
        ("ibv_create_qp" | "ibv_create_flow", libc::EPERM | libc::EACCES) => {
            "a raw packet queue pair needs CAP_NET_RAW: run as root or setcap cap_net_raw+ep"
        }
        (_, libc::EOPNOTSUPP | libc::ENOSYS) => "this device or its driver cannot do that",
        ("ibv_create_cq" | "ibv_create_qp" | "ibv_create_srq", libc::EINVAL) => {
            "ask for less: a size is beyond what the device has"
        }
        (_, libc::ENOMEM) => "the device's resources or the limit of locked memory are used up",
        (_, libc::ENODEV | libc::EIO) => "the device was removed or has failed",
        (_, libc::ETIMEDOUT) => "the peer or its port does not answer: see that both ports are up",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_errno(value: i32) {
        // SAFETY: no arguments.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: this thread's own.
        unsafe { *errno = value };
    }

    #[test]
    fn every_form_of_result_gives_its_errno() {
        set_errno(libc::EAGAIN);
        for (name, result, expected) in [
            ("done", 0, Ok(())),
            ("an errno", libc::EINVAL, Err(libc::EINVAL)),
            ("minus one, errno set", -1, Err(libc::EAGAIN)),
            ("a negative errno", -libc::ENOMEM, Err(libc::ENOMEM)),
            ("the lowest integer", i32::MIN, Err(libc::EIO)),
        ] {
            assert_eq!(check(result), expected, "{name}");
        }
        assert_eq!(object(std::ptr::null_mut::<u8>()).unwrap_err(), libc::EAGAIN);
        set_errno(0);
        assert_eq!(check(-1), Err(libc::EIO));
    }

    #[test]
    fn an_error_names_device_call_errno_and_remedy() {
        let text = failure("mlx5_0", "ibv_create_qp", libc::EPERM).to_string();
        assert_eq!(
            text,
            "mlx5_0: ibv_create_qp: Operation not permitted (os error 1); a raw packet queue pair \
             needs CAP_NET_RAW: run as root or setcap cap_net_raw+ep"
        );
    }
}
