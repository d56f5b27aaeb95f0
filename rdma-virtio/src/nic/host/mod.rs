//! What the backends that speak to the host's kernel share: posted receives and sends as iovecs,
//! and the event fd. TAP and packet sockets both read and write one message a system call.
//!
//! Knows nothing of the devices themselves.

pub(super) mod events;
pub(super) mod receives;
pub(super) mod sends;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::os::fd::RawFd;

use super::DeviceError;
pub(super) use super::places::NET_HEADER_LEN;
use super::rtnl::error;

/// Longest message: header, Ethernet header and a 64 KB frame, as virtio 1.2 §5.1.6.3.1 reckons.
pub(super) const MESSAGE_MAX: u32 = NET_HEADER_LEN + 14 + 65_536;

/// A message of a link without large frames: header, Ethernet header, one VLAN tag, IP packet.
pub(super) fn plain_message_max(mtu: u16) -> u32 {
    NET_HEADER_LEN + 18 + u32::from(mtu)
}

/// Refuses an option out of its range.
pub(super) fn in_range(
    device: &str,
    option: &'static str,
    value: u16,
    range: RangeInclusive<u16>,
) -> Result<(), DeviceError> {
    if range.contains(&value) {
        return Ok(());
    }
    let source = std::io::Error::from_raw_os_error(libc::EINVAL);
    let remedy = format!("it is {value} and must be {} to {}", range.start(), range.end());
    Err(error(device, option, source, &remedy))
}

/// One `struct iovec`, as an address instead of a pointer, so that whoever holds it may move to
/// another thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: usize,
    pub(super) len: usize,
}

// `readv` and `writev` are handed these: the layouts must agree.
const _: () = assert!(
    size_of::<IoVec>() == size_of::<libc::iovec>()
        && align_of::<IoVec>() == align_of::<libc::iovec>()
        && std::mem::offset_of!(IoVec, len) == std::mem::offset_of!(libc::iovec, iov_len)
);

/// What a message-preserving fd said to one `readv` or `writev`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Io {
    /// So many bytes were moved.
    Done(usize),
    /// Nothing there, or no room; try later.
    Again,
    /// The interface is down or gone.
    LinkFault(i32),
    /// Refused for another reason; the errno.
    Refused(i32),
}

fn outcome(result: isize) -> Io {
    if let Ok(length) = usize::try_from(result) {
        return Io::Done(length);
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    match errno {
        // ENOBUFS is the answer of a full device queue; the frame did not leave.
        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => Io::Again,
        // EIO and EBADFD are a TAP's words for down and deleted.
        libc::EIO | libc::EBADFD | libc::ENETDOWN | libc::ENODEV | libc::ENXIO => {
            Io::LinkFault(errno)
        }
        _ => Io::Refused(errno),
    }
}

/// Most elements in one system call (`IOV_MAX`).
pub(super) const VECTORS_MAX: usize = 1024;

/// Reads one message.
///
/// # Safety
/// Every range in `vectors` may be written.
#[inline]
pub(super) unsafe fn read_message(fd: RawFd, vectors: &[IoVec]) -> Io {
    if let [one] = vectors {
        let bytes = std::ptr::with_exposed_provenance_mut(one.base);
        // SAFETY: the caller vouches for the range.
        return outcome(unsafe { libc::read(fd, bytes, one.len) });
    }
    let count = i32::try_from(vectors.len().min(VECTORS_MAX)).unwrap_or(0);
    // SAFETY: IoVec has iovec's layout (asserted above), `count` is within the slice, and the
    // caller vouches for the ranges.
    outcome(unsafe { libc::readv(fd, vectors.as_ptr().cast(), count) })
}

/// Messages up to this length are gathered before they are written: `write` of one piece costs 50
/// to 100 ns less than `writev` of several, the copy 10.
const GATHER_MAX: usize = 256;

/// Writes one message.
///
/// # Safety
/// Every range in `vectors` may be read.
#[inline]
pub(super) unsafe fn write_message(fd: RawFd, vectors: &[IoVec]) -> Io {
    if let [one] = vectors {
        let bytes = std::ptr::with_exposed_provenance(one.base);
        // SAFETY: the caller vouches for the range.
        return outcome(unsafe { libc::write(fd, bytes, one.len) });
    }
    let mut short = [0_u8; GATHER_MAX];
    // SAFETY: the caller vouches for the ranges.
    if let Some(length) = unsafe { gather(vectors, &mut short) } {
        // SAFETY: `gather` filled so many bytes of `short`.
        return outcome(unsafe { libc::write(fd, short.as_ptr().cast(), length) });
    }
    let count = i32::try_from(vectors.len().min(VECTORS_MAX)).unwrap_or(0);
    // SAFETY: IoVec has iovec's layout (asserted above), `count` is within the slice, and the
    // caller vouches for the ranges.
    outcome(unsafe { libc::writev(fd, vectors.as_ptr().cast(), count) })
}

/// Copies the ranges one behind the other; returns their length, or nothing if they do not fit.
///
/// # Safety
/// Every range in `vectors` may be read.
#[inline]
pub(super) unsafe fn gather(vectors: &[IoVec], target: &mut [u8]) -> Option<usize> {
    let mut filled = 0_usize;
    for vector in vectors {
        let to = target.get_mut(filled..filled.checked_add(vector.len)?)?;
        let from = std::ptr::with_exposed_provenance::<u8>(vector.base);
        // SAFETY: the caller vouches for the source; the target is a slice of as many bytes, which
        // `&mut` keeps apart from it.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), vector.len) };
        filled += vector.len;
    }
    Some(filled)
}
